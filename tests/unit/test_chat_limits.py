"""A window shows the newest whole pieces that fit; calls and results are never parted, whatever the history holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidInputError
from sessionstore.chat.limits import Window, approximate_tokens, blocks
from sessionstore.pairs import INTERRUPTED

CALL_IDS = st.sampled_from(["a", "b", "c"])


def says(role: str, content: str = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


def asks(*call_ids: str) -> dict[str, Any]:
    made = [{"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call_id in call_ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


def tells(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "result"}


MESSAGES = st.one_of(
    st.sampled_from(["user", "assistant", "system"]).map(says),
    st.lists(CALL_IDS, min_size=1, max_size=3, unique=True).map(lambda ids: asks(*ids)),
    CALL_IDS.map(tells),
)
HISTORIES = st.lists(MESSAGES, max_size=25)


def require_pairs(shown: list[dict[str, Any]]) -> None:
    """As providers do: a call is followed by one result for each id, and there is no other result."""
    waiting: Counter[str] = Counter()
    for message in shown:
        if message["role"] == "tool":
            assert waiting[message["tool_call_id"]] == 1
            waiting[message["tool_call_id"]] -= 1
        else:
            assert not +waiting
            waiting.update(call["id"] for call in message.get("tool_calls", ()))
    assert not +waiting


@given(HISTORIES, st.none() | st.integers(0, 12), st.none() | st.integers(0, 60))
def test_what_is_shown_is_paired_and_within_the_limits(
    history: list[dict[str, Any]], messages: int | None, tokens: int | None
) -> None:
    shown = Window(messages, tokens, lambda message: len(str(message["content"]))).of(history)
    require_pairs(shown)
    assert messages is None or len(shown) <= messages
    assert tokens is None or sum(len(str(message["content"])) for message in shown) <= tokens


@given(HISTORIES, st.integers(0, 12))
def test_what_is_shown_is_the_newest_and_nothing_is_skipped(history: list[dict[str, Any]], messages: int) -> None:
    everything = Window().of(history)
    shown = Window(messages).of(history)
    assert everything[len(everything) - len(shown) :] == shown
    every = blocks(history)
    fitting = next(count for count in range(len(every), -1, -1) if sum(map(len, every[len(every) - count :])) <= messages)
    dropped = every[len(every) - fitting : len(every) - len(blocks(shown))]
    assert all(block[0]["role"] != "user" for block in dropped)
    assert not dropped or shown[0]["role"] == "user"


@pytest.mark.parametrize(("most", "roles"), [(1, ["assistant"]), (2, ["user", "assistant"]), (3, ["user", "assistant"]), (4, None)])
def test_a_cut_history_begins_with_a_question_if_it_has_one(most: int, roles: list[str] | None) -> None:
    history = [says("user"), says("assistant"), says("user"), says("assistant")]
    shown = Window(most).of(history)
    assert [message["role"] for message in shown] == (roles or ["user", "assistant", "user", "assistant"])


def test_a_whole_history_begins_as_it_does() -> None:
    history = [says("assistant"), says("user")]
    assert Window(2).of(history) == history


@given(HISTORIES)
def test_without_limits_all_but_lone_results_is_shown(history: list[dict[str, Any]]) -> None:
    shown = Window().of(history)
    assert [message for message in shown if message["role"] != "tool"] == [each for each in history if each["role"] != "tool"]
    made_up = [message for message in shown if message["role"] == "tool" and message["content"] == INTERRUPTED]
    told = [message for message in shown if message["role"] == "tool" and message not in made_up]
    assert len(told) <= len([message for message in history if message["role"] == "tool"])


def test_a_late_result_stands_behind_its_call_and_a_missing_one_is_made_up() -> None:
    shown = Window().of([asks("a", "b"), says("user"), tells("b"), tells("lone")])
    assert [message["role"] for message in shown] == ["assistant", "tool", "tool", "user"]
    assert [message["content"] for message in shown[1:3]] == ["result", INTERRUPTED]


def test_a_piece_that_does_not_fit_is_left_out_as_a_whole() -> None:
    history = [says("user"), asks("a"), tells("a"), says("assistant")]
    assert [len(Window(most).of(history)) for most in range(5)] == [0, 1, 1, 3, 4]


def test_the_approximation_counts_four_characters_of_json_as_a_token() -> None:
    short, long = says("user", "x" * 40), says("user", "x" * 4_040)
    assert approximate_tokens(long) - approximate_tokens(short) == 1_000


@pytest.mark.parametrize("counted", [-1, 1.5, None, True])
def test_a_counter_that_returns_no_count_is_refused(counted: Any) -> None:
    with pytest.raises(InvalidInputError, match="count_tokens"):
        Window(tokens=5, count=lambda _: counted).of([says("user")])


def test_looks_grow_until_the_limit() -> None:
    assert list(Window().looks()) == [None]
    assert list(Window(7).looks()) == [8]
    assert list(Window(500, 10).looks()) == [64, 256, 501]
    unlimited = iter(Window(tokens=10).looks())
    assert [next(unlimited) for _ in range(3)] == [64, 256, 1_024]


def test_a_window_is_full_when_something_was_left_out() -> None:
    history = [says("user")] * 4
    assert Window(tokens=3, count=lambda _: 1).is_full(history)
    assert not Window(tokens=4, count=lambda _: 1).is_full(history)
