"""The collector as clients meet it: a process of its own, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from collecting import LATER, START, Collector, Desktop, answered, ended, event, raw_request, running, started

import sessionstore
from sessionstore import packing, queries
from sessionstore.collector import server
from sessionstore.database.transaction import Transaction
from sessionstore.queries.collecting import reads
from sessionstore.queries.collecting.arrivals import namespace_of, place_of
from sessionstore.remote.events import PATHS
from sessionstore.remote.settings import Remote
from sessionstore.trackers.operations import activity_answer, agent_answer

BATCH = "/events/batch"
FIGURES = ("/metrics/success-rates", "/metrics/response-times", "/metrics/quality", "/metrics/failures", "/metrics/overview")


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with running(tmp_path_factory.mktemp("collector") / "collected.db") as started_one:
        yield started_one
        assert started_one.stop() == 0


@pytest.fixture
def desktop(collector: Collector) -> Desktop:
    return Desktop(collector)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which has the one shape."""
    body = answer.json()
    assert set(body) == {"error"}
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "field"}
    error: dict[str, Any] = body["error"]
    return error


# -- conversations


def test_a_conversation_comes_out_as_it_was_told(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(user_id="alice", metadata={"plan": "pro"}))
    desktop.post("/metrics/events", answered(2, 420.0, model="m-1", input_tokens=12, output_tokens=3))
    desktop.post("/conversations/end", ended(quality_score=4, user_feedback="nice", message_count=2, metadata={"rated": True}))
    assert desktop.get("/conversations/user-alice") == {
        "session_id": "user-alice",
        "agent_id": "helper",
        "user_id": "alice",
        "status": "completed",
        "start_time": "2026-03-01T10:00:00+00:00",
        "end_time": "2026-03-01T10:05:00+00:00",
        "duration_seconds": 300.0,
        "quality_score": 4,
        "user_feedback": "nice",
        "error_message": None,
        "message_count": 2,
        "metadata": {"plan": "pro", "rated": True},
        "last_activity_at": "2026-03-01T10:05:00+00:00",
        "expires_at": None,
        "source": desktop.source,
        "namespace": "",
    }
    assert desktop.get("/metrics/response-times")["overall"]["mean_ms"] == 420.0
    assert desktop.get("/metrics/overview")["tokens"]["overall"]["input_tokens"] == 12


def test_an_end_of_an_unknown_conversation_makes_it(desktop: Desktop) -> None:
    desktop.post("/conversations/end", ended(status="failed", error_message="no network"))
    assert desktop.get("/conversations/user-alice")["duration_seconds"] == 300.0
    assert desktop.get("/metrics/failures")["by_error"][0]["error"] == "no network"


def test_a_start_that_comes_late_fills_what_is_missing(desktop: Desktop) -> None:
    desktop.batch(
        event("metric", {**answered(2, 5.0), "timestamp": LATER}),
        event("conversation_start", started(user_id="alice", metadata={"plan": "pro"})),
    )
    found = desktop.get("/conversations/user-alice")
    assert (found["user_id"], found["metadata"], found["start_time"]) == ("alice", {"plan": "pro"}, "2026-03-01T10:00:00+00:00")
    assert (found["status"], found["message_count"]) == ("open", 1)


def test_a_late_end_wins_over_an_expiry_and_an_expiry_changes_no_end(desktop: Desktop) -> None:
    over = {**started(), "end_time": "2026-03-01T12:00:00+00:00", "status": "expired", "expiry_reason": "ttl_timeout"}
    desktop.batch(event("conversation_start", started()), event("conversation_expired", over))
    assert desktop.get("/metrics/success-rates")["overall"]["expired"] == 1
    desktop.batch(event("conversation_end", ended()), event("conversation_expired", over))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["duration_seconds"]) == ("completed", 300.0)
    assert desktop.get("/metrics/success-rates")["overall"]["total"] == 1


