"""Migrations: models and revisions agree, the command line works, and an upgrade in place is whole or did not happen."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import sessionstore
from sessionstore import sql
from sessionstore.database import core, engine, paths, upgrade
from sessionstore.models import SCHEMA_METADATA, is_modelled
from sessionstore.queries import statements

ROOT = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs fork or POSIX modes")
in_checkout = pytest.mark.skipif(not (ROOT / "alembic.ini").is_file(), reason="alembic.ini is not in the installed package")


# -- the models and the revisions


def test_the_revisions_make_the_tables_of_the_models(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    with closing(engine.connect_file(path)) as driver, core.around(driver) as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": upgrade.VERSION_TABLE, "compare_type": True, "include_name": is_modelled}
        )
        assert compare_metadata(context, SCHEMA_METADATA) == []
        assert checks_of(connection) == {table.name: names_of_checks(table) for table in SCHEMA_METADATA.sorted_tables}


def checks_of(connection: sa.Connection) -> dict[str, set[str]]:
    """The names of the CHECK constraints in the file, which Alembic does not compare."""
    found = sa.inspect(connection)
    tables = [table.name for table in SCHEMA_METADATA.sorted_tables]
    return {name: {str(check["name"]) for check in found.get_check_constraints(name)} for name in tables}


def names_of_checks(table: sa.Table) -> set[str]:
    """The names of the CHECK constraints in the models, by the naming convention."""
    checks = [constraint for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)]
    return {str(check.name) if str(check.name).startswith("ck_") else f"ck_{table.name}_{check.name}" for check in checks}


def test_head_revision_is_the_head_of_the_revisions() -> None:
    scripts = ScriptDirectory.from_config(upgrade.configuration(upgrade.migrations_folder()))
    assert scripts.get_heads() == [upgrade.HEAD_REVISION]
    assert scripts.get_bases() == ["0001"]


def test_the_compiled_statements_are_those_of_the_models() -> None:
    assert Path(sql.__file__).read_text() == statements.render(), "run `make sql`"


def test_the_checked_columns_are_those_of_the_file(store: sessionstore.SessionStore, store_path: Path) -> None:
    with closing(sqlite3.connect(store_path)) as raw:
        for table, columns in sql.COLUMNS.items():
            assert tuple(row[1] for row in raw.execute(f"PRAGMA table_xinfo({table})")) == columns


# -- the command line


def alembic(*given: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run alembic in the checkout, as a developer does."""
    command = [sys.executable, "-m", "alembic", "-x", f"db={path}", *given]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@in_checkout
def test_the_command_line_upgrades_and_downgrades(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    done = alembic("upgrade", "head", path=path)
    assert done.returncode == 0, done.stderr
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sessionstore.open(path) as store:
        assert store.session("s").append("user", "x").seq == 1
        assert store.status().journal_mode == "wal"
        assert store.doctor().ok
    assert alembic("upgrade", "head", path=path).returncode == 0
    assert upgrade.HEAD_REVISION in alembic("current", path=path).stdout
    checked = alembic("check", path=path)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    done = alembic("downgrade", "base", path=path)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(path)) as raw:
        left = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert left <= {upgrade.VERSION_TABLE, "sqlite_sequence"}


# -- an upgrade in place: the real revisions, and one to come

LATER_REVISION = """
import os
import signal
import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("upgrade_witness", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("messages", sa.Column("words", sa.Integer()))
    op.execute("UPDATE messages SET words = length(text)")
    {boom}
    # SQLite renames no table while a view reads it.
    connection = op.get_bind()
    views = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'view' ORDER BY rowid").all()
    for name, _ in views:
        op.execute("DROP VIEW " + name)
    # sessions is the parent of session_tags: with foreign keys on, its rebuild would delete the tags.
    with op.batch_alter_table("sessions", recreate="always") as batch:
        batch.add_column(sa.Column("mood", sa.String(16), server_default="calm", nullable=False))
    for _, text in views:
        connection.exec_driver_sql(text)
    {late_boom}


def downgrade():
    raise NotImplementedError
"""

