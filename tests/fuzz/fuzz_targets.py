"""Targets: functions of bytes that return, whatever the bytes are, as long as the promise that each one names is kept.

`make fuzz` gives them to a fuzzer that is guided by coverage; the tests run them on the seeds and on mutations of these.
"""

from __future__ import annotations

import io
import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import sessionstore
from sessionstore import (
    ConfigError,
    ConflictError,
    InvalidInputError,
    ModelError,
    QuotaError,
    SessionStore,
    StoreCorruptError,
    UnsafePathError,
    config,
    content,
    inputs,
    large,
    masking,
    packing,
    search_terms,
)
from sessionstore.chat.answers import checked_answer
from sessionstore.chat.completions import StreamedAnswer, answer_of
from sessionstore.formats import arrays, deep_agent, file_names, jsonlines, native
from sessionstore.keys import EncryptionKey
from sessionstore.memory import names
from sessionstore.queries import cursors
from sessionstore.remote import answers, backoff, capabilities
from sessionstore.remote.credentials import ApiKey
from sessionstore.remote.events import PATHS
from sessionstore.remote.requests import Request, item, request
from sessionstore.remote.settings import Remote
from sessionstore.remote.settlement import QueuedEvent

Target = Callable[[bytes], None]
TARGETS: Final[dict[str, Target]] = {}
NOW: Final = datetime(2026, 3, 28, 12, tzinfo=UTC)
_KEY: Final = "canary/key+0123456789abcdef"
_MOST_BYTES: Final = 1 << 20


def target(function: Target) -> Target:
    """Note a target under its name."""
    TARGETS[function.__name__] = function
    return function


# -- files that are imported


def _imports(file_format: str, data: bytes, **more: Any) -> None:
    """A file is stored, or refused as one; what is stored can be read and is the same after it was written out and read again."""
    store, second = _stores()
    with suppress(InvalidInputError, ConflictError, QuotaError):
        store.import_file(io.BytesIO(data), format=file_format, on_conflict="new-id", **more)
    _require_same_again(store, second)


def _require_same_again(store: SessionStore, second: SessionStore) -> None:
    written = io.BytesIO()
    store.export_file(written, all_namespaces=True)
    if store.namespaces():
        second.import_file(io.BytesIO(written.getvalue()))
        again = io.BytesIO()
        second.export_file(again, all_namespaces=True)
        assert again.getvalue() == written.getvalue(), "what was stored is not what is read"
        _empty(second)
        _empty(store)


def _empty(store: SessionStore) -> None:
    for namespace in store.namespaces():
        inside = store.in_namespace(namespace)
        for session in inside.list(limit=1_000, archived=None).items:
            inside.delete(session.session_id)
        inside.delete(status="expired")
    for table in ("metric_events", "agents", "agent_activity", "state_values"):
        store._write(lambda db, table=table: db.driver.execute(f"DELETE FROM {table}"))


@cache
def _stores() -> tuple[SessionStore, SessionStore]:
    return sessionstore.open(in_memory=True), sessionstore.open(in_memory=True)


@target
def openai_file(data: bytes) -> None:
    """Conversations, one a line."""
    _imports("openai", data)


@target
def openai_messages_file(data: bytes) -> None:
    """Messages, one a line."""
    _imports("openai-messages", data, session_id="s")


@target
def responses_file(data: bytes) -> None:
    """Lists of items, one a line."""
    _imports("responses", data)


@target
def responses_items_file(data: bytes) -> None:
    """Items, one a line."""
    _imports("responses-items", data, session_id="s")


@target
def deep_agent_file(data: bytes) -> None:
    """A JSON array of messages in Go's layout."""
    _imports("go-deep-agent", data, session_id="s")


@target
def native_file(data: bytes) -> None:
    """The lossless format, damaged at random: its checksum refuses nearly all."""
    _imports("sessionstore", data)


@target
def native_lines(data: bytes) -> None:
    """Lines of the lossless format under a header and a trailer that fit them: each value is looked at."""
    _imports("sessionstore", sealed(data))


def sealed(lines: bytes) -> bytes:
    """Lines with a header before them and the trailer that fits."""
    body = native.header_line().encode() + b"".join(line + b"\n" for line in lines.split(b"\n") if line)
    kinds = [_kind(line) for line in lines.split(b"\n") if line]
    trailer = native.Trailer(kinds.count("session"), kinds.count("message"), _sha256(body), len(kinds))
    return body + native.end_line(trailer).encode()


