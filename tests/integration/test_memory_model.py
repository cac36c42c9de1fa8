"""Forks, edits, expiry, erasure and search, in whatever order, equal a plain model of lists and words."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from clocks import FrozenClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import sessionstore
from sessionstore import ConflictError, clock

WORDS = ("apple", "Birne", "straße", "東京タワー", "naïve", "c++", "x-ray")
FILLER = " " + "l" * 70_000
# Plain, long enough to be packed, large enough for a blob.
LENGTHS = (0, 0, 0, 40, len(FILLER))
LIFE = timedelta(minutes=10)

names = st.integers(0, 5).map(str)
texts = st.builds(
    lambda words, length: " ".join(words) + FILLER[:length],
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.sampled_from(LENGTHS),
)
seqs = st.integers(0, 14)


class Session:
    """What a session shows: the identity and the text of the message at each seq."""

    def __init__(self, age: int, rows: dict[int, tuple[int, str]], last: int, dies_at: object) -> None:
        self.age = age
        self.rows = rows
        self.last = last
        self.dies_at = dies_at
        self.parent: Session | None = None


class Memory(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sessionstore-memory-"))
        self.patched = pytest.MonkeyPatch()
        self.clock = FrozenClock()
        self.patched.setattr(clock, "utc_now", self.clock)
        self.model: dict[str, Session] = {}
        self.numbers = itertools.count()

    @initialize(on_expire=st.sampled_from(["keep", "archive", "delete"]), search=st.sampled_from(["on", "deferred"]))
    def begin(self, on_expire: sessionstore.OnExpire, search: str) -> None:
        self.on_expire = on_expire
        self.open()
        self.store.set_search(search)

    def open(self) -> None:
        self.store = sessionstore.open(
            self.folder / "agent.db", durability="normal", compress_over=30, on_expire=self.on_expire, ttl=LIFE
        )

    def teardown(self) -> None:
        if hasattr(self, "store"):
            diagnosis = self.store.doctor()
            assert diagnosis.ok, diagnosis
            self.store.close()
        self.patched.undo()
        shutil.rmtree(self.folder)

    def live(self, name: str) -> Session | None:
        """The session of a name, which is forgotten once its life is over."""
        found = self.model.get(name)
        if found is not None and found.dies_at <= self.clock.now:  # type: ignore[operator]
            del self.model[name]
            return None
        return found

    def living(self) -> dict[str, Session]:
        return {name: found for name in list(self.model) if (found := self.live(name)) is not None}

    # -- rules

    @rule(name=names)
    def create(self, name: str) -> None:
        if self.live(name) is None:
            self.store.create(name)
            self.model[name] = Session(next(self.numbers), {}, 0, self.clock.now + LIFE)

    @rule(name=names, batch=st.lists(texts, min_size=1, max_size=4))
    def append(self, name: str, batch: list[str]) -> None:
        session = self.live(name)
        if session is not None:
            stored = self.store.append_many(name, [{"role": "user", "content": text} for text in batch])
            for message, text in zip(stored, batch, strict=True):
                session.last += 1
                assert message.seq == session.last
                session.rows[session.last] = (next(self.numbers), text)
            session.dies_at = self.clock.now + LIFE

    @rule(name=names, new=names, at=seqs, copy=st.booleans())
    def fork(self, name: str, new: str, at: int, copy: bool) -> None:
        parent = self.live(name)
        if parent is None:
            return
        if self.live(new) is not None:
            with pytest.raises(ConflictError):
                self.store.fork(name, new)
            return
        at = min(at, parent.last)
        self.store.fork(name, new, at=at, copy=copy)
        rows = {seq: row for seq, row in parent.rows.items() if seq <= at}
        if copy:
            rows = {seq: (next(self.numbers), text) for seq, (_, text) in rows.items()}
        self.model[new] = Session(next(self.numbers), rows, at, self.clock.now + LIFE)

    @rule(name=names)
    def pop(self, name: str) -> None:
        session = self.live(name)
        if session is not None:
            popped = self.store.pop(name)
            newest = max(session.rows, default=None)
            assert (popped and (popped.seq, popped.text)) == (newest and (newest, session.rows.pop(newest)[1]))

    @rule(name=names, after=seqs)
    def truncate(self, name: str, after: int) -> None:
        session = self.live(name)
        if session is not None:
            removed = [seq for seq in session.rows if seq > after]
            assert self.store.truncate(name, after=after) == len(removed)
            for seq in removed:
                del session.rows[seq]

    @rule(name=names, data=st.data(), batch=st.lists(texts, max_size=3))
    def replace(self, name: str, data: st.DataObject, batch: list[str]) -> None:
        session = self.live(name)
        if session is not None and session.rows:
            first = data.draw(st.sampled_from(sorted(session.rows)))
            last = data.draw(st.integers(first, session.last))
            taken = [seq for seq in sorted(session.rows) if first <= seq <= last]
            new = batch[: len(taken)]
            self.store.replace_range(name, first, last, [{"role": "assistant", "content": text} for text in new])
            for seq in taken:
                del session.rows[seq]
            for seq, text in zip(taken, new, strict=False):
                session.rows[seq] = (next(self.numbers), text)

    @rule(name=names)
    def archive(self, name: str) -> None:
        if self.live(name) is not None:
            self.store.archive(name)

    @rule(name=names)
    def delete(self, name: str) -> None:
        was_there = self.live(name) is not None
        assert self.store.delete(name).sessions >= was_there
        self.model.pop(name, None)

    @rule(name=names, forks=st.sampled_from(["erase", "keep"]))
    def erase(self, name: str, forks: str) -> None:
        if self.live(name) is not None:
            receipt = self.store.erase(name, forks=forks)
            del self.model[name]
            # Forks that share messages went along, whatever their generation.
            for other in self.living():
                if self.store.get(other) is None:
                    assert forks == "erase"
                    del self.model[other]
            assert receipt.complete or forks == "keep" or receipt.reasons

    @rule(minutes=st.integers(1, 12))
    def let_time_pass(self, minutes: int) -> None:
        self.clock.go(minutes=minutes)

    @rule()
    def sweep(self) -> None:
        self.store.sweep()

    @rule(mode=st.sampled_from(["on", "deferred"]))
    def index_otherwise(self, mode: str) -> None:
        self.store.set_search(mode)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule(word=st.sampled_from(WORDS))
    def search(self, word: str) -> None:
        expected: dict[int, tuple[int, str, int]] = {}
        for name, session in self.living().items():
            for seq, (identity, text) in session.rows.items():
                if word in text:
                    place = (session.age, name, seq)
                    expected[identity] = min(place, expected.get(identity, place))
        found = self.store.search(word, limit=1_000)
        assert sorted((hit.session_id, hit.seq) for hit in found) == sorted((name, seq) for _, name, seq in expected.values())

    @precondition(lambda self: self.model)
    @rule(data=st.data(), word=st.sampled_from(WORDS))
    def search_in_a_session(self, data: st.DataObject, word: str) -> None:
        living = self.living()
        if living:
            name = data.draw(st.sampled_from(sorted(living)))
            expected = sorted(seq for seq, (_, text) in living[name].rows.items() if word in text)
            assert sorted(hit.seq for hit in self.store.search(word, session_id=name, limit=1_000)) == expected

    @invariant()
    def every_session_shows_what_the_model_says(self) -> None:
        for name in map(str, range(6)):
            session = self.live(name)
            info = self.store.get(name)
            assert (info is None) == (session is None), name
            if session is not None and info is not None:
                shown = {message.seq: message.text for message in self.store.messages(name)}
                assert shown == {seq: text for seq, (_, text) in session.rows.items()}, name
                assert (info.message_count, info.last_seq) == (len(session.rows), session.last)


TestMemory = pytest.mark.timeout(200)(Memory.TestCase)
# A failure prints the steps and the blob that repeats them.
TestMemory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, print_blob=True)
