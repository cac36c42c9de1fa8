"""What may be left of rows that were erased: in gaps of pages, in the write-ahead log, in copies beside the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import DiskFullError, StoreBusyError
from . import engine, full_disk, restores, upgrade, vacuums
from .database import Database
from .transaction import Transaction, raise_own

# A reader that is done within this time pins nothing.
_PATIENCE: Final = 1.0
_PAUSE: Final = 0.02


def wipe(database: Database, *, rebuild: bool, timeout: float) -> Iterator[str]:
    """Leave nothing of erased rows in the file and its log; tells what is left all the same, and why."""
    path = database.path
    if path is None:
        return
    reason = _rebuilt(database, path, timeout=timeout) if rebuild else "the file was not written anew (rebuild=False)"
    if reason is not None:
        yield f"unused parts of pages may hold pieces: {reason}"
    try:
        is_empty = _empty_log(database, path, timeout=timeout)
    except DiskFullError:
        # The rows are gone: the call may not fail for this.
        yield "there is no room to copy the write-ahead log into the file; erase again when there is"
        return
    if not is_empty:
        who = "a call of this process" if database.readers.running else "another program"
        yield f"{who} is reading the file and keeps the write-ahead log; erase again when it is done"


def copies_beside(path: Path | None) -> Iterator[str]:
    """The copies that upgrades and restores left beside a file, as reasons."""
    for copy in () if path is None else [*upgrade.copies_of(path), *restores.kept_beside(path)]:
        yield f"{copy} is a copy of an earlier state; remove it if it is not needed"


def _rebuilt(database: Database, path: Path, *, timeout: float) -> str | None:
    """Write every page anew; why that was not possible, if so.

    SQLite overwrites what is deleted (secure_delete), but moves rows from page to page without that: the gaps of its pages hold
    pieces of rows that stand elsewhere, or stood.
    """
    try:
        vacuums.rebuild(database, path, timeout=timeout)
    except DiskFullError:
        return "there is no room to write the file anew"
    except StoreBusyError:
        return "others wrote past the busy_timeout"
    return None


def _empty_log(database: Database, path: Path, *, timeout: float) -> bool:
    """Copy the log into the file and cut it to nothing; False if readers keep that from happening, or writers."""

    def work(db: Transaction) -> bool:
        busy, _, _ = full_disk.helped(database.reserve, lambda: engine.checkpoint(db.driver, "TRUNCATE"))
        return not busy

    deadline = time.monotonic() + _PATIENCE
    try:
        # Writers get their turns between the tries.
        while not database.writer.exclusively(work, timeout=timeout):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
    except StoreBusyError:
        return False
    except Exception as error:  # noqa: BLE001 - raised again, in our words
        raise_own(error, path)
    return True
