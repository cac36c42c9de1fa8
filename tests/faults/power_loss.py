"""Power cuts, replayed: every write and sync of a writer is recorded, and the disks that a cut could have left are rebuilt.

A disk holds what was synced, and of what was not synced any part, torn at its 512-byte sectors. A system call that strace
shows is taken as done; an acknowledgement is one of them, so the record has one order. What the file holds after each event if
nothing is lost is the sequence of states that a cut may leave: any other one would be half of something.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lab

sys.path.append(str(Path(__file__).parents[1] / "integration"))

from backends import BatchBackend
from sync_lab import quick

import sessionstore

CHAT = "s"
BEFORE = 3
APPENDS = 10
SECTOR = 512
TRACED = "openat,close,pwrite64,write,fdatasync,fsync,ftruncate,unlink"
CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
UNFINISHED = re.compile(r"^(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
KEPT = ("", "-wal", "-journal")


class Event(NamedTuple):
    """One thing that happened: write, cut, sync, unlink or ack."""

    kind: str
    file: str
    offset: int
    data: bytes


def text_of(seq: int) -> str:
    """The text of the message at a seq."""
    return f"message {seq} " + "y" * (seq * 331 % 2500)


# -- workloads


def acknowledge(wire: lab.Wire, path: Path, seq: int) -> None:
    """Say how many messages are acknowledged, and what a reader sees now."""
    with closing(sqlite3.connect(path)) as reader:
        wire.say("ACK", seq, fingerprint(reader))


def append_messages(wire: lab.Wire, path: Path, durability: str, _: str, rounds: int) -> None:
    """Append with many checkpoints, then close."""
    lab.checkpoint_often(10)
    wire.wait()
    store = sessionstore.open(path, durability=durability)
    for seq in range(BEFORE + 1, BEFORE + APPENDS * rounds + 1):
        store.append(CHAT, "user", text_of(seq))
        acknowledge(wire, path, seq)
    store.close()


def live(wire: lab.Wire, path: Path, durability: str, url: str, rounds: int) -> None:
    """All that a store does: appends, edits, state, figures, sessions that expire, sweeps, deliveries, an erase, checkpoints."""
    lab.checkpoint_often(40)
    wire.wait()
    store = sessionstore.open(path, durability=durability, remote=quick(url))
    seq = BEFORE
    for round_ in range(rounds):
        name = f"life {round_}"
        seq = store.append(CHAT, "user", text_of(seq + 1)).seq
        acknowledge(wire, path, seq)
        for step in (
            lambda name=name: store.session(name, agent_id="agent", tags=["t"]),
            lambda name=name: store.append_many(name, [{"role": "user", "content": f"{n} " + "z" * 1_500} for n in range(4)]),
            lambda name=name: store.replace_range(name, 2, 3, [{"role": "user", "content": "shorter"}]),
            lambda name=name: store.set_state(name, {"round": 1}),
            lambda name=name: store.record("cost", 1.0, session_id=name),
            lambda name=name: store.set_ttl(name, 0.001),
            store.sweep,
            store.drain,
            lambda: store.search("shorter"),
        ):
            step()
            acknowledge(wire, path, seq)
    store.erase("life 0")
    acknowledge(wire, path, seq)
    store.close(drain_timeout=0)


WORKLOADS: dict[str, Callable[[lab.Wire, Path, str, str, int], None]] = {"append": append_messages, "live": live}


def prepare(_: lab.Wire, path: Path) -> None:
    """A store with a few messages, closed."""
    with sessionstore.open(path) as store:
        store.session(CHAT)
        for seq in range(1, BEFORE + 1):
            store.append(CHAT, "user", text_of(seq))


def serve(wire: lab.Wire) -> None:
    """A backend, until it is killed."""
    with BatchBackend() as backend:
        wire.say("AT", backend.url)
        wire.wait()


def record(workload: str, path: Path, durability: str, rounds: int, log: Path) -> list[Event]:
    """What a writer did to its files, and when it had its acknowledgements."""
    backend = lab.Child(serve)
    ((_, url),) = backend.ready()
    child = lab.Child(lambda wire: WORKLOADS[workload](wire, path, durability, url, rounds))
    options = ("-xx", "-s", "4000000", "-e", f"trace={TRACED}")
    child.ready()
    with lab.traced(child.pid, *options, log=log):
        child.go()
        lines = child.rest()
        code = child.end()
    backend.kill()
    backend.end()
    assert code == 0, lines
    return list(parse(log.read_text().splitlines(), path))


# -- the record


def whole(lines: Iterable[str]) -> Iterator[str]:
    """Lines of strace, those put together that were interrupted by another thread's."""
    begun: dict[str, str] = {}
    for line in lines:
        if found := UNFINISHED.match(line):
            begun[found[1]] = found[2]
        elif found := RESUMED.match(line):
            yield f"{found[1]} {begun.pop(found[1])}{found[2]}"
        else:
            yield line


