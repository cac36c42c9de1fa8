"""ChatAgent: asks a model, remembers the conversation, and keeps each finished turn as a whole."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from .. import inputs
from ..arguments import SessionAttributes, new_session, refuse_unknown
from ..errors import ConfigError, ConflictError
from ..logs import log
from ..waiting import in_thread
from .answers import Reply
from .conversations import Backend, BackendHome, Conversation, Figure, GivenStore, Home, StoreHome, now
from .limits import Window, approximate_tokens
from .models import Model, model_of
from .replies import AsyncReplyStream, ReplyStream
from .running import Awaited, Here, Plan, Run
from .tools import Toolbox
from .turn_queue import TurnQueue
from .turns import Question, Turn

T = TypeVar("T")

DEFAULT_TOOL_ROUNDS: Final = 10
_MOST_ROUNDS: Final = 1_000
_ALL: Final = Window()


class ChatAgent:
    """An agent that talks to a model and remembers what was said.

    With a `session_id` the conversation is a session of a store: what was said before is there, and each finished turn (question,
    answer, tool calls and their results) is stored in one durable transaction before `ask` returns, or a stream ends. A turn that
    fails or is cut off stores nothing; `failed_question` has its question. Without a store and a session it is in memory.

    An agent may be used by many threads and tasks; its turns take turns. The `_async` twins work on asyncio and trio.

    Args:
        model: A callable over a list of message dicts, plain or async, that returns a text, a message dict, a `ModelAnswer` or
            an iterator of texts; with a parameter `tools` it gets those, too. Or an `OpenAICompatible`.
        store: A store, sync or async, which stays open; or a path or URL, which the agent opens at its first turn, and closes.
            By default the usual file, if a session is named.
        session_id: The session to go on with, which is made with its first turn. A store without one begins a new session.
        memory_backend: Keep whole documents there instead of a store.
        auto_save: Keep each finished turn. With False turns are in memory until `save_session()`.
        system: What the model is told first, each time. It is not stored.
        max_history: Of the earlier messages the model sees so many of the newest; all by default.
        max_history_tokens: It sees so many tokens of them.
        count_tokens: Counts the tokens of a message dict; by default about one for four characters of its JSON.
        tools: Functions that the model may call. Their signatures and docstrings are what it knows of them.
        max_tool_rounds: How often in a turn the model may ask for tools.
        attributes: What the session is made with: `agent_id`, `user_id`, `title`, `tags`, `metadata`, `ttl` and more (see
            `SessionAttributes`).

    Raises:
        ConfigError: `model`, `store` or `memory_backend` is none.
        InvalidInputError: Another argument is refused.
    """

    def __init__(
        self,
        model: Model | Callable[..., Any],
        *,
        store: GivenStore = None,
        session_id: str | None = None,
        memory_backend: Backend | None = None,
        auto_save: bool = True,
        system: str | None = None,
        max_history: int | None = None,
        max_history_tokens: int | None = None,
        count_tokens: Callable[[dict[str, Any]], int] = approximate_tokens,
        tools: Iterable[Callable[..., Any]] = (),
        max_tool_rounds: int = DEFAULT_TOOL_ROUNDS,
        **attributes: Unpack[SessionAttributes],
    ) -> None:
        refuse_unknown(attributes, SessionAttributes)
        new_session("", "unnamed", **attributes)
        self._model = model_of(model)
        self._attributes = attributes
        self._toolbox = Toolbox(tools)
        self._rounds = inputs.whole_number("max_tool_rounds", max_tool_rounds, most=_MOST_ROUNDS)
        self._system = None if system is None else inputs.text("system", system, max_bytes=1 << 26)
        messages = inputs.optional_whole_number("max_history", max_history)
        self._window = Window(messages, inputs.optional_whole_number("max_history_tokens", max_history_tokens), count_tokens)
        self._auto_save = inputs.flag("auto_save", auto_save)
        self._queue = TurnQueue()
        self._figures: deque[Figure] = deque()
        self._failed: Question | None = None
        self._left: list[Home] = []
        if store is not None and memory_backend is not None:
            raise ConfigError("memory_backend: goes without a store; give one of them")
        home: Home | None = None if store is None else StoreHome(store, attributes)
        self._conversation = Conversation(home if memory_backend is None else BackendHome(memory_backend), None)
        if session_id is not None:
            self.with_session_id(session_id)

    # -- asking

    def ask(self, text: Question) -> Reply:
        """The model's answer to a question, when the turn is stored. It is a str, and knows tokens and times, too.

        Args:
            text: The question; or a list of content parts, with images for example.

        Raises:
            ModelError: The model could not be asked, or its answer cannot be used. What a callable raises is raised as it is.
            ConfigError: The model, the backend or a tool is async.
            ConflictError: A tool asks its own agent; or there is an unfinished stream of the agent in this thread.
            SessionStoreError: The conversation cannot be read or stored.
        """
        run = self._run(Here(), text, streamed=False)
        while now(run.step()) is not None:
            pass
        return _reply_of(run)

    def stream(self, text: Question) -> ReplyStream:
        """As `ask`, with the answer's text in pieces as they come. Nothing happens before the first piece is asked for."""
        return ReplyStream(self._run(Here(), text, streamed=True))

    async def ask_async(self, text: Question) -> Reply:
        """As `ask`. A plain callable or tool runs in a thread, and a cancellation waits for its end."""
        run = self._run(Awaited(), text, streamed=False)
        while await run.step() is not None:
            pass
        return _reply_of(run)

    def stream_async(self, text: Question) -> AsyncReplyStream:
        """As `stream`, for `async for`."""
        return AsyncReplyStream(self._run(Awaited(), text, streamed=True))

    @property
    def failed_question(self) -> Question | None:
        """The question of the last turn, if that failed or was cut off: nothing of it was stored, and it may be asked again."""
        return self._failed

    # -- the conversation

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as message dicts, oldest first: what is kept, and what is in memory only."""
        return now(self._conversation.read(_ALL))

    async def messages_async(self) -> list[dict[str, Any]]:
        """As `messages`."""
        conversation = self._conversation
        return await Awaited().at_home(conversation, lambda: conversation.read(_ALL))

    def save_session(self) -> int:
        """Keep the turns that are in memory only; returns how many messages they have. Needless unless `auto_save` is off.

        Raises:
            ConfigError: No session is named.
        """
        conversation = self._conversation
        return self._alone(conversation.save)

    async def save_session_async(self) -> int:
        """As `save_session`."""
        conversation = self._conversation
        return await self._alone_async(conversation, conversation.save)

    def load_session(self) -> bool:
        """Go back to what is kept: turns that are in memory only are forgotten. False if nothing is kept under this id.

        Needless for anything else: each turn begins with what is kept then.
        """
        conversation = self._conversation
        return self._alone(lambda: self._load(conversation))

    async def load_session_async(self) -> bool:
        """As `load_session`."""
        conversation = self._conversation
        return await self._alone_async(conversation, lambda: self._load(conversation))

    def delete_session(self) -> bool:
        """Forget the conversation, here and where it is kept; False if it was not kept. The next turn begins it anew."""
        conversation = self._conversation
        return self._alone(lambda: self._delete(conversation))

    async def delete_session_async(self) -> bool:
        """As `delete_session`."""
        conversation = self._conversation
        return await self._alone_async(conversation, lambda: self._delete(conversation))

    def list_sessions(self) -> list[str]:
        """The ids of all sessions where this one is kept, sorted; none if it is in memory only."""
        return now(self._list(self._conversation))

    async def list_sessions_async(self) -> list[str]:
        """As `list_sessions`."""
        conversation = self._conversation
        return await Awaited().at_home(conversation, lambda: self._list(conversation))

    def get_session_id(self) -> str | None:
        """The id of the session; None for a conversation that is in memory only."""
        return self._conversation.session_id

    # -- the same arguments, one after the other; each changes the agent and returns it

    def with_memory(self) -> Self:
        """Remember the conversation, as every agent does, in memory or in its session: this only says so, as go-deep-agent does."""
        return self

    def with_session_id(self, session_id: str) -> Self:
        """Go on with a session. Turns that were in memory only come along, and go behind what the session has with the next save.

        Raises:
            ConflictError: Another session has turns that are not saved.
        """
        wanted = inputs.identifier("session_id", session_id)
        home = self._conversation.home
        self._move(StoreHome(None, self._attributes) if home is None else home, wanted)
        return self

    def with_store(self, store: GivenStore) -> Self:
        """Keep sessions in a store. What it takes is what the argument `store` takes."""
        self._move(StoreHome(store, self._attributes), self._conversation.session_id)
        return self

    def with_memory_backend(self, memory_backend: Backend) -> Self:
        """Keep sessions as documents of a backend: each finished turn saves the whole conversation."""
        self._move(BackendHome(memory_backend), self._conversation.session_id)
        return self

    def with_auto_save(self, auto_save: bool) -> Self:
        """Whether each finished turn is kept, or waits for `save_session()`."""
        self._auto_save = inputs.flag("auto_save", auto_save)
        return self

    # -- the end

    def close(self) -> None:
        """Let go of the model's connections, and close the store if the agent opened it. Turns in memory only are gone."""
        self._model.close()
        conversation, home = self._conversation, self._conversation.home
        if home is not None and conversation.unsaved:
            lost = len(conversation.unsaved)
            session_id = conversation.session_id
            log(logging.WARNING, "turns_unsaved", "an agent was closed with turns unsaved", session_id=session_id, messages=lost)
        while self._figures and home is not None and not home.is_async:
            now(home.record(self._figures.popleft()))
        for each in (*self._left, home):
            if each is not None:
                each.close()

    async def close_async(self) -> None:
        """As `close`; use it after async calls, whose connections belong to the event loop."""
        await self._model.close_async()
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close_async()

    def __repr__(self) -> str:
        conversation: Conversation | None = getattr(self, "_conversation", None)
        return f"{type(self).__name__}({getattr(self, '_model', None)!r}, session_id={conversation and conversation.session_id!r})"

    # -- what the calls come to

    def _run(self, way: Here | Awaited, text: Question, *, streamed: bool) -> Run:
        conversation = self._conversation
        if isinstance(way, Here):
            if self._toolbox.first_async is not None:
                raise ConfigError(f"tools: {self._toolbox.first_async} is async; use ask_async and stream_async")
            if conversation.home is not None and conversation.home.is_async:
                raise ConfigError("memory_backend: is async; use ask_async and stream_async")
        plan = Plan(
            model=self._model,
            conversation=conversation,
            queue=self._queue,
            toolbox=self._toolbox,
            window=self._window,
            system=self._system,
            auto_save=self._auto_save,
            figures=self._figures,
            failed=self._note_failed,
        )
        return Run(way, plan, Turn(text, streamed=streamed, rounds=self._rounds))

    def _note_failed(self, turn: Turn | None) -> None:
        self._failed = None if turn is None else turn.question

    def _alone(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A call that changes the conversation, between two turns."""
        self._queue.enter(self.get_session_id() or "")
        try:
            return now(call())
        finally:
            self._queue.leave()

    async def _alone_async(self, conversation: Conversation, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await self._queue.enter_async(self.get_session_id() or "")
        try:
            return await Awaited().at_home(conversation, call, whole=True)
        finally:
            self._queue.leave()

    def _move(self, home: Home, session_id: str | None) -> None:
        old = self._conversation
        if (old.home, old.session_id) == (home, session_id):
            return
        if old.has_own_turns and old.session_id is not None:
            problem = "this session has turns that are not saved; save_session() keeps them, load_session() drops them"
            raise ConflictError(old.session_id, problem)
        if old.home is not None and old.home is not home:
            # A turn may still be using it.
            self._left.append(old.home)
        self._conversation = Conversation(home, session_id, old.unsaved)

    async def _load(self, conversation: Conversation) -> bool:
        conversation.forget()
        return await _is_kept(conversation)

    async def _delete(self, conversation: Conversation) -> bool:
        conversation.forget()
        if conversation.home is None or conversation.session_id is None:
            return False
        return await conversation.home.delete(conversation.session_id)

    async def _list(self, conversation: Conversation) -> list[str]:
        return [] if conversation.home is None else await conversation.home.list()


async def _is_kept(conversation: Conversation) -> bool:
    if conversation.home is None or conversation.session_id is None:
        return False
    return await conversation.home.read(conversation.session_id, Window(1)) is not None


def _reply_of(run: Run) -> Reply:
    if run.reply is None:
        raise RuntimeError("this turn is over without a reply")
    return run.reply
