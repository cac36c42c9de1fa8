"""The requests that carry events: many in one batch, or one to the endpoint of its kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote

from ..inputs import encode_json
from .capabilities import Capabilities
from .compression import zstd
from .events import PATHS
from .settlement import QueuedEvent

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
SOURCE: Final = "Sessionstore-Source"
NAMESPACE: Final = "Sessionstore-Namespace"

_WORTH_COMPRESSING: Final = 4_096
_GZIP_LEVEL: Final = 1
_ENVELOPE_BYTES: Final = 100


class Item(NamedTuple):
    """An event and its JSON in a batch."""

    event: QueuedEvent
    text: bytes


class Request(NamedTuple):
    """A POST that carries events.

    Attributes:
        path: Below the base URL.
        body: JSON, compressed if the headers say so.
        headers: Those about the body and the events; not the key.
        items: What it carries.
        is_batch: Whether its answer has a result for each event.
    """

    path: str
    body: bytes
    headers: dict[str, str]
    items: Sequence[Item]
    is_batch: bool


def item(event: QueuedEvent) -> Item:
    """An event as it stands in a batch; its body is passed on as it was frozen."""
    at = event.occurred_at
    # Of these only the namespace can hold what JSON writes in another way.
    fields = f'"key":"{event.key}","kind":"{event.kind}","namespace":{_quoted(event.namespace)}'
    text = f'{{{fields},"occurred_at":"{at[:10]}T{at[11:]}+00:00","path":"{PATHS[event.kind]}","body":{event.body}}}'
    return Item(event, text.encode())


def parts(items: Sequence[Item], capabilities: Capabilities, most: int) -> list[list[Item]]:
    """Events as they go into requests: not too many and not too large together; one that was refused before goes alone."""
    most = min(most, capabilities.max_events)
    room = capabilities.max_bytes - _ENVELOPE_BYTES
    divided: list[list[Item]] = []
    size = 0
    open_part = False
    for each in items:
        alone = each.event.last_status is not None or each.event.attempts > 0
        if alone or not open_part or len(divided[-1]) >= most or size + len(each.text) + 1 > room:
            divided.append([])
            size = 0
        divided[-1].append(each)
        size += len(each.text) + 1
        open_part = not alone
    return divided


def request(items: Sequence[Item], capabilities: Capabilities, *, source: str, compressed: bool) -> Request:
    """The request that carries these events."""
    fits = sum(len(each.text) + 1 for each in items) + _ENVELOPE_BYTES <= capabilities.max_bytes
    if capabilities.batch_path is None or (len(items) == 1 and not fits):
        return _single(items[0], source)
    body = b'{"source":%b,"events":[%b]}' % (encode_json(source).encode(), b",".join(each.text for each in items))
    headers = {"Content-Type": "application/json"}
    if compressed and len(body) >= _WORTH_COMPRESSING:
        body, encoding = _compressed(body, capabilities.encodings)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
    return Request(capabilities.batch_path, body, headers, items, True)


def has_agent(event: QueuedEvent) -> bool:
    """Whether an event names its agent."""
    return json.loads(event.body).get("agent_id") is not None


@lru_cache(maxsize=256)
def _quoted(namespace: str) -> str:
    return encode_json(namespace)


def _single(one: Item, source: str) -> Request:
    event = one.event
    headers = {
        "Content-Type": "application/json",
        IDEMPOTENCY_KEY: event.key,
        SOURCE: source,
        # A namespace is any text; a header is not.
        NAMESPACE: quote(event.namespace, safe=""),
    }
    return Request(PATHS[event.kind], event.body.encode(), headers, (one,), False)


def _compressed(body: bytes, encodings: Sequence[str]) -> tuple[bytes, str | None]:
    packer = zstd() if "zstd" in encodings else None
    if packer is not None:
        return packer.compress(body), "zstd"
    if "gzip" in encodings:
        return gzip.compress(body, _GZIP_LEVEL, mtime=0), "gzip"
    return body, None
