"""Finding sessions: the compiled statements of the hot path. A session past its expiry is found by none of these reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, NamedTuple

from .. import clock, sql
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import NotFoundError, SessionExpiredError
from ..values import EXPIRED_STATUS, OPEN_STATUS, SessionInfo

KEY: Final = 0
MESSAGE_COUNT: Final = 10
UPDATED_AT: Final = 15
EXPIRES_AT: Final = 18
ASKED_AT: Final = 24

# A frozen dataclass makes itself at nearly twice the price, and a page has many.
_new: Final = object.__new__
_SETTERS: Final = tuple(getattr(SessionInfo, each.name).__set__ for each in fields(SessionInfo))


def find(db: Transaction, namespace: str, session_id: str) -> SessionInfo | None:
    """The live session of a name."""
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    return info(rows[0], tags_of(db, rows[0][KEY])) if rows else None


class Place(NamedTuple):
    """Where the messages of a session stand.

    Attributes:
        key: The key of its own rows.
        message_count: How many messages it should hold.
        inherits_through: The highest seq that it may read from rows of others; 0 if it is no fork.
    """

    key: int
    message_count: int
    inherits_through: int


def place_of(db: Transaction, namespace: str, session_id: str) -> Place:
    """Where the messages of a live session stand.

    Raises:
        NotFoundError: There is none.
    """
    rows = db.driver.execute(sql.FIND_SESSION_KEY, (namespace, session_id, db.now_text)).fetchall()
    if not rows:
        raise NotFoundError(session_id)
    return Place(*rows[0])


def key_of(db: Transaction, namespace: str, session_id: str) -> int:
    """The key of a live session.

    Raises:
        NotFoundError: There is none.
    """
    return place_of(db, namespace, session_id).key


def to_change(db: Transaction, namespace: str, session_id: str) -> tuple[int, SessionInfo]:
    """The key and the attributes of a live session that is about to be changed.

    Raises:
        NotFoundError: There is none.
        SessionExpiredError: There is one whose life is over.
    """
    row, found = row_to_change(db, namespace, session_id)
    return row[KEY], found


def row_to_change(db: Transaction, namespace: str, session_id: str) -> tuple[Sequence[Any], SessionInfo]:
    """The row and the attributes of a live session that is about to be changed; the errors are those of `to_change`."""
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    if not rows:
        raise absent(db, namespace, session_id)
    return rows[0], info(rows[0], tags_of(db, rows[0][KEY]))


def absent(db: Transaction, namespace: str, session_id: str) -> NotFoundError | SessionExpiredError:
    """Why a name has no live session."""
    return NotFoundError(session_id) if over(db, namespace, session_id) is None else SessionExpiredError(session_id)


def over(db: Transaction, namespace: str, session_id: str) -> Sequence[Any] | None:
    """The row of a name's newest session whose life is over, if it has no live one."""
    for statement in (sql.FIND_HOLDER, sql.FIND_NEWEST_EXPIRED):
        rows = db.driver.execute(statement, (namespace, session_id)).fetchall()
        if rows:
            return rows[0]  # type: ignore[no-any-return]
    return None


def tags_of(db: Transaction, session_key: int) -> tuple[str, ...]:
    """The tags of a session, sorted."""
    return tuple(tag for (tag,) in db.driver.execute(sql.TAGS_OF_SESSION, (session_key,)).fetchall())


def add_tags(db: Transaction, session_key: int, tags: Sequence[str]) -> None:
    """Tag a session that has none of these tags."""
    if tags:
        db.driver.executemany(sql.INSERT_TAG, [(session_key, tag) for tag in tags])


def info(row: Sequence[Any], tags: tuple[str, ...], *, at: str | None = None) -> SessionInfo:
    """What a raw row of `sessions` means; with `at`, an open session that is overdue then counts as expired."""
    (_, namespace, session_id, user_id, agent_id, title, status, pinned, metadata, version, message_count, next_seq,
     quality_score, error, created_at, updated_at, ended_at, archived_at, expires_at, ttl_seconds, max_age_seconds, tracked,
     feedback, reported_message_count, _, _, forked_at, _, _) = row  # fmt: skip
    if at is not None and status == OPEN_STATUS and expires_at is not None and expires_at <= at:
        status, ended_at = EXPIRED_STATUS, expires_at
    values = (
        namespace, session_id, user_id, agent_id, title, status, bool(pinned), tags, decoded(metadata) if metadata else {}, version,
        message_count, next_seq - 1, quality_score, error, clock.from_text(created_at), clock.from_text(updated_at),
        clock.from_text(ended_at) if ended_at else None, clock.from_text(archived_at) if archived_at else None,
        clock.from_text(expires_at) if expires_at else None,
        # What SQLite returns of an insert may be a whole number where the column holds a float.
        None if ttl_seconds is None else float(ttl_seconds), None if max_age_seconds is None else float(max_age_seconds),
        bool(tracked), feedback, reported_message_count, forked_at,
    )  # fmt: skip
    found = _new(SessionInfo)
    for set_value, value in zip(_SETTERS, values, strict=True):
        set_value(found, value)
    return found
