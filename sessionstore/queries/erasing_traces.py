"""What names sessions outside of their own rows: events in the outbox, figures, what agents did and are, notes of copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from .. import clock
from ..database.transaction import Transaction
from ..inputs import encode_json
from ..remote.events import AGENT_ACTIVITY as ACTIVITY_EVENT
from ..remote.events import AGENT_REGISTERED, AGENT_STATUS, ERASE, METRIC, session_stream
from . import copying, outbox_upkeep
from .dialect import as_stored, in_json, json_text
from .tables import AGENT_ACTIVITY, AGENTS, HOLDS, METRIC_EVENTS, OUTBOX, RECEIVED, SESSIONS

_STREAM_PREFIX: Final = session_stream("")
# An emptied event tells nobody's name either.
_NOBODYS: Final = ""
_UNDELIVERED: Final = ("pending", "dead")
_ADDED_TO: Final = {ACTIVITY_EVENT: ".details", METRIC: ".attributes", AGENT_REGISTERED: ".metadata", AGENT_STATUS: ".metadata"}
# A tenant of copies sorts between the two.
_COPIES: Final = (copying.TENANT, copying.TENANT[:-1] + ";")


class Span(NamedTuple):
    """A time, in stored instants: from the first on, before the second."""

    begin: str
    end: str


@dataclass(frozen=True, slots=True)
class Removed:
    """How much was removed, and the names that sessions had before they were renamed, as far as events tell."""

    events: int
    metrics: int
    activity: int
    former_names: tuple[str, ...]


def remove(
    db: Transaction,
    namespace: str,
    names: Sequence[str],
    spans: Mapping[str, Sequence[Span]],
    *,
    begun: Iterable[str],
    user_id: str | None,
) -> Removed:
    """Remove what names sessions that are gone.

    Args:
        db: The transaction.
        namespace: Where.
        names: Their names.
        spans: For names that others have, too: when they meant what is gone.
        begun: When these sessions began, as it is stored.
        user_id: A user who is not to be named either.
    """
    whole = encode_json([name for name in names if name not in spans])
    streams = encode_json([session_stream(name) for name in names if name not in spans])
    spans_of_streams = {session_stream(name): spans[name] for name in spans}
    former = _former(db, namespace, begun)
    ids = [*_in_spans(db, OUTBOX, OUTBOX.c.stream, namespace, spans_of_streams), *(identity for identity, _ in former)]
    ids += [] if user_id is None else _of_lives(db, namespace, _begun_by(db, namespace, user_id))
    events = sum(
        _empty(db, namespace, condition)
        for condition in (in_json(OUTBOX.c.stream, streams), in_json(OUTBOX.c.id, encode_json(ids)), _of_agents(whole, user_id))
    )
    db.gauge.forget()
    outbox_upkeep.take_from_senders(db, namespace, [session_stream(name) for name in names])
    db.core.execute(sa.delete(HOLDS).where(HOLDS.c.token.is_(None), HOLDS.c.held_until <= db.now))
    return Removed(
        events,
        _remove_figures(db, namespace, whole, spans, user_id),
        _remove_details(db, namespace, whole, user_id),
        tuple(sorted({name for _, name in former} - set(names))),
    )


def _remove_figures(db: Transaction, namespace: str, names: str, spans: Mapping[str, Sequence[Span]], user_id: str | None) -> int:
    ids = encode_json(_in_spans(db, METRIC_EVENTS, METRIC_EVENTS.c.session_id, namespace, spans))
    named = sa.or_(
        in_json(METRIC_EVENTS.c.session_id, names),
        in_json(METRIC_EVENTS.c.id, ids),
        _names_them(METRIC_EVENTS.c.attributes, "", names, user_id),
    )
    return db.core.execute(sa.delete(METRIC_EVENTS).where(METRIC_EVENTS.c.namespace == namespace, named)).rowcount


def _remove_details(db: Transaction, namespace: str, names: str, user_id: str | None) -> int:
    count = 0
    for table, column in ((AGENT_ACTIVITY, AGENT_ACTIVITY.c.details), (AGENTS, AGENTS.c.metadata)):
        named = sa.and_(table.c.namespace == namespace, _names_them(column, "", names, user_id))
        count += db.core.execute(sa.update(table).where(named).values({column: sa.null()})).rowcount
    return count


def forget_copies(db: Transaction, keys: Iterable[int]) -> None:
    """Delete what was noted when sessions were copied into this store: hashes of their content."""
    copies = in_json(sa.func.hex(sa.func.substr(RECEIVED.c.body_hash, 1, 8)), encode_json([f"{key:016X}" for key in keys]))
    begin, end = _COPIES
    db.core.execute(sa.delete(RECEIVED).where(RECEIVED.c.tenant >= begin, RECEIVED.c.tenant < end, copies))


def _of_agents(names: str, user_id: str | None) -> sa.ColumnElement[bool]:
    """Events of agents, and figures of no session, that name a session in what the caller added."""
    return sa.or_(
        *(sa.and_(OUTBOX.c.kind == kind, _names_them(OUTBOX.c.body, within, names, user_id)) for kind, within in _ADDED_TO.items())
    )


def _names_them(column: sa.Column[Any], within: str, names: str, user_id: str | None) -> sa.ColumnElement[bool]:
    """Whether a JSON object has one of the names, or the user's, under the usual key."""
    named = in_json(json_text(column, f"${within}.session_id"), names)
    return named if user_id is None else sa.or_(named, json_text(column, f"${within}.user_id") == user_id)


