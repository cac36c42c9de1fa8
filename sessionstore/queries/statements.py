"""The statements of the hot path, built from the models, and the writer of `sessionstore/sql.py`, their compiled text.

The text is kept in the package, so that opening a store and appending to it loads neither the models nor pydantic, which
would double the start of a small program. `make sql` writes it again; a test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ..models import SCHEMA_METADATA
from . import blob_statements, catalog_statements, state_statements
from .dialect import NO_OFFSET
from .tables import (
    HOLDS,
    HOLDS_NAME,
    IN_TIME,
    IS_DEAD,
    IS_PENDING,
    IS_UNSUPPORTED,
    MESSAGE_COLUMNS,
    MESSAGES,
    METRIC_EVENTS,
    OUTBOX,
    OVERDUE,
    RANGES,
    SESSION_COLUMNS,
    SESSIONS,
    STORE_INFO,
    SYNC_STATE,
    TAGS,
    UNANSWERED,
)

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
_OUTPUT: Final = Path(__file__).parent.parent / "sql.py"
_NAMED: Final = sa.and_(SESSIONS.c.namespace == sa.bindparam("namespace"), SESSIONS.c.session_id == sa.bindparam("session_id"))
_BY_NAME: Final = sa.and_(_NAMED, HOLDS_NAME, IN_TIME)
_IN_RANGE: Final = sa.and_(MESSAGES.c.id > sa.bindparam("after"), MESSAGES.c.id < sa.bindparam("before"))


def _insert(table: sa.Table, *names: str) -> sqlite.Insert:
    return sqlite.insert(table).values({name: sa.bindparam(name) for name in names})


_NEW_SESSION_COLUMNS: Final = ("namespace", "session_id", "user_id", "agent_id", "title", "status", "pinned", "metadata", "version",
                               "message_count", "next_seq", "created_at", "updated_at", "expires_at", "ttl_seconds",
                               "max_age_seconds", "tracked")  # fmt: skip
_OUTBOX_COLUMNS: Final = ("key", "stream", "kind", "namespace", "body", "state", "attempts", "occurred_at", "created_at",
                          "size_bytes")  # fmt: skip
_HOLD_COLUMNS: Final = ("namespace", "stream", "token", "held_until")
_UNANSWERED_COLUMNS: Final = ("namespace", "stream", "arrives_until")
QUEUED_COLUMNS: Final = tuple(
    OUTBOX.c[name]
    for name in ("id", "key", "stream", "kind", "namespace", "body", "attempts", "occurred_at", "size_bytes", "last_status",
                 "sent_before")
)  # fmt: skip
_REFUSED_COLUMNS: Final = ("state", "attempts", "next_at", "last_status", "last_error", "settled_at", "sent_before")
_RANGE_COLUMNS: Final = ("session_key", "first_seq", "last_seq", "owner_key")
_FORK_COLUMNS: Final = ("message_count", "next_seq", "asked_at", "parent_key", "forked_at", "inherits_through", "indexed_seq")
_TROUBLE_COLUMNS: Final = ("failures", "failing_since", "retry_at", "paused", "last_status", "last_error")
_BYTES: Final = sa.func.coalesce(sa.func.sum(OUTBOX.c.size_bytes), sa.literal_column("0"))
_HELD_UNTIL: Final = sa.type_coerce(HOLDS.c.held_until, sa.String)
# A hold that ends later than any hold may was made by a clock that was ahead.
_LASTS: Final = sa.and_(sa.bindparam("at") < _HELD_UNTIL, sa.bindparam("latest") >= _HELD_UNTIL)
_ARRIVES_UNTIL: Final = sa.type_coerce(UNANSWERED.c.arrives_until, sa.String)
_MAY_ARRIVE: Final = sa.and_(sa.bindparam("at") < _ARRIVES_UNTIL, sa.bindparam("latest") >= _ARRIVES_UNTIL)
# Found once, not for each event: a stream that is held may have very many.
_HELD_BY_OTHERS: Final = sa.tuple_(OUTBOX.c.namespace, OUTBOX.c.stream).in_(
    sa.select(HOLDS.c.namespace, HOLDS.c.stream).where(_LASTS, HOLDS.c.token.is_distinct_from(sa.bindparam("token")))
)
_NAMED_IDS: Final = sa.select(sa.func.json_each(sa.bindparam("ids")).table_valued("value").c.value)
_METRIC_COLUMNS: Final = ("namespace", "name", "value", "unit", "agent_id", "session_id", "attributes", "occurred_at")


def _note_unanswered() -> sqlite.Insert:
    """Note the streams of a claim. Others have other timeouts: what they left may arrive later than this."""
    claimed = sa.select(HOLDS.c.namespace, HOLDS.c.stream, sa.bindparam("until")).where(HOLDS.c.token == sa.bindparam("token"))
    noted = sqlite.insert(UNANSWERED).from_select(_UNANSWERED_COLUMNS, claimed)
    latest = sa.func.max(UNANSWERED.c.arrives_until, noted.excluded.arrives_until)
    return noted.on_conflict_do_update(index_elements=[*UNANSWERED.primary_key], set_={"arrives_until": latest})


def _kept_unless(name: str) -> sa.ColumnElement[Any]:
    """A column's new value if it is given, and else the old one; None can be given."""
    return sa.case((sa.bindparam(f"has_{name}"), sa.bindparam(name)), else_=SESSIONS.c[name])