def test_lives_of_one_name_are_told_apart_by_when_they_began(desktop: Desktop) -> None:
    second = "2026-03-02T10:00:00+00:00"
    over = {**started(), "end_time": "2026-03-01T20:00:00+00:00", "status": "expired"}
    desktop.batch(
        event("conversation_start", started()),
        event("metric", answered(1, 10.0)),
        event("conversation_expired", over),
        event("conversation_start", started(at=second)),
        event("metric", {**answered(1, 30.0), "timestamp": second}),
        event("conversation_end", ended(begun=second, at="2026-03-02T10:01:00+00:00")),
    )
    overall = desktop.get("/metrics/success-rates")["overall"]
    assert (overall["total"], overall["completed"], overall["expired"]) == (2, 1, 1)
    times = desktop.get("/metrics/response-times")
    assert (times["overall"]["count"], times["conversation_duration_s"]["overall"]["max_s"]) == (2, 60.0)


def test_an_old_expiry_that_comes_late_ends_no_newer_life(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(at="2026-03-02T10:00:00+00:00"))
    desktop.post("/conversations/expired", {**started(), "end_time": LATER, "status": "expired"})
    assert desktop.get("/conversations/user-alice")["status"] == "open"
    overall = desktop.get("/metrics/success-rates")["overall"]
    assert (overall["total"], overall["expired"], overall["active"]) == (2, 1, 1)


def test_a_start_after_the_end_begins_the_conversation_anew(desktop: Desktop) -> None:
    desktop.batch(event("conversation_start", started()), event("metric", answered(1, 10.0)), event("conversation_end", ended()))
    desktop.post("/conversations/start", started(at="2026-03-05T10:00:00+00:00"))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["end_time"], found["message_count"]) == ("open", None, 0)


def test_what_was_told_of_a_message_twice_is_stored_once(desktop: Desktop) -> None:
    told = {"session_id": "user-alice", "agent_id": "helper", "seq": 2, "timestamp": START, "kind": "message",
            "message": {"role": "assistant", "content": "Paris."}, "attributes": {"input_tokens": 7}}  # fmt: skip
    for first, second in ((event("metric", answered(2, 10.0)), event("message", told)),) * 2:
        desktop.batch(first)
        desktop.batch(second, event("metric", answered(2, 11.0)))
    assert desktop.get("/conversations/user-alice")["message_count"] == 1
    assert desktop.get("/metrics/response-times")["overall"]["mean_ms"] == 11.0
    assert desktop.get("/metrics/overview")["tokens"]["overall"]["input_tokens"] == 7


def test_an_erased_conversation_is_gone_with_its_messages_and_figures(desktop: Desktop) -> None:
    desktop.batch(
        event("conversation_start", started()),
        event("metric", answered(1, 10.0)),
        event("metric", {"name": "rating", "value": 1.0, "session_id": "user-alice", "timestamp": START}),
        event("erase", {"session_id": "user-alice", "timestamp": LATER}),
        event("conversation_start", started("user-bob")),
    )
    assert desktop.post("/conversations/erase", {"session_id": "nobody"}).json() == {"status": "stored"}
    answer = desktop.collector.client.get("/conversations/user-alice", headers=desktop.headers)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
    assert desktop.get("/metrics/response-times")["overall"]["count"] == 0
    assert [each["session_id"] for each in desktop.get("/conversations/active")] == ["user-bob"]


def test_two_desktops_with_equal_ids_stay_two(collector: Collector) -> None:
    one, two = Desktop(collector), Desktop(collector, namespace="büro/2")
    one.headers["Sessionstore-Namespace"] = ""
    two.headers["Sessionstore-Namespace"] = "b%C3%BCro%2F2"
    one.post("/conversations/start", started())
    two.post("/conversations/start", started(user_id="bob"))
    one.post("/conversations/end", ended())
    assert one.get("/conversations/user-alice")["status"] == "completed"
    second = two.get("/conversations/user-alice")
    assert (second["status"], second["namespace"]) == ("open", "büro/2")
    for each, completed in ((one, 1), (two, 0)):
        assert each.get("/metrics/success-rates")["overall"]["completed"] == completed
    assert two.get("/metrics/success-rates", namespace="büro/2")["overall"]["total"] == 1
    assert two.get("/metrics/success-rates", namespace="other")["overall"]["total"] == 0


