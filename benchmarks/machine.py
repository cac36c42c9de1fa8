"""What the figures were taken on: cores, versions, file system, journal mode, the disk's sync, the speed of fixed work."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sessionstore

_REPOSITORY = Path(__file__).parent.parent
_SYNCS = 50
_PAGE = bytes(4096)
_CALIBRATIONS = 31
_FIXED_WORK = [
    {"role": "assistant", "content": "It is so. " * 20, "usage": {"input": number, "cost": number / 7}} for number in range(300)
]


def describe(folder: Path) -> dict[str, Any]:
    """The facts of a run in this folder."""
    store = _facts_of_a_store(folder)
    return {
        "date": datetime.now(UTC).isoformat(" ", "seconds"),
        "commit": _commit(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": version("sqlalchemy"),
        "sessionstore": version("sessionstore"),
        "file_system": store["file_system"],
        "journal_mode": store["journal_mode"],
        "sync_ms": round(_sync_ms(folder), 3),
        "calibration_ms": round(_calibration_ms(), 4),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def line(facts: dict[str, Any]) -> str:
    """The facts in words."""
    words = (
        f"{facts['cores']} cores ({facts['cpu']}), {facts['system']}, load {facts['load']}; Python {facts['python']}, "
        f"SQLite {facts['sqlite']}, SQLAlchemy {facts['sqlalchemy']}; {facts['file_system']}, "
        f"journal mode {facts['journal_mode']}, sync of 4 kB {facts['sync_ms']:.2f} ms; {facts['date']}, commit {facts['commit']}"
    )
    if facts["file_system"] in ("tmpfs", "ramfs"):
        words += "\nThese files are in memory: nothing is synced, so FULL says nothing. Name a folder on a disk by --dir."
    return words


def _facts_of_a_store(folder: Path) -> dict[str, str]:
    with sessionstore.open(folder / "machine.db") as store:
        status = store.status()
    return {"file_system": status.filesystem or "unknown file system", "journal_mode": status.journal_mode}


def _sync_ms(folder: Path) -> float:
    """The median time to append 4 kB to a file and have it on disk."""
    sync = getattr(os, "fdatasync", os.fsync)
    laps = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(_PAGE)
            sync(file.fileno())
            laps.append(time.perf_counter() - started)
    return statistics.median(laps) * 1e3


def _calibration_ms() -> float:
    """The median time of fixed work in Python, by which the speeds of two runs of one machine are told apart."""
    laps = []
    for _ in range(_CALIBRATIONS):
        started = time.perf_counter()
        hashlib.sha256(json.dumps(json.loads(json.dumps(_FIXED_WORK)), sort_keys=True).encode()).digest()
        laps.append(time.perf_counter() - started)
    return statistics.median(laps) * 1e3


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str:
    try:
        told = subprocess.run(
            ["git", "--no-optional-locks", "describe", "--always", "--dirty"],
            cwd=_REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told
