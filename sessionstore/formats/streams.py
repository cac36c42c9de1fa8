"""Text files as lines: plain or gzip, paths or binary streams, read with line numbers and written all or nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import shutil
import stat
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, TypeAlias, cast

from ..database import registry
from ..database.paths import LOCK_SUFFIX, PRIVATE_FILE, SIDECAR_SUFFIXES, WAL_SUFFIX, sidecar, sync_folder
from ..errors import InvalidInputError
from . import jsonlines

Place: TypeAlias = str | PathLike[str] | BinaryIO
Progress: TypeAlias = Callable[[int, int | None], object]

MAX_LINE_BYTES: Final = 1 << 30
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_SUFFIX: Final = ".gz"
_BOM: Final = b"\xef\xbb\xbf"
_SUFFIXES: Final = frozenset({".jsonl", ".ndjson", ".json", ".txt"})
_NAMELESS: Final = "stdin"
_SPOOL_BYTES: Final = 8 << 20


class LineReader:
    """The lines of a file, counted; a place in it can be returned to.

    Attributes:
        name: The file's name, for messages.
        stem: Its name without folder and suffixes, in Unicode normal form C.
        number: The line that was read last, from 1.
        total_bytes: The file's size as it is stored.
    """

    def __init__(self, raw: IO[bytes], text: IO[bytes], name: str, stack: ExitStack) -> None:
        self._stack = stack
        self.name = name
        self.stem = _stem(name)
        self.number = 0
        raw.seek(0, os.SEEK_END)
        self.total_bytes = raw.tell()
        raw.seek(0)
        self._raw = raw
        self._text = text
        self._is_packed = text is not raw

    def read(self) -> bytes | None:
        """The next line with its line break, None behind the last one.

        Raises:
            InvalidInputError: The line is longer than 1 GiB, or the gzip data are damaged.
        """
        try:
            line = self._text.readline(MAX_LINE_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.number += 1
            raise self.refusal("the gzip data are damaged or cut short") from error
        if not line:
            return None
        self.number += 1
        if len(line) > MAX_LINE_BYTES:
            raise self.refusal(f"is longer than {MAX_LINE_BYTES} bytes", limit=MAX_LINE_BYTES)
        return line.removeprefix(_BOM) if self.number == 1 else line

    def read_object(self, *, skip_blank: bool = False) -> dict[str, Any] | None:
        """The JSON object on the next line, None behind the last one.

        Raises:
            InvalidInputError: The line holds something else.
        """
        line = self.read()
        while skip_blank and line is not None and not line.strip():
            line = self.read()
        if line is None:
            return None
        try:
            return jsonlines.loads(line)
        except jsonlines.NotAnObjectError as error:
            raise self.refusal(str(error)) from error.__cause__

    def refusal(self, reason: str, *, limit: int | float | None = None) -> InvalidInputError:
        """The error that names the line that was read last."""
        return InvalidInputError("source", f"line {self.number} of {self.name}: {reason}", limit=limit)

    @contextmanager
    def naming_line(self) -> Iterator[None]:
        """Let a refusal of a value name the line that it stands on."""
        try:
            yield
        except InvalidInputError as error:
            raise self.refusal(str(error), limit=error.limit) from error

    def place(self) -> tuple[int, int]:
        """Where the next line begins."""
        return self._text.tell(), self.number

    def return_to(self, place: tuple[int, int]) -> None:
        """Go on reading from a place."""
        offset, self.number = place
        here = self._text.tell()
        if 0 < offset < here and self._is_packed:
            # Going back in gzip data means to unpack them from the start each time. Once is enough.
            self._text.seek(0)
            self._text = _spooled(self._stack, self._text)
            self._is_packed = False
        if self._text.tell() != offset:
            self._text.seek(offset)

    def bytes_read(self) -> int:
        """How much of the stored file was read, more or less."""
        return self._raw.tell()


class LineWriter:
    """Where lines are written, measured as they are before any compression."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._file = file

    def write(self, text: str) -> None:
        """Write a text."""
        self.write_data(text.encode())

    def write_data(self, data: bytes) -> None:
        """Write what is no text."""
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def sha256(self) -> str:
        """The SHA-256 of all that was written so far."""
        return self._digest.hexdigest()


def path_of(field: str, given: str | PathLike[str]) -> Path:
    """The path that an argument names.

    Raises:
        InvalidInputError: The operating system has no such paths.
    """
    named: object = os.fspath(given)
    try:
        if isinstance(named, str) and named and b"\0" not in os.fsencode(named):
            return Path(named)
    except UnicodeEncodeError:
        # Not chained: that error holds the whole text.
        pass
    raise InvalidInputError(field, "must be the path of a file")


