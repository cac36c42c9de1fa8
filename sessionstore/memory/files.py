"""Files as a memory backend: a folder with a JSON file for each conversation, in the layout of go-deep-agent.

A file is replaced as a whole: it is written beside the old one, synced, and renamed over it. Writers take turns by a lock on a
file in the folder; readers wait for nobody.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Final

from .. import inputs
from ..config import DEFAULT_BUSY_TIMEOUT, LONGEST_BUSY_TIMEOUT, default_path
from ..content import decode
from ..database import registry
from ..database.locks import SidecarLock
from ..database.paths import PRIVATE_FILE, PRIVATE_FOLDER, absolute, sync_folder
from ..errors import DiskFullError, InvalidInputError, SessionStoreError, StoreCorruptError, StoreIOError, UnsafePathError
from ..formats import deep_agent
from ..formats.arrays import BadArrayError
from ..formats.file_names import session_id_of
from . import names
from .documents import checked, conversation_id

_FOLDER: Final = "sessions"
_SUFFIX: Final = ".json"
_ID_SUFFIX: Final = ".id"
_LOCK: Final = ".lock"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FileBackend:
    """Whole conversations as files, which go-deep-agent reads and writes, too.

    Threads and processes may share a folder: the last save of a conversation wins, and whoever loads it gets one that was saved,
    also after a kill or a power loss in the midst of a save. Files are for their owner only.
    """

    def __init__(self, directory: str | PathLike[str] | None = None, *, busy_timeout: float = DEFAULT_BUSY_TIMEOUT) -> None:
        """Nothing is read or written yet; the folder is made by the first save.

        Args:
            directory: The folder, taken literally; `~` is not expanded. By default "sessions" in the user's data folder, beside
                the default store. That of go-deep-agent is `Path.home() / ".go-deep-agent" / "sessions"`.
            busy_timeout: Seconds that a save or a delete waits for others before `StoreBusyError`.
        """
        self._timeout = inputs.duration("busy_timeout", busy_timeout, most=LONGEST_BUSY_TIMEOUT)
        self._folder = absolute(_given_folder(directory))

    @property
    def directory(self) -> Path:
        """The folder."""
        return self._folder

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Keep a conversation in place of the one before. When it returns, the file is on disk.

        Raises:
            InvalidInputError: The id or a message is refused.
            StoreCorruptError: The file holds something else, which may be of use yet; `delete` removes it.
            StoreBusyError: Another writer held the folder past the `busy_timeout`.
            UnsafePathError: The file is a link or something else than a file.
            DiskFullError: The disk is full.
            StoreIOError: The operating system failed.
        """
        wanted = conversation_id(session_id)
        text = deep_agent.text_of([decode(each.role, each.text, each.extra) for each in checked(messages)])
        with _translating(self._folder):
            self._folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        with self._locked():
            path = self._path_of(wanted)
            with _translating(path):
                _refuse_unsafe(path)
                _refuse_damaged(path)
                if names.is_cut(path.name.removesuffix(_SUFFIX)) and self._owner_of(path, wanted) is None:
                    _replace(path.with_suffix(_ID_SUFFIX), wanted)
                _replace(path, text)

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        """The messages of a conversation; None if there is none.

        Raises:
            StoreCorruptError: The file holds something else; it is kept as it is.
            UnsafePathError: It is a link or something else than a file.
            StoreIOError: The operating system failed.
        """
        wanted = conversation_id(session_id)
        path = self._path_of(wanted)
        with _translating(path):
            data = _read(path)
            if data is None:
                return None
            self._owner_of(path, wanted)
        return _messages_of(data, path)

    def delete(self, session_id: str) -> None:
        """Delete the file of a conversation; nothing happens if there is none.

        Raises:
            StoreBusyError: Another writer held the folder past the `busy_timeout`.
            UnsafePathError: It is a link or something else than a file.
            StoreIOError: The operating system failed.
        """
        wanted = conversation_id(session_id)
        if not self._folder.is_dir():
            return
        with self._locked():
            path = self._path_of(wanted)
            with _translating(path):
                _refuse_unsafe(path)
                self._owner_of(path, wanted)
                # What a killed save has left goes, too.
                for each in (path, path.with_suffix(_ID_SUFFIX)):
                    each.unlink(missing_ok=True)
                    _unfinished(each).unlink(missing_ok=True)
                sync_folder(self._folder)

    def list(self) -> list[str]:
        """The ids of all conversations in the folder, sorted. Other files, links and folders in it are left out.

        Raises:
            StoreIOError: The operating system failed.
        """
        with _translating(self._folder):
            try:
                with os.scandir(self._folder) as entries:
                    found = [each.name for each in entries if each.name.endswith(_SUFFIX) and each.is_file(follow_symlinks=False)]
            except FileNotFoundError:
                return []
            return sorted({each for name in found if (each := self._id_of(name)) is not None})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._folder)!r})"

    def _path_of(self, session_id: str) -> Path:
        """The file of a conversation: the one under its name here, or one that go-deep-agent has made."""
        own = self._folder / (names.name_of(session_id) + _SUFFIX)
        plain = names.plain_name_of(session_id)
        if plain is None or os.path.lexists(own):
            return own
        theirs = self._folder / (plain + _SUFFIX)
        return theirs if _is_there_as_written(theirs) else own

    def _id_of(self, name: str) -> str | None:
        """The id whose file has a name; None if no id has."""
        stem = unicodedata.normalize("NFC", name.removesuffix(_SUFFIX))
        found = (
            self._noted_id(self._folder / (stem + _ID_SUFFIX)) if names.is_cut(stem) else names.id_of(stem) or session_id_of(stem)
        )
        if found is None or not names.is_id(found):
            return None
        path = self._path_of(found)
        return found if path.name == name or (not stem.isascii() and path.exists()) else None

    def _noted_id(self, path: Path) -> str | None:
        data = _read(path)
        return None if data is None else data.decode(errors="replace")

    def _owner_of(self, path: Path, session_id: str) -> str | None:
        """The id that is noted beside a file whose name is too short for it; None if none is.

        Raises:
            StoreCorruptError: It is another one.
        """
        if not names.is_cut(path.name.removesuffix(_SUFFIX)):
            return None
        noted = self._noted_id(path.with_suffix(_ID_SUFFIX))
        if noted is not None and noted != session_id:
            raise StoreCorruptError(path.with_suffix(_ID_SUFFIX), "names another session; it is kept as it is")
        return noted

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self._folder / _LOCK
        with _translating(path):
            lock = SidecarLock(path)
        try:
            lock.acquire(time.monotonic() + self._timeout)
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.close()


