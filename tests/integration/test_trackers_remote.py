"""Trackers with a remote: recordings are delivered behind the caller's back, questions go where they are sent."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, BatchBackend, Received, Reply

import sessionstore
from sessionstore import AgentOperationsTracker, AgentPerformanceTracker, SessionStore, SessionStoreError
from sessionstore.config import KEY_VARIABLE, REMOTE_VARIABLE
from sessionstore.errors import AuthError, RedirectRefusedError, RejectedError, ResponseError, SyncError
from sessionstore.remote.settings import Remote

KEY = "a-key-of-the-remote-1"
PATIENCE = 10.0
NO_RETRY = {"max_retries": 0, "timeout": 5.0}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REMOTE_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def backend() -> Iterator[BatchBackend]:
    with BatchBackend() as running:
        yield running


@pytest.fixture
def nobody() -> str:
    """The URL of a server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/api"


def until(holds: Callable[[], Any]) -> None:
    """Wait for it, and fail if it does not come."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def kinds(backend: BatchBackend) -> list[str]:
    """What it has received, in the order of arrival."""
    return [event["kind"] for event in backend.stored.values()]


# -- deliveries


def test_what_a_tracker_records_is_delivered_beside_its_calls(backend: BatchBackend, store_path: Path) -> None:
    perf = AgentPerformanceTracker(backend.url, KEY, store=store_path)
    ops = AgentOperationsTracker(backend.url, KEY, store=store_path)
    session_id = perf.start_conversation("helper", "alice")
    perf.end_conversation(session_id, 5)
    ops.update_agent_status("helper", "idle")
    until(lambda: sorted(kinds(backend)) == ["agent_status", "conversation_end", "conversation_start"])
    assert [kind for kind in kinds(backend) if kind != "agent_status"] == ["conversation_start", "conversation_end"]
    assert {request.headers["authorization"] for request in backend.received} == {f"Bearer {KEY}"}
    until(lambda: perf.store.outbox.stats().sent == 3)
    ops.close()
    perf.close()


@pytest.mark.anyio
async def test_what_the_async_calls_record_is_delivered_too(backend: BatchBackend, store_path: Path) -> None:
    async with AgentPerformanceTracker(backend.url, KEY, store=store_path, background=False) as perf:
        session_id = await perf.start_conversation_async("helper")
        await perf.record_failed_session_async(session_id, "boom")
    assert kinds(backend) == ["conversation_start", "conversation_end"]


def test_nothing_is_asked_of_the_network_before_the_first_recording(backend: BatchBackend, store_path: Path) -> None:
    with sessionstore.open(store_path, remote=backend.url) as store:
        store.session("waits", agent_id="helper")
        store.close(drain_timeout=0)
    perf = AgentPerformanceTracker(backend.url, KEY, store=store_path)
    perf.get_session_stats()
    perf.get_success_rates()
    assert perf.get_session_info("waits") is not None
    assert backend.received == []
    perf.touch_session("waits")  # it begins the background although it leaves no event
    until(lambda: kinds(backend) == ["conversation_start"])
    perf.close()


def test_a_tracker_without_a_url_delivers_to_the_files_remote_with_the_key_of_the_environment(
    backend: BatchBackend, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessionstore.open(store_path, remote=backend.url).close()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with AgentPerformanceTracker(None, store=store_path) as perf:
        perf.start_conversation("helper")
        until(lambda: kinds(backend) == ["conversation_start"])
    assert backend.received[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_tracker_without_a_key_takes_the_environments(
    backend: BatchBackend, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with AgentPerformanceTracker(backend.url, store=store_path, background=False) as perf:
        perf.start_conversation("helper")
    assert backend.received[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_key_that_the_environment_names_with_another_url_is_not_sent(
    backend: BatchBackend, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(REMOTE_VARIABLE, "https://other.example")
    with AgentPerformanceTracker(backend.url, store=store_path, background=False) as perf:
        perf.start_conversation("helper")
    assert kinds(backend) == ["conversation_start"]
    assert ["authorization" in request.headers for request in backend.received] == [False, False]


def test_a_tracker_leaves_what_the_store_was_told_about_its_remote(backend: BatchBackend, store_path: Path) -> None:
    """A second tracker may know the URL only."""
    remote = Remote(backend.url, KEY, sync_messages=True, max_outbox_bytes=1 << 20, on_full="raise", trust_env=True)
    with sessionstore.open(store_path, remote=remote) as store:
        with AgentPerformanceTracker(backend.url, store=store, background=False, timeout=7) as perf:
            store.append(perf.start_conversation("helper"), "user", "Hello")
            known = store._database.remote
            assert known is not None
            assert (known.api_key, known.timeout, known.trust_env, known.sync_messages) == (remote.api_key, 7, True, True)
        assert kinds(backend) == ["conversation_start", "message"]
        assert store.outbox.stats().quota == 1 << 20
    with AgentPerformanceTracker(backend.url, "another-key-of-it-2", store=store_path, background=False) as perf:
        assert perf.store.outbox.stats().quota == 1 << 20
        perf.start_conversation("helper")
    assert backend.received[-1].headers["authorization"] == "Bearer another-key-of-it-2"


def test_close_delivers_what_waits_within_its_time(backend: BatchBackend, store: SessionStore) -> None:
    """Also from a store that is not its own, which stays open."""
    perf = AgentPerformanceTracker(backend.url, KEY, store=store, background=False)
    perf.start_conversation("helper")
    assert backend.received == []
    perf.close()
    perf.close()
    assert kinds(backend) == ["conversation_start"]
    assert store.count() == 1


def test_close_without_time_leaves_all_on_disk(backend: BatchBackend, store: SessionStore) -> None:
    perf = AgentPerformanceTracker(backend.url, KEY, store=store, background=False)
    perf.start_conversation("helper")
    perf.close(drain_timeout=0)
    assert backend.received == []
    assert store.outbox.stats().pending == 1
    store.close(drain_timeout=0)


@pytest.mark.parametrize("seconds", [-1, "2", float("nan"), True])
def test_a_wrong_drain_timeout_is_refused_and_nothing_is_closed(store: SessionStore, seconds: Any) -> None:
    perf = AgentPerformanceTracker(None, store=store, background=False)
    with pytest.raises(sessionstore.InvalidInputError, match="drain_timeout"):
        perf.close(drain_timeout=seconds)
    assert perf.start_conversation("helper")
    perf.close()


def test_close_gives_up_on_a_remote_that_does_not_answer(store: SessionStore) -> None:
    """It is told to take a tenth of a second; the remote would take thirty."""
    going_on = threading.Event()

    def stuck(received: Received) -> Reply:
        going_on.wait(30)
        return Reply()

    with Backend(stuck) as silent:
        perf = AgentPerformanceTracker(silent.url, KEY, store=store, background=False)
        perf.start_conversation("helper")
        begun = time.monotonic()
        perf.close(drain_timeout=0.1)
        assert time.monotonic() - begun < 15
        going_on.set()
    stats = store.outbox.stats()
    assert (stats.pending, stats.attempts) == (1, 0)
    store.close(drain_timeout=0)


def test_offline_recordings_return_and_wait(nobody: str, store: SessionStore) -> None:
    with AgentPerformanceTracker(nobody, KEY, store=store, **NO_RETRY) as perf:
        for _ in range(20):
            perf.end_conversation(perf.start_conversation("helper"), 4)
        until(lambda: store.outbox.stats().failures)
        assert perf.get_success_rates()["overall"]["completed"] == 20
    stats = store.outbox.stats()
    assert (stats.pending, stats.attempts, stats.paused) == (40, 0, None)


def test_another_remote_than_the_files_is_refused_and_leaves_no_key(backend: BatchBackend, store: SessionStore) -> None:
    AgentPerformanceTracker(backend.url, KEY, store=store, background=False)
    with pytest.raises(sessionstore.ConfigError, match="one remote"):
        AgentPerformanceTracker("https://other.example", "another-key-of-it-2", store=store)
    known = store._database.remote
    assert known is not None
    assert known.base_url == backend.url


# -- questions

PERIOD: dict[str, Any] = {"start_date": date(2026, 5, 1), "end_date": datetime(2026, 6, 1, 12, tzinfo=UTC)}
IN_PATH = "start_date=2026-05-01&end_date=2026-06-01T12%3A00%3A00%2B00%3A00"

PERFORMANCE: list[tuple[str, dict[str, Any], str]] = [
    ("get_success_rates", {}, "/metrics/success-rates"),
    ("get_success_rates", {"agent_id": "a b", **PERIOD}, f"/metrics/success-rates?agent_id=a+b&{IN_PATH}"),
    ("get_response_times", PERIOD, f"/metrics/response-times?{IN_PATH}"),
    ("get_conversation_quality", PERIOD, f"/metrics/quality?{IN_PATH}"),
    ("get_failed_sessions", PERIOD, f"/metrics/failures?{IN_PATH}"),
    ("get_failed_sessions", {"limit": 5, "cursor": "x"}, "/metrics/failures?limit=5&cursor=x"),
    ("get_performance_overview", {"agent_id": "a"}, "/metrics/overview?agent_id=a"),
    ("get_active_conversations", {}, "/conversations/active"),
    ("get_active_conversations", {"agent_id": "a"}, "/conversations/active?agent_id=a"),
    ("get_session_info", {"session_id": "a/b"}, "/conversations/a%2Fb"),
]
OPERATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("get_active_agents", {}, "/agents/active"),
    ("get_agent_status", {"agent_id": "a"}, "/agents/a/status"),
    ("get_agent_status", {"agent_id": ".."}, "/agents/%2E%2E/status"),
    ("get_recent_activity", {}, "/agents/activity?limit=50"),
    ("get_recent_activity", {"agent_id": "a?", "limit": 5}, "/agents/a%3F/activity?limit=5"),
    ("get_operations_overview", {}, "/operations/overview"),
]
CALLS = [(AgentPerformanceTracker, *call) for call in PERFORMANCE] + [(AgentOperationsTracker, *call) for call in OPERATIONS]
AnyKind = type[AgentPerformanceTracker] | type[AgentOperationsTracker]


@pytest.mark.parametrize(("kind", "name", "arguments", "path"), CALLS)
def test_each_question_goes_to_its_endpoint_and_comes_back_as_it_is(
    store: SessionStore, kind: AnyKind, name: str, arguments: dict[str, Any], path: str
) -> None:
    said = {"whatever": ["the", "backend", 1.5, None]}
    with Backend(lambda _: Reply(200, said)) as backend, kind(backend.url, KEY, store=store, background=False) as tracker:
        assert getattr(tracker, name)(**arguments, source="remote") == said
        (request,) = backend.received
        assert (request.method, request.path, request.body) == ("GET", backend.prefix + path, b"")
        assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "name", "arguments", "path"), [CALLS[1], CALLS[9], CALLS[11]])
async def test_the_async_twins_ask_in_their_own_loop(
    store: SessionStore, kind: AnyKind, name: str, arguments: dict[str, Any], path: str
) -> None:
    with Backend(lambda _: Reply(200, {"a": 1})) as backend:
        async with kind(backend.url, KEY, store=store, background=False) as tracker:
            threads = threading.active_count()
            asking: Awaitable[Any] = getattr(tracker, f"{name}_async")(**arguments, source="remote")
            assert await asking == {"a": 1}
            assert [request.path for request in backend.received] == [backend.prefix + path]
            assert threading.active_count() <= threads + 1, "only the backend's own thread may have come"


@pytest.mark.parametrize(("kind", "name", "arguments", "path"), CALLS)
def test_by_default_the_file_answers(store: SessionStore, kind: AnyKind, name: str, arguments: dict[str, Any], path: str) -> None:
    del path
    if "cursor" in arguments:
        arguments = {}
    store.session("a/b")
    with Backend() as backend, kind(backend.url, KEY, store=store, background=False) as tracker:
        getattr(tracker, name)(**arguments)
        getattr(tracker, name)(**arguments, source="local")
        assert backend.received == []


@pytest.mark.parametrize(("kind", "name", "arguments", "path"), CALLS)
def test_without_a_url_there_is_nobody_to_ask(
    store: SessionStore, kind: AnyKind, name: str, arguments: dict[str, Any], path: str
) -> None:
    del path
    with kind(None, store=store, background=False) as tracker:
        with pytest.raises(sessionstore.ConfigError, match="base_url"):
            getattr(tracker, name)(**arguments, source="remote")
        with pytest.raises(sessionstore.InvalidInputError, match="source"):
            getattr(tracker, name)(**arguments, source="elsewhere")


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [("get_success_rates", {"start_date": datetime(2026, 5, 1)}, "start_date"),  # noqa: DTZ001 - that is what is refused
     ("get_response_times", {"agent_id": ""}, "agent_id"),
     ("get_failed_sessions", {"limit": 0}, "limit"),
     ("get_failed_sessions", {"cursor": 1}, "cursor"),
     ("get_conversation_quality", {"start_date": date(2026, 5, 2), "end_date": date(2026, 5, 1)}, "end_date"),
     ("get_active_conversations", {"agent_id": "\n"}, "agent_id"),
     ("get_session_info", {"session_id": ""}, "session_id")],
)  # fmt: skip
def test_the_remote_is_not_asked_what_the_file_would_not_be(
    store: SessionStore, name: str, arguments: dict[str, Any], field: str
) -> None:
    with Backend() as backend, AgentPerformanceTracker(backend.url, KEY, store=store, background=False) as perf:
        for source in ("local", "remote"):
            with pytest.raises(sessionstore.InvalidInputError) as caught:
                getattr(perf, name)(**arguments, source=source)
            assert caught.value.field == field
        assert backend.received == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(Reply(401, {"detail": "no"}), AuthError), (Reply(403, b""), AuthError), (Reply(400, {}), RejectedError),
     (Reply(404, {}), RejectedError), (Reply(422, {}), RejectedError), (Reply(200, b"<html>"), ResponseError),
     (Reply(302, b"", {"Location": "http://127.0.0.1:1/"}), RedirectRefusedError), (Reply(410, b""), ResponseError),
     (Reply(503, b"", {"Retry-After": "60"}), SyncError)],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error_of_its_kind(store: SessionStore, reply: Reply, kind: type[SyncError]) -> None:
    with Backend(lambda _: reply) as backend, AgentPerformanceTracker(backend.url, KEY, store=store, background=False) as perf:
        with pytest.raises(kind) as caught:
            perf.get_success_rates(source="remote")
        assert (type(caught.value), caught.value.status) == (kind, reply.status)
        assert len(backend.received) == 1
    assert KEY not in str(caught.value)


@pytest.mark.anyio
async def test_the_async_twins_raise_the_same_errors(store: SessionStore, nobody: str) -> None:
    with Backend(lambda _: Reply(401, {})) as backend:
        async with AgentPerformanceTracker(backend.url, KEY, store=store, background=False) as perf:
            with pytest.raises(AuthError):
                await perf.get_success_rates_async(source="remote")
        store.set_remote(nobody, KEY, replace=True)
    async with AgentPerformanceTracker(nobody, KEY, store=store, background=False) as perf:
        with pytest.raises(SyncError) as caught:
            await perf.get_active_conversations_async(source="remote")
        assert (type(caught.value), caught.value.status) == (SyncError, None)


def test_a_key_that_cannot_be_had_is_an_auth_error(store: SessionStore) -> None:
    def locked() -> str:
        raise OSError("the keyring is locked")

    with Backend() as backend, AgentPerformanceTracker(backend.url, locked, store=store, background=False) as perf:
        with pytest.raises(AuthError, match="OSError"):
            perf.get_success_rates(source="remote")
        assert backend.received == []


def test_a_collector_answers_what_the_file_answers(tmp_path: Path) -> None:
    """A real one, in a process of its own."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    command = [sys.executable, "-m", "sessionstore", "serve", "--db", str(tmp_path / "collected.db"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as collector:
        try:
            assert collector.stderr is not None
            (url,) = re.findall(r"http://\S+", collector.stderr.readline())
            compare(url, tmp_path / "agent.db")
        finally:
            collector.terminate()


