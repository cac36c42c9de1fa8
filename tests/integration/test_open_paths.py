"""What `open` does with every bad file and path of the catalogue: rows 1 to 40, one test each, on real files."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import (
    ConfigError,
    ForeignDatabaseError,
    NotADatabaseError,
    NotFoundError,
    ReadOnlyStoreError,
    SchemaTooNewError,
    StoreBusyError,
    StoreCorruptError,
    StoreOpenError,
    StoreWarning,
    UnsafePathError,
    UnsafePermissionsWarning,
    WrongKeyError,
)
from sessionstore.database import upgrade
from sessionstore.queries.views import VIEWS

POSIX = os.name == "posix"
NOBODY = 65534
HEADER = b"SQLite format 3\0"
PAGE = 4_096

# Text that takes whole pages, so that damage has something to hit.
WORDS = [f"message {number} " + "word " * 200 for number in range(60)]

posix_only = pytest.mark.skipif(not POSIX, reason="needs POSIX files")
root_only = pytest.mark.skipif(not POSIX or os.geteuid() != 0, reason="only root can become another user")


# -- helpers


def made_store(path: Path, words: list[str] | None = None) -> None:
    """A closed store with one session."""
    with sessionstore.open(path) as store:
        store.session("s").append_many([{"role": "user", "content": text} for text in words or WORDS])


def texts(path: Path, **options: Any) -> list[str | None]:
    """What the session of a store holds; opens and closes it."""
    with sessionstore.open(path, **options) as store:
        return [message.text for message in store.messages("s")]


def edit(path: Path, *statements: str) -> None:
    """Change a closed store behind its back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def patch(path: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a closed file."""
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def refused_untouched(path: Path, kind: type[Exception], match: str | None = None, **options: Any) -> Exception:
    """Opening raises exactly this error, names the file, and changes no byte of it."""
    before = digest(path)
    with pytest.raises(kind, match=match) as caught:
        sessionstore.open(path, **options)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    gc.collect()
    assert digest(path) == before
    return caught.value


def left_log(path: Path, script: str) -> bytes:
    """Run a script that dies without closing its database, and take the log that it leaves."""
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    return beside(path, "-wal").read_bytes()


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another process, from the moment it says "ready" until it is told to end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.stdin.close()
            process.wait(timeout=30)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users can enter, with all modules loaded that a child of another user may not read."""
    folder = Path(tempfile.mkdtemp(prefix="sessionstore-test-"))
    folder.chmod(0o755)
    with sessionstore.open(folder / "warm.db") as store:
        store.session("s").append("user", "x")
        store.list()
        store.status()
        store.doctor()
    yield folder
    for inner in (folder, *folder.rglob("*")):
        if inner.is_dir():
            inner.chmod(0o700)
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], object]) -> Any:
    """What the work returns, or the name and message of its error, in a forked child without rights."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside threads; this child takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            answer: object = work()
        except BaseException as error:
            answer = [type(error).__name__, str(error)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child, 0)
    return answer


def give_to_nobody(path: Path, mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)


# -- files that are no store


@pytest.mark.parametrize("text", ["hello\n", "x" * 100, "SQLite format 2, or so it says\n" * 500])
def test_row_01_a_text_file_is_not_a_database(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    refused_untouched(path, NotADatabaseError)


@pytest.mark.parametrize("size", [16, 100, PAGE])
def test_row_02_a_header_and_nothing_else_is_not_a_database(tmp_path: Path, size: int) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(HEADER.ljust(size, b"\0"))
    refused_untouched(path, NotADatabaseError)


def test_row_03_zeros_are_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(bytes(8_192))
    refused_untouched(path, NotADatabaseError)


def test_row_04_an_empty_file_becomes_a_store_unless_it_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.touch(0o600)
    refused_untouched(path, NotADatabaseError, "empty", must_exist=True)
    refused_untouched(path, NotADatabaseError, "empty", read_only=True)
    made_store(path)
    assert texts(path, must_exist=True) == WORDS


def test_row_04_a_missing_file_is_not_made_if_it_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    for options in ({"must_exist": True}, {"read_only": True}):
        with pytest.raises(NotADatabaseError, match="no such file"):
            sessionstore.open(path, **options)
    assert list(tmp_path.iterdir()) == []


# -- damaged stores


@pytest.mark.fault("F17")
def test_row_05_half_a_file_is_corrupt_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    refused_untouched(path, StoreCorruptError)


@pytest.mark.fault("F17")
@pytest.mark.parametrize("lost", [1, 100, PAGE - 1])
def test_row_06_a_file_cut_inside_its_last_page_is_corrupt_at_once(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    os.truncate(path, path.stat().st_size - lost)
    refused_untouched(path, StoreCorruptError)


@pytest.mark.fault("F17")
def test_row_07_flipped_bytes_in_page_6_are_found_by_the_doctor(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    page = path.read_bytes()[5 * PAGE : 6 * PAGE]
    patch(path, 5 * PAGE, bytes(byte ^ 0xFF for byte in page[:200]))
    try:
        with sessionstore.open(path) as store:
            assert not store.doctor().ok
    except StoreCorruptError as error:
        assert error.path == str(path)  # noqa: PT017 - either way of saying it keeps the promise


@pytest.mark.fault("F17")
def test_row_07_flipped_bytes_anywhere_never_give_wrong_messages(tmp_path: Path) -> None:
    made_store(tmp_path / "whole.db")
    whole = (tmp_path / "whole.db").read_bytes()
    outcomes = {"read": 0, "corrupt": 0}
    for start in range(PAGE, len(whole), PAGE):
        path = tmp_path / f"flipped-{start}.db"
        path.write_bytes(whole)
        path.chmod(0o600)
        patch(path, start + 900, bytes(byte ^ 0xFF for byte in whole[start + 900 : start + 1_100]))
        try:
            assert texts(path) == WORDS
        except StoreCorruptError:
            outcomes["corrupt"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["corrupt"] >= 10, outcomes


@pytest.mark.fault("F17")
def test_row_07_a_flipped_name_is_never_an_empty_history(tmp_path: Path) -> None:
    """A session's name stands in its row and in an index; a reader gets the right messages or an error, never an empty list."""
    name = "session-of-many-words"
    made_store(tmp_path / "whole.db")
    with sessionstore.open(tmp_path / "whole.db") as store:
        store.rename("s", name)
    whole = (tmp_path / "whole.db").read_bytes()
    places = [place for place in range(len(whole)) if whole.startswith(name.encode(), place)]
    assert len(places) >= 2
    for place in places:
        path = tmp_path / f"flipped-{place}.db"
        path.write_bytes(whole)
        path.chmod(0o600)
        patch(path, place + 3, b"\x01")
        with sessionstore.open(path) as store:
            try:
                found = [message.text for message in store.messages(name)]
            except (StoreCorruptError, NotFoundError):
                continue
            assert found == WORDS


