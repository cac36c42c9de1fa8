"""Many writers at once: none fails, none overwrites another one, and why each transaction takes its lock at its beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import many_writers
import pytest
from trials import Trial

import sessionstore

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)


@pytest.mark.fault("F8")
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_eight_writers_in_four_processes_wait_for_each_other_and_lose_nothing(
    campaign: Campaign, trial: Trial, durability: str
) -> None:
    figures = campaign("many_writers", writes=trial.size(push=1_600, nightly=16_000, release=80_000), durability=durability)
    assert figures["problems"] == []
    half = figures["writes"] // 2
    assert (figures["appended"], figures["counted"]) == (half, half)
    assert figures["in_order"]
    assert figures["without_holes"]
    assert figures["ok"]
    times = f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.1f} ms, the slowest {figures['longest']:.0f} ms"
    trial.report(f"{figures['writes']:,} writes of 8 writers in 4 processes, {durability}: 0 errors, 0 lost, {times}", **figures)


@pytest.mark.fault("F8")
def test_a_transaction_that_reads_before_it_writes_would_fail_at_once(tmp_path: Path, trial: Trial) -> None:
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    assert many_writers.deferred(path) == "SQLITE_BUSY_SNAPSHOT"
    trial.report("a deferred transaction that reads, then writes: SQLITE_BUSY_SNAPSHOT at once, whatever its timeout")
