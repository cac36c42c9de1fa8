"""Starting: from the spawn of a fresh process to its first append to an existing file, and the memory that it then has."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import cold
from .bench import Bench, Item, Row, Target
from .timing import Figure

_TOTAL_MS = Target(450, of="store")
_MEMORY_MB = Target(65, of="store")
_ROOT = Path(__file__).parent.parent
_SIDES = ("python", "raw", "store")
# An installed package has its bytecode beside it, as the standard library has.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def starts(bench: Bench) -> Iterator[Row]:
    """Import, open and append, in fresh processes that take turns."""
    seen: dict[str, dict[str, list[float]]] = {side: {"total": [], "inside": [], "memory": []} for side in _SIDES}
    for side in _SIDES:
        # It compiles what was not compiled yet.
        _one_start(bench, side)
    for number in range(bench.scale.rounds):
        turn = number % len(_SIDES)
        laps: dict[str, list[cold.Report]] = {side: [] for side in _SIDES}
        for _ in range(bench.scale.starts):
            for side in _SIDES[turn:] + _SIDES[:turn]:
                laps[side].append(_one_start(bench, side))
        for side, reports in laps.items():
            seen[side]["total"].append(statistics.median(report.total_ms for report in reports))
            seen[side]["inside"].append(statistics.median(report.inside_ms for report in reports))
            seen[side]["memory"].append(statistics.median(report.memory_mb for report in reports))
    python, raw, store = ({name: Figure(tuple(values)) for name, values in seen[side].items()} for side in _SIDES)
    yield Row("python -c pass, spawn to end", "ms", None, python["total"])
    yield Row("spawn to first append done, FULL", "ms", raw["total"], store["total"], _TOTAL_MS)
    yield Row("  import, open and first append", "ms", raw["inside"], store["inside"])
    yield Row("  resident memory after that", "MB", raw["memory"], store["memory"], _MEMORY_MB)


def _one_start(bench: Bench, side: str) -> cold.Report:
    if side == "python":
        spawned = time.time()
        subprocess.run([sys.executable, "-c", "pass"], env=ENVIRONMENT, check=True)
        return cold.Report((time.time() - spawned) * 1e3, 0.0, 0.0)
    with bench.place() as place:
        path = bench.new_file(place, side, ["session"])
        command = [sys.executable, "-m", "benchmarks.cold", side, str(path), repr(time.time())]
        said = subprocess.run(command, cwd=_ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return cold.Report(*json.loads(said))


ITEMS = (
    Item("start", "imports sqlite3, opens the file, appends as in append; the first row is a process that does nothing.", starts),
)
