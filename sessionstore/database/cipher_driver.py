"""SQLCipher as a driver whose errors are those of `sqlite3`, so that the rest of the library knows one driver only.

Needs the extra `encryption`; loaded when the first key is given.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from sqlcipher3 import dbapi2

from ..keys import EncryptionKey

P = ParamSpec("P")
T = TypeVar("T")

VERSION: tuple[int, int, int] = dbapi2.sqlite_version_info


def _in_words_of_sqlite3(error: Any) -> sqlite3.Error | sqlite3.Warning:
    """The error of `sqlite3` that has the same name, message and code."""
    same: sqlite3.Error | sqlite3.Warning = getattr(sqlite3, type(error).__name__)(*error.args)
    for fact in ("sqlite_errorcode", "sqlite_errorname"):
        if hasattr(error, fact):
            setattr(same, fact, getattr(error, fact))
    return same


def _translating(method: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(method, updated=())
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (dbapi2.Error, dbapi2.Warning) as error:
            translated = _in_words_of_sqlite3(error)
        # Not inside of the handler: one error is enough.
        raise translated

    return call


class CipherCursor(dbapi2.Cursor):  # type: ignore[misc]
    """A cursor that raises the errors of `sqlite3`."""

    execute = _translating(dbapi2.Cursor.execute)
    executemany = _translating(dbapi2.Cursor.executemany)
    executescript = _translating(dbapi2.Cursor.executescript)
    fetchone = _translating(dbapi2.Cursor.fetchone)
    fetchmany = _translating(dbapi2.Cursor.fetchmany)
    fetchall = _translating(dbapi2.Cursor.fetchall)
    close = _translating(dbapi2.Cursor.close)
    __next__ = _translating(dbapi2.Cursor.__next__)


class CipherConnection(dbapi2.Connection):  # type: ignore[misc]
    """A connection that raises the errors of `sqlite3`. Its own `execute` and the like go by its cursors."""

    commit = _translating(dbapi2.Connection.commit)
    rollback = _translating(dbapi2.Connection.rollback)
    close = _translating(dbapi2.Connection.close)
    backup = _translating(dbapi2.Connection.backup)
    create_function = _translating(dbapi2.Connection.create_function)
    in_transaction = property(_translating(dbapi2.Connection.in_transaction.__get__))

    def cursor(self, factory: type[CipherCursor] = CipherCursor) -> Any:
        """A cursor of this module's."""
        return super().cursor(factory)


connect = _translating(functools.partial(dbapi2.connect, factory=CipherConnection))


def unlock(connection: CipherConnection, key: EncryptionKey) -> None:
    """Give a new connection its key: not by SQL, which could be traced, and not in a variable, which a traceback would show."""
    _must(connection.set_key, key)


def change_key(connection: CipherConnection, key: EncryptionKey) -> None:
    """Encrypt all pages anew, in a transaction of its own."""
    _must(connection.reset_key, key)


def _must(setter: Callable[[str], object], key: EncryptionKey) -> None:
    try:
        setter(key.reveal())
    except (dbapi2.Error, dbapi2.Warning) as error:
        translated = _in_words_of_sqlite3(error)
    else:
        return
    raise translated
