"""What belongs to no session: recorded figures, agents and what they did, the state of users and applications.

Rows are the stored values, in the order of `columns`. They are put beside what is there, so that putting them again changes
nothing: of equal figures as many stand there as were given, of an agent the one that was heard of last, of a value the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ..database.transaction import Transaction
from ..values import STATE_SCOPES
from . import state
from .dialect import as_stored
from .tables import AGENT_ACTIVITY, AGENTS, METRIC_EVENTS, RECEIVED, STATE

Row = tuple[Any, ...]
Counted = tuple[Row, int]

_SESSION_SCOPE: Final = STATE_SCOPES[0]


class Kind(NamedTuple):
    """A kind of such rows.

    Attributes:
        name: What it is called in files and receipts.
        table: Where they stand.
        columns: What of them is carried.
        order: The columns that they are read by, those of an index first. Equal rows follow each other.
        keyed: How many of these name a row; 0 if equal rows may stand there.
        newest_by: The column that decides which of two rows of one name stays; None for the one that is there.
    """

    name: str
    table: sa.Table
    columns: tuple[str, ...]
    order: tuple[str, ...]
    keyed: int = 0
    newest_by: str | None = None


METRIC: Final = Kind(
    "metric",
    METRIC_EVENTS,
    ("namespace", "name", "value", "unit", "agent_id", "session_id", "attributes", "occurred_at"),
    ("namespace", "name", "occurred_at", "value", "unit", "agent_id", "session_id", "attributes"),
)
AGENT: Final = Kind(
    "agent",
    AGENTS,
    tuple(column.name for column in AGENTS.c),
    ("namespace", "agent_id"),
    keyed=2,
    newest_by="last_seen_at",
)
ACTIVITY: Final = Kind(
    "activity",
    AGENT_ACTIVITY,
    ("namespace", "agent_id", "kind", "action", "status", "previous_status", "details", "duration_seconds", "occurred_at"),
    ("namespace", "agent_id", "occurred_at", "kind", "action", "status", "previous_status", "details", "duration_seconds"),
)
STATE_VALUE: Final = Kind(
    "state",
    STATE,
    tuple(column.name for column in STATE.c),
    ("namespace", "scope", "owner", "name"),
    keyed=4,
    newest_by="updated_at",
)
# By which a collector knows what it has received.
RECEIVED_EVENT: Final = Kind(
    "received",
    RECEIVED,
    ("tenant", "key", "body_hash", "received_at"),
    ("tenant", "key"),
    keyed=2,
)
KINDS: Final = {kind.name: kind for kind in (STATE_VALUE, AGENT, ACTIVITY, METRIC)}


def rows(db: Transaction, kind: Kind, namespace: str | None = None) -> Iterator[Row]:
    """All rows of a kind, or those of a namespace, in their order."""
    found = sa.select(*(as_stored(kind.table.c[name]) for name in kind.columns))
    if namespace is not None:
        found = found.where(kind.table.c.namespace == namespace)
    if kind is STATE_VALUE:
        found = found.where(STATE.c.scope != _SESSION_SCOPE)
    order = (sa.type_coerce(kind.table.c[name], sa.String) for name in kind.order)
    for row in db.core.execute(found.order_by(*order)):
        yield tuple(row)


def counted(found: Iterable[Row]) -> Iterator[Counted]:
    """Each row once, with how many equal ones follow each other."""
    for row, equal in groupby(found):
        yield row, sum(1 for _ in equal)


def put(db: Transaction, kind: Kind, given: Iterable[Counted]) -> int:
    """Put rows beside those that are there, and return how many were added or changed."""
    if kind.keyed:
        return sum(db.driver.execute(_upsert(kind), row).rowcount for row, _ in given)
    return sum(_add_missing(db, kind, row, wanted) for row, wanted in given)


def missing(db: Transaction, kind: Kind, given: Iterable[Counted]) -> int:
    """How many of these rows are not there, or are there as something older."""
    if not kind.keyed:
        return sum(max(0, wanted - _present(db, kind, row, kind.columns)) for row, wanted in given)
    return sum(not _stands(db, kind, row) for row, _ in given)


def require_room(db: Transaction, values: Iterable[Row]) -> None:
    """Check that nobody has too much state, after values were put.

    Raises:
        QuotaError: Somebody has.
    """
    for namespace, scope, owner in dict.fromkeys(row[:3] for row in values):
        state.check_room(db, namespace, scope, owner)


def _add_missing(db: Transaction, kind: Kind, row: Row, wanted: int) -> int:
    lacking = max(0, wanted - _present(db, kind, row, kind.columns))
    db.driver.executemany(_insert(kind), [row] * lacking)
    return lacking


def _stands(db: Transaction, kind: Kind, row: Row) -> bool:
    """Whether a row is there, or a newer one in its place."""
    if kind.newest_by is None:
        return _present(db, kind, row, kind.order[: kind.keyed]) > 0
    return _present(db, kind, row, kind.columns) > 0 or _present(db, kind, row, kind.order[: kind.keyed], newer=True) > 0


def _present(db: Transaction, kind: Kind, row: Row, columns: Sequence[str], *, newer: bool = False) -> int:
    given = dict(zip(kind.columns, row, strict=True))
    # IS also finds what is NULL, and uses an index as = does.
    conditions = " AND ".join(f"{name} IS ?" for name in columns) + (f" AND {kind.newest_by} > ?" if newer else "")
    values = [*(given[name] for name in columns), *([given[kind.newest_by]] if newer and kind.newest_by else ())]
    ((found,),) = db.driver.execute(f"SELECT count(*) FROM {kind.table.name} WHERE {conditions}", values).fetchall()  # noqa: S608
    return int(found)


def _insert(kind: Kind) -> str:
    marks = ", ".join("?" for _ in kind.columns)
    return f"INSERT INTO {kind.table.name} ({', '.join(kind.columns)}) VALUES ({marks})"  # noqa: S608 - names of ours


def _upsert(kind: Kind) -> str:
    name = f"({', '.join(kind.order[: kind.keyed])})"
    if kind.newest_by is None:
        return f"{_insert(kind)} ON CONFLICT {name} DO NOTHING"
    changes = ", ".join(f"{column} = excluded.{column}" for column in kind.columns if column not in kind.order[: kind.keyed])
    return (
        f"{_insert(kind)} ON CONFLICT {name} DO UPDATE SET {changes} "
        f"WHERE excluded.{kind.newest_by} > {kind.table.name}.{kind.newest_by}"
    )
