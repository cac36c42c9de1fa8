"""Reading a history as message dicts that are ready for a model: the newest messages of a long one, and a whole one."""

from __future__ import annotations

from collections.abc import Iterator

from . import texts
from .bench import Bench, Item, Row, Target
from .timing import repeated

_LAST_TARGET = Target(1.0)
_LOAD_TARGET = Target(0.6)


def newest(bench: Bench) -> Iterator[Row]:
    """The last messages of a long session."""
    recent, long = bench.scale.recent, bench.scale.long
    yield _row(bench, f"last {recent} of {long:,} messages", long, recent, _LAST_TARGET)


def whole(bench: Bench) -> Iterator[Row]:
    """All messages of a session."""
    length = bench.scale.whole
    yield _row(bench, f"load {length:,} messages", length, length, _LOAD_TARGET)


def _row(bench: Bench, work: str, length: int, wanted: int, target: Target) -> Row:
    messages = texts.history(length)
    with bench.both(["session"]) as (raw, store):
        raw.append_as_json("session", messages)
        chat = store.session("session")
        chat.append_many(messages)
        last = None if wanted == length else wanted
        expected = messages[-wanted:]
        if raw.decoded("session", wanted) != expected or [one.to_dict() for one in chat.messages(last=last)] != expected:
            raise AssertionError("what was read is not what was written")
        figures = bench.reads(
            {
                "raw": repeated(lambda _: raw.decoded("session", wanted)),
                "store": repeated(lambda _: [message.to_dict() for message in chat.messages(last=last)]),
            }
        )
    return Row(work, "ms", figures["raw"], figures["store"], target)


ITEMS = (
    Item("last", "finds the session, selects the JSON text of the messages, json.loads of each, oldest first.", newest),
    Item("load", "as last, for the whole session.", whole),
)
