"""The demo: a process records conversations offline, is killed in the middle of writing, and nothing is lost.

Then a collector appears, and what had waited is delivered.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import demo_sync
from .console import counted

if TYPE_CHECKING:
    from rich.console import Console

    from ..store import SessionStore

FILE_NAME: Final = "demo.db"
LIVE_SESSION: Final = "night-watch"
SHOWN_SESSION: Final = "lighthouse-visit"
_KILL_AFTER: Final = 150
_READY: Final = "ready"
_PROGRAM: Final = "sessionstore"
_SQLITE: Final = "sqlite3"

_CALL: Final = {"id": "call_tides_1", "type": "function", "function": {"name": "tide_table", "arguments": '{"place": "Westkap"}'}}
_TIDES: Final = {"low_water": "14:10", "high_water": "20:25"}
_CONVERSATIONS: Final[tuple[tuple[str, dict[str, Any], tuple[tuple[dict[str, Any], dict[str, Any]], ...], int], ...]] = (
    (
        SHOWN_SESSION,
        {"user_id": "mara", "agent_id": "guide", "title": "A walk to the lighthouse", "tags": ["travel"]},
        (
            ({"role": "system", "content": "You are a guide who knows the coast."}, {}),
            ({"role": "user", "content": "When can I walk over to the lighthouse today?"}, {}),
            (
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"model": "demo-1", "input_tokens": 61, "output_tokens": 18, "response_time_ms": 310.0},
            ),
            ({"role": "tool", "tool_call_id": "call_tides_1", "content": json.dumps(_TIDES)}, {}),
            (
                {"role": "assistant", "content": "Low water is at 14:10. Go at one o'clock and be back by four."},
                {"model": "demo-1", "input_tokens": 97, "output_tokens": 21, "response_time_ms": 420.0},
            ),
            ({"role": "user", "content": "And if it rains?"}, {}),
            (
                {"role": "assistant", "content": "Then the café beside the dike has the better view anyway. ☔"},
                {"model": "demo-1", "input_tokens": 126, "output_tokens": 15, "response_time_ms": 280.0},
            ),
        ),
        5,
    ),
    (
        "bread-that-sinks",
        {"user_id": "joao", "agent_id": "baker", "title": "Why the bread sinks", "tags": ["kitchen"]},
        (
            ({"role": "user", "content": "My bread rises nicely and then sinks in the oven. Why?"}, {}),
            (
                {"role": "assistant", "content": "It rested too long. Bake it when a dent springs back slowly."},
                {"model": "demo-1", "input_tokens": 24, "output_tokens": 17, "response_time_ms": 350.0},
            ),
        ),
        4,
    ),
)  # fmt: skip


def run_demo(folder: Path | None) -> int:
    """Run it; the exit code is 1 if anything acknowledged is missing."""
    import rich

    console = rich.console.Console(markup=False, highlight=False, emoji=False)
    path, url = _fresh_file(folder), demo_sync.offline_url()
    _step(console, 1, "Another process opens a store, records conversations without a network, and goes on writing:")
    console.print(f"  {path}", soft_wrap=True)
    acknowledged = record_and_kill(path, url)
    _step(
        console, 2, f"It was killed in the middle of its work, after {len(acknowledged)} acknowledged messages of {LIVE_SESSION!r}."
    )
    _step(console, 3, "The file is opened again:")
    code = verify(path, acknowledged, console) or _sync(path, url, console)
    if code == 0:
        _tell_next(console, path)
    return code


def record_and_kill(path: Path, url: str, *, kill_after: int = _KILL_AFTER) -> list[int]:
    """Let a child write, kill it while it does, and return the seqs that it said were stored."""
    command = [sys.executable, "-m", "sessionstore.cli.demo", str(path), url]
    acknowledged: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:  # noqa: S603 - this program itself
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        for line in child.stdout:
            if line.strip() != _READY.encode():
                acknowledged.append(int(line))
            if len(acknowledged) == kill_after:
                child.kill()
                break
        # What it had said before it died counts, too; a torn last line was not said.
        rest = child.stdout.read().split(b"\n")[:-1]
    return acknowledged + [int(line) for line in rest]


def verify(path: Path, acknowledged: Sequence[int], console: Console) -> int:
    """Compare what was acknowledged with what is there, look for damage, and show a conversation."""
    import sessionstore

    from .looking import print_conversation

    with sessionstore.open(path, must_exist=True, remote=None) as store:
        lost = missing(store, acknowledged)
        diagnosis = store.doctor()
        there = {info.session_id: info.message_count for info in store.list()}
        if lost or not diagnosis.ok or len(acknowledged) < 1:
            problems = [f"{counted(len(lost), 'acknowledged message')} missing"] if lost else []
            problems += [f"{check.name}: {check.detail}" for check in diagnosis.checks if not check.ok]
            problems += [] if acknowledged else ["the writing process acknowledged nothing"]
            console.print("  FAILED: " + "; ".join(problems), style="bold red", soft_wrap=True)
            return 1
        console.print(f"  all {len(acknowledged)} acknowledged messages are there, none is lost", style="green")
        console.print(f"  {len(diagnosis.checks)} checks for damage: all ok", style="green")
        console.print(
            "  " + ", ".join(f"{name} ({counted(count, 'message')})" for name, count in sorted(there.items())), soft_wrap=True
        )
        console.print()
        info = store.get(SHOWN_SESSION)
        if info is not None:
            print_conversation(info, store.iterate(SHOWN_SESSION))
    return 0


def _sync(path: Path, url: str, console: Console) -> int:
    """Let a collector appear where nobody was, and deliver what waited."""
    if not demo_sync.has_collector():
        _step(console, 4, 'Its events wait for a collector. To see one: pip install "sessionstore[cli,collector]"')
        return 0
    _step(console, 4, "Its events waited for a network. Now there is one, and a collector starts:")
    return demo_sync.come_online(path, url, console)


def missing(store: SessionStore, acknowledged: Sequence[int]) -> list[int]:
    """The acknowledged seqs whose message is not there, or is another one."""
    stored = {message.seq: message.text for message in store.iterate(LIVE_SESSION)}
    return [seq for seq in acknowledged if stored.get(seq) != _watch_entry(seq)]


def record(path: str, url: str) -> None:
    """In the child: store the conversations, then append until somebody ends it, saying each seq once it is stored."""
    import sessionstore

    # With settings of its own: what the environment says is for other stores.
    with sessionstore.open(path, remote=sessionstore.Remote(url)) as store:
        for session_id, attributes, messages, quality_score in _CONVERSATIONS:
            store.create(session_id, **attributes)
            store.append_many(session_id, [sessionstore.NewMessage(message, **details) for message, details in messages])
            store.end(session_id, "completed", quality_score=quality_score)
        watch = store.session(LIVE_SESSION, agent_id="keeper", title="The keeper's log")
        _acknowledge(_READY)
        seq = 0
        while True:
            seq = watch.append("assistant", _watch_entry(seq + 1)).seq
            _acknowledge(str(seq))


def _acknowledge(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _watch_entry(seq: int) -> str:
    return f"Entry {seq}: the light is on, the sea is {('calm', 'choppy', 'rough')[seq % 3]}."


def _fresh_file(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="sessionstore-demo-")) / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.absolute() / FILE_NAME
    if path.exists():
        raise FileExistsError(17, "is there already; the demo wants a new file", str(path))
    return path


def _step(console: Console, number: int, text: str) -> None:
    console.print()
    console.print(f"{number}. {text}", style="bold", soft_wrap=True)


def _tell_next(console: Console, path: Path) -> None:
    file = str(path)
    commands = [
        [*_this_program(), "--store", file, "sessions"],
        [*_this_program(), "--store", file, "show", LIVE_SESSION, "--last", "5"],
        [*_this_program(), "--store", file, "outbox"],
    ]
    if shutil.which(_SQLITE):
        commands.append([_SQLITE, "-readonly", file, "SELECT role, text FROM messages ORDER BY id DESC LIMIT 5"])
    _step(console, 5, "It is one file, yours to look into:")
    for words in commands:
        console.print("  " + (subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)), soft_wrap=True)


def _this_program() -> list[str]:
    """The words that start this program again: as it was started, for it may be in no folder that a shell looks into."""
    script = shutil.which(sys.argv[0])
    if script is None or Path(script).stem != _PROGRAM:
        return [sys.executable, "-m", _PROGRAM]
    found = shutil.which(_PROGRAM)
    return [_PROGRAM] if found is not None and Path(found).samefile(script) else [str(Path(script).absolute())]


if __name__ == "__main__":
    record(*sys.argv[1:])
