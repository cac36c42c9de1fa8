"""A row's checksum covers every column that the row stores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sessionstore import InvalidInputError, clock, rows
from sessionstore.rows import chat_message, first_damaged, prepare, prepare_plain, renumbered
from sessionstore.values import Message

NAMES = ("id", "kind", "role", "text", "extra", "facts", "created_at", "crc")
ID, TEXT, CREATED_AT, CRC = 0, 3, 6, 7
NOW = "2024-02-01 12:00:00.000000"
DETAILS = {
    "dedupe_key": "key",
    "model": "m-1",
    "finish_reason": "stop",
    "input_tokens": 12,
    "output_tokens": 3,
    "cache_read_tokens": 2,
    "reasoning_tokens": 1,
    "response_time_ms": 420.5,
    "metadata": {"a": 1},
}

FULL = prepare(
    {"role": "assistant", "content": "Paris.", "tool_calls": [{"id": "c1"}], "tool_call_id": "c0", "name": "n"},
    max_bytes=1_000,
    **DETAILS,
).row(1 << 24 | 7, NOW)
PLAIN = prepare({"role": "user", "content": "Hello"}, max_bytes=1_000).row(1 << 24 | 8, NOW)
BARE = prepare({"role": "user"}, max_bytes=1_000).row(1 << 24 | 9, NOW)
ITEM = prepare({"type": "note"}, max_bytes=1_000).row(1 << 24 | 10, NOW)
ROWS = {"full": FULL, "plain": PLAIN, "bare": BARE, "item": ITEM}


def is_intact(row: tuple[Any, ...]) -> bool:
    return first_damaged([row]) is None  # type: ignore[list-item]


def changed(row: tuple[Any, ...], column: int, value: object) -> tuple[Any, ...]:
    return (*row[:column], value, *row[column + 1 :])


def others(value: object) -> list[object]:
    """Values that damage could put in the place of one."""
    if value is None:
        return ["", "x", "null", b"None", 0, 1.5]
    if isinstance(value, str):
        return [None, "", value + " ", value[:-1], value.upper() + "x", value.encode(), chr(ord(value[0]) ^ 1) + value[1:]]
    assert isinstance(value, int)
    return [value + 1, value ^ 1 << 31, value ^ 1 << 32, value ^ 1 << 40, -value - 1]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_is_intact_as_it_was_written(row: tuple[Any, ...]) -> None:
    assert row[len(NAMES) :] == (None,), "it is not packed, which no checksum covers"
    assert is_intact(row)


@pytest.mark.parametrize("column", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_any_single_changed_column_is_found(row: tuple[Any, ...], column: int) -> None:
    unseen = [other for other in others(row[column]) if is_intact(changed(row, column, other))]
    assert not unseen, f"{NAMES[column]} may become one of these unnoticed"


@given(
    st.integers(1, CRC - 1),
    st.sampled_from(list(ROWS)),
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.floats(),
)
def test_any_other_value_in_a_column_is_found(column: int, name: str, value: object) -> None:
    row = ROWS[name]
    assume(type(value) is not type(row[column]) or value != row[column])
    assert not is_intact(changed(row, column, value))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60), st.integers(0, 10_000), st.integers(0, 7))
def test_any_single_flipped_bit_of_a_text_is_found(text: str, position: int, bit: int) -> None:
    row = prepare({"role": "user", "content": text}, max_bytes=1_000).row(1 << 24 | 1, NOW)
    damaged = bytearray(text.encode())
    damaged[position % len(damaged)] ^= 1 << bit
    assert not is_intact(changed(row, TEXT, damaged.decode(errors="replace")))


def test_any_single_flipped_bit_of_an_id_is_found() -> None:
    """A row that stands under another id is a message of another session, or at another place."""
    assert [bit for bit in range(63) if is_intact(changed(PLAIN, ID, PLAIN[ID] ^ 1 << bit))] == []


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6)])
def test_exchanged_columns_are_found(first: int, second: int) -> None:
    assert not is_intact(changed(changed(FULL, first, FULL[second]), second, FULL[first]))


@pytest.mark.parametrize("column", range(1, len(NAMES)), ids=NAMES[1:])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_under_another_id_is_as_whole_as_it_was(row: tuple[Any, ...], column: int) -> None:
    assert renumbered(renumbered(row, 99, 5), row[ID], 5) == row
    assert rows.is_intact(renumbered(row, 99, 0), 0)
    for other in [*others(row[column]), 1.5, None if row[column] is not None else 1]:
        assert not rows.is_intact(renumbered(changed(row, column, other), 99, 0), 0)


def test_the_first_damaged_of_several_rows_is_named() -> None:
    damaged = changed(BARE, TEXT, "x")
    assert first_damaged([FULL, PLAIN, damaged, changed(ITEM, TEXT, "y")]) == damaged
    assert first_damaged([FULL, PLAIN, BARE, ITEM]) is None
    assert first_damaged([]) is None


def test_a_row_gives_back_what_was_prepared() -> None:
    message = Message("s", FULL)
    assert {name: getattr(message, name) for name in DETAILS} == DETAILS
    assert (message.tool_call_ids, message.tool_call_id, message.seq) == (("c1",), "c0", 7)


def test_a_given_time_wins_over_the_time_of_the_call() -> None:
    instant = datetime(2020, 1, 1, tzinfo=UTC)
    row = prepare({"role": "user", "content": "x"}, max_bytes=100, created_at=instant).row(1, NOW)
    assert clock.from_text(row[CREATED_AT]) == instant
    assert is_intact(row)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dedupe_key", ""),
        ("model", " m"),
        ("finish_reason", 5),
        ("input_tokens", -1),
        ("output_tokens", 1.0),
        ("cache_read_tokens", True),
        ("reasoning_tokens", 2**63),
        ("response_time_ms", float("nan")),
        ("metadata", []),
        ("created_at", "2024-02-01"),
        ("kind", ""),
    ],
)
def test_a_bad_detail_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        prepare({"role": "user", "content": "x"}, max_bytes=100, **{name: value})
    assert caught.value.field == name


def test_an_unknown_detail_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="tokens_in"):
        prepare({"role": "user", "content": "x"}, max_bytes=100, tokens_in=5)


def test_a_chat_message_is_a_role_and_a_content() -> None:
    assert chat_message("user", "x", {}) == {"role": "user", "content": "x"}
    assert chat_message("tool", None, {"tool_call_id": "c"}) == {"role": "tool", "content": None, "tool_call_id": "c"}
    for content in (5, b"x", {"text": "x"}, ("x",)):
        with pytest.raises(InvalidInputError, match=r"^content"):
            chat_message("user", content, {})


NEARLY_PLAIN: list[object] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": ""},
    {"role": "tool", "content": "Größe \U0001f600 \0"},
    {"content": "the other way round", "role": "developer"},
    {"role": "user", "content": "x" * 70_000},
    {"role": "user", "content": "x" * 300},
    {"role": "user", "content": None},
    {"role": "user", "content": ["a part"]},
    {"role": "user", "content": "Hello", "name": "ann"},
    {"role": "user", "name": "ann"},
    {"type": "note", "content": "Hello"},
    {"role": "user"},
]


@pytest.mark.parametrize("message", NEARLY_PLAIN, ids=lambda message: str(message)[:40])
@pytest.mark.parametrize("compress_over", [None, 1_000, 100_000])
def test_a_plain_message_is_prepared_as_any_other(message: object, compress_over: int | None) -> None:
    limits = {"max_bytes": 1_000_000, "compress_over": compress_over}
    assert prepare_plain(message, **limits) in (None, prepare(message, **limits))  # type: ignore[arg-type]


def test_a_role_and_a_short_text_are_plain() -> None:
    assert prepare_plain({"role": "user", "content": "Hello"}, max_bytes=100) is not None


@pytest.mark.parametrize("content", ["\ud800", "x" * 101, "ä" * 51])
def test_a_plain_message_is_refused_as_any_other(content: str) -> None:
    said = {"role": "user", "content": content}
    with pytest.raises(InvalidInputError) as plain:
        prepare_plain(said, max_bytes=100)
    with pytest.raises(InvalidInputError) as any_other:
        prepare(said, max_bytes=100)
    assert str(plain.value) == str(any_other.value)


@pytest.mark.parametrize(
    "message", [None, "text", 1, [], {"role": "King", "content": "x"}, {"role": ["user"], "content": "x"}], ids=str
)
def test_what_is_no_message_is_not_plain(message: object) -> None:
    assert prepare_plain(message, max_bytes=100) is None
