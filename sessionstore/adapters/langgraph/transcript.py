"""Messages of a graph as messages of its session: what was said, once."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage

from ...config import StoreSettings
from ...content import ROLES
from ...errors import InvalidInputError
from ...inputs import identifier
from ...logs import log
from ...rows import PreparedMessage, prepare
from ...values.checkpoints import Said

CHANNEL: Final = "messages"

_MOST_REMEMBERED: Final = 1_000

_ROLES: Final = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}


class Transcript:
    """Tells the store what was said, and remembers what it refused, so that this is neither tried nor logged again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: OrderedDict[tuple[str, str], None] = OrderedDict()

    def said(self, thread_id: str, value: Any, known: int, settings: StoreSettings) -> Said | None:
        """The messages of a channel's value; None if it is no list. `known` of the first ones were looked at before."""
        if not isinstance(value, list):
            return None
        items = list(value)

        def name(index: int) -> str | None:
            found = _id_of(items[index])
            return None if found is None or (thread_id, found) in self._refused else found

        return Said(
            count=len(items),
            known=known,
            name=name,
            prepare=lambda index: _prepared(items[index], settings),
            leave_out=lambda index, error: self._leave_out(thread_id, items[index].id, error),
        )

    def _leave_out(self, thread_id: str, message_id: str, error: Exception) -> None:
        with self._lock:
            self._refused[thread_id, message_id] = None
            while len(self._refused) > _MOST_REMEMBERED:
                self._refused.popitem(last=False)
        log(
            logging.WARNING,
            "message_left_out",
            f"a message of a graph was left out of its session: {error}",
            session_id=thread_id,
            message_id=message_id,
            reason=error,
        )


def _id_of(item: Any) -> str | None:
    if not isinstance(item, BaseMessage) or item.type == "remove":
        return None
    return _identifier(item.id)


def _prepared(message: BaseMessage, settings: StoreSettings) -> PreparedMessage:
    """A message as it is to be stored.

    Raises:
        InvalidInputError: The store does not take it.
    """
    limits: dict[str, Any] = {"max_bytes": settings.max_text_bytes, "compress_over": settings.compress_over}
    try:
        known: dict[str, Any] = {**_figures(message), "dedupe_key": message.id}
        try:
            return prepare(as_dict(message), **limits, **known)
        except InvalidInputError:
            # Content may hold what JSON has not.
            return prepare({"role": _role_of(message), "content": str(message.text)}, **limits, **known)
    except (AttributeError, LookupError, TypeError):
        # Nobody checked it, as where it was read by a class that has changed since.
        raise InvalidInputError("message", "is not as LangChain makes it") from None


def as_dict(message: BaseMessage) -> dict[str, Any]:
    """A message as chat APIs have it."""
    found: dict[str, Any] = {"role": _role_of(message), "content": message.content}
    if message.name:
        found["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        found["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": _arguments(call["args"])}}
            for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        found["tool_call_id"] = message.tool_call_id
    return found


def _arguments(given: Any) -> str:
    try:
        return json.dumps(given, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(given)


def _role_of(message: BaseMessage) -> str:
    named = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, message.type)
    named = named.removesuffix("MessageChunk").lower()
    return named if named in ROLES else "user"


def _identifier(value: object) -> str | None:
    """A text that the store takes as a name, or None."""
    if value is None:
        return None
    try:
        return identifier("id", value)
    except InvalidInputError:
        return None


def _figures(message: BaseMessage) -> dict[str, Any]:
    """What is known about the call that made a message, as far as it is of the kind that it should be."""
    told = message.response_metadata
    found: dict[str, Any] = {}
    for name, key in (("model", "model_name"), ("model", "model"), ("finish_reason", "finish_reason")):
        if value := _identifier(told.get(key)):
            found.setdefault(name, value)
    usage: Any = (message.usage_metadata if isinstance(message, AIMessage) else None) or {}
    counts = {
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cache_read_tokens": (usage.get("input_token_details") or {}).get("cache_read"),
        "reasoning_tokens": (usage.get("output_token_details") or {}).get("reasoning"),
    }
    found.update({name: count for name, count in counts.items() if type(count) is int and count >= 0})
    return found
