"""The driver's connections to a file: how they are made and closed, one named function for each setting."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ..errors import ConfigError, StoreBusyError
from ..keys import EncryptionKey
from . import encryption
from .faults import is_busy
from .locks import pause

APPLICATION_ID: Final = 0x53535452  # "SSTR"
JOURNAL_SIZE_LIMIT: Final = 16 << 20
READER_BUSY_TIMEOUT_MS: Final = 5_000
OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING

# SQLite's own default before 3.45; with pages of 4 KiB these are 4 TiB.
MOST_PAGES: Final = 0x3FFFFFFF

SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}


def wal_reset_affected(version: tuple[int, int, int]) -> bool:
    """Whether an SQLite can lose or damage a log when a commit overlaps a checkpoint (3.7.0 to 3.51.2, fixed in 3.44.6, 3.50.7)."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return version >= (3, 7, 0) and not fixed


def withdrawn(version: tuple[int, int, int]) -> bool:
    """Whether this release of SQLite was taken back by its makers."""
    return version == (3, 52, 0)


def linked_version() -> tuple[int, int, int]:
    """The SQLite that this Python really runs, whatever its packages say."""
    return sqlite3.sqlite_version_info


def written(version: tuple[int, int, int]) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def require_usable_sqlite() -> None:
    """Refuse an SQLite without the statements this library uses.

    Raises:
        ConfigError: It is older than 3.35.
    """
    if linked_version() < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigError(f"this Python links SQLite {sqlite3.sqlite_version}; at least {oldest} is needed")


def close(connection: sqlite3.Connection) -> None:
    """Close a connection, and roll back what is open on it; a second close does nothing."""
    # After an interrupt cursors may live on in its traceback, and SQLite keeps the locks of a closed connection until they end.
    try:
        with suppress(sqlite3.ProgrammingError):
            # It may be closed already.
            if connection.in_transaction:
                connection.rollback()
    finally:
        connection.close()


def connect_file(path: Path, key: EncryptionKey | None = None) -> sqlite3.Connection:
    """A connection to a file that is there and that this process may write."""
    connection = _connect(_url(path, "mode=rw"), key, uri=True)
    set_busy_timeout(connection, READER_BUSY_TIMEOUT_MS)
    _set_safety(connection)
    _set_journal_limits(connection)
    return connection


def connect_read_only(path: Path, key: EncryptionKey | None = None, *, immutable: bool) -> sqlite3.Connection:
    """A connection to a file that must not be written; `immutable` when its folder cannot hold SQLite's shared memory."""
    options = "mode=ro&immutable=1" if immutable else "mode=ro"
    connection = _connect(_url(path, options), key, uri=True)
    set_busy_timeout(connection, READER_BUSY_TIMEOUT_MS)
    _set_safety(connection)
    return connection


def connect_copy(path: Path, key: EncryptionKey | None = None) -> sqlite3.Connection:
    """A connection that fills a new file. Nobody opens it before it is whole, so it needs no journal."""
    connection = _connect(_url(path, "mode=rw"), key, uri=True)
    connection.execute("PRAGMA journal_mode=OFF").fetchall()
    connection.execute("PRAGMA fullfsync=ON").fetchall()
    return connection


def _url(path: Path, options: str) -> str:
    # As the bytes that the name has: a folder on the way may have one that is no text.
    return f"file:{quote(os.fsencode(path))}?{options}"


def connect_memory() -> sqlite3.Connection:
    """The only connection of a store in memory."""
    connection = _connect(":memory:")
    _set_safety(connection)
    return connection


def make_reader(connection: sqlite3.Connection) -> None:
    """Refuse writes."""
    connection.execute("PRAGMA query_only=ON").fetchall()


def set_synchronous(connection: sqlite3.Connection, durability: str) -> None:
    """How much of a commit reaches the disk before it returns; only outside of a transaction."""
    connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[durability]}").fetchall()


def journal_mode(connection: sqlite3.Connection) -> str:
    """The journal mode that is really in force."""
    return str(pragma(connection, "journal_mode"))