@pytest.mark.parametrize("version", [b"\3\3", b"\x09\x09"])
def test_row_08_an_unknown_format_version_is_refused(tmp_path: Path, version: bytes) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    patch(path, 18, version)
    refused_untouched(path, NotADatabaseError)


def test_row_09_an_unknown_schema_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    patch(path, 44, (9).to_bytes(4, "big"))
    refused_untouched(path, NotADatabaseError, "format")


# -- schemas of other versions and other programs


def test_row_10_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    edit(path, f"UPDATE {upgrade.VERSION_TABLE} SET version_num = '9999'")
    refused_untouched(path, SchemaTooNewError, "9999")
    refused_untouched(path, SchemaTooNewError, "9999", read_only=True)
    assert not list(tmp_path.glob("*pre-upgrade*"))


NEXT_REVISION = '''
"""A revision that only this test knows."""
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "0007", "0006", None, None
def upgrade():
    op.add_column("store_info", sa.Column("later", sa.Integer()))
'''


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of this library that has one revision more."""
    folder = tmp_path / "migrations"
    shutil.copytree(upgrade.migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0007_later.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(upgrade, "migrations_folder", lambda: folder)
    monkeypatch.setattr(upgrade, "HEAD_REVISION", "0007")


def test_row_11_an_older_schema_is_not_upgraded_against_the_callers_will(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    request.getfixturevalue("next_revision")
    refused_untouched(path, ConfigError, "sessionstore upgrade", migrate=False)
    refused_untouched(path, ConfigError, "sessionstore upgrade", read_only=True)
    with sessionstore.open(path) as store:
        assert store.status().schema_revision == "0007"
        assert [message.text for message in store.messages("s")] == WORDS
    assert [backup.name for backup in tmp_path.glob("*pre-upgrade*")] == ["agent.db.pre-upgrade-0006.db"]


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE bookmarks (url TEXT)"],
        ["PRAGMA application_id=252006675", "CREATE TABLE tiles (x INTEGER)"],
        ["PRAGMA application_id=252006675", "PRAGMA user_version=7"],
        ["CREATE TABLE sessions (session_id TEXT)", "CREATE TABLE messages (id INTEGER)"],
    ],
    ids=["no-application-id", "other-application-id", "without-tables", "tables-named-as-ours"],
)
def test_row_12_a_database_of_another_program_is_refused(tmp_path: Path, statements: list[str]) -> None:
    path = tmp_path / "places.sqlite"
    edit(path, *statements)
    path.chmod(0o600)
    refused_untouched(path, ForeignDatabaseError, "another program")
    refused_untouched(path, ForeignDatabaseError, "another program", read_only=True)


@pytest.mark.fault("F17")
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE messages DROP COLUMN finish_reason",
        "ALTER TABLE sessions DROP COLUMN title",
        "ALTER TABLE store_info DROP COLUMN store_id",
        "ALTER TABLE session_tags RENAME COLUMN tag TO label",
        "DROP TABLE session_tags",
        f"DROP TABLE {upgrade.VERSION_TABLE}",
        f"DELETE FROM {upgrade.VERSION_TABLE}",
        f"INSERT INTO {upgrade.VERSION_TABLE} VALUES ('0000')",
    ],
)
def test_row_13_a_missing_column_or_table_is_damage(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    # SQLite drops no column that a view shows.
    edit(path, *(f"DROP VIEW {name}" for name in VIEWS), statement)
    refused_untouched(path, StoreCorruptError)


ENCRYPT = """
import sys, sqlcipher3
connection = sqlcipher3.connect(sys.argv[1])
connection.execute("PRAGMA key = 'a passphrase'")
connection.execute("CREATE TABLE sessions (x)")
connection.executemany("INSERT INTO sessions VALUES (?)", [("word " * 50,) for _ in range(100)])
connection.commit()
connection.close()
"""


def test_row_14_an_encrypted_file_is_told_from_rubbish(tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3", reason="sqlcipher3 is not installed (dependency group test)")
    path = tmp_path / "agent.db"
    # In a process of its own: two copies of SQLite must not meet in one.
    subprocess.run([sys.executable, "-c", ENCRYPT, str(path)], check=True, timeout=60)
    path.chmod(0o600)
    refused_untouched(path, WrongKeyError, "encrypted")


def test_row_15_a_plain_file_is_not_opened_with_a_key(tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3", reason="sqlcipher3 is not installed (dependency group test)")
    path = tmp_path / "agent.db"
    sessionstore.open(path).close()
    refused_untouched(path, WrongKeyError, "not encrypted", key=bytes(range(32)))


# -- things that are no regular file


@pytest.mark.fault("F14")
def test_row_16_a_folder_is_unsafe(tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError, match="folder"):
        sessionstore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F14")
@posix_only
def test_row_17_a_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UnsafePathError, match="regular"):
        sessionstore.open(path)


@pytest.mark.fault("F14")
@posix_only
def test_row_18_a_socket_is_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket's path must be short.
    monkeypatch.chdir(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind("sock")
        with pytest.raises(UnsafePathError, match="regular"):
            sessionstore.open("sock")


@pytest.mark.fault("F14")
@posix_only
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_row_18_a_device_is_unsafe(device: str) -> None:
    with pytest.raises(UnsafePathError, match="regular"):
        sessionstore.open(device)
    assert not list(Path("/dev").glob(Path(device).name + "-*"))


# -- folders


def test_row_19_a_missing_folder_is_named_or_made_private(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "agent.db"
    with pytest.raises(StoreOpenError, match="create_parents") as caught:
        sessionstore.open(path)
    assert caught.value.path == str(path.parent)
    assert not (tmp_path / "some").exists()
    made_store_at = sessionstore.open(path, create_parents=True)
    made_store_at.close()
    if POSIX:
        assert [folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)] == [0o700, 0o700]
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("below", ["agent.db", "deeper/agent.db"])
def test_row_20_a_file_is_no_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    for options in ({}, {"create_parents": True}):
        with pytest.raises(StoreOpenError, match="not a folder") as caught:
            sessionstore.open(tmp_path / "file" / below, **options)
        assert type(caught.value) is StoreOpenError
    assert (tmp_path / "file").read_text() == "x"


# -- links


@pytest.mark.fault("F14")
@posix_only
def test_row_21_a_symlink_is_followed_only_if_asked(tmp_path: Path) -> None:
    made_store(tmp_path / "real.db")
    link = tmp_path / "link.db"
    link.symlink_to("real.db")
    with pytest.raises(UnsafePathError, match="follow_symlinks"):
        sessionstore.open(link)
    assert texts(link, follow_symlinks=True) == WORDS
    assert not list(tmp_path.glob("link.db-*"))


@pytest.mark.fault("F14")
@posix_only
def test_row_21_a_dangling_symlink_makes_no_file_unless_asked(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to("real.db")
    with pytest.raises(UnsafePathError, match="symbolic link"):
        sessionstore.open(link)
    assert not (tmp_path / "real.db").exists()
    sessionstore.open(link, follow_symlinks=True).close()
    assert (tmp_path / "real.db").is_file()


@pytest.mark.fault("F14")
@posix_only
def test_row_21_a_folder_may_be_reached_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    made_store(tmp_path / "link" / "agent.db")
    assert texts(tmp_path / "real" / "agent.db") == WORDS


@pytest.mark.fault("F14")
@posix_only
@pytest.mark.parametrize("follow", [False, True])
def test_row_22_a_loop_of_symlinks_is_unsafe(tmp_path: Path, follow: bool) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "agent.db"):
        with pytest.raises(UnsafePathError):
            sessionstore.open(path, follow_symlinks=follow)


@pytest.mark.fault("F14")
@posix_only
def test_row_23_a_file_with_two_names_is_unsafe_under_both(tmp_path: Path) -> None:
    made_store(tmp_path / "first.db")
    (tmp_path / "second.db").hardlink_to(tmp_path / "first.db")
    for name in ("first.db", "second.db"):
        refused_untouched(tmp_path / name, UnsafePathError, "hard link")
    (tmp_path / "second.db").unlink()
    assert texts(tmp_path / "first.db") == WORDS


@pytest.mark.fault("F14")
@posix_only
def test_row_23_a_second_name_of_a_store_in_use_is_unsafe(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "first.db") as store:
        chat = store.session("s")
        (tmp_path / "second.db").hardlink_to(tmp_path / "first.db")
        with pytest.raises(UnsafePathError, match="hard link"):
            sessionstore.open(tmp_path / "second.db")
        chat.append("user", "still here")
        assert [message.text for message in chat.messages()] == ["still here"]


# -- permissions


@pytest.mark.fault("F14")
@posix_only
def test_row_24_a_file_and_folder_without_write_permission_are_read_only(shared_folder: Path) -> None:
    folder = shared_folder / "medium"
    folder.mkdir()
    path = folder / "agent.db"
    made_store(path)
    give_to_nobody(path, 0o444)
    beside(path, "-lock").unlink(missing_ok=True)
    give_to_nobody(folder, 0o555)
    kind, message = as_nobody(lambda: sessionstore.open(path))
    assert kind == "ReadOnlyStoreError"
    assert "read_only=True" in message
    assert as_nobody(lambda: texts(path, read_only=True)) == WORDS
    assert [inner.name for inner in folder.iterdir()] == ["agent.db"]


@pytest.mark.fault("F14")
@posix_only
def test_row_24_a_folder_without_write_permission_is_read_only(shared_folder: Path) -> None:
    folder = shared_folder / "medium"
    folder.mkdir()
    path = folder / "agent.db"
    made_store(path)
    give_to_nobody(path, 0o600)
    give_to_nobody(folder, 0o555)
    assert as_nobody(lambda: sessionstore.open(path))[0] == "ReadOnlyStoreError"
    assert as_nobody(lambda: sessionstore.open(folder / "new.db"))[0] == "ReadOnlyStoreError"


@pytest.mark.fault("F14")
@posix_only
def test_row_24_a_store_opened_to_be_read_refuses_every_write(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    before = digest(path)
    with sessionstore.open(path, read_only=True) as store:
        assert [message.text for message in store.messages("s")] == WORDS
        for write in (
            lambda: store.append("s", "user", "x"),
            lambda: store.create("other"),
            lambda: store.session("other"),
            lambda: store.clear("s"),
            lambda: store.delete("s"),
            lambda: store.update("s", title="x"),
        ):
            with pytest.raises(ReadOnlyStoreError):
                write()
    assert digest(path) == before


@pytest.mark.fault("F14")
@root_only
def test_row_25_a_private_file_of_another_user_is_refused(shared_folder: Path) -> None:
    folder = shared_folder / "open"
    folder.mkdir()
    path = folder / "agent.db"
    made_store(path)
    before = digest(path)
    give_to_nobody(folder, 0o755)
    kind, message = as_nobody(lambda: sessionstore.open(path))
    assert kind == "StoreOpenError"
    assert "EACCES" in message
    assert as_nobody(lambda: sessionstore.open(path, read_only=True))[0] == "StoreOpenError"
    assert digest(path) == before


@pytest.mark.fault("F14")
@posix_only
def test_row_26_a_file_that_others_can_write_is_warned_about_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    path.chmod(0o666)
    refused_untouched(path, UnsafePathError, "chmod 600", strict_permissions=True)
    with pytest.warns(UnsafePermissionsWarning, match="chmod 600"):
        store = sessionstore.open(path)
    with store:
        assert any("chmod 600" in warning for warning in store.status().warnings)
        assert [message.text for message in store.messages("s")] == WORDS


@pytest.mark.fault("F14")
@posix_only
def test_row_26_a_folder_that_everybody_can_write_is_warned_about_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    path = folder / "agent.db"
    made_store(path)
    folder.chmod(0o777)
    refused_untouched(path, UnsafePathError, "chmod 700", strict_permissions=True)
    with pytest.warns(UnsafePermissionsWarning, match="chmod 700"):
        assert texts(path) == WORDS
    # With the sticky bit, as /tmp has it, others cannot replace the file.
    folder.chmod(0o1777)
    assert texts(path, strict_permissions=True) == WORDS


@pytest.mark.fault("F14")
@posix_only
def test_row_26_a_refused_new_store_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UnsafePathError, match="chmod 700"):
        sessionstore.open(folder / "agent.db", strict_permissions=True)
    assert list(folder.iterdir()) == []


# -- names


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 100] * 50) + "/agent.db"], ids=["name", "path"])
def test_row_27_a_name_that_is_too_long_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreOpenError, match="ENAMETOOLONG"):
        sessionstore.open(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@posix_only
def test_row_27_a_name_too_long_for_its_sidecars_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreOpenError, match="ENAMETOOLONG"):
        sessionstore.open(tmp_path / ("n" * 252))
    assert list(tmp_path.iterdir()) == []


def test_row_28_a_nul_in_a_path_is_refused(tmp_path: Path) -> None:
    for location in (f"{tmp_path}/a\0b.db", tmp_path / "a\0b.db", f"sqlite:///{tmp_path}/a%00b.db"):
        with pytest.raises(ConfigError, match="NUL"):
            sessionstore.open(location)
    assert list(tmp_path.iterdir()) == []


def test_row_29_a_lone_surrogate_in_a_path_is_refused(tmp_path: Path) -> None:
    for name in ("a\ud800.db", "a\udcff.db"):
        for location in (f"{tmp_path}/{name}", tmp_path / name):
            with pytest.raises(ConfigError, match="surrogate"):
                sessionstore.open(location)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_row_29_a_store_works_in_a_folder_whose_name_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "f\udcff"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has names of text only")
    monkeypatch.chdir(folder)
    with sessionstore.open("a.db") as store:
        store.session("s").append("user", "x")
        store.backup("b.db")
    sessionstore.restore("b.db", "c.db")
    for name in ("a.db", "c.db"):
        with sessionstore.open(name, read_only=True) as store:
            assert [message.text for message in store.messages("s")] == ["x"]


def test_row_30_an_empty_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="empty"):
        sessionstore.open("")
    assert list(tmp_path.iterdir()) == []


def test_row_31_a_store_in_memory_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for location in (":memory:", Path(":memory:"), "sqlite:///:memory:"):
        with pytest.raises(ConfigError, match="in_memory=True"):
            sessionstore.open(location)
    with pytest.raises(ConfigError, match="location"):
        sessionstore.open("agent.db", in_memory=True)
    with sessionstore.open(in_memory=True) as store:
        store.session("s").append("user", "x")
        assert store.status().path is None
        assert len(store.messages("s")) == 1
    assert list(tmp_path.iterdir()) == []


ODD_NAMES = (
    "q?mode=memory.db",
    "p%20q.db",
    "a#b.db",
    "with space.db",
    "ünïcode-✓.db",
    "-dash.db",
    "semi;colon.db",
    "'quote'.db",
    '"double".db',
    "back\\slash.db",
    "a&b=c+d.db",
    "100%.db",
)


@posix_only
@pytest.mark.parametrize("name", ODD_NAMES)
def test_row_32_an_odd_name_is_taken_literally(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    made_store(path, ["kept"])
    assert {inner.name for inner in tmp_path.iterdir()} - {name + "-lock"} == {name}
    assert texts(str(path), must_exist=True) == ["kept"]
    assert texts(path, read_only=True) == ["kept"]


@posix_only
@pytest.mark.parametrize("name", ["file:x?mode=memory", "-dash.db", "~", "line\nfeed.db", "file::memory:", ".hidden", "nodot"])
def test_row_33_a_name_with_a_meaning_elsewhere_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    made_store(Path(name), ["kept"])
    assert (tmp_path / name).is_file()
    assert texts(name) == ["kept"]


@posix_only
def test_row_33_a_tilde_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with pytest.raises(StoreOpenError, match="no such folder"):
        sessionstore.open("~/x.db")
    sessionstore.open("~/x.db", create_parents=True).close()
    assert (tmp_path / "~" / "x.db").is_file()
    assert list((tmp_path / "home").iterdir()) == []


def test_row_34_a_trailing_slash_is_refused(tmp_path: Path) -> None:
    made_store(tmp_path / "agent.db")
    for location in (f"{tmp_path}/agent.db/", f"{tmp_path}/", f"sqlite:///{tmp_path}/agent.db/"):
        with pytest.raises(ConfigError, match="slash"):
            sessionstore.open(location)


# -- sidecars


@pytest.mark.fault("F18")
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock"])
def test_row_35_a_folder_in_the_place_of_a_sidecar_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    beside(path, "-lock").unlink(missing_ok=True)
    beside(path, suffix).mkdir()
    before = digest(path)
    with pytest.raises(StoreOpenError) as caught:
        sessionstore.open(path)
    assert caught.value.path == str(beside(path, suffix))
    assert digest(path) == before


@pytest.mark.fault("F18")
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock"])
def test_row_35_a_folder_in_the_place_of_a_sidecar_leaves_no_new_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "agent.db"
    beside(path, suffix).mkdir()
    with pytest.raises(StoreOpenError):
        sessionstore.open(path)
    assert not path.exists()


@pytest.mark.fault("F18")
def test_row_36_a_log_that_was_cut_short_is_ignored_as_after_any_crash(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    beside(path, "-wal").write_bytes(b"\x37\x7f\x06\x82" + b"z" * 8_000)
    assert texts(path) == WORDS


@pytest.mark.fault("F18")
@pytest.mark.parametrize("garbage", [b"x", b"garbage " * 1_000, bytes(8_192)])
def test_row_36_a_garbage_log_is_ignored_with_a_warning(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    beside(path, "-wal").write_bytes(garbage)
    with pytest.warns(StoreWarning, match="is none and is ignored"):
        store = sessionstore.open(path)
    with store:
        assert [message.text for message in store.messages("s")] == WORDS
        assert any("is none and is ignored" in warning for warning in store.status().warnings)
        store.append("s", "user", "more")
    assert texts(path) == [*WORDS, "more"]


FOREIGN_LOG = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL").fetchall()
connection.execute("CREATE TABLE bookmarks (url TEXT)")
connection.execute("INSERT INTO bookmarks VALUES ('foreign')")
os._exit(0)
"""

