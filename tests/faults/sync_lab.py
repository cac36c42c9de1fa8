"""What the tests of deliveries share: stores with events to tell, how they stand, and whether all arrived once and in order."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backends import BatchBackend

import sessionstore
from sessionstore import NewMessage, SessionStore
from sessionstore.remote.settings import Remote

KEY = "canary-key-0123456789"
PATH_OF_METRICS = "/metrics/events"


class Standing(NamedTuple):
    """How deliveries stand."""

    pending: int
    dead: int
    sent: int
    failures: int
    paused: str | None
    retry_at: str | None
    last_status: int | None
    last_error: str | None


class Drawn(random.Random):
    """Waits that are known: always this part of the longest one."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self._part = part

    def uniform(self, a: float, b: float) -> float:
        """A value that was chosen before."""
        return a + (b - a) * self._part


def fill(store: SessionStore, sessions: int = 3, messages: int = 4, *, name: str = "s", end: bool = True) -> int:
    """Sessions of one agent, whose events are mixed in time; how many events that makes."""
    ids = [f"{name}{number}" for number in range(sessions)]
    for session_id in ids:
        store.session(session_id, agent_id="agent")
    for _ in range(messages):
        for session_id in ids:
            store.append(session_id, "assistant", "word", model="m", output_tokens=1)
    for session_id in ids if end else ():
        store.end(session_id, "completed")
    return sessions * (messages + 1 + end)


def fill_one(store: SessionStore, session_id: str, figures: int) -> int:
    """One session with so many figures, in one transaction; how many events that makes."""
    store.session(session_id, agent_id="agent")
    message = NewMessage({"role": "assistant", "content": "word"}, model="m", output_tokens=1)
    store.append_many(session_id, [message] * figures)
    return figures + 1


def standing(store: SessionStore) -> Standing:
    """What the file says."""
    (row,) = store.query(f"SELECT {', '.join(Standing._fields)} FROM v_sync").rows
    return Standing(*row)


def attempts(store: SessionStore) -> list[int]:
    """Of every event in the outbox."""
    return [row[0] for row in store.query("SELECT attempts FROM v_outbox ORDER BY id", limit=None).rows]


def held(store: SessionStore) -> int:
    """How many streams are held by a sender."""
    return int(store.query("SELECT count(*) FROM outbox_holds WHERE token IS NOT NULL").rows[0][0])


def assert_untouched(store: SessionStore, count: int) -> None:
    """All events wait, none has an attempt, and no sender holds anything."""
    assert standing(store).pending == count
    assert attempts(store) == [0] * count
    assert held(store) == 0


def assert_all_arrived(store: SessionStore, backend: BatchBackend, count: int) -> None:
    """Every event was stored once, in the order of its stream, and the outbox is empty."""
    found = standing(store)
    assert (found.pending, found.dead, found.sent) == (0, 0, count)
    assert (found.failures, found.paused, found.retry_at, found.last_error) == (0, None, None, None)
    assert len(backend.stored) == count
    assert_in_order(backend.stored.values())


def assert_in_order(events: Iterable[dict[str, Any]]) -> None:
    """Of each session: its start, its messages by number, its end."""
    streams: dict[str, list[float]] = {}
    for event in events:
        body = event["body"]
        place = 0.0 if event["path"].endswith("/start") else float("inf")
        if event["path"] == PATH_OF_METRICS:
            place = body["attributes"]["seq"]
        streams.setdefault(json.dumps([event.get("namespace"), body["session_id"]]), []).append(place)
    for stream, places in streams.items():
        assert places == sorted(places), stream
        assert len(set(places)) == len(places), stream


def quick(url: str, **options: Any) -> Remote:
    """A remote whose drain tries once."""
    return Remote(url, KEY, **{"max_retries": 0, **options})


def opened(path: Path, remote: Remote) -> SessionStore:
    """A store with a remote. A new file is copied: making one for each test would take most of the time."""
    if not path.exists():
        new = path.parents[1] / "new.db"
        if not new.exists():
            sessionstore.open(new).close()
        shutil.copy(new, path)
    return sessionstore.open(path, remote=remote, durability="normal")


@contextmanager
def redirected(path: Path, url: str) -> Iterator[SessionStore]:
    """A store on an existing file whose events go elsewhere now."""
    with sessionstore.open(path, durability="normal") as store:
        store.set_remote(quick(url), replace=True)
        yield store
