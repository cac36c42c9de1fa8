"""The shapes of work: calls that are repeated, saves all at once, several processes, cold starts, and what needs no peer."""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import items
from ..bench import Bench
from ..scale import QUICK
from ..scale import TRIAL as SMALL
from ..starting import ENVIRONMENT
from ..timing import Figure, Side, interleave
from .catalog import RAW, STORE, Member, Peer, Setting, Standing
from .process import PeerError, Process, Turns
from .run import TRIAL, Run

_ROOT = Path(__file__).parent.parent.parent
_SESSION = "session"


@dataclass(frozen=True, slots=True)
class Result:
    """What one side took for an item.

    Attributes:
        counts: What was counted beside the time, by name, over all rounds.
        reasons: What failed, and how often.
    """

    standing: Standing
    setting: Setting | None
    figure: Figure
    counts: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


class Shape(Protocol):
    """How an item is measured."""

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """The results of all sides that can take part."""


@dataclass(frozen=True, slots=True)
class History:
    """Files with sessions of one length; `length` is an index of the scale's lengths."""

    length: int

    def of(self, run: Run) -> tuple[int, list[str]]:
        """How long the sessions are, and their ids."""
        length, sessions = run.scale.lengths[self.length]
        return length, [f"{_SESSION}-{number}" for number in range(sessions)]

    def prepare(self, run: Run, standings: list[Standing]) -> list[Standing]:
        """Make the files that are missing."""
        length, ids = self.of(run)
        return run.prepare(standings, self.name, lambda process: process.ask("fill", session_ids=ids, length=length))

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"history-{self.length}"


@dataclass(frozen=True, slots=True)
class Appends:
    """Turns onto sessions of one length, one after the other; onto none: each into a new session."""

    length: int

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """In blocks."""
        history = History(self.length)
        length, ids = history.of(run)

        def opened(standing: Standing, place: Path) -> Turns:
            process = run.opened(standing, sync, history.name, place)
            process.ask("resume", session_ids=ids, length=length)
            return Turns(process, "turns", seconds=run.scale.block_seconds, session_ids=ids if length else [])

        yield from _repeated(run, sync, history.prepare(run, run.taking_part("turn", sync)), opened)


@dataclass(frozen=True, slots=True)
class Reads:
    """The newest messages of the longest session, or all of one of the length before."""

    command: str

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """In blocks."""
        whole = self.command == "whole"
        history = History(2 if whole else 3)
        length, ids = history.of(run)
        wanted = run.scale.whole if whole else run.scale.recent

        def opened(standing: Standing, place: Path) -> Turns:
            process = run.opened(standing, sync, history.name, place)
            process.ask("resume", session_ids=ids[:1], length=length)
            return Turns(process, self.command, seconds=run.scale.block_seconds, session_id=ids[0], wanted=wanted)

        need = "turn" if whole else self.command
        yield from _repeated(run, sync, history.prepare(run, run.taking_part(need, sync)), opened)


@dataclass(frozen=True, slots=True)
class Listing:
    """All sessions of a file of many, with what is known of each but its messages."""

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """In blocks."""
        count = run.scale.sessions

        def opened(standing: Standing, place: Path) -> Turns:
            process = run.opened(standing, sync, "list", place)
            return Turns(process, "listed", seconds=run.scale.block_seconds, wanted=count)

        able = run.prepare(run.taking_part("listed", sync), "list", lambda process: process.ask("fill_list", count=count))
        yield from _repeated(run, sync, able, opened)


@dataclass(frozen=True, slots=True)
class Queueing:
    """Items put into a queue or taken from it, alone or in batches; a figure is for one item."""

    command: str

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """In blocks."""
        size = run.scale.batch if self.command.endswith("_many") else 1
        arguments = {"size": size} if size > 1 else {}

        def opened(standing: Standing, place: Path) -> Turns:
            process = run.opened(standing, sync, "queue", place)
            return Turns(process, self.command, seconds=run.scale.block_seconds, **arguments)

        able = run.prepare(run.taking_part(self.command.removesuffix("_many"), sync), "queue", lambda _: None)
        for result in _repeated(run, sync, able, opened):
            yield Result(result.standing, result.setting, result.figure.times(1e3 / size))


