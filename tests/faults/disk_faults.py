"""A disk that fails: system calls of a writer return ENOSPC or EIO for a while, and the writer tells what its calls raised."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lab

import sessionstore

Action = Callable[[lab.Wire, Path], None]

CHAT = "s"
APPENDS = 30
# The errors that each call of a failing disk returns.
FAILING = {"pwrite64": ("EIO", "ENOSPC"), "fdatasync": ("EIO",), "ftruncate": ("EIO", "ENOSPC")}
# Nothing here waits for longer than a few seconds.
LONGEST = 60
TYPED = ("DiskFullError", "StoreIOError")
OPENING = (*TYPED, "StoreOpenError", "StoreCorruptError", "UpgradeError", "StoreBusyError")


def text_of(n: int) -> str:
    """The text of the nth message."""
    return f"message {n} " + "z" * (n * 331 % 3000)


def try_append(wire: lab.Wire, store: sessionstore.SessionStore, n: int) -> bool:
    """Append, and say what came of it; after a failure, reading must still work."""
    try:
        wire.say("ACK", n, store.append(CHAT, "user", text_of(n)).seq)
    except sessionstore.SessionStoreError as error:
        wire.say("ERROR", n, type(error).__name__)
        store.messages(CHAT)
        return False
    return True


def append_through_a_fault(wire: lab.Wire, path: Path) -> None:
    lab.checkpoint_often(10)
    store = sessionstore.open(path)
    # A reader that is there keeps SQLite's shared memory; to make it anew would need the disk.
    store.messages(CHAT)
    wire.wait()
    for n in range(APPENDS):
        try_append(wire, store, n)
    wire.say("AFTER", [message.text for message in store.messages(CHAT)])
    store.close()


def open_through_a_fault(wire: lab.Wire, path: Path) -> None:
    wire.wait()
    store = None
    for _ in range(20):
        try:
            store = sessionstore.open(path)
            store.session(CHAT)
        except sessionstore.SessionStoreError as error:
            wire.say("ERROR", -1, type(error).__name__)
        else:
            for n in range(3):
                try_append(wire, store, n)
            wire.say("AFTER", [message.text for message in store.messages(CHAT)])
            break
    else:
        # A disk that goes on failing lets no session be made.
        wire.say("AFTER", [])
    if store is not None:
        store.close()


def append_under_a_size_limit(wire: lab.Wire, path: Path) -> None:
    """The operating system refuses to let any file grow, as a quota does; then it allows it again."""
    store = sessionstore.open(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    failed = sum(not try_append(wire, store, n) for n in range(APPENDS * 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert try_append(wire, store, APPENDS * 3)
    wire.say("AFTER", [message.text for message in store.messages(CHAT)])
    wire.say("FAILED", failed)
    store.close()


def append_until_the_disk_is_full(wire: lab.Wire, path: Path) -> None:
    """Fill a small file system, then make room: for all that the log holds, since that is copied into the database."""
    ballast = path.with_name("ballast")
    ballast.write_bytes(bytes(1 << 20))
    store = sessionstore.open(path)
    store.session(CHAT)
    failed = sum(not try_append(wire, store, n) for n in range(300))
    store.close()
    # The log cannot be copied now; what it holds can be read all the same.
    store = sessionstore.open(path)
    wire.say("FULL", len(store.messages(CHAT)))
    ballast.unlink()
    assert try_append(wire, store, 300)
    wire.say("AFTER", [message.text for message in store.messages(CHAT)])
    wire.say("FAILED", failed)
    store.close()


def judge(lines: list[list[Any]], found: dict[str, Any], allowed: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """The figures of one run, and what is wrong with it."""
    acked = [line[1] for line in lines if line[0] == "ACK"]
    errors = [line for line in lines if line[0] == "ERROR"]
    stored = [text for _, text in found["sessions"].get(CHAT, [])]
    wrong = list(found["wrong"]) + [f"the writer failed: {line[1]}" for line in lines if line[0] == "CRASH"]
    wrong += [f"{line[2]} is not the error for this" for line in errors if line[2] not in allowed]
    after = [line[1] for line in lines if line[0] == "AFTER"]
    expected = [text_of(n) for n in acked]
    full = [line[1] for line in lines if line[0] == "FULL"]
    if full and full != [len(expected) - 1]:
        wrong.append("a store that was opened on a full disk does not show what was acknowledged")
    if after != [expected]:
        wrong.append("the running store does not show exactly what it acknowledged")
    if stored != expected and stored not in [[*expected, text_of(n)] for n in failed_last(lines)]:
        wrong.append(f"the file holds {len(stored)} messages, {len(expected)} were acknowledged")
    return {"acked": len(acked), "errors": len(errors), "lost": len(set(expected) - set(stored))}, wrong


def failed_last(lines: list[list[Any]]) -> list[int]:
    """The messages that failed after the last success.

    One whose sync failed stands in the log, whole, and only a later write overwrites it there. If the program ends without one,
    the next opening finds it: no call can take back what a failing disk does not let it erase.
    """
    last = max((number for number, line in enumerate(lines) if line[0] == "ACK"), default=-1)
    return [line[1] for line in lines[last + 1 :] if line[0] == "ERROR"]


def run(action: Action, path: Path, inject: str, allowed: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """One run with a fault; the file is looked at afterwards by a third process."""

    def act(wire: lab.Wire) -> None:
        signal.alarm(LONGEST)
        action(wire, path)

    child = lab.Child(act)
    syscall = inject.partition(":")[0]
    child.ready()
    with lab.traced(child.pid, "-e", f"trace={syscall}", "-e", f"inject={inject}", log=Path(os.devnull)):
        child.go()
        lines = child.rest()
        hung = child.end() == -signal.SIGALRM
    figures, wrong = judge(lines, lab.ask(partial(lab.examine, str(path))), allowed)
    return figures, [f"it did not end within {LONGEST} s"] if hung else wrong


def make_base(folder: Path) -> Path:
    """A store with an empty session."""

    def make(wire: lab.Wire) -> None:
        with sessionstore.open(base) as store:
            store.session(CHAT)

    base = folder / "base.db"
    child = lab.Child(make)
    assert child.rest() == []
    child.end()
    return base


def count_calls(action: Action, base: Path, folder: Path) -> dict[str, int]:
    """How often an action makes each of the calls that may fail, if none does."""
    path, log = folder / f"count-{action.__name__}.db", folder / f"count-{action.__name__}.log"
    if action is append_through_a_fault:
        lab.copy_store(base, path)
    child = lab.Child(partial(action, path=path))
    child.ready()
    with lab.traced(child.pid, "-e", "trace=" + ",".join(FAILING), log=log):
        child.go()
        child.rest()
        child.end()
    return Counter(re.findall(rf"\b({'|'.join(FAILING)})\(", log.read_text()))


def faults(calls: dict[Action, dict[str, int]]) -> list[tuple[Action, str]]:
    """Every call once, with each error: it alone fails, or all from it on, or some."""
    return [
        (action, f"{syscall}:error={error}:when={n}{how}")
        for action, counts in calls.items()
        for syscall, errors in FAILING.items()
        for n in range(1, counts.get(syscall, 0) + 1)
        for error in errors
        for how in ("", "+", *([f"..{n + 5}"] if n % 3 == 0 else []))
    ]


def inject_faults(folder: Path, most: int, seed: int, hands: int = 4) -> dict[str, Any]:
    """Appends and openings through `most` of all faults, chosen at random, or through all if it is 0."""
    base = make_base(folder)
    actions = (append_through_a_fault, open_through_a_fault)
    known = faults({action: count_calls(action, base, folder) for action in actions})
    chosen = known if most == 0 else random.Random(seed).sample(known, min(most, len(known)))

    def suffer(number: int) -> tuple[dict[str, int], list[str]]:
        action, inject = chosen[number]
        path = folder / f"fault-{number}.db"
        if action is append_through_a_fault:
            lab.copy_store(base, path)
        figures, wrong = run(action, path, inject, TYPED if action is append_through_a_fault else OPENING)
        for file in lab.files_of(path):
            file.unlink()
        return figures | {"faulty": int(figures["errors"] > 0)}, [f"{action.__name__}, {inject}: {each}" for each in wrong]

    results = lab.spread(suffer, range(len(chosen)), hands)
    totals = lab.added([figures for figures, _ in results])
    return {
        "runs": len(chosen),
        "of": len(known),
        "seed": seed,
        **totals,
        "problems": [each for _, wrong in results for each in wrong],
    }


def limit_size(folder: Path) -> dict[str, Any]:
    """Appends against a limit of the file size."""
    base = make_base(folder)
    child = lab.Child(partial(append_under_a_size_limit, path=base))
    lines = child.rest()
    child.end()
    figures, wrong = judge(lines, lab.ask(partial(lab.examine, str(base))), TYPED)
    return {**figures, "problems": wrong}


def fill_disk(folder: Path) -> dict[str, Any]:
    """Appends until a file system of two megabytes is full; needs the right to mount."""
    mount = folder / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        return {"skipped": "may not mount"}
    try:
        path = mount / "a.db"
        child = lab.Child(partial(append_until_the_disk_is_full, path=path))
        lines = child.rest()
        child.end()
        figures, wrong = judge(lines, lab.ask(partial(lab.examine, str(path))), ("DiskFullError",))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    return {**figures, "problems": wrong}


def main(folder: str, what: str, **given: Any) -> dict[str, Any]:
    """Run one of the campaigns."""
    lab.warm_up()
    campaigns: dict[str, Callable[..., dict[str, Any]]] = {"inject": inject_faults, "limit": limit_size, "fill": fill_disk}
    return campaigns[what](Path(folder), **given)


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
