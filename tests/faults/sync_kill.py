"""F4 as a campaign: three drainers on one file and a collector, all killed at random moments, and every event arrives once.

Run by the tests with its arguments as JSON; it prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sessionstore
from sessionstore.remote.settings import Remote

DRAINERS = 3
STREAMS = 40
DRAINER = Path(__file__).with_name("drainer.py")
LONGEST = 900


def main(*, folder: str, rows: int, kills: int, seed: int) -> dict[str, Any]:
    """Record events, let them be delivered under kills, and compare both sides."""
    place = Path(folder)
    agent, collector = place / "agent.db", place / "collector.db"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    recorded = record(agent, url, rows)
    started = time.monotonic()
    done = kill_around(agent, collector, port, kills=kills, limit=max(1, rows // kills // 4), rng=random.Random(seed))
    figures = compare(collector, recorded)
    return {**figures, **done, "rows": rows, "seed": seed, "seconds": round(time.monotonic() - started, 1)}


def record(path: Path, url: str, rows: int) -> dict[str, list[float]]:
    """Figures of many sessions, mixed, each session's counting up."""
    told: dict[str, list[float]] = {f"s{number}": [] for number in range(STREAMS)}
    remote = Remote(url, timeout=0.4)
    with sessionstore.open(path, durability="normal", remote=remote) as store:
        for number in range(rows):
            session_id = f"s{number % STREAMS}"
            store.record("count", number, session_id=session_id)
            told[session_id].append(float(number))
        store.close(drain_timeout=0)
    return told


def kill_around(agent: Path, collector: Path, port: int, *, kills: int, limit: int, rng: random.Random) -> dict[str, int]:
    """Keep a collector and the drainers running, and kill one of them whenever some events were delivered, until all are."""
    commands = {"collector": [sys.executable, "-m", "sessionstore", "serve", "--db", str(collector), "--port", str(port)]}
    for number in range(DRAINERS):
        commands[f"drainer{number}"] = [sys.executable, str(DRAINER), str(agent), f"http://127.0.0.1:{port}", str(limit)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    done = 0
    end = time.monotonic() + LONGEST
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            running[name] = stack.enter_context(process(command))
        before = waiting = left(agent)
        while waiting and time.monotonic() < end:
            time.sleep(rng.uniform(0.01, 0.1))
            waiting = left(agent)
            if done < kills and 0 < waiting < before:
                name = rng.choice(list(commands))
                running[name].kill()
                running[name].wait()
                done, before = done + 1, waiting
            for name, child in running.items():
                if child.poll() is not None:
                    running[name] = stack.enter_context(process(commands[name]))
    return {"kills_while_delivering": done}


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that does not outlive this campaign."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            yield child
        finally:
            child.kill()


def left(path: Path) -> int:
    """How many events are in the outbox."""
    with sessionstore.open(path, remote=None, read_only=True) as store:
        return int(store.query("SELECT count(*) FROM outbox").rows[0][0])


def compare(collector: Path, recorded: dict[str, list[float]]) -> dict[str, Any]:
    """What arrived, by session, in the order in which it was stored."""
    with sessionstore.open(collector, remote=None) as store:
        rows = store.query("SELECT session_id, value FROM metric_events ORDER BY id", limit=None).rows
        keys = int(store.query("SELECT count(*) FROM received_events").rows[0][0])
    arrived: dict[str, list[float]] = {session_id: [] for session_id in recorded}
    for session_id, value in rows:
        arrived[session_id].append(value)
    return {
        "stored": len(rows),
        "keys": keys,
        "lost": sum(len(set(told) - set(arrived[name])) for name, told in recorded.items()),
        "duplicates": sum(len(values) - len(set(values)) for values in arrived.values()),
        "reordered": sum(values != sorted(values) for values in arrived.values()),
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
