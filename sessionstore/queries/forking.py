"""Forks: sessions that begin with the messages of another one and share them instead of copying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from .. import inputs, sql
from ..arguments import NewSession
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError
from ..forks import Fork
from ..pairs import Pairing
from ..values import Message, SessionInfo
from . import lifecycle, lineage, message_rows, messages, search_index, sessions, state
from .dialect import as_stored
from .tables import HOLDS_NAME, IN_TIME, SESSION_COLUMNS, SESSIONS

# What has more pieces is copied: a fork of a fork of a fork ... would be read piece by piece.
MOST_PIECES: Final = 64
# A tool turn is looked for among so many messages before and behind the place of a cut, and further where one goes on.
_NEIGHBOURS: Final = 100


def fork(db: Transaction, namespace: str, session_id: str, wanted: Fork) -> SessionInfo:
    """A new session that begins with the messages of another one up to a seq.

    Raises:
        NotFoundError: There is no such session.
        ConflictError: There is a live session of the new id, or the cut would part a tool call from its result.
    """
    row, parent = sessions.row_to_change(db, namespace, session_id)
    at = _place_of_cut(db, parent, wanted)
    if sessions.find(db, namespace, new_id := wanted.new.session_id) is not None:
        raise ConflictError(new_id, f"there is a session {new_id!r} already; give the fork another id")
    made = lifecycle.create(db, _completed(wanted, parent))
    key, parent_key = sessions.place_of(db, namespace, made.session_id).key, row[sessions.KEY]
    shared = lineage.pieces(db, parent_key, 1, at)
    if own := wanted.copy or len(shared) > MOST_PIECES:
        for piece in shared:
            message_rows.copy(db, session_id, piece.owner, piece.first, piece.last, key)
    else:
        lineage.share(db, key, shared)
    asked_at = row[sessions.ASKED_AT] if at == parent.last_seq else lineage.newest_question(db, shared)
    through = 0 if own else at
    values = (_count(db, parent, shared, at), at + 1, asked_at, parent_key, at, through, through, key)
    ((*changed,),) = db.driver.execute(sql.SET_FORK, values).fetchall()
    if own:
        search_index.follow_session(db, key)
    state.copy(db, parent_key, key)
    return sessions.info(changed, made.tags)


def branches(db: Transaction, namespace: str, session_id: str) -> tuple[SessionInfo, ...]:
    """The live sessions that were forked from a session, oldest first.

    Raises:
        NotFoundError: There is no such session.
    """
    key = sessions.key_of(db, namespace, session_id)
    return _infos(db, sa.and_(SESSIONS.c.parent_key == key, HOLDS_NAME, IN_TIME))


def parent(db: Transaction, namespace: str, session_id: str) -> SessionInfo | None:
    """The live session that a session was forked from; None if it is no fork, or if its parent is gone.

    Raises:
        NotFoundError: There is no such session.
    """
    key = sessions.key_of(db, namespace, session_id)
    of_fork = sa.select(SESSIONS.c.parent_key).where(SESSIONS.c.session_key == key).scalar_subquery()
    found = _infos(db, sa.and_(SESSIONS.c.session_key == of_fork, HOLDS_NAME, IN_TIME))
    return found[0] if found else None


def _infos(db: Transaction, condition: sa.ColumnElement[bool]) -> tuple[SessionInfo, ...]:
    columns = (as_stored(column) for column in SESSION_COLUMNS)
    found = sa.select(*columns).where(condition).order_by(SESSIONS.c.session_key)
    rows = db.core.execute(found, {"at": db.now_text}).all()
    return tuple(sessions.info(row, sessions.tags_of(db, row[sessions.KEY])) for row in rows)


def _completed(wanted: Fork, parent: SessionInfo) -> NewSession:
    """The attributes of the fork: those that were given, and else its parent's."""
    inherited: dict[str, Any] = {
        "user_id": parent.user_id,
        "agent_id": parent.agent_id,
        "title": parent.title,
        "tags": parent.tags,
        "metadata": inputs.metadata(parent.metadata or None),
        "ttl": parent.ttl,
        "max_age": parent.max_age,
    }
    return replace(wanted.new, **{name: value for name, value in inherited.items() if name not in wanted.given})


def _count(db: Transaction, parent: SessionInfo, shared: Sequence[lineage.Piece], at: int) -> int:
    """How many messages stand in the shared pieces; a session without gaps needs no look at its rows."""
    if parent.message_count == parent.last_seq:
        return at
    return sum(lineage.count(db, piece) for piece in shared)


def _place_of_cut(db: Transaction, parent: SessionInfo, wanted: Fork) -> int:
    at = parent.last_seq if wanted.at is None else wanted.at
    if at > parent.last_seq:
        last = parent.last_seq
        raise InvalidInputError("at", f"must be at most {last}, the seq that the session gave last", limit=last)
    if wanted.cut_pairs == "keep" or at == parent.last_seq:
        return at
    boundary = _boundary(db, parent, at)
    if boundary != at and wanted.cut_pairs == "refuse":
        raise ConflictError(
            parent.session_id,
            f"seq {at} of session {parent.session_id!r} stands between a tool call and its result; fork at {boundary}",
        )
    return boundary


def _boundary(db: Transaction, parent: SessionInfo, at: int) -> int:
    """The highest seq up to this one behind which no result stands whose call stands before it."""
    behind = _behind(db, parent, at)
    if not Pairing(behind).open_calls:
        return at
    pairs = Pairing(behind + _ahead(db, parent, at)).call_of.items()
    while parted := [call for result, call in pairs if call <= at < result]:
        at = min(parted) - 1
    return at


def _behind(db: Transaction, parent: SessionInfo, at: int) -> list[Message]:
    """The messages up to a seq, oldest first: some, and more where these begin amidst results."""
    found: list[Message] = []
    before = at + 1
    while page := messages.read(db, parent.namespace, parent.session_id, last=_NEIGHBOURS, before=before, blobs=False):
        found = page + found
        before = page[0].seq
        if page[0].tool_call_id is None:
            break
    return found


def _ahead(db: Transaction, parent: SessionInfo, at: int) -> list[Message]:
    """The messages behind a seq: some, and more where these end amidst results."""
    found: list[Message] = []
    while page := messages.read_page(db, parent.namespace, parent.session_id, after=at, size=_NEIGHBOURS, blobs=False):
        found += page
        at = page[-1].seq
        if page[-1].tool_call_id is None:
            break
    return found
