"""A long mixed load with kills, outages and lost answers: nothing is lost, and memory, descriptors and the log stay flat.

The usual run takes seconds and keeps the soak from rotting; `--tier nightly`, `--tier release` and `--soak-seconds` are long.
"""

from __future__ import annotations

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import proxy
import pytest
from trials import Trial

import sessionstore
from sessionstore.remote.settings import Remote

PROGRAM = Path(__file__).with_name("soak_agents.py")
SECONDS_VARIABLE = "SESSIONSTORE_SOAK_SECONDS"
MIB: Final = 1 << 20
# The first part of a run is not compared: modules are loaded on demand, pools and caches fill.
WARM_UP: Final = 0.3
# What may be added between the first and the last window of the rest. RSS: pages that the allocator keeps for the largest call so
# far, and SQLite's caches of 2 MiB a connection, whatever the length; a run of seconds is still loading modules then. Descriptors
# and threads: a connection to the collector, readers that come when calls overlap, a call that runs in a thread. The log's file:
# where some call always reads, it is begun anew late, and grows to its limit of 16 MiB.
SLACK: Final = {"rss_bytes": 6 * MIB, "descriptors": 6, "threads": 4, "wal_bytes": 16 * MIB, "spare_bytes": 8 * MIB}
SLACK_OF_SECONDS: Final = {**SLACK, "rss_bytes": 32 * MIB, "spare_bytes": 16 * MIB, "descriptors": 16, "threads": 12}
LARGEST_LOG: Final = 24 * MIB


@pytest.fixture
def seconds(request: pytest.FixtureRequest, trial: Trial) -> float:
    """How long the load lasts."""
    given = request.config.getoption("--soak-seconds", default=None) or os.environ.get(SECONDS_VARIABLE)
    return float(given or trial.size(push=3, nightly=300, release=7_200))


class Collector:
    """A real collector at one address, that can be killed and started again."""

    def __init__(self, db: Path) -> None:
        self.db = db
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-W", "error", "-m", "sessionstore", "serve", "--db", str(self.db), "--port", str(self._port)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert line.startswith("listening on"), line + self._process.stderr.read()

    def kill(self) -> None:
        if self._process is not None:
            assert self._process.stderr is not None
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()
            self._process = None


def unreliable(rng: random.Random) -> proxy.Fault:
    """Most requests pass; of some the answer is lost, or the connection."""
    kinds = (proxy.loses_the_answer, proxy.sends_half, proxy.resets, proxy.closes)

    def fault(exchange: proxy.Exchange) -> None:
        # What it keeps for other tests would grow for hours here.
        exchange.proxy.requests.clear()
        proxy.on_events(rng.choice(kinds))(exchange) if rng.random() < 0.05 else proxy.passed(exchange)

    return fault


class Agents:
    """The process under test, and what it told."""

    def __init__(self, path: Path, url: str, seed: int, every: float) -> None:
        settings = {"part": "play", "path": str(path), "url": url, "seed": seed, "every": every}
        self._process = program(settings)
        self.samples: list[dict[str, float]] = []
        self.end: dict[str, Any] = {}
        self._has_begun = threading.Event()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Return when its agents have begun."""
        assert self._has_begun.wait(60)

    def stop(self) -> None:
        """Let it finish what it does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("stop\n")
            self._process.stdin.flush()
        code = self._process.wait(60)
        self.close()
        assert code == 0, "the agents' process failed"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "sample" in told:
                self.samples.append(told["sample"])
                self._has_begun.set()
            else:
                self.end = told


