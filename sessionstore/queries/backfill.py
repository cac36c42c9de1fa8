"""Backfill: the events of what happened before the remote was set, in steps that are a transaction each.

How far it has come is stored with the events of each step, so that a kill in between neither loses nor repeats any. Sessions
come first, in the order of their keys: the beginning, the messages, the end if it was over. Then figures, then what agents did.
The expiry of a session is told in the step of its beginning even if messages are left: its name may have another life by then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa

from .. import clock
from ..config import DEFAULT_MAX_OUTBOX_BYTES
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import ConfigError
from ..remote import events
from ..values import EXPIRED_STATUS, MAX_SEQ, OPEN_STATUS, SEQ_BITS, Message, SessionInfo
from . import message_rows, messages, outbox, sessions, subscription
from .dialect import NO_OFFSET, as_stored
from .statements import text_of
from .subscription import Subscription
from .tables import (
    AGENT_ACTIVITY,
    AGENTS,
    MESSAGE_COLUMNS,
    MESSAGES,
    METRIC_EVENTS,
    SESSION_COLUMNS,
    SESSIONS,
    STORE_INFO,
    SYNC_STATE,
)

_MOST_SESSIONS: Final = 100
_MOST_ROWS: Final = 2_000
_MOST_CHARS: Final = 4 << 20
# Of a small outbox a step fills a quarter at the most, if an event has so many bytes.
_USUAL_BYTES: Final = 1_024
_ID: Final = 0

Outcome = Literal["more", "stopped", "done"]


class Step(NamedTuple):
    """What a step added, and whether there is more; "stopped" if there is, but no room or no session left to take."""

    sessions: int
    events: int
    outcome: Outcome


@dataclass(slots=True)
class _Room:
    """How much a step may still take; the first row always fits."""

    rows: int
    chars: int
    taken: int = 0

    def take(self, chars: int) -> bool:
        """Whether a row with so many characters fits."""
        if self.taken and (self.taken >= self.rows or chars > self.chars):
            return False
        self.taken += 1
        self.chars -= chars
        return True


@dataclass(slots=True)
class _Part:
    """What a step tells of one table, and how far it has come with it; `over` if nothing is left there."""

    cursor: int
    events: list[events.Event] = field(default_factory=list)
    sessions: int = 0
    over: bool = False


class _Task(NamedTuple):
    """What a step is about; `since` is when the remote was set, a stored instant."""

    told: Subscription
    since: str
    most_sessions: int

    @property
    def quota(self) -> int:
        """How large the outbox may become."""
        return self.told.max_bytes or DEFAULT_MAX_OUTBOX_BYTES

    def room(self) -> _Room:
        """What a step may take."""
        quarter = self.quota // 4
        return _Room(min(_MOST_ROWS, quarter // _USUAL_BYTES), min(_MOST_CHARS, quarter))


def step(db: Transaction, *, most_sessions: int | None = None) -> Step:
    """Add the next events.

    Args:
        db: The transaction.
        most_sessions: So many sessions may be begun; None for any number.

    Raises:
        ConfigError: The store has no remote.
    """
    told = subscription.current(db)
    if told.url is None:
        raise ConfigError("remote: the store has none, so there is nobody to tell; set one first")
    state = db.core.execute(_STATE).one()
    if state.remote_since is None:
        return Step(0, 0, "done")
    task = _Task(told, state.remote_since, _MOST_SESSIONS if most_sessions is None else min(most_sessions, _MOST_SESSIONS))
    for column, tell in _PARTS.items():
        part = tell(db, task, getattr(state, column))
        if part.events and outbox.held_bytes(db) > task.quota // 2:
            return Step(0, 0, "stopped")
        db.core.execute(sa.update(SYNC_STATE).values({column: part.cursor}))
        if part.events:
            outbox.enqueue(db, part.events)
            return Step(part.sessions, len(part.events), "more")
        if not part.over:
            return Step(0, 0, "stopped")
    return Step(0, 0, "done")


def _sessions(db: Transaction, task: _Task, cursor: int) -> _Part:
    """Sessions with their messages.

    The cursor is the id of the last message that was told. A session is done when that is the last id that it can have.
    """
    resumed = None if cursor & MAX_SEQ == MAX_SEQ else cursor >> SEQ_BITS
    first = cursor >> SEQ_BITS if resumed is not None else (cursor >> SEQ_BITS) + 1
    rows = db.driver.execute(_sessions_query(), (first, task.since, _MOST_SESSIONS + 1)).fetchall()
    part = _Part(cursor)
    room = task.room()
    for row in rows[:_MOST_SESSIONS]:
        key, info = row[sessions.KEY], sessions.info(row, ())
        if key != resumed:
            if part.sessions == task.most_sessions or room.taken >= room.rows:
                return part
            part.sessions += 1
            part.events.append(events.conversation_started(info))
            part.cursor = message_rows.first_id(key)
        whole = _tell_messages(db, task, part, room, key, info)
        if key != resumed:
            part.events += _expiry(info, task.since)
        if not whole:
            return part
        part.events += _end(info, task.since)
        part.cursor = message_rows.last_id(key)
    if len(rows) <= _MOST_SESSIONS:
        newest = db.core.execute(sa.select(sa.func.max(SESSIONS.c.session_key))).scalar_one()
        part.cursor = max(part.cursor, message_rows.last_id(newest or 0))
        part.over = True
    return part


def _tell_messages(db: Transaction, task: _Task, part: _Part, room: _Room, key: int, info: SessionInfo) -> bool:
    """Tell the messages of a session behind the cursor; False if some of them are left for the next step."""
    if not info.last_seq:
        return True
    found = []
    whole = True
    query = _messages_query(task.told.sync_messages)
    for row in db.driver.execute(query, (part.cursor, message_rows.last_id(key), task.since)):
        if not room.take(sum(len(value) for value in row if isinstance(value, str))):
            whole = False
            break
        found.append(row)
    told = messages.intact(db, info.session_id, found)
    part.events += _about_messages(task.told, info, told)
    if found:
        part.cursor = found[-1][_ID]
    return whole


def _about_messages(told: Subscription, info: SessionInfo, found: Iterable[Message]) -> Iterable[events.Event]:
    """As they are told when they are appended."""
    if told.sync_messages:
        return [events.message_told(info.namespace, info.agent_id, info.created_at, message) for message in found]
    wanted = (message for message in found if message.has_figures)
    return [events.message_figures(info.namespace, info.agent_id, info.created_at, message) for message in wanted]


def _expiry(info: SessionInfo, since: str) -> tuple[events.Event, ...]:
    """The expiry of a session, if its life was over when the remote was set."""
    return (events.conversation_expired(info),) if info.status == EXPIRED_STATUS and _was_over(info, since) else ()


def _end(info: SessionInfo, since: str) -> tuple[events.Event, ...]:
    """The end of a session, if it was ended when the remote was set."""
    if info.status in (OPEN_STATUS, EXPIRED_STATUS) or not _was_over(info, since):
        return ()
    # What was said at its end stands among its metadata, which its beginning told.
    return (events.conversation_ended(info, None),)


def _was_over(info: SessionInfo, since: str) -> bool:
    return clock.to_text(info.ended_at or info.updated_at) < since


def _figures(db: Transaction, task: _Task, cursor: int) -> _Part:
    """Figures that programs recorded. The cursor is the id of the last one."""
    return _rows(db, task, cursor, METRIC_EVENTS, _figures_query(), _about_figure)


def _about_figure(row: tuple[Any, ...]) -> events.Event:
    _, namespace, occurred_at, attributes, name, value, unit, agent_id, session_id = row
    return events.metric(
        namespace,
        clock.from_text(occurred_at),
        name=name,
        value=value,
        unit=unit,
        agent_id=agent_id,
        session_id=session_id,
        attributes=attributes,
    )


def _activity(db: Transaction, task: _Task, cursor: int) -> _Part:
    """What agents did. The cursor is the id of the last entry."""
    return _rows(db, task, cursor, AGENT_ACTIVITY, _activity_query(), _about_activity)


def _about_activity(row: tuple[Any, ...]) -> events.Event:
    _, namespace, occurred_at, details, agent_id, kind, action, status, previous_status, duration, sdk_version = row
    at, said = clock.from_text(occurred_at), decoded(details) if details else None
    if kind == "registered":
        return events.agent_registered(namespace, agent_id, at, sdk_version=sdk_version, metadata=said)
    if kind == "status":
        return events.agent_status(namespace, agent_id, at, status=status, previous_status=previous_status, metadata=said)
    return events.agent_activity(namespace, agent_id, at, action=action, details=said, duration=duration)


def _rows(
    db: Transaction, task: _Task, cursor: int, table: sa.Table, query: str, about: Callable[[tuple[Any, ...]], events.Event]
) -> _Part:
    """The next rows of a table, each of which is an event."""
    part = _Part(cursor)
    room = task.room()
    for row in db.driver.execute(query, (cursor, task.since)):
        if not room.take(sum(len(value) for value in row if isinstance(value, str))):
            return part
        part.events.append(about(row))
        part.cursor = row[_ID]
    newest = db.core.execute(sa.select(sa.func.max(table.c.id))).scalar_one()
    part.cursor = max(part.cursor, newest or 0)
    part.over = True
    return part


_PARTS: Final = {"backfilled_sessions": _sessions, "backfilled_metrics": _figures, "backfilled_activity": _activity}
_STATE: Final = sa.select(as_stored(STORE_INFO.c.remote_since), *(SYNC_STATE.c[column] for column in _PARTS)).select_from(
    sa.join(STORE_INFO, SYNC_STATE, STORE_INFO.c.id == SYNC_STATE.c.id)
)


def _before(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    return sa.type_coerce(column, sa.String) < sa.bindparam("since")


@functools.cache
def _sessions_query() -> str:
    columns = [as_stored(column) for column in SESSION_COLUMNS]
    found = sa.select(*columns).where(SESSIONS.c.session_key >= sa.bindparam("first"), _before(SESSIONS.c.created_at))
    return text_of(found.order_by(SESSIONS.c.session_key).limit(sa.bindparam("most")).offset(NO_OFFSET))


@functools.cache
def _messages_query(with_plain_ones: bool) -> str:
    ids = (MESSAGES.c.id > sa.bindparam("after"), MESSAGES.c.id <= sa.bindparam("last"))
    found = sa.select(*(as_stored(column) for column in MESSAGE_COLUMNS)).where(*ids, _before(MESSAGES.c.created_at))
    if not with_plain_ones:
        found = found.where(MESSAGES.c.facts.is_not(None))
    return text_of(found.order_by(MESSAGES.c.id))


@functools.cache
def _figures_query() -> str:
    """Figures of moments before the remote was set, and those of later ones that were stored by then."""
    table = METRIC_EVENTS.c
    more = (table.name, table.value, table.unit, table.agent_id, table.session_id)
    kept = sa.type_coerce(table.attributes, sa.String)
    # They go into the event as they stand: damaged ones would make it one that nobody can read.
    sound = sa.case((sa.func.json_valid(kept), kept))
    columns = [*map(as_stored, (table.id, table.namespace, table.occurred_at)), sound, *map(as_stored, more)]
    was_there = table.id <= sa.select(STORE_INFO.c.remote_after_metric).scalar_subquery()
    found = sa.select(*columns).where(table.id > sa.bindparam("after"), sa.or_(_before(table.occurred_at), was_there))
    return text_of(found.order_by(table.id))


@functools.cache
def _activity_query() -> str:
    """Entries of the log; what an agent runs on is known of its last registration only."""
    table = AGENT_ACTIVITY.c
    more = (table.agent_id, table.kind, table.action, table.status, table.previous_status, table.duration_seconds)
    columns = [as_stored(column) for column in (table.id, table.namespace, table.occurred_at, table.details, *more)]
    same = (AGENTS.c.namespace == table.namespace, AGENTS.c.agent_id == table.agent_id, AGENTS.c.registered_at == table.occurred_at)
    found = sa.select(*columns, AGENTS.c.sdk_version).select_from(sa.outerjoin(AGENT_ACTIVITY, AGENTS, sa.and_(*same)))
    return text_of(found.where(table.id > sa.bindparam("after"), _before(table.occurred_at)).order_by(table.id))
