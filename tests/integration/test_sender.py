"""A sender over a real file, against remotes that httpx plays: what it asks, what it never tells, and when it goes on."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import AsyncSessionStore, AuthError, Remote, SessionStore, StoreBusyError, queries
from sessionstore.database.jobs import WriteJob
from sessionstore.delivery.calls import _seconds_until_next
from sessionstore.delivery.courier import Courier
from sessionstore.delivery.sender import Sender
from sessionstore.delivery.standing import StandingDrain
from sessionstore.remote.answers import Answer, Failure
from sessionstore.remote.events import (
    AGENT_ACTIVITY,
    AGENT_STATUS,
    CONVERSATION_ENDED,
    CONVERSATION_EXPIRED,
    CONVERSATION_STARTED,
    ERASE,
    METRIC,
    Event,
    session_stream,
)
from sessionstore.remote.requests import IDEMPOTENCY_KEY
from sessionstore.remote.settlement import Settlement, Trouble

pytestmark = pytest.mark.anyio

URL = "https://collector.example/api"
CANARY = "sk-canary-0123456789abcdefghij"
CAPABILITIES = {
    "api": "sessionstore",
    "version": 1,
    "batch": {"path": "/events/batch", "max_events": 500, "max_bytes": 1 << 20, "encodings": []},
    "kinds": ["metric", "message", "erase"],
}

Reply = Callable[[httpx.Request], httpx.Response]


class Server:
    """A remote. It takes batches, or is plain; `reply` answers in its place while it is set."""

    def __init__(self, *, plain: bool = False, reply: Reply | None = None) -> None:
        self.plain = plain
        self.reply = reply
        self.requests: list[httpx.Request] = []
        self.stored: list[str] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    @property
    def paths(self) -> list[str]:
        return [each.url.path.removeprefix("/api") for each in self.requests]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.reply is not None:
            return self.reply(request)
        if request.url.path.endswith("/capabilities"):
            return httpx.Response(404) if self.plain else httpx.Response(200, json=CAPABILITIES)
        if not request.url.path.endswith("/events/batch"):
            self.stored.append(request.headers[IDEMPOTENCY_KEY])
            return httpx.Response(201, json={})
        keys = [each["key"] for each in json.loads(request.content)["events"]]
        self.stored += keys
        return httpx.Response(200, json={"results": [{"key": key, "status": "stored"} for key in keys]})


def failing(status: int, **options: Any) -> Reply:
    return lambda _: httpx.Response(status, **options)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


def to_events(reply: Reply) -> Reply:
    """Where the question what the remote can do is answered."""
    return lambda request: httpx.Response(200, json=CAPABILITIES) if request.method == "GET" else reply(request)


@pytest.fixture
def told(store: SessionStore) -> SessionStore:
    """A store with a remote, which nothing is sent to by itself."""
    store.set_remote(URL, CANARY)
    return store


@pytest.fixture
async def both(told: SessionStore) -> AsyncIterator[AsyncSessionStore]:
    """Its other face."""
    yield AsyncSessionStore(told)
    told.close(drain_timeout=0)


def enqueue(store: SessionStore | AsyncSessionStore, *kinds: str, stream: str | None = None) -> None:
    synchronous = store._store if isinstance(store, AsyncSessionStore) else store
    at = sessionstore.clock.utc_now()
    made = [
        Event(kind, session_stream(stream or f"s{number}"), synchronous.namespace, at, {"agent_id": "a", "n": number})
        for number, kind in enumerate(kinds)
    ]
    synchronous._write(lambda db: queries.outbox.enqueue(db, made))


def remote(key: Any = CANARY, **options: Any) -> Remote:
    return Remote(URL, key, retry_delay=0.0, **options)


async def test_all_that_waits_is_delivered_in_batches(both: AsyncSessionStore) -> None:
    enqueue(both, *[AGENT_STATUS] * 1_200)
    server = Server()
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        receipt = await sender.receipt()
    assert (receipt.sent, receipt.left, receipt.error) == (1_200, False, None)
    assert len(server.stored) == len(set(server.stored)) == 1_200
    assert receipt.requests == len(server.requests) <= 6
    assert {each.headers["authorization"] for each in server.requests} == {f"Bearer {CANARY}"}


async def test_a_drain_that_finds_nothing_starts_neither_a_thread_nor_a_client(
    told: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a client was made")

    monkeypatch.setattr(Courier, "__init__", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert told.drain() == sessionstore.DrainReceipt()
    assert told.flush() is True


async def test_the_remote_is_asked_once_what_it_can_do(both: AsyncSessionStore) -> None:
    server = Server()
    async with Sender(both, remote(), transport=server.transport) as sender:
        for _ in range(3):
            enqueue(both, AGENT_STATUS)
            await sender.send_all()
    assert server.paths == ["/capabilities", *["/events/batch"] * 3]


async def test_without_events_nothing_is_asked(both: AsyncSessionStore) -> None:
    server = Server()
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
    assert server.requests == []


async def test_a_plain_backend_gets_one_post_for_each_event(both: AsyncSessionStore) -> None:
    enqueue(both, CONVERSATION_STARTED, AGENT_STATUS, METRIC)
    server = Server(plain=True)
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        receipt = await sender.receipt()
    assert server.paths == ["/capabilities", "/conversations/start", "/agents/status"]
    assert [json.loads(each.content) for each in server.requests[1:]] == [{"agent_id": "a", "n": 0}, {"agent_id": "a", "n": 1}]
    # It knows no metrics.
    assert (receipt.sent, receipt.dead, receipt.left) == (2, 1, False)


@pytest.mark.parametrize("reply", [failing(502), failing(404), failing(200, text="<html>"), failing(501)])
@pytest.mark.parametrize("lasting", [False, True], ids=["new sender", "same sender"])
@pytest.mark.parametrize("plain", [False, True], ids=["collector", "plain"])
async def test_a_gateway_that_answers_for_a_while_makes_no_dead_letters(
    both: AsyncSessionStore, reply: Reply, plain: bool, lasting: bool
) -> None:
    """It says that there is no /capabilities, and no endpoint: that must not give up what the remote takes."""
    kinds = [CONVERSATION_STARTED, AGENT_ACTIVITY, CONVERSATION_ENDED, AGENT_STATUS, *([] if plain else [METRIC])]
    server = Server(plain=plain)
    sender = Sender(both, remote(), transport=server.transport)
    enqueue(both, CONVERSATION_STARTED)
    await sender.send_all()
    enqueue(both, *kinds * 3)
    server.reply = reply
    for _ in range(3):
        if not lasting:
            await sender.__aexit__(None, None, None)
            sender = Sender(both, remote(), transport=server.transport)
        await sender.send_all()
        assert (await sender.receipt()).dead == 0
    stats = await both.outbox.stats()
    assert (stats.pending, stats.dead) == (3 * len(kinds), 0)
    await sender.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "kinds",
    [
        (CONVERSATION_STARTED, METRIC, CONVERSATION_ENDED),
        (METRIC, CONVERSATION_ENDED),
        (METRIC, AGENT_ACTIVITY, CONVERSATION_ENDED),
    ],
    ids=["first", "not first", "not first, and an endpoint is missing"],
)
async def test_a_plain_backend_that_answers_with_a_page_is_told_what_it_takes_by_one_drain(
    both: AsyncSessionStore, kinds: tuple[str, ...]
) -> None:
    """Each drain of a program begins anew: none may leave to the next one what it cannot know either."""
    server = Server(plain=True)

    def page_or_acknowledgement(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, text="<html>")
        return httpx.Response(404) if request.url.path.endswith("/activity") else httpx.Response(200, json={})

    server.reply = page_or_acknowledgement
    if AGENT_ACTIVITY in kinds:
        enqueue(both, AGENT_ACTIVITY, stream="another")
    for kind in kinds:
        enqueue(both, kind, stream="s")
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        receipt = await sender.receipt()
    assert receipt.sent == sum(kind in (CONVERSATION_STARTED, CONVERSATION_ENDED) for kind in kinds)
    assert (receipt.dead, receipt.left, receipt.error) == (0, True, None), "what it does not take waits until that is sure"
    assert server.paths.count("/capabilities") <= 5


async def test_a_plain_backend_that_answers_with_a_page_is_known_for_one_in_the_next_pass(
    both: AsyncSessionStore, frozen: FrozenClock
) -> None:
    server = Server(reply=lambda request: httpx.Response(200, text="<html>" if request.method == "GET" else "{}"))
    async with Sender(both, remote(), transport=server.transport) as sender:
        for _ in range(3):
            enqueue(both, METRIC, CONVERSATION_ENDED, stream="s")
            await sender.send_all()
            frozen.go(hours=1)
        await sender.send_all()
        receipt = await sender.receipt()
    assert (receipt.sent, receipt.dead, receipt.left) == (3, 3, False)
    assert server.paths.count("/capabilities") <= 8


async def test_nothing_of_a_stream_overtakes_what_was_behind_a_page_that_goes_away(both: AsyncSessionStore) -> None:
    """The news of an erasure must not come after what was stored under the same name since, and erase that."""
    for kind in (ERASE, CONVERSATION_STARTED):
        enqueue(both, kind, stream="s")
    server = Server()

    def a_page_once(request: httpx.Request) -> httpx.Response:
        server.reply = None
        return httpx.Response(200, text="<html>Sign in to the hotel</html>")

    server.reply = a_page_once
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        receipt = await sender.receipt()
    assert server.paths == ["/capabilities", "/capabilities", "/events/batch"]
    assert (receipt.sent, receipt.dead, receipt.left) == (2, 0, False)


async def test_a_page_for_every_request_ends_a_pass_as_an_outage(both: AsyncSessionStore) -> None:
    enqueue(both, METRIC, CONVERSATION_ENDED, stream="s")
    server = Server(reply=failing(200, text="<html>"))
    async with Sender(both, remote(), transport=server.transport) as sender:
        for _ in range(3):
            await sender.send_all()
        receipt = await sender.receipt()
    assert (receipt.sent, receipt.dead, receipt.left) == (0, 0, True)
    assert len(server.paths) <= 3 * 5


async def test_events_of_a_kind_that_is_not_taken_are_told_of_once(
    both: AsyncSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(plain=True)
    server.reply = lambda request: httpx.Response(404 if request.url.path.endswith(("/capabilities", "/expired")) else 204)
    enqueue(both, CONVERSATION_STARTED, *[METRIC] * 5, *[CONVERSATION_EXPIRED] * 5, CONVERSATION_STARTED)
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        enqueue(both, *[METRIC] * 5)
        await sender.send_all()
    assert (await both.outbox.stats()).dead == 15
    told_of = [getattr(record, "kind", None) for record in caplog.records if getattr(record, "event", None) == "event_given_up"]
    assert sorted(map(str, told_of)) == [CONVERSATION_EXPIRED, METRIC]


async def test_requests_that_fail_together_are_one_failure(both: AsyncSessionStore) -> None:
    enqueue(both, *[AGENT_STATUS] * 200)
    posts = 0
    together = anyio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal posts
        if request.method == "GET":
            limits = {**CAPABILITIES["batch"], "max_events": 10}
            return httpx.Response(200, json={**CAPABILITIES, "batch": limits})
        posts += 1
        if posts == 1:
            keys = [each["key"] for each in json.loads(request.content)["events"]]
            return httpx.Response(200, json={"results": [{"key": key, "status": "stored"} for key in keys]})
        if posts == 3:
            together.set()
        await together.wait()
        return httpx.Response(503)

    async with Sender(both, remote(), transport=httpx.MockTransport(answer)) as sender:
        # The second worker needs events that the first has not claimed.
        sender._pace.events = sender._pace.most_events = 20
        await sender.send_all()
    assert posts == 3
    assert (await both.outbox.stats()).failures == 1


async def test_what_is_erased_while_its_stream_is_sent_is_not_told_any_more(both: AsyncSessionStore) -> None:
    for _ in range(5):
        enqueue(both, AGENT_STATUS, stream="alice")
        enqueue(both, AGENT_STATUS, stream="bob")
    told = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal told
        if request.method == "GET":
            return httpx.Response(404)
        told += 1
        if told == 1:
            assert await both.outbox.erase("alice") == 5
        return httpx.Response(204)

    async with Sender(both, remote(), transport=httpx.MockTransport(answer)) as sender:
        await sender.send_all()
    # One of alice was on its way.
    assert told == 1 + 5
    stats = await both.outbox.stats()
    assert (stats.sent, stats.erased) == (5, 5)


async def test_a_flush_waits_for_what_others_send_and_not_for_their_lease(both: AsyncSessionStore) -> None:
    enqueue(both, AGENT_STATUS)
    under_way, done = anyio.Event(), anyio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)
        under_way.set()
        await done.wait()
        return httpx.Response(204)

    async def send() -> None:
        async with Sender(both, remote(), transport=httpx.MockTransport(slow)) as sender:
            await sender.send_all()

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await under_way.wait()
        assert (await both._outlook()).is_leased
        assert 0 < _seconds_until_next(await both._outlook()) < 1
        done.set()
    outlook = await both._outlook()
    assert (outlook.is_leased, outlook.waits_until, outlook.pending) == (False, None, False)


async def test_key_and_request_have_one_deadline() -> None:
    """A lease is longer than a request; a keyring that takes its time must not stretch that."""
    lengths: list[float] = []

    def provider() -> str:
        threading.Event().wait(0.2)
        return CANARY

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            lengths.append(anyio.current_effective_deadline() - anyio.current_time())
            await anyio.sleep_forever()
            raise AssertionError(request)

    async with Courier(remote(provider, timeout=0.4), transport=Silent()) as courier:
        assert await courier.get("/capabilities") == Failure("no answer within 0.4 seconds")
    assert lengths[0] <= 0.2


async def test_a_plain_backend_is_asked_again_after_trouble(both: AsyncSessionStore) -> None:
    server = Server(plain=True)
    async with Sender(both, remote(), transport=server.transport) as sender:
        enqueue(both, AGENT_STATUS)
        await sender.send_all()
        enqueue(both, AGENT_STATUS)
        server.reply = unreachable
        await sender.send_all()
        assert sender.trouble is not None
        # Meanwhile somebody has set up a collector there.
        server.reply, server.plain = None, False
        await sender.send_all()
    assert server.paths[-2:] == ["/capabilities", "/events/batch"]
    assert not (await both.outbox.stats()).pending


@pytest.mark.parametrize(
    ("reply", "paused"),
    [
        (failing(401), "auth"),
        (failing(403), "auth"),
        (failing(302, headers={"location": "https://elsewhere.example/"}), "redirect"),
        (failing(500), None),
        (failing(503), None),
        (failing(429), None),
        (failing(408), None),
        (failing(409), None),
        (unreachable, None),
    ],
)
async def test_who_cannot_say_what_it_can_do_gets_no_events(both: AsyncSessionStore, reply: Reply, paused: str | None) -> None:
    enqueue(both, AGENT_STATUS)
    server = Server(reply=reply)
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        receipt = await sender.receipt()
    assert server.paths == ["/capabilities"]
    assert (receipt.sent, receipt.refused, receipt.left, receipt.paused) == (0, 0, True, paused)
    stats = await both.outbox.stats()
    assert (stats.attempts, stats.paused, stats.failures) == (0, paused, 1)


EVERY_FAILURE = [
    httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.ReadTimeout, httpx.WriteError, httpx.WriteTimeout,
    httpx.PoolTimeout, httpx.CloseError, httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.ProxyError,
    httpx.UnsupportedProtocol, httpx.DecodingError,
]  # fmt: skip


@pytest.mark.parametrize("kind", EVERY_FAILURE)
async def test_every_failure_of_http_leaves_events_as_they_were(
    both: AsyncSessionStore, kind: type[httpx.RequestError], caplog: pytest.LogCaptureFixture
) -> None:
    enqueue(both, AGENT_STATUS, AGENT_STATUS)

    def fail(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=CAPABILITIES)
        raise kind(f"header b'Bearer {CANARY}'", request=request)

    server = Server(reply=fail)
    with caplog.at_level(logging.DEBUG):
        async with Sender(both, remote(), transport=server.transport) as sender:
            await sender.send_all()
            receipt = await sender.receipt()
    assert receipt.error is not None
    assert receipt.error.startswith(kind.__name__)
    assert CANARY not in receipt.error + str(await both.outbox.stats()) + caplog.text
    assert [(each.state, each.attempts, each.lease_until) for each in (await both.outbox.list()).items] == [
        ("pending", 0, None)
    ] * 2


async def test_a_request_ends_within_its_time(both: AsyncSessionStore) -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError(request)

    enqueue(both, AGENT_STATUS)
    async with Sender(both, remote(timeout=0.05), transport=Silent()) as sender:
        await sender.send_all()
        assert (await sender.receipt()).error == "no answer within 0.05 seconds"


async def cancelled_in_its_request(both: AsyncSessionStore, leased: int) -> None:
    """Begin to send what waits, so much of it, and cancel that while the remote says nothing."""
    asked = anyio.Event()

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                return httpx.Response(200, json=CAPABILITIES)
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError(request)

    async with Sender(both, remote(), transport=Silent()) as sender, anyio.create_task_group() as group:
        group.start_soon(sender.send_all)
        await asked.wait()
        assert (await both.outbox.stats()).leased == leased
        group.cancel_scope.cancel()


async def test_a_drain_that_is_cancelled_holds_nothing(both: AsyncSessionStore) -> None:
    enqueue(both, AGENT_STATUS, AGENT_STATUS)
    await cancelled_in_its_request(both, 2)
    assert (await both.outbox.stats()).leased == 0


async def test_news_of_an_erasure_waits_for_a_request_whose_drain_was_cancelled(
    both: AsyncSessionStore, frozen: FrozenClock
) -> None:
    """It may still arrive, and the remote would keep what it tells."""
    enqueue(both, METRIC, stream="alice")
    await cancelled_in_its_request(both, 1)
    assert await both.outbox.erase("alice") == 1
    server = Server()
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all()
        assert server.stored == []
        frozen.go(timedelta(seconds=remote().timeout))
        await sender.send_all()
    assert len(server.stored) == 1
    assert not (await both.outbox.stats()).pending


@pytest.mark.parametrize(
    ("reply", "waiting"),
    [
        *((reply, 1) for reply in (failing(500), failing(503), failing(504), failing(409), lost)),
        *((reply, 0) for reply in (failing(401), failing(413), failing(429), unreachable)),
    ],
)
async def test_news_of_an_erasure_waits_only_for_a_request_that_may_still_arrive(
    both: AsyncSessionStore, frozen: FrozenClock, reply: Reply, waiting: int
) -> None:
    enqueue(both, METRIC, stream="alice")
    async with Sender(both, remote(), transport=Server(reply=to_events(reply)).transport) as sender:
        await sender.send_all()
    await both.outbox.erase("alice")
    assert (await both.outbox.stats()).leased == waiting


async def test_news_of_an_erasure_waits_for_a_request_without_an_answer_that_could_not_be_settled(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise StoreBusyError("agent.db", "another program writes")

    monkeypatch.setattr(queries.deliveries, "settle", fail)
    enqueue(both, METRIC, stream="alice")
    async with Sender(both, remote(), transport=Server(reply=to_events(failing(504))).transport) as sender:
        with pytest.raises(StoreBusyError):
            await sender.send_all()
        assert sender._under_way == {}
    await both.outbox.erase("alice")
    assert (await both.outbox.stats()).leased == 1


async def test_a_drain_that_is_cancelled_while_it_claims_holds_nothing(
    both: AsyncSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(both, AGENT_STATUS)
    current = queries.deliveries.claim

    with anyio.CancelScope() as scope:

        def claim_and_cancel(*arguments: Any, **options: Any) -> Any:
            claimed = current(*arguments, **options)
            # The cancellation arrives while the claim is being committed.
            wake(scope.cancel)
            return claimed

        wake = _in_this_loop()
        monkeypatch.setattr(queries.deliveries, "claim", claim_and_cancel)
        async with Sender(both, remote(), transport=Server().transport) as sender:
            await sender.send_all()
    assert scope.cancelled_caught
    assert (await both.outbox.stats()).leased == 0


def _in_this_loop() -> Callable[[Callable[[], None]], None]:
    """What runs a call in the running loop, from any thread, and returns when it has run."""
    native = anyio.lowlevel.current_token().native_token
    call_soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def run(call: Callable[[], None]) -> None:
        done = threading.Event()
        call_soon(lambda: (call(), done.set()))
        assert done.wait(10)

    return run


async def test_a_limit_ends_a_pass(both: AsyncSessionStore) -> None:
    enqueue(both, *[AGENT_STATUS] * 30)
    server = Server()
    async with Sender(both, remote(), transport=server.transport) as sender:
        await sender.send_all(limit=10)
        assert (await sender.receipt()).sent == 10


async def test_a_retry_has_the_same_key_and_the_same_bytes(both: AsyncSessionStore) -> None:
    enqueue(both, AGENT_STATUS)
    server = Server(plain=True)
    posts: list[tuple[str, bytes]] = []

    def lose_the_answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)
        posts.append((request.headers[IDEMPOTENCY_KEY], request.content))
        if len(posts) < 3:
            raise httpx.ReadError("reset", request=request)
        return httpx.Response(204)

    server.reply = lose_the_answer
    async with Sender(both, remote(), transport=server.transport) as sender:
        for _ in range(3):
            await sender.send_all()
    assert len(posts) == 3
    assert len(set(posts)) == 1
    assert (await both.outbox.stats()).sent == 1


# The key.


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_a_remote_that_quotes_the_key_does_not_bring_it_into_the_file_or_the_log(
    both: AsyncSessionStore, store_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    key = "plain.words/no.known.shape"

    def quote(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=CAPABILITIES)
        return httpx.Response(status, json={"error": f"not with {request.headers['authorization'].split()[1]}!"})

    enqueue(both, AGENT_STATUS, AGENT_STATUS)
    server = Server(reply=quote)
    with caplog.at_level(logging.DEBUG):
        async with Sender(both, remote(key), transport=server.transport) as sender:
            for _ in range(3):
                await sender.send_all()
            receipt = await sender.receipt()
            shown = repr((sender, sender._courier, sender._remote, receipt, sender.trouble, vars(sender._courier)))
    stats = await both.outbox.stats()
    listed = await both.outbox.list()
    facts = [vars(record) for record in caplog.records]
    assert any("not with ****" in (each.last_error or "") for each in (*listed.items, stats))
    assert key not in shown + repr(stats) + repr(listed) + caplog.text + repr(facts)
    await anyio.to_thread.run_sync(lambda: both._store.close(drain_timeout=0))
    assert key.encode() not in await anyio.Path(store_path).read_bytes()


async def test_a_provider_that_fails_pauses_and_tells_only_what_kind_of_error_it_was(
    both: AsyncSessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    def provider() -> str:
        raise PermissionError(f"the keyring has {CANARY} and gives it to nobody")

    enqueue(both, AGENT_STATUS)
    server = Server()
    with caplog.at_level(logging.DEBUG):
        async with Sender(both, remote(provider), transport=server.transport) as sender:
            await sender.send_all()
            receipt = await sender.receipt()
            assert not await sender.has_new_key()
    assert (receipt.paused, receipt.error) == ("auth", "api_key: asking for it raised PermissionError")
    assert server.requests == []
    assert CANARY not in caplog.text + repr([vars(record) for record in caplog.records])


async def test_the_error_of_a_provider_is_not_chained() -> None:
    def provider() -> str:
        raise ValueError(CANARY)

    async with Courier(remote(provider), transport=Server().transport) as courier:
        with pytest.raises(AuthError) as caught:
            await courier.get("/capabilities")
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_a_provider_that_hangs_holds_a_drain_no_longer_than_a_request() -> None:
    released = threading.Event()

    def provider() -> str:
        released.wait()
        return CANARY

    async with Courier(remote(provider, timeout=0.05), transport=Server().transport) as courier:
        with pytest.raises(AuthError, match="TimeoutError"):
            await courier.get("/capabilities")
    released.set()


@pytest.mark.parametrize("given", ["", "two words", "Bearer x1", None, 7, b"bytes"])
async def test_what_is_no_key_is_sent_nowhere(given: Any) -> None:
    server = Server()
    async with Courier(remote(lambda: given), transport=server.transport) as courier:
        with pytest.raises(AuthError, match="what the callable returned must"):
            await courier.get("/capabilities")
    assert server.requests == []


async def test_a_courier_asks_for_the_key_each_time_and_knows_a_new_one() -> None:
    keys = ["first-key", "first-key", "second-key", "second-key"]
    given = iter(keys)
    server = Server()
    async with Courier(remote(lambda: next(given)), transport=server.transport) as courier:
        await courier.get("/capabilities")
        assert not await courier.key_is_new()
        assert await courier.key_is_new()
        await courier.get("/capabilities")
    assert [each.headers["authorization"] for each in server.requests] == ["Bearer first-key", "Bearer second-key"]


async def test_a_new_key_after_a_refused_one_is_used_at_once(told: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["old-key"]
    server = Server()

    def check(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer new-key":
            server.reply = None
            return server._answer(request)
        # What the refusal makes somebody do.
        keys.append("new-key")
        return httpx.Response(401)

    server.reply = check
    plain = Sender.__init__
    monkeypatch.setattr(Sender, "__init__", lambda self, store, to: plain(self, store, to, transport=server.transport))
    told.set_remote(Remote(URL, lambda: keys[-1]))
    enqueue(told, AGENT_STATUS)
    receipt = await anyio.to_thread.run_sync(told.drain)
    assert (receipt.sent, receipt.error) == (1, None)
    told.close(drain_timeout=0)


async def cancelled_in_its_settlement(
    store: AsyncSessionStore, monkeypatch: pytest.MonkeyPatch, server: Server, *, begun: bool, limit: int | None = None
) -> None:
    """A pass that is cancelled after its first answer: before its settlement begins, or after that is committed."""
    writer, submit = store._database.writer, store._database.submit
    reply = server.reply or server._answer
    waits = anyio.Event()

    def cancel(job: WriteJob[Any]) -> None:
        monkeypatch.undo()
        scope.cancel()
        over = threading.Event()

        def tell(notify: Callable[[], None] | None = job.notify) -> None:
            assert notify is not None
            notify()
            over.set()

        job.notify = tell
        if not begun:
            writer._mutex.acquire()
        submit(job)
        assert not begun or over.wait(30)
        waits.set()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/capabilities"):
            return httpx.Response(200, json=CAPABILITIES)
        monkeypatch.setattr(store._database, "submit", cancel)
        server.reply = None
        return reply(request)

    async def begin() -> None:
        await waits.wait()
        await anyio.wait_all_tasks_blocked()
        if not begun:
            writer._mutex.release()

    server.reply = answer
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        with anyio.CancelScope() as scope:
            async with Sender(store, remote(), transport=server.transport) as sender:
                await sender.send_all(limit=limit)
        assert scope.cancelled_caught


@pytest.mark.parametrize("limit", [None, 1], ids=["settled and claimed", "settled"])
@pytest.mark.parametrize("begun", [False, True])
async def test_what_was_answered_leaves_the_outbox_although_its_delivery_is_cancelled(
    both: AsyncSessionStore, monkeypatch: pytest.MonkeyPatch, limit: int | None, begun: bool
) -> None:
    server = Server()
    enqueue(both, AGENT_STATUS)
    await cancelled_in_its_settlement(both, monkeypatch, server, begun=begun, limit=limit)
    stats = await both.outbox.stats()
    assert (stats.sent, stats.pending, stats.leased, len(server.stored)) == (1, 0, 0, 1)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_failure_whose_delivery_is_cancelled_is_counted_once(
    both: AsyncSessionStore, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    enqueue(both, AGENT_STATUS)
    await cancelled_in_its_settlement(both, monkeypatch, Server(reply=failing(401)), begun=begun)
    outlook = await both._outlook()
    assert (outlook.failures, outlook.paused, outlook.pending, outlook.is_leased) == (1, "auth", True, False)


# The standing drain, seen through the one decision that is not the sender's.


async def due(drain: StandingDrain) -> float:
    return await drain._seconds_until_due(await drain._store._outlook())


async def paused_drain(both: AsyncSessionStore, monkeypatch: pytest.MonkeyPatch, used: Remote, server: Server) -> StandingDrain:
    """A drain that has been told 401 once."""
    plain = Sender.__init__
    monkeypatch.setattr(Sender, "__init__", lambda self, store, to: plain(self, store, to, transport=server.transport))
    both._store.set_remote(used)
    enqueue(both, AGENT_STATUS)
    drain = StandingDrain(both)
    await drain._work()
    assert (await both.outbox.stats()).paused == "auth"
    return drain


async def test_a_paused_drain_goes_on_once_its_provider_has_another_key(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["old-key"]
    server = Server(reply=failing(401))
    drain = await paused_drain(both, monkeypatch, Remote(URL, lambda: keys[-1]), server)
    assert 0 < await due(drain) <= 3_600
    keys.append("new-key")
    assert await due(drain) == 0
    server.reply = None
    await drain._work()
    assert (await both.outbox.stats()).sent == 1
    await drain._forget_sender()


async def test_a_paused_drain_goes_on_once_the_remote_is_set_with_another_key(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(reply=failing(401))
    drain = await paused_drain(both, monkeypatch, Remote(URL, "old-key"), server)
    assert 0 < await due(drain) <= 3_600
    both._store.set_remote(URL, "new-key")
    assert await due(drain) == 0
    server.reply = None
    await drain._work()
    assert server.requests[-1].headers["authorization"] == "Bearer new-key"
    assert (await both.outbox.stats()).paused is None
    await drain._forget_sender()


async def test_a_provider_with_another_token_each_time_is_no_reason_to_ask_without_end(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(reply=failing(401))
    tokens = iter(range(10_000))
    drain = await paused_drain(both, monkeypatch, Remote(URL, lambda: f"token-{next(tokens)}"), server)
    assert await due(drain) == 0
    await drain._work()
    for _ in range(5):
        assert 60 < await due(drain) <= 3_600
    assert len(server.requests) == 2
    # Once more in each pause, and no more than that.
    frozen.go(timedelta(hours=1))
    assert await due(drain) == 0
    await drain._work()
    assert await due(drain) == 0
    await drain._work()
    assert await due(drain) > 60
    assert len(server.requests) == 4
    both._store.set_remote(URL, "new-key")
    assert await due(drain) == 0
    await drain._forget_sender()


async def test_a_drain_tries_another_token_once(told: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(reply=failing(401))
    tokens = iter(range(10_000))
    plain = Sender.__init__
    monkeypatch.setattr(Sender, "__init__", lambda self, store, to: plain(self, store, to, transport=server.transport))
    told.set_remote(Remote(URL, lambda: f"token-{next(tokens)}", max_retries=10))
    enqueue(told, AGENT_STATUS)
    receipt = await anyio.to_thread.run_sync(told.drain)
    assert (receipt.requests, receipt.paused) == (2, "auth")
    told.close(drain_timeout=0)


async def test_a_refused_key_binds_only_the_program_that_has_it(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(reply=failing(401))
    without = await paused_drain(both, monkeypatch, Remote(URL, "wrong-key"), server)
    server.reply = None
    # Another program, with the right one.
    async with Sender(both, remote()) as sender:
        for _ in range(2):
            await sender.send_all()
            assert (await both.outbox.stats()).paused is None
            # That the file is well again does not make the wrong key right.
            enqueue(both, AGENT_STATUS)
            assert await due(without) > 60
    with_key = StandingDrain(both)
    await without._store._note_trouble(Trouble("HTTP 401", 401, "auth"))
    assert await due(with_key) == 0
    await with_key._work()
    enqueue(both, AGENT_STATUS)
    await both._note_trouble(Trouble("HTTP 401", 401, "auth"))
    # It sends although the other one was refused again.
    assert await due(with_key) == 0
    assert await due(without) > 0
    for drain in (without, with_key):
        await drain._forget_sender()


async def test_a_refused_key_waits_whatever_trouble_others_had_since(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = await paused_drain(both, monkeypatch, Remote(URL, "old-key"), Server(reply=failing(401)))
    await both._note_trouble(Trouble("HTTP 503", 503))
    frozen.go(timedelta(minutes=1))
    assert (await both.outbox.stats()).paused is None
    assert await due(drain) > 60
    await drain._forget_sender()


async def test_a_refused_key_is_not_missed_beside_another_failure(both: AsyncSessionStore, frozen: FrozenClock) -> None:
    enqueue(both, AGENT_STATUS)
    async with Sender(both, remote(), transport=Server(reply=failing(503)).transport) as sender:
        await sender.send_all()
        for trouble in (Trouble("HTTP 401", 401, "auth"), Trouble("HTTP 503", 503)):
            await sender._settle(Settlement(token="of a request on its way", sent_before=0, trouble=trouble))
        assert await sender.seconds_until_key_is_tried() > 60
        assert (sender.trouble and sender.trouble.paused, (await both.outbox.stats()).paused) == ("auth", "auth")


async def test_a_program_that_is_started_anew_asks_once_whether_the_pause_is_over(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(reply=failing(401))
    first = await paused_drain(both, monkeypatch, Remote(URL, "old-key"), server)
    await first._forget_sender()
    second = StandingDrain(both)
    assert await due(second) == 0
    await second._work()
    assert len(server.requests) == 2
    assert 0 < await due(second) <= 3_600
    await second._forget_sender()


async def test_a_paused_drain_without_a_new_key_asks_again_within_the_hour(
    both: AsyncSessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = await paused_drain(both, monkeypatch, Remote(URL, "old-key"), Server(reply=failing(401)))
    assert await due(drain) > 60
    frozen.go(timedelta(hours=1))
    assert await due(drain) == 0
    await drain._forget_sender()


async def test_what_a_courier_hands_on_is_an_answer_or_a_failure() -> None:
    huge = Server(reply=failing(200, content=b"x" * (5 << 20)))
    packed = Server(reply=failing(200, content=b"\x1f\x8b", headers={"content-encoding": "gzip"}))
    for server in (huge, packed):
        async with Courier(remote(), transport=server.transport) as courier:
            answer = await courier.get("/capabilities")
        assert isinstance(answer, Answer)
        assert answer.body is None
        assert CANARY not in repr(answer)
    async with Courier(remote(), transport=httpx.MockTransport(unreachable)) as courier:
        assert await courier.get("/capabilities") == Failure("ConnectError: refused", is_unsent=True)
