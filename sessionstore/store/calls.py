"""How the calls of a store run: what every group of them stands on."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, TypeVar

from .. import inputs, queries
from ..config import StoreSettings
from ..database.database import Database
from ..database.full_disk import Freeing
from ..database.registry import release
from ..database.transaction import Work
from ..errors import ClosedStoreError, DiskFullError, ReadOnlyStoreError

T = TypeVar("T")

# Seconds in which others get their turn to write, between two parts of a merge.
_MERGE_PAUSE: Final = 0.002
# Pages of the search index at once.
_MERGE_PARTS: Final = (500, 60, 8)


class Calls:
    """A store without its calls: it opens, closes, and runs work in a snapshot or a transaction."""

    def __init__(
        self, database: Database, settings: StoreSettings, *, parent: Calls | None = None, user: object | None = None
    ) -> None:
        self._database = database
        self._settings = settings
        self._parent = parent
        self._closed = False
        # What the database is kept open for; None for one that others keep open.
        self._user = user

    @property
    def namespace(self) -> str:
        """The namespace that the calls work in."""
        return self._settings.namespace

    @property
    def settings(self) -> StoreSettings:
        """What the store was opened with."""
        return self._settings

    def in_namespace(self, namespace: str) -> Self:
        """The same file, seen in another namespace. It closes with this store."""
        settings = replace(self._settings, namespace=inputs.namespace(namespace))
        return type(self)(self._database, settings, parent=self)

    def close(self) -> None:
        """Finish running calls and let go of the file. A second close does nothing.

        Raises:
            StoreBusyError: Another process held the file past the `busy_timeout`; close again to try again.
        """
        self._closed = True
        if self._user is not None:
            release(self._database, self._user, timeout=self._settings.busy_timeout)
            self._user = None

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.name!r}, namespace={self._settings.namespace!r})"

    # -- how calls run; the async face replaces these three

    def _read(self, work: Work[T]) -> T:
        self._require_open()
        return self._database.read(work, timeout=self._settings.busy_timeout)

    def _write(self, work: Work[T], *, full: bool = False) -> T:
        """Do the work; with `full` it survives a power loss whatever the durability of the store."""
        self._require_writable()
        settings = self._settings
        return self._database.write(work, full=full or settings.durability == "full", timeout=settings.busy_timeout)

    def _read_or_write(self, read: Work[T | None], write: Work[T], *, full: bool = False) -> T:
        """Write only if there is nothing to read: a commit costs a sync of the disk."""
        found = self._read(read)
        return self._write(write, full=full) if found is None else found

    def _merge_search_index(self) -> None:
        """Drop what the index says of deleted messages. Others get their turns between the parts, small ones on a full disk."""
        parts = iter(_MERGE_PARTS)
        pages, begin, more = next(parts), True, True
        while more:
            try:
                more = self._write(Freeing(functools.partial(queries.search_index.merge_some, begin=begin, pages=pages)))
                begin = False
            except DiskFullError:
                pages = next(parts, 0)
                if not pages:
                    raise
            time.sleep(_MERGE_PAUSE)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedStoreError
        if self._parent is not None:
            self._parent._require_open()  # noqa: SLF001 - a store of the same file

    def _require_writable(self) -> None:
        self._require_open()
        if self._settings.read_only:
            raise ReadOnlyStoreError(self._database.name, "was opened with read_only=True")
