"""Kill a process at each system call that changes its files, whatever a store may be doing just then.

Run by hand: python kill_points.py '{"folder": "/tmp/x", "most": 0, "seed": 1}'
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lab
from kill_operations import OPERATIONS, serve

SYSCALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "rename", "link", "openat")


@contextmanager
def backend_of(operation: str) -> Iterator[tuple[lab.Child | None, str]]:
    """A backend in a process of its own, if an operation needs one."""
    if not OPERATIONS[operation].needs_backend:
        yield None, ""
        return
    child = lab.Child(serve)
    ((_, url),) = child.ready()
    try:
        yield child, url
    finally:
        child.kill()
        child.end()


def run_traced(operation: str, path: Path, url: str, log: Path, *options: str) -> tuple[list[int], int]:
    """Do one operation under strace; the acknowledged seqs, and the exit code."""
    child = lab.Child(lambda wire: OPERATIONS[operation].act(wire, path, url))
    lines = child.ready()
    with lab.traced(child.pid, *options, log=log):
        child.go()
        lines += child.rest()
        code = child.end()
    assert not [line for line in lines if line[0] == "CRASH"], lines
    return [line[1] for line in lines], code


def prepared(operation: str, bases: Path, folder: Path, name: str) -> Path:
    """The path of a file for a run, in a folder of its own."""
    place = folder / name
    place.mkdir()
    path = place / "agent.db"
    if OPERATIONS[operation].base is not None:
        lab.copy_store(bases / operation / "agent.db", path)
    return path


def make_base(operation: str, bases: Path) -> None:
    """The file that an operation finds."""
    make = OPERATIONS[operation].base
    if make is not None:
        (bases / operation).mkdir(parents=True)
        make(bases / operation / "agent.db")


def count_points(operation: str, bases: Path, folder: Path) -> dict[str, int]:
    """How often an operation makes each of the system calls."""
    make_base(operation, bases)
    path = prepared(operation, bases, folder, f"count {operation}")
    log = path.with_name("strace.log")
    with backend_of(operation) as (_, url):
        _, code = run_traced(operation, path, url, log, "-e", "trace=" + ",".join(SYSCALLS))
    assert code == 0
    return Counter(re.findall(rf"\b({'|'.join(SYSCALLS)})\(", log.read_text()))


def kill_at(point: tuple[str, str, int], bases: Path, folder: Path) -> dict[str, Any]:
    """Kill an operation at its nth call of a kind: what is wrong afterwards, and whether it was killed at all."""
    operation, syscall, n = point
    path = prepared(operation, bases, folder, f"{operation} {syscall} {n}")
    inject = f"inject={syscall}:signal=SIGKILL:when={n}"
    with backend_of(operation) as (backend, url):
        acked, code = run_traced(operation, path, url, Path("/dev/null"), "-e", f"trace={syscall}", "-e", inject)
        wrong = OPERATIONS[operation].judge(path, acked, backend)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    return {"unkilled": code == 0, "wrong": wrong}


def sample(points: list[tuple[str, str, int]], most: int, chance: random.Random) -> list[tuple[str, str, int]]:
    """So many points, of each operation and of each of its kinds of call some."""
    groups: dict[tuple[str, str], list[tuple[str, str, int]]] = {}
    for point in points:
        groups.setdefault(point[:2], []).append(point)
    waiting = [chance.sample(group, len(group)) for group in groups.values()]
    chance.shuffle(waiting)
    chosen: list[tuple[str, str, int]] = []
    while waiting and len(chosen) < most:
        waiting = [group for group in waiting if group]
        chosen += [group.pop() for group in waiting]
    return chosen[:most]


def main(folder: str, most: int, seed: int, leave_out: Sequence[str] = (), hands: int = 4) -> dict[str, Any]:
    """Kill at `most` of the points, chosen at random, or at all of them if it is 0."""
    lab.warm_up()
    place, bases = Path(folder), Path(folder) / "bases"
    operations = [name for name in OPERATIONS if name not in leave_out]
    counts = lab.spread(lambda operation: count_points(operation, bases, place), operations, hands)
    points = [
        (operation, syscall, n)
        for operation, found in zip(operations, counts, strict=True)
        for syscall, count in sorted(found.items())
        for n in range(1, count + 1)
    ]
    chosen = points if most == 0 else sample(points, most, random.Random(seed))
    results = lab.spread(lambda point: kill_at(point, bases, place), chosen, hands)
    problems = [
        f"{operation}, {syscall} {n}: {problem}"
        for (operation, syscall, n), result in zip(chosen, results, strict=True)
        for problem in result["wrong"]
    ]
    return {
        "points": len(chosen),
        "of": len(points),
        "operations": {name: sum(found.values()) for name, found in zip(operations, counts, strict=True)},
        "unkilled": sum(result["unkilled"] for result in results),
        "problems": problems,
    }


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
