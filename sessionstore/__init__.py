"""A durable session store for Python agents: conversations in one SQLite file.

    import sessionstore

    with sessionstore.open("agent.db") as store:
        chat = store.session("user-alice")
        chat.append("user", "What's the capital of France?")

Importing this package, opening a store, appending and reading load neither SQLAlchemy, pydantic, Alembic nor httpx; what needs them
loads them at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import (
    UNSET,
    AnalyticsFilters,
    MessageDetails,
    NewMessage,
    NewMetric,
    SearchFilters,
    SessionAttributes,
    SessionFilters,
    TimerOptions,
)
from .errors import (
    AuthError,
    BackendError,
    ClosedStoreError,
    ConfigError,
    ConflictError,
    DiskFullError,
    ForeignDatabaseError,
    ForkedStoreError,
    InvalidInputError,
    MissingExtraError,
    ModelError,
    NotADatabaseError,
    NotFoundError,
    QuotaError,
    ReadOnlyStoreError,
    RedirectRefusedError,
    RejectedError,
    ResponseError,
    SchemaTooNewError,
    SearchUnavailableError,
    SessionExpiredError,
    SessionStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreIOError,
    StoreOpenError,
    StoreWarning,
    SyncError,
    UnsafePathError,
    UnsafePermissionsWarning,
    UpgradeError,
    WrongKeyError,
)
from .handle import SessionHandle
from .keys import EncryptionKey, Passphrase, create_key_file, environment_key, file_key, keyring_key
from .opening import open
from .store import SessionStore
from .store.outbox import Outbox
from .store.timing import AsyncTimer, Timer, Timing
from .tracked_ids import SessionIdParts, parse_session_id
from .values import (
    AgentStatus,
    ConversationQuality,
    Message,
    MessageBlob,
    Page,
    QueryResult,
    SessionInfo,
    SupersededMessage,
    ToolCall,
    ToolCallReport,
    ToolResult,
)

if TYPE_CHECKING:
    from .aio import AsyncOutbox, AsyncSessionHandle, AsyncSessionStore
    from .aio_opening import aopen, arestore
    from .background import AsyncBackground, Background
    from .chat import AsyncReplyStream, ChatAgent, ModelAnswer, OpenAICompatible, Reply, ReplyStream
    from .encrypting import decrypt_file, encrypt_file
    from .memory.files import FileBackend
    from .memory.protocol import AsyncMemoryBackend, MemoryBackend
    from .remote.settings import Remote
    from .restoring import restore
    from .trackers import AgentOperationsTracker, AgentPerformanceTracker
    from .values.agents import Activity, ActivityCounts, AgentConversations, AgentInfo, OperationsOverview
    from .values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates, TokenUsage
    from .values.conversations import Conversation, SessionStats
    from .values.health import Check, Diagnosis, StorageSizes, StoreStatus
    from .values.outbox import BackfillReceipt, OutboxEvent, OutboxStats
    from .values.receipts import (
        BackupReceipt,
        ConversionReceipt,
        CopyReceipt,
        DeleteReceipt,
        DrainReceipt,
        EraseReceipt,
        ExportReceipt,
        ImportReceipt,
        RestoreReceipt,
        SweepReceipt,
        VacuumReceipt,
    )
    from .values.search import SearchHit, SearchPage

    __version__: str

# What a program that appends and reads never names is loaded when it is asked for.
_LAZY = {
    "Activity": "values.agents",
    "ActivityCounts": "values.agents",
    "AgentConversations": "values.agents",
    "AgentInfo": "values.agents",
    "AgentOperationsTracker": "trackers",
    "AgentPerformanceTracker": "trackers",
    "AsyncBackground": "background",
    "AsyncMemoryBackend": "memory.protocol",
    "AsyncOutbox": "aio",
    "AsyncReplyStream": "chat",
    "AsyncSessionHandle": "aio",
    "AsyncSessionStore": "aio",
    "BackfillReceipt": "values.outbox",
    "Background": "background",
    "BackupReceipt": "values.receipts",
    "ChatAgent": "chat",
    "Check": "values.health",
    "Conversation": "values.conversations",
    "ConversionReceipt": "values.receipts",
    "CopyReceipt": "values.receipts",
    "DeleteReceipt": "values.receipts",
    "Diagnosis": "values.health",
    "DrainReceipt": "values.receipts",
    "EraseReceipt": "values.receipts",
    "ExportReceipt": "values.receipts",
    "Failures": "values.answers",
    "FileBackend": "memory.files",
    "ImportReceipt": "values.receipts",
    "MemoryBackend": "memory.protocol",
    "ModelAnswer": "chat",
    "OpenAICompatible": "chat",
    "OperationsOverview": "values.agents",
    "OutboxEvent": "values.outbox",
    "OutboxStats": "values.outbox",
    "Overview": "values.answers",
    "QualityScores": "values.answers",
    "Remote": "remote.settings",
    "Reply": "chat",
    "ReplyStream": "chat",
    "ResponseTimes": "values.answers",
    "RestoreReceipt": "values.receipts",
    "SearchHit": "values.search",
    "SearchPage": "values.search",
    "SessionStats": "values.conversations",
    "StorageSizes": "values.health",
    "StoreStatus": "values.health",
    "SuccessRates": "values.answers",
    "SweepReceipt": "values.receipts",
    "TokenUsage": "values.answers",
    "VacuumReceipt": "values.receipts",
    "aopen": "aio_opening",
    "arestore": "aio_opening",
    "decrypt_file": "encrypting",
    "encrypt_file": "encrypting",
    "restore": "restoring",
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
    "AsyncMemoryBackend",
    "AsyncOutbox",
    "AsyncReplyStream",
    "AsyncSessionHandle",
    "AsyncSessionStore",
    "AsyncTimer",
    "AuthError",
    "BackendError",
    "BackfillReceipt",
    "Background",
    "BackupReceipt",
    "ChatAgent",
    "Check",
    "ClosedStoreError",
    "ConfigError",
    "ConflictError",
    "Conversation",
    "ConversationQuality",
    "ConversionReceipt",
    "CopyReceipt",
    "DeleteReceipt",
    "Diagnosis",
    "DiskFullError",
    "DrainReceipt",
    "EncryptionKey",
    "EraseReceipt",
    "ExportReceipt",
    "Failures",
    "FileBackend",
    "ForeignDatabaseError",
    "ForkedStoreError",
    "ImportReceipt",
    "InvalidInputError",
    "MemoryBackend",
    "Message",
    "MessageBlob",
    "MessageDetails",
    "MissingExtraError",
    "ModelAnswer",
    "ModelError",
    "NewMessage",
    "NewMetric",
    "NotADatabaseError",
    "NotFoundError",
    "OpenAICompatible",
    "OperationsOverview",
    "Outbox",
    "OutboxEvent",
    "OutboxStats",
    "Overview",
    "Page",
    "Passphrase",
    "QualityScores",
    "QueryResult",
    "QuotaError",
    "ReadOnlyStoreError",
    "RedirectRefusedError",
    "RejectedError",
    "Remote",
    "Reply",
    "ReplyStream",
    "ResponseError",
    "ResponseTimes",
    "RestoreReceipt",
    "SchemaTooNewError",
    "SearchFilters",
    "SearchHit",
    "SearchPage",
    "SearchUnavailableError",
    "SessionAttributes",
    "SessionExpiredError",
    "SessionFilters",
    "SessionHandle",
    "SessionIdParts",
    "SessionInfo",
    "SessionStats",
    "SessionStore",
    "SessionStoreError",
    "StorageSizes",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreIOError",
    "StoreOpenError",
    "StoreStatus",
    "StoreWarning",
    "SuccessRates",
    "SupersededMessage",
    "SweepReceipt",
    "SyncError",
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
    "VacuumReceipt",
    "WrongKeyError",
    "aopen",
    "arestore",
    "create_key_file",
    "decrypt_file",
    "encrypt_file",
    "environment_key",
    "file_key",
    "keyring_key",
    "open",
    "parse_session_id",
    "restore",
]


if not TYPE_CHECKING:
    # Checkers would take any name for one that is there.
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
