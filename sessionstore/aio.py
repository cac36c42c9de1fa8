"""AsyncSessionStore: the calls of SessionStore, awaited. One hop per call, to threads of the store's own.

The synchronous methods check their arguments and end in one read or write. Here they run on a recorder, which hands that work
over instead of doing it: reads go to a few daemon threads, writes to the writer, which commits all that wait together.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, cast

import anyio

from . import hints
from .arguments import SessionAttributes, refuse_unknown
from .config import DEFAULT_INTERVAL, StoreSettings
from .database.database import Database
from .database.jobs import WriteJob
from .database.transaction import Work
from .errors import DiskFullError
from .forks import CutPairs
from .handle import BoundHandle, bound, within
from .store import SessionStore
from .store.outbox import Outbox
from .store.sweeps import SWEEP_PAUSE, Sweep, sweep_arguments
from .store.syncing import DEFAULT_DRAIN_TIMEOUT, DEFAULT_FLUSH_TIMEOUT, drain_arguments, flush_argument
from .store.timing import AsyncTimer, TimerCalls, TimerSettings
from .values import Message
from .waiting import Arrival, Outcome, begun_in_thread, in_thread

P = ParamSpec("P")
T = TypeVar("T")


class _Recorded(Generic[T]):
    """The work of a call: a read, a write, or a write if the read finds nothing."""

    __slots__ = ("full", "read", "write")

    def __init__(self, read: Work[T] | Work[T | None] | None, write: Work[T] | None, *, full: bool = False) -> None:
        self.read = read
        self.write = write
        self.full = full


class _Recorder(SessionStore):
    """A store whose calls return their work undone; the types say otherwise, and `_awaited` sets that right."""

    def _read(self, work: Work[T]) -> T:
        self._require_open()
        return cast(T, _Recorded(work, None))

    def _write(self, work: Work[T], *, full: bool = False) -> T:
        self._require_writable()
        return cast(T, _Recorded(None, work, full=full))

    def _read_or_write(self, read: Work[T | None], write: Work[T], *, full: bool = False) -> T:
        self._require_open()
        return cast(T, _Recorded(read, write, full=full))


def _awaited(
    method: Callable[Concatenate[SessionStore, P], T], *, to_its_end: bool = False
) -> Callable[Concatenate[AsyncSessionStore, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: AsyncSessionStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(method(self._recorder, *args, **kwargs), to_its_end=to_its_end)

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _in_thread(
    method: Callable[Concatenate[SessionStore, P], T],
) -> Callable[Concatenate[AsyncSessionStore, P], Coroutine[Any, Any, T]]:
    """For calls of many transactions: the whole call runs in a thread of its own, to its end."""

    @functools.wraps(method)
    async def call(self: AsyncSessionStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(lambda: method(self._store, *args, **kwargs))

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _of_outbox(
    method: Callable[Concatenate[Outbox, P], T],
) -> Callable[Concatenate[AsyncOutbox, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: AsyncOutbox, /, *args: P.args, **kwargs: P.kwargs) -> T:
        store = self._store
        return await store._run(method(store._recorder.outbox, *args, **kwargs))  # noqa: SLF001

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


class AsyncOutbox:
    """The events of a file that are to be told to its remote, as `store.outbox`. The methods are those of `Outbox`, awaited."""

    __slots__ = ("_store",)

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store

    async def backfill(self, *, limit: int | None = None) -> hints.BackfillReceipt:
        """Add the events of what happened before the remote was set. The argument is that of the sync method."""
        return await in_thread(lambda: self._store._store.outbox.backfill(limit=limit))  # noqa: SLF001

    stats = _of_outbox(Outbox.stats)
    list = _of_outbox(Outbox.list)
    dead = _of_outbox(Outbox.dead)
    get = _of_outbox(Outbox.get)
    requeue = _of_outbox(Outbox.requeue)
    purge = _of_outbox(Outbox.purge)
    erase = _of_outbox(Outbox.erase)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._store!r}>"


class AsyncSessionStore(TimerCalls[AsyncTimer]):
    """Sessions and their messages in one file, for asyncio and trio. `sessionstore.aopen()` makes it.

    The methods are those of `SessionStore`, awaited. A cancelled write is either done or not begun when the cancellation
    arrives; it never goes on in the background. One store may be used from several event loops.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._database: Database = store._database  # noqa: SLF001 - the other face of the same store
        self._settings: StoreSettings = store._settings  # noqa: SLF001
        self._recorder = _Recorder(self._database, self._settings, parent=store)

    @property
    def namespace(self) -> str:
        """The namespace that the calls work in."""
        return self._store.namespace

    @property
    def settings(self) -> StoreSettings:
        """What the store was opened with."""
        return self._settings

    @property
    def outbox(self) -> AsyncOutbox:
        """The events that are to be told to the remote: what waits, what was given up, and what is to become of it."""
        return AsyncOutbox(self)

    def in_namespace(self, namespace: str) -> AsyncSessionStore:
        """The same file, seen in another namespace. It closes with this store."""
        return AsyncSessionStore(self._store.in_namespace(namespace))

    async def close(self, *, drain_timeout: float = DEFAULT_DRAIN_TIMEOUT) -> None:
        """Try to deliver what waits, finish running calls and let go of the file. The argument is that of the sync method."""
        self._recorder.close(drain_timeout=0)
        await in_thread(lambda: self._store.close(drain_timeout=drain_timeout))

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._store).replace("SessionStore", type(self).__name__, 1)

    def background(self, *, interval: float | timedelta = DEFAULT_INTERVAL) -> hints.AsyncBackground:
        """Work beside the calls, in a task of the caller's loop: `async with store.background():`. As that of the sync store."""
        from .background import AsyncBackground

        self._recorder._require_writable()  # noqa: SLF001
        self._database.require_writable()
        return AsyncBackground(self, interval=interval)

    def as_memory_backend(self) -> hints.AsyncStoreBackend:
        """The store as an `AsyncMemoryBackend`. As that of the sync store."""
        from .memory.in_store import AsyncStoreBackend

        return AsyncStoreBackend(self)

    async def session(self, session_id: str, **attributes: Unpack[SessionAttributes]) -> AsyncSessionHandle:
        """A handle on the session of this id, which is made if there is none. The arguments are those of the sync method."""
        refuse_unknown(attributes, SessionAttributes)
        new = self._recorder._new_session(session_id, attributes)  # noqa: SLF001
        await self._run(self._recorder._get_or_create(new))  # noqa: SLF001
        return AsyncSessionHandle(self, new.session_id)

    async def fork(
        self,
        session_id: str,
        new_session_id: str | None = None,
        *,
        at: int | None = None,
        copy: bool = False,
        cut_pairs: CutPairs = "snap",
        **attributes: Unpack[SessionAttributes],
    ) -> AsyncSessionHandle:
        """A handle on a new session that begins with the messages of another one. The arguments are those of the sync method."""
        made = self._recorder._fork(session_id, new_session_id, at, copy, cut_pairs, attributes)  # noqa: SLF001
        return AsyncSessionHandle(self, (await self._run(made)).session_id)

    async def iterate(self, session_id: str, *, after: int = 0, page_size: int = 500, blobs: bool = True) -> AsyncIterator[Message]:
        """All messages of a session, read in pages, so that neither memory nor a snapshot is held for long.

        The arguments are those of the sync method.
        """
        while page := await self._message_page(session_id, after=after, page_size=page_size, blobs=blobs):
            for message in page:
                yield message
            after = page[-1].seq

    async def sweep(self, *, limit: int | None = None, now: datetime | None = None) -> hints.SweepReceipt:
        """Settle the expiry of all sessions that are due. The arguments are those of the sync method."""
        left, at = sweep_arguments(limit, now)
        sweep = Sweep(at, left)
        if await self._any_due(at):
            is_over = sweep.count(await self._sweep_batch(sweep))
            while not is_over:
                await anyio.sleep(SWEEP_PAUSE)
                is_over = sweep.count(await self._sweep_batch(sweep))
        while sweep.tidies and (chore := await self._next_chore(sweep)) is not None:
            sweep.note(chore, await self._do_chore(chore))
            await anyio.sleep(SWEEP_PAUSE)
        return sweep.receipt()

    async def drain(self, *, timeout: float | None = None, limit: int | None = None) -> hints.DrainReceipt:  # noqa: ASYNC109
        """Send the events that wait to the remote, in this loop. The arguments are those of the sync method."""
        from .delivery import calls

        seconds, most = drain_arguments(timeout, limit)
        return await calls.adrain(self, await self._access(), seconds=seconds, limit=most)

    async def flush(self, timeout: float = DEFAULT_FLUSH_TIMEOUT) -> bool:  # noqa: ASYNC109
        """Wait until the events that are there now are delivered. The argument is that of the sync method."""
        from .delivery import calls

        return await calls.aflush(self, await self._access(), seconds=flush_argument(timeout))

    def _new_timer(self, settings: TimerSettings) -> AsyncTimer:
        return AsyncTimer(settings, self.record, self._store._lose_metric)  # noqa: SLF001

    status = _awaited(SessionStore.status)
    success_rates = _awaited(SessionStore.success_rates)
    response_times = _awaited(SessionStore.response_times)
    quality = _awaited(SessionStore.quality)
    failures = _awaited(SessionStore.failures)
    tokens = _awaited(SessionStore.tokens)
    overview = _awaited(SessionStore.overview)
    query = _awaited(SessionStore.query)
    doctor = _in_thread(SessionStore.doctor)
    branches = _awaited(SessionStore.branches)
    parent = _awaited(SessionStore.parent)
    create = _awaited(SessionStore.create)
    get = _awaited(SessionStore.get)
    update = _awaited(SessionStore.update)
    end = _awaited(SessionStore.end)
    rename = _awaited(SessionStore.rename)
    pin = _awaited(SessionStore.pin)
    archive = _in_thread(SessionStore.archive)
    reopen = _awaited(SessionStore.reopen)
    touch = _awaited(SessionStore.touch)
    set_ttl = _awaited(SessionStore.set_ttl)
    remaining = _awaited(SessionStore.remaining)
    tag = _awaited(SessionStore.tag)
    untag = _awaited(SessionStore.untag)
    tags = _awaited(SessionStore.tags)
    namespaces = _awaited(SessionStore.namespaces)
    list = _awaited(SessionStore.list)
    count = _awaited(SessionStore.count)
    delete = _awaited(SessionStore.delete)
    erase = _in_thread(SessionStore.erase)
    append = _awaited(SessionStore.append)
    append_many = _awaited(SessionStore.append_many)
    messages = _awaited(SessionStore.messages)
    pop = _awaited(SessionStore.pop)
    search = _in_thread(SessionStore.search)
    search_raw = _in_thread(SessionStore.search_raw)
    set_search = _awaited(SessionStore.set_search)
    rebuild_search = _in_thread(SessionStore.rebuild_search)
    truncate = _awaited(SessionStore.truncate)
    clear = _awaited(SessionStore.clear)
    replace_range = _awaited(SessionStore.replace_range)
    superseded = _awaited(SessionStore.superseded)
    clear_superseded = _awaited(SessionStore.clear_superseded)
    state = _awaited(SessionStore.state)
    get_state = _awaited(SessionStore.get_state)
    set_state = _awaited(SessionStore.set_state)
    increment_state = _awaited(SessionStore.increment_state)
    delete_state = _awaited(SessionStore.delete_state)
    open_tool_calls = _awaited(SessionStore.open_tool_calls)
    check = _awaited(SessionStore.check)
    repair = _awaited(SessionStore.repair)
    import_file = _in_thread(SessionStore.import_file)
    export_file = _in_thread(SessionStore.export_file)
    prune = _in_thread(SessionStore.prune)
    backup = _in_thread(SessionStore.backup)
    copy_to = _in_thread(SessionStore.copy_to)
    vacuum = _in_thread(SessionStore.vacuum)
    rekey = _in_thread(SessionStore.rekey)
    set_remote = _in_thread(SessionStore.set_remote)
    record = _awaited(SessionStore.record)
    record_many = _awaited(SessionStore.record_many)
    register_agent = _awaited(SessionStore.register_agent)
    set_status = _awaited(SessionStore.set_status)
    log_activity = _awaited(SessionStore.log_activity)
    agent = _awaited(SessionStore.agent)
    agents = _awaited(SessionStore.agents)
    activity = _awaited(SessionStore.activity)
    operations_overview = _awaited(SessionStore.operations_overview)
    _append_or_begin = _awaited(SessionStore._append_or_begin)  # noqa: SLF001
    _save_document = _awaited(SessionStore._save_document)  # noqa: SLF001
    _load_document = _awaited(SessionStore._load_document)  # noqa: SLF001
    _document_ids = _awaited(SessionStore._document_ids)  # noqa: SLF001
    _put_checkpoint = _awaited(SessionStore._put_checkpoint)  # noqa: SLF001
    _put_checkpoint_writes = _awaited(SessionStore._put_checkpoint_writes)  # noqa: SLF001
    _find_checkpoint = _awaited(SessionStore._find_checkpoint)  # noqa: SLF001
    _listed_checkpoints = _awaited(SessionStore._listed_checkpoints)  # noqa: SLF001
    _list_checkpoints = _awaited(SessionStore._list_checkpoints)  # noqa: SLF001
    _checkpoint_past = _awaited(SessionStore._checkpoint_past)  # noqa: SLF001
    _delete_checkpoint_runs = _awaited(SessionStore._delete_checkpoint_runs)  # noqa: SLF001
    _prune_checkpoints = _awaited(SessionStore._prune_checkpoints)  # noqa: SLF001
    _delete_checkpoints = _awaited(SessionStore._delete_checkpoints)  # noqa: SLF001
    _copy_checkpoints = _awaited(SessionStore._copy_checkpoints)  # noqa: SLF001
    _message_page = _awaited(SessionStore._message_page)  # noqa: SLF001
    _any_due = _awaited(SessionStore._any_due)  # noqa: SLF001
    _sweep_batch = _awaited(SessionStore._sweep_batch)  # noqa: SLF001
    _next_chore = _awaited(SessionStore._next_chore)  # noqa: SLF001
    _do_chore = _awaited(SessionStore._do_chore)  # noqa: SLF001
    _outlook = _awaited(SessionStore._outlook)  # noqa: SLF001
    _any_up_to = _awaited(SessionStore._any_up_to)  # noqa: SLF001
    _claim = _awaited(SessionStore._claim)  # noqa: SLF001
    _held = _awaited(SessionStore._held)  # noqa: SLF001
    # Whoever cancels a delivery ends its requests. What was answered is stored, or it would be sent again.
    _settle = _awaited(SessionStore._settle, to_its_end=True)  # noqa: SLF001
    _settle_and_claim = _awaited(SessionStore._settle_and_claim, to_its_end=True)  # noqa: SLF001
    _release = _awaited(SessionStore._release)  # noqa: SLF001
    _note_trouble = _awaited(SessionStore._note_trouble)  # noqa: SLF001
    _purge_settled = _awaited(SessionStore._purge_settled)  # noqa: SLF001
    _index_batch = _awaited(SessionStore._index_batch)  # noqa: SLF001
    _is_behind = _awaited(SessionStore._is_behind)  # noqa: SLF001
    _access = _in_thread(SessionStore._access)  # noqa: SLF001

    async def _run(self, recorded: T, *, to_its_end: bool = False) -> T:
        work = cast("_Recorded[T]", recorded)
        if work.read is not None:
            found = await self._read(work.read)
            if found is not None or work.write is None:
                return cast(T, found)
        self._recorder._require_writable()  # noqa: SLF001
        return await self._write(cast("Work[T]", work.write), full=work.full, to_its_end=to_its_end)

    async def _read(self, work: Work[T] | Work[T | None]) -> T | None:
        outcome = Outcome(lambda: self._database.read(work, timeout=self._settings.busy_timeout))
        self._database.workers.submit(outcome.run)
        await outcome.arrival.wait()
        return outcome.get()

    async def _write(self, work: Work[T], *, full: bool = False, to_its_end: bool = False) -> T:
        """Do the work; with `to_its_end` it is done also if it had not begun when a cancellation arrived."""
        arrival = Arrival()
        settings = self._settings
        deadline = time.monotonic() + settings.busy_timeout
        job = WriteJob(work, full=full or settings.durability == "full", deadline=deadline, notify=arrival.set)
        self._database.submit(job)
        try:
            await arrival.wait()
        except GeneratorExit:
            # The coroutine is closed, maybe after the end of its loop: it may not wait any more.
            self._database.writer.withdraw(job)
            raise
        except BaseException:
            if to_its_end or not self._database.writer.withdraw(job):
                await arrival.wait_through()
            if to_its_end and isinstance(job.error, DiskFullError):
                await begun_in_thread(lambda: self._again(job)).arrival.wait_through()
            raise
        return await in_thread(lambda: self._again(job)) if isinstance(job.error, DiskFullError) else job.outcome()

    def _again(self, job: WriteJob[T]) -> T:
        error = cast(DiskFullError, job.error)
        return self._database.write_again(job.work, error, full=job.full, timeout=self._settings.busy_timeout)


