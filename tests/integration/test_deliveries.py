"""Claims and settlements in a real file: who holds which streams, for how long, and what is stored of each delivery."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import SessionStore, clock, queries, sql
from sessionstore.remote.events import AGENT_STATUS, ERASE, Event, session_stream
from sessionstore.remote.settlement import MAX_ATTEMPTS, QueuedEvent, Refusal, Settlement, Trouble

LEASE = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LARGE = 1 << 20


@pytest.fixture
def told(store: SessionStore, frozen: FrozenClock) -> Iterator[SessionStore]:
    """A store with a remote, and a clock that stands still."""
    store.set_remote("http://127.0.0.1:9")
    yield store
    # There is nobody to deliver to.
    store.close(drain_timeout=0)


def enqueue(store: SessionStore, *streams: str, text: str = "") -> None:
    """An event for each of these sessions, in this order."""
    at = sessionstore.clock.utc_now()
    made = [Event(AGENT_STATUS, session_stream(name), store.namespace, at, {"agent_id": "a", "x": text}) for name in streams]
    store._write(lambda db: queries.outbox.enqueue(db, made))


def claim(
    store: SessionStore, token: str, most: int = 500, most_bytes: int = LARGE, *, lease: timedelta = LEASE
) -> list[QueuedEvent]:
    return store._claim(token, most, most_bytes, lease) or []


def streams(claimed: Iterable[QueuedEvent]) -> list[str]:
    return [each.stream.removeprefix("session:") for each in claimed]


def settle(
    store: SessionStore, token: str, sent: Sequence[QueuedEvent] = (), refused: Sequence[Refusal] = (), *, over: bool = True,
    trouble: Trouble | None = None,
) -> int:  # fmt: skip
    """Store what became of a claim; returns how many events were somebody else's by then."""
    return store._settle(
        Settlement(token=token, sent_before=7, sent=tuple(sent), refused=tuple(refused), over=over, trouble=trouble)
    )


def refusal(event: QueuedEvent, **changes: Any) -> Refusal:
    return Refusal(event, 400, "no", timedelta(seconds=30))._replace(**changes)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def test_a_claim_takes_the_oldest_events_in_their_order(told: SessionStore) -> None:
    enqueue(told, "a", "b", "a", "c")
    claimed = claim(told, "t", most=3)
    assert streams(claimed) == ["a", "b", "a"]
    assert [each.id for each in claimed] == sorted(each.id for each in claimed)
    assert {each.attempts for each in claimed} == {0}


def test_two_claims_never_share_a_stream(told: SessionStore) -> None:
    enqueue(told, "a", "b", "a", "c", "b", "d")
    assert streams(claim(told, "first", most=2)) == ["a", "b"]
    assert streams(claim(told, "second")) == ["c", "d"]
    assert claim(told, "third") == []


def test_the_same_name_in_two_namespaces_is_two_streams(told: SessionStore) -> None:
    enqueue(told, "a")
    claim(told, "first")
    event = Event(AGENT_STATUS, session_stream("a"), "other", sessionstore.clock.utc_now(), {"agent_id": "a"})
    told._write(lambda db: queries.outbox.enqueue(db, [event]))
    assert [each.namespace for each in claim(told, "second")] == ["other"]


def test_a_stream_keeps_its_order_across_claims(told: SessionStore) -> None:
    enqueue(told, *"ababab")
    seen: list[QueuedEvent] = []
    while claimed := claim(told, "t", most=2):
        seen += claimed
        settle(told, "t", claimed)
    assert [each.id for each in seen] == sorted(each.id for each in seen)
    assert len(seen) == 6


def test_a_claim_has_at_most_so_many_bytes_but_never_nothing(told: SessionStore) -> None:
    enqueue(told, "a", "b", "c", text="x" * 1_000)
    assert streams(claim(told, "one", most_bytes=10)) == ["a"]
    assert streams(claim(told, "two", most_bytes=2_500)) == ["b", "c"]


