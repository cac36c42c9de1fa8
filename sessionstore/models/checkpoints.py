"""The tables of checkpoints: what a graph framework keeps of a session, to go on from there."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from .base import Base, Json, Key, key, where


def _session_key() -> Any:
    return Field(
        sa_column=sa.Column(Key, sa.ForeignKey("sessions.session_key", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )


class CheckpointRow(Base, table=True):
    """A checkpoint without its channels' values; `channels` says which of the session's values each channel has."""

    __tablename__ = "checkpoints"
    __table_args__ = (sa.Index("ix_checkpoints_run", "run_id", **where("run_id IS NOT NULL")),)

    session_key: int = _session_key()
    checkpoint_ns: str = Field(primary_key=True, sa_type=sa.Text)
    checkpoint_id: str = Field(primary_key=True, sa_type=sa.Text)
    parent_id: str | None = Field(default=None, sa_type=sa.Text)
    run_id: str | None = Field(default=None, sa_type=sa.Text)
    type: str = Field(sa_type=sa.Text)
    checkpoint: bytes = Field(sa_type=sa.LargeBinary)
    metadata_type: str = Field(sa_type=sa.Text)
    metadata_: bytes = Field(sa_column=sa.Column("metadata", sa.LargeBinary, nullable=False))
    channels: dict[str, int] = Field(sa_type=Json)
    created_at: datetime


class CheckpointValueRow(Base, table=True):
    """A channel's value, once for all checkpoints that have it; of a list, what stands behind the items of another value.

    Numbers of a session may be given again when the last ones were deleted; the random stamp tells such values apart.
    """

    __tablename__ = "checkpoint_values"
    __table_args__ = (
        sa.CheckConstraint("base_number < number", name="base"),
        sa.Index("ix_checkpoint_values_version", "session_key", "checkpoint_ns", "channel", "version", "number"),
    )

    session_key: int = _session_key()
    number: int = key(primary_key=True, sa_column_kwargs={"autoincrement": False})
    stamp: int = Field(sa_type=sa.BigInteger)
    checkpoint_ns: str = Field(sa_type=sa.Text)
    channel: str = Field(sa_type=sa.Text)
    version: str | None = Field(default=None, sa_type=sa.Text)
    base_number: int | None = Field(default=None, sa_type=sa.BigInteger)
    items: int | None = Field(default=None, sa_type=sa.BigInteger)
    type: str = Field(sa_type=sa.Text)
    value: bytes = Field(sa_type=sa.LargeBinary)


class CheckpointWriteRow(Base, table=True):
    """What a task wrote after a checkpoint, kept until the next one has it; it may be there before its checkpoint is."""

    __tablename__ = "checkpoint_writes"

    session_key: int = _session_key()
    checkpoint_ns: str = Field(primary_key=True, sa_type=sa.Text)
    checkpoint_id: str = Field(primary_key=True, sa_type=sa.Text)
    task_id: str = Field(primary_key=True, sa_type=sa.Text)
    idx: int = key(primary_key=True, sa_column_kwargs={"autoincrement": False})
    task_path: str = Field(sa_type=sa.Text)
    channel: str = Field(sa_type=sa.Text)
    type: str = Field(sa_type=sa.Text)
    value: bytes = Field(sa_type=sa.LargeBinary)
