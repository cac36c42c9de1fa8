"""Random records of agents' work, written through the library at chosen instants, and kept as plain Python beside it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st

import sessionstore
from sessionstore import clock

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
# The views read the real clock: everything begins in the last days, and nothing expires near the present.
FIRST_DAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=45)
AGENTS = (None, "agent_001", "agent_002", "Агент", "z'; --")
MODELS = (None, "m-1", "m-2")
ERRORS = (None, "Connection timeout", 'it\'s "broken"\n100%')
_numbers = itertools.count()

_edges = [timedelta(0), timedelta(microseconds=1), HOUR - timedelta(microseconds=1), HOUR, DAY - timedelta(microseconds=1)]
_microseconds = st.integers(0, 86_399_999_999).map(lambda microseconds: timedelta(microseconds=microseconds))
instants = st.builds(
    lambda day, into: FIRST_DAY + day * DAY + into, st.integers(0, 42), st.one_of(st.sampled_from(_edges), _microseconds)
)
spans = st.one_of(st.just(0), st.integers(1, 1_999_999), st.integers(1, 1_700_000_000)).map(lambda us: timedelta(microseconds=us))
tokens = st.none() | st.integers(0, 5_000)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "assistant", "tool"]),
        "after": spans,
        "response_time_ms": st.none() | st.floats(0, 1e6) | st.sampled_from([0.0, 420.5]),
        "model": st.sampled_from(MODELS),
        "input_tokens": tokens,
        "output_tokens": tokens,
        "cache_read_tokens": tokens,
        "reasoning_tokens": tokens,
    }
)
sessions = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(["", "other"]),
        "agent_id": st.sampled_from(AGENTS),
        "begins": instants,
        "fate": st.sampled_from(["open", "completed", "completed", "failed", "overdue", "overdue twice"]),
        "lasts": spans,
        "score": st.none() | st.integers(1, 5),
        "error": st.sampled_from(ERRORS),
        "messages": st.lists(messages, max_size=5),
    }
)
records = st.tuples(st.lists(sessions, max_size=12), st.booleans())


@dataclass
class Session:
    """What a session is, in plain Python; an overdue one is expired, swept or not."""

    namespace: str
    session_id: str
    agent_id: str | None
    status: str
    created_at: datetime
    ended_at: datetime | None
    score: int | None
    error: str | None
    messages: list[Message] = field(default_factory=list)


@dataclass
class Message:
    """What a message is, in plain Python."""

    seq: int
    role: str
    created_at: datetime
    time_ms: float | None
    time_source: str | None
    model: str | None
    tokens: tuple[int | None, ...]


def at(instant: datetime) -> Any:
    """The library's present is this instant."""
    return patch.object(clock, "utc_now", lambda: instant)


def record(store: sessionstore.SessionStore, specs: list[dict[str, Any]], *, sweep: bool) -> list[Session]:
    """Write sessions, in two fresh namespaces of the store, and tell what they are."""
    number = next(_numbers)
    made: list[Session] = []
    for index, spec in enumerate(specs):
        name = f"s{index}"
        there = store.in_namespace(f"{number}{spec['namespace']}")
        made.append(_record_one(there, name, spec))
        if spec["fate"] == "overdue twice":
            made.append(_record_one(there, name, {**spec, "begins": spec["begins"] + 3 * HOUR, "agent_id": "again"}))
    if sweep:
        store.sweep()
    return made


def _record_one(store: sessionstore.SessionStore, name: str, spec: dict[str, Any]) -> Session:
    begins, fate = spec["begins"], spec["fate"]
    overdue = fate.startswith("overdue")
    with at(begins):
        store.create(name, agent_id=spec["agent_id"], ttl=HOUR if overdue else 1_000 * DAY)
    made = Session(store.namespace, name, spec["agent_id"], "expired" if overdue else fate, begins, None, None, None)
    now = begins
    for each in spec["messages"]:
        # Half an hour at the most between two messages: the session is alive.
        now += each["after"]
        made.messages.append(_append(store, name, each, now))
    if overdue:
        made.ended_at = now + HOUR
    elif fate != "open":
        made.ended_at, made.score = begins + spec["lasts"], spec["score"]
        made.error = spec["error"] if fate == "failed" else None
        with at(made.ended_at):
            store.end(name, fate, quality_score=made.score, error=made.error)
    return made


def _append(store: sessionstore.SessionStore, name: str, spec: dict[str, Any], now: datetime) -> Message:
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
    given = {key: spec[key] for key in ("response_time_ms", "model", *kinds)}
    with at(now):
        stored = store.append(name, spec["role"], "x", **given)
    timed, source = (stored.response_time_ms, "given") if stored.response_time_ms is not None else (stored.elapsed_ms, "measured")
    if spec["role"] != "assistant" or timed is None:
        timed = source = None
    return Message(stored.seq, spec["role"], now, timed, source, spec["model"], tuple(spec[kind] for kind in kinds))
