"""Rows 41 to 87 of the catalogue of bad input: each call raises its typed error, and nothing was written."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import InvalidInputError, NewMessage, SessionStore

Dump = dict[str, list[tuple[Any, ...]]]
Call = Callable[[SessionStore], object]

WORDS = "the words of a user"


@pytest.fixture
def store(store: SessionStore) -> SessionStore:
    """A store with something in it that a half-done call could change."""
    chat = store.session("s", user_id="u", agent_id="a", title="t", tags=["one"], metadata={"k": 1})
    chat.append_many([{"role": "user", "content": f"message {number}"} for number in range(5)])
    chat.append("user", "once", dedupe_key="key")
    store.create("other")
    return store


@pytest.fixture
def refused(store: SessionStore, dump: Callable[[], Dump]) -> Callable[[Call, str], InvalidInputError]:
    """Run a call that must raise InvalidInputError about a field and leave every row as it was."""

    def run(call: Call, field: str) -> InvalidInputError:
        before = dump()
        with pytest.raises(InvalidInputError) as caught:
            call(store)
        # In a batch the field says which message; alone it is the field itself.
        assert re.sub(r"^messages\[\d+\]\.?", "", caught.value.field) in (field, field.removeprefix("message"))
        assert dump() == before
        assert WORDS not in str(caught.value)
        return caught.value

    return run


Refused = Callable[[Call, str], InvalidInputError]


# -- ids (rows 41 to 51)

BAD_IDS = {
    "41-empty": "",
    "41-space": " ",
    "41-tab": "\t",
    "42-int": 5,
    "42-bytes": b"x",
    "42-bool": True,
    "42-uuid": uuid.UUID(int=1),
    "44-nul": "a\0b",
    "45-surrogate": "x\ud800",
    "45-surrogateescape": b"x\xff".decode(errors="surrogateescape"),
    "46-long": "x" * 257,
    "46-million": "x" * 10**6,
    "47-decomposed": "e\u0301",
    "48-override": "a\u202eb",
    "48-zero-width": "a\u200bb",
    "48-bom": "\ufeffa",
}

TAKES_SESSION_ID: dict[str, Callable[[SessionStore, Any], object]] = {
    "session": lambda store, bad: store.session(bad),
    "create": lambda store, bad: store.create(bad),
    "get": lambda store, bad: store.get(bad),
    "update": lambda store, bad: store.update(bad, title="x"),
    "end": lambda store, bad: store.end(bad),
    "rename": lambda store, bad: store.rename(bad, "new"),
    "pin": lambda store, bad: store.pin(bad),
    "archive": lambda store, bad: store.archive(bad),
    "tag": lambda store, bad: store.tag(bad, "x"),
    "untag": lambda store, bad: store.untag(bad, "one"),
    "append": lambda store, bad: store.append(bad, "user", "x"),
    "append_many": lambda store, bad: store.append_many(bad, [{"role": "user", "content": "x"}]),
    "messages": lambda store, bad: store.messages(bad),
    "iterate": lambda store, bad: list(store.iterate(bad)),
    "pop": lambda store, bad: store.pop(bad),
    "truncate": lambda store, bad: store.truncate(bad, after=0),
    "clear": lambda store, bad: store.clear(bad),
    "open_tool_calls": lambda store, bad: store.open_tool_calls(bad),
    "check": lambda store, bad: store.check(bad),
    "repair": lambda store, bad: store.repair(bad),
}

TAKES_OTHER_ID: dict[str, tuple[str, Callable[[SessionStore, Any], object]]] = {
    "new_session_id": ("new_session_id", lambda store, bad: store.rename("s", bad)),
    "session_ids": ("session_ids", lambda store, bad: store.delete(["s", bad])),
    "user_id": ("user_id", lambda store, bad: store.create("new", user_id=bad)),
    "agent_id": ("agent_id", lambda store, bad: store.update("s", agent_id=bad)),
    "tags": ("tags", lambda store, bad: store.create("new", tags=["good", bad])),
    "new_tags": ("tags", lambda store, bad: store.update("s", tags=["good", bad])),
    "tag": ("tags", lambda store, bad: store.tag("s", "good", bad)),
    "untag": ("tags", lambda store, bad: store.untag("s", "one", bad)),
    "dedupe_key": ("dedupe_key", lambda store, bad: store.append("s", "user", "x", dedupe_key=bad)),
    "model": ("model", lambda store, bad: store.append("s", "assistant", "x", model=bad)),
    "finish_reason": ("finish_reason", lambda store, bad: store.append("s", "assistant", "x", finish_reason=bad)),
    "kind": ("kind", lambda store, bad: store.append("s", {"a": 1}, kind=bad)),
    "type": ("message.type", lambda store, bad: store.append("s", {"type": bad})),
    "list": ("user_id", lambda store, bad: store.list(user_id=bad)),
    "count": ("agent_id", lambda store, bad: store.count(agent_id=bad)),
    "delete": ("user_id", lambda store, bad: store.delete(user_id=bad)),
}


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_rows_41_to_48_a_bad_session_id_is_refused_by_every_call(refused: Refused, bad: object) -> None:
    for call in TAKES_SESSION_ID.values():
        refused(lambda store, call=call: call(store, bad), "session_id")


def test_row_42_none_is_no_session_id(refused: Refused) -> None:
    for call in TAKES_SESSION_ID.values():
        refused(lambda store, call=call: call(store, None), "session_id")


@pytest.mark.parametrize("bad", BAD_IDS.values(), ids=BAD_IDS)
def test_rows_41_to_48_every_other_id_is_refused_too(refused: Refused, bad: object) -> None:
    for field, call in TAKES_OTHER_ID.values():
        refused(lambda store, call=call: call(store, bad), field)


@pytest.mark.parametrize("bad", [value for name, value in BAD_IDS.items() if name != "41-empty"] + [None])
def test_rows_41_to_48_a_bad_namespace_is_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.in_namespace(bad), "namespace")


LITERAL_IDS = [
    "../../etc/cron.d/x", "/abs", "C:\\x", "..", ".", "con", "a/b",
    "' OR 1=1 --", '"; DROP TABLE sessions; --', "%", "_", "$.a", "{}", "x' AND '1'='1", "a%", "*", "é", "x" * 256,
]  # fmt: skip


def test_rows_43_and_49_ids_are_data_and_nothing_else(store: SessionStore, store_path: Path) -> None:
    for number, odd in enumerate(LITERAL_IDS):
        chat = store.session(odd, user_id=odd, agent_id=odd, tags=[odd])
        chat.append("user", str(number), dedupe_key=odd)
    assert store.count() == len(LITERAL_IDS) + 2
    for number, odd in enumerate(LITERAL_IDS):
        assert [message.text for message in store.messages(odd)] == [str(number)]
        for filters in ({"user_id": odd}, {"agent_id": odd}, {"tag": odd}):
            assert [info.session_id for info in store.list(**filters)] == [odd]  # type: ignore[arg-type]
    assert store.delete(LITERAL_IDS).sessions == len(LITERAL_IDS)
    assert {info.session_id for info in store.list()} == {"s", "other"}
    assert {inner.name for inner in store_path.parent.iterdir()} <= {store_path.name + end for end in ("", "-wal", "-shm", "-lock")}


def test_row_47_ids_are_compared_as_given_and_only_the_composed_form_is_taken(store: SessionStore) -> None:
    store.create("caf\u00e9")
    assert store.get("caf\u00e9") is not None
    with pytest.raises(InvalidInputError, match="NFC"):
        store.get("cafe\u0301")


def test_row_50_the_case_of_an_id_matters(store: SessionStore) -> None:
    store.create("Alice", tags=["Blue"])
    store.create("alice", tags=["blue"])
    assert [info.session_id for info in store.list(tag="Blue")] == ["Alice"]
    assert store.delete("alice").sessions == 1
    assert store.get("Alice") is not None


class LyingStr(str):
    """A text that lies about itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7

    def __str__(self) -> str:
        return "a lie"


