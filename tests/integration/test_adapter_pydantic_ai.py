"""MessageHistory under real agents of pydantic-ai, with its own test models."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    ConversationTypeAdapter,
    DeferredToolRequests,
    DeferredToolResults,
    ImageUrl,
    ModelRetry,
)
from pydantic_ai._warnings import PydanticAIDeprecationWarning
from pydantic_ai.messages import (
    FilePart,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage
from trials import Trial

import sessionstore
from sessionstore import AsyncSessionStore, ClosedStoreError, InvalidInputError, SessionStore
from sessionstore.adapters.pydantic_ai import MessageHistory

asynchronous = pytest.mark.anyio
# Agents of pydantic-ai run nowhere else; loading and appending do.
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(autouse=True)
def loop_of_the_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """`run_sync` runs in the loop of its thread, makes one if there is none, and leaves it open."""
    if request.node.get_closest_marker("anyio") is not None:
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


AT = datetime(2026, 3, 28, 12, tzinfo=UTC)


def asked(text: str) -> ModelRequest:
    return ModelRequest([UserPromptPart(text, timestamp=AT)], timestamp=AT)


def said(text: str) -> ModelResponse:
    return ModelResponse([TextPart(text)], timestamp=AT)


def same(first: list[ModelMessage], second: list[ModelMessage]) -> bool:
    """Equal to pydantic-ai, and equal as the JSON that it writes."""
    return first == second and ModelMessagesTypeAdapter.dump_json(first) == ModelMessagesTypeAdapter.dump_json(second)


def echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """A model that says all that users said so far."""
    prompts = [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    return ModelResponse([TextPart(" | ".join(map(str, prompts)))], usage=RequestUsage(input_tokens=len(prompts), output_tokens=1))


EVERYTHING: list[ModelMessage] = [
    ModelRequest(
        [
            SystemPromptPart("Be nice.", timestamp=AT),
            SystemPromptPart("", timestamp=AT),
            UserPromptPart(
                ["Look", ImageUrl("https://example.com/a.png"), "and", BinaryContent(b"\x00\xff", media_type="image/png")]
            ),
        ],
        timestamp=AT,
        instructions="Be short.",
        metadata={"tags": [1, None, {"deep": True}]},
    ),
    ModelResponse(
        [
            ThinkingPart("Hm.", id="th_1", signature="signed"),
            TextPart("Let me see."),
            ToolCallPart("weather", {"city": "Paris"}, "call_1"),
            ToolCallPart("weather", '{"city": "Rome"}', "call_2"),
            ToolCallPart("nothing", None, "call_3"),
            ToolCallPart("broken", '{"city": ', "call_4"),
        ],
        usage=RequestUsage(input_tokens=12, output_tokens=5, cache_read_tokens=3, details={"reasoning_tokens": 2}),
        model_name="m-1",
        timestamp=AT + timedelta(seconds=1.5),
        finish_reason="tool_call",
        provider_details={"x": 1.5},
    ),
    ModelRequest(
        [
            ToolReturnPart("weather", "sunny", "call_1", timestamp=AT),
            ToolReturnPart("weather", {"sky": "grey", "wind": [1, 2]}, "call_2", timestamp=AT),
            ToolReturnPart("nothing", None, "call_3", timestamp=AT),
            ToolReturnPart("broken", "is no JSON", "call_4", timestamp=AT, outcome="failed"),
            UserPromptPart("", timestamp=AT),
        ],
        timestamp=AT + timedelta(seconds=2),
    ),
    ModelResponse([TextPart("Sunny"), TextPart("and grey.")], timestamp=AT + timedelta(seconds=3)),
    ModelRequest([UserPromptPart("And a picture?", timestamp=AT)]),
    ModelResponse([FilePart(BinaryContent(b"png" * 40_000, media_type="image/png"))], timestamp=AT),
    ModelResponse([], timestamp=AT, state="interrupted"),
    ModelRequest([], timestamp=AT, state="interrupted"),
]


# -- what is stored


def test_every_kind_of_part_comes_back_equal(store: SessionStore) -> None:
    wanted = ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(EVERYTHING))
    history = MessageHistory(store)
    history.append("c", EVERYTHING)
    assert same(history.load("c"), wanted)
    again = MessageHistory(store)
    again.append("copy", history.load("c"))
    assert same(again.load("copy"), wanted)


class Drawn:
    """Messages of any parts that the types allow, in any order, with the texts that break things."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.calls = 0
        self.waiting: list[str] = []

    def text(self) -> str:
        return self.random.choice(["", "a", "h\u00e9llo\n", "x" * 70_000, '{"a":1}', "\0nul", "\u65e5\u672c"])

    def value(self) -> Any:
        picture = BinaryContent(b"\0" * self.random.choice([0, 3, 90_000]), media_type="image/png")
        return self.random.choice([self.text(), None, 1, 1.5, [], {"a": [1, None]}, ["a", {"b": 2}], picture, [picture, "a"]])

    def messages(self) -> list[ModelMessage]:
        self.waiting.clear()
        return [self.random.choice([self.request, self.response])() for _ in range(self.random.randrange(1, 8))]

    def request(self) -> ModelRequest:
        parts = [self.asking() for _ in range(self.random.randrange(4))]
        at = self.random.choice([None, AT, AT + timedelta(seconds=5)])
        return ModelRequest(parts, timestamp=at, instructions=self.random.choice([None, self.text()]))

    def asking(self) -> Any:
        kind = self.random.choice(["system", "user", "pieces", "result"])
        if kind == "system":
            return SystemPromptPart(self.text(), timestamp=AT)
        if kind == "user":
            return UserPromptPart(self.text(), timestamp=AT)
        if kind == "pieces":
            pieces = [self.text(), ImageUrl("https://example.com/a.png"), BinaryContent(b"\0", media_type="image/png"), self.text()]
            return UserPromptPart(pieces[: self.random.randrange(5)], timestamp=AT)
        call_id = self.waiting.pop() if self.waiting else "nobody's"
        return ToolReturnPart(
            "tool", self.value(), call_id, timestamp=AT, outcome=self.random.choice(["success", "failed", "denied"])
        )

    def response(self) -> ModelResponse:
        parts = [self.answering() for _ in range(self.random.randrange(4))]
        at = AT + timedelta(seconds=self.random.randrange(9))
        return ModelResponse(parts, timestamp=at, model_name=self.random.choice([None, "m-1", "odd\nname"]))

    def answering(self) -> Any:
        kind = self.random.choice(["text", "thinking", "call", "file"])
        if kind == "text":
            return TextPart(self.text(), id=self.random.choice([None, "id"]))
        if kind == "thinking":
            return ThinkingPart(self.text(), signature=self.random.choice([None, "signed"]))
        if kind == "file":
            return FilePart(BinaryContent(b"file", media_type="image/png"))
        self.calls += 1
        self.waiting.append(f"call_{self.calls}")
        return ToolCallPart(
            "tool", self.random.choice([None, {}, {"a": self.text()}, "{}", '{"a": 1}', "{bad", ""]), self.waiting[-1]
        )


