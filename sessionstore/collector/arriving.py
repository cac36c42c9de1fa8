"""From the bytes of a request to checked events: pure, without the store and without HTTP."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from .. import inputs
from ..content import MESSAGE_KIND, ROLES
from ..errors import InvalidInputError
from ..inputs import encode_json
from ..queries.collecting.arrivals import (
    ActivityTold,
    Arrival,
    Content,
    End,
    Erasure,
    Expiry,
    Figures,
    Measured,
    Registered,
    Start,
    StatusTold,
    namespace_of,
    source_name,
)
from ..queries.metrics import Figure
from ..remote.capabilities import MAX_EVENTS
from ..remote.events import (
    AGENT_ACTIVITY,
    AGENT_REGISTERED,
    AGENT_STATUS,
    CONVERSATION_ENDED,
    CONVERSATION_EXPIRED,
    CONVERSATION_STARTED,
    ERASE,
    MESSAGE,
    MESSAGE_METRIC,
    METRIC,
    PATHS,
)
from ..rows import PreparedMessage, prepare
from ..values import MAX_SEQ
from . import bodies
from .bodies import Moment, known_identifier
from .problems import Problem

ASSUMED: Final = "time_zone_assumed"
_KEYLESS: Final = "sha256:"
_IDENTITIES: Final = {kind: path.encode() + b"\n" for kind, path in PATHS.items()}
_FIGURES: Final[dict[str, Any]] = {
    "model": str,
    "finish_reason": str,
    "input_tokens": int,
    "output_tokens": int,
    "cache_read_tokens": int,
    "reasoning_tokens": int,
    "response_time_ms": float,
    "elapsed_ms": float,
}


class Refused(NamedTuple):
    """An event of a batch that is not as it should be."""

    reason: str
    field: str | None


class Post(NamedTuple):
    """A single event as it was posted."""

    tenant: str
    source: str
    namespace: str
    key: str | None
    kind: str
    raw: bytes


class BatchItem(NamedTuple):
    """An event of a batch: its key as it was given, and what it tells or why it is refused."""

    key: str | None
    arrival: Arrival | Refused


def json_of(raw: bytes) -> Any:
    """The value of a body.

    Raises:
        Problem: It is no JSON.
    """
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise Problem(422, "invalid_json", "the body is not valid JSON in UTF-8") from None


def single(post: Post) -> Arrival:
    """The event of a single post.

    Raises:
        Problem: Its body is not as it should be.
    """
    identity = _IDENTITIES[post.kind] + post.raw
    key = post.key
    if key is None:
        # Equal bodies of two sources are two events.
        origin = f"\n{post.source}\n{post.namespace}".encode() if post.source or post.namespace else b""
        key = _KEYLESS + hashlib.sha256(identity + origin).hexdigest()
    namespace = namespace_of(post.tenant, post.source, post.namespace)
    try:
        body = json_of(post.raw)
        return Arrival(key, _digest(post.kind, body), namespace, content_of(post.kind, body))
    except ValidationError as error:
        reason, field = told(error)
        raise Problem(422, "invalid_body", reason, field=field) from None


def batch(tenant: str, raw: bytes) -> list[BatchItem]:
    """The events of a batch, in their order.

    Raises:
        Problem: It is no batch, or has too many events.
    """
    given = json_of(raw)
    events = given.get("events") if isinstance(given, dict) else None
    if not isinstance(events, list):
        raise Problem(422, "invalid_body", "must be an object with a list", field="events")
    if len(events) > MAX_EVENTS:
        raise Problem(413, "too_many_events", f"a batch has at most {MAX_EVENTS} events", field="events")
    source = given.get("source", "")
    if not isinstance(source, str):
        raise InvalidInputError("source", "must be a text")
    source_name(source)
    places: dict[str, str] = {}
    return [_item(tenant, source, event, places) for event in events]


def content_of(kind: str, body: object) -> Content:
    """What the body of a kind of event tells.

    Raises:
        ValidationError: A field is wrong.
        InvalidInputError: A message is wrong.
    """
    return _READERS[kind](body)


def told(error: ValidationError) -> Refused:
    """What is wrong first, without a value and without a name that is not the API's own."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = first["loc"]
    field = place[0] if place and isinstance(place[0], str) else None
    return Refused(first["msg"].removeprefix("Value error, "), field)


