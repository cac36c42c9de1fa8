"""The sessions of the OpenAI Agents SDK: two items are added; the newest 50 are read."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

from agents.extensions.memory import AdvancedSQLiteSession, SQLAlchemySession
from agents.memory import Session, SQLiteSession

import sessionstore
from sessionstore.adapters.openai_agents import AgentsSession

from .. import texts
from .driver import OURS, Driver, Framework

_FILLED_AT_ONCE = 1_000


class _Items(Driver):
    """A session of the SDK, whoever keeps it."""

    session: Session

    async def fill(self, length: int) -> None:
        """Add a history in large batches."""
        history = cast("list[Any]", texts.history(length))
        for start in range(0, length, _FILLED_AT_ONCE):
            await self.session.add_items(history[start : start + _FILLED_AT_ONCE])

    async def turn(self, number: int) -> None:
        await self.session.add_items(cast("list[Any]", texts.turn(number)))

    async def newest(self) -> int:
        return len(await self.session.get_items(limit=self.recent))


class _Ours(_Items):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        store = stack.enter_context(sessionstore.open(path))
        self.session = AgentsSession("chat", store)
        await self.fill(length)


class _SQLite(_Items):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        session = SQLiteSession("chat", path)
        stack.callback(session.close)
        self.session = session
        await self.fill(length)


class _Advanced(_Items):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        session = AdvancedSQLiteSession(session_id="chat", db_path=path, create_tables=True)
        stack.callback(session.close)
        self.session = session
        await self.fill(length)


class _SQLAlchemy(_Items):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        session = SQLAlchemySession.from_url("chat", url=f"sqlite+aiosqlite:///{path}", create_tables=True)
        stack.push_async_callback(session.engine.dispose)
        self.session = session
        await self.fill(length)


FRAMEWORK = Framework(
    "OpenAI Agents",
    "two items onto",
    "the newest 50 of",
    {OURS: _Ours, "SQLiteSession": _SQLite, "AdvancedSQLiteSession": _Advanced, "SQLAlchemySession": _SQLAlchemy},
)
