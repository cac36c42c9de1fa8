"""How long sessions live: what slides their expiry, what it hides at which instant, and how a life ends otherwise."""

from __future__ import annotations

import inspect
import io
import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import START, FrozenClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import (
    ConfigError,
    ConflictError,
    InvalidInputError,
    NewMessage,
    NotFoundError,
    SessionExpiredError,
    SessionHandle,
    SessionInfo,
    SessionStore,
    clock,
)
from sessionstore.formats import native
from sessionstore.queries import outbox, subscription
from sessionstore.remote.settings import Remote

TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}
HELLO = {"role": "user", "content": "hello"}
REMOTE = "https://collector.example"

in_checkout = pytest.mark.skipif(
    not (Path(__file__).parents[2] / "alembic.ini").is_file(), reason="alembic.ini is not in the installed package"
)


@pytest.fixture
def in_memory() -> Iterator[SessionStore]:
    """A store for many examples; each uses names of its own."""
    with sessionstore.open(in_memory=True) as opened:
        yield opened


def set_remote(store: SessionStore) -> None:
    store._write(lambda db: subscription.set_remote(db, Remote(REMOTE)))


def events(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The kinds and bodies of what waits for the remote, in order."""
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT kind, body FROM outbox ORDER BY id").fetchall()
    return [(kind, json.loads(body)) for kind, body in rows]


def expires_at(store: SessionStore, session_id: str) -> datetime | None:
    info = store.get(session_id)
    assert info is not None
    return info.expires_at


def ids(found: object) -> list[str]:
    return sorted(info.session_id for info in found)  # type: ignore[attr-defined]


def exported(store: SessionStore, **filters: Any) -> bytes:
    target = io.BytesIO()
    store.export_file(target, **filters)
    return target.getvalue()


# -- what slides a life


USES: dict[str, Callable[[SessionHandle], object]] = {
    "append": lambda chat: chat.append("user", "x"),
    "append_many": lambda chat: chat.append_many([HELLO, HELLO]),
    "repair": lambda chat: chat.repair(),
    "touch": lambda chat: chat.touch(),
    "get with touch": lambda chat: chat.get(touch=True),
    "messages with touch": lambda chat: chat.messages(touch=True),
    "messages with touch and pairs": lambda chat: chat.messages(touch=True, keep_pairs=True),
    "reopen": lambda chat: chat.reopen(),
    "pin and unpin": lambda chat: (chat.pin(), chat.pin(False)),
    "set_ttl": lambda chat: chat.set_ttl(3600),
}
READS: dict[str, Callable[[SessionHandle], object]] = {
    "get": lambda chat: chat.get(),
    "messages": lambda chat: chat.messages(),
    "messages in pairs": lambda chat: chat.messages(keep_pairs=True),
    "iterate": lambda chat: list(chat.iterate()),
    "check": lambda chat: chat.check(),
    "open_tool_calls": lambda chat: chat.open_tool_calls(),
    "remaining": lambda chat: chat.remaining(),
    "list": lambda chat: chat.store.list(),
    "count": lambda chat: chat.store.count(text="x"),
    "tags": lambda chat: chat.store.tags(),
    "export": lambda chat: exported(chat.store),
    "session": lambda chat: chat.store.session(chat.session_id, ttl=9),
}
CHANGES: dict[str, Callable[[SessionHandle], object]] = {
    "update": lambda chat: chat.update(title="t"),
    "tag": lambda chat: chat.tag("u"),
    "untag": lambda chat: chat.untag("t"),
    "archive": lambda chat: chat.archive(),
    "rename": lambda chat: (chat.rename("other"), chat.rename("s")),
    "pop": lambda chat: chat.pop(),
    "truncate": lambda chat: chat.truncate(after=1),
    "clear": lambda chat: chat.clear(),
    "append_many of nothing": lambda chat: chat.append_many([]),
    "a repeated append": lambda chat: chat.append("user", "once", dedupe_key="k"),
    "a repeated batch": lambda chat: chat.append_many([NewMessage({"role": "user", "content": "once"}, dedupe_key="k")]),
}


def living_session(store: SessionStore, **lives: Any) -> SessionHandle:
    chat = store.session("s", tags=["t"], **lives)
    chat.append("user", "once", dedupe_key="k")
    chat.append(CALL)
    return chat


@pytest.mark.parametrize("use", USES)
def test_a_use_begins_the_idle_time_anew(store: SessionStore, frozen: FrozenClock, use: str) -> None:
    chat = living_session(store, ttl=HOUR)
    assert expires_at(store, "s") == START + HOUR
    now = frozen.go(1234.5)
    USES[use](chat)
    assert expires_at(store, "s") == now + HOUR


@pytest.mark.parametrize("call", [*READS, *CHANGES])
def test_nothing_else_extends_a_life(store: SessionStore, frozen: FrozenClock, call: str) -> None:
    """Reads do not, nor do changes of attributes, removed messages, and appends that store nothing."""
    chat = living_session(store, ttl=HOUR, max_age=2 * HOUR)
    frozen.go(1234.5)
    {**READS, **CHANGES}[call](chat)
    assert expires_at(store, "s") == START + HOUR


@pytest.mark.parametrize("use", sorted(USES.keys() - {"set_ttl"}))
def test_no_use_moves_a_life_that_is_absolute(store: SessionStore, frozen: FrozenClock, use: str) -> None:
    chat = living_session(store, max_age=HOUR)
    frozen.go(1234.5)
    USES[use](chat)
    assert expires_at(store, "s") == START + HOUR


@pytest.mark.parametrize("use", sorted(USES.keys() - {"set_ttl"}))
def test_no_use_gives_a_life_to_a_session_without_one(store: SessionStore, frozen: FrozenClock, use: str) -> None:
    chat = living_session(store)
    frozen.go(1234.5)
    USES[use](chat)
    assert expires_at(store, "s") is None
    assert chat.remaining() is None


def test_the_shorter_of_both_lives_counts(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s", ttl=60, max_age=100)
    assert chat.remaining() == 60
    frozen.go(30)
    chat.append("user", "x")
    assert chat.remaining() == 60
    frozen.go(30)
    chat.append("user", "x")
    assert chat.remaining() == 40
    frozen.go(39)
    chat.append("user", "x")
    assert chat.remaining() == 1
    frozen.go(1)
    assert chat.get() is None


lives = st.none() | st.integers(1, 100_000).map(lambda number: number / 1000)


@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ttl=lives, max_age=lives, steps=st.lists(st.tuples(st.integers(0, 60_000), st.sampled_from(["use", "read"])), max_size=8))
def test_a_life_is_as_long_as_the_rules_say(
    in_memory: SessionStore, frozen: FrozenClock, ttl: float | None, max_age: float | None, steps: list[tuple[int, str]]
) -> None:
    """The same session as three numbers: when it began, when it was used last, and now."""
    frozen.now = begun = used = START
    chat = in_memory.session(clock.new_id(), ttl=ttl, max_age=max_age)
    for milliseconds, step in steps:
        now = frozen.go(timedelta(milliseconds=milliseconds))
        ends = [begin + timedelta(seconds=life) for begin, life in ((used, ttl), (begun, max_age)) if life is not None]
        if any(end <= now for end in ends):
            with pytest.raises(SessionExpiredError):
                chat.append("user", "x")
            assert chat.get() is None
            return
        if step == "use":
            chat.append("user", "x")
            used = now
        info = chat.get()
        assert info is not None
        ends = [begin + timedelta(seconds=life) for begin, life in ((used, ttl), (begun, max_age)) if life is not None]
        assert info.expires_at == min(ends, default=None)


# -- the instant at which it becomes invisible


def seen(store: SessionStore, session_id: str) -> dict[str, bool]:
    """Which reads find a session whose tag is `t`, which is the only one of its namespace."""
    chat = SessionHandle(store, session_id)
    return {
        "get": store.get(session_id) is not None,
        "get with touch": store.get(session_id, touch=True) is not None,
        "handle.get": chat.get() is not None,
        "list": ids(store.list()) == [session_id],
        "list of open ones": ids(store.list(status="open")) == [session_id],
        "list by tag": ids(store.list(tag="t")) == [session_id],
        "list by text": ids(store.list(text="hello", archived=None)) == [session_id],
        "count": store.count() == 1,
        "count of open ones": store.count(status="open") == 1,
        "delete by filter": store.delete(tag="t", dry_run=True).session_ids == (session_id,),
        "messages": found(chat.messages),
        "last message": found(lambda: chat.messages(last=1)),
        "messages with touch": found(lambda: chat.messages(touch=True)),
        "messages in pairs": found(lambda: chat.messages(keep_pairs=True)),
        "iterate": found(lambda: list(chat.iterate())),
        "check": found(chat.check),
        "open_tool_calls": found(chat.open_tool_calls),
        "remaining": found(chat.remaining),
        "tags": store.tags() == {"t": 1},
        "namespaces": store.namespace in store.namespaces(),
        "export by filter": b'"hello"' in exported(store, tag="t"),
        "export by id": found(lambda: exported(store, session_ids=session_id)),
    }


def found(read: Callable[[], object]) -> bool:
    try:
        read()
    except NotFoundError:
        return False
    return True


def shown_as_expired(store: SessionStore, session_id: str) -> set[bool]:
    """Whether each way of asking for expired sessions shows it."""
    page = store.list(status="expired")
    lines = [json.loads(line) for line in exported(store, status="expired").splitlines()]
    return {
        [(info.session_id, info.status) for info in page] == [(session_id, "expired")],
        store.count(status="expired") == 1,
        store.delete(status="expired", dry_run=True).session_ids == (session_id,),
        [line["status"] for line in lines if line.get("type") == native.SESSION] == ["expired"],
    }


microseconds = st.integers(1, 10**14)


@settings(max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    life=microseconds,
    absolute=st.booleans(),
    start=st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the zone is given
)
def test_a_session_is_there_until_the_last_microsecond_and_gone_at_its_expiry(
    in_memory: SessionStore, frozen: FrozenClock, life: int, absolute: bool, start: datetime
) -> None:
    frozen.now = start
    lives = {"max_age" if absolute else "ttl": timedelta(microseconds=life)}
    store = in_memory.in_namespace(clock.new_id())
    store.session("s", tags=["t"], **lives).append(HELLO)
    end = start + timedelta(microseconds=life)
    assert expires_at(store, "s") == end
    frozen.now = end - TICK
    if not absolute:
        # `seen` also touches, which would move the expiry.
        store.set_ttl("s", None, max_age=timedelta(microseconds=life))
    assert set(seen(store, "s").values()) == {True}, seen(store, "s")
    assert shown_as_expired(store, "s") == {False}
    frozen.now = end
    for swept in (False, True):
        assert set(seen(store, "s").values()) == {False}, seen(store, "s")
        assert shown_as_expired(store, "s") == {True}
        assert store.sweep(now=end).expired == (0 if swept else 1)


def test_an_overdue_session_is_told_as_it_will_be_after_the_sweep(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60).append(HELLO)
    frozen.go(3600)
    (before,) = store.list(status="expired")
    assert (before.status, before.ended_at, before.expires_at) == ("expired", START + timedelta(minutes=1), before.ended_at)
    store.sweep()
    assert store.list(status="expired").items == (before,)


def test_pages_of_expired_sessions_hold_swept_and_overdue_ones(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(10):
        store.create(f"s{number}", ttl=60 + number)
    frozen.go(65)
    store.sweep(limit=3)
    pages: list[str] = []
    cursor = None
    while cursor is not None or not pages:
        page = store.list(status="expired", limit=2, cursor=cursor)
        pages += ids(page)
        cursor = page.next_cursor
    assert sorted(pages) == [f"s{number}" for number in range(6)]
    assert ids(store.list(status="open")) == [f"s{number}" for number in range(6, 10)]
    assert store.count() == 4


# -- writes to a session whose life is over


WRITES: dict[str, Callable[[SessionStore], object]] = {
    "append": lambda store: store.append("s", "user", "x"),
    "append with a known dedupe key": lambda store: store.append("s", HELLO, dedupe_key="k"),
    "append_many": lambda store: store.append_many("s", [HELLO, HELLO]),
    "append_many of nothing": lambda store: store.append_many("s", []),
    "append_many with state": lambda store: store.append_many("s", [HELLO], state={"app": {"x": 1}}, expected_last_seq=2),
    "append_many of state only": lambda store: store.append_many("s", [], state={"session": {"x": 1}}),
    "update": lambda store: store.update("s", title="t"),
    "update with a version": lambda store: store.update("s", title="t", expected_version=1),
    "rename": lambda store: store.rename("s", "other"),
    "rename to itself": lambda store: store.rename("s", "s"),
    "pin": lambda store: store.pin("s"),
    "unpin": lambda store: store.pin("s", False),
    "archive": lambda store: store.archive("s"),
    "tag": lambda store: store.tag("s", "u"),
    "tag with one that it has": lambda store: store.tag("s", "t"),
    "untag": lambda store: store.untag("s", "t"),
    "pop": lambda store: store.pop("s"),
    "truncate": lambda store: store.truncate("s", after=0),
    "clear": lambda store: store.clear("s"),
    "repair": lambda store: store.repair("s"),
    "fork": lambda store: store.fork("s", "other"),
    "replace_range": lambda store: store.replace_range("s", 1, 1, [HELLO]),
    "clear_superseded": lambda store: store.clear_superseded("s"),
    "set_state": lambda store: store.set_state("s", {"n": 1}),
    "increment_state": lambda store: store.increment_state("s", "n"),
    "delete_state": lambda store: store.delete_state("s", "n"),
    "touch": lambda store: store.touch("s"),
    "set_ttl": lambda store: store.set_ttl("s", None),
    "reopen": lambda store: store.reopen("s"),
}
# Begin another session, or end or remove the old one.
OTHER_WRITES = {"create", "delete", "end", "erase", "import_file", "prune", "session", "sweep"}
NOT_ABOUT_ONE = {
    "branches", "check", "close", "count", "doctor", "export_file", "get", "get_state", "in_namespace", "iterate", "list",
    "messages", "namespace", "namespaces", "open_tool_calls", "parent", "remaining", "search", "search_raw", "state", "status",
    "superseded", "tags",
}  # fmt: skip


def test_every_write_of_the_handle_is_asked_below() -> None:
    """A call about one session that this list forgets would not be tested on an expired one."""
    names = {name for name, _ in inspect.getmembers(SessionHandle, callable) if not name.startswith("_")}
    asked = {name.split()[0] for name in WRITES}
    with_session_id = {name for name in names if "session_id" in inspect.signature(getattr(SessionStore, name)).parameters}
    assert with_session_id - asked - OTHER_WRITES - NOT_ABOUT_ONE - {"record", "timer"} == set()


@pytest.mark.parametrize("swept", [False, True], ids=["overdue", "swept"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_to_an_expired_session_raises_and_changes_nothing(
    store: SessionStore, frozen: FrozenClock, dump: Callable[[], object], write: str, swept: bool
) -> None:
    chat = store.session("s", ttl=60, tags=["t"])
    chat.append(HELLO, dedupe_key="k")
    chat.append(CALL)
    set_remote(store)
    frozen.go(60)
    if swept:
        assert store.sweep().expired == 1
    before = dump()
    with pytest.raises(SessionExpiredError) as caught:
        WRITES[write](store)
    assert caught.value.session_id == "s"
    assert dump() == before


@pytest.mark.parametrize("swept", [False, True], ids=["overdue", "swept"])
def test_an_expired_session_can_be_deleted(
    store: SessionStore, frozen: FrozenClock, dump: Callable[[], dict[str, Any]], swept: bool
) -> None:
    store.session("s", ttl=60, tags=["t"]).append(HELLO)
    frozen.go(60)
    if swept:
        store.sweep()
    told = store.delete("s", dry_run=True)
    done = store.delete("s")
    assert (told.session_ids, told.messages) == (done.session_ids, done.messages) == (("s",), 1)
    assert [dump()[table] for table in ("sessions", "messages", "session_tags")] == [[], [], []]
    with pytest.raises(NotFoundError):
        store.append("s", HELLO)


def test_a_name_without_any_session_is_not_found_rather_than_expired(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60)
    frozen.go(60)
    with pytest.raises(NotFoundError):
        store.append("t", HELLO)
    with pytest.raises(NotFoundError):
        store.in_namespace("team").append("s", HELLO)


# -- the next session of its name


BEGINNINGS: dict[str, Callable[[SessionStore], object]] = {
    "session": lambda store: store.session("s", ttl=60),
    "create": lambda store: store.create("s", ttl=60),
}


@pytest.mark.parametrize("swept", [False, True], ids=["overdue", "swept"])
@pytest.mark.parametrize("on_expire", ["keep", "delete"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_new_session_begins_with_nothing_of_the_old_one(
    store_path: Path, frozen: FrozenClock, begin: str, on_expire: Any, swept: bool
) -> None:
    with sessionstore.open(store_path, on_expire=on_expire) as store:
        set_remote(store)
        store.session("s", ttl=60, title="old", tags=["t"], metadata={"old": True}, agent_id="a").append(HELLO, dedupe_key="k")
        frozen.go(61)
        if swept:
            store.sweep()
        commits = store.status().commits
        BEGINNINGS[begin](store)
        assert store.status().commits == commits + 1, "it took more than one transaction"
        info = store.get("s")
        assert info is not None
        assert (info.title, info.tags, info.metadata, info.message_count, info.last_seq) == (None, (), {}, 0, 0)
        assert (info.created_at, info.expires_at) == (frozen.now, frozen.now + timedelta(minutes=1))
        assert store.messages("s") == []
        assert store.append("s", {"role": "user", "content": "other"}, dedupe_key="k").seq == 1
        assert ids(store.list(status="expired")) == (["s"] if on_expire == "keep" else [])
    kinds = [kind for kind, _ in events(store_path)]
    assert kinds == ["conversation_start", "conversation_expired", "conversation_start"]
    with closing(sqlite3.connect(store_path)) as raw:
        texts = {text for (text,) in raw.execute("SELECT text FROM messages")}
    assert texts == ({"hello", "other"} if on_expire == "keep" else {"other"})


def test_the_expired_event_tells_the_life_that_is_over(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    set_remote(store)
    store.create("s", ttl=60, agent_id="a")
    frozen.go(3600)
    store.session("s")
    assert events(store_path)[1] == (
        "conversation_expired",
        {
            "session_id": "s",
            "agent_id": "a",
            "start_time": START.isoformat(),
            "end_time": (START + timedelta(minutes=1)).isoformat(),
            "duration_seconds": 60.0,
            "status": "expired",
            "expiry_reason": "ttl_timeout",
        },
    )


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_beginning_that_fails_leaves_the_old_session_overdue(
    store: SessionStore, frozen: FrozenClock, dump: Callable[[], object], monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    store.session("s", ttl=60).append(HELLO)
    set_remote(store)
    frozen.go(60)
    before = dump()
    monkeypatch.setattr(outbox, "enqueue", fail)
    with pytest.raises(OSError, match="the outbox"):
        BEGINNINGS[begin](store)
    assert dump() == before


def fail(*_: object) -> None:
    raise OSError("the outbox")


def test_a_name_may_have_any_number_of_expired_sessions(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(5):
        store.session("s", ttl=60).append("user", f"life {number}")
        frozen.go(60)
        if number % 2:
            store.sweep()
    assert store.count(status="expired") == 5
    assert store.get("s") is None
    receipt = store.delete("s")
    assert (receipt.session_ids, receipt.messages) == (("s",), 5)


def test_a_live_session_keeps_its_name_from_new_ones(store: SessionStore, frozen: FrozenClock) -> None:
    store.create("s", ttl=60)
    frozen.go(timedelta(minutes=1) - TICK)
    with pytest.raises(ConflictError):
        store.create("s")
    frozen.go(TICK)
    assert store.create("s").expires_at is None


@pytest.mark.parametrize("on_expire", ["keep", "delete"])
def test_a_rename_takes_the_name_of_an_overdue_session(store_path: Path, frozen: FrozenClock, on_expire: Any) -> None:
    with sessionstore.open(store_path, on_expire=on_expire) as store:
        set_remote(store)
        store.session("old", ttl=60).append(HELLO)
        store.session("new").append("user", "mine")
        frozen.go(timedelta(minutes=1) - TICK)
        with pytest.raises(ConflictError):
            store.rename("new", "old")
        frozen.go(TICK)
        assert store.rename("new", "old").session_id == "old"
        assert [message.text for message in store.messages("old")] == ["mine"]
        assert store.count(status="expired") == (1 if on_expire == "keep" else 0)
    assert [kind for kind, _ in events(store_path)].count("conversation_expired") == 1


@pytest.mark.fault("F32")
def test_a_clock_that_is_far_ahead_deletes_nothing(store_path: Path, frozen: FrozenClock) -> None:
    """A session of the name begins, but the old one is kept for when the clock is right again."""
    with sessionstore.open(store_path, on_expire="delete") as store:
        for session_id in ("s", "t", "u"):
            store.session(session_id, ttl=60).append(HELLO)
        store.create("mine")
        frozen.go(timedelta(days=3650))
        store.session("s")
        store.create("t")
        store.rename("mine", "u")
        assert ids(store.list(status="expired")) == ["s", "t", "u"]
        assert store.status().messages == 3


# -- the other ends of a life


def test_an_end_clears_the_expiry_and_ended_sessions_do_not_expire(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s", ttl=60, max_age=100)
    chat.append(HELLO)
    ended = chat.end()
    assert (ended.status, ended.ended_at, ended.expires_at, ended.ttl, ended.max_age) == ("completed", START, None, 60, 100)
    frozen.go(1000)
    assert chat.append("user", "later").seq == 2
    assert chat.touch().expires_at is None
    assert chat.set_ttl(5).expires_at is None
    assert chat.pin().expires_at is None
    assert chat.pin(False).expires_at is None
    frozen.go(10**6)
    assert store.sweep().expired == 0
    info = chat.get()
    assert info is not None
    assert (info.status, info.message_count, chat.remaining()) == ("completed", 2, None)
    assert store.count(status="expired") == 0


@pytest.mark.parametrize("swept", [False, True], ids=["overdue", "swept"])
@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_late_end_wins_and_is_told(store: SessionStore, store_path: Path, frozen: FrozenClock, swept: bool, status: Any) -> None:
    set_remote(store)
    store.session("s", ttl=60, tags=["t"], agent_id="a").append(HELLO)
    frozen.go(600)
    if swept:
        store.sweep()
    ended = store.end("s", status, quality_score=4)
    assert (ended.status, ended.ended_at, ended.expires_at, ended.quality_score) == (status, frozen.now, None, 4)
    assert store.get("s") == ended
    assert ended.tags == ("t",)
    assert [message.text for message in store.messages("s")] == ["hello"]
    assert (store.count(status="expired"), store.count(status=status)) == (0, 1)
    with pytest.raises(ConflictError):
        store.create("s")
    kind, body = events(store_path)[-1]
    assert (kind, body["status"], body["duration_seconds"], body["message_count"]) == ("conversation_end", status, 600.0, 1)
    assert [kind for kind, _ in events(store_path)].count("conversation_expired") == (1 if swept else 0)
    assert store.sweep().expired == 0


def test_a_late_end_is_the_newest_ones_of_the_name(store: SessionStore, frozen: FrozenClock) -> None:
    for number in range(3):
        store.session("s", ttl=60).append("user", f"life {number}")
        frozen.go(60)
    store.end("s")
    assert [message.text for message in store.messages("s")] == ["life 2"]
    assert store.count(status="expired") == 2


def test_an_end_is_the_live_sessions_if_there_is_one(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("s", ttl=60).append("user", "old")
    frozen.go(60)
    store.session("s").append("user", "new")
    store.end("s")
    assert [message.text for message in store.messages("s")] == ["new"]
    (old,) = store.list(status="expired")
    assert old.message_count == 1


def test_an_end_of_what_the_sweep_deleted_finds_nothing(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, on_expire="delete") as store:
        store.create("s", ttl=60)
        frozen.go(60)
        store.sweep()
        with pytest.raises(NotFoundError):
            store.end("s")


def test_an_ended_session_that_is_opened_again_lives_anew(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s", ttl=60, max_age=1000)
    chat.end("failed", error="timeout", quality_score=2)
    frozen.go(500)
    opened = chat.reopen()
    assert (opened.status, opened.ended_at, opened.expires_at) == ("open", None, frozen.now + timedelta(minutes=1))
    assert (opened.error, opened.quality_score) == (None, None)
    frozen.go(60)
    assert chat.get() is None


def test_what_is_older_than_its_max_age_does_not_begin_anew(
    store: SessionStore, frozen: FrozenClock, dump: Callable[[], object]
) -> None:
    """It would expire at once; a longer life can be given to it first."""
    store.session("pinned", max_age=60, pinned=True).append(HELLO)
    store.session("ended", max_age=60).end()
    frozen.go(60)
    before = dump()
    for refused in (lambda: store.pin("pinned", False), lambda: store.reopen("ended")):
        with pytest.raises(ConflictError, match="older than its max_age"):
            refused()
    assert dump() == before
    for session_id in ("pinned", "ended"):
        store.set_ttl(session_id, max_age=120)
    assert store.pin("pinned", False).expires_at == START + timedelta(minutes=2)
    assert store.reopen("ended").expires_at == START + timedelta(minutes=2)


def test_a_pinned_session_does_not_expire_until_it_is_unpinned(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s", ttl=60)
    made = store.create("made", ttl=60, pinned=True)
    assert (made.expires_at, made.ttl) == (None, 60)
    assert chat.pin().expires_at is None
    frozen.go(10**6)
    assert store.sweep().expired == 0
    chat.append(HELLO)
    assert chat.touch().expires_at is None
    assert chat.set_ttl(120).expires_at is None
    assert chat.get() is not None
    assert chat.pin(False).expires_at == frozen.now + timedelta(minutes=2)
    frozen.go(120)
    assert chat.get() is None
    assert store.get("made") is not None


# -- giving a session another life


def test_set_ttl_counts_from_now_and_max_age_from_the_beginning(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s")
    frozen.go(50)
    assert chat.set_ttl(60).expires_at == frozen.now + timedelta(minutes=1)
    assert chat.set_ttl(max_age=timedelta(seconds=100)).expires_at == START + timedelta(seconds=100)
    assert chat.set_ttl(None).expires_at == START + timedelta(seconds=100)
    info = chat.set_ttl(10.5, max_age=None)
    assert (info.ttl, info.max_age, info.expires_at) == (10.5, None, frozen.now + timedelta(seconds=10.5))
    info = chat.set_ttl(None, max_age=None)
    assert (info.ttl, info.max_age, info.expires_at) == (None, None, None)
    frozen.go(10**9)
    assert chat.get() is not None


def test_set_ttl_is_a_change_with_a_version(store: SessionStore) -> None:
    before = store.create("s", ttl=60)
    assert store.set_ttl("s", 60).version == before.version + 1


def test_a_max_age_that_is_over_already_is_refused(store: SessionStore, frozen: FrozenClock, dump: Callable[[], object]) -> None:
    store.create("s")
    frozen.go(60)
    before = dump()
    for over in (60, 59.5, timedelta(seconds=1)):
        with pytest.raises(InvalidInputError, match="max_age"):
            store.set_ttl("s", max_age=over)
    assert dump() == before
    assert store.set_ttl("s", max_age=61).expires_at == frozen.now + timedelta(seconds=1)


BAD_LIVES = [
    0, 0.0, -1, -0.001, math.nan, math.inf, -math.inf, 10**20, 1e300, True, False, "60", b"60", [60], timedelta.max, timedelta.min,
    timedelta(0), timedelta(seconds=-1), timedelta(days=365 * 101), 3_155_760_001,
]  # fmt: skip


@pytest.mark.parametrize("life", BAD_LIVES, ids=repr)
@pytest.mark.parametrize("field", ["ttl", "max_age"])
def test_a_life_that_is_none_is_refused_by_name_and_changes_nothing(
    store: SessionStore, dump: Callable[[], object], field: str, life: Any
) -> None:
    store.create("s")
    before = dump()
    calls: list[Callable[[], object]] = [
        lambda: store.create("new", **{field: life}),
        lambda: store.session("new", **{field: life}),
        lambda: store.set_ttl("s", **{field: life}),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError) as caught:
            call()
        assert caught.value.field == field
        assert repr(life) not in str(caught.value) or life in (0, 0.0, True, False)
    with pytest.raises(ConfigError, match=field):
        sessionstore.open(in_memory=True, **{field: life})
    assert dump() == before


@pytest.mark.parametrize("life", [0.5, 1, 1e-6, timedelta(microseconds=1), 3_155_760_000, timedelta(days=36_525)], ids=repr)
def test_a_life_from_a_microsecond_to_a_hundred_years_is_taken(store: SessionStore, frozen: FrozenClock, life: Any) -> None:
    seconds = life.total_seconds() if isinstance(life, timedelta) else life
    for number, field in enumerate(("ttl", "max_age")):
        info = store.create(f"s{number}", **{field: life})
        assert info.expires_at == START + timedelta(seconds=seconds)
        assert getattr(info, field) == seconds


def test_set_ttl_without_a_life_is_refused(store: SessionStore) -> None:
    store.create("s")
    with pytest.raises(InvalidInputError):
        store.set_ttl("s")


def test_a_life_may_end_with_the_last_instant_that_there_is(store: SessionStore, frozen: FrozenClock) -> None:
    frozen.now = datetime(9990, 1, 1, tzinfo=UTC)
    last = datetime.max.replace(tzinfo=UTC)
    assert store.create("s", ttl=timedelta(days=36_000), max_age=timedelta(days=36_500)).expires_at == last
    store.append("s", HELLO)
    assert store.touch("s").expires_at == last


# -- the lives that a store gives


def test_a_store_gives_its_sessions_the_life_that_they_do_not_name(tmp_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(tmp_path / "a.db", ttl=timedelta(minutes=1), max_age=100) as store:
        info = store.create("default")
        assert (info.ttl, info.max_age, info.expires_at) == (60, 100, START + timedelta(minutes=1))
        assert store.create("own", ttl=5).max_age == 100
        assert store.create("for ever", ttl=None, max_age=None).expires_at is None
        info = store.in_namespace("team").create("s")
        assert (info.ttl, info.max_age) == (60, 100)
    with sessionstore.open(tmp_path / "a.db") as store:
        assert store.create("later").ttl is None
        info = store.session("default").get()  # type: ignore[assignment]
        assert info.ttl == 60


@pytest.mark.parametrize("word", ["", "archived", "KEEP", None, True, 1])
def test_an_unknown_fate_of_expired_sessions_is_refused(tmp_path: Path, word: Any) -> None:
    with pytest.raises(ConfigError, match="on_expire"):
        sessionstore.open(tmp_path / "a.db", on_expire=word)
    assert list(tmp_path.iterdir()) == []


# -- files


def test_an_export_keeps_the_lives_of_sessions(store: SessionStore, tmp_path: Path, frozen: FrozenClock) -> None:
    store.session("both", ttl=60.25, max_age=3600).append(HELLO)
    store.create("pinned", ttl=60, pinned=True)
    store.create("ended", ttl=60)
    store.end("ended")
    frozen.go(30)
    data = exported(store)
    with sessionstore.open(tmp_path / "other.db", ttl=1) as other:
        other.import_file(io.BytesIO(data))
        for session_id in ("both", "pinned", "ended"):
            assert other.get(session_id) == store.get(session_id)
        assert exported(other) == data
        other.append("both", HELLO)
        assert expires_at(other, "both") == frozen.now + timedelta(seconds=60.25)


def test_an_overdue_session_comes_out_of_a_file_expired(store: SessionStore, tmp_path: Path, frozen: FrozenClock) -> None:
    """It may have been open when the file was written, or overdue already."""
    store.session("s", ttl=60, tags=["t"]).append(HELLO)
    while_open = exported(store)
    frozen.go(600)
    overdue = exported(store, status="expired")
    store.sweep()
    swept = exported(store, status="expired")
    assert overdue == swept
    for number, data in enumerate((while_open, overdue)):
        with sessionstore.open(tmp_path / f"{number}.db") as other:
            assert other.import_file(io.BytesIO(data)).sessions == 1
            assert other.list(status="expired").items == store.list(status="expired").items
            assert other.sweep().expired == 0
            assert other.session("s").messages() == []


@pytest.mark.parametrize("on_conflict", ["fail", "skip", "replace", "new-id"])
def test_an_import_takes_the_name_of_an_overdue_session(
    store: SessionStore, tmp_path: Path, frozen: FrozenClock, on_conflict: Any
) -> None:
    with sessionstore.open(tmp_path / "other.db") as other:
        other.session("s").append("user", "mine")
        data = exported(other)
    store.session("s", ttl=60).append(HELLO)
    frozen.go(60)
    receipt = store.import_file(io.BytesIO(data), on_conflict=on_conflict)
    assert (receipt.sessions, receipt.skipped, receipt.replaced, receipt.renamed) == (1, 0, 0, ())
    assert [message.text for message in store.messages("s")] == ["mine"]
    (old,) = store.list(status="expired")
    assert old.message_count == 1


# -- the time of an answer


def elapsed(messages: list[Any]) -> list[float | None]:
    return [message.elapsed_ms for message in messages]


def answer(text: str = "a", **details: Any) -> NewMessage:
    return NewMessage({"role": "assistant", "content": text}, **details)


def stored_answer_times(path: Path) -> list[float | None]:
    with closing(sqlite3.connect(path)) as raw:
        return [value for (value,) in raw.execute("SELECT answer_time_ms FROM messages ORDER BY id")]


def test_an_answer_is_timed_from_the_newest_question(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    chat = store.session("s")
    assert chat.append("assistant", "nobody asked").elapsed_ms is None
    chat.append(HELLO)
    frozen.go(0.250_001)
    assert chat.append(CALL).elapsed_ms == 250.001
    frozen.go(1)
    assert chat.append("tool", "42", tool_call_id="c").elapsed_ms is None
    assert chat.append("assistant", "it is 42").elapsed_ms == 1250.001
    chat.append(HELLO)
    frozen.go(2)
    assert chat.append("assistant", "later").elapsed_ms == 2000
    assert stored_answer_times(store_path) == [None, None, 250.001, None, 1250.001, None, 2000.0]


def test_the_time_that_the_caller_gives_wins(store: SessionStore, store_path: Path, frozen: FrozenClock) -> None:
    chat = store.session("s")
    chat.append(HELLO)
    frozen.go(5)
    given_time = chat.append("assistant", "a", response_time_ms=420)
    assert (given_time.response_time_ms, given_time.elapsed_ms) == (420, None)
    assert chat.append("assistant", "a", response_time_ms=0).elapsed_ms is None
    assert chat.append("assistant", "a", model="m").elapsed_ms == 5000
    assert stored_answer_times(store_path) == [None, 420.0, 0.0, 5000.0]


def test_a_turn_that_is_stored_as_a_whole_has_no_time(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s")
    assert elapsed(chat.append_many([HELLO, answer().message, HELLO, answer().message])) == [None] * 4
    frozen.go(1)
    assert elapsed(chat.append_many([answer(), HELLO, answer()])) == [1000.0, None, None]
    frozen.go(1)
    assert elapsed(chat.append_many([answer(), answer(response_time_ms=7)])) == [1000.0, None]


def test_given_instants_count_in_a_batch(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s")
    times = [START + timedelta(seconds=number) for number in range(6)]
    asked = [NewMessage(HELLO, created_at=times[0]), answer(created_at=times[2]), NewMessage(HELLO, created_at=times[3])]
    assert elapsed(chat.append_many([*asked, answer(created_at=times[4])])) == [None, 2000.0, None, 1000.0]
    frozen.now = times[5]
    assert chat.append("assistant", "a").elapsed_ms == 2000
    assert chat.append("assistant", "before it was asked", created_at=START).elapsed_ms is None


def test_a_question_that_is_removed_asks_no_more(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s")
    chat.append(HELLO)
    frozen.go(1)
    chat.append("assistant", "a")
    frozen.go(1)
    chat.append("user", "second")
    frozen.go(1)
    assert chat.pop() is not None
    assert chat.append("assistant", "to the first").elapsed_ms == 3000
    chat.truncate(after=1)
    assert chat.append("assistant", "to the first").elapsed_ms == 3000
    chat.clear()
    assert chat.append("assistant", "nobody asked").elapsed_ms is None


def test_a_repeated_append_keeps_the_time_that_was_stored(store: SessionStore, frozen: FrozenClock) -> None:
    chat = store.session("s")
    chat.append(HELLO, dedupe_key="q")
    frozen.go(1)
    first = chat.append("assistant", "a", dedupe_key="a")
    frozen.go(60)
    assert chat.append("assistant", "a", dedupe_key="a") == first
    again = chat.append_many([NewMessage(HELLO, dedupe_key="q"), answer(dedupe_key="a"), answer("b", dedupe_key="b")])
    assert elapsed(again) == [None, 1000.0, 61_000.0]


def test_the_time_goes_through_a_file(store: SessionStore, tmp_path: Path, frozen: FrozenClock) -> None:
    chat = store.session("s")
    chat.append(HELLO)
    frozen.go(1.5)
    chat.append("assistant", "a", input_tokens=3)
    with sessionstore.open(tmp_path / "other.db") as other:
        other.import_file(io.BytesIO(exported(store)))
        assert [native.message_line(message) for message in other.messages("s")] == [*map(native.message_line, store.messages("s"))]
        assert elapsed(other.messages("s")) == [None, 1500.0]
        frozen.go(1)
        assert other.append("s", "assistant", "b").elapsed_ms == store.append("s", "assistant", "b").elapsed_ms == 2500
        assert other.doctor().ok


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.sampled_from(["user", "assistant", "timed", "tool"]), min_size=1, max_size=4)),
        st.tuples(st.just("pop"), st.none()),
        st.tuples(st.just("truncate"), st.integers(0, 12)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_times_are_those_of_a_plain_list(
    in_memory: SessionStore, frozen: FrozenClock, steps: list[tuple[str, Any]], gaps: list[int]
) -> None:
    held: list[tuple[int, str, datetime, float | None]] = []
    next_seq = 1
    chat = in_memory.session(clock.new_id())
    for (step, argument), gap in zip(steps, gaps, strict=False):
        now = frozen.go(gap)
        if step == "append":
            chat.append_many([as_message(kind) for kind in argument])
            for kind in argument:
                asked = [at for _, role, at, _ in held if role == "user"]
                waited = (now - asked[-1]) / timedelta(milliseconds=1) if asked else 0
                held.append((next_seq, kind, now, waited if kind == "assistant" and waited else None))
                next_seq += 1
        elif step == "pop":
            chat.pop()
            del held[-1:]
        else:
            chat.truncate(after=argument)
            held = [row for row in held if row[0] <= argument]
    assert [(message.seq, message.elapsed_ms) for message in chat.messages()] == [(row[0], row[3]) for row in held]


def as_message(kind: str) -> NewMessage:
    if kind == "timed":
        return answer(response_time_ms=1)
    return NewMessage({"role": kind, "content": "x"})


# -- files of the first revision


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A file as the first revision made it: two sessions, one of them ended, and no word about lives."""
    path = tmp_path / "old.db"
    command = [sys.executable, "-m", "alembic", "-x", f"db={path}", "upgrade", "0001"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    then = clock.to_text(START)
    with closing(sqlite3.connect(path)) as raw, raw:
        columns = "namespace, session_id, status, pinned, version, message_count, next_seq, created_at, updated_at, ended_at"
        rows = [("", "s", "open", 0, 1, 2, 3, then, then, None), ("", "ended", "completed", 0, 2, 0, 1, then, then, then)]
        raw.executemany(f"INSERT INTO sessions ({columns}) VALUES ({', '.join('?' * 10)})", rows)
        raw.execute("INSERT INTO session_tags VALUES (1, 't')")
        ((store_id,),) = raw.execute("SELECT store_id FROM store_info")
        seed = sessionstore.rows.store_seed(store_id)
        for seq, (role, text) in enumerate([("user", "old question"), ("assistant", "old answer")], start=1):
            unsigned = ((1 << 24) + seq, "message", role, text, None, None, then)
            crc = sessionstore.rows.checksum(*unsigned, seed)
            row = (*unsigned, crc)
            raw.execute(
                f"INSERT INTO messages (id, kind, role, text, extra, facts, created_at, crc) VALUES ({','.join('?' * 8)})", row
            )
    return path


@in_checkout
def test_a_file_of_the_first_revision_is_upgraded_and_lives_on(old_file: Path, frozen: FrozenClock) -> None:
    frozen.go(60)
    with sessionstore.open(old_file) as store:
        assert store.doctor().ok
        info = store.get("s")
        assert info == replace(
            store.create("like it"), session_id="s", tags=("t",), message_count=2, last_seq=2, created_at=START, updated_at=START
        )
        assert [message.text for message in store.messages("s")] == ["old question", "old answer"]
        assert store.append("s", "assistant", "the question was asked before").elapsed_ms is None
        store.append("s", HELLO)
        frozen.go(2)
        assert store.append("s", "assistant", "new answer").elapsed_ms == 2000
        assert store.set_ttl("s", 60).expires_at == frozen.now + timedelta(minutes=1)
        assert store.reopen("ended").status == "open"
        frozen.go(60)
        assert store.get("s") is None
        assert store.sweep().expired == 1
        assert store.session("s").append(HELLO).seq == 1
        assert store.doctor().ok


def test_an_expired_session_of_the_first_revision_stays_expired(store: SessionStore, frozen: FrozenClock) -> None:
    """It has no expiry: that revision had no lives."""
    info: SessionInfo = replace(store.create("s"), status="expired", ended_at=START)
    store.delete("s")
    line = native.session_line(info)
    assert native.session(json.loads(line)).expires_at is None
    from sessionstore.queries import transfer

    store._write(lambda db: transfer.put(db, info, [], on_conflict="fail", on_expire="keep"))
    assert (store.get("s"), store.sweep().expired, store.count(status="expired")) == (None, 0, 1)
    with pytest.raises(SessionExpiredError):
        store.append("s", HELLO)
