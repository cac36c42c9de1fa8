"""Blobs: large strings of messages, kept once and counted by their references. The hot path: compiled SQL only.

A reference names a message by its id, or a superseded one by the negative of its id. A blob without references is garbage until
it is collected, or until a message has it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .. import inputs, packing, sql
from ..database.transaction import Transaction
from ..errors import StoreCorruptError
from ..large import MARK, Entry, Large, NewBlob, Restored, entries_of

# What a page of messages may bring into memory at once, and what a batch frees.
MOST_BYTES_A_PAGE: Final = 64 << 20
_MOST_BLOBS_A_BATCH: Final = 100
_MOST_BYTES_A_BATCH: Final = 16 << 20

Found = Sequence[tuple[str, int]]


def has_blobs(row: Sequence[Any]) -> bool:
    """Whether a message row may have blobs; no other row is without doubt."""
    return isinstance(row[5], str) and MARK in row[5]


def keep(db: Transaction, message_id: int, large: Large) -> None:
    """Keep the blobs of a message that is being stored; one that is there and was damaged is whole again."""
    for blob in large.blobs:
        db.driver.execute(sql.KEEP_BLOB, blob)
        db.driver.execute(sql.REFER_TO_BLOB, (blob.hash, message_id))


def refer_alike(db: Transaction, new_id: int, old_id: int) -> None:
    """A copy of a message has the blobs of the message; a superseded one has the negative of its id."""
    db.driver.execute(sql.REFER_ALIKE, (new_id, old_id))


def forget(db: Transaction, after: int, before: int) -> None:
    """The messages with ids between two are about to go."""
    db.driver.execute(sql.FORGET_BLOBS, (after, before))


def forget_superseded(db: Transaction, session_key: int) -> None:
    """The superseded messages of a session are about to go."""
    db.driver.execute(sql.FORGET_SUPERSEDED_BLOBS, (session_key,))


def restored(db: Transaction, entries: Sequence[Entry]) -> Restored:
    """Large strings, read from their blobs in one query.

    Raises:
        StoreCorruptError: A blob is missing or damaged.
        MissingExtraError: A blob needs zstd, and there is none.
    """
    hashes = inputs.encode_json(sorted({entry.hash for entry in entries}))
    contents = {row[0]: content(db, row) for row in db.driver.execute(sql.READ_BLOBS, (hashes,))} if entries else {}
    return tuple((entry, _string(db, entry, contents.get(entry.hash))) for entry in entries)


def content(db: Transaction, row: Sequence[Any]) -> bytes:
    """What a row of `blobs` holds.

    Raises:
        StoreCorruptError: It is not what was stored.
        MissingExtraError: It needs zstd, and there is none.
    """
    from hashlib import sha256

    blob = NewBlob(*row)
    data = blob.data
    if blob.encoding is not None:
        try:
            data = packing.decompressed(blob.encoding, data, blob.size_bytes, most=packing.MOST_COMPRESSED)
        except packing.DamagedPackingError as error:
            raise _damaged(db, blob.hash) from error
    if len(data) != blob.size_bytes or sha256(data).hexdigest() != blob.hash:
        raise _damaged(db, blob.hash)
    return data


def first_few(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """The rows of a page up to where their blobs would take much memory; at least one."""
    size = 0
    for index, row in enumerate(rows):
        if has_blobs(row):
            size += _size_of(row)
            if index and size > MOST_BYTES_A_PAGE:
                return rows[:index]
    return rows


def _size_of(row: Sequence[Any]) -> int:
    try:
        return sum(entry.size_bytes for entry in entries_of(row[5]))
    except (AttributeError, TypeError, ValueError):
        # It is damaged, as whoever reads it will see.
        return 0


def unreferenced(db: Transaction, after: str = "") -> Found:
    """The hashes and sizes of some blobs that no message has, behind a hash, in their order."""
    found = db.driver.execute(sql.UNREFERENCED, (after, _MOST_BLOBS_A_BATCH)).fetchall()
    size = 0
    for index, (_, length) in enumerate(found):
        size += length
        if index and size > _MOST_BYTES_A_BATCH:
            return found[:index]
    return found


def collect(db: Transaction, hashes: Iterable[str]) -> int:
    """Delete those of some blobs that no message has now, and return how many they were."""
    return sum(db.driver.execute(sql.DELETE_BLOB, (each,)).rowcount for each in hashes)


def collect_all(db: Transaction) -> int:
    """Delete all blobs that no message has, however long it takes, and return how many they were."""
    collected = 0
    after = ""
    while found := unreferenced(db, after):
        collected += collect(db, (each for each, _ in found))
        after = found[-1][0]
    return collected


def _string(db: Transaction, entry: Entry, data: bytes | None) -> str:
    if data is None:
        raise missing(db, entry.hash)
    return entry.string(data)


def missing(db: Transaction, name: str) -> StoreCorruptError:
    """The error for a blob that is not there."""
    return StoreCorruptError(db.path, f"blob {name} of a message is missing; the file is kept as it is")


def _damaged(db: Transaction, name: object) -> StoreCorruptError:
    return StoreCorruptError(db.path, f"blob {name} is damaged; the file is kept as it is")