def test_row_51_a_text_that_lies_is_stored_as_what_it_holds(store: SessionStore) -> None:
    chat = store.session(LyingStr("truth"), user_id=LyingStr("u1"), tags=[LyingStr("t1"), LyingStr("t2")])
    chat.append("user", LyingStr("words"), model=LyingStr("m1"))
    info = store.get("truth")
    assert info is not None
    assert (info.session_id, info.user_id, info.tags) == ("truth", "u1", ("t1", "t2"))
    (message,) = store.messages("truth")
    assert (message.text, message.model) == ("words", "m1")


# -- text and roles (rows 52 to 60)

KEPT_TEXTS = [
    "a\0b",
    "\0",
    "\uffff",
    "👩\u200d👩\u200d👧",
    "\ufeffbom",
    "\u202eright to left",
    "e\u0301",
    "",
    "None",
    "\r\n",
    "x" * 100_000,
]


def test_rows_52_54_and_55_texts_are_kept_equal(store: SessionStore, store_path: Path) -> None:
    chat = store.session("texts")
    for role in ("system", "developer", "user", "assistant", "tool", "function"):
        chat.append_many([{"role": role, "content": text} for text in KEPT_TEXTS])
    expected = KEPT_TEXTS * 6
    assert [message.text for message in chat.messages()] == expected
    store.close()
    with sessionstore.open(store_path) as again:
        assert [message.content for message in again.messages("texts")] == expected