def _repeated(run: Run, sync: str, able: list[Standing], opened: Any) -> Iterator[Result]:
    run.warm(able, sync)
    with run.place() as place:
        turns = run.each(able, lambda standing: opened(standing, place))
        sides: dict[str, Side] = {standing.member.driver: one.side() for standing, one in turns}
        scale = run.scale
        figures = interleave(
            sides, rounds=scale.rounds, calls=scale.calls, block=scale.block, seconds=scale.round_seconds, mixed=random.Random(7)
        )
    for standing, one in turns:
        if one.failure:
            run.failed(standing, one.failure)
        else:
            yield Result(standing, standing.at.get(sync), figures[standing.member.driver])


@dataclass(frozen=True, slots=True)
class Saves:
    """A turn in each of many sessions, all at once: by threads, or by tasks where the peer awaits."""

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """One lap of each side in a round."""
        ids = [f"{_SESSION}-{number}" for number in range(run.scale.savers)]
        able = run.prepare(run.taking_part("saves", sync), "savers", lambda one: one.ask("fill", session_ids=ids, length=0))
        run.warm(able, sync)
        with run.place() as place:

            def opened(standing: Standing) -> Process:
                process = run.opened(standing, sync, "savers", place)
                process.ask("resume", session_ids=ids, length=0)
                return process

            sides = run.each(able, opened)
            failed: dict[str, Counter[str]] = {standing.member.driver: Counter() for standing, _ in sides}

            def lap(standing: Standing, process: Process) -> list[float]:
                try:
                    took, reasons = process.ask("saves", session_ids=ids)
                except PeerError as error:
                    failed[standing.member.driver][str(error)] += len(ids)
                    return [math.nan]
                failed[standing.member.driver].update(reasons)
                return [took]

            laps: dict[str, Side] = {
                one.member.driver: lambda _, one=one, process=process: lap(one, process) for one, process in sides
            }
            figures = interleave(laps, rounds=run.scale.heavy_rounds, calls=1, block=1)
        for standing, _ in sides:
            reasons = failed[standing.member.driver]
            if any(math.isnan(value) for value in figures[standing.member.driver].values):
                run.failed(standing, dict(reasons))
                continue
            yield Result(
                standing, standing.at.get(sync), figures[standing.member.driver], {"failed calls": reasons.total()}, dict(reasons)
            )


@dataclass(frozen=True, slots=True)
class Processes:
    """Turns of several processes on one file. The figure is the time for all of them if they went on as they did."""

    shared: bool

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """Each side in turn."""
        count = run.scale.processes
        ids = [_SESSION] * count if self.shared else [f"{_SESSION}-{number}" for number in range(count)]
        name = f"processes-{'shared' if self.shared else 'own'}"
        different = sorted(set(ids))
        able = run.prepare(run.taking_part("turn", sync), name, lambda one: one.ask("fill", session_ids=different, length=0))
        outcomes: dict[str, list[_Outcome]] = {standing.member.driver: [] for standing in able}
        for number in range(run.scale.heavy_rounds):
            first = number % len(able)
            order = able[first:] + able[:first]
            with run.place() as place:
                for standing, found in run.each(order, lambda one: _together(run, one, run.crew(one, sync), name, ids, place)):
                    outcomes[standing.member.driver].append(found)
        for standing in able:
            if rounds := outcomes[standing.member.driver]:
                yield _sum_up(standing, sync, rounds)


@dataclass(frozen=True, slots=True)
class _Outcome:
    seconds: float
    worst_ms: float
    failed: int
    lost: int
    unfinished: int
    reasons: Counter[str]


def _together(run: Run, standing: Standing, crew: list[Process], name: str, ids: list[str], place: Path) -> _Outcome:
    try:
        return _worked(run, standing, crew, name, ids, place)
    except PeerError:
        # Answers of the others may be on their way.
        run.dismiss()
        raise


