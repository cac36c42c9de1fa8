"""Searching finds what a brute-force scan finds, whatever happened to the messages, and shows nothing that it must not."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from clocks import FrozenClock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import (
    InvalidInputError,
    NotFoundError,
    SearchHit,
    SearchUnavailableError,
    SessionStore,
)
from sessionstore.queries import search_scratch
from sessionstore.search_terms import is_unspaced, parsed

Place = tuple[str, int]

# reliability.md 4.6, rows 88 to 91.
TREACHEROUS = (
    '"hello', "(", "*", "hello AND", "OR", "NEAR(", "he'llo", "@user", "100%", "what is c++?", "foo-bar", "x:hello", "-hello",
    "c:\\path", "", "   ", "...", "\0", '""', "\\", "_", "%", "hello*", "^hello", "{hello}", "words:hello", "hello NOT world",
    "NEAR(hello world)", "hello + world", "a" * 1000, "';--", "hello\0world", "\u202e", "\ufdd0", "``", "天", "天%", "_天",
)  # fmt: skip


def places(found: sessionstore.Page[SearchHit]) -> list[Place]:
    return [(hit.session_id, hit.seq) for hit in found]


def all_places(store: SessionStore, query: str, **options: Any) -> list[Place]:
    """The hits of all pages."""
    found: list[Place] = []
    cursor = None
    while True:
        page = store.search(query, cursor=cursor, **options)
        found += places(page)
        cursor = page.next_cursor
        if cursor is None:
            return found


# -- a scan that knows nothing of the index


def words_in(text: str) -> list[str]:
    """The words of a text, without case and accents; scripts without spaces have none."""
    bare = "".join(each for each in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(each))
    return re.findall(r"[^\W_]+", "".join(" " if is_unspaced(each) else each for each in bare))


def has_phrase(words: list[str], phrase: list[str], *, prefix: bool) -> bool:
    def same(found: list[str]) -> bool:
        if prefix:
            return found[:-1] == phrase[:-1] and len(found) == len(phrase) and found[-1].startswith(phrase[-1])
        return found == phrase

    return any(same(words[start : start + len(phrase)]) for start in range(len(words) - len(phrase) + 1))


def fits(text: str, query: str, *, prefix: bool = False) -> bool:
    """Whether a message of this text is to be found."""
    asked = False
    words = words_in(text)
    for chunk in query.replace("\0", " ").split():
        if is_unspaced(chunk):
            for run in re.findall(r"[\w\u0e00-\u0eff]+", chunk.replace("_", " ")):
                asked = True
                if is_unspaced(run) and run.lower() not in text.lower():
                    return False
                if not is_unspaced(run) and not has_phrase(words, words_in(run), prefix=prefix):
                    return False
        elif phrase := words_in(chunk):
            asked = True
            if not has_phrase(words, phrase, prefix=prefix):
                return False
    return asked


@dataclass(eq=False)
class Stored:
    """A stored message of the model; sessions that share it hold the same one."""

    text: str
    role: str


@dataclass(eq=False)
class Chat:
    """A session of the model."""

    name: str
    born: int
    agent: str
    messages: dict[int, Stored] = field(default_factory=dict)
    next_seq: int = 1


class Model:
    """Sessions as plain dicts."""

    def __init__(self) -> None:
        self.chats: dict[str, Chat] = {}
        self._births = itertools.count()

    def begin(self, name: str, agent: str) -> Chat:
        chat = self.chats[name] = Chat(name, next(self._births), agent)
        return chat

    def hits(self, query: str, *, only: str | None = None, agent: str | None = None, role: str | None = None,
             prefix: bool = False) -> list[Place]:  # fmt: skip
        """What a search must find: each stored message once, of the oldest session that may be shown."""
        shown: dict[Stored, Place] = {}
        for chat in sorted(self.chats.values(), key=lambda chat: chat.born):
            if only not in (None, chat.name) or agent not in (None, chat.agent):
                continue
            for seq, message in chat.messages.items():
                if role in (None, message.role) and fits(message.text, query, prefix=prefix):
                    shown.setdefault(message, (chat.name, seq))
        return sorted(shown.values())


PIECES = (
    "hello", "Hello", "world", "Wörld", "naïve", "NAIVE", "foo-bar", "foo bar", "x:hello", "c++", "100%", "it's", '"', "(", "AND",
    "NOT", "*", "\\", "_", "\0", "天気", "今日は天気がいい", "日本", "日本語", "用Python写的", "Python", "สวัสดีครับ", "ไทย",
    "서울에서", "서울", "Привет", "привет", "Ärger", "arger", "42", "😀", "\n", "e\u0301cole", "ecole", "ｶﾞ", "ﾊﾝｶｸ",
    "日A", "日a", "É日", "é日",
)  # fmt: skip
QUERIES = (
    "hello", "WORLD", "world hello", "naive", "foo-bar", "bar", "foo", "python", "天気", "天", "気が", "日本", "日本語", "本語",
    "用Python", "hello 天気", "python 日", "ไทย", "สวัสดี", "ค", "서울", "привет", "ärger", "42", "c++", "it's", "AND", "école",
    "hello AND", '"hello', "天気 日本", "天 日", "nothing", "...", "😀", "hel", "wor", "ﾊﾝｶ", "foo-天気-bar", "x:hello",
    "日a", "日A", "É日",
)  # fmt: skip


class Lives:
    """A store and its model, to which the same things happen."""

    def __init__(self, store: SessionStore, chance: random.Random) -> None:
        self.store, self.chance, self.model = store, chance, Model()
        self._names = itertools.count()
        self.deeds: tuple[Callable[[], None], ...] = (
            self.begin, self.append, self.append, self.append_many, self.append_many, self.pop, self.truncate, self.clear,
            self.delete, self.fork, self.fork, self.copy, self.replace, self.replace, self.rename, self.move_file, self.set_mode,
            self.rebuild, self.archive,
        )  # fmt: skip

    def text(self) -> str:
        return " ".join(self.chance.choices(PIECES, k=self.chance.randrange(6)))

    def message(self) -> dict[str, Any]:
        role = self.chance.choice(("user", "assistant"))
        text = self.text()
        if self.chance.random() < 0.2:
            return {"role": role, "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": "x"}}]}
        return {"role": role, "content": text}

    def chat(self) -> Chat:
        return self.chance.choice(list(self.model.chats.values())) if self.model.chats else self.begin()

    def begin(self) -> Chat:
        name, agent = f"s{next(self._names)}", self.chance.choice("ab")
        self.store.session(name, agent_id=agent)
        return self.model.begin(name, agent)

    def put(self, chat: Chat, seq: int, message: dict[str, Any]) -> None:
        content = message["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        chat.messages[seq] = Stored(text, message["role"])

    def append(self) -> None:
        chat, message = self.chat(), self.message()
        stored = self.store.append(chat.name, message)
        assert stored.seq == chat.next_seq
        self.put(chat, chat.next_seq, message)
        chat.next_seq += 1

    def append_many(self) -> None:
        chat, messages = self.chat(), [self.message() for _ in range(self.chance.randrange(12))]
        self.store.append_many(chat.name, messages)
        for message in messages:
            self.put(chat, chat.next_seq, message)
            chat.next_seq += 1

    def pop(self) -> None:
        chat = self.chat()
        self.store.pop(chat.name)
        if chat.messages:
            del chat.messages[max(chat.messages)]

    def truncate(self) -> None:
        chat = self.chat()
        after = self.chance.randrange(chat.next_seq)
        self.store.truncate(chat.name, after=after)
        chat.messages = {seq: message for seq, message in chat.messages.items() if seq <= after}

    def clear(self) -> None:
        chat = self.chat()
        self.store.clear(chat.name)
        chat.messages.clear()

    def delete(self) -> None:
        chat = self.chat()
        self.store.delete(chat.name)
        del self.model.chats[chat.name]

    def fork(self, *, copy: bool = False) -> None:
        parent = self.chat()
        at, name = self.chance.randrange(parent.next_seq), f"s{next(self._names)}"
        self.store.fork(parent.name, name, at=at, copy=copy, cut_pairs="keep")
        fork = self.model.begin(name, parent.agent)
        fork.next_seq = at + 1
        for seq, message in parent.messages.items():
            if seq <= at:
                fork.messages[seq] = Stored(message.text, message.role) if copy else message

    def copy(self) -> None:
        self.fork(copy=True)

    def replace(self) -> None:
        chat = self.chat()
        first = self.chance.randrange(1, chat.next_seq + 1)
        last = self.chance.randrange(first, chat.next_seq + 2)
        taken = [seq for seq in sorted(chat.messages) if first <= seq <= last]
        messages = [self.message() for _ in range(self.chance.randrange(len(taken) + 1))]
        self.store.replace_range(chat.name, first, last, messages)
        for seq in taken:
            del chat.messages[seq]
        for seq, message in zip(taken, messages, strict=False):
            self.put(chat, seq, message)

    def rename(self) -> None:
        chat, name = self.chat(), f"s{next(self._names)}"
        self.store.rename(chat.name, name)
        self.model.chats[name] = self.model.chats.pop(chat.name)
        chat.name = name

    def move_file(self) -> None:
        """A session goes out to a file and comes back in its own place."""
        import io

        chat = self.chat()
        file = io.BytesIO()
        self.store.export_file(file, session_ids=chat.name)
        file.seek(0)
        self.store.import_file(file, on_conflict="replace")
        old = self.model.chats.pop(chat.name)
        back = self.model.begin(chat.name, chat.agent)
        back.next_seq = old.next_seq
        back.messages = {seq: Stored(message.text, message.role) for seq, message in old.messages.items()}

    def archive(self) -> None:
        self.store.archive(self.chat().name)

    def set_mode(self) -> None:
        self.store.set_search(self.chance.choice(("on", "deferred", "off", "deferred")))

    def rebuild(self) -> None:
        if self.store.status().search != "off":
            self.store.rebuild_search()

    def compare(self) -> None:
        if self.store.status().search == "off":
            with pytest.raises(SearchUnavailableError):
                self.store.search("hello")
            return
        for query in self.chance.sample(QUERIES, 4):
            only = self.chance.choice((None, None, self.chat().name))
            agent = self.chance.choice((None, None, "a"))
            role = self.chance.choice((None, None, "user"))
            match = self.chance.choice(("words", "words", "prefix"))
            order = self.chance.choice(("rank", "newest"))
            given = {"session_id": only, "agent_id": agent, "role": role}
            filters: Any = {name: value for name, value in given.items() if value is not None}
            found = all_places(self.store, query, match=match, order=order, limit=self.chance.choice((1, 3, 100)), **filters)
            expected = self.model.hits(query, only=only, agent=agent, role=role, prefix=match == "prefix")
            assert sorted(found) == expected, (query, given, match, order)


@pytest.mark.parametrize("run", range(int(os.environ.get("SESSIONSTORE_SEARCH_LIVES") or 12)))
def test_a_search_finds_what_a_scan_finds_whatever_happened(store: SessionStore, run: int) -> None:
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"run {run}: SESSIONSTORE_SEED={seed}")
    lives = Lives(store, random.Random(seed))
    for _ in range(60):
        lives.chance.choice(lives.deeds)()
        if lives.chance.random() < 0.5:
            lives.compare()
    if store.status().search == "off":
        store.set_search("deferred")
    lives.compare()
    diagnosis = store.doctor()
    assert diagnosis.ok, diagnosis


# -- what a user may type


@pytest.fixture
def library(store: SessionStore) -> SessionStore:
    """A few messages in a few sessions."""
    store.session("a", agent_id="helper", user_id="alice", title="A", tags=["t", "u"], metadata={"k": 1}).append_many(
        [
            {"role": "user", "content": "hello world, what is c++? foo-bar 100% C:\\path"},
            {"role": "assistant", "content": "今日は天気がいいですね"},
            {"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]},
        ]
    )
    store.session("b", user_id="bob").append("user", "Hello Wörld: naïve")
    return store


@pytest.mark.parametrize("query", TREACHEROUS)
def test_nothing_that_a_user_types_is_syntax(library: SessionStore, query: str) -> None:
    stored = {("a", 1): "hello world, what is c++? foo-bar 100% C:\\path", ("a", 2): "今日は天気がいいですね",
              ("b", 1): "Hello Wörld: naïve"}  # fmt: skip
    expected = sorted(place for place, text in stored.items() if fits(text, query))
    assert sorted(all_places(library, query)) == expected
    if not any(each.isalnum() for each in query):
        assert expected == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=40), match=st.sampled_from(("words", "prefix")), order=st.sampled_from(("rank", "newest")))
def test_any_text_can_be_searched_for(library: SessionStore, query: str, match: Any, order: Any) -> None:
    if any("\ud800" <= each <= "\udfff" for each in query):
        with pytest.raises(InvalidInputError):
            library.search(query, match=match, order=order)
        return
    assert set(places(library.search(query, match=match, order=order))) <= {("a", 1), ("a", 2), ("a", 3), ("b", 1)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=300))
def test_what_was_said_is_found_by_its_own_words(store: SessionStore, text: str) -> None:
    seq = store.session("any").append("user", text).seq
    for word in re.findall(r"[a-z0-9A-Z]+|[\u3040-\u30ff\u4e00-\u9fff]+", text)[:32]:
        before, _, behind = text.partition(word)
        alone = not (before[-1:] + behind[:1]).strip(" ")
        if alone or is_unspaced(word):
            assert ("any", seq) in all_places(store, word, limit=1000), word
    assert store.doctor().ok


def test_a_query_has_a_limit_of_characters_and_of_words(library: SessionStore) -> None:
    for query in ("x" * 1001, "(a OR " * 400, "word " * 33, "天 " * 33):
        with pytest.raises(InvalidInputError) as caught:
            library.search(query)
        assert caught.value.limit in (1000, 32)
        assert query.strip() not in str(caught.value)
    assert places(library.search("hello " * 32)) != []
    for wrong in (None, 1, b"x"):
        with pytest.raises(InvalidInputError):
            library.search(wrong)  # type: ignore[arg-type]
    for options in ({"limit": 0}, {"limit": 1001}, {"order": "x"}, {"match": "x"}, {"cursor": 1}, {"role": "x"}, {"since": 1}):
        with pytest.raises(InvalidInputError):
            library.search("hello", **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        library.search("hello", sesion_id="a")  # type: ignore[call-arg]


@pytest.mark.parametrize("query", ["(", "*", "hello AND", "x:hello", "NEAR(", '"', "", "^", "a b NEAR(", "(" * 900, "rank : x"])
def test_raw_queries_are_refused_without_a_word_of_sql(library: SessionStore, query: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        library.search_raw(query)
    assert not re.search(r"(?i)select|message_words|column|near \"", str(caught.value))
    assert caught.value.__cause__ is None
    assert "double quotes is plain words" in str(caught.value)


@pytest.mark.parametrize(
    ("query", "reason"),
    [("hello AND", "syntax error"), ('"hello', "quote is missing"), ("x:hello", "name words"), ("NEAR(a b, x)", "whole number")],
)
def test_a_refused_raw_query_is_told_why(library: SessionStore, query: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        library.search_raw(query)


def test_raw_queries_have_the_syntax_of_fts5(library: SessionStore) -> None:
    assert places(library.search_raw("hello NOT naive")) == [("a", 1)]
    assert sorted(places(library.search_raw("naive OR (part AND two)"))) == [("a", 3), ("b", 1)]
    assert places(library.search_raw("NEAR(wor* na*, 2)")) == [("b", 1)]
    assert places(library.session("a").store.search_raw("words : hello", session_id="b")) == [("b", 1)]


# -- whose messages


def test_filters_choose_sessions_and_messages(library: SessionStore) -> None:
    def found(**filters: Any) -> list[Place]:
        return sorted(places(library.search("hello", **filters)))

    both = [("a", 1), ("b", 1)]
    assert found() == both
    assert found(agent_id="helper") == found(user_id="alice") == found(tag="t") == found(tag=["t", "u"]) == [("a", 1)]
    assert found(metadata={"k": 1}) == found(session_id="a") == [("a", 1)]
    assert found(agent_id=None) == found(user_id="bob") == [("b", 1)]
    assert found(metadata={"k": 2}) == found(tag="v") == found(role="assistant") == found(agent_id="other") == []
    at = library.messages("b")[0].created_at
    assert found(since=at) == [("b", 1)]
    assert found(until=at) == [("a", 1)]
    assert found(since=at + timedelta(seconds=1)) == []
    assert places(library.session("b").search("hello")) == [("b", 1)]
    assert places(library.session("b").search_raw("hello OR part")) == [("b", 1)]
    with pytest.raises(NotFoundError):
        library.search("hello", session_id="none")


def test_a_hit_tells_what_is_known(library: SessionStore) -> None:
    (hit,) = library.search("天気", session_id="a")
    assert (hit.session_id, hit.seq, hit.role, hit.kind) == ("a", 2, "assistant", "message")
    assert (hit.title, hit.tags, hit.agent_id, hit.user_id) == ("A", ("t", "u"), "helper", "alice")
    assert hit.created_at == library.messages("a")[1].created_at
    assert [hit.snippet[first:last] for first, last in hit.highlights] == ["天気"]
    assert hit.snippet not in repr(hit)


def test_nobody_sees_expired_deleted_or_foreign_messages(store: SessionStore, frozen: FrozenClock) -> None:
    store.session("live").append("user", "secret one")
    store.session("short", ttl=10).append("user", "secret two")
    store.session("gone").append("user", "secret three")
    other = store.in_namespace("other")
    other.session("live").append("user", "secret four")
    everything = [("gone", 1), ("live", 1), ("short", 1)]
    assert sorted(places(store.search("secret"))) == everything
    store.delete("gone")
    assert sorted(places(store.search("secret"))) == [("live", 1), ("short", 1)]
    frozen.go(seconds=11)
    assert places(store.search("secret")) == [("live", 1)]
    assert places(other.search("secret")) == [("live", 1)]
    assert other.search("secret").items[0].snippet == "secret four"
    store.sweep()
    assert places(store.search("secret")) == [("live", 1)]
    for order in ("rank", "newest"):
        assert places(store.search("secret two", order=order)) == []  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        store.search("secret", session_id="short")
    store.session("short").append("user", "new life")
    assert places(store.search("secret")) == [("live", 1)]


def test_a_shared_message_is_one_hit_of_the_oldest_session_that_may_be_shown(store: SessionStore, frozen: FrozenClock) -> None:
    parent = store.session("parent", agent_id="a", ttl=10)
    parent.append_many([{"role": "user", "content": f"shared word {number}"} for number in range(4)])
    store.fork("parent", "first", agent_id="b", ttl=None, at=3)
    store.fork("first", "second", agent_id="c", ttl=None, at=2)
    assert sorted(places(store.search("shared"))) == [("parent", seq) for seq in range(1, 5)]
    assert sorted(places(store.search("shared", agent_id="b"))) == [("first", seq) for seq in range(1, 4)]
    assert sorted(places(store.search("shared", session_id="second"))) == [("second", 1), ("second", 2)]
    frozen.go(seconds=11)
    assert sorted(places(store.search("shared"))) == [("first", 1), ("first", 2), ("first", 3)]
    store.delete("first")
    assert sorted(places(store.search("shared", order="newest"))) == [("second", 1), ("second", 2)]
    store.clear("second")
    assert places(store.search("shared")) == []
    assert store.doctor().ok


# -- order and pages


def test_the_best_fit_comes_first(store: SessionStore) -> None:
    chat = store.session("s")
    chat.append_many(
        [{"role": "user", "content": text} for text in ("cat " + "dog " * 50, "cat cat cat", "a cat and a dog", "dog")]
    )
    found = store.search("cat")
    assert places(found)[0] == ("s", 2)
    ranks = [hit.rank for hit in found]
    assert ranks == sorted(ranks, key=lambda rank: rank or 0)


@pytest.mark.parametrize("few", [10, 2_000])
def test_the_newest_are_those_of_the_sessions_changed_last(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, few: int, frozen: FrozenClock
) -> None:
    """Few are sorted, many are looked for session by session: with the same outcome."""
    monkeypatch.setattr("sessionstore.queries.searching._FEW", few)
    for number in range(8):
        store.session(f"s{number}").append_many([{"role": "user", "content": "common 天"}] * 5)
        frozen.go(seconds=1)
    store.append("s3", "user", "common again 天気")
    store.fork("s5", "fork", at=2)
    expected = [("s3", 6), *(("s3", seq) for seq in range(5, 0, -1))]
    expected += [(f"s{number}", seq) for number in (7, 6, 5, 4, 2, 1, 0) for seq in range(5, 0, -1)]
    for query in ("common", "天", "common 天"):
        assert places(store.search(query, order="newest", limit=100)) == expected
        assert all_places(store, query, order="newest", limit=7) == expected
    assert all(hit.rank is None for hit in store.search("common", order="newest"))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The messages of which a search has asked whether they may be shown."""
    from sessionstore.queries.searching import _Search

    asked: list[int] = []
    shown_by = _Search._shown_by

    def ask(self: Any, identity: int) -> int | None:
        asked.append(identity)
        return shown_by(self, identity)

    monkeypatch.setattr(_Search, "_shown_by", ask)
    return asked


