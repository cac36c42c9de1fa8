"""The lives of a session at the collector: however their beginnings, figures and ends come in, they stay apart."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from clocks import FrozenClock
from collecting import START, Collector, Desktop, answered, ended, event, running, started

import sessionstore
from sessionstore import NewMessage, queries
from sessionstore.remote.events import PATHS
from sessionstore.remote.settings import Remote

SECOND = "2026-03-02T10:00:00+00:00"
THIRD = "2026-03-03T10:00:00+00:00"
REMOTE = Remote("http://127.0.0.1:9")


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with running(tmp_path_factory.mktemp("collector") / "collected.db") as started_one:
        yield started_one
        assert started_one.stop() == 0


@pytest.fixture
def desktop(collector: Collector) -> Desktop:
    return Desktop(collector)


def expired(begun: str, at: str) -> dict[str, Any]:
    return {**started(at=begun), "end_time": at, "status": "expired", "expiry_reason": "ttl_timeout"}


def figure(seq: int, ms: float, at: str, begun: str | None = None) -> dict[str, Any]:
    """What an answer cost; with `begun` it says which life it belongs to, as a store does."""
    return event("metric", {**answered(seq, ms), "timestamp": at} | ({} if begun is None else {"start_time": begun}))


def message(seq: int, at: str, begun: str) -> dict[str, Any]:
    told = {"role": "assistant", "content": "an answer"}
    body = {"session_id": "user-alice", "agent_id": "helper", "start_time": begun, "seq": seq, "timestamp": at, "message": told}
    return event("message", {**body, "attributes": {"response_time_ms": 100.0 * seq}})


def first_life() -> list[dict[str, Any]]:
    """A life that was over before the remote was set."""
    return [
        event("conversation_start", started()),
        figure(2, 100.0, "2026-03-01T10:00:01+00:00"),
        event("conversation_expired", expired(START, "2026-03-01T12:00:00+00:00")),
    ]


def assert_both_lives_are_known(desktop: Desktop, status: str, *times: float) -> None:
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == (status, SECOND, len(times))
    overall = desktop.get("/metrics/success-rates")["overall"]
    assert (overall["total"], overall["expired"], overall["completed"] + overall["active"]) == (2, 1, 1)
    overall = desktop.get("/metrics/response-times")["overall"]
    assert (overall["count"], overall["min_ms"], overall["max_ms"]) == (1 + len(times), 100.0, max(times))


def test_an_earlier_life_that_is_told_later_leaves_the_live_one_alone(desktop: Desktop) -> None:
    desktop.batch(event("conversation_start", started(at=SECOND)), figure(2, 900.0, SECOND))
    desktop.batch(*first_life())
    assert_both_lives_are_known(desktop, "open", 900.0)
    over = desktop.get("/metrics/success-rates", end_date="2026-03-02")["overall"]
    assert (over["total"], over["expired"]) == (1, 1)


def test_the_live_one_goes_on_while_an_earlier_life_is_told(desktop: Desktop) -> None:
    begins, costs, expires = first_life()
    desktop.batch(event("conversation_start", started(at=SECOND)), figure(2, 900.0, SECOND), begins)
    desktop.batch(figure(4, 800.0, "2026-03-02T10:00:04+00:00"), costs)
    desktop.batch(event("conversation_end", ended(begun=SECOND, at="2026-03-02T10:05:00+00:00", quality_score=5)), expires)
    assert_both_lives_are_known(desktop, "completed", 900.0, 800.0)
    assert desktop.get("/metrics/quality")["overall"]["mean"] == 5


@pytest.mark.parametrize("at_once", [True, False])
def test_figures_of_a_life_whose_beginning_comes_last_are_not_an_earlier_life_s(desktop: Desktop, at_once: bool) -> None:
    """The remote was set in the midst of the second life; then both are told from their beginning."""
    live = figure(4, 900.0, "2026-03-02T10:00:09+00:00", SECOND), figure(6, 700.0, "2026-03-02T10:00:19+00:00", SECOND)
    begins, costs, expires = first_life()
    told = (
        live[0],
        begins,
        costs,
        figure(4, 200.0, "2026-03-01T10:00:02+00:00", START),
        live[1],
        expires,
        event("conversation_start", started(at=SECOND)),
        figure(2, 800.0, "2026-03-02T10:00:01+00:00", SECOND),
    )
    for part in [told] if at_once else [(each,) for each in told]:
        assert {each["status"] for each in desktop.batch(*part)} == {"stored"}
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == ("open", SECOND, 3)
    first = desktop.get("/metrics/response-times", end_date="2026-03-02")["overall"]
    second = desktop.get("/metrics/response-times", start_date="2026-03-02")["overall"]
    assert (first["count"], first["max_ms"], second["count"], second["min_ms"]) == (2, 200.0, 3, 700.0)
    assert desktop.get("/metrics/success-rates")["overall"]["expired"] == 1


def test_an_earlier_life_whose_beginning_was_lost_ends_no_later_one(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(at=SECOND))
    desktop.post("/conversations/end", ended(at="2026-03-01T10:05:00+00:00"))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"]) == ("open", SECOND)


def test_the_beginning_that_was_told_is_not_moved_by_an_end(desktop: Desktop) -> None:
    desktop.post("/conversations/start", started(at=SECOND))
    desktop.post("/conversations/end", ended(at=THIRD))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["end_time"]) == ("completed", SECOND, THIRD)


def test_a_later_start_of_an_open_session_begins_it_anew(desktop: Desktop) -> None:
    """The client has one session of a name: it has deleted the first one, and its messages with it."""
    desktop.batch(event("conversation_start", started(metadata={"plan": "pro"}, user_id="alice")), figure(2, 100.0, START))
    desktop.batch(figure(4, 200.0, START), event("conversation_start", started(at=SECOND)), figure(2, 900.0, SECOND))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == ("open", SECOND, 1)
    assert (found["metadata"], found["user_id"]) == ({}, None)
    assert desktop.get("/metrics/response-times")["overall"]["mean_ms"] == 900.0
    assert desktop.get("/metrics/success-rates")["overall"]["total"] == 1


def test_an_expired_life_is_answered_for_by_the_newest_one(desktop: Desktop) -> None:
    desktop.batch(event("conversation_start", started(at=SECOND)), event("conversation_expired", expired(SECOND, THIRD)))
    desktop.batch(*first_life())
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"]) == ("expired", SECOND)
    assert desktop.get("/metrics/success-rates")["overall"]["expired"] == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_message_belongs_to_the_life_that_it_names(desktop: Desktop, at_once: bool) -> None:
    """Whatever its time is: a clock may have been wrong, and what is imported keeps its times."""
    begins, _, expires = first_life()
    told = (
        begins,
        figure(2, 900.0, "2026-03-01T10:00:03+00:00", SECOND),
        figure(2, 100.0, "2026-03-02T10:00:09+00:00", START),
        message(4, "2026-03-01T11:00:00+00:00", SECOND),
        expires,
        event("conversation_start", started(at=SECOND)),
        message(4, "2026-03-01T10:00:02+00:00", START),
    )
    for part in [told] if at_once else [(each,) for each in told]:
        assert {each["status"] for each in desktop.batch(*part)} == {"stored"}
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == ("open", SECOND, 2)
    rows = desktop.get("/metrics/success-rates")["overall"]
    assert (rows["total"], rows["expired"], rows["active"]) == (2, 1, 1)
    times = desktop.get("/metrics/response-times")["overall"]
    assert (times["count"], times["min_ms"], times["max_ms"]) == (4, 100.0, 900.0)


def test_a_message_of_a_life_that_follows_an_ended_one_begins_it_anew(desktop: Desktop) -> None:
    """The name of a session that was ended is free only after it is deleted; the start of the next one got lost."""
    desktop.batch(event("conversation_start", started()), figure(2, 100.0, START, START), event("conversation_end", ended()))
    desktop.batch(figure(2, 900.0, SECOND, SECOND))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == ("open", SECOND, 1)
    assert desktop.get("/metrics/response-times")["overall"]["mean_ms"] == 900.0


def test_a_message_of_an_ended_life_that_goes_on_leaves_it_ended(desktop: Desktop) -> None:
    ends = event("conversation_end", ended(begun=SECOND, at="2026-03-02T10:05:00+00:00"))
    desktop.batch(event("conversation_start", started(at=SECOND)), ends, figure(2, 100.0, THIRD, SECOND))
    found = desktop.get("/conversations/user-alice")
    assert (found["status"], found["start_time"], found["message_count"]) == ("completed", SECOND, 1)


def test_a_life_known_by_its_messages_takes_its_name_from_no_other_s_beginning(desktop: Desktop) -> None:
    desktop.batch(figure(2, 900.0, SECOND, SECOND))
    desktop.batch(*first_life())
    assert_both_lives_are_known(desktop, "open", 900.0)


def test_a_start_that_is_rejected_leaves_nothing_behind(desktop: Desktop) -> None:
    """Its metadata is as large as may be, and grows by the time zone that is assumed."""
    count = ((1 << 20) - len('{"x":[]}')) // len("1000000000000000.0,")
    for cut in (0, 10):
        numbers = ",".join(["1e15"] * (count - cut))
        body = f'{{"session_id":"ghost-{cut}","start_time":"2026-01-01T00:00:00","metadata":{{"x":[{numbers}]}}}}'
        told = f'{{"key":"{desktop.source}{cut}","kind":"conversation_start","body":{body}}}'
        told = f'{{"source":"{desktop.source}","events":[{told}]}}'
        answer = desktop.collector.client.post("/events/batch", content=told, headers={"Content-Type": "application/json"})
        (result,) = answer.json()["results"]
        status = desktop.collector.client.get(f"/conversations/ghost-{cut}", headers=desktop.headers).status_code
        assert (result["status"], status) == (("stored", 200) if cut else ("rejected", 404))


def sent_by(store: sessionstore.SessionStore) -> list[dict[str, Any]]:
    """What a store has for its remote."""
    rows = store.query("SELECT key, kind, namespace, occurred_at, body FROM outbox ORDER BY id").rows
    return [
        {"key": key, "kind": kind, "namespace": namespace, "occurred_at": at, "path": PATHS[kind], "body": json.loads(body)}
        for key, kind, namespace, at, body in rows
    ]


def live(store: sessionstore.SessionStore, clock: FrozenClock, chance: random.Random, days: int) -> None:
    """Lives of a few sessions that follow each other: they expire, are ended, or are deleted and begun anew."""
    for _ in range(days):
        session_id = f"s-{chance.randrange(4)}"
        chat = store.session(session_id, agent_id=f"agent-{chance.randrange(2)}", ttl=3600.0)
        clock.go(seconds=1)
        info = chat.get()
        if info is not None and info.status == "open":
            for _ in range(chance.randrange(3)):
                chat.append("user", "a question")
                clock.go(seconds=chance.random() * 3)
                chat.append("assistant", "an answer", input_tokens=chance.randrange(100))
        how = chance.choice(["open", "open", "ended", "deleted", "old"])
        if how == "ended":
            chat.end("completed", quality_score=chance.randrange(1, 6))
        elif (
            how == "deleted"
            and not store.query(f"SELECT 1 FROM sessions WHERE session_id = '{session_id}' AND status = 'expired'").rows
        ):
            # A collector is not told of it; and with the live one the expired ones would go.
            store.delete(session_id)
            clock.go(seconds=1)
            store.session(session_id, agent_id="agent-0", ttl=3600.0)
        elif how == "old":
            clock.go(minutes=61)
        clock.go(seconds=1)


@pytest.mark.parametrize("run", range(int(os.environ.get("SESSIONSTORE_TOLD_LIVES", "6"))))
def test_a_store_that_tells_its_past_is_known_as_it_is(
    desktop: Desktop, store: sessionstore.SessionStore, frozen: FrozenClock, run: int
) -> None:
    """The remote is set in the midst of it, and the past is told while life goes on.

    SESSIONSTORE_SEED tries a certain one, SESSIONSTORE_TOLD_LIVES many.
    """
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(1 << 32))
    print(f"run {run}: SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    live(store, frozen, chance, 25)
    store.set_remote(replace(REMOTE, sync_messages=chance.random() < 0.5))
    live(store, frozen, chance, chance.choice([0, 10]))
    while store.outbox.backfill(limit=3).more:
        live(store, frozen, chance, chance.randrange(3))
    live(store, frozen, chance, 10)
    store.sweep()
    events = sent_by(store)
    for start in range(0, len(events), 20):
        assert {each["status"] for each in desktop.batch(*events[start : start + 20])} == {"stored"}
    for path, own in (("response-times", store.response_times()), ("success-rates", store.success_rates())):
        assert desktop.get(f"/metrics/{path}") == json.loads(json.dumps(own)), path


def test_a_long_life_that_is_told_in_parts_is_not_taken_for_the_one_that_follows_it(
    desktop: Desktop, store: sessionstore.SessionStore, frozen: FrozenClock
) -> None:
    """Between two parts of its past another life of its name begins, which a collector takes for the same one if that is open."""
    chat = store.session("user-alice", agent_id="helper", ttl=3600.0)
    answer = {"role": "assistant", "content": "an answer"}
    chat.append_many([NewMessage(answer, response_time_ms=50.0)] * 2_100)
    frozen.go(minutes=61)
    store.sweep()
    store.set_remote(REMOTE)
    first = store._write(queries.backfill.step)
    frozen.go(seconds=1)
    store.session("user-alice", agent_id="helper", ttl=3600.0).append("assistant", "an answer", response_time_ms=90.0)
    assert (first.outcome, store.outbox.backfill().more) == ("more", False)
    events = sent_by(store)
    kinds = [each["kind"] for each in events if each["kind"] != "metric"]
    assert kinds == ["conversation_start", "conversation_expired", "conversation_start"]
    for start in range(0, len(events), 500):
        assert {each["status"] for each in desktop.batch(*events[start : start + 500])} == {"stored"}
    own = store.response_times()
    assert own["overall"]["count"] == 2_101
    for path, known in (("response-times", own), ("success-rates", store.success_rates())):
        assert desktop.get(f"/metrics/{path}") == json.loads(json.dumps(known)), path
