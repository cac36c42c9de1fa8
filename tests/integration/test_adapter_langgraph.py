"""LangGraph's checkpointer: what its own suite asks, what LangGraph's memory saver tells, and what a kill leaves."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from clocks import FrozenClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint, uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from langgraph_program import built, following
from trials import Trial

import sessionstore
from sessionstore import InvalidInputError, SessionStore, StoreCorruptError
from sessionstore.adapters.langgraph import SessionStoreSaver, lists
from sessionstore.adapters.langgraph.parts import Parts

posix_only = pytest.mark.skipif(os.name != "posix", reason="kills by signal")


@pytest.fixture
def saver(store: SessionStore) -> SessionStoreSaver:
    return SessionStoreSaver(store)


class Mirror(CipherProtocol):
    """A cipher whose output differs each time, as that of a real one."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        salt = os.urandom(1)
        return "mirror", salt + bytes(byte ^ salt[0] ^ 0x5A for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "mirror"
        return bytes(byte ^ ciphertext[0] ^ 0x5A for byte in ciphertext[1:])


class Thread:
    """A graph's thread as its loop drives a checkpointer: each put is the child of the one before."""

    def __init__(self, saver: Any, thread_id: str = "t", checkpoint_ns: str = "") -> None:
        self.saver = saver
        self.config: dict[str, Any] = {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}}
        self.versions: dict[str, Any] = {}
        self.step = -1

    def prepare(self, values: dict[str, Any], changed: set[str] | None = None, **about: Any) -> tuple[Any, ...]:
        self.step += 1
        names = set(values) if changed is None else changed
        new = {name: self.saver.get_next_version(self.versions.get(name), None) for name in names}
        self.versions = {**self.versions, **new}
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=self.step))
        checkpoint["channel_values"] = values
        checkpoint["channel_versions"] = dict(self.versions)
        return self.config, checkpoint, {"source": "loop", "step": self.step, "parents": {}, **about}, new

    def put(self, values: dict[str, Any], changed: set[str] | None = None, **about: Any) -> dict[str, Any]:
        self.config = self.saver.put(*self.prepare(values, changed, **about))
        return self.config

    def value(self, channel: str = "messages", config: dict[str, Any] | None = None) -> Any:
        """A channel's value as somebody who remembers nothing reads it."""
        found = SessionStoreSaver(self.saver.store, serde=self.saver.serde).get_tuple(config or self.config)
        assert found is not None
        return found.checkpoint["channel_values"][channel]


def message(number: object, text: str = "") -> BaseMessage:
    kind = HumanMessage if str(number)[-1:] in "02468" else AIMessage
    return kind(content=text or f"text {number}", id=f"m{number}")


def stored_bytes(store: SessionStore) -> int:
    return int(store.query("SELECT coalesce(sum(length(value)), 0) FROM checkpoint_values").rows[0][0])


# -- LangGraph's own suite


@pytest.mark.parametrize("kind", ["plain", "encrypted", "bare"])
def test_the_conformance_suite_passes_in_all_capabilities(tmp_path: Path, kind: str) -> None:
    numbers = itertools.count()
    serde = EncryptedSerializer(Mirror()) if kind == "encrypted" else None

    @checkpointer_test(name=f"SessionStoreSaver {kind}")
    async def made() -> Any:
        saver = SessionStoreSaver(tmp_path / f"{next(numbers)}.db", serde=serde, transcript=kind != "bare")
        yield saver
        await saver.aclose()

    report = asyncio.run(validate(made))
    assert report.passed_all(), report.to_dict()
    assert len(report.results) == 8


# -- lists that grow


