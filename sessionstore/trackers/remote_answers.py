"""What trackers ask the remote: the question of each call, and calls that are made at once or awaited, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from .. import inputs
from ..arguments import AnalyticsFilters
from ..delivery.asking import Question, aask, ask, place, segment
from ..errors import InvalidInputError, SyncError
from ..periods import scope
from ..remote.settings import Remote
from ..store.analytics import DEFAULT_FAILURES

T = TypeVar("T")

Source: TypeAlias = Literal["local", "remote"]
SOURCES: Final = ("local", "remote")


@dataclass(frozen=True, slots=True)
class Undone(Generic[T]):
    """A call that is yet to be made: at once, or awaited."""

    at_once: Callable[[], T]
    awaited: Callable[[], Coroutine[Any, Any, T]]


def asked(remote: Remote, question: Question) -> Undone[Any]:
    """A question to the remote."""
    return Undone(lambda: ask(remote, question), lambda: aask(remote, question))


def found_or_asked(
    look: Undone[T | None], further: Callable[[], Undone[T | None]], told: Callable[[SyncError], None]
) -> Undone[T | None]:
    """What a look into the file finds, or else the remote's answer; None if it gives none, which is told."""

    def at_once() -> T | None:
        found = look.at_once()
        if found is not None:
            return found
        try:
            return further().at_once()
        except SyncError as error:
            told(error)
            return None

    async def awaited() -> T | None:
        found = await look.awaited()
        if found is not None:
            return found
        try:
            return await further().awaited()
        except SyncError as error:
            told(error)
            return None

    return Undone(at_once, awaited)


def about_conversation(session_id: str, headers: Mapping[str, str] | None = None) -> Question:
    """What is known about a conversation: that of a store, or of whoever had it last."""
    return Question(f"/conversations/{segment(session_id)}", headers=headers or {}, is_of_one=True)


def about_agent(agent_id: str, source: str, namespace: str) -> Question:
    """How an agent of a store is."""
    wanted = inputs.identifier("agent_id", agent_id)
    return Question(f"/agents/{segment(wanted)}/status", headers=place(source, namespace), is_of_one=True)


def active_conversations(agent_id: str | None) -> Question:
    """The open conversations."""
    return Question("/conversations/active", _given(agent_id=inputs.optional_identifier("agent_id", agent_id)))


def recent_activity(agent_id: str | None, limit: int) -> Question:
    """What agents did last."""
    wanted = inputs.optional_identifier("agent_id", agent_id)
    most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
    return Question("/agents/activity" if wanted is None else f"/agents/{segment(wanted)}/activity", {"limit": most})


def figures(name: str, filters: AnalyticsFilters, **more: str | int | None) -> Question:
    """Figures of a period."""
    # It refuses what the local answer refuses.
    scope("", **filters)
    agent_id, start, end = (filters.get(name) for name in ("agent_id", "start_date", "end_date"))
    return Question(f"/metrics/{name}", _given(agent_id=agent_id, start_date=_text(start), end_date=_text(end), **more))


def failed_sessions(filters: AnalyticsFilters, limit: int, cursor: str | None) -> Question:
    """Failed conversations, one page of them."""
    most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidInputError("cursor", "must be the next of a page")
    # The tracker SDK's backends know no pages; they are asked for one only if that is said.
    return figures("failures", filters, limit=None if most == DEFAULT_FAILURES else most, cursor=cursor)


def _text(when: Any) -> str | None:
    return when.isoformat() if isinstance(when, date | datetime) else None


def _given(**parameters: Any) -> Mapping[str, str | int]:
    return {name: value for name, value in parameters.items() if value is not None}
