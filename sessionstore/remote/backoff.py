"""How long to wait before a remote is tried again: random up to a limit that doubles, or what the remote asked for."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

# Nothing waits longer than this for its next try, whatever a clock or a remote says.
LONGEST_WAIT: Final = timedelta(hours=1)
_USUAL_CAP: Final = timedelta(minutes=5)
_CAP_OF_LONG_OUTAGES: Final = LONGEST_WAIT
# Longer than the usual cap; yet after an outage this is how late a stream may be.
_LONGEST_ASIDE: Final = timedelta(minutes=15)
_LONG_OUTAGE: Final = timedelta(hours=24)
_FIRST_PAUSE: Final = timedelta(minutes=5)
_MOST_DOUBLINGS: Final = 30
# Without any, a server that is down would be asked without a pause.
_LEAST_BASE: Final = 0.01

_draw = random.Random()  # noqa: S311 - it spreads requests, it hides nothing


def backoff(failures: int, *, base: float, failing_for: timedelta = timedelta(0)) -> timedelta:
    """The wait after so many failures in a row: full jitter, so that many clients do not come back at the same time.

    Args:
        failures: At least 1.
        base: The limit after the first one, in seconds.
        failing_for: How long it has not gone well; after a day the limit may be an hour instead of five minutes.
    """
    cap = _CAP_OF_LONG_OUTAGES if failing_for >= _LONG_OUTAGE else _USUAL_CAP
    limit = min(cap.total_seconds(), max(base, _LEAST_BASE) * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
    return timedelta(seconds=_draw.uniform(0, limit))


def pause(failures: int) -> timedelta:
    """The wait while somebody has to do something first: minutes, then an hour."""
    limit = min(LONGEST_WAIT, _FIRST_PAUSE * 2 ** min(failures - 1, _MOST_DOUBLINGS))
    return timedelta(seconds=_draw.uniform(limit.total_seconds() / 2, limit.total_seconds()))


def aside(strikes: int, *, base: float) -> timedelta:
    """The wait of a stream that may be what breaks the remote: longer than those between tries, so that others are tried first.

    Args:
        strikes: How many server errors there were in a row.
        base: The limit of the first wait after trouble, in seconds.
    """
    limit = min(_LONGEST_ASIDE.total_seconds(), max(base, _LEAST_BASE) * 2.0 ** min(strikes, _MOST_DOUBLINGS))
    return timedelta(seconds=_draw.uniform(limit / 2, limit))


def short_wait() -> timedelta:
    """The wait while another request with the same key is being answered."""
    return timedelta(seconds=_draw.uniform(1, 5))


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3), at most an hour; None if it asks for nothing that can be used.

    Args:
        header: Seconds, or a date.
        now: The present, aware.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Longer numbers are beyond the limit anyway, and int() refuses very long ones.
        seconds = float(text[:12])
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, IndexError, OverflowError):
            return None
        seconds = ((at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(timedelta(seconds=seconds), LONGEST_WAIT) if seconds > 0 else None
