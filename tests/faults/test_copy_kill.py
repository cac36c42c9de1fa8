"""A kill -9 during a copy: the source is untouched, the target holds whole sessions, and the next copy goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trials import Trial

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)


@pytest.mark.fault("F1", "F19")
def test_a_killed_copy_loses_nothing_and_brings_nothing_twice(campaign: Campaign, trial: Trial) -> None:
    kills = trial.size(push=8, nightly=50, release=200)
    figures = campaign("copy_kill", kills=kills, seed=trial.seed)
    assert figures["problems"] == []
    assert figures["killed"] > kills / 3, "too many ended before their kill: the loop proves nothing"
    assert figures["resumed"] > 0, "no copy found anything of the one before"
    trial.report(
        f"{figures['kills']} kills of copies: 0 lost, 0 twice, {figures['resumed']} went on where another had ended", **figures
    )
