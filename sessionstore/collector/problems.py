"""Errors as the collector answers them: one JSON shape, which holds nothing of the request."""

from __future__ import annotations

from typing import Any, Final

from ..errors import (
    ClosedStoreError,
    DiskFullError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyStoreError,
    SessionStoreError,
    StoreBusyError,
    StoreIOError,
)

_SOON: Final = 1
_LATER: Final = 30


class Problem(Exception):  # noqa: N818 - not raised to users of the library
    """A refusal.

    Attributes:
        status: The HTTP status.
        code: A word that stays the same, for programs.
        message: What is wrong, for people.
        field: Which field of the body or the query, if it is about one.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        told = {"code": self.code, "message": self.message}
        return {"error": told if self.field is None else {**told, "field": self.field}}


ERROR_SCHEMA: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "field": {"type": "string"}},
        }
    },
}

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def of_status(status: int, headers: dict[str, str] | None = None) -> Problem:
    """What the routes themselves refuse: an unknown path, a method that a path has not."""
    message = {404: "there is nothing at this path", 405: "this path has other methods"}.get(status, "refused")
    return Problem(status, _CODES.get(status, "refused"), message, **{k.replace("-", "_"): v for k, v in (headers or {}).items()})


def of_error(error: SessionStoreError) -> Problem:
    """What an error of the store means for a client."""
    if isinstance(error, InvalidInputError):
        return Problem(422, "invalid_input", error.reason, field=error.field)
    if isinstance(error, NotFoundError):
        return Problem(404, "not_found", "there is no such conversation")
    if isinstance(error, DiskFullError):
        return _unavailable("disk_full", "the collector's disk is full", _LATER)
    if isinstance(error, StoreIOError | ReadOnlyStoreError):
        return _unavailable("storage_failed", "the collector cannot write its file", _LATER)
    if isinstance(error, StoreBusyError | ClosedStoreError):
        return _unavailable("busy", "the collector is busy", _SOON)
    return Problem(500, "internal_error", "the collector failed; its log says more")


def stopping() -> Problem:
    """What a request is told that a collector waits for no longer."""
    return _unavailable("stopping", "the collector is stopped; the request may have been stored", _SOON, Connection="close")


def is_storage(problem: Problem) -> bool:
    """Whether the file could not be written."""
    return problem.code in ("disk_full", "storage_failed")


def _unavailable(code: str, message: str, seconds: int, **headers: str) -> Problem:
    return Problem(503, code, message, Retry_After=str(seconds), **headers)
