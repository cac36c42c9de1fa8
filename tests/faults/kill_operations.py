"""What a store does while it is killed: the file that each operation finds, the operation, and what may be left of it."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import get_args

import lab
import older_files

sys.path.append(str(Path(__file__).parents[1] / "integration"))

from backends import BatchBackend
from sync_lab import assert_in_order, fill, quick, standing

import sessionstore
from sessionstore import NewMessage, clock
from sessionstore.config import OnExpire
from sessionstore.queries import sweeping
from sessionstore.store import sweeps

CHAT = "s"
BEFORE = 20
APPENDS = 12
DUE, KEPT = 30, 3
ERASED, WORDS = "erased", 12
NOWHERE = "http://127.0.0.1:9"
# Longer than any lease: those of a killed process are over.
LATER = timedelta(seconds=61)


def text_of(seq: int) -> str:
    """The text of the message at a seq."""
    return f"message {seq} " + "x" * (seq * 331 % 3000)


@dataclass(frozen=True)
class Operation:
    """What is killed.

    Attributes:
        base: Makes the file that it finds; None for no file.
        act: The operation, in a child; what comes before its `wait()` is not killed. It is given the address of a backend.
        judge: What is wrong with the file afterwards, given the seqs that were acknowledged and the backend that was used.
        needs_backend: Whether it sends events.
    """

    act: Callable[[lab.Wire, Path, str], None]
    judge: Callable[[Path, list[int], lab.Child | None], list[str]]
    base: Callable[[Path], None] | None = None
    needs_backend: bool = False


# -- messages


def append(wire: lab.Wire, store: sessionstore.SessionStore, count: int) -> None:
    """Append, and say which seqs are acknowledged."""
    for _ in range(count):
        last = store.get(CHAT)
        assert last is not None
        wire.say("ACK", store.append(CHAT, "user", text_of(last.last_seq + 1)).seq)


def messages_and_a_log(path: Path) -> None:
    """A store with some messages, and a log, as a killed writer leaves them."""

    def write(wire: lab.Wire) -> None:
        store = sessionstore.open(path)
        store.session(CHAT)
        append(wire, store, BEFORE)
        wire.wait()

    child = lab.Child(write)
    assert len(child.ready()) == BEFORE
    child.kill()
    child.end()


def create(wire: lab.Wire, path: Path, _: str) -> None:
    wire.wait()
    store = sessionstore.open(path)
    store.session(CHAT)
    append(wire, store, 1)


def append_only(wire: lab.Wire, path: Path, _: str) -> None:
    store = sessionstore.open(path)
    wire.wait()
    append(wire, store, APPENDS)


def append_and_checkpoint(wire: lab.Wire, path: Path, _: str) -> None:
    lab.checkpoint_often(8)
    append_only(wire, path, _)


def recover(wire: lab.Wire, path: Path, _: str) -> None:
    """The file comes with the log of a writer that was killed."""
    wire.wait()
    append(wire, sessionstore.open(path), 1)


def close(wire: lab.Wire, path: Path, _: str) -> None:
    store = sessionstore.open(path)
    append(wire, store, 3)
    wire.wait()
    store.close()


def clear(wire: lab.Wire, path: Path, _: str) -> None:
    store = sessionstore.open(path)
    wire.wait()
    store.clear(CHAT)


def judge_messages(path: Path, acked: list[int], _: lab.Child | None, *, before: int = BEFORE) -> list[str]:
    """All that was acknowledged is there, and at most one message more."""
    found = lab.ask(partial(lab.examine, str(path)))
    rows, wrong = found["sessions"].get(CHAT, []), list(found["wrong"])
    wrong += [f"wrong text at {seq}" for seq, text in rows if text != text_of(seq)]
    least = max([*acked, before])
    if not least <= len(rows) <= least + 1:
        wrong.append(f"{len(rows)} messages, {least} were acknowledged")
    return wrong


def judge_cleared(path: Path, _: list[int], __: lab.Child | None) -> list[str]:
    found = lab.ask(partial(lab.examine, str(path)))
    rows, wrong = found["sessions"].get(CHAT, []), list(found["wrong"])
    wrong += [f"wrong text at {seq}" for seq, text in rows if text != text_of(seq)]
    return wrong if len(rows) in (0, BEFORE) else [*wrong, f"half cleared: {len(rows)} of {BEFORE}"]


# -- an upgrade


def older_file(path: Path, revision: str) -> None:
    def write(store: sessionstore.SessionStore) -> None:
        store.session(CHAT)
        store.append_many(CHAT, [{"role": "user", "content": text_of(seq)} for seq in range(1, BEFORE + 1)])

    older_files.make(path, revision, write)


def migrate(wire: lab.Wire, path: Path, _: str) -> None:
    wire.wait()
    sessionstore.open(path)


def judge_upgrade(path: Path, acked: list[int], _: lab.Child | None, *, revision: str) -> list[str]:
    """It is of the old revision or of the new one, the next opening completes it, and no half backup is left."""
    stands_at = lab.ask(partial(_revision, path))
    wrong = [] if stands_at in (revision, sessionstore.database.upgrade.HEAD_REVISION) else [f"it stands at {stands_at}"]
    wrong += judge_messages(path, [BEFORE], _)
    if lab.ask(partial(_revision, path)) != sessionstore.database.upgrade.HEAD_REVISION:
        wrong.append("it was not upgraded at last")
    left = [file.name for file in lab.files_of(path) if ".pre-upgrade-" in file.name and file.suffix != ".db"]
    return wrong + [f"left behind: {name}" for name in left]


def _revision(path: Path) -> str:
    with closing(sqlite3.connect(path)) as raw:
        return str(raw.execute("SELECT version_num FROM sessionstore_version").fetchone()[0])


# -- a sweep


def overdue_sessions(path: Path) -> None:
    """Sessions that are overdue, others that are not, and a remote that wants to know."""

    def write(_: lab.Wire) -> None:
        with sessionstore.open(path, remote=quick(NOWHERE), durability="normal") as store:
            for number in range(DUE):
                store.session(f"due {number}").append("user", text_of(number))
                store.set_ttl(f"due {number}", 0.001)
            for number in range(KEPT):
                store.session(f"kept {number}", ttl=3600).append("user", text_of(number))
            store.close(drain_timeout=0)

    lab.do(write)


def sweep(wire: lab.Wire, path: Path, _: str, *, on_expire: OnExpire) -> None:
    sweeps.SWEEP_BATCH = 12
    store = sessionstore.open(path, on_expire=on_expire)
    wire.wait()
    store.sweep()


def judge_swept(path: Path, _: list[int], __: lab.Child | None, *, on_expire: OnExpire) -> list[str]:
    """What was told is settled and the other way round; the next sweep settles the rest, and all is told exactly once."""
    wrong = lab.ask(partial(_look_at_sweep, path, on_expire, finished=False))
    wrong += lab.ask(partial(_sweep_again, path, on_expire))
    return (
        wrong + lab.ask(partial(_look_at_sweep, path, on_expire, finished=True)) + lab.ask(partial(lab.examine, str(path)))["wrong"]
    )


def _sweep_again(path: Path, on_expire: OnExpire) -> list[str]:
    sweeping.LEASE = timedelta(0)
    with sessionstore.open(path, on_expire=on_expire) as store:
        store.sweep()
        kept = [store.messages(f"kept {number}")[0].text for number in range(KEPT)]
        store.close(drain_timeout=0)
    return [] if kept == [text_of(number) for number in range(KEPT)] else ["the sweep took what was not due"]


def _look_at_sweep(path: Path, on_expire: OnExpire, *, finished: bool) -> list[str]:
    with closing(sqlite3.connect(path)) as raw:
        streams = raw.execute("SELECT stream FROM outbox WHERE kind = 'conversation_expired'").fetchall()
        told = Counter(stream.removeprefix("session:") for (stream,) in streams)
        open_ones = {name for (name,) in raw.execute("SELECT session_id FROM sessions WHERE status = 'open'")}
        expired = {name for (name,) in raw.execute("SELECT session_id FROM sessions WHERE status = 'expired'")}
    due = {f"due {number}" for number in range(DUE)}
    settled = due - open_ones
    wrong = [] if set(told) == settled else [f"{len(told)} were told, {len(settled)} are settled"]
    wrong += [f"{name} was told {times} times" for name, times in told.items() if times != 1]
    if expired != (set() if on_expire == "delete" else settled):
        wrong.append(f"{len(expired)} of {len(settled)} settled sessions are kept")
    if finished and settled != due:
        wrong.append(f"the next sweep left {len(due - settled)}")
    return wrong


# -- a drain


def waiting_events(path: Path) -> None:
    def write(_: lab.Wire) -> None:
        with sessionstore.open(path, remote=quick(NOWHERE), durability="normal") as store:
            fill(store)
            store.close(drain_timeout=0)

    lab.do(write)


def serve(wire: lab.Wire) -> None:
    """A backend; it says what it stored when it is let go."""
    with BatchBackend() as backend:
        wire.say("AT", backend.url)
        wire.wait()
        wire.say("STORED", [[event["path"], event["body"]] for event in backend.stored.values()])


def drain(wire: lab.Wire, path: Path, url: str) -> None:
    store = sessionstore.open(path, durability="normal")
    store.set_remote(quick(url), replace=True)
    wire.wait()
    store.drain()


def judge_drained(path: Path, _: list[int], backend: lab.Child | None) -> list[str]:
    """The next drain delivers what is left: everything arrived, once and in its order."""
    assert backend is not None
    wrong = lab.ask(partial(_drain_again, path))
    backend.go()
    stored = backend.expect("STORED")[1]
    try:
        assert_in_order([{"path": kind, "body": body} for kind, body in stored])
    except AssertionError as error:
        wrong.append(f"out of order: {error}")
    if len(stored) != EVENTS:
        wrong.append(f"{len(stored)} of {EVENTS} events arrived")
    return wrong + lab.ask(partial(lab.examine, str(path)))["wrong"]


EVENTS = 3 * (4 + 2)


def _drain_again(path: Path) -> list[str]:
    now = clock.utc_now
    clock.utc_now = lambda: now() + LATER
    with sessionstore.open(path) as store:
        store.drain()
        found = standing(store)
    return [] if (found.pending, found.dead) == (0, 0) else [f"it stands at {found}"]


# -- an erase


def word(number: int) -> str:
    """A word that stands nowhere else."""
    return f"zq{number}canary{number * 7919}"


def words_to_erase(path: Path) -> None:
    def write(_: lab.Wire) -> None:
        with sessionstore.open(path) as store:
            store.session(ERASED)
            store.append_many(ERASED, [NewMessage({"role": "user", "content": f"{word(n)} " + text_of(n)}) for n in range(WORDS)])
            store.session(CHAT)
            store.append_many(CHAT, [{"role": "user", "content": text_of(seq)} for seq in range(1, BEFORE + 1)])
            store.search("canary")

    lab.do(write)


def erase(wire: lab.Wire, path: Path, _: str) -> None:
    store = sessionstore.open(path)
    wire.wait()
    if store.erase(ERASED).complete:
        wire.say("ACK", 0)


def judge_erased(path: Path, acked: list[int], _: lab.Child | None) -> list[str]:
    """The rows went together or not at all; if it had said that it was complete, no byte is left; another erase leaves none."""
    wrong = [f"left after an erase that was complete: {each}" for each in _words_in(path)] if acked else []
    found = lab.ask(partial(lab.examine, str(path)))
    wrong += found["wrong"]
    if len(found["sessions"].get(ERASED, [])) not in (0, WORDS):
        wrong.append("half erased")
    if [tuple(row) for row in found["sessions"].get(CHAT, [])] != [(seq, text_of(seq)) for seq in range(1, BEFORE + 1)]:
        wrong.append("another session was changed")
    if not lab.ask(partial(_erase_again, path)):
        wrong.append("the next erase is not complete")
    return wrong + [f"left after the next erase: {each}" for each in _words_in(path)]


def _erase_again(path: Path) -> bool:
    with sessionstore.open(path) as store:
        return store.erase(ERASED).complete


def _words_in(path: Path) -> list[str]:
    # Nobody has the files open now.
    contents = {file.name: file.read_bytes().lower() for file in lab.files_of(path)}
    return [f"{word(n)} in {name}" for n in range(WORDS) for name, content in contents.items() if word(n).encode() in content]


OPERATIONS: dict[str, Operation] = {
    "open": Operation(create, partial(judge_messages, before=0)),
    "append": Operation(append_only, judge_messages, messages_and_a_log),
    "checkpoint": Operation(append_and_checkpoint, judge_messages, messages_and_a_log),
    "recover": Operation(recover, judge_messages, messages_and_a_log),
    "close": Operation(close, judge_messages, messages_and_a_log),
    "clear": Operation(clear, judge_cleared, messages_and_a_log),
    **{
        f"migrate {revision}": Operation(migrate, partial(judge_upgrade, revision=revision), partial(older_file, revision=revision))
        for revision in older_files.REVISIONS
    },
    **{
        f"sweep, {on_expire}": Operation(
            partial(sweep, on_expire=on_expire), partial(judge_swept, on_expire=on_expire), overdue_sessions
        )
        for on_expire in get_args(OnExpire)
    },
    "drain": Operation(drain, judge_drained, waiting_events, needs_backend=True),
    "erase": Operation(erase, judge_erased, words_to_erase),
}
