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

from ..models import BlobReferenceRow, BlobRow, InheritedRangeRow, MessageRow, SessionRow, SessionTagRow
from ..values import MAX_SEQ, SEQ_BITS
from .dialect import CrossJoin, as_stored, contains_text, json_array_of, json_equals, parts_contain_text

_SESSIONS: Final[sa.Table] = SessionRow.__table__  # type: ignore[attr-defined]
_TAGS: Final[sa.Table] = SessionTagRow.__table__  # type: ignore[attr-defined]
_MESSAGES: Final[sa.Table] = MessageRow.__table__  # type: ignore[attr-defined]
_RANGES: Final[sa.Table] = InheritedRangeRow.__table__  # type: ignore[attr-defined]
_BLOBS: Final[sa.Table] = BlobRow.__table__  # type: ignore[attr-defined]
_REFERENCES: Final[sa.Table] = BlobReferenceRow.__table__  # type: ignore[attr-defined]

_KEY: Final = _SESSIONS.c.session_key
_NO_OFFSET: Final[sa.ColumnElement[int]] = sa.literal_column("0")
_MOST: Final[sa.BindParameter[int]] = sa.bindparam("most")
_AT: Final[sa.BindParameter[str]] = sa.bindparam("at")
_EXPIRES_AT: Final = sa.type_coerce(_SESSIONS.c.expires_at, sa.String)
_UPDATED_AT: Final = sa.type_coerce(_SESSIONS.c.updated_at, sa.String)
_NEWEST_FIRST: Final = (_UPDATED_AT.desc(), _KEY.desc())
# As in `statements`, which cannot be imported from here: a test compares.
HOLDS_NAME: Final = _SESSIONS.c.status != sa.literal_column("'expired'")
IS_OPEN: Final = _SESSIONS.c.status == sa.literal_column("'open'")
IN_TIME: Final = sa.or_(_SESSIONS.c.expires_at.is_(None), _AT < _EXPIRES_AT)
OVERDUE: Final = sa.and_(IS_OPEN, _AT >= _EXPIRES_AT)

TAGS_AS_JSON: Final = json_array_of(
    sa.select(_TAGS.c.tag).where(_TAGS.c.session_key == _KEY).order_by(_TAGS.c.tag).correlate(_SESSIONS)
)
_PAGE_COLUMNS: Final = (*(as_stored(column) for column in _SESSIONS.c), TAGS_AS_JSON)


