"""Timers: how long a block or a function takes, recorded as a metric in milliseconds."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, Unpack, cast, overload

from .. import inputs
from ..arguments import TimerOptions, refuse_unknown
from ..content import decoded
from ..errors import InvalidInputError, SessionStoreError

T = TypeVar("T")
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
AnyTimer = TypeVar("AnyTimer", bound="_Timer[Any]")

UNIT: Final = "ms"
_CLOSED_EARLY: Final = "its coroutine was closed before its end, where nothing can be awaited any more"


class Timing:
    """Something that is being timed; `attributes` may be added to until it ends."""

    __slots__ = ("_attributes", "_began")

    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes
        self._began = time.perf_counter_ns()

    @property
    def attributes(self) -> dict[str, Any]:
        """What is stored with the time. The end sets `ok`, and after an exception `error` to the name of its type."""
        return self._attributes

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since its beginning, by a clock that nobody sets."""
        return (time.perf_counter_ns() - self._began) / 1e6


@dataclass(frozen=True, slots=True)
class TimerSettings:
    """The checked arguments of a timer. `attributes` is JSON text, so that each timing has a copy of its own."""

    name: str | None
    agent_id: str | None
    session_id: str | None
    attributes: str | None
    strict: bool

    def begin(self) -> Timing:
        """Start the clock."""
        return Timing(decoded(self.attributes) if self.attributes else {})


def timer_settings(name: str | None, options: TimerOptions) -> TimerSettings:
    """Check the arguments of a timer."""
    refuse_unknown(options, TimerOptions)
    return TimerSettings(
        inputs.optional_identifier("name", name),
        inputs.optional_identifier("agent_id", options.get("agent_id")),
        inputs.optional_identifier("session_id", options.get("session_id")),
        inputs.optional_json_object("attributes", options.get("attributes")),
        inputs.flag("strict", options.get("strict", False)),
    )


class _Timer(Generic[T]):
    """What both timers share. `record` is the store's call, `lose` is told of a time that it could not record, and why."""

    def __init__(self, settings: TimerSettings, record: Callable[..., T], lose: Callable[[str, str], None]) -> None:
        self._settings = settings
        self._record = record
        self._lose = lose
        self._entered = Lock()
        self._timing: Timing | None = None

    def __call__(self, function: AnyFunction) -> AnyFunction:
        """The function, timed at each call; calls may overlap."""
        return self._around(function, self._name_for(function))

    def _around(self, function: AnyFunction, name: str) -> AnyFunction:
        raise NotImplementedError

    def _enter(self) -> Timing:
        if self._settings.name is None:
            raise InvalidInputError("name", "is missing: a block has no name of its own")
        if not self._entered.acquire(blocking=False):
            raise RuntimeError("this timer is timing a block already; let each block make its own")
        self._timing = self._settings.begin()
        return self._timing

    def _leave(self, error: BaseException | None) -> tuple[str, Callable[[], T]]:
        name, timing = self._settings.name, self._timing
        if name is None or timing is None:
            raise RuntimeError("this timer was left without having been entered")
        measured = self._measured(name, timing, error)
        self._timing = None
        self._entered.release()
        return name, measured

    def _measured(self, name: str, timing: Timing, error: BaseException | None) -> Callable[[], T]:
        """Stop the clock; what is returned records the time."""
        elapsed_ms = timing.elapsed_ms
        attributes = {**timing.attributes, "ok": error is None}
        if error is not None:
            attributes["error"] = type(error).__name__
        about = {"agent_id": self._settings.agent_id, "session_id": self._settings.session_id}
        return functools.partial(self._record, name, elapsed_ms, UNIT, attributes, **about)

    def _lost(self, name: str, failure: SessionStoreError, error: BaseException | None) -> None:
        """A failure to record is the agent's business only if it asked for it, and never hides an exception of its own."""
        if self._settings.strict and error is None:
            raise failure
        self._lose(name, str(failure))

    def _name_for(self, function: object) -> str:
        _refuse_what_cannot_be_timed(function)
        name = self._settings.name or getattr(function, "__qualname__", None)
        if name is None:
            raise InvalidInputError("name", "is missing: what is to be timed has no name of its own")
        return inputs.identifier("name", name)

    def _around_coroutine(self, function: AnyFunction, name: str, run: Callable[[Callable[[], T]], Awaitable[None]]) -> AnyFunction:
        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            timing = self._settings.begin()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                await self._keep_awaited(name, self._measured(name, timing, error), error, run)
                raise
            await self._keep_awaited(name, self._measured(name, timing, None), None, run)
            return result

        return cast(AnyFunction, call)

    async def _keep_awaited(
        self,
        name: str,
        measured: Callable[[], T],
        error: BaseException | None,
        run: Callable[[Callable[[], T]], Awaitable[None]],
    ) -> None:
        from anyio import CancelScope

        if isinstance(error, GeneratorExit):
            self._lose(name, _CLOSED_EARLY)
            return
        try:
            # Within a cancelled scope no unshielded await would get to the file.
            with CancelScope(shield=True):
                await run(measured)
        except SessionStoreError as failure:
            self._lost(name, failure, error)


