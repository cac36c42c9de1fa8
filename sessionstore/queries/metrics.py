"""Figures that programs record. The hot path: compiled SQL only."""

from __future__ import annotations

from typing import NamedTuple

from .. import sql
from ..content import decoded
from ..database.transaction import Transaction
from ..remote import events
from . import outbox, subscription


class NewMetric(NamedTuple):
    """A checked figure; `attributes` is JSON text."""

    name: str
    value: float
    unit: str | None
    attributes: str | None
    agent_id: str | None
    session_id: str | None


def record(db: Transaction, namespace: str, metric: NewMetric) -> None:
    """Store a figure of this moment, and tell the remote."""
    name, value, unit, attributes, agent_id, session_id = metric
    row = (namespace, name, value, unit, agent_id, session_id, attributes, db.now_text)
    db.driver.execute(sql.INSERT_METRIC, row)
    if subscription.is_wanted(db):
        told = events.metric(
            namespace,
            db.now,
            name=name,
            value=value,
            unit=unit,
            agent_id=agent_id,
            session_id=session_id,
            attributes=decoded(attributes) if attributes else None,
        )
        outbox.enqueue(db, (told,))
