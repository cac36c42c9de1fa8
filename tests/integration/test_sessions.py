"""Sessions: making, changing, ending, listing and deleting them."""

from __future__ import annotations

import inspect
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NotFoundError, SessionHandle, SessionInfo, SessionStore, clock
from sessionstore.arguments import session_filter
from sessionstore.database.transaction import Transaction
from sessionstore.queries import catalog

START = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Callable[[], datetime]:
    """A clock that goes on by a second with each look; call it to see what it showed last."""
    shown = [START]

    def tick() -> datetime:
        shown[0] += timedelta(seconds=1)
        return shown[0]

    monkeypatch.setattr(clock, "utc_now", tick)
    return lambda: shown[0]


def ids(found: object) -> list[str]:
    return [info.session_id for info in found]  # type: ignore[attr-defined]


def expire(store: SessionStore, path: Path, *session_ids: str) -> None:
    """What the sweep of a later version will do; the store is closed."""
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for session_id in session_ids:
            connection.execute("UPDATE sessions SET status = 'expired' WHERE session_id = ?", (session_id,))


# -- making


def test_a_new_session_is_empty_and_open(store: SessionStore, ticking: Callable[[], datetime]) -> None:
    info = store.create("s")
    assert info == SessionInfo(
        namespace="",
        session_id="s",
        user_id=None,
        agent_id=None,
        title=None,
        status="open",
        pinned=False,
        tags=(),
        metadata={},
        version=1,
        message_count=0,
        last_seq=0,
        quality_score=None,
        error=None,
        created_at=info.created_at,
        updated_at=info.created_at,
        ended_at=None,
        archived_at=None,
        expires_at=None,
    )
    assert START < info.created_at <= ticking()
    assert store.get("s") == info


def test_a_session_keeps_the_attributes_that_it_was_made_with(store: SessionStore, store_path: Path) -> None:
    attributes: dict[str, Any] = {
        "user_id": "u",
        "agent_id": "a",
        "title": "Tïtle\0",
        "tags": ["b", "a", "b"],
        "metadata": {"k": [1, {"x": None}]},
        "pinned": True,
    }
    made = store.create("s", **attributes)
    assert (made.user_id, made.agent_id, made.title, made.tags, made.metadata, made.pinned) == (
        "u", "a", "Tïtle\0", ("a", "b"), {"k": [1, {"x": None}]}, True,
    )  # fmt: skip
    store.close()
    with sessionstore.open(store_path) as again:
        assert again.get("s") == made


def test_a_second_session_of_a_name_is_refused(store: SessionStore) -> None:
    first = store.create("s", title="first")
    with pytest.raises(ConflictError, match="'s'") as caught:
        store.create("s", title="second")
    assert caught.value.session_id == "s"
    assert store.get("s") == first


def test_session_gets_or_creates_and_does_not_change_what_is_there(store: SessionStore) -> None:
    chat = store.session("s", title="first", tags=["t"])
    before = store.get("s")
    again = store.session("s", title="second", tags=["other"], pinned=True, metadata={"a": 1})
    assert chat.session_id == again.session_id == "s"
    assert store.get("s") == before
    assert store.status().commits <= 3


def test_threads_that_ask_for_one_session_get_one(store: SessionStore) -> None:
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait(30)
        store.session("s").append("user", "x")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert store.count() == 1
    assert [message.seq for message in store.messages("s")] == list(range(1, 9))


def test_a_session_that_is_not_there_is_none(store: SessionStore) -> None:
    assert store.get("s") is None


