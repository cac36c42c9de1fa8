"""Whatever calls come in whatever order, a store equals a plain dict."""

from __future__ import annotations

import shutil
import tempfile
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
from sessionstore import ConflictError, NotFoundError, clock

names = st.sampled_from(["a", "b", "c", "d"])
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
windows = st.none() | st.integers(0, 12)
messages = st.one_of(
    st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant", "system"]), words),
    st.builds(lambda text: {"role": "assistant", "content": None, "x": text}, words),
    st.builds(lambda text: {"type": "note", "text": text}, words),
)


class ModelSession:
    """A session as a plain object."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.next_seq = 1
        self.version = 1
        self.title: str | None = None
        self.tags: tuple[str, ...] = ()

    def append(self, message: dict[str, Any]) -> int:
        self.rows.append((self.next_seq, message))
        self.next_seq += 1
        return self.next_seq - 1

    def truncate(self, after: int) -> int:
        kept = [row for row in self.rows if row[0] <= after]
        removed = len(self.rows) - len(kept)
        self.rows = kept
        self.version += bool(removed)
        return removed


class StoreModel(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model and compares the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sessionstore-model-"))
        self.model: dict[str, ModelSession] = {}
        self.order: list[str] = []

        # A clock of its own: two steps in one microsecond would have no order.
        self.clock = pytest.MonkeyPatch()
        self.now = datetime(2024, 2, 29, tzinfo=UTC)
        self.clock.setattr(clock, "utc_now", self.tick)

    def tick(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    @initialize()
    def open(self) -> None:
        self.store = sessionstore.open(self.folder / "agent.db", durability="normal")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.clock.undo()
        shutil.rmtree(self.folder)

    def touched(self, name: str) -> None:
        if name in self.order:
            self.order.remove(name)
        self.order.insert(0, name)

    # -- rules

    @rule(name=names)
    def create(self, name: str) -> None:
        if name in self.model:
            with pytest.raises(ConflictError):
                self.store.create(name)
        else:
            assert self.store.create(name).version == 1
            self.model[name] = ModelSession()
            self.touched(name)

    @rule(name=names)
    def get_or_create(self, name: str) -> None:
        self.store.session(name)
        if name not in self.model:
            self.model[name] = ModelSession()
            self.touched(name)

    @rule(name=names, message=messages)
    def append(self, name: str, message: dict[str, Any]) -> None:
        if name not in self.model:
            with pytest.raises(NotFoundError):
                self.store.append(name, message)
        else:
            assert self.store.append(name, message).seq == self.model[name].append(message)
            self.touched(name)

    @rule(name=names, batch=st.lists(messages, max_size=6))
    def append_many(self, name: str, batch: list[dict[str, Any]]) -> None:
        if name not in self.model:
            with pytest.raises(NotFoundError):
                self.store.append_many(name, batch)
        else:
            expected = [self.model[name].append(message) for message in batch]
            assert [message.seq for message in self.store.append_many(name, batch)] == expected
            if batch:
                self.touched(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        rows = self.model[name].rows
        popped = self.store.pop(name)
        if rows:
            assert popped is not None
            assert (popped.seq, popped.to_dict()) == rows[-1]
            self.model[name].truncate(rows[-1][0] - 1)
            self.touched(name)
        else:
            assert popped is None

    @precondition(lambda self: self.model)
    @rule(data=st.data(), after=st.integers(0, 15))
    def truncate(self, data: st.DataObject, after: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        removed = self.store.truncate(name, after=after)
        assert removed == self.model[name].truncate(after)
        if removed:
            self.touched(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        removed = self.store.clear(name)
        assert removed == self.model[name].truncate(0)
        if removed:
            self.touched(name)

    @rule(chosen=st.lists(names, max_size=3), dry_run=st.booleans())
    def delete(self, chosen: list[str], dry_run: bool) -> None:
        receipt = self.store.delete(chosen, dry_run=dry_run)
        there = {name for name in chosen if name in self.model}
        assert set(receipt.session_ids) == there
        assert set(receipt.missing) == set(chosen) - there
        assert receipt.messages == sum(len(self.model[name].rows) for name in there)
        if not dry_run:
            for name in there:
                del self.model[name]
                self.order.remove(name)

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if old not in self.model:
            with pytest.raises(NotFoundError if new == old or new not in self.model else (NotFoundError, ConflictError)):
                self.store.rename(old, new)
        elif new != old and new in self.model:
            with pytest.raises(ConflictError):
                self.store.rename(old, new)
        else:
            self.store.rename(old, new)
            self.model[new] = self.model.pop(old)
            self.model[new].version += 1
            self.order[self.order.index(old)] = new
            self.touched(new)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), title=st.none() | words, tags=st.lists(st.sampled_from(["x", "y", "z"])), behind=st.integers(0, 1))
    def update(self, data: st.DataObject, title: str | None, tags: list[str], behind: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        session = self.model[name]
        expected = session.version + behind
        if behind:
            with pytest.raises(ConflictError):
                self.store.update(name, title=title, tags=tags, expected_version=expected)
            return
        session.version, session.title, session.tags = session.version + 1, title, tuple(sorted(set(tags)))
        assert self.store.update(name, title=title, tags=tags, expected_version=expected).version == session.version
        self.touched(name)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = sessionstore.open(self.folder / "agent.db", durability="normal", must_exist=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), last=windows, before=windows, after=windows)
    def read_window(self, data: st.DataObject, last: int | None, before: int | None, after: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        rows = [row for row in self.model[name].rows if (before is None or row[0] < before) and (after is None or row[0] > after)]
        if last is not None:
            rows = rows[-last:] if last else []
        found = self.store.messages(name, last=last, before=before, after=after)
        assert [(message.seq, message.to_dict()) for message in found] == rows

    @rule(limit=st.integers(1, 5), tag=st.none() | st.sampled_from(["x", "y"]))
    def list_sessions(self, limit: int, tag: str | None) -> None:
        expected = [name for name in self.order if tag is None or tag in self.model[name].tags]
        found: list[str] = []
        cursor = None
        while True:
            page = self.store.list(limit=limit, cursor=cursor, tag=tag)
            found += [info.session_id for info in page]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == expected
        assert self.store.count(tag=tag) == len(expected)

    # -- what holds after every step

    @invariant()
    def every_session_is_as_in_the_model(self) -> None:
        for name, session in self.model.items():
            info = self.store.get(name)
            assert info is not None
            assert (info.message_count, info.last_seq, info.version, info.title, info.tags) == (
                len(session.rows), session.next_seq - 1, session.version, session.title, session.tags,
            )  # fmt: skip
        if self.model:
            name = self.order[0]
            assert [(message.seq, message.to_dict()) for message in self.store.iterate(name, page_size=3)] == self.model[name].rows


@pytest.mark.fault("F38")
@pytest.mark.timeout(1800)
def test_the_store_is_as_a_plain_dict(trial: Trial) -> None:
    examples, steps = trial.size(push=100, nightly=400, release=2_000), 30
    machine = settings(max_examples=examples, stateful_step_count=steps, deadline=None, print_blob=True)
    run_state_machine_as_test(hypothesis.seed(trial.seed)(StoreModel), settings=machine)
    trial.report(f"a store: {examples:,} x {steps} steps, equal to a plain dict after each")
