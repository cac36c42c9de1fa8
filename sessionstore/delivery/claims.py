"""What a sender has claimed, and for how long it may rely on that."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import NamedTuple

from .. import clock
from ..remote.settlement import QueuedEvent


class Lease:
    """How long a claim may be relied on. Both clocks are asked: one may be set, the other stands still while a laptop sleeps."""

    def __init__(self, length: timedelta, request_seconds: float) -> None:
        self._longest = length.total_seconds() - request_seconds
        self._begun: tuple[float, datetime] = time.monotonic(), clock.utc_now()

    def is_safe(self) -> bool:
        """Whether another request would end before the lease does."""
        ticks, begun = self._begun
        passed = max(time.monotonic() - ticks, (clock.utc_now() - begun).total_seconds())
        return passed <= self._longest


class Claim(NamedTuple):
    """Events that were claimed, and for how long they are."""

    token: str
    events: list[QueuedEvent]
    lease: Lease

    def without_events(self) -> Claim:
        """The end of claims."""
        return self._replace(events=[])
