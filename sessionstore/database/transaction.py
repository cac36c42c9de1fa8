"""The open transaction that query functions are given as `db`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from .. import clock, sql
from ..errors import StoreCorruptError
from ..loading import load
from ..rows import store_seed
from . import engine
from .faults import is_busy, translated
from .locks import pause

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")


@dataclass(slots=True)
class Gauge:
    """What a connection knows of how full the outbox is: what it saw when it looked last, and what it added since.

    Attributes:
        room: How many bytes of events still fit.
        unlooked: How many bytes of events came since the last look, kept or not.
        stretch: After how many of them it looks again.
        is_full: Whether nothing was left that could make room.
        is_filling: Whether it was found to fill up.
        sent: How many events had ever been delivered.
        enough: After how many more of them a full outbox is worth a look.
    """

    room: int = 0
    unlooked: int = 0
    stretch: int = 0
    is_full: bool = False
    is_filling: bool = False
    sent: int = 0
    enough: int = 0

    def forget(self) -> None:
        """Look again before the next event is kept."""
        self.stretch = 0


class Transaction:
    """One connection in one transaction.

    The hot path runs compiled SQL on `driver`; everything else uses SQLAlchemy Core on `core`. Both are the same connection: the
    driver's is opened, and SQLAlchemy's made around it when a query first asks for it.
    Query functions never begin, commit or retry.

    Attributes:
        now: The one present of the call.
        path: The file, for messages.
        enqueued: Whether events were kept for delivery; who commits them tells those that deliver.
        gauge: How full the outbox is, as far as this connection knows.
        has_index: Whether the search index was found to be there.
        data_version: What SQLite counts of other connections' commits, as of the last look at the schema; None before the first.
    """

    __slots__ = (
        "__weakref__", "_core", "_now_text", "_seed", "_written_now", "data_version", "driver", "enqueued", "gauge", "has_index",
        "now", "path",
    )  # fmt: skip

    def __init__(self, driver: sqlite3.Connection, path: str | PathLike[str]) -> None:
        self.driver = driver
        self._core: Connection | None = None
        self.path = path
        self.now: datetime = clock.utc_now()
        self._seed: int | None = None
        self._written_now: datetime | None = None
        self._now_text = ""
        self.enqueued = False
        self.gauge = Gauge()
        self.has_index = False
        self.data_version: int | None = None

    @property
    def core(self) -> Connection:
        """The connection as SQLAlchemy's, made at its first use: most programs need no more than the driver's."""
        if self._core is None:
            load(f"{__package__}.core")
            from .core import around

            self._core = around(self.driver)
        return self._core

    @property
    def now_text(self) -> str:
        """The present as it is stored."""
        if self._written_now is not self.now:
            self._written_now, self._now_text = self.now, clock.to_text(self.now)
        return self._now_text

    @property
    def seed(self) -> int:
        """What the checksums of this store begin with."""
        if self._seed is None:
            ((store_id,),) = self.driver.execute(sql.READ_STORE_ID).fetchall()
            self._seed = store_seed(store_id)
        return self._seed

    @contextmanager
    def at(self, instant: datetime) -> Iterator[None]:
        """Within it the present is another instant: what happened then is stored as of then."""
        present, self.now = self.now, instant
        try:
            yield
        finally:
            self.now = present

    def execute_by(self, deadline: float, statement: str) -> None:
        """Begin, commit or set something, with new tries until `deadline` while another connection's lock is in the way."""
        while True:
            try:
                self.driver.execute(statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
            else:
                return
            pause()

    def close(self) -> None:
        """Close the connection; a second close does nothing."""
        core, self._core = self._core, None
        try:
            if core is not None:
                core.close()
        finally:
            engine.close(self.driver)

    def __del__(self) -> None:
        """One that an interrupt took out of all hands."""
        engine.close(self.driver)


Work: TypeAlias = Callable[[Transaction], T]


def own_error(error: Exception, path: str | PathLike[str]) -> Exception:
    """The library's error for one of the driver's, also if SQLAlchemy wrapped it; any other error as it is."""
    cause = getattr(error, "orig", error)
    if isinstance(cause, UnicodeDecodeError):
        return StoreCorruptError(path, "holds what is no text where a text should be; the file is kept as it is")
    if not isinstance(cause, sqlite3.Error):
        return error
    mine = translated(cause, path)
    mine.__cause__ = cause
    return mine


def raise_own(error: Exception, path: str | PathLike[str]) -> NoReturn:
    """Raise the library's error for one of the driver's; any other error as it is."""
    mine = own_error(error, path)
    raise mine from mine.__cause__
