"""The delivery of one claim: which request comes next, and what its answer means for each event. It decides, others do.

Whoever runs it sends `next_request()`, hands the answer to `take()`, and stores the settlement that this returns, until there is no
request left; `finish()` has the last settlement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from .answers import Answer, Failure, Meaning, Verdict, judge, may_still_arrive
from .backoff import aside, backoff, pause, short_wait
from .capabilities import Capabilities
from .events import CONVERSATION_ENDED, CONVERSATION_EXPIRED, CONVERSATION_STARTED
from .pace import Pace
from .requests import Item, Request, has_agent, item, parts, request
from .settlement import PLACE_OF, Pause, Place, QueuedEvent, Refusal, Settlement, Trouble

_OF_CONVERSATIONS: Final = (CONVERSATION_STARTED, CONVERSATION_ENDED, CONVERSATION_EXPIRED)
PAUSES: Final[dict[Meaning, Pause]] = {
    Meaning.AUTH: "auth",
    Meaning.CONFIG: "config",
    Meaning.REDIRECT: "redirect",
    Meaning.CERTIFICATE: "certificate",
}
UNSUPPORTED: Final = "unsupported"
_NOT_FOUND: Final = 404
_JUST_NOW: Final = timedelta(seconds=5)
_NO_ENDPOINT_YET: Final = "HTTP 404: whether the remote has no such endpoint shows when it takes another event"


@dataclass(slots=True)
class Remembered:
    """What one sender has learned of its remote.

    Attributes:
        capabilities: How events are sent to it.
        source: The store's id.
        base: The limit of the first wait after trouble, in seconds.
        compressed: Whether batches are compressed.
        sent: How many events the store has ever delivered.
        confirmed: Whether it took one since it was asked what it can do. Until then a gateway may have answered in its place, or
            it is the wrong remote, and nothing is given up.
        is_doubtful: Whether a page answered when it was asked, which may be that of a hotel's network; it is to be asked again.
            Until then nothing is decided of what a plain backend does not take, and nothing overtakes that.
        is_believed: Whether a page answered again. What a plain backend takes is sent, but nothing is given up in this pass.
        taken_kinds: The kinds that it took one of.
        taken_at: When it took one last.
        missing_kinds: The kinds that it has no endpoint for.
        pace: How much is sent at once.
        timeout: How long a request may take; after that it does not arrive any more.
    """

    capabilities: Capabilities
    source: str
    base: float
    compressed: bool
    sent: int
    timeout: timedelta
    confirmed: bool = False
    is_doubtful: bool = False
    is_believed: bool = False
    taken_kinds: set[str] = field(default_factory=set)
    taken_at: datetime | None = None
    missing_kinds: set[str] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)


class Delivery:
    """The delivery of one claim."""

    def __init__(self, token: str, events: Sequence[QueuedEvent], remembered: Remembered, now: Callable[[], datetime]) -> None:
        self._token = token
        self._remembered = remembered
        self._now = now
        self._unsupported: list[Refusal] = []
        # By their kinds: those that were answered 404 and wait for what becomes of others.
        self._doubted: dict[str, list[Item]] = {}
        self._asked_again: set[str] = set()
        self._is_likely: set[str] = set()
        self._blocked: set[Place] = set()
        self._too_large: int | None = None
        self._places = frozenset(map(PLACE_OF, events))
        items = [item(event) for event in _by_stream(events)]
        self._parts = deque(parts(items, remembered.capabilities, remembered.pace.events))
        self._request: Request | None = None
        self._arrives_until: datetime | None = None

    @property
    def arrives_until(self) -> datetime | None:
        """Until when the request that is waited for may arrive; None if none is."""
        return self._arrives_until

    def next_request(self) -> Request | None:
        """What is to be sent now; None if there is nothing left."""
        while self._parts:
            wanted = [each for each in self._parts[0] if self._is_wanted(each)]
            if wanted:
                self._parts[0] = wanted
                remembered = self._remembered
                self._request = request(wanted, remembered.capabilities, source=remembered.source, compressed=remembered.compressed)
                self._arrives_until = self._now() + remembered.timeout
                return self._request
            self._parts.popleft()
        return None

    def take(self, answer: Answer | Failure) -> Settlement:
        """What the answer to the last request means."""
        if self._request is None:
            raise RuntimeError("there is no request to answer")
        asked, self._request = self._request, None
        items = list(self._parts.popleft())
        verdict = judge(answer, asked, self._now())
        if not may_still_arrive(answer, verdict):
            self._arrives_until = None
        match verdict.meaning:
            case Meaning.DELIVERED:
                return self._delivered(items, verdict)
            case Meaning.REFUSED | Meaning.TOO_LARGE if len(items) > 1:
                return self._halved(items, verdict)
            case Meaning.REFUSED:
                return self._settled(self._refusal(items[0].event, verdict))
            case Meaning.TOO_LARGE:
                self._too_large = None
                self._remembered.pace.too_large(1)
                return self._settled(self._refusal(items[0].event, verdict, final=True))
            case Meaning.IN_FLIGHT:
                return self._in_flight(items, verdict)
            case Meaning.SERVER_ERROR:
                return self._failed(items, verdict)
            case Meaning.NO_SUCH_KIND:
                return self._without_kind(items, verdict)
            case _:
                return self._in_trouble(verdict)

    def keep_to(self, held: Collection[Place]) -> None:
        """Send nothing more of streams that the claim has lost: what is erased is not to be told any more."""
        self._blocked |= self._places.difference(held)

    def finish(self) -> Settlement:
        """The last settlement: what was decided without a request, and the end of the claim."""
        self._parts.clear()
        return self._settled()

    def _is_wanted(self, one: Item) -> bool:
        """Whether an event is to be sent. Of one that this remote does not take it is decided later what becomes of it."""
        event = one.event
        if self._blocked and event.place in self._blocked:
            return False
        if event.kind in self._doubted:
            self._doubted[event.kind].append(one)
            return False
        known = self._remembered
        reason = None
        if event.kind not in known.capabilities.kinds or event.kind in known.missing_kinds:
            reason = f"{UNSUPPORTED}: the remote does not take events of the kind {event.kind}"
        elif not known.capabilities.is_ours and event.kind in _OF_CONVERSATIONS and not has_agent(event):
            reason = f"{UNSUPPORTED}: the remote takes no conversation without an agent"
        if reason is None:
            return True
        if known.is_doubtful:
            # The remote may take it after all: then what comes after it in its stream must not be there before it.
            self._blocked.add(event.place)
            return False
        self._unsupported.append(Refusal(event, None, reason, counts=False, final=True))
        return False

    def _delivered(self, items: Sequence[Item], verdict: Verdict) -> Settlement:
        known = self._remembered
        known.confirmed = not (known.is_doubtful or known.is_believed)
        known.pace.speed_up()
        sent: list[QueuedEvent] = []
        refused: list[Refusal] = []
        all_sent = not verdict.refused and not verdict.unmarked
        for each in items:
            event = each.event
            if all_sent:
                sent.append(event)
            elif event.key in verdict.refused:
                error = f"rejected: {verdict.refused[event.key]}"
                refused.append(self._refusal(event, verdict._replace(error=error)))
            elif event.key in verdict.unmarked:
                refused.append(self._wait(event, verdict._replace(error="the answer did not name it"), self._backoff(0)))
            else:
                sent.append(event)
        known.sent += len(sent)
        known.taken_kinds.update(event.kind for event in sent)
        known.taken_at = self._now()
        self._ask_doubted_again()
        return self._settled(*refused, sent=sent)

    def _halved(self, items: list[Item], verdict: Verdict) -> Settlement:
        if verdict.meaning is Meaning.TOO_LARGE:
            self._too_large = len(items)
        middle = len(items) // 2
        self._parts.extendleft((items[middle:], items[:middle]))
        return self._settled()

    def _in_flight(self, items: Sequence[Item], verdict: Verdict) -> Settlement:
        """After the remote said that it is still at the same keys. Who says so of an event for ever does not block its stream."""
        if len(items) == 1:
            event = items[0].event
            wait = max(short_wait(), self._backoff(event.attempts))
            return self._settled(self._refusal(event, verdict._replace(asked=wait), counts=self._others_were_sent(event)))
        waits = {each.event.place: each.event for each in reversed(items)}
        return self._settled(*(self._wait(event, verdict, short_wait()) for event in waits.values()))

    def _failed(self, items: Sequence[Item], verdict: Verdict) -> Settlement:
        """After a server error, or an answer that is none: the fault of an event only if others get through meanwhile."""
        pace = self._remembered.pace
        is_outage = pace.strike(len(items))
        refused = []
        if len(items) == 1:
            event = items[0].event
            refusal = self._refusal(event, verdict, counts=self._others_were_sent(event))
            # If it is the oldest and breaks the remote, the next request must be about another stream, in this pass or the next.
            refused.append(refusal._replace(wait=max(refusal.wait, aside(pace.strikes, base=self._remembered.base))))
        else:
            # The next claim takes fewer at once.
            self._parts.clear()
        if is_outage:
            return self._in_trouble(verdict, *refused)
        return self._settled(*refused)

    def _without_kind(self, items: Sequence[Item], verdict: Verdict) -> Settlement:
        """After a 404: an endpoint is missing if the remote has just taken another event, or takes one and says the same again."""
        event = items[0].event
        known = self._remembered
        if event.kind in known.taken_kinds:
            # The endpoint is there. Either something else answers in its place, or that event is at fault.
            self._is_likely.clear()
            return self._failed(items, verdict)
        self._doubted[event.kind] = [*items]
        if self._has_just_taken():
            self._is_likely.add(event.kind)
        if event.kind in self._asked_again:
            self._give_up_kind(event.kind)
        return self._settled()

    def _give_up_kind(self, kind: str) -> None:
        self._remembered.missing_kinds.add(kind)
        error = f"{UNSUPPORTED}: the remote has no endpoint for events of the kind {kind}"
        doubted = self._doubted.pop(kind)
        self._unsupported += [Refusal(each.event, _NOT_FOUND, error, counts=False, final=True) for each in doubted]

    def _has_just_taken(self) -> bool:
        taken_at = self._remembered.taken_at
        return taken_at is not None and timedelta(0) <= self._now() - taken_at <= _JUST_NOW

    def _ask_doubted_again(self) -> None:
        """Now that the remote took something: that it has no such endpoint is its own answer, if it gives it again."""
        for kind in [*self._doubted]:
            if kind in self._is_likely:
                self._give_up_kind(kind)
            else:
                self._asked_again.add(kind)
                self._parts.extendleft([each] for each in reversed(self._doubted.pop(kind)))

    def _in_trouble(self, verdict: Verdict, *refused: Refusal) -> Settlement:
        self._parts.clear()
        self._remembered.pace.slow_down()
        trouble = Trouble(verdict.error, verdict.status, PAUSES.get(verdict.meaning), verdict.asked, self._remembered.base)
        return self._settled(*refused, trouble=trouble)

    def _others_were_sent(self, event: QueuedEvent) -> bool:
        """Whether other events got through since this one was refused last."""
        return event.sent_before is not None and self._remembered.sent > event.sent_before

    def _refusal(self, event: QueuedEvent, verdict: Verdict, *, counts: bool = True, final: bool = False) -> Refusal:
        self._blocked.add(event.place)
        wait = verdict.asked or self._backoff(event.attempts)
        return Refusal(event, verdict.status, verdict.error, wait, counts, final)

    def _wait(self, event: QueuedEvent, verdict: Verdict, wait: timedelta) -> Refusal:
        self._blocked.add(event.place)
        return Refusal(event, verdict.status, verdict.error, wait, counts=False)

    def _backoff(self, attempts: int) -> timedelta:
        return backoff(attempts + 1, base=self._remembered.base)

    def _settled(self, *refused: Refusal, sent: Sequence[QueuedEvent] = (), trouble: Trouble | None = None) -> Settlement:
        if not self._parts and self._doubted and not self._remembered.confirmed and not self._remembered.is_doubtful:
            # Perhaps nothing is there but a web server.
            error = "HTTP 404 for every kind of event; is the address of the remote right?"
            trouble = trouble or Trouble(error, 404, "config", base=self._remembered.base)
        if not self._parts and self._too_large is not None:
            self._remembered.pace.too_large(self._too_large)
        decided = [*self._decided_unsupported(has_trouble=trouble is not None), *refused]
        arrives_until, self._arrives_until = self._arrives_until, None
        return Settlement(
            token=self._token,
            sent_before=self._remembered.sent,
            sent=tuple(sent),
            refused=tuple(decided),
            trouble=trouble,
            over=not self._parts,
            arrives_until=arrives_until,
        )

    def _decided_unsupported(self, *, has_trouble: bool) -> list[Refusal]:
        """What becomes of the events that the remote has no use for.

        They are given up as soon as it has taken any other one, so that it is known who said so; at the end of the claim they
        wait. What came after them in their streams was sent, for they are never to be sent to this remote. In doubt whether it
        answered at all nothing is decided.
        """
        is_sure = self._remembered.confirmed
        if not is_sure and self._parts:
            return []
        if is_sure and not self._parts and not has_trouble:
            for kind in self._is_likely & self._doubted.keys():
                self._give_up_kind(kind)
        waiting, self._unsupported = self._unsupported, []
        doubted = [] if self._parts else [each.event for items in self._doubted.values() for each in items]
        if has_trouble or self._remembered.is_doubtful:
            return waiting if is_sure else []
        wait = short_wait() if self._remembered.is_believed else pause(1)
        decided = waiting if is_sure else [each._replace(final=False, wait=wait) for each in waiting]
        return decided + [Refusal(event, _NOT_FOUND, _NO_ENDPOINT_YET, wait, counts=False) for event in doubted]


def _by_stream(events: Sequence[QueuedEvent]) -> list[QueuedEvent]:
    """The events of a stream beside each other, in their order; streams by their oldest events."""
    streams: dict[Place, list[QueuedEvent]] = {}
    for event, place in zip(events, map(PLACE_OF, events), strict=True):
        streams.setdefault(place, []).append(event)
    return [event for stream in streams.values() for event in stream]
