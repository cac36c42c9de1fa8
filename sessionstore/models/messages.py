"""The tables of messages: those that are read, those that were superseded, and their large parts."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import Field

from ..content import ROLES
from ..values import MAX_SEQ, SEQ_BITS
from .base import Base, Json, Key, key, one_of, where


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


def _fact(name: str, type_: sa.types.TypeEngine[Any]) -> Any:
    return Field(default=None, sa_column=sa.Column(name, type_, sa.Computed(Fact(name, type_))))


class MessageRow(Base, table=True):
    """A message.

    `id` packs session key and seq, so that a session's messages are neighbours and need no second index. What few messages
    have stands together in the JSON column `facts`; SQL sees each fact as a generated column, and a reader of plain messages
    does not pay for eleven empty ones.
    """

    __tablename__ = "messages"
    __table_args__ = (
        sa.CheckConstraint(one_of("role", ROLES), name="role"),
        sa.CheckConstraint("input_tokens >= 0", name="input_tokens"),
        sa.CheckConstraint("output_tokens >= 0", name="output_tokens"),
        sa.CheckConstraint("cache_read_tokens >= 0", name="cache_read_tokens"),
        sa.CheckConstraint("reasoning_tokens >= 0", name="reasoning_tokens"),
        sa.CheckConstraint("response_time_ms >= 0", name="response_time_ms"),
        sa.Index("uq_messages_dedupe_key", "session_key", "dedupe_key", unique=True, **where("dedupe_key IS NOT NULL")),
        sa.Index("ix_messages_answers", "created_at", "answer_time_ms", **where("facts IS NOT NULL")),
    )

    id: int = key(primary_key=True, sa_column_kwargs={"autoincrement": False})
    session_key: int = Field(sa_column=sa.Column(Key, sa.Computed(f"id >> {SEQ_BITS}")))
    seq: int = Field(sa_column=sa.Column(Key, sa.Computed(f"id & {MAX_SEQ}")))
    kind: str = Field(max_length=256)
    role: str | None = Field(default=None, max_length=16)
    text: str | None = Field(default=None, sa_type=sa.Text)
    extra: dict[str, Any] | None = Field(default=None, sa_type=Json)
    facts: dict[str, Any] | None = Field(default=None, sa_type=Json)
    created_at: datetime
    crc: int = Field(sa_type=sa.BigInteger)
    tool_call_ids: list[str] | None = _fact("tool_call_ids", Json)
    tool_call_id: str | None = _fact("tool_call_id", sa.Text())
    dedupe_key: str | None = _fact("dedupe_key", sa.String(256))
    model: str | None = _fact("model", sa.String(256))
    finish_reason: str | None = _fact("finish_reason", sa.String(256))
    input_tokens: int | None = _fact("input_tokens", sa.BigInteger())
    output_tokens: int | None = _fact("output_tokens", sa.BigInteger())
    cache_read_tokens: int | None = _fact("cache_read_tokens", sa.BigInteger())
    reasoning_tokens: int | None = _fact("reasoning_tokens", sa.BigInteger())
    response_time_ms: float | None = _fact("response_time_ms", sa.Float())
    metadata_: dict[str, Any] | None = _fact("metadata", Json)
    elapsed_ms: float | None = _fact("elapsed_ms", sa.Float())
    answer_time_ms: float | None = Field(default=None, sa_column=sa.Column("answer_time_ms", sa.Float(), sa.Computed(AnswerTime())))
    packed: bytes | None = Field(default=None, sa_type=sa.LargeBinary)


class SupersededMessageRow(Base, table=True):
    """A message that another one took the place of."""

    __tablename__ = "superseded_messages"
    __table_args__ = (sa.Index("ix_superseded_messages_place", "session_key", "seq"), {"sqlite_autoincrement": True})

    id: int = key(primary_key=True, default=None)
    session_key: int = Field(sa_column=sa.Column(Key, sa.ForeignKey("sessions.session_key", ondelete="CASCADE"), nullable=False))
    seq: int = Field(sa_type=sa.BigInteger)
    superseded_at: datetime
    kind: str = Field(max_length=256)
    role: str | None = Field(default=None, max_length=16)
    text: str | None = Field(default=None, sa_type=sa.Text)
    extra: dict[str, Any] | None = Field(default=None, sa_type=Json)
    facts: dict[str, Any] | None = Field(default=None, sa_type=Json)
    created_at: datetime
    crc: int = Field(sa_type=sa.BigInteger)
    packed: bytes | None = Field(default=None, sa_type=sa.LargeBinary)


class BlobRow(Base, table=True):
    """A large part of messages, kept once under the SHA-256 of its content, however many messages have it."""

    __tablename__ = "blobs"
    __table_args__ = (sa.CheckConstraint("size_bytes >= 0", name="size_bytes"),)

    hash: str = Field(primary_key=True, max_length=64)
    size_bytes: int = Field(sa_type=sa.BigInteger)
    encoding: str | None = Field(default=None, max_length=16)
    data: bytes = Field(sa_type=sa.LargeBinary)


class BlobReferenceRow(Base, table=True):
    """A blob in a message, or in a superseded one: those have the negative of their id here."""

    __tablename__ = "blob_references"
    __table_args__ = (sa.Index("ix_blob_references_message", "message_id"), {"sqlite_with_rowid": False})

    hash: str = Field(primary_key=True, max_length=64)
    message_id: int = key(primary_key=True, sa_column_kwargs={"autoincrement": False})
