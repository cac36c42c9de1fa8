"""kill -9 while a store is encrypted, decrypted or given another key: it is as before or as asked for, and whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trials import Trial

import sessionstore

pytest.importorskip("sqlcipher3", reason="the extra `encryption` is not installed")

FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))
MESSAGES = 600
CHILD = """
import sys, sessionstore
what, path, text = sys.argv[1], sys.argv[2], "passed {} " * 100
first, second = bytes(range(32)), bytes(range(1, 33))
if what == "rekey":
    store = sessionstore.open(path, key=first)
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
if what == "rekey":
    store.rekey(second)
elif what == "encrypt":
    sessionstore.encrypt_file(path, first)
else:
    sessionstore.decrypt_file(path, first)
sys.stdout.write("done\\n"); sys.stdout.flush(); sys.stdin.readline()
"""


def fill(path: Path, key: bytes | None) -> list[str]:
    """A store of some megabytes, and the texts in it."""
    texts = [f"message {number} " + "x" * 2_000 for number in range(MESSAGES)]
    with sessionstore.open(path, key=key) as store:
        store.session("chat").append_many([{"role": "user", "content": text} for text in texts])
    return texts


def run_and_kill(what: str, path: Path, delay: float | None) -> bool:
    """Whether the child had done it all when it was killed; without a delay it is let do it."""
    environment = {name: value for name, value in os.environ.items() if name != "SESSIONSTORE_KEY"}
    command = [sys.executable, "-c", CHILD, what, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        if delay is not None:
            time.sleep(delay)
            child.kill()
        done = child.stdout.readline() == "done\n"
        child.kill()
    return done


def duration(what: str, path: Path) -> float:
    """How long it takes here and now."""
    started = time.monotonic()
    assert run_and_kill(what, path, None)
    # The start of the interpreter is in it, so it is too long, not too short.
    return time.monotonic() - started


def keys_that_open(path: Path, candidates: list[bytes | None], texts: list[str]) -> list[bytes | None]:
    """Those with which all of it can be read."""
    found = []
    for key in candidates:
        try:
            with sessionstore.open(path, key=key, must_exist=True) as store:
                assert [message.text for message in store.iterate("chat")] == texts
                assert store.doctor().ok
                store.session("after").append("user", "still writable")
            found.append(key)
        except sessionstore.WrongKeyError:
            continue
    return found


@pytest.mark.fault("F36")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("what", "before", "after"),
    [("rekey", FIRST, SECOND), ("encrypt", None, FIRST), ("decrypt", FIRST, None)],
    ids=["rekey", "encrypt", "decrypt"],
)
def test_a_kill_leaves_the_old_store_or_the_new_one(
    what: str, before: bytes | None, after: bytes | None, tmp_path: Path, trial: Trial
) -> None:
    chance = random.Random(trial.seed)
    rounds = trial.size(push=4, nightly=60, release=200)
    base = tmp_path / "base.db"
    texts = fill(base, before)
    content = base.read_bytes()
    timed = tmp_path / "timed.db"
    timed.write_bytes(content)
    longest = duration(what, timed)
    outcomes = {"old": 0, "new": 0, "done": 0}
    for number in range(rounds):
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        path.chmod(0o600)
        done = run_and_kill(what, path, chance.uniform(0, longest if number % 2 else longest / 5))
        candidates = [before, after]
        # Also the wrong key first: trying it must not harm what a journal can still undo.
        chance.shuffle(candidates)
        (key,) = keys_that_open(path, candidates, texts)
        assert not done or key == after
        outcomes["done" if done else "new" if key == after else "old"] += 1
        left = {each.name.removeprefix(path.name) for each in tmp_path.glob(f"{number}.db*")}
        # A killed SQLite leaves its journal with nothing to undo in it; it is taken away by the next conversion.
        assert left <= {"", "-lock", "-journal"}, "something was left beside it"
        for each in tmp_path.glob(f"{number}.db*"):
            each.unlink()
    assert sum(outcomes.values()) == rounds
    told = f"{outcomes['old']} as before, {outcomes['new'] + outcomes['done']} as asked for, 0 lost"
    trial.report(f"{rounds} kills of {what}: {told}", **outcomes)