def parse(lines: list[str], path: Path) -> Iterator[Event]:
    """The events of a record of strace."""
    names = {str(path) + suffix: suffix for suffix in KEPT}
    open_files: dict[str, str] = {}
    for line in whole(lines):
        found = CALL.match(line)
        if found is None or found[4].startswith("-"):
            continue
        call, given = found[2], found[3].split(", ")
        if call == "openat":
            name = unescaped(given[1]).decode()
            open_files.pop(found[4], None)
            if name in names:
                open_files[found[4]] = names[name]
        elif call == "close":
            open_files.pop(given[0], None)
        elif call == "write" and unescaped(given[1]).startswith(b'["ACK"'):
            yield Event("ack", "", json.loads(unescaped(given[1]))[1], unescaped(given[1]))
        elif call == "unlink" and unescaped(given[0]).decode() in names:
            yield Event("unlink", names[unescaped(given[0]).decode()], 0, b"")
        elif given[0] in open_files:
            file = open_files[given[0]]
            if call == "pwrite64":
                yield Event("write", file, int(given[3]), unescaped(given[1]))
            elif call == "ftruncate":
                yield Event("cut", file, int(given[1]), b"")
            elif call in ("fdatasync", "fsync"):
                yield Event("sync", file, 0, b"")


def unescaped(text: str) -> bytes:
    """The bytes of one of strace's strings."""
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


class Disk:
    """What a file system holds for sure, and what it may have lost."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.synced = dict(files)
        self.pending: dict[str, list[Event]] = {}
        self.unlinked: set[str] = set()

    def take(self, event: Event) -> None:
        """Apply one event."""
        if event.kind in ("write", "cut"):
            self.unlinked.discard(event.file)
            self.pending.setdefault(event.file, []).append(event)
        elif event.kind == "sync":
            self.synced[event.file] = applied(self.synced.get(event.file, b""), self.pending.pop(event.file, []))
        elif event.kind == "unlink":
            self.unlinked.add(event.file)

    def image(self, kind: str, chance: random.Random) -> dict[str, bytes]:
        """The files after the process died ("current"), or after a power cut ("synced" or "torn")."""
        files = {}
        for name in {*self.synced, *self.pending}:
            pending = self.pending.get(name, [])
            if kind == "synced":
                pending = []
            elif kind == "torn":
                pending = [torn(event, chance) for event in pending if chance.random() < 0.5]
            if name in self.unlinked and (kind == "current" or (kind == "torn" and chance.random() < 0.5)):
                continue
            files[name] = applied(self.synced.get(name, b""), pending)
        return files


def torn(event: Event, chance: random.Random) -> Event:
    """A write of which sometimes only the first sectors arrived."""
    if event.kind != "write" or chance.random() < 0.6:
        return event
    return event._replace(data=event.data[: chance.randrange(len(event.data) // SECTOR + 1) * SECTOR])


def applied(content: bytes, events: list[Event]) -> bytes:
    """A file after some writes."""
    changed = bytearray(content)
    for event in events:
        if event.kind == "cut":
            changed = changed[: event.offset].ljust(event.offset, b"\0")
        else:
            changed = changed.ljust(event.offset, b"\0")
            changed[event.offset : event.offset + len(event.data)] = event.data
    return bytes(changed)


# -- looking at images


class Seen(NamedTuple):
    """What an image holds: a fingerprint of all rows, how many messages, and what is wrong with it."""

    state: str
    messages: int
    wrong: list[str]


def fingerprint(connection: sqlite3.Connection) -> str:
    """All rows of all tables, as a number."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    connection.execute("BEGIN")
    content = hashlib.sha256()
    for (name,) in connection.execute(query).fetchall():
        content.update(repr((name, connection.execute(f'SELECT * FROM "{name}"').fetchall())).encode())
    connection.execute("ROLLBACK")
    return content.hexdigest()