def _empty(db: Transaction, namespace: str, condition: sa.ColumnElement[bool]) -> int:
    """Empty events that are not delivered, and let them belong to nobody; those that tell to erase are kept."""
    told = sa.and_(OUTBOX.c.namespace == namespace, condition, OUTBOX.c.kind != ERASE)
    undelivered = sa.and_(told, OUTBOX.c.state.in_(_UNDELIVERED))
    emptied = {"state": "erased", "body": "", "size_bytes": 0, "settled_at": db.now, "next_at": None, "last_error": None}
    count = db.core.execute(sa.update(OUTBOX).where(undelivered).values(stream=_NOBODYS, **emptied)).rowcount
    # Those that were emptied before say nothing more, but whose they were.
    db.core.execute(sa.update(OUTBOX).where(told).values(stream=_NOBODYS))
    return count


def _in_spans(
    db: Transaction, table: sa.Table, name: sa.Column[Any], namespace: str, spans: Mapping[str, Sequence[Span]]
) -> list[int]:
    """The ids of rows that have some names and happened while these meant what is gone."""
    named = sa.and_(table.c.namespace == namespace, in_json(name, encode_json(list(spans))))
    rows = db.core.execute(sa.select(table.c.id, name, as_stored(table.c.occurred_at)).where(named)) if spans else ()
    return [row_id for row_id, named, at in rows if any(span.begin <= at < span.end for span in spans[named])]


def names_of_user(db: Transaction, namespace: str, user_id: str) -> list[str]:
    """The names of a user's sessions that were deleted, as far as events tell that wait, but those that others have now."""
    return _untaken(db, namespace, (stream.removeprefix(_STREAM_PREFIX) for stream, _ in _begun_by(db, namespace, user_id)))


def _begun_by(db: Transaction, namespace: str, user_id: str) -> list[tuple[str, str]]:
    """The streams and beginnings of sessions that events tell of as a user's, but those that are another's now."""
    began = json_text(OUTBOX.c.body, "$.start_time")
    found = sa.select(OUTBOX.c.stream, began).where(
        _waits_about_sessions(namespace), json_text(OUTBOX.c.body, "$.user_id") == user_id, began.is_not(None)
    )
    lives = [(stream, start) for stream, start in db.core.execute(found.distinct())]
    begun = as_stored(SESSIONS.c.created_at)
    starts = encode_json(sorted({clock.to_text(datetime.fromisoformat(start)) for _, start in lives}))
    passed_on = sa.select(begun).where(
        SESSIONS.c.namespace == namespace, in_json(begun, starts), SESSIONS.c.user_id.is_distinct_from(user_id)
    )
    others = {clock.from_text(start).isoformat() for start in db.core.execute(passed_on).scalars()} if lives else set()
    return [(stream, start) for stream, start in lives if start not in others]


def _of_lives(db: Transaction, namespace: str, lives: Iterable[tuple[str, str]]) -> list[int]:
    """The ids of events about sessions that are known by their streams and beginnings."""
    wanted = set(lives)
    began = json_text(OUTBOX.c.body, "$.start_time")
    streams = encode_json(sorted({stream for stream, _ in wanted}))
    about = sa.and_(_waits_about_sessions(namespace), in_json(OUTBOX.c.stream, streams))
    found = sa.select(OUTBOX.c.id, OUTBOX.c.stream, began).where(about)
    return [identity for identity, *life in db.core.execute(found) if tuple(life) in wanted]


def _waits_about_sessions(namespace: str) -> sa.ColumnElement[bool]:
    return sa.and_(OUTBOX.c.namespace == namespace, OUTBOX.c.state.in_(_UNDELIVERED), OUTBOX.c.stream.startswith(_STREAM_PREFIX))


def _untaken(db: Transaction, namespace: str, names: Iterable[str]) -> list[str]:
    """Those of some names that no session has now."""
    every = sorted(set(names))
    named = sa.and_(SESSIONS.c.namespace == namespace, in_json(SESSIONS.c.session_id, encode_json(every)))
    others = set(db.core.execute(sa.select(SESSIONS.c.session_id).where(named)).scalars())
    return [name for name in every if name not in others]


def _former(db: Transaction, namespace: str, begun: Iterable[str]) -> list[tuple[int, str]]:
    """Events about sessions that began at some instants, under names that no session has now: the events' ids and these names."""
    starts = sorted({clock.from_text(began).isoformat() for began in begun})
    is_of_them = in_json(json_text(OUTBOX.c.body, "$.start_time"), encode_json(starts))
    found = sa.select(OUTBOX.c.id, OUTBOX.c.stream).where(_waits_about_sessions(namespace), is_of_them)
    rows = db.core.execute(found).all() if starts else ()
    named = [(identity, stream.removeprefix(_STREAM_PREFIX)) for identity, stream in rows]
    free = set(_untaken(db, namespace, (name for _, name in named)))
    return [(identity, name) for identity, name in named if name in free]
