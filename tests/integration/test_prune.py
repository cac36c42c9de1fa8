"""Pruning: what is old, too much or too large goes, and nothing else does."""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import START, FrozenClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import InvalidInputError, SessionStore, clock
from sessionstore.queries import subscription
from sessionstore.remote.settings import Remote

HELLO = {"role": "user", "content": "hello"}


@pytest.fixture
def in_memory() -> Iterator[SessionStore]:
    """A store for many examples; each uses a namespace of its own."""
    with sessionstore.open(in_memory=True) as opened:
        yield opened


@pytest.fixture
def aged(store: SessionStore, frozen: FrozenClock) -> SessionStore:
    """Sessions s0 to s9, changed 900 down to 0 seconds ago, each with one message of ten bytes."""
    for number in range(10):
        store.session(f"s{number}", tags=["t"]).append("user", "ten bytes!")
        frozen.go(100 if number < 9 else 0)
    return store


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"s{number}" for number in numbers)


def left(store: SessionStore) -> tuple[str, ...]:
    """The live sessions, by name."""
    return tuple(sorted(info.session_id for info in store.list(archived=None, limit=1000)))


# -- what goes


def test_what_was_not_changed_for_a_time_goes(aged: SessionStore) -> None:
    receipt = aged.prune(max_age=timedelta(seconds=500))
    assert (receipt.session_ids, receipt.messages, receipt.missing, receipt.dry_run) == (names(0, 1, 2, 3), 4, (), False)
    assert left(aged) == names(4, 5, 6, 7, 8, 9)
    assert aged.prune(max_age=499.5).session_ids == names(4)


def test_an_append_or_a_change_makes_a_session_young(aged: SessionStore) -> None:
    aged.append("s0", HELLO)
    aged.update("s1", title="t")
    assert aged.prune(max_age=50).session_ids == names(2, 3, 4, 5, 6, 7, 8)


def test_the_last_changed_ones_stay_when_there_are_too_many(aged: SessionStore) -> None:
    aged.append("s2", HELLO)
    assert aged.prune(max_sessions=3).session_ids == names(0, 1, 3, 4, 5, 6, 7)
    assert left(aged) == names(2, 8, 9)
    assert aged.prune(max_sessions=3).session_ids == ()
    assert aged.prune(max_sessions=0).sessions == 3


def test_the_last_changed_ones_stay_when_they_are_too_large(aged: SessionStore) -> None:
    assert aged.prune(max_bytes=45, dry_run=True).session_ids == names(0, 1, 2, 3, 4, 5)
    aged.append("s9", "user", "x" * 25)
    assert aged.prune(max_bytes=45).session_ids == names(0, 1, 2, 3, 4, 5, 6, 7)


def test_a_session_that_alone_is_too_large_goes_and_smaller_ones_stay(aged: SessionStore) -> None:
    aged.append("s9", "user", "x" * 1000)
    assert aged.prune(max_bytes=100).session_ids == names(9)


def test_bytes_are_those_of_the_texts_in_utf8_and_of_what_stands_beside_them(store: SessionStore, store_path: Path) -> None:
    chat = store.session("s")
    chat.append("user", "äöü€\U0001f600\0x")
    chat.append("assistant", [{"type": "text", "text": "é"}], model="m", metadata={"k": "ü"})
    chat.append("assistant", None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}])
    with closing(sqlite3.connect(store_path)) as raw:
        stored = raw.execute("SELECT text, extra, facts FROM messages").fetchall()
    size = sum(len(text.encode()) for row in stored for text in row if text is not None)
    assert store.prune(max_bytes=size, dry_run=True).sessions == 0
    assert store.prune(max_bytes=size - 1, dry_run=True).sessions == 1


