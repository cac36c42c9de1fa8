"""How a message dict becomes columns and comes back equal.

A chat message of a role and a text needs no JSON at all: `role` and `text` hold it. Whatever else the dict has (tool calls,
names, content parts, null content) stands in `extra`, a JSON object. No text is stored twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from . import inputs
from .errors import InvalidInputError

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
MESSAGE_KIND: Final = "message"
MAX_CALLS: Final = 1_000

ROLE_SET: Final = frozenset(ROLES)
# Items of the Responses API that call a tool, and those that answer.
RESULT_KIND_OF: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_RESULT_KINDS: Final = frozenset(RESULT_KIND_OF.values())


class StoredContent(NamedTuple):
    """The columns that a message dict is kept in."""

    kind: str
    role: str | None
    text: str | None
    extra: str | None


def encode(message: object, *, kind: str | None, max_bytes: int) -> StoredContent:
    """The columns of a message dict.

    Args:
        message: An OpenAI-style message with a `role`, an item with a `type`, or any dict if `kind` names what it is.
        kind: Store the dict opaquely under this kind, whatever its role says.
        max_bytes: The limit of the text and of the rest, each in UTF-8.

    Raises:
        InvalidInputError: An unknown role, no role and no type, or content that JSON cannot hold.
    """
    if type(message) is dict and len(message) == 2 and kind is None:
        # Nearly every message is a role and a text.
        plain_role, plain_text = message.get("role"), message.get("content")
        if type(plain_role) is str and plain_role in ROLE_SET and type(plain_text) is str:
            return StoredContent(MESSAGE_KIND, plain_role, inputs.text("content", plain_text, max_bytes=max_bytes), None)
    if not isinstance(message, dict):
        raise InvalidInputError("message", "must be a dict, for example {'role': 'user', 'content': 'Hello'}")
    found_kind = _kind(message) if kind is None else inputs.identifier("kind", kind)
    role = _role(message, opaque=found_kind != MESSAGE_KIND)
    content = message.get("content")
    if isinstance(content, str):
        body = inputs.text("content", content, max_bytes=max_bytes)
        rest = {key: value for key, value in message.items() if key != "content" and (key != "role" or role is None)}
    else:
        body = None
        rest = {key: value for key, value in message.items() if key != "role" or role is None}
    if not rest:
        return StoredContent(found_kind, role, body, None)
    return StoredContent(found_kind, role, body, inputs.json_object("message", rest, max_bytes=max_bytes))


def decode(role: str | None, text: str | None, extra: str | None) -> dict[str, Any]:
    """The message dict that `encode` was given."""
    message: dict[str, Any] = {} if role is None else {"role": role}
    if text is not None:
        message["content"] = text
    if extra is not None:
        message.update(decoded(extra))
    return message


def words(content: object) -> str | None:
    """The readable words of a content: a text itself, or the texts of its parts, a line each."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def decoded(text: str) -> Any:
    """The value of a stored JSON text."""
    return _decoder()(text)


@functools.cache
def _decoder() -> Callable[[str], Any]:
    # Three times as fast as the standard library's; loaded when there is something to decode.
    from pydantic_core import from_json

    return from_json


def call_ids(kind: str, message: dict[str, Any]) -> tuple[list[str], str | None]:
    """The ids of the tool calls that a message makes, and of the one that it answers."""
    made = [call_id for call_id, _, _ in calls_of(message)]
    if len(made) > MAX_CALLS:
        raise InvalidInputError("message.tool_calls", f"must be at most {MAX_CALLS}", limit=MAX_CALLS)
    return made, _text_or_none(message.get("call_id") if kind in _RESULT_KINDS else message.get("tool_call_id"))


def calls_of(message: dict[str, Any]) -> Iterator[tuple[str, str | None, str | None]]:
    """The (call id, name, arguments) of every tool call that a message makes, chat or Responses style."""
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        for call in calls:
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                function = call.get("function")
                named = function if isinstance(function, dict) else call
                yield call["id"], _text_or_none(named.get("name")), _text_or_none(named.get("arguments"))
    elif message.get("type") in RESULT_KIND_OF and isinstance(message.get("call_id"), str):
        yield message["call_id"], _text_or_none(message.get("name")), _text_or_none(message.get("arguments", message.get("input")))


def says_its_kind(message: dict[str, Any]) -> bool:
    """Whether a stored message dict can be stored again without a `kind=`."""
    try:
        _role(message, opaque=_kind(message) != MESSAGE_KIND)
    except InvalidInputError:
        return False
    return True


def _kind(message: dict[str, Any]) -> str:
    if "type" in message:
        return inputs.identifier("message.type", message["type"])
    if "role" not in message:
        raise InvalidInputError(
            "message", "must have a role, or a type as the items of the Responses API have; a dict of another shape needs kind="
        )
    return MESSAGE_KIND


def _role(message: dict[str, Any], *, opaque: bool) -> str | None:
    role = message.get("role")
    if isinstance(role, str) and role in ROLE_SET:
        return ROLES[ROLES.index(role)]
    if opaque or (role is None and "role" not in message):
        return None
    raise InvalidInputError("role", "must be one of " + ", ".join(ROLES) + "; a dict of another shape needs kind=")


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