@pytest.mark.fault("F38")
def test_messages_of_any_parts_come_back_equal_in_any_pieces(store: SessionStore, trial: Trial) -> None:
    drawn, history = Drawn(trial.seed), MessageHistory(store)
    cases = trial.size(push=25, nightly=200, release=1_000)
    for number in range(cases):
        messages = drawn.messages()
        cut = drawn.random.randrange(len(messages) + 1)
        history.append(f"c-{number}", messages[:cut])
        history.append(f"c-{number}", messages[cut:])
        wanted = ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(messages))
        assert same(history.load(f"c-{number}"), wanted)
        for last in (1, 2, 99):
            newest = history.load(f"c-{number}", last=last)
            assert newest == wanted[len(wanted) - len(newest) :]
            assert len(newest) >= min(last, len(wanted))
    trial.report(f"{cases:,} histories of Pydantic AI: equal in any pieces")


def test_no_text_is_stored_twice(store: SessionStore) -> None:
    MessageHistory(store).append("c", [asked("unrepeated question"), said("unrepeated answer")])
    stored = str([message.to_dict() for message in store.messages("c")])
    assert (stored.count("unrepeated question"), stored.count("unrepeated answer")) == (1, 1)


def test_the_store_sees_an_ordinary_chat(store: SessionStore) -> None:
    MessageHistory(store).append("c", EVERYTHING[:4])
    rows = store.messages("c")
    assert [(message.role, message.text) for message in rows] == [
        ("system", "Be nice."),
        ("system", ""),
        ("user", "Look\nand"),
        ("assistant", "Let me see."),
        ("tool", "sunny"),
        ("tool", '{"sky":"grey","wind":[1,2]}'),
        ("tool", ""),
        ("tool", "is no JSON"),
        ("user", ""),
        ("assistant", "Sunny\nand grey."),
    ]
    assert rows[3].to_dict()["tool_calls"][1] == {
        "id": "call_2",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
    }
    assert store.check("c").ok
    assert [hit.seq for hit in store.search("sunny", role="tool")] == [5]


