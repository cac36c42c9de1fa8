"""Which rows a session reads: its own, and as a fork those that it shares with others. The hot path: compiled SQL only.

A fork's first messages are ranges of rows that another key owns. All ranges of a session are its own, whatever it was forked
from, so that reading never walks from parent to parent. Own rows stand in the gaps between the ranges and behind them. An owner
may have no session any more: its rows stay as long as a range names them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from .. import sql
from ..database.transaction import Transaction
from ..values import MAX_SEQ
from . import message_rows, search_index

_ALL: Final = -1


class Piece(NamedTuple):
    """Seqs that one key's rows hold, both ends included."""

    first: int
    last: int
    owner: int


def inherited(db: Transaction, key: int) -> list[Piece]:
    """The pieces of a session that others own, in order."""
    return [Piece(*row) for row in db.driver.execute(sql.INHERITED_RANGES, (key,)).fetchall()]


def pieces(db: Transaction, key: int, first: int = 1, last: int = MAX_SEQ) -> list[Piece]:
    """Where the messages of a session stand between two seqs, in order."""
    found: list[Piece] = []
    free = 1
    for piece in inherited(db, key):
        found += [Piece(free, piece.first - 1, key), piece]
        free = piece.last + 1
    found.append(Piece(free, MAX_SEQ, key))
    clipped = (Piece(max(piece.first, first), min(piece.last, last), piece.owner) for piece in found)
    return [piece for piece in clipped if piece.first <= piece.last]


def rows_forward(db: Transaction, key: int, first: int, last: int, most: int) -> list[tuple[Any, ...]]:
    """The rows of the oldest messages between two seqs, at most so many, or all with -1."""
    rows: list[tuple[Any, ...]] = []
    for piece in pieces(db, key, first, last):
        low = message_rows.first_id(piece.owner)
        left = _ALL if most == _ALL else most - len(rows)
        rows += db.driver.execute(sql.MESSAGES_FORWARD, (low + piece.first - 1, low + piece.last + 1, left)).fetchall()
        if len(rows) == most:
            break
    return rows


def rows_backward(db: Transaction, key: int, first: int, last: int, most: int) -> list[tuple[Any, ...]]:
    """The rows of the newest messages between two seqs, at most so many, newest first."""
    rows: list[tuple[Any, ...]] = []
    for piece in reversed(pieces(db, key, first, last)):
        if len(rows) == most:
            break
        low = message_rows.first_id(piece.owner)
        bounds = (low + piece.first - 1, low + piece.last + 1, most - len(rows))
        rows += db.driver.execute(sql.MESSAGES_BACKWARD, bounds).fetchall()
    return rows


def newest_question(db: Transaction, among: Sequence[Piece]) -> str | None:
    """When the newest user message in some pieces was written, as it is stored."""
    for piece in reversed(among):
        low = message_rows.first_id(piece.owner)
        rows = db.driver.execute(sql.NEWEST_QUESTION, (low + piece.first - 1, low + piece.last + 1)).fetchall()
        if rows:
            return str(rows[0][0])
    return None


def share(db: Transaction, key: int, shared: Sequence[Piece]) -> None:
    """Let a new session read pieces that others own."""
    db.driver.executemany(sql.INSERT_RANGE, [(key, *piece) for piece in shared])


def remove_own(db: Transaction, key: int, first: int, last: int) -> int:
    """Take messages between two seqs out of a session that stays, and return how many it had there.

    What forks share of them moves to a key without a session. What the session itself shares goes out of its ranges.
    """
    kept = wanted_by_others(db, key, first, last)
    holder = _new_key(db) if kept else key
    removed = sum(count(db, piece) for piece in pieces(db, key, first, last))
    for piece in kept:
        message_rows.move(db, key, piece.first, piece.last, holder)
    if kept:
        _give_ranges(db, key, first, last, holder)
    message_rows.discard(db, key, first, last)
    _leave(db, key, first, last)
    return removed


def remove_all(db: Transaction, key: int) -> None:
    """Take all rows of a session that is about to be deleted, but those that forks share: they stay under its key."""
    free = 1
    for piece in wanted_by_others(db, key, 1, MAX_SEQ):
        message_rows.discard(db, key, free, piece.first - 1)
        search_index.complete(db, key, piece.first, piece.last)
        free = piece.last + 1
    message_rows.discard(db, key, free, MAX_SEQ)
    _leave(db, key, 1, MAX_SEQ)


def wanted_by_others(db: Transaction, key: int, first: int, last: int) -> list[Piece]:
    """The rows of a key between two seqs that are in a range of some session, as pieces that do not touch, in order."""
    found: list[Piece] = []
    for _, range_first, range_last in db.driver.execute(sql.SHARED_RANGES, (key, first, last)).fetchall():
        start, end = max(range_first, first), min(range_last, last)
        if found and start <= found[-1].last + 1:
            found[-1] = found[-1]._replace(last=max(end, found[-1].last))
        else:
            found.append(Piece(start, end, key))
    return found


def has_later_readers(db: Transaction, piece: Piece, key: int) -> bool:
    """Whether sessions with a higher key than this one have a part of a piece in their ranges."""
    found = db.driver.execute(sql.SHARED_RANGES, (piece.owner, piece.first, piece.last)).fetchall()
    return any(reader > key for reader, _, _ in found)


def _leave(db: Transaction, key: int, first: int, last: int) -> None:
    """Take seqs out of a session's ranges, and delete the rows of ownerless keys that nobody reads any more."""
    left = [piece for piece in inherited(db, key) if piece.first <= last and piece.last >= first]
    for piece in left:
        db.driver.execute(sql.DELETE_RANGE, (key, piece.first))
        share(db, key, list(_around(piece, first, last)))
    for piece in left:
        if not db.driver.execute(sql.HAS_SESSION, (piece.owner,)).fetchall():
            _discard_unread(db, piece.owner, max(piece.first, first), min(piece.last, last))


def _discard_unread(db: Transaction, owner: int, first: int, last: int) -> None:
    free = first
    for piece in wanted_by_others(db, owner, first, last):
        message_rows.discard(db, owner, free, piece.first - 1)
        free = piece.last + 1
    message_rows.discard(db, owner, free, last)


def _give_ranges(db: Transaction, owner: int, first: int, last: int, holder: int) -> None:
    """Let the ranges over an owner's rows between two seqs name the holder instead."""
    for reader, range_first, range_last in db.driver.execute(sql.SHARED_RANGES, (owner, first, last)).fetchall():
        whole = Piece(range_first, range_last, owner)
        db.driver.execute(sql.DELETE_RANGE, (reader, range_first))
        moved = Piece(max(range_first, first), min(range_last, last), holder)
        share(db, reader, [*_around(whole, first, last), moved])


def _around(piece: Piece, first: int, last: int) -> Iterator[Piece]:
    """What is left of a piece without the seqs between two."""
    if piece.first < first:
        yield piece._replace(last=first - 1)
    if piece.last > last:
        yield piece._replace(first=last + 1)


def count(db: Transaction, piece: Piece) -> int:
    """How many messages stand in a piece."""
    low = message_rows.first_id(piece.owner)
    ((found,),) = db.driver.execute(sql.COUNT_MESSAGES, (low + piece.first - 1, low + piece.last + 1)).fetchall()
    return int(found)


def _new_key(db: Transaction) -> int:
    """A session key that no session has, had or will have."""
    ((key,),) = db.driver.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'sessions' RETURNING seq").fetchall()
    return int(key)
