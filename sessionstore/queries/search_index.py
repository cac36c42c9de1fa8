"""The search index, kept in step with the message rows. The hot path: compiled SQL and SQL of SQLite's own only.

`message_words` holds the words of messages, `message_trigrams` all sequences of three characters of those with scripts that put
no spaces between words. Neither holds a text, so what went in goes out by the same words. The index itself knows what is in it:
its tables that end in `_docsize` have a row for each message. `sessions.indexed_seq` says only where to go on: no own message up
to it is missing. Rows that no session owns any more are indexed when their owner goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from .. import sql
from ..database.transaction import Transaction
from ..errors import SearchUnavailableError
from ..search_terms import is_unspaced, without_unspaced
from ..values import MAX_SEQ, SEARCH_TABLES, SEQ_BITS
from .message_words import size_of, words_of

Row = Sequence[Any]

# A batch holds the writer for some ten milliseconds.
BATCH: Final = 250
OFF: Final = "off"
ON: Final = "on"

_ALL: Final = -1
_PAGE: Final = 500
_SESSIONS_A_BATCH: Final = 50
# Few long texts are as much work as many short ones.
_MOST_CHARS: Final = 1 << 20

_COUNT_TABLES: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)"
_COUNT_MODULES: Final = "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
# Of the migration that made them; a file that was made without FTS5 has none until they are asked for.
_CREATE: Final = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_words USING fts5(words, content='', tokenize='unicode61 remove_diacritics 2')",
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_trigrams USING fts5(words, content='', tokenize='trigram')",
)
_ADD_WORDS: Final = "INSERT INTO message_words (rowid, words) VALUES (?, ?)"
_ADD_TRIGRAMS: Final = "INSERT INTO message_trigrams (rowid, words) VALUES (?, ?)"
_TAKE_WORDS: Final = "INSERT INTO message_words (message_words, rowid, words) VALUES ('delete', ?, ?)"
_TAKE_TRIGRAMS: Final = "INSERT INTO message_trigrams (message_trigrams, rowid, words) VALUES ('delete', ?, ?)"
_CLEAR: Final = (
    "INSERT INTO message_words (message_words) VALUES ('delete-all')",
    "INSERT INTO message_trigrams (message_trigrams) VALUES ('delete-all')",
)
_MERGE: Final = (
    "INSERT INTO message_words (message_words) VALUES ('optimize')",
    "INSERT INTO message_trigrams (message_trigrams) VALUES ('optimize')",
)
_MERGE_PAGES: Final = (
    "INSERT INTO message_words (message_words, rank) VALUES ('merge', ?)",
    "INSERT INTO message_trigrams (message_trigrams, rank) VALUES ('merge', ?)",
)
_CHECK: Final = (
    "INSERT INTO message_words (message_words) VALUES ('integrity-check')",
    "INSERT INTO message_trigrams (message_trigrams) VALUES ('integrity-check')",
)
_IDS_WITH_WORDS: Final = "SELECT id FROM message_words_docsize WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_IDS_WITH_TRIGRAMS: Final = "SELECT id FROM message_trigrams_docsize WHERE id > ? AND id < ? ORDER BY id LIMIT ?"
_NEWEST_WITH_WORDS: Final = "SELECT id FROM message_words_docsize WHERE id > ? AND id <= ? ORDER BY id DESC LIMIT ?"
_STRAYS: Final = (
    "SELECT 1 FROM message_words_docsize AS d WHERE d.id > ? AND d.id < ? "
    "AND NOT EXISTS (SELECT 1 FROM messages WHERE messages.id = d.id) LIMIT 1"
)
_READ_MODE: Final = "SELECT search FROM store_info"
_SET_MODE: Final = "UPDATE store_info SET search = ?"
_FORGET: Final = "UPDATE sessions SET indexed_seq = ? WHERE session_key = ? AND indexed_seq > ?"
_FORGET_ALL: Final = "UPDATE sessions SET indexed_seq = 0 WHERE indexed_seq > 0"
_NOTE: Final = "UPDATE sessions SET indexed_seq = ? WHERE session_key = ?"
_IN_STEP: Final = "SELECT indexed_seq, next_seq FROM sessions WHERE session_key = ?"
_BEHIND: Final = (
    "SELECT session_key, indexed_seq, next_seq FROM sessions WHERE next_seq > indexed_seq + 1 ORDER BY session_key DESC LIMIT ?"
)
_COUNT_BEHIND: Final = "SELECT coalesce(sum(next_seq - 1 - indexed_seq), 0) FROM sessions WHERE next_seq > indexed_seq + 1"
_ORPHANS: Final = (
    "SELECT owner_key, min(first_seq), max(last_seq) FROM inherited_ranges "
    "WHERE owner_key NOT IN (SELECT session_key FROM sessions) GROUP BY owner_key"
)


def is_there(db: Transaction) -> bool:
    """Whether the file has an index that this SQLite can use."""
    if not db.has_index:
        tables = db.driver.execute(_COUNT_TABLES, SEARCH_TABLES).fetchall()[0][0]
        db.has_index = tables == len(SEARCH_TABLES) and has_fts5(db)
    return db.has_index


def has_fts5(db: Transaction) -> bool:
    """Whether this SQLite was built with full-text search."""
    return bool(db.driver.execute(_COUNT_MODULES).fetchall()[0][0])


def require_fts5(db: Transaction) -> None:
    """Raise unless this SQLite was built with full-text search.

    Raises:
        SearchUnavailableError: It was not.
    """
    if not has_fts5(db):
        raise SearchUnavailableError("this SQLite was built without FTS5, which searching needs; all else works")


def mode(db: Transaction) -> str:
    """When messages are indexed: "on", "deferred" or "off"."""
    return str(db.driver.execute(_READ_MODE).fetchall()[0][0])


def follow(db: Transaction, key: int, indexed_seq: int, rows: Sequence[Row]) -> None:
    """Index messages that were just appended to a session, if all before them are indexed."""
    last = rows[-1][0] & MAX_SEQ
    if indexed_seq + len(rows) == last and is_there(db):
        _add(db, rows)
        db.driver.execute(_NOTE, (last, key))


def follow_session(db: Transaction, key: int) -> None:
    """Index what is missing of a session that was just filled, if that is to be done at once."""
    if mode(db) == ON and is_there(db):
        ((indexed_seq, next_seq),) = db.driver.execute(_IN_STEP, (key,)).fetchall()
        complete(db, key, indexed_seq + 1, next_seq - 1)
        db.driver.execute(_NOTE, (next_seq - 1, key))


def complete(db: Transaction, key: int, first: int, last: int) -> None:
    """Index what is missing of a key's rows from one seq to another, both included, unless there is no index."""
    if not is_there(db) or mode(db) == OFF:
        return
    after, behind = (key << SEQ_BITS) + first - 1, (key << SEQ_BITS) + last + 1
    while rows := db.driver.execute(sql.MESSAGES_FORWARD, (after, behind, _PAGE)).fetchall():
        _add_missing(db, rows)
        after = rows[-1][0]


