"""What the engine knows about its SQLite, and what its connections are set to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import sessionstore
from sessionstore import ConfigError
from sessionstore.database import core, engine


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 4), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_wal_reset_gate(version: tuple[int, int, int], affected: bool) -> None:
    assert engine.wal_reset_affected(version) is affected


@pytest.mark.fault("F15")
def test_only_3_52_0_was_withdrawn() -> None:
    assert engine.withdrawn((3, 52, 0))
    assert not any(engine.withdrawn(version) for version in [(3, 40, 1), (3, 51, 3), (3, 52, 1), (3, 53, 0)])


@pytest.mark.fault("F15")
def test_the_linked_sqlite_is_asked_not_a_package() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        linked = connection.execute("SELECT sqlite_version()").fetchall()[0][0]
    assert ".".join(map(str, engine.linked_version())) == linked


@pytest.mark.fault("F15")
def test_an_old_sqlite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.require_usable_sqlite()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ConfigError, match=r"3\.35\.0"):
        engine.require_usable_sqlite()


@pytest.mark.fault("F15")
@pytest.mark.parametrize(
    ("version", "affected"),
    [((3, 40, 1), True), ((3, 44, 6), False), ((3, 50, 4), True), ((3, 50, 7), False),
     ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False), ((3, 53, 0), False)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::sessionstore.StoreWarning")
def test_status_and_doctor_say_which_sqlite_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], affected: bool
) -> None:
    """WAL is used on every engine; the writer lock keeps the bug from striking, and the user is told so."""
    monkeypatch.setattr(engine, "linked_version", lambda: version)
    with sessionstore.open(tmp_path / "agent.db") as store:
        status = store.status()
        checked = {check.name: check for check in store.doctor().checks}["engine"]
    assert status.journal_mode == "wal"
    assert status.wal_reset_affected is affected
    assert ("WAL-reset bug" in status.journal_reason) is affected
    assert ("WAL-reset bug" in checked.detail) is affected
    assert "writer lock" in status.journal_reason
    assert checked.ok is (version != (3, 52, 0))
    assert any("withdrawn" in warning for warning in status.warnings) is (version == (3, 52, 0))


@pytest.mark.fault("F15")
def test_a_withdrawn_sqlite_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "linked_version", lambda: (3, 52, 0))
    with pytest.warns(sessionstore.StoreWarning, match="withdrawn"):
        sessionstore.open(tmp_path / "agent.db").close()


class RefusingConnection(sqlite3.Connection):
    """A driver on a file system where the switch to WAL silently does nothing."""

    def execute(self, statement: str, *arguments: object) -> sqlite3.Cursor:
        if statement.startswith("PRAGMA journal_mode="):
            return super().execute("SELECT 'delete'")
        return super().execute(statement, *arguments)  # type: ignore[arg-type]


@pytest.mark.fault("F16")
def test_a_silent_refusal_of_wal_is_noticed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, factory=RefusingConnection)) as connection:
        assert engine.switch_journal_mode(connection, "WAL") == "delete"
    with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as connection:
        assert engine.switch_journal_mode(connection, "WAL") == "wal"


@pytest.mark.fault("F16")
def test_a_store_without_wal_works_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(database: str, key: object = None, *, uri: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(database, isolation_level=None, check_same_thread=False, uri=uri, factory=RefusingConnection)

    monkeypatch.setattr(engine, "_connect", connect)
    path = tmp_path / "agent.db"
    with pytest.warns(sessionstore.StoreWarning, match="refused the write-ahead log"):
        store = sessionstore.open(path)
    with store:
        store.session("s").append("user", "x")
        assert [message.text for message in store.messages("s")] == ["x"]
        status = store.status()
        assert status.journal_mode == "delete"
        assert "refused" in status.journal_reason
        assert any("refused" in warning for warning in status.warnings)
        assert not {check.name: check.ok for check in store.doctor().checks}["journal"]
    assert not path.with_name("agent.db-wal").exists()


def settings_of(connection: sqlite3.Connection, *names: str) -> dict[str, object]:
    return {name: engine.pragma(connection, name) for name in names}


def test_connections_to_a_file_are_safe(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with closing(engine.connect_file(tmp_path / "a.db")) as connection:
        assert connection.isolation_level is None
        assert settings_of(
            connection, "foreign_keys", "secure_delete", "cell_size_check", "temp_store", "mmap_size", "wal_autocheckpoint",
            "journal_size_limit", "fullfsync", "checkpoint_fullfsync", "busy_timeout",
        ) == {
            "foreign_keys": 1,
            "secure_delete": 1,
            "cell_size_check": 1,
            "temp_store": 2,
            "mmap_size": 0,
            "wal_autocheckpoint": 0,
            "journal_size_limit": engine.JOURNAL_SIZE_LIMIT,
            "fullfsync": 1,
            "checkpoint_fullfsync": 1,
            "busy_timeout": engine.READER_BUSY_TIMEOUT_MS,
        }  # fmt: skip
        for durability, number in (("full", 2), ("normal", 1)):
            engine.set_synchronous(connection, durability)
            assert engine.pragma(connection, "synchronous") == number


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with closing(engine.connect_file(tmp_path / "a.db")) as connection:
        engine.make_reader(connection)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("CREATE TABLE t (x)")


def test_a_new_file_is_marked_as_ours(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with closing(engine.connect_file(tmp_path / "a.db")) as connection:
        engine.mark_as_ours(connection)
        connection.execute("CREATE TABLE t (x)")
        assert settings_of(connection, "application_id", "auto_vacuum") == {"application_id": 0x53535452, "auto_vacuum": 2}


@pytest.mark.parametrize("name", ["a?mode=rw.db", "a%20b.db", "a#b.db"])
@pytest.mark.parametrize("immutable", [False, True])
def test_a_read_only_connection_finds_odd_names_and_cannot_write(tmp_path: Path, name: str, immutable: bool) -> None:
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with closing(engine.connect_read_only(path, immutable=immutable)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("INSERT INTO t VALUES (1)")
    assert [inner.name for inner in tmp_path.iterdir()] == [name]


def test_parameters_stay_out_of_errors() -> None:
    import sqlalchemy as sa

    with (
        closing(engine.connect_memory()) as driver,
        core.around(driver) as connection,
        pytest.raises(sa.exc.OperationalError) as caught,
    ):
        connection.execute(sa.text("SELECT * FROM nowhere WHERE x = :words"), {"words": "the words of a user"})
    assert "the words of a user" not in str(caught.value)


@pytest.mark.parametrize("connect", [engine.connect_file, lambda path: engine.connect_read_only(path, immutable=False)])
def test_the_operator_regexp_is_there_before_sqlalchemy_is(tmp_path: Path, connect: Callable[[Path], sqlite3.Connection]) -> None:
    path = tmp_path / "a.db"
    path.touch()
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT 'Paris' REGEXP '^P', 'Rome' REGEXP '^P', NULL REGEXP 'P'").fetchall() == [(1, 0, None)]