def test_an_event_beyond_the_bytes_holds_no_later_and_smaller_one_before_it(told: SessionStore) -> None:
    enqueue(told, "a")
    enqueue(told, "a", text="x" * 1_000)
    enqueue(told, "a")
    assert [each.size_bytes < 1_000 for each in claim(told, "t", most_bytes=500)] == [True]


def test_a_hold_ends_by_itself(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b")
    claim(told, "killed")
    frozen.go(LEASE - timedelta(seconds=1))
    assert claim(told, "early") == []
    frozen.go(1)
    assert streams(claim(told, "next")) == ["a", "b"]


@pytest.mark.fault("F5")
def test_who_lost_a_hold_changes_nothing_any_more(told: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b", "c")
    late = claim(told, "late")
    frozen.go(LEASE)
    (a, b, _) = claim(told, "next")
    assert settle(told, "late", late[:1], [refusal(late[1], final=True), refusal(late[2])]) == 3
    assert told.outbox.stats().sent == 0
    assert {each.state for each in told.outbox.list().items} == {"pending"}
    assert rows(store_path, "SELECT DISTINCT token FROM outbox_holds") == [("next",)]
    assert settle(told, "next", [a, b]) == 0
    assert told.outbox.stats().sent == 2


@pytest.mark.fault("F38")
def test_what_was_purged_before_a_late_sender_was_answered_counts_once(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b")
    late = claim(told, "late")
    frozen.go(LEASE + timedelta(seconds=1))
    assert told.outbox.purge(state="pending", older_than=1) == 2
    enqueue(told, "c")
    (c,) = claim(told, "late")
    assert settle(told, "late", [*late, c]) == 2
    stats = told.outbox.stats()
    assert (stats.sent, stats.dropped, stats.pending) == (1, 2, 0)


@pytest.mark.fault("F5")
def test_who_was_late_but_alone_settles_all_the_same(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a")
    claimed = claim(told, "t")
    frozen.go(LEASE * 3)
    assert settle(told, "t", claimed) == 0
    assert told.outbox.stats().pending == 0


def test_a_settlement_stores_what_was_sent_refused_and_given_up(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b", "c", "d")
    a, b, c, _ = claim(told, "t")
    settle(told, "t", [a], [refusal(b), refusal(c, final=True, counts=False, status=None)])
    at = {each.stream: each for each in told.outbox.list().items}
    assert at.keys() == {"session:b", "session:c", "session:d"}
    waiting, dead, free = at.values()
    assert (waiting.state, waiting.attempts, waiting.last_status, waiting.last_error) == ("pending", 1, 400, "no")
    assert waiting.next_at == frozen.now + timedelta(seconds=30)
    assert (dead.state, dead.attempts, dead.settled_at, dead.next_at) == ("dead", 0, frozen.now, None)
    assert (free.state, free.attempts, free.lease_until) == ("pending", 0, None)
    assert streams(claim(told, "next")) == ["d"]
    frozen.go(30)
    (again,) = claim(told, "later")
    assert (again.stream, again.attempts, again.last_status, again.sent_before) == ("session:b", 1, 400, 7)


def test_an_event_waits_with_all_that_follow_it_in_its_stream(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "a", "b")
    first, *_ = claim(told, "t")
    settle(told, "t", [], [refusal(first)])
    enqueue(told, "a")
    assert streams(claim(told, "next")) == ["b"]
    frozen.go(30)
    assert streams(claim(told, "later")) == ["a", "a", "a"]


def test_the_20th_refusal_is_the_last(told: SessionStore) -> None:
    enqueue(told, "a", "a")
    for times in range(1, MAX_ATTEMPTS + 1):
        first, *_ = claim(told, "t")
        assert first.attempts == times - 1
        settle(told, "t", [], [refusal(first, wait=timedelta(0))])
    assert [each.attempts for each in told.outbox.dead().items] == [MAX_ATTEMPTS]
    assert told.outbox.stats().pending == 1


def test_a_settlement_in_the_middle_keeps_the_other_streams_held(told: SessionStore) -> None:
    enqueue(told, "a", "b")
    a, b = claim(told, "t")
    settle(told, "t", [a], over=False)
    assert claim(told, "other") == []
    assert settle(told, "t", [b]) == 0
    enqueue(told, "a", "b")
    assert streams(claim(told, "other")) == ["a", "b"]


def test_the_next_claim_comes_in_the_transaction_that_settles(told: SessionStore) -> None:
    enqueue(told, "a", "b", "a")
    first = claim(told, "t", most=2)
    commits = told._database.writer.commits
    done = Settlement(token="t", sent_before=0, sent=tuple(first), over=True)
    assert streams(told._settle_and_claim(done, 500, LARGE, LEASE)) == ["a"]
    assert told._database.writer.commits == commits + 1
    assert claim(told, "other") == []


def test_what_is_released_is_free_at_once(told: SessionStore) -> None:
    enqueue(told, "a", "b")
    claim(told, "t")
    told._release("t")
    assert streams(claim(told, "next")) == ["a", "b"]


def test_of_a_stream_whose_request_may_still_arrive_only_the_news_of_an_erasure_waits(
    told: SessionStore, frozen: FrozenClock, store_path: Path
) -> None:
    enqueue(told, "a", "b")
    claim(told, "t")
    told._release("t", frozen.now + MINUTE)
    others = claim(told, "next")
    assert streams(others) == ["a", "b"]
    settle(told, "next", others[1:])
    assert told.outbox.erase("a") == 1
    assert claim(told, "after") == []
    frozen.go(MINUTE)
    (news,) = claim(told, "after")
    assert news.kind == ERASE
    assert rows(store_path, "SELECT * FROM outbox_unanswered") == [("", "session:b", clock.to_text(frozen.now))]


@pytest.mark.parametrize(("lease", "until"), [(LEASE, MINUTE / 2), (MINUTE / 2, LEASE)])
def test_an_erased_session_is_told_of_after_the_last_request_that_may_arrive(
    told: SessionStore, frozen: FrozenClock, lease: timedelta, until: timedelta
) -> None:
    """Whether that is the one of who holds its stream now, or of one before."""
    told.create("chat", agent_id="a")
    claim(told, "before")
    told._release("before", frozen.now + until)
    claim(told, "now", lease=lease)
    told.erase("chat")
    frozen.go(max(lease, until) - timedelta(milliseconds=1))
    assert claim(told, "after") == []
    frozen.go(timedelta(milliseconds=1))
    assert [event.kind for event in claim(told, "after")] == [ERASE]


def test_a_request_of_a_shorter_timeout_hides_no_other_one_that_may_still_arrive(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a")
    for until in (MINUTE / 2, MINUTE, MINUTE / 2):
        claim(told, "t")
        told._release("t", frozen.now + until)
    told.outbox.erase("a")
    frozen.go(MINUTE - timedelta(milliseconds=1))
    assert claim(told, "after") == []
    frozen.go(timedelta(milliseconds=1))
    assert [event.kind for event in claim(told, "after")] == [ERASE]


def test_what_was_noted_of_requests_is_forgotten_when_they_cannot_arrive_any_more(
    told: SessionStore, frozen: FrozenClock, store_path: Path
) -> None:
    for stream in ("a", "b", "c"):
        enqueue(told, stream)
        claim(told, "t")
        told._release("t", frozen.now + MINUTE)
        claim(told, "purged")
        told._release("purged")
        told.outbox.purge(state="pending")
        frozen.go(MINUTE)
    assert rows(store_path, "SELECT stream FROM outbox_unanswered") == [("session:c",)]


def test_a_note_of_a_clock_that_was_ahead_holds_no_news(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a")
    claim(told, "t")
    told._release("t", frozen.now + timedelta(days=30))
    told.outbox.erase("a")
    assert [event.kind for event in claim(told, "next")] == [ERASE]


def test_an_event_that_was_erased_while_it_was_sent_stays_erased(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b")
    claimed = claim(told, "t")
    assert told.outbox.erase("a", tell=False) == 1
    assert settle(told, "t", claimed) == 1
    (erased,) = told.outbox.list().items
    assert (erased.stream, erased.state, erased.size_bytes) == ("session:a", "erased", 0)
    assert told.outbox.stats().sent == 1
    # The request may still be on its way: nothing else of the stream overtakes it.
    enqueue(told, "a")
    assert claim(told, "next") == []
    frozen.go(LEASE)
    assert streams(claim(told, "next")) == ["a"]


def test_a_second_erasure_lets_nothing_overtake_what_is_still_on_its_way(told: SessionStore, frozen: FrozenClock) -> None:
    """Or the remote would have, after the news of it, what was erased."""
    enqueue(told, "a")
    claim(told, "t")
    for _ in range(2):
        told.outbox.erase("a", tell=True)
        assert claim(told, "next") == []
    frozen.go(LEASE)
    assert streams(claim(told, "next")) == ["a", "a"]


def test_an_erased_event_does_not_come_back_by_a_refusal(told: SessionStore) -> None:
    enqueue(told, "a")
    (event,) = claim(told, "t")
    told.outbox.erase("a", tell=False)
    assert settle(told, "t", [], [refusal(event)]) == 1
    assert [each.state for each in told.outbox.list().items] == ["erased"]


# What is held.


def test_a_claim_that_finds_nothing_takes_no_lock(told: SessionStore, store_path: Path) -> None:
    enqueue(told, *["a"] * 50)
    claim(told, "first", most=10)
    with closing(sqlite3.connect(store_path, isolation_level=None)) as other:
        # Nobody can write now.
        other.execute("BEGIN IMMEDIATE")
        assert claim(told, "second") == []


def test_the_transaction_that_claims_does_not_pass_what_is_held(told: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the lock it reads what it claims, however much is held before and between."""
    enqueue(told, *["a"] * 2_000, "b", *["a"] * 2_000, "c")
    claim(told, "first", most=10)
    steps = 0
    current = queries.deliveries.claim

    def counted(db: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal steps

        def tick() -> int:
            nonlocal steps
            steps += 1
            return 0

        db.driver.set_progress_handler(tick, 100)
        try:
            return current(db, *arguments, **options)
        finally:
            db.driver.set_progress_handler(None, 0)

    monkeypatch.setattr(queries.deliveries, "claim", counted)
    assert streams(claim(told, "second")) == ["b", "c"]
    assert steps < 20


def test_a_claim_that_was_too_late_says_that_there_may_be_more(told: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue(told, "a", "b")
    current = queries.deliveries.claimable
    monkeypatch.setattr(queries.deliveries, "claimable", lambda db, token, most: current(db, token, most)[:1])
    found = [1]
    monkeypatch.setattr(queries.deliveries, "claimable", lambda *_: found)
    assert streams(claim(told, "first", most=1)) == ["a"]
    # It looked before the first one claimed.
    assert told._claim("second", 1, LARGE, LEASE) is None
    found = []
    assert told._claim("second", 1, LARGE, LEASE) == []


def test_the_claim_after_a_settlement_is_a_full_one(told: SessionStore) -> None:
    enqueue(told, *"abcdef")
    first = claim(told, "t", most=3)
    done = Settlement(token="t", sent_before=0, sent=tuple(first), over=True)
    assert streams(told._settle_and_claim(done, 3, LARGE, LEASE)) == ["d", "e", "f"]


def test_the_claim_after_a_settlement_passes_a_few_that_are_held(told: SessionStore) -> None:
    enqueue(told, "a", "held", *["held"] * 5, "b", "a", "c")
    first = claim(told, "t", most=1)
    assert streams(claim(told, "other", most=1)) == ["held"]
    done = Settlement(token="t", sent_before=0, sent=tuple(first), over=True)
    assert streams(told._settle_and_claim(done, 3, LARGE, LEASE)) == ["b", "a", "c"]


def test_the_claim_after_a_settlement_leaves_what_is_behind_many_that_are_held_to_a_search_without_the_lock(
    told: SessionStore,
) -> None:
    enqueue(told, "a", *["held"] * 50, "b", "c")
    first = claim(told, "t", most=1)
    claim(told, "other", most=1)
    done = Settlement(token="t", sent_before=0, sent=tuple(first), over=True)
    assert told._settle_and_claim(done, 5, LARGE, LEASE) == []
    assert told.outbox.stats().sent == 1
    assert streams(claim(told, "t")) == ["b", "c"]


def test_the_claim_after_a_settlement_passes_a_gap_behind_an_event_that_waits(told: SessionStore) -> None:
    enqueue(told, "waits", *["gone"] * 60, "b")
    first, *gone = claim(told, "t", most=61)
    settle(told, "t", [], [refusal(first)], over=False)
    done = Settlement(token="t", sent_before=0, sent=tuple(gone), over=True)
    assert streams(told._settle_and_claim(done, 1, LARGE, LEASE)) == ["b"]


def test_the_claim_after_a_settlement_takes_what_there_is_if_nothing_is_behind_it(told: SessionStore) -> None:
    enqueue(told, "a", *["held"] * 10, "b")
    first = claim(told, "t", most=1)
    claim(told, "other", most=1)
    done = Settlement(token="t", sent_before=0, sent=tuple(first), over=True)
    assert streams(told._settle_and_claim(done, 5, LARGE, LEASE)) == ["b"]


def test_the_claim_after_a_settlement_of_all_there_is_finds_nothing(told: SessionStore) -> None:
    enqueue(told, "a", "b")
    done = Settlement(token="t", sent_before=0, sent=tuple(claim(told, "t")), over=True)
    assert told._settle_and_claim(done, 5, LARGE, LEASE) == []
    assert told._settle_and_claim(Settlement(token="t", sent_before=0, over=True), 5, LARGE, LEASE) == []


def test_a_claim_after_a_settlement_reads_no_more_than_it_may_hold(told: SessionStore) -> None:
    told.session("first")
    for number in range(4):
        told.record("x", number, attributes={"blank": "x" * 900}, session_id=f"s{number}")
    done = Settlement(token="t", sent_before=0, over=True)
    assert len(told._settle_and_claim(done, 100, 2_500, LEASE)) == 3
    assert len(told._settle_and_claim(done, 2, LARGE, LEASE)) == 2


def test_the_claim_after_a_settlement_finds_its_events_by_the_index_of_those_that_wait(store_path: Path) -> None:
    """However many dead ones stand before them."""
    sessionstore.open(store_path).close()
    with closing(sqlite3.connect(store_path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql.CLAIM_OLDEST}", (9, "", "", "", 1))]
    assert plan[0] == "SEARCH outbox USING INDEX ix_outbox_waiting (id<?)"
    assert not any("TEMP B-TREE" in step for step in plan)


def test_leases_and_waits_are_told_apart(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b")
    first, _ = claim(told, "t")
    outlook = told._outlook()
    assert (outlook.is_leased, outlook.waits_until, outlook.free_at) == (True, None, frozen.now + LEASE)
    settle(told, "t", [], [refusal(first)])
    outlook = told._outlook()
    wait = frozen.now + timedelta(seconds=30)
    assert (outlook.is_leased, outlook.waits_until, outlook.free_at) == (False, wait, wait)


# Clocks.


@pytest.mark.fault("F32")
def test_a_clock_that_was_years_ahead_holds_nothing_longer_than_an_hour(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a", "b", "c")
    frozen.go(days=3_650)
    a, b, _ = claim(told, "ahead")
    settle(told, "ahead", [], [refusal(a, wait=HOUR)], over=False, trouble=Trouble("gone", base=10.0**6))
    assert told._outlook().failures == 1
    frozen.go(days=-3_650)
    outlook = told._outlook()
    assert (outlook.retry_at, outlook.free_at) == (None, None)
    assert streams(claim(told, "now")) == ["a", "b", "c"]
    assert settle(told, "ahead", [b]) == 1


@pytest.mark.fault("F32")
@pytest.mark.parametrize("jump", [timedelta(minutes=-5), timedelta(hours=-25), timedelta(days=-3_650), timedelta(days=3_650)])
def test_however_the_clock_is_set_a_hold_is_over_within_the_hour(told: SessionStore, frozen: FrozenClock, jump: timedelta) -> None:
    enqueue(told, "a", "b")
    first, second = claim(told, "t")
    settle(told, "t", [], [refusal(first, wait=HOUR), refusal(second, wait=timedelta(minutes=20))])
    frozen.go(jump)
    got = streams(claim(told, "at once"))
    frozen.go(HOUR)
    assert {*got, *streams(claim(told, "later"))} == {"a", "b"}


@pytest.mark.fault("F32")
def test_a_pause_from_a_clock_that_was_ahead_is_over(told: SessionStore, frozen: FrozenClock) -> None:
    frozen.go(days=3_650)
    told._note_trouble(Trouble("HTTP 401", 401, "auth"))
    frozen.go(days=-3_650)
    assert told._outlook().retry_at is None
    told._note_trouble(Trouble("HTTP 401", 401, "auth"))
    outlook = told._outlook()
    assert outlook.retry_at is not None
    assert frozen.now < outlook.retry_at <= frozen.now + HOUR
    assert outlook.failing_since == frozen.now


# Counters.


def test_trouble_is_kept_until_something_is_delivered(told: SessionStore, frozen: FrozenClock) -> None:
    enqueue(told, "a")
    began = frozen.now
    for _ in range(3):
        told._note_trouble(Trouble("HTTP 503", 503, None, timedelta(seconds=90)))
        frozen.go(60)
    stats = told.outbox.stats()
    assert (stats.failures, stats.failing_since, stats.last_status, stats.last_error) == (3, began, 503, "HTTP 503")
    assert stats.retry_at == frozen.now + timedelta(seconds=30)
    assert stats.paused is None
    settle(told, "t", claim(told, "t"))
    stats = told.outbox.stats()
    assert (stats.sent, stats.failures, stats.failing_since, stats.retry_at, stats.last_error) == (1, 0, None, None, None)
    assert stats.last_sent_at == frozen.now


def test_trouble_costs_no_event_an_attempt(told: SessionStore) -> None:
    enqueue(told, "a", "b")
    claim(told, "t")
    settle(told, "t", trouble=Trouble("ConnectError"))
    assert [(each.attempts, each.last_status) for each in told.outbox.list().items] == [(0, None), (0, None)]
    assert streams(claim(told, "next")) == ["a", "b"]


def test_errors_are_kept_short(told: SessionStore) -> None:
    enqueue(told, "a")
    (event,) = claim(told, "t")
    settle(told, "t", [], [refusal(event, error="x" * 1_000)], trouble=Trouble("y" * 1_000))
    assert [len(each.last_error or "") for each in told.outbox.list().items] == [200]
    assert len(told.outbox.stats().last_error or "") == 200


def test_what_is_there_now_can_be_waited_for(told: SessionStore) -> None:
    enqueue(told, "a", "b")
    newest = told._outlook().newest
    assert newest is not None
    settle(told, "t", claim(told, "t", most=1))
    assert told._any_up_to(newest)
    settle(told, "t", claim(told, "t", most=1))
    enqueue(told, "c")
    assert not told._any_up_to(newest)


@pytest.mark.fault("F4")
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_claim_is_on_disk_before_anything_is_sent(store_path: Path, new_file: Path, durability: Any) -> None:
    """A power cut must not take back a claim whose events the remote knows already."""
    store_path.write_bytes(new_file.read_bytes())
    with sessionstore.open(store_path, durability=durability) as opened:
        opened.set_remote("http://127.0.0.1:9")
        enqueue(opened, "a", "b")
        driver = opened._database.writer._db.driver
        statements: list[str] = []
        driver.set_trace_callback(statements.append)
        (first,) = claim(opened, "t", most=1)
        ((level,),) = driver.execute("PRAGMA synchronous").fetchall()
        assert level == 2
        opened._settle_and_claim(Settlement(token="t", sent_before=0, sent=(first,), over=True), 1, LARGE, LEASE)
        assert "PRAGMA synchronous=NORMAL" not in statements
        opened._release("t")
        assert ("PRAGMA synchronous=NORMAL" in statements) is (durability == "normal")
        opened.close(drain_timeout=0)
