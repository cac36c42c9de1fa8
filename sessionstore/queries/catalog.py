"""Looking over many sessions: filters, keyset pages and counts. No message content is loaded.

The text of a page's query depends only on which filters are given, so it is compiled once for each such choice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from .. import clock
from ..arguments import SessionFilter, Unset
from ..content import decoded
from ..database.transaction import Transaction
from ..values import EXPIRED_STATUS, MAX_SEQ, SEQ_BITS, Page, SessionInfo
from . import hidden_words, sessions
from .cursors import opened, sealed
from .dialect import CrossJoin, as_stored, contains_text, escaped_words, json_array_of, json_equals, json_kinds, parts_contain_text
from .statements import (
    HOLDS_NAME,
    IN_TIME,
    IS_OPEN,
    MESSAGES,
    NO_OFFSET,
    OVERDUE,
    RANGES,
    SESSION_COLUMNS,
    SESSIONS,
    TAGS,
    parameters_of,
    text_of,
)

_CURSOR_VERSION: Final = 1
# A session that is looked up by a tag, and sorted, costs as much as some steps through all of them in the order of change.
_STEPS_A_LOOKUP: Final = 2.5
# Sessions that are found by their expiry are looked up here and there, and then sorted: one costs as much as some that are met
# by going through all. So it pays for a small part of all, and never for very many.
_PRICE: Final = 8
_FEW_OVER: Final = range(100, 30_000)
_UPDATED_AT: Final = sa.type_coerce(SESSIONS.c.updated_at, sa.String)
_NEWEST_FIRST: Final = (_UPDATED_AT.desc(), SESSIONS.c.session_key.desc())
_MOST: Final[sa.BindParameter[int]] = sa.bindparam("most")
TAGS_AS_JSON: Final = json_array_of(
    sa.select(TAGS.c.tag).where(TAGS.c.session_key == SESSIONS.c.session_key).order_by(TAGS.c.tag).correlate(SESSIONS)
)
# Each half has an index of its own; what is due stands there without its namespace.
_SETTLED: Final = sa.select(SESSIONS.c.session_key).where(SESSIONS.c.status == sa.literal_column("'expired'"))
_DUE: Final = sa.select(SESSIONS.c.session_key).where(OVERDUE)
_OVER: Final = {
    "over": sa.union_all(_SETTLED, _DUE),
    "over here": sa.union_all(_SETTLED.where(SESSIONS.c.namespace == sa.bindparam("namespace")), _DUE),
}
_PAGE_COLUMNS: Final = (*(as_stored(column) for column in SESSION_COLUMNS), TAGS_AS_JSON)
_NEWEST_KEY: Final = sa.select(sa.func.max(SESSIONS.c.session_key))
_COUNT_TAG: Final = sa.select(sa.func.count()).select_from(
    sa.select(TAGS.c.session_key).where(TAGS.c.tag == sa.bindparam("tag")).limit(sa.bindparam("most")).offset(NO_OFFSET).subquery()
)
# What the indexes in the order of change hold, or begin with.
_IN_INDEX: Final = frozenset({"namespace", "agent_id", "user_id", "since", "until", "cursor"})

_FIXED_CONDITIONS: Final = {
    "live": sa.and_(HOLDS_NAME, IN_TIME),
    "open": sa.and_(IS_OPEN, IN_TIME),
    "expired": sa.or_(sa.not_(HOLDS_NAME), OVERDUE),
    "archived": SESSIONS.c.archived_at.is_not(None),
    "not archived": SESSIONS.c.archived_at.is_(None),
    "since": sa.bindparam("since") <= _UPDATED_AT,
    "until": sa.bindparam("until") > _UPDATED_AT,
}


class _Term(NamedTuple):
    """A filter that is given: what it is called, what it is about, and the values of its parameters by name."""

    name: str
    detail: str
    values: Mapping[str, Any]


def page(db: Transaction, wanted: SessionFilter, *, limit: int, cursor: str | None) -> Page[SessionInfo]:
    """Sessions, last changed first.

    Raises:
        InvalidInputError: The cursor is damaged or belongs to another filter.
    """
    if wanted.text is not None:
        hidden_words.prepare(db)
    terms = _terms(wanted, db.now_text)
    if cursor is not None:
        terms.append(_read_cursor(cursor, wanted))
    few = _rare_tag(db, wanted, limit + 1) or _few_over(db, wanted)
    text, names = _page_query(tuple((term.name, term.detail) for term in terms), few)
    values = {"most": limit + 1, **_values(terms)}
    rows = db.driver.execute(text, [values[name] for name in names]).fetchall()
    shown = rows[:limit]
    items = tuple(sessions.info(row[:-1], tuple(decoded(row[-1])), at=db.now_text) for row in shown)
    return Page(items, _cursor(shown[-1], wanted) if len(rows) > limit else None)


def count(db: Transaction, wanted: SessionFilter) -> int:
    """How many sessions there are."""
    conditions, values = matching(db, wanted)
    source = _source(_few_over(db, wanted))
    return int(db.core.execute(sa.select(sa.func.count()).select_from(source).where(*conditions), values).scalar_one())


def keys(db: Transaction, wanted: SessionFilter) -> list[tuple[int, str]]:
    """The keys and ids of sessions, oldest first."""
    conditions, values = matching(db, wanted)
    columns = (SESSIONS.c.session_key, SESSIONS.c.session_id)
    found = sa.select(*columns).select_from(_source(_few_over(db, wanted))).where(*conditions).order_by(SESSIONS.c.session_key)
    return [(key, session_id) for key, session_id in db.core.execute(found, values)]


def namespaces(db: Transaction) -> tuple[str, ...]:
    """The namespaces that have live sessions, sorted."""
    found = sa.select(SESSIONS.c.namespace).where(HOLDS_NAME, IN_TIME).distinct().order_by(SESSIONS.c.namespace)
    return tuple(db.core.execute(found, {"at": db.now_text}).scalars())


def tag_counts(db: Transaction, namespace: str) -> dict[str, int]:
    """How many live sessions have each tag."""
    found = (
        sa.select(TAGS.c.tag, sa.func.count().label("sessions"))
        .join(SESSIONS, SESSIONS.c.session_key == TAGS.c.session_key)
        .where(SESSIONS.c.namespace == namespace, HOLDS_NAME, IN_TIME)
        .group_by(TAGS.c.tag)
        .order_by(TAGS.c.tag)
    )
    return {row.tag: row.sessions for row in db.core.execute(found, {"at": db.now_text})}


def matching(db: Transaction, wanted: SessionFilter) -> tuple[list[sa.ColumnElement[bool]], dict[str, Any]]:
    """What the sessions of a filter have in common, for a WHERE, and the values of its parameters."""
    if wanted.text is not None:
        hidden_words.prepare(db)
    terms = _terms(wanted, db.now_text)
    return [_condition(term.name, term.detail) for term in terms], _values(terms)


def shape_of(wanted: SessionFilter, now: str) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    """What the conditions of a filter depend on, for `conditions_of`, and the values of their parameters."""
    terms = _terms(wanted, now)
    return tuple((term.name, term.detail) for term in terms), _values(terms)


def conditions_of(shape: Iterable[tuple[str, str]]) -> list[sa.ColumnElement[bool]]:
    """The conditions on `sessions` of all filters of one shape."""
    return [_condition(name, detail) for name, detail in shape]


def _terms(wanted: SessionFilter, now: str) -> list[_Term]:
    given: list[_Term] = [_life(wanted.status, now)]
    for name in ("namespace", "pinned"):
        value = getattr(wanted, name)
        if value is not None:
            given.append(_Term(name, "", {name: value}))
    for name in ("agent_id", "user_id"):
        owner = getattr(wanted, name)
        if owner is None:
            given.append(_Term("without", name, {}))
        elif not isinstance(owner, Unset):
            given.append(_Term(name, "", {name: owner}))
    if wanted.archived is not None:
        given.append(_Term("archived" if wanted.archived else "not archived", "", {}))
    if wanted.since is not None:
        given.append(_Term("since", "", {"since": clock.to_text(wanted.since)}))
    if wanted.until is not None:
        given.append(_Term("until", "", {"until": clock.to_text(wanted.until)}))
    given += [_Term("tag", f"tag_{index}", {f"tag_{index}": tag}) for index, tag in enumerate(wanted.tags)]
    for index, (key, value) in enumerate(wanted.metadata.items()):
        path, wanted_value = f"key_{index}", f"value_{index}"
        given.append(_Term("metadata", f"{index} {json_kinds(value)}", {path: f'$."{key}"', wanted_value: value}))
    if wanted.text is not None:
        given.append(_Term("text", "", {"words": escaped_words(wanted.text)}))
    return given


def _life(status: str | None, now: str) -> _Term:
    """Ended sessions have no expiry; open ones are live until theirs, and then expired, swept or not."""
    if status is None:
        return _Term("live", "", {"at": now})
    if status in ("open", "expired"):
        return _Term(status, "", {"at": now})
    return _Term("status", "", {"status": status})


def _condition(name: str, detail: str) -> sa.ColumnElement[bool]:
    if name in _FIXED_CONDITIONS:
        return _FIXED_CONDITIONS[name]
    match name:
        case "status" | "namespace" | "agent_id" | "user_id" | "pinned":
            return SESSIONS.c[name] == sa.bindparam(name)
        case "without":
            return SESSIONS.c[detail].is_(None)
        case "tag":
            return sa.exists().where(TAGS.c.session_key == SESSIONS.c.session_key, TAGS.c.tag == sa.bindparam(detail))
        case "metadata":
            index, kinds = detail.split(" ", 1)
            return json_equals(SESSIONS.c.metadata, sa.bindparam(f"key_{index}"), sa.bindparam(f"value_{index}"), kinds)
        case "text":
            return sa.or_(contains_text(SESSIONS.c.title, sa.bindparam("words")), _has_message_with(sa.bindparam("words")))
        case "cursor":
            earlier = sa.or_(sa.bindparam("updated_at") > _UPDATED_AT, SESSIONS.c.session_key < sa.bindparam("key"))
            return sa.and_(sa.bindparam("updated_at") >= _UPDATED_AT, earlier)
    raise AssertionError(name)


def _has_message_with(words: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    first = SESSIONS.c.session_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_session = sa.and_(MESSAGES.c.id > first, MESSAGES.c.id <= first.op("|")(sa.literal_column(str(MAX_SEQ))))
    has_words = sa.or_(
        contains_text(MESSAGES.c.text, words), parts_contain_text(MESSAGES.c.extra, words), hidden_words.contain_text(words)
    )
    low = RANGES.c.owner_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_range = MESSAGES.c.id.between(low.op("+")(RANGES.c.first_seq), low.op("+")(RANGES.c.last_seq))
    inherited = sa.exists().where(RANGES.c.session_key == SESSIONS.c.session_key, in_range, has_words)
    return sa.or_(sa.exists().where(in_session, has_words), inherited)


@functools.lru_cache(maxsize=256)
def _page_query(terms: tuple[tuple[str, str], ...], few: str | None) -> tuple[str, tuple[str, ...]]:
    """The text of a page's query and the names of its parameters."""
    if few is not None:
        found = _page_of_few(terms, few)
    elif (tag := next((detail for name, detail in terms if name == "tag"), None)) is not None:
        found = _page_with_tag(terms, tag)
    else:
        found = sa.select(*_PAGE_COLUMNS).where(*conditions_of(terms)).order_by(*_NEWEST_FIRST).limit(_MOST).offset(NO_OFFSET)
    return text_of(found), parameters_of(found)


