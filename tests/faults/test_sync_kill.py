"""What deliveries survive: kill -9 of the processes on both sides, at any moment.

The usual run is short. SESSIONSTORE_SYNC_ROWS and SESSIONSTORE_SYNC_KILLS ask for more; SESSIONSTORE_SEED repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

ROWS = int(os.environ.get("SESSIONSTORE_SYNC_ROWS", "2400"))
KILLS = int(os.environ.get("SESSIONSTORE_SYNC_KILLS", "12"))


def test_killed_drainers_and_collectors_lose_nothing_repeat_nothing_and_keep_the_order(campaign: Campaign, seed: int) -> None:
    """F4: three drainers on one file, a collector, and kill -9 for any of them."""
    figures = campaign("sync_kill", rows=ROWS, kills=KILLS, seed=seed)
    assert figures["stored"] == figures["keys"] == ROWS
    assert (figures["lost"], figures["duplicates"], figures["reordered"]) == (0, 0, 0)
    assert figures["kills_while_delivering"] >= 0.9 * KILLS, "most was delivered between the kills: the campaign proves little"
