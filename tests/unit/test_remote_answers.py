"""What each answer of a remote means: the table of statuses, what acknowledges, and what is told of an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.remote.answers import Answer, Failure, Meaning, described, judge
from sessionstore.remote.capabilities import PLAIN, Capabilities
from sessionstore.remote.credentials import ApiKey
from sessionstore.remote.requests import Request, item, request
from sessionstore.remote.settlement import QueuedEvent

NOW = datetime(2026, 3, 28, 12, tzinfo=UTC)
OURS = Capabilities(batch_path="/events/batch", max_events=500)
CANARY = "canary/key+0123456789abcdef"


def event(number: int) -> QueuedEvent:
    body = '{"agent_id":"a","session_id":"s"}'
    return QueuedEvent(number, f"key-{number}", f"session:{number}", "conversation_start", "default", body, 0,
                       "2026-03-28 11:00:00.000000", len(body), None, None)  # fmt: skip


def carrying(count: int, capabilities: Capabilities = OURS) -> Request:
    return request([item(event(number)) for number in range(count)], capabilities, source="store", compressed=False)


BATCH = carrying(3)
SINGLE = carrying(1, PLAIN)


def answer(status: int, body: object = b"", headers: Mapping[str, str] | None = None, key: ApiKey | None = None) -> Answer:
    return Answer(status, headers or {}, body if isinstance(body, bytes) or body is None else json.dumps(body).encode(), key)


def results(**statuses: str) -> dict[str, Any]:
    return {"results": [{"key": key.replace("_", "-"), "status": status, "error": "why"} for key, status in statuses.items()]}


BY_STATUS = [
    (Meaning.REDIRECT, (300, 301, 302, 303, 304, 307, 308, 399)),
    (Meaning.REFUSED, (400, 422)),
    (Meaning.AUTH, (401, 403)),
    (Meaning.CONFIG, (410, 415, 501, 505, 402, 406, 418, 451, 100, 199)),
    (Meaning.SERVER_ERROR, (408, 500, 502, 504, 506, 508, 520, 521, 525, 526, 530, 599)),
    (Meaning.BUSY, (425, 429, 503, 507)),
    (Meaning.IN_FLIGHT, (409,)),
    (Meaning.TOO_LARGE, (413,)),
]


@pytest.mark.parametrize("sent", [BATCH, SINGLE], ids=["batch", "single"])
@pytest.mark.parametrize(("meaning", "status"), [(meaning, status) for meaning, statuses in BY_STATUS for status in statuses])
def test_each_status_calls_for_its_action(meaning: Meaning, status: int, sent: Request) -> None:
    verdict = judge(answer(status), sent, NOW)
    assert (verdict.meaning, verdict.status, verdict.error) == (meaning, status, f"HTTP {status}")


@pytest.mark.parametrize("status", [404, 405])
def test_a_missing_endpoint_is_that_of_one_kind_or_of_the_whole_remote(status: int) -> None:
    assert judge(answer(status), SINGLE, NOW).meaning is Meaning.NO_SUCH_KIND
    assert judge(answer(status), BATCH, NOW).meaning is Meaning.CONFIG


def test_no_answer_is_an_outage_unless_a_certificate_was_refused() -> None:
    assert judge(Failure("ConnectError"), BATCH, NOW).meaning is Meaning.OFFLINE
    assert judge(Failure("ConnectError", is_certificate=True), BATCH, NOW).meaning is Meaning.CERTIFICATE


@pytest.mark.parametrize("status", [200, 201, 202, 204, 207, 299])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'"ok"', b'{"id": 1}'])
def test_a_single_event_is_acknowledged_by_json_or_nothing(status: int, body: bytes) -> None:
    assert judge(answer(status, body), SINGLE, NOW).meaning is Meaning.DELIVERED


NO_JSON = [b"<!doctype html><title>Sign in</title>", b'{"id": 1', b"OK", b"\x1f\x8b\x08\x00", b"\xff\xfe", b"[" * 100_000, None]


@pytest.mark.parametrize("sent", [BATCH, SINGLE], ids=["batch", "single"])
@pytest.mark.parametrize("body", NO_JSON, ids=["html", "cut short", "text", "gzip", "bytes", "deep", "endless"])
def test_what_is_no_json_acknowledges_nothing(body: bytes | None, sent: Request) -> None:
    verdict = judge(answer(200, body), sent, NOW)
    assert verdict.meaning is Meaning.SERVER_ERROR
    assert verdict.status == 200


STRANGE = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"results": {}}',
    b'{"results": [1, null, "key-0", [], {}]}',
    b'{"results": [{"key": "other", "status": "stored"}]}',
    b'{"results": [{"key": ["key-0"], "status": "stored"}]}',
    b'{"results": [{"key": "key-0", "status": "later"}]}',
    b'{"results": [{"key": "key-0", "status": ["stored"]}]}',
    b'{"results": [{"key": "key-0"}]}',
]


@pytest.mark.parametrize("body", STRANGE)
def test_a_batch_is_not_acknowledged_by_an_answer_that_names_none_of_its_events(body: bytes) -> None:
    assert judge(answer(200, body), BATCH, NOW).meaning is Meaning.SERVER_ERROR


@pytest.mark.parametrize("status", [200, 207])
def test_a_batch_is_acknowledged_event_by_event(status: int) -> None:
    verdict = judge(answer(status, results(key_0="duplicate", key_1="rejected", other="stored")), BATCH, NOW)
    assert verdict.meaning is Meaning.DELIVERED
    assert verdict.refused == {"key-1": "why"}
    assert verdict.unmarked == {"key-2"}


@pytest.mark.parametrize("status", [429, 503, 500, 401, 409])
def test_the_wait_that_is_asked_for_is_kept(status: int) -> None:
    assert judge(answer(status, headers={"retry-after": "90"}), SINGLE, NOW).asked == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": "no such agent"}, "HTTP 400: no such agent"),
        ({"detail": "no such agent"}, "HTTP 400: no such agent"),
        ({"error": {"message": "too \n long", "code": 7}}, "HTTP 400: too long"),
        ({"error": {"code": 7}}, "HTTP 400"),
        ({"error": 7}, "HTTP 400"),
        ([], "HTTP 400"),
        ({"error": "x" * 10_000}, "HTTP 400: " + "x" * 150),
        ({"error": "half a \ud800 character"}, "HTTP 400: half a ? character"),
    ],
)
def test_an_error_is_told_in_a_few_words_that_can_be_stored(body: object, shown: str) -> None:
    assert described(answer(400, body)) == shown
    assert shown.encode()


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_an_answer_that_quotes_the_key_does_not_show_it(status: int) -> None:
    said = {"error": f"the key {CANARY} is none; " + "x" * 100}
    assert CANARY not in judge(answer(status, said, key=ApiKey(CANARY)), SINGLE, NOW).error
    # JSON may write a solidus this way.
    escaped = json.dumps(said).replace("/", "\\/").encode()
    assert "0123456789" not in judge(answer(status, escaped, key=ApiKey(CANARY)), SINGLE, NOW).error


def test_a_key_is_hidden_also_where_the_message_is_cut() -> None:
    for length in range(560, 620):
        said = {"error": " " * length + CANARY}
        assert CANARY[:8] not in described(answer(400, said, key=ApiKey(CANARY)))


def test_a_result_that_quotes_the_key_does_not_show_it() -> None:
    said = {"results": [{"key": "key-0", "status": "rejected", "error": f"not with {CANARY}"}]}
    assert judge(answer(200, said, key=ApiKey(CANARY)), BATCH, NOW).refused == {"key-0": "not with ****"}


def test_a_key_of_one_letter_changes_nothing_of_what_an_answer_means() -> None:
    said = {"results": [{"key": "key-0", "status": "stored"}, {"key": "key-1", "status": "rejected", "error": "e"}]}
    verdict = judge(answer(200, said, key=ApiKey("e")), BATCH, NOW)
    assert verdict.unmarked == {"key-2"}
    assert set(verdict.refused) == {"key-1"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["key-0", "stored", "rejected"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["results", "key", "status", "error", "detail", "message"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(status=st.integers(100, 999), body=st.binary(max_size=50) | JSON, header=st.none() | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_answer_is_beyond_understanding(status: int, body: Any, header: str | None) -> None:
    said = answer(status, body, {} if header is None else {"retry-after": header})
    for sent in (BATCH, SINGLE):
        verdict = judge(said, sent, NOW)
        assert verdict.asked is None or timedelta(0) < verdict.asked <= timedelta(hours=1)
        assert verdict.error.encode() is not None
        assert verdict.meaning is not Meaning.DELIVERED or 200 <= status < 300


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("https://elsewhere.example/path?token=canary", "HTTP 301 to https://elsewhere.example"),
        ("/another/path", "HTTP 301"),
        ("https://[broken", "HTTP 301"),
        ("", "HTTP 301"),
    ],
)
def test_a_redirect_is_told_with_the_host_that_it_leads_to_and_no_more(location: str, told: str) -> None:
    assert judge(Answer(301, {"location": location}, b""), BATCH, NOW).error == told
