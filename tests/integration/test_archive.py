"""Archiving packs a session's messages: by hand or at its expiry, in short transactions, and whatever kills it loses nothing."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import NotFoundError, SessionExpiredError, SessionStore, sql
from sessionstore.queries import archiving
from sessionstore.queries.tables import STORE_INFO

LONG = "The quick brown fox jumps over the lazy dog. " * 40
HELLO = {"role": "user", "content": "hello"}


def history(count: int, *, prefix: str = "") -> list[dict[str, Any]]:
    return [{"role": "user" if number % 2 else "assistant", "content": f"{prefix}{number}: {LONG}"} for number in range(count)]


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query).fetchall()


def packed(path: Path, session_id: str = "s") -> tuple[int, int]:
    """How many messages of a session are packed, and how many there are."""
    query = (
        "SELECT count(m.packed), count(*) FROM messages m JOIN sessions s ON s.session_key = m.session_key WHERE session_id = '{}'"
    )
    return rows(path, query.format(session_id))[0]  # type: ignore[return-value]


def dicts(store: SessionStore, session_id: str = "s") -> list[dict[str, Any]]:
    return [message.to_dict() for message in store.messages(session_id)]


def set_remote(store: SessionStore) -> None:
    store.set_remote("https://collector.example")


# -- by hand


def test_an_archived_session_is_packed_and_reads_as_before(store: SessionStore, store_path: Path) -> None:
    messages = [*history(30), HELLO]
    before = store.session("s").append_many(messages)
    commits = store.status().commits
    info = store.archive("s")
    assert store.status().commits == commits + 1
    assert info.archived_at is not None
    assert packed(store_path) == (30, 31)
    assert store.messages("s") == before
    assert dicts(store) == messages
    assert store.doctor().ok


def test_a_session_that_is_taken_back_is_plain_again(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many(history(30))
    plain = rows(store_path, "SELECT * FROM messages")
    store.archive("s")
    assert rows(store_path, "SELECT * FROM messages") != plain
    info = store.archive("s", archived=False)
    assert info.archived_at is None
    assert rows(store_path, "SELECT * FROM messages") == plain


def test_what_the_store_compresses_anyway_stays_compressed_when_it_is_taken_back(store_path: Path) -> None:
    with sessionstore.open(store_path, compress_over=1_000) as store:
        store.session("s").append_many([*history(3), {"role": "user", "content": LONG[:500]}])
        assert packed(store_path) == (3, 4)
        store.archive("s")
        assert packed(store_path) == (4, 4)
        store.archive("s", archived=False)
        assert packed(store_path) == (3, 4)


def test_messages_that_come_after_stay_plain_until_it_is_archived_again(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many(history(5))
    store.archive("s")
    store.append_many("s", history(5))
    assert packed(store_path) == (5, 10)
    store.archive("s")
    assert packed(store_path) == (10, 10)
    assert dicts(store) == history(5) * 2


def test_a_long_session_is_packed_in_short_transactions(
    store: SessionStore, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is free between them, and the session is archived with the last one."""
    store.session("s").append_many(history(1_000))
    commits = store.status().commits
    seen: list[int] = []
    original = SessionStore._archive_part

    def part(self: SessionStore, session_id: str, archived: bool, after: int) -> Any:
        done = original(self, session_id, archived, after)
        seen.append(packed(store_path)[0])
        if isinstance(done, int):
            info = store.get("s")
            assert info is not None
            assert (info.archived_at is None) == archived
            store.append("other", HELLO) if store.get("other") else store.create("other")
        return done

    monkeypatch.setattr(SessionStore, "_archive_part", part)
    version = store.archive("s").version
    assert version == 2
    assert len(seen) >= 1_000 * len(LONG) // archiving.ROOM
    assert seen == sorted(set(seen))
    assert store.status().commits == commits + 2 * len(seen) - 1
    assert packed(store_path) == (1_000, 1_000)
    store.archive("s", archived=False)
    assert packed(store_path) == (0, 1_000)
    assert dicts(store) == history(1_000)


