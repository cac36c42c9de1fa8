"""Removing messages. Their seqs are never given again."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from ..database.transaction import Transaction
from ..values import Message
from . import messages, sessions
from .statements import MESSAGES, SESSIONS


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
    first = messages.first_id(key) + after
    removed = db.core.execute(sa.delete(MESSAGES).where(MESSAGES.c.id > first, MESSAGES.c.id <= messages.last_id(key))).rowcount
    if removed:
        changes = {
            "message_count": SESSIONS.c.message_count - removed,
            "version": SESSIONS.c.version + 1,
            "updated_at": db.now,
            "asked_at": _asked_at(db, key),
        }
        db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    return removed


def _asked_at(db: Transaction, key: int) -> datetime | None:
    """When the newest user message of a session was written."""
    in_session = MESSAGES.c.id.between(messages.first_id(key), messages.last_id(key))
    newest = sa.select(MESSAGES.c.created_at).where(in_session, MESSAGES.c.role == "user").order_by(MESSAGES.c.id.desc()).limit(1)
    return db.core.execute(newest).scalar_one_or_none()
