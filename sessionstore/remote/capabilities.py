"""What a remote says that it can do. One that says nothing takes the tracker SDK's six kinds of events, one at a time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from .events import ERASE, MESSAGE, METRIC, PATHS

CAPABILITIES_PATH: Final = "/capabilities"
BATCH_PATH: Final = "/events/batch"
API: Final = "sessionstore"
VERSION: Final = 1
MAX_EVENTS: Final = 500
MAX_BYTES: Final = 1 << 20
# Those beyond the tracker SDK's own; only a remote that lists them is sent them.
MORE_KINDS: Final = (METRIC, MESSAGE, ERASE)
BASIC_KINDS: Final = frozenset(PATHS) - frozenset(MORE_KINDS)
# It is joined to the base URL: nothing in it may lead anywhere else, or be no URL at all.
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[\w.~-]{1,100}){1,10}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """How events are sent to a remote.

    Attributes:
        kinds: The kinds of events that it takes.
        batch_path: Where many events go at once; None if each goes alone.
        max_events: How many at once.
        max_bytes: How many bytes at once, before any compression.
        encodings: What a batch may be compressed with.
    """

    kinds: frozenset[str] = BASIC_KINDS
    batch_path: str | None = None
    max_events: int = 1
    max_bytes: int = MAX_BYTES
    encodings: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it speaks this library's part of the API, and so knows kinds and keys."""
        return self.batch_path is not None


PLAIN: Final = Capabilities()


def parsed(body: bytes) -> Capabilities | None:
    """What an answer to `GET /capabilities` says; None if it is not this API's."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    batch = said.get("batch") if isinstance(said, dict) else None
    if not isinstance(batch, dict) or said.get("api") != API or said.get("version") != VERSION:
        return None
    path = batch.get("path")
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        return None
    kinds = frozenset(_texts(said.get("kinds"))) & frozenset(MORE_KINDS)
    return Capabilities(
        kinds=BASIC_KINDS | kinds,
        batch_path=path,
        max_events=_limit(batch.get("max_events"), MAX_EVENTS),
        max_bytes=_limit(batch.get("max_bytes"), MAX_BYTES),
        encodings=tuple(_texts(batch.get("encodings"))),
    )


def _limit(said: Any, ours: int) -> int:
    """The smaller one of two limits; a remote that says nonsense gets ours."""
    return min(said, ours) if isinstance(said, int) and not isinstance(said, bool) and said > 0 else ours


def _texts(said: Any) -> list[str]:
    return [each for each in said if isinstance(each, str)] if isinstance(said, list) else []
