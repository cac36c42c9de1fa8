"""The rows that analytics are computed from. Each query is compiled once for each choice of filters.

A session belongs to the time in which it began, a message to that in which it was stored.
"""

from __future__ import annotations

import functools
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa

from ...database.transaction import Transaction
from ...periods import PREFIX_CHARS, Bucket, Scope
from ...values import MAX_SEQ, SEQ_BITS
from ..dialect import NO_OFFSET, CrossJoin, sorted_part, time_prefix, whole_total
from ..statements import parameters_of, text_of
from ..tables import MESSAGES, OVERDUE, SESSIONS
from .figures import ErrorCount, ModelUsage, ScoreCount, StatusCount

T = TypeVar("T")
Slots = dict[str, dict[str | None, list[T]]]

_NO_SLOT: Final[sa.ColumnElement[str]] = sa.literal_column("''")
_HAS_ENDED: Final = SESSIONS.c.status.in_([sa.literal_column("'completed'"), sa.literal_column("'failed'")])
_FAILED: Final = SESSIONS.c.status == sa.literal_column("'failed'")
_STATUS: Final = sa.case((OVERDUE, sa.literal_column("'expired'")), else_=SESSIONS.c.status)
_ENDED_AT: Final = sa.type_coerce(sa.func.coalesce(SESSIONS.c.ended_at, SESSIONS.c.updated_at), sa.String)
_HAS_FACTS: Final = MESSAGES.c.facts.is_not(sa.null())
_TOKEN_COLUMNS: Final = tuple(MESSAGES.c[f"{kind}_tokens"] for kind in ("input", "output", "cache_read", "reasoning"))


class Shape(NamedTuple):
    """What a query's text depends on: which filters are given, and how time is cut."""

    given: frozenset[str]
    bucket: Bucket | None


class Failure(NamedTuple):
    """A session that failed; instants are stored texts."""

    key: int
    session_id: str
    agent_id: str | None
    error: str | None
    ended_at: str


def statuses(db: Transaction, scope: Scope) -> Slots[StatusCount]:
    """How many sessions have each status."""
    return _slots(_run(db, _statuses, scope), StatusCount)


def scores(db: Transaction, scope: Scope) -> Slots[ScoreCount]:
    """How many sessions have each quality score."""
    return _slots(_run(db, _scores, scope), ScoreCount)


def errors(db: Transaction, scope: Scope) -> Slots[ErrorCount]:
    """How many sessions failed with each error."""
    return _slots(_run(db, _errors, scope), ErrorCount)


def usage(db: Transaction, scope: Scope) -> Slots[ModelUsage]:
    """The tokens of each model."""
    return _slots(_run(db, _usage, scope), ModelUsage)


def failed_page(db: Transaction, scope: Scope, *, most: int, before: tuple[str, int] | None) -> list[Failure]:
    """Sessions that failed, newest first; those behind the place `before`, if it is given."""
    place = {} if before is None else {"ended_at": before[0], "key": before[1]}
    return [Failure(*row) for row in _run(db, _failed_page, scope, most=most, **place)]


def response_times(db: Transaction, scope: Scope) -> Slots[float]:
    """The response times of messages, in milliseconds."""
    found = _run(db, _answers if scope.session_id is None else _answers_of_session, scope)
    times: Slots[float] = defaultdict(lambda: defaultdict(list))
    if scope.bucket is None:
        # A day may have a hundred thousand: one lookup less for each.
        of_agent = times[""]
        for _, agent_id, elapsed in found:
            of_agent[agent_id].append(elapsed)
        return times
    for slot, agent_id, elapsed in found:
        times[slot][agent_id].append(elapsed)
    return times


def durations(db: Transaction, scope: Scope) -> Slots[float]:
    """The durations of sessions that completed or failed, in seconds."""
    times: Slots[float] = defaultdict(lambda: defaultdict(list))
    instant = datetime.fromisoformat
    for slot, agent_id, created_at, ended_at in _run(db, _ended, scope):
        # Naive on both sides: the difference is the same, and half the price.
        times[slot][agent_id].append((instant(ended_at) - instant(created_at)).total_seconds())
    return times


