"""AgentsSession: a session of the store as the `Session` of the OpenAI Agents SDK.

    from agents import Agent, Runner
    from sessionstore.adapters.openai_agents import AgentsSession

    session = AgentsSession("user-alice", "agent.db")
    result = await Runner.run(Agent(name="Assistant"), "What's the capital of France?", session=session)

Each item is one message of the session, stored as the SDK gave it. What a run adds at once is one transaction. With
`hooks=UsageHooks(session)` the tokens, the model and the response time stand beside the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import inputs, queries
from ..arguments import UNSET, MessageDetails, NewMessage, Unset
from ..content import says_its_kind
from ..errors import InvalidInputError, MissingExtraError, NotFoundError, SessionExpiredError
from ..values import MAX_SEQ, Message
from .given import GivenStore, HoldsStore, StoreLike
from .openai_agents_usage import Answers, UsageHooks
from .plain import given_attributes, plain

try:
    from agents.memory import SessionSettings
    from agents.memory import session as _contract
    from agents.memory.session_settings import coerce_session_settings, resolve_session_limit
except ModuleNotFoundError as error:
    raise MissingExtraError("the session for the OpenAI Agents SDK", "openai-agents") from error

if TYPE_CHECKING:
    from agents import RunContextWrapper
    from agents.items import TResponseInputItem

    from ..database.transaction import Transaction, Work
    from ..rows import PreparedMessage

__all__ = ["AgentsSession", "UsageHooks"]

T = TypeVar("T")

# The kind of items that say neither a role that is known here nor a type.
ITEM_KIND: Final = "agents.item"


class AgentsSession(HoldsStore):
    """A history for `Runner.run(..., session=...)`, kept in a store. It is made with its first item.

    The session of the store has the same id, so search, figures, lives, forks and syncing work on it as on any other. Calls that
    change something go on to their end when they are cancelled, and the cancellation follows.
    """

    session_id: str
    session_settings: SessionSettings | None = None

    def __init__(
        self,
        session_id: str,
        store: StoreLike = None,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        ttl: float | timedelta | None | Unset = UNSET,
    ) -> None:
        """Name a session.

        Args:
            session_id: Its id in the namespace of the store.
            store: A store, which stays open, or a path, which `close` closes. None: the default store, as `sessionstore.open()`.
                A path is opened at once: in an event loop, rather give what `sessionstore.aopen()` gives.
            session_settings: The SDK's, for example `SessionSettings(limit=50)`.
            agent_id: Which agent the session is told to belong to when it is made.
            user_id: Whose it is, likewise.
            ttl: How long it lives without a new item, in seconds or as a timedelta; None for ever. The store's by default.
        """
        self.session_id = inputs.identifier("session_id", session_id)
        self.session_settings = SessionSettings() if session_settings is None else coerce_session_settings(session_settings)
        attributes = given_attributes(agent_id=agent_id, user_id=user_id, ttl=ttl)
        self._answers = Answers()
        self._given = GivenStore(store)
        self._new_session = self._given.sync._new_session(self.session_id, attributes)  # noqa: SLF001 - made with the first item

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self._given.sync!r})"

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """The newest items, oldest first.

        Args:
            limit: How many; all of them without one, or if it is negative. Before the limit of the settings.
            wrapper: The context of the run, which changes nothing.
        """
        most = resolve_session_limit(limit, self.session_settings)
        return [_item(message) for message in await self._newest(None if most is None or most < 0 else most)]

    async def add_items(self, items: list[TResponseInputItem], *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Append items in one transaction, in their order: all or none.

        Raises:
            InvalidInputError: One of them holds what JSON does not have; tuples become lists.
            ClosedStoreError: The store is closed, also if there are no items.
        """
        self._given.sync._require_writable()  # noqa: SLF001 - no items must not hide that the store is closed
        if not items:
            return
        dicts = [_plain(item) for item in items]
        answers = self._answers.among(dicts)
        new = [_new_message(item, answers[index].details if index in answers else None) for index, item in enumerate(dicts)]
        await self._change(self._given.sync._appending(self._new_session, new))  # noqa: SLF001 - a part of the library
        if answers:
            self._answers.forget(tuple(answers.values()))

    async def pop_item(self, *, wrapper: RunContextWrapper[Any] | None = None) -> TResponseInputItem | None:
        """Remove the newest item and return it; None if there is none. No two calls get the same one."""
        try:
            message = await self._change(lambda db: queries.edits.pop(db, self.store.namespace, self.session_id))
        except (NotFoundError, SessionExpiredError):
            return None
        return None if message is None else _item(message)

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Delete the session with all that it has, as the SDK wants it; the next items begin it anew. Forks of it keep theirs."""
        namespace, ids = self.store.namespace, (self.session_id,)
        await self._change(lambda db: queries.changes.delete(db, namespace, ids, dry_run=False))

    async def _change(self, work: Work[T]) -> T:
        """Do it in a transaction, to its end however often the caller is cancelled meanwhile; the cancellation follows."""
        awaited = self._given.awaited
        return await awaited._run(awaited._recorder._write(work), to_its_end=True)  # noqa: SLF001 - calls made of the store's parts

    async def _newest(self, most: int | None) -> list[Message]:
        try:
            return await self._given.awaited.messages(self.session_id, last=most)
        except NotFoundError:
            return []

    # -- what OpenAIResponsesCompactionSession looks for in the session beneath it; private in the SDK, so not relied on

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Any:
        """The newest items, and how to put others in the place of the last of them; None if that cannot be offered."""
        make = getattr(_contract, "_CompactionSnapshot", None)
        # A subclass may change items on their way, which this would pass by.
        if make is None or type(self) is not AgentsSession:
            return None
        found = await self._newest(limit + 1)
        seen = found[-limit:]

        async def replace_suffix(start: int, items: list[TResponseInputItem]) -> bool:
            return await self._replace(seen[start:], items, prune_prefix)

        return make([_item(message) for message in seen], len(found) <= limit, replace_suffix)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Put items in the place of all, in one transaction; False if the SDK is to clear and add."""
        return type(self) is AgentsSession and await self._replace(None, items)

    async def _replace(
        self,
        expected: Sequence[Message] | None,
        items: Sequence[TResponseInputItem],
        prune_prefix: Callable[[TResponseInputItem], bool] | None = None,
    ) -> bool:
        """Replace the newest messages if they are still what is expected, or all of them; the old ones stay as superseded."""
        store, session_id = self._given.sync, self.session_id
        new = store._all_prepared([_new_message(_plain(item)) for item in items])  # noqa: SLF001 - a call of the store made of two
        namespace = store.namespace

        def replace(db: Transaction) -> bool:
            if expected is None:
                _put(db, namespace, session_id, 1, new)
                return True
            if not expected or queries.messages.read(db, namespace, session_id, last=len(expected)) != list(expected):
                return False
            first = expected[0].seq
            if prune_prefix is not None:
                _supersede_prefix(db, namespace, session_id, first, prune_prefix)
            _put(db, namespace, session_id, first, new)
            return True

        try:
            return await self._change(replace)
        except (NotFoundError, SessionExpiredError):
            return False


