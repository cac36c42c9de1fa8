"""The tables, as SQLModel classes on a registry and MetaData of their own.

Every enum and range is also a named CHECK, because table models do not validate.
"""

import sys

try:
    from .agents import AgentActivityRow, AgentRow, MetricEventRow
    from .base import SCHEMA_METADATA, is_modelled
    from .checkpoints import CheckpointRow, CheckpointValueRow, CheckpointWriteRow
    from .messages import BlobReferenceRow, BlobRow, MessageRow, SupersededMessageRow
    from .sessions import InheritedRangeRow, SessionRow, SessionTagRow, StateValueRow
    from .syncing import OutboxHoldRow, OutboxRow, OutboxUnansweredRow, ReceivedEventRow, StoreInfoRow, SyncStateRow
except BaseException:
    # An interrupt, say: tables that are half made cannot be made again beside themselves. The next import makes all of them anew.
    for _begun in [name for name in sys.modules if name.startswith(f"{__name__}.")]:
        del sys.modules[_begun]
    raise

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
