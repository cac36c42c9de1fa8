"""The one writer of a file in this process: callers queue up, and whoever gets the lock commits for all of them.

Sharing a commit shares its sync to the disk, which is nearly all the time that a durable write takes. A waiting thread leads
on its own stack; for awaiting tasks a daemon thread does. A job that fails is rolled back alone; a COMMIT that fails, fails
the jobs that it carried.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import clock
from ..errors import ClosedStoreError, StoreBusyError
from . import engine
from .bell import Bell
from .checkpoints import Checkpointer
from .faults import is_storage_failure
from .jobs import WriteJob, lost_transaction
from .locks import ProcessLock
from .transaction import Transaction, Work, own_error, raise_own
from .upgrade import refuse_upgraded

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")

_GROUP_LIMIT: Final = 256
_NEAR: Final = 0.1


class Writer:
    """The queue, the connection and the locks of all writes to one file."""

    def __init__(self, connect: Callable[[], Connection], lock: ProcessLock, path: Path | None, *, wal: bool) -> None:
        self.commits = 0
        self.writes = 0
        self.bell = Bell()
        self._connect = connect
        self._lock = lock
        self._checkpointer = Checkpointer(path) if path is not None and wal else None
        self._name = str(path) if path is not None else "(memory)"
        # Only its owner can release it, which makes releasing safe after an interrupt.
        self._mutex = threading.RLock()
        self._is_mine: Callable[[], bool] = self._mutex._is_owned  # type: ignore[attr-defined]  # noqa: SLF001 - as Condition does
        self._starting = threading.Lock()
        self._pending: deque[WriteJob[Any]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._closed = self._ended = False
        self._can_reopen = path is not None
        self._synchronous_full: bool | None = None
        self._broken = False
        self._db = Transaction(connect(), self._name)

    @property
    def checkpoints(self) -> int:
        """How often the log was copied into the database."""
        return 0 if self._checkpointer is None else self._checkpointer.runs

    @property
    def busy_waits(self) -> int:
        """How often another process was in the way."""
        return self._lock.waits

    def run(self, work: Work[T], *, full: bool, timeout: float) -> T:
        """Do the work and return when it is committed.

        Raises:
            StoreBusyError: Nothing was written, because others held the lock past the timeout.
        """
        self._drop_leftovers()
        deadline = time.monotonic() + timeout
        try:
            if not self._pending and self._mutex.acquire(blocking=False):
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

    def let_go(self) -> None:
        """Within `exclusively`: close the connection; the next use opens another one."""
        self._broken = True
        self._db.close()

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
            self._mutex.release()
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
        """Queue up, wait for the mutex, and lead unless somebody else did the job meanwhile. The caller releases the mutex."""
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
        group: list[WriteJob[Any]] = []
        try:
            self._take_group(group)
            if group:
                self._commit(group, deadline)
                self._checkpoint_if_due()
        except BaseException:
            # An interrupt in the leader's thread must not reach the others: their jobs go back to the queue.
            self._put_back(group)
            raise
        finally:
            self._lock.release()

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
        self._finish(waiting)

    def _fail_overdue(self, error: StoreBusyError) -> None:
        now = time.monotonic()
        for job in tuple(self._pending):
            if job.deadline <= now and self.withdraw(job):
                job.error = StoreBusyError(self._name, str(error).removeprefix(f"{error.path}: "))
                self._finish((job,))

    def _commit_alone(self, work: Work[T], *, full: bool, deadline: float) -> T:
        """The usual case: nobody else waits. The mutex is held."""
        self._require_open()
        self._lock.acquire(deadline)
        try:
            db = self._begin(full=full, deadline=deadline)
            result = work(db)
            self._db.execute_by(deadline, "COMMIT")
            self.commits += 1
            self.writes += 1
            self._tell_of_events()
            self._checkpoint_if_due()
            return result
        except Exception as error:  # noqa: BLE001 - raised again, in our words
            self._after_failure(error)
            raise_own(error, self._name)
        except BaseException:
            self._undo()
            raise
        finally:
            self._lock.release()

    def _commit(self, group: list[WriteJob[Any]], deadline: float) -> None:
        committing = False
        try:
            self._begin(full=any(job.full for job in group), deadline=deadline)
            if self._apply(group, deadline):
                committing = True
                self._db.execute_by(deadline, "COMMIT")
                self.commits += 1
                self._tell_of_events()
            else:
                self._roll_back()
            self._finish(group)
        except Exception as error:  # noqa: BLE001 - raised again by each caller
            self._after_failure(error)
            for job in group:
                job.error = job.error or own_error(error, self._name)
            self._finish(group)
        except BaseException:
            if committing and not self._db.driver.in_transaction:
                self._finish(group)
            else:
                self._undo()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedStoreError

    def _usable(self) -> Transaction:
        self._require_open()
        return self.reopen() if self._broken else self._db

    def _begin(self, *, full: bool, deadline: float) -> Transaction:
        self._usable()
        # An interrupt may have come while the last transaction was rolled back.
        self._roll_back()
        if full is not self._synchronous_full:
            engine.set_synchronous(self._db.driver, "full" if full else "normal")
            self._synchronous_full = full
        self._begin_again(deadline)
        self._db.now = clock.utc_now()
        return self._db

    def _begin_again(self, deadline: float) -> None:
        self._db.execute_by(deadline, "BEGIN IMMEDIATE")
        refuse_upgraded(self._db)

    def _apply(self, group: list[WriteJob[Any]], deadline: float) -> bool:
        """Do the work of the group; False if there is nothing to commit.

        Savepoints cost as much as the work, so they are used only once a job has failed.
        """
        if all(self._do(job) for job in group):
            return True
        if len(group) == 1:
            return False
        self._roll_back()
        self._begin_again(deadline)
        return self._apply_apart(group)

    def _apply_apart(self, group: list[WriteJob[Any]]) -> bool:
        execute = self._db.driver.execute
        worked = False
        for job in group:
            execute("SAVEPOINT job")
            if self._do(job):
                worked = True
            elif self._db.driver.in_transaction:
                execute("ROLLBACK TO job")
            else:
                # The failure (a full disk, an I/O error) took the whole transaction with it.
                raise lost_transaction(job)
            execute("RELEASE job")
        return worked

    def _do(self, job: WriteJob[Any]) -> bool:
        self._db.now = clock.utc_now()
        job.error = None
        try:
            job.result = job.work(self._db)
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            job.error = own_error(error, self._name)
            self._broken = self._broken or (is_storage_failure(error) and self._can_reopen)
            return False
        return True

    def _roll_back(self) -> None:
        if self._db.driver.in_transaction:
            self._db.driver.execute("ROLLBACK")

    def _after_failure(self, error: Exception) -> None:
        self._broken = self._broken or (is_storage_failure(error) and self._can_reopen)
        self._undo()

    def _undo(self) -> None:
        """Roll back what failed. SQLAlchemy closes a connection that it was interrupted in."""
        try:
            self._roll_back()
        except sqlite3.Error:
            self._broken = self._can_reopen

    def reopen(self) -> Transaction:
        """Go on with a fresh connection: after a failed write or sync nobody knows what the old one takes for granted."""
        self._db.close()
        self._db = Transaction(self._connect(), self._name)
        engine.set_busy_timeout(self._db.driver, 0)
        self._synchronous_full = None
        if self._checkpointer is not None:
            self._checkpointer.forget_connection()
        self._broken = False
        return self._db

    def _tell_of_events(self) -> None:
        if self._db.enqueued:
            self._db.enqueued = False
            self.bell.ring()

    def _checkpoint_if_due(self) -> None:
        if self._checkpointer is not None and not self._checkpointer.after_commit(self._db.driver):
            self._broken = self._can_reopen

    def _put_back(self, group: Iterable[WriteJob[Any]]) -> None:
        undone = [job for job in group if not job.done and job not in self._pending]
        for job in undone:
            job.result = job.error = None
        self._pending.extendleft(reversed(undone))
        self._wake.put(None)

    def _finish(self, jobs: Iterable[WriteJob[Any]]) -> None:
        for job in jobs:
            if not job.done and job.error is None:
                self.writes += 1
            job.done = True
            if job.notify is not None:
                job.notify()
