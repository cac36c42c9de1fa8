"""What the network does to deliveries: one test or more for each row F20 to F30 of the fault matrix.

Each ends in the state that the contract names, and then without the fault: every event is there once, in order.
"""

from __future__ import annotations

import gzip
import json
import math
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from backends import Backend, BatchBackend, Received, Reply
from clocks import FrozenClock
from proxy import (
    Exchange,
    Fault,
    FaultProxy,
    answers,
    closes,
    endless_headers,
    loses_the_answer,
    never_ends,
    on_events,
    passed,
    resets,
    says_nothing,
    sends_half,
    trickles_body,
    trickles_headers,
)
from sync_lab import (
    KEY,
    Drawn,
    assert_all_arrived,
    assert_in_order,
    assert_untouched,
    attempts,
    fill,
    fill_one,
    held,
    opened,
    quick,
    standing,
)
from trials import Trial

from sessionstore import ConfigError, SessionStore, clock
from sessionstore.aio import AsyncSessionStore
from sessionstore.delivery.sender import Sender
from sessionstore.remote import backoff, settlement
from sessionstore.remote.settings import Remote

# Where a fault strikes: also the first question, or only what carries events.
PLACES = {"everything": lambda fault: fault, "events": on_events}


@pytest.fixture
def backend() -> Iterator[BatchBackend]:
    with BatchBackend() as running:
        yield running


@pytest.fixture
def proxy(backend: BatchBackend) -> Iterator[FaultProxy]:
    with FaultProxy(backend) as running:
        yield running


@pytest.fixture
def agent(tmp_path: Path, proxy: FaultProxy) -> Iterator[SessionStore]:
    """A store whose remote is the backend behind the proxy."""
    with opened(tmp_path / "agent.db", quick(proxy.url)) as store:
        yield store
        # Nothing is to be tried when the test is over.
        store._database.remote = None


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is as long as it may be."""
    monkeypatch.setattr(backoff, "_draw", Drawn(1.0))


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is as short as it may be."""
    monkeypatch.setattr(backoff, "_draw", Drawn(0.0))


def place(name: str, fault: Fault) -> Fault:
    return PLACES[name](fault)


def assert_next_try(store: SessionStore, begun: datetime, wait: float) -> None:
    """The next try comes so long after the drain, which began then and has just ended."""
    retry_at = clock.from_text(standing(store).retry_at or "")
    assert begun + timedelta(seconds=wait) <= retry_at <= clock.utc_now() + timedelta(seconds=wait)


def lifted(store: SessionStore, proxy: FaultProxy, backend: BatchBackend, count: int) -> None:
    """Without the fault everything arrives."""
    proxy.fault = passed
    assert store.flush(timeout=30)
    assert_all_arrived(store, backend, count)


# -- F20: connection refused, DNS fail, reset, half response


@pytest.mark.fault("F20")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("fault", [resets, closes, loses_the_answer, sends_half], ids=lambda fault: fault.__name__)
@pytest.mark.usefixtures("longest_waits")
def test_a_broken_connection_costs_no_attempt(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, fault: Fault, where: str
) -> None:
    count = fill(agent)
    proxy.fault = place(where, fault)
    begun = clock.utc_now()
    receipt = agent.drain()
    assert (receipt.sent, receipt.left, receipt.paused) == (0, True, None)
    assert receipt.requests == (1 if where == "everything" else 2)
    assert_untouched(agent, count)
    found = standing(agent)
    assert (found.failures, found.paused, found.last_status) == (1, None, None)
    assert_next_try(agent, begun, 1.0)
    agent.drain()
    assert standing(agent).failures == 2
    assert_next_try(agent, begun, 2.0)
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F20")
@pytest.mark.usefixtures("longest_waits")
def test_a_refused_connection_costs_no_attempt(agent: SessionStore, proxy: FaultProxy, backend: BatchBackend) -> None:
    count = fill(agent)
    begun = clock.utc_now()
    with proxy.refusing():
        receipt = agent.drain()
        assert receipt.left
        assert "ConnectError" in (receipt.error or "")
    assert_untouched(agent, count)
    assert_next_try(agent, begun, 1.0)
    assert proxy.requests == []
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F20")
@pytest.mark.usefixtures("longest_waits")
def test_a_name_that_cannot_be_resolved_costs_no_attempt(tmp_path: Path, backend: BatchBackend) -> None:
    with opened(tmp_path / "agent.db", quick("https://nowhere.invalid/api")) as store:
        count = fill(store)
        begun = clock.utc_now()
        receipt = store.drain()
        assert receipt.left
        assert "ConnectError" in (receipt.error or "")
        assert_untouched(store, count)
        assert_next_try(store, begun, 1.0)
        store.set_remote(quick(backend.url), replace=True)
        assert store.flush(timeout=30)
        assert_all_arrived(store, backend, count)


