"""The reserve: a file beside the database that is given up on a full disk, so that calls that make room can still be done.

SQLite deletes by writing, first to its log. On a disk without a free byte nothing could be deleted then, and no log be copied
into the database. Most disks are never full, so the reserve is set aside when room gets low, and removed when there is plenty.

It is changed under the writer lock only, and all that counts is how large the file is: so processes agree, and a kill at any
moment leaves a smaller reserve or none, which the next look makes up for. It is blank: a file of its name that holds something
is somebody's, and left alone.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from ..logs import log
from .faults import is_full
from .paths import RESERVE_SUFFIX, create_private, free_bytes, sidecar

T = TypeVar("T")

# A hundred sessions swept away took 0.7 to 4 MB of the log in one transaction, and the log has up to 4 MiB to be copied.
SIZE: Final = 8 << 20
LOW_WATER: Final = 1 << 30
# Well above, so that a disk around the mark does not make it come and go.
AMPLE: Final = 2 << 30
_LEAST: Final = 64 << 10
# What is free is shared with others, and with the other stores of the disk.
_SHARE: Final = 4
_LAST_ROOM: Final = 1 << 20
# Opening needs SQLite's shared memory, a file of 32 KiB or more.
_WAY_IN: Final = 256 << 10
_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Reserve:
    """The reserve of one file.

    Attributes:
        database: The file that it is for.
        path: Where it is.
        is_lent: Whether it was given up for a call under way, after whose commit the log is copied and the reserve taken back.
        is_limiting: Whether the writer's connection was told to let the file grow no more.
    """

    def __init__(self, database: Path) -> None:
        self.database = database
        self.path = sidecar(database, RESERVE_SUFFIX)
        self.is_lent = False
        self.is_limiting = False
        self._is_missed = False

    @property
    def size_bytes(self) -> int:
        """How much is set aside; 0 for what is no reserve, whatever it may be."""
        return size_at(self.path)

    def wants_care(self) -> bool:
        """Whether `keep` would do something; to be asked without the lock."""
        free, held = free_bytes(self.path.parent), self.size_bytes
        return free is not None and (self._is_surplus(free, held) or self._target(free, held) > held)

    def is_disk_full(self) -> bool:
        """Whether so little is free that it is left to what makes room."""
        free = free_bytes(self.path.parent)
        return free is not None and free < _LAST_ROOM

    def keep(self) -> None:
        """Set it aside, add to it, or remove it, as the room on the disk asks for. The writer lock is held."""
        free, held = free_bytes(self.path.parent), self.size_bytes
        if self.is_lent or free is None:
            return
        if self._is_surplus(free, held):
            self._remove()
            log(logging.INFO, "reserve_removed", "the disk has room again; the reserve is gone", path=self.path, free_bytes=free)
        elif free < LOW_WATER and held < SIZE:
            self._set_aside(self._target(free, held), free)

    def make_way(self) -> None:
        """Let a full disk have room for what opening the file needs. The writer lock is held."""
        held, free = self.size_bytes, free_bytes(self.path.parent)
        if held and free is not None and free < _WAY_IN:
            with suppress(OSError):
                os.truncate(self.path, max(0, held - _WAY_IN))

    def give_up(self) -> bool:
        """Let the disk have its room; False if there was none. The writer lock is held."""
        held = self.size_bytes
        if not held or not self._remove():
            return False
        log(logging.WARNING, "reserve_spent", "the disk is full: the reserve was given up to make room", path=self.path, bytes=held)
        return True

    def take_back(self) -> None:
        """Set aside what is left of it and what was freed, before others take that. The writer lock is held."""
        self.is_lent = False
        free = free_bytes(self.path.parent)
        if free is not None and free < LOW_WATER:
            self._set_aside(min(SIZE, self.size_bytes + free), free)

    def help(self, action: Callable[[], T]) -> T:
        """Do something that makes room; on a full disk once more, with the room of the reserve. The writer lock is held."""
        try:
            return action()
        except sqlite3.Error as error:
            if not is_full(error) or not self.give_up():
                raise
        try:
            return action()
        finally:
            self.take_back()

    def _is_surplus(self, free: int, held: int) -> bool:
        return held > 0 and free + held >= AMPLE

    def _target(self, free: int, held: int) -> int:
        """How large it should be: by little steps it does not grow."""
        if free >= LOW_WATER:
            return held
        target = min(SIZE, (held + free) // _SHARE)
        return target if target - held >= _LEAST else held

    def _set_aside(self, target: int, free: int) -> None:
        held = self.size_bytes
        if target - held < _LEAST:
            self._miss(held, "the disk is full")
            return
        try:
            _grow(self.path, held, target)
        except OSError as error:
            self._miss(held, error.strerror or type(error).__name__)
            return
        self._is_missed = False
        message = "room on the disk is low: some was set aside for deletions"
        log(logging.INFO, "reserve_set_aside", message, path=self.path, bytes=target, free_bytes=free - (target - held))

    def _miss(self, held: int, reason: str) -> None:
        # Once: it is tried at every checkpoint.
        if held or self._is_missed:
            return
        self._is_missed = True
        message = "nothing could be set aside on a disk that is nearly full: deletions may fail once it is"
        log(logging.WARNING, "reserve_missing", message, path=self.path, reason=reason)

    def _remove(self) -> bool:
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def size_at(path: Path) -> int:
    """The size of a reserve, 0 if there is none."""
    try:
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size <= SIZE and _is_blank(path):
            return found.st_size
    except OSError:
        pass
    return 0


def _is_blank(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    try:
        return not any(os.read(descriptor, _LEAST))
    finally:
        os.close(descriptor)


def _grow(path: Path, held: int, target: int) -> None:
    """Give the file its blocks on the disk; what does not fit is not left half done."""
    if not held:
        # Empty after a kill, or not a reserve: then creating fails.
        with suppress(FileNotFoundError):
            if path.lstat().st_size == 0:
                path.unlink()
        create_private(path)
    descriptor = os.open(path, os.O_RDWR | _FLAGS)
    try:
        _allocate(descriptor, held, target)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, held)
        raise
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, held: int, target: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, held, target - held)
        return
    zeros = bytes(_LEAST)
    os.lseek(descriptor, held, os.SEEK_SET)
    left = target - held
    while left:
        left -= os.write(descriptor, zeros[:left])
