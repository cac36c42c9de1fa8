"""Appending and reading messages: the compiled statements of the hot path."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from operator import attrgetter, ge
from typing import Any, Final, NamedTuple

from .. import clock, sql
from ..arguments import NewSession
from ..database.transaction import Transaction
from ..errors import ConflictError, NotFoundError, QuotaError, SessionExpiredError, StoreCorruptError
from ..inputs import encode_json
from ..pairs import Pairing, arranged
from ..remote import events
from ..rows import ASKING_ROLE, PreparedMessage, first_damaged
from ..values import MAX_SEQ, Message, SessionInfo
from . import lifecycle, lineage, message_rows, outbox, search_index, sessions, state, subscription, whole_messages
from .blobs import first_few
from .message_rows import first_id

_ALL: Final = -1
_SEARCH_PAGE: Final = 100
_USED_KEYS: Final = (
    "SELECT m.dedupe_key, m.id FROM json_each(:names) e CROSS JOIN messages m ON m.session_key = :key AND m.dedupe_key = e.value"
)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DEDUPE_KEY_OF: Final = attrgetter("dedupe_key")


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
    indexed_seq: int
    search: str
    has_remote: bool


def append(
    db: Transaction,
    namespace: str,
    session_id: str,
    new: Sequence[PreparedMessage],
    *,
    expected_last_seq: int | None = None,
    values: state.ValuesByScope | None = None,
) -> list[Message]:
    """Store messages at the end of a session, in their order.

    Args:
        db: The transaction.
        namespace: With the id, the name of the session.
        session_id: Its id.
        new: The messages.
        expected_last_seq: What its last seq must be before.
        values: What to set of the state that the session sees, as JSON texts. Messages that were all there already set nothing.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
        ConflictError: A dedupe key was used for another message, or the last seq is another one.
        InvalidInputError: There are values of a user, and the session has none.
        QuotaError: The session has had 16,777,215 messages, or an owner would have too much state.
    """
    has_keys = any(map(_DEDUPE_KEY_OF, new))
    if new and not has_keys and not values:
        return _append(db, namespace, session_id, new, expected_last_seq)
    key, info = sessions.to_change(db, namespace, session_id)
    stored: list[Message] = []
    is_new = True
    if not new:
        _require_last_seq(session_id, info.last_seq, expected_last_seq)
    elif has_keys:
        stored, is_new = _append_unless_there(db, info, key, new, expected_last_seq)
    else:
        stored = _append(db, namespace, session_id, new, expected_last_seq)
    if values and is_new:
        for scope, texts in values.items():
            state.put(db, state.seen_by(key, info), scope, texts)
    return stored


def append_or_begin(db: Transaction, new: NewSession, messages: Sequence[PreparedMessage]) -> list[Message]:
    """Append to a session, and make it first if there is none, or if it has expired."""
    try:
        return append(db, new.namespace, new.session_id, messages)
    except (NotFoundError, SessionExpiredError):
        lifecycle.get_or_create(db, new)
        return append(db, new.namespace, new.session_id, messages)


def read(
    db: Transaction,
    namespace: str,
    session_id: str,
    *,
    last: int | None = None,
    after: int | None = None,
    before: int | None = None,
    blobs: bool = True,
) -> list[Message]:
    """Messages with `after < seq < before`, oldest first; with `last`, the newest so many of them; without `blobs`, their names.

    Raises:
        StoreCorruptError: A message is damaged, or some are missing.
    """
    place = sessions.place_of(db, namespace, session_id)
    held = place.message_count
    if last is None:
        rows = _oldest(db, place, after, before, _ALL)
    else:
        rows = _newest(db, place, after, before, last)
        rows.reverse()
    if not after and before is None and len(rows) != (held if last is None else min(last, held)):
        # Damage to an inner page of the table hides rows without an error of SQLite's.
        raise StoreCorruptError(db.path, f"messages of session {session_id!r} are missing; the file is kept as it is")
    _require_order(db, session_id, rows)
    return intact(db, session_id, rows, blobs=blobs)


def read_pairs(
    db: Transaction,
    namespace: str,
    session_id: str,
    *,
    last: int | None = None,
    after: int | None = None,
    before: int | None = None,
    blobs: bool = True,
) -> list[Message]:
    """As `read`, fit for a chat API: every result right behind its call, and none without one.

    The start grows to take in the calls of the first results. The end shrinks where the results of a call lie behind `before`.
    Results whose call is nowhere are left out; results whose call lies at or before `after` stay. So do calls without a result.
    """
    window = read(db, namespace, session_id, last=last, after=after, before=before, blobs=blobs)
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
            window = read(db, namespace, session_id, after=start - 1, before=window[0].seq, blobs=blobs) + window
    if before is not None:
        window = _without_answered_later(db, namespace, session_id, window, before)
    return arranged(window, dropped=frozenset(lone))


def read_page(db: Transaction, namespace: str, session_id: str, *, after: int, size: int, blobs: bool = True) -> list[Message]:
    """The first messages behind a seq, at most `size`, and fewer if their blobs would take much memory."""
    place = sessions.place_of(db, namespace, session_id)
    rows: Sequence[Sequence[Any]] = _oldest(db, place, after, None, size)
    _require_order(db, session_id, rows)
    return intact(db, session_id, first_few(rows) if blobs else rows, blobs=blobs)


def _require_order(db: Transaction, session_id: str, rows: Sequence[Sequence[Any]]) -> None:
    """Damage to an inner page of the table may show one message twice instead of the next one."""
    seqs = [row[0] & MAX_SEQ for row in rows]
    if any(map(ge, seqs, seqs[1:])):
        raise StoreCorruptError(db.path, f"messages of session {session_id!r} are not in order; the file is kept as it is")


def _oldest(db: Transaction, place: sessions.Place, after: int | None, before: int | None, most: int) -> list[tuple[Any, ...]]:
    if (after or 0) < place.inherits_through:
        low, high = _bounds(0, after, before)
        return lineage.rows_forward(db, place.key, low + 1, high - 1, most)
    return db.driver.execute(sql.MESSAGES_FORWARD, (*_bounds(place.key, after, before), most)).fetchall()


def _newest(db: Transaction, place: sessions.Place, after: int | None, before: int | None, most: int) -> list[tuple[Any, ...]]:
    if (after or 0) < place.inherits_through:
        low, high = _bounds(0, after, before)
        return lineage.rows_backward(db, place.key, low + 1, high - 1, most)
    return db.driver.execute(sql.MESSAGES_BACKWARD, (*_bounds(place.key, after, before), most)).fetchall()


def _bounds(session_key: int, after: int | None, before: int | None) -> tuple[int, int]:
    """Ids below and above those of the messages between two seqs, which are left out themselves."""
    low = first_id(session_key)
    return low + min(after or 0, MAX_SEQ), low + (MAX_SEQ + 1 if before is None else min(before, MAX_SEQ + 1))


def intact(db: Transaction, session_id: str, rows: Sequence[Sequence[Any]], *, blobs: bool = True) -> list[Message]:
    """The messages of rows that were just read; without `blobs`, with their names.

    Raises:
        StoreCorruptError: One is not what was written.
        MissingExtraError: One needs zstd, and there is none.
    """
    if first_damaged(rows, db.seed) is not None:
        # It is packed, has blobs, or is damaged.
        return whole_messages.of_rows(db, session_id, rows, with_blobs=blobs)
    return [Message(session_id, row) for row in rows]


def _newest_calls(db: Transaction, namespace: str, session_id: str, call_ids: set[str], *, before: int) -> dict[str, int]:
    """The seq of the newest message before a seq that makes each call; calls that are nowhere are left out."""
    called_at: dict[str, int] = {}
    while before > 1 and len(called_at) < len(call_ids):
        page = read(db, namespace, session_id, last=_SEARCH_PAGE, before=before, blobs=False)
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
        page = read_page(db, namespace, session_id, after=after, size=_SEARCH_PAGE, blobs=False)
        if not page:
            break
        answered.update(message.tool_call_id for message in page if message.tool_call_id in waiting)
        after = page[-1].seq
    end = min((seq for seq, call_id in unanswered if call_id in answered), default=before)
    return [message for message in window if message.seq < end]


def _append(
    db: Transaction, namespace: str, session_id: str, new: Sequence[PreparedMessage], expected_last_seq: int | None
) -> list[Message]:
    now = db.now_text
    count = len(new)
    asking = newest_question(new, now)
    answers_first = asking is not None and _answers_before_asking(new)
    place = _reserve(db, namespace, session_id, count, now, None if answers_first else asking)
    _require_last_seq(session_id, place.next_seq - count - 1, expected_last_seq)
    if answers_first:
        db.driver.execute(sql.SET_ASKED_AT, (asking, place.key))
    identity = first_id(place.key) + place.next_seq - count
    rows = [message.row(identity + index, now, db.seed) for index, message in enumerate(timed(new, now, place.asked_at))]
    message_rows.insert(db, rows, new)
    if place.search == search_index.ON:
        search_index.follow(db, place.key, place.indexed_seq, rows)
    if place.expires_at is not None and place.ttl is not None:
        begun, ends = clock.from_text(place.created_at), clock.from_text(place.expires_at)
        lifecycle.slide(db, place.key, begun, ends, place.ttl, place.max_age)
    stored = [
        Message(session_id, row) if message.large is None else Message(session_id, row, message.large.restored)
        for row, message in zip(rows, new, strict=True)
    ]
    if place.has_remote:
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
    tell = events.message_told if wanted.sync_messages else events.message_figures
    if told := [message for message in stored if wanted.sync_messages or message.has_figures]:
        began_at = clock.from_text(place.created_at)
        outbox.enqueue(db, [tell(namespace, place.agent_id, began_at, message) for message in told])


def _reserve(db: Transaction, namespace: str, session_id: str, count: int, now: str, asked_at: str | None) -> _Place:
    try:
        reserved = db.driver.execute(sql.RESERVE_SEQS, (count, count, now, asked_at, namespace, session_id, now)).fetchall()
    except sqlite3.IntegrityError as error:
        # The CHECK on next_seq keeps a session's ids from running into the next session's.
        raise QuotaError(f"session {session_id!r} has no seq left; go on in a new session", limit=MAX_SEQ) from error
    if not reserved:
        raise sessions.absent(db, namespace, session_id)
    return _Place(*reserved[0])


def _require_last_seq(session_id: str, last_seq: int, expected: int | None) -> None:
    if expected is not None and last_seq != expected:
        raise ConflictError(
            session_id, f"the last seq of session {session_id!r} is {last_seq}, not {expected}; read what came and try again"
        )


def _append_unless_there(
    db: Transaction, info: SessionInfo, key: int, new: Sequence[PreparedMessage], expected_last_seq: int | None
) -> tuple[list[Message], bool]:
    """The stored messages, and whether any of them is new. What was stored before is no conflict: the call is repeated."""
    namespace, session_id = info.namespace, info.session_id
    known: dict[str, Message] = {}
    fresh: list[PreparedMessage] = []
    first_use: dict[str, PreparedMessage] = {}
    for message in new:
        if message.dedupe_key is None:
            fresh.append(message)
        elif message.dedupe_key in first_use:
            _require_same(session_id, message, first_use[message.dedupe_key])
        else:
            first_use[message.dedupe_key] = message
            found = of_dedupe_key(db, key, message.dedupe_key, is_fork=info.forked_at is not None)
            if found:
                known[message.dedupe_key] = intact(db, session_id, found)[0]
                _require_same(session_id, message, known[message.dedupe_key])
            else:
                fresh.append(message)
    appended = iter(_append(db, namespace, session_id, fresh, expected_last_seq) if fresh else ())
    stored = []
    for message in new:
        if message.dedupe_key is None:
            stored.append(next(appended))
        else:
            if message.dedupe_key not in known:
                known[message.dedupe_key] = next(appended)
            stored.append(known[message.dedupe_key])
    return stored, bool(fresh)


def append_unused(db: Transaction, namespace: str, session_id: str, new: Sequence[PreparedMessage]) -> None:
    """Append messages to a live session whose dedupe keys, which differ, are known to be unused in it.

    Raises:
        QuotaError: The session has had 16,777,215 messages; nothing was stored.
    """
    _append(db, namespace, session_id, new, None)


def known_keys(db: Transaction, key: int, names: Iterable[str], *, is_fork: bool) -> set[str]:
    """Which of some dedupe keys were used in a session, also for messages that a fork shares."""
    given = encode_json(list(names))
    known = {name for name, _ in db.driver.execute(_USED_KEYS, {"key": key, "names": given})}
    for piece in lineage.inherited(db, key) if is_fork else ():
        shared = db.driver.execute(_USED_KEYS, {"key": piece.owner, "names": given})
        known.update(name for name, identity in shared if piece.first <= identity & MAX_SEQ <= piece.last)
    return known


def of_dedupe_key(db: Transaction, key: int, dedupe_key: str, *, is_fork: bool) -> list[tuple[Any, ...]]:
    """The row of the message that a dedupe key was used for, also one that a fork shares."""
    found: list[tuple[Any, ...]] = db.driver.execute(sql.MESSAGE_BY_DEDUPE_KEY, (key, dedupe_key)).fetchall()
    if found or not is_fork:
        return found
    for piece in lineage.inherited(db, key):
        shared = db.driver.execute(sql.MESSAGE_BY_DEDUPE_KEY, (piece.owner, dedupe_key)).fetchall()
        found += [row for row in shared if piece.first <= row[0] & MAX_SEQ <= piece.last]
    return found


def _require_same(session_id: str, message: PreparedMessage, stored: Message | PreparedMessage) -> None:
    if (stored.kind, stored.role) != (message.kind, message.role) or stored.to_dict() != message.to_dict():
        raise ConflictError(session_id, f"a dedupe_key of session {session_id!r} was used for another message before")
