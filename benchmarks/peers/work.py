"""All work items, in the order in which they are done: what is timed, in which unit, at which sync setting, and the target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..bench import Target
from .run import Scale
from .shapes import Alone, Appends, Listing, Processes, Queueing, Reads, Saves, Shape, Starts

Kind = Literal["sessions", "queues", "none"]


@dataclass(frozen=True, slots=True)
class Item:
    """A row of the report.

    Attributes:
        work: What is done; the scale's figures are filled in.
        sync: The setting that all sides of the row have.
        target: What the store must reach beside being ahead of every peer.
        kind: What the sides are.
    """

    name: str
    work: str
    unit: str
    sync: str
    shape: Shape
    target: Target | None = None
    kind: Kind = "sessions"

    def title(self, scale: Scale) -> str:
        """What is done, with the figures of the scale."""
        lengths = [f"{length:,}" for length, _ in scale.lengths]
        said = self.work.format(
            lengths=lengths, recent=scale.recent, whole=f"{scale.whole:,}", long=f"{scale.long:,}", sessions=f"{scale.sessions:,}",
            savers=scale.savers, processes=scale.processes, turns=scale.turns, batch=scale.batch,
        )  # fmt: skip
        return f"{said}, {self.sync.upper()}"


FULL, NORMAL = "full", "normal"

ITEMS = (
    Item("append-0", "append a turn, the first of a session", "ms", FULL, Appends(0)),
    Item("append-100", "append a turn onto {lengths[1]} messages", "ms", FULL, Appends(1), Target(1.2)),
    Item("append-1000", "append a turn onto {lengths[2]} messages", "ms", FULL, Appends(2), Target(1.2)),
    Item("append-10000", "append a turn onto {lengths[3]} messages", "ms", FULL, Appends(3), Target(1.2)),
    Item("append-normal", "append a turn onto {lengths[2]} messages", "ms", NORMAL, Appends(2), Target(1.5)),
    Item("newest", "the newest {recent} of {long} messages", "ms", FULL, Reads("newest"), Target(1.0)),
    Item("load", "all of {whole} messages", "ms", FULL, Reads("whole"), Target(0.6)),
    Item("list", "list {sessions} sessions", "ms", FULL, Listing()),
    Item("saves", "{savers} saves at once", "ms", FULL, Saves(), Target(35, of="store")),
    Item("processes-own", "{processes} processes x {turns} turns, own sessions", "s", FULL, Processes(shared=False), Target(1.3)),
    Item("processes-shared", "{processes} processes x {turns} turns, one session", "s", FULL, Processes(shared=True), Target(1.3)),
    Item("start", "start: spawn, import, open, first turn", "ms", FULL, Starts(), Target(450, of="store")),
    Item("memory", "resident memory after that", "MB", FULL, Starts(memory=True), Target(65, of="store")),
    Item("put", "enqueue an item", "us", FULL, Queueing("put"), kind="queues"),
    Item("put-many", "enqueue {batch} items, each", "us", FULL, Queueing("put_many"), kind="queues"),
    Item("take", "dequeue and acknowledge an item", "us", FULL, Queueing("take"), kind="queues"),
    Item("take-many", "dequeue and acknowledge {batch} items, each", "us", FULL, Queueing("take_many"), kind="queues"),
    Item("put-normal", "enqueue an item", "us", NORMAL, Queueing("put"), kind="queues"),
    Item("put-many-normal", "enqueue {batch} items, each", "us", NORMAL, Queueing("put_many"), kind="queues"),
    Item("take-normal", "dequeue and acknowledge an item", "us", NORMAL, Queueing("take"), kind="queues"),
    Item("take-many-normal", "dequeue and acknowledge {batch} items, each", "us", NORMAL, Queueing("take_many"), kind="queues"),
    Item("sweep", "sweep 1,000 due sessions of 100,000", "s", FULL, Alone("sweep", 0), kind="none"),
    Item("nothing-due", "sweep when nothing is due", "us", FULL, Alone("nothing-due", 0), kind="none"),
    Item("drain", "deliver an event to a collector, in batches", "us", FULL, Alone("drain", 0), kind="none"),
)


def settings(items: Iterable[Item]) -> dict[str, list[str]]:
    """The sync settings that the sides of each kind are wanted at."""
    items = list(items)
    return {kind: sorted({item.sync for item in items if item.kind == kind}) for kind in ("sessions", "queues")}


def chosen(names: list[str] | None) -> list[Item]:
    """The items of these names; without names, all."""
    known = {item.name for item in ITEMS}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(f"there is no item {', '.join(unknown)}; there are {', '.join(item.name for item in ITEMS)}")
    return [item for item in ITEMS if names is None or item.name in names]
