"""Types that annotations of public calls name, and that nothing else needs until somebody asks for the annotations.

Loading them would take a fifth of the start. `typing.get_type_hints`, which frameworks call on what is given to them as a tool,
finds a name of a module only if it is there; but what it finds in a module may be loaded at that moment: `hints.SearchPage`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from .loading import load

if TYPE_CHECKING:
    from .aio import AsyncSessionStore
    from .background import AsyncBackground, Background
    from .handle import SessionHandle
    from .memory.in_store import AsyncStoreBackend, StoreBackend
    from .remote.credentials import ApiKey
    from .remote.settings import Remote
    from .store import SessionStore
    from .values.agents import Activity, ActivityKind, AgentInfo, OperationsOverview
    from .values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates, TokenUsage
    from .values.health import Diagnosis, StoreStatus
    from .values.outbox import BackfillReceipt, OutboxEvent, OutboxState, OutboxStats
    from .values.receipts import (
        BackupReceipt,
        CopyReceipt,
        DeleteReceipt,
        DrainReceipt,
        EraseReceipt,
        ExportReceipt,
        ImportReceipt,
        SweepReceipt,
        VacuumReceipt,
    )
    from .values.search import SearchPage

# All others have their place in the front door.
_NOT_PUBLIC: Final = {
    "ActivityKind": "values.agents",
    "ApiKey": "remote.credentials",
    "AsyncStoreBackend": "memory.in_store",
    "OutboxState": "values.outbox",
    "StoreBackend": "memory.in_store",
}

__all__ = [
    "Activity",
    "ActivityKind",
    "AgentInfo",
    "ApiKey",
    "AsyncBackground",
    "AsyncSessionStore",
    "AsyncStoreBackend",
    "BackfillReceipt",
    "Background",
    "BackupReceipt",
    "CopyReceipt",
    "DeleteReceipt",
    "Diagnosis",
    "DrainReceipt",
    "EraseReceipt",
    "ExportReceipt",
    "Failures",
    "ImportReceipt",
    "OperationsOverview",
    "OutboxEvent",
    "OutboxState",
    "OutboxStats",
    "Overview",
    "QualityScores",
    "Remote",
    "ResponseTimes",
    "SearchPage",
    "SessionHandle",
    "SessionStore",
    "StoreBackend",
    "StoreStatus",
    "SuccessRates",
    "SweepReceipt",
    "TokenUsage",
    "VacuumReceipt",
]


if not TYPE_CHECKING:
    # Checkers would take a misspelt annotation for one of any type.
    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        place = _NOT_PUBLIC.get(name)
        return getattr(sys.modules[__package__] if place is None else load(f"{__package__}.{place}"), name)
