"""A clock that stands still, for tests about lives and instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)


class FrozenClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def go(self, time: timedelta | float = 0.0, **units: float) -> datetime:
        """Go on, or back, by seconds, by a timedelta, or by what a timedelta is made of: `go(hours=1)`."""
        step = time if isinstance(time, timedelta) else timedelta(seconds=time)
        self.now += step + timedelta(**units)
        return self.now