def _page_of_few(terms: Iterable[tuple[str, str]], few: str) -> sa.Select[Any]:
    """The page of sessions that are looked up: only their keys are sorted, and only what is shown is read as a whole."""
    keys = sa.select(SESSIONS.c.session_key).select_from(_source(few))
    keys = keys.where(*(_condition(name, detail) for name, detail in terms if detail != few))
    shown = keys.order_by(*_NEWEST_FIRST).limit(_MOST).offset(NO_OFFSET).subquery("shown")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(shown, SESSIONS, shown.c.session_key == SESSIONS.c.session_key))
    return found.order_by(*_NEWEST_FIRST)


def _page_with_tag(terms: tuple[tuple[str, str], ...], tag: str) -> sa.Select[Any]:
    """The page of sessions with a common tag: an index is walked in the order of change, and who has the tag is read as a whole."""
    has_tag = sa.and_(TAGS.c.session_key == SESSIONS.c.session_key, TAGS.c.tag == sa.bindparam(tag))
    walked = sa.select(SESSIONS.c.session_key, _UPDATED_AT.label("updated_at")).select_from(CrossJoin(SESSIONS, TAGS, has_tag))
    met = walked.where(*(_condition(name, detail) for name, detail in terms if name in _IN_INDEX)).subquery("met")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(met, SESSIONS, met.c.session_key == SESSIONS.c.session_key))
    found = found.where(*(_condition(name, detail) for name, detail in terms if detail != tag))
    return found.order_by(met.c.updated_at.desc(), met.c.session_key.desc()).limit(_MOST).offset(NO_OFFSET)