@pytest.mark.parametrize("text", ["\ud800", "a\udc00b", "x" * 1_000 + "\udfff"])
def test_row_53_a_lone_surrogate_is_refused(refused: Refused, text: str) -> None:
    refused(lambda store: store.append("s", "user", text), "content")
    refused(lambda store: store.append("s", {"role": "user", "content": [{"type": "text", "text": text}]}), "message")
    refused(
        lambda store: store.append_many("s", [{"role": "user", "content": "fine"}, {"role": "user", "content": text}]), "content"
    )
    refused(lambda store: store.update("s", title=text[-100:]), "title")
    refused(lambda store: store.list(text=text[-100:]), "text")
    refused(lambda store: store.end("s", "failed", error=text), "error")


@pytest.mark.parametrize("character", ["a", "é", "🙂"])
def test_row_56_the_limit_counts_bytes(tmp_path: Path, character: str) -> None:
    width = len(character.encode())
    limit = 600 * width
    with sessionstore.open(tmp_path / "small.db", max_text_bytes=limit) as store:
        chat = store.session("s")
        chat.append("user", character * 600)
        with pytest.raises(InvalidInputError, match=str(limit)) as caught:
            chat.append("user", character * 600 + "a")
        assert caught.value.limit == limit
        with pytest.raises(InvalidInputError):
            chat.append("user", [{"type": "text", "text": character * 600}])
        assert [message.text for message in chat.messages()] == [character * 600]


def test_row_56_titles_and_errors_have_their_limits(refused: Refused) -> None:
    assert refused(lambda store: store.update("s", title="x" * 1_001), "title").limit == 1_000
    assert refused(lambda store: store.create("new", title="x" * 1_001), "title").limit == 1_000
    assert refused(lambda store: store.end("s", "failed", error="x" * 10_001), "error").limit == 10_000
    assert refused(lambda store: store.list(text="x" * 1_001), "text").limit == 1_000


def test_row_57_more_than_sqlite_can_hold_is_refused_first(refused: Refused) -> None:
    """The gigabyte itself is tried in the unit tests; here it is the default limit that stops a large text."""
    assert refused(lambda store: store.append("s", "user", "x" * ((64 << 20) + 1)), "content").limit == 64 << 20


@pytest.mark.parametrize("content", [b"x", bytearray(b"x"), memoryview(b"x"), 5, 5.0, True, {"a": 1}, ("a",), {"a"}, object()])
def test_rows_58_and_60_only_texts_and_parts_are_contents(refused: Refused, content: Any) -> None:
    refused(lambda store: store.append("s", "user", content), "content")


