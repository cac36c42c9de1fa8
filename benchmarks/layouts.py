"""How a message's key may be laid out: a packed integer, a rowid beside a unique index, or a table without rowids.

Only SQLite is measured here, on three small tables; the figures stand behind the store's choice of the packed key.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import texts
from .bench import Bench, Item, Row
from .timing import Figure, interleave, repeated

_SEQ_BITS = 24
_LIVE = 10
_CHECKPOINT_PAGES = 1_000
_COLUMNS = "role TEXT NOT NULL, text TEXT NOT NULL, created_at TEXT NOT NULL, crc INTEGER NOT NULL"
_REST = ("user", "2026-01-01 00:00:00.000000", 0x7FFFFFFF)


@dataclass(frozen=True, slots=True)
class Layout:
    """A table of messages. Its inserts take key and seq in `place`, its reads give the last messages of a session."""

    name: str
    table: str
    insert: str
    place: Callable[[int, int], tuple[int, ...]]
    read: str
    bounds: Callable[[int], tuple[int, ...]]


_BY_KEY_AND_SEQ = "INSERT INTO messages (session_key, seq, role, text, created_at, crc) VALUES (?, ?, ?, ?, ?, ?)"
_OF_SESSION = "SELECT seq, role, text, created_at, crc FROM messages WHERE session_key = ? ORDER BY seq DESC LIMIT 50"
_TWO_KEYS = "session_key INTEGER NOT NULL, seq INTEGER NOT NULL"

LAYOUTS = (
    Layout(
        "rowid + UNIQUE(session, seq)",
        f"CREATE TABLE messages (id INTEGER PRIMARY KEY, {_TWO_KEYS}, {_COLUMNS}, UNIQUE (session_key, seq))",
        _BY_KEY_AND_SEQ, lambda key, seq: (key, seq), _OF_SESSION, lambda key: (key,),
    ),
    Layout(
        "WITHOUT ROWID",
        f"CREATE TABLE messages ({_TWO_KEYS}, {_COLUMNS}, PRIMARY KEY (session_key, seq)) WITHOUT ROWID",
        _BY_KEY_AND_SEQ, lambda key, seq: (key, seq), _OF_SESSION, lambda key: (key,),
    ),
    Layout(
        "packed key",
        f"CREATE TABLE messages (id INTEGER PRIMARY KEY, session_key INTEGER AS (id >> {_SEQ_BITS}), "
        f"seq INTEGER AS (id & {(1 << _SEQ_BITS) - 1}), {_COLUMNS})",
        "INSERT INTO messages (id, role, text, created_at, crc) VALUES (?, ?, ?, ?, ?)",
        lambda key, seq: (key << _SEQ_BITS | seq,),
        "SELECT id, role, text, created_at, crc FROM messages WHERE id > ? AND id < ? ORDER BY id DESC LIMIT 50",
        lambda key: (key << _SEQ_BITS, (key + 1) << _SEQ_BITS),
    ),
)  # fmt: skip


class Filled:
    """A file in one layout, filled in random order over many sessions."""

    def __init__(self, path: Path, layout: Layout, *, sessions: int, messages: int) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.layout = layout
        self._sessions = sessions
        self._chance = random.Random(5)
        self._seqs = [0] * (sessions + 1)
        for setting in ("journal_mode=WAL", "synchronous=OFF", f"wal_autocheckpoint={_CHECKPOINT_PAGES}"):
            self.connection.execute(f"PRAGMA {setting}").fetchall()
        self.connection.execute(layout.table)
        started = time.perf_counter()
        self._fill(messages)
        self.fill_seconds = time.perf_counter() - started
        self.size_mb = path.stat().st_size / 1e6
        self.connection.execute("PRAGMA synchronous=NORMAL").fetchall()

    def append(self, key: int) -> None:
        """One message in one transaction."""
        row = self._row(key)
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        execute(self.layout.insert, row)
        execute("COMMIT")

    def read(self, key: int) -> None:
        """The last 50 messages of a session."""
        self.connection.execute(self.layout.read, self.layout.bounds(key)).fetchall()

    def any_session(self, _: int = 0) -> int:
        """A session by chance."""
        return self._chance.randint(1, self._sessions)

    def _fill(self, messages: int) -> None:
        for done in range(0, messages, 10_000):
            rows = [self._row(self.any_session()) for _ in range(min(10_000, messages - done))]
            self.connection.execute("BEGIN")
            self.connection.executemany(self.layout.insert, rows)
            self.connection.execute("COMMIT")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _row(self, key: int) -> tuple[object, ...]:
        self._seqs[key] += 1
        seq = self._seqs[key]
        role, created_at, crc = _REST
        return (*self.layout.place(key, seq), role, texts.text(key + seq), created_at, crc)


def layouts(bench: Bench) -> Iterator[Row]:
    """Fill, append and read in each layout."""
    sessions, messages = bench.scale.layout_sessions, bench.scale.layout_messages
    with bench.place() as place:
        files = {}
        for number, layout in enumerate(LAYOUTS):
            files[layout.name] = Filled(place / f"{number}.db", layout, sessions=sessions, messages=messages)
        appends = _in_turns(bench, files, lambda file: lambda number: file.append(file.any_session(number)), bench.scale.calls)
        few = _in_turns(bench, files, lambda file: lambda number: file.append(1 + number % min(_LIVE, sessions)), bench.scale.calls)
        reads = _in_turns(bench, files, lambda file: lambda number: file.read(file.any_session(number)), bench.scale.reads)
        fills = {name: Figure((file.fill_seconds,)) for name, file in files.items()}
        sizes = {name: Figure((file.size_mb,)) for name, file in files.items()}
        for file in files.values():
            file.connection.close()
    yield from _beside_first("append to a random session", "ms", appends)
    yield from _beside_first(f"append to one of {_LIVE} live sessions", "ms", few)
    yield from _beside_first("last 50 of a random session", "ms", reads)
    yield from _beside_first(f"fill {messages:,} in random order", "s", fills)
    yield from _beside_first("file", "MB", sizes)


def _beside_first(work: str, unit: str, figures: dict[str, Figure]) -> Iterator[Row]:
    """The other layouts beside the first one."""
    first, *others = figures
    for name in others:
        yield Row(f"{work}, {name}", unit, figures[first], figures[name])


def _in_turns(
    bench: Bench, files: dict[str, Filled], call: Callable[[Filled], Callable[[int], object]], calls: int
) -> dict[str, Figure]:
    sides = {name: repeated(call(file)) for name, file in files.items()}
    return interleave(sides, rounds=bench.scale.rounds, calls=calls, block=bench.scale.block)


_RAW = (
    "a table with a rowid and UNIQUE(session, seq); the store's place is taken by plain sqlite3, too, with the layout that the row "
    "names. One INSERT in a transaction, NORMAL, SQLite's default cache; filled with synchronous=OFF."
)

ITEMS = (Item("layouts", _RAW, layouts, usual=False),)