def switch_journal_mode(connection: sqlite3.Connection, mode: str) -> str:
    """Ask for a journal mode and return the one in force afterwards: a refusal is silent."""
    # All rows are fetched: an error of the switch can hide behind the first one.
    connection.execute(f"PRAGMA journal_mode={mode}").fetchall()
    return journal_mode(connection)


def be_alone(connection: sqlite3.Connection, path: Path, *, schema: str = "main", deadline: float) -> None:
    """Take the log into the file and lock it until this connection closes; the writer lock is held.

    Raises:
        StoreBusyError: Another connection lives past the deadline.
    """
    set_busy_timeout(connection, 0)
    connection.execute(f"PRAGMA {schema}.locking_mode=EXCLUSIVE").fetchall()
    while not _is_alone(connection, schema):
        if time.monotonic() >= deadline:
            raise StoreBusyError(path, "another program has it open; let it end, then try again. Nothing was changed")
        pause()


def _is_alone(connection: sqlite3.Connection, schema: str) -> bool:
    try:
        # SQLite leaves the write-ahead log only if no other connection has the file open.
        if connection.execute(f"PRAGMA {schema}.journal_mode=DELETE").fetchall()[0][0] not in ("delete", b"delete"):
            return False
        # The first write takes the lock for good. BEGIN EXCLUSIVE would lock, and journal, every attached file.
        version = int(pragma(connection, f"{schema}.user_version"))
        connection.execute(f"PRAGMA {schema}.user_version={version}").fetchall()
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise
        return False
    return True


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """The value of a setting."""
    value = connection.execute(f"PRAGMA {name}").fetchall()[0][0]
    # SQLCipher tells the page size as text.
    return int(value) if isinstance(value, str) and value.isdigit() else value


def mark_as_ours(connection: sqlite3.Connection) -> None:
    """Settings that a new file keeps for ever; before its first table."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL").fetchall()
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}").fetchall()


def limit_pages(connection: sqlite3.Connection, most: int) -> None:
    """Let a connection add no page beyond so many, or beyond those that there are if these are more."""
    connection.execute(f"PRAGMA max_page_count={most}").fetchall()


def checkpoint(connection: sqlite3.Connection, mode: str) -> tuple[int, int, int]:
    """Copy the log into the database: (1 if a reader or writer was in the way, pages in the log, pages copied)."""
    busy, pages, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()[0]
    return busy, pages, copied


def _connect(database: str, key: EncryptionKey | None = None, *, uri: bool = False) -> sqlite3.Connection:
    if key is not None:
        connection = encryption.connect(database, key, uri=uri)
    else:
        # Without isolation_level the driver begins no transactions of its own, so DDL is transactional, too.
        connection = sqlite3.connect(database, isolation_level=None, check_same_thread=False, uri=uri)
    # SQLite has the operator REGEXP, for users' own SQL, and leaves its meaning to programs.
    connection.create_function("regexp", 2, _matches, deterministic=True)
    return connection


def _matches(pattern: str, text: str | None) -> bool | None:
    return None if text is None else re.search(pattern, text) is not None


def set_busy_timeout(connection: sqlite3.Connection, milliseconds: int) -> None:
    """How long SQLite itself waits for a lock; 0 for the writer, which retries to its own deadline."""
    connection.execute(f"PRAGMA busy_timeout={milliseconds}").fetchall()


def _set_safety(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA foreign_keys=ON").fetchall()
    if pragma(connection, "foreign_keys") != 1:
        raise ConfigError("this SQLite was built without foreign keys")
    # Deleted text must not stay in free pages; builds differ in their default.
    connection.execute("PRAGMA secure_delete=ON").fetchall()
    connection.execute("PRAGMA cell_size_check=ON").fetchall()
    connection.execute("PRAGMA temp_store=MEMORY").fetchall()
    # A mapped file turns a read error into a crash of the process.
    connection.execute("PRAGMA mmap_size=0").fetchall()


def _set_journal_limits(connection: sqlite3.Connection) -> None:
    # Checkpoints happen under the writer lock only, when the writer says so.
    connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
    connection.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}").fetchall()
    # On macOS a plain fsync stops at the drive's cache; elsewhere these do nothing.
    connection.execute("PRAGMA fullfsync=ON").fetchall()
    connection.execute("PRAGMA checkpoint_fullfsync=ON").fetchall()
