"""The process of a side: it opens a driver's file and does what the benchmark's process says, one line of JSON a command.

Its own imports are the standard library's, so that any environment can run it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from .. import texts
from . import driver, settings
from .driver import Messages, done

_LONGEST_REASON = 80


class Obedient:
    """A driver and what is done with it. Public methods are the commands."""

    def __init__(self, name: str, sync: str, runner: asyncio.Runner) -> None:
        self._kind = driver.load(name)
        self._sync = sync
        self._runner = runner
        self._seen, self._stop_observing = settings.observe()
        self._driver: Any = None
        self._number = 0

    def open(self, path: str) -> None:
        """Open a file."""
        self._driver = self._kind(path, self._sync)
        self._done(self._driver.open())

    def close(self) -> None:
        """Close the file."""
        if self._driver is not None:
            closing, self._driver = self._driver, None
            self._done(closing.close())

    def fill(self, session_ids: list[str], length: int) -> None:
        """Make sessions of so many messages."""
        messages = texts.history(length)
        for session_id in session_ids:
            self._done(self._driver.fill(session_id, messages) if length else self._driver.new(session_id))

    def fill_list(self, count: int) -> None:
        """Make so many sessions."""
        self._done(self._driver.fill_list(count))

    def resume(self, session_ids: list[str], length: int) -> None:
        """Get ready to go on with sessions of the file."""
        messages = texts.history(length)
        for session_id in session_ids:
            self._done(self._driver.resume(session_id, messages))

    def turns(self, session_ids: list[str], count: int, seconds: float) -> list[float]:
        """Turns in these sessions, one after the other; without any, each in a new session."""
        prepared = []
        for _ in range(count):
            number = self._next()
            session_id = session_ids[number % len(session_ids)] if session_ids else f"new-{number}"
            if not session_ids:
                self._done(self._driver.new(session_id))
            prepared.append((number, session_id))
        one_by_one = ((session_id, self._driver.ready(session_id, texts.turn(number))) for number, session_id in prepared)
        return self._laps(self._driver.turn, one_by_one, seconds)

    def newest(self, session_id: str, wanted: int, count: int, seconds: float) -> list[float]:
        """Read the newest messages."""
        self._require(wanted, self._done(self._driver.newest(session_id, wanted)))
        return self._laps(self._driver.newest, ((session_id, wanted) for _ in range(count)), seconds)

    def whole(self, session_id: str, wanted: int, count: int, seconds: float) -> list[float]:
        """Read all messages of a session."""
        self._require(wanted, self._done(self._driver.whole(session_id)))
        return self._laps(self._driver.whole, ((session_id,) for _ in range(count)), seconds)

    def listed(self, wanted: int, count: int, seconds: float) -> list[float]:
        """Read what is known of all sessions."""
        laps = self._laps(self._driver.listed, (() for _ in range(count)), seconds)
        self._require(wanted, self._done(self._driver.listed()))
        return laps

    def saves(self, session_ids: list[str]) -> tuple[float, dict[str, int]]:
        """A turn in each of these sessions, all at once: the seconds until the last one is done, and what failed."""
        prepared = [(session_id, self._driver.ready(session_id, texts.turn(self._next()))) for session_id in session_ids]
        failed: Counter[str] = Counter()
        if inspect.iscoroutinefunction(self._driver.turn):
            return self._runner.run(_by_tasks(self._driver.turn, prepared, failed)), failed
        return _by_threads(self._driver.turn, prepared, failed), failed

    def work(self, session_id: str, turns: int, seconds: float) -> dict[str, Any]:
        """Turns in one session, as one of several processes; those that fail are counted, and the time is limited."""
        number = texts.CHARS * os.getpid()
        failed: Counter[str] = Counter()
        made, worst, began = 0, 0.0, time.time()
        while made < turns and time.time() < began + seconds:
            prepared = self._driver.ready(session_id, texts.turn(number + made))
            started = time.perf_counter()
            try:
                self._done(self._driver.turn(session_id, prepared))
            except Exception as error:
                failed[_reason(error)] += 1
            worst = max(worst, time.perf_counter() - started)
            made += 1
        return {"began": began, "ended": time.time(), "saved": made - failed.total(), "failed": failed, "worst": worst}

    def stored(self, session_ids: list[str]) -> int:
        """How many messages are in the file."""
        return int(self._done(self._driver.stored(session_ids)))

    def put(self, count: int, seconds: float) -> list[float]:
        """Enqueue items, one after the other."""
        return self._laps(self._driver.put, ((_item(self._next()),) for _ in range(count)), seconds)

    def put_many(self, size: int, count: int, seconds: float) -> list[float]:
        """Enqueue items, so many at a time; one after the other if there is no other way."""
        batches = (([_item(self._next()) for _ in range(size)],) for _ in range(count))
        return self._laps(getattr(self._driver, "put_many", self._put_each), batches, seconds)

    def take(self, count: int, seconds: float) -> list[float]:
        """Dequeue and acknowledge items, one after the other; as many are put before."""
        self._put_each([_item(self._next()) for _ in range(count)])
        return self._laps(self._required(self._driver.take), (() for _ in range(count)), seconds)

    def take_many(self, size: int, count: int, seconds: float) -> list[float]:
        """Dequeue and acknowledge items, so many at a time, or one after the other."""
        self.put_many(size, count, 1e9)
        batches = ((size,) for _ in range(count))
        return self._laps(self._required(getattr(self._driver, "take_many", self._take_each)), batches, seconds)

    def settings(self) -> list[tuple[str, str]]:
        """Which sync settings and journal modes were observed since this was asked."""
        seen = sorted(set(self._seen.values()))
        self._seen.clear()
        return seen

    def stop_observing(self) -> None:
        """Observe no connection that is made from now on."""
        self._stop_observing()

    def _put_each(self, items: Sequence[str]) -> None:
        for item in items:
            self._done(self._driver.put(item))

    def _take_each(self, count: int) -> bool:
        return all(self._done(self._driver.take()) not in (None, False) for _ in range(count))

    def _required(self, take: Callable[..., Any]) -> Callable[..., None]:
        def checked(*arguments: int) -> None:
            if self._done(take(*arguments)) in (None, False):
                raise AssertionError("the queue was empty")

        return checked

    def _require(self, wanted: int, found: int) -> None:
        if found < wanted:
            raise AssertionError(f"read {found} of {wanted}")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _done(self, result: Any) -> Any:
        return self._runner.run(done(result)) if isinstance(result, Awaitable) else result

    def _laps(self, call: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], seconds: float) -> list[float]:
        """The seconds of calls with these arguments, at least one, until the time is over."""
        if inspect.iscoroutinefunction(call):
            return self._runner.run(_awaited_laps(call, arguments, seconds))
        laps: list[float] = []
        end = time.perf_counter() + seconds
        for each in arguments:
            started = time.perf_counter()
            call(*each)
            now = time.perf_counter()
            laps.append(now - started)
            if now > end:
                break
        return laps


async def _awaited_laps(call: Callable[..., Any], arguments: Iterator[tuple[Any, ...]], seconds: float) -> list[float]:
    laps: list[float] = []
    end = time.perf_counter() + seconds
    for each in arguments:
        started = time.perf_counter()
        await call(*each)
        now = time.perf_counter()
        laps.append(now - started)
        if now > end:
            break
    return laps


async def _by_tasks(turn: Callable[..., Any], prepared: list[tuple[str, Messages]], failed: Counter[str]) -> float:
    async def save(session_id: str, ready: Any) -> None:
        try:
            await turn(session_id, ready)
        except Exception as error:
            failed[_reason(error)] += 1

    started = time.perf_counter()
    await asyncio.gather(*(save(*each) for each in prepared))
    return time.perf_counter() - started


def _by_threads(turn: Callable[..., Any], prepared: list[tuple[str, Messages]], failed: Counter[str]) -> float:
    start = threading.Barrier(len(prepared) + 1)
    lock = threading.Lock()

    def save(session_id: str, ready: Any) -> None:
        start.wait()
        try:
            turn(session_id, ready)
        except Exception as error:
            with lock:
                failed[_reason(error)] += 1

    threads = [threading.Thread(target=save, args=each) for each in prepared]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _item(number: int) -> str:
    return json.dumps({"role": "user", "content": [{"type": "text", "text": texts.text(number)}]})


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_REASON]


def main() -> None:
    """Obey until there are no more commands: the driver, the sync setting, the one to force."""
    name, sync, forced = sys.argv[1:]
    # What peers print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if forced:
        settings.force(forced)
    with asyncio.Runner() as runner:
        side: Obedient | None = None
        for line in sys.stdin:
            command = json.loads(line)
            try:
                side = side or Obedient(name, sync, runner)
                answer = {"answer": getattr(side, command.pop("do"))(**command)}
            except Exception as error:
                traceback.print_exc()
                answer = {"error": _reason(error)}
            print(json.dumps(answer), file=answers, flush=True)
        if side is not None:
            side.close()


if __name__ == "__main__":
    main()
