"""Every error that sessionstore raises, but the OSErrors of other files that a call is given (imports, exports, backups).

SessionStoreError
├── InvalidInputError (ValueError)        a refused argument: `field`, `reason`, `limit`
├── ConfigError (ValueError)              the store cannot be opened or used as configured
├── MissingExtraError (ImportError)       a feature whose extra is not installed: `extra`
├── NotFoundError (KeyError)              no such session: `session_id`
├── ConflictError                         somebody else changed or owns it: `session_id`
├── QuotaError                            a stated limit is reached: `limit`
├── SessionExpiredError                   the session's life is over: `session_id`
├── StoreOpenError (OSError)              the file cannot be opened: `path`
│   ├── NotADatabaseError                 not an SQLite file
│   ├── WrongKeyError                     encrypted with another key, or a key for a plain file, or none
│   ├── SchemaTooNewError                 written by a newer sessionstore
│   ├── ForeignDatabaseError              an SQLite file of another program
│   ├── ReadOnlyStoreError                no permission to write
│   └── UnsafePathError                   a symlink, a device, a hard link, a file of somebody else
├── BackendError (OSError)                a memory backend's server could not be asked, or refused: `backend`
├── ModelError                            a language model gave no usable answer: `status`, `retry_after`
├── SearchUnavailableError                search is off, or this SQLite has no full-text search
├── UpgradeError                          a migration failed; the file has its old schema
├── StoreCorruptError                     damaged data was found: `path`
├── StoreBusyError (TimeoutError)         another writer held the store past the deadline
├── DiskFullError (OSError)               the disk is full; nothing of the call was kept
├── StoreIOError (OSError)                the operating system failed to read or write
├── SyncError                             the remote API could not be asked: `status`
│   ├── AuthError                         it does not accept the key
│   ├── RejectedError                     it does not accept what was asked
│   ├── RedirectRefusedError              it answered with another address, where nothing is sent
│   └── ResponseError                     its answer is none of this API's
├── ForkedStoreError                      used in a forked child; open the store again there
└── ClosedStoreError                      used after close()

Messages name the field, the limit or the file and say what to do; they never hold a message's text, a key or a refused value.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, fspath
from typing import Any


class SessionStoreError(Exception):
    """The root of every error of this library."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Errors cross process pools; their constructors take facts, not the finished message.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[SessionStoreError], args: tuple[Any, ...], facts: dict[str, Any]) -> SessionStoreError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class InvalidInputError(SessionStoreError, ValueError):
    """An argument was refused before anything was written.

    Attributes:
        field: Which argument, with a path for nested values (`metadata.items[3]`).
        reason: What is wrong with it.
        limit: The limit that it exceeds, or None.
    """

    def __init__(self, field: str, reason: str, *, limit: int | float | None = None) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.limit = limit


class ConfigError(SessionStoreError, ValueError):
    """The store cannot be opened or used as it is configured."""


class MissingExtraError(SessionStoreError, ImportError):
    """A feature needs packages that are not installed; `extra` names the extra that brings them."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs the extra "{extra}": pip install "sessionstore[{extra}]"')
        self.extra = extra


class _SessionError(SessionStoreError):
    """An error about one session, named by `session_id`."""

    def __init__(self, session_id: str, message: str) -> None:
        super().__init__(message)
        self.session_id = session_id


class NotFoundError(_SessionError, KeyError):
    """There is no live session of this name."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, f"there is no session {session_id!r}; session() or create() makes one")

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return str(self.args[0])


class ConflictError(_SessionError):
    """The call contradicts what is stored: a name that is taken, an outdated version, a reused dedupe key."""


class SessionExpiredError(_SessionError):
    """The session has expired and takes no more writes."""

    def __init__(self, session_id: str) -> None:
        super().__init__(session_id, f"session {session_id!r} has expired; session() begins a new one of that id")


class QuotaError(SessionStoreError):
    """A stated limit is reached; `limit` tells which number."""

    def __init__(self, message: str, *, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class _FileError(SessionStoreError):
    """An error about one database file, named by `path`."""

    def __init__(self, path: str | PathLike[str], message: str) -> None:
        super().__init__(f"{fspath(path)}: {message}")
        self.path = fspath(path)


class StoreOpenError(_FileError, OSError):
    """The file cannot be opened as a store."""


class NotADatabaseError(StoreOpenError):
    """The file is not an SQLite database."""


class WrongKeyError(StoreOpenError):
    """The key does not fit the file: it has another one, or no key was given for it, or one was and the file is plain."""


class SchemaTooNewError(StoreOpenError):
    """The file was written by a newer version; it was not touched."""


class ForeignDatabaseError(StoreOpenError):
    """The file is an SQLite database of another program; it was not touched."""


class ReadOnlyStoreError(StoreOpenError):
    """The file or its folder cannot be written."""


class UnsafePathError(StoreOpenError):
    """The path leads to something that should not be opened as a database file."""


class UpgradeError(_FileError):
    """A schema upgrade failed; the file has its old schema and the next open tries again."""


class StoreCorruptError(_FileError):
    """Damaged data was found. The file is kept as it is; `sessionstore doctor` tells more."""


class StoreBusyError(_FileError, TimeoutError):
    """Another thread, process or program held the write lock longer than the store's `busy_timeout`."""


class DiskFullError(_FileError, OSError):
    """The disk is full; the transaction was rolled back."""


class StoreIOError(_FileError, OSError):
    """The operating system failed to read or write the file; the transaction was rolled back."""


class BackendError(SessionStoreError, OSError):
    """The server of a memory backend could not be asked, or refused what it was asked; `backend` names its kind."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"{backend}: {reason}")
        self.backend = backend


class SyncError(SessionStoreError):
    """The remote API could not be asked; `status` is the HTTP status of its answer, if there was one."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AuthError(SyncError):
    """The remote does not accept the API key, or there is none."""


class RejectedError(SyncError):
    """The remote does not accept what it was asked."""


class RedirectRefusedError(SyncError):
    """The remote answered with another address. Nothing is sent there: set the right base_url."""


class ResponseError(SyncError):
    """The remote's answer is none that this API has."""


class ModelError(SessionStoreError):
    """A language model could not be asked, or what it answered cannot be used. Nothing of the turn was stored.

    Attributes:
        status: The HTTP status of its answer, if there was one.
        retry_after: Seconds after which it asked to be tried again, if it did.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class SearchUnavailableError(SessionStoreError):
    """Nothing can be searched: search is off, or this SQLite was built without full-text search."""


class ForkedStoreError(SessionStoreError):
    """A store was used in a forked child; SQLite connections do not survive a fork. Open it again in the child."""

    def __init__(self, message: str = "this store was opened before a fork; open it again in the child process") -> None:
        super().__init__(message)


class ClosedStoreError(SessionStoreError):
    """A store was used after it was closed."""

    def __init__(self, message: str = "this store is closed; sessionstore.open() gives a new one") -> None:
        super().__init__(message)


class UnsafePermissionsWarning(UserWarning):
    """The database file or its folder can be written by other users."""


class StoreWarning(UserWarning):
    """The store works, but with less than its usual guarantees."""