OTHER_STORE_LOG = """
import os, sys, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "of another store")
os._exit(0)
"""


@pytest.mark.fault("F18")
def test_row_37_the_log_of_another_program_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    main_file = path.read_bytes()
    beside(path, "-wal").write_bytes(left_log(tmp_path / "foreign.db", FOREIGN_LOG))
    with pytest.raises((ForeignDatabaseError, StoreCorruptError)):
        sessionstore.open(path)
    assert path.read_bytes() == main_file
    beside(path, "-wal").unlink()
    beside(path, "-shm").unlink(missing_ok=True)
    assert texts(path) == WORDS


@pytest.mark.fault("F18")
@pytest.mark.parametrize("read_only", [False, True])
def test_row_37_the_log_of_another_store_never_replaces_the_messages(read_only: bool, tmp_path: Path) -> None:
    """Neither the content nor the file of a store may become another store's because of a log that lies beside it."""
    path = tmp_path / "agent.db"
    made_store(path)
    main_file = path.read_bytes()
    beside(path, "-wal").write_bytes(left_log(tmp_path / "other.db", OTHER_STORE_LOG))
    with pytest.raises((ForeignDatabaseError, StoreCorruptError)):
        sessionstore.open(path, read_only=read_only)
    assert path.read_bytes() == main_file