def test_tokens_model_and_response_time_are_figures(store: SessionStore) -> None:
    MessageHistory(store).append("c", EVERYTHING[:2])
    answer = store.messages("c")[-1]
    assert (answer.model, answer.finish_reason, answer.response_time_ms) == ("m-1", "tool_call", 1500.0)
    assert (answer.input_tokens, answer.output_tokens, answer.cache_read_tokens, answer.reasoning_tokens) == (12, 5, 3, 2)
    assert answer.created_at == AT + timedelta(seconds=1.5)
    assert store.tokens()["overall"]["input_tokens"] == 12


def test_an_open_call_is_known_and_a_repaired_one_is_loaded_behind_its_call(store: SessionStore) -> None:
    history = MessageHistory(store)
    history.append("c", [asked("Weather?"), ModelResponse([ToolCallPart("weather", "{}", "call_1")], timestamp=AT)])
    assert [(call.call_id, call.name) for call in store.open_tool_calls("c")] == [("call_1", "weather")]
    history.append("c", [asked("Are you there?")])
    store.repair("c")
    *_, result, prompt = history.load("c")
    assert isinstance(result.parts[0], ToolReturnPart)
    assert (result.parts[0].tool_name, result.parts[0].tool_call_id) == ("weather", "call_1")
    assert prompt == asked("Are you there?")


def test_a_retry_of_older_kind_answers_its_call(store: SessionStore) -> None:
    call = ModelResponse([ToolCallPart("weather", "{}", "call_1")], timestamp=AT)
    with pytest.warns(PydanticAIDeprecationWarning, match="RetryPromptPart"):
        retry = ModelRequest([RetryPromptPart("no such city", tool_name="weather", tool_call_id="call_1", timestamp=AT)])
    history = MessageHistory(store)
    messages = [asked("Weather?"), call, retry]
    history.append("c", messages)
    assert store.check("c").ok
    wanted = ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(messages))
    assert same(history.load("c"), wanted)
    assert isinstance(wanted[-1].parts[0], ToolReturnPart)


def test_a_chat_that_others_wrote_can_be_gone_on_with(store: SessionStore) -> None:
    chat = store.session("c")
    chat.append("system", "Be nice.")
    picture = {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}
    chat.append({"role": "user", "content": [{"type": "text", "text": "Look"}, picture]})
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    chat.append("assistant", "Let me see.", tool_calls=[call], model="m-1")
    chat.append("tool", "sunny", tool_call_id="call_1")
    chat.append({"type": "function_call", "call_id": "call_2", "name": "wind", "arguments": "{}"})
    chat.append({"type": "function_call_output", "call_id": "call_2", "output": "calm"})
    chat.append({"note": "no message at all"}, kind="note")
    system, user, answer, result, second, calm = MessageHistory(store).load("c")
    said_first: Any = (*system.parts, *user.parts)
    assert [part.content for part in said_first] == ["Be nice.", ["Look", ImageUrl("https://x.org/a.png")]]
    assert answer.parts == [TextPart("Let me see."), ToolCallPart("weather", '{"city":"Rome"}', "call_1")]
    assert [(part.tool_name, part.content) for part in (*result.parts, *calm.parts) if isinstance(part, ToolReturnPart)] == [
        ("weather", "sunny"),
        ("wind", "calm"),
    ]
    assert second.parts == [ToolCallPart("wind", "{}", "call_2")]
    agent = Agent(FunctionModel(echo))
    assert "Go on" in MessageHistory(store).run_sync(agent, "c", "Go on").output