def test_what_many_others_have_said_does_not_make_a_search_long(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, looked_at: list[int]
) -> None:
    """As in a file with many users: the word is common, and whoever searches may see few messages."""
    monkeypatch.setattr("sessionstore.queries.searching._MOST_RANKED", 50)
    for number in range(3):
        store.session(f"s{number}", user_id="busy").append_many([{"role": "user", "content": "common"}] * 300)
    store.session("mine", user_id="me").append_many([{"role": "user", "content": "common"}] * 2)
    store.fork("mine", "fork", at=1)
    other = store.in_namespace("other")
    other.session("mine").append("user", "common")
    store.search("nothing")
    looked_at.clear()
    for order in ("rank", "newest"):
        assert sorted(all_places(store, "common", user_id="me", order=order)) == [("mine", 1), ("mine", 2)]
        assert all_places(other, "common", order=order) == [("mine", 1)]
        assert all_places(store, "common", user_id="nobody", order=order) == []
    assert len(looked_at) == 2 * 3


@pytest.mark.parametrize("parent_lives", [True, False])
def test_what_many_forks_share_is_looked_at_once(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, looked_at: list[int], parent_lives: bool
) -> None:
    monkeypatch.setattr("sessionstore.queries.searching._FEW", 10)
    store.session("root").append_many([{"role": "user", "content": "common"}] * 40)
    for number in range(30):
        store.fork("root", f"fork{number:02}", at=40)
    oldest = "root"
    if not parent_lives:
        store.delete("root")
        oldest = "fork00"
    store.search("nothing")
    looked_at.clear()
    assert places(store.search("common", order="newest", limit=100)) == [(oldest, seq) for seq in range(40, 0, -1)]
    assert len(looked_at) <= 11 + 40


