"""The lines of the lossless format: what they hold, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from sessionstore import InvalidInputError, SessionInfo
from sessionstore.arguments import MessageDetails
from sessionstore.database.upgrade import HEAD_REVISION
from sessionstore.formats import native
from sessionstore.rows import prepare
from sessionstore.values import Message

WHEN = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
INFO = SessionInfo(
    namespace="team",
    session_id="s",
    user_id="u",
    agent_id="a",
    title="t",
    status="failed",
    pinned=True,
    tags=("x", "y"),
    metadata={"k": [1, 2.5, None]},
    version=7,
    message_count=2,
    last_seq=9,
    quality_score=4,
    error="boom",
    created_at=WHEN,
    updated_at=WHEN,
    ended_at=WHEN,
    archived_at=WHEN,
    expires_at=WHEN,
    ttl=60.5,
    max_age=3600.0,
    tracked=True,
    feedback="thanks",
    reported_message_count=3,
)  # fmt: skip
DETAILS: dict[str, Any] = {
    "kind": "message",
    "dedupe_key": "d",
    "model": "m",
    "finish_reason": "stop",
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_read_tokens": 3,
    "reasoning_tokens": 4,
    "response_time_ms": 5.25,
    "elapsed_ms": 6.5,
    "metadata": {},
    "created_at": WHEN,
}


def session_line(**changes: Any) -> dict[str, Any]:
    return {**native.session_object(INFO), **changes}


def message_line(**changes: Any) -> dict[str, Any]:
    row = prepare({"role": "user", "content": "hi"}, max_bytes=100, **DETAILS).row(1 << 24 | 5, "")
    return {**native.message_object(Message("s", row)), **changes}


def test_the_header_names_format_version_and_schema() -> None:
    assert json.loads(native.header_line()) == {"format": "sessionstore", "version": 2, "schema": HEAD_REVISION}


def test_a_session_line_holds_every_attribute_and_gives_it_back() -> None:
    line = json.loads(native.session_line(INFO))
    assert line.keys() == {"type", *SessionInfo.__annotations__}
    assert native.session(line) == INFO


def test_a_session_of_nothing_but_needed_values_comes_back() -> None:
    empty = dict.fromkeys(("user_id", "agent_id", "title", "quality_score", "error", "ended_at", "archived_at", "expires_at"))
    bare = replace(INFO, status="open", tags=(), metadata={}, **empty)
    assert native.session(json.loads(native.session_line(bare))) == bare


def test_a_message_line_holds_every_detail_and_gives_it_back() -> None:
    line = message_line()
    assert line.keys() == {"type", "seq", "message", "elapsed_ms", *MessageDetails.__annotations__}
    seq, prepared = native.message(json.loads(json.dumps(line)), max_bytes=100)
    assert seq == 5
    assert prepared == prepare({"role": "user", "content": "hi"}, max_bytes=100, **DETAILS)


def test_instants_with_another_offset_are_the_same_instants() -> None:
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=5))).isoformat()
    assert native.session(session_line(created_at=elsewhere)).created_at == WHEN


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"session_id": ""}, "session_id"),
        ({"session_id": 3}, "session_id"),
        ({"namespace": "a\x1b"}, "namespace"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"title": "x" * 1001}, "title"),
        ({"tags": "tag"}, "tags"),
        ({"metadata": None}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
        ({"pinned": 1}, "pinned"),
        ({"status": "closed"}, "status"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"version": 2**31}, "version"),
        ({"message_count": -1}, "message_count"),
        ({"last_seq": 1 << 24}, "last_seq"),
        ({"quality_score": 6}, "quality_score"),
        ({"error": "x" * 10_001}, "error"),
        ({"created_at": None}, "created_at"),
        ({"created_at": "2026-01-31 12:00:00"}, "created_at"),
        ({"updated_at": 5}, "updated_at"),
        ({"ended_at": "yesterday"}, "ended_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"colour": "red"}, "keys"),
    ],
)
def test_a_session_line_is_checked_like_an_argument(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        native.session(session_line(**changes))
    assert refused.value.field == field


LATER = {"ttl": None, "max_age": None, "tracked": False, "feedback": None, "reported_message_count": None, "forked_at": None}


@pytest.mark.parametrize("missing", sorted(SessionInfo.__annotations__.keys() - LATER))
def test_a_session_line_misses_nothing(missing: str) -> None:
    line = session_line()
    del line[missing]
    with pytest.raises(InvalidInputError, match=f"{missing}: is missing"):
        native.session(line)


def test_a_session_line_of_the_first_revision_is_read() -> None:
    line = {name: value for name, value in session_line().items() if name not in LATER}
    assert native.session(line) == replace(INFO, **LATER)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "blob"}, "type"),
        ({"seq": 0}, "seq"),
        ({"seq": 1 << 24}, "seq"),
        ({"seq": "1"}, "seq"),
        ({"message": []}, "message"),
        ({"message": {"role": "wizard", "content": ""}}, "role"),
        ({"message": {"role": "user", "content": "x" * 101}}, "content"),
        ({"kind": ""}, "kind"),
        ({"created_at": "noon"}, "created_at"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"response_time_ms": "fast"}, "response_time_ms"),
        ({"metadata": []}, "metadata"),
        ({"dedupe_key": "a\nb"}, "dedupe_key"),
        ({"colour": "red"}, "keys"),
    ],
)
def test_a_message_line_is_checked_like_an_argument(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        native.message(message_line(**changes), max_bytes=100)
    assert refused.value.field == field


@pytest.mark.parametrize("missing", ["seq", "message", "kind", "created_at"])
def test_a_message_line_misses_nothing_that_it_needs(missing: str) -> None:
    line = message_line()
    del line[missing]
    with pytest.raises(InvalidInputError, match=f"{missing}: is missing"):
        native.message(line, max_bytes=100)
