"""What becomes of events that were claimed: plain values between the decisions, the network and the database."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final, Literal, NamedTuple

from .backoff import LONGEST_WAIT, backoff, pause

# How long a claim holds, at least, and twice as long as a request may take. Who is killed with one delays its streams by as much.
SHORTEST_LEASE: Final = timedelta(seconds=60)
# So many answered refusals make a dead letter.
MAX_ATTEMPTS: Final = 20

Place = tuple[str, str]
Pause = Literal["auth", "config", "redirect", "certificate"]


def lease_for(timeout: float) -> timedelta:
    """How long a claim holds whose requests may take so many seconds each."""
    return max(SHORTEST_LEASE, timedelta(seconds=2 * timeout))


class QueuedEvent(NamedTuple):
    """An event of the outbox; `body` is its JSON text as it was frozen, `occurred_at` a stored instant."""

    id: int
    key: str
    stream: str
    kind: str
    namespace: str
    body: str
    attempts: int
    occurred_at: str
    size_bytes: int
    last_status: int | None
    sent_before: int | None

    @property
    def place(self) -> Place:
        """Its stream; events of one place are delivered in order."""
        return self.namespace, self.stream


# The same, for very many events.
PLACE_OF: Final[Callable[[QueuedEvent], Place]] = attrgetter("namespace", "stream")


class Refusal(NamedTuple):
    """An event that the remote did not take.

    Attributes:
        event: Which one.
        status: The HTTP status of the answer.
        error: Why, without secrets.
        wait: Before its stream is tried again.
        counts: Whether it was an attempt, after 20 of which the event is given up.
        final: Whether it is given up now.
    """

    event: QueuedEvent
    status: int | None
    error: str
    wait: timedelta = timedelta(0)
    counts: bool = True
    final: bool = False

    @property
    def attempts(self) -> int:
        """How often the remote has refused it by now."""
        return self.event.attempts + self.counts

    @property
    def is_last(self) -> bool:
        """Whether the event is given up."""
        return self.final or self.attempts >= MAX_ATTEMPTS


class Trouble(NamedTuple):
    """Why the remote cannot be used now. It costs no event an attempt.

    Attributes:
        error: What happened, without secrets.
        status: The HTTP status of the answer, if there was one.
        paused: What somebody has to set right first; None for an outage.
        asked: The wait that the remote asked for.
        base: The limit of the first wait, in seconds.
    """

    error: str
    status: int | None = None
    paused: Pause | None = None
    asked: timedelta | None = None
    base: float = 1.0

    def wait_after(self, failures: int, failing_for: timedelta) -> timedelta:
        """Until the next try, after so many failures in a row."""
        wait = pause(failures) if self.paused else backoff(failures, base=self.base, failing_for=failing_for)
        # Never sooner than asked for; but who always asks for a second is not asked every second for a day.
        return min(max(self.asked or wait, wait), LONGEST_WAIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of events of one claim, to be stored in one transaction.

    Attributes:
        token: Of the claim.
        sent_before: How many events had ever been delivered when the claim was made.
        sent: The delivered ones.
        refused: Those that were not taken.
        trouble: Why nothing else is sent now.
        over: Whether the claim is done with, and all of its streams are free.
        arrives_until: Until when a request that was not answered may still arrive; None if there is none.
    """

    token: str
    sent_before: int
    sent: tuple[QueuedEvent, ...] = ()
    refused: tuple[Refusal, ...] = ()
    trouble: Trouble | None = None
    over: bool = False
    arrives_until: datetime | None = None

    @property
    def size(self) -> int:
        """How many events it is about."""
        return len(self.sent) + len(self.refused)

    def of_streams(self, places: Collection[tuple[str, ...]]) -> Settlement:
        """The part of it that is about some streams."""
        if not self.refused and all(place in places for place in set(map(PLACE_OF, self.sent))):
            return self
        sent = tuple(event for event in self.sent if event.place in places)
        return replace(self, sent=sent, refused=tuple(each for each in self.refused if each.event.place in places))
