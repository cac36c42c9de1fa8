"""Lines in and out of plain and gzip files, paths and streams."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from sessionstore import InvalidInputError
from sessionstore.formats.streams import open_lines, open_target

TEXT = b'{"a": 1}\n{"b": 2}\n'


def all_lines(source: object) -> list[bytes]:
    with open_lines(source, store_path=None) as lines:
        found = []
        while (line := lines.read()) is not None:
            found.append(line)
        return found


class Pipe(io.BytesIO):
    """A stream that can be read once only."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: Any) -> int:
        raise OSError(errno.ESPIPE, "Illegal seek")

    def tell(self) -> int:
        raise OSError(errno.ESPIPE, "Illegal seek")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["path", "text path", "file", "pipe"])
def test_lines_are_the_same_from_every_source(tmp_path: Path, packed: bool, kind: str) -> None:
    data = gzip.compress(TEXT) if packed else TEXT
    path = tmp_path / "named-without-a-suffix"
    path.write_bytes(data)
    source = {"path": path, "text path": str(path), "file": io.BytesIO(data), "pipe": Pipe(data)}[kind]
    assert all_lines(source) == [b'{"a": 1}\n', b'{"b": 2}\n']


def test_a_stream_is_read_from_where_it_stands() -> None:
    stream = io.BytesIO(b"before\n" + TEXT)
    stream.readline()
    assert all_lines(stream) == [b'{"a": 1}\n', b'{"b": 2}\n']


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_can_be_read(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(TEXT,))
    writer.start()
    assert all_lines(fifo) == [b'{"a": 1}\n', b'{"b": 2}\n']
    writer.join()


@pytest.mark.parametrize("packed", [False, True])
def test_a_place_can_be_returned_to(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(TEXT) if packed else TEXT)
    with open_lines(path, store_path=None) as lines:
        lines.read()
        place = lines.place()
        assert lines.read() == b'{"b": 2}\n'
        assert lines.read() is None
        lines.return_to(place)
        assert lines.read() == b'{"b": 2}\n'
        assert lines.number == 2


@pytest.mark.parametrize("cut", [12, -9, -4])
def test_cut_or_damaged_gzip_is_refused(cut: int) -> None:
    whole = gzip.compress(TEXT)
    for data in (whole[:cut], whole[:cut] + b"\x55" + whole[cut:][1:]):
        with pytest.raises(InvalidInputError, match=r"line \d of stdin: the gzip data are damaged or cut short"):
            all_lines(io.BytesIO(data))


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert all_lines(io.BytesIO(b"\xef\xbb\xbf" + TEXT)) == [b'{"a": 1}\n', b'{"b": 2}\n']


def test_a_long_line_is_one_line() -> None:
    long = b'{"a": "' + b"x" * 20_000_000 + b'"}\n'
    assert all_lines(io.BytesIO(long + TEXT))[0] == long


@pytest.mark.parametrize(
    ("name", "stem"),
    [("chats.jsonl", "chats"), ("chats.jsonl.gz", "chats"), ("v1.2", "v1.2"), ("a.GZ", "a"), ("cafe\u0301.jsonl", "caf\u00e9")],
)
def test_the_stem_is_the_name_without_its_suffixes(tmp_path: Path, name: str, stem: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXT)
    with open_lines(path, store_path=None) as lines:
        assert lines.stem == stem


@pytest.mark.parametrize("source", [io.StringIO("{}"), 3, None, b"{}"])
def test_what_is_neither_path_nor_binary_file_is_refused(source: object) -> None:
    with pytest.raises(InvalidInputError, match="must be a path or a binary file"), open_lines(source, store_path=None):
        pass
    with pytest.raises(InvalidInputError, match="must be a path or a binary file"), open_target(source, store_path=None):
        pass


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_written_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with open_target(path, store_path=None) as lines:
        lines.write("{}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "{}\n"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")

    def fail() -> None:
        with open_target(path, store_path=None) as lines:
            lines.write("new\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_gzip_exports_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with open_target(tmp_path / name, store_path=None) as lines:
            lines.write("{}\n")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"{}\n"


def test_a_folder_a_link_and_a_device_are_no_targets(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("old\n")
    link = tmp_path / "link"
    link.symlink_to(kept)
    for target in (tmp_path, link, Path(os.devnull)):
        with pytest.raises(InvalidInputError, match="is not a regular file"), open_target(target, store_path=None):
            pass
    assert kept.read_text() == "old\n"


def test_a_missing_folder_is_named_without_the_temporary_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed, open_target(tmp_path / "no" / "out", store_path=None):
        pass
    assert failed.value.filename == str(tmp_path / "no" / "out")


@pytest.mark.parametrize(
    ("target", "beside"),
    [("x.db", "x.db-wal"), ("x.db", "x.db-lock"), ("x.db-wal", "x.db"), ("x.db-shm", "x.db"), ("x.db-lock", "x.db")],
)
def test_what_looks_like_another_programs_database_is_no_target(tmp_path: Path, target: str, beside: str) -> None:
    (tmp_path / target).write_bytes(b"theirs")
    (tmp_path / beside).touch()
    with pytest.raises(InvalidInputError, match="looks like a") as refused, open_target(tmp_path / target, store_path=None):
        pass
    assert refused.value.field == "target"
    assert (tmp_path / target).read_bytes() == b"theirs"
    (tmp_path / beside).unlink()
    with open_target(tmp_path / target, store_path=None) as lines:
        lines.write("mine")
    assert (tmp_path / target).read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-lock"])
def test_the_store_itself_is_neither_source_nor_target(tmp_path: Path, suffix: str) -> None:
    """Replacing it would lose all, and closing it would drop the locks of SQLite."""
    database = tmp_path / "agent.db"
    own = tmp_path / f"agent.db{suffix}"
    own.write_bytes(b"data")
    (tmp_path / "other-name").symlink_to(own)
    for path in (own, tmp_path / "other-name"):
        with pytest.raises(InvalidInputError, match="belongs to the store itself"), open_lines(path, store_path=database):
            pass
        with pytest.raises(InvalidInputError, match="belongs to the store itself"), open_target(path, store_path=database):
            pass
    assert own.read_bytes() == b"data"
