"""JSON schemas of the answers, made from the types that say their shapes."""

from __future__ import annotations

import types
from typing import Any, Final, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from ..trackers.operations import ActivityAnswer, AgentAnswer
from ..values.conversations import Conversation

Schema = dict[str, Any]

_PLAIN: Final[dict[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class CollectedConversation(Conversation):
    """A conversation, and whose it is."""

    source: str
    namespace: str


class CollectedAgent(AgentAnswer):
    """An agent, and whose it is."""

    source: str
    namespace: str


class CollectedActivity(ActivityAnswer):
    """Something that an agent did, and whose it is."""

    source: str
    namespace: str


def schema_of(kind: Any) -> Schema:
    """The schema of a type: a TypedDict, a list or dict, a union, a plain type."""
    if is_typeddict(kind):
        return _object(kind)
    if kind is Any:
        return {}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return {"type": "array", "items": schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(inner[1])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each) for each in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    raise TypeError(f"there is no schema for {kind}")


def _object(kind: Any) -> Schema:
    hints = get_type_hints(kind, include_extras=True)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    return {
        "type": "object",
        "title": kind.__name__,
        "required": [name for name in hints if name not in optional],
        "properties": {name: schema_of(get_args(hint)[0] if name in optional else hint) for name, hint in hints.items()},
    }
