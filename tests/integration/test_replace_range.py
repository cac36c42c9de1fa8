"""Replacing messages: atomic, in the same seqs, the old ones kept for the record, and forks see nothing of it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from trials import Trial

import sessionstore
from sessionstore import ConflictError, InvalidInputError, NewMessage, NotFoundError, SessionExpiredError, StoreCorruptError, clock

# `make faults` runs ten times as many.

Store = sessionstore.SessionStore
Texts = list[tuple[int, str | None]]


def said(*texts: str) -> list[dict[str, Any]]:
    """User messages of some texts."""
    return [{"role": "user", "content": text} for text in texts]


def texts(store: Store, session_id: str) -> Texts:
    """What a session holds, by seq."""
    return [(message.seq, message.text) for message in store.messages(session_id)]


def old(store: Store, session_id: str, seq: int | None = None) -> Texts:
    """What was replaced in a session, by seq."""
    return [(each.seq, each.message.text) for each in store.superseded(session_id, seq)]


@pytest.fixture
def chat(store: Store) -> sessionstore.SessionHandle:
    """A session of six messages."""
    chat = store.session("s")
    chat.append_many(said("1", "2", "3", "4", "5", "6"))
    return chat


def test_a_summary_takes_the_place_of_what_it_sums_up(store: Store, chat: sessionstore.SessionHandle) -> None:
    before = chat.get()
    (summary,) = chat.replace_range(1, 4, [NewMessage({"role": "system", "content": "in short"}, model="m", output_tokens=3)])
    assert (summary.seq, summary.text, summary.model, summary.output_tokens) == (1, "in short", "m", 3)
    assert texts(store, "s") == [(1, "in short"), (5, "5"), (6, "6")]
    assert chat.messages()[0] == summary
    info = chat.get()
    assert before is not None
    assert info is not None
    assert (info.message_count, info.last_seq, info.version) == (3, 6, before.version + 1)
    assert info.updated_at > before.updated_at
    assert chat.append("user", "7").seq == 7
    assert old(store, "s") == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]
    assert store.doctor().ok


def test_as_many_can_take_the_place_or_none(store: Store, chat: sessionstore.SessionHandle) -> None:
    assert [message.seq for message in chat.replace_range(2, 3, said("b", "c"))] == [2, 3]
    assert chat.replace_range(5, 5, []) == []
    assert texts(store, "s") == [(1, "1"), (2, "b"), (3, "c"), (4, "4"), (6, "6")]
    chat.replace_range(6, 2**24 - 1, said("f"))
    assert chat.append("user", "g").seq == 7
    assert old(store, "s") == [(2, "2"), (3, "3"), (5, "5"), (6, "6")]


def test_more_than_there_were_are_refused(store: Store, chat: sessionstore.SessionHandle) -> None:
    before = chat.get()
    with pytest.raises(InvalidInputError) as caught:
        chat.replace_range(2, 3, said("a", "b", "c"))
    assert (caught.value.field, caught.value.limit) == ("messages", 2)
    chat.replace_range(4, 4, [])
    with pytest.raises(InvalidInputError):
        chat.replace_range(4, 4, said("never again"))
    with pytest.raises(InvalidInputError):
        chat.replace_range(7, 9, said("behind the end"))
    assert texts(store, "s") == [(1, "1"), (2, "2"), (3, "3"), (5, "5"), (6, "6")]
    info = chat.get()
    assert before is not None
    assert info is not None
    assert info.version == before.version + 1


def test_seqs_that_were_given_up_are_not_given_again(store: Store, chat: sessionstore.SessionHandle) -> None:
    chat.replace_range(2, 4, said("b"))
    chat.replace_range(1, 5, said("w", "x", "y"))
    assert texts(store, "s") == [(1, "w"), (2, "x"), (5, "y"), (6, "6")]
    assert old(store, "s") == [(1, "1"), (2, "2"), (2, "b"), (3, "3"), (4, "4"), (5, "5")]


def test_where_nothing_is_nothing_changes(store: Store, chat: sessionstore.SessionHandle) -> None:
    before = chat.get()
    assert chat.replace_range(7, 20, []) == []
    assert chat.get() == before
    assert old(store, "s") == []


def test_wrong_arguments_are_refused(store: Store, chat: sessionstore.SessionHandle) -> None:
    for first, last in ((0, 1), (2, 1), (1, 2**24), (True, 2), ("1", 2), (1, 2.0), (1, None)):
        with pytest.raises(InvalidInputError):
            chat.replace_range(first, last, [])  # type: ignore[arg-type]
    for messages in ("x", {"role": "user", "content": "x"}, [{"role": "nobody", "content": "x"}], None):
        with pytest.raises(InvalidInputError):
            chat.replace_range(1, 2, messages)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        store.replace_range("absent", 1, 1, [])
    assert len(texts(store, "s")) == 6


def test_a_version_that_is_outdated_changes_nothing(store: Store, chat: sessionstore.SessionHandle) -> None:
    info = chat.get()
    assert info is not None
    chat.append("user", "7")
    chat.replace_range(1, 2, said("first"), expected_version=info.version)
    with pytest.raises(ConflictError, match="version"):
        chat.replace_range(3, 4, said("second"), expected_version=info.version)
    assert texts(store, "s") == [(1, "first"), (3, "3"), (4, "4"), (5, "5"), (6, "6"), (7, "7")]
    assert old(store, "s") == [(1, "1"), (2, "2")]


def test_dedupe_keys_stay_unique_and_go_with_their_message(store: Store, chat: sessionstore.SessionHandle) -> None:
    chat.append("user", "7", dedupe_key="k")
    for new in ([NewMessage(said("x")[0], dedupe_key="k")], [NewMessage(said("x")[0], dedupe_key="twice")] * 2):
        with pytest.raises(ConflictError, match="dedupe_key"):
            chat.replace_range(1, 2, new)
    assert len(texts(store, "s")) == 7
    assert old(store, "s") == []
    (again,) = chat.replace_range(7, 7, [NewMessage(said("x")[0], dedupe_key="k")])
    assert chat.append("user", "x", dedupe_key="k") == again
    assert old(store, "s", 7) == [(7, "7")]


def test_a_dedupe_key_that_a_fork_shares_is_in_use(store: Store, chat: sessionstore.SessionHandle) -> None:
    chat.append("user", "7", dedupe_key="k")
    fork = chat.fork("fork")
    new = NewMessage(said("x")[0], dedupe_key="k")
    with pytest.raises(ConflictError, match="dedupe_key"):
        fork.replace_range(1, 2, [new])
    (again,) = fork.replace_range(7, 7, [new])
    assert fork.append("user", "x", dedupe_key="k") == again
    assert texts(store, "s")[-1] == (7, "7")


def test_what_was_replaced_is_all_there(store: Store, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = store.session("s")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    known: dict[str, Any] = {"model": "m", "input_tokens": 5, "response_time_ms": 1.5, "metadata": {"a": [1]}, "dedupe_key": "d"}
    first = chat.append({"role": "assistant", "content": None, "tool_calls": [call]}, **known)
    moments = [datetime(2030, 1, day, tzinfo=UTC) for day in (1, 2)]
    news = []
    for moment in moments:
        monkeypatch.setattr(clock, "utc_now", lambda moment=moment: moment)
        news += chat.replace_range(1, 1, said(str(moment.day)))
    replaced = chat.superseded(1)
    assert [each.message for each in replaced] == [first, news[0]]
    assert [each.superseded_at for each in replaced] == moments
    assert [each.message.created_at for each in replaced] == [first.created_at, moments[0]]
    assert chat.superseded(2) == []
    store.close()
    with sessionstore.open(store_path) as again:
        assert again.superseded("s") == replaced
        assert again.doctor().ok


def test_a_result_that_loses_its_call_is_reported(store: Store) -> None:
    chat = store.session("s")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat.append_many(
        [
            *said("1"),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "3"},
        ]
    )
    chat.replace_range(1, 2, said("in short"))
    assert [(result.seq, result.call_id) for result in chat.check().unmatched_results] == [(3, "c")]
    chat.replace_range(3, 3, [])
    assert chat.check().ok


def test_an_answer_is_timed_from_the_question_that_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    seconds = iter(range(100))
    monkeypatch.setattr(clock, "utc_now", lambda: start + timedelta(seconds=next(seconds)))
    chat = store.session("s")
    first = chat.append("user", "first")
    chat.append("user", "second")
    (summary,) = chat.replace_range(2, 2, [{"role": "assistant", "content": "not timed"}])
    assert summary.elapsed_ms is None
    answer = chat.append("assistant", "timed")
    assert answer.elapsed_ms == (answer.created_at - first.created_at) / timedelta(milliseconds=1)


def test_a_damaged_message_is_not_replaced(store_path: Path) -> None:
    """Its copy would get a checksum that vouches for the damage."""
    with sessionstore.open(store_path) as store:
        store.session("s").append_many(said("1", "2", "3"))
    with closing(sqlite3.connect(store_path)) as file, file:
        file.execute("UPDATE messages SET text = 'x' WHERE seq = 2")
    with sessionstore.open(store_path) as store:
        with pytest.raises(StoreCorruptError):
            store.replace_range("s", 1, 3, said("in short"))
        assert store.superseded("s") == []
        assert [message.text for message in store.messages("s", before=2)] == ["1"]
        store.replace_range("s", 3, 3, [])
    with closing(sqlite3.connect(store_path)) as file, file:
        file.execute("UPDATE superseded_messages SET text = 'x'")
    with sessionstore.open(store_path) as store:
        with pytest.raises(StoreCorruptError):
            store.superseded("s")
        (found,) = [check for check in store.doctor().checks if check.name == "checksums"]
        assert found.detail == "2 damaged: message 2 of 's', superseded message 3 of 's'"


def test_what_was_replaced_goes_with_the_session_or_when_it_is_told_to(store: Store, chat: sessionstore.SessionHandle) -> None:
    other = store.session("other")
    other.append_many(said("1"))
    for session in (chat, other):
        session.replace_range(1, 1, said("x"))
    assert (chat.clear_superseded(), chat.clear_superseded()) == (1, 0)
    assert (old(store, "s"), old(store, "other")) == ([], [(1, "1")])
    assert len(chat.messages()) == 6
    other.rename("renamed")
    assert old(store, "renamed") == [(1, "1")]
    store.delete("renamed")
    assert store.query("SELECT count(*) FROM superseded_messages").rows == ((0,),)


def test_an_expired_session_takes_no_replacement(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = store.session("s", ttl=60)
    chat.append_many(said("1", "2"))
    chat.replace_range(1, 1, [])
    later = clock.utc_now() + timedelta(seconds=61)
    monkeypatch.setattr(clock, "utc_now", lambda: later)
    with pytest.raises(SessionExpiredError):
        chat.replace_range(2, 2, [])
    with pytest.raises(SessionExpiredError):
        chat.clear_superseded()
    with pytest.raises(NotFoundError):
        chat.superseded()


def test_a_fork_and_its_parent_do_not_see_what_the_other_replaces(store: Store, chat: sessionstore.SessionHandle) -> None:
    fork = chat.fork("f", at=5)
    fork.append("user", "own")
    chat.replace_range(2, 3, said("parent's"))
    assert texts(store, "f") == [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5"), (6, "own")]
    fork.replace_range(3, 6, said("fork's", "and more"))
    assert texts(store, "f") == [(1, "1"), (2, "2"), (3, "fork's"), (4, "and more")]
    assert texts(store, "s") == [(1, "1"), (2, "parent's"), (4, "4"), (5, "5"), (6, "6")]
    assert old(store, "s") == [(2, "2"), (3, "3")]
    assert old(store, "f") == [(3, "3"), (4, "4"), (5, "5"), (6, "own")]
    assert store.doctor().ok
    chat.delete()
    assert texts(store, "f") == [(1, "1"), (2, "2"), (3, "fork's"), (4, "and more")]
    assert old(store, "f") == [(3, "3"), (4, "4"), (5, "5"), (6, "own")]
    assert store.doctor().ok


def test_long_ranges_are_replaced_in_one_transaction(store: Store) -> None:
    chat = store.session("long")
    chat.append_many(said(*map(str, range(1, 1802))))
    before = store.status().commits
    chat.replace_range(2, 1800, said("in short"))
    assert store.status().commits == before + 1
    assert texts(store, "long") == [(1, "1"), (2, "in short"), (1801, "1801")]
    assert old(store, "long") == [(seq, str(seq)) for seq in range(2, 1801)]


def test_the_remote_is_not_told(store: Store) -> None:
    store.set_remote(sessionstore.Remote("http://127.0.0.1:9", sync_messages=True))
    chat = store.session("s", agent_id="a")
    chat.append_many(said("1", "2"))
    before = store.outbox.stats().pending
    chat.replace_range(1, 2, [NewMessage(said("in short")[0], input_tokens=3)])
    assert store.outbox.stats().pending == before


@pytest.mark.parametrize("mode", ["on", "deferred"])
def test_a_search_finds_what_replaced_and_not_what_was_replaced(store: Store, mode: Any) -> None:
    store.set_search(mode)
    chat = store.session("s")
    chat.append_many(said("apple", "banana", "cherry", "date"))
    fork = chat.fork("f", at=3)
    assert [hit.seq for hit in store.search("banana")] == [2]
    chat.replace_range(1, 2, said("elder"))
    fork.replace_range(2, 3, said("fig", "grape"))
    found = {
        word: [(hit.session_id, hit.seq) for hit in store.search(word)] for word in ("apple", "banana", "elder", "fig", "grape")
    }
    assert found == {"apple": [("f", 1)], "banana": [], "elder": [("s", 1)], "fig": [("f", 2)], "grape": [("f", 3)]}
    assert [(hit.session_id, hit.seq) for hit in store.search("cherry")] == [("s", 3)]
    assert store.doctor().ok


def test_large_parts_of_what_was_replaced_stay_as_long_as_it_does(store: Store) -> None:
    chat = store.session("s")
    large = ["x" * 100_000, "y" * 100_000]
    chat.append_many(said(*large))
    (new,) = chat.replace_range(1, 2, said("z" * 100_000))
    store.sweep()
    assert new.text == "z" * 100_000
    assert chat.messages() == [new]
    assert [each.message.text for each in chat.superseded()] == large
    assert store.query("SELECT count(*) FROM blobs").rows == ((3,),)
    assert store.doctor().ok
    chat.clear_superseded()
    store.sweep()
    assert store.query("SELECT count(*) FROM blobs").rows == ((1,),)
    assert chat.messages() == [new]
    assert store.doctor().ok


def test_packed_messages_are_replaced_and_kept_whole(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "packed.db", compress_over=100) as store:
        chat = store.session("s")
        chat.append_many(said("a" * 5_000, "b" * 5_000))
        (new,) = chat.replace_range(1, 2, said("c" * 5_000))
        assert chat.messages() == [new]
        assert [each.message.text for each in chat.superseded()] == ["a" * 5_000, "b" * 5_000]
        packed = store.query(
            "SELECT count(packed), count(*) FROM (SELECT packed FROM messages UNION ALL SELECT packed FROM superseded_messages)"
        )
        assert packed.rows == ((3, 3),)
        assert store.doctor().ok


@pytest.mark.anyio
async def test_the_asynchronous_face_replaces_too(store_path: Path) -> None:
    async with sessionstore.aopen(store_path) as store:
        chat = await store.session("s")
        await chat.append_many(said("1", "2", "3"))
        assert [message.seq for message in await chat.replace_range(1, 2, said("x"), expected_version=1)] == [1]
        assert [each.seq for each in await chat.superseded()] == [1, 2]
        assert await chat.clear_superseded() == 2
        assert [message.text for message in await chat.messages()] == ["x", "3"]


class ModelSession:
    """A session as a plain object: what it holds, and what was replaced, by seq and then in that order."""

    def __init__(self, rows: dict[int, str] | None = None, next_seq: int = 1) -> None:
        self.rows = rows or {}
        self.next_seq = next_seq
        self.old: dict[int, list[str]] = {}

    def replaced(self) -> Texts:
        return [(seq, text) for seq in sorted(self.old) for text in self.old[seq]]

    def in_range(self, first: int, last: int) -> list[int]:
        return [seq for seq in sorted(self.rows) if first <= seq <= last]


class ForkModel(RuleBasedStateMachine):
    """Sessions, forks and forks of forks; whatever is done to one shows on no other."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sessionstore-replace-"))
        self.model: dict[str, ModelSession] = {}
        self.made = 0

    @initialize()
    def open(self) -> None:
        self.store = sessionstore.open(self.folder / "agent.db", durability="normal")
        self.begin(6)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            diagnosis = self.store.doctor()
            self.store.close()
            assert diagnosis.ok, diagnosis
        shutil.rmtree(self.folder)

    def new_text(self) -> str:
        self.made += 1
        return f"text {self.made}"

    def begin(self, count: int) -> None:
        name = f"s{self.made}"
        self.store.create(name)
        self.model[name] = ModelSession()
        self.extend(name, count)

    def extend(self, name: str, count: int) -> None:
        session = self.model[name]
        news = [self.new_text() for _ in range(count)]
        self.store.append_many(name, said(*news))
        for text in news:
            session.rows[session.next_seq] = text
            session.next_seq += 1

    @precondition(lambda self: len(self.model) < 8)
    @rule(count=st.integers(1, 8))
    def create(self, count: int) -> None:
        self.begin(count)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), count=st.integers(1, 4))
    def append(self, data: st.DataObject, count: int) -> None:
        self.extend(data.draw(st.sampled_from(sorted(self.model))), count)

    @precondition(lambda self: 0 < len(self.model) < 8)
    @rule(data=st.data(), at=st.integers(0, 14), copy=st.booleans())
    def fork(self, data: st.DataObject, at: int, copy: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        parent = self.model[name]
        at = min(at, parent.next_seq - 1)
        child = f"f{self.made}-{len(self.model)}-{at}"
        if child in self.model:
            return
        self.store.fork(name, child, at=at, copy=copy, cut_pairs="keep")
        self.model[child] = ModelSession({seq: text for seq, text in parent.rows.items() if seq <= at}, at + 1)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), first=st.integers(1, 14), length=st.integers(1, 8), count=st.integers(0, 5))
    def replace(self, data: st.DataObject, first: int, length: int, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        session = self.model[name]
        last = first + length - 1
        taken = session.in_range(first, last)
        news = [self.new_text() for _ in range(count)]
        if count > len(taken):
            with pytest.raises(InvalidInputError):
                self.store.replace_range(name, first, last, said(*news))
            return
        assert [message.seq for message in self.store.replace_range(name, first, last, said(*news))] == taken[:count]
        for seq in taken:
            session.old.setdefault(seq, []).append(session.rows.pop(seq))
        session.rows.update(zip(taken, news, strict=False))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), after=st.integers(0, 14))
    def truncate(self, data: st.DataObject, after: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        session = self.model[name]
        gone = session.in_range(after + 1, session.next_seq)
        assert self.store.truncate(name, after=after) == len(gone)
        for seq in gone:
            del session.rows[seq]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.store.delete(name)
        del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def clear_superseded(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        assert self.store.clear_superseded(name) == len(self.model[name].replaced())
        self.model[name].old.clear()

    @invariant()
    def every_session_is_as_in_the_model(self) -> None:
        for name, session in self.model.items():
            assert texts(self.store, name) == sorted(session.rows.items())
            assert old(self.store, name) == session.replaced()
            info = self.store.get(name)
            assert info is not None
            assert (info.message_count, info.last_seq) == (len(session.rows), session.next_seq - 1)
        if hasattr(self, "store"):
            kept = sum(len(session.replaced()) for session in self.model.values())
            assert self.store.query("SELECT count(*) FROM superseded_messages").rows == ((kept,),)


@pytest.mark.fault("F38")
def test_forks_and_edits_are_as_their_model(trial: Trial) -> None:
    examples, steps = trial.size(push=12, nightly=50, release=120), 20
    machine = settings(max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True)
    run_state_machine_as_test(hypothesis.seed(trial.seed)(ForkModel), settings=machine)
    trial.report(f"forks and edits: {examples} x {steps} steps, equal to the model after each")
