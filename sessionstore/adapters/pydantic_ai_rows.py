"""How pydantic-ai's messages become message dicts and come back equal.

A response is one message. A request is one message for each of its parts, as a chat API has it: the system prompt, what the user
said, the result of each tool call. So search, figures, exports and `check` see an ordinary chat. What only pydantic-ai knows
stands beside, in its own JSON: under `pydantic_ai` with the first part, under `pydantic_ai_part` with the others. A text that
the chat message holds is left out there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ..arguments import MessageDetails, NewMessage
from ..content import calls_of, words
from ..errors import InvalidInputError, MissingExtraError
from ..inputs import encode_json
from ..values import Message
from .plain import word

try:
    from pydantic_ai.messages import (
        BaseToolReturnPart,
        ImageUrl,
        ModelMessage,
        ModelMessagesTypeAdapter,
        ModelRequest,
        ModelRequestPart,
        ModelResponse,
        RetryPromptPart,
        SystemPromptPart,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserContent,
        UserPromptPart,
    )
except ModuleNotFoundError as error:
    raise MissingExtraError("the history for pydantic-ai", "pydantic-ai") from error

WHOLE: Final = "pydantic_ai"
PART: Final = "pydantic_ai_part"
# The kind of what no chat API has a role for.
OTHER_KIND: Final = "pydantic_ai"

_ROLE_OF: Final = {
    "system-prompt": "system",
    "user-prompt": "user",
    "tool-return": "tool",
    "retry-feedback": "developer",
    "retry-prompt": "developer",
}
_CALL_RESULTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})


def to_rows(messages: Sequence[ModelMessage], notes: dict[str, Any] | None = None) -> list[NewMessage]:
    """The message dicts of messages, with what is known about each; `notes` go beside the last one.

    Raises:
        InvalidInputError: One of them holds what JSON does not have.
    """
    try:
        dumped: list[dict[str, Any]] = ModelMessagesTypeAdapter.dump_python(list(messages), mode="json")
    except ValueError:
        # Not chained: that error may show the message.
        raise InvalidInputError("messages", "must be what JSON can hold") from None
    rows: list[tuple[dict[str, Any], MessageDetails]] = []
    asked_at: datetime | None = None
    for message, plain in zip(messages, dumped, strict=True):
        if isinstance(message, ModelResponse):
            rows.append((_answer_row(message, plain), _answer_details(message, asked_at)))
        else:
            rows += _request_rows(message, plain)
            asked_at = message.timestamp
    if notes and rows:
        rows[-1][1]["metadata"] = notes
    return [NewMessage(row, **details) for row, details in rows]


def from_rows(messages: Iterable[Message]) -> list[ModelMessage]:
    """The messages that rows are of. Chat messages that others wrote become requests and responses; what is none is left out."""
    found: list[ModelMessage] = []
    waiting: list[dict[str, Any]] = []
    names: dict[str, str] = {}

    def settle() -> None:
        found.extend(ModelMessagesTypeAdapter.validate_python(waiting))
        waiting.clear()

    for message in messages:
        row = message.to_dict()
        names.update((call_id, name) for call_id, name, _ in calls_of(row) if name is not None)
        if isinstance(row.get(WHOLE), dict):
            waiting.append(_restored(row[WHOLE], row))
        elif isinstance(row.get(PART), dict):
            part = _filled(row[PART], row)
            if waiting and waiting[-1].get("kind") == "request":
                waiting[-1]["parts"].append(part)
            else:
                # Its request was cut off before it, by a fork or a deletion.
                waiting.append({"kind": "request", "parts": [part]})
        else:
            settle()
            found.extend(_of_chat(message, row, names))
    settle()
    return found


def is_foreign_result(message: Message) -> bool:
    """Whether it is the result of a tool call that somebody else wrote, for example `repair`."""
    row = message.to_dict() if message.tool_call_id is not None else {}
    return message.tool_call_id is not None and WHOLE not in row and PART not in row


def _answer_row(message: ModelResponse, plain: dict[str, Any]) -> dict[str, Any]:
    texts = [part for part in plain["parts"] if part["part_kind"] == "text"]
    row: dict[str, Any] = {"role": "assistant", "content": "\n".join(part["content"] for part in texts) if texts else None}
    if len(texts) == 1:
        del texts[0]["content"]
    calls = []
    for part, own in zip(message.parts, plain["parts"], strict=True):
        if isinstance(part, ToolCallPart):
            arguments = own.pop("args") if isinstance(own["args"], str) else part.args_as_json_str()
            function = {"name": part.tool_name, "arguments": arguments}
            calls.append({"id": part.tool_call_id, "type": "function", "function": function})
    if calls:
        row["tool_calls"] = calls
    return {**row, WHOLE: plain}


def _answer_details(message: ModelResponse, asked_at: datetime | None) -> MessageDetails:
    details: MessageDetails = {"model": word(message.model_name), "finish_reason": word(message.finish_reason)}
    usage = message.usage
    if usage.input_tokens or usage.output_tokens:
        details |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        details["cache_read_tokens"] = usage.cache_read_tokens or None
        details["reasoning_tokens"] = getattr(usage, "output_reasoning_tokens", 0) or usage.details.get("reasoning_tokens")
    if _is_aware(message.timestamp):
        details["created_at"] = message.timestamp
        if asked_at is not None and _is_aware(asked_at) and message.timestamp >= asked_at:
            details["response_time_ms"] = (message.timestamp - asked_at) / timedelta(milliseconds=1)
    return details


def _request_rows(message: ModelRequest, plain: dict[str, Any]) -> Iterator[tuple[dict[str, Any], MessageDetails]]:
    details: MessageDetails = {"created_at": message.timestamp if _is_aware(message.timestamp) else None}
    parts = plain["parts"]
    rows = [_part_row(part, own) for part, own in zip(message.parts, parts, strict=True)] or [{}]
    for index, row in enumerate(rows):
        known: MessageDetails = {**details}
        if "role" not in row:
            known["kind"] = OTHER_KIND
        if index == 0:
            yield {**row, WHOLE: {**plain, "parts": parts[:1]}}, known
        else:
            yield {**row, PART: parts[index]}, known


def _part_row(part: ModelRequestPart, own: dict[str, Any]) -> dict[str, Any]:
    """What a chat API has for a part of a request; what it holds is taken out of the part's own JSON."""
    role = _ROLE_OF.get(own["part_kind"])
    if role is None:
        return {}
    content = own.get("content")
    row: dict[str, Any] = {"role": role}
    if isinstance(part, BaseToolReturnPart):
        row |= {"tool_call_id": part.tool_call_id, "name": part.tool_name}
        row["content"] = content if isinstance(content, str) else part.model_response_str(wrap_if_error=False)
    elif isinstance(part, RetryPromptPart) and part.tool_name is not None:
        # What older histories, and programs that still make them, have for a failed call.
        row |= {"role": "tool", "tool_call_id": part.tool_call_id, "name": part.tool_name}
        row["content"] = content if isinstance(content, str) else encode_json(content)
    elif isinstance(part, UserPromptPart) and isinstance(content, list):
        row["content"] = [{"type": "text", "text": text} for text in map(_spoken, content) if text is not None]
    else:
        row["content"] = content if isinstance(content, str) else encode_json(content)
    if isinstance(content, str):
        del own["content"]
    return row


