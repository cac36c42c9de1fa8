"""Events that wait for the remote API: written in the transaction of their cause, if a remote is set.

The hot path: compiled SQL only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from .. import clock, sql
from ..config import DEFAULT_MAX_OUTBOX_BYTES, DROP_OLDEST_METRICS, MOST_UNSUPPORTED
from ..database.transaction import Transaction
from ..errors import QuotaError
from ..logs import log
from ..remote.events import METRIC, Event, encoded
from . import subscription
from .subscription import Subscription

_PENDING: Final = "pending"
_LONGEST_STRETCH: Final = 1 << 20
# A full outbox with nothing left to drop is looked at more rarely.
_LEAST_FULL_STRETCH: Final = 1 << 16
# Such a part of the quota is made free, looked at and delivered at once.
_PART: Final = 64
_FILLING: Final = 0.7
_KIND: Final = 2
_SIZE: Final = 9


def enqueue(db: Transaction, events: Iterable[Event]) -> None:
    """Keep events for delivery. Their keys are made here, once, and stay the same for every try.

    Raises:
        QuotaError: The outbox is full, a figure is among the events, and the store was told to raise then.
    """
    rows = [_row(db, event) for event in events]
    if kept := _within_quota(db, rows) if rows else rows:
        db.driver.executemany(sql.INSERT_EVENT, kept)
        db.enqueued = True


def held_bytes(db: Transaction) -> int:
    """How large the events are that count towards the quota: those that wait, and the dead ones."""
    ((_, pending),) = db.driver.execute(sql.PENDING_SIZE).fetchall()
    ((_, dead),) = db.driver.execute(sql.DEAD_SIZE).fetchall()
    return int(pending + dead)


def count_dropped(db: Transaction, number: int) -> None:
    """Note that figures were given up for want of room."""
    if number:
        db.driver.execute(sql.COUNT_DROPPED, (number,))
        log(logging.WARNING, "outbox_dropped", "the outbox is full; figures were dropped", events=number)


def _row(db: Transaction, event: Event) -> tuple[Any, ...]:
    body, size = encoded(event.body)
    now = db.now_text
    # Most tell of the present.
    occurred_at = now if event.occurred_at is db.now else clock.to_text(event.occurred_at)
    return (clock.new_key(), event.stream, event.kind, event.namespace, body, _PENDING, 0, occurred_at, now, size)


def _within_quota(db: Transaction, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The events that may be kept; all but figures always may."""
    gauge, size = db.gauge, _size(rows)
    gauge.unlooked += size
    if gauge.unlooked >= gauge.stretch or size > gauge.room:
        rows = _fitting(db, rows, size)
        size = _size(rows)
    gauge.room -= size
    return rows


def _fitting(db: Transaction, rows: list[tuple[Any, ...]], size: int) -> list[tuple[Any, ...]]:
    """The events that may be kept after a look at how much room there is, if that is worth while."""
    gauge = db.gauge
    has_figures = any(row[_KIND] == METRIC for row in rows)
    lacks_room = has_figures and size > gauge.room
    if gauge.unlooked >= gauge.stretch or (lacks_room and _may_have_room(db)):
        _look(db, size, has_figures=has_figures)
        lacks_room = has_figures and size > gauge.room
    return _without_oldest_figures(db, rows) if lacks_room else rows


def _may_have_room(db: Transaction) -> bool:
    """Whether a look may find room, as far as can be told without one: another process may have delivered something."""
    return not db.gauge.is_full or _sent(db) - db.gauge.sent >= db.gauge.enough


def _without_oldest_figures(db: Transaction, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    told = subscription.current(db)
    if _raises(told):
        quota = _quota(told)
        raise QuotaError(f"the outbox holds {quota} bytes of events, its quota; drain it, or give it more room", limit=quota)
    room = db.gauge.room - _size(row for row in rows if row[_KIND] != METRIC)
    kept = []
    for row in reversed(rows):
        size = row[_SIZE] if row[_KIND] == METRIC else 0
        if size <= max(room, 0):
            room -= size
            kept.append(row)
    if any(row[_KIND] == METRIC for row in kept):
        # These can make room for the next ones.
        db.gauge.is_full = False
    count_dropped(db, len(rows) - len(kept))
    return kept[::-1]


def _look(db: Transaction, size: int, *, has_figures: bool) -> None:
    """Find out how much room there is, and make some if so many bytes do not fit. It reads every event, so it is done rarely."""
    told, gauge = subscription.current(db), db.gauge
    quota = _quota(told)
    part = quota // _PART
    ((waiting, pending),) = db.driver.execute(sql.PENDING_SIZE).fetchall()
    ((unsupported, dead),) = db.driver.execute(sql.DEAD_SIZE).fetchall()
    held = pending + dead
    was_filling, gauge.is_filling = gauge.is_filling, held + size > _FILLING * quota
    if gauge.is_filling and not was_filling:
        log(logging.WARNING, "outbox_filling", "the outbox fills up; is the remote reachable?", held_bytes=held, quota=quota)
    gauge.room, gauge.is_full = quota - held, False
    gauge.sent, gauge.enough = _sent(db), max(1, waiting // _PART)
    if unsupported > MOST_UNSUPPORTED or (unsupported and size > gauge.room):
        from . import outbox_upkeep

        gauge.room += outbox_upkeep.drop_unsupported(db, size - gauge.room + part if size > gauge.room else 0)
    if has_figures and size > gauge.room:
        wanted = size - gauge.room + part
        freed = 0 if _raises(told) else _drop_oldest_figures(db, wanted)
        gauge.room += freed
        gauge.is_full = freed < wanted
    gauge.unlooked = 0
    gauge.stretch = max(_LEAST_FULL_STRETCH, part) if gauge.is_full else min(_LONGEST_STRETCH, part)


def _drop_oldest_figures(db: Transaction, size_bytes: int) -> int:
    from . import outbox_upkeep

    count, freed = outbox_upkeep.drop_oldest_metrics(db, size_bytes)
    count_dropped(db, count)
    return freed


def _raises(told: Subscription) -> bool:
    return (told.on_full or DROP_OLDEST_METRICS) != DROP_OLDEST_METRICS


def _quota(told: Subscription) -> int:
    return told.max_bytes or DEFAULT_MAX_OUTBOX_BYTES


def _sent(db: Transaction) -> int:
    ((_, _, _, _, sent, _),) = db.driver.execute(sql.READ_SYNC_STATE).fetchall()
    return int(sent)


def _size(rows: Iterable[tuple[Any, ...]]) -> int:
    return sum(row[_SIZE] for row in rows)