def test_a_namespace_that_is_too_long_has_a_place_of_its_own(collector: Collector) -> None:
    desktop = Desktop(collector)
    for name in ("x" * 256, "x" * 255 + "y"):
        assert desktop.batch(event("conversation_start", started(), namespace=name))[0]["status"] == "stored"
    assert desktop.get("/metrics/success-rates")["overall"]["total"] == 2


# -- once


def test_the_same_key_and_body_get_the_same_answer_and_are_stored_once(desktop: Desktop) -> None:
    key = str(uuid.uuid4())
    body = {"name": "clicks", "value": 1.0, "timestamp": START, "agent_id": desktop.source}
    answers = [desktop.post("/metrics/events", body, key) for _ in range(3)]
    assert {(each.status_code, each.text) for each in answers} == {(200, '{"status":"stored"}')}
    again = desktop.post("/metrics/events", {**body, "value": 2.0}, key)
    assert (again.status_code, error_of(again)["code"]) == (422, "key_reused")
    assert desktop.post("/agents/status", {"agent_id": "a", "status": "busy", "timestamp": START}, key).status_code == 422


def test_a_key_posted_alone_and_in_a_batch_is_one_event(desktop: Desktop) -> None:
    told = event("conversation_start", started())
    raw = json.dumps(told["body"], separators=(",", ":"), ensure_ascii=False)
    alone = desktop.collector.client.post(
        told["path"],
        content=raw,
        headers={**desktop.headers, "Idempotency-Key": told["key"], "Content-Type": "application/json"},
    )
    assert alone.status_code == 200
    assert desktop.batch(told) == [{"key": told["key"], "status": "duplicate"}]


def test_a_client_without_keys_is_known_by_path_and_body(desktop: Desktop) -> None:
    done = {"agent_id": "helper", "action": "search", "timestamp": START, "details": {}}
    for body in (done, done, {**done, "action": "read"}, done):
        assert desktop.post("/agents/activity", body).json() == {"status": "stored"}
    assert [each["action"] for each in desktop.get("/agents/activity")] == ["read", "search"]


def test_a_batch_answers_for_each_event_and_a_bad_one_harms_no_other(desktop: Desktop) -> None:
    good, other = event("conversation_start", started()), event("conversation_end", ended())
    events = [
        good,
        event("conversation_start", {"session_id": " secret ", "start_time": START}),
        event("erase", {}),
        {**event("erase", {"session_id": "x"}), "kind": "no_such_kind"},
        {**event("erase", {"session_id": "x"}), "path": "/conversations/start"},
        {"kind": "erase"},
        "nonsense",
        event("metric", {"name": "n", "value": 1e400, "timestamp": START}),
        event("metric", answered(0, 1.0)),
        good,
        {**good, "body": started(user_id="mallory")},
        other,
    ]
    text = json.dumps({"source": desktop.source, "events": events}).replace("Infinity", "1e400")
    answer = desktop.collector.client.post(BATCH, content=text, headers={"Content-Type": "application/json"})
    results = answer.json()["results"]
    assert [each["status"] for each in results] == ["stored", *["rejected"] * 8, "duplicate", "rejected", "stored"]
    assert [each["key"] for each in results[:2]] == [good["key"], events[1]["key"]]  # type: ignore[index]
    assert all(each["error"] for each in results if each["status"] == "rejected")
    assert "secret" not in answer.text
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["user_id"]) == ("completed", None)


def test_a_rejected_event_may_come_again_under_its_key(desktop: Desktop) -> None:
    told = event("conversation_start", {"session_id": "user-alice"})
    assert desktop.batch(told)[0]["status"] == "rejected"
    assert desktop.batch({**told, "body": started()})[0]["status"] == "stored"


def test_events_of_a_batch_are_stored_in_their_order(desktop: Desktop) -> None:
    statuses = ["active", "busy", "idle", "busy", "error"]
    desktop.batch(
        *(
            event("agent_status", {"agent_id": "a", "status": status, "timestamp": f"2026-03-01T10:00:0{place}+00:00"})
            for place, status in enumerate(statuses)
        )
    )
    assert [each["status"] for each in reversed(desktop.get("/agents/activity"))] == statuses


