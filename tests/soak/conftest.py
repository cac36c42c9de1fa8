"""The modules of the soak, and what other tests have for collectors and proxies, can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
sys.path += [str(FOLDER), str(FOLDER.parent / "faults"), str(FOLDER.parent / "integration")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak-seconds", type=float, help="how long the soak lasts; SESSIONSTORE_SOAK_SECONDS says the same")
