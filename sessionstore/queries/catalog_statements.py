"""The statements about many sessions, for `statements.HOT`: what filters mean, and the queries that take such conditions.

A condition is compiled as it stands among others, and a query with a place in braces where the text of conditions, or of what
they are about, is put in: so whatever filters are given, the text of a page is joined from compiled parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler

from ..values import MAX_SEQ, SEQ_BITS
from .dialect import NO_OFFSET, CrossJoin, as_stored, contains_text, json_array_of, json_equals, parts_contain_text
from .tables import BLOB_REFERENCES, BLOBS, HOLDS_NAME, IN_TIME, IS_OPEN, MESSAGES, OVERDUE, RANGES, SESSIONS, TAGS

_KEY: Final = SESSIONS.c.session_key
_MOST: Final[sa.BindParameter[int]] = sa.bindparam("most")
_UPDATED_AT: Final = sa.type_coerce(SESSIONS.c.updated_at, sa.String)
_NEWEST_FIRST: Final = (_UPDATED_AT.desc(), _KEY.desc())
TAGS_AS_JSON: Final = json_array_of(
    sa.select(TAGS.c.tag).where(TAGS.c.session_key == _KEY).order_by(TAGS.c.tag).correlate(SESSIONS)
)
_PAGE_COLUMNS: Final = (*(as_stored(column) for column in SESSIONS.c), TAGS_AS_JSON)


def _has_words(words: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Whether a message holds some words: in its row, in the parts of its content, packed, or in a blob (see `hidden_words`)."""
    is_packed = MESSAGES.c.packed.is_not(None)
    packed = sa.and_(is_packed, contains_text(sa.func.packed_words(MESSAGES.c.packed), words))
    blob = sa.func.blob_words(
        sa.type_coerce(MESSAGES.c.facts, sa.Text), BLOBS.c.hash, BLOBS.c.size_bytes, BLOBS.c.encoding, BLOBS.c.data
    )
    in_blob = sa.exists().where(
        BLOB_REFERENCES.c.message_id == MESSAGES.c.id, BLOBS.c.hash == BLOB_REFERENCES.c.hash, contains_text(blob, words)
    )
    return sa.or_(
        contains_text(MESSAGES.c.text, words),
        parts_contain_text(MESSAGES.c.extra, words),
        packed,
        sa.and_(MESSAGES.c.facts.is_not(None), in_blob),
    )


def _has_message_with(words: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    first = _KEY.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_session = sa.and_(MESSAGES.c.id > first, MESSAGES.c.id <= first.op("|")(sa.literal_column(str(MAX_SEQ))))
    low = RANGES.c.owner_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_range = MESSAGES.c.id.between(low.op("+")(RANGES.c.first_seq), low.op("+")(RANGES.c.last_seq))
    inherited = sa.exists().where(RANGES.c.session_key == _KEY, in_range, _has_words(words))
    return sa.or_(sa.exists().where(in_session, _has_words(words)), inherited)


_WORDS: Final[sa.BindParameter[str]] = sa.bindparam("words")
_EARLIER: Final = sa.or_(sa.bindparam("updated_at") > _UPDATED_AT, SESSIONS.c.session_key < sa.bindparam("key"))
# Name -> (condition, its parameters in the order in which `catalog` gives them).
_CONDITIONS: Final[dict[str, tuple[sa.ColumnElement[bool], tuple[str, ...]]]] = {
    "live": (sa.and_(HOLDS_NAME, IN_TIME), ("at",)),
    "open": (sa.and_(IS_OPEN, IN_TIME), ("at",)),
    "expired": (sa.or_(sa.not_(HOLDS_NAME), OVERDUE), ("at",)),
    "status": (SESSIONS.c.status == sa.bindparam("status"), ("status",)),
    "namespace": (SESSIONS.c.namespace == sa.bindparam("namespace"), ("namespace",)),
    "pinned": (SESSIONS.c.pinned == sa.bindparam("pinned"), ("pinned",)),
    "agent_id": (SESSIONS.c.agent_id == sa.bindparam("agent_id"), ("agent_id",)),
    "user_id": (SESSIONS.c.user_id == sa.bindparam("user_id"), ("user_id",)),
    "without agent_id": (SESSIONS.c.agent_id.is_(None), ()),
    "without user_id": (SESSIONS.c.user_id.is_(None), ()),
    "archived": (SESSIONS.c.archived_at.is_not(None), ()),
    "not archived": (SESSIONS.c.archived_at.is_(None), ()),
    "since": (sa.bindparam("since") <= _UPDATED_AT, ("since",)),
    "until": (sa.bindparam("until") > _UPDATED_AT, ("until",)),
    "text": (sa.or_(contains_text(SESSIONS.c.title, _WORDS), _has_message_with(_WORDS)), ("words",) * 9),
    "cursor": (sa.and_(sa.bindparam("updated_at") >= _UPDATED_AT, _EARLIER), ("updated_at", "updated_at", "key")),
}


def conditions_of(shape: Iterable[tuple[str, str]]) -> list[sa.ColumnElement[bool]]:
    """The conditions on `sessions` of all filters of one shape (see `catalog.shape_of`)."""
    return [_condition(name, number) for name, number in shape]


def _condition(name: str, number: str) -> sa.ColumnElement[bool]:
    """A condition; of those that may be given several times, the number tells the parameters apart."""
    if name in _CONDITIONS:
        return _CONDITIONS[name][0]
    if name == "tag":
        return sa.exists().where(TAGS.c.session_key == _KEY, TAGS.c.tag == sa.bindparam(f"tag_{number}"))
    kind = name.removeprefix("metadata ")
    return json_equals(SESSIONS.c.metadata, sa.bindparam(f"key_{number}"), sa.bindparam(f"value_{number}"), kind)


class _Among(sa.ClauseElement):
    """A condition as it is written among others that hold too."""

    inherit_cache = False

    def __init__(self, condition: sa.ColumnElement[bool]) -> None:
        grouped = condition.self_group(against=operators.and_)
        self.found: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(SESSIONS).where(grouped)


@compiles(_Among, "sqlite")
def _among(condition: _Among, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(condition.found, **options).partition("WHERE ")[2]


def _hole(name: str) -> sa.TextClause:
    """Where `catalog` puts in the text of something else."""
    return sa.text(f"{{{name}}}")


# Sessions that are so few that they are looked up by their keys.
_GIVEN: Final = _hole("keys").columns(sa.Column("session_key", sa.Integer))
_CHOSEN: Final = _GIVEN.subquery("chosen")
_FEW: Final = CrossJoin(_CHOSEN, SESSIONS, _CHOSEN.c.session_key == _KEY)
# Each half has an index of its own; what is due stands there without its namespace.
_SETTLED: Final = sa.select(_KEY.label("session_key")).where(SESSIONS.c.status == sa.literal_column("'expired'"))
_DUE: Final = sa.select(_KEY.label("session_key")).where(OVERDUE)
_NAMES: Final = sa.select(_KEY, SESSIONS.c.session_id).order_by(_KEY)


def _page_of_few() -> sa.Select[Any]:
    """The page of sessions that are looked up: only their keys are sorted, and only what is shown is read as a whole."""
    keys = sa.select(_KEY).select_from(_FEW).where(_hole("conditions"))
    shown = keys.order_by(*_NEWEST_FIRST).limit(_MOST).offset(NO_OFFSET).subquery("shown")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(shown, SESSIONS, shown.c.session_key == _KEY))
    return found.order_by(*_NEWEST_FIRST)


def _page_by_tag() -> sa.Select[Any]:
    """The page of sessions with a common tag: an index is walked in the order of change, and who has the tag is read as a whole."""
    has_tag = sa.and_(TAGS.c.session_key == _KEY, TAGS.c.tag == sa.bindparam("tag"))
    walked = sa.select(_KEY, _UPDATED_AT.label("updated_at")).select_from(CrossJoin(SESSIONS, TAGS, has_tag))
    met = walked.where(_hole("walked")).subquery("met")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(met, SESSIONS, met.c.session_key == _KEY)).where(_hole("conditions"))
    return found.order_by(met.c.updated_at.desc(), met.c.session_key.desc()).limit(_MOST).offset(NO_OFFSET)


HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    **{
        f"WHERE_{name.upper().replace(' ', '_')}": (_Among(condition), parameters)
        for name, (condition, parameters) in _CONDITIONS.items()
    },
    "WHERE_TAG": (_Among(_condition("tag", "0")), ("tag_0",)),
    **{
        f"WHERE_METADATA_{kind.upper()}": (_Among(_condition(f"metadata {kind}", "0")), ("key_0", *others))
        for kind, others in {
            "null": ("value_0", "value_0"),
            "true": ("value_0", "value_0"),
            "false": ("value_0", "value_0"),
            "number": ("value_0", "key_0"),
            "text": ("value_0", "key_0"),
        }.items()
    },
    "PAGE_OF_SESSIONS": (
        sa.select(*_PAGE_COLUMNS).where(_hole("conditions")).order_by(*_NEWEST_FIRST).limit(_MOST).offset(NO_OFFSET),
        ("most",),
    ),
    "PAGE_OF_SESSIONS_BY_TAG": (_page_by_tag(), ("tag", "most")),
    "PAGE_OF_FEW_SESSIONS": (_page_of_few(), ("most",)),
    "COUNT_SESSIONS": (sa.select(sa.func.count()).select_from(SESSIONS).where(_hole("conditions")), ()),
    "COUNT_FEW_SESSIONS": (sa.select(sa.func.count()).select_from(_FEW).where(_hole("conditions")), ()),
    "NAMES_OF_SESSIONS": (_NAMES.where(_hole("conditions")), ()),
    "NAMES_OF_FEW_SESSIONS": (_NAMES.select_from(_FEW).where(_hole("conditions")), ()),
    "KEYS_OF_TAG": (sa.select(TAGS.c.session_key.label("session_key")).where(TAGS.c.tag == sa.bindparam("tag")), ("tag",)),
    "KEYS_OVER": (sa.union_all(_SETTLED, _DUE), ("at",)),
    "KEYS_OVER_HERE": (
        sa.union_all(_SETTLED.where(SESSIONS.c.namespace == sa.bindparam("namespace")), _DUE),
        ("namespace", "at"),
    ),
    "COUNT_KEYS": (
        sa.select(sa.func.count()).select_from(sa.select(_GIVEN.subquery()).limit(_MOST).offset(NO_OFFSET).subquery()),
        ("most",),
    ),
    "NEWEST_SESSION_KEY": (sa.select(sa.func.max(_KEY)), ()),
    "NAMESPACES": (
        sa.select(SESSIONS.c.namespace).where(HOLDS_NAME, IN_TIME).distinct().order_by(SESSIONS.c.namespace),
        ("at",),
    ),
    "TAG_COUNTS": (
        sa.select(TAGS.c.tag, sa.func.count())
        .join(SESSIONS, SESSIONS.c.session_key == TAGS.c.session_key)
        .where(SESSIONS.c.namespace == sa.bindparam("namespace"), HOLDS_NAME, IN_TIME)
        .group_by(TAGS.c.tag)
        .order_by(TAGS.c.tag),
        ("namespace", "at"),
    ),
}
