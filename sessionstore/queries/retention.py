"""Which sessions are pruned: old ones, too many, too large together. Pinned ones never are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from .. import clock
from ..database.transaction import Transaction
from ..values import MAX_SEQ, SEQ_BITS, STATE_SCOPES
from . import removal, search_index
from .dialect import as_stored
from .tables import BLOB_REFERENCES, BLOBS, CHECKPOINT_VALUES, CHECKPOINT_WRITES, CHECKPOINTS, MESSAGES, SESSIONS, STATE, SUPERSEDED

# A batch holds the writer for some milliseconds.
_BATCH: Final = 50
# What tells whether a session was used or changed: a change counts the version on, an append the seqs, a touch moves the expiry;
# a checkpoint only moves the time of the last change.
_AS_FOUND: Final = (SESSIONS.c.version, SESSIONS.c.next_seq, as_stored(SESSIONS.c.expires_at), as_stored(SESSIONS.c.updated_at))
_UPDATED_AT: Final = sa.type_coerce(SESSIONS.c.updated_at, sa.String)
_COLUMNS: Final = (SESSIONS.c.session_key, SESSIONS.c.session_id, SESSIONS.c.message_count, *_AS_FOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What stays: sessions changed within a time, at most so many, at most so many bytes; the newest first."""

    max_age: float | None = None
    max_sessions: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Surplus:
    """A session that is to go, as it was when that was found; its instants are stored texts.

    Attributes:
        checkpoint_rows: About how many rows its checkpoints have.
    """

    key: int
    session_id: str
    messages: int
    version: int
    next_seq: int
    expires_at: str | None
    updated_at: str
    checkpoint_rows: int = 0


def surplus(db: Transaction, namespace: str, rules: Rules) -> list[Surplus]:
    """The sessions that the rules leave no room for, whatever their status, last changed first."""
    found = _found(db, namespace, rules)
    return [replace(each, checkpoint_rows=removal.checkpoint_rows(db, each.key)) for each in found]


def _found(db: Transaction, namespace: str, rules: Rules) -> list[Surplus]:
    since = None if rules.max_age is None else clock.to_text(db.now - timedelta(seconds=rules.max_age))
    if since is not None and rules == Rules(max_age=rules.max_age):
        found = _sessions(namespace).where(SESSIONS.c.pinned.is_(False), sa.bindparam("since") > _UPDATED_AT)
        return [Surplus(*row) for row in db.core.execute(found, {"since": since})]
    return _beyond(db, namespace, rules, since)


def _beyond(db: Transaction, namespace: str, rules: Rules, since: str | None) -> list[Surplus]:
    """What goes by rules of which some depend on what stays."""
    size_column = sa.literal_column("0") if rules.max_bytes is None else _size()
    pinned = sa.type_coerce(SESSIONS.c.pinned, sa.Integer)
    # Pinned ones first: they stay, so the others get the room that they leave.
    found = _sessions(namespace, pinned, _UPDATED_AT, size_column, first=SESSIONS.c.pinned.desc())
    going: list[Surplus] = []
    kept = size = 0
    for *session, is_pinned, updated_at, own_size in db.core.execute(found):
        size_with = size + own_size
        too_many = rules.max_sessions is not None and kept >= rules.max_sessions
        too_large = rules.max_bytes is not None and size_with > rules.max_bytes
        too_old = since is not None and updated_at < since
        if (too_many or too_large or too_old) and not is_pinned:
            going.append(Surplus(*session))
        else:
            kept, size = kept + 1, size_with
    return going


def batches(going: Sequence[Surplus]) -> Iterator[Sequence[Surplus]]:
    """What goes, in the parts that are deleted in a transaction each."""
    return removal.batches(going, lambda each: each.messages + each.checkpoint_rows, most=_BATCH)


def indexed(db: Transaction, going: Sequence[Surplus]) -> tuple[int, int] | None:
    """Messages whose words go out of the search index before a batch is deleted, as they are many; by first and last id."""
    return search_index.surplus(db, (each.key for each in going), removal.MOST_INDEXED)


def remove(db: Transaction, going: Sequence[Surplus]) -> list[Surplus]:
    """Delete sessions, but those that were used or changed since, and return those that went."""
    gone = []
    for each in going:
        found = sa.select(*_AS_FOUND).where(SESSIONS.c.session_key == each.key)
        if db.core.execute(found).first() == (each.version, each.next_seq, each.expires_at, each.updated_at):
            removal.remove(db, each.key)
            gone.append(each)
    removal.give_back_space(db)
    return gone


def _sessions(namespace: str, *more: sa.ColumnElement[Any], first: sa.ColumnElement[Any] | None = None) -> sa.Select[Any]:
    """The sessions of a namespace, last changed first."""
    found = sa.select(*_COLUMNS, *more).where(SESSIONS.c.namespace == namespace)
    order = (SESSIONS.c.updated_at.desc(), SESSIONS.c.session_key.desc())
    return found.order_by(*(() if first is None else (first,)), *order)


def _size() -> sa.ColumnElement[int]:
    """The bytes that go with a session: its messages and those that were replaced in it, their blobs, its own state, checkpoints.

    They count as they are stored. What it shares with the session that it was forked from counts there.
    """
    replaced = SUPERSEDED.c.session_key == SESSIONS.c.session_key
    owner = sa.cast(SESSIONS.c.session_key, sa.Text)
    is_own = sa.and_(STATE.c.namespace == SESSIONS.c.namespace, STATE.c.scope == STATE_SCOPES[0], STATE.c.owner == owner)
    references = sa.select(BLOB_REFERENCES.c.hash).where(
        sa.or_(
            _of_session(BLOB_REFERENCES.c.message_id),
            BLOB_REFERENCES.c.message_id.in_(sa.select(-SUPERSEDED.c.id).where(replaced).correlate(SESSIONS)),
        )
    )
    parts = (
        sa.select(_sum(_row_bytes(MESSAGES))).where(_of_session(MESSAGES.c.id)),
        sa.select(_sum(_row_bytes(SUPERSEDED))).where(replaced),
        sa.select(_sum(sa.func.length(BLOBS.c.data))).where(BLOBS.c.hash.in_(references.correlate(SESSIONS))),
        sa.select(_sum(_text_bytes(STATE.c.name) + _text_bytes(STATE.c.value))).where(is_own),
        *(
            sa.select(_sum(size)).where(table.c.session_key == SESSIONS.c.session_key)
            for table, size in (
                (CHECKPOINTS, sa.func.length(CHECKPOINTS.c.checkpoint) + sa.func.length(CHECKPOINTS.c.metadata)),
                (CHECKPOINT_VALUES, sa.func.length(CHECKPOINT_VALUES.c.value)),
                (CHECKPOINT_WRITES, sa.func.length(CHECKPOINT_WRITES.c.value)),
            )
        ),
    )
    return sum((part.scalar_subquery() for part in parts), start=sa.literal(0))


def _row_bytes(table: sa.Table) -> sa.ColumnElement[int]:
    """The bytes of a message row: its text and what stands beside it, packed or not."""
    texts = (_text_bytes(table.c[name]) for name in ("text", "extra", "facts"))
    return sum(texts, start=sa.func.coalesce(sa.func.length(table.c.packed), 0))


def _text_bytes(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.length(sa.cast(sa.type_coerce(column, sa.Text), sa.LargeBinary)), 0)


def _sum(size: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(size), 0)


def _of_session(message_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    first = SESSIONS.c.session_key.op("<<")(SEQ_BITS)
    return sa.and_(message_id > first, message_id <= first.op("|")(MAX_SEQ))