@pytest.mark.parametrize("content", [b"x", bytearray(b"x"), memoryview(b"x"), ("a",), {"a"}, object()])
def test_row_58_bytes_in_a_message_dict_are_refused(refused: Refused, content: Any) -> None:
    refused(lambda store: store.append("s", {"role": "user", "content": content}), "message")
    refused(lambda store: store.append("s", {"role": "user", "content": [content]}), "message")


@pytest.mark.parametrize("role", ["root", "User", "USER", " user", "", "x" * 100_000, "user\0"])
def test_row_59_an_unknown_role_is_refused(refused: Refused, role: str) -> None:
    refused(lambda store: store.append("s", role, WORDS), "role")
    refused(lambda store: store.append("s", {"role": role, "content": WORDS}), "role")
    refused(lambda store: store.append("s", NewMessage({"role": role, "content": WORDS}).message), "role")


@pytest.mark.parametrize("message", [None, 5, b"user", [], ("user", "x"), {}, {"content": "x"}])
def test_row_60_only_a_dict_or_a_role_is_a_message(refused: Refused, message: Any) -> None:
    refused(lambda store: store.append("s", message), "message")
    refused(lambda store: store.append_many("s", [{"role": "user", "content": "x"}, message]), "message")


@pytest.mark.parametrize("messages", [None, 5, "user", b"x", {"role": "user", "content": "x"}])
def test_row_60_only_a_list_of_messages_is_a_batch(refused: Refused, messages: Any) -> None:
    refused(lambda store: store.append_many("s", messages), "messages")


def test_a_batch_has_a_limit(refused: Refused) -> None:
    one = {"role": "user", "content": "x"}
    assert refused(lambda store: store.append_many("s", [one] * 100_001), "messages").limit == 100_000
    assert refused(lambda store: store.append_many("s", itertools.repeat(one)), "messages").limit == 100_000


def test_a_dict_and_arguments_for_a_role_do_not_go_together(refused: Refused) -> None:
    one = {"role": "user", "content": "x"}
    refused(lambda store: store.append("s", one, "y"), "content")
    refused(lambda store: store.append("s", one, name="n"), "content")
    refused(lambda store: store.append("s", one, tool_calls=[]), "content")


# -- metadata, tool calls, JSON (rows 61 to 74)


def nested(depth: int) -> dict[str, Any]:
    root: dict[str, Any] = {}
    inner = root
    for _ in range(depth - 1):
        inner["a"] = {}
        inner = inner["a"]
    return root


def cyclic() -> dict[str, Any]:
    root: dict[str, Any] = {}
    root["a"] = [root]
    return root


BAD_JSON = {
    "61-nan": {"a": math.nan},
    "61-inf": {"a": [-math.inf]},
    "62-depth": nested(66),
    "62-depth-1100": nested(1_100),
    "63-cycle": cyclic(),
    "64-set": {"a": {1}},
    "64-bytes": {"a": b"x"},
    "64-datetime": {"a": datetime.now(UTC)},
    "64-decimal": {"a": Decimal(1)},
    "64-object": {"a": object()},
    "65-int-key": {1: "a"},
    "65-none-key": {None: "a"},
    "65-bool-key": {True: "a"},
    "65-tuple-key": {(1, 2): "a"},
    "65-both-keys": {1: "a", "1": "b"},
    "66-huge-int": {"a": 10**5_000},
    "67-beyond-64-bit": {"a": 2**63},
    "68-surrogate": {"a": "\ud800"},
    "69-keys": {f"k{number}": 0 for number in range(100_001)},
    "69-ints": {"a": [0] * 2_000_000},
}


