"""Compressed texts are texts to every call: nothing shows it but the size, what is damaged is told, and no bomb goes off."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import ConfigError, ConflictError, MissingExtraError, NewMessage, SessionStore, StoreCorruptError, packing
from sessionstore.queries import message_rows
from sessionstore.remote.compression import zstd

LONG = "The quick brown fox jumps over the lazy dog. " * 40
CALL = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": json.dumps({"words": LONG})}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": LONG},
    {"role": "assistant", "content": [{"type": "text", "text": LONG}, {"type": "text", "text": "and more"}], "name": "ann"},
    {"type": "note", "nested": {"text": LONG}},
    {"role": "user", "content": "short"},
]


@pytest.fixture(params=["zstd", "zlib"])
def compression(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What compresses: zstd, or zlib where there is no zstd."""
    if request.param == "zlib":
        monkeypatch.setattr(packing, "zstd", lambda: None)
    elif zstd() is None:
        pytest.skip("there is no zstd")
    return str(request.param)


@pytest.fixture
def packed(store_path: Path, compression: str) -> Iterator[SessionStore]:
    """A store with all kinds of compressed messages."""
    with sessionstore.open(store_path, compress_over=500) as opened:
        opened.session("s").append_many(MESSAGES)
        yield opened


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(query).fetchall()


def change(path: Path, statement: str, *parameters: Any) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        assert raw.execute(statement, parameters).rowcount > 0


def dicts(store: SessionStore) -> list[dict[str, Any]]:
    return [message.to_dict() for message in store.messages("s")]


# -- transparent


def test_what_was_compressed_comes_back_equal(packed: SessionStore, store_path: Path, compression: str) -> None:
    found = rows(store_path, "SELECT text, extra, substr(packed, 1, 1) FROM messages ORDER BY id")
    assert found[:5] == [(None, None, bytes([packing._FORMATS.index(compression)]))] * 5
    assert found[5] == ("short", None, None)
    assert dicts(packed) == MESSAGES
    assert [message.to_dict() for message in packed.iterate("s", page_size=2)] == MESSAGES
    assert packed.messages("s")[3].text == LONG + "\nand more"
    assert packed.check("s").ok
    assert [message.to_dict() for message in packed.messages("s", last=2)] == MESSAGES[-2:]
    assert packed.doctor().ok


def test_what_append_returns_is_what_is_read(store_path: Path, compression: str) -> None:
    with sessionstore.open(store_path, compress_over=0) as store:
        stored = store.session("s").append_many(
            [NewMessage(message, model="m", dedupe_key=f"k{n}") for n, message in enumerate(MESSAGES)]
        )
        read = store.messages("s")
        assert stored == read
        assert [hash(each) for each in stored] == [hash(each) for each in read]
        assert [each.model for each in read] == ["m"] * 6


def test_a_compressed_message_equals_the_same_one_that_is_not(store_path: Path, tmp_path: Path) -> None:
    with sessionstore.open(store_path) as store:
        plain = store.session("s").append_many(MESSAGES)
        store.archive("s")
        assert rows(store_path, "SELECT count(*) FROM messages WHERE packed IS NOT NULL") == [(5,)]
        assert store.messages("s") == plain


def test_nothing_is_compressed_unless_asked_for(store: SessionStore, store_path: Path) -> None:
    store.session("s").append_many(MESSAGES)
    assert rows(store_path, "SELECT count(*) FROM messages WHERE packed IS NOT NULL") == [(0,)]
    assert rows(store_path, "SELECT text FROM v_messages WHERE seq = 1") == [(LONG,)]


def test_sql_sees_no_text_of_a_compressed_message(packed: SessionStore, store_path: Path) -> None:
    for view in ("v_messages", "v_transcripts"):
        assert [row[0] for row in rows(store_path, f"SELECT text FROM {view} ORDER BY seq")] == [None] * 5 + ["short"]


