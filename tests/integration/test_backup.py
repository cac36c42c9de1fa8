"""Backup, restore and vacuum: a copy of one moment, whole or not there; and an old store that nothing takes away."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

import sessionstore
from sessionstore import SessionStore, opening, rows
from sessionstore.cli import main
from sessionstore.database import restores, upgrade, vacuums

Dump = dict[str, list[tuple[Any, ...]]]
ROOT = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes or signals")


def say(store: SessionStore, *texts: str, session: str = "s") -> None:
    store.session(session).append_many([{"role": "user", "content": text} for text in texts])


def texts(path: Path, session: str = "s", **options: Any) -> list[str | None]:
    with sessionstore.open(path, must_exist=True, **options) as store:
        assert store.doctor().ok
        return [message.text for message in store.messages(session)] if store.get(session) else []


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.fixture
def backup(store: SessionStore, tmp_path: Path) -> Path:
    """A backup with one message; the store has another one since."""
    say(store, "in the backup")
    made = tmp_path / "backup.db"
    store.backup(made)
    say(store, "later")
    return made


# -- backup


def test_a_backup_holds_every_row_of_every_table(store: SessionStore, store_path: Path, tmp_path: Path) -> None:
    say(store, "one", "two")
    store.session("t", tags=["x"], metadata={"k": 1}).append("assistant", "three", model="m", input_tokens=3)
    store.record("speed", 1.5)
    store.set_remote("http://127.0.0.1:9")
    store.session("told", agent_id="a")
    made = tmp_path / "backup.db"
    receipt = store.backup(str(made))
    assert dumped(made) == dumped(store_path)
    status = store.status()
    assert (receipt.store_id, receipt.schema_revision) == (status.store_id, status.schema_revision)
    assert (receipt.sessions, receipt.messages) == (status.sessions, status.messages) == (3, 3)
    assert (receipt.path, receipt.size_bytes) == (str(made), made.stat().st_size)
    assert receipt.taken_at.tzinfo is not None
    assert texts(made) == ["one", "two"]


def dumped(path: Path) -> Dump:
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'")
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr) for (name,) in tables.fetchall()}


@pytest.mark.fault("F19")
def test_every_backup_under_load_shows_one_moment(store: SessionStore, tmp_path: Path, trial: Trial) -> None:
    """A writer appends to A and then to B; whatever the moment, A has as many or one more, and nothing acknowledged is missing."""
    acknowledged = [0]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            number = acknowledged[0] + 1
            store.append("a", "user", f"a {number} " + "x" * (number * 97 % 3000))
            store.append("b", "user", f"b {number}")
            acknowledged[0] = number

    store.session("a")
    store.session("b")
    writer = threading.Thread(target=write)
    writer.start()
    found = []
    backups = trial.size(push=12, nightly=60, release=200)
    try:
        for number in range(backups):
            before = acknowledged[0]
            store.backup(tmp_path / f"{number}.db")
            found.append((before, acknowledged[0] + 1))
    finally:
        stop.set()
        writer.join()
    for number, (least, most) in enumerate(found):
        with sessionstore.open(tmp_path / f"{number}.db") as copied:
            first = [str(message.text).split(" x")[0].strip() for message in copied.messages("a")]
            second = [message.text for message in copied.messages("b")]
            assert copied.doctor().ok
        assert least <= len(second) <= len(first) <= most
        assert len(first) - len(second) in (0, 1)
        assert first == [f"a {n}" for n in range(1, len(first) + 1)]
        assert second == [f"b {n}" for n in range(1, len(second) + 1)]
    assert found[-1][0] > 0, "nothing was written meanwhile: it proves nothing"
    trial.report(f"{backups} backups under load, {backups} equal to one moment; {acknowledged[0]:,} turns were written meanwhile")


def test_writers_go_on_while_a_backup_is_taken(store: SessionStore, tmp_path: Path) -> None:
    """Each report of progress appends, in the middle of the copying; the backup shows what was there before."""
    say(store, *(f"{number} " + "x" * 9_000 for number in range(400)))
    seen: list[tuple[int, int | None]] = []

    def report(done: int, total: int | None) -> None:
        seen.append((done, total))
        say(store, "meanwhile")

    receipt = store.backup(tmp_path / "backup.db", progress=report)
    assert len(seen) > 2
    assert seen[-1] == (receipt.size_bytes, receipt.size_bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert receipt.messages == 400
    assert len(texts(tmp_path / "backup.db")) == 400
    assert len(store.messages("s")) == 400 + len(seen)


@posix_only
def test_a_backup_is_for_its_owner_only_and_leaves_nothing_beside_it(backup: Path, store_path: Path) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    beside = {name for name in names(backup.parent) if not name.startswith(store_path.name)}
    assert beside == {"backup.db"}


@pytest.mark.fault("F19")
def test_a_file_that_is_there_is_replaced_only_if_asked_for(store: SessionStore, backup: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(sessionstore.InvalidInputError, match="overwrite"):
        store.backup(backup)
    assert backup.read_bytes() == before
    assert store.backup(backup, overwrite=True).messages == 2
    assert texts(backup) == ["in the backup", "later"]


BAD_PLACES: dict[str, Callable[[Path], Any]] = {
    "the store": lambda path: path,
    "its log": lambda path: path.with_name(path.name + "-wal"),
    "its lock": lambda path: path.with_name(path.name + "-lock"),
    "a folder": lambda path: path.parent,
    "a link": lambda path: link(path.with_name("link.db"), path.with_name("elsewhere.db")),
    "a link to the store": lambda path: link(path.with_name("link.db"), path),
    "beside a foreign log": lambda path: beside(path.with_name("b.db"), "-wal"),
    "beside a foreign journal": lambda path: beside(path.with_name("b.db"), "-journal"),
    "the log of another file": lambda path: Path(f"{beside(path.with_name('other.db'), '')}-wal"),
    "nothing": lambda path: "",
    "a slash": lambda path: f"{path.parent}/",
    "NUL": lambda path: f"{path}\0",
    "bytes": lambda path: os.fsencode(path.with_name("b.db")),
    "no path": lambda path: 5,
}


def link(name: Path, to: Path) -> Path:
    name.symlink_to(to)
    return name


def beside(path: Path, suffix: str) -> Path:
    Path(f"{path}{suffix}").write_bytes(b"something")
    return path


@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_place_where_a_backup_could_do_harm_is_refused(store: SessionStore, store_path: Path, place: str) -> None:
    say(store, "kept")
    target = BAD_PLACES[place](store_path)
    before = names(store_path.parent)
    with pytest.raises(sessionstore.InvalidInputError) as caught:
        store.backup(target, overwrite=True)
    assert caught.value.field == "target"
    assert names(store_path.parent) == before
    assert [message.text for message in store.messages("s")] == ["kept"]


def test_another_open_store_is_never_overwritten(store: SessionStore, tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "other.db") as other:
        say(other, "mine")
        with pytest.raises(sessionstore.InvalidInputError, match="open"):
            store.backup(tmp_path / "other.db", overwrite=True)
    assert texts(tmp_path / "other.db") == ["mine"]


def test_a_missing_folder_is_told(store: SessionStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        store.backup(tmp_path / "absent" / "b.db")
    assert caught.value.filename == str(tmp_path / "absent")


@pytest.mark.fault("F19")
@pytest.mark.parametrize("existing", [False, True])
def test_a_backup_that_fails_leaves_what_was_there(store: SessionStore, tmp_path: Path, existing: bool) -> None:
    say(store, "x")
    target = tmp_path / "b.db"
    if existing:
        store.backup(target)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("b.db*")}

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.backup(target, overwrite=True, progress=fail)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("b.db*")} == before
    store.backup(target, overwrite=True)


def test_two_backups_to_one_place_do_not_mix(store: SessionStore, tmp_path: Path) -> None:
    say(store, "x")
    refusals = []

    def begin_another(done: int, total: int | None) -> None:
        if not refusals:
            with pytest.raises(sessionstore.StoreBusyError) as caught:
                store.backup(tmp_path / "b.db")
            refusals.append(caught.value)

    store.backup(tmp_path / "b.db", progress=begin_another)
    assert refusals
    assert texts(tmp_path / "b.db") == ["x"]


def test_a_store_in_memory_has_nothing_to_back_up_and_says_so(tmp_path: Path) -> None:
    with sessionstore.open(in_memory=True) as store:
        for call in (lambda: store.backup(tmp_path / "b.db"), store.vacuum):
            with pytest.raises(sessionstore.ConfigError, match="memory"):
                call()
    assert names(tmp_path) == set()


def test_a_store_that_is_only_read_is_backed_up_and_not_vacuumed(backup: Path, tmp_path: Path) -> None:
    with sessionstore.open(backup, read_only=True) as store:
        assert store.backup(tmp_path / "again.db").messages == 1
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            store.vacuum()


def test_a_closed_store_is_not_backed_up(store: SessionStore, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(sessionstore.ClosedStoreError):
        store.backup(tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


# -- restore


@pytest.mark.fault("F19")
def test_a_restore_takes_the_place_of_the_store_and_keeps_it(store: SessionStore, backup: Path, store_path: Path) -> None:
    store.close()
    before = backup.read_bytes()
    receipt = sessionstore.restore(backup, store_path)
    assert texts(store_path) == ["in the backup"]
    assert receipt.previous is not None
    assert texts(Path(receipt.previous)) == ["in the backup", "later"]
    assert backup.read_bytes() == before
    assert (receipt.path, receipt.sessions, receipt.messages) == (str(store_path), 1, 1)
    assert receipt.size_bytes == len(before)
    if os.name == "posix":
        assert stat.S_IMODE(store_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(receipt.previous).parent.stat().st_mode) == 0o700


@pytest.mark.fault("F19")
def test_a_restored_store_is_the_same_store(store: SessionStore, backup: Path, store_path: Path) -> None:
    """Its id stays, which checksums begin with; what is written goes on behind what the backup holds."""
    store_id = store.status().store_id
    store.close()
    assert sessionstore.restore(backup, store_path).store_id == store_id
    with sessionstore.open(store_path) as restored:
        assert restored.append("s", "user", "new").seq == 2
        assert restored.status().store_id == store_id
    assert texts(store_path) == ["in the backup", "new"]


WRITE_AND_DIE = """
import os, signal, sys
import sessionstore
store = sessionstore.open(sys.argv[1])
for number in range(50):
    store.append("s", "user", f"in the log {number}")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.fault("F19")
