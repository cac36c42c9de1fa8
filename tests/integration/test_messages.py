"""Messages: appending, reading windows, removing, dedupe keys, tool calls."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import (
    ConflictError,
    InvalidInputError,
    Message,
    NewMessage,
    NotFoundError,
    QuotaError,
    SessionHandle,
    SessionStore,
    StoreCorruptError,
    ToolCall,
    ToolResult,
)

MAX_SEQ = 16_777_215
Dump = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def chat(store: SessionStore) -> SessionHandle:
    return store.session("s")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calls(*call_ids: str) -> dict[str, Any]:
    made = [{"id": one, "type": "function", "function": {"name": f"do_{one}", "arguments": "{}"}} for one in call_ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "done"}


def seqs(messages: list[Message]) -> list[int]:
    return [message.seq for message in messages]


def texts(messages: list[Message]) -> list[str | None]:
    return [message.text for message in messages]


# -- appending


def test_an_append_returns_what_is_stored(chat: SessionHandle) -> None:
    stored = chat.append("user", "What's the capital of France?")
    assert (stored.session_id, stored.seq, stored.role, stored.text, stored.kind) == (
        "s", 1, "user", "What's the capital of France?", "message",
    )  # fmt: skip
    assert stored.to_dict() == {"role": "user", "content": "What's the capital of France?"}
    assert chat.messages() == [stored]


def test_seqs_count_from_one_without_holes(chat: SessionHandle) -> None:
    for number in range(1, 6):
        assert chat.append("user", str(number)).seq == number
    assert seqs(chat.append_many([user("a"), user("b")])) == [6, 7]
    info = chat.get()
    assert info is not None
    assert (info.message_count, info.last_seq) == (7, 7)


def test_two_sessions_count_for_themselves(store: SessionStore) -> None:
    first, second = store.session("a"), store.session("b")
    for _ in range(3):
        first.append("user", "x")
        second.append("user", "y")
    assert seqs(first.messages()) == seqs(second.messages()) == [1, 2, 3]
    assert set(texts(first.messages())) == {"x"}


def test_a_role_takes_the_other_parts_of_a_message(chat: SessionHandle) -> None:
    made = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    chat.append("assistant", None, tool_calls=made)
    chat.append("tool", "done", tool_call_id="c", name="f")
    chat.append("user", [{"type": "text", "text": "look"}], name="bob")
    with pytest.raises(InvalidInputError, match="content"):
        chat.append("user")
    chat.append({"role": "user", "content": None})
    chat.append("assistant", "")
    assert [message.to_dict() for message in chat.messages()] == [
        {"role": "assistant", "content": None, "tool_calls": made},
        {"role": "tool", "content": "done", "tool_call_id": "c", "name": "f"},
        {"role": "user", "content": [{"type": "text", "text": "look"}], "name": "bob"},
        {"role": "user", "content": None},
        {"role": "assistant", "content": ""},
    ]
    assert texts(chat.messages()) == [None, "done", "look", None, ""]


def test_all_that_is_known_about_a_message_is_kept(chat: SessionHandle, store: SessionStore, store_path: Path) -> None:
    details: dict[str, Any] = {
        "dedupe_key": "key", "model": "m-1", "finish_reason": "stop", "input_tokens": 12, "output_tokens": 0,
        "cache_read_tokens": 2**40, "reasoning_tokens": 1, "response_time_ms": 420.25, "metadata": {"a": [None, {"b": "é"}]},
        "created_at": datetime(2020, 2, 29, 1, 2, 3, 456_789, tzinfo=UTC),
    }  # fmt: skip
    stored = chat.append("assistant", "Paris.", **details)
    batch = chat.append_many([NewMessage(user("x"), **{**details, "dedupe_key": "other"}), user("plain")])
    store.close()
    with sessionstore.open(store_path) as again:
        messages = again.messages("s")
    assert messages == [stored, *batch]
    assert {name: getattr(messages[0], name) for name in details} == details
    assert messages[1].dedupe_key == "other"
    assert [getattr(messages[2], name) for name in details if name != "created_at"] == [None] * 9
    assert messages[0].to_dict() == {"role": "assistant", "content": "Paris."}


def test_keys_of_the_dict_are_never_taken_for_usage(chat: SessionHandle) -> None:
    message = {
        **user("x"),
        "model": "in-dict",
        "input_tokens": 5,
        "metadata": {"a": 1},
        "dedupe_key": "k",
        "usage": {"input_tokens": 7},
    }
    stored = chat.append(message)
    assert (stored.model, stored.input_tokens, stored.metadata, stored.dedupe_key) == (None, None, None, None)
    assert stored.to_dict() == message
    assert chat.append(message).seq == 2


def test_usage_columns_can_be_asked_by_sql(chat: SessionHandle, store_path: Path) -> None:
    chat.append("assistant", "x", model="m", input_tokens=12, output_tokens=3, response_time_ms=1.5, metadata={"a": 1})
    chat.append("user", "y")
    with closing(sqlite3.connect(store_path)) as connection:
        found = connection.execute(
            "SELECT seq, model, input_tokens, output_tokens, response_time_ms FROM messages ORDER BY id"
        ).fetchall()
    assert found == [(1, "m", 12, 3, 1.5), (2, None, None, None, None)]


def test_the_given_time_does_not_change_the_order(chat: SessionHandle) -> None:
    now = datetime.now(UTC)
    for days in (0, -10, 10):
        chat.append("user", str(days), created_at=now + timedelta(days=days))
    assert texts(chat.messages()) == ["0", "-10", "10"]
    assert [message.created_at for message in chat.messages()] == [now, now - timedelta(days=10), now + timedelta(days=10)]


def test_items_of_other_shapes_are_stored_under_their_kind(chat: SessionHandle) -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    assert [message.to_dict() for message in chat.append_many(items)] == items
    assert [message.kind for message in chat.messages()] == ["reasoning", "message", "function_call", "function_call_output"]
    opaque = chat.append({"whatever": [1, {"role": "root"}]}, kind="note")
    assert (opaque.kind, opaque.role, opaque.to_dict()) == ("note", None, {"whatever": [1, {"role": "root"}]})


def test_an_ended_session_may_go_on(store: SessionStore, chat: SessionHandle) -> None:
    chat.end()
    assert chat.append("user", "one more thing").seq == 1


# -- batches


def test_a_batch_is_stored_whole_or_not_at_all(chat: SessionHandle, dump: Callable[[], Dump]) -> None:
    chat.append("user", "before", dedupe_key="k")
    before = dump()
    for bad, kind in (
        ([user("a"), {"role": "root"}], InvalidInputError),
        ([user("a"), NewMessage(user("b"), input_tokens=-1)], InvalidInputError),
        ([user("a"), NewMessage(user("other"), dedupe_key="k")], ConflictError),
        ([user("a"), user("x\ud800")], InvalidInputError),
    ):
        with pytest.raises(kind):
            chat.append_many(bad)  # type: ignore[arg-type]
        assert dump() == before
    assert chat.append("user", "after").seq == 2


def test_a_batch_may_be_a_generator_and_may_be_empty(chat: SessionHandle) -> None:
    assert seqs(chat.append_many(user(str(number)) for number in range(3))) == [1, 2, 3]
    assert chat.append_many([]) == []
    assert chat.append_many(iter(())) == []


def test_an_iterator_that_fails_stores_nothing(chat: SessionHandle) -> None:
    def failing() -> Any:
        yield user("a")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        chat.append_many(failing())
    assert chat.messages() == []


def test_a_large_batch_keeps_its_order(chat: SessionHandle) -> None:
    chat.append_many([user(str(number)) for number in range(20_000)])
    assert texts(chat.messages()) == [str(number) for number in range(20_000)]


# -- dedupe keys


def test_a_repeated_append_is_a_no_op(chat: SessionHandle, dump: Callable[[], Dump]) -> None:
    first = chat.append("user", "x", dedupe_key="k", model="m")
    before = dump()
    assert chat.append("user", "x", dedupe_key="k", model="m") == first
    assert chat.append({"content": "x", "role": "user"}, dedupe_key="k", input_tokens=5) == first
    assert dump() == before


def test_a_dedupe_key_of_another_message_is_a_conflict(chat: SessionHandle, dump: Callable[[], Dump]) -> None:
    chat.append("user", "x", dedupe_key="k")
    before = dump()
    for other in (user("y"), {"role": "assistant", "content": "x"}, {**user("x"), "name": "n"}, {"type": "note", **user("x")}):
        with pytest.raises(ConflictError, match="dedupe_key") as caught:
            chat.append(other, dedupe_key="k")
        assert caught.value.session_id == "s"
    assert dump() == before


def test_a_dedupe_key_belongs_to_its_session(store: SessionStore) -> None:
    for name in ("a", "b"):
        assert store.session(name).append("user", name, dedupe_key="k").seq == 1
    assert store.in_namespace("n").session("a").append("user", "other", dedupe_key="k").seq == 1


def test_dedupe_keys_work_inside_one_batch(chat: SessionHandle) -> None:
    chat.append("user", "old", dedupe_key="old")
    batch = [
        NewMessage(user("a"), dedupe_key="k"),
        user("plain"),
        NewMessage(user("old"), dedupe_key="old"),
        NewMessage(user("a"), dedupe_key="k"),
        user("plain"),
        NewMessage(user("b"), dedupe_key="l"),
    ]
    assert seqs(chat.append_many(batch)) == [2, 3, 1, 2, 4, 5]
    assert texts(chat.messages()) == ["old", "a", "plain", "plain", "b"]
    with pytest.raises(ConflictError):
        chat.append_many([NewMessage(user("c"), dedupe_key="m"), NewMessage(user("d"), dedupe_key="m")])
    assert len(chat.messages()) == 5


def test_a_batch_that_is_there_already_changes_nothing(chat: SessionHandle, dump: Callable[[], Dump]) -> None:
    batch = [NewMessage(user(str(number)), dedupe_key=f"k{number}") for number in range(5)]
    first = chat.append_many(batch)
    before = dump()
    assert chat.append_many(batch) == first
    assert chat.append_many(batch[1:3]) == first[1:3]
    assert dump() == before
    assert seqs(chat.append_many([*batch, NewMessage(user("new"), dedupe_key="new")])) == [1, 2, 3, 4, 5, 6]


def test_a_removed_message_frees_its_dedupe_key(chat: SessionHandle) -> None:
    chat.append("user", "x", dedupe_key="k")
    chat.pop()
    assert chat.append("user", "y", dedupe_key="k").seq == 2


# -- reading


@pytest.mark.parametrize("last", [None, 0, 1, 3, 10, 11, 10**9])
@pytest.mark.parametrize("before", [None, 0, 1, 5, 10, 11, 10**9, 2**63 - 1])
@pytest.mark.parametrize("after", [None, 0, 1, 5, 10, 11, 10**9, 2**63 - 1])
def test_a_window_is_what_a_list_would_give(
    tmp_path_factory: pytest.TempPathFactory, ten: SessionStore, last: Any, before: Any, after: Any
) -> None:
    expected = [seq for seq in range(1, 11) if (before is None or seq < before) and (after is None or seq > after)]
    if last is not None:
        expected = expected[-last:] if last else []
    assert seqs(ten.messages("s", last=last, before=before, after=after)) == expected
    assert seqs(ten.messages("s", last=last, before=before, after=after, keep_pairs=True)) == expected


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A session of ten plain messages between two others."""
    with sessionstore.open(tmp_path_factory.mktemp("ten") / "agent.db") as store:
        for name in ("r", "s", "t"):
            store.session(name).append_many([user(str(number)) for number in range(1, 11)])
        yield store