@pytest.mark.parametrize("bad", ["text", [{"role": "user"}], None, 3])
def test_what_is_no_message_is_refused(store: SessionStore, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="messages"):
        MessageHistory(store).append("c", bad)
    assert store.get("c") is None


def test_a_message_that_json_cannot_hold_is_refused_with_all_others(store: SessionStore) -> None:
    history = MessageHistory(store)
    with pytest.raises(InvalidInputError):
        history.append("c", [asked("Hi"), ModelRequest([ToolReturnPart("t", object(), "call_1")])])
    assert history.load("c") == []


def test_no_messages_make_no_session(store: SessionStore) -> None:
    history = MessageHistory(store, agent_id="helper", user_id="alice", ttl=60)
    assert history.load("c") == []
    assert history.append("c", []) == []
    assert store.get("c") is None
    history.append("c", [asked("Hi")])
    info = store.get("c")
    assert info is not None
    assert (info.agent_id, info.user_id, info.expires_at is None) == ("helper", "alice", False)


# -- limits


def test_a_limit_keeps_turns_whole(store: SessionStore) -> None:
    call = ModelResponse([ToolCallPart("weather", "{}", "call_1")], timestamp=AT)
    result = ModelRequest([ToolReturnPart("weather", "sunny", "call_1", timestamp=AT)], timestamp=AT)
    first, second = [asked("1"), said("one")], [asked("2"), call, result, said("two")]
    history = MessageHistory(store)
    history.append("c", first + second)
    for last, wanted in (
        (0, []),
        (1, second),
        (2, second),
        (4, second),
        (5, first + second),
        (6, first + second),
        (99, first + second),
    ):
        assert history.load("c", last=last) == wanted
    with pytest.raises(InvalidInputError, match="last"):
        history.load("c", last=-1)


def test_a_limit_finds_the_beginning_of_a_very_long_turn(store: SessionStore) -> None:
    turn: list[ModelMessage] = [asked("long")]
    for number in range(100):
        turn.append(ModelResponse([ToolCallPart("step", "{}", f"call_{number}")], timestamp=AT))
        turn.append(ModelRequest([ToolReturnPart("step", "done", f"call_{number}", timestamp=AT)], timestamp=AT))
    history = MessageHistory(store)
    history.append("c", [asked("before"), said("yes"), *turn])
    assert history.load("c", last=3) == turn
    assert len(history.load("c")) == 203


# -- agents


def test_an_agent_remembers_through_a_restart(store_path: Path) -> None:
    with MessageHistory(store_path) as history:
        assert history.run_sync(Agent(FunctionModel(echo)), "c", "one").output == "one"
    with MessageHistory(store_path) as history:
        result = history.run_sync(Agent(FunctionModel(echo)), "c", "two")
        assert result.output == "one | two"
        assert same(history.load("c"), result.all_messages())
        assert {message.conversation_id for message in history.load("c")} == {"c"}


def test_tools_retries_and_structured_output_round_trip(store: SessionStore) -> None:
    class Report(BaseModel):
        city: str
        sunny: bool

    agent = Agent(TestModel(), output_type=Report, system_prompt="Be nice.", instructions="And short.")
    tried: list[str] = []

    @agent.tool_plain
    def weather(city: str) -> dict[str, Any]:
        tried.append(city)
        if len(tried) == 1:
            raise ModelRetry("no such city")
        return {"sunny": True, "at": [1, 2.5]}

    @agent.tool_plain
    def photo() -> BinaryContent:
        return BinaryContent(b"\x89PNG" * 20_000, media_type="image/png")

    history = MessageHistory(store)
    result = history.run_sync(agent, "c", ["Weather?", BinaryContent(b"abc", media_type="image/png")])
    assert len(tried) == 2
    assert same(history.load("c"), ModelMessagesTypeAdapter.validate_json(result.all_messages_json()))
    assert store.check("c").ok
    again = history.run_sync(agent, "c", "And now?")
    assert len(again.all_messages()) == len(result.all_messages()) + len(again.new_messages())


