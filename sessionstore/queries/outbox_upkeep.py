"""Looking after the outbox: how it stands, what is in it, and what becomes of events without a delivery.

Events are requeued, purged, erased or dropped here; `deliveries` claims and settles them. What a sender holds at the moment is
left to it, but for an erasure, which wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from .. import sql
from ..config import DEFAULT_MAX_OUTBOX_BYTES, MOST_UNSUPPORTED
from ..content import decoded
from ..database.transaction import Transaction
from ..inputs import encode_json
from ..remote.backoff import LONGEST_WAIT
from ..remote.events import ERASE, METRIC, session_stream
from ..values import Page
from ..values.outbox import OutboxEvent, OutboxStats
from .cursors import opened, sealed
from .dialect import in_json
from .tables import HOLDS, IS_DEAD, IS_PENDING, IS_UNSUPPORTED, OUTBOX, STORE_INFO, SYNC_STATE, UNANSWERED

_CURSOR_VERSION: Final = 1
_MOST_KEYS: Final = 500
# So many rows are deleted in some ten milliseconds.
_PURGED_AT_ONCE: Final = 5_000
_PENDING: Final = "pending"
_DEAD: Final = "dead"
_ERASED: Final = "erased"

_IS_SETTLED: Final = OUTBOX.c.state != sa.literal_column("'pending'")
# The token of a lease that was taken from its sender; no claim has it.
_NOBODY: Final = ""
_SAME_STREAM: Final = sa.and_(HOLDS.c.namespace == OUTBOX.c.namespace, HOLDS.c.stream == OUTBOX.c.stream)
_WITH_HOLDS: Final = sa.outerjoin(OUTBOX, HOLDS, sa.and_(IS_PENDING, _SAME_STREAM))
# A hold that ends later than any hold may was made by a clock that was ahead, and holds nothing.
_LASTS: Final = sa.and_(HOLDS.c.held_until > sa.bindparam("at"), HOLDS.c.held_until <= sa.bindparam("latest"))
_IS_LEASE: Final = sa.and_(HOLDS.c.token.is_not(None), _LASTS)
_IS_WAIT: Final = sa.and_(HOLDS.c.token.is_(None), _LASTS)
_UNLEASED: Final = sa.not_(sa.exists().where(_SAME_STREAM, _IS_LEASE).correlate(OUTBOX))

_MAY_ARRIVE: Final = sa.and_(UNANSWERED.c.arrives_until > sa.bindparam("at"), UNANSWERED.c.arrives_until <= sa.bindparam("latest"))
_IS_HELD_LONGER: Final = (
    sa.exists()
    .where(
        HOLDS.c.namespace == UNANSWERED.c.namespace,
        HOLDS.c.stream == UNANSWERED.c.stream,
        HOLDS.c.held_until >= UNANSWERED.c.arrives_until,
    )
    .correlate(UNANSWERED)
)


def _is(state: str) -> sa.ColumnElement[bool]:
    """Whether an event has a state, in the words for which there is an index."""
    if state == _PENDING:
        return IS_PENDING
    return sa.and_(OUTBOX.c.state == sa.literal_column(f"'{state}'"), _IS_SETTLED)


_COUNTS: Final = sa.select(
    sa.func.count().filter(IS_PENDING).label("pending"),
    sa.func.count().filter(IS_PENDING, _IS_LEASE).label("leased"),
    sa.func.count().filter(IS_PENDING, _IS_WAIT).label("waiting"),
    sa.func.coalesce(sa.func.sum(OUTBOX.c.size_bytes).filter(IS_PENDING), 0).label("pending_bytes"),
    sa.func.count().filter(_is(_DEAD)).label("dead"),
    sa.func.count().filter(_is(_DEAD), IS_UNSUPPORTED).label("unsupported"),
    sa.func.count().filter(_is(_ERASED)).label("erased"),
    sa.func.coalesce(sa.func.max(OUTBOX.c.attempts), 0).label("attempts"),
).select_from(_WITH_HOLDS)
_LISTED: Final = tuple(
    OUTBOX.c[name]
    for name in ("key", "namespace", "stream", "kind", "state", "attempts", "size_bytes", "occurred_at", "created_at", "next_at",
                 "settled_at", "last_status", "last_error")
)  # fmt: skip
_EVENTS: Final = sa.select(OUTBOX.c.id, *_LISTED, sa.case((_IS_LEASE, HOLDS.c.held_until)).label("lease_until")).select_from(
    _WITH_HOLDS
)


def stats(db: Transaction) -> OutboxStats:
    """How the deliveries stand."""
    counts = db.core.execute(_COUNTS, _bounds(db)).one()
    oldest = sa.select(OUTBOX.c.created_at).where(IS_PENDING).order_by(OUTBOX.c.id).limit(1)
    oldest_at = db.core.execute(oldest).scalar_one_or_none()
    store = db.core.execute(sa.select(STORE_INFO.c.remote_url, STORE_INFO.c.max_outbox_bytes)).one()
    state = db.core.execute(sa.select(SYNC_STATE)).one()
    return OutboxStats(
        **counts._mapping,  # noqa: SLF001 - SQLAlchemy's name
        remote=store.remote_url,
        quota=store.max_outbox_bytes or DEFAULT_MAX_OUTBOX_BYTES,
        oldest_age=None if oldest_at is None else (db.now - oldest_at).total_seconds(),
        sent=state.sent,
        dropped=state.dropped,
        last_sent_at=state.last_sent_at,
        last_status=state.last_status,
        last_error=state.last_error,
        failures=state.failures,
        failing_since=state.failing_since,
        retry_at=state.retry_at,
        paused=state.paused,
    )


def page(
    db: Transaction, *, state: str | None, kind: str | None, place: tuple[str, str] | None, limit: int, cursor: str | None
) -> Page[OutboxEvent]:
    """Events in the order in which they were stored, without their bodies.

    Args:
        db: The transaction.
        state: Only those in this state.
        kind: Only those that tell this.
        place: Only those of this namespace and stream.
        limit: At most so many.
        cursor: Only those behind it.

    Raises:
        InvalidInputError: The cursor is damaged or belongs to other filters.
    """
    wanted = (state, kind, place)
    query = _EVENTS.where(*_conditions(*wanted)).order_by(OUTBOX.c.id).limit(limit + 1)
    if cursor is not None:
        query = query.where(OUTBOX.c.id > opened("next_cursor", cursor, wanted)[1])
    rows = db.core.execute(query, _bounds(db)).all()
    shown = rows[:limit]
    following = sealed([_CURSOR_VERSION, shown[-1].id], wanted) if len(rows) > limit else None
    return Page(tuple(_event(row) for row in shown), following)


def find(db: Transaction, key: str) -> OutboxEvent | None:
    """The event of a key, with its body."""
    row = db.core.execute(_EVENTS.add_columns(OUTBOX.c.body).where(OUTBOX.c.key == key), _bounds(db)).one_or_none()
    return None if row is None else _event(row, decoded(row.body) if row.body else None)


def requeue(db: Transaction, *, keys: Sequence[str] | None = None, kind: str | None = None) -> int:
    """Let dead events be delivered after all, under the same keys; returns how many."""
    count = 0
    for chosen in _chosen(_DEAD, keys):
        found = chosen if kind is None else sa.and_(chosen, OUTBOX.c.kind == kind)
        places = sa.select(OUTBOX.c.namespace, OUTBOX.c.stream).where(found)
        waits = sa.and_(HOLDS.c.token.is_(None), sa.tuple_(HOLDS.c.namespace, HOLDS.c.stream).in_(places))
        db.core.execute(sa.delete(HOLDS).where(waits))
        fresh = {"state": _PENDING, "attempts": 0, "next_at": None, "settled_at": None, "last_status": None, "last_error": None}
        count += db.core.execute(sa.update(OUTBOX).where(found).values(**fresh, sent_before=None)).rowcount
    if count:
        db.enqueued = True
    return count


def purge(db: Transaction, state: str, *, before: datetime | None = None, keys: Sequence[str] | None = None) -> int:
    """Delete events of a state; returns how many. Those that waited are lost, and counted; those that are being sent stay.

    Args:
        db: The transaction.
        state: Which ones.
        before: Only those that have been in this state since before then.
        keys: Only these.
    """
    since = OUTBOX.c.created_at if state == _PENDING else _settled_at()
    count = 0
    for chosen in _chosen(state, keys):
        terms = [chosen]
        if before is not None:
            terms.append(since < before)
        if state == _PENDING:
            terms.append(_UNLEASED)
        count += db.core.execute(sa.delete(OUTBOX).where(*terms), _bounds(db)).rowcount
    db.gauge.forget()
    if count and state == _PENDING:
        db.driver.execute(sql.COUNT_DROPPED, (count,))
        left = sa.select(OUTBOX.c.namespace, OUTBOX.c.stream).where(IS_PENDING)
        idle = sa.tuple_(HOLDS.c.namespace, HOLDS.c.stream).not_in(left)
        db.core.execute(sa.delete(HOLDS).where(HOLDS.c.token.is_(None), idle))
    return count


def any_settled(db: Transaction, before: datetime) -> bool:
    """Whether a dead or erased event has been so since before then."""
    found = sa.select(OUTBOX.c.id).where(_IS_SETTLED, _settled_at() < before)
    return db.core.execute(found.limit(1)).first() is not None


def purge_settled(db: Transaction, before: datetime) -> int:
    """Delete dead and erased events that have been so since before then, at most 5,000 at once; returns how many."""
    found = sa.select(OUTBOX.c.id).where(_IS_SETTLED, _settled_at() < before)
    db.gauge.forget()
    return db.core.execute(sa.delete(OUTBOX).where(OUTBOX.c.id.in_(found.limit(_PURGED_AT_ONCE)))).rowcount


def has_too_many_unsupported(db: Transaction) -> bool:
    """Whether there are more dead events that the remote has no use for than are kept."""
    found = sa.select(OUTBOX.c.id).where(IS_DEAD, IS_UNSUPPORTED).offset(MOST_UNSUPPORTED).limit(1)
    return db.core.execute(found).first() is not None


def drop_unsupported(db: Transaction, size_bytes: int = 0) -> int:
    """Delete the oldest dead events that the remote has no use for: those of so many bytes together, and all but 1,000.

    They count as dropped. Only 5,000 go at once, but for the bytes.

    Returns:
        How many bytes they had.
    """
    query = sa.select(OUTBOX.c.id, OUTBOX.c.size_bytes).where(IS_DEAD, IS_UNSUPPORTED).order_by(OUTBOX.c.id)
    found = db.core.execute(query).all()
    too_many = min(len(found) - MOST_UNSUPPORTED, _PURGED_AT_ONCE)
    going = []
    freed = 0
    for number, (identity, size) in enumerate(found):
        if freed >= size_bytes and number >= too_many:
            break
        going.append((identity,))
        freed += size
    if going:
        db.driver.executemany(sql.DELETE_DEAD, going)
        db.driver.execute(sql.COUNT_DROPPED, (len(going),))
        db.gauge.forget()
    return freed


def erase(db: Transaction, namespace: str, session_id: str) -> int:
    """Empty the events of a session that are not delivered, also while they are being sent; returns how many.

    Events that tell the remote to forget a session are kept: they hold nothing else.
    """
    place = (namespace, session_stream(session_id))
    mine = sa.and_(OUTBOX.c.namespace == place[0], OUTBOX.c.stream == place[1])
    kept = sa.and_(OUTBOX.c.state.in_((_PENDING, _DEAD)), OUTBOX.c.kind != ERASE)
    emptied = {"state": _ERASED, "body": "", "size_bytes": 0, "settled_at": db.now, "next_at": None, "last_error": None}
    count = db.core.execute(sa.update(OUTBOX).where(mine, kept).values(emptied)).rowcount
    if count:
        db.gauge.forget()
    take_from_senders(db, place[0], place[1:])
    return count


def drop_oldest_metrics(db: Transaction, size_bytes: int) -> tuple[int, int]:
    """Make room: delete the oldest waiting figures that nobody is sending, of so many bytes together if there are so many.

    Returns:
        How many they were, and how many bytes they had.
    """
    query = sa.select(OUTBOX.c.id, OUTBOX.c.size_bytes).where(IS_PENDING, OUTBOX.c.kind == METRIC, _UNLEASED).order_by(OUTBOX.c.id)
    going: list[tuple[int]] = []
    freed = 0
    with db.core.execute(query, _bounds(db)) as figures:
        for identity, size in figures:
            if freed >= size_bytes:
                break
            going.append((identity,))
            freed += size
    db.driver.executemany(sql.DELETE_EVENT, going)
    return len(going), freed


def take_from_senders(db: Transaction, namespace: str, streams: Sequence[str]) -> None:
    """Make whatever senders say of streams count for nothing.

    What they send at the moment, or left without an answer, may still arrive. So nothing of a stream is sent before its lease
    would have ended and no request can arrive, and the order in which the remote hears of it is kept. It stays a lease, of
    nobody, so that a second erasure keeps it, too.
    """
    named = encode_json(list(streams))
    mine = sa.and_(HOLDS.c.namespace == namespace, in_json(HOLDS.c.stream, named))
    db.core.execute(sa.delete(HOLDS).where(mine, sa.not_(_IS_LEASE)), _bounds(db))
    db.core.execute(sa.update(HOLDS).where(mine).values(token=_NOBODY))
    _hold_unanswered(db, namespace, named)


def _hold_unanswered(db: Transaction, namespace: str, streams: str) -> None:
    """Hold streams of which a request may still arrive, for nobody. `streams` is a JSON array."""
    mine = sa.and_(UNANSWERED.c.namespace == namespace, in_json(UNANSWERED.c.stream, streams))
    found = sa.select(UNANSWERED.c.namespace, UNANSWERED.c.stream, sa.literal(_NOBODY), UNANSWERED.c.arrives_until)
    found = found.where(mine, _MAY_ARRIVE, sa.not_(_IS_HELD_LONGER))
    held = sa.insert(HOLDS).prefix_with("OR REPLACE").from_select(("namespace", "stream", "token", "held_until"), found)
    db.core.execute(held, _bounds(db))
    db.core.execute(sa.delete(UNANSWERED).where(mine))


def _chosen(state: str, keys: Sequence[str] | None) -> Iterator[sa.ColumnElement[bool]]:
    """The events of a state, or those of them with these keys, in parts that SQLite takes."""
    if keys is None:
        yield _is(state)
        return
    for start in range(0, len(keys), _MOST_KEYS):
        yield sa.and_(_is(state), OUTBOX.c.key.in_(keys[start : start + _MOST_KEYS]))


def _conditions(state: str | None, kind: str | None, place: tuple[str, str] | None) -> Iterator[sa.ColumnElement[bool]]:
    if state is not None:
        yield _is(state)
    if kind is not None:
        yield OUTBOX.c.kind == kind
    if place is not None:
        yield sa.and_(OUTBOX.c.namespace == place[0], OUTBOX.c.stream == place[1])


def _settled_at() -> sa.ColumnElement[Any]:
    """When an event died or was erased; of those that did under an older schema, when they were stored."""
    return sa.func.coalesce(OUTBOX.c.settled_at, OUTBOX.c.created_at)


def _bounds(db: Transaction) -> dict[str, datetime]:
    return {"at": db.now, "latest": db.now + LONGEST_WAIT}


def _event(row: sa.Row[*tuple[Any, ...]], body: dict[str, Any] | None = None) -> OutboxEvent:
    known = {column.name: getattr(row, column.name) for column in _LISTED}
    return OutboxEvent(**known, lease_until=row.lease_until, body=body)
