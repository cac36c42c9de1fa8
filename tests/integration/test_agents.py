"""Agents: what they say of themselves, what they did, and that a silent one is taken for offline."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from clocks import START, FrozenClock

import sessionstore
from sessionstore import AgentStatus, ConversationQuality, InvalidInputError, SessionStore, clock, queries
from sessionstore.remote.settings import Remote
from sessionstore.values import AGENT_STATUSES

REMOTE = "https://collector.example"
ALL_STATUSES = ["active", "idle", "busy", "error", "offline", "initializing"]
TICK = timedelta(microseconds=1)

Told = Callable[[], list[tuple[str, str, dict[str, Any]]]]


@pytest.fixture
def told(store_path: Path) -> Told:
    """Call it for stream, kind and body of the events about agents that wait for the remote."""

    def read() -> list[tuple[str, str, dict[str, Any]]]:
        with closing(sqlite3.connect(store_path)) as connection:
            rows = connection.execute("SELECT stream, kind, body FROM outbox WHERE kind LIKE 'agent%' ORDER BY id").fetchall()
        return [(stream, kind, json.loads(body)) for stream, kind, body in rows]

    return read


def set_remote(store: SessionStore) -> None:
    store._write(lambda db: queries.subscription.set_remote(db, Remote(REMOTE)))


def agent(store: SessionStore, agent_id: str = "helper") -> sessionstore.AgentInfo:
    found = store.agent(agent_id)
    assert found is not None
    return found


# -- registration


def test_a_registered_agent_is_active(store: SessionStore, frozen: FrozenClock) -> None:
    made = store.register_agent("helper", sdk_version="1.2.3", metadata={"team": "support", "deep": {"a": [1, None]}})
    assert made == agent(store)
    assert (made.status, made.reported_status, made.previous_status) == (AgentStatus.ACTIVE, AgentStatus.ACTIVE, None)
    assert (made.sdk_version, made.metadata) == ("1.2.3", {"team": "support", "deep": {"a": [1, None]}})
    assert made.registered_at == made.status_at == made.last_seen_at == frozen.now
    assert made.stale_after == 900.0


def test_an_unknown_agent_is_none(store: SessionStore) -> None:
    store.session("s", agent_id="talks only")
    assert store.agent("helper") is None
    assert store.agent("talks only") is None
    assert store.agents() == ()


def test_a_later_registration_replaces_what_the_earlier_one_said(store: SessionStore, frozen: FrozenClock) -> None:
    store.register_agent("helper", sdk_version="1", metadata={"old": 1})
    store.set_status("helper", "busy")
    frozen.go(seconds=5)
    again = store.register_agent("helper", metadata={"new": 2})
    assert (again.sdk_version, again.metadata, again.registered_at) == (None, {"new": 2}, frozen.now)
    assert (again.status, again.previous_status, again.status_at) == ("busy", "active", START), "what it does, it goes on doing"
    assert store.register_agent("helper").metadata == {}


def test_an_agent_that_said_it_was_offline_is_active_once_it_registers(store: SessionStore, frozen: FrozenClock) -> None:
    store.register_agent("helper")
    store.set_status("helper", "offline")
    frozen.go(seconds=5)
    again = store.register_agent("helper")
    assert (again.status, again.previous_status, again.status_at) == ("active", "offline", frozen.now)
    assert [(entry.status, entry.previous_status) for entry in store.activity(kind="registered")] == [
        ("active", "offline"),
        ("active", None),
    ]


# -- statuses


@pytest.mark.parametrize("status", ALL_STATUSES)
def test_every_status_is_taken_as_a_word_and_as_an_enum(store: SessionStore, status: str) -> None:
    assert store.set_status("worded", status).status is AgentStatus(status)
    assert store.set_status("typed", AgentStatus(status)).reported_status is AgentStatus(status)
    assert [info.agent_id for info in store.agents(status=AgentStatus(status))] == ["typed", "worded"]


def test_the_enums_hold_the_words_and_marks_of_the_remote_api() -> None:
    assert list(AGENT_STATUSES) == [status.value for status in AgentStatus] == ALL_STATUSES
    assert {quality.name: int(quality) for quality in ConversationQuality} == {
        "EXCELLENT": 5,
        "GOOD": 4,
        "AVERAGE": 3,
        "POOR": 2,
        "VERY_POOR": 1,
    }


def test_the_history_keeps_every_status_that_was_told(store: SessionStore, frozen: FrozenClock) -> None:
    for status in ("initializing", "active", "active", "busy"):
        store.set_status("helper", status)
        frozen.go(seconds=1)
    store.set_status("helper", "error", previous_status=AgentStatus.IDLE, metadata={"why": "disk"})
    store.log_activity("helper", "something else")
    history = store.activity(agent_id="helper", kind="status")
    assert [(entry.status, entry.previous_status) for entry in history] == [
        ("error", "idle"),
        ("busy", "active"),
        ("active", "active"),
        ("active", "initializing"),
        ("initializing", None),
    ]
    assert (history[0].details, history[0].occurred_at, history[0].action) == ({"why": "disk"}, frozen.now, "status")


def test_a_repeated_status_keeps_since_when_it_is_so(store: SessionStore, frozen: FrozenClock) -> None:
    store.set_status("helper", "active")
    frozen.go(seconds=1)
    busy = store.set_status("helper", "busy")
    frozen.go(seconds=60)
    still = store.set_status("helper", "busy")
    assert (still.status_at, still.previous_status, still.last_seen_at) == (busy.status_at, "active", frozen.now)
    assert store.set_status("helper", "busy", previous_status="idle").previous_status == "idle"


def test_metadata_of_a_status_is_merged_into_what_is_known(store: SessionStore) -> None:
    store.register_agent("helper", metadata={"team": "support", "load": 1})
    assert store.set_status("helper", "busy", metadata={"load": 9}).metadata == {"team": "support", "load": 9}
    assert store.set_status("helper", "idle").metadata == {"team": "support", "load": 9}
    assert store.set_status("new", "idle", metadata={"a": None}).metadata == {"a": None}


def test_metadata_that_would_grow_too_large_changes_nothing(store: SessionStore, dump: Callable[[], Any]) -> None:
    store.register_agent("helper", metadata={"a": "x" * 600_000})
    before = dump()
    with pytest.raises(InvalidInputError, match="metadata"):
        store.set_status("helper", "busy", metadata={"b": "x" * 600_000})
    assert dump() == before


def test_a_status_makes_an_unknown_agent_known(store: SessionStore) -> None:
    made = store.set_status("helper", "idle")
    assert (made.status, made.previous_status, made.registered_at, made.sdk_version, made.metadata) == (
        "idle",
        None,
        None,
        None,
        {},
    )


# -- activity


def test_an_activity_is_kept_as_it_was_told(store: SessionStore, frozen: FrozenClock) -> None:
    done = store.log_activity("helper", "tool call", {"tool": "search", "hits": [1, 2]}, duration=1.5)
    assert store.activity() == (done,)
    assert (done.agent_id, done.kind, done.action, done.details) == (
        "helper",
        "activity",
        "tool call",
        {"tool": "search", "hits": [1, 2]},
    )
    assert (done.duration, done.occurred_at, done.status, done.previous_status) == (1.5, frozen.now, None, None)
    known = agent(store)
    assert (known.status, known.registered_at) == ("active", None)


def test_an_activity_changes_no_status(store: SessionStore) -> None:
    store.set_status("helper", "busy")
    store.log_activity("helper", "x")
    assert agent(store).status == "busy"


def test_activity_comes_newest_first_and_in_the_order_of_one_instant(store: SessionStore, frozen: FrozenClock) -> None:
    store.log_activity("a", "1")
    store.log_activity("b", "2")
    frozen.go(seconds=1)
    store.register_agent("a")
    store.log_activity("a", "3", duration=0)
    assert [entry.action for entry in store.activity()] == ["3", "registered", "2", "1"]
    assert [entry.action for entry in store.activity(limit=2)] == ["3", "registered"]
    assert [entry.action for entry in store.activity(agent_id="a", kind="activity")] == ["3", "1"]
    assert store.activity(agent_id="absent") == ()


def test_fifty_entries_are_shown_unless_more_are_asked_for(store: SessionStore) -> None:
    def log_sixty(db: Any) -> None:
        for number in range(60):
            queries.agents.log_activity(db, "", "helper", str(number), stale_after=900.0)

    store._write(log_sixty)
    assert [entry.action for entry in store.activity()] == [str(number) for number in range(59, 9, -1)]
    assert len(store.activity(limit=1000)) == 60


# -- signs of life


def test_a_silent_agent_is_taken_for_offline_from_the_moment_on(store: SessionStore, frozen: FrozenClock) -> None:
    store.set_status("helper", "busy")
    frozen.go(seconds=900)
    frozen.now -= TICK
    assert agent(store).status == "busy"
    frozen.now += TICK
    silent = agent(store)
    assert (silent.status, silent.reported_status, silent.last_seen_at) == ("offline", "busy", START)
    assert [info.agent_id for info in store.agents(status="offline")] == ["helper"]
    assert store.agents(status="busy") == ()
    assert store.operations_overview()["by_status"]["offline"] == 1


@pytest.mark.parametrize(
    "sign",
    [
        lambda store: store.register_agent("helper"),
        lambda store: store.set_status("helper", "busy"),
        lambda store: store.log_activity("helper", "x"),
        lambda store: store.append("chat", "user", "x"),
        lambda store: store.create("another", agent_id="helper"),
        lambda store: store.end("chat"),
    ],
    ids=["register", "status", "activity", "append", "new session", "end"],
)
def test_every_sign_of_life_brings_a_silent_agent_back(
    store: SessionStore, frozen: FrozenClock, sign: Callable[[SessionStore], object]
) -> None:
    store.create("chat", agent_id="helper")
    store.set_status("helper", "busy")
    frozen.go(hours=1)
    assert agent(store).status == "offline"
    sign(store)
    back = agent(store)
    assert (back.status, back.last_seen_at) == ("busy", frozen.now)


def test_sessions_of_others_are_no_sign_of_life(store: SessionStore, frozen: FrozenClock) -> None:
    store.set_status("helper", "busy")
    frozen.go(hours=1)
    store.create("theirs", agent_id="other")
    store.create("nobodys")
    store.in_namespace("b").create("elsewhere", agent_id="helper")
    assert agent(store).status == "offline"


def test_a_store_says_how_long_its_agents_may_be_silent(tmp_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(tmp_path / "a.db", stale_after=10) as hasty, sessionstore.open(tmp_path / "a.db") as patient:
        hasty.set_status("a", "busy")
        patient.set_status("b", "busy")
        frozen.go(seconds=10)
        assert {info.agent_id: info.status.value for info in patient.agents()} == {"a": "offline", "b": "busy"}
        assert patient.log_activity("a", "x").agent_id == "a"
        assert agent(patient, "a").stale_after == 900.0, "the last sign of life counts"


def test_a_clock_that_was_ahead_does_not_keep_an_agent_alive_for_ever(store: SessionStore, frozen: FrozenClock) -> None:
    frozen.go(days=400)
    store.set_status("helper", "busy")
    frozen.now = START
    store.set_status("helper", "busy")
    frozen.go(seconds=900)
    assert agent(store).status == "offline"


# -- the remote


def test_each_call_is_told_to_the_remote_in_the_stream_of_its_agent(store: SessionStore, told: Told, frozen: FrozenClock) -> None:
    store.register_agent("before")
    set_remote(store)
    store.register_agent("helper", sdk_version="1", metadata={"a": 1})
    store.set_status("helper", "busy", metadata={"b": 2})
    store.log_activity("helper", "tool", duration=2)
    store.set_status("fresh", "idle")
    at = clock.utc_now().isoformat()
    assert at == "2026-03-28T23:30:00+00:00"
    assert told() == [
        ("agent:helper", "agent_register", {"agent_id": "helper", "registration_time": at, "sdk_version": "1",
                                             "metadata": {"a": 1}}),
        ("agent:helper", "agent_status", {"agent_id": "helper", "status": "busy", "timestamp": at, "previous_status": "active",
                                           "metadata": {"b": 2}}),
        ("agent:helper", "agent_activity", {"agent_id": "helper", "action": "tool", "timestamp": at, "duration": 2.0,
                                             "details": {}}),
        ("agent:fresh", "agent_status", {"agent_id": "fresh", "status": "idle", "timestamp": at}),
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["outbox", "agent_activity", "agents"])
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.register_agent("new"),
        lambda store: store.set_status("new", "busy"),
        lambda store: store.log_activity("new", "x"),
    ],
    ids=["register", "status", "activity"],
)
def test_an_agent_its_history_and_its_event_are_stored_all_or_none(
    store: SessionStore, dump: Callable[[], Any], table: str, call: Callable[[SessionStore], object]
) -> None:
    set_remote(store)
    refusal = f"CREATE TRIGGER refuse BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    store._write(lambda db: db.driver.execute(refusal).fetchall())
    before = dump()
    with pytest.raises(sessionstore.SessionStoreError):
        call(store)
    assert dump() == before
    store._write(lambda db: db.driver.execute("DROP TRIGGER refuse").fetchall())
    call(store)
    after = dump()
    assert [len(after[name]) - len(before[name]) for name in ("agents", "agent_activity", "outbox")] == [1, 1, 1]


# -- overview and namespaces


def test_the_overview_counts_what_goes_on(store: SessionStore, frozen: FrozenClock) -> None:
    store.log_activity("silent", "old")
    frozen.go(hours=24)
    store.register_agent("a")
    store.set_status("b", "busy")
    for _ in range(3):
        store.log_activity("b", "x")
    store.create("1", agent_id="b", ttl=60)
    store.create("2", agent_id="b")
    store.create("3", agent_id="b")
    store.end("3")
    store.create("4", agent_id="unregistered")
    store.create("5")
    last = frozen.now
    frozen.go(seconds=30)
    expected = {
        "total_agents": 3,
        "active_agents": 2,
        "by_status": {"active": 1, "idle": 0, "busy": 1, "error": 0, "offline": 1, "initializing": 0},
        "last_activity_at": last.isoformat(),
        "activity_24h": {"total": 5, "registered": 1, "status": 1, "activity": 3},
        "live_conversations": 4,
        "by_agent": [{"agent_id": "b", "live": 2}, {"agent_id": "unregistered", "live": 1}],
    }
    found = store.operations_overview()
    assert found == expected
    assert json.loads(json.dumps(found)) == expected
    frozen.go(seconds=30)
    assert store.operations_overview()["by_agent"][0] == {"agent_id": "b", "live": 1}, "overdue is not live"


def test_the_overview_of_an_empty_store_is_all_zero(store: SessionStore) -> None:
    assert store.operations_overview() == {
        "total_agents": 0,
        "active_agents": 0,
        "by_status": dict.fromkeys(ALL_STATUSES, 0),
        "last_activity_at": None,
        "activity_24h": {"total": 0, "registered": 0, "status": 0, "activity": 0},
        "live_conversations": 0,
        "by_agent": [],
    }


def test_namespaces_keep_their_agents_apart(store: SessionStore, told: Told) -> None:
    set_remote(store)
    other = store.in_namespace("b")
    store.set_status("helper", "busy")
    other.set_status("helper", "idle", metadata={"b": 1})
    other.log_activity("only there", "x")
    assert (agent(store).status, agent(other).status, agent(other).previous_status) == ("busy", "idle", None)
    assert [info.agent_id for info in store.agents()] == ["helper"]
    assert [info.agent_id for info in other.agents()] == ["helper", "only there"]
    assert {entry.namespace for entry in other.activity()} == {"b"}
    assert len(store.activity()) == 1
    assert store.operations_overview()["total_agents"] == 1
    assert {stream for stream, *_ in told()} == {"agent:helper", "agent:only there"}


# -- bad input


@pytest.mark.parametrize("bad", ["ACTIVE", "asleep", "", " active", 1, None, True, ConversationQuality.GOOD])
def test_what_is_no_status_is_refused(store: SessionStore, dump: Callable[[], Any], bad: Any) -> None:
    store.register_agent("helper")
    before = dump()
    for call in (
        lambda: store.set_status("helper", bad),
        lambda: store.set_status("helper", "busy", previous_status=bad or "nothing"),
        lambda: store.agents(status=bad or "nothing"),
    ):
        with pytest.raises(InvalidInputError, match="status"):
            call()
    assert dump() == before


BAD_CALLS: list[tuple[str, Callable[[SessionStore], object]]] = [
    ("agent_id", lambda store: store.register_agent("")),
    ("agent_id", lambda store: store.set_status("a\n", "busy")),
    ("agent_id", lambda store: store.log_activity("x" * 257, "x")),
    ("agent_id", lambda store: store.agent(None)),  # type: ignore[arg-type]
    ("agent_id", lambda store: store.activity(agent_id="")),
    ("sdk_version", lambda store: store.register_agent("a", sdk_version="")),
    ("metadata", lambda store: store.register_agent("a", metadata={"at": START})),
    ("metadata", lambda store: store.register_agent("a", metadata=[1])),  # type: ignore[arg-type]
    ("metadata", lambda store: store.set_status("a", "busy", metadata={"a": float("nan")})),
    ("metadata", lambda store: store.set_status("a", "busy", metadata={1: 2})),  # type: ignore[dict-item]
    ("action", lambda store: store.log_activity("a", "")),
    ("action", lambda store: store.log_activity("a", None)),  # type: ignore[arg-type]
    ("details", lambda store: store.log_activity("a", "x", "words")),  # type: ignore[arg-type]
    ("details", lambda store: store.log_activity("a", "x", {"a": "x" * (1 << 20)})),
    *(("duration", lambda store, bad=bad: store.log_activity("a", "x", duration=bad))  # type: ignore[misc]
      for bad in (float("nan"), float("inf"), -1, True, "1", timedelta(seconds=1))),
    *(("limit", lambda store, bad=bad: store.activity(limit=bad)) for bad in (0, 1001, True, 1.0, None)),  # type: ignore[misc]
    ("kind", lambda store: store.activity(kind="statuses")),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("field", "call"), BAD_CALLS)
def test_bad_input_is_refused_before_anything_is_written(
    store: SessionStore, dump: Callable[[], Any], field: str, call: Callable[[SessionStore], object]
) -> None:
    before = dump()
    with pytest.raises(InvalidInputError) as refused:
        call(store)
    assert refused.value.field == field
    assert dump() == before


def test_what_a_caller_does_to_its_dicts_afterwards_changes_nothing(store: SessionStore) -> None:
    metadata: dict[str, Any] = {"a": []}
    made = store.register_agent("helper", metadata=metadata)
    metadata["a"].append(1)
    assert made.metadata == agent(store).metadata == {"a": []}


def test_the_words_of_an_agent_stay_out_of_reprs(store: SessionStore) -> None:
    shown = repr(store.register_agent("helper", metadata={"note": "secret words"}))
    assert "secret" not in shown + repr(store.log_activity("helper", "x", {"note": "secret words"}))


# -- many at once, and awaited


def test_sixteen_threads_lose_no_activity(store: SessionStore) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            store.log_activity(f"agent-{thread % 4}", str(number))
            store.set_status(f"agent-{thread % 4}", ALL_STATUSES[number % 6])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    found = store.operations_overview()
    assert found["total_agents"] == 4
    assert found["activity_24h"] == {"total": 640, "registered": 0, "status": 320, "activity": 320}
    for number in range(4):
        history = store.activity(agent_id=f"agent-{number}", kind="status", limit=1000)
        told = [entry.status for entry in reversed(history)]
        assert [entry.previous_status for entry in reversed(history)] == [told[0] and AgentStatus.ACTIVE, *told[:-1]]


@pytest.mark.anyio
@pytest.mark.usefixtures("frozen")
async def test_the_asynchronous_face_does_and_answers_the_same(tmp_path: Path) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda store: store.register_agent("helper", sdk_version="1", metadata={"a": 1}),
        lambda store: store.set_status("helper", AgentStatus.BUSY, previous_status="idle", metadata={"b": 2}),
        lambda store: store.log_activity("other", "x", {"c": 3}, duration=0.5),
        lambda store: store.agent("helper"),
        lambda store: store.agent("absent"),
        lambda store: store.agents(),
        lambda store: store.agents(status="active"),
        lambda store: store.activity(limit=2),
        lambda store: store.activity(agent_id="helper", kind="status"),
        lambda store: store.operations_overview(),
    ]
    async with sessionstore.aopen(tmp_path / "awaited.db") as awaited:
        with sessionstore.open(tmp_path / "plain.db") as plain:
            for call in calls:
                assert await call(awaited) == call(plain)
            with pytest.raises(InvalidInputError):
                await awaited.set_status("helper", "asleep")


@pytest.mark.anyio
async def test_many_tasks_lose_no_activity(tmp_path: Path) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(store.log_activity, f"agent-{number % 7}", str(number))
        assert {entry.action for entry in await store.activity(limit=1000)} == {str(number) for number in range(200)}
        assert len(await store.agents()) == 7