@pytest.mark.parametrize("size", [999, 1_000, 1_001])
def test_only_what_is_longer_than_asked_for_is_compressed(store_path: Path, size: int) -> None:
    with sessionstore.open(store_path, compress_over=1_000) as store:
        store.session("s").append("user", "é" * 400 + "x" * (size - 800))
        assert rows(store_path, "SELECT packed IS NOT NULL FROM messages") == [(size > 1_000,)]


def test_what_does_not_get_smaller_stays_as_it_is(store_path: Path) -> None:
    noise = "".join(chr(code) for code in random.Random(0).choices(range(32, 127), k=60))
    with sessionstore.open(store_path, compress_over=0) as store:
        store.session("s").append("user", noise)
        assert rows(store_path, "SELECT packed IS NULL, length(text) FROM messages") == [(1, 60)]
        assert store.messages("s")[0].text == noise


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", True])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="compress_over"):
        sessionstore.open(tmp_path / "a.db", compress_over=wrong)


def test_every_edit_works_on_compressed_messages(packed: SessionStore) -> None:
    packed.fork("s", "fork", at=4)
    packed.fork("s", "copy", at=5, copy=True)
    assert [message.to_dict() for message in packed.messages("copy")] == MESSAGES[:5]
    packed.replace_range("s", 1, 1, [{"role": "user", "content": LONG + "!"}])
    assert [each.message.to_dict() for each in packed.superseded("s")] == MESSAGES[:1]
    assert [message.to_dict() for message in packed.messages("fork")] == MESSAGES[:4]
    popped = packed.pop("s")
    assert popped is not None
    assert popped.to_dict() == MESSAGES[5]
    packed.truncate("s", after=1)
    packed.delete("s")
    assert [message.to_dict() for message in packed.messages("fork")] == MESSAGES[:4]
    assert [message.to_dict() for message in packed.messages("copy")] == MESSAGES[:5]
    assert packed.doctor().ok, packed.doctor()


def test_a_dedupe_key_knows_a_compressed_message(packed: SessionStore) -> None:
    first = packed.append("s", "user", LONG, dedupe_key="k")
    assert packed.append("s", "user", LONG, dedupe_key="k") == first
    with pytest.raises(ConflictError):
        packed.append("s", "user", LONG + "!", dedupe_key="k")


@pytest.mark.parametrize("mode", ["on", "deferred"])
def test_search_finds_words_of_compressed_messages(store_path: Path, mode: Any) -> None:
    with sessionstore.open(store_path, compress_over=0) as store:
        store.set_search(mode)
        store.session("s").append_many(MESSAGES)
        assert sorted(hit.seq for hit in store.search("quick fox").items) == [1, 3, 4]
        store.archive("s")
        assert sorted(hit.seq for hit in store.search("quick fox").items) == [1, 3, 4]
        store.truncate("s", after=1)
        assert sorted(hit.seq for hit in store.search("quick fox").items) == [1]
        assert store.doctor().ok, store.doctor()


def test_status_tells_what_is_saved(packed: SessionStore) -> None:
    assert packed.status().storage is None
    packed.append("s", "user", "large " * 20_000)
    packed.append("s", "user", "large " * 20_000)
    sizes = packed.status(storage=True).storage
    assert sizes is not None
    plain = sum(len(json.dumps(message)) for message in MESSAGES[:5])
    assert (sizes.packed_messages, sizes.blobs, sizes.referred_bytes) == (5, 1, 240_000)
    assert 0.8 * plain < sizes.unpacked_bytes < 1.2 * plain
    assert sizes.packed_bytes < 0.3 * sizes.unpacked_bytes
    assert sizes.saved_bytes == sizes.unpacked_bytes - sizes.packed_bytes + 240_000 - sizes.blob_bytes
    assert sizes.saved_bytes > 200_000


