"""All work items, in the order in which they are done."""

from __future__ import annotations

from . import (
    appending,
    compressing,
    concurrency,
    conversations,
    delivering,
    enqueuing,
    exporting,
    forking,
    layouts,
    listing,
    percentiles,
    processes,
    reading,
    searching,
    starting,
    sweeping,
)
from .bench import Item

ITEMS: tuple[Item, ...] = (
    *appending.ITEMS,
    *concurrency.ITEMS,
    *processes.ITEMS,
    *reading.ITEMS,
    *listing.ITEMS,
    *conversations.ITEMS,
    *forking.ITEMS,
    *searching.ITEMS,
    *compressing.ITEMS,
    *enqueuing.ITEMS,
    *delivering.ITEMS,
    *sweeping.ITEMS,
    *percentiles.ITEMS,
    *exporting.ITEMS,
    *starting.ITEMS,
    *layouts.ITEMS,
)


def chosen(names: list[str] | None) -> list[Item]:
    """The items of these names; without names, those of a usual run."""
    if names is None:
        return [item for item in ITEMS if item.usual]
    known = {item.name for item in ITEMS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no item {', '.join(unknown)}; there are {', '.join(item.name for item in ITEMS)}")
    return [item for item in ITEMS if item.name in names]
