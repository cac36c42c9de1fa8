"""A backend that knows only the tracker SDK's endpoints is told everything that it can take, once, in order, in its own fields."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, Received, Reply

import sessionstore
from sessionstore import AgentOperationsTracker, AgentPerformanceTracker, SessionStore
from sessionstore.remote.settings import Remote

KEY = "a-key-for-the-backend"

# remote-api.md, section 1: what each endpoint must be told, and what it may be told.
REQUIRED = {
    "/conversations/start": {"session_id": str, "agent_id": str, "start_time": datetime},
    "/conversations/end": {
        "session_id": str,
        "agent_id": str,
        "start_time": datetime,
        "end_time": datetime,
        "duration_seconds": float,
        "status": ("completed", "failed"),
    },
    "/conversations/expired": {
        "session_id": str,
        "agent_id": str,
        "start_time": datetime,
        "end_time": datetime,
        "status": ("expired",),
        "duration_seconds": float,
        "expiry_reason": ("ttl_timeout",),
    },
    "/agents/register": {"agent_id": str, "registration_time": datetime},
    "/agents/status": {"agent_id": str, "status": str, "timestamp": datetime},
    "/agents/activity": {"agent_id": str, "action": str, "timestamp": datetime, "details": dict},
}
OPTIONAL = {
    "/conversations/start": {"user_id": str, "metadata": dict},
    "/conversations/end": {
        "quality_score": int,
        "user_feedback": str,
        "error_message": str,
        "message_count": int,
        "metadata": dict,
    },
    "/conversations/expired": {},
    "/agents/register": {"sdk_version": str, "metadata": dict},
    "/agents/status": {"previous_status": str, "metadata": dict},
    "/agents/activity": {"duration": float},
}


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture(autouse=True)
def new_store(new_file: Path, tmp_path: Path) -> None:
    """The file that the tests open."""
    shutil.copy(new_file, tmp_path / "agent.db")


def opened(tmp_path: Path, backend: Backend) -> SessionStore:
    return sessionstore.open(tmp_path / "agent.db", remote=Remote(backend.url, KEY, max_retries=0))


def a_day(store: SessionStore) -> Counter[str]:
    """What two agents do in a day; how many events of each endpoint that makes."""
    with (
        AgentPerformanceTracker(None, store=store, background=False) as performance,
        AgentOperationsTracker(None, store=store, background=False) as operations,
    ):
        for agent in ("agent_001", "agent_002"):
            operations.register_agent(agent, sdk_version="1.2", metadata={"region": "eu"})
            operations.update_agent_status(agent, "active")
            operations.update_agent_status(agent, "busy", previous_status="active", metadata={"load": 0.5})
            operations.log_activity(agent, "search", {"query": "x"}, 1.5)
            operations.log_activity(agent, "rest")
            ended = performance.start_conversation(agent, user_id="u", metadata={"topic": "flights"})
            performance.end_conversation(ended, 5, "good", 7, {"resolved": True})
            bare = performance.start_conversation(agent)
            performance.end_conversation(bare)
            failed = performance.start_conversation(agent)
            performance.record_failed_session(failed, "it broke", {"code": 7})
            performance.start_conversation(agent)
        store.session("expires", agent_id="agent_001", ttl=60)
        store.sweep(now=sessionstore.clock.utc_now() + timedelta(hours=1))
    return Counter(
        {
            "/conversations/start": 9,
            "/conversations/end": 6,
            "/conversations/expired": 1,
            "/agents/register": 2,
            "/agents/status": 4,
            "/agents/activity": 4,
        }
    )


def endpoint(backend: Backend, request: Received) -> str:
    assert request.path.startswith(backend.prefix)
    return request.path.removeprefix(backend.prefix)


def endpoints(backend: Backend) -> Counter[str]:
    return Counter(endpoint(backend, request) for request in backend.events)


def counts(store: SessionStore) -> tuple[int, int, int]:
    """How many events wait, were given up, and were delivered."""
    ((pending, dead, sent),) = store.query("SELECT pending, dead, sent FROM v_sync").rows
    return pending, dead, sent


def assert_is(value: Any, kind: Any) -> None:
    """A value has the type that its field has in the contract."""
    if kind is datetime:
        assert datetime.fromisoformat(value).utcoffset() is not None, value
    elif isinstance(kind, tuple):
        assert value in kind
    elif kind is float:
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
    else:
        assert type(value) is kind


def test_a_day_of_two_agents_arrives_once_in_the_documented_fields(tmp_path: Path, backend: Backend) -> None:
    with opened(tmp_path, backend) as store:
        expected = a_day(store)
        assert store.flush(30)
        assert counts(store) == (0, 0, expected.total())
    assert endpoints(backend) == expected
    seen: dict[str, set[str]] = {}
    for request in backend.events:
        path, body = endpoint(backend, request), request.json
        fields = REQUIRED[path] | OPTIONAL[path]
        assert set(REQUIRED[path]) <= set(body) <= set(fields), path
        for name, value in body.items():
            assert_is(value, fields[name])
        seen.setdefault(path, set()).update(body)
    # The day had every field of every endpoint.
    assert seen == {path: {*REQUIRED[path], *OPTIONAL[path]} for path in REQUIRED}


def test_every_post_says_who_it_is_from_and_which_event_it_is(tmp_path: Path, backend: Backend) -> None:
    with opened(tmp_path, backend) as store:
        a_day(store)
        assert store.flush(30)
    keys = [request.headers["idempotency-key"] for request in backend.events]
    assert len(set(keys)) == len(keys)
    for request in backend.events:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-type"] == "application/json"
        assert "content-encoding" not in request.headers
        assert request.headers["user-agent"].startswith("sessionstore/")
    # Beside the events there is one question, which this backend does not know.
    assert [request.path for request in backend.received if request.method == "GET"] == [f"{backend.prefix}/capabilities"]


def test_events_of_a_session_and_of_an_agent_arrive_in_their_order(tmp_path: Path, backend: Backend) -> None:
    with opened(tmp_path, backend) as store:
        a_day(store)
        assert store.flush(30)
    order = ("/conversations/start", "/conversations/end", "/conversations/expired")
    sessions: dict[str, list[int]] = {}
    agents: dict[str, list[str]] = {}
    for request in backend.events:
        path, body = endpoint(backend, request), request.json
        if path in order:
            sessions.setdefault(body["session_id"], []).append(order.index(path))
        else:
            agents.setdefault(body["agent_id"], []).append(body.get("timestamp") or body["registration_time"])
    assert all(places[0] == 0 and places == sorted(set(places)) for places in sessions.values())
    assert {len(times) for times in agents.values()} == {5}
    assert all(times == sorted(times) for times in agents.values())


def test_what_the_backend_does_not_know_is_given_up_and_said(tmp_path: Path, backend: Backend) -> None:
    """Figures, messages, and conversations that have no agent."""
    with opened(tmp_path, backend) as store:
        known = store.session("with", agent_id="agent")
        known.append("user", "hello")
        known.append("assistant", "hi", model="m", output_tokens=2)
        known.end("completed")
        store.session("without").end("completed")
        assert store.flush(30)
        assert counts(store) == (0, 3, 2)
        errors = {(event.kind, (event.last_error or "").split(":")[0], event.attempts) for event in store.outbox.dead()}
        assert errors == {
            ("metric", "unsupported", 0),
            ("conversation_start", "unsupported", 0),
            ("conversation_end", "unsupported", 0),
        }
    assert [(endpoint(backend, request), request.json["session_id"]) for request in backend.events] == [
        ("/conversations/start", "with"),
        ("/conversations/end", "with"),
    ]


@pytest.mark.parametrize("status", [404, 405])
def test_an_older_backend_loses_one_kind_only(tmp_path: Path, backend: Backend, status: int) -> None:
    def older(received: Received) -> Reply:
        is_new = received.path.endswith("/conversations/expired")
        return Reply(status, {"detail": "Not Found"}) if is_new else backend.answer(received)

    backend.answering = older
    with opened(tmp_path, backend) as store:
        expected = a_day(store)
        assert store.flush(30)
        (dead,) = store.outbox.dead()
        assert (dead.kind, dead.attempts) == ("conversation_expired", 0)
        assert counts(store) == (0, 1, expected.total() - 1)
    # It was asked once.
    assert endpoints(backend) == expected


ACKNOWLEDGEMENTS = {
    "204": Reply(204, b""),
    "200 of length 0": Reply(200, b""),
    "201 with JSON": Reply(201, {"id": 7}),
    "202 with JSON": Reply(202, []),
    "JSON of another type": Reply(200, b"true", {"Content-Type": "text/plain"}),
}


@pytest.mark.parametrize("name", ACKNOWLEDGEMENTS)
def test_a_backend_may_acknowledge_as_it_likes(tmp_path: Path, backend: Backend, name: str) -> None:
    backend.answering = lambda received: ACKNOWLEDGEMENTS[name] if received.method == "POST" else Reply(404)
    with opened(tmp_path, backend) as store:
        expected = a_day(store)
        assert store.flush(30)
        assert counts(store) == (0, 0, expected.total())
    assert endpoints(backend) == expected


def test_a_page_is_no_acknowledgement(tmp_path: Path, backend: Backend) -> None:
    backend.answering = lambda received: Reply(200, b"<html></html>") if received.method == "POST" else Reply(404)
    with opened(tmp_path, backend) as store:
        expected = a_day(store)
        assert store.drain().sent == 0
        assert counts(store) == (expected.total(), 0, 0)
        backend.answering = backend.answer
        store._database.remote = None


def test_a_remote_at_the_root_of_its_host_has_no_path(tmp_path: Path, backend: Backend) -> None:
    backend.prefix = ""
    remote = Remote(backend.url.removesuffix("/api/sdk"), KEY)
    with sessionstore.open(tmp_path / "agent.db", remote=remote) as store:
        store.session("s", agent_id="agent")
        assert store.flush(30)
    assert [request.path for request in backend.events] == ["/conversations/start"]


def test_a_retry_repeats_its_bytes_and_its_key(tmp_path: Path, backend: Backend) -> None:
    """A backend that knows no keys tells repeated events by their bodies."""
    seen = Counter[str]()

    def fails_first(received: Received) -> Reply:
        if received.method == "POST":
            seen[received.headers["idempotency-key"]] += 1
            if seen[received.headers["idempotency-key"]] == 1:
                return Reply(503, {"detail": "later"})
        return backend.answer(received)

    backend.answering = fails_first
    with opened(tmp_path, backend) as store:
        store.session("s", agent_id="agent", metadata={"ü": "\N{PILE OF POO}"})
        store.drain()
        assert store.flush(30)
    first, second = backend.events
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert json.loads(first.body)["metadata"] == {"ü": "\N{PILE OF POO}"}


def test_a_backend_without_keys_gets_none(tmp_path: Path, backend: Backend) -> None:
    with sessionstore.open(tmp_path / "agent.db", remote=backend.url) as store:
        store.session("s", agent_id="agent")
        assert store.flush(30)
    assert all("authorization" not in request.headers for request in backend.received)
