"""The bodies of the remote API, as models: what is checked of an event, and what OpenAPI says of it."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from .. import clock, inputs
from ..content import ROLES
from ..errors import InvalidInputError
from ..values import AGENT_STATUSES, MAX_SEQ

_LONGEST_INSTANT: Final = 64
_UTC: Final = "+00:00"
_OWN_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}\+00:00")
_ROLE_WORDS = Literal["system", "developer", "user", "assistant", "tool", "function"]
_STATUS_WORDS = Literal["active", "idle", "busy", "error", "offline", "initializing"]


class Moment(NamedTuple):
    """A stored instant; `zone` is the offset that was assumed because none was told."""

    text: str
    zone: str | None = None


def moment(value: object) -> Moment:
    """The instant of an ISO 8601 text. One without an offset is taken for the collector's own time zone."""
    if not isinstance(value, str) or len(value) > _LONGEST_INSTANT:
        raise ValueError("must be an ISO 8601 time")
    try:
        told = datetime.fromisoformat(value)
        if _OWN_FORM.fullmatch(value):
            # What sessionstore sends is nearly as it is stored.
            return Moment(f"{value[:10]} {value[11:26]}")
        aware = told if told.tzinfo is not None else told.astimezone()
        text = clock.to_text(aware.astimezone(UTC))
    except (ValueError, OverflowError, OSError):
        raise ValueError("must be an ISO 8601 time of the years 1 to 9999") from None
    return Moment(text, None if told.tzinfo is not None else aware.isoformat()[-6:])


@functools.lru_cache(maxsize=1024)
def _moment_of_text(value: str) -> Moment:
    return moment(value)


def known_moment(value: object) -> Moment:
    """As `moment`, for the beginnings of sessions: each comes with every message of its session."""
    # The machine's own time zone changes with the seasons, and what has none would be kept with the old one.
    return _moment_of_text(value) if isinstance(value, str) and value.endswith(_UTC) else moment(value)


@functools.lru_cache(maxsize=8192)
def known_identifier(value: str) -> str:
    """Ids come again and again, and looking at every character costs."""
    try:
        return inputs.identifier("id", value)
    except InvalidInputError as error:
        raise ValueError(error.reason) from None


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        inputs.json_object("value", value, max_bytes=inputs.MAX_METADATA_BYTES)
    except InvalidInputError as error:
        raise ValueError(error.reason) from None
    return value


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold unpaired surrogate characters") from None
    return value


_INSTANT_SCHEMA: Final = {
    "type": "string",
    "description": "An ISO 8601 time. One without an offset is taken for the collector's own time zone.",
    "examples": ["2026-03-28T23:30:00+00:00"],
}

Instant = Annotated[Moment, PlainValidator(moment), WithJsonSchema(_INSTANT_SCHEMA)]
Identifier = Annotated[
    str, Field(min_length=1, max_length=inputs.MAX_ID_CHARS, description="Printable characters."), AfterValidator(known_identifier)
]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
Text = Annotated[str, AfterValidator(_encodable)]
Feedback = Annotated[str, Field(max_length=inputs.MAX_ERROR_CHARS), AfterValidator(_encodable)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Milliseconds = Seconds
Count = Annotated[int, Field(ge=0, le=inputs.MAX_INTEGER)]
Seq = Annotated[int, Field(ge=1, le=MAX_SEQ)]
SessionStart = Annotated[Instant | None, Field(description="When the session began: which life of its name this is about.")]


class Body(BaseModel):
    """A body. What the API does not know is ignored, as the tracker SDK's own backends do."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ConversationStart(Body):
    """A session began."""

    session_id: Identifier
    agent_id: Identifier | None = None
    start_time: Instant
    user_id: Identifier | None = None
    metadata: Json | None = None


class ConversationEnd(Body):
    """A session completed or failed. An error message is cut at 10,000 characters."""

    session_id: Identifier
    agent_id: Identifier | None = None
    start_time: Instant | None = None
    end_time: Instant
    duration_seconds: Seconds | None = None
    status: Literal["completed", "failed"]
    quality_score: Annotated[int, Field(ge=1, le=5)] | None = None
    user_feedback: Feedback | None = None
    error_message: Text | None = None
    message_count: Count | None = None
    metadata: Json | None = None


class ConversationExpired(Body):
    """A session's life was over."""

    session_id: Identifier
    agent_id: Identifier | None = None
    start_time: Instant | None = None
    end_time: Instant
    status: Literal["expired"] = "expired"
    duration_seconds: Seconds | None = None
    expiry_reason: Text | None = None


class AgentRegister(Body):
    """An agent registered."""

    agent_id: Identifier
    registration_time: Instant
    sdk_version: Identifier | None = None
    metadata: Json | None = None


class AgentStatusTold(Body):
    """An agent told its status."""

    agent_id: Identifier
    status: _STATUS_WORDS
    timestamp: Instant
    previous_status: _STATUS_WORDS | None = None
    metadata: Json | None = None


class AgentActivity(Body):
    """An agent did something."""

    agent_id: Identifier
    action: Identifier
    timestamp: Instant
    details: Json | None = None
    duration: Seconds | None = None


class Metric(Body):
    """A figure was recorded."""

    name: Identifier
    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Identifier | None = None
    agent_id: Identifier | None = None
    session_id: Identifier | None = None
    timestamp: Instant
    attributes: Json | None = None


class Figures(Body):
    """What is known of a message's cost."""

    model: Identifier | None = None
    finish_reason: Identifier | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    response_time_ms: Milliseconds | None = None
    elapsed_ms: Milliseconds | None = None


class PlacedFigures(Figures):
    """Those of the message of a seq."""

    seq: Seq
    role: _ROLE_WORDS | None = None


class MessageMetric(Body):
    """A message was stored: what it cost, without a word of it. The value repeats the time of an answer."""

    name: Literal["message"]
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    unit: Identifier | None = None
    agent_id: Identifier | None = None
    session_id: Identifier
    start_time: SessionStart = None
    timestamp: Instant
    attributes: PlacedFigures


class Message(Body):
    """A message was stored, with its text."""

    session_id: Identifier
    agent_id: Identifier | None = None
    start_time: SessionStart = None
    seq: Seq
    timestamp: Instant
    kind: Identifier | None = None
    message: Json
    attributes: Figures | None = None


class Erase(Body):
    """A session is to be forgotten."""

    session_id: Identifier
    timestamp: Instant | None = None


class BatchEvent(Body):
    """One event of a batch: `body` is that of a single post to `path`."""

    key: Identifier
    kind: Literal[
        "conversation_start", "conversation_end", "conversation_expired", "agent_register", "agent_status", "agent_activity",
        "metric", "message", "erase",
    ]  # fmt: skip
    namespace: Annotated[str, Field(max_length=inputs.MAX_ID_CHARS)] = ""
    occurred_at: Text | None = None
    path: Text | None = None
    body: dict[str, Any]


class Batch(Body):
    """Events of one source, those of a session in their order. One that is not as it should be is rejected alone."""

    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,64}$")] = ""
    events: Annotated[list[BatchEvent], Field(max_length=500)]


assert set(_ROLE_WORDS.__args__) == set(ROLES)  # type: ignore[attr-defined]  # noqa: S101
assert set(_STATUS_WORDS.__args__) == set(AGENT_STATUSES)  # type: ignore[attr-defined]  # noqa: S101
