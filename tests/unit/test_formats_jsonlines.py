"""One JSON object a line, harmless to a terminal and read back equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.formats.jsonlines import NotAnObjectError, dumps, loads

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values))
def test_every_object_reads_back_equal_from_one_line(value: dict[str, object]) -> None:
    line = dumps(value)
    assert "\n" not in line
    assert loads(line.encode()) == value


@given(st.text(st.characters(codec="utf-8")))
def test_no_line_holds_a_character_that_a_terminal_obeys(text: str) -> None:
    line = dumps({"text": text})
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in line)


def test_direction_marks_and_line_separators_are_escaped_and_plain_letters_are_not() -> None:
    assert dumps({"text": "é\u202e\u2028\x9b日"}) == '{"text": "é\\u202e\\u2028\\u009b日"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff{}", "is not UTF-8"),
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b'"text"', "is not a JSON object"),
        (b'{"a": ' + b"[" * 100_000, "is nested too deeply"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "a number is too long"),
    ],
)
def test_what_is_no_object_is_refused_with_a_reason(line: bytes, reason: str) -> None:
    with pytest.raises(NotAnObjectError, match=reason):
        loads(line)


def test_a_refusal_does_not_carry_the_line() -> None:
    with pytest.raises(NotAnObjectError) as refused:
        loads(b'{"secret": hunter2}')
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
