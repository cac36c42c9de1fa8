"""Erased means erased: other processes read every byte of the file, its log and its shared memory, and find none of it.

Every place that can hold a text gets words of its own.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from trials import Trial

import sessionstore
from sessionstore import NewMessage, SessionStore

TOKENS = 300
SUFFIXES = ("", "-wal", "-shm", "-journal")
SCAN = """
import sys
from pathlib import Path
path, suffixes, found = sys.argv[1], sys.argv[2].split(","), set()
words = [word.encode() for word in sys.stdin.read().split()]
for suffix in suffixes:
    file = Path(path + suffix)
    if file.exists():
        # FTS folds letters.
        content = file.read_bytes().lower()
        found |= {word for word in words if word in content}
print(*sorted(word.decode() for word in found))
"""
ERASER = """
import sys, sessionstore
store = sessionstore.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
store.erase([f"s{number}" for number in range(30)])
print("done", flush=True)
"""


def scanned(path: Path, words: list[str]) -> list[str]:
    """Those of some words that another process finds in the files of a store."""
    command = [sys.executable, "-c", SCAN, str(path), ",".join(SUFFIXES)]
    return subprocess.run(command, input=" ".join(words), capture_output=True, text=True, check=True).stdout.split()


def indexed(path: Path) -> set[str]:
    """Every term of the search index."""
    terms: set[str] = set()
    with closing(sqlite3.connect(path)) as connection:
        for table in ("message_words", "message_trigrams"):
            connection.execute(f"CREATE VIRTUAL TABLE temp.{table}_terms USING fts5vocab(main, {table}, row)")
            terms.update(term for (term,) in connection.execute(f"SELECT term FROM temp.{table}_terms"))
    return terms


class Words:
    """Words that stand nowhere else, and every one that was given out."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.given: list[str] = []

    def __call__(self) -> str:
        self.given.append(f"zq{self._chance.getrandbits(80):020x}")
        return self.given[-1]


