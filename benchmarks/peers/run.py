"""One run: which sides take part at which sync setting, their processes, and the files that they work on."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import driver
from .catalog import Peer, Setting, Standing
from .environments import Interpreters, version
from .process import PeerError, Process

T = TypeVar("T")

# Preparing is not timed, so it may use both of the least cores there are.
_AT_ONCE = 2
_FILE = "file.db"
# How files are filled; not a setting that is measured.
_UNSYNCED = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much work a run does.

    Attributes:
        rounds, heavy_rounds: How often the sides take turns, and how often in items that take very long.
        calls, block: Timed calls of each side in a round, and before it is the other one's turn.
        round_seconds, block_seconds: When a round of all sides ends early, and a block of one.
        lengths: Of the histories that turns are appended to, each with the number of sessions that share the turns.
        recent, whole, long: Messages of a read of the newest ones, of a whole session, and of a long one.
        sessions: How many are listed.
        savers: Concurrent saves.
        processes, turns, worker_seconds: Processes on one file, turns of each, and when they stop in any case.
        starts: Fresh processes of each kind in a round.
        batch: Items of a queue that are put or taken at once.
    """

    rounds: int
    heavy_rounds: int
    calls: int = 100
    block: int = 10
    round_seconds: float = 4.0
    block_seconds: float = 0.1
    lengths: tuple[tuple[int, int], ...] = ((0, 1), (100, 20), (1_000, 5), (10_000, 1))
    recent: int = 50
    sessions: int = 10_000
    savers: int = 200
    processes: int = 4
    turns: int = 500
    worker_seconds: float = 4.0
    starts: int = 2
    batch: int = 100

    @property
    def whole(self) -> int:
        """The length of a session that is read as a whole."""
        return self.lengths[2][0]

    @property
    def long(self) -> int:
        """The length of the longest session."""
        return self.lengths[3][0]


WHOLE = Scale(rounds=5, heavy_rounds=3)
# Only for tests of the program: nothing that it prints means anything.
TRIAL = Scale(
    rounds=1, heavy_rounds=1, calls=4, block=2, round_seconds=1.0, lengths=((0, 1), (4, 2), (10, 1), (20, 1)), recent=4,
    sessions=20, savers=5, processes=2, turns=3, starts=1, batch=3,
)  # fmt: skip


