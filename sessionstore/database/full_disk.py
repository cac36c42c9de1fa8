"""What becomes of a write that met a full disk: the log is copied, so that its room serves again; what makes room has the reserve.

A call that adds never takes from the reserve. It is done again only where copying the log has made room in what is ours already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import DiskFullError
from . import engine
from .faults import is_storage_failure
from .transaction import Transaction, Work, raise_own

if TYPE_CHECKING:
    from .reserve import Reserve
    from .writer import Writer

T = TypeVar("T")


class Freeing(Generic[T]):
    """Work that makes room, and so may have the reserve where the disk is full."""

    __slots__ = ("_work",)

    def __init__(self, work: Work[T]) -> None:
        self._work = work

    def __call__(self, db: Transaction) -> T:
        """Do the work."""
        return self._work(db)


def helped(reserve: Reserve | None, action: Callable[[], T]) -> T:
    """Do what makes room, on a full disk with the reserve. The writer lock is held."""
    return action() if reserve is None else reserve.help(action)


def write_again(writer: Writer, reserve: Reserve, work: Work[T], error: DiskFullError, *, full: bool, timeout: float) -> T:
    """Do work again that ended in an error since the disk is full, if there is a way.

    Raises:
        DiskFullError: There is none.
    """
    try:
        return _write_again(writer, reserve, work, error, full=full, timeout=timeout)
    except Exception as failure:  # noqa: BLE001 - raised again, in our words
        raise_own(failure, reserve.database)


def _write_again(writer: Writer, reserve: Reserve, work: Work[T], error: DiskFullError, *, full: bool, timeout: float) -> T:
    if writer.exclusively(lambda db: _is_worth_a_try(writer, reserve, db), timeout=timeout):
        try:
            return writer.run(work, full=full, timeout=timeout)
        except DiskFullError as again:
            error = again
    if not isinstance(work, Freeing):
        raise error
    freeing: Work[T] = work

    def with_reserve(db: Transaction) -> T:
        # Within the transaction, so under the lock: nobody else gets between.
        reserve.is_lent = reserve.give_up()
        _let_grow(reserve, db)
        result = freeing(db)
        _keep_from_growing(reserve, db)
        return result

    def restore(db: Transaction) -> None:
        reserve.take_back()
        _keep_from_growing(reserve, db)

    try:
        return writer.run(with_reserve, full=full, timeout=timeout, alone=True)
    finally:
        if reserve.is_lent:
            # It failed, or was interrupted: after a commit the checkpoint has taken it back.
            writer.exclusively(restore, timeout=timeout)


def _is_worth_a_try(writer: Writer, reserve: Reserve, db: Transaction) -> bool:
    """Whether the disk has room again, or the log is copied whole, so that the next commit begins it anew."""
    try:
        if not reserve.is_disk_full():
            return _let_grow(reserve, db) or _is_log_copied(db)
        _keep_from_growing(reserve, db)
        return _is_log_copied(db)
    except sqlite3.Error as error:
        if is_storage_failure(error):
            writer.let_go()
        return False


def _is_log_copied(db: Transaction) -> bool:
    busy, pages, copied = engine.checkpoint(db.driver, "PASSIVE")
    return not busy and pages == copied


def _keep_from_growing(reserve: Reserve, db: Transaction) -> None:
    """Let this connection use free pages of the file only.

    What is added to the log on a full disk would make the file grow when the log is copied, at the cost of the reserve.
    """
    if reserve.is_disk_full():
        # First this: a limit that an interrupt left, and nobody knew of, would outlast the full disk.
        reserve.is_limiting = True
        # A limit below the size means the size.
        engine.limit_pages(db.driver, 1)


def _let_grow(reserve: Reserve, db: Transaction) -> bool:
    """Take the limit away; False if there was none."""
    if not reserve.is_limiting:
        return False
    engine.limit_pages(db.driver, engine.MOST_PAGES)
    reserve.is_limiting = False
    return True
