"""A ChatAgent remembers through restarts, stores whole turns or nothing of them, and never gets two turns mixed up."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock
from model_server import ModelServer, calls, half_stream, refusal, serving, stalled, text
from trials import Trial

import sessionstore
from sessionstore import ChatAgent, ConfigError, ConflictError, InvalidInputError, ModelAnswer, ModelError, OpenAICompatible, Reply

KEY = "sk-Zq8vT3nL5wXy7RbKd2Hf"


PROGRAM = """
import sys
from sessionstore import ChatAgent, OpenAICompatible

path, url, *questions = sys.argv[1:]
with ChatAgent(OpenAICompatible(url, "m-1"), store=path, session_id="user-alice") as agent:
    for question in questions:
        if question.startswith("+"):
            for piece in agent.stream(question[1:]):
                print(piece, end="", flush=True)
            print(flush=True)
        else:
            print(agent.ask(question))
"""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
def model(server: ModelServer) -> Iterator[OpenAICompatible]:
    made = OpenAICompatible(server.url, "m-1", KEY, timeout=20)
    yield made
    made.close()


def roles(store: sessionstore.SessionStore, session_id: str = "user-alice") -> list[str | None]:
    return [message.role for message in store.messages(session_id)]


def figures(store: sessionstore.SessionStore) -> list[tuple[str, dict[str, Any]]]:
    rows = store.query("SELECT name, attributes FROM v_metric_events ORDER BY 1, 2").rows
    return [(str(name), json.loads(str(attributes))) for name, attributes in rows]


def program(path: Path, server: ModelServer, *questions: str) -> subprocess.Popen[str]:
    """A program that asks; it streams the answers to questions with a plus before them."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), server.url, *questions],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_new_program_remembers_what_was_asked_before(store_path: Path, new_file: Path, server: ModelServer) -> None:
    shutil.copy(new_file, store_path)
    asked = ("What's the capital of France?", "And of Italy?")
    again = ("What did I just ask you?", "And before?")
    for plain, streamed in (asked, again):
        out, errors = program(store_path, server, plain, f"+{streamed}").communicate(timeout=60)
        assert out == f"You asked: {plain}\nYou asked: {streamed} \n", errors
    first = [asked[0], f"You asked: {asked[0]}", asked[1], f"You asked: {asked[1]} "]
    assert server.sent_texts(1) == first[:3]
    assert server.sent_texts(2) == [*first, again[0]]
    assert server.sent_texts(3) == [*first, again[0], f"You asked: {again[0]}", again[1]]
    assert [request.get("stream", False) for request in server.requests] == [False, True] * 2
    assert set(server.paths) == {"/v1/chat/completions"}


@pytest.mark.fault("F1")
def test_a_kill_between_chunks_leaves_nothing_half_and_the_next_start_works(
    store_path: Path, new_file: Path, server: ModelServer, trial: Trial
) -> None:
    shutil.copy(new_file, store_path)
    kills = trial.size(push=1, nightly=5, release=20)
    for whole in range(1, kills + 1):
        server.reached.clear()
        server.script.extend([text("Before."), stalled])
        killed = program(store_path, server, f"+before {whole}", f"+never answered {whole}")
        assert server.reached.wait(60)
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=30)
        with sessionstore.open(store_path) as store:
            assert roles(store) == ["user", "assistant"] * whole
            assert store.check("user-alice").unmatched_calls == ()
            assert store.doctor().ok
    with ChatAgent(OpenAICompatible(server.url, "m-1"), store=store_path, session_id="user-alice") as agent:
        assert agent.ask("Still there?") == "You asked: Still there?"
    assert [each for each in server.sent_texts() if each.startswith("never")] == []
    assert len(server.sent_texts()) == 2 * kills + 1
    trial.report(f"{kills} kills of a chat between chunks: {kills} whole turns kept, 0 halves")


def test_a_reply_is_its_text_and_knows_what_it_cost(store: sessionstore.SessionStore, model: OpenAICompatible) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice", agent_id="helper", user_id="alice", title="Geography")
    reply = agent.ask("What's the capital of France?")
    assert isinstance(reply, str)
    assert reply == reply.text == "You asked: What's the capital of France?"
    assert (reply.model, reply.finish_reason) == ("m-1", "stop")
    assert (reply.input_tokens, reply.output_tokens, reply.cache_read_tokens, reply.reasoning_tokens) == (12, 3, 4, 1)
    assert reply.response_time_ms > 0
    question, answer = store.messages("user-alice")
    assert [question.to_dict(), answer.to_dict()] == list(reply.messages)
    assert (answer.model, answer.finish_reason, answer.input_tokens, answer.output_tokens) == ("m-1", "stop", 12, 3)
    assert (answer.cache_read_tokens, answer.reasoning_tokens) == (4, 1)
    assert answer.response_time_ms == reply.response_time_ms
    assert question.created_at <= answer.created_at
    session = store.get("user-alice")
    assert session is not None
    assert (session.agent_id, session.user_id, session.title) == ("helper", "alice", "Geography")
    overview = store.overview()
    assert overview["tokens"]["agents"][0] | {"input_tokens": 12, "output_tokens": 3} == overview["tokens"]["agents"][0]
    assert store.query("SELECT count(*) FROM v_messages WHERE response_time_ms IS NOT NULL").rows[0][0] == 1