def _spoken(content: Any) -> str | None:
    """The text of a piece of a prompt; None for an image, a file and the like."""
    if isinstance(content, dict):
        content = content.get("content")
    return content if isinstance(content, str) else None


def _restored(own: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    if own.get("kind") != "response":
        return {**own, "parts": [_filled(part, row) for part in own["parts"]]}
    calls = iter(row.get("tool_calls") or ())
    parts = []
    for part in own["parts"]:
        if part["part_kind"] == "tool-call":
            part = {"args": next(calls)["function"]["arguments"], **part}  # noqa: PLW2901 - the same part, whole
        parts.append(_filled(part, row) if part["part_kind"] == "text" else part)
    return {**own, "parts": parts}


def _filled(part: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {"content": row["content"], **part} if isinstance(row.get("content"), str) else part


def _of_chat(message: Message, row: dict[str, Any], names: dict[str, str]) -> Iterator[ModelMessage]:
    """What a message that pydantic-ai did not write is to it."""
    at, text = message.created_at, message.text or ""
    if message.role == "assistant" or (message.role is None and message.tool_call_ids):
        parts: list[Any] = [TextPart(text)] if text else []
        parts += [ToolCallPart(name or "", arguments, call_id) for call_id, name, arguments in calls_of(row)]
        yield ModelResponse(parts, model_name=message.model, timestamp=at)
    elif message.tool_call_id is not None:
        content = row.get("output") if message.kind in _CALL_RESULTS else text
        result = content if isinstance(content, str) else words(content) or encode_json(content)
        name = names.get(message.tool_call_id, "")
        yield ModelRequest([ToolReturnPart(name, result, message.tool_call_id, timestamp=at)], timestamp=at)
    elif message.role in ("system", "developer"):
        yield ModelRequest([SystemPromptPart(text, timestamp=at)], timestamp=at)
    elif message.role == "user":
        content = row.get("content")
        yield ModelRequest([UserPromptPart(_prompt(content) if isinstance(content, list) else text, timestamp=at)], timestamp=at)


def _prompt(parts: list[Any]) -> list[UserContent]:
    """The pieces of a chat API's content: texts and images."""
    found: list[UserContent] = []
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif isinstance(part, dict) and isinstance(part.get("image_url"), dict) and isinstance(part["image_url"].get("url"), str):
            found.append(ImageUrl(part["image_url"]["url"]))
    return found


def _is_aware(instant: datetime | None) -> bool:
    return instant is not None and instant.utcoffset() is not None
