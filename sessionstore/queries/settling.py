"""Settling the expiry of overdue sessions: they become "expired", are archived or are removed, and the remote is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import sql
from ..config import OnExpire
from ..database.transaction import Transaction
from ..remote import events
from . import archiving, outbox, removal, sessions, subscription


def settle(db: Transaction, rows: Sequence[Sequence[Any]], on_expire: OnExpire) -> None:
    """Settle the expiry of the sessions of these rows, and tell the remote."""
    if on_expire == "delete":
        for row in rows:
            removal.remove(db, row[sessions.KEY])
    else:
        db.driver.executemany(sql.SETTLE_EXPIRY, [(row[sessions.KEY],) for row in rows])
        if on_expire == "archive":
            _archive(db, rows)
    if subscription.is_wanted(db):
        # The present of the sweep may not be the clock's: what is told is when the life was over.
        over = (sessions.info(row, (), at=row[sessions.EXPIRES_AT]) for row in rows)
        outbox.enqueue(db, map(events.conversation_expired, over))


def _archive(db: Transaction, rows: Sequence[Sequence[Any]]) -> None:
    """Archive the sessions that there is room for in this transaction; a sweep goes on with the others."""
    room = archiving.ROOM
    for row in rows:
        if room <= 0:
            break
        room -= archiving.archive_some(db, row[sessions.KEY], room=room).size
