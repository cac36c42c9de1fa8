"""Whole sessions, read and put with all that is stored of them: seqs, instants and versions stay what they were."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Literal

import sqlalchemy as sa

from .. import sql
from ..arguments import SessionFilter
from ..config import OnExpire
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError, NotFoundError, QuotaError
from ..inputs import MAX_ID_CHARS
from ..rows import PreparedMessage
from ..values import EXPIRED_STATUS, MAX_SEQ, OPEN_STATUS, STATE_SCOPES, Message, SessionInfo
from . import (
    blobs,
    catalog,
    checkpoint_rows,
    edits,
    kinship,
    lifecycle,
    lineage,
    merging,
    message_rows,
    messages,
    removal,
    search_index,
    sessions,
    state,
)
from .catalog_statements import conditions_of
from .dialect import as_stored
from .tables import HOLDS_NAME, SESSION_COLUMNS, SESSIONS

OnConflict = Literal["fail", "skip", "replace", "new-id", "merge"]
ON_CONFLICT: Final = ("fail", "skip", "replace", "new-id", "merge")

_STORED_COLUMNS: Final = tuple(as_stored(column) for column in SESSION_COLUMNS)
_SESSIONS_A_PAGE: Final = 200
_MESSAGES_A_PAGE: Final = 500
# So many characters of messages are held at once.
_MUCH: Final = 4 << 20
_SAME_VALUES: Final = ("namespace", "user_id", "agent_id", "title", "status", "pinned", "version", "quality_score", "error",
                       "created_at", "updated_at", "ended_at", "archived_at", "expires_at",
                       "tracked", "feedback", "reported_message_count", "forked_at")  # fmt: skip

Given = Iterable[tuple[int, PreparedMessage]]


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a session that was to be put.

    Attributes:
        session_id: Its id.
        messages: How many of its messages were stored.
        key: The key of it, or of the one that stood in the way.
        skipped: Whether it was left out.
        replaced: Whether it took the place of another one.
        merged: Whether one that was there got what it lacked.
    """

    session_id: str
    messages: int
    key: int
    skipped: bool = False
    replaced: bool = False
    merged: bool = False

    @property
    def is_own(self) -> bool:
        """Whether there is a session now that holds just what was given."""
        return not (self.skipped or self.merged)


@dataclass(frozen=True, slots=True)
class Companions:
    """What else comes with a session of the lossless format.

    Attributes:
        share: The pieces that it can share with sessions of the store, and all other messages of it.
        parent_key: The key of the session that it was forked from.
        superseded: Messages that were replaced in it: seq, the stored instant of that, and the message.
        state: The values of its own state.
        checkpoints: The rows of its checkpoints.
    """

    share: Callable[[Transaction], tuple[Sequence[lineage.Piece], Given]]
    parent_key: Callable[[Transaction], int | None]
    superseded: Callable[[], Iterable[tuple[int, str, PreparedMessage]]]
    state: Sequence[state.StoredValue]
    checkpoints: Callable[[], Iterable[tuple[checkpoint_rows.Kind, checkpoint_rows.Row]]] = tuple


def totals(db: Transaction, wanted: SessionFilter) -> tuple[int, int]:
    """How many sessions a filter chooses, and how many messages they hold."""
    conditions, values = _matching(db, wanted)
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


def messages_of(db: Transaction, key: int, session_id: str, first: int = 1, last: int = MAX_SEQ) -> Iterator[Message]:
    """The messages of a session between two seqs, oldest first, read in pages."""
    while rows := lineage.rows_forward(db, key, first, last, _MESSAGES_A_PAGE):
        page = messages.intact(db, session_id, blobs.first_few(rows))
        yield from page
        first = page[-1].seq + 1


