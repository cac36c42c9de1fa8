"""OpenAI formats: a chat goes out as an API takes it, items of the Responses API come back as they were."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NewMessage, SessionStore
from sessionstore.pairs import INTERRUPTED

Dict = dict[str, Any]

HELLO = {"role": "user", "content": "hello"}
RANDOM = settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])


def call(*ids: str, **more: Any) -> Dict:
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(call_id: str, text: str = "done") -> Dict:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def exported(store: SessionStore, session_id: str, file_format: Any) -> list[Dict]:
    stream = io.BytesIO()
    store.export_file(stream, format=file_format, session_ids=[session_id])
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def chat_of(store: SessionStore, messages: list[Any]) -> list[Dict]:
    """What is exported of a session with these messages; both layouts hold the same."""
    store.create("s")
    store.append_many("s", messages)
    stored = [message.to_dict() for message in store.messages("s")]
    (line,) = exported(store, "s", "openai")
    assert exported(store, "s", "openai-messages") == line["messages"]
    assert [message.to_dict() for message in store.messages("s")] == stored, "an export changes nothing"
    store.delete("s")
    return line["messages"]


def require_valid(chat: list[Dict]) -> None:
    """Each call has its results right behind it, and each result its call before it."""
    waiting: list[str] = []
    for message in chat:
        if message["role"] == "tool":
            assert message["tool_call_id"] in waiting
            waiting.remove(message["tool_call_id"])
        else:
            assert waiting == [], "a call is followed by something else than its results"
            waiting = [each["id"] for each in message.get("tool_calls") or ()]
            assert "type" not in message
            assert "function_call" not in message
    assert waiting == []


# -- chats


def test_a_valid_chat_goes_out_as_it_is(store: SessionStore) -> None:
    chat = [HELLO, call("a", "b"), result("b"), result("a"), {"role": "assistant", "content": "fine", "refusal": None}]
    assert chat_of(store, chat) == chat


def test_keys_for_calls_that_hold_nothing_are_left_away(store: SessionStore) -> None:
    """The client library of OpenAI dumps them so, and its API refuses them."""
    dumped = {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None, "function_call": None}
    plain = {"role": "assistant", "content": "hi", "refusal": None}
    assert chat_of(store, [HELLO, dumped, {**plain, "tool_calls": []}, {**call("a"), "function_call": None}, result("a")]) == [
        HELLO,
        plain,
        plain,
        call("a"),
        result("a"),
    ]


def test_a_conflict_says_how_many_were_merged_before_it(store: SessionStore) -> None:
    store.session("one").append(HELLO)
    store.session("two").append({"role": "user", "content": "something else"})
    lines = [json.dumps({"session_id": name, "messages": [HELLO, HELLO]}) for name in ("one", "two")]
    with pytest.raises(ConflictError, match=r"line 2 of stdin: .*; 1 conversation before it is stored"):
        store.import_file(io.BytesIO("\n".join(lines).encode()), on_conflict="merge")
    assert len(store.messages("one")) == 2


def test_an_open_call_gets_a_result_and_a_lone_result_goes(store: SessionStore) -> None:
    chat = chat_of(store, [result("nobody"), HELLO, call("a", "b"), result("a"), HELLO])
    assert chat == [HELLO, call("a", "b"), result("a"), result("b", INTERRUPTED), HELLO]


def test_a_late_result_goes_behind_its_call(store: SessionStore) -> None:
    chat = chat_of(store, [call("a"), HELLO, call("b"), result("b"), result("a"), HELLO])
    assert chat == [call("a"), result("a"), HELLO, call("b"), result("b"), HELLO]


def test_an_id_that_is_used_again_answers_in_order(store: SessionStore) -> None:
    chat = [call("a"), result("a", "1"), call("a"), result("a", "2")]
    assert chat_of(store, chat) == chat


def test_legacy_function_calls_become_tool_calls(store: SessionStore) -> None:
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    chat = chat_of(store, [HELLO, legacy, {"role": "function", "name": "f", "content": "4"}])
    require_valid(chat)
    assert chat[1]["tool_calls"] == [{"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert (chat[2]["role"], chat[2]["tool_call_id"], chat[2]["content"]) == ("tool", "call_2", "4")


def test_items_become_the_chat_messages_that_say_the_same(store: SessionStore) -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert chat_of(store, [*items, NewMessage({"any": 1}, kind="own")]) == [
        {"role": "user", "content": "look"},
        {"role": "user", "content": [image]},
        call("c"),
        result("c"),
        {"role": "assistant", "content": "yes"},
    ]
    store.create("s")
    store.append_many("s", [*items, NewMessage({"any": 1}, kind="own"), result("nobody")])
    assert store.export_file(io.BytesIO(), format="openai").left_out == 3


ids = st.sampled_from(["a", "b", "c"])
steps = st.lists(
    st.one_of(
        st.lists(ids, min_size=1, max_size=3, unique=True).map(lambda made: call(*made)),
        ids.map(result),
        st.just(HELLO),
        st.just({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}),
        st.just({"type": "function_call_output", "call_id": "a", "output": "x"}),
        st.just({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}),
        st.just({"role": "function", "name": "f", "content": "x"}),
    ),
    max_size=12,
)


def test_every_history_goes_out_valid() -> None:
    with sessionstore.open(in_memory=True) as store:

        @RANDOM
        @given(steps)
        def valid(messages: list[Dict]) -> None:
            chat = chat_of(store, messages)
            require_valid(chat)
            assert chat_of(store, chat) == chat, "what is valid stays as it is"
            kept = [message for message in chat if message.get("content") == "hello"]
            assert len(kept) == messages.count(HELLO)

        valid()


def test_real_conversations_go_out_equal_but_for_calls_without_a_result(
    store: SessionStore, airline_conversations: list[Dict]
) -> None:
    interrupted = 0
    for conversation in airline_conversations:
        chat = chat_of(store, conversation["messages"])
        require_valid(chat)
        given_back = [message for message in chat if message["content"] != INTERRUPTED]
        assert given_back == conversation["messages"]
        interrupted += len(chat) - len(given_back)
    assert interrupted == sum(len(one["messages"][-1].get("tool_calls") or ()) for one in airline_conversations)


# -- items


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["message", "reasoning", "function_call", "function_call_output", "web_search_call", "novel_item"])
items = st.lists(
    st.builds(
        lambda kind, role, rest: {**rest, "type": kind, **role},
        kinds,
        st.sampled_from([{}, {"role": "user"}, {"role": "assistant", "content": []}]),
        st.dictionaries(st.sampled_from(["id", "status", "summary", "call_id", "name", "arguments", "output"]), json_values),
    )
    | st.just(HELLO),
    max_size=6,
)


@pytest.mark.parametrize("layout", ["responses", "responses-items"])
def test_items_come_back_equal(layout: Any) -> None:
    with sessionstore.open(in_memory=True) as store:

        @RANDOM
        @given(items)
        def equal(given_items: list[Dict]) -> None:
            store.create("s", metadata={"topic": "x"})
            store.append_many("s", given_items)
            stream = io.BytesIO()
            assert store.export_file(stream, format=layout, session_ids="s").left_out == 0
            store.delete("s")
            stream.seek(0)
            store.import_file(stream, format=layout, **({} if layout == "responses" else {"session_id": "s"}))
            assert [message.to_dict() for message in store.messages("s")] == given_items
            store.delete("s")

        equal()


def test_a_line_of_items_keeps_its_other_keys_and_is_known_by_them(store: SessionStore, tmp_path: Path) -> None:
    line = {"session_id": "s", "model": "m", "messages": "a key like any other", "items": [{"type": "reasoning", "summary": []}]}
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(line))
    assert store.import_file(path).format == "responses"
    assert exported(store, "s", "responses") == [line]


@pytest.mark.parametrize("layout", ["responses", "responses-items"])
def test_real_conversations_come_back_equal_as_items(tmp_path: Path, airline_conversations: list[Dict], layout: Any) -> None:
    with sessionstore.open(in_memory=True) as store, sessionstore.open(in_memory=True) as other:
        for number, conversation in enumerate(airline_conversations):
            store.create(f"s{number}")
            store.append_many(f"s{number}", conversation["messages"])
        for path in files(store, tmp_path, layout):
            other.import_file(path, format=layout)
        for number, conversation in enumerate(airline_conversations):
            assert [message.to_dict() for message in other.messages(f"s{number}")] == conversation["messages"]


def files(store: SessionStore, folder: Path, layout: Any) -> Iterator[Path]:
    if layout == "responses":
        store.export_file(folder / "all.jsonl", format=layout)
        yield folder / "all.jsonl"
        return
    for info in store.list(limit=200):
        store.export_file(folder / f"{info.session_id}.jsonl", format=layout, session_ids=info.session_id)
        yield folder / f"{info.session_id}.jsonl"


def test_a_bad_item_is_named_and_nothing_of_its_line_is_stored(store: SessionStore) -> None:
    lines = [{"items": [{"type": "reasoning"}]}, {"items": [{"type": "reasoning"}, {"type": 3}]}]
    data = "\n".join(map(json.dumps, lines)).encode()
    with pytest.raises(InvalidInputError, match=r"line 2 of stdin: items\[1\].*; 1 conversation before it is stored"):
        store.import_file(io.BytesIO(data))
    assert store.count() == 1


@pytest.mark.parametrize("layout", ["responses", "responses-items"])
def test_dicts_that_only_their_kind_tells_are_left_out_of_items(layout: Any) -> None:
    known = [{"type": "reasoning", "id": "r1"}, HELLO]
    with sessionstore.open(in_memory=True) as store, sessionstore.open(in_memory=True) as other:
        store.create("s")
        nobodys = [{"any": 1}, {"role": "boss", "content": "x"}, {"type": 7}]
        store.append_many("s", [known[0], *(NewMessage(each, kind="own") for each in nobodys), known[1]])
        stream = io.BytesIO()
        assert store.export_file(stream, format=layout, session_ids="s").left_out == 3
        stream.seek(0)
        other.import_file(stream, format=layout, **({} if layout == "responses" else {"session_id": "s"}))
        assert [message.to_dict() for message in other.messages("s")] == known