def _slots(rows: Iterator[tuple[Any, ...]], item: Callable[..., T]) -> Slots[T]:
    slots: Slots[T] = defaultdict(lambda: defaultdict(list))
    for slot, agent_id, *values in rows:
        slots[slot][agent_id].append(item(*values))
    return slots


# -- the queries


def _run(db: Transaction, build: Callable[[Shape], sa.Select[Any]], scope: Scope, **values: Any) -> sqlite3.Cursor:
    given = {**scope.values, **values}
    text, names = _compiled(build, Shape(frozenset(given), scope.bucket))
    given["at"] = db.now_text
    return db.driver.execute(text, [given[name] for name in names])


@functools.lru_cache(maxsize=256)
def _compiled(build: Callable[[Shape], sa.Select[Any]], shape: Shape) -> tuple[str, tuple[str, ...]]:
    """The text of a query, and the names of its parameters in the order of the question marks."""
    statement = build(shape)
    return text_of(statement), parameters_of(statement)


def _statuses(shape: Shape) -> sa.Select[Any]:
    slot = _slot(shape, SESSIONS)
    return _of_sessions(shape, slot, SESSIONS.c.agent_id, _STATUS, sa.func.count()).group_by(slot, SESSIONS.c.agent_id, _STATUS)


def _scores(shape: Shape) -> sa.Select[Any]:
    slot, score = _slot(shape, SESSIONS), SESSIONS.c.quality_score
    found = _of_sessions(shape, slot, SESSIONS.c.agent_id, score, sa.func.count()).where(score.is_not(sa.null()))
    return found.group_by(slot, SESSIONS.c.agent_id, score)


def _errors(shape: Shape) -> sa.Select[Any]:
    slot, columns = _slot(shape, SESSIONS), (SESSIONS.c.agent_id, SESSIONS.c.error)
    found = _of_sessions(shape, slot, *columns, sa.func.count(), sa.func.max(_ENDED_AT)).where(_FAILED)
    return found.group_by(slot, *columns)


def _failed_page(shape: Shape) -> sa.Select[Any]:
    key = SESSIONS.c.session_key
    found = _of_sessions(shape, key, SESSIONS.c.session_id, SESSIONS.c.agent_id, SESSIONS.c.error, _ENDED_AT).where(_FAILED)
    if "key" in shape.given:
        place = sa.tuple_(sa.bindparam("ended_at", type_=sa.String), sa.bindparam("key"))
        found = found.where(sa.tuple_(_ENDED_AT, key) < place)
    return found.order_by(_ENDED_AT.desc(), key.desc()).limit(sa.bindparam("most")).offset(NO_OFFSET)


def _ended(shape: Shape) -> sa.Select[Any]:
    instants = [sa.type_coerce(SESSIONS.c[name], sa.String) for name in ("created_at", "ended_at")]
    found = _of_sessions(shape, _slot(shape, SESSIONS), SESSIONS.c.agent_id, *instants)
    return found.where(_HAS_ENDED, SESSIONS.c.ended_at.is_not(sa.null()))


def _answers(shape: Shape) -> sa.Select[Any]:
    """An index has all but the agent. Sorted by session, the lookups go through the table once instead of here and there."""
    key = MESSAGES.c.id.op(">>")(sa.literal_column(str(SEQ_BITS))).label("key")
    timed = MESSAGES.c.answer_time_ms
    # What is sorted costs: only what is needed.
    slot = () if shape.bucket is None else (_slot(shape, MESSAGES).label("slot"),)
    rows = sa.select(key, timed.label("elapsed"), *slot).where(_HAS_FACTS, timed.is_not(sa.null()), *_in_period(shape, MESSAGES))
    answers = sorted_part(rows, key)
    found = sa.select(answers.c.slot if slot else _NO_SLOT, SESSIONS.c.agent_id, answers.c.elapsed)
    return found.select_from(CrossJoin(answers, SESSIONS, SESSIONS.c.session_key == answers.c.key)).where(*_in_scope(shape))


