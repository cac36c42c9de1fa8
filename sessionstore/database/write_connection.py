"""The connection that writes to a file: a transaction for one call or for a group of them, and what is left when one fails.

A job that fails is rolled back alone; a COMMIT that fails, fails the jobs that it carried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from .. import clock
from ..errors import ClosedStoreError
from . import engine
from .bell import Bell
from .checkpoints import Checkpointer
from .faults import is_storage_failure
from .jobs import WriteJob, lost_transaction, tell
from .transaction import Transaction, Work, own_error, raise_own
from .upgrade import refuse_upgraded

T = TypeVar("T")


class WriteConnection:
    """Transactions on the one connection that writes. Whoever calls it holds the locks."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], path: Path | None, checkpointer: Checkpointer | None) -> None:
        self.commits = 0
        self.writes = 0
        self.bell = Bell()
        self._connect = connect
        self._checkpointer = checkpointer
        self._name = str(path) if path is not None else "(memory)"
        self._can_reopen = path is not None
        self._closed = False
        self._synchronous_full: bool | None = None
        self._broken = False
        self._db = Transaction(connect(), self._name)

    @property
    def checkpoints(self) -> int:
        """How often the log was copied into the database."""
        return 0 if self._checkpointer is None else self._checkpointer.runs

    def let_go(self) -> None:
        """Within `exclusively`: close the connection; the next use opens another one."""
        self._broken = True
        self._db.close()

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

    def _commit_one(self, work: Work[T], *, full: bool, deadline: float) -> T:
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

    def _commit_group(self, group: list[WriteJob[Any]], deadline: float) -> None:
        """Commit what can be committed of it, and settle every job. They are told before a checkpoint, or by the caller."""
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
            self._settle(group)
        except Exception as error:  # noqa: BLE001 - raised again by each caller
            self._after_failure(error)
            for job in group:
                job.error = job.error or own_error(error, self._name)
            self._settle(group)
        except BaseException:
            if committing and not self._db.driver.in_transaction:
                self._settle(group)
            else:
                self._undo()
            raise
        # A checkpoint takes a while, and they are committed.
        self._checkpoint_if_due(lambda: tell(group))

    def _settle(self, jobs: Collection[WriteJob[Any]]) -> None:
        """Their outcome is known."""
        # First: whoever sees that one is done may ask.
        self.writes += sum(not job.done and job.error is None for job in jobs)
        for job in jobs:
            job.done = True

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
            # On a fresh connection this is what looks at the file first, which others may be opening or closing just now.
            self._db.execute_by(deadline, f"PRAGMA synchronous={engine.SYNCHRONOUS['full' if full else 'normal']}")
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

    def _tell_of_events(self) -> None:
        if self._db.enqueued:
            self._db.enqueued = False
            self.bell.ring()

    def _checkpoint_if_due(self, before: Callable[[], object] | None = None) -> None:
        if self._checkpointer is not None and not self._checkpointer.after_commit(self._db.driver, before):
            self._broken = self._can_reopen
