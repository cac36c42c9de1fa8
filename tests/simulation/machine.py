"""The simulated machine: processes that each have their own store object on one file, and clocks that the seed turns.

The library's code runs as it is. Only its threads are replaced: what they would do is called by the loop, after a while.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from virtual_loop import OWNER, Owner, VirtualLoop, keep_order_of_scopes

import sessionstore
from sessionstore import SessionStore, aio, clock, waiting
from sessionstore.aio import AsyncSessionStore
from sessionstore.config import OpenOptions, StoreSettings
from sessionstore.database import engine, paths
from sessionstore.database.database import Database
from sessionstore.database.transaction import Gauge
from sessionstore.delivery import claims, courier, sender
from sessionstore.errors import ClosedStoreError
from sessionstore.remote import backoff
from sessionstore.remote.settings import Remote

START = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
URL = "http://127.0.0.1:9/api"
PROCESSES = 5
# Rows that a seed can leave.
_EMPTIED = (
    "sessions", "session_tags", "messages", "metric_events", "agents", "agent_activity", "outbox", "outbox_holds",
    "outbox_unanswered", "sync_state", "superseded_messages", "state_values", "sqlite_sequence",
)  # fmt: skip
# Nothing, mostly; or as long as a disk is busy.
_DELAYS = (0.0, 0.0, 0.0, 0.001, 0.001, 0.003, 0.02, 0.7)

Observed = Callable[["Process"], None]


class Bench:
    """One file and a few databases on it, used by one seed after another: opening takes longer than a seed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.db"
        sessionstore.open(self.path, remote=Remote(URL), durability="normal").close(drain_timeout=0)
        file = paths.prepare(self.path, OpenOptions(), own_folder=False)
        # Not by the registry, which gives all stores of one process the same database.
        self.databases = [Database(file, OpenOptions()) for _ in range(PROCESSES)]
        for database in self.databases:
            database.connect(OpenOptions(), timeout=5)
            # Power cuts are tried elsewhere.
            database.writer._db.driver.execute("PRAGMA synchronous = OFF")
        self.look = sqlite3.connect(self.path, isolation_level=None, cached_statements=64)
        self.look.execute("PRAGMA synchronous = OFF")
        self._state = self.look.execute("SELECT * FROM sync_state").fetchall()

    def close(self) -> None:
        """Let go of the file."""
        for database in self.databases:
            database.writer._thread = None
            database.close(timeout=1)
        self.look.close()

    def reset(self, *, sync_messages: bool, max_bytes: int | None) -> None:
        """The file as it was, for the next seed."""
        execute = self.look.execute
        execute("BEGIN IMMEDIATE")
        for table in _EMPTIED:
            execute(f"DELETE FROM {table}")
        execute(f"INSERT INTO sync_state VALUES ({', '.join('?' * len(self._state[0]))})", self._state[0])
        execute(
            "UPDATE store_info SET created_at = ?, swept_at = NULL, sweeper = NULL, sweeper_until = NULL, sync_messages = ?, "
            "max_outbox_bytes = ?, remote_since = NULL, remote_after_metric = NULL",
            (clock.to_text(START), sync_messages, max_bytes),
        )
        execute("COMMIT")


