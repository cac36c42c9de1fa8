"""Whether a path may become a database file: looked at with stat only, created for its owner only, never opened again.

Closing any descriptor of a database file drops the locks that SQLite holds on it in this process, so nothing here opens
an existing one.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import warnings
from pathlib import Path
from typing import Final, NamedTuple

from ..config import OpenOptions
from ..errors import NotADatabaseError, ReadOnlyStoreError, StoreOpenError, UnsafePathError, UnsafePermissionsWarning

WAL_SUFFIX: Final = "-wal"
SHM_SUFFIX: Final = "-shm"
LOCK_SUFFIX: Final = "-lock"
JOURNAL_SUFFIX: Final = "-journal"
RESERVE_SUFFIX: Final = "-reserve"
SIDECAR_SUFFIXES: Final = (WAL_SUFFIX, SHM_SUFFIX, LOCK_SUFFIX, RESERVE_SUFFIX)
PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700
_WRITABLE_BY_OTHERS: Final = 0o022
_POSIX: Final = os.name == "posix"


class FileIdentity(NamedTuple):
    """What tells one file from another, however it is named."""

    device: int
    inode: int


class PreparedFile(NamedTuple):
    """A file that may be opened: its absolute path, its identity, and what was strange about it."""

    path: Path
    identity: FileIdentity
    warnings: tuple[str, ...]


def sidecar(path: Path, suffix: str) -> Path:
    """The file that stands beside a database file."""
    return path.with_name(path.name + suffix)


def prepare(path: Path, options: OpenOptions, *, own_folder: bool) -> PreparedFile:
    """Check a path, and create the file (mode 0600) and its folder (mode 0700) where that was asked for.

    Args:
        path: Where the database is or will be.
        options: What the caller allows.
        own_folder: Whether the folder belongs to this library and may be made.

    Raises:
        UnsafePathError: A symbolic or hard link, a folder, a device, a pipe, a socket; with `strict_permissions`, a file that
            others can write.
        NotADatabaseError: Empty or absent, with `must_exist` or `read_only`.
        ReadOnlyStoreError: No permission to write the file or its folder.
        StoreOpenError: The folder is missing or the file belongs to somebody else.
    """
    path = absolute(path, follow=options.follow_symlinks)
    try:
        _prepare_folder(path.parent, create=options.create_parents or own_folder)
        strange = _open_to_others(path, path.parent, stat.S_IWOTH, options)
        _check_sidecars(path)
        found = _look(path)
        if found is None:
            found = _create(path, options)
        _refuse_unsafe(path, found, options)
        strange += _open_to_others(path, path, _WRITABLE_BY_OTHERS, options)
    except OSError as error:
        if isinstance(error, StoreOpenError):
            raise
        raise _translated(path, error) from error
    for problem in strange:
        warnings.warn(problem, UnsafePermissionsWarning, stacklevel=2)
    return PreparedFile(path, FileIdentity(found.st_dev, found.st_ino), strange)


def prepare_to_replace(path: Path, *, own_folder: bool) -> FileIdentity | None:
    """Check the absolute path of a file that another one is to replace, and tell which file is there now. Nothing is created.

    Raises:
        UnsafePathError: A symbolic or hard link, a folder, a device, a pipe, a socket.
        ReadOnlyStoreError: No permission to write the file or its folder.
        StoreOpenError: The folder is missing or the file belongs to somebody else.
    """
    try:
        _prepare_folder(path.parent, create=own_folder)
        _check_sidecars(path)
        found = _look(path)
        if found is None:
            return None
        _refuse_unsafe(path, found, OpenOptions())
    except OSError as error:
        if isinstance(error, StoreOpenError):
            raise
        raise _translated(path, error) from error
    return FileIdentity(found.st_dev, found.st_ino)


def is_replaced(file: PreparedFile) -> bool:
    """Whether another file has taken the place of one since it was prepared."""
    found = _look(file.path)
    return found is not None and FileIdentity(found.st_dev, found.st_ino) != file.identity


def require_regular(path: Path) -> None:
    """Refuse what is no plain file before anything opens it.

    Raises:
        NotADatabaseError: It is absent or empty.
        UnsafePathError: A folder, a device, a pipe, a socket.
        StoreOpenError: It cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotADatabaseError(path, "there is no such file") from None
    except OSError as error:
        raise _translated(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePathError(path, "is not a regular file")
    if not found.st_size:
        raise NotADatabaseError(path, "is empty")


def size_of(path: Path) -> int:
    """The size in bytes, 0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def free_bytes(folder: Path) -> int | None:
    """The room on the disk of a folder for a program without special rights; None if that cannot be told."""
    try:
        if sys.platform == "win32":
            # Not at the top: it loads what compresses archives.
            from shutil import disk_usage

            return disk_usage(folder).free
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def sync_folder(folder: Path) -> None:
    """Make created and renamed files of a folder survive a power loss."""
    if _POSIX:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a new file survive a power loss. No connection may have it open."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read.

    Raises:
        FileExistsError: There is one already.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    os.close(os.open(path, flags, PRIVATE_FILE))


def absolute(path: Path, *, follow: bool = False) -> Path:
    """The path from the root of the file system; the last part is followed only if asked for.

    Raises:
        UnsafePathError: It holds a loop of links.
    """
    try:
        if follow:
            return path.resolve()
        # The folder may be reached by links (/tmp is one on macOS); the file itself may not.
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
        return absolute.parent.resolve() / absolute.name
    except (OSError, RuntimeError) as error:
        raise UnsafePathError(path, "the path cannot be resolved; does it hold a loop of symbolic links?") from error


def _prepare_folder(folder: Path, *, create: bool) -> None:
    try:
        found = folder.stat()
    except FileNotFoundError:
        if not create:
            hint = "; ~ is not expanded, use Path(...).expanduser()" if "~" in folder.parts else ""
            raise StoreOpenError(folder, f"there is no such folder; create it, or open(..., create_parents=True){hint}") from None
        _make_private_folders(folder)
        return
    if not stat.S_ISDIR(found.st_mode):
        raise StoreOpenError(folder, "is not a folder")


def _make_private_folders(folder: Path) -> None:
    if not folder.parent.exists():
        _make_private_folders(folder.parent)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _create(path: Path, options: OpenOptions) -> os.stat_result:
    if options.must_exist or options.read_only:
        raise NotADatabaseError(path, "there is no such file")
    try:
        create_private(path)
        sync_folder(path.parent)
    except FileExistsError:
        # Another process was faster: take its file.
        pass
    return path.lstat()


def _refuse_unsafe(path: Path, found: os.stat_result, options: OpenOptions) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise UnsafePathError(path, "is a symbolic link; pass follow_symlinks=True if it leads where you mean")
    if stat.S_ISDIR(found.st_mode):
        raise UnsafePathError(path, "is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePathError(path, "is not a regular file")
    if found.st_nlink > 1:
        raise UnsafePathError(path, "has a second name (hard link), under which its log would not be found; copy it instead")
    if found.st_size == 0 and (options.must_exist or options.read_only):
        raise NotADatabaseError(path, "is empty")
    if _POSIX and os.geteuid() not in (0, found.st_uid) and not os.access(path, os.R_OK | os.W_OK):
        raise StoreOpenError(path, "belongs to another user (EACCES)")
    if not options.read_only:
        _require_writable(path)


def _require_writable(path: Path) -> None:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ReadOnlyStoreError(path, "the file or its folder cannot be written; pass read_only=True to read it only")


def _check_sidecars(path: Path) -> None:
    for suffix in SIDECAR_SUFFIXES:
        beside = sidecar(path, suffix)
        found = _look(beside)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise StoreOpenError(beside, "should be a regular file of SQLite's or not exist; move it away")


def _open_to_others(path: Path, looked_at: Path, bits: int, options: OpenOptions) -> tuple[str, ...]:
    """What is strange about the permissions of the file or its folder. A sticky folder (/tmp) keeps others from replacing files."""
    mode = looked_at.stat().st_mode
    if not _POSIX or not mode & bits or mode & stat.S_ISVTX:
        return ()
    problem = f"{looked_at} can be written by other users; chmod {'600' if looked_at == path else '700'} it"
    if options.strict_permissions:
        raise UnsafePathError(path, problem)
    return (problem,)


def _translated(path: Path, error: OSError) -> StoreOpenError:
    if error.errno == errno.ENAMETOOLONG:
        return StoreOpenError(path.name[:40] + "...", "the name is too long (ENAMETOOLONG)")
    if error.errno == errno.ELOOP:
        return UnsafePathError(path, "the path holds a loop of symbolic links")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReadOnlyStoreError(path, f"no permission ({errno.errorcode[error.errno]})")
    if error.errno == errno.ENOTDIR:
        return StoreOpenError(path.parent, "is not a folder")
    return StoreOpenError(path, error.strerror or type(error).__name__)
