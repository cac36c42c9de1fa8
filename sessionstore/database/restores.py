"""One file taking the place of another: whole or not at all, and never beside a log that belongs to the old one.

The new file is made beside the place under a name that says how far it is: NAME.restore-partial while it is filled,
NAME.restore-ready once it is whole and on the disk. Renaming it to NAME is the moment at which the new store is there. What a
killed program left is undone before that moment, and completed after it, by the next open or restore; both hold the writer lock.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from .. import clock
from ..errors import ForeignDatabaseError, SessionStoreError, StoreBusyError, StoreOpenError
from ..keys import EncryptionKey
from . import encryption, engine, paths, sidecars, upgrade
from .faults import is_busy
from .locks import SidecarLock, pause

KEPT_INFIX: Final = ".before-restore-"
_PARTIAL: Final = ".restore-partial"
_READY: Final = ".restore-ready"
_OLD: Final = ".restore-old"
_MOVED_ALONG: Final = (paths.WAL_SUFFIX, paths.SHM_SUFFIX, paths.JOURNAL_SUFFIX)
# Another program may just be closing the file; one that goes on having it open should be told of soon.
_LONGEST_WAIT: Final = 2.0
# Where SQLite locks bytes of a file, by its file format.
_LOCK_BYTES: Final = (0x40000000, 512)


def settle(path: Path, *, timeout: float) -> None:
    """Undo or complete what a killed restore left beside a file; usually there is nothing, and that is all it looks at.

    Raises:
        StoreBusyError: A restore is under way, past the timeout.
        StoreOpenError: What is left cannot be moved.
    """
    if not any(os.path.lexists(paths.sidecar(path, suffix)) for suffix in (_READY, _OLD)):
        return
    try:
        with _locked(path, timeout):
            _settle(path)
    except OSError as error:
        if isinstance(error, SessionStoreError):
            raise
        raise StoreOpenError(path, f"what an interrupted restore left beside it cannot be moved ({error.strerror})") from error


def remove_partial(path: Path) -> None:
    """Remove the half-made file that a killed restore left. The writer lock is held."""
    paths.sidecar(path, _PARTIAL).unlink(missing_ok=True)


def kept_beside(path: Path) -> list[Path]:
    """The folders in which restores kept what they replaced."""
    return sorted(each for each in path.parent.iterdir() if each.name.startswith(path.name + KEPT_INFIX))


def replace(path: Path, fill: Callable[[Path], None], key: EncryptionKey | None, *, timeout: float) -> Path | None:
    """Put a new file in the place of one that nobody has open, or of none. The old one is kept under another name.

    Args:
        path: The place; absolute, and no store of this process has it open.
        fill: Makes the new file out of an empty one, and looks it over.
        key: What the old file may be encrypted with.
        timeout: Seconds to wait for the writer lock.

    Returns:
        Where the old file is now; None if there was none.

    Raises:
        StoreBusyError: Another process has it open; nothing was changed.
        ForeignDatabaseError: It belongs to another program.
    """
    with _locked(path, timeout):
        _settle(path)
        with _held(path, key, timeout=min(timeout, _LONGEST_WAIT)) as let_go:
            partial, ready = paths.sidecar(path, _PARTIAL), paths.sidecar(path, _READY)
            paths.create_private(partial)
            try:
                fill(partial)
                paths.sync_file(partial)
                if os.name != "posix":
                    # There an open file cannot be renamed; the writer lock still keeps other stores away.
                    let_go()
                partial.replace(ready)
                paths.sync_folder(path.parent)
                _set_aside(path)
                ready.replace(path)
            except BaseException:
                _settle(path)
                raise
            paths.sync_folder(path.parent)
        return _keep_old(path)


@contextmanager
def _locked(path: Path, timeout: float) -> Iterator[None]:
    """The lock under which every store opens, writes and closes the file."""
    lock = SidecarLock(paths.sidecar(path, paths.LOCK_SUFFIX))
    try:
        lock.acquire(time.monotonic() + timeout)
        try:
            yield
        finally:
            if not os.path.lexists(path):
                lock.remove_if_new()
            lock.release()
    finally:
        lock.close()


@contextmanager
def _held(path: Path, key: EncryptionKey | None, *, timeout: float) -> Iterator[Callable[[], None]]:
    """The old file, closed by everybody and kept closed; what is yielded lets it go early."""
    with ExitStack() as stack:
        if paths.size_of(path):
            # The old file may be plain where the new one is not. Whose it is can be seen then, too.
            own_key = None if key is not None and encryption.is_plain(path) else key
            try:
                stack.enter_context(_held_by_driver(path, own_key, timeout))
            except (sqlite3.DatabaseError, UnicodeDecodeError, _StrangeLogError) as error:
                if isinstance(error, sqlite3.Error) and is_busy(error):
                    raise _in_use(path) from error
                # It is no database any more, or cannot be read: it is set aside as it is, with its log.
                stack.enter_context(_held_by_lock(path))
        yield stack.close


class _StrangeLogError(Exception):
    """The log beside a file is not its own, so that SQLite must not take it in."""


@contextmanager
def _held_by_driver(path: Path, key: EncryptionKey | None, timeout: float) -> Iterator[None]:
    """Take the log into the file, so that it is one file alone; SQLite does that only if no other connection lives."""
    _refuse_strange(path, key, timeout)
    with closing(engine.connect_file(path, key)) as driver:
        upgrade.is_new(driver, path)
        engine.set_busy_timeout(driver, 0)
        deadline = time.monotonic() + timeout
        while not _is_taken(driver):
            if time.monotonic() >= deadline:
                raise _in_use(path)
            pause()
        yield
        # Nothing was written since, so this touches no file, whoever has its name then.
        driver.execute("ROLLBACK")


def _refuse_strange(path: Path, key: EncryptionKey | None, timeout: float) -> None:
    with suppress(sqlite3.DatabaseError), closing(engine.connect_read_only(path, key, immutable=True)) as driver:
        # Another program's file is not for us to touch. What is unreadable without its log is looked at with it.
        upgrade.is_new(driver, path)
    if sidecars.is_no_log(path):
        raise _StrangeLogError
    try:
        sidecars.refuse_foreign_log(path, key, timeout=timeout)
    except ForeignDatabaseError as error:
        raise _StrangeLogError from error


def _is_taken(driver: sqlite3.Connection) -> bool:
    """Try to be the only connection, and to have the only file.

    Not with `locking_mode=EXCLUSIVE`, which would keep a journal that is removed by its name at the end.
    """
    try:
        if engine.switch_journal_mode(driver, "DELETE") != "delete":
            return False
        driver.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if is_busy(error):
            return False
        raise
    if engine.journal_mode(driver) == "delete":
        return True
    driver.execute("ROLLBACK")
    return False


@contextmanager
def _held_by_lock(path: Path) -> Iterator[None]:
    """Lock the bytes that every connection of SQLite locks while it has the file open. None of this process may be open."""
    if sys.platform == "win32":
        # An open file cannot be renamed there.
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        start, length = _LOCK_BYTES
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except (BlockingIOError, PermissionError) as error:
            raise _in_use(path) from error
        yield
    finally:
        os.close(descriptor)


def _in_use(path: Path) -> StoreBusyError:
    return StoreBusyError(path, "another program has it open; let it end, then restore again. Nothing was changed")


def _set_aside(path: Path) -> None:
    """Give the old file a second name, in a folder of its own, and move there what lies beside it.

    Where links are possible the place itself is never empty.
    """
    old = paths.sidecar(path, _OLD)
    is_there = os.path.lexists(path)
    beside = [suffix for suffix in _MOVED_ALONG if os.path.lexists(paths.sidecar(path, suffix))]
    if not beside and not paths.size_of(path):
        # An empty file is not worth keeping.
        return
    old.mkdir(mode=paths.PRIVATE_FOLDER, exist_ok=True)
    linked = is_there and _link(path, old / path.name)
    for suffix in beside:
        paths.sidecar(path, suffix).replace(paths.sidecar(old / path.name, suffix))
    if is_there and not linked:
        path.replace(old / path.name)
    # On the disk in this order: no power loss may leave the new file beside the old log.
    paths.sync_folder(old)
    paths.sync_folder(path.parent)


def _link(path: Path, second: Path) -> bool:
    try:
        os.link(path, second)
    except OSError:
        # Not every file system can.
        return False
    return True


def _settle(path: Path) -> None:
    """The writer lock is held."""
    ready, old = paths.sidecar(path, _READY), paths.sidecar(path, _OLD)
    remove_partial(path)
    if os.path.lexists(ready):
        if os.path.lexists(path):
            _put_back(path, old)
            ready.unlink()
        else:
            # The old file, if there was one, has left the place already; its log may not have.
            _set_aside(path)
            ready.replace(path)
        paths.sync_folder(path.parent)
    _keep_old(path)


def _put_back(path: Path, old: Path) -> None:
    if not old.is_dir():
        return
    for suffix in _MOVED_ALONG:
        if os.path.lexists(paths.sidecar(old / path.name, suffix)):
            paths.sidecar(old / path.name, suffix).replace(paths.sidecar(path, suffix))
    if os.path.lexists(old / path.name):
        if path.samefile(old / path.name):
            (old / path.name).unlink()
        else:
            # Somebody made an empty file in the place meanwhile.
            (old / path.name).replace(path)
    old.rmdir()


def _keep_old(path: Path) -> Path | None:
    """Name what was replaced for good, by the time."""
    old = paths.sidecar(path, _OLD)
    if not old.is_dir():
        return None
    if not list(old.iterdir()):
        old.rmdir()
        return None
    kept = _free_name(path)
    old.rename(kept)
    paths.sync_folder(path.parent)
    return kept / path.name


def _free_name(path: Path) -> Path:
    stamp = clock.utc_now().strftime("%Y%m%dT%H%M%SZ")
    names = (path.with_name(f"{path.name}{KEPT_INFIX}{stamp}{number}") for number in ("", *(f"-{n}" for n in range(2, 10_000))))
    return next(name for name in names if not os.path.lexists(name))