def test_bytes_are_those_of_all_that_goes_with_a_session(store: SessionStore) -> None:
    def size() -> int:
        """The least `max_bytes` that lets it stay."""
        fits = range(1 << 20)
        return bisect_left(fits, True, key=lambda most: not store.prune(max_bytes=most, dry_run=True).session_ids)

    chat = store.session("s", user_id="u")
    chat.append("user", "x" * 10)
    assert size() == 10
    chat.replace_range(1, 1, [{"role": "user", "content": "y"}])
    assert size() == 11
    chat.set_state({"é": "value"})
    assert size() == 11 + len('é"value"'.encode())
    chat.set_state({"theirs": "x" * 100}, scope="user")
    chat.fork("fork")
    assert store.prune(max_bytes=11 + 2 * 9, dry_run=True).sessions == 0, "what forks share counts once"
    store.delete("fork")
    chat.append("user", random.Random(7).randbytes(100_000).hex())
    with_blob = size()
    assert with_blob > 50_000
    chat.replace_range(2, 2, [])
    assert size() == with_blob, "a replaced message keeps its blobs"
    chat.clear_superseded()
    assert size() == 10


def test_all_rules_hold_at_once(aged: SessionStore) -> None:
    aged.append("s9", "user", "x" * 15)
    assert aged.prune(max_age=650, max_sessions=5, max_bytes=1000, dry_run=True).session_ids == names(0, 1, 2, 3, 4)
    assert aged.prune(max_age=250, max_sessions=5, max_bytes=1000, dry_run=True).session_ids == names(0, 1, 2, 3, 4, 5, 6)
    assert aged.prune(max_age=650, max_sessions=5, max_bytes=40, dry_run=True).session_ids == names(0, 1, 2, 3, 4, 5, 6, 7)


def test_sessions_of_every_status_count(aged: SessionStore, frozen: FrozenClock) -> None:
    aged.end("s1")
    aged.archive("s2")
    aged.create("overdue", ttl=10)
    aged.create("swept", ttl=5)
    frozen.go(5)
    aged.sweep()
    frozen.go(5)
    assert aged.prune(max_sessions=6).session_ids == names(0, 3, 4, 5, 6, 7)
    assert left(aged) == names(1, 2, 8, 9)
    assert aged.count(status="expired") == 2
    frozen.go(100)
    assert set(aged.prune(max_age=50).session_ids) == {*names(1, 2, 8, 9), "overdue", "swept"}


def test_pinned_sessions_are_spared_and_take_their_room_first(aged: SessionStore, frozen: FrozenClock) -> None:
    for session_id in names(0, 5):
        aged.pin(session_id)
    frozen.go(1)
    for number in (1, 2, 3, 4, 6, 7, 8, 9):
        aged.update(f"s{number}", title="t")
        frozen.go(1)
    assert aged.prune(max_sessions=4, dry_run=True).session_ids == names(1, 2, 3, 4, 6, 7)
    assert aged.prune(max_bytes=40, dry_run=True).session_ids == names(1, 2, 3, 4, 6, 7)
    frozen.go(1000)
    assert aged.prune(max_age=1).session_ids == names(1, 2, 3, 4, 6, 7, 8, 9)
    assert aged.prune(max_sessions=0).session_ids == ()
    assert left(aged) == names(0, 5)


def test_other_namespaces_stay(aged: SessionStore) -> None:
    team = aged.in_namespace("team")
    team.session("s0").append(HELLO)
    assert aged.prune(max_sessions=0).sessions == 10
    assert left(team) == ("s0",)
    assert team.prune(max_bytes=0).session_ids == ("s0",)


def test_what_is_pruned_is_gone_with_all_that_belongs_to_it(aged: SessionStore, dump: Callable[[], dict[str, list[Any]]]) -> None:
    aged._write(lambda db: subscription.set_remote(db, Remote("https://collector.example")))
    aged.prune(max_sessions=0)
    rows = dump()
    assert [rows[table] for table in ("sessions", "messages", "session_tags", "outbox")] == [[], [], [], []]
    assert aged.session("s0").messages() == []
    assert aged.doctor().ok


