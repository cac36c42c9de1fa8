"""The async calls of a ChatAgent: on both event loops, and whole or nothing under cancellation."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from model_server import Exchange, ModelServer, calls, refusal, serving, stalled, text

import sessionstore
from sessionstore import AsyncSessionStore, ChatAgent, ConfigError, ConflictError, ModelError, OpenAICompatible
from sessionstore.waiting import in_thread

pytestmark = [
    pytest.mark.anyio,
    # httpx sends a body by an async generator, which a cancellation leaves to the garbage collector; trio tells of that.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <async_generator object ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"
    ),
]

USER: ContextVar[str] = ContextVar("user", default="nobody")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


@pytest.fixture
async def model(server: ModelServer) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible(server.url, "m-1", timeout=20)
    yield made
    await made.close_async()


def roles(store: sessionstore.SessionStore) -> list[str | None]:
    return [] if store.get("user-alice") is None else [message.role for message in store.messages("user-alice")]


def figures(store: sessionstore.SessionStore) -> list[str]:
    return [str(name) for (name,) in store.query("SELECT name FROM v_metric_events").rows]


async def reached(event: threading.Event) -> None:
    assert await in_thread(lambda: event.wait(20))


async def test_asking_and_streaming_remember_and_store(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    def weather(city: str) -> str:
        return f"clear in {city} for {USER.get()}"

    async def hour() -> int:
        await anyio.lowlevel.checkpoint()
        return 12

    USER.set("alice")
    agent = ChatAgent(model, store=AsyncSessionStore(store), session_id="user-alice", tools=[weather, hour])
    server.script.extend([calls(("weather", '{"city": "Rome"}'), ("hour", "{}")), text("Clear at noon.")])
    reply = await agent.ask_async("Weather?")
    assert (reply, reply.input_tokens) == ("Clear at noon.", 24)
    async with agent.stream_async("And now?") as stream:
        pieces = [piece async for piece in stream]
    assert "".join(pieces) == stream.reply == "You asked: And now? "
    assert roles(store) == ["user", "assistant", "tool", "tool", "assistant", "user", "assistant"]
    assert [message.text for message in store.messages("user-alice")][2:4] == ["clear in Rome for alice", "12"]
    assert await agent.messages_async() == [message.to_dict() for message in store.messages("user-alice")]
    with pytest.raises(ConfigError, match="hour is async"):
        agent.ask("Sync?")


async def test_an_async_callable_may_take_the_tools() -> None:
    def weather(city: str) -> str:
        return city

    async def model(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        await anyio.lowlevel.checkpoint()
        return str([tool["function"]["name"] for tool in tools])

    assert await ChatAgent(model, tools=[weather]).ask_async("Which?") == "['weather']"


async def test_the_response_time_is_that_of_the_column(store: sessionstore.SessionStore, model: OpenAICompatible) -> None:
    reply = await ChatAgent(model, store=store, session_id="user-alice").ask_async("First")
    assert reply.response_time_ms == store.messages("user-alice")[-1].response_time_ms


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_wait_for_the_model_stores_nothing(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible, streamed: bool
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice")
    await agent.ask_async("First")
    server.script.append(stalled)

    async def turn() -> None:
        if streamed:
            async for _ in agent.stream_async("Cut off"):
                pass
        else:
            await agent.ask_async("Cut off")

    async with anyio.create_task_group() as group:
        group.start_soon(turn)
        await reached(server.reached)
        group.cancel_scope.cancel()
    assert roles(store) == ["user", "assistant"]
    assert agent.failed_question == "Cut off"
    assert figures(store) == ["turn.cancelled"]
    await agent.ask_async("Third")
    assert server.sent_texts() == ["First", "You asked: First", "Third"]


async def test_a_cancelled_tool_stores_nothing(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    begun = threading.Event()

    async def slow() -> None:
        begun.set()
        await anyio.sleep_forever()

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[slow])
    server.script.append(calls(("slow", "{}")))
    async with anyio.create_task_group() as group:
        group.start_soon(agent.ask_async, "Go")
        await reached(begun)
        group.cancel_scope.cancel()
    assert store.get("user-alice") is None
    assert figures(store) == ["turn.cancelled"]


def hold_storing(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Hold turns back when they are to be stored: the first event says that one is, the second lets it go on."""
    storing, go_on = threading.Event(), threading.Event()
    append = sessionstore.SessionStore._append_or_begin

    def held(self: sessionstore.SessionStore, *arguments: Any) -> Any:
        storing.set()
        assert go_on.wait(20)
        return append(self, *arguments)

    monkeypatch.setattr(sessionstore.SessionStore, "_append_or_begin", held)
    return storing, go_on