# Makes a later sessionstore out of this one: its revisions, its head, and the column that it looks for.
LATER_VERSION = """
import json, os, sys, threading, warnings
from pathlib import Path
import sessionstore
from sessionstore import sql
from sessionstore.database import upgrade

folder, path = Path(sys.argv[1]), sys.argv[2]
upgrade.migrations_folder = lambda: folder
upgrade.HEAD_REVISION = "0007"
sql.COLUMNS["messages"] += ("words",)
sql.COLUMNS["sessions"] += ("mood",)
"""

OPEN = """
try:
    with sessionstore.open(path, migrate=sys.argv[3:] != ["no"]) as store:
        found = {
            "revision": store.status().schema_revision,
            "texts": [message.text for message in store.messages("s")],
            "tags": list(store.get("s").tags),
            "doctor": store.doctor().ok,
            "seq": store.append("s", "user", "new").seq,
        }
except sessionstore.SessionStoreError as error:
    found = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(found))
"""


def later_version(folder: Path, *, boom: str = "", late_boom: str = "") -> Path:
    """A migrations folder with one more revision."""
    source = upgrade.migrations_folder()
    versions = folder / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (folder / "env.py").write_text((source / "env.py").read_text())
    for revision in (source / "versions").glob("0*.py"):
        (versions / revision.name).write_text(revision.read_text())
    (versions / "0007_later.py").write_text(LATER_REVISION.format(boom=boom or "pass", late_boom=late_boom or "pass"))
    return folder


