"""The lines of the lossless JSONL for what belongs to no session: figures, agents and what they did, state of users and agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .. import clock, inputs
from ..content import decoded
from ..errors import InvalidInputError
from ..queries.belongings import ACTIVITY, AGENT, KINDS, METRIC, STATE_VALUE, Kind, Row
from ..values import ACTIVITY_KINDS, AGENT_STATUSES, STATE_SCOPES
from . import jsonlines, native

Check = Callable[[str, Any], Any]

# Scope and owner of an application's values that are of sessions without an agent.
_SHARED_SCOPES: Final = STATE_SCOPES[1:]
_JSON: Final = frozenset({"attributes", "metadata", "details"})


def _one_of(words: tuple[str, ...]) -> Check:
    return lambda field, value: inputs.choice(field, value, words)


def _namespace(_: str, value: Any) -> str:
    return inputs.namespace(value)


def _owner(field: str, value: Any) -> str:
    return "" if value == "" else inputs.identifier(field, value)


def _optional(check: Check) -> Check:
    return lambda field, value: None if value is None else check(field, value)


def _stale_after(field: str, value: Any) -> float:
    return inputs.period(field, value)


_STATUS: Final = _one_of(AGENT_STATUSES)
_CHECKS: Final[dict[Kind, dict[str, Check]]] = {
    METRIC: {
        "namespace": _namespace,
        "name": inputs.identifier,
        "value": inputs.number,
        "unit": inputs.optional_identifier,
        "agent_id": inputs.optional_identifier,
        "session_id": inputs.optional_identifier,
        "attributes": inputs.optional_json_object,
        "occurred_at": native.stored_instant,
    },
    AGENT: {
        "namespace": _namespace,
        "agent_id": inputs.identifier,
        "sdk_version": inputs.optional_identifier,
        "status": _STATUS,
        "previous_status": _optional(_STATUS),
        "metadata": inputs.optional_json_object,
        "registered_at": _optional(native.stored_instant),
        "status_at": native.stored_instant,
        "last_seen_at": native.stored_instant,
        "stale_after_seconds": _stale_after,
    },
    ACTIVITY: {
        "namespace": _namespace,
        "agent_id": inputs.identifier,
        "kind": _one_of(ACTIVITY_KINDS),
        "action": inputs.identifier,
        "status": _optional(_STATUS),
        "previous_status": _optional(_STATUS),
        "details": inputs.optional_json_object,
        "duration_seconds": inputs.optional_duration,
        "occurred_at": native.stored_instant,
    },
    STATE_VALUE: {
        "namespace": _namespace,
        "scope": _one_of(_SHARED_SCOPES),
        "owner": _owner,
        "name": inputs.identifier,
        "value": lambda _, value: native.state_value(value),
        "updated_at": native.stored_instant,
    },
}


def line(kind: Kind, row: Row) -> str:
    """The line of a stored row."""
    told = {name: _told(kind, name, value) for name, value in zip(kind.columns, row, strict=True)}
    # Figures have no type of their own, activities have a kind: the line's own type comes first.
    return jsonlines.dumps({"type": kind.name, **told}) + "\n"


def parsed(given: Mapping[str, Any], namespace: str) -> tuple[Kind, Row]:
    """The kind and the stored row of a line, with every value checked.

    Args:
        given: The line.
        namespace: Where the row is put instead of its own namespace, unless this is "".

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    kind = KINDS.get(given.get("type", ""))
    if kind is None:
        raise InvalidInputError("type", "must be a session, state, agent, activity, metric, or the trailer")
    checks = _CHECKS[kind]
    if given.keys() - {"type"} - checks.keys():
        raise InvalidInputError("keys", "holds a key that this version does not know; update sessionstore")
    missing = checks.keys() - given.keys()
    if missing:
        raise InvalidInputError(min(missing), "is missing")
    row = {name: check(name, given[name]) for name, check in checks.items()}
    if namespace:
        row["namespace"] = namespace
    return kind, tuple(row[name] for name in kind.columns)


def _told(kind: Kind, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_at"):
        return clock.from_text(value).isoformat()
    if name in _JSON or (kind is STATE_VALUE and name == "value"):
        return decoded(value)
    return value
