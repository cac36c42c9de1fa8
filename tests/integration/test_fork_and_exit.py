"""A forked child leaves the parent's connections alone; a program that does not close its stores ends at once and loses nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from trials import Trial

import sessionstore
from sessionstore.database import transaction

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run_program(program: str, *given: object, timeout: float = 60) -> tuple[Any, float]:
    """Run a Python program in a process of its own; the JSON that it printed, and how many seconds it took."""
    command = [sys.executable, "-W", "error", "-c", program, *map(str, given)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout or "null"), time.monotonic() - started


def texts_in(path: Path, session_id: str = "s") -> list[str | None]:
    """What the file holds, and that it is sound."""
    with sessionstore.open(path) as store:
        assert store.doctor().ok
        return [message.text for message in store.messages(session_id)]


# Each call of the public surface, as in the test of finding 2; the child gives back the name of the error of each.
USE_IN_CHILD = """
import asyncio, json, os, sys
sys.path.insert(0, sys.argv[2])
import left_alone
import sessionstore

path = sys.argv[1]
store = sessionstore.open(path)
chat = store.session("s")
chat.append("user", "before")
shared = sessionstore.AsyncSessionStore(store)

def outcome(call):
    try:
        call()
    except sessionstore.SessionStoreError as error:
        return type(error).__name__
    return "nothing"

reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    found = {name: outcome(lambda: call(store)) for name, call in left_alone.CALLS.items()}
    found["handle"] = outcome(lambda: chat.append("user", "child"))
    found["async read"] = outcome(lambda: asyncio.run(shared.messages("s")))
    found["async write"] = outcome(lambda: asyncio.run(shared.append("s", "user", "child")))
    store.close()
    with sessionstore.open(path) as own:
        found["own store"] = own.append("s", "user", "from the child").text
    os.write(writing, json.dumps(found).encode())
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as pipe:
    found = json.loads(pipe.read())
os.waitpid(pid, 0)
chat.append("user", "after")
found["parent"] = [message.text for message in chat.messages()]
store.close()
print(json.dumps(found))
"""


@pytest.mark.fault("F10")
def test_every_call_in_a_forked_child_is_refused_and_a_new_store_works_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    found, _ = run_program(USE_IN_CHILD, path, Path(__file__).parents[1] / "faults")
    assert found.pop("own store") == "from the child"
    assert found.pop("parent") == ["before", "from the child", "after"]
    needs_no_file = {"namespace", "settings", "track", "close"}
    assert {name for name, error in found.items() if error != "ForkedStoreError"} == needs_no_file
    assert texts_in(path) == ["before", "from the child", "after"]


# The child ends as programs end, with all its finalisers; its copies of the connections must not touch the parent's files.
END_CHILD = """
import gc, json, os, sys
import sessionstore

path, way = sys.argv[1:]
store = sessionstore.open(path)
chat = store.session("s")
chat.append("user", "in the log")
chat.messages()
gate, opener = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(gate, 1)
    if way == "close":
        store.close()
    if way == "drop":
        del store, chat
        gc.collect()
    if way == "raise":
        sys.stderr = open(os.devnull, "w")
        raise RuntimeError
    sys.exit(0)