def forget_from(db: Transaction, key: int, seq: int) -> None:
    """Note that rows of a session from a seq on are new: they are indexed when it is the time."""
    db.driver.execute(_FORGET, (seq - 1, key, seq - 1))


def remove(db: Transaction, after: int, before: int) -> None:
    """Take the rows between two ids out of the index; they are about to be deleted or replaced."""
    if not is_there(db):
        return
    while ids := _ids(db, _IDS_WITH_WORDS, after, before, _PAGE):
        first, last = ids[0] - 1, ids[-1] + 1
        rows = db.driver.execute(sql.MESSAGES_FORWARD, (first, last, _ALL)).fetchall()
        known, trigrams = set(ids), set(_ids(db, _IDS_WITH_TRIGRAMS, first, last, _ALL))
        for portion in portions([row for row in rows if row[0] in known]):
            # What is damaged stays in the index, where no search finds it any more: by other words it would not go out whole.
            words = [(row[0], found) for row in portion if (found := words_of(db, row)) is not None]
            db.driver.executemany(_TAKE_WORDS, [(identity, without_unspaced(text)) for identity, text in words])
            db.driver.executemany(_TAKE_TRIGRAMS, [(identity, text) for identity, text in words if identity in trigrams])
        after = ids[-1]


def surplus(db: Transaction, keys: Iterable[int], most: int) -> tuple[int, int] | None:
    """The first and last id of some indexed messages of sessions, at most so many; None if no more than so many are indexed."""
    if not is_there(db):
        return None
    held = 0
    for key in keys:
        low = key << SEQ_BITS
        ids = [identity for (identity,) in db.driver.execute(_NEWEST_WITH_WORDS, (low, low + MAX_SEQ, most + 1)).fetchall()]
        held += len(ids)
        if held > most:
            return ids[:most][-1], ids[0]
    return None


