"""How a task waits for a thread: on asyncio and trio, from any number of loops, without a thread of the loop's own."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")


class _Event(Protocol):
    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class _Door:
    """The way into one event loop. Events that threads set while it is busy share one wake-up, which is a system call."""

    __slots__ = ("_call_soon", "_ringing", "_set", "loop", "new_event")

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        # The loop's own: one of anyio's would take as long again to make and to wait for.
        self.new_event: Callable[[], _Event]
        if isinstance(loop, asyncio.AbstractEventLoop):
            self._call_soon, self.new_event = loop.call_soon_threadsafe, asyncio.Event
        else:
            self._call_soon, self.new_event = loop.run_sync_soon, anyio.Event
        self._set: deque[_Event] = deque()
        self._ringing = False

    def set(self, event: _Event) -> None:
        """Set an event from any thread; of no effect if the loop has ended."""
        self._set.append(event)
        if self._ringing:
            return
        try:
            self._ringing = True
            self._call_soon(self._open)
        except RuntimeError:
            # Both asyncio and trio say so: the loop is closed, nobody waits any more.
            self._set.clear()
        except BaseException:
            # Interrupted: whoever sets an event next must not take it for rung.
            self._ringing = False
            raise

    def _open(self) -> None:
        # First this: whoever sets an event from now on rings again.
        self._ringing = False
        while self._set:
            self._set.popleft().set()


class _Here(threading.local):
    """What a thread knows: the door of the loop that it ran last."""

    door: _Door | None = None


_HERE = _Here()


def _door() -> _Door:
    loop = _running_loop()
    door = _HERE.door
    if door is None or door.loop is not loop:
        door = _HERE.door = _Door(loop)
    return door


def _running_loop() -> Any:
    try:
        # Not in a task, it may be the loop of another library that asyncio's is host of.
        if (task := asyncio.current_task()) is not None:
            return task.get_loop()
    except RuntimeError:
        # No loop of asyncio runs here.
        pass
    return current_token().native_token


class Arrival:
    """An event of the running loop that any thread may set."""

    __slots__ = ("_door", "_event")

    def __init__(self) -> None:
        self._door = _door()
        self._event = self._door.new_event()

    def set(self) -> None:
        """Wake the waiting task; of no effect if its loop has ended."""
        self._door.set(self._event)

    async def wait(self) -> None:
        """Return when it is set, or with the cancellation."""
        await self._event.wait()

    async def wait_through(self) -> None:
        """Return when it is set, whatever cancels meanwhile."""
        while not self._event.is_set():
            try:
                with anyio.CancelScope(shield=True):
                    await self._event.wait()
            except anyio.get_cancelled_exc_class():
                # asyncio's own cancel() passes through shields; the caller raises the first one again.
                continue


class Outcome(Generic[T]):
    """A call and what became of it, carried from a thread to a task."""

    __slots__ = ("_call", "_error", "_result", "arrival")

    def __init__(self, call: Callable[[], T]) -> None:
        self.arrival = Arrival()
        self._call = call
        self._result: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call, in the thread."""
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - carried to the task, which raises it
            self._error = error
        self.arrival.set()

    @property
    def succeeded(self) -> bool:
        """Whether the call has ended without an error; to be asked after its arrival."""
        return self._error is None

    def get(self) -> T:
        """The result, in the task; or its error."""
        if self._error is not None:
            raise self._error
        return cast(T, self._result)


async def in_thread(call: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
    """Make a long call in a daemon thread of its own.

    A cancellation waits for the call to end, so that nothing goes on behind the caller's back; then `undo` gets its result. A
    coroutine that is closed cannot wait: the call goes on without it, and `undo` follows in a thread.
    """
    outcome = Outcome(call)
    thread = _begun(outcome.run)

    def undone() -> None:
        thread.join()
        if undo is not None and outcome.succeeded:
            undo(outcome.get())

    try:
        await outcome.arrival.wait()
    except GeneratorExit:
        # Maybe after the end of its loop.
        if undo is not None:
            _begun(undone)
        raise
    except BaseException:
        await outcome.arrival.wait_through()
        if undo is not None and outcome.succeeded:
            await begun_in_thread(undone).arrival.wait_through()
        raise
    return outcome.get()


def begun_in_thread(call: Callable[[], T]) -> Outcome[T]:
    """A long call, begun in a daemon thread of its own, for who may leave it to itself."""
    outcome = Outcome(call)
    _begun(outcome.run)
    return outcome


def _begun(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name="sessionstore-call", daemon=True)
    thread.start()
    return thread
