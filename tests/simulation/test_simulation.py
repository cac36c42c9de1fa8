"""F39: two writers and three senders in one thread, on a clock of their own, and every choice from one seed.

`SESSIONSTORE_SEED=n` begins the seeds there; a failure names its own seed, which runs alone by
`python tests/simulation/one_seed.py SEED`, with its whole trace.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import campaign
import pytest
from breaks import BREAKS, Break
from machine import Bench
from scenario import SeedFailedError, play
from trials import Trial

pytestmark = [pytest.mark.fault("F39"), pytest.mark.timeout(3_600)]

PUSH = 20
MOST_FOR_A_BREAK = 200


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"))
    yield made
    made.close()


def test_whatever_befalls_writers_and_senders_nothing_is_lost_or_told_twice_or_out_of_order(trial: Trial, tmp_path: Path) -> None:
    seeds = trial.size(push=PUSH, nightly=2_000, release=10_000)
    workers = 1 if trial.tier == "push" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    begun = time.monotonic()
    total = played_by(workers, trial.seed, seeds, tmp_path)
    seconds = time.monotonic() - begun
    assert total["seeds"] == seeds
    trial.report(
        f"{seeds:,} seeds, 0 violations: {total['events']:,} events, {total['requests']:,} requests, {total['steps']:,} steps",
        seeds=seeds,
        processes=workers,
        seconds=round(seconds, 1),
        what=dict(total),
    )


def played_by(workers: int, first: int, seeds: int, folder: Path) -> Counter[str]:
    """The sums over so many seeds, in one process or in several."""
    parts = [(range(first + part, first + seeds, workers), str(folder / f"{part}")) for part in range(workers)]
    if workers == 1:
        return campaign.played(*parts[0])
    total: Counter[str] = Counter()
    imports = {"initializer": sys.path.append, "initargs": (str(Path(__file__).parent),)}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), **imports) as pool:
        for counted in pool.map(campaign.played, *zip(*parts, strict=True)):
            total += counted
    return total


def test_a_seed_is_the_same_run_each_time(bench: Bench) -> None:
    first = [play(bench, seed) for seed in range(3)]
    play(bench, 99)
    assert [play(bench, seed) for seed in range(3)] == first
    assert len({told.digest for told in first}) == 3


def test_a_seed_is_the_same_run_in_another_process(bench: Bench, tmp_path: Path) -> None:
    program = Path(__file__).with_name("one_seed.py")
    told = play(bench, 3)
    command = [sys.executable, "-W", "error", str(program), "3", "--digest", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert done.stdout.strip() == told.digest, done.stderr


@pytest.mark.parametrize(("broken", "first"), BREAKS.items(), ids=[each.__name__ for each in BREAKS])
def test_the_simulation_finds_a_library_that(broken: Break, first: int, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    with pytest.raises(SeedFailedError):
        campaign.play_all(bench, range(first, first + MOST_FOR_A_BREAK))
