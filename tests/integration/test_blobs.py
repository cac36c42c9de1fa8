"""Large strings of messages stand in blobs, once each: they come back equal, cost nothing where nobody asks, and none is lost."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import ConflictError, NewMessage, SessionStore, StoreCorruptError
from sessionstore.large import LARGEST_INLINE
from sessionstore.queries import blobs

LARGE = "a large text, " * 6_000
SMALL = {"role": "user", "content": "small"}


def text_message(text: str = LARGE) -> dict[str, Any]:
    return {"role": "user", "content": text}


def picture(size: int = LARGEST_INLINE + 1, *, seed: int = 0) -> str:
    """A data URL as models take them."""
    data = random.Random(seed).randbytes(size)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def picture_message(url: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    return {"role": "user", "content": parts}


def rows(path: Path, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What another program reads from the file."""
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query, parameters).fetchall()


def change(path: Path, statement: str, *parameters: Any) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        assert raw.execute(statement, parameters).rowcount > 0


def references(path: Path) -> Counter[str]:
    return Counter(name for (name,) in rows(path, "SELECT hash FROM blob_references"))


def kept(path: Path) -> set[str]:
    return {name for (name,) in rows(path, "SELECT hash FROM blobs")}


def name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# -- what goes into a blob, and how it comes back


@pytest.mark.parametrize("size", [LARGEST_INLINE - 1, LARGEST_INLINE, LARGEST_INLINE + 1])
@pytest.mark.parametrize("character", ["x", "é", "語", "🙂"])
def test_a_text_of_more_than_64_kib_of_utf8_stands_in_a_blob(
    store: SessionStore, store_path: Path, size: int, character: str
) -> None:
    width = len(character.encode())
    text = character * (size // width) + "." * (size % width)
    assert len(text.encode()) == size
    store.create("s")
    stored = store.append("s", text_message(text))
    (read,) = store.messages("s")
    assert stored == read
    assert hash(stored) == hash(read)
    assert stored.to_dict() == read.to_dict() == text_message(text)
    assert stored.text == read.text == read.content == text
    assert len(rows(store_path, "SELECT 1 FROM blobs")) == (size > LARGEST_INLINE)
    assert bool(read.blobs) == (size > LARGEST_INLINE)


def test_a_picture_is_stored_as_its_bytes(store: SessionStore, store_path: Path) -> None:
    url = picture()
    store.create("s")
    store.append("s", picture_message(url))
    (read,) = store.messages("s")
    assert read.to_dict() == picture_message(url)
    assert read.text == "What is this?"
    data = base64.b64decode(url.partition(",")[2])
    blob = sessionstore.MessageBlob(
        path=("content", 1, "image_url", "url"), hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )
    assert read.blobs == (blob,)
    assert rows(store_path, "SELECT hash, size_bytes, encoding, data FROM blobs") == [(blob.hash, len(data), None, data)]


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda url: url + "\n",
        lambda url: url.replace("data:", "DATA:", 1),
        lambda url: url.rstrip("=") + "=",
        lambda url: url[:-4] + "AB==" if not url.endswith("=") else url[:-4] + "AAB=",
        lambda url: url.replace(";base64", "", 1),
        lambda url: url.replace("image/png", "image/" + "x" * 1_000, 1),
        lambda url: "data:;base64," + url,
        lambda url: url.replace("A", "-", 1),
        lambda url: url.replace("A", "é", 1),
        lambda url: "data:;base64," + "=" * len(url),
    ],
)
def test_what_only_looks_like_a_data_url_comes_back_to_the_letter(store: SessionStore, spoiled: Callable[[str], str]) -> None:
    message = picture_message(spoiled(picture()))
    store.create("s")
    assert store.append("s", message).to_dict() == message
    assert [read.to_dict() for read in store.messages("s")] == [message]


def test_a_text_that_looks_like_a_name_of_a_blob_is_a_text(store: SessionStore) -> None:
    name = "blob:sha256-" + name_of(LARGE)
    messages = [
        text_message(name),
        {"role": "user", "content": LARGE, "note": name},
        {"role": "user", "content": name, "note": LARGE},
    ]
    store.create("s")
    store.append_many("s", messages)
    assert [read.to_dict() for read in store.messages("s")] == messages


