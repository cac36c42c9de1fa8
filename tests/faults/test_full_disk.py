"""A disk without a free byte: what makes room still works, what adds is refused, and nothing that was acknowledged is lost."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

import sessionstore
from sessionstore import DiskFullError, SessionStore, clock
from sessionstore.config import ON_FULL
from sessionstore.database import engine, reserve
from sessionstore.database.transaction import Transaction
from sessionstore.remote.settings import Remote

DISK_BYTES = 24 << 20
MESSAGES = 30
LATER = timedelta(hours=1)
PROGRAM = Path(__file__).with_name("full_disk_program.py")
pytestmark = pytest.mark.fault("F31", "F7")


class Disk:
    """A small file system that another file can fill to its last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "agent.db"
        self.reserve = folder / "agent.db-reserve"
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leaving: int = 0) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            if leaving:
                file.write(bytes(self.free - leaving))
                return
            for step in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(step)) == step:
                        pass
        assert self.free == 0

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        yield Disk(folder)
    finally:
        # Lazily: what a failed test left open must not keep it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_session(store: SessionStore, name: str, **attributes: Any) -> None:
    """A session of about 20 KB."""
    session = store.session(name, **attributes)
    session.append_many([{"role": "user", "content": f"{name} {number} " + "word " * 120} for number in range(MESSAGES)])


def texts(store: SessionStore, session_id: str) -> list[str | None]:
    return [message.text for message in store.messages(session_id)]


def append_until_full(store: SessionStore, stored: list[str]) -> None:
    """Use up what room is left in the file and its log; every acknowledged text is noted."""
    for number in range(len(stored), len(stored) + 20_000):
        text = f"message {number} " + "x" * 200
        try:
            store.append("kept", "user", text)
        except DiskFullError:
            return
        stored.append(text)
    raise AssertionError("the disk was never full")


FREEING: dict[str, Callable[[SessionStore, str], object]] = {
    "delete": lambda store, name: store.delete(name),
    "delete by filter": lambda store, name: store.delete(tag=name),
    "clear": lambda store, name: store.clear(name),
    "truncate": lambda store, name: store.truncate(name, after=2),
    "pop": lambda store, name: store.pop(name),
    "erase": lambda store, name: store.erase(name, rebuild=False),
    "sweep": lambda store, _: store.sweep(now=clock.utc_now() + LATER, limit=1),
    "prune": lambda store, _: store.prune(max_sessions=store.count() - 1),
    "vacuum": lambda store, _: store.vacuum(),
    "purge of the outbox": lambda store, _: store.outbox.purge(state="pending"),
    "erasure from the outbox": lambda store, name: store.outbox.erase(name, tell=False),
    "claim and settlement": lambda store, _: store._settle_and_claim(nothing_settled(), 10, 1 << 20, timedelta(seconds=60)),
    "deletion of state": lambda store, name: store.delete_state(name, "part"),
    "merge of the index": lambda store, _: store._merge_search_index(),
}


def nothing_settled() -> Any:
    from sessionstore.remote.settlement import Settlement

    return Settlement(token=clock.new_id(), sent_before=0, over=False)


def test_every_call_that_makes_room_works_without_a_free_byte(disk: Disk, trial: Trial) -> None:
    # Of a word in every message FTS5 merges the whole entry at once; it grows with each round, until the reserve is too small.
    rounds = trial.size(push=1, nightly=12, release=12)
    done: dict[str, int] = dict.fromkeys(FREEING, 0)
    stored: list[str] = []
    refused = 0
    with sessionstore.open(disk.path, on_expire="delete") as store:
        store.set_search("on")
        store.set_remote(Remote("https://collector.example", max_outbox_bytes=1 << 22))
        store.session("kept", pinned=True)
        for number in range(rounds):
            for call, name in enumerate(FREEING):
                fill_session(store, f"s{number}-{call}", ttl=60 if name == "sweep" else None, tags=[f"s{number}-{call}"])
                store.set_state(f"s{number}-{call}", {"part": "x" * 2_000})
            for call, (name, action) in enumerate(FREEING.items()):
                disk.fill()
                append_until_full(store, stored)
                refused += 1
                assert store.get("kept").message_count == len(stored), "reads go on"
                action(store, f"s{number}-{call}")
                done[name] += 1
                assert disk.reserve.stat().st_size > 0, f"the reserve was not taken back after {name}"
            disk.make_room()
            store.delete([info.session_id for info in store.list(limit=1_000).items if info.session_id != "kept"])
        assert texts(store, "kept") == stored
        store.append("kept", "user", "room again")
        assert store.doctor().ok
    with sessionstore.open(disk.path) as store:
        assert texts(store, "kept") == [*stored, "room again"]
        assert store.status().reserve_bytes > 4 << 20, "a quarter of what is free"
    count = sum(done.values())
    assert set(done.values()) == {rounds}
    trial.report(
        f"{count} of {count} calls that make room worked on a full disk; {refused} appends refused, "
        f"{len(stored):,} acknowledged, 0 lost",
        file_system="tmpfs",
        calls=done,
    )


