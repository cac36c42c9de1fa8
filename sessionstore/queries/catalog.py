"""Looking over many sessions: filters, keyset pages and counts. No message content is loaded.

What is asked is joined from compiled texts: those of the conditions that filters are, and of the queries that take them. So the
first list of a program loads no SQLAlchemy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any, Final, NamedTuple

from .. import clock, sql
from ..arguments import PlainValue, SessionFilter, Unset
from ..content import decoded
from ..database.transaction import Transaction
from ..values import EXPIRED_STATUS, Page, SessionInfo
from . import hidden_words, sessions
from .cursors import opened, sealed

_CURSOR_VERSION: Final = 1
# A session that is looked up by a tag, and sorted, costs as much as some steps through all of them in the order of change.
_STEPS_A_LOOKUP: Final = 2.5
# Sessions that are found by their expiry are looked up here and there, and then sorted: one costs as much as some that are met
# by going through all. So it pays for a small part of all, and never for very many.
_PRICE: Final = 8
_FEW_OVER: Final = range(100, 30_000)
# What the indexes in the order of change hold, or begin with.
_IN_INDEX: Final = frozenset({"namespace", "agent_id", "user_id", "since", "until", "cursor"})
_ESCAPE: Final = "\\"
_CONDITIONS: Final = {
    "live": sql.WHERE_LIVE,
    "open": sql.WHERE_OPEN,
    "expired": sql.WHERE_EXPIRED,
    "status": sql.WHERE_STATUS,
    "namespace": sql.WHERE_NAMESPACE,
    "pinned": sql.WHERE_PINNED,
    "agent_id": sql.WHERE_AGENT_ID,
    "user_id": sql.WHERE_USER_ID,
    "without agent_id": sql.WHERE_WITHOUT_AGENT_ID,
    "without user_id": sql.WHERE_WITHOUT_USER_ID,
    "archived": sql.WHERE_ARCHIVED,
    "not archived": sql.WHERE_NOT_ARCHIVED,
    "since": sql.WHERE_SINCE,
    "until": sql.WHERE_UNTIL,
    "tag": sql.WHERE_TAG,
    "metadata null": sql.WHERE_METADATA_NULL,
    "metadata true": sql.WHERE_METADATA_TRUE,
    "metadata false": sql.WHERE_METADATA_FALSE,
    "metadata number": sql.WHERE_METADATA_NUMBER,
    "metadata text": sql.WHERE_METADATA_TEXT,
    "text": sql.WHERE_TEXT,
    "cursor": sql.WHERE_CURSOR,
}


class _Term(NamedTuple):
    """A filter that is given.

    Attributes:
        name: What its condition is called.
        number: What tells it from others of the same name.
        values: The values of its parameters with their names, in the order of the question marks.
    """

    name: str
    number: str
    values: tuple[tuple[str, Any], ...]


class _Few(NamedTuple):
    """Sessions that are so few that they are looked up: the text of a query for their keys, and its values."""

    keys: str
    values: tuple[Any, ...]
    term: _Term | None = None


def page(db: Transaction, wanted: SessionFilter, *, limit: int, cursor: str | None) -> Page[SessionInfo]:
    """Sessions, last changed first.

    Raises:
        InvalidInputError: The cursor is damaged or belongs to another filter.
    """
    terms = _terms(db, wanted)
    if cursor is not None:
        terms.append(_read_cursor(cursor, wanted))
    few = _rare_tag(db, terms, limit + 1) or _few_over(db, wanted)
    text, values = _page_query(terms, few)
    rows = db.driver.execute(text, [*values, limit + 1]).fetchall()
    shown = rows[:limit]
    items = tuple(sessions.info(row[:-1], _tags(row[-1]), at=db.now_text) for row in shown)
    return Page(items, _cursor(shown[-1], wanted) if len(rows) > limit else None)


def count(db: Transaction, wanted: SessionFilter) -> int:
    """How many sessions there are."""
    text, values = _whole_query(sql.COUNT_SESSIONS, sql.COUNT_FEW_SESSIONS, db, wanted)
    return int(db.driver.execute(text, values).fetchall()[0][0])


def keys(db: Transaction, wanted: SessionFilter) -> list[tuple[int, str]]:
    """The keys and ids of sessions, oldest first."""
    return db.driver.execute(*_whole_query(sql.NAMES_OF_SESSIONS, sql.NAMES_OF_FEW_SESSIONS, db, wanted)).fetchall()


def namespaces(db: Transaction) -> tuple[str, ...]:
    """The namespaces that have live sessions, sorted."""
    return tuple(namespace for (namespace,) in db.driver.execute(sql.NAMESPACES, (db.now_text,)).fetchall())


def tag_counts(db: Transaction, namespace: str) -> dict[str, int]:
    """How many live sessions have each tag."""
    return dict(db.driver.execute(sql.TAG_COUNTS, (namespace, db.now_text)).fetchall())


def shape_of(db: Transaction, wanted: SessionFilter) -> tuple[tuple[tuple[str, str], ...], dict[str, Any]]:
    """What the conditions of a filter depend on, for `catalog_statements.conditions_of`, and the values of their parameters."""
    terms = _terms(db, wanted)
    return tuple((term.name, term.number) for term in terms), {name: value for term in terms for name, value in term.values}


def _terms(db: Transaction, wanted: SessionFilter) -> list[_Term]:
    """The filters that are given; there is always one, about the lives of sessions."""
    given = [_life(wanted.status, db.now_text)]
    for name in ("namespace", "pinned"):
        value = getattr(wanted, name)
        if value is not None:
            given.append(_term(name, value))
    for name in ("agent_id", "user_id"):
        owner = getattr(wanted, name)
        if owner is None:
            given.append(_Term(f"without {name}", "", ()))
        elif not isinstance(owner, Unset):
            given.append(_term(name, owner))
    if wanted.archived is not None:
        given.append(_Term("archived" if wanted.archived else "not archived", "", ()))
    if wanted.since is not None:
        given.append(_term("since", clock.to_text(wanted.since)))
    if wanted.until is not None:
        given.append(_term("until", clock.to_text(wanted.until)))
    given += [_Term("tag", str(index), ((f"tag_{index}", tag),)) for index, tag in enumerate(wanted.tags)]
    given += [_metadata(str(index), key, value) for index, (key, value) in enumerate(wanted.metadata.items())]
    if wanted.text is not None:
        hidden_words.prepare(db)
        given.append(_Term("text", "", (("words", _pattern(wanted.text)),) * sql.WHERE_TEXT.count("?")))
    return given


def _term(name: str, value: Any) -> _Term:
    return _Term(name, "", ((name, value),))


def _life(status: str | None, now: str) -> _Term:
    """Ended sessions have no expiry; open ones are live until theirs, and then expired, swept or not."""
    if status is None or status in ("open", "expired"):
        return _Term(status or "live", "", (("at", now),))
    return _term("status", status)


def _metadata(number: str, key: str, value: PlainValue) -> _Term:
    path, equal = (f"key_{number}", f'$."{key}"'), (f"value_{number}", value)
    if value is None or isinstance(value, bool):
        kind = {None: "null", True: "true", False: "false"}[value]
        return _Term(f"metadata {kind}", number, (path, equal, equal))
    kind = "text" if isinstance(value, str) else "number"
    return _Term(f"metadata {kind}", number, (path, equal, path))


def _pattern(words: str) -> str:
    """What a text that holds some words is like."""
    return "%" + words.replace(_ESCAPE, _ESCAPE * 2).replace("%", _ESCAPE + "%").replace("_", _ESCAPE + "_") + "%"


def _joined(terms: Iterable[_Term]) -> tuple[str, list[Any]]:
    """The text of conditions that hold together, and their values."""
    conditions, values = [], []
    for term in terms:
        conditions.append(_CONDITIONS[term.name])
        values += [value for _, value in term.values]
    return " AND ".join(conditions) or "1", values


def _page_query(terms: Iterable[_Term], few: _Few | None) -> tuple[str, list[Any]]:
    """The text of a page's query and its values, all but the last, which is how many it shows."""
    if few is not None:
        conditions, values = _joined(term for term in terms if term is not few.term)
        return sql.PAGE_OF_FEW_SESSIONS.format(keys=few.keys, conditions=conditions), [*few.values, *values]
    tag = next((term for term in terms if term.name == "tag"), None)
    if tag is None:
        conditions, values = _joined(terms)
        return sql.PAGE_OF_SESSIONS.format(conditions=conditions), values
    walked, first = _joined(term for term in terms if term.name in _IN_INDEX)
    conditions, values = _joined(term for term in terms if term is not tag)
    return sql.PAGE_OF_SESSIONS_BY_TAG.format(walked=walked, conditions=conditions), [tag.values[0][1], *first, *values]