class Run:
    """The sides of a run. `close` ends their processes.

    Attributes:
        standings: What is known of each side that is admitted.
        versions: By the name of the peer.
        starts: What the fresh processes of each side told, once they were started.
    """

    def __init__(self, folder: Path, interpreters: Interpreters, scale: Scale, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.scale = scale
        self.standings: list[Standing] = []
        self.versions: dict[str, str] = {}
        self.starts: list[tuple[Standing, list[list[float]]]] = []
        self._interpreters = interpreters
        self._say = say
        self._numbers = itertools.count(1)
        self._running: dict[tuple[str, str], Process] = {}
        self._crews: dict[tuple[str, str], list[Process]] = {}

    def admit(self, peers: Iterable[Peer], wanted: Mapping[str, list[str]]) -> None:
        """Make the environments, and see how the connections of each side are set.

        Args:
            peers: Whose sides they are.
            wanted: For "sessions" and for "queues", the sync settings at which something is to be measured.
        """
        for peer in peers:
            for member in peer.members:
                offers = driver.offers(driver.load(member.driver))
                if wanted["sessions" if "turn" in offers else "queues"]:
                    self.standings.append(Standing(member, peer, offers))
        for peer in {standing.peer.name: standing.peer for standing in self.standings}.values():
            self.versions[peer.name] = version(self._interpreters(peer), peer)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one: self._admit(one, wanted["sessions" if one.keeps_sessions else "queues"]), self.standings))

    def taking_part(self, need: str, sync: str) -> list[Standing]:
        """The sides that can do something, with their connections at a sync setting."""
        able = [standing for standing in self.standings if need in standing.offers and sync in standing.at]
        return [standing for standing in able if need != "take" or standing.at[sync].taking == sync]

    def warm(self, standings: Iterable[Standing], sync: str) -> None:
        """Start the processes that are missing, all at once, since they import for a while."""
        keys = {(one.member.driver, sync): one for one in standings if (one.member.driver, sync) not in self._running}
        for key, standing in keys.items():
            self._running[key] = self.start(standing, sync)
            self._running[key].send("stop_observing")
        for key in keys:
            _swallow(self._running[key].answer)

    def each(self, standings: Iterable[Standing], work: Callable[[Standing], T]) -> list[tuple[Standing, T]]:
        """What the work gave for each side; those that fail are said and left out."""
        done = []
        for standing in standings:
            try:
                done.append((standing, work(standing)))
            except PeerError as error:
                self.failed(standing, error)
        return done

    def failed(self, standing: Standing, why: object) -> None:
        """Say that a side could not do its part."""
        self._say(f"{standing.member.name} failed: {why}")

    def prepare(self, standings: Iterable[Standing], name: str, fill: Callable[[Process], None]) -> list[Standing]:
        """Make a file of a name for each side that has none; returns the sides that have one."""
        wanted = list(standings)
        missing = [standing for standing in wanted if not self._prepared(standing, name).exists()]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            errors = list(pool.map(lambda standing: self._prepare(standing, name, fill), missing))
        for standing, error in zip(missing, errors, strict=True):
            if error is not None:
                self.failed(standing, error)
        return [standing for standing in wanted if self._prepared(standing, name).exists()]

    def start(self, standing: Standing, sync: str) -> Process:
        """A process of a side, with its connections at a setting."""
        forced = sync if not standing.member.ours and standing.at[sync].forced else ""
        return self._process(standing, sync=sync, forced=forced)

    def opened(self, standing: Standing, sync: str, name: str, place: Path) -> Process:
        """The side's process at this setting, which runs for the whole run, with a copy of a prepared file open."""
        self.warm([standing], sync)
        process = self._running[standing.member.driver, sync]
        process.ask("close")
        process.ask("open", path=str(self.copy(standing, name, place)))
        return process

    def crew(self, standing: Standing, sync: str) -> list[Process]:
        """The processes of a side that work on one file; they run until `dismiss`."""
        key = (standing.member.driver, sync)
        if key not in self._crews:
            self._crews[key] = [self.start(standing, sync) for _ in range(self.scale.processes)]
            for process in self._crews[key]:
                process.send("stop_observing")
            for process in self._crews[key]:
                process.answer()
        return self._crews[key]

    def dismiss(self) -> None:
        """End the processes that work on one file."""
        for crew in self._crews.values():
            for process in crew:
                process.end()
        self._crews.clear()

    def copy(self, standing: Standing, name: str, place: Path) -> Path:
        """A copy of a prepared file."""
        to = place / f"{next(self._numbers)}"
        shutil.copytree(self._prepared(standing, name), to)
        return to / _FILE

    def python(self, standing: Standing) -> Path:
        """The interpreter of a side."""
        return self._interpreters(standing.peer)

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder of its own, gone afterwards; the files in it are closed."""
        place = self.folder / f"{next(self._numbers)}"
        place.mkdir()
        try:
            yield place
        finally:
            for process in self._running.values():
                process.send("close")
            for process in self._running.values():
                _swallow(process.answer)
            shutil.rmtree(place)

    def close(self) -> None:
        """End all processes."""
        self.dismiss()
        for process in self._running.values():
            process.end()

    def _admit(self, standing: Standing, syncs: list[str]) -> None:
        # Of ours the usual setting is the documented one, full.
        standing.usual = self._observed(standing, "full" if standing.member.ours else "", "")
        if standing.usual is None:
            return
        standing.at[standing.usual.synchronous] = standing.usual
        for sync in syncs:
            if sync != standing.usual.synchronous:
                ours = standing.member.ours
                other = self._observed(standing, sync if ours else "", "" if ours else sync)
                if other is not None and other.synchronous == sync:
                    standing.at[sync] = other

    def _observed(self, standing: Standing, sync: str, forced: str) -> Setting | None:
        """How the connections of a side are set that write a turn or an item; its process is kept."""
        place = self.folder / f"{next(self._numbers)}"
        place.mkdir()
        process = self._process(standing, sync=sync, forced=forced)
        try:
            setting = self._look(standing, process, str(place / _FILE), forced=bool(forced))
        except PeerError as error:
            self.failed(standing, error)
            process.end()
            return None
        finally:
            shutil.rmtree(place)
        if self._running.setdefault((standing.member.driver, setting.synchronous), process) is not process:
            process.end()
        return setting

    def _look(self, standing: Standing, process: Process, path: str, *, forced: bool) -> Setting:
        process.ask("open", path=path)
        process.ask("close")
        # The file is there now: what made its tables is of no interest.
        process.ask("settings")
        process.ask("open", path=path)
        if standing.keeps_sessions:
            process.ask("turns", session_ids=[], count=2, seconds=10)
        else:
            process.ask("put", count=2, seconds=10)
        if "take" not in standing.offers:
            process.ask("close")
        seen = taken = process.ask("settings")
        if "take" in standing.offers:
            process.ask("take", count=2, seconds=10)
            process.ask("close")
            taken = process.ask("settings")
        process.ask("stop_observing")
        return Setting(_joined(seen, 0), _joined(seen, 1), taking=_joined(taken, 0), forced=forced)

    def _prepared(self, standing: Standing, name: str) -> Path:
        return self.folder / "prepared" / standing.member.driver.replace(":", "-") / name

    def _prepare(self, standing: Standing, name: str, fill: Callable[[Process], None]) -> PeerError | None:
        place = self._prepared(standing, name)
        place.mkdir(parents=True)
        key = (standing.member.driver, _UNSYNCED)
        if key not in self._running:
            ours = standing.member.ours
            self._running[key] = self._process(standing, sync="normal" if ours else "", forced="" if ours else _UNSYNCED)
            self._running[key].send("stop_observing")
            _swallow(self._running[key].answer)
        process = self._running[key]
        try:
            process.ask("open", path=str(place / _FILE))
            fill(process)
            process.ask("close")
        except PeerError as error:
            shutil.rmtree(place)
            return error
        return None

    def _process(self, standing: Standing, **options: Any) -> Process:
        errors = self.folder / f"{next(self._numbers)}.errors"
        return Process(self.python(standing), standing.member.driver, errors, **options)


def _joined(seen: list[list[str]], place: int) -> str:
    return "/".join(sorted({one[place] for one in seen}))


def _swallow(answer: Callable[[], Any]) -> None:
    try:
        answer()
    except PeerError:
        return
