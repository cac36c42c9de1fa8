"""The trackers: what they record is in the file when a call returns, with or without a network, from any thread or task."""

from __future__ import annotations

import inspect
import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import (
    AgentOperationsTracker,
    AgentPerformanceTracker,
    AgentStatus,
    ConversationQuality,
    SessionStore,
    clock,
    parse_session_id,
)
from sessionstore.database.registry import is_open
from sessionstore.trackers.tracker import Tracker

NOWHERE = "https://collector.invalid/api"
ID = re.compile(r"agent_001_\d{10}_[0-9a-f]{8}")


@pytest.fixture
def perf(store: SessionStore) -> Iterator[AgentPerformanceTracker]:
    with AgentPerformanceTracker(None, store=store, background=False) as tracker:
        yield tracker


@pytest.fixture
def ops(store: SessionStore) -> Iterator[AgentOperationsTracker]:
    with AgentOperationsTracker(None, store=store, background=False) as tracker:
        yield tracker


def outbox(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The kinds and bodies of the events that wait, in order."""
    with closing(sqlite3.connect(path)) as raw:
        return [(kind, json.loads(body)) for kind, body in raw.execute("SELECT kind, body FROM outbox ORDER BY id")]


# -- the announcement of the tracker SDK


def test_the_usage_of_the_announcement_works_without_any_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    perf = AgentPerformanceTracker(base_url=None, store="agent.db", session_ttl_hours=10.0, cleanup_interval_minutes=30)
    session_id = perf.start_conversation("agent_001", user_id="user_123")
    assert ID.fullmatch(session_id)
    perf.end_conversation(session_id, quality_score=ConversationQuality.GOOD)
    failed = perf.start_conversation("agent_001")
    perf.record_failed_session(failed, "Connection timeout")
    assert perf.get_success_rates(agent_id="agent_001")["overall"]["success_rate"] == 0.5
    stats = perf.get_session_stats()
    assert (stats["total_cached_sessions"], stats["active_sessions"], stats["ttl_hours"]) == (0, 0, 10.0)
    perf.close()
    with AgentPerformanceTracker(None, store="agent.db") as later:
        assert later.get_success_rates()["overall"] == {
            "total": 2, "completed": 1, "failed": 1, "expired": 0, "active": 0, "success_rate": 0.5,
        }  # fmt: skip
        assert later.get_failed_sessions()["sessions"][0]["error_message"] == "Connection timeout"
        assert later.get_conversation_quality()["overall"]["distribution"]["4"] == 1


METHODS = {
    AgentPerformanceTracker: (
        "start_conversation", "end_conversation", "record_failed_session", "set_session_ttl", "get_session_stats", "touch_session",
        "is_session_active", "get_session_ttl_remaining", "get_session_info", "get_active_conversations", "get_success_rates",
        "get_response_times", "get_conversation_quality", "get_failed_sessions", "get_performance_overview", "resume_conversation",
        "close",
    ),
    AgentOperationsTracker: (
        "register_agent", "update_agent_status", "log_activity", "get_active_agents", "get_agent_status", "get_recent_activity",
        "get_operations_overview", "close",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in METHODS.items() for name in names])
def test_each_call_exists_twice_with_the_same_arguments(kind: type[Tracker], name: str) -> None:
    call, twin = getattr(kind, name), getattr(kind, f"{name}_async")
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(call)
    assert inspect.signature(call).parameters == inspect.signature(twin).parameters


@pytest.mark.parametrize("kind", METHODS)
def test_every_public_call_is_in_the_table(kind: type[Tracker]) -> None:
    public = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    assert public == {*METHODS[kind], *(f"{name}_async" for name in METHODS[kind])}


# -- ids


def test_an_id_is_read_from_the_right() -> None:
    parts = parse_session_id("agent_001_1674123456_a1b2c3d4")
    assert parts is not None
    assert (parts.agent_id, parts.started_at, parts.random) == (
        "agent_001",
        datetime(2023, 1, 19, 10, 17, 36, tzinfo=UTC),
        "a1b2c3d4",
    )
    for agent_id in ("a", "_", "a_b_c", "1674123456_a1b2c3d4", "é", "x" * 234):
        parts = parse_session_id(f"{agent_id}_1674123456_a1b2c3d4")
        assert parts is not None
        assert parts.agent_id == agent_id


@pytest.mark.parametrize(
    "session_id",
    ["", "x", "agent_001", "agent_1674123456", "agent_1674123456_A1B2C3D4", "agent_1674123456_a1b2c3d", "_1674123456_a1b2c3d4",
     "agent_-5_a1b2c3d4", "agent_1674123456_a1b2c3d4 ", " a_1674123456_a1b2c3d4", "agent_999999999999_a1b2c3d4",
     "agent_\u0661\u0662_a1b2c3d4", "agent_1674123456_a1b2c3d4\n"],
)  # fmt: skip
def test_what_is_no_id_of_a_tracker_is_not_read(session_id: str) -> None:
    assert parse_session_id(session_id) is None


def test_equal_draws_within_a_second_are_drawn_again(perf: AgentPerformanceTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter(["aaaaaaaa", "aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    moment = clock.utc_now()
    monkeypatch.setattr(clock, "utc_now", lambda: moment)
    monkeypatch.setattr(clock, "new_token", lambda digits: next(draws))
    first, second = perf.start_conversation("a"), perf.start_conversation("a")
    assert (first[-8:], second[-8:]) == ("aaaaaaaa", "bbbbbbbb")


def test_the_id_of_an_agent_leaves_room_for_the_rest(perf: AgentPerformanceTracker) -> None:
    assert len(perf.start_conversation("x" * 234)) <= 256
    with pytest.raises(sessionstore.InvalidInputError, match="agent_id: must have at most 234"):
        perf.start_conversation("x" * 235)


# -- conversations


def test_what_start_and_end_were_told_is_stored(perf: AgentPerformanceTracker, frozen: FrozenClock) -> None:
    session_id = perf.start_conversation("helper", "alice", {"channel": "web"})
    frozen.go(seconds=90.5)
    ended = perf.end_conversation(session_id, 5, "thank you", 7, {"topic": "travel"})
    assert ended == perf.get_session_info(session_id)
    assert ended == {
        "session_id": session_id, "agent_id": "helper", "user_id": "alice", "status": "completed",
        "start_time": "2026-03-28T23:30:00+00:00", "end_time": "2026-03-28T23:31:30.500000+00:00", "duration_seconds": 90.5,
        "quality_score": 5, "user_feedback": "thank you", "error_message": None, "message_count": 7,
        "metadata": {"channel": "web", "topic": "travel"}, "last_activity_at": "2026-03-28T23:31:30.500000+00:00",
        "expires_at": None,
    }  # fmt: skip


def test_messages_of_a_tracked_conversation_are_the_stores(perf: AgentPerformanceTracker, store: SessionStore) -> None:
    session_id = perf.start_conversation("helper")
    store.append(session_id, "user", "Hello")
    store.append(session_id, "assistant", "Hi", response_time_ms=120, input_tokens=3, output_tokens=1)
    assert perf.end_conversation(session_id)["message_count"] == 2
    assert perf.get_response_times("helper")["overall"]["p95_ms"] == 120
    assert perf.get_performance_overview("helper")["tokens"]["overall"]["input_tokens"] == 3


@pytest.mark.parametrize("quality", [0, 6, -1, 3.0, "5", True, float("nan")])
def test_a_wrong_quality_is_refused_and_nothing_is_recorded(perf: AgentPerformanceTracker, quality: object) -> None:
    session_id = perf.start_conversation("a")
    with pytest.raises(sessionstore.InvalidInputError, match="quality_score"):
        perf.end_conversation(session_id, quality)  # type: ignore[arg-type]
    assert perf.is_session_active(session_id)


@pytest.mark.parametrize("quality", [*ConversationQuality, 1, 2, 3, 4, 5])
def test_qualities_and_their_numbers_are_stored(perf: AgentPerformanceTracker, quality: int) -> None:
    assert perf.end_conversation(perf.start_conversation("a"), quality)["quality_score"] == int(quality)


def test_the_end_of_a_conversation_that_began_elsewhere_is_recorded(perf: AgentPerformanceTracker, frozen: FrozenClock) -> None:
    begun = int(frozen.now.timestamp()) - 60
    ended = perf.end_conversation(f"agent_001_{begun}_a1b2c3d4", quality_score=4)
    assert (ended["agent_id"], ended["status"], ended["duration_seconds"]) == ("agent_001", "completed", 60.0)
    failed = perf.record_failed_session(f"agent_001_{begun + 3_600}_a1b2c3d4", "from a clock that is ahead")
    assert (failed["duration_seconds"], failed["error_message"]) == (0.0, "from a clock that is ahead")
    assert perf.get_success_rates("agent_001")["overall"]["success_rate"] == 0.5


def test_the_end_of_a_conversation_that_nobody_knows_is_refused(perf: AgentPerformanceTracker) -> None:
    for end in (perf.end_conversation, lambda session_id: perf.record_failed_session(session_id, "x")):
        with pytest.raises(sessionstore.NotFoundError, match="no-such"):
            end("no-such")
    assert perf.get_success_rates()["overall"]["total"] == 0


def test_a_late_end_wins_over_expiry(perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock) -> None:
    overdue, swept = perf.start_conversation("a"), perf.start_conversation("a")
    frozen.go(hours=10)
    assert store.sweep(limit=1).expired == 1
    frozen.go(hours=1)
    for session_id in (overdue, swept):
        info = perf.get_session_info(session_id)
        assert info is not None
        assert info["status"] == "expired"
        assert perf.end_conversation(session_id, 3)["status"] == "completed"
    assert store.sweep().expired == 0
    assert perf.get_success_rates()["overall"]["completed"] == 2


def test_the_first_end_may_be_corrected(perf: AgentPerformanceTracker) -> None:
    session_id = perf.start_conversation("a")
    perf.end_conversation(session_id, 5, "fine")
    failed = perf.record_failed_session(session_id, "it was not")
    assert (failed["status"], failed["quality_score"], failed["user_feedback"]) == ("failed", 5, "fine")
    assert perf.get_success_rates()["overall"] | {"total": 1, "failed": 1, "completed": 0} == perf.get_success_rates()["overall"]


def test_a_failure_may_be_told_as_an_exception_of_any_length(perf: AgentPerformanceTracker) -> None:
    told = perf.record_failed_session(perf.start_conversation("a"), TimeoutError("no answer"))
    assert told["error_message"] == "TimeoutError: no answer"
    assert perf.record_failed_session(perf.start_conversation("a"), "x" * 50_000)["error_message"] == "x" * 10_000
    with pytest.raises(sessionstore.InvalidInputError, match="error_message"):
        perf.record_failed_session(perf.start_conversation("a"), None)  # type: ignore[arg-type]


def test_a_conversation_that_went_well_after_all_has_no_error(perf: AgentPerformanceTracker) -> None:
    session_id = perf.start_conversation("a")
    perf.record_failed_session(session_id, "boom")
    ended = perf.end_conversation(session_id, 4)
    assert (ended["status"], ended["error_message"], ended["quality_score"]) == ("completed", None, 4)


def test_an_ended_conversation_is_not_touched(perf: AgentPerformanceTracker) -> None:
    session_id = perf.start_conversation("a")
    perf.end_conversation(session_id)
    assert not perf.touch_session(session_id)


def test_resuming_opens_an_ended_conversation_and_refuses_an_expired_one(
    perf: AgentPerformanceTracker, frozen: FrozenClock
) -> None:
    session_id = perf.start_conversation("a", metadata={"a": 1})
    perf.end_conversation(session_id)
    resumed = perf.resume_conversation(session_id, {"b": 2})
    assert (resumed["status"], resumed["end_time"], resumed["metadata"]) == ("open", None, {"a": 1, "b": 2})
    assert perf.get_session_ttl_remaining(session_id) == 36_000
    frozen.go(hours=10)
    with pytest.raises(sessionstore.SessionExpiredError):
        perf.resume_conversation(session_id)
    with pytest.raises(sessionstore.NotFoundError):
        perf.resume_conversation("no-such")


# -- lives


def test_a_conversation_lives_ten_hours_from_its_last_use(
    perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock
) -> None:
    session_id = perf.start_conversation("a")
    frozen.go(hours=9)
    store.append(session_id, "user", "still here")
    frozen.go(hours=9)
    assert perf.touch_session(session_id)
    frozen.go(hours=9, minutes=59)
    assert perf.is_session_active(session_id)
    assert perf.get_session_ttl_remaining(session_id) == 60
    assert [each["session_id"] for each in perf.get_active_conversations("a")] == [session_id]
    assert perf.get_active_conversations("b") == []
    frozen.go(minutes=1)
    assert not perf.is_session_active(session_id)
    assert not perf.touch_session(session_id)
    assert perf.get_session_ttl_remaining(session_id) == 0.0
    assert perf.get_active_conversations() == []


def test_asking_does_not_lengthen_a_life(perf: AgentPerformanceTracker, frozen: FrozenClock) -> None:
    session_id = perf.start_conversation("a")
    frozen.go(hours=5)
    perf.is_session_active(session_id)
    perf.get_session_info(session_id)
    perf.get_active_conversations()
    perf.get_session_stats()
    assert perf.get_session_ttl_remaining(session_id) == 5 * 3_600


def test_what_is_not_known_has_no_life(perf: AgentPerformanceTracker) -> None:
    assert perf.get_session_info("x") is None
    assert not perf.is_session_active("x")
    assert not perf.touch_session("x")
    with pytest.raises(sessionstore.NotFoundError):
        perf.get_session_ttl_remaining("x")


def test_another_ttl_changes_future_and_live_conversations_of_trackers_alike(
    perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock
) -> None:
    store.session("not-tracked", ttl=3_600 * 20)
    idle, used = perf.start_conversation("a"), perf.start_conversation("a")
    ended = perf.start_conversation("a")
    perf.end_conversation(ended)
    frozen.go(hours=3)
    store.append(used, "user", "x")
    assert perf.set_session_ttl(2) == 2
    assert not perf.is_session_active(idle)
    assert perf.get_session_ttl_remaining(used) == 2 * 3_600
    assert perf.get_session_ttl_remaining(perf.start_conversation("a")) == 2 * 3_600
    assert perf.get_session_ttl_remaining(ended) is None
    assert store.remaining("not-tracked") == 17 * 3_600
    assert perf.get_session_stats()["ttl_hours"] == 2
    perf.set_session_ttl(None)
    assert perf.get_session_ttl_remaining(used) is None
    perf.set_session_ttl(1)
    assert perf.get_session_ttl_remaining(used) == 3_600


def test_a_pinned_conversation_gets_the_new_ttl_and_lives_by_it_once_it_is_spared_no_longer(
    perf: AgentPerformanceTracker, store: SessionStore
) -> None:
    session_id = perf.start_conversation("a")
    store.pin(session_id)
    assert perf.set_session_ttl(1) == 1
    assert perf.get_session_ttl_remaining(session_id) is None
    store.pin(session_id, False)
    assert perf.get_session_ttl_remaining(session_id) == pytest.approx(3_600, abs=60)


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), True, "10", 10**9])
def test_a_wrong_ttl_is_refused(store: SessionStore, perf: AgentPerformanceTracker, hours: object) -> None:
    with pytest.raises(sessionstore.InvalidInputError, match="hours"):
        perf.set_session_ttl(hours)  # type: ignore[arg-type]
    with pytest.raises(sessionstore.InvalidInputError, match="session_ttl_hours"):
        AgentPerformanceTracker(None, store=store, session_ttl_hours=hours)  # type: ignore[arg-type]


def test_the_stats_count_live_overdue_and_idle_conversations(
    perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock
) -> None:
    overdue = perf.start_conversation("a")
    frozen.go(hours=9)
    for _ in range(4):
        perf.start_conversation("a")
    store.session("not-tracked")
    frozen.go(hours=2)
    last = perf.start_conversation("a")
    frozen.go(minutes=6)
    stats = perf.get_session_stats()
    assert stats == {
        "total_cached_sessions": 6, "active_sessions": 5, "expired_sessions_pending_cleanup": 1, "ttl_hours": 10.0,
        "cleanup_interval_minutes": 30.0, "sliding_ttl_enabled": True, "average_idle_seconds": (4 * 7_560 + 360) / 5,
        "longest_idle_seconds": 7_560.0, "shortest_idle_seconds": 360.0,
    }  # fmt: skip
    assert last != overdue
    store.sweep()
    assert perf.get_session_stats()["total_cached_sessions"] == 5


def test_a_touched_conversation_has_not_been_idle(perf: AgentPerformanceTracker, frozen: FrozenClock) -> None:
    session_id = perf.start_conversation("a")
    frozen.go(hours=2)
    assert perf.get_session_stats()["longest_idle_seconds"] == 7_200.0
    assert perf.touch_session(session_id)
    assert perf.get_session_stats()["longest_idle_seconds"] == 0.0
    frozen.go(microseconds=1_234_567)
    assert perf.get_session_stats()["shortest_idle_seconds"] == 1.234567


def test_the_last_use_is_told_by_what_slides_and_else_by_the_last_change(
    perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock
) -> None:
    """One that is pinned, one that never expires and one with a `max_age` have no expiry that tells when they were used."""
    pinned, endless, aged = (perf.start_conversation(agent) for agent in ("pinned", "endless", "aged"))
    frozen.go(seconds=10)
    store.pin(pinned)
    frozen.go(seconds=20)
    store.set_ttl(endless, None)
    frozen.go(seconds=40)
    store.set_ttl(aged, max_age=36_000)
    frozen.go(seconds=80)
    sliding = perf.start_conversation("sliding")
    frozen.go(seconds=0.5)
    store.tag(sliding, "a change is no use")
    stats = perf.get_session_stats()
    idle = [140.5, 120.5, 80.5, 0.5]
    assert (stats["longest_idle_seconds"], stats["shortest_idle_seconds"]) == (140.5, 0.5)
    assert stats["average_idle_seconds"] == sum(idle) / 4


def test_no_time_is_idle_after_a_clock_that_went_back(perf: AgentPerformanceTracker, frozen: FrozenClock) -> None:
    perf.start_conversation("a")
    frozen.go(seconds=-10)
    stats = perf.get_session_stats()
    assert (stats["average_idle_seconds"], stats["longest_idle_seconds"], stats["shortest_idle_seconds"]) == (0.0, 0.0, 0.0)


def test_overdue_conversations_of_others_are_not_counted(
    perf: AgentPerformanceTracker, store: SessionStore, frozen: FrozenClock
) -> None:
    store.create("not tracked", ttl=1)
    with AgentPerformanceTracker(None, store=store.in_namespace("other"), background=False, session_ttl_hours=1) as other:
        other.start_conversation("a")
        frozen.go(hours=1)
        assert other.get_session_stats()["expired_sessions_pending_cleanup"] == 1
        assert perf.get_session_stats()["expired_sessions_pending_cleanup"] == 0


# -- operations


def test_agents_are_followed(ops: AgentOperationsTracker, frozen: FrozenClock) -> None:
    ops.register_agent("helper", sdk_version="1.2.0", metadata={"zone": "eu"})
    frozen.go(seconds=1)
    ops.update_agent_status("helper", AgentStatus.BUSY)
    frozen.go(seconds=1)
    ops.log_activity("helper", "tool_call", {"tool": "search"}, 1.5)
    status = ops.get_agent_status("helper")
    assert status is not None
    assert (status["status"], status["sdk_version"], status["metadata"]) == ("busy", "1.2.0", {"zone": "eu"})
    assert status["last_seen_at"] == "2026-03-28T23:30:02+00:00"
    recent = ops.get_recent_activity()
    assert [each["kind"] for each in recent] == ["activity", "status", "registered"]
    assert (recent[0]["action"], recent[0]["details"], recent[0]["duration"]) == ("tool_call", {"tool": "search"}, 1.5)
    assert [agent["agent_id"] for agent in ops.get_active_agents()] == ["helper"]
    assert ops.get_agent_status("nobody") is None
    frozen.go(hours=1)
    assert ops.get_active_agents() == []
    silent = ops.get_agent_status("helper")
    assert silent is not None
    assert (silent["status"], silent["reported_status"]) == ("offline", "busy")


def test_a_wrong_status_is_refused(ops: AgentOperationsTracker) -> None:
    with pytest.raises(sessionstore.InvalidInputError, match="status"):
        ops.update_agent_status("helper", "sleepy")
    assert ops.get_agent_status("helper") is None


# -- the remote, which need not be there


def test_with_a_remote_every_event_waits_in_the_outbox_in_order(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    with (
        AgentPerformanceTracker(NOWHERE, "a-secret-key-of-a-user", store=store, background=False) as perf,
        AgentOperationsTracker(NOWHERE + "/", store=store, background=False) as ops,
    ):
        ops.register_agent("helper", "1.2.0")
        session_id = perf.start_conversation("helper", "alice", {"a": 1})
        frozen.go(seconds=2)
        store.append(session_id, "user", "the text stays here")
        store.append(session_id, "assistant", "this one, too", response_time_ms=420, output_tokens=3)
        perf.end_conversation(session_id, 4, "good", None, {"b": 2})
        ops.update_agent_status("helper", "idle", "busy")
        ops.log_activity("helper", "rest", duration=2)
        lost = perf.start_conversation("helper")
        frozen.go(hours=10)
        store.sweep()
        began, later = "2026-03-28T23:30:00+00:00", "2026-03-28T23:30:02+00:00"
        assert outbox(store_path) == [
            ("agent_register", {"agent_id": "helper", "registration_time": began, "sdk_version": "1.2.0"}),
            ("conversation_start",
             {"session_id": session_id, "agent_id": "helper", "start_time": began, "user_id": "alice", "metadata": {"a": 1}}),
            ("metric",
             {"name": "message", "value": 420.0, "unit": "ms", "agent_id": "helper", "session_id": session_id, "timestamp": later,
              "start_time": began, "attributes": {"seq": 2, "role": "assistant", "output_tokens": 3, "response_time_ms": 420.0}}),
            ("conversation_end",
             {"session_id": session_id, "agent_id": "helper", "start_time": began, "end_time": later, "duration_seconds": 2.0,
              "status": "completed", "quality_score": 4, "user_feedback": "good", "message_count": 2, "metadata": {"b": 2}}),
            ("agent_status", {"agent_id": "helper", "status": "idle", "timestamp": later, "previous_status": "busy"}),
            ("agent_activity", {"agent_id": "helper", "action": "rest", "timestamp": later, "duration": 2.0, "details": {}}),
            ("conversation_start", {"session_id": lost, "agent_id": "helper", "start_time": later}),
            ("conversation_expired",
             {"session_id": lost, "agent_id": "helper", "start_time": later, "end_time": "2026-03-29T09:30:02+00:00",
              "duration_seconds": 36_000.0, "status": "expired", "expiry_reason": "ttl_timeout"}),
        ]  # fmt: skip
    assert b"a-secret-key-of-a-user" not in store_path.read_bytes() + store_path.with_name("agent.db-wal").read_bytes()
    assert "text stays" not in json.dumps(outbox(store_path))


def test_without_a_remote_nothing_waits(perf: AgentPerformanceTracker, store_path: Path) -> None:
    perf.end_conversation(perf.start_conversation("a"))
    assert outbox(store_path) == []


def test_one_store_has_one_remote(store: SessionStore) -> None:
    AgentPerformanceTracker(NOWHERE, store=store, background=False)
    AgentPerformanceTracker(NOWHERE + "/", store=store, background=False)
    AgentPerformanceTracker(None, store=store, background=False)
    with pytest.raises(sessionstore.ConfigError, match="one remote"):
        AgentPerformanceTracker("https://other.example", store=store)


def test_a_refused_remote_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    AgentPerformanceTracker(NOWHERE, store=path, background=False).close()
    with pytest.raises(sessionstore.ConfigError, match="one remote"):
        AgentPerformanceTracker("https://other.example", store=path)
    assert not is_open(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 0), ("timeout", "30"), ("max_retries", -1), ("max_retries", 1.5), ("retry_delay", -1), ("retry_delay", True),
     ("enable_async", 1), ("cleanup_interval_minutes", 0), ("cleanup_interval_minutes", float("nan")), ("background", "no"),
     ("logger", "x"),
     ("base_url", "ftp://x"), ("base_url", "http://example.com"), ("base_url", ""), ("api_key", ""), ("api_key", "a\nb")],
)  # fmt: skip
def test_a_wrong_argument_is_refused(store: SessionStore, name: str, value: object) -> None:
    with pytest.raises((sessionstore.ConfigError, sessionstore.InvalidInputError)):
        AgentPerformanceTracker(**{"base_url": None, "store": store, name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no_such_option"):
        AgentPerformanceTracker(None, store=store, no_such_option=1)  # type: ignore[call-arg]


def test_the_key_is_in_no_repr(store: SessionStore) -> None:
    tracker = AgentPerformanceTracker(NOWHERE, "a-secret-key-of-a-user", store=store, background=False)
    assert "secret" not in repr(tracker)
    assert "secret" not in repr(vars(tracker))


# -- stores, closing, background, logging


def test_the_first_recording_starts_the_background_and_close_stops_it(store: SessionStore) -> None:
    def running() -> int:
        return sum(thread.name == "sessionstore-background" for thread in threading.enumerate())

    perf = AgentPerformanceTracker(None, store=store)
    other = AgentOperationsTracker(None, store=store)
    perf.get_session_stats()
    assert running() == 0
    perf.start_conversation("a")
    other.register_agent("a")
    assert running() == 1
    perf.close()
    assert running() == 1
    other.close()
    other.close()
    assert running() == 0


def test_the_background_cleans_up_by_itself(store: SessionStore) -> None:
    with AgentPerformanceTracker(None, store=store, session_ttl_hours=1e-6, cleanup_interval_minutes=0.001) as perf:
        perf.start_conversation("a")
        end = time.monotonic() + 10
        while store.status().sweeps < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert perf.get_session_stats()["total_cached_sessions"] == 0
        assert perf.get_success_rates()["overall"]["expired"] == 1


def test_a_closed_tracker_refuses_and_leaves_a_store_open_that_is_not_its_own(store: SessionStore, tmp_path: Path) -> None:
    given = AgentPerformanceTracker(None, store=store, background=False)
    own = AgentPerformanceTracker(None, store=tmp_path / "own.db", background=False)
    for tracker in (given, own):
        tracker.close()
        tracker.close()
        with pytest.raises(sessionstore.ClosedStoreError):
            tracker.start_conversation("a")
    assert store.count() == 0
    with pytest.raises(sessionstore.ClosedStoreError):
        own.store.count()


def test_trackers_share_a_store_a_path_and_a_url(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with (
        sessionstore.open(path) as store,
        AgentPerformanceTracker(None, store=store) as one,
        AgentPerformanceTracker(None, store=str(path)) as two,
        AgentPerformanceTracker(None, store=f"sqlite:///{path}") as three,
    ):
        started = [tracker.start_conversation("a") for tracker in (one, two, three)]
        assert {each["session_id"] for each in one.get_active_conversations()} == set(started)


def test_namespaces_are_kept_apart(store: SessionStore) -> None:
    here = AgentPerformanceTracker(None, store=store, background=False)
    there = AgentPerformanceTracker(None, store=store.in_namespace("there"), background=False)
    session_id = here.start_conversation("a")
    assert there.get_session_info(session_id) is None
    assert there.set_session_ttl(1) == 0
    assert there.get_success_rates()["overall"]["total"] == 0
    assert here.get_session_stats()["active_sessions"] == 1


def test_a_logger_of_ones_own_gets_the_events_without_their_texts(store: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    mine = logging.getLogger("my.agent")
    with caplog.at_level(logging.INFO), AgentPerformanceTracker(None, store=store, logger=mine, background=False) as perf:
        session_id = perf.start_conversation("helper", metadata={"note": "canary-meta"})
        perf.record_failed_session(session_id, "canary-error token=abc")
    records = [record for record in caplog.records if record.name == "my.agent"]
    assert [record.event for record in records] == ["conversation_started", "conversation_ended"]  # type: ignore[attr-defined]
    assert {record.session_id for record in records} == {session_id}  # type: ignore[attr-defined]
    assert "canary" not in repr([vars(record) for record in caplog.records])


# -- many threads and tasks


def test_32_threads_count_exactly(store: SessionStore) -> None:
    with AgentPerformanceTracker(None, store=store) as perf:

        def work(number: int) -> None:
            for turn in range(20):
                session_id = perf.start_conversation(f"agent-{number % 4}")
                if turn % 4:
                    perf.end_conversation(session_id, 1 + turn % 5)
                else:
                    perf.record_failed_session(session_id, f"error {turn % 3}")

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(work, range(32)))
        rates = perf.get_success_rates()
        expected = {"total": 640, "completed": 480, "failed": 160, "expired": 0, "active": 0, "success_rate": 0.75}
        assert rates["overall"] == expected
        assert [agent["total"] for agent in rates["agents"]] == [160] * 4
        assert perf.get_conversation_quality()["overall"]["count"] == 480
        assert perf.get_failed_sessions()["total"] == 160


@pytest.mark.anyio
async def test_200_tasks_count_exactly(store_path: Path) -> None:
    async with AgentPerformanceTracker(None, store=store_path) as perf, AgentOperationsTracker(None, store=store_path) as ops:

        async def work(number: int) -> None:
            session_id = await perf.start_conversation_async(f"agent-{number % 4}")
            await ops.log_activity_async(f"agent-{number % 4}", "turn", {"number": number})
            if number % 5:
                await perf.end_conversation_async(session_id, 1 + number % 5)
            else:
                await perf.record_failed_session_async(session_id, "x")

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(work, number)
        overall = (await perf.get_success_rates_async())["overall"]
        assert overall == {"total": 200, "completed": 160, "failed": 40, "expired": 0, "active": 0, "success_rate": 0.8}
        assert len(await ops.get_recent_activity_async(limit=1_000)) == 200
        assert len(await ops.get_active_agents_async()) == 4


def test_a_ttl_that_changes_beside_starts_holds_for_all_of_them(store: SessionStore) -> None:
    with AgentPerformanceTracker(None, store=store, background=False) as perf, ThreadPoolExecutor(9) as pool:
        starts = [pool.submit(lambda: [perf.start_conversation("a") for _ in range(20)]) for _ in range(8)]
        pool.submit(perf.set_session_ttl, 1).result()
        started = [session_id for start in starts for session_id in start.result()]
        left = [perf.get_session_ttl_remaining(session_id) for session_id in started]
    assert max(left, key=lambda seconds: seconds or 0) == pytest.approx(3_600, abs=60)


@pytest.mark.anyio
async def test_a_cancelled_change_of_the_ttl_is_done_for_all_or_for_none(store_path: Path) -> None:
    async with AgentPerformanceTracker(None, store=store_path, background=False) as perf:
        for tries in range(10):
            before = await perf.start_conversation_async("a")
            hours = 1 + tries
            with anyio.move_on_after(0) as scope:
                scope.cancel()
                await perf.set_session_ttl_async(hours)
            after = await perf.start_conversation_async("a")
            lives = [await perf.get_session_ttl_remaining_async(session_id) for session_id in (before, after)]
            assert lives[0] == pytest.approx(lives[1], abs=60)


@pytest.mark.anyio
async def test_an_async_call_refuses_what_the_other_one_refuses(store_path: Path) -> None:
    async with AgentPerformanceTracker(None, store=store_path, background=False) as perf:
        session_id = await perf.start_conversation_async("a")
        with pytest.raises(sessionstore.InvalidInputError, match="quality_score"):
            await perf.end_conversation_async(session_id, 6)
        with pytest.raises(sessionstore.NotFoundError):
            await perf.end_conversation_async("no-such")
        await perf.set_session_ttl_async(1)
        assert (await perf.get_session_stats_async())["ttl_hours"] == 1
        assert await perf.get_session_ttl_remaining_async(await perf.start_conversation_async("a")) == pytest.approx(3_600, abs=60)
    with pytest.raises(sessionstore.ClosedStoreError):
        await perf.start_conversation_async("a")


CALLS: dict[str, Callable[[AgentPerformanceTracker, str], object]] = {
    "active": lambda perf, session_id: perf.get_active_conversations_async(),
    "info": lambda perf, session_id: perf.get_session_info_async(session_id),
    "touch": lambda perf, session_id: perf.touch_session_async(session_id),
    "is active": lambda perf, session_id: perf.is_session_active_async(session_id),
    "quality": lambda perf, session_id: perf.get_conversation_quality_async(),
    "response times": lambda perf, session_id: perf.get_response_times_async(),
    "failures": lambda perf, session_id: perf.get_failed_sessions_async(),
    "overview": lambda perf, session_id: perf.get_performance_overview_async(),
    "resume": lambda perf, session_id: perf.resume_conversation_async(session_id),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_async_calls_answer_as_the_others(store_path: Path, name: str, frozen: FrozenClock) -> None:
    async with AgentPerformanceTracker(None, store=store_path, background=False) as perf:
        session_id = perf.start_conversation("a")
        plain = {
            "active": perf.get_active_conversations,
            "info": lambda: perf.get_session_info(session_id),
            "touch": lambda: perf.touch_session(session_id),
            "is active": lambda: perf.is_session_active(session_id),
            "quality": perf.get_conversation_quality,
            "response times": perf.get_response_times,
            "failures": perf.get_failed_sessions,
            "overview": perf.get_performance_overview,
            "resume": lambda: perf.resume_conversation(session_id),
        }
        assert await CALLS[name](perf, session_id) == plain[name]()  # type: ignore[misc,operator]
