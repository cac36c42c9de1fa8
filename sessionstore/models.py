"""The tables, as SQLModel classes on a registry and MetaData of their own.

Nothing here touches `SQLModel.metadata`, so a host program's `create_all()` and Alembic never see these tables. Every enum
and range is also a named CHECK, because table models do not validate.
"""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import registry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import Field, SQLModel

from .content import ROLES
from .values import ACTIVITY_KINDS, AGENT_STATUSES, MAX_SEQ, OUTBOX_STATES, SEQ_BITS, SESSION_STATUSES

SCHEMA_METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes a rowid alias of INTEGER only.
_Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Json = sa.JSON(none_as_null=True)
_LIVE: Final = "status <> 'expired'"
_DUE: Final = "status = 'open' AND expires_at IS NOT NULL"


def _one_of(column: str, words: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def _key(**options: Any) -> Any:
    return Field(sa_type=_Key, **options)


class Fact(sa.ColumnElement[Any]):
    """A value inside of the JSON column `facts`, in each dialect's own words."""

    inherit_cache = True

    def __init__(self, name: str, type_: sa.types.TypeEngine[Any]) -> None:
        self.name = name
        self.type = type_


@compiles(Fact)
def _fact_in_sqlite(fact: Fact, compiler: SQLCompiler, **_: Any) -> str:
    return f"json_extract(facts, '$.{fact.name}')"


@compiles(Fact, "postgresql")
def _fact_in_postgresql(fact: Fact, compiler: SQLCompiler, **_: Any) -> str:
    if isinstance(fact.type, sa.JSON):
        return f"(facts -> '{fact.name}')"
    return f"CAST(facts ->> '{fact.name}' AS {compiler.dialect.type_compiler_instance.process(fact.type)})"


class AnswerTime(sa.ColumnElement[float]):
    """How long an assistant's message took, as the caller or else the store timed it, from `facts`."""

    inherit_cache = True
    type = sa.Float()


@compiles(AnswerTime)
def _answer_time_in_sqlite(_: AnswerTime, compiler: SQLCompiler, **__: Any) -> str:
    timed = "coalesce(json_extract(facts, '$.response_time_ms'), json_extract(facts, '$.elapsed_ms'))"
    return f"CASE WHEN role = 'assistant' THEN {timed} END"


@compiles(AnswerTime, "postgresql")
def _answer_time_in_postgresql(_: AnswerTime, compiler: SQLCompiler, **__: Any) -> str:
    timed = "CAST(coalesce(facts ->> 'response_time_ms', facts ->> 'elapsed_ms') AS FLOAT)"
    return f"CASE WHEN role = 'assistant' THEN {timed} END"


def _where(condition: str) -> dict[str, Any]:
    """The options of an index over a part of the rows, in both dialects."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _counter() -> Any:
    return Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})


def _fact(name: str, type_: sa.types.TypeEngine[Any]) -> Any:
    return Field(default=None, sa_column=sa.Column(name, type_, sa.Computed(Fact(name, type_))))


class Base(SQLModel, registry=registry(metadata=SCHEMA_METADATA)):
    """The root of this library's tables."""


class StoreInfoRow(Base, table=True):
    """The one row that says which store this file is."""

    __tablename__ = "store_info"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single_row"),)

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    store_id: str = Field(max_length=36)
    created_at: datetime
    remote_url: str | None = Field(default=None, max_length=2048)
    swept_at: datetime | None = None
    sweeper: str | None = Field(default=None, max_length=36)
    sweeper_until: datetime | None = None
    remote_since: datetime | None = None
    sync_messages: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    max_outbox_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    on_full: str | None = Field(default=None, max_length=32)


class SessionRow(Base, table=True):
    """A session. Its name is unique among the live ones; an expired row keeps its id without blocking it."""

    __tablename__ = "sessions"
    __table_args__ = (
        sa.CheckConstraint(_one_of("status", SESSION_STATUSES), name="status"),
        sa.CheckConstraint("quality_score BETWEEN 1 AND 5", name="quality_score"),
        sa.CheckConstraint("message_count >= 0", name="message_count"),
        sa.CheckConstraint(f"next_seq BETWEEN 1 AND {MAX_SEQ + 1}", name="next_seq"),
        sa.CheckConstraint("version >= 1", name="version"),
        sa.CheckConstraint("ttl_seconds > 0", name="ttl_seconds"),
        sa.CheckConstraint("max_age_seconds > 0", name="max_age_seconds"),
        sa.CheckConstraint("reported_message_count >= 0", name="reported_message_count"),
        sa.Index("uq_sessions_live_name", "namespace", "session_id", unique=True, **_where(_LIVE)),
        sa.Index("ix_sessions_updated", "namespace", "updated_at"),
        sa.Index("ix_sessions_agent", "namespace", "agent_id", "updated_at", **_where("agent_id IS NOT NULL")),
        sa.Index("ix_sessions_user", "namespace", "user_id", "updated_at", **_where("user_id IS NOT NULL")),
        sa.Index("ix_sessions_created", "namespace", "created_at"),
        sa.Index("ix_sessions_open", "namespace", "agent_id", "expires_at", "archived_at", **_where("status = 'open'")),
        sa.Index("ix_sessions_due", "expires_at", **_where(_DUE)),
        sa.Index("ix_sessions_expired", "namespace", "session_id", **_where("status = 'expired'")),
        {"sqlite_autoincrement": True},
    )

    session_key: int = _key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    session_id: str = Field(max_length=256)
    user_id: str | None = Field(default=None, max_length=256)
    agent_id: str | None = Field(default=None, max_length=256)
    title: str | None = Field(default=None, max_length=1000)
    status: str = Field(default="open", max_length=16)
    pinned: bool = False
    metadata_: dict[str, Any] | None = Field(default=None, sa_column=sa.Column("metadata", _Json))
    version: int = 1
    message_count: int = 0
    next_seq: int = 1
    quality_score: int | None = None
    error: str | None = Field(default=None, max_length=10000)
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    expires_at: datetime | None = None
    ttl_seconds: float | None = None
    max_age_seconds: float | None = None
    tracked: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    feedback: str | None = Field(default=None, max_length=10000)
    reported_message_count: int | None = None
    asked_at: datetime | None = None


class SessionTagRow(Base, table=True):
    """A tag of a session."""

    __tablename__ = "session_tags"
    __table_args__ = (
        sa.Index("ix_session_tags_tag", "tag", "session_key"),
        {"sqlite_with_rowid": False},
    )

    session_key: int = Field(
        sa_column=sa.Column(_Key, sa.ForeignKey("sessions.session_key", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )
    tag: str = Field(primary_key=True, max_length=256)


class MessageRow(Base, table=True):
    """A message.

    `id` packs session key and seq, so that a session's messages are neighbours and need no second index. What few messages
    have stands together in the JSON column `facts`; SQL sees each fact as a generated column, and a reader of plain messages
    does not pay for eleven empty ones.
    """

    __tablename__ = "messages"
    __table_args__ = (
        sa.CheckConstraint(_one_of("role", ROLES), name="role"),
        sa.CheckConstraint("input_tokens >= 0", name="input_tokens"),
        sa.CheckConstraint("output_tokens >= 0", name="output_tokens"),
        sa.CheckConstraint("cache_read_tokens >= 0", name="cache_read_tokens"),
        sa.CheckConstraint("reasoning_tokens >= 0", name="reasoning_tokens"),
        sa.CheckConstraint("response_time_ms >= 0", name="response_time_ms"),
        sa.Index("uq_messages_dedupe_key", "session_key", "dedupe_key", unique=True, **_where("dedupe_key IS NOT NULL")),
        sa.Index("ix_messages_answers", "created_at", "answer_time_ms", **_where("facts IS NOT NULL")),
    )

    id: int = _key(primary_key=True, sa_column_kwargs={"autoincrement": False})
    session_key: int = Field(sa_column=sa.Column(_Key, sa.Computed(f"id >> {SEQ_BITS}")))
    seq: int = Field(sa_column=sa.Column(_Key, sa.Computed(f"id & {MAX_SEQ}")))
    kind: str = Field(max_length=256)
    role: str | None = Field(default=None, max_length=16)
    text: str | None = Field(default=None, sa_type=sa.Text)
    extra: dict[str, Any] | None = Field(default=None, sa_type=_Json)
    facts: dict[str, Any] | None = Field(default=None, sa_type=_Json)
    created_at: datetime
    crc: int = Field(sa_type=sa.BigInteger)
    tool_call_ids: list[str] | None = _fact("tool_call_ids", _Json)
    tool_call_id: str | None = _fact("tool_call_id", sa.Text())
    dedupe_key: str | None = _fact("dedupe_key", sa.String(256))
    model: str | None = _fact("model", sa.String(256))
    finish_reason: str | None = _fact("finish_reason", sa.String(256))
    input_tokens: int | None = _fact("input_tokens", sa.BigInteger())
    output_tokens: int | None = _fact("output_tokens", sa.BigInteger())
    cache_read_tokens: int | None = _fact("cache_read_tokens", sa.BigInteger())
    reasoning_tokens: int | None = _fact("reasoning_tokens", sa.BigInteger())
    response_time_ms: float | None = _fact("response_time_ms", sa.Float())
    metadata_: dict[str, Any] | None = _fact("metadata", _Json)
    elapsed_ms: float | None = _fact("elapsed_ms", sa.Float())
    answer_time_ms: float | None = Field(default=None, sa_column=sa.Column("answer_time_ms", sa.Float(), sa.Computed(AnswerTime())))


class MetricEventRow(Base, table=True):
    """A figure that the agent's program recorded. The session is named, not referred to: figures outlive conversations."""

    __tablename__ = "metric_events"
    __table_args__ = (
        sa.Index("ix_metric_events_name", "namespace", "name", "occurred_at"),
        sa.Index("ix_metric_events_occurred", "namespace", "occurred_at"),
        {"sqlite_autoincrement": True},
    )

    id: int = _key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    name: str = Field(max_length=256)
    value: float
    unit: str | None = Field(default=None, max_length=256)
    agent_id: str | None = Field(default=None, max_length=256)
    session_id: str | None = Field(default=None, max_length=256)
    attributes: dict[str, Any] | None = Field(default=None, sa_type=_Json)
    occurred_at: datetime


class AgentRow(Base, table=True):
    """An agent as it was heard of last."""

    __tablename__ = "agents"
    __table_args__ = (
        sa.CheckConstraint(_one_of("status", AGENT_STATUSES), name="status"),
        sa.CheckConstraint("stale_after_seconds > 0", name="stale_after_seconds"),
        {"sqlite_with_rowid": False},
    )

    namespace: str = Field(primary_key=True, max_length=256)
    agent_id: str = Field(primary_key=True, max_length=256)
    sdk_version: str | None = Field(default=None, max_length=256)
    status: str = Field(max_length=16)
    previous_status: str | None = Field(default=None, max_length=16)
    metadata_: dict[str, Any] | None = Field(default=None, sa_column=sa.Column("metadata", _Json))
    registered_at: datetime | None = None
    status_at: datetime
    last_seen_at: datetime
    stale_after_seconds: float


class AgentActivityRow(Base, table=True):
    """Something that an agent did, a change of its status, or its registration."""

    __tablename__ = "agent_activity"
    __table_args__ = (
        sa.CheckConstraint(_one_of("kind", ACTIVITY_KINDS), name="kind"),
        sa.CheckConstraint(_one_of("status", AGENT_STATUSES), name="status"),
        sa.CheckConstraint("duration_seconds >= 0", name="duration_seconds"),
        sa.Index("ix_agent_activity_agent", "namespace", "agent_id", "occurred_at"),
        sa.Index("ix_agent_activity_occurred", "namespace", "occurred_at"),
        {"sqlite_autoincrement": True},
    )

    id: int = _key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    agent_id: str = Field(max_length=256)
    kind: str = Field(max_length=16)
    action: str = Field(max_length=256)
    status: str | None = Field(default=None, max_length=16)
    previous_status: str | None = Field(default=None, max_length=16)
    details: dict[str, Any] | None = Field(default=None, sa_type=_Json)
    duration_seconds: float | None = None
    occurred_at: datetime


class OutboxRow(Base, table=True):
    """An event that waits for its delivery to the remote API, or was given up. Its body is frozen when its cause is stored.

    A delivered event leaves the table; `sync_state` counts it.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        sa.CheckConstraint(_one_of("state", OUTBOX_STATES), name="state"),
        sa.CheckConstraint("attempts >= 0", name="attempts"),
        sa.UniqueConstraint("key"),
        sa.Index("ix_outbox_waiting", "id", "size_bytes", **_where("state = 'pending'")),
        sa.Index("ix_outbox_settled", "state", "id", **_where("state <> 'pending'")),
        {"sqlite_autoincrement": True},
    )

    id: int = _key(primary_key=True, default=None)
    key: str = Field(max_length=36)
    stream: str = Field(max_length=300)
    kind: str = Field(max_length=32)
    namespace: str = Field(default="", max_length=256)
    body: str = Field(sa_type=sa.Text)
    state: str = Field(default="pending", max_length=16)
    attempts: int = 0
    occurred_at: datetime
    created_at: datetime
    next_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = Field(default=None, max_length=200)
    settled_at: datetime | None = None
    sent_before: int | None = Field(default=None, sa_type=sa.BigInteger)
    size_bytes: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})


class OutboxHoldRow(Base, table=True):
    """A stream whose events nobody may claim now: they are being sent by who has the token, or wait for their next try."""

    __tablename__ = "outbox_holds"
    __table_args__ = ({"sqlite_with_rowid": False},)

    namespace: str = Field(primary_key=True, max_length=256)
    stream: str = Field(primary_key=True, max_length=300)
    token: str | None = Field(default=None, max_length=36)
    held_until: datetime


class SyncStateRow(Base, table=True):
    """The one row that says how the deliveries to the remote go."""

    __tablename__ = "sync_state"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single_row"),)

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sent: int = _counter()
    dropped: int = _counter()
    last_sent_at: datetime | None = None
    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    paused: str | None = Field(default=None, max_length=32)
    last_status: int | None = None
    last_error: str | None = Field(default=None, max_length=200)
    backfilled_sessions: int = _counter()
    backfilled_metrics: int = _counter()
    backfilled_activity: int = _counter()


class ReceivedEventRow(Base, table=True):
    """An event that a collector has stored, by its key, so that it is stored once however often it comes."""

    __tablename__ = "received_events"
    __table_args__ = ({"sqlite_with_rowid": False},)

    tenant: str = Field(primary_key=True, max_length=64)
    key: str = Field(primary_key=True, max_length=256)
    body_hash: bytes = Field(sa_type=sa.LargeBinary(32))
    received_at: datetime
