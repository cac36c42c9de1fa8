"""An event loop for several simulated processes in one thread: time is virtual, and a seed chooses whose turn it is.

Within one process callbacks run in their order, as in a real loop; between processes any order is possible. A process that is
asleep (as by SIGSTOP) is passed over, and one that is gone never runs again.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from anyio._backends._asyncio import CancelScope

# Many times what any seed needs.
MOST_STEPS = 400_000


class Owner:
    """Whose callbacks they are: a process, or the world around all of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        # How its threads reach it.
        self.door: Any = None
        self.ready: deque[asyncio.Handle] = deque()
        self.is_asleep = False
        self.is_gone = False

    def __repr__(self) -> str:
        return self.name


OWNER: contextvars.ContextVar[Owner] = contextvars.ContextVar("owner")


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is the same in each run: anyio cancels the tasks of a set one after another."""

    count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _Task.count += 1
        self._number = _Task.count
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class _InOrder(dict[Any, None]):
    """A set that is gone through in the order in which things came into it."""

    def add(self, one: Any) -> None:
        self[one] = None

    def discard(self, one: Any) -> None:
        self.pop(one, None)

    remove = discard


def keep_order_of_scopes(patch: pytest.MonkeyPatch) -> None:
    """anyio cancels scopes within a scope by their addresses, which differ from run to run."""
    init = CancelScope.__init__

    def made(self: CancelScope, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self._child_scopes = _InOrder()  # type: ignore[assignment]

    patch.setattr(CancelScope, "__init__", made)


class StuckError(AssertionError):
    """Nothing can happen any more, or too much did."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop. Errors that nobody awaits end the run."""

    def __init__(self, rng: random.Random) -> None:
        _Task.count = 0
        self.world = Owner("world")
        self.errors: list[BaseException] = []
        self.steps = 0
        self._rng = rng
        self._now = 0.0
        self._number = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Owner]] = []
        self._runnable: dict[Owner, None] = {}

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **_: Any) -> Any:
        return _Task(coro, loop=self, name=name, context=context)

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        known = contextvars.copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, known)
        self._enqueue(known.get(OWNER, self.world), handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        known = contextvars.copy_context() if context is None else context
        timer = asyncio.TimerHandle(when, callback, args, self, known)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer, known.get(OWNER, self.world)))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or StuckError(context["message"]))

    def call_by(self, owner: Owner, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call something in the name of an owner, whoever asks for it."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        self.call_later(delay, callback, *args, context=context)

    def start(self, owner: Owner, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of an owner."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        task: asyncio.Task[Any] = self.create_task(work, context=context)
        return task

    def wake(self, owner: Owner) -> None:
        """Let a process go on that is asleep."""
        owner.is_asleep = False
        if owner.ready:
            self._runnable[owner] = None

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Run everything until this coroutine of the world's ends."""
        asyncio._set_running_loop(self)
        try:
            task = self.start(self.world, main)
            while not task.done() and not self.errors:
                self._step()
            if self.errors:
                raise self.errors[0]
            task.result()
        finally:
            asyncio._set_running_loop(None)

    def bury(self, owner: Owner, tasks: list[asyncio.Task[Any]], first: Callable[[], None]) -> None:
        """End the tasks of a process that was killed: nothing that they still do reaches the world, and no time passes."""
        outer = asyncio.current_task(self)
        if outer is not None:
            asyncio._leave_task(self, outer)
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        try:
            context.run(first)
            for task in tasks:
                task.cancel()
            for _ in range(10_000):
                if not owner.ready:
                    break
                self._run(owner.ready.popleft())
        finally:
            if outer is not None:
                asyncio._enter_task(self, outer)
        owner.is_gone = True
        self._runnable.pop(owner, None)
        for task in tasks:
            if not task.done():
                raise StuckError(f"{owner} cannot be buried: {task}")
            if not task.cancelled():
                task.exception()

    def _enqueue(self, owner: Owner, handle: asyncio.Handle) -> None:
        if owner.is_gone:
            return
        owner.ready.append(handle)
        if not owner.is_asleep:
            self._runnable[owner] = None

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise StuckError("the run does not end")
        self._fire_due()
        while not self._runnable:
            if not self._timers:
                raise StuckError("nothing can happen any more")
            self._now = max(self._now, self._timers[0][0])
            self._fire_due()
        owners = list(self._runnable)
        owner = owners[0] if len(owners) == 1 else self._rng.choice(owners)
        if owner.is_asleep or not owner.ready:
            del self._runnable[owner]
            return
        handle = owner.ready.popleft()
        if not owner.ready:
            del self._runnable[owner]
        self._run(handle)

    def _fire_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            _, _, timer, owner = heapq.heappop(self._timers)
            if not timer.cancelled():
                self._enqueue(owner, timer)

    @staticmethod
    def _run(handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            handle._run()