def test_an_index_larger_than_the_reserve_is_merged_without_a_free_byte(disk: Disk) -> None:
    stored: list[str] = []
    with sessionstore.open(disk.path) as store:
        store.set_search("on")
        store.session("kept", pinned=True)
        for number in range(300):
            # Of a word in every message FTS5 writes the whole entry at once.
            words = [f"w{(37 * number + 53 * word) % 4_999}" for word in range(100 + MESSAGES)]
            contents = [" ".join(words[seq : seq + 100]) for seq in range(MESSAGES)]
            store.session(f"s{number}").append_many([{"role": "user", "content": content} for content in contents])
        store.delete([f"s{number}" for number in range(0, 300, 2)])
    disk.reserve.unlink()
    disk.fill(leaving=3 << 20)
    with sessionstore.open(disk.path) as store:
        assert 0 < store.status().reserve_bytes < 1 << 20, "a quarter of what is free"
        disk.fill()
        append_until_full(store, stored)
        store._merge_search_index()
        assert store.delete("s1").session_ids == ("s1",)
        assert texts(store, "kept") == stored
        assert store.search("w7", limit=5).items
        assert store.doctor().ok


def test_deletions_work_one_after_another_though_another_file_takes_each_free_byte(disk: Disk, trial: Trial) -> None:
    """Nothing is appended between them: each has only the reserve, and what the one before left of it."""
    count = trial.size(push=60, nightly=200, release=200)
    with sessionstore.open(disk.path, durability="normal") as store:
        for number in range(count):
            fill_session(store, f"s{number}")
        disk.fill()
        for number in range(count):
            assert store.delete(f"s{number}").session_ids == (f"s{number}",)
            disk.fill()
        assert store.count() == 0
    trial.report(f"deletes: {count} of {count} on a disk that is filled again after each", file_system="tmpfs")


def test_appends_go_on_in_the_room_of_what_was_deleted(disk: Disk) -> None:
    stored: list[str] = []
    with sessionstore.open(disk.path, durability="normal") as store:
        for number in range(40):
            fill_session(store, f"s{number}")
        store.session("kept")
        disk.fill()
        append_until_full(store, stored)
        store.delete([f"s{number}" for number in range(40)])
        before = len(stored)
        append_until_full(store, stored)
        assert len(stored) - before > 1_000, "about 800 KB were deleted"
        assert texts(store, "kept") == stored


