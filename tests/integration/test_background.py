"""The background: sweeps at once and then at intervals, survives what goes wrong, and ends within a second."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

import sessionstore
from sessionstore import SessionStore, background, clock, queries
from sessionstore.remote.settings import Remote

SOON = 1e-6
LONG = 10.0


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something comes true within ten seconds."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return holds()


def swept(store: SessionStore) -> int:
    """How many expired sessions were marked."""
    return store._read(lambda db: db.driver.execute("SELECT count(*) FROM sessions WHERE status = 'expired'").fetchall()[0][0])


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sessionstore-background"]


def test_it_sweeps_at_once_and_again_after_each_interval(store: SessionStore) -> None:
    store.session("first", ttl=SOON)
    with store.background(interval=0.05):
        assert eventually(lambda: swept(store) == 1)
        store.session("second", ttl=SOON)
        assert eventually(lambda: swept(store) == 2)
    assert store.status().sweeps >= 2


def test_nothing_starts_before_it_is_entered(store: SessionStore) -> None:
    waiting = store.background()
    assert background_threads() == []
    waiting.start()
    waiting.start()
    assert len(background_threads()) == 1
    waiting.stop()
    waiting.stop()
    assert background_threads() == []


def test_it_runs_in_one_daemon_thread_however_many_ask_for_the_same(store: SessionStore) -> None:
    with store.background(), store.background(), store.in_namespace("other").background():
        assert [thread.daemon for thread in background_threads()] == [True]
    assert background_threads() == []
    with store.background(interval=60), store.background(interval=90):
        assert len(background_threads()) == 2


def test_it_stops_within_a_second_while_it_sleeps_and_while_it_sweeps(store: SessionStore) -> None:
    for number in range(3_000):
        store.session(f"s{number}", ttl=SOON) if number < 20 else None
    store._write(
        lambda db: db.driver.executemany(
            "INSERT INTO sessions (namespace, session_id, status, pinned, version, message_count, next_seq, created_at, updated_at,"
            " expires_at, ttl_seconds, tracked) VALUES ('', ?, 'open', 0, 1, 0, 1, ?, ?, ?, 1.0, 0)",
            [(f"bulk-{number}", "2026-01-01 00:00:00.000000", clock.to_text(clock.utc_now()), "2026-01-01 00:00:01.000000")
             for number in range(20_000)],
        )
    )  # fmt: skip
    for wait in (0.0, 0.05):
        running = store.background()
        running.start()
        time.sleep(wait)
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 1.0
    assert store.append(store.session("alive").session_id, "user", "x").seq == 1


def test_it_survives_an_error_in_one_pass(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sessionstore.queries import sweeping

    whole = sweeping.settle_batch
    failing = threading.Event()
    failing.set()

    def settle_batch(*args: object, **kwargs: object) -> object:
        if failing.is_set():
            raise OSError("the disk is tired")
        return whole(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(sweeping, "settle_batch", settle_batch)
    store.session("due", ttl=SOON)
    with caplog.at_level(logging.ERROR, "sessionstore"), store.background(interval=0.02):
        assert eventually(lambda: store.status().sweep_failures >= 2)
        assert swept(store) == 0
        failing.clear()
        assert eventually(lambda: swept(store) == 1)
    failed = [record for record in caplog.records if record.event == "sweep_failed"]  # type: ignore[attr-defined]
    assert failed
    assert "OSError" in failed[0].reason  # type: ignore[attr-defined]


def test_it_ends_by_itself_when_the_store_is_closed(store_path: Path) -> None:
    store = sessionstore.open(store_path)
    running = store.background(interval=0.02)
    running.start()
    store.close()
    time.sleep(0.1)
    running.stop()
    assert background_threads() == []


def test_a_store_that_is_only_read_has_no_background(store_path: Path) -> None:
    sessionstore.open(store_path).close()
    with sessionstore.open(store_path, read_only=True) as store, pytest.raises(sessionstore.ReadOnlyStoreError):
        store.background()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), True, "30", None, timedelta(0), timedelta.max])
def test_a_wrong_interval_is_refused(store: SessionStore, interval: object) -> None:
    with pytest.raises(sessionstore.InvalidInputError, match="interval"):
        store.background(interval=interval)  # type: ignore[arg-type]


def given_up(store: SessionStore) -> int:
    """Fill the outbox with a dead event, an erased one and one that waits; returns how many are there."""
    remote = Remote("https://collector.example")
    store._write(lambda db: queries.subscription.set_remote(db, remote))
    for name in ("dead", "erased", "waiting"):
        store.record("x", 1, session_id=name)
    store.outbox.erase("erased", tell=False)
    at = clock.to_text(clock.utc_now())
    store._write(
        lambda db: db.driver.execute("UPDATE outbox SET state = 'dead', settled_at = ? WHERE stream = 'session:dead'", (at,))
    )
    return len(store.outbox.list())


def states(store: SessionStore) -> list[str]:
    return sorted(event.state for event in store.outbox.list())


def test_it_purges_dead_and_erased_events_after_thirty_days(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_up(store) == 3
    ahead = timedelta(days=29, hours=23)
    monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + ahead)
    with store.background(interval=0.05):
        assert eventually(lambda: store.status().sweeps >= 3)
        assert states(store) == ["dead", "erased", "pending"]
        ahead = timedelta(days=30, hours=1)
        assert eventually(lambda: states(store) == ["pending"])


@pytest.mark.fault("F32")
def test_it_purges_nothing_while_the_clock_is_doubtful(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.session("due", ttl=60)
    given_up(store)
    monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + timedelta(days=3_653))
    with store.background(interval=0.05):
        assert eventually(lambda: store.status().sweeps_skipped >= 3)
    assert states(store) == ["dead", "erased", "pending"]


def test_it_keeps_no_more_than_a_thousand_events_that_the_remote_has_no_use_for(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the clock says."""
    given_up(store)
    now = clock.to_text(clock.utc_now())
    row = (
        "INSERT INTO outbox (key, stream, kind, namespace, body, state, attempts, occurred_at, created_at, settled_at, last_error)"
    )
    values = [(f"key {number}", now, now, now) for number in range(1_050)]
    store._write(
        lambda db: db.driver.executemany(
            f"{row} VALUES (?, 'metrics', 'metric', '', '{{}}', 'dead', 0, ?, ?, ?, 'unsupported: no such kind')",
            values,
        )
    )
    monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + timedelta(days=3_653))
    with store.background(interval=0.05):
        assert eventually(lambda: store.outbox.stats().unsupported == 1_000)
    assert store.outbox.stats().dropped == 50
    assert store.outbox.get("key 49") is None
    assert store.outbox.get("key 50") is not None
    assert store.outbox.stats().dead == 1_001, "the one that was rejected is kept"


