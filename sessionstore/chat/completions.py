"""Chat completions as OpenAI's API and those like it have them: the bodies of requests, answers and streams, without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import content
from ..errors import ModelError
from .answers import ModelAnswer

DONE: Final = "[DONE]"
# What a request may hold of a message; answers have more, which servers refuse when it comes back.
_SENT: Final = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")


def request_body(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    *,
    streamed: bool,
    tell_usage: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request."""
    body: dict[str, Any] = {**options, "model": model, "messages": [sent_message(message) for message in messages]}
    if tools:
        body["tools"] = list(tools)
    if streamed:
        body["stream"] = True
        if tell_usage:
            body["stream_options"] = {"include_usage": True}
    return body


def sent_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a request may hold it."""
    return {key: message[key] for key in _SENT if key in message and not (key == "refusal" and message[key] is None)}


def answer_of(body: bytes) -> ModelAnswer:
    """The answer of a whole body.

    Raises:
        ModelError: It is none.
    """
    said = _object(body, "the model's answer")
    choice = _first(said.get("choices"))
    message = choice.get("message") if choice is not None else None
    if choice is None or not isinstance(message, dict):
        raise ModelError("the model's answer has no message")
    return _answer(message, said, choice.get("finish_reason"))


class ToldError(ModelError):
    """A server told an error where an answer should be. `words` is what it said, which may hold anything."""

    def __init__(self, what: str, words: str) -> None:
        super().__init__(f"{what} tells an error instead")
        self.words = words


class StreamedAnswer:
    """An answer that comes in chunks."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: list[_Call] = []
        self._facts: dict[str, Any] = {}
        self._finish_reason: Any = None
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to come."""
        return self._is_done

    def take(self, data: str) -> str:
        """Take the data of an event; returns what text is new.

        Raises:
            ModelError: It is no chunk, or tells an error.
        """
        if not data.strip():
            # What has an id or a time to try again, and no data, is no event.
            return ""
        if data.strip() == DONE:
            self._is_done = True
            return ""
        chunk = _object(data, "a chunk of the model's stream")
        # The last chunk that tells them counts; the usage comes with the very last one, without choices.
        self._facts.update({key: chunk[key] for key in ("model", "usage") if chunk.get(key) is not None})
        choice = _first(chunk.get("choices"))
        if choice is None:
            return ""
        # Some servers say "" until it is known.
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta")
        return self._take_delta(delta) if isinstance(delta, dict) else ""

    def answer(self) -> ModelAnswer:
        """The whole answer, at the end of the stream.

        Raises:
            ModelError: Its own end has not come: neither the word for it, which some servers leave out, nor a reason to finish.
        """
        if not self._is_done and self._finish_reason is None:
            raise ModelError("the model's stream ended before its answer did")
        message: dict[str, Any] = {"role": "assistant", "content": None}
        message.update({name: "".join(texts) for name, texts in self._texts.items()})
        if self._calls:
            message["tool_calls"] = [call.whole() for call in sorted(self._calls, key=lambda call: call.place)]
        return _answer(message, self._facts, self._finish_reason)

    def _take_delta(self, delta: dict[str, Any]) -> str:
        # A content of parts: texts, and thoughts, which are left out.
        text = content.words(delta.get("content"))
        for name, value in {**delta, "content": text}.items():
            if isinstance(value, str) and (value or name == "content") and name != "role":
                self._texts.setdefault(name, []).append(value)
        calls = delta.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            if isinstance(part, dict):
                self._take_call(part)
        return text or ""

    def _take_call(self, part: dict[str, Any]) -> None:
        place, given = part.get("index"), part.get("function")
        if place is not None and (not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < content.MAX_CALLS):
            raise ModelError("a chunk of the model's stream has a tool call at an impossible place")
        function: dict[str, Any] = given if isinstance(given, dict) else {}
        call = next((call for call in reversed(self._calls) if call.goes_on_with(part, function)), None)
        if call is None:
            if len(self._calls) >= content.MAX_CALLS:
                raise ModelError("the model's stream has too many tool calls")
            call = _Call(len(self._calls) if place is None else place)
            self._calls.append(call)
        call.take(part, function)


class _Call:
    """A tool call of which parts have come."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.call_id = ""
        self.name = ""
        self.arguments = ""
        self.more: dict[str, Any] = {}

    def goes_on_with(self, part: Mapping[str, Any], function: Mapping[str, Any]) -> bool:
        """Whether a part is of this call. Servers differ: ids may be missing, or new each time; places missing, or all the same."""
        place, call_id, name = part.get("index"), part.get("id"), function.get("name")
        if place is not None and place != self.place:
            return False
        if not name:
            return place is not None or not call_id or call_id == self.call_id
        if call_id and self.call_id:
            return bool(call_id == self.call_id)
        return place is not None and (not self.arguments or name == self.name)

    def take(self, part: Mapping[str, Any], function: Mapping[str, Any]) -> None:
        name, arguments, call_id = function.get("name"), function.get("arguments"), part.get("id")
        if not self.call_id and isinstance(call_id, str):
            self.call_id = call_id
        # Some say the whole name again with each part.
        if isinstance(name, str) and name != self.name:
            self.name += name
        if isinstance(arguments, str):
            self.arguments += arguments
        elif arguments is not None:
            self.arguments = json.dumps(arguments)
        # Such as the signature of a thought, without which a provider refuses the call later.
        self.more.update({key: value for key, value in part.items() if key not in ("index", "id", "type", "function")})

    def whole(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {**self.more, "id": self.call_id, "type": "function", "function": function}


def _answer(message: dict[str, Any], said: Mapping[str, Any], finish_reason: Any) -> ModelAnswer:
    if message.get("content") is None and not message.get("tool_calls") and not message.get("refusal") and finish_reason:
        # All of it was thought, or nothing was left to say.
        message = {**message, "content": ""}
    usage = said.get("usage")
    told: Mapping[str, Any] = usage if isinstance(usage, dict) else {}
    return ModelAnswer(
        message,
        model=said.get("model"),
        finish_reason=finish_reason,
        input_tokens=told.get("prompt_tokens"),
        output_tokens=told.get("completion_tokens"),
        cache_read_tokens=_detail(told, "prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=_detail(told, "completion_tokens_details", "reasoning_tokens"),
    )


def _detail(usage: Mapping[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None


def _object(body: str | bytes, what: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        # Not chained: that error holds the whole text.
        said = None
    if not isinstance(said, dict):
        raise ModelError(f"{what} is no JSON object")
    # Older servers mark the error itself, in the place of a chunk.
    error = said if said.get("object") == "error" else said.get("error")
    if error:
        words = error.get("message") if isinstance(error, dict) else error
        raise ToldError(what, words if isinstance(words, str) else "")
    return said


def _first(choices: Any) -> dict[str, Any] | None:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
