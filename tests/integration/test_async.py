"""The asynchronous face: the same names as the synchronous one, on asyncio and trio, from many loops, and safe to cancel."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import queue
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessionstore
from sessionstore import queries
from sessionstore.database import locks
from sessionstore.remote.settlement import Settlement

pytestmark = pytest.mark.anyio


async def test_the_example_program_works(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "agent.db") as store:
        chat = await store.session("user-alice", agent_id="helper")
        await chat.append("user", "And of Italy?")
        answer = await chat.append("assistant", "Rome.", model="m-1", input_tokens=12, output_tokens=3, response_time_ms=420)
        assert (answer.seq, answer.model) == (2, "m-1")
        assert [message.text async for message in chat.iterate(page_size=1)] == ["And of Italy?", "Rome."]
        assert [message.to_dict() for message in await chat.messages(last=1)] == [{"role": "assistant", "content": "Rome."}]
    with sessionstore.open(tmp_path / "agent.db") as same:
        assert [message.text for message in same.messages("user-alice")] == ["And of Italy?", "Rome."]


async def test_an_opening_can_be_awaited_and_closed(tmp_path: Path) -> None:
    store = await sessionstore.aopen(tmp_path / "a.db")
    await store.session("s")
    await store.close()
    await store.aclose()
    with pytest.raises(sessionstore.ClosedStoreError):
        await store.append("s", "user", "x")
    with pytest.raises(sessionstore.ClosedStoreError):
        await store.messages("s")


async def test_errors_are_those_of_the_synchronous_face(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        with pytest.raises(sessionstore.NotFoundError):
            await store.append("absent", "user", "x")
        with pytest.raises(sessionstore.InvalidInputError):
            await store.session("")
        await store.create("s")
        with pytest.raises(sessionstore.ConflictError):
            await store.create("s")
    with pytest.raises(sessionstore.NotADatabaseError):
        await sessionstore.aopen(tmp_path / "absent.db", must_exist=True)


async def test_many_tasks_share_commits_and_lose_nothing(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        chat = await store.session("s")
        before = await store.status()
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(chat.append, "user", str(number))
        after = await store.status()
        messages = await chat.messages()
    assert after.writes - before.writes == 200
    assert after.commits - before.commits < 100
    assert [message.seq for message in messages] == list(range(1, 201))
    assert {message.text for message in messages} == {str(number) for number in range(200)}


def test_several_loops_in_several_threads_use_one_store(tmp_path: Path) -> None:
    """asyncio in three threads and trio in three others, on one AsyncSessionStore."""
    store = sessionstore.AsyncSessionStore(sessionstore.open(tmp_path / "a.db"))
    errors: list[BaseException] = []

    async def work(name: str) -> None:
        chat = await store.session("shared")
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(chat.append, "user", f"{name} {number}")
        assert len([message for message in await chat.messages() if (message.text or "").startswith(name)]) == 20

    def run(name: str, backend: str) -> None:
        try:
            anyio.run(work, name, backend=backend)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f"{backend}{n}", backend)) for backend in ("asyncio", "trio") for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []

    async def look_and_close() -> list[int]:
        async with store:
            return [message.seq for message in await store.messages("shared")]

    assert anyio.run(look_and_close) == list(range(1, 121))


async def settled(store: sessionstore.AsyncSessionStore, names: set[str]) -> set[str]:
    """Which of the named messages are stored; asked twice, with other work between, so that a late write would show."""
    first = {message.text or "" for message in await store.messages("s")} & names
    await store.append("s", "user", "marker")
    await anyio.sleep(0.002)
    second = {message.text or "" for message in await store.messages("s")} & names
    assert first == second, "a cancelled write came later"
    return second


@pytest.mark.fault("F11")
async def test_a_cancelled_write_is_there_or_never_comes(tmp_path: Path) -> None:
    """At random moments of a write that waits among others. The next call always works."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    outcomes = []
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        await store.session("s")
        longest = 0.003
        for number in range(600):
            if number >= 60 and {(False, False), (True, True)} <= set(outcomes):
                break
            name = f"message {number}"
            done = []
            async with anyio.create_task_group() as others:
                for _ in range(chance.randrange(4)):
                    others.start_soon(store.append, "s", "user", "other")
                with anyio.move_on_after(chance.uniform(0, longest)):
                    await store.append("s", "user", name)
                    done.append(name)
            there = await settled(store, {name})
            assert there >= set(done), "an acknowledged write is not there"
            outcomes.append((bool(done), bool(there)))
            # How long a write takes depends on the machine's load: the moments of the cancellations follow it, both ways.
            longest *= 0.8 if done else 0.95 if there else 1.25
        messages = await store.messages("s")
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert (await store.doctor()).ok
    print({outcome: outcomes.count(outcome) for outcome in set(outcomes)})
    assert (False, False) in outcomes
    assert (True, True) in outcomes


