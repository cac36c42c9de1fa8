"""Changing and deleting sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from ..arguments import SessionFilter
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError, NotFoundError
from ..inputs import MAX_TAGS
from ..values import DeleteReceipt, SessionInfo
from . import catalog, messages, sessions
from .statements import MESSAGES, SESSIONS, TAGS

# SQLite takes a limited number of parameters.
_IDS_PER_QUERY: Final = 500


def update(
    db: Transaction,
    namespace: str,
    session_id: str,
    values: Mapping[str, Any],
    *,
    tags: Sequence[str] | None = None,
    expected_version: int | None = None,
) -> SessionInfo:
    """Set columns and, if given, all the tags of a session.

    Raises:
        NotFoundError: There is no such session.
        ConflictError: Its version is not `expected_version`.
    """
    current = _require(db, namespace, session_id)
    if expected_version is not None and current.version != expected_version:
        raise ConflictError(
            session_id,
            f"session {session_id!r} has version {current.version}, not {expected_version}; read it again and repeat the change",
        )
    key = sessions.key_of(db, namespace, session_id)
    changes = {"version": SESSIONS.c.version + 1, "updated_at": db.now, **values}
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    if tags is not None:
        db.core.execute(sa.delete(TAGS).where(TAGS.c.session_key == key))
        sessions.add_tags(db, key, tags)
    return _require(db, namespace, values.get("session_id", session_id))


def rename(db: Transaction, namespace: str, session_id: str, new_id: str) -> SessionInfo:
    """Give a session another id.

    Raises:
        ConflictError: There is a live session of that id.
    """
    if new_id != session_id and sessions.find(db, namespace, new_id) is not None:
        raise ConflictError(new_id, f"there is a session {new_id!r} already")
    return update(db, namespace, session_id, {"session_id": new_id})


def retag(db: Transaction, namespace: str, session_id: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> SessionInfo:
    """Add and remove tags; those that are there already, or not at all, change nothing."""
    current = _require(db, namespace, session_id)
    wanted = tuple(sorted((set(current.tags) | set(add)) - set(remove)))
    if wanted == current.tags:
        return current
    if len(wanted) > MAX_TAGS:
        raise InvalidInputError("tags", f"would be more than {MAX_TAGS}", limit=MAX_TAGS)
    return update(db, namespace, session_id, {}, tags=wanted)


def delete(db: Transaction, namespace: str, session_ids: Sequence[str], *, dry_run: bool) -> DeleteReceipt:
    """Delete sessions by their ids."""
    session_ids = tuple(dict.fromkeys(session_ids))
    chosen: list[tuple[int, str]] = []
    for start in range(0, len(session_ids), _IDS_PER_QUERY):
        found = sa.select(SESSIONS.c.session_key, SESSIONS.c.session_id).where(
            SESSIONS.c.namespace == namespace, SESSIONS.c.session_id.in_(session_ids[start : start + _IDS_PER_QUERY])
        )
        chosen += [(key, session_id) for key, session_id in db.core.execute(found)]
    chosen.sort()
    there = {session_id for _, session_id in chosen}
    missing = tuple(session_id for session_id in session_ids if session_id not in there)
    return _delete(db, chosen, missing=missing, dry_run=dry_run)


def delete_filtered(db: Transaction, wanted: SessionFilter, *, dry_run: bool) -> DeleteReceipt:
    """Delete the sessions that a filter chooses."""
    return _delete(db, catalog.keys(db, wanted), missing=(), dry_run=dry_run)


def remove(db: Transaction, key: int) -> int:
    """Delete a session with its tags and messages, and return how many messages they were."""
    in_session = MESSAGES.c.id.between(messages.first_id(key), messages.last_id(key))
    removed = db.core.execute(sa.delete(MESSAGES).where(in_session)).rowcount
    db.core.execute(sa.delete(SESSIONS).where(SESSIONS.c.session_key == key))
    return removed


def _require(db: Transaction, namespace: str, session_id: str) -> SessionInfo:
    found = sessions.find(db, namespace, session_id)
    if found is None:
        raise NotFoundError(session_id)
    return found


def _delete(db: Transaction, chosen: Sequence[tuple[int, str]], *, missing: tuple[str, ...], dry_run: bool) -> DeleteReceipt:
    removed = 0
    for key, _ in chosen:
        if dry_run:
            in_session = MESSAGES.c.id.between(messages.first_id(key), messages.last_id(key))
            removed += db.core.execute(sa.select(sa.func.count()).select_from(MESSAGES).where(in_session)).scalar_one()
        else:
            removed += remove(db, key)
    return DeleteReceipt(
        session_ids=tuple(dict.fromkeys(session_id for _, session_id in chosen)), messages=removed, missing=missing, dry_run=dry_run
    )
