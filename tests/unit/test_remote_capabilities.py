"""What a remote may say that it can do, and that nonsense is understood as the least."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.remote.capabilities import BASIC_KINDS, MAX_BYTES, MAX_EVENTS, PLAIN, Capabilities, parsed
from sessionstore.remote.events import ERASE, MESSAGE, METRIC, PATHS

SAID = {
    "api": "sessionstore",
    "version": 1,
    "batch": {"path": "/events/batch", "max_events": 500, "max_bytes": 1_048_576, "encodings": ["zstd", "gzip"]},
    "kinds": ["metric", "message", "erase"],
}


def understood(**changes: Any) -> Capabilities | None:
    return parsed(json.dumps(SAID | changes).encode())


def batch(**changes: Any) -> Capabilities | None:
    return understood(batch={**SAID["batch"], **changes})  # type: ignore[dict-item]


def test_a_collector_takes_every_kind_in_batches() -> None:
    assert understood() == Capabilities(frozenset(PATHS), "/events/batch", 500, 1 << 20, ("zstd", "gzip"))


def test_who_says_nothing_takes_the_six_kinds_of_the_sdk_one_at_a_time() -> None:
    assert PLAIN.kinds == BASIC_KINDS
    assert {METRIC, MESSAGE, ERASE}.isdisjoint(PLAIN.kinds)
    assert len(PLAIN.kinds) == 6
    assert not PLAIN.is_ours


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"sessionstore"', b"{}", b"<html></html>", b'{"api": "sess', b"\xff\xfe\x00", b"[" * 100_000,
     b'{"api": "sessionstore", "version": 1}', b'{"api": "sessionstore", "version": 1, "batch": []}'],
)  # fmt: skip
def test_what_is_not_this_api_is_not_taken_for_it(body: bytes) -> None:
    assert parsed(body) is None


@pytest.mark.parametrize("changes", [{"api": "other"}, {"api": None}, {"version": 2}, {"version": "1"}, {"version": None}])
def test_another_api_or_version_is_not_taken_for_this_one(changes: dict[str, Any]) -> None:
    assert understood(**changes) is None


@pytest.mark.parametrize(
    "path",
    [None, 7, "", "/", "events/batch", "//elsewhere.example/events", "https://elsewhere.example/", "/events/", "/../admin",
     "/a/../b", "/a/..", "/.", "/events?key=1", "/events#1", "/events\n", "/events\u0000", "/ev ents", "/@elsewhere", "/\u00e9",
     "/%2e%2e/b", "/" + "x" * 101],
)  # fmt: skip
def test_a_path_that_could_lead_elsewhere_is_not_followed(path: object) -> None:
    assert batch(path=path) is None


@pytest.mark.parametrize("path", ["/events/batch", "/v2/events.batch", "/...", "/~me/a-b_c"])
def test_any_plain_path_may_be_the_one_for_batches(path: str) -> None:
    said = batch(path=path)
    assert said is not None
    assert said.batch_path == path


@pytest.mark.parametrize(
    ("limit", "events"), [(1, 1), (7, 7), (500, 500), (501, 500), (10**30, 500), (0, 500), (-1, 500), (1.5, 500), ("9", 500),
                          (True, 500), (None, 500), ([], 500)],
)  # fmt: skip
def test_the_smaller_limit_counts(limit: object, events: int) -> None:
    said = batch(max_events=limit)
    assert said is not None
    assert said.max_events == events


def test_kinds_and_encodings_that_are_not_known_are_passed_over() -> None:
    said = understood(kinds=["metric", "telepathy", 7, None, "conversation_start"])
    assert said is not None
    assert said.kinds == BASIC_KINDS | {METRIC}
    without = understood(kinds="metric")
    assert without is not None
    assert without.kinds == BASIC_KINDS
    odd = batch(encodings=["br", 7])
    assert odd is not None
    assert odd.encodings == ("br",)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries(dict.fromkeys(("max_events", "max_bytes", "encodings"), ANYTHING)), ANYTHING)
@settings(max_examples=200, deadline=None)
def test_nonsense_never_raises_a_limit(changes: dict[str, Any], kinds: Any) -> None:
    said = parsed(json.dumps(SAID | {"kinds": kinds, "batch": {"path": "/b", **changes}}).encode())
    assert said is not None
    assert 0 < said.max_events <= MAX_EVENTS
    assert 0 < said.max_bytes <= MAX_BYTES
    assert frozenset(PATHS) >= said.kinds >= BASIC_KINDS
