"""How much is sent at once: less after trouble, more with every success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MOST_EVENTS: Final = 500
MOST_REQUESTS: Final = 2
_SHRINKING: Final = 4
# So many server errors with nothing delivered between them are an outage, and no event's fault.
_STRIKES: Final = 2
# After so many times there is but one event in a request.
_MOST_SHRINKS: Final = 5


@dataclass(slots=True)
class Pace:
    """The pace of one sender.

    Attributes:
        events: How many events go into a request.
        most_events: How many may; a remote that found a request too large has lowered it.
        requests: How many requests are under way at once.
        strikes: Server errors since the last success.
    """

    events: int = MOST_EVENTS
    most_events: int = MOST_EVENTS
    requests: int = 1
    strikes: int = 0

    def go_on_after(self, failures: int) -> None:
        """Begin with as few events as earlier senders ended with: one of the oldest may be what the remote fails at."""
        self.events = max(1, MOST_EVENTS // _SHRINKING ** min(failures * _STRIKES, _MOST_SHRINKS))

    def speed_up(self) -> None:
        """After a success: twice as much, up to the limits."""
        self.strikes = 0
        self.events = min(self.most_events, self.events * 2)
        self.requests = min(MOST_REQUESTS, self.requests * 2)

    def slow_down(self) -> None:
        """After the remote could not be used: one request at a time."""
        self.requests = 1

    def strike(self, events: int) -> bool:
        """After a server error on so many events; True if it is an outage. Fewer go together, until the one at fault is alone."""
        self.strikes += 1
        self.slow_down()
        self.events = max(1, events // _SHRINKING)
        return self.strikes >= _STRIKES

    def too_large(self, events: int) -> None:
        """After a request with so many events was too large."""
        if events > 1:
            self.most_events = max(1, min(self.most_events, events // 2))
            self.events = min(self.events, self.most_events)
        else:
            # That event was at fault, not the number of them.
            self.events = self.most_events = MOST_EVENTS