@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON)
def test_rows_61_to_69_bad_json_is_refused_wherever_json_is_taken(refused: Refused, bad: dict[Any, Any]) -> None:
    refused(lambda store: store.create("new", metadata=bad), "metadata")
    refused(lambda store: store.session("new", metadata=bad), "metadata")
    refused(lambda store: store.update("s", metadata=bad), "metadata")
    refused(lambda store: store.append("s", "user", "x", metadata=bad), "metadata")
    refused(lambda store: store.append_many("s", [NewMessage({"role": "user", "content": "x"}, metadata=bad)]), "metadata")
    refused(lambda store: store.append("s", "assistant", None, tool_calls=[bad]), "message")
    refused(lambda store: store.append("s", "user", [bad]), "message")
    refused(lambda store: store.append("s", {"role": "user", "content": "x", "more": bad}), "message")
    refused(lambda store: store.append("s", {"type": "note", "more": bad}), "message")
    refused(lambda store: store.append("s", {"more": bad}, kind="note"), "message")


@pytest.mark.parametrize("bad", [[], ["a"], "{}", 5, True])
def test_row_70_metadata_is_a_dict(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.create("new", metadata=bad), "metadata")
    refused(lambda store: store.update("s", metadata=bad), "metadata")
    refused(lambda store: store.append("s", "user", "x", metadata=bad), "metadata")
    refused(lambda store: store.list(metadata=bad), "metadata")


def test_rows_62_and_67_the_largest_json_comes_back_equal(store: SessionStore, store_path: Path) -> None:
    large = {"a": 2**63 - 1, "b": -(2**63), "deep": nested(63), "text": "é" * 1_000, "f": [5e-324, 1.7976931348623157e308, 0.1]}
    store.update("s", metadata=large)
    store.append("s", "user", "x", metadata=large)
    store.append("s", {"type": "note", "more": nested(63)})
    store.close()
    with sessionstore.open(store_path) as again:
        info = again.get("s")
        assert info is not None
        assert info.metadata == large
        assert again.messages("s")[-2].metadata == large
        assert again.messages("s")[-1].to_dict() == {"type": "note", "more": nested(63)}


@pytest.mark.parametrize("key", ["x') OR 1=1 --", 'a"b', "$", "[0]", "", "a b", "é", "a" * 129, "a'", "a\0", 5])
def test_row_71_a_filter_key_with_a_meaning_is_refused(refused: Refused, key: Any) -> None:
    refused(lambda store: store.list(metadata={key: 1}), "metadata")
    refused(lambda store: store.count(metadata={key: 1}), "metadata")
    refused(lambda store: store.delete(metadata={key: 1}), "metadata")


def test_row_71_a_dot_in_a_filter_key_is_a_dot(store: SessionStore) -> None:
    store.create("flat", metadata={"a.b": 1})
    store.create("deep", metadata={"a": {"b": 1}})
    assert [info.session_id for info in store.list(metadata={"a.b": 1})] == ["flat"]


@pytest.mark.parametrize(
    ("value", "field"),
    [({"$gt": 5}, "metadata.k"), ({"like": "%"}, "metadata.k"), ([1], "metadata.k"), ((1,), "metadata"), ({1}, "metadata")],
)
def test_row_72_there_are_no_filter_operators(refused: Refused, value: Any, field: str) -> None:
    refused(lambda store: store.list(metadata={"k": value}), field)
    refused(lambda store: store.count(metadata={"k": value}), field)
    refused(lambda store: store.delete(metadata={"k": value}), field)


@pytest.mark.parametrize("value", ["1' OR '1'='1", "%", "_", "1", "true", "null"])
def test_rows_71_and_72_a_filter_value_is_only_a_value(store: SessionStore, value: str) -> None:
    assert not store.list(metadata={"k": value})
    store.update("other", metadata={"k": value})
    assert [info.session_id for info in store.list(metadata={"k": value})] == ["other"]


