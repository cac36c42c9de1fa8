"""The tables of the store itself and of its deliveries: what waits for the remote, and what a collector received."""

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field

from ..values import OUTBOX_STATES
from .base import Base, counter, key, one_of, where


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
    search: str = Field(default="deferred", max_length=16, sa_column_kwargs={"server_default": "deferred"})
    remote_after_metric: int | None = Field(default=None, sa_type=sa.BigInteger)


class OutboxRow(Base, table=True):
    """An event that waits for its delivery to the remote API, or was given up. Its body is frozen when its cause is stored.

    A delivered event leaves the table; `sync_state` counts it.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        sa.CheckConstraint(one_of("state", OUTBOX_STATES), name="state"),
        sa.CheckConstraint("attempts >= 0", name="attempts"),
        sa.UniqueConstraint("key"),
        sa.Index("ix_outbox_waiting", "id", "size_bytes", **where("state = 'pending'")),
        sa.Index("ix_outbox_settled", "state", "id", **where("state <> 'pending'")),
        {"sqlite_autoincrement": True},
    )

    id: int = key(primary_key=True, default=None)
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


class OutboxUnansweredRow(Base, table=True):
    """A stream of which a request ended without an answer, and may arrive until then: news of its erasure waits for that."""

    __tablename__ = "outbox_unanswered"
    __table_args__ = ({"sqlite_with_rowid": False},)

    namespace: str = Field(primary_key=True, max_length=256)
    stream: str = Field(primary_key=True, max_length=300)
    arrives_until: datetime


class SyncStateRow(Base, table=True):
    """The one row that says how the deliveries to the remote go."""

    __tablename__ = "sync_state"
    __table_args__ = (sa.CheckConstraint("id = 1", name="single_row"),)

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sent: int = counter()
    dropped: int = counter()
    last_sent_at: datetime | None = None
    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    paused: str | None = Field(default=None, max_length=32)
    last_status: int | None = None
    last_error: str | None = Field(default=None, max_length=200)
    backfilled_sessions: int = counter()
    backfilled_metrics: int = counter()
    backfilled_activity: int = counter()


class ReceivedEventRow(Base, table=True):
    """An event that a collector has stored, by its key, so that it is stored once however often it comes."""

    __tablename__ = "received_events"
    __table_args__ = ({"sqlite_with_rowid": False},)

    tenant: str = Field(primary_key=True, max_length=64)
    key: str = Field(primary_key=True, max_length=256)
    body_hash: bytes = Field(sa_type=sa.LargeBinary(32))
    received_at: datetime
