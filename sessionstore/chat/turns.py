"""One turn as plain steps: a question, answers, tool calls and results. It neither asks nor stores."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .. import clock, content
from ..arguments import MessageDetails, NewMessage
from ..config import DEFAULT_MAX_TEXT_BYTES
from ..errors import InvalidInputError, ModelError
from .answers import ModelAnswer, Reply, ToolRequest, checked_answer, requests_of
from .tools import Told

Question = str | Sequence[Mapping[str, Any]]


class Turn:
    """A turn that goes on.

    Attributes:
        tool_calls: How many tool calls were answered in it.
    """

    def __init__(self, question: Question, *, streamed: bool, rounds: int) -> None:
        self.question = question
        self.streamed = streamed
        self.tool_calls = 0
        self.history: list[dict[str, Any]] = []
        self._rounds = rounds
        self._rounds_left = rounds
        self._took_ms = 0.0
        self._began = time.perf_counter_ns()
        self._asked = self._began
        self._answers: list[ModelAnswer] = []
        self._new: list[NewMessage] = [NewMessage(question_message(question), created_at=clock.utc_now())]

    @property
    def new(self) -> list[NewMessage]:
        """What is to be stored of it."""
        return list(self._new)

    @property
    def elapsed_ms(self) -> float:
        """How long it goes on."""
        return (time.perf_counter_ns() - self._began) / 1e6

    def sent(self) -> list[dict[str, Any]]:
        """What the model is asked now. A copy: a callable may do with it what it likes."""
        return [copy.deepcopy(dict(message)) for message in (*self.history, *(each.message for each in self._new))]

    def begin_answer(self) -> None:
        """The model is asked from now on; what it needs to be asked is there."""
        self._asked = time.perf_counter_ns()

    def answered(self, given: ModelAnswer) -> list[ToolRequest]:
        """Take an answer of the model, and return the tool calls that it waits for; none if it is the last one.

        Raises:
            ModelError: The answer cannot be used, or calls tools once too often.
        """
        answer = checked_answer(given)
        self._took_ms = (time.perf_counter_ns() - self._asked) / 1e6
        self._answers.append(answer)
        details: MessageDetails = {**answer.details, "response_time_ms": self._took_ms, "created_at": clock.utc_now()}
        self._new.append(NewMessage(answer.message, **details))
        requests = requests_of(answer.message)
        if requests:
            if not self._rounds_left:
                raise ModelError(
                    f"the model asked for tools once more after {self._rounds} rounds in a turn; "
                    "if it needs more, make the agent with a larger max_tool_rounds"
                )
            self._rounds_left -= 1
        return requests

    def told(self, request: ToolRequest, result: Told) -> None:
        """Take the result of a tool call."""
        self.tool_calls += 1
        message = {"role": "tool", "tool_call_id": request.call_id, "content": result.text}
        noted = {"tool": request.name} if result.error is None else {"tool": request.name, "error": result.error}
        try:
            content.encode(message, kind=None, max_bytes=DEFAULT_MAX_TEXT_BYTES)
        except InvalidInputError as error:
            message["content"] = f"The result cannot be used: {error.reason}"
            noted["error"] = type(error).__name__
        self._new.append(NewMessage(message, metadata=noted, created_at=clock.utc_now()))

    def reply(self) -> Reply:
        """What came of it."""
        last = self._answers[-1].message
        text = content.words(last.get("content")) or last.get("refusal") or ""
        return Reply(text, self._answers, [copy.deepcopy(dict(each.message)) for each in self._new], self._took_ms)


def question_message(question: Question) -> dict[str, Any]:
    """The message of a question: a text, or content parts.

    Raises:
        InvalidInputError: It is neither, or cannot be stored. The model is not asked then.
    """
    if isinstance(question, str):
        message: dict[str, Any] = {"role": "user", "content": str.__str__(question)}
    else:
        parts = list(question) if isinstance(question, list | tuple) else []
        if not parts or not all(isinstance(part, Mapping) for part in parts):
            raise InvalidInputError("text", "must be a str, or a list of content parts, which are dicts")
        message = {"role": "user", "content": [copy.deepcopy(dict(part)) for part in parts]}
    content.encode(message, kind=None, max_bytes=DEFAULT_MAX_TEXT_BYTES)
    return message