# -- figures


def sent_by(store: sessionstore.SessionStore) -> list[dict[str, Any]]:
    """What a store has for its remote, as a drain sends it."""
    rows = store.query("SELECT key, kind, namespace, occurred_at, body FROM outbox ORDER BY id").rows
    return [
        {"key": key, "kind": kind, "namespace": namespace, "occurred_at": at, "path": PATHS[kind], "body": json.loads(body)}
        for key, kind, namespace, at, body in rows
    ]


@pytest.mark.parametrize("sync_messages", [False, True])
def test_the_figures_of_the_collector_are_the_client_s_own(
    desktop: Desktop, store: sessionstore.SessionStore, frozen: Any, sync_messages: bool
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    remote = Remote("http://127.0.0.1:9", sync_messages=sync_messages)
    store._write(lambda db: queries.subscription.set_remote(db, remote, replace=False))
    for number in range(60):
        agent, session_id = f"agent-{number % 3}", f"s-{number % 50}"
        chat = store.session(session_id, agent_id=agent, ttl=3600.0)
        for _ in range(chance.randrange(4)):
            chat.append("user", "a question")
            frozen.go(seconds=chance.random() * 3)
            details: dict[str, Any] = {"model": chance.choice(["m-1", "m-2"]), "input_tokens": chance.randrange(1000)}
            chat.append("assistant", "an answer", **(details if chance.random() < 0.7 else {}))
        how = chance.choice(["completed", "failed", "open"])
        if how == "completed":
            chat.end("completed", quality_score=chance.choice([None, 1, 2, 3, 4, 5]))
        elif how == "failed":
            chat.end("failed", error=chance.choice(["no network", "too long"]))
        frozen.go(minutes=chance.randrange(90))
        store.sweep()
    events = sent_by(store)
    for start in range(0, len(events), 100):
        assert {each["status"] for each in desktop.batch(*events[start : start + 100])} == {"stored"}
    assert {each["status"] for each in desktop.batch(*events[:300])} == {"duplicate"}
    local = (store.success_rates(), store.response_times(), store.quality(), store.failures(), store.overview())
    for path, own in zip(FIGURES, local, strict=True):
        answer = desktop.get(path)
        assert answer == json.loads(json.dumps(own)), path
    with_agent = {"agent_id": "agent-1", "start_date": "2026-03-29", "end_date": "2026-03-30T12:00:00+00:00"}
    own_times = store.response_times(agent_id="agent-1", start_date=datetime(2026, 3, 29, tzinfo=UTC),
                                     end_date=datetime(2026, 3, 30, 12, tzinfo=UTC))  # fmt: skip
    assert desktop.get("/metrics/response-times", **with_agent) == json.loads(json.dumps(own_times))


def test_the_file_is_a_sound_store_whose_messages_can_be_read(tmp_path: Path) -> None:
    told = {"session_id": "user-alice", "seq": 3, "timestamp": START, "message": {"role": "user", "content": "Bonjour."}}
    with running(tmp_path / "c.db") as collector:
        desktop = Desktop(collector)
        desktop.batch(event("metric", answered(2, 10.0)), event("message", told), event("conversation_end", ended()))
        assert collector.stop() == 0
    with sessionstore.open(tmp_path / "c.db", namespace=f"default/{desktop.source}/") as store:
        assert store.doctor().ok
        assert [(each.seq, each.role, each.text) for each in store.messages("user-alice")] == [
            (2, "assistant", None),
            (3, "user", "Bonjour."),
        ]


# -- agents


def test_agents_are_known_as_of_their_own_time(desktop: Desktop) -> None:
    now = datetime.now(UTC)
    soon, past = now.isoformat(), (now - timedelta(hours=3)).isoformat()
    desktop.post("/agents/register", {"agent_id": "a", "registration_time": soon, "sdk_version": "2", "metadata": {"x": 1}})
    desktop.post("/agents/status", {"agent_id": "a", "status": "busy", "timestamp": soon})
    desktop.post("/agents/status", {"agent_id": "a", "status": "error", "timestamp": past})
    desktop.post("/agents/activity", {"agent_id": "old", "action": "read", "timestamp": past, "details": {}, "duration": 0.5})
    (agent,) = desktop.get("/agents/active")
    assert (agent["agent_id"], agent["status"], agent["sdk_version"], agent["last_seen_at"]) == ("a", "busy", "2", soon)
    assert [each["kind"] for each in desktop.get("/agents/activity", limit=2)] == ["status", "registered"]
    one = desktop.collector.client.get("/agents/old/status", headers=desktop.headers).json()
    assert (one["status"], one["source"]) == ("offline", desktop.source)
    assert desktop.collector.client.get("/agents/old/activity", headers=desktop.headers).json()[0]["duration"] == 0.5
    overview = desktop.get("/operations/overview")
    assert (overview["total_agents"], overview["by_status"]["busy"], overview["activity_24h"]["total"]) == (2, 1, 4)


def test_the_agents_of_the_collector_are_the_client_s_own(desktop: Desktop, store: sessionstore.SessionStore, frozen: Any) -> None:
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    frozen.now = datetime.now(UTC) - timedelta(minutes=10)
    store._write(lambda db: queries.subscription.set_remote(db, Remote("http://127.0.0.1:9"), replace=False))
    for _ in range(80):
        agent, metadata = f"agent-{chance.randrange(4)}", chance.choice([None, {}, {f"key-{chance.randrange(3)}": "ä"}])
        how = chance.randrange(3)
        if how == 0:
            store.register_agent(agent, sdk_version=chance.choice([None, "2"]), metadata=metadata)
        elif how == 1:
            status, before = (chance.choice(["active", "busy", "error", "offline", None]) for _ in range(2))
            store.set_status(agent, status or "idle", previous_status=before, metadata=metadata)
        else:
            store.log_activity(agent, "read", metadata, duration=chance.choice([None, 0.5]))
        frozen.go(seconds=1)
    events = sent_by(store)
    for start in range(0, len(events), 7):
        assert {each["status"] for each in desktop.batch(*events[start : start + 7])} == {"stored"}
    place = {"source": desktop.source, "namespace": ""}
    own = [{**agent_answer(each), **place} for each in store.agents() if each.status != "offline"]
    assert desktop.get("/agents/active") == json.loads(json.dumps(own))
    done = [{**activity_answer(each), **place} for each in store.activity(limit=80)]
    assert desktop.get("/agents/activity", limit=80) == json.loads(json.dumps(done))


def test_naive_times_are_the_collector_s_own_and_it_says_so(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(at="2026-03-01T10:00:00"))
    desktop.post("/agents/activity", {"agent_id": "a", "action": "read", "timestamp": "2026-03-01T10:00:00", "details": {"n": 1}})
    found = desktop.get("/conversations/user-alice")
    assert (found["start_time"], found["metadata"]) == ("2026-03-01T04:30:00+00:00", {"time_zone_assumed": "+05:30"})
    assert desktop.get("/agents/activity")[0]["details"] == {"n": 1, "time_zone_assumed": "+05:30"}


def test_a_question_about_many_sources_takes_as_many_statements_as_one_about_one(store: sessionstore.SessionStore) -> None:
    place = place_of("default")

    def asked(db: Any) -> int:
        statements: list[str] = []
        db.driver.set_trace_callback(statements.append)
        try:
            live = len(reads.active(db, place, agent_id=None, limit=50))
            found = reads.operations(db, place)
            assert (found["live_conversations"], found["total_agents"]) == (live, len(reads.alive(db, place)))
            assert reads.conversation(db, place, "s") is not None
            assert reads.agent(db, place, "a") is not None
            assert len(reads.activity(db, place, agent_id="a", limit=50)) == live
        finally:
            db.driver.set_trace_callback(None)
        return len(statements)

    def add(number: int) -> None:
        one = store.in_namespace(namespace_of("default", f"source-{number}", ""))
        one.session("s", agent_id="a")
        one.log_activity("a", "read")

    add(0)
    few = store._read(asked)
    for number in range(1, 20):
        add(number)
    assert store._read(asked) == few


# -- what is refused


def packed(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.compress(body)
    from backports import zstd

    return zstd.compress(body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_packed_batch_is_unpacked_and_a_bomb_is_not(desktop: Desktop, encoding: str) -> None:
    post = desktop.collector.client.post
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    told = json.dumps({"source": desktop.source, "events": [event("conversation_start", started())]}).encode()
    assert post(BATCH, content=packed(told, encoding), headers=headers).json()["results"][0]["status"] == "stored"
    bomb = post(BATCH, content=packed(b" " * (200 << 20), encoding), headers=headers)
    assert (bomb.status_code, error_of(bomb)["code"]) == (413, "too_large")
    for broken in (packed(told, encoding)[:-6], packed(told, encoding) + b"x", b"nonsense"):
        answer = post(BATCH, content=broken, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (400, "broken_encoding")


def test_what_is_too_large_is_refused_before_it_is_read(collector: Collector) -> None:
    post = collector.client.post
    too_many = [event("erase", {"session_id": "x"})] * 501
    answer = post(BATCH, json={"events": too_many})
    assert (answer.status_code, error_of(answer)["code"]) == (413, "too_many_events")
    large = b'{"events": [' + b" " * (1 << 20) + b"]}"
    assert post(BATCH, content=large, headers={"Content-Type": "application/json"}).status_code == 413
    parts = (large[start : start + 65536] for start in range(0, len(large), 65536))
    assert post(BATCH, content=parts, headers={"Content-Type": "application/json"}).status_code == 413
    head = f"POST {BATCH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\nConnection: close\r\n\r\n"
    assert raw_request(collector.address, head).startswith(b"HTTP/1.1 413")


def test_a_large_metadata_that_would_grow_beyond_its_limit_is_rejected_alone(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(metadata={"a": "x" * 600_000}))
    refused, stored = desktop.batch(
        event("conversation_end", ended(metadata={"b": "x" * 600_000})), event("conversation_start", started("b"))
    )
    assert (refused["status"], stored["status"]) == ("rejected", "stored")
    assert desktop.get("/conversations/user-alice")["status"] == "open"


@pytest.mark.fault("F37")
@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("DELETE", "/agents/active", {}, 405, "method_not_allowed"),
        ("GET", "/conversations/start", {}, 405, "method_not_allowed"),
        ("POST", BATCH, {"content": b"{}", "headers": {"Content-Encoding": "br"}}, 415, "unsupported_encoding"),
        ("POST", BATCH, {"content": b"a=1", "headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ("POST", BATCH, {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "invalid_json"),
        ("POST", BATCH, {"content": b'{"a":"\xff"}', "headers": {"Content-Type": "application/json"}}, 422, "invalid_json"),
        ("POST", BATCH, {"json": []}, 422, "invalid_body"),
        ("POST", "/conversations/start", {"json": {"session_id": "a"}}, 422, "invalid_body"),
        ("POST", "/conversations/start", {"json": started(), "headers": {"Idempotency-Key": ""}}, 422, "invalid_input"),
        ("POST", "/conversations/start", {"json": started(), "headers": {"Sessionstore-Source": "a/b"}}, 422, "invalid_input"),
        ("POST", "/conversations/start", {"json": started(), "headers": {"Sessionstore-Namespace": "%ff"}}, 422, "invalid_input"),
        ("GET", "/agents/activity?limit=0", {}, 422, "invalid_input"),
        ("GET", "/metrics/quality?start_date=evil-yesterday", {}, 422, "invalid_input"),
        ("GET", "/metrics/quality?start_date=2026-02-02&end_date=2026-01-01", {}, 422, "invalid_input"),
        ("GET", "/metrics/failures?cursor=evil", {}, 422, "invalid_input"),
        ("GET", "/metrics/quality?namespace=x", {}, 422, "invalid_input"),
        ("GET", "/healthz", {"headers": {"Origin": "null"}}, 403, "browser"),
        ("GET", "/healthz", {"headers": {"Host": "evil.example"}}, 403, "wrong_host"),
        ("GET", "/healthz", {"headers": {"Host": "localhost.evil.example:80"}}, 403, "wrong_host"),
    ],
)
def test_every_refusal_has_the_one_shape_and_reflects_nothing(
    collector: Collector, method: str, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    answer = collector.client.request(method, path, **options)
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert "evil" not in answer.text
    assert (status == 405) == ("allow" in answer.headers)


@pytest.mark.fault("F37")
def test_it_goes_by_each_name_of_this_machine(collector: Collector) -> None:
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:80", "[::1]"):
        assert collector.client.get("/healthz", headers={"Host": name}).json() == {"status": "ok"}


def status_by_name(collector: Collector, name: str) -> int:
    return collector.client.get("/healthz", headers={"Host": name}).status_code


@pytest.mark.fault("F37")
def test_it_goes_by_the_address_that_it_listens_on_and_the_names_that_are_allowed(tmp_path: Path) -> None:
    options = ("--host", "127.0.0.2", "--allowed-host", "Collector.example.com", "--allowed-host", "fd00::1")
    with running(tmp_path / "c.db", *options) as collector:
        assert collector.client.get("/healthz").json() == {"status": "ok"}
        for name in ("collector.example.com", "collector.EXAMPLE.com:443", "[fd00::1]:8787", "localhost"):
            assert status_by_name(collector, name) == 200
        for name in ("example.com", "127.0.0.3", "collector.example.com.evil.example", ""):
            assert status_by_name(collector, name) == 403


@pytest.mark.fault("F37")
@pytest.mark.parametrize(("allowed", "status"), [((), 200), (("--allowed-host", "collector.example.com"), 403)])
def test_with_keys_any_name_will_do_unless_some_are_allowed(tmp_path: Path, allowed: tuple[str, ...], status: int) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    keys.chmod(0o600)
    with running(tmp_path / "c.db", "--api-key-file", str(keys), *allowed) as collector:
        assert status_by_name(collector, "collector.example.com") == 200
        assert status_by_name(collector, "another.example.com") == status


def test_it_says_what_it_can_do(collector: Collector) -> None:
    assert collector.client.get("/capabilities").json() == {
        "api": "sessionstore",
        "version": 1,
        "batch": {"path": BATCH, "max_events": 500, "max_bytes": 1048576, "encodings": ["zstd", "gzip"]},
        "kinds": ["metric", "message", "erase"],
    }


def test_what_is_told_of_a_packed_message_leaves_its_text(tmp_path: Path) -> None:
    """The collector's file is a store: another program may have packed what is old in it."""
    text = "All happy families are alike. " * 100
    told = {
        "session_id": "user-alice",
        "agent_id": "helper",
        "seq": 1,
        "timestamp": START,
        "message": {"role": "assistant", "content": text},
    }
    with running(tmp_path / "c.db") as collector:
        desktop = Desktop(collector)
        desktop.batch(event("message", told))
        with sessionstore.open(tmp_path / "c.db", namespace=namespace_of("default", desktop.source, ""), remote=None) as own:
            assert own._write(pack_all) == 1
            desktop.batch(event("metric", answered(1, 10.0)))
            (found,) = own.messages("user-alice")
        assert (found.content, found.response_time_ms) == (text, 10.0)
        assert collector.stop() == 0


def pack_all(db: Transaction) -> int:
    """Pack every message of a file, and say how many there were."""
    rows = db.driver.execute("SELECT id, text, extra FROM messages").fetchall()
    small = [(packing.pack(text, extra, level=packing.LIVE_LEVEL), identity) for identity, text, extra in rows]
    return int(db.driver.executemany("UPDATE messages SET text = NULL, extra = NULL, packed = ? WHERE id = ?", small).rowcount)


# -- stopping and starting


@pytest.mark.fault("F6")
def test_a_stop_waits_for_a_request_under_way_and_loses_nothing(tmp_path: Path) -> None:
    body = json.dumps(started()).encode()
    with running(tmp_path / "c.db") as collector:
        with socket.create_connection(collector.address, timeout=20) as connection:
            head = f"POST /conversations/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:10])
            # Its first bytes are being waited for when another request is answered.
            assert collector.client.get("/healthz").status_code == 200
            collector.process.send_signal(signal.SIGTERM)
            while is_listening(collector.address):
                time.sleep(0.01)
            connection.sendall(body[10:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        collector.client.close()
        assert collector.process.wait(20) == 0
    with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
        assert connection.execute("SELECT session_id FROM sessions").fetchall() == [("user-alice",)]


@pytest.mark.parametrize(("grace_seconds", "signals"), [(0.2, 1), (600, 2)])
def test_a_stop_that_cuts_a_request_off_answers_it_and_ends_well(tmp_path: Path, grace_seconds: float, signals: int) -> None:
    """Ctrl-C waits for a while, a second one does not; either may find half a request."""
    code = f"from sessionstore.collector import server; server._GRACE_SECONDS = {grace_seconds}; "
    code += "from sessionstore.cli import main; raise SystemExit(main())"
    with running(tmp_path / "c.db", program=("-c", code)) as collector:
        with socket.create_connection(collector.address, timeout=20) as connection:
            connection.sendall(b"POST /conversations/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert collector.client.get("/healthz").status_code == 200
            collector.client.close()
            for _ in range(signals):
                collector.process.send_signal(signal.SIGINT)
                while is_listening(collector.address):
                    time.sleep(0.01)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"code":"stopping"' in answer
        assert collector.process.wait(20) == 0
        assert collector.process.stderr is not None
        assert "Traceback" not in collector.process.stderr.read()


def test_an_answer_that_has_begun_is_not_begun_again_when_it_is_cut_off() -> None:
    sent = []
    begun = asyncio.Event()

    async def slow(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        begun.set()
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def cut_off() -> None:
        request = asyncio.create_task(server.Ending(slow)({"type": "http"}, None, send))  # type: ignore[arg-type]
        await begun.wait()
        request.cancel()
        await request

    asyncio.run(cut_off())
    assert sent == [{"type": "http.response.start"}]


def is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.fault("F4")
def test_what_was_stored_before_a_kill_is_a_duplicate_after_it(tmp_path: Path) -> None:
    told = [event("conversation_start", started()), event("metric", answered(1, 10.0)), event("conversation_end", ended())]
    with running(tmp_path / "c.db") as collector:
        desktop = Desktop(collector)
        assert {each["status"] for each in desktop.batch(*told)} == {"stored"}
        collector.process.kill()
    with running(tmp_path / "c.db") as collector:
        source, desktop = desktop.source, Desktop(collector)
        desktop.source = source
        assert {each["status"] for each in desktop.batch(*told)} == {"duplicate"}
        assert collector.stop() == 0


# -- keys


@pytest.mark.fault("F37")
def test_each_key_sees_what_is_its_tenant_s_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# two teams\nred {'r' * 32}\nblue {'b' * 32}\n{'d' * 32}\n")
    keys.chmod(0o600)
    told = {"source": "one", "events": [event("conversation_start", started())]}
    with running(tmp_path / "c.db", "--api-key-file", str(keys)) as collector:
        get, post = collector.client.get, collector.client.post
        red, blue = ({"Authorization": f"Bearer {letter * 32}"} for letter in "rb")
        assert post(BATCH, json=told, headers=red).json()["results"][0]["status"] == "stored"
        assert get("/conversations/user-alice", headers=red).status_code == 200
        assert get("/conversations/user-alice", headers=blue).status_code == 404
        assert get("/conversations/active", headers=blue).json() == []
        assert post(BATCH, json=told, headers=blue).json()["results"][0]["status"] == "stored"
        for headers in (
            {},
            {"Authorization": "Bearer " + "x" * 32},
            {"Authorization": "Basic " + "r" * 32},
            {"Authorization": "Bearer"},
        ):
            for path in ("/capabilities", "/openapi.json", "/conversations/active", "/nowhere"):
                answer = get(path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert error_of(answer)["code"] == "unauthorized"
        assert get("/healthz").json() == {"status": "ok"}
        assert collector.stop() == 0
        assert collector.process.stderr is not None
        assert "r" * 32 not in collector.process.stderr.read()
