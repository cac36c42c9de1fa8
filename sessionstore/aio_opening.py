"""Opening and restoring stores, awaited: what blocks runs in a thread of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, ParamSpec

from .aio import AsyncSessionStore
from .opening import conceal
from .opening import open as open_store
from .restoring import restore
from .store import SessionStore
from .values.receipts import RestoreReceipt
from .waiting import in_thread

P = ParamSpec("P")


class Opening:
    """A store that is being opened: `await` it, or use it with `async with`."""

    def __init__(self, open_it: Callable[[], SessionStore]) -> None:
        self._open_it = open_it
        self._store: AsyncSessionStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncSessionStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncSessionStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._store is not None:
            await self._store.close()

    async def _open(self) -> AsyncSessionStore:
        return AsyncSessionStore(await in_thread(self._open_it, undo=SessionStore.close))


def _opening(open_it: Callable[P, SessionStore]) -> Callable[P, Opening]:
    @functools.wraps(open_it)
    def call(*args: P.args, **kwargs: P.kwargs) -> Opening:
        conceal(kwargs)
        return Opening(lambda: open_it(*args, **kwargs))

    return call


def _restoring(restore_it: Callable[P, RestoreReceipt]) -> Callable[P, Coroutine[Any, Any, RestoreReceipt]]:
    @functools.wraps(restore_it)
    async def call(*args: P.args, **kwargs: P.kwargs) -> RestoreReceipt:
        conceal(kwargs)
        return await in_thread(lambda: restore_it(*args, **kwargs))

    return call


aopen = _opening(open_store)
arestore = _restoring(restore)
