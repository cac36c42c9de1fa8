"""Sweeps among very many sessions: how fast they go, how long a writer waits meanwhile, and what one costs that finds nothing."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import sessionstore
from sessionstore.store.sweeps import SWEEP_BATCH, SWEEP_PAUSE

from . import texts
from .bench import BOTH, Bench, Durability, Item, Row, Target
from .conversations import REMOTE, event_row, tracker_of
from .crowd import Crowd, crowd
from .raw import RawStore, sql, stored, stored_now
from .timing import Figure, percentile, repeated

_PER_SECOND = 8_000
_STALL_MS = Target(40, of="store")
_NOTHING_US = Target(20, of="store")
_WRITERS_SESSIONS = tuple(f"writer-{number}" for number in range(10))
_THINKING = 0.001
_LEASE = timedelta(seconds=60)
_COUNT = "SELECT (SELECT count(*) FROM sessions WHERE status = 'expired'), (SELECT count(*) FROM outbox)"


class Swept(Protocol):
    """One side: a file that is swept and written."""

    def append(self, number: int) -> object:
        """One message in a session that lives."""

    def sweep(self, at: datetime) -> int:
        """Settle what is due, and return how many sessions that were."""


class RawSweep:
    """The statements of a sweep and its batches on a plain connection, with a lock for the two threads that use it."""

    def __init__(self, raw: RawStore) -> None:
        self._raw = raw

    def append(self, number: int) -> None:
        """One message in a session that lives."""
        self._raw.append_in_turn(_WRITERS_SESSIONS[number % len(_WRITERS_SESSIONS)], texts.turn(number)[:1])

    def sweep(self, at: datetime) -> int:
        """Settle what is due, and return how many sessions that were."""
        sweeper, settled = str(uuid.uuid4()), 0
        while True:
            with self._raw.turn:
                found = self._raw.transaction(lambda: self._batch(sweeper, stored(at)))
            settled += min(found, SWEEP_BATCH)
            if found <= SWEEP_BATCH:
                return settled
            time.sleep(SWEEP_PAUSE)

    def _batch(self, sweeper: str, at: str) -> int:
        connection = self._raw.connection
        connection.execute("SELECT sweeper, sweeper_until, swept_at FROM store_info").fetchall()
        rows = connection.execute(sql.FIND_DUE, (at, SWEEP_BATCH + 1)).fetchall()
        connection.executemany(sql.SETTLE_EXPIRY, [(row[0],) for row in rows[:SWEEP_BATCH]])
        ((remote, *_),) = connection.execute(sql.READ_REMOTE).fetchall()
        if remote is not None:
            connection.executemany(sql.INSERT_EVENT, [_expired(row) for row in rows[:SWEEP_BATCH]])
        goes_on = len(rows) > SWEEP_BATCH
        lease = (sweeper, stored(datetime.now(UTC) + _LEASE)) if goes_on else (None, None)
        connection.execute("UPDATE store_info SET swept_at = ?, sweeper = ?, sweeper_until = ?", (at, *lease))
        return len(rows)


class StoreSweep:
    """A store."""

    def __init__(self, store: sessionstore.SessionStore) -> None:
        self._store = store
        self._chats = [store.session(session_id) for session_id in _WRITERS_SESSIONS]

    def append(self, number: int) -> object:
        """One message in a session that lives."""
        return self._chats[number % len(self._chats)].append("user", texts.text(2 * number))

    def sweep(self, at: datetime) -> int:
        """Settle what is due, and return how many sessions that were."""
        return self._store.sweep(now=at).expired


@dataclass(slots=True)
class Outcomes:
    """What one side did, a value for each round.

    Attributes:
        seconds: The sweeps.
        beside: The appends during each sweep, in seconds.
        alone: The appends for as long without one.
    """

    seconds: list[float] = field(default_factory=list)
    beside: list[list[float]] = field(default_factory=list)
    alone: list[list[float]] = field(default_factory=list)

    def add(self, side: Swept, at: datetime, count: int) -> None:
        """Sweep once, beside a writer."""
        with _appending(side) as beside:
            started = time.perf_counter()
            settled = side.sweep(at)
            took = time.perf_counter() - started
        if settled != count:
            raise AssertionError(f"{settled} sessions were swept, not {count}")
        with _appending(side) as alone:
            time.sleep(took)
        self.seconds.append(took)
        self.beside.append(beside)
        self.alone.append(alone)


class Files:
    """A copy of the crowd for each side, and how much of it is swept."""

    def __init__(self, found: Crowd, place: Path) -> None:
        self._crowd = found
        self._raw = found.copy(place, "raw", _WRITERS_SESSIONS)
        self._store = found.copy(place, "store", _WRITERS_SESSIONS)
        self._swept = 0

    def rounds(self, durability: Durability, *, count: int, rounds: int, remote: str | None = None) -> dict[str, Outcomes]:
        """Let the sides take turns at sweeping the next so many sessions."""
        outcomes = {"raw": Outcomes(), "store": Outcomes()}
        with (
            RawStore(self._raw, durability=durability) as raw,
            sessionstore.open(self._store, durability=durability) as store,
            tracker_of(store, remote),
        ):
            raw.connection.execute("UPDATE store_info SET remote_url = ?", (remote,))
            sides: dict[str, Swept] = {"raw": RawSweep(raw), "store": StoreSweep(store)}
            for number in range(rounds):
                self._swept += count
                for name in (("raw", "store"), ("store", "raw"))[number % 2]:
                    outcomes[name].add(sides[name], self._crowd.due_at(self._swept), count)
        self._check(0 if remote is None else count * rounds)
        return outcomes

    def _check(self, events: int) -> None:
        for path in (self._raw, self._store):
            with RawStore(path) as raw:
                if raw.connection.execute(_COUNT).fetchall() != [(self._swept, events)]:
                    raise AssertionError(f"{path.stem}: what is expired is not what was due")


def sweeps(bench: Bench) -> Iterator[Row]:
    """Sweeps of some sessions, and one of many with a remote to tell of each."""
    count, at_once = bench.scale.due, bench.scale.due_at_once
    found = crowd(bench)
    with bench.place() as place:
        files = Files(found, place)
        for durability in BOTH:
            outcomes = files.rounds(durability, count=count, rounds=bench.scale.rounds)
            yield from _rows(f"sweep {count:,} of {found.sessions:,} sessions, {durability.upper()}", outcomes, judged=count)
        outcomes = files.rounds("full", count=at_once, rounds=1, remote=REMOTE)
        yield from _rows(f"sweep {at_once:,} at once, with a remote, FULL", outcomes)


def nothing_due(bench: Bench) -> Iterator[Row]:
    """Sweeps that find nothing."""
    found = crowd(bench)
    with bench.place() as place, ExitStack() as stack:
        raw = stack.enter_context(RawStore(found.copy(place, "raw")))
        store = stack.enter_context(sessionstore.open(found.copy(place, "store")))
        execute = raw.connection.execute
        figures = bench.writes(
            {
                "raw": repeated(lambda _: execute(sql.PEEK_DUE, (stored_now(),)).fetchall()),
                "store": repeated(lambda _: store.sweep()),
            }
        )
    work = f"sweep of {found.sessions:,} sessions, none due"
    yield Row(work, "us", figures["raw"].times(1e3), figures["store"].times(1e3), _NOTHING_US)


def _rows(work: str, outcomes: dict[str, Outcomes], *, judged: int | None = None) -> Iterator[Row]:
    raw, store = outcomes["raw"], outcomes["store"]
    speed, stall = (None, None) if judged is None else (Target(judged / _PER_SECOND, of="store"), _STALL_MS)
    yield Row(work, "s", Figure(tuple(raw.seconds)), Figure(tuple(store.seconds)), speed)
    yield Row("  worst append meanwhile", "ms", _worst(raw.beside), _worst(store.beside), stall)
    yield Row("  worst append without a sweep, for as long", "ms", _worst(raw.alone), _worst(store.alone))
    for percent in (99, 50):
        for name, theirs, mine in (("meanwhile", raw.beside, store.beside), ("without a sweep", raw.alone, store.alone)):
            yield Row(f"  p{percent} of the appends {name}", "ms", _ranked(theirs, percent), _ranked(mine, percent))


def _worst(rounds: list[list[float]]) -> Figure:
    return Figure(tuple(max(laps) for laps in rounds)).times(1e3)


def _ranked(rounds: list[list[float]], percent: int) -> Figure:
    """Of all rounds together: one alone has too few appends."""
    return Figure((percentile([lap for laps in rounds for lap in laps], percent / 100),)).times(1e3)


@contextmanager
def _appending(side: Swept) -> Iterator[list[float]]:
    """Append in a thread, a message a millisecond after the other, and note how long each took."""
    laps: list[float] = []
    failures: list[BaseException] = []
    began, stop = threading.Event(), threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                started = time.perf_counter()
                side.append(len(laps))
                laps.append(time.perf_counter() - started)
                began.set()
                time.sleep(_THINKING)
        except BaseException as error:
            failures.append(error)
            began.set()

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    try:
        yield laps
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def _expired(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The event that tells of a session whose life is over."""
    of = dict(zip(sql.COLUMNS["sessions"], row, strict=True))
    ended = datetime.fromisoformat(of["expires_at"])
    body = {
        "session_id": of["session_id"],
        "agent_id": of["agent_id"],
        "start_time": of["created_at"],
        "end_time": of["expires_at"],
        "duration_seconds": (ended - datetime.fromisoformat(of["created_at"])).total_seconds(),
        "status": "expired",
        "expiry_reason": "ttl_timeout",
    }
    return event_row(of["session_key"], "conversation_expired", body, of["expires_at"], stored_now())


_RAW = (
    f"batches of {SWEEP_BATCH}: SELECT of what is due, UPDATE of each, the sweeper's lease, in a transaction; then a pause of "
    f"{SWEEP_PAUSE * 1e3:g} ms. The writer's thread shares the connection and its lock, and waits 1 ms after each append."
)

ITEMS = (
    Item("sweep", _RAW, sweeps),
    Item("nothing-due", "one SELECT of whether a session is due.", nothing_due),
)