def put(
    db: Transaction,
    new: SessionInfo,
    given: Given,
    *,
    on_conflict: OnConflict,
    on_expire: OnExpire,
    companions: Companions | None = None,
) -> Put:
    """Store a session as it is, with its messages under their seqs.

    Args:
        db: The transaction.
        new: Its attributes. Its `last_seq` is the least that the stored one has; its `message_count` is what comes with
            companions, and else not used.
        given: Seqs, which must grow, and messages: all of them.
        on_conflict: What to do when there is a session of its name.
        on_expire: What becomes of one whose life is over.
        companions: What else comes with it.

    Raises:
        ConflictError: There is a session of its name, and `on_conflict` is "fail"; or it cannot be merged.
        InvalidInputError: The seqs do not grow, a dedupe key comes twice, or messages are missing.
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
            return Put(session_id, 0, there, skipped=True)
        if on_conflict == "merge":
            return Put(session_id, _merge(db, there, new, given, companions), there, merged=True)
        if on_conflict == "replace":
            removal.remove(db, there)
        else:
            session_id = _free_id(db, new)
    key = _insert(db, new, session_id)
    if companions is None:
        held = _fill(db, key, new, (), given)
    else:
        held = _fill(db, key, new, *companions.share(db))
        if held != new.message_count:
            raise InvalidInputError("message_count", f"tells {new.message_count} messages, and there are {held}")
        _put_companions(db, key, new.namespace, companions)
    search_index.follow_session(db, key)
    return Put(session_id, held, key, replaced=there is not None and on_conflict == "replace")


def _merge(db: Transaction, key: int, new: SessionInfo, given: Given, companions: Companions | None) -> int:
    """Give a session what it lacks, and return how many messages that are."""
    found = merging.behind_the_same(messages_of(db, key, new.session_id), given, new.session_id)
    held = last = 0
    for batch in _batched(found):
        if not held:
            # Ranges may go on over seqs whose messages were taken back: its own, and its forks', which are not to see these.
            lineage.remove_own(db, key, batch[0][0], MAX_SEQ)
            search_index.forget_from(db, key, batch[0][0])
        _insert_batch(db, key, batch)
        held, last = held + len(batch), batch[-1][0]
    if held:
        merging.count_in(db, key, held, last, edits.asked_at(db, key))
        search_index.follow_session(db, key)
    if companions is not None:
        merging.take_newer(db, key, new, companions.state)
        checkpoint_rows.receive(db, key, companions.checkpoints())
    elif held:
        db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(updated_at=db.now))
    return held


def _put_companions(db: Transaction, key: int, namespace: str, companions: Companions) -> None:
    parent_key = companions.parent_key(db)
    if parent_key is not None:
        kinship.adopt(db, parent_key, (key,))
    state.put_rows(db, namespace, STATE_SCOPES[0], str(key), companions.state)
    for seq, at, message in companions.superseded():
        message_rows.put_superseded(db, key, seq, at, message)
    checkpoint_rows.receive(db, key, companions.checkpoints())


def _page(db: Transaction, wanted: SessionFilter, after: int) -> list[sa.Row[Any]]:
    conditions, values = _matching(db, wanted)
    found = sa.select(*_STORED_COLUMNS).where(SESSIONS.c.session_key > after, *conditions)
    return list(db.core.execute(found.order_by(SESSIONS.c.session_key).limit(_SESSIONS_A_PAGE), values))


def _matching(db: Transaction, wanted: SessionFilter) -> tuple[list[sa.ColumnElement[bool]], dict[str, Any]]:
    """What the sessions of a filter have in common, and the values of its parameters."""
    shape, values = catalog.shape_of(db, wanted)
    return conditions_of(shape), values


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


def _fill(db: Transaction, key: int, new: SessionInfo, shared: Sequence[lineage.Piece], given: Given) -> int:
    """Give a new session its messages, and return how many it has."""
    lineage.share(db, key, shared)
    held = sum(lineage.count(db, piece) for piece in shared)
    last = through = max((piece.last for piece in shared), default=0)
    first_own = None
    for batch in _batched(given):
        first_own = first_own or batch[0][0]
        _insert_batch(db, key, batch)
        held, last = held + len(batch), max(last, batch[-1][0])
    last = max(new.last_seq, last)
    values = {
        "message_count": held,
        "next_seq": last + 1,
        "asked_at": edits.asked_at(db, key),
        "inherits_through": through,
        # What it shares is in the search index with its owner.
        "indexed_seq": 0 if not through else last if first_own is None else first_own - 1,
    }
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(values))
    return held


def _batched(given: Given) -> Iterator[list[tuple[int, PreparedMessage]]]:
    """Messages in parts that are stored at once; their seqs grow."""
    batch: list[tuple[int, PreparedMessage]] = []
    size = last = 0
    for seq, message in given:
        if seq > MAX_SEQ:
            raise QuotaError(f"a session holds at most {MAX_SEQ} messages", limit=MAX_SEQ)
        if seq <= last:
            raise InvalidInputError("seq", "must grow from message to message")
        batch.append((seq, message))
        last = seq
        size += len(message.text or "") + len(message.extra or "") + (_MUCH if message.large else 0)
        if len(batch) == _MESSAGES_A_PAGE or size >= _MUCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _insert_batch(db: Transaction, key: int, batch: Sequence[tuple[int, PreparedMessage]]) -> None:
    base, now = message_rows.first_id(key), db.now_text
    rows = [message.row(base + seq, now, db.seed) for seq, message in batch]
    try:
        message_rows.insert(db, rows, [message for _, message in batch])
    except sqlite3.IntegrityError as error:
        if "dedupe_key" not in str(error):
            raise
        raise InvalidInputError("dedupe_key", "is used by two messages of a session") from error