MISSING: dict[str, Callable[[SessionStore], object]] = {
    "update": lambda store: store.update("s", title="x"),
    "end": lambda store: store.end("s"),
    "rename": lambda store: store.rename("s", "t"),
    "pin": lambda store: store.pin("s"),
    "archive": lambda store: store.archive("s"),
    "tag": lambda store: store.tag("s", "x"),
    "untag": lambda store: store.untag("s", "x"),
    "append": lambda store: store.append("s", "user", "x"),
    "append_many": lambda store: store.append_many("s", [{"role": "user", "content": "x"}]),
    "append_none": lambda store: store.append_many("s", []),
    "append_dedupe": lambda store: store.append("s", "user", "x", dedupe_key="k"),
    "messages": lambda store: store.messages("s"),
    "messages_pairs": lambda store: store.messages("s", keep_pairs=True),
    "iterate": lambda store: list(store.iterate("s")),
    "pop": lambda store: store.pop("s"),
    "truncate": lambda store: store.truncate("s", after=0),
    "clear": lambda store: store.clear("s"),
    "open_tool_calls": lambda store: store.open_tool_calls("s"),
    "check": lambda store: store.check("s"),
    "repair": lambda store: store.repair("s"),
}


@pytest.mark.parametrize("call", MISSING.values(), ids=MISSING)
def test_a_call_on_a_missing_session_says_so_and_makes_none(store: SessionStore, call: Callable[[SessionStore], object]) -> None:
    with pytest.raises(NotFoundError, match="'s'") as caught:
        call(store)
    assert caught.value.session_id == "s"
    assert isinstance(caught.value, KeyError)
    assert store.count(archived=None) == 0


# -- changing


def test_an_update_changes_what_is_named_only(store: SessionStore) -> None:
    before = store.create("s", title="t", user_id="u", agent_id="a", tags=["x"], metadata={"k": 1})
    after = store.update("s", title="new")
    assert (after.title, after.user_id, after.agent_id, after.tags, after.metadata) == ("new", "u", "a", ("x",), {"k": 1})
    assert after.version == before.version + 1
    assert after.updated_at >= before.updated_at
    assert after.created_at == before.created_at
    assert store.get("s") == after


def test_none_clears_and_collections_are_replaced(store: SessionStore) -> None:
    store.create("s", title="t", user_id="u", agent_id="a", tags=["x", "y"], metadata={"k": 1, "l": 2})
    replaced = store.update("s", tags=["z"], metadata={"m": "é"})
    assert (replaced.tags, replaced.metadata) == (("z",), {"m": "é"})
    cleared = store.update("s", title=None, user_id=None, agent_id=None, tags=(), metadata=None)
    assert (cleared.title, cleared.user_id, cleared.agent_id, cleared.tags, cleared.metadata) == (None, None, None, (), {})
    assert store.get("s") == cleared


def test_an_outdated_version_is_a_conflict(store: SessionStore) -> None:
    first = store.create("s")
    second = store.update("s", title="mine", expected_version=first.version)
    with pytest.raises(ConflictError, match="read it again") as caught:
        store.update("s", title="theirs", tags=["x"], expected_version=first.version)
    assert caught.value.session_id == "s"
    assert store.get("s") == second


