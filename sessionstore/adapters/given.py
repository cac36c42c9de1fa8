"""The store that an adapter is given: open already, in either face, or as a path that the adapter opens and then owns."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from ..errors import InvalidInputError
from ..opening import open as open_store
from ..store import SessionStore

if TYPE_CHECKING:
    from ..aio import AsyncSessionStore

StoreLike: TypeAlias = "SessionStore | AsyncSessionStore | str | Path | None"


class GivenStore:
    """Both faces of one open store, and whether it is to be closed here. Who does not await does not load the awaited face.

    Attributes:
        sync: Its calls, which block.
        is_owned: Whether it was opened for this; then `close` closes it.
    """

    __slots__ = ("_awaited", "is_owned", "sync")

    def __init__(self, store: StoreLike = None) -> None:
        self._awaited: AsyncSessionStore | None = None
        self.is_owned = store is None or isinstance(store, str | Path)
        if isinstance(store, SessionStore):
            self.sync = store
        elif store is None or isinstance(store, str | Path):
            self.sync = open_store(store)
        else:
            self._awaited = _async_store(store)
            self.sync = self._awaited._store  # noqa: SLF001 - the other face of the same store

    @property
    def awaited(self) -> AsyncSessionStore:
        """The same calls for asyncio and trio."""
        if self._awaited is None:
            from ..aio import AsyncSessionStore

            self._awaited = AsyncSessionStore(self.sync)
        return self._awaited

    def close(self) -> None:
        """Close the store if it is owned; a second close does nothing."""
        if self.is_owned:
            self.sync.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        if self.is_owned:
            from ..waiting import in_thread

            await in_thread(self.sync.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sync!r}, is_owned={self.is_owned})"


def _async_store(given: object) -> AsyncSessionStore:
    from ..aio import AsyncSessionStore

    if not isinstance(given, AsyncSessionStore):
        raise InvalidInputError("store", "must be a SessionStore, an AsyncSessionStore, a path, or None for the default file")
    return given


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
