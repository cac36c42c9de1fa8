"""A kill -9 during a copy: the source is untouched, the target holds whole sessions, and the next copy goes on from there.

SESSIONSTORE_COPY_KILLS asks for more kills than the short run has; SESSIONSTORE_SEED repeats one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

KILLS = int(os.environ.get("SESSIONSTORE_COPY_KILLS", "8"))


def test_a_killed_copy_loses_nothing_and_brings_nothing_twice(campaign: Campaign, seed: int) -> None:
    figures = campaign("copy_kill", kills=KILLS, seed=seed)
    assert figures["problems"] == []
    assert figures["killed"] > KILLS / 3, "too many ended before their kill: the loop proves nothing"
    assert figures["resumed"] > 0, "no copy found anything of the one before"