def _worked(run: Run, standing: Standing, crew: list[Process], name: str, ids: list[str], place: Path) -> _Outcome:
    path = run.copy(standing, name, place)
    for process, session_id in zip(crew, ids, strict=True):
        process.ask("open", path=str(path))
        process.ask("resume", session_ids=[session_id], length=0)
    turns = run.scale.turns
    for process, session_id in zip(crew, ids, strict=True):
        process.send("work", session_id=session_id, turns=turns, seconds=run.scale.worker_seconds)
    reports = [process.answer() for process in crew]
    for process in crew:
        process.ask("close")
    crew[0].ask("open", path=str(path))
    stored = crew[0].ask("stored", session_ids=sorted(set(ids)))
    crew[0].ask("close")
    saved = sum(report["saved"] for report in reports)
    reasons: Counter[str] = Counter()
    for report in reports:
        reasons.update(report["failed"])
    wall = max(report["ended"] for report in reports) - min(report["began"] for report in reports)
    return _Outcome(
        seconds=wall * turns * len(ids) / saved if saved else math.inf,
        worst_ms=max(report["worst"] for report in reports) * 1e3,
        failed=reasons.total(),
        lost=max(0, 2 * saved - stored),
        unfinished=turns * len(ids) - saved - reasons.total(),
        reasons=reasons,
    )


def _sum_up(standing: Standing, sync: str, rounds: list[_Outcome]) -> Result:
    reasons: Counter[str] = Counter()
    for one in rounds:
        reasons.update(one.reasons)
    counts = {
        "worst call ms": statistics.median(one.worst_ms for one in rounds),
        "failed calls": sum(one.failed for one in rounds),
        "lost messages": sum(one.lost for one in rounds),
        "turns not reached": sum(one.unfinished for one in rounds),
    }
    return Result(standing, standing.at.get(sync), Figure(tuple(one.seconds for one in rounds)), counts, dict(reasons))


@dataclass(frozen=True, slots=True)
class Starts:
    """Fresh processes: from the spawn to the first turn saved to an existing file; or the memory that they have then."""

    memory: bool = False

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """Each side in turn; what was seen serves for both rows."""
        if not run.starts:
            _start_all(run, sync)
        at, size = 2 if self.memory else 0, run.scale.starts
        for standing, told in run.starts:
            rounds = [told[start : start + size] for start in range(0, len(told), size)]
            counts = {} if self.memory else {"inside ms": statistics.median(one[1] for one in told)}
            yield Result(
                standing, standing.usual, Figure(tuple(statistics.median(one[at] for one in each) for each in rounds)), counts
            )


def _start_all(run: Run, sync: str) -> None:
    able = [one for one in run.taking_part("turn", sync) if not one.at[sync].forced]
    able = run.prepare(able, "start", lambda one: one.ask("fill", session_ids=[_SESSION], length=0))
    seen: dict[str, list[list[float]]] = {standing.member.driver: [] for standing in able}
    for number in range(-1, run.scale.rounds * run.scale.starts):
        first = number % len(able)
        for standing, told in run.each(able[first:] + able[:first], lambda standing: _start(run, standing)):
            # The first start of each compiles its modules and fills the caches.
            if number >= 0:
                seen[standing.member.driver].append(told)
    run.starts = [(standing, seen[standing.member.driver]) for standing in able if seen[standing.member.driver]]


def _start(run: Run, standing: Standing) -> list[float]:
    with run.place() as place:
        path = run.copy(standing, "start", place)
        command = [str(run.python(standing)), "-m", "benchmarks.peers.cold", standing.member.driver, str(path), repr(time.time())]
        ended = subprocess.run(command, cwd=_ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PeerError(ended.stderr.strip()[-500:])
    told: list[float] = json.loads(ended.stdout.splitlines()[-1])
    return told


@dataclass(frozen=True, slots=True)
class Alone:
    """Rows of the other benchmarks, of what no peer has: raw and the store in this process."""

    item: str
    row: int

    def measure(self, run: Run, sync: str) -> Iterator[Result]:
        """As `python -m benchmarks --only` does, with fewer sessions."""
        (found,) = items.chosen([self.item])
        scale = SMALL if run.scale is TRIAL else QUICK
        with run.place() as place:
            rows = list(found.rows(Bench(place, scale)))
        row = rows[self.row]
        nobody = Peer("sessionstore", "sessionstore", ())
        for name, figure in ((RAW, row.raw), (STORE, row.store)):
            if figure is not None:
                yield Result(Standing(Member(name, "", ours=True), nobody, ()), Setting("full", "wal"), figure)
