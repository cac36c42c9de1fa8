"""AgentsSession under the real Runner of the OpenAI Agents SDK, with the SDK's own scripted model."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agents import (
    Agent,
    ModelResponse,
    ModelRetrySettings,
    ModelSettings,
    RunContextWrapper,
    Runner,
    RunState,
    SessionSettings,
    Usage,
    function_tool,
)
from agents.extensions.memory import EncryptedSession
from agents.memory import OpenAIResponsesCompactionSession, Session
from agents.memory.session import is_openai_responses_compaction_aware_session
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.tracing import set_tracing_disabled
from clocks import FrozenClock
from openai.types.responses import ResponseOutputMessage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

import sessionstore
from sessionstore import AsyncSessionStore, ClosedStoreError, InvalidInputError, SessionStore
from sessionstore.adapters.openai_agents import AgentsSession, UsageHooks

pytestmark = pytest.mark.anyio

USER: dict[str, Any] = {"role": "user", "content": "What's the capital of France?"}
ANSWER: dict[str, Any] = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Paris.", "annotations": []}],
}
REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "France?"}]}
CALL: dict[str, Any] = {
    "type": "function_call",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city":"Paris"}',
    "id": "fc_1",
}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}
ODD: dict[str, Any] = {"role": "critic", "content": None, "scores": [1, 2.5, None, {"deep": True}]}


@pytest.fixture
def anyio_backend() -> str:
    """The SDK runs on asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """The SDK would send traces to its maker."""
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


@function_tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


@function_tool(needs_approval=True)
def refund(order: int) -> str:
    """Pay back an order."""
    return f"paid back {order}"


def agent_of(*steps: Any, **settings: Any) -> Agent[Any]:
    return Agent(name="helper", model=ScriptedModel(steps), **settings)


def said(text: str, **details: Any) -> ModelStep:
    return ModelStep(output=[assistant_message(text)], **details)


def sent(agent: Agent[Any], call: int = -1) -> list[dict[str, Any]]:
    """The items that the model was given."""
    assert isinstance(agent.model, ScriptedModel)
    return list(agent.model.calls[call].input)


def texts(items: list[Any]) -> list[str]:
    return [
        item["content"] if isinstance(item["content"], str) else item["content"][0]["text"] for item in items if "content" in item
    ]


# -- the contract


async def test_it_is_a_session_of_the_sdk_and_takes_the_context_everywhere(store: SessionStore) -> None:
    from agents.memory.session import _session_accepts_wrapper

    session = AgentsSession("s", store)
    assert isinstance(session, Session)
    assert _session_accepts_wrapper(session)
    assert not is_openai_responses_compaction_aware_session(session)


async def test_items_come_back_equal_and_alone(store: SessionStore) -> None:
    items = [USER, REASONING, CALL, OUTPUT, ANSWER, ODD, {"payload": "opaque"}]
    session = AgentsSession("s", store)
    await session.add_items(items)
    assert await session.get_items() == items
    again = await session.get_items()
    again[0]["content"] = "changed"  # type: ignore[index,typeddict-unknown-key]
    assert await session.get_items() == items


async def test_pydantic_items_and_tuples_are_stored_as_json_has_them(store: SessionStore) -> None:
    message = assistant_message("Paris.")
    assert isinstance(message, ResponseOutputMessage)
    session = AgentsSession("s", store)
    await session.add_items([message, {"role": "user", "content": ({"type": "input_text", "text": "Hi"},)}])  # type: ignore[list-item]
    assert await session.get_items() == [
        message.model_dump(mode="json", exclude_unset=True),
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
    ]


@pytest.mark.parametrize(("limit", "wanted"), [(None, 5), (0, 0), (2, 2), (9, 5), (-1, 5)])
async def test_a_limit_gives_the_newest_items_oldest_first(store: SessionStore, limit: int | None, wanted: int) -> None:
    session = AgentsSession("s", store)
    items = [{"role": "user", "content": str(number)} for number in range(5)]
    await session.add_items(items)
    assert await session.get_items(limit) == items[5 - wanted :]


