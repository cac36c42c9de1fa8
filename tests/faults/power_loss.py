"""Power cuts, replayed: every write and sync of a writer is recorded, and the disks that a cut could have left are rebuilt.

A disk holds what was synced, and of what was not synced any part, torn at its 512-byte sectors. A system call that strace
shows is taken as done; an acknowledgement is one of them, so the record has one order.
"""

from __future__ import annotations

import random
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lab

import sessionstore

CHAT = "s"
BEFORE = 3
APPENDS = 60
SECTOR = 512
TRACED = "openat,close,pwrite64,write,fdatasync,fsync,ftruncate,unlink"
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
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


def write_messages(wire: lab.Wire, path: Path, durability: str) -> None:
    """Append with many checkpoints, then close."""
    lab.checkpoint_often(10)
    wire.wait()
    store = sessionstore.open(path, durability=durability)
    for seq in range(BEFORE + 1, BEFORE + APPENDS + 1):
        wire.say("ACK", store.append(CHAT, "user", text_of(seq)).seq)
    store.close()


def prepare(wire: lab.Wire, path: Path) -> None:
    """A store with a few messages, closed."""
    with sessionstore.open(path) as store:
        store.session(CHAT)
        for seq in range(1, BEFORE + 1):
            store.append(CHAT, "user", text_of(seq))


def record(path: Path, durability: str, log: Path) -> list[Event]:
    """What a writer did to its files, and when it had its acknowledgements."""
    child = lab.Child(partial(write_messages, path=path, durability=durability))
    options = ("-xx", "-s", "2000000", "-e", f"trace={TRACED}")
    child.ready()
    with lab.traced(child.pid, *options, log=log):
        child.go()
        lines = child.rest()
        assert child.end() == 0, lines
    return list(parse(log.read_text().splitlines(), path))


def parse(lines: list[str], path: Path) -> Iterator[Event]:
    """The events of a record of strace."""
    names = {str(path) + suffix: suffix for suffix in KEPT}
    open_files: dict[str, str] = {}
    for line in lines:
        found = CALL.match(line)
        if found is None or found[3].startswith("-"):
            continue
        call, given = found[1], found[2].split(", ")
        if call == "openat":
            name = unescaped(given[1]).decode()
            open_files.pop(found[3], None)
            if name in names:
                open_files[found[3]] = names[name]
        elif call == "close":
            open_files.pop(given[0], None)
        elif call == "write" and unescaped(given[1]).startswith(b'["ACK"'):
            yield Event("ack", "", int(unescaped(given[1]).split(b", ")[1][:-2]), b"")
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


def look_at(files: dict[str, bytes], folder: Path, *, as_store: bool) -> tuple[int, list[str]]:
    """How many messages an image holds, and what is wrong with it."""
    path = folder / "image.db"
    for suffix in (*KEPT, "-shm", "-lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    for suffix, content in files.items():
        path.with_name(path.name + suffix).write_bytes(content)
    rows, wrong = read_store(path) if as_store else read_database(path)
    if rows != [(seq, text_of(seq)) for seq in range(1, len(rows) + 1)]:
        wrong.append("the messages are not a prefix of what was written")
    return len(rows), wrong


def read_store(path: Path) -> tuple[list[tuple[int, str | None]], list[str]]:
    """The messages that the library finds, and what it complains of."""
    try:
        with sessionstore.open(path) as store:
            wrong = [f"{each.name}: {each.detail}" for each in store.doctor().checks if not each.ok and each.name != "warnings"]
            return [(message.seq, message.text) for message in store.messages(CHAT)], wrong
    except sessionstore.SessionStoreError as error:
        return [], [f"it cannot be opened and read: {error!r}"]


def read_database(path: Path) -> tuple[list[tuple[int, str | None]], list[str]]:
    """The messages that SQLite finds, and what it complains of."""
    raw = sqlite3.connect(path)
    wrong = [row[0] for row in raw.execute("PRAGMA integrity_check") if row[0] != "ok"]
    rows = raw.execute("SELECT seq, text FROM messages ORDER BY id").fetchall()
    raw.close()
    return rows, wrong


def main(folder: str, durability: str, images: int, seed: int) -> dict[str, Any]:
    """Rebuild about so many images, spread over the whole record."""
    lab.warm_up()
    chance = random.Random(seed)
    place = Path(folder)
    base = place / f"power-{durability}.db"
    child = lab.Child(partial(prepare, path=base))
    assert child.rest() == []
    child.end()
    before = {"": base.read_bytes()}
    events = record(base, durability, place / "strace.log")
    figures = {"durability": durability, "events": len(events), "images": 0, "lost": 0, "most_lost": 0, "cut_with_loss": 0}
    problems: list[str] = []
    acked = BEFORE
    disk = Disk(before)
    rate = images / (3 * len(events))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as tmpfs:
        for number, event in enumerate(events):
            disk.take(event)
            if event.kind == "ack":
                acked = event.offset
            for kind in ("current", "synced", "torn"):
                for _ in range(int(rate) + (chance.random() < rate % 1)):
                    stored, wrong = look_at(disk.image(kind, chance), Path(tmpfs), as_store=figures["images"] % 5 == 0)
                    lost = max(0, acked - stored)
                    figures["images"] += 1
                    if kind == "current" and lost:
                        wrong.append(f"the death of the process lost {lost}")
                    figures["lost"] += lost
                    figures["cut_with_loss"] += bool(lost)
                    figures["most_lost"] = max(figures["most_lost"], lost)
                    problems += [f"event {number} ({event.kind} {event.file}), {kind}: {problem}" for problem in wrong]
    return {**figures, "acked": acked, "problems": problems}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
