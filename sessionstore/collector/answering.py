"""The routes that answer: conversations, agents and figures of a tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, FastAPI, Query
from starlette.requests import Request
from starlette.responses import Response

from .. import inputs, queries
from ..aio import AsyncSessionStore
from ..database.transaction import Work
from ..errors import InvalidInputError
from ..inputs import encode_json
from ..periods import Scope, scope
from ..queries.collecting import reads
from ..queries.collecting.arrivals import Place, place_of, source_and_namespace
from ..remote.events import PATHS
from ..trackers.operations import activity_answer, agent_answer
from ..values import SessionInfo
from ..values.agents import Activity, AgentInfo, OperationsOverview
from ..values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates
from ..values.conversations import conversation
from . import describing
from .problems import Problem, of_status
from .schemas import CollectedActivity, CollectedAgent, CollectedConversation
from .writing import NAMESPACE_HEADER, SOURCE_HEADER, answer, header_of, tenant_of

T = TypeVar("T")

_DEFAULT_LIMIT: Final = 50
_MOST_CONVERSATIONS: Final = 1_000
_DATE_CHARS: Final = len("2026-01-01")
_BEGINNING: Final = "/conversations/"
# Where conversations are posted, none can be asked for.
_TAKEN: Final = frozenset(path.removeprefix(_BEGINNING) for path in PATHS.values() if path.startswith(_BEGINNING))

Source = Annotated[str | None, Query(description="Only what came from this source; empty for clients that name none.")]
Namespace = Annotated[str | None, Query(description="Only this namespace of the source.")]
AgentId = Annotated[str | None, Query(description="Only this agent.")]
When = Annotated[str | None, Query(description="A date, which means its UTC midnight, or an ISO 8601 time.")]
Limit = Annotated[int, Query(ge=1, le=inputs.MAX_PAGE)]
Cursor = Annotated[str | None, Query(description="The `next` of the page before.")]


def instant(field: str, text: str | None) -> date | None:
    """A date or a time of a question; one without an offset is of the collector's own time zone."""
    if text is None:
        return None
    try:
        if len(text) == _DATE_CHARS:
            return date.fromisoformat(text)
        told = datetime.fromisoformat(text)
        return told if told.tzinfo is not None else told.astimezone()
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(field, "must be a date or an ISO 8601 time") from None


async def _scope(
    request: Request,
    agent_id: AgentId = None,
    start_date: When = None,
    end_date: When = None,
    source: Source = None,
    namespace: Namespace = None,
) -> Scope:
    """What a question about figures is to look at."""
    place = place_of(tenant_of(request), source, namespace)
    start, end = instant("start_date", start_date), instant("end_date", end_date)
    wanted = scope(place.namespace, agent_id=agent_id, start_date=start, end_date=end)
    return replace(wanted, namespace_end=place.end)


async def _asked_place(request: Request, source: Source = None, namespace: Namespace = None) -> Place:
    """What a question about conversations or agents is to look at."""
    return place_of(tenant_of(request), source, namespace)


Wanted = Annotated[Scope, Depends(_scope)]
Asked = Annotated[Place, Depends(_asked_place)]