def _answers_of_session(shape: Shape) -> sa.Select[Any]:
    timed = MESSAGES.c.answer_time_ms
    found = sa.select(_slot(shape, MESSAGES), SESSIONS.c.agent_id, timed).select_from(_MESSAGES_OF_SESSIONS)
    return found.where(*_in_scope(shape), timed.is_not(sa.null()), *_in_period(shape, MESSAGES))


def _usage(shape: Shape) -> sa.Select[Any]:
    slot, columns = _slot(shape, MESSAGES), (SESSIONS.c.agent_id, MESSAGES.c.model)
    source = _MESSAGES_OF_SESSIONS if "session_id" in shape.given else _SESSIONS_OF_MESSAGES
    found = sa.select(slot, *columns, sa.func.count(), *map(whole_total, _TOKEN_COLUMNS)).select_from(source)
    tells_tokens = sa.func.coalesce(*_TOKEN_COLUMNS).is_not(sa.null())
    return found.where(*_in_scope(shape), _HAS_FACTS, tells_tokens, *_in_period(shape, MESSAGES)).group_by(slot, *columns)


_SESSIONS_OF_MESSAGES: Final = CrossJoin(MESSAGES, SESSIONS, SESSIONS.c.session_key == MESSAGES.c.session_key)
_FIRST_ID: Final = SESSIONS.c.session_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
_MESSAGES_OF_SESSIONS: Final = CrossJoin(
    SESSIONS,
    MESSAGES,
    sa.and_(MESSAGES.c.id > _FIRST_ID, MESSAGES.c.id <= _FIRST_ID.op("|")(sa.literal_column(str(MAX_SEQ)))),
)


def _of_sessions(shape: Shape, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return sa.select(*columns).select_from(SESSIONS).where(*_in_scope(shape), *_in_period(shape, SESSIONS))


def _in_scope(shape: Shape) -> list[sa.ColumnElement[bool]]:
    """The sessions of the namespace or namespaces, and of the agent or of the name if there is one."""
    # Not both: SQLite would go through the whole namespace instead of looking a name up.
    named = "session_id" in shape.given
    by_name: list[sa.ColumnElement[bool]] = [SESSIONS.c.session_key.in_(_keys_of_name(shape))]
    found = by_name if named else _in_namespaces(shape, SESSIONS.c.namespace)
    if "agent_id" in shape.given:
        found.append(SESSIONS.c.agent_id == sa.bindparam("agent_id"))
    return found


def _in_namespaces(shape: Shape, column: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
    if "namespace_end" not in shape.given:
        return [column == sa.bindparam("namespace")]
    return [column >= sa.bindparam("namespace"), column < sa.bindparam("namespace_end")]


def _keys_of_name(shape: Shape) -> sa.CompoundSelect[Any]:
    """The sessions of a name, the expired ones too; each half has an index of its own."""
    named = SESSIONS.alias("named")
    expired: sa.ColumnElement[str] = sa.literal_column("'expired'")
    found = sa.select(named.c.session_key).where(
        *_in_namespaces(shape, named.c.namespace), named.c.session_id == sa.bindparam("session_id")
    )
    return sa.union_all(found.where(named.c.status != expired), found.where(named.c.status == expired))


def _in_period(shape: Shape, table: sa.Table) -> list[sa.ColumnElement[bool]]:
    created_at = sa.type_coerce(table.c.created_at, sa.String)
    start, end = sa.bindparam("start") <= created_at, sa.bindparam("end") > created_at
    return [condition for name, condition in (("start", start), ("end", end)) if name in shape.given]


def _slot(shape: Shape, table: sa.Table) -> sa.ColumnElement[str]:
    if shape.bucket is None:
        return _NO_SLOT
    return time_prefix(table.c.created_at, PREFIX_CHARS[shape.bucket])
