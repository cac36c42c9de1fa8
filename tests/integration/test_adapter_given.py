"""What all adapters have in common: the store that they are given, sessions that come to be, extras that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessionstore
from sessionstore import AsyncSessionStore, ClosedStoreError, InvalidInputError, SessionStore
from sessionstore.adapters.given import GivenStore
from sessionstore.adapters.plain import given_attributes, plain

asynchronous = pytest.mark.anyio
ATTRIBUTES = given_attributes(agent_id="helper", user_id=None)
HELLO = {"role": "user", "content": "Hello"}


def test_a_given_store_is_used_in_both_faces_and_stays_open(store: SessionStore) -> None:
    for given in (GivenStore(store), GivenStore(AsyncSessionStore(store))):
        assert given.sync is store
        assert isinstance(given.awaited, AsyncSessionStore)
        assert not given.is_owned
        given.close()
        assert store.count() == 0


def test_the_namespace_of_a_given_store_is_kept(store: SessionStore) -> None:
    for given in (GivenStore(store.in_namespace("tenant")), GivenStore(AsyncSessionStore(store).in_namespace("tenant"))):
        assert given.sync.namespace == given.awaited.namespace == "tenant"


def test_a_path_is_opened_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", str(tmp_path / "default.db"))
    for path in (tmp_path / "a.db", str(tmp_path / "b.db"), None):
        given = GivenStore(path)
        assert given.is_owned
        given.close()
        given.close()
        with pytest.raises(ClosedStoreError):
            given.sync.count()
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["a.db", "b.db", "default.db"]


@pytest.mark.parametrize("bad", [3, b"agent.db", object()])
def test_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="store"):
        GivenStore(bad)


@asynchronous
async def test_a_path_can_be_closed_without_blocking(store_path: Path) -> None:
    given = GivenStore(store_path)
    await given.awaited._append_or_begin("s", [HELLO], ATTRIBUTES)
    await given.aclose()
    await given.aclose()
    with pytest.raises(ClosedStoreError):
        await given.awaited.count()


def test_a_session_is_made_with_its_first_message(store: SessionStore) -> None:
    store._append_or_begin("s", [HELLO], ATTRIBUTES)
    store._append_or_begin("s", [HELLO, HELLO], given_attributes(agent_id="another", user_id=None))
    info = store.get("s")
    assert info is not None
    assert (info.agent_id, info.message_count) == ("helper", 3)


def test_a_refused_message_makes_no_session(store: SessionStore) -> None:
    with pytest.raises(InvalidInputError):
        store._append_or_begin("s", [HELLO, {"role": "nobody", "content": "x"}], ATTRIBUTES)
    assert store.get("s") is None


def test_a_session_and_its_first_messages_are_one_transaction(store: SessionStore) -> None:
    """A program that is killed between them would leave an empty session."""
    before = store.status().commits
    store._append_or_begin("s", [HELLO], ATTRIBUTES)
    assert store.status().commits == before + 1


def test_a_session_that_expired_begins_anew_with_its_messages(store: SessionStore) -> None:
    at_once = given_attributes(agent_id=None, user_id=None, ttl=1e-6)
    for _ in range(2):
        (stored,) = store._append_or_begin("s", [HELLO], at_once)
        assert stored.seq == 1
    assert store.get("s") is None


def test_attributes_that_no_session_can_have_are_refused_at_once() -> None:
    with pytest.raises(InvalidInputError, match="ttl"):
        given_attributes(agent_id=None, user_id=None, ttl=-1)
    with pytest.raises(InvalidInputError, match="agent_id"):
        given_attributes(agent_id="", user_id=None)


def test_what_holds_itself_is_left_to_be_refused(store: SessionStore) -> None:
    tree: dict[str, Any] = {"role": "user", "content": []}
    tree["content"] += [{"parent": tree, "above": tree} for _ in range(20)]
    deep: Any = ()
    for _ in range(2_000):
        deep = (deep,)
    for bad in (plain(tree), {"role": "user", "content": plain(deep)}):
        with pytest.raises(InvalidInputError, match=r"nested|at most 100000 values|JSON has no tuple"):
            store._append_or_begin("s", [bad], ATTRIBUTES)


@asynchronous
async def test_first_writers_at_once_share_one_session(store: SessionStore) -> None:
    awaited = AsyncSessionStore(store)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(awaited._append_or_begin, "s", [HELLO, HELLO], ATTRIBUTES)
    assert [message.seq for message in store.messages("s")] == list(range(1, 21))


def test_a_session_can_go_from_one_framework_to_the_next(store: SessionStore) -> None:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

    from sessionstore.adapters.langchain import SessionChatMessageHistory
    from sessionstore.adapters.pydantic_ai import MessageHistory

    langchain, pydantic_ai = SessionChatMessageHistory("s", store), MessageHistory(store)
    langchain.add_messages([HumanMessage("Weather?"), AIMessage("", tool_calls=[{"name": "weather", "args": {}, "id": "call_1"}])])
    pydantic_ai.append("s", [ModelRequest([ToolReturnPart("weather", "sunny", "call_1")]), ModelResponse([TextPart("Sunny.")])])
    kinds = [[type(part) for part in message.parts] for message in pydantic_ai.load("s")]
    assert kinds == [[UserPromptPart], [ToolCallPart], [ToolReturnPart], [TextPart]]
    assert [type(message) for message in langchain.messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert [message.additional_kwargs for message in langchain.messages] == [{}, {}, {}, {}]
    assert store.check("s").ok


@pytest.mark.parametrize("form", ["sessionstore", "openai"])
def test_exported_and_imported_again_a_session_is_the_same_to_its_framework(store: SessionStore, tmp_path: Path, form: str) -> None:
    from langchain_core.messages import AIMessage, HumanMessage
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

    from sessionstore.adapters.langchain import SessionChatMessageHistory
    from sessionstore.adapters.pydantic_ai import MessageHistory

    call = ModelResponse([TextPart("Let me see."), ToolCallPart("weather", '{"city":', "call_1")])
    result = ModelRequest([ToolReturnPart("weather", {"sky": "grey"}, "call_1")])
    MessageHistory(store).append("p", [ModelRequest.user_text_prompt("Weather?"), call, result])
    SessionChatMessageHistory("l", store).add_messages([HumanMessage("Hi", name="alice"), AIMessage("Hello", id="run-1")])
    store.export_file(tmp_path / "exported", format=form)
    with sessionstore.open(tmp_path / "other.db") as other:
        other.import_file(tmp_path / "exported")
        assert MessageHistory(other).load("p") == MessageHistory(store).load("p")
        assert SessionChatMessageHistory("l", other).messages == SessionChatMessageHistory("l", store).messages


MODULES = {
    "openai_agents": ("agents", "openai-agents"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
    "langchain": ("langchain_core", "langchain"),
}
WITHOUT = """
import sys, importlib
importlib.import_module("sessionstore.adapters.given")
for module, package in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    assert package not in sys.modules
    sys.modules[package] = None
    try:
        importlib.import_module("sessionstore.adapters." + module)
    except ImportError as error:
        print(type(error).__name__, error.extra)
"""


def test_a_missing_framework_names_its_extra() -> None:
    """That a framework that is there makes no warning is what the examples show."""
    names = [name for module, (package, _) in MODULES.items() for name in (module, package)]
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == [f"MissingExtraError {extra}" for _, extra in MODULES.values()]


def test_the_names_of_an_adapter_are_offered() -> None:
    for module in MODULES:
        offered = __import__(f"sessionstore.adapters.{module}", fromlist=["*"])
        assert all(getattr(offered, name).__module__.startswith("sessionstore.adapters.") for name in offered.__all__)
    assert not hasattr(sessionstore, "AgentsSession")
