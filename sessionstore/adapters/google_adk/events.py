"""Events as messages and back: chat messages that every call of a store understands, with the rest of the event beside them.

The message of an event has `role`, `content`, `tool_calls` and `tool_call_id` as chat APIs have them, and under `event` the JSON of
the event. Nothing stands there twice: in this JSON, null stands where a text, the arguments of a call or a result were. As a chat
message answers one call, further results, and those beside a text or a call, follow in messages of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from google.adk.events.event import Event
from pydantic_core import PydanticSerializationError, from_json, to_json

from ... import inputs
from ...arguments import MessageDetails, NewMessage
from ...content import calls_of, words
from ...errors import InvalidInputError

EVENT_KIND: Final = "adk.event"
RESULT_KIND: Final = "adk.result"
EVENT: Final = "event"

_USER: Final = "user"
_ASSISTANT: Final = "assistant"
_TRANSCRIPTIONS: Final = ("inputTranscription", "outputTranscription")

Json = dict[str, Any]


def as_json(event: Event) -> Json:
    """The JSON of an event, as ADK's own services write it, with its aliases.

    Raises:
        InvalidInputError: It has none.
    """
    try:
        return from_json(event.model_dump_json(by_alias=True, exclude_none=True))  # type: ignore[no-any-return]
    except (PydanticSerializationError, UnicodeEncodeError):
        # Not chained: that error may hold what the event says.
        raise InvalidInputError("event", "has values that JSON does not have, or unpaired surrogate characters") from None


def messages_of(event: Json) -> list[NewMessage]:
    """The messages of an event's JSON, which is used up: the event itself, and the results that need messages of their own."""
    identity, written_at = _dedupe_key(event), _instant(event)
    role = _role(event)
    details: MessageDetails = {**_figures(event), "kind": EVENT_KIND, "dedupe_key": identity, "created_at": written_at}
    calls, texts, results = _taken_calls(event), _taken_texts(event), _taken_results(event)
    message: Json = {}
    if results and not calls and not texts:
        message = {"role": "tool", **results.pop(0)}
    elif role is not None:
        message["role"] = role
    if texts:
        message["content"] = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    if calls:
        message["tool_calls"] = calls
    own = NewMessage({**message, EVENT: event}, **details)
    return [own, *(_result_message(each, number, identity, written_at) for number, each in enumerate(results, start=2))]


def event_of(message: Json, results: Sequence[Json]) -> Json:
    """The JSON of an event again, of its message and of those of its further results."""
    event: Json = message[EVENT]
    answers, texts = list(results), _texts_of(message)
    if "tool_call_id" in message:
        answers, texts = [message, *results], []
    if "tool_calls" in message:
        _put_back(_called(event), "args", [arguments for _, _, arguments in calls_of(message)])
    if answers:
        _put_back(_answered(event), "response", [words(answer.get("content")) for answer in answers])
    for place, text in zip(_spoken(event, None), texts, strict=False):
        place["text"] = text
    return event


def failure_of(event: Json) -> str | None:
    """The code of what went wrong; None if nothing did. The words of it may be a user's, and stay in the event."""
    code = event.get("errorCode")
    return str(code)[: inputs.MAX_ERROR_CHARS] if code else None


def _texts_of(message: Json) -> list[str]:
    content = message.get("content")
    return [words([part]) or "" for part in content] if isinstance(content, list) else [words(content) or ""]


def _parts(event: Json) -> list[Json]:
    content = event.get("content")
    return [] if content is None else content.get("parts") or []


def _called(event: Json) -> Iterator[Json]:
    """The function calls that have an id."""
    for part in _parts(event):
        call = part.get("functionCall")
        if call is not None and isinstance(call.get("id"), str):
            yield call


def _answered(event: Json) -> Iterator[Json]:
    """The function responses that have an id."""
    for part in _parts(event):
        response = part.get("functionResponse")
        if response is not None and isinstance(response.get("id"), str):
            yield response


def _spoken(event: Json, wanted: type | None = str) -> list[Json]:
    """What has words for a reader, no thoughts; or where the words are to be put back, with `wanted` None."""
    kind = type(None) if wanted is None else wanted
    said = [part for part in _parts(event) if "text" in part and not part.get("thought")]
    said += [event[name] for name in _TRANSCRIPTIONS if name in event and "text" in event[name]]
    return [each for each in said if isinstance(each["text"], kind)]


def _taken_calls(event: Json) -> list[Json]:
    return [
        {"id": call["id"], "type": "function", "function": {"name": call.get("name", ""), "arguments": _taken(call, "args")}}
        for call in _called(event)
    ]


def _taken_results(event: Json) -> list[Json]:
    return [{"content": _taken(answer, "response"), "tool_call_id": answer["id"]} for answer in _answered(event)]


def _taken_texts(event: Json) -> list[str]:
    texts = []
    for place in _spoken(event):
        texts.append(place["text"])
        place["text"] = None
    return texts


def _taken(holder: Json, key: str) -> str:
    """The JSON text of a value, which leaves null in its place."""
    if key not in holder:
        return "{}"
    text = to_json(holder[key]).decode()
    holder[key] = None
    return text


def _put_back(holders: Iterator[Json], key: str, texts: Sequence[str | None]) -> None:
    for holder, text in zip(holders, texts, strict=False):
        if key in holder:
            holder[key] = _object(text or "")


def _object(text: str) -> Json:
    """The JSON object of a text. Where a program put words in its place, for example of what was redacted, these are the result."""
    try:
        value = from_json(text)
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"result": value}


def _role(event: Json) -> str | None:
    """Whose turn it is; None for what only changes state, or notes something."""
    says = any("functionResponse" not in part for part in _parts(event)) or any(name in event for name in _TRANSCRIPTIONS)
    if event.get("author") == _USER:
        return _USER if says else None
    return _ASSISTANT if says or "errorCode" in event else None


def _result_message(result: Json, number: int, identity: str | None, written_at: datetime | None) -> NewMessage:
    key = None if identity is None else f"{identity}#{number}"
    return NewMessage({"role": "tool", **result}, kind=RESULT_KIND, dedupe_key=key, created_at=written_at)


def _figures(event: Json) -> MessageDetails:
    usage = event.get("usageMetadata") or {}
    thoughts = _count(usage, "thoughtsTokenCount")
    return {
        "model": _word(event.get("modelVersion")),
        "finish_reason": _word(event.get("finishReason")),
        "input_tokens": _sum(_count(usage, "promptTokenCount"), _count(usage, "toolUsePromptTokenCount")),
        # Gemini counts thoughts beside the answer.
        "output_tokens": _sum(_count(usage, "candidatesTokenCount"), thoughts),
        "cache_read_tokens": _count(usage, "cachedContentTokenCount"),
        "reasoning_tokens": thoughts,
    }


def _count(usage: Json, name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value <= inputs.MAX_INTEGER // 2 else None


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _word(value: object) -> str | None:
    """A name for a column; one that the column does not take still stands in the event."""
    try:
        return inputs.optional_identifier("value", value)
    except InvalidInputError:
        return None


def _dedupe_key(event: Json) -> str | None:
    """The event's id, by which a repeated append changes nothing, if it leaves room for the numbers of results."""
    key = _word(event.get("id") or None)
    return key if key is None or len(key) <= inputs.MAX_ID_CHARS // 2 else None


def _instant(event: Json) -> datetime | None:
    """When it happened; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(event["timestamp"], UTC)
    except (OverflowError, ValueError, OSError, TypeError):
        return None