def test_hundreds_go_in_several_transactions(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(130):
        store.create(f"s{number:03}")
    frozen.go(10)
    receipt = store.prune(max_age=5)
    assert receipt.session_ids == tuple(f"s{number:03}" for number in range(130))
    assert store.count() == 0


def test_sessions_with_many_messages_go_in_small_transactions(store: SessionStore, frozen: FrozenClock) -> None:
    """The messages count: 2,000 in a transaction; a session that has more goes alone."""
    for number in range(7):
        store.session(f"s{number}").append_many([HELLO] * (2_001 if number == 3 else 600))
        frozen.go(1)
    commits = store.status().commits
    receipt = store.prune(max_sessions=0)
    assert (receipt.sessions, receipt.messages) == (7, 6 * 600 + 2_001)
    assert store.status().commits == commits + 3


def test_words_of_many_messages_go_in_small_transactions(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("large").append_many([HELLO] * 1_200)
    store.session("kept").append(HELLO)
    store.rebuild_search()
    frozen.go(1)
    store.touch("kept")
    commits = store.status().commits
    assert store.prune(max_sessions=1).session_ids == ("large",)
    assert store.status().commits == commits + 3
    assert [hit.session_id for hit in store.search("hello")] == ["kept"]
    assert store.doctor().ok


def test_a_batch_of_small_sessions_is_fifty(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(101):
        store.create(f"s{number}")
    frozen.go(10)
    commits = store.status().commits
    assert store.prune(max_age=5).sessions == 101
    assert store.status().commits == commits + 3


# -- a dry run


@pytest.mark.parametrize("rules", [{"max_age": 450}, {"max_sessions": 4}, {"max_bytes": 45}, {"max_age": 1, "max_bytes": 10**9}])
def test_a_dry_run_tells_the_same_and_does_nothing(aged: SessionStore, dump: Callable[[], object], rules: dict[str, Any]) -> None:
    before, commits = dump(), aged.status().commits
    told = aged.prune(**rules, dry_run=True)
    assert (dump(), aged.status().commits) == (before, commits)
    assert told.dry_run
    done = aged.prune(**rules)
    assert (told.session_ids, told.messages) == (done.session_ids, done.messages)
    assert not done.dry_run
    assert done.sessions > 0


def test_nothing_to_prune_writes_nothing(aged: SessionStore, dump: Callable[[], object]) -> None:
    before, commits = dump(), aged.status().commits
    assert aged.prune(max_age=10**6, max_sessions=10, max_bytes=10**6).session_ids == ()
    assert (dump(), aged.status().commits) == (before, commits)


# -- what happens between choosing and deleting

USES: dict[str, Callable[[SessionStore], object]] = {
    "append": lambda store: store.append("s1", HELLO),
    "touch": lambda store: store.touch("s1"),
    "update": lambda store: store.update("s1", title="t"),
    "tag": lambda store: store.tag("s1", "u"),
    "pin": lambda store: store.pin("s1"),
    "pop": lambda store: store.pop("s1"),
    "clear": lambda store: store.clear("s1"),
    "end": lambda store: store.end("s1"),
    "rename": lambda store: store.rename("s1", "other"),
}


@pytest.mark.parametrize("use", USES)
def test_a_session_that_is_used_meanwhile_stays(
    aged: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    aged.set_ttl("s1", 10**6)
    frozen.go(100)
    meanwhile(aged, monkeypatch, lambda: (frozen.go(1), USES[use](aged)))
    receipt = aged.prune(max_age=50)
    assert set(receipt.session_ids) == set(names(0, 2, 3, 4, 5, 6, 7, 8, 9))
    assert receipt.messages == 9
    assert left(aged) == (("other",) if use == "rename" else ("s1",))


def meanwhile(store: SessionStore, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once a prune has chosen."""
    choose = store._surplus

    def choose_and_act(rules: Any) -> Any:
        chosen = choose(rules)
        action()
        return chosen

    monkeypatch.setattr(store, "_surplus", choose_and_act)


def test_a_session_that_is_made_anew_meanwhile_stays(
    aged: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_anew() -> None:
        aged.delete("s1")
        aged.session("s1").append("user", "new")

    frozen.go(100)
    meanwhile(aged, monkeypatch, make_anew)
    assert "s1" not in aged.prune(max_age=50).session_ids
    assert [message.text for message in aged.messages("s1")] == ["new"]


def test_a_read_meanwhile_saves_nobody(aged: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen.go(100)
    meanwhile(aged, monkeypatch, lambda: (aged.get("s1"), aged.messages("s1")))
    assert aged.prune(max_age=50).sessions == 10


# -- arguments


@pytest.mark.parametrize(
    ("given_rules", "field"),
    [
        ({}, "max_age"),
        ({"dry_run": True}, "max_age"),
        *(({"max_age": age}, "max_age") for age in (0, -1, math.nan, math.inf, True, "1", 10**20, timedelta(0), timedelta.max)),
        *(({"max_sessions": count}, "max_sessions") for count in (-1, 1.0, True, "1", 2**63)),
        *(({"max_bytes": size}, "max_bytes") for size in (-1, 1.0, True, "1", 2**63)),
        *(({"max_age": 1, "dry_run": flag}, "dry_run") for flag in (1, 0, None, "yes")),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_goes(
    aged: SessionStore, dump: Callable[[], object], given_rules: dict[str, Any], field: str
) -> None:
    before = dump()
    with pytest.raises(InvalidInputError) as caught:
        aged.prune(**given_rules)
    assert caught.value.field == field
    assert dump() == before


def test_a_read_only_store_tells_what_would_go_and_prunes_nothing(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db") as store, sessionstore.open(tmp_path / "a.db", read_only=True) as reading:
        store.create("s")
        assert reading.prune(max_sessions=0, dry_run=True).session_ids == ("s",)
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            reading.prune(max_sessions=0)


# -- against a plain model


@dataclass
class ModelSession:
    """What the rules look at."""

    name: str
    changed: int
    pinned: bool
    size: int


def surplus(sessions: list[ModelSession], now: int, age: int | None, count: int | None, size: int | None) -> set[str]:
    """The rules in other words: pinned ones stay; then each one, the last changed first, stays if there is room for it."""
    kept = [session for session in sessions if session.pinned]
    others = sorted((session for session in sessions if not session.pinned), key=lambda session: -session.changed)
    for session in others:
        held = [*kept, session]
        fits = (
            (age is None or now - session.changed <= age)
            and (count is None or len(held) <= count)
            and (size is None or sum(each.size for each in held) <= size)
        )
        if fits:
            kept = held
    return {session.name for session in sessions if session not in kept}


session_shapes = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.lists(st.integers(0, 9), max_size=3)), max_size=8)


@settings(max_examples=80, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=session_shapes,
    used_again=st.lists(st.integers(0, 7), max_size=3),
    age=st.none() | st.integers(1, 20),
    count=st.none() | st.integers(0, 8),
    size=st.none() | st.integers(0, 60),
)
def test_what_goes_is_what_a_plain_model_says(
    in_memory: SessionStore,
    frozen: FrozenClock,
    shapes: list[tuple[int, bool, list[int]]],
    used_again: list[int],
    age: int | None,
    count: int | None,
    size: int | None,
) -> None:
    if age is count is size is None:
        return
    frozen.now = START
    ticks = itertools.count(1)
    store = in_memory.in_namespace(clock.new_id())
    model: list[ModelSession] = []

    def tick(seconds: int = 1) -> int:
        return int((frozen.go(seconds) - START).total_seconds())

    for number, (gap, pinned, texts) in enumerate(shapes):
        now = tick(gap + 1)
        chat = store.session(f"s{number}", pinned=pinned)
        chat.append_many([{"role": "user", "content": "x" * length} for length in texts])
        model.append(ModelSession(f"s{number}", now, pinned, sum(texts)))
    for number in used_again:
        if number < len(model):
            model[number].changed = tick(next(ticks))
            store.append(f"s{number}", "user", "y")
            model[number].size += 1
    now = tick()
    expected = surplus(model, now, age, count, size)
    told = store.prune(max_age=age, max_sessions=count, max_bytes=size, dry_run=True)
    done = store.prune(max_age=age, max_sessions=count, max_bytes=size)
    assert set(told.session_ids) == set(done.session_ids) == expected
    assert (
        told.session_ids
        == done.session_ids
        == tuple(session.name for session in sorted(model, key=lambda session: session.changed) if session.name in expected)
    )
    assert set(left(store)) == {session.name for session in model} - expected


# -- the async face


@pytest.mark.anyio
async def test_the_async_prune_does_the_same(tmp_path: Path, frozen: FrozenClock) -> None:
    async with sessionstore.aopen(tmp_path / "a.db") as store:
        for number in range(5):
            await (await store.session(f"s{number}")).append(HELLO)
            frozen.go(1)
        assert (await store.prune(max_sessions=2, dry_run=True)).session_ids == names(0, 1, 2)
        receipt = await store.prune(max_sessions=2)
        assert (receipt.session_ids, receipt.messages) == (names(0, 1, 2), 3)
        assert await store.count() == 2
        with pytest.raises(InvalidInputError):
            await store.prune()
