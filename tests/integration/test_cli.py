"""The command line: its output, its exit code, and that a process of its own does with them what a call in this one does."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore.cli import main
from sessionstore.cli.app import Target, hoisted
from sessionstore.cli.looking import Choice
from sessionstore.cli.moving import upgrade
from sessionstore.database.upgrade import BACKUP_INFIX

VERBS = ("demo", "path", "status", "doctor", "sessions", "show", "stats", "query", "import", "export", "drain", "outbox",
         "remote", "fork", "search", "backup", "restore", "copy", "erase", "vacuum", "encrypt", "decrypt", "rekey", "new-key",
         "serve", "upgrade")  # fmt: skip
VERBS_OF_OUTBOX = ("outbox list", "outbox show", "outbox retry", "outbox purge", "outbox backfill")
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "cli.md"
EVIL = "[bold]hi[/bold] \x1b[31mred\x1b]0;title\x07 \x9b5m \u202egnp.exe\rover :smile: \x7f"


class Run:
    """What the command line said and how it ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.raw = out
        self.out = out.decode()
        self.err = err.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def ended(done: subprocess.CompletedProcess[bytes]) -> Run:
    return Run(done.returncode, done.stdout, done.stderr)


class Shell:
    """Runs the command line on one store: in this process, or where the process is the matter, in one of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store = folder / "agent.db"
        self._monkeypatch = monkeypatch
        for name in [name for name in os.environ if name.startswith(("SESSIONSTORE", "XDG_"))]:
            monkeypatch.delenv(name)
        for name, value in {"HOME": str(folder), "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Run:
        return self.bare("--store", str(self.store), *arguments, stdin=stdin)

    def bare(self, *arguments: str, stdin: bytes = b"") -> Run:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2))
        with self._monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            code = main(arguments)
        return Run(code, *(flushed(stream) for stream in (out, err)))

    def process(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Run:
        return self.bare_process("--store", str(self.store), *arguments, stdin=stdin, **environment)

    def bare_process(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Run:
        command = [sys.executable, "-m", "sessionstore", *arguments]
        return ended(subprocess.run(command, input=stdin, capture_output=True, env=os.environ | environment, check=False))


def flushed(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, monkeypatch)


@pytest.fixture
def filled(shell: Shell, new_file: Path) -> Shell:
    shutil.copy(new_file, shell.store)
    with sessionstore.open(shell.store) as store:
        chat = store.session("user-alice", agent_id="helper", user_id="alice", title="Capitals", tags=["good"])
        chat.append("user", "What's the capital of France?")
        chat.append(
            "assistant",
            None,
            tool_calls=[{"id": "c-1", "type": "function", "function": {"name": "look_up", "arguments": '{"country": "France"}'}}],
            model="m-1",
            input_tokens=12,
            output_tokens=3,
            response_time_ms=420,
        )
        chat.append("tool", "Paris", tool_call_id="c-1")
        store.session("user-bob", agent_id="other").append("user", "hello")
        store.in_namespace("team").session("user-carol").append("user", EVIL)
    return shell


def require_one_error_line(run: Run) -> None:
    assert re.fullmatch(r"error: [^\n]+\n", run.err), run.err
    assert "Traceback" not in run.err
    assert run.out == ""


# -- the process


LINE = json.dumps({"id": "s", "messages": [{"role": "user", "content": "☔"}]}).encode()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 0),
        (["path"], 0),
        (["status", "--json"], 0),
        (["doctor"], 0),
        (["sessions", "--limit", "1"], 0),
        (["--namespace", "team", "show", "user-carol"], 0),
        (["show", "nobody"], 1),
        (["stats"], 0),
        (["query", "SELECT session_id AS ☔ FROM v_sessions ORDER BY 1"], 0),
        (["query", "DELETE FROM sessions"], 2),
        (["import", "-", "--on-conflict", "replace"], 0),
        (["import", "-", "--format", "openai-messages"], 1),
        (["export", "--all-namespaces"], 0),
        (["upgrade"], 0),
        (["sessions", "--bogus"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_process_says_and_ends_as_a_call_in_this_one(filled: Shell, arguments: Sequence[str], code: int) -> None:
    """So the other tests may spare themselves the start of an interpreter."""
    before = filled.store.read_bytes()
    here = filled(*arguments, stdin=LINE)
    filled.store.write_bytes(before)
    there = filled.process(*arguments, stdin=LINE)
    assert (there.code, there.err, timeless(there.raw)) == (here.code, here.err, timeless(here.raw))
    assert here.code == code


def timeless(words: bytes) -> bytes:
    """Without what differs from call to call: the time, and how much of the disk is free."""
    return re.sub(rb'"exported_at":"[^"]+"|"free_bytes": \d+', b"", words)


# -- path, status, doctor, upgrade


def test_path_tells_where_the_store_is_and_creates_nothing(shell: Shell) -> None:
    run = shell("path")
    assert (run.code, run.out) == (0, f"{shell.store}\n")
    assert "does not exist yet" in run.err
    assert shell("path", "--json").json == {"path": str(shell.store), "exists": False, "size_bytes": 0}
    assert shell.bare("path").code == 0
    assert list(shell.folder.iterdir()) == []


def test_path_follows_the_environment_and_url(filled: Shell) -> None:
    assert filled.bare_process("path", SESSIONSTORE_URL=f"sqlite:///{filled.store}").out == f"{filled.store}\n"
    told = filled("path", "--json").json
    assert told == {"path": str(filled.store), "exists": True, "size_bytes": filled.store.stat().st_size}


@pytest.mark.parametrize(
    "verb", [["status"], ["doctor"], ["sessions"], ["show", "s"], ["stats"], ["query", "SELECT 1"], ["export"], ["upgrade"]]
)
def test_reading_verbs_create_no_store(shell: Shell, verb: Sequence[str]) -> None:
    run = shell(*verb)
    assert run.code == 1
    require_one_error_line(run)
    assert list(shell.folder.iterdir()) == []


def test_status_shows_every_figure(filled: Shell) -> None:
    told = filled("status", "--json").json
    with sessionstore.open(filled.store) as store:
        status = store.status()
    assert told.keys() == set(sessionstore.StoreStatus.__annotations__)
    assert (told["store_id"], told["sessions"], told["messages"]) == (status.store_id, 3, 5)
    assert status.store_id in filled("status").out
    assert told["storage"] is None
    assert filled("status", "--storage", "--json").json["storage"]["packed_messages"] == 0
    assert "packed messages" in filled("status", "--storage").out
    assert "packed messages" not in filled("status").out


def test_doctor_says_that_all_is_well(filled: Shell) -> None:
    run = filled("doctor")
    assert run.code == 0
    assert "FAILED" not in run.out
    told = filled("doctor", "--json").json
    assert told["ok"] is True
    assert {"structure", "checksums"} <= {check["name"] for check in told["checks"]}


def test_doctor_exits_1_when_a_message_is_damaged(filled: Shell) -> None:
    with closing(sqlite3.connect(filled.store)) as other_program:
        other_program.execute("UPDATE messages SET text = 'other' WHERE text = 'hello'")
        other_program.commit()
    run = filled("doctor")
    assert run.code == 1
    assert re.search(r"FAILED +checksums", run.out)
    told = filled("doctor", "--json")
    assert told.code == 1
    assert told.json["ok"] is False


def test_upgrade_says_that_there_is_nothing_to_do(filled: Shell) -> None:
    run = filled("upgrade")
    assert (run.code, run.out) == (0, "")
    assert "has schema" in run.err
    assert "nothing to do" in run.err


class OlderFile(Target):
    """A store whose schema is older: only an open that may migrate succeeds. There is no older schema yet."""

    def open(self, *, writing: bool = False, migrate: bool = False) -> sessionstore.SessionStore:
        if not migrate:
            raise sessionstore.ConfigError("its schema is older")
        return super().open(migrate=True)


def test_upgrade_says_what_was_done_and_where_the_backup_is(filled: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    backup = filled.folder / f"agent.db{BACKUP_INFIX}0000.db"
    backup.touch()
    upgrade(OlderFile(str(filled.store), ""))
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"upgraded to schema \d{4}\n", err)
    assert f"the file as it was before: {backup}" in err


def test_upgrade_refuses_a_newer_file(filled: Shell) -> None:
    with closing(sqlite3.connect(filled.store)) as other_program:
        other_program.execute("UPDATE sessionstore_version SET version_num = '9999'")
        other_program.commit()
    run = filled("upgrade")
    assert run.code == 1
    require_one_error_line(run)
    assert "newer" in run.err


# -- sessions


def test_sessions_lists_ids_counts_and_tags(filled: Shell) -> None:
    run = filled("sessions")
    header, *rows = run.out.splitlines()
    assert header.split() == ["SESSION", "MESSAGES", "CHANGED", "STATUS", "AGENT", "USER", "TAGS", "TITLE"]
    assert [row.split()[0] for row in rows] == ["user-bob", "user-alice"]
    assert rows[1].split()[-4:] == ["helper", "alice", "good", "Capitals"]
    assert run.err == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--agent", "helper"], ["user-alice"]),
        (["--user", "alice"], ["user-alice"]),
        (["--status", "completed"], []),
        (["--status", "open"], ["user-bob", "user-alice"]),
        (["--tag", "good"], ["user-alice"]),
        (["--tag", "good", "--tag", "bad"], []),
        (["--text", "capital of"], ["user-alice"]),
        (["--since", "5m"], ["user-bob", "user-alice"]),
        (["--since", "2999-01-01"], []),
        (["--since", "2000-01-01T00:00:00+05:00"], ["user-bob", "user-alice"]),
    ],
)
def test_sessions_takes_filters(filled: Shell, options: Sequence[str], expected: Sequence[str]) -> None:
    run = filled("sessions", "--json", *options)
    assert [info["session_id"] for info in run.json_lines] == expected


def test_sessions_in_a_namespace(filled: Shell) -> None:
    run = filled("--namespace", "team", "sessions", "--json")
    assert [info["session_id"] for info in run.json_lines] == ["user-carol"]
    assert run.json_lines[0].keys() == set(sessionstore.SessionInfo.__annotations__)


def test_sessions_come_in_pages_or_all_at_once(filled: Shell) -> None:
    first = filled("sessions", "--limit", "1", "--json")
    cursor = re.fullmatch(r"more: --cursor (\S+)\n", first.err)
    assert cursor
    second = filled("sessions", "--limit", "1", "--json", "--cursor", cursor[1])
    assert [info["session_id"] for info in first.json_lines + second.json_lines] == ["user-bob", "user-alice"]
    assert second.err == ""
    assert len(filled("sessions", "--limit", "1", "--json", "--all").json_lines) == 2


def test_no_sessions_are_no_data(filled: Shell) -> None:
    run = filled("sessions", "--agent", "nobody")
    assert (run.code, run.out, run.err) == (0, "", "no session matches\n")


def test_where_nothing_is_it_says_where_something_is(filled: Shell) -> None:
    with sessionstore.open(filled.store) as store:
        store.in_namespace("away").session("old")
        store.in_namespace("away").archive("old")
    for options in ([], ["--json"]):
        run = filled("--namespace", "nowhere", "sessions", *options)
        assert (run.code, run.out) == (0, "")
        assert run.err == "no sessions here; other namespaces have some: '', away, team; see --namespace\n"
    run = filled("--namespace", "nowhere", "sessions", "--tag", "good")
    assert run.err == "no session matches; other namespaces have some: '', away, team; see --namespace\n"
    run = filled("--namespace", "away", "sessions")
    assert (run.code, run.out, run.err) == (0, "", "no sessions here but archived ones; see --archived\n")


def test_an_empty_store_has_no_sessions(shell: Shell) -> None:
    with sessionstore.open(shell.store):
        pass
    run = shell("sessions")
    assert (run.code, run.out, run.err) == (0, "", "no sessions here\n")


def test_a_page_behind_the_last_session_is_no_empty_store(filled: Shell) -> None:
    cursor = filled("sessions", "--limit", "1").err.split()[-1]
    with sessionstore.open(filled.store) as store:
        store.delete("user-alice")
    assert filled("sessions", "--limit", "1", "--cursor", cursor).err == "no more sessions\n"


@pytest.fixture
def marked(filled: Shell) -> Shell:
    with sessionstore.open(filled.store) as store:
        store.update("user-alice", metadata={"reward": 1.0, "task": "capitals", "number": "7", "done": True, "x=y": None})
        store.update("user-bob", metadata={"reward": 0, "task": "NaN", "number": 7})
        store.pin("user-bob")
        store.session("away", metadata={"reward": 1})
        store.archive("away")
    return filled


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--archived"], ["away"]),
        (["--pinned"], ["user-bob"]),
        (["--pinned", "--archived"], []),
        (["--archived", "--metadata", "reward=1"], ["away"]),
        (["--metadata", "reward=1.0"], ["user-alice"]),
        (["--metadata", "task=capitals"], ["user-alice"]),
        (["--metadata", "task=NaN"], ["user-bob"]),
        (["--metadata", "number=7"], ["user-bob"]),
        (["--metadata", 'number="7"'], ["user-alice"]),
        (["--metadata", "done=true"], ["user-alice"]),
        (["--metadata", "number=7", "--metadata", "reward=0"], ["user-bob"]),
        (["--metadata", "number=7", "--metadata", "reward=1"], []),
        (["--until", "2000-01-01"], []),
        (["--until", "2999-01-01", "--since", "5m", "--user", "alice"], ["user-alice"]),
    ],
)
def test_sessions_are_found_by_their_marks(marked: Shell, options: Sequence[str], expected: Sequence[str]) -> None:
    run = marked("sessions", "--json", *options)
    assert (run.code, [info["session_id"] for info in run.json_lines]) == (0, expected)


def test_a_filter_that_is_not_given_is_not_passed_on() -> None:
    assert Choice().filters() == {}
    assert Choice(pinned=True, archived=True).filters() == {"pinned": True, "archived": True}


def test_long_titles_and_ids_are_cut_on_a_terminal_only(filled: Shell) -> None:
    name, title = "chat-" + "x" * 240, "A long title " * 30
    with sessionstore.open(filled.store) as store:
        store.create(name, title=title.strip())
    assert title.strip() in filled("sessions").out
    assert name in filled("sessions").out
    lines = on_a_terminal(filled, "sessions").splitlines()
    assert len(lines) == 4
    assert all(len(line) <= 80 for line in lines)
    (row,) = [line for line in lines if line.startswith("chat-x")]
    assert row.count("…") == 2
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row)


# -- show


def test_show_renders_a_chat(filled: Shell) -> None:
    run = filled("show", "user-alice")
    assert run.code == 0
    shown = ("Capitals", "What's the capital of France?", "m-1", "12 tokens in", "420 ms", "answers c-1", "Paris")
    for words in (*shown, 'look_up({"country": "France"})'):
        assert words in run.out
    assert all(line == line.rstrip() for line in run.out.splitlines())


def test_show_as_json_is_the_session_and_its_messages(filled: Shell) -> None:
    session, *messages = filled("show", "user-alice", "--json").json_lines
    assert (session["type"], session["session_id"], session["message_count"]) == ("session", "user-alice", 3)
    assert [message["seq"] for message in messages] == [1, 2, 3]
    assert messages[2]["message"] == {"role": "tool", "content": "Paris", "tool_call_id": "c-1"}


def test_show_can_be_cut_to_the_newest(filled: Shell) -> None:
    assert [line["seq"] for line in filled("show", "user-alice", "--json", "--last", "1").json_lines[1:]] == [3]


def test_show_can_show_the_state(filled: Shell) -> None:
    assert filled("show", "user-alice", "--state").err == "no state\n"
    with sessionstore.open(filled.store) as store:
        store.set_state("user-alice", {"step": 3, "evil": EVIL})
        store.set_state("user-alice", {"lang": "it"}, scope="user")
        store.set_state("user-bob", {"x": None}, scope="app")
    shown = filled("show", "user-alice", "--state").out
    assert "session  step = 3\n" in shown
    assert 'user     lang = "it"\n' in shown
    assert "\x1b" not in shown
    (found,) = filled("show", "user-alice", "--state", "--json").json_lines
    assert found == {"session": {"evil": EVIL, "step": 3}, "user": {"lang": "it"}, "app": {}}
    (found,) = filled("show", "user-bob", "--state", "--json").json_lines
    assert found == {"session": {}, "app": {"x": None}}


@pytest.mark.parametrize("arguments", [["show", "nobody"], ["show", "nobody", "--state"], ["export", "nobody"]])
def test_a_session_that_is_not_there_is_an_error(filled: Shell, arguments: Sequence[str]) -> None:
    run = filled(*arguments)
    assert run.code == 1
    require_one_error_line(run)
    assert "there is no session 'nobody'" in run.err


@pytest.mark.parametrize("arguments", [["show", "user-carol"], ["sessions"], ["export"], ["show", "user-carol", "--json"]])
def test_stored_text_cannot_command_the_terminal(filled: Shell, arguments: Sequence[str]) -> None:
    with sessionstore.open(filled.store, namespace="team") as store:
        store.update("user-carol", title=EVIL)
    out = filled("--namespace", "team", *arguments).out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert "[bold]hi[/bold]" in out
    assert ":smile:" in out
    assert re.search(r"\\(x|u00)1b\[31mred", out)


def on_a_terminal(shell: Shell, *arguments: str) -> str:
    """What a process writes to a terminal that knows no colours."""
    pty = pytest.importorskip("pty", reason="needs a pseudo terminal")
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "sessionstore", "--store", str(shell.store), *arguments]
    environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as child:
        os.close(terminal)
        seen = b""
        try:
            while chunk := os.read(control, 4096):
                seen += chunk
        except OSError:
            # Linux says so when the child has closed its side.
            pass
    os.close(control)
    assert child.returncode == 0
    return seen.decode()


def test_no_colour_and_no_escape_reach_a_terminal_that_wants_none(filled: Shell) -> None:
    seen = on_a_terminal(filled, "--namespace", "team", "show", "user-carol")
    assert "[bold]hi[/bold]" in seen
    assert "\x1b" not in seen
    assert "\x07" not in seen


def test_a_narrow_encoding_of_stdout_is_no_error(filled: Shell) -> None:
    filled("import", "-", stdin=json.dumps({"id": "unicode", "messages": [{"role": "user", "content": "☔ ü"}]}).encode())
    run = filled.process("show", "unicode", PYTHONIOENCODING="ascii")
    assert run.code == 0
    assert "☔ ü" in run.out


# -- import and export


def test_import_and_export_give_back_what_came_in(shell: Shell) -> None:
    lines = [{"id": f"s{number}", "messages": [{"role": "user", "content": f"é {number}"}]} for number in range(3)]
    (shell.folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = shell("import", "chats.jsonl")
    assert (run.code, run.out, run.err) == (0, "", "chats.jsonl: 3 conversations, 3 messages stored\n")
    back = shell("export", "--format", "openai")
    assert [{key: value for key, value in line.items() if key != "session_id"} for line in back.json_lines] == lines
    assert back.err.startswith("3 conversations, 3 messages, ")
    single = shell("export", "--format", "openai-messages", "s1")
    assert single.json_lines == lines[1]["messages"]


def test_the_real_conversations_come_back_from_the_command_line(shell: Shell, airline_conversations: list[dict[str, Any]]) -> None:
    data = "".join(json.dumps(line) + "\n" for line in airline_conversations).encode()
    (shell.folder / "airline.jsonl.gz").write_bytes(gzip.compress(data))
    assert shell("import", "airline.jsonl.gz").err == "airline.jsonl.gz: 100 conversations, 2,526 messages stored\n"
    back = shell("export", "--format", "openai").json_lines
    assert [{key: value for key, value in line.items() if key != "session_id"} for line in back] == airline_conversations


def test_stdin_stdout_and_gzip_files_fit_together(filled: Shell) -> None:
    assert filled("export", "-o", "all.jsonl.gz", "--all-namespaces").out == ""
    packed = (filled.folder / "all.jsonl.gz").read_bytes()
    plain = filled("export", "--all-namespaces").out.encode()
    assert gzip.decompress(packed) == plain
    for number, data in enumerate((packed, plain)):
        other = ["--store", str(filled.folder / f"other-{number}.db")]
        run = filled.bare(*other, "import", "-", stdin=data)
        assert (run.code, run.err) == (0, "-: 3 conversations, 5 messages stored\n")
        assert filled.bare(*other, "export", "--all-namespaces").out.encode() == plain


def test_import_takes_several_files_and_stops_at_the_first_bad_one(shell: Shell) -> None:
    good = json.dumps({"role": "user", "content": "x"})
    for name, text in (("a.jsonl", good), ("b.jsonl", "{"), ("c.jsonl", good)):
        (shell.folder / name).write_text(text)
    run = shell("import", "a.jsonl", "b.jsonl", "c.jsonl")
    assert run.code == 1
    assert run.err.splitlines()[0] == "a.jsonl: 1 conversation, 1 message stored"
    assert run.err.splitlines()[1].startswith("error: line 1 of b.jsonl: is not JSON")
    assert [info["session_id"] for info in shell("sessions", "--json").json_lines] == ["a"]


def test_import_says_what_became_of_taken_ids(filled: Shell) -> None:
    filled("export", "-o", "all.jsonl")
    failed = filled("import", "all.jsonl")
    assert failed.code == 1
    require_one_error_line(failed)
    assert failed.err == (
        "error: line 2 of all.jsonl: there is a session 'user-alice' already; 0 conversations before it are stored; "
        "go on with --on-conflict skip|replace|new-id|merge\n"
    )
    assert "2 skipped" in filled("import", "all.jsonl", "--on-conflict", "skip").err
    assert "2 of them replaced others" in filled("import", "all.jsonl", "--on-conflict", "replace").err
    assert "user-alice is now user-alice-2" in filled("import", "all.jsonl", "--on-conflict", "new-id").err


def test_a_purge_without_yes_is_refused_in_one_sentence(filled: Shell) -> None:
    refused = filled("outbox", "purge")
    assert (refused.code, refused.err) == (2, "error: nothing brings purged events back; add --yes\n")


def test_only_an_import_is_told_of_its_options(filled: Shell) -> None:
    failed = filled("fork", "user-alice", "user-alice")
    assert (failed.code, failed.err) == (1, "error: there is a session 'user-alice' already; give the fork another id\n")
    behind = filled("fork", "user-alice", "try", "--at", "99")
    assert (behind.code, behind.err) == (2, "error: at: must be at most 3, the seq that the session gave last\n")
    filled("export", "-o", "all.jsonl")
    with sessionstore.open(filled.store) as store:
        store.truncate("user-alice", after=0)
        store.append("user-alice", "user", "something else")
    failed = filled("import", "all.jsonl", "--on-conflict", "merge")
    assert failed.err.endswith("; go on with --on-conflict skip|replace|new-id\n")


def test_a_taken_id_of_a_file_with_one_message_a_line_is_the_file_s(filled: Shell) -> None:
    (filled.folder / "user-bob.jsonl").write_text('{"role": "user", "content": "x"}\n')
    failed = filled("import", "user-bob.jsonl")
    require_one_error_line(failed)
    assert failed.err.startswith(
        "error: user-bob.jsonl: there is a session 'user-bob' already; 0 conversations before it are stored"
    )


def test_what_show_writes_is_no_file_to_import(filled: Shell) -> None:
    shown = filled("show", "user-alice", "--json").out.encode()
    run = filled("import", "-", stdin=shown)
    assert run.code == 1
    require_one_error_line(run)
    assert run.err.startswith("error: line 1 of stdin: looks like the lossless format without its header")
    assert "sessionstore export" in run.err
    assert "| jq" in filled("show", "--help").out


def test_a_json_array_is_refused_with_a_hint(shell: Shell) -> None:
    run = shell("import", "-", stdin=b'[{"messages": []}]')
    hint = "and JSONL has one JSON value a line; a session file of go-deep-agent needs its format named"
    assert (run.code, run.err) == (1, f"error: line 1 of stdin: is a JSON array, {hint}\n")


def test_an_export_over_a_database_is_refused_without_an_argument_s_name(filled: Shell) -> None:
    with sessionstore.open(filled.folder / "busy.db") as store:
        store.session("s")
        run = filled.process("export", "-o", "busy.db")
    assert run.code == 2
    require_one_error_line(run)
    assert run.err.startswith("error: busy.db looks like a database")


def test_a_mistyped_file_makes_no_store(shell: Shell) -> None:
    run = shell("import", "nothing.jsonl")
    assert run.code == 1
    require_one_error_line(run)
    assert not shell.store.exists()


def test_import_takes_an_id_for_a_file_of_messages(shell: Shell) -> None:
    line = json.dumps({"role": "user", "content": "x"}).encode()
    assert shell("import", "-", "--session-id", "mine", stdin=line).code == 0
    assert shell("show", "mine").code == 0
    assert shell("import", "-", stdin=line).code == 0
    assert shell("show", "stdin").code == 0


def test_export_takes_filters(filled: Shell) -> None:
    run = filled("export", "--format", "openai", "--agent", "helper", "--tag", "good", "--since", "1h")
    assert [line["session_id"] for line in run.json_lines] == ["user-alice"]


def test_other_programs_files_go_in_and_out(shell: Shell) -> None:
    (shell.folder / "memories").mkdir()
    (shell.folder / "memories" / "chat.json").write_text('[{"Role": "user", "Content": "é"}]')
    run = shell("import", "memories")
    assert (run.code, run.err) == (0, "memories: 1 conversation, 1 message stored\n")
    out = shell("export", "--format", "go-deep-agent", "-o", "out")
    assert (out.code, [path.name for path in (shell.folder / "out").iterdir()]) == (0, ["chat.json"])
    assert "<!DOCTYPE html>" in shell("export", "--format", "html", "chat").out
    assert shell("export", "--format", "markdown", "chat").out.startswith("# chat\n")
    table = shell("export", "--format", "csv", "--view", "v_messages")
    assert table.out.startswith("namespace,session_id,")
    assert table.err.startswith("1 row, ")
    wrong = shell("export", "--format", "csv")
    assert (wrong.code, wrong.err) == (2, "error: view: goes with the formats csv and parquet, which need one\n")


def test_a_reader_that_leaves_early_is_no_traceback(filled: Shell) -> None:
    with sessionstore.open(filled.store) as store:
        store.session("long").append_many([{"role": "user", "content": "x" * 1000}] * 1000)
    command = [sys.executable, "-m", "sessionstore", "--store", str(filled.store), "export"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


# -- stats and query


@pytest.fixture
def told(shell: Shell, new_file: Path) -> Shell:
    """Two agents, one conversation of each ended well, one failed, with an answer of 420 ms."""
    shutil.copy(new_file, shell.store)
    with sessionstore.open(shell.store) as store:
        for session_id, agent_id in (("a", "helper"), ("b", "helper"), ("c", "other")):
            store.session(session_id, agent_id=agent_id).append("user", "q")
        store.append("a", "assistant", "x", model="m-1", response_time_ms=420, input_tokens=12, output_tokens=3)
        store.end("a", quality_score=4)
        store.end("b", "failed", error="\x1b[31mboom")
        store.end("c", quality_score=2)
    return shell


def test_stats_tells_all_and_each_agent(told: Shell) -> None:
    lines = [line.split() for line in told("stats").out.splitlines()]
    assert lines[0][:4] == ["agent", "conversations", "completed", "failed"]
    assert lines[1] == ["(all)", "3", "2", "1", "0", "0", "0.6667", "3", "1", "420", "420", "12", "3"]
    assert [line[0] for line in lines[2:]] == ["helper", "other"]
    only = told("stats", "--agent", "other", "--csv").out.splitlines()
    assert only[1:] == ["(all),1,1,0,0,0,1.0,2.0,0,,,0,0", "other,1,1,0,0,0,1.0,2.0,0,,,0,0"]


def test_stats_as_json_is_the_overview(told: Shell) -> None:
    with sessionstore.open(told.store) as store:
        assert told.process("stats", "--json").json == json.loads(json.dumps(store.overview()))


@pytest.mark.parametrize("by", ["hour", "day", "week", "month"])
def test_stats_by_time_adds_up(told: Shell, by: str) -> None:
    rows = list(csv.DictReader(io.StringIO(told("stats", "--by", by, "--csv").out)))
    assert sum(int(row["conversations"]) for row in rows) == 3
    assert sum(int(row["answers"]) for row in rows) == 1
    assert all(row[by].startswith("20") for row in rows)


def test_stats_of_nothing_says_so(told: Shell) -> None:
    run = told("stats", "--until", "2001-01-01")
    assert (run.code, run.out) == (0, "")
    assert "nothing was recorded" in run.err
    assert told("stats", "--since", "yesterday").code == 2


QUERY = "SELECT session_id, quality_score, error FROM v_sessions ORDER BY session_id"


def test_query_writes_a_table_json_lines_or_csv(told: Shell) -> None:
    table = told("query", QUERY).out.splitlines()
    assert table[0].split() == ["session_id", "quality_score", "error"]
    assert table[2].split() == ["b", "\\x1b[31mboom"]
    assert told("query", QUERY, "--table").out.splitlines() == table
    rows = [json.loads(line) for line in told("query", QUERY, "--json").out.splitlines()]
    assert rows[0] == {"session_id": "a", "quality_score": 4, "error": None}
    assert list(csv.reader(io.StringIO(told("query", QUERY, "--csv").out)))[3] == ["c", "2", ""]


def test_query_takes_parameters_a_limit_and_stdin(told: Shell) -> None:
    by_agent = "SELECT session_id FROM v_sessions WHERE agent_id = :agent ORDER BY 1"
    assert told("query", by_agent, "--param", "agent=helper", "--csv").out == "session_id\na\nb\n"
    assert told("query", by_agent, "--param", "agent=' OR 1=1 --", "--csv").out == "session_id\n"
    assert told("query", QUERY, "--limit", "1", "--csv").out.count("\n") == 2
    assert told("query", "-", "--csv", stdin=b"SELECT 1 AS one").out == "one\n1\n"
    assert told("query", "SELECT x'00ff' AS bytes", "--json").json == {"bytes": "00ff"}


def test_query_as_json_has_every_column_and_number(told: Shell) -> None:
    twice = told("query", "SELECT 1 AS a, 2 AS a", "--json")
    assert twice.code == 2
    require_one_error_line(twice)
    assert "AS" in twice.err
    assert told("query", "SELECT 1e999 AS x, -1e999 AS y", "--json").json == {"x": "inf", "y": "-inf"}


# Interrupts the command line while it loads a module.
INTERRUPTED_AT = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise KeyboardInterrupt

from sessionstore.cli import main
sys.meta_path.insert(0, Interrupts())
sys.exit(main(["path"]))
"""


