"""What survives a kill -9 and a power cut: everything that was acknowledged, and never a half of anything.

The defaults are short. SESSIONSTORE_KILL_CYCLES, SESSIONSTORE_KILL_POINTS (0 for all) and SESSIONSTORE_POWER_LOSS_IMAGES ask
for more; SESSIONSTORE_SEED repeats a run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessionstore

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

CYCLES = int(os.environ.get("SESSIONSTORE_KILL_CYCLES", "50"))
POINTS = int(os.environ.get("SESSIONSTORE_KILL_POINTS", "40"))
IMAGES = int(os.environ.get("SESSIONSTORE_POWER_LOSS_IMAGES", "1050"))


def test_a_killed_writer_loses_no_acknowledged_message(campaign: Campaign, seed: int) -> None:
    figures = campaign("kill_loop", cycles=CYCLES, seed=seed)
    assert figures["problems"] == []
    assert (figures["lost"], figures["torn"]) == (0, 0)
    assert figures["acked"] > CYCLES, "the writers were killed before they wrote: the loop proves nothing"


def test_a_kill_at_any_system_call_loses_nothing_and_tears_nothing(campaign: Campaign, seed: int, strace: None) -> None:
    figures = campaign("kill_points", most=POINTS, seed=seed)
    assert figures["problems"] == []
    assert figures["unkilled"] < figures["points"] / 4, "too many runs ended before their kill"


def test_a_power_cut_loses_nothing_acknowledged_in_a_full_store(campaign: Campaign, seed: int, strace: None) -> None:
    figures = campaign("power_loss", durability="full", images=IMAGES, seed=seed)
    assert figures["problems"] == []
    assert figures["lost"] == 0
    assert figures["images"] > IMAGES / 2


def test_a_power_cut_leaves_a_prefix_in_a_normal_store(campaign: Campaign, seed: int, strace: None) -> None:
    figures = campaign("power_loss", durability="normal", images=IMAGES, seed=seed)
    assert figures["problems"] == []
    assert figures["lost"] > 0, "a store that does not sync lost nothing: the replay proves nothing"


# The beginning of every log by SQLite's file format: magic, format, page size 4096, checkpoint number 0.
LOG_HEADER = bytes.fromhex("377f0682002de2180000100000000000")


@pytest.mark.parametrize("size", [32, 32 + 24 + 1000, 32 + 2 * (24 + 4096)], ids=["header", "torn page", "two pages"])
def test_opening_after_an_ordinary_crash_raises_no_alarm(tmp_path: Path, size: int) -> None:
    """A log that begins as SQLite's logs do and holds no whole transaction is the trace of a kill, not of damage."""
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.session("s").append("user", "kept")
    path.with_name("a.db-wal").write_bytes(LOG_HEADER.ljust(size, b"\1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sessionstore.open(path) as store:
            assert [message.text for message in store.messages("s")] == ["kept"]
            assert store.status().warnings == ()
            assert store.doctor().ok
