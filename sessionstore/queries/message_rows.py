"""Message rows as such: their ids, and how they are taken out with all that hangs on them. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from .. import sql
from ..database.transaction import Transaction
from ..packing import DamagedPackingError
from ..rows import PreparedMessage, first_damaged, renumbered
from ..values import MAX_SEQ, SEQ_BITS
from . import blobs, search_index, whole_messages

_A_PAGE: Final = 500


def first_id(session_key: int) -> int:
    """Below every message id of a session."""
    return session_key << SEQ_BITS


def last_id(session_key: int) -> int:
    """The highest message id that a session can have."""
    return session_key << SEQ_BITS | MAX_SEQ


def discard(db: Transaction, session_key: int, first: int, last: int) -> int:
    """Delete the own rows of a session from one seq to another, both included, and return how many they were."""
    low = first_id(session_key)
    search_index.remove(db, low + first - 1, low + last + 1)
    blobs.forget(db, low + first - 1, low + last + 1)
    return db.driver.execute(sql.DELETE_MESSAGES, (low + first - 1, low + last + 1)).rowcount


def move(db: Transaction, session_key: int, first: int, last: int, new_key: int) -> None:
    """Give the rows of a session from one seq to another, both included, to a key without a session.

    Damaged ones go with the others and stay damaged: they are no reason to keep the session from losing its messages.
    """
    for rows in _pages(db, session_key, first, last):
        _put_copies(db, session_key, rows, new_key)
    search_index.complete(db, new_key, first, last)
    discard(db, session_key, first, last)


def copy(db: Transaction, session_id: str, session_key: int, first: int, last: int, new_key: int) -> None:
    """Put copies of the rows of a session from one seq to another, both included, under another key.

    Raises:
        StoreCorruptError: One is damaged.
        MissingExtraError: One needs zstd, and there is none.
    """
    for rows in _pages(db, session_key, first, last):
        whole_messages.of_rows(db, session_id, rows, with_blobs=False)
        _put_copies(db, session_key, rows, new_key)


def insert(db: Transaction, rows: Sequence[Sequence[Any]], messages: Sequence[PreparedMessage]) -> None:
    """Store rows, each of which was made of the message in its place, with what does not stand in them."""
    for message in messages:
        if message.large is not None:
            rows = [_with_large(db, row, each) for row, each in zip(rows, messages, strict=True)]
            break
    db.driver.executemany(sql.INSERT_MESSAGE, rows)


def packed(row: Sequence[Any], small: bytes, seed: int) -> Sequence[Any]:
    """A row with its text and the rest packed; the row as it is in the rare case that its checksum would not show that."""
    light = (*row[:3], None, None, *row[5:8], small)
    return light if first_damaged((light,), seed) is not None else row


def supersede(db: Transaction, session_key: int, rows: Sequence[Sequence[Any]]) -> None:
    """Keep copies of rows that a session is about to lose, its own and those that it shares, for the record."""
    low, now = first_id(session_key), db.now_text
    for row in rows:
        seq = row[0] & MAX_SEQ
        _, *values = _renumbered(db, row, low + seq)
        identity = db.driver.execute(sql.INSERT_SUPERSEDED, (session_key, seq, now, *values)).lastrowid
        if blobs.has_blobs(row) and identity is not None:
            blobs.refer_alike(db, -identity, row[0])


def put_superseded(db: Transaction, session_key: int, seq: int, superseded_at: str, message: PreparedMessage) -> None:
    """Store a message that was replaced in a session, as it comes from another store."""
    row = message.row(first_id(session_key) + seq, superseded_at, db.seed)
    identity = db.driver.execute(sql.INSERT_SUPERSEDED, (session_key, seq, superseded_at, *row[1:])).lastrowid
    if message.large is not None and identity is not None:
        blobs.keep(db, -identity, message.large)


def discard_superseded(db: Transaction, session_key: int) -> int:
    """Delete the superseded rows of a session and return how many they were."""
    blobs.forget_superseded(db, session_key)
    return db.driver.execute(sql.DELETE_SUPERSEDED, (session_key,)).rowcount


def _pages(db: Transaction, session_key: int, first: int, last: int) -> Iterator[list[tuple[Any, ...]]]:
    """The own rows of a session from one seq to another, both included."""
    low = first_id(session_key)
    after = low + first - 1
    while rows := db.driver.execute(sql.MESSAGES_FORWARD, (after, low + last + 1, _A_PAGE)).fetchall():
        yield rows
        after = rows[-1][0]


def _put_copies(db: Transaction, session_key: int, rows: Sequence[Sequence[Any]], new_key: int) -> None:
    to_new = first_id(new_key) - first_id(session_key)
    db.driver.executemany(sql.INSERT_MESSAGE, [_renumbered(db, row, row[0] + to_new) for row in rows])
    for row in filter(blobs.has_blobs, rows):
        blobs.refer_alike(db, row[0] + to_new, row[0])


def _with_large(db: Transaction, row: Sequence[Any], message: PreparedMessage) -> Sequence[Any]:
    """The row as it is stored, after its blobs."""
    if message.large is None:
        return row
    blobs.keep(db, row[0], message.large)
    return row if message.large.packed is None else packed(row, message.large.packed, db.seed)


def _renumbered(db: Transaction, row: Sequence[Any], identity: int) -> Sequence[Any]:
    """The row under another id; its checksum is that of the plain values, also where they are packed. A damaged one stays so."""
    if row[8] is None:
        return renumbered(row, identity, db.seed)
    try:
        plain = whole_messages.plain(row)
    except DamagedPackingError:
        # Whatever its checksum, nobody can unpack it.
        return (identity, *row[1:])
    return packed(renumbered(plain, identity, db.seed), row[8], db.seed)
