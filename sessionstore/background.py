"""Work that goes on beside the calls, sweeps and deliveries, in a daemon thread of its own or in a task group of the caller's."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal

from . import clock, inputs, loops
from .aio import AsyncSessionStore
from .config import DEFAULT_INTERVAL
from .delivery.standing import StandingDrain
from .errors import ClosedStoreError, ForkedStoreError
from .logs import log
from .store import SessionStore
from .store.search import INDEX_PAUSE
from .waiting import in_thread

_EXIT_TIMEOUT: Final = 1.0
_LEASE_SECONDS: Final = 60.0
# How far the wall clock may stray from the monotonic one, and how long it must not, to be believed after a doubt.
_STEADY: Final = timedelta(seconds=60)
_BELIEVED_AFTER: Final = timedelta(days=1)
_DEAD_ARE_KEPT: Final = timedelta(days=30)
# How long messages wait to be indexed; a search does not wait for it.
_INDEX_INTERVAL: Final = 10.0


class _Housekeeping:
    """The loop: one pass at once, and one after each interval. An error ends its pass, not the loop."""

    def __init__(self, store: AsyncSessionStore, interval: float) -> None:
        self._store = store
        self._tally = store._database.tally  # noqa: SLF001 - a part of the library
        self._interval = interval
        self._pause = interval
        self._doubted: tuple[datetime, float] | None = None

    async def run(self) -> None:
        """Go on until it is cancelled or the store is closed."""
        while True:
            try:
                await self._sweep()
                await self._store._purge_settled(_DEAD_ARE_KEPT)  # noqa: SLF001 - a part of the library
                await self._keep_reserve()
            except (ClosedStoreError, ForkedStoreError):
                return
            except Exception as error:  # noqa: BLE001 - whatever went wrong may go right the next time
                self._tally.count("sweep_failures")
                log(logging.ERROR, "sweep_failed", "a sweep failed; the next one tries again", reason=error)
            await anyio.sleep(self._pause)

    async def _keep_reserve(self) -> None:
        database = self._store._database  # noqa: SLF001 - a part of the library
        reserve, writer = database.reserve, database.writer
        if reserve is not None and reserve.wants_care():
            timeout = self._store.settings.busy_timeout
            await in_thread(lambda: writer.exclusively(lambda _: reserve.keep(), timeout=timeout))

    async def _sweep(self) -> None:
        receipt = await self._store.sweep()
        # A sweeper that was killed holds its lease for a while; its work need not wait for the next interval.
        self._pause = min(self._interval, _LEASE_SECONDS) if receipt.busy else self._interval
        if not receipt.deferred:
            # The next doubt is a new one: what ran evenly before it counts for nothing.
            self._doubted = None
        elif self._clock_is_believed():
            receipt = await self._store.sweep(now=clock.utc_now())
        self._tally.count("sweeps_skipped" if receipt.busy or receipt.deferred else "sweeps")
        if receipt.deferred:
            log(logging.WARNING, "sweep_deferred", "the clock is far ahead of all that is stored; the next sweep asks it again")
        elif receipt.expired:
            log(logging.INFO, "sweep_done", "sessions expired", expired=receipt.expired)

    def _clock_is_believed(self) -> bool:
        """Whether a clock that was doubted has run on evenly for so long that it may be right; never if that could delete."""
        now, ticks = clock.utc_now(), time.monotonic()
        since, ticks_then = self._doubted or (now, ticks)
        passed = timedelta(seconds=ticks - ticks_then)
        if self._doubted is None or abs(now - since - passed) >= _STEADY:
            self._doubted = (now, ticks)
            return False
        return passed >= _BELIEVED_AFTER and self._store.settings.on_expire != "delete"


class _Indexing:
    """The loop that brings the search index up to date: a batch after another while messages wait, and then a look now and then."""

    def __init__(self, store: AsyncSessionStore, interval: float) -> None:
        self._store = store
        self._pause = min(interval, _INDEX_INTERVAL)

    async def run(self) -> None:
        """Go on until it is cancelled or the store is closed."""
        while True:
            try:
                while await self._store._is_behind():  # noqa: SLF001 - a part of the library
                    await self._store._index_batch()  # noqa: SLF001
                    await anyio.sleep(INDEX_PAUSE)
            except (ClosedStoreError, ForkedStoreError):
                return
            except Exception as error:  # noqa: BLE001 - whatever went wrong may go right the next time
                log(logging.ERROR, "index_failed", "messages could not be indexed; the next pass tries again", reason=error)
            await anyio.sleep(self._pause)


async def _work(store: AsyncSessionStore, interval: float) -> None:
    """All that goes on beside the calls, until it is cancelled or the store is closed."""
    async with anyio.create_task_group() as group:
        group.start_soon(_Housekeeping(store, interval).run, name="sessionstore-sweeps")
        group.start_soon(_Indexing(store, interval).run, name="sessionstore-indexing")
        group.start_soon(StandingDrain(store).run, name="sessionstore-deliveries")


class Background:
    """The background work of a store, begun by `with` or `start()` and ended by leaving it or `stop()`.

    Backgrounds of one file with the same interval and `on_expire` share one daemon thread.
    """

    def __init__(self, store: SessionStore, *, interval: float | timedelta = DEFAULT_INTERVAL) -> None:
        self._store = store
        self._interval = inputs.period("interval", interval)
        self._thread: _Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin. A second start does nothing."""
        with self._lock:
            if self._thread is None:
                self._thread = _Thread.of(self._store, self._interval)

    def stop(self) -> None:
        """End within a second; a batch that is being written is finished first. A second stop does nothing."""
        with self._lock:
            if self._thread is not None:
                self._thread.leave()
                self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


