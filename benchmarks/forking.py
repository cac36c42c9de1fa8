"""Forks: what making one costs beside an empty session, and what reading one of many generations costs beside a plain session."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import sessionstore

from . import texts
from .bench import BOTH, Bench, Item, Row, Target
from .timing import repeated

_GENERATIONS = 10
_FORK_TARGET = Target(2.0)
_READ_TARGET = Target(2.0)


def making(bench: Bench) -> Iterator[Row]:
    """Making a fork of a long session, and an empty session."""
    long = bench.scale.long
    for durability in BOTH:
        with bench.both(["session"], durability) as (_, store):
            store.append_many("session", texts.history(long))
            figures = bench.writes({"raw": repeated(partial(_create, store)), "store": repeated(partial(_fork, store))})
        work = f"fork a session of {long:,} messages, {durability.upper()}"
        yield Row(work, "ms", figures["raw"], figures["store"], _FORK_TARGET)


def _create(store: sessionstore.SessionStore, number: int) -> None:
    store.create(f"empty-{number}")


def _fork(store: sessionstore.SessionStore, number: int) -> None:
    store.fork("session", f"fork-{number}")


def reading(bench: Bench) -> Iterator[Row]:
    """The newest messages of a fork of a fork of ..., and of a session that has the same ones itself."""
    recent, long = bench.scale.recent, bench.scale.long
    with bench.both(["session", "plain"]) as (_, store):
        store.append_many("plain", texts.history(long))
        last = _family(store, long)
        if [one.text for one in last.messages()] != [one.text for one in store.messages("plain")]:
            raise AssertionError("what was read is not what was written")
        figures = bench.reads(
            {
                "raw": repeated(lambda _: [message.to_dict() for message in store.messages("plain", last=recent)]),
                "store": repeated(lambda _: [message.to_dict() for message in last.messages(last=recent)]),
            }
        )
    work = f"last {recent} of a fork of depth {_GENERATIONS}, {long:,} messages"
    yield Row(work, "ms", figures["raw"], figures["store"], _READ_TARGET)


def _family(store: sessionstore.SessionStore, length: int) -> sessionstore.SessionHandle:
    """The youngest of some generations, of which each wrote an equal share; the newest messages are those of several."""
    history = texts.history(length)
    chat = store.session("session")
    # The last generations are short, so that the newest messages come from more than one.
    short = max(1, length // 1_000)
    cut = length - short * _GENERATIONS
    chat.append_many(history[:cut])
    for generation in range(_GENERATIONS):
        chat = chat.fork(f"generation-{generation}", cut_pairs="keep")
        chat.append_many(history[cut + generation * short : cut + (generation + 1) * short])
    return chat


ITEMS = (
    Item("fork", "the store itself makes an empty session.", making),
    Item("deep-fork", "the store itself reads as many messages of a session that is no fork.", reading),
)