@pytest.mark.fault("F11", "F7")
@pytest.mark.parametrize("is_full_for_good", [False, True])
async def test_a_cancelled_settlement_that_meets_a_full_disk_is_done_again_before_the_cancellation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_full_for_good: bool
) -> None:
    """What was answered would else be sent again."""
    tries: list[int] = []

    def settle(*_: object) -> int:
        tries.append(len(tries))
        if is_full_for_good or len(tries) == 1:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        return 1

    monkeypatch.setattr(queries.deliveries, "settle", settle)
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store._settle(Settlement(token="t", sent_before=0, over=True))
        assert scope.cancelled_caught
        assert len(tries) > 1
        await store.session("s")


@pytest.mark.fault("F11")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_write_cancelled_by_asyncio_is_there_or_never_comes(tmp_path: Path) -> None:
    """`Task.cancel()`, once or several times: asyncio's own cancellation passes through shields."""
    chance = random.Random(5)
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        await store.session("s")
        for number in range(60):
            name = f"message {number}"
            task = asyncio.create_task(store.append("s", "user", name))
            for _ in range(chance.randint(1, 3)):
                await asyncio.sleep(chance.uniform(0, 0.001))
                task.cancel()
            acked = False
            try:
                await task
                acked = True
            except asyncio.CancelledError:
                pass
            there = await settled(store, {name})
            assert not acked or there == {name}
        assert (await store.doctor()).ok


@pytest.mark.fault("F11")
async def test_every_call_can_be_cancelled_and_the_next_one_works(tmp_path: Path) -> None:
    """Reads, writes, a get-or-create, an iteration and an opening, each cancelled before its first wait and after it."""
    path = tmp_path / "a.db"

    async def iterate(store: sessionstore.AsyncSessionStore) -> None:
        async with aclosing(store.iterate("s", page_size=1)) as messages:
            async for _ in messages:
                await anyio.lowlevel.checkpoint()

    calls: list[Callable[[sessionstore.AsyncSessionStore], Any]] = [
        lambda store: store.messages("s"),
        lambda store: store.session("new"),
        lambda store: store.append_many("s", [{"role": "user", "content": "x"}] * 3),
        lambda store: store.list(),
        lambda store: store.status(),
        lambda store: store.update("s", title="t"),
        iterate,
    ]
    async with sessionstore.aopen(path) as store:
        await store.session("s")
        for call, delay in itertools.product(calls, (-1.0, 0.0, 0.0003, 0.001)):
            with anyio.move_on_after(max(delay, 0)) as scope:
                if delay < 0:
                    scope.cancel()
                await call(store)
            assert (await store.append("s", "user", "next")).seq > 0
        assert (await store.doctor()).ok
    for delay in (0.0, 0.001, 0.004):
        with anyio.move_on_after(delay):
            async with sessionstore.aopen(path) as store:
                await store.count()
    async with sessionstore.aopen(path) as store:
        assert await store.count() >= 1


@pytest.mark.fault("F11")
async def test_a_withdrawn_write_leaves_no_trace(tmp_path: Path) -> None:
    """Cancelled while it waits behind another one that has not begun to commit."""
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        await store.session("s")
        entered, leave = threading.Event(), threading.Event()

        def hold(db: Any) -> None:
            entered.set()
            assert leave.wait(60)

        holder = threading.Thread(target=store._store._write, args=(hold,))
        holder.start()
        assert entered.wait(60)
        with anyio.move_on_after(0.05) as scope:
            await store.append("s", "user", "withdrawn")
        assert scope.cancelled_caught
        leave.set()
        holder.join()
        assert (await store.append("s", "user", "next")).seq == 1
        assert [message.text for message in await store.messages("s")] == ["next"]


