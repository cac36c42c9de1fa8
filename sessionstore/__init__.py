"""A durable session store for Python agents: conversations in one SQLite file.

    import sessionstore

    with sessionstore.open("agent.db") as store:
        chat = store.session("user-alice")
        chat.append("user", "What's the capital of France?")

Importing this package loads neither SQLAlchemy, pydantic, Alembic nor httpx; what needs them loads them at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import UNSET, AnalyticsFilters, MessageDetails, NewMessage, SessionAttributes, SessionFilters, TimerOptions
from .errors import (
    ClosedStoreError,
    ConfigError,
    ConflictError,
    DiskFullError,
    ForeignDatabaseError,
    ForkedStoreError,
    InvalidInputError,
    MissingExtraError,
    NotADatabaseError,
    NotFoundError,
    QuotaError,
    ReadOnlyStoreError,
    SchemaTooNewError,
    SessionExpiredError,
    SessionStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreIOError,
    StoreOpenError,
    StoreWarning,
    UnsafePathError,
    UnsafePermissionsWarning,
    UpgradeError,
    WrongKeyError,
)
from .handle import SessionHandle
from .opening import open
from .store import SessionStore
from .store.timing import AsyncTimer, Timer, Timing
from .tracked_ids import SessionIdParts, parse_session_id
from .values import (
    AgentStatus,
    ConversationQuality,
    Message,
    Page,
    QueryResult,
    SessionInfo,
    ToolCall,
    ToolCallReport,
    ToolResult,
)
from .values.agents import Activity, ActivityCounts, AgentConversations, AgentInfo, OperationsOverview
from .values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates, TokenUsage
from .values.conversations import Conversation, SessionStats
from .values.health import Check, Diagnosis, StoreStatus
from .values.receipts import DeleteReceipt, ExportReceipt, ImportReceipt, SweepReceipt

if TYPE_CHECKING:
    from .aio import AsyncSessionHandle, AsyncSessionStore, aopen
    from .background import AsyncBackground, Background
    from .trackers import AgentOperationsTracker, AgentPerformanceTracker

    __version__: str

# What loads an event loop's libraries is loaded when it is asked for.
_LAZY = {
    "AgentOperationsTracker": "trackers",
    "AgentPerformanceTracker": "trackers",
    "AsyncBackground": "background",
    "AsyncSessionHandle": "aio",
    "AsyncSessionStore": "aio",
    "Background": "background",
    "aopen": "aio",
}

__all__ = [
    "UNSET",
    "Activity",
    "ActivityCounts",
    "AgentConversations",
    "AgentInfo",
    "AgentOperationsTracker",
    "AgentPerformanceTracker",
    "AgentStatus",
    "AnalyticsFilters",
    "AsyncBackground",
    "AsyncSessionHandle",
    "AsyncSessionStore",
    "AsyncTimer",
    "Background",
    "Check",
    "ClosedStoreError",
    "ConfigError",
    "ConflictError",
    "Conversation",
    "ConversationQuality",
    "DeleteReceipt",
    "Diagnosis",
    "DiskFullError",
    "ExportReceipt",
    "Failures",
    "ForeignDatabaseError",
    "ForkedStoreError",
    "ImportReceipt",
    "InvalidInputError",
    "Message",
    "MessageDetails",
    "MissingExtraError",
    "NewMessage",
    "NotADatabaseError",
    "NotFoundError",
    "OperationsOverview",
    "Overview",
    "Page",
    "QualityScores",
    "QueryResult",
    "QuotaError",
    "ReadOnlyStoreError",
    "ResponseTimes",
    "SchemaTooNewError",
    "SessionAttributes",
    "SessionExpiredError",
    "SessionFilters",
    "SessionHandle",
    "SessionIdParts",
    "SessionInfo",
    "SessionStats",
    "SessionStore",
    "SessionStoreError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreIOError",
    "StoreOpenError",
    "StoreStatus",
    "StoreWarning",
    "SuccessRates",
    "SweepReceipt",
    "Timer",
    "TimerOptions",
    "Timing",
    "TokenUsage",
    "ToolCall",
    "ToolCallReport",
    "ToolResult",
    "UnsafePathError",
    "UnsafePermissionsWarning",
    "UpgradeError",
    "WrongKeyError",
    "aopen",
    "open",
    "parse_session_id",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        return globals()[name]
    if name == "__version__":
        from importlib.metadata import version

        return version("sessionstore")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
