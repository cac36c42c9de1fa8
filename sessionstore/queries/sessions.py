"""Finding and making sessions: the compiled statements of the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import clock, sql
from ..arguments import NewSession
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import ConflictError, NotFoundError
from ..values import OPEN_STATUS, SessionInfo

KEY: Final = 0
UPDATED_AT: Final = 15

_FIRST_VERSION: Final = 1
_FIRST_SEQ: Final = 1


def find(db: Transaction, namespace: str, session_id: str) -> SessionInfo | None:
    """The live session of a name."""
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id)).fetchall()
    return info(rows[0], tags_of(db, rows[0][0])) if rows else None


def get_or_create(db: Transaction, new: NewSession) -> SessionInfo:
    """The live session of a name, made with the given attributes if there was none."""
    return _insert(db, new) or _found(db, new.namespace, new.session_id)


def create(db: Transaction, new: NewSession) -> SessionInfo:
    """A new session.

    Raises:
        ConflictError: There is a live session of this name.
    """
    made = _insert(db, new)
    if made is None:
        raise ConflictError(new.session_id, f"there is a session {new.session_id!r} already; session() gets it")
    return made


def key_and_count(db: Transaction, namespace: str, session_id: str) -> tuple[int, int]:
    """The key of a live session, and how many messages it should hold.

    Raises:
        NotFoundError: There is none.
    """
    rows = db.driver.execute(sql.FIND_SESSION_KEY, (namespace, session_id)).fetchall()
    if not rows:
        raise NotFoundError(session_id)
    key, message_count = rows[0]
    return key, message_count


def key_of(db: Transaction, namespace: str, session_id: str) -> int:
    """The key of a live session.

    Raises:
        NotFoundError: There is none.
    """
    return key_and_count(db, namespace, session_id)[0]


def tags_of(db: Transaction, session_key: int) -> tuple[str, ...]:
    """The tags of a session, sorted."""
    return tuple(tag for (tag,) in db.driver.execute(sql.TAGS_OF_SESSION, (session_key,)).fetchall())


def add_tags(db: Transaction, session_key: int, tags: Sequence[str]) -> None:
    """Tag a session that has none of these tags."""
    if tags:
        db.driver.executemany(sql.INSERT_TAG, [(session_key, tag) for tag in tags])


def info(row: Sequence[Any], tags: tuple[str, ...]) -> SessionInfo:
    """What a raw row of `sessions` means."""
    (_, namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq,
     quality_score, error, created_at, updated_at, ended_at, archived_at, expires_at) = row  # fmt: skip
    return SessionInfo(
        namespace=namespace,
        session_id=session_id,
        user_id=user_id,
        agent_id=agent_id,
        title=title,
        status=status,
        pinned=bool(pinned),
        tags=tags,
        metadata=decoded(metadata) if metadata else {},
        version=version,
        message_count=message_count,
        last_seq=next_seq - 1,
        quality_score=quality_score,
        error=error,
        created_at=clock.from_text(created_at),
        updated_at=clock.from_text(updated_at),
        ended_at=clock.from_text(ended_at) if ended_at else None,
        archived_at=clock.from_text(archived_at) if archived_at else None,
        expires_at=clock.from_text(expires_at) if expires_at else None,
    )


def _insert(db: Transaction, new: NewSession) -> SessionInfo | None:
    now = clock.to_text(db.now)
    rows = db.driver.execute(
        sql.INSERT_SESSION,
        (new.namespace, new.session_id, new.user_id, new.agent_id, new.title, OPEN_STATUS, new.pinned, new.metadata,
         _FIRST_VERSION, 0, _FIRST_SEQ, now, now),
    ).fetchall()  # fmt: skip
    if not rows:
        return None
    add_tags(db, rows[0][0], new.tags)
    return info(rows[0], new.tags)


def _found(db: Transaction, namespace: str, session_id: str) -> SessionInfo:
    found = find(db, namespace, session_id)
    if found is None:
        raise NotFoundError(session_id)
    return found
