"""Large strings of messages: what is taken out of a message to be kept as blobs, and how it is put back.

A string of more than 64 KiB, wherever it stands in a message, is kept once under the SHA-256 of its content. Where it stood is told
by `facts.blobs`, a list of `[path, hash, size]`. The content of a data URL in base64 is its decoded bytes; then the entry has a
fourth value, what comes before the base64.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from . import inputs, packing
from .content import StoredContent, decode, decoded

LARGEST_INLINE: Final = 64 << 10
# A character takes up to four bytes: shorter strings are not looked at.
LOOKED_AT: Final = LARGEST_INLINE // 4
MARK: Final = '"blobs":['

Path: TypeAlias = tuple[str | int, ...]

_CONTENT: Final[Path] = ("content",)
_NAME: Final = "blob:sha256-"
_BASE64: Final = ";base64,"
_LONGEST_PREFIX: Final = 256
# Results are found by the ids of their calls, and checks of these do not look into blobs.
_KEPT: Final = frozenset({"id", "call_id", "tool_call_id"})


class Entry(NamedTuple):
    """A large string of a message: where it stands, the blob of its content, and what a data URL has before that."""

    path: Path
    hash: str
    size_bytes: int
    prefix: str | None = None

    @property
    def name(self) -> str:
        """What stands in the string's place where blobs are not read."""
        return _NAME + self.hash

    @property
    def has_words(self) -> bool:
        """Whether it is part of what a message says in words."""
        return self.path[:1] == _CONTENT and (len(self.path) == 1 or (len(self.path) == 3 and self.path[2] == "text"))

    def string(self, data: bytes) -> str:
        """The string, from the content of its blob."""
        if self.prefix is None:
            return data.decode()
        from base64 import b64encode

        return self.prefix + b64encode(data).decode()


class NewBlob(NamedTuple):
    """A blob as it is stored."""

    hash: str
    size_bytes: int
    encoding: str | None
    data: bytes


Restored: TypeAlias = tuple[tuple[Entry, str], ...]


class Large(NamedTuple):
    """What of a message does not stand in its row: large strings with their blobs, and the text if it is packed."""

    restored: Restored
    blobs: tuple[NewBlob, ...]
    packed: bytes | None


def lightened(stored: StoredContent, compress_over: int | None, *, take_blobs: bool = True) -> tuple[StoredContent, Large | None]:
    """A message without its large strings, and these; None if it has none and is not packed."""
    taken = _Taken()
    text, extra = stored.text, stored.extra
    if take_blobs and text is not None and is_large(text):
        taken.take(_CONTENT, text)
        text = None
    if take_blobs and extra is not None and len(extra) > LOOKED_AT:
        extra = taken.without_large(extra)
    length = sum(len(part.encode()) for part in (text, extra) if part is not None)
    packs = compress_over is not None and length > compress_over
    packed = packing.pack(text, extra, level=packing.LIVE_LEVEL) if packs else None
    if not taken.restored and packed is None:
        return stored, None
    return stored._replace(text=text, extra=extra), Large(tuple(taken.restored), tuple(taken.blobs.values()), packed)


def is_large(string: str) -> bool:
    """Whether a string is to stand in a blob."""
    return len(string) > LARGEST_INLINE or (len(string) > LOOKED_AT and len(string.encode()) > LARGEST_INLINE)


def as_fact(restored: Restored) -> list[list[Any]]:
    """The entries as `facts.blobs` has them."""
    return [[list(path), *(value for value in rest if value is not None)] for (path, *rest), _ in restored]


def entries_of(facts: str | None) -> tuple[Entry, ...]:
    """The large strings that the facts of a message tell of."""
    if facts is None or MARK not in facts:
        return ()
    return tuple(Entry(tuple(path), *rest) for path, *rest in decoded(facts).get("blobs", ()))


def named(entries: Iterable[Entry]) -> Restored:
    """The entries with names in the place of strings."""
    return tuple((entry, entry.name) for entry in entries)


def whole(role: str | None, text: str | None, extra: str | None, restored: Restored) -> dict[str, Any]:
    """The message dict of a row, with strings in their places."""
    message = decode(role, text, extra)
    for entry, string in restored:
        place: Any = message
        for step in entry.path[:-1]:
            place = place[step]
        place[entry.path[-1]] = string
    return message


class _Taken:
    """What has been taken out of a message so far."""

    def __init__(self) -> None:
        self.restored: list[tuple[Entry, str]] = []
        self.blobs: dict[str, NewBlob] = {}

    def take(self, path: Path, string: str) -> None:
        """Take a string."""
        from hashlib import sha256

        prefix, data = _content(string)
        entry = Entry(path, sha256(data).hexdigest(), len(data), prefix)
        if entry.hash not in self.blobs:
            self.blobs[entry.hash] = NewBlob(entry.hash, len(data), *packing.squeezed(data))
        self.restored.append((entry, string))

    def without_large(self, extra: str) -> str:
        """A JSON object with nothing in the place of its large strings: no search is to find words there."""
        tree = json.loads(extra)
        found = [place for place in _strings(tree) if is_large(place[-1])]
        for container, path, string in found:
            self.take(path, string)
            container[path[-1]] = ""
        return inputs.encode_json(tree) if found else extra


def _strings(tree: dict[str, Any]) -> Iterator[tuple[Any, Path, str]]:
    """The strings of a JSON object: in what they stand, and where."""
    waiting: list[tuple[Any, Path]] = [(tree, ())]
    while waiting:
        container, path = waiting.pop()
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, dict | list):
                waiting.append((value, (*path, key)))
            elif isinstance(value, str) and key not in _KEPT:
                yield container, (*path, key), value


def _content(string: str) -> tuple[str | None, bytes]:
    """What is stored of a string: the bytes of a data URL, if it can be made of them again, with what stands before them."""
    if string.startswith("data:"):
        head, mark, payload = string.partition(_BASE64)
        if mark and len(head) <= _LONGEST_PREFIX:
            data = _from_base64(payload)
            if data is not None:
                return head + mark, data
    return None, string.encode()


def _from_base64(payload: str) -> bytes | None:
    from base64 import b64decode, b64encode

    try:
        data = b64decode(payload, validate=True)
    except ValueError:
        return None
    return data if data and b64encode(data).decode() == payload else None
