"""A call that is cancelled at any of its awaits is done or was never begun, and leaves no transaction open."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends import BatchBackend
from sync_lab import held, quick
from trials import Trial

import sessionstore
from sessionstore import AsyncSessionStore

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

Call = Callable[[AsyncSessionStore, str], Coroutine[Any, Any, Any]]


class CancelledAt:
    """A coroutine whose scope is cancelled as it comes to its nth await."""

    def __init__(self, running: Coroutine[Any, Any, Any], at: int, scope: anyio.CancelScope) -> None:
        self.awaits = 0
        self._running = running
        self._at = at
        self._scope = scope

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._running.send(None)  # noqa: E731 - it changes below
        while True:
            try:
                awaited = step()
            except StopIteration as done:
                return done.value
            self.awaits += 1
            if self.awaits == self._at:
                self._scope.cancel()
            try:
                sent = yield awaited
            except BaseException as error:
                # A cancellation, which the coroutine is to see where it waits.
                thrown = error
                step = lambda: self._running.throw(thrown)  # noqa: B023, E731
            else:
                value = sent
                step = lambda: self._running.send(value)  # noqa: B023, E731


async def iterate(store: AsyncSessionStore, name: str) -> None:
    async for _ in store.iterate("still", page_size=2):
        pass


async def open_and_close(store: AsyncSessionStore, name: str) -> None:
    async with sessionstore.aopen((await store.status()).path) as another:
        await another.append("s", "user", name)


# What each writes has the name that it is given; those that only read write nothing.
CALLS: dict[str, Call] = {
    "append": lambda store, name: store.append("s", "user", name),
    "append_many": lambda store, name: store.append_many("s", [{"role": "user", "content": name}] * 3),
    "session": lambda store, name: store.session(name),
    "set_state": lambda store, name: store.set_state("s", {name: 1}),
    "record": lambda store, name: store.record(name, 1.0, session_id="s"),
    "record_many": lambda store, name: store.record_many([sessionstore.NewMetric(name, 1.0, session_id="s")] * 3),
    "update": lambda store, name: store.update("s", title=name),
    "fork": lambda store, name: store.fork("s", name),
    "messages": lambda store, name: store.messages("s", last=5),
    "iterate": iterate,
    "list": lambda store, name: store.list(),
    "search": lambda store, name: store.search("word"),
    "sweep": lambda store, name: store.sweep(),
    "drain": lambda store, name: store.drain(),
    "open and close": open_and_close,
}
# How many rows one call writes, and where to look for them.
WRITTEN = {
    "append": (1, "SELECT count(*) FROM v_messages WHERE text = ?"),
    "append_many": (3, "SELECT count(*) FROM v_messages WHERE text = ?"),
    "session": (1, "SELECT count(*) FROM sessions WHERE session_id = ?"),
    "set_state": (1, "SELECT count(*) FROM state_values WHERE name = ?"),
    "record": (1, "SELECT count(*) FROM metric_events WHERE name = ?"),
    "record_many": (3, "SELECT count(*) FROM metric_events WHERE name = ?"),
    "update": (1, "SELECT count(*) FROM sessions WHERE title = ?"),
    "fork": (1, "SELECT count(*) FROM sessions WHERE session_id = ?"),
    "open and close": (1, "SELECT count(*) FROM v_messages WHERE text = ?"),
}


def look(path: Path, query: str, name: str) -> int:
    """How many rows there are, for a program that would wait for nobody."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        return int(other.execute(query, (name,)).fetchone()[0])


def require_no_transaction(path: Path) -> None:
    """Another connection gets the lock for writing at once."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


async def cancelled(call: Callable[[], Coroutine[Any, Any, Any]], at: int) -> tuple[bool, bool]:
    """Whether the call ended by itself, and whether it came to that await at all."""
    done = False
    with anyio.CancelScope() as scope:
        counted = CancelledAt(call(), at, scope)
        await counted
        done = True
    return done, counted.awaits >= at


@pytest.mark.fault("F11")
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_is_cancelled_at_any_await_is_done_or_not_begun(tmp_path: Path, trial: Trial, name: str) -> None:
    path, chance = tmp_path / "a.db", random.Random(trial.seed)
    outcomes: Counter[str] = Counter()
    awaits = 0
    with BatchBackend() as backend:
        async with sessionstore.aopen(path, durability="normal", remote=quick(backend.url)) as store:
            for session in ("s", "still"):
                await store.session(session)
                await store.append_many(session, [{"role": "user", "content": f"word {n}"} for n in range(6)])
            for round_ in range(trial.size(push=1, nightly=20, release=100)):
                at, reached = 0, True
                while reached:
                    at += 1
                    label = f"{name} {round_} {at}"
                    async with anyio.create_task_group() as others:
                        for _ in range(chance.randrange(3)):
                            others.start_soon(store.append, "s", "user", "other")
                        done, reached = await cancelled(lambda label=label: CALLS[name](store, label), at)
                    outcomes[await outcome(store, path, name, label, done=done)] += 1
                awaits = max(awaits, at - 1)
            assert (await store.doctor()).ok
            require_no_transaction(path)
    assert outcomes["done"] >= 1
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
    trial.report(f"{name}: cancelled at each of {awaits} awaits, {told}; 0 halves, 0 open transactions", **outcomes)


async def outcome(store: AsyncSessionStore, path: Path, name: str, label: str, *, done: bool) -> str:
    """What became of a call: asked twice, with another call in between, so that a late write would show."""
    if name not in WRITTEN:
        await still_works(store)
        if name == "drain":
            assert held(store._store) == 0
        return "done" if done else "cancelled"
    rows, query = WRITTEN[name]
    first = await anyio.to_thread.run_sync(look, path, query, label)
    await still_works(store)
    second = await anyio.to_thread.run_sync(look, path, query, label)
    # A title is replaced by the next one only.
    assert first == second, "a cancelled write came later"
    assert first in (0, rows), "half of a call was stored"
    assert first or not done, "a call that returned is not stored"
    return "done" if done else "cancelled, applied" if first else "cancelled, not begun"


async def still_works(store: AsyncSessionStore) -> None:
    """The next call is answered."""
    await store.append("s", "user", "next")
