"""A laboratory for crashes: children forked from a process that has imported everything and has no store open itself.

Importing takes most of a second, so the campaigns in this folder fork. They are programs of their own, started by the tests:
a process with threads, as pytest's is, must not fork. What a child says comes through a pipe, line by line, and survives its
death; whoever looks at the file afterwards is another child.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

import sessionstore
from sessionstore.database import checkpoints

# Loaded on demand by the package; a child should not spend its short life on importing.
_QUERIES = ("catalog", "edits", "health", "changes", "tool_calls")
_LAZY = ("aio", "diagnosis", "models", *(f"queries.{name}" for name in _QUERIES))
_PR_SET_PDEATHSIG = 1
_PR_SET_PTRACER = 0x59616D61
_ANY_PROCESS = ctypes.c_ulong(-1)
Task = TypeVar("Task")


class Wire:
    """What a child talks and listens through."""

    def __init__(self, writing: int, gate: int) -> None:
        self.descriptor = writing
        self._gate = gate

    def say(self, *words: object) -> None:
        """Send one line. A short line is written whole or not at all."""
        line = (json.dumps(words) + "\n").encode()
        while line:
            line = line[os.write(self.descriptor, line) :]

    def wait(self) -> None:
        """Go on when the parent says so."""
        self.say("WAITING")
        os.read(self._gate, 1)


class Child:
    """A forked process that does one thing."""

    def __init__(self, action: Callable[[Wire], None]) -> None:
        reading, writing = os.pipe()
        gate, self._opener = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            os.close(self._opener)
            _live(action, Wire(writing, gate))
        os.close(writing)
        os.close(gate)
        self._lines = os.fdopen(reading, "rb")

    def ready(self) -> list[list[Any]]:
        """Return when it has come to its next `wait()`, with all that it said before."""
        lines = []
        while (line := self.hear()) != ["WAITING"]:
            if not line or line[0] == "CRASH":
                raise AssertionError(f"the child did not come to wait: {line}")
            lines.append(line)
        return lines

    def go(self) -> None:
        """Let it pass its `wait()`."""
        os.write(self._opener, b".")

    def hear(self) -> list[Any]:
        """Its next line; an empty list if it has none any more."""
        line = self._lines.readline()
        return json.loads(line) if line.endswith(b"\n") else []

    def expect(self, word: str) -> list[Any]:
        """Its next line, which must begin with a word."""
        line = self.hear()
        if line[:1] != [word]:
            raise AssertionError(f"expected {word!r}, heard {line!r}")
        return line

    def kill(self) -> None:
        """End it as the kernel's out-of-memory killer would."""
        os.kill(self.pid, signal.SIGKILL)

    def rest(self) -> list[list[Any]]:
        """All that it still says, until its end."""
        lines = []
        while line := self.hear():
            lines.append(line)
        return lines

    def end(self) -> int:
        """Wait for its end and give its exit code, negative for the signal that killed it."""
        self._lines.close()
        os.close(self._opener)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _live(action: Callable[[Wire], None], wire: Wire) -> None:
    status = 1
    try:
        _prepare_process()
        action(wire)
        status = 0
    except BaseException:
        wire.say("CRASH", traceback.format_exc())
    finally:
        os._exit(status)


