"""What is asked of the database, one module per subject: functions that take the open transaction `db` first.

`sessions` and `messages` are the hot path and run compiled SQL. The others use SQLAlchemy Core over the models, which take a
fifth of a second to import; they are loaded by the first call that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from . import messages, sessions

if TYPE_CHECKING:
    from types import ModuleType

    from . import catalog, edits, health, lifecycle, tool_calls, transfer

__all__ = ["catalog", "edits", "health", "lifecycle", "messages", "sessions", "tool_calls", "transfer"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
