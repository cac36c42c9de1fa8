"""Figures that programs record. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from .. import clock, sql
from ..database.transaction import Transaction
from ..remote import events
from . import outbox, subscription


class Figure(NamedTuple):
    """A checked figure; `attributes` is JSON text, `at` None for the present."""

    name: str
    value: float
    unit: str | None
    attributes: str | None
    agent_id: str | None
    session_id: str | None
    at: datetime | None = None


def record(db: Transaction, namespace: str, figures: Sequence[Figure]) -> None:
    """Store figures, and tell the remote.

    What happened before the remote was set is left to a backfill, which tells it once.
    """
    db.driver.executemany(sql.INSERT_METRIC, [_row(db, namespace, figure) for figure in figures])
    if subscription.is_wanted(db):
        outbox.enqueue(db, [_told(db, namespace, figure) for figure in _since_remote(db, figures)])


def _since_remote(db: Transaction, figures: Sequence[Figure]) -> Iterable[Figure]:
    if all(figure.at is None for figure in figures):
        return figures
    ((since,),) = db.driver.execute(sql.READ_REMOTE_SINCE).fetchall()
    if since is None:
        return figures
    return [figure for figure in figures if figure.at is None or clock.to_text(figure.at) >= since]


def _row(db: Transaction, namespace: str, figure: Figure) -> tuple[str | float | None, ...]:
    name, value, unit, attributes, agent_id, session_id, at = figure
    stored = db.now_text if at is None else clock.to_text(at)
    return (namespace, name, value, unit, agent_id, session_id, attributes, stored)


def _told(db: Transaction, namespace: str, figure: Figure) -> events.Event:
    name, value, unit, attributes, agent_id, session_id, at = figure
    return events.metric(
        namespace,
        at or db.now,
        name=name,
        value=value,
        unit=unit,
        agent_id=agent_id,
        session_id=session_id,
        attributes=attributes,
    )