def test_short_pieces_are_found_whatever_their_case(store: SessionStore) -> None:
    store.session("s").append_many([{"role": "user", "content": text} for text in ("日A", "日a", "é日", "日")])
    assert sorted(places(store.search("日A"))) == sorted(places(store.search("日a"))) == [("s", 1), ("s", 2)]
    assert places(store.search("É日")) == [("s", 3)]


def test_the_snippet_of_a_large_text_shows_the_words(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = store.session("s")
    long = "before " * 12_000 + "there is a zebra in it" + " behind" * 12_000
    chat.append_many([{"role": "user", "content": long}, {"role": "user", "content": [{"type": "text", "text": long}]}])
    for hit in store.search("zebra"):
        assert [hit.snippet[first:last] for first, last in hit.highlights] == ["zebra"]
        assert "there is a zebra in it" in hit.snippet
    # Of so much text that reading it would take long, it shows the names of the blobs.
    monkeypatch.setattr("sessionstore.queries.searching._MOST_FROM_BLOBS", len(long) + 10)
    first, second = store.search("zebra")
    assert first.highlights
    assert second.snippet.startswith("blob:sha256-")
    assert [hit.snippet[:12] for hit in store.search_raw("zebra")] == ["blob:sha256-"] * 2


@pytest.mark.parametrize("gap", [" ", "\n", "-", "天"])
def test_words_of_long_texts_are_found_in_pieces_as_in_the_whole(gap: str) -> None:
    """To find all places of a word in one piece takes the square of their number."""
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    text = gap.join(chance.choices(("zebra", "Zébra", "zebras", "foo", "bar", "a" * 30, "天気", "."), k=5_000))
    terms = parsed("zebra foo-bar")
    pieces, whole = (search_scratch.spans_of(each, {1: text})[1] for each in (terms, replace(terms, is_raw=True)))
    assert len(text) > 10_000
    assert pieces == whole


def test_a_cursor_belongs_to_its_search(library: SessionStore) -> None:
    library.append_many("b", [{"role": "user", "content": "hello"}] * 9)
    page = library.search("hello", limit=4)
    assert page.next_cursor is not None
    assert len(all_places(library, "hello", limit=4)) == len(set(all_places(library, "hello", limit=4))) == 11
    for query, options in (
        ("world", {}),
        ("hello", {"role": "user"}),
        ("hello", {"order": "newest"}),
        ("hello", {"match": "prefix"}),
    ):
        with pytest.raises(InvalidInputError, match="cursor"):
            library.search(query, cursor=page.next_cursor, limit=4, **options)  # type: ignore[arg-type]


# -- snippets


def test_a_snippet_shows_where_the_words_stand(store: SessionStore) -> None:
    text = "x " * 500 + "the Wörld says foo-bar " + "y " * 500 + "\ufdd0\0 end"
    store.session("s").append("user", text)
    for query, shown in (("world FOO-BAR", ["Wörld", "foo-bar"]), ("end", ["end"]), ("sAys", ["says"])):
        (hit,) = store.search(query)
        assert [hit.snippet[first:last] for first, last in hit.highlights] == shown
        assert hit.snippet.startswith("…")
        assert len(hit.snippet) < 250


@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.sampled_from(PIECES), max_size=60), query=st.sampled_from(QUERIES), prefix=st.booleans())
def test_highlights_are_the_words_that_were_found(words: list[str], query: str, prefix: bool) -> None:
    from sessionstore.queries import search_scratch
    from sessionstore.search_terms import parsed

    text = " ".join(words)
    terms = parsed(query, "prefix" if prefix else "words")
    if terms.is_empty or not fits(text, query, prefix=prefix):
        return
    spans = search_scratch.spans_of(terms, {1: text})[1]
    assert spans
    assert all(first < last for first, last in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    shown, inside = search_scratch.snippet(text, spans)
    assert inside
    assert {shown[first:last] for first, last in inside} <= {text[first:last] for first, last in spans}


# -- when messages are indexed


def indexed(path: Path) -> int:
    """How many messages the index holds."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        return int(raw.execute("SELECT count(*) FROM message_words_docsize").fetchone()[0])


def test_an_append_indexes_at_once_or_later_or_never(store: SessionStore, store_path: Path) -> None:
    chat = store.session("s")
    assert store.status().search == "deferred"
    chat.append("user", "one")
    assert (indexed(store_path), store.status().search_waiting) == (0, 1)
    store.set_search("on")
    chat.append("user", "two")
    assert indexed(store_path) == 0, "it goes on where the index ends, which the background brings up to date"
    assert places(store.search("one")) == [("s", 1)]
    chat.append_many([{"role": "user", "content": "three"}, {"role": "user", "content": "four"}])
    assert (indexed(store_path), store.status().search_waiting) == (4, 0)
    store.set_search("off")
    assert (indexed(store_path), store.status().search_waiting) == (0, 0)
    chat.append("user", "five")
    with pytest.raises(SearchUnavailableError, match="set_search"):
        store.search("one")
    with pytest.raises(SearchUnavailableError, match="set_search"):
        store.rebuild_search()
    store.set_search("deferred")
    assert places(store.search("four OR five")) == [], "OR is a word"
    assert places(store.search("five")) == [("s", 5)]
    assert indexed(store_path) == 5
    with pytest.raises(InvalidInputError):
        store.set_search("maybe")  # type: ignore[arg-type]


def test_off_leaves_no_word_in_the_index(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many([{"role": "user", "content": f"zebra{number}"} for number in range(50)])
    assert len(store.search("zebra", match="prefix", limit=100)) == 50
    store.set_search("off")
    with closing(sqlite3.connect(store_path)) as raw:
        blocks = b"".join(block for (block,) in raw.execute("SELECT block FROM message_words_data"))
    assert b"zebra" not in blocks


def test_a_search_says_how_many_messages_it_did_not_look_at(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.store.search.MOST_AT_ONCE", 500)
    store.session("s").append_many([{"role": "user", "content": f"word n{number}"} for number in range(1_200)])
    page = store.search("n1199")
    assert (places(page), page.not_indexed) == ([], 700)
    assert store.search("n1199").not_indexed == 200
    page = store.search("n1199")
    assert (places(page), page.not_indexed) == ([("s", 1_200)], 0)


def test_a_store_that_only_reads_finds_what_is_not_indexed(store: SessionStore, store_path: Path) -> None:
    chat = store.session("s", agent_id="a")
    chat.append("user", "known word 天気")
    assert len(store.search("known")) == 1
    chat.append_many([{"role": "user", "content": "new word 天気予報"}, {"role": "assistant", "content": "new"}])
    store.session("t", agent_id="b").append("user", "word")
    with sessionstore.open(store_path, read_only=True) as reader:
        for order in ("rank", "newest"):
            found = [all_places(reader, "word", order=order, limit=limit) for limit in (1, 100)]
            assert found[0] == found[1]
            assert sorted(found[0]) == [("s", 1), ("s", 2), ("t", 1)]
            assert sorted(all_places(reader, "word 天気", order=order)) == [("s", 1), ("s", 2)]
            assert sorted(all_places(reader, "天", order=order)) == [("s", 1), ("s", 2)]
        assert places(reader.search("new", role="assistant")) == [("s", 3)]
        assert places(reader.search("word", agent_id="b")) == [("t", 1)]
        assert reader.search("word").not_indexed == 0
        assert reader.doctor().ok
    assert indexed(store_path) == 1


def test_a_search_goes_on_while_another_process_holds_the_writer_lock(store_path: Path) -> None:
    with sessionstore.open(store_path, busy_timeout=0.3) as store:
        store.session("s").append("user", "a word")
        code = (
            "import sys; from sessionstore.database.locks import SidecarLock; from pathlib import Path; import time\n"
            "lock = SidecarLock(Path(sys.argv[1])); lock.acquire(time.monotonic() + 5); print('held', flush=True); sys.stdin.read()"
        )
        lock = store_path.with_name(store_path.name + ".lock")
        with subprocess.Popen(
            [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert places(store.search("word")) == [("s", 1)]
            holder.communicate("")


def test_the_background_indexes(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many([{"role": "user", "content": "word"}] * 700)
    with store.background():
        done = threading.Event()
        while indexed(store_path) < 700:
            assert not done.wait(0.01)
    assert store.status().search_waiting == 0


@pytest.mark.parametrize("large", ["x" * 1_000, ""])
def test_a_batch_of_large_messages_is_small(store: SessionStore, store_path: Path, large: str) -> None:
    """What counts is how much is indexed, also of texts in blobs and of packed ones, and not how much stands in the rows."""
    text = "word " * (1 << 17)
    content = [{"type": "text", "text": text}, {"type": "text", "text": large}] if large else text
    store.session("s").append_many([{"role": "user", "content": content}] * 4)
    store._index_batch()
    assert indexed(store_path) == 2
    assert len(store.search("word")) == 4
    store.archive("s")
    store.rebuild_search()
    assert len(store.search("word")) == 4
    assert store.doctor().ok
    store.clear("s")
    assert indexed(store_path) == 0
    assert store.doctor().ok


def test_all_writers_at_once_leave_a_whole_index(store: SessionStore, store_path: Path) -> None:
    def work(number: int) -> None:
        with sessionstore.open(store_path) as own:
            chat = own.session(f"s{number}")
            for turn in range(15):
                chat.append_many([{"role": "user", "content": f"common t{turn}"}, {"role": "assistant", "content": "天気"}])
                own.search("common", limit=5)
                if turn % 5 == 4:
                    chat.pop()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(all_places(store, "common", limit=1000)) == 6 * 15
    assert len(all_places(store, "天気", limit=1000)) == 6 * 12
    assert store.doctor().ok


@pytest.mark.parametrize("mode", ["on", "deferred"])
def test_an_import_and_a_copied_fork_are_found(store: SessionStore, store_path: Path, mode: Any) -> None:
    import io

    store.set_search(mode)
    store.session("s").append_many([{"role": "user", "content": "word"}] * 3)
    store.fork("s", "copy", copy=True)
    file = io.BytesIO()
    store.export_file(file, session_ids="s")
    file.seek(0)
    store.import_file(file, on_conflict="new-id")
    assert indexed(store_path) == (9 if mode == "on" else 0)
    assert len(store.search("word")) == 9
    assert store.doctor().ok


# -- rebuilding, and damage


def test_a_rebuilt_index_finds_the_same(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many([{"role": "user", "content": f"word n{number} 天気"} for number in range(600)])
    store.fork("s", "fork", at=100)
    store.delete("s")
    before = all_places(store, "word", limit=1000)
    assert len(before) == 100
    told: list[tuple[int, int | None]] = []
    store.append_many("fork", [{"role": "user", "content": "word"}] * 400)
    store.rebuild_search(progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told
    assert indexed(store_path) == 500
    assert sorted(all_places(store, "word", limit=1000)) == sorted([*before, *(("fork", seq) for seq in range(101, 501))])
    assert store.doctor().ok


REBUILDING = """
import sys, sessionstore
with sessionstore.open(sys.argv[1]) as store:
    print("begun", flush=True)
    while True:
        store.rebuild_search(progress=lambda done, total: print(done, flush=True))
"""


def test_a_rebuild_that_is_killed_leaves_an_index_that_goes_on(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s").append_many([{"role": "user", "content": f"word n{number} 天気"} for number in range(2_000)])
        store.fork("s", "fork", at=50)
        store.clear("s")
        store.append_many("s", [{"role": "user", "content": "word"}] * 2_000)
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", REBUILDING, str(store_path)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 12)):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        with sessionstore.open(store_path) as store:
            assert store.doctor().ok
            assert store.search("n7").items[0].session_id == "fork"
    with sessionstore.open(store_path) as store:
        assert len(set(all_places(store, "word", limit=1000))) == 2_050
        assert store.status().search_waiting == 0
        assert store.doctor().ok


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM message_words_docsize WHERE id = (SELECT max(id) FROM message_words_docsize)",
        "INSERT INTO message_words_docsize (id, sz) VALUES (99, x'01')",
        "DELETE FROM message_trigrams_docsize WHERE id = (SELECT min(id) FROM message_trigrams_docsize)",
        "INSERT INTO message_trigrams (rowid, words) SELECT id, 'no such' FROM messages WHERE text = 'plain'",
        "DELETE FROM message_words_data WHERE id > 10",
    ],
)
def test_the_doctor_sees_a_damaged_index_and_a_rebuild_heals_it(store_path: Path, damage: str) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s").append_many([{"role": "user", "content": text} for text in ("plain", "天気予報", "more words")])
        assert len(store.search("plain")) == 1
        assert store.doctor().ok
    with closing(sqlite3.connect(store_path)) as raw, raw:
        assert raw.execute(damage).rowcount
    with sessionstore.open(store_path) as store:
        (failed,) = [check for check in store.doctor().checks if not check.ok]
        assert failed.name == "search index"
        assert "rebuild_search" in failed.detail
        store.rebuild_search()
        assert store.doctor().ok
        assert places(store.search("plain")) == [("s", 1)]
        assert places(store.search("天気予報")) == [("s", 2)]


def test_a_damaged_message_can_be_deleted_all_the_same(store_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s").append_many([{"role": "user", "content": text} for text in ("first words", "second words", "third")])
        assert len(store.search("words")) == 2
    with closing(sqlite3.connect(store_path)) as raw, raw:
        raw.execute("UPDATE messages SET text = 'other text' WHERE text = 'second words'")
    with sessionstore.open(store_path) as store:
        with pytest.raises(sessionstore.StoreCorruptError):
            store.search("words")
        store.clear("s")
        assert places(store.search("words")) == []
        store.rebuild_search()
        assert store.doctor().ok


@pytest.mark.parametrize("was_made", [False, True])
def test_without_fts5_all_else_works(store_path: Path, monkeypatch: pytest.MonkeyPatch, was_made: bool) -> None:
    with sessionstore.open(store_path) as store:
        store.session("s").append_many([{"role": "user", "content": f"word {number}"} for number in range(9)])
        assert len(store.search("word")) == 9
    if not was_made:
        with closing(sqlite3.connect(store_path)) as raw, raw:
            for table in ("message_words", "message_trigrams"):
                raw.execute(f"DROP TABLE {table}")
    with monkeypatch.context() as patch:
        patch.setattr("sessionstore.queries.search_index.has_fts5", lambda _: False)
        with sessionstore.open(store_path) as store:
            store.append("s", "user", "more")
            store.fork("s", "fork", at=3)
            store.pop("s")
            store.truncate("s", after=5)
            store.delete("s")
            assert len(store.messages("fork")) == 3
            assert store.doctor().ok
            with store.background():
                pass
            for call in (lambda: store.search("word"), store.rebuild_search, lambda: store.search_raw("word")):
                with pytest.raises(SearchUnavailableError, match="FTS5"):
                    call()
    with sessionstore.open(store_path) as store:
        if not was_made:
            with pytest.raises(SearchUnavailableError, match="rebuild_search"):
                store.search("word")
        store.rebuild_search()
        assert sorted(places(store.search("word"))) == [("fork", 1), ("fork", 2), ("fork", 3)]
        assert store.doctor().ok


def test_a_file_made_without_fts5_has_no_index(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upgrade asks SQLite for its modules; here the question is answered with no."""
    from sqlalchemy.engine import Connection

    ask = Connection.exec_driver_sql

    def without(self: Connection, statement: str, *rest: Any) -> Any:
        return ask(self, statement.replace("'fts5'", "'no such module'"), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "exec_driver_sql", without)
        sessionstore.open(store_path).close()
    with closing(sqlite3.connect(store_path)) as raw:
        assert raw.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE 'message_words%'").fetchone() == (0,)
    with sessionstore.open(store_path) as store:
        store.session("s").append("user", "word")
        with pytest.raises(SearchUnavailableError, match="rebuild_search"):
            store.search("word")
        store.set_search("on")
        store.append("s", "user", "word")
        assert len(store.search("word")) == 2


# -- real conversations


def test_words_of_real_conversations_are_found_as_by_a_scan(
    store: SessionStore, airline_conversations: list[dict[str, Any]]
) -> None:
    """Each of them forked at every tenth message, and half of the parents deleted."""
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.randrange(2**32))
    print(f"SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    expected: dict[Place, str] = {}
    for number, conversation in enumerate(airline_conversations):
        messages = conversation["messages"]
        name = f"c{number:03}"
        store.session(name).append_many(messages)
        forks = range(10, len(messages) + 1, 10)
        for at in forks:
            store.fork(name, f"{name}-{at}", at=at, cut_pairs="keep")
        said = {seq: message["content"] or "" for seq, message in enumerate(messages, start=1)}
        if number % 2:
            store.delete(name)
            holders = {seq: next((f"{name}-{at}" for at in forks if at >= seq), None) for seq in said}
        else:
            holders = dict.fromkeys(said, name)
        expected |= {(holder, seq): said[seq] for seq, holder in holders.items() if holder is not None}
    words = {place: words_in(text) for place, text in expected.items()}
    vocabulary = sorted({word for held in words.values() for word in held})
    for word in chance.sample(vocabulary, 200):
        assert sorted(all_places(store, word, limit=1000)) == sorted(place for place, held in words.items() if word in held), word
    assert store.doctor().ok


def tell(store: SessionStore, *words: tuple[int, str]) -> None:
    """Messages of a session, as a collector is told of them."""
    from sessionstore.queries.collecting.arrivals import Figures
    from sessionstore.queries.collecting.sessions import Desk
    from sessionstore.rows import prepare

    at = "2026-01-01 00:00:00.000000"
    known = dict.fromkeys(Figures._fields) | {"session_id": "s", "agent_id": "a", "has_text": True, "at": at}

    def work(db: Any) -> None:
        desk = Desk(db, [("", "s")])
        for seq, text in words:
            row = prepare({"role": "user", "content": text}, max_bytes=10_000)
            desk.put_message("", Figures(**{**known, "seq": seq, "row": row}))
        desk.write_back()

    store._write(work)


def test_the_collector_keeps_its_index_in_step(store: SessionStore) -> None:
    """A message that is told again replaces its row, whose words change."""
    from sessionstore.queries import search_index

    tell(store, (3, "third words"), (1, "first words"))
    assert sorted(places(store.search("words"))) == [("s", 1), ("s", 3)]
    tell(store, (2, "second words"), (3, "changed"))
    assert sorted(places(store.search("words"))) == [("s", 1), ("s", 2)]
    assert places(store.search("changed")) == [("s", 3)]
    store.set_search("on")
    tell(store, (1, "other"), (4, "words"))
    assert store._read(search_index.missing) == 0
    assert sorted(places(store.search("words"))) == [("s", 2), ("s", 4)]
    assert store.doctor().ok


def test_what_a_collector_is_told_late_does_not_change_forks(store: SessionStore) -> None:
    tell(store, (1, "one"), (2, "two"), (4, "four"))
    store.fork("s", "fork", at=4)
    tell(store, (3, "late"), (2, "changed"), (5, "five"))
    texts = {name: [message.text for message in store.messages(name)] for name in ("s", "fork")}
    assert texts == {"s": ["one", "changed", "late", "four", "five"], "fork": ["one", "two", "four"]}
    assert [places(store.search(word)) for word in ("two", "changed", "late")] == [[("fork", 2)], [("s", 2)], [("s", 3)]]
    assert store.doctor().ok
