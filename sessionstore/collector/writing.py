"""The routes that take events: one at a time, or a batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from .. import inputs
from ..aio import AsyncSessionStore
from ..errors import InvalidInputError, SessionStoreError
from ..inputs import encode_json
from ..queries import collecting
from ..queries.collecting import REUSED, Outcome
from ..queries.collecting.arrivals import Arrival
from ..remote.capabilities import BATCH_PATH
from ..remote.events import PATHS
from . import describing
from .arriving import Post, Refused, batch, single
from .problems import Problem
from .reading import body_of

SOURCE_HEADER: Final = "Sessionstore-Source"
NAMESPACE_HEADER: Final = "Sessionstore-Namespace"
KEY_HEADER: Final = "Idempotency-Key"
_STORED: Final = encode_json({"status": "stored"})


class Intake:
    """The way of events into a store."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store
        self._running: set[tuple[str, str]] = set()

    async def post(self, kind: str, request: Request) -> Response:
        """A single event."""
        tenant = tenant_of(request)
        source, namespace = header_of(request, SOURCE_HEADER) or "", header_of(request, NAMESPACE_HEADER) or ""
        key = request.headers.get(KEY_HEADER)
        if key is not None:
            inputs.identifier(KEY_HEADER, key)
        arrival = single(Post(tenant, source, namespace, key, kind, await body_of(request)))
        if (tenant, arrival.key) in self._running:
            raise Problem(409, "in_progress", "an event of this key is being stored", Retry_After="1")
        (outcome,) = await self._receive(tenant, [arrival])
        if outcome.status == "rejected":
            code = "key_reused" if outcome == REUSED else "rejected"
            raise Problem(422, code, outcome.error or "rejected", field=outcome.field)
        return answer(_STORED)

    async def post_batch(self, request: Request) -> Response:
        """Many events; each has a result."""
        tenant = tenant_of(request)
        items = batch(tenant, await body_of(request))
        arrivals = [item.arrival for item in items if isinstance(item.arrival, Arrival)]
        outcomes = iter(await self._receive(tenant, arrivals) if arrivals else ())
        results = [
            _result(item.key, _refused(item.arrival) if isinstance(item.arrival, Refused) else next(outcomes)) for item in items
        ]
        return answer(encode_json({"results": results}))

    async def _receive(self, tenant: str, arrivals: Sequence[Arrival]) -> list[Outcome]:
        keys = {(tenant, arrival.key) for arrival in arrivals} - self._running
        self._running |= keys
        try:
            return await self._write(tenant, arrivals)
        finally:
            self._running -= keys

    async def _write(self, tenant: str, arrivals: Sequence[Arrival]) -> list[Outcome]:
        stale_after = self._store.settings.stale_after
        write = self._store._write  # noqa: SLF001 - the collector's own queries
        try:
            return await write(lambda db: collecting.receive(db, tenant, arrivals, stale_after=stale_after))
        except SessionStoreError as error:
            if not collecting.is_refused_by_file(error):
                raise
        return await write(lambda db: collecting.receive(db, tenant, arrivals, stale_after=stale_after, apart=True))


def add_routes(app: FastAPI, intake: Intake) -> None:
    """Give the app the routes of all kinds of events."""
    for kind, path in PATHS.items():
        app.add_api_route(
            path,
            _posting(intake, kind),
            methods=["POST"],
            response_model=None,
            operation_id=kind,
            summary=f"Store an event of the kind {kind}.",
            responses=describing.responses(describing.STORED_SCHEMA, 409),
            openapi_extra=describing.event_route(kind),
        )
    app.add_api_route(
        BATCH_PATH,
        intake.post_batch,
        methods=["POST"],
        response_model=None,
        operation_id="batch",
        summary="Store many events of one source.",
        responses=describing.responses(describing.RESULTS_SCHEMA),
        openapi_extra=describing.batch_route(),
    )


def tenant_of(request: Request) -> str:
    """Whose request it is, as its key said."""
    tenant: str = request.scope["state"]["tenant"]
    return tenant


def header_of(request: Request, name: str) -> str | None:
    """A header that is percent-encoded UTF-8.

    Raises:
        InvalidInputError: It is not.
    """
    value = request.headers.get(name)
    try:
        return None if value is None else unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInputError(name, "must be percent-encoded UTF-8") from None


def answer(text: str) -> Response:
    """An answer of JSON text."""
    return Response(text.encode(), media_type="application/json")


def _refused(why: Refused) -> Outcome:
    return Outcome("rejected", why.reason, why.field)


def _posting(intake: Intake, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def post(request: Request) -> Response:
        return await intake.post(kind, request)

    return post


def _result(key: str | None, outcome: Outcome) -> dict[str, Any]:
    status, error, field = outcome
    if status != "rejected":
        return {"key": key, "status": status}
    return {"key": key, "status": status, "error": error if field is None else f"{field}: {error}"}
