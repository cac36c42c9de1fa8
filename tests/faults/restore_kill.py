"""Kill a process while it backs up, restores or vacuums: after a random time, or at each system call that changes files.

This process never opens a store: children make, restore and examine it. Run by hand:
python restore_kill.py '{"folder": "/tmp/x", "kills": 100, "points": 0, "seed": 1}'
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lab

import sessionstore
from sessionstore.database import restores

SYSCALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "link", "mkdir", "rmdir")
OLD, NEW = "old", "new"
ROWS = {OLD: 240, NEW: 160}
FRESH = 20
PAD = 2_000
STORE, BACKUP, COPY = "agent.db", "backup.db", "copy.db"
DAMAGE = b"no database any more" * 50


def fill(path: Path, name: str, *, die: bool) -> None:
    """A store with some messages, and, of a writer that is killed, some more in its log."""

    def write(wire: lab.Wire) -> None:
        store = sessionstore.open(path)
        chat = store.session(name)
        chat.append_many([{"role": "user", "content": text_of(name, seq)} for seq in range(1, ROWS[name] + 1)])
        # Room that a vacuum can give back.
        waste = store.session("waste")
        waste.append_many([{"role": "user", "content": "x" * PAD} for _ in range(ROWS[name])])
        store.delete("waste")
        if not die:
            store.close()
            return
        for seq in range(ROWS[name] + 1, ROWS[name] + FRESH + 1):
            chat.append("user", text_of(name, seq))
        wire.wait()

    child = lab.Child(write)
    if die:
        child.ready()
        child.kill()
    said = child.rest()
    assert not said, said
    child.end()


def text_of(name: str, seq: int) -> str:
    """The text of a message, which its place foretells."""
    return f"{name} {seq} " + "x" * (PAD - seq % 100)


def expected(name: str, path: Path) -> dict[str, list[list[Any]]]:
    """What a store of that name holds: the old one was killed, so that its newest messages are in the log."""
    fresh = FRESH if (name == OLD and path.name == STORE) else 0
    return {name: [[seq, text_of(name, seq)] for seq in range(1, ROWS[name] + fresh + 1)]}


def back_up(wire: lab.Wire, folder: Path) -> None:
    store = sessionstore.open(folder / STORE)
    wire.wait()
    store.backup(folder / COPY, overwrite=True)
    wire.say("DONE")


def restore(wire: lab.Wire, folder: Path) -> None:
    wire.wait()
    sessionstore.restore(folder / BACKUP, folder / STORE)
    wire.say("DONE")


def vacuum(wire: lab.Wire, folder: Path, *, full: bool) -> None:
    store = sessionstore.open(folder / STORE)
    wire.wait()
    store.vacuum(full=full)
    wire.say("DONE")


Action = Callable[[lab.Wire, Path], None]
OPERATIONS: dict[str, Action] = {
    "backup": back_up,
    "restore": restore,
    "restore onto nothing": restore,
    "restore onto damage": restore,
    "vacuum": partial(vacuum, full=False),
    "full vacuum": partial(vacuum, full=True),
}


def prepare(operation: str, base: Path, folder: Path) -> None:
    """The files that an operation finds."""
    folder.mkdir()
    for file in base.iterdir():
        shutil.copyfile(file, folder / file.name)
    if operation == "restore onto nothing":
        (folder / STORE).unlink()
    if operation == "restore onto damage":
        (folder / STORE).write_bytes(DAMAGE)
    if operation == "backup":
        shutil.copyfile(folder / BACKUP, folder / COPY)


def problems_after(operation: str, folder: Path, base: Path, *, done: bool) -> list[str]:
    """What is wrong with the files after the kill, and what became of them in the words of the figures."""
    path = folder / STORE
    wrong: list[str] = []
    if operation == "backup":
        wrong += of_store(folder / COPY, [expected(OLD, path)] if done else [expected(OLD, path), expected(NEW, folder / COPY)])
        wrong += of_store(path, [expected(OLD, path)])
        # The next one clears up what the killed one left.
        wrong += lab.ask(partial(_back_up_again, folder))
        wrong += leftovers(folder, ".partial")
    elif operation.startswith("restore"):
        new = expected(NEW, folder / BACKUP)
        if operation == "restore onto nothing" and not done:
            wrong += of_new_place(folder, base, new)
        elif operation == "restore onto damage" and not done:
            wrong += of_damage(folder, base, new)
        else:
            wrong += of_store(path, [new] if done else [expected(OLD, path), new])
        wrong += lab.ask(partial(_restore_again, folder))
        wrong += of_store(path, [new])
        wrong += leftovers(folder, ".restore-")
    else:
        wrong += of_store(path, [expected(OLD, path)])
    return wrong


def of_store(path: Path, allowed: list[dict[str, Any]]) -> list[str]:
    """Open it as a store and as a database, and compare all that it holds."""
    found = lab.ask(partial(lab.examine, str(path)))
    wrong = [f"{path.name}: {problem}" for problem in found["wrong"]]
    if found["sessions"] not in allowed:
        wrong.append(f"{path.name} holds { {name: len(rows) for name, rows in found['sessions'].items()} }")
    return wrong


def of_new_place(folder: Path, base: Path, new: dict[str, Any]) -> list[str]:
    """Nothing, or the whole new store; and the stale log has gone nowhere but aside."""
    lab.ask(partial(_settle, folder))
    if (folder / STORE).exists():
        return of_store(folder / STORE, [new])
    return same_bytes(folder, base, STORE + "-wal")


def of_damage(folder: Path, base: Path, new: dict[str, Any]) -> list[str]:
    """The damaged file and its log, byte by byte, or the new store."""
    lab.ask(partial(_settle, folder))
    if (folder / STORE).read_bytes() != DAMAGE:
        return of_store(folder / STORE, [new])
    return same_bytes(folder, base, STORE + "-wal")


def same_bytes(folder: Path, base: Path, name: str) -> list[str]:
    found, before = folder / name, base / name
    if not found.exists():
        return [f"{name} is gone"]
    same = hashlib.sha256(found.read_bytes()).digest() == hashlib.sha256(before.read_bytes()).digest()
    return [] if same else [f"{name} is another one"]


def leftovers(folder: Path, word: str) -> list[str]:
    """Names of unfinished work."""
    return [f"left behind: {file.name}" for file in folder.iterdir() if word in file.name and restores.KEPT_INFIX not in file.name]


def _settle(folder: Path) -> None:
    restores.settle(folder / STORE, timeout=10)


def _restore_again(folder: Path) -> list[str]:
    receipt = sessionstore.restore(folder / BACKUP, folder / STORE)
    return [] if receipt.messages == ROWS[NEW] else [f"the next restore holds {receipt.messages}"]


def _back_up_again(folder: Path) -> list[str]:
    with sessionstore.open(folder / STORE) as store:
        receipt = store.backup(folder / COPY, overwrite=True)
    return [] if receipt.messages == ROWS[OLD] + FRESH else [f"the next backup holds {receipt.messages}"]


def run_and_kill(operation: str, folder: Path, seconds: float | None) -> tuple[bool, bool]:
    """Do it and kill it after some time: whether it said that it was done, and whether it was killed."""
    child = lab.Child(lambda wire: OPERATIONS[operation](wire, folder))
    child.ready()
    child.go()
    if seconds is not None:
        time.sleep(seconds)
        child.kill()
    lines = child.rest()
    code = child.end()
    assert not [line for line in lines if line[0] == "CRASH"], lines
    return ["DONE"] in lines, code < 0


def run_traced(operation: str, folder: Path, log: Path, *options: str) -> tuple[bool, bool]:
    """Do it under strace, which may kill it."""
    child = lab.Child(lambda wire: OPERATIONS[operation](wire, folder))
    child.ready()
    with lab.traced(child.pid, *options, log=log):
        child.go()
        lines = child.rest()
        code = child.end()
    assert not [line for line in lines if line[0] == "CRASH"], lines
    return ["DONE"] in lines, code != 0


def random_kills(place: Path, base: Path, count: int, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Kill after a random part of the time that the operation takes."""
    longest: dict[str, float] = {}
    for operation in OPERATIONS:
        folder = place / f"timed {operation}"
        prepare(operation, base, folder)
        begun = time.monotonic()
        assert run_and_kill(operation, folder, None) == (True, False)
        # The first one is slower than the others will be.
        longest[operation] = (time.monotonic() - begun) * 0.8
    figures: Counter[str] = Counter()
    problems: list[str] = []
    names = list(OPERATIONS)
    for number in range(count):
        operation, folder = names[number % len(names)], place / f"kill-{number}"
        prepare(operation, base, folder)
        done, killed = run_and_kill(operation, folder, chance.uniform(0, longest[operation] * 0.9))
        figures.update(killed=killed, done=done)
        problems += [f"{operation}, kill {number}: {each}" for each in problems_after(operation, folder, base, done=done)]
        shutil.rmtree(folder)
    return figures, problems


