"""Copying sessions from one store into another, row by row, whatever version, life or encryption they have.

What the target has of a session is told by a note in its table `received_events`, under a tenant of the source: the key of the
copy, and a hash of what was copied. By it a copy goes on where an earlier one was killed, notices that a session was changed in the
source since, and never touches a session that was changed in the target.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from .. import inputs, sql
from ..database.transaction import Transaction
from ..large import entries_of
from ..rows import checksum
from ..values import EXPIRED_STATUS, MAX_SEQ, STATE_SCOPES
from . import blobs, checkpoint_rows, kinship, lineage, message_rows, removal, search_index, sessions, state, whole_messages
from .dialect import as_stored
from .lineage import Piece
from .tables import HOLDS_NAME, SESSION_COLUMNS, SESSIONS

TENANT: Final = "copy:"

_A_PAGE: Final = 500
_SESSION: Final = STATE_SCOPES[0]
_DIGEST_BYTES: Final = 24
_STORED: Final = tuple(as_stored(column) for column in SESSION_COLUMNS)
_NAMES: Final = tuple(column.name for column in SESSION_COLUMNS)
# What a store gives a session for itself.
_OWN: Final = frozenset({"session_key", "parent_key", "inherits_through", "indexed_seq"})
_CARRIED: Final = tuple(name for name in _NAMES if name not in _OWN)
_INSERT: Final = f"INSERT INTO sessions ({', '.join(_CARRIED)}) VALUES ({', '.join('?' * len(_CARRIED))}) RETURNING session_key"  # noqa: S608
_INSERT_BLOB: Final = "INSERT INTO blobs (hash, size_bytes, encoding, data) VALUES (?, ?, ?, ?)"
_READ_BLOB: Final = "SELECT hash, size_bytes, encoding, data FROM blobs WHERE hash = ?"
_HAS_BLOB: Final = "SELECT 1 FROM blobs WHERE hash = ?"
_NOTE: Final = (
    "INSERT INTO received_events (tenant, key, body_hash, received_at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (tenant, key) DO UPDATE SET body_hash = excluded.body_hash, received_at = excluded.received_at"
)
_READ_NOTE: Final = "SELECT body_hash FROM received_events WHERE tenant = ? AND key = ?"
_CHILDREN: Final = "SELECT session_key FROM sessions WHERE parent_key = ?"


class Original(NamedTuple):
    """A session of the source: its key, its stored row by the names of its columns, and a hash of all that is stored of it."""

    key: int
    values: dict[str, Any]
    digest: bytes


class Outcome(NamedTuple):
    """What became of a session: "new", "again" (it replaced a copy that was older), "equal" or "kept" (another one is there)."""

    what: str
    messages: int


class Totals(NamedTuple):
    """How much a store holds."""

    sessions: int
    messages: int
    blobs: int


def totals(db: Transaction) -> Totals:
    """How many sessions and messages a store holds, in all namespaces, expired ones too, and how many blobs they have."""
    held = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(SESSIONS.c.message_count), 0))
    found, count = db.core.execute(held).one()
    ((used,),) = db.driver.execute("SELECT count(DISTINCT hash) FROM blob_references").fetchall()
    return Totals(found, count, used)


def rows_after(db: Transaction, key: int, most: int) -> list[dict[str, Any]]:
    """The stored rows of sessions behind a key, at most so many, in the order of their keys."""
    found = sa.select(*_STORED).where(SESSIONS.c.session_key > key).order_by(SESSIONS.c.session_key).limit(most)
    return [dict(zip(_NAMES, row, strict=True)) for row in db.core.execute(found)]


def original(db: Transaction, values: dict[str, Any]) -> Original:
    """A session of the source, read to its end.

    Raises:
        StoreCorruptError: A message of it is damaged.
    """
    return Original(values["session_key"], values, digest(db, values))


def digest(db: Transaction, values: dict[str, Any]) -> bytes:
    """A hash of all that is stored of a session, the same in every store; blobs are in it by their hashes.

    Raises:
        StoreCorruptError: A message of it is damaged.
    """
    key = values["session_key"]
    found = sha256()

    def add(*parts: object) -> None:
        found.update(inputs.encode_json(parts).encode() + b"\n")

    add(*(values[name] for name in _CARRIED))
    add(*sessions.tags_of(db, key))
    for value in state.of(db, values["namespace"], _SESSION, str(key)):
        add(*value)
    for row in _plain_rows(db, key, values["session_id"]):
        add(row[0] & MAX_SEQ, *row[1:7])
    for _, _, seq, at, *row in _superseded(db, key):
        plain = whole_messages.unpacked(db, values["session_id"], (message_rows.first_id(key) + seq, *row))
        add(seq, at, *plain[1:7])
    for kind, values_of in checkpoint_rows.rows(db, key):
        add(kind.name, *(sha256(each).hexdigest() if isinstance(each, bytes) else each for each in values_of))
    return found.digest()[:_DIGEST_BYTES]


class Copier:
    """Puts sessions of one source into one target. It remembers who reads rows that no session owns any more.

    Attributes:
        tenant: Under what the notes of this source stand in the target.
    """

    def __init__(self, source_id: str) -> None:
        self.tenant = TENANT + source_id
        self._readers: dict[int, set[tuple[int, int, int]]] = {}

    def bring(self, source: Transaction, target: Transaction, session: Original) -> Outcome:
        """See to it that the target has a session as the source has it."""
        outcome = self._bring(source, target, session)
        if outcome.what != "kept" and session.values["inherits_through"]:
            for first, last, owner in lineage.inherited(source, session.key):
                if not state.has_session(source, owner):
                    self._readers.setdefault(owner, set()).add((first, last, session.key))
        return outcome

    def _bring(self, source: Transaction, target: Transaction, session: Original) -> Outcome:
        values, held = session.values, session.values["message_count"]
        note = self._note_of(target, session.key)
        there = None if note is None else _row_of(target, note[0])
        if there is not None and there["created_at"] != values["created_at"]:
            # The source was restored from a backup, and has given the key to another session.
            there = note = None
        if there is None:
            there = _same(target, values)
            if there is not None:
                if digest(target, there) != session.digest:
                    return Outcome("kept", held)
                self._note(target, session, there["session_key"])
                self._connect(source, target, session, there["session_key"])
                return Outcome("equal", held)
        else:
            found = digest(target, there)
            if found == session.digest:
                return Outcome("equal", held)
            if (note is not None and found != note[1]) or not _is_older(there, values):
                return Outcome("kept", held)
        holder = _holder(target, values)
        if holder is not None and (there is None or holder != there["session_key"]):
            return Outcome("kept", held)
        if there is not None:
            removal.remove(target, there["session_key"])
        self._put(source, target, session)
        return Outcome("new" if there is None else "again", held)

    def _put(self, source: Transaction, target: Transaction, session: Original) -> None:
        pieces = self._shared(source, target, session)
        key = _put_row(source, target, session, pieces)
        if pieces and digest(target, _known_row(target, key)) != session.digest:
            # Rows that were shared are not what the source has: they were changed since, on one of the sides.
            removal.remove(target, key)
            key = _put_row(source, target, session, [])
        search_index.follow_session(target, key)
        self._note(target, session, key)
        self._connect(source, target, session, key)

    def _shared(self, source: Transaction, target: Transaction, session: Original) -> list[Piece]:
        """What of a fork can be shared with sessions that the target has already."""
        if not session.values["inherits_through"]:
            return []
        found: list[Piece] = []
        for piece in lineage.inherited(source, session.key):
            for start, end, reader in self._who_reads(source, *piece):
                note = self._note_of(target, reader)
                if note is not None and _row_of(target, note[0]) is not None:
                    found += lineage.pieces(target, note[0], start, end)
        return found

    def _who_reads(self, source: Transaction, first: int, last: int, owner: int) -> Iterable[tuple[int, int, int]]:
        """Sessions of the source that show rows of an owner, and seqs of these: the owner, or forks of what is gone."""
        if state.has_session(source, owner):
            return ((first, last, owner),)
        free = first
        chosen = []
        for start, end, reader in sorted(self._readers.get(owner, ())):
            if end >= free and start <= last:
                chosen.append((max(start, free), min(end, last), reader))
                free = chosen[-1][1] + 1
        return chosen

    def _connect(self, source: Transaction, target: Transaction, session: Original, key: int) -> None:
        """Note where a session was forked from, and what was forked from it, as far as that is there."""
        parent = session.values["parent_key"]
        note = None if parent is None else self._note_of(target, parent)
        if note is not None:
            kinship.adopt(target, note[0], (key,))
        children = (self._note_of(target, child) for (child,) in source.driver.execute(_CHILDREN, (session.key,)).fetchall())
        kinship.adopt(target, key, [child[0] for child in children if child is not None])

    def _note_of(self, target: Transaction, source_key: int) -> tuple[int, bytes] | None:
        """The key of the copy of a session, and the hash of what was copied."""
        rows = target.driver.execute(_READ_NOTE, (self.tenant, str(source_key))).fetchall()
        if not rows:
            return None
        key, found = struct.unpack(f">q{_DIGEST_BYTES}s", rows[0][0])
        return key, found

    def _note(self, target: Transaction, session: Original, key: int) -> None:
        packed = struct.pack(f">q{_DIGEST_BYTES}s", key, session.digest)
        target.driver.execute(_NOTE, (self.tenant, str(session.key), packed, target.now_text))


def used_blobs(db: Transaction, after: str, most: int) -> list[str]:
    """The hashes of blobs that messages have, behind a hash, in their order."""
    found = "SELECT DISTINCT hash FROM blob_references WHERE hash > ? ORDER BY hash LIMIT ?"
    return [name for (name,) in db.driver.execute(found, (after, most)).fetchall()]


def has_intact_blob(db: Transaction, name: str) -> bool:
    """Whether there is a blob of a hash, and it is what the hash says.

    Raises:
        StoreCorruptError: It is something else.
    """
    rows = db.driver.execute(_READ_BLOB, (name,)).fetchall()
    return bool(rows) and blobs.content(db, rows[0]) is not None


def _put_row(source: Transaction, target: Transaction, session: Original, shared: Sequence[Piece]) -> int:
    """Store a session with all that belongs to it, and return its key."""
    values = session.values
    ((key,),) = target.driver.execute(_INSERT, [values[name] for name in _CARRIED]).fetchall()
    sessions.add_tags(target, key, sessions.tags_of(source, session.key))
    own = state.of(source, values["namespace"], _SESSION, str(session.key))
    state.put_rows(target, values["namespace"], _SESSION, str(key), own)
    lineage.share(target, key, shared)
    first_own = None
    for first, last in _gaps(shared):
        for row in _rows(source, session.key, first, last):
            _put_message(source, target, row, key)
            first_own = first_own or row[0] & MAX_SEQ
    for _, _, seq, at, *row in _superseded(source, session.key):
        _put_superseded(source, target, (message_rows.first_id(session.key) + seq, *row), key, seq, at)
    checkpoint_rows.put(target, key, checkpoint_rows.rows(source, session.key))
    through = max((piece.last for piece in shared), default=0)
    last = values["next_seq"] - 1
    indexed = 0 if not through else last if first_own is None else first_own - 1
    changes = {"inherits_through": through, "indexed_seq": indexed}
    target.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == key).values(changes))
    return int(key)


def _put_message(source: Transaction, target: Transaction, row: Sequence[Any], key: int) -> None:
    identity = message_rows.first_id(key) + (row[0] & MAX_SEQ)
    stored = _carried(source, target, row, identity)
    target.driver.execute(sql.INSERT_MESSAGE, stored)
    _put_blobs(source, target, stored, identity)


def _put_superseded(source: Transaction, target: Transaction, row: Sequence[Any], key: int, seq: int, at: str) -> None:
    stored = _carried(source, target, row, message_rows.first_id(key) + seq)
    identity = target.driver.execute(sql.INSERT_SUPERSEDED, (key, seq, at, *stored[1:])).lastrowid
    if identity is not None:
        _put_blobs(source, target, stored, -identity)


def _carried(source: Transaction, target: Transaction, row: Sequence[Any], identity: int) -> Sequence[Any]:
    """A row of the source as the target stores it under an id, packed if it was.

    Raises:
        StoreCorruptError: It is damaged.
    """
    plain = whole_messages.unpacked(source, "", row)
    kind, role, text, extra, facts, created_at = plain[1:7]
    crc = checksum(identity, kind, role, text, extra, facts, created_at, target.seed)
    signed = (identity, kind, role, text, extra, facts, created_at, crc, None)
    return signed if row[8] is None else message_rows.packed(signed, row[8], target.seed)


def _put_blobs(source: Transaction, target: Transaction, row: Sequence[Any], message_id: int) -> None:
    """Let the target have the blobs of a row that it has now.

    Raises:
        StoreCorruptError: One is missing or damaged.
    """
    for name in dict.fromkeys(entry.hash for entry in entries_of(row[5])):
        if not target.driver.execute(_HAS_BLOB, (name,)).fetchall():
            found = source.driver.execute(_READ_BLOB, (name,)).fetchall()
            if not found:
                raise blobs.missing(source, name)
            blobs.content(source, found[0])
            target.driver.execute(_INSERT_BLOB, found[0])
        target.driver.execute(sql.REFER_TO_BLOB, (name, message_id))


def _plain_rows(db: Transaction, key: int, session_id: str) -> Iterator[Sequence[Any]]:
    return (whole_messages.unpacked(db, session_id, row) for row in _rows(db, key, 1, MAX_SEQ))


def _rows(db: Transaction, key: int, first: int, last: int) -> Iterator[Sequence[Any]]:
    while rows := lineage.rows_forward(db, key, first, last, _A_PAGE):
        yield from rows
        first = (rows[-1][0] & MAX_SEQ) + 1


def _superseded(db: Transaction, key: int) -> Iterator[Sequence[Any]]:
    with closing(db.driver.execute(sql.SUPERSEDED, (key, 1, MAX_SEQ))) as found:
        yield from found


def _gaps(shared: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    free = 1
    for piece in shared:
        if free < piece.first:
            yield free, piece.first - 1
        free = piece.last + 1
    yield free, MAX_SEQ


def _row_of(db: Transaction, key: int) -> dict[str, Any] | None:
    row = db.core.execute(sa.select(*_STORED).where(SESSIONS.c.session_key == key)).first()
    return None if row is None else dict(zip(_NAMES, row, strict=True))


def _known_row(db: Transaction, key: int) -> dict[str, Any]:
    found = _row_of(db, key)
    assert found is not None  # noqa: S101 - for the type checker: it was just stored
    return found


def _same(db: Transaction, values: dict[str, Any]) -> dict[str, Any] | None:
    """The session of the target that may be a session of the source: of its name and made at the same instant."""
    made = sa.type_coerce(SESSIONS.c.created_at, sa.String) == values["created_at"]
    named = sa.and_(SESSIONS.c.namespace == values["namespace"], SESSIONS.c.session_id == values["session_id"])
    is_expired = SESSIONS.c.status == EXPIRED_STATUS
    alike = is_expired if values["status"] == EXPIRED_STATUS else sa.not_(is_expired)
    row = db.core.execute(sa.select(*_STORED).where(named, made, alike).limit(1)).first()
    return None if row is None else dict(zip(_NAMES, row, strict=True))


def _is_older(there: dict[str, Any], values: dict[str, Any]) -> bool:
    """Whether a session may be an earlier state of another one; what was restored from a backup may be behind its copy."""
    return bool(there["version"] <= values["version"] and there["next_seq"] <= values["next_seq"])


def _holder(db: Transaction, values: dict[str, Any]) -> int | None:
    """The key of the session that holds the name of one that is not expired."""
    if values["status"] == EXPIRED_STATUS:
        return None
    named = sa.and_(SESSIONS.c.namespace == values["namespace"], SESSIONS.c.session_id == values["session_id"], HOLDS_NAME)
    found: int | None = db.core.execute(sa.select(SESSIONS.c.session_key).where(named)).scalar_one_or_none()
    return found