def program(settings: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(PROGRAM), json.dumps(settings)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def kill_a_writer(path: Path, session_id: str, rng: random.Random) -> int:
    """A process that appends, killed at some moment; how many messages it had been told are stored."""
    with program({"part": "write", "path": str(path), "session_id": session_id}) as writer:
        assert writer.stdout is not None
        wanted = rng.randint(1, 40)
        lines = [writer.stdout.readline() for _ in range(wanted)]
        writer.kill()
        lines += writer.stdout.readlines()
    return sum(line.endswith("\n") for line in lines)


class Storm:
    """What happens around the agents: killed writers, a collector that goes away, connections refused."""

    def __init__(self, path: Path, collector: Collector, between: proxy.FaultProxy, rng: random.Random) -> None:
        self._path, self._collector, self._between, self._rng = path, collector, between, rng
        self.kills = self.outages = self.checked = 0
        self.problems: list[str] = []

    def rage(self, agents: Agents, until: float) -> None:
        """Until a moment of the monotonic clock."""
        with sessionstore.open(self._path, durability="normal") as store:
            while time.monotonic() < until and agents.is_running:
                self._kill_a_writer(store)
                pause = min(self._rng.uniform(0, 2), max(0.0, until - time.monotonic()))
                if self._rng.random() < 0.3 or not self.outages:
                    self.outages += 1
                    with self._trouble():
                        time.sleep(pause)
                else:
                    time.sleep(pause)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        if self._rng.random() < 0.5:
            with self._between.refusing():
                yield
            return
        self._collector.kill()
        yield
        self._collector.start()

    def _kill_a_writer(self, store: sessionstore.SessionStore) -> None:
        session_id = f"writer-{self.kills}"
        acked = kill_a_writer(self._path, session_id, self._rng)
        self.kills += 1
        self.checked += acked
        found = [int((message.text or "").split()[0]) for message in store.messages(session_id)]
        # One may have been committed and not been told of.
        if found != list(range(len(found))) or not acked <= len(found) <= acked + 1:
            self.problems.append(f"{session_id}: {acked} acknowledged, found {found}")
        store.delete(session_id)


def windows(samples: list[dict[str, float]], name: str) -> tuple[float, float]:
    """The medians of the first and the last third of what comes after the warm-up."""
    values = [each[name] for each in samples[int(len(samples) * WARM_UP) :]]
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


def growth(samples: list[dict[str, float]], slack: dict[str, float]) -> list[str]:
    """What has grown by more than its slack."""
    found = {name: windows(samples, name) for name in slack}
    return [f"{name} grew from {first:,.0f} to {last:,.0f}" for name, (first, last) in found.items() if last > first + slack[name]]


@pytest.mark.timeout(10_000)
@pytest.mark.fault("F40")
@pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from /proc")
def test_a_long_mixed_load_loses_nothing_and_grows_nowhere(tmp_path: Path, seconds: float, trial: Trial) -> None:
    rng = random.Random(trial.seed)
    path, collector = tmp_path / "agent.db", Collector(tmp_path / "collector.db")
    sessionstore.open(path).close()
    collector.start()
    try:
        with proxy.FaultProxy(SimpleNamespace(url=collector.url, prefix=""), unreliable(rng)) as between:  # type: ignore[arg-type]
            agents = Agents(path, between.url, trial.seed, every=max(0.2, min(5.0, seconds / 60)))
            storm = Storm(path, collector, between, rng)
            try:
                agents.wait()
                storm.rage(agents, time.monotonic() + seconds)
                agents.stop()
            finally:
                agents.close()
        delivered = deliver_the_rest(path, collector)
    finally:
        collector.kill()
    samples, end = agents.samples, agents.end
    if folder := os.environ.get("SESSIONSTORE_SOAK_CURVES"):
        Path(folder, "soak.json").write_text(json.dumps({"samples": samples, "end": end, "kills": storm.kills}))
    assert end["problems"] == []
    assert storm.problems == []
    assert storm.kills > 0
    assert storm.outages > 0
    assert_collected(collector.db, delivered)
    assert growth(samples, SLACK if seconds >= 60 else SLACK_OF_SECONDS) == []
    most = {name: max(each[name] for each in samples) for name in samples[0]}
    assert most["wal_bytes"] < LARGEST_LOG
    assert (most["sweep_failures"], most["drain_failures"]) == (0, 0)
    acked = end["done"]["appended"] + storm.checked
    trial.report(
        f"{seconds:,.0f} s: {acked:,} acknowledged, 0 lost; {storm.kills} writers killed, {storm.outages} outages, "
        f"{delivered:,} events delivered once; at most {most['rss_bytes'] / MIB:.0f} MiB RSS, "
        f"{most['descriptors']:.0f} descriptors, "
        f"{most['threads']:.0f} threads, {most['wal_bytes'] / MIB:.1f} MiB log, {most['outbox']:.0f} events waiting",
        done=end["done"],
        most=most,
        windows={name: windows(samples, name) for name in SLACK},
        samples=len(samples),
    )


def deliver_the_rest(path: Path, collector: Collector) -> int:
    """Deliver what waits, without anything in the way; how many events were delivered in all. The store must be in order."""
    with sessionstore.open(path, durability="normal") as store:
        store.set_remote(Remote(collector.url, allow_http=True), replace=True)
        assert store.flush(timeout=120)
        assert store.doctor().ok
        stats = store.outbox.stats()
        assert (stats.pending, stats.dead, stats.dropped) == (0, 0, 0)
        return stats.sent


def assert_collected(db: Path, delivered: int) -> None:
    """Each event is there once."""
    with sessionstore.open(db) as store:
        assert store.doctor().ok
        assert store.query("SELECT count(*) FROM received_events").rows == ((delivered,),)


def test_growth_is_seen_and_noise_is_not() -> None:
    """The judge of the curves: a slope stands out, a peak and a warm-up do not."""
    flat = [{"rss_bytes": 100.0 + number % 3} for number in range(100)]
    slope = [{"rss_bytes": 100.0 + number} for number in range(100)]
    peak = [*flat[:60], {"rss_bytes": 10_000.0}, *flat[61:]]
    warm = [{"rss_bytes": min(100.0, number * 10)} for number in range(100)]
    assert [bool(growth(each, {"rss_bytes": 20})) for each in (flat, slope, peak, warm)] == [False, True, False, False]
