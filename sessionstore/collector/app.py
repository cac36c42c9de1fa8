"""The collector's app: its routes behind one gate, its errors in one shape."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..aio import AsyncSessionStore
from ..errors import SessionStoreError
from ..inputs import encode_json
from ..logs import log
from ..queries.collecting import reads
from ..remote.capabilities import API, BATCH_PATH, CAPABILITIES_PATH, MAX_BYTES, MAX_EVENTS, MORE_KINDS, VERSION
from . import access, answering, describing, problems, reading, writing
from .access import ApiKeys
from .problems import Problem

HEALTH_PATH: Final = "/healthz"
# The check writes, and everybody may ask for it.
_HEALTH_SECONDS: Final = 1.0
_TROUBLE_SECONDS: Final = 10.0
_HEALTHY: Final = {"status": "ok"}
_CAPABILITIES_SCHEMA: Final = {
    "type": "object",
    "required": ["api", "version", "batch", "kinds"],
    "properties": {
        "api": {"enum": [API]},
        "version": {"enum": [VERSION]},
        "batch": {
            "type": "object",
            "required": ["path", "max_events", "max_bytes", "encodings"],
            "properties": {
                "path": {"type": "string"},
                "max_events": {"type": "integer"},
                "max_bytes": {"type": "integer"},
                "encodings": {"type": "array", "items": {"type": "string"}},
            },
        },
        "kinds": {"type": "array", "items": {"type": "string"}},
    },
}


def make_app(store: AsyncSessionStore, keys: ApiKeys, *, names: frozenset[str] | None) -> FastAPI:
    """The app over a store. It neither opens nor closes it."""
    app = FastAPI(
        title="sessionstore collector",
        version=describing.API_VERSION,
        description="Receives what sessionstore and the tracker SDK send, and answers questions about it.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    health = Health(store)
    writing.add_routes(app, writing.Intake(store))
    answering.add_routes(app, answering.Desk(store))
    app.add_api_route(
        CAPABILITIES_PATH,
        _capabilities,
        methods=["GET"],
        response_model=None,
        operation_id="capabilities",
        responses=describing.responses(_CAPABILITIES_SCHEMA),
    )
    app.add_api_route(
        HEALTH_PATH,
        health.answer,
        methods=["GET"],
        response_model=None,
        operation_id="health",
        responses=describing.responses({"type": "object", "properties": {"status": {"enum": ["ok"]}}}),
    )
    _answer_errors(app, health)
    app.add_middleware(Gate, keys=keys, names=names)
    describing.describe(app, with_keys=bool(keys))
    return app


class Gate:
    """Lets requests in that may be answered, and notes whose they are."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, names: frozenset[str] | None) -> None:
        self._app = app
        self._keys = keys
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            tenant = self._tenant(scope["path"], Headers(scope=scope))
        except Problem as problem:
            await response(problem)(scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)

    def _tenant(self, path: str, headers: Headers) -> str:
        if self._names is not None:
            access.require_own_name(headers.get("host"), self._names)
        access.refuse_browsers(headers.get("origin"))
        return access.DEFAULT_TENANT if path == HEALTH_PATH else self._keys.tenant(headers.get("authorization"))


class Health:
    """Whether events can be stored: a write that changes nothing, at most one a second."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store
        self._asked_at = self._failed_at = float("-inf")
        self._found: Problem | None = None

    def note(self, problem: Problem) -> None:
        """Take down that an event could not be stored."""
        if problems.is_storage(problem):
            self._found, self._failed_at = problem, time.monotonic()

    async def answer(self) -> Response:
        """200 if events can be stored, else 503."""
        now = time.monotonic()
        if now >= self._failed_at + _TROUBLE_SECONDS and now >= self._asked_at + _HEALTH_SECONDS:
            self._asked_at = now
            self._found = await self._look()
        if self._found is not None:
            raise self._found
        return writing.answer(encode_json(_HEALTHY))

    async def _look(self) -> Problem | None:
        try:
            await self._store._write(reads.is_writable)  # noqa: SLF001 - the collector's own queries
        except SessionStoreError as error:
            return problems.of_error(error)
        return None


async def _capabilities() -> Response:
    batch = {"path": BATCH_PATH, "max_events": MAX_EVENTS, "max_bytes": MAX_BYTES, "encodings": list(reading.ENCODINGS)}
    return writing.answer(encode_json({"api": API, "version": VERSION, "batch": batch, "kinds": list(MORE_KINDS)}))


def _answer_errors(app: FastAPI, health: Health) -> None:
    async def problem(_: Request, error: Exception) -> Response:
        return response(cast(Problem, error))

    async def refused(request: Request, error: Exception) -> Response:
        status = cast(HTTPException, error).status_code
        # The routes of a path are several; the one that refused knows its own method only.
        headers = {"Allow": ", ".join(_methods(app, request.scope["path"]))} if status == 405 else {}
        return response(problems.of_status(status, headers))

    async def wrong_query(_: Request, error: Exception) -> Response:
        place = cast(RequestValidationError, error).errors()[0]["loc"]
        return response(Problem(422, "invalid_input", "is not as it should be", field=str(place[-1])))

    async def failed(_: Request, error: Exception) -> Response:
        found = problems.of_error(cast(SessionStoreError, error))
        health.note(found)
        if found.status >= 500:
            log(logging.ERROR, "collector_failed", "a request could not be served", error=error, status_code=found.status)
        return response(found)

    async def unexpected(_: Request, error: Exception) -> Response:
        log(logging.ERROR, "collector_failed", "a request could not be served", error=error, status_code=500)
        return response(Problem(500, "internal_error", "the collector failed; its log says more"))

    handlers: dict[Any, Any] = {
        Problem: problem,
        HTTPException: refused,
        RequestValidationError: wrong_query,
        SessionStoreError: failed,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods of a path, as the routes have it that name it, else of those that it matches."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    found = [route for route in routes if route.path == path] or [route for route in routes if route.path_regex.match(path)]
    return sorted({method for route in found for method in route.methods or ()})


def response(problem: Problem) -> Response:
    """The answer that tells a problem."""
    return Response(
        encode_json(problem.body()).encode(), status_code=problem.status, media_type="application/json", headers=problem.headers
    )
