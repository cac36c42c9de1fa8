"""Exporting: the memory that a process has while it writes a million messages to a file, and how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sessionstore

from . import texts
from .bench import Bench, Item, Row, Target
from .cold import peak_mb
from .timing import Figure

_MEMORY_MB: Final = Target(150, of="store", every_round=True)
_MESSAGES_A_SESSION: Final = 1_000
# One takes long, and they are much alike.
_ROUNDS: Final = 1
_ROOT: Final = Path(__file__).parent.parent


def exports(bench: Bench) -> Iterator[Row]:
    """The lossless format, in fresh processes."""
    count, rounds = bench.scale.crowd, min(_ROUNDS, bench.scale.rounds)
    with bench.place() as place:
        path = bench.new_file(place, "store")
        _fill(path, count)
        told = [_one_export(path, place / "messages.jsonl", count) for _ in range(rounds)]
    memory, seconds = (Figure(tuple(values)) for values in zip(*told, strict=True))
    yield Row(f"resident memory at most, exporting {count:,} messages", "MB", None, memory, _MEMORY_MB)
    yield Row("  the export", "s", None, seconds)


def _fill(path: Path, count: int) -> None:
    with sessionstore.open(path, durability="normal") as store:
        store.set_search("off")
        for first in range(0, count, _MESSAGES_A_SESSION):
            chat = store.session(f"s{first // _MESSAGES_A_SESSION}")
            chat.append_many(
                [{"role": "user", "content": texts.text(at)} for at in range(first, min(first + _MESSAGES_A_SESSION, count))]
            )


def _one_export(path: Path, target: Path, count: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.exporting", str(path), str(target)]
    messages, memory, seconds = json.loads(subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if messages != count:
        raise AssertionError(f"{messages} of {count} messages were exported")
    return memory, seconds


def main() -> None:
    """The process that exports: its arguments are the file of the store and that of the export."""
    path, target = sys.argv[1:]
    with sessionstore.open(path) as store:
        started = time.perf_counter()
        receipt = store.export_file(target)
        print(json.dumps([receipt.messages, peak_mb(), time.perf_counter() - started]))


ITEMS = (Item("export", "nothing: the target is about memory.", exports),)

if __name__ == "__main__":
    main()
