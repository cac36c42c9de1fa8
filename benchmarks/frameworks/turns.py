"""A turn through each framework's store, and the reading before it, onto histories of several lengths."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from ..bench import Bench, Item, Row, Target
from ..timing import Side
from .driver import OURS, Driver, Framework

# Ahead of each.
_TARGET = Target(1.0)
_MODULES = ("openai_agents", "langgraph", "google_adk")


def turns(bench: Bench) -> Iterator[Row]:
    """Every framework at every length; each of its own stores beside this one, all in turn."""
    for module in _MODULES:
        framework: Framework = importlib.import_module(f"{__package__}.{module}").FRAMEWORK
        for length in (0, bench.scale.whole, bench.scale.long):
            with _drivers(bench, framework, length) as (runner, drivers):
                written = bench.writes({name: _awaited(runner, driver.turn) for name, driver in drivers.items()})
                _require_all(runner, drivers, length)
                read = bench.reads({name: _awaited(runner, lambda _, one=driver: one.newest()) for name, driver in drivers.items()})
            for name in drivers:
                if name != OURS:
                    beside = f"{length:,}, beside {name}"
                    yield Row(f"{framework.name}: {framework.turn} {beside}", "ms", written[name], written[OURS], _TARGET)
                    if length:
                        yield Row(f"{framework.name}: {framework.reading} {beside}", "ms", read[name], read[OURS], _TARGET)


@contextmanager
def _drivers(bench: Bench, framework: Framework, length: int) -> Iterator[tuple[asyncio.Runner, dict[str, Driver]]]:
    with bench.place() as place, asyncio.Runner() as runner:
        stack = AsyncExitStack()
        drivers = {name: make() for name, make in framework.drivers.items()}
        try:
            for name, driver in drivers.items():
                runner.run(driver.open(place / f"{name}.db", length, stack))
            yield runner, drivers
        finally:
            runner.run(stack.aclose())


def _awaited(runner: asyncio.Runner, call: Callable[[int], Awaitable[object]]) -> Side:
    """A side that awaits one call again and again, within the loop, so that entering it is not measured."""
    made = 0

    async def laps(count: int) -> list[float]:
        taken = []
        for number in range(made, made + count):
            started = time.perf_counter()
            await call(number)
            taken.append(time.perf_counter() - started)
        return taken

    def side(count: int) -> list[float]:
        nonlocal made
        taken = runner.run(laps(count))
        made += count
        return taken

    return side


def _require_all(runner: asyncio.Runner, drivers: dict[str, Driver], length: int) -> None:
    for name, driver in drivers.items():
        found = runner.run(driver.newest())
        wanted = length if driver.recent is None else min(length, driver.recent)
        if found < wanted:
            raise AssertionError(f"{name} gave {found} messages of {wanted}")


ITEMS = (
    Item(
        "frameworks",
        "the framework's own SQLite store, as it comes; all sync each commit (FULL), the kit's without write-ahead log.",
        turns,
        usual=False,
    ),
)