def compare(url: str, path: Path) -> None:
    with AgentPerformanceTracker(url, store=path) as perf, AgentOperationsTracker(url, store=path) as ops:
        ids = [perf.start_conversation(f"agent-{number % 2}", "alice", {"n": number}) for number in range(8)]
        for number, session_id in enumerate(ids[:6]):
            perf.store.append(session_id, "user", "Hello")
            perf.store.append(session_id, "assistant", "Hi", response_time_ms=10.0 * number, output_tokens=3)
            if number % 3:
                perf.end_conversation(session_id, 1 + number % 5)
            else:
                perf.record_failed_session(session_id, "boom")
        ops.update_agent_status("agent-0", "busy")
        ops.log_activity("agent-1", "search", {"words": 2}, 0.5)
        assert perf.store.flush(PATIENCE)
        source = {"source": perf.store.status().store_id, "namespace": ""}
        for name in ("get_success_rates", "get_response_times", "get_conversation_quality", "get_failed_sessions",
                     "get_performance_overview"):  # fmt: skip
            assert getattr(perf, name)(source="remote") == getattr(perf, name)(), name
        assert ops.get_operations_overview(source="remote") == ops.get_operations_overview()
        for remote, local in (
            (ops.get_active_agents(source="remote"), ops.get_active_agents()),
            (ops.get_recent_activity(source="remote"), ops.get_recent_activity()),
            ([ops.get_agent_status("agent-0", source="remote")], [ops.get_agent_status("agent-0")]),
            ([perf.get_session_info(ids[0], source="remote")], [perf.get_session_info(ids[0])]),
        ):
            assert remote == [{**each, **source} for each in local if each is not None]
        assert len(perf.get_active_conversations("agent-1", source="remote")) == len(perf.get_active_conversations("agent-1")) == 1
        assert perf.get_session_info("no-such") is None
        assert ops.get_agent_status("no-such", source="remote") is None