def remove_surplus(db: Transaction, first: int, last: int) -> None:
    """Take messages of a session that is about to be deleted out of the index; if it stays after all, they are indexed again."""
    remove(db, first - 1, last + 1)
    forget_from(db, first >> SEQ_BITS, first & MAX_SEQ)


def index_some(db: Transaction, most: int = BATCH) -> int:
    """Index messages that are missing, at most so many, of the newest sessions first; how many sessions and messages it met."""
    if not is_there(db) or mode(db) == OFF:
        return 0
    met: list[Row] = []
    notes: list[tuple[int, int]] = []
    chars = left = 0
    for key, indexed_seq, next_seq in db.driver.execute(_BEHIND, (_SESSIONS_A_BATCH,)).fetchall():
        left = most - len(met)
        if left <= 0 or chars > _MOST_CHARS:
            break
        low = key << SEQ_BITS
        done = next_seq - 1
        rows = db.driver.execute(sql.MESSAGES_FORWARD, (low + indexed_seq, low + next_seq, left))
        for row in rows:
            met.append(row)
            chars += size_of(row)
            if chars > _MOST_CHARS:
                done = row[0] & MAX_SEQ
                break
        else:
            if met and len(met) == most:
                done = met[-1][0] & MAX_SEQ
        rows.close()
        notes.append((done, key))
    # In the order of their ids FTS5 writes them together.
    _add_missing(db, sorted(met, key=lambda row: int(row[0])))
    db.driver.executemany(_NOTE, notes)
    return len(met) + len(notes)


def missing(db: Transaction) -> int:
    """How many messages are not indexed yet, at most."""
    return int(db.driver.execute(_COUNT_BEHIND).fetchall()[0][0])


def waiting(db: Transaction) -> int:
    """The same, unless search is off."""
    return 0 if mode(db) == OFF else missing(db)


def is_behind(db: Transaction) -> bool:
    """Whether there may be messages to index; it costs one look into an index."""
    return bool(db.driver.execute(_BEHIND, (1,)).fetchall()) and mode(db) != OFF and is_there(db)


def missing_rows(db: Transaction, most: int) -> list[Row]:
    """The rows that are not indexed yet, at most so many, of the newest sessions first."""
    rows: list[Row] = []
    behind = db.driver.execute(_BEHIND, (_ALL,))
    for key, indexed_seq, next_seq in behind:
        if len(rows) >= most:
            break
        low = key << SEQ_BITS
        found = db.driver.execute(sql.MESSAGES_FORWARD, (low + indexed_seq, low + next_seq, most - len(rows))).fetchall()
        if found:
            known = set(_ids(db, _IDS_WITH_WORDS, found[0][0] - 1, found[-1][0] + 1, _ALL))
            rows += [row for row in found if row[0] not in known]
    behind.close()
    return rows


def switch(db: Transaction, wanted: str) -> None:
    """Say when messages are indexed; "off" empties the index, and what follows it begins anew."""
    before = mode(db)
    db.driver.execute(_SET_MODE, (wanted,))
    if wanted == OFF:
        if is_there(db):
            _clear(db)
    elif before == OFF or not is_there(db):
        begin_anew(db)


