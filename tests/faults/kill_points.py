"""Kill a process at each system call that changes its files: as it makes a store, appends, edits, checkpoints, recovers, closes."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lab

import sessionstore

SYSCALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink")
APPENDS = 12
CHAT = "s"


def text_of(seq: int) -> str:
    """The text of the message at a seq."""
    return f"message {seq} " + "x" * (seq * 331 % 3000)


def append(wire: lab.Wire, store: sessionstore.SessionStore, count: int) -> None:
    """Append, and say which seqs are acknowledged."""
    for _ in range(count):
        last = store.get(CHAT)
        assert last is not None
        wire.say("ACK", store.append(CHAT, "user", text_of(last.last_seq + 1)).seq)


def create(wire: lab.Wire, path: Path) -> None:
    wire.wait()
    store = sessionstore.open(path)
    store.session(CHAT)
    append(wire, store, 1)


def append_only(wire: lab.Wire, path: Path) -> None:
    store = sessionstore.open(path)
    wire.wait()
    append(wire, store, APPENDS)


def append_and_checkpoint(wire: lab.Wire, path: Path) -> None:
    lab.checkpoint_often(8)
    append_only(wire, path)


def recover(wire: lab.Wire, path: Path) -> None:
    """The base file comes with the log of a writer that was killed."""
    wire.wait()
    append(wire, sessionstore.open(path), 1)


def close(wire: lab.Wire, path: Path) -> None:
    store = sessionstore.open(path)
    append(wire, store, 3)
    wire.wait()
    store.close()


def clear(wire: lab.Wire, path: Path) -> None:
    store = sessionstore.open(path)
    wire.wait()
    store.clear(CHAT)


OPERATIONS: dict[str, Callable[[lab.Wire, Path], None]] = {
    "create": create,
    "append": append_only,
    "checkpoint": append_and_checkpoint,
    "recover": recover,
    "close": close,
    "clear": clear,
}


def prepare_base(folder: Path) -> Path:
    """A store with some messages, and a log, as a killed writer leaves them."""
    base = folder / "base.db"

    def write(wire: lab.Wire) -> None:
        store = sessionstore.open(base)
        store.session(CHAT)
        append(wire, store, 20)
        wire.wait()

    child = lab.Child(write)
    assert len(child.ready()) == 20
    child.kill()
    child.end()
    return base


def run_traced(operation: str, path: Path, log: Path, *options: str) -> tuple[list[int], int]:
    """Do one operation under strace; the acknowledged seqs, and the exit code."""
    child = lab.Child(lambda wire: OPERATIONS[operation](wire, path))
    lines = child.ready()
    with lab.traced(child.pid, *options, log=log):
        child.go()
        lines += child.rest()
        code = child.end()
    assert not [line for line in lines if line[0] == "CRASH"], lines
    return [line[1] for line in lines], code


def count_points(operation: str, base: Path, folder: Path) -> Counter[str]:
    """How often an operation makes each of the system calls."""
    log = folder / "strace.log"
    path = folder / f"count-{operation}.db"
    if operation != "create":
        lab.copy_store(base, path)
    _, code = run_traced(operation, path, log, "-e", "trace=" + ",".join(SYSCALLS))
    assert code == 0
    return Counter(re.findall(rf"\b({'|'.join(SYSCALLS)})\(", log.read_text()))


def problems_after(operation: str, found: dict[str, Any], acked: list[int]) -> list[str]:
    """What is wrong with a file after the kill."""
    rows = found["sessions"].get(CHAT, [])
    wrong = list(found["wrong"])
    wrong += [f"wrong text at {seq}" for seq, text in rows if text != text_of(seq)]
    before = 0 if operation == "create" else 20
    least = max([*acked, before])
    if operation == "clear":
        if len(rows) not in (0, before):
            wrong.append(f"half cleared: {len(rows)} of {before}")
    elif not least <= len(rows) <= least + 1:
        wrong.append(f"{len(rows)} messages, {least} were acknowledged")
    return wrong


def main(folder: str, most: int, seed: int) -> dict[str, Any]:
    """Kill at `most` of the points, chosen at random, or at all of them if it is 0."""
    lab.warm_up()
    place = Path(folder)
    base = prepare_base(place)
    points = [
        (operation, syscall, n)
        for operation in OPERATIONS
        for syscall, count in sorted(count_points(operation, base, place).items())
        for n in range(1, count + 1)
    ]
    chosen = points if most == 0 else random.Random(seed).sample(points, min(most, len(points)))
    problems: list[str] = []
    unkilled = alarms = 0
    for number, (operation, syscall, n) in enumerate(chosen):
        path = place / f"point-{number}.db"
        if operation != "create":
            lab.copy_store(base, path)
        inject = f"inject={syscall}:signal=SIGKILL:when={n}"
        acked, code = run_traced(operation, path, Path("/dev/null"), "-e", f"trace={syscall}", "-e", inject)
        unkilled += code == 0
        found = lab.ask(partial(lab.examine, str(path)))
        alarms += len(found["alarms"])
        problems += [f"{operation}, {syscall} {n}: {problem}" for problem in problems_after(operation, found, acked)]
    figures = {"points": len(chosen), "of": len(points), "operations": len(OPERATIONS), "unkilled": unkilled, "alarms": alarms}
    return {**figures, "problems": problems}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