def _has_words(words: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Whether a message holds some words: in its row, in the parts of its content, packed, or in a blob (see `hidden_words`)."""
    is_packed = _MESSAGES.c.packed.is_not(None)
    packed = sa.and_(is_packed, contains_text(sa.func.packed_words(_MESSAGES.c.packed), words))
    blob = sa.func.blob_words(
        sa.type_coerce(_MESSAGES.c.facts, sa.Text), _BLOBS.c.hash, _BLOBS.c.size_bytes, _BLOBS.c.encoding, _BLOBS.c.data
    )
    in_blob = sa.exists().where(
        _REFERENCES.c.message_id == _MESSAGES.c.id, _BLOBS.c.hash == _REFERENCES.c.hash, contains_text(blob, words)
    )
    return sa.or_(
        contains_text(_MESSAGES.c.text, words),
        parts_contain_text(_MESSAGES.c.extra, words),
        packed,
        sa.and_(_MESSAGES.c.facts.is_not(None), in_blob),
    )


def _has_message_with(words: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    first = _KEY.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_session = sa.and_(_MESSAGES.c.id > first, _MESSAGES.c.id <= first.op("|")(sa.literal_column(str(MAX_SEQ))))
    low = _RANGES.c.owner_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_range = _MESSAGES.c.id.between(low.op("+")(_RANGES.c.first_seq), low.op("+")(_RANGES.c.last_seq))
    inherited = sa.exists().where(_RANGES.c.session_key == _KEY, in_range, _has_words(words))
    return sa.or_(sa.exists().where(in_session, _has_words(words)), inherited)


_WORDS: Final[sa.BindParameter[str]] = sa.bindparam("words")
_EARLIER: Final = sa.or_(sa.bindparam("updated_at") > _UPDATED_AT, _SESSIONS.c.session_key < sa.bindparam("key"))
# Name -> (condition, its parameters in the order in which `catalog` gives them).
_CONDITIONS: Final[dict[str, tuple[sa.ColumnElement[bool], tuple[str, ...]]]] = {
    "live": (sa.and_(HOLDS_NAME, IN_TIME), ("at",)),
    "open": (sa.and_(IS_OPEN, IN_TIME), ("at",)),
    "expired": (sa.or_(sa.not_(HOLDS_NAME), OVERDUE), ("at",)),
    "status": (_SESSIONS.c.status == sa.bindparam("status"), ("status",)),
    "namespace": (_SESSIONS.c.namespace == sa.bindparam("namespace"), ("namespace",)),
    "pinned": (_SESSIONS.c.pinned == sa.bindparam("pinned"), ("pinned",)),
    "agent_id": (_SESSIONS.c.agent_id == sa.bindparam("agent_id"), ("agent_id",)),
    "user_id": (_SESSIONS.c.user_id == sa.bindparam("user_id"), ("user_id",)),
    "without agent_id": (_SESSIONS.c.agent_id.is_(None), ()),
    "without user_id": (_SESSIONS.c.user_id.is_(None), ()),
    "archived": (_SESSIONS.c.archived_at.is_not(None), ()),
    "not archived": (_SESSIONS.c.archived_at.is_(None), ()),
    "since": (sa.bindparam("since") <= _UPDATED_AT, ("since",)),
    "until": (sa.bindparam("until") > _UPDATED_AT, ("until",)),
    "text": (sa.or_(contains_text(_SESSIONS.c.title, _WORDS), _has_message_with(_WORDS)), ("words",) * 9),
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
        return sa.exists().where(_TAGS.c.session_key == _KEY, _TAGS.c.tag == sa.bindparam(f"tag_{number}"))
    kind = name.removeprefix("metadata ")
    return json_equals(_SESSIONS.c.metadata, sa.bindparam(f"key_{number}"), sa.bindparam(f"value_{number}"), kind)


class _Among(sa.ClauseElement):
    """A condition as it is written among others that hold too."""

    inherit_cache = False

    def __init__(self, condition: sa.ColumnElement[bool]) -> None:
        grouped = condition.self_group(against=operators.and_)
        self.found: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(_SESSIONS).where(grouped)


@compiles(_Among, "sqlite")
def _among(condition: _Among, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(condition.found, **options).partition("WHERE ")[2]


def _hole(name: str) -> sa.TextClause:
    """Where `catalog` puts in the text of something else."""
    return sa.text(f"{{{name}}}")


# Sessions that are so few that they are looked up by their keys.
_GIVEN: Final = _hole("keys").columns(sa.Column("session_key", sa.Integer))
_CHOSEN: Final = _GIVEN.subquery("chosen")
_FEW: Final = CrossJoin(_CHOSEN, _SESSIONS, _CHOSEN.c.session_key == _KEY)
# Each half has an index of its own; what is due stands there without its namespace.
_SETTLED: Final = sa.select(_KEY.label("session_key")).where(_SESSIONS.c.status == sa.literal_column("'expired'"))
_DUE: Final = sa.select(_KEY.label("session_key")).where(OVERDUE)
_NAMES: Final = sa.select(_KEY, _SESSIONS.c.session_id).order_by(_KEY)


def _page_of_few() -> sa.Select[Any]:
    """The page of sessions that are looked up: only their keys are sorted, and only what is shown is read as a whole."""
    keys = sa.select(_KEY).select_from(_FEW).where(_hole("conditions"))
    shown = keys.order_by(*_NEWEST_FIRST).limit(_MOST).offset(_NO_OFFSET).subquery("shown")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(shown, _SESSIONS, shown.c.session_key == _KEY))
    return found.order_by(*_NEWEST_FIRST)


def _page_by_tag() -> sa.Select[Any]:
    """The page of sessions with a common tag: an index is walked in the order of change, and who has the tag is read as a whole."""
    has_tag = sa.and_(_TAGS.c.session_key == _KEY, _TAGS.c.tag == sa.bindparam("tag"))
    walked = sa.select(_KEY, _UPDATED_AT.label("updated_at")).select_from(CrossJoin(_SESSIONS, _TAGS, has_tag))
    met = walked.where(_hole("walked")).subquery("met")
    found = sa.select(*_PAGE_COLUMNS).select_from(CrossJoin(met, _SESSIONS, met.c.session_key == _KEY)).where(_hole("conditions"))
    return found.order_by(met.c.updated_at.desc(), met.c.session_key.desc()).limit(_MOST).offset(_NO_OFFSET)


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
        sa.select(*_PAGE_COLUMNS).where(_hole("conditions")).order_by(*_NEWEST_FIRST).limit(_MOST).offset(_NO_OFFSET),
        ("most",),
    ),
    "PAGE_OF_SESSIONS_BY_TAG": (_page_by_tag(), ("tag", "most")),
    "PAGE_OF_FEW_SESSIONS": (_page_of_few(), ("most",)),
    "COUNT_SESSIONS": (sa.select(sa.func.count()).select_from(_SESSIONS).where(_hole("conditions")), ()),
    "COUNT_FEW_SESSIONS": (sa.select(sa.func.count()).select_from(_FEW).where(_hole("conditions")), ()),
    "NAMES_OF_SESSIONS": (_NAMES.where(_hole("conditions")), ()),
    "NAMES_OF_FEW_SESSIONS": (_NAMES.select_from(_FEW).where(_hole("conditions")), ()),
    "KEYS_OF_TAG": (sa.select(_TAGS.c.session_key.label("session_key")).where(_TAGS.c.tag == sa.bindparam("tag")), ("tag",)),
    "KEYS_OVER": (sa.union_all(_SETTLED, _DUE), ("at",)),
    "KEYS_OVER_HERE": (
        sa.union_all(_SETTLED.where(_SESSIONS.c.namespace == sa.bindparam("namespace")), _DUE),
        ("namespace", "at"),
    ),
    "COUNT_KEYS": (
        sa.select(sa.func.count()).select_from(sa.select(_GIVEN.subquery()).limit(_MOST).offset(_NO_OFFSET).subquery()),
        ("most",),
    ),
    "NEWEST_SESSION_KEY": (sa.select(sa.func.max(_KEY)), ()),
    "NAMESPACES": (
        sa.select(_SESSIONS.c.namespace).where(HOLDS_NAME, IN_TIME).distinct().order_by(_SESSIONS.c.namespace),
        ("at",),
    ),
    "TAG_COUNTS": (
        sa.select(_TAGS.c.tag, sa.func.count())
        .join(_SESSIONS, _SESSIONS.c.session_key == _TAGS.c.session_key)
        .where(_SESSIONS.c.namespace == sa.bindparam("namespace"), HOLDS_NAME, IN_TIME)
        .group_by(_TAGS.c.tag)
        .order_by(_TAGS.c.tag),
        ("namespace", "at"),
    ),
}
