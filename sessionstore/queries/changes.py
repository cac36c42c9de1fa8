"""Changing and deleting sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from ..arguments import SessionFilter
from ..config import OnExpire
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError
from ..inputs import MAX_TAGS
from ..values import OPEN_STATUS, SessionInfo
from ..values.receipts import DeleteReceipt
from . import archiving, catalog, lifecycle, removal, sessions
from .tables import SESSIONS, TAGS

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
        SessionExpiredError: Its life is over.
        ConflictError: Its version is not `expected_version`.
    """
    key, current = sessions.to_change(db, namespace, session_id)
    require_version(current, expected_version)
    changes = {"version": SESSIONS.c.version + 1, "updated_at": db.now, **values}
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    if tags is not None:
        db.core.execute(sa.delete(TAGS).where(TAGS.c.session_key == key))
        sessions.add_tags(db, key, tags)
    return sessions.to_change(db, namespace, values.get("session_id", session_id))[1]


def require_version(current: SessionInfo, expected: int | None) -> None:
    """Check that nobody changed a session meanwhile; None expects nothing.

    Raises:
        ConflictError: Its version is another one.
    """
    if expected is not None and current.version != expected:
        session_id = current.session_id
        raise ConflictError(
            session_id, f"session {session_id!r} has version {current.version}, not {expected}; read it again and repeat the change"
        )


def archive(
    db: Transaction, namespace: str, session_id: str, *, archived: bool, after: int, compress_over: int | None
) -> SessionInfo | int:
    """Put a session away and pack its messages, or take it back and unpack them.

    Args:
        db: The transaction.
        namespace: With the id, the name of the session.
        session_id: Its id.
        archived: Whether to put it away.
        after: 0, and then what was returned; so long it is neither away nor back.
        compress_over: Messages of more bytes stay packed.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
    """
    key = sessions.to_change(db, namespace, session_id)[0]
    part = archiving.pack_some(db, key, after) if archived else archiving.unpack_some(db, key, after, over=compress_over)
    if part.rest is not None:
        return part.rest
    return update(db, namespace, session_id, {"archived_at": db.now if archived else None})


def rename(db: Transaction, namespace: str, session_id: str, new_id: str, *, on_expire: OnExpire) -> SessionInfo:
    """Give a session another id.

    Raises:
        ConflictError: There is a live session of that id.
    """
    sessions.to_change(db, namespace, session_id)
    if new_id != session_id:
        if sessions.find(db, namespace, new_id) is not None:
            raise ConflictError(new_id, f"there is a session {new_id!r} already")
        lifecycle.free_name(db, namespace, new_id, on_expire)
    return update(db, namespace, session_id, {"session_id": new_id})


def retag(db: Transaction, namespace: str, session_id: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> SessionInfo:
    """Add and remove tags; those that are there already, or not at all, change nothing."""
    _, current = sessions.to_change(db, namespace, session_id)
    wanted = tuple(sorted((set(current.tags) | set(add)) - set(remove)))
    if wanted == current.tags:
        return current
    if len(wanted) > MAX_TAGS:
        raise InvalidInputError("tags", f"would be more than {MAX_TAGS}", limit=MAX_TAGS)
    return update(db, namespace, session_id, {}, tags=wanted)


def pin(db: Transaction, namespace: str, session_id: str, *, pinned: bool) -> SessionInfo:
    """Spare a session from expiry, or let its life begin anew.

    Raises:
        ConflictError: It is older than its `max_age`, and would expire at once.
    """
    _, current = sessions.to_change(db, namespace, session_id)
    if not pinned and current.status == OPEN_STATUS:
        _require_younger(db, current)
    return update(db, namespace, session_id, {"pinned": pinned, "expires_at": _expiry(db, current, pinned=pinned)})


def reopen(db: Transaction, namespace: str, session_id: str) -> SessionInfo:
    """Go on with a session that was ended; its life begins anew, and what its end told is gone.

    Raises:
        ConflictError: It is older than its `max_age`, and would expire at once.
    """
    _, current = sessions.to_change(db, namespace, session_id)
    if current.status == OPEN_STATUS:
        return lifecycle.touch(db, namespace, session_id)
    if not current.pinned:
        _require_younger(db, current)
    told_at_its_end = dict.fromkeys(("ended_at", "quality_score", "error", "feedback", "reported_message_count"))
    values = {**told_at_its_end, "status": OPEN_STATUS, "expires_at": _expiry(db, current, status=OPEN_STATUS)}
    return update(db, namespace, session_id, values)


def set_life(db: Transaction, namespace: str, session_id: str, values: Mapping[str, float | None]) -> SessionInfo:
    """Give a session another `ttl` or `max_age`; both count from now on and from its beginning.

    Raises:
        InvalidInputError: It is older than its new `max_age`.
    """
    _, current = sessions.to_change(db, namespace, session_id)
    changed = replace(current, ttl=values.get("ttl", current.ttl), max_age=values.get("max_age", current.max_age))
    expires_at = _expiry(db, changed)
    if expires_at is not None and expires_at <= db.now:
        raise InvalidInputError("max_age", "is less than the session's age; end it or delete it")
    lives = {"ttl_seconds": changed.ttl, "max_age_seconds": changed.max_age, "expires_at": expires_at}
    return update(db, namespace, session_id, lives)


def _require_younger(db: Transaction, info: SessionInfo) -> None:
    last = lifecycle.expiry(db.now, info.created_at, None, info.max_age)
    if last is not None and last <= db.now:
        raise ConflictError(info.session_id, f"session {info.session_id!r} is older than its max_age; set_ttl gives it another one")


def _expiry(db: Transaction, info: SessionInfo, *, pinned: bool | None = None, status: str | None = None) -> datetime | None:
    """When a session expires that is used now; only open ones do that are not pinned."""
    if (info.pinned if pinned is None else pinned) or (status or info.status) != OPEN_STATUS:
        return None
    return lifecycle.expiry(db.now, info.created_at, info.ttl, info.max_age)


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


def _delete(db: Transaction, chosen: Sequence[tuple[int, str]], *, missing: tuple[str, ...], dry_run: bool) -> DeleteReceipt:
    removed = 0
    for key, _ in chosen:
        removed += db.core.execute(sa.select(SESSIONS.c.message_count).where(SESSIONS.c.session_key == key)).scalar_one()
        if not dry_run:
            removal.remove(db, key)
    return DeleteReceipt(
        session_ids=tuple(dict.fromkeys(session_id for _, session_id in chosen)), messages=removed, missing=missing, dry_run=dry_run
    )
