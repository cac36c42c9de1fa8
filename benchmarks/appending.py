"""Appending: a turn and a single message in both durabilities, awaited, and as the history grows."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence

import sessionstore

from . import texts
from .bench import BOTH, Bench, Durability, Item, Row, Target
from .raw import RawStore
from .timing import Figure, Side, repeated

_SESSIONS = 10
_SESSION_IDS = tuple(f"session-{number}" for number in range(_SESSIONS))
_TURN_TARGETS = {"full": Target(1.2), "normal": Target(1.5)}
# At NORMAL the hop to the writer's thread takes longer than the whole transaction, so there is no target.
_AWAITED_TARGETS = {"full": Target(1.6), "normal": None}
_GROWTH_TARGET = Target(1.1, of="store")


def turns(bench: Bench) -> Iterator[Row]:
    """Two messages in one transaction."""
    for durability in BOTH:
        with bench.both(_SESSION_IDS, durability) as (raw, store):
            chats = _chats(store, _SESSION_IDS)
            figures = bench.writes({"raw": _raw_side(raw, _SESSION_IDS), "store": _store_side(chats)})
        yield Row(f"append a turn, {durability.upper()}", "ms", figures["raw"], figures["store"], _TURN_TARGETS[durability])


def single_messages(bench: Bench) -> Iterator[Row]:
    """One message in one transaction."""
    for durability in BOTH:
        with bench.both(_SESSION_IDS, durability) as (raw, store):
            chats = _chats(store, _SESSION_IDS)
            figures = bench.writes({"raw": _raw_side(raw, _SESSION_IDS, messages=1), "store": _single_message_side(chats)})
        yield Row(f"append a message, {durability.upper()}", "ms", figures["raw"], figures["store"])


def awaited_turns(bench: Bench) -> Iterator[Row]:
    """Two messages in one transaction, by one asyncio task."""
    for durability in BOTH:
        figures = _awaited(bench, durability)
        yield Row(
            f"await append of a turn, {durability.upper()}", "ms", figures["raw"], figures["store"], _AWAITED_TARGETS[durability]
        )


def growth(bench: Bench) -> Iterator[Row]:
    """Two messages in one transaction, onto a short and onto a long history."""
    lengths = (bench.scale.short, bench.scale.long)
    ids = {length: [f"{length}-{number}" for number in range(_SESSIONS)] for length in lengths}
    with bench.both(itertools.chain(*ids.values()), "normal") as (raw, store):
        sides: dict[str, Side] = {}
        for length in lengths:
            chats = _chats(store, ids[length])
            _fill(raw, chats, length)
            sides[f"raw {length}"] = _raw_side(raw, ids[length])
            sides[f"store {length}"] = _store_side(chats)
        figures = bench.writes(sides)
    for length in lengths:
        yield Row(f"append a turn onto {length:,} messages, NORMAL", "ms", figures[f"raw {length}"], figures[f"store {length}"])
    short, long = lengths
    yield Row(
        f"growth of append from {short:,} to {long:,} messages", "x",
        figures[f"raw {long}"].over(figures[f"raw {short}"]),
        figures[f"store {long}"].over(figures[f"store {short}"]),
        _GROWTH_TARGET,
    )  # fmt: skip


def _chats(store: sessionstore.SessionStore, session_ids: Sequence[str]) -> list[sessionstore.SessionHandle]:
    return [store.session(session_id) for session_id in session_ids]


def _fill(raw: RawStore, chats: Sequence[sessionstore.SessionHandle], length: int) -> None:
    messages = texts.history(length)
    for chat in chats:
        raw.append(chat.session_id, messages)
        chat.append_many(messages)


def _raw_side(raw: RawStore, session_ids: Sequence[str], messages: int = 2) -> Side:
    return repeated(lambda number: raw.append(session_ids[number % len(session_ids)], texts.turn(number)[:messages]))


def _store_side(chats: Sequence[sessionstore.SessionHandle]) -> Side:
    return repeated(lambda number: chats[number % len(chats)].append_many(texts.turn(number)))


def _single_message_side(chats: Sequence[sessionstore.SessionHandle]) -> Side:
    return repeated(lambda number: chats[number % len(chats)].append("user", texts.text(2 * number)))


def _awaited(bench: Bench, durability: Durability) -> dict[str, Figure]:
    with (
        bench.place() as place,
        asyncio.Runner() as runner,
        RawStore(bench.new_file(place, "raw", _SESSION_IDS), durability=durability) as raw,
    ):
        path = bench.new_file(place, "store", _SESSION_IDS)

        async def open_store() -> sessionstore.AsyncSessionStore:
            return await sessionstore.aopen(path, durability=durability)

        async def all_chats() -> list[sessionstore.AsyncSessionHandle]:
            return [await store.session(session_id) for session_id in _SESSION_IDS]

        async def append(count: int) -> list[float]:
            laps = []
            for number in range(count):
                started = time.perf_counter()
                await chats[number % _SESSIONS].append_many(texts.turn(number))
                laps.append(time.perf_counter() - started)
            return laps

        store = runner.run(open_store())
        chats = runner.run(all_chats())
        try:
            return bench.writes({"raw": _raw_side(raw, _SESSION_IDS), "store": lambda count: runner.run(append(count))})
        finally:
            runner.run(store.close())


ITEMS = (
    Item("append", "one thread, one held connection: BEGIN IMMEDIATE, one UPDATE, two INSERTs, COMMIT.", turns),
    Item("append-one", "as append, with one INSERT.", single_messages),
    Item("append-async", "as append: no event loop, no other thread.", awaited_turns),
    Item("growth", "as append, in 10 sessions of each length.", growth),
)
