"""Counting, and looking for damage."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ..database.transaction import Transaction
from ..rows import first_damaged
from ..values import MAX_SEQ, SEQ_BITS
from ..values.health import Check
from .dialect import as_stored
from .statements import MESSAGE_COLUMNS, MESSAGES, OUTBOX, OVERDUE, SESSIONS, STORE_INFO, SYNC_STATE

_STORED_COLUMNS: Final = tuple(as_stored(column) for column in MESSAGE_COLUMNS)
_BATCH: Final = 1_000
_SHOWN: Final = 5


def counts(db: Transaction) -> tuple[str, int, int]:
    """The store's id, and how many sessions and messages it holds, expired ones included."""
    store_id = db.core.execute(sa.select(STORE_INFO.c.store_id)).scalar_one()
    totals = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(SESSIONS.c.message_count), 0)).select_from(SESSIONS)
    sessions, messages = db.core.execute(totals).one()
    return store_id, sessions, messages


def due(db: Transaction) -> int:
    """How many sessions are overdue: their lives are over, and no sweep has settled that yet."""
    overdue = sa.select(sa.func.count()).select_from(SESSIONS).where(OVERDUE)
    return int(db.core.execute(overdue, {"at": db.now_text}).scalar_one())


def last_sweep(db: Transaction) -> datetime | None:
    """When a sweep last settled sessions."""
    swept_at: datetime | None = db.core.execute(sa.select(STORE_INFO.c.swept_at)).scalar_one()
    return swept_at


class Deliveries(NamedTuple):
    """How many events wait for the remote, were given up, or were dropped; and why nothing is sent, if nothing is."""

    waiting: int
    dead: int
    dropped: int
    paused: str | None


def deliveries(db: Transaction) -> Deliveries:
    """How deliveries stand, in short."""
    pending, dead = (OUTBOX.c.state == sa.literal_column(f"'{state}'") for state in ("pending", "dead"))
    # The second condition follows from the first one, which SQLite does not see: an index has these only.
    gone = sa.and_(dead, OUTBOX.c.state != sa.literal_column("'pending'"))
    counts = (sa.select(sa.func.count()).select_from(OUTBOX).where(which).scalar_subquery() for which in (pending, gone))
    return Deliveries._make(db.core.execute(sa.select(*counts, SYNC_STATE.c.dropped, SYNC_STATE.c.paused)).one())


def structure(db: Transaction) -> Check:
    """SQLite's own check of every page and index."""
    problems = [row[0] for row in db.driver.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()]
    return Check("structure", problems == ["ok"], "; ".join(problems))


def references(db: Transaction) -> Check:
    """Rows whose parent is gone."""
    lost = len(db.driver.execute("PRAGMA foreign_key_check").fetchall())
    return Check("references", not lost, f"{lost} rows without their parent" if lost else "every row has its parent")


def checksums(db: Transaction) -> Check:
    """Messages that are not what was written."""
    damaged: list[str] = []
    looked_at = 0
    after = -1
    while rows := _rows_after(db, after):
        looked_at += len(rows)
        damaged += [_name_of(db, row[0]) for row in rows if first_damaged([row], db.seed)]
        after = rows[-1][0]
    detail = f"{looked_at} messages are what was written"
    return Check("checksums", not damaged, f"{len(damaged)} damaged: " + ", ".join(damaged[:_SHOWN]) if damaged else detail)


def counters(db: Transaction) -> Check:
    """Sessions whose count is not the number of their messages, and messages without a session."""
    first = SESSIONS.c.session_key.op("<<")(SEQ_BITS)
    held = sa.select(sa.func.count()).select_from(MESSAGES).where(MESSAGES.c.id > first, MESSAGES.c.id <= first.op("|")(MAX_SEQ))
    wrong = db.core.execute(
        sa.select(sa.func.count()).select_from(SESSIONS).where(SESSIONS.c.message_count != held.scalar_subquery())
    ).scalar_one()
    total = db.core.execute(sa.select(sa.func.count()).select_from(MESSAGES)).scalar_one()
    expected = counts(db)[2]
    if wrong or total != expected:
        return Check("counters", False, f"{wrong} sessions have a wrong message_count; {total} messages, {expected} expected")
    return Check("counters", True, "every session counts its messages right")


def _name_of(db: Transaction, identity: int) -> str:
    found = sa.select(SESSIONS.c.session_id).where(SESSIONS.c.session_key == identity >> SEQ_BITS)
    session_id = db.core.execute(found).scalar_one_or_none()
    return f"message {identity & MAX_SEQ} of {'a session that is gone' if session_id is None else repr(session_id)}"


def _rows_after(db: Transaction, identity: int) -> list[sa.Row[Any]]:
    found = sa.select(*_STORED_COLUMNS).where(MESSAGES.c.id > identity).order_by(MESSAGES.c.id).limit(_BATCH)
    return list(db.core.execute(found))
