"""Removing sessions with all that belongs to them, in transactions that stay short. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from .. import sql
from ..database.transaction import Transaction
from . import lineage, message_rows

T = TypeVar("T")

# So many rows are deleted in some ten milliseconds, for which other writers wait; of fewer the words go in that time.
MOST_MESSAGES: Final = 2_000
MOST_INDEXED: Final = 500
# Free pages are used again by the next messages, so that some may stay.
_SPARE_PAGES: Final = 1_000
_PAGES_A_BATCH: Final = 200
_CHECKPOINT_ROWS: Final = (
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM checkpoints WHERE session_key = :key LIMIT :most)) "
    "+ (SELECT count(*) FROM (SELECT 1 FROM checkpoint_values WHERE session_key = :key LIMIT :most)) "
    "+ (SELECT count(*) FROM (SELECT 1 FROM checkpoint_writes WHERE session_key = :key LIMIT :most))"
)


def remove(db: Transaction, key: int) -> None:
    """Delete a session with its tags, its state and its messages. What forks share of these stays for them."""
    lineage.remove_all(db, key)
    message_rows.discard_superseded(db, key)
    db.driver.execute(sql.DELETE_SESSION_STATE, (key, key))
    db.driver.execute(sql.FORGET_PARENT, (key,))
    db.driver.execute(sql.DELETE_SESSION, (key,))


def checkpoint_rows(db: Transaction, key: int) -> int:
    """How many rows the checkpoints of a session have; of very many, enough to fill a batch."""
    return int(db.driver.execute(_CHECKPOINT_ROWS, {"key": key, "most": MOST_MESSAGES}).fetchall()[0][0])


def give_back_space(db: Transaction) -> None:
    """Return some of the pages that deleting freed to the file system; the file shrinks at the next checkpoint."""
    free = db.driver.execute("PRAGMA freelist_count").fetchall()[0][0]
    for _ in range(min(free - _SPARE_PAGES, _PAGES_A_BATCH)):
        # The driver takes one step of this statement, and each step frees one page.
        db.driver.execute("PRAGMA incremental_vacuum(1)").fetchall()


def batches(found: Sequence[T], rows_of: Callable[[T], int], *, most: int) -> Iterator[Sequence[T]]:
    """Sessions in parts that are removed in a transaction each: at most so many, and few rows unless one session has many."""
    start = held = 0
    for place, session in enumerate(found):
        count = rows_of(session)
        if place > start and (place - start >= most or held + count > MOST_MESSAGES):
            yield found[start:place]
            start, held = place, 0
        held += count
    if start < len(found):
        yield found[start:]
