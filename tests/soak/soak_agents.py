"""The programs of the soak: agents that live long in one process, and a writer that is killed. `soak_agents.py SETTINGS`, as JSON.

Each keeps an account of what was acknowledged and holds it against what the store says. A line for each thing to tell, as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio

import sessionstore
from sessionstore import AsyncSessionStore, NewMessage, SessionStore
from sessionstore.remote.settings import Remote

WORDS = (
    "apple",
    "river",
    "stone",
    "cloud",
    "garden",
    "window",
    "silver",
    "morning",
    "paper",
    "yellow",
    "engine",
    "harbour",
    "letter",
    "mountain",
    "ocean",
    "planet",
)
LIFE = 4.0
APPENDS_A_SESSION = 30
_LONGEST_PAUSE = 0.06


def say(**words: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Stage:
    """What the agents of the process share."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def note_problem(self, problem: str) -> None:
        self.done["problems"] += 1
        # The first ones tell most, and memory shall stay flat.
        if len(self.problems) < 20:
            self.problems.append(problem)


class Account:
    """One session of an agent: what was acknowledged in it."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.texts: list[str] = []

    def new_texts(self, rng: random.Random) -> list[str]:
        """One message or some, short or long."""
        words = rng.choice((6, 12, 40, 400))
        start = len(self.texts)
        return [f"{start + number} " + " ".join(rng.choices(WORDS, k=words)) for number in range(rng.choice((1, 1, 1, 3)))]

    def check(self, found: list[str | None], stage: Stage) -> None:
        stage.done["checked"] += len(self.texts)
        if found != self.texts:
            stage.note_problem(f"{self.session_id} has {len(found)} messages, and {len(self.texts)} were acknowledged")


class Agent:
    """An agent in a thread: session after session, each with all kinds of calls, until the stage is closed."""

    def __init__(self, store: SessionStore, stage: Stage, name: str, seed: int) -> None:
        self._store, self._stage, self._name = store, stage, name
        self._rng = random.Random(f"{seed}/{name}")
        self._numbers = iter(range(sys.maxsize))
        self._ended: str | None = None

    def run(self) -> None:
        try:
            while not self._stage.is_over.is_set():
                self._live_one_session()
        except Exception:
            self._stage.note_problem(traceback.format_exc())

    def _live_one_session(self) -> None:
        rng, store, done = self._rng, self._store, self._stage.done
        account = Account(f"{self._name}-{next(self._numbers)}")
        store.session(account.session_id, agent_id=self._name, user_id="somebody", tags=["soak"], ttl=LIFE * 5)
        for _ in range(APPENDS_A_SESSION):
            if self._stage.is_over.wait(rng.uniform(0, _LONGEST_PAUSE)):
                break
            texts = account.new_texts(rng)
            store.append_many(
                account.session_id,
                [NewMessage({"role": "assistant", "content": each}, model="m", output_tokens=3) for each in texts],
            )
            account.texts += texts
            done["appended"] += len(texts)
            self._do_something_else(account)
        account.check([message.text for message in store.messages(account.session_id)], self._stage)
        self._part(account)

    def _do_something_else(self, account: Account) -> None:
        rng, store = self._rng, self._store
        kind = rng.choice(("read", "search", "fork", "record", "state", "list", "update", "activity", "nothing", "nothing"))
        self._stage.done[kind] += 1
        if kind == "read":
            store.messages(account.session_id, last=5)
        elif kind == "search":
            store.search(rng.choice(WORDS), limit=5)
        elif kind == "fork":
            fork = store.fork(account.session_id, f"{account.session_id}-fork-{len(account.texts)}", ttl=LIFE)
            fork.append("user", "on another way")
            if rng.random() < 0.5:
                fork.truncate(after=1)
        elif kind == "record":
            store.record("latency", rng.random(), session_id=account.session_id)
        elif kind == "state":
            store.set_state(account.session_id, {"step": len(account.texts)})
            store.get_state(account.session_id, "step")
        elif kind == "list":
            store.list(agent_id=self._name, limit=10)
        elif kind == "update":
            store.update(account.session_id, metadata={"step": len(account.texts)})
        elif kind == "activity":
            store.log_activity(self._name, "thinking", details={"session_id": account.session_id})

    def _part(self, account: Account) -> None:
        """Sessions end, are deleted, or are left to expire. What has ended does not expire, and is deleted later."""
        how = self._rng.choice(("end", "delete", "leave"))
        if how == "delete":
            self._store.delete(account.session_id)
        elif how == "leave":
            self._store.set_ttl(account.session_id, LIFE)
        else:
            self._store.end(account.session_id, "completed")
            if self._ended is not None:
                self._store.delete(self._ended)
            self._ended = account.session_id


async def live_awaited(store: AsyncSessionStore, stage: Stage, name: str, seed: int) -> None:
    """An agent in an event loop, some of whose calls are cancelled: done or not, nothing in between."""
    rng = random.Random(f"{seed}/{name}")
    number = 0
    while not stage.is_over.is_set():
        account = Account(f"{name}-{number}")
        number += 1
        await store.session(account.session_id, agent_id=name, ttl=LIFE * 5)
        for _ in range(APPENDS_A_SESSION):
            text = account.new_texts(rng)[0]
            with anyio.move_on_after(rng.choice((None, None, 0.001))) as scope:
                await store.append(account.session_id, "user", text)
            if scope.cancelled_caught:
                stage.done["cancelled"] += 1
                last = await store.messages(account.session_id)
                account.texts += [text] if len(last) > len(account.texts) else []
            else:
                account.texts.append(text)
                stage.done["appended"] += 1
            await anyio.sleep(rng.uniform(0, _LONGEST_PAUSE))
        account.check([message.text for message in await store.messages(account.session_id)], stage)
        await store.delete(account.session_id)


def run_loop(store: SessionStore, stage: Stage, seed: int) -> None:
    """The event loop of the awaiting agents."""

    async def run_all() -> None:
        awaited = AsyncSessionStore(store)
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(live_awaited, awaited, stage, f"task{number}", seed)

    try:
        anyio.run(run_all)
    except Exception:
        stage.note_problem(traceback.format_exc())


def sample(store: SessionStore) -> dict[str, float]:
    """How large this process is, and what its store takes."""
    status = store.status()
    free = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size"
    spare = store._read(lambda db: db.driver.execute(free).fetchall()[0][0])
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return {
        "rss_bytes": int(resident.split()[1]) * 1024,
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "wal_bytes": status.wal_bytes,
        "file_bytes": status.file_bytes,
        "spare_bytes": spare,
        "outbox": status.outbox_pending,
        "sessions": status.sessions,
        "sweep_failures": status.sweep_failures,
        "drain_failures": status.drain_failures,
    }


def play(path: str, url: str, seed: int, every: float) -> None:
    """Agents in threads and in a loop, sweeps and deliveries in the background, until a line comes in."""
    remote = Remote(url, timeout=2, max_retries=1, retry_delay=0.05, allow_http=True)
    stage = Stage()
    with sessionstore.open(path, remote=remote, on_expire="delete", durability="normal") as store:
        store.set_search("deferred")
        threads = [threading.Thread(target=Agent(store, stage, f"agent{number}", seed).run) for number in range(3)]
        threads.append(threading.Thread(target=run_loop, args=(store, stage, seed)))
        threads.append(threading.Thread(target=lambda: (sys.stdin.readline(), stage.is_over.set())))
        with store.background(interval=1):
            for thread in threads:
                thread.start()
            started = time.monotonic()
            is_over = False
            while not is_over:
                say(sample={"at": time.monotonic() - started, **sample(store)})
                is_over = stage.is_over.wait(every)
            for thread in threads:
                thread.join()
    say(done=dict(stage.done), problems=stage.problems)


def write_until_killed(path: str, session_id: str) -> None:
    """Append, and tell of each message that is acknowledged."""
    with sessionstore.open(path) as store:
        session = store.session(session_id, agent_id="writer")
        for number in range(sys.maxsize):
            session.append("user", f"{number} {datetime.now(UTC).isoformat()}")
            say(stored=number)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    {"play": play, "write": write_until_killed}[settings.pop("part")](**settings)
