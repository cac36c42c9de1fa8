"""A plain file made encrypted, or the other way: copied, compared row by row, and then put in the place of the old one.

The old file stays what it is until the new one is whole and on the disk. What a killed conversion leaves is removed by the next
open; until then a half-made plain copy lies beside the file, for its owner only.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import ConfigError, ForeignDatabaseError, SessionStoreError, StoreCorruptError, WrongKeyError
from ..keys import EncryptionKey
from . import encryption, engine, paths, restores, sidecars, upgrade
from .faults import translated
from .locks import SidecarLock

PARTIAL_SUFFIX: Final = ".converting"
_BESIDE: Final = (paths.WAL_SUFFIX, paths.SHM_SUFFIX, paths.JOURNAL_SUFFIX)
_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM {}.sqlite_master ORDER BY type, name"
_TABLES: Final = (
    "SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage > 0 "
    # Keys of deleted rows are not given again, which sqlite_sequence is for.
    "AND (name = 'sqlite_sequence' OR name NOT LIKE 'sqlite#_%' ESCAPE '#')"
)
_TOTALS: Final = "SELECT count(*), coalesce(sum(message_count), 0) FROM sessions"


class Converted(NamedTuple):
    """What was converted: how many sessions and messages."""

    sessions: int
    messages: int


def remove_leftovers(path: Path) -> None:
    """Remove what a killed conversion left. The writer lock is held."""
    partial = paths.sidecar(path, PARTIAL_SUFFIX)
    for suffix in ("", paths.JOURNAL_SUFFIX):
        paths.sidecar(partial, suffix).unlink(missing_ok=True)


def encrypt(path: Path, key: EncryptionKey, *, timeout: float) -> Converted:
    """Encrypt a plain file. No store of this process has it open.

    Raises:
        ConfigError: It is encrypted already.
        StoreBusyError: Another process has it open; nothing was changed.
        ForeignDatabaseError: It is no store's.
        StoreCorruptError: It is damaged; nothing was changed.
    """
    with _locked(path, timeout) as deadline:
        if not encryption.is_plain(path):
            raise ConfigError(f"{path}: is no plain database; is it encrypted already? sessionstore rekey changes a key")
        _refuse_strange_log(path, None, timeout)
        partial = paths.sidecar(path, PARTIAL_SUFFIX)
        paths.create_private(partial)
        # SQLCipher opens the plain file, too: two SQLites in one process would drop each other's locks.
        with _removed_on_failure(path), closing(_connect(partial, key)) as driver:
            driver.execute("ATTACH ? AS old KEY ''", (str(path),)).fetchall()
            converted = _convert(driver, path, old="old", new="main", deadline=deadline)
        _take_place(partial, path)
        return converted


def decrypt(path: Path, key: EncryptionKey, *, timeout: float) -> Converted:
    """Make a plain file of an encrypted one. No store of this process has it open.

    Raises:
        WrongKeyError: The key is wrong, or the file is plain already.
        StoreBusyError: Another process has it open; nothing was changed.
        ForeignDatabaseError: It is no store's.
        StoreCorruptError: It is damaged; nothing was changed.
    """
    with _locked(path, timeout) as deadline:
        if encryption.is_plain(path):
            raise WrongKeyError(path, "is not encrypted")
        _refuse_strange_log(path, key, timeout)
        partial = paths.sidecar(path, PARTIAL_SUFFIX)
        paths.create_private(partial)
        with _removed_on_failure(path), closing(_connect(path, key)) as driver:
            _require_right_key(driver, path, key)
            driver.execute("ATTACH ? AS new KEY ''", (str(partial),)).fetchall()
            converted = _convert(driver, path, old="main", new="new", deadline=deadline)
        _take_place(partial, path)
        return converted


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[float]:
    """The lock under which every store opens, writes and closes the file."""
    lock = SidecarLock(paths.sidecar(path, paths.LOCK_SUFFIX))
    deadline = time.monotonic() + timeout
    try:
        lock.acquire(deadline)
        try:
            remove_leftovers(path)
            yield deadline
        except BaseException as error:
            if isinstance(error, ForeignDatabaseError):
                lock.remove_if_new()
            raise
        finally:
            lock.release()
    finally:
        lock.close()


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    """Errors come as this library's, and leave no half-made copy."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        remove_leftovers(path)
        if isinstance(error, UnicodeDecodeError):
            raise StoreCorruptError(path, "holds names that are no text; the file is kept as it is") from error
        raise translated(error, path) from error
    except BaseException:
        remove_leftovers(path)
        raise


