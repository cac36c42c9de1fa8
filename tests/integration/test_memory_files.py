"""FileBackend: go-deep-agent's files, kept safely from kills, other processes, odd file systems and whatever lies in the folder."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import (
    DiskFullError,
    FileBackend,
    InvalidInputError,
    SessionStore,
    StoreBusyError,
    StoreCorruptError,
    StoreIOError,
    UnsafePathError,
)
from sessionstore.database.locks import SidecarLock
from sessionstore.memory import files
from sessionstore.memory.names import id_of, name_of, plain_name_of

HELLO = [{"role": "user", "content": "1 < 2 & é"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Hanoi"}'}}
TOOLED = [
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
]
BY_0_8 = '[\n  {\n    "Role": "user",\n    "Content": "1 \\u003c 2 \\u0026 é"\n  }\n]'
BY_0_11 = """[
  {
    "Role": "assistant",
    "Content": "",
    "ToolCalls": [
      {
        "ID": "call_1",
        "Type": "function",
        "Name": "get_weather",
        "Arguments": "{\\"city\\":\\"Hanoi\\"}"
      }
    ],
    "ToolCallID": ""
  },
  {
    "Role": "tool",
    "Content": "rain",
    "ToolCalls": null,
    "ToolCallID": "call_1"
  }
]"""
KILL_ROUNDS = int(os.environ.get("SESSIONSTORE_TEST_KILL_ROUNDS", "3"))
WRITER = """
import sys
from sessionstore import FileBackend
backend = FileBackend(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    backend.save("s", [{"role": "user", "content": f"{number} " * 40_000}] * 3)
    print(number, flush=True)
"""
# Forks a child for each step of a save, which dies there by the signal; the last one comes to the end. Prints what each left.
DIES = """
import json, os, pathlib, signal, sys
from sessionstore import FileBackend
backend, session_id, is_first = FileBackend(sys.argv[1]), sys.argv[2], sys.argv[3] == "first"

def watched(call):
    def step(*given, **named):
        global left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*given, **named)
    return step

def die_at(step):
    global left
    left = step
    os.open, os.fsync, os.fdopen = watched(os.open), watched(os.fsync), watched(os.fdopen)
    pathlib.Path.replace, pathlib.Path.unlink = watched(pathlib.Path.replace), watched(pathlib.Path.unlink)
    backend.save(session_id, [{"role": "user", "content": "new"}])

for step in range(60):
    backend.delete(session_id) if is_first else backend.save(session_id, [{"role": "user", "content": "old"}])
    child = os.fork()
    if not child:
        try:
            die_at(step)
        finally:
            os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = backend.load(session_id)
    print(json.dumps([ended, found and [each["content"] for each in found], backend.list()]))
    if not ended:
        break