def test_what_comes_before_and_behind_the_model_is_no_part_of_its_response_time(
    store: sessionstore.SessionStore, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a day for each thing that is done: reading, making the client, a tool, storing."""
    days = 0
    real, day_ns = time.perf_counter_ns, 24 * 3600 * 10**9

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*given: Any, **named: Any) -> Any:
            nonlocal days
            days += 1
            return call(*given, **named)

        return slowed

    def tool() -> str:
        return "done"

    monkeypatch.setattr("sessionstore.chat.turns.time.perf_counter_ns", lambda: real() + days * day_ns)
    for kind, name in ((type(store), "messages"), (type(store), "_append_or_begin"), (OpenAICompatible, "_client_here")):
        monkeypatch.setattr(kind, name, slow(getattr(kind, name)))
    model = OpenAICompatible(server.url, "m-1")
    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[functools.wraps(tool)(slow(tool))])
    server.script.extend([calls(("tool", "{}")), text("First."), text("Second.")])
    replies = [agent.ask("One"), "".join(agent.stream("Two"))]
    agent.close()
    assert [str(reply).strip() for reply in replies] == ["First.", "Second."]
    assert days > 5
    answers = [message for message in store.messages("user-alice") if message.role == "assistant"]
    assert len(answers) == 3
    for answer in answers:
        assert answer.response_time_ms is not None
        assert 0 < answer.response_time_ms < day_ns / 1e6
    assert replies[0].response_time_ms == answers[1].response_time_ms


def test_a_stream_gives_pieces_and_is_stored_when_it_ends(store: sessionstore.SessionStore, model: OpenAICompatible) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice")
    stream = agent.stream("Hello there")
    with pytest.raises(RuntimeError):
        _ = stream.reply
    pieces = list(stream)
    assert len(pieces) > 2
    assert "".join(pieces) == stream.reply == store.messages("user-alice")[-1].text
    assert (stream.reply.input_tokens, stream.reply.finish_reason) == (12, "stop")
    stream.close()
    assert roles(store) == ["user", "assistant"]
    assert next(stream, None) is None


@pytest.mark.parametrize("leave", ["close", "break", "forget"])
def test_a_stream_that_is_left_early_stores_nothing_and_holds_nobody_up(
    store: sessionstore.SessionStore, model: OpenAICompatible, leave: str
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice", agent_id="helper")
    agent.ask("First")
    if leave == "break":
        for _ in agent.stream("Left in the middle"):
            break
    else:
        stream = agent.stream("Left in the middle")
        next(stream)
        if leave == "close":
            stream.close()
            assert list(stream) == []
        else:
            del stream
    assert agent.failed_question == "Left in the middle"
    assert roles(store) == ["user", "assistant"]
    agent.ask("Third")
    assert agent.failed_question is None
    assert roles(store) == ["user", "assistant"] * 2
    ((name, attributes),) = figures(store)
    assert (name, attributes["streamed"]) == ("turn.cancelled", True)


def test_an_unfinished_stream_and_a_second_turn_in_one_thread_are_refused_not_deadlocked(model: OpenAICompatible) -> None:
    agent = ChatAgent(model)
    with agent.stream("First") as stream:
        next(stream)
        with pytest.raises(ConflictError, match="unfinished turn"):
            agent.ask("Second")
        with pytest.raises(ConflictError):
            agent.save_session()
        rest = list(stream)
    assert rest
    assert agent.ask("Second") == "You asked: Second"


def test_a_failed_turn_stores_nothing_and_is_counted_and_may_be_asked_again(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible, caplog: pytest.LogCaptureFixture
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice", agent_id="helper")
    agent.ask("First")
    server.script.append(refusal(429, "slow down", Retry_After="7"))
    with caplog.at_level(logging.INFO, "sessionstore"), pytest.raises(ModelError, match="HTTP 429: slow down") as failed:
        agent.ask("Second")
    assert (failed.value.status, failed.value.retry_after) == (429, 7.0)
    assert roles(store) == ["user", "assistant"]
    ((name, attributes),) = figures(store)
    assert name == "turn.failed"
    assert attributes == {"streamed": False, "tool_calls": 0, "error": "ModelError", "status": 429}
    ((agent_id, session_id, unit),) = store.query("SELECT agent_id, session_id, unit FROM v_metric_events").rows
    assert (agent_id, session_id, unit) == ("helper", "user-alice", "ms")
    assert [record.event for record in caplog.records if hasattr(record, "event")] == ["turn_failed"]
    question = agent.failed_question
    assert question == "Second"
    assert agent.ask(question) == "You asked: Second"
    assert [message.text for message in store.messages("user-alice") if message.role == "user"] == ["First", "Second"]


def test_a_failed_first_turn_leaves_no_empty_session(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    server.script.append(half_stream(closes_well=False))
    agent = ChatAgent(model, store=store, session_id="user-alice")
    with pytest.raises(ModelError):
        list(agent.stream("Hello"))
    assert store.get("user-alice") is None
    assert [name for name, _ in figures(store)] == ["turn.failed"]


def test_what_a_callable_raises_is_raised_as_it_is(store: sessionstore.SessionStore) -> None:
    def broken(messages: list[dict[str, Any]]) -> Iterator[str]:
        yield "Some "
        raise ZeroDivisionError

    agent = ChatAgent(broken, store=store, session_id="user-alice")
    stream = agent.stream("Hello")
    assert next(stream) == "Some "
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert list(stream) == []
    assert store.get("user-alice") is None
    assert figures(store)[0][1]["error"] == "ZeroDivisionError"


def test_an_interrupted_turn_is_counted_as_cut_off(store: sessionstore.SessionStore) -> None:
    def interrupted(messages: list[dict[str, Any]]) -> str:
        raise KeyboardInterrupt

    agent = ChatAgent(interrupted, store=store, session_id="user-alice")
    with pytest.raises(KeyboardInterrupt):
        agent.ask("Hello")
    assert figures(store)[0][0] == "turn.cancelled"
    assert agent.failed_question == "Hello"


def test_a_session_that_ends_its_life_during_a_turn_begins_anew_with_it(store: sessionstore.SessionStore) -> None:
    def slow(messages: list[dict[str, Any]]) -> str:
        if len(messages) == 3:
            store.delete("user-alice")
        return "Yes"

    agent = ChatAgent(slow, store=store, session_id="user-alice", user_id="alice")
    agent.ask("First")
    agent.ask("Second")
    assert [message.text for message in store.messages("user-alice")] == ["Second", "Yes"]
    session = store.get("user-alice")
    assert session is not None
    assert session.user_id == "alice"


def test_what_another_program_stores_between_two_turns_is_seen(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice", system="Be short.")
    agent.ask("First")
    store.append_many("user-alice", [{"role": "user", "content": "By another"}, {"role": "assistant", "content": "Yes"}])
    store.append("user-alice", {"type": "reasoning", "summary": []})
    agent.ask("Second")
    assert server.sent_texts() == ["Be short.", "First", "You asked: First", "By another", "Yes", "Second"]
    store.truncate("user-alice", after=2)
    agent.ask("Third")
    assert server.sent_texts() == ["Be short.", "First", "You asked: First", "Third"]
    assert "system" not in roles(store)


# -- tools


def test_tools_are_described_called_and_stored_with_the_turn(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    def weather(city: str, days: int = 1) -> dict[str, Any]:
        """Tell the weather of a city."""
        return {"city": city, "days": days, "sky": "clear"}

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[weather])
    for ask in (agent.ask, lambda question: "".join(agent.stream(question)).strip()):
        server.script.extend([calls(("weather", '{"city": "Rome"}'), ("weather", '{"city": "Oslo", "days": 3}')), text("Clear.")])
        assert ask("How is the weather?").strip() == "Clear."
    (described,) = server.requests[0]["tools"]
    assert described["function"]["name"] == "weather"
    assert described["function"]["description"] == "Tell the weather of a city."
    assert described["function"]["parameters"] == {
        "type": "object", "additionalProperties": False, "required": ["city"],
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
    }  # fmt: skip
    turn = ["user", "assistant", "tool", "tool", "assistant"]
    assert roles(store) == turn * 2
    stored = store.messages("user-alice")
    assert [json.loads(str(message.text))["city"] for message in stored if message.role == "tool"] == ["Rome", "Oslo"] * 2
    assert stored[2].metadata == {"tool": "weather"}
    assert store.check("user-alice") == sessionstore.ToolCallReport(unmatched_calls=(), unmatched_results=())
    assert [message["role"] for message in server.requests[-1]["messages"]] == [*turn, "user", "assistant", "tool", "tool"]


def test_the_model_is_told_of_tools_that_fail_and_the_turn_goes_on(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    def divide(number: int) -> float:
        return 1 / number

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[divide])
    server.script.extend(
        [calls(("divide", '{"number": 0}'), ("divide", '{"number": "x"}'), ("divide", "{"), ("nothing", "{}")), text("I failed.")]
    )
    assert agent.ask("Divide") == "I failed."
    told = [message for message in store.messages("user-alice") if message.role == "tool"]
    assert [str(message.text).split(":")[0].split(".")[0] for message in told] == [
        "The tool failed", "The arguments are wrong", "The arguments are wrong", "There is no such tool",
    ]  # fmt: skip
    assert [dict(message.metadata or {}).get("error") for message in told] == [
        "ZeroDivisionError", "ValidationError", "ValidationError", "LookupError",
    ]  # fmt: skip
    assert store.check("user-alice").unmatched_calls == ()


def test_a_model_that_never_stops_calling_tools_fails_the_turn(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    def again() -> str:
        return "again"

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[again], max_tool_rounds=2)
    server.script.extend([calls(("again", "{}"))] * 3)
    with pytest.raises(ModelError, match=r"after 2 rounds in a turn; .* larger max_tool_rounds"):
        agent.ask("Go")
    assert len(server.requests) == 3
    assert store.get("user-alice") is None
    assert figures(store)[0][1]["tool_calls"] == 2


def test_a_tool_that_asks_its_own_agent_is_told_so(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    def ask_yourself() -> str:
        return agent.ask("Me?")

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[ask_yourself])
    server.script.extend([calls(("ask_yourself", "{}")), text("No.")])
    assert agent.ask("Go") == "No."
    assert "cannot ask itself" in str(store.messages("user-alice")[2].text)


# -- limits


def test_limits_bound_what_the_model_sees_and_not_what_is_stored(store: sessionstore.SessionStore) -> None:
    seen: list[list[dict[str, Any]]] = []

    def model(messages: list[dict[str, Any]]) -> str:
        seen.append(messages)
        return f"Answer {len(seen)}"

    agent = ChatAgent(model, store=store, session_id="user-alice", max_history=2, system="Be short.")
    for number in range(1, 5):
        agent.ask(f"Question {number}")
    assert [message["content"] for message in seen[-1]] == ["Be short.", "Question 3", "Answer 3", "Question 4"]
    assert len(store.messages("user-alice")) == 8

    counted = ChatAgent(model, store=store, session_id="user-alice", max_history_tokens=3, count_tokens=lambda message: 1)
    counted.ask("Question 5")
    assert [message["content"] for message in seen[-1]] == ["Question 4", "Answer 4", "Question 5"]

    none = ChatAgent(model, store=store, session_id="user-alice", max_history=0)
    none.ask("Question 6")
    assert [message["content"] for message in seen[-1]] == ["Question 6"]


def test_a_budget_of_tokens_reads_the_end_of_a_long_session_only(
    store: sessionstore.SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = store.session("long")
    long.append_many([{"role": "user", "content": f"number {index}"} for index in range(3_000)])
    long.append_many([{"role": "tool", "tool_call_id": "nowhere", "content": "lost"}] * 20)
    asked: list[int | None] = []
    messages = type(store).messages

    def watched(self: sessionstore.SessionStore, session_id: str, **options: Any) -> list[sessionstore.Message]:
        asked.append(options["last"])
        return messages(self, session_id, **options)

    monkeypatch.setattr(type(store), "messages", watched)
    seen: list[int] = []
    agent = ChatAgent(
        lambda sent: str(seen.append(len(sent))), store=store, session_id="long", max_history_tokens=100, count_tokens=lambda _: 1
    )
    agent.ask("And?")
    assert seen == [101]
    assert asked == [64, 256]


def test_a_history_with_half_a_tool_turn_is_sent_whole(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    store.session("user-alice").append_many(
        [
            {"role": "tool", "tool_call_id": "nowhere", "content": "lost"},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
    )
    ChatAgent(model, store=store, session_id="user-alice").ask("Well?")
    sent = server.requests[0]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "user"]
    assert sent[2]["tool_call_id"] == "call_1"
    assert len(store.open_tool_calls("user-alice")) == 1


# -- memory, stores, backends


def test_without_a_session_the_conversation_is_in_memory_and_comes_along_when_one_is_named(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    agent = ChatAgent(model).with_memory()
    agent.ask("First")
    agent.ask("Second")
    assert server.sent_texts() == ["First", "You asked: First", "Second"]
    assert agent.get_session_id() is None
    assert agent.list_sessions() == []
    agent.with_session_id("user-alice").with_store(store)
    agent.ask("Third")
    assert [message.text for message in store.messages("user-alice") if message.role == "user"] == ["First", "Second", "Third"]
    assert agent.messages() == [message.to_dict() for message in store.messages("user-alice")]


def test_a_session_without_a_store_is_in_the_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", str(tmp_path / "usual.db"))
    with ChatAgent(lambda messages: "Yes").with_session_id("user-alice") as agent:
        assert list(tmp_path.iterdir()) == []
        agent.ask("There?")
    with sessionstore.open(tmp_path / "usual.db") as store:
        assert roles(store) == ["user", "assistant"]
    with pytest.raises(sessionstore.ClosedStoreError, match="this agent is closed"):
        agent.ask("Still?")


def test_a_missing_folder_is_named_without_an_option_that_agents_do_not_have(tmp_path: Path) -> None:
    with ChatAgent(lambda messages: "Yes", store=tmp_path / "~" / "agent.db", session_id="user-alice") as agent:
        with pytest.raises(sessionstore.StoreOpenError, match=r"no such folder; create it, or open\(.*~ is not") as missing:
            agent.ask("There?")
        assert missing.value.path == str(tmp_path / "~")
        (tmp_path / "~").mkdir()
        assert agent.ask("There?") == "Yes"
    (tmp_path / "file").write_text("")
    with (
        ChatAgent(lambda messages: "Yes", store=tmp_path / "file" / "agent.db", session_id="user-alice") as agent,
        pytest.raises(sessionstore.StoreOpenError, match="is not a folder"),
    ):
        agent.ask("There?")


def test_with_memory_takes_no_session_away(store: sessionstore.SessionStore) -> None:
    agent = ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice")
    assert agent.with_memory() is agent
    agent.ask("There?")
    assert len(store.messages("user-alice")) == 2


def test_what_was_in_memory_goes_behind_what_the_named_session_has(store: sessionstore.SessionStore) -> None:
    ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice").ask("Stored")
    agent = ChatAgent(lambda messages: "Yes")
    agent.ask("In memory")
    agent.with_store(store).with_session_id("user-alice").ask("Later")
    assert [message.text for message in store.messages("user-alice")][::2] == ["Stored", "In memory", "Later"]


@pytest.mark.parametrize("saved", [True, False])
def test_an_agent_that_is_closed_with_unsaved_turns_says_so(
    store: sessionstore.SessionStore, caplog: pytest.LogCaptureFixture, saved: bool
) -> None:
    with caplog.at_level(logging.WARNING, "sessionstore"):
        with ChatAgent(lambda messages: "Yes") as forgetful:
            forgetful.ask("In memory, as ever")
        with ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice", auto_save=False) as agent:
            agent.ask("One")
            if saved:
                agent.save_session()
    told = [(record.event, record.session_id, record.messages) for record in caplog.records]  # type: ignore[attr-defined]
    assert told == ([] if saved else [("turns_unsaved", "user-alice", 2)])


def test_a_store_without_a_session_begins_a_new_one(store: sessionstore.SessionStore) -> None:
    first, second = (ChatAgent(lambda messages: "Yes", store=store) for _ in range(2))
    first.ask("One")
    second.ask("Two")
    assert first.get_session_id() != second.get_session_id()
    assert first.list_sessions() == sorted([str(first.get_session_id()), str(second.get_session_id())])


def test_alice_and_bob_have_their_own_sessions(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    alice = ChatAgent(model).with_memory().with_store(store).with_session_id("user-alice")
    bob = ChatAgent(model).with_memory().with_store(store).with_session_id("user-bob")
    alice.ask("I am Alice")
    bob.ask("I am Bob")
    alice.ask("Who am I?")
    assert server.sent_texts() == ["I am Alice", "You asked: I am Alice", "Who am I?"]
    assert alice.list_sessions() == ["user-alice", "user-bob"]


def test_two_namespaces_with_equal_ids_never_see_each_other(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    one = ChatAgent(model, store=store.in_namespace("one"), session_id="user-alice")
    two = ChatAgent(model, store=store.in_namespace("two"), session_id="user-alice")
    one.ask("Mine")
    two.ask("Yours")
    assert server.sent_texts() == ["Yours"]
    assert two.delete_session()
    assert one.load_session()
    assert not two.load_session()
    assert [message["content"] for message in one.messages()] == ["Mine", "You asked: Mine"]


def test_without_auto_save_turns_wait_for_save_session(store: sessionstore.SessionStore) -> None:
    agent = ChatAgent(lambda messages: f"{len(messages)} seen", store=store).with_session_id("user-charlie").with_auto_save(False)
    agent.ask("One")
    assert agent.ask("Two") == "3 seen"
    assert store.get("user-charlie") is None
    with pytest.raises(ConflictError, match="not saved"):
        agent.with_session_id("user-dora")
    assert agent.save_session() == 4
    assert agent.save_session() == 0
    assert roles(store, "user-charlie") == ["user", "assistant"] * 2
    agent.ask("Three")
    assert len(agent.messages()) == 6
    assert agent.load_session()
    assert len(agent.messages()) == 4
    assert agent.list_sessions() == ["user-charlie"]
    assert agent.delete_session()
    assert not agent.delete_session()
    assert (agent.messages(), agent.list_sessions(), agent.load_session()) == ([], [], False)
    assert agent.get_session_id() == "user-charlie"
    agent.with_auto_save(True).ask("Anew")
    assert roles(store, "user-charlie") == ["user", "assistant"]


def test_nowhere_to_save_is_said() -> None:
    agent = ChatAgent(lambda messages: "Yes")
    agent.ask("One")
    with pytest.raises(ConfigError, match="session_id"):
        agent.save_session()
    assert not agent.load_session()
    assert agent.messages() == []


class Documents:
    """A memory backend of a dict, which may lose a race."""

    def __init__(self, conflicts: int = 0) -> None:
        self.kept: dict[str, str] = {}
        self.conflicts = conflicts

    def save(self, session_id: str, messages: list[dict[str, Any]]) -> None:
        if self.conflicts:
            self.conflicts -= 1
            before = json.loads(self.kept.get(session_id, "[]"))
            self.kept[session_id] = json.dumps([*before, {"role": "user", "content": "Between"}])
            raise ConflictError(session_id, "somebody was faster")
        self.kept[session_id] = json.dumps(messages)

    def load(self, session_id: str) -> list[dict[str, Any]] | None:
        return json.loads(self.kept[session_id]) if session_id in self.kept else None

    def delete(self, session_id: str) -> None:
        self.kept.pop(session_id, None)

    def list(self) -> list[str]:
        return list(self.kept)


def test_a_memory_backend_keeps_the_whole_document_after_each_turn() -> None:
    documents = Documents()
    agent = ChatAgent(lambda messages: f"{len(messages)} seen").with_session_id("user-alice").with_memory_backend(documents)
    agent.ask("One")
    assert "".join(agent.stream("Two")) == "3 seen"
    again = ChatAgent(lambda messages: f"{len(messages)} seen", memory_backend=documents, session_id="user-alice")
    assert again.ask("Three") == "5 seen"
    assert [message["content"] for message in json.loads(documents.kept["user-alice"])] == [
        "One", "1 seen", "Two", "3 seen", "Three", "5 seen",
    ]  # fmt: skip
    assert again.list_sessions() == ["user-alice"]
    assert again.delete_session()
    assert documents.kept == {}


def test_a_save_that_comes_between_is_taken_in() -> None:
    documents = Documents(conflicts=1)
    ChatAgent(lambda messages: "Yes", memory_backend=documents, session_id="user-alice").ask("One")
    assert [message["content"] for message in json.loads(documents.kept["user-alice"])] == ["Between", "One", "Yes"]
    documents.conflicts = 3
    with pytest.raises(ConflictError):
        ChatAgent(lambda messages: "Yes", memory_backend=documents, session_id="user-bob").ask("One")


@pytest.mark.parametrize("loaded", [5, "text", {}, [1], ({"role": "user"},)])
def test_a_backend_that_gives_something_else_is_named(loaded: Any) -> None:
    class Odd(Documents):
        def load(self, session_id: str) -> Any:
            return loaded

        def list(self) -> Any:
            return loaded

    agent = ChatAgent(lambda messages: "Yes", memory_backend=Odd(), session_id="user-alice")
    for call in (lambda: agent.ask("Hello"), agent.messages, agent.list_sessions):
        with pytest.raises(sessionstore.BackendError, match=r"^Odd: (load|list)\(\) must return a list") as refused:
            call()
        assert refused.value.backend == "Odd"


def test_a_damaged_document_can_be_deleted_by_its_agent(tmp_path: Path) -> None:
    backend = sessionstore.FileBackend(tmp_path)
    backend.save("user-alice", [])
    (tmp_path / "user-alice.json").write_text("[")
    agent = ChatAgent(lambda messages: "Yes", memory_backend=backend, session_id="user-alice")
    with pytest.raises(sessionstore.StoreCorruptError):
        agent.ask("Hello")
    assert agent.delete_session()
    assert agent.ask("Hello") == "Yes"


def test_the_store_as_a_backend_keeps_the_same_conversation(store: sessionstore.SessionStore) -> None:
    agent = ChatAgent(lambda messages: "Yes", memory_backend=store.as_memory_backend(), session_id="user-alice")
    agent.ask("One")
    agent.ask("Two")
    assert [message.text for message in store.messages("user-alice")] == ["One", "Yes", "Two", "Yes"]
    assert ChatAgent(lambda messages: str(len(messages)), store=store, session_id="user-alice").ask("Three") == "5"
    assert agent.list_sessions() == ["user-alice"]


def test_an_expired_session_begins_anew(store: sessionstore.SessionStore, frozen: FrozenClock) -> None:
    agent = ChatAgent(lambda messages: f"{len(messages)} seen", store=store, session_id="user-alice", ttl=60)
    agent.ask("One")
    assert agent.ask("Two") == "3 seen"
    frozen.go(seconds=61)
    assert agent.messages() == []
    assert agent.ask("Three") == "1 seen"


def test_failures_of_a_conversation_in_memory_are_not_gathered() -> None:
    agent = ChatAgent(lambda messages: None)
    for _ in range(3):
        with pytest.raises(ModelError):
            agent.ask("Hello")
    assert len(agent._figures) == 0
    assert agent.messages() == []


def test_naming_the_same_session_again_changes_nothing(store: sessionstore.SessionStore) -> None:
    agent = ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice", auto_save=False)
    agent.ask("One")
    agent.with_session_id("user-alice")
    with pytest.raises(ConflictError, match="not saved"):
        agent.with_session_id("user-bob")
    assert agent.save_session() == 2


# -- many at once


def test_eight_threads_on_one_agent_take_turns(store: sessionstore.SessionStore) -> None:
    inside = threading.Semaphore(1)

    def model(messages: list[dict[str, Any]]) -> str:
        assert inside.acquire(blocking=False), "two turns at once"
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
        inside.release()
        return f"Answer to {messages[-1]['content']}"

    agent = ChatAgent(model, store=store, session_id="user-alice")
    replies: list[tuple[str, Reply]] = []

    def talk(name: int) -> None:
        for number in range(5):
            question = f"{name}.{number}"
            replies.append((question, agent.ask(question)))

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(replies) == 40
    assert {reply == f"Answer to {question}" for question, reply in replies} == {True}
    stored = [message.text for message in store.messages("user-alice")]
    assert stored[1::2] == [f"Answer to {question}" for question in stored[::2]]


def test_two_programs_on_one_session_interleave_whole_turns_only(store_path: Path, new_file: Path, server: ModelServer) -> None:
    shutil.copy(new_file, store_path)
    names = ("a", "b")
    running = [program(store_path, server, *(f"+{name}{number}" for number in range(8))) for name in names]
    for each in running:
        _, errors = each.communicate(timeout=90)
        assert each.returncode == 0, errors
    with sessionstore.open(store_path) as store:
        stored = [str(message.text) for message in store.messages("user-alice")]
    assert len(stored) == 32
    assert [answer.strip() for answer in stored[1::2]] == [f"You asked: {question}" for question in stored[::2]]
    for name in names:
        assert [question for question in stored[::2] if question.startswith(name)] == [f"{name}{number}" for number in range(8)]


# -- arguments


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"model": "gpt"}, "model: must be a callable"),
        ({"store": 5}, "store: must be"),
        ({"memory_backend": {}}, "memory_backend: must have"),
        ({"max_history": -1}, "max_history"),
        ({"max_history_tokens": 1.5}, "max_history_tokens"),
        ({"auto_save": 1}, "auto_save"),
        ({"session_id": ""}, "session_id"),
        ({"user_id": "\n"}, "user_id"),
        ({"tools": [print]}, "tools"),
        ({"tools": [len, len]}, "tools"),
        ({"tools": "ab"}, "tools"),
        ({"max_tool_rounds": -1}, "max_tool_rounds"),
        ({"system": 4}, "system"),
        ({"count_tokens": 5}, "count_tokens: must be a callable"),
        ({"count_tokens": None}, "count_tokens: must be a callable"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, Any], problem: str) -> None:
    with pytest.raises((ConfigError, InvalidInputError), match=problem):
        ChatAgent(**{"model": lambda messages: "Yes", **given})


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        ChatAgent(lambda messages: "Yes", colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("question", ["\ud800", 5, None, b"x", [], [5], {"role": "user"}])
def test_a_question_that_cannot_be_stored_is_refused_before_the_model_is_asked(question: Any) -> None:
    asked: list[Any] = []
    agent = ChatAgent(lambda messages: asked.append(messages) or "Yes")
    with pytest.raises(InvalidInputError) as refused:
        agent.ask(question)
    assert isinstance(question, str) or "must be a str, or a list of content parts" in str(refused.value)
    assert asked == []


@pytest.mark.parametrize(
    "answer", [None, 5, b"text", {"role": "user", "content": "x"}, {"content": None}, [5], {"tool_calls": [{}]}, "\ud800"]
)
def test_an_answer_that_is_none_fails_the_turn(store: sessionstore.SessionStore, answer: Any) -> None:
    agent = ChatAgent(lambda messages: answer, store=store, session_id="user-alice")
    with pytest.raises(ModelError):
        agent.ask("Hello")
    assert store.get("user-alice") is None


def test_a_callable_may_tell_usage_and_ends_a_stream_with_its_message(store: sessionstore.SessionStore) -> None:
    def model(messages: list[dict[str, Any]]) -> Iterator[Any]:
        yield "Par"
        yield "is"
        yield ModelAnswer({"role": "assistant"}, model="mine", output_tokens=2)

    agent = ChatAgent(model, store=store, session_id="user-alice")
    stream = agent.stream("Capital?")
    assert list(stream) == ["Par", "is"]
    assert (stream.reply, stream.reply.model, stream.reply.output_tokens) == ("Paris", "mine", 2)
    assert store.messages("user-alice")[-1].output_tokens == 2


def test_a_callable_asks_for_tools_and_is_told_of_them_if_it_takes_them(store: sessionstore.SessionStore) -> None:
    def weather(city: str) -> str:
        return f"clear in {city}"

    told: list[Any] = []

    def model(messages: list[dict[str, Any]], *, tools: list[dict[str, Any]]) -> Any:
        told.append(tools)
        if messages[-1]["role"] == "tool":
            return f"It is {messages[-1]['content']}."
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[weather])
    assert agent.ask("Weather?") == "It is clear in Rome."
    assert [[tool["function"]["name"] for tool in tools] for tools in told] == [["weather"]] * 2
    assert roles(store) == ["user", "assistant", "tool", "assistant"]
    bound = ChatAgent(functools.partial(model, tools="mine"), tools=[weather])
    assert bound.ask("Weather?") == "It is clear in Rome."
    assert told[2:] == ["mine"] * 2
    assert ChatAgent(lambda tools: str(len(tools)), tools=[weather]).ask("Messages, whatever their name") == "1"


@pytest.mark.parametrize("answer", [5, [5]])
def test_an_answer_of_a_wrong_type_is_named_by_it(answer: Any) -> None:
    with pytest.raises(ModelError, match="the model gave int"):
        ChatAgent(lambda messages: answer).ask("Hello")


def test_what_a_callable_does_to_its_messages_changes_nothing(store: sessionstore.SessionStore) -> None:
    def vandal(messages: list[dict[str, Any]]) -> str:
        for message in messages:
            message["content"] = "gone"
        messages.clear()
        return "Yes"

    agent = ChatAgent(vandal)
    agent.ask([{"type": "text", "text": "One"}])
    agent.ask("Two")
    assert [message["content"] for message in agent.messages()] == [[{"type": "text", "text": "One"}], "Yes", "Two", "Yes"]


def test_no_key_shows_anywhere(server: ModelServer, store: sessionstore.SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    model = OpenAICompatible(server.url, "m-1", KEY)
    agent = ChatAgent(model, store=store, session_id="user-alice")
    server.script.extend([refusal(401, f"Incorrect API key provided: {KEY}")])
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError, match="HTTP 401") as failed:
        agent.ask("Hello")
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    shown = [repr(model), repr(agent), str(failed.value), repr(failed.value), *(str(vars(record)) for record in caplog.records)]
    rows = store.query("SELECT * FROM v_metric_events").rows
    assert [each for each in (*shown, str(rows)) if KEY in each] == []
    model.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_no_key_stands_in_the_variables_of_a_traceback(server: ModelServer, model: OpenAICompatible, streamed: bool) -> None:
    server.script.append(half_stream(closes_well=False))
    agent = ChatAgent(model)
    with pytest.raises(ModelError) as failed:
        _ = list(agent.stream("Hello")) if streamed else agent.ask("Hello")
    told = traceback.TracebackException.from_exception(failed.value, capture_locals=True)
    text_of_it = "".join(told.format())
    assert "_translated" in text_of_it or "pieces" in text_of_it
    assert KEY not in text_of_it


def test_a_store_that_fails_fails_the_turn_and_lets_the_next_one_in(store_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = sessionstore.open(store_path)
    agent = ChatAgent(lambda messages: iter(["Half ", "whole"]), store=store, session_id="user-alice")
    stream = agent.stream("Hello")
    assert next(stream) == "Half "
    store.close()
    with caplog.at_level(logging.INFO, "sessionstore"), pytest.raises(sessionstore.ClosedStoreError):
        list(stream)
    assert "turn_failed" in [getattr(record, "event", None) for record in caplog.records]
    assert agent.failed_question == "Hello"
    with sessionstore.open(store_path) as again:
        assert again.count() == 0
        assert agent.with_store(again).ask("Again") == "Half whole"
        assert roles(again) == ["user", "assistant"]
        assert figures(again)[0][0] == "turn.failed"
