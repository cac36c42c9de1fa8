"""The texts of the queries that a search runs. Each depends only on which terms and filters are given, so it is made once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa

from ..values import SEQ_BITS
from . import catalog_statements
from .dialect import CrossJoin, as_stored
from .statements import parameters_of, text_of
from .tables import MESSAGE_COLUMNS, MESSAGES, SESSION_COLUMNS, SESSIONS

_ID_OF: Final = {
    "words": "message_words.rowid",
    "trigrams": "message_trigrams.rowid",
    "unspaced": "message_trigrams_docsize.id",
    "given": "given.value",
}


class Shape(NamedTuple):
    """What the text of a query depends on."""

    source: Literal["words", "trigrams", "unspaced", "given"]
    has_trigrams: bool = False
    short_parts: int = 0
    filters: tuple[str, ...] = ()
    in_pieces: bool = False
    of_owners: bool = False
    is_ranked: bool = False


def _values_of(name: str) -> sa.ColumnElement[Any]:
    """The values of a parameter that is a JSON array."""
    return sa.func.json_each(sa.bindparam(name)).table_valued("value").c.value


_GIVEN: Final = sa.select(_values_of("ids"))


@functools.lru_cache(maxsize=256)
def hits(shape: Shape) -> tuple[str, tuple[str, ...]]:
    """The text of a query for messages, whoever may see them, and the names of its parameters: the id and rank of each."""
    identity: sa.ColumnElement[int] = sa.literal_column(_ID_OF[shape.source], sa.Integer)
    found = sa.select(identity, _rank(shape)).select_from(_source(shape, identity))
    found = found.where(*_matching(shape, identity), *_filtering(shape))
    if shape.is_ranked:
        found = found.order_by(_rank(shape))
    return text_of(found), parameters_of(found)


def _rank(shape: Shape) -> sa.ColumnElement[float]:
    return sa.literal_column(f"message_{shape.source}.rank" if shape.is_ranked else "0.0", sa.Float)


def _source(shape: Shape, identity: sa.ColumnElement[int]) -> sa.FromClause:
    """What the ids come from, pieces of a session first; each is a join that keeps this order."""
    source: sa.FromClause
    if shape.source == "given":
        source = sa.func.json_each(sa.bindparam("ids")).table_valued("value", name="given")
    else:
        source = sa.table("message_trigrams_docsize" if shape.source == "unspaced" else f"message_{shape.source}")
    if shape.in_pieces:
        piece = sa.func.json_each(sa.bindparam("pieces")).table_valued("value", name="piece")
        first, last = (sa.func.json_extract(piece.c.value, sa.literal_column(f"'$[{end}]'")) for end in (0, 1))
        source = CrossJoin(piece, source, identity.between(first, last))
    # What was damaged when it was deleted may still be in the index.
    return CrossJoin(source, MESSAGES, MESSAGES.c.id == identity)


def _matching(shape: Shape, identity: sa.ColumnElement[int]) -> Iterator[sa.ColumnElement[bool]]:
    if shape.source == "words":
        yield sa.literal_column("message_words").op("MATCH", is_comparison=True)(sa.bindparam("words"))
    if shape.has_trigrams:
        has_trigrams = sa.literal_column("message_trigrams").op("MATCH", is_comparison=True)(sa.bindparam("trigrams"))
        if shape.source == "trigrams":
            yield has_trigrams
        else:
            rowid = sa.literal_column("message_trigrams.rowid", sa.Integer)
            holders = sa.select(rowid).select_from(sa.table("message_trigrams")).where(has_trigrams)
            # Without the plus SQLite would search anew for each of them.
            yield sa.literal_column(f"+{_ID_OF[shape.source]}", sa.Integer).in_(holders)
    if shape.of_owners:
        yield identity.op(">>")(sa.literal_column(str(SEQ_BITS))).in_(sa.select(_values_of("owners")))
    in_blob = sa.func.instr(MESSAGES.c.facts, sa.literal_column("'\"blobs\"'")) > sa.literal_column("0")
    for number in range(shape.short_parts):
        # Texts elsewhere than in their column are looked at afterwards, as all others are once more.
        holds = sa.func.instr(MESSAGES.c.text, sa.bindparam(f"part_{number}")) > sa.literal_column("0")
        yield sa.or_(MESSAGES.c.text.is_(None), MESSAGES.c.extra.is_not(None), in_blob, holds)


def _filtering(shape: Shape) -> Iterator[sa.ColumnElement[bool]]:
    created_at = sa.type_coerce(MESSAGES.c.created_at, sa.String)
    conditions = {
        "role": MESSAGES.c.role == sa.bindparam("role"),
        "since": created_at >= sa.bindparam("after"),
        "until": created_at < sa.bindparam("before"),
    }
    return (conditions[name] for name in shape.filters)


@functools.lru_cache(maxsize=64)
def sessions_chosen(shape: tuple[tuple[str, str], ...]) -> tuple[str, tuple[str, ...]]:
    """The text of a query for the keys of the sessions that filters choose, last changed first, and the names of its parameters."""
    updated_at = sa.type_coerce(SESSIONS.c.updated_at, sa.String)
    found = sa.select(SESSIONS.c.session_key).where(*catalog_statements.conditions_of(shape))
    found = found.order_by(updated_at.desc(), SESSIONS.c.session_key.desc())
    return text_of(found), parameters_of(found)


@functools.lru_cache(maxsize=64)
def is_chosen(shape: tuple[tuple[str, str], ...]) -> tuple[str, tuple[str, ...]]:
    """The text of a query for a session, if filters choose it, and the names of its parameters."""
    key = SESSIONS.c.session_key
    found = sa.select(key).where(key == sa.bindparam("key"), *catalog_statements.conditions_of(shape))
    return text_of(found), parameters_of(found)


@functools.cache
def updates() -> str:
    """The text of a query for keys of sessions and when these were changed."""
    return text_of(sa.select(SESSIONS.c.session_key, as_stored(SESSIONS.c.updated_at)).where(SESSIONS.c.session_key.in_(_GIVEN)))


@functools.cache
def rows() -> str:
    """The text of a query for message rows."""
    return text_of(sa.select(*map(as_stored, MESSAGE_COLUMNS)).where(MESSAGES.c.id.in_(_GIVEN)))


@functools.cache
def infos() -> str:
    """The text of a query for rows of sessions, each with its tags."""
    columns = (*map(as_stored, SESSION_COLUMNS), catalog_statements.TAGS_AS_JSON)
    return text_of(sa.select(*columns).where(SESSIONS.c.session_key.in_(_GIVEN)))