"""


def kill_at_each_step(backend: FileBackend, session_id: str, *, first: bool) -> list[list[str] | None]:
    """What was there after the kill at each step of a save; at the end nothing is left over."""
    command = [sys.executable, "-c", DIES, str(backend.directory), session_id, "first" if first else "again"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [ended for ended, _, _ in lines] == [*([-signal.SIGKILL] * (len(lines) - 1)), 0]
    assert len(lines) > 5
    for _, found, listed in lines:
        assert listed == ([] if found is None else [session_id])
    backend.delete(session_id)
    assert names_in(backend) == [".lock"]
    return [found for _, found, _ in lines]


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    return FileBackend(tmp_path / "sessions")


def names_in(backend: FileBackend) -> list[str]:
    """What lies in the folder."""
    return sorted(path.name for path in backend.directory.iterdir())


def put(backend: FileBackend, name: str, text: str) -> Path:
    """A file of another program."""
    backend.directory.mkdir(exist_ok=True)
    path = backend.directory / name
    path.write_text(text, encoding="utf-8")
    return path


# -- the layout


def test_files_of_both_generations_of_go_deep_agent_are_read(backend: FileBackend) -> None:
    put(backend, "old.json", BY_0_8)
    put(backend, "new.json", BY_0_11)
    put(backend, "lower.json", '[{"role": "user", "content": "1 < 2 & é", "toolCalls": null}]')
    put(backend, "none.json", "null")
    assert backend.list() == ["lower", "new", "none", "old"]
    assert [backend.load(name) for name in backend.list()] == [HELLO, TOOLED, [], HELLO]


def test_a_file_is_what_go_deep_agent_writes(backend: FileBackend) -> None:
    backend.save("user-alice", TOOLED)
    assert (backend.directory / "user-alice.json").read_text(encoding="utf-8") == BY_0_11
    backend.save("empty", [])
    assert (backend.directory / "empty.json").read_text() == "[]"


def test_keys_that_go_does_not_know_and_roles_that_nobody_knows_stay(backend: FileBackend) -> None:
    put(backend, "s.json", '[{"Role": "critic", "Content": "x", "ToolCalls": [{"ID": "c", "Name": "f", "Extra": 1}], "Mood": [1]}]')
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}, "Extra": 1}
    expected = [{"role": "critic", "content": "x", "tool_calls": [call], "Mood": [1]}]
    assert backend.load("s") == expected
    backend.save("s", [*expected, *HELLO])
    assert backend.load("s") == [*expected, *HELLO]


def test_what_go_changed_counts(backend: FileBackend) -> None:
    """Go drops the note of what its layout cannot say, or keeps it beside a text of its own."""
    backend.save("s", [{"role": "user", "content": "old", "name": "alice"}])
    path = backend.directory / "s.json"
    (message,) = json.loads(path.read_text())
    assert message["sessionstore"] == {"message": {"role": "user", "content": "old", "name": "alice"}}
    path.write_text(json.dumps([{**message, "Content": "new"}]))
    assert backend.load("s") == [{"role": "user", "content": "new"}]


def test_the_store_imports_the_folder(backend: FileBackend, store: SessionStore) -> None:
    backend.save("user-alice", TOOLED)
    store.import_file(backend.directory, format="go-deep-agent")
    assert store.as_memory_backend().load("user-alice") == TOOLED


# -- names


def test_names_are_plain_for_plain_ids_and_differ_by_more_than_case() -> None:
    ids = ["user-alice", "USER-alice", "User-Alice", "語", "a/b", "x" * 256, "X" * 256]
    found = [name_of(each) for each in ids]
    assert found[0] == "user-alice"
    assert len({name.casefold() for name in found}) == len(ids)
    assert max(len(name.encode()) for name in found) <= 180
    assert [id_of(name) for name in found] == [*ids[:5], None, None]


def test_no_id_has_the_name_of_another_one() -> None:
    """Also not one that is made to look like it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pick = random.Random(seed)
    ids = {"".join(pick.choices("aAbB~%/.é語ß0", k=pick.choice((1, 2, 3, 5, 200)))) for _ in range(1_000)}
    for _ in range(2):
        ids |= {name_of(each) for each in ids}
    owners: dict[str, str] = {}
    for each in sorted(ids):
        if len(each) <= 256:
            assert owners.setdefault(name_of(each).casefold(), each) == each
            assert id_of(name_of(each)) in (each, None)
    plain = {plain for each in owners.values() if (plain := plain_name_of(each)) is not None}
    assert plain.isdisjoint({name_of(each) for each in owners.values()})


def test_a_file_that_go_deep_agent_made_for_a_capital_letter_is_used_where_it_is(backend: FileBackend) -> None:
    path = put(backend, "Alice.json", BY_0_8)
    assert backend.load("Alice") == HELLO
    assert backend.load("alice") is None
    assert backend.list() == ["Alice"]
    backend.save("alice", TOOLED)
    backend.save("Alice", [*HELLO, *HELLO])
    assert json.loads(path.read_text())[1]["Role"] == "user"
    assert (backend.list(), backend.load("alice"), backend.load("Alice")) == (["Alice", "alice"], TOOLED, [*HELLO, *HELLO])
    backend.delete("Alice")
    assert not path.exists()
    assert backend.list() == ["alice"]


