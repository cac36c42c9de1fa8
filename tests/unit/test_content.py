"""Any message dict comes back equal from the columns that it is kept in."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import InvalidInputError, content
from sessionstore.rows import prepare

LIMIT = 1 << 20

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
identifiers = st.from_regex(r"[A-Za-z][A-Za-z0-9_.:-]{0,30}", fullmatch=True)
odd_keys = st.sampled_from(
    ["content", "role", "type", "tool_calls", "tool_call_id", "call_id", "name", "id", "seq", "kind", "text", "extra",
     "input_tokens", "model", "metadata", "crc", "", "\0", "a.b", '"', "$", "__class__", "self", "🙂"]
)  # fmt: skip
bodies = st.dictionaries(odd_keys | texts, json_values, max_size=6)


@st.composite
def chat_messages(draw: st.DrawFn) -> dict[str, Any]:
    message = draw(bodies)
    message.pop("type", None)
    message["role"] = draw(st.sampled_from(content.ROLES))
    return message


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    """What the Responses API and others pass around: a type decides, a role may be anything."""
    return {**draw(bodies), "type": draw(identifiers.filter(lambda kind: kind != content.MESSAGE_KIND))}


def stored_and_read(message: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
    stored = content.encode(message, kind=kind, max_bytes=LIMIT)
    return content.decode(stored.role, stored.text, stored.extra)


def same(left: object, right: object) -> bool:
    """Equal in value and type, so that 1, 1.0 and True are three things."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(chat_messages())
def test_any_chat_message_comes_back_equal(message: dict[str, Any]) -> None:
    assert same(stored_and_read(message), message)


@given(items())
def test_any_item_with_a_type_comes_back_equal(message: dict[str, Any]) -> None:
    assert content.encode(message, kind=None, max_bytes=LIMIT).kind == message["type"]
    assert same(stored_and_read(message), message)


@given(bodies, identifiers.filter(lambda kind: kind != content.MESSAGE_KIND))
def test_any_dict_under_a_kind_comes_back_equal(message: dict[str, Any], kind: str) -> None:
    assert content.encode(message, kind=kind, max_bytes=LIMIT).kind == kind
    assert same(stored_and_read(message, kind), message)


@settings(max_examples=25, deadline=None)
@given(st.lists(chat_messages() | items(), min_size=1, max_size=20))
def test_any_message_comes_back_equal_from_a_real_file(
    tmp_path_factory: pytest.TempPathFactory, messages: list[dict[str, Any]]
) -> None:
    path: Path = tmp_path_factory.mktemp("content") / "agent.db"
    with sessionstore.open(path) as store:
        appended = store.session("s").append_many(messages)
        assert same([message.to_dict() for message in appended], messages)
    with sessionstore.open(path) as store:
        assert same([message.to_dict() for message in store.messages("s")], messages)
        assert store.messages("s") == appended


