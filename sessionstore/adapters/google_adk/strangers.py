"""Messages that are no events of ADK's, for example what `store.repair` appends, as events for the next model call."""

from __future__ import annotations

from typing import Final

from ...content import calls_of
from ...values import Message
from .events import Json

_AUTHOR_USER: Final = "user"


class Calls:
    """The function calls of the events so far, by id: what an event that answers one has to know of it."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[str, Json]] = {}

    def note(self, message: Json, event: Json) -> None:
        """Remember what an event calls."""
        for call_id, name, _ in calls_of(message):
            self._calls[call_id] = (name or "", event)

    def find(self, call_id: str) -> tuple[str, Json] | None:
        """The function's name and the event of a call."""
        return self._calls.get(call_id)


def event_of(message: Message, app_name: str, calls: Calls) -> Json | None:
    """The JSON of an event that says what a message says; None if it has no words, or answers a call that is not there."""
    if message.tool_call_id is not None:
        return _result(message, calls)
    if message.text is None or message.role is None:
        return None
    by_model = message.role == "assistant"
    part = {"text": message.text}
    return _event(message, app_name if by_model else _AUTHOR_USER, "model" if by_model else _AUTHOR_USER, part, {})


def _result(message: Message, calls: Calls) -> Json | None:
    called = calls.find(message.tool_call_id or "")
    if called is None:
        return None
    name, caller = called
    response = {"id": message.tool_call_id, "name": name, "response": {"result": message.text or ""}}
    # The author and the branch decide whether the agent that made the call sees its result.
    kept: Json = {key: caller[key] for key in ("invocationId", "branch", "isolationScope") if key in caller}
    return _event(message, caller.get("author", ""), _AUTHOR_USER, {"functionResponse": response}, kept)


def _event(message: Message, author: str, role: str, part: Json, kept: Json) -> Json:
    content: Json = {"role": role, "parts": [part]}
    return {
        **kept,
        "id": f"{message.session_id}#{message.seq}",
        "author": author,
        "content": content,
        "timestamp": message.created_at.timestamp(),
    }
