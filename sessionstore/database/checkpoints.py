"""When the write-ahead log is copied into the database: by the writer, under its lock, before the log grows long."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..logs import log
from . import engine
from .faults import is_storage_failure, translated
from .paths import WAL_SUFFIX, sidecar, size_of
from .reserve import Reserve

_PAGES: Final = 1_000
_GROWTH_BYTES: Final = 4 << 20
_WARNING_BYTES: Final = 64 << 20
_COMMITS_PER_LOOK: Final = 16
_FIRST_CHANGES: Final = 500
_FEWEST_CHANGES: Final = 16
_MOST_CHANGES: Final = 5_000


class Checkpointer:
    """Counts what one connection writes and foretells from it when the log holds about a thousand pages.

    SQLite's own count is out of reach of the standard driver, and its automatic checkpoints cannot take the writer lock.
    """

    def __init__(self, path: Path, reserve: Reserve) -> None:
        self.runs = 0
        self._reserve = reserve
        self._log = sidecar(path, WAL_SUFFIX)
        self._commits = 0
        self._changes_before = 0
        self._changes_allowed = _FIRST_CHANGES
        self._size_allowed = _GROWTH_BYTES

    def after_commit(self, driver: sqlite3.Connection, before: Callable[[], object] | None = None) -> bool:
        """Checkpoint if it is time; False if the storage failed. What was committed is safe in the log either way.

        Args:
            driver: The connection that committed.
            before: Called before a checkpoint, which takes a while.
        """
        self._commits += 1
        if not self._reserve.is_lent and not self._is_due(driver):
            return True
        if before is not None:
            before()
        try:
            self._run(driver)
        except sqlite3.Error as error:
            reason = translated(error, self._log)
            log(logging.WARNING, "checkpoint_failed", "a checkpoint failed; the next one tries again", reason=reason)
            return not is_storage_failure(error)
        finally:
            if self._reserve.is_lent:
                self._reserve.take_back()
        return True

    def forget_connection(self) -> None:
        """Another connection writes from now on, and counts from zero."""
        self._changes_before = 0

    def _is_due(self, driver: sqlite3.Connection) -> bool:
        if driver.total_changes - self._changes_before >= self._changes_allowed:
            return True
        # A few rows may be large. Looking at the log costs too much to do it at every commit.
        return self._commits % _COMMITS_PER_LOOK == 0 and size_of(self._log) > self._size_allowed

    def _run(self, driver: sqlite3.Connection) -> None:
        changes = max(1, driver.total_changes - self._changes_before)
        self._changes_before = driver.total_changes
        _, pages, _ = engine.checkpoint(driver, "PASSIVE")
        self.runs += 1
        # The pages that the last rows took foretell how many rows fill the log again.
        self._changes_allowed = min(max(changes * _PAGES // max(1, pages), _FEWEST_CHANGES), _MOST_CHANGES)
        size = size_of(self._log)
        self._size_allowed = size + _GROWTH_BYTES
        if size > _WARNING_BYTES:
            question = "the write-ahead log is large; does a reader keep a transaction open?"
            log(logging.WARNING, "wal_large", question, path=self._log, wal_bytes=size)
        self._reserve.keep()
