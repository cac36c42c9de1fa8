"""Deliveries: events claimed and settled, and drained to a collector in a process of its own, beside what a bare loop does."""

from __future__ import annotations

import itertools
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx

import sessionstore
from sessionstore import clock
from sessionstore.delivery import sender
from sessionstore.queries import deliveries, outbox, subscription
from sessionstore.remote import capabilities, events, requests
from sessionstore.remote.settings import Remote
from sessionstore.remote.settlement import QueuedEvent, Settlement, lease_for

from .bench import BOTH, Bench, Durability, Item, Row, Target
from .timing import Figure, Side, percentile

_NOBODY = Remote("http://127.0.0.1:9")
_LEASE = lease_for(30)
# At least 0.6 times as many a second.
_CLAIM_TARGET = Target(1.67)
_BATCH = 100
_MESSAGES = 8
_CLIENTS = 50
_MOST_SECONDS_TO_START = 20
# No conversation is told twice: one that begins anew is other work for a collector.
_CONVERSATIONS = itertools.count()
_QUEUE = """
CREATE TABLE queue (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, created_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, claimed_until INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0);
CREATE INDEX ix_queue ON queue (id) WHERE done = 0
"""
_TAKE = """UPDATE queue SET claimed_until = ?, attempts = attempts + 1
WHERE id IN (SELECT id FROM queue WHERE done = 0 AND claimed_until < ? ORDER BY id LIMIT ?) RETURNING id, payload"""


def claims(bench: Bench) -> Iterator[Row]:
    """Claim and settle in batches, per event."""
    for durability in BOTH:
        with bench.place() as place:
            path = bench.new_file(place, "store")
            with sessionstore.open(path, durability=durability, remote=None) as store:
                store._write(lambda db: subscription.set_remote(db, _NOBODY))
                raw, number = place / "raw.db", bench.scale.events
                figures = bench.whole({"raw": _queue(raw, durability, number), "store": _claims(store, number)})
        each = {name: figure.times(1e3 / bench.scale.events) for name, figure in figures.items()}
        # A claim is synced to the disk whatever the durability of the store: what is sent must not be taken back by a power cut.
        target = _CLAIM_TARGET if durability == "full" else None
        yield Row(f"claim and settle an event, batches of {_BATCH}, {durability.upper()}", "us", each["raw"], each["store"], target)


