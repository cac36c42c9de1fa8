"""The turns of one agent, one after the other, whoever asks: threads, and tasks of any event loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import anyio

from ..errors import ConflictError
from ..waiting import Arrival

# The queues of the agents whose turns the running code is a part of: a tool may ask another agent, not its own.
_INSIDE: Final[ContextVar[tuple[TurnQueue, ...]]] = ContextVar("sessionstore_turns", default=())

# A thread, and one of its tasks.
Who = tuple[int, int]
_NO_TASK: Final = 0


class _Waiter:
    __slots__ = ("wake", "who")

    def __init__(self, who: Who, wake: Callable[[], None]) -> None:
        self.who = who
        self.wake = wake


class TurnQueue:
    """Lets in one turn at a time, in the order of their coming. Who has an unfinished one and asks again is refused."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: Who | None = None
        self._waiting: deque[_Waiter] = deque()

    def enter(self, session_id: str) -> None:
        """Wait, in a thread, until it is this turn's turn.

        Raises:
            ConflictError: An unfinished turn of this thread is what would be waited for.
        """
        come = threading.Event()
        waiter = _Waiter(_who(), come.set)
        self._came(session_id, waiter, stops_its_thread=True)
        try:
            come.wait()
        except BaseException:
            self._went(waiter)
            raise

    async def enter_async(self, session_id: str) -> None:
        """As `enter`, in a task."""
        arrival = Arrival()
        waiter = _Waiter(_who(), arrival.set)
        self._came(session_id, waiter, stops_its_thread=False)
        try:
            await arrival.wait()
        except BaseException:
            self._went(waiter)
            raise

    def leave(self) -> None:
        """The turn is over; the next one comes in."""
        with self._lock:
            self._pass_on()

    @contextmanager
    def marked(self) -> Iterator[None]:
        """Mark the code inside as a part of a turn."""
        before = _INSIDE.get()
        _INSIDE.set((*before, self))
        try:
            yield
        finally:
            # Not by a token: a coroutine may be closed in another context than it ran in.
            _INSIDE.set(before)

    def _came(self, session_id: str, waiter: _Waiter, *, stops_its_thread: bool) -> None:
        if self in _INSIDE.get():
            raise ConflictError(session_id, "an agent cannot ask itself in the middle of its turn; let the tool ask another agent")
        with self._lock:
            if self._is_kept_out_by_itself(waiter.who, stops_its_thread=stops_its_thread):
                raise ConflictError(
                    session_id, "this agent has an unfinished turn here; read its stream to the end, or close it, first"
                )
            # First this: a stream that is collected as garbage meanwhile leaves from within this thread.
            self._waiting.append(waiter)
            if self._owner is None:
                self._pass_on()

    def _is_kept_out_by_itself(self, who: Who, *, stops_its_thread: bool) -> bool:
        """Whether the owner could not go on while it waits: its whole thread stops, or its task; or the owner is under the loop."""
        if self._owner is None or self._owner[0] != who[0]:
            return False
        return stops_its_thread or self._owner[1] in (who[1], _NO_TASK)

    def _went(self, waiter: _Waiter) -> None:
        """Who waited was cancelled, perhaps just when its turn had come."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            following = self._waiting.popleft()
            self._owner = following.who
            following.wake()
        else:
            self._owner = None


def _who() -> Who:
    try:
        return threading.get_ident(), anyio.get_current_task().id
    except anyio.NoEventLoopError:
        return threading.get_ident(), _NO_TASK
