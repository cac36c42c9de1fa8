"""SQL functions that find the words of messages where plain SQL does not: in packed rows and in blobs."""

from __future__ import annotations

import sqlite3
from typing import Final

from .. import packing
from ..content import decoded, words
from ..database.transaction import Transaction
from ..errors import MissingExtraError
from ..large import entries_of
from ..remote.compression import zstd

_ARE_THERE: Final = "SELECT packed_words(NULL), blob_words(NULL, NULL, NULL, NULL, NULL)"
_NEEDS_ZSTD: Final = (
    "SELECT EXISTS (SELECT 1 FROM messages WHERE packed IS NOT NULL AND substr(packed, 1, 1) = x'01')"
    " OR EXISTS (SELECT 1 FROM blobs WHERE encoding = 'zstd')"
)


def prepare(db: Transaction) -> None:
    """Let a connection have the functions.

    Raises:
        MissingExtraError: Something is compressed with zstd, and there is none.
    """
    if zstd() is None and db.driver.execute(_NEEDS_ZSTD).fetchall()[0][0]:
        raise MissingExtraError("looking for words in what was compressed with zstd", packing.ZSTD)
    try:
        db.driver.execute(_ARE_THERE).fetchall()
    except sqlite3.OperationalError:
        # Only then: functions cannot be made anew while a statement goes on.
        db.driver.create_function("packed_words", 1, _packed_words, deterministic=True)
        db.driver.create_function("blob_words", 5, _blob_words, deterministic=True)


def _packed_words(packed: bytes | None) -> str | None:
    if packed is None:
        return None
    try:
        text, extra = packing.unpack(packed)
    except packing.DamagedPackingError:
        # As in a damaged text, nothing is found in it; reading the message tells.
        return None
    return text if extra is None or text is not None else words(decoded(extra).get("content"))


def _blob_words(facts: str | None, name: str | None, size: int, encoding: str | None, data: bytes) -> str | None:
    entries = [entry for entry in entries_of(facts) if entry.hash == name and entry.has_words]
    if not entries:
        return None
    try:
        plain = data if encoding is None else packing.decompressed(encoding, data, size, most=packing.MOST_COMPRESSED)
        return "\n".join(entry.string(plain) for entry in entries)
    except (packing.DamagedPackingError, UnicodeDecodeError):
        return None
