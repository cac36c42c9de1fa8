"""Many saves at once in one process, by threads and by asyncio tasks: the time until all are on disk."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import sessionstore

from . import texts
from .bench import Bench, Item, Row, Target

_THREADS_MS = Target(35, of="store")
_TASKS_MS = Target(12, of="store")


def saves(bench: Bench) -> Iterator[Row]:
    """One turn in each of many sessions, all at the same time."""
    savers = bench.scale.savers
    ids = [f"session-{number}" for number in range(savers)]
    with bench.both(ids) as (raw, store), bench.place() as place, asyncio.Runner() as runner:
        path = bench.new_file(place, "tasks", ids)
        chats = [store.session(session_id) for session_id in ids]

        async def open_store() -> sessionstore.AsyncSessionStore:
            return await sessionstore.aopen(path)

        async def all_chats() -> list[sessionstore.AsyncSessionHandle]:
            return [await awaited.session(session_id) for session_id in ids]

        awaited = runner.run(open_store())
        awaited_chats = runner.run(all_chats())
        figures = bench.whole(
            {
                "raw": lambda _: [_by_threads(savers, lambda number: raw.append_in_turn(ids[number], texts.turn(number)))],
                "threads": lambda _: [_by_threads(savers, lambda number: chats[number].append_many(texts.turn(number)))],
                "tasks": lambda _: [runner.run(_by_tasks(awaited_chats))],
            }
        )
        runner.run(awaited.close())
    yield Row(f"{savers} concurrent saves by threads, FULL", "ms", figures["raw"], figures["threads"], _THREADS_MS)
    yield Row(f"{savers} concurrent saves by asyncio tasks, FULL", "ms", figures["raw"], figures["tasks"], _TASKS_MS)


def _by_threads(savers: int, save: Callable[[int], object]) -> float:
    """The seconds from the moment when all threads may begin until the last one is done."""
    failures: list[BaseException] = []
    start = threading.Barrier(savers + 1)

    def work(number: int) -> None:
        start.wait()
        try:
            save(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(savers)]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if failures:
        raise failures[0]
    return took


async def _by_tasks(chats: list[sessionstore.AsyncSessionHandle]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*(chat.append_many(texts.turn(number)) for number, chat in enumerate(chats)))
    return time.perf_counter() - started


ITEMS = (Item("concurrent", "threads, one connection behind one lock, a transaction each; for both rows.", saves),)
