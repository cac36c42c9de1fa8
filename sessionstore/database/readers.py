"""A few connections that read beside the writer, each call in a snapshot of its own."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from .. import clock
from ..errors import ClosedStoreError, StoreBusyError, StoreCorruptError, StoreIOError
from .locks import pause
from .transaction import Transaction, Work, own_error, raise_own
from .upgrade import require_head

if TYPE_CHECKING:
    from .writer import Writer

T = TypeVar("T")

# Decoding holds the interpreter lock: more connections would only wait for each other.
_MOST_READERS: Final = 4
_LONGEST_WAIT: Final = 0.1


class Readers(Protocol):
    """Where reads run."""

    def run(self, work: Work[T], *, timeout: float) -> T:
        """Do the work in one snapshot and return its result."""

    @property
    def running(self) -> int:
        """How many reads are under way."""

    def take_all(self, *, timeout: float) -> list[Transaction]:
        """Refuse new reads, wait for the running ones, and hand over the connections to be closed."""

    def pause(self, *, deadline: float) -> bool:
        """Hold new reads back, wait for the running ones, and close the connections; False if one does not end in time."""

    def resume(self) -> None:
        """Let reads go on."""


class ReaderPool:
    """Connections that are opened when they are needed and kept."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._connect = connect
        self._name = name
        self._idle: SimpleQueue[Transaction] = SimpleQueue()
        # One that an interrupt takes out of the hands of its reader is forgotten, and another one opened for it.
        self._all: weakref.WeakSet[Transaction] = weakref.WeakSet()
        self._growing = threading.Lock()
        self._closed = False

    def run(self, work: Work[T], *, timeout: float) -> T:
        """Do the work in one snapshot and return its result."""
        db = self._check_out(timeout)
        try:
            db.now = clock.utc_now()
            db.driver.execute("BEGIN")
            result = work(db)
            db.driver.execute("COMMIT")
            return result
        except Exception as error:  # noqa: BLE001 - raised again, in our words
            self._refuse_upgraded(db, error)
            raise_own(error, self._name)
        finally:
            try:
                if db.driver.in_transaction:
                    db.driver.execute("ROLLBACK")
            except sqlite3.Error:
                # SQLAlchemy closes a connection that it was interrupted in.
                self._all.discard(db)
                db.driver.close()
            else:
                self._idle.put(db)

    def _refuse_upgraded(self, db: Transaction, error: Exception) -> None:
        """What looks like damage may be tables of a newer version. A look at each read would cost it a twentieth."""
        if isinstance(own_error(error, self._name), StoreCorruptError | StoreIOError):
            with suppress(sqlite3.Error, StoreCorruptError):
                require_head(db.driver, self._name)

    @property
    def running(self) -> int:
        """How many reads are under way."""
        return max(0, len(self._all) - self._idle.qsize())

    def take_all(self, *, timeout: float) -> list[Transaction]:
        """Refuse new reads, wait for the running ones, and hand over the connections to be closed."""
        self._closed = True
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            pause()
        if not self.running:
            # They stay where they are: an interrupt loses none.
            return list(self._all)
        return self._gather(deadline)

    def pause(self, *, deadline: float) -> bool:
        """Hold new reads back, wait for the running ones, and close the connections; False if one does not end in time."""
        if not self._growing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return False
        idle = self._gather(deadline)
        if len(idle) < len(self._all):
            for db in idle:
                self._idle.put(db)
            self._growing.release()
            return False
        for db in idle:
            db.close()
        self._all.clear()
        return True

    def resume(self) -> None:
        """Let reads go on; they open connections anew."""
        self._growing.release()

    def _gather(self, deadline: float) -> list[Transaction]:
        idle: list[Transaction] = []
        while len(idle) < len(self._all):
            try:
                idle.append(self._idle.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return idle

    def _check_out(self, timeout: float) -> Transaction:
        try:
            db = self._idle.get_nowait()
        except queue.Empty:
            db = self._grow_or_wait(timeout)
        if self._closed:
            self._idle.put(db)
            raise ClosedStoreError
        return db

    def _grow_or_wait(self, timeout: float) -> Transaction:
        deadline = time.monotonic() + timeout
        while True:
            with self._growing:
                if self._closed:
                    raise ClosedStoreError
                if len(self._all) < _MOST_READERS:
                    return self._grow()
            try:
                # Not for long: the connections may be closed meanwhile, for a fork.
                return self._idle.get(timeout=_LONGEST_WAIT)
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise StoreBusyError(self._name, "other threads were reading past the busy_timeout; try again") from None

    def _grow(self) -> Transaction:
        try:
            db = Transaction(self._connect(), self._name)
        except Exception as error:  # noqa: BLE001 - raised again, in our words
            raise_own(error, self._name)
        self._all.add(db)
        return db


class WriterAsReader:
    """Reads of a store in memory, whose only connection is the writer's."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def run(self, work: Work[T], *, timeout: float) -> T:
        """Do the work between two writes and return its result."""

        def read(db: Transaction) -> T:
            db.now = clock.utc_now()
            try:
                return work(db)
            except Exception as error:  # noqa: BLE001 - raised again, in our words
                raise_own(error, db.path)

        return self._writer.exclusively(read, timeout=timeout)

    @property
    def running(self) -> int:
        """None: a read and a write take turns."""
        return 0

    def take_all(self, *, timeout: float) -> list[Transaction]:
        """There are none of its own."""
        return []

    def pause(self, *, deadline: float) -> bool:
        """Closing the only connection would lose the store."""
        return False

    def resume(self) -> None:
        """Nothing was held back."""
