"""MessageHistory: the conversations of pydantic-ai agents, kept in a store.

    from pydantic_ai import Agent
    from sessionstore.adapters.pydantic_ai import MessageHistory

    history = MessageHistory("agent.db")
    result = history.run_sync(Agent("openai:gpt-5"), "user-alice", "What's the capital of France?")

`run` and `run_sync` load, run and append. Around other ways to run an agent, `load` gives what `message_history=` takes, and
`append` stores what a run added, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable

from .. import inputs, pairs
from ..arguments import UNSET, NewMessage, Unset, several
from ..errors import InvalidInputError, MissingExtraError, NotFoundError
from ..values import Message
from .given import GivenStore, HoldsStore, StoreLike
from .plain import given_attributes
from .pydantic_ai_rows import from_rows, is_foreign_result, to_rows

try:
    from pydantic import TypeAdapter
    from pydantic_ai import Conversation, DeferredToolRequests, RunUsage
    from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, RetryPromptPart, ToolReturnPart, UserPromptPart
except ImportError as error:
    raise MissingExtraError("the history for pydantic-ai", "pydantic-ai") from error

if TYPE_CHECKING:
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.run import AgentRunResult

__all__ = ["MessageHistory", "RunMessages"]

Deps = TypeVar("Deps")
Output = TypeVar("Output")

_DEFERRED: Final = TypeAdapter(DeferredToolRequests)
# What is noted beside the last message of a run that waits for somebody.
_WAITING: Final = "deferred_tool_requests"
# Rows read for so many messages: a request has several, and the turn may begin further back. More are read if it is not enough.
_SPARE_ROWS: Final = 16
_GROWTH: Final = 4


@runtime_checkable
class RunMessages(Protocol):
    """What a run of an agent gives, streamed or not: its own messages."""

    def new_messages(self) -> list[ModelMessage]:
        """Those that it added to the history."""
        ...


class MessageHistory(HoldsStore):
    """Conversations in a store: each is the session of that id, made with its first message."""

    def __init__(
        self,
        store: StoreLike = None,
        *,
        agent_id: str | None = None,
        user_id: str | None = None,
        ttl: float | timedelta | None | Unset = UNSET,
    ) -> None:
        """Keep conversations in a store.

        Args:
            store: A store, which stays open, or a path, which `close` closes. None: the default store, as `sessionstore.open()`.
                A path is opened at once: in an event loop, rather give what `sessionstore.aopen()` gives.
            agent_id: Which agent sessions are told to belong to when they are made.
            user_id: Whose they are, likewise.
            ttl: How long they live without a new message, in seconds or as a timedelta; None for ever. The store's by default.
        """
        self._attributes = given_attributes(agent_id=agent_id, user_id=user_id, ttl=ttl)
        self._given = GivenStore(store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._given.sync!r})"

    def load(self, conversation_id: str, *, last: int | None = None) -> list[ModelMessage]:
        """The messages of a conversation, for `message_history=`; none if there is no such session.

        Args:
            conversation_id: The session's id.
            last: Only the newest so many, and what stands before them in the same turn: a history begins with what the user
                said, and no result stands without its call.
        """
        most = inputs.optional_whole_number("last", last)
        wanted = _rows_for(most)
        while True:
            rows = self._read(conversation_id, wanted)
            found = _newest(rows, most, is_all=wanted is None or len(rows) < wanted)
            if found is not None or wanted is None:
                return found or []
            wanted *= _GROWTH

    async def aload(self, conversation_id: str, *, last: int | None = None) -> list[ModelMessage]:
        """As `load`, awaited."""
        most = inputs.optional_whole_number("last", last)
        wanted = _rows_for(most)
        while True:
            rows = await self._aread(conversation_id, wanted)
            found = _newest(rows, most, is_all=wanted is None or len(rows) < wanted)
            if found is not None or wanted is None:
                return found or []
            wanted *= _GROWTH

    def append(self, conversation_id: str, messages: RunMessages | Sequence[ModelMessage]) -> list[Message]:
        """Store what a run added, or messages, in one transaction: all or none. No messages are no session.

        Args:
            conversation_id: The session's id.
            messages: The result of a run, of which `new_messages()` are stored, or messages.

        Raises:
            InvalidInputError: One of them holds what JSON does not have.
        """
        rows = _rows_of(messages)
        return self._given.sync._append_or_begin(conversation_id, rows, self._attributes) if rows else []  # noqa: SLF001 - a part of the library

    async def aappend(self, conversation_id: str, messages: RunMessages | Sequence[ModelMessage]) -> list[Message]:
        """As `append`, awaited."""
        rows = _rows_of(messages)
        return await self._given.awaited._append_or_begin(conversation_id, rows, self._attributes) if rows else []  # noqa: SLF001 - a part of the library

    def conversation(self, conversation_id: str) -> Conversation:
        """The whole conversation, for `conversation=`: its messages, the usage that they tell, and what it waits for.

        The usage counts requests and tokens of all its responses, and its successful tool calls.
        """
        return _conversation(conversation_id, self._read(conversation_id, None))

    async def aconversation(self, conversation_id: str) -> Conversation:
        """As `conversation`, awaited."""
        return _conversation(conversation_id, await self._aread(conversation_id, None))

    async def run(
        self,
        agent: AbstractAgent[Deps, Output],
        conversation_id: str,
        prompt: str | Sequence[Any] | None = None,
        *,
        last: int | None = None,
        **options: Any,
    ) -> AgentRunResult[Output]:
        """Run an agent in a conversation: `load`, `agent.run`, `append`. A run that fails stores nothing.

        Args:
            agent: The agent.
            conversation_id: The session's id.
            prompt: What the user says.
            last: How much of the history the model sees, as in `load`.
            options: Those of `agent.run`, but `message_history`, which is what is loaded.
        """
        _refuse_history(options)
        options = {"conversation_id": conversation_id, **options, "message_history": await self.aload(conversation_id, last=last)}
        result: AgentRunResult[Output] = await agent.run(prompt, **options)
        await self.aappend(conversation_id, result)
        return result

    def run_sync(
        self,
        agent: AbstractAgent[Deps, Output],
        conversation_id: str,
        prompt: str | Sequence[Any] | None = None,
        *,
        last: int | None = None,
        **options: Any,
    ) -> AgentRunResult[Output]:
        """As `run`, without a loop of the caller's."""
        _refuse_history(options)
        options = {"conversation_id": conversation_id, **options, "message_history": self.load(conversation_id, last=last)}
        result: AgentRunResult[Output] = agent.run_sync(prompt, **options)
        self.append(conversation_id, result)
        return result

    def _read(self, conversation_id: str, last: int | None) -> list[Message]:
        try:
            return self._given.sync.messages(conversation_id, last=last)
        except NotFoundError:
            return []

    async def _aread(self, conversation_id: str, last: int | None) -> list[Message]:
        try:
            return await self._given.awaited.messages(conversation_id, last=last)
        except NotFoundError:
            return []