@pytest.mark.parametrize("page_size", [1, 3, 10, 11, 10_000])
@pytest.mark.parametrize("after", [0, 4, 10, 99])
def test_pages_together_are_the_history(ten: SessionStore, page_size: int, after: int) -> None:
    assert seqs(list(ten.iterate("s", page_size=page_size, after=after))) == list(range(after + 1, 11))


def test_an_iteration_sees_what_is_appended_meanwhile(chat: SessionHandle) -> None:
    chat.append_many([user("a"), user("b")])
    found = []
    for message in chat.iterate(page_size=2):
        if message.seq == 2:
            chat.append("user", "c")
        found.append(message.text)
    assert found == ["a", "b", "c"]


def test_an_iteration_of_a_session_that_goes_away_says_so(chat: SessionHandle) -> None:
    chat.append_many([user("a"), user("b")])
    pages = chat.iterate(page_size=1)
    assert next(pages).text == "a"
    chat.delete()
    with pytest.raises(NotFoundError):
        next(pages)


# -- removing


def test_a_pop_returns_the_last_message(chat: SessionHandle) -> None:
    stored = chat.append_many([user("a"), user("b")])
    assert chat.pop() == stored[1]
    assert chat.messages() == stored[:1]
    assert chat.pop() == stored[0]
    assert chat.pop() is None


