"""What is told to the remote API: the kinds of events, where each goes, and the JSON bodies that say it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..content import decoded
from ..inputs import encode_json
from ..values import Message, SessionInfo

CONVERSATION_STARTED: Final = "conversation_start"
CONVERSATION_ENDED: Final = "conversation_end"
CONVERSATION_EXPIRED: Final = "conversation_expired"
AGENT_REGISTERED: Final = "agent_register"
AGENT_STATUS: Final = "agent_status"
AGENT_ACTIVITY: Final = "agent_activity"
METRIC: Final = "metric"
MESSAGE: Final = "message"
ERASE: Final = "erase"

# The endpoint of each kind, below the base URL.
PATHS: Final = {
    CONVERSATION_STARTED: "/conversations/start",
    CONVERSATION_ENDED: "/conversations/end",
    CONVERSATION_EXPIRED: "/conversations/expired",
    AGENT_REGISTERED: "/agents/register",
    AGENT_STATUS: "/agents/status",
    AGENT_ACTIVITY: "/agents/activity",
    METRIC: "/metrics/events",
    MESSAGE: "/conversations/message",
    ERASE: "/conversations/erase",
}

MESSAGE_METRIC: Final = "message"
# A larger message is told without its text: no remote takes more at once.
MAX_MESSAGE_BYTES: Final = 900_000
# Of a larger body what the caller added is left out. A collector takes 1 MiB.
MAX_BODY_BYTES: Final = 1_000_000
_ADDED: Final = ("metadata", "details", "attributes")
_OMITTED: Final = {"omitted": "too large"}
_NONE: Final = "{}"
_EXPIRY_REASON: Final = "ttl_timeout"


class Event(NamedTuple):
    """One thing to tell. Events of one stream of a namespace are delivered in order.

    `body` has the fields of its endpoint, or is their JSON text.
    """

    kind: str
    stream: str
    namespace: str
    occurred_at: datetime
    body: dict[str, Any] | str


def encoded(body: Mapping[str, Any] | str) -> tuple[str, int]:
    """A body as it is sent, and its size in bytes. One that is too large for a request says so in the place of what was added."""
    text = body if isinstance(body, str) else encode_json(body)
    size = _size(text)
    if size > MAX_BODY_BYTES:
        text = encode_json({name: _OMITTED if name in _ADDED else value for name, value in decoded(text).items()})
        size = _size(text)
    return text, size


def session_stream(session_id: str) -> str:
    """The stream of a session: that of its name, for the remote knows a session that follows an expired one by the same."""
    return f"session:{session_id}"


def agent_stream(agent_id: str) -> str:
    """The stream of an agent."""
    return f"agent:{agent_id}"


def metric_stream(session_id: str | None, agent_id: str | None) -> str:
    """The stream of a figure: that of its session, or else of its agent, or one for all the others."""
    if session_id is not None:
        return session_stream(session_id)
    return agent_stream(agent_id) if agent_id is not None else "metrics"


def conversation_started(info: SessionInfo) -> Event:
    """A session began."""
    body = {
        "session_id": info.session_id,
        "agent_id": info.agent_id,
        "start_time": info.created_at.isoformat(),
        "user_id": info.user_id,
        "metadata": info.metadata or None,
    }
    return Event(CONVERSATION_STARTED, session_stream(info.session_id), info.namespace, info.created_at, _known(body))


def conversation_ended(info: SessionInfo, metadata: Mapping[str, Any] | None) -> Event:
    """A session was ended; `metadata` is what was said at its end."""
    ended_at = info.ended_at or info.updated_at
    body = {
        **_span(info, ended_at),
        "status": info.status,
        "quality_score": info.quality_score,
        "user_feedback": info.feedback,
        "error_message": info.error if info.status == "failed" else None,
        "message_count": info.message_count if info.reported_message_count is None else info.reported_message_count,
        "metadata": metadata or None,
    }
    return Event(CONVERSATION_ENDED, session_stream(info.session_id), info.namespace, ended_at, _known(body))


def conversation_expired(info: SessionInfo) -> Event:
    """A session's life is over."""
    ended_at = info.ended_at or info.updated_at
    body = {**_span(info, ended_at), "status": "expired", "expiry_reason": _EXPIRY_REASON}
    return Event(CONVERSATION_EXPIRED, session_stream(info.session_id), info.namespace, ended_at, _known(body))


