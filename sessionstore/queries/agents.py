"""Agents: what they say of themselves, what they did, and how they are seen now.

Registering, telling a status and logging an activity are signs of life. Each is kept, and told to the remote, in the
transaction that notes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from ..database.transaction import Transaction
from ..inputs import MAX_METADATA_BYTES, json_object
from ..remote import events
from ..values import ACTIVITY_KINDS, AGENT_STATUSES, AgentStatus
from ..values.agents import Activity, ActivityCounts, AgentConversations, AgentInfo, OperationsOverview
from . import outbox, subscription
from .tables import AGENT_ACTIVITY, AGENTS, IN_TIME, IS_OPEN, SESSIONS

_DAY: Final = timedelta(hours=24)
_REGISTERED: Final = "registered"
_STATUS: Final = "status"
_ACTIVITY: Final = "activity"

_NEWEST_OF_ITS_SESSIONS: Final = (
    sa.select(sa.func.max(SESSIONS.c.updated_at))
    .where(SESSIONS.c.namespace == AGENTS.c.namespace, SESSIONS.c.agent_id == AGENTS.c.agent_id)
    .correlate(AGENTS)
    .scalar_subquery()
    .label("session_at")
)


def register(
    db: Transaction,
    namespace: str,
    agent_id: str,
    *,
    sdk_version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    stale_after: float,
) -> AgentInfo:
    """Note that an agent registered; what it said at an earlier registration is replaced."""
    known = _stored(db, namespace, agent_id)
    said = None if known is None else known.status
    status = AgentStatus.ACTIVE if said in (None, AgentStatus.OFFLINE) else AgentStatus(said)
    values = {"sdk_version": sdk_version, "metadata": dict(metadata or {}), "registered_at": db.now}
    _keep(db, namespace, agent_id, known, {**_change(db, known, status, said), **values}, stale_after)
    _note(db, namespace, agent_id, _REGISTERED, _REGISTERED, status=status, previous_status=said, details=metadata)
    if subscription.is_wanted(db):
        registered = events.agent_registered(namespace, agent_id, db.now, sdk_version=sdk_version, metadata=metadata)
        outbox.enqueue(db, (registered,))
    return _found(db, namespace, agent_id)


def set_status(
    db: Transaction,
    namespace: str,
    agent_id: str,
    status: str,
    *,
    previous_status: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    stale_after: float,
) -> AgentInfo:
    """Note what an agent says of itself; one that is not known is made.

    Raises:
        InvalidInputError: Its metadata would become too large.
    """
    known = _stored(db, namespace, agent_id)
    before = previous_status or (None if known is None else known.status)
    changes = _change(db, known, status, before, told=previous_status is not None)
    if metadata is not None:
        changes["metadata"] = merged = {**((known and known.metadata) or {}), **metadata}
        json_object("metadata", merged, max_bytes=MAX_METADATA_BYTES)
    _keep(db, namespace, agent_id, known, changes, stale_after)
    _note(db, namespace, agent_id, _STATUS, _STATUS, status=status, previous_status=before, details=metadata)
    if subscription.is_wanted(db):
        told = events.agent_status(namespace, agent_id, db.now, status=status, previous_status=before, metadata=metadata)
        outbox.enqueue(db, (told,))
    return _found(db, namespace, agent_id)


def log_activity(
    db: Transaction,
    namespace: str,
    agent_id: str,
    action: str,
    details: Mapping[str, Any] | None = None,
    *,
    duration: float | None = None,
    stale_after: float,
) -> Activity:
    """Note what an agent did; one that is not known is made, active."""
    known = _stored(db, namespace, agent_id)
    made = _change(db, known, AgentStatus.ACTIVE, None) if known is None else {}
    _keep(db, namespace, agent_id, known, made, stale_after)
    noted = _note(db, namespace, agent_id, _ACTIVITY, action, details=details, duration=duration)
    if subscription.is_wanted(db):
        told = events.agent_activity(namespace, agent_id, db.now, action=action, details=details, duration=duration)
        outbox.enqueue(db, (told,))
    return noted


def find(db: Transaction, namespace: str, agent_id: str, *, namespace_end: str | None = None) -> AgentInfo | None:
    """An agent as it is seen now; of several namespaces the one that was heard of last."""
    found = [_info(db, row) for row in db.core.execute(_agents(namespace, namespace_end).where(AGENTS.c.agent_id == agent_id))]
    return max(found, key=lambda each: each.last_seen_at, default=None)


def find_all(
    db: Transaction, namespace: str, *, namespace_end: str | None = None, status: str | None = None
) -> tuple[AgentInfo, ...]:
    """The agents as they are seen now, by their ids; with `namespace_end` those of all namespaces that sort before it."""
    rows = db.core.execute(_agents(namespace, namespace_end).order_by(AGENTS.c.agent_id, AGENTS.c.namespace))
    seen = (_info(db, row) for row in rows)
    return tuple(each for each in seen if status is None or each.status == status)


def activity(
    db: Transaction,
    namespace: str,
    *,
    namespace_end: str | None = None,
    agent_id: str | None = None,
    limit: int = 50,
    kind: str | None = None,
) -> tuple[Activity, ...]:
    """What agents did, newest first."""
    table = AGENT_ACTIVITY
    query = sa.select(table).where(_within(table, namespace, namespace_end)).order_by(table.c.occurred_at.desc(), table.c.id.desc())
    for column, wanted in ((table.c.agent_id, agent_id), (table.c.kind, kind)):
        if wanted is not None:
            query = query.where(column == wanted)
    return tuple(_activity(row._mapping) for row in db.core.execute(query.limit(limit)))  # noqa: SLF001 - SQLAlchemy's name


def overview(db: Transaction, namespace: str, *, namespace_end: str | None = None) -> OperationsOverview:
    """What goes on among the agents."""
    by_status = dict.fromkeys(AGENT_STATUSES, 0)
    for agent in find_all(db, namespace, namespace_end=namespace_end):
        by_status[agent.status.value] += 1
    live = _live_conversations(db, _within(SESSIONS, namespace, namespace_end))
    log = _within(AGENT_ACTIVITY, namespace, namespace_end)
    last = db.core.execute(sa.select(sa.func.max(AGENT_ACTIVITY.c.occurred_at)).where(log)).scalar_one()
    return OperationsOverview(
        total_agents=sum(by_status.values()),
        active_agents=sum(by_status.values()) - by_status[AgentStatus.OFFLINE],
        by_status=by_status,
        last_activity_at=None if last is None else last.isoformat(),
        activity_24h=_activity_counts(db, log),
        live_conversations=sum(live.values()),
        by_agent=[AgentConversations(agent_id=agent_id, live=count) for agent_id, count in live.items() if agent_id is not None],
    )


def _within(table: sa.Table, namespace: str, namespace_end: str | None) -> sa.ColumnElement[bool]:
    """What is of a namespace, or with an end of all from it on that sort before that."""
    column = table.c.namespace
    return column == namespace if namespace_end is None else sa.and_(column >= namespace, column < namespace_end)


def _agents(namespace: str, namespace_end: str | None = None) -> sa.Select[Any]:
    return sa.select(AGENTS, _NEWEST_OF_ITS_SESSIONS).where(_within(AGENTS, namespace, namespace_end))


def _stored(db: Transaction, namespace: str, agent_id: str) -> sa.Row[Any] | None:
    query = sa.select(AGENTS).where(AGENTS.c.namespace == namespace, AGENTS.c.agent_id == agent_id)
    return db.core.execute(query).one_or_none()


def _found(db: Transaction, namespace: str, agent_id: str) -> AgentInfo:
    return _info(db, db.core.execute(_agents(namespace).where(AGENTS.c.agent_id == agent_id)).one())


def _change(
    db: Transaction, known: sa.Row[Any] | None, status: str, previous_status: str | None, *, told: bool = False
) -> dict[str, Any]:
    """The columns of a status. One that is merely repeated keeps since when it is so, and what was before unless that is told."""
    if known is None or known.status != status:
        return {"status": status, "previous_status": previous_status, "status_at": db.now}
    return {"previous_status": previous_status} if told and previous_status != status else {}


def _keep(
    db: Transaction, namespace: str, agent_id: str, known: sa.Row[Any] | None, changes: Mapping[str, Any], stale_after: float
) -> None:
    """Store a sign of life, and what changed with it."""
    values = {**changes, "last_seen_at": db.now, "stale_after_seconds": stale_after}
    if known is None:
        db.core.execute(sa.insert(AGENTS).values(namespace=namespace, agent_id=agent_id, **values))
    else:
        mine = sa.and_(AGENTS.c.namespace == namespace, AGENTS.c.agent_id == agent_id)
        db.core.execute(sa.update(AGENTS).where(mine).values(values))


def _note(
    db: Transaction,
    namespace: str,
    agent_id: str,
    kind: str,
    action: str,
    *,
    status: str | None = None,
    previous_status: str | None = None,
    details: Mapping[str, Any] | None = None,
    duration: float | None = None,
) -> Activity:
    """Store an entry of the log."""
    row = {
        "namespace": namespace,
        "agent_id": agent_id,
        "kind": kind,
        "action": action,
        "status": None if status is None else str(status),
        "previous_status": previous_status,
        "details": None if details is None else dict(details),
        "duration_seconds": duration,
        "occurred_at": db.now,
    }
    db.core.execute(sa.insert(AGENT_ACTIVITY).values(row))
    return _activity(row)


def _info(db: Transaction, row: sa.Row[Any]) -> AgentInfo:
    last_seen_at = row.last_seen_at if row.session_at is None else max(row.last_seen_at, row.session_at)
    is_stale = db.now - last_seen_at >= timedelta(seconds=row.stale_after_seconds)
    reported = AgentStatus(row.status)
    return AgentInfo(
        namespace=row.namespace,
        agent_id=row.agent_id,
        status=AgentStatus.OFFLINE if is_stale else reported,
        reported_status=reported,
        previous_status=_status(row.previous_status),
        sdk_version=row.sdk_version,
        metadata=row.metadata or {},
        registered_at=row.registered_at,
        status_at=row.status_at,
        last_seen_at=last_seen_at,
        stale_after=row.stale_after_seconds,
    )


def _activity(row: Mapping[Any, Any]) -> Activity:
    return Activity(
        namespace=row["namespace"],
        agent_id=row["agent_id"],
        kind=row["kind"],
        action=row["action"],
        status=_status(row["status"]),
        previous_status=_status(row["previous_status"]),
        details=row["details"] or {},
        duration=row["duration_seconds"],
        occurred_at=row["occurred_at"],
    )


def _status(word: str | None) -> AgentStatus | None:
    return None if word is None else AgentStatus(word)


def _activity_counts(db: Transaction, log: sa.ColumnElement[bool]) -> ActivityCounts:
    table = AGENT_ACTIVITY
    recent = sa.and_(log, table.c.occurred_at > db.now - _DAY)
    rows = db.core.execute(sa.select(table.c.kind, sa.func.count()).where(recent).group_by(table.c.kind))
    counts = dict.fromkeys(ACTIVITY_KINDS, 0) | {row.kind: row[1] for row in rows}
    return ActivityCounts(
        total=sum(counts.values()), registered=counts[_REGISTERED], status=counts[_STATUS], activity=counts[_ACTIVITY]
    )


def _live_conversations(db: Transaction, mine: sa.ColumnElement[bool]) -> dict[str | None, int]:
    """How many open sessions each agent has; those of none stand under None."""
    live = sa.and_(mine, IS_OPEN, IN_TIME)
    query = sa.select(SESSIONS.c.agent_id, sa.func.count()).where(live).group_by(SESSIONS.c.agent_id).order_by(SESSIONS.c.agent_id)
    return {row.agent_id: row[1] for row in db.core.execute(query, {"at": db.now_text})}