def _prepare_process() -> None:
    # Where only ancestors may trace, a sibling needs leave. Other systems do not know these calls, and need none.
    with suppress(AttributeError, OSError):
        control = ctypes.CDLL(None).prctl
        control(_PR_SET_PTRACER, _ANY_PROCESS, 0, 0, 0)
        # A campaign that is killed takes its children along.
        control(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def warm_up() -> None:
    """Import all that a child could need, and let the store's own warnings be counted rather than raised."""
    warnings.simplefilter("always", sessionstore.StoreWarning)
    for name in _LAZY:
        importlib.import_module(f"sessionstore.{name}")
    with sessionstore.open(in_memory=True) as store:
        store.session("warm", tags=["up"]).append("user", "x")
        for call in (store.status, store.doctor, store.list):
            call()
    for backend in ("asyncio", "trio"):
        anyio.run(anyio.sleep, 0, backend=backend)


def checkpoint_often(changes: int) -> None:
    """Let the writers of this process copy their log after a few changed rows, not hundreds."""
    for name in ("_FIRST_CHANGES", "_FEWEST_CHANGES", "_MOST_CHANGES"):
        if not hasattr(checkpoints, name):
            raise AssertionError(f"sessionstore.database.checkpoints has no {name} any more")
        setattr(checkpoints, name, changes)


def ask(question: Callable[[], Any]) -> Any:
    """The answer of a child of its own to a question, as JSON gives it back."""
    child = Child(lambda wire: wire.say("ANSWER", question()))
    lines = child.rest()
    child.end()
    if not lines or lines[-1][0] != "ANSWER":
        raise AssertionError(f"the child failed: {lines}")
    return lines[-1][1]


def do(action: Callable[[Wire], None]) -> None:
    """Let a child do something and end."""
    child = Child(action)
    said = child.rest()
    child.end()
    if said:
        raise AssertionError(f"the child failed: {said}")


def spread(work: Callable[[Task], Any], tasks: Sequence[Task], hands: int) -> list[Any]:
    """What `work` gives for each task, in their order, as JSON gives it back; several children share the tasks.

    Runs under strace mostly wait, so that more children than processors are worth it.
    """

    def work_off(wire: Wire, hand: int, results: int) -> None:
        for task in tasks[hand::hands]:
            line = (json.dumps(work(task)) + "\n").encode()
            while line:
                line = line[os.write(results, line) :]

    with tempfile.TemporaryDirectory() as folder:
        files = [os.open(Path(folder) / str(hand), os.O_RDWR | os.O_CREAT, 0o600) for hand in range(hands)]
        children = [Child(partial(work_off, hand=hand, results=file)) for hand, file in enumerate(files)]
        said = [line for child in children for line in child.rest()]
        for child in children:
            child.end()
        for file in files:
            os.close(file)
        if said:
            raise AssertionError(f"a hand failed: {said}")
        shares = [Path(folder, str(hand)).read_text().splitlines() for hand in range(hands)]
    if sum(map(len, shares)) != len(tasks):
        raise AssertionError("a hand ended before its work")
    return [json.loads(shares[number % hands][number // hands]) for number in range(len(tasks))]


def added(totals: list[dict[str, int]]) -> dict[str, int]:
    """Figures of several parts of a campaign, by name."""
    sums: dict[str, int] = {}
    for part in totals:
        for name, value in part.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def is_traceable() -> bool:
    """Whether strace is here and may attach to a process."""
    if shutil.which("strace") is None:
        return False
    child = Child(lambda wire: wire.wait())
    child.ready()
    try:
        with traced(child.pid, "-e", "trace=none", log=Path(os.devnull)):
            child.go()
            child.rest()
            child.end()
    except RuntimeError:
        child.kill()
        child.end()
        return False
    return True


@contextmanager
def traced(pid: int, *options: str, log: Path) -> Iterator[None]:
    """strace, attached to a process that waits."""
    command = ["strace", "-f", "-p", str(pid), "-o", str(log), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        if "attached" not in said:
            tracer.kill()
            raise RuntimeError(f"strace could not attach: {said}")
        yield
        # It ends with the last process that it traces.
        tracer.communicate()


def examine(path: str) -> dict[str, Any]:
    """Open a file after a crash, first as a store and then as a plain database: what it holds, and what is wrong with it."""
    try:
        found = _examine_store(path)
    except sessionstore.SessionStoreError as error:
        return {"sessions": {}, "wrong": [f"it cannot be opened and read: {error!r}"], "alarms": []}
    raw = sqlite3.connect(path)
    found["wrong"] += [row[0] for row in raw.execute("PRAGMA integrity_check") if row[0] != "ok"]
    found["wrong"] += [f"no parent: {row}" for row in raw.execute("PRAGMA foreign_key_check")]
    raw.close()
    return found


def _examine_store(path: str) -> dict[str, Any]:
    wrong: list[str] = []
    sessions: dict[str, list[list[Any]]] = {}
    with warnings.catch_warnings(record=True) as alarms, sessionstore.open(path) as store:
        # What a crash may warn of is not the question here; test_kill.py asks it.
        wrong += [f"{check.name}: {check.detail}" for check in store.doctor().checks if not check.ok and check.name != "warnings"]
        for info in store.list(limit=1000):
            found = store.messages(info.session_id)
            sessions[info.session_id] = [[message.seq, message.text] for message in found]
            if found and [message.seq for message in found] != list(range(1, info.last_seq + 1)):
                wrong.append(f"{info.session_id} has holes")
        store.session("afterwards").append("user", "still writable")
        store.delete("afterwards")
    return {"sessions": sessions, "wrong": wrong, "alarms": [str(alarm.message) for alarm in alarms]}


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to a file."""
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


def files_of(path: Path) -> list[Path]:
    """The database and what stands beside it."""
    return sorted(path.parent.glob(path.name + "*"))


def copy_store(source: Path, target: Path) -> Path:
    """Copy a file and its log that nobody has open."""
    for file in files_of(source):
        if not file.name.endswith(("-shm", "-lock")):
            shutil.copyfile(file, target.with_name(target.name + file.name.removeprefix(source.name)))
    return target


def report(figures: dict[str, Any]) -> None:
    """Print the figures of a campaign for the test that started it."""
    json.dump(figures, sys.stdout)
    print()


def arguments() -> dict[str, Any]:
    """What the test asked for."""
    return json.loads(sys.argv[1])