def run_later(program: str, *given: object, expect: int = 0) -> Any:
    """Run a program of the later version and give what it printed."""
    command = [sys.executable, "-W", "error", "-c", LATER_VERSION + textwrap.dedent(program), *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A file of the present version, with a tagged session."""
    path = tmp_path / "old.db"
    make_store(path)
    return path


def make_store(path: Path, text: str = "old") -> None:
    with sessionstore.open(path) as store:
        store.session("s", tags=["a", "b"]).append("user", text)


def backups_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}{upgrade.BACKUP_INFIX}*"))


UPGRADED = {"revision": "0007", "texts": ["old"], "tags": ["a", "b"], "doctor": True, "seq": 2}


def test_an_older_file_is_upgraded_in_place_and_keeps_everything(old_store: Path, tmp_path: Path) -> None:
    """The backfill ran, and the tags survived the rebuild of their parent table."""
    folder = later_version(tmp_path / "later")
    assert run_later(OPEN, folder, old_store) == UPGRADED
    with closing(sqlite3.connect(old_store)) as raw:
        assert raw.execute("SELECT words FROM messages WHERE seq = 1").fetchall() == [(3,)]
        assert raw.execute("SELECT mood FROM sessions").fetchall() == [("calm",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_upgrade_leaves_a_private_backup_of_the_old_file(old_store: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(old_store)) as raw:
        before = list(raw.iterdump())
    run_later(OPEN, later_version(tmp_path / "later"), old_store)
    (backup,) = backups_of(old_store)
    if os.name == "posix":
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite3.connect(backup)) as raw:
        assert list(raw.iterdump()) == before
    with sessionstore.open(backup) as store:
        assert [message.text for message in store.messages("s")] == ["old"]


def test_only_the_newest_backup_is_kept_and_other_files_are_spared(old_store: Path, tmp_path: Path) -> None:
    older = old_store.with_name(f"{old_store.name}{upgrade.BACKUP_INFIX}0000.db")
    of_another = old_store.with_name(f"other.db{upgrade.BACKUP_INFIX}0000.db")
    for path in (older, of_another):
        path.write_bytes(b"an older backup")
    run_later(OPEN, later_version(tmp_path / "later"), old_store)
    assert [path.name for path in backups_of(old_store)] == [f"old.db{upgrade.BACKUP_INFIX}0006.db"]
    assert of_another.exists()


def test_an_empty_store_is_upgraded_without_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    sessionstore.open(path).close()
    program = "with sessionstore.open(path) as store: print(json.dumps(store.status().schema_revision))"
    assert run_later(program, later_version(tmp_path / "later"), path) == "0007"
    assert backups_of(path) == []


def content_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as raw:
        return list(raw.iterdump())


@pytest.mark.fault("F12")
@pytest.mark.parametrize("where", ["boom", "late_boom"])
def test_a_failing_upgrade_leaves_the_old_schema_and_the_retry_works(old_store: Path, tmp_path: Path, where: str) -> None:
    before = content_of(old_store)
    bad = later_version(tmp_path / "bad", **{where: "raise RuntimeError('boom')"})
    for _ in range(2):
        assert run_later(OPEN, bad, old_store)["error"] == "UpgradeError"
        assert content_of(old_store) == before
    with sessionstore.open(old_store) as store:
        assert [message.text for message in store.messages("s")] == ["old"]
    assert run_later(OPEN, later_version(tmp_path / "good"), old_store) == UPGRADED


@pytest.mark.fault("F12")
@posix_only
@pytest.mark.parametrize("where", ["boom", "late_boom"])
def test_a_killed_upgrade_leaves_the_old_schema_and_the_retry_works(old_store: Path, tmp_path: Path, where: str) -> None:
    before = content_of(old_store)
    deadly = later_version(tmp_path / "deadly", **{where: "os.kill(os.getpid(), signal.SIGKILL)"})
    for _ in range(2):
        run_later(OPEN, deadly, old_store, expect=-9)
        assert content_of(old_store) == before
    assert run_later(OPEN, later_version(tmp_path / "good"), old_store) == UPGRADED
    assert [path.suffix for path in backups_of(old_store)] == [".db"], "an unfinished backup was left"


@pytest.mark.fault("F12")
def test_an_upgrade_that_would_orphan_rows_is_undone(old_store: Path, tmp_path: Path) -> None:
    before = content_of(old_store)
    orphaning = later_version(tmp_path / "bad", late_boom="op.execute('DELETE FROM sessions')")
    assert run_later(OPEN, orphaning, old_store)["error"] == "UpgradeError"
    assert content_of(old_store) == before


def upgraded_meanwhile(path: Path, folder: Path) -> None:
    """Let a later version upgrade a file that this process has open, and write to it."""
    assert run_later(OPEN, later_version(folder), path)["revision"] == "0007"


@pytest.mark.fault("F12")
def test_a_store_that_was_open_during_an_upgrade_writes_nothing_more(old_store: Path, tmp_path: Path) -> None:
    with sessionstore.open(old_store) as store:
        store.append("s", "user", "before")
        store.truncate("s", after=1)
        upgraded_meanwhile(old_store, tmp_path / "later")
        before = content_of(old_store)
        calls: list[Callable[[], object]] = [
            lambda: store.append("s", "user", "after"),
            lambda: store.truncate("s", after=0),
            lambda: store.delete("s"),
        ]
        for call in calls * 2:
            with pytest.raises(sessionstore.SchemaTooNewError, match=r"0007.*start the program again"):
                call()
        assert content_of(old_store) == before


def test_callers_that_share_a_commit_are_all_told_of_an_upgrade(old_store: Path, tmp_path: Path) -> None:
    with sessionstore.open(old_store) as store:
        upgraded_meanwhile(old_store, tmp_path / "later")
        before = content_of(old_store)

        def refused(number: int) -> bool:
            with pytest.raises(sessionstore.SchemaTooNewError):
                store.append("s", "user", f"after {number}")
            return True

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(refused, range(32)))
        assert content_of(old_store) == before


def test_the_writes_of_another_program_of_this_version_are_no_upgrade(old_store: Path) -> None:
    program = "import sys, sessionstore; sessionstore.open(sys.argv[1]).append('s', 'user', 'theirs')"
    with sessionstore.open(old_store) as store:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", program, str(old_store)], check=True, timeout=100)
            store.append("s", "user", "mine")
        assert [message.text for message in store.messages("s")] == ["old", *["theirs", "mine"] * 2]


def test_a_read_that_fails_for_an_upgrade_says_so(old_store: Path) -> None:
    with sessionstore.open(old_store) as store:
        assert len(store.messages("s")) == 1
        with closing(sqlite3.connect(old_store, isolation_level=None)) as later:
            later.execute("ALTER TABLE messages RENAME COLUMN packed TO squeezed")
            with pytest.raises(sessionstore.StoreIOError, match="no such column"):
                store.messages("s")
            later.execute(f"UPDATE {upgrade.VERSION_TABLE} SET version_num = '0007'")
        with pytest.raises(sessionstore.SchemaTooNewError, match="0007"):
            store.messages("s")


@pytest.mark.fault("F13")
def test_eight_processes_upgrade_a_file_once(old_store: Path, tmp_path: Path) -> None:
    folder = later_version(tmp_path / "later", boom="op.execute('UPDATE store_info SET created_at = created_at || 1')")
    created = read_one(old_store, "SELECT created_at FROM store_info")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: run_later(OPEN, folder, old_store), range(8)))
    assert [outcome for outcome in outcomes if "error" in outcome] == []
    assert sorted(outcome["seq"] for outcome in outcomes) == list(range(2, 10))
    assert read_one(old_store, "SELECT created_at FROM store_info") == created + "1", "the revision ran more than once"


def read_one(path: Path, query: str) -> Any:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query).fetchall()[0][0]


UPGRADE_IN_THREADS = """
paths = sys.argv[2:]
barrier = threading.Barrier(len(paths))
outcomes = {}

def run(each):
    barrier.wait()
    try:
        with sessionstore.open(each) as store:
            outcomes[each] = [message.text for message in store.messages("s")]
    except Exception as error:
        outcomes[each] = repr(error)

threads = [threading.Thread(target=run, args=(each,)) for each in paths]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(outcomes))
"""


def test_threads_upgrade_different_files_at_once(tmp_path: Path) -> None:
    """Alembic keeps the running migration in module globals; each file must get its own migration."""
    files = [tmp_path / f"{number}.db" for number in range(6)]
    for number, path in enumerate(files):
        make_store(path, f"text {number}")
    outcomes = run_later(UPGRADE_IN_THREADS, later_version(tmp_path / "later"), *files)
    assert outcomes == {str(path): [f"text {number}"] for number, path in enumerate(files)}
    assert {read_one(path, f"SELECT version_num FROM {upgrade.VERSION_TABLE}") for path in files} == {"0007"}


def test_threads_make_different_files_at_once(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.db" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(sessionstore.open, files))
    assert len({store.status().store_id for store in stores}) == 6
    for store in stores:
        store.close()


# -- refusals


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.fault("F12")
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_file_is_refused_and_not_touched(old_store: Path, read_only: bool) -> None:
    with closing(sqlite3.connect(old_store)) as raw, raw:
        raw.execute(f"UPDATE {upgrade.VERSION_TABLE} SET version_num = '9999'")
    before = digest(old_store)
    with pytest.raises(sessionstore.SchemaTooNewError, match="9999"):
        sessionstore.open(old_store, read_only=read_only)
    assert digest(old_store) == before
    assert backups_of(old_store) == []


def test_an_older_file_is_not_upgraded_if_told_so(old_store: Path, tmp_path: Path) -> None:
    before = content_of(old_store)
    refused = run_later(OPEN, later_version(tmp_path / "later"), old_store, "no")
    assert refused["error"] == "ConfigError"
    assert "sessionstore upgrade" in refused["message"]
    assert content_of(old_store) == before


@pytest.mark.parametrize(
    "damage",
    [
        f"DROP TABLE {upgrade.VERSION_TABLE}",
        f"DELETE FROM {upgrade.VERSION_TABLE}",
        f"INSERT INTO {upgrade.VERSION_TABLE} VALUES ('0000')",
        "DROP TABLE messages",
        "ALTER TABLE store_info RENAME COLUMN created_at TO made_at",
    ],
)
def test_a_file_with_a_broken_schema_is_called_damaged(old_store: Path, damage: str) -> None:
    with closing(sqlite3.connect(old_store)) as raw, raw:
        raw.execute(damage)
    with pytest.raises(sessionstore.StoreCorruptError):
        sessionstore.open(old_store)


# -- what is loaded, and what a host program keeps


def loaded_by(program: str, *given: object) -> set[str]:
    """The top-level packages that a program loads."""
    command = [sys.executable, "-c", program + "\nimport sys; print(*sorted(sys.modules))", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def loaded_from_elsewhere(program: str, *given: object) -> set[str]:
    """What a program loads that is neither this package nor the standard library, nor what a bare interpreter loads there."""
    return loaded_by(program, *given) - loaded_by("") - {"sessionstore"} - set(sys.stdlib_module_names)


# Of the standard library: they take milliseconds or megabytes, and appending and reading needs none of them.
HEAVY = {
    "asyncio",
    "concurrent",
    "email",
    "hashlib",
    "hmac",
    "http",
    "multiprocessing",
    "secrets",
    "socket",
    "ssl",
    "unittest",
    "uuid",
}

EVERYDAY = """
import sys, sessionstore
with sessionstore.open(sys.argv[1]) as store:
    chat = store.session("new", user_id="u", ttl=60, metadata={"k": 1})
    chat.append("user", "naïve 日本語", model="m", dedupe_key="k")
    chat.append_many([{"role": "user", "content": "y"}, {"role": "assistant", "content": "z"}])
    assert len(chat.messages(last=2)) == 2
    assert list(chat.iterate())
    assert store.get("new")
    store.set_state("new", {"name": {"v": 1}})
    assert store.get_state("new", "name") == {"v": 1}
    store.record("m", 1.0)
    chat.end()
