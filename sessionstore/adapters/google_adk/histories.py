"""Histories: the messages of a session as the JSON of events, one by one, so that a long one is never there three times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic_core import to_json

from ...values import Message
from . import strangers
from .events import EVENT, EVENT_KIND, RESULT_KIND, Json, event_of


def texts_of(messages: Iterable[Message], app_name: str) -> Iterator[str]:
    """The JSON texts of the events that messages are, and of those that messages of others stand for."""
    calls = strangers.Calls()
    own: Json | None = None
    results: list[Json] = []
    for message in messages:
        if message.kind == RESULT_KIND:
            results.append(message.to_dict())
            continue
        if own is not None:
            yield _text_of(own, results, calls)
        own, results = None, []
        if message.kind == EVENT_KIND and isinstance((found := message.to_dict()).get(EVENT), dict):
            own = found
        elif (event := strangers.event_of(message, app_name, calls)) is not None:
            yield _as_text(event)
    if own is not None:
        yield _text_of(own, results, calls)


def _text_of(own: Json, results: Sequence[Json], calls: strangers.Calls) -> str:
    event = event_of(own, results)
    if "tool_calls" in own:
        calls.note(own, event)
    return _as_text(event)


def _as_text(event: Json) -> str:
    return to_json(event).decode()