def test_a_refused_append_leaves_the_reserve_alone(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    with sessionstore.open(disk.path) as store:
        store.session("kept")
        disk.fill()
        held = store.status().reserve_bytes
        assert held > 0
        for _ in range(5):
            append_until_full(store, [])
        assert store.status().reserve_bytes == held
        assert store.status().free_bytes == 0
        disk.make_room()
        for number in range(20):
            fill_session(store, f"s{number}")
        assert store.count() == 21, "the file may grow again"
    assert "reserve_spent" not in [getattr(record, "event", "") for record in caplog.records]


async def test_awaited_deletions_work_on_a_full_disk(disk: Disk) -> None:
    async with await sessionstore.aopen(disk.path) as store:
        for number in range(20):
            session = await store.session(f"s{number}")
            await session.append_many([{"role": "user", "content": "word " * 200}] * 20)
        for number in range(20):
            disk.fill()
            await append_until_full_awaited(store)
            await store.delete(f"s{19 - number}")
        assert await store.count() == 0
    disk.make_room()


async def append_until_full_awaited(store: sessionstore.AsyncSessionStore) -> None:
    with pytest.raises(DiskFullError, match="free some space, or delete"):
        await append_often(store)


async def append_often(store: sessionstore.AsyncSessionStore) -> None:
    for _ in range(20_000):
        await store.append("s0", "user", "x" * 200)


@pytest.mark.parametrize("on_full", ON_FULL)
def test_the_quota_of_the_outbox_holds_while_the_disk_is_full(disk: Disk, on_full: Any) -> None:
    """What is at its quota stays at it; when the disk is full as well, the outbox can be emptied and events are kept again."""
    with sessionstore.open(disk.path, durability="normal") as store:
        store.set_remote(Remote("https://collector.example", max_outbox_bytes=1 << 16, on_full=on_full))
        store.session("s", agent_id="agent")
        for number in range(200):
            with suppress(sessionstore.QuotaError):
                store.record("before", number, attributes={"blank": "x" * 500})
        before = store.outbox.stats()
        assert before.pending_bytes <= before.quota
        disk.fill()
        append_until_full_or_over_quota(store)
        at_limit = store.outbox.stats()
        assert at_limit.pending_bytes <= at_limit.quota
        assert store.outbox.purge(state="pending") == at_limit.pending
        store.record("after", 1)
        assert store.outbox.stats().pending == 1
        assert store.doctor().ok


def append_until_full_or_over_quota(store: SessionStore) -> None:
    for number in range(20_000):
        try:
            store.record("while", number, attributes={"blank": "x" * 500})
        except DiskFullError:
            return
        except sessionstore.QuotaError:
            # Nothing was written; messages of a user cost no quota.
            with suppress(DiskFullError):
                store.append("s", "user", "x" * 20_000)
                continue
            return
    raise AssertionError("the disk was never full")


def test_two_processes_agree_on_the_reserve(disk: Disk, trial: Trial) -> None:
    """One appends all the time, the other deletes on the full disk: every deletion works, no acknowledged message is lost."""
    count = trial.size(push=8, nightly=60, release=60)
    with sessionstore.open(disk.path, durability="normal") as store:
        for number in range(count):
            fill_session(store, f"s{number}")
        store.session("other")
        disk.fill()
        command = [sys.executable, "-W", "error", str(PROGRAM), "append", str(disk.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            lines = []
            try:
                for number in range(count):
                    while (line := other.stdout.readline()) and not line.startswith("full"):
                        lines.append(line)
                    store.delete(f"s{number}")
            finally:
                other.kill()
            lines += other.stdout.readlines()
        stored = sum(line.startswith("stored") for line in lines)
        found = [text.split()[0] for text in texts(store, "other") if text]
        assert found[:stored] == [str(number) for number in range(stored)]
        # The last one may have been committed and not been told of.
        assert len(found) <= stored + 1
        assert store.doctor().ok
        assert 1 << 20 < disk.reserve.stat().st_size <= reserve.SIZE, "appends do not use it up"
    trial.report(f"deletes: {count} of {count} beside a process that appends; {stored:,} acknowledged, 0 lost", file_system="tmpfs")


def test_a_kill_while_the_reserve_is_spent_leaves_nothing_wrong(disk: Disk) -> None:
    going = [f"s{number}" for number in range(40)]
    with sessionstore.open(disk.path, durability="normal") as store:
        for name in going:
            fill_session(store, name)
        fill_session(store, "another")
        store.session("kept")
    stored: list[str] = []
    with sessionstore.open(disk.path) as store:
        disk.fill()
        append_until_full(store, stored)
        done = subprocess.run([sys.executable, "-W", "error", str(PROGRAM), "die", str(disk.path), *going], check=False)
        assert done.returncode == -9
        assert not disk.reserve.exists()
        assert [info.session_id for info in store.list().items] == ["kept", "another"], "it was killed after its commit"
        assert texts(store, "kept") == stored
        store.delete("another")
        disk.make_room()
    with sessionstore.open(disk.path) as store:
        assert store.status().reserve_bytes > 4 << 20, "a quarter of what is free"
        assert store.doctor().ok
        assert texts(store, "kept") == stored


def test_a_store_can_be_opened_and_emptied_on_a_full_disk(disk: Disk) -> None:
    """Closed well, so that SQLite's shared memory must be made anew, for which there is room in the reserve only."""
    with sessionstore.open(disk.path) as store:
        for number in range(10):
            fill_session(store, f"s{number}")
    disk.fill()
    with sessionstore.open(disk.path) as store:
        assert len(texts(store, "s3")) == MESSAGES
        disk.fill()
        for number in range(10):
            store.delete(f"s{number}")
        assert store.count() == 0


def test_a_limit_of_pages_lets_sessions_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: Trial) -> None:
    """SQLite's own limit says the same as a full disk; here the disk says, too, that it is nearly full."""
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 100 << 20)
    count = trial.size(push=30, nightly=100, release=100)
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        for number in range(count):
            fill_session(store, f"s{number}")
        store.session("kept")
        # A limit below the size of the file means its size.
        store._database.writer.exclusively(lambda db: db.driver.execute("PRAGMA max_page_count=1").fetchall(), timeout=5)
        stored: list[str] = []
        append_until_full(store, stored)
        for number in range(count):
            assert store.delete(f"s{number}").messages == MESSAGES
        append_until_full(store, stored)
        assert len(stored) > 500
        assert texts(store, "kept") == stored
        assert store.status().reserve_bytes == reserve.SIZE
    trial.report(f"deletes: {count} of {count} at SQLite's limit of pages")


def test_an_interrupt_while_the_file_is_kept_from_growing_does_not_keep_it_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit_and_stop(connection: sqlite3.Connection, most: int) -> None:
        monkeypatch.setattr(engine, "limit_pages", limit)
        limit(connection, most)
        raise KeyboardInterrupt

    def fail(_: Transaction) -> None:
        raise DiskFullError(tmp_path / "a.db", "the disk is full")

    limit = engine.limit_pages
    with sessionstore.open(tmp_path / "a.db") as store:
        monkeypatch.setattr(engine, "limit_pages", limit_and_stop)
        monkeypatch.setattr(reserve, "free_bytes", lambda _: 0)
        with pytest.raises(KeyboardInterrupt):
            store._write(fail)
        monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
        for number in range(40):
            fill_session(store, f"s{number}")


def test_a_connection_that_cannot_be_opened_on_a_full_disk_raises_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with sessionstore.open(tmp_path / "a.db") as store:
        store.session("s").append("user", "x")
        with monkeypatch.context() as full:
            full.setattr(engine, "connect_file", fail)
            store._database.writer.exclusively(lambda _: store._database.writer.let_go(), timeout=5)
            with pytest.raises(DiskFullError):
                store.delete("s")
        assert store.delete("s").messages == 1


def test_the_reserve_comes_when_room_gets_low_and_goes_when_there_is_plenty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the two marks it stays as it is."""
    caplog.set_level(logging.INFO, "sessionstore")
    path = tmp_path / "a.db"
    seen = []
    for free in (3 << 30, 1500 << 20, 900 << 20, 1500 << 20, 3 << 30, 1 << 20, 1500 << 20):
        monkeypatch.setattr(reserve, "free_bytes", lambda _, free=free: free)
        with sessionstore.open(path) as store:
            seen.append(store.status().reserve_bytes)
    assert seen == [0, 0, reserve.SIZE, reserve.SIZE, 0, 1 << 18, 1 << 18]
    events = [name for record in caplog.records if (name := getattr(record, "event", "")).startswith("reserve_")]
    assert events == ["reserve_set_aside", "reserve_removed", "reserve_set_aside"]


def test_the_reserve_takes_a_quarter_of_the_room_however_often_it_is_looked_at(disk: Disk) -> None:
    """On a disk of 24 MiB, which never has more."""
    seen = set()
    for _ in range(20):
        with sessionstore.open(disk.path) as store:
            held = store.status().reserve_bytes
            seen.add(held)
            assert held <= (disk.free + held) // 4 + (1 << 20), "the log took some since"
    assert len(seen) == 1


def test_the_background_sees_to_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sessionstore.open(tmp_path / "a.db") as store:
        monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
        assert store.status().reserve_bytes == 0
        with store.background():
            wait_until(lambda: store.status().reserve_bytes == reserve.SIZE)
        monkeypatch.setattr(reserve, "free_bytes", lambda _: 3 << 30)
        with store.background():
            wait_until(lambda: store.status().reserve_bytes == 0)


def wait_until(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_a_checkpoint_sees_to_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
        number = 0
        while not store.status().checkpoints:
            fill_session(store, f"s{number}")
            number += 1
        assert store.status().reserve_bytes == reserve.SIZE


def test_the_reserve_is_for_its_owner_only_and_takes_its_room_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
    with sessionstore.open(tmp_path / "a.db"):
        found = (tmp_path / "a.db-reserve").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o600, reserve.SIZE)
        assert found.st_blocks * 512 >= reserve.SIZE


def test_without_a_call_to_allocate_the_reserve_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with sessionstore.open(tmp_path / "a.db") as store:
        assert store.status().reserve_bytes == reserve.SIZE
        assert set((tmp_path / "a.db-reserve").read_bytes()) == {0}


def test_a_disk_that_cannot_set_anything_aside_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
    monkeypatch.setattr(reserve, "_allocate", fail)
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        for number in range(60):
            fill_session(store, f"s{number}")
        assert store.status().checkpoints
        assert store.status().reserve_bytes == 0
    events = [record for record in caplog.records if getattr(record, "event", "") == "reserve_missing"]
    assert [getattr(record, "reason", "") for record in events] == ["No space left on device"]


def test_what_is_too_large_for_a_reserve_is_somebodys_file_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "a.db-reserve"
    mine.write_bytes(b"x" * (reserve.SIZE + 1))
    for free in (900 << 20, 3 << 30):
        monkeypatch.setattr(reserve, "free_bytes", lambda _, free=free: free)
        with sessionstore.open(tmp_path / "a.db") as store:
            assert store.status().reserve_bytes == 0
    assert mine.read_bytes() == b"x" * (reserve.SIZE + 1)


def test_what_holds_something_is_no_reserve_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a copy of the database that somebody named so."""
    with sessionstore.open(tmp_path / "a.db") as store:
        store.session("s").append("user", "x")
    copy = (tmp_path / "a.db").read_bytes()
    assert len(copy) < reserve.SIZE
    (tmp_path / "a.db-reserve").write_bytes(copy)
    for free in (900 << 20, 3 << 30, 0):
        monkeypatch.setattr(reserve, "free_bytes", lambda _, free=free: free)
        with sessionstore.open(tmp_path / "a.db") as store:
            assert store.status().reserve_bytes == 0
    assert (tmp_path / "a.db-reserve").read_bytes() == copy


@pytest.mark.parametrize("what", ["a link", "a folder"])
def test_what_is_no_file_in_the_place_of_the_reserve_is_named(tmp_path: Path, what: str) -> None:
    place = tmp_path / "a.db-reserve"
    if what == "a link":
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
    with pytest.raises(sessionstore.StoreOpenError, match="-reserve"):
        sessionstore.open(tmp_path / "a.db")


def test_stores_that_are_only_read_and_stores_in_memory_set_nothing_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessionstore.open(tmp_path / "a.db").close()
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
    with sessionstore.open(tmp_path / "a.db", read_only=True) as store:
        assert store.status().reserve_bytes == 0
        assert isinstance(store.status().free_bytes, int)
    with sessionstore.open(in_memory=True) as store:
        assert (store.status().free_bytes, store.status().reserve_bytes) == (None, 0)


def test_files_are_not_written_in_the_place_of_a_reserve(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db") as store:
        store.session("s").append("user", "x")
        for write in (store.backup, store.export_file):
            with pytest.raises(sessionstore.InvalidInputError, match="reserve"):
                write(tmp_path / "a.db-reserve")


def test_a_backup_a_copy_and_a_restore_leave_the_reserve_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 900 << 20)
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.session("s").append("user", "x")
        store.backup(tmp_path / "b.db")
    assert not (tmp_path / "b.db-reserve").exists()
    sessionstore.restore(tmp_path / "b.db", path)
    with sessionstore.open(path) as store:
        assert texts(store, "s") == ["x"]
        assert store.status().reserve_bytes == reserve.SIZE
