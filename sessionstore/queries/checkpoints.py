"""Checkpoints of graphs: stored and found by session, with the values of their channels, each kept once.

A value of a list may be what stands behind the items of another value, its base: a list that grows costs what it grows by.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import clock, sql
from ..arguments import NewSession
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import InvalidInputError, NotFoundError, QuotaError, StoreCorruptError
from ..inputs import encode_json
from ..rows import PreparedMessage
from ..values.checkpoints import Found, Kept, Listed, NewCheckpoint, NewWrite, Past, Piece, Said, Stored, Write
from . import lifecycle, messages, sessions

_STAMP_BITS: Final = 63
_USE: Final = (
    "UPDATE sessions SET updated_at = :now WHERE namespace = :namespace AND session_id = :session_id AND status != 'expired' "
    "AND (expires_at IS NULL OR expires_at > :now) RETURNING session_key, next_seq, forked_at, "
    "created_at, expires_at, ttl_seconds, max_age_seconds"
)
_NEXT_NUMBER: Final = "SELECT coalesce(max(number), 0) + 1 FROM checkpoint_values WHERE session_key = ?"
_OF_VERSION: Final = (
    "SELECT max(number) FROM checkpoint_values WHERE session_key = ? AND checkpoint_ns = ? AND channel = ? AND version = ?"
)
_HAS_VALUE: Final = "SELECT 1 FROM checkpoint_values WHERE session_key = ? AND number = ? AND stamp = ?"
_ADD_VALUE: Final = (
    "INSERT INTO checkpoint_values (session_key, number, stamp, checkpoint_ns, channel, version, base_number, items, type, value) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HAS_CHECKPOINT: Final = "SELECT 1 FROM checkpoints WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_PUT_CHECKPOINT: Final = (
    "INSERT OR REPLACE INTO checkpoints (session_key, checkpoint_ns, checkpoint_id, parent_id, run_id, type, checkpoint, "
    "metadata_type, metadata, channels, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_WRITE: Final = (
    "INSERT OR {} INTO checkpoint_writes (session_key, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, "
    "value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_WRITE, _REPLACE_WRITE = _PUT_WRITE.format("IGNORE"), _PUT_WRITE.format("REPLACE")
_COLUMNS: Final = ", ".join(Stored._fields)
_NAMED: Final = f"SELECT {_COLUMNS} FROM checkpoints WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?"  # noqa: S608
_NEWEST: Final = (
    f"SELECT {_COLUMNS} FROM checkpoints WHERE session_key = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1"  # noqa: S608
)
_LINK: Final = "SELECT parent_id, channels FROM checkpoints WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_PIECE: Final = "SELECT base_number, number, stamp, items, type, value FROM checkpoint_values WHERE session_key = ? AND number = ?"
_WRITES: Final = (
    "SELECT task_id, channel, type, value FROM checkpoint_writes WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ? "
    "ORDER BY task_path, task_id, idx"
)
_LIST: Final = (
    "SELECT c.rowid, c.session_key, s.session_id, c.checkpoint_ns, c.checkpoint_id{} FROM checkpoints c "
    "JOIN sessions s ON s.session_key = c.session_key WHERE s.namespace = :namespace AND s.status != 'expired' "
    "AND (s.expires_at IS NULL OR s.expires_at > :now){} ORDER BY c.checkpoint_id DESC, c.session_key, c.checkpoint_ns LIMIT :most"
)
# A row of these may have been given to another checkpoint since it was listed, as by a VACUUM: they are compared by name.
_IN_ROWS: Final = (
    "SELECT c.rowid, EXISTS (SELECT 1 FROM checkpoint_writes w WHERE w.session_key = c.session_key "  # noqa: S608
    "AND w.checkpoint_ns = c.checkpoint_ns AND w.checkpoint_id = c.checkpoint_id), c.session_key, "
    f"{', '.join(f'c.{column}' for column in Stored._fields)} FROM json_each(?) j CROSS JOIN checkpoints c ON c.rowid = j.value"
)
_PIECES_IN_ROWS: Final = (
    "SELECT v.session_key, v.base_number, v.number, v.stamp, v.items, v.type, v.value FROM (SELECT DISTINCT c.session_key, "
    "e.value AS number FROM json_each(?) j CROSS JOIN checkpoints c ON c.rowid = j.value CROSS JOIN json_each(c.channels) e) u "
    "CROSS JOIN checkpoint_values v ON v.session_key = u.session_key AND v.number = u.number"
)
_OF_RUNS: Final = (
    "SELECT c.session_key, c.checkpoint_ns, c.checkpoint_id FROM checkpoints c JOIN sessions s ON s.session_key = c.session_key "
    "WHERE s.namespace = ? AND c.run_id IN (SELECT value FROM json_each(?))"
)
_NAMES: Final = "SELECT checkpoint_ns, max(checkpoint_id) FROM checkpoints WHERE session_key = ? GROUP BY checkpoint_ns"
_METADATA: Final = (
    "SELECT metadata_type, metadata FROM checkpoints WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
)
# Writes may be there before their checkpoint: those behind the newest one stay.
_DELETE_BEFORE: Final = (
    "DELETE FROM {} WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id < ? "
    "AND checkpoint_id NOT IN (SELECT value FROM json_each(?))"
)
_DELETE_ONE: Final = "DELETE FROM {} WHERE session_key = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_HELD_BY_IDS: Final = ("checkpoints", "checkpoint_writes")
_COLLECT: Final = (
    "WITH RECURSIVE used(number) AS (SELECT e.value FROM checkpoints c, json_each(c.channels) e WHERE c.session_key = :key UNION "
    "SELECT v.base_number FROM checkpoint_values v JOIN used ON v.session_key = :key AND v.number = used.number "
    "WHERE v.base_number IS NOT NULL) "
    "DELETE FROM checkpoint_values WHERE session_key = :key AND number NOT IN (SELECT number FROM used)"
)


# Values that were read, by session and number: what each continues, and its own piece.
Known = dict[tuple[int, int], tuple[int | None, Piece]]


class Used(NamedTuple):
    """A session that is used: its key, whether it ever had messages, may share some of another session, was made just now."""

    key: int
    has_begun: bool
    is_fork: bool
    is_new: bool = False


def put(db: Transaction, session: NewSession, new: NewCheckpoint, said: Said | None = None) -> dict[str, Kept]:
    """Store a checkpoint in its session, which is made if there is none, and tell where its new values are.

    Its id may be one that is there: then it takes that one's place. What was said and is not there is appended.
    """
    used = use(db, session)
    key = used.key
    numbers, kept = _put_values(db, used, new)
    named = (key, new.checkpoint_ns, new.checkpoint_id)
    is_again = not used.is_new and bool(db.driver.execute(_HAS_CHECKPOINT, named).fetchall())
    row = (*named, new.parent_id, new.run_id, *new.checkpoint, *new.metadata, encode_json(numbers), db.now_text)
    db.driver.execute(_PUT_CHECKPOINT, row)
    if is_again:
        collect(db, key)
    if said is not None:
        _append_unsaid(db, session, used, said)
    return kept


def put_writes(
    db: Transaction,
    session: NewSession,
    checkpoint_ns: str,
    checkpoint_id: str,
    writes: Sequence[NewWrite],
    *,
    task_id: str,
    task_path: str,
) -> None:
    """Store what a task wrote after a checkpoint; the session is made if there is none."""
    key = use(db, session).key
    for write in writes:
        statement = _REPLACE_WRITE if write.idx < 0 else _ADD_WRITE
        row = (key, checkpoint_ns, checkpoint_id, task_id, write.idx, task_path, write.channel, write.type, write.value)
        db.driver.execute(statement, row)


def use(db: Transaction, session: NewSession) -> Used:
    """The live session of a name, made if there is none, whose idle time begins anew."""
    names = {"now": db.now_text, "namespace": session.namespace, "session_id": session.session_id}
    rows = db.driver.execute(_USE, names).fetchall()
    if not rows and (made := lifecycle.begin(db, session)) is not None:
        if made[sessions.EXPIRES_AT] is not None and made[sessions.EXPIRES_AT] <= db.now_text:
            # It was given a life of nothing.
            raise NotFoundError(session.session_id)
        return Used(made[sessions.KEY], has_begun=False, is_fork=False, is_new=True)
    if not rows:
        # An expired session has the name.
        lifecycle.get_or_create(db, session)
        rows = db.driver.execute(_USE, names).fetchall()
    if not rows:
        raise NotFoundError(session.session_id)
    key, next_seq, forked_at, created_at, expires_at, ttl, max_age = rows[0]
    if expires_at is not None and ttl is not None:
        lifecycle.slide(db, key, clock.from_text(created_at), clock.from_text(expires_at), ttl, max_age)
    return Used(key, next_seq > 1, forked_at is not None)


def find(db: Transaction, namespace: str, session_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Found | None:
    """A checkpoint of a live session, or its newest one of a checkpoint namespace; None if there is none."""
    key = live_key(db, namespace, session_id)
    return None if key is None else of_key(db, key, session_id, checkpoint_ns, checkpoint_id)


def of_key(db: Transaction, key: int, session_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Found | None:
    """As `find`, in the session of a key.

    Raises:
        StoreCorruptError: A value of it is missing.
    """
    if checkpoint_id is None:
        rows = db.driver.execute(_NEWEST, (key, checkpoint_ns)).fetchall()
    else:
        rows = db.driver.execute(_NAMED, (key, checkpoint_ns, checkpoint_id)).fetchall()
    if not rows:
        return None
    row = _stored(rows[0])
    written = _writes(db, key, checkpoint_ns, row.checkpoint_id)
    return Found(session_id, row, _values(db, key, row.channels, {}), written)


def listed(
    db: Transaction,
    namespace: str,
    *,
    session_id: str | None = None,
    checkpoint_ns: str | None = None,
    checkpoint_id: str | None = None,
    before: str | None = None,
    most: int | None = None,
    metadata: bool = True,
) -> list[Listed]:
    """Checkpoints of live sessions, those of the highest ids first; their metadata only if it is wanted."""
    given = {"s.session_id": session_id, "c.checkpoint_ns": checkpoint_ns, "c.checkpoint_id": checkpoint_id}
    conditions = "".join(f" AND {column} = :{column[2:]}" for column, value in given.items() if value is not None)
    values = {column[2:]: value for column, value in given.items() if value is not None}
    if before is not None:
        conditions += " AND c.checkpoint_id < :before"
        values["before"] = before
    values |= {"namespace": namespace, "now": db.now_text}
    columns = ", c.metadata_type, c.metadata" if metadata else ""
    rows = db.driver.execute(_LIST.format(columns, conditions), {**values, "most": -1 if most is None else most})
    return [Listed(*row) for row in rows.fetchall()]


def of_places(db: Transaction, places: Sequence[Listed]) -> list[Found]:
    """The listed checkpoints that are still there, in their order.

    Raises:
        StoreCorruptError: A value of them is missing.
    """
    wanted = (encode_json([place.row for place in places]),)
    rows = {row[0]: row for row in db.driver.execute(_IN_ROWS, wanted).fetchall()}
    pieces = db.driver.execute(_PIECES_IN_ROWS, wanted).fetchall()
    known: Known = {(row[0], row[2]): (row[1], Piece(*row[2:])) for row in pieces}
    found: list[Found] = []
    for place in places:
        row, key = rows.get(place.row), place.key
        if row is not None and row[2:5] == (key, place.checkpoint_ns, place.checkpoint_id):
            stored = _stored(row[3:])
            written = _writes(db, key, stored.checkpoint_ns, stored.checkpoint_id) if row[1] else []
            found.append(Found(place.session_id, stored, _values(db, key, stored.channels, known), written))
        elif (moved := of_key(db, key, place.session_id, place.checkpoint_ns, place.checkpoint_id)) is not None:
            found.append(moved)
    return found


def past(
    db: Transaction, namespace: str, session_id: str, checkpoint_ns: str, checkpoint_id: str | None, channels: Collection[str]
) -> dict[str, Past]:
    """What channels were given before a checkpoint, or before the newest one, along the line of its parents."""
    key = live_key(db, namespace, session_id)
    if key is not None and checkpoint_id is None:
        newest = db.driver.execute(_NEWEST, (key, checkpoint_ns)).fetchall()
        checkpoint_id = newest[0][1] if newest else None
    if key is None or checkpoint_id is None:
        return {channel: Past(None, []) for channel in channels}
    seeds: dict[str, int] = {}
    lines: dict[str, list[list[Write]]] = {channel: [] for channel in channels}
    for ancestor, numbers in _ancestors(db, key, checkpoint_ns, checkpoint_id):
        left = [channel for channel in channels if channel not in seeds]
        if not left:
            break
        written = _writes(db, key, checkpoint_ns, ancestor)
        for channel in left:
            lines[channel].append([write for write in written if write.channel == channel])
            if channel in numbers:
                seeds[channel] = numbers[channel]
    pieces = _values(db, key, seeds, {})
    return {
        channel: Past(pieces.get(channel), [each for some in reversed(lines[channel]) for each in some]) for channel in channels
    }


def delete_runs(db: Transaction, namespace: str, run_ids: Sequence[str]) -> None:
    """Delete the checkpoints that some runs made, in all sessions of a namespace, with what was written after them."""
    found = db.driver.execute(_OF_RUNS, (namespace, encode_json(list(run_ids)))).fetchall()
    for table in _HELD_BY_IDS:
        db.driver.executemany(_DELETE_ONE.format(table), found)
    for key in dict.fromkeys(row[0] for row in found):
        collect(db, key)


def prune(db: Transaction, namespace: str, session_id: str, replayed: Callable[[str, bytes], Collection[str]]) -> None:
    """Delete all checkpoints of a live session but the newest of each checkpoint namespace, and what these need.

    Args:
        db: The transaction.
        namespace: Where.
        session_id: Which session.
        replayed: Names, from a checkpoint's metadata, the channels whose values are found in its ancestors and their writes.
    """
    key = live_key(db, namespace, session_id)
    if key is None:
        return
    for checkpoint_ns, newest in db.driver.execute(_NAMES, (key,)).fetchall():
        ((*metadata,),) = db.driver.execute(_METADATA, (key, checkpoint_ns, newest)).fetchall()
        needed = encode_json(_needed(db, key, checkpoint_ns, newest, replayed(*metadata)))
        for table in _HELD_BY_IDS:
            db.driver.execute(_DELETE_BEFORE.format(table), (key, checkpoint_ns, newest, needed))
    collect(db, key)


def delete_all(db: Transaction, namespace: str, session_id: str) -> None:
    """Delete all checkpoints of a live session; the session stays."""
    key = live_key(db, namespace, session_id)
    for table in (*_HELD_BY_IDS, "checkpoint_values") if key is not None else ():
        db.driver.execute(f"DELETE FROM {table} WHERE session_key = ?", (key,))  # noqa: S608 - names of ours


def collect(db: Transaction, key: int) -> None:
    """Delete the values of a session that no checkpoint of it has any more."""
    db.driver.execute(_COLLECT, {"key": key})


def live_key(db: Transaction, namespace: str, session_id: str) -> int | None:
    """The key of a live session; None if there is none."""
    rows = db.driver.execute(sql.FIND_SESSION_KEY, (namespace, session_id, db.now_text)).fetchall()
    return rows[0][0] if rows else None


def _put_values(db: Transaction, used: Used, new: NewCheckpoint) -> tuple[dict[str, int], dict[str, Kept]]:
    """Store the values that are not there; the number of each, and where the new ones are."""
    key = used.key
    free = 1 if used.is_new else db.driver.execute(_NEXT_NUMBER, (key,)).fetchall()[0][0]
    numbers: dict[str, int] = {}
    kept: dict[str, Kept] = {}
    for value in new.values:
        if not value.is_new and value.version is not None:
            ((there,),) = db.driver.execute(_OF_VERSION, (key, new.checkpoint_ns, value.channel, value.version)).fetchall()
            if there is not None:
                numbers[value.channel] = there
                continue
        base = value.base
        if base is not None and not db.driver.execute(_HAS_VALUE, (key, *base)).fetchall():
            base = None
        is_whole = value.rest is None or base != value.base
        encoded = value.whole() if value.rest is None or is_whole else value.rest
        # Not of `random`: programs that seed it alike would give other values the same ones.
        stamp = secrets.randbits(_STAMP_BITS)
        names = (new.checkpoint_ns, value.channel, value.version, None if base is None else base.number)
        db.driver.execute(_ADD_VALUE, (key, free, stamp, *names, *encoded))
        numbers[value.channel] = free
        kept[value.channel] = Kept(free, stamp, is_whole)
        free += 1
    return numbers, kept


def _stored(row: Sequence[Any]) -> Stored:
    return Stored._make((*row[:-1], decoded(row[-1])))


def _values(db: Transaction, key: int, numbers: Mapping[str, int], known: Known) -> dict[str, list[Piece]]:
    return {channel: _chain(db, key, number, known) for channel, number in numbers.items()}


def _chain(db: Transaction, key: int, number: int | None, known: Known) -> list[Piece]:
    """A value's pieces, the one that continues no other first. Of those that are read, `known` takes note."""
    chain: list[Piece] = []
    while number is not None:
        base, piece = known.get((key, number)) or _read_piece(db, key, number, known)
        if base is not None and base >= number:
            # It would have no end.
            raise _missing(db)
        chain.append(piece)
        number = base
    chain.reverse()
    return chain


