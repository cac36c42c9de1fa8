"""What deliveries survive: kill -9 of the processes on both sides, at any moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trials import Trial

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)


@pytest.mark.fault("F4")
def test_killed_drainers_and_collectors_lose_nothing_repeat_nothing_and_keep_the_order(campaign: Campaign, trial: Trial) -> None:
    """Three drainers on one file, a collector, and kill -9 for any of them."""
    rows, kills = trial.size(push=(2_400, 12), nightly=(5_000, 60), release=(10_000, 200))
    figures = campaign("sync_kill", rows=rows, kills=kills, seed=trial.seed)
    assert figures["stored"] == figures["keys"] == rows
    assert (figures["lost"], figures["duplicates"], figures["reordered"]) == (0, 0, 0)
    assert figures["kills_while_delivering"] >= 0.9 * kills, "most was delivered between the kills: the campaign proves little"
    told = f"{figures['kills_while_delivering']} kills in mid-delivery: 0 lost, 0 stored twice, 0 reordered"
    trial.report(f"{rows:,} events, 3 senders: {told}, {figures['seconds']:.0f} s", **figures)