chat.append("user", "meanwhile")
log = os.stat(path + "-wal")
os.write(opener, b".")
os.waitpid(pid, 0)
after = os.stat(path + "-wal")
same_log = (log.st_ino, log.st_size) == (after.st_ino, after.st_size)
chat.append("user", "after")
print(json.dumps(same_log), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.fault("F10")
@pytest.mark.parametrize("way", ["exit", "close", "drop", "raise"])
def test_a_child_that_ends_leaves_the_parents_log_alone(tmp_path: Path, way: str) -> None:
    """The log is neither copied nor removed, and the parent's next write survives the parent's kill -9."""
    path = tmp_path / "a.db"
    done = subprocess.run([sys.executable, "-c", END_CHILD, path, way], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    assert json.loads(done.stdout) is True
    assert texts_in(path) == ["in the log", "meanwhile", "after"]


MULTIPROCESSING = """
import json, multiprocessing, sys
import sessionstore

path = sys.argv[1]
store = sessionstore.open(path)
store.session("s").append("user", "before")

def work(number):
    try:
        store.append("s", "user", "refused")
    except sessionstore.ForkedStoreError:
        with sessionstore.open(path) as own:
            return own.append("s", "user", f"worker {number}").seq

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        seqs = pool.map(work, range(12))
    print(json.dumps([sorted(seqs), store.append("s", "user", "after").seq]))
"""


@pytest.mark.fault("F10")
def test_workers_of_multiprocessing_open_their_own_stores(tmp_path: Path) -> None:
    found, _ = run_program(MULTIPROCESSING, tmp_path / "a.db")
    assert found == [list(range(2, 14)), 14]
    assert texts_in(tmp_path / "a.db")[-1] == "after"


# Python 3.12 warns of any fork in a program with threads; that such a fork is survived is what is tested here.
FORK_WHILE_THREADS_WRITE = """
import json, os, random, sys, threading, time, warnings
import sessionstore

warnings.simplefilter("ignore", DeprecationWarning)
path = sys.argv[1]
store = sessionstore.open(path, durability="normal")
store.session("children")
chance = random.Random(int(sys.argv[2]))
stop = threading.Event()
acked = {}

errors = []

def write(name):
    acked[name] = 0
    try:
        store.session(name)
        while not stop.is_set():
            store.append(name, "user", str(acked[name]))
            acked[name] += 1
            store.messages(name, last=2)
    except sessionstore.SessionStoreError as error:
        errors.append(repr(error))

threads = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(4)]
for thread in threads:
    thread.start()
failed = 0
for number in range(int(sys.argv[3])):
    time.sleep(chance.uniform(0, 0.01))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.get("s0")
        except sessionstore.ForkedStoreError:
            with sessionstore.open(path) as own:
                status = own.append("children", "user", "x").seq < 1
        finally:
            os._exit(status)
    failed += os.waitpid(pid, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join()
lost = {name: len(store.messages(name)) for name in acked} != acked
children = len(store.messages("children"))
print(json.dumps({"errors": errors, "failed": failed, "lost": lost, "children": children, "ok": store.doctor().ok}))
"""


@pytest.mark.fault("F10")
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_writer_that_connects_again_waits_for_a_program_that_is_opening_or_closing_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Literal["full", "normal"]
) -> None:
    """As after a fork: the child may be the only one that has it open, and SQLite then locks the whole file for a moment."""
    path = tmp_path / "a.db"
    with sessionstore.open(path, durability=durability) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store.session("s")
        assert store._database.pause(timeout=5)
        other.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()
        other.execute("BEGIN IMMEDIATE")
        store._database.resume()
        waits = []

        def pause() -> None:
            waits.append(1)
            other.close()

        monkeypatch.setattr(transaction, "pause", pause)
        assert store.append("s", "user", "x").seq == 1
        assert waits == [1]


@pytest.mark.fault("F10")
def test_forks_in_the_middle_of_writes_hurt_neither_side(tmp_path: Path, trial: Trial) -> None:
    forks = trial.size(push=20, nightly=100, release=100)
    found, _ = run_program(FORK_WHILE_THREADS_WRITE, tmp_path / "a.db", trial.seed, forks)
    assert found == {"errors": [], "failed": 0, "lost": False, "children": forks, "ok": True}
    trial.report(f"{forks} forks in the middle of writes: 0 corrupt, 0 lost on either side")


CHILD_OUTLIVES_THE_PARENTS_STORE = """
import os, sys, sessionstore

path, way = sys.argv[1:]
store = sessionstore.open(path)
store.session("s").append("user", "parent")
store.messages("s")
hear, say = os.pipe()
gate, opener = os.pipe()
pid = os.fork()
if pid == 0:
    own = sessionstore.open(path)
    own.append("s", "user", "child before")
    os.write(say, b".")
    os.read(gate, 1)
    own.append("s", "user", "child after")
    os.write(say, b".")
    os.read(gate, 1)
os.read(hear, 1)
if way == "close":
    store.close()
else:
    other = "import sys, sessionstore; sessionstore.open(sys.argv[1]).append('s', 'user', 'stranger')"
    if os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", other, path]):
        sys.exit(2)
os.write(opener, b".")
os.read(hear, 1)
os.kill(pid, 9)
os.waitpid(pid, 0)
os.kill(os.getpid(), 9)
"""


@pytest.mark.fault("F10")
@pytest.mark.parametrize("way", ["close", "stranger"])
def test_what_a_child_writes_to_its_own_store_is_not_lost(tmp_path: Path, way: str) -> None:
    """SQLite remembers locks of the parent's that a child does not have; a store opened in the child must not believe in them.

    The parent, or a stranger, closes the file while the child has its own store open; then the child writes and is killed.
    """
    path = tmp_path / "a.db"
    done = subprocess.run([sys.executable, "-c", CHILD_OUTLIVES_THE_PARENTS_STORE, path, way], timeout=60, check=False)
    assert done.returncode == -9
    between = ["stranger"] if way == "stranger" else []
    assert texts_in(path) == ["parent", "child before", *between, "child after"]


EXIT_WITHOUT_CLOSE = {
    "sync": """
import sys, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "kept")
""",
    "async": """
import asyncio, sys, sessionstore
async def main():
    store = await sessionstore.aopen(sys.argv[1])
    await (await store.session("s")).append("user", "kept")
asyncio.run(main())
""",
    "trio": """
import sys, trio, sessionstore
async def main():
    store = await sessionstore.aopen(sys.argv[1])
    await (await store.session("s")).append("user", "kept")
    await store.messages("s")
trio.run(main)
""",
    "threads": """
import sys, threading, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "kept")
store.session("busy")
ready = threading.Barrier(5)
def write():
    first = True
    while True:
        try:
            store.append("busy", "user", "x")
        except sessionstore.ClosedStoreError:
            return
        if first:
            first = False
            ready.wait()
for _ in range(4):
    threading.Thread(target=write, daemon=True).start()
ready.wait()
""",
    "cycle": """
import sys, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "kept")
store.itself = [store]
del store
""",
    "error": """
import sys, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "kept")
sys.exit(0)
""",
}


@pytest.mark.fault("F6")
@pytest.mark.parametrize("way", EXIT_WITHOUT_CLOSE)
def test_a_program_that_does_not_close_ends_soon_and_loses_nothing(tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.db"
    _, seconds = run_program(EXIT_WITHOUT_CLOSE[way], path, timeout=30)
    assert seconds < 10
    assert texts_in(path) == ["kept"]


@pytest.mark.fault("F6")
def test_a_store_that_is_left_open_is_closed_at_exit(tmp_path: Path) -> None:
    """The log is copied into the file and removed, so that the file alone is the whole store."""
    path = tmp_path / "a.db"
    run_program(EXIT_WITHOUT_CLOSE["sync"], path)
    assert not path.with_name("a.db-wal").exists()
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT text FROM messages").fetchall() == [("kept",)]


EXIT_WHILE_ANOTHER_HOLDS_THE_LOCK = """
import fcntl, os, subprocess, sys, sessionstore
store = sessionstore.open(sys.argv[1])
store.session("s").append("user", "kept")
lock = os.open(sys.argv[1] + "-lock", os.O_RDWR)
holder = "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
command = [sys.executable, "-c", holder, str(lock)]
process = subprocess.Popen(command, pass_fds=[lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdout.readline()
"""


@pytest.mark.fault("F6")
def test_the_end_of_a_program_does_not_wait_long_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    command = [sys.executable, "-W", "ignore", "-c", EXIT_WHILE_ANOTHER_HOLDS_THE_LOCK, str(path)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, timeout=15, check=False)
    assert done.returncode == 0
    assert texts_in(path) == ["kept"]
