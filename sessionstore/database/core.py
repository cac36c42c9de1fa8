"""SQLAlchemy Core on connections of the driver that are open already.

Importing this module loads SQLAlchemy: `Transaction.core` does so when it is first used. One engine serves all files of a process,
since it opens none.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
from contextlib import closing
from typing import Any, Final, cast

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.pool import NullPool

from . import engine

_LOGGING_NAME: Final = "sessionstore"


class _Hand(threading.local):
    """The connection that a thread is about to hand to the engine."""

    driver: sqlite3.Connection | None = None


_hand = _Hand()


class LentDialect(SQLiteDialect_pysqlite):
    """SQLite on connections that are lent: others set them up, begin and end their transactions, and close them."""

    supports_statement_cache = True

    def on_connect_url(self, url: URL) -> None:
        """Nothing is done to one that is handed over: it may be in the middle of a transaction."""

    def do_close(self, dbapi_connection: Any) -> None:
        """Nothing, also when SQLAlchemy's connection is collected as garbage: the driver's one may be in use."""

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Close one that an interrupt left in an unknown state; not one that was not handed over yet, which nothing was done to."""
        if dbapi_connection is not _hand.driver:
            engine.close(dbapi_connection)


class LentPool(NullPool):
    """No pool at all, and out of reach of the listeners that a program has on every pool or engine.

    Many set pragmas on each new connection. These are not new: a listener may be run in the middle of a transaction, and end it.
    """

    _sa_propagate_class_events = False
    # Else its lines would stand among the events of this library.
    _sqla_logger_namespace = "sqlalchemy.pool.impl.NullPool"


def around(driver: sqlite3.Connection) -> Connection:
    """SQLAlchemy's connection around one of the driver's, whose transaction goes on. Nothing is executed on it."""
    return _lent(driver, _engine())


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The driver's connection below one of SQLAlchemy's."""
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)


def _lent(driver: sqlite3.Connection, to: Engine) -> Connection:
    # A signal handler may do the same in the middle of it.
    outer, _hand.driver = _hand.driver, driver
    try:
        return to.connect()
    finally:
        _hand.driver = outer


@functools.cache
def _engine() -> Engine:
    # At DEBUG SQLAlchemy would log every row it reads, and rows hold the text of messages.
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOGGING_NAME}").setLevel(logging.WARNING)
    registry.register(f"sqlite.{_LOGGING_NAME}", __name__, LentDialect.__name__)
    made = create_engine(
        f"sqlite+{_LOGGING_NAME}://",
        creator=_handed,
        poolclass=LentPool,
        pool_reset_on_return=None,
        hide_parameters=True,
        logging_name=_LOGGING_NAME,
    )
    # An engine asks its first connection what SQLite can do, and rolls back what is open on it: that one must be nobody's.
    with closing(sqlite3.connect(":memory:")) as nobodys, _lent(nobodys, made):
        return made


def _handed() -> sqlite3.Connection:
    if _hand.driver is None:
        # SQLAlchemy would open another one, instead of one that was closed.
        raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
    return _hand.driver
