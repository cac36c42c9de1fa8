"""Whether the search index holds what it should: of each message that is said to be indexed the words, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .. import sql
from ..database.transaction import Transaction
from ..search_terms import is_unspaced
from ..values import MAX_SEQ
from ..values.health import Check
from . import search_index
from .message_words import words_of

_NAME: Final = "search index"
_PAGE: Final = 500
_SEQ: Final = (MAX_SEQ,)
_LOST: Final = """
SELECT count(*) FROM messages m LEFT JOIN sessions s ON s.session_key = m.id >> 24
WHERE (s.session_key IS NULL OR (m.id & ?) <= s.indexed_seq) AND m.id NOT IN (SELECT id FROM message_words_docsize)
"""
_LEFT: Final = "SELECT count(*) FROM message_words_docsize d WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = d.id)"
_UNSPACED: Final = "SELECT id FROM message_trigrams_docsize"
_INDEXED: Final = "SELECT id FROM message_words_docsize WHERE id > ? ORDER BY id LIMIT ?"


def index(db: Transaction, problem: str | None) -> Check:
    """Compare the index with the messages; `problem` is what SQLite found in the index itself."""
    if search_index.mode(db) == search_index.OFF:
        return Check(_NAME, True, "search is off")
    if not search_index.is_there(db):
        return Check(_NAME, True, "there is none: this SQLite, or that which made the file, has no full-text search")
    lost = db.driver.execute(_LOST, _SEQ).fetchall()[0][0]
    left = db.driver.execute(_LEFT).fetchall()[0][0]
    wrong = sum(1 for _ in _wrong_trigrams(db))
    if problem is None and not lost and not left and not wrong:
        waiting = search_index.missing(db)
        return Check(_NAME, True, f"{waiting} messages wait to be indexed" if waiting else "every message is indexed")
    found = f"{lost} messages are missing, {left} are no messages, {wrong} are in the wrong part"
    return Check(_NAME, False, "; ".join(filter(None, (problem, found, "rebuild_search() makes it anew"))))


def _wrong_trigrams(db: Transaction) -> Iterator[int]:
    """The indexed messages that are in the index of trigrams, and should not be, or the other way round."""
    there = {identity for (identity,) in db.driver.execute(_UNSPACED)}
    after = -1
    while ids := [identity for (identity,) in db.driver.execute(_INDEXED, (after, _PAGE)).fetchall()]:
        wanted = set(ids)
        for row in db.driver.execute(sql.MESSAGES_FORWARD, (after, ids[-1] + 1, -1)):
            words = words_of(db, row) if row[0] in wanted else None
            if words is not None and is_unspaced(words) is not (row[0] in there):
                yield row[0]
        there.difference_update(wanted)
        after = ids[-1]
    yield from there
