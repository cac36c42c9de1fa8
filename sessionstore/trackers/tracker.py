"""What both trackers are made of: a store, a background that starts with the first recording, and twins of every call."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast, overload

from .. import inputs
from ..aio import AsyncSessionStore
from ..arguments import refuse_unknown
from ..background import Background
from ..database.transaction import Work
from ..delivery.asking import Question
from ..delivery.joining import joined
from ..errors import ClosedStoreError, ConfigError, InvalidInputError
from ..logs import LOGGER, log
from ..opening import open as open_store
from ..remote.credentials import ApiKey, require_valid
from ..remote.settings import DEFAULT_RETRIES, DEFAULT_RETRY_DELAY, DEFAULT_TIMEOUT, Remote
from ..store import SessionStore
from ..store.syncing import DEFAULT_DRAIN_TIMEOUT
from ..waiting import in_thread
from .remote_answers import SOURCES, Source, Undone, asked

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
AnyTracker = TypeVar("AnyTracker", bound="Tracker")

_MINUTE: Final = 60.0
_DAY: Final = 86_400.0
_NOWHERE: Final = "http://localhost"
_OF_REMOTE: Final = frozenset({"timeout", "max_retries", "retry_delay"})


# Whether the call that is being made belongs to an async twin, which awaits what it comes to.
_AWAITED: ContextVar[bool] = ContextVar("sessionstore_awaited", default=False)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What a call comes to.

    Attributes:
        make: One call of the store.
        shown: Makes the answer of its result.
        records: Whether it records something.
        told: Logs the answer.
    """

    make: Callable[[SessionStore], Any]
    shown: Callable[[Any], T]
    records: bool
    told: Callable[[T], None] | None


class TrackerOptions(TypedDict, total=False):
    """What both trackers may be given beside the remote.

    Keys:
        timeout: Seconds that a request to the remote may take; 30 by default.
        max_retries: How often a drain tries again when the remote cannot be used, before it leaves the rest for later; 3 by
            default. The background goes on trying.
        retry_delay: Seconds; the first retry comes within them at random. The limit doubles each time. 1.0 by default.
        enable_async: Not needed: the async calls are always there.
        cleanup_interval_minutes: How often the background looks for expired conversations; every 30 minutes by default.
        logger: Where the tracker logs; `logging.getLogger("sessionstore")` by default.
        store: A store, a path or a URL; by default the usual file, as `sessionstore.open()` has it. A store that is given
            stays open when the tracker closes.
        background: Whether the first recording starts the background, which sweeps and delivers; True by default.
    """

    timeout: float
    max_retries: int
    retry_delay: float
    enable_async: bool
    cleanup_interval_minutes: float
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
    store: SessionStore | AsyncSessionStore | str | Path | None
    background: bool


