"""The only reader of the wall clock and maker of random ids; tests replace its functions."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Final

_STORED_WIDTH: Final = len("2026-01-01 00:00:00.000000")


def utc_now() -> datetime:
    """The present as an aware datetime in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A random id as dashed text."""
    return str(uuid.uuid4())


def to_text(instant: datetime) -> str:
    """The stored form of an aware datetime: fixed width, UTC, sorts as text.

    It is the form of sqlmodel's `UTCDateTime`, so that both ways of writing a row agree.
    """
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(" ", "microseconds")[:_STORED_WIDTH]


def from_text(text: str) -> datetime:
    """The aware datetime of a stored instant."""
    return datetime.fromisoformat(text + "+00:00")