HALF_COPIED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
((real,),) = connection.execute("SELECT store_id FROM store_info").fetchall()
connection.execute("UPDATE store_info SET store_id = 'of another table'")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
connection.execute("UPDATE store_info SET store_id = ?", (real,))
os._exit(0)
"""


@pytest.mark.fault("F18")
def test_row_37_our_own_log_is_taken_in_where_the_file_alone_says_something_else(tmp_path: Path) -> None:
    """As when power is lost while a rebuilt file is copied from its log: the page of the id may hold another table still."""
    path = tmp_path / "agent.db"
    made_store(path)
    assert left_log(path, HALF_COPIED)
    assert texts(path) == WORDS


@pytest.mark.fault("F18")
def test_row_37_our_own_log_of_a_killed_process_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    assert left_log(path, OTHER_STORE_LOG)
    assert texts(path) == [*WORDS, "of another store"]


# -- locks


EXCLUSIVE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE sessions SET version = version")
print("ready", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
connection.close()
"""

WRITER_LOCK = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault("F8")
def test_row_38_an_exclusive_lock_of_another_program_is_busy_within_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    with running(EXCLUSIVE, path):
        started = time.monotonic()
        with pytest.raises(StoreBusyError) as caught:
            sessionstore.open(path, busy_timeout=0.2)
        # A generous bound: it must not be the 10 seconds of the default, nor for ever.
        assert time.monotonic() - started < 8
        assert caught.value.path.startswith(str(path))
    assert texts(path) == WORDS