@pytest.mark.parametrize("module", ["typer", "rich", "sessionstore.cli.app", "sessionstore.cli.looking"])
def test_ctrl_c_while_modules_are_loaded_ends_quietly(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT, module], capture_output=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_interrupted_copy_says_that_it_goes_on(told: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sessionstore.copying.Copying.finish", interrupted)
        done = told.bare("copy", str(told.store), "copy.db")
    assert done.code == 130
    assert done.err == "interrupted; run the same again, and it goes on where it was\n"
    assert told.bare("copy", str(told.store), "copy.db").code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_an_endless_query_ends_with_ctrl_c(told: Shell) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    command = [sys.executable, "-m", "sessionstore", "--store", str(told.store), "query", endless]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        for _ in range(100):
            time.sleep(0.2)
            running.send_signal(signal.SIGINT)
            if running.poll() is not None:
                break
        assert running.wait(20) != 0


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM sessions", "INSERT INTO session_tags VALUES (1, 'x')", "DROP TABLE sessions", "ATTACH 'x.db' AS x",
     "PRAGMA query_only=OFF", "PRAGMA journal_mode=DELETE", "CREATE TABLE t (x)", "SELECT 1; DELETE FROM sessions",
     "VACUUM INTO 'copy.db'", "WITH x AS (SELECT 1) DELETE FROM sessions", "nonsense", ""],
)  # fmt: skip
def test_query_refuses_what_does_not_only_read(told: Shell, statement: str) -> None:
    run = told("query", statement)
    assert run.code == 2
    require_one_error_line(run)
    with sessionstore.open(told.store) as store:
        assert store.count() == 3
    assert sorted(path.name for path in told.folder.iterdir() if path.suffix == ".db") == [told.store.name]


