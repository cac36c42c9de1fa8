"""Appending and reading messages: the compiled statements of the hot path."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from .. import clock, content, sql
from ..database.transaction import Transaction
from ..errors import ConflictError, QuotaError, StoreCorruptError
from ..pairs import Pairing, arranged
from ..remote import events
from ..rows import ASKING_ROLE, PreparedMessage, first_damaged
from ..values import MAX_SEQ, SEQ_BITS, Message
from . import lifecycle, outbox, sessions, subscription

_ALL: Final = -1
_SEARCH_PAGE: Final = 100
_MILLISECOND: Final = timedelta(milliseconds=1)


class _Place(NamedTuple):
    """Where messages go: their session and the seq behind them."""

    key: int
    next_seq: int
    asked_at: str | None
    agent_id: str | None
    created_at: str
    expires_at: str | None
    ttl: float | None
    max_age: float | None


def append(db: Transaction, namespace: str, session_id: str, new: Sequence[PreparedMessage]) -> list[Message]:
    """Store messages at the end of a session, in their order.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
        ConflictError: A dedupe key was used for another message.
        QuotaError: The session has had 16,777,215 messages.
    """
    if not new:
        sessions.to_change(db, namespace, session_id)
        return []
    for message in new:
        if message.dedupe_key is not None:
            return _append_unless_there(db, namespace, session_id, new)
    return _append(db, namespace, session_id, new)


def read(
    db: Transaction,
    namespace: str,
    session_id: str,
    *,
    last: int | None = None,
    after: int | None = None,
    before: int | None = None,
) -> list[Message]:
    """Messages with `after < seq < before`, oldest first; with `last`, the newest so many of them.

    Raises:
        StoreCorruptError: A message is damaged, or some are missing.
    """
    key, held = sessions.key_and_count(db, namespace, session_id)
    bounds = _bounds(key, after, before)
    if last is None:
        rows = db.driver.execute(sql.MESSAGES_FORWARD, (*bounds, _ALL)).fetchall()
    else:
        rows = db.driver.execute(sql.MESSAGES_BACKWARD, (*bounds, last)).fetchall()
        rows.reverse()
    if not after and before is None and len(rows) != (held if last is None else min(last, held)):
        # Damage to an inner page of the table hides rows without an error of SQLite's.
        raise StoreCorruptError(db.path, f"messages of session {session_id!r} are missing; the file is kept as it is")
    return intact(db, session_id, rows)


def read_pairs(
    db: Transaction,
    namespace: str,
    session_id: str,
    *,
    last: int | None = None,
    after: int | None = None,
    before: int | None = None,
) -> list[Message]:
    """As `read`, fit for a chat API: every result right behind its call, and none without one.

    The start grows to take in the calls of the first results. The end shrinks where the results of a call lie behind `before`.
    Results whose call is nowhere are left out; results whose call lies at or before `after` stay. So do calls without a result.
    """
    window = read(db, namespace, session_id, last=last, after=after, before=before)
    settled: set[int] = set()
    lone: set[int] = set()
    while window:
        missing = [result for result in Pairing(window).lone_results if result[0] not in settled]
        if not missing:
            break
        called_at = _newest_calls(db, namespace, session_id, {call_id for _, call_id in missing}, before=window[0].seq)
        settled.update(seq for seq, _ in missing)
        lone.update(seq for seq, call_id in missing if call_id not in called_at)
        start = min((seq for seq in called_at.values() if seq > (after or 0)), default=window[0].seq)
        if start < window[0].seq:
            window = read(db, namespace, session_id, after=start - 1, before=window[0].seq) + window
    if before is not None:
        window = _without_answered_later(db, namespace, session_id, window, before)
    return arranged(window, dropped=frozenset(lone))


def read_page(db: Transaction, namespace: str, session_id: str, *, after: int, size: int) -> list[Message]:
    """The first messages behind a seq, at most `size`."""
    key = sessions.key_of(db, namespace, session_id)
    rows = db.driver.execute(sql.MESSAGES_FORWARD, (*_bounds(key, after, None), size)).fetchall()
    return intact(db, session_id, rows)


def first_id(session_key: int) -> int:
    """Below every message id of a session."""
    return session_key << SEQ_BITS


def last_id(session_key: int) -> int:
    """The highest message id that a session can have."""
    return session_key << SEQ_BITS | MAX_SEQ


def _bounds(session_key: int, after: int | None, before: int | None) -> tuple[int, int]:
    low = first_id(session_key)
    return low + min(after or 0, MAX_SEQ), low + (MAX_SEQ + 1 if before is None else min(before, MAX_SEQ + 1))


def intact(db: Transaction, session_id: str, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """The messages of rows that were just read.

    Raises:
        StoreCorruptError: One is not what was written.
    """
    damaged = first_damaged(rows, db.seed)
    if damaged is not None:
        seq = damaged[0] & MAX_SEQ
        raise StoreCorruptError(db.path, f"message {seq} of session {session_id!r} is damaged; the file is kept as it is")
    return [Message(session_id, row) for row in rows]


def _newest_calls(db: Transaction, namespace: str, session_id: str, call_ids: set[str], *, before: int) -> dict[str, int]:
    """The seq of the newest message before a seq that makes each call; calls that are nowhere are left out."""
    called_at: dict[str, int] = {}
    while before > 1 and len(called_at) < len(call_ids):
        page = read(db, namespace, session_id, last=_SEARCH_PAGE, before=before)
        if not page:
            break
        for message in reversed(page):
            for call_id in call_ids.intersection(message.tool_call_ids):
                called_at.setdefault(call_id, message.seq)
        before = page[0].seq
    return called_at


def _without_answered_later(db: Transaction, namespace: str, session_id: str, window: list[Message], before: int) -> list[Message]:
    """The window up to the first call whose result stands at or behind `before`."""
    unanswered = Pairing(window).open_calls
    waiting = {call_id for _, call_id in unanswered}
    answered: set[str] = set()
    after = before - 1
    while waiting - answered:
        page = read_page(db, namespace, session_id, after=after, size=_SEARCH_PAGE)
        if not page:
            break
        answered.update(message.tool_call_id for message in page if message.tool_call_id in waiting)
        after = page[-1].seq
    end = min((seq for seq, call_id in unanswered if call_id in answered), default=before)
    return [message for message in window if message.seq < end]


def _append(db: Transaction, namespace: str, session_id: str, new: Sequence[PreparedMessage]) -> list[Message]:
    now = db.now_text
    count = len(new)
    asking = newest_question(new, now)
    answers_first = asking is not None and _answers_before_asking(new)
    place = _reserve(db, namespace, session_id, count, now, None if answers_first else asking)
    if answers_first:
        db.driver.execute(sql.SET_ASKED_AT, (asking, place.key))
    identity = first_id(place.key) + place.next_seq - count
    rows = [message.row(identity + index, now, db.seed) for index, message in enumerate(timed(new, now, place.asked_at))]
    db.driver.executemany(sql.INSERT_MESSAGE, rows)
    if place.expires_at is not None and place.ttl is not None:
        begun, ends = clock.from_text(place.created_at), clock.from_text(place.expires_at)
        lifecycle.slide(db, place.key, begun, ends, place.ttl, place.max_age)
    stored = [Message(session_id, row) for row in rows]
    _tell_remote(db, namespace, place, stored)
    return stored


def newest_question(new: Sequence[PreparedMessage], now: str) -> str | None:
    """When the last user message among some was written."""
    for message in reversed(new):
        if message.role == ASKING_ROLE:
            return message.created_at or now
    return None


def timed(new: Iterable[PreparedMessage], now: str, asked_at: str | None) -> Iterator[PreparedMessage]:
    """The messages, answers with the time since the user message before them where nobody gave it.

    What was stored at the same instant as its question was not timed: the turn was stored as a whole.
    """
    for message in new:
        written_at = message.created_at or now
        if message.role == ASKING_ROLE:
            asked_at = written_at
        if message.untimed and asked_at is not None and written_at > asked_at:
            elapsed = clock.from_text(written_at) - clock.from_text(asked_at)
            yield message.timed(elapsed / _MILLISECOND)
        else:
            yield message


def _answers_before_asking(new: Sequence[PreparedMessage]) -> bool:
    for message in new:
        if message.untimed or message.role == ASKING_ROLE:
            return message.untimed
    return False


def _tell_remote(db: Transaction, namespace: str, place: _Place, stored: Sequence[Message]) -> None:
    """Tell the usage and the timing of messages, without a word of theirs unless the remote is to have the messages, too."""
    wanted = subscription.current(db)
    if wanted.url is None:
        return
    if wanted.sync_messages:
        outbox.enqueue(db, [events.message_told(namespace, place.agent_id, message) for message in stored])
    elif told := [message for message in stored if message.has_figures]:
        outbox.enqueue(db, [events.message_figures(namespace, place.agent_id, message) for message in told])


def _reserve(db: Transaction, namespace: str, session_id: str, count: int, now: str, asked_at: str | None) -> _Place:
    try:
        reserved = db.driver.execute(sql.RESERVE_SEQS, (count, count, now, asked_at, namespace, session_id, now)).fetchall()
    except sqlite3.IntegrityError as error:
        # The CHECK on next_seq keeps a session's ids from running into the next session's.
        raise QuotaError(f"session {session_id!r} has no seq left; go on in a new session", limit=MAX_SEQ) from error
    if not reserved:
        raise sessions.absent(db, namespace, session_id)
    return _Place(*reserved[0])


def _append_unless_there(db: Transaction, namespace: str, session_id: str, new: Sequence[PreparedMessage]) -> list[Message]:
    key, _ = sessions.to_change(db, namespace, session_id)
    known: dict[str, Message] = {}
    fresh: list[PreparedMessage] = []
    first_use: dict[str, PreparedMessage] = {}
    for message in new:
        if message.dedupe_key is None:
            fresh.append(message)
        elif message.dedupe_key in first_use:
            _require_same(session_id, message, first_use[message.dedupe_key][:4])
        else:
            first_use[message.dedupe_key] = message
            found = db.driver.execute(sql.MESSAGE_BY_DEDUPE_KEY, (key, message.dedupe_key)).fetchall()
            if found:
                _require_same(session_id, message, found[0][1:5])
                known[message.dedupe_key] = intact(db, session_id, found)[0]
            else:
                fresh.append(message)
    appended = iter(_append(db, namespace, session_id, fresh) if fresh else ())
    stored = []
    for message in new:
        if message.dedupe_key is None:
            stored.append(next(appended))
        else:
            if message.dedupe_key not in known:
                known[message.dedupe_key] = next(appended)
            stored.append(known[message.dedupe_key])
    return stored


def _require_same(session_id: str, message: PreparedMessage, stored: tuple[str, str | None, str | None, str | None]) -> None:
    kind, role, text, extra = stored
    same = content.decode(role, text, extra) == content.decode(message.role, message.text, message.extra)
    if (kind, role) != (message.kind, message.role) or not same:
        raise ConflictError(session_id, f"a dedupe_key of session {session_id!r} was used for another message before")