def _item(tenant: str, source: str, event: object, places: dict[str, str]) -> BatchItem:
    if not isinstance(event, dict):
        return BatchItem(None, Refused("must be an object", None))
    key = event.get("key")
    try:
        inputs.identifier("key", key)
        arrival = _arrival(tenant, source, event, places)
    except ValidationError as error:
        return BatchItem(key, told(error))
    except InvalidInputError as error:
        known = key if error.field != "key" else None
        return BatchItem(known, Refused(error.reason, error.field))
    except ValueError:
        return BatchItem(key, Refused("holds a number that is out of range", "body"))
    return BatchItem(key, arrival)


def _arrival(tenant: str, source: str, event: dict[str, Any], places: dict[str, str]) -> Arrival:
    kind, body, given = event.get("kind"), event.get("body"), event.get("namespace", "")
    if not isinstance(kind, str) or kind not in PATHS:
        raise InvalidInputError("kind", "is not known here")
    path = PATHS[kind]
    if event.get("path", path) != path:
        raise InvalidInputError("path", "is not that of the kind")
    if not isinstance(body, dict):
        raise InvalidInputError("body", "must be an object")
    if not isinstance(given, str):
        raise InvalidInputError("namespace", "must be a text")
    namespace = places.get(given)
    if namespace is None:
        namespace = places[given] = namespace_of(tenant, source, given)
    content = content_of(kind, body)
    return Arrival(event["key"], _digest(kind, body), namespace, content)


def _digest(kind: str, body: object) -> bytes:
    """What tells two events of one key apart: their path and what their bodies say, alone or in a batch."""
    return hashlib.sha256(_IDENTITIES[kind] + to_json(body)).digest()


def _noted(known: dict[str, Any] | None, *moments: Moment | None) -> dict[str, Any]:
    """Metadata, with the time zone that was assumed if one was."""
    for each in moments:
        if each is not None and each.zone is not None:
            return {**(known or {}), ASSUMED: each.zone}
    return known or {}


def _text(moment: Moment | None) -> str | None:
    return None if moment is None else moment.text


def _start(given: object) -> Start:
    body = bodies.ConversationStart.model_validate(given)
    noted = _noted(body.metadata, body.start_time)
    return Start(body.session_id, body.agent_id, body.user_id, noted, body.start_time.text)


def _end(given: object) -> End:
    body = bodies.ConversationEnd.model_validate(given)
    error = body.error_message
    return End(
        session_id=body.session_id,
        agent_id=body.agent_id,
        status=body.status,
        began_at=_text(body.start_time),
        ended_at=body.end_time.text,
        quality_score=body.quality_score,
        feedback=body.user_feedback,
        error=None if error is None else error[: inputs.MAX_ERROR_CHARS],
        message_count=body.message_count,
        metadata=_noted(body.metadata, body.end_time, body.start_time),
    )


def _expiry(given: object) -> Expiry:
    body = bodies.ConversationExpired.model_validate(given)
    noted = _noted(None, body.end_time, body.start_time)
    return Expiry(body.session_id, body.agent_id, _text(body.start_time), body.end_time.text, noted)


def _registered(given: object) -> Registered:
    body = bodies.AgentRegister.model_validate(given)
    at = body.registration_time
    return Registered(body.agent_id, body.sdk_version, _noted(body.metadata, at) or body.metadata, at.text)


def _status(given: object) -> StatusTold:
    body = bodies.AgentStatusTold.model_validate(given)
    at = body.timestamp
    return StatusTold(body.agent_id, body.status, body.previous_status, _noted(body.metadata, at) or body.metadata, at.text)


def _activity(given: object) -> ActivityTold:
    body = bodies.AgentActivity.model_validate(given)
    at = body.timestamp
    return ActivityTold(body.agent_id, body.action, _noted(body.details, at), body.duration, at.text)


def _metric(given: object) -> Measured | Figures:
    attributes = given.get("attributes") if isinstance(given, dict) else None
    if isinstance(given, dict) and given.get("name") == MESSAGE_METRIC and isinstance(attributes, dict) and "seq" in attributes:
        try:
            plain = _plain_figures(given, attributes)
        except ValueError:
            # The model says which field it is.
            plain = None
        return plain or _message_figures(given)
    body = bodies.Metric.model_validate(given)
    noted = _noted(body.attributes, body.timestamp)
    text = encode_json(noted) if noted else None
    metric = Figure(body.name, body.value, body.unit, text, body.agent_id, body.session_id)
    return Measured(metric, body.timestamp.text)