def kill_points(place: Path, base: Path, most: int, chance: random.Random, hands: int) -> tuple[Counter[str], list[str]]:
    """Kill at the system calls, `most` of them chosen at random, or all of them if it is 0."""
    log = place / "strace.log"
    points: list[tuple[str, str, int]] = []
    for operation in OPERATIONS:
        folder = place / f"counted {operation}"
        prepare(operation, base, folder)
        done, _ = run_traced(operation, folder, log, "-e", "trace=" + ",".join(SYSCALLS))
        assert done
        calls = Counter(re.findall(rf"\b({'|'.join(SYSCALLS)})\(", log.read_text()))
        points += [(operation, call, n) for call, found in sorted(calls.items()) for n in range(1, found + 1)]
    # Renames and the like are few, writes are many; the few are where it could go wrong.
    few = [point for point in points if point[1] != "pwrite64"]
    many = [point for point in points if point[1] == "pwrite64"]
    chosen = points if most == 0 else chance.sample(few, min(len(few), most)) + chance.sample(many, min(len(many), most // 4))

    def kill_at(point: tuple[str, str, int]) -> tuple[bool, list[str]]:
        operation, call, n = point
        folder = place / f"{operation} {call} {n}"
        prepare(operation, base, folder)
        inject = f"inject={call}:signal=SIGKILL:when={n}"
        done, killed = run_traced(operation, folder, Path("/dev/null"), "-e", f"trace={call}", "-e", inject)
        wrong = [f"{operation}, {call} {n}: {each}" for each in problems_after(operation, folder, base, done=done)]
        shutil.rmtree(folder)
        return killed, wrong

    results = lab.spread(kill_at, chosen, hands)
    figures = Counter(points=len(chosen), of=len(points), killed=sum(killed for killed, _ in results))
    return figures, [each for _, wrong in results for each in wrong]


def main(folder: str, seed: int, kills: int = 0, points: int | None = None, hands: int = 4) -> dict[str, Any]:
    """Random kills, or kills at system calls."""
    lab.warm_up()
    place = Path(folder)
    base = place / "base"
    base.mkdir()
    fill(base / STORE, OLD, die=True)
    fill(base / BACKUP, NEW, die=False)
    (base / (BACKUP + "-lock")).unlink(missing_ok=True)
    chance = random.Random(seed)
    if points is not None:
        figures, problems = kill_points(place, base, points, chance, hands)
    else:
        figures, problems = random_kills(place, base, kills, chance)
    return {**figures, "seed": seed, "problems": problems}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
