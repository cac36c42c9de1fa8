"""Searching: what it costs an append to be found later, and what a search costs in a file of very many messages."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

import sessionstore

from . import texts
from .bench import BOTH, Bench, Item, Row, Target
from .timing import repeated

_SESSIONS: Final = 10
_MESSAGES_A_SESSION: Final = 100
_DEFERRED_TARGET: Final = Target(1.1)
_RARE_TARGET: Final = Target(5.0, of="store")
_RARE: Final = "quetzalcoatlus"
_UNCOMMON: Final = "ptarmigan"
_COMMON: Final = "commonword"
# Every so many messages have the word.
_RARITY: Final = {_RARE: 100_000, _UNCOMMON: 1_000, _COMMON: 2}

Mode = Literal["on", "deferred", "off"]


def appending(bench: Bench) -> Iterator[Row]:
    """Two messages in one transaction, by when they are indexed."""
    for durability in BOTH:
        with bench.place() as place:
            sides = {}
            stores = []
            modes: tuple[Mode, ...] = ("off", "deferred", "on")
            for mode in modes:
                store = sessionstore.open(bench.new_file(place, mode), durability=durability)
                stores.append(store)
                store.set_search(mode)
                chats = [store.session(f"session-{number}") for number in range(_SESSIONS)]
                sides[mode] = repeated(partial(_append, chats))
            figures = bench.writes(sides)
            for store in stores:
                store.close()
        name = durability.upper()
        yield Row(f"append a turn, search deferred, {name}", "ms", figures["off"], figures["deferred"], _DEFERRED_TARGET)
        yield Row(f"append a turn, search on, {name}", "ms", figures["off"], figures["on"])


def _append(chats: list[sessionstore.SessionHandle], number: int) -> None:
    chats[number % _SESSIONS].append_many(texts.turn(number))


def searching(bench: Bench) -> Iterator[Row]:
    """Pages of 20 hits, with their snippets."""
    count = bench.scale.crowd
    with bench.place() as place, sessionstore.open(bench.new_file(place, "store"), durability="normal") as store:
        _fill(store, count)
        store.rebuild_search()
        if len(store.search(_RARE)) != min(20, -(-count // _RARITY[_RARE])):
            raise AssertionError("what was found is not what was written")
        figures = bench.reads(
            {
                "rare": repeated(lambda _: store.search(_RARE)),
                "uncommon": repeated(lambda _: store.search(_UNCOMMON)),
                "common": repeated(lambda _: store.search(_COMMON, order="newest")),
                "session": repeated(lambda number: store.search(_COMMON, session_id=f"s{number % 2}", order="newest")),
            }
        )
    yield Row(f"search of {count:,} messages, a rare word", "ms", None, figures["rare"], _RARE_TARGET)
    yield Row(f"search of {count:,} messages, a word in 0.1 %", "ms", None, figures["uncommon"])
    yield Row(f"search of {count:,} messages, a word in half, newest", "ms", None, figures["common"])
    yield Row(f"search of {count:,} messages, a word in half, one session", "ms", None, figures["session"])


def _fill(store: sessionstore.SessionStore, count: int) -> None:
    for first in range(0, count, _MESSAGES_A_SESSION):
        chat = store.session(f"s{first // _MESSAGES_A_SESSION}")
        chat.append_many([{"role": "user", "content": _text(number)} for number in range(first, first + _MESSAGES_A_SESSION)])


def _text(number: int) -> str:
    marks = [word for word, every in _RARITY.items() if number % every == 0]
    return " ".join([texts.text(number), *marks])


ITEMS = (
    Item("append-search", "the store itself, with search off.", appending),
    Item("search", "none.", searching),
)