def test_a_truncate_keeps_up_to_a_seq(chat: SessionHandle) -> None:
    chat.append_many([user(str(number)) for number in range(1, 11)])
    assert chat.truncate(after=7) == 3
    assert chat.truncate(after=7) == 0
    assert chat.truncate(after=MAX_SEQ) == 0
    assert seqs(chat.messages()) == list(range(1, 8))
    info = chat.get()
    assert info is not None
    assert (info.message_count, info.last_seq) == (7, 10)


def test_a_clear_keeps_the_session(chat: SessionHandle) -> None:
    chat.append_many([user("a"), user("b")])
    chat.tag("t")
    assert chat.clear() == 2
    assert chat.clear() == 0
    info = chat.get()
    assert info is not None
    assert (info.message_count, info.last_seq, info.tags) == (0, 2, ("t",))


def test_seqs_are_never_given_again(chat: SessionHandle, store: SessionStore, store_path: Path) -> None:
    chat.append_many([user("a"), user("b"), user("c")])
    chat.pop()
    assert chat.append("user", "d").seq == 4
    chat.truncate(after=1)
    assert chat.append("user", "e").seq == 5
    chat.clear()
    assert chat.append("user", "f").seq == 6
    store.close()
    with sessionstore.open(store_path) as again:
        assert again.append("s", "user", "g").seq == 7
        assert seqs(again.messages("s")) == [6, 7]
        assert seqs(again.messages("s", last=1)) == [7]
        assert again.doctor().ok


