"""Taking turns with a clock: sides that alternate within rounds, percentiles, medians over rounds, spread."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# A round of slow calls ends early, after whole blocks, so that one slow item cannot take the whole run.
_ROUND_SECONDS = 1.0
# Fewer calls than this have no 95th percentile.
_FEWEST_FOR_P95 = 20

# Does so many calls and returns the seconds that each took.
Side = Callable[[int], list[float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one side took: a value for each round, and the 95th percentile where a round has many calls."""

    values: tuple[float, ...]
    p95: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.values)

    def times(self, factor: float) -> Figure:
        """In another unit."""
        return Figure(tuple(value * factor for value in self.values), tuple(value * factor for value in self.p95))

    def over(self, other: Figure) -> Figure:
        """The quotients of the rounds."""
        return Figure(tuple(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)))


def interleave(
    sides: Mapping[str, Side],
    *,
    rounds: int,
    calls: int,
    block: int,
    seconds: float = _ROUND_SECONDS,
    mixed: random.Random | None = None,
) -> dict[str, Figure]:
    """The median and 95th percentile call of each side in each round, in milliseconds.

    The sides alternate in blocks, and each round begins with another side, so that what else the machine does hits all alike.
    The first round is preceded by one block of each that is not counted. A round ends early after so many seconds; a side may
    itself do fewer calls than it is asked for. With `mixed` the order is drawn anew for each block: where there are many sides,
    one that leaves much to be written to the disk would otherwise always slow the same one, which comes after it.
    """
    names = list(sides)
    for name in names:
        sides[name](min(block, calls))
    medians: dict[str, list[float]] = {name: [] for name in names}
    slow: dict[str, list[float]] = {name: [] for name in names}
    fewest = dict.fromkeys(names, calls)
    for number in range(rounds):
        first = number % len(names)
        laps = _one_round(sides, names[first:] + names[:first], calls=calls, block=block, seconds=seconds, mixed=mixed)
        for name in names:
            fewest[name] = min(fewest[name], len(laps[name]))
            medians[name].append(statistics.median(laps[name]))
            slow[name].append(percentile(laps[name], 0.95))
    many = {name for name in names if fewest[name] >= _FEWEST_FOR_P95}
    return {name: Figure(tuple(medians[name]), tuple(slow[name]) if name in many else ()).times(1e3) for name in names}


def _one_round(
    sides: Mapping[str, Side], order: Sequence[str], *, calls: int, block: int, seconds: float, mixed: random.Random | None
) -> dict[str, list[float]]:
    laps: dict[str, list[float]] = {name: [] for name in order}
    done = 0
    end = time.perf_counter() + seconds
    while done < calls and (done == 0 or time.perf_counter() < end):
        size = min(block, calls - done)
        for name in mixed.sample(order, len(order)) if mixed is not None else order:
            laps[name] += sides[name](size)
        done += size
    return laps


def repeated(call: Callable[[int], object]) -> Side:
    """A side that makes one call again and again; the call is given its number, beginning with 0."""
    made = 0

    def side(count: int) -> list[float]:
        nonlocal made
        laps = []
        for number in range(made, made + count):
            started = time.perf_counter()
            call(number)
            laps.append(time.perf_counter() - started)
        made += count
        return laps

    return side


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
