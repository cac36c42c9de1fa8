"""The life of a session: it begins, is touched, ends or expires. The hot path: compiled SQL only.

A session is overdue from its `expires_at` on, and then no read finds it. Its expiry is settled later, by a sweep or by the next
session of its name: it becomes "expired" or is deleted, and the remote is told, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .. import clock, sql
from ..arguments import NewSession, SessionEnd, Unset
from ..config import OnExpire
from ..database.transaction import Transaction
from ..errors import ConflictError, NotFoundError
from ..inputs import MAX_METADATA_BYTES, json_object
from ..remote import events
from ..values import OPEN_STATUS, SessionInfo
from . import outbox, sessions, settling, subscription

_FIRST_VERSION: Final = 1
_FIRST_SEQ: Final = 1
_LAST_INSTANT: Final = datetime.max.replace(tzinfo=UTC)


def expiry(now: datetime, begun: datetime, ttl: float | None, max_age: float | None) -> datetime | None:
    """When a session that is used now expires; None for never."""
    ends = [_later(begin, life) for begin, life in ((now, ttl), (begun, max_age)) if life is not None]
    return min(ends, default=None)


def get_or_create(db: Transaction, new: NewSession) -> SessionInfo:
    """The live session of a name, made with the given attributes if there was none."""
    made = _insert(db, new)
    if made is not None:
        return made
    return sessions.find(db, new.namespace, new.session_id) or _insert_after_expired(db, new)


def create(db: Transaction, new: NewSession) -> SessionInfo:
    """A new session.

    Raises:
        ConflictError: There is a live session of this name.
    """
    made = _insert(db, new)
    if made is not None:
        return made
    if sessions.find(db, new.namespace, new.session_id) is not None:
        raise ConflictError(new.session_id, f"there is a session {new.session_id!r} already; session() gets it")
    return _insert_after_expired(db, new)


def touch(db: Transaction, namespace: str, session_id: str) -> SessionInfo:
    """Begin the idle time of a session anew.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
    """
    touched = touch_if_there(db, namespace, session_id)
    if touched is None:
        raise sessions.absent(db, namespace, session_id)
    return touched


def touch_if_there(db: Transaction, namespace: str, session_id: str) -> SessionInfo | None:
    """Begin the idle time of a live session anew; None if there is none."""
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    if not rows:
        return None
    key = rows[0][sessions.KEY]
    found = sessions.info(rows[0], ())
    if found.expires_at is not None:
        slide(db, key, found.created_at, found.expires_at, found.ttl, found.max_age)
    return sessions.find(db, namespace, session_id)


def slide(db: Transaction, key: int, begun: datetime, expires_at: datetime, ttl: float | None, max_age: float | None) -> None:
    """Move the expiry of a session that is used now; one without an idle time keeps its own.

    A clock that is back for a while takes nothing away. What lies far ahead comes from a clock that was, and is set right.
    """
    later = expiry(db.now, begun, ttl, max_age)
    if ttl is not None and later is not None and (later > expires_at or expires_at - later > clock.LONGEST_GAP):
        db.driver.execute(sql.SET_EXPIRY, (clock.to_text(later), key))


def remaining(db: Transaction, namespace: str, session_id: str) -> float | None:
    """Seconds until a session expires unless it is used; None for never.

    Raises:
        NotFoundError: There is none.
    """
    found = sessions.find(db, namespace, session_id)
    if found is None:
        raise NotFoundError(session_id)
    return None if found.expires_at is None else (found.expires_at - db.now).total_seconds()


def any_overdue(db: Transaction, at: datetime) -> bool:
    """Whether the life of any session is over; it costs one look into an index."""
    return bool(db.driver.execute(sql.PEEK_DUE, (clock.to_text(at),)).fetchall())


def end(db: Transaction, namespace: str, session_id: str, how: SessionEnd, *, with_tags: bool = True) -> SessionInfo:
    """End a session, open or ended or expired, and tell the remote; its tags are looked up for who wants them.

    Raises:
        NotFoundError: There is none.
        InvalidInputError: Its metadata would become too large.
    """
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    row = rows[0] if rows else sessions.over(db, namespace, session_id)
    if row is None:
        raise NotFoundError(session_id)
    return end_row(db, row, how, with_tags=with_tags)


def end_row(db: Transaction, row: Sequence[Any], how: SessionEnd, *, with_tags: bool) -> SessionInfo:
    """End the session of a row, and tell the remote."""
    key, now = row[sessions.KEY], db.now_text
    ended = db.driver.execute(
        sql.END_SESSION,
        (how.status, *_given(_merged(row, how)), *_given(how.quality_score), *_given(how.error), now, now,
         *_given(how.feedback), *_given(how.message_count), key),
    ).fetchall()  # fmt: skip
    info = sessions.info(ended[0], sessions.tags_of(db, key) if with_tags else ())
    if subscription.is_wanted(db):
        outbox.enqueue(db, (events.conversation_ended(info, how.metadata),))
    return info


def begin(db: Transaction, new: NewSession, session_id: str | None = None) -> Sequence[Any] | None:
    """Store a session, under another id if one is given, tell the remote, and return its row; None if its name is taken."""
    row = insert_row(db, new, session_id or new.session_id, begun=db.now_text)
    if row is None:
        return None
    key = row[sessions.KEY]
    sessions.add_tags(db, key, new.tags)
    if subscription.is_wanted(db):
        outbox.enqueue(db, (events.conversation_started(sessions.info(row, new.tags)),))
    return row


def insert_row(db: Transaction, new: NewSession, session_id: str, *, begun: str) -> Sequence[Any] | None:
    """Store a session without its tags, tell nobody, and return its row; None if its name is taken."""
    expires_at = None if new.pinned else expiry(db.now, db.now, new.ttl, new.max_age)
    rows = db.driver.execute(
        sql.INSERT_SESSION,
        (new.namespace, session_id, new.user_id, new.agent_id, new.title, OPEN_STATUS, new.pinned, new.metadata,
         _FIRST_VERSION, 0, _FIRST_SEQ, begun, begun, None if expires_at is None else clock.to_text(expires_at), new.ttl,
         new.max_age, new.tracked),
    ).fetchall()  # fmt: skip
    return rows[0] if rows else None


def free_name(db: Transaction, namespace: str, session_id: str, on_expire: OnExpire) -> None:
    """Settle the expiry of the session that holds a name, which no read finds any more."""
    rows = db.driver.execute(sql.FIND_HOLDER, (namespace, session_id)).fetchall()
    if rows and on_expire == "delete":
        from . import sweeping

        # A wrong clock must not cost a conversation.
        on_expire = "keep" if sweeping.clock_is_doubtful(db) else "delete"
    settling.settle(db, rows, on_expire)


def _later(begin: datetime, seconds: float) -> datetime:
    """An instant some seconds later, or the last one that there is."""
    return begin + min(timedelta(seconds=seconds), _LAST_INSTANT - begin)


def _insert_after_expired(db: Transaction, new: NewSession) -> SessionInfo:
    free_name(db, new.namespace, new.session_id, new.on_expire)
    made = _insert(db, new)
    if made is None:
        raise NotFoundError(new.session_id)
    return made


def _insert(db: Transaction, new: NewSession) -> SessionInfo | None:
    row = begin(db, new)
    return None if row is None else sessions.info(row, new.tags)


def _merged(row: Sequence[Any], how: SessionEnd) -> str | Unset:
    if how.metadata is None:
        return Unset()
    merged = {**sessions.info(row, ()).metadata, **how.metadata}
    return json_object("metadata", merged, max_bytes=MAX_METADATA_BYTES)


def _given(value: object) -> tuple[bool, object]:
    return (False, None) if isinstance(value, Unset) else (True, value)