def test_a_list_that_grew_costs_what_it_grew_by(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    messages = [message(number, "x" * 500) for number in range(1_000)]
    thread.put({"messages": messages})
    before = stored_bytes(saver.store)
    for number in range(1_000, 1_010):
        messages = [*messages, message(number, "x" * 500)]
        thread.put({"messages": messages})
    assert stored_bytes(saver.store) - before < 10 * 1_000
    assert thread.value() == messages


def test_a_list_that_was_read_is_continued_by_who_has_not_written_it(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    thread.put({"messages": [message(number, "x" * 500) for number in range(100)]})
    before = stored_bytes(saver.store)
    thread.saver = SessionStoreSaver(saver.store)
    found = thread.saver.get_tuple(thread.config)
    assert found is not None
    grown = [*found.checkpoint["channel_values"]["messages"], message("new")]
    thread.put({"messages": grown})
    assert stored_bytes(saver.store) - before < 1_000
    assert thread.value() == grown


def test_a_long_list_has_few_pieces_and_is_written_again_a_few_times(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    messages: list[Any] = []
    for number in range(600):
        messages = [*messages, number]
        thread.put({"messages": messages})
    found = saver.store._find_checkpoint("t", "", None)
    assert found is not None
    assert len(found.values["messages"]) < 3 * 16
    items = saver.store.query("SELECT sum(items) FROM checkpoint_values").rows[0][0]
    assert items < 4 * 600
    assert thread.value() == messages


def test_only_what_was_not_read_before_is_looked_at(saver: SessionStoreSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of a graph begins with reading its thread: that costs what is new, and the list is continued all the same."""
    thread = Thread(saver)
    messages = [message(number) for number in range(100)]
    looked_at: list[int] = []
    seen = lists._seen
    monkeypatch.setattr(lists, "_seen", lambda items: looked_at.append(len(items)) or seen(items))  # type: ignore[func-returns-value]
    thread.put({"messages": messages})
    for number in range(100, 103):
        looked_at.clear()
        found = saver.get_tuple(thread.config)  # type: ignore[arg-type]
        assert found is not None
        assert found.checkpoint["channel_values"]["messages"] == messages
        assert sum(looked_at) == (100 if number == 100 else 1)
        messages = [*found.checkpoint["channel_values"]["messages"], message(number)]
        thread.put({"messages": messages})
    assert saver.store.query("SELECT items FROM checkpoint_values ORDER BY number").rows == ((100,), (1,), (1,), (1,))
    assert thread.value() == messages


def test_a_list_that_does_not_come_back_as_it_was_is_written_again_once(store: SessionStore) -> None:
    class Listing(JsonPlusSerializer):
        """Gives back lists for tuples."""

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            found = super().loads_typed(data)
            return [list(each) if isinstance(each, tuple) else each for each in found] if isinstance(found, list) else found

    saver = SessionStoreSaver(store, serde=Listing())
    thread = Thread(saver)
    thread.put({"pairs": [(number, "x") for number in range(20)]})
    for number in range(3):
        found = saver.get_tuple(thread.config)  # type: ignore[arg-type]
        assert found is not None
        thread.put({"pairs": [*found.checkpoint["channel_values"]["pairs"], [number, "y"]]})
    assert store.query("SELECT items FROM checkpoint_values ORDER BY number").rows == ((20,), (1,), (1,), (1,))
    assert len(thread.value("pairs")) == 23


def test_programs_that_seed_random_alike_do_not_take_each_others_values(store: SessionStore) -> None:
    mine, theirs = Thread(SessionStoreSaver(store)), Thread(SessionStoreSaver(store))
    state = random.getstate()
    try:
        random.seed(0)
        mine.put({"messages": [message(1)]})
        theirs.saver.delete_thread("t")
        random.seed(0)
        theirs.put({"messages": [message(2)]})
        assert theirs.versions != mine.versions
    finally:
        random.setstate(state)
    mine.put({"messages": [message(1), message(3)]})
    assert [each.id for each in mine.value()] == ["m1", "m3"]


def change_in_place(items: list[Any]) -> list[Any]:
    items[3].content = "changed in place"
    return items


def change_deep_inside(items: list[Any]) -> list[Any]:
    items[3].additional_kwargs["note"] = {"deep": ["inside"]}
    return items


CHANGES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "changed in place": change_in_place,
    "changed deep inside": change_deep_inside,
    "replaced": lambda items: [*items[:3], message(3, "another"), *items[4:]],
    "of another type": lambda items: [*items[:3], AIMessage(**items[3].model_dump(exclude={"type"})), *items[4:]],
    "removed": lambda items: [*items[:3], *items[4:]],
    "first removed": lambda items: items[1:],
    "last removed": lambda items: items[:-1],
    "reordered": lambda items: items[::-1],
    "put before": lambda items: [message("before"), *items],
    "put between": lambda items: [*items[:3], message("between"), *items[3:]],
    "emptied": lambda _: [],
    "a number for a truth": lambda items: [*items[:-1], 1],
    "no list any more": lambda _: "text",
    "none": lambda _: None,
    "a tuple": lambda items: (*items,),
    "grown in place": lambda items: items.append(message("grown")) or items,  # type: ignore[func-returns-value]
    "what has no plain form": lambda items: [*items, {1, 2}, ToolMessage("x", tool_call_id="c", artifact={3})],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("serde", [None, EncryptedSerializer(Mirror())], ids=["plain", "encrypted"])
def test_whatever_becomes_of_a_list_each_checkpoint_keeps_its_own(store: SessionStore, change: str, serde: Any) -> None:
    saver = SessionStoreSaver(store, serde=serde)
    thread = Thread(saver)
    items: list[Any] = [*(message(number) for number in range(8)), True]
    first = thread.put({"messages": items[:5]})
    kept = [saver.serde.loads_typed(saver.serde.dumps_typed(each)) for each in items]
    second = thread.put({"messages": items})
    changed = CHANGES[change](items)
    third = thread.put({"messages": changed})
    expected = saver.serde.loads_typed(saver.serde.dumps_typed(changed))
    grown = [*expected, message("more")] if isinstance(expected, list) else expected
    fourth = thread.put({"messages": grown})
    assert thread.value(config=first) == kept[:5]
    assert [(type(each), each) for each in thread.value(config=second)] == [(type(each), each) for each in kept]
    read = thread.value(config=third)
    assert (type(read), read) == (type(expected), expected)
    if isinstance(read, list):
        assert list(map(type, read)) == list(map(type, expected))
    assert thread.value(config=fourth) == grown


def test_a_change_while_a_checkpoint_is_written_is_in_the_next_one(saver: SessionStoreSaver) -> None:
    """A node may go on with its messages while LangGraph's threads store them."""
    plain = saver.serde
    thread = Thread(saver)
    item = message(1, "before")

    class Meddling(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            stored = plain.dumps_typed(obj)
            if obj == [item]:
                item.content = "after"
            return stored

    saver.serde = Meddling()
    thread.put({"messages": [item]})
    saver.serde = plain
    thread.put({"messages": [item, message(2)]})
    assert [each.content for each in thread.value()] == ["after", "text 2"]


def test_branches_continue_the_list_that_they_come_from(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    base = [message(number) for number in range(20)]
    root = thread.put({"messages": base})
    versions = dict(thread.versions)
    tips = {}
    for name in ("a", "b"):
        thread.config, thread.versions = root, dict(versions)
        for number in range(5):
            thread.put({"messages": [*base, *(message(f"{name}{index}") for index in range(number + 1))]})
        tips[name] = thread.config
    for name, tip in tips.items():
        assert [each.id for each in thread.value(config=tip)] == [f"m{n}" for n in [*range(20), *(f"{name}{i}" for i in range(5))]]
    assert saver.store.query("SELECT count(*) FROM checkpoint_values WHERE items = 20").rows == ((1,),)


def test_a_thread_that_was_deleted_under_a_running_graph_is_whole_again(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store))
    messages = [message(number) for number in range(5)]
    thread.put({"messages": messages})
    SessionStoreSaver(store).delete_thread("t")
    for number in range(5, 8):
        messages = [*messages, message(number)]
        thread.put({"messages": messages})
        assert thread.value() == messages
    pieces = store.query("SELECT items FROM checkpoint_values ORDER BY number").rows
    assert pieces == ((6,), (1,), (1,)), "only the first one was written whole"
    assert store.doctor().ok


def test_subclasses_and_other_serializers_are_compared_by_their_bytes(store: SessionStore) -> None:
    class Noted(HumanMessage):
        pass

    assert Noted not in lists._PLAIN
    digest = lists.digest_by(JsonPlusSerializer())
    assert digest([HumanMessage("x", id="1")]) == digest([HumanMessage("x", id="1")])
    assert digest([Noted("x", id="1")]) != digest([HumanMessage("x", id="1")])
    assert digest([1]) != digest([True])
    assert digest([1]) != digest([1.0])
    assert digest([HumanMessage("x", id="1", note=1)]) != digest([HumanMessage("x", id="1")])

    class Own(JsonPlusSerializer):
        pass

    assert lists.digest_by(Own())([1]) != digest([1])


# -- as LangGraph's own memory saver, whatever is called in whatever order

THREADS = st.sampled_from(["t0", "t1"])
NAMESPACES = st.sampled_from(["", "child:1"])
WHICH = st.integers(0, 1)


class Against(RuleBasedStateMachine):
    """Random calls on two checkpointers of one store and on an InMemorySaver."""

    file: SessionStore
    loop: asyncio.AbstractEventLoop | None
    numbers = itertools.count()

    @initialize()
    def begin(self) -> None:
        # Making a file takes longer than all else: each example has a namespace of its own.
        self.store = self.file.in_namespace(f"example {next(self.numbers)}")
        self.savers = [SessionStoreSaver(self.store), SessionStoreSaver(self.store)]
        self.model = InMemorySaver()
        self.ids: dict[tuple[str, str], list[str]] = {}
        self.gone: dict[tuple[str, str], list[str]] = {}
        self.contents: dict[tuple[str, str, str], tuple[dict[str, Any], dict[str, Any]]] = {}

    def call(self, which: int, name: str, *given: Any, **named: Any) -> Any:
        saver = self.savers[which]
        if self.loop is not None:
            return self.loop.run_until_complete(getattr(saver, f"a{name}")(*given, **named))
        return getattr(saver, name)(*given, **named)

    @rule(
        which=WHICH, thread=THREADS, ns=NAMESPACES, parent=st.integers(0, 9), reads=st.booleans(),
        edit=st.integers(0, 6), deleted=st.booleans(), place=st.integers(0, 30), run=st.integers(0, 3), changes_other=st.booleans(),
    )  # fmt: skip
    def put(
        self,
        which: int,
        thread: str,
        ns: str,
        parent: int,
        reads: bool,
        edit: int,
        deleted: bool,
        place: int,
        run: int,
        changes_other: bool,
    ) -> None:
        known = self.ids.get((thread, ns), [])
        # Mostly the newest one; sometimes an older one.
        origin = None if not known else known[-1] if parent > 2 else known[parent % len(known)]
        gone = self.gone.get((thread, ns), [])
        if deleted and gone:
            # Somebody deleted what a running graph comes from.
            origin, reads, changes_other = gone[-1], False, True
        config: dict[str, Any] = {"configurable": {"thread_id": thread, "checkpoint_ns": ns}}
        values: dict[str, Any] = {}
        versions: dict[str, Any] = {}
        if origin is not None:
            config["configurable"]["checkpoint_id"] = origin
            values, versions = self.contents[thread, ns, origin]
            if reads:
                values = self.call(which, "get_tuple", config).checkpoint["channel_values"]
        items = edited(list(values.get("messages", [])), edit, place, next(self.numbers))
        changed = {"messages"} | ({"other"} if changes_other else set())
        new = {name: self.savers[0].get_next_version(versions.get(name), None) for name in changed}
        values = {**values, "messages": items, **({"other": {"n": place}} if changes_other else {})}
        versions = {**versions, **new}
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=place))
        checkpoint["channel_values"], checkpoint["channel_versions"] = values, versions
        about = {"source": "loop", "step": place, "parents": {}, "run_id": f"r{run}"}
        self.model.put(config, checkpoint, about, new)  # type: ignore[arg-type]
        self.call(which, "put", config, checkpoint, about, new)
        self.contents[thread, ns, checkpoint["id"]] = values, versions
        self.ids.setdefault((thread, ns), []).append(checkpoint["id"])

    @rule(which=WHICH, thread=THREADS, ns=NAMESPACES, at=st.integers(0, 9), task=st.integers(0, 2), path=st.text("ab", max_size=2),
          channels=st.lists(st.sampled_from(["a", "b", "__error__", "__interrupt__"]), max_size=3))  # fmt: skip
    def put_writes(self, which: int, thread: str, ns: str, at: int, task: int, path: str, channels: list[str]) -> None:
        known = self.ids.get((thread, ns), [])
        if known:
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": known[at % len(known)]}}
            writes = [(channel, next(self.numbers)) for channel in channels]
            self.model.put_writes(config, writes, f"task{task}", path)  # type: ignore[arg-type]
            self.call(which, "put_writes", config, writes, f"task{task}", path)

    @rule(which=WHICH, thread=THREADS)
    def delete_thread(self, which: int, thread: str) -> None:
        self.model.delete_thread(thread)
        self.call(which, "delete_thread", thread)
        self.forget(thread)

    @rule(which=WHICH, thread=THREADS)
    def prune(self, which: int, thread: str) -> None:
        self.call(which, "prune", [thread, "absent"])
        for (name, ns), ids in list(self.ids.items()):
            if name == thread and ids:
                self.drop(thread, ns, set(ids) - {max(ids)})

    @rule(which=WHICH, thread=THREADS)
    def prune_all(self, which: int, thread: str) -> None:
        self.call(which, "prune", [thread], strategy="delete")
        self.model.delete_thread(thread)
        self.forget(thread)

    @rule(which=WHICH, runs=st.sets(st.integers(0, 3), max_size=2))
    def delete_for_runs(self, which: int, runs: set[int]) -> None:
        names = [f"r{run}" for run in runs]
        gone = {
            (thread, ns): {
                name for name in ids
                if self.model.get_tuple(named(thread, ns, name)).metadata["run_id"] in names  # type: ignore[union-attr,arg-type]
            }
            for (thread, ns), ids in self.ids.items()
        }  # fmt: skip
        self.call(which, "delete_for_runs", names)
        for (thread, ns), ids in gone.items():
            self.drop(thread, ns, ids)

    @rule(which=WHICH)
    def copy_thread(self, which: int) -> None:
        self.call(which, "copy_thread", "t0", "t1")
        for ns, checkpoints in self.model.storage["t0"].items():
            self.model.storage["t1"][ns].update(checkpoints)
        for (thread, ns, name), written in list(self.model.writes.items()):
            if thread == "t0":
                self.model.writes["t1", ns, name] = {**self.model.writes.get(("t1", ns, name), {}), **written}
        for (thread, *rest), blob in list(self.model.blobs.items()):
            if thread == "t0":
                self.model.blobs[("t1", *rest)] = blob  # type: ignore[index]
        for (thread, ns, name), content in list(self.contents.items()):
            if thread == "t0" and name in self.ids.get((thread, ns), []):
                self.contents["t1", ns, name] = content
                self.ids["t1", ns] = sorted({*self.ids.get(("t1", ns), []), name})

    def drop(self, thread: str, ns: str, ids: set[str]) -> None:
        self.ids[thread, ns] = [name for name in self.ids[thread, ns] if name not in ids]
        self.gone.setdefault((thread, ns), []).extend(sorted(ids))
        for name in ids:
            self.model.storage[thread][ns].pop(name, None)
            self.model.writes.pop((thread, ns, name), None)

    def forget(self, thread: str) -> None:
        for name, ns in list(self.ids):
            if name == thread:
                self.gone.setdefault((name, ns), []).extend(self.ids.pop((name, ns)))

    @invariant()
    def both_tell_the_same(self) -> None:
        for thread, ns in self.ids:
            config = named(thread, ns)
            mine = list(self.savers[0].list(config))  # type: ignore[arg-type]
            theirs = list(self.model.list(config))  # type: ignore[arg-type]
            assert list(map(told, mine)) == list(map(told, theirs))
            newest = self.savers[1].get_tuple(config)  # type: ignore[arg-type]
            assert told(newest) == (told(mine[0]) if mine else None)


def named(thread: str, ns: str, checkpoint_id: str | None = None) -> dict[str, Any]:
    place = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": place if checkpoint_id is None else {**place, "checkpoint_id": checkpoint_id}}


def edited(items: list[Any], edit: int, place: int, number: int) -> list[Any]:
    """A list after something was done to it; mostly it grows."""
    at = place % len(items) if items else 0
    if edit == 0 and items:
        return [*items[:at], *items[at + 1 :]]
    if edit == 1 and items:
        items[at] = items[at].model_copy(update={"content": f"changed {number}"})
        return items
    if edit == 2:
        return [message(number), *items]
    if edit == 3:
        return [*items, *(message(f"{number}-{index}") for index in range(place))]
    return [*items, message(number)]


def told(found: CheckpointTuple | None) -> Any:
    if found is None:
        return None
    return found.config["configurable"], found.checkpoint, found.metadata, found.parent_config, found.pending_writes


@pytest.mark.fault("F38")
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_random_calls_do_what_they_do_to_the_memory_saver(store: SessionStore, awaited: bool, trial: Trial) -> None:
    loop = asyncio.new_event_loop() if awaited else None
    examples = trial.size(push=20, nightly=60, release=200)
    chosen = settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    run_state_machine_as_test(type("Machine", (Against,), {"file": store, "loop": loop}), settings=chosen)
    if loop is not None:
        loop.close()
    assert all(check.ok for check in store.doctor().checks)
    trial.report(f"LangGraph's calls: {examples} x 25 steps, equal to its own saver")


# -- compiled graphs


CONFIG: Any = {"configurable": {"thread_id": "t"}}


def turn(graph: Any, text: str, config: Any = CONFIG) -> None:
    graph.invoke({"messages": [HumanMessage(text, id=f"{text}!")]}, config)
    graph.invoke(Command(resume=f"yes to {text}"), config)


def texts(graph: Any, config: Any = CONFIG) -> list[str]:
    return [each.content for each in graph.get_state(config).values["messages"]]


def test_a_graph_goes_on_where_it_was_interrupted_with_all_ways_of_durability(tmp_path: Path) -> None:
    for durability in ("sync", "async", "exit"):
        config: Any = {"configurable": {"thread_id": durability}}
        with SessionStoreSaver(tmp_path / "a.db") as saver:
            built(saver).invoke({"messages": [HumanMessage("hello", id="1")]}, config, durability=durability)
        with SessionStoreSaver(tmp_path / "a.db") as saver:
            graph = built(saver)
            assert graph.get_state(config).next == ("confirm",)
            graph.invoke(Command(resume="yes"), config, durability=durability)
            assert texts(graph, config) == ["hello", "answer 1", "yes"]


def test_time_travel_and_updates_tell_what_the_memory_saver_tells(saver: SessionStoreSaver) -> None:
    def history(graph: Any) -> list[Any]:
        turn(graph, "one")
        turn(graph, "two")
        older = [each for each in graph.get_state_history(CONFIG) if each.next == ("answer",)][-1]
        graph.invoke(None, older.config)
        graph.update_state(CONFIG, {"messages": [HumanMessage("edited", id="one!")]}, as_node="confirm")
        turn(graph, "three")
        graph.update_state(CONFIG, None, as_node="__copy__")
        found = graph.get_state_history(CONFIG)
        return [(each.values, each.next, each.metadata["source"], each.metadata["step"]) for each in found]

    assert history(built(saver)) == history(built(InMemorySaver()))


def test_an_awaited_graph_goes_on_from_what_a_plain_one_left(store: SessionStore) -> None:
    turn(built(SessionStoreSaver(store)), "one")

    async def go_on() -> None:
        graph = built(SessionStoreSaver(sessionstore.AsyncSessionStore(store)))
        await graph.ainvoke({"messages": [HumanMessage("two", id="two!")]}, CONFIG)
        await graph.ainvoke(Command(resume="yes"), CONFIG)

    asyncio.run(go_on())
    assert texts(built(SessionStoreSaver(store))) == ["one", "answer 1", "yes to one", "two", "answer 4", "yes"]


def test_nothing_is_serialized_in_the_event_loop(store: SessionStore) -> None:
    """Neither a long list that is put nor one that is read keeps other tasks waiting."""
    seen: dict[str, set[int]] = {"dumps": set(), "loads": set()}

    class Noting(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            seen["dumps"].add(threading.get_ident())
            return super().dumps_typed(obj)

        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            seen["loads"].add(threading.get_ident())
            return super().loads_typed(data)

    async def use() -> None:
        saver = SessionStoreSaver(store, serde=Noting())
        thread = Thread(saver)
        config = await saver.aput(*thread.prepare({"messages": [message(number) for number in range(100)]}, note=1))
        await saver.aput_writes(config, [("messages", message("written"))], "task")  # type: ignore[arg-type]
        assert await saver.aget_tuple(config) is not None  # type: ignore[arg-type]
        assert len([each async for each in saver.alist(None, filter={"note": 1})]) == 1
        await saver.aget_delta_channel_history(config=config, channels=["messages"])  # type: ignore[arg-type]

    asyncio.run(use())
    assert all(seen.values())
    assert threading.get_ident() not in seen["dumps"] | seen["loads"]


def joined(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


class DeltaState(TypedDict):
    log: Annotated[list[str], DeltaChannel(joined, list, snapshot_frequency=5)]
    count: int


def delta_graph(saver: Any) -> Any:
    builder = StateGraph(DeltaState)
    builder.add_node("left", lambda state: {"log": [f"left {len(state['log'])}"]})
    builder.add_node("right", lambda state: {"log": [f"right {len(state['log'])}"]})
    builder.add_node("last", lambda state: {"log": [f"last {len(state['log'])}"], "count": len(state["log"])})
    for name in ("left", "right"):
        builder.add_edge(START, name)
        builder.add_edge(name, "last")
    builder.add_edge("last", END)
    return builder.compile(checkpointer=saver)


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_delta_channels_are_rebuilt_also_after_pruning_and_copying(saver: SessionStoreSaver) -> None:
    theirs, mine = delta_graph(InMemorySaver()), delta_graph(saver)
    for number in range(9):
        for graph in (mine, theirs):
            graph.invoke({"log": [f"ask {number}"]}, CONFIG)
        expected = theirs.get_state(CONFIG).values
        assert mine.get_state(CONFIG).values == expected
        before = len(list(saver.list(CONFIG)))
        saver.prune(["t"])
        assert len(list(saver.list(CONFIG))) <= before
        assert mine.get_state(CONFIG).values == expected
        saver.copy_thread("t", f"copy {number}")
        assert mine.get_state({"configurable": {"thread_id": f"copy {number}"}}).values == expected
    assert len(list(saver.list(CONFIG))) < 12
    newest = saver.get_tuple(CONFIG)
    assert newest is not None
    awaited = asyncio.run(saver.aget_delta_channel_history(config=newest.config, channels=["log", "count"]))
    plain = saver.get_delta_channel_history(config=newest.config, channels=["log", "count"])
    general = super(SessionStoreSaver, saver).get_delta_channel_history(config=newest.config, channels=["log", "count"])
    assert awaited == plain == general


# -- the messages of the session


def test_a_transcript_has_each_message_once_with_its_figures(store: SessionStore) -> None:
    graph = built(SessionStoreSaver(store, agent_id="helper", ttl=3600))
    for text in ("one", "two", "three"):
        turn(graph, text)
    said = store.messages("t")
    assert [each.text for each in said] == texts(graph)
    assert [each.role for each in said[:3]] == ["user", "assistant", "user"]
    assert (said[1].model, said[1].input_tokens, said[1].output_tokens, said[1].dedupe_key) == ("m-1", 3, 2, "a1")
    assert [hit.seq for hit in store.search("three").items] == [7, 9]
    known = store.get("t")
    assert known is not None
    assert (known.agent_id, known.ttl) == ("helper", 3600)


def test_a_transcript_is_what_was_said(store: SessionStore) -> None:
    """Changed and removed messages stay as they were; what comes before others later is appended; nothing is said twice."""
    thread = Thread(SessionStoreSaver(store))
    first, second, third = message(1, "one"), message(2, "two"), message(3, "three")
    thread.put({"messages": [first, second]})
    thread.put({"messages": [first.model_copy(update={"content": "changed"}), third]})
    thread.put({"messages": [message(9, "a summary"), third, HumanMessage("without an id"), "no message"]})
    thread.saver = SessionStoreSaver(store)
    thread.put({"messages": [message(9, "a summary"), third, first]})
    Thread(thread.saver, "t", "child").put({"messages": [message(5, "of a subgraph")]})
    assert [each.text for each in store.messages("t")] == ["one", "two", "three", "a summary"]


def test_a_transcript_that_begins_late_has_what_was_said_before(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store, transcript=False))
    thread.put({"messages": [message(1), message(2)]})
    assert store.messages("t") == []
    thread.saver = SessionStoreSaver(store)
    assert thread.saver.get_tuple(thread.config) is not None
    thread.put({"messages": [message(1), message(2), message(3)]})
    assert [each.text for each in store.messages("t")] == ["text 1", "text 2", "text 3"]


def test_a_transcript_begins_behind_what_a_program_wrote_itself(store: SessionStore) -> None:
    """One that appended its messages before the checkpointer did must not find them twice."""
    thread = Thread(SessionStoreSaver(store, transcript=False))
    thread.put({"messages": [message(1)]})
    store.append("t", "assistant", "text 1")
    thread.saver = SessionStoreSaver(store)
    assert thread.saver.get_tuple(thread.config) is not None
    thread.put({"messages": [message(1), message(2)]})
    assert [each.text for each in store.messages("t")] == ["text 1", "text 2"]


def test_messages_that_were_deleted_from_a_session_do_not_come_back(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store))
    thread.put({"messages": [message(1), message(2)]})
    store.pop("t")
    thread.put({"messages": [message(1), message(2), message(3)]})
    assert [each.text for each in store.messages("t")] == ["text 1", "text 3"]
    store.clear("t")
    thread.saver = SessionStoreSaver(store)
    assert thread.saver.get_tuple(thread.config) is not None
    thread.put({"messages": [*(message(number) for number in range(1, 5))]})
    assert [each.text for each in store.messages("t")] == ["text 4"]


def test_without_a_transcript_the_sessions_messages_are_left_alone(store: SessionStore) -> None:
    turn(built(SessionStoreSaver(store, transcript=False)), "one")
    assert store.messages("t") == []


def test_a_fork_does_not_get_what_it_shares_again(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store))
    thread.put({"messages": [message(1), message(2)]})
    store.fork("t", "forked")
    Thread(SessionStoreSaver(store), "forked").put({"messages": [message(1), message(2), message(3)]})
    assert [each.text for each in store.messages("forked")] == ["text 1", "text 2", "text 3"]


def test_a_transcript_has_tool_calls_and_content_that_json_has_not(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store))
    calls = [{"id": "c1", "name": "f", "args": {"x": 1}}]
    blocks = [{"type": "text", "text": "seen"}, {"type": "raw", "data": b"bytes"}]
    messages = [
        AIMessage("", id="1", tool_calls=calls),
        ToolMessage("done", id="2", tool_call_id="c1", name="f"),
        HumanMessage(blocks, id="3"),  # type: ignore[arg-type]
    ]
    thread.put({"messages": messages})
    assert thread.value() == messages
    call, result, seen = store.messages("t")
    assert (call.tool_call_ids, result.tool_call_id, result.role) == (("c1",), "c1", "tool")
    assert call.to_dict()["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert (seen.role, seen.text) == ("user", "seen")
    assert store.check("t").unmatched_calls == ()


def left_out(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message_id for record in caplog.records if record.event == "message_left_out"]  # type: ignore[attr-defined]


def test_a_message_that_the_store_refuses_is_left_out_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sessionstore.open(tmp_path / "a.db", max_text_bytes=1_000) as store:
        thread = Thread(SessionStoreSaver(store))
        messages = [message(1), message(2, "x" * 2_000), message(3)]
        thread.put({"messages": messages})
        thread.put({"messages": [*messages, message(4)]})
        # From a list that begins otherwise all is looked at again.
        thread.put({"messages": [message(5), *messages]})
        assert thread.value() == [message(5), *messages]
        assert [each.text for each in store.messages("t")] == ["text 1", "text 3", "text 4", "text 5"]
        thread.saver = SessionStoreSaver(store)
        assert thread.saver.get_tuple(thread.config) is not None
        thread.put({"messages": [message(5), *messages, message(6)]})
    assert left_out(caplog) == ["m2"]
    assert "xxx" not in caplog.text


def test_no_message_of_whatever_kind_refuses_the_checkpoint(store: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    thread = Thread(SessionStoreSaver(store))
    odd: list[BaseMessage] = [
        HumanMessage([{"type": "text", "text": "not a number", "score": float("nan")}], id="nan"),
        AIMessage("", id="args", tool_calls=[{"id": "c", "name": "f", "args": {"at": {3}}}]),
        AIMessage("half \ud800", id="surrogate"),
        HumanMessage.model_construct(id="bare"),  # type: ignore[call-arg]
        AIMessage("", id="figures", response_metadata={"model": [], "model_name": "two\nlines", "finish_reason": 7}),
        HumanMessage("an id too long", id="x" * 300),
    ]
    thread.put({"messages": odd})
    thread.put({"messages": [*odd, message("last")]})
    assert [each.dedupe_key for each in store.messages("t")] == ["nan", "args", "figures", "mlast"]
    assert left_out(caplog) == ["surrogate", "bare"]


def test_a_session_that_has_no_seq_left_still_takes_checkpoints(store: SessionStore, caplog: pytest.LogCaptureFixture) -> None:
    from sessionstore.values import MAX_SEQ

    thread = Thread(SessionStoreSaver(store))
    thread.put({"messages": [message(1)]})
    store._write(lambda db: db.driver.execute("UPDATE sessions SET next_seq = ?", (MAX_SEQ + 1,)))
    thread.put({"messages": [message(1), message(2), message(3)]})
    assert [each.id for each in thread.value()] == ["m1", "m2", "m3"]
    assert left_out(caplog) == ["m2", "m3"]


# -- the store


def test_two_namespaces_with_equal_ids_never_see_each_other(store: SessionStore) -> None:
    mine, theirs = (built(SessionStoreSaver(each)) for each in (store, store.in_namespace("team")))
    turn(mine, "mine")
    turn(theirs, "theirs")
    assert texts(mine) == ["mine", "answer 1", "yes to mine"]
    assert texts(theirs) == ["theirs", "answer 1", "yes to theirs"]
    assert all(found.config["configurable"]["thread_id"] == "t" for found in mine.checkpointer.list(None))
    theirs.checkpointer.delete_thread("t")
    assert texts(mine) == ["mine", "answer 1", "yes to mine"]
    assert store.in_namespace("team").get("t") is None


def test_a_deleted_thread_is_gone_with_its_messages_and_may_begin_anew(store: SessionStore) -> None:
    graph = built(SessionStoreSaver(store))
    turn(graph, "one")
    for _ in range(2):
        graph.checkpointer.delete_thread("t")
        assert store.get("t") is None
    turn(graph, "two")
    assert texts(graph) == ["two", "answer 1", "yes to two"]


def test_an_expired_thread_begins_anew(store: SessionStore, frozen: FrozenClock) -> None:
    graph = built(SessionStoreSaver(store, ttl=60))
    turn(graph, "one")
    frozen.go(59)
    assert len(texts(graph)) == 3
    frozen.go(1)
    assert graph.get_state(CONFIG).values == {}
    turn(graph, "two")
    assert texts(graph) == ["two", "answer 1", "yes to two"]


def test_a_renamed_thread_goes_on_under_its_new_name(store: SessionStore) -> None:
    graph = built(SessionStoreSaver(store))
    graph.invoke({"messages": [HumanMessage("hello", id="1")]}, CONFIG)
    store.rename("t", "u")
    config: Any = {"configurable": {"thread_id": "u"}}
    graph.invoke(Command(resume="yes"), config)
    assert texts(graph, config) == ["hello", "answer 1", "yes"]


def test_exports_and_copies_go_on_as_the_original_does(store: SessionStore, tmp_path: Path) -> None:
    graph = built(SessionStoreSaver(store))
    turn(graph, "one")
    graph.invoke({"messages": [HumanMessage("two", id="two!")]}, CONFIG)
    file = io.BytesIO()
    store.export_file(file)
    with sessionstore.open(tmp_path / "imported.db") as imported, sessionstore.open(tmp_path / "copy.db") as copied:
        imported.import_file(io.BytesIO(file.getvalue()))
        assert store.copy_to(copied).equal
        for each in (store, imported, copied):
            other = built(SessionStoreSaver(each))
            other.invoke(Command(resume="yes"), CONFIG)
            assert texts(other) == ["one", "answer 1", "yes to one", "two", "answer 4", "yes"]
            assert each.doctor().ok


def test_an_erased_thread_leaves_no_word_of_its_graph_in_the_file(store: SessionStore, store_path: Path) -> None:
    graph = built(SessionStoreSaver(store))
    turn(graph, "hippopotamus")
    assert store.erase("t").complete
    look = "import sys; from pathlib import Path; print(any(b'hippopot' in f.read_bytes() for f in Path(sys.argv[1]).iterdir()))"
    done = subprocess.run([sys.executable, "-c", look, str(store_path.parent)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_encrypted_values_are_not_readable_in_the_file(store: SessionStore) -> None:
    thread = Thread(SessionStoreSaver(store, serde=EncryptedSerializer(Mirror())))
    thread.put({"messages": [message(1, "hippopotamus")], "plain": "hippopotamus"}, note="hippopotamus")
    thread.saver.put_writes(thread.config, [("x", "hippopotamus")], "task")
    for table, columns in (("checkpoints", "checkpoint, metadata"), ("checkpoint_values", "value"), ("checkpoint_writes", "value")):
        for row in store.query(f"SELECT {columns} FROM {table}").rows:
            assert all(b"hippopotamus" not in each for each in row)
    assert store.messages("t") == [], "unless it is asked for, there is no transcript, which would be readable"
    assert [each.content for each in thread.value()] == ["hippopotamus"]
    asked = Thread(SessionStoreSaver(store, serde=thread.saver.serde, transcript=True), "asked")
    asked.put({"messages": [message(1)]})
    assert [each.text for each in store.messages("asked")] == ["text 1"]
    assert [found.metadata["note"] for found in thread.saver.list(thread.config, filter={"note": "hippopotamus"})] == [
        "hippopotamus"
    ]  # type: ignore[typeddict-item]


def test_lists_are_filtered_cut_and_paged(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    configs = [thread.put({"n": number}, parity=number % 2) for number in range(10)]
    Thread(saver, "other").put({"n": 99})
    every = [found.checkpoint["channel_values"]["n"] for found in saver.list(None)]
    assert every[1:] == [*reversed(range(10))]
    assert [found.metadata["step"] for found in saver.list(CONFIG, filter={"parity": 1}, limit=2)] == [9, 7]
    assert [found.metadata["step"] for found in saver.list(CONFIG, before=configs[3], limit=2)] == [2, 1]
    assert [found.metadata["step"] for found in saver.list(configs[4])] == [4]
    assert list(saver.list(CONFIG, limit=0)) == []
    assert list(saver.list(CONFIG, filter={"x') OR 1=1 --": 1})) == []


def as_read_alone(saver: SessionStoreSaver, found: CheckpointTuple) -> CheckpointTuple | None:
    return SessionStoreSaver(saver.store).get_tuple(found.config)


def test_what_is_listed_in_parts_is_what_is_read_alone(saver: SessionStoreSaver) -> None:
    """More checkpoints than one part has, of threads with lists in many pieces, with namespaces, writes and values that stay."""
    for name in ("t", "u"):
        thread, inner = Thread(saver, name), Thread(saver, name, "inner")
        messages: list[BaseMessage] = []
        for number in range(70):
            messages = [*messages, message(number)]
            config = thread.put({"messages": messages, "first": [0], "n": number}, changed={"messages", "n"} if number else None)
            if number % 20 == 7:
                saver.put_writes(config, [("n", number), ("messages", messages[-1])], f"task {number}")
                inner.put({"n": None})
    listed = list(saver.list(None))
    assert len(listed) == 2 * (70 + 4)
    assert [each.config["configurable"]["checkpoint_id"] for each in listed] == sorted(
        (each.config["configurable"]["checkpoint_id"] for each in listed), reverse=True
    )
    assert listed == [as_read_alone(saver, each) for each in listed]
    assert sum(len(each.pending_writes or ()) for each in listed) == 2 * 4 * 2


def test_what_is_listed_by_awaiting_is_the_same(saver: SessionStoreSaver) -> None:
    thread = Thread(saver)
    for number in range(70):
        thread.put({"messages": [message(each) for each in range(number)]})

    async def listed(**options: Any) -> list[CheckpointTuple]:
        return [each async for each in saver.alist(CONFIG, **options)]

    assert asyncio.run(listed()) == list(saver.list(CONFIG))
    assert [each.metadata["step"] for each in asyncio.run(listed(filter={"source": "loop"}, limit=3))] == [69, 68, 67]


def test_a_listing_goes_on_when_rows_are_moved_and_deleted_under_it(saver: SessionStoreSaver) -> None:
    configs = [Thread(saver, f"t{number}").put({"n": number}) for number in range(40)]
    listing = saver.list(None)
    begun = [next(listing), next(listing)]
    for number in (0, 1, 2, 20, 21):
        saver.delete_thread(f"t{number}")
    # What is left moves up into the rows of what was deleted.
    saver.store.vacuum(full=True)
    Thread(saver, "new").put({"n": 99})
    left = [config for number, config in enumerate(configs) if number not in (0, 1, 2, 20, 21)]
    assert [each.config for each in (*begun, *listing)] == left[::-1]


def test_large_checkpoints_are_listed_one_by_one(saver: SessionStoreSaver) -> None:
    def sizes(value: object) -> list[int]:
        for number in range(20):
            Thread(saver, f"{value!r:.1} {number}").put({"v": value})
        sizes: list[int] = []
        listed = saver.store._list_checkpoints(session_id=None, checkpoint_ns=None, checkpoint_id=None, before=None, most=20)
        places, parts = iter(listed), Parts()
        while part := parts.next_of(places):
            sizes.append(len(part))
            parts.weigh(saver.store._listed_checkpoints(part))
        return sizes

    assert sizes("small") == [1, 2, 4, 8, 5]
    assert sizes([os.urandom(1 << 18)]) == [1] * 20


def test_a_value_that_continues_itself_is_told_as_damage(tmp_path: Path) -> None:
    with SessionStoreSaver(tmp_path / "a.db") as saver:
        Thread(saver).put({"n": 1})
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE checkpoint_values SET base_number = number")
    with SessionStoreSaver(tmp_path / "a.db") as saver:
        with pytest.raises(StoreCorruptError):
            saver.get_tuple(CONFIG)
        with pytest.raises(StoreCorruptError):
            list(saver.list(CONFIG))


LIGHT = """
import sys
from langgraph_program import built
from sessionstore.adapters.langgraph import SessionStoreSaver
with SessionStoreSaver(sys.argv[1]) as saver:
    built(saver).invoke({"messages": [("user", "hello")]}, {"configurable": {"thread_id": "t"}})
    assert len(list(saver.list(None))) > 1
print(*sorted({"sessionstore.aio", "sessionstore.waiting", "sessionstore.models", "sqlmodel"} & set(sys.modules)))
"""


def test_a_graph_that_does_not_await_loads_neither_the_awaited_face_nor_the_models(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, path], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    assert (done.stderr, done.stdout) == ("", "\n")


def test_a_path_is_opened_and_closed_and_a_given_store_stays_open(tmp_path: Path, store: SessionStore) -> None:
    with SessionStoreSaver(tmp_path / "own.db") as own:
        Thread(own).put({"n": 1})
    with pytest.raises(sessionstore.ClosedStoreError):
        own.get_tuple(CONFIG)
    with SessionStoreSaver(store):
        pass
    assert store.count() == 0


@pytest.mark.parametrize(
    "config", [{}, {"configurable": {}}, {"configurable": {"thread_id": ""}}, {"configurable": {"thread_id": "\n"}}]
)
def test_a_config_without_a_usable_thread_is_refused(saver: SessionStoreSaver, config: Any) -> None:
    with pytest.raises(InvalidInputError):
        Thread(saver).saver.put(config, *Thread(saver).prepare({"n": 1})[1:])


def test_wrong_arguments_are_refused_when_it_is_made(store: SessionStore) -> None:
    for wrong in ({"transcript": 1}, {"ttl": -1}, {"colour": "red"}, {"agent_id": ""}):
        with pytest.raises((InvalidInputError, TypeError)):
            SessionStoreSaver(store, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="strategy"):
        SessionStoreSaver(store).prune(["t"], strategy="some")


def test_a_number_may_name_a_thread(saver: SessionStoreSaver) -> None:
    graph = built(saver)
    graph.invoke({"messages": [HumanMessage("hello", id="1")]}, {"configurable": {"thread_id": 7}})
    assert saver.store.get("7") is not None
    saver.delete_thread(7)  # type: ignore[arg-type]
    assert saver.store.get("7") is None


def test_a_clone_with_an_allowlist_shares_the_store(store: SessionStore) -> None:
    saver = SessionStoreSaver(store, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    clone = saver.with_allowlist([("tests", "Thing")])
    assert clone is not saver
    Thread(saver).put({"n": 1})
    found = clone.get_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 1}


WITHOUT = """
import sys
sys.modules["langgraph"] = sys.modules["langchain_core"] = None
import sessionstore
try:
    import sessionstore.adapters.langgraph
except sessionstore.MissingExtraError as error:
    print(error.extra)
"""


def test_without_the_framework_the_error_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "langgraph\n"


# -- many at once, and kills


def test_eight_threads_use_one_checkpointer(saver: SessionStoreSaver) -> None:
    graph = built(saver)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for text in ("one", "two", "three"):
                turn(graph, text, {"configurable": {"thread_id": f"t{number % 4}-{number}"}})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(8):
        assert len(texts(graph, {"configurable": {"thread_id": f"t{number % 4}-{number}"}})) == 9


def test_eight_branches_of_one_thread_grow_at_once(saver: SessionStoreSaver) -> None:
    """All from one checkpoint, so that all look for the same base."""
    root = Thread(saver)
    base = [message(number) for number in range(50)]
    root.put({"messages": base})
    tips: dict[int, Any] = {}

    def work(number: int) -> None:
        thread = Thread(saver)
        thread.config, thread.versions, thread.step = root.config, dict(root.versions), number * 100
        for turns in range(10):
            thread.put({"messages": [*base, *(message(f"{number}-{index}") for index in range(turns + 1))]})
        tips[number] = thread.config

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, tip in tips.items():
        expected = [f"m{n}" for n in range(50)] + [f"m{number}-{index}" for index in range(10)]
        assert [each.id for each in root.value(config=tip)] == expected
    assert saver.store.doctor().ok


PROGRAM = Path(__file__).with_name("langgraph_program.py")


def program(path: Path, thread: str, how: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), str(path), thread, how, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_use_two_threads_of_one_file(tmp_path: Path) -> None:
    running = [program(tmp_path / "a.db", f"t{number}", how, 3) for number, how in enumerate(("sync", "async"))]
    outputs = [each.communicate(timeout=100)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0], outputs
    with SessionStoreSaver(tmp_path / "a.db") as saver:
        graph = built(saver)
        assert [len(texts(graph, {"configurable": {"thread_id": f"t{number}"}})) for number in range(2)] == [9, 9]
        assert saver.store.doctor().ok


def acknowledged(lines: Iterator[str], most: int) -> list[str]:
    return [line.strip() for line, _ in zip(lines, range(most), strict=False)]


@pytest.mark.fault("F1")
@posix_only
def test_a_killed_graph_goes_on_from_the_last_checkpoint_that_it_put(tmp_path: Path, trial: Trial) -> None:
    """Round after round a process is killed at a random moment; the next one goes on, and no finished step is lost or repeated."""
    chance = random.Random(trial.seed)
    kills = trial.size(push=2, nightly=4, release=10)
    path = tmp_path / "a.db"
    for number in range(kills):
        running = program(path, "t", ("sync", "async")[number % 2], 10_000)
        assert running.stdout is not None
        done = acknowledged(running.stdout, chance.randrange(2, 12))
        running.send_signal(signal.SIGKILL)
        done += [line.strip() for line in running.stdout if line.endswith("\n")]
        running.wait()
        running.stdout.close()
        with SessionStoreSaver(path) as saver:
            graph = built(saver)
            found = texts(graph)
            assert len(found) >= int(done[-1].split()[-1])
            require_whole(saver, found)
    with SessionStoreSaver(path) as saver:
        graph = built(saver)
        for _ in range(3):
            graph.invoke(following(graph.get_state(CONFIG), len(texts(graph))), CONFIG, durability="sync")
        assert len(texts(graph)) > len(found)
        require_whole(saver, texts(graph))
    trial.report(f"{kills} kills of a graph: 0 steps lost, 0 repeated")


def require_whole(saver: SessionStoreSaver, found: list[str]) -> None:
    """Every step was done once, and the session's messages are those of the graph."""
    assert [text for text in found if text.startswith("answer")] == [f"answer {3 * n + 1}" for n in range(len(found[1::3]))]
    said = [each.text for each in saver.store.messages("t")]
    assert said == found[: len(said)]
    assert saver.store.doctor().ok
