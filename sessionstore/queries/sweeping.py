"""Sweeps: the expiry of due sessions, settled in batches by one sweeper per file at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

import sqlalchemy as sa

from .. import clock, sql
from ..config import OnExpire
from ..database.transaction import Transaction
from . import removal, search_index, sessions, settling
from .tables import SESSIONS, STORE_INFO

# Longer than any batch takes; a killed sweeper's work waits so long.
LEASE: Final = timedelta(seconds=60)
_A_DAY: Final = timedelta(days=1)

Outcome = Literal["done", "more", "busy", "deferred"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of one batch: how many sessions, and whether others are due or why none was touched."""

    settled: int
    outcome: Outcome


def settle_batch(
    db: Transaction, *, sweeper: str, at: datetime | None, limit: int, on_expire: OnExpire, last: bool = False, prepared: int = 0
) -> Batch:
    """Settle the expiry of the sessions that are overdue the longest.

    Args:
        db: The transaction.
        sweeper: Who sweeps. Only one does at a time.
        at: The present, to be believed however far ahead it is; None for the clock's.
        limit: At most so many; fewer if their messages and checkpoints would keep writers waiting while they are deleted.
        on_expire: What becomes of them.
        last: Whether the sweeper stops after `limit` even if others are due.
        prepared: How many batches before it only prepared this one.
    """
    store = db.core.execute(sa.select(STORE_INFO)).one()
    held_by_another = store.sweeper is not None and store.sweeper != sweeper
    # A lease from a clock that was ahead must not hold for longer than a lease.
    if held_by_another and db.now < store.sweeper_until <= db.now + LEASE:
        return Batch(0, "busy")
    if at is None and clock_is_doubtful(db):
        return Batch(0, "deferred")
    now = at or db.now
    rows = db.driver.execute(sql.FIND_DUE, (clock.to_text(now), limit + 1)).fetchall()
    due: Sequence[Sequence[Any]] = rows[:limit]
    if on_expire == "delete":
        due = next(removal.batches(due, partial(_rows_of, db), most=limit), due)
        if _prepare(db, due, prepared):
            due = ()
    settling.settle(db, due, on_expire)
    if on_expire == "delete":
        removal.give_back_space(db)
    more = len(rows) > len(due)
    goes_on = more and not (last and len(due) == limit)
    lease = {"sweeper": sweeper if goes_on else None, "sweeper_until": db.now + LEASE if goes_on else None}
    db.core.execute(sa.update(STORE_INFO).values(swept_at=db.now, **lease))
    return Batch(len(due), "more" if more else "done")


def _rows_of(db: Transaction, row: Sequence[Any]) -> int:
    """About how many rows go with a session."""
    messages: int = row[sessions.MESSAGE_COUNT]
    return messages + removal.checkpoint_rows(db, row[sessions.KEY])


def _prepare(db: Transaction, due: Sequence[Sequence[Any]], prepared: int) -> bool:
    """Whether many words of sessions that are to be deleted went out of the search index; then that is all that the batch does.

    There are no more such batches than the work has parts, however busy others are with indexing the sessions again.
    """
    if prepared * removal.MOST_INDEXED >= sum(row[sessions.MESSAGE_COUNT] for row in due):
        return False
    surplus = search_index.surplus(db, (row[sessions.KEY] for row in due), removal.MOST_INDEXED)
    if surplus is not None:
        search_index.remove_surplus(db, *surplus)
    return surplus is not None


def clock_is_doubtful(db: Transaction) -> bool:
    """Whether the present is so far ahead of all that is stored that the clock may be wrong."""
    swept_at, created_at = db.core.execute(sa.select(STORE_INFO.c.swept_at, STORE_INFO.c.created_at)).one()
    # A sweep in the future was the work of a clock that was ahead itself.
    known = swept_at if swept_at is not None and swept_at <= db.now else created_at
    if db.now - known <= clock.LONGEST_GAP:
        return False
    # What was stored today may come from the same wrong clock.
    span = {"since": db.now - clock.LONGEST_GAP, "until": db.now - _A_DAY}
    return db.core.execute(_USED_BETWEEN, span).first() is None


def _used_between() -> sa.Select[Any]:
    """Whether a session was changed within a time: one look into an index for each namespace, up to the first such session."""
    first = sa.select(sa.func.min(SESSIONS.c.namespace).label("name")).cte("spaces", recursive=True)
    following = sa.select(sa.func.min(SESSIONS.c.namespace)).where(SESSIONS.c.namespace > first.c.name).scalar_subquery()
    spaces = first.union_all(sa.select(following).where(first.c.name.is_not(None)))
    # The column first: from it the parameters have their type, which stores instants as this library does.
    then = sa.and_(SESSIONS.c.updated_at >= sa.bindparam("since"), SESSIONS.c.updated_at < sa.bindparam("until"))
    used = sa.exists().where(SESSIONS.c.namespace == spaces.c.name, then)
    return sa.select(sa.literal_column("1")).select_from(spaces).where(used).limit(1)


_USED_BETWEEN: Final = _used_between()
