"""SessionChatMessageHistory as LangChain uses it, with LangChain's own fake model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

import sessionstore
from sessionstore import AsyncSessionStore, ClosedStoreError, InvalidInputError, SessionStore
from sessionstore.adapters.langchain import SessionChatMessageHistory

pytestmark = pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")

CALLING = AIMessage(
    "Let me see.",
    id="run-1",
    tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "call_1"}, {"name": "wind", "args": {}, "id": "call_2"}],
    usage_metadata={
        "input_tokens": 12,
        "output_tokens": 5,
        "total_tokens": 17,
        "input_token_details": {"cache_read": 3},
        "output_token_details": {"reasoning": 2},
    },
    response_metadata={"model_name": "m-1", "finish_reason": "tool_calls"},
)
EVERYTHING: list[BaseMessage] = [
    SystemMessage("Be nice."),
    HumanMessage(
        [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}], name="alice"
    ),
    CALLING,
    ToolMessage("sunny", tool_call_id="call_1", artifact={"raw": [1, None]}),
    ToolMessage([{"type": "text", "text": "calm"}], tool_call_id="call_2", status="error"),
    AIMessage(
        "", additional_kwargs={"refusal": None}, invalid_tool_calls=[{"name": "x", "args": "{", "id": "i", "error": "no JSON"}]
    ),
    FunctionMessage("done", name="old"),
    ChatMessage("Not good.", role="critic"),
    ChatMessage("As a user.", role="user"),
    AIMessageChunk("half"),
    RemoveMessage(id="run-1"),
]


# -- what is stored


def test_every_message_comes_back_equal(store: SessionStore) -> None:
    history = SessionChatMessageHistory("s", store)
    assert isinstance(history, BaseChatMessageHistory)
    history.add_messages(EVERYTHING)
    assert history.messages == EVERYTHING
    assert messages_to_dict(history.messages) == messages_to_dict(EVERYTHING)
    assert [type(message) for message in history.messages] == [type(message) for message in EVERYTHING]


def test_the_store_sees_an_ordinary_chat(store: SessionStore) -> None:
    SessionChatMessageHistory("s", store).add_messages(EVERYTHING)
    rows = store.messages("s")
    assert [(message.role, message.text) for message in rows[:5]] == [
        ("system", "Be nice."),
        ("user", "Look"),
        ("assistant", "Let me see."),
        ("tool", "sunny"),
        ("tool", "calm"),
    ]
    assert [(message.kind, message.role) for message in rows[6:9]] == [
        ("message", "function"),
        ("langchain", None),
        ("message", "user"),
    ]
    answer = rows[2]
    assert (answer.model, answer.finish_reason) == ("m-1", "tool_calls")
    assert (answer.input_tokens, answer.output_tokens, answer.cache_read_tokens, answer.reasoning_tokens) == (12, 5, 3, 2)
    assert answer.to_dict()["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert str(answer.to_dict()).count("Let me see.") == 1
    assert store.check("s").ok
    assert [(hit.seq, hit.role) for hit in store.search("good")] == [(8, None)]


def test_a_chat_that_others_wrote_can_be_gone_on_with(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append("system", "Be nice.")
    chat.append("user", "Weather?")
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    broken = {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    chat.append("assistant", tool_calls=[call])
    chat.append("assistant", "Hm.", tool_calls=[broken])
    chat.append({"note": "no message at all"}, kind="note")
    chat.repair()
    system, user, calling, result, invalid, *_ = SessionChatMessageHistory("s", store).messages
    assert [system.content, user.content] == ["Be nice.", "Weather?"]
    assert isinstance(calling, AIMessage)
    assert [(made["name"], made["args"], made["id"]) for made in calling.tool_calls] == [("weather", {"city": "Paris"}, "call_1")]
    assert isinstance(result, ToolMessage)
    assert result.tool_call_id == "call_1"
    assert isinstance(invalid, AIMessage)
    assert [made["id"] for made in invalid.invalid_tool_calls] == ["call_2"]


@pytest.mark.parametrize(
    "bad",
    [
        ["text"],
        [{"role": "user", "content": "Hi"}],
        *([ToolMessage("x", tool_call_id="1", artifact=artifact)] for artifact in (object(), [{1}], [b"1"], {1: 2})),
    ],
)
def test_what_is_no_message_or_no_json_is_refused_with_all_others(store: SessionStore, bad: Any) -> None:
    history = SessionChatMessageHistory("s", store)
    with pytest.raises(InvalidInputError, match="messages"):
        history.add_messages([HumanMessage("Hi"), *bad])
    assert store.get("s") is None


def test_an_odd_model_name_is_no_reason_to_lose_a_turn(store: SessionStore) -> None:
    message = AIMessage("Hi", response_metadata={"model_name": "m\n1" * 200, "finish_reason": 3})
    SessionChatMessageHistory("s", store).add_messages([message])
    assert SessionChatMessageHistory("s", store).messages == [message]
    assert store.messages("s")[0].model is None


def test_a_session_is_made_with_its_first_message_and_clearing_keeps_it(store: SessionStore) -> None:
    history = SessionChatMessageHistory("s", store, agent_id="helper", user_id="alice", ttl=60)
    assert history.messages == []
    history.clear()
    history.add_messages([])
    assert store.get("s") is None
    history.add_user_message("Hi")
    history.add_ai_message("Hello")
    assert str(history) == "Human: Hi\nAI: Hello"
    history.clear()
    assert history.messages == []
    info = store.get("s")
    assert info is not None
    assert (info.agent_id, info.user_id, info.expires_at is None) == ("helper", "alice", False)


def test_an_expired_history_is_empty_can_be_cleared_and_begins_anew(store: SessionStore, frozen: FrozenClock) -> None:
    history = SessionChatMessageHistory("s", store, ttl=60)
    history.add_user_message("Hi")
    frozen.go(61)
    assert history.messages == []
    history.clear()
    history.add_user_message("Again")
    assert [message.content for message in history.messages] == ["Again"]


def test_a_limit_never_gives_a_result_without_its_call(store: SessionStore) -> None:
    SessionChatMessageHistory("s", store).add_messages(EVERYTHING[:5])
    assert SessionChatMessageHistory("s", store, last=1).messages == EVERYTHING[2:5]
    assert SessionChatMessageHistory("s", store, last=99).messages == EVERYTHING[:5]
    assert SessionChatMessageHistory("s", store, last=0).messages == []


def test_two_namespaces_of_equal_ids_never_see_each_other(store: SessionStore) -> None:
    first = SessionChatMessageHistory("s", store)
    second = SessionChatMessageHistory("s", store.in_namespace("tenant"))
    first.add_user_message("one")
    assert second.messages == []
    second.add_user_message("two")
    second.clear()
    assert [message.content for message in first.messages] == ["one"]


def test_a_given_store_stays_open_and_a_path_is_closed(store: SessionStore, tmp_path: Path) -> None:
    with SessionChatMessageHistory("s", store) as history:
        history.add_user_message("Hi")
    assert len(store.messages("s")) == 1
    with SessionChatMessageHistory("s", tmp_path / "own.db") as history:
        history.add_user_message("Hi")
    with pytest.raises(ClosedStoreError):
        history.add_user_message("Hi")


# -- awaited


@pytest.mark.anyio
async def test_the_awaited_forms_do_the_same_without_an_executor(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_executor(*_: object) -> None:
        raise AssertionError("an executor was used")

    monkeypatch.setattr("langchain_core.chat_history.run_in_executor", no_executor)
    async with sessionstore.aopen(store_path) as store:
        history = SessionChatMessageHistory("s", store)
        assert await history.aget_messages() == []
        await history.aclear()
        await history.aadd_messages([])
        await history.aadd_messages(EVERYTHING)
        assert await history.aget_messages() == EVERYTHING == history.messages
        await history.aclear()
        assert await history.aget_messages() == []


# -- chains


def chain(history: Callable[[str], SessionChatMessageHistory], *answers: str) -> RunnableWithMessageHistory:
    return RunnableWithMessageHistory(GenericFakeChatModel(messages=iter(answers)), history)


def config(session_id: str) -> Any:
    return {"configurable": {"session_id": session_id}}


def test_a_chain_remembers_through_a_restart(store_path: Path) -> None:
    seen: list[list[BaseMessage]] = []

    def answer(messages: list[BaseMessage]) -> AIMessage:
        seen.append(list(messages))
        return AIMessage(f"answer {len(messages)}")

    for question in ("one", "two"):
        with sessionstore.open(store_path) as store:
            chat = RunnableWithMessageHistory(
                RunnableLambda(answer), lambda name, store=store: SessionChatMessageHistory(name, store)
            )
            chat.invoke([HumanMessage(question)], config("s"))
    assert [message.content for message in seen[1]] == ["one", "answer 1", "two"]
    with sessionstore.open(store_path) as store:
        assert [message.text for message in store.messages("s")] == ["one", "answer 1", "two", "answer 3"]


def test_a_streamed_answer_is_stored_whole(store: SessionStore) -> None:
    chat = chain(lambda name: SessionChatMessageHistory(name, store), "Paris it is")
    assert "".join(str(chunk.content) for chunk in chat.stream([HumanMessage("Capital?")], config("s"))) == "Paris it is"
    assert [(message.role, message.text) for message in store.messages("s")] == [("user", "Capital?"), ("assistant", "Paris it is")]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_awaited_chain_remembers(store: SessionStore) -> None:
    chat = chain(lambda name: SessionChatMessageHistory(name, AsyncSessionStore(store)), "Paris", "Rome")
    await chat.ainvoke([HumanMessage("Capital of France?")], config("s"))
    await chat.ainvoke([HumanMessage("And of Italy?")], config("s"))
    assert [message.text for message in store.messages("s")] == ["Capital of France?", "Paris", "And of Italy?", "Rome"]
