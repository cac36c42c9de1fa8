"""A conversation that a tracker is told of: its start and its end, two transactions, also with a remote to tell."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sessionstore

from .bench import BOTH, Bench, Item, Row, Target
from .raw import NAMESPACE, RawStore, sql, stored
from .timing import Side, repeated

REMOTE = "https://example.com/api"

_TARGET = Target(1.6)
_AGENTS = 10
_LIFE = timedelta(hours=10)
_GOOD = 4


class RawConversations:
    """Conversations on a plain connection: the statements that the store runs for a tracker, and the bodies of its events."""

    def __init__(self, raw: RawStore) -> None:
        self._raw = raw
        self._execute: Callable[..., Any] = raw.connection.execute

    def start(self, agent_id: str) -> str:
        """Begin one, under an id as a tracker makes it."""
        session_id = f"{agent_id}_{int(time.time())}_{uuid.uuid4().hex[:8]}"
        self._raw.transaction(lambda: self._insert(session_id, agent_id))
        return session_id

    def end(self, session_id: str) -> None:
        """End one that went well."""
        self._raw.transaction(lambda: self._complete(session_id))

    def _insert(self, session_id: str, agent_id: str) -> None:
        now = datetime.now(UTC)
        begun = stored(now)
        ((key, *_),) = self._execute(
            sql.INSERT_SESSION,
            (NAMESPACE, session_id, None, agent_id, None, "open", False, None, 1, 0, 1, begun, begun, stored(now + _LIFE),
             _LIFE.total_seconds(), None, True),
        ).fetchall()  # fmt: skip
        if self._remote() is not None:
            body = {"session_id": session_id, "agent_id": agent_id, "start_time": begun}
            self._raw.connection.executemany(sql.INSERT_EVENT, [event_row(key, "conversation_start", body, begun, begun)])

    def _complete(self, session_id: str) -> None:
        now = stored(datetime.now(UTC))
        ((key, *_),) = self._execute(sql.FIND_SESSION, (NAMESPACE, session_id, now)).fetchall()
        self._execute(
            sql.END_SESSION,
            ("completed", False, None, True, _GOOD, False, None, now, now, False, None, False, None, key),
        ).fetchall()
        if self._remote() is not None:
            body = {"session_id": session_id, "end_time": now, "status": "completed", "quality_score": _GOOD}
            self._raw.connection.executemany(sql.INSERT_EVENT, [event_row(key, "conversation_end", body, now, now)])

    def _remote(self) -> str | None:
        ((url, *_),) = self._execute(sql.READ_REMOTE).fetchall()
        return None if url is None else str(url)


def event_row(key: int, kind: str, body: dict[str, Any], occurred_at: str, now: str) -> tuple[Any, ...]:
    """The values of an event in the outbox."""
    text = json.dumps(body)
    return (str(uuid.uuid4()), f"session:{key}", kind, NAMESPACE, text, "pending", 0, occurred_at, now, len(text))


def conversations(bench: Bench) -> Iterator[Row]:
    """Start and end, without and with a remote."""
    for remote, note, target in ((None, "", _TARGET), (REMOTE, ", with a remote", None)):
        for durability in BOTH:
            with bench.both((), durability) as (raw, store), tracker_of(store, remote) as tracker:
                raw.connection.execute("UPDATE store_info SET remote_url = ?", (remote,))
                raw_side, store_side = _raw_side(RawConversations(raw)), _store_side(tracker)
                figures = bench.writes({"raw": raw_side, "store": store_side})
                _check(raw, store, remote)
                store.close(drain_timeout=0)
            yield Row(f"start and end a conversation{note}, {durability.upper()}", "ms", figures["raw"], figures["store"], target)


def tracker_of(store: sessionstore.SessionStore, remote: str | None = None) -> sessionstore.AgentPerformanceTracker:
    """A tracker over a store, without background work."""
    return sessionstore.AgentPerformanceTracker(base_url=remote, store=store, background=False)


def _raw_side(raw: RawConversations) -> Side:
    return repeated(lambda number: raw.end(raw.start(f"agent-{number % _AGENTS}")))


def _store_side(tracker: sessionstore.AgentPerformanceTracker) -> Side:
    def talk(number: int) -> None:
        session_id = tracker.start_conversation(f"agent-{number % _AGENTS}")
        tracker.end_conversation(session_id, quality_score=_GOOD)

    return repeated(talk)


def _check(raw: RawStore, store: sessionstore.SessionStore, remote: str | None) -> None:
    completed = store.count(status="completed")
    count = "SELECT (SELECT count(*) FROM sessions WHERE status = 'completed' AND quality_score = 4), (SELECT count(*) FROM outbox)"
    if raw.connection.execute(count).fetchall() != [(completed, 0 if remote is None else 2 * completed)]:
        raise AssertionError("the two sides did not do the same")


_RAW = (
    "INSERT of the session; SELECT and UPDATE of it; each in a transaction that also looks whether there is a remote, and with "
    "one writes the JSON of its event."
)

ITEMS = (Item("conversations", _RAW, conversations),)
