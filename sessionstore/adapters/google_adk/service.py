"""The session service itself: ADK's calls over the transactions of `records`, and sessions that outlive their program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import anyio
from anyio.lowlevel import current_token
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from google.adk.sessions.state import State
from pydantic_core import to_jsonable_python

from ... import clock, inputs
from ...arguments import new_session
from ...database.full_disk import Freeing
from ...database.transaction import Work
from ...errors import ConflictError, NotFoundError, SessionExpiredError
from ...queries.state import ValuesByScope
from ...store import SessionStore
from ...store.state import texts_by_scope
from ...values import Message
from ...waiting import in_thread
from ..given import GivenStore, StoreLike
from . import names, records
from .events import as_json, failure_of, messages_of
from .histories import texts_of

T = TypeVar("T")

# More events than this are made in a thread, so that the event loop goes on.
_MANY: Final = 200


class SessionStoreService(BaseSessionService):
    """ADK's sessions, events and state in a store.

    A session of ADK's is a session of the store: `agent_id` is its application, `user_id` its user, and `stored_id(app_name,
    user_id, session_id)` its id there. So search, figures, lives, forks and syncing work on it as on any other.

    An appended event is on disk, with the state that it changes, in one transaction. It may be used from several event loops.
    """

    def __init__(self, store: StoreLike = None) -> None:
        """Take a store.

        Args:
            store: A store, which stays open, or a path, which `close` closes. None: the default store, as `sessionstore.open()`.
                A path is opened at once: in an event loop, rather give what `sessionstore.aopen()` gives.
        """
        self._given = GivenStore(store)
        self._turns = _Turns()

    @property
    def store(self) -> SessionStore:
        """The store that this works on."""
        return self._given.sync

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Make a session, with its first state.

        Raises:
            AlreadyExistsError: There is one of this application, user and id.
            InvalidInputError: Something is refused.
        """
        name = names.checked(app_name, user_id, (session_id or "").strip() or clock.new_id())
        settings = self.store.settings
        new = new_session(
            settings.namespace,
            name.stored_id,
            agent_id=app_name,
            user_id=user_id,
            ttl=settings.ttl,
            max_age=settings.max_age,
            on_expire=settings.on_expire,
        )
        values = _by_scope(app_name, to_jsonable_python(state or {}, fallback=str, inf_nan_mode="null"))
        try:
            return _session(await self._write(lambda db: records.create(db, new, name, values)), [])
        except ConflictError as error:
            raise AlreadyExistsError(f"Session with id {name.session_id} already exists.") from error

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """A session with its events and all the state that it sees; None if there is none, or if it has expired."""
        name = names.checked(app_name, user_id, session_id)
        wanted = records.Wanted()
        if config is not None:
            wanted = records.Wanted(config.num_recent_events, config.after_timestamp)
        namespace = self.store.namespace
        record = await self._read(lambda db: records.load(db, namespace, name, wanted))
        if record is None:
            return None
        return _session(record, await _events(record.messages, app_name, wanted))

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of an application, or of one of its users, with their state and without events, last used last."""
        app = inputs.identifier("app_name", app_name)
        user = inputs.optional_identifier("user_id", user_id)
        namespace = self.store.namespace
        found = await self._read(lambda db: records.listed(db, namespace, app, user))
        sessions = [_session(record, []) for record in found]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session, if there is one, with its events and its own state. What belongs to its user and application stays."""
        name = names.checked(app_name, user_id, session_id)
        namespace = self.store.namespace
        await self._write(Freeing(lambda db: records.delete(db, namespace, name)))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """A user's state in an application, without the prefix `user:`, whatever sessions there are."""
        app, user = inputs.identifier("app_name", app_name), inputs.identifier("user_id", user_id)
        namespace = self.store.namespace
        return await self._read(lambda db: records.state_of_user(db, namespace, app, user))

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event at the end of a session, with the state that it changes; a partial one is not stored.

        Appending the same event again changes nothing.

        Raises:
            SessionNotFoundError: There is no such session, or it has expired.
            StaleSessionError: Others have appended since it was loaded: get it again.
            AlreadyExistsError: It has another event of the same id.
            InvalidInputError: The event is refused; nothing was written.
        """
        if event.partial:
            return event
        name = names.checked(session.app_name, session.user_id, session.id)
        async with self._turns.of(name):
            self._apply_temp_state(session, event)
            event = self._trim_temp_delta_state(event)
            appended = await self._append(name, session, event)
            if appended.marker is not None:
                session._storage_update_marker = appended.marker  # noqa: SLF001 - ADK's place for it
            session.last_update_time = event.timestamp
            if not appended.is_new and any(each.id == event.id for each in session.events):
                return event
            return self._commit_event_to_session(session, event)

    async def flush(self) -> None:
        """Nothing waits: what was appended is on disk."""

    async def close(self) -> None:
        """Close the store if it was given as a path; one that was given open stays open."""
        await self._given.aclose()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store!r})"

    async def _append(self, name: names.Name, session: Session, event: Event) -> records.Appended:
        stored = as_json(event)
        values = _by_scope(name.app_name, stored.get("actions", {}).get("stateDelta") or {})
        failure = failure_of(stored)
        last = session.events[-1].id if session.events else None
        seen = records.Seen(session._storage_update_marker, session.last_update_time, last)  # noqa: SLF001 - ADK's place for it
        new = self.store._all_prepared(messages_of(stored))  # noqa: SLF001 - as append_many does
        namespace = self.store.namespace
        try:
            return await self._write(lambda db: records.append(db, namespace, name, seen, new, values, failure))
        except (NotFoundError, SessionExpiredError) as error:
            raise SessionNotFoundError(f"Session {name.session_id} not found.") from error
        except records.StaleError as error:
            raise StaleSessionError(
                f"Session {name.session_id} was changed since it was loaded; get it again and repeat the append."
            ) from error
        except ConflictError as error:
            raise AlreadyExistsError(f"Session {name.session_id} has another event with the id {event.id}.") from error

    async def _read(self, work: Work[T]) -> T:
        self.store._require_open()  # noqa: SLF001 - a call of the store, made of several
        return cast(T, await self._given.awaited._read(work))  # noqa: SLF001

    async def _write(self, work: Work[T]) -> T:
        self.store._require_writable()  # noqa: SLF001 - as above
        return await self._given.awaited._write(work)  # noqa: SLF001


class _Turns:
    """Appends to one session take turns, so that each counts on what the one before it left in the caller's session."""

    def __init__(self) -> None:
        self._locks: dict[tuple[object, names.Name], tuple[anyio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, name: names.Name) -> AsyncIterator[None]:
        """Wait for the turn, in the order of asking. Each event loop has its own locks; the marker guards between loops."""
        key = (current_token(), name)
        lock, users = self._locks.get(key) or (anyio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = (lock, users - 1)


def _session(record: records.Record, events: list[Event]) -> Session:
    session = Session(
        id=record.name.session_id,
        app_name=record.name.app_name,
        user_id=record.name.user_id,
        state=record.state,
        events=events,
        last_update_time=record.updated_at,
    )
    session._storage_update_marker = record.marker  # noqa: SLF001 - ADK's place for it
    return session


async def _events(messages: Sequence[Message], app_name: str, wanted: records.Wanted) -> list[Event]:
    if len(messages) <= _MANY:
        return _made(messages, app_name, wanted)
    return await in_thread(lambda: _made(messages, app_name, wanted))


def _made(messages: Sequence[Message], app_name: str, wanted: records.Wanted) -> list[Event]:
    events = [Event.model_validate_json(text) for text in texts_of(messages, app_name)]
    if wanted.since is not None:
        events = [event for event in events if event.timestamp >= wanted.since]
    return events if wanted.last is None else events[max(len(events) - wanted.last, 0) :]


def _by_scope(app_name: str, state: Mapping[str, Any]) -> ValuesByScope:
    """Values by the scope that their prefixes tell, under the names that they have in the store."""
    scopes: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            scopes.setdefault("app", {})[name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            in_store = names.name_prefix(app_name) + name.removeprefix(State.USER_PREFIX)
            scopes.setdefault("user", {})[in_store] = value
        elif not name.startswith(State.TEMP_PREFIX):
            scopes.setdefault("session", {})[name] = value
    return texts_by_scope(scopes)  # type: ignore[arg-type]
