"""Every rule for what callers pass in, from both sides of its limit."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
import unicodedata
import uuid
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidInputError, inputs


class LyingStr(str):
    """A text that lies about itself."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "a lie"

    def __len__(self) -> int:
        return 1


def refused(field: str, call: Any, *arguments: Any, **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        call(*arguments, **options)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.reason}"
    return caught.value


# -- ids (rows 41 to 51)

BAD_IDS = {
    "41-empty": "",
    "41-space": " ",
    "41-tab": "\t",
    "41-leading-space": " a",
    "41-trailing-space": "a ",
    "41-newline": "a\nb",
    "42-none": None,
    "42-int": 5,
    "42-bytes": b"x",
    "42-bool": True,
    "42-uuid": uuid.UUID(int=1),
    "42-list": ["a"],
    "44-nul": "a\0b",
    "45-surrogate": "x\ud800",
    "45-surrogateescape": b"x\xff".decode(errors="surrogateescape"),
    "46-257": "x" * 257,
    "46-million": "x" * 10**6,
    "47-decomposed": "e\u0301",
    "48-override": "a\u202eb",
    "48-zero-width": "a\u200bb",
    "48-joiner": "a\u200db",
    "48-bom": "\ufeffa",
    "48-no-break-space": "a\u00a0b",
    "control-c1": "a\u0085b",
    "private-use": "\ue000",
    "unassigned": "\U000e0fff",
    "line-separator": "a\u2028b",
}

GOOD_IDS = {
    "43-parents": "../../etc/cron.d/x",
    "43-absolute": "/abs",
    "43-drive": "C:\\x",
    "43-dots": "..",
    "43-dot": ".",
    "43-device": "con",
    "43-slash": "a/b",
    "46-256": "x" * 256,
    "46-256-wide": "é" * 256,
    "47-composed": "é",
    "49-or": "' OR 1=1 --",
    "49-drop": '"; DROP TABLE sessions',
    "49-percent": "%",
    "49-underscore": "_",
    "49-path": "$.a",
    "49-braces": "{}",
    "inner-space": "a b",
    "emoji": "🙂",
    "cjk": "会話",
}


@pytest.mark.parametrize("value", BAD_IDS.values(), ids=BAD_IDS)
def test_a_bad_id_is_refused_without_being_shown(value: object) -> None:
    error = refused("session_id", inputs.identifier, "session_id", value)
    if isinstance(value, str) and len(value) > 2:
        assert value not in str(error)
    assert "uuid" not in str(error).lower()


@pytest.mark.parametrize("value", GOOD_IDS.values(), ids=GOOD_IDS)
def test_a_good_id_is_kept_as_it_is(value: str) -> None:
    assert inputs.identifier("session_id", value) == value


def test_a_text_that_lies_about_itself_is_taken_for_what_it_holds() -> None:
    taken = inputs.identifier("session_id", LyingStr("the truth"))
    assert type(taken) is str
    assert taken == "the truth"
    refused("session_id", inputs.identifier, "session_id", LyingStr(""))
    refused("session_id", inputs.identifier, "session_id", LyingStr("x" * 257))


@given(st.text(max_size=300))
def test_an_accepted_id_is_printable_and_normal(value: str) -> None:
    try:
        accepted = inputs.identifier("id", value)
    except InvalidInputError:
        return
    assert accepted == value == unicodedata.normalize("NFC", value)
    assert 1 <= len(value) <= 256
    assert value == value.strip(" ")
    assert not {unicodedata.category(character) for character in value} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_only_a_namespace_may_be_empty() -> None:
    assert inputs.namespace("") == ""
    assert inputs.namespace("team") == "team"
    for value in (None, 5, " ", "a\0", b""):
        refused("namespace", inputs.namespace, value)


def test_an_optional_id_may_be_absent_but_not_empty() -> None:
    assert inputs.optional_identifier("user_id", None) is None
    assert inputs.optional_identifier("user_id", "u") == "u"
    refused("user_id", inputs.optional_identifier, "user_id", "")


# -- texts (rows 52 to 60)


@pytest.mark.parametrize(
    "value", ["", "a\0b", "\uffff", "👩\u200d👩\u200d👧", "\ufeffbom", "\u202eoverride", "e\u0301", "\x85\x1f"]
)
def test_a_text_is_kept_as_it_is(value: str) -> None:
    assert inputs.text("content", value, max_bytes=1_000) == value


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x"), None, 5, ["x"]])
def test_only_a_str_is_a_text(value: object) -> None:
    refused("content", inputs.text, "content", value, max_bytes=1_000)


@pytest.mark.parametrize("size", [1, 300, 1_000])
def test_a_lone_surrogate_is_refused_in_short_and_long_texts(size: int) -> None:
    refused("content", inputs.text, "content", "x" * (size - 1) + "\ud800", max_bytes=1_000)