@posix_only
def test_the_log_of_a_killed_writer_never_reaches_the_restored_file(store: SessionStore, backup: Path, store_path: Path) -> None:
    """It is a log of the same store, so nothing but its absence keeps SQLite from taking it in."""
    store.close()
    killed = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(store_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert Path(f"{store_path}-wal").stat().st_size > 0
    receipt = sessionstore.restore(backup, store_path)
    assert not Path(f"{store_path}-wal").exists()
    assert texts(store_path) == ["in the backup"]
    assert texts(Path(receipt.previous or "")) == ["in the backup", "later", *(f"in the log {number}" for number in range(50))]


@pytest.mark.fault("F19")
def test_a_restore_to_a_free_place_makes_a_store(backup: Path, tmp_path: Path) -> None:
    receipt = sessionstore.restore(backup, f"sqlite:///{tmp_path}/fresh.db")
    assert receipt.previous is None
    assert texts(tmp_path / "fresh.db") == ["in the backup"]
    assert not [name for name in names(tmp_path) if "restore" in name]


@pytest.mark.fault("F19")
def test_a_log_without_its_file_is_moved_away(backup: Path, tmp_path: Path) -> None:
    beside(tmp_path / "fresh.db", "-wal")
    beside(tmp_path / "fresh.db", "-journal")
    receipt = sessionstore.restore(backup, tmp_path / "fresh.db")
    assert texts(tmp_path / "fresh.db") == ["in the backup"]
    assert names(Path(receipt.previous or "").parent) == {"fresh.db-wal", "fresh.db-journal"}


@pytest.mark.fault("F19")
def test_a_damaged_store_is_kept_with_its_log_byte_by_byte(backup: Path, tmp_path: Path) -> None:
    damaged = beside(tmp_path / "damaged.db", "")
    beside(damaged, "-wal")
    receipt = sessionstore.restore(backup, damaged)
    kept = Path(receipt.previous or "")
    assert [kept.read_bytes(), Path(f"{kept}-wal").read_bytes()] == [b"something"] * 2
    assert texts(damaged) == ["in the backup"]


@pytest.mark.fault("F19")
def test_each_restore_keeps_what_it_replaced(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    receipts = []
    for number in range(3):
        receipts.append(sessionstore.restore(backup, path))
        with sessionstore.open(path) as store:
            say(store, f"after restore {number}")
    kept = [texts(Path(receipt.previous)) for receipt in receipts if receipt.previous is not None]
    assert kept == [["in the backup", "after restore 0"], ["in the backup", "after restore 1"]]


def spoil(path: Path, change: Callable[[bytearray], object]) -> Path:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def cut(path: Path, size: int) -> Path:
    os.truncate(path, path.stat().st_size - size)
    return path


def foreign(path: Path) -> Path:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    return path


def changed(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        for statement in statements:
            connection.execute(statement)
    return path


def removed(path: Path) -> Path:
    path.unlink()
    return path


def zeroed(content: bytearray) -> None:
    for page in range(4, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200


BAD_BACKUPS: dict[str, tuple[type[Exception], Callable[[Path], Any]]] = {
    "absent": (sessionstore.NotADatabaseError, removed),
    "empty": (sessionstore.NotADatabaseError, lambda path: (path.write_bytes(b""), path)[1]),
    "text": (sessionstore.NotADatabaseError, lambda path: (path.write_text("hello " * 500), path)[1]),
    "another program's": (sessionstore.ForeignDatabaseError, foreign),
    "of a newer version": (
        sessionstore.SchemaTooNewError,
        lambda path: changed(path, f"UPDATE {upgrade.VERSION_TABLE} SET version_num = '9999'"),
    ),
    "half": (sessionstore.StoreCorruptError, lambda path: cut(path, path.stat().st_size // 2)),
    "cut inside of the last page": (sessionstore.StoreCorruptError, lambda path: cut(path, 100)),
    "flipped": (sessionstore.StoreCorruptError, lambda path: spoil(path, zeroed)),
    "without its tables": (sessionstore.StoreCorruptError, lambda path: changed(path, "DROP TABLE store_info")),
    "without its id": (sessionstore.StoreCorruptError, lambda path: changed(path, "DELETE FROM store_info")),
    "with a damaged message": (
        sessionstore.StoreCorruptError,
        lambda path: changed(path, "UPDATE messages SET text = text || '!'"),
    ),
    "with a log": (sessionstore.StoreBusyError, lambda path: beside(path, "-wal")),
    "with a journal": (sessionstore.StoreBusyError, lambda path: beside(path, "-journal")),
    "a folder": (sessionstore.UnsafePathError, lambda path: path.parent),
    "no path": (sessionstore.ConfigError, lambda path: 5),
}


@pytest.mark.fault("F19")
@pytest.mark.parametrize("what", BAD_BACKUPS)
def test_a_bad_backup_changes_nothing(store: SessionStore, backup: Path, store_path: Path, what: str) -> None:
    store.close()
    kind, spoiled = BAD_BACKUPS[what]
    bad = spoiled(backup)
    before = {file.name: file.read_bytes() for file in store_path.parent.iterdir() if file.is_file()}
    with pytest.raises(kind) as caught:
        sessionstore.restore(bad, store_path)
    assert type(caught.value) is kind
    if isinstance(caught.value, sessionstore.StoreCorruptError):
        assert caught.value.path == str(backup), "the error names the backup, not its copy"
    assert {file.name: file.read_bytes() for file in store_path.parent.iterdir() if file.is_file()} == before
    assert texts(store_path) == ["in the backup", "later"]


def test_a_store_is_no_backup_of_itself(store: SessionStore, store_path: Path) -> None:
    say(store, "kept")
    store.close()
    with pytest.raises(sessionstore.UnsafePathError, match="itself"):
        sessionstore.restore(store_path, store_path)
    assert texts(store_path) == ["kept"]


@pytest.mark.fault("F19")
def test_another_programs_file_is_not_replaced(backup: Path, tmp_path: Path) -> None:
    theirs = foreign(beside(tmp_path / "theirs.db", ""))
    before = theirs.read_bytes()
    with pytest.raises(sessionstore.ForeignDatabaseError):
        sessionstore.restore(backup, theirs)
    assert theirs.read_bytes() == before
    assert not [name for name in names(tmp_path) if "restore" in name]


@posix_only
@pytest.mark.parametrize("what", ["folder", "link", "second name"])
def test_a_place_that_no_store_may_have_is_refused(backup: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "place.db"
    if what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(tmp_path / "x.db")
    else:
        beside(path, "")
        (tmp_path / "second.db").hardlink_to(path)
    before = names(tmp_path)
    with pytest.raises(sessionstore.UnsafePathError):
        sessionstore.restore(backup, path)
    assert names(tmp_path) == before


@pytest.mark.fault("F19")
def test_a_store_that_this_process_has_open_is_not_replaced(store: SessionStore, backup: Path, store_path: Path) -> None:
    with pytest.raises(sessionstore.StoreBusyError, match="close it"):
        sessionstore.restore(backup, store_path, busy_timeout=0.1)
    with pytest.raises(sessionstore.StoreBusyError, match="open"):
        sessionstore.restore(store_path, store_path.with_name("other.db"), busy_timeout=0.1)
    say(store, "still writing")
    store.close()
    assert texts(store_path) == ["in the backup", "later", "still writing"]


HOLD = {
    "a store": "import sessionstore; held = sessionstore.open(path); held.count()",
    "a store that only reads": "import sessionstore; held = sessionstore.open(path, read_only=True); held.count()",
    "another program": "import sqlite3; held = sqlite3.connect(path); held.execute('SELECT count(*) FROM sessions').fetchall()",
}


@contextmanager
def holding(path: Path, how: str) -> Iterator[None]:
    """Another process that has the file open, and does nothing."""
    program = f"import sys; path = sys.argv[1]; {HOLD[how]}; print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield


@pytest.mark.fault("F19")
@pytest.mark.parametrize("how", HOLD)
def test_a_store_that_another_process_has_open_is_not_replaced(
    store: SessionStore, backup: Path, store_path: Path, how: str
) -> None:
    store.close()
    with holding(store_path, how):
        with pytest.raises(sessionstore.StoreBusyError, match="another program"):
            sessionstore.restore(backup, store_path, busy_timeout=0.1)
        assert not [name for name in names(store_path.parent) if "restore" in name]
        assert texts(store_path) == ["in the backup", "later"]
    sessionstore.restore(backup, store_path)
    assert texts(store_path) == ["in the backup"]


@pytest.mark.fault("F19")
@posix_only
def test_a_damaged_store_that_another_process_has_open_is_not_replaced(store: SessionStore, backup: Path, store_path: Path) -> None:
    """SQLite cannot be asked any more; the locks of its connections are still there."""
    store.close()
    with holding(store_path, "another program"):
        spoil(store_path, lambda content: content.__setitem__(slice(0, 100), b"\xff" * 100))
        damaged = store_path.read_bytes()
        with pytest.raises(sessionstore.StoreBusyError, match="another program"):
            sessionstore.restore(backup, store_path, busy_timeout=0.1)
        assert store_path.read_bytes() == damaged
    sessionstore.restore(backup, store_path)
    assert texts(store_path) == ["in the backup"]


@pytest.mark.fault("F19")
def test_a_restore_that_fails_leaves_the_store(store: SessionStore, backup: Path, store_path: Path) -> None:
    store.close()

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    before = names(store_path.parent)
    with pytest.raises(ZeroDivisionError):
        sessionstore.restore(backup, store_path, progress=fail)
    assert names(store_path.parent) == before
    assert texts(store_path) == ["in the backup", "later"]


@pytest.mark.fault("F19")
@pytest.mark.parametrize("target", [restores._READY, restores._OLD, "agent.db"])
@pytest.mark.parametrize("links", [True, False])
def test_a_rename_that_fails_leaves_the_store(
    store: SessionStore, backup: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, links: bool
) -> None:
    store.close()
    if target == restores._OLD:
        monkeypatch.setattr(Path, "mkdir", refusing(Path.mkdir, lambda path: path.name.endswith(target)))
    else:
        monkeypatch.setattr(Path, "replace", refusing(Path.replace, lambda path, to: to.name.endswith(target), times=1))
    if not links:
        monkeypatch.setattr(os, "link", refusing(os.link, lambda *_: True))
    with pytest.raises(sessionstore.StoreOpenError, match="no such luck"):
        sessionstore.restore(backup, store_path)
    monkeypatch.undo()
    assert texts(store_path) == ["in the backup", "later"]
    assert not [name for name in names(store_path.parent) if "restore" in name and restores.KEPT_INFIX not in name]


def refusing(call: Callable[..., Any], which: Callable[..., bool], *, times: int = 10**9) -> Callable[..., Any]:
    left = [times]

    def refuse(*args: Any, **kwargs: Any) -> Any:
        if left[0] and which(*args):
            left[0] -= 1
            raise OSError(5, "no such luck")
        return call(*args, **kwargs)

    return refuse


@pytest.mark.fault("F19")
def test_where_links_are_impossible_a_restore_works_as_well(
    store: SessionStore, backup: Path, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setattr(os, "link", refusing(os.link, lambda *_: True))
    receipt = sessionstore.restore(backup, store_path)
    assert texts(store_path) == ["in the backup"]
    assert texts(Path(receipt.previous or "")) == ["in the backup", "later"]


def left_partial(path: Path, backup: Path) -> None:
    shutil.copyfile(backup, f"{path}.restore-partial")


def left_ready(path: Path, backup: Path) -> None:
    shutil.copyfile(backup, f"{path}.restore-ready")


def left_linked(path: Path, backup: Path) -> None:
    left_ready(path, backup)
    Path(f"{path}.restore-old").mkdir()
    Path(f"{path}.restore-old/{path.name}").hardlink_to(path)


def left_moved(path: Path, backup: Path) -> None:
    """Without links, between the two renames."""
    left_ready(path, backup)
    Path(f"{path}.restore-old").mkdir()
    path.rename(f"{path}.restore-old/{path.name}")


def left_moved_and_new(path: Path, backup: Path) -> None:
    """As before, and another program made an empty file in the free place."""
    left_moved(path, backup)
    path.touch()


def left_committed(path: Path, backup: Path) -> None:
    left_moved(path, backup)
    Path(f"{path}.restore-ready").rename(path)


LEFT = {
    left_partial: "old",
    left_ready: "old",
    left_linked: "old",
    left_moved: "new",
    left_moved_and_new: "old",
    left_committed: "new",
}


@pytest.mark.fault("F19")
@posix_only
@pytest.mark.parametrize("next_is", ["open", "restore"])
@pytest.mark.parametrize("leave", LEFT)
def test_the_next_open_or_restore_ends_what_a_killed_one_left(
    store: SessionStore, backup: Path, store_path: Path, leave: Callable[[Path, Path], None], next_is: str
) -> None:
    store.close()
    leave(store_path, backup)
    expected = {"old": ["in the backup", "later"], "new": ["in the backup"]}[LEFT[leave]]
    if next_is == "open":
        assert texts(store_path) == expected
    else:
        receipt = sessionstore.restore(backup, store_path)
        assert texts(Path(receipt.previous or "")) == expected
        assert texts(store_path) == ["in the backup"]
    assert not {name for name in names(store_path.parent) if ".restore-" in name}
    assert store_path.stat().st_nlink == 1


@pytest.mark.fault("F19")
def test_who_opens_a_store_during_a_restore_waits_for_it(store: SessionStore, backup: Path, store_path: Path) -> None:
    store.close()
    opened: list[list[str | None]] = []
    openers = [threading.Thread(target=lambda: opened.append(texts_of_child(store_path)))]

    def report(done: int, total: int | None) -> None:
        if done == total:
            openers[0].start()

    sessionstore.restore(backup, store_path, progress=report)
    openers[0].join()
    assert opened == [["in the backup"]]


@pytest.mark.fault("F19")
@pytest.mark.parametrize("there", [True, False])
def test_who_found_the_old_file_just_before_a_restore_opens_the_new_one(
    store: SessionStore, backup: Path, store_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    path = store_path if there else store_path.with_name("fresh.db")
    acquire = opening.acquire
    restored = []

    def acquire_late(*args: Any, **kwargs: Any) -> Any:
        if not restored:
            restored.append(sessionstore.restore(backup, path))
        return acquire(*args, **kwargs)

    monkeypatch.setattr(opening, "acquire", acquire_late)
    with sessionstore.open(path) as opened:
        assert [message.text for message in opened.messages("s")] == ["in the backup"]
    assert restored


def texts_of_child(path: Path) -> list[str | None]:
    program = (
        "import json, sys, sessionstore\n"
        "with sessionstore.open(sys.argv[1]) as store: print(json.dumps([each.text for each in store.messages('s')]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not (ROOT / "alembic.ini").is_file(), reason="alembic.ini is not in the installed package")
def test_a_backup_of_an_older_schema_is_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    command = [sys.executable, "-m", "alembic", "-x", f"db={old}", "upgrade", "0003"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    receipt = sessionstore.restore(old, tmp_path / "new.db")
    assert receipt.schema_revision == "0003"
    with sessionstore.open(tmp_path / "new.db") as store:
        assert store.status().schema_revision == upgrade.HEAD_REVISION
        say(store, "upgraded")
    assert texts(tmp_path / "new.db") == ["upgraded"]


DAMAGES = {
    "UPDATE messages SET text = 'forged' WHERE text = 'plain'": "1 damaged: message 1 of 's'",
    "UPDATE messages SET packed = substr(packed, 1, 20) WHERE packed IS NOT NULL": "1 damaged: message 2 of 's'",
    "UPDATE superseded_messages SET text = 'forged'": "1 damaged: superseded message 3 of 's'",
    "UPDATE blobs SET data = zeroblob(length(data))": "1 damaged: blob ",
    "UPDATE messages SET crc = crc + 1": "4 damaged: message 1 of 's', message 2 of 's'",
}


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_backup_with_damaged_contents_is_refused_and_doctor_named(tmp_path: Path, statement: str) -> None:
    with sessionstore.open(tmp_path / "a.db", compress_over=1_000) as store:
        say(store, "plain", "long " * 5_000, "replaced")
        store.replace_range("s", 3, 3, [{"role": "user", "content": "new"}])
        image = "data:image/png;base64," + base64.b64encode(random.Random(5).randbytes(200_000)).decode()
        store.append("s", {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]})
        store.backup(tmp_path / "b.db")
    sessionstore.restore(tmp_path / "b.db", tmp_path / "good.db")
    bad = changed(tmp_path / "b.db", statement)
    with pytest.raises(sessionstore.StoreCorruptError, match="doctor") as caught:
        sessionstore.restore(bad, tmp_path / "new.db")
    assert DAMAGES[statement] in str(caught.value)
    assert not (tmp_path / "new.db").exists()
    with sessionstore.open(bad) as store:
        assert not store.doctor().ok


def test_a_damaged_message_in_a_backup_of_an_older_schema_is_found(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    command = [sys.executable, "-m", "alembic", "-x", f"db={old}", "upgrade", "0003"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    with closing(sqlite3.connect(old)) as raw:
        ((store_id,),) = raw.execute("SELECT store_id FROM store_info").fetchall()
        at = "2026-01-01 00:00:00.000000"
        raw.execute(
            "INSERT INTO sessions (session_key, namespace, session_id, status, pinned, version, message_count, next_seq, "
            "created_at, updated_at) VALUES (1, '', 's', 'open', 0, 1, 1, 2, ?, ?)", (at, at),
        )  # fmt: skip
        values = (1 << 24 | 1, "chat", "user", "old", None, None, at)
        row = (*values, rows.checksum(*values, rows.store_seed(store_id)))
        raw.execute("INSERT INTO messages (id, kind, role, text, extra, facts, created_at, crc) VALUES (?,?,?,?,?,?,?,?)", row)
        raw.commit()
    assert sessionstore.restore(old, tmp_path / "good.db").messages == 1
    with pytest.raises(sessionstore.StoreCorruptError, match="1 damaged: message 1 of 's'"):
        sessionstore.restore(changed(old, "UPDATE messages SET text = 'new'"), tmp_path / "new.db")


# -- vacuum


def waste(store: SessionStore, rows: int = 400) -> None:
    say(store, *("x" * 4_000 for _ in range(rows)), session="waste")
    say(store, "kept")
    store.delete("waste")


@pytest.mark.parametrize("full", [False, True])
def test_a_vacuum_gives_back_the_room_of_what_was_deleted(store: SessionStore, store_path: Path, full: bool) -> None:
    waste(store)
    receipt = store.vacuum(full=full)
    size = sum(file.stat().st_size for file in (store_path, Path(f"{store_path}-wal")))
    assert receipt.bytes_after == size < receipt.bytes_before / 4
    assert (receipt.full, receipt.complete) == (full, True)
    assert Path(f"{store_path}-wal").stat().st_size == 0
    say(store, "and on")
    store.close()
    assert texts(store_path) == ["kept", "and on"]


def test_a_full_vacuum_leaves_nothing_of_deleted_messages_in_the_search_index(store: SessionStore, store_path: Path) -> None:
    store.set_search("on")
    for number in range(40):
        say(store, *(f"word{number}x{place}" for place in range(50)), session="waste")
    store.delete("waste")
    say(store, "kept")
    store.vacuum(full=True)
    assert len(store.search("kept").items) == 1
    store.close()
    with closing(sqlite3.connect(store_path)) as raw:
        ((size,),) = raw.execute("SELECT sum(length(block)) FROM message_words_data").fetchall()
    assert size < 500, "the index still knows the words of deleted messages"


def test_a_vacuum_tells_how_far_it_is_and_others_write_meanwhile(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacuums, "_PAGES_A_STEP", 100)
    waste(store)
    seen: list[tuple[int, int | None]] = []

    def report(done: int, total: int | None) -> None:
        seen.append((done, total))
        say(store, "meanwhile")

    store.vacuum(progress=report)
    assert len(seen) > 2
    assert seen[-1][0] == seen[-1][1]
    assert len(store.messages("s")) == 1 + len(seen)


@pytest.mark.parametrize("full", [False, True])
def test_a_reader_that_pins_the_log_is_told_of(store: SessionStore, store_path: Path, full: bool) -> None:
    waste(store)
    with closing(sqlite3.connect(store_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        with sessionstore.open(store_path, busy_timeout=0.2) as second:
            assert second.vacuum(full=full).complete is False
        reader.execute("COMMIT")
    assert store.vacuum().complete


def test_a_vacuum_without_enough_room_does_nothing(store: SessionStore, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waste(store)
    usage = shutil.disk_usage(store_path.parent)
    monkeypatch.setattr(vacuums.shutil, "disk_usage", lambda _: usage._replace(free=1_000))
    before = store_path.stat().st_size
    with pytest.raises(sessionstore.DiskFullError, match="bytes free"):
        store.vacuum(full=True)
    assert store_path.stat().st_size == before
    assert store.vacuum().complete


def test_a_file_that_cannot_shrink_little_by_little_is_rebuilt_so_that_it_can(store: SessionStore, store_path: Path) -> None:
    store.close()
    changed(store_path, "PRAGMA auto_vacuum=NONE", "VACUUM")
    with sessionstore.open(store_path) as opened:
        waste(opened)
        assert opened.vacuum().full
        waste(opened)
        receipt = opened.vacuum()
        assert not receipt.full
        assert receipt.bytes_after < receipt.bytes_before / 4


# -- the other faces


@pytest.mark.fault("F19")
@pytest.mark.anyio
async def test_the_asynchronous_face_backs_up_restores_and_vacuums(tmp_path: Path, anyio_backend: str) -> None:
    path = tmp_path / "a.db"
    async with sessionstore.aopen(path) as store:
        chat = await store.session("s")
        await chat.append("user", "in the backup")
        assert (await store.backup(tmp_path / "b.db")).messages == 1
        await chat.append("user", "later")
        assert (await store.vacuum()).complete
    assert (await sessionstore.arestore(tmp_path / "b.db", path)).messages == 1
    assert texts(path) == ["in the backup"]


@pytest.mark.fault("F19")
def test_the_command_line_backs_up_restores_and_vacuums(
    store: SessionStore, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say(store, "in the backup")
    place = ["--store", str(store_path)]
    made = str(tmp_path / "b.db")
    assert main([*place, "backup", made]) == 0
    assert "1 conversation, 1 message" in capsys.readouterr().err
    assert main([*place, "backup", made]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*place, "backup", made, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] == 1
    say(store, "later")
    assert main([*place, "restore", made]) == 1
    assert "has it open" in capsys.readouterr().err
    store.close()
    assert main([*place, "vacuum", "--full", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert main([*place, "vacuum"]) == 0
    assert "before" in capsys.readouterr().err
    assert main([*place, "restore", made]) == 0
    assert restores.KEPT_INFIX in capsys.readouterr().err
    assert main([*place, "restore", made, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["previous"] is not None
    assert texts(store_path) == ["in the backup"]


def test_verbs_that_lack_their_file_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(tmp_path / "absent.db")]
    for verb in (["backup", str(tmp_path / "b.db")], ["restore", str(tmp_path / "b.db")], ["vacuum"]):
        assert main([*place, *verb]) == 1
        assert "there is no such file" in capsys.readouterr().err
    assert names(tmp_path) == set()


# -- encrypted

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SECRET = "a word that must not stand in the clear"


@pytest.fixture
def encrypted(tmp_path: Path) -> Path:
    """An encrypted store with a secret and some room to give back."""
    pytest.importorskip("sqlcipher3")
    path = tmp_path / "secret.db"
    with sessionstore.open(path, key=KEY) as store:
        waste(store, 50)
        say(store, SECRET)
    return path


def test_a_backup_of_an_encrypted_store_has_its_key(encrypted: Path, tmp_path: Path) -> None:
    made = tmp_path / "b.db"
    with sessionstore.open(encrypted, key=KEY) as store:
        store.backup(made)
        assert store.vacuum().complete
        assert store.vacuum(full=True).complete
        say(store, "later")
    assert SECRET.encode() not in made.read_bytes()
    for key in (None, OTHER_KEY):
        with pytest.raises(sessionstore.WrongKeyError):
            sessionstore.restore(made, encrypted, key=key)
    assert texts(encrypted, key=KEY) == ["kept", SECRET, "later"]
    receipt = sessionstore.restore(made, encrypted, key=KEY)
    assert texts(encrypted, key=KEY) == ["kept", SECRET]
    assert texts(Path(receipt.previous or ""), key=KEY) == ["kept", SECRET, "later"]
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def test_the_command_line_takes_the_key_of_a_file(encrypted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = tmp_path / "key.txt"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY.hex())
    place, made = ["--store", str(encrypted), "--key-file", str(key_file)], str(tmp_path / "b.db")
    for verb in (["backup", made], ["vacuum"], ["vacuum", "--full"], ["restore", made]):
        assert main([*place, *verb]) == 0, capsys.readouterr().err
    assert main(["--store", str(encrypted), "restore", made]) == 1
    assert "is encrypted" in capsys.readouterr().err
    assert texts(encrypted, key=KEY) == ["kept", SECRET]


def test_an_encrypted_store_takes_the_place_of_a_plain_one_and_of_one_with_another_key(encrypted: Path, tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.db", tmp_path / "other.db"
    with sessionstore.open(plain) as store:
        say(store, "plain")
    with sessionstore.open(other, key=OTHER_KEY) as store:
        say(store, "other")
    kept = Path(sessionstore.restore(encrypted, plain, key=KEY).previous or "")
    assert (texts(plain, key=KEY), texts(kept)) == (["kept", SECRET], ["plain"])
    kept = Path(sessionstore.restore(encrypted, other, key=KEY).previous or "")
    assert (texts(other, key=KEY), texts(kept, key=OTHER_KEY)) == (["kept", SECRET], ["other"])


@pytest.mark.fault("F19")
def test_another_programs_file_is_not_replaced_by_an_encrypted_store_either(encrypted: Path, tmp_path: Path) -> None:
    theirs = foreign(beside(tmp_path / "theirs.db", ""))
    before = theirs.read_bytes()
    with pytest.raises(sessionstore.ForeignDatabaseError):
        sessionstore.restore(encrypted, theirs, key=KEY)
    assert theirs.read_bytes() == before
    assert not [name for name in names(tmp_path) if "restore" in name]


def test_a_key_for_a_plain_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlcipher3")
    with pytest.raises(sessionstore.WrongKeyError, match="not encrypted"):
        sessionstore.restore(backup, tmp_path / "new.db", key=KEY)
    assert not (tmp_path / "new.db").exists()