def test_row_74_what_is_stored_does_not_change_with_the_callers_dict(store: SessionStore) -> None:
    metadata = {"list": [1]}
    message = {"role": "user", "content": [{"type": "text", "text": "before"}]}
    returned = [
        store.create("c", metadata=metadata),
        store.session("g", metadata=metadata).get(),
        store.update("s", metadata=metadata),
    ]
    appended = store.append("s", message, metadata=metadata)
    metadata["list"].append(2)
    message["content"][0]["text"] = "after"  # type: ignore[index]
    assert all(info is not None and info.metadata == {"list": [1]} for info in returned)
    for stored in (appended, store.messages("s")[-1]):
        assert stored.to_dict() == {"role": "user", "content": [{"type": "text", "text": "before"}]}
        assert stored.metadata == {"list": [1]}


def test_row_74_a_dict_that_changes_while_the_call_waits_is_stored_as_it_was_given(store: SessionStore) -> None:
    """The values were checked when the call began; what another thread puts into the dict afterwards was not."""
    metadata: dict[str, Any] = {"inner": {"a": 1}}
    writer = store._database.writer
    entered, leave = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        entered.set()
        leave.wait(30)

    holder = threading.Thread(target=lambda: writer.exclusively(hold, timeout=30))
    holder.start()
    entered.wait(30)
    caller = threading.Thread(target=lambda: store.update("s", metadata=metadata))
    caller.start()
    while not writer._pending and caller.is_alive():
        caller.join(0.001)
    assert caller.is_alive()
    metadata["inner"]["a"] = math.nan
    leave.set()
    caller.join(30)
    holder.join(30)
    info = store.get("s")
    assert info is not None
    assert info.metadata == {"inner": {"a": 1}}


# -- numbers (rows 75 to 79, 86)

NO_SCORES = [math.nan, math.inf, 1e309, 0, 6, -1, 5.0, "5", True, 10**5_000, 2**63, b"5", Decimal(5)]
NO_COUNTS = [-1, 2**63, 10**5_000, "5", 5.0, 1e20, True, math.nan, b"5", [5]]
NO_DURATIONS = [-1, -0.001, math.nan, math.inf, -math.inf, 1e309, "5", True, 10**5_000, Decimal(1)]


@pytest.mark.parametrize("bad", NO_SCORES, ids=lambda value: type(value).__name__)
def test_rows_75_to_79_a_bad_score_is_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.end("s", quality_score=bad), "quality_score")


@pytest.mark.parametrize("bad", NO_COUNTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"])
def test_rows_75_to_79_a_bad_count_is_refused(refused: Refused, name: str, bad: Any) -> None:
    refused(lambda store: store.append("s", "assistant", "x", **{name: bad}), name)


@pytest.mark.parametrize("bad", NO_DURATIONS, ids=lambda value: type(value).__name__)
def test_rows_75_to_79_a_bad_duration_is_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.append("s", "assistant", "x", response_time_ms=bad), "response_time_ms")


def test_row_77_minus_zero_is_zero(store: SessionStore) -> None:
    assert store.append("s", "user", "x", response_time_ms=-0.0).response_time_ms == 0
    assert store.messages("s", last=1)[0].response_time_ms == 0


def test_row_78_the_largest_numbers_come_back_equal(store: SessionStore) -> None:
    store.append("s", "user", "x", input_tokens=2**63 - 1, response_time_ms=1.7976931348623157e308)
    (message,) = store.messages("s", last=1)
    assert (message.input_tokens, message.response_time_ms) == (2**63 - 1, 1.7976931348623157e308)


NO_NUMBERS = [-1, "10; DROP TABLE sessions", True, 1.0, 2**63, 10**5_000, b"1", [1]]


@pytest.mark.parametrize("bad", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_row_86_bad_limits_are_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.list(limit=bad), "limit")
    refused(lambda store: store.messages("s", last=bad), "last")
    refused(lambda store: store.messages("s", before=bad), "before")
    refused(lambda store: store.messages("s", after=bad), "after")
    refused(lambda store: list(store.iterate("s", after=bad)), "after")
    refused(lambda store: list(store.iterate("s", page_size=bad)), "page_size")
    refused(lambda store: store.truncate("s", after=bad), "after")
    refused(lambda store: store.update("s", title="x", expected_version=bad), "expected_version")


