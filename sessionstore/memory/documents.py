"""What memory backends take, by the rules of the store: ids and conversations; and conversations as JSON texts."""

from __future__ import annotations

import json
from typing import Any, Final

from .. import content, inputs
from ..arguments import several
from ..config import DEFAULT_MAX_TEXT_BYTES
from ..content import StoredContent
from ..errors import InvalidInputError, StoreCorruptError

# What a message dict is stored under whose role and type no API knows.
OTHER_KIND: Final = "other"


def conversation_id(value: object) -> str:
    """The id of a conversation; the rules are those of session ids.

    Raises:
        InvalidInputError: It breaks them.
    """
    return inputs.identifier("session_id", value)


def checked(messages: object, *, max_bytes: int = DEFAULT_MAX_TEXT_BYTES) -> list[StoredContent]:
    """The messages of a conversation as the store encodes them: each a JSON object within its limits, of any shape.

    Raises:
        InvalidInputError: One is something else; it is named by its place.
    """
    return [_checked(index, message, max_bytes) for index, message in enumerate(several("messages", messages))]


def to_json(messages: object) -> str:
    """A conversation as the text of a JSON array.

    Raises:
        InvalidInputError: A message is no JSON object, or breaks a limit.
    """
    # What was checked is written, whatever another thread does to the dicts meanwhile.
    return inputs.encode_json([content.decode(each.role, each.text, each.extra) for each in checked(messages)])


def from_json(text: str | bytes, place: str) -> list[dict[str, Any]]:
    """The conversation that a JSON array holds.

    Args:
        text: The array.
        place: Where it was found, for the error.

    Raises:
        StoreCorruptError: It is no array of objects.
    """
    return messages_in(json_in(text, place), place)


def json_in(text: str | bytes, place: str) -> Any:
    """The value of a JSON text.

    Raises:
        StoreCorruptError: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Not chained: that error carries the text.
        raise StoreCorruptError(place, "holds no JSON; it is kept as it is") from None


def messages_in(found: object, place: str) -> list[dict[str, Any]]:
    """A conversation that was read.

    Raises:
        StoreCorruptError: It is none.
    """
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        raise StoreCorruptError(place, "holds no list of messages; it is kept as it is")
    return found


def _checked(index: int, message: object, max_bytes: int) -> StoredContent:
    if not isinstance(message, dict):
        raise InvalidInputError(f"messages[{index}]", "must be a dict, for example {'role': 'user', 'content': 'Hello'}")
    try:
        kind = None if content.says_its_kind(message) else OTHER_KIND
        stored = content.encode(message, kind=kind, max_bytes=max_bytes)
        if stored.extra is not None:
            content.call_ids(stored.kind, message)
    except InvalidInputError as error:
        inner = error.field.removeprefix("message")
        place = f"messages[{index}]{inner if not inner or inner.startswith('.') else '.' + inner}"
        raise InvalidInputError(place, error.reason, limit=error.limit) from None
    return stored
