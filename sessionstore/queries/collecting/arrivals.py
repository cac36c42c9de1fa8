"""What a collector stores: checked events, and the places where those of a tenant lie."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, NamedTuple

from ...errors import InvalidInputError
from ...inputs import MAX_ID_CHARS
from ...inputs import namespace as checked_namespace
from ...rows import PreparedMessage
from ..metrics import Figure

_TENANT: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SOURCE: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_HASHED: Final = "#"


class Start(NamedTuple):
    """A session began. Instants are stored texts here and below."""

    session_id: str
    agent_id: str | None
    user_id: str | None
    metadata: dict[str, Any]
    began_at: str


class End(NamedTuple):
    """A session completed or failed."""

    session_id: str
    agent_id: str | None
    status: str
    began_at: str | None
    ended_at: str
    quality_score: int | None
    feedback: str | None
    error: str | None
    message_count: int | None
    metadata: dict[str, Any]


class Expiry(NamedTuple):
    """A session's life was over."""

    session_id: str
    agent_id: str | None
    began_at: str | None
    ended_at: str
    metadata: dict[str, Any]


class Figures(NamedTuple):
    """A message was stored: what is known of it, with its text (`has_text`) or without.

    `began_at` is when its session began, if the client tells it.
    """

    session_id: str
    agent_id: str | None
    seq: int
    row: PreparedMessage
    at: str
    began_at: str | None
    has_text: bool


class Measured(NamedTuple):
    """A figure was recorded."""

    metric: Figure
    at: str


class Registered(NamedTuple):
    """An agent registered."""

    agent_id: str
    sdk_version: str | None
    metadata: dict[str, Any] | None
    at: str


class StatusTold(NamedTuple):
    """An agent told its status."""

    agent_id: str
    status: str
    previous_status: str | None
    metadata: dict[str, Any] | None
    at: str


class ActivityTold(NamedTuple):
    """An agent did something."""

    agent_id: str
    action: str
    details: dict[str, Any]
    duration: float | None
    at: str


class Erasure(NamedTuple):
    """A session is to be forgotten."""

    session_id: str


Content = Start | End | Expiry | Figures | Measured | Registered | StatusTold | ActivityTold | Erasure


class Arrival(NamedTuple):
    """An event that came in: its key and the hash of its body, the store's namespace it belongs to, and what it tells."""

    key: str
    body_hash: bytes
    namespace: str
    content: Content


class Place(NamedTuple):
    """A namespace of the collector's store, or with `end` all from it on that sort before `end`."""

    namespace: str
    end: str | None = None


def tenant_name(value: str) -> str:
    """A tenant's name, checked."""
    return _matching(_TENANT, "tenant", value, "must be 1 to 64 letters, digits, dots, dashes or underscores")


def source_name(value: str) -> str:
    """A source's name, checked; the tracker SDK's clients have the empty one."""
    return _matching(_SOURCE, "source", value, "must be at most 64 letters, digits, dots, dashes or underscores")


def namespace_of(tenant: str, source: str, namespace: str) -> str:
    """Where the sessions of a tenant's source and namespace lie. No two of them share a place.

    Raises:
        InvalidInputError: The source or the namespace is none.
    """
    prefix = f"{tenant}/{source_name(source)}/"
    wanted = checked_namespace(namespace)
    if wanted.startswith(_HASHED) or len(prefix) + len(wanted) > MAX_ID_CHARS:
        wanted = _HASHED + hashlib.sha256(wanted.encode()).hexdigest()
    return prefix + wanted


def source_and_namespace(stored: str) -> tuple[str, str]:
    """The source and the namespace whose sessions lie in a place; a namespace that was too long by its hash."""
    _, source, namespace = stored.split("/", 2)
    return source, namespace


def place_of(tenant: str, source: str | None = None, namespace: str | None = None) -> Place:
    """All that a tenant has, or that of a source, or of a namespace of a source."""
    if namespace is not None:
        if source is None:
            raise InvalidInputError("namespace", "goes with a source; that of clients without one is empty: source=")
        return Place(namespace_of(tenant, source, namespace))
    prefix = f"{tenant}/" if source is None else f"{tenant}/{source_name(source)}/"
    return Place(prefix, prefix[:-1] + chr(ord("/") + 1))


def _matching(form: re.Pattern[str], field: str, value: str, reason: str) -> str:
    if form.fullmatch(value) is None:
        raise InvalidInputError(field, reason)
    return value
