"""Packing the messages of sessions that are put away, and unpacking them again, in parts. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .. import packing, sql
from ..database.transaction import Transaction
from . import message_rows, whole_messages

# So much text is packed in some ten milliseconds, for which other writers wait.
ROOM: Final = 256 << 10
# What is shorter is not worth it.
_LEAST_CHARS: Final = 200
_A_PAGE: Final = 500


class Part(NamedTuple):
    """What was gone through: how many bytes, and the id behind which the rest stands; None if that was all."""

    size: int
    rest: int | None


def pack_some(db: Transaction, key: int, after: int = 0, *, room: int = ROOM) -> Part:
    """Pack those own messages of a session behind an id that are long enough, until the room is used up."""
    bounds = (max(after, message_rows.first_id(key)), message_rows.last_id(key) + 1)
    rows, part = _taken(db, sql.ROWS_TO_PACK, (*bounds, _LEAST_CHARS, _A_PAGE), room)
    for row in rows:
        small = packing.pack(row[3], row[4], level=packing.ARCHIVE_LEVEL)
        if small is not None and message_rows.packed(row, small, db.seed) is not row:
            db.driver.execute(sql.REPACK_MESSAGE, (None, None, small, row[0]))
    return part


def unpack_some(db: Transaction, key: int, after: int = 0, *, over: int | None) -> Part:
    """Unpack those own messages of a session behind an id that are not longer than so many bytes.

    Raises:
        StoreCorruptError: One is damaged.
        MissingExtraError: One needs zstd, and there is none.
    """
    bounds = (max(after, message_rows.first_id(key)), message_rows.last_id(key) + 1)
    rows, part = _taken(db, sql.ROWS_TO_UNPACK, (*bounds, _A_PAGE), ROOM)
    for row in rows:
        plain = whole_messages.unpacked(db, "", row)
        if over is None or sum(len(text.encode()) for text in plain[3:5] if text is not None) <= over:
            db.driver.execute(sql.REPACK_MESSAGE, (*plain[3:5], None, row[0]))
    return part


def archive_some(db: Transaction, key: int, after: int = 0, *, room: int = ROOM) -> Part:
    """As `pack_some`, for a session whose life is over: with its last message it is archived."""
    part = pack_some(db, key, after, room=room)
    if part.rest is None:
        db.driver.execute(sql.SET_ARCHIVED_AT, (db.now_text, key))
    return part


def _taken(db: Transaction, statement: str, parameters: tuple[int, ...], room: int) -> tuple[Sequence[Sequence[Any]], Part]:
    """The first rows that there is room for, at least one."""
    rows: list[Sequence[Any]] = []
    size = 0
    found = db.driver.execute(statement, parameters)
    for row in found:
        rows.append(row)
        size += _size(row)
        if size >= room:
            break
    found.close()
    is_all = size < room and len(rows) < _A_PAGE
    return rows, Part(size, None if is_all else rows[-1][0])


def _size(row: Sequence[Any]) -> int:
    return len(row[3] or "") + len(row[4] or "") if row[8] is None else packing.plain_size(row[8])
