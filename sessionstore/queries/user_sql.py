"""A statement of the user's own, which may only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..values import QueryResult

_READING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
# They load code, or pass addresses of code.
_REFUSED_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer"})
_USERS_FAULTS: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_AUTH,
        # It compiled a refused statement again and again, and gave up.
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_READONLY,
    }
)
# How many steps of SQLite's machine a statement makes between two looks at what Python wants; some milliseconds.
_STEPS: Final = 100_000
_SCHEMA_TABLE: Final = "sqlite_master"
_PRIMARY: Final = 0xFF
_UNDECODABLE: Final = "Could not decode to UTF-8"

Parameters = Sequence[Any] | Mapping[str, Any]


def query(db: Transaction, text: str, parameters: Parameters, *, limit: int | None) -> QueryResult:
    """The rows of one statement.

    Raises:
        InvalidInputError: It does more than reading, it is not one statement, or SQLite refuses it.
        KeyboardInterrupt: The user has had enough.
    """
    driver = db.driver
    try:
        driver.set_authorizer(_authorize)
        # A call of Python's own lets it handle its signals; SQLite ends the statement if a handler raises.
        driver.set_progress_handler(lambda: 0, _STEPS)
        return _result(driver, text, parameters, limit)
    except (sqlite3.Error, sqlite3.Warning) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise refusal from error
    finally:
        driver.set_progress_handler(None, 0)
        driver.set_authorizer(None)


def _result(driver: sqlite3.Connection, text: str, parameters: Parameters, limit: int | None) -> QueryResult:
    cursor = driver.cursor()
    try:
        cursor.execute(text, parameters)
        if cursor.description is None:
            raise InvalidInputError("sql", "must be one statement that reads, such as a SELECT")
        rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        return QueryResult(tuple(column[0] for column in cursor.description), tuple(rows))
    finally:
        # A statement that is left in the middle of its rows would keep the snapshot open.
        cursor.close()


def _authorize(action: int, table: str | None, function: str | None, _: str | None, __: str | None) -> int:
    """SQLite asks while it compiles a statement, so that a refused one has not begun."""
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = function not in _REFUSED_FUNCTIONS
    elif action == sqlite3.SQLITE_UPDATE:
        # The first use of json_each and the like declares a table. SQLite itself lets nobody write this one.
        allowed = table == _SCHEMA_TABLE
    else:
        allowed = action in _READING
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _refusal(error: Exception) -> InvalidInputError | None:
    """What is wrong with the statement, in SQLite's words; None if the fault is not the user's."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Python's own errors. That one would show the text.
        return InvalidInputError("sql", "gives a text that is no UTF-8" if _UNDECODABLE in str(error) else _words(error))
    if code & _PRIMARY not in _USERS_FAULTS:
        return None
    if code & _PRIMARY in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_SCHEMA):
        return InvalidInputError("sql", f"must only read ({_words(error)})")
    return InvalidInputError("sql", _words(error))


def _words(error: Exception) -> str:
    return str(error).rstrip(".")
