"""One write that waits for its commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from .transaction import Work

T = TypeVar("T")


class WriteJob(Generic[T]):
    """One call that waits for its commit.

    Attributes:
        work: What to do in the transaction; it may be run again if the group is.
        full: Whether the commit must survive a power loss.
        deadline: When to give up waiting for other processes, on the monotonic clock.
        notify: Called once the outcome is known, from the leader's thread.
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
