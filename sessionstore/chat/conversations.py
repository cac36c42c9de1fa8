"""Where a conversation is kept: in memory only, as a session of a store, or as a document of a memory backend."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Awaitable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

from .. import clock, inputs
from ..aio import AsyncSessionStore
from ..arguments import NewMessage, SessionAttributes
from ..content import MESSAGE_KIND
from ..errors import (
    BackendError,
    ClosedStoreError,
    ConfigError,
    ConflictError,
    NotFoundError,
    SessionStoreError,
    StoreCorruptError,
)
from ..memory.protocol import AsyncMemoryBackend, MemoryBackend, is_async
from ..opening import open as open_store
from ..store import SessionStore
from .limits import Window

T = TypeVar("T")

ChatMessage = dict[str, Any]
GivenStore = SessionStore | AsyncSessionStore | str | Path | None
Backend = MemoryBackend | AsyncMemoryBackend

_SAVES: Final = 3


class Home(Protocol):
    """A place that keeps conversations. Its coroutines never wait for anything, unless it is async.

    Attributes:
        is_async: Whether it is to be awaited in the loop; otherwise it belongs into a thread.
    """

    is_async: bool

    async def read(self, session_id: str, window: Window) -> list[ChatMessage] | None:
        """The messages that a window shows of, or more; None if there is no such conversation."""

    async def add(self, session_id: str, new: list[NewMessage]) -> None:
        """Keep whole turns behind what is there."""

    async def delete(self, session_id: str) -> bool:
        """Forget a conversation; whether there was one."""

    async def list(self) -> list[str]:
        """The ids of all conversations, sorted."""

    async def record(self, figure: Figure) -> None:
        """Store a figure about a turn, if it can."""

    def close(self) -> None:
        """Let go of what it opened itself."""


class Figure(NamedTuple):
    """A figure about a turn: what happened to it, after how long."""

    name: str
    elapsed_ms: float
    attributes: dict[str, Any]
    session_id: str | None


def now(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not wait for anything.

    Raises:
        ConfigError: It does.
    """
    try:
        call.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    call.close()
    raise ConfigError("memory_backend: is async; use ask_async, stream_async and the other calls that end in _async")