def drains(bench: Bench) -> Iterator[Row]:
    """Deliver to a collector over loopback, per event: in batches and one at a time."""
    number = bench.scale.events
    for note, count, alone, target in (
        ("in batches", number, False, Target(1e6 / 30_000, of="store")),
        ("one at a time", number // 20, True, None),
    ):
        with bench.place() as place, collector(place) as url, _store_for(bench, place, url) as store:
            figures = bench.whole({"raw": _posts(store, url, count, alone=alone), "store": _drains(store, count, alone=alone)})
        each = {name: figure.times(1e3 / count) for name, figure in figures.items()}
        yield Row(f"deliver an event to a collector, {note}", "us", each["raw"], each["store"], target)


def ingest(bench: Bench) -> Iterator[Row]:
    """How fast a collector takes in batches from two connections, per event."""
    number = bench.scale.events
    with bench.place() as place, collector(place) as url, _store_for(bench, place, url) as store:
        figures = bench.whole({"store": _posts(store, url, number, alone=False)})
    yield Row("an event taken in by a collector, in batches", "us", None, figures["store"].times(1e3 / number))


def latency(bench: Bench) -> Iterator[Row]:
    """How long a collector takes to answer one event while fifty clients send all the time."""
    with bench.place() as place, collector(place) as url:
        laps = [_answer_times(url, bench.scale.events // 10) for _ in range(bench.scale.rounds)]
    values, slow = ([1e3 * percentile(each, share) for each in laps] for share in (0.5, 0.95))
    yield Row(f"an answer of the collector to one of {_CLIENTS} clients", "ms", None, Figure(tuple(values), tuple(slow)))


@contextmanager
def collector(place: Path) -> Iterator[str]:
    """A `sessionstore serve` in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "sessionstore", "serve", "--db", str(place / "collector.db"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            found = re.search(r"http://\S+", server.stderr.readline())
            if found is None:
                raise RuntimeError("the collector did not start")
            yield found[0]
        finally:
            server.terminate()
            server.wait(_MOST_SECONDS_TO_START)


@contextmanager
def _store_for(bench: Bench, place: Path, url: str) -> Iterator[sessionstore.SessionStore]:
    with sessionstore.open(bench.new_file(place, "store"), remote=url) as store:
        yield store
        store.close(drain_timeout=0)


def _fill(store: sessionstore.SessionStore, number: int) -> None:
    """So many events of new conversations: a start, eight figures of messages, an end."""
    told = list(itertools.islice(_conversations(), number))
    for first in range(0, number, 500):
        store._write(lambda db, first=first: outbox.enqueue(db, told[first : first + 500]))


def _conversations() -> Iterator[events.Event]:
    for conversation in _CONVERSATIONS:
        for step in range(_MESSAGES + 2):
            yield _event(conversation, step)


def _event(conversation: int, step: int, *, drawn: str = clock.new_token(8)) -> events.Event:
    session_id, agent_id, now = f"agent_1_{conversation:010}_{drawn}", "agent_1", clock.utc_now()
    at = now.isoformat()
    if step == 0:
        kind, body = events.CONVERSATION_STARTED, {"session_id": session_id, "agent_id": agent_id, "start_time": at, "user_id": "u"}
    elif step <= _MESSAGES:
        figures = {"seq": step, "role": "assistant", "model": "m-1", "input_tokens": 200, "output_tokens": 90,
                   "response_time_ms": 812.5}  # fmt: skip
        kind = events.METRIC
        body = {"name": "message", "value": 812.5, "unit": "ms", "agent_id": agent_id, "session_id": session_id, "timestamp": at,
                "attributes": figures}  # fmt: skip
    else:
        kind = events.CONVERSATION_ENDED
        body = {"session_id": session_id, "agent_id": agent_id, "start_time": at, "end_time": at, "duration_seconds": 1.5,
                "status": "completed", "quality_score": 4, "message_count": _MESSAGES}  # fmt: skip
    return events.Event(kind, events.session_stream(session_id), "", now, body)


def _queue(path: Path, durability: Durability, number: int) -> Side:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.executescript(_QUEUE)
    payload = requests.encode_json(_event(1, 1).body)

    def side(count: int) -> list[float]:
        laps = []
        for _ in range(count):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO queue (kind, payload, created_at) VALUES ('m', ?, 1)", [(payload,)] * number)
            connection.execute("COMMIT")
            started = time.perf_counter()
            while taken := connection.execute(_TAKE, (10**9, 10, _BATCH)).fetchall():
                connection.execute(f"DELETE FROM queue WHERE id IN ({','.join('?' * len(taken))})", [row[0] for row in taken])
            laps.append(time.perf_counter() - started)
        return laps

    return side


def _claims(store: sessionstore.SessionStore, number: int) -> Side:
    def side(count: int) -> list[float]:
        laps = []
        for _ in range(count):
            _fill(store, number)
            started = time.perf_counter()
            found = store._claim("token", _BATCH, 1 << 20, _LEASE)
            while found:
                settled = Settlement(token="token", sent_before=0, sent=tuple(found), over=True)
                found = store._settle_and_claim(settled, _BATCH, 1 << 20, _LEASE)
            laps.append(time.perf_counter() - started)
        return laps

    return side


def _drains(store: sessionstore.SessionStore, number: int, *, alone: bool) -> Side:
    def side(count: int) -> list[float]:
        laps = []
        for _ in range(count):
            _fill(store, number)
            started = time.perf_counter()
            with _one_at_a_time() if alone else _as_usual():
                receipt = store.drain()
            laps.append(time.perf_counter() - started)
            if receipt.sent != number or receipt.left:
                raise AssertionError(f"{receipt} of {number}")
        return laps

    return side


def _posts(store: sessionstore.SessionStore, url: str, number: int, *, alone: bool) -> Side:
    """The same requests from a loop that keeps no account of them: what is left is the collector's part and HTTP."""

    def side(count: int) -> list[float]:
        laps = []
        for _ in range(count):
            posts = _prepared(store, number, alone=alone)
            with httpx.Client(base_url=url, trust_env=False) as client, ThreadPoolExecutor(2) as pool:
                started = time.perf_counter()
                for answer in pool.map(lambda post: client.post(post.path, content=post.body, headers=post.headers), posts):
                    answer.raise_for_status()
                laps.append(time.perf_counter() - started)
        return laps

    return side


def _prepared(store: sessionstore.SessionStore, number: int, *, alone: bool) -> list[requests.Request]:
    _fill(store, number)
    held = store._claim("token", number, 1 << 40, _LEASE)
    store._write(lambda db: deliveries.settle(db, Settlement(token="token", sent_before=0, sent=tuple(held), over=True)))
    able = capabilities.Capabilities(batch_path=None if alone else capabilities.BATCH_PATH, max_events=1 if alone else 500)
    items = [requests.item(QueuedEvent._make(event)) for event in held]
    return [
        requests.request(part, able, source="5f0c2a3e-0000-4000-8000-000000000000", compressed=False)
        for part in requests.parts(items, able, 500)
    ]


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """A remote that offers no batches, and takes all kinds."""
    usual: Callable[..., capabilities.Capabilities | None] = sender.parsed
    sender.parsed = lambda _: capabilities.Capabilities(kinds=frozenset(events.PATHS))
    try:
        yield
    finally:
        sender.parsed = usual


@contextmanager
def _as_usual() -> Iterator[None]:
    yield


def _answer_times(url: str, number: int) -> list[float]:
    """The times of so many answers to single events, from fifty clients that send one after the other."""
    laps: list[float] = []
    lock = threading.Lock()
    headers = {requests.SOURCE: "desktop", requests.NAMESPACE: quote("a b")}
    each = max(1, number // _CLIENTS)

    def talk(client_number: int) -> None:
        mine = []
        with httpx.Client(base_url=url, trust_env=False) as client:
            for index in range(each):
                event = _event(client_number * each + index, 1)
                key = {requests.IDEMPOTENCY_KEY: clock.new_key(), **headers}
                started = time.perf_counter()
                client.post(events.PATHS[event.kind], json=event.body, headers=key).raise_for_status()
                mine.append(time.perf_counter() - started)
        with lock:
            laps.extend(mine)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(talk, range(_CLIENTS)))
    return laps


ITEMS = (
    Item("claims", "a table of its own, UPDATE ... RETURNING of a batch, DELETE of it, each a transaction.", claims),
    Item("drain", "the same requests to the same collector from two threads of a loop that keeps no account of them.", drains),
    Item("ingest", "nothing: there is no yardstick; it is the raw side of drain.", ingest),
    Item("latency", "nothing: there is no yardstick.", latency),
)
