"""Lets the tests of this folder import the helpers that lie beside them, makes their stores quickly, and stops the clock."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sessionstore

sys.path.append(str(Path(__file__).parent))

from clocks import FrozenClock


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new file; making one for each test would take most of the time."""
    path = tmp_path_factory.mktemp("new") / "new.db"
    sessionstore.open(path).close()
    return path


@pytest.fixture
def store(new_file: Path, store_path: Path) -> Iterator[sessionstore.SessionStore]:
    """A fresh store in a file of its own."""
    shutil.copy(new_file, store_path)
    with sessionstore.open(store_path) as opened:
        yield opened


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> FrozenClock:
    """The clock of all stores."""
    stopped = FrozenClock()
    monkeypatch.setattr(sessionstore.clock, "utc_now", stopped)
    return stopped
