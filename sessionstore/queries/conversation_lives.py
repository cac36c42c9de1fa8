"""What the trackers ask of the conversations that they began, and how they change their lives."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from ..content import decoded
from ..database.transaction import Transaction
from ..errors import NotFoundError
from ..inputs import MAX_METADATA_BYTES, json_object
from ..values import EXPIRED_STATUS, SessionInfo
from ..values.conversations import SessionStats
from . import changes, conversations, lifecycle, sessions
from .catalog_statements import TAGS_AS_JSON
from .dialect import as_stored, microseconds_since, sorted_part, whole_microseconds
from .tables import IN_TIME, IS_OPEN, OVERDUE, SESSION_COLUMNS, SESSIONS

_ROW: Final = (*(as_stored(column) for column in SESSION_COLUMNS), TAGS_AS_JSON)
_HOUR: Final = 3_600.0
_SECOND: Final = 1_000_000
_TRACKED: Final = SESSIONS.c.tracked.is_(True)
_LIFE: Final = tuple(
    SESSIONS.c[name]
    for name in ("session_key", "pinned", "created_at", "updated_at", "expires_at", "ttl_seconds", "max_age_seconds")
)


def _idle() -> sa.ColumnElement[int]:
    """The microseconds since a session was used last; 0 after a clock that went back. `last_use` in SQL."""
    columns = SESSIONS.c
    slides = sa.and_(columns.ttl_seconds.is_not(None), columns.max_age_seconds.is_(None), columns.expires_at.is_not(None))
    since = sa.case((slides, microseconds_since(columns.expires_at) + whole_microseconds(columns.ttl_seconds)),
                    else_=microseconds_since(columns.updated_at))  # fmt: skip
    return sa.func.max(0, since, type_=sa.Integer)


_IDLE: Final = _idle()


def active(db: Transaction, namespace: str, *, agent_id: str | None) -> list[SessionInfo]:
    """The live open sessions of an agent or of all, tracked or not, the newest first."""
    found = sa.select(*_ROW).where(SESSIONS.c.namespace == namespace, IS_OPEN, IN_TIME)
    if agent_id is not None:
        found = found.where(SESSIONS.c.agent_id == agent_id)
    rows = db.core.execute(found.order_by(SESSIONS.c.session_key.desc()), {"at": db.now_text})
    return [sessions.info(row[:-1], tuple(decoded(row[-1]))) for row in rows]


def remaining(db: Transaction, namespace: str, session_id: str) -> float | None:
    """Seconds until a session expires; 0.0 if it has, None if it never will.

    Raises:
        NotFoundError: There is none, live or over.
    """
    found = conversations.known(db, namespace, session_id)
    if found is None:
        raise NotFoundError(session_id)
    if found.status == EXPIRED_STATUS:
        return 0.0
    return None if found.expires_at is None else (found.expires_at - db.now).total_seconds()


def stats(db: Transaction, namespace: str, *, ttl: float | None, interval_minutes: float) -> SessionStats:
    """How many tracked conversations are open, how many of them are overdue, and how long the live ones have been idle."""
    mine = sa.and_(SESSIONS.c.namespace == namespace, _TRACKED)
    at = {"at": db.now_text}
    # Not by namespace: there are few overdue ones, which an index of their own finds.
    due = sa.select(SESSIONS.c.namespace, SESSIONS.c.tracked).where(OVERDUE)
    overdue = sum(is_tracked and of == namespace for of, is_tracked in db.core.execute(due, at))
    idle = sorted_part(sa.select(_IDLE.label("idle")).where(mine, IS_OPEN, IN_TIME)).c.idle
    figures = sa.select(sa.func.count(), sa.func.avg(idle), sa.func.max(idle), sa.func.min(idle))
    live, *idle_times = db.core.execute(figures, at).one()
    average, longest, shortest = (None if each is None else each / _SECOND for each in idle_times)
    return {
        "total_cached_sessions": live + overdue,
        "active_sessions": live,
        "expired_sessions_pending_cleanup": overdue,
        "ttl_hours": None if ttl is None else ttl / _HOUR,
        "cleanup_interval_minutes": interval_minutes,
        "sliding_ttl_enabled": True,
        "average_idle_seconds": average,
        "longest_idle_seconds": longest,
        "shortest_idle_seconds": shortest,
    }


def set_ttl(db: Transaction, namespace: str, ttl: float | None) -> int:
    """Give the live tracked conversations another idle time, which counts from their last use, and return how many they are."""
    mine = sa.and_(SESSIONS.c.namespace == namespace, _TRACKED)
    rows = db.core.execute(sa.select(*_LIFE).where(mine, IS_OPEN, IN_TIME), {"at": db.now_text}).all()
    lives = [
        {
            "key": row.session_key,
            "ttl": ttl,
            # A pinned one does not expire; its new life begins when it is spared no longer.
            "ends": None if row.pinned else lifecycle.expiry(last_use(row), row.created_at, ttl, row.max_age_seconds),
        }
        for row in rows
    ]
    if lives:
        changed: dict[str, Any] = {"ttl_seconds": sa.bindparam("ttl"), "expires_at": sa.bindparam("ends")}
        db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == sa.bindparam("key")).values(changed), lives)
    return len(rows)


def last_use(row: sa.Row[Any]) -> datetime:
    """When a session was used last: what its expiry says, unless a `max_age` may have cut its life short. `_IDLE` in Python."""
    updated_at: datetime = row.updated_at
    slides = row.ttl_seconds is not None and row.max_age_seconds is None and row.expires_at is not None
    return row.expires_at - timedelta(seconds=row.ttl_seconds) if slides else updated_at


def resume(db: Transaction, namespace: str, session_id: str, metadata: dict[str, Any] | None) -> SessionInfo:
    """Go on with a conversation: an open one is touched, an ended one is opened again.

    Raises:
        NotFoundError: There is none.
        SessionExpiredError: Its life is over.
    """
    resumed = changes.reopen(db, namespace, session_id)
    if not metadata:
        return resumed
    merged = {**resumed.metadata, **metadata}
    json_object("metadata", merged, max_bytes=MAX_METADATA_BYTES)
    return changes.update(db, namespace, session_id, {"metadata": merged})
