"""The schema's revision: checked with one SELECT at every open, migrated by Alembic only where it differs.

A migration is one transaction: what dies half way leaves the old schema, and the next open tries again.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .. import sql
from ..errors import ConfigError, ForeignDatabaseError, SchemaTooNewError, StoreCorruptError, UpgradeError
from ..keys import EncryptionKey
from ..logs import log
from . import engine, paths
from .faults import interrupt_behind

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from .transaction import Transaction

HEAD_REVISION: Final = "0006"
VERSION_TABLE: Final = "sessionstore_version"
_READ_REVISION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant
BACKUP_INFIX: Final = ".pre-upgrade-"

# Alembic keeps the running migration in module globals: two threads at once mix up their files.
# Whoever is interrupted while holding it can take it again.
_alembic_lock = threading.RLock()


def migrations_folder() -> Path:
    """Where the revisions are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def is_new(driver: sqlite3.Connection, path: Path | str) -> bool:
    """Whether the file is still empty, so that it may become a store.

    Raises:
        ForeignDatabaseError: Another program's tables are in it.
    """
    owner = engine.pragma(driver, "application_id")
    tables = driver.execute("SELECT count(*) FROM sqlite_master").fetchall()[0][0]
    if owner not in (0, engine.APPLICATION_ID) or (tables and owner != engine.APPLICATION_ID):
        raise ForeignDatabaseError(path, "belongs to another program; give the store a file of its own")
    return not tables


def create(db: Transaction, path: Path | str) -> None:
    """Make the tables of a new store. No transaction is open yet.

    Raises:
        UpgradeError: That failed; there are none.
    """
    _run_migrations(db, path, "its tables could not be made ({}); it is as empty as before")


def bring_up_to_date(db: Transaction, path: Path, key: EncryptionKey | None = None, *, migrate: bool, writable: bool) -> None:
    """Check the schema of an existing store and upgrade it in place if it is older.

    Raises:
        SchemaTooNewError: A newer version wrote the file.
        ConfigError: It is older, and `migrate` is off or the file is only read.
        StoreCorruptError: Tables or columns are missing.
        UpgradeError: The upgrade failed; the old schema is still there.
    """
    revision = stored_revision(db.driver, path)
    if revision != HEAD_REVISION:
        _require_known(revision, path)
        if not (migrate and writable):
            raise ConfigError(
                f"{path}: its schema is {revision}, this version needs {HEAD_REVISION}; upgrade it with: sessionstore upgrade"
            )
        if db.driver.execute("SELECT EXISTS (SELECT 1 FROM sessions)").fetchall()[0][0]:
            _back_up(db.driver, path, key, revision)
        _run_migrations(db, path, f"the upgrade to schema {HEAD_REVISION} failed ({{}}); nothing was changed")
        log(
            logging.INFO,
            "schema_upgraded",
            "the schema was upgraded",
            path=path,
            from_revision=revision,
            to_revision=HEAD_REVISION,
        )
    verify_columns(db.driver, path)


def known_revision(driver: sqlite3.Connection, path: Path) -> str:
    """The revision that the file says it has, if this version knows it.

    Raises:
        SchemaTooNewError: A newer version wrote the file.
        StoreCorruptError: It says none.
    """
    revision = stored_revision(driver, path)
    if revision != HEAD_REVISION:
        _require_known(revision, path)
    return revision


def refuse_upgraded(db: Transaction) -> None:
    """Make sure, in an open transaction, that no newer version upgraded the file since this connection looked last.

    Usually nobody else wrote, and that is all it looks at.

    Raises:
        SchemaTooNewError: One did; what this version knows of the tables is not true any more.
    """
    version = db.driver.execute("PRAGMA data_version").fetchone()[0]
    if version != db.data_version:
        require_head(db.driver, db.path)
        db.data_version = version


def require_head(driver: sqlite3.Connection, path: str | PathLike[str]) -> None:
    """Make sure that a file that is open has the schema of this version still.

    Raises:
        SchemaTooNewError: A newer version upgraded it.
    """
    revision = stored_revision(driver, path)
    if revision != HEAD_REVISION:
        raise SchemaTooNewError(
            path,
            f"a newer sessionstore upgraded it (schema {revision}) while this program had it open; this program writes and reads "
            "no more of it. Update sessionstore here, and start the program again",
        )


