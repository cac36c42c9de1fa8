"""Session services of Google's Agent Development Kit: a turn is two events, appended one after the other."""

from __future__ import annotations

import sqlite3
import time
from abc import abstractmethod
from contextlib import closing
from typing import Any

from ..driver import Conversations, Messages

_APP, _USER = "bench", "alice"
_INSERT = (
    "INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_COPY = """INSERT INTO sessions (app_name, user_id, id, state, create_time, update_time)
SELECT app_name, user_id, ?, state, create_time, update_time FROM sessions WHERE id = 'session'"""


class _Service(Conversations):
    """A session object for each conversation, as the kit's runner holds one."""

    def open(self) -> None:
        from google.adk.events.event import Event
        from google.adk.sessions.base_session_service import GetSessionConfig
        from google.genai.types import Content, Part

        self._event, self._content, self._part, self._config = Event, Content, Part, GetSessionConfig
        self._sessions: dict[str, Any] = {}
        self.service = self.make()

    @abstractmethod
    def make(self) -> Any:
        """The session service."""

    async def new(self, session_id: str) -> None:
        self._sessions[session_id] = await self.service.create_session(app_name=_APP, user_id=_USER, session_id=session_id)

    async def resume(self, session_id: str, messages: Messages) -> None:
        self._sessions[session_id] = await self._get(session_id)

    def ready(self, session_id: str, messages: Messages) -> list[Any]:
        return [self._said(message["role"] == "user", message["content"]) for message in messages]

    async def turn(self, session_id: str, ready: list[Any]) -> None:
        for event in ready:
            await self.service.append_event(self._sessions[session_id], event)

    async def newest(self, session_id: str, count: int) -> int:
        return len((await self._get(session_id, config=self._config(num_recent_events=count))).events)

    async def whole(self, session_id: str) -> int:
        return len((await self._get(session_id)).events)

    async def listed(self) -> int:
        return len((await self.service.list_sessions(app_name=_APP, user_id=_USER)).sessions)

    async def close(self) -> None:
        pass

    def old_events(self, messages: Messages) -> list[Any]:
        """The events of a history, a second apart, which ends a minute ago."""
        first = time.time() - len(messages) - 60
        events = self.ready("", messages)
        for number, event in enumerate(events):
            event.timestamp = first + number
            event.id = event.id or type(event).new_id()
        return events

    async def _get(self, session_id: str, **options: Any) -> Any:
        return await self.service.get_session(app_name=_APP, user_id=_USER, session_id=session_id, **options)

    def _said(self, by_user: bool, text: str) -> Any:
        content = self._content(role="user" if by_user else "model", parts=[self._part(text=text)])
        return self._event(author="user" if by_user else "helper", invocation_id="i", content=content)


class _Own(_Service):
    """One of the kit's own; long histories are written to its tables, since it adds but one event at a time."""

    async def fill_list(self, count: int) -> None:
        await self.new("session")
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(_COPY, [(f"session-{number}",) for number in range(count - 1)])


class Sqlite(_Own):
    """SqliteSessionService."""

    def make(self) -> Any:
        from google.adk.sessions.sqlite_session_service import SqliteSessionService

        return SqliteSessionService(self.path)

    async def fill(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)
        rows = [
            (event.id, _APP, _USER, session_id, "i", event.timestamp, event.model_dump_json(exclude_none=True))
            for event in self.old_events(messages)
        ]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.executemany(_INSERT, rows)


class Database(_Own):
    """DatabaseSessionService, on SQLAlchemy's async engine."""

    def make(self) -> Any:
        from google.adk.sessions import DatabaseSessionService

        return DatabaseSessionService(f"sqlite+aiosqlite:///{self.path}")

    async def fill(self, session_id: str, messages: Messages) -> None:
        import sqlalchemy
        from sqlalchemy.orm import Session

        await self.new(session_id)
        table = self.service._get_schema_classes().StorageEvent
        rows = [table.from_event(self._sessions[session_id], event) for event in self.old_events(messages)]
        engine = sqlalchemy.create_engine(f"sqlite:///{self.path}")
        with Session(engine) as db:
            db.add_all(rows)
            db.commit()
        engine.dispose()

    async def close(self) -> None:
        await self.service.close()


class Adapter(_Service):
    """SessionStoreService, this store's adapter."""

    def make(self) -> Any:
        import sessionstore
        from sessionstore.adapters.google_adk import SessionStoreService

        self._store = sessionstore.open(self.path, durability=self.sync or "full")  # type: ignore[arg-type]
        return SessionStoreService(self._store)

    async def fill(self, session_id: str, messages: Messages) -> None:
        await self.new(session_id)
        for event in self.old_events(messages):
            await self.service.append_event(self._sessions[session_id], event)

    async def fill_list(self, count: int) -> None:
        for number in range(count):
            await self.new(f"session-{number}")

    async def close(self) -> None:
        self._store.close()