def _refuse_history(options: dict[str, Any]) -> None:
    if given := {"message_history", "conversation"}.intersection(options):
        raise InvalidInputError(min(given), "is what `run` loads; to give another one, use `agent.run` and `append`")


def _rows_for(messages: int | None) -> int | None:
    return None if messages is None else 2 * messages + _SPARE_ROWS


def _newest(rows: Sequence[Message], most: int | None, *, is_all: bool) -> list[ModelMessage] | None:
    """The messages to give; None if more rows are needed to know."""
    if foreign := {row.seq for row in rows if is_foreign_result(row)}:
        # Those of `repair` stand at the end; pydantic-ai, too, wants them right behind their calls, and none without one.
        lone = {seq for seq, _ in pairs.Pairing(rows).lone_results}
        rows = pairs.arranged(rows, dropped=frozenset(foreign & lone))
    found = from_rows(rows)
    if most is None or most >= len(found):
        return found if is_all else None
    if most == 0:
        return []
    begin = len(found) - most
    while begin > 0 and not _begins_turn(found[begin]):
        begin -= 1
    # The first one may be the rest of one that was not read whole.
    return found[begin:] if begin > 0 or is_all else None


def _begins_turn(message: ModelMessage) -> bool:
    if isinstance(message, ModelResponse) or any(isinstance(part, ToolReturnPart | RetryPromptPart) for part in message.parts):
        return False
    return any(isinstance(part, UserPromptPart) for part in message.parts)


def _rows_of(messages: RunMessages | Sequence[ModelMessage]) -> list[NewMessage]:
    if isinstance(messages, RunMessages):
        if not getattr(messages, "is_complete", True):
            raise InvalidInputError("messages", "must be those of a run that is over: read its stream to the end, or cancel it")
        output = getattr(messages, "output", None)
        notes = {_WAITING: _DEFERRED.dump_python(output, mode="json")} if isinstance(output, DeferredToolRequests) else None
        return to_rows(messages.new_messages(), notes)
    given = several("messages", messages)
    if not all(isinstance(message, ModelRequest | ModelResponse) for message in given):
        raise InvalidInputError("messages", "must be the result of a run, or a list of ModelRequest and ModelResponse")
    return to_rows(given)


def _conversation(conversation_id: str, rows: Sequence[Message]) -> Conversation:
    messages = _newest(rows, None, is_all=True) or []
    usage = RunUsage()
    for message in messages:
        if isinstance(message, ModelResponse):
            usage.incr(message.usage)
            usage.requests += 1
        else:
            usage.tool_calls += sum(isinstance(part, ToolReturnPart) and part.outcome == "success" for part in message.parts)
    noted = (rows[-1].metadata or {}).get(_WAITING) if rows else None
    waiting = None if noted is None else _DEFERRED.validate_python(noted)
    return Conversation(messages=messages, usage=usage, conversation_id=conversation_id, deferred_tool_requests=waiting)