async def test_an_explicit_limit_comes_before_that_of_the_settings(store: SessionStore) -> None:
    session = AgentsSession("s", store, session_settings=SessionSettings(limit=1))
    await session.add_items([USER, ANSWER, USER])
    assert await session.get_items() == [USER]
    assert await session.get_items(2) == [ANSWER, USER]
    assert await AgentsSession("s", store, session_settings={"limit": 2}).get_items() == [ANSWER, USER]


async def test_a_session_is_made_with_its_first_item_and_reading_makes_none(store: SessionStore) -> None:
    session = AgentsSession("s", store, agent_id="helper", user_id="alice", ttl=60)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()
    await session.add_items([])
    assert store.get("s") is None
    await session.add_items([USER])
    info = store.get("s")
    assert info is not None
    assert (info.agent_id, info.user_id, info.expires_at is None) == ("helper", "alice", False)


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        None,
        *({"role": "user", "content": [{"type": "x", "value": value}]} for value in (object(), float("nan"), {1}, b"1", {1: 2})),
    ],
)
async def test_a_batch_with_an_item_that_json_cannot_hold_is_refused_whole(store: SessionStore, bad: Any) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER])
    with pytest.raises(InvalidInputError, match=r"items|message"):
        await session.add_items([ANSWER, bad])
    assert await session.get_items() == [USER]


async def test_concurrent_first_batches_stay_whole(store: SessionStore) -> None:
    sessions = [AgentsSession("s", store) for _ in range(8)]
    batches = [[{"role": "user", "content": f"{writer}.{number}"} for number in range(20)] for writer in range(8)]
    await asyncio.gather(*(session.add_items(batch) for session, batch in zip(sessions, batches, strict=True)))
    items = texts(await sessions[0].get_items())
    runs = [items[start : start + 20] for start in range(0, 160, 20)]
    assert sorted(runs) == sorted(texts(batch) for batch in batches)


async def test_concurrent_pops_never_give_the_same_item(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([{"role": "user", "content": str(number)} for number in range(40)])
    popped = await asyncio.gather(*(AgentsSession("s", store).pop_item() for _ in range(50)))
    assert sorted(texts([item for item in popped if item]), key=int) == [str(number) for number in range(40)]
    assert popped.count(None) == 10
    assert await session.get_items() == []


async def test_clearing_removes_history_and_session_and_the_next_item_begins_anew(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER])
    await session.clear_session()
    assert store.get("s") is None
    await session.add_items([USER])
    assert await session.get_items() == [USER]


