"""What the fuzz tests share: helpers that lie beside them, and a copy of one store for each example."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent), str(FOLDER.parent / "integration")]

from fuzz_store import Stores  # noqa: E402 - it lies there


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Fresh stores with something in them that a half-done call could change."""
    return Stores(tmp_path_factory.mktemp("fuzz"))