class AsyncBackground:
    """The background work of a store in a task of the caller's event loop, begun and ended by `async with`."""

    def __init__(self, store: AsyncSessionStore, *, interval: float | timedelta = DEFAULT_INTERVAL) -> None:
        self._store = store
        self._interval = inputs.period("interval", interval)
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(_work, self._store, self._interval, name="sessionstore-background")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._group is not None:
            self._group.cancel_scope.cancel()
            # Not told of an error in the block, the group does not wrap it into an ExceptionGroup.
            await self._group.__aexit__(None, None, None)


class _Thread:
    """A daemon thread with an event loop, shared by all backgrounds that want the same work."""

    _running: dict[tuple[Any, ...], _Thread] = {}  # noqa: RUF012 - what runs in this process
    _lock = threading.Lock()

    def __init__(self, key: tuple[Any, ...], store: SessionStore, interval: float) -> None:
        self._key = key
        self._users = 0
        self._process = os.getpid()
        # A handle of its own: the one that came first may be closed while others go on.
        own = SessionStore(store._database, store.settings)  # noqa: SLF001 - a part of the library
        self._store = AsyncSessionStore(own)
        self._interval = interval
        self._cancel: Callable[[], object] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="sessionstore-background", daemon=True)
        self._thread.start()
        self._ready.wait()

    @classmethod
    def of(cls, store: SessionStore, interval: float) -> _Thread:
        """The running thread for a store, or a new one."""
        _watch_end_of_program()
        key = (store._database, store.settings.on_expire, store.settings.durability, interval)  # noqa: SLF001
        with cls._lock:
            thread = cls._running.get(key)
            if thread is None or not thread.is_alive():
                thread = cls._running[key] = cls(key, store, interval)
            thread._users += 1
            return thread

    @classmethod
    def end_all(cls) -> None:
        """At the end of the program: a loop that is stopped in the middle of its work could hold it up."""
        deadline = time.monotonic() + _EXIT_TIMEOUT
        running = list(cls._running.values())
        for thread in running:
            thread.cancel()
        for thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def leave(self) -> None:
        """One user less; the last one ends it."""
        if self._process != os.getpid():
            # It belongs to the parent of this forked child.
            return
        with self._lock:
            self._users -= 1
            if self._users:
                return
            if self._running.get(self._key) is self:
                del self._running[self._key]
        self.cancel()
        self.join()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Let it end soon."""
        # It may have ended by itself.
        with suppress(RuntimeError):
            if self._cancel is not None:
                self._cancel()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def _main(self) -> None:
        try:
            loops.run(self._serve)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            with anyio.CancelScope() as scope:
                self._cancel = lambda: portal.start_task_soon(scope.cancel)
                self._ready.set()
                await _work(self._store, self._interval)


@functools.cache
def _watch_end_of_program() -> None:
    atexit.register(_Thread.end_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_the_parents)


def _forget_the_parents() -> None:
    _Thread._running.clear()  # noqa: SLF001 - of this module
    _Thread._lock = threading.Lock()  # noqa: SLF001
