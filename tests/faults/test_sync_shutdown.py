"""Ends while deliveries go on, and senders that are overtaken: rows keep their state, and nobody waits for the network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends import BatchBackend
from proxy import Fault, FaultProxy, answers, on_events, passed, resets, says_nothing, trickles_body
from sync_lab import (
    KEY,
    Drawn,
    assert_all_arrived,
    assert_untouched,
    attempts,
    fill,
    fill_one,
    held,
    opened,
    quick,
    redirected,
    standing,
)
from trials import Trial

from sessionstore.aio import AsyncSessionStore
from sessionstore.remote import backoff
from sessionstore.remote.settings import Remote

FOLDER = Path(__file__).parent
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")

# What an end may take beyond its limit, on a busy machine.
GRACE = 1.0


@pytest.fixture
def backend() -> Iterator[BatchBackend]:
    with BatchBackend() as running:
        yield running


@pytest.fixture
def proxy(backend: BatchBackend) -> Iterator[FaultProxy]:
    with FaultProxy(backend) as running:
        yield running


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds + GRACE


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that happens elsewhere; not for how long that takes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def assert_nothing_changed(path: Path, backend: BatchBackend, count: int) -> None:
    """All events wait without an attempt, nobody holds them, and they can still be delivered."""
    with redirected(path, backend.url) as store:
        assert_untouched(store, count)
        assert store.flush(timeout=30)
        assert_all_arrived(store, backend, count)


# -- F6: closing


@pytest.mark.fault("F6")
@pytest.mark.parametrize("fault", [says_nothing, trickles_body, resets, answers(503)], ids=["silent", "slow", "reset", "busy"])
@pytest.mark.parametrize("where", ["everything", "events"])
def test_a_close_ends_in_time_whatever_the_remote_does(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, fault: Fault, where: str
) -> None:
    proxy.fault = fault if where == "everything" else on_events(fault)
    store = opened(tmp_path / "agent.db", Remote(proxy.url, KEY))
    count = fill(store)
    with at_most(0.3):
        store.close(drain_timeout=0.3)
    assert_nothing_changed(tmp_path / "agent.db", backend, count)


@pytest.mark.fault("F6")
def test_a_close_while_offline_ends_in_time(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend) -> None:
    with proxy.refusing():
        store = opened(tmp_path / "agent.db", Remote(proxy.url, KEY))
        count = fill(store)
        with at_most(0.3):
            store.close(drain_timeout=0.3)
    assert_nothing_changed(tmp_path / "agent.db", backend, count)


@pytest.mark.fault("F6")
def test_a_close_delivers_what_it_can(tmp_path: Path, backend: BatchBackend) -> None:
    """With a remote that answers, nothing is left."""
    with opened(tmp_path / "agent.db", quick(backend.url)) as store:
        count = fill(store)
    with opened(tmp_path / "agent.db", quick(backend.url)) as store:
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F6")
def test_many_closes_change_no_row(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, trial: Trial) -> None:
    """The longest close, and what it did to the rows; the outbox fills up meanwhile."""
    path = tmp_path / "agent.db"
    proxy.fault = on_events(says_nothing)
    count, longest = 0, 0.0
    closes = trial.size(push=30, nightly=300, release=1_000)
    for number in range(closes):
        store = opened(path, Remote(proxy.url, KEY))
        count += fill_one(store, f"s{number}", 9)
        begun = time.monotonic()
        store.close(drain_timeout=0.02)
        longest = max(longest, time.monotonic() - begun)
    assert longest < 0.02 + GRACE
    assert_nothing_changed(path, backend, count)
    trial.report(f"{closes:,} closes, the longest {longest:.2f} s: 0 of {count:,} rows changed their state", longest=longest)


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A name server that does not answer."""
    asked, ended = threading.Event(), threading.Event()
    usual = socket.getaddrinfo

    def hang(host: Any, *args: Any, **options: Any) -> Any:
        if host in ("remote.invalid", b"remote.invalid"):
            asked.set()
            ended.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "it took too long")
        return usual(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield
    ended.set()
    assert asked.is_set()


@pytest.mark.fault("F6")
@pytest.mark.usefixtures("hanging_names")
def test_a_name_server_that_hangs_holds_up_nobody(tmp_path: Path, backend: BatchBackend) -> None:
    """A thread that asks it cannot be stopped, so nobody waits for it."""
    path = tmp_path / "agent.db"
    store = opened(path, Remote("https://remote.invalid", KEY))
    count = fill(store)
    with at_most(0.3):
        assert store.drain(timeout=0.3).left
    assert_untouched(store, count)
    with at_most(0.3):
        assert not store.flush(timeout=0.3)
    background = store.background()
    with background:
        time.sleep(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.0 + GRACE
    with at_most(0.3):
        store.close(drain_timeout=0.3)
    with opened(path, Remote("https://remote.invalid", KEY)) as again:
        assert_untouched(again, count)
        again.set_remote(quick(backend.url), replace=True)
        assert again.drain().sent == count
        assert_all_arrived(again, backend, count)


@pytest.mark.fault("F6")
def test_a_key_provider_that_hangs_holds_up_nobody(tmp_path: Path, backend: BatchBackend) -> None:
    """A keyring that waits for somebody to type its password."""
    asked, ended = threading.Event(), threading.Event()

    def hang() -> str:
        asked.set()
        ended.wait(60)
        return KEY

    store = opened(tmp_path / "agent.db", Remote(backend.url, hang))
    count = fill(store)
    with at_most(0.3):
        store.close(drain_timeout=0.3)
    assert asked.is_set()
    assert backend.received == []
    ended.set()
    assert_nothing_changed(tmp_path / "agent.db", backend, count)


# -- F6: the background and tasks that are cancelled


@pytest.mark.fault("F6")
def test_a_background_that_stops_in_mid_request_frees_its_events(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend) -> None:
    path = tmp_path / "agent.db"
    proxy.fault = on_events(says_nothing)
    with opened(path, Remote(proxy.url, KEY)) as store:
        count = fill(store)
        background = store.background()
        background.start()
        until(lambda: bool(proxy.event_requests))
        assert held(store) > 0
        with at_most(1.0):
            background.stop()
        assert_untouched(store, count)
        store._database.remote = None
    assert_nothing_changed(path, backend, count)


@pytest.mark.fault("F6")
@pytest.mark.anyio
@pytest.mark.parametrize("way", ["drain", "flush", "background"])
async def test_a_cancelled_task_frees_its_events(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, way: str) -> None:
    """On both event loops."""
    proxy.fault = on_events(says_nothing)
    store = opened(tmp_path / "agent.db", Remote(proxy.url, KEY))
    count = fill(store)
    shared = AsyncSessionStore(store)

    async def deliver() -> None:
        if way == "background":
            async with shared.background():
                await anyio.sleep_forever()
        elif way == "drain":
            await shared.drain()
        else:
            await shared.flush(60)

    async with anyio.create_task_group() as group:
        group.start_soon(deliver)
        await anyio.to_thread.run_sync(until, lambda: bool(proxy.event_requests))
        with at_most(0):
            group.cancel_scope.cancel()
    assert_untouched(store, count)
    proxy.fault = passed
    assert (await shared.drain()).sent == count
    assert_all_arrived(store, backend, count)
    await anyio.to_thread.run_sync(store.close)


# httpx leaves the generator of a body to trio when a request is cancelled.
@pytest.mark.fault("F6")
@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")
@pytest.mark.anyio
async def test_a_drain_that_is_cancelled_anywhere_leaves_no_hold(tmp_path: Path, backend: BatchBackend) -> None:
    """At each of its steps, by a deadline that moves through it."""
    store = opened(tmp_path / "agent.db", quick(backend.url))
    shared = AsyncSessionStore(store)
    count, finished = 0, 0
    for number in range(40):
        count += fill(store, 1, 2, name=f"t{number}-")
        with anyio.move_on_after(number * 0.002):
            await shared.drain()
            finished += 1
        assert held(store) == 0
    assert finished < 40
    assert await shared.flush(30)
    assert_all_arrived(store, backend, count)
    await anyio.to_thread.run_sync(store.close)


# -- F6: signals

DRIVER = FOLDER / "sync_driver.py"


class Driver:
    """A program of its own that delivers; see `sync_driver.py`. What it says comes line by line."""

    def __init__(self, path: Path, url: str, way: str, lease: float = 1.0) -> None:
        settings = json.dumps({"path": str(path), "url": url, "way": way, "lease": lease, "key": KEY})
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(DRIVER), settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return json.loads(line)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@pytest.mark.fault("F6")
@posix_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_program_that_is_ended_in_mid_request_loses_nothing(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, number: signal.Signals
) -> None:
    """Whoever comes next delivers, at the latest when the lease is over."""
    path = tmp_path / "agent.db"
    with opened(path, quick(backend.url)) as store:
        store.set_remote(quick(proxy.url), replace=True)
        count = fill(store)
        store._database.remote = None
    proxy.fault = on_events(says_nothing)
    with Driver(path, proxy.url, "background", lease=3.0) as driver:
        until(lambda: bool(proxy.event_requests))
        with at_most(5.0):
            driver.send(number)
            driver.process.wait(60)
    proxy.fault = passed
    with opened(path, quick(proxy.url)) as store:
        assert standing(store).pending == count
        assert attempts(store) == [0] * count
        assert store.flush(timeout=30)
        assert_all_arrived(store, backend, count)


@pytest.mark.fault("F6")
@posix_only
def test_a_program_that_ends_without_closing_ends_in_time(tmp_path: Path, proxy: FaultProxy, backend: BatchBackend) -> None:
    """The background's request is under way, and nobody closes the store."""
    path = tmp_path / "agent.db"
    with opened(path, quick(proxy.url)) as store:
        count = fill(store)
        store._database.remote = None
    proxy.fault = on_events(says_nothing)
    with Driver(path, proxy.url, "leave") as driver:
        assert driver.hear() == "leaving"
        with at_most(4.0):
            assert driver.process.wait(60) == 0, driver.process.communicate()[1]
    assert_nothing_changed(path, backend, count)


# -- F5: a sender that stalls past its lease


@pytest.mark.fault("F5")
@posix_only
def test_a_sender_that_wakes_after_its_lease_changes_nothing(
    tmp_path: Path, proxy: FaultProxy, backend: BatchBackend, monkeypatch: pytest.MonkeyPatch, trial: Trial
) -> None:
    """It stalls between the answer and its settlement, another one takes over, and it wakes."""
    monkeypatch.setattr(backoff, "_draw", Drawn(0.0))
    path = tmp_path / "agent.db"
    with opened(path, quick(proxy.url)) as store, Driver(path, proxy.url, "stall", lease=0.4) as driver:
        assert driver.hear() == "ready"
        count = stolen = lost = 0
        stalls = trial.size(push=3, nightly=20, release=100)
        for number in range(stalls):
            count += fill(store, 2, 3, name=f"n{number}-")
            driver.send(signal.SIGUSR1)
            # It stops itself there.
            os.waitpid(driver.process.pid, os.WUNTRACED)
            before = standing(store).sent
            # Only when the lease is over may anybody else send them.
            assert store.flush(timeout=30)
            taken_over = standing(store).sent
            assert taken_over > before
            fill(store, 1, 1, name=f"later{number}-", end=False)
            driver.send(signal.SIGCONT)
            lost += driver.hear()["lost"]
            stolen += standing(store).sent - taken_over - 2
            count += 2
        assert lost >= stalls, "it settled before it was stopped: the stalls prove nothing"
        assert stolen == 0
        assert_all_arrived(store, backend, count)
    trial.report(f"{stalls} stalls, {lost} late marks, 0 of them stolen")
