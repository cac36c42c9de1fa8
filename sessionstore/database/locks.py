"""The advisory lock on a sidecar file that makes the processes on one database take turns.

SQLite's own locks cannot queue: a process that loses the race gets "database is locked". The sidecar also makes sure that no
commit overlaps a checkpoint of another process, which SQLite 3.7.0 to 3.51.2 do not survive (the WAL-reset bug).
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final, Protocol

from ..errors import ClosedStoreError, StoreBusyError
from .paths import PRIVATE_FILE

# Between tries, in seconds. Short and random: the worst wait of four processes was ten times shorter than with SQLite's own.
_SHORTEST_SLEEP: Final = 0.0001
_LONGEST_SLEEP: Final = 0.001
# Between tries for the sidecar: about as long as it has waited already, up to the longest. Who has the lock gets several commits
# done before it changes hands, which costs a cache. Then it is urgent for a while, so that nobody waits for long.
_FIRST_SLEEP: Final = 0.0002
_PATIENT_SLEEP: Final = 0.002
_URGENT_SLEEP: Final = 0.0002
_URGENT_FROM: Final = 0.03
_URGENT_UNTIL: Final = 0.5


def pause() -> None:
    """Sleep a short random time between two tries for a lock."""
    time.sleep(random.uniform(_SHORTEST_SLEEP, _LONGEST_SLEEP))  # noqa: S311 - no secret


def _sleep_for_turn(waited: float) -> None:
    if waited >= _URGENT_UNTIL:
        pause()
        return
    sleep = _URGENT_SLEEP if waited >= _URGENT_FROM else min(max(waited, _FIRST_SLEEP), _PATIENT_SLEEP)
    time.sleep(sleep * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


class ProcessLock(Protocol):
    """A lock between processes.

    Taking it can be interrupted when it is taken already. So it is taken within the `try` that releases it: releasing what was not
    taken does nothing, as does a second close.
    """

    waits: int

    def acquire(self, deadline: float) -> None:
        """Take the lock, trying until `deadline` on the monotonic clock."""

    def release(self) -> None:
        """Let the next process in."""

    def close(self) -> None:
        """Give up the descriptor, in this process only."""

    def remove_if_new(self) -> None:
        """Leave nothing beside a file that turned out to be no store."""


class NoLock:
    """For stores in memory and files that are only read: there is nobody to wait for."""

    waits = 0

    def acquire(self, deadline: float) -> None:
        """Succeed at once."""

    def release(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def remove_if_new(self) -> None:
        """Nothing to do."""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: FileIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: FileIO) -> None:
        file.seek(0)
        # It may not be locked.
        with suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: FileIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


class _LockFile(FileIO):
    """An open file whose lock ends with it, also when an interrupt keeps it from being closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+", opener=_open)

    def __del__(self) -> None:
        self.close()


class SidecarLock:
    """An exclusive lock on a file beside the database; the kernel frees it when its process dies."""

    def __init__(self, path: Path) -> None:
        self.waits = 0
        self._path = path
        self._is_new = not path.exists()
        self._file = _LockFile(path)

    def acquire(self, deadline: float) -> None:
        """Take the lock, trying until `deadline` on the monotonic clock.

        Raises:
            StoreBusyError: Another process held it all the time.
            ClosedStoreError: It was closed.
        """
        if self._file.closed:
            raise ClosedStoreError
        if _try_lock(self._file) and self._is_there():
            return
        self.waits += 1
        began = time.monotonic()
        while not (_try_lock(self._file) and self._is_there()):
            now = time.monotonic()
            if now >= deadline:
                raise StoreBusyError(self._path, "another process held the store's write lock past the busy_timeout; try again")
            _sleep_for_turn(now - began)

    def release(self) -> None:
        """Let the next process in."""
        if not self._file.closed:
            _unlock(self._file)

    def close(self) -> None:
        """Give up the descriptor; in a forked child this leaves the parent's lock alone."""
        self._file.close()

    def remove_if_new(self) -> None:
        """Leave nothing beside a file that turned out to be no store."""
        if self._is_new and os.name == "posix":
            self._path.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        if os.fstat(self._file.fileno()).st_nlink:
            return True
        # Somebody removed the file: a lock on the lost one keeps nobody out.
        lost, self._file = self._file, _LockFile(self._path)
        lost.close()
        return False


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), PRIVATE_FILE)