def fill(store: SessionStore, session: str, word: Words) -> None:
    """A session with words in every place that has any."""
    chat = store.session(
        session, user_id="alice", agent_id="a", title=word(), tags=[word()], metadata={"noted": word()}, ttl=86_400
    )
    chat.append("user", f"Said {word().upper()} twice.", metadata={"noted": word()}, dedupe_key=word())
    chat.append_many(
        [
            {"role": "user", "content": [{"type": "text", "text": word()}, {"type": "image_url", "image_url": {"url": word()}}]},
            {"role": "assistant", "content": f"{word()} " + "large " * 20_000},
            {"role": "user", "content": f"{word()} {'packed ' * 400}"},
            NewMessage({"any": word()}, kind="other"),
            {"role": "user", "content": f"漢字{word()}仮名"},
        ]
    )
    chat.replace_range(1, 1, [{"role": "user", "content": word()}])
    chat.set_state({word(): word()})
    chat.set_state({word(): word()}, scope="user")
    store.record("speed", 1, session_id=session, attributes={"noted": word()})
    store.log_activity("a", "spoke", details={"session_id": session, "said": word()})
    store.end(session, "failed", error=word())
    chat.append("user", word())
    chat.pop()


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def filled(tmp_path: Path, chance: random.Random) -> Iterator[tuple[SessionStore, Path, Words]]:
    """A store with 300 words and more in the sessions of alice, among others that stay."""
    path, word = tmp_path / "agent.db", Words(chance)
    with sessionstore.open(path, compress_over=500) as store:
        store.set_remote(sessionstore.Remote("http://127.0.0.1:9", sync_messages=True))
        for number in range(TOKENS // 18 + 1):
            fill(store, f"s{number}", word)
            store.session(f"t{number}").append("user", f"kept {number} " + "x" * chance.randrange(3000))
            store.search("said")
        yield store, path, word


@pytest.mark.fault("F34")
def test_nothing_of_300_words_is_left(filled: tuple[SessionStore, Path, Words], trial: Trial) -> None:
    store, path, word = filled
    assert len(word.given) >= TOKENS
    # What is packed or folded stands there in other bytes.
    assert len(scanned(path, word.given)) > len(word.given) * 0.8
    assert set(word.given) & indexed(path)
    receipt = store.erase(user_id="alice")
    assert (receipt.complete, receipt.reasons) == (True, ())
    assert (receipt.superseded, receipt.blobs, receipt.activity) == (len(receipt.session_ids),) * 3
    assert scanned(path, word.given) == []
    assert set(word.given) & indexed(path) == set()
    assert store.doctor().ok
    assert all(store.messages(info.session_id)[0].text for info in store.list(limit=1000).items)
    trial.report(f"0 of {len(word.given)} words found in file, log, shared memory and index")


@pytest.mark.fault("F34")
def test_a_pinned_reader_keeps_it_from_being_complete(filled: tuple[SessionStore, Path, Words]) -> None:
    store, path, word = filled
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        assert not store.erase(user_id="alice").complete
        assert scanned(path, word.given) != []
        reader.execute("COMMIT")
    assert store.erase(user_id="alice").complete
    assert scanned(path, word.given) == []


@pytest.mark.fault("F34")
def test_what_moved_between_pages_leaves_nothing_either(tmp_path: Path, chance: random.Random, trial: Trial) -> None:
    """SQLite moves rows when pages fill up, without overwriting what they leave behind."""
    erasures = trial.size(push=3, nightly=20, release=60)
    for number in range(erasures):
        path, word = tmp_path / f"{number}.db", Words(chance)
        names = [f"s{index}" for index in range(30)]
        with sessionstore.open(path, durability="normal") as store:
            for name in names:
                store.session(name)
            for _ in range(400):
                store.append(chance.choice(names), "user", word() + "x" * chance.randrange(600))
            going = set(chance.sample(names, 15))
            mine = [message.text[:22] for name in going for message in store.messages(name)]
            receipt = store.erase(sorted(going))
            assert receipt.complete
            assert scanned(path, mine) == []
            assert len(store.list(limit=100).items) == 15
    trial.report(f"{erasures} random histories, 15 sessions of each erased: 0 words left")


@pytest.mark.fault("F34")
def test_a_family_that_is_erased_one_by_one_leaves_nothing(tmp_path: Path, chance: random.Random, trial: Trial) -> None:
    """Whoever of it goes first, the others keep what they share; what is said to be complete is gone at once."""
    erasures = trial.size(push=3, nightly=20, release=60)
    for number in range(erasures):
        path, word = tmp_path / f"family-{number}.db", Words(chance)
        with sessionstore.open(path, durability="normal", compress_over=chance.choice([None, 100])) as store:
            store.set_search(chance.choice(["on", "deferred"]))
            names = grown(store, word, chance)
            chance.shuffle(names)
            for name in names:
                mine = [str(message.text)[: len(word.given[0])] for message in store.messages(name)]
                receipt = store.erase(name, forks="keep")
                if receipt.complete:
                    assert scanned(path, mine) == [], receipt
            assert receipt.complete
            assert store.doctor().ok
        assert scanned(path, word.given) == []
        assert set(word.given) & indexed(path) == set()
    trial.report(f"{erasures} families of forks, erased one by one: 0 words left")


def grown(store: SessionStore, word: Words, chance: random.Random) -> list[str]:
    """The names of a session and its forks, forks of these, and so on, edited in many ways."""
    names = ["s0"]

    def say(name: str, many: int) -> None:
        ends = ("", "x" * chance.randrange(600), " l" * 40_000, " p" * 400, "漢字")
        store.session(name).append_many([{"role": "user", "content": word() + chance.choice(ends)} for _ in range(many)])

    say("s0", 8)
    for number in range(30):
        name = chance.choice(names)
        info = store.get(name)
        assert info is not None
        last = info.last_seq
        what = chance.choice(["say", "fork", "fork", "pop", "truncate", "replace", "archive", "clear"])
        if what == "say":
            say(name, 3)
        elif what == "fork":
            names.append(f"s{number + 1}")
            store.fork(name, names[-1], at=chance.randint(0, last))
        elif what == "pop":
            store.pop(name)
        elif what == "truncate":
            store.truncate(name, after=chance.randrange(last + 1))
        elif what == "archive":
            store.archive(name)
        elif what == "clear" and number > 25:
            store.clear(name)
        elif store.messages(name):
            first = chance.choice([message.seq for message in store.messages(name)])
            store.replace_range(name, first, chance.randint(first, last), [{"role": "user", "content": word()}])
    return names


@pytest.mark.fault("F34")
def test_an_encrypted_store_erases_too(tmp_path: Path, chance: random.Random) -> None:
    pytest.importorskip("sqlcipher3", reason="the extra `encryption` is not installed")
    path, word = tmp_path / "agent.db", Words(chance)
    with sessionstore.open(path, key=bytes(range(32))) as store:
        fill(store, "s", word)
        assert store.search("packed").items
        assert store.erase(user_id="alice").complete
        assert store.doctor().ok


@pytest.mark.fault("F34")
def test_after_a_kill_another_erase_leaves_nothing(tmp_path: Path, chance: random.Random, trial: Trial) -> None:
    killed = 0
    kills = trial.size(push=3, nightly=25, release=100)
    for number in range(kills):
        path, word = tmp_path / f"{number}.db", Words(chance)
        with sessionstore.open(path, durability="normal") as store:
            for index in range(30):
                chat = store.session(f"s{index}")
                chat.append_many([{"role": "user", "content": f"{word()} {'x' * 2000}"} for _ in range(20)])
            store.search("x")
        with subprocess.Popen([sys.executable, "-c", ERASER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as eraser:
            assert eraser.stdin is not None
            assert eraser.stdout is not None
            assert eraser.stdout.readline() == b"ready\n"
            eraser.stdin.write(b"\n")
            eraser.stdin.flush()
            with suppress(subprocess.TimeoutExpired):
                eraser.wait(chance.uniform(0, 0.3))
            eraser.send_signal(signal.SIGKILL)
            killed += b"done" not in eraser.stdout.read()
        with sessionstore.open(path) as store:
            assert store.count() in (0, 30), "the rows go in one transaction"
            assert store.doctor().ok
            assert store.erase([f"s{index}" for index in range(30)]).complete
            assert scanned(path, word.given) == []
    assert killed
    trial.report(f"{kills} kills, {killed} of them before its end: each erased whole by the next, 0 words left")
