"""The open databases of this process: one for each file, closed at its end, and out of the way of forks."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..config import OpenOptions
from ..errors import ConfigError, ForkedStoreError, SessionStoreError, StoreBusyError
from ..keys import EncryptionKey
from ..logs import log
from . import encryption, engine, upgrade
from .database import Database
from .paths import SIDECAR_SUFFIXES, FileIdentity, PreparedFile, sidecar

_EXIT_TIMEOUT: Final = 1.0
_FORK_TIMEOUT: Final = 2.0
_INHERITED: Final = "this process was forked while its parent was in a long call on the same file; start it with spawn"


class _Registry:
    """What is open, and what is about to be."""

    def __init__(self) -> None:
        self.files: dict[FileIdentity, Database] = {}
        self.in_memory: set[Database] = set()
        self.inherited: set[FileIdentity] = set()
        self.paused: list[Database] = []
        self.held: list[threading.RLock] = []
        self._turns: dict[FileIdentity, threading.RLock] = {}

    def turn(self, identity: FileIdentity) -> threading.RLock:
        """The lock under which one file is opened and closed; whoever is interrupted while holding it can take it again."""
        return self._turns.setdefault(identity, threading.RLock())

    def turns(self) -> list[threading.RLock]:
        """The locks of all files that were ever open."""
        return list(self._turns.values())

    def all(self) -> list[Database]:
        """Every open database."""
        return [*self.files.values(), *self.in_memory]


_registry = _Registry()


def acquire(
    file: PreparedFile, options: OpenOptions, user: object, *, key: EncryptionKey | None = None, timeout: float
) -> Database:
    """The open database of a file, for a new user: the one that this process has already, or a new one.

    Raises:
        ConfigError: It is open for reading only, and now for writing.
        ForkedStoreError: This process was forked while a call on the file was running.
        WrongKeyError: It is open with another key, or needs another one.
        StoreOpenError: It cannot be opened.
    """
    _watch_process()
    if file.identity in _registry.inherited:
        raise ForkedStoreError(_INHERITED)
    with _registry.turn(file.identity):
        before = shared = _registry.files.get(file.identity)
        if shared is not None and not shared.users:
            # Its last store could not close it, because another process held the lock, or it was interrupted there or in opening.
            shared.close(timeout=timeout)
            shared = None
        if shared is None:
            # Known before it is opened, so that what an interrupt leaves of it can be closed.
            shared = _registry.files[file.identity] = Database(file, options, key=key)
            try:
                shared.connect(options, timeout=timeout)
            finally:
                if shared.is_closed:
                    _forget(shared, file.identity)
        else:
            encryption.refuse_other_key(file.path, shared.key, key)
        if shared.read_only and not options.read_only:
            raise ConfigError(f"{file.path}: is open with read_only=True in this process; close that store first")
        shared.users.add(user)
    # Not under the lock: what a program does with its logs may open a store.
    if shared is not before:
        _tell_opened(shared)
    return shared


def open_in_memory(user: object, *, timeout: float) -> Database:
    """A new database that lives as long as its store."""
    _watch_process()
    database = Database(None, OpenOptions())
    database.connect(OpenOptions(), timeout=timeout)
    database.users.add(user)
    _registry.in_memory.add(database)
    _tell_opened(database)
    return database


def release(database: Database, user: object, *, timeout: float) -> None:
    """Close a database if nobody else in this process uses it. After an interrupt a second call goes on."""
    identity = database.identity
    if identity is None:
        _registry.in_memory.discard(database)
        database.close(timeout=timeout)
    elif not _leave(database, identity, user, timeout):
        return
    log(logging.DEBUG, "store_closed", "a store was closed", path=database.name, commits=database.writer.commits)


def withdraw(user: object, *, timeout: float) -> None:
    """Release what was opened for a user before something went wrong; it may be nothing."""
    for database in _registry.all():
        if user in database.users:
            release(database, user, timeout=timeout)


def _leave(database: Database, identity: FileIdentity, user: object, timeout: float) -> bool:
    """One user less; whether it was the last one, so that the database is closed now."""
    with _registry.turn(identity):
        database.users.discard(user)
        if database.users:
            return False
        database.close(timeout=timeout)
        _forget(database, identity)
        return True


def _forget(database: Database, identity: FileIdentity) -> None:
    if _registry.files.get(identity) is database:
        del _registry.files[identity]


def _tell_opened(database: Database) -> None:
    log(
        logging.DEBUG,
        "store_opened",
        "a store was opened",
        path=database.name,
        journal_mode=database.journal_mode,
        read_only=database.read_only,
        sqlite_version=engine.written(database.sqlite_version),
        encrypted=database.key is not None,
    )


@contextmanager
def kept_closed(path: Path, identity: FileIdentity | None) -> Iterator[None]:
    """Within it no store of this process opens a file; None if there is none yet.

    Raises:
        StoreBusyError: One has it open.
        ForkedStoreError: This process was forked while a call on the file was running.
    """
    if identity is None:
        yield
        return
    if identity in _registry.inherited:
        raise ForkedStoreError(_INHERITED)
    with _registry.turn(identity):
        database = _registry.files.get(identity)
        if database is not None and not database.users:
            # An interrupt may have kept it from being closed.
            with suppress(StoreBusyError):
                database.close(timeout=0)
                _forget(database, identity)
        if identity in _registry.files:
            raise StoreBusyError(path, "a store of this process has it open; close it first")
        yield


def is_open(path: Path) -> bool:
    """Whether a file is the database, or what stands beside it, of a store that this process has open."""
    try:
        beside = path.resolve()
    except OSError:
        beside = path
    open_paths = [database.path for database in _registry.all() if database.path is not None]
    if any(beside in (each, *(sidecar(each, suffix) for suffix in SIDECAR_SUFFIXES)) for each in open_paths):
        return True
    try:
        found = path.stat()
    except OSError:
        return False
    return FileIdentity(found.st_dev, found.st_ino) in _registry.files


@functools.cache
def _watch_process() -> None:
    """Be told of forks and of the end of the program, from the first open on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
    atexit.register(_close_at_exit)


def _before_fork() -> None:
    deadline = time.monotonic() + _FORK_TIMEOUT
    _registry.held = [turn for turn in _registry.turns() if turn.acquire(timeout=max(0.0, deadline - time.monotonic()))]
    _registry.paused = [
        database for database in list(_registry.files.values()) if database.pause(timeout=max(0.0, deadline - time.monotonic()))
    ]


def _after_fork_in_parent() -> None:
    for database in _registry.paused:
        database.resume()
    for turn in _registry.held:
        turn.release()
    _registry.paused, _registry.held = [], []


def _after_fork_in_child() -> None:
    paused, inherited = _registry.paused, _registry.all()
    # A thread of the parent may have held one of the locks: begin anew.
    _registry.__init__()  # type: ignore[misc]
    upgrade.begin_anew_after_fork()
    for database in inherited:
        database.abandon()
        if database not in paused:
            _registry.inherited.update(() if database.identity is None else (database.identity,))
            _keep_for_ever(database)


def _keep_for_ever(database: Database) -> None:
    """Closing an inherited connection would disturb the parent's, so what holds it must survive the end of the interpreter."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))


def _close_at_exit() -> None:
    for database in _registry.all():
        if database.is_opening:
            continue
        try:
            database.close(timeout=_EXIT_TIMEOUT)
        except SessionStoreError:
            # What was acknowledged is on disk; somebody else is busy, and the program wants to end.
            continue
