"""Upgrades that die at each statement of each revision, by an exception or a kill -9: the file is as before, the retry works.

Run by hand: python upgrade_deaths.py '{"folder": "/tmp/x", "most": 0, "seed": 1}'
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lab
import older_files
from sqlalchemy import event
from sqlalchemy.engine import Engine

import sessionstore
from sessionstore.database import upgrade

MESSAGES = 30
NEW = "new file"
WAYS = ("exception", "kill")


def text_of(seq: int) -> str:
    """The text of the message at a seq."""
    return f"message {seq} " + "x" * (seq * 331 % 2000)


def fill(store: sessionstore.SessionStore) -> None:
    store.session("s", tags=["a", "b"], metadata={"n": 1})
    store.append_many("s", [{"role": "user", "content": text_of(seq)} for seq in range(1, MESSAGES + 1)])


def make_base(revision: str, folder: Path) -> None:
    """A file of a revision, or none."""
    folder.mkdir(parents=True)
    if revision != NEW:
        older_files.make(folder / "a.db", revision, fill)


def dump(path: Path) -> list[str]:
    """All that a file holds, as SQL; nothing of a file that is not there or empty."""
    if not path.exists():
        return []
    with lab.raw(path) as connection:
        return [line for line in connection.iterdump() if not line.startswith(("BEGIN", "COMMIT"))]


def open_and_die(wire: lab.Wire, path: Path, at: int, way: str) -> None:
    """Open, which upgrades, and die before a statement; tell how many statements there were."""
    statements = 0

    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1
        if statements == at:
            if way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("this statement failed")

    event.listen(Engine, "before_cursor_execute", count)
    try:
        with sessionstore.open(path):
            wire.say("OPENED", statements)
    except sessionstore.UpgradeError:
        wire.say("REFUSED", at)


def run(path: Path, at: int, way: str) -> list[Any]:
    """What it said last; nothing if it was killed."""
    child = lab.Child(partial(open_and_die, path=path, at=at, way=way))
    said = child.rest()
    child.end()
    return said[-1] if said else []


def die_at(point: tuple[str, int, str], bases: Path, folder: Path) -> list[str]:
    """What is wrong after a death at one statement."""
    revision, at, way = point
    place = folder / f"{revision} {at} {way}"
    shutil.copytree(bases / revision, place)
    path = place / "a.db"
    before = lab.ask(partial(dump, path))
    said = run(path, at, way)
    wrong = [] if said == ([] if way == "kill" else ["REFUSED", at]) else [f"it said {said}"]
    if lab.ask(partial(dump, path)) != before:
        wrong.append("the file is not as it was before")
    wrong += lab.ask(partial(retry, path, revision))
    if left := [file.name for file in place.iterdir() if upgrade.BACKUP_INFIX in file.name and file.suffix != ".db"]:
        wrong.append(f"left behind: {left}")
    shutil.rmtree(place)
    return [f"{revision}, statement {at}, {way}: {each}" for each in wrong]


def retry(path: Path, revision: str) -> list[str]:
    """What is wrong with the next opening."""
    with sessionstore.open(path) as store:
        wrong = [] if store.doctor().ok else ["the doctor complains"]
        if store.status().schema_revision != upgrade.HEAD_REVISION:
            wrong.append("it is not of the newest revision")
        if revision == NEW:
            fill(store)
        found = store.get("s")
        if found is None or (found.tags, found.metadata) != (("a", "b"), {"n": 1}):
            wrong.append("the session is another one")
        if [message.text for message in store.messages("s")] != [text_of(seq) for seq in range(1, MESSAGES + 1)]:
            wrong.append("the messages are others")
    return wrong


def main(folder: str, most: int, seed: int, leave_out: Sequence[str] = (), hands: int = 4) -> dict[str, Any]:
    """Die at `most` of the statements, chosen at random, or at all of them if it is 0."""
    lab.warm_up()
    place, bases = Path(folder), Path(folder) / "bases"
    revisions = [revision for revision in (NEW, *older_files.REVISIONS) if revision not in leave_out]

    def statements_of(revision: str) -> int:
        make_base(revision, bases / revision)
        shutil.copytree(bases / revision, place / f"count {revision}")
        word, count = run(place / f"count {revision}" / "a.db", 0, "exception")
        assert word == "OPENED"
        return count

    counts = dict(zip(revisions, lab.spread(statements_of, revisions, hands), strict=True))
    points = [(revision, at, way) for revision, count in counts.items() for at in range(1, count + 1) for way in WAYS]
    chosen = points if most == 0 else random.Random(seed).sample(points, min(most, len(points)))
    results = lab.spread(lambda point: die_at(point, bases, place), chosen, hands)
    problems = [each for wrong in results for each in wrong]
    return {"points": len(chosen), "of": len(points), "statements": counts, "seed": seed, "problems": problems}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