def test_metadata_that_looks_like_blobs_is_metadata(store: SessionStore) -> None:
    notes = {"blobs": [[["content"], name_of(LARGE), 5]]}
    store.create("s")
    stored = store.append("s", SMALL, metadata=notes)
    (read,) = store.messages("s")
    assert (read, read.to_dict(), read.metadata, read.blobs) == (stored, SMALL, notes, ())
    assert store.doctor().ok


def test_equal_contents_are_kept_once(store: SessionStore, store_path: Path) -> None:
    url = picture()
    other_kind = url.replace("image/png", "image/jpeg")
    messages = [
        text_message(),
        text_message(),
        picture_message(url),
        picture_message(other_kind),
        {"role": "user", "content": LARGE, "again": LARGE},
    ]
    store.create("s")
    store.create("t")
    for session_id in ("s", "t"):
        store.append_many(session_id, messages)
        assert [read.to_dict() for read in store.messages(session_id)] == messages
    assert len(kept(store_path)) == 2
    assert sorted(references(store_path).values()) == [4, 6]


def test_ids_of_tool_calls_stay_in_their_rows_and_their_arguments_are_found(store: SessionStore) -> None:
    """`check` does not look into blobs, but who makes up for an open call needs its arguments."""
    call = {"id": "c" * 100_000, "type": "function", "function": {"name": "write", "arguments": json.dumps({"text": LARGE})}}
    other = {**call, "id": "other"}
    store.create("s")
    store.append_many("s", [
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "other", "content": LARGE},
    ])  # fmt: skip
    (open_call,) = store.open_tool_calls("s")
    assert (open_call.call_id, open_call.arguments) == (call["id"], call["function"]["arguments"])  # type: ignore[index]
    assert [result.to_dict()["tool_call_id"] for result in store.repair("s")] == [call["id"]]
    assert store.check("s").ok
    assert [len(message.blobs) for message in store.messages("s", keep_pairs=True, blobs=False)] == [2, 1, 0]


TEXTS = st.text(max_size=3) | st.builds("語".__mul__, st.integers(20_000, 23_000))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.builds(lambda text, count: text * count, st.text(min_size=1, max_size=3), st.integers(20_000, 70_000))
    | st.builds(lambda size, seed: picture(size, seed=seed), st.integers(48_000, 70_000), st.integers(0, 2)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=20, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(
    contents=st.lists(st.tuples(TEXTS, JSON, JSON), max_size=3),
    compress_over=st.none() | st.integers(0, 1_000),
)
def test_whatever_is_large_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, contents: list[tuple[str, Any, Any]], compress_over: int | None
) -> None:
    messages: list[dict[str, Any]] = []
    for text, parts, more in contents:
        messages += [
            {"role": "user", "content": text, "more": more},
            {"role": "assistant", "content": parts},
            {"type": "x", "y": more},
        ]
    path = tmp_path_factory.mktemp("random") / "agent.db"
    with sessionstore.open(path, compress_over=compress_over, durability="normal") as store:
        session = store.session("s")
        stored = session.append_many(messages)
        read = session.messages()
        assert [message.to_dict() for message in read] == messages
        assert [message.to_dict() for message in stored] == messages
        assert read == stored == list(session.iterate(page_size=2))
        assert [message.text for message in read] == [message.text for message in stored]
        unread = session.messages(blobs=False)
        assert unread == read
        for message, whole in zip(unread, read, strict=True):
            assert message.blobs == whole.blobs
            shown = json.dumps(message.to_dict())
            assert all(f"blob:sha256-{blob.hash}" in shown for blob in message.blobs)
            assert len(shown) < 450_000 * 4
        session.archive()
        assert session.messages() == stored
        assert [message.to_dict() for message in session.messages()] == messages
        session.archive(archived=False)
        assert [message.to_dict() for message in session.iterate()] == messages
        assert store.doctor().ok


# -- what does not touch blobs