@pytest.mark.fault("F11")
async def test_a_task_is_told_of_its_write_by_a_thread_that_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread commits for itself and for a task, and is interrupted before it has told the task."""
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        store._store.session("s").append("user", "first")
        writer, kinds = store._database.writer, list[type[BaseException]]()

        def unlock_and_stop(file: Any) -> None:
            unlock(file)
            if not writer._pending:
                monkeypatch.setattr(locks, "_unlock", unlock)
                raise KeyboardInterrupt

        def lead() -> None:
            try:
                store._store.append("s", "user", "the leader's")
            except BaseException as error:
                kinds.append(type(error))

        unlock = locks._unlock
        with monkeypatch.context() as patched:
            # There is no thread that would commit for tasks.
            patched.setattr(writer, "_thread", threading.current_thread())
            patched.setattr(writer, "_wake", queue.SimpleQueue())
            async with anyio.create_task_group() as group:
                group.start_soon(store.append, "s", "user", "the task's")
                await anyio.wait_all_tasks_blocked()
                assert len(writer._pending) == 1
                monkeypatch.setattr(locks, "_unlock", unlock_and_stop)
                leader = threading.Thread(target=lead)
                leader.start()
        leader.join()
        assert kinds == [KeyboardInterrupt]
        assert [message.text for message in await store.messages("s")] == ["first", "the task's", "the leader's"]


async def test_a_loop_that_ends_before_its_write_hurts_nobody(tmp_path: Path) -> None:
    """The writer wakes a task whose loop is gone; the store goes on."""
    store = sessionstore.AsyncSessionStore(sessionstore.open(tmp_path / "a.db"))

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        coroutine = store.session("s")
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False
        loop.close()
        coroutine.close()

    thread = threading.Thread(target=abandon)
    thread.start()
    thread.join()
    async with store:
        await store.session("t")
        assert (await store.append("t", "user", "x")).seq == 1


HOLD_THE_LOCK = """
import fcntl, os, sys
lock = os.open(sys.argv[1] + "-lock", os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
async def test_the_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    """A ticking task is never held up, reads answer, and the write ends when the lock is free or with StoreBusyError."""
    path = tmp_path / "a.db"
    async with sessionstore.aopen(path, busy_timeout=0.5) as store:
        await store.session("s")
        command = [sys.executable, "-c", HOLD_THE_LOCK, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: ASYNC220 - it is short
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == b"held\n"
            ticks = 0
            async with anyio.create_task_group() as group:

                async def tick() -> None:
                    nonlocal ticks
                    while True:
                        ticks += 1
                        await anyio.sleep(0.01)

                group.start_soon(tick)
                with pytest.raises(sessionstore.StoreBusyError):
                    await store.append("s", "user", "refused")
                assert await store.messages("s") == []
                group.cancel_scope.cancel()
            holder.stdin.close()
        assert ticks > 10
        assert (await store.append("s", "user", "x")).seq == 1


NEVER_CLOSES = """
import {backend}, sys, sessionstore

async def main():
    store = await sessionstore.aopen(sys.argv[1])
    chat = await store.session("s")
    await chat.append("user", "kept")
    await chat.messages()
    await store.status()

{backend}.run({call})
"""


@pytest.mark.parametrize(("backend", "call"), [("asyncio", "main()"), ("trio", "main")])
def test_no_thread_of_the_store_keeps_a_program_alive(tmp_path: Path, backend: str, call: str) -> None:
    program = NEVER_CLOSES.format(backend=backend, call=call)
    started = time.monotonic()
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path / "a.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started < 10
    with sessionstore.open(tmp_path / "a.db") as store:
        assert [message.text for message in store.messages("s")] == ["kept"]


async def test_a_closed_store_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        await store.session("s")
        await store.messages("s")
        mine = {thread for thread in threading.enumerate() if thread.name.startswith("sessionstore")} - before
        assert mine
        assert all(thread.daemon for thread in mine)
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


def public_names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


SAME_FACES = [
    pytest.param(sessionstore.SessionStore, sessionstore.AsyncSessionStore, {"aclose"}, id="store"),
    pytest.param(sessionstore.SessionHandle, sessionstore.AsyncSessionHandle, set(), id="handle"),
    pytest.param(sessionstore.Outbox, sessionstore.AsyncOutbox, set(), id="outbox"),
]
# What needs neither a file nor a wait stays a plain call.
PLAIN = {
    "as_memory_backend", "background", "in_namespace", "namespace", "outbox", "session_id", "settings", "store", "timer", "track",
}  # fmt: skip


@pytest.mark.parametrize(("plain", "awaited", "extra"), SAME_FACES)
def test_both_faces_have_the_same_names(plain: type, awaited: type, extra: set[str]) -> None:
    assert public_names(awaited) - public_names(plain) == extra
    assert public_names(plain) <= public_names(awaited)


@pytest.mark.parametrize(("plain", "awaited", "extra"), SAME_FACES)
def test_both_faces_have_the_same_signatures(plain: type, awaited: type, extra: set[str]) -> None:
    """Names, kinds, defaults and annotations of the parameters are equal, and the results are but for being awaited."""
    for name in sorted(public_names(plain) - PLAIN):
        first, second = inspect.signature(getattr(plain, name)), inspect.signature(getattr(awaited, name))
        assert first.parameters == second.parameters, name
        returned = str(second.return_annotation).replace("Async", "")
        # `hints` has what is loaded when somebody asks for it.
        assert str(first.return_annotation).replace("hints.", "") == returned.replace("hints.", ""), name


@pytest.mark.parametrize(("plain", "awaited", "extra"), SAME_FACES)
def test_every_call_of_the_asynchronous_face_is_awaited(plain: type, awaited: type, extra: set[str]) -> None:
    for name in sorted(public_names(awaited) - PLAIN):
        call = inspect.unwrap(getattr(awaited, name), stop=inspect.iscoroutinefunction)
        if name == "iterate":
            assert inspect.isasyncgenfunction(inspect.unwrap(call))
        else:
            assert inspect.iscoroutinefunction(call), name


@pytest.mark.parametrize(("plain", "awaited", "extra"), SAME_FACES)
def test_every_call_of_the_asynchronous_face_explains_itself(plain: type, awaited: type, extra: set[str]) -> None:
    """A method without words of its own has those of the synchronous one."""
    for name in sorted(public_names(awaited)):
        assert inspect.getdoc(getattr(awaited, name)), name


def test_the_opening_functions_take_the_same_arguments() -> None:
    first, second = inspect.signature(sessionstore.open), inspect.signature(sessionstore.aopen)
    assert first.parameters == second.parameters
