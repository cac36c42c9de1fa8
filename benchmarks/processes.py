"""Several processes that append to one file, in sessions of their own or in one that they share."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from . import worker
from .bench import Bench, Item, Row, Target
from .timing import Figure

_WALL = Target(1.3)
_WORST_CALL_MS = Target(120, of="store")
_NOTHING = Target(0, of="store", every_round=True)
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the processes of one round did.

    Attributes:
        wall: Seconds from the first one's begin to the last one's end.
        worst_ms: The longest call of any.
        missing: Calls that failed, and messages that are not in the file although their call succeeded.
    """

    wall: float
    worst_ms: float
    missing: int


def processes(bench: Bench) -> Iterator[Row]:
    """Turns appended by several processes."""
    count, turns = bench.scale.processes, bench.scale.turns
    for mode, ids in (("own sessions", [f"session-{number}" for number in range(count)]), ("one session", ["session"] * count)):
        outcomes: dict[str, list[Outcome]] = {"raw": [], "store": []}
        for number in range(bench.scale.rounds):
            for side in (("raw", "store"), ("store", "raw"))[number % 2]:
                outcomes[side].append(_one_round(bench, side, ids, turns))
        work = f"{count} processes x {turns} turns, {mode}, FULL"
        raw, store = outcomes["raw"], outcomes["store"]
        yield Row(work, "s", Figure(tuple(one.wall for one in raw)), Figure(tuple(one.wall for one in store)), _WALL)
        yield Row("  worst call", "ms", Figure(tuple(one.worst_ms for one in raw)),
                  Figure(tuple(one.worst_ms for one in store)), _WORST_CALL_MS)  # fmt: skip
        yield Row("  failed calls and lost messages", "", Figure(tuple(float(one.missing) for one in raw)),
                  Figure(tuple(float(one.missing) for one in store)), _NOTHING)  # fmt: skip


def _one_round(bench: Bench, side: str, session_ids: list[str], turns: int) -> Outcome:
    with bench.place() as place:
        path = bench.new_file(place, side, session_ids)
        reports = _run(path, side, session_ids, turns)
        stored = _stored(path)
    appended = sum(report.appended for report in reports)
    failed = turns * len(session_ids) - appended
    return Outcome(
        wall=max(report.ended for report in reports) - min(report.began for report in reports),
        worst_ms=max(report.worst for report in reports) * 1e3,
        missing=failed + abs(2 * appended - stored),
    )


def _run(path: Path, side: str, session_ids: list[str], turns: int) -> list[worker.Report]:
    """Start the processes, let all of them begin at once, and collect what they say."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", side, str(path), session_id, str(turns)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for session_id in session_ids
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a worker of {side} ended with {[process.returncode for process in started]}")
    return [worker.Report(**json.loads(one)) for one in said]


def _stored(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0])


ITEMS = (
    Item("processes", "a connection in each process; BEGIN IMMEDIATE tried again after random sleeps of 0.2 to 2 ms.", processes),
)
