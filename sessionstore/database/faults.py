"""The one place where errors of the database driver become this library's own."""

from __future__ import annotations

import errno
import sqlite3
from os import PathLike
from typing import Final

from ..errors import (
    DiskFullError,
    NotADatabaseError,
    ReadOnlyStoreError,
    SessionStoreError,
    StoreBusyError,
    StoreCorruptError,
    StoreIOError,
    StoreOpenError,
)

_PRIMARY: Final = 0xFF
_UNDECODABLE: Final = "Could not decode to UTF-8"
# SQLCipher passes on what failed in its export, a backup or a change of key in these words, without the code.
_TOLD: Final = {
    "database or disk is full": sqlite3.SQLITE_FULL,
    "disk I/O error": sqlite3.SQLITE_IOERR,
    "database is locked": sqlite3.SQLITE_BUSY,
    "database disk image is malformed": sqlite3.SQLITE_CORRUPT,
    # Of a row: this library stores only JSON that is well formed.
    "malformed JSON": sqlite3.SQLITE_CORRUPT,
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection's lock is the reason, so that a retry may succeed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room on the disk, or no more pages are allowed."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_storage_failure(error: Exception) -> bool:
    """Whether the operating system failed, so that nobody knows what reached the disk."""
    cause = getattr(error, "orig", error)
    return isinstance(cause, sqlite3.Error) and _code(cause) == sqlite3.SQLITE_IOERR


def translated(error: sqlite3.Error, path: str | PathLike[str]) -> SessionStoreError:
    """The error of this library that says what a driver error means."""
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusyError(path, "another program held a lock on the file past the busy_timeout; try again")
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(path, "the disk is full; free some space, or delete what is not needed, and try again")
    if code == sqlite3.SQLITE_IOERR:
        return _input_output(error, path)
    if code == sqlite3.SQLITE_NOTADB:
        return NotADatabaseError(path, "is not an SQLite database")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreOpenError(path, f"SQLite cannot open it ({_name(error)})")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ReadOnlyStoreError(path, f"cannot be written ({_name(error)})")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_SCHEMA) or _UNDECODABLE in str(error):
        return StoreCorruptError(path, f"is damaged ({_name(error)}); it is kept as it is. Copy it away, then restore a backup")
    if isinstance(error, sqlite3.IntegrityError):
        return StoreCorruptError(path, f"a constraint of the schema failed ({_name(error)}); was it changed by another program?")
    return StoreIOError(path, f"SQLite failed: {error} ({_name(error)})")


def interrupt_behind(error: BaseException, *, handled: BaseException | None) -> BaseException | None:
    """The interrupt (Ctrl-C, the end of the program) after which an error came up while things were undone, None if there was none.

    Args:
        error: What was raised in the end.
        handled: What the caller was handling when it began; that is no matter of ours.
    """
    found: BaseException | None = error
    while found is not None and found is not handled:
        if not isinstance(found, Exception):
            return found
        found = found.__context__
    return None


def _input_output(error: sqlite3.Error, path: str | PathLike[str]) -> SessionStoreError:
    # SQLite reports a file size limit as a failed write; only the operating system's last error could tell more.
    if _name(error) == "SQLITE_IOERR_CORRUPTFS":
        return StoreCorruptError(path, "the file system reports damage (SQLITE_IOERR_CORRUPTFS)")
    failure = StoreIOError(path, f"the operating system failed to read or write it ({_name(error)})")
    failure.errno = errno.EIO
    return failure


def _code(error: sqlite3.Error) -> int:
    # Errors of the Python module itself (wrong use, undecodable text) have no code.
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_ERROR:
        return _TOLD.get(str(error), -1 if code is None else code)
    return int(code & _PRIMARY)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)
