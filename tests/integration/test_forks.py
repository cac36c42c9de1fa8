"""Forks share the messages of their parent, and nothing that happens on one side ever shows on the other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from clocks import FrozenClock
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from trials import Trial

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NotFoundError, SessionInfo, SessionStore, StoreCorruptError

# `make faults` runs ten times as many.

CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ],
}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "done"}


def known(info: SessionInfo | None) -> SessionInfo:
    assert info is not None
    return info


def texts(store: SessionStore, session_id: str) -> list[str | None]:
    return [message.text for message in store.messages(session_id)]


def filled(store: SessionStore, session_id: str = "parent", count: int = 10) -> sessionstore.SessionHandle:
    chat = store.session(session_id, agent_id="a", user_id="u", tags=["t"], metadata={"k": 1}, title="T", ttl=60)
    chat.append_many([{"role": "user", "content": f"{session_id} {number}"} for number in range(1, count + 1)])
    return chat


def rows_in(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        return int(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_fork_begins_with_the_messages_up_to_its_place_and_goes_on_alone(store: SessionStore) -> None:
    parent = filled(store)
    fork = parent.fork("fork", at=4)
    fork.append("user", "other way")
    parent.append("user", "this way")
    assert texts(store, "fork") == ["parent 1", "parent 2", "parent 3", "parent 4", "other way"]
    assert [message.seq for message in fork.messages()] == [1, 2, 3, 4, 5]
    assert texts(store, "parent") == [*(f"parent {number}" for number in range(1, 11)), "this way"]
    assert fork.messages(last=2)[0].text == "parent 4"
    assert [message.text for message in fork.messages(after=2, before=5)] == ["parent 3", "parent 4"]
    assert [message.session_id for message in fork.iterate(page_size=2)] == ["fork"] * 5


def test_a_fork_has_its_parents_attributes_unless_others_are_given(store: SessionStore) -> None:
    parent = filled(store)
    parent.pin()
    made = parent.fork("fork", title="Other", tags=[]).get()
    assert made is not None
    assert (made.user_id, made.agent_id, made.metadata, made.ttl) == ("u", "a", {"k": 1}, 60)
    assert (made.title, made.tags, made.pinned) == ("Other", (), False)
    assert (made.forked_at, made.message_count, made.last_seq) == (10, 10, 10)


def test_a_fork_without_an_id_gets_one_that_begins_with_its_parents(store: SessionStore) -> None:
    first, second = (filled(store, "x" * 256, 1).fork() for _ in range(2))
    assert first.session_id != second.session_id
    assert len(first.session_id) == 256
    assert filled(store).fork().session_id.startswith("parent-fork-")


def test_a_fork_copies_no_message(store: SessionStore, store_path: Path) -> None:
    parent = filled(store)
    parent.fork("shared")
    store.session("shared").fork("again")
    assert texts(store, "again") == texts(store, "parent")
    assert parent.fork("copied", copy=True).messages()[0].text == "parent 1"
    store.close()
    assert rows_in(store_path, "messages") == 20
    assert rows_in(store_path, "inherited_ranges") == 2


def test_branches_and_parents_know_each_other(store: SessionStore) -> None:
    parent = filled(store)
    first = parent.fork("first", at=2)
    parent.fork("second", copy=True)
    first.fork("third")
    assert [info.session_id for info in parent.branches()] == ["first", "second"]
    assert [info.session_id for info in first.branches()] == ["third"]
    assert known(first.parent()).session_id == "parent"
    assert parent.parent() is None
    store.rename("parent", "renamed")
    assert known(first.parent()).session_id == "renamed"
    store.delete("renamed")
    assert first.parent() is None
    with pytest.raises(NotFoundError):
        store.branches("renamed")


def test_a_fork_of_a_session_in_another_namespace_is_not_there(store: SessionStore) -> None:
    filled(store)
    with pytest.raises(NotFoundError):
        store.in_namespace("other").fork("parent", "fork")
    assert store.count() == 1


@pytest.mark.parametrize("at", [-1, 11, True, 1.0, "1", 2**70])
def test_a_place_that_is_not_in_the_session_is_refused(store: SessionStore, at: Any) -> None:
    filled(store)
    with pytest.raises(InvalidInputError, match=r"^at: "):
        store.fork("parent", "fork", at=at)
    assert store.count() == 1


def test_an_id_that_is_taken_is_refused_and_nothing_is_left_behind(store: SessionStore, store_path: Path) -> None:
    filled(store)
    with pytest.raises(ConflictError):
        store.fork("parent", "parent")
    store.close()
    assert rows_in(store_path, "inherited_ranges") == 0


@pytest.mark.parametrize(("at", "snapped"), [(1, 1), (2, 1), (3, 1), (4, 4), (5, 5)])
def test_a_cut_snaps_to_the_boundary_of_a_tool_turn(store: SessionStore, at: int, snapped: int) -> None:
    chat = store.session("s")
    chat.append_many([{"role": "user", "content": "q"}, CALL, result("c1"), result("c2"), {"role": "user", "content": "next"}])
    assert len(chat.fork("snapped", at=at).messages()) == snapped
    assert len(chat.fork("kept", at=at, cut_pairs="keep").messages()) == at
    if at == snapped:
        chat.fork("allowed", at=at, cut_pairs="refuse")
    else:
        with pytest.raises(ConflictError, match=f"fork at {snapped}"):
            chat.fork("refused", at=at, cut_pairs="refuse")


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_cut_sees_results_that_do_not_follow_their_call_at_once(store: SessionStore, at: int) -> None:
    chat = store.session("s")
    chat.append_many([{"role": "user", "content": "q"}, CALL, result("c1"), {"role": "user", "content": "well?"}, result("c2")])
    assert known(chat.fork("snapped", at=at).get()).forked_at == 1


@pytest.mark.parametrize("at", [2, 150, 350, 501])
def test_a_cut_sees_the_whole_of_a_very_large_tool_turn(store: SessionStore, at: int) -> None:
    calls = [{"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for number in range(500)]
    chat = store.session("s")
    chat.append_many([{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": calls}])
    chat.append_many([result(f"c{number}") for number in range(500)])
    assert known(chat.fork("snapped", at=at).get()).forked_at == 1


def test_a_cut_may_leave_calls_that_nobody_answered(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append_many([{"role": "user", "content": "q"}, CALL, {"role": "user", "content": "never mind"}])
    assert len(chat.fork("fork", at=2).messages()) == 2
    with pytest.raises(InvalidInputError, match="cut_pairs"):
        chat.fork("other", cut_pairs="cut")  # type: ignore[arg-type]


def test_tool_calls_of_a_fork_are_checked_across_the_cut(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append_many([{"role": "user", "content": "q"}, CALL])
    fork = chat.fork("fork")
    fork.append(result("c1"))
    assert [call.call_id for call in fork.open_tool_calls()] == ["c2"]
    assert [call.call_id for call in chat.open_tool_calls()] == ["c1", "c2"]
    assert len(fork.repair()) == 1
    assert fork.check().ok


def test_a_dedupe_key_of_the_shared_part_is_known_to_the_fork(store: SessionStore) -> None:
    chat = store.session("s")
    first = chat.append("user", "once", dedupe_key="k")
    chat.append("user", "later", dedupe_key="behind")
    fork = chat.fork("fork", at=1)
    assert fork.append("user", "once", dedupe_key="k").seq == first.seq
    assert fork.append("user", "mine", dedupe_key="behind").seq == 2
    with pytest.raises(ConflictError):
        fork.append("user", "other", dedupe_key="k")


def test_a_deleted_parent_keeps_its_forks_whole_and_leaves_with_the_last_one(store: SessionStore, store_path: Path) -> None:
    parent = filled(store)
    first = parent.fork("first", at=6)
    second = first.fork("second", at=3)
    assert store.delete("parent").messages == 10
    assert texts(store, "first") == [f"parent {number}" for number in range(1, 7)]
    store.delete("first")
    assert [message.text for message in second.messages()] == ["parent 1", "parent 2", "parent 3"]
    assert store.doctor().ok
    assert not store.list(text="parent 5").items
    assert store.list(text="parent 3").items[0].session_id == "second"
    store.delete("second")
    assert store.doctor().ok
    store.close()
    assert [rows_in(store_path, table) for table in ("messages", "sessions", "inherited_ranges")] == [0, 0, 0]


@pytest.mark.parametrize("on_expire", ["keep", "delete"])
def test_an_expired_parent_keeps_its_forks_whole(store_path: Path, frozen: FrozenClock, on_expire: Any) -> None:
    with sessionstore.open(store_path, on_expire=on_expire) as store:
        filled(store).fork("fork", ttl=None)
        frozen.go(61)
        store.sweep()
        assert store.get("parent") is None
        assert len(texts(store, "fork")) == 10
        assert store.parent("fork") is None
        assert store.doctor().ok


def test_analytics_count_a_shared_message_once(store: SessionStore) -> None:
    chat = store.session("s", agent_id="a")
    chat.append("assistant", "x", input_tokens=5, output_tokens=7)
    chat.fork("fork")
    assert store.tokens()["overall"]["input_tokens"] == 5
    transcript = store.query("SELECT session_id, seq, text FROM v_transcripts ORDER BY session_id")
    assert transcript.rows == (("fork", 1, "x"), ("s", 1, "x"))
    assert len(store.query("SELECT * FROM v_messages").rows) == 1


@pytest.fixture(params=["plain", "checksum", "packed", "unpackable"])
def damaged(request: pytest.FixtureRequest, store_path: Path) -> Iterator[SessionStore]:
    """A session of three messages, the second of which is damaged, and its fork."""
    with sessionstore.open(store_path, compress_over=None if request.param in ("plain", "checksum") else 20) as store:
        chat = filled(store, count=1)
        chat.append_many([{"role": "user", "content": word * 100} for word in ("second ", "third ")])
        chat.fork("fork")
    with closing(sqlite3.connect(store_path)) as raw, raw:
        if request.param == "plain":
            raw.execute("UPDATE messages SET text = 'damaged' WHERE seq = 2")
        elif request.param == "checksum":
            raw.execute("UPDATE messages SET crc = 'damaged' WHERE seq = 2")
        elif request.param == "packed":
            raw.execute("UPDATE messages SET packed = (SELECT packed FROM messages WHERE seq = 3) WHERE seq = 2")
        else:
            raw.execute("UPDATE messages SET packed = x'00' WHERE seq = 2")
    with sessionstore.open(store_path) as store:
        yield store


def test_a_damaged_message_is_not_copied(damaged: SessionStore) -> None:
    """The copy would get a checksum that vouches for the damage."""
    with pytest.raises(StoreCorruptError, match="message 2 of session 'parent' is damaged"):
        damaged.fork("parent", "copy", copy=True)
    assert damaged.get("copy") is None
    assert len(damaged.fork("parent", "before", at=1, copy=True).messages()) == 1


def test_a_damaged_message_that_a_fork_shares_can_be_removed_and_stays_damaged(damaged: SessionStore) -> None:
    assert damaged.truncate("parent", after=1) == 2
    assert [message.seq for message in damaged.messages("parent")] == [1]
    assert [message.text for message in damaged.messages("fork", after=2)] == ["third " * 100]
    with pytest.raises(StoreCorruptError, match="message 2 of session 'fork' is damaged"):
        damaged.messages("fork")
    (checksums,) = [check for check in damaged.doctor().checks if check.name == "checksums"]
    assert not checksums.ok


def test_a_fork_without_messages_of_its_own_comes_back_from_a_lossless_file(store: SessionStore, tmp_path: Path) -> None:
    chat = filled(store, count=3)
    for at in (None, 2, 0):
        chat.fork(f"fork at {at}", at=at)
    store.export_file(tmp_path / "all.jsonl")
    with sessionstore.open(in_memory=True) as other:
        assert other.import_file(tmp_path / "all.jsonl").sessions == 4
        for info in store.list().items:
            assert texts(other, info.session_id) == texts(store, info.session_id)


def test_a_fork_of_very_many_forks_is_read_whole(store: SessionStore) -> None:
    chat = store.session("0")
    chat.append("user", "0")
    for number in range(1, 150):
        chat = chat.fork(str(number))
        chat.append("user", str(number))
    assert texts(store, "149") == [str(number) for number in range(150)]
    assert [message.text for message in chat.messages(last=100)] == [str(number) for number in range(50, 150)]
    store.delete([str(number) for number in range(149)])
    assert texts(store, "149") == [str(number) for number in range(150)]
    assert store.doctor().ok


class Family(RuleBasedStateMachine):
    """Random appends, edits, forks and deletes on a family of sessions, each compared with a plain list."""

    names = Bundle("names")
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.path = self.folder / f"{id(self)}.db"
        self.store = sessionstore.open(self.path, durability="normal")
        self.model: dict[str, dict[int, str]] = {}
        self.last: dict[str, int] = {}

    @initialize(target=names)
    def begin(self) -> str:
        self.store.create("0")
        self.model["0"], self.last["0"] = {}, 0
        return "0"

    @rule(name=names, count=st.integers(1, 4))
    def append(self, name: str, count: int) -> None:
        if name in self.model:
            for _ in range(count):
                self.count += 1
                message = self.store.append(name, "user", f"text {self.count}")
                self.last[name] += 1
                assert message.seq == self.last[name]
                self.model[name][message.seq] = f"text {self.count}"

    @rule(target=names, name=names, at=st.integers(0, 30), copy=st.booleans())
    def fork(self, name: str, at: int, copy: bool) -> str:
        self.count += 1
        new = f"fork {self.count}"
        if name in self.model:
            at = min(at, self.last[name])
            self.store.fork(name, new, at=at, copy=copy)
            self.model[new] = {seq: text for seq, text in self.model[name].items() if seq <= at}
            self.last[new] = at
        return new

    @rule(name=names)
    def pop(self, name: str) -> None:
        if name in self.model:
            popped = self.store.pop(name)
            newest = max(self.model[name], default=None)
            assert (popped and popped.seq) == newest
            if newest is not None:
                del self.model[name][newest]

    @rule(name=names, after=st.integers(0, 30))
    def truncate(self, name: str, after: int) -> None:
        if name in self.model:
            kept = {seq: text for seq, text in self.model[name].items() if seq <= after}
            assert self.store.truncate(name, after=after) == len(self.model[name]) - len(kept)
            self.model[name] = kept

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name in self.model and len(self.model) > 1:
            assert self.store.delete(name).messages == len(self.model.pop(name))

    @rule(name=names, after=st.integers(0, 30), last=st.integers(0, 10))
    def read_a_part(self, name: str, after: int, last: int) -> None:
        if name in self.model:
            expected = sorted(item for item in self.model[name].items() if item[0] > after)
            newest = self.store.messages(name, after=after, last=last)
            assert [(message.seq, message.text) for message in newest] == expected[len(expected) - min(last, len(expected)) :]

    @invariant()
    def every_session_is_what_the_model_says(self) -> None:
        for name, expected in self.model.items():
            found = {message.seq: message.text for message in self.store.messages(name)}
            assert found == expected, name
            assert known(self.store.get(name)).message_count == len(expected)

    def teardown(self) -> None:
        assert self.store.doctor().ok
        for name in list(self.model):
            self.store.delete(name)
        assert self.store.doctor().ok
        self.store.close()
        assert rows_in(self.path, "messages") == rows_in(self.path, "inherited_ranges") == 0


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    Family.folder = tmp_path


@pytest.mark.fault("F38")
def test_a_family_of_forks_is_as_its_model(trial: Trial) -> None:
    examples, steps = trial.size(push=12, nightly=50, release=120), 30
    machine = settings(max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True)
    run_state_machine_as_test(hypothesis.seed(trial.seed)(Family), settings=machine)
    trial.report(f"families of forks: {examples} x {steps} steps, equal to the model after each")
