"""Compression: what it costs to append and to read messages of two kilobytes that are compressed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import sessionstore

from . import texts
from .bench import BOTH, Bench, Item, Row
from .timing import repeated

_SESSIONS: Final = 10
_TEXTS_A_MESSAGE: Final = 5
_LAST: Final = 50
_OVER: Final = {"plain": None, "compressed": 1_000}


def appending_and_reading(bench: Bench) -> Iterator[Row]:
    """One message in one transaction; then the last fifty of a session."""
    for durability in BOTH:
        with bench.place() as place, ExitStack() as stores:
            chats = {}
            for name, over in _OVER.items():
                store = sessionstore.open(bench.new_file(place, name), durability=durability, compress_over=over)
                stores.enter_context(store)
                chats[name] = [store.session(f"session-{number}") for number in range(_SESSIONS)]
            writes = bench.writes(
                {name: repeated(lambda number, its=its: its[number % _SESSIONS].append("user", _text(number)))
                 for name, its in chats.items()}
            )  # fmt: skip
            for its in chats.values():
                its[0].append_many([{"role": "user", "content": _text(number)} for number in range(_LAST)])
            reads = bench.reads(
                {name: repeated(lambda _, its=its: its[0].messages(last=_LAST)) for name, its in chats.items()}
            )  # fmt: skip
        yield Row(f"append 2 kB, compressed, {durability.upper()}", "ms", writes["plain"], writes["compressed"])
    yield Row(f"last {_LAST} of 2 kB, compressed", "ms", reads["plain"], reads["compressed"])


def _text(number: int) -> str:
    return "\n".join(texts.text(number * _TEXTS_A_MESSAGE + part) for part in range(_TEXTS_A_MESSAGE))


ITEMS = (Item("compress", "the same store without compression.", appending_and_reading),)