@pytest.fixture
def without_blobs(store: SessionStore, store_path: Path) -> SessionStore:
    """A store whose blobs are gone, so that looking for one is an error."""
    store.create("s", title="pictures")
    store.append_many("s", [text_message(), picture_message(picture()), SMALL])
    change(store_path, "DELETE FROM blobs")
    return store


def test_lists_stats_checks_and_readers_who_do_not_want_them_never_touch_blobs(without_blobs: SessionStore) -> None:
    store = without_blobs
    assert [message.text for message in store.messages("s", last=1)] == ["small"]
    first, second, third = store.messages("s", blobs=False)
    assert first.text == first.content == "blob:sha256-" + name_of(LARGE)
    assert second.to_dict()["content"][1]["image_url"] == {"url": f"blob:sha256-{second.blobs[0].hash}", "detail": "low"}
    assert second.text == "What is this?"
    assert list(store.iterate("s", blobs=False)) == [first, second, third]
    assert store.list().items[0].message_count == 3
    assert store.check("s").ok
    assert store.status().messages == 3
    assert store.overview()["failures"] is not None
    store.truncate("s", after=2)
    store.delete("s")


def test_a_missing_or_damaged_blob_is_told_when_it_is_read(without_blobs: SessionStore) -> None:
    store = without_blobs
    with pytest.raises(StoreCorruptError, match="is missing"):
        store.messages("s")
    with pytest.raises(StoreCorruptError, match="is missing"):
        list(store.iterate("s"))
    with pytest.raises(StoreCorruptError):
        store.messages("s", last=2)
    assert [(check.name, check.ok) for check in store.doctor().checks if check.name == "blobs"] == [("blobs", False)]


@pytest.mark.parametrize("entries", ['""', '["", 7]', '{"a": "{"}', "[[]]"])
def test_the_doctor_finds_entries_of_blobs_that_are_none(store: SessionStore, store_path: Path, entries: str) -> None:
    store.create("s")
    store.append("s", text_message())
    change(store_path, f"UPDATE messages SET facts = '{{\"blobs\": {entries}}}'")
    found = {check.name: check.ok for check in store.doctor().checks}
    assert (found["blobs"], found["checksums"]) == (False, False)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE blobs SET data = substr(data, 1, length(data) - 1)",
        "UPDATE blobs SET data = data || x'00'",
        "UPDATE blobs SET data = zeroblob(length(data))",
        "UPDATE blobs SET size_bytes = size_bytes + 1",
        "UPDATE blobs SET encoding = 'zlib'",
        "UPDATE blobs SET encoding = 'lzma'",
        "UPDATE blobs SET encoding = 'zstd', data = x'28b52ffd00'",
    ],
)
@pytest.mark.parametrize("message", [text_message(), picture_message(picture())], ids=["text", "picture"])
def test_no_damage_to_a_blob_is_read_as_valid(store: SessionStore, store_path: Path, damage: str, message: dict[str, Any]) -> None:
    store.create("s")
    store.append("s", message)
    change(store_path, damage)
    with pytest.raises(StoreCorruptError, match="damaged"):
        store.messages("s")
    assert not store.doctor().ok


@pytest.mark.parametrize("damage", ["data = zeroblob(length(data))", "size_bytes = 1", "encoding = 'lzma'"])
def test_a_damaged_blob_is_whole_again_when_its_content_is_stored_once_more(
    store: SessionStore, store_path: Path, damage: str
) -> None:
    store.create("s")
    store.append("s", text_message())
    change(store_path, f"UPDATE blobs SET {damage}")
    store.append("s", text_message())
    assert [message.to_dict() for message in store.messages("s")] == [text_message()] * 2
    assert store.doctor().ok