# Name -> (statement, its parameters in the order in which the callers give them).
HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "FIND_SESSION": (sa.select(*SESSION_COLUMNS).where(_BY_NAME), ("namespace", "session_id", "at")),
    "FIND_SESSION_KEY": (
        sa.select(SESSIONS.c.session_key, SESSIONS.c.message_count, SESSIONS.c.inherits_through).where(_BY_NAME),
        ("namespace", "session_id", "at"),
    ),
    "FIND_HOLDER": (sa.select(*SESSION_COLUMNS).where(_NAMED, HOLDS_NAME), ("namespace", "session_id")),
    "FIND_NEWEST_EXPIRED": (
        sa.select(*SESSION_COLUMNS)
        .where(_NAMED, SESSIONS.c.status == sa.literal_column("'expired'"))
        .order_by(SESSIONS.c.session_key.desc())
        .limit(sa.literal_column("1"))
        .offset(NO_OFFSET),
        ("namespace", "session_id"),
    ),
    "INSERT_SESSION": (
        _insert(SESSIONS, *_NEW_SESSION_COLUMNS)
        .on_conflict_do_nothing(index_elements=["namespace", "session_id"], index_where=HOLDS_NAME)
        .returning(*SESSION_COLUMNS),
        _NEW_SESSION_COLUMNS,
    ),
    "READ_STORE_ID": (sa.select(STORE_INFO.c.store_id), ()),
    "INSERT_TAG": (_insert(TAGS, "session_key", "tag"), ("session_key", "tag")),
    "TAGS_OF_SESSION": (
        sa.select(TAGS.c.tag).where(TAGS.c.session_key == sa.bindparam("session_key")).order_by(TAGS.c.tag),
        ("session_key",),
    ),
    "RESERVE_SEQS": (
        sa.update(SESSIONS)
        .values(
            message_count=SESSIONS.c.message_count + sa.bindparam("count_"),
            next_seq=SESSIONS.c.next_seq + sa.bindparam("seqs"),
            updated_at=sa.bindparam("now"),
            asked_at=sa.func.coalesce(sa.bindparam("asked_at"), SESSIONS.c.asked_at),
        )
        .where(_BY_NAME)
        .returning(
            SESSIONS.c.session_key,
            SESSIONS.c.next_seq,
            SESSIONS.c.asked_at,
            SESSIONS.c.agent_id,
            SESSIONS.c.created_at,
            SESSIONS.c.expires_at,
            SESSIONS.c.ttl_seconds,
            SESSIONS.c.max_age_seconds,
            SESSIONS.c.indexed_seq,
            sa.select(STORE_INFO.c.search).scalar_subquery(),
            sa.select(STORE_INFO.c.remote_url.is_not(sa.null())).scalar_subquery(),
        ),
        ("count_", "seqs", "now", "asked_at", "namespace", "session_id", "at"),
    ),
    "SET_ASKED_AT": (
        sa.update(SESSIONS).values(asked_at=sa.bindparam("asked_at")).where(SESSIONS.c.session_key == sa.bindparam("key")),
        ("asked_at", "key"),
    ),
    "SET_EXPIRY": (
        sa.update(SESSIONS).values(expires_at=sa.bindparam("expires_at")).where(SESSIONS.c.session_key == sa.bindparam("key")),
        ("expires_at", "key"),
    ),
    "END_SESSION": (
        sa.update(SESSIONS)
        .values(
            status=sa.bindparam("status"),
            metadata=_kept_unless("metadata"),
            version=SESSIONS.c.version + sa.literal_column("1"),
            quality_score=_kept_unless("quality_score"),
            error=_kept_unless("error"),
            updated_at=sa.bindparam("now"),
            ended_at=sa.bindparam("ended_at"),
            expires_at=sa.null(),
            feedback=_kept_unless("feedback"),
            reported_message_count=_kept_unless("reported_message_count"),
        )
        .where(SESSIONS.c.session_key == sa.bindparam("key"))
        .returning(*SESSION_COLUMNS),
        (
            "status",
            "has_metadata",
            "metadata",
            "has_quality_score",
            "quality_score",
            "has_error",
            "error",
            "now",
            "ended_at",
            "has_feedback",
            "feedback",
            "has_reported_message_count",
            "reported_message_count",
            "key",
        ),
    ),
    "SETTLE_EXPIRY": (
        sa.update(SESSIONS)
        .values(status=sa.literal_column("'expired'"), ended_at=SESSIONS.c.expires_at)
        .where(SESSIONS.c.session_key == sa.bindparam("key")),
        ("key",),
    ),
    "FIND_DUE": (
        sa.select(*SESSION_COLUMNS).where(OVERDUE).order_by(SESSIONS.c.expires_at).limit(sa.bindparam("most")).offset(NO_OFFSET),
        ("at", "most"),
    ),
    "PEEK_DUE": (
        sa.select(sa.literal_column("1")).select_from(SESSIONS).where(OVERDUE).limit(sa.literal_column("1")).offset(NO_OFFSET),
        ("at",),
    ),
    "READ_REMOTE": (
        sa.select(STORE_INFO.c.remote_url, STORE_INFO.c.sync_messages, STORE_INFO.c.max_outbox_bytes, STORE_INFO.c.on_full),
        (),
    ),
    "READ_REMOTE_SINCE": (sa.select(sa.type_coerce(STORE_INFO.c.remote_since, sa.String)), ()),
    "INSERT_EVENT": (_insert(OUTBOX, *_OUTBOX_COLUMNS), _OUTBOX_COLUMNS),
    "PENDING_SIZE": (sa.select(sa.func.count(), _BYTES).where(IS_PENDING), ()),
    "DEAD_SIZE": (sa.select(sa.func.count().filter(IS_UNSUPPORTED), _BYTES).where(IS_DEAD), ()),
    "COUNT_DROPPED": (sa.update(SYNC_STATE).values(dropped=SYNC_STATE.c.dropped + sa.bindparam("count_")), ("count_",)),
    "DELETE_DEAD": (sa.delete(OUTBOX).where(OUTBOX.c.id == sa.bindparam("key_"), IS_DEAD), ("key_",)),
    "PEEK_PENDING": (
        sa.select(OUTBOX.c.id).where(IS_PENDING).order_by(OUTBOX.c.id).limit(sa.literal_column("1")).offset(NO_OFFSET),
        (),
    ),
    "NEWEST_PENDING": (
        sa.select(OUTBOX.c.id).where(IS_PENDING).order_by(OUTBOX.c.id.desc()).limit(sa.literal_column("1")).offset(NO_OFFSET),
        (),
    ),
    "CLAIMABLE": (
        sa.select(OUTBOX.c.id)
        .where(IS_PENDING, sa.not_(_HELD_BY_OTHERS))
        .order_by(OUTBOX.c.id)
        .limit(sa.bindparam("most"))
        .offset(NO_OFFSET),
        ("at", "latest", "token", "most"),
    ),
    "CLAIM": (
        sa.select(*QUEUED_COLUMNS).where(OUTBOX.c.id.in_(_NAMED_IDS), IS_PENDING, sa.not_(_HELD_BY_OTHERS)).order_by(OUTBOX.c.id),
        ("ids", "at", "latest", "token"),
    ),
    "PENDING_BEHIND": (
        sa.select(OUTBOX.c.id).where(IS_PENDING).order_by(OUTBOX.c.id).limit(sa.literal_column("1")).offset(sa.bindparam("passed")),
        ("passed",),
    ),
    "CLAIM_OLDEST": (
        sa.select(*QUEUED_COLUMNS)
        .where(OUTBOX.c.id < sa.bindparam("behind"), IS_PENDING, sa.not_(_HELD_BY_OTHERS))
        .order_by(OUTBOX.c.id)
        .limit(sa.bindparam("most"))
        .offset(NO_OFFSET),
        ("behind", "at", "latest", "token", "most"),
    ),
    "HOLD_STREAM": (
        sa.insert(HOLDS).prefix_with("OR REPLACE").values({name: sa.bindparam(name) for name in _HOLD_COLUMNS}),
        _HOLD_COLUMNS,
    ),
    "STREAMS_HELD": (
        sa.select(HOLDS.c.namespace, HOLDS.c.stream).where(HOLDS.c.token == sa.bindparam("token")),
        ("token",),
    ),
    "NOTE_UNANSWERED": (_note_unanswered(), ("until", "token")),
    "FORGET_ANSWERED": (sa.delete(UNANSWERED).where(sa.not_(_MAY_ARRIVE)), ("at", "latest")),
    "FREE_STREAMS": (sa.delete(HOLDS).where(HOLDS.c.token == sa.bindparam("token")), ("token",)),
    "DELETE_EVENT": (sa.delete(OUTBOX).where(OUTBOX.c.id == sa.bindparam("key_"), IS_PENDING), ("key_",)),
    # One statement for many takes a quarter less than one for each.
    "DELETE_EVENTS": (sa.delete(OUTBOX).where(OUTBOX.c.id.in_(_NAMED_IDS), IS_PENDING), ("ids",)),
    "NEXT_FREE": (
        sa.select(
            sa.func.min(_HELD_UNTIL),
            sa.func.min(sa.case((HOLDS.c.token.is_(sa.null()), _HELD_UNTIL))),
            sa.func.count(HOLDS.c.token),
        ).where(_LASTS),
        ("at", "latest"),
    ),
    "REFUSE_EVENT": (
        sa.update(OUTBOX)
        .values({name: sa.bindparam(name) for name in _REFUSED_COLUMNS})
        .where(OUTBOX.c.id == sa.bindparam("key_"), IS_PENDING),
        (*_REFUSED_COLUMNS, "key_"),
    ),
    "READ_SYNC_STATE": (
        sa.select(*(SYNC_STATE.c[name] for name in ("retry_at", "paused", "failures", "failing_since", "sent", "last_error"))),
        (),
    ),
    "NOTE_TROUBLE": (
        sa.update(SYNC_STATE).values({name: sa.bindparam(name) for name in _TROUBLE_COLUMNS}),
        _TROUBLE_COLUMNS,
    ),
    "COUNT_SENT": (
        sa.update(SYNC_STATE).values(
            sent=SYNC_STATE.c.sent + sa.bindparam("count_"),
            last_sent_at=sa.bindparam("now"),
            failures=sa.literal_column("0"),
            failing_since=sa.null(),
            retry_at=sa.null(),
            paused=sa.null(),
            last_status=sa.null(),
            last_error=sa.null(),
        ),
        ("count_", "now"),
    ),
    "INSERT_METRIC": (_insert(METRIC_EVENTS, *_METRIC_COLUMNS), _METRIC_COLUMNS),
    "INHERITED_RANGES": (
        sa.select(RANGES.c.first_seq, RANGES.c.last_seq, RANGES.c.owner_key)
        .where(RANGES.c.session_key == sa.bindparam("key_"))
        .order_by(RANGES.c.first_seq),
        ("key_",),
    ),
    "SHARED_RANGES": (
        sa.select(RANGES.c.session_key, RANGES.c.first_seq, RANGES.c.last_seq)
        .where(
            RANGES.c.owner_key == sa.bindparam("owner"),
            RANGES.c.last_seq >= sa.bindparam("first"),
            RANGES.c.first_seq <= sa.bindparam("last"),
        )
        .order_by(RANGES.c.first_seq),
        ("owner", "first", "last"),
    ),
    "INSERT_RANGE": (_insert(RANGES, *_RANGE_COLUMNS), _RANGE_COLUMNS),
    "DELETE_RANGE": (
        sa.delete(RANGES).where(RANGES.c.session_key == sa.bindparam("key_"), RANGES.c.first_seq == sa.bindparam("first")),
        ("key_", "first"),
    ),
    "SET_FORK": (
        sa.update(SESSIONS)
        .values({name: sa.bindparam(name) for name in _FORK_COLUMNS})
        .where(SESSIONS.c.session_key == sa.bindparam("key_"))
        .returning(*SESSION_COLUMNS),
        (*_FORK_COLUMNS, "key_"),
    ),
    "NEWEST_QUESTION": (
        sa.select(MESSAGES.c.created_at)
        .where(_IN_RANGE, MESSAGES.c.role == sa.literal_column("'user'"))
        .order_by(MESSAGES.c.id.desc())
        .limit(sa.literal_column("1"))
        .offset(NO_OFFSET),
        ("after", "before"),
    ),
    "HAS_SESSION": (
        sa.select(sa.literal_column("1")).select_from(SESSIONS).where(SESSIONS.c.session_key == sa.bindparam("key_")),
        ("key_",),
    ),
    "FORGET_PARENT": (
        sa.update(SESSIONS).values(parent_key=sa.null()).where(SESSIONS.c.parent_key == sa.bindparam("key_")),
        ("key_",),
    ),
    "COUNT_MESSAGES": (sa.select(sa.func.count()).select_from(MESSAGES).where(_IN_RANGE), ("after", "before")),
    "DELETE_MESSAGES": (sa.delete(MESSAGES).where(_IN_RANGE), ("after", "before")),
    "DELETE_SESSION": (sa.delete(SESSIONS).where(SESSIONS.c.session_key == sa.bindparam("key")), ("key",)),
    "INSERT_MESSAGE": (
        _insert(MESSAGES, *(column.name for column in MESSAGE_COLUMNS)),
        tuple(column.name for column in MESSAGE_COLUMNS),
    ),
    "MESSAGES_FORWARD": (
        sa.select(*MESSAGE_COLUMNS).where(_IN_RANGE).order_by(MESSAGES.c.id).limit(sa.bindparam("most")).offset(NO_OFFSET),
        ("after", "before", "most"),
    ),
    "MESSAGES_BACKWARD": (
        sa.select(*MESSAGE_COLUMNS).where(_IN_RANGE).order_by(MESSAGES.c.id.desc()).limit(sa.bindparam("most")).offset(NO_OFFSET),
        ("after", "before", "most"),
    ),
    "MESSAGE_BY_DEDUPE_KEY": (
        sa.select(*MESSAGE_COLUMNS).where(
            MESSAGES.c.session_key == sa.bindparam("session_key"), MESSAGES.c.dedupe_key == sa.bindparam("dedupe_key")
        ),
        ("session_key", "dedupe_key"),
    ),
    **state_statements.HOT,
    **blob_statements.HOT,
    **catalog_statements.HOT,
}


def text_of(statement: Any) -> str:
    """The text of a statement for the driver, with question marks for its parameters."""
    return " ".join(str(statement.compile(dialect=_DIALECT)).split())


def parameters_of(statement: Any) -> tuple[str, ...]:
    """The names of a statement's parameters, in the order of the question marks."""
    return tuple(statement.compile(dialect=_DIALECT).positiontup)


def compiled(statement: Any, parameters: tuple[str, ...]) -> str:
    """The text of a statement, whose question marks take `parameters` in this order."""
    if parameters_of(statement) != parameters:
        raise AssertionError(f"parameters are {parameters_of(statement)}, not {parameters}")
    return text_of(statement)


def render() -> str:
    """The whole of `sessionstore/sql.py`."""
    lines = [
        '"""The SQL text of the hot path, compiled from `queries/statements.py` by `make sql`; not edited by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Final",
        "",
    ]
    lines += [f"{name}: Final = {compiled(*entry)!r}" for name, entry in HOT.items()]
    lines += ["", "COLUMNS: Final = {"]
    for table in SCHEMA_METADATA.sorted_tables:
        lines.append(f"    {table.name!r}: {tuple(column.name for column in table.c)!r},")
    lines += ["}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    _OUTPUT.write_text(render())