class Tracker:
    """A tracker without its calls."""

    def __init__(
        self, base_url: str | None, api_key: str | Callable[[], str] | ApiKey | None = None, **options: Unpack[TrackerOptions]
    ) -> None:
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        api_key = ApiKey.of(api_key)
        require_valid(api_key)
        refuse_unknown(options, TrackerOptions)
        remote = _remote(base_url, api_key, options)
        inputs.flag("enable_async", options.get("enable_async", False))
        minutes = options.get("cleanup_interval_minutes", 30)
        self._interval = inputs.period("cleanup_interval_minutes", minutes, unit=_MINUTE)
        background = inputs.flag("background", options.get("background", True))
        self._logger = _logger(options.get("logger"))
        store = options.get("store")
        self._owns_store = not isinstance(store, SessionStore | AsyncSessionStore)
        self._store = _opened(store, has_remote=remote is not None)
        self._async_store = AsyncSessionStore(self._store)
        self._closed = False
        self._background = Background(self._store, interval=self._interval)
        # Without a background there is nothing left to decide at the first recording.
        self._background_decided = not background
        self._source = ""
        self._remote = None if remote is None else self._joined(remote, options)

    @property
    def store(self) -> SessionStore:
        """The store that it records in."""
        return self._store

    def close(self, *, drain_timeout: float = DEFAULT_DRAIN_TIMEOUT) -> None:
        """Stop the background, try to deliver what waits, and close the store if the tracker opened it.

        A second close does nothing.

        Args:
            drain_timeout: Seconds for the deliveries; what is left stays on disk. Nothing is tried where this program named no
                remote, or where the remote could not be used a moment ago.
        """
        seconds = inputs.duration("drain_timeout", drain_timeout, most=_DAY)
        is_first, self._closed = not self._closed, True
        self._background.stop()
        if is_first and not self._store._closed:  # noqa: SLF001 - a part of the library
            self._store._deliver_last(seconds)  # noqa: SLF001
        if self._owns_store:
            self._store.close(drain_timeout=0)

    async def close_async(self, *, drain_timeout: float = DEFAULT_DRAIN_TIMEOUT) -> None:
        """As `close`."""
        await in_thread(lambda: self.close(drain_timeout=drain_timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close_async()

    def __repr__(self) -> str:
        # The traceback of a refused argument may show a tracker that is not finished.
        remote: Remote | None = getattr(self, "_remote", None)
        return f"{type(self).__name__}({remote.base_url if remote else None!r}, store={getattr(self, '_store', None)!r})"

    def _joined(self, remote: Remote, options: TrackerOptions) -> Remote:
        """Make it the remote of the file, and of this program's deliveries."""
        try:
            remote = joined(self._store, remote, said=options.keys() & _OF_REMOTE)
            self._store.set_remote(remote)
            self._source = self._store._outlook().source  # noqa: SLF001
        except BaseException:
            if self._owns_store:
                self._store.close(drain_timeout=0)
            raise
        return remote

    # -- how calls run: at once, or undone for the async twins to await

    @overload
    def _ask(self, source: Source, question: Callable[[], Question], make: Callable[[SessionStore], T]) -> T: ...

    @overload
    def _ask(
        self, source: Source, question: Callable[[], Question], make: Callable[[SessionStore], R], shown: Callable[[R], T]
    ) -> T: ...

    def _ask(
        self,
        source: Source,
        question: Callable[[], Question],
        make: Callable[[SessionStore], Any],
        shown: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Make a reading call of the store and show its result in another form, or ask the remote."""
        if inputs.choice("source", source, SOURCES) == "remote":
            return self._do(asked(self._base(), question()))
        return self._run(Call(make, shown or _unchanged, records=False, told=None))

    def _look(self, work: Work[T]) -> T:
        """Read."""
        return self._do(self._looking(work))

    def _looking(self, work: Work[T]) -> Undone[T]:
        call: Call[T] = Call(lambda store: store._read(work), _unchanged, records=False, told=None)  # noqa: SLF001
        return self._undone(call)

    def _record(self, work: Work[T], told: Callable[[T], None] | None = None) -> T:
        """Write, and then log what was written."""
        call: Call[T] = Call(lambda store: store._write(work), _unchanged, records=True, told=told)  # noqa: SLF001
        return self._run(call)

    def _run(self, call: Call[T]) -> T:
        return self._do(self._undone(call))

    def _undone(self, call: Call[T]) -> Undone[T]:
        return Undone(lambda: self._made(call), lambda: self._made_awaited(call))

    def _do(self, undone: Undone[T]) -> T:
        if self._closed:
            raise ClosedStoreError
        return cast(T, undone) if _AWAITED.get() else undone.at_once()

    def _made(self, call: Call[T]) -> T:
        answer = call.shown(call.make(self._store))
        if call.records and not self._background_decided:
            self._start_background()
        if call.told is not None:
            call.told(answer)
        return answer

    async def _made_awaited(self, call: Call[T]) -> T:
        recorded = call.make(self._async_store._recorder)  # noqa: SLF001
        answer = call.shown(await self._async_store._run(recorded))  # noqa: SLF001
        if call.records and not self._background_decided:
            await in_thread(self._start_background)
        if call.told is not None:
            call.told(answer)
        return answer

    def _base(self) -> Remote:
        """Whom questions go to."""
        if self._remote is None:
            raise ConfigError('source: "remote" needs a tracker with a base_url')
        return self._remote

    def _start_background(self) -> None:
        self._background_decided = True
        try:
            self._background.start()
            if self._closed:
                # It was closed meanwhile.
                self._background.stop()
        except RuntimeError as error:
            # Python starts no threads at its end; what was recorded is on disk all the same.
            log(logging.WARNING, "background_failed", "the background did not start", logger=self._logger, reason=error)

    def _tell(self, event: str, message: str, **facts: Any) -> None:
        log(logging.INFO, event, message, logger=self._logger, **facts)


def awaited(method: Callable[Concatenate[AnyTracker, P], T]) -> Callable[Concatenate[AnyTracker, P], Coroutine[Any, Any, T]]:
    """The async twin of a call."""

    @functools.wraps(method)
    async def call(self: AnyTracker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        token = _AWAITED.set(True)
        try:
            undone = method(self, *args, **kwargs)
        finally:
            _AWAITED.reset(token)
        return await cast("Undone[T]", undone).awaited()

    call.__name__ = f"{method.__name__}_async"
    call.__qualname__ = f"{method.__qualname__}_async"
    call.__doc__ = f"As `{method.__name__}`, awaited."
    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _logger(given: object) -> logging.Logger | logging.LoggerAdapter[Any]:
    if given is None:
        return LOGGER
    if not isinstance(given, logging.Logger | logging.LoggerAdapter):
        raise InvalidInputError("logger", "must be a logging.Logger or a LoggerAdapter")
    return given


def _unchanged(result: Any) -> Any:
    return result


def _opened(store: SessionStore | AsyncSessionStore | str | Path | None, *, has_remote: bool) -> SessionStore:
    if isinstance(store, AsyncSessionStore):
        return store._store  # noqa: SLF001
    if isinstance(store, SessionStore):
        return store
    # What a tracker is told goes before the environment.
    return open_store(store, remote=None) if has_remote else open_store(store)


def _remote(base_url: str | None, api_key: ApiKey | None, options: TrackerOptions) -> Remote | None:
    # Checked even if nothing will be sent: a wrong argument is one.
    checked = Remote(
        base_url=_NOWHERE if base_url is None else base_url,
        api_key=api_key,
        timeout=options.get("timeout", DEFAULT_TIMEOUT),
        max_retries=options.get("max_retries", DEFAULT_RETRIES),
        retry_delay=options.get("retry_delay", DEFAULT_RETRY_DELAY),
    )
    return None if base_url is None else checked