class StoreHome:
    """Sessions of a store, which is opened at its first use unless it was given open."""

    is_async = False

    def __init__(self, given: GivenStore, attributes: SessionAttributes) -> None:
        if given is not None and not isinstance(given, SessionStore | AsyncSessionStore | str | Path):
            raise ConfigError("store: must be a store, a path or a URL")
        self._given = given
        self._attributes = attributes
        self._lock = threading.Lock()
        self._closed = False
        self._store: SessionStore | None = None
        if isinstance(given, SessionStore):
            self._store = given
        elif isinstance(given, AsyncSessionStore):
            self._store = given._store  # noqa: SLF001 - the other face of the same store

    @property
    def store(self) -> SessionStore:
        """The store, opened if it was not."""
        with self._lock:
            if self._closed:
                raise ClosedStoreError("this agent is closed; make a new one")
            if self._store is None:
                assert not isinstance(self._given, SessionStore | AsyncSessionStore)  # noqa: S101 - for the type checker
                self._store = open_store(self._given)
            return self._store

    async def read(self, session_id: str, window: Window) -> list[ChatMessage] | None:
        """See `Home`. Items that are no chat messages are left out: chat completions do not take them."""
        store = self.store
        try:
            for most in window.looks():
                stored = store.messages(session_id, last=most)
                shown = [message.to_dict() for message in stored if message.kind == MESSAGE_KIND]
                if most is None or len(stored) < most or window.is_full(shown):
                    break
        except NotFoundError:
            return None
        return shown

    async def add(self, session_id: str, new: list[NewMessage]) -> None:
        """See `Home`; the session is made if it is new, or if its life ended while the model was being asked."""
        self.store._append_or_begin(session_id, new, self._attributes)  # noqa: SLF001 - a part of the library

    async def delete(self, session_id: str) -> bool:
        """See `Home`."""
        return self.store.delete(session_id).sessions > 0

    async def list(self) -> list[str]:
        """See `Home`; the sessions of the store's namespace."""
        ids: list[str] = []
        cursor: str | None = None
        while True:
            page = self.store.list(limit=inputs.MAX_PAGE, cursor=cursor)
            ids += [session.session_id for session in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return sorted(ids)

    async def record(self, figure: Figure) -> None:
        """See `Home`. What cannot be stored is counted and logged, as a timer's figure: another error is on its way."""
        agent_id = self._attributes.get("agent_id")
        try:
            store = self.store
        except SessionStoreError:
            # It cannot be opened, which the turn has told already.
            return
        try:
            store.record(figure.name, figure.elapsed_ms, "ms", figure.attributes, agent_id=agent_id, session_id=figure.session_id)
        except SessionStoreError as failure:
            store._lose_metric(figure.name, str(failure))  # noqa: SLF001 - a part of the library

    def close(self) -> None:
        """See `Home`."""
        if isinstance(self._given, SessionStore | AsyncSessionStore):
            return
        with self._lock:
            self._closed = True
            if self._store is not None:
                self._store.close()


class BackendHome:
    """Documents of a memory backend, which was given open and stays so."""

    def __init__(self, backend: Backend) -> None:
        if not isinstance(backend, MemoryBackend):
            raise ConfigError("memory_backend: must have the methods save, load, delete and list")
        self._backend = backend
        self.is_async = is_async(backend)

    async def read(self, session_id: str, window: Window) -> list[ChatMessage] | None:
        """See `Home`."""
        return await _loaded(self._backend, session_id)

    async def add(self, session_id: str, new: list[NewMessage]) -> None:
        """See `Home`. A save of somebody else that comes between is taken in, where the backend tells of it."""
        added = [dict(each.message) for each in new]
        for left in reversed(range(_SAVES)):
            kept = await _loaded(self._backend, session_id) or []
            try:
                await _result(cast(Any, self._backend).save(session_id, [*kept, *added]))
            except ConflictError:
                if not left:
                    raise
            else:
                return

    async def delete(self, session_id: str) -> bool:
        """See `Home`."""
        try:
            was_there = await _result(self._backend.load(session_id)) is not None
        except StoreCorruptError:
            # Deleting it is a way out.
            was_there = True
        await _result(cast(Any, self._backend).delete(session_id))
        return was_there

    async def list(self) -> list[str]:
        """See `Home`."""
        found: object = await _result(self._backend.list())
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise BackendError(type(self._backend).__name__, "list() must return a list of session ids")
        return sorted(found)

    async def record(self, figure: Figure) -> None:
        """A backend keeps no figures."""

    def close(self) -> None:
        """It was given open."""


class Conversation:
    """One conversation of an agent: where it is kept, under which id, and the turns that are in memory only."""

    def __init__(self, home: Home | None, session_id: str | None, unsaved: Iterable[NewMessage] = ()) -> None:
        self.home = home
        # What has a place needs a name there.
        self.session_id = clock.new_id() if home is not None and session_id is None else session_id
        self.unsaved: list[NewMessage] = list(unsaved)
        self._holds_own = False

    @property
    def has_own_turns(self) -> bool:
        """Whether some of the turns that are in memory only were made in it, and did not come along from another one."""
        return self._holds_own and bool(self.unsaved)

    def hold(self, new: Iterable[NewMessage]) -> None:
        """Take a turn that is to stay in memory."""
        self.unsaved += new
        self._holds_own = True

    def forget(self) -> None:
        """Drop the turns that are in memory only."""
        self.unsaved.clear()

    async def read(self, window: Window) -> list[ChatMessage]:
        """What a window shows of it."""
        kept = None
        if self.home is not None and self.session_id is not None:
            kept = await self.home.read(self.session_id, window)
        return window.of([*(kept or ()), *(copy.deepcopy(dict(each.message)) for each in self.unsaved)])

    async def save(self, new: Iterable[NewMessage] = ()) -> int:
        """Keep what is in memory only, with more behind it; how many messages that are.

        Raises:
            ConfigError: There is nowhere to keep it.
        """
        if self.home is None or self.session_id is None:
            raise ConfigError("session_id: is missing; name the session with with_session_id()")
        together = [*self.unsaved, *new]
        if together:
            await self.home.add(self.session_id, together)
        self.unsaved.clear()
        return len(together)


async def _loaded(backend: Backend, session_id: str) -> list[ChatMessage] | None:
    found: object = await _result(backend.load(session_id))
    if found is not None and not (isinstance(found, list) and all(isinstance(message, dict) for message in found)):
        raise BackendError(type(backend).__name__, "load() must return a list of message dicts, or None")
    return found


async def _result(given: Awaitable[T] | T) -> T:
    return cast(T, await given) if inspect.isawaitable(given) else given