@pytest.mark.parametrize("character", ["a", "é", "✓", "🙂"])
def test_the_limit_of_a_text_counts_bytes(character: str) -> None:
    width = len(character.encode())
    limit = width * 50
    assert inputs.text("content", character * 50, max_bytes=limit)
    error = refused("content", inputs.text, "content", character * 50 + "a", max_bytes=limit)
    assert error.limit == limit


@given(st.text(alphabet=st.characters(codec=None), max_size=40), st.integers(min_value=1, max_value=100))
def test_a_text_is_accepted_exactly_if_its_bytes_fit(value: str, limit: int) -> None:
    try:
        fits = len(value.encode()) <= limit
    except UnicodeEncodeError:
        fits = False
    try:
        assert inputs.text("content", value, max_bytes=limit) == value
    except InvalidInputError:
        assert not fits
    else:
        assert fits


def test_a_gigabyte_is_refused_before_it_is_encoded() -> None:
    huge = "x" * (1_000_000_000 + 1)
    tracemalloc.start()
    try:
        refused("content", inputs.text, "content", huge, max_bytes=500_000_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_short_text_counts_characters() -> None:
    assert inputs.short_text("title", None, max_chars=3) is None
    assert inputs.short_text("title", "🙂🙂🙂", max_chars=3) == "🙂🙂🙂"
    assert inputs.short_text("title", "", max_chars=3) == ""
    assert refused("title", inputs.short_text, "title", "abcd", max_chars=3).limit == 3
    for value in (b"x", 5, "\ud800"):
        refused("title", inputs.short_text, "title", value, max_chars=3)


@pytest.mark.parametrize("value", ["Open", "open ", "", None, 5, ["open"]])
def test_a_choice_is_one_of_the_words_exactly(value: object) -> None:
    assert inputs.choice("status", "open", ("open", "failed")) == "open"
    assert "open, failed" in str(refused("status", inputs.choice, "status", value, ("open", "failed")))


# -- numbers (rows 75 to 79, 84, 86)

# Too long to be shown in a test's name.
HUGE = pytest.param(10**5_000, id="huge")

NO_INTS = [True, False, 1.0, "5", None, b"1", Decimal(1), 1e20, math.nan, [1]]


@pytest.mark.parametrize("value", NO_INTS)
def test_only_an_int_is_a_whole_number(value: object) -> None:
    refused("limit", inputs.whole_number, "limit", value)


@pytest.mark.parametrize("value", [-1, 11, 2**63, -(2**63) - 1, HUGE])
def test_a_whole_number_stays_in_its_range(value: int) -> None:
    error = refused("limit", inputs.whole_number, "limit", value, least=0, most=10)
    assert error.limit == (0 if value < 0 else 10)


def test_a_whole_number_may_be_as_large_as_a_column() -> None:
    assert inputs.whole_number("input_tokens", 2**63 - 1) == 2**63 - 1
    refused("input_tokens", inputs.whole_number, "input_tokens", 2**63)
    assert inputs.optional_whole_number("input_tokens", None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e309, -0.001, -1, True, "1", None, 2**63, HUGE, Decimal(1)])
def test_a_bad_duration_is_refused(value: object) -> None:
    refused("response_time_ms", inputs.duration, "response_time_ms", value)


@pytest.mark.parametrize(
    ("value", "kept"), [(0, 0.0), (-0.0, 0.0), (1, 1.0), (0.25, 0.25), (sys.float_info.max, sys.float_info.max)]
)
def test_a_duration_is_a_float(value: float, kept: float) -> None:
    taken = inputs.duration("response_time_ms", value)
    assert type(taken) is float
    assert taken == kept
    assert inputs.optional_duration("response_time_ms", None) is None


@pytest.mark.parametrize("value", [0, 1, "True", None, []])
def test_a_flag_is_true_or_false(value: object) -> None:
    assert inputs.flag("pinned", True) is True
    refused("pinned", inputs.flag, "pinned", value)


# -- instants (rows 80 to 83)


class Odd(tzinfo):
    """A time zone that does not say its offset."""

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return None


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 2, 1),  # noqa: DTZ001 - the very thing that is refused
        datetime(2024, 2, 1, tzinfo=Odd()),
        date(2024, 2, 1),
        "2024-02-30T00:00:00+00:00",
        "2024-02-01T23:59:60+00:00",
        "2024-02-01T24:00:00+00:00",
        "2024-02-01T00:00:00+25:00",
        "٢٠٢٤-02-01",
        1e18,
        math.nan,
        0,
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    ],
)
def test_a_bad_instant_is_refused(value: object) -> None:
    refused("since", inputs.instant, "since", value)


def test_an_instant_is_the_same_one_in_utc() -> None:
    given_one = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-7)))
    taken = inputs.instant("since", given_one)
    assert taken == given_one
    assert taken.tzinfo is UTC
    assert inputs.optional_instant("since", None) is None