def test_other_files_are_left_alone_and_left_out(backend: FileBackend) -> None:
    backend.save("s", HELLO)
    for name in ("notes.txt", " space.json", ".hidden.json", "%FF.json", "long~0123456789abcdef.json", ".json", "s.json.bak"):
        put(backend, name, "[]")
    (backend.directory / "folder.json").mkdir()
    (backend.directory / "link.json").symlink_to(backend.directory / "s.json")
    before = names_in(backend)
    assert backend.list() == ["s"]
    backend.delete("s")
    assert names_in(backend) == [name for name in before if name != "s.json"]


def test_an_id_beside_a_short_name_is_believed_only_if_it_is_this_one(backend: FileBackend) -> None:
    session_id = "x" * 256
    backend.save(session_id, HELLO)
    noted = backend.directory / f"{name_of(session_id)}.id"
    assert noted.read_text() == session_id
    noted.write_text("y" * 256)
    for call in (backend.load, backend.delete, lambda each: backend.save(each, [])):
        with pytest.raises(StoreCorruptError, match="names another session"):
            call(session_id)
    assert backend.list() == []


# -- what is in the way


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{}",
        "[1]",
        '[{"Role": 1}]',
        '[{"Role": "user"},]',
        "[] []",
        '[{"ToolCalls": 5}]',
        '[{"ToolCalls": [5]}]',
        "nul",
        "[" * 9_999,
    ],
)
def test_a_file_that_holds_something_else_is_reported_and_kept(backend: FileBackend, text: str) -> None:
    path = put(backend, "s.json", text)
    with pytest.raises(StoreCorruptError, match=r"s\.json: line \d.*kept as it is") as caught:
        backend.load("s")
    assert caught.value.path == str(path)
    assert path.read_text() == text
    assert backend.list() == ["s"]


@pytest.mark.parametrize("text", ["", "[", '[{"Role": 1}]', "{}"])
def test_a_save_does_not_destroy_a_damaged_file(backend: FileBackend, text: str) -> None:
    path = put(backend, "s.json", text)
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match=r"s\.json: .*kept as it is: delete\(\) removes it, or move it"):
            backend.save("s", HELLO)
    assert path.read_text() == text
    assert names_in(backend) == [".lock", "s.json"]
    backend.delete("s")
    backend.save("s", HELLO)
    assert backend.load("s") == HELLO


def test_bytes_that_are_no_text_are_reported(backend: FileBackend) -> None:
    put(backend, "s.json", "").write_bytes(b'[{"Role": "\xff"}]')
    with pytest.raises(StoreCorruptError, match="UTF-8"):
        backend.load("s")


def test_files_are_for_their_owner_only(backend: FileBackend) -> None:
    umask = os.umask(0)
    try:
        for session_id in ("s", "x" * 256):
            backend.save(session_id, HELLO)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(backend.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in backend.directory.iterdir()} == {0o600}


def test_links_and_other_things_are_refused(backend: FileBackend, tmp_path: Path) -> None:
    backend.directory.mkdir()
    outside = tmp_path / "outside.json"
    outside.write_text("[]")
    (backend.directory / "link.json").symlink_to(outside)
    (backend.directory / "dangling.json").symlink_to(tmp_path / "absent")
    (backend.directory / "folder.json").mkdir()
    os.mkfifo(backend.directory / "pipe.json")
    for session_id in ("link", "dangling", "folder", "pipe"):
        with pytest.raises(UnsafePathError):
            backend.save(session_id, HELLO)
        with pytest.raises(UnsafePathError):
            backend.delete(session_id)
        with pytest.raises((UnsafePathError, StoreIOError)):
            backend.load(session_id)
    assert outside.read_text() == "[]"
    assert not (tmp_path / "absent").exists()