async def test_a_cancelled_change_is_done_when_the_cancellation_arrives(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    for round_ in range(20):
        task = asyncio.create_task(session.add_items([{"role": "user", "content": str(round_)}]))
        await asyncio.sleep(0)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert texts(await session.get_items())[-1] == str(round_)


async def test_a_cancelled_change_is_done_also_if_it_had_not_begun(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        begun.set()
        go_on.wait()

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(store._write, hold)
        begun.wait()
        task = asyncio.create_task(session.add_items([USER, ANSWER]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        holding.result()
    assert await session.get_items() == [USER, ANSWER]


async def test_a_closed_store_refuses_also_nothing(store_path: Path) -> None:
    session = AgentsSession("s", store_path)
    await session.add_items([USER])
    await session.aclose()
    for call in (
        session.add_items([]),
        session.add_items([USER]),
        session.get_items(),
        session.pop_item(),
        session.clear_session(),
    ):
        with pytest.raises(ClosedStoreError):
            await call


async def test_a_path_is_closed_with_the_session_and_a_given_store_stays_open(store_path: Path) -> None:
    async with AgentsSession("s", store_path) as session:
        await session.add_items([USER])
    async with sessionstore.aopen(store_path) as opened:
        for face in (opened, opened.in_namespace("")):
            async with AgentsSession("s", face) as session:
                assert await session.get_items() == [USER]
        assert await opened.count() == 1
    with sessionstore.open(store_path) as plain, AgentsSession("s", str(store_path)) as session:
        assert session.store.count() == plain.count() == 1


async def test_two_namespaces_of_equal_ids_never_see_each_other(store: SessionStore) -> None:
    first = AgentsSession("s", store)
    second = AgentsSession("s", AsyncSessionStore(store).in_namespace("tenant"))
    await first.add_items([USER])
    assert await second.get_items() == []
    await second.add_items([ANSWER])
    await second.pop_item()
    await second.clear_session()
    assert await first.get_items() == [USER]


async def test_an_expired_session_is_empty_and_begins_anew(store: SessionStore, frozen: FrozenClock) -> None:
    session = AgentsSession("s", store, ttl=60)
    await session.add_items([USER])
    frozen.go(61)
    assert await session.get_items() == []
    assert await session.pop_item() is None
    assert not await session._atomic_replace_items([ANSWER])
    await session.add_items([ANSWER])
    assert await session.get_items() == [ANSWER]


async def test_search_columns_and_tool_calls_know_the_items(store: SessionStore) -> None:
    await AgentsSession("s", store).add_items([USER, CALL])
    (open_call,) = store.open_tool_calls("s")
    assert (open_call.call_id, open_call.name, open_call.arguments) == ("call_1", "weather", '{"city":"Paris"}')
    await AgentsSession("s", store).add_items([OUTPUT, ANSWER])
    assert store.open_tool_calls("s") == ()
    assert [(message.kind, message.role) for message in store.messages("s")] == [
        ("message", "user"),
        ("function_call", None),
        ("function_call_output", None),
        ("message", "assistant"),
    ]
    assert [(hit.seq, hit.snippet) for hit in store.search("paris")] == [(4, "Paris.")]


# -- the Runner


async def run_plain(agent: Agent[Any], text: str, session: Session, **options: Any) -> Any:
    return (await Runner.run(agent, text, session=session, **options)).final_output


async def run_streamed(agent: Agent[Any], text: str, session: Session, **options: Any) -> Any:
    result = Runner.run_streamed(agent, text, session=session, **options)
    async for _ in result.stream_events():
        pass
    return result.final_output


async def run_in_thread(agent: Agent[Any], text: str, session: Session, **options: Any) -> Any:
    """As a program without a loop does: run_sync wants a thread that has none."""

    def run() -> Any:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return Runner.run_sync(agent, text, session=session, **options).final_output
        finally:
            loop.close()

    return await asyncio.to_thread(run)


RUNS = pytest.mark.parametrize("run", [run_plain, run_streamed, run_in_thread])


@RUNS
async def test_the_second_run_is_sent_the_first(store: SessionStore, run: Callable[..., Any]) -> None:
    first = agent_of(said("Paris."))
    assert await run(first, "Capital of France?", AgentsSession("s", store)) == "Paris."
    second = agent_of(said("Rome."))
    assert await run(second, "And of Italy?", AgentsSession("s", store)) == "Rome."
    assert texts(sent(second)) == ["Capital of France?", "Paris.", "And of Italy?"]
    assert [(message.role, message.text) for message in store.messages("s")] == [
        ("user", "Capital of France?"),
        ("assistant", "Paris."),
        ("user", "And of Italy?"),
        ("assistant", "Rome."),
    ]


@RUNS
async def test_tool_calls_are_stored_with_their_results(store: SessionStore, run: Callable[..., Any]) -> None:
    calls = [function_call("weather", {"city": city}, call_id=f"call_{city}") for city in ("Rome", "Oslo")]
    agent = agent_of(calls, said("Sunny."), tools=[weather])
    assert await run(agent, "Weather?", AgentsSession("s", store)) == "Sunny."
    items = await AgentsSession("s", store).get_items()
    assert [item.get("type", "message") for item in items] == [
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
    ]
    assert store.check("s").ok
    later = agent_of(said("As I said."))
    await run(later, "Again?", AgentsSession("s", store))
    assert sent(later)[:-1] == items


async def test_an_approval_is_waited_for_and_the_run_goes_on_in_another_session_object(store_path: Path) -> None:
    async with AgentsSession("s", store_path) as session:
        agent = agent_of([function_call("refund", {"order": 17}, call_id="call_1")], tools=[refund])
        result = await Runner.run(agent, "My money back!", session=session)
        assert len(result.interruptions) == 1
        frozen_state = result.to_state().to_json()
    async with AgentsSession("s", store_path) as session:
        assert [call.name for call in session.store.open_tool_calls("s")] == ["refund"]
        agent = agent_of(said("Done."), tools=[refund])
        state = await RunState.from_json(agent, frozen_state)
        state.approve(state.get_interruptions()[0])
        result = await Runner.run(agent, state, session=session)
        assert result.final_output == "Done."
        items: list[Any] = await session.get_items()
        assert [item.get("type", "message") for item in items] == ["message", "function_call", "function_call_output", "message"]
        assert items[2]["output"] == "paid back 17"
        assert session.store.check("s").ok


async def test_a_retried_model_call_stores_its_turn_once(store: SessionStore) -> None:
    retrying = ModelSettings(retry=ModelRetrySettings(max_retries=2, policy=lambda _: True))
    agent = agent_of(ConnectionError("gone"), said("Paris."), model_settings=retrying)
    assert await run_plain(agent, "Capital of France?", AgentsSession("s", store)) == "Paris."
    assert texts(await AgentsSession("s", store).get_items()) == ["Capital of France?", "Paris."]


async def test_after_a_failed_run_the_next_one_works(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    with pytest.raises(ConnectionError):
        await run_plain(agent_of(ConnectionError("gone")), "Capital of France?", session)
    agent = agent_of(said("Rome."))
    assert await run_plain(agent, "And of Italy?", session) == "Rome."
    assert texts(sent(agent))[-1] == "And of Italy?"
    assert store.check("s").ok


async def test_a_handoff_stays_in_one_session(store: SessionStore) -> None:
    expert = Agent(name="expert", model=ScriptedModel([said("Bonjour.")]))
    front = agent_of([function_call("transfer_to_expert", {}, call_id="call_1")], handoffs=[expert])
    result = await Runner.run(front, "French, please.", session=AgentsSession("s", store))
    assert (result.final_output, result.last_agent.name) == ("Bonjour.", "expert")
    assert store.check("s").ok
    later = agent_of(said("Salut."))
    await run_plain(later, "More!", AgentsSession("s", store))
    assert texts(sent(later)) == ["French, please.", "Bonjour.", "More!"]


async def test_runs_in_several_sessions_at_once_do_not_mix(store: SessionStore) -> None:
    async def talk(name: str) -> list[str]:
        session = AgentsSession(name, store)
        for turn in range(5):
            await run_plain(agent_of(said(f"{name} answer {turn}")), f"{name} question {turn}", session)
        return texts(await session.get_items())

    histories = await asyncio.gather(*(talk(f"user-{number}") for number in range(6)))
    for number, history in enumerate(histories):
        assert history == [f"user-{number} {kind} {turn}" for turn in range(5) for kind in ("question", "answer")]


async def test_the_sdks_encrypted_session_works_over_it(store: SessionStore) -> None:
    def encrypted(key: str = "a key") -> EncryptedSession:
        return EncryptedSession("s", AgentsSession("s", store), encryption_key=key)

    await run_plain(agent_of(said("Paris.")), "Capital of France?", encrypted())
    agent = agent_of(said("Rome."))
    await run_plain(agent, "And of Italy?", encrypted())
    assert texts(sent(agent)) == ["Capital of France?", "Paris.", "And of Italy?"]
    assert "Paris" not in str([message.to_dict() for message in store.messages("s")])
    popped: Any = await encrypted().pop_item()
    assert texts([popped]) == ["Rome."]
    assert await encrypted("another").get_items() == []


# -- compaction


class Compactor:
    """Stands in for the SDK's client: the summary that it is told to give."""

    def __init__(self, *output: dict[str, Any], meanwhile: Callable[[], Any] | None = None) -> None:
        self.responses = self
        self.asked: list[dict[str, Any]] = []
        self._output = output
        self._meanwhile = meanwhile

    async def compact(self, **arguments: Any) -> Any:
        self.asked.append(arguments)
        if self._meanwhile is not None:
            await self._meanwhile()

        return SimpleNamespace(output=[dict(item) for item in self._output], usage=None)


SUMMARY = {"type": "compaction", "id": "cmp_1", "encrypted_content": "short"}


def compacting(session: AgentsSession, client: Compactor) -> OpenAIResponsesCompactionSession:
    decide: Callable[[dict[str, Any]], bool] = lambda found: len(found["compaction_candidate_items"]) >= 2  # noqa: E731
    return OpenAIResponsesCompactionSession(
        session.session_id,
        session,
        client=client,  # type: ignore[arg-type]
        compaction_mode="input",
        should_trigger_compaction=decide,
    )


async def test_a_run_compacts_what_the_model_saw_in_one_transaction_and_the_old_items_stay_on_record(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER])
    store.update("s", title="kept")
    client = Compactor(SUMMARY)
    await run_plain(agent_of(said("Rome.")), "And of Italy?", compacting(session, client))
    assert len(client.asked) == 1
    assert await session.get_items() == [SUMMARY]
    assert [old.message.text for old in store.superseded("s")] == [USER["content"], "Paris.", "And of Italy?", "Rome."]
    info = store.get("s")
    assert info is not None
    assert info.title == "kept"


async def test_a_compaction_that_another_writer_overtook_changes_nothing(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER])
    other = {"role": "user", "content": "I am another writer."}
    client = Compactor(SUMMARY, meanwhile=lambda: AgentsSession("s", store).add_items([other]))
    await run_plain(agent_of(said("Rome.")), "And of Italy?", compacting(session, client))
    assert len(client.asked) == 1
    assert texts(await session.get_items()) == [USER["content"], "Paris.", "And of Italy?", "Rome.", other["content"]]


async def test_a_compaction_by_hand_keeps_the_session_and_may_give_more_items_than_there_were(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER])
    store.update("s", title="kept")
    await compacting(session, Compactor(USER, ANSWER, SUMMARY)).run_compaction({"force": True})
    assert [item.get("type") for item in await session.get_items()] == [None, "message", "compaction"]
    info = store.get("s")
    assert info is not None
    assert (info.title, info.message_count) == ("kept", 3)


async def test_a_suffix_is_replaced_and_what_stands_before_it_stays(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER, CALL, OUTPUT])
    snapshot = await session._get_compaction_snapshot(3)
    assert (snapshot.items, snapshot.complete) == ([ANSWER, CALL, OUTPUT], False)
    assert await snapshot.replace_suffix(1, [SUMMARY])
    assert await session.get_items() == [USER, ANSWER, SUMMARY]
    assert not await snapshot.replace_suffix(1, [USER]), "what it saw is gone"
    assert (await session._get_compaction_snapshot(3)).complete
    assert not await (await AgentsSession("none", store)._get_compaction_snapshot(3)).replace_suffix(0, [SUMMARY])


async def test_a_prefix_that_is_over_goes_with_the_replacement(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    await session.add_items([USER, ANSWER, CALL, OUTPUT])
    snapshot = await session._get_compaction_snapshot(1, prune_prefix=lambda item: item == USER)
    assert await snapshot.replace_suffix(0, [SUMMARY])
    assert await session.get_items() == [ANSWER, CALL, SUMMARY]


async def test_a_subclass_that_may_change_items_is_not_passed_by(store: SessionStore) -> None:
    class Shouting(AgentsSession):
        pass

    session = Shouting("s", store)
    await session.add_items([USER, ANSWER])
    assert await session._get_compaction_snapshot(1) is None
    assert not await session._atomic_replace_items([SUMMARY])
    assert await session.get_items() == [USER, ANSWER]


# -- usage


def counted(given: int, written: int) -> Usage:
    return Usage(
        requests=1,
        input_tokens=given,
        output_tokens=written,
        total_tokens=given + written,
        input_tokens_details=InputTokensDetails(cached_tokens=3, cache_write_tokens=0),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=2),
    )


@RUNS
async def test_the_hooks_note_usage_and_time_with_the_answers(store: SessionStore, run: Callable[..., Any]) -> None:
    session = AgentsSession("s", store)
    call = ModelStep(output=[function_call("weather", {"city": "Rome"}, call_id="call_1")], usage=counted(10, 5))
    agent = agent_of(call, said("Sunny.", usage=counted(20, 7)), tools=[weather])
    await run(agent, "Weather?", session, hooks=UsageHooks(session))
    told = [(message.kind, message.input_tokens, message.output_tokens) for message in store.messages("s")]
    assert told == [("message", None, None), ("function_call", 10, 5), ("function_call_output", None, None), ("message", 20, 7)]
    answer = store.messages("s")[-1]
    assert (answer.cache_read_tokens, answer.reasoning_tokens) == (3, 2)
    assert answer.response_time_ms is not None
    assert answer.response_time_ms >= 0
    usage = store.tokens()["overall"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (30, 12)


async def test_equal_answers_are_each_counted_once(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    hooks = UsageHooks(session)
    for number in (1, 2, 3):
        await run_plain(agent_of(said("Yes.", usage=counted(number, number))), "Really?", session, hooks=hooks)
    assert [message.input_tokens for message in store.messages("s")] == [None, 1, None, 2, None, 3]
    await session.add_items([ANSWER])
    assert store.messages("s")[-1].input_tokens is None


async def test_equal_answers_of_one_batch_each_get_their_own_and_one_that_never_came_takes_nothing(store: SessionStore) -> None:
    session = AgentsSession("s", store)
    hooks = UsageHooks(session)
    context, agent = RunContextWrapper(None), agent_of()
    for number in (1, 2, 3):
        await hooks.on_llm_end(context, agent, ModelResponse([assistant_message("Yes.")], counted(number, number), None))
    await session.add_items([*(ModelResponse([assistant_message("Yes.")], Usage(), None).to_input_items()) * 2])
    assert [message.input_tokens for message in store.messages("s")] == [2, 3]


# -- other processes

CHILD = """
import asyncio, sys
from agents import Agent, Runner, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.tracing import set_tracing_disabled
from sessionstore.adapters.openai_agents import AgentsSession

@function_tool
async def wait() -> str:
    "Wait to be killed."
    print("in the tool", flush=True)
    await asyncio.sleep(60)
    return "never"

async def main(path):
    set_tracing_disabled(True)
    session = AgentsSession("s", path)
    await Runner.run(Agent(name="a", model=ScriptedModel([[assistant_message("Paris.")]])), "Capital of France?", session=session)
    steps = [[function_call("wait", {}, call_id="call_1")]]
    await Runner.run(Agent(name="a", model=ScriptedModel(steps), tools=[wait]), "Wait.", session=session)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_run_killed_in_its_tool_leaves_a_session_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the tool\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    async with AgentsSession("s", path) as session:
        assert texts(await session.get_items())[:2] == ["Capital of France?", "Paris."]
        agent = agent_of(said("Here I am."))
        assert await run_plain(agent, "Are you there?", session) == "Here I am."
        answered = {item["call_id"] for item in sent(agent) if item.get("type") == "function_call_output"}
        assert {item["call_id"] for item in sent(agent) if item.get("type") == "function_call"} == answered
        session.store.repair("s")
        assert session.store.check("s").ok
