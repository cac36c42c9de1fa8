"""An upgrade that dies anywhere leaves the old file, and the next opening upgrades it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from trials import Trial

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)


@pytest.mark.fault("F12")
def test_an_upgrade_that_dies_at_any_statement_leaves_the_old_schema_and_the_retry_works(
    campaign: Campaign, trial: Trial, hands: int
) -> None:
    most = trial.size(push=12, nightly=200, release=0)
    # Making older files takes longest; the newest of them stands for all in the shortest runs.
    leave_out = trial.size(push=["0001", "0002", "0003"], nightly=[], release=[])
    figures = campaign("upgrade_deaths", most=most, seed=trial.seed, leave_out=leave_out, hands=hands)
    assert figures["problems"] == []
    left = figures["of"] - figures["points"]
    skipped = f"{left:,} of {figures['of']:,} deaths: a sample" if left else None
    statements = sum(figures["statements"].values())
    told = f"{statements} statements from {len(figures['statements'])} revisions, by exception and kill -9: as before, retry works"
    trial.report(f"{figures['points']:,} of {figures['of']:,} deaths at {told}", skipped=skipped, **figures)