def begin_anew(db: Transaction) -> None:
    """Empty the index and let all be indexed again: now what has no session any more, the rest in batches."""
    require_fts5(db)
    for statement in _CREATE:
        db.driver.execute(statement)
    _clear(db)
    for owner, first, last in db.driver.execute(_ORPHANS).fetchall():
        complete(db, owner, first, last)
    # Should this transaction fail, tables that it made are not there.
    db.has_index = False


def rebuild(db: Transaction) -> None:
    """As `begin_anew`, unless search is off.

    Raises:
        SearchUnavailableError: It is, or this SQLite has no full-text search.
    """
    if mode(db) == OFF:
        raise SearchUnavailableError('search is off; set_search("deferred") switches it on and indexes what is there')
    begin_anew(db)


def optimize(db: Transaction) -> None:
    """Merge the index into one piece, so that it holds nothing of what was taken out."""
    if is_there(db):
        for statement in _MERGE:
            db.driver.execute(statement).fetchall()


def merge_some(db: Transaction, *, begin: bool, pages: int) -> bool:
    """About so many pages of what `optimize` does; whether more is to be done. It ends though others go on writing."""
    if not is_there(db):
        return False
    changes = []
    for statement in _MERGE_PAGES:
        before = db.driver.total_changes
        # A negative number takes up all pieces of the index; then the work goes on.
        db.driver.execute(statement, (-pages if begin else pages,)).fetchall()
        changes.append(db.driver.total_changes - before)
    # One change is that of the statement itself.
    return any(count > 1 for count in changes)


def is_out_of_reach(db: Transaction) -> bool:
    """Whether the file has an index and this SQLite cannot use it."""
    return not is_there(db) and bool(db.driver.execute(_COUNT_TABLES, SEARCH_TABLES).fetchall()[0][0])


def has_strays(db: Transaction, after: int, before: int) -> bool:
    """Whether the index has words of rows between two ids that are not there."""
    return is_there(db) and bool(db.driver.execute(_STRAYS, (after, before)).fetchall())


def check(db: Transaction) -> None:
    """Let SQLite look at the index; it raises for damage. To SQLite this is a write, though it changes nothing."""
    if is_there(db):
        for statement in _CHECK:
            db.driver.execute(statement).fetchall()


def _clear(db: Transaction) -> None:
    for statement in _CLEAR:
        db.driver.execute(statement)
    db.driver.execute(_FORGET_ALL)


def _add_missing(db: Transaction, rows: Sequence[Row]) -> None:
    if rows:
        known = _known(db, rows)
        _add(db, [row for row in rows if row[0] not in known])


def _known(db: Transaction, rows: Sequence[Row]) -> set[int]:
    """Those of some rows, which stand in the order of their ids, that are indexed already."""
    known: set[int] = set()
    start = rows[0][0]
    for row, following in zip(rows, (*rows[1:], None), strict=True):
        # The rows of one session stand together; between two there may be very many others.
        if following is None or following[0] >> SEQ_BITS != row[0] >> SEQ_BITS:
            known.update(_ids(db, _IDS_WITH_WORDS, start - 1, row[0] + 1, _ALL))
            start = None if following is None else following[0]
    return known


def portions(rows: Sequence[Row], most: int = _MOST_CHARS) -> Iterator[Sequence[Row]]:
    """Rows in parts whose words are held at once: of so many characters, or of one message."""
    start = size = 0
    for place, row in enumerate(rows):
        own = size_of(row)
        if place > start and size + own > most:
            yield rows[start:place]
            start, size = place, 0
        size += own
    if start < len(rows):
        yield rows[start:]


def _add(db: Transaction, rows: Sequence[Row]) -> None:
    for portion in portions(rows):
        words = [(row[0], words_of(db, row) or "") for row in portion]
        db.driver.executemany(_ADD_WORDS, [(identity, without_unspaced(text)) for identity, text in words])
        db.driver.executemany(_ADD_TRIGRAMS, [(identity, text) for identity, text in words if is_unspaced(text)])


def _ids(db: Transaction, statement: str, after: int, before: int, most: int) -> list[int]:
    return [identity for (identity,) in db.driver.execute(statement, (after, before, most)).fetchall()]