def test_a_run_that_fails_stores_nothing(store: SessionStore) -> None:
    def failing(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        raise ConnectionError("gone")

    history = MessageHistory(store)
    history.run_sync(Agent(FunctionModel(echo)), "c", "one")
    with pytest.raises(ConnectionError):
        history.run_sync(Agent(FunctionModel(failing)), "c", "two")
    assert history.run_sync(Agent(FunctionModel(echo)), "c", "three").output == "one | three"


def test_a_deferred_call_waits_through_a_restart(store_path: Path) -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        results = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        if results:
            return ModelResponse([TextPart(str(results[0].content))])
        return ModelResponse([ToolCallPart("refund", {"order": 17}, "call_1")])

    def agent() -> Agent[None, str | DeferredToolRequests]:
        made: Agent[None, str | DeferredToolRequests] = Agent(FunctionModel(model), output_type=[str, DeferredToolRequests])

        @made.tool_plain(requires_approval=True)
        def refund(order: int) -> str:
            return f"paid back {order}"

        return made

    with MessageHistory(store_path) as history:
        history.run_sync(agent(), "c", "My money back!")
    with MessageHistory(store_path) as history:
        assert [call.name for call in history.store.open_tool_calls("c")] == ["refund"]
        waiting = history.conversation("c").deferred_tool_requests
        assert waiting is not None
        assert [call.tool_call_id for call in waiting.approvals] == ["call_1"]
        result = history.run_sync(agent(), "c", deferred_tool_results=DeferredToolResults(approvals={"call_1": True}))
        assert result.output == "paid back 17"
        assert history.store.check("c").ok
        assert history.conversation("c").deferred_tool_requests is None


def test_the_conversation_carries_messages_and_usage(store: SessionStore) -> None:
    history = MessageHistory(store)
    agent = Agent(FunctionModel(echo))

    @agent.tool_plain
    def unused() -> str:
        return ""

    for prompt in ("one", "two"):
        history.run_sync(agent, "c", prompt)
    conversation = history.conversation("c")
    assert (conversation.conversation_id, conversation.messages) == ("c", history.load("c"))
    assert (conversation.usage.requests, conversation.usage.input_tokens, conversation.usage.output_tokens) == (2, 3, 2)
    assert ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(conversation)) == conversation
    result = agent.run_sync("three", conversation=conversation)
    history.append("c", result)
    assert (result.output, result.usage.requests) == ("one | two | three", 3)
    assert same(history.load("c"), result.all_messages())
    assert history.conversation("new").messages == []


def test_a_fork_goes_its_own_way(store: SessionStore) -> None:
    history = MessageHistory(store)
    agent = Agent(FunctionModel(echo))
    for prompt in ("one", "two"):
        history.run_sync(agent, "c", prompt)
    store.fork("c", "branch", at=2)
    assert history.run_sync(agent, "branch", "three").output == "one | three"
    assert history.run_sync(agent, "c", "four").output == "one | two | four"


def test_a_fork_within_a_request_keeps_the_parts_before_it(store: SessionStore) -> None:
    history = MessageHistory(store)
    history.append("c", EVERYTHING[:1])
    store.fork("c", "branch", at=1)
    (request,) = history.load("branch")
    assert request.parts == EVERYTHING[0].parts[:1]
    store.replace_range("c", 1, 1, [])
    assert [part.part_kind for message in history.load("c") for part in message.parts] == ["system-prompt", "user-prompt"]


def test_a_result_that_repair_gave_to_an_old_call_does_not_stand_alone_in_a_limited_history(store: SessionStore) -> None:
    history = MessageHistory(store)
    history.append("c", [asked("Wait."), ModelResponse([ToolCallPart("wait", "{}", "call_1")])])
    history.append("c", [message for number in range(20) for message in (asked(str(number)), said(str(number)))])
    store.repair("c")
    assert [part.part_kind for message in history.load("c", last=2) for part in message.parts] == ["user-prompt", "text"]
    assert [part.part_kind for message in history.load("c")[:3] for part in message.parts] == [
        "user-prompt",
        "tool-call",
        "tool-return",
    ]


def test_a_history_beside_the_one_that_is_loaded_is_refused(store: SessionStore) -> None:
    history = MessageHistory(store)
    with pytest.raises(InvalidInputError, match="message_history"):
        history.run_sync(Agent(TestModel()), "c", "Hi", message_history=[asked("Other")])
    assert store.get("c") is None