class Desk:
    """Answers from a store."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store

    async def conversation(self, request: Request, session_id: str) -> Response:
        """A conversation: that of the headers' source and namespace, else the newest one of its name."""
        if session_id in _TAKEN:
            raise of_status(405, {"Allow": "POST"})
        wanted, place = inputs.identifier("session_id", session_id), _headers_place(request)
        found = await self._read(lambda db: reads.conversation(db, place, wanted))
        if found is None:
            raise Problem(404, "not_found", "there is no such conversation")
        return _json(_conversation(found))

    async def active_conversations(self, place: Asked, agent_id: AgentId = None, limit: Limit = _MOST_CONVERSATIONS) -> Response:
        """The conversations that are open, the newest first."""
        agent = inputs.optional_identifier("agent_id", agent_id)
        found = await self._read(lambda db: reads.active(db, place, agent_id=agent, limit=limit))
        return _json([_conversation(info) for info in found])

    async def active_agents(self, place: Asked) -> Response:
        """The agents that are not offline, by their ids."""
        return _json([_agent(info) for info in await self._read(lambda db: reads.alive(db, place))])

    async def agent_status(self, request: Request, agent_id: str) -> Response:
        """How an agent is: that of the headers' source and namespace, else the one of its name that was heard of last."""
        wanted, place = inputs.identifier("agent_id", agent_id), _headers_place(request)
        found = await self._read(lambda db: reads.agent(db, place, wanted))
        if found is None:
            raise Problem(404, "not_found", "there is no such agent")
        return _json(_agent(found))

    async def activity(self, place: Asked, limit: Limit = _DEFAULT_LIMIT) -> Response:
        """What agents did, the newest first."""
        found = await self._read(lambda db: reads.activity(db, place, agent_id=None, limit=limit))
        return _json([_activity(each) for each in found])

    async def agent_activity(self, request: Request, agent_id: str, limit: Limit = _DEFAULT_LIMIT) -> Response:
        """What an agent did, the newest first."""
        wanted, place = inputs.identifier("agent_id", agent_id), _headers_place(request)
        found = await self._read(lambda db: reads.activity(db, place, agent_id=wanted, limit=limit))
        return _json([_activity(each) for each in found])

    async def operations(self, place: Asked) -> Response:
        """Agents by status, what they did in the last 24 hours, and how many conversations are open."""
        return _json(await self._read(lambda db: reads.operations(db, place)))

    async def success_rates(self, wanted: Wanted) -> Response:
        """How sessions went, by agent and overall."""
        return _json(await self._read(lambda db: queries.analytics.success_rates(db, wanted)))

    async def response_times(self, wanted: Wanted) -> Response:
        """How long answers took, and sessions."""
        return _json(await self._read(lambda db: queries.analytics.response_times(db, wanted)))

    async def quality(self, wanted: Wanted) -> Response:
        """How sessions were scored."""
        return _json(await self._read(lambda db: queries.analytics.quality(db, wanted)))

    async def failures(self, wanted: Wanted, limit: Limit = _DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
        """Which sessions failed, and why."""
        return _json(await self._read(lambda db: queries.analytics.failures(db, wanted, limit=limit, cursor=cursor)))

    async def overview(self, wanted: Wanted) -> Response:
        """All figures, as of one moment."""
        return _json(await self._read(lambda db: queries.analytics.overview(db, wanted, limit=_DEFAULT_LIMIT)))

    async def _read(self, work: Work[T]) -> T:
        # A read never returns nothing where something is promised: the type is for reads that may find none.
        return await self._store._read(work)  # type: ignore[return-value]  # noqa: SLF001 - the collector's own queries


def add_routes(app: FastAPI, desk: Desk) -> None:
    """Give the app the routes of all questions. An id may hold slashes."""
    routes: tuple[tuple[str, Callable[..., Any], Any, bool], ...] = (
        ("/conversations/active", desk.active_conversations, list[CollectedConversation], False),
        ("/conversations/{session_id:path}", desk.conversation, CollectedConversation, True),
        ("/agents/active", desk.active_agents, list[CollectedAgent], False),
        ("/agents/activity", desk.activity, list[CollectedActivity], False),
        ("/agents/{agent_id:path}/status", desk.agent_status, CollectedAgent, True),
        ("/agents/{agent_id:path}/activity", desk.agent_activity, list[CollectedActivity], True),
        ("/operations/overview", desk.operations, OperationsOverview, False),
        ("/metrics/success-rates", desk.success_rates, SuccessRates, False),
        ("/metrics/response-times", desk.response_times, ResponseTimes, False),
        ("/metrics/quality", desk.quality, QualityScores, False),
        ("/metrics/failures", desk.failures, Failures, False),
        ("/metrics/overview", desk.overview, Overview, False),
    )
    for path, endpoint, shape, by_headers in routes:
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            response_model=None,
            operation_id=f"get_{endpoint.__name__}",
            responses=describing.answers(shape, *((404,) if by_headers else ())),
            openapi_extra=describing.place_headers() if by_headers else None,
        )


def _headers_place(request: Request) -> Place:
    """The namespace that the headers name, or all of the tenant's."""
    source, namespace = header_of(request, SOURCE_HEADER), header_of(request, NAMESPACE_HEADER)
    if source is None and namespace is None:
        return place_of(tenant_of(request))
    return place_of(tenant_of(request), source or "", namespace or "")


def _conversation(info: SessionInfo) -> dict[str, Any]:
    return {**conversation(info), **_origin(info.namespace)}


def _agent(info: AgentInfo) -> dict[str, Any]:
    return {**agent_answer(info), **_origin(info.namespace)}


def _activity(done: Activity) -> dict[str, Any]:
    return {**activity_answer(done), **_origin(done.namespace)}


def _origin(stored: str) -> dict[str, str]:
    source, namespace = source_and_namespace(stored)
    return {"source": source, "namespace": namespace}


def _json(value: object) -> Response:
    return answer(encode_json(value))
