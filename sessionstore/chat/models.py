"""What an agent asks: any callable over message dicts, made to answer in pieces, or a model that does so itself."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from .. import content
from ..errors import ConfigError, ModelError
from ..waiting import in_thread
from .answers import ModelAnswer

T = TypeVar("T")

# Pieces of text, and last the whole answer.
Piece = str | ModelAnswer
_END: Final = object()
_TOOLS: Final = "tools"
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@runtime_checkable
class Model(Protocol):
    """A model that tells its answers in pieces: texts as they come, and at the end the whole `ModelAnswer`."""

    def pieces(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> Iterator[Piece]:
        """The answer to a conversation. Without `streamed` there is only its end."""

    def pieces_async(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, streamed: bool) -> AsyncIterator[Piece]:
        """As `pieces`."""

    def close(self) -> None:
        """Let go of connections; the next question opens new ones."""

    async def close_async(self) -> None:
        """As `close`."""


def model_of(given: object) -> Model:
    """The model for an argument that may be a callable.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(given, Model):
        return given
    if not callable(given):
        raise ConfigError("model: must be a callable over a list of message dicts, or an OpenAICompatible")
    return CallableModel(given)


class CallableModel:
    """A callable that takes message dicts and returns a text, a message dict, a `ModelAnswer`, or an iterator of texts.

    It may be a coroutine function or an async generator function, too, for the async calls. An iterator may give a message dict or
    a `ModelAnswer` as its last piece, for tool calls, or to tell the usage. With a parameter `tools` it gets what the model may
    call, as chat completions describe it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._takes_tools = _takes_tools(function)
        # Known before the call: what is plain runs in a thread.
        call = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)

    def pieces(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        *,
        streamed: bool,
    ) -> Iterator[Piece]:
        """What the callable answers."""
        given = None if self._is_async else self._asked(messages, tools)
        if self._is_async or inspect.isawaitable(given) or isinstance(given, AsyncIterable):
            if inspect.iscoroutine(given):
                given.close()
            raise ConfigError("model: is async; use ask_async and stream_async")
        if (answer := _whole(given)) is not None:
            yield from pieces_of(answer, streamed=streamed)
            return
        gathered = _Gathered()
        iterator = _iterator(given)
        try:
            for each in iterator:
                if (text := gathered.text_of(each)) is not None:
                    yield text
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()
        yield gathered.answer()

    async def pieces_async(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        *,
        streamed: bool,
    ) -> AsyncIterator[Piece]:
        """What the callable answers; a plain one runs in a thread, to its end even if the task is cancelled."""
        given = self._asked(messages, tools) if self._is_async else await in_thread_here(lambda: self._asked(messages, tools))
        if inspect.isawaitable(given):
            given = await given
        if (answer := _whole(given)) is not None:
            for each in pieces_of(answer, streamed=streamed):
                yield each
            return
        gathered = _Gathered()
        iterator = aiter(given) if isinstance(given, AsyncIterable) else _threaded(_iterator(given))
        try:
            async for given_piece in iterator:
                if (text := gathered.text_of(given_piece)) is not None:
                    yield text
        finally:
            if (aclose := getattr(iterator, "aclose", None)) is not None:
                await aclose()
        yield gathered.answer()

    def _asked(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        return self._function(messages, tools=tools) if self._takes_tools else self._function(messages)

    def close(self) -> None:
        """It holds nothing."""

    async def close_async(self) -> None:
        """It holds nothing."""


def _takes_tools(function: Callable[..., Any]) -> bool:
    if isinstance(function, partial) and _TOOLS in function.keywords:
        return False
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        # Some of those that are written in C tell nothing.
        return False
    # The first one takes the messages, whatever its name.
    return any(name == _TOOLS and parameters[name].kind in _BY_NAME for name in list(parameters)[1:])


def pieces_of(answer: ModelAnswer, *, streamed: bool) -> Iterator[Piece]:
    """The pieces of an answer that came as a whole."""
    message: object = answer.message
    if streamed and isinstance(message, Mapping) and (text := content.words(message.get("content"))):
        yield text
    yield answer


async def in_thread_here(call: Callable[[], T]) -> T:
    """Make a call in a thread, with the context variables of the task."""
    context = contextvars.copy_context()
    return await in_thread(lambda: context.run(call))


class _Gathered:
    """The pieces of a callable's answer."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._last: ModelAnswer | None = None

    def text_of(self, piece: object) -> str | None:
        if self._last is not None:
            raise ModelError("the model gave more after its last message")
        if isinstance(piece, str):
            self._texts.append(piece)
            return piece
        self._last = _whole(piece)
        if self._last is None:
            raise ModelError(f"the model gave {type(piece).__name__} as a piece; pieces are texts, and last a message dict")
        return None

    def answer(self) -> ModelAnswer:
        text = "".join(self._texts)
        if self._last is None:
            return ModelAnswer({"role": "assistant", "content": text})
        if not text or self._last.message.get("content") is not None:
            return self._last
        from dataclasses import replace

        return replace(self._last, message={**self._last.message, "content": text})


def _whole(given: object) -> ModelAnswer | None:
    """The answer that was given at once; None for pieces."""
    if isinstance(given, ModelAnswer):
        return given
    if isinstance(given, str):
        return ModelAnswer({"role": "assistant", "content": str.__str__(given)})
    return ModelAnswer(given) if isinstance(given, Mapping) else None


def _iterator(given: object) -> Iterator[object]:
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray):
        raise ModelError(f"the model gave {type(given).__name__}; it must give a text, a message dict, or an iterator of texts")
    return iter(given)


async def _threaded(iterator: Iterator[object]) -> AsyncIterator[object]:
    """A plain iterator, each step of it in a thread."""
    close: Callable[[], None] | None = getattr(iterator, "close", None)
    try:
        while True:
            try:
                each = await in_thread_here(lambda: next(iterator, _END))
            except GeneratorExit:
                # Nobody waits any more, and the thread is still in there.
                close = None
                raise
            if each is _END:
                return
            yield each
    finally:
        if close is not None:
            close()
