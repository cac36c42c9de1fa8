"""The kill -9 loop: a writer is killed at a random moment, and what it was told is stored is looked for.

Run by hand: python kill_loop.py '{"folder": "/tmp/x", "cycles": 1000, "seed": 1}'
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import lab

import sessionstore

WORKERS = 4
BATCH = 3
CYCLES_PER_FILE = 8
LONGEST_PAD = 900


def text_of(name: str) -> str:
    """The text of a message, which its name foretells."""
    return name + " " + "x" * (sum(name.encode()) * 37 % LONGEST_PAD)


def session_of(worker: int) -> str:
    """Two workers write into each session."""
    return f"session-{worker // 2}"


def write_alone(wire: lab.Wire, store: sessionstore.SessionStore, name: str) -> None:
    _append_for_ever(wire, store, name, 0)


def write_in_batches(wire: lab.Wire, store: sessionstore.SessionStore, name: str) -> None:
    for n in itertools.count():
        names = [f"{name}/batch{n}/{part}" for part in range(BATCH)]
        stored = store.append_many(session_of(0), [{"role": "user", "content": text_of(each)} for each in names])
        for message, each in zip(stored, names, strict=True):
            wire.say("ACK", session_of(0), message.seq, each)


def write_in_threads(wire: lab.Wire, store: sessionstore.SessionStore, name: str) -> None:
    threads = [threading.Thread(target=_append_for_ever, args=(wire, store, name, worker)) for worker in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write_in_tasks(wire: lab.Wire, store: sessionstore.SessionStore, name: str, backend: str) -> None:
    async def append_for_ever(worker: int) -> None:
        for n in itertools.count():
            each = f"{name}/{worker}/{n}"
            message = await shared.append(session_of(worker), "user", text_of(each))
            wire.say("ACK", session_of(worker), message.seq, each)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for worker in range(WORKERS):
                group.start_soon(append_for_ever, worker)

    shared = sessionstore.AsyncSessionStore(store)
    anyio.run(main, backend=backend)


def _append_for_ever(wire: lab.Wire, store: sessionstore.SessionStore, name: str, worker: int) -> None:
    for n in itertools.count():
        each = f"{name}/{worker}/{n}"
        message = store.append(session_of(worker), "user", text_of(each))
        wire.say("ACK", session_of(worker), message.seq, each)


STYLES = {
    "alone": write_alone,
    "batches": write_in_batches,
    "threads": write_in_threads,
    "asyncio": lambda *given: write_in_tasks(*given, "asyncio"),
    "trio": lambda *given: write_in_tasks(*given, "trio"),
}


def run_and_kill(path: Path, name: str, chance: random.Random) -> tuple[list[list[Any]], bool]:
    """Start a writer, kill it after 2 to 40 ms, and give what it said and whether it had opened the store."""
    durability = chance.choice(("full", "normal"))
    style = chance.choice(list(STYLES))

    def write(wire: lab.Wire) -> None:
        store = sessionstore.open(path, durability=durability)
        for worker in range(0, WORKERS, 2):
            store.session(session_of(worker))
        wire.say("READY")
        STYLES[style](wire, store, name)

    child = lab.Child(write)
    lines = [child.hear()] if chance.random() < 0.6 else []
    time.sleep(chance.uniform(0.002, 0.040))
    child.kill()
    lines += child.rest()
    child.end()
    crashes = [line[1] for line in lines if line[:1] == ["CRASH"]]
    if crashes:
        raise AssertionError(f"the writer failed ({style}, {durability}): {crashes[0]}")
    return [line for line in lines if line[:1] == ["ACK"]], ["READY"] in lines


COUNTED = ("acked", "lost", "unacked", "torn", "killed_opening", "alarms")


def kill_on_one_file(number: int, cycles: int, folder: str, seed: int) -> dict[str, Any]:
    """A file is used for several cycles, so that a crash also follows a crash."""
    chance = random.Random(f"{seed}/{number}")
    path = Path(folder) / f"kill-{number}.db"
    figures = dict.fromkeys(COUNTED, 0)
    problems: list[str] = []
    acked: dict[tuple[str, int], str] = {}
    known = 0
    for cycle in range(cycles):
        acks, opened = run_and_kill(path, f"c{cycle}", chance)
        acked.update({(session, seq): text_of(name) for _, session, seq, name in acks})
        found = lab.ask(lambda: lab.examine(str(path)))
        stored = {(session, seq): text for session, rows in found["sessions"].items() for seq, text in rows}
        lost = [key for key, text in acked.items() if stored.get(key) != text]
        wrong = [*found["wrong"], *(f"lost {key}" for key in lost)]
        wrong += [f"wrong text at {key}" for key, text in stored.items() if text != text_of(text.split(" ")[0])]
        torn, unacked = torn_batches(stored), len(stored) - known - len(acks)
        seen = (len(acks), len(lost), unacked, torn, not opened, len(found["alarms"]))
        figures = lab.added([figures, dict(zip(COUNTED, seen, strict=True))])
        known = len(stored)
        problems += [f"file {number}, cycle {cycle}: {problem}" for problem in wrong]
    return {"figures": figures, "problems": problems}


def main(folder: str, cycles: int, seed: int, hands: int = 2) -> dict[str, Any]:
    """Kill as often as asked."""
    lab.warm_up()
    lengths = [min(CYCLES_PER_FILE, cycles - begun) for begun in range(0, cycles, CYCLES_PER_FILE)]
    parts = lab.spread(lambda task: kill_on_one_file(*task, folder, seed), list(enumerate(lengths)), hands)
    figures = lab.added([part["figures"] for part in parts])
    return {"cycles": cycles, "seed": seed, **figures, "problems": [problem for part in parts for problem in part["problems"]]}


def torn_batches(stored: dict[tuple[str, int], str]) -> int:
    """How many batches are stored in part."""
    parts: dict[str, int] = {}
    for text in stored.values():
        batch, _, part = text.split(" ")[0].rpartition("/")
        if "batch" in batch and part:
            parts[batch] = parts.get(batch, 0) + 1
    return sum(count != BATCH for count in parts.values())


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
