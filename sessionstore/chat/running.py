"""How a turn runs: the same steps in a thread and in a task, one whole turn stored at the end or nothing of it."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import anyio

from ..errors import ConfigError, ModelError
from ..logs import log
from .answers import Reply, ToolRequest
from .conversations import Conversation, Figure, now
from .limits import Window
from .models import Model, Piece, in_thread_here
from .tools import Arguments, Told, Tool, Toolbox, told_error, told_result
from .turn_queue import TurnQueue
from .turns import Turn

T = TypeVar("T")

_SECONDS_TO_CLOSE: Final = 5.0
_FAILED: Final = "turn.failed"
_CANCELLED: Final = "turn.cancelled"


class Way(Protocol):
    """How things are done: here and now in this thread, or awaited."""

    async def enter(self, queue: TurnQueue, session_id: str) -> None:
        """Wait for the turn's turn."""

    async def at_home(self, conversation: Conversation, call: Callable[[], Coroutine[Any, Any, T]], *, whole: bool = False) -> T:
        """A call to where the conversation is kept; a `whole` one is not cut off by a cancellation."""

    async def use(self, tool: Tool, arguments: Arguments) -> Any:
        """Call a tool."""

    def ask(self, model: Model, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> None:
        """Begin an answer."""

    async def piece(self) -> Piece | None:
        """The next piece of the answer; None after the last one."""

    async def drop(self) -> None:
        """Leave the answer where it is."""


class Here:
    """In this thread. Its coroutines do not wait for anything."""

    def __init__(self) -> None:
        self._pieces: Iterator[Piece] | None = None

    async def enter(self, queue: TurnQueue, session_id: str) -> None:
        """See `Way`."""
        queue.enter(session_id)

    async def at_home(
        self,
        conversation: Conversation,
        call: Callable[[], Coroutine[Any, Any, T]],
        *,
        whole: bool = False,
    ) -> T:
        """See `Way`."""
        return await call()

    async def use(self, tool: Tool, arguments: Arguments) -> Any:
        """See `Way`."""
        result = tool.function(**arguments.named)
        if inspect.iscoroutine(result):
            result.close()
            raise ConfigError("tools: are async; use ask_async and stream_async")
        return result

    def ask(self, model: Model, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> None:
        """See `Way`."""
        self._pieces = model.pieces(messages, tools, streamed=streamed)

    async def piece(self) -> Piece | None:
        """See `Way`."""
        return None if self._pieces is None else next(self._pieces, None)

    async def drop(self) -> None:
        """See `Way`."""
        pieces, self._pieces = self._pieces, None
        if (close := getattr(pieces, "close", None)) is not None:
            close()


class Awaited:
    """In a task; what blocks runs in threads."""

    def __init__(self) -> None:
        self._pieces: AsyncIterator[Piece] | None = None

    async def enter(self, queue: TurnQueue, session_id: str) -> None:
        """See `Way`."""
        await queue.enter_async(session_id)

    async def at_home(self, conversation: Conversation, call: Callable[[], Coroutine[Any, Any, T]], *, whole: bool = False) -> T:
        """See `Way`."""
        with anyio.CancelScope(shield=whole):
            if conversation.home is None:
                return now(call())
            if conversation.home.is_async:
                return await call()
            return await in_thread_here(lambda: now(call()))
        raise AssertionError  # pragma: no cover - a scope that nobody cancels swallows nothing

    async def use(self, tool: Tool, arguments: Arguments) -> Any:
        """See `Way`."""
        if tool.is_async:
            return await tool.function(**arguments.named)
        result = await in_thread_here(lambda: tool.function(**arguments.named))
        # What wraps a coroutine function does not look like one.
        return await result if inspect.isawaitable(result) else result

    def ask(self, model: Model, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> None:
        """See `Way`."""
        self._pieces = model.pieces_async(messages, tools, streamed=streamed)

    async def piece(self) -> Piece | None:
        """See `Way`."""
        return None if self._pieces is None else await anext(self._pieces, None)

    async def drop(self) -> None:
        """See `Way`."""
        pieces, self._pieces = self._pieces, None
        if (aclose := getattr(pieces, "aclose", None)) is not None:
            # In a cancelled task, too; but whoever cannot let go is not waited for.
            with anyio.move_on_after(_SECONDS_TO_CLOSE, shield=True):
                await aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the turns of an agent have in common, as it is when one begins."""

    model: Model
    conversation: Conversation
    queue: TurnQueue
    toolbox: Toolbox
    window: Window
    system: str | None
    auto_save: bool
    figures: deque[Figure]
    failed: Callable[[Turn | None], None]

    @property
    def name(self) -> str:
        """What errors and logs call the conversation."""
        return self.conversation.session_id or ""


class Run:
    """A turn that runs, a piece of text at a time. It is over when there is a reply, or after an error."""

    def __init__(self, way: Way, plan: Plan, turn: Turn) -> None:
        self.reply: Reply | None = None
        self.is_over = False
        self._way = way
        self._plan = plan
        self._turn = turn
        self._has_entered = False
        self._is_stored = False
        self._is_store_at_fault = False

    async def step(self) -> str | None:
        """The next piece of text; None when the turn is stored and over."""
        if self.is_over:
            return None
        try:
            if not self._has_entered:
                await self._begin()
            return await self._advance()
        except BaseException as error:
            await self._fail(error)
            raise

    async def close(self) -> None:
        """Leave the turn where it is. Nothing of it is stored."""
        if not self._has_entered or self.is_over:
            self.is_over = True
            return
        try:
            await self._way.drop()
        finally:
            self.abandon()
            self._announce(_CANCELLED, None)
            await self.record_figures()

    def abandon(self) -> None:
        """As `close`, for when nothing can be waited for, nor told to a log: the figure is stored later."""
        if self._has_entered and not self.is_over:
            self._note(_CANCELLED, None)
            self._leave()
        self.is_over = True

    async def record_figures(self) -> None:
        """Store the figures of turns that could not wait for it."""
        figures, home = self._plan.figures, self._plan.conversation.home
        if home is None:
            figures.clear()
            return
        while figures:
            figure = figures.popleft()
            # Bound now: the next round has another one.
            await self._way.at_home(self._plan.conversation, lambda each=figure: home.record(each), whole=True)  # type: ignore[misc]

    async def _begin(self) -> None:
        plan = self._plan
        await self._way.enter(plan.queue, plan.name)
        self._has_entered = True
        await self._at_home(self.record_figures)
        self._turn.history = await self._at_home(
            lambda: self._way.at_home(plan.conversation, lambda: plan.conversation.read(plan.window))
        )
        if plan.system is not None:
            self._turn.history.insert(0, {"role": "system", "content": plan.system})
        self._ask()

    def _ask(self) -> None:
        with self._plan.queue.marked():
            self._way.ask(self._plan.model, self._turn.sent(), self._plan.toolbox.described, streamed=self._turn.streamed)
        self._turn.begin_answer()

    async def _advance(self) -> str | None:
        while True:
            with self._plan.queue.marked():
                piece = await self._way.piece()
            if isinstance(piece, str):
                return piece
            if piece is None:
                raise ModelError("the model gave no answer")
            await self._way.drop()
            requests = self._turn.answered(piece)
            if not requests:
                await self._finish()
                return None
            for request in requests:
                self._turn.told(request, await self._told(request))
            self._ask()

    async def _told(self, request: ToolRequest) -> Told:
        prepared = self._plan.toolbox.prepared(request)
        if isinstance(prepared, Told):
            return prepared
        try:
            with self._plan.queue.marked():
                result = await self._way.use(*prepared)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model is told, and the turn goes on
            return told_error(error)
        return told_result(result)

    async def _finish(self) -> None:
        plan = self._plan
        if plan.auto_save and plan.conversation.home is not None:
            await self._at_home(lambda: self._way.at_home(plan.conversation, self._store, whole=True))
        else:
            plan.conversation.hold(self._turn.new)
        self._is_stored = True
        self.reply = self._turn.reply()
        plan.failed(None)
        self._leave()

    async def _store(self) -> None:
        await self._plan.conversation.save(self._turn.new)
        # Told from here: a cancellation may hide that the call came to its end.
        self._is_stored = True

    async def _at_home(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await call()
        except Exception:
            self._is_store_at_fault = True
            raise

    async def _fail(self, error: BaseException) -> None:
        if not self._has_entered:
            self.is_over = True
            return
        try:
            if not isinstance(error, GeneratorExit):
                await self._way.drop()
        finally:
            if self._is_stored:
                self._plan.failed(None)
            else:
                name = _FAILED if isinstance(error, Exception) else _CANCELLED
                self._note(name, error)
                self._announce(name, error)
            self._leave()
            # What a store could not do a moment ago it is not asked again; and who is being closed cannot wait.
            if not self._is_store_at_fault and not isinstance(error, GeneratorExit):
                await self.record_figures()

    def _note(self, name: str, error: BaseException | None) -> None:
        turn, plan = self._turn, self._plan
        plan.failed(turn)
        attributes: dict[str, Any] = {"streamed": turn.streamed, "tool_calls": turn.tool_calls}
        if error is not None:
            attributes["error"] = type(error).__name__
        if isinstance(error, ModelError) and error.status is not None:
            attributes["status"] = error.status
        plan.figures.append(Figure(name, turn.elapsed_ms, attributes, plan.conversation.session_id))

    def _announce(self, name: str, error: BaseException | None) -> None:
        session_id = self._plan.conversation.session_id
        if name == _FAILED:
            log(logging.WARNING, "turn_failed", "a turn failed; nothing of it was stored", session_id=session_id, reason=error)
        else:
            log(logging.INFO, "turn_cancelled", "a turn was cut off; nothing of it was stored", session_id=session_id)

    def _leave(self) -> None:
        self.is_over = True
        self._plan.queue.leave()
