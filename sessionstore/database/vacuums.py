"""Giving the room of deleted rows back to the file system: a little at a time beside other writers, or all at once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import DiskFullError
from . import engine, full_disk
from .database import Database
from .faults import is_storage_failure
from .transaction import Transaction, raise_own

Progress: TypeAlias = Callable[[int, int | None], object]

_INCREMENTAL: Final = 2
_PAGES_A_STEP: Final = 500
_LONGEST_CHECKPOINT_WAIT: Final = 2.0
# Headers of frames in the log, and what else grows meanwhile.
_SURPLUS: Final = 1.05


def give_back(database: Database, *, timeout: float, progress: Progress | None) -> None:
    """Move the last pages of the file into free ones, some in each transaction; other writers get their turns between."""

    def free(db: Transaction) -> int:
        return int(engine.pragma(db.driver, "freelist_count"))

    def step(db: Transaction) -> int:
        db.driver.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()
        return free(db)

    left = total = database.read(free, timeout=timeout)
    while left:
        before, left = left, database.write(full_disk.Freeing(step), full=False, timeout=timeout)
        total = max(total, left)
        if progress is not None:
            progress(total - left, total)
        if left >= before:
            # Others free pages as fast, or this file was made without the means.
            return


def is_incremental(database: Database, *, timeout: float) -> bool:
    """Whether the file was made so that it can be made smaller little by little."""
    return database.read(lambda db: bool(engine.pragma(db.driver, "auto_vacuum") == _INCREMENTAL), timeout=timeout)


def rebuild(database: Database, path: Path, *, timeout: float) -> None:
    """Write the whole database anew, in one transaction, while nobody else writes.

    Raises:
        DiskFullError: There is not enough room for it; nothing was begun.
        StoreBusyError: Others wrote past the timeout.
    """
    # What is encrypted must not stand in the clear in a temporary file.
    in_memory = database.key is not None

    def work(db: Transaction) -> None:
        driver = db.driver
        require_room(path, bytes_in_use(db), in_memory=in_memory)
        if not in_memory:
            # In memory it could take as much as there is; a temporary file has no name and ends with the connection.
            driver.execute("PRAGMA temp_store=FILE").fetchall()
        try:
            driver.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}").fetchall()
            driver.execute("VACUUM")
        finally:
            driver.execute("PRAGMA temp_store=MEMORY").fetchall()

    try:
        database.writer.exclusively(work, timeout=timeout)
    except Exception as error:  # noqa: BLE001 - raised again, in our words
        if is_storage_failure(error) and database.writer.pause(deadline=time.monotonic() + timeout):
            # What the connection takes for granted may not be on the disk: the next write opens another one.
            database.writer.resume()
        raise_own(error, path)


def empty_log(database: Database, path: Path, *, timeout: float) -> bool:
    """Copy the log into the file and cut both to what they hold; False if a reader keeps it from happening."""

    def work(db: Transaction) -> bool:
        engine.set_busy_timeout(db.driver, int(1_000 * min(timeout, _LONGEST_CHECKPOINT_WAIT)))
        try:
            busy, _, _ = full_disk.helped(database.reserve, lambda: engine.checkpoint(db.driver, "TRUNCATE"))
        finally:
            engine.set_busy_timeout(db.driver, 0)
        return not busy

    try:
        return database.writer.exclusively(work, timeout=timeout)
    except Exception as error:  # noqa: BLE001 - raised again, in our words
        raise_own(error, path)


def require_room(path: Path, live_bytes: int, *, in_memory: bool) -> None:
    """Make sure that the log beside the file, and the temporary file, have room for all that is stored.

    Raises:
        DiskFullError: One has not.
    """
    needed: dict[int, tuple[Path, float]] = {}
    for folder in (path.parent, *(() if in_memory else (_temporary_folder(),))):
        device = folder.stat().st_dev
        needed[device] = (folder, needed.get(device, (folder, 0.0))[1] + live_bytes * _SURPLUS)
    for folder, size in needed.values():
        free = shutil.disk_usage(folder).free
        if free < size:
            raise DiskFullError(
                path, f"rebuilding it needs {int(size):,} bytes free in {folder}, and {free:,} are; nothing was done"
            )


def bytes_in_use(db: Transaction) -> int:
    """What the pages take that hold something."""
    pages = engine.pragma(db.driver, "page_count") - engine.pragma(db.driver, "freelist_count")
    return int(pages * engine.pragma(db.driver, "page_size"))


def _temporary_folder() -> Path:
    """Where SQLite puts temporary files."""
    named = (os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR", "TEMP"))
    for folder in (*named, "/var/tmp", "/usr/tmp", "/tmp"):  # noqa: S108 - SQLite's own list
        if folder and Path(folder).is_dir() and os.access(folder, os.W_OK):
            return Path(folder)
    return Path()
