"""Which result answers which call, and the order that chat APIs ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import Message, ToolCall, ToolResult
from sessionstore.pairs import Pairing, arranged, interrupted_result, report
from sessionstore.rows import prepare

NOW = "2024-02-01 12:00:00.000000"


def messages(*dicts: dict[str, Any], first: int = 1) -> list[Message]:
    return [Message("s", prepare(one, max_bytes=10_000).row(1 << 24 | seq, NOW)) for seq, one in enumerate(dicts, first)]


def user(text: str = "x") -> dict[str, Any]:
    return {"role": "user", "content": text}


def calls(*ids: str) -> dict[str, Any]:
    made = [{"id": id_, "type": "function", "function": {"name": f"do_{id_}", "arguments": "{}"}} for id_ in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(id_: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": "done"}


def seqs(found: list[Message]) -> list[int]:
    return [message.seq for message in found]


def test_a_result_belongs_to_the_call_before_it() -> None:
    pairing = Pairing(messages(user(), calls("a", "b"), result("b"), result("a"), user()))
    assert pairing.call_of == {3: 2, 4: 2}
    assert pairing.open_calls == []
    assert pairing.lone_results == []


def test_a_call_without_a_result_is_open() -> None:
    pairing = Pairing(messages(calls("b", "a"), result("a"), calls("c")))
    assert pairing.open_calls == [(1, "b"), (3, "c")]
    assert pairing.call_of == {2: 1}


def test_a_result_before_its_call_is_alone() -> None:
    pairing = Pairing(messages(result("a"), calls("a")))
    assert pairing.lone_results == [(1, "a")]
    assert pairing.open_calls == [(2, "a")]


def test_an_id_may_be_used_again_later() -> None:
    pairing = Pairing(messages(calls("a"), result("a"), calls("a"), result("a"), result("a")))
    assert pairing.call_of == {2: 1, 4: 3}
    assert pairing.lone_results == [(5, "a")]


def test_two_open_calls_of_one_id_are_answered_in_order() -> None:
    pairing = Pairing(messages(calls("a"), calls("a"), result("a")))
    assert pairing.call_of == {3: 1}
    assert pairing.open_calls == [(2, "a")]


def test_one_message_may_use_an_id_twice() -> None:
    pairing = Pairing(messages(calls("a", "a"), result("a")))
    assert pairing.call_of == {2: 1}
    assert pairing.open_calls == [(1, "a")]


def test_responses_items_pair_like_chat_messages() -> None:
    found = messages(
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "b", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "y"},
        {"type": "function_call_output", "call_id": "c", "output": "y"},
    )
    pairing = Pairing(found)
    assert pairing.call_of == {3: 2}
    assert pairing.open_calls == [(1, "a")]
    assert pairing.lone_results == [(4, "c")]
    assert report(found).unmatched_calls == (ToolCall(seq=1, call_id="a", name="f", arguments="{}"),)


def test_nothing_is_paired_with_nothing() -> None:
    pairing = Pairing([])
    assert (pairing.call_of, pairing.open_calls, pairing.lone_results) == ({}, [], [])
    assert report([]).ok
    assert arranged([]) == []


# -- report


def test_a_report_names_calls_and_results() -> None:
    found = report(messages(result("z"), calls("a", "b"), result("b")))
    assert found.unmatched_calls == (ToolCall(seq=2, call_id="a", name="do_a", arguments="{}"),)
    assert found.unmatched_results == (ToolResult(seq=1, call_id="z"),)
    assert not found.ok


def test_a_report_of_a_whole_history_is_ok() -> None:
    assert report(messages(user(), calls("a"), result("a"), user())).ok


# -- arranged


def test_a_history_in_order_stays_as_it_is() -> None:
    found = messages(user(), calls("a", "b"), result("a"), result("b"), user())
    assert arranged(found) == found


def test_results_move_right_behind_their_call() -> None:
    found = messages(calls("a"), user(), calls("b"), result("a"), user(), result("b"))
    assert seqs(arranged(found)) == [1, 4, 2, 3, 6, 5]


def test_results_of_one_call_keep_their_order() -> None:
    found = messages(calls("a", "b"), user(), result("b"), result("a"))
    assert seqs(arranged(found)) == [1, 3, 4, 2]


def test_dropped_seqs_are_left_out() -> None:
    found = messages(result("z"), user(), calls("a"), result("a"), first=5)
    assert seqs(arranged(found, dropped=frozenset({5}))) == [6, 7, 8]


ids = st.sampled_from(["a", "b", "c"])
histories = st.lists(
    st.just(user()) | st.lists(ids, min_size=1, max_size=3).map(lambda made: calls(*made)) | ids.map(result), max_size=15
)


@given(histories)
def test_every_message_is_arranged_once(history: list[dict[str, Any]]) -> None:
    found = messages(*history)
    assert sorted(seqs(arranged(found))) == seqs(found)


@given(histories)
def test_an_arranged_history_has_each_result_behind_its_call(history: list[dict[str, Any]]) -> None:
    found = messages(*history)
    pairing = Pairing(found)
    lone = frozenset(seq for seq, _ in pairing.lone_results)
    order = seqs(arranged(found, dropped=lone))
    assert set(order) == set(seqs(found)) - lone
    for answer, call in pairing.call_of.items():
        between = order[order.index(call) + 1 : order.index(answer)]
        assert all(pairing.call_of.get(seq) == call for seq in between)


@given(histories)
def test_every_call_and_result_is_counted_once(history: list[dict[str, Any]]) -> None:
    found = messages(*history)
    pairing = Pairing(found)
    made = sum(len(message.tool_call_ids) for message in found)
    answers = sum(message.tool_call_id is not None for message in found)
    assert made == len(pairing.call_of) + len(pairing.open_calls)
    assert answers == len(pairing.call_of) + len(pairing.lone_results)
    counted = report(found)
    assert (len(counted.unmatched_calls), len(counted.unmatched_results)) == (len(pairing.open_calls), len(pairing.lone_results))


@pytest.mark.parametrize(
    "caller",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"},
    ],
    ids=["chat", "function", "custom"],
)
def test_a_stand_in_answers_its_call_in_the_form_of_the_caller(caller: dict[str, Any]) -> None:
    (calling,) = messages(caller, first=1)
    call = ToolCall(seq=1, call_id="a", name="f", arguments="{}")
    (stand_in,) = messages(interrupted_result(call, calling), first=2)
    assert stand_in.tool_call_id == "a"
    assert "interrupted" in str(stand_in.to_dict())
    assert stand_in.to_dict().get("type") == {
        "function_call": "function_call_output",
        "custom_tool_call": "custom_tool_call_output",
    }.get(caller.get("type", ""))