async def test_a_cancellation_while_storing_comes_after_the_whole_turn(
    store: sessionstore.SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on = hold_storing(monkeypatch)
    agent = ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice")
    async with anyio.create_task_group() as group:
        group.start_soon(agent.ask_async, "Stored?")
        await reached(storing)
        group.cancel_scope.cancel()
        go_on.set()
    assert roles(store) == ["user", "assistant"]
    assert agent.failed_question is None
    assert figures(store) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_while_storing_has_stored_the_turn(
    store: sessionstore.SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own cancel() passes through shields."""
    storing, go_on = hold_storing(monkeypatch)
    agent = ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice")
    task = asyncio.create_task(agent.ask_async("Stored?"))
    await reached(storing)
    task.cancel()
    threading.Timer(0.05, go_on.set).start()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert roles(store) == ["user", "assistant"]
    assert (agent.failed_question, figures(store)) == (None, [])
    monkeypatch.undo()
    assert await agent.ask_async("Again?") == "Yes"


async def test_cancellations_at_every_step_leave_whole_turns(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    """Each delay ends at another await."""

    def tick() -> str:
        return "tock"

    def by_what_was_asked(exchange: Exchange) -> None:
        # What was sent by a turn that was cut off may come late.
        is_told = exchange.body["messages"][-1]["role"] == "tool"
        (text("Done in a few words.") if is_told else calls(("tick", "{}")))(exchange)

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[tick])
    server.script.extend([by_what_was_asked] * 100)
    finished = 0
    for delay in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.024, 0.032, 0.064, 60.0):
        with anyio.move_on_after(delay):
            async with agent.stream_async("Go") as stream:
                async for _ in stream:
                    pass
        turns = roles(store)
        assert turns == ["user", "assistant", "tool", "assistant"] * (len(turns) // 4)
        assert store.get("user-alice") is None or store.check("user-alice").unmatched_calls == ()
        finished = len(turns) // 4
    assert finished >= 1


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_a_stream_that_is_left_early_stores_nothing(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible, leave: str
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice")
    with anyio.CancelScope() as scope:
        async with agent.stream_async("Left") as stream:
            await anext(stream)
            with pytest.raises(ConflictError, match="unfinished"):
                await agent.ask_async("Another")
            if leave == "cancel":
                scope.cancel()
                await anyio.lowlevel.checkpoint()
    assert [piece async for piece in stream] == []
    assert store.get("user-alice") is None
    assert figures(store) == ["turn.cancelled"]
    assert await agent.ask_async("Next") == "You asked: Next"


async def test_many_tasks_on_one_agent_take_turns_and_a_cancelled_one_gives_way(store: sessionstore.SessionStore) -> None:
    inside = 0

    async def model(messages: list[dict[str, Any]]) -> str:
        nonlocal inside
        inside += 1
        assert inside == 1
        await anyio.sleep(0.001)
        inside -= 1
        return f"Answer to {messages[-1]['content']}"

    agent = ChatAgent(model, store=store, session_id="user-alice")

    async def asked(name: str, *, leaves: bool) -> None:
        with anyio.move_on_after(0 if leaves else 60):
            assert await agent.ask_async(name) == f"Answer to {name}"

    async with anyio.create_task_group() as group:
        for number in range(24):
            group.start_soon(lambda number=number: asked(f"q{number}", leaves=number % 3 == 1))
    stored = [message.text for message in store.messages("user-alice")]
    assert sorted(map(str, stored[::2])) == sorted(f"q{number}" for number in range(24) if number % 3 != 1)
    assert stored[1::2] == [f"Answer to {question}" for question in stored[::2]]


async def test_threads_and_tasks_share_an_agent(store: sessionstore.SessionStore) -> None:
    agent = ChatAgent(lambda messages: "Yes", store=store, session_id="user-alice")
    threads = [threading.Thread(target=lambda: [agent.ask("From a thread") for _ in range(5)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        await agent.ask_async("From a task")
    for thread in threads:
        await in_thread(thread.join)
    assert roles(store) == ["user", "assistant"] * 15


async def test_every_kind_of_callable_answers(store: sessionstore.SessionStore) -> None:
    async def pieces(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
        for word in ("An ", "answer"):
            await anyio.lowlevel.checkpoint()
            yield word

    async def whole(messages: list[dict[str, Any]]) -> dict[str, Any]:
        return {"role": "assistant", "content": "An answer"}

    def threaded(messages: list[dict[str, Any]]) -> Iterator[str]:
        yield from ("An ", "answer")

    class Callable:
        async def __call__(self, messages: list[dict[str, Any]]) -> str:
            return "An answer"

    for model in (pieces, whole, threaded, Callable(), lambda messages: whole(list(messages))):
        agent = ChatAgent(model)
        assert await agent.ask_async("Hello") == "An answer"
        stream = agent.stream_async("Again")
        assert "".join([piece async for piece in stream]) == "An answer" == stream.reply
        if model is not threaded:
            with pytest.raises(ConfigError, match="is async"):
                agent.ask("Sync")


async def test_a_plain_iterator_that_fails_or_is_left_is_closed(store: sessionstore.SessionStore) -> None:
    closed: list[str] = []

    def pieces(messages: list[dict[str, Any]]) -> Iterator[str]:
        try:
            yield "Some "
            yield "more"
        finally:
            closed.append("yes")

    agent = ChatAgent(pieces, store=store, session_id="user-alice")
    async with agent.stream_async("Hello") as stream:
        await anext(stream)
    assert closed == ["yes"]
    sync_stream = agent.stream("Hello")
    next(sync_stream)
    sync_stream.close()
    assert closed == ["yes"] * 2
    assert store.get("user-alice") is None


async def test_a_tool_that_hides_that_it_is_async_is_awaited(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    async def hour() -> int:
        return 12

    def wrapped() -> Any:
        return hour()

    agent = ChatAgent(model, store=store, session_id="user-alice", tools=[wrapped])
    server.script.extend([calls(("wrapped", "{}")), text("Noon."), calls(("wrapped", "{}")), text("Unknown.")])
    assert await agent.ask_async("Hour?") == "Noon."
    assert agent.ask("Hour?") == "Unknown."
    told = [message.text for message in store.messages("user-alice") if message.role == "tool"]
    assert told[0] == "12"
    assert "use ask_async" in str(told[1])


async def test_a_failing_server_fails_the_turn(
    store: sessionstore.SessionStore, server: ModelServer, model: OpenAICompatible
) -> None:
    agent = ChatAgent(model, store=store, session_id="user-alice")
    server.script.append(refusal(500))
    with pytest.raises(ModelError) as failed:
        await agent.ask_async("Hello")
    assert failed.value.status == 500
    assert figures(store) == ["turn.failed"]
    assert store.get("user-alice") is None


class AsyncDocuments:
    """An async memory backend of a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def save(self, session_id: str, messages: list[dict[str, Any]]) -> None:
        await anyio.lowlevel.checkpoint()
        self.kept[session_id] = json.dumps(messages)

    async def load(self, session_id: str) -> list[dict[str, Any]] | None:
        await anyio.lowlevel.checkpoint()
        return json.loads(self.kept[session_id]) if session_id in self.kept else None

    async def delete(self, session_id: str) -> None:
        self.kept.pop(session_id, None)

    async def list(self) -> list[str]:
        return list(self.kept)


async def test_an_async_backend_is_awaited_and_refused_by_the_sync_calls() -> None:
    documents = AsyncDocuments()
    agent = ChatAgent(lambda messages: f"{len(messages)} seen", memory_backend=documents, session_id="user-alice")
    await agent.ask_async("One")
    assert await agent.ask_async("Two") == "3 seen"
    assert len(json.loads(documents.kept["user-alice"])) == 4
    for call in (lambda: agent.ask("Three"), agent.messages, agent.load_session, agent.delete_session):
        with pytest.raises(ConfigError, match="is async"):
            call()
    assert len(await agent.messages_async()) == 4
    assert await agent.load_session_async()
    assert await agent.list_sessions_async() == ["user-alice"]
    assert await agent.delete_session_async()
    assert not await agent.load_session_async()
    await agent.close_async()


async def test_the_async_store_as_a_backend_is_awaited(store: sessionstore.SessionStore) -> None:
    backend = AsyncSessionStore(store).as_memory_backend()
    agent = ChatAgent(lambda messages: f"{len(messages)} seen", memory_backend=backend, session_id="user-alice")
    await agent.ask_async("One")
    assert await agent.ask_async("Two") == "3 seen"
    assert roles(store) == ["user", "assistant"] * 2


async def test_manual_saving_has_its_twins(tmp_path: Path) -> None:
    async with ChatAgent(lambda messages: "Yes", store=tmp_path / "agent.db", session_id="user-alice", auto_save=False) as agent:
        await agent.ask_async("One")
        assert not await agent.load_session_async()
        await agent.ask_async("Two")
        assert await agent.save_session_async() == 2
        assert await agent.list_sessions_async() == ["user-alice"]
        assert await agent.delete_session_async()
        assert await agent.messages_async() == []
    with sessionstore.open(tmp_path / "agent.db") as store:
        assert store.count() == 0


@pytest.mark.parametrize("kind", ["awaited", "in a thread", "in pieces"])
def test_a_turn_whose_loop_ended_is_counted_with_the_next_one(store: sessionstore.SessionStore, kind: str) -> None:
    """Its coroutine is closed as garbage, where nothing can be awaited any more."""
    asked, go_on = threading.Event(), threading.Event()

    async def awaited(messages: list[dict[str, Any]]) -> str:
        if not asked.is_set():
            asked.set()
            await asyncio.sleep(1_000)
        return "Yes"

    def in_a_thread(messages: list[dict[str, Any]]) -> str:
        asked.set()
        assert go_on.wait(20)
        return "Yes"

    def in_pieces(messages: list[dict[str, Any]]) -> Iterator[str]:
        yield in_a_thread(messages)

    async def until_asked() -> None:
        await in_thread(lambda: asked.wait(20))

    model = {"awaited": awaited, "in a thread": in_a_thread, "in pieces": in_pieces}[kind]
    agent = ChatAgent(model, store=store, session_id="user-alice")
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(agent.ask_async("Lost"))
    loop.run_until_complete(until_asked())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    del task
    go_on.set()
    for thread in [each for each in threading.enumerate() if each.name == "sessionstore-call"]:
        thread.join(20)
    gc.collect()
    assert agent.failed_question == "Lost"
    assert figures(store) == []
    assert asyncio.run(agent.ask_async("Next")) == "Yes"
    assert figures(store) == ["turn.cancelled"]
    assert roles(store) == ["user", "assistant"]
