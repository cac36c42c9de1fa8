"""Whole sessions, read and put with all that is stored of them: seqs, instants and versions stay what they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Literal

import sqlalchemy as sa

from .. import clock, sql
from ..arguments import SessionFilter
from ..config import OnExpire
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError, NotFoundError, QuotaError
from ..inputs import MAX_ID_CHARS
from ..rows import ASKING_ROLE, PreparedMessage
from ..values import EXPIRED_STATUS, MAX_SEQ, OPEN_STATUS, Message, SessionInfo
from . import lifecycle, messages, removal, sessions
from .catalog import matching
from .dialect import as_stored
from .statements import HOLDS_NAME, SESSION_COLUMNS, SESSIONS

OnConflict = Literal["fail", "skip", "replace", "new-id"]
ON_CONFLICT: Final = ("fail", "skip", "replace", "new-id")

_STORED_COLUMNS: Final = tuple(as_stored(column) for column in SESSION_COLUMNS)
_SESSIONS_A_PAGE: Final = 200
_MESSAGES_A_PAGE: Final = 500
_SAME_VALUES: Final = ("namespace", "user_id", "agent_id", "title", "status", "pinned", "version", "quality_score", "error",
                       "created_at", "updated_at", "ended_at", "archived_at", "expires_at",
                       "tracked", "feedback", "reported_message_count")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a session that was to be put: its id, its messages, and whether it was left out or replaced one."""

    session_id: str
    messages: int
    skipped: bool = False
    replaced: bool = False


def totals(db: Transaction, wanted: SessionFilter) -> tuple[int, int]:
    """How many sessions a filter chooses, and how many messages they hold."""
    conditions, values = matching(db, wanted)
    found = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(SESSIONS.c.message_count), 0)).where(*conditions)
    chosen, held = db.core.execute(found.select_from(SESSIONS), values).one()
    return chosen, held


def chosen(db: Transaction, wanted: SessionFilter) -> Iterator[tuple[int, SessionInfo]]:
    """The key and the attributes of each session that a filter chooses, in the order in which they were made."""
    after = 0
    while rows := _page(db, wanted, after):
        for row in rows:
            yield row[0], sessions.info(row, sessions.tags_of(db, row[0]), at=db.now_text)
        after = rows[-1][0]


def named(db: Transaction, namespace: str, session_id: str) -> tuple[int, SessionInfo]:
    """The key and the attributes of a live session.

    Raises:
        NotFoundError: There is none.
    """
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    if not rows:
        raise NotFoundError(session_id)
    key = rows[0][sessions.KEY]
    return key, sessions.info(rows[0], sessions.tags_of(db, key))


def messages_of(db: Transaction, key: int, session_id: str) -> Iterator[Message]:
    """All messages of a session, oldest first, read in pages."""
    last = messages.last_id(key)
    after = messages.first_id(key)
    while rows := db.driver.execute(sql.MESSAGES_FORWARD, (after, last + 1, _MESSAGES_A_PAGE)).fetchall():
        yield from messages.intact(db, session_id, rows)
        after = rows[-1][0]


def put(
    db: Transaction,
    new: SessionInfo,
    given: Iterable[tuple[int, PreparedMessage]],
    *,
    on_conflict: OnConflict,
    on_expire: OnExpire,
) -> Put:
    """Store a session as it is, with its messages under their seqs.

    Args:
        db: The transaction.
        new: Its attributes. Its `message_count` is not used; its `last_seq` is the least that the stored one has.
        given: Seqs, which must grow, and messages.
        on_conflict: What to do when there is a session of its name.
        on_expire: What becomes of one whose life is over.

    Raises:
        ConflictError: There is a session of its name, and `on_conflict` is "fail".
        InvalidInputError: The seqs do not grow, or a dedupe key comes twice.
        QuotaError: There are more messages than a session holds.
    """
    if new.status != EXPIRED_STATUS and (new.pinned or new.status != OPEN_STATUS):
        # An expiry is for open sessions that are not pinned; a file of another program may say otherwise.
        new = replace(new, expires_at=None)
    if new.status == OPEN_STATUS and new.expires_at is not None and new.expires_at <= db.now:
        # Its life ended while it lay in the file.
        new = replace(new, status=EXPIRED_STATUS, ended_at=new.expires_at)
    session_id = new.session_id
    if sessions.find(db, new.namespace, session_id) is None:
        lifecycle.free_name(db, new.namespace, session_id, on_expire)
    there = _key_of_same(db, new)
    if there is not None:
        if on_conflict == "fail":
            raise ConflictError(session_id, f"there is a session {session_id!r} already")
        if on_conflict == "skip":
            return Put(session_id, 0, skipped=True)
        if on_conflict == "replace":
            removal.remove(db, there)
        else:
            session_id = _free_id(db, new)
    key = _insert(db, new, session_id)
    counters = _insert_messages(db, key, given)
    held = counters["message_count"]
    counters["next_seq"] = max(new.last_seq + 1, counters["next_seq"])
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(counters))
    return Put(session_id, held, replaced=there is not None and on_conflict == "replace")