def test_of_writers_with_one_version_one_wins(store: SessionStore) -> None:
    version = store.create("s").version
    won: list[str] = []
    barrier = threading.Barrier(6)

    def change(title: str) -> None:
        barrier.wait(30)
        try:
            store.update("s", title=title, expected_version=version)
        except ConflictError:
            return
        won.append(title)

    threads = [threading.Thread(target=change, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    info = store.get("s")
    assert info is not None
    assert won == [info.title]


def test_appends_do_not_change_the_version(store: SessionStore) -> None:
    version = store.create("s").version
    store.append("s", "user", "x")
    info = store.get("s")
    assert info is not None
    assert (info.version, info.message_count, info.last_seq) == (version, 1, 1)
    store.pop("s")
    info = store.get("s")
    assert info is not None
    assert (info.version, info.message_count, info.last_seq) == (version + 1, 0, 1)


def test_an_end_says_how_it_went(store: SessionStore, ticking: Callable[[], datetime]) -> None:
    store.create("s")
    ended = store.end("s", quality_score=5)
    assert (ended.status, ended.quality_score, ended.error, ended.expires_at) == ("completed", 5, None, None)
    assert ended.ended_at is not None
    assert START < ended.ended_at <= ticking()
    assert store.get("s") == ended
    failed = store.end("s", "failed", error="out of tokens")
    assert (failed.status, failed.quality_score, failed.error) == ("failed", 5, "out of tokens")


@pytest.mark.parametrize("score", [1, 2, 3, 4, 5])
def test_every_score_is_kept(store: SessionStore, score: int) -> None:
    store.create("s")
    assert store.end("s", quality_score=score).quality_score == score


def test_a_rename_keeps_everything_but_the_name(store: SessionStore) -> None:
    store.create("old", tags=["t"], metadata={"k": 1})
    store.append("old", "user", "x")
    renamed = store.rename("old", "new")
    assert renamed.session_id == "new"
    assert (renamed.tags, renamed.metadata, renamed.message_count) == (("t",), {"k": 1}, 1)
    assert store.get("old") is None
    (message,) = store.messages("new")
    assert (message.text, message.session_id) == ("x", "new")
    assert store.create("old").message_count == 0


def test_a_rename_does_not_take_a_name_that_is_taken(store: SessionStore) -> None:
    store.create("a", title="a")
    store.create("b", title="b")
    with pytest.raises(ConflictError) as caught:
        store.rename("a", "b")
    assert caught.value.session_id == "b"
    assert [info.title for info in (store.get("a"), store.get("b")) if info] == ["a", "b"]
    assert store.rename("a", "a").session_id == "a"


def test_pins_and_archives_go_on_and_off(store: SessionStore) -> None:
    store.create("s")
    assert store.pin("s").pinned
    assert not store.pin("s", False).pinned
    assert store.archive("s").archived_at is not None
    assert store.count() == 0
    assert store.messages("s") == []
    store.append("s", "user", "still writable")
    assert store.archive("s", False).archived_at is None
    assert store.count() == 1


def test_tags_are_added_and_removed(store: SessionStore) -> None:
    store.create("s", tags=["b"])
    assert store.tag("s", "c", "a", "b").tags == ("a", "b", "c")
    assert store.untag("s", "b", "x").tags == ("a", "c")
    assert store.untag("s", "a", "c").tags == ()


def test_tags_that_change_nothing_change_nothing(store: SessionStore) -> None:
    before = store.create("s", tags=["a"])
    assert store.tag("s", "a") == store.untag("s", "x") == store.tag("s") == before
    assert store.get("s") == before


def test_tags_are_counted(store: SessionStore) -> None:
    store.create("s", tags=["a", "b"])
    store.create("t", tags=["b"])
    store.in_namespace("other").create("u", tags=["c"])
    assert store.tags() == {"a": 1, "b": 2}
    store.delete("s")
    assert store.tags() == {"b": 1}


def test_all_sessions_may_have_a_hundred_tags_and_no_more(store: SessionStore) -> None:
    store.create("s", tags=[f"t{number:03}" for number in range(100)])
    with pytest.raises(InvalidInputError) as caught:
        store.update("s", tags=[f"t{number}" for number in range(101)])
    assert caught.value.limit == 100
    assert len(store.list().items[0].tags) == 100


# -- namespaces


def test_namespaces_keep_sessions_of_one_name_apart(store: SessionStore, store_path: Path) -> None:
    other = store.in_namespace("team")
    store.session("s").append("user", "mine")
    other.session("s").append("user", "theirs")
    assert [message.text for message in store.messages("s")] == ["mine"]
    assert [message.text for message in other.messages("s")] == ["theirs"]
    assert (store.count(), other.count()) == (1, 1)
    assert (store.namespace, other.namespace) == ("", "team")
    assert store.namespaces() == ("", "team")
    assert store.delete("s").sessions == 1
    assert other.get("s") is not None
    assert store.namespaces() == ("team",)
    with sessionstore.open(store_path, namespace="team") as third:
        info = third.get("s")
        assert info is not None
        assert info.namespace == "team"


def test_a_view_of_another_namespace_closes_with_its_store(store: SessionStore) -> None:
    other = store.in_namespace("team")
    other.close()
    assert store.count() == 0
    other = store.in_namespace("team")
    store.close()
    with pytest.raises(sessionstore.ClosedStoreError):
        other.count()


# -- listing


@pytest.fixture
def mixed(store: SessionStore, ticking: Callable[[], datetime]) -> SessionStore:
    """Six sessions that differ in everything that filters look at."""
    store.create(
        "a", agent_id="x", user_id="u", tags=["red"], metadata={"n": 1, "s": "1", "b": True, "z": None}, title="Alpha 100%"
    )
    store.create("b", agent_id="x", user_id="v", tags=["red", "blue"], metadata={"n": 1.5, "b": False})
    store.create("c", agent_id="y", user_id="u", tags=["blue"], metadata={"n": "1"}, pinned=True)
    store.create("d", metadata={"a.b": 2, "n": 2})
    store.create("e")
    store.create("f", user_id="u")
    store.append("d", "user", "A word_of Welcome")
    store.append("e", "user", [{"type": "text", "text": "in parts"}])
    store.end("e", "failed")
    store.end("f")
    store.archive("f")
    return store


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"a", "b", "c", "d", "e"}),
    ({"archived": None}, {"a", "b", "c", "d", "e", "f"}),
    ({"archived": True}, {"f"}),
    ({"agent_id": "x"}, {"a", "b"}),
    ({"agent_id": None}, {"d", "e"}),
    ({"user_id": "u"}, {"a", "c"}),
    ({"user_id": "u", "archived": None}, {"a", "c", "f"}),
    ({"user_id": "nobody"}, set()),
    ({"status": "open"}, {"a", "b", "c", "d"}),
    ({"status": "failed"}, {"e"}),
    ({"status": "completed", "archived": None}, {"f"}),
    ({"status": "expired"}, set()),
    ({"tag": "red"}, {"a", "b"}),
    ({"tag": ["red", "blue"]}, {"b"}),
    ({"tag": ("red", "none")}, set()),
    ({"pinned": True}, {"c"}),
    ({"pinned": False}, {"a", "b", "d", "e"}),
    ({"metadata": {"n": 1}}, {"a"}),
    ({"metadata": {"n": 1.0}}, {"a"}),
    ({"metadata": {"n": 1.5}}, {"b"}),
    ({"metadata": {"n": "1"}}, {"c"}),
    ({"metadata": {"b": True}}, {"a"}),
    ({"metadata": {"b": False}}, {"b"}),
    ({"metadata": {"b": 1}}, set()),
    ({"metadata": {"z": None}}, {"a"}),
    ({"metadata": {"missing": None}}, set()),
    ({"metadata": {"a.b": 2}}, {"d"}),
    ({"metadata": {"n": 1, "s": "1"}}, {"a"}),
    ({"text": "alpha"}, {"a"}),
    ({"text": "100%"}, {"a"}),
    ({"text": "%"}, {"a"}),
    ({"text": "word_of"}, {"d"}),
    ({"text": "wordxof"}, set()),
    ({"text": "WELCOME"}, {"d"}),
    ({"text": "in parts"}, {"e"}),
    ({"text": "\\"}, set()),
    ({"agent_id": "x", "user_id": "v", "tag": "red", "status": "open", "pinned": False}, {"b"}),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=[str(filters) for filters, _ in FILTERS])
