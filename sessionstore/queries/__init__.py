"""What is asked of the database, one module per subject: functions that take the open transaction `db` first.

`sessions`, `lifecycle`, `messages`, `metrics`, `outbox`, `search_index`, `state` and `subscription` are the hot path and run
compiled SQL, as `catalog` does. The others use SQLAlchemy Core over the models, which take a fifth of a second to import; they
are loaded by the first call that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..loading import load
from . import lifecycle, messages, metrics, outbox, search_index, sessions, state, subscription

if TYPE_CHECKING:
    from types import ModuleType

    from . import (
        agents,
        analytics,
        backfill,
        belongings,
        blob_health,
        catalog,
        changes,
        checkpoint_rows,
        checkpoints,
        conversation_lives,
        conversations,
        copying,
        deliveries,
        documents,
        edits,
        erasing,
        forking,
        health,
        kinship,
        outbox_upkeep,
        replacing,
        retention,
        search_health,
        searching,
        sweeping,
        tidying,
        tool_calls,
        transfer,
        user_sql,
    )

__all__ = [
    "agents",
    "analytics",
    "backfill",
    "belongings",
    "blob_health",
    "catalog",
    "changes",
    "checkpoint_rows",
    "checkpoints",
    "conversation_lives",
    "conversations",
    "copying",
    "deliveries",
    "documents",
    "edits",
    "erasing",
    "forking",
    "health",
    "kinship",
    "lifecycle",
    "messages",
    "metrics",
    "outbox",
    "outbox_upkeep",
    "replacing",
    "retention",
    "search_health",
    "search_index",
    "searching",
    "sessions",
    "state",
    "subscription",
    "sweeping",
    "tidying",
    "tool_calls",
    "transfer",
    "user_sql",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return load(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