def stored_revision(driver: sqlite3.Connection, path: str | PathLike[str]) -> str:
    """The revision that the file says it has."""
    try:
        rows = driver.execute(_READ_REVISION).fetchall()
    except sqlite3.OperationalError as error:
        raise StoreCorruptError(path, "its version table is missing; the file is kept as it is") from error
    if len(rows) != 1:
        raise StoreCorruptError(path, f"its version table has {len(rows)} rows instead of 1; the file is kept as it is")
    return str(rows[0][0])


def verify_columns(driver: sqlite3.Connection, path: Path | str) -> None:
    """Make sure that every table and column is there.

    Raises:
        StoreCorruptError: One is missing.
    """
    for table, columns in sql.COLUMNS.items():
        try:
            driver.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0").fetchall()  # noqa: S608 - constants
        except sqlite3.OperationalError as error:
            raise StoreCorruptError(
                path, f"the table {table} is not as it was made ({error}); the file is kept as it is"
            ) from error


def begin_anew_after_fork() -> None:
    """In a forked child: a thread of the parent may have been in a migration."""
    global _alembic_lock  # noqa: PLW0603 - a lock cannot be made free by another thread
    _alembic_lock = threading.RLock()


def configuration(folder: Path) -> Config:
    """Alembic's configuration, without an ini file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _require_known(revision: str, path: Path) -> None:
    from alembic.script import ScriptDirectory

    revisions = ScriptDirectory.from_config(configuration(migrations_folder())).walk_revisions()
    # Not by asking for this one: Alembic also takes names such as "head" and unique beginnings.
    if revision not in {known.revision for known in revisions}:
        raise SchemaTooNewError(
            path, f"was written by a newer sessionstore (schema {revision}); it was not touched. Update sessionstore"
        )


def _run_migrations(db: Transaction, path: Path | str, problem: str) -> None:
    from alembic import command

    handled = sys.exception()
    engine.set_synchronous(db.driver, "full")
    config = configuration(migrations_folder())
    config.attributes["connection"] = db.core
    try:
        with _alembic_lock, transaction(db.core):
            command.upgrade(config, HEAD_REVISION)
    except Exception as error:
        interrupt = interrupt_behind(error, handled=handled)
        if interrupt is not None:
            raise interrupt from None
        raise UpgradeError(path, problem.format(type(error).__name__)) from error


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """One transaction around migrations, on either dialect: all of them or none.

    Raises:
        IntegrityError: They would leave rows without their parents.
    """
    if connection.dialect.name != "sqlite":
        with connection.begin():
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({engine.APPLICATION_ID})")
            yield
        return
    from .core import driver_of

    driver = driver_of(connection)
    # Rebuilding a parent table with foreign keys on would delete its children. It is a no-op inside a transaction.
    driver.execute("PRAGMA foreign_keys=OFF").fetchall()
    try:
        with connection.begin():
            driver.execute("BEGIN IMMEDIATE")
            yield
            _refuse_orphans(driver)
    except Exception:
        # Not after an interrupt: SQLAlchemy closes a connection that it was interrupted in, and nobody goes on with it.
        driver.execute("PRAGMA foreign_keys=ON").fetchall()
        raise
    driver.execute("PRAGMA foreign_keys=ON").fetchall()


def _refuse_orphans(driver: sqlite3.Connection) -> None:
    if driver.execute("PRAGMA foreign_key_check").fetchall():
        raise sqlite3.IntegrityError("rows would be left without their parents")


def _back_up(driver: sqlite3.Connection, path: Path, key: EncryptionKey | None, revision: str) -> None:
    """Keep a copy of the file as it was; only the newest one stays."""
    backup = path.with_name(f"{path.name}{BACKUP_INFIX}{revision}.db")
    unfinished = paths.sidecar(backup, ".tmp")
    unfinished.unlink(missing_ok=True)
    paths.create_private(unfinished)
    target = engine.connect_copy(unfinished, key)
    try:
        driver.backup(target)
        target.close()
        unfinished.replace(backup)
    except (sqlite3.Error, OSError) as error:
        raise UpgradeError(path, f"the backup before the upgrade failed ({error}); nothing was changed") from error
    finally:
        target.close()
        unfinished.unlink(missing_ok=True)
    paths.sync_folder(path.parent)
    for older in copies_of(path):
        if older != backup:
            older.unlink()


def copies_of(path: Path) -> list[Path]:
    """The copies of a file that its upgrades kept."""
    found = sorted(path.parent.glob("*" + BACKUP_INFIX + "*.db"))
    return [copy for copy in found if copy.name.startswith(path.name + BACKUP_INFIX)]