"""

LISTING = """
import sys, sessionstore
from datetime import datetime, timezone
with sessionstore.open(sys.argv[1]) as store:
    for number in range(9):
        store.create(f"new{number}", agent_id="a", user_id="u", tags=["new"], metadata={"k": 1}, pinned=True)
    begin = datetime(2020, 1, 1, tzinfo=timezone.utc)
    filters = [
        *({"status": status} for status in ("open", "completed", "failed", "expired")), {"agent_id": "a"}, {"user_id": "u"},
        {"agent_id": None}, {"user_id": None}, {"archived": True}, {"archived": None}, {"pinned": True}, {"tag": "new"},
        {"tag": ["new", "other"]}, {"since": begin}, {"until": begin}, {"metadata": {"k": 1}}, {"text": "x"},
        {"agent_id": "a", "user_id": "u", "tag": "new", "status": "open", "since": begin},
    ]
    for chosen in [{}, *filters]:
        page = store.list(limit=3, **chosen)
        if page.next_cursor is not None:
            assert len(store.list(limit=3, cursor=page.next_cursor, **chosen)) == 3
        assert store.count(**chosen) >= len(page)
    assert store.count(**filters[-1]) == 9
    assert store.tags()["new"] == 9
    assert store.namespaces() == ("",)
"""

AWAITED = """
import asyncio, sys, sessionstore
async def main():
    async with sessionstore.aopen(sys.argv[1]) as store:
        chat = await store.session("new")
        await chat.append("user", "x")
        assert len(await chat.messages(last=2)) == 1
        assert [message async for message in chat.iterate()]
        assert await store.get("new")