def _refuse_strange_log(path: Path, key: EncryptionKey | None, timeout: float) -> None:
    if sidecars.is_no_log(path):
        raise ForeignDatabaseError(paths.sidecar(path, paths.WAL_SUFFIX), "is no log of the database; move it away")
    sidecars.refuse_foreign_log(path, key, timeout=timeout)


def _connect(path: Path, key: EncryptionKey) -> sqlite3.Connection:
    connection = encryption.connect(str(path), key)
    # Rows are compared as they are stored; what is no UTF-8 is not for this to judge.
    connection.text_factory = bytes
    for name, value in (("temp_store", "MEMORY"), ("secure_delete", "ON"), ("fullfsync", "ON"), ("cell_size_check", "ON")):
        connection.execute(f"PRAGMA {name}={value}").fetchall()
    return connection


def _require_right_key(driver: sqlite3.Connection, path: Path, key: EncryptionKey) -> None:
    if encryption.opens(driver):
        return
    driver.close()
    problem: SessionStoreError | None = encryption.why_unreadable(path, key)
    raise problem or WrongKeyError(path, "is no database that this key opens")


def _convert(driver: sqlite3.Connection, path: Path, *, old: str, new: str, deadline: float) -> Converted:
    if engine.pragma(driver, f"{old}.application_id") != engine.APPLICATION_ID:
        raise ForeignDatabaseError(path, "is no store of this library; nothing was touched")
    _require_sound(driver, path, old)
    # Before anything touches the new file.
    driver.execute(f"PRAGMA {new}.auto_vacuum=INCREMENTAL").fetchall()
    driver.execute(f"PRAGMA {new}.synchronous=FULL").fetchall()
    engine.be_alone(driver, path, schema=old, deadline=deadline)
    driver.execute("SELECT sqlcipher_export(?, ?)", (new, old)).fetchall()
    for name in ("application_id", "user_version"):
        driver.execute(f"PRAGMA {new}.{name}={int(engine.pragma(driver, f'{old}.{name}'))}").fetchall()
    _require_same(driver, path, old, new)
    _require_sound(driver, path, new)
    return Converted(*driver.execute(_TOTALS).fetchall()[0])


def copies_beside(path: Path) -> list[Path]:
    """The copies that upgrades and restores kept of a file, whatever they are encrypted with."""
    kept = (folder / path.name for folder in restores.kept_beside(path))
    return [*upgrade.copies_of(path), *(copy for copy in kept if copy.is_file())]


def _require_sound(driver: sqlite3.Connection, path: Path, schema: str) -> None:
    problems = [_text(row[0]) for row in driver.execute(f"PRAGMA {schema}.integrity_check(1)").fetchall()]
    if problems != ["ok"]:
        raise StoreCorruptError(path, f"is damaged: {'; '.join(problems)}; nothing was changed")


def _require_same(driver: sqlite3.Connection, path: Path, old: str, new: str) -> None:
    """Compare every row of every table, in the order in which they are stored."""
    if driver.execute(_SCHEMA.format(old)).fetchall() != driver.execute(_SCHEMA.format(new)).fetchall():
        raise StoreCorruptError(path, "the copy does not have the same tables; nothing was changed")
    for (name,) in driver.execute(_TABLES).fetchall():
        table = _text(name).replace('"', '""')
        pairs = zip_longest(*(driver.execute(f'SELECT * FROM {schema}."{table}" NOT INDEXED') for schema in (old, new)))  # noqa: S608
        if any(before != after for before, after in pairs):
            raise StoreCorruptError(path, f"the copy does not have the same rows in {_text(name)}; nothing was changed")


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _take_place(partial: Path, path: Path) -> None:
    """Nobody has either file open. The old one has no log any more: it was taken in."""
    paths.sync_file(partial)
    for suffix in _BESIDE:
        paths.sidecar(path, suffix).unlink(missing_ok=True)
    paths.sync_folder(path.parent)
    partial.replace(path)
    paths.sync_folder(path.parent)