@contextmanager
def open_lines(source: object, *, store_path: Path | None) -> Iterator[LineReader]:
    """The lines of a path or a binary stream; gzip is known by its first bytes.

    Args:
        source: What cannot be read twice (a pipe) is copied to a temporary file first.
        store_path: The store's own file, which must not be opened; None for one in memory.

    Raises:
        InvalidInputError: It is neither a path nor a binary stream, or it belongs to a store that this process has open.
        OSError: It cannot be read.
    """
    with ExitStack() as stack:
        if isinstance(source, str | PathLike):
            path = path_of("source", source)
            refuse_open_store("source", path, store_path)
            raw: IO[bytes] = stack.enter_context(path.open("rb"))
            name = path.name
        else:
            raw, name = _binary("source", source), _name_of(source)
        if not raw.seekable() or raw.tell():
            raw = _spooled(stack, raw)
        packed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        text = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb"))) if packed else raw
        yield LineReader(raw, text, name, stack)


@contextmanager
def open_target(target: object, *, store_path: Path | None) -> Iterator[LineWriter]:
    """Where to write lines: a path, which appears whole or not at all, or a binary stream.

    Args:
        target: A path that ends in .gz is compressed. The file can be read by its owner only.
        store_path: The store's own file, which must not be replaced; None for one in memory.

    Raises:
        InvalidInputError: It is neither a path nor a binary stream, not a regular file, or part of a database.
        OSError: It cannot be written.
    """
    if not isinstance(target, str | PathLike):
        stream = _binary("target", target)
        yield LineWriter(stream)
        stream.flush()
        return
    path = path_of("target", target)
    refuse_open_store("target", path, store_path)
    _refuse_database("target", path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InvalidInputError("target", f"{path} is not a regular file")
    with _replacing(path) as file:
        if path.suffix.lower() == _GZIP_SUFFIX:
            # Without a time in it, equal exports are equal files.
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                yield LineWriter(cast(IO[bytes], packed))
        else:
            yield LineWriter(file)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    unfinished = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(unfinished, flags, PRIVATE_FILE)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _binary(field: str, given: object) -> Any:
    if isinstance(given, io.TextIOBase) or not hasattr(given, "read" if field == "source" else "write"):
        raise InvalidInputError(field, "must be a path or a binary file")
    return given


def _name_of(source: object) -> str:
    name = getattr(source, "name", None)
    return Path(name).name if isinstance(name, str) and not name.startswith("<") else _NAMELESS


def _spooled(stack: ExitStack, stream: IO[bytes]) -> IO[bytes]:
    copy = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


def _stem(name: str) -> str:
    path = Path(name)
    if path.suffix.lower() == _GZIP_SUFFIX:
        path = path.with_suffix("")
    stem = path.stem if path.suffix.lower() in _SUFFIXES else path.name
    return unicodedata.normalize("NFC", stem.strip())


def refuse_open_store(field: str, path: Path, store_path: Path | None) -> None:
    """Closing a descriptor of a database file would drop the locks that SQLite holds on it in this process."""
    if store_path is not None and _is_part_of(store_path, path):
        raise InvalidInputError(field, f"{path} belongs to the store itself")
    if registry.is_open(path):
        raise InvalidInputError(field, f"{path} belongs to a store that this process has open")


def _is_part_of(store_path: Path, path: Path) -> bool:
    found = _identity(path)
    parts = [sidecar(store_path, suffix) for suffix in ("", *SIDECAR_SUFFIXES)]
    return any((found is not None and found == _identity(part)) or path.absolute() == part for part in parts)


def _refuse_database(field: str, path: Path) -> None:
    """Another program may have it open, which only its neighbours tell: looking into it could drop locks."""
    for suffix in (WAL_SUFFIX, LOCK_SUFFIX):
        neighbour = sidecar(path, suffix)
        if os.path.lexists(neighbour):
            raise InvalidInputError(field, f"{path} looks like a database, since {neighbour.name} lies beside it")
    for suffix in SIDECAR_SUFFIXES:
        database = path.with_name(path.name.removesuffix(suffix) or path.name)
        if database != path and os.path.lexists(database):
            raise InvalidInputError(field, f"{path} looks like a part of the database {database.name}")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else (found.st_dev, found.st_ino)