def test_query_and_stats_write_one_form(told: Shell) -> None:
    for verb in (["query", QUERY], ["stats"]):
        run = told(*verb, "--json", "--csv")
        assert run.code == 2
        require_one_error_line(run)
    assert told("query", QUERY, "--param", "agent").code == 2


# -- the store's options behind the verb


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["sessions", "--store", "x"], ["--store", "x", "sessions"]),
        (["sessions", "--json", "--store=x", "--namespace", "n"], ["--store=x", "--namespace", "n", "sessions", "--json"]),
        (["--store", "a", "sessions", "--store", "b"], ["--store", "a", "--store", "b", "sessions"]),
        (["show", "--", "--store", "x"], ["show", "--", "--store", "x"]),
        (["sessions", "--text", "--store", "x"], ["sessions", "--text", "--store", "x"]),
        (["export", "-o", "--namespace"], ["export", "-o", "--namespace"]),
        (["sessions", "--json", "--store"], ["--store"]),
        (["sessions", "--text"], ["sessions", "--text"]),
        (["sessions", "--stored", "x"], ["sessions", "--stored", "x"]),
        ([], []),
    ],
)
def test_the_store_s_options_move_before_the_verb(given: Sequence[str], expected: Sequence[str]) -> None:
    assert hoisted(given) == expected


