"""Percentiles of the response times of a day, among the sessions of a hundred days."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, time, timedelta

import sessionstore

from .bench import Bench, Item, Row, Target
from .crowd import crowd
from .raw import RawStore, stored
from .timing import repeated

_TARGET_MS = Target(150, of="store")
_VALUES = """
    SELECT answer_time_ms FROM messages
    WHERE facts IS NOT NULL AND created_at >= ? AND created_at < ? AND answer_time_ms IS NOT NULL ORDER BY answer_time_ms
"""


def percentiles(bench: Bench) -> Iterator[Row]:
    """The nearest ranks of a day's answers."""
    found = crowd(bench)
    start = datetime.combine(found.day, time(), tzinfo=UTC)
    end = start + timedelta(days=1)
    with bench.place() as place, ExitStack() as stack:
        raw = stack.enter_context(RawStore(found.copy(place, "raw")))
        store = stack.enter_context(sessionstore.open(found.copy(place, "store")))
        told = store.response_times(start_date=start, end_date=end)["overall"]
        ranked = _ranked(raw, start, end)
        if told["count"] != found.answers or [told[name] for name in ("p50_ms", "p95_ms", "p99_ms")] != ranked:
            raise AssertionError(f"the two sides do not agree: {told}, {ranked}")
        figures = bench.reads(
            {
                "raw": repeated(lambda _: _ranked(raw, start, end)),
                "store": repeated(lambda _: store.response_times(start_date=start, end_date=end)),
            }
        )
    work = f"p50, p95, p99 of {found.answers:,} messages of a day"
    yield Row(work, "ms", figures["raw"], figures["store"], _TARGET_MS)


def _ranked(raw: RawStore, start: datetime, end: datetime) -> list[float]:
    values = [value for (value,) in raw.connection.execute(_VALUES, (stored(start), stored(end))).fetchall()]
    return [values[math.ceil(share * len(values) / 100) - 1] for share in (50, 95, 99)]


ITEMS = (Item("percentiles", "one SELECT of the day's times in their order, without their agents; ranked by index.", percentiles),)