def _read_piece(db: Transaction, key: int, number: int, known: Known) -> tuple[int | None, Piece]:
    rows = db.driver.execute(_PIECE, (key, number)).fetchall()
    if not rows:
        raise _missing(db)
    base, *piece = rows[0]
    known[key, number] = found = (base, Piece(*piece))
    return found


def _missing(db: Transaction) -> StoreCorruptError:
    return StoreCorruptError(db.path, "values of a checkpoint are missing; the file is kept as it is")


def _writes(db: Transaction, key: int, checkpoint_ns: str, checkpoint_id: str) -> list[Write]:
    return [Write(*row) for row in db.driver.execute(_WRITES, (key, checkpoint_ns, checkpoint_id)).fetchall()]


def _ancestors(db: Transaction, key: int, checkpoint_ns: str, checkpoint_id: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The checkpoints that one came from, the nearest first, and the numbers of their values."""
    rows = db.driver.execute(_LINK, (key, checkpoint_ns, checkpoint_id)).fetchall()
    met = {checkpoint_id}
    while rows and (parent := rows[0][0]) is not None and parent not in met:
        met.add(parent)
        rows = db.driver.execute(_LINK, (key, checkpoint_ns, parent)).fetchall()
        if rows:
            yield parent, decoded(rows[0][1])


def _needed(db: Transaction, key: int, checkpoint_ns: str, newest: str, channels: Collection[str]) -> list[str]:
    """The ancestors of a checkpoint up to the one that has the last of some values that it has not itself."""
    ((_, own),) = db.driver.execute(_LINK, (key, checkpoint_ns, newest)).fetchall()
    left = set(channels) - set(decoded(own))
    needed: list[str] = []
    for ancestor, numbers in _ancestors(db, key, checkpoint_ns, newest) if left else ():
        needed.append(ancestor)
        left -= set(numbers)
        if not left:
            break
    return needed


def _append_unsaid(db: Transaction, session: NewSession, used: Used, said: Said) -> None:
    """Append the messages that a session does not have; what cannot be stored is left out.

    Those that were looked at before are not looked at again, so that none comes back that was deleted since; only a session that
    never had a message gets them all.
    """
    names: dict[str, int] = {}
    for index in range(said.known if used.has_begun else 0, said.count):
        name = said.name(index)
        if name is not None:
            # Of two with one id the later one is what the graph holds it for.
            names[name] = index
    there = messages.known_keys(db, used.key, names, is_fork=used.is_fork) if used.has_begun else ()
    new: dict[int, PreparedMessage] = {}
    for index in sorted(index for name, index in names.items() if name not in there):
        try:
            new[index] = said.prepare(index)
        except InvalidInputError as error:
            said.leave_out(index, error)
    if new:
        try:
            messages.append_unused(db, session.namespace, session.session_id, [*new.values()])
        except QuotaError as error:
            for index in new:
                said.leave_out(index, error)
