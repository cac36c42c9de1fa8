"""Checkpoints as rows, that go from one session to another: into a copy, a file, another store."""

# ruff: noqa: S608 - put together from constants only

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from ..arguments import NewSession
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..inputs import encode_json
from ..sql import COLUMNS
from . import checkpoints

Row = tuple[Any, ...]

_MANY: Final = 100


class Kind(NamedTuple):
    """A table of checkpoints, and what a row of it is called in files.

    Attributes:
        name: What it is called.
        table: Where they stand.
        columns: All but the session's key.
        order: By what they are read.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    order: str


def _kind(name: str, table: str, order: str) -> Kind:
    return Kind(name, table, tuple(column for column in COLUMNS[table] if column != "session_key"), order)


# Values stand before the checkpoints that have them.
VALUE: Final = _kind("checkpoint_value", "checkpoint_values", "number")
CHECKPOINT: Final = _kind("checkpoint", "checkpoints", "checkpoint_ns, checkpoint_id")
WRITE: Final = _kind("checkpoint_write", "checkpoint_writes", "checkpoint_ns, checkpoint_id, task_id, idx")
KINDS: Final = {kind.name: kind for kind in (VALUE, CHECKPOINT, WRITE)}

_NUMBER, _BASE = VALUE.columns.index("number"), VALUE.columns.index("base_number")
_CHANNELS: Final = CHECKPOINT.columns.index("channels")
_LOST: Final = (
    "SELECT EXISTS (SELECT e.value FROM checkpoints c, json_each(c.channels) e WHERE c.session_key = :key "
    "AND e.value NOT IN (SELECT number FROM checkpoint_values WHERE session_key = :key)) "
    "OR EXISTS (SELECT 1 FROM checkpoint_values WHERE session_key = :key AND base_number IS NOT NULL "
    "AND base_number NOT IN (SELECT number FROM checkpoint_values WHERE session_key = :key))"
)
_LAST_NUMBER: Final = "SELECT coalesce(max(number), 0) FROM checkpoint_values WHERE session_key = ?"


def rows(db: Transaction, key: int) -> Iterator[tuple[Kind, Row]]:
    """All rows of a session."""
    for kind in KINDS.values():
        found = db.driver.execute(
            f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE session_key = ? ORDER BY {kind.order}", (key,)
        )
        while some := found.fetchmany(_MANY):
            yield from ((kind, row) for row in some)


def count(db: Transaction, key: int) -> int:
    """How many rows a session has."""
    counts = " + ".join(f"(SELECT count(*) FROM {kind.table} WHERE session_key = :key)" for kind in KINDS.values())
    return int(db.driver.execute(f"SELECT {counts}", {"key": key}).fetchall()[0][0])


def count_checkpoints(db: Transaction, keys: Iterable[int]) -> int:
    """How many checkpoints some sessions have."""
    found = "SELECT count(*) FROM checkpoints WHERE session_key IN (SELECT value FROM json_each(?))"
    return int(db.driver.execute(found, (encode_json(list(keys)),)).fetchall()[0][0])


def put(db: Transaction, key: int, given: Iterable[tuple[Kind, Row]], *, replacing: bool = False) -> None:
    """Give rows to a session beside its own. Of checkpoints and writes of one name those stay that are there, or the others."""
    ((last,),) = db.driver.execute(_LAST_NUMBER, (key,)).fetchall()
    otherwise = "REPLACE" if replacing else "IGNORE"
    for kind, row in given:
        marks = ", ".join("?" * (len(kind.columns) + 1))
        names = ", ".join(("session_key", *kind.columns))
        db.driver.execute(f"INSERT OR {otherwise} INTO {kind.table} ({names}) VALUES ({marks})", (key, *_moved(kind, row, last)))
    if last:
        checkpoints.collect(db, key)


def receive(db: Transaction, key: int, given: Iterable[tuple[Kind, Row]]) -> None:
    """Give rows of a file to a session, beside its own, which stay.

    Raises:
        InvalidInputError: Values that they name are not among them.
    """
    put(db, key, given)
    if db.driver.execute(_LOST, {"key": key}).fetchall()[0][0]:
        raise InvalidInputError("checkpoints", "name values that the file does not have")


def copy(db: Transaction, namespace: str, session_id: str, target: NewSession) -> None:
    """Give a session, which is made if there is none, copies of the checkpoints of another one, if that is there."""
    key = checkpoints.live_key(db, namespace, session_id)
    if key is None or count(db, key) == 0 or target.session_id == session_id:
        return
    # Read to their end first: a table that is written to may show what is new, too.
    put(db, checkpoints.use(db, target).key, list(rows(db, key)), replacing=True)


def _moved(kind: Kind, row: Row, by: int) -> Row:
    """The row with its numbers behind those that are taken."""
    if not by or kind is WRITE:
        return row
    moved = list(row)
    if kind is CHECKPOINT:
        moved[_CHANNELS] = encode_json({name: number + by for name, number in json.loads(row[_CHANNELS]).items()})
    else:
        moved[_NUMBER] += by
        moved[_BASE] = None if row[_BASE] is None else row[_BASE] + by
    return tuple(moved)