def test_removing_touches_no_neighbour(ten: SessionStore) -> None:
    ten.session("u").append_many([user("x")] * 3)
    ten.clear("u")
    ten.delete("u")
    for name in ("r", "s", "t"):
        assert len(ten.messages(name)) == 10
    assert ten.doctor().ok


# -- the limit of seqs


def move_to(store: SessionStore, path: Path, next_seq: int) -> SessionStore:
    """As if the session had had so many messages."""
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute("UPDATE sessions SET next_seq = ?", (next_seq,)).rowcount == 1
    return sessionstore.open(path)


def test_a_session_that_is_full_says_so_and_takes_nothing(
    store: SessionStore, chat: SessionHandle, store_path: Path, dump: Callable[[], Dump]
) -> None:
    chat.append("user", "first", dedupe_key="k")
    with move_to(store, store_path, MAX_SEQ - 1) as full:
        before = dump()
        with pytest.raises(QuotaError) as caught:
            full.append_many("s", [user("x")] * 3)
        assert caught.value.limit == MAX_SEQ
        assert dump() == before
        assert seqs(full.append_many("s", [user("a"), user("last")])) == [MAX_SEQ - 1, MAX_SEQ]
        before = dump()
        for attempt in (
            lambda: full.append("s", "user", "x"),
            lambda: full.append_many("s", [user("x")]),
            lambda: full.append("s", "user", "x", dedupe_key="new"),
        ):
            with pytest.raises(QuotaError, match="new session"):
                attempt()
        assert dump() == before
        assert full.append("s", "user", "first", dedupe_key="k").seq == 1
        assert seqs(full.messages("s")) == [1, MAX_SEQ - 1, MAX_SEQ]
        assert seqs(full.messages("s", last=1)) == [MAX_SEQ]
        assert seqs(full.messages("s", before=MAX_SEQ)) == [1, MAX_SEQ - 1]
        assert seqs(full.messages("s", after=MAX_SEQ - 1)) == [MAX_SEQ]
        assert seqs(list(full.iterate("s", page_size=1))) == [1, MAX_SEQ - 1, MAX_SEQ]


def test_a_full_session_runs_into_no_other_one(store: SessionStore, chat: SessionHandle, store_path: Path) -> None:
    with move_to(store, store_path, MAX_SEQ) as full:
        full.append("s", "user", "the last of the first")
        full.session("t").append("user", "the first of the next")
        assert texts(full.messages("s")) == ["the last of the first"]
        assert texts(full.messages("t")) == ["the first of the next"]
        assert full.pop("s") is not None
        with pytest.raises(QuotaError):
            full.append("s", "user", "seqs are not given again")
        assert full.clear("s") == 0
        assert texts(full.messages("t")) == ["the first of the next"]
        assert full.doctor().ok


# -- windows that keep pairs


