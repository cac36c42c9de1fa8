"""The store that an adapter is given: open already, in either face, or as a path that the adapter opens and then owns."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from ..aio import AsyncSessionStore
from ..errors import InvalidInputError
from ..opening import open as open_store
from ..store import SessionStore
from ..waiting import in_thread

StoreLike = SessionStore | AsyncSessionStore | str | Path | None


class GivenStore:
    """Both faces of one open store, and whether it is to be closed here.

    Attributes:
        sync: Its calls, which block.
        awaited: The same calls for asyncio and trio.
        is_owned: Whether it was opened for this; then `close` closes it.
    """

    __slots__ = ("awaited", "is_owned", "sync")

    def __init__(self, store: StoreLike = None) -> None:
        self.is_owned = store is None or isinstance(store, str | Path)
        if isinstance(store, AsyncSessionStore):
            self.awaited = store
            self.sync = store._store  # noqa: SLF001 - the other face of the same store
            return
        if not isinstance(store, SessionStore | str | Path | None):
            raise InvalidInputError("store", "must be a SessionStore, an AsyncSessionStore, a path, or None for the default file")
        self.sync = store if isinstance(store, SessionStore) else open_store(store)
        self.awaited = AsyncSessionStore(self.sync)

    def close(self) -> None:
        """Close the store if it is owned; a second close does nothing."""
        if self.is_owned:
            self.sync.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        if self.is_owned:
            await in_thread(self.sync.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sync!r}, is_owned={self.is_owned})"


class HoldsStore:
    """What adapters have in common: a given store, and closing it, by `with`, `async with`, `close()` or `aclose()`."""

    _given: GivenStore

    @property
    def store(self) -> SessionStore:
        """The store that this works on."""
        return self._given.sync

    def close(self) -> None:
        """Close the store if it was given as a path; one that was given open stays open."""
        self._given.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await self._given.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()
