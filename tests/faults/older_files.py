"""Files of older schema revisions, with messages in them: made by this version, then downgraded with Alembic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lab

import sessionstore

CHECKOUT = Path(__file__).parents[2]
REVISIONS = ("0001", "0002", "0003", "0004", "0005")


def make(path: Path, revision: str, fill: Callable[[sessionstore.SessionStore], object]) -> Path:
    """A closed file of a revision that holds what `fill` wrote."""

    def write(_: lab.Wire) -> None:
        with sessionstore.open(path) as store:
            fill(store)

    lab.do(write)
    downgrade(path, revision)
    return path


def downgrade(path: Path, revision: str) -> None:
    """Take a file that nobody has open back to an older revision."""
    command = [sys.executable, "-m", "alembic", "-x", f"db={path}", "downgrade", revision]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
