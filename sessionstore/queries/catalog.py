"""Looking over many sessions: filters, keyset pages and counts. No message content is loaded.

The text of a page's query depends only on which filters are given, so it is compiled once for each such choice.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from .. import clock
from ..arguments import SessionFilter, Unset
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..values import MAX_SEQ, SEQ_BITS, Page, SessionInfo
from . import sessions
from .dialect import CrossJoin, as_stored, contains_text, escaped_words, json_array_of, json_equals, json_kinds, parts_contain_text
from .statements import IS_LIVE, MESSAGES, NO_OFFSET, SESSION_COLUMNS, SESSIONS, TAGS, parameters_of, text_of

_CURSOR_VERSION: Final = 1
_FEW: Final = 1_000
_MAX_CURSOR_CHARS: Final = 200
_UPDATED_AT: Final = sa.type_coerce(SESSIONS.c.updated_at, sa.String)
_TAGS: Final = json_array_of(
    sa.select(TAGS.c.tag).where(TAGS.c.session_key == SESSIONS.c.session_key).order_by(TAGS.c.tag).correlate(SESSIONS)
)
_PAGE_COLUMNS: Final = (*(as_stored(column) for column in SESSION_COLUMNS), _TAGS)
_COUNT_TAG: Final = sa.select(sa.func.count()).select_from(
    sa.select(TAGS.c.session_key)
    .where(TAGS.c.tag == sa.bindparam("tag"))
    .limit(sa.literal_column(str(_FEW)))
    .offset(NO_OFFSET)
    .subquery()
)


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
    terms = _terms(wanted)
    if cursor is not None:
        terms.append(_read_cursor(cursor, wanted))
    text, names = _page_query(tuple((term.name, term.detail) for term in terms), _rare_tag(db, wanted))
    values = {"most": limit + 1, **_values(terms)}
    rows = db.driver.execute(text, [values[name] for name in names]).fetchall()
    shown = rows[:limit]
    items = tuple(sessions.info(row[:-1], tuple(decoded(row[-1]))) for row in shown)
    return Page(items, _cursor(shown[-1], wanted) if len(rows) > limit else None)


def count(db: Transaction, wanted: SessionFilter) -> int:
    """How many sessions there are."""
    conditions, values = matching(wanted)
    return int(db.core.execute(sa.select(sa.func.count()).select_from(SESSIONS).where(*conditions), values).scalar_one())


def keys(db: Transaction, wanted: SessionFilter) -> list[tuple[int, str]]:
    """The keys and ids of sessions, oldest first."""
    conditions, values = matching(wanted)
    found = sa.select(SESSIONS.c.session_key, SESSIONS.c.session_id).where(*conditions).order_by(SESSIONS.c.session_key)
    return [(key, session_id) for key, session_id in db.core.execute(found, values)]


def namespaces(db: Transaction) -> tuple[str, ...]:
    """The namespaces that have live sessions, sorted."""
    found = sa.select(SESSIONS.c.namespace).where(IS_LIVE).distinct().order_by(SESSIONS.c.namespace)
    return tuple(db.core.execute(found).scalars())


def tag_counts(db: Transaction, namespace: str) -> dict[str, int]:
    """How many live sessions have each tag."""
    found = (
        sa.select(TAGS.c.tag, sa.func.count().label("sessions"))
        .join(SESSIONS, SESSIONS.c.session_key == TAGS.c.session_key)
        .where(SESSIONS.c.namespace == namespace, IS_LIVE)
        .group_by(TAGS.c.tag)
        .order_by(TAGS.c.tag)
    )
    return {row.tag: row.sessions for row in db.core.execute(found)}


def matching(wanted: SessionFilter) -> tuple[list[sa.ColumnElement[bool]], dict[str, Any]]:
    """What the sessions of a filter have in common, for a WHERE, and the values of its parameters."""
    terms = _terms(wanted)
    return [_condition(term.name, term.detail) for term in terms], _values(terms)


def _terms(wanted: SessionFilter) -> list[_Term]:
    given: list[_Term] = [_Term("live", "", {}) if wanted.status is None else _Term("status", "", {"status": wanted.status})]
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


def _condition(name: str, detail: str) -> sa.ColumnElement[bool]:
    match name:
        case "live":
            return IS_LIVE
        case "status" | "namespace" | "agent_id" | "user_id" | "pinned":
            return SESSIONS.c[name] == sa.bindparam(name)
        case "without":
            return SESSIONS.c[detail].is_(None)
        case "archived":
            return SESSIONS.c.archived_at.is_not(None)
        case "not archived":
            return SESSIONS.c.archived_at.is_(None)
        case "since":
            return sa.bindparam("since") <= _UPDATED_AT
        case "until":
            return sa.bindparam("until") > _UPDATED_AT
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
    return sa.exists().where(in_session, sa.or_(contains_text(MESSAGES.c.text, words), parts_contain_text(MESSAGES.c.extra, words)))


@functools.lru_cache(maxsize=256)
def _page_query(terms: tuple[tuple[str, str], ...], rare_tag: str | None) -> tuple[str, tuple[str, ...]]:
    """The text of a page's query and the names of its parameters."""
    found = sa.select(*_PAGE_COLUMNS)
    if rare_tag is not None:
        chosen = TAGS.alias("chosen")
        found = found.select_from(CrossJoin(chosen, SESSIONS, chosen.c.session_key == SESSIONS.c.session_key))
        found = found.where(chosen.c.tag == sa.bindparam(rare_tag))
    found = found.where(*(_condition(name, detail) for name, detail in terms))
    found = found.order_by(_UPDATED_AT.desc(), SESSIONS.c.session_key.desc()).limit(sa.bindparam("most")).offset(NO_OFFSET)
    return text_of(found), parameters_of(found)


def _rare_tag(db: Transaction, wanted: SessionFilter) -> str | None:
    """The parameter of a tag that few sessions have: these are looked up, where a common tag is met soon by looking at all."""
    for index, tag in enumerate(wanted.tags):
        if db.driver.execute(_count_tag_query(), (tag,)).fetchall()[0][0] < _FEW:
            return f"tag_{index}"
    return None


@functools.cache
def _count_tag_query() -> str:
    return text_of(_COUNT_TAG)


def _values(terms: Iterable[_Term]) -> dict[str, Any]:
    return {name: value for term in terms for name, value in term.values.items()}


def _cursor(row: tuple[Any, ...], wanted: SessionFilter) -> str:
    place = [_CURSOR_VERSION, row[sessions.UPDATED_AT], row[sessions.KEY]]
    return base64.urlsafe_b64encode(json.dumps([place, _seal(place, wanted)]).encode()).decode()


def _read_cursor(cursor: str, wanted: SessionFilter) -> _Term:
    refused = InvalidInputError("cursor", "must be the next_cursor of a page with the same filters")
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise refused
    try:
        place, seal = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise refused from error
    if seal != _seal(place, wanted):
        raise refused
    updated_at, key = place[1:]
    return _Term("cursor", "", {"updated_at": updated_at, "key": key})


def _seal(place: list[Any], wanted: SessionFilter) -> str:
    """Ties a cursor to its filter and finds changed ones."""
    return hashlib.sha256(repr((place, astuple(wanted))).encode()).hexdigest()[:16]
