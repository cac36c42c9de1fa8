"""Backups: a consistent copy of a database, taken by the driver while others write, and looked over before it gets its name.

The copy holds the pages of one snapshot, which a reading connection pins; writers go on, and only their log grows meanwhile.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import (
    InvalidInputError,
    NotADatabaseError,
    SessionStoreError,
    StoreBusyError,
    StoreCorruptError,
)
from ..keys import EncryptionKey
from . import encryption, engine, paths, registry, upgrade
from .faults import translated
from .locks import SidecarLock

Progress: TypeAlias = Callable[[int, int | None], object]

PARTIAL_SUFFIX: Final = ".partial"
_PAGES_A_STEP: Final = 256
_OWN_TABLES: Final = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite#_%' ESCAPE '#' "
    "AND sql NOT LIKE 'CREATE VIRTUAL %' ORDER BY name"
)
_TOTALS: Final = "SELECT count(*), coalesce(sum(message_count), 0) FROM sessions"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds, in figures that its copy must have, too.

    Attributes:
        store_id: The random id that the store was given when it was made.
        revision: The revision of its schema.
        sessions: How many sessions it holds, expired ones included.
        messages: How many messages they have.
        rows: The name of each table and how many rows it has.
    """

    store_id: str
    revision: str
    sessions: int
    messages: int
    rows: tuple[tuple[str, int], ...]


def contents_of(driver: sqlite3.Connection, path: Path) -> Contents:
    """What a store's file holds.

    Raises:
        ForeignDatabaseError: It belongs to another program.
        NotADatabaseError: It holds nothing.
        SchemaTooNewError: A newer version wrote it.
        StoreCorruptError: Tables are missing.
    """
    if upgrade.is_new(driver, path):
        raise NotADatabaseError(path, "is an empty database")
    revision = upgrade.known_revision(driver, path)
    try:
        stored = driver.execute("SELECT store_id FROM store_info").fetchall()
        sessions, messages = driver.execute(_TOTALS).fetchall()[0]
        tables = [name for (name,) in driver.execute(_OWN_TABLES).fetchall()]
        rows = tuple((name, _rows_of(driver, name)) for name in tables)
    except sqlite3.OperationalError as error:
        raise _mine(error, path) from error
    if len(stored) != 1:
        raise StoreCorruptError(path, f"has {len(stored)} ids instead of 1; the file is kept as it is")
    return Contents(stored[0][0], revision, sessions, messages, rows)


def write_pages(source: sqlite3.Connection, target: Path, key: EncryptionKey | None, progress: Progress | None) -> None:
    """Write the pages that a connection sees to an empty file, which has the same key.

    Its snapshot is pinned, so that all are of one moment.
    """
    page_size = engine.pragma(source, "page_size")

    def report(_: int, left: int, total: int) -> None:
        if progress is not None:
            progress((total - left) * page_size, total * page_size)

    with closing(engine.connect_copy(target, key)) as copied:
        try:
            source.backup(copied, pages=_PAGES_A_STEP, progress=report)
        except sqlite3.Error as error:
            raise translated(error, target) from error


def verify(path: Path, key: EncryptionKey | None) -> Contents:
    """Look at every page of a file that nobody has open, and tell what it holds.

    Raises:
        StoreOpenError: It is no store of a known schema; the subclasses say what it is.
        StoreCorruptError: It is damaged.
    """
    with reading(path, key) as driver:
        _check_length(driver, path)
        problems = [row[0] for row in driver.execute("PRAGMA quick_check(1)").fetchall()]
        if problems != ["ok"]:
            raise StoreCorruptError(path, f"is damaged ({'; '.join(problems)}); it is kept as it is")
        return contents_of(driver, path)


def verify_copy(path: Path, expected: Contents, key: EncryptionKey | None) -> None:
    """Look at every page of a copy, and compare what it holds with what it should.

    Raises:
        StoreCorruptError: It holds something else, as on a disk that fails.
    """
    if verify(path, key) != expected:
        raise StoreCorruptError(path, "does not hold what was copied into it; does the disk fail?")


