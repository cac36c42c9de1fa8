"""The sync setting of a peer's connections: forced where a row asks for it, and read from the connections themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

NAMES = {0: "off", 1: "normal", 2: "full", 3: "extra"}
Seen = dict[int, tuple[str, str]]


def force(synchronous: str) -> None:
    """Begin every connection that is made from now on with this setting. A peer that sets another one afterwards keeps that."""
    usual = sqlite3.connect

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = usual(*arguments, **options)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    _replace(connect)


def observe() -> tuple[Seen, Callable[[], None]]:
    """Note (synchronous, journal mode) of every connection that has written, as it is at its last call.

    Connections that are made after the second value was called are no longer observed, and pay nothing.
    """
    usual = sqlite3.connect
    seen: Seen = {}

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        kind = options.pop("factory", sqlite3.Connection)
        return usual(*arguments, factory=_observed(kind, seen), **options)

    _replace(connect)
    return seen, lambda: _replace(usual)


def _replace(connect: Callable[..., sqlite3.Connection]) -> None:
    sqlite3.connect = connect
    sqlite3.dbapi2.connect = connect  # type: ignore[attr-defined]


def _observed(kind: type[sqlite3.Connection], seen: Seen) -> type[sqlite3.Connection]:
    def looked(connection: sqlite3.Connection) -> None:
        # A closed connection may be closed again; what else is done with it fails by itself.
        with suppress(sqlite3.ProgrammingError):
            if connection.total_changes:
                seen[id(connection)] = (NAMES[_pragma(connection, "synchronous")], str(_pragma(connection, "journal_mode")))

    def before(name: str) -> Callable[..., Any]:
        def call(self: sqlite3.Connection, *arguments: Any, **options: Any) -> Any:
            looked(self)
            return getattr(super(observed, self), name)(*arguments, **options)

        return call

    calls = {name: before(name) for name in ("cursor", "execute", "commit", "close")}
    observed = type("Observed", (kind,), calls)
    return observed


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    # A cursor of the base class: those of the connection come from what is being observed.
    cursor = sqlite3.Cursor(connection)
    cursor.row_factory = None
    return cursor.execute(f"PRAGMA {name}").fetchone()[0]