def test_a_packed_row_that_would_pass_for_a_plain_one_is_not_packed(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in four thousand million has the same checksum without its text."""
    monkeypatch.setattr(message_rows, "first_damaged", lambda rows, seed: None)
    row = (1, "message", "user", LONG, None, None, "now", 5, None)
    assert message_rows.packed(row, b"small", 0) is row


# -- damage, bombs


def bomb(size: int, encoding: int = 0, *, claims: int | None = None) -> bytes:
    data = zlib.compress(bytes(size)) if encoding == 0 else zstd().compress(bytes(size))  # type: ignore[union-attr]
    return bytes([encoding]) + min(size if claims is None else claims, 2**32 - 1).to_bytes(4) + data


@pytest.mark.parametrize(
    "packed_bytes",
    [
        b"",
        b"\0",
        b"\0\0\0\0\1",
        b"\7" + bomb(100)[1:],
        bomb(200 << 20),
        bomb(200 << 20, claims=5),
        bomb(200 << 20, claims=packing.MOST_PACKED),
        bomb(200 << 20, 1),
        bomb(200 << 20, 1, claims=5),
        bomb(200 << 20, 1, claims=packing.MOST_PACKED),
        bomb(5, claims=0),
        bomb(5, claims=6),
        bomb(5)[:-1],
        bomb(5) + b"x",
        bomb(5, 1)[:-1],
        bomb(5, 1) + b"x",
        b"\0" + (10).to_bytes(4) + zlib.compress(b'["a","b","'),
        b"\0" + (13).to_bytes(4) + zlib.compress(b'["a","b","c"]'),
        b"\0" + (2).to_bytes(4) + zlib.compress(b"{}"),
        b"\0" + (7).to_bytes(4) + zlib.compress(b'["a",1]'),
        b"\0" + (10).to_bytes(4) + zlib.compress(b'["a",null]'),
        b"\0" + (100_000).to_bytes(4) + zlib.compress(b"[" * 100_000),
        b"\0" + (4).to_bytes(4) + zlib.compress(b"\xff\xff\xff\xff"),
    ],
    ids=range(23),
)
def test_neither_damage_nor_a_bomb_is_read_as_a_message(store: SessionStore, store_path: Path, packed_bytes: bytes) -> None:
    store.session("s").append_many(MESSAGES)
    store.archive("s")
    change(store_path, "UPDATE messages SET packed = ? WHERE seq = 2", packed_bytes)
    with pytest.raises(StoreCorruptError, match="message 2 of session 's' is damaged"):
        store.messages("s")
    (checksums,) = [check for check in store.doctor().checks if check.name == "checksums"]
    assert (checksums.ok, checksums.detail) == (False, "1 damaged: message 2 of 's'")
    assert store.list(text="quick", archived=None).items[0].session_id == "s"
    with pytest.raises(StoreCorruptError):
        store.archive("s", archived=False)
    store.delete("s")


def test_single_bits_of_a_compressed_row_are_never_read_as_another_text(packed: SessionStore, store_path: Path) -> None:
    ((good,),) = rows(store_path, "SELECT packed FROM messages WHERE seq = 1")
    chance = random.Random(5)
    changed = 0
    for _ in range(60):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        change(store_path, "UPDATE messages SET packed = ? WHERE seq = 1", bytes(bad))
        try:
            assert packed.messages("s", before=2)[0].text == LONG
        except (StoreCorruptError, MissingExtraError):
            changed += 1
    assert changed > 40


@pytest.mark.parametrize("column", ["kind", "facts", "created_at", "crc"])
def test_damage_beside_a_compressed_text_is_found(packed: SessionStore, store_path: Path, column: str) -> None:
    values = {"kind": "other", "facts": "{}", "created_at": "2020-01-01 00:00:00.000000", "crc": 5}
    change(store_path, f"UPDATE messages SET {column} = ? WHERE seq = 1", values[column])
    with pytest.raises(StoreCorruptError):
        packed.messages("s", before=2)


def test_damage_is_not_healed_by_being_moved_or_archived(store: SessionStore, store_path: Path) -> None:
    """A fork takes over the rows that its parent gives up; they get other ids, and so other checksums."""
    store.session("s").append_many(MESSAGES)
    store.fork("s", "fork", at=1, cut_pairs="keep")
    change(store_path, "UPDATE messages SET text = 'forged ' || text WHERE seq = 1")
    with pytest.raises(StoreCorruptError):
        store.fork("s", "copy", copy=True)
    store.archive("s")
    with pytest.raises(StoreCorruptError):
        store.messages("s")
    store.truncate("s", after=0)
    with pytest.raises(StoreCorruptError):
        store.messages("fork")


# -- without the extra

WITHOUT = """
import json, sys
sys.modules["compression"] = sys.modules["compression.zstd"] = sys.modules["backports.zstd"] = None
import sessionstore
path, do = sys.argv[1:]
with sessionstore.open(path, compress_over=100) as store:
    try:
        print(json.dumps({
            "read": lambda: [message.to_dict() for message in store.messages("s")],
            "list": lambda: [info.session_id for info in store.list(text="quick")],
            "small": lambda: [message.to_dict() for message in store.messages("s", last=1)],
            "write": lambda: store.session("t").append("user", "abc " * 100).text,
            "doctor": lambda: {check.name: check.ok for check in store.doctor().checks},
        }[do]()))
    except sessionstore.MissingExtraError as error:
        print(json.dumps({"extra": error.extra, "said": str(error)}))
"""


def without_zstd(path: Path, do: str) -> Any:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(path), do], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(zstd() is None, reason="there is no zstd")
def test_without_zstd_all_works_but_reading_what_zstd_wrote(store_path: Path) -> None:
    with sessionstore.open(store_path, compress_over=500) as store:
        store.session("s").append_many(MESSAGES)
    missing = without_zstd(store_path, "read")
    assert missing["extra"] == "zstd"
    assert 'pip install "sessionstore[zstd]"' in missing["said"]
    assert without_zstd(store_path, "list") == {**missing, "said": missing["said"].replace("reading", "looking for words in")}
    assert without_zstd(store_path, "small") == MESSAGES[-1:]
    assert without_zstd(store_path, "write") == "abc " * 100
    assert without_zstd(store_path, "doctor")["checksums"] is False
    with sessionstore.open(store_path) as store:
        assert dicts(store) == MESSAGES
        assert store.messages("t")[0].text == "abc " * 100
        assert store.doctor().ok


def test_the_error_names_the_extra(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if zstd() is None:
        pytest.skip("there is no zstd")
    with sessionstore.open(store_path, compress_over=500) as store:
        store.session("s").append_many(MESSAGES)
        monkeypatch.setattr(packing, "zstd", lambda: None)
        with pytest.raises(MissingExtraError, match=r"sessionstore\[zstd\]"):
            store.messages("s")


# -- the functions themselves


@pytest.mark.parametrize("level", [packing.LIVE_LEVEL, packing.ARCHIVE_LEVEL])
@pytest.mark.parametrize(("text", "extra"), [("a" * 500, None), (None, '{"a":"' + "b" * 500 + '"}'), ("\0é🙂" * 90, "{}")])
def test_packing_and_unpacking_give_the_same(compression: str, text: str | None, extra: str | None, level: int) -> None:
    small = packing.pack(text, extra, level=level)
    assert small is not None
    assert packing.unpack(small) == (text, extra)


def test_nothing_so_large_that_it_could_not_be_read_back_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_PACKED", 1_000)
    assert packing.pack("a" * 1_000, None, level=3) is None
    assert packing.pack("a" * 900, None, level=3) is not None
    monkeypatch.setattr(packing, "MOST_COMPRESSED", 1_000)
    assert packing.squeezed(b"a" * 1_001) == (None, b"a" * 1_001)
    assert packing.squeezed(b"a" * 1_000)[0] is not None
