"""The ids of tracked conversations: `{agent_id}_{unix seconds}_{8 hex digits}`, read from the right."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from . import clock, inputs
from .errors import InvalidInputError

_SECONDS_DIGITS: Final = 12
_RANDOM_DIGITS: Final = 8
# An id is at most 256 characters, its agent's id what the rest leaves.
MAX_AGENT_CHARS: Final = inputs.MAX_ID_CHARS - _SECONDS_DIGITS - _RANDOM_DIGITS - 2
# An agent's id may hold underscores and digits itself.
_FORM: Final = re.compile(r"(?P<agent_id>.+)_(?P<seconds>[0-9]{1,12})_(?P<random>[0-9a-f]{8})", re.DOTALL)


class SessionIdParts(NamedTuple):
    """What the id of a tracked conversation says: whose it is and when it began, in whole seconds."""

    agent_id: str
    started_at: datetime
    random: str


def new_session_id(agent_id: str, started_at: datetime) -> str:
    """An id for a conversation that begins now."""
    return f"{agent_id}_{int(started_at.timestamp())}_{clock.new_token(_RANDOM_DIGITS)}"


def parse_session_id(session_id: str) -> SessionIdParts | None:
    """What an id says; None if it is not of the trackers' form."""
    match = _FORM.fullmatch(session_id)
    if match is None:
        return None
    try:
        agent_id = inputs.identifier("agent_id", match["agent_id"])
        started_at = datetime.fromtimestamp(int(match["seconds"]), UTC)
    except (InvalidInputError, OverflowError, OSError, ValueError):
        return None
    return SessionIdParts(agent_id, started_at, match["random"])


def tracked_agent(agent_id: object) -> str:
    """An agent's id that fits into the ids of its conversations."""
    checked = inputs.identifier("agent_id", agent_id)
    if len(checked) > MAX_AGENT_CHARS:
        raise InvalidInputError("agent_id", f"must have at most {MAX_AGENT_CHARS} characters", limit=MAX_AGENT_CHARS)
    return checked