class Process(Owner):
    """A program on the file, until it is killed."""

    def __init__(self, machine: Machine, name: str, database: Database, settings: StoreSettings) -> None:
        super().__init__(name)
        self.machine = machine
        self.database = database
        self.is_dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        # From when to when it stalled, or its clock was set. By the virtual time.
        self.lapses: list[tuple[float, float]] = []
        database.workers = _LoopWorkers(self)  # type: ignore[assignment]
        database.writer._wake = _LoopWake(self)  # type: ignore[assignment]
        database.writer._thread = _NO_THREAD
        for db in (database.writer._db, *database.readers._all):  # type: ignore[attr-defined]
            db.gauge = Gauge()
        self.sync_store = SessionStore(database, settings)
        self.store = AsyncSessionStore(self.sync_store)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it do something."""
        task = self.machine.loop.start(self, work)
        self.tasks.append(task)
        return task

    def kill(self) -> None:
        """As by SIGKILL: nothing that it was doing goes on."""
        self.is_dead = True
        fault, self.database._fault = self.database._fault, ClosedStoreError
        try:
            # Those that are shielded wait for their calls whatever happens.
            self.machine.loop.bury(self, self.tasks, first=lambda: self.database.writer._fail_all(ClosedStoreError()))
        finally:
            self.database._fault = fault
            self.database.writer._pending.clear()
            self.database.writer._db.enqueued = False
            self.database.writer.bell._listeners.clear()


class Machine:
    """Where the processes run: the loop, the clocks and all that is random."""

    def __init__(self, bench: Bench, seed: int, observed: Observed) -> None:
        self.bench = bench
        self.rng = random.Random(seed)
        self.loop = VirtualLoop(self.rng)
        self.observed = observed
        self.clock_is_off = timedelta(0)
        self.tokens: dict[str, Owner] = {}
        self._ids = itertools.count(1)
        self._incarnations = itertools.count(1)

    def process(self, slot: int, role: str, remote: Remote, settings: StoreSettings) -> Process:
        """A new process in one of the places; the one that was there must be dead."""
        database = self.bench.databases[slot]
        database.remote = remote
        return Process(self, f"{role}.{next(self._incarnations)}", database, settings)

    def now(self) -> datetime:
        """The wall clock, that somebody may have set."""
        return START + timedelta(seconds=self.loop.time()) + self.clock_is_off

    def new_id(self) -> str:
        """Ids and tokens: counted, so that they are the same in each run."""
        made = f"{next(self._ids):08x}-0000-4000-8000-000000000000"
        owner = OWNER.get(None)
        if owner is not None:
            self.tokens[made] = owner
        return made

    def delay(self) -> float:
        """How long a call of the database waits for its thread, or for the lock."""
        return self.rng.choice(_DELAYS)

    @contextmanager
    def installed(self, transport: Callable[[Owner], httpx.AsyncBaseTransport]) -> Iterator[None]:
        """Within it the library lives on this machine."""
        with pytest.MonkeyPatch.context() as patch:
            keep_order_of_scopes(patch)
            patch.setattr(clock, "utc_now", self.now)
            patch.setattr(clock, "new_id", self.new_id)
            patch.setattr(clock, "new_key", self.new_id)
            patch.setattr(clock, "new_token", lambda digits: self.new_id().replace("-", "")[:digits])
            patch.setattr(claims, "time", SimpleNamespace(monotonic=self.loop.time))
            patch.setattr(backoff, "_draw", self.rng)
            # Both take longer than a request.
            patch.setattr(courier, "version", lambda _: "0")
            patch.setattr(courier, "_trusted", lambda _: False)
            patch.setattr(engine, "set_synchronous", lambda *_: None)
            patch.setattr(aio, "in_thread", self._in_thread)
            # Otherwise one for all processes: who stalls would keep the others from hearing of their calls.
            patch.setattr(waiting, "_door", self._door)
            made = sender.Courier
            patch.setattr(sender, "Courier", lambda remote, **_: made(remote, transport=transport(OWNER.get())))
            yield

    def _door(self) -> waiting._Door:
        owner = OWNER.get()
        if owner.door is None:
            owner.door = waiting._Door(self.loop)
        return owner.door

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """A long call, done at one moment."""
        process = OWNER.get()
        assert isinstance(process, Process)
        await asyncio.sleep(self.delay())
        if process.is_dead:
            raise ClosedStoreError
        try:
            return call()
        finally:
            self.observed(process)


class _LoopWorkers:
    """The threads that read."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def submit(self, call: Callable[[], None]) -> None:
        if self._process.is_dead:
            raise ClosedStoreError
        machine = self._process.machine
        machine.loop.call_later(machine.delay(), self._run, call)

    def _run(self, call: Callable[[], None]) -> None:
        if not self._process.is_dead:
            call()

    def stop(self) -> None:
        """There are none."""


class _LoopWake:
    """The thread that writes: whoever wakes it, it commits all that waits, a while later."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._is_called = False

    def put(self, _: None) -> None:
        if not self._is_called:
            self._is_called = True
            machine = self._process.machine
            machine.loop.call_later(machine.delay(), self._serve)

    def _serve(self) -> None:
        self._is_called = False
        process = self._process
        if process.is_dead:
            return
        writer = process.database.writer
        while writer._pending:
            with writer._mutex:
                writer._lead_for_others()
        process.machine.observed(process)


class _NoThread:
    def join(self, timeout: float | None = None) -> None:
        """It has ended."""


_NO_THREAD: Any = _NoThread()
