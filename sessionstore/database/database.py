"""One open file in this process: its writer and its readers, shared by all stores on it."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..config import OpenOptions
from ..errors import (
    ClosedStoreError,
    ConfigError,
    DiskFullError,
    ForeignDatabaseError,
    ForkedStoreError,
    NotADatabaseError,
    ReadOnlyStoreError,
    SessionStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreIOError,
    StoreOpenError,
    StoreWarning,
    WrongKeyError,
)
from ..keys import EncryptionKey
from ..logs import log
from . import conversions, encryption, engine, filesystem, full_disk, paths, restores, upgrade
from .checkpoints import Checkpointer
from .faults import interrupt_behind, translated
from .jobs import WriteJob
from .locks import NoLock, ProcessLock, SidecarLock
from .readers import ReaderPool, Readers, WriterAsReader
from .reserve import Reserve
from .sidecars import is_no_log, refuse_foreign_log
from .tally import Tally
from .transaction import Transaction, Work, raise_own
from .workers import READER_THREADS, Workers
from .writer import Writer

if TYPE_CHECKING:
    from ..remote.settings import Remote

T = TypeVar("T")

# Nobody else can have such a file open as a store, so nobody needs its lock.
_NEVER_STORES: Final = (ForeignDatabaseError, NotADatabaseError, WrongKeyError)


class Database:
    """A file that `connect` opens. Several stores may share it; the last one closes it.

    Attributes:
        path: The file, None in memory.
        key: What the file is encrypted with, None for a plain one.
        read_only: Whether the file must not be written.
        warnings: What works with less than the usual guarantees.
        journal_mode: The mode in force.
        journal_reason: Why that mode, and what keeps it safe.
        filesystem: The kind of file system, None if unknown.
        workers: Threads that run reads for awaiting tasks.
        tally: What this process counts about its use of the file.
        remote: The remote of the file, with the key that this process has for it; None if it has none.
        reserve: Room for deletions on a full disk; None where nothing is written.
        users: What the stores on it are told apart by.
        is_opening: Whether it is being opened just now.
        is_closed: Whether nothing of it is open any more.
        writer: Where writes run, once it is open.
        readers: Where reads run, likewise.
    """

    writer: Writer
    readers: Readers

    def __init__(self, file: paths.PreparedFile | None, options: OpenOptions, *, key: EncryptionKey | None = None) -> None:
        engine.require_usable_sqlite()
        self.path = file.path if file else None
        self.key = key
        self.read_only = options.read_only
        self.warnings: list[str] = list(file.warnings) if file else []
        self.filesystem = filesystem.kind_of(file.path) if file else None
        self.workers = Workers("sessionstore-reader", READER_THREADS)
        self.tally = Tally()
        self.remote: Remote | None = None
        self.users: set[object] = set()
        self.identity = file.identity if file else None
        self.reserve = Reserve(file.path) if file and not options.read_only else None
        self.is_opening = self.is_closed = False
        # Until it is open, and when it is no more.
        self._fault: type[ClosedStoreError] | type[ForkedStoreError] | None = ClosedStoreError
        self._lock: ProcessLock = NoLock()
        self._unclosed: list[Transaction] = []
        self._immutable = False
        self.journal_mode = "memory"
        self.journal_reason = "the store is in memory"

    def connect(self, options: OpenOptions, *, timeout: float) -> None:
        """Connect to the file, and make or upgrade the store in it. What fails or is interrupted is closed again.

        Raises:
            StoreOpenError: It cannot be opened; the subclasses say why.
        """
        handled = sys.exception()
        self.is_opening = True
        try:
            self._open_writer(options, timeout)
            self.readers = WriterAsReader(self.writer) if self.path is None else ReaderPool(self._open_reader, self.name)
            self._fault = None
        except Exception as error:
            interrupt = interrupt_behind(error, handled=handled)
            if interrupt is not None:
                raise interrupt from None
            mine = self._open_error(error)
            self._give_up(timeout)
            if isinstance(mine, _NEVER_STORES):
                self._lock.remove_if_new()
            raise mine from error
        finally:
            self.is_opening = False
            if self._fault is not None:
                self._give_up(0)

    def _give_up(self, timeout: float) -> None:
        # Where another process holds the lock, the next one that opens the file here closes what is left.
        with suppress(StoreBusyError):
            self.close(timeout=timeout)

    @property
    def sqlite_version(self) -> tuple[int, int, int]:
        """The SQLite that runs this database."""
        return engine.linked_version() if self.key is None else encryption.linked_version()

    @property
    def name(self) -> str:
        """The file, for messages."""
        return "(memory)" if self.path is None else str(self.path)

    def read(self, work: Work[T], *, timeout: float) -> T:
        """Do the work in one snapshot."""
        if self._fault is not None:
            raise self._fault
        return self.readers.run(work, timeout=timeout)

    def write(self, work: Work[T], *, full: bool, timeout: float) -> T:
        """Do the work in one transaction, and return when it is on disk."""
        self.require_writable()
        try:
            return self.writer.run(work, full=full, timeout=timeout)
        except DiskFullError as error:
            return self.write_again(work, error, full=full, timeout=timeout)

    def write_again(self, work: Work[T], error: DiskFullError, *, full: bool, timeout: float) -> T:
        """Do work again that met a full disk, or raise its error."""
        if self.reserve is None:
            raise error
        return full_disk.write_again(self.writer, self.reserve, work, error, full=full, timeout=timeout)

    def submit(self, job: WriteJob[T]) -> None:
        """Queue a job for the writer thread."""
        self.require_writable()
        self.writer.submit(job)

    def require_open(self) -> None:
        """Raise if the database is closed or was opened before a fork."""
        if self._fault is not None:
            raise self._fault

    def require_writable(self) -> None:
        """Raise unless writes are possible."""
        if self._fault is not None:
            raise self._fault
        if self.read_only:
            raise ReadOnlyStoreError(self.name, "was opened with read_only=True")

    def close(self, *, timeout: float) -> None:
        """Wait for running calls, then close every connection under the writer lock.

        Raises:
            StoreBusyError: Another process held the lock; a second call tries again, as it goes on after an interrupt.
        """
        if self._fault is ForkedStoreError or self.is_closed:
            return
        self._fault = ClosedStoreError
        self.workers.stop()
        started = time.monotonic()
        # One that was interrupted while it was opened may have neither.
        readers, writer = getattr(self, "readers", None), getattr(self, "writer", None)
        if readers is not None:
            self._unclosed += readers.take_all(timeout=timeout)
        if writer is not None:
            writer.close(timeout=max(0.1, timeout - (time.monotonic() - started)), also=self._unclosed)
        self._lock.close()
        self.is_closed = True

    def pause(self, *, timeout: float) -> bool:
        """Before a fork: close every connection and hold all calls back; False if a call does not end in time.

        A child inherits SQLite's belief in locks that only the parent holds, so it must not inherit a connection.
        """
        if self.path is None or self._fault is not None:
            return False
        deadline = time.monotonic() + timeout
        if not self.readers.pause(deadline=deadline):
            return False
        if not self.writer.pause(deadline=deadline):
            self.readers.resume()
            return False
        return True

    def resume(self) -> None:
        """After a fork, in the parent: let calls go on; they open connections anew."""
        self.writer.resume()
        self.readers.resume()

    def abandon(self) -> None:
        """After a fork, in the child: this database is the parent's."""
        self._fault = ForkedStoreError
        # A thread that is not in this process may have held the old one's lock.
        self.tally = Tally()
        self._lock.close()

    def rekey(self, key: EncryptionKey, *, timeout: float) -> None:
        """Encrypt the file with another key, in one transaction that a kill leaves done or undone.

        Raises:
            StoreBusyError: Another process has the file open, or calls of this one went on past the timeout; it has its old key.
            DiskFullError: There is no room for it; the file has its old key.
        """
        self.require_writable()
        if self.path is None or self.key is None:
            raise ConfigError(f"{self.name}: is not encrypted; close it, then: sessionstore encrypt")
        deadline = time.monotonic() + timeout
        if not self.readers.pause(deadline=deadline):
            raise StoreBusyError(self.name, "calls that read it went on past the busy_timeout; it has its old key. Try again")
        try:
            self.writer.exclusively(
                lambda db: self._rekey(db, key, deadline=deadline), timeout=max(0.0, deadline - time.monotonic())
            )
        except Exception as error:  # noqa: BLE001 - raised again, in our words
            raise_own(error, self.path)
        finally:
            self.readers.resume()

    def check_size(self, driver: sqlite3.Connection) -> None:
        """Compare the file's size with its page count; only meaningful while the log is empty or copied.

        Raises:
            StoreCorruptError: The file was cut short.
        """
        if self.path is None:
            return
        expected = engine.pragma(driver, "page_count") * engine.pragma(driver, "page_size")
        if paths.size_of(self.path) < expected:
            raise StoreCorruptError(self.path, f"is shorter than the {expected} bytes it should have; the file is kept as it is")

    def _connect(self) -> sqlite3.Connection:
        if self.path is None:
            return engine.connect_memory()
        if self.read_only:
            return engine.connect_read_only(self.path, self.key, immutable=self._immutable)
        connection = engine.connect_file(self.path, self.key)
        try:
            self._require_same_file(self.path)
        except StoreOpenError:
            connection.close()
            raise
        return connection

    def _require_same_file(self, path: Path) -> None:
        found = path.stat()
        if (found.st_dev, found.st_ino) != self.identity:
            raise StoreOpenError(path, "another file has taken its place; close the store and open it again")

    def _rekey(self, db: Transaction, key: EncryptionKey, *, deadline: float) -> None:
        """No other connection of this process is open, and nobody else writes."""
        assert self.path is not None and self.key is not None  # noqa: S101, PT018 - for the type checker
        keys = (key, self.key)
        try:
            engine.be_alone(db.driver, self.path, deadline=deadline)
            engine.set_synchronous(db.driver, "full")
            encryption.change_key(db.driver, key)
        finally:
            # Closing it lets the file go. Whatever happened, the file is the judge of which key it has.
            self.writer.let_go()
            self.key = encryption.first_that_opens(self.path, keys)
            db = self.writer.reopen()
            engine.set_busy_timeout(db.driver, int(max(0.0, deadline - time.monotonic()) * 1000))
            self._choose_journal(db.driver)
            engine.set_busy_timeout(db.driver, 0)

    def _open_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        engine.make_reader(connection)
        return connection

    def _open_writer(self, options: OpenOptions, timeout: float) -> None:
        if self.path is not None:
            encryption.refuse_plain(self.path, self.key)
            self._immutable = self.read_only and self._must_be_immutable(self.path)
        self._lock = self._open_lock()
        if self.path is not None:
            self._look_beside(self.path, timeout)
        checkpointer = None if self.reserve is None else Checkpointer(self.reserve.database, self.reserve)
        self.writer = Writer(self._connect, self._lock, self.path, checkpointer)
        self.writer.exclusively(lambda db: self._establish(db, options, timeout), timeout=timeout)

    def _look_beside(self, path: Path, timeout: float) -> None:
        """Refuse a log that is another file's, and remove what killed programs left."""
        try:
            self._lock.acquire(time.monotonic() + timeout)
            if self.reserve is not None:
                self.reserve.make_way()
                conversions.remove_leftovers(path)
                restores.remove_partial(path)
            if not self._immutable:
                refuse_foreign_log(path, self.key, timeout=timeout)
            if not self.read_only and is_no_log(path):
                self._warn(f"{path}: what lies beside it as its write-ahead log is none and is ignored")
        finally:
            self._lock.release()

    def _open_lock(self) -> ProcessLock:
        if self.path is None or self.read_only:
            return NoLock()
        path = paths.sidecar(self.path, paths.LOCK_SUFFIX)
        try:
            return SidecarLock(path)
        except OSError as error:
            raise StoreOpenError(path, f"cannot be opened to lock it ({error.strerror}); whose is it?") from error

    def _must_be_immutable(self, path: Path) -> bool:
        # A log needs shared memory in the same folder. Where that cannot be made, an empty log means that nobody writes.
        return not os.access(path.parent, os.W_OK) and not paths.size_of(paths.sidecar(path, paths.WAL_SUFFIX))

    def _establish(self, db: Transaction, options: OpenOptions, timeout: float) -> None:
        """Make or check the store, while no other process writes."""
        driver = db.driver
        engine.set_busy_timeout(driver, int(timeout * 1000))
        if self.path is None:
            upgrade.create(db, self.name)
            return
        # It may have been replaced while this one waited for the lock.
        self._require_same_file(self.path)
        if upgrade.is_new(driver, self.path):
            self._found_store(db, self.path, options)
        else:
            upgrade.bring_up_to_date(db, self.path, self.key, migrate=options.migrate, writable=not self.read_only)
            self._resume(driver, self.path)
        if not self.read_only:
            engine.set_busy_timeout(driver, 0)
        if self.reserve is not None:
            self.reserve.keep()

    def _found_store(self, db: Transaction, path: Path, options: OpenOptions) -> None:
        if options.read_only or options.must_exist:
            raise NotADatabaseError(path, "is empty")
        engine.mark_as_ours(db.driver)
        self._choose_journal(db.driver)
        upgrade.create(db, path)
        self.journal_mode = engine.journal_mode(db.driver)

    def _resume(self, driver: sqlite3.Connection, path: Path) -> None:
        log_bytes = paths.size_of(paths.sidecar(path, paths.WAL_SUFFIX))
        if self.read_only:
            self.journal_mode = engine.journal_mode(driver)
            self.journal_reason = "the file is only read"
        else:
            self._choose_journal(driver)
            if log_bytes and self._copies_log(driver, path):
                log_bytes = 0
        if not log_bytes:
            self.check_size(driver)

    def _copies_log(self, driver: sqlite3.Connection, path: Path) -> bool:
        """Whether the whole log is in the database now. On a full disk it stays where it is, and can be read all the same."""
        try:
            busy, pages, copied = engine.checkpoint(driver, "PASSIVE")
        except sqlite3.OperationalError as error:
            reason = translated(error, path)
            if not isinstance(reason, DiskFullError):
                raise
            log(logging.WARNING, "checkpoint_failed", "a checkpoint failed; the next one tries again", reason=reason)
            return False
        return not busy and pages == copied

    def _choose_journal(self, driver: sqlite3.Connection) -> None:
        self.journal_mode = engine.journal_mode(driver)
        if filesystem.is_network(self.filesystem):
            if self.journal_mode != "wal":
                self.journal_mode = engine.switch_journal_mode(driver, "TRUNCATE")
            self.journal_reason = (
                f"{self.filesystem} is shared between machines, where a write-ahead log is not safe; use one process only"
            )
            self._warn(f"{self.path}: {self.journal_reason}")
            return
        if self.journal_mode != "wal":
            self.journal_mode = engine.switch_journal_mode(driver, "WAL")
        if self.journal_mode == "wal":
            self.journal_reason = _wal_reason(self.sqlite_version)
        else:
            self.journal_reason = "SQLite refused the write-ahead log here; readers and the writer wait for each other"
            self._warn(f"{self.path}: {self.journal_reason}")
        if engine.withdrawn(self.sqlite_version):
            self._warn(f"SQLite {engine.written(self.sqlite_version)} was withdrawn by its makers; update it")

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        warnings.warn(message, StoreWarning, stacklevel=2)

    def _open_error(self, error: Exception) -> Exception:
        cause = getattr(error, "orig", error)
        if self.path is None:
            return error
        if isinstance(cause, OSError) and not isinstance(cause, SessionStoreError):
            return StoreOpenError(self.path, cause.strerror or type(cause).__name__)
        if isinstance(cause, UnicodeDecodeError):
            return StoreCorruptError(self.path, "holds names that are no text; the file is kept as it is")
        if not isinstance(cause, sqlite3.Error):
            return error
        if "unsupported file format" in str(cause):
            return NotADatabaseError(self.path, "has a format that this SQLite does not know")
        mine = translated(cause, self.path)
        if isinstance(mine, NotADatabaseError):
            return encryption.explained(mine, self.path, self.key)
        if isinstance(mine, StoreIOError):
            return StoreOpenError(self.path, str(mine).removeprefix(f"{self.path}: "))
        return mine


def _wal_reason(linked: tuple[int, int, int]) -> str:
    version = engine.written(linked)
    if engine.wal_reset_affected(linked):
        return (
            f"SQLite {version} has the WAL-reset bug; commits and checkpoints take turns under one writer lock, so it cannot strike"
        )
    return f"a local file system and SQLite {version}; commits and checkpoints take turns under one writer lock"
