"""The tables, as SQLModel classes on a registry and MetaData of their own.

Every enum and range is also a named CHECK, because table models do not validate.
"""

from .agents import AgentActivityRow, AgentRow, MetricEventRow
from .base import SCHEMA_METADATA, is_modelled
from .checkpoints import CheckpointRow, CheckpointValueRow, CheckpointWriteRow
from .messages import BlobReferenceRow, BlobRow, MessageRow, SupersededMessageRow
from .sessions import InheritedRangeRow, SessionRow, SessionTagRow, StateValueRow
from .syncing import OutboxHoldRow, OutboxRow, OutboxUnansweredRow, ReceivedEventRow, StoreInfoRow, SyncStateRow

__all__ = [
    "SCHEMA_METADATA",
    "AgentActivityRow",
    "AgentRow",
    "BlobReferenceRow",
    "BlobRow",
    "CheckpointRow",
    "CheckpointValueRow",
    "CheckpointWriteRow",
    "InheritedRangeRow",
    "MessageRow",
    "MetricEventRow",
    "OutboxHoldRow",
    "OutboxRow",
    "OutboxUnansweredRow",
    "ReceivedEventRow",
    "SessionRow",
    "SessionTagRow",
    "StateValueRow",
    "StoreInfoRow",
    "SupersededMessageRow",
    "SyncStateRow",
    "is_modelled",
]
