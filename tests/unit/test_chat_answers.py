"""Answers are checked before anything is stored, streams are put together, and replies are texts."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import ConflictError, ModelAnswer, ModelError, Reply
from sessionstore.chat.answers import checked_answer, requests_of
from sessionstore.chat.completions import DONE, StreamedAnswer, ToldError, answer_of, request_body
from sessionstore.chat.models import _threaded
from sessionstore.chat.turn_queue import TurnQueue


def streamed(*deltas: Any, finish_reason: str = "stop") -> StreamedAnswer:
    answer = StreamedAnswer()
    for delta in deltas:
        answer.take(json.dumps({"choices": [{"delta": delta}]}))
    answer.take(json.dumps({"choices": [{"delta": {}, "finish_reason": finish_reason}]}))
    answer.take(DONE)
    return answer


def test_a_reply_is_a_text_in_every_way() -> None:
    answers = [ModelAnswer({}, "m-1", "tool_calls", 5, 1), ModelAnswer({}, "m-2", "stop", 7, None, reasoning_tokens=2)]
    reply = Reply("Paris", answers, [{"role": "user", "content": "?"}], 12.5)
    assert (f"{reply}", reply + "!", json.dumps(reply), len(reply)) == ("Paris", "Paris!", '"Paris"', 5)
    assert type(reply.text) is str
    assert (reply.model, reply.finish_reason, reply.response_time_ms) == ("m-2", "stop", 12.5)
    assert (reply.input_tokens, reply.output_tokens, reply.cache_read_tokens, reply.reasoning_tokens) == (12, 1, None, 2)
    for twin in (pickle.loads(pickle.dumps(reply)), copy.deepcopy(reply)):
        assert (twin, twin.model, twin.messages) == (reply, "m-2", reply.messages)
    assert (Reply("x").model, Reply("x").finish_reason, Reply("x").input_tokens) == (None, None, None)


def test_tool_calls_get_the_ids_and_arguments_that_they_lack() -> None:
    calls = [
        {"function": {"name": "a", "arguments": {"x": 1}}},
        {"id": "same", "index": 1, "function": {"name": "b", "arguments": ""}},
        {"id": "same", "function": {"name": "c"}, "extra": 1},
    ]
    answer = checked_answer(ModelAnswer({"tool_calls": calls}))
    first, second, third = requests_of(answer.message)
    assert [each.arguments for each in (first, second, third)] == ['{"x":1}', "{}", "{}"]
    assert second.call_id == "same"
    assert len({first.call_id, second.call_id, third.call_id}) == 3
    assert answer.message["content"] is None
    assert [sorted(call) for call in answer.message["tool_calls"]][2] == ["extra", "function", "id", "type"]


@pytest.mark.parametrize(
    "message",
    [
        5,
        {},
        {"content": None},
        {"content": 5},
        {"role": "tool", "content": "x"},
        {"tool_calls": "x"},
        {"tool_calls": [5]},
        {"tool_calls": [{"function": {"name": ""}}]},
        {"tool_calls": [{"function": {"name": "a", "arguments": 5}}]},
        {"tool_calls": [{"function": {"name": "a"}}] * 1_001},
        {"content": "\ud800"},
        {"content": "x", "score": float("nan")},
    ],
)
def test_an_answer_that_cannot_be_stored_is_refused(message: Any) -> None:
    with pytest.raises(ModelError):
        checked_answer(ModelAnswer(message))


def test_nonsense_about_usage_is_dropped_and_the_answer_kept() -> None:
    answer = checked_answer(ModelAnswer({"content": "x"}, 5, "\n", -1, True, "3", 2**70))  # type: ignore[arg-type]
    assert set(answer.details.values()) == {None}


def test_a_refusal_is_an_answer() -> None:
    assert checked_answer(ModelAnswer({"content": None, "refusal": "No."})).message["refusal"] == "No."


@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_text_comes_whole_however_it_is_cut(text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    parts = [text[start:end] for start, end in pairwise(edges)]
    answer = StreamedAnswer()
    told = [answer.take(json.dumps({"choices": [{"delta": {"content": part}}]})) for part in parts]
    answer.take(json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    answer.take(DONE)
    assert "".join(told) == text == answer.answer().message["content"]


def test_calls_of_a_stream_are_put_together_by_their_places() -> None:
    answer = streamed(
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "second", "arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "first", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "", "function": {"arguments": ": 1}"}}, "odd"]},
        finish_reason="tool_calls",
    ).answer()
    assert [call["id"] for call in answer.message["tool_calls"]] == ["a", "b"]
    assert answer.message["tool_calls"][1]["function"] == {"name": "second", "arguments": '{"x": 1}'}
    assert answer.message["content"] is None


def part(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


TWO_CALLS = {
    "no places, whole calls": [part("a", "{}", id="1"), part("b", '{"x": 1}', id="2")],
    "no places, in parts": [part("a", "{", id="1"), part(None, "}"), part("b", '{"x"', id="2"), part(None, ": 1}", id="")],
    "no places, parts in turn": [part("a", "{", id="1"), part("b", '{"x": 1}', id="2"), part(None, "}", id="1")],
    "neither places nor ids": [part("a", "{}"), part("b", '{"x"'), part(None, ": 1}")],
    "a place of null": [part("a", "{}", id="1", index=None), part("b", '{"x": 1}', id="2", index=None)],
    "one place for all": [part("a", "{}", id="1", index=0), part("b", '{"x"', id="2", index=0), part(None, ": 1}", index=0)],
    "one place and no ids": [part("a", "{}", index=0), part("b", '{"x": 1}', index=0)],
    "places and no ids": [part("a", "{}", index=0), part("b", "", index=1), part(None, '{"x": 1}', index=1)],
    "a new id with each part": [
        part("a", "{}", id="1", index=0),
        part("b", id="2", index=1),
        part("", '{"x": 1}', id="3", index=1),
    ],
    "the name with each part": [part("a", "{", id="1", index=0), part("a", "}", index=0), part("b", '{"x": 1}', id="2", index=1)],
    "the id behind the name": [part("a", "{}", index=0), part(None, None, id="1", index=0), part("b", '{"x": 1}', index=1)],
    "the name in parts": [part("a", "{}", index=0), part("b", index=1), part("", '{"x": 1}', index=1)],
    "arguments that are no text": [part("a", {}, id="1", index=0), part("b", {"x": 1}, id="2", index=1)],
}


@pytest.mark.parametrize("dialect", TWO_CALLS)
@pytest.mark.parametrize("together", [False, True])
def test_two_calls_stay_two_in_the_dialects_of_servers(dialect: str, together: bool) -> None:
    parts = TWO_CALLS[dialect]
    deltas = [{"tool_calls": parts}] if together else [{"tool_calls": [each]} for each in parts]
    first, second = requests_of(checked_answer(streamed(*deltas, finish_reason="tool_calls").answer()).message)
    assert [(each.name, json.loads(each.arguments)) for each in (first, second)] == [("a", {}), ("b", {"x": 1})]
    assert "" != first.call_id != second.call_id != ""


def test_what_else_a_provider_says_of_a_call_goes_back_to_it() -> None:
    signed = part("a", "{}", id="1", index=0, extra_content={"google": {"thought_signature": "abc"}})
    (call,) = streamed({"tool_calls": [signed]}).answer().message["tool_calls"]
    assert call["extra_content"] == signed["extra_content"]


def test_calls_without_end_are_refused() -> None:
    answer = StreamedAnswer()
    calls = [part("a", "{}") for _ in range(1_001)]
    with pytest.raises(ModelError, match="too many"):
        answer.take(json.dumps({"choices": [{"delta": {"tool_calls": calls}}]}))


def test_events_without_data_say_nothing() -> None:
    answer = StreamedAnswer()
    assert [answer.take(data) for data in ("", " ", "\n")] == ["", "", ""]
    assert not answer.is_done


def test_a_content_of_parts_loses_no_text() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    answer = StreamedAnswer()
    said = [thought, [{"type": "text", "text": "Par"}], "is"]
    told = [answer.take(json.dumps({"choices": [{"delta": {"content": each}, "finish_reason": ""}]})) for each in said]
    assert told == ["", "Par", "is"]
    answer.take(DONE)
    assert answer.answer().message["content"] == "Paris"
    assert answer.answer().finish_reason is None


def test_a_reason_to_finish_is_an_end_and_silence_is_none() -> None:
    answer = StreamedAnswer()
    answer.take('{"choices": [{"delta": {"content": "Paris"}, "finish_reason": null}]}')
    with pytest.raises(ModelError, match="ended before"):
        answer.answer()
    answer.take('{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
    assert answer.answer().message["content"] == "Paris"


@pytest.mark.parametrize(
    "error", [{"error": {"message": "too long"}}, {"error": "too long"}, {"object": "error", "message": "too long"}]
)
def test_an_error_is_one_wherever_it_stands(error: dict[str, Any]) -> None:
    for read in (answer_of, StreamedAnswer().take):
        with pytest.raises(ToldError) as told:
            read(json.dumps(error))  # type: ignore[operator]
        assert told.value.words == "too long"
        assert "too long" not in str(told.value)


def test_an_answer_that_was_all_thought_is_an_empty_text() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    answer = answer_of(json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode())
    assert checked_answer(answer).message == {**message, "content": ""}


def test_an_empty_stream_is_an_empty_text_if_it_says_that_it_is_over() -> None:
    assert streamed().answer().message["content"] == ""
    unsaid = StreamedAnswer()
    unsaid.take(DONE)
    with pytest.raises(ModelError):
        checked_answer(unsaid.answer())


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "usage", "delta", "content", "x"]), inner, max_size=3), max_leaves=8).map(lambda value: json.dumps(value).encode()))  # fmt: skip  # noqa: E501
def test_any_body_is_an_answer_or_a_model_error(body: bytes) -> None:
    for read in (answer_of, StreamedAnswer().take):
        try:
            read(body)  # type: ignore[operator]
        except ModelError:
            continue


def test_a_request_says_what_was_set_and_no_more() -> None:
    body = request_body("m", [{"role": "user", "content": "x", "odd": 1}], [], streamed=True, tell_usage=False, options={"seed": 1})
    assert body == {"seed": 1, "model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}


def test_a_queue_lets_in_one_at_a_time_and_in_order() -> None:
    queue, order = TurnQueue(), []
    queue.enter("s")
    started = threading.Barrier(2)

    def come(name: int) -> None:
        started.wait(10)
        queue.enter("s")
        order.append(name)
        queue.leave()

    threads = []
    for name in range(5):
        threads.append(threading.Thread(target=come, args=(name,)))
        threads[-1].start()
        started.wait(10)
        while len(queue._waiting) <= name:
            pass
    queue.leave()
    for thread in threads:
        thread.join(10)
    assert order == list(range(5))


def test_a_turn_within_a_turn_is_refused_and_another_queue_is_not() -> None:
    queue, other = TurnQueue(), TurnQueue()
    queue.enter("s")
    with pytest.raises(ConflictError, match="unfinished"):
        queue.enter("s")
    with queue.marked(), other.marked():
        with pytest.raises(ConflictError, match="cannot ask itself"):
            queue.enter("s")
        with pytest.raises(ConflictError, match="cannot ask itself"):
            other.enter("s")
    other.enter("s")
    queue.leave()
    queue.enter("s")


@pytest.mark.anyio
async def test_a_turn_that_would_stop_the_one_that_it_waits_for_is_refused() -> None:
    queue, other = TurnQueue(), TurnQueue()
    other.enter("s")
    await queue.enter_async("s")
    for each in (queue, other):
        with pytest.raises(ConflictError, match="unfinished"):
            await each.enter_async("s")

    async def another_task() -> None:
        with pytest.raises(ConflictError, match="unfinished"):
            queue.enter("s")
        await queue.enter_async("s")

    async with anyio.create_task_group() as group:
        group.start_soon(another_task)
        await anyio.wait_all_tasks_blocked()
        queue.leave()
        await anyio.wait_all_tasks_blocked()
    assert queue._owner is not None


def test_a_turn_of_a_loop_is_refused_above_an_unfinished_one_of_its_thread() -> None:
    queue = TurnQueue()
    queue.enter("s")
    with pytest.raises(ConflictError, match="unfinished"):
        anyio.run(queue.enter_async, "s")


# trio does not let anybody but itself drive a coroutine.
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_iterator_that_a_thread_is_in_is_not_closed_beside_it() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[str]:
        asked.set()
        assert go_on.wait(20)
        yield "Yes"

    step = anext(_threaded(pieces()))
    step.send(None)
    assert asked.wait(20)
    try:
        with pytest.raises(GeneratorExit):
            step.throw(GeneratorExit())
    finally:
        go_on.set()
