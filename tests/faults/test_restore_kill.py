"""A kill -9 during backup, restore or vacuum: the old file or the new one, whole; never neither, never a mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trials import Trial

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)


@pytest.mark.fault("F1", "F19")
def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(campaign: Campaign, trial: Trial) -> None:
    kills = trial.size(push=18, nightly=120, release=300)
    figures = campaign("restore_kill", kills=kills, seed=trial.seed)
    assert figures["problems"] == []
    assert figures["killed"] > kills / 3, "too many ended before their kill: the loop proves nothing"
    trial.report(f"{kills} kills of backup, restore and vacuum: the old file or the new one", **figures)


@pytest.mark.fault("F2", "F19")
def test_a_kill_at_any_system_call_leaves_the_old_file_or_the_new_one(
    campaign: Campaign, trial: Trial, strace: None, hands: int
) -> None:
    figures = campaign("restore_kill", points=trial.size(push=18, nightly=200, release=0), seed=trial.seed, hands=hands)
    assert figures["problems"] == []
    assert figures["killed"] > figures["points"] * 3 / 4, "too many runs ended before their kill"
    left = figures["of"] - figures["points"]
    skipped = f"{left:,} of {figures['of']:,} points: a sample" if left else None
    said = f"{figures['points']:,} of {figures['of']:,} points of backup, restore and vacuum: the old file or the new one"
    trial.report(said, skipped=skipped, **figures)