# -- sessions that the file does not know


@pytest.mark.anyio
async def test_a_session_that_is_unknown_here_is_asked_for(store: SessionStore) -> None:
    elsewhere = {"session_id": "helper_1674123456_a1b2c3d4", "status": "completed", "source": "x", "namespace": ""}
    team = store.in_namespace("team é")
    with (
        Backend(lambda _: Reply(200, elsewhere)) as backend,
        AgentPerformanceTracker(backend.url, KEY, store=team, background=False) as perf,
    ):
        assert perf.get_session_info("helper_1674123456_a1b2c3d4") == elsewhere
        assert await perf.get_session_info_async("helper_1674123456_a1b2c3d4") == elsewhere
        # Whoever had it: it is none of this store's.
        assert [each.headers.get("sessionstore-source") for each in backend.received] == [None] * 2
        assert perf.get_session_info("helper_1674123456_a1b2c3d4", source="remote") == elsewhere
        ours = backend.received[-1].headers
        assert (ours["sessionstore-source"], ours["sessionstore-namespace"]) == (store.status().store_id, "team%20%C3%A9")


def test_a_session_that_is_known_here_is_not_asked_for(store: SessionStore) -> None:
    """Also when it is over."""
    with Backend() as backend, AgentPerformanceTracker(backend.url, KEY, store=store, background=False) as perf:
        session_id = perf.start_conversation("helper")
        perf.end_conversation(session_id)
        info = perf.get_session_info(session_id)
        assert info is not None
        assert info["status"] == "completed"
        assert backend.received == []
        perf.close(drain_timeout=0)
        store.close(drain_timeout=0)


