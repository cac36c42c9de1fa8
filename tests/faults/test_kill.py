"""What survives a kill -9 and a power cut: everything that was acknowledged, and never a half of anything."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

import sessionstore

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(7200)

# Older revisions take longest to make; the newest of them stands for all in the shortest runs.
OLDER = ["migrate 0001", "migrate 0002", "migrate 0003"]


@pytest.mark.fault("F1")
def test_a_killed_writer_loses_no_acknowledged_message(campaign: Campaign, trial: Trial, hands: int) -> None:
    cycles = trial.size(push=50, nightly=300, release=1_000)
    figures = campaign("kill_loop", cycles=cycles, seed=trial.seed, hands=hands)
    assert figures["problems"] == []
    assert (figures["lost"], figures["torn"]) == (0, 0)
    assert figures["acked"] > cycles, "the writers were killed before they wrote: the loop proves nothing"
    told = f"{figures['acked']:,} acknowledged, 0 lost, 0 torn, {figures['unacked']:,} stored but not acknowledged"
    trial.report(f"{cycles:,} cycles: {told}", **figures)


@pytest.mark.fault("F2")
def test_a_kill_at_any_system_call_loses_nothing_and_tears_nothing(
    campaign: Campaign, trial: Trial, hands: int, strace: None
) -> None:
    """Of open, migrate (from each revision), append, checkpoint, recover, clear, sweep (each fate), drain, erase and close."""
    most = trial.size(push=40, nightly=600, release=0)
    figures = campaign(
        "kill_points", most=most, seed=trial.seed, hands=hands, leave_out=trial.size(push=OLDER, nightly=[], release=[])
    )
    assert figures["problems"] == []
    assert figures["unkilled"] < figures["points"] / 4, "too many runs ended before their kill"
    left = figures["of"] - figures["points"]
    skipped = [f"{left:,} of {figures['of']:,} points: a sample"] if left else []
    skipped += [f"{figures['unkilled']} runs ended before their point"] if figures["unkilled"] else []
    said = f"{figures['points']:,} of {figures['of']:,} points of {len(figures['operations'])} operations: 0 lost, 0 corrupt"
    trial.report(said, skipped="; ".join(skipped) or None, **figures)


@pytest.mark.fault("F3")
@pytest.mark.parametrize("workload", ["append", "live"])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_power_cut_leaves_a_state_that_the_file_had(
    campaign: Campaign, trial: Trial, hands: int, strace: None, durability: str, workload: str
) -> None:
    """A full store loses nothing that was acknowledged; a normal one loses the newest transactions, whole."""
    images, rounds = trial.size(push=300, nightly=2_500, release=10_000), trial.size(push=1, nightly=6, release=6)
    figures = campaign(
        "power_loss", workload=workload, durability=durability, images=images, rounds=rounds, seed=trial.seed, hands=hands
    )
    assert figures["problems"] == []
    assert figures["images"] > images * 0.9
    if durability == "full":
        assert figures["lost"] == 0
    else:
        assert figures["lost"] > 0, "a store that does not sync lost nothing: the replay proves nothing"
    lost = "0 lost" if durability == "full" else f"at most {figures['most_lost']} transactions lost"
    trial.report(f"{figures['images']:,} images of {workload!r}, {durability}: 0 corrupt, {lost}", **figures)


# The beginning of every log by SQLite's file format: magic, format, page size 4096, checkpoint number 0.
LOG_HEADER = bytes.fromhex("377f0682002de2180000100000000000")


@pytest.mark.fault("F18")
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