def look_at(files: dict[str, bytes], folder: Path, *, as_store: bool = False) -> Seen:
    """Write an image down and open it."""
    path = folder / "image.db"
    for suffix in (*KEPT, "-shm", "-lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for suffix, content in files.items():
        path.with_name(path.name + suffix).write_bytes(content)
    texts, wrong, state = read_store(path) if as_store else read_database(path)
    if texts != [(seq, text_of(seq)) for seq in range(1, len(texts) + 1)]:
        wrong.append("the messages are not a prefix of what was written")
    return Seen(state, len(texts), wrong)


def read_store(path: Path) -> tuple[list[tuple[int, str | None]], list[str], str]:
    """The messages that the library finds, and what it complains of. Opening changes no row."""
    try:
        with sessionstore.open(path) as store:
            with closing(sqlite3.connect(path)) as raw:
                state = fingerprint(raw)
            wrong = [f"{each.name}: {each.detail}" for each in store.doctor().checks if not each.ok and each.name != "warnings"]
            return [(message.seq, message.text) for message in store.messages(CHAT)], wrong, state
    except sessionstore.SessionStoreError as error:
        return [], [f"it cannot be opened and read: {error!r}"], ""


def read_database(path: Path) -> tuple[list[tuple[int, str | None]], list[str], str]:
    """The messages that SQLite finds, and what it complains of."""
    query = "SELECT seq, text FROM v_messages WHERE session_id = ? ORDER BY seq"
    with closing(sqlite3.connect(path)) as raw:
        wrong = [row[0] for row in raw.execute("PRAGMA integrity_check") if row[0] != "ok"]
        return raw.execute(query, (CHAT,)).fetchall(), wrong, fingerprint(raw)


class Record(NamedTuple):
    """The events of a run, and the files before it."""

    before: bytes
    events: list[Event]

    def disks(self, hand: int, hands: int) -> Iterator[tuple[int, Disk]]:
        """The disk after each event of a hand's share."""
        disk = Disk({"": self.before})
        for number, event in enumerate(self.events):
            disk.take(event)
            if number % hands == hand:
                yield number, disk


def states_without_loss(record: Record, hand: int, hands: int, tmpfs: Path) -> list[tuple[int, Seen]]:
    """What the file holds after each event, if only the process died."""
    chance = random.Random(0)
    found: list[tuple[int, Seen]] = []
    for number, disk in record.disks(hand, hands):
        # Syncs and acknowledgements change nothing of this.
        unchanged = found and not any(
            event.kind in ("write", "cut", "unlink") for event in record.events[found[-1][0] + 1 : number + 1]
        )
        found.append((number, found[-1][1] if unchanged else look_at(disk.image("current", chance), tmpfs)))
    return found


def images_of_cuts(
    record: Record, hand: int, hands: int, tmpfs: Path, least: float, rate: float, seed: int
) -> list[tuple[int, str, Seen]]:
    """After each event, or a part of them, the least that a cut leaves, and some of what else it may leave."""
    found = []
    for number, disk in record.disks(hand, hands):
        chance = random.Random(f"{seed}/{number}")
        kinds = ["synced"] * (chance.random() < least) + ["torn"] * (int(rate) + (chance.random() < rate % 1))
        for kind in kinds:
            seen = look_at(disk.image(kind, chance), tmpfs, as_store=chance.random() < 0.2)
            found.append((number, kind, seen))
    return found


class Judge:
    """The states in their order, and which of them were acknowledged."""

    def __init__(self, events: list[Event], states: list[Seen]) -> None:
        self.problems: list[str] = []
        self._sequence: list[str] = []
        self._now: list[int] = []
        self._acked: list[int] = []
        acked = -1
        for number, (event, seen) in enumerate(zip(events, states, strict=True)):
            if self._sequence[-1:] != [seen.state]:
                self._sequence.append(seen.state)
            if event.kind == "ack":
                acked = len(self._sequence) - 1
                if json.loads(event.data)[2] != seen.state or seen.messages != event.offset:
                    self.problems.append(f"event {number}: the death of the process lost what was acknowledged")
            self._now.append(len(self._sequence) - 1)
            self._acked.append(acked)
            self.problems += [f"event {number}, no loss: {problem}" for problem in seen.wrong]

    def transactions_lost(self, number: int, state: str) -> int | None:
        """How many acknowledged states an image of an event falls behind; None if it is none of the states until then."""
        for place in range(self._now[number], -1, -1):
            if self._sequence[place] == state:
                return max(0, self._acked[number] - place)
        return None

    @property
    def states(self) -> int:
        """How many states there were."""
        return len(self._sequence)


def main(folder: str, workload: str, durability: str, images: int, rounds: int, seed: int, hands: int = 2) -> dict[str, Any]:
    """Rebuild about so many images, spread over the whole record."""
    lab.warm_up()
    place = Path(folder)
    base = place / f"power-{workload}-{durability}.db"
    lab.do(partial(prepare, path=base))
    before = base.read_bytes()
    events = record(workload, base, durability, rounds, place / "strace.log")
    of_run = Record(before, events)
    # One image without a loss and one with the greatest for each event; the rest are chance. A short run leaves some out.
    least = min(1.0, images / len(events) / 2)
    rate = max(images / len(events) - 2, least / 2)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as tmpfs:
        folders = [Path(tmpfs) / str(hand) for hand in range(hands)]
        for each in folders:
            each.mkdir()
        shares = lab.spread(lambda hand: states_without_loss(of_run, hand, hands, folders[hand]), range(hands), hands)
        states = [Seen(*seen) for _, seen in sorted(each for share in shares for each in share)]
        judge = Judge(events, states)
        shares = lab.spread(lambda hand: images_of_cuts(of_run, hand, hands, folders[hand], least, rate, seed), range(hands), hands)
    figures = {"images": len(events), "lost": 0, "cut_with_loss": 0, "most_lost": 0}
    problems = judge.problems
    for number, kind, given in (each for share in shares for each in share):
        seen = Seen(*given)
        wrong = list(seen.wrong)
        lost = judge.transactions_lost(number, seen.state)
        if lost is None:
            wrong.append("this is no state that the file ever had")
        figures["images"] += 1
        figures["lost"] += lost or 0
        figures["cut_with_loss"] += bool(lost)
        figures["most_lost"] = max(figures["most_lost"], lost or 0)
        problems += [f"event {number} ({events[number].kind} {events[number].file}), {kind}: {problem}" for problem in wrong]
    kinds = {"events": len(events), "states": judge.states, "acknowledged": sum(event.kind == "ack" for event in events)}
    return {"workload": workload, "durability": durability, **kinds, **figures, "problems": problems}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
