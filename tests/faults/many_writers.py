"""Eight writers in four processes: each write succeeds within its timeout, and none is lost.

Run by hand: python many_writers.py '{"folder": "/tmp/x", "writes": 80000, "durability": "full"}'
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import lab

import sessionstore

PROCESSES, THREADS = 4, 2
SHARED = "shared"
# An append and a count make two writes.
WRITES_PER_TURN = 2


def make(path: Path) -> None:
    with sessionstore.open(path) as store:
        store.session(SHARED)
        store.set_state(SHARED, {"turns": 0})


def write(wire: lab.Wire, path: Path, process: int, turns: int, durability: str) -> None:
    """Two threads append to one session and count the turns in its state."""
    store = sessionstore.open(path, durability=durability)
    times: list[float] = []
    errors: list[str] = []

    def work(name: str) -> None:
        try:
            for turn in range(turns):
                begun = time.perf_counter()
                store.append(SHARED, "user", f"{name} {turn}")
                between = time.perf_counter()
                store.increment_state(SHARED, "turns")
                times.extend((between - begun, time.perf_counter() - between))
        except sessionstore.SessionStoreError as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=(f"{process}.{number}",)) for number in range(THREADS)]
    wire.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    times.sort()
    wire.say("TIMES", times[:: max(1, len(times) // 1_000)], times[-1] if times else 0.0)
    for error in errors:
        wire.say("ERROR", error)


def look(path: Path, turns: int) -> dict[str, Any]:
    """What came of it: each writer's turns in their order, no seq left out, all counted."""
    with sessionstore.open(path) as store:
        messages = store.messages(SHARED)
        own: dict[str, list[int]] = {}
        for message in messages:
            name, _, turn = str(message.text).partition(" ")
            own.setdefault(name, []).append(int(turn))
        return {
            "appended": len(messages),
            "counted": store.get_state(SHARED, "turns"),
            "in_order": all(numbers == list(range(turns)) for numbers in own.values()),
            "without_holes": [message.seq for message in messages] == list(range(1, len(messages) + 1)),
            "ok": store.doctor().ok,
        }


def main(folder: str, writes: int, durability: str) -> dict[str, Any]:
    """So many writes of all."""
    lab.warm_up()
    path = Path(folder) / f"many-{durability}.db"
    lab.ask(partial(make, path))
    turns = writes // (PROCESSES * THREADS * WRITES_PER_TURN)
    children = [
        lab.Child(partial(write, path=path, process=process, turns=turns, durability=durability)) for process in range(PROCESSES)
    ]
    for child in children:
        child.ready()
    begun = time.monotonic()
    for child in children:
        child.go()
    said = [line for child in children for line in child.rest()]
    seconds = time.monotonic() - begun
    for child in children:
        child.end()
    times = sorted(each for word, *told in said if word == "TIMES" for each in told[0])
    longest = max((told[1] for word, *told in said if word == "TIMES"), default=0.0)
    figures = {
        "writes": turns * PROCESSES * THREADS * WRITES_PER_TURN,
        "seconds": round(seconds, 1),
        **lab.ask(partial(look, path, turns)),
    }
    milliseconds = {"p50": times[len(times) // 2] * 1e3, "p99": times[len(times) * 99 // 100] * 1e3, "longest": longest * 1e3}
    return {**figures, **milliseconds, "problems": [line for line in said if line[0] != "TIMES"]}


def deferred(path: Path) -> str:
    """What SQLite says to a transaction that reads, then writes, if another one wrote in between; it does not wait then."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as first:
        first.execute("BEGIN")
        first.execute("SELECT count(*) FROM messages").fetchall()
        with closing(sqlite3.connect(path, isolation_level=None)) as second:
            second.execute("UPDATE store_info SET created_at = created_at")
        try:
            first.execute("UPDATE store_info SET created_at = created_at")
        except sqlite3.OperationalError as error:
            return error.sqlite_errorname
    return "nothing"


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