@pytest.mark.parametrize("reply", [Reply(404, {}), Reply(401, {}), Reply(500, b""), Reply(200, b"<html>"), Reply(200, [])])
def test_a_session_that_nobody_tells_of_is_none(store: SessionStore, reply: Reply) -> None:
    with Backend(lambda _: reply) as backend, AgentPerformanceTracker(backend.url, KEY, store=store, background=False) as perf:
        assert perf.get_session_info("no-such") is None
        assert len(backend.received) == 1


@pytest.mark.anyio
async def test_offline_an_unknown_session_is_none_and_that_is_told(
    nobody: str, store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG, "sessionstore"),
        AgentPerformanceTracker(nobody, KEY, store=store, background=False) as perf,
    ):
        assert perf.get_session_info("no-such") is None
        assert await perf.get_session_info_async("no-such") is None
        with pytest.raises(SyncError):
            perf.get_session_info("no-such", source="remote")
    told = [record for record in caplog.records if getattr(record, "event", "") == "question_failed"]
    assert [(record.levelname, record.session_id) for record in told] == [("DEBUG", "no-such")] * 2  # type: ignore[attr-defined]


def test_an_answer_that_quotes_the_key_leaves_it_nowhere(store: SessionStore, store_path: Path) -> None:
    """Some gateways tell what they did not accept."""
    with Backend(lambda _: Reply(401, {"detail": f"{KEY} is no key of ours"})) as backend:
        perf = AgentPerformanceTracker(backend.url, KEY, store=store, background=False)
        perf.start_conversation("helper")
        receipt = store.drain()
        stats = store.outbox.stats()
        perf.close(drain_timeout=0)
    assert stats.paused == receipt.paused == "auth"
    assert KEY not in f"{receipt}{stats}"
    assert KEY.encode() not in store_path.read_bytes() + store_path.with_name("agent.db-wal").read_bytes()
    store.close(drain_timeout=0)


def test_a_closed_tracker_asks_nobody(backend: BatchBackend, store: SessionStore) -> None:
    perf = AgentPerformanceTracker(backend.url, KEY, store=store, background=False)
    perf.close()
    for ask in (perf.get_success_rates, perf.get_active_conversations, lambda source: perf.get_session_info("x", source=source)):
        with pytest.raises(sessionstore.ClosedStoreError):
            ask(source="remote")
    assert backend.received == []


def test_a_drain_without_a_remote_says_so(store: SessionStore) -> None:
    """The errors of the calls that run in a loop of their own arrive as they are."""
    for call in (store.drain, store.flush):
        with pytest.raises(SessionStoreError, match="no remote") as caught:
            call()
        assert type(caught.value) is sessionstore.ConfigError