asyncio.run(main())
"""


def test_appending_and_reading_loads_no_sqlalchemy_and_a_light_part_of_the_standard_library(old_store: Path) -> None:
    # What decodes the JSON of extras and metadata.
    assert loaded_from_elsewhere(EVERYDAY, old_store) <= {"pydantic_core", "typing_extensions"}
    assert (loaded_by(EVERYDAY, old_store) - loaded_by("")) & HEAVY == set()


def test_awaiting_them_loads_no_sqlalchemy_either(old_store: Path) -> None:
    assert loaded_from_elsewhere(AWAITED, old_store) <= {"anyio", "idna", "pydantic_core", "sniffio", "typing_extensions"}


def test_listing_and_counting_by_any_filter_loads_no_sqlalchemy_either(old_store: Path) -> None:
    # Pieces of text are looked for in packed messages too.
    assert loaded_from_elsewhere(LISTING, old_store) <= {"backports", "pydantic_core", "typing_extensions"}


def test_what_needs_sqlalchemy_loads_it_in_the_middle_of_a_program(old_store: Path) -> None:
    program = (
        EVERYDAY
        + """
    assert "sqlalchemy" not in sys.modules
    assert store.update("new", title="x").title == "x"
    assert "sqlalchemy" in sys.modules
    assert [info.session_id for info in store.list(user_id="u", status="completed")] == ["new"]
