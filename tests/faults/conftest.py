"""How the tests of this folder start a campaign, and what they need of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

FOLDER = Path(__file__).parent
# The helpers beside the tests, and the backends, can be imported.
sys.path += [str(FOLDER), str(FOLDER.parent / "integration")]


@pytest.fixture
def seed(trial: Trial) -> int:
    """The trial's."""
    return trial.seed


@pytest.fixture
def hands(trial: Trial) -> int:
    """How many processes share a campaign; in the usual run of the tests it must leave room for others."""
    return trial.size(push=2, nightly=3, release=3)


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a program of this folder with arguments, in a fresh process, and give the figures that it reports."""
    if os.name != "posix":
        pytest.skip("needs fork and signals")

    def run(program: str, **arguments: Any) -> dict[str, Any]:
        command = [sys.executable, "-W", "error", str(FOLDER / f"{program}.py"), json.dumps({"folder": str(tmp_path), **arguments})]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(program, json.dumps({key: value for key, value in figures.items() if not isinstance(value, list)}))
        return figures

    return run


@pytest.fixture(scope="session")
def strace() -> None:
    """Skip where strace is missing or may not attach."""
    if sys.platform != "linux":
        pytest.skip("strace is a tool of Linux")
    command = [sys.executable, "-c", "import lab; print(lab.is_traceable())"]
    asked = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    if asked.stdout.strip() != "True":
        pytest.skip("strace is not installed, or may not attach to processes here: " + asked.stderr[-200:])
