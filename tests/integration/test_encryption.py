"""Encrypted stores: they work as plain ones do, and tell apart a wrong key, a missing one, a plain file and damage."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sessionstore
from sessionstore import EncryptionKey, Passphrase, WrongKeyError, create_key_file, decrypt_file, encrypt_file, file_key
from sessionstore.database import cipher_driver, encryption

pytest.importorskip("sqlcipher3", reason="the extra `encryption` is not installed")

KEY, OTHER = bytes(range(1, 33)), bytes(range(2, 34))
HEADER = b"SQLite format 3\0"
TEXTS = [f"text {number}" for number in range(200)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store will be."""
    return tmp_path / "agent.db"


@pytest.fixture
def full(path: Path) -> Path:
    """An encrypted store that was closed."""
    fill(path, KEY)
    return path


def fill(path: Path, key: Any) -> None:
    with sessionstore.open(path, key=key) as store:
        store.session("chat", tags=["t"], metadata={"a": 1}).append_many([{"role": "user", "content": text} for text in TEXTS])


def texts(path: Path, key: Any, **options: Any) -> list[str | None]:
    with sessionstore.open(path, key=key, must_exist=True, **options) as store:
        assert store.doctor().ok
        return [message.text for message in store.iterate("chat")]


def run(program: str, *given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python program of its own, with nothing of ours in its environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONSTORE")}
    return subprocess.run(
        [sys.executable, "-c", program, *given],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Told(NamedTuple):
    """What the command line answered."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    pytest.importorskip("typer", reason="the extra `cli` is not installed")
    from sessionstore.cli import main

    def call(*given: str, **environment: str) -> Told:
        with monkeypatch.context() as patch:
            patch.delenv("SESSIONSTORE_KEY", raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            code = main(given)
        return Told(code, *capsys.readouterr())

    return call


def damage(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


# -- opening


@pytest.mark.parametrize("given", [KEY, KEY.hex(), EncryptionKey(KEY), lambda: KEY, Passphrase("correct horse")])
def test_a_store_opens_again_with_its_key(given: Any, path: Path) -> None:
    fill(path, given)
    assert path.read_bytes()[:16] != HEADER
    assert path.stat().st_mode & 0o777 == 0o600
    assert texts(path, given) == TEXTS
    assert texts(path, given, read_only=True) == TEXTS


def test_the_status_tells_that_it_is_encrypted_and_what_runs_it(full: Path, store: sessionstore.SessionStore) -> None:
    with pytest.raises(WrongKeyError):
        sessionstore.open(full, key=KEY)
    status = store.status()
    assert (status.encrypted, status.sqlite_version) == (False, sqlite3.sqlite_version)


def test_the_status_of_an_encrypted_store(full: Path) -> None:
    with sessionstore.open(full, key=KEY) as store:
        status = store.status()
    assert status.encrypted
    assert status.sqlite_version == ".".join(map(str, cipher_driver.VERSION))
    assert status.journal_mode == "wal"
    assert not status.wal_reset_affected


def refused(path: Path, kind: type[Exception], words: str, key: Any, **options: Any) -> None:
    """Opening is refused, and the file is as before."""
    before = path.read_bytes()
    with pytest.raises(kind, match=words):
        sessionstore.open(path, key=key, **options)
    assert path.read_bytes() == before


@pytest.mark.fault("F36")
@pytest.mark.parametrize("read_only", [False, True])
def test_each_wrong_opening_has_its_own_message(read_only: bool, tmp_path: Path) -> None:
    secret, plain = tmp_path / "secret.db", tmp_path / "plain.db"
    fill(secret, KEY)
    fill(plain, None)
    refused(secret, WrongKeyError, "another key than the one given", OTHER, read_only=read_only)
    refused(secret, WrongKeyError, "another key than the one given", Passphrase("correct horse"), read_only=read_only)
    refused(secret, WrongKeyError, "is encrypted; give its key", None, read_only=read_only)
    refused(plain, WrongKeyError, "is not encrypted", KEY, read_only=read_only)
    assert texts(secret, KEY) == texts(plain, None) == TEXTS


@pytest.mark.fault("F36")
def test_rubbish_is_no_database_with_a_key_either(path: Path) -> None:
    path.write_text("no database " * 1_000)
    refused(path, sessionstore.NotADatabaseError, "not an SQLite database", KEY)


def test_another_programs_database_is_not_opened_with_a_key(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    refused(path, WrongKeyError, "is not encrypted", KEY)


@pytest.mark.fault("F36")
@pytest.mark.parametrize("position", [16, 100, 2_000, 4_095])
def test_a_damaged_first_page_is_told_from_a_wrong_key(position: int, full: Path) -> None:
    damage(full, position)
    refused(full, sessionstore.StoreCorruptError, "the key is right", KEY)
    refused(full, WrongKeyError, "another key", OTHER)
    refused(full, WrongKeyError, "is encrypted; give its key", None)


@pytest.mark.fault("F36")
def test_a_damaged_page_is_found_where_it_is_read(full: Path) -> None:
    for page in range(1, full.stat().st_size // 4_096):
        damage(full, page * 4_096 + 77)
    with pytest.raises(sessionstore.StoreCorruptError):
        texts(full, KEY)


@pytest.mark.fault("F36")
def test_a_store_that_is_open_takes_no_other_key(full: Path) -> None:
    with sessionstore.open(full, key=KEY) as store:
        for key, words in ((OTHER, "open in this process with another key"), (None, "is encrypted; give its key")):
            with pytest.raises(WrongKeyError, match=words):
                sessionstore.open(full, key=key)
        with sessionstore.open(full, key=KEY.hex(), namespace="other") as second:
            second.session("x")
        assert store.count() == 1


def test_a_plain_store_that_is_open_takes_no_key(store: sessionstore.SessionStore, store_path: Path) -> None:
    with pytest.raises(WrongKeyError, match="is not encrypted"):
        sessionstore.open(store_path, key=KEY)
    store.session("x").append("user", "still works")


@pytest.mark.parametrize("key", [b"x" * 31, b"x" * 33, KEY.hex()[:-1], "password", bytes(32)])
def test_no_file_is_made_for_what_is_no_key(key: Any, path: Path) -> None:
    """Row 100."""
    with pytest.raises(sessionstore.ConfigError, match=r"^key: "):
        sessionstore.open(path, key=key)
    assert list(path.parent.iterdir()) == []


def test_without_the_extra_no_plain_file_is_made(path: Path) -> None:
    program = """
import sys
sys.modules["sqlcipher3"] = None
import sessionstore
path, key = sys.argv[1], bytes(range(32))
for call in (lambda: sessionstore.open(path, key=key), lambda: sessionstore.encrypt_file(path, key)):
    try:
        call()
    except sessionstore.MissingExtraError as error:
        print(error.extra)
"""
    done = run(program, str(path))
    assert (done.stdout, done.stderr) == ("encryption\nencryption\n", "")
    assert list(path.parent.iterdir()) == []


def test_a_driver_without_a_cipher_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_driver", lambda: PlainDriver)
    with pytest.raises(sessionstore.ConfigError, match="without SQLCipher"):
        sessionstore.open(path, key=KEY)


class PlainDriver:
    """The standard one, in the place of SQLCipher."""

    VERSION = sqlite3.sqlite_version_info
    connect = staticmethod(sqlite3.connect)
    unlock = staticmethod(lambda connection, key: None)


def test_the_environment_names_the_key_of_stores_that_are_given_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_KEY", KEY.hex())
    with sessionstore.open(path) as store:
        assert store.status().encrypted
    with sessionstore.open(path.with_name("plain.db"), key=None) as store:
        assert not store.status().encrypted
    with sessionstore.open(in_memory=True) as store:
        assert not store.status().encrypted
    with pytest.raises(WrongKeyError, match="SESSIONSTORE_KEY"):
        sessionstore.open(path.with_name("plain.db"))
    monkeypatch.setenv("SESSIONSTORE_KEY", "password")
    with pytest.raises(sessionstore.ConfigError, match=r"^SESSIONSTORE_KEY: must be 32 bytes"):
        sessionstore.open(path)


def test_an_empty_variable_makes_no_plain_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that was not found leaves one."""
    monkeypatch.setenv("SESSIONSTORE_KEY", "")
    with pytest.raises(sessionstore.ConfigError, match=r"^SESSIONSTORE_KEY: is set and empty"):
        sessionstore.open(path)
    assert list(path.parent.iterdir()) == []


def test_a_store_in_memory_takes_no_key() -> None:
    with pytest.raises(sessionstore.ConfigError, match="no key"):
        sessionstore.open(in_memory=True, key=KEY)


def test_a_callable_is_asked_once_for_each_opening(path: Path) -> None:
    asked = []

    def key() -> bytes:
        asked.append(1)
        return KEY

    with sessionstore.open(path, key=key) as store:
        store.session("s").append("user", "x")
        store.list()
    assert len(asked) == 1
    with pytest.raises(ZeroDivisionError):
        sessionstore.open(path, key=lambda: 1 // 0)


# -- everything else works


def test_the_calls_of_a_store_work(full: Path) -> None:
    with sessionstore.open(full, key=KEY) as store:
        chat = store.session("second", title="a title")
        chat.append("user", "hello", metadata={"x": [1, 2]}, dedupe_key="once")
        assert chat.append("user", "hello", metadata={"x": [1, 2]}, dedupe_key="once").seq == 1
        with pytest.raises(sessionstore.ConflictError):
            chat.append("user", "another", dedupe_key="once")
        assert [info.session_id for info in store.list(text="hello").items] == ["second"]
        assert store.query("SELECT count(*) FROM v_messages").rows == ((len(TEXTS) + 1,),)
        with pytest.raises(sessionstore.InvalidInputError):
            store.query("DELETE FROM sessions")
        with pytest.raises(sessionstore.InvalidInputError):
            store.query("SELECT no_such_column FROM v_messages")
        assert store.overview() is not None
        assert [hit.session_id for hit in store.search("hello").items] == ["second"]
        store.fork("second", "third").append("user", "in the fork")
        assert [message.text for message in store.messages("third")] == ["hello", "in the fork"]
        assert store.delete(["second", "third"]).sessions == 2
        assert store.count() == 1
    assert texts(full, KEY) == TEXTS


@pytest.mark.anyio
async def test_async_stores_work(path: Path, anyio_backend: str) -> None:
    async with sessionstore.aopen(path, key=KEY) as store:
        chat = await store.session("chat")
        for text in TEXTS[:20]:
            await chat.append("user", text)
        await store.rekey(OTHER)
        assert [message.text for message in await chat.messages()] == TEXTS[:20]
    async with sessionstore.aopen(path, key=OTHER) as store:
        assert await store.count() == 1


def test_many_tasks_share_commits(path: Path) -> None:
    async def main() -> tuple[int, int]:
        async with sessionstore.aopen(path, key=KEY) as store:
            chat = await store.session("chat")
            await asyncio.gather(*(chat.append("user", text) for text in TEXTS))
            status = await store.status()
            return status.commits, status.writes

    commits, writes = asyncio.run(main())
    assert writes >= len(TEXTS) > commits
    assert sorted(texts(path, KEY)) == sorted(TEXTS)


def test_four_processes_make_and_fill_one_store(path: Path) -> None:
    """All of them begin on a file that is not there, whose salt one of them chooses."""
    program = """
import sys, sessionstore
sys.stdin.readline()
with sessionstore.open(sys.argv[1], key=bytes(range(1, 33)), busy_timeout=60) as store:
    chat = store.session("chat")
    for number in range(50):
        chat.append("user", f"{sys.argv[2]} {number}")
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(each)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for each in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    errors = [child.communicate(timeout=100)[1] for child in children]
    assert errors == [""] * 4
    assert sorted(str(text) for text in texts(path, KEY)) == sorted(f"{each} {number}" for each in range(4) for number in range(50))


def test_threads_read_beside_a_writer(full: Path) -> None:
    seen: list[int] = []
    with sessionstore.open(full, key=KEY) as store:
        threads = [threading.Thread(target=lambda: seen.append(len(store.messages("chat")))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            store.append("chat", "user", f"more {number}")
        for thread in threads:
            thread.join()
    assert len(seen) == 6
    assert min(seen) >= len(TEXTS)


@pytest.mark.fault("F36")
def test_a_store_whose_log_was_left_by_a_killed_process_opens(path: Path) -> None:
    program = """
import os, sys, sessionstore
store = sessionstore.open(sys.argv[1], key=bytes(range(1, 33)))
chat = store.session("chat")
for number in range(200):
    chat.append("user", f"text {number}")
os._exit(1)
"""
    run(program, str(path))
    assert path.with_name("agent.db-wal").stat().st_size > 0
    for key, words in ((OTHER, "another key than the one given"), (None, "is encrypted; give its key")):
        with pytest.raises(WrongKeyError, match=words):
            sessionstore.open(path, key=key)
    assert texts(path, KEY) == TEXTS


def test_the_log_of_another_store_is_refused(tmp_path: Path) -> None:
    program = "import os, sys, sessionstore\nsessionstore.open(sys.argv[1], key=bytes(range(1, 33))).session('x')\nos._exit(1)"
    for name in ("a.db", "b.db"):
        fill(tmp_path / name, KEY)
        assert run(program, str(tmp_path / name)).returncode == 1
        assert (tmp_path / f"{name}-wal").stat().st_size
    (tmp_path / "a.db-wal").write_bytes((tmp_path / "b.db-wal").read_bytes())
    (tmp_path / "a.db-shm").unlink()
    before = {each.name: each.read_bytes() for each in tmp_path.glob("a.db*")}
    with pytest.raises(sessionstore.ForeignDatabaseError, match="move it away"):
        sessionstore.open(tmp_path / "a.db", key=KEY)
    assert {each.name: each.read_bytes() for each in tmp_path.glob("a.db*")} == before


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
@pytest.mark.parametrize("what", ["rekey", "encrypt", "decrypt", "backup"])
def test_a_full_disk_is_told_and_changes_nothing(what: str, path: Path) -> None:
    """SQLCipher tells of it without the code that says so, and with a limit as "disk I/O error"."""
    before = None if what == "encrypt" else KEY
    fill(path, before)
    program = """
import resource, signal, sys, sessionstore
from sessionstore.database import faults
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
what, path, key, other = sys.argv[1], sys.argv[2], bytes(range(1, 33)), bytes(range(2, 34))
store = sessionstore.open(path, key=key) if what in ("rekey", "backup") else None
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
calls = {
    "rekey": lambda: store.rekey(other),
    "encrypt": lambda: sessionstore.encrypt_file(path, key),
    "decrypt": lambda: sessionstore.decrypt_file(path, key),
    "backup": lambda: store.backup(path + ".backup"),
}
try:
    calls[what]()
except sessionstore.StoreIOError as error:
    print("told:", "the operating system failed" in str(error))
if store is not None:
    print(len(store.messages("chat")))
"""
    done = run(program, what, str(path))
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["told: True", *([str(len(TEXTS))] if what in ("rekey", "backup") else [])]
    assert texts(path, before) == TEXTS
    assert {each.name for each in path.parent.iterdir()} == {"agent.db", "agent.db-lock"}


def test_a_backup_that_waits_for_a_rekey_has_the_new_key(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sessionstore.database import backups

    def prepared(target: Path, *, overwrite: bool) -> Any:
        # The last moment at which the key can change.
        store.rekey(OTHER)
        return new_file(target, overwrite=overwrite)

    new_file = backups.new_file
    monkeypatch.setattr(backups, "new_file", prepared)
    with sessionstore.open(full, key=KEY) as store:
        store.backup(tmp_path / "backup.db")
    assert texts(tmp_path / "backup.db", OTHER) == TEXTS


def test_a_backup_is_encrypted_with_the_same_key_and_restored_with_it(full: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    with sessionstore.open(full, key=KEY) as store:
        store.backup(backup)
        store.session("later")
    assert backup.read_bytes()[:16] != HEADER
    assert texts(backup, KEY) == TEXTS
    with pytest.raises(WrongKeyError):
        sessionstore.restore(backup, full, key=OTHER)
    sessionstore.restore(backup, full, key=KEY)
    with sessionstore.open(full, key=KEY) as store:
        assert store.count() == 1
        store.vacuum(full=True)
    assert texts(full, KEY) == TEXTS


def test_a_forked_child_is_refused_and_the_parent_goes_on(full: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    with sessionstore.open(full, key=KEY) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if child == 0:
            try:
                store.count()
            except sessionstore.ForkedStoreError:
                os._exit(7)
            os._exit(8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        store.append("chat", "user", "after the fork")
    assert texts(full, KEY) == [*TEXTS, "after the fork"]


# -- another key


def test_rekey_changes_the_key_while_the_store_goes_on(full: Path) -> None:
    with sessionstore.open(full, key=KEY) as store, sessionstore.open(full, key=KEY) as second:
        assert len(store.messages("chat")) == len(TEXTS)
        store.rekey(OTHER)
        second.append("chat", "user", "by the second store")
        assert store.status().journal_mode == "wal"
        assert store.messages("chat", last=1)[0].text == "by the second store"
    refused(full, WrongKeyError, "another key", KEY)
    assert texts(full, OTHER) == [*TEXTS, "by the second store"]


@pytest.mark.parametrize(("before", "after"), [(KEY, Passphrase("correct horse")), (Passphrase("correct horse"), KEY)])
def test_rekey_between_a_raw_key_and_a_passphrase(before: Any, after: Any, path: Path) -> None:
    fill(path, before)
    with sessionstore.open(path, key=before) as store:
        store.rekey(after)
    assert texts(path, after) == TEXTS


def test_rekey_refuses_what_is_no_key_and_keeps_the_old_one(full: Path) -> None:
    with sessionstore.open(full, key=KEY) as store:
        for wrong in (None, b"", "password", bytes(32)):
            with pytest.raises(sessionstore.ConfigError):
                store.rekey(wrong)  # type: ignore[arg-type]
        assert len(store.messages("chat")) == len(TEXTS)
    assert texts(full, KEY) == TEXTS


def test_a_plain_store_has_no_key_to_change(store: sessionstore.SessionStore) -> None:
    with pytest.raises(sessionstore.ConfigError, match="sessionstore encrypt"):
        store.rekey(KEY)


HOLD_OPEN = """
import sys, sessionstore
key = bytes.fromhex(sys.argv[2]) if sys.argv[2] else None
store = sessionstore.open(sys.argv[1], key=key, read_only=len(sys.argv) > 3)
store.count()
print("open", flush=True)
sys.stdin.readline()
if len(sys.argv) <= 3:
    store.append("chat", "user", "by the other process")
"""


def while_open_elsewhere(path: Path, key: bytes | None, *options: str, do: Callable[[], None]) -> None:
    """Do something while another process has the store open; then that one writes."""
    command = [sys.executable, "-c", HOLD_OPEN, str(path), "" if key is None else key.hex(), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        do()
        child.communicate("\n", timeout=60)
    assert child.returncode == 0


@pytest.mark.parametrize("options", [(), ("read_only",)])
def test_rekey_is_refused_while_another_process_has_the_store_open(options: tuple[str, ...], full: Path) -> None:
    def rekey() -> None:
        with sessionstore.open(full, key=KEY, busy_timeout=0.5) as store:
            with pytest.raises(sessionstore.StoreBusyError, match="another program has it open"):
                store.rekey(OTHER)
            store.append("chat", "user", "the store goes on")

    while_open_elsewhere(full, KEY, *options, do=rekey)
    assert texts(full, KEY)[: len(TEXTS) + 1] == [*TEXTS, "the store goes on"]


# -- trackers and the collector


def test_trackers_keep_an_encrypted_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the key in the environment, as `open` does, or in a store that they are given."""
    monkeypatch.setenv("SESSIONSTORE_KEY", KEY.hex())
    with sessionstore.AgentPerformanceTracker(None, store=path, background=False) as tracker:
        tracker.end_conversation(tracker.start_conversation("a-canary-agent"), quality_score=5)
    monkeypatch.delenv("SESSIONSTORE_KEY")
    assert b"a-canary-agent" not in path.read_bytes()
    with pytest.raises(WrongKeyError, match="is encrypted; give its key"):
        sessionstore.AgentPerformanceTracker(None, store=path, background=False)
    with (
        sessionstore.open(path, key=KEY) as store,
        sessionstore.AgentPerformanceTracker(None, store=store, background=False) as tracker,
        sessionstore.AgentOperationsTracker(None, store=store, background=False) as operations,
    ):
        assert tracker.get_success_rates()["overall"]["completed"] == 1
        operations.register_agent("a-canary-agent")
        assert operations.get_agent_status("a-canary-agent") is not None
    assert b"a-canary-agent" not in path.read_bytes()


@pytest.mark.parametrize("how", ["file", "environment"])
def test_a_collector_keeps_an_encrypted_store(how: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the extra `collector` is not installed")
    pytest.importorskip("typer", reason="the extra `cli` is not installed")
    from collecting import Desktop, event, running, started

    key = tmp_path / "a.key"
    create_key_file(key)
    if how == "environment":
        monkeypatch.setenv("SESSIONSTORE_KEY", key.read_text().strip())
    with running(path, *(["--key-file", str(key)] if how == "file" else [])) as collector:
        desktop = Desktop(collector)
        desktop.batch(event("conversation_start", started(session_id="a-canary-session")))
        assert desktop.get("/conversations/active")
        beside = [each.read_bytes() for each in tmp_path.glob("agent.db*")]
        assert collector.stop() == 0
    assert not [content for content in (*beside, path.read_bytes()) if b"a-canary-session" in content]
    with sessionstore.open(path, key=file_key(key), namespace=f"default/{desktop.source}/", remote=None) as store:
        assert store.get("a-canary-session") is not None


# -- existing files


def test_a_plain_store_is_encrypted_and_decrypted_again(path: Path) -> None:
    fill(path, None)
    with sessionstore.open(path) as store:
        identity = store.status().store_id
    receipt = encrypt_file(path, KEY)
    assert (receipt.encrypted, receipt.sessions, receipt.messages, receipt.plain_copies) == (True, 1, len(TEXTS), ())
    assert path.read_bytes()[:16] != HEADER
    assert path.stat().st_mode & 0o777 == 0o600
    assert {each.name for each in path.parent.iterdir()} == {"agent.db", "agent.db-lock"}
    with sessionstore.open(path, key=KEY) as store:
        assert store.status().store_id == identity
        assert store._database.writer.exclusively(lambda db: db.driver.execute("PRAGMA auto_vacuum").fetchall(), timeout=5) == [
            (2,)
        ]
    assert texts(path, KEY) == TEXTS
    receipt = decrypt_file(path, KEY)
    assert (receipt.encrypted, receipt.messages) == (False, len(TEXTS))
    assert texts(path, None) == TEXTS
    assert {each.name for each in path.parent.iterdir()} == {"agent.db", "agent.db-lock"}


@pytest.mark.fault("F36")
def test_a_file_is_converted_with_the_log_that_a_killed_process_left(path: Path) -> None:
    run(
        "import os, sys, sessionstore\ns = sessionstore.open(sys.argv[1]).session('chat')\n"
        "for number in range(200):\n    s.append('user', f'text {number}')\nos._exit(1)",
        str(path),
    )
    assert path.with_name("agent.db-wal").stat().st_size > 0
    encrypt_file(path, KEY)
    assert {each.name for each in path.parent.iterdir()} == {"agent.db", "agent.db-lock"}
    assert texts(path, KEY) == TEXTS


def test_conversions_refuse_what_they_cannot_do_and_change_nothing(tmp_path: Path) -> None:
    secret, plain, foreign = tmp_path / "secret.db", tmp_path / "plain.db", tmp_path / "foreign.db"
    fill(secret, KEY)
    fill(plain, None)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (a)")
    foreign.chmod(0o600)
    before = {each: each.read_bytes() for each in (secret, plain, foreign)}
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: encrypt_file(secret, KEY), sessionstore.ConfigError, "encrypted already"),
        (lambda: decrypt_file(plain, KEY), WrongKeyError, "is not encrypted"),
        (lambda: decrypt_file(secret, OTHER), WrongKeyError, "another key"),
        (lambda: encrypt_file(foreign, KEY), sessionstore.ForeignDatabaseError, "no store"),
        (lambda: encrypt_file(tmp_path / "absent.db", KEY), sessionstore.NotADatabaseError, "no such file"),
        (lambda: encrypt_file(plain, "password"), sessionstore.ConfigError, "^key: "),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    assert {each: each.read_bytes() for each in before} == before
    assert not list(tmp_path.glob("*.converting*"))


def test_a_damaged_store_is_not_converted(path: Path) -> None:
    fill(path, None)
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4_096)
        file.write(b"\xff" * 64)
    before = path.read_bytes()
    with pytest.raises(sessionstore.StoreCorruptError):
        encrypt_file(path, KEY)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.converting*"))


def test_a_store_that_is_open_is_not_converted(full: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.db"
    fill(plain, None)
    with sessionstore.open(full, key=KEY), sessionstore.open(plain):
        for call in (lambda: decrypt_file(full, KEY), lambda: encrypt_file(plain, KEY)):
            with pytest.raises(sessionstore.StoreBusyError, match="this process has it open"):
                call()

    def convert() -> None:
        with pytest.raises(sessionstore.StoreBusyError, match="another program has it open"):
            encrypt_file(plain, KEY, busy_timeout=0.5)

    while_open_elsewhere(plain, None, do=convert)
    assert texts(plain, None) == [*TEXTS, "by the other process"]


def test_an_older_schema_is_encrypted_and_then_upgraded_with_an_encrypted_copy(path: Path, tmp_path: Path) -> None:
    from alembic import command

    from sessionstore.database import engine, upgrade
    from sessionstore.database.core import around

    with closing(engine.connect_copy(path_made(path))) as driver:
        driver.execute("PRAGMA journal_mode=DELETE").fetchall()
        engine.mark_as_ours(driver)
    driver = engine.connect_file(path)
    core = around(driver)
    configuration = upgrade.configuration(upgrade.migrations_folder())
    configuration.attributes["connection"] = core
    with upgrade.transaction(core):
        command.upgrade(configuration, "0003")
    now = "2026-01-01 00:00:00.000000"
    columns = {row[1]: row[3] for row in driver.execute("PRAGMA table_info(sessions)").fetchall() if row[3] and row[4] is None}
    values = {name: now if name.endswith("_at") else 1 for name in columns}
    values |= {"session_id": "old", "namespace": "", "session_key": 1}
    values |= {name: value for name, value in {"status": "open", "version": 1, "next_seq": 1}.items() if name in columns}
    names = ", ".join(values)
    driver.execute(f"INSERT INTO sessions ({names}) VALUES ({', '.join('?' * len(values))})", list(values.values()))
    core.close()
    driver.close()
    encrypt_file(path, KEY)
    with sessionstore.open(path, key=KEY) as store:
        assert store.get("old") is not None
        assert store.status().schema_revision == upgrade.HEAD_REVISION
    (copy,) = tmp_path.glob("*pre-upgrade-0003.db")
    assert copy.read_bytes()[:16] != HEADER
    with closing(encryption.connect(str(copy), EncryptionKey(KEY))) as connection:
        assert connection.execute("SELECT session_id FROM sessions").fetchall() == [("old",)]


def path_made(path: Path) -> Path:
    path.touch(mode=0o600)
    return path


def test_copies_that_are_still_plain_are_named_when_a_store_is_encrypted(path: Path, tmp_path: Path) -> None:
    """Those of upgrades and those of restores; not the ones that are encrypted."""
    fill(path, None)
    copy = path.with_name("agent.db.pre-upgrade-0001.db")
    copy.write_bytes(path.read_bytes())
    backup = tmp_path / "backup.db"
    backup.write_bytes(path.read_bytes())
    kept = sessionstore.restore(backup, path, key=None).previous
    assert encrypt_file(path, KEY).plain_copies == (str(copy), kept)
    sessionstore.restore(backup, path, key=None)
    copy.write_bytes(b"encrypted, say" * 1_000)
    assert encrypt_file(path, KEY).plain_copies == (kept,)


@pytest.mark.parametrize("convert", [encrypt_file, decrypt_file])
def test_a_file_that_a_killed_restore_left_is_settled_before_it_is_converted(convert: Callable[..., Any], path: Path) -> None:
    before = None if convert is encrypt_file else KEY
    fill(path, before)
    path.with_name("agent.db.restore-ready").write_bytes(b"whole, but not in its place")
    path.with_name("agent.db.restore-old").mkdir()
    path.with_name("agent.db.restore-old").joinpath("agent.db").hardlink_to(path)
    convert(path, KEY)
    assert texts(path, KEY if before is None else None) == TEXTS
    assert {each.name for each in path.parent.iterdir()} == {"agent.db", "agent.db-lock"}


def test_a_conversion_takes_a_busy_timeout_as_open_does(path: Path) -> None:
    fill(path, None)
    for wrong in (-1, "soon", float("nan")):
        with pytest.raises(sessionstore.ConfigError, match="busy_timeout"):
            encrypt_file(path, KEY, busy_timeout=wrong)  # type: ignore[arg-type]
    assert texts(path, None) == TEXTS


@pytest.mark.fault("F36")
def test_what_a_killed_conversion_left_is_removed_by_the_next_open(full: Path) -> None:
    left = full.with_name("agent.db.converting")
    left.write_text("half")
    assert texts(full, KEY) == TEXTS
    assert not left.exists()


# -- the command line


def test_the_command_line_encrypts_reads_rekeys_and_decrypts(path: Path, tmp_path: Path, command_line: Callable[..., Told]) -> None:
    fill(path, None)
    first, second = tmp_path / "first.key", tmp_path / "second.key"
    for key in (first, second):
        done = command_line("new-key", str(key))
        assert done.returncode == 0, done.stderr
    done = command_line("--key-file", str(first), "encrypt", str(path))
    assert done.returncode == 0, done.stderr
    assert "encrypted" in done.stderr
    assert texts(path, file_key(first)) == TEXTS
    done = command_line("--store", str(path), "status")
    assert done.returncode == 1
    assert "is encrypted; give its key: --key-file, or the environment variable SESSIONSTORE_KEY\n" in done.stderr
    done = command_line("status", "--json", "--key-file", str(first), "--store", str(path))
    assert '"encrypted": true' in done.stdout, done.stderr
    done = command_line("sessions", "--store", str(path), SESSIONSTORE_KEY=first.read_text().strip())
    assert "chat" in done.stdout, done.stderr
    done = command_line("--key-file", str(first), "rekey", str(path), "--new-key-file", str(second))
    assert done.returncode == 0, done.stderr
    done = command_line("--key-file", str(first), "--store", str(path), "doctor")
    assert "another key" in done.stderr
    done = command_line("--key-file", str(second), "decrypt", str(path), "--json")
    assert '"encrypted": false' in done.stdout, done.stderr
    assert texts(path, None) == TEXTS


def test_encrypt_without_a_key_names_the_ways_to_give_one(path: Path, command_line: Callable[..., Told]) -> None:
    fill(path, None)
    done = command_line("encrypt", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: name the key: --key-file FILE, or the environment variable SESSIONSTORE_KEY; ")


def test_the_command_line_refuses_in_one_line(path: Path, tmp_path: Path, command_line: Callable[..., Told]) -> None:
    fill(path, None)
    key = tmp_path / "a.key"
    create_key_file(key)
    for given, words in [
        (("encrypt", str(path)), "--key-file FILE"),
        (("--key-file", str(tmp_path / "no.key"), "encrypt", str(path)), "no such key file"),
        (("--key-file", str(key), "decrypt", str(path)), "is not encrypted"),
        (("new-key", str(key)), "is there already"),
        (("--key-file", str(key), "encrypt", str(path), "--store", str(path)), "either PATH or --store"),
    ]:
        done = command_line(*given)
        assert done.returncode != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert key.read_text().strip() not in done.stderr + done.stdout
    assert texts(path, None) == TEXTS


# -- logs


def test_the_log_tells_that_a_store_is_encrypted_and_no_key(full: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), sessionstore.open(full, key=KEY) as store:
        store.rekey(OTHER)
    told = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "'encrypted': True" in told
    for key in (KEY, OTHER):
        assert key.hex() not in told.lower()
        assert repr(key) not in told
