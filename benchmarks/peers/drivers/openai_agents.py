"""Sessions of the OpenAI Agents SDK, each of one conversation: its own kinds, and this store's adapter."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any

from ..driver import Conversations, Messages

_FILLED_AT_ONCE = 1_000


class _Sessions(Conversations):
    """A session object for each conversation."""

    def open(self) -> None:
        self._sessions: dict[str, Any] = {}
        self.begin()

    def begin(self) -> None:
        """What all sessions of a file share."""

    @abstractmethod
    def session(self, session_id: str) -> Any:
        """A session object."""

    async def new(self, session_id: str) -> None:
        self._sessions[session_id] = self.session(session_id)

    async def fill(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)
        for start in range(0, len(messages), _FILLED_AT_ONCE):
            await self._sessions[session_id].add_items(messages[start : start + _FILLED_AT_ONCE])

    async def resume(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)
        # Its connection is made at the first use.
        await self._sessions[session_id].get_items(limit=1)

    async def turn(self, session_id: str, ready: Messages) -> None:
        await self._sessions[session_id].add_items(ready)

    async def newest(self, session_id: str, count: int) -> int:
        return len(await self._sessions[session_id].get_items(limit=count))

    async def whole(self, session_id: str) -> int:
        if session_id not in self._sessions:
            await self.new(session_id)
        return len(await self._sessions[session_id].get_items())

    async def close(self) -> None:
        for session in self._sessions.values():
            if inspect.isawaitable(closing := session.close()):
                await closing


class SQLite(_Sessions):
    """SQLiteSession, the usual one."""

    def begin(self) -> None:
        from agents import SQLiteSession

        self._make = SQLiteSession

    def session(self, session_id: str) -> Any:
        return self._make(session_id, self.path)


class Advanced(_Sessions):
    """AdvancedSQLiteSession, with branches and usage."""

    def begin(self) -> None:
        from agents.extensions.memory import AdvancedSQLiteSession

        self._make = AdvancedSQLiteSession

    def session(self, session_id: str) -> Any:
        return self._make(session_id=session_id, db_path=self.path, create_tables=True)


class Async(_Sessions):
    """AsyncSQLiteSession, on aiosqlite."""

    def begin(self) -> None:
        from agents.extensions.memory import AsyncSQLiteSession

        self._make = AsyncSQLiteSession

    def session(self, session_id: str) -> Any:
        return self._make(session_id, self.path)


class SQLAlchemy(_Sessions):
    """SQLAlchemySession, on SQLAlchemy's async engine, which all sessions share."""

    def begin(self) -> None:
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        self._make = SQLAlchemySession
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}")

    def session(self, session_id: str) -> Any:
        return self._make(session_id, engine=self._engine, create_tables=True)

    async def close(self) -> None:
        await self._engine.dispose()


class Adapter(_Sessions):
    """AgentsSession, this store's adapter, over one store."""

    def begin(self) -> None:
        import sessionstore
        from sessionstore.adapters.openai_agents import AgentsSession

        self._make = AgentsSession
        self._store = sessionstore.open(self.path, durability=self.sync or "full")  # type: ignore[arg-type]

    def session(self, session_id: str) -> Any:
        return self._make(session_id, self._store)

    async def close(self) -> None:
        self._store.close()