def test_a_blob_of_another_content_under_the_name_is_damage(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    store.append("s", text_message())
    other = b"another text, " * 6_000
    change(store_path, "UPDATE blobs SET encoding = NULL, data = ?, size_bytes = ?", other, len(other))
    with pytest.raises(StoreCorruptError, match="damaged"):
        store.messages("s")


def test_a_bomb_in_a_blob_is_told_and_never_unpacked(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    store.append("s", text_message())
    bomb = zlib.compress(bytes(200 << 20))
    change(store_path, "UPDATE blobs SET encoding = 'zlib', data = ?", bomb)
    with pytest.raises(StoreCorruptError):
        store.messages("s")
    change(store_path, "UPDATE blobs SET size_bytes = ?", 200 << 20)
    with pytest.raises(StoreCorruptError):
        store.messages("s")


@pytest.mark.parametrize("column", ["facts", "extra", "kind"])
def test_damage_beside_a_blob_is_found_too(store: SessionStore, store_path: Path, column: str) -> None:
    store.create("s")
    store.append("s", picture_message(picture()))
    change(store_path, f"UPDATE messages SET {column} = replace({column}, 'e', 'f')")
    with pytest.raises(StoreCorruptError):
        store.messages("s")
    with pytest.raises(StoreCorruptError):
        store.messages("s", blobs=False)


# -- dedupe


def test_a_repeated_append_of_a_large_message_changes_nothing(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    first = store.append("s", picture_message(picture()), dedupe_key="k")
    assert store.append("s", picture_message(picture()), dedupe_key="k") == first
    with pytest.raises(ConflictError):
        store.append("s", picture_message(picture(seed=1)), dedupe_key="k")
    with pytest.raises(ConflictError):
        store.append_many(
            "s", [NewMessage(text_message("a" * 70_000), dedupe_key="b"), NewMessage(text_message("b" * 70_000), dedupe_key="b")]
        )
    store.append_many("s", [NewMessage(text_message(), dedupe_key="c")] * 2)
    assert sum(references(store_path).values()) == 2
    store.archive("s")
    assert store.append("s", picture_message(picture()), dedupe_key="k") == first


# -- references and garbage


def expected_references(store: SessionStore, path: Path) -> Counter[str]:
    """What the rows themselves say of their blobs."""
    wanted: Counter[str] = Counter()
    for table in ("messages", "superseded_messages"):
        for (facts,) in rows(path, f"SELECT facts FROM {table} WHERE facts IS NOT NULL"):
            wanted.update({entry[1] for entry in json.loads(facts).get("blobs", [])})
    return wanted


@pytest.mark.parametrize("attempt", range(4))
def test_references_are_exact_whatever_is_done(store: SessionStore, store_path: Path, attempt: int) -> None:
    seed = int(os.environ.get("SESSIONSTORE_SEED") or random.SystemRandom().randrange(2**32)) + attempt
    print(f"SESSIONSTORE_SEED={seed}")
    chance = random.Random(seed)
    contents = [chr(ord("a") + number) * 70_000 for number in range(5)]
    names = [f"s{number}" for number in range(4)]
    model: dict[str, list[tuple[int, dict[str, Any]]]] = {}

    def message() -> dict[str, Any]:
        pick = chance.choice
        return pick(
            [
                SMALL,
                text_message(pick(contents)),
                picture_message(pick(contents)),
                {"role": "user", "content": pick(contents), "x": pick(contents)},
            ]
        )

    for step in range(120):
        name = chance.choice(names)
        held = model.get(name)
        match chance.choice(
            [
                "append",
                "append",
                "many",
                "pop",
                "truncate",
                "delete",
                "fork",
                "copy",
                "replace",
                "archive",
                "back",
                "sweep",
                "import",
            ]
        ):
            case "append" | "many" if held is None:
                store.create(name)
                model[name] = []
            case "append" if held is not None:
                new = message()
                held.append((store.append(name, new).seq, new))
            case "many" if held is not None:
                batch = [message() for _ in range(chance.randrange(4))]
                held += [(stored.seq, new) for stored, new in zip(store.append_many(name, batch), batch, strict=True)]
            case "pop" if held is not None:
                popped = store.pop(name)
                assert (popped and popped.to_dict()) == (held.pop()[1] if held else None)
            case "truncate" if held is not None:
                after = chance.randrange(len(held) + 2)
                store.truncate(name, after=after)
                model[name] = [each for each in held if each[0] <= after]
            case "delete" if held is not None:
                store.delete(name)
                del model[name]
            case "fork" | "copy" as how if held is not None and (target := chance.choice(names)) not in model:
                at = chance.randrange(held[-1][0] + 1) if held else 0
                store.fork(name, target, at=at, copy=how == "copy")
                model[target] = [each for each in held if each[0] <= at]
            case "replace" if held is not None and len(held) > 1:
                first, last = sorted(chance.sample(range(len(held)), 2))
                new = message()
                store.replace_range(name, held[first][0], held[last][0], [new])
                model[name] = [*held[:first], (held[first][0], new), *held[last + 1 :]]
            case "archive" | "back" as how if held is not None:
                store.archive(name, archived=how == "archive")
            case "import" if held is not None:
                file = store_path.parent / f"{step}.jsonl"
                store.export_file(file, session_ids=[name])
                store.import_file(file, on_conflict="replace")
            case "sweep":
                store.sweep()
                assert kept(store_path) == set(references(store_path))
            case _:
                continue
        assert references(store_path) == expected_references(store, store_path)
        assert set(references(store_path)) <= kept(store_path)
    for name, held in model.items():
        assert [(read.seq, read.to_dict()) for read in store.messages(name)] == held
    assert store.doctor().ok, store.doctor()
    store.delete(list(model))
    store.sweep()
    assert (kept(store_path), references(store_path)) == (set(), Counter())


def test_garbage_is_collected_in_short_transactions(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    store.append_many("s", [text_message(f"{number:05}" * 14_000) for number in range(250)])
    store.truncate("s", after=1)
    assert len(kept(store_path)) == 250
    commits = store.status().commits
    assert store.sweep() == sessionstore.SweepReceipt(expired=0, blobs=249)
    assert store.status().commits == commits + 3
    assert kept(store_path) == {name_of("00000" * 14_000)}
    assert store.sweep() == sessionstore.SweepReceipt(expired=0)
    assert store.status().commits == commits + 3


def test_erasing_can_collect_all_garbage_at_once(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    store.append_many("s", [text_message(f"{number:05}" * 14_000) for number in range(150)])
    store.truncate("s", after=10)
    assert store._write(blobs.collect_all) == 140
    assert len(kept(store_path)) == 10


def test_garbage_that_is_wanted_again_is_kept(store: SessionStore, store_path: Path) -> None:
    """The look for garbage and its deletion are two transactions; what is appended between them counts."""
    store.create("s")
    store.append("s", text_message())
    store.pop("s")
    ((name, _),) = store._read(blobs.unreferenced)
    store.append("s", text_message())
    assert store._write(lambda db: blobs.collect(db, [name])) == 0
    assert store.messages("s")[0].to_dict() == text_message()


def test_no_collection_takes_a_blob_while_an_append_of_its_content_commits(store: SessionStore) -> None:
    store.create("s")
    rounds = 60
    stop = threading.Event()
    trouble: list[Exception] = []

    def collect() -> None:
        try:
            while not stop.is_set():
                store.sweep()
        except Exception as error:
            trouble.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(rounds):
            content = LARGE + str(number % 2)
            store.append("s", text_message(content))
            assert store.messages("s", last=1)[0].to_dict() == text_message(content)
            store.pop("s")
    finally:
        stop.set()
        thread.join()
    assert trouble == []


COLLECT = """
import sys, sessionstore
with sessionstore.open(sys.argv[1], durability="normal") as store:
    print("ready", flush=True)
    while not sys.stdin.read(0) and store.get("stop") is None:
        store.sweep()
"""


def test_another_process_collects_no_blob_that_is_wanted(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    with subprocess.Popen(
        [sys.executable, "-c", COLLECT, str(store_path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        for number in range(40):
            content = LARGE + str(number % 2)
            store.append("s", text_message(content))
            assert store.messages("s", last=1)[0].to_dict() == text_message(content)
            store.pop("s")
        store.create("stop")
        assert other.wait(60) == 0


# -- words, sizes, pages


@pytest.mark.parametrize("compress_over", [None, 0])
def test_the_text_filter_sees_into_blobs_and_packed_rows(store_path: Path, compress_over: int | None) -> None:
    padding = "lorem ipsum dolor sit amet " * 3_000
    with sessionstore.open(store_path, compress_over=compress_over) as store:
        wanted = {
            "text": text_message("Needle " + padding),
            "part": {"role": "user", "content": [{"type": "text", "text": padding + "NEEDLE"}]},
            "short": text_message("a needle in " + "hay " * 500),
            "short part": {"role": "user", "content": [{"type": "text", "text": "hay " * 500 + "needle"}]},
        }
        unwanted = {
            "nothing": text_message(padding),
            "beside": {"role": "user", "content": "x", "note": "needle " + padding},
            "within": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "needle" + padding}}]},
            "name": text_message("blob" + padding),
        }
        for name, message in {**wanted, **unwanted}.items():
            store.session(name).append(message)
        assert {info.session_id for info in store.list(text="needle")} == set(wanted)
        assert store.count(text="needle") == len(wanted)
        assert {info.session_id for info in store.list(text="sha256")} == set()
        store.fork("text", "fork")
        assert {info.session_id for info in store.list(text="needle")} == {*wanted, "fork"}
        for name in wanted:
            store.archive(name)
        assert {info.session_id for info in store.list(text="needle", archived=None)} == {*wanted, "fork"}
        assert store.delete(text="needle").sessions == len(wanted) + 1


def test_a_page_of_large_blobs_takes_little_memory_at_a_time(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [text_message(f"{number:05}" * 14_000) for number in range(20)]
    store.create("s")
    store.append_many("s", messages)
    monkeypatch.setattr(blobs, "MOST_BYTES_A_PAGE", 200_000)
    assert [len(store._message_page("s", after=after, page_size=500, blobs=True)) for after in (0, 2, 19)] == [2, 2, 1]
    assert len(store._message_page("s", after=0, page_size=500, blobs=False)) == 20
    assert [message.to_dict() for message in store.iterate("s")] == messages


def test_retention_counts_blobs_and_packed_rows_as_they_are_stored(store: SessionStore) -> None:
    store.create("old")
    store.append("old", picture_message(picture(1_000_000)))
    store.create("packed")
    store.append("packed", text_message("a" * 60_000))
    store.archive("packed")
    store.create("new")
    assert store.prune(max_bytes=1_100_000, dry_run=True).session_ids == ()
    assert store.prune(max_bytes=900_000, dry_run=True).session_ids == ("old",)
    assert store.prune(max_bytes=1_000_500, dry_run=True).session_ids == ()


def test_a_deletion_of_superseded_messages_frees_their_blobs(store: SessionStore, store_path: Path) -> None:
    store.create("s")
    store.append("s", text_message())
    store.replace_range("s", 1, 1, [SMALL])
    assert [each.message.to_dict() for each in store.superseded("s")] == [text_message()]
    store.sweep()
    assert len(kept(store_path)) == 1
    store.clear_superseded("s")
    assert store.sweep().blobs == 1
    store.append("s", text_message())
    store.replace_range("s", 2, 2, [SMALL])
    store.delete("s")
    assert store.sweep().blobs == 1


def test_an_export_holds_what_stands_in_blobs(store: SessionStore, tmp_path: Path) -> None:
    messages = [text_message(), picture_message(picture()), SMALL]
    store.create("s")
    store.append_many("s", messages)
    store.archive("s")
    store.export_file(tmp_path / "all.jsonl", archived=None)
    with sessionstore.open(tmp_path / "other.db") as other:
        other.import_file(tmp_path / "all.jsonl")
        assert [message.to_dict() for message in other.messages("s")] == messages
        assert len(kept(tmp_path / "other.db")) == 2


def test_the_remote_is_told_the_whole_message(store: SessionStore, store_path: Path) -> None:
    store.set_remote(sessionstore.Remote("https://collector.example", sync_messages=True))
    store.create("s")
    store.append("s", text_message())
    bodies = [json.loads(body) for (body,) in rows(store_path, "SELECT body FROM outbox WHERE body LIKE '%a large text%'")]
    assert [body["message"] for body in bodies] == [text_message()]