class Timer(_Timer[None]):
    """Times a block (`with`), or each call of a function or coroutine function that it decorates, and records it."""

    def __enter__(self) -> Timing:
        return self._enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        name, measured = self._leave(error)
        self._keep(name, measured, error)

    def _around(self, function: AnyFunction, name: str) -> AnyFunction:
        if _is_coroutine_function(function):
            from ..waiting import in_thread

            return self._around_coroutine(function, name, in_thread)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            timing = self._settings.begin()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self._keep(name, self._measured(name, timing, error), error)
                raise
            self._keep(name, self._measured(name, timing, None), None)
            return result

        return cast(AnyFunction, call)

    def _keep(self, name: str, measured: Callable[[], None], error: BaseException | None) -> None:
        try:
            measured()
        except SessionStoreError as failure:
            self._lost(name, failure, error)


class AsyncTimer(_Timer[Awaitable[None]]):
    """Times a block (`async with`), or each call of a coroutine function that it decorates, and records it."""

    async def __aenter__(self) -> Timing:
        return self._enter()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        name, measured = self._leave(error)
        await self._keep_awaited(name, measured, error, _call)

    def _around(self, function: AnyFunction, name: str) -> AnyFunction:
        if not _is_coroutine_function(function):
            raise TypeError("a plain function cannot await its recording; make it `async def`, or time it with a SessionStore")
        return self._around_coroutine(function, name, _call)


class TimerCalls(Generic[AnyTimer]):
    """The calls that make timers, of both faces of a store."""

    def timer(self, name: str | None = None, **options: Unpack[TimerOptions]) -> AnyTimer:
        """Time a block (`with store.timer("tool.search") as timing:`), or each call of a function that it decorates.

        What is recorded is a metric in milliseconds, whose attributes tell whether it went well (`ok`) and the type of the
        exception that ended it (`error`); the exception goes on. `timing.attributes` may be added to until the end.

        A SessionStore's timer records a coroutine function by a thread, so that its event loop goes on. That of an
        AsyncSessionStore is for `async with` and coroutine functions; a cancelled block is recorded, too. Generator functions
        are refused with a `TypeError`.

        Args:
            name: The metric's name; a decorated function's qualified name by default.
            options: `agent_id`, `session_id`, `attributes`, `strict` (see `TimerOptions`).
        """
        return self._new_timer(timer_settings(name, options))

    @overload
    def track(self, name: AnyFunction, /) -> AnyFunction: ...

    @overload
    def track(self, name: str | None = None, /, **options: Unpack[TimerOptions]) -> AnyTimer: ...

    def track(self, name: AnyFunction | str | None = None, /, **options: Unpack[TimerOptions]) -> AnyFunction | AnyTimer:
        """Time each call of a function: `@store.track`, or `@store.track("name", agent_id=...)`.

        The arguments are those of `timer`.
        """
        function, named = (name, None) if callable(name) else (None, name)
        timer = self._new_timer(timer_settings(named, options))
        return timer if function is None else timer(function)

    def _new_timer(self, settings: TimerSettings) -> AnyTimer:
        raise NotImplementedError


def _call(measured: Callable[[], Awaitable[None]]) -> Awaitable[None]:
    return measured()


def _is_coroutine_function(function: object) -> bool:
    return _is(inspect.iscoroutinefunction, function)


def _is(kind: Callable[[object], bool], function: object) -> bool:
    """Whether a function, or the call of an object that acts as one, is of a kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - not whether it is callable, but how


def _refuse_what_cannot_be_timed(function: object) -> None:
    if isinstance(function, staticmethod | classmethod):
        raise TypeError("put the timer below @staticmethod or @classmethod, next to the function")
    if isinstance(function, type) or not callable(function):
        raise TypeError("only functions can be timed; decorate a method of the class")
    if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
        raise TypeError("a generator function returns before its body runs; time the loop over it with `with store.timer(...)`")