def test_a_store_that_this_process_has_open_is_never_opened(tmp_path: Path) -> None:
    """Closing its file would drop the locks that SQLite holds on it."""
    backend = FileBackend(tmp_path)
    with sessionstore.open(tmp_path / "agent.json") as store:
        store.session("s").append("user", "x")
        for call in (backend.load, backend.delete, lambda each: backend.save(each, HELLO)):
            with pytest.raises(UnsafePathError, match="has open"):
                call("agent")
        assert len(store.messages("s")) == 1


def test_a_lock_that_is_a_link_is_refused(backend: FileBackend, tmp_path: Path) -> None:
    backend.directory.mkdir()
    (backend.directory / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError):
        backend.save("s", HELLO)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    backend = FileBackend(tmp_path / "file" / "sessions")
    with pytest.raises(StoreIOError):
        backend.save("s", HELLO)


@pytest.mark.parametrize("directory", ["", 5, b"x", False])
def test_a_directory_that_is_no_path_is_refused(directory: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        FileBackend(directory)
    assert caught.value.field == "directory"


def test_by_default_the_folder_is_beside_the_default_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert FileBackend().directory == tmp_path / "sessionstore" / "sessions"
    assert FileBackend().directory.name == "sessions"


def test_a_full_disk_keeps_what_was_there(backend: FileBackend) -> None:
    """The disk is /dev/full, where a save would write."""
    backend.save("s", HELLO)
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    real = os.open

    def open_full(path: Path, *given: int) -> int:
        return real("/dev/full", os.O_WRONLY) if path.name.endswith(".tmp") else real(path, *given)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files.os, "open", open_full)
        with pytest.raises(DiskFullError, match=r"s\.json"):
            backend.save("s", [*HELLO, *HELLO])
    assert backend.load("s") == HELLO
    assert names_in(backend) == [".lock", "s.json"]


# -- others


def test_a_writer_waits_its_turn_for_so_long(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path, busy_timeout=0.05)
    backend.save("s", HELLO)
    lock = SidecarLock(tmp_path / ".lock")
    lock.acquire(time.monotonic() + 1)
    try:
        for call in (lambda: backend.save("s", []), lambda: backend.delete("s")):
            with pytest.raises(StoreBusyError):
                call()
        assert backend.load("s") == HELLO
        assert backend.list() == ["s"]
    finally:
        lock.close()
    backend.save("s", [])
    assert backend.load("s") == []


def writer(backend: FileBackend) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(backend.directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def require_whole(messages: list[dict[str, Any]] | None) -> int:
    """The number of the save that a conversation is from; it is whole."""
    assert messages is not None
    assert len(messages) == 3
    number = int(messages[0]["content"].split(" ", 1)[0])
    assert messages == [{"role": "user", "content": f"{number} " * 40_000}] * 3
    return number


def test_two_processes_and_a_reader_see_whole_conversations_only(backend: FileBackend) -> None:
    first, second = writer(backend), writer(backend)
    try:
        for process in (first, second):
            assert process.stdout is not None
            process.stdout.readline()
        for _ in range(100):
            require_whole(backend.load("s"))
            assert backend.list() == ["s"]
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_kill_leaves_the_conversation_that_was_acknowledged_or_the_next_one(backend: FileBackend) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    pick = random.Random(seed)
    for _ in range(KILL_ROUNDS):
        process = writer(backend)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pick.uniform(0, 0.02))
        process.kill()
        said = process.communicate()[0].split("\n")
        told = int(said[-2]) if len(said) > 1 else 1
        assert require_whole(backend.load("s")) in (told, told + 1)


@pytest.mark.parametrize("session_id", ["s", "x" * 256], ids=["short", "long"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_a_kill_at_any_step_of_a_save_leaves_the_old_or_the_new_conversation(
    backend: FileBackend, session_id: str, first: bool
) -> None:
    """And the next save goes on as if nothing had been."""
    old = None if first else ["old"]
    found = kill_at_each_step(backend, session_id, first=first)
    became_new = found.index(["new"])
    assert 0 < became_new < len(found) - 1
    assert found == [old] * became_new + [["new"]] * (len(found) - became_new)