def _whole_query(of_all: str, of_few: str, db: Transaction, wanted: SessionFilter) -> tuple[str, list[Any]]:
    """The text and the values of a query for all sessions of a filter."""
    conditions, values = _joined(_terms(db, wanted))
    few = _few_over(db, wanted)
    if few is None:
        return of_all.format(conditions=conditions), values
    return of_few.format(keys=few.keys, conditions=conditions), [*few.values, *values]


def _few_over(db: Transaction, wanted: SessionFilter) -> _Few | None:
    """The sessions whose life is over, if these are wanted and few."""
    if wanted.status != EXPIRED_STATUS:
        return None
    if wanted.namespace is None:
        few = _Few(sql.KEYS_OVER, (db.now_text,))
    else:
        few = _Few(sql.KEYS_OVER_HERE, (wanted.namespace, db.now_text))
    most = min(max(_sessions_at_most(db) // _PRICE, _FEW_OVER.start), _FEW_OVER.stop)
    return few if _are_fewer(db, few, most) else None


def _rare_tag(db: Transaction, terms: Iterable[_Term], shown: int) -> _Few | None:
    """The sessions with a tag, if so few have it that these are looked up: a common tag is met soon by looking at all.

    To meet `shown` sessions of n with a tag takes shown / n of all steps, to look these up n times what a look-up costs.
    """
    tags = [term for term in terms if term.name == "tag"]
    if not tags:
        return None
    most = max(shown, math.isqrt(int(shown * _sessions_at_most(db) / _STEPS_A_LOOKUP)))
    tagged = (_Few(sql.KEYS_OF_TAG, (term.values[0][1],), term) for term in tags)
    return next((few for few in tagged if _are_fewer(db, few, most)), None)


def _sessions_at_most(db: Transaction) -> int:
    """The newest key tells how many sessions there are at most, and costs nothing."""
    return db.driver.execute(sql.NEWEST_SESSION_KEY).fetchall()[0][0] or 0


def _are_fewer(db: Transaction, few: _Few, most: int) -> bool:
    return bool(db.driver.execute(sql.COUNT_KEYS.format(keys=few.keys), (*few.values, most)).fetchall()[0][0] < most)


def _tags(array: str) -> tuple[str, ...]:
    """The tags of a JSON array. Most have none, and need no decoder."""
    return () if array == "[]" else tuple(decoded(array))


def _cursor(row: tuple[Any, ...], wanted: SessionFilter) -> str:
    return sealed([_CURSOR_VERSION, row[sessions.UPDATED_AT], row[sessions.KEY]], astuple(wanted))


def _read_cursor(cursor: str, wanted: SessionFilter) -> _Term:
    updated_at, key = opened("next_cursor", cursor, astuple(wanted))[1:]
    return _Term("cursor", "", (("updated_at", updated_at), ("updated_at", updated_at), ("key", key)))
