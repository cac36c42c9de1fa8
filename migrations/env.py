"""Alembic's entry: run inside `sessionstore.open()` on its connection, or from the command line on `-x db=...`."""

import logging.config
import time
from contextlib import closing

import sqlalchemy as sa
from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from sessionstore.config import OpenOptions, locate
from sessionstore.database import core, engine, paths, upgrade
from sessionstore.database.locks import SidecarLock
from sessionstore.models import SCHEMA_METADATA, is_modelled

LOCK_TIMEOUT = 30.0
POSTGRESQL_SCHEMA = "sessionstore"


def render_item(kind, item, autogen_context):
    """Write plain SQLAlchemy types into new revisions, so that they outlive changes of sqlmodel."""
    if kind != "type":
        return False
    if isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    if isinstance(getattr(item, "impl", item), sa.DateTime):
        return "sa.DateTime(timezone=True)"
    return False


def configure(connection):
    context.configure(
        connection=connection,
        target_metadata=SCHEMA_METADATA,
        version_table=upgrade.VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
        transactional_ddl=True,
        render_item=render_item,
        include_name=is_modelled,
    )


def run_from_command_line():
    logging.config.fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    location = context.get_x_argument(as_dictionary=True).get("db")
    url = sa.make_url(location) if location and not location.startswith("sqlite") and "://" in location else None
    if url is None:
        migrate_file(location)
    else:
        with sa.create_engine(url).connect() as connection:
            # The tables have a schema of their own on a shared server.
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {POSTGRESQL_SCHEMA}")
            connection.exec_driver_sql(f"SET search_path TO {POSTGRESQL_SCHEMA}")
            connection.commit()
            configure(connection)
            with upgrade.transaction(connection):
                context.run_migrations()


def migrate_file(location):
    """Take the same care as `sessionstore.open()`: a private file, the writer lock, one transaction."""
    path, own_folder = locate(location)
    file = paths.prepare(path, OpenOptions(), own_folder=own_folder)
    lock = SidecarLock(paths.sidecar(file.path, paths.LOCK_SUFFIX))
    lock.acquire(time.monotonic() + LOCK_TIMEOUT)
    try:
        with closing(engine.connect_file(file.path)) as driver, core.around(driver) as connection:
            if upgrade.is_new(driver, file.path):
                engine.mark_as_ours(driver)
            configure(connection)
            with upgrade.transaction(connection):
                context.run_migrations()
    finally:
        lock.release()
        lock.close()


provided = context.config.attributes.get("connection")
if provided is not None:
    configure(provided)
    context.run_migrations()
else:
    run_from_command_line()
