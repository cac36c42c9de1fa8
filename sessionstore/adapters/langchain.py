"""SessionChatMessageHistory: a session of the store as LangChain's chat message history.

    from langchain_core.runnables.history import RunnableWithMessageHistory
    from sessionstore.adapters.langchain import SessionChatMessageHistory

    chat = RunnableWithMessageHistory(model, lambda session_id: SessionChatMessageHistory(session_id, store))

LangChain deprecated this interface in langchain-core 1.6.4 and wants to remove it in 2.0: it is here for programs that use it.
New ones rather keep their state with the checkpointer of LangGraph.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from .. import inputs, pairs
from ..arguments import UNSET, MessageDetails, NewMessage, Unset
from ..content import ROLES
from ..errors import InvalidInputError, MissingExtraError, NotFoundError, SessionExpiredError
from ..inputs import encode_json
from ..values import Message
from .given import GivenStore, HoldsStore, StoreLike
from .plain import given_attributes, plain, word

try:
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, messages_from_dict, messages_to_dict
except ModuleNotFoundError as error:
    raise MissingExtraError("the chat message history for LangChain", "langchain") from error

__all__ = ["SessionChatMessageHistory"]

_OWN: Final = "langchain"
# The kind of messages whose role no chat API has.
_OTHER_KIND: Final = "langchain"
_CHAT_KEYS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")
_ROLE_OF: Final = {
    "human": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "function",
    "FunctionMessageChunk": "function",
}


class SessionChatMessageHistory(HoldsStore, BaseChatMessageHistory):
    """The messages of one session, as LangChain's. The session is made with its first message."""

    def __init__(
        self,
        session_id: str,
        store: StoreLike = None,
        *,
        last: int | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        ttl: float | timedelta | None | Unset = UNSET,
    ) -> None:
        """Name a session.

        Args:
            session_id: Its id in the namespace of the store.
            store: A store, which stays open, or a path, which `close` closes. None: the default store, as `sessionstore.open()`.
            last: Give only the newest so many messages, and never the result of a tool call without the call.
            agent_id: Which agent the session is told to belong to when it is made.
            user_id: Whose it is, likewise.
            ttl: How long it lives without a new message, in seconds or as a timedelta; None for ever. The store's by default.
        """
        super().__init__()
        self.session_id = inputs.identifier("session_id", session_id)
        self._last = inputs.optional_whole_number("last", last)
        self._attributes = given_attributes(agent_id=agent_id, user_id=user_id, ttl=ttl)
        self._given = GivenStore(store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self._given.sync!r})"

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The messages, oldest first; none if there is no such session."""
        try:
            return _given_back(self._given.sync.messages(self.session_id, last=self._last, keep_pairs=self._last is not None))
        except NotFoundError:
            return []

    async def aget_messages(self) -> list[BaseMessage]:
        """As `messages`, awaited."""
        try:
            found = await self._given.awaited.messages(self.session_id, last=self._last, keep_pairs=self._last is not None)
        except NotFoundError:
            return []
        return _given_back(found)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append messages in one transaction: all or none.

        Raises:
            InvalidInputError: One of them holds what JSON does not have.
        """
        if new := _new_messages(messages):
            self._given.sync._append_or_begin(self.session_id, new, self._attributes)  # noqa: SLF001 - a part of the library

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """As `add_messages`, awaited."""
        if new := _new_messages(messages):
            await self._given.awaited._append_or_begin(self.session_id, new, self._attributes)  # noqa: SLF001 - a part of the library

    def clear(self) -> None:
        """Remove all messages; the session stays, with its state, tags and the like. `store.delete(session_id)` removes it, too."""
        try:
            self._given.sync.clear(self.session_id)
        except (NotFoundError, SessionExpiredError):
            return

    async def aclear(self) -> None:
        """As `clear`, awaited."""
        try:
            await self._given.awaited.clear(self.session_id)
        except (NotFoundError, SessionExpiredError):
            return


def _new_messages(messages: Sequence[BaseMessage]) -> list[NewMessage]:
    given = list(messages)
    if not all(isinstance(message, BaseMessage) for message in given):
        raise InvalidInputError("messages", "must be messages of langchain_core")
    return [_new_message(message, plain(own)) for message, own in zip(given, messages_to_dict(given), strict=True)]


def _new_message(message: BaseMessage, own: dict[str, Any]) -> NewMessage:
    """The chat message of a message; what only LangChain knows stands beside, without the content."""
    data = own["data"]
    role = _ROLE_OF.get(own["type"], data.get("role"))
    row: dict[str, Any] = {"role": role} if role in ROLES else {}
    row["content"] = data.pop("content")
    if data.get("name"):
        row["name"] = data["name"]
    if isinstance(message, AIMessage) and message.tool_calls:
        row["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": encode_json(call["args"])}}
            for call in data["tool_calls"]
        ]
    if data.get("tool_call_id"):
        row["tool_call_id"] = data["tool_call_id"]
    details = _details(message) if isinstance(message, AIMessage) else MessageDetails()
    if "role" not in row:
        details["kind"] = _OTHER_KIND
    return NewMessage({**row, _OWN: own}, **details)


def _details(message: AIMessage) -> MessageDetails:
    told = message.response_metadata
    details: MessageDetails = {
        "model": word(told.get("model_name") or told.get("model")),
        "finish_reason": word(told.get("finish_reason") or told.get("stop_reason")),
    }
    usage = message.usage_metadata
    if usage is not None:
        details |= {"input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
        details["cache_read_tokens"] = usage.get("input_token_details", {}).get("cache_read")
        details["reasoning_tokens"] = usage.get("output_token_details", {}).get("reasoning")
    return details


def _given_back(messages: Sequence[Message]) -> list[BaseMessage]:
    rows = [(message, message.to_dict()) for message in messages]
    if any(message.tool_call_id is not None and _OWN not in row for message, row in rows):
        # Those of `repair` stand at the end; models want them right behind their calls.
        rows = [(message, message.to_dict()) for message in pairs.arranged(messages)]
    return [made for message, row in rows for made in _made(message, row)]


def _made(message: Message, row: dict[str, Any]) -> list[BaseMessage]:
    """The message of a row. Chat messages that others wrote become messages of LangChain; what is none is left out."""
    own = row.get(_OWN)
    if isinstance(own, dict):
        return messages_from_dict([{**own, "data": {**own["data"], "content": row["content"]}}])
    if message.role is None:
        return []
    try:
        return convert_to_messages([{key: row[key] for key in _CHAT_KEYS if key in row}])
    except ValueError:
        # The arguments of a call are no JSON: LangChain itself then makes it an invalid call.
        return [AIMessage(message.text or "", additional_kwargs={"tool_calls": row["tool_calls"]})]
