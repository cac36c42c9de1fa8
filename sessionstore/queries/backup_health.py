"""Whether the messages of a backup, which may have an older schema, are what was written."""

# ruff: noqa: S608 - put together from constants only

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from .. import packing
from ..database.transaction import Transaction
from ..errors import MissingExtraError
from ..rows import first_damaged, is_intact
from ..values import MAX_SEQ, SEQ_BITS
from . import blob_health, whole_messages

_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"
_HAS_PACKED: Final = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('messages') WHERE name = 'packed')"
_SESSION: Final = "SELECT session_id FROM sessions WHERE session_key = ?"
_STORED: Final = "kind, role, text, extra, facts, created_at, crc"
_SUPERSEDED: Final = f"SELECT session_key << {SEQ_BITS} | seq, {_STORED}, packed FROM superseded_messages ORDER BY id"
_BATCH: Final = 1_000


def damaged(db: Transaction) -> Iterator[str]:
    """What is not what was written: messages, superseded ones and blobs. What this program cannot unpack is passed over."""
    tables = {name for (name,) in db.driver.execute(_TABLES).fetchall()}
    for row in _damaged_rows(db, f"SELECT id, {_STORED}, {_packed(db)} FROM messages ORDER BY id"):
        yield _name_of(db, row[0])
    if "superseded_messages" in tables:
        for row in _damaged_rows(db, _SUPERSEDED):
            yield "superseded " + _name_of(db, row[0])
    if "blobs" in tables:
        with suppress(MissingExtraError):
            yield from (f"blob {name}" for name in blob_health.look_at_all(db)[1])


def _packed(db: Transaction) -> str:
    ((has_packed,),) = db.driver.execute(_HAS_PACKED).fetchall()
    return "packed" if has_packed else "NULL"


def _damaged_rows(db: Transaction, query: str) -> Iterator[Sequence[Any]]:
    found = db.driver.execute(query)
    while rows := found.fetchmany(_BATCH):
        # Nearly always all are plain and intact, which is quickly seen.
        if first_damaged(rows, db.seed) is not None:
            yield from (row for row in rows if _is_damaged(db, row))


def _is_damaged(db: Transaction, row: Sequence[Any]) -> bool:
    try:
        return not is_intact(whole_messages.plain(row), db.seed)
    except packing.DamagedPackingError:
        return True
    except MissingExtraError:
        return False


def _name_of(db: Transaction, identity: int) -> str:
    found = db.driver.execute(_SESSION, (identity >> SEQ_BITS,)).fetchall()
    return f"message {identity & MAX_SEQ} of {repr(found[0][0]) if found else 'a session that is gone'}"