@pytest.mark.fault("F8")
@posix_only
def test_row_38_the_write_lock_of_another_process_is_busy_within_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    with running(WRITER_LOCK, beside(path, "-lock")), pytest.raises(StoreBusyError, match="busy_timeout"):
        sessionstore.open(path, busy_timeout=0.2)
    assert texts(path) == WORDS


OTHER_PROCESS = """
import sys, sessionstore
with sessionstore.open(sys.argv[1]) as store:
    store.append("s", "user", "from the other process")
"""

READ_PROCESS = """
import json, sys, sessionstore
with sessionstore.open(sys.argv[1]) as store:
    print(json.dumps([message.text for message in store.messages("s")]))
"""

KILLED_PROCESS = """
import os, subprocess, sys, sessionstore
path, other = sys.argv[1:]
first, second = sessionstore.open(path), sessionstore.open(path)
first.session("s").append("user", "one")
second.close()
subprocess.run([sys.executable, "-c", other, path], check=True)
first.append("s", "user", "two")
os.kill(os.getpid(), 9)
"""


def test_row_39_two_opens_of_one_path_share_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sessionstore.open("agent.db") as first, sessionstore.open(tmp_path / "agent.db", namespace="other") as second:
        assert first._database is second._database
        first.session("s").append("user", "one")
        second.session("s").append("user", "two")
        assert second.in_namespace("").messages("s")[0].text == "one"
    with pytest.raises(sessionstore.ClosedStoreError):
        first.messages("s")