@pytest.mark.fault("F32")
def test_a_clock_far_ahead_is_believed_once_it_has_run_evenly_for_long(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("old", ttl=60)
    ahead = timedelta(days=3_653)
    monkeypatch.setattr(background, "_BELIEVED_AFTER", timedelta(seconds=0.3))
    monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + ahead)
    with store.background(interval=0.05):
        assert eventually(lambda: store.status().sweeps_skipped >= 2)
        assert swept(store) == 0
        assert eventually(lambda: swept(store) == 1)


@pytest.mark.fault("F32")
def test_a_second_doubt_begins_anew(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was wrong, right again, and is as wrong as before has not run evenly all that time."""
    ahead = timedelta(days=3_653)
    monkeypatch.setattr(background, "_BELIEVED_AFTER", timedelta(seconds=1))
    store.session("due", ttl=60)
    loop = background._Housekeeping(sessionstore.AsyncSessionStore(store), 60)

    def one_pass(offset: timedelta, seconds: float) -> int:
        monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + offset)
        monkeypatch.setattr(background.time, "monotonic", lambda: seconds)
        anyio.run(loop._sweep)
        return swept(store)

    real = time.monotonic()
    assert one_pass(ahead, real) == 0
    assert one_pass(timedelta(0), real) == 0
    assert one_pass(ahead, real + 2) == 0
    assert one_pass(ahead, real + 4) == 1


@pytest.mark.fault("F32")
def test_a_clock_far_ahead_never_deletes_by_itself(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_BELIEVED_AFTER", timedelta(0))
    with sessionstore.open(store_path, on_expire="delete") as store:
        store.session("old", ttl=60).append("user", "x")
        monkeypatch.setattr(clock, "utc_now", lambda: datetime.now(UTC) + timedelta(days=3_653))
        with store.background(interval=0.01):
            assert eventually(lambda: store.status().sweeps_skipped >= 5)
        assert (store.status().sessions, store.status().messages) == (1, 1)
        assert store.sweep(now=clock.utc_now()).expired == 1
        assert store.status().sessions == 0


def test_the_thread_goes_on_for_those_who_stay_when_the_first_store_is_closed(store_path: Path) -> None:
    first, second = sessionstore.open(store_path), sessionstore.open(store_path)
    one, two = first.background(interval=0.02), second.background(interval=0.02)
    one.start()
    two.start()
    assert len(background_threads()) == 1
    one.stop()
    first.close()
    second.session("due", ttl=SOON)
    assert eventually(lambda: swept(second) == 1)
    two.stop()
    assert background_threads() == []
    second.close()


@pytest.mark.fault("F32")
def test_a_clock_that_jumps_again_stays_doubted(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.session("old", ttl=60)
    jumps = iter(range(10, 10_000))

    def jumping() -> datetime:
        return datetime.now(UTC) + timedelta(days=365 * next(jumps) % 2_000_000)

    before = swept(store)
    monkeypatch.setattr(clock, "utc_now", jumping)
    with store.background(interval=0.02):
        assert eventually(lambda: store.status().sweeps_skipped >= 3)
    assert swept(store) == before == 0


def test_a_program_that_forgets_to_stop_it_ends_all_the_same(tmp_path: Path) -> None:
    program = """
        import sys, sessionstore
        store = sessionstore.open(sys.argv[1])
        store.session("due", ttl=1e-6)
        running = store.background()
        running.start()
        store.session("s").append("user", "x")
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(tmp_path / "a.db")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started < 20
    with sessionstore.open(tmp_path / "a.db") as store:
        assert len(store.messages("s")) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_stop_what_its_parent_started(store: SessionStore) -> None:
    running = store.background()
    running.start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            running.stop()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(background_threads()) == 1
    running.stop()


@pytest.mark.anyio
async def test_async_it_runs_in_a_task_of_the_callers_loop(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        await store.session("first", ttl=SOON)
        async with store.background(interval=0.05):
            assert background_threads() == []
            with anyio.fail_after(LONG):
                while True:
                    if (await store.count(status="expired"), (await store.status()).sweeps) >= (1, 2):
                        break
                    await anyio.sleep(0.02)
        passes = (await store.status()).sweeps
        await anyio.sleep(0.15)
        assert (await store.status()).sweeps == passes


@pytest.mark.anyio
async def test_async_it_ends_within_a_second_and_lets_errors_of_the_block_through(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        started = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            await failing_beside(store)
        assert time.monotonic() - started < 1.0


async def failing_beside(store: sessionstore.AsyncSessionStore) -> None:
    async with store.background():
        await anyio.sleep(0.01)
        raise ZeroDivisionError


@pytest.mark.anyio
async def test_async_a_cancelled_block_ends_it(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        with anyio.move_on_after(0.05) as scope:
            async with store.background(interval=0.01):
                await anyio.sleep(LONG)
        assert scope.cancelled_caught
        assert (await store.session("s")).session_id == "s"


def test_the_documented_interval_is_half_an_hour() -> None:
    assert timedelta(minutes=30).total_seconds() == background.DEFAULT_INTERVAL