def _page(db: Transaction, wanted: SessionFilter, after: int) -> list[sa.Row[Any]]:
    conditions, values = matching(db, wanted)
    found = sa.select(*_STORED_COLUMNS).where(SESSIONS.c.session_key > after, *conditions)
    return list(db.core.execute(found.order_by(SESSIONS.c.session_key).limit(_SESSIONS_A_PAGE), values))


def _key_of_same(db: Transaction, new: SessionInfo) -> int | None:
    """The session that stands in the way. Expired ones share names; the same one is that which was made at the same instant."""
    same = HOLDS_NAME
    if new.status == EXPIRED_STATUS:
        same = sa.and_(SESSIONS.c.status == EXPIRED_STATUS, SESSIONS.c.created_at == new.created_at)
    found = sa.select(SESSIONS.c.session_key).where(
        SESSIONS.c.namespace == new.namespace, SESSIONS.c.session_id == new.session_id, same
    )
    return db.core.execute(found.limit(1)).scalar_one_or_none()


def _free_id(db: Transaction, new: SessionInfo) -> str:
    for number in count(2):
        suffix = f"-{number}"
        candidate = new.session_id[: MAX_ID_CHARS - len(suffix)].rstrip(" ") + suffix
        if not db.driver.execute(sql.FIND_HOLDER, (new.namespace, candidate)).fetchall():
            return candidate
    raise AssertionError("numbers do not end")


def _insert(db: Transaction, new: SessionInfo, session_id: str) -> int:
    values = {name: getattr(new, name) for name in _SAME_VALUES}
    values |= {"ttl_seconds": new.ttl, "max_age_seconds": new.max_age}
    values |= {"session_id": session_id, "metadata": new.metadata or None, "message_count": 0, "next_seq": 1}
    key: int = db.core.execute(sa.insert(SESSIONS).values(values).returning(SESSIONS.c.session_key)).scalar_one()
    sessions.add_tags(db, key, new.tags)
    return key


def _insert_messages(db: Transaction, key: int, given: Iterable[tuple[int, PreparedMessage]]) -> dict[str, Any]:
    """Store messages, and tell what the session's row must say of them."""
    now = db.now_text
    asked_at = None
    base = messages.first_id(key)
    held = last = 0
    batch: list[tuple[Any, ...]] = []
    for seq, message in given:
        if seq > MAX_SEQ:
            raise QuotaError(f"a session holds at most {MAX_SEQ} messages", limit=MAX_SEQ)
        if seq <= last:
            raise InvalidInputError("seq", "must grow from message to message")
        if message.role == ASKING_ROLE:
            asked_at = message.created_at or now
        batch.append(message.row(base + seq, now, db.seed))
        held, last = held + 1, seq
        if len(batch) == _MESSAGES_A_PAGE:
            _insert_batch(db, batch)
            batch.clear()
    _insert_batch(db, batch)
    return {"message_count": held, "next_seq": last + 1, "asked_at": None if asked_at is None else clock.from_text(asked_at)}


def _insert_batch(db: Transaction, rows: list[tuple[Any, ...]]) -> None:
    try:
        db.driver.executemany(sql.INSERT_MESSAGE, rows)
    except sqlite3.IntegrityError as error:
        if "dedupe_key" not in str(error):
            raise
        raise InvalidInputError("dedupe_key", "is used by two messages of a session") from error