def test_two_namespaces_of_equal_ids_never_see_each_other(store: SessionStore) -> None:
    agent = Agent(FunctionModel(echo))
    first, second = MessageHistory(store), MessageHistory(store.in_namespace("tenant"))
    first.run_sync(agent, "c", "one")
    assert second.load("c") == []
    assert second.run_sync(agent, "c", "two").output == "two"
    assert first.run_sync(agent, "c", "three").output == "one | three"


def test_a_given_store_stays_open_and_a_path_is_closed(store: SessionStore, tmp_path: Path) -> None:
    with MessageHistory(store) as history:
        history.append("c", [asked("Hi")])
    assert len(store.messages("c")) == 1
    with MessageHistory(str(tmp_path / "own.db")) as history:
        history.append("c", [asked("Hi")])
    with pytest.raises(ClosedStoreError):
        history.load("c")


# -- awaited


@asynchronous
async def test_the_awaited_forms_do_the_same(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        history = MessageHistory(store)
        assert await history.aload("c") == []
        assert await history.aappend("c", []) == []
        assert (await history.aconversation("c")).messages == []
        await history.aappend("c", EVERYTHING[:4])
        assert await history.aload("c") == history.load("c")
        assert await history.aload("c", last=1) == history.load("c", last=1)
        assert await history.aconversation("c") == history.conversation("c")
        turns: list[ModelMessage] = [message for number in range(60) for message in (asked(str(number)), said(str(number)))]
        await history.aappend("long", turns)
        assert await history.aload("long", last=41) == turns[-42:]
    async with MessageHistory(store_path) as history:
        assert len(await history.aload("c")) == 4
    with pytest.raises(ClosedStoreError):
        await history.aload("c")


@asynchronous
@on_asyncio
async def test_concurrent_runs_of_several_conversations_do_not_mix(store: SessionStore) -> None:
    history = MessageHistory(AsyncSessionStore(store))

    async def talk(name: str) -> None:
        for turn in range(3):
            await history.run(Agent(FunctionModel(echo)), name, f"{name}.{turn}")

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(talk, f"user-{number}")
    for number in range(4):
        assert store.messages(f"user-{number}")[-1].text == " | ".join(f"user-{number}.{turn}" for turn in range(3))


@asynchronous
@on_asyncio
async def test_a_streamed_run_is_appended_when_it_is_over(store: SessionStore) -> None:
    async def words(messages: list[ModelMessage], info: AgentInfo) -> Any:
        for word in ("Pa", "ris", "."):
            yield word

    history = MessageHistory(store)
    agent = Agent(FunctionModel(stream_function=words))
    async with agent.run_stream("Capital?", message_history=await history.aload("c")) as result:
        assert [piece async for piece in result.stream_text(delta=True, debounce_by=None)] == ["Pa", "ris", "."]
        await history.aappend("c", result)
    assert [message.text for message in store.messages("c")] == ["Capital?", "Paris."]


@asynchronous
@on_asyncio
async def test_a_run_that_still_streams_is_refused_and_one_that_was_cancelled_is_stored_as_it_is(store: SessionStore) -> None:
    history = MessageHistory(store)
    async with Agent(TestModel(custom_output_text="one two three")).run_stream("Count.") as result:
        with pytest.raises(InvalidInputError, match="to the end"):
            await history.aappend("c", result)
        assert store.get("c") is None
        await result.cancel()
        await history.aappend("c", result)
    assert await history.aload("c") == result.new_messages()


# -- other processes

CHILD = """
import sys, time
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from sessionstore.adapters.pydantic_ai import MessageHistory

history = MessageHistory(sys.argv[1])
history.run_sync(Agent(TestModel(custom_output_text="Paris.")), "c", "Capital of France?")
agent = Agent(FunctionModel(lambda messages, info: ModelResponse([ToolCallPart("wait", "{}", "call_1")])))

@agent.tool_plain
def wait() -> str:
    print("in the tool", flush=True)
    time.sleep(60)
    return "never"

history.run_sync(agent, "c", "Wait.")
"""


def test_a_run_killed_in_its_tool_leaves_the_turns_before_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the tool\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    with MessageHistory(path) as history:
        assert history.run_sync(Agent(FunctionModel(echo)), "c", "And of Italy?").output == "Capital of France? | And of Italy?"
        assert history.store.check("c").ok