def _sha256(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()


def _kind(line: bytes) -> object:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found.get("type") if isinstance(found, dict) else None


@target
def told_file(data: bytes) -> None:
    """A file of a format that nobody names, plain or packed."""
    _imports("auto", data)


@target
def llm_values(data: bytes) -> None:
    """An `llm` database whose rows hold anything: SQLite lets any value stand in any column."""
    from fuzz_seeds import llm_database

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.db"
        llm_database(path, data)
        store, second = _stores()
        with suppress(InvalidInputError, ConflictError):
            store.import_file(path, format="llm", on_conflict="new-id")
        _require_same_again(store, second)


@target
def llm_file(data: bytes) -> None:
    """An `llm` database with damaged bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.db"
        path.write_bytes(data)
        store, second = _stores()
        with suppress(InvalidInputError, ConflictError):
            store.import_file(path, format="llm", on_conflict="new-id")
        _require_same_again(store, second)


@target
def json_lines(data: bytes) -> None:
    """A line is an object that is written back equal, or no object."""
    try:
        found = jsonlines.loads(data)
    except jsonlines.NotAnObjectError:
        return
    try:
        inputs.json_object("line", found, max_bytes=_MOST_BYTES)
    except InvalidInputError:
        return
    assert same(jsonlines.loads(jsonlines.dumps(found).encode()), found)


@target
def json_arrays(data: bytes) -> None:
    """An array has the elements that the standard library finds, or is none."""
    try:
        found = [value for _, value in arrays.elements(data)]
    except arrays.BadArrayError:
        return
    with suppress(RecursionError):
        # What is nested as deep as can be read can hardly be compared.
        assert same(found, json.loads(data.decode()) or [])


@target
def deep_agent_messages(data: bytes) -> None:
    """The memory file of another program: what is read of it is written so that it is read again."""
    try:
        found = deep_agent.messages_of(data)
        for message in found:
            content.encode(message, kind=None, max_bytes=_MOST_BYTES)
    except (arrays.BadArrayError, InvalidInputError):
        return
    assert same(deep_agent.messages_of(deep_agent.text_of(found).encode()), found)


# -- what is stored


@target
def message(data: bytes) -> None:
    """A message is refused, or comes back equal from its columns, its large strings from their blobs."""
    try:
        given = content.decoded(data.decode())
        stored = content.encode(given, kind=None, max_bytes=_MOST_BYTES)
    except (ValueError, InvalidInputError):
        return
    assert same(content.decode(stored.role, stored.text, stored.extra), given)
    light, taken = large.lightened(stored, 100)
    restored = () if taken is None else taken.restored
    assert same(large.whole(light.role, light.text, light.extra, restored), given)
    if taken is not None and taken.packed is not None:
        assert packing.unpack(taken.packed) == (light.text, light.extra)


@target
def packed_message(data: bytes) -> None:
    """What claims to be a packed message is one, or damaged, and never larger than anything that is packed."""
    with suppress(packing.DamagedPackingError):
        packing.unpack(data)


@target
def packed_blob(data: bytes) -> None:
    """What claims to be a packed blob has the size that it says, or is damaged."""
    size = int.from_bytes(data[:3])
    for encoding in (packing.ZLIB, packing.ZSTD, "odd"):
        try:
            plain = packing.decompressed(encoding, data[3:], size, most=packing.MOST_PACKED)
        except packing.DamagedPackingError:
            continue
        assert len(plain) == size


@target
def stored_row(data: bytes) -> None:
    """A row of a message with a value of it replaced by anything is read as it was, or called damaged."""
    store, connection, columns, given = _file()
    if not data:
        return
    row, column = data[0] % 3 + 1, columns[data[0] // 3 % len(columns)]
    value: object = data[1:] if data[0] > 127 else data[1:].decode(errors="replace")
    old = connection.execute(f"SELECT {column} FROM messages WHERE id & 0xffffff = ?", (row,)).fetchone()[0]
    try:
        connection.execute(f"UPDATE messages SET {column} = ? WHERE id & 0xffffff = ?", (value, row))
    except sqlite3.OperationalError:
        # An index is made of the JSON in it.
        return
    try:
        _require_given(store, given)
    finally:
        connection.execute(f"UPDATE messages SET {column} = ? WHERE id & 0xffffff = ?", (old, row))


@target
def stored_blob(data: bytes) -> None:
    """A blob with anything in it is read as it was, or called damaged."""
    store, connection, _, given = _file()
    names = connection.execute("SELECT hash, size_bytes, encoding, data FROM blobs").fetchone()
    size = int.from_bytes(data[1:4]) if data and data[0] & 2 else names[1]
    encoding = ("zlib", "zstd", None, "odd")[data[0] >> 2 & 3] if data else None
    put = "UPDATE blobs SET size_bytes = ?, encoding = ?, data = ?"
    connection.execute(put, (size, encoding, data[4:]))
    try:
        _require_given(store, given)
    finally:
        connection.execute(put, names[1:])


def _require_given(store: SessionStore, given: list[dict[str, Any]]) -> None:
    """However messages are read, they are those that were given, or called damaged."""
    for read in (store.messages, store.iterate):
        try:
            assert [each.to_dict() for each in read("s")] == given
        except StoreCorruptError:
            continue
    store.doctor()


@cache
def _file() -> tuple[SessionStore, sqlite3.Connection, tuple[str, ...], list[dict[str, Any]]]:
    """A store of a plain, a packed and a large message, and another connection to its file."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    path = Path(folder.name) / "agent.db"
    store = sessionstore.open(path, durability="normal", compress_over=100)
    given = [
        {"role": "user", "content": "plain", "name": "bob"},
        {"role": "user", "content": "packed " * 100},
        {"role": "user", "content": "large " * 20_000},
    ]
    store.session("s").append_many(given)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON")
    columns = ("role", "text", "extra", "facts", "created_at", "crc", "packed", "kind")
    _FOLDERS.append(folder)
    return store, connection, columns, given


_FOLDERS: Final[list[tempfile.TemporaryDirectory[str]]] = []


@target
def cursor(data: bytes) -> None:
    """A cursor that nobody gave out is refused."""
    try:
        cursors.opened("next", data.decode(errors="surrogateescape"), ("filters", 1))
    except InvalidInputError:
        return
    raise AssertionError("a made-up cursor passed")


@target
def encryption_key(data: bytes) -> None:
    """A key is 32 bytes or a text of them, or refused without being shown."""
    for given in (data, data.decode(errors="surrogateescape")):
        try:
            key = EncryptionKey(given)
        except ConfigError as error:
            assert len(given) < 4 or str(given) not in str(error)  # noqa: PT017 - any input may pass
        else:
            assert "****" in repr(key) or str(given) not in repr(key)


@target
def masked_text(data: bytes) -> None:
    """Whatever stands around a key of a known shape, it does not get into a log, and masking ends soon."""
    text = data[:10_000].decode(errors="surrogateescape")
    assert "sk-abcdefgh12345678" not in masking.mask(text + " sk-abcdefgh12345678 " + text)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    masking.masked(found)


@target
def file_name(data: bytes) -> None:
    """The name of an id is no path and stands for that id alone."""
    text = data.decode(errors="ignore")
    try:
        session_id = inputs.identifier("session_id", text)
    except InvalidInputError:
        return
    name = file_names.file_name(session_id, set())
    assert len(name.encode()) <= 255
    assert not set('/\\:*?"<>|\0') & set(name)
    assert name not in (".", "..")
    assert names.is_cut(names.name_of(session_id)) or names.id_of(names.name_of(session_id)) == session_id
    names.id_of(text)


@target
def search(data: bytes) -> None:
    """What is typed is searched for, or is too long; it is never syntax."""
    text = data.decode(errors="ignore")
    store = _library()
    for match in ("words", "prefix"):
        try:
            search_terms.parsed(text, match)
            store.search(text, match=match)  # type: ignore[arg-type]
        except InvalidInputError as error:
            assert error.limit in (search_terms.MAX_QUERY_CHARS, search_terms.MAX_TERMS)  # noqa: PT017 - any input may pass


@target
def raw_search(data: bytes) -> None:
    """FTS5's own syntax is answered, or refused."""
    with suppress(InvalidInputError):
        _library().search_raw(data.decode(errors="ignore"))


@target
def user_sql(data: bytes) -> None:
    """A statement reads, or is refused, and changes nothing."""
    text = data.decode(errors="ignore")
    if "recursive" in text.lower() or "randomblob" in text.lower() or "zeroblob" in text.lower():
        # They may take as long, or as much, as they say.
        return
    store = _library()
    with suppress(InvalidInputError):
        store.query(text, limit=10)
    assert store.count() == 1


@cache
def _library() -> SessionStore:
    store = sessionstore.open(in_memory=True)
    chat = store.session("s", title="title", metadata={"k": 1})
    chat.append("user", "the quick brown fox don't C++ foo-bar \u6f22\u5b57 \u0e01\u0e32\u0e23")
    chat.append("assistant", "jumps over the lazy dog")
    return store


# -- what comes over the network


def _event(number: int) -> QueuedEvent:
    body = '{"agent_id":"a","session_id":"s"}'
    return QueuedEvent(number, f"key-{number}", f"session:{number}", "conversation_start", "default", body, 0,
                       "2026-03-28 11:00:00.000000", len(body), None, None)  # fmt: skip


@cache
def _requests() -> tuple[Request, Request]:
    ours = capabilities.Capabilities(batch_path="/events/batch", max_events=500)
    batch = request([item(_event(number)) for number in range(3)], ours, source="store", compressed=False)
    return batch, request([item(_event(1))], capabilities.PLAIN, source="store", compressed=False)


@target
def remote_answer(data: bytes) -> None:
    """Any answer means something, marks events of the request only, and what is kept of it can be stored and tells no key."""
    status = 100 + int.from_bytes(data[:2]) % 900
    header, _, body = data[2:].partition(b"\n")
    headers = {"retry-after": header.decode("latin-1"), "location": header.decode("latin-1")}
    for sent in _requests():
        verdict = answers.judge(answers.Answer(status, headers, body, ApiKey(_KEY)), sent, NOW)
        keys = {each.event.key for each in sent.items}
        assert verdict.refused.keys() <= keys
        assert verdict.unmarked <= keys
        for words in (verdict.error, *verdict.refused.values()):
            assert len(words.encode()) < 2_000
            assert _KEY not in words
        if verdict.meaning is answers.Meaning.DELIVERED:
            assert 200 <= status < 300
    wait = backoff.retry_after(header.decode("latin-1"), NOW)
    assert wait is None or 0 < wait.total_seconds() <= 3_600


@target
def remote_capabilities(data: bytes) -> None:
    """What a remote says that it can do is within what this library does."""
    found = capabilities.parsed(data)
    if found is not None:
        assert found.batch_path is not None
        assert Remote("https://h/v1" + found.batch_path).base_url.startswith("https://h/v1/")
        assert 0 < found.max_events <= capabilities.MAX_EVENTS
        assert 0 < found.max_bytes <= capabilities.MAX_BYTES
        assert found.kinds <= frozenset(PATHS)


@target
def model_answer(data: bytes) -> None:
    """A model's answer can be used and stored, or is none; whole, or in the chunks of a stream."""
    for read in (_whole_answer, _streamed_answer):
        try:
            answer = checked_answer(read(data))
        except ModelError:
            continue
        content.encode(answer.message, kind=None, max_bytes=_MOST_BYTES)


def _whole_answer(data: bytes) -> Any:
    return answer_of(data)


def _streamed_answer(data: bytes) -> Any:
    streamed = StreamedAnswer()
    for line in data.decode(errors="replace").splitlines():
        streamed.take(line)
    return streamed.answer()


@target
def collector_batch(data: bytes) -> None:
    """A collector takes each event of a batch or says what is wrong with it, or with the batch."""
    from sessionstore.collector import arriving
    from sessionstore.collector.problems import Problem

    try:
        found = arriving.batch("tenant", data)
    except (Problem, InvalidInputError):
        return
    for each in found:
        if isinstance(each.arrival, arriving.Refused):
            assert each.arrival.reason


@target
def collector_event(data: bytes) -> None:
    """The same for an event that is posted alone, to the endpoint of any kind."""
    from sessionstore.collector import arriving
    from sessionstore.collector.problems import Problem

    for kind in PATHS:
        try:
            arriving.single(arriving.Post("tenant", "source", "namespace", None, kind, data))
        except (Problem, InvalidInputError):
            continue


@target
def collector_body(data: bytes) -> None:
    """A packed body is unpacked within bounds, or refused."""
    from sessionstore.collector import reading
    from sessionstore.collector.problems import Problem

    for encoding in reading.ENCODINGS:
        try:
            assert len(reading.unpacked(data, encoding)) <= capabilities.MAX_BYTES
        except Problem:
            continue


# -- addresses


@target
def location(data: bytes) -> None:
    """A location names one file, or is refused."""
    text = data.decode(errors="surrogateescape")
    try:
        path, _ = config.locate(text or ".")
    except (ConfigError, UnsafePathError):
        return
    assert "\0" not in str(path)
    assert str(path)


@target
def remote_url(data: bytes) -> None:
    """An address is normal, private or allowed, and without secrets, or it is refused without them being shown."""
    text = data.decode(errors="surrogateescape")
    secret = "hunter2hunter2"
    for given in (text, f"https://u:{secret}@{text}", f"{text}?api_key={secret}"):
        try:
            remote = Remote(given)
        except ConfigError as error:
            assert secret not in str(error)  # noqa: PT017 - any input may pass
        else:
            assert secret not in remote.base_url
            assert remote.base_url == Remote(remote.base_url).base_url
            assert remote.base_url.startswith(("https://", "http://"))


def same(left: object, right: object) -> bool:
    """Equal in value and type, so that 1, 1.0 and True are three things."""
    # Through JSON first: keys that lie of themselves cannot be sorted.
    first, second = (json.dumps(json.loads(json.dumps(each)), sort_keys=True) for each in (left, right))
    return first == second


def close_all() -> None:
    """Close what the targets opened."""
    for cached in (_stores, _library, _file):
        if cached.cache_info().currsize:
            found = cached()
            for each in found if isinstance(found, tuple) else (found,):
                if isinstance(each, SessionStore | sqlite3.Connection):
                    each.close()
            cached.cache_clear()
    while _FOLDERS:
        _FOLDERS.pop().cleanup()
