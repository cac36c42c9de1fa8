"""Many writers at once, in threads and in processes: nobody fails, nothing is lost, and commits are shared."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

import sessionstore
from sessionstore.database import checkpoints
from sessionstore.database.database import Database

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs fork or POSIX signals")


def run_program(program: str, *given: object, timeout: float = 100) -> Any:
    """Run a Python program in a process of its own and give the JSON that it printed."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def database_of(store: sessionstore.SessionStore) -> Database:
    """What the stores on one file share."""
    return store._database


def write_through(store: sessionstore.SessionStore, work: Callable[[Any], Any]) -> Any:
    """Run work of the test's own as a write of the store."""
    return store._write(work)


def in_threads(count: int, action: Callable[[int], None]) -> list[BaseException]:
    """Run an action in so many threads, started together; the errors they raised."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            action(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# A process that has imported everything forks the others, so that they really start together.
OPEN_TOGETHER = """
import json, os, sys
import sessionstore
from sessionstore import aio, models
import alembic.command

folder, rounds, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
outcomes = []
for number in range(rounds):
    path = os.path.join(folder, f"{number}.db")
    gate, opener = os.pipe()
    reading, writing = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(opener)
            os.read(gate, 1)
            try:
                store = sessionstore.open(path)
                store.session("shared").append("user", "x")
                said = store.status().store_id
                store.close()
            except BaseException as error:
                said = "ERROR " + repr(error)
            os.write(writing, (said + "\\n").encode())
            os._exit(0)
        children.append(pid)
    os.close(gate), os.close(opener), os.close(writing)  # all read the end of the pipe at once
    outcomes.append(os.fdopen(reading).read().splitlines())
    for pid in children:
        os.waitpid(pid, 0)
print(json.dumps(outcomes))
"""


@pytest.mark.fault("F13")
@posix_only
def test_eight_processes_open_a_fresh_file_at_once(tmp_path: Path, trial: Trial) -> None:
    """No error, one migration: every process sees the one store id, and the version table has one row."""
    rounds = trial.size(push=20, nightly=50, release=100)
    outcomes = run_program(OPEN_TOGETHER, tmp_path, rounds, 8)
    assert len(outcomes) == rounds
    for number, ids in enumerate(outcomes):
        assert len(ids) == 8
        assert len(set(ids)) == 1, ids
        assert not ids[0].startswith("ERROR")
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as raw:
            assert raw.execute("SELECT count(*) FROM sessionstore_version").fetchall() == [(1,)]
            assert raw.execute("SELECT store_id FROM store_info").fetchall() == [(ids[0],)]
            assert raw.execute("SELECT count(*), max(seq) FROM messages").fetchall() == [(8, 8)]
    trial.report(f"{rounds} rounds of 8 processes: each file migrated once, 0 errors")


APPEND_MANY_TIMES = """
import json, sys
import sessionstore

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with sessionstore.open(path, busy_timeout=60) as store:
    seqs = [store.append("shared", "user", f"{name} {n}").seq for n in range(count)]
print(json.dumps(seqs))
"""


@pytest.mark.fault("F8")
def test_four_processes_append_to_one_session_without_loss(tmp_path: Path) -> None:
    """2,000 appends: no error, each with a seq of its own, in each writer's order, without holes."""
    path, count = tmp_path / "a.db", 500
    with sessionstore.open(path) as store:
        store.session("shared")
    with ThreadPoolExecutor(4) as pool:
        seqs = list(pool.map(lambda name: run_program(APPEND_MANY_TIMES, path, name, count), "abcd"))
    assert sorted(seq for own in seqs for seq in own) == list(range(1, 4 * count + 1))
    with sessionstore.open(path) as store:
        texts = {message.seq: message.text for message in store.messages("shared")}
        assert store.doctor().ok
    for name, own in zip("abcd", seqs, strict=True):
        assert [texts[seq] for seq in own] == [f"{name} {n}" for n in range(count)]
        assert own == sorted(own)


