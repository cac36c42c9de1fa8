"""A task that waits for a thread: cancelled it waits on, closed it leaves at once, and what is not wanted any more is undone."""

from __future__ import annotations

import threading

import anyio
import pytest

from sessionstore.waiting import in_thread

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
