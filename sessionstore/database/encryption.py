"""Encrypted files: the connections to them, and what is wrong with one that does not open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from ..errors import ConfigError, MissingExtraError, NotADatabaseError, SessionStoreError, StoreCorruptError, WrongKeyError
from ..keys import EncryptionKey

if TYPE_CHECKING:
    from types import ModuleType

EXTRA: Final = "encryption"
_FEATURE: Final = "an encrypted store"
HEADER: Final = b"SQLite format 3\0"
_LOOKED_AT: Final = 9
_DISTINCT_BYTES: Final = 200

_NO_KEY: Final = "is encrypted; give its key: key=..., --key-file, or the environment variable SESSIONSTORE_KEY"
_PLAIN: Final = (
    "is not encrypted, and a key was given (key=..., --key-file, or SESSIONSTORE_KEY); encrypt it with: sessionstore encrypt, or "
    "give none (key=None)"
)
_WRONG: Final = "is encrypted with another key than the one given (or its first bytes are damaged)"
_DAMAGED: Final = "the key is right, and its first page is damaged; it is kept as it is. Copy it away, then restore a backup"
_OTHER_KEY: Final = "is open in this process with another key"


def require_driver() -> None:
    """Refuse to go on without SQLCipher, rather than to make a plain file.

    Raises:
        MissingExtraError: It is not installed.
    """
    _driver()


def linked_version() -> tuple[int, int, int]:
    """The SQLite that SQLCipher is."""
    return cast("tuple[int, int, int]", _driver().VERSION)


def connect(database: str, key: EncryptionKey, *, uri: bool = False) -> sqlite3.Connection:
    """A connection to an encrypted file, or to one that will be. A wrong key shows at the first read."""
    driver = _driver()
    connection: sqlite3.Connection = driver.connect(database, isolation_level=None, check_same_thread=False, uri=uri)
    try:
        # First of all: SQLCipher would tell stderr about every page that it cannot read.
        connection.execute("PRAGMA cipher_log_level=NONE").fetchall()
        _require_cipher(connection)
        driver.unlock(connection, key)
        # What later versions do by default must not make other files than this one can read.
        connection.execute("PRAGMA cipher_compatibility=4").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _require_cipher(connection: sqlite3.Connection) -> None:
    if not connection.execute("PRAGMA cipher_version").fetchall():
        raise ConfigError("the installed sqlcipher3 was built without SQLCipher; a file would not be encrypted")


def change_key(connection: sqlite3.Connection, key: EncryptionKey) -> None:
    """Encrypt every page with another key, in one transaction, and look at all of them afterwards.

    Raises:
        sqlite3.Error: It failed.
    """
    _driver().change_key(connection, key)
    damaged = damaged_pages(connection)
    if damaged:
        raise sqlite3.DatabaseError(f"{damaged} pages do not match the new key")


def damaged_pages(connection: sqlite3.Connection) -> int:
    """How many pages of the file are not what was encrypted, also among those that hold nothing."""
    return len(connection.execute("PRAGMA cipher_integrity_check").fetchall())


def opens(connection: sqlite3.Connection) -> bool:
    """Whether the key of a connection is right."""
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_NOTADB:
            raise
        return False
    return True


def first_that_opens(path: Path, keys: Sequence[EncryptionKey]) -> EncryptionKey:
    """The first of these keys that opens a file, or the last one. The writer lock is held."""
    for key in keys[:-1]:
        with closing(connect(str(path), key)) as connection:
            if opens(connection):
                return key
    return keys[-1]


def refuse_plain(path: Path, key: EncryptionKey | None) -> None:
    """Make sure that a file is not a plain database. Before the first connection of this process to it only.

    Raises:
        WrongKeyError: It is one, and a key was given.
    """
    if key is not None and _first_bytes(path, len(HEADER)) == HEADER:
        raise WrongKeyError(path, _PLAIN)


def is_plain(path: Path) -> bool:
    """Whether a file is a plain database. Before the first connection of this process to it only."""
    return _first_bytes(path, len(HEADER)) == HEADER


def refuse_other_key(path: Path, key: EncryptionKey | None, given: EncryptionKey | None) -> None:
    """Make sure that a second store in this process comes with the key that the first one had.

    Raises:
        WrongKeyError: It does not.
    """
    if key != given:
        raise WrongKeyError(path, _NO_KEY if given is None else _PLAIN if key is None else _OTHER_KEY)


def is_foreign_log(path: Path, log: Path, key: EncryptionKey) -> bool:
    """Whether the log beside an encrypted file is another file's. Before the first connection of this process to it only."""
    from . import cipher_pages

    start = _first_bytes(log, cipher_pages.FIRST_FRAME)
    return cipher_pages.is_foreign_log(start, _first_bytes(path, cipher_pages.PAGE * _LOOKED_AT), key)


def why_unreadable(path: Path, key: EncryptionKey | None) -> SessionStoreError | None:
    """What is wrong with a file that SQLite takes for no database, None if it is just that.

    Reading it is safe here only: SQLite has just refused it, so no connection of this process holds locks on it.
    """
    from . import cipher_pages

    first = _first_bytes(path, cipher_pages.PAGE * _LOOKED_AT)
    if first.startswith(HEADER):
        return None if key is None else WrongKeyError(path, _PLAIN)
    if len(first) < cipher_pages.PAGE or len(set(first[: cipher_pages.PAGE])) < _DISTINCT_BYTES:
        return None
    if key is None:
        return WrongKeyError(path, _NO_KEY)
    if cipher_pages.any_own(first, key):
        return StoreCorruptError(path, _DAMAGED)
    return WrongKeyError(path, _WRONG)


def explained(error: NotADatabaseError, path: Path, key: EncryptionKey | None) -> SessionStoreError:
    """The error that says more about a file that is no database, or that error."""
    return why_unreadable(path, key) or error


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _driver() -> ModuleType:
    try:
        from . import cipher_driver
    except ImportError as error:
        if error.name not in ("sqlcipher3", "sqlcipher3.dbapi2", "sqlcipher3._sqlite3"):
            raise
        raise MissingExtraError(_FEATURE, EXTRA) from None
    return cipher_driver