def _message_figures(given: dict[str, Any]) -> Figures:
    body = bodies.MessageMetric.model_validate(given)
    placed = body.attributes
    # In the order in which the client told them, as its own store has them.
    facts = {name: value for name in given["attributes"] if name in _FIGURES and (value := getattr(placed, name)) is not None}
    if noted := _noted(None, body.timestamp, body.start_time):
        facts["metadata"] = noted
    began_at = _text(body.start_time)
    return _figures(body.session_id, body.agent_id, placed.seq, placed.role, facts, body.timestamp.text, began_at)


def _plain_figures(given: dict[str, Any], attributes: dict[str, Any]) -> Figures | None:
    """As `_message_figures`, for what sessionstore itself sends, at a quarter of its price; None for anything unusual."""
    session_id, agent_id, instant = given.get("session_id"), given.get("agent_id"), given.get("timestamp")
    begun = given.get("start_time")
    seq, role = attributes["seq"], attributes.get("role")
    if type(session_id) is not str or type(agent_id) is not str or type(instant) is not str:
        return None
    if type(seq) is not int or not 0 < seq <= MAX_SEQ or not (role is None or (type(role) is str and role in ROLES)):
        return None
    value = given.get("value", 0.0)
    if given.get("unit", "ms") != "ms" or type(value) is not float or not math.isfinite(value):
        return None
    facts: dict[str, Any] = {}
    for name, value in attributes.items():
        kind = _FIGURES.get(name)
        if kind is None:
            continue
        if type(value) is not kind or not (value if kind is str else 0 <= value <= inputs.MAX_INTEGER):
            return None
        facts[name] = known_identifier(value) if kind is str else value
    at, began_at = bodies.moment(instant), None if begun is None else bodies.known_moment(begun)
    if at.zone is not None or (began_at is not None and began_at.zone is not None):
        return None
    return _figures(known_identifier(session_id), known_identifier(agent_id), seq, role, facts, at.text, _text(began_at))


def _figures(
    session_id: str, agent_id: str | None, seq: int, role: str | None, facts: dict[str, Any], at: str, began_at: str | None
) -> Figures:
    text = to_json(facts).decode() if facts else None
    row = PreparedMessage(MESSAGE_KIND, role, None, None, text, None, None)
    return Figures(session_id, agent_id, seq, row, at, began_at, has_text=False)


def _message(given: object) -> Figures:
    body = bodies.Message.model_validate(given)
    known = {} if body.attributes is None else body.attributes.model_dump(exclude_none=True)
    if noted := _noted(None, body.timestamp, body.start_time):
        known["metadata"] = noted
    # What is told of a message later is put into its row: there is nothing to be kept in step.
    row = prepare(body.message, max_bytes=inputs.MAX_METADATA_BYTES, kind=body.kind, take_blobs=False, **known)
    began_at = _text(body.start_time)
    return Figures(body.session_id, body.agent_id, body.seq, row, body.timestamp.text, began_at, has_text=True)


def _erasure(given: object) -> Erasure:
    return Erasure(bodies.Erase.model_validate(given).session_id)


_READERS: Final[Mapping[str, Callable[[object], Content]]] = {
    CONVERSATION_STARTED: _start,
    CONVERSATION_ENDED: _end,
    CONVERSATION_EXPIRED: _expiry,
    AGENT_REGISTERED: _registered,
    AGENT_STATUS: _status,
    AGENT_ACTIVITY: _activity,
    METRIC: _metric,
    MESSAGE: _message,
    ERASE: _erasure,
}

MODELS: Final[Mapping[str, tuple[type[bodies.Body], ...]]] = {
    CONVERSATION_STARTED: (bodies.ConversationStart,),
    CONVERSATION_ENDED: (bodies.ConversationEnd,),
    CONVERSATION_EXPIRED: (bodies.ConversationExpired,),
    AGENT_REGISTERED: (bodies.AgentRegister,),
    AGENT_STATUS: (bodies.AgentStatusTold,),
    AGENT_ACTIVITY: (bodies.AgentActivity,),
    METRIC: (bodies.Metric, bodies.MessageMetric),
    MESSAGE: (bodies.Message,),
    ERASE: (bodies.Erase,),
}