def test_a_session_that_is_deleted_meanwhile_is_not_found(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.session("s").append_many(history(1_000))
    original = SessionStore._archive_part

    def part(self: SessionStore, session_id: str, archived: bool, after: int) -> Any:
        done = original(self, session_id, archived, after)
        store.delete("s")
        return done

    monkeypatch.setattr(SessionStore, "_archive_part", part)
    with pytest.raises(NotFoundError):
        store.archive("s")


def test_an_expired_session_is_not_archived_by_hand(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    store.session("s", ttl=1).append_many(history(2))
    frozen.go(5)
    with pytest.raises(SessionExpiredError):
        store.archive("s")
    with pytest.raises(NotFoundError):
        store.archive("nobody")
    assert packed(store_path) == (0, 2)


def test_forks_read_what_their_parent_packed(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many(history(20))
    store.fork("s", "fork", at=10)
    store.append_many("fork", history(5, prefix="own "))
    store.archive("s")
    assert packed(store_path) == (20, 20)
    assert dicts(store, "fork") == [*history(10), *history(5, prefix="own ")]
    store.archive("fork")
    assert packed(store_path, "fork") == (5, 5)
    store.delete("s")
    assert dicts(store, "fork") == [*history(10), *history(5, prefix="own ")]
    store.truncate("fork", after=3)
    assert dicts(store, "fork") == history(3)
    assert store.doctor().ok, store.doctor()


@pytest.mark.anyio
async def test_archiving_is_awaited_like_every_call(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        session = await store.session("s")
        await session.append_many(history(800))
        assert (await session.archive()).archived_at is not None
        assert packed(store_path) == (800, 800)
        assert [message.to_dict() async for message in session.iterate(blobs=False)] == history(800)


# -- at expiry


def test_on_expire_archive_marks_tells_and_packs(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, on_expire="archive") as store:
        set_remote(store)
        store.session("s", ttl=60).append_many(history(20))
        store.session("stays", ttl=600).append_many(history(2))
        now = frozen.go(100)
        commits = store.status().commits
        assert store.sweep() == sessionstore.SweepReceipt(expired=1)
        assert store.status().commits == commits + 1
        (info,) = store.list(status="expired")
        assert (info.session_id, info.archived_at, info.ended_at) == ("s", now, now - timedelta(seconds=40))
        assert store.list(status="expired", archived=True).items == (info,)
        assert store.list(status="expired", archived=False).items == ()
        assert store.count(status="expired") == 1
        assert packed(store_path) == (20, 20)
        assert packed(store_path, "stays") == (0, 2)
        assert store.messages("stays")
        assert rows(store_path, "SELECT count(*) FROM outbox WHERE kind = 'conversation_expired'") == [(1,)]
        assert store.sweep() == sessionstore.SweepReceipt(expired=0)
        assert store.status().commits == commits + 1
        assert store.doctor().ok


def test_what_is_too_long_for_one_transaction_is_packed_by_the_same_sweep_later(store_path: Path, frozen: FrozenClock) -> None:
    """First all are marked, so that the remote knows; then the long ones are packed, in parts."""
    with sessionstore.open(store_path, on_expire="archive") as store:
        store.session("long", ttl=60).append_many(history(1_000))
        for number in range(50):
            store.session(f"s{number}", ttl=60).append_many(history(20))
        frozen.go(100)
        commits = store.status().commits
        assert store.sweep() == sessionstore.SweepReceipt(expired=51)
        assert store.status().commits >= commits + 2_000 * len(LONG) // archiving.ROOM
        assert rows(store_path, "SELECT count(packed), count(*) FROM messages") == [(2_000, 2_000)]
        assert rows(store_path, "SELECT count(archived_at), count(*) FROM sessions") == [(51, 51)]


@pytest.mark.anyio
async def test_an_async_sweep_packs_and_collects_as_well(store_path: Path, frozen: FrozenClock) -> None:
    async with sessionstore.aopen(store_path, on_expire="archive") as store:
        session = await store.session("s", ttl=60)
        await session.append_many(history(1_000))
        other = await store.session("other")
        await other.append("user", "large " * 20_000)
        await other.clear()
        frozen.go(100)
        assert await store.sweep() == sessionstore.SweepReceipt(expired=1, blobs=1)
        assert packed(store_path) == (1_000, 1_000)


def test_a_sweep_with_a_limit_stops_there(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, on_expire="archive") as store:
        for number in range(3):
            store.session(f"s{number}", ttl=60 + number).append_many(history(2))
        frozen.go(100)
        assert store.sweep(limit=1) == sessionstore.SweepReceipt(expired=1, more=True)
        assert rows(store_path, "SELECT count(archived_at) FROM sessions") == [(1,)]


@pytest.mark.parametrize("count", [3, 1_000])
def test_a_new_session_of_the_name_has_the_old_one_archived(store_path: Path, frozen: FrozenClock, count: int) -> None:
    """At once if it is short; a long one keeps nobody waiting, and the next sweep goes on with it."""
    with sessionstore.open(store_path, on_expire="archive") as store:
        store.session("s", ttl=60).append_many(history(count))
        frozen.go(100)
        store.session("s").append_many([HELLO])
        assert dicts(store) == [HELLO]
        assert (packed(store_path)[0] == count) == (count == 3)
        assert store.sweep() == sessionstore.SweepReceipt(expired=0)
        assert packed(store_path) == (count, count + 1)
        (info,) = store.list(status="expired")
        assert info.archived_at is not None
        assert dicts(store) == [HELLO]


def test_what_expired_while_it_was_kept_is_archived_once_that_is_asked_for(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s", ttl=60).append_many(history(3))
        frozen.go(100)
        store.sweep()
        assert packed(store_path) == (0, 3)
    with sessionstore.open(store_path, on_expire="archive") as store:
        store.sweep()
        assert packed(store_path) == (3, 3)


def test_a_late_end_wins_over_an_archived_expiry(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, on_expire="archive") as store:
        store.session("s", ttl=60).append_many(history(3))
        frozen.go(100)
        store.sweep()
        assert store.end("s", "completed", quality_score=5).status == "completed"
        assert dicts(store) == history(3)


def test_looking_for_chores_costs_nothing_where_there_are_none(store: SessionStore) -> None:
    plan = store._read(lambda db: db.driver.execute("EXPLAIN QUERY PLAN " + sql.FIND_TO_ARCHIVE).fetchall())
    assert "ix_sessions" in plan[0][-1]
    plan = store._read(lambda db: db.driver.execute("EXPLAIN QUERY PLAN " + sql.UNREFERENCED, ("", 5)).fetchall())
    assert not any("SCAN blob_references" in step[-1] for step in plan)


def test_the_background_archives_although_the_clock_was_doubted(store_path: Path, frozen: FrozenClock) -> None:
    """Only what deletes needs a clock that is sure."""
    with sessionstore.open(store_path, on_expire="archive") as store:
        store._write(lambda db: db.core.execute(STORE_INFO.update().values(created_at=frozen.now)))
        store.session("s", ttl=60).append_many(history(3))
        frozen.go(timedelta(days=400))
        assert store.sweep().deferred
        assert store.sweep(now=frozen.now).expired == 1
        assert packed(store_path) == (3, 3)


# -- kill -9

ARCHIVER = """
import datetime, sys, sessionstore
path, do = sys.argv[1:]
with sessionstore.open(path, on_expire="archive") as store:
    print("ready", flush=True)
    if do == "archive":
        for _ in range(1_000):
            store.archive("s")
            store.archive("s", archived=False)
    else:
        store.sweep(now=sessionstore.clock.utc_now() + datetime.timedelta(hours=2))
        print("done", flush=True)
        sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_a_killed_archiver_loses_no_message(store_path: Path, parts: int) -> None:
    """Killed after so many transactions of it, as another process sees them."""
    messages = history(2_000)
    with sessionstore.open(store_path) as store:
        store.session("s").append_many(messages)
    with subprocess.Popen([sys.executable, "-c", ARCHIVER, str(store_path), "archive"], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with closing(sqlite3.connect(f"file:{store_path}?mode=ro", uri=True)) as raw:
            seen = {0}
            while len(seen) <= parts:
                seen.add(raw.execute("SELECT count(packed) FROM messages").fetchone()[0])
        other.send_signal(signal.SIGKILL)
        other.wait(30)
    gc.collect()
    with sessionstore.open(store_path) as store:
        assert dicts(store) == messages
        assert store.doctor().ok
        info = store.archive("s")
        assert info.archived_at is not None
        assert packed(store_path) == (2_000, 2_000)
        assert dicts(store) == messages


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_killed_sweeper_leaves_the_rest_to_the_next_one(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        for number in range(5):
            store.session(f"s{number}", ttl=3600).append_many(history(800))
    with subprocess.Popen(
        [sys.executable, "-c", ARCHIVER, str(store_path), "sweep"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with closing(sqlite3.connect(f"file:{store_path}?mode=ro", uri=True)) as raw:
            while not raw.execute("SELECT count(archived_at) FROM sessions").fetchone()[0]:
                pass
        other.send_signal(signal.SIGKILL)
        other.wait(30)
    with sessionstore.open(store_path, on_expire="archive") as store:
        assert store.sweep() == sessionstore.SweepReceipt(expired=0)
        assert rows(store_path, "SELECT count(packed), count(*) FROM messages") == [(4_000, 4_000)]
        assert rows(store_path, "SELECT count(archived_at) FROM sessions WHERE status = 'expired'") == [(5,)]
        assert store.doctor().ok


def test_readers_see_each_message_once_while_a_session_is_packed(store: SessionStore) -> None:
    messages = history(600)
    store.session("s").append_many(messages)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, store.archive, "s")
            for _ in range(10):
                assert await anyio.to_thread.run_sync(dicts, store) == messages

    anyio.run(both)
    assert dicts(store) == messages
