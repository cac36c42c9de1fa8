"""One work item under cProfile: where the store's own time goes.

Nothing of the store is imported at the top, so that `open` shows what a program's start pays for.
"""

from __future__ import annotations

import cProfile
import pstats
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

_SHOWN = 25
_APPENDS = 3_000
_READS = 100
_LISTS = 300
_MESSAGES = 1_000
_SESSIONS = 2_000
_CONVERSATIONS = 3_000
_DUE = 20_000
_MAKE = "import sys, sessionstore; sessionstore.open(sys.argv[1]).session('session')"

Work = Callable[[], object]


def profile(subject: str, folder: Path) -> None:
    """Print the functions that a work item spends most time in."""
    work, finish = SUBJECTS[subject](folder / "profile.db")
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        work()
    finally:
        profiler.disable()
        finish()
    pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(_SHOWN)


def _append(path: Path) -> tuple[Work, Work]:
    import sessionstore

    from . import texts

    store = sessionstore.open(path, durability="normal")
    chat = store.session("session")
    turns = [texts.turn(number) for number in range(_APPENDS)]
    chat.append_many(turns[0])

    def work() -> None:
        for turn in turns:
            chat.append_many(turn)

    return work, store.close


def _read(path: Path) -> tuple[Work, Work]:
    import sessionstore

    from . import texts

    store = sessionstore.open(path)
    chat = store.session("session")
    chat.append_many(texts.history(_MESSAGES))
    chat.messages(last=1)

    def work() -> None:
        for _ in range(_READS):
            for message in chat.messages():
                message.to_dict()

    return work, store.close


def _list(path: Path) -> tuple[Work, Work]:
    import sessionstore

    store = sessionstore.open(path, durability="normal")
    for number in range(_SESSIONS):
        store.session(f"session-{number}", agent_id=f"agent-{number % 10}", tags=(f"tag-{number % 7}",))
    store.list(agent_id="agent-7")

    def work() -> None:
        for _ in range(_LISTS):
            store.list(agent_id="agent-7")

    return work, store.close


def _conversations(path: Path) -> tuple[Work, Work]:
    import sessionstore

    from .conversations import tracker_of

    store = sessionstore.open(path, durability="normal")
    tracker = tracker_of(store)
    tracker.end_conversation(tracker.start_conversation("agent"))

    def work() -> None:
        for _ in range(_CONVERSATIONS):
            tracker.end_conversation(tracker.start_conversation("agent"), quality_score=4)

    return work, store.close


def _sweep(path: Path) -> tuple[Work, Work]:
    import sessionstore

    from .bench import Bench
    from .crowd import crowd
    from .scale import QUICK

    found = crowd(Bench(path.parent, replace(QUICK, crowd=2 * _DUE)))
    store = sessionstore.open(found.copy(path.parent, path.stem))
    store.sweep(now=found.due_at(1))

    def work() -> None:
        store.sweep(now=found.due_at(_DUE))

    return work, store.close


def _open(path: Path) -> tuple[Work, Work]:
    # In a process of its own: making the file here would import what is to be seen.
    subprocess.run([sys.executable, "-c", _MAKE, str(path)], check=True)
    made: list[Any] = []

    def work() -> None:
        import sessionstore

        store = sessionstore.open(path)
        made.append(store)
        store.session("session").append("user", "And of Italy?")

    def finish() -> None:
        made[0].close()

    return work, finish


SUBJECTS: dict[str, Callable[[Path], tuple[Work, Work]]] = {
    "append": _append,
    "read": _read,
    "list": _list,
    "open": _open,
    "conversations": _conversations,
    "sweep": _sweep,
}
