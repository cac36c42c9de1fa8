"""100 real conversations go in and come out equal, and every window of them is fit for a chat API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import Message, SessionStore

Conversation = dict[str, Any]


def name(number: int, conversation: Conversation) -> str:
    return f"task-{conversation['task_id']}-trial-{conversation['trial']}-{number}"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, airline_conversations: list[Conversation]) -> Iterator[SessionStore]:
    """All conversations, appended, closed, and opened again."""
    path: Path = tmp_path_factory.mktemp("airline") / "agent.db"
    with sessionstore.open(path) as store:
        for number, conversation in enumerate(airline_conversations):
            facts = {key: conversation[key] for key in ("task_id", "trial", "reward", "user_instruction")}
            chat = store.session(name(number, conversation), metadata=facts)
            appended = chat.append_many(conversation["messages"])
            assert [message.to_dict() for message in appended] == conversation["messages"]
    with sessionstore.open(path) as store:
        yield store


def test_every_message_comes_back_equal(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    assert len(airline_conversations) == 100
    total = 0
    for number, conversation in enumerate(airline_conversations):
        messages = stored.messages(name(number, conversation))
        assert [message.to_dict() for message in messages] == conversation["messages"]
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        total += len(messages)
    assert total == 2_526
    assert stored.status().messages == total


def test_every_fact_about_a_conversation_comes_back_equal(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    for number, conversation in enumerate(airline_conversations):
        info = stored.get(name(number, conversation))
        assert info is not None
        assert info.metadata == {key: value for key, value in conversation.items() if key != "messages"}
        assert info.message_count == len(conversation["messages"])
    solved = sum(conversation["reward"] == 1.0 for conversation in airline_conversations)
    assert stored.count(metadata={"reward": 1}) == solved
    assert 0 < solved < 100


def test_tool_calls_are_columns(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    for number, conversation in enumerate(airline_conversations):
        for message, source in zip(stored.messages(name(number, conversation)), conversation["messages"], strict=True):
            assert message.tool_call_ids == tuple(call["id"] for call in source.get("tool_calls") or ())
            assert message.tool_call_id == source.get("tool_call_id")
            assert message.role == source["role"]
            assert message.content == source["content"]


def test_pages_hold_what_one_read_holds(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    for number, conversation in enumerate(airline_conversations):
        session_id = name(number, conversation)
        whole = stored.messages(session_id)
        for page_size in (1, 7, 500):
            assert list(stored.iterate(session_id, page_size=page_size)) == whole


def assert_fit_for_a_chat_api(history: list[Message], known_calls: set[str]) -> None:
    """Each result stands behind its call, with nothing but results of that call between."""
    waiting: set[str] = set()
    for message in history:
        if message.tool_call_id is not None:
            assert message.tool_call_id in waiting or message.tool_call_id in known_calls
            waiting.discard(message.tool_call_id)
        else:
            assert not waiting, "a call is followed by something else than its results"
            waiting = set(message.tool_call_ids)


def test_every_newest_window_is_fit_for_a_chat_api(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    grown = 0
    for number, conversation in enumerate(airline_conversations):
        session_id = name(number, conversation)
        for last in range(1, len(conversation["messages"]) + 1):
            history = stored.messages(session_id, last=last, keep_pairs=True)
            assert_fit_for_a_chat_api(history, set())
            assert history[-1].seq == len(conversation["messages"])
            assert len(history) >= last
            grown += len(history) > last
    assert grown > 100


def test_every_window_with_an_end_is_fit_for_a_chat_api(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    shrunk = 0
    for number, conversation in enumerate(airline_conversations[:40]):
        session_id = name(number, conversation)
        size = len(conversation["messages"])
        for before in range(1, size + 2):
            for last in (1, 2, 5, size):
                plain = stored.messages(session_id, last=last, before=before)
                history = stored.messages(session_id, last=last, before=before, keep_pairs=True)
                assert_fit_for_a_chat_api(history, set())
                answered = {message.tool_call_id for message in history}
                assert all(call in answered for message in history for call in message.tool_call_ids if message.seq < size - 1)
                assert all(message.seq < before for message in history)
                shrunk += bool(plain) and (not history or history[-1].seq < plain[-1].seq)
    assert shrunk > 40


def test_every_window_with_a_start_is_fit_for_what_the_caller_has(
    stored: SessionStore, airline_conversations: list[Conversation]
) -> None:
    """`after` is where the caller's own copy ends: the calls in it need not come again."""
    for number, conversation in enumerate(airline_conversations[:40]):
        session_id = name(number, conversation)
        whole = stored.messages(session_id)
        for after in range(len(whole) + 1):
            history = stored.messages(session_id, after=after, keep_pairs=True)
            assert_fit_for_a_chat_api(history, {call for message in whole[:after] for call in message.tool_call_ids})
            assert [message.seq for message in history] == list(range(after + 1, len(whole) + 1))


def test_whole_conversations_need_no_repair_unless_they_stop_at_a_call(
    stored: SessionStore, airline_conversations: list[Conversation]
) -> None:
    for number, conversation in enumerate(airline_conversations):
        report = stored.check(name(number, conversation))
        assert report.unmatched_results == ()
        last = conversation["messages"][-1]
        assert {call.call_id for call in report.unmatched_calls} == {call["id"] for call in last.get("tool_calls") or ()}


def test_a_cut_conversation_is_repaired(airline_conversations: list[Conversation], store: SessionStore) -> None:
    for number, conversation in enumerate(airline_conversations[:40]):
        messages = conversation["messages"]
        cut = next((place for place, message in enumerate(messages) if message.get("tool_calls")), len(messages) - 1)
        chat = store.session(name(number, conversation))
        chat.append_many(messages[: cut + 1])
        repaired = chat.repair()
        assert len(repaired) == len(messages[cut].get("tool_calls") or ())
        assert chat.check().ok
        assert [message.to_dict() for message in chat.messages()[: cut + 1]] == messages[: cut + 1]


def test_a_word_of_a_customer_finds_the_session(stored: SessionStore, airline_conversations: list[Conversation]) -> None:
    wanted = "mia_li_3668"
    expected = {
        name(number, conversation)
        for number, conversation in enumerate(airline_conversations)
        if any(wanted in (message["content"] or "") for message in conversation["messages"])
    }
    assert expected
    assert {info.session_id for info in stored.list(text=wanted, limit=100)} == expected
