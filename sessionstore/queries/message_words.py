"""The words of a message row, for the search index. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import packing
from ..database.transaction import Transaction
from ..errors import StoreCorruptError
from ..large import entries_of
from . import whole_messages


def size_of(row: Sequence[Any]) -> int:
    """How large the words of a message row are at most, wherever they stand."""
    stored = sum(len(part) for part in row[3:5] if part is not None)
    return stored + (packing.plain_size(row[8]) if row[8] else 0) + size_in_blobs(row)


def size_in_blobs(row: Sequence[Any]) -> int:
    """How large the words of a message row are that stand in blobs."""
    return sum(entry.size_bytes for entry in entries_of(row[5]) if entry.has_words)


def words_of(db: Transaction, row: Sequence[Any]) -> str | None:
    """The readable words of a message row, wherever they stand; None if the row is not what was written.

    What went into the index goes out by exactly these: other words would leave it damaged.

    Raises:
        MissingExtraError: They are compressed with zstd, and there is none.
    """
    try:
        return (whole_messages.words(db, row) or "").replace("\0", " ")
    except StoreCorruptError:
        return None
