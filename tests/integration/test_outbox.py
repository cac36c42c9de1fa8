"""The outbox: its counts add up, it has a limit, an erasure wins, and what was before the remote is told once."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import START, FrozenClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import InvalidInputError, OutboxStats, QuotaError, SessionStore, queries
from sessionstore.cli import main
from sessionstore.content import decoded
from sessionstore.remote import events
from sessionstore.remote.settings import Remote
from sessionstore.remote.settlement import QueuedEvent, Refusal, Settlement, Trouble
from sessionstore.store import outbox as outbox_calls

REMOTE = "https://collector.example"
SMALL = 1 << 16
LEASE = timedelta(seconds=60)
AN_HOUR = timedelta(hours=1)


def set_remote(store: SessionStore, **options: Any) -> None:
    store._write(lambda db: queries.subscription.set_remote(db, Remote(REMOTE, **options)))


def claim(store: SessionStore, token: str, most: int = 100) -> list[QueuedEvent]:
    return store._claim(token, most, 1 << 20, LEASE) or []


def settle(store: SessionStore, token: str, **outcome: Any) -> int:
    """How many of the events were somebody else's."""
    settlement = Settlement(token=token, sent_before=0, over=True, **outcome)
    return store._write(lambda db: queries.deliveries.settle(db, settlement))


def bury(store: SessionStore, error: str = "rejected", **only: Any) -> list[str]:
    """Let all waiting events die, those of a kind, or one of a key; returns their keys."""
    found = [event for event in claim(store, "gravedigger") if all(getattr(event, name) == value for name, value in only.items())]
    settle(store, "gravedigger", refused=tuple(Refusal(event, 422, error, final=True) for event in found))
    return [event.key for event in found]


def keys_of(store: SessionStore, state: Any = None) -> list[str]:
    return [event.key for event in store.outbox.list(state, limit=1000)]


def told(store: SessionStore, **filters: Any) -> list[tuple[str, str]]:
    """Stream and kind of the events, in their order."""
    found = []
    cursor = None
    while True:
        page = store.outbox.list(limit=1000, cursor=cursor, **filters)
        found += [(event.stream, event.kind) for event in page]
        cursor = page.next_cursor
        if cursor is None:
            return found


# -- how it stands


def test_an_outbox_without_a_remote_is_empty_and_says_so(store: SessionStore) -> None:
    store.session("s").append("user", "x")
    stats = store.outbox.stats()
    zeros = {field.name: 0 for field in fields(OutboxStats)}
    nothing = dict.fromkeys(
        ("remote", "oldest_age", "last_sent_at", "last_status", "last_error", "failing_since", "retry_at", "paused")
    )
    assert stats == OutboxStats(**{**zeros, **nothing, "quota": 1 << 30})
    assert (store.outbox.list().items, store.outbox.dead().items) == ((), ())