def message_figures(namespace: str, agent_id: str | None, began_at: datetime, message: Message) -> Event:
    """What a message cost, without a word of it. The value is the time of an assistant's answer, if it is known.

    `began_at` is when its session began, which says which of the lives of that name it belongs to.
    """
    figures = message.figures()
    answer_time = figures.get("response_time_ms", figures.get("elapsed_ms")) if message.role == "assistant" else None
    body = {
        "name": MESSAGE_METRIC,
        "value": answer_time,
        "unit": "ms",
        "agent_id": agent_id,
        "session_id": message.session_id,
        "timestamp": message.created_at.isoformat(),
        "attributes": {"seq": message.seq, "role": message.role, **figures},
        "start_time": began_at.isoformat(),
    }
    return Event(METRIC, session_stream(message.session_id), namespace, message.created_at, _known(body))


def message_told(namespace: str, agent_id: str | None, began_at: datetime, message: Message) -> Event:
    """A message with its text, for a store that syncs messages; of a very large one what it cost."""
    body = {
        "session_id": message.session_id,
        "agent_id": agent_id,
        "start_time": began_at.isoformat(),
        "seq": message.seq,
        "timestamp": message.created_at.isoformat(),
        "kind": message.kind,
        "message": message.to_dict(),
        "attributes": message.figures() or None,
    }
    if _size(encode_json(body)) > MAX_MESSAGE_BYTES:
        return message_figures(namespace, agent_id, began_at, message)
    return Event(MESSAGE, session_stream(message.session_id), namespace, message.created_at, _known(body))


def erased(namespace: str, session_id: str, at: datetime) -> Event:
    """A session is to be forgotten."""
    return Event(ERASE, session_stream(session_id), namespace, at, {"session_id": session_id, "timestamp": at.isoformat()})


def metric(
    namespace: str,
    occurred_at: datetime,
    *,
    name: str,
    value: float,
    unit: str | None,
    agent_id: str | None,
    session_id: str | None,
    attributes: str | None,
) -> Event:
    """A figure was recorded; `attributes` is JSON text."""
    # Written out: the hot path, and what is added is JSON already.
    fields = [f'{{"name":{encode_json(name)},"value":{value!r}']
    if unit is not None:
        fields.append(f'"unit":{encode_json(unit)}')
    if agent_id is not None:
        fields.append(f'"agent_id":{encode_json(agent_id)}')
    if session_id is not None:
        fields.append(f'"session_id":{encode_json(session_id)}')
    fields.append(f'"timestamp":"{occurred_at.isoformat()}"')
    if attributes is not None and attributes != _NONE:
        fields.append(f'"attributes":{attributes}')
    return Event(METRIC, metric_stream(session_id, agent_id), namespace, occurred_at, ",".join(fields) + "}")


def agent_registered(
    namespace: str, agent_id: str, at: datetime, *, sdk_version: str | None, metadata: Mapping[str, Any] | None
) -> Event:
    """An agent registered."""
    body = {"agent_id": agent_id, "registration_time": at.isoformat(), "sdk_version": sdk_version, "metadata": metadata or None}
    return Event(AGENT_REGISTERED, agent_stream(agent_id), namespace, at, _known(body))


def agent_status(
    namespace: str, agent_id: str, at: datetime, *, status: str, previous_status: str | None, metadata: Mapping[str, Any] | None
) -> Event:
    """An agent's status was told."""
    body = {
        "agent_id": agent_id,
        "status": status,
        "timestamp": at.isoformat(),
        "previous_status": previous_status,
        "metadata": metadata or None,
    }
    return Event(AGENT_STATUS, agent_stream(agent_id), namespace, at, _known(body))


def agent_activity(
    namespace: str, agent_id: str, at: datetime, *, action: str, details: Mapping[str, Any] | None, duration: float | None
) -> Event:
    """An agent did something."""
    body = _known({"agent_id": agent_id, "action": action, "timestamp": at.isoformat(), "duration": duration})
    return Event(AGENT_ACTIVITY, agent_stream(agent_id), namespace, at, {**body, "details": dict(details or {})})


def _span(info: SessionInfo, ended_at: datetime) -> dict[str, Any]:
    return {
        "session_id": info.session_id,
        "agent_id": info.agent_id,
        "start_time": info.created_at.isoformat(),
        "end_time": ended_at.isoformat(),
        "duration_seconds": max(0.0, (ended_at - info.created_at).total_seconds()),
    }


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _known(body: dict[str, Any]) -> dict[str, Any]:
    """Fields that are not known are left out, as the endpoints expect it."""
    return {name: value for name, value in body.items() if value is not None}