@posix_only
def test_row_39_two_opens_of_one_path_lose_nothing(tmp_path: Path) -> None:
    """Closing one of two opens must not drop the locks of the other: that loses commits when another process comes by."""
    path = tmp_path / "agent.db"
    command = [sys.executable, "-c", KILLED_PROCESS, str(path), OTHER_PROCESS]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    seen = subprocess.run([sys.executable, "-c", READ_PROCESS, str(path)], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(seen.stdout) == ["one", "from the other process", "two"]


def test_row_39_there_is_no_second_driver_to_choose() -> None:
    """`driver=` is no part of this version, so one process cannot open a file with two copies of SQLite through this library."""
    assert "driver" not in inspect.signature(sessionstore.open).parameters


def test_row_39_a_file_that_is_only_read_here_is_not_opened_for_writing_beside(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    made_store(path)
    with sessionstore.open(path, read_only=True), pytest.raises(ConfigError, match="read_only"):
        sessionstore.open(path)
    assert texts(path) == WORDS


class OddPath(type(Path())):
    """A subclass of Path, as other libraries make them."""


@pytest.mark.parametrize("location", [b"agent.db", 5, 5.0, ["agent.db"], object(), True, {"path": "agent.db"}])
def test_row_40_only_texts_and_paths_are_locations(location: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="location"):
        sessionstore.open(location)
    assert list(tmp_path.iterdir()) == []


def test_row_40_a_subclass_of_path_is_a_path(tmp_path: Path) -> None:
    made_store(OddPath(tmp_path / "agent.db"), ["kept"])
    assert texts(tmp_path / "agent.db") == ["kept"]


def test_row_40_no_location_is_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", str(tmp_path / "agent.db"))
    sessionstore.open(None).close()
    assert (tmp_path / "agent.db").is_file()
