"""One of the processes of `benchmarks.processes`: opens the file, waits for the word, appends, and reports."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from . import texts


@dataclass(frozen=True, slots=True)
class Report:
    """What a process did; times are the system clock's, in seconds."""

    began: float
    ended: float
    appended: int
    worst: float


def main() -> None:
    """Work as the command line says: side, file, session, turns."""
    side, path, session_id, turns = sys.argv[1:]
    with ExitStack() as stack:
        append, failures = (_raw if side == "raw" else _store)(Path(path), session_id, stack)
        texts.turn(0)
        print("ready", flush=True)
        sys.stdin.readline()
        report = _append_all(append, failures, int(turns))
    print(json.dumps(asdict(report)))


def _append_all(append: Callable[[int], object], failures: type[Exception], turns: int) -> Report:
    appended = 0
    worst = 0.0
    began = time.time()
    for number in range(turns):
        started = time.perf_counter()
        try:
            append(number)
            appended += 1
        except failures as error:
            print(error, file=sys.stderr)
        worst = max(worst, time.perf_counter() - started)
    return Report(began, time.time(), appended, worst)


def _raw(path: Path, session_id: str, stack: ExitStack) -> tuple[Callable[[int], object], type[Exception]]:
    from .raw import RawStore

    raw = stack.enter_context(RawStore(path, retry=True))
    return lambda number: raw.append(session_id, texts.turn(number)), sqlite3.Error


def _store(path: Path, session_id: str, stack: ExitStack) -> tuple[Callable[[int], object], type[Exception]]:
    import sessionstore

    chat = stack.enter_context(sessionstore.open(path)).session(session_id)
    return lambda number: chat.append_many(texts.turn(number)), sessionstore.SessionStoreError


if __name__ == "__main__":
    main()
