"""A task that waits for a thread: cancelled it waits on, closed it leaves at once, and what is not wanted any more is undone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest
import trio

from sessionstore.waiting import Arrival, in_thread

pytestmark = pytest.mark.anyio


async def test_a_cancelled_wait_ends_after_the_call_and_its_undoing() -> None:
    go_on, done = threading.Event(), list[str]()

    def call() -> str:
        assert go_on.wait(20)
        done.append("made")
        return "it"

    with anyio.CancelScope() as scope:
        scope.cancel()
        threading.Timer(0.02, go_on.set).start()
        await in_thread(call, undo=lambda made: done.append(f"undid {made}"))
    assert done == ["made", "undid it"]


# trio does not let anybody but itself drive a coroutine.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_closed_wait_ends_at_once_and_what_comes_of_it_is_undone(fails: bool) -> None:
    go_on, undone = threading.Event(), threading.Event()

    def call() -> str:
        assert go_on.wait(20)
        if fails:
            raise OSError
        return "it"

    before = set(threading.enumerate())
    waiting = in_thread(call, undo=lambda _: undone.set())
    waiting.send(None)
    waiting.close()
    assert not undone.is_set()
    begun = set(threading.enumerate()) - before
    go_on.set()
    for thread in begun:
        await anyio.to_thread.run_sync(thread.join)
    assert undone.is_set() == (not fails)


# A signal interrupts the main thread, which may be waking a loop of asyncio in another one.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_interrupt_while_a_task_is_woken_keeps_no_later_one_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    first, second = Arrival(), Arrival()
    door = first._door
    monkeypatch.setattr(door, "_call_soon", stop)
    with pytest.raises(KeyboardInterrupt):
        first.set()
    monkeypatch.undo()
    second.set()
    with anyio.fail_after(20):
        await second.wait()
        await first.wait()


def test_a_loop_and_its_guest_in_one_thread_are_each_woken_by_their_own_way() -> None:
    """trio as a guest of asyncio: both run in one thread, and both wait in turns."""
    made: list[str] = []

    async def wait(name: str) -> str:
        for number in range(5):
            made.append(await in_thread(lambda number=number: f"{name} {number}"))
        return name

    async def both() -> list[str]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            wait, "trio", run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=ended.set_result
        )
        return [await wait("asyncio"), (await ended).unwrap()]

    assert asyncio.run(both()) == ["asyncio", "trio"]
    assert sorted(made) == [f"{name} {number}" for name in ("asyncio", "trio") for number in range(5)]


def test_the_next_loop_of_a_thread_is_woken_too() -> None:
    async def wait() -> str:
        return await in_thread(lambda: "it")

    assert [anyio.run(wait, backend=backend) for backend in ("asyncio", "asyncio", "trio", "trio", "asyncio")] == ["it"] * 5
