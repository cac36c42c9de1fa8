"""Value objects are frozen, compare by what they hold, and keep the users' words out of their reprs."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sessionstore import (
    Check,
    DeleteReceipt,
    Diagnosis,
    InvalidInputError,
    Message,
    MessageDetails,
    NewMessage,
    Page,
    SessionInfo,
    ToolCall,
    ToolCallReport,
    ToolResult,
    clock,
)
from sessionstore.arguments import UNSET
from sessionstore.queries import sessions
from sessionstore.rows import prepare
from sessionstore.values import MAX_SEQ

SECRET = "the words of a user"
NOW = datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=UTC)


def message(text: str = SECRET, *, seq: int = 7, session_id: str = "s", **details: Any) -> Message:
    prepared = prepare({"role": "assistant", "content": text}, max_bytes=10_000, **details)
    return Message(session_id, prepared.row(3 << 24 | seq, clock.to_text(NOW)))


INFO = SessionInfo(
    namespace="",
    session_id="s",
    user_id="u",
    agent_id="a",
    title=SECRET,
    status="open",
    pinned=False,
    tags=("t",),
    metadata={"note": SECRET},
    version=1,
    message_count=0,
    last_seq=0,
    quality_score=None,
    error=SECRET,
    created_at=NOW,
    updated_at=NOW,
    ended_at=None,
    archived_at=None,
    expires_at=None,
)
CALL = ToolCall(seq=1, call_id="c", name="f", arguments=SECRET)
RESULT = ToolResult(seq=2, call_id="c")
RECEIPT = DeleteReceipt(session_ids=("a", "b"), messages=3, missing=("c",), dry_run=False)


# -- messages


def test_a_message_shows_every_column() -> None:
    full = message(
        "Paris.",
        dedupe_key="key",
        model="m-1",
        finish_reason="stop",
        input_tokens=12,
        output_tokens=3,
        cache_read_tokens=2,
        reasoning_tokens=1,
        response_time_ms=420.5,
        metadata={"a": [1]},
    )
    shown = {name: getattr(full, name) for name in MessageDetails.__annotations__ if name not in ("kind", "created_at")}
    assert shown == {
        "dedupe_key": "key",
        "model": "m-1",
        "finish_reason": "stop",
        "input_tokens": 12,
        "output_tokens": 3,
        "cache_read_tokens": 2,
        "reasoning_tokens": 1,
        "response_time_ms": 420.5,
        "metadata": {"a": [1]},
    }
    assert (full.session_id, full.seq, full.kind, full.role, full.text, full.content) == (
        "s", 7, "message", "assistant", "Paris.", "Paris.",
    )  # fmt: skip
    assert full.created_at == NOW
    assert full.created_at.tzinfo is UTC
    assert full.to_dict() == {"role": "assistant", "content": "Paris."}


def test_what_was_not_said_is_none() -> None:
    plain = message()
    assert [getattr(plain, name) for name in MessageDetails.__annotations__ if name not in ("kind", "created_at")] == [None] * 9
    assert plain.tool_call_ids == ()
    assert plain.tool_call_id is None
    assert message(metadata={}).metadata == {}


def test_the_seq_is_the_low_part_of_the_id() -> None:
    assert message(seq=1).seq == 1
    assert message(seq=MAX_SEQ).seq == MAX_SEQ == 16_777_215


@pytest.mark.parametrize("name", [name for name in dir(Message) if not name.startswith("_") and name != "to_dict"])
def test_no_attribute_of_a_message_can_be_set(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(message(), name, None)


def test_a_message_takes_no_new_attributes() -> None:
    with pytest.raises(AttributeError):
        message().note = "x"  # type: ignore[attr-defined]


def test_messages_are_equal_if_they_store_the_same() -> None:
    assert message() == message()
    assert hash(message()) == hash(message())
    for other in (message("other"), message(seq=8), message(session_id="t"), message(model="m"), message().to_dict(), None):
        assert message() != other


def test_what_is_taken_out_of_a_message_does_not_change_it() -> None:
    one = message(metadata={"a": [1]})
    one.to_dict()["role"] = "user"
    metadata = one.metadata
    assert metadata is not None
    metadata["a"].append(2)
    assert one.to_dict()["role"] == "assistant"
    assert one.metadata == {"a": [1]}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("value", [message(), INFO, CALL, RECEIPT, Page((INFO,), "c")], ids=lambda value: type(value).__name__)
def test_a_copy_is_equal(copied: Any, value: Any) -> None:
    assert copied(value) == value


# -- the other values

FROZEN = [INFO, CALL, RESULT, RECEIPT, Page((1,), None), ToolCallReport(unmatched_calls=(), unmatched_results=()),
          Check("a", True, "b"), Diagnosis(())]  # fmt: skip


@pytest.mark.parametrize("value", FROZEN, ids=lambda value: type(value).__name__)
def test_values_are_frozen(value: Any) -> None:
    for name in value.__slots__:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
    # Which of them Python raises differs between its versions; none of them lets the attribute in.
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        value.note = "x"


def test_values_compare_by_what_they_hold() -> None:
    assert replace(INFO) == INFO
    assert replace(INFO, version=2) != INFO
    assert replace(CALL, seq=2) != CALL


def test_a_page_is_walked_and_measured_like_its_items() -> None:
    page = Page((1, 2, 3), None)
    assert list(page) == [1, 2, 3]
    assert len(page) == 3
    assert not Page((), None)


def test_a_receipt_counts_its_sessions() -> None:
    assert RECEIPT.sessions == 2


def test_a_report_is_ok_only_if_all_match() -> None:
    assert ToolCallReport(unmatched_calls=(), unmatched_results=()).ok
    assert not ToolCallReport(unmatched_calls=(CALL,), unmatched_results=()).ok
    assert not ToolCallReport(unmatched_calls=(), unmatched_results=(RESULT,)).ok


def test_a_diagnosis_is_ok_only_if_all_checks_are() -> None:
    good, bad = Check("a", True, ""), Check("b", False, "")
    assert Diagnosis((good, good)).ok
    assert not Diagnosis((good, bad)).ok


def test_unset_says_what_it_is() -> None:
    assert repr(UNSET) == "UNSET"


# -- reprs end up in logs


@pytest.mark.parametrize(
    "value",
    [
        message(),
        message(metadata={"note": SECRET}),
        [message()],
        NewMessage({"role": "user", "content": SECRET}, metadata={"note": SECRET}, input_tokens=1),
        CALL,
        ToolCallReport(unmatched_calls=(CALL,), unmatched_results=()),
        INFO,
        Page((INFO,), None),
    ],
    ids=["message", "metadata", "list", "new-message", "tool-call", "report", "session", "page"],
)
def test_a_repr_holds_no_words_of_a_user(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in str(value)


def test_reprs_still_say_which_one() -> None:
    assert repr(message()) == "Message(session_id='s', seq=7, role='assistant', kind='message')"
    assert repr(NewMessage({"role": "user"}, model="m")) == "NewMessage(..., model=...)"
    assert "session_id='s'" in repr(INFO)
    assert "call_id='c'" in repr(CALL)


# -- new messages


def test_a_new_message_holds_what_it_was_given() -> None:
    dict_ = {"role": "user", "content": "x"}
    new = NewMessage(dict_, model="m", input_tokens=1)
    assert new.message is dict_
    assert new.details == {"model": "m", "input_tokens": 1}
    assert new == NewMessage({"role": "user", "content": "x"}, model="m", input_tokens=1)
    assert new != NewMessage(dict_, model="m")
    with pytest.raises(TypeError, match="unhashable"):
        hash(new)


def test_a_new_message_names_the_detail_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="tokens_in"):
        NewMessage({"role": "user"}, tokens_in=5)  # type: ignore[call-arg]


# -- times


@pytest.mark.parametrize("hours", [0, -11, 14])
def test_an_instant_is_stored_in_fixed_width_and_sorts_as_text(hours: int) -> None:
    from datetime import timezone

    zone = timezone(timedelta(hours=hours))
    texts = [clock.to_text(NOW.astimezone(zone) + timedelta(microseconds=step)) for step in (0, 1, 999_999_999, 10**12)]
    assert texts[0] == "2024-02-29 12:00:00.123456"
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {26}
    assert clock.from_text(texts[0]) == NOW


def test_the_first_and_the_last_instant_keep_their_width() -> None:
    for edge in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        assert len(clock.to_text(edge)) == 26
        assert clock.from_text(clock.to_text(edge)) == edge


def test_the_clock_is_aware_and_ids_differ() -> None:
    assert clock.utc_now().utcoffset() == timedelta(0)
    assert len({clock.new_id() for _ in range(100)}) == 100


def test_seven_fractional_digits_are_cut_to_six() -> None:
    """Row 83: Python itself has microseconds only."""
    assert datetime.fromisoformat("2024-02-29T12:00:00.1234567+00:00") == NOW
    with pytest.raises(InvalidInputError):
        message(created_at="2024-02-29T12:00:00.1234567+00:00")


def test_each_column_of_a_session_becomes_the_attribute_of_its_name() -> None:
    at = [NOW + timedelta(minutes=number) for number in range(5)]
    row = (
        11, "ns", "id", "user", "agent", "title", "failed", 1, '{"a":1}', 2, 3, 5, 4, "error", *map(clock.to_text, at),
        60, 3600, 1, "feedback", 9, clock.to_text(NOW), 7, 6, 2, 1,
    )  # fmt: skip
    created_at, updated_at, ended_at, archived_at, expires_at = at
    assert sessions.info(row, ("t",)) == SessionInfo(
        namespace="ns", session_id="id", user_id="user", agent_id="agent", title="title", status="failed", pinned=True, tags=("t",),
        metadata={"a": 1}, version=2, message_count=3, last_seq=4, quality_score=4, error="error", created_at=created_at,
        updated_at=updated_at, ended_at=ended_at, archived_at=archived_at, expires_at=expires_at, ttl=60.0, max_age=3600.0,
        tracked=True, feedback="feedback", reported_message_count=9, forked_at=6,
    )  # fmt: skip