@pytest.mark.parametrize("limit", [0, 1_001, 10**9, None])
def test_row_86_a_page_has_from_1_to_1000_sessions(refused: Refused, limit: Any) -> None:
    refused(lambda store: store.list(limit=limit), "limit")


@pytest.mark.parametrize("bad", [0, 1, None, "yes"])
def test_row_79_only_true_and_false_are_flags(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.pin("s", bad), "pinned")
    refused(lambda store: store.archive("s", bad), "archived")
    refused(lambda store: store.create("new", pinned=bad), "pinned")
    refused(lambda store: store.messages("s", keep_pairs=bad), "keep_pairs")
    refused(lambda store: store.delete("s", dry_run=bad), "dry_run")


@pytest.mark.parametrize("bad", ["Open", "", "closed", 5, ["open"]])
def test_an_unknown_status_is_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.list(status=bad), "status")
    refused(lambda store: store.end("s", bad), "status")
    refused(lambda store: store.end("s", "open"), "status")  # type: ignore[arg-type]
    refused(lambda store: store.end("s", "expired"), "status")  # type: ignore[arg-type]


# -- timestamps (rows 80 to 83)

BAD_INSTANTS = {
    "80-naive": datetime(2024, 2, 1),  # noqa: DTZ001 - the very thing that is refused
    "81-february-30": "2024-02-30T00:00:00+00:00",
    "81-leap-second": "2024-02-01T23:59:60+00:00",
    "81-hour-24": "2024-02-01T24:00:00+00:00",
    "81-offset": "2024-02-01T00:00:00+25:00",
    "81-digits": "٢٠٢٤-02-01",
    "82-year-1": datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "82-year-10000": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    "82-seconds": 1e18,
    "82-nan": math.nan,
    "82-date": date(2024, 2, 1),
    "83-text": "2024-02-01T00:00:00.1234567+00:00",
}


@pytest.mark.parametrize("bad", BAD_INSTANTS.values(), ids=BAD_INSTANTS)
def test_rows_80_to_82_a_bad_instant_is_refused(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.append("s", "user", "x", created_at=bad), "created_at")
    refused(lambda store: store.list(since=bad), "since")
    refused(lambda store: store.count(until=bad), "until")
    refused(lambda store: store.delete(until=bad), "until")


@pytest.mark.parametrize(
    "instant", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)]
)
def test_row_82_the_edges_of_time_come_back_equal(store: SessionStore, instant: datetime) -> None:
    store.append("s", "user", "x", created_at=instant)
    assert store.messages("s", last=1)[0].created_at == instant
    assert len(store.list(since=instant)) + len(store.list(until=instant)) == 2


# -- cursors (row 87)


@pytest.fixture
def cursor(store: SessionStore) -> str:
    for number in range(5):
        store.create(f"n{number}", user_id="u")
    found = store.list(user_id="u", limit=2).next_cursor
    assert found is not None
    return found


BAD_CURSORS = {
    "empty": "",
    "words": "next",
    "null": base64.urlsafe_b64encode(b"null").decode(),
    "number": base64.urlsafe_b64encode(b"5").decode(),
    "pair": base64.urlsafe_b64encode(b"[1, 2]").decode(),
    "list": base64.urlsafe_b64encode(b'[[1, "2024-02-01 00:00:00.000000", 5], "0123456789abcdef"]').decode(),
    "not-ascii": "é",
    "surrogate": "\ud800",
    "nul": "\0",
    "huge-number": base64.urlsafe_b64encode(b"9" * 5_000).decode(),
    "deep": base64.urlsafe_b64encode(b"[" * 200_000).decode(),
    "long": "A" * 1_000_000,
}


@pytest.mark.parametrize("bad", BAD_CURSORS.values(), ids=BAD_CURSORS)
def test_row_87_a_cursor_that_is_none_is_refused(refused: Refused, bad: str) -> None:
    refused(lambda store: store.list(cursor=bad), "cursor")