@pytest.fixture
def talk(chat: SessionHandle) -> SessionHandle:
    """1 user, 2 calls a b, 3 result a, 4 result b, 5 assistant, 6 user, 7 call c, 8 user, 9 result c, 10 assistant."""
    said = {"role": "assistant", "content": "x"}
    chat.append_many(
        [user("1"), calls("a", "b"), result("a"), result("b"), said, user("6"), calls("c"), user("8"), result("c"), said]
    )
    return chat


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 9, 8, 10]),
        ({"last": 1}, [10]),
        ({"last": 2}, [7, 9, 8, 10]),
        ({"last": 3}, [7, 9, 8, 10]),
        ({"last": 4}, [7, 9, 8, 10]),
        ({"last": 7}, [2, 3, 4, 5, 6, 7, 9, 8, 10]),
        ({"last": 8}, [2, 3, 4, 5, 6, 7, 9, 8, 10]),
        ({"last": 10}, [1, 2, 3, 4, 5, 6, 7, 9, 8, 10]),
        ({"before": 10}, [1, 2, 3, 4, 5, 6, 7, 9, 8]),
        ({"before": 9}, [1, 2, 3, 4, 5, 6]),
        ({"before": 8}, [1, 2, 3, 4, 5, 6]),
        ({"before": 4}, [1]),
        ({"before": 3}, [1]),
        ({"before": 2}, [1]),
        ({"before": 5, "last": 1}, [2, 3, 4]),
        ({"before": 9, "last": 2}, []),
        ({"after": 2}, [3, 4, 5, 6, 7, 9, 8, 10]),
        ({"after": 8}, [9, 10]),
    ],
    ids=str,
)
def test_a_window_that_keeps_pairs(talk: SessionHandle, window: dict[str, int], expected: list[int]) -> None:
    assert seqs(talk.messages(keep_pairs=True, **window)) == expected


def test_a_result_whose_call_is_nowhere_is_left_out(chat: SessionHandle) -> None:
    chat.append_many([result("z"), user("x"), result("y"), calls("y")])
    assert seqs(chat.messages()) == [1, 2, 3, 4]
    assert seqs(chat.messages(keep_pairs=True)) == [2, 4]
    assert seqs(chat.messages(last=2, keep_pairs=True)) == [4]


def test_a_call_far_away_is_found(chat: SessionHandle) -> None:
    chat.append_many([calls("far"), *[user("x")] * 450, result("far")])
    assert seqs(chat.messages(last=1, keep_pairs=True)) == [1, 452, *range(2, 452)]
    assert seqs(chat.messages(before=300, keep_pairs=True)) == []


def test_reused_call_ids_pair_with_the_nearest_call(chat: SessionHandle) -> None:
    chat.append_many([calls("a"), result("a"), user("x"), calls("a"), result("a")])
    assert seqs(chat.messages(last=1, keep_pairs=True)) == [4, 5]
    assert seqs(chat.messages(last=2, keep_pairs=True)) == [4, 5]


# -- tool calls


def test_open_calls_and_lone_results_are_reported(chat: SessionHandle) -> None:
    chat.append_many(
        [result("z"), calls("a", "b"), result("a"), {"type": "function_call", "call_id": "i", "name": "f", "arguments": "[]"}]
    )
    open_calls = (
        ToolCall(seq=2, call_id="b", name="do_b", arguments="{}"),
        ToolCall(seq=4, call_id="i", name="f", arguments="[]"),
    )
    assert chat.open_tool_calls() == open_calls
    report = chat.check()
    assert (report.unmatched_calls, report.unmatched_results, report.ok) == (open_calls, (ToolResult(seq=1, call_id="z"),), False)


def test_a_repair_adds_what_is_missing_and_deletes_nothing(chat: SessionHandle) -> None:
    before = chat.append_many([result("z"), calls("a", "b"), result("a")])
    (added,) = chat.repair()
    assert added.to_dict()["tool_call_id"] == "b"
    assert added.role == "tool"
    assert "interrupted" in added.to_dict()["content"]
    assert added.metadata == {"synthetic": "interrupted"}
    assert chat.messages() == [*before, added]
    assert chat.open_tool_calls() == ()


def test_a_second_repair_adds_nothing(talk: SessionHandle, dump: Callable[[], Dump]) -> None:
    talk.append(calls("d", "d", "e"))
    assert [message.tool_call_id for message in talk.repair()] == ["d", "d", "e"]
    before = dump()
    assert talk.repair() == []
    assert dump() == before
    assert talk.check().ok


def test_responses_items_are_repaired_in_their_own_form(chat: SessionHandle) -> None:
    chat.append({"type": "function_call", "call_id": "f", "name": "f", "arguments": "{}"})
    (added,) = chat.repair()
    assert (added.kind, added.role, added.tool_call_id) == ("function_call_output", None, "f")
    assert added.to_dict().keys() == {"type", "call_id", "output"}
    assert chat.check().ok


