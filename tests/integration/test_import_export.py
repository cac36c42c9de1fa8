"""Conversations into files and back: nothing is lost, nothing bad gets in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import (
    ClosedStoreError,
    ConflictError,
    InvalidInputError,
    NewMessage,
    NotFoundError,
    QuotaError,
    ReadOnlyStoreError,
    SessionInfo,
    SessionStore,
    StoreCorruptError,
)
from sessionstore.formats import native
from sessionstore.inputs import LONGEST_LIFE
from sessionstore.queries import transfer
from sessionstore.rows import prepare
from sessionstore.values import MAX_SEQ

WHEN = datetime(2025, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
HELLO = {"role": "user", "content": "hello"}

Everything = list[tuple[SessionInfo, list[dict[str, Any]]]]


def everything(store: SessionStore) -> Everything:
    """All that a store holds, except for what only the file knows."""
    found = []
    for namespace in store.namespaces():
        part = store.in_namespace(namespace)
        infos = [info for archived in (False, True) for info in part.list(limit=1000, archived=archived)]
        for info in sorted(infos, key=lambda info: info.session_id):
            found.append((info, [native.message_object(message) for message in part.messages(info.session_id)]))
    return found


def fill(store: SessionStore) -> None:
    """Sessions with everything that a session can have."""
    store.create("full", user_id="u", agent_id="a", title="T", tags=["x", "y"], metadata={"k": [1, {"d": None}]}, pinned=True)
    store.append_many(
        "full",
        [
            NewMessage(HELLO, dedupe_key="d-1", created_at=WHEN, metadata={"note": "é"}),
            NewMessage(
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
                model="m-1",
                finish_reason="tool_calls",
                input_tokens=1,
                output_tokens=2,
                cache_read_tokens=3,
                reasoning_tokens=4,
                response_time_ms=5.5,
            ),
            {"role": "tool", "tool_call_id": "c", "content": ""},
            {"type": "reasoning", "summary": []},
            NewMessage({"any": ["shape"]}, kind="own"),
        ],
    )
    store.pop("full")
    store.append("full", {"role": "user", "content": [{"type": "text", "text": "parts"}]})
    store.update("full", title="T2")
    store.end("full", "failed", quality_score=2, error="boom")
    store.create("empty")
    store.archive("empty")
    store.in_namespace("team").session("full").append("user", "the same id elsewhere")


@pytest.fixture
def filled(store: SessionStore) -> SessionStore:
    fill(store)
    return store


@pytest.fixture
def other(tmp_path: Path) -> Any:
    with sessionstore.open(tmp_path / "other.db") as opened:
        yield opened


def exported(store: SessionStore, **options: Any) -> bytes:
    stream = io.BytesIO()
    store.export_file(stream, **options)
    return stream.getvalue()


def resealed(lines: list[bytes]) -> bytes:
    """Lines with a trailer that fits them."""
    body = b"".join(lines)
    kinds = [json.loads(line).get("type") for line in lines if line.strip()]
    trailer = native.Trailer(kinds.count("session"), kinds.count("message"), hashlib.sha256(body).hexdigest())
    return body + native.end_line(trailer).encode()


# -- real conversations


@pytest.fixture
def airline_file(airline_conversations: list[dict[str, Any]]) -> Path:
    named = os.environ.get("SESSIONSTORE_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    return folder / "airline-conversations.jsonl.gz"


def test_real_conversations_survive_import_restart_and_export(
    tmp_path: Path, airline_file: Path, airline_conversations: list[dict[str, Any]]
) -> None:
    with sessionstore.open(tmp_path / "agent.db") as store:
        receipt = store.import_file(airline_file)
    assert (receipt.format, receipt.sessions, receipt.messages, receipt.skipped) == ("openai", 100, 2526, 0)
    out = tmp_path / "out.jsonl.gz"
    with sessionstore.open(tmp_path / "agent.db") as store:
        for number, line in enumerate(airline_conversations, start=1):
            held = [message.to_dict() for message in store.messages(f"airline-conversations-{number}")]
            assert held == line["messages"]
        assert store.list(metadata={"reward": 1.0}, limit=1).items[0].metadata["reward"] == 1.0
        assert store.export_file(out, format="openai").messages == 2526
    with gzip.open(out, "rt", encoding="utf-8") as lines:
        given_back = [json.loads(line) for line in lines]
    names = [line.pop("session_id") for line in given_back]
    assert names == [f"airline-conversations-{number}" for number in range(1, 101)]
    assert given_back == airline_conversations


def test_real_conversations_survive_the_lossless_format(
    tmp_path: Path, store: SessionStore, other: SessionStore, airline_file: Path
) -> None:
    store.import_file(airline_file)
    store.export_file(tmp_path / "all.jsonl")
    assert other.import_file(tmp_path / "all.jsonl").messages == 2526
    assert everything(other) == everything(store)
    assert other.doctor().ok


# -- the lossless format


def test_everything_comes_back_equal(filled: SessionStore, other: SessionStore) -> None:
    data = exported(filled, all_namespaces=True)
    receipt = other.import_file(io.BytesIO(data))
    assert (receipt.format, receipt.sessions, receipt.messages) == ("sessionstore", 3, 6)
    assert everything(other) == everything(filled)
    assert [message.seq for message in other.messages("full")] == [1, 2, 3, 4, 6]
    assert exported(other, all_namespaces=True) == data
    assert other.doctor().ok


def test_an_imported_session_goes_on_where_it_was(filled: SessionStore, other: SessionStore) -> None:
    filled.pop("full")
    other.import_file(io.BytesIO(exported(filled)))
    assert other.append("full", HELLO).seq == filled.append("full", HELLO).seq == 7
    assert other.append("full", HELLO, dedupe_key="d-1").seq == 1


def test_the_file_is_what_the_documentation_says(filled: SessionStore) -> None:
    lines = exported(filled, session_ids="full").splitlines(keepends=True)
    first, *middle, last = (json.loads(line) for line in lines)
    assert first == {"format": "sessionstore", "version": 2, "schema": filled.status().schema_revision}
    assert [line["type"] for line in middle] == ["session"] + ["message"] * 5
    assert last.pop("sha256") == hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    assert last == {"type": "end", "sessions": 1, "messages": 5, "lines": 6}


texts = st.text(st.characters(codec="utf-8"), max_size=30)
names = st.text(st.characters(categories=["L", "N"], codec="utf-8"), min_size=1, max_size=8).filter(
    lambda text: text.isprintable() and unicodedata.is_normalized("NFC", text)
)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
objects = st.dictionaries(texts, st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)), max_size=4)
instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is given
counts = st.integers(0, 2**63 - 1)
message_dicts = st.builds(
    lambda role, content, extra: {**extra, "role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts | st.none() | st.lists(objects, max_size=2),
    st.dictionaries(st.sampled_from(["name", "x", "tool_call_id"]), texts),
)
details = st.fixed_dictionaries(
    {"created_at": instants},
    optional={
        "model": names,
        "finish_reason": names,
        "input_tokens": counts,
        "output_tokens": counts,
        "cache_read_tokens": counts,
        "reasoning_tokens": counts,
        "response_time_ms": st.floats(0, 1e18),
        "elapsed_ms": st.floats(0, 1e18),
        "metadata": objects,
        "kind": names,
    },
)
lives = st.none() | st.floats(1e-3, LONGEST_LIFE)
sessions = st.builds(
    SessionInfo,
    namespace=st.just("") | names,
    session_id=names,
    user_id=st.none() | names,
    agent_id=st.none() | names,
    title=st.none() | texts,
    status=st.sampled_from(["open", "completed", "failed"]),
    pinned=st.booleans(),
    tags=st.sets(names, max_size=3).map(lambda tags: tuple(sorted(tags))),
    metadata=objects,
    version=st.integers(1, 2**31 - 1),
    message_count=st.just(0),
    last_seq=st.integers(0, (1 << 24) - 1),
    quality_score=st.none() | st.integers(1, 5),
    error=st.none() | texts,
    created_at=instants,
    updated_at=instants,
    ended_at=st.none() | instants,
    archived_at=st.none() | instants,
    expires_at=st.none() | st.datetimes(datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - the zone is given
    ttl=lives,
    max_age=lives,
    tracked=st.booleans(),
    feedback=st.none() | texts,
    reported_message_count=st.none() | st.integers(0, (1 << 24) - 1),
).map(lambda info: info if info.status == "open" and not info.pinned else replace(info, expires_at=None))
histories = st.lists(st.tuples(st.integers(1, (1 << 24) - 1), message_dicts, details), max_size=4, unique_by=lambda entry: entry[0])


session_lists = st.lists(st.tuples(sessions, histories), max_size=3, unique_by=lambda pair: (pair[0].namespace, pair[0].session_id))


def test_random_sessions_survive_the_lossless_format() -> None:
    with sessionstore.open(in_memory=True) as store, sessionstore.open(in_memory=True) as other:

        @settings(
            max_examples=40,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(session_lists)
        def survive(given_sessions: list[tuple[SessionInfo, list[Any]]]) -> None:
            for emptied in (store, other):
                for info, _ in everything(emptied):
                    emptied.in_namespace(info.namespace).delete(info.session_id)
            for info, history in given_sessions:
                put(store, info, history)
            data = exported(store, all_namespaces=True)
            assert other.import_file(io.BytesIO(data)).sessions == len(given_sessions)
            assert everything(other) == everything(store)
            assert exported(other, all_namespaces=True) == data
            for info, history in given_sessions:
                require_stored(other, info, history)

        survive()


def put(store: SessionStore, info: SessionInfo, history: list[Any]) -> None:
    ordered = sorted(history, key=lambda entry: entry[0])
    messages = [(seq, prepare(message, max_bytes=10_000, **known)) for seq, message, known in ordered]
    store._write(lambda db: transfer.put(db, info, messages, on_conflict="fail", on_expire="keep"))


def require_stored(store: SessionStore, info: SessionInfo, history: list[Any]) -> None:
    held = {message.seq: message for message in store.in_namespace(info.namespace).messages(info.session_id)}
    assert {seq: message for seq, message, _ in history} == {seq: found.to_dict() for seq, found in held.items()}
    for seq, _, known in history:
        assert {name: getattr(held[seq], name) for name in known} == known
    last = max([info.last_seq, *held])
    expected = replace(info, message_count=len(history), last_seq=last)
    assert store.in_namespace(info.namespace).get(info.session_id) == expected


def test_a_file_cut_anywhere_is_refused_and_nothing_is_stored(filled: SessionStore, other: SessionStore) -> None:
    data = exported(filled)
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in {1, 30, *ends[:-1], *(end - 5 for end in ends), len(data) - 2}:
        with pytest.raises(InvalidInputError):
            other.import_file(io.BytesIO(data[:cut]), format="sessionstore")
    assert other.count(archived=None) == 0


def test_a_file_changed_anywhere_is_refused_and_nothing_is_stored(filled: SessionStore, other: SessionStore) -> None:
    data = exported(filled)
    for place in range(0, len(data) - 1, 7):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(InvalidInputError):
            other.import_file(io.BytesIO(changed), format="sessionstore")
    assert other.count(archived=None) == 0


def test_lines_that_are_missing_twice_or_moved_are_refused(filled: SessionStore, other: SessionStore) -> None:
    """Even with a checksum that fits: the counts, the order and the values are checked, too."""
    header, session, first, second, *rest = exported(filled, session_ids="full").splitlines(keepends=True)[:-1]
    whole = [header, session, first, second, *rest]
    bad = {
        "a message is missing": [header, session, first, *rest],
        "a message comes twice": [header, session, first, first, second, *rest],
        "seqs do not grow": [header, session, second, first, *rest],
        "a second header": [header, *whole],
        "a blank line": [header, b"\n", *whole[1:]],
        "a bad role": [header, session, first.replace(b'"user"', b'"wizard"'), second, *rest],
    }
    for lines in bad.values():
        with pytest.raises(InvalidInputError) as refused:
            other.import_file(io.BytesIO(resealed(lines)))
        assert refused.value.field == "source"
        assert "line " in refused.value.reason
    assert other.count(archived=None) == 0
    assert other.import_file(io.BytesIO(resealed(whole))).sessions == 1


@pytest.mark.parametrize("counts", [(1, 6), (0, 0), ("1", 5), (-1, 7), (True, 5)])
def test_a_trailer_that_counts_other_lines_is_refused_and_nothing_is_stored(
    filled: SessionStore, other: SessionStore, counts: tuple[Any, Any]
) -> None:
    body = b"".join(exported(filled, session_ids="full").splitlines(keepends=True)[:-1])
    trailer = native.Trailer(*counts, hashlib.sha256(body).hexdigest())
    with pytest.raises(InvalidInputError):
        other.import_file(io.BytesIO(body + native.end_line(trailer).encode()))
    assert other.count() == 0


def test_a_trailer_that_takes_messages_for_sessions_is_refused(filled: SessionStore, other: SessionStore) -> None:
    body = b"".join(exported(filled, session_ids="full").splitlines(keepends=True)[:-1])
    trailer = native.Trailer(2, 4, hashlib.sha256(body).hexdigest())
    with pytest.raises(InvalidInputError, match="as many sessions and messages as it tells; 1 conversation before it is stored"):
        other.import_file(io.BytesIO(body + native.end_line(trailer).encode()))


def test_a_dedupe_key_that_comes_twice_is_refused(filled: SessionStore, other: SessionStore) -> None:
    header, session, first, *rest = exported(filled, session_ids="full").splitlines(keepends=True)[:-1]
    again = json.loads(rest[-1]) | {"dedupe_key": "d-1"}
    with pytest.raises(InvalidInputError, match="dedupe_key: is used by two messages"):
        other.import_file(io.BytesIO(resealed([header, session, first, *rest[:-1], json.dumps(again).encode() + b"\n"])))
    assert other.count(archived=None) == 0


def test_a_newer_version_of_the_format_is_refused(store: SessionStore) -> None:
    with pytest.raises(InvalidInputError, match="has another version of the format than 2; update sessionstore"):
        store.import_file(io.BytesIO(b'{"format": "sessionstore", "version": 3}\n'))


def test_the_last_seq_of_a_session_is_the_last_one_after_an_import_too(store: SessionStore, other: SessionStore) -> None:
    store.session("s")
    info = store.get("s")
    assert info is not None
    message = prepare(HELLO, max_bytes=100)
    with pytest.raises(QuotaError):
        store._write(lambda db: transfer.put(db, info, [(MAX_SEQ + 1, message)], on_conflict="replace", on_expire="keep"))
    store._write(lambda db: transfer.put(db, info, [(MAX_SEQ, message)], on_conflict="replace", on_expire="keep"))
    other.import_file(io.BytesIO(exported(store)))
    assert [message.seq for message in other.messages("s")] == [MAX_SEQ]
    with pytest.raises(QuotaError):
        other.append("s", HELLO)


def test_expired_sessions_come_along_when_asked_for_and_only_once(store: SessionStore, other: SessionStore) -> None:
    store.session("s").append("user", "old")
    info = store.get("s")
    assert info is not None
    expired = replace(info, status="expired", session_id="gone")
    store._write(lambda db: transfer.put(db, expired, [(1, prepare(HELLO, max_bytes=100))], on_conflict="fail", on_expire="keep"))
    data = exported(store, status="expired")
    assert other.import_file(io.BytesIO(data)).sessions == 1
    assert [info.session_id for info in other.list(status="expired")] == ["gone"]
    assert other.get("gone") is None
    with pytest.raises(ConflictError):
        other.import_file(io.BytesIO(data))
    assert other.import_file(io.BytesIO(data), on_conflict="skip").skipped == 1
    assert other.import_file(io.BytesIO(data), on_conflict="replace").replaced == 1
    assert other.count(status="expired") == 1


def test_an_open_session_past_its_expiry_comes_in_expired(store: SessionStore, other: SessionStore) -> None:
    """It ended when its life was over, not when the file was read."""
    info = store.create("s")
    lines = [native.session_line(replace(info, expires_at=WHEN)).encode()]
    assert other.import_file(io.BytesIO(resealed([native.header_line().encode(), *lines]))).sessions == 1
    assert other.get("s") is None
    (expired,) = other.list(status="expired")
    assert (expired.status, expired.ended_at, expired.expires_at) == ("expired", WHEN, WHEN)
    assert other.create("s").last_seq == 0


def test_an_expiry_that_a_session_cannot_have_is_left_out(store: SessionStore, other: SessionStore) -> None:
    """Ended and pinned sessions do not expire, whatever a file says."""
    ended, pinned = store.create("ended"), store.create("pinned", pinned=True)
    given = [replace(ended, status="completed", expires_at=WHEN), replace(pinned, expires_at=WHEN)]
    lines = [native.session_line(one).encode() for one in given]
    other.import_file(io.BytesIO(resealed([native.header_line().encode(), *lines])))
    for one in given:
        assert other.get(one.session_id) == replace(one, expires_at=None)


def test_a_refused_replacement_leaves_the_old_session(store: SessionStore) -> None:
    store.session("s").append("user", "old")
    info = store.get("s")
    assert info is not None
    message = native.message_line(store.messages("s")[0])
    lines = [native.session_line(replace(info, message_count=2)), message, message]
    with pytest.raises(InvalidInputError, match="seq"):
        store.import_file(io.BytesIO(resealed([each.encode() for each in (native.header_line(), *lines)])), on_conflict="replace")
    assert [message.text for message in store.messages("s")] == ["old"]


# -- names that are taken


@pytest.mark.parametrize("layout", ["sessionstore", "openai", "openai-messages"])
class TestOnConflict:
    def file(self, tmp_path: Path, layout: str) -> Path:
        path = tmp_path / "chat.jsonl"
        with sessionstore.open(in_memory=True) as source:
            source.session("chat", tags=["new"]).append("user", "new")
            source.export_file(path, format=layout)  # type: ignore[arg-type]
        return path

    def texts(self, store: SessionStore, session_id: str = "chat") -> list[str | None]:
        return [message.text for message in store.messages(session_id)]

    def test_fail_is_the_default_and_changes_nothing(self, tmp_path: Path, store: SessionStore, layout: str) -> None:
        store.session("chat").append("user", "old")
        with pytest.raises(ConflictError, match="there is a session 'chat' already") as refused:
            store.import_file(self.file(tmp_path, layout))
        assert refused.value.session_id == "chat"
        assert "chat.jsonl: there is" in str(refused.value)
        assert str(refused.value).endswith("; 0 conversations before it are stored")
        assert refused.value.__notes__ == ["on_conflict='skip', 'replace', 'new-id' or 'merge' lets the import go on"]
        assert self.texts(store) == ["old"]

    def test_skip_leaves_it_out(self, tmp_path: Path, store: SessionStore, layout: str) -> None:
        store.session("chat").append("user", "old")
        receipt = store.import_file(self.file(tmp_path, layout), on_conflict="skip")
        assert (receipt.sessions, receipt.messages, receipt.skipped) == (0, 0, 1)
        assert self.texts(store) == ["old"]

    def test_replace_takes_its_place(self, tmp_path: Path, store: SessionStore, layout: str) -> None:
        store.session("chat", tags=["old"]).append_many([HELLO, HELLO])
        receipt = store.import_file(self.file(tmp_path, layout), on_conflict="replace")
        assert (receipt.sessions, receipt.messages, receipt.replaced) == (1, 1, 1)
        assert self.texts(store) == ["new"]
        assert "old" not in store.tags()
        assert store.doctor().ok

    def test_new_id_appends_a_number(self, tmp_path: Path, store: SessionStore, layout: str) -> None:
        store.session("chat").append("user", "old")
        store.create("chat-2")
        receipt = store.import_file(self.file(tmp_path, layout), on_conflict="new-id")
        assert receipt.renamed == (("chat", "chat-3"),)
        assert self.texts(store) == ["old"]
        assert self.texts(store, "chat-3") == ["new"]

    def test_an_id_in_another_namespace_is_not_in_the_way(self, tmp_path: Path, store: SessionStore, layout: str) -> None:
        store.in_namespace("elsewhere").session("chat").append("user", "old")
        assert store.import_file(self.file(tmp_path, layout)).sessions == 1
        assert self.texts(store.in_namespace("elsewhere")) == ["old"]


def test_a_taken_id_is_refused_with_its_line_and_what_is_stored_before_it(store: SessionStore) -> None:
    store.create("c")
    lines = "\n".join(json.dumps({"id": name, "messages": [HELLO]}) for name in "abc")
    with pytest.raises(ConflictError) as refused:
        store.import_file(io.BytesIO(lines.encode()))
    assert str(refused.value) == "line 3 of stdin: there is a session 'c' already; 2 conversations before it are stored"


def test_a_new_id_stays_within_the_longest_id(store: SessionStore) -> None:
    long = "x" * 256
    line = json.dumps({"id": long, "messages": [HELLO]}).encode() + b"\n"
    receipt = store.import_file(io.BytesIO(line * 3), on_conflict="new-id")
    assert [new for _, new in receipt.renamed] == ["x" * 254 + "-2", "x" * 254 + "-3"]


def test_skipped_sessions_do_not_stop_those_behind_them(filled: SessionStore, other: SessionStore) -> None:
    other.create("full")
    receipt = other.import_file(io.BytesIO(exported(filled)), on_conflict="skip")
    assert (receipt.sessions, receipt.skipped) == (1, 1)
    assert other.get("empty") is not None


# -- namespaces


def test_a_file_keeps_its_namespaces_unless_the_store_has_one_of_its_own(filled: SessionStore, other: SessionStore) -> None:
    data = exported(filled.in_namespace("team"))
    other.import_file(io.BytesIO(data))
    assert other.namespaces() == ("team",)
    other.in_namespace("mine").import_file(io.BytesIO(data))
    assert other.namespaces() == ("mine", "team")


def test_an_export_holds_the_store_s_namespace_only(filled: SessionStore) -> None:
    assert exported(filled).count(b'"type": "session"') == 2
    assert exported(filled.in_namespace("team")).count(b'"type": "session"') == 1
    assert exported(filled, all_namespaces=True).count(b'"type": "session"') == 3


# -- OpenAI layouts


def test_one_message_a_line_is_one_session_named_by_its_file(tmp_path: Path, store: SessionStore) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
    messages = [HELLO, call, {"role": "tool", "tool_call_id": "c", "content": ""}]
    path = tmp_path / "my chat.jsonl"
    path.write_text("\n\n".join(json.dumps(message) for message in messages))
    assert store.import_file(path).format == "openai-messages"
    assert [message.to_dict() for message in store.messages("my chat")] == messages
    store.import_file(path, session_id="given")
    out = tmp_path / "out.jsonl"
    store.export_file(out, format="openai-messages", session_ids=["given"])
    assert [json.loads(line) for line in out.read_text().splitlines()] == messages


def test_one_message_a_line_takes_exactly_one_session(filled: SessionStore, tmp_path: Path) -> None:
    for options in ({}, {"tag": "nobody"}):
        with pytest.raises(InvalidInputError, match="holds one session"):
            filled.export_file(tmp_path / "out", format="openai-messages", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "line 2 of stdin: is not JSON"),
        (b"\xff", "line 2 of stdin: is not UTF-8"),
        (b"[]", "line 2 of stdin: is not a JSON object"),
        (b'{"messages": 3}', "line 2 of stdin: messages: must be a list"),
        (b'{"messages": [{"role": "wizard"}]}', r"line 2 of stdin: messages\[0\].role"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', r"line 2 of stdin: messages\[0\].content"),
        (b'{"messages": [], "id": " x"}', "line 2 of stdin: session_id"),
        (b'{"messages": [], "big": 1e999}', "line 2 of stdin: metadata"),
    ],
)
def test_a_bad_line_is_named_and_only_what_stands_before_it_is_stored(store: SessionStore, bad: bytes, reason: str) -> None:
    good = json.dumps({"messages": [HELLO]}).encode()
    with pytest.raises(InvalidInputError, match=reason) as refused:
        store.import_file(io.BytesIO(b"\n".join((good, bad, good))))
    assert refused.value.reason.endswith("; 1 conversation before it is stored")
    assert [info.session_id for info in store.list()] == ["stdin-1"]


def test_a_bad_message_line_stores_nothing_of_its_conversation(store: SessionStore) -> None:
    lines = [json.dumps(HELLO)] * 1200 + ['{"role": "wizard"}']
    with pytest.raises(InvalidInputError, match="line 1201 of stdin: role"):
        store.import_file(io.BytesIO("\n".join(lines).encode()))
    assert store.count() == 0
    assert store.status().messages == 0


@pytest.mark.parametrize("line", [b"", b"\n \n", b'{"rows": []}', b"3", b"[{}]"])
def test_what_no_format_begins_with_is_refused(store: SessionStore, line: bytes) -> None:
    with pytest.raises(InvalidInputError) as refused:
        store.import_file(io.BytesIO(line))
    assert refused.value.field == "source"


def test_the_lossless_format_without_its_header_is_no_list_of_items(filled: SessionStore, other: SessionStore) -> None:
    _, session, message, *_ = exported(filled, session_ids="full").splitlines(keepends=True)
    for data in (session + message, message):
        with pytest.raises(InvalidInputError, match=r"line 1 of stdin: looks like the lossless format without its header.*export"):
            other.import_file(io.BytesIO(data))
    assert other.count() == 0
    item = b'{"type": "message", "role": "user", "content": "a Responses item"}'
    assert other.import_file(io.BytesIO(item)).format == "openai-messages"


@pytest.mark.parametrize("text", [b'[{"role": "user", "content": "x"}]', b'[\n  {"messages": []}\n]', b'{\n  "messages": []\n}'])
def test_a_file_that_is_one_json_value_is_refused_with_a_hint(store: SessionStore, text: bytes) -> None:
    for layout in ("auto", "openai", "openai-messages"):
        with pytest.raises(InvalidInputError, match="JSONL has one JSON value a line"):
            store.import_file(io.BytesIO(text), format=layout)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-lock"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_the_files_of_every_open_store_are_neither_source_nor_target(tmp_path: Path, suffix: str, in_memory: bool) -> None:
    path = tmp_path / "other.db"
    with sessionstore.open(path) as busy, sessionstore.open(None if in_memory else tmp_path / "a.db", in_memory=in_memory) as store:
        busy.session("s").append("user", "kept")
        (tmp_path / "link").symlink_to(f"{path}{suffix}")
        for name in (Path(f"{path}{suffix}"), tmp_path / "link"):
            with pytest.raises(InvalidInputError, match="belongs to a store that this process has open") as source:
                store.import_file(name)
            with pytest.raises(InvalidInputError, match="belongs to a store that this process has open") as target:
                store.export_file(name)
            assert (source.value.field, target.value.field) == ("source", "target")
        if not suffix:
            os.link(path, tmp_path / "same file")
            with pytest.raises(InvalidInputError, match="belongs to a store"):
                store.import_file(tmp_path / "same file")
            (tmp_path / "same file").unlink()
        busy.append("s", "user", "kept, too")
    with sessionstore.open(path) as store:
        assert len(store.messages("s")) == 2


def test_a_message_longer_than_the_store_takes_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": "x" * 101}]}).encode()
    with sessionstore.open(tmp_path / "small.db", max_text_bytes=100) as store:
        with pytest.raises(InvalidInputError) as refused:
            store.import_file(io.BytesIO(line))
        assert refused.value.limit == 100


def test_a_very_long_conversation_on_one_line_comes_back(store: SessionStore, tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "é" * 1_000_000}] * 5}
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps(line))
    store.import_file(path)
    assert json.loads(exported(store, format="openai")) == {"session_id": "long-1", **line}


# -- arguments, failures and threads


def test_wrong_arguments_are_refused_before_anything_is_opened(store: SessionStore, tmp_path: Path) -> None:
    path = tmp_path / "f"
    refused: list[tuple[str, Callable[[], object]]] = [
        ("format", lambda: store.import_file(path, format="csv")),  # type: ignore[arg-type]
        ("on_conflict", lambda: store.import_file(path, on_conflict="blend")),  # type: ignore[arg-type]
        ("session_id", lambda: store.import_file(path, session_id="")),
        ("format", lambda: store.export_file(path, format="auto")),  # type: ignore[arg-type]
        ("all_namespaces", lambda: store.export_file(path, all_namespaces=1)),  # type: ignore[arg-type]
        ("all_namespaces", lambda: store.export_file(path, all_namespaces=True, format="openai")),
        ("all_namespaces", lambda: store.export_file(path, all_namespaces=True, session_ids="s")),
        ("session_ids", lambda: store.export_file(path, session_ids="s", tag="t")),
        ("session_ids", lambda: store.export_file(path, session_ids=3)),  # type: ignore[arg-type]
        ("status", lambda: store.export_file(path, status="closed")),  # type: ignore[arg-type]
    ]
    for field, call in refused:
        with pytest.raises(InvalidInputError) as error:
            call()
        assert error.value.field == field
    assert not path.exists()


def test_a_given_id_is_for_files_that_name_none(store: SessionStore) -> None:
    with pytest.raises(InvalidInputError, match="session_id"):
        store.import_file(io.BytesIO(b'{"messages": []}'), session_id="mine")


def test_an_export_of_a_session_that_is_not_there_keeps_the_old_file(store: SessionStore, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(NotFoundError):
        store.export_file(path, session_ids=["nobody"])
    assert path.read_text() == "old"


def test_damage_is_never_exported(filled: SessionStore, store_path: Path, tmp_path: Path) -> None:
    filled._write(lambda db: db.driver.execute("UPDATE messages SET text = 'changed' WHERE text = 'hello'").fetchall())
    with pytest.raises(StoreCorruptError):
        filled.export_file(tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("layout", ["sessionstore", "openai", "openai-messages"])
def test_a_session_that_lost_a_message_is_never_exported(filled: SessionStore, tmp_path: Path, layout: Any) -> None:
    filled._write(lambda db: db.driver.execute("DELETE FROM messages WHERE text = 'hello'").fetchall())
    with pytest.raises(StoreCorruptError, match="session 'full' does not hold as many messages as it counts"):
        filled.export_file(tmp_path / "out.jsonl", format=layout, session_ids="full")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_source_is_an_os_error(store: SessionStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.import_file(tmp_path / "nothing")


def test_closed_and_read_only_stores_take_no_import(store_path: Path, tmp_path: Path) -> None:
    line = b'{"messages": []}'
    with sessionstore.open(store_path) as store:
        pass
    with pytest.raises(ClosedStoreError):
        store.import_file(io.BytesIO(line))
    with pytest.raises(ClosedStoreError):
        store.export_file(tmp_path / "out")
    with sessionstore.open(store_path, read_only=True) as store:
        with pytest.raises(ReadOnlyStoreError):
            store.import_file(io.BytesIO(line))
        assert store.export_file(tmp_path / "out").sessions == 0


def test_progress_grows_to_the_whole(filled: SessionStore, other: SessionStore) -> None:
    written: list[tuple[int, int | None]] = []
    data = exported(filled, progress=lambda done, total: written.append((done, total)))
    assert written[-1] == (5, 5)
    seen: list[tuple[int, int | None]] = []
    other.import_file(io.BytesIO(data), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (2 * len(data), 2 * len(data))


def test_an_error_of_the_progress_callback_stops_the_export_and_leaves_no_file(filled: SessionStore, tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filled.export_file(tmp_path / "out.jsonl", progress=stop)
    assert list(tmp_path.glob("*out*")) == []
    assert filled.append("full", HELLO).seq == 7


def test_an_export_shows_one_moment_while_others_write(store: SessionStore, other: SessionStore) -> None:
    """Each pair is written in one transaction, so a file that shows one moment holds both or none."""
    chat = store.session("chat")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            chat.append_many([HELLO, HELLO])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(10):
            receipt = other.import_file(io.BytesIO(exported(store)), on_conflict="replace")
            assert receipt.messages % 2 == 0, number
    finally:
        stop.set()
        writer.join()


def test_a_session_of_many_pages_comes_back_in_order(store: SessionStore, other: SessionStore) -> None:
    store.session("long").append_many([{"role": "user", "content": str(number)} for number in range(2_345)])
    other.import_file(io.BytesIO(exported(store)))
    assert [message.text for message in other.iterate("long")] == [str(number) for number in range(2_345)]


def test_sessions_of_many_pages_come_back(store: SessionStore, other: SessionStore) -> None:
    lines = "\n".join(json.dumps({"id": f"s{number}", "messages": [HELLO]}) for number in range(450))
    store.import_file(io.BytesIO(lines.encode()))
    assert exported(store, since=datetime.now(UTC) + timedelta(hours=1)).count(b"\n") == 2
    assert other.import_file(io.BytesIO(exported(store))).sessions == 450
    assert everything(other) == everything(store)


@pytest.mark.anyio
async def test_the_async_store_moves_the_same_files(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "a.db") as store:
        fill(store)
        expected = everything(store)
    async with sessionstore.aopen(tmp_path / "a.db") as source:
        written = await source.export_file(tmp_path / "f.jsonl.gz", all_namespaces=True)
    async with sessionstore.aopen(tmp_path / "b.db") as target:
        receipt = await target.import_file(tmp_path / "f.jsonl.gz")
        with pytest.raises(ConflictError):
            await target.import_file(tmp_path / "f.jsonl.gz")
    assert (receipt.sessions, receipt.messages) == (written.sessions, written.messages) == (3, 6)
    with sessionstore.open(tmp_path / "b.db") as store:
        assert everything(store) == expected
    with pytest.raises(ClosedStoreError):
        await target.import_file(tmp_path / "f.jsonl.gz")
