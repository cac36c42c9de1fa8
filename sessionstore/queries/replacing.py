"""Replacing messages in the midst of a session, and reading those that were replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from .. import clock, sql
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError
from ..rows import PreparedMessage
from ..values import MAX_SEQ, Message, SessionInfo, SupersededMessage
from . import changes, edits, lineage, message_rows, messages, search_index, sessions
from .tables import SESSIONS

_A_PAGE: Final = 500


def replace_range(
    db: Transaction,
    namespace: str,
    session_id: str,
    first: int,
    last: int,
    new: Sequence[PreparedMessage],
    *,
    expected_version: int | None = None,
) -> list[Message]:
    """Put messages in the place of those between two seqs, both included, which are kept as superseded.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
        ConflictError: Its version is not `expected_version`, or a dedupe key is in use.
        InvalidInputError: There are more new messages than old ones.
        StoreCorruptError: An old one is damaged.
    """
    key, current = sessions.to_change(db, namespace, session_id)
    changes.require_version(current, expected_version)
    seqs = _supersede(db, key, session_id, first, last)
    if len(new) > len(seqs):
        raise InvalidInputError("messages", f"must be at most {len(seqs)}, as many as there are to be replaced", limit=len(seqs))
    if not seqs:
        return []
    lineage.remove_own(db, key, first, last)
    _require_unused_keys(db, key, current, new)
    low, now = message_rows.first_id(key), db.now_text
    # What replaces others answers nobody: it is not timed.
    rows = [message.row(low + seq, now, db.seed) for seq, message in zip(seqs, new, strict=False)]
    message_rows.insert(db, rows, new)
    if rows:
        # Those behind them may be indexed already, and then these are not looked for any more.
        search_index.complete(db, key, seqs[0], seqs[len(rows) - 1])
    values = {
        "message_count": SESSIONS.c.message_count - len(seqs) + len(rows),
        "version": SESSIONS.c.version + 1,
        "updated_at": db.now,
        "asked_at": edits.asked_at(db, key),
    }
    db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(values))
    return messages.intact(db, session_id, rows)


def superseded(db: Transaction, namespace: str, session_id: str, *, seq: int | None = None) -> list[SupersededMessage]:
    """The messages that were replaced in a session, or those that had one seq, by seq and then in the order of their replacement.

    Raises:
        NotFoundError: There is no such session.
        StoreCorruptError: One is damaged.
    """
    key = sessions.key_of(db, namespace, session_id)
    low = message_rows.first_id(key)
    bounds = (1, MAX_SEQ) if seq is None else (seq, seq)
    rows = db.driver.execute(sql.SUPERSEDED, (key, *bounds)).fetchall()
    found = messages.intact(db, session_id, [(low + place, *values) for _, _, place, _, *values in rows])
    return [SupersededMessage(message, clock.from_text(row[3])) for message, row in zip(found, rows, strict=True)]


def clear_superseded(db: Transaction, namespace: str, session_id: str) -> int:
    """Delete the messages that were replaced in a session, and return how many they were."""
    key, _ = sessions.to_change(db, namespace, session_id)
    return message_rows.discard_superseded(db, key)


def _supersede(db: Transaction, key: int, session_id: str, first: int, last: int) -> list[int]:
    """Keep copies of the messages between two seqs, and return their seqs."""
    seqs: list[int] = []
    while rows := lineage.rows_forward(db, key, first, last, _A_PAGE):
        # The copies get checksums of their own, which must not vouch for damage.
        messages.intact(db, session_id, rows, blobs=False)
        message_rows.supersede(db, key, rows)
        seqs += [row[0] & MAX_SEQ for row in rows]
        first = seqs[-1] + 1
    return seqs


def _require_unused_keys(db: Transaction, key: int, info: SessionInfo, new: Sequence[PreparedMessage]) -> None:
    """Check that no dedupe key is used twice, or by a message that stays."""
    session_id, is_fork = info.session_id, info.forked_at is not None
    given = [message.dedupe_key for message in new if message.dedupe_key is not None]
    is_used = (messages.of_dedupe_key(db, key, dedupe_key, is_fork=is_fork) for dedupe_key in given)
    if len(set(given)) < len(given) or any(is_used):
        raise ConflictError(session_id, f"a dedupe_key of session {session_id!r} was used for another message before")
