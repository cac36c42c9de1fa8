"""The delivery of claims against remotes of every temper: what is sent again, what is given up, and what never is."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.remote.answers import Answer, Failure
from sessionstore.remote.capabilities import PLAIN, Capabilities
from sessionstore.remote.delivery import UNSUPPORTED, Delivery, Remembered
from sessionstore.remote.events import PATHS
from sessionstore.remote.requests import IDEMPOTENCY_KEY, Request
from sessionstore.remote.settlement import MAX_ATTEMPTS, Place, QueuedEvent, Refusal, Settlement, Trouble

NOW = datetime(2026, 3, 28, 12, tzinfo=UTC)
TIMEOUT = timedelta(seconds=10)
OURS = Capabilities(frozenset(PATHS), "/events/batch", 500)
START, END, EXPIRED, METRIC = "conversation_start", "conversation_end", "conversation_expired", "metric"

Reply = Answer | Failure
Temper = Callable[[Request], Reply | None]


def event(number: int, stream: int | str | None = None, kind: str = START, agent: str | None = "a", **changes: Any) -> QueuedEvent:
    body = json.dumps({"agent_id": agent} if agent else {})
    name = f"session:{number if stream is None else stream}"
    made = QueuedEvent(number, f"key-{number}", name, kind, "default", body, 0, "2026-03-28 11:00:00.000000", len(body), None, None)
    return made._replace(**changes)


def events(count: int, per_stream: int = 1) -> list[QueuedEvent]:
    return [event(number, number // per_stream) for number in range(count)]


def remembered(capabilities: Capabilities = OURS, *, confirmed: bool = False) -> Remembered:
    return Remembered(capabilities, "store", 1.0, compressed=False, sent=0, timeout=TIMEOUT, confirmed=confirmed)


def keys_of(asked: Request) -> list[str]:
    return [each.event.key for each in asked.items]


def status(code: int) -> Answer:
    return Answer(code, {}, b"")


@dataclass
class Backend:
    """A remote. The tempers are asked in turn; whatever none of them answers is taken."""

    tempers: Sequence[Temper] = ()
    rejected: frozenset[str] = frozenset()
    unnamed: frozenset[str] = frozenset()
    requests: list[list[str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    def __call__(self, asked: Request) -> Reply:
        keys = keys_of(asked)
        self.requests.append(keys)
        for temper in self.tempers:
            reply = temper(asked)
            if reply is not None:
                return reply
        if not asked.is_batch:
            assert asked.headers[IDEMPOTENCY_KEY] == keys[0]
            self.stored += keys
            return Answer(201, {}, b"{}")
        told = [{"key": key, "status": "rejected" if key in self.rejected else "stored"} for key in keys if key not in self.unnamed]
        self.stored += [each["key"] for each in told if each["status"] == "stored"]
        return Answer(200, {}, json.dumps({"results": told}).encode())


def on_keys(keys: Iterable[str], code: int) -> Temper:
    chosen = frozenset(keys)
    return lambda asked: status(code) if chosen & set(keys_of(asked)) else None


def above(limit: int) -> Temper:
    return lambda asked: status(413) if len(asked.items) > limit else None


def above_bytes(limit: int) -> Temper:
    return lambda asked: status(413) if len(asked.body) > limit else None


def on_kind(kind: str, code: int) -> Temper:
    return lambda asked: status(code) if asked.items[0].event.kind == kind else None


def always(reply: Reply) -> Temper:
    return lambda _: reply


@dataclass
class Outcome:
    """What the settlements of one claim say together."""

    settlements: list[Settlement]
    requests: list[list[str]]

    @property
    def sent(self) -> list[QueuedEvent]:
        return [each for settlement in self.settlements for each in settlement.sent]

    @property
    def refused(self) -> list[Refusal]:
        return [each for settlement in self.settlements for each in settlement.refused]

    @property
    def troubles(self) -> list[Trouble]:
        return [settlement.trouble for settlement in self.settlements if settlement.trouble is not None]


def deliver(claimed: Sequence[QueuedEvent], known: Remembered, backend: Backend) -> Outcome:
    """One claim to its end, as a sender does it."""
    before = len(backend.requests)
    delivery = Delivery("token", claimed, known, lambda: NOW)
    settlements: list[Settlement] = []
    while not (settlements and settlements[-1].over):
        asked = delivery.next_request()
        settlements.append(delivery.finish() if asked is None else delivery.take(backend(asked)))
        assert len(settlements) <= 3 * len(claimed) + 3
    return Outcome(settlements, backend.requests[before:])


class Outbox:
    """Pending events and what settlements make of them, on a clock of its own, as the queries and the background do it."""

    def __init__(self, waiting: Iterable[QueuedEvent], known: Remembered) -> None:
        self.waiting = {each.id: each for each in waiting}
        self.known = known
        self.sent: list[QueuedEvent] = []
        self.dead: list[Refusal] = []
        self.troubles: list[Trouble] = []
        self.now = timedelta(0)
        self._held_until: dict[Place, timedelta] = {}
        self._failures = 0

    def drain_once(self, backend: Backend) -> None:
        """Claims until the remote cannot be used, or all that wait are held. Then time goes on to the next try."""
        while claimed := self._free()[: self.known.pace.events]:
            outcome = deliver(claimed, self.known, backend)
            for settlement in outcome.settlements:
                self._store(settlement)
            if outcome.troubles:
                (trouble,) = outcome.troubles
                self.troubles.append(trouble)
                self._failures += 1
                self.now += trouble.wait_after(self._failures, timedelta(0))
                return
        self.now = max(
            self.now, min((self._held_until.get(each.place, self.now) for each in self.waiting.values()), default=self.now)
        )

    def _free(self) -> list[QueuedEvent]:
        return [each for each in self.waiting.values() if self._held_until.get(each.place, self.now) <= self.now]

    def _store(self, settlement: Settlement) -> None:
        for each in settlement.sent:
            self.sent.append(self.waiting.pop(each.id))
            self._failures = 0
        for refusal in settlement.refused:
            if refusal.is_last:
                self.dead.append(refusal)
                del self.waiting[refusal.event.id]
            else:
                self._held_until[refusal.event.place] = self.now + refusal.wait
                self.waiting[refusal.event.id] = refusal.event._replace(
                    attempts=refusal.attempts, last_status=refusal.status, sent_before=settlement.sent_before
                )


# One claim, any remote.


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[QueuedEvent], Remembered, Backend]:
    count = draw(st.integers(1, 40))
    is_ours = draw(st.booleans())
    kinds = st.sampled_from([START, END, EXPIRED, METRIC, "agent_status"])
    claimed = [
        event(
            number,
            draw(st.integers(0, 8)),
            draw(kinds),
            draw(st.sampled_from(["a", "a", "a", None])),
            attempts=draw(st.sampled_from([0, 0, 0, 1, MAX_ATTEMPTS - 1])),
            last_status=draw(st.sampled_from([None, None, None, 500])),
            sent_before=draw(st.sampled_from([None, -1])),
        )
        for number in range(count)
    ]
    some = st.sets(st.sampled_from([each.key for each in claimed]), max_size=4)
    outage_at = draw(st.none() | st.integers(0, 20))
    outage = draw(
        st.sampled_from([Failure("ConnectError"), status(503), status(401), status(302), status(500), Answer(200, {}, b"<")])
    )
    backend = Backend(rejected=frozenset(draw(some)), unnamed=frozenset(draw(some)))
    tempers: list[Temper] = [
        lambda _: outage if outage_at is not None and len(backend.requests) > outage_at else None,
        above(draw(st.sampled_from([500, 500, 7, 1, 0]))),
        above_bytes(draw(st.sampled_from([1 << 20, 2_000, 300]))),
        on_keys(draw(some), 400),
        on_keys(draw(some), 500),
        on_keys(draw(some), 409),
    ]
    if not is_ours:
        tempers.append(on_kind(draw(kinds), 404))
    backend.tempers = tempers
    limit = draw(st.sampled_from([500, 10, 3]))
    capabilities = (
        Capabilities(frozenset(PATHS), "/events/batch", limit, draw(st.sampled_from([1 << 20, 900]))) if is_ours else PLAIN
    )
    known = remembered(capabilities, confirmed=draw(st.booleans()))
    known.pace.events = draw(st.integers(1, 500))
    return claimed, known, backend


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_whatever_a_remote_does_each_event_ends_once_and_streams_keep_their_order(
    scene: tuple[list[QueuedEvent], Remembered, Backend],
) -> None:
    claimed, known, backend = scene
    outcome = deliver(claimed, known, backend)
    ends = [each.id for each in outcome.sent] + [each.event.id for each in outcome.refused]
    assert len(ends) == len(set(ends)), "an event has two ends"
    assert {each.key for each in outcome.sent} == set(backend.stored), "what is stored is settled, and nothing else"
    assert [each.over for each in outcome.settlements] == [False] * (len(outcome.settlements) - 1) + [True]
    assert len(outcome.requests) <= 2 * len(claimed)
    for place in {each.place for each in claimed}:
        of_stream = [each.id for each in outcome.sent if each.place == place]
        assert of_stream == sorted(of_stream)
    assert_nothing_follows_a_refusal(claimed, known, backend)


def assert_nothing_follows_a_refusal(claimed: list[QueuedEvent], known: Remembered, backend: Backend) -> None:
    """Run it again, request by request."""
    backend.requests.clear()
    known.missing_kinds.clear()
    known.confirmed = False
    delivery = Delivery("token", claimed, known, lambda: NOW)
    closed: set[tuple[str, str]] = set()
    while (asked := delivery.next_request()) is not None:
        assert closed.isdisjoint(each.event.place for each in asked.items)
        settlement = delivery.take(backend(asked))
        closed |= {each.event.place for each in settlement.refused if not each.error.startswith(UNSUPPORTED)}
        if settlement.over:
            break


# Poison.


@pytest.mark.parametrize("code", [400, 422])
@pytest.mark.parametrize("place", [0, 1, 250, 499])
def test_one_poisoned_event_of_500_is_found_and_its_neighbours_are_delivered(code: int, place: int) -> None:
    backend = Backend([on_keys([f"key-{place}"], code)])
    outcome = deliver(events(500), remembered(), backend)
    assert [(each.event.id, each.counts, each.status) for each in outcome.refused] == [(place, True, code)]
    assert len(outcome.sent) == 499
    assert len(outcome.requests) <= 2 * math.log2(500) + 2


@given(st.sets(st.integers(0, 199), max_size=12))
@settings(max_examples=50, deadline=None)
def test_exactly_the_poisoned_ones_are_refused(poisoned: set[int]) -> None:
    outcome = deliver(events(200), remembered(), Backend([on_keys([f"key-{number}" for number in poisoned], 400)]))
    assert {each.event.id for each in outcome.refused} == poisoned
    assert {each.id for each in outcome.sent} == set(range(200)) - poisoned
    assert len(outcome.requests) <= 1 + len(poisoned) * 2 * (math.log2(200) + 1)


def test_a_poisoned_event_is_dead_after_20_refusals_and_only_its_stream_waited() -> None:
    outbox = Outbox(events(100, per_stream=5), remembered())
    backend = Backend([on_keys(["key-12"], 400)])
    for times in range(1, MAX_ATTEMPTS + 1):
        outbox.drain_once(backend)
        assert outbox.waiting.keys() == ({12, 13, 14} if times < MAX_ATTEMPTS else set())
    assert [(each.event.id, each.attempts, each.is_last) for each in outbox.dead] == [(12, MAX_ATTEMPTS, True)]
    assert not outbox.troubles


@pytest.mark.parametrize("poisoned", [1, 3])
@pytest.mark.parametrize("code", [500, 504, 408, 200, 409])
@pytest.mark.parametrize("capabilities", [OURS, PLAIN], ids=["batches", "single posts"])
def test_events_that_break_the_server_die_in_the_end_and_their_neighbours_are_delivered(
    code: int, capabilities: Capabilities, poisoned: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    outbox = Outbox(events(300, per_stream=3), remembered(capabilities))
    # One in each stream; that there are several of them looks like an outage.
    poison = {3 * stream for stream in random.Random(seed).sample(range(100), poisoned)}
    bad = {f"key-{number}" for number in poison}
    backend = Backend([lambda asked: Answer(code, {}, b"<html>") if bad & set(keys_of(asked)) else None])
    cycle = 0
    while len(outbox.dead) < len(poison) and cycle < 500:
        cycle += 1
        outbox.drain_once(backend)
        # Others go on being recorded; without them it could as well be an outage.
        outbox.waiting[1_000 + cycle] = event(1_000 + cycle)
    while outbox.waiting and cycle < 500:
        outbox.drain_once(backend)
    assert {each.event.id for each in outbox.dead} == poison
    assert {each.attempts for each in outbox.dead} == {MAX_ATTEMPTS}
    assert not outbox.waiting
    assert sorted(backend.stored) == sorted(each.key for each in outbox.sent)
    assert len(outbox.sent) == len({each.key for each in outbox.sent}) == 300 - len(poison) + cycle


def test_the_oldest_events_may_break_the_server_after_an_outage_and_the_others_still_get_through() -> None:
    outbox = Outbox(events(40), remembered())
    for _ in range(10):
        outbox.drain_once(Backend([always(status(500))]))
    backend = Backend([on_keys([f"key-{number}" for number in range(4)], 500)])
    online_again = outbox.now
    while outbox.waiting.keys() - range(4):
        outbox.drain_once(backend)
        assert outbox.now - online_again <= timedelta(hours=1)


OUTAGES = [
    Failure("ConnectError: refused"),
    Failure("ReadTimeout"),
    Failure("ConnectError: certificate", is_certificate=True),
    *(status(code) for code in (301, 401, 403, 410, 415, 408, 425, 429, 500, 501, 502, 503, 504, 505, 507, 520, 599)),
    Answer(200, {}, b"<html>Sign in to the hotel</html>"),
    Answer(200, {}, b'{"results": [{"key": "key-0", "sta'),
    Answer(200, {}, None),
]


@pytest.mark.parametrize("capabilities", [OURS, PLAIN], ids=["batches", "single posts"])
@pytest.mark.parametrize("reply", OUTAGES, ids=lambda reply: str(reply)[:50])
def test_no_outage_however_long_costs_an_event_an_attempt(reply: Reply, capabilities: Capabilities) -> None:
    outbox = Outbox(events(60, per_stream=2), remembered(capabilities))
    outbox.drain_once(Backend())
    outbox.sent.clear()
    outbox.waiting = {number: event(number, number // 2) for number in range(60)}
    backend = Backend([always(reply)])
    for _ in range(100):
        outbox.drain_once(backend)
    assert {each.attempts for each in outbox.waiting.values()} == {0}
    assert len(outbox.waiting) == 60
    # Each try is a request, or two until it is known that it is no event's fault.
    assert len(backend.requests) <= 102
    online_again = outbox.now
    while outbox.waiting:
        outbox.drain_once(Backend())
    assert [each.id for each in sorted(outbox.sent)] == list(range(60))
    assert not outbox.dead
    assert outbox.now - online_again <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("reply", "paused"),
    [
        (status(401), "auth"),
        (status(403), "auth"),
        (status(302), "redirect"),
        (status(404), "config"),
        (status(405), "config"),
        (status(410), "config"),
        (status(415), "config"),
        (status(501), "config"),
        (status(505), "config"),
        (Failure("ConnectError", is_certificate=True), "certificate"),
        (Failure("ConnectError"), None),
        (status(429), None),
        (status(503), None),
    ],
    ids=str,
)
def test_what_somebody_has_to_set_right_pauses_everything_at_once(reply: Reply, paused: str | None) -> None:
    outcome = deliver(events(600), remembered(), Backend([always(reply)]))
    assert [each.paused for each in outcome.troubles] == [paused]
    assert len(outcome.requests) == 1
    assert not outcome.refused
    assert not outcome.sent


def test_after_trouble_one_request_at_a_time_is_sent() -> None:
    known = remembered()
    known.pace.requests = 2
    deliver(events(1), known, Backend([always(Failure("ConnectError"))]))
    assert known.pace.requests == 1


# Sizes.


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 499])
def test_a_limit_of_the_remote_is_found_with_about_twice_the_requests(limit: int) -> None:
    outbox = Outbox(events(2_000), remembered())
    backend = Backend([above(limit)])
    outbox.drain_once(backend)
    assert len(outbox.sent) == 2_000
    assert not outbox.dead
    # Half of a size that was too large is at least half of the limit; the first 500 are halved until it is found.
    assert len(backend.requests) <= 2 * (2_000 + 500) / limit + 2 * math.log2(500) + 2


def test_a_limit_in_bytes_is_found_too() -> None:
    outbox = Outbox(events(2_000), remembered())
    backend = Backend([above_bytes(20_000)])
    outbox.drain_once(backend)
    assert len(outbox.sent) == 2_000
    size = sum(len(keys) for keys in backend.requests) / len(backend.requests)
    assert size > 20


def test_an_event_too_large_by_itself_is_dead_and_slows_nobody_for_long() -> None:
    outbox = Outbox(events(4_000), remembered())
    backend = Backend([on_keys(["key-5"], 413)])
    outbox.drain_once(backend)
    assert [(each.event.id, each.attempts, each.status) for each in outbox.dead] == [(5, 1, 413)]
    assert len(outbox.sent) == 3_999
    assert len(backend.requests) <= 4_000 / 500 + 2 * (2 * math.log2(500) + 1)


# Kinds that a remote does not take.


@pytest.mark.parametrize("code", [404, 405])
def test_a_missing_endpoint_gives_up_its_kind_and_goes_on_with_the_others(code: int) -> None:
    claimed = [event(0, 0, START), event(1, 0, EXPIRED), event(2, 1, START), event(3, 1, EXPIRED), event(4, 1, END)]
    backend = Backend([on_kind(EXPIRED, code)])
    outcome = deliver(claimed, remembered(PLAIN), backend)
    assert [each.key for each in outcome.sent] == ["key-0", "key-2", "key-4"]
    assert {each.event.id: (each.is_last, each.counts) for each in outcome.refused} == {1: (True, False), 3: (True, False)}
    assert all(each.error.startswith(UNSUPPORTED) for each in outcome.refused)
    # It is asked once for the kind, not for each event.
    assert outcome.requests == [["key-0"], ["key-1"], ["key-2"], ["key-4"]]


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("taken", [set(), {START}, {START, END, "agent_status"}], ids=len)
def test_a_gateway_that_answers_404_for_a_while_gives_up_nothing(confirmed: bool, taken: set[str]) -> None:
    claimed = [event(number, number // 2, kind) for number, kind in enumerate([START, END, "agent_status", "agent_activity"] * 20)]
    known = remembered(PLAIN, confirmed=confirmed)
    known.taken_kinds |= taken
    outbox = Outbox(claimed, known)
    for _ in range(50):
        outbox.drain_once(Backend([always(status(404))]))
    assert not outbox.dead
    assert {each.attempts for each in outbox.waiting.values()} == {0}
    while outbox.waiting:
        outbox.drain_once(Backend())
    assert len(outbox.sent) == 80
    assert not outbox.dead


def test_a_gateway_that_is_well_again_in_mid_claim_gives_up_nothing() -> None:
    claimed = [event(0, 0, START), event(1, 1, END), event(2, 2, "agent_status"), event(3, 3, START)]
    backend = Backend()
    backend.tempers = [lambda _: status(404) if len(backend.requests) <= 2 else None]
    outcome = deliver(claimed, remembered(PLAIN), backend)
    assert not outcome.refused
    assert sorted(each.id for each in outcome.sent) == [0, 1, 2, 3]


def test_an_endpoint_that_may_be_missing_keeps_nothing_else_of_its_stream_waiting() -> None:
    claimed = [event(0, 0, EXPIRED), event(1, 0, START), event(2, 0, END)]
    outcome = deliver(claimed, remembered(PLAIN), Backend([on_kind(EXPIRED, 404)]))
    assert [each.id for each in outcome.sent] == [1, 2]
    assert [(each.event.id, each.is_last, each.status) for each in outcome.refused] == [(0, True, 404)]


def test_a_missing_endpoint_alone_pauses_nothing_where_others_were_taken() -> None:
    outcome = deliver([event(0, kind=EXPIRED)], remembered(PLAIN, confirmed=True), Backend([on_kind(EXPIRED, 404)]))
    assert [(each.is_last, each.counts) for each in outcome.refused] == [(False, False)]
    assert timedelta(minutes=2) < outcome.refused[0].wait <= timedelta(minutes=5)
    assert not outcome.troubles


def test_one_conversation_that_the_remote_does_not_find_is_its_own_fault() -> None:
    """Some backends say 404 of a conversation that they do not know; its kind goes on."""
    outbox = Outbox([event(number, number, END) for number in range(10)], remembered(PLAIN))
    backend = Backend([on_keys(["key-3"], 404)])
    cycle = 0
    while outbox.waiting and cycle < 200:
        cycle += 1
        outbox.waiting[100 + cycle] = event(100 + cycle, kind=END)
        outbox.drain_once(backend)
    assert [each.event.id for each in outbox.dead] == [3]
    assert outbox.dead[0].attempts == MAX_ATTEMPTS


def test_nothing_more_is_sent_of_streams_that_the_claim_has_lost() -> None:
    backend = Backend()
    delivery = Delivery("token", events(6, per_stream=2), remembered(PLAIN), lambda: NOW)
    for _ in range(2):
        delivery.keep_to({("default", "session:0"), ("default", "session:2")})
        asked = delivery.next_request()
        assert asked is not None
        delivery.take(backend(asked))
    delivery.keep_to({("default", "session:2")})
    while (asked := delivery.next_request()) is not None:
        delivery.take(backend(asked))
    assert backend.stored == ["key-0", "key-1", "key-4", "key-5"]


def test_a_remote_that_never_took_anything_may_be_the_wrong_one_and_pauses() -> None:
    claimed = [event(0, 0, START), event(1, 0, EXPIRED), event(2, 1, START), event(3, 2, "agent_status")]
    backend = Backend([always(status(404))])
    outcome = deliver(claimed, remembered(PLAIN), backend)
    assert [each.paused for each in outcome.troubles] == ["config"]
    assert not any(each.is_last or each.counts for each in outcome.refused)
    # Once for each kind.
    assert outcome.requests == [["key-0"], ["key-1"], ["key-3"]]


def test_a_missing_endpoint_is_one_kinds_fault_once_another_kind_is_taken() -> None:
    claimed = [event(0, 0, EXPIRED), event(1, 1, START), event(2, 2, EXPIRED)]
    outbox = Outbox(claimed, remembered(PLAIN))
    backend = Backend([on_kind(EXPIRED, 404)])
    outbox.drain_once(backend)
    outbox.drain_once(backend)
    assert [each.id for each in outbox.sent] == [1]
    assert sorted(each.event.id for each in outbox.dead) == [0, 2]
    assert not outbox.troubles


def test_a_plain_backend_is_sent_no_metrics_and_no_conversation_without_an_agent() -> None:
    claimed = [event(0, 0), event(1, 0, METRIC), event(2, 0, END), event(3, 1, agent=None), event(4, 2, METRIC)]
    outcome = deliver(claimed, remembered(PLAIN), Backend())
    assert [each.id for each in outcome.sent] == [0, 2]
    assert {each.event.id for each in outcome.refused if each.is_last and not each.counts} == {1, 3, 4}


def test_a_collector_is_sent_conversations_without_an_agent() -> None:
    assert len(deliver([event(0, agent=None)], remembered(), Backend()).sent) == 1


def test_what_a_collector_does_not_list_is_not_sent_to_it() -> None:
    lesser = Capabilities(batch_path="/events/batch", max_events=500)
    outcome = deliver([event(0), event(1, 1, METRIC)], remembered(lesser), Backend())
    assert [each.id for each in outcome.sent] == [0]
    assert [each.event.id for each in outcome.refused if each.is_last] == [1]


def test_nothing_is_given_up_before_the_remote_took_something_since_it_was_asked() -> None:
    """Whatever answered for it may have been a gateway while it was away."""
    known = remembered(PLAIN)
    outcome = deliver([event(0, kind=METRIC), event(1, agent=None)], known, Backend())
    assert outcome.requests == []
    assert [(each.is_last, each.counts) for each in outcome.refused] == [(False, False)] * 2
    # Long enough that a program that only waits for it does nothing else.
    assert all(timedelta(minutes=2) < each.wait <= timedelta(minutes=5) for each in outcome.refused)
    assert not outcome.troubles


def test_what_the_remote_does_not_take_keeps_nothing_else_of_its_stream_waiting() -> None:
    claimed = [event(0, 0, METRIC), event(1, 0, "agent_status")]
    outcome = deliver(claimed, remembered(PLAIN), Backend())
    assert [each.id for each in outcome.sent] == [1]
    assert [(each.event.id, each.is_last) for each in outcome.refused] == [(0, True)]


def test_while_a_page_may_have_answered_for_the_remote_nothing_overtakes_what_it_may_take_after_all() -> None:
    """The news of an erasure must not come after what is stored under the same name later, and erase that."""
    known = remembered(PLAIN)
    known.is_doubtful = True
    outcome = deliver([event(0, 0, "erase"), event(1, 0, START), event(2, 1, START)], known, Backend())
    assert [each.id for each in outcome.sent] == [2]
    assert outcome.refused == [], "nothing is decided before it is known who answers"


def test_in_an_outage_it_is_not_decided_what_becomes_of_what_the_remote_does_not_take() -> None:
    claimed = [event(0, 0, METRIC), event(1, 1)]
    outcome = deliver(claimed, remembered(PLAIN), Backend([always(Failure("ConnectError"))]))
    assert not outcome.refused
    assert len(outcome.troubles) == 1


# Answers that name single events.


def test_an_event_that_is_not_named_waits_and_its_stream_with_it() -> None:
    outbox = Outbox(events(30, per_stream=3), remembered())
    outbox.drain_once(Backend(unnamed=frozenset({"key-3"})))
    assert 3 in outbox.waiting
    assert outbox.waiting[3].attempts == 0
    outbox.drain_once(Backend())
    assert not outbox.waiting


def test_an_event_that_is_rejected_counts_an_attempt_and_tells_why() -> None:
    outcome = deliver(events(3), remembered(), Backend(rejected=frozenset({"key-1"})))
    assert [(each.event.id, each.attempts, each.error) for each in outcome.refused] == [(1, 1, "rejected: ")]
    assert [each.id for each in outcome.sent] == [0, 2]


def test_keys_in_flight_are_sent_again_after_1_to_5_seconds() -> None:
    outcome = deliver(events(6, per_stream=2), remembered(), Backend([always(status(409))]))
    assert sorted(each.event.id for each in outcome.refused) == [0, 2, 4]
    assert not any(each.counts for each in outcome.refused)
    assert all(timedelta(seconds=1) <= each.wait <= timedelta(seconds=5) for each in outcome.refused)


def test_a_wait_that_the_remote_asks_for_is_kept_for_one_event_too() -> None:
    busy = Answer(500, {"retry-after": "120"}, b"")
    outcome = deliver(events(1), remembered(), Backend([always(busy)]))
    assert [each.wait for each in outcome.refused] == [timedelta(seconds=120)]


def test_an_answer_without_a_request_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(RuntimeError, match="no request"):
        Delivery("token", events(1), remembered(), lambda: NOW).take(status(200))
