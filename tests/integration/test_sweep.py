"""Sweeps: each expiry is settled and told exactly once, whoever sweeps, dies, writes meanwhile, or whatever the clock does."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from clocks import START, FrozenClock
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from trials import Trial

import sessionstore
from sessionstore import InvalidInputError, SessionExpiredError, SessionStore, clock, sql
from sessionstore.queries import outbox, subscription, sweeping
from sessionstore.queries.tables import STORE_INFO
from sessionstore.remote.settings import Remote
from sessionstore.store.sweeps import SWEEP_BATCH, Sweep

TICK = timedelta(microseconds=1)
DAY = timedelta(days=1)
HELLO = {"role": "user", "content": "hello"}
REMOTE = "https://collector.example"

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


def set_remote(store: SessionStore) -> None:
    store._write(lambda db: subscription.set_remote(db, Remote(REMOTE)))


def began_at_start(store: SessionStore) -> None:
    """Let the file be as old as the frozen clock says; its migrations look at the real one."""
    store._write(lambda db: db.core.execute(STORE_INFO.update().values(created_at=START)))


def rows(path: Path, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What another program reads from the file."""
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query, parameters).fetchall()


def told(path: Path) -> Counter[str]:
    """How often each session was told to have expired."""
    streams = "SELECT namespace || '/' || stream FROM outbox WHERE kind = 'conversation_expired'"
    return Counter(stream for (stream,) in rows(path, streams))


def statuses(path: Path) -> Counter[str]:
    return Counter(status for (status,) in rows(path, "SELECT status FROM sessions"))


def add_sessions(path: Path, count: int, *, prefix: str, begun: datetime, ttl: float, namespace: str = "") -> None:
    """Write sessions with one message each into a file that no store has open; `create` would take a commit for each."""
    then, end = clock.to_text(begun), clock.to_text(begun + timedelta(seconds=ttl))
    columns = ("namespace, session_id, agent_id, status, pinned, version, message_count, next_seq, created_at, updated_at, "
               "expires_at, ttl_seconds")  # fmt: skip
    made = [(namespace, f"{prefix}{n}", "a", "open", 0, 1, 0, 1, then, then, end, ttl) for n in range(count)]
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executemany(f"INSERT INTO sessions ({columns}) VALUES ({', '.join('?' * 12)})", made)


@pytest.fixture
def swept_file(new_file: Path, store_path: Path) -> Path:
    """A file with a remote, to which sessions can be added."""
    shutil.copy(new_file, store_path)
    with sessionstore.open(store_path) as store:
        set_remote(store)
    return store_path


# -- what a sweep does


