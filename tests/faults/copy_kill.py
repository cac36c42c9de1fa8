"""Kill a process while it copies a store, and copy again: the source is untouched, the target whole, and nothing comes twice.

This process never opens a store: children make, copy and examine it. Run by hand:
python copy_kill.py '{"folder": "/tmp/x", "kills": 100, "seed": 1}'
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import lab

import sessionstore
from sessionstore.formats import native

SOURCE, TARGET = "agent.db", "copy.db"
FAMILIES = 30
MESSAGES = 40
BIG = "large, " * 12_000
TABLES = ("messages", "blobs", "superseded_messages", "metric_events", "agent_activity", "agents", "sessions")


def fill(path: Path) -> None:
    """A store of families of forks, with all else that there is."""
    with sessionstore.open(path, durability="normal") as store:
        for number in range(FAMILIES):
            chat = store.session(f"s{number}", user_id=f"u{number % 3}", agent_id="a", tags=["t"])
            chat.append_many([{"role": "user", "content": f"{number} {each}"} for each in range(MESSAGES)])
            chat.fork(f"s{number}-fork", at=MESSAGES // 2).append("user", BIG + str(number % 5))
            chat.replace_range(5, 9, [{"role": "user", "content": "shorter"}])
            store.set_state(chat.session_id, {"n": number})
            store.record("cost", float(number), session_id=chat.session_id)
            store.record("twice", 1.0)
            store.log_activity("a", "worked", {"n": number})
        store.register_agent("a")


def content(path: Path) -> dict[str, Any]:
    """All that a store holds, as JSON has it, and what is wrong with it."""
    with sessionstore.open(path) as store:
        names = sorted(info.session_id for info in store.list(limit=1000))
        return {
            "wrong": [check.name for check in store.doctor().checks if not check.ok],
            "counts": {name: store.query(f"SELECT count(*) FROM {name}").rows[0][0] for name in TABLES},
            "sessions": {name: [native.message_object(message) for message in store.messages(name)] for name in names},
            "state": {name: store.state(name) for name in names},
            "parents": {name: parent.session_id for name in names if (parent := store.parent(name)) is not None},
        }


def copy(wire: lab.Wire, folder: Path) -> None:
    """Copy, and tell how many sessions were written."""
    store = sessionstore.open(folder / SOURCE)
    wire.wait()
    receipt = store.copy_to(folder / TARGET)
    wire.say("DONE", receipt.copied, receipt.equal)
    store.close()


def problems_of_part(found: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """What is wrong with a copy that was cut off: each session that is there must be whole."""
    wrong = [f"{name} is not right" for name in found["wrong"]]
    wrong += [f"{name} is not whole" for name, held in found["sessions"].items() if held != whole["sessions"].get(name)]
    wrong += [f"the state of {name} is not whole" for name, held in found["state"].items() if held != whole["state"].get(name)]
    return wrong + [f"too many {name}" for name in TABLES if found["counts"][name] > whole["counts"][name]]


def take_time(folder: Path) -> float:
    """How long a whole copy takes."""
    child = lab.Child(partial(copy, folder=folder))
    child.ready()
    begun = time.monotonic()
    child.go()
    child.expect("DONE")
    took = time.monotonic() - begun
    child.end()
    (folder / TARGET).unlink()
    return took


def main(folder: str, seed: int, kills: int) -> dict[str, Any]:
    """Kill each copy some times before it may come to its end."""
    lab.warm_up()
    place = Path(folder)
    lab.ask(partial(fill, place / SOURCE))
    whole = lab.ask(partial(content, place / SOURCE))
    chance = random.Random(seed)
    longest = take_time(place)
    figures: Counter[str] = Counter()
    problems: list[str] = []
    while figures["kills"] < kills:
        for suffix in ("", "-wal", "-shm", "-lock"):
            (place / (TARGET + suffix)).unlink(missing_ok=True)
        figures["copies"] += 1
        for _ in range(chance.randint(1, 4)):
            child = lab.Child(partial(copy, folder=place))
            child.ready()
            child.go()
            time.sleep(chance.uniform(0, longest))
            child.kill()
            said = child.rest()
            child.end()
            figures["kills"] += 1
            figures["killed"] += not said
            if (place / TARGET).exists():
                figures["looked"] += 1
                # Looking opens it, and an open takes the log in, which the next copy is to find.
                problems += problems_of_part(look_aside(place), whole)
        child = lab.Child(partial(copy, folder=place))
        child.ready()
        child.go()
        said = child.rest()
        child.end()
        if not said or said[-1][0] != "DONE" or not said[-1][2]:
            problems.append(f"the last copy says {said}")
            continue
        figures["resumed"] += said[-1][1] < len(whole["sessions"])
        if lab.ask(partial(content, place / TARGET)) != whole:
            problems.append("the copy is not what the source is")
        if lab.ask(partial(content, place / SOURCE)) != whole:
            problems.append("the source was changed")
    return {**figures, "seed": seed, "problems": problems}


def look_aside(place: Path) -> dict[str, Any]:
    """What a copy that was cut off holds; the files themselves stay as they are."""
    aside = place / "aside"
    aside.mkdir()
    for suffix in ("", "-wal"):
        if (place / (TARGET + suffix)).exists():
            shutil.copyfile(place / (TARGET + suffix), aside / (TARGET + suffix))
    found: dict[str, Any] = lab.ask(partial(content, aside / TARGET))
    shutil.rmtree(aside)
    return found


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