"""
    )
    assert loaded_by(program, old_store) & {"alembic", "httpx", "mako"} == set()


INTERRUPTED = """
import signal, sys, sessionstore

class Interrupt:
    def find_spec(self, name, *_):
        if name == sys.argv[2]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

with sessionstore.open(sys.argv[1]) as store:
    store.session("new")
    sys.meta_path.insert(0, Interrupt())
    try:
        store.tag("new", "interrupted")
    except KeyboardInterrupt:
        store.tag("new", "again")
    assert store.get("new").tags == ("again",)
    assert [info.session_id for info in store.list(tag="again")] == ["new"]
"""


@pytest.mark.parametrize("where", ["sqlalchemy.sql.elements", "sqlalchemy.dialects.sqlite.base", "sqlmodel.main"])
def test_ctrl_c_while_sqlalchemy_is_loaded_in_the_middle_of_a_program_costs_that_call_only(old_store: Path, where: str) -> None:
    assert "sqlalchemy" in loaded_by(INTERRUPTED, old_store, where)


def test_the_host_programs_metadata_and_logging_stay_as_they_are(tmp_path: Path) -> None:
    """An upgrade inside of `open()` adds no table to SQLModel.metadata and changes no logger."""
    program = """
        import logging
        import sqlmodel
        logging.basicConfig(level=logging.ERROR)
        mine = logging.getLogger("mine")
        mine.setLevel(logging.DEBUG)
        def state():
            names = sorted(name for name in logging.root.manager.loggerDict if name == "mine" or name.startswith("alembic"))
            loggers = [logging.root, *map(logging.getLogger, names)]
            return [(each.name, each.level, each.disabled, len(each.handlers), each.propagate) for each in loggers]
        import alembic.command, alembic.runtime.migration
        before = state()
        with sessionstore.open(path) as store:
            store.list()
        from sessionstore import models
        same = [each for each in state() if each[0] in {name for name, *_ in before}] == before
        print(json.dumps([same, sorted(sqlmodel.SQLModel.metadata.tables)]))
    """
    path = tmp_path / "old.db"
    make_store(path)
    assert run_later(program, later_version(tmp_path / "later"), path) == [True, []]


def test_paths_with_odd_names_are_migrated(tmp_path: Path) -> None:
    """Alembic's configuration and SQLAlchemy's URLs give a meaning to %, ? and #; a path has none of it."""
    for name in ("50%.db", "a?mode=memory", "a#b.db", "%(here)s.db", "sp ace.db"):
        path = tmp_path / name
        make_store(path)
        assert paths.size_of(path) > 0
        assert run_later(OPEN, later_version(tmp_path / "100% later"), path) == UPGRADED