def _subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


@pytest.mark.fault("F20")
@pytest.mark.parametrize("error", [*_subclasses(httpx.RequestError)], ids=lambda error: error.__name__)
def test_no_error_of_the_client_costs_an_attempt(tmp_path: Path, error: type[httpx.RequestError]) -> None:
    """Each class of errors that httpx raises."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise error(f"it said {KEY}", request=request)

    async def drain(store: SessionStore) -> None:
        remote = quick("http://127.0.0.1:9")
        async with Sender(AsyncSessionStore(store), remote, transport=httpx.MockTransport(fail)) as sender:
            await sender.send_all()
            assert sender.trouble is not None

    with opened(tmp_path / "agent.db", quick("http://127.0.0.1:9")) as store:
        count = fill(store)
        anyio.run(drain, store)
        assert_untouched(store, count)
        found = standing(store)
        assert found.failures == 1
        assert error.__name__ in (found.last_error or "")
        assert KEY not in (found.last_error or "")


# -- F21: offline for 7 days


@pytest.mark.fault("F21")
def test_a_week_offline_costs_few_requests_and_loses_nothing(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch, trial: Trial
) -> None:
    """The day's limit of waits is an hour after the first day."""
    frozen = FrozenClock()
    monkeypatch.setattr(clock, "utc_now", frozen)
    tries = Counter[int]()
    # The outbox keeps 100,000 events at most.
    many = trial.size(push=2_000, nightly=20_000, release=90_000)

    async def live(store: SessionStore) -> int:
        count = 0
        async with Sender(AsyncSessionStore(store), quick(proxy.url)) as sender:
            for hour in range(7 * 24):
                count += fill_one(store, f"s{hour}", many // 168)
                tries[hour // 24] += await _tries_within_an_hour(sender, store, frozen)
        return count

    with opened(tmp_path / "agent.db", quick(proxy.url)) as store:
        with proxy.refusing():
            count = anyio.run(live, store)
        assert_untouched(store, count)
        assert tries[0] < 24 * 60
        assert all(tries[day] < 24 * 8 for day in range(1, 7)), tries
        begun = time.perf_counter()
        assert store.drain().sent == count
        took = time.perf_counter() - begun
        assert_all_arrived(store, backend, count)
    trial.report(
        f"7 days offline, {sum(tries.values())} tries, {count:,} events queued, drained in {took:.1f} s, 0 lost", tries=tries
    )


async def _tries_within_an_hour(sender: Sender, store: SessionStore, frozen: FrozenClock) -> int:
    """Do what the background does: a try whenever the file says that one is due."""
    end, tries = frozen.now + timedelta(hours=1), 0
    while True:
        due = store._outlook().retry_at or frozen.now
        if due > end:
            frozen.now = end
            return tries
        frozen.now = due
        await sender.send_all()
        tries += 1


# -- F22: the response is lost after the server's commit


class OneByOne(BatchBackend):
    """Takes one event in a batch."""

    def answer(self, received: Received) -> Reply:
        reply = super().answer(received)
        if received.method == "GET":
            reply.body["batch"]["max_events"] = 1
        return reply


@pytest.mark.fault("F22")
@pytest.mark.usefixtures("no_waits")
def test_every_lost_answer_makes_no_duplicate(tmp_path: Path, trial: Trial) -> None:
    told = Counter[bytes]()
    lost = trial.size(push=150, nightly=500, release=1_000)

    def loses_each_first_answer(exchange: Exchange) -> None:
        told[exchange.received.body] += 1
        (loses_the_answer if told[exchange.received.body] == 1 else passed)(exchange)

    with OneByOne() as backend, FaultProxy(backend, on_events(loses_each_first_answer)) as proxy:
        with opened(tmp_path / "agent.db", quick(proxy.url, max_retries=100)) as store:
            count = fill_one(store, "s", lost - 1)
            while store.drain().left:
                pass
            assert_all_arrived(store, backend, count)
        assert (count, set(told.values())) == (lost, {2})
        assert len(proxy.event_requests) == 2 * lost
    trial.report(f"{lost:,} of {lost:,} lost answers deduplicated")


# -- F23: 429 and 503 with every form of Retry-After

NOW = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
HOUR = 3_600.0
# What the header says, and the least and the most seconds that are waited. Without a usable header: the first backoff.
RETRY_AFTER = {
    "7": (7, 7),
    "0": (0, 1),
    "-5": (0, 1),
    "1000000000000": (HOUR, HOUR),
    "9" * 5_000: (HOUR, HOUR),
    "abc": (0, 1),
    "1.5": (0, 1),
    "": (0, 1),
    "٣": (0, 1),
    format_datetime(NOW + timedelta(seconds=90), usegmt=True): (90, 90),
    "Saturday, 28-Mar-26 23:31:00 GMT": (60, 60),
    format_datetime(NOW - timedelta(days=1), usegmt=True): (0, 1),
    format_datetime(NOW + timedelta(days=4_000), usegmt=True): (HOUR, HOUR),
    "Sun, 99 Foo 2026 99:99:99 GMT": (0, 1),
}


@pytest.mark.fault("F23")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("header", [None, *RETRY_AFTER], ids=lambda header: ascii(header)[:24])
def test_a_busy_remote_is_asked_again_when_it_says(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch, status: int, header: str | None
) -> None:
    monkeypatch.setattr(clock, "utc_now", frozen := FrozenClock())
    frozen.now = NOW
    count = fill(agent)
    headers = {} if header is None else {"Retry-After": header}
    proxy.fault = on_events(_raw_answer(status, headers))
    receipt = agent.drain()
    assert (receipt.sent, receipt.requests) == (0, 2)
    assert_untouched(agent, count)
    found = standing(agent)
    assert (found.failures, found.paused, found.last_status) == (1, None, status)
    least, most = RETRY_AFTER.get(header or "", (0, 1))
    wait = (clock.from_text(found.retry_at or "") - NOW).total_seconds()
    assert least <= wait <= most
    frozen.go(seconds=most + 1)
    lifted(agent, proxy, backend, count)


def _raw_answer(status: int, headers: dict[str, str]) -> Fault:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return lambda exchange: exchange.send(f"HTTP/1.1 {status} Busy\r\nContent-Length: 0\r\n{lines}\r\n".encode())


@pytest.mark.fault("F23")
def test_a_dead_server_is_asked_seldom(
    agent: SessionStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, trial: Trial
) -> None:
    """Requests in a simulated hour, on the first day and after it."""
    monkeypatch.setattr(clock, "utc_now", frozen := FrozenClock())
    fill(agent)
    proxy.fault = answers(503)
    counts = []

    async def live() -> None:
        async with Sender(AsyncSessionStore(agent), quick(proxy.url)) as sender:
            for _ in range(2):
                for _ in range(6):
                    await _tries_within_an_hour(sender, agent, frozen)
                counts.append(len(proxy.requests))
                frozen.go(hours=24)

    anyio.run(live)
    early, late = counts[0], counts[1] - counts[0]
    assert early < 6 * 60
    assert late < 6 * 10
    trial.report(f"requests in a simulated hour at a dead server: {early / 6:.0f} on the first day, {late / 6:.1f} after it")


# -- F24: 401 and 403


@pytest.mark.fault("F24")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.usefixtures("longest_waits")
def test_a_refused_key_pauses_all_and_a_new_one_resumes(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, status: int, where: str
) -> None:
    keys = ["an-old-key-123456"]
    proxy.fault = place(where, _wants_the_new_key(status))
    with opened(tmp_path / "agent.db", Remote(proxy.url, lambda: keys[-1], max_retries=3)) as store:
        count = fill(store)
        begun = clock.utc_now()
        receipt = store.drain()
        assert (receipt.sent, receipt.paused) == (0, "auth")
        assert receipt.requests == (1 if where == "everything" else 2)
        assert_untouched(store, count)
        found = standing(store)
        assert (found.paused, found.last_status, found.failures) == ("auth", status, 1)
        assert_next_try(store, begun, 300)
        keys.append("the-new-key-123456")
        assert store.drain().sent == count
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F24")
@pytest.mark.usefixtures("longest_waits")
def test_a_drain_reads_the_key_again_before_it_pauses(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend) -> None:
    """A key that was changed while the drain ran."""
    keys = iter(["an-old-key-123456"])
    proxy.fault = _wants_the_new_key(401)
    with opened(tmp_path / "agent.db", Remote(proxy.url, lambda: next(keys, "the-new-key-123456"), max_retries=3)) as store:
        count = fill(store)
        assert store.drain().sent == count
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F24")
@pytest.mark.usefixtures("longest_waits")
def test_the_background_resumes_at_once_with_a_new_key(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend) -> None:
    """Whether the key was set anew, or the program was started anew with it."""
    path = tmp_path / "agent.db"
    proxy.fault = _wants_the_new_key(401)
    with opened(path, Remote(proxy.url, "an-old-key-123456")) as store:
        count = fill(store)
        with store.background():
            _until(lambda: standing(store).paused == "auth")
            store.set_remote(Remote(proxy.url, "the-new-key-123456"))
            _until(lambda: not standing(store).pending)
        assert_all_arrived(store, backend, count)
        store.set_remote(Remote(proxy.url, "an-old-key-123456"))
        count += fill(store, name="t")
        store.drain()
        assert standing(store).paused == "auth"
    with opened(path, Remote(proxy.url, "the-new-key-123456")) as store:
        with store.background():
            _until(lambda: not standing(store).pending)
        assert_all_arrived(store, backend, count)


def _wants_the_new_key(status: int) -> Fault:
    def answer(exchange: Exchange) -> None:
        is_new = exchange.received.headers.get("authorization") == "Bearer the-new-key-123456"
        (passed if is_new else answers(status, {"error": {"code": "unauthorized"}}))(exchange)

    return answer


def _until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that happens in another thread; not for how long that takes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.fault("F24", "F35")
@pytest.mark.parametrize("body", [{"error": f"{KEY} is no key"}, {"detail": f"key={KEY}"}, {"error": {"message": f"'{KEY}'"}}])
def test_a_key_that_the_remote_repeats_is_not_kept(agent: SessionStore, proxy: FaultProxy, body: Any) -> None:
    fill(agent)
    for fault in (answers(401, body), on_events(answers(422, body))):
        proxy.fault = fault
        receipt = agent.drain()
        kept = agent.query("SELECT last_error FROM v_sync UNION ALL SELECT last_error FROM v_outbox").rows
        assert KEY not in repr((receipt, kept))


# -- F25: a poison event


@pytest.mark.fault("F25")
@pytest.mark.parametrize("way", ["400", "422", "rejected"])
@pytest.mark.usefixtures("no_waits")
def test_a_poison_event_is_found_and_given_up_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, trial: Trial
) -> None:
    """1 dead of 10,000, 9,999 delivered; and few requests for it."""
    monkeypatch.setattr(settlement, "MAX_ATTEMPTS", 4)
    with PoisonBackend(way) as backend, opened(tmp_path / "agent.db", quick(backend.url)) as store:
        sessions = trial.size(push=20, nightly=50, release=100)
        count = sum(fill_one(store, f"s{number}", 99) for number in range(sessions))
        poisoned = store.query("SELECT key, id FROM v_outbox ORDER BY id LIMIT 1 OFFSET ?", (count // 2 + 7,)).rows[0]
        backend.poison = poisoned[0]
        while store.drain().left:
            pass
        found = standing(store)
        assert (found.pending, found.dead, found.sent) == (0, 1, count - 1)
        (dead,) = store.outbox.dead()
        assert (dead.key, dead.attempts) == (poisoned[0], 4)
        assert poisoned[0] not in backend.stored
        assert len(backend.stored) == count - 1
        assert_in_order(backend.stored.values())
        requests = len(backend.events)
        assert requests <= math.ceil(count / 500) + 2 * math.ceil(math.log2(500)) + 1 + 2 * 4 + 4
        # Corrected, it is delivered after all, under its old key.
        backend.poison = ""
        assert store.outbox.requeue(dead.key) == 1
        assert store.drain().sent == 1
        assert len(backend.stored) == count
    trial.report(f"1 dead of {count:,} ({way}), {count - 1:,} delivered, {requests} requests")


@pytest.mark.fault("F25")
def test_a_poison_event_blocks_its_own_session_only(agent: SessionStore, backend: BatchBackend, proxy: FaultProxy) -> None:
    """Before it is given up."""
    count = fill(agent)
    victim = agent.query("SELECT key FROM v_outbox WHERE stream = 'session:s1' ORDER BY id LIMIT 1 OFFSET 2").rows[0][0]
    proxy.fault = lambda exchange: answers(422)(exchange) if victim.encode() in exchange.received.body else passed(exchange)
    agent.drain()
    left = agent.query("SELECT stream, attempts, state FROM v_outbox ORDER BY id").rows
    assert {row[0] for row in left} == {"session:s1"}
    assert left[0][1:] == (1, "pending")
    assert [row[1] for row in left[1:]] == [0] * (len(left) - 1)
    lifted(agent, proxy, backend, count)


class PoisonBackend(BatchBackend):
    """Refuses one event, alone or with its whole batch."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.poison = ""

    def answer(self, received: Received) -> Reply:
        if self.way != "rejected" and self.poison and self.poison.encode() in received.body:
            return Reply(int(self.way), {"detail": "no"})
        return super().answer(received)

    def keep(self, event: dict[str, Any]) -> dict[str, str]:
        if event["key"] == self.poison:
            return {"key": event["key"], "status": "rejected", "error": "no"}
        return super().keep(event)


# -- F26: 413


@pytest.mark.fault("F26")
@pytest.mark.usefixtures("no_waits")
def test_one_event_that_is_too_large_costs_few_requests(tmp_path: Path, trial: Trial) -> None:
    with LimitedBackend() as backend, opened(tmp_path / "agent.db", quick(backend.url)) as store:
        count = sum(fill_one(store, f"s{number}", 99) for number in range(trial.size(push=20, nightly=50, release=100)))
        oversize = store.query("SELECT key FROM v_outbox ORDER BY id LIMIT 1 OFFSET 123").rows[0][0]
        backend.refuses = lambda received: oversize.encode() in received.body
        while store.drain().left:
            pass
        found = standing(store)
        assert (found.pending, found.dead, found.sent) == (0, 1, count - 1)
        assert [event.key for event in store.outbox.dead()] == [oversize]
        assert_in_order(backend.stored.values())
        extra = len(backend.events) - math.ceil(count / 500)
        assert extra <= 2 * math.log2(500) + 1
    trial.report(f"1 event too large among {count:,}: {extra} requests more, at most {2 * math.log2(500) + 1:.0f} allowed")


@pytest.mark.fault("F26")
@pytest.mark.usefixtures("no_waits")
def test_a_smaller_limit_of_the_remote_is_learned(tmp_path: Path) -> None:
    """What is too large together is sent apart, and nothing is given up."""
    with LimitedBackend() as backend, opened(tmp_path / "agent.db", quick(backend.url)) as store:
        count = fill_one(store, "s", 1_999)
        backend.refuses = lambda received: len(received.body) > 60_000
        assert store.drain().sent == count
        assert_all_arrived(store, backend, count)
        refused = sum(len(request.body) > 60_000 for request in backend.events)
        assert refused <= 4


class LimitedBackend(BatchBackend):
    """Finds some requests too large."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: Callable[[Received], bool] = lambda _: False

    def answer(self, received: Received) -> Reply:
        return Reply(413) if received.method == "POST" and self.refuses(received) else super().answer(received)


# -- F27: answers that are no acknowledgement

BOMB = gzip.compress(b'{"results": [' + b" " * (64 << 20) + b"]}", mtime=0)
NO_ACKNOWLEDGEMENTS: dict[str, Fault] = {
    "html": answers(200, b"<html>Please log in to the hotel's network</html>", {"Content-Type": "text/html"}),
    "empty": answers(200),
    "no content": answers(204),
    "wrong keys": answers(200, {"results": [{"key": "another", "status": "stored"}]}),
    "no results": answers(200, {"ok": True}),
    "unknown status": lambda exchange: answers(200, {"results": _results(exchange, "perhaps")})(exchange),
    "truncated": lambda exchange: answers(200, json.dumps({"results": _results(exchange, "stored")}).encode()[:-20])(exchange),
    "gzip bomb": answers(200, BOMB, {"Content-Encoding": "gzip"}),
    "gzip unasked": lambda exchange: answers(
        200, gzip.compress(json.dumps({"results": _results(exchange, "stored")}).encode()), {"Content-Encoding": "gzip"}
    )(exchange),
    "deep": answers(200, b"[" * 200_000),
    "invalid utf-8": answers(200, b'{"results": "\xff\xfe"}'),
}


def _results(exchange: Exchange, status: str) -> list[dict[str, str]]:
    return [{"key": event["key"], "status": status} for event in exchange.received.json["events"]]


@pytest.mark.fault("F27")
@pytest.mark.parametrize("name", NO_ACKNOWLEDGEMENTS)
@pytest.mark.usefixtures("no_waits")
def test_what_is_no_acknowledgement_marks_nothing(agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, name: str) -> None:
    count = fill(agent)
    proxy.fault = on_events(NO_ACKNOWLEDGEMENTS[name])
    receipt = agent.drain()
    assert (receipt.sent, receipt.dead) == (0, 0)
    assert_untouched(agent, count)
    assert standing(agent).failures == 1
    assert backend.stored == {}
    assert len(proxy.requests) <= 4
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F27")
def test_a_captive_portal_is_not_taken_for_a_backend(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers every request with its page, also that about capabilities; the sender that saw it goes on."""
    monkeypatch.setattr(backoff, "_draw", Drawn(0.5))
    # Streams that might be what breaks the remote wait for longer.
    monkeypatch.setattr(backoff, "_LONGEST_ASIDE", timedelta(seconds=0.5))
    proxy.fault = NO_ACKNOWLEDGEMENTS["html"]
    with opened(tmp_path / "agent.db", quick(proxy.url)) as store:
        count = fill(store)
        with store.background():
            _until(lambda: standing(store).failures >= 2)
            proxy.fault = passed
            _until(lambda: not standing(store).pending)
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F27")
def test_a_captive_portal_that_lets_through_in_between_costs_no_event(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend
) -> None:
    """Its page answers the question about capabilities, and the backend itself what follows."""
    count = fill(agent)
    page = NO_ACKNOWLEDGEMENTS["html"]
    proxy.fault = lambda exchange: passed(exchange) if exchange.carries_events else page(exchange)
    agent.drain()
    assert standing(agent).dead == 0
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F27")
def test_an_event_that_an_answer_does_not_name_is_sent_again(agent: SessionStore, proxy: FaultProxy, backend: BatchBackend) -> None:
    """Exactly the listed keys are marked."""
    count = fill(agent)
    first: list[str] = []

    def names_all_but_one_session(exchange: Exchange) -> None:
        events = exchange.received.json["events"]
        for event in events:
            backend.keep(event)
        named = [event["key"] for event in events if event["body"]["session_id"] != "s1"]
        first.extend(named)
        answers(200, {"results": [{"key": key, "status": "stored"} for key in named]})(exchange)

    proxy.fault = on_events(names_all_but_one_session)
    agent.drain(limit=count)
    assert standing(agent).sent == len(first) == count * 2 // 3
    assert set(attempts(agent)) == {0}
    lifted(agent, proxy, backend, count)


# -- F28: redirects


@pytest.mark.fault("F28")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["same host", "other host", "relative"])
@pytest.mark.usefixtures("longest_waits")
def test_a_redirect_is_refused(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, where: str, status: int, target: str
) -> None:
    with Backend() as other:
        location = {"same host": f"{proxy.url}/elsewhere", "other host": other.url, "relative": "/elsewhere"}[target]
        proxy.fault = place(where, answers(status, b"", {"Location": location}))
        _assert_redirect_refused(agent, proxy, fill(agent), status)
        assert other.received == []
    assert backend.stored == {}
    lifted(agent, proxy, backend, standing(agent).pending)


@pytest.mark.fault("F28")
@pytest.mark.usefixtures("longest_waits")
def test_a_redirect_away_from_tls_is_refused(tmp_path: Path, authority: trustme.CA, ca_file: Path, backend: BatchBackend) -> None:
    with Backend() as other, FaultProxy(backend, tls=_server_side(authority.issue_cert("localhost"))) as proxy:
        proxy.fault = answers(302, b"", {"Location": other.url})
        with opened(tmp_path / "agent.db", quick(proxy.url, ca_file=ca_file)) as store:
            count = fill(store)
            _assert_redirect_refused(store, proxy, count, 302)
            assert other.received == []
            lifted(store, proxy, backend, count)


def _assert_redirect_refused(store: SessionStore, proxy: FaultProxy, count: int, status: int) -> None:
    begun = clock.utc_now()
    receipt = store.drain()
    assert (receipt.sent, receipt.paused) == (0, "redirect")
    assert_untouched(store, count)
    found = standing(store)
    assert (found.failures, found.paused, found.last_status) == (1, "redirect", status)
    assert_next_try(store, begun, 300)
    assert {request.path.split("/")[-1] for request in proxy.requests} <= {"capabilities", "batch"}


# -- F29: TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def _server_side(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


BAD_CERTIFICATES: dict[str, Callable[[trustme.CA], trustme.LeafCert]] = {
    "expired": lambda ca: ca.issue_cert(
        "localhost", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2021, 1, 1, tzinfo=UTC)
    ),
    "self-signed": lambda _: trustme.CA().issue_cert("localhost"),
    "wrong host": lambda ca: ca.issue_cert("other.example"),
}


@pytest.mark.fault("F29")
@pytest.mark.parametrize("trusts", ["usual", "ca_file"])
@pytest.mark.parametrize("name", BAD_CERTIFICATES)
@pytest.mark.usefixtures("longest_waits")
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    tmp_path: Path, authority: trustme.CA, ca_file: Path, backend: BatchBackend, name: str, trusts: str
) -> None:
    trusted = ca_file if trusts == "ca_file" else None
    with (
        FaultProxy(backend, tls=_server_side(BAD_CERTIFICATES[name](authority))) as proxy,
        opened(tmp_path / "agent.db", quick(proxy.url, ca_file=trusted, max_retries=5)) as store,
    ):
        count = fill(store)
        begun = clock.utc_now()
        receipt = store.drain()
        assert (receipt.sent, receipt.requests, receipt.paused) == (0, 1, "certificate")
        assert "CERTIFICATE_VERIFY_FAILED" in (receipt.error or "")
        assert_untouched(store, count)
        assert standing(store).paused == "certificate"
        assert_next_try(store, begun, 300)
        store.drain()
        # Never a byte of a request, at no try.
        assert proxy.requests == []
        assert proxy.connections >= 2
        store.set_remote(quick(backend.url), replace=True)
        assert store.drain().sent == count
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F29")
@pytest.mark.usefixtures("longest_waits")
def test_a_certificate_of_the_named_authority_is_good(
    tmp_path: Path, authority: trustme.CA, ca_file: Path, backend: BatchBackend
) -> None:
    """With `ca_file`, and not without it."""
    with (
        FaultProxy(backend, tls=_server_side(authority.issue_cert("localhost"))) as proxy,
        opened(tmp_path / "agent.db", quick(proxy.url)) as store,
    ):
        count = fill(store)
        assert store.drain().paused == "certificate"
        store.set_remote(quick(proxy.url, ca_file=ca_file))
        assert store.drain().sent == count
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F29")
def test_a_server_that_speaks_no_tls_is_an_outage(tmp_path: Path, backend: BatchBackend) -> None:
    """The handshake fails, and nothing goes on without it."""
    with opened(tmp_path / "agent.db", quick(backend.url.replace("http:", "https:"))) as store:
        count = fill(store)
        receipt = store.drain()
        assert (receipt.sent, receipt.paused) == (0, None)
        assert_untouched(store, count)
        assert backend.received == []


@pytest.mark.fault("F29")
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_said(tmp_path: Path, content: str | None) -> None:
    """And it keeps no store from being closed."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with opened(tmp_path / "agent.db", quick("https://localhost:9", ca_file=path)) as store:
        fill(store)
        with pytest.raises(ConfigError, match="ca_file"):
            store.drain()


# -- F30: slow and endless answers

SLOW: dict[str, Fault] = {
    "says nothing": says_nothing,
    "headers byte by byte": trickles_headers,
    "body byte by byte": trickles_body,
}
LARGE: dict[str, Fault] = {"body without end": never_ends, "headers without end": endless_headers}
MOST_BYTES_SENT = 24 << 20


@pytest.mark.fault("F30")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_server_is_left_at_the_deadline(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, name: str, where: str
) -> None:
    """Each byte comes in time, the whole does not."""
    with opened(tmp_path / "agent.db", quick(proxy.url, timeout=0.6)) as store:
        count = fill(store)
        proxy.fault = place(where, SLOW[name])
        begun = time.monotonic()
        receipt = store.drain()
        assert time.monotonic() - begun < 0.6 + 1.5
        assert receipt.sent == 0
        assert receipt.error == "no answer within 0.6 seconds"
        assert_untouched(store, count)
        assert standing(store).failures == 1
        lifted(store, proxy, backend, count)


@pytest.mark.fault("F30")
@pytest.mark.parametrize("name", LARGE)
def test_an_endless_answer_is_not_read_to_its_end(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, name: str, trial: Trial
) -> None:
    count = fill(agent)
    proxy.fault = on_events(LARGE[name])
    begun = time.monotonic()
    assert agent.drain().sent == 0
    took = time.monotonic() - begun
    assert took < 10
    # A part of that lies in the buffers of the sockets, unread.
    assert proxy.sent_bytes < MOST_BYTES_SENT
    trial.report(f"{name}: {took:.1f} s, {proxy.sent_bytes / (1 << 20):.1f} MiB left the server, 0 rows marked")
    assert_untouched(agent, count)
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F30")
def test_a_server_that_does_not_read_is_left_at_the_deadline(tmp_path: Path, backend: BatchBackend) -> None:
    """The request does not get through."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with opened(tmp_path / "agent.db", quick(url, timeout=0.6)) as store:
            count = fill(store)
            begun = time.monotonic()
            receipt = store.drain()
            assert time.monotonic() - begun < 0.6 + 1.5
            assert receipt.error == "no answer within 0.6 seconds"
            assert_untouched(store, count)


# -- the rest of the table of answers


@pytest.mark.fault("F27")
@pytest.mark.parametrize("status", [405, 410, 415, 501, 505, 418])
@pytest.mark.usefixtures("longest_waits")
def test_a_wrong_address_pauses_all(agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, status: int) -> None:
    count = fill(agent)
    proxy.fault = on_events(answers(status))
    begun = clock.utc_now()
    assert agent.drain().paused == "config"
    assert_untouched(agent, count)
    assert standing(agent).paused == "config"
    assert_next_try(agent, begun, 300)
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F23")
@pytest.mark.parametrize("status", [408, 425, 500, 502, 504, 507, 520, 599])
@pytest.mark.usefixtures("no_waits")
def test_a_server_error_costs_no_attempt(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(settlement, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(clock, "utc_now", frozen := FrozenClock())
    count = fill(agent)
    proxy.fault = on_events(answers(status))
    for _ in range(4):
        assert agent.drain().paused is None
        frozen.go(minutes=1)
    assert_untouched(agent, count)
    found = standing(agent)
    assert (found.failures, found.dead) == (4, 0)
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F23")
@pytest.mark.usefixtures("no_waits")
def test_a_key_in_flight_is_sent_again_soon(agent: SessionStore, proxy: FaultProxy, backend: BatchBackend) -> None:
    count = fill(agent)
    proxy.fault = on_events(answers(409))
    begun = clock.utc_now()
    agent.drain()
    assert standing(agent).pending == count
    assert set(attempts(agent)) == {0}
    free_at = [clock.from_text(row[0]) for row in agent.query("SELECT held_until FROM outbox_holds").rows]
    assert len(free_at) == 3
    assert all(begun + timedelta(seconds=1) <= each <= clock.utc_now() + timedelta(seconds=5) for each in free_at)
    lifted(agent, proxy, backend, count)


@pytest.mark.fault("F25")
@pytest.mark.usefixtures("no_waits")
def test_an_event_that_breaks_the_server_is_given_up_when_others_get_through(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers with a 500."""
    monkeypatch.setattr(settlement, "MAX_ATTEMPTS", 3)
    monkeypatch.setattr(clock, "utc_now", frozen := FrozenClock())
    count = fill(agent)
    victim = agent.query("SELECT key FROM v_outbox WHERE stream = 'session:s1' ORDER BY id LIMIT 1 OFFSET 2").rows[0][0]
    proxy.fault = lambda exchange: answers(500)(exchange) if victim.encode() in exchange.received.body else passed(exchange)
    for number in range(60):
        count += fill(agent, 1, 1, name=f"other{number}-")
        frozen.go(hours=1)
        if not agent.drain().left:
            break
    found = standing(agent)
    assert (found.pending, found.dead, found.sent) == (0, 1, count - 1)
    assert [event.key for event in agent.outbox.dead()] == [victim]
    assert_in_order(backend.stored.values())


@pytest.mark.fault("F25")
def test_drains_of_short_programs_find_the_event_that_breaks_the_server(
    agent: SessionStore, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call has a sender of its own, and the oldest of very many events is at fault."""
    monkeypatch.setattr(clock, "utc_now", frozen := FrozenClock())
    count = fill(agent, 40, 10)
    victim = agent.query("SELECT key FROM v_outbox ORDER BY id LIMIT 1").rows[0][0]
    proxy.fault = lambda exchange: answers(500)(exchange) if victim.encode() in exchange.received.body else passed(exchange)
    for _ in range(6):
        agent.drain()
        frozen.go(hours=1)
    assert standing(agent).sent > count // 2


@pytest.mark.fault("F20")
def test_no_fault_leaves_a_thread_behind(agent: SessionStore, proxy: FaultProxy) -> None:
    fill(agent)
    proxy.fault = resets
    agent.drain()
    assert not [thread for thread in threading.enumerate() if thread.name == "sessionstore-drain"]
    assert held(agent) == 0
