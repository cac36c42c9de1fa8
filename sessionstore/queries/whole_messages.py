"""Messages from rows of every kind: plain, packed, with blobs. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import packing
from ..database.transaction import Transaction
from ..errors import StoreCorruptError
from ..large import entries_of, named
from ..rows import first_damaged, is_intact
from ..values import MAX_SEQ, Message
from . import blobs


def of_rows(db: Transaction, session_id: str, rows: Sequence[Sequence[Any]], *, with_blobs: bool = True) -> list[Message]:
    """The messages of rows that were just read.

    Args:
        db: The transaction.
        session_id: What they are messages of.
        rows: Whole rows.
        with_blobs: Read their blobs; else their names stand in their places.

    Raises:
        StoreCorruptError: One is not what was written, or a blob is missing or damaged.
        MissingExtraError: One needs zstd, and there is none.
    """
    if first_damaged(rows, db.seed) is None:
        return [Message(session_id, row) for row in rows]
    unpacked_rows = [unpacked(db, session_id, row) for row in rows]
    entries = [entries_of(row[5]) for row in unpacked_rows]
    if not with_blobs:
        return [Message(session_id, row, named(its)) for row, its in zip(unpacked_rows, entries, strict=True)]
    strings = iter(blobs.restored(db, [entry for its in entries for entry in its]))
    return [Message(session_id, row, tuple(next(strings) for _ in its)) for row, its in zip(unpacked_rows, entries, strict=True)]


def unpacked(db: Transaction, session_id: str, row: Sequence[Any]) -> Sequence[Any]:
    """A row with its text and the rest, if they were packed; and it is what was written."""
    try:
        found = plain(row)
    except packing.DamagedPackingError as error:
        raise _damaged(db, session_id, row) from error
    if not is_intact(found, db.seed):
        raise _damaged(db, session_id, row)
    return found


def plain(row: Sequence[Any]) -> Sequence[Any]:
    """A row with its text and the rest, if they were packed, whether it is what was written or not.

    Raises:
        DamagedPackingError: They cannot be unpacked.
        MissingExtraError: They need zstd, and there is none.
    """
    return row if row[8] is None else (*row[:3], *packing.unpack(row[8]), *row[5:8], None)


def words(db: Transaction, row: Sequence[Any]) -> str | None:
    """The readable words of a row, also those in blobs; no other blob is read.

    Raises:
        StoreCorruptError: It is not what was written, or a blob is missing or damaged.
        MissingExtraError: It needs zstd, and there is none.
    """
    found = unpacked(db, "", row)
    spoken = [entry for entry in entries_of(found[5]) if entry.has_words]
    return Message("", found, blobs.restored(db, spoken)).text


def _damaged(db: Transaction, session_id: str, row: Sequence[Any]) -> StoreCorruptError:
    seq = row[0] & MAX_SEQ
    return StoreCorruptError(db.path, f"message {seq} of session {session_id!r} is damaged; the file is kept as it is")
