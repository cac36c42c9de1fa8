"""What a framework gives, made fit to be stored: attributes of sessions, names, and values that JSON has."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from .. import inputs
from ..arguments import UNSET, SessionAttributes, Unset, new_session
from ..errors import InvalidInputError


def given_attributes(
    *, agent_id: str | None, user_id: str | None, title: str | None = None, ttl: float | timedelta | None | Unset = UNSET
) -> SessionAttributes:
    """What a session is to get when it is made; without a `ttl`, it has the store's own.

    Raises:
        InvalidInputError: One of them is refused: told at once, and not when the first turn is to be stored.
    """
    attributes: SessionAttributes = {"agent_id": agent_id, "user_id": user_id, "title": title}
    if not isinstance(ttl, Unset):
        attributes["ttl"] = ttl
    new_session("", "any", **attributes)
    return attributes


def word(value: object) -> str | None:
    """The name of a model, or why it stopped; None for what cannot be stored as one: an odd name is no reason to lose a turn."""
    try:
        return inputs.identifier("value", value)
    except InvalidInputError:
        return None


def plain(value: Any, above: frozenset[int] = frozenset()) -> Any:
    """A value with its pydantic models as dicts and its tuples as lists. What else JSON does not have stays, to be refused."""
    if isinstance(value, dict | list | tuple):
        if id(value) in above or len(above) > inputs.MAX_DEPTH:
            return value
        above |= {id(value)}
        if isinstance(value, dict):
            # Most values are texts.
            return {key: item if isinstance(item, str) else plain(item, above) for key, item in value.items()}
        return [plain(item, above) for item in value]
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value