def _given_folder(directory: object) -> Path:
    if directory is None:
        return default_path().with_name(_FOLDER)
    if not isinstance(directory, str | PathLike) or not os.fspath(directory):
        raise InvalidInputError("directory", "must be a path")
    return Path(directory)


def _read(path: Path) -> bytes | None:
    """What a regular file holds; None if there is none."""
    if registry.is_open(path):
        raise UnsafePathError(path, "belongs to a store that this process has open")
    try:
        # A pipe would block.
        descriptor = os.open(path, os.O_RDONLY | _SAFELY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafePathError(path, "is not a regular file")
        return file.read()


def _messages_of(data: bytes, path: Path) -> list[dict[str, Any]]:
    try:
        return deep_agent.messages_of(data)
    except BadArrayError as error:
        problem = f"line {error.line}: {error}"
    except InvalidInputError as error:
        problem = str(error)
    # Not chained: those errors may carry the text.
    raise StoreCorruptError(path, f"{problem}; the file is kept as it is: delete() removes it, or move it elsewhere")


def _refuse_damaged(path: Path) -> None:
    """A save is not to destroy what somebody may still want to read."""
    data = _read(path)
    if data is not None:
        _messages_of(data, path)


def _replace(path: Path, text: str) -> None:
    """Put a file in the place of another one, whole and synced. The lock is held."""
    unfinished = _unfinished(path)
    unfinished.unlink(missing_ok=True)
    try:
        descriptor = os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _SAFELY, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _unfinished(path: Path) -> Path:
    """Where a file is written; no id's name begins with a dot."""
    return path.with_name(f".{path.name}.tmp")


def _refuse_unsafe(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise UnsafePathError(path, "is a symbolic link; put the file itself there")
    if not stat.S_ISREG(mode):
        raise UnsafePathError(path, "is not a regular file")
    if registry.is_open(path):
        raise UnsafePathError(path, "belongs to a store that this process has open")


def _is_there_as_written(path: Path) -> bool:
    """Whether a folder has a file of exactly this name: some file systems find one that differs in case."""
    if not os.path.lexists(path):
        return False
    swapped = path.with_name(path.name.swapcase())
    return not os.path.lexists(swapped) or path.name in os.listdir(path.parent)  # noqa: PTH208 - names only


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    """Let the operating system's errors be this library's."""
    try:
        yield
    except OSError as error:
        if isinstance(error, SessionStoreError):
            raise
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise UnsafePathError(path, "is a symbolic link; put the file itself there") from error
        if error.errno in _FULL:
            raise DiskFullError(path, "the disk is full; what was there before is kept") from error
        raise StoreIOError(path, error.strerror or type(error).__name__) from error