@pytest.mark.parametrize("bad", [5, b"x", True, [], 1.5])
def test_row_87_a_cursor_is_a_text(refused: Refused, bad: Any) -> None:
    refused(lambda store: store.list(cursor=bad), "cursor")


def test_row_87_a_cursor_belongs_to_its_filters(refused: Refused, store: SessionStore, cursor: str) -> None:
    assert len(store.list(user_id="u", limit=2, cursor=cursor)) == 2
    for filters in ({}, {"user_id": "v"}, {"user_id": "u", "agent_id": "a"}, {"user_id": "u", "archived": None}, {"tag": "one"}):
        refused(lambda store, filters=filters: store.list(cursor=cursor, **filters), "cursor")
    refused(lambda store: store.in_namespace("other").list(user_id="u", cursor=cursor), "cursor")


def test_row_87_a_cursor_of_another_version_is_refused(refused: Refused, cursor: str) -> None:
    place, seal = json.loads(base64.urlsafe_b64decode(cursor))
    for changed in ([[place[0] + 1, *place[1:]], seal], [[*place[:-1], place[-1] + 1], seal], [place, seal[:-1]], [place]):
        text = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode()
        refused(lambda store, text=text: store.list(user_id="u", cursor=text), "cursor")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 1_000), letter=st.sampled_from("ABCDEFabcdef0189-_=+ !"), insert=st.booleans())
@example(position=0, letter="A", insert=True)
def test_row_87_a_tampered_cursor_is_refused_or_means_the_same(
    store: SessionStore, cursor: str, position: int, letter: str, insert: bool
) -> None:
    place = position % len(cursor)
    tampered = cursor[:place] + letter + cursor[place + (not insert) :]
    try:
        page = store.list(user_id="u", limit=2, cursor=tampered)
    except InvalidInputError as error:
        assert error.field == "cursor"  # noqa: PT017 - the other branch is a success, too
    else:
        assert page == store.list(user_id="u", limit=2, cursor=cursor)


# -- deleting by mistake


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"tag": None},
        {"tag": []},
        {"metadata": {}},
        {"metadata": None},
        {"archived": None},
        {"since": None, "until": None},
    ],
    ids=str,
)
def test_a_delete_that_chooses_nothing_deletes_nothing(refused: Refused, arguments: dict[str, Any]) -> None:
    """A variable that is None by mistake must not delete every session."""
    refused(lambda store: store.delete(**arguments), "session_ids")


def test_a_delete_takes_ids_or_filters(refused: Refused) -> None:
    refused(lambda store: store.delete("s", user_id="u"), "session_ids")
    for bad in (5, {"s": 1}, b"s"):
        refused(lambda store, bad=bad: store.delete(bad), "session_ids")  # type: ignore[arg-type]


# -- whatever comes in

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=anything | st.dictionaries(st.sampled_from(["role", "content", "type", "tool_calls"]), anything),
    metadata=anything,
    key=anything,
)
def test_an_append_stores_all_of_it_or_refuses_it(
    store: SessionStore, dump: Callable[[], Dump], message: Any, metadata: Any, key: Any
) -> None:
    before = len(store.messages("s"))
    try:
        stored = store.append("s", message, metadata=metadata, model=key)
    except InvalidInputError:
        assert len(store.messages("s")) == before
    else:
        (read,) = store.messages("s", last=1)
        assert read == stored
        assert (read.metadata, read.model) == (metadata, key)
        assert isinstance(message, str) or read.to_dict() == message


def test_the_dump_sees_a_write(store: SessionStore, dump: Callable[[], Dump]) -> None:
    """The tests above compare dumps: this one shows that the comparison can fail."""
    before = dump()
    store.append("s", "user", "x")
    assert dump() != before


def test_no_refused_input_leaves_a_lock_behind(store: SessionStore, store_path: Path) -> None:
    import sqlite3

    for call in TAKES_SESSION_ID.values():
        with pytest.raises(InvalidInputError):
            call(store, "")
    with closing(sqlite3.connect(store_path, timeout=0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