def test_custom_tool_calls_are_repaired_in_their_own_form(chat: SessionHandle) -> None:
    """A provider takes only a custom_tool_call_output as the answer of a custom_tool_call."""
    chat.append({"type": "custom_tool_call", "call_id": "c", "name": "g", "input": "x"})
    (added,) = chat.repair()
    assert (added.kind, added.tool_call_id) == ("custom_tool_call_output", "c")
    assert chat.check().ok


def test_chat_calls_under_a_kind_of_their_own_are_repaired_as_chat(chat: SessionHandle) -> None:
    chat.append(calls("a"), kind="draft")
    (added,) = chat.repair()
    assert (added.role, added.tool_call_id) == ("tool", "a")


@pytest.mark.parametrize(
    "call_id",
    ["x" * 100_000, "é" * 1_000, "\0" * 2_000, '"\\' * 1_000, "🙂" * 1_000, ""],
    ids=lambda value: f"{len(value)}-{value[:1]!a}",
)
def test_any_call_id_is_repaired(chat: SessionHandle, call_id: str) -> None:
    chat.append(calls(call_id))
    (added,) = chat.repair()
    assert added.tool_call_id == call_id
    assert chat.check().ok


# -- damage


@pytest.mark.parametrize(
    ("column", "value"),
    [("text", "changed"), ("role", "assistant"), ("created_at", "2020-01-01 00:00:00.000000"), ("crc", 5), ("kind", "note")],
)
def test_a_changed_message_is_never_shown(
    store: SessionStore, chat: SessionHandle, store_path: Path, column: str, value: Any
) -> None:
    chat.append_many([user("a"), user("b"), user("c")])
    store.close()
    with closing(sqlite3.connect(store_path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE messages SET {column} = ? WHERE seq = 2", (value,))
    with sessionstore.open(store_path) as damaged:
        for read in (
            lambda: damaged.messages("s"),
            lambda: damaged.messages("s", last=2),
            lambda: damaged.messages("s", keep_pairs=True),
            lambda: list(damaged.iterate("s")),
        ):
            with pytest.raises(StoreCorruptError, match="message 2 of session 's'"):
                read()
        assert texts(damaged.messages("s", last=1)) == ["c"]
        assert texts(damaged.messages("s", before=2)) == ["a"]
        checks = {check.name: check for check in damaged.doctor().checks}
        assert not checks["checksums"].ok
        assert "message 2 of" in checks["checksums"].detail


def test_a_message_that_vanished_is_noticed(store: SessionStore, chat: SessionHandle, store_path: Path) -> None:
    chat.append_many([user("a"), user("b"), user("c")])
    store.close()
    with closing(sqlite3.connect(store_path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM messages WHERE seq = 2")
    with sessionstore.open(store_path) as damaged:
        assert not {check.name: check.ok for check in damaged.doctor().checks}["counters"]
        with pytest.raises(StoreCorruptError):
            damaged.messages("s")


@pytest.mark.parametrize(
    "column",
    ["sessions.metadata", "metric_events.attributes", "agents.metadata", "agent_activity.details", "state_values.value"],
)
@pytest.mark.parametrize("value", ["{bad", b"{}", "", "[1]"])
def test_the_doctor_finds_json_that_is_damaged(store: SessionStore, store_path: Path, column: str, value: str | bytes) -> None:
    store.session("s", metadata={"k": 1})
    store.session("bare")
    store.record("m", 1, attributes={"k": 1})
    store.record("m", 1)
    store.register_agent("a", metadata={"k": 1})
    store.log_activity("a", "did", {"k": 1})
    store.set_state("s", {"list": [1], "nothing": None})
    assert store.doctor().ok
    store.close()
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(store_path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
    with sessionstore.open(store_path) as damaged:
        failed = {check.name: check.detail for check in damaged.doctor().checks if not check.ok}
    # Of state, any JSON is a value.
    is_damaged = value != "[1]" or table != "state_values"
    assert list(failed) == ["json"] * is_damaged
    assert not is_damaged or column in failed["json"]


def test_numbers_in_json_keep_their_kind(chat: SessionHandle) -> None:
    message = {**user("x"), "numbers": [1, 1.0, -0.0, 1e16, 1e-7, 5e-324, 2**53 + 1, True, 0.1 + 0.2]}
    (stored,) = chat.append_many([message])
    read = chat.messages()[0].to_dict()["numbers"]
    assert repr(read) == repr(message["numbers"]) == repr(stored.to_dict()["numbers"])
    assert math.copysign(1, read[2]) == -1
