"""The only reader of the wall clock and maker of random ids; tests replace its functions."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime


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
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def from_text(text: str) -> datetime:
    """The aware datetime of a stored instant."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
