"""What the trackers store of conversations: their beginning and their end. The hot path: compiled SQL only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import clock, sql
from ..arguments import NewSession, SessionEnd, new_session
from ..database.transaction import Transaction
from ..errors import NotFoundError
from ..tracked_ids import SessionIdParts, new_session_id, parse_session_id
from ..values import SessionInfo
from . import lifecycle, sessions


def start(db: Transaction, agent_id: str, new: NewSession) -> str:
    """Begin a conversation and return its id, made of its agent's, the present and chance."""
    while True:
        session_id = new_session_id(agent_id, db.now)
        # Another one of this agent may have drawn the same digits within this second.
        if lifecycle.begin(db, new, session_id) is not None:
            return session_id


def end(db: Transaction, namespace: str, session_id: str, how: SessionEnd) -> SessionInfo:
    """End a conversation; what is returned names no tags. One that is not known here is stored with what its id says.

    Raises:
        NotFoundError: It is not known, and its id is none of a tracker's.
    """
    try:
        return lifecycle.end(db, namespace, session_id, how, with_tags=False)
    except NotFoundError:
        parts = parse_session_id(session_id)
        if parts is None:
            raise
    return lifecycle.end_row(db, _begun_elsewhere(db, namespace, session_id, parts), how, with_tags=False)


def known(db: Transaction, namespace: str, session_id: str) -> SessionInfo | None:
    """The newest session of a name, live or over."""
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    row = rows[0] if rows else sessions.over(db, namespace, session_id)
    return None if row is None else sessions.info(row, sessions.tags_of(db, row[sessions.KEY]), at=db.now_text)


def _begun_elsewhere(db: Transaction, namespace: str, session_id: str, parts: SessionIdParts) -> Sequence[Any]:
    new = new_session(namespace, session_id, agent_id=parts.agent_id, tracked=True)
    row = lifecycle.insert_row(db, new, session_id, begun=clock.to_text(min(parts.started_at, db.now)))
    if row is None:
        raise NotFoundError(session_id)
    return row
