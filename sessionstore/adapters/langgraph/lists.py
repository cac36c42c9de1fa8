"""Lists that grow: which stored pieces a list still begins with, and what has to be written.

Serializing 10,000 messages to find that one is new costs more than all else together. So a piece of a list is known again by a
hash over all that its items hold, which takes a third of the time; the identity of an object says nothing, as it may be changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import ormsgpack
from langchain_core import messages as lc
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

Digest = Callable[[Sequence[Any]], bytes]

# With so many pieces of one size behind each other, the last ones are written again as one.
_MOST_ALIKE: Final = 16
_LEVEL_BITS: Final = 4
_MOST_REMEMBERED: Final = 1_000
# What is not told apart here is not told apart by the serializer either.
_EXACTLY: Final = (
    ormsgpack.OPT_NON_STR_KEYS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# All that is serialized of these stands in the two places that are looked at; subclasses may have more.
_PLAIN: Final[dict[type, str]] = {
    each: each.__name__
    for each in (
        lc.AIMessage, lc.AIMessageChunk, lc.ChatMessage, lc.FunctionMessage, lc.HumanMessage, lc.SystemMessage, lc.ToolMessage,
    )
}  # fmt: skip


class KnownPiece(NamedTuple):
    """A stored piece of a list: its number and stamp in the store, how many items it has, and their digest.

    `is_loaded` says that the digest is that of what was read; of what was written it may be another one, as where a serializer
    gives back lists for tuples.
    """

    number: int
    stamp: int
    items: int
    digest: bytes
    is_loaded: bool = False


KnownLists = Mapping[str, tuple[KnownPiece, ...]]


class ListPlan(NamedTuple):
    """How a list is stored.

    Attributes:
        begin: The stored pieces that it begins with.
        rest: What stands behind them.
        digest: The digest of that.
        equal: How many of the first items are those of the list before; some of them may be written again.
    """

    begin: tuple[KnownPiece, ...]
    rest: list[Any]
    digest: bytes
    equal: int


def planned(items: list[Any], known: Sequence[KnownPiece], digest: Digest) -> ListPlan:
    """How to store a list, given the pieces of the one before it."""
    begin: list[KnownPiece] = []
    equal = 0
    for piece in known:
        end = equal + piece.items
        if end > len(items) or digest(items[equal:end]) != piece.digest:
            break
        begin.append(piece)
        equal = end
    start = equal - _merge_last(begin, len(items) - equal)
    rest = items[start:]
    # Before it is serialized: who changes an item meanwhile is found out at the next put.
    return ListPlan(tuple(begin), rest, digest(rest), equal)


def digest_by(serde: SerializerProtocol) -> Digest:
    """A digest that differs where a serializer's bytes do."""
    plain = serde.serde if isinstance(serde, EncryptedSerializer) else serde
    knows_messages = type(plain) is JsonPlusSerializer

    def serialized(items: Sequence[Any]) -> bytes:
        kind, value = plain.dumps_typed(list(items))
        return sha256(kind.encode() + b"\0" + value).digest()

    def digest(items: Sequence[Any]) -> bytes:
        if not knows_messages:
            return serialized(items)
        try:
            return sha256(ormsgpack.packb(_seen(items), option=_EXACTLY)).digest()
        except ormsgpack.MsgpackEncodeError:
            return serialized(items)

    return digest


class Remembered:
    """The lists of the checkpoints that were put or read last, by checkpoint: where their pieces are, and no item of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, str, str], KnownLists] = OrderedDict()

    def of(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> KnownLists:
        """The lists of a checkpoint, by channel."""
        with self._lock:
            return {} if checkpoint_id is None else self._lists.get((thread_id, checkpoint_ns, checkpoint_id), {})

    def keep(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str, lists: KnownLists) -> None:
        """Remember the lists of a checkpoint."""
        with self._lock:
            self._lists[thread_id, checkpoint_ns, checkpoint_id] = lists
            self._lists.move_to_end((thread_id, checkpoint_ns, checkpoint_id))
            while len(self._lists) > _MOST_REMEMBERED:
                self._lists.popitem(last=False)


def _seen(items: Sequence[Any]) -> list[Any]:
    """All that is serialized of items, in one flat list: a list for each would keep the garbage collector busy."""
    seen: list[Any] = []
    for item in items:
        name = _PLAIN.get(type(item))
        seen += ("", item, None) if name is None else (name, item.__dict__, item.__pydantic_extra__)
    return seen


def _merge_last(begin: list[KnownPiece], more: int) -> int:
    """Take the last pieces off that are to be written again with what is new, and return how many items they have.

    So a list of N items has some tens of pieces, and an item is written again a few times while the list grows to a million.
    """
    taken = 0
    while True:
        level = _level(more + taken)
        alike = 0
        while alike < len(begin) and _level(begin[-1 - alike].items) <= level:
            alike += 1
        if alike < _MOST_ALIKE - 1:
            return taken
        taken += sum(piece.items for piece in begin[-alike:])
        del begin[-alike:]


def _level(items: int) -> int:
    return max(items.bit_length() - 1, 0) // _LEVEL_BITS
