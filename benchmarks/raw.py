"""The yardstick: a plain sqlite3 connection that runs the store's own statements on the store's own schema.

Its files are made by the store and closed again, so tables, indexes, page size and format are the store's. It keeps one
connection, checks no arguments, computes no checksums and makes no objects. WAL; the same `synchronous`, foreign keys and
secure_delete as the store; SQLite's default checkpoint policy, 1,000 pages within a commit, where the store has its own.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SEQ_BITS = 24
# As many bytes in the row as a real checksum has.
NO_CHECKSUM = 0x7FFFFFFF
NAMESPACE = ""
NEW_SESSION = ("namespace", "session_id", "user_id", "agent_id", "title", "status", "pinned", "metadata", "version",
               "message_count", "next_seq", "created_at", "updated_at")  # fmt: skip
_ALL = -1
_HISTORY = "SELECT text FROM messages WHERE id > ? AND id < ? ORDER BY id DESC LIMIT ?"


def _statements() -> ModuleType:
    """The store's SQL text, loaded alone: importing the whole package would count in the cold start of this side."""
    package = importlib.util.find_spec("sessionstore")
    if package is None or package.origin is None:
        raise ImportError("sessionstore is not installed")
    found = importlib.util.spec_from_file_location("sessionstore_statements", Path(package.origin).with_name("sql.py"))
    if found is None or found.loader is None:
        raise ImportError("sessionstore has no sql.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


sql = _statements()


def _inserted_columns(statement: str) -> list[str]:
    return statement.partition("(")[2].partition(")")[0].split(", ")


_MESSAGE_COLUMNS = _inserted_columns(sql.INSERT_MESSAGE)


def insert_into(table: str, columns: Sequence[str]) -> str:
    """The statement that inserts these columns."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"


class RawStore:
    """One connection to a file that a store has made; not to be used while a store has it open.

    Args:
        path: The file.
        durability: "full" or "normal".
        retry: Try again after a short random sleep when another process writes, instead of waiting in SQLite.

    Attributes:
        connection: The connection.
        turn: What threads that share the connection hold while they write.
    """

    def __init__(self, path: Path, *, durability: str = "full", retry: bool = False) -> None:
        self._retry = retry
        self.turn = threading.Lock()
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        settings = ["journal_mode=WAL", f"synchronous={durability}", "foreign_keys=ON", "secure_delete=ON"]
        if retry:
            settings.append("busy_timeout=0")
        for setting in settings:
            self.connection.execute(f"PRAGMA {setting}").fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def session(self, session_id: str) -> None:
        """Make a session if there is none."""
        now = stored_now()
        values = (NAMESPACE, session_id, None, None, None, "open", 0, None, 1, 0, 1, now, now)
        self.connection.execute(f"{insert_into('sessions', NEW_SESSION)} ON CONFLICT DO NOTHING", values)

    def append(self, session_id: str, messages: Sequence[dict[str, str]]) -> None:
        """Store messages in one transaction, in the columns in which the store keeps them."""
        self._append(session_id, [(message["role"], message["content"]) for message in messages])

    def append_as_json(self, session_id: str, messages: Sequence[dict[str, str]]) -> None:
        """Store messages in one transaction, each as the JSON text of its dict, which is what others do."""
        self._append(session_id, [(message["role"], json.dumps(message)) for message in messages])

    def append_in_turn(self, session_id: str, messages: Sequence[dict[str, str]]) -> None:
        """As `append`, for threads that share the connection."""
        with self.turn:
            self.append(session_id, messages)

    def transaction(self, work: Callable[[], T]) -> T:
        """Do the work in one transaction."""
        self._begin()
        try:
            result = work()
            self.connection.execute("COMMIT")
            return result
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def decoded(self, session_id: str, last: int = _ALL) -> list[Any]:
        """The newest messages that were stored as JSON, oldest first."""
        ((key, *_),) = self.connection.execute(sql.FIND_SESSION_KEY, (NAMESPACE, session_id, stored_now())).fetchall()
        bounds = (key << SEQ_BITS, (key + 1) << SEQ_BITS)
        rows = self.connection.execute(_HISTORY, (*bounds, last)).fetchall()
        rows.reverse()
        return [json.loads(row[0]) for row in rows]

    def _append(self, session_id: str, bodies: Sequence[tuple[str, str]]) -> None:
        self.transaction(lambda: self._insert(session_id, bodies))

    def _insert(self, session_id: str, bodies: Sequence[tuple[str, str]]) -> None:
        now = stored_now()
        count = len(bodies)
        asked_at = now if any(role == "user" for role, _ in bodies) else None
        place = (count, count, now, asked_at, NAMESPACE, session_id, now)
        ((key, next_seq, *_),) = self.connection.execute(sql.RESERVE_SEQS, place).fetchall()
        first = (key << SEQ_BITS) + next_seq - count
        rows = [_message_row(first + at, role, text, now) for at, (role, text) in enumerate(bodies)]
        self.connection.executemany(sql.INSERT_MESSAGE, rows)

    def _begin(self) -> None:
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not self._retry or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            else:
                return
            time.sleep(random.uniform(0.0002, 0.002))


# Where the values of a plain message go in a row; all other columns are NULL.
_PLAIN = {name: _MESSAGE_COLUMNS.index(name) for name in ("id", "kind", "role", "text", "created_at", "crc")}
_EMPTY = (None,) * len(_MESSAGE_COLUMNS)


def _message_row(identity: int, role: str, text: str, now: str) -> list[Any]:
    row: list[Any] = list(_EMPTY)
    row[_PLAIN["id"]] = identity
    row[_PLAIN["kind"]] = "message"
    row[_PLAIN["role"]] = role
    row[_PLAIN["text"]] = text
    row[_PLAIN["created_at"]] = now
    row[_PLAIN["crc"]] = NO_CHECKSUM
    return row


def stored_now() -> str:
    """The present in the form in which the store keeps it."""
    return stored(datetime.now(UTC))


def stored(instant: datetime) -> str:
    """An instant of UTC in the form in which the store keeps it."""
    return instant.replace(tzinfo=None).isoformat(" ", "microseconds")
