"""The statements of the collector, compiled once from the models."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from ..dialect import CrossJoin, as_stored
from ..statements import compiled
from ..tables import AGENT_ACTIVITY, AGENTS, MESSAGE_COLUMNS, MESSAGES, METRIC_EVENTS, RECEIVED, SESSIONS

_EXPIRED: Final[sa.ColumnElement[str]] = sa.literal_column("'expired'")


def _in_order(table: sa.Table, *names: str) -> tuple[str, ...]:
    """Names of columns as the table has them, which is the order of a statement's parameters."""
    return tuple(column.name for column in table.c if column.name in names)


COUNTED: Final = _in_order(SESSIONS, "updated_at", "message_count", "next_seq")
CHANGED: Final = _in_order(SESSIONS, *COUNTED, "status", "created_at", "ended_at", "user_id", "agent_id", "metadata",
                           "quality_score", "error", "feedback", "reported_message_count", "tracked")  # fmt: skip
LOADED: Final = _in_order(SESSIONS, *CHANGED, "session_key", "namespace", "session_id")
MADE: Final = _in_order(SESSIONS, *CHANGED, "namespace", "session_id", "pinned", "version")
_RECEIVED: Final = ("tenant", "key", "body_hash", "received_at")
AGENT: Final = tuple(column.name for column in AGENTS.c)
_ACTIVITY: Final = tuple(column.name for column in AGENT_ACTIVITY.c if column.name != "id")


def _values(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: sa.bindparam(name) for name in names}


def _sessions_of_names() -> sa.CompoundSelect[Any]:
    """The sessions of many names, given as a JSON array of pairs; each half has an index of its own."""
    halves = []
    for condition in (SESSIONS.c.status != _EXPIRED, SESSIONS.c.status == _EXPIRED):
        named = sa.func.json_each(sa.bindparam("names")).table_valued("value", name="named")
        part = [sa.func.json_extract(named.c.value, sa.literal_column(f"'$[{index}]'")) for index in (0, 1)]
        on = sa.and_(SESSIONS.c.namespace == part[0], SESSIONS.c.session_id == part[1], condition)
        halves.append(sa.select(*(as_stored(SESSIONS.c[name]) for name in LOADED)).select_from(CrossJoin(named, SESSIONS, on)))
    return sa.union_all(*halves)


def _received() -> sa.Select[Any]:
    given = sa.func.json_each(sa.bindparam("keys")).table_valued("value", name="given")
    on = sa.and_(RECEIVED.c.tenant == sa.bindparam("tenant"), RECEIVED.c.key == given.c.value)
    return sa.select(RECEIVED.c.key, RECEIVED.c.body_hash).select_from(CrossJoin(given, RECEIVED, on))


_NAMED_AGENT: Final = sa.and_(AGENTS.c.namespace == sa.bindparam("ns"), AGENTS.c.agent_id == sa.bindparam("agent"))

# The names are given twice, to each half.
SESSIONS_OF_NAMES: Final = compiled(_sessions_of_names(), ("names", "names"))
MAKE_SESSION: Final = compiled(sa.insert(SESSIONS).values(_values(MADE)), MADE)
CHANGE_SESSION: Final = compiled(
    sa.update(SESSIONS)
    .values({**_values(CHANGED), "version": SESSIONS.c.version + sa.literal_column("1")})
    .where(SESSIONS.c.session_key == sa.bindparam("key_")),
    (*CHANGED, "key_"),
)
COUNT_MESSAGES: Final = compiled(
    sa.update(SESSIONS).values(_values(COUNTED)).where(SESSIONS.c.session_key == sa.bindparam("key_")),
    (*COUNTED, "key_"),
)
KNOWN_EVENTS: Final = compiled(_received(), ("keys", "tenant"))
NOTE_EVENT: Final = compiled(sa.insert(RECEIVED).values(_values(_RECEIVED)), _RECEIVED)
PUT_MESSAGE: Final = compiled(
    sa.insert(MESSAGES).prefix_with("OR REPLACE").values(_values(tuple(column.name for column in MESSAGE_COLUMNS))),
    tuple(column.name for column in MESSAGE_COLUMNS),
)
MESSAGE_BY_ID: Final = compiled(
    sa.select(*(as_stored(column) for column in MESSAGE_COLUMNS)).where(MESSAGES.c.id == sa.bindparam("id_")),
    ("id_",),
)
DELETE_METRICS: Final = compiled(
    sa.delete(METRIC_EVENTS).where(
        METRIC_EVENTS.c.namespace == sa.bindparam("namespace"), METRIC_EVENTS.c.session_id == sa.bindparam("session_id")
    ),
    ("namespace", "session_id"),
)
FIND_AGENT: Final = compiled(sa.select(*(as_stored(AGENTS.c[name]) for name in AGENT)).where(_NAMED_AGENT), ("ns", "agent"))
PUT_AGENT: Final = compiled(sa.insert(AGENTS).prefix_with("OR REPLACE").values(_values(AGENT)), AGENT)
NOTE_ACTIVITY: Final = compiled(sa.insert(AGENT_ACTIVITY).values(_values(_ACTIVITY)), _ACTIVITY)
