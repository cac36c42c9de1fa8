"""What a collector answers about conversations and agents: those of a place, which may have many namespaces."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from ...content import decoded
from ...database.transaction import Transaction
from ...values import SessionInfo
from ...values.agents import Activity, AgentInfo, OperationsOverview
from .. import agents, sessions
from ..catalog_statements import TAGS_AS_JSON
from ..dialect import as_stored
from ..statements import compiled
from ..tables import HOLDS_NAME, IN_TIME, IS_OPEN, SESSION_COLUMNS, SESSIONS, SYNC_STATE
from .arrivals import Place

_TOUCH: Final = compiled(sa.update(SYNC_STATE).values(failures=SYNC_STATE.c.failures), ())
_ROW: Final = (*(as_stored(column) for column in SESSION_COLUMNS), TAGS_AS_JSON)
_IS_OVER: Final = SESSIONS.c.status == sa.literal_column("'expired'")
_BEGINNING: Final = sa.type_coerce(SESSIONS.c.created_at, sa.String)


def conversation(db: Transaction, place: Place, session_id: str) -> SessionInfo | None:
    """The newest conversation of a name, live or over."""
    named = sa.select(SESSIONS.c.session_key).where(_within(place), SESSIONS.c.session_id == session_id)
    # Each half has an index of its own.
    keys = sa.union_all(named.where(HOLDS_NAME), named.where(_IS_OVER))
    lives = sa.select(*_ROW).where(SESSIONS.c.session_key.in_(keys))
    found = _sessions(db, lives.order_by(_BEGINNING.desc(), SESSIONS.c.session_key.desc()).limit(1))
    return found[0] if found else None


def active(db: Transaction, place: Place, *, agent_id: str | None, limit: int) -> list[SessionInfo]:
    """The open conversations, the newest first, at most so many."""
    found = sa.select(*_ROW).where(_within(place), IS_OPEN, IN_TIME).params(at=db.now_text)
    if agent_id is not None:
        found = found.where(SESSIONS.c.agent_id == agent_id)
    return _sessions(db, found.order_by(_BEGINNING.desc(), SESSIONS.c.session_key.desc()).limit(limit))


def agent(db: Transaction, place: Place, agent_id: str) -> AgentInfo | None:
    """The agent of a name that was heard of last."""
    return agents.find(db, place.namespace, agent_id, namespace_end=place.end)


def alive(db: Transaction, place: Place) -> list[AgentInfo]:
    """The agents that are not offline, by their ids."""
    found = agents.find_all(db, place.namespace, namespace_end=place.end)
    return [each for each in found if each.status != "offline"]


def activity(db: Transaction, place: Place, *, agent_id: str | None, limit: int) -> list[Activity]:
    """What agents did, the newest first."""
    return list(agents.activity(db, place.namespace, namespace_end=place.end, agent_id=agent_id, limit=limit))


def operations(db: Transaction, place: Place) -> OperationsOverview:
    """What goes on among the agents of all namespaces."""
    return agents.overview(db, place.namespace, namespace_end=place.end)


def is_writable(db: Transaction) -> bool:
    """True, after a write that changes nothing; else an error says why the file cannot be written."""
    db.driver.execute(_TOUCH)
    return True


def _within(place: Place) -> sa.ColumnElement[bool]:
    column = SESSIONS.c.namespace
    return column == place.namespace if place.end is None else sa.and_(column >= place.namespace, column < place.end)


def _sessions(db: Transaction, query: sa.Select[Any]) -> list[SessionInfo]:
    return [sessions.info(row[:-1], tuple(decoded(row[-1])), at=db.now_text) for row in db.core.execute(query)]
