"""A durable session store for Python agents: conversations in one SQLite file.

    import sessionstore

    with sessionstore.open("agent.db") as store:
        chat = store.session("user-alice")
        chat.append("user", "What's the capital of France?")

Importing this package loads neither SQLAlchemy, pydantic, Alembic nor httpx; what needs them loads them at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import UNSET, MessageDetails, NewMessage, SessionAttributes, SessionFilters
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
from .values import (
    Check,
    DeleteReceipt,
    Diagnosis,
    ExportReceipt,
    ImportReceipt,
    Message,
    Page,
    SessionInfo,
    StoreStatus,
    ToolCall,
    ToolCallReport,
    ToolResult,
)

if TYPE_CHECKING:
    from .aio import AsyncSessionHandle, AsyncSessionStore, aopen

    __version__: str

_ASYNC_NAMES = ("AsyncSessionHandle", "AsyncSessionStore", "aopen")

__all__ = [
    "UNSET",
    "AsyncSessionHandle",
    "AsyncSessionStore",
    "Check",
    "ClosedStoreError",
    "ConfigError",
    "ConflictError",
    "DeleteReceipt",
    "Diagnosis",
    "DiskFullError",
    "ExportReceipt",
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
    "Page",
    "QuotaError",
    "ReadOnlyStoreError",
    "SchemaTooNewError",
    "SessionAttributes",
    "SessionExpiredError",
    "SessionFilters",
    "SessionHandle",
    "SessionInfo",
    "SessionStore",
    "SessionStoreError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreIOError",
    "StoreOpenError",
    "StoreStatus",
    "StoreWarning",
    "ToolCall",
    "ToolCallReport",
    "ToolResult",
    "UnsafePathError",
    "UnsafePermissionsWarning",
    "UpgradeError",
    "WrongKeyError",
    "aopen",
    "open",
]


def __getattr__(name: str) -> Any:
    if name in _ASYNC_NAMES:
        from . import aio

        globals().update({each: getattr(aio, each) for each in _ASYNC_NAMES})
        return globals()[name]
    if name == "__version__":
        from importlib.metadata import version

        return version("sessionstore")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
