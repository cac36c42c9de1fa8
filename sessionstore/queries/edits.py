"""Removing messages. Their seqs are never given again."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from .. import clock
from ..database.transaction import Transaction
from ..values import MAX_SEQ, Message
from . import lineage, messages, sessions
from .tables import SESSIONS


def pop(db: Transaction, namespace: str, session_id: str) -> Message | None:
    """Remove the last message and return it; None if there is none."""
    sessions.to_change(db, namespace, session_id)
    newest = messages.read(db, namespace, session_id, last=1)
    if not newest:
        return None
    truncate(db, namespace, session_id, after=newest[0].seq - 1)
    return newest[0]


def truncate(db: Transaction, namespace: str, session_id: str, *, after: int) -> int:
    """Remove all messages behind a seq and return how many."""
    key, _ = sessions.to_change(db, namespace, session_id)
    removed = lineage.remove_own(db, key, after + 1, MAX_SEQ) if after < MAX_SEQ else 0
    if removed:
        changes = {
            "message_count": SESSIONS.c.message_count - removed,
            "version": SESSIONS.c.version + 1,
            "updated_at": db.now,
            "asked_at": asked_at(db, key),
        }
        db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    return removed


def asked_at(db: Transaction, key: int) -> datetime | None:
    """When the newest user message of a session was written."""
    newest = lineage.newest_question(db, lineage.pieces(db, key))
    return None if newest is None else clock.from_text(newest)