def test_stats_tell_each_of_the_ways_that_an_event_can_be_in(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    for name in ("sent", "dead", "odd", "leased", "waiting", "free"):
        store.record("x", 1, session_id=name)
    by_session = {event.stream.removeprefix("session:"): event for event in claim(store, "first")}
    refused = (
        Refusal(by_session["dead"], 422, "rejected: no", final=True),
        Refusal(by_session["odd"], None, "unsupported: no such kind", counts=False, final=True),
        Refusal(by_session["waiting"], 500, "a bad day", AN_HOUR),
    )
    settle(store, "first", sent=(by_session["sent"],), refused=refused)
    frozen.go(1.5)
    claim(store, "second", most=1)
    stats = store.outbox.stats()
    assert (stats.pending, stats.leased, stats.waiting) == (3, 1, 1)
    assert (stats.dead, stats.unsupported, stats.erased) == (2, 1, 0)
    assert (stats.sent, stats.dropped, stats.last_sent_at) == (1, 0, START)
    assert (stats.oldest_age, stats.attempts, stats.remote, stats.quota) == (1.5, 1, REMOTE, SMALL)
    frozen.go(61)
    assert store.outbox.stats().leased == 0, "a lease ends by itself"
    frozen.go(AN_HOUR)
    assert store.outbox.stats().waiting == 0


def test_a_hold_of_a_clock_that_was_ahead_counts_for_nothing(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    store.record("x", 1)
    frozen.go(days=300)
    claim(store, "ahead")
    frozen.go(days=-300)
    assert store.outbox.stats().leased == 0
    assert store.outbox.purge(state="pending") == 1


def test_stats_tell_why_deliveries_pause(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    store.record("x", 1)
    claim(store, "t")
    settle(store, "t", trouble=Trouble("unauthorized", 401, paused="auth"))
    stats = store.outbox.stats()
    assert (stats.paused, stats.last_status, stats.last_error) == ("auth", 401, "unauthorized")
    assert (stats.failures, stats.failing_since) == (1, frozen.now)
    assert stats.retry_at is not None
    assert frozen.now < stats.retry_at <= frozen.now + AN_HOUR
    assert stats.attempts == 0, "no event is to blame"


def test_stats_are_those_of_the_views(store: SessionStore) -> None:
    set_remote(store)
    for number in range(6):
        store.record("x", number, session_id=f"s{number}")
    settle(store, "t", sent=tuple(claim(store, "t", most=1)))
    claim(store, "u", most=2)
    settle(store, "u", trouble=Trouble("refused", 503))
    bury(store, stream="session:s1")
    store.outbox.erase("s2", tell=False)
    claim(store, "v", most=1)
    stats = store.outbox.stats()
    result = store.query("SELECT * FROM v_sync")
    row = dict(zip(result.columns, result.rows[0], strict=True))
    age = row.pop("oldest_age_seconds")
    assert stats.oldest_age is not None
    assert stats.oldest_age <= age + 0.001
    mine = {"remote_url": stats.remote} | {name: getattr(stats, name) for name in row if name != "remote_url"}
    assert row == {name: sessionstore.clock.to_text(value) if hasattr(value, "tzinfo") else value for name, value in mine.items()}
    states = dict(store.query("SELECT state, count(*) FROM v_outbox GROUP BY state").rows)
    assert (
        states == {"pending": stats.pending, "dead": stats.dead, "erased": stats.erased} == {"pending": 3, "dead": 1, "erased": 1}
    )
    leased = store.query("SELECT count(*) FROM v_outbox WHERE lease_token IS NOT NULL").rows
    assert leased == ((stats.leased,),) == ((1,),)


# -- looking


def test_events_are_listed_in_their_order_in_pages(store: SessionStore) -> None:
    set_remote(store)
    for number in range(25):
        store.record("x", number, session_id=f"s{number % 3}")
    store.session("s1")
    everything = told(store)
    assert len(everything) == 26
    pages = []
    cursor = None
    while True:
        page = store.outbox.list("pending", limit=10, cursor=cursor)
        pages.append([(event.stream, event.kind) for event in page])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [len(page) for page in pages] == [10, 10, 6]
    assert list(itertools.chain(*pages)) == everything
    assert set(told(store, session_id="s1")) == {("session:s1", "metric"), ("session:s1", "conversation_start")}
    assert told(store, kind="conversation_start") == [("session:s1", "conversation_start")]
    assert told(store, state="dead") == []


def test_a_list_shows_every_namespace_and_a_session_is_one_of_the_stores_own(store: SessionStore) -> None:
    set_remote(store)
    there = store.in_namespace("there")
    store.session("s")
    there.session("s")
    assert [event.namespace for event in store.outbox.list()] == ["", "there"]
    assert [event.namespace for event in there.outbox.list(session_id="s")] == ["there"]


def test_an_event_is_shown_with_its_body_and_a_list_without(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    store.session("s", agent_id="helper", metadata={"word": "é"})
    (event,) = store.outbox.list()
    assert event.body is None
    shown = store.outbox.get(event.key)
    assert shown is not None
    body = {"session_id": "s", "agent_id": "helper", "start_time": START.isoformat(), "metadata": {"word": "é"}}
    assert shown.body == body
    assert shown.size_bytes == len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
    assert (shown.occurred_at, shown.created_at, shown.settled_at, shown.next_at) == (START, START, None, None)
    assert "é" not in repr(shown), "reprs end up in logs"
    assert store.outbox.get("absent") is None


def test_an_event_tells_who_may_be_sending_it_and_why_it_was_refused(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    store.record("x", 1)
    (event,) = claim(store, "t")
    assert [each.lease_until for each in store.outbox.list()] == [START + LEASE]
    settle(store, "t", refused=(Refusal(event, 503, "busy", timedelta(minutes=1)),))
    (waiting,) = store.outbox.list()
    assert (waiting.state, waiting.attempts, waiting.last_status, waiting.last_error) == ("pending", 1, 503, "busy")
    assert (waiting.next_at, waiting.lease_until) == (START + timedelta(minutes=1), None)
    frozen.go(minutes=2)
    bury(store)
    (dead,) = store.outbox.dead()
    assert (dead.state, dead.settled_at, dead.next_at) == ("dead", frozen.now, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda outbox: outbox.list("sent"),
        lambda outbox: outbox.list(kind="no such kind"),
        lambda outbox: outbox.list(limit=0),
        lambda outbox: outbox.list(cursor="x"),
        lambda outbox: outbox.list(cursor=1),
        lambda outbox: outbox.get(""),
        lambda outbox: outbox.requeue(["a", ""]),
        lambda outbox: outbox.requeue(7),
        lambda outbox: outbox.requeue(kind="x"),
        lambda outbox: outbox.purge(state="all"),
        lambda outbox: outbox.purge(older_than=-1),
        lambda outbox: outbox.erase(""),
        lambda outbox: outbox.erase("s", tell=1),
        lambda outbox: outbox.backfill(limit=0),
    ],
)
def test_nonsense_is_refused_before_anything_happens(store: SessionStore, dump: Any, call: Callable[[Any], Any]) -> None:
    set_remote(store)
    store.record("x", 1)
    before = dump()
    with pytest.raises(InvalidInputError):
        call(store.outbox)
    assert dump() == before


def test_a_cursor_of_another_filter_is_refused(store: SessionStore) -> None:
    set_remote(store)
    for _ in range(2):
        store.record("x", 1)
    cursor = store.outbox.list(limit=1).next_cursor
    assert cursor is not None
    with pytest.raises(InvalidInputError, match="same filters"):
        store.outbox.list("pending", cursor=cursor)


# -- dead events


def test_a_requeued_event_has_its_key_its_bytes_and_all_its_attempts(store: SessionStore) -> None:
    set_remote(store)
    for number in range(3):
        store.record("x", number, session_id=f"s{number}")
    before = claim(store, "look")
    store._write(lambda db: queries.deliveries.release(db, "look"))
    keys = bury(store)
    assert store.outbox.requeue(keys[1]) == 1
    assert store.outbox.requeue([keys[1], keys[2], "absent"]) == 1, "one waits already"
    (second, third) = claim(store, "again")
    assert [event.key for event in (second, third)] == keys[1:]
    assert (second, third) == tuple(before[1:]), "attempts and what was noted of the refusal are forgotten"
    assert keys_of(store, "dead") == keys[:1]


def test_all_dead_events_or_those_of_a_kind_are_requeued(store: SessionStore) -> None:
    set_remote(store)
    store.session("s")
    store.record("x", 1)
    store.register_agent("a")
    bury(store)
    assert store.outbox.requeue(kind="metric") == 1
    assert told(store, state="pending") == [("metrics", "metric")]
    assert store.outbox.requeue() == 2
    assert store.outbox.requeue() == 0


def test_more_keys_than_a_statement_takes_are_requeued_and_purged(store: SessionStore) -> None:
    set_remote(store)
    for _ in range(3):
        store.record("x", 1, session_id="s")
    absent = [f"absent {number}" for number in range(40_000)]
    keys = bury(store)
    assert store.outbox.requeue([*absent, *keys]) == 3
    bury(store)
    assert store.outbox.purge(keys=(key for key in [*keys, *absent])) == 3


def test_a_requeued_event_does_not_wait_for_what_its_stream_waited_for(store: SessionStore) -> None:
    set_remote(store)
    for stream in ("s", "s", "other"):
        store.record("x", 1, session_id=stream)
    first, second, other = claim(store, "t")
    waits = (Refusal(second, 503, "busy", AN_HOUR), Refusal(other, 503, "busy", AN_HOUR))
    settle(store, "t", refused=(Refusal(first, 422, "no", final=True), *waits))
    assert claim(store, "u") == []
    store.outbox.requeue()
    assert [event.key for event in claim(store, "v")] == [first.key, second.key], "in their old order; the other stream waits"


def test_those_who_deliver_are_woken_by_a_requeue_and_by_an_erasure(store: SessionStore) -> None:
    set_remote(store)
    store.record("x", 1, session_id="s")
    bury(store)
    woken = []
    store._database.writer.bell.add(lambda: woken.append(1))
    store.outbox.requeue(["absent"])
    assert woken == []
    store.outbox.requeue()
    assert woken == [1]
    store.outbox.erase("s")
    assert woken == [1, 1]


# -- purging


def test_a_purge_takes_dead_events_that_have_been_so_for_long(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    store.record("old", 1)
    old = bury(store)
    frozen.go(days=2)
    store.record("new", 1)
    store.record("waits", 1, session_id="s")
    new = bury(store, stream="metrics")
    assert store.outbox.purge(older_than=timedelta(days=2)) == 0, "not longer than that"
    frozen.go(1)
    assert store.outbox.purge(older_than=timedelta(days=2), keys=new) == 0
    assert store.outbox.purge(older_than=172_800) == 1
    assert keys_of(store, "dead") == new != old
    assert store.outbox.purge() == 1
    assert (store.outbox.stats().pending, store.outbox.stats().dropped) == (1, 0)


def test_erased_events_are_purged_by_that_word_only(store: SessionStore) -> None:
    set_remote(store)
    store.record("x", 1, session_id="s")
    store.outbox.erase("s", tell=False)
    assert store.outbox.purge() == 0
    assert store.outbox.purge(state="erased") == 1


def test_purged_pending_events_are_counted_as_dropped_and_those_being_sent_stay(store: SessionStore) -> None:
    set_remote(store)
    for name in ("sending", "waiting", "free"):
        store.record("x", 1, session_id=name)
    first, second, _ = claim(store, "t")
    settle(store, "t", refused=(Refusal(second, 503, "busy", AN_HOUR),))
    claim(store, "u", most=1)
    assert store.outbox.purge(state="pending", keys=[first.key]) == 0
    assert store.outbox.purge(state="pending") == 2
    assert told(store) == [("session:sending", "metric")]
    assert store.outbox.stats().dropped == 2
    with closing(sqlite3.connect(store.status().path or "")) as raw:
        assert raw.execute("SELECT stream, token FROM outbox_holds").fetchall() == [("session:sending", "u")]
    settle(store, "u", sent=(first,))
    assert (store.outbox.stats().sent, store.outbox.stats().dropped) == (1, 2)


def test_the_background_s_purge_takes_dead_and_erased_events_in_parts(
    store: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_remote(store)
    for number in range(4):
        store.record("x", 1, session_id=f"s{number}")
    store.outbox.erase("s0", tell=False)
    store.outbox.erase("s1", tell=False)
    bury(store, stream="session:s2")
    monkeypatch.setattr(queries.outbox_upkeep, "_PURGED_AT_ONCE", 2)
    at = frozen.go(days=30)

    def purge(before: Any) -> int:
        return store._write(lambda db: queries.outbox_upkeep.purge_settled(db, before))

    assert purge(START) == 0, "before, not since"
    assert [purge(at), purge(at), purge(at)] == [2, 1, 0]
    assert told(store) == [("session:s3", "metric")]


# -- erasing


def test_an_erasure_empties_what_waits_and_what_died_and_tells_the_remote(store: SessionStore, frozen: FrozenClock) -> None:
    set_remote(store)
    secret = "tangerine"
    store.session("s", metadata={"word": secret})
    bury(store, error=f"no {secret} here")
    store.record("x", 1, attributes={"word": secret}, session_id="s")
    store.in_namespace("other").session("s")
    store.session("t")
    frozen.go(5)
    assert store.outbox.erase("s") == 2
    assert told(store, state="erased") == [("session:s", "conversation_start"), ("session:s", "metric")]
    assert [event.stream for event in store.outbox.list("pending")] == ["session:s", "session:t", "session:s"]
    last = store.outbox.get(keys_of(store, "pending")[-1])
    assert last is not None
    assert (last.kind, last.namespace, last.body) == ("erase", "", {"session_id": "s", "timestamp": frozen.now.isoformat()})
    emptied = [store.outbox.get(key) for key in keys_of(store, "erased")]
    assert [each and (each.body, each.size_bytes, each.last_error, each.settled_at) for each in emptied] == [
        (None, 0, None, frozen.now)
    ] * 2
    with closing(sqlite3.connect(store.status().path or "")) as raw:
        assert secret not in repr(raw.execute("SELECT * FROM outbox").fetchall())


def test_an_erasure_without_a_remote_or_a_word_tells_nobody(store: SessionStore) -> None:
    assert store.outbox.erase("s") == 0
    set_remote(store)
    assert store.outbox.erase("s", tell=False) == 0
    assert told(store) == []
    assert store.outbox.erase("s") == 0, "what was delivered is to be forgotten, too"
    assert told(store) == [("session:s", "erase")]
    assert store.outbox.erase("s", tell=False) == 0
    assert told(store, state="pending") == [("session:s", "erase")], "a word that is not delivered yet is kept"


def test_an_erasure_wins_over_an_event_that_is_being_sent(store: SessionStore, frozen: FrozenClock) -> None:
    """Whatever its sender says afterwards; and the remote is told to forget only when that request must be over."""
    set_remote(store)
    store.record("x", 1, session_id="s")
    store.record("x", 1, session_id="t")
    mine, other = claim(store, "sender")
    assert store.outbox.erase("s") == 1
    assert claim(store, "another") == [], "the remote could hear of the session after it was told to forget it"
    assert settle(store, "sender", sent=(mine, other)) == 1
    stats = store.outbox.stats()
    assert (stats.sent, stats.erased, stats.pending) == (1, 1, 1)
    assert store.outbox.requeue() == 0
    frozen.go(LEASE)
    assert [event.kind for event in claim(store, "another")] == ["erase"]


def test_an_erasure_wins_over_a_refusal(store: SessionStore) -> None:
    set_remote(store)
    store.record("x", 1, session_id="s")
    (event,) = claim(store, "sender")
    store.outbox.erase("s", tell=False)
    assert settle(store, "sender", refused=(Refusal(event, 422, "no", final=True),)) == 1
    assert told(store) == told(store, state="erased") == [("session:s", "metric")]


def test_an_erasure_ends_the_wait_of_its_stream(store: SessionStore) -> None:
    set_remote(store)
    store.record("x", 1, session_id="s")
    (event,) = claim(store, "sender")
    settle(store, "sender", refused=(Refusal(event, 503, "busy", AN_HOUR),))
    store.outbox.erase("s")
    assert [each.kind for each in claim(store, "again")] == ["erase"]


# -- counts


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 3)),
        st.tuples(st.just("claim"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["send", "refuse", "stall"]), st.integers(0, 3)),
        st.tuples(st.just("requeue"), st.just(0)),
        st.tuples(st.sampled_from(["purge dead", "purge erased", "purge pending"]), st.just(0)),
        st.tuples(st.just("erase"), st.integers(0, 3)),
    ),
    max_size=30,
)


class Model:
    """What a store's outbox should hold, in plain Python."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.states: dict[str, tuple[str, int]] = {}
        self.holds: dict[int, str | None] = {}
        self.claims: list[tuple[str, list[QueuedEvent]]] = []
        self.stored = self.sent = self.dropped = self.purged = 0
        self.tokens = (f"token {number}" for number in itertools.count())

    def keys(self, state: str, stream: int | None = None) -> list[str]:
        return [key for key, (now, where) in self.states.items() if now == state and stream in (None, where)]

    def record(self, stream: int) -> None:
        self.store.record("x", 1, session_id=str(stream))
        self.stored += 1
        (new,) = set(keys_of(self.store)) - set(self.states)
        self.states[new] = ("pending", stream)

    def claim(self, most: int) -> None:
        token = next(self.tokens)
        expected = [key for key in self.keys("pending") if self.states[key][1] not in self.holds][:most]
        found = claim(self.store, token, most)
        assert [event.key for event in found] == expected
        self.holds |= {self.states[key][1]: token for key in expected}
        if found:
            self.claims.append((token, found))

    def settled(self, place: int, outcome: str) -> None:
        if not self.claims:
            return
        token, found = self.claims.pop(place % len(self.claims))
        owned = [event for event in found if self.holds.get(int(event.stream.partition(":")[2])) == token]
        if outcome == "send":
            lost = settle(self.store, token, sent=tuple(found))
            self.sent += len(owned)
        else:
            refusals = tuple(Refusal(event, 422, "no", AN_HOUR, final=outcome == "refuse") for event in found)
            lost = settle(self.store, token, refused=refusals)
        assert lost == len(found) - len(owned)
        for event in owned:
            stream = self.states.pop(event.key)[1] if outcome == "send" else self.states[event.key][1]
            if outcome == "refuse":
                self.states[event.key] = ("dead", stream)
            if outcome == "stall":
                self.holds[stream] = None
            elif self.holds.get(stream) == token:
                del self.holds[stream]

    def requeue(self) -> None:
        dead = self.keys("dead")
        assert self.store.outbox.requeue() == len(dead)
        for key in dead:
            stream = self.states[key][1]
            self.states[key] = ("pending", stream)
            if self.holds.get(stream, "free") is None:
                del self.holds[stream]

    def purge(self, state: Any) -> None:
        going = self.keys(state)
        if state == "pending":
            going = [key for key in going if self.holds.get(self.states[key][1]) is None]
            self.dropped += len(going)
        else:
            self.purged += len(going)
        assert self.store.outbox.purge(state=state) == len(going)
        for key in going:
            stream = self.states.pop(key)[1]
            if state == "pending" and not self.keys("pending", stream):
                self.holds.pop(stream, None)

    def erase(self, stream: int) -> None:
        going = [*self.keys("pending", stream), *self.keys("dead", stream)]
        assert self.store.outbox.erase(str(stream), tell=False) == len(going)
        for key in going:
            self.states[key] = ("erased", stream)
        if going and self.holds.get(stream, "free") is None:
            # A wait of the stream and what is left of a lease look alike to the model; both end here or by themselves.
            self.holds.pop(stream)
        elif going and stream in self.holds:
            # It stays a lease, of nobody.
            self.holds[stream] = ""

    def check(self) -> None:
        stats = self.store.outbox.stats()
        counts = {state: len(self.keys(state)) for state in ("pending", "dead", "erased")}
        assert {state: getattr(stats, state) for state in counts} == counts
        assert (stats.sent, stats.dropped) == (self.sent, self.dropped)
        assert self.stored == sum(counts.values()) + self.sent + self.dropped + self.purged
        leased = [key for key in self.keys("pending") if self.holds.get(self.states[key][1]) is not None]
        waiting = [key for key in self.keys("pending") if self.holds.get(self.states[key][1], "free") is None]
        assert (stats.leased, stats.waiting) == (len(leased), len(waiting))


@pytest.mark.fault("F38")
@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(OPERATIONS)
def test_counts_add_up_whatever_happens_in_whatever_order(
    new_file: Path, tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("counts") / "a.db"
    shutil.copy(new_file, path)
    with sessionstore.open(path, durability="normal") as store:
        set_remote(store)
        model = Model(store)
        for name, number in operations:
            match name.split():
                case ["record"]:
                    model.record(number)
                case ["claim"]:
                    model.claim(number)
                case ["requeue"]:
                    model.requeue()
                case ["purge", state]:
                    model.purge(state)
                case ["erase"]:
                    model.erase(number)
                case [outcome]:
                    model.settled(number, outcome)
            model.check()


# -- how large it may become


def fill(store: SessionStore, share: float) -> int:
    """Record figures until so large a share of a small outbox is taken; returns how many."""
    for number in itertools.count():
        if store.outbox.stats().pending_bytes >= share * SMALL:
            return number
        store.record("filling", number, attributes={"blank": "x" * 900})
    raise AssertionError


@pytest.mark.fault("F31")
def test_a_full_outbox_drops_its_oldest_figures_and_counts_them(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    store.session("first")
    number = fill(store, 0.9)
    for _ in range(40):
        store.record("late", 1, attributes={"blank": "x" * 900})
    stats = store.outbox.stats()
    assert stats.pending_bytes <= SMALL
    assert stats.dropped > 0
    assert stats.pending + stats.dropped == 1 + number + 40
    figures = [store.outbox.get(key) for key in keys_of(store)]
    values = [event.body["value"] for event in figures if event and event.body and event.body.get("name") == "filling"]
    assert values == [float(each) for each in range(stats.dropped, number)], "the oldest went, in their order"
    assert told(store)[0] == ("session:first", "conversation_start")
    assert store.query("SELECT count(*) FROM v_metric_events").rows == ((number + 40,),), "here nothing is lost"


@pytest.mark.fault("F31")
def test_of_figures_that_come_together_the_oldest_are_dropped_too(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    store.session("first")
    fill(store, 0.9)
    store.record_many([sessionstore.NewMetric("together", number, attributes={"blank": "x" * 900}) for number in range(100)])
    stats = store.outbox.stats()
    assert 0.8 * SMALL < stats.pending_bytes <= SMALL
    figures = [event.body for key in keys_of(store) if (event := store.outbox.get(key)) and event.kind == "metric" and event.body]
    assert [body["name"] for body in figures] == ["together"] * len(figures)
    assert [body["value"] for body in figures] == [float(number) for number in range(100 - len(figures), 100)]
    assert told(store)[0] == ("session:first", "conversation_start")
    ((recorded,),) = store.query("SELECT count(*) FROM v_metric_events").rows
    assert stats.pending + stats.dropped == 1 + recorded, "here nothing is lost"


@pytest.mark.fault("F31")
def test_after_more_figures_than_fit_the_next_one_drops_the_oldest_of_them(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    store.record_many([sessionstore.NewMetric("together", number, attributes={"blank": "x" * 900}) for number in range(200)])
    for number in range(20):
        store.record("next", number, attributes={"blank": "x" * 900})
    figures = [event.body for key in keys_of(store) if (event := store.outbox.get(key)) and event.body]
    assert [body["value"] for body in figures if body["name"] == "next"] == [float(number) for number in range(20)]
    assert store.outbox.stats().pending_bytes <= SMALL


@pytest.mark.fault("F31")
def test_lifecycle_events_are_kept_however_full_it_is(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    for number in range(20):
        store.session(f"s{number}", agent_id="a", metadata={"blank": "x" * 5_000})
        store.end(f"s{number}")
    store.set_status("a", "busy")
    stats = store.outbox.stats()
    assert (stats.pending, stats.dropped) == (41, 0)
    assert stats.pending_bytes > SMALL
    store.record("x", 1)
    assert (store.outbox.stats().pending, store.outbox.stats().dropped) == (41, 1), "there is no room for a figure"


def test_figures_that_are_being_sent_are_not_dropped(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    for number in range(3):
        store.record("sending", number, session_id="s", attributes={"blank": "x" * 900})
    sending = claim(store, "t")
    fill(store, 0.9)
    for _ in range(20):
        store.record("late", 1, attributes={"blank": "x" * 900})
    assert store.outbox.stats().dropped > 0
    settle(store, "t", sent=tuple(sending))
    assert store.outbox.stats().sent == 3
    assert told(store, session_id="s") == []


@pytest.mark.fault("F31")
def test_a_store_that_is_to_raise_writes_nothing_of_the_figure(store: SessionStore, dump: Any) -> None:
    set_remote(store, max_outbox_bytes=SMALL, on_full="raise")
    store.session("s")
    with pytest.raises(QuotaError) as caught:
        fill(store, 2.0)
    assert caught.value.limit == SMALL
    facts = {"input_tokens": 1, "model": "m" * 256, "finish_reason": "f" * 256}
    for call in (
        lambda: store.record("x", 1, attributes={"blank": "x" * 9_000}),
        lambda: store.record_many([sessionstore.NewMetric("x", 1, attributes={"blank": "x" * 900})] * 9),
        lambda: store.append_many("s", [sessionstore.NewMessage({"role": "assistant", "content": "y"}, **facts)] * 20),
    ):
        before = dump()
        with pytest.raises(QuotaError):
            call()
        assert dump() == before
    store.append("s", "user", "plain messages are told to nobody")
    store.end("s")
    assert told(store)[-1] == ("session:s", "conversation_end")


@pytest.mark.fault("F31")
def test_an_outbox_that_fills_up_is_told_in_time(store: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    set_remote(store, max_outbox_bytes=SMALL)

    def heard(event: str) -> list[logging.LogRecord]:
        return [record for record in caplog.records if getattr(record, "event", "") == event]

    fill(store, 0.65)
    assert heard("outbox_filling") == []
    fill(store, 0.8)
    assert heard("outbox_filling")
    assert {record.levelno for record in heard("outbox_filling")} == {logging.WARNING}
    assert heard("outbox_dropped") == []
    for _ in range(30):
        store.record("late", 1, attributes={"blank": "x" * 900})
    dropped = [vars(record)["events"] for record in heard("outbox_dropped")]
    assert sum(dropped) == store.outbox.stats().dropped > 0


def give_up_as_unsupported(store: SessionStore) -> int:
    """Let all that waits die as of no use to the remote; returns how many events."""
    count = 0
    while found := claim(store, "t"):
        refusals = tuple(Refusal(event, None, "unsupported: no such kind", counts=False, final=True) for event in found)
        settle(store, "t", refused=refusals)
        count += len(found)
    return count


def dead_bytes(store: SessionStore) -> int:
    ((size,),) = store.query("SELECT sum(size_bytes) FROM outbox WHERE state = 'dead'").rows
    return int(size or 0)


def test_dead_events_count_towards_the_limit_and_the_useless_ones_go_first(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    for number in range(20):
        store.record("rejected", number, session_id="s", attributes={"blank": "x" * 900})
    rejected = bury(store)
    stored = 20
    for _ in range(6):
        store.session(f"lived {stored}")
        for number in range(20):
            store.record("useless", number, attributes={"blank": "x" * 900})
        stored += 21
        give_up_as_unsupported(store)
        assert dead_bytes(store) + store.outbox.stats().pending_bytes <= SMALL
    stats = store.outbox.stats()
    assert stats.dropped > 0
    assert stats.pending + stats.dead + stats.dropped == stored
    assert keys_of(store, "dead")[:20] == rejected, "what may be requeued with some use is kept"
    values = [event.body["value"] for event in map(store.outbox.get, keys_of(store, "dead")[-20:]) if event and event.body]
    assert values == [float(number) for number in range(20)], "the newest of the useless ones are kept"


def test_waiting_figures_go_when_no_useless_dead_event_is_left(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    store.session("s", agent_id="a", metadata={"blank": "x" * 50_000})
    bury(store)
    fill(store, 0.15)
    give_up_as_unsupported(store)
    for number in range(40):
        store.record("new", number, attributes={"blank": "x" * 900})
    stats = store.outbox.stats()
    assert (stats.dead, stats.unsupported) == (1, 0)
    assert dead_bytes(store) + stats.pending_bytes <= SMALL
    newest = store.outbox.get(keys_of(store, "pending")[-1])
    assert newest is not None
    assert newest.body is not None
    assert newest.body["value"] == 39.0


def test_a_thousand_useless_dead_events_are_kept_at_most(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        set_remote(store)
        store.record("first", 0)
        rejected = bury(store)
        now = sessionstore.clock.utc_now()
        made = [events.erased("", f"s{number}", now) for number in range(1_200)]
        store._write(lambda db: queries.outbox.enqueue(db, made))
        assert give_up_as_unsupported(store) == 1_200
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        store.record("a program looks at its first event", 1)
        stats = store.outbox.stats()
        assert (stats.unsupported, stats.dead, stats.dropped) == (1_000, 1_001, 200)
        pages = told(store, state="dead")
        assert pages[1] == ("session:s200", "erase")
        assert pages[-1] == ("session:s1199", "erase")
        assert keys_of(store, "dead")[0] == rejected[0]


def looks_at_the_outbox(store: SessionStore) -> Any:
    """A list that grows with each look at all that waits."""
    looks: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith("SELECT count(*) AS count_1, coalesce(sum(outbox.size_bytes)"):
            looks.append(statement)

    store._write(lambda db: db.driver.set_trace_callback(note))
    return looks


@pytest.mark.parametrize("on_full", ["drop_oldest_metrics", "raise"])
def test_a_full_outbox_is_not_looked_through_for_each_figure(store: SessionStore, on_full: Any) -> None:
    set_remote(store, max_outbox_bytes=SMALL, on_full=on_full)
    store.session("s", agent_id="a", metadata={"blank": "x" * SMALL})
    looks = looks_at_the_outbox(store)
    refused = 0
    for number in range(100):
        try:
            store.record("x", number)
        except QuotaError:
            refused += 1
        store.session(f"s{number}", agent_id="a")
    stats = store.outbox.stats()
    assert stats.dropped + refused == 100
    assert (refused == 0) == (on_full != "raise")
    assert stats.pending == 101, "lives are told however full it is"
    assert 1 <= len(looks) <= 2


@pytest.mark.fault("F31")
@pytest.mark.parametrize("on_full", ["drop_oldest_metrics", "raise"])
def test_a_full_outbox_takes_figures_again_once_others_have_delivered(tmp_path: Path, on_full: Any) -> None:
    """Another connection delivers, of whose commits this one is not told."""
    with sessionstore.open(tmp_path / "a.db", durability="normal") as store:
        set_remote(store, max_outbox_bytes=SMALL, on_full=on_full)
        store.session("s", agent_id="a", metadata={"blank": "x" * SMALL})
        for _ in range(2):
            try:
                store.record("lost", 1)
            except QuotaError:
                assert on_full == "raise"
        assert [kind for _, kind in told(store)] == ["conversation_start"]
        program = "import sys; from sessionstore import open, queries; from test_outbox import claim, settle; "
        program += "store = open(sys.argv[1]); settle(store, 't', sent=tuple(claim(store, 't'))); store.close(drain_timeout=0)"
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "a.db")], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60
        )
        store.record("kept", 1)
        assert [kind for _, kind in told(store)] == ["metric"]


def test_a_full_outbox_takes_figures_again_once_it_was_purged(store: SessionStore) -> None:
    set_remote(store, max_outbox_bytes=SMALL)
    store.session("s", agent_id="a", metadata={"blank": "x" * SMALL})
    for state in ("pending", "dead", "erased"):
        store.record("lost", 1)
        if state == "dead":
            bury(store)
        if state == "erased":
            store.outbox.erase("s", tell=False)
        store.outbox.purge(state=state)  # type: ignore[arg-type]
        store.record("kept", 1)
        assert [kind for _, kind in told(store, state="pending")] == ["metric"]
        store.outbox.purge(state="pending")
        store.delete("s")
        store.outbox.purge(state="pending")
        store.session("s", agent_id="a", metadata={"blank": "x" * SMALL})


# -- how large an event may be


def test_what_makes_an_event_larger_than_a_request_is_left_out_of_it(store: SessionStore) -> None:
    set_remote(store)
    large = {"word": "y" * ((1 << 20) - 20)}
    wide = {"word": "é" * ((1 << 19) - 10)}
    store.session("s", agent_id="a", metadata=large)
    ended = events.conversation_ended(store.end("s"), wide)
    store._write(lambda db: queries.outbox.enqueue(db, (ended,)))
    store.register_agent("a", metadata=large)
    store.set_status("a", "busy", metadata=wide)
    store.log_activity("a", "search", large)
    store.record("x", 1, session_id="s", attributes=wide)
    told_events = [store.outbox.get(key) for key in keys_of(store)]
    bodies = [event.body for event in told_events if event is not None]
    assert all(event is not None and event.size_bytes < 1_000 for event in told_events)
    assert [event.kind for event in told_events if event is not None][1:3] == ["conversation_end"] * 2
    del bodies[1]
    fields_of = [{"metadata", "details", "attributes"} & set(body or ()) for body in bodies]
    assert fields_of == [{"metadata"}, {"metadata"}, {"metadata"}, {"metadata"}, {"details"}, {"attributes"}]
    assert [body[name] for body, names in zip(bodies, fields_of, strict=True) for name in names if body] == [
        {"omitted": "too large"}
    ] * 6
    info = store.get("s")
    assert info is not None
    assert info.metadata == large, "here nothing is left out"


def test_an_event_that_just_fits_is_told_whole(store: SessionStore) -> None:
    set_remote(store)
    blank = len(json.dumps({"name": "x", "value": 1.0, "timestamp": START.isoformat(), "attributes": {"w": ""}}))
    for more in (-100, 100):
        store.record("x", 1, attributes={"w": "y" * (1_000_000 - blank + more)})
    sizes = [event.size_bytes for event in store.outbox.list()]
    assert 999_800 < sizes[0] <= 1_000_000
    assert sizes[1] < 200


def test_a_message_is_as_large_as_its_bytes(store: SessionStore) -> None:
    set_remote(store, sync_messages=True)
    store.session("s", agent_id="a")
    store.append("s", "assistant", "語" * 500_000, input_tokens=3)
    event = store.outbox.get(keys_of(store)[-1])
    assert event is not None
    assert (event.kind, event.size_bytes < 1_000) == ("metric", True)


# -- backfill


def make_history(store: SessionStore, number: int = 5) -> None:
    """Sessions of every kind with messages, figures, and what agents did."""
    store.register_agent("helper", sdk_version="1.2", metadata={"team": "support"})
    store.set_status("helper", "busy", metadata={"load": 1})
    store.log_activity("helper", "search", {"words": 3}, duration=1.5)
    for each in range(number):
        name = f"s{each}"
        store.session(name, agent_id="helper", user_id="u", metadata={"n": each}, ttl=60 if each % 5 == 3 else None)
        store.append(name, "user", f"question {each}")
        store.append(name, "assistant", f"answer {each}", input_tokens=each, response_time_ms=12.5)
        store.append(name, "user", "thanks")
        if each % 5 in (1, 2):
            store.end(
                name, "completed" if each % 5 == 1 else "failed", quality_score=4, error=None if each % 5 == 1 else "it broke"
            )
    store.in_namespace("other").session("elsewhere")
    store.record("hits", 3, "pieces", {"cache": "a"}, agent_id="helper", session_id="s0")


def all_told(path: Path) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    """Namespace, stream, kind, occurred_at and body of all events, in the order of their streams."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute(
            "SELECT namespace, stream, kind, occurred_at, body FROM outbox ORDER BY namespace, stream, id"
        ).fetchall()
    return [(*row[:4], decoded(row[4])) for row in rows]


def test_a_backfill_tells_what_would_have_been_told(tmp_path: Path, frozen: FrozenClock) -> None:
    """Two stores live the same life, one with its remote from the first day on: in the end their events are the same."""
    lives = []
    for early in (True, False):
        path = tmp_path / f"{early}.db"
        frozen.now = START
        with sessionstore.open(path) as store:
            if early:
                set_remote(store)
            make_history(store, 10)
            frozen.go(120)
            store.sweep()
            frozen.go(1)
            if not early:
                set_remote(store)
                store.outbox.backfill()
        lives.append(all_told(path))
    at_once, afterwards = lives
    assert len(at_once) == 10 + 10 + 4 + 2 + 1 + 1 + 3
    # The figure of session s0 comes after all sessions.
    assert sorted(at_once, key=repr) == sorted(afterwards, key=repr)
    conversations = [[each for each in life if each[4].get("name") != "hits"] for life in lives]
    assert conversations[0] == conversations[1], "in their order, stream by stream"


def test_a_backfill_with_messages_tells_their_words(tmp_path: Path, frozen: FrozenClock) -> None:
    lives = []
    for early in (True, False):
        path = tmp_path / f"{early}.db"
        frozen.now = START
        with sessionstore.open(path) as store:
            if early:
                set_remote(store, sync_messages=True)
            make_history(store)
            frozen.go(1)
            if not early:
                set_remote(store, sync_messages=True)
                store.outbox.backfill()
        lives.append([each for each in all_told(path) if each[4].get("name") != "hits"])
    assert lives[0] == lives[1]
    assert [each[2] for each in lives[0]].count(events.MESSAGE) == 15


def test_a_second_backfill_does_nothing(store: SessionStore, frozen: FrozenClock, dump: Any) -> None:
    make_history(store)
    frozen.go(1)
    set_remote(store)
    first = store.outbox.backfill()
    assert (first.sessions, first.more) == (6, False)
    assert first.events == len(told(store))
    before = dump()
    assert store.outbox.backfill() == sessionstore.BackfillReceipt(sessions=0, events=0, more=False)
    assert dump() == before


def test_a_backfill_leaves_out_what_was_told_since(store: SessionStore, frozen: FrozenClock) -> None:
    """Of a session that goes on, and of one that is new."""
    store.session("old", agent_id="a")
    store.append("old", "assistant", "before", input_tokens=1)
    frozen.go(1)
    set_remote(store)
    store.append("old", "assistant", "after", input_tokens=2)
    store.end("old")
    store.session("new")
    store.record("hits", 1)
    store.register_agent("a")
    live = told(store)
    store.outbox.backfill()
    added = [store.outbox.get(key) for key in keys_of(store)[len(live) :]]
    assert [(event.kind, event.body and event.body.get("attributes", {}).get("input_tokens")) for event in added if event] == [
        ("conversation_start", None),
        ("metric", 1),
    ]


@pytest.mark.parametrize("goes_away", [True, False])
def test_another_remote_hears_what_was_backfilled_to_the_one_before(
    store: SessionStore, frozen: FrozenClock, *, goes_away: bool
) -> None:
    make_history(store)
    frozen.go(1)
    set_remote(store)
    first = store.outbox.backfill()
    settle(store, "t", sent=tuple(claim(store, "t", 1000)))
    assert told(store) == []
    frozen.go(1)
    if goes_away:
        store.set_remote(None, replace=True)
        store.session("while there was none", agent_id="a")
        frozen.go(1)
    store.set_remote("https://other.example", replace=True)
    second = store.outbox.backfill()
    assert second.sessions == first.sessions + goes_away
    assert second.events >= first.events
    assert ("session:s0", "conversation_start") in told(store)


def test_a_backfill_needs_a_remote(store: SessionStore) -> None:
    with pytest.raises(sessionstore.ConfigError, match="remote"):
        store.outbox.backfill()


def test_a_limited_backfill_goes_on_where_it_stopped(store: SessionStore, frozen: FrozenClock) -> None:
    make_history(store, 7)
    frozen.go(1)
    set_remote(store)
    receipts = [store.outbox.backfill(limit=3) for _ in range(4)]
    assert [(receipt.sessions, receipt.more) for receipt in receipts] == [(3, True), (3, True), (2, False), (0, False)]
    starts = [stream for stream, kind in told(store) if kind == "conversation_start"]
    assert starts == [*(f"session:s{number}" for number in range(7)), "session:elsewhere"]
    assert sum(receipt.events for receipt in receipts) == len(told(store))


def test_a_long_session_is_told_in_parts(store: SessionStore, frozen: FrozenClock) -> None:
    """Neither the writer nor memory is held for long, whatever a session holds."""
    store.session("long", agent_id="a")
    lines = [sessionstore.NewMessage({"role": "assistant", "content": "x"}, output_tokens=number) for number in range(4_500)]
    store.append_many("long", lines)
    store.end("long")
    store.session("next")
    frozen.go(1)
    set_remote(store)
    steps = []
    while not steps or steps[-1].outcome == "more":
        steps.append(store._write(queries.backfill.step))
    assert [(step.sessions, step.events) for step in steps] == [(1, 2_001), (0, 2_000), (1, 502), (0, 0)]
    seqs = []
    with closing(sqlite3.connect(store.status().path or "")) as raw:
        for kind, body in raw.execute("SELECT kind, body FROM outbox WHERE stream = 'session:long' ORDER BY id"):
            seqs.append(json.loads(body)["attributes"]["seq"] if kind == "metric" else kind)
    assert seqs == ["conversation_start", *range(1, 4_501), "conversation_end"]


def test_a_session_that_is_deleted_in_the_midst_of_its_backfill_is_passed_over(
    store: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries.backfill, "_MOST_ROWS", 2)
    for name in ("a", "b"):
        store.session(name)
        for number in range(5):
            store.append(name, "assistant", "x", output_tokens=number)
    frozen.go(1)
    set_remote(store)
    store._write(queries.backfill.step)
    store.delete("a")
    assert store.outbox.backfill().sessions == 1
    kinds = [kind for stream, kind in told(store) if stream == "session:b"]
    assert kinds == ["conversation_start", *["metric"] * 5]


def test_long_messages_are_told_in_parts_and_no_session_begins_twice(
    store: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries.backfill, "_MOST_CHARS", 300)
    for name in ("a", "b", "c"):
        store.session(name)
        store.append_many(name, [{"role": "user", "content": "x" * 200}] * 2)
    frozen.go(1)
    set_remote(store, sync_messages=True)
    assert store.outbox.backfill().sessions == 3
    whole = ["conversation_start", "message", "message"]
    assert told(store) == [(f"session:{name}", kind) for name in "abc" for kind in whole]


def test_a_backfill_stops_when_the_outbox_is_half_full(store: SessionStore, frozen: FrozenClock) -> None:
    """It drops nothing and raises nothing; after a drain it goes on."""
    for number in range(300):
        store.record("x", number, attributes={"blank": "x" * 900})
    frozen.go(1)
    set_remote(store, max_outbox_bytes=SMALL, on_full="raise")
    added = 0
    rounds = 0
    while True:
        receipt = store.outbox.backfill()
        added += receipt.events
        rounds += 1
        if not receipt.more:
            break
        assert SMALL // 2 < store.outbox.stats().pending_bytes <= SMALL
        settle(store, "t", sent=tuple(claim(store, "t")))
    assert (added, store.outbox.stats().dropped) == (300, 0)
    assert rounds > 3


KILLED = """
import os, signal, sys
from sessionstore import open
from sessionstore.queries import backfill
from sessionstore.store import outbox

backfill._MOST_SESSIONS, backfill._MOST_ROWS = 2, 5
steps = int(sys.argv[2])

def die(_):
    global steps
    steps -= 1
    if not steps:
        os.kill(os.getpid(), signal.SIGKILL)

outbox.time.sleep = die
with open(sys.argv[1]) as store:
    print(store.outbox.backfill())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_backfill_that_is_killed_between_its_steps_neither_loses_nor_repeats(tmp_path: Path, frozen: FrozenClock) -> None:
    path, whole = tmp_path / "a.db", tmp_path / "whole.db"
    for each in (path, whole):
        frozen.now = START
        with sessionstore.open(each) as store:
            make_history(store, 9)
            frozen.go(1)
            set_remote(store)
    with sessionstore.open(whole) as store:
        store.outbox.backfill()
    kills = 0
    for steps in (1, 3, 50):
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(steps)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills == 2
    assert done.returncode == 0, done.stderr
    assert all_told(path) == all_told(whole)


# -- the asynchronous face


@pytest.mark.anyio
async def test_the_asynchronous_face_does_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        make_history(store)
        set_remote(store)
    async with sessionstore.aopen(path) as store:
        outbox = store.outbox
        receipt = await outbox.backfill(limit=100)
        stats = await outbox.stats()
        assert stats.pending == receipt.events > 0
        page = await outbox.list("pending", limit=2)
        event = await outbox.get(page.items[0].key)
        assert event is not None
        assert event.body is not None
        assert await outbox.erase("s0") == 3
        assert await outbox.purge(state="erased") == 3
        assert await outbox.requeue() == 0
        assert (await outbox.dead()).items == ()
        assert await store.in_namespace("other").outbox.erase("elsewhere", tell=False) == 1


def test_no_step_of_a_backfill_waits_long(monkeypatch: pytest.MonkeyPatch, store: SessionStore, frozen: FrozenClock) -> None:
    """Between steps others get their turn, but no more than that."""
    pauses: list[float] = []
    monkeypatch.setattr(outbox_calls.time, "sleep", pauses.append)
    make_history(store, 250)
    frozen.go(1)
    set_remote(store)
    store.outbox.backfill()
    assert pauses
    assert set(pauses) == {outbox_calls.BACKFILL_PAUSE}


# -- the command line


def say(capsys: pytest.CaptureFixture[str], store: SessionStore, *words: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a verb of `outbox`."""
    code = main(["--store", store.status().path or "", "outbox", *words])
    return (code, *capsys.readouterr())


def test_the_command_line_shows_how_deliveries_stand_and_what_to_do(store: SessionStore, capsys: Any) -> None:
    code, out, err = say(capsys, store)
    assert (code, "remote         -" in out, "no remote is set" in err) == (0, True, True)
    set_remote(store)
    for name in ("first", "second"):
        store.record("x", 1, session_id=name)
    (first, _) = claim(store, "t")
    trouble = Trouble("unauthorized", 401, paused="auth")
    settle(store, "t", refused=(Refusal(first, 422, "no", final=True),), trouble=trouble)
    code, out, err = say(capsys, store)
    assert code == 0
    shown = dict(line.rsplit("  ", 1) for line in out.splitlines())
    assert {name.strip(): value for name, value in shown.items()}.items() >= {"pending": "1", "dead": "1", "paused": "auth"}.items()
    assert "key" in err
    assert "1 event given up" in err
    told_as_json = json.loads(say(capsys, store, "--json")[1])
    assert (told_as_json["paused"], told_as_json["last_status"], told_as_json["dead"]) == ("auth", 401, 1)
    assert set(told_as_json) == {field.name for field in fields(OutboxStats)}


@pytest.mark.parametrize("paused", ["auth", "config", "redirect", "certificate"])
def test_the_command_line_knows_what_to_do_about_every_pause(store: SessionStore, capsys: Any, paused: Any) -> None:
    set_remote(store)
    store.record("x", 1)
    claim(store, "t")
    settle(store, "t", trouble=Trouble("trouble", paused=paused))
    assert "deliveries pause: the remote" in say(capsys, store)[2]


def test_the_command_line_lists_and_shows_events(store: SessionStore, capsys: Any) -> None:
    assert say(capsys, store, "list") == (0, "", "the outbox is empty\n")
    set_remote(store)
    store.session("s", agent_id="helper", metadata={"evil": "\x1b[31m"})
    store.record("x", 1)
    store.record("x", 2, session_id="s")
    code, out, err = say(capsys, store, "list", "--limit", "2")
    assert [line.split()[4:6] for line in out.splitlines()[1:]] == [
        ["conversation_start", "session:s"],
        ["metric", "metrics"],
    ]
    cursor = err.removeprefix("more: --cursor ").strip()
    code, out, err = say(capsys, store, "list", "--json", "--limit", "2", "--cursor", cursor)
    (last,) = map(json.loads, out.splitlines())
    assert (code, last["kind"], last["stream"], "body" in last, err) == (0, "metric", "session:s", False, "")
    assert say(capsys, store, "list", "--state", "dead") == (0, "", "no event matches\n")
    assert len(say(capsys, store, "list", "--session", "s", "--kind", "metric")[1].splitlines()) == 2
    key = keys_of(store)[0]
    code, out, _ = say(capsys, store, "show", key)
    assert code == 0
    assert '"agent_id": "helper"' in out
    assert "\x1b" not in out
    assert json.loads(say(capsys, store, "show", key, "--json")[1])["body"]["metadata"] == {"evil": "\x1b[31m"}
    code, out, err = say(capsys, store, "show", "absent")
    assert (code, out, err.startswith("error: there is no event 'absent'")) == (1, "", True)


def test_the_command_line_retries_what_it_is_told_to(store: SessionStore, capsys: Any) -> None:
    set_remote(store)
    store.session("s")
    store.record("x", 1)
    store.record("x", 2)
    keys = bury(store)
    assert say(capsys, store, "retry", keys[1])[2] == "1 event will be delivered again\n"
    assert say(capsys, store, "retry", "--kind", "conversation_start")[2] == "1 event will be delivered again\n"
    assert keys_of(store, "pending") == keys[:2]
    assert say(capsys, store, "retry", "--all")[0] == 0
    assert keys_of(store, "dead") == []
    assert say(capsys, store, "retry", "--all")[2] == "no such event was given up\n"


def test_the_command_line_purges_only_if_it_is_sure(store: SessionStore, capsys: Any) -> None:
    set_remote(store)
    store.record("x", 1)
    bury(store)
    store.record("x", 2)
    assert say(capsys, store, "purge")[0] == 2
    assert say(capsys, store, "purge", "--older-than", "1d", "--yes")[2] == "0 events purged\n"
    assert say(capsys, store, "purge", "--yes")[2] == "1 event purged\n"
    assert say(capsys, store, "purge", "--state", "pending", "--yes")[2] == "1 event purged\n"
    assert told(store) == []


@pytest.mark.parametrize(
    "words",
    [
        ["retry"],
        ["retry", "key", "--all"],
        ["retry", "--all", "--kind", "metric"],
        ["list", "--kind", "nonsense"],
        ["list", "--cursor", "nonsense"],
        ["purge", "--older-than", "2999-01-01", "--yes"],
        ["purge", "--older-than", "soon", "--yes"],
        ["--json", "list"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_one_line(store: SessionStore, capsys: Any, words: list[str]) -> None:
    code, out, err = say(capsys, store, *words)
    assert (code, out, err.count("\n"), err.startswith("error: ")) == (2, "", 1, True)


def test_the_command_line_backfills_what_was_before_the_remote(store: SessionStore, capsys: Any) -> None:
    store.session("before", agent_id="helper")
    store.record("before", 1)
    assert say(capsys, store, "backfill")[0] == 1
    set_remote(store)
    assert say(capsys, store, "backfill")[2] == "2 events of 1 session wait for their delivery\n"
    assert say(capsys, store, "backfill")[2] == "0 events of 0 sessions wait for their delivery\n"
    assert len(keys_of(store, "pending")) == 2