CONTENTS = {
    "absent": {"role": "user"},
    "none": {"role": "user", "content": None},
    "empty": {"role": "user", "content": ""},
    "text": {"role": "user", "content": "x"},
    "word-none": {"role": "user", "content": "None"},
    "nul": {"role": "user", "content": "a\0b"},
    "list": {"role": "user", "content": []},
    "parts": {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
    "parts-of-texts": {"role": "user", "content": ["a", "b"]},
    "dict": {"role": "user", "content": {"text": "a"}},
    "number": {"role": "user", "content": 5},
    "false": {"role": "user", "content": False},
    "with-name": {"role": "user", "content": "x", "name": "bob"},
    "none-with-calls": {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
    "absent-with-calls": {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
    "none-calls": {"role": "assistant", "content": "x", "tool_calls": None},
    "odd-calls": {"role": "assistant", "content": "x", "tool_calls": ["c", {"id": 5}, {}]},
    "type-message": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
    "type-message-without-role": {"type": "message", "content": "x"},
    "columns-as-keys": {"role": "user", "content": "x", "text": "y", "extra": {"content": "z"}, "kind": "k", "seq": 9, "crc": 0},
}


@pytest.mark.parametrize("message", CONTENTS.values(), ids=CONTENTS)
def test_absent_none_text_list_and_dict_contents_stay_what_they_are(message: dict[str, Any]) -> None:
    assert same(stored_and_read(message), message)


def test_all_contents_are_told_apart_in_their_columns() -> None:
    stored = [content.encode(message, kind=None, max_bytes=LIMIT) for message in CONTENTS.values()]
    assert len(set(stored)) == len(CONTENTS)


def test_a_plain_message_needs_no_json() -> None:
    stored = content.encode({"role": "user", "content": "Hello"}, kind=None, max_bytes=LIMIT)
    assert stored == ("message", "user", "Hello", None)


def test_the_readable_words_of_a_content() -> None:
    parts = [
        {"type": "text", "text": "first"},
        {"type": "image_url"},
        "loose",
        {"text": 5},
        {"type": "input_text", "text": "second"},
    ]
    assert content.words(parts) == "first\nsecond"
    assert content.words("a text") == "a text"
    for wordless in ([], [{"type": "image_url"}], {"text": "x"}, None, 5):
        assert content.words(wordless) is None


def test_an_opaque_item_may_have_any_role() -> None:
    for role in ("root", None, 5, ["user"], {}):
        message = {"type": "note", "role": role, "content": "x"}
        assert same(stored_and_read(message), message)


@pytest.mark.parametrize("role", ["root", "User", "user ", "", "x" * 100_000, None, 5, b"user", ["user"]])
def test_an_unknown_role_of_a_message_is_refused(role: object) -> None:
    with pytest.raises(InvalidInputError, match="system, developer, user, assistant, tool, function") as caught:
        content.encode({"role": role, "content": "x"}, kind=None, max_bytes=LIMIT)
    assert caught.value.field == "role"


@pytest.mark.parametrize("message", [None, [], "user", 5, b"{}", [("role", "user")], MappingProxyType({"role": "user"})])
def test_only_a_dict_is_a_message(message: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        content.encode(message, kind=None, max_bytes=LIMIT)
    assert caught.value.field == "message"


@pytest.mark.parametrize("message", [{}, {"content": "x"}, {"type": ""}, {"type": None}, {"type": 5}, {"type": "a\0"}])
def test_a_dict_that_does_not_say_what_it_is_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"^message"):
        content.encode(message, kind=None, max_bytes=LIMIT)


def test_subclasses_of_dict_are_dicts() -> None:
    ordered = OrderedDict(role="user", content="x", name="n")
    defaulting = defaultdict(list, {"role": "user", "content": "x"})
    for message in (ordered, defaulting):
        assert stored_and_read(message) == dict(message)
    assert "tool_calls" not in defaulting


def test_the_limit_holds_for_the_text_and_for_the_rest() -> None:
    with pytest.raises(InvalidInputError) as caught:
        content.encode({"role": "user", "content": "é" * 51}, kind=None, max_bytes=100)
    assert (caught.value.field, caught.value.limit) == ("content", 100)
    with pytest.raises(InvalidInputError) as caught:
        content.encode({"role": "user", "content": ["x" * 100]}, kind=None, max_bytes=100)
    assert (caught.value.field, caught.value.limit) == ("message", 100)


# -- tool calls


def call_ids(message: dict[str, Any]) -> tuple[list[str], str | None]:
    return content.call_ids(content.encode(message, kind=None, max_bytes=LIMIT).kind, message)


@pytest.mark.parametrize(
    ("message", "calls", "answered"),
    [
        ({"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]}, ["a", "b"], None),
        ({"role": "assistant", "tool_calls": [{"id": "é\0"}, {"id": None}, {}, "x"]}, ["é\0"], None),
        ({"role": "tool", "tool_call_id": "a", "content": "x"}, [], "a"),
        ({"role": "tool", "tool_call_id": None, "content": "x"}, [], None),
        ({"type": "function_call", "call_id": "a", "id": "fc", "name": "f"}, ["a"], None),
        ({"type": "custom_tool_call", "call_id": "a", "input": "x"}, ["a"], None),
        ({"type": "function_call_output", "call_id": "a", "output": "x"}, [], "a"),
        ({"type": "custom_tool_call_output", "call_id": "a", "output": "x"}, [], "a"),
        ({"type": "reasoning", "call_id": "a"}, [], None),
        ({"role": "user", "content": "call_id"}, [], None),
    ],
)
def test_call_ids_are_columns(message: dict[str, Any], calls: list[str], answered: str | None) -> None:
    assert call_ids(message) == (calls, answered)


def test_more_than_a_thousand_calls_are_refused() -> None:
    calls = [{"id": f"c{number}"} for number in range(1_001)]
    assert len(call_ids({"role": "assistant", "tool_calls": calls[:1_000]})[0]) == 1_000
    with pytest.raises(InvalidInputError) as caught:
        prepare({"role": "assistant", "tool_calls": calls}, max_bytes=LIMIT)
    assert (caught.value.field, caught.value.limit) == ("message.tool_calls", 1_000)


def test_calls_are_described_in_either_style() -> None:
    chat = {
        "role": "assistant",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}, {"id": "b", "name": "g"}],
    }
    assert list(content.calls_of(chat)) == [("a", "f", "{}"), ("b", "g", None)]
    item = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    assert list(content.calls_of(item)) == [("a", "f", "{}")]
    custom = {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "text"}
    assert list(content.calls_of(custom)) == [("a", "f", "text")]
    assert list(content.calls_of({"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": 5}}]})) == [
        ("a", None, None)
    ]