def _source(few: str | None) -> sa.FromClause:
    """The sessions; if few are in question, these are looked up: those whose life is over, or that have the tag of a parameter."""
    if few is None:
        return SESSIONS
    keys = _OVER.get(few)
    chosen = (sa.select(TAGS.c.session_key).where(TAGS.c.tag == sa.bindparam(few)) if keys is None else keys).subquery("chosen")
    return CrossJoin(chosen, SESSIONS, chosen.c.session_key == SESSIONS.c.session_key)


def _few_over(db: Transaction, wanted: SessionFilter) -> str | None:
    """The name in `_OVER` of the sessions whose life is over, if these are wanted and few."""
    if wanted.status != EXPIRED_STATUS:
        return None
    name = "over" if wanted.namespace is None else "over here"
    # The newest key tells how many sessions there are at most, and costs nothing.
    newest = db.core.execute(sa.select(sa.func.max(SESSIONS.c.session_key))).scalar_one() or 0
    most = min(max(newest // _PRICE, _FEW_OVER.start), _FEW_OVER.stop)
    over = sa.select(_OVER[name].subquery()).limit(most).subquery()
    values = {"at": db.now_text, "namespace": wanted.namespace}
    there = db.core.execute(sa.select(sa.func.count()).select_from(over), values).scalar_one()
    return name if there < most else None


def _rare_tag(db: Transaction, wanted: SessionFilter, shown: int) -> str | None:
    """The parameter of a tag that so few sessions have that these are looked up: a common tag is met soon by looking at all.

    To meet `shown` sessions of n with a tag takes shown / n of all steps, to look these up n times what a look-up costs.
    """
    if not wanted.tags:
        return None
    newest, count_tag = _tag_queries()
    sessions_at_most = db.driver.execute(newest).fetchall()[0][0] or 0
    most = max(shown, math.isqrt(int(shown * sessions_at_most / _STEPS_A_LOOKUP)))
    for index, tag in enumerate(wanted.tags):
        if db.driver.execute(count_tag, (tag, most)).fetchall()[0][0] < most:
            return f"tag_{index}"
    return None


@functools.cache
def _tag_queries() -> tuple[str, str]:
    return text_of(_NEWEST_KEY), text_of(_COUNT_TAG)


def _values(terms: Iterable[_Term]) -> dict[str, Any]:
    return {name: value for term in terms for name, value in term.values.items()}


def _cursor(row: tuple[Any, ...], wanted: SessionFilter) -> str:
    return sealed([_CURSOR_VERSION, row[sessions.UPDATED_AT], row[sessions.KEY]], astuple(wanted))


def _read_cursor(cursor: str, wanted: SessionFilter) -> _Term:
    updated_at, key = opened("next_cursor", cursor, astuple(wanted))[1:]
    return _Term("cursor", "", {"updated_at": updated_at, "key": key})
