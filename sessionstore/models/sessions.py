"""The tables of sessions: who and when, their tags and their state, and what forks share."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field

from ..values import MAX_SEQ, SESSION_STATUSES, STATE_SCOPES
from .base import Base, Json, Key, key, one_of, seq_from_zero, where

_LIVE: Final = "status <> 'expired'"
_DUE: Final = "status = 'open' AND expires_at IS NOT NULL"
_UNINDEXED: Final = "next_seq > indexed_seq + 1"


class SessionRow(Base, table=True):
    """A session. Its name is unique among the live ones; an expired row keeps its id without blocking it."""

    __tablename__ = "sessions"
    __table_args__ = (
        sa.CheckConstraint(one_of("status", SESSION_STATUSES), name="status"),
        sa.CheckConstraint("quality_score BETWEEN 1 AND 5", name="quality_score"),
        sa.CheckConstraint("message_count >= 0", name="message_count"),
        sa.CheckConstraint(f"next_seq BETWEEN 1 AND {MAX_SEQ + 1}", name="next_seq"),
        sa.CheckConstraint("version >= 1", name="version"),
        sa.CheckConstraint("ttl_seconds > 0", name="ttl_seconds"),
        sa.CheckConstraint("max_age_seconds > 0", name="max_age_seconds"),
        sa.CheckConstraint("reported_message_count >= 0", name="reported_message_count"),
        sa.Index("uq_sessions_live_name", "namespace", "session_id", unique=True, **where(_LIVE)),
        sa.Index("ix_sessions_updated", "namespace", "updated_at"),
        sa.Index("ix_sessions_agent", "namespace", "agent_id", "updated_at", **where("agent_id IS NOT NULL")),
        sa.Index("ix_sessions_user", "namespace", "user_id", "updated_at", **where("user_id IS NOT NULL")),
        sa.Index("ix_sessions_created", "namespace", "created_at"),
        sa.Index("ix_sessions_open", "namespace", "agent_id", "expires_at", "archived_at", **where("status = 'open'")),
        sa.Index("ix_sessions_due", "expires_at", **where(_DUE)),
        sa.Index("ix_sessions_expired", "namespace", "session_id", **where("status = 'expired'")),
        sa.Index("ix_sessions_parent", "parent_key", **where("parent_key IS NOT NULL")),
        sa.Index("ix_sessions_to_archive", "session_key", **where("status = 'expired' AND archived_at IS NULL")),
        sa.Index("ix_sessions_unindexed", "session_key", **where(_UNINDEXED)),
        {"sqlite_autoincrement": True},
    )

    session_key: int = key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    session_id: str = Field(max_length=256)
    user_id: str | None = Field(default=None, max_length=256)
    agent_id: str | None = Field(default=None, max_length=256)
    title: str | None = Field(default=None, max_length=1000)
    status: str = Field(default="open", max_length=16)
    pinned: bool = False
    metadata_: dict[str, Any] | None = Field(default=None, sa_column=sa.Column("metadata", Json))
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
    parent_key: int | None = Field(default=None, sa_type=sa.BigInteger)
    forked_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    inherits_through: int = seq_from_zero()
    indexed_seq: int = seq_from_zero()


class SessionTagRow(Base, table=True):
    """A tag of a session."""

    __tablename__ = "session_tags"
    __table_args__ = (
        sa.Index("ix_session_tags_tag", "tag", "session_key"),
        {"sqlite_with_rowid": False},
    )

    session_key: int = Field(
        sa_column=sa.Column(Key, sa.ForeignKey("sessions.session_key", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )
    tag: str = Field(primary_key=True, max_length=256)


class InheritedRangeRow(Base, table=True):
    """Messages that a fork reads from the rows of another session. Their owner may be deleted: its rows stay as long as this."""

    __tablename__ = "inherited_ranges"
    __table_args__ = (
        sa.CheckConstraint("first_seq >= 1 AND first_seq <= last_seq", name="seqs"),
        sa.Index("ix_inherited_ranges_owner", "owner_key", "last_seq"),
        {"sqlite_with_rowid": False},
    )

    session_key: int = Field(
        sa_column=sa.Column(Key, sa.ForeignKey("sessions.session_key", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )
    first_seq: int = key(primary_key=True, sa_column_kwargs={"autoincrement": False})
    last_seq: int = Field(sa_type=sa.BigInteger)
    owner_key: int = Field(sa_type=sa.BigInteger)


class StateValueRow(Base, table=True):
    """A value of a session's, a user's or an application's state."""

    __tablename__ = "state_values"
    __table_args__ = (sa.CheckConstraint(one_of("scope", STATE_SCOPES), name="scope"), {"sqlite_with_rowid": False})

    namespace: str = Field(primary_key=True, max_length=256)
    scope: str = Field(primary_key=True, max_length=16)
    owner: str = Field(primary_key=True, max_length=256)
    name: str = Field(primary_key=True, max_length=256)
    value: str = Field(sa_type=sa.Text)
    updated_at: datetime
