"""The tables, as statements name them, and the conditions on their rows that several statements share."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ..models import (
    AgentActivityRow,
    AgentRow,
    BlobReferenceRow,
    BlobRow,
    CheckpointRow,
    CheckpointValueRow,
    CheckpointWriteRow,
    InheritedRangeRow,
    MessageRow,
    MetricEventRow,
    OutboxHoldRow,
    OutboxRow,
    OutboxUnansweredRow,
    ReceivedEventRow,
    SessionRow,
    SessionTagRow,
    StateValueRow,
    StoreInfoRow,
    SupersededMessageRow,
    SyncStateRow,
)

SESSIONS: Final[sa.Table] = SessionRow.__table__  # type: ignore[attr-defined]
MESSAGES: Final[sa.Table] = MessageRow.__table__  # type: ignore[attr-defined]
TAGS: Final[sa.Table] = SessionTagRow.__table__  # type: ignore[attr-defined]
STORE_INFO: Final[sa.Table] = StoreInfoRow.__table__  # type: ignore[attr-defined]
METRIC_EVENTS: Final[sa.Table] = MetricEventRow.__table__  # type: ignore[attr-defined]
AGENTS: Final[sa.Table] = AgentRow.__table__  # type: ignore[attr-defined]
AGENT_ACTIVITY: Final[sa.Table] = AgentActivityRow.__table__  # type: ignore[attr-defined]
OUTBOX: Final[sa.Table] = OutboxRow.__table__  # type: ignore[attr-defined]
HOLDS: Final[sa.Table] = OutboxHoldRow.__table__  # type: ignore[attr-defined]
UNANSWERED: Final[sa.Table] = OutboxUnansweredRow.__table__  # type: ignore[attr-defined]
SYNC_STATE: Final[sa.Table] = SyncStateRow.__table__  # type: ignore[attr-defined]
RANGES: Final[sa.Table] = InheritedRangeRow.__table__  # type: ignore[attr-defined]
SUPERSEDED: Final[sa.Table] = SupersededMessageRow.__table__  # type: ignore[attr-defined]
BLOBS: Final[sa.Table] = BlobRow.__table__  # type: ignore[attr-defined]
BLOB_REFERENCES: Final[sa.Table] = BlobReferenceRow.__table__  # type: ignore[attr-defined]
STATE: Final[sa.Table] = StateValueRow.__table__  # type: ignore[attr-defined]
RECEIVED: Final[sa.Table] = ReceivedEventRow.__table__  # type: ignore[attr-defined]
CHECKPOINTS: Final[sa.Table] = CheckpointRow.__table__  # type: ignore[attr-defined]
CHECKPOINT_VALUES: Final[sa.Table] = CheckpointValueRow.__table__  # type: ignore[attr-defined]
CHECKPOINT_WRITES: Final[sa.Table] = CheckpointWriteRow.__table__  # type: ignore[attr-defined]

SESSION_COLUMNS: Final = tuple(SESSIONS.c)
MESSAGE_COLUMNS: Final = tuple(column for column in MESSAGES.c if column.computed is None)

_EXPIRES_AT: Final = sa.type_coerce(SESSIONS.c.expires_at, sa.String)
# Whether a session holds its name. It may be overdue: past its expiry, and no sweep has marked it yet.
HOLDS_NAME: Final = SESSIONS.c.status != sa.literal_column("'expired'")
IS_OPEN: Final = SESSIONS.c.status == sa.literal_column("'open'")
IN_TIME: Final = sa.or_(SESSIONS.c.expires_at.is_(None), sa.bindparam("at") < _EXPIRES_AT)
OVERDUE: Final = sa.and_(IS_OPEN, sa.bindparam("at") >= _EXPIRES_AT)

IS_PENDING: Final = OUTBOX.c.state == sa.literal_column("'pending'")
# In the words for which there is an index.
IS_DEAD: Final = sa.and_(OUTBOX.c.state == sa.literal_column("'dead'"), OUTBOX.c.state != sa.literal_column("'pending'"))
# The remote has no use for it.
IS_UNSUPPORTED: Final = OUTBOX.c.last_error.like(sa.literal_column("'unsupported%'"))
