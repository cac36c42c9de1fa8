"""The store as a memory backend: what is new is appended, in one transaction, whoever else saves."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from clocks import FrozenClock

import sessionstore
from sessionstore import AsyncSessionStore, ClosedStoreError, ConflictError, ReadOnlyStoreError, SessionStore, StoreCorruptError

HELLO = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hi"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}]}
LARGE = {"role": "user", "content": [{"type": "text", "text": "x" * 100_000}]}

SAVER = """
import sys
import sessionstore
name = sys.argv[2]
with sessionstore.open(sys.argv[1]) as store:
    memory = store.as_memory_backend()
    done = 0
    while done < 20:
        conversation = memory.load("shared") or []
        try:
            turn = [{"role": "user", "content": f"{name} {done}"}, {"role": "assistant", "content": name}]
            memory.save("shared", [*conversation, *turn])
        except sessionstore.ConflictError:
            continue
        done += 1
"""


def test_a_save_appends_only_what_is_new(store: SessionStore) -> None:
    memory = store.as_memory_backend()
    memory.save("s", [HELLO])
    store.append("s", ANSWER, model="m", input_tokens=3)
    first = store.messages("s")
    memory.save("s", [HELLO, ANSWER, CALL, HELLO])
    messages = store.messages("s")
    assert messages[:2] == first
    assert [message.seq for message in messages] == [1, 2, 3, 4]
    assert [call.call_id for call in store.open_tool_calls("s")] == ["c"]


def test_a_save_without_news_changes_no_message(store: SessionStore, dump: Callable[[], dict[str, Any]]) -> None:
    memory = store.as_memory_backend()
    memory.save("s", [HELLO, CALL])
    before = dump()
    memory.save("s", [HELLO, CALL])
    assert dump() == before


def test_a_refused_save_leaves_no_trace(store: SessionStore, dump: Callable[[], dict[str, Any]]) -> None:
    memory = store.as_memory_backend()
    memory.save("s", [HELLO, CALL])
    before = dump()
    for changed in ([HELLO], [ANSWER, CALL], [HELLO, {**CALL, "content": ""}, HELLO], [{**HELLO, "name": None}, CALL], []):
        with pytest.raises(ConflictError):
            memory.save("s", changed)
    assert dump() == before


def test_equal_to_python_is_not_enough(store: SessionStore) -> None:
    memory = store.as_memory_backend()
    memory.save("s", [{"role": "user", "x": 1}])
    for other in (True, 1.0, "1", [1]):
        with pytest.raises(ConflictError):
            memory.save("s", [{"role": "user", "x": other}, HELLO])
    memory.save("s", [{"x": 1, "role": "user"}, HELLO])
    assert memory.load("s") == [{"role": "user", "x": 1}, HELLO]


@pytest.mark.parametrize("compress_over", [None, 10])
def test_packed_archived_and_large_messages_are_compared_as_they_were_given(store_path: Path, compress_over: int | None) -> None:
    given = [
        {"role": "user", "content": "word " * 100},
        CALL,
        LARGE,
        {"role": "tool", "tool_call_id": "c", "content": "y" * 70_000},
    ]
    with sessionstore.open(store_path, compress_over=compress_over) as store:
        memory = store.as_memory_backend()
        memory.save("s", given)
        store.archive("s")
        memory.save("s", [*given, HELLO])
        assert memory.load("s") == [*given, HELLO]
        assert memory.list() == ["s"]
        for position, message in enumerate(given):
            with pytest.raises(ConflictError):
                memory.save("s", [*given[:position], {**message, "content": "other"}, *given[position + 1 :], HELLO])
        # What stands in the row of a message whose text is elsewhere.
        hollow = {"role": "user", "content": [{"type": "text", "text": ""}]}
        with pytest.raises(ConflictError):
            memory.save("s", [*given[:2], hollow, given[3], HELLO])


def test_a_history_of_many_pages_and_with_gaps_is_compared_to_its_end(store: SessionStore) -> None:
    memory = store.as_memory_backend()
    many: list[dict[str, Any]] = [{"role": "user", "content": str(number)} for number in range(1_700)]
    memory.save("s", many)
    store.pop("s")
    store.replace_range("s", 600, 605, [])
    kept = [*many[:599], *many[605:-1]]
    assert memory.load("s") == kept
    memory.save("s", [*kept, HELLO])
    assert memory.load("s") == [*kept, HELLO]
    with pytest.raises(ConflictError):
        memory.save("s", [*kept[:-1], HELLO, HELLO])
    with pytest.raises(ConflictError):
        memory.save("s", many)


def test_a_fork_is_a_conversation_of_its_own(store: SessionStore) -> None:
    memory = store.as_memory_backend()
    memory.save("s", [HELLO, ANSWER, HELLO])
    store.fork("s", "fork", at=2)
    memory.save("fork", [HELLO, ANSWER, CALL])
    memory.save("s", [HELLO, ANSWER, HELLO, ANSWER])
    assert memory.load("fork") == [HELLO, ANSWER, CALL]
    memory.delete("s")
    memory.save("fork", [HELLO, ANSWER, CALL, HELLO])
    assert (memory.list(), memory.load("fork")) == (["fork"], [HELLO, ANSWER, CALL, HELLO])


def test_dicts_that_were_stored_under_a_kind_can_be_saved_again(store: SessionStore) -> None:
    opaque = {"checkpoint": {"v": 1}}
    store.session("s").append(opaque, kind="langgraph")
    store.append("s", {"role": "user", "content": "x"}, kind="note")
    memory = store.as_memory_backend()
    memory.save("s", [opaque, {"role": "user", "content": "x"}, HELLO])
    assert [message.kind for message in store.messages("s")] == ["langgraph", "note", "message"]


def test_conversations_live_as_long_as_the_store_says(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, ttl=60) as store:
        memory = store.as_memory_backend()
        memory.save("s", [HELLO])
        frozen.go(50)
        memory.save("s", [HELLO])
        frozen.go(50)
        assert memory.load("s") == [HELLO]
        memory.save("s", [HELLO, ANSWER])
        frozen.go(60)
        assert memory.load("s") is None
        assert memory.list() == []
        memory.save("s", [CALL])
        assert memory.load("s") == [CALL]
        assert memory.list() == ["s"]


def test_an_expired_conversation_is_deleted_for_good(store_path: Path, frozen: FrozenClock, dump: Callable[[], Any]) -> None:
    with sessionstore.open(store_path, ttl=60) as store:
        memory = store.as_memory_backend()
        memory.save("s", [HELLO])
        frozen.go(60)
        memory.delete("s")
        assert dump()["messages"] == []


def test_all_ids_are_listed(store: SessionStore) -> None:
    for number in range(60):
        store.session(f"s{number}")
    assert store.as_memory_backend().list() == sorted(f"s{number}" for number in range(60))


def test_damage_is_reported_and_not_taken_for_a_conflict(store: SessionStore, store_path: Path) -> None:
    store.as_memory_backend().save("s", [HELLO, ANSWER])
    store.close()
    with closing(sqlite3.connect(store_path)) as connection:
        connection.execute("UPDATE messages SET text = 'damaged' WHERE text = 'Hello'")
        connection.commit()
    with sessionstore.open(store_path) as opened:
        memory = opened.as_memory_backend()
        for call in (lambda: memory.load("s"), lambda: memory.save("s", [HELLO, ANSWER, HELLO])):
            with pytest.raises(StoreCorruptError):
                call()


def test_it_is_closed_and_read_only_with_its_store(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        memory = store.as_memory_backend()
        memory.save("s", [HELLO])
    for call in (memory.list, lambda: memory.load("s"), lambda: memory.save("s", []), lambda: memory.delete("s")):
        with pytest.raises(ClosedStoreError):
            call()
    with sessionstore.open(store_path, read_only=True) as store:
        memory = store.as_memory_backend()
        assert memory.load("s") == [HELLO]
        with pytest.raises(ReadOnlyStoreError):
            memory.save("s", [HELLO, ANSWER])


def test_two_processes_lose_and_mix_nothing(store_path: Path) -> None:
    """Each loads, adds a turn and saves, and begins anew after a conflict: all turns are there, each in one piece."""
    sessionstore.open(store_path).close()
    commands = [[sys.executable, "-c", SAVER, str(store_path), name] for name in ("a", "b")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        told = process.communicate()[1]
        assert process.returncode == 0, told
    with sessionstore.open(store_path) as store:
        conversation = store.as_memory_backend().load("shared") or []
    turns = [
        (question["content"], answer["content"]) for question, answer in zip(conversation[::2], conversation[1::2], strict=True)
    ]
    assert sorted(turns) == sorted((f"{name} {number}", name) for name in "ab" for number in range(20))
    for name in "ab":
        own = [question for question, answer in turns if answer == name]
        assert own == [f"{name} {number}" for number in range(20)]


def test_airline_conversations_come_back_equal(store: SessionStore, airline_conversations: list[dict[str, Any]]) -> None:
    memory = store.as_memory_backend()
    for number, conversation in enumerate(airline_conversations):
        messages = conversation["messages"]
        for count in (len(messages) // 2, len(messages)):
            memory.save(str(number), messages[:count])
        assert json.dumps(memory.load(str(number)), sort_keys=True) == json.dumps(messages, sort_keys=True)
    assert len(memory.list()) == len(airline_conversations)


@pytest.mark.anyio
async def test_tasks_save_at_once(store: SessionStore) -> None:
    """Of each conversation the turns of all tasks are there; a conflict is told to the one that came later."""
    memory = AsyncSessionStore(store).as_memory_backend()

    async def work(name: str) -> None:
        for number in range(5):
            while True:
                conversation = await memory.load("shared") or []
                try:
                    await memory.save("shared", [*conversation, {"role": "user", "content": f"{name} {number}"}])
                except ConflictError:
                    continue
                break

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(work, name)
    found = [message["content"] for message in await memory.load("shared") or []]
    assert sorted(found) == sorted(f"{name} {number}" for name in "abc" for number in range(5))


@pytest.mark.anyio
async def test_a_cancelled_save_is_done_or_not_begun(store: SessionStore) -> None:
    memory = AsyncSessionStore(store).as_memory_backend()
    for number in range(20):
        with anyio.move_on_after(0.0005 * number):
            await memory.save(f"s{number}", [HELLO, CALL])
        found = await memory.load(f"s{number}")
        assert found in (None, [HELLO, CALL])
        await memory.save(f"s{number}", [HELLO, CALL, ANSWER])