@pytest.mark.fault("F8")
def test_32_threads_append_to_one_session_without_loss(store: sessionstore.SessionStore) -> None:
    store.session("shared")

    def append(number: int) -> None:
        for n in range(25):
            store.append("shared", "user", f"{number} {n}")

    assert in_threads(32, append) == []
    messages = store.messages("shared")
    assert [message.seq for message in messages] == list(range(1, 801))
    for number in range(32):
        own = [message.text for message in messages if (message.text or "").split(" ")[0] == str(number)]
        assert own == [f"{number} {n}" for n in range(25)]
    assert store.doctor().ok


class Gate:
    """A write that holds the writer until it is let go, so that others queue up behind it."""

    def __init__(self, store: sessionstore.SessionStore) -> None:
        self._entered = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=write_through, args=(store, self._work))

    def _work(self, db: Any) -> None:
        self._entered.set()
        assert self._leave.wait(60)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._entered.wait(60)

    def __exit__(self, *error: object) -> None:
        self._leave.set()
        self._thread.join()


def queue_up(store: sessionstore.SessionStore, actions: list[Callable[[], Any]]) -> list[Any]:
    """Let all actions wait for the writer at once, then let them go; what each returned or raised."""
    outcomes: list[Any] = [None] * len(actions)

    def run(number: int, action: Callable[[], Any]) -> None:
        try:
            outcomes[number] = action()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(actions)]
    pending = database_of(store).writer._pending
    with Gate(store):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            wait_until(lambda number=number: len(pending) >= number)
    for thread in threads:
        thread.join()
    return outcomes


def wait_until(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Return when a condition holds; fail if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.001)


def test_waiting_writers_share_a_commit(store: sessionstore.SessionStore) -> None:
    store.session("s")
    before = store.status()
    queue_up(store, [lambda: store.append("s", "user", "x")] * 20)
    after = store.status()
    assert after.writes - before.writes == 21
    assert after.commits - before.commits < 6
    assert len(store.messages("s")) == 20


def test_a_bad_write_in_a_group_fails_alone(store: sessionstore.SessionStore) -> None:
    """Its neighbours are stored; nothing of the bad one is, although it had written before it failed."""
    store.session("s")

    def fail_after_writing() -> Any:
        def work(db: Any) -> None:
            db.driver.execute("UPDATE sessions SET title = 'half done'")
            raise ZeroDivisionError

        return write_through(store, work)

    outcomes = queue_up(
        store,
        [
            lambda: store.append("s", "user", "first"),
            fail_after_writing,
            lambda: store.append("absent", "user", "x"),
            lambda: store.append("s", "user", "last"),
        ],
    )
    assert [type(outcome) for outcome in outcomes] == [
        sessionstore.Message, ZeroDivisionError, sessionstore.NotFoundError, sessionstore.Message,
    ]  # fmt: skip
    assert [message.text for message in store.messages("s")] == ["first", "last"]
    info = store.get("s")
    assert info is not None
    assert info.title is None


@pytest.mark.fault("F8")
def test_a_failed_commit_fails_its_whole_group_and_the_store_goes_on(store: sessionstore.SessionStore) -> None:
    """A broken foreign key that is checked at COMMIT stands for a disk that fails there."""
    store.session("s")

    def break_the_commit() -> Any:
        def work(db: Any) -> None:
            db.driver.execute("PRAGMA defer_foreign_keys=ON")
            db.driver.execute("INSERT INTO session_tags (session_key, tag) VALUES (999, 'orphan')")

        return write_through(store, work)

    outcomes = queue_up(store, [lambda: store.append("s", "user", "a"), break_the_commit, lambda: store.append("s", "user", "b")])
    assert all(isinstance(outcome, sessionstore.SessionStoreError) for outcome in outcomes), outcomes
    assert store.messages("s") == []
    assert store.append("s", "user", "after").seq == 1
    assert store.doctor().ok


HOLD_THE_LOCK = """
import fcntl, os, sys

lock = os.open(sys.argv[1] + "-lock", os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""

HOLD_A_TRANSACTION = """
import sqlite3, sys

raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute(sys.argv[2])
raw.execute("SELECT count(*) FROM sessions").fetchall()
print("held", flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that holds something until it is let go."""

    def __init__(self, program: str, *given: object) -> None:
        command = [sys.executable, "-c", program, *map(str, given)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Holder:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if said != "held\n":
            self.__exit__()
            raise AssertionError("the other process could not take hold")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.fault("F8")
@posix_only
@pytest.mark.parametrize(
    "program", [(HOLD_THE_LOCK,), (HOLD_A_TRANSACTION, "BEGIN IMMEDIATE")], ids=["lock", "foreign transaction"]
)
def test_a_write_waits_for_its_deadline_and_no_longer(tmp_path: Path, program: tuple[str, ...]) -> None:
    """StoreBusyError says that nothing was written; reads go on; and the next write works when the other has gone."""
    path = tmp_path / "a.db"
    with sessionstore.open(path, busy_timeout=0.3) as store:
        store.session("s").append("user", "before")
        with Holder(program[0], path, *program[1:]):
            started = time.monotonic()
            with pytest.raises(sessionstore.StoreBusyError):
                store.append("s", "user", "refused")
            assert time.monotonic() - started >= 0.3
            assert [message.text for message in store.messages("s")] == ["before"]
        assert store.append("s", "user", "after").seq == 2
        assert store.status().busy_waits > 0 or program[0] is HOLD_A_TRANSACTION


@pytest.mark.fault("F8")
@posix_only
def test_opening_waits_for_its_deadline_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    with Holder(HOLD_THE_LOCK, path), pytest.raises(sessionstore.StoreBusyError):
        sessionstore.open(path, busy_timeout=0.2)
    sessionstore.open(path).close()


@pytest.mark.fault("F8")
@posix_only
def test_threads_that_wait_for_another_process_fail_at_their_own_deadlines(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path, busy_timeout=0.3) as store, sessionstore.open(path, busy_timeout=60) as patient:
        store.session("s")
        with Holder(HOLD_THE_LOCK, path):
            waiting = threading.Thread(target=patient.append, args=("s", "user", "patient"))
            waiting.start()
            errors = in_threads(6, lambda number: store.append("s", "user", "refused"))
            assert [type(error) for error in errors] == [sessionstore.StoreBusyError] * 6
        waiting.join()
        assert [message.text for message in store.messages("s")] == ["patient"]


def test_stores_on_one_path_share_one_engine(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path, durability="full") as first:
        second = sessionstore.open(tmp_path / "." / "a.db", durability="normal", namespace="other")
        assert database_of(first) is database_of(second)
        first.session("s").append("user", "x")
        assert second.in_namespace("").messages("s")[0].text == "x"
        assert (first.status().durability, second.status().durability) == ("full", "normal")
        second.session("t")
        second.close()
        with pytest.raises(sessionstore.ClosedStoreError):
            second.get("t")
        assert first.append("s", "user", "y").seq == 2


def test_a_commit_is_as_durable_as_its_most_careful_writer_asks(tmp_path: Path) -> None:
    """Stores of both durabilities on one file: each commit runs with the `synchronous` that its group needs."""
    path = tmp_path / "a.db"
    seen: list[int] = []
    with sessionstore.open(path, durability="full") as full, sessionstore.open(path, durability="normal") as normal:
        look = lambda db: seen.append(db.driver.execute("PRAGMA synchronous").fetchone()[0])  # noqa: E731
        for store in (full, normal, full):
            write_through(store, look)
        queue_up(full, [lambda: write_through(normal, look), lambda: write_through(full, look)])
    assert seen[:3] == [2, 1, 2]
    assert seen[-1] == 2


@pytest.mark.fault("F8")
def test_readers_do_not_wait_for_a_writer_and_see_no_half(store: sessionstore.SessionStore) -> None:
    store.session("s").append("user", "before")
    entered, leave = threading.Event(), threading.Event()

    def write_slowly(db: Any) -> None:
        db.driver.execute("UPDATE sessions SET title = 'half'")
        entered.set()
        assert leave.wait(60)

    thread = threading.Thread(target=write_through, args=(store, write_slowly))
    thread.start()
    assert entered.wait(60)
    info = store.get("s")
    assert info is not None
    assert info.title is None
    assert len(store.messages("s")) == 1
    leave.set()
    thread.join()
    changed = store.get("s")
    assert changed is not None
    assert changed.title == "half"


@pytest.mark.fault("F8")
def test_every_thread_reads_its_own_writes(store: sessionstore.SessionStore) -> None:
    def write_and_read(number: int) -> None:
        chat = store.session(f"s{number}")
        for n in range(1, 21):
            seq = chat.append("user", str(n)).seq
            assert [message.seq for message in chat.messages(last=1)] == [seq] == [n]

    assert in_threads(16, write_and_read) == []


@pytest.mark.parametrize("round_", range(5))
def test_calls_during_a_close_work_or_say_that_it_is_closed(tmp_path: Path, round_: int) -> None:
    path = tmp_path / "a.db"
    store = sessionstore.open(path, durability="normal")
    for number in range(8):
        store.session(f"s{number}")
    acked = [0] * 8
    started = threading.Barrier(9)

    def work(number: int) -> None:
        started.wait()
        while True:
            store.append(f"s{number}", "user", "x")
            acked[number] += 1
            store.messages(f"s{number}", last=2)

    def close(number: int) -> None:
        started.wait()
        wait_until(lambda: sum(acked) > 20)
        store.close()

    errors = in_threads(9, lambda number: close(number) if number == 8 else work(number))
    assert [type(error) for error in errors] == [sessionstore.ClosedStoreError] * 8
    with sessionstore.open(path) as again:
        stored = [len(again.messages(f"s{number}")) for number in range(8)]
        assert again.doctor().ok
    assert stored == acked


INTERRUPT_THE_LEADER = """
import faulthandler, json, random, signal, sys, threading, time
import sessionstore

faulthandler.dump_traceback_later(20, exit=True)
store = sessionstore.open(sys.argv[1])
store.session("s")
chance = random.Random(int(sys.argv[2]))
acked, errors, stop = [], [], threading.Event()
armed = False

def on_interrupt(signum, frame):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def others(number):
    for n in range(80):
        try:
            acked.append((store.append("s", "user", f"{number}/{n}").seq, f"{number}/{n}"))
        except BaseException as error:
            errors.append(repr(error))

def interrupt():
    while not stop.is_set():
        time.sleep(chance.uniform(0.0005, 0.004))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

signal.signal(signal.SIGINT, on_interrupt)
threads = [threading.Thread(target=others, args=(number,), daemon=True) for number in range(4)]
for thread in (*threads, threading.Thread(target=interrupt, daemon=True)):
    thread.start()
unknown = set()
n = 0
while any(thread.is_alive() for thread in threads):
    name = f"main/{n}"
    n += 1
    try:
        armed = True
        seq = store.append("s", "user", name).seq
        armed = False
        acked.append((seq, name))
    except KeyboardInterrupt:
        unknown.add(name)
stop.set()
stored = {message.seq: message.text for message in store.messages("s")}
names = list(stored.values())
print(json.dumps({
    "errors": errors,
    "interrupts": len(unknown),
    "lost": [pair for pair in acked if stored.get(pair[0]) != pair[1]],
    "twice": sorted({name for name in names if names.count(name) > 1}),
    "foreign": sorted(set(names) - {name for _, name in acked} - unknown),
    "holes": list(stored) != list(range(1, len(stored) + 1)),
    "next": store.append("s", "user", "next").seq - len(stored),
    "ok": store.doctor().ok,
}))
"""


@posix_only
@pytest.mark.parametrize("round_", range(3))
def test_an_interrupted_leader_neither_loses_nor_repeats_the_writes_of_others(tmp_path: Path, round_: int) -> None:
    """The main thread gets Ctrl-C again and again while it commits for four other threads."""
    found = run_program(INTERRUPT_THE_LEADER, tmp_path / "a.db", round_)
    assert found.pop("interrupts") > 3
    assert found == {"errors": [], "lost": [], "twice": [], "foreign": [], "holes": False, "next": 1, "ok": True}


@pytest.mark.fault("F9")
def test_checkpoints_keep_the_log_bounded(tmp_path: Path) -> None:
    largest = 0
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        store.session("s")
        for _ in range(60):
            store.append_many("s", [{"role": "user", "content": "x" * 4_000}] * 60)
            largest = max(largest, store.status().wal_bytes)
        status = store.status()
        assert status.checkpoints > 1
    assert status.file_bytes > 10 << 20
    assert largest < 16 << 20


@pytest.mark.fault("F9")
def test_a_pinned_reader_makes_the_log_grow_only_until_it_lets_go(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path, durability="normal") as store:
        store.session("s").append("user", "seen")
        batch = [{"role": "user", "content": "x" * 4_000}] * 60
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
            for _ in range(40):
                store.append_many("s", batch)
            pinned = store.status().wal_bytes
            assert pinned > 8 << 20
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
            reader.execute("ROLLBACK")
        for _ in range(60):
            store.append_many("s", batch)
        after = store.status().wal_bytes
        assert after < pinned * 1.7
    assert not path.with_name("a.db-wal").exists()
    told = f"{pinned / (1 << 20):.1f} MiB beside a pinned reader, {after / (1 << 20):.1f} MiB after half as much again without it"
    trial.report(f"the log: {told}; gone at the close")


@pytest.mark.fault("F9")
def test_another_process_opens_a_file_whose_log_is_half_copied(tmp_path: Path) -> None:
    """A reader in the way leaves a part of the log uncopied: the file alone is no database then, the file and its log are."""
    path = tmp_path / "a.db"
    with sessionstore.open(path, durability="normal") as store:
        store.session("shared")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            for n in range(40):
                store.append_many("shared", [{"role": "user", "content": "x" * 4_000}] * 30)
                if n == 20:
                    reader.execute("BEGIN")
                    reader.execute("SELECT count(*) FROM messages").fetchall()
            for n in range(0, 1_200, 7):
                store.session(f"other {n}", tags=["t"])
            assert store.status().checkpoints > 1
            assert run_program(APPEND_MANY_TIMES, path, "another process", 3) == [1_201, 1_202, 1_203]


@pytest.mark.fault("F9")
def test_a_log_past_its_limit_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_WARNING_BYTES", 1 << 20)
    path = tmp_path / "a.db"
    with sessionstore.open(path, durability="normal") as store:
        store.session("s")
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM messages").fetchall()
            for _ in range(40):
                store.append_many("s", [{"role": "user", "content": "x" * 4_000}] * 60)
    assert any(getattr(record, "event", "") == "wal_large" for record in caplog.records)


DELETE_AND_APPEND = """
import json, os, sys
import sessionstore

path, name = sys.argv[1], sys.argv[2]
with sessionstore.open(path, busy_timeout=60) as store:
    for n in range(150):
        store.append("shared", "user", f"{name} {n}")
        if n % 10 == 0:
            try:
                os.unlink(path + "-lock")
            except FileNotFoundError:
                pass
print(json.dumps("done"))
"""


@pytest.mark.fault("F8")
@posix_only
def test_deleting_the_lock_file_does_not_break_exclusion(tmp_path: Path) -> None:
    """Three processes write and keep deleting the sidecar; and a writer that lost its sidecar comes to share the new one."""
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.session("shared")
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda name: run_program(DELETE_AND_APPEND, path, name), "abc")) == ["done"] * 3
    with sessionstore.open(path) as store:
        assert [message.seq for message in store.messages("shared")] == list(range(1, 451))
        assert store.doctor().ok
        lock = path.with_name("a.db-lock")
        lock.unlink()
        # The writer looks for its lock file now and then, and makes it again.
        for _ in range(1_000):
            store.append("shared", "user", "x")
            if lock.exists():
                break
        with Holder(HOLD_THE_LOCK, path), pytest.raises(sessionstore.StoreBusyError):
            sessionstore.open(path, busy_timeout=0.1).append("shared", "user", "x")


@posix_only
def test_interrupting_a_waiting_thread_leaves_its_write_undone(store: sessionstore.SessionStore) -> None:
    """A thread that waits for its turn is interrupted: its write is withdrawn, and the queue goes on."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    store.session("s")
    here = threading.get_ident()
    pending = database_of(store).writer._pending

    def interrupt_when_it_waits() -> None:
        wait_until(lambda: len(pending) == 1)
        signal.pthread_kill(here, signal.SIGINT)

    sender = threading.Thread(target=interrupt_when_it_waits)
    with Gate(store):
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            store.append("s", "user", "interrupted")
    sender.join()
    assert store.messages("s") == []
    assert store.append("s", "user", "next").seq == 1
