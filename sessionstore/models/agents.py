"""The tables of agents and of figures that programs record."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from ..values import ACTIVITY_KINDS, AGENT_STATUSES
from .base import Base, Json, key, one_of


class MetricEventRow(Base, table=True):
    """A figure that the agent's program recorded. The session is named, not referred to: figures outlive conversations."""

    __tablename__ = "metric_events"
    __table_args__ = (
        sa.Index("ix_metric_events_name", "namespace", "name", "occurred_at"),
        sa.Index("ix_metric_events_occurred", "namespace", "occurred_at"),
        {"sqlite_autoincrement": True},
    )

    id: int = key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    name: str = Field(max_length=256)
    value: float
    unit: str | None = Field(default=None, max_length=256)
    agent_id: str | None = Field(default=None, max_length=256)
    session_id: str | None = Field(default=None, max_length=256)
    attributes: dict[str, Any] | None = Field(default=None, sa_type=Json)
    occurred_at: datetime


class AgentRow(Base, table=True):
    """An agent as it was heard of last."""

    __tablename__ = "agents"
    __table_args__ = (
        sa.CheckConstraint(one_of("status", AGENT_STATUSES), name="status"),
        sa.CheckConstraint("stale_after_seconds > 0", name="stale_after_seconds"),
        {"sqlite_with_rowid": False},
    )

    namespace: str = Field(primary_key=True, max_length=256)
    agent_id: str = Field(primary_key=True, max_length=256)
    sdk_version: str | None = Field(default=None, max_length=256)
    status: str = Field(max_length=16)
    previous_status: str | None = Field(default=None, max_length=16)
    metadata_: dict[str, Any] | None = Field(default=None, sa_column=sa.Column("metadata", Json))
    registered_at: datetime | None = None
    status_at: datetime
    last_seen_at: datetime
    stale_after_seconds: float


class AgentActivityRow(Base, table=True):
    """Something that an agent did, a change of its status, or its registration."""

    __tablename__ = "agent_activity"
    __table_args__ = (
        sa.CheckConstraint(one_of("kind", ACTIVITY_KINDS), name="kind"),
        sa.CheckConstraint(one_of("status", AGENT_STATUSES), name="status"),
        sa.CheckConstraint("duration_seconds >= 0", name="duration_seconds"),
        sa.Index("ix_agent_activity_agent", "namespace", "agent_id", "occurred_at"),
        sa.Index("ix_agent_activity_occurred", "namespace", "occurred_at"),
        {"sqlite_autoincrement": True},
    )

    id: int = key(primary_key=True, default=None)
    namespace: str = Field(default="", max_length=256)
    agent_id: str = Field(max_length=256)
    kind: str = Field(max_length=16)
    action: str = Field(max_length=256)
    status: str | None = Field(default=None, max_length=16)
    previous_status: str | None = Field(default=None, max_length=16)
    details: dict[str, Any] | None = Field(default=None, sa_type=Json)
    duration_seconds: float | None = None
    occurred_at: datetime
