"""A kill -9 during backup, restore or vacuum: the old file or the new one, whole; never neither, never a mix.

The defaults are short. SESSIONSTORE_FILE_KILLS asks for more kills after a random time, SESSIONSTORE_FILE_KILL_POINTS for more
system calls to be killed at (0 for all); SESSIONSTORE_SEED repeats a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

KILLS = int(os.environ.get("SESSIONSTORE_FILE_KILLS", "24"))
POINTS = int(os.environ.get("SESSIONSTORE_FILE_KILL_POINTS", "24"))


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(campaign: Campaign, seed: int) -> None:
    figures = campaign("restore_kill", kills=KILLS, seed=seed)
    assert figures["problems"] == []
    assert figures["killed"] > KILLS / 3, "too many ended before their kill: the loop proves nothing"


def test_a_kill_at_any_system_call_leaves_the_old_file_or_the_new_one(campaign: Campaign, seed: int, strace: None) -> None:
    figures = campaign("restore_kill", points=POINTS, seed=seed)
    assert figures["problems"] == []
    assert figures["killed"] > figures["points"] * 3 / 4, "too many runs ended before their kill"
