"""Many seeds, one after another, in a process of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from machine import Bench
from scenario import play


def play_all(bench: Bench, seeds: range) -> None:
    """Play some seeds.

    Raises:
        SeedFailedError: One found something.
    """
    for seed in seeds:
        play(bench, seed)


def played(seeds: range, folder: str) -> Counter[str]:
    """Play some seeds; the sums over them.

    Raises:
        SeedFailedError: One found something.
    """
    Path(folder).mkdir()
    bench = Bench(Path(folder))
    total: Counter[str] = Counter()
    try:
        for seed in seeds:
            told = play(bench, seed)
            total += Counter(seeds=1, events=told.events, steps=told.steps)
            total += told.counts
    finally:
        bench.close()
    return total
