"""One write that waits for its commit, and how whoever waits for it is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from ..errors import SessionStoreError
from .transaction import Work

T = TypeVar("T")


class WriteJob(Generic[T]):
    """One call that waits for its commit.

    Attributes:
        work: What to do in the transaction; it may be run again if the group is.
        full: Whether the commit must survive a power loss.
        deadline: When to give up waiting for other processes, on the monotonic clock.
        notify: Called from the leader's thread when the outcome is known, maybe more than once.
    """

    __slots__ = ("deadline", "done", "error", "full", "notify", "result", "work")

    def __init__(self, work: Work[T], *, full: bool, deadline: float, notify: Callable[[], None] | None = None) -> None:
        self.work = work
        self.full = full
        self.deadline = deadline
        self.notify = notify
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = False

    def outcome(self) -> T:
        """What the work returned, after its commit; or its error."""
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


def tell(jobs: Iterable[WriteJob[Any]]) -> None:
    """Let those who wait know of the outcome, if there is one; more than once does no harm."""
    for job in jobs:
        if job.done and job.notify is not None:
            job.notify()


def lost_transaction(job: WriteJob[Any]) -> sqlite3.Error:
    """What to raise where the failure of one job took the transaction of all with it."""
    cause = job.error.__cause__ if isinstance(job.error, SessionStoreError) else None
    return cause if isinstance(cause, sqlite3.Error) else sqlite3.OperationalError("the transaction was rolled back")
