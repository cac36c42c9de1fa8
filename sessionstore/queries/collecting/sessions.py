"""The sessions that a collector's events are about: read once for a batch, changed in memory, written back once.

A session's lives are told apart by when they began, as the client says it with every event. A message of which it does not say so
belongs to the life that was under way at its time. What refuses an event raises before anything of it is changed, so that its
neighbours go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

from ...content import decoded
from ...database.transaction import Transaction
from ...inputs import MAX_METADATA_BYTES, encode_json, json_object
from ...rows import PreparedMessage, checksum
from ...values import EXPIRED_STATUS, MAX_SEQ, OPEN_STATUS, SEQ_BITS
from .. import lineage, message_rows, removal, search_index, whole_messages
from . import statements
from .arrivals import End, Expiry, Figures, Start

Name = tuple[str, str]

_COUNTS: Final = attrgetter(*statements.COUNTED, "session_key")
_CHANGES: Final = attrgetter(*statements.CHANGED, "session_key")
_MAKING: Final = attrgetter(*statements.MADE)
_BEGINNING: Final = attrgetter("created_at")
_FIRST_SEQ: Final = 1
_NOT_PACKED: Final = None


class _Session:
    """A session as it will be stored; its columns are attributes."""

    __slots__ = (*statements.LOADED, "is_changed", "puts", "stored_seq")

    pinned = False
    version = 1

    session_key: int | None
    namespace: str
    session_id: str
    status: str
    created_at: str
    updated_at: str
    ended_at: str | None
    user_id: str | None
    agent_id: str | None
    metadata: str | None
    quality_score: int | None
    error: str | None
    feedback: str | None
    reported_message_count: int | None
    message_count: int
    next_seq: int
    # Whether it was told when it began; else it began when it was heard of first, or before.
    tracked: bool

    def __init__(self, *row: Any) -> None:
        for name, value in zip(statements.LOADED, row, strict=True):
            setattr(self, name, value)
        self.is_changed = False
        # Behind it no message is stored yet.
        self.stored_seq = self.next_seq
        self.puts: dict[int, tuple[PreparedMessage, str]] = {}

    @property
    def is_over(self) -> bool:
        """Whether it gave up its name."""
        return self.status == EXPIRED_STATUS

    def began_before(self, at: str) -> bool:
        """Whether what began then is another session of this name, as the client has one at a time."""
        return at > (self.ended_at or self.created_at)

    def was_used(self, at: str) -> None:
        """Note when it changed, unless that is known to be later."""
        self.updated_at = max(self.updated_at, at)


class Desk:
    """The sessions of one batch."""

    def __init__(self, db: Transaction, names: Iterable[Name]) -> None:
        self._db = db
        self._by_name: dict[Name, list[_Session]] = {name: [] for name in names}
        self._touched: dict[_Session, None] = {}
        self._made: dict[_Session, None] = {}
        self._load(self._by_name)

    def start(self, namespace: str, told: Start) -> None:
        """A session began. Of one that is known, what is missing is filled in; a later start of one name begins it anew."""
        found = self._begun(namespace, told.session_id, told.began_at)
        begins_anew = found is not None and found.created_at != told.began_at and found.began_before(told.began_at)
        metadata = _merged(None if found is None or begins_anew else found.metadata, told.metadata, new_wins=False)
        if found is None:
            found = self._make(namespace, told.session_id, told.agent_id, told.began_at)
        elif begins_anew:
            self._begin_anew(found, told.began_at)
        found.metadata = metadata
        if not found.tracked:
            found.created_at, found.tracked = min(found.created_at, told.began_at), True
            # What its figures said may be a later life's.
            found.agent_id = told.agent_id or found.agent_id
        found.user_id = found.user_id or told.user_id
        found.agent_id = found.agent_id or told.agent_id
        found.was_used(told.began_at)
        self._change(found)

    def end(self, namespace: str, told: End) -> None:
        """A session completed or failed; the end of one that is taken for expired wins."""
        holder = self._holder(namespace, told.session_id)
        found = self._of_time(namespace, told.session_id, told.began_at)
        if found is None and (told.began_at is None or (holder is not None and told.ended_at >= holder.created_at)):
            found = holder or self._newest(namespace, told.session_id)
        metadata = _merged(None if found is None else found.metadata, told.metadata)
        if found is None:
            found = self._make(namespace, told.session_id, told.agent_id, told.began_at or told.ended_at)
        if holder is None or found is holder:
            found.status = told.status
        # Else its name belongs to a later life, and only an expired one goes without.
        found.ended_at, found.metadata = told.ended_at, metadata
        found.quality_score, found.feedback, found.error = told.quality_score, told.feedback, told.error
        found.reported_message_count = told.message_count
        self._known_since(found, told.began_at)
        found.agent_id = found.agent_id or told.agent_id
        found.was_used(told.ended_at)
        self._change(found)

    def expire(self, namespace: str, told: Expiry) -> None:
        """A session's life was over, unless it had ended before."""
        found = self._of_time(namespace, told.session_id, told.began_at)
        holder = self._holder(namespace, told.session_id)
        if found is None and holder is not None and told.ended_at > holder.created_at:
            found = holder
        if found is not None and found.ended_at is not None:
            return
        metadata = _merged(None if found is None else found.metadata, told.metadata)
        if found is None:
            # Also if the name's holder began later: this was an earlier life.
            found = self._make(namespace, told.session_id, told.agent_id, told.began_at or told.ended_at)
        found.metadata = metadata
        found.status, found.ended_at = EXPIRED_STATUS, told.ended_at
        self._known_since(found, told.began_at)
        found.agent_id = found.agent_id or told.agent_id
        found.was_used(told.ended_at)
        self._change(found)

    def put_message(self, namespace: str, told: Figures) -> None:
        """A message was stored, or what it cost; what is known of it already stays known."""
        seq, row, at = told.seq, told.row, told.at
        found = self._life_of(namespace, told)
        known = self._message(found, seq)
        if known is None:
            found.message_count += 1
            found.next_seq = max(found.next_seq, seq + 1)
        else:
            row, at = _joined(known, row, at, has_text=told.has_text)
        found.puts[seq] = (row, at)
        if found.agent_id is None and told.agent_id is not None:
            found.agent_id = told.agent_id
            self._change(found)
        found.was_used(told.at)
        self._touched[found] = None

    def erase(self, namespace: str, session_id: str) -> None:
        """Forget the sessions of a name, with their messages and figures."""
        # What waits to be written may be about them.
        self.write_back()
        for session in self._by_name[namespace, session_id]:
            if session.session_key is not None:
                removal.remove(self._db, session.session_key)
        self._db.driver.execute(statements.DELETE_METRICS, (namespace, session_id))
        self._by_name[namespace, session_id] = []

    def write_back(self) -> None:
        """Write all that was changed."""
        stored = [session for session in self._touched if session not in self._made]
        # A name is free before it is taken again.
        changed = sorted((session for session in stored if session.is_changed), key=lambda session: not session.is_over)
        driver = self._db.driver
        driver.executemany(statements.CHANGE_SESSION, [_CHANGES(session) for session in changed])
        driver.executemany(statements.COUNT_MESSAGES, [_COUNTS(session) for session in stored if not session.is_changed])
        for session in self._made:
            session.session_key = driver.execute(statements.MAKE_SESSION, _MAKING(session)).lastrowid
        self._make_way()
        driver.executemany(statements.PUT_MESSAGE, self._rows())
        self._enter_index()
        for session in self._touched:
            session.is_changed, session.stored_seq = False, session.next_seq
            session.puts.clear()
        self._touched.clear()
        self._made.clear()

    def _make_way(self) -> None:
        """Take messages that are told again out of the search index: their words may be others now. Forks keep what they had."""
        for session in self._touched:
            key = session.session_key or 0
            for seq in session.puts:
                if seq >= session.stored_seq:
                    continue
                if lineage.wanted_by_others(self._db, key, seq, seq):
                    # Also where there is no message yet: a fork that was made without it does not get it later.
                    lineage.remove_own(self._db, key, seq, seq)
                else:
                    place = (key << SEQ_BITS) + seq
                    search_index.remove(self._db, place - 1, place + 1)
            if session.puts and session not in self._made:
                search_index.forget_from(self._db, key, min(session.puts))

    def _enter_index(self) -> None:
        if search_index.mode(self._db) == search_index.ON:
            for session in self._touched:
                search_index.follow_session(self._db, session.session_key or 0)

    def _rows(self) -> list[tuple[Any, ...]]:
        seed = self._db.seed
        rows = []
        for session in self._touched:
            first = (session.session_key or 0) << SEQ_BITS
            for seq, (row, at) in session.puts.items():
                columns = (first + seq, *row[:5], at)
                rows.append((*columns, checksum(*columns, seed), _NOT_PACKED))
        return rows

    def _load(self, names: Iterable[Name]) -> None:
        given = encode_json([list(name) for name in names])
        rows = self._db.driver.execute(statements.SESSIONS_OF_NAMES, (given, given)).fetchall()
        # By their keys: the newest comes last.
        for row in sorted(rows):
            session = _Session(*row)
            self._by_name[session.namespace, session.session_id].append(session)

    def _of_time(self, namespace: str, session_id: str, began_at: str | None) -> _Session | None:
        """The life that began then."""
        for session in self._by_name[namespace, session_id]:
            if session.created_at == began_at:
                return session
        return None

    def _holder(self, namespace: str, session_id: str) -> _Session | None:
        """The one that holds the name."""
        for session in self._by_name[namespace, session_id]:
            if session.status != EXPIRED_STATUS:
                return session
        return None

    def _newest(self, namespace: str, session_id: str) -> _Session | None:
        found = self._by_name[namespace, session_id]
        return max(found, key=_BEGINNING, default=None)

    def _begun(self, namespace: str, session_id: str, began_at: str) -> _Session | None:
        """The life whose beginning is told: the one of that time, one that was heard of before its beginning, or the holder."""
        found = self._of_time(namespace, session_id, began_at)
        if found is not None:
            return found
        later = [session for session in self._by_name[namespace, session_id] if session.created_at > began_at]
        if not later:
            return self._holder(namespace, session_id)
        following = min(later, key=_BEGINNING)
        return None if following.tracked else following

    def _life_of(self, namespace: str, told: Figures) -> _Session:
        """The life that a message belongs to; it is made if nothing was known of it."""
        return self._life_at(namespace, told) if told.began_at is None else self._life_begun(namespace, told, told.began_at)

    def _life_begun(self, namespace: str, told: Figures, began_at: str) -> _Session:
        """The life that a message says it belongs to."""
        found = self._begun(namespace, told.session_id, began_at)
        if found is not None and found.created_at < began_at and found.began_before(began_at):
            # A client has one session of a name at a time: that one has expired, or was ended and deleted.
            self._change(found)
            if found.ended_at is None:
                found.status = EXPIRED_STATUS
                found = None
            else:
                self._begin_anew(found, began_at)
        if found is None:
            found = self._make(namespace, told.session_id, told.agent_id, began_at)
        if not found.tracked:
            found.created_at, found.tracked = began_at, True
            self._change(found)
        return found

    def _life_at(self, namespace: str, told: Figures) -> _Session:
        """The life that was under way at the time of a message."""
        lives, at = self._by_name[namespace, told.session_id], told.at
        begun = [session for session in lives if session.created_at <= at]
        found = max(begun, key=_BEGINNING) if begun else min(lives, key=_BEGINNING, default=None)
        # An expired session takes no message, so that there was another one, whose beginning is not told yet.
        if begun and found is not None and found.is_over and found.ended_at is not None and at > found.ended_at:
            found = self._following(found)
        return found or self._make(namespace, told.session_id, told.agent_id, at)

    def _following(self, session: _Session) -> _Session | None:
        """The life after this one, if nobody said when it began."""
        later = [each for each in self._by_name[session.namespace, session.session_id] if each.created_at > session.created_at]
        following = min(later, key=_BEGINNING, default=None)
        return None if following is None or following.tracked else following

    def _make(self, namespace: str, session_id: str, agent_id: str | None, began_at: str) -> _Session:
        """A session that nothing was known of; its caller notes that it changed.

        It is open, unless a later one of its name is known: then it is over, and somebody will tell since when.
        """
        lives = self._by_name[namespace, session_id]
        is_past = any(session.created_at > began_at or not session.is_over for session in lives)
        values = dict.fromkeys(statements.LOADED) | {
            "namespace": namespace,
            "session_id": session_id,
            "agent_id": agent_id,
            "status": EXPIRED_STATUS if is_past else OPEN_STATUS,
            "created_at": began_at,
            "updated_at": began_at,
            "message_count": 0,
            "next_seq": _FIRST_SEQ,
            "tracked": False,
        }
        made = _Session(*values.values())
        lives.append(made)
        self._made[made] = None
        return made

    def _begin_anew(self, found: _Session, began_at: str) -> None:
        """A session of the name of one that was ended: the client has deleted that one, and counts its messages anew."""
        if found.session_key is not None:
            message_rows.discard(self._db, found.session_key, _FIRST_SEQ, MAX_SEQ)
            search_index.forget_from(self._db, found.session_key, _FIRST_SEQ)
        found.puts.clear()
        found.status, found.created_at = OPEN_STATUS, began_at
        found.ended_at = found.metadata = found.quality_score = found.error = found.feedback = None
        found.reported_message_count = found.user_id = found.agent_id = None
        found.tracked = True
        found.message_count, found.next_seq, found.stored_seq = 0, _FIRST_SEQ, _FIRST_SEQ

    def _known_since(self, found: _Session, began_at: str | None) -> None:
        # The duration is to come out as the client has it; but a beginning that was told is not moved to an earlier life's.
        if began_at is not None and (not found.tracked or began_at > found.created_at):
            found.created_at, found.tracked = began_at, True

    def _message(self, session: _Session, seq: int) -> tuple[PreparedMessage, str] | None:
        """What is known of a message."""
        known = session.puts.get(seq)
        if known is not None or seq >= session.stored_seq or session.session_key is None:
            return known
        rows = self._db.driver.execute(statements.MESSAGE_BY_ID, (session.session_key << SEQ_BITS | seq,)).fetchall()
        return _message_of(whole_messages.unpacked(self._db, session.session_id, rows[0])) if rows else None

    def _change(self, session: _Session) -> None:
        session.is_changed = True
        self._touched[session] = None


def _merged(known: str | None, told: dict[str, Any], *, new_wins: bool = True) -> str | None:
    """Metadata with what was told of it.

    Raises:
        InvalidInputError: It would become too large.
    """
    if not told:
        return known
    before = decoded(known) if known else {}
    merged = {**before, **told} if new_wins else {**told, **before}
    return json_object("metadata", merged, max_bytes=MAX_METADATA_BYTES)


def _message_of(row: Sequence[Any]) -> tuple[PreparedMessage, str]:
    _, kind, role, text, extra, facts, created_at, _, _ = row
    return PreparedMessage(kind, role, text, extra, facts, None, None), created_at


def _joined(known: tuple[PreparedMessage, str], new: PreparedMessage, at: str, *, has_text: bool) -> tuple[PreparedMessage, str]:
    """A message of which more was told: figures do not take its text away."""
    before, stored_at = known
    facts = {**(decoded(before.facts) if before.facts else {}), **(decoded(new.facts) if new.facts else {})}
    whole = new if has_text else before
    return whole._replace(facts=encode_json(facts) if facts else None), at if has_text else stored_at
