"""What of a conversation a model is shown: whole pairs of tool calls and results, the newest that fit, and nothing else."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidInputError
from ..pairs import INTERRUPTED
from ..rows import ASKING_ROLE

CHARS_PER_TOKEN: Final = 4
_TOKENS_AROUND: Final = 4
_FIRST_LOOK: Final = 64

ChatMessage = dict[str, Any]


def approximate_tokens(message: Mapping[str, Any]) -> int:
    """About how many tokens a message has: one for four characters of its JSON, which serves English and errs for others."""
    return _TOKENS_AROUND + len(json.dumps(message, ensure_ascii=False, default=str)) // CHARS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Window:
    """How much of the earlier conversation a model sees.

    Attributes:
        messages: At most so many messages; None for all.
        tokens: At most so many tokens, as `count` counts them; None for any number.
        count: Counts the tokens of a message dict.
    """

    messages: int | None = None
    tokens: int | None = None
    count: Callable[[ChatMessage], int] = approximate_tokens

    def __post_init__(self) -> None:
        given: object = self.count
        if not callable(given):
            raise InvalidInputError("count_tokens", "must be a callable over a message dict that returns an int")

    def of(self, history: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The newest messages of a history that fit. A tool call and its results are shown together or not at all.

        If not all fit, they begin with a question, if one does: the templates of many models refuse other beginnings.
        """
        every = blocks(history)
        shown: list[list[ChatMessage]] = []
        messages, tokens = 0, 0
        for block in reversed(every):
            messages += len(block)
            if self.messages is not None and messages > self.messages:
                break
            if self.tokens is not None:
                tokens += sum(self._counted(message) for message in block)
                if tokens > self.tokens:
                    break
            shown.append(block)
        shown.reverse()
        if len(shown) < len(every):
            shown = shown[next((place for place, (first, *_) in enumerate(shown) if first.get("role") == ASKING_ROLE), 0) :]
        return [message for block in shown for message in block]

    def looks(self) -> Iterable[int | None]:
        """How many of the newest messages to read, again and again until they are enough; None for all of them."""
        return (self._most,) if self.tokens is None else self._growing()

    @property
    def _most(self) -> int | None:
        """One more than is shown tells whether there are more."""
        return None if self.messages is None else self.messages + 1

    def is_full(self, history: Sequence[ChatMessage]) -> bool:
        """Whether more of the earlier messages would change nothing."""
        return len(self.of(history)) < sum(map(len, blocks(history)))

    def _growing(self) -> Iterable[int | None]:
        most = _FIRST_LOOK
        while self._most is None or most < self._most:
            yield most
            most *= 4
        yield self._most

    def _counted(self, message: ChatMessage) -> int:
        counted: object = self.count(message)
        if not isinstance(counted, int) or isinstance(counted, bool) or counted < 0:
            raise InvalidInputError("count_tokens", "must return an int of at least 0")
        return counted


def blocks(history: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    """A history in pieces that belong together: a message, or one that calls tools and the results of its calls.

    Results stand right behind their call. A call that has none gets one that says so, because providers refuse a call without a
    result; one whose call is nowhere is left out for the same reason.
    """
    pieces: list[list[ChatMessage]] = []
    waiting: defaultdict[str, deque[_Caller]] = defaultdict(deque)
    callers: list[_Caller] = []
    for message in history:
        if message.get("role") == "tool":
            open_calls = waiting[str(message.get("tool_call_id"))]
            if open_calls:
                open_calls.popleft().results.append(message)
            continue
        piece = [message]
        pieces.append(piece)
        if ids := _call_ids(message):
            caller = _Caller(piece, ids, [])
            callers.append(caller)
            for call_id in ids:
                waiting[call_id].append(caller)
    for caller in callers:
        caller.piece.extend(caller.in_order())
    return pieces


@dataclass(frozen=True, slots=True)
class _Caller:
    piece: list[ChatMessage]
    call_ids: list[str]
    results: list[ChatMessage]

    def in_order(self) -> list[ChatMessage]:
        """A result for each call."""
        answered = [result.get("tool_call_id") for result in self.results]
        missing = [call_id for call_id in self.call_ids if call_id not in answered]
        return self.results + [{"role": "tool", "tool_call_id": call_id, "content": INTERRUPTED} for call_id in missing]


def _call_ids(message: ChatMessage) -> list[str]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call["id"] for call in calls if isinstance(call, Mapping) and isinstance(call.get("id"), str)]
