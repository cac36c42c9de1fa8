"""The requests that carry events: their bytes, their headers, and how events are divided among them."""

from __future__ import annotations

import dataclasses
import gzip
import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.remote import requests
from sessionstore.remote.capabilities import PLAIN, Capabilities
from sessionstore.remote.events import PATHS
from sessionstore.remote.requests import IDEMPOTENCY_KEY, NAMESPACE, SOURCE, Item, has_agent, item, parts, request
from sessionstore.remote.settlement import QueuedEvent

AT = "2026-03-28T11:00:00.500000+00:00"
OURS = Capabilities(frozenset(PATHS), "/events/batch", 500)


def event(number: int = 0, **changes: Any) -> QueuedEvent:
    body = changes.pop("body", f'{{"agent_id":"a","n":{number}}}')
    made = QueuedEvent(number, f"key-{number}", "session:s", "conversation_start", "default", body, 0, "2026-03-28 11:00:00.500000",
                       len(body.encode()), None, None)  # fmt: skip
    return made._replace(**changes)


def sent(events: list[QueuedEvent], capabilities: Capabilities = OURS, *, compressed: bool = False) -> requests.Request:
    return request([item(each) for each in events], capabilities, source="store-id", compressed=compressed)


def test_a_batch_has_the_documented_fields_and_passes_bodies_on_as_they_were_frozen() -> None:
    odd = '{"text":"\\u00e9 \u00e9 \\/","big":123456789012345678901234567890}'
    made = sent([event(1), event(2, body=odd, namespace="n\u00e9/1", kind="metric")])
    assert (made.path, made.is_batch, made.headers) == ("/events/batch", True, {"Content-Type": "application/json"})
    assert f'"body":{odd}'.encode() in made.body
    assert json.loads(made.body) == {
        "source": "store-id",
        "events": [
            {"key": "key-1", "kind": "conversation_start", "namespace": "default", "occurred_at": AT,
             "path": "/conversations/start", "body": {"agent_id": "a", "n": 1}},
            {"key": "key-2", "kind": "metric", "namespace": "n\u00e9/1", "occurred_at": AT,
             "path": "/metrics/events", "body": json.loads(odd)},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "path"), PATHS.items())
def test_a_single_event_goes_to_the_endpoint_of_its_kind_with_its_body_alone(kind: str, path: str) -> None:
    made = sent([event(3, kind=kind)], PLAIN, compressed=True)
    assert (made.path, made.body, made.is_batch) == (path, b'{"agent_id":"a","n":3}', False)
    assert made.headers[IDEMPOTENCY_KEY] == "key-3"
    assert made.headers[SOURCE] == "store-id"
    assert made.headers[NAMESPACE] == "default"


@given(st.text(min_size=1).filter(lambda text: text.isprintable() or "\n" in text))
def test_any_namespace_goes_into_a_header_and_comes_out_again(namespace: str) -> None:
    header = sent([event(namespace=namespace)], PLAIN).headers[NAMESPACE]
    assert header.isascii()
    assert header.isprintable()
    assert unquote(header) == namespace


@given(count=st.integers(1, 40), sizes=st.lists(st.integers(0, 400), min_size=40, max_size=40), most=st.integers(1, 40),
       max_events=st.integers(1, 40), max_bytes=st.integers(1, 3_000), refused=st.sets(st.integers(0, 39)))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_parts_keep_the_order_and_both_limits_and_leave_refused_ones_alone(
    count: int, sizes: list[int], most: int, max_events: int, max_bytes: int, refused: set[int]
) -> None:
    capabilities = dataclasses.replace(OURS, max_events=max_events, max_bytes=max_bytes)
    events = [event(n, body=json.dumps({"x": "y" * sizes[n]}), last_status=400 if n in refused else None) for n in range(count)]
    divided = parts([item(each) for each in events], capabilities, most)
    assert [each.event.id for part in divided for each in part] == list(range(count))
    for part in divided:
        made = request(part, capabilities, source="s" * 36, compressed=False)
        assert len(part) <= min(most, max_events)
        assert len(part) == 1 or not any(each.event.id in refused for each in part)
        assert len(made.body) <= max_bytes or not made.is_batch
        assert made.is_batch or len(part) == 1


def test_an_event_that_was_ever_refused_goes_alone() -> None:
    events = [event(0), event(1, attempts=1), event(2), event(3), event(4, last_status=500), event(5)]
    divided = parts([item(each) for each in events], OURS, 500)
    assert [[each.event.id for each in part] for part in divided] == [[0], [1], [2, 3], [4], [5]]


def test_an_event_too_large_for_a_batch_goes_to_its_own_endpoint() -> None:
    small = dataclasses.replace(OURS, max_bytes=300)
    made = sent([event(body=json.dumps({"x": "y" * 300}))], small)
    assert (made.path, made.is_batch) == ("/conversations/start", False)


def test_large_batches_are_compressed_as_the_remote_takes_it() -> None:
    events = [event(number) for number in range(200)]
    zipped = sent(events, dataclasses.replace(OURS, encodings=("gzip",)), compressed=True)
    plain = sent(events, dataclasses.replace(OURS, encodings=("gzip",)))
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain.body
    assert "Content-Encoding" not in plain.headers


def test_a_retry_repeats_its_bytes() -> None:
    events = [event(number) for number in range(200)]
    gzipped = dataclasses.replace(OURS, encodings=("gzip",))
    assert sent(events, gzipped, compressed=True) == sent(events, gzipped, compressed=True)


@pytest.mark.parametrize("encodings", [(), ("br",)])
def test_what_the_remote_does_not_read_is_not_compressed(encodings: tuple[str, ...]) -> None:
    made = sent([event(number) for number in range(200)], dataclasses.replace(OURS, encodings=encodings), compressed=True)
    assert made.headers == {"Content-Type": "application/json"}
    assert json.loads(made.body)["source"] == "store-id"


def test_small_batches_are_not_worth_compressing() -> None:
    assert "Content-Encoding" not in sent([event()], dataclasses.replace(OURS, encodings=("gzip",)), compressed=True).headers


def test_zstd_is_used_where_both_sides_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Packed:
        @staticmethod
        def compress(body: bytes) -> bytes:
            return b"zstd:" + body[:4]

    monkeypatch.setattr(requests, "zstd", lambda: Packed)
    events = [event(number) for number in range(200)]
    both = sent(events, dataclasses.replace(OURS, encodings=("zstd", "gzip")), compressed=True)
    assert (both.headers["Content-Encoding"], both.body[:5]) == ("zstd", b"zstd:")
    monkeypatch.setattr(requests, "zstd", lambda: None)
    here = sent(events, dataclasses.replace(OURS, encodings=("zstd", "gzip")), compressed=True)
    assert here.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(("body", "named"), [('{"agent_id":"a"}', True), ("{}", False), ('{"agent_id":null}', False)])
def test_an_event_names_its_agent_or_does_not(body: str, named: bool) -> None:
    assert has_agent(event(body=body)) is named


def test_an_item_is_the_event_and_its_json() -> None:
    made = item(event(7))
    assert isinstance(made, Item)
    assert json.loads(made.text)["key"] == made.event.key == "key-7"
