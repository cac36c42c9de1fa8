"""Bringing a session together with another state of it: what it lacks is added, and nothing that it has is lost.

The messages of one side must begin with those of the other: the same seqs, kinds and message dicts, written at the same instants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from .. import clock
from ..database.transaction import Transaction
from ..errors import ConflictError
from ..rows import PreparedMessage
from ..values import STATE_SCOPES, Message, SessionInfo
from . import sessions, state
from .tables import SESSIONS, TAGS

Numbered = tuple[int, PreparedMessage]

# What the state that was changed last decides.
_ATTRIBUTES: Final = ("user_id", "agent_id", "title", "status", "pinned", "quality_score", "error", "ended_at", "archived_at",
                      "expires_at", "tracked", "feedback", "reported_message_count", "updated_at")  # fmt: skip
_SESSION: Final = STATE_SCOPES[0]


def behind_the_same(stored: Iterable[Message], given: Iterable[Numbered], session_id: str) -> Iterator[Numbered]:
    """The messages behind those that are stored already.

    Raises:
        ConflictError: Where both sides have a message, they are not the same.
    """
    there = iter(stored)
    for seq, message in given:
        found = next(there, None)
        if found is None:
            yield seq, message
        elif not _are_same(found, seq, message):
            raise ConflictError(
                session_id,
                f"session {session_id!r} cannot be merged: its message {found.seq} is not the message {seq} that comes",
            )


def count_in(db: Transaction, key: int, added: int, last: int, asked_at: datetime | None) -> None:
    """Note on a session's row that it got messages, up to a seq."""
    values = {
        "message_count": SESSIONS.c.message_count + added,
        "next_seq": sa.func.max(SESSIONS.c.next_seq, last + 1),
        "asked_at": asked_at,
    }
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(values))


def take_newer(db: Transaction, key: int, new: SessionInfo, values: Sequence[state.StoredValue]) -> None:
    """Give a session the attributes of another state of it, if that was changed later, and the values that were."""
    known = {value.name: value.updated_at for value in state.of(db, new.namespace, _SESSION, str(key))}
    newer = [each for each in values if each.updated_at > known.get(each.name, "")]
    state.put_rows(db, new.namespace, _SESSION, str(key), newer)
    if new.updated_at <= db.core.execute(sa.select(SESSIONS.c.updated_at).where(SESSIONS.c.session_key == key)).scalar_one():
        return
    changes: dict[str, Any] = {name: getattr(new, name) for name in _ATTRIBUTES}
    changes |= {"metadata": new.metadata or None, "ttl_seconds": new.ttl, "max_age_seconds": new.max_age}
    # Who read the version before must not take it for this one.
    changes["version"] = sa.func.max(SESSIONS.c.version + 1, new.version)
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    db.core.execute(sa.delete(TAGS).where(TAGS.c.session_key == key))
    sessions.add_tags(db, key, new.tags)


def _are_same(stored: Message, seq: int, given: PreparedMessage) -> bool:
    if (stored.seq, stored.kind, stored.role) != (seq, given.kind, given.role) or stored.to_dict() != given.to_dict():
        return False
    return given.created_at is None or stored.created_at == clock.from_text(given.created_at)