def test_a_sweep_settles_what_is_due_and_nothing_else(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(10):
        store.session(f"s{number}", ttl=number + 1, tags=["t"]).append(HELLO)
    store.create("for ever")
    store.create("pinned", ttl=1, pinned=True)
    store.create("ended", ttl=1)
    store.end("ended")
    now = frozen.go(5)
    assert store.sweep() == sessionstore.SweepReceipt(expired=5)
    expired = {info.session_id: info for info in store.list(status="expired")}
    assert set(expired) == {f"s{number}" for number in range(5)}
    assert {info.ended_at for info in expired.values()} == {now - timedelta(seconds=number) for number in range(5)}
    assert all(info.tags == ("t",) and info.message_count == 1 for info in expired.values())
    assert {info.session_id for info in store.list(status="open")} == {"for ever", "pinned", *(f"s{n}" for n in range(5, 10))}
    assert store.count(status="completed") == 1
    assert store.sweep() == sessionstore.SweepReceipt(expired=0)


def test_a_session_is_due_at_its_expiry_and_not_a_microsecond_before(store: SessionStore, frozen: FrozenClock) -> None:
    store.create("s", ttl=60)
    frozen.go(timedelta(minutes=1) - TICK)
    assert store.sweep().expired == 0
    frozen.go(TICK)
    assert store.sweep().expired == 1


def test_nothing_due_writes_nothing(store: SessionStore, frozen: FrozenClock, dump: Callable[[], object]) -> None:
    for number in range(50):
        store.create(f"s{number}", ttl=60)
    before, commits = dump(), store.status().commits
    assert store.sweep() == sessionstore.SweepReceipt(expired=0)
    assert store.sweep(limit=5, now=START + timedelta(seconds=59)) == sessionstore.SweepReceipt(expired=0)
    assert (dump(), store.status().commits) == (before, commits)


@pytest.mark.parametrize("statement", [sql.PEEK_DUE, sql.FIND_DUE])
def test_looking_for_what_is_due_reads_the_index_alone(store: SessionStore, statement: str) -> None:
    parameters = ("2026-01-01", 5)[: statement.count("?")]
    plan = store._read(lambda db: db.driver.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall())
    (step,) = [row[-1] for row in plan]
    assert "ix_sessions_due (expires_at<?)" in step


@pytest.mark.parametrize(
    ("limit", "expired", "batches"),
    [
        (None, 450, 5),
        (1, 1, 1),
        (SWEEP_BATCH - 1, SWEEP_BATCH - 1, 1),
        (SWEEP_BATCH, SWEEP_BATCH, 1),
        (SWEEP_BATCH + 1, SWEEP_BATCH + 1, 2),
        (449, 449, 5),
        (450, 450, 5),
        (451, 450, 5),
        (10**9, 450, 5),
    ],
)
def test_a_sweep_goes_in_batches_up_to_its_limit(
    swept_file: Path, frozen: FrozenClock, limit: int | None, expired: int, batches: int
) -> None:
    add_sessions(swept_file, 450, prefix="s", begun=START - DAY, ttl=60)
    with sessionstore.open(swept_file) as store:
        commits = store.status().commits
        assert store.sweep(limit=limit) == sessionstore.SweepReceipt(expired=expired, more=expired < 450)
        assert store.status().commits == commits + batches
        assert store.count(status="expired") == 450
        assert statuses(swept_file)["expired"] == expired
        assert store.sweep() == sessionstore.SweepReceipt(expired=450 - expired)
    assert set(told(swept_file).values()) == {1}


def test_the_longest_overdue_go_first(store: SessionStore, frozen: FrozenClock) -> None:
    for number in (3, 1, 2):
        store.create(f"s{number}", ttl=number)
    frozen.go(10)
    gone = []
    for _ in range(3):
        store.sweep(limit=1)
        gone.append(
            store._read(lambda db: db.driver.execute("SELECT session_id FROM sessions WHERE status = 'expired'").fetchall())
        )
    assert [{session_id for (session_id,) in each} for each in gone] == [{"s1"}, {"s1", "s2"}, {"s1", "s2", "s3"}]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", True, 2**63])
def test_a_limit_that_is_none_is_refused(store: SessionStore, limit: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        store.sweep(limit=limit)
    assert caught.value.field == "limit"


@pytest.mark.parametrize("now", [START.replace(tzinfo=None), "2026-01-01", 0, date(2026, 1, 1)])
def test_a_present_that_is_none_is_refused(store: SessionStore, now: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        store.sweep(now=now)
    assert caught.value.field == "now"


def test_a_given_present_decides_what_is_due(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    """What is told is when each life was over, not when the sweep pretended to be."""
    set_remote(store)
    for ttl in (60, 120, 180):
        store.create(f"s{ttl}", ttl=ttl)
    frozen.go(1)
    assert store.sweep(now=START + timedelta(seconds=59)).expired == 0
    assert store.sweep(now=START + timedelta(seconds=120)).expired == 2
    assert {info.session_id: info.ended_at for info in store.list(status="expired")} == {
        f"s{ttl}": START + timedelta(seconds=ttl) for ttl in (60, 120)
    }
    bodies = [json.loads(body) for (body,) in rows(store_path, "SELECT body FROM outbox WHERE kind = 'conversation_expired'")]
    assert [(body["session_id"], body["end_time"], body["duration_seconds"]) for body in bodies] == [
        (f"s{ttl}", (START + timedelta(seconds=ttl)).isoformat(), float(ttl)) for ttl in (60, 120)
    ]


def test_a_sweep_of_all_instants_is_possible(store: SessionStore, frozen: FrozenClock) -> None:
    store.create("s", ttl=60)
    assert store.sweep(now=datetime.min.replace(tzinfo=UTC)).expired == 0
    assert store.sweep(now=datetime.max.replace(tzinfo=UTC)).expired == 1


def test_sessions_of_all_namespaces_are_swept_and_told_under_their_own(
    store: SessionStore, store_path: Path, frozen: FrozenClock
) -> None:
    set_remote(store)
    for namespace in ("", "team", "other"):
        store.in_namespace(namespace).create("s", ttl=60)
    frozen.go(60)
    assert store.in_namespace("nobody").sweep().expired == 3
    found = rows(store_path, "SELECT namespace FROM outbox WHERE kind = 'conversation_expired'")
    assert sorted(found) == [("",), ("other",), ("team",)]


def test_a_read_only_store_does_not_sweep(tmp_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(tmp_path / "a.db") as store, sessionstore.open(tmp_path / "a.db", read_only=True) as reading:
        store.create("s", ttl=60)
        assert reading.sweep().expired == 0
        frozen.go(60)
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            reading.sweep()
        assert reading.get("s") is None


# -- what is told


def test_each_expiry_is_told_as_the_remote_api_has_it(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    set_remote(store)
    store.session("s", ttl=90.5, agent_id="helper", user_id="u").append(HELLO)
    store.create("nobody's", ttl=90.5)
    frozen.go(3600)
    store.sweep()
    columns = "key, stream, kind, namespace, body, state, attempts, occurred_at, created_at, next_at"
    (first, second) = rows(store_path, f"SELECT {columns} FROM outbox WHERE kind = 'conversation_expired' ORDER BY id")
    end = START + timedelta(seconds=90.5)
    assert uuid.UUID(first[0]) != uuid.UUID(second[0])
    assert first[1:4] == ("session:s", "conversation_expired", "")
    assert json.loads(first[4]) == {
        "session_id": "s",
        "agent_id": "helper",
        "start_time": START.isoformat(),
        "end_time": end.isoformat(),
        "duration_seconds": 90.5,
        "status": "expired",
        "expiry_reason": "ttl_timeout",
    }
    assert first[5:] == ("pending", 0, clock.to_text(end), clock.to_text(frozen.now), None)
    assert "agent_id" not in json.loads(second[4])


def test_nothing_is_told_without_a_remote(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    store.create("s", ttl=60)
    frozen.go(60)
    store.sweep()
    assert rows(store_path, "SELECT count(*) FROM outbox") == [(0,)]


@pytest.mark.parametrize("on_expire", ["keep", "delete"])
def test_what_cannot_be_told_stays_overdue(
    store_path: Path, frozen: FrozenClock, dump: Callable[[], object], monkeypatch: pytest.MonkeyPatch, on_expire: Any
) -> None:
    with sessionstore.open(store_path, on_expire=on_expire) as store:
        set_remote(store)
        for number in range(5):
            store.session(f"s{number}", ttl=60, tags=["t"]).append(HELLO)
        frozen.go(60)
        before = dump()
        with monkeypatch.context() as patched:
            patched.setattr(outbox, "enqueue", fail)
            with pytest.raises(OSError, match="the outbox"):
                store.sweep()
        assert dump() == before
        assert store.sweep().expired == 5


def fail(*_: object) -> None:
    raise OSError("the outbox")


def test_expired_sessions_are_deleted_if_the_store_says_so(
    store_path: Path, frozen: FrozenClock, dump: Callable[[], dict[str, list[Any]]]
) -> None:
    with sessionstore.open(store_path, on_expire="delete") as store:
        set_remote(store)
        for number in range(5):
            store.session(f"s{number}", ttl=60, tags=["t"]).append(HELLO)
        store.session("kept", ttl=61, tags=["t"]).append(HELLO)
        frozen.go(60)
        assert store.sweep().expired == 5
        assert store.count(status="expired") == 0
        with pytest.raises(sessionstore.NotFoundError):
            store.append("s0", HELLO)
        assert store.doctor().ok
    left = dump()
    assert {name: len(left[name]) for name in ("sessions", "messages", "session_tags")} == {
        "sessions": 1,
        "messages": 1,
        "session_tags": 1,
    }
    assert sorted(told(store_path).values()) == [1] * 5


def test_sessions_with_many_messages_are_deleted_in_small_transactions(store_path: Path, frozen: FrozenClock) -> None:
    """The messages count: 600 in each session, 2,000 in a transaction; one that has more is deleted alone."""
    with sessionstore.open(store_path, on_expire="delete") as store:
        for number in range(7):
            store.session(f"s{number}", ttl=60).append_many([HELLO] * 600)
        store.session("large", ttl=61).append_many([HELLO] * 2_001)
        for number in range(5):
            store.session(f"small{number}", ttl=62).append(HELLO)
        frozen.go(62)
        commits = store.status().commits
        sizes, sweep = [], Sweep(None, 12)
        over = False
        while not over:
            before = sweep.expired
            over = sweep.count(store._sweep_batch(sweep))
            sizes.append(sweep.expired - before)
            # Only the last batch of its limit, however small the others were, lets go of the work.
            assert rows(store_path, "SELECT sweeper FROM store_info") == [(None if over else sweep.sweeper,)]
        assert sizes == [3, 3, 1, 1, 4]
        assert store.status().commits == commits + 5
        assert sweep.receipt() == sessionstore.SweepReceipt(expired=12, more=True)
        assert store.sweep() == sessionstore.SweepReceipt(expired=1)
        assert store.status().messages == 0


@pytest.mark.parametrize("others_index", [False, True])
def test_words_of_many_messages_go_in_small_transactions(store_path: Path, frozen: FrozenClock, others_index: bool) -> None:
    """500 messages at once go out of the search index, and then the sessions; also if somebody goes on indexing them."""
    with sessionstore.open(store_path, on_expire="delete") as store:
        store.session("large", ttl=60).append_many([HELLO] * 1_700)
        for number in range(2):
            store.session(f"s{number}", ttl=61).append_many([HELLO] * 300)
        store.fork("large", "fork", at=20, ttl=None)
        store.rebuild_search()
        frozen.go(61)
        sizes, sweep = [], Sweep(None, None)
        over = False
        while not over:
            before = sweep.expired
            over = sweep.count(store._sweep_batch(sweep))
            sizes.append(sweep.expired - before)
            if others_index:
                while store._index_batch():
                    pass
        assert sizes == [*([0] * (4 if others_index else 3)), 2, 1]
        assert len(store.search("hello", limit=100)) == 20
        assert rows(store_path, "SELECT count(*) FROM message_words_docsize") == [(20,)]
        assert store.doctor().ok


def test_expired_sessions_that_are_kept_go_in_full_batches(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(5):
        store.session(f"s{number}", ttl=60).append_many([HELLO] * 1_000)
    frozen.go(60)
    commits = store.status().commits
    assert store.sweep().expired == 5
    assert store.status().commits == commits + 1


# -- one sweeper at a time


def test_a_second_sweeper_leaves_the_work_to_the_first(swept_file: Path, frozen: FrozenClock, dump: Callable[[], object]) -> None:
    add_sessions(swept_file, 3 * SWEEP_BATCH, prefix="s", begun=START - DAY, ttl=60)
    with sessionstore.open(swept_file) as store, sessionstore.open(swept_file) as second:
        first = Sweep(None, None)
        assert not first.count(store._sweep_batch(first))
        before = dump()
        assert second.sweep() == sessionstore.SweepReceipt(expired=0, busy=True)
        assert dump() == before
        while not first.count(store._sweep_batch(first)):
            assert second.sweep().busy
        assert first.receipt() == sessionstore.SweepReceipt(expired=3 * SWEEP_BATCH)
        second.create("next", ttl=1)
        frozen.go(1)
        assert second.sweep().expired == 1


@pytest.mark.parametrize(("waited", "busy"), [(0.0, True), (59.999999, True), (60.0, False), (3600.0, False)])
def test_the_work_of_a_dead_sweeper_waits_for_its_lease(swept_file: Path, frozen: FrozenClock, waited: float, busy: bool) -> None:
    add_sessions(swept_file, 2 * SWEEP_BATCH, prefix="s", begun=START - DAY, ttl=60)
    with sessionstore.open(swept_file) as store:
        store._sweep_batch(Sweep(None, None))
        frozen.go(waited)
        assert store.sweep() == sessionstore.SweepReceipt(expired=0 if busy else SWEEP_BATCH, busy=busy)
    assert set(told(swept_file).values()) == {1}


@pytest.mark.fault("F32")
@pytest.mark.parametrize("moved", [-10 * 365 * DAY, -DAY, -TICK, TICK])
def test_a_lease_of_a_clock_that_was_ahead_holds_nobody_for_longer_than_a_lease(
    store: SessionStore, frozen: FrozenClock, moved: timedelta
) -> None:
    frozen.go(60 * 365 * DAY)
    store.create("s", ttl=60)
    present = frozen.now + timedelta(hours=1)
    held = {"sweeper": "somebody", "sweeper_until": frozen.now + sweeping.LEASE}
    store._write(lambda db: db.core.execute(STORE_INFO.update().values(held)))
    frozen.go(moved)
    assert store.sweep(now=present).busy == (moved == TICK)
    frozen.go(sweeping.LEASE)
    assert store.sweep(now=present).expired == (1 if moved == TICK else 0)
    assert store.count(status="expired") == 1


def test_a_sweeper_that_was_overtaken_settles_nothing_twice(swept_file: Path, frozen: FrozenClock) -> None:
    add_sessions(swept_file, 2 * SWEEP_BATCH + 5, prefix="s", begun=START - DAY, ttl=60)
    with sessionstore.open(swept_file) as store:
        slow, quick = Sweep(None, None), Sweep(None, None)
        slow.count(store._sweep_batch(slow))
        frozen.go(61)
        assert not quick.count(store._sweep_batch(quick))
        assert slow.count(store._sweep_batch(slow))
        assert slow.receipt().busy
        assert quick.count(store._sweep_batch(quick))
        assert (slow.expired, quick.expired) == (SWEEP_BATCH, SWEEP_BATCH + 5)
    assert set(told(swept_file).values()) == {1}


def test_threads_that_sweep_at_once_settle_everything_once(swept_file: Path) -> None:
    begun = clock.utc_now() - DAY
    add_sessions(swept_file, 1000, prefix="s", begun=begun, ttl=60)
    receipts: list[sessionstore.SweepReceipt] = []
    barrier = threading.Barrier(8)
    with sessionstore.open(swept_file, durability="normal") as store:

        def sweep() -> None:
            barrier.wait(30)
            receipts.append(store.sweep())

        threads = [threading.Thread(target=sweep) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(receipt.expired for receipt in receipts) == 1000
    assert len(told(swept_file)) == 1000
    assert set(told(swept_file).values()) == {1}


# -- a killed sweeper, a writer and other processes

SWEEP_AND_DIE = """
import os, signal, sys
import sessionstore
from sessionstore.queries import outbox
path, batches = sys.argv[1], int(sys.argv[2])
enqueue, done = outbox.enqueue, 0

def enqueue_and_die(db, events):
    global done
    enqueue(db, events)
    done += 1
    if done > batches:
        os.kill(os.getpid(), signal.SIGKILL)

outbox.enqueue = enqueue_and_die
with sessionstore.open(path) as store:
    store.sweep()
"""


@pytest.mark.fault("F1")
@posix_only
@pytest.mark.parametrize("batches", [0, 2])
def test_a_sweep_that_is_killed_is_finished_by_the_next_one(
    swept_file: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    """It dies within a transaction: that batch did not happen, those before it did."""
    count = 4 * SWEEP_BATCH
    add_sessions(swept_file, count, prefix="s", begun=clock.utc_now() - DAY, ttl=60)
    command = [sys.executable, "-W", "error", "-c", SWEEP_AND_DIE, str(swept_file), str(batches)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    settled = batches * SWEEP_BATCH
    with sessionstore.open(swept_file) as store:
        assert statuses(swept_file) == Counter({"open": count - settled, "expired": settled}) - Counter()
        assert store.count(status="expired") == count
        if batches:
            assert store.sweep().busy, "the lease of the killed sweeper does not hold"
        later = clock.utc_now() + timedelta(seconds=61)
        monkeypatch.setattr(clock, "utc_now", lambda: later)
        assert store.sweep() == sessionstore.SweepReceipt(expired=count - settled)
        assert store.doctor().ok
    assert len(told(swept_file)) == count
    assert set(told(swept_file).values()) == {1}


SWEEP_FOR_A_WHILE = """
import json, sys, time
import sessionstore
path = sys.argv[1]
settled = busy = 0
with sessionstore.open(path) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    while store._read(lambda db: sessionstore.queries.lifecycle.any_overdue(db, db.now)):
        receipt = store.sweep(limit=300)
        settled += receipt.expired
        busy += receipt.busy
print(json.dumps([settled, busy]))
"""


@pytest.mark.fault("F33")
@pytest.mark.timeout(1800)
def test_a_sweep_beside_a_writer_and_another_sweeper(swept_file: Path, trial: Trial) -> None:
    """Thousands of sessions expire at once, while others are written to; a second process sweeps, too."""
    present, swept = clock.utc_now(), trial.size(push=5_000, nightly=20_000, release=100_000)
    add_sessions(swept_file, swept, prefix="over", begun=present - DAY, ttl=60)
    add_sessions(swept_file, 500, prefix="live", begun=present, ttl=36_000)
    add_sessions(swept_file, 100, prefix="over", begun=present - DAY, ttl=60, namespace="team")
    command = [sys.executable, "-W", "error", "-c", SWEEP_FOR_A_WHILE, str(swept_file)]
    with (
        sessionstore.open(swept_file, durability="normal", ttl=36_000, busy_timeout=60) as store,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        writer = Writer(store)
        writer.start()
        other.stdin.write("go\n")
        other.stdin.flush()
        here = 0
        while store._read(lambda db: sessionstore.queries.lifecycle.any_overdue(db, db.now)):
            receipt = store.sweep()
            here += receipt.expired
        there, _ = json.loads(other.communicate(timeout=1200)[0])
        writer.stop()
        assert writer.errors == []
        assert here + there == swept + 100
        assert writer.seqs == list(range(1, len(writer.seqs) + 1))
        assert [message.seq for message in store.messages("writer")] == writer.seqs
        assert len(writer.seqs) > 10, "the writer did not run beside the sweep"
        assert store.doctor().ok
    assert statuses(swept_file) == Counter(expired=swept + 100, open=501)
    assert rows(swept_file, "SELECT count(*) FROM sessions WHERE status = 'expired' AND session_id NOT LIKE 'over%'") == [(0,)]
    names = "SELECT namespace || '/session:' || session_id FROM sessions WHERE status = 'expired'"
    expected = {name for (name,) in rows(swept_file, names)}
    assert told(swept_file).keys() == expected
    assert set(told(swept_file).values()) == {1}
    slow = f"p99 {writer.percentile(0.99):.1f} ms, the slowest {writer.percentile(1):.0f} ms"
    trial.report(f"{swept + 100:,} sessions expired at once, each told once; {len(writer.seqs):,} appends beside it: {slow}")


class Writer:
    """A thread that appends to one session until it is stopped."""

    def __init__(self, store: SessionStore) -> None:
        self.seqs: list[int] = []
        self.errors: list[BaseException] = []
        self._times: list[float] = []
        self._chat = store.session("writer")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def percentile(self, share: float) -> float:
        """How many milliseconds this share of the appends took at most."""
        return 1000 * sorted(self._times)[max(0, math.ceil(share * len(self._times)) - 1)]

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                began = time.perf_counter()
                self.seqs.append(self._chat.append(HELLO).seq)
                self._times.append(time.perf_counter() - began)
        except BaseException as error:
            self.errors.append(error)


def test_an_append_in_time_saves_a_session_from_the_sweep(store: SessionStore, frozen: FrozenClock) -> None:
    """What is due is asked in the transaction that settles it."""
    store.create("s", ttl=60)
    store.create("other", ttl=30)
    frozen.go(timedelta(seconds=60) - TICK)
    sweep = Sweep(None, None)
    assert store._any_due(None)
    store.append("s", HELLO)
    frozen.go(TICK)
    assert sweep.count(store._sweep_batch(sweep))
    assert sweep.expired == 1
    assert store.get("s") is not None


# -- clocks that jump (F32)


@pytest.mark.fault("F32")
def test_a_clock_that_goes_back_loses_nothing(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    set_remote(store)
    for number in range(3):
        store.session(f"s{number}", ttl=3600).append(HELLO)
    frozen.go(3600)
    assert store.sweep(limit=1).expired == 1
    frozen.go(-DAY)
    assert store.sweep() == sessionstore.SweepReceipt(expired=0)
    # What no sweep has settled is there again; what one has, is not.
    assert store.count() == 2
    assert store.append("s1", HELLO).seq == 2
    assert store.create("new", ttl=60).created_at == frozen.now
    frozen.go(60)
    assert store.sweep() == sessionstore.SweepReceipt(expired=1)
    frozen.go(DAY)
    assert store.sweep() == sessionstore.SweepReceipt(expired=2)
    assert store.status().messages == 4
    assert sorted(told(store_path).values()) == [1] * 4


@pytest.mark.fault("F32")
@pytest.mark.parametrize("on_expire", ["keep", "delete"])
def test_a_clock_far_ahead_expires_nothing_for_good_until_it_is_confirmed(
    store_path: Path, frozen: FrozenClock, dump: Callable[[], object], on_expire: Any
) -> None:
    with sessionstore.open(store_path, on_expire=on_expire) as store:
        set_remote(store)
        for number in range(5):
            store.session(f"s{number}", ttl=3600).append(HELLO)
        before = dump()
        for _ in range(3):
            frozen.go(10 * 365 * DAY)
            assert store.sweep() == sessionstore.SweepReceipt(expired=0, deferred=True)
        assert dump() == before
        assert store.count() == 0
        frozen.now = START
        assert store.count() == 5
        assert [message.text for message in store.messages("s0")] == ["hello"]
        frozen.go(10 * 365 * DAY)
        assert store.sweep(now=frozen.now) == sessionstore.SweepReceipt(expired=5)
    assert sorted(told(store_path).values()) == [1] * 5


@pytest.mark.fault("F32")
def test_a_clock_far_ahead_is_believed_after_a_day_of_use(store: SessionStore, frozen: FrozenClock) -> None:
    """A program that was not used for a quarter of a year must not need a confirmation for ever."""
    began_at_start(store)
    store.create("old", ttl=3600)
    frozen.go(timedelta(days=90))
    store.create("today")
    assert store.sweep().deferred
    frozen.go(DAY)
    assert store.sweep().deferred
    frozen.go(TICK)
    assert store.sweep() == sessionstore.SweepReceipt(expired=1)
    frozen.go(timedelta(days=50))
    store.create("next", ttl=1)
    frozen.go(1)
    assert store.sweep() == sessionstore.SweepReceipt(expired=1)


@pytest.mark.fault("F32")
@pytest.mark.parametrize(
    ("slept", "deferred"),
    [
        (timedelta(weeks=3), False),
        (clock.LONGEST_GAP, False),
        (clock.LONGEST_GAP + TICK, True),
        (timedelta(days=3650), True),
    ],
)
def test_weeks_of_sleep_are_no_reason_to_doubt(store: SessionStore, frozen: FrozenClock, slept: timedelta, deferred: bool) -> None:
    began_at_start(store)
    store.create("s", ttl=3600)
    frozen.go(slept)
    assert store.sweep() == sessionstore.SweepReceipt(expired=0 if deferred else 1, deferred=deferred)
    assert store.get("s") is None


@pytest.mark.fault("F32")
def test_a_store_that_is_used_every_day_is_never_deferred(store: SessionStore, frozen: FrozenClock) -> None:
    """Nothing was due for half a year, so that no sweep has noted the time."""
    began_at_start(store)
    store.session("s", ttl=timedelta(days=180))
    for day in range(180):
        frozen.go(DAY)
        if day < 179:
            store.create(f"day {day}")
    assert store.sweep() == sessionstore.SweepReceipt(expired=1)


@pytest.mark.fault("F32")
@pytest.mark.parametrize("used", [True, False])
def test_use_of_any_namespace_confirms_the_clock(store: SessionStore, frozen: FrozenClock, used: bool) -> None:
    began_at_start(store)
    store.create("s", ttl=3600)
    for namespace in ("", "a", "b", "c"):
        store.in_namespace(namespace).create("old")
    frozen.go(timedelta(days=40))
    if used:
        store.in_namespace("b").append("old", HELLO)
    frozen.go(timedelta(days=30))
    for namespace in ("", "b", "d"):
        store.in_namespace(namespace).create("today")
    assert store.sweep() == sessionstore.SweepReceipt(expired=1 if used else 0, deferred=not used)


def test_doubt_is_settled_by_looks_into_an_index(store: SessionStore) -> None:
    text = str(sweeping._USED_BETWEEN.compile(dialect=sqlite_dialect()))
    plan = store._read(lambda db: db.driver.execute("EXPLAIN QUERY PLAN " + text, ["2026-01-01", "2026-02-01", 1, 0]).fetchall())
    steps = [row[-1] for row in plan if "sessions" in row[-1]]
    assert any("ix_sessions_updated (namespace=? AND updated_at>? AND updated_at<?)" in step for step in steps)
    assert [step for step in steps if step.startswith("SCAN")] == []


@pytest.mark.fault("F32")
@posix_only
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_summer_time_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: FrozenClock, zone: str) -> None:
    """Both changes of a year, hour by hour, in the time zone of the machine."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
            for change in (datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)):
                frozen.now = change
                for hour in range(0, 36, 3):
                    store.create("s", ttl=3600)
                    frozen.go(timedelta(hours=1) - TICK)
                    assert store.remaining("s") == 1e-6
                    assert store.sweep().expired == 0, f"{zone}, {hour} hours after {change}"
                    frozen.go(TICK)
                    assert store.sweep(now=frozen.now).expired == 1
                    frozen.go(timedelta(hours=2))
    finally:
        monkeypatch.undo()
        time.tzset()


# -- the async face


@pytest.mark.anyio
async def test_the_async_sweep_does_the_same(swept_file: Path, frozen: FrozenClock) -> None:
    add_sessions(swept_file, 2 * SWEEP_BATCH + 5, prefix="s", begun=START - DAY, ttl=60)
    async with sessionstore.aopen(swept_file) as store:
        assert await store.sweep(now=START - 2 * DAY) == sessionstore.SweepReceipt(expired=0)
        assert await store.sweep(limit=SWEEP_BATCH + 1) == sessionstore.SweepReceipt(expired=SWEEP_BATCH + 1, more=True)
        assert await store.sweep() == sessionstore.SweepReceipt(expired=SWEEP_BATCH + 4)
        assert await store.sweep() == sessionstore.SweepReceipt(expired=0)
        with pytest.raises(SessionExpiredError):
            await store.append("s0", HELLO)
        with pytest.raises(InvalidInputError):
            await store.sweep(limit=0)
    assert len(told(swept_file)) == 2 * SWEEP_BATCH + 5
    assert set(told(swept_file).values()) == {1}


@pytest.mark.anyio
async def test_tasks_that_sweep_and_write_at_once_lose_nothing(swept_file: Path) -> None:
    add_sessions(swept_file, 600, prefix="s", begun=clock.utc_now() - DAY, ttl=60)
    settled: list[int] = []
    async with sessionstore.aopen(swept_file, durability="normal", ttl=3600) as store:
        chat = await store.session("chat")

        async def sweep() -> None:
            settled.append((await store.sweep()).expired)

        async def write() -> None:
            for _ in range(10):
                await chat.append(HELLO)

        async with anyio.create_task_group() as group:
            for task in (sweep, write, sweep, write, sweep):
                group.start_soon(task)
        assert [message.seq for message in await chat.messages()] == list(range(1, 21))
    assert sum(settled) == 600
    assert len(told(swept_file)) == 600
    assert set(told(swept_file).values()) == {1}


# -- clocks that come back


@pytest.mark.fault("F32")
def test_an_append_under_a_clock_that_is_back_takes_nothing_of_a_life(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=36_000)
    before = store.remaining("s")
    frozen.go(-86_400)
    store.append("s", *HELLO.values())
    store.touch("s")
    frozen.go(86_400)
    assert store.remaining("s") == before


@pytest.mark.fault("F32")
def test_an_append_sets_a_life_right_that_a_clock_far_ahead_made_too_long(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=36_000)
    frozen.go(9_000)
    store.touch("s")
    frozen.go(3_650 * 86_400)
    other = store.session("t", ttl=36_000)
    frozen.go(-3_650 * 86_400)
    other.append("user", "x")
    assert (store.remaining("s"), store.remaining("t")) == (36_000, 36_000)


@pytest.mark.fault("F32")
def test_a_sweep_of_the_future_does_not_make_later_clocks_trusted(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60)
    frozen.go(120)
    assert store.sweep(now=frozen.now + timedelta(days=5_000)).expired == 1
    assert store.status().last_sweep_at == frozen.now
    store.session("later", ttl=60)
    frozen.go(3_650 * 86_400)
    assert store.sweep().deferred
