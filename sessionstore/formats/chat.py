"""Histories that a chat API takes: every tool call followed by its results, and none of them alone.

What is stored is not changed. Items of the Responses API become the chat messages that say the same; legacy function calls become
tool calls; what has no place in a chat (reasoning items, dicts of other kinds) is left out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from ..content import MESSAGE_KIND, calls_of
from ..pairs import INTERRUPTED
from ..values import Message

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})
_CALL_ITEMS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_CALL_KEYS: Final = ("tool_calls", "function_call")
_RESULT_ITEMS: Final = frozenset({"function_call_output", "custom_tool_call_output"})


class Source(Protocol):
    """The messages of a session, which can be read more than once."""

    def __call__(self, *, ahead: bool = False) -> Iterator[Message]:
        """All of them, oldest first; `ahead` if they are read again afterwards."""


class ChatHistory:
    """The messages of a session as a chat API takes them. It is read twice: first for its tool calls alone.

    Attributes:
        left_out: How many stored messages have no place in it, once it was read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pairs = _Pairs(_chats(source(ahead=True)))
        self.left_out = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        waiting: set[int] = set()
        together: list[tuple[int, dict[str, Any]]] = []
        for index, message in enumerate(_chats(self._source())):
            if message is None or index in self._pairs.lone:
                self.left_out += 1
                continue
            together.append((index, message))
            waiting.update(self._pairs.results_of.get(index, ()))
            waiting.discard(index)
            if not waiting:
                yield from self._arranged(together)
                together.clear()

    def _arranged(self, together: list[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Messages of which no result lies elsewhere, each result behind its call."""
        found = dict(together)
        for index, message in together:
            if index in self._pairs.answering:
                continue
            yield message
            for result in self._pairs.results_of.get(index, ()):
                yield found[result]
            for call_id in self._pairs.unanswered.get(index, ()):
                yield {"role": "tool", "tool_call_id": call_id, "content": INTERRUPTED}


class _Pairs:
    """Which message answers which, by their places.

    Attributes:
        results_of: The places of the results, for the place of each call.
        answering: The places of results that have a call.
        lone: The places of results that have none.
        unanswered: The ids of calls without a result, for the place of each call.
    """

    def __init__(self, messages: Iterable[dict[str, Any] | None]) -> None:
        self.results_of: defaultdict[int, list[int]] = defaultdict(list)
        self.answering: set[int] = set()
        self.lone: set[int] = set()
        waiting: defaultdict[object, deque[int]] = defaultdict(deque)
        for index, message in enumerate(messages):
            if message is None:
                continue
            if message.get("role") == "tool":
                callers = waiting.get(message.get("tool_call_id"))
                if callers:
                    self.results_of[callers.popleft()].append(index)
                    self.answering.add(index)
                else:
                    self.lone.add(index)
            else:
                for call_id, _, _ in calls_of(message):
                    waiting[call_id].append(index)
        self.unanswered: defaultdict[int, list[object]] = defaultdict(list)
        for unanswered_id, callers in waiting.items():
            for index in callers:
                self.unanswered[index].append(unanswered_id)


def _chats(messages: Iterable[Message]) -> Iterator[dict[str, Any] | None]:
    """Each message as a chat message, None for what is none."""
    legacy: deque[tuple[str | None, str]] = deque()
    for message in messages:
        given = message.to_dict()
        if "type" in given:
            yield _of_item(given)
        elif message.kind != MESSAGE_KIND:
            yield None
        else:
            yield _modern(message.seq, given, legacy)


def _of_item(item: dict[str, Any]) -> dict[str, Any] | None:
    """The chat message of an item of the Responses API."""
    kind = item["type"]
    if kind == MESSAGE_KIND and "role" in item:
        return {"role": item["role"], "content": _of_parts(item.get("content"))}
    if kind in _CALL_ITEMS and isinstance(item.get("call_id"), str):
        name, argument = _CALL_ITEMS[kind]
        call = {"id": item["call_id"], "type": name, name: {"name": item.get("name"), argument: item.get(argument, "")}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind in _RESULT_ITEMS:
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _of_parts(item.get("output"))}
    return None


def _of_parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_of_part(part) for part in content]
    # Some chat APIs take a list of parts from users only.
    return parts[0]["text"] if len(parts) == 1 and isinstance(parts[0], dict) and parts[0].get("type") == "text" else parts


def _of_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"], **_some(part, "detail")}}
    if kind == "input_file":
        return {"type": "file", "file": _some(part, "filename", "file_data", "file_id")}
    return part


def _some(part: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: part[name] for name in names if part.get(name) is not None}


def _modern(seq: int, message: dict[str, Any], legacy: deque[tuple[str | None, str]]) -> dict[str, Any]:
    """A chat message with tool calls in the place of a legacy function call. `legacy` holds the calls that wait for a result."""
    if any(key in message and not message[key] for key in _CALL_KEYS):
        # As the client library of OpenAI dumps a message without calls; its API refuses that.
        message = {key: value for key, value in message.items() if value or key not in _CALL_KEYS}
    called = message.get("function_call")
    if isinstance(called, dict) and not message.get("tool_calls"):
        call_id = f"call_{seq}"
        legacy.append((called.get("name"), call_id))
        rest = {key: value for key, value in message.items() if key != "function_call"}
        return {"content": None, **rest, "tool_calls": [{"id": call_id, "type": "function", "function": called}]}
    if message.get("role") == "function":
        answered = next((call for call in legacy if call[0] == message.get("name")), None)
        if answered is not None:
            legacy.remove(answered)
        return {**message, "role": "tool", "tool_call_id": None if answered is None else answered[1]}
    return message
