"""Session services of the Agent Development Kit: two events are appended; the session is read with its newest 50."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from google.adk.events.event import Event
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai.types import Content, Part

import sessionstore
from sessionstore.adapters.google_adk import SessionStoreService

from .. import texts
from .driver import OURS, Driver, Framework

_NAME = {"app_name": "bench", "user_id": "alice", "session_id": "chat"}


class _Events(Driver):
    """A session of the kit, whoever keeps it."""

    service: BaseSessionService

    async def begin(self, length: int) -> None:
        """Make the session, with so many events."""
        self._session = await self.service.create_session(**_NAME)
        for message in texts.history(length):
            await self._append(message)

    async def turn(self, number: int) -> None:
        for message in texts.turn(number):
            await self._append(message)

    async def newest(self) -> int:
        found = await self.service.get_session(**_NAME, config=GetSessionConfig(num_recent_events=self.recent))
        return len(found.events) if found is not None else 0

    async def _append(self, message: dict[str, str]) -> None:
        author = "user" if message["role"] == "user" else "helper"
        content = Content(role="user" if author == "user" else "model", parts=[Part(text=message["content"])])
        await self.service.append_event(self._session, Event(author=author, invocation_id="i", content=content))


class _Ours(_Events):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        self.service = SessionStoreService(stack.enter_context(sessionstore.open(path)))
        await self.begin(length)


class _Sqlite(_Events):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        self.service = SqliteSessionService(str(path))
        await self.begin(length)


class _Database(_Events):
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        service = DatabaseSessionService(f"sqlite+aiosqlite:///{path}")
        # Its connections' threads end a moment after the call.
        stack.push_async_callback(asyncio.sleep, 0.1)
        stack.push_async_callback(service.close)
        self.service = service
        await self.begin(length)


FRAMEWORK = Framework(
    "Google ADK",
    "two events onto",
    "the session with the newest 50 of",
    {OURS: _Ours, "SqliteSessionService": _Sqlite, "DatabaseSessionService": _Database},
)
