"""The rows of a view, a batch at a time."""

# ruff: noqa: S608 - the names are those of views that exist

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, Final

from ..database.transaction import Transaction

_NAMESPACE: Final = "namespace"


def columns_of(db: Transaction, view: str) -> tuple[str, ...]:
    """The names of a view's columns, in order."""
    return tuple(row[1] for row in db.driver.execute(f'PRAGMA table_info("{view}")').fetchall())


def batches(db: Transaction, view: str, *, namespace: str | None, size: int) -> Generator[list[tuple[Any, ...]]]:
    """The rows, those of one namespace unless it is None or the view has none."""
    narrowed = namespace is not None and _NAMESPACE in columns_of(db, view)
    text = f'SELECT * FROM "{view}"' + (f" WHERE {_NAMESPACE} = ?" if narrowed else "")
    # A statement that is left in the middle of its rows would keep the snapshot open.
    with closing(db.driver.execute(text, (namespace,) if narrowed else ())) as cursor:
        while rows := cursor.fetchmany(size):
            yield rows
