"""SQLAlchemy's connection is made late, around one of the driver's that may be in the middle of a transaction."""

from __future__ import annotations

import gc
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import sqlalchemy as sa

import sessionstore
from sessionstore.database import core, engine
from sessionstore.database.transaction import Transaction

ROWS = sa.text("SELECT x FROM t ORDER BY x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.db"
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return made


@pytest.fixture
def driver(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(engine.connect_file(path)) as connection:
        yield connection


@pytest.fixture(params=["the first one of the process", "a later one"], autouse=True)
def whether_first(request: pytest.FixtureRequest) -> None:
    core._engine.cache_clear()
    if request.param == "a later one":
        core._engine()


def rows_of(connection: sa.Connection) -> list[int]:
    return list(connection.execute(ROWS).scalars())


def rows_in(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


def test_it_is_the_drivers_connection_and_made_once(driver: sqlite3.Connection, path: Path) -> None:
    db = Transaction(driver, path)
    made = db.core
    assert core.driver_of(made) is driver
    assert db.core is made


@pytest.mark.parametrize("connect", ["connect_file", "connect_read_only", "connect_memory"])
def test_making_it_executes_nothing(path: Path, connect: str) -> None:
    connectors: dict[str, Callable[[], sqlite3.Connection]] = {
        "connect_file": lambda: engine.connect_file(path),
        "connect_read_only": lambda: engine.connect_read_only(path, immutable=False),
        "connect_memory": engine.connect_memory,
    }
    with closing(connectors[connect]()) as driver:
        driver.execute("BEGIN")
        changes = driver.total_changes
        said: list[str] = []
        driver.set_trace_callback(said.append)
        with core.around(driver) as made:
            assert said == []
            assert driver.isolation_level is None
            assert made.execute(sa.text("SELECT 1")).scalar_one() == 1
        assert said == ["SELECT 1", "ROLLBACK"]
        assert driver.total_changes == changes


def test_the_transaction_goes_on_and_its_owner_ends_it(driver: sqlite3.Connection, path: Path) -> None:
    db = Transaction(driver, path)
    driver.execute("BEGIN IMMEDIATE")
    driver.execute("INSERT INTO t VALUES (1)")
    assert rows_of(db.core) == [1]
    db.core.execute(sa.text("INSERT INTO t VALUES (2)"))
    assert driver.in_transaction
    assert rows_in(path) == []
    driver.execute("COMMIT")
    assert rows_in(path) == [1, 2]
    driver.execute("BEGIN IMMEDIATE")
    db.core.execute(sa.text("DELETE FROM t"))
    driver.execute("ROLLBACK")
    assert rows_of(db.core) == [1, 2]


@pytest.fixture(params=["on every engine", "on every pool"])
def listened_to(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """An engine of the program's, which commits whatever is open on each connection that it gets."""
    target = {"on every engine": sa.Engine, "on every pool": sa.Pool}[request.param]

    def commit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS heard (x)")
        connection.commit()

    for name in ("connect", "checkout"):
        sa.event.listen(target, name, commit)
    theirs = sa.create_engine("sqlite://")
    yield theirs
    theirs.dispose()
    for name in ("connect", "checkout"):
        sa.event.remove(target, name, commit)


def test_what_a_program_does_to_the_connections_of_every_engine_is_not_done_to_it(
    driver: sqlite3.Connection, path: Path, listened_to: sa.Engine
) -> None:
    db = Transaction(driver, path)
    driver.execute("BEGIN IMMEDIATE")
    driver.execute("INSERT INTO t VALUES (1)")
    assert rows_of(db.core) == [1]
    assert driver.in_transaction
    driver.execute("ROLLBACK")
    assert rows_in(path) == []
    with listened_to.connect() as theirs:
        assert theirs.execute(sa.text("SELECT count(*) FROM heard")).scalar_one() == 0


def test_what_sqlalchemy_logs_of_it_is_not_logged_as_an_event_of_this_library(
    driver: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "sqlalchemy.pool"):
        caplog.set_level(logging.DEBUG, name)
    core._engine.cache_clear()
    core.around(driver).close()
    assert {record.name for record in caplog.records} == {"sqlalchemy.pool.impl.NullPool"}


def test_a_driver_that_has_rows_left_to_read_is_no_obstacle(driver: sqlite3.Connection, path: Path) -> None:
    driver.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
    reading = driver.execute("SELECT x FROM t ORDER BY x")
    assert reading.fetchone() == (1,)
    with core.around(driver) as made:
        assert rows_of(made) == [1, 2, 3]
        assert reading.fetchone() == (2,)
    assert reading.fetchall() == [(3,)]


@pytest.mark.parametrize("is_made", [False, True])
def test_closing_ends_the_transaction_and_may_be_repeated(driver: sqlite3.Connection, path: Path, is_made: bool) -> None:
    db = Transaction(driver, path)
    driver.execute("BEGIN IMMEDIATE")
    driver.execute("INSERT INTO t VALUES (1)")
    reading = driver.execute("SELECT 1 UNION SELECT 2")
    assert not is_made or rows_of(db.core) == [1]
    db.close()
    db.close()
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("INSERT INTO t VALUES (2)")
        other.commit()
    assert rows_in(path) == [2]
    with pytest.raises(sqlite3.ProgrammingError):
        driver.execute("SELECT 1")
    with pytest.raises(sa.exc.ProgrammingError):
        db.core.execute(ROWS)
    assert reading is not None


@pytest.mark.parametrize("is_made", [False, True])
def test_one_that_nobody_holds_any_more_is_closed(driver: sqlite3.Connection, path: Path, is_made: bool) -> None:
    db = Transaction(driver, path)
    driver.execute("BEGIN IMMEDIATE")
    assert not is_made or rows_of(db.core) == []
    del db
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError):
        driver.execute("SELECT 1")
    assert rows_in(path) == []


def test_sqlalchemys_part_alone_does_not_close_it(driver: sqlite3.Connection) -> None:
    driver.execute("BEGIN IMMEDIATE")
    driver.execute("INSERT INTO t VALUES (1)")
    made = core.around(driver)
    del made
    gc.collect()
    assert driver.in_transaction
    driver.execute("COMMIT")


def test_an_interrupt_in_a_statement_closes_it_and_frees_the_file(driver: sqlite3.Connection, path: Path) -> None:
    """As SQLAlchemy does with connections of its own: nobody knows what they are in the middle of."""
    db = Transaction(driver, path)
    driver.execute("BEGIN IMMEDIATE")
    rows = db.core.execute(sa.text("SELECT 1 UNION SELECT 2"))
    db.core.invalidate(KeyboardInterrupt())
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("INSERT INTO t VALUES (1)")
        other.commit()
    with pytest.raises(sqlite3.ProgrammingError):
        driver.execute("SELECT 1")
    assert rows is not None


@pytest.mark.parametrize("key", [None, bytes(range(32))], ids=["plain", "encrypted"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_store_goes_on_after_an_interrupt_in_a_statement(tmp_path: Path, key: bytes | None, writes: bool) -> None:
    if key is not None:
        pytest.importorskip("sqlcipher3", reason="the extra `encryption` is not installed")

    def interrupted(db: Transaction) -> None:
        db.core.execute(sa.text("SELECT 1 UNION SELECT 2"))
        db.core.invalidate(KeyboardInterrupt())
        raise KeyboardInterrupt

    with sessionstore.open(tmp_path / "store.db", key=key) as store:
        run = partial(store._database.write, full=True) if writes else store._database.read
        with pytest.raises(KeyboardInterrupt):
            run(interrupted, timeout=1)
        assert store.session("s").append("user", "x").seq == 1
        assert [info.session_id for info in store.list()] == ["s"]


class Interrupt:
    """Runs a call and interrupts it at a line of SQLAlchemy or of the module that makes connections."""

    def __init__(self, at: int) -> None:
        self._left = at

    def run(self, call: Callable[[], object]) -> bool:
        """Whether it came so far."""
        before = sys.gettrace()
        try:
            sys.settrace(self._trace)
            call()
        finally:
            sys.settrace(before)
        return self._left > 0

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in ("/sqlalchemy/", "/database/core.py", "/database/transaction.py")):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


# Before 2.1 a callback of SQLAlchemy's own may find the weak reference that it asks about gone.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function _ConnectionRecord:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_it_is_made_leaves_the_connection_as_it_was(path: Path) -> None:
    """At each line; also once the interrupt, and what its traceback holds, is forgotten."""
    at, is_through = 0, False
    while not is_through:
        at += 1
        with closing(engine.connect_file(path)) as driver:
            db = Transaction(driver, path)
            driver.execute("BEGIN IMMEDIATE")
            driver.execute("INSERT INTO t VALUES (1)")
            raised = None
            try:
                is_through = Interrupt(at).run(lambda: db.core)  # noqa: B023 - called at once
            except KeyboardInterrupt as error:
                raised = error
            assert driver.in_transaction, at
            assert rows_of(db.core) == [1], at
            del raised
            if at % 20 == 0:
                gc.collect()
            assert rows_of(db.core) == [1], at
            driver.execute("ROLLBACK")
    assert at > 20


def test_each_thread_gets_the_connection_that_it_asked_for(path: Path) -> None:
    found: dict[int, bool] = {}
    together = threading.Barrier(8)

    def ask(number: int) -> None:
        with closing(engine.connect_file(path)) as driver:
            db = Transaction(driver, path)
            together.wait()
            found[number] = core.driver_of(db.core) is driver and rows_of(db.core) == []

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(8), True)


def test_one_made_in_the_middle_of_making_another_is_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler that reads may do."""
    handed = core._handed
    with closing(engine.connect_file(path)) as outer, closing(engine.connect_file(path)) as inner:
        core.around(outer).close()

        def interrupted() -> sqlite3.Connection:
            monkeypatch.undo()
            with core.around(inner) as made:
                assert core.driver_of(made) is inner
            return handed()

        monkeypatch.setattr(core._engine().pool, "_creator", interrupted)
        with core.around(outer) as made:
            assert core.driver_of(made) is outer
