"""The tables, as statements name them, and the conditions on their rows that several statements share."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ..models import SCHEMA_METADATA

_TABLES: Final = SCHEMA_METADATA.tables
SESSIONS: Final = _TABLES["sessions"]
MESSAGES: Final = _TABLES["messages"]
TAGS: Final = _TABLES["session_tags"]
STORE_INFO: Final = _TABLES["store_info"]
METRIC_EVENTS: Final = _TABLES["metric_events"]
AGENTS: Final = _TABLES["agents"]
AGENT_ACTIVITY: Final = _TABLES["agent_activity"]
OUTBOX: Final = _TABLES["outbox"]
HOLDS: Final = _TABLES["outbox_holds"]
UNANSWERED: Final = _TABLES["outbox_unanswered"]
SYNC_STATE: Final = _TABLES["sync_state"]
RANGES: Final = _TABLES["inherited_ranges"]
SUPERSEDED: Final = _TABLES["superseded_messages"]
BLOBS: Final = _TABLES["blobs"]
BLOB_REFERENCES: Final = _TABLES["blob_references"]
STATE: Final = _TABLES["state_values"]
RECEIVED: Final = _TABLES["received_events"]
CHECKPOINTS: Final = _TABLES["checkpoints"]
CHECKPOINT_VALUES: Final = _TABLES["checkpoint_values"]
CHECKPOINT_WRITES: Final = _TABLES["checkpoint_writes"]

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
