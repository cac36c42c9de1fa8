"""Counting, and looking for damage."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ..database.transaction import Transaction
from ..errors import StoreCorruptError
from ..values import MAX_SEQ, SEQ_BITS
from ..values.health import Check
from . import whole_messages
from .dialect import as_stored
from .tables import (
    AGENT_ACTIVITY,
    AGENTS,
    MESSAGE_COLUMNS,
    MESSAGES,
    METRIC_EVENTS,
    OUTBOX,
    OVERDUE,
    RANGES,
    SESSIONS,
    STATE,
    STORE_INFO,
    SUPERSEDED,
    SYNC_STATE,
)

_STORED_COLUMNS: Final = tuple(as_stored(column) for column in MESSAGE_COLUMNS)
_SUPERSEDED_ID: Final = SUPERSEDED.c.session_key.op("<<")(SEQ_BITS).op("|")(SUPERSEDED.c.seq)
_SUPERSEDED_COLUMNS: Final = (_SUPERSEDED_ID, *(as_stored(SUPERSEDED.c[column.name]) for column in MESSAGE_COLUMNS[1:]))
_BATCH: Final = 1_000
_SHOWN: Final = 5
_OWNED_FROM: Final = RANGES.c.owner_key.op("<<")(SEQ_BITS)
_IN_RANGE: Final = MESSAGES.c.id.between(_OWNED_FROM.op("+")(RANGES.c.first_seq), _OWNED_FROM.op("+")(RANGES.c.last_seq))
# What is JSON, those of messages aside, which have checksums.
_OBJECTS: Final = (SESSIONS.c.metadata, METRIC_EVENTS.c.attributes, AGENTS.c.metadata, AGENT_ACTIVITY.c.details)
_ANY_JSON: Final = (STATE.c.value,)

_NUMBERED: Final = "SELECT 1 FROM checkpoint_values v WHERE v.session_key = {}.session_key AND v.number = {}"
_LOST_VALUES: Final = (
    f"SELECT (SELECT count(*) FROM checkpoints c, json_each(c.channels) e WHERE NOT EXISTS ({_NUMBERED.format('c', 'e.value')})) "  # noqa: S608
    f"+ (SELECT count(*) FROM checkpoint_values b WHERE b.base_number IS NOT NULL "
    f"AND NOT EXISTS ({_NUMBERED.format('b', 'b.base_number')}))"
)


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
    """Messages that are not what was written, superseded ones included."""
    damaged: list[str] = []
    looked_at = 0
    after = -1
    while rows := _rows_after(db, after):
        looked_at += len(rows)
        damaged += [_name_of(db, row[0]) for row in rows if _is_damaged(db, row)]
        after = rows[-1][0]
    after = -1
    while replaced := _superseded_after(db, after):
        looked_at += len(replaced)
        damaged += ["superseded " + _name_of(db, row[0]) for _, row in replaced if _is_damaged(db, row)]
        after = replaced[-1][0]
    detail = f"{looked_at} messages are what was written"
    return Check("checksums", not damaged, f"{len(damaged)} damaged: " + ", ".join(damaged[:_SHOWN]) if damaged else detail)


def counters(db: Transaction) -> Check:
    """Sessions whose count is not the number of their messages, and messages without a session."""
    first = SESSIONS.c.session_key.op("<<")(SEQ_BITS)
    own = sa.select(sa.func.count()).select_from(MESSAGES).where(MESSAGES.c.id > first, MESSAGES.c.id <= first.op("|")(MAX_SEQ))
    shared = sa.select(sa.func.count()).where(RANGES.c.session_key == SESSIONS.c.session_key, _IN_RANGE)
    held = own.scalar_subquery() + shared.scalar_subquery()
    wrong = db.core.execute(sa.select(sa.func.count()).select_from(SESSIONS).where(SESSIONS.c.message_count != held)).scalar_one()
    has_owner = sa.exists().where(SESSIONS.c.session_key == MESSAGES.c.id.op(">>")(SEQ_BITS))
    is_read = sa.exists().where(RANGES.c.owner_key == MESSAGES.c.id.op(">>")(SEQ_BITS), _IN_RANGE)
    strays = sa.select(sa.func.count()).select_from(MESSAGES).where(sa.not_(has_owner), sa.not_(is_read))
    lost = db.core.execute(strays).scalar_one()
    if wrong or lost:
        return Check("counters", False, f"{wrong} sessions have a wrong message_count; {lost} messages belong to no session")
    return Check("counters", True, "every session counts its messages right")


def checkpoints(db: Transaction) -> Check:
    """Checkpoints whose values are missing, or parts of such values."""
    ((lost,),) = db.driver.execute(_LOST_VALUES).fetchall()
    ((held,),) = db.driver.execute("SELECT count(*) FROM checkpoints").fetchall()
    if lost:
        return Check("checkpoints", False, f"{lost} values of checkpoints, or what they continue, are missing")
    return Check("checkpoints", True, f"{held} checkpoints have their values")


def json(db: Transaction) -> Check:
    """What is to be JSON and is none: metadata, attributes and details, which are objects, and the values of state."""
    found = [*((each, ("object", "null")) for each in _OBJECTS), *((each, None) for each in _ANY_JSON)]
    counted = [(_not_json(db, column, kinds), f"{column.table.name}.{column.name}") for column, kinds in found]
    if wrong := [f"{count} of {name}" for count, name in counted if count]:
        return Check("json", False, f"damaged: {', '.join(wrong)}")
    return Check("json", True, "metadata, attributes, details and state can be read")


def _not_json(db: Transaction, column: sa.Column[Any], kinds: tuple[str, ...] | None) -> int:
    raw = sa.type_coerce(column, sa.String)
    is_fine = sa.true() if kinds is None else sa.func.json_type(raw).in_(kinds)
    # In this order: of what is no JSON, asking for its type is an error.
    is_json = sa.case((sa.func.typeof(raw) != "text", sa.false()), (sa.func.json_valid(raw) == 1, is_fine), else_=sa.false())
    return int(db.core.execute(sa.select(sa.func.count()).where(raw.is_not(None), sa.not_(is_json))).scalar_one())


def _is_damaged(db: Transaction, row: Sequence[Any]) -> bool:
    try:
        whole_messages.unpacked(db, "", row)
    except StoreCorruptError:
        return True
    return False


def _name_of(db: Transaction, identity: int) -> str:
    found = sa.select(SESSIONS.c.session_id).where(SESSIONS.c.session_key == identity >> SEQ_BITS)
    session_id = db.core.execute(found).scalar_one_or_none()
    return f"message {identity & MAX_SEQ} of {'a session that is gone' if session_id is None else repr(session_id)}"


def _rows_after(db: Transaction, identity: int) -> list[sa.Row[Any]]:
    found = sa.select(*_STORED_COLUMNS).where(MESSAGES.c.id > identity).order_by(MESSAGES.c.id).limit(_BATCH)
    return list(db.core.execute(found))


def _superseded_after(db: Transaction, identity: int) -> list[tuple[int, Sequence[Any]]]:
    """Superseded messages by their own ids, each with its row as a message."""
    found = sa.select(SUPERSEDED.c.id, *_SUPERSEDED_COLUMNS).where(SUPERSEDED.c.id > identity)
    return [(own, row) for own, *row in db.core.execute(found.order_by(SUPERSEDED.c.id).limit(_BATCH))]