def test_filters_choose_in_list_count_and_dry_delete(mixed: SessionStore, filters: dict[str, Any], expected: set[str]) -> None:
    assert set(ids(mixed.list(**filters))) == expected
    assert mixed.count(**filters) == len(expected)
    if any(value is not None for value in filters.values()):
        chosen = mixed.delete(dry_run=True, **{"archived": False, **filters})
        assert set(chosen.session_ids) == expected
    assert mixed.count(archived=None) == 6


def test_times_are_inclusive_at_the_start_and_exclusive_at_the_end(mixed: SessionStore) -> None:
    changed = {info.session_id: info.updated_at for info in mixed.list(archived=None)}
    for session_id, instant in changed.items():
        later = {other for other, at in changed.items() if at >= instant}
        assert set(ids(mixed.list(since=instant, archived=None))) == later
        assert set(ids(mixed.list(until=instant, archived=None))) == set(changed) - later
        assert ids(mixed.list(since=instant, until=instant + timedelta(microseconds=1), archived=None)) == [session_id]


def test_pages_of_expired_sessions_are_the_same_whether_these_are_few_or_many(
    store: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are looked up by their expiry, many are met by going through all."""
    for space in (store, store.in_namespace("other")):
        for number in range(20):
            space.create(f"s{number}", ttl=60 + number % 7, tags=["even"] if number % 2 == 0 else [], agent_id="a")
            space.create(f"live{number}", ttl=600, agent_id="a")
            frozen.go(number % 2)
    frozen.go(50)
    assert store.sweep(limit=9).expired == 9

    def found(**filters: Any) -> list[str]:
        names, cursor = [], None
        while True:
            page = store.list(status="expired", limit=3, cursor=cursor, **filters)
            names += [info.session_id for info in page]
            cursor = page.next_cursor
            if cursor is None:
                assert store.count(status="expired", **filters) == len(names)
                return names

    filters: list[dict[str, Any]] = [{}, {"tag": ["even"]}, {"agent_id": "a"}, {"pinned": False}]
    few = [found(**each) for each in filters]
    assert 9 < len(few[0]) == len(set(few[0])) <= 20
    assert not any(name.startswith("live") for name in few[0])
    assert set(few[1]) == {name for name in few[0] if int(name[1:]) % 2 == 0}
    monkeypatch.setattr(catalog, "_FEW_OVER", range(0))
    assert [found(**each) for each in filters] == few


@pytest.mark.parametrize(
    "filters",
    [{}, {"agent_id": "a"}, {"user_id": None}, {"tag": ["odd"]}, {"status": "expired"}, {"metadata": {"n": 1}}, {"archived": True}],
    ids=str,
)
def test_pages_by_a_tag_are_the_same_whether_few_or_many_have_it(
    store: SessionStore, frozen: FrozenClock, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    """Few are looked up by their tag; of many, those that changed last are met by going through all."""
    store.in_namespace("other").create("foreign", tags=["t", "odd"])
    for number in range(40):
        tags = ["odd"] * (number % 2) + ["t"] * (number % 3 > 0)
        owner = {"agent_id": "a"} if number % 5 else {"user_id": "u"}
        store.create(f"s{number}", tags=tags, metadata={"n": number % 4}, ttl=60 if number < 10 else 600, **owner)
        if number % 7 == 0:
            store.archive(f"s{number}")
        frozen.go(number % 2)
    frozen.go(50)
    wanted = {**filters, "tag": ["t", *filters.get("tag", [])]}

    def pages() -> list[list[str]]:
        found, cursor = [], None
        while True:
            page = store.list(limit=3, cursor=cursor, **wanted)
            found.append(ids(page))
            cursor = page.next_cursor
            if cursor is None:
                return found

    looked_up = pages()
    assert sum(map(len, looked_up)) == store.count(**wanted) == len({each for page in looked_up for each in page}) > 0
    monkeypatch.setattr(catalog, "_rare_tag", lambda *_: None)
    assert pages() == looked_up


@pytest.mark.parametrize(("filters", "index"), [({}, "updated"), ({"agent_id": "a"}, "agent"), ({"user_id": "u"}, "user")])
def test_a_page_by_a_common_tag_walks_an_index_in_the_order_of_change(
    store: SessionStore, filters: dict[str, Any], index: str
) -> None:
    wanted = session_filter("", tag="t", archived=False, **filters)

    def plan(db: Transaction) -> list[str]:
        text, values = catalog._page_query(catalog._terms(db, wanted), None)
        return [row[-1] for row in db.driver.execute("EXPLAIN QUERY PLAN " + text, [*values, 3])]

    steps = store._read(plan)
    assert f"USING COVERING INDEX ix_sessions_{index}" in steps[0]
    assert not any("TEMP B-TREE" in step for step in steps)


@pytest.mark.parametrize("namespace", ["", None])
def test_few_expired_sessions_are_found_by_their_indexes(store: SessionStore, namespace: str | None) -> None:
    wanted = session_filter(namespace, status="expired")

    def plan(db: Transaction) -> str:
        text, values = catalog._page_query(catalog._terms(db, wanted), catalog._few_over(db, wanted))
        return " ".join(row[-1] for row in db.driver.execute("EXPLAIN QUERY PLAN " + text, [*values, 3]))

    steps = store._read(plan)
    assert "ix_sessions_expired" in steps
    assert "ix_sessions_due (expires_at<?)" in steps
    assert "sessions USING INTEGER PRIMARY KEY" in steps


@pytest.mark.parametrize("filters", [{}, {"archived": None}, {"archived": True}, {"agent_id": "a"}])
def test_open_sessions_are_counted_by_their_index(store: SessionStore, filters: dict[str, Any]) -> None:
    statements: list[str] = []

    def count(db: Transaction) -> list[str]:
        db.driver.set_trace_callback(statements.append)
        catalog.count(db, session_filter("", status="open", **filters))
        db.driver.set_trace_callback(None)
        return [row[-1] for row in db.driver.execute("EXPLAIN QUERY PLAN " + statements[-1])]

    (step,) = store._read(count)
    assert "ix_sessions_open" in step


def test_expired_sessions_are_seen_only_if_asked_for(mixed: SessionStore, store_path: Path) -> None:
    expire(mixed, store_path, "a", "b")
    with sessionstore.open(store_path) as store:
        assert set(ids(store.list())) == {"c", "d", "e"}
        assert set(ids(store.list(status="expired"))) == {"a", "b"}
        assert store.get("a") is None
        assert store.tags() == {"blue": 1}
        assert store.create("a").message_count == 0
        assert store.count(status="expired") == 2


def test_what_changed_last_comes_first(mixed: SessionStore) -> None:
    assert ids(mixed.list())[:2] == ["e", "d"]
    mixed.update("a", title="changed")
    assert ids(mixed.list())[0] == "a"
    mixed.append("b", "user", "x")
    assert ids(mixed.list())[:2] == ["b", "a"]


def pages(store: SessionStore, limit: int, **filters: Any) -> Iterator[list[str]]:
    cursor = None
    while True:
        page = store.list(limit=limit, cursor=cursor, **filters)
        yield ids(page)
        cursor = page.next_cursor
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 1_000])
def test_pages_together_are_the_whole_list(mixed: SessionStore, limit: int) -> None:
    whole = ids(mixed.list(archived=None))
    found = list(pages(mixed, limit, archived=None))
    assert [one for page in found for one in page] == whole
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1]


def test_sessions_of_one_instant_are_paged_completely(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "utc_now", lambda: START)
    for number in range(25):
        store.create(f"s{number:02}", tags=["t"])
    found = [one for page in pages(store, 4, tag="t") for one in page]
    assert found == [f"s{number:02}" for number in reversed(range(25))]


def test_paging_is_complete_and_without_repeats_while_sessions_change(store: SessionStore, ticking: Callable[[], datetime]) -> None:
    """A session that changes moves to the front, behind the reader; all others are seen once."""
    for number in range(60):
        store.create(f"s{number:02}")
    seen: list[str] = []
    changed: set[str] = set()
    for turn, page in enumerate(pages(store, 7)):
        seen += page
        store.append(page[0], "user", "a session that was shown")
        ahead = f"s{turn * 3:02}"
        if ahead not in seen:
            store.append(ahead, "user", "a session that was not")
            changed.add(ahead)
        store.create(f"new{turn}")
        store.delete(page[-1])
    assert len(seen) == len(set(seen))
    assert {f"s{number:02}" for number in range(60)} - changed <= set(seen)
    assert changed


def test_a_list_holds_no_messages_but_all_facts(mixed: SessionStore) -> None:
    for info in mixed.list(archived=None):
        assert info == mixed.get(info.session_id)


def test_an_empty_store_has_an_empty_page(store: SessionStore) -> None:
    page = store.list()
    assert (page.items, page.next_cursor, store.count(), store.tags(), store.namespaces()) == ((), None, 0, {}, ())


# -- deleting


def test_a_delete_takes_messages_and_tags_with_it(store: SessionStore, dump: Callable[[], dict[str, list[Any]]]) -> None:
    empty = dump()
    store.session("s", tags=["a", "b"]).append_many([{"role": "user", "content": "x"}] * 3)
    receipt = store.delete("s")
    assert (receipt.session_ids, receipt.messages, receipt.missing, receipt.dry_run) == (("s",), 3, (), False)
    after = dump()
    for table in ("sessions", "messages", "session_tags"):
        assert after[table] == empty[table] == []
    assert store.get("s") is None


def test_a_deleted_session_does_not_come_back_under_its_name(store: SessionStore) -> None:
    store.session("s").append("user", "old")
    store.delete("s")
    assert store.session("s").messages() == []
    assert store.append("s", "user", "new").seq == 1


def test_many_are_deleted_at_once_and_the_missing_named(store: SessionStore) -> None:
    for number in range(1_200):
        store.create(f"s{number:04}")
    wanted = [f"s{number:04}" for number in range(0, 1_200, 2)]
    receipt = store.delete(["zzz", *reversed(wanted), "s0000", "missing", "zzz"])
    assert receipt.session_ids == tuple(wanted)
    assert receipt.missing == ("zzz", "missing")
    assert receipt.sessions == 600
    assert store.count() == 600
    assert store.delete(iter(["s0001"])).sessions == 1


def test_a_delete_of_nothing_is_nothing(store: SessionStore) -> None:
    store.create("s")
    assert store.delete([]).sessions == 0
    assert store.delete("missing").missing == ("missing",)
    assert store.count() == 1


def test_a_delete_by_filter_takes_archived_ones_unless_told(mixed: SessionStore) -> None:
    assert set(mixed.delete(user_id="u", dry_run=True).session_ids) == {"a", "c", "f"}
    receipt = mixed.delete(user_id="u", archived=False)
    assert receipt.session_ids == ("a", "c")
    assert set(ids(mixed.list(archived=None))) == {"b", "d", "e", "f"}


def test_a_dry_run_tells_the_same_and_does_nothing(mixed: SessionStore, dump: Callable[[], object]) -> None:
    before = dump()
    told = mixed.delete(["d", "e", "missing"], dry_run=True)
    assert dump() == before
    assert told.dry_run
    done = mixed.delete(["d", "e", "missing"])
    assert (told.session_ids, told.messages, told.missing) == (done.session_ids, done.messages, done.missing)
    assert done.messages == 2


# -- handles


def test_a_handle_offers_the_calls_of_its_store(store: SessionStore) -> None:
    chat = store.session("s", tags=["t"])
    assert (chat.session_id, chat.store) == ("s", store)
    assert chat.append("user", "x").seq == 1
    assert [message.seq for message in chat.append_many([{"role": "assistant", "content": "y"}])] == [2]
    assert chat.messages(last=1) == store.messages("s", last=1)
    assert list(chat.iterate()) == store.messages("s")
    assert chat.pop() is not None
    assert chat.truncate(after=1) == 0
    assert chat.clear() == 1
    assert chat.update(title="T").title == "T"
    assert chat.tag("u").tags == ("t", "u")
    assert chat.untag("u").tags == ("t",)
    assert chat.pin().pinned
    assert chat.archive().archived_at is not None
    assert chat.check().ok
    assert chat.open_tool_calls() == ()
    assert chat.repair() == []
    assert chat.end("failed", error="e").status == "failed"
    assert chat.get() == store.get("s")


def test_a_handle_follows_its_rename_and_another_does_not(store: SessionStore) -> None:
    chat, other = store.session("s"), store.session("s")
    chat.rename("t")
    assert chat.session_id == "t"
    chat.append("user", "x")
    with pytest.raises(NotFoundError):
        other.append("user", "x")
    store.create("u")
    with pytest.raises(ConflictError):
        chat.rename("u")
    assert chat.session_id == "t"


def test_a_handle_says_whether_it_deleted(store: SessionStore) -> None:
    chat = store.session("s")
    assert chat.delete()
    assert not chat.delete()
    assert chat.get() is None


def test_a_handle_has_the_signatures_of_its_store() -> None:
    for name in ("append", "messages", "truncate", "update", "end"):
        bound = list(inspect.signature(getattr(SessionHandle, name)).parameters.values())
        own = [one for one in inspect.signature(getattr(SessionStore, name)).parameters.values() if one.name != "session_id"]
        assert bound == own
        assert getattr(SessionHandle, name).__doc__ == getattr(SessionStore, name).__doc__


def test_a_handle_dies_with_its_store(store: SessionStore) -> None:
    chat = store.session("s")
    store.close()
    with pytest.raises(sessionstore.ClosedStoreError):
        chat.append("user", "x")
    assert "'s'" in repr(chat)


def test_none_as_an_owner_chooses_the_sessions_without_one(store: SessionStore) -> None:
    """A lost login must not show or delete what belongs to others."""
    store.create("alices", user_id="alice", agent_id="helper")
    store.create("nobodys")
    assert [info.session_id for info in store.list(user_id=None)] == ["nobodys"]
    assert store.count(agent_id=None) == 1
    assert store.delete(user_id=None).session_ids == ("nobodys",)
    assert store.get("alices") is not None


def test_a_misspelt_argument_is_a_type_error_that_names_the_right_ones(store: SessionStore) -> None:
    store.create("s")
    for call in (
        lambda: store.list(tags="vip"),  # type: ignore[call-arg]
        lambda: store.create("x", user="alice"),  # type: ignore[call-arg]
        lambda: store.append("s", "user", "x", tokens=3),  # type: ignore[call-arg]
        lambda: store.quality(session_id="s"),  # type: ignore[call-arg]
        lambda: store.tokens(namespace="x"),  # type: ignore[call-arg]
        lambda: store.timer("x", session="s"),  # type: ignore[call-arg]
        lambda: store.track(name="x"),  # type: ignore[call-overload]
    ):
        with pytest.raises(TypeError, match=r"there is no argument .*; there are"):
            call()


def test_an_empty_search_text_is_refused(store: SessionStore) -> None:
    store.create("s")
    for text in ("", " "):
        with pytest.raises(InvalidInputError, match="text"):
            store.delete(text=text)
    assert store.count() == 1


def test_a_read_only_store_stays_so_beside_a_writing_one(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db") as writing, sessionstore.open(tmp_path / "a.db", read_only=True) as reading:
        writing.session("s").append("user", "x")
        with pytest.raises(sessionstore.ReadOnlyStoreError):
            reading.append("s", "user", "y")
        assert reading.status().read_only
        assert len(reading.messages("s")) == 1


def test_a_view_of_a_namespace_closes_with_its_store(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db") as other:
        store = sessionstore.open(tmp_path / "a.db")
        view = store.in_namespace("n")
        store.close()
        with pytest.raises(sessionstore.ClosedStoreError):
            view.count()
        assert other.count() == 0


def test_a_repeated_end_keeps_what_it_does_not_name(store: SessionStore) -> None:
    store.create("s")
    store.end("s", "failed", quality_score=2, error="timeout")
    again = store.end("s", "failed")
    assert (again.quality_score, again.error) == (2, "timeout")


def test_a_file_that_is_replaced_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sessionstore.open(path) as store:
        store.create("s")
        path.rename(tmp_path / "moved.db")
        with pytest.raises(sessionstore.StoreOpenError):
            store.get("s")
        assert not path.exists()