@contextmanager
def reading(path: Path, key: EncryptionKey | None) -> Iterator[sqlite3.Connection]:
    """A connection to a file that nobody writes; it leaves nothing beside it. Errors come as this library's."""
    encryption.refuse_plain(path, key)
    try:
        with closing(engine.connect_read_only(path, key, immutable=True)) as driver:
            yield driver
    except (sqlite3.Error, UnicodeDecodeError) as error:
        mine = _mine(error, path)
        raise (encryption.explained(mine, path, key) if isinstance(mine, NotADatabaseError) else mine) from error


def place_of(target: object) -> Path:
    """The absolute path that an argument names.

    Raises:
        InvalidInputError: It names none.
    """
    given = os.fspath(target) if isinstance(target, str | os.PathLike) else None
    if not isinstance(given, str) or not given or "\0" in given or given.endswith(("/", os.sep)) or not _is_text(given):
        raise InvalidInputError("target", "must be the path of a file")
    return paths.absolute(Path(given))


def _is_text(path: str) -> bool:
    """Whether a store could be opened by this name, and every log and terminal show it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def new_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new empty file beside a place, to be filled; at the end it takes the place, whole and on the disk, or is removed.

    Raises:
        InvalidInputError: The place is taken, or a database is there.
        StoreBusyError: Another backup is being written to it.
        OSError: The folder cannot be written.
    """
    refuse_place(target, overwrite=overwrite)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
    unfinished = paths.sidecar(target, PARTIAL_SUFFIX)
    with _alone_at(target):
        # A killed backup may have left one.
        unfinished.unlink(missing_ok=True)
        paths.create_private(unfinished)
        try:
            yield unfinished
            paths.sync_file(unfinished)
            # Again, as it took a while.
            refuse_place(target, overwrite=overwrite)
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        paths.sync_folder(target.parent)


def refuse_place(target: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, or where a log would be taken for the new file's.

    Raises:
        InvalidInputError: It names the place and what is in the way.
    """
    if registry.is_open(target):
        raise InvalidInputError("target", f"{target} belongs to a store that this process has open")
    if os.path.lexists(target):
        if target.is_symlink() or not target.is_file():
            raise InvalidInputError("target", f"{target} is not a regular file")
        if not overwrite:
            raise InvalidInputError("target", f"{target} is there already; overwrite=True replaces it")
    for suffix in (paths.WAL_SUFFIX, paths.JOURNAL_SUFFIX):
        if os.path.lexists(paths.sidecar(target, suffix)):
            raise InvalidInputError("target", f"{target.name}{suffix} lies beside it, as of a database that is in use")
    for suffix in (*paths.SIDECAR_SUFFIXES, paths.JOURNAL_SUFFIX):
        database = target.with_name(target.name.removesuffix(suffix) or target.name)
        if database != target and os.path.lexists(database):
            raise InvalidInputError("target", f"{target} would be taken for a part of the database {database.name}")


@contextmanager
def _alone_at(target: Path) -> Iterator[None]:
    """Keep two backups from writing to one place."""
    path = paths.sidecar(target, PARTIAL_SUFFIX + paths.LOCK_SUFFIX)
    lock = SidecarLock(path)
    try:
        try:
            lock.acquire(time.monotonic())
        except StoreBusyError:
            raise StoreBusyError(target, "another backup is being written there; let it end, or choose another name") from None
        try:
            yield
        finally:
            if os.name == "posix":
                path.unlink(missing_ok=True)
            lock.release()
    finally:
        lock.close()


def _check_length(driver: sqlite3.Connection, path: Path) -> None:
    expected = engine.pragma(driver, "page_count") * engine.pragma(driver, "page_size")
    if paths.size_of(path) < expected:
        raise StoreCorruptError(path, f"is shorter than the {expected} bytes it should have; it is kept as it is")


def _rows_of(driver: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(driver.execute(f'SELECT count(*) FROM "{quoted}"').fetchall()[0][0])  # noqa: S608 - quoted


def _mine(error: Exception, path: Path) -> SessionStoreError:
    if isinstance(error, UnicodeDecodeError):
        return StoreCorruptError(path, "holds names that are no text; the file is kept as it is")
    if "no such" in str(error):
        return StoreCorruptError(path, f"is not as it was made ({error}); the file is kept as it is")
    if isinstance(error, sqlite3.Error):
        return translated(error, path)
    raise error
