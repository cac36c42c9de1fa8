"""What OpenAPI says of the routes: bodies, answers, headers and the one shape of errors."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ..remote.capabilities import VERSION
from . import arriving, bodies
from .problems import ERROR_SCHEMA
from .schemas import schema_of

_ERRORS: Final = {
    400: "The body is broken or was cut short.",
    401: "No API key, or an unknown one.",
    403: "Sent to a name that is not the collector's, or by a web page.",
    408: "The body did not come in time.",
    413: "The body is too large, or has too many events.",
    415: "The body is no JSON, or packed in an unknown way.",
    422: "A field is wrong, or a key was used for another body.",
    500: "The collector failed.",
    503: "The collector cannot store now; Retry-After says when to try again.",
}
_REF: Final = "#/components/schemas/{model}"
_MODELS: Final[tuple[type[bodies.Body], ...]] = (*(model for models in arriving.MODELS.values() for model in models), bodies.Batch)

STORED_SCHEMA: Final = {"type": "object", "required": ["status"], "properties": {"status": {"enum": ["stored"]}}}
RESULTS_SCHEMA: Final = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["key", "status"],
                "properties": {
                    "key": {"type": ["string", "null"]},
                    "status": {"enum": ["stored", "duplicate", "rejected"]},
                    "error": {"type": "string"},
                },
            },
        }
    },
}

_PLACE_HEADERS: Final = (
    ("Sessionstore-Source", "Which store the sessions are of; percent-encoded UTF-8. Absent from the tracker SDK's clients."),
    ("Sessionstore-Namespace", "Their namespace in that store; percent-encoded UTF-8."),
)
_KEY_HEADER: Final = ("Idempotency-Key", "The same on every try of an event; without one its path and body say which it is.")


def responses(answer: dict[str, Any] | None, *more: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route: a success with its schema, and errors, those among them that only some routes have."""
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    found: dict[int | str, dict[str, Any]] = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    found |= {status: {"description": {404: "Not found.", 409: "The key is being processed."}[status], "content": error}
              for status in more}  # fmt: skip
    if answer is not None:
        found[200] = {"description": "Done.", "content": {"application/json": {"schema": answer}}}
    return found


def answers(kind: Any, *more: int) -> dict[int | str, dict[str, Any]]:
    """As `responses`, for an answer of a type."""
    return responses(schema_of(kind), *more)


def event_route(kind: str) -> dict[str, Any]:
    """What is said of the route of a kind of event."""
    schemas = [{"$ref": _REF.format(model=model.__name__)} for model in arriving.MODELS[kind]]
    return {
        "parameters": [_header(*each) for each in (_KEY_HEADER, *_PLACE_HEADERS)],
        "requestBody": _request(schemas[0] if len(schemas) == 1 else {"anyOf": schemas}),
    }


def batch_route() -> dict[str, Any]:
    """What is said of the route of batches."""
    # One event that is wrong is rejected alone: only the frame of a batch is promised.
    frame = {
        "type": "object",
        "required": ["events"],
        "properties": {
            "source": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{0,64}$"},
            "events": {
                "type": "array",
                "maxItems": 500,
                "items": {"anyOf": [{"$ref": _REF.format(model="BatchEvent")}, {"description": "Anything else is rejected."}]},
            },
        },
    }
    return {"requestBody": _request(frame)}


def place_headers() -> dict[str, Any]:
    """What is said of a route that looks at one namespace of a source if it is told which."""
    return {"parameters": [_header(*each) for each in _PLACE_HEADERS]}


def describe(app: FastAPI, *, with_keys: bool) -> None:
    """Let the app say what it is."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, schemas = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
            components = made.setdefault("components", {})
            components["schemas"] = {**schemas["$defs"], "Error": ERROR_SCHEMA}
            if with_keys:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                made["security"] = [{"key": []}]
                made["paths"]["/healthz"]["get"]["security"] = []
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _request(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


API_VERSION: Final = f"{VERSION}.0"
