"""Cursors of keyset pages: a place among the rows, sealed, so that a changed one or one of other filters is refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, Final

from ..errors import InvalidInputError

_MAX_CURSOR_CHARS: Final = 200


def sealed(place: list[Any], filters: object) -> str:
    """The cursor for a place among the rows of some filters."""
    return base64.urlsafe_b64encode(json.dumps([place, _seal(place, filters)]).encode()).decode()


def opened(field: str, cursor: str, filters: object) -> list[Any]:
    """The place of a cursor.

    Raises:
        InvalidInputError: It is damaged or belongs to other filters; `field` names what it comes from.
    """
    refused = InvalidInputError("cursor", f"must be the {field} of a page with the same filters")
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise refused
    try:
        place, seal = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise refused from error
    if seal != _seal(place, filters):
        raise refused
    return place  # type: ignore[no-any-return]


def _seal(place: object, filters: object) -> str:
    return hashlib.sha256(repr((place, filters)).encode()).hexdigest()[:16]
