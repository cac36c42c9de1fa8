"""The only reader of the wall clock and maker of random ids; tests replace its functions."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Final

# A laptop may sleep for weeks; a clock that is further away from all that is stored may be wrong.
LONGEST_GAP: Final = timedelta(days=60)
# The digit that says so of an RFC 9562 UUID; two bits of it are random.
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
_STORED_WIDTH: Final = len("2026-01-01 00:00:00.000000")


def utc_now() -> datetime:
    """The present as an aware datetime in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A random id as dashed text (a UUID of version 4, RFC 9562)."""
    drawn = os.urandom(16).hex()
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{_VARIANT[drawn[16]]}{drawn[17:20]}-{drawn[20:]}"


def new_key() -> str:
    """A random id that sorts by its making (a UUID of version 7, RFC 9562): an index of them grows at its end."""
    # Written out, like the one above: a UUID object for each event costs as much as half of its row.
    drawn = os.urandom(10).hex()
    at = f"{time.time_ns() // 1_000_000:012x}"
    return f"{at[:8]}-{at[8:]}-7{drawn[:3]}-{_VARIANT[drawn[3]]}{drawn[4:7]}-{drawn[7:19]}"


def new_token(digits: int) -> str:
    """So many random hexadecimal digits."""
    return os.urandom(digits // 2 + 1).hex()[:digits]


def to_text(instant: datetime) -> str:
    """The stored form of an aware datetime: fixed width, UTC, sorts as text.

    It is the form of sqlmodel's `UTCDateTime`, so that both ways of writing a row agree.
    """
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(" ", "microseconds")[:_STORED_WIDTH]


def from_text(text: str) -> datetime:
    """The aware datetime of a stored instant."""
    return datetime.fromisoformat(text + "Z")
