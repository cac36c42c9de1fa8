"""What a model answers and what an agent replies: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .. import clock, content, inputs
from ..arguments import MessageDetails
from ..config import DEFAULT_MAX_TEXT_BYTES
from ..errors import InvalidInputError, ModelError

_ID_DIGITS: Final = 24
_USAGE: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One whole answer of a model, for models that tell more than a text.

    Attributes:
        message: The message dict, as chat completions have it; its role is "assistant".
        model: The model that wrote it.
        finish_reason: Why it stopped.
        input_tokens: Tokens that it read.
        output_tokens: Tokens that it wrote.
        cache_read_tokens: Input tokens that came from the provider's cache.
        reasoning_tokens: Output tokens spent on reasoning.
    """

    message: Mapping[str, Any]
    model: str | None = None
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def details(self) -> MessageDetails:
        """What is stored beside the message."""
        return {
            "model": self.model,
            "finish_reason": self.finish_reason,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }


class ToolRequest(NamedTuple):
    """A tool call that a model asks for; `arguments` is the JSON text that it wrote."""

    call_id: str
    name: str
    arguments: str


class Reply(str):
    """The text of an answer, which is a str, and what is known about its turn.

    A turn in which tools were called has several answers; the counts are the sums of theirs.
    """

    __slots__ = ("_answers", "_messages", "_response_time_ms")
    _answers: tuple[ModelAnswer, ...]
    _messages: tuple[dict[str, Any], ...]
    _response_time_ms: float

    def __new__(
        cls,
        text: str = "",
        answers: Sequence[ModelAnswer] = (),
        messages: Sequence[dict[str, Any]] = (),
        response_time_ms: float = 0.0,
    ) -> Reply:
        """The reply of a turn."""
        made = super().__new__(cls, text)
        made._answers = tuple(answers)
        made._messages = tuple(messages)
        made._response_time_ms = response_time_ms
        return made

    @property
    def text(self) -> str:
        """The text as a plain str."""
        return str.__str__(self)

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """The message dicts of the turn: the question, the answers, the tool calls and their results."""
        return self._messages

    @property
    def model(self) -> str | None:
        """The model that wrote the last answer, if it said so."""
        return self._answers[-1].model if self._answers else None

    @property
    def finish_reason(self) -> str | None:
        """Why the last answer ended: "stop", or "length" for one that was cut off, for example."""
        return self._answers[-1].finish_reason if self._answers else None

    @property
    def input_tokens(self) -> int | None:
        """Tokens that the model read; None if it did not say."""
        return self._sum("input_tokens")

    @property
    def output_tokens(self) -> int | None:
        """Tokens that it wrote; None if it did not say."""
        return self._sum("output_tokens")

    @property
    def cache_read_tokens(self) -> int | None:
        """Input tokens that came from the provider's cache; None if it did not say."""
        return self._sum("cache_read_tokens")

    @property
    def reasoning_tokens(self) -> int | None:
        """Output tokens spent on reasoning; None if it did not say."""
        return self._sum("reasoning_tokens")

    @property
    def response_time_ms(self) -> float:
        """Milliseconds that the last answer took, from asking the model to its end; its message has the same figure."""
        return self._response_time_ms

    def _sum(self, name: str) -> int | None:
        told = [getattr(answer, name) for answer in self._answers if getattr(answer, name) is not None]
        return sum(told) if told else None


def checked_answer(given: ModelAnswer) -> ModelAnswer:
    """An answer that can be stored and sent back to a model: each tool call has an id, a name and a text of arguments.

    Raises:
        ModelError: It is none.
    """
    message = given.message
    if not isinstance(message, Mapping):
        raise ModelError(f"the model gave {type(message).__name__} where a message dict should be")
    if message.get("role", "assistant") != "assistant":
        raise ModelError("the model gave a message that is not the assistant's")
    calls = _checked_calls(message.get("tool_calls"))
    kept = {key: value for key, value in message.items() if key not in ("role", "tool_calls")}
    whole: dict[str, Any] = {"role": "assistant", **kept, **({"tool_calls": calls} if calls else {})}
    whole.setdefault("content", None)
    if not calls and not isinstance(whole["content"], str | list) and not isinstance(whole.get("refusal"), str):
        raise ModelError("the model gave a message with neither content nor tool calls")
    figures = {name: _count(name, getattr(given, name)) for name in _USAGE}
    try:
        content.encode(whole, kind=None, max_bytes=DEFAULT_MAX_TEXT_BYTES)
    except InvalidInputError as error:
        raise ModelError(f"the model gave a message that cannot be stored: {error}") from None
    return ModelAnswer(whole, _word(given.model), _word(given.finish_reason), **figures)


def requests_of(message: Mapping[str, Any]) -> list[ToolRequest]:
    """The tool calls of a checked message."""
    return [
        ToolRequest(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()
    ]


def _checked_calls(calls: Any) -> list[dict[str, Any]]:
    if calls is None:
        return []
    if not isinstance(calls, list) or len(calls) > content.MAX_CALLS:
        raise ModelError("the model gave tool calls that are no list, or too many")
    checked = [_checked_call(call) for call in calls]
    seen: set[str] = set()
    for call in checked:
        # Some servers give none, or the same one twice, and the result could not be matched.
        if not call["id"] or call["id"] in seen:
            call["id"] = f"call_{clock.new_token(_ID_DIGITS)}"
        seen.add(call["id"])
    return checked


def _checked_call(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
        raise ModelError("the model gave a tool call without the name of a function")
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = _encoded(dict(arguments))
    if arguments is not None and not isinstance(arguments, str):
        raise ModelError("the model gave a tool call whose arguments are no text")
    call_id = call.get("id")
    return {
        **{key: value for key, value in call.items() if key not in ("id", "function", "index")},
        "id": call_id if isinstance(call_id, str) else "",
        "type": "function",
        "function": {"name": name, "arguments": arguments or "{}"},
    }


def _encoded(arguments: dict[str, Any]) -> str:
    try:
        return inputs.json_object("arguments", arguments, max_bytes=inputs.MAX_METADATA_BYTES)
    except InvalidInputError as error:
        raise ModelError(f"the model gave a tool call whose {error}") from None


def _count(name: str, value: Any) -> int | None:
    """What a model says of its usage; nonsense is no reason to lose the answer."""
    try:
        return inputs.optional_whole_number(name, value)
    except InvalidInputError:
        return None


def _word(value: Any) -> str | None:
    try:
        return inputs.optional_identifier("model", value)
    except InvalidInputError:
        return None
