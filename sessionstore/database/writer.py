"""The one writer of a file in this process: callers queue up, and whoever gets the lock commits for all of them.

Sharing a commit shares its sync to the disk, which is nearly all the time that a durable write takes. A waiting thread leads
on its own stack; for awaiting tasks a daemon thread does.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from ..errors import ClosedStoreError, StoreBusyError
from .checkpoints import Checkpointer
from .jobs import WriteJob, tell
from .locks import ProcessLock
from .transaction import Transaction, Work
from .write_connection import WriteConnection

T = TypeVar("T")

_GROUP_LIMIT: Final = 256
_NEAR: Final = 0.1


class Writer(WriteConnection):
    """The queue and the locks before the connection of all writes to one file."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], lock: ProcessLock, path: Path | None, checkpointer: Checkpointer | None
    ) -> None:
        super().__init__(connect, path, checkpointer)
        self._lock = lock
        # Only its owner can release it, which makes releasing safe after an interrupt.
        self._mutex = threading.RLock()
        self._is_mine: Callable[[], bool] = self._mutex._is_owned  # type: ignore[attr-defined]  # noqa: SLF001 - as Condition does
        self._starting = threading.Lock()
        self._pending: deque[WriteJob[Any]] = deque()
        # What the last leader took; an interrupt may have come before it told them.
        self._group: list[WriteJob[Any]] = []
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = self._ended = False

    @property
    def busy_waits(self) -> int:
        """How often another process was in the way."""
        return self._lock.waits

    def run(self, work: Work[T], *, full: bool, timeout: float, alone: bool = False) -> T:
        """Do the work and return when it is committed; `alone` in a commit of its own.

        Raises:
            StoreBusyError: Nothing was written, because others held the lock past the timeout.
        """
        self._drop_leftovers()
        deadline = time.monotonic() + timeout
        try:
            if alone and not self._mutex.acquire(timeout=timeout):
                raise self._busy()  # noqa: TRY301 - the mutex is dealt with below
            if alone or (not self._pending and self._mutex.acquire(blocking=False)):
                return self._commit_alone(work, full=full, deadline=deadline)
            return self._commit_together(WriteJob(work, full=full, deadline=deadline), timeout)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._after_interrupt()
            raise
        finally:
            # An interrupt can come between taking the mutex and knowing so; only its holder can release it.
            try:  # noqa: SIM105 - before a call of C no interrupt comes
                self._mutex.release()
            except RuntimeError:
                pass

    def submit(self, job: WriteJob[Any]) -> None:
        """Queue a job for the writer thread; its `notify` tells when it is done.

        Raises:
            ClosedStoreError: The writer was closed meanwhile.
        """
        if self._thread is None:
            self._start_thread()
        self._pending.append(job)
        self._wake.put(None)
        if self._closed and self.withdraw(job):
            raise ClosedStoreError

    def exclusively(self, action: Callable[[Transaction], T], *, timeout: float) -> T:
        """Do something outside of a transaction while nobody writes, in this process or another one."""
        return self._alone(lambda: action(self._usable()), timeout)

    def close(self, *, timeout: float, also: Iterable[Transaction] = ()) -> None:
        """Finish what waits, then close the connection, and the readers' ones with it, under the lock.

        Raises:
            StoreBusyError: Another process held the lock; nothing was closed. A second call tries again.
        """
        self._closing = True
        self._wake.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

        def close_all() -> None:
            self._closed = True
            for each in (*also, self._db):
                each.close()

        if not self._ended:
            self._alone(close_all, timeout)
        while self._pending:
            self._fail_all(ClosedStoreError())
        self._ended = True
        self._lock.close()

    def pause(self, *, deadline: float) -> bool:
        """Before a fork: close the connection and hold writes back; False if one does not end in time."""
        if not self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        try:
            try:
                self._lock.acquire(deadline)
                self.let_go()
            finally:
                self._lock.release()
        except Exception:  # noqa: BLE001 - the fork goes on; its child will be told
            self.resume()
            return False
        return True

    def resume(self) -> None:
        """After a fork: let writes go on; the first one opens a connection anew."""
        self._mutex.release()

    def _alone(self, action: Callable[[], T], timeout: float) -> T:
        """Do something while nobody writes. One interrupt leaves nothing locked, wherever it comes."""
        self._drop_leftovers()
        try:
            try:
                deadline = time.monotonic() + timeout
                if not self._mutex.acquire(timeout=timeout):
                    raise self._busy()
                self._lock.acquire(deadline)
                return action()
            finally:
                self._let_others()
        finally:
            self._let_others()

    def _let_others(self) -> None:
        if self._is_mine():
            # The mutex last: whoever is interrupted before it still knows that there is something to release.
            self._lock.release()
            self._mutex.release()

    def _commit_together(self, job: WriteJob[T], timeout: float) -> T:
        """Queue up, wait for the mutex, and lead unless somebody else did the job meanwhile. The caller releases the mutex.

        The threads that wait wake one after the other. Woken all at once, two hundred take twice the processor time to get past
        each other to the interpreter lock.
        """
        self._pending.append(job)
        try:
            in_time = self._mutex.acquire(timeout=timeout)
            while not in_time and not self.withdraw(job) and not job.done:
                # A leader has it: its outcome is near.
                in_time = self._mutex.acquire(timeout=_NEAR)
            while in_time and not job.done:
                self._lead()
        except BaseException:
            if not self.withdraw(job) and not job.done:
                with self._mutex:
                    pass
            raise
        if not in_time and not job.done:
            raise self._busy()
        return job.outcome()

    def _drop_leftovers(self) -> None:
        """Release what this thread holds already: an interrupt came before it could."""
        while self._is_mine():
            self._let_others()

    def _after_interrupt(self) -> None:
        """Undo what an interrupt left of a transaction that this thread was leading. The mutex is released afterwards."""
        if self._is_mine():
            self._undo()
            self._lock.release()
            tell(self._group)

    def withdraw(self, job: WriteJob[Any]) -> bool:
        """Take a job back that has not begun; False if it has, so that its outcome is near."""
        try:
            self._pending.remove(job)
        except ValueError:
            return False
        return True

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(self._name, "other threads held the store's write lock past the busy_timeout; try again")

    def _start_thread(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="sessionstore-writer", daemon=True)
                thread.start()
                # Not before it runs: at the end of a program another thread may be closing this writer.
                self._thread = thread

    def _serve(self) -> None:
        while True:
            self._wake.get()
            while self._pending:
                with self._mutex:
                    self._lead_for_others()
            if self._closing:
                return

    def _lead_for_others(self) -> None:
        try:
            self._lead()
        except BaseException as error:
            # The thread must live on, and nobody may wait for ever.
            self._fail_all(error)
            if not isinstance(error, Exception):
                raise

    def _lead(self) -> None:
        """Commit a group of what waits. The mutex is held."""
        if not self._pending:
            return
        deadline = self._pending[0].deadline
        try:
            self._require_open()
            self._lock.acquire(deadline)
        except StoreBusyError as error:
            self._fail_overdue(error)
            return
        group = self._group = list[WriteJob[Any]]()
        try:
            self._take_group(group)
            if group:
                self._commit_group(group, deadline)
        except BaseException:
            # An interrupt in the leader's thread must not reach the others: their jobs go back to the queue.
            self._put_back(group)
            raise
        finally:
            try:
                self._lock.release()
            finally:
                # Last of all: whoever is told goes on at once, and this thread would have to wait for the interpreter lock.
                tell(group)
        self._group = []

    def _take_group(self, group: list[WriteJob[Any]]) -> None:
        while self._pending and len(group) < _GROUP_LIMIT:
            # In this order no interrupt loses a job.
            group.append(self._pending[0])
            self._pending.popleft()

    def _fail_all(self, error: BaseException) -> None:
        waiting: list[WriteJob[Any]] = []
        self._take_group(waiting)
        for job in waiting:
            job.error = error
        self._settle(waiting)
        tell(waiting)

    def _fail_overdue(self, error: StoreBusyError) -> None:
        now = time.monotonic()
        for job in tuple(self._pending):
            if job.deadline <= now and self.withdraw(job):
                job.error = StoreBusyError(self._name, str(error).removeprefix(f"{error.path}: "))
                self._settle((job,))
                tell((job,))

    def _commit_alone(self, work: Work[T], *, full: bool, deadline: float) -> T:
        """The usual case: nobody else waits. The mutex is held."""
        self._require_open()
        self._lock.acquire(deadline)
        try:
            return self._commit_one(work, full=full, deadline=deadline)
        finally:
            self._lock.release()

    def _put_back(self, group: Iterable[WriteJob[Any]]) -> None:
        undone = [job for job in group if not job.done and job not in self._pending]
        for job in undone:
            job.result = job.error = None
        self._pending.extendleft(reversed(undone))
        self._wake.put(None)
