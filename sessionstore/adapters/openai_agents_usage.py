"""What the models of the OpenAI Agents SDK took for their answers: told by the hooks of a run, kept with the items that answer.

The SDK hands a session the items of a turn and nothing about the calls behind them. The hooks of the run hear of each call, and
the session looks here when the items come.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..arguments import MessageDetails
from ..errors import MissingExtraError
from .plain import word

try:
    from agents import Agent, RunContextWrapper, RunHooks
except ModuleNotFoundError as error:
    raise MissingExtraError("the session for the OpenAI Agents SDK", "openai-agents") from error

if TYPE_CHECKING:
    from agents.items import ModelResponse, TResponseInputItem

    from .openai_agents import AgentsSession

# Answers whose items never came, because a guardrail refused them or a run was stopped, must not heap up.
_MOST_WAITING: Final = 100


class Answer(NamedTuple):
    """A model's answer that was told of: the marks of its items, and what is known about it."""

    marks: frozenset[str]
    details: MessageDetails


class Answers:
    """The answers whose items have not come yet."""

    def __init__(self) -> None:
        self._waiting: deque[Answer] = deque(maxlen=_MOST_WAITING)

    def expect(self, items: Sequence[Mapping[str, Any]], details: MessageDetails) -> None:
        """Note what is known about the answer that these items are."""
        if details:
            self._waiting.append(Answer(frozenset(map(_mark, items)), details))

    def among(self, items: Sequence[Mapping[str, Any]]) -> dict[int, Answer]:
        """The answers that items belong to, each under the index of its item that speaks, or else of its last one."""
        found: dict[int, Answer] = {}
        marks = [_mark(item) for item in items] if self._waiting else []
        # From the newest on: the items of an older one that reads the same may never come.
        for answer in reversed(self._waiting):
            own = [index for index, mark in enumerate(marks) if mark in answer.marks and index not in found]
            if own:
                speaking = [index for index in own if items[index].get("role") == "assistant"]
                found[(speaking or own)[-1]] = answer
        return found

    def forget(self, answers: Sequence[Answer]) -> None:
        """Their items are stored."""
        kept = [answer for answer in self._waiting if not any(answer is stored for stored in answers)]
        self._waiting = deque(kept, maxlen=_MOST_WAITING)


class UsageHooks(RunHooks[Any]):
    """Hooks of a run that note tokens, model and response time with the items that a session gets: `hooks=UsageHooks(session)`.

    To use hooks of your own as well, derive them from this class and call its methods.
    """

    def __init__(self, session: AgentsSession) -> None:
        """Note for the session that the run is given, or that is beneath the one that it is given."""
        self._answers = session._answers  # noqa: SLF001 - two parts of one adapter
        self._begun: dict[int, float] = {}

    async def on_llm_start(
        self,
        context: RunContextWrapper[Any],
        agent: Agent[Any],
        system_prompt: str | None,
        input_items: list[TResponseInputItem],
    ) -> None:
        """Begin to time the model."""
        self._begun[id(context)] = time.perf_counter()

    async def on_llm_end(self, context: RunContextWrapper[Any], agent: Agent[Any], response: ModelResponse) -> None:
        """Note what the answer took."""
        begun = self._begun.pop(id(context), None)
        details = usage_details(response)
        if begun is not None:
            details["response_time_ms"] = (time.perf_counter() - begun) * 1000
        details["model"] = word(agent.model)
        self._answers.expect([dict(item) for item in response.to_input_items()], details)


def usage_details(response: ModelResponse) -> MessageDetails:
    """The tokens of a response; nothing if the model did not count."""
    usage = response.usage
    if not usage.input_tokens and not usage.output_tokens:
        return {}
    details: MessageDetails = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.input_tokens_details.cached_tokens:
        details["cache_read_tokens"] = usage.input_tokens_details.cached_tokens
    if usage.output_tokens_details.reasoning_tokens:
        details["reasoning_tokens"] = usage.output_tokens_details.reasoning_tokens
    return details


def _mark(item: Mapping[str, Any]) -> str:
    """What tells an item from others also when the runner left out its id: the id of its call, or what it says."""
    if isinstance(item.get("call_id"), str):
        return f"{item.get('type')} {item['call_id']}"
    return repr([item.get(key) for key in ("type", "role", "content", "summary", "encrypted_content")])
