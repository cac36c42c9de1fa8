"""The yardstick: plain sqlite3 with the store's own statements on the store's own tables; and a queue of one table."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ...raw import RawStore
from ..driver import Conversations, Messages, Queue

_QUEUE = """
CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, claimed_until INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS ix_queue ON queue (id) WHERE done = 0
"""
_PUT = "INSERT INTO queue (kind, payload, created_at) VALUES ('m', ?, 1)"
_TAKE = """UPDATE queue SET claimed_until = ?, attempts = attempts + 1
WHERE id IN (SELECT id FROM queue WHERE done = 0 AND claimed_until < ? ORDER BY id LIMIT ?) RETURNING id, payload"""
_LIST = (
    "SELECT session_id, user_id, status, created_at, updated_at, expires_at, message_count FROM sessions ORDER BY updated_at DESC"
)


class Sqlite(Conversations):
    """One connection behind one lock; what is read is kept as JSON."""

    def open(self) -> None:
        if not Path(self.path).exists():
            import sessionstore

            sessionstore.open(self.path).close()
        self._raw = RawStore(Path(self.path), durability=self.sync or "full", retry=True)

    def new(self, session_id: str) -> None:
        self._raw.session(session_id)

    def fill(self, session_id: str, messages: Messages) -> None:
        self.new(session_id)
        self._raw.append_as_json(session_id, messages)

    def turn(self, session_id: str, ready: Messages) -> None:
        self._raw.append_in_turn(session_id, ready)

    def newest(self, session_id: str, count: int) -> int:
        return len(self._raw.decoded(session_id, count))

    def whole(self, session_id: str) -> int:
        return len(self._raw.decoded(session_id))

    async def stored(self, session_ids: list[str]) -> int:
        # Turns are kept in columns, not as JSON.
        return int(self._raw.connection.execute("SELECT count(*) FROM messages").fetchone()[0])

    def fill_list(self, count: int) -> None:
        self._raw.transaction(lambda: [self.new(f"session-{number}") for number in range(count)])

    def listed(self) -> int:
        return len(self._raw.connection.execute(_LIST).fetchall())

    def close(self) -> None:
        self._raw.close()


class Table(Queue):
    """UPDATE ... RETURNING, then DELETE, each a transaction."""

    def open(self) -> None:
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        for setting in ("journal_mode = WAL", f"synchronous = {self.sync or 'full'}", "secure_delete = ON"):
            self._connection.execute(f"PRAGMA {setting}").fetchall()
        self._connection.executescript(_QUEUE)

    def put(self, item: str) -> None:
        self._connection.execute(_PUT, (item,))

    def put_many(self, items: list[str]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_PUT, [(item,) for item in items])
        self._connection.execute("COMMIT")

    def take(self) -> bool:
        return self.take_many(1)

    def take_many(self, count: int) -> bool:
        taken = self._connection.execute(_TAKE, (10**9, 10, count)).fetchall()
        self._connection.execute(f"DELETE FROM queue WHERE id IN ({','.join('?' * len(taken))})", [row[0] for row in taken])
        return len(taken) == count

    def close(self) -> None:
        self._connection.close()