# -- tags


def test_tags_are_sorted_and_without_repeats() -> None:
    for value in (["b", "a", "b"], ("b", "a"), {"a", "b"}, frozenset("ab")):
        assert inputs.tags(value) == ("a", "b")
    assert inputs.tags(()) == ()
    assert len(inputs.tags([f"t{number}" for number in range(100)])) == 100


@pytest.mark.parametrize(
    "value", ["ab", None, 5, {"a": 1}, b"ab", ["a", ""], ["a", None], [" a"], [["a"]], [f"t{i}" for i in range(101)]]
)
def test_bad_tags_are_refused(value: object) -> None:
    refused("tags", inputs.tags, value)


# -- JSON (rows 61 to 70)


def nested(depth: int) -> dict[str, Any]:
    root: dict[str, Any] = {}
    inner = root
    for _ in range(depth - 1):
        inner["a"] = {}
        inner = inner["a"]
    return root


def cyclic() -> dict[str, Any]:
    root: dict[str, Any] = {"list": []}
    root["list"].append(root)
    return root


BAD_JSON = {
    "61-nan": {"a": math.nan},
    "61-inf": {"a": [math.inf]},
    "62-depth-65": nested(65),
    "62-depth-1100": nested(1_100),
    "63-cycle": cyclic(),
    "64-set": {"a": {1}},
    "64-bytes": {"a": b"x"},
    "64-datetime": {"a": datetime.now(UTC)},
    "64-decimal": {"a": Decimal(1)},
    "64-object": {"a": object()},
    "64-tuple": {"a": (1, 2)},
    "64-complex": {"a": 1j},
    "65-int-key": {1: "a"},
    "65-none-key": {None: "a"},
    "65-bool-key": {True: "a"},
    "65-tuple-key": {(1, 2): "a"},
    "65-both-keys": {1: "a", "1": "b"},
    "65-inner-key": {"a": [{1: "b"}]},
    "66-huge-int": {"a": 10**5_000},
    "67-beyond-64-bit": {"a": 2**63},
    "67-below-64-bit": {"a": [-(2**63) - 1]},
    "68-surrogate": {"a": "\ud800"},
    "68-surrogate-key": {"\ud800": 1},
    "69-keys": {f"k{number}": 0 for number in range(100_001)},
    "69-ints": {"a": [0] * 2_000_000},
    "70-list": [],
    "70-str": "{}",
    "70-int": 5,
}


@pytest.mark.parametrize("value", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_refused(value: object) -> None:
    refused("metadata", inputs.json_object, "metadata", value, max_bytes=100 << 20)


def test_a_cycle_is_refused_whatever_else_is_beside_it() -> None:
    wide: dict[str, Any] = {}
    wide["a"] = [wide] * 10
    refused("metadata", inputs.metadata, wide)


@pytest.mark.parametrize("value", [nested(64), {"a": 2**63 - 1, "b": -(2**63)}, {"": ""}, {"a\0": "\0"}, {"k": [0] * 99_999}, {}])
def test_json_within_its_limits_reads_back_equal(value: dict[str, Any]) -> None:
    assert json.loads(inputs.json_object("metadata", value, max_bytes=10 << 20)) == value


def test_the_limit_of_json_counts_bytes() -> None:
    fits = {"a": "é" * 10}
    size = len(json.dumps(fits, ensure_ascii=False, separators=(",", ":")).encode())
    assert len(inputs.json_object("metadata", fits, max_bytes=size).encode()) == size
    assert refused("metadata", inputs.json_object, "metadata", fits, max_bytes=size - 1).limit == size - 1
    assert refused("metadata", inputs.metadata, {"a": "x" * (1 << 20)}).limit == 1 << 20
    assert inputs.metadata(None) is None


@pytest.mark.parametrize("key", ["x') OR 1=1 --", 'a"b', "$", "[0]", "", "a b", "é", "a" * 129, "a\n", 5, None, "a'"])
def test_a_filter_key_that_could_mean_something_is_refused(key: object) -> None:
    refused("metadata", inputs.metadata_filter, {key: 1})


@pytest.mark.parametrize("value", [{"$gt": 5}, [1], (1,), math.nan, b"x", 2**63, "\ud800", {1}])
def test_a_filter_takes_plain_values_and_no_operators(value: object) -> None:
    with pytest.raises(InvalidInputError, match="metadata"):
        inputs.metadata_filter({"a": value})


@pytest.mark.parametrize("value", [None, [], "a", 5])
def test_a_filter_is_a_dict(value: object) -> None:
    refused("metadata", inputs.metadata_filter, value)


def test_a_filter_is_sorted_by_its_keys() -> None:
    assert list(inputs.metadata_filter({"b.c": None, "a-b": True, "A_1": 1.5, "0": "x"})) == ["0", "A_1", "a-b", "b.c"]