class AsyncSessionHandle(BoundHandle[AsyncSessionStore]):
    """One session of a store; each method is the store's own, without the id."""

    __slots__ = ()

    get = bound(AsyncSessionStore.get)
    update = bound(AsyncSessionStore.update)
    fork = bound(AsyncSessionStore.fork)
    branches = bound(AsyncSessionStore.branches)
    parent = bound(AsyncSessionStore.parent)
    end = bound(AsyncSessionStore.end)
    pin = bound(AsyncSessionStore.pin)
    archive = bound(AsyncSessionStore.archive)
    reopen = bound(AsyncSessionStore.reopen)
    touch = bound(AsyncSessionStore.touch)
    set_ttl = bound(AsyncSessionStore.set_ttl)
    remaining = bound(AsyncSessionStore.remaining)
    tag = bound(AsyncSessionStore.tag)
    untag = bound(AsyncSessionStore.untag)
    append = bound(AsyncSessionStore.append)
    append_many = bound(AsyncSessionStore.append_many)
    messages = bound(AsyncSessionStore.messages)
    iterate = bound(AsyncSessionStore.iterate)
    pop = bound(AsyncSessionStore.pop)
    truncate = bound(AsyncSessionStore.truncate)
    clear = bound(AsyncSessionStore.clear)
    replace_range = bound(AsyncSessionStore.replace_range)
    superseded = bound(AsyncSessionStore.superseded)
    clear_superseded = bound(AsyncSessionStore.clear_superseded)
    state = bound(AsyncSessionStore.state)
    get_state = bound(AsyncSessionStore.get_state)
    set_state = bound(AsyncSessionStore.set_state)
    increment_state = bound(AsyncSessionStore.increment_state)
    delete_state = bound(AsyncSessionStore.delete_state)
    open_tool_calls = bound(AsyncSessionStore.open_tool_calls)
    check = bound(AsyncSessionStore.check)
    repair = bound(AsyncSessionStore.repair)
    search = within(AsyncSessionStore.search)
    search_raw = within(AsyncSessionStore.search_raw)

    async def rename(self, new_session_id: str) -> None:
        """Give the session another id, which the handle then goes by.

        Raises:
            ConflictError: There is a live session of that id.
        """
        self._session_id = (await self._store.rename(self._session_id, new_session_id)).session_id

    async def delete(self) -> bool:
        """Delete the session and its messages; False if it was gone already."""
        return (await self._store.delete(self._session_id)).sessions > 0

    async def erase(
        self, *, forks: Literal["raise", "erase", "keep"] = "raise", tell: bool = True, rebuild: bool = True, dry_run: bool = False
    ) -> hints.EraseReceipt:
        """Delete the session so that no byte of it is left in the file. The arguments are those of the sync method."""
        return await self._store.erase(self._session_id, forks=forks, tell=tell, rebuild=rebuild, dry_run=dry_run)