def _put(db: Transaction, namespace: str, session_id: str, first: int, new: Sequence[PreparedMessage]) -> None:
    """Put messages in the place of all from a seq on. Those that are more than there were go behind."""
    there = len(queries.messages.read(db, namespace, session_id, after=first - 1, blobs=False))
    queries.replacing.replace_range(db, namespace, session_id, first, MAX_SEQ, new[:there])
    if len(new) > there:
        queries.messages.append(db, namespace, session_id, new[there:])


def _supersede_prefix(
    db: Transaction, namespace: str, session_id: str, before: int, is_over: Callable[[TResponseInputItem], bool]
) -> None:
    """Take the oldest messages out of the history, up to the first one that is to stay."""
    last = 0
    for message in queries.messages.read(db, namespace, session_id, before=before):
        if not is_over(_item(message)):
            break
        last = message.seq
    if last:
        queries.replacing.replace_range(db, namespace, session_id, 1, last, ())


def _item(message: Message) -> TResponseInputItem:
    item: Any = message.to_dict()
    return item  # type: ignore[no-any-return]


def _plain(item: Any) -> dict[str, Any]:
    """An item as JSON has it, if it is a pydantic model, or holds one, or tuples."""
    found = plain(item)
    if not isinstance(found, dict):
        raise InvalidInputError("items", "must be dicts")
    return found


def _new_message(item: dict[str, Any], details: MessageDetails | None = None) -> dict[str, Any] | NewMessage:
    """An item to append. One that says neither a known role nor a type gets a kind."""
    known: MessageDetails = {**(details or {})}
    if not says_its_kind(item):
        known["kind"] = ITEM_KIND
    return NewMessage(item, **known) if known else item
