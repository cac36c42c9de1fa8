"""What an answer of the remote means: the one place that knows which HTTP status and which failure calls for what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from ..masking import mask
from .backoff import retry_after
from .credentials import ApiKey
from .requests import Request

_MAX_MESSAGE_CHARS: Final = 150
_STORED: Final = ("stored", "duplicate")
_REJECTED: Final = "rejected"
_NO_RESULT: Final[dict[str, Any]] = {}


class Answer(NamedTuple):
    """An HTTP answer.

    Attributes:
        status: Its status.
        headers: Its headers.
        body: None if it was longer than anybody would read, or in a form that was not asked for.
        key: The key of the request, which the body may quote.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    key: ApiKey | None = None


class Failure(NamedTuple):
    """A request without an answer.

    Attributes:
        error: What happened, without secrets.
        is_certificate: The other side could not prove who it is.
        is_unsent: There was no connection, so nothing can have arrived.
    """

    error: str
    is_certificate: bool = False
    is_unsent: bool = False


class Meaning(Enum):
    """What is to be done."""

    DELIVERED = auto()  # mark what the results say
    REFUSED = auto()  # find the event at fault, count an attempt
    TOO_LARGE = auto()  # halve
    IN_FLIGHT = auto()  # the same key soon again
    SERVER_ERROR = auto()  # again later; an event's fault only if others get through
    BUSY = auto()  # again when the remote says
    OFFLINE = auto()  # again later
    NO_SUCH_KIND = auto()  # an older backend without this endpoint
    AUTH = auto()  # pause until there is another key
    CONFIG = auto()  # pause until somebody corrects the address
    REDIRECT = auto()
    CERTIFICATE = auto()


class Verdict(NamedTuple):
    """What an answer means.

    Attributes:
        meaning: What is to be done.
        error: What happened, without secrets; "" if all is well.
        status: The HTTP status, if there was an answer.
        asked: The wait that the remote asked for.
        refused: Of an answer that marks events: why it refused some, by their keys.
        unmarked: The keys that it does not mention.
    """

    meaning: Meaning
    error: str = ""
    status: int | None = None
    asked: timedelta | None = None
    refused: Mapping[str, str] = {}
    unmarked: frozenset[str] = frozenset()


_BY_STATUS: Final = {
    400: Meaning.REFUSED,
    422: Meaning.REFUSED,
    401: Meaning.AUTH,
    403: Meaning.AUTH,
    408: Meaning.SERVER_ERROR,
    409: Meaning.IN_FLIGHT,
    413: Meaning.TOO_LARGE,
    425: Meaning.BUSY,
    429: Meaning.BUSY,
    501: Meaning.CONFIG,
    503: Meaning.BUSY,
    505: Meaning.CONFIG,
    507: Meaning.BUSY,
}


def judge(answer: Answer | Failure, request: Request, now: datetime) -> Verdict:
    """What the answer to a request means."""
    if isinstance(answer, Failure):
        return Verdict(Meaning.CERTIFICATE if answer.is_certificate else Meaning.OFFLINE, answer.error)
    if 200 <= answer.status < 300:
        return _acknowledged(answer, request)
    meaning = _meaning(answer.status, request)
    return Verdict(meaning, described(answer), answer.status, retry_after(answer.headers.get("retry-after"), now))


def may_still_arrive(answer: Answer | Failure, verdict: Verdict) -> bool:
    """Whether the remote may be told after all what a request tells.

    A server error may be that of a gateway before it; and one that is in flight is being told it by an earlier request.
    """
    if isinstance(answer, Failure):
        return not (answer.is_unsent or answer.is_certificate)
    return answer.status >= 500 or verdict.meaning in (Meaning.SERVER_ERROR, Meaning.IN_FLIGHT)


def described(answer: Answer) -> str:
    """An answer in a few words, with what a JSON body says of the error."""
    said = _message(answer)
    if 300 <= answer.status < 400 and (host := _host(answer.headers.get("location"))):
        return f"HTTP {answer.status} to {host}"
    return f"HTTP {answer.status}" + (f": {said}" if said else "")


def _host(location: str | None) -> str:
    """The other host that a redirect leads to, without what its path and query may hold; "" if it names none."""
    try:
        parts = urlsplit(location or "")
        host = parts.hostname
    except ValueError:
        return ""
    return "" if host is None else _shortened(f"{parts.scheme}://{host}", None)


def _meaning(status: int, request: Request) -> Meaning:
    if 300 <= status < 400:
        return Meaning.REDIRECT
    if status in (404, 405) and not request.is_batch:
        return Meaning.NO_SUCH_KIND
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Meaning.SERVER_ERROR if status >= 500 else Meaning.CONFIG


def _acknowledged(answer: Answer, request: Request) -> Verdict:
    if request.is_batch:
        return _marked(answer, request)
    if answer.body is not None and (not answer.body or is_json(answer.body)):
        return Verdict(Meaning.DELIVERED, status=answer.status)
    return Verdict(Meaning.SERVER_ERROR, f"HTTP {answer.status} without JSON is no acknowledgement", answer.status)


def _marked(answer: Answer, request: Request) -> Verdict:
    """A batch is acknowledged event by event; what is not named was not received."""
    results = _results(answer)
    refused: dict[str, str] = {}
    unmarked: list[str] = []
    for each in request.items:
        key = each.event.key
        result = results.get(key, _NO_RESULT)
        status = result.get("status")
        if status == _REJECTED:
            refused[key] = _shortened(result.get("error"), answer.key)
        elif status not in _STORED:
            unmarked.append(key)
    if len(unmarked) == len(request.items):
        return Verdict(Meaning.SERVER_ERROR, f"HTTP {answer.status} names none of the events", answer.status)
    return Verdict(Meaning.DELIVERED, status=answer.status, refused=refused, unmarked=frozenset(unmarked))


def _results(answer: Answer) -> dict[str, dict[str, Any]]:
    """What is said of each key."""
    said = _parsed(answer.body)
    listed = said.get("results") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        return {}
    return {each["key"]: each for each in listed if isinstance(each, dict) and isinstance(each.get("key"), str)}


def _message(answer: Answer) -> str:
    said = _parsed(answer.body)
    error = said.get("error") or said.get("detail") if isinstance(said, dict) else None
    return _shortened(error.get("message") if isinstance(error, dict) else error, answer.key)


def _shortened(said: Any, key: ApiKey | None) -> str:
    """A few words of what a remote says, as they can be stored: JSON may hold halves of characters."""
    if not isinstance(said, str):
        return ""
    # First the key: a cut through it would leave a part that is not recognized.
    hidden = said if key is None else key.hidden_in(said)
    words = " ".join(hidden[: 4 * _MAX_MESSAGE_CHARS].split()).encode(errors="replace").decode()
    return mask(words)[:_MAX_MESSAGE_CHARS]


def _parsed(body: bytes | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except (ValueError, RecursionError):
        return None


def is_json(body: bytes) -> bool:
    """Whether it can be parsed."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