def test_the_store_can_be_named_behind_the_verb(filled: Shell) -> None:
    for options in (["--store", str(filled.store), "--namespace", "team"], [f"--store={filled.store}", "--namespace=team"]):
        run = filled.bare("sessions", "--json", *options)
        assert [info["session_id"] for info in run.json_lines] == ["user-carol"]
    run = filled.bare("sessions", "--store")
    assert run.code == 2
    require_one_error_line(run)
    assert "--store" in run.err


# -- wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--bogus"],
        ["sessions", "--bogus"],
        ["sessions", "--limit", "0"],
        ["sessions", "--limit", "many"],
        ["sessions", "--status", "closed"],
        ["sessions", "--since", "yesterday"],
        ["sessions", "--until", "tomorrow"],
        ["sessions", "--metadata", "task"],
        ["sessions", "--metadata", "=1"],
        ["sessions", "--metadata", "a=1", "--metadata", "a=2"],
        ["sessions", "--metadata", "a=[1]"],
        ["sessions", "--store"],
        ["sessions", "--all", "--cursor", "x"],
        ["sessions", "--cursor", "x"],
        ["show"],
        ["show", ""],
        ["show", "a", "b"],
        ["import"],
        ["import", "-", "--format", "csv"],
        ["import", "-", "--on-conflict", "blend"],
        ["import", "-", "-", "--session-id", "x"],
        ["export", "id", "--tag", "x"],
        ["export", "--all-namespaces", "--format", "openai"],
        ["export", "--format", "openai-messages"],
        ["--store", "postgresql://host/db", "status"],
        ["--store", "", "path"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(filled: Shell, arguments: Sequence[str]) -> None:
    run = filled(*arguments)
    assert run.code == 2
    require_one_error_line(run)


def test_wrong_usage_ends_the_process_with_exit_code_2(shell: Shell) -> None:
    run = shell.process("sessions", "--bogus")
    assert run.code == 2
    require_one_error_line(run)


def test_a_damaged_store_is_one_line_and_exit_code_1(shell: Shell) -> None:
    shell.store.write_bytes(b"no database at all")
    for verb in (["status"], ["import", "-"], ["export"]):
        run = shell(*verb)
        assert run.code == 1
        require_one_error_line(run)


# -- help and start


def test_help_lists_every_verb_with_a_summary(shell: Shell) -> None:
    for arguments in ([], ["--help"]):
        run = shell.bare(*arguments)
        assert (run.code, run.err) == (0, "")
        for verb in VERBS:
            assert re.search(rf"^\W*{verb} +[A-Z][^│]+\.", run.out, re.MULTILINE), verb
    assert list(shell.folder.iterdir()) == []


def documented() -> dict[str, tuple[str, list[str]]]:
    """Each verb of the documentation: its text, and the options that it lists."""
    sections = re.split(r"^## ", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {section.split("\n", 1)[0].strip("`"): section for section in sections}
    verbs = {verb: text for verb, text in found.items() if verb in VERBS + VERBS_OF_OUTBOX}
    return {verb: (text, re.findall(r"^\| `(-{1,2}[a-z-]+)", text, re.MULTILINE)) for verb, text in verbs.items()}


def test_the_documentation_has_every_verb() -> None:
    assert set(documented()) == {*VERBS, *VERBS_OF_OUTBOX}


@pytest.mark.parametrize("verb", VERBS + VERBS_OF_OUTBOX)
def test_help_and_documentation_name_the_same_options(shell: Shell, verb: str) -> None:
    run = shell.bare(*verb.split(), "--help")
    assert (run.code, run.err) == (0, "")
    _, listed = documented()[verb]
    offered = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+(?= )", run.out.split("Options", 1)[1].split("Example", 1)[0])) - {"--help"}
    assert set(listed) == offered
    assert "Example" in run.out
    assert f"sessionstore {verb}" in run.out or f" {verb}" in run.out.split("Example", 1)[1]


def test_version_is_the_package_s(shell: Shell) -> None:
    assert shell.bare("--version").out == f"sessionstore {sessionstore.__version__}\n"


LIGHT = """
import sys
from sessionstore.cli import main
code = main(sys.argv[1:])
heavy = {"sqlalchemy", "sqlmodel", "alembic", "httpx"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["path"], ["path", "--json"], ["sessions", "--help"]])
def test_help_and_path_load_neither_sqlalchemy_nor_alembic(shell: Shell, arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(shell.folder.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--json"], ["--status", "open", "--tag", "t", "--limit", "1"], ["--all"]], ids=" ".join)
def test_listing_sessions_loads_no_sqlalchemy(shell: Shell, options: Sequence[str]) -> None:
    with sessionstore.open(shell.store) as store:
        for session_id in ("first", "last"):
            store.create(session_id, tags=["t"])
    command = [sys.executable, "-c", LIGHT, "--store", str(shell.store), "sessions", *options]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"last" in done.stdout


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_get_it(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from sessionstore.cli import main; sys.exit(main(['path']))"
    done = ended(subprocess.run([sys.executable, "-c", program], capture_output=True, check=False))
    assert done.code == 2
    assert done.err == 'error: the command line needs typer and rich: pip install "sessionstore[cli]"\n'


def test_it_can_be_called_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(tmp_path / "no.db"), "status"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["--store", str(tmp_path / "no.db"), "path"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'no.db'}\n"
