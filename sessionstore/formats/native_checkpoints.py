"""The lines of the lossless JSONL for checkpoints of graphs; bytes are base64."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from .. import clock, inputs
from ..content import decoded
from ..errors import InvalidInputError
from ..queries.checkpoint_rows import KINDS, Kind, Row
from . import jsonlines, native

Check = Callable[[str, Any], Any]

_MOST: Final = 2**63 - 1


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInputError(field, "must be a str")
    return inputs.text(field, value, max_bytes=len(value) * 4)


def _optional_text(field: str, value: Any) -> str | None:
    return None if value is None else _text(field, value)


def _number(field: str, value: Any) -> int:
    return inputs.whole_number(field, value, most=_MOST)


def _optional_number(field: str, value: Any) -> int | None:
    return None if value is None else _number(field, value)


def _index(field: str, value: Any) -> int:
    # Those of errors and interrupts are negative.
    return -_number(field, -value) if type(value) is int and value < 0 else _number(field, value)


def _bytes(field: str, value: Any) -> bytes:
    try:
        return base64.b64decode(_text(field, value), validate=True)
    except ValueError:
        raise InvalidInputError(field, "must be base64") from None


def _channels(field: str, value: Any) -> str:
    if not isinstance(value, dict):
        raise InvalidInputError(field, "must be an object")
    return inputs.encode_json({_text(field, name): _number(field, number) for name, number in value.items()})


_OTHERS: Final[dict[str, Check]] = {
    "parent_id": _optional_text,
    "run_id": _optional_text,
    "version": _optional_text,
    "base_number": _optional_number,
    "items": _optional_number,
    "number": _number,
    "stamp": _number,
    "idx": _index,
    "checkpoint": _bytes,
    "metadata": _bytes,
    "value": _bytes,
    "channels": _channels,
    "created_at": native.stored_instant,
}
# The type of the line has this name already.
_TYPE: Final = {"type": "serialized_as"}


def line(kind: Kind, row: Row) -> str:
    """The line of a stored row."""
    told = {_TYPE.get(name, name): _told(name, value) for name, value in zip(kind.columns, row, strict=True)}
    return jsonlines.dumps({"type": kind.name, **told}) + "\n"


def parsed(given: Mapping[str, Any]) -> tuple[Kind, Row]:
    """The stored row of a line, with every value checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    kind = KINDS.get(str(given.get("type")))
    if kind is None:
        raise InvalidInputError("type", "must be that of a checkpoint, as often as the session's line says")
    names = {_TYPE.get(column, column): column for column in kind.columns}
    if given.keys() - {"type"} - names.keys():
        raise InvalidInputError("keys", "holds a key that this version does not know; update sessionstore")
    missing = names.keys() - given.keys()
    if missing:
        raise InvalidInputError(min(missing), "is missing")
    row = tuple(_check_of(column)(name, given[name]) for name, column in names.items())
    base = given.get("base_number")
    if base is not None and base >= given["number"]:
        raise InvalidInputError("base_number", "must be that of a value before it")
    return kind, row


def _check_of(column: str) -> Check:
    return _OTHERS.get(column, _text)


def _told(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if name == "channels":
        return decoded(value)
    return clock.from_text(value).isoformat() if name == "created_at" else value
