"""Searching messages: the index finds them, the filters of `catalog` say whose may be shown, and each hit gets its snippet."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple
from itertools import islice
from typing import Any, Final, NamedTuple

from .. import clock, sql
from ..arguments import SearchFilter
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import InvalidInputError, SearchUnavailableError
from ..inputs import encode_json
from ..search_terms import Terms, unspaced_of
from ..values import MAX_SEQ, SEQ_BITS, Message, SessionInfo
from ..values.search import SearchHit, SearchPage
from . import catalog, lineage, messages, search_index, search_scratch, search_statements, sessions
from .cursors import opened, sealed
from .message_words import size_in_blobs, words_of

ORDERS: Final = ("rank", "newest")

_CURSOR_VERSION: Final = 1
# So many hits are sorted in some ten milliseconds; of more, the newest are looked for session by session.
_FEW: Final = 2_000
# What more messages hold tells nothing about how well one fits, and to rank all of them would take seconds.
_MOST_RANKED: Final = 20_000
# Of so few sessions all hits are found in one pass, however many others hold the words.
_FEW_SESSIONS: Final = 200
# What a store that cannot index looks through instead.
_MOST_SCANNED: Final = 5_000
_MOST_SCANNED_CHARS: Final = 16 << 20
# What is read from blobs for the snippets of a page: it takes some ten milliseconds.
_MOST_FROM_BLOBS: Final = 2 << 20
# What FTS5 says of a query: the beginnings, behind which words of it may stand, and the same in words without any.
_RAW_REASONS: Final = {
    "fts5: syntax error": "syntax error",
    "unterminated string": "a double quote is missing",
    "no such column": "only the name words may stand before a colon or behind a minus sign",
    "expected integer": "NEAR wants a whole number behind its comma",
}
_RAW_HINT: Final = "what stands in double quotes is plain words"
_CHECK_RAW: Final = "SELECT rowid FROM message_words WHERE message_words MATCH ? LIMIT 1"
_COUNT_WORDS: Final = "SELECT count(*) FROM (SELECT rowid FROM message_words WHERE message_words MATCH ? LIMIT ?)"
_COUNT_TRIGRAMS: Final = "SELECT count(*) FROM (SELECT rowid FROM message_trigrams WHERE message_trigrams MATCH ? LIMIT ?)"


class Matches(NamedTuple):
    """What a search is for: the terms as they are, what they were made of, and in which order the hits come."""

    terms: Terms
    told: tuple[str, ...]
    order: str


class _Hit(NamedTuple):
    """A message that fits: its id, its rank, and the session that it is shown as a message of."""

    identity: int
    rank: float
    key: int


class _Reader(NamedTuple):
    """A session that shows the rows of a key from one seq to another, both included."""

    key: int
    first: int
    last: int


def page(
    db: Transaction, wanted: Matches, where: SearchFilter, *, limit: int, cursor: str | None, scan: bool = False
) -> SearchPage:
    """Hits of a search.

    Args:
        db: The transaction.
        wanted: What is searched for.
        where: Which messages.
        limit: At most so many.
        cursor: Where to go on.
        scan: Also look through messages that are not indexed, up to a limit.

    Raises:
        SearchUnavailableError: Search is off, or there is no index.
        NotFoundError: There is no session of the id that is asked for.
        InvalidInputError: The cursor is damaged or belongs to another search, or FTS5 refuses the query.
    """
    _require_index(db)
    if wanted.terms.is_raw:
        _check_raw(db, wanted.terms)
    seal = (wanted.told, wanted.order, astuple(where))
    skipped = 0 if cursor is None else opened("next_cursor", cursor, seal)[1]
    if wanted.terms.is_empty:
        return SearchPage((), None)
    left = search_index.missing(db)
    scanned: dict[int, float] = {}
    if scan and left:
        rows = search_index.missing_rows(db, _MOST_SCANNED)
        looked_at = next(search_index.portions(rows, _MOST_SCANNED_CHARS), ())
        scanned = search_scratch.matching(wanted.terms, {row[0]: words_of(db, row) or "" for row in looked_at})
        left = 0 if len(looked_at) == len(rows) < _MOST_SCANNED else left - len(looked_at)
    search = _Search(db, wanted, where)
    found = search.hits(skipped + limit + 1, scanned)[skipped:]
    shown = found[:limit]
    following = sealed([_CURSOR_VERSION, skipped + limit], seal) if len(found) > limit else None
    return SearchPage(tuple(_described(db, wanted.terms, shown, is_ranked=search.is_ranked)), following, left)


def _require_index(db: Transaction) -> None:
    if search_index.mode(db) == search_index.OFF:
        raise SearchUnavailableError('search is off; set_search("deferred") switches it on and indexes what is there')
    if not search_index.is_there(db):
        search_index.require_fts5(db)
        raise SearchUnavailableError("this file was made without a search index; rebuild_search() makes it")


def _check_raw(db: Transaction, terms: Terms) -> None:
    """Refuse what FTS5 refuses, without its words: they may hold parts of the schema."""
    try:
        db.driver.execute(_CHECK_RAW, (terms.words,)).fetchall()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
            raise
        raise InvalidInputError("fts_query", f"is no query that FTS5 understands: {_raw_reason(str(error))}") from None


def _raw_reason(said: str) -> str:
    reasons = [reason for begin, reason in _RAW_REASONS.items() if said.startswith(begin)]
    return "; ".join([*reasons, _RAW_HINT])


class _Search:
    """One search in one snapshot."""

    def __init__(self, db: Transaction, wanted: Matches, where: SearchFilter) -> None:
        self._db = db
        self._terms = wanted.terms
        self._where = where
        self._key: int | None = None
        self._sessions = catalog.shape_of(db, where.sessions)
        self._chosen: dict[int, bool] = {}
        self._readers: dict[int, Sequence[_Reader]] = {}
        if where.session_id is not None:
            self._key = sessions.key_of(db, where.sessions.namespace or "", where.session_id)
        self.is_ranked = wanted.order == "rank" and self._can_rank()

    def hits(self, most: int, scanned: Mapping[int, float]) -> Sequence[_Hit]:
        """The first hits in order; messages that are not in the index may be given with their ranks."""
        extra = [hit._replace(rank=scanned[hit.identity]) for hit in self._shown(scanned)] if scanned else []
        if self.is_ranked:
            found = [*islice(self._matches(), most), *extra]
            return sorted(found, key=lambda hit: hit.rank)[:most] if extra else found
        return self._newest_first([*self._among_newest(most), *extra])[:most]

    def _among_newest(self, most: int) -> list[_Hit]:
        """So many matches, of which the newest are all that there are of such."""
        if self._key is not None:
            return list(self._matches())
        few = list(islice(self._matches(self._few_owners()), _FEW + 1))
        return few if len(few) <= _FEW else list(islice(self._by_sessions(), most))

    def _can_rank(self) -> bool:
        """Whether there is a rank; pieces for which there is no index have none, nor what very many messages hold."""
        query = self._terms.words or self._terms.trigrams
        if query is None:
            return False
        count = _COUNT_WORDS if self._terms.words else _COUNT_TRIGRAMS
        ((found,),) = self._db.driver.execute(count, (query, _MOST_RANKED + 1)).fetchall()
        return bool(found <= _MOST_RANKED)

    def _matches(self, owners: Sequence[int] | None = None) -> Iterator[_Hit]:
        """All messages that hold the terms and may be shown; `owners` may tell whose rows are the only ones that may."""
        pieces = None if self._key is None else lineage.pieces(self._db, self._key)
        shape = self._shape(pieces)._replace(of_owners=owners is not None)
        return self._run(shape, {"pieces": pieces, "owners": encode_json(owners)})

    def _few_owners(self) -> list[int] | None:
        """Whose rows the sessions read that the filters choose; None if these are many."""
        with closing(self._keys()) as found:
            keys = list(islice(found, _FEW_SESSIONS + 1))
        if len(keys) > _FEW_SESSIONS:
            return None
        return sorted({piece.owner for key in keys for piece in lineage.pieces(self._db, key)})

    def _keys(self) -> Generator[int]:
        """The sessions that the filters choose; the one that was changed last comes first."""
        shape, values = self._sessions
        text, names = search_statements.sessions_chosen(shape)
        with closing(self._db.driver.execute(text, [values[name] for name in names])) as cursor:
            yield from (key for (key,) in cursor)

    def _by_sessions(self) -> Iterator[_Hit]:
        """The same, session by session, of which the one that was changed last comes first."""
        with closing(self._keys()) as keys:
            for key in keys:
                pieces = [piece for piece in lineage.pieces(self._db, key) if self._is_shown_here(piece, key)]
                found = self._run(self._shape(pieces), {"pieces": pieces})
                yield from sorted((hit for hit in found if hit.key == key), key=_seq_of, reverse=True)

    def _is_shown_here(self, piece: lineage.Piece, key: int) -> bool:
        """Whether hits in a piece may be shown as those of this session; not if an older one has all of it."""
        older = (reader for reader in self._readers_of(piece.owner) if reader.key < key)
        return not any(reader.first <= piece.first and piece.last <= reader.last for reader in older)

    def _shown_by(self, identity: int) -> int | None:
        """The session as whose message one is shown: the oldest of those that the filters choose."""
        seq = identity & MAX_SEQ
        for key, first, last in self._readers_of(identity >> SEQ_BITS):
            if first <= seq <= last:
                return key
        return None

    def _readers_of(self, owner: int) -> Sequence[_Reader]:
        """Who shows which rows of a key, oldest first. A session is older than what was forked from it."""
        if owner not in self._readers:
            if self._may_show(owner):
                found = [_Reader(owner, 1, MAX_SEQ)]
            else:
                ranges = self._db.driver.execute(sql.SHARED_RANGES, (owner, 1, MAX_SEQ)).fetchall()
                found = sorted(_Reader(*row) for row in ranges if self._may_show(row[0]))
            self._readers[owner] = found
        return self._readers[owner]

    def _may_show(self, key: int) -> bool:
        """Whether the filters choose a session."""
        if key not in self._chosen:
            shape, values = self._sessions
            text, names = search_statements.is_chosen(shape)
            given = {**values, "key": key}
            found = self._key in (None, key) and self._db.driver.execute(text, [given[name] for name in names]).fetchall()
            self._chosen[key] = bool(found)
        return self._chosen[key]

    def _shown(self, identities: Iterable[int]) -> Iterator[_Hit]:
        """Those of some messages that the filters leave."""
        shape = self._shape(None)._replace(source="given", has_trigrams=False, short_parts=0, is_ranked=False)
        return self._run(shape, {"ids": encode_json(list(identities))})

    def _newest_first(self, found: Sequence[_Hit]) -> list[_Hit]:
        keys = encode_json(sorted({hit.key for hit in found}))
        updated_at = dict(self._db.driver.execute(search_statements.updates(), (keys,)).fetchall())
        return sorted(found, key=lambda hit: (updated_at[hit.key], hit.key, _seq_of(hit)), reverse=True)

    def _shape(self, pieces: Sequence[lineage.Piece] | None) -> search_statements.Shape:
        terms, where = self._terms, self._where
        return search_statements.Shape(
            "words" if terms.words is not None else "trigrams" if terms.parts else "unspaced",
            has_trigrams=bool(terms.parts),
            short_parts=len(terms.short_parts),
            filters=tuple(name for name in ("role", "since", "until") if getattr(where, name) is not None),
            in_pieces=pieces is not None,
            is_ranked=self.is_ranked,
        )

    def _run(self, shape: search_statements.Shape, given: Mapping[str, Any]) -> Iterator[_Hit]:
        text, names = search_statements.hits(shape)
        values = {**self._values(), **given}
        if given.get("pieces") is not None:
            values["pieces"] = encode_json([_ids_of(piece) for piece in given["pieces"]])
        with closing(self._db.driver.execute(text, [values[name] for name in names])) as cursor:
            for identity, rank in cursor:
                key = self._shown_by(identity)
                if key is not None and (not shape.short_parts or self._holds_short_parts(identity)):
                    yield _Hit(identity, rank, key)

    def _values(self) -> dict[str, Any]:
        terms, where = self._terms, self._where
        instants = {"after": where.since, "before": where.until}
        return {
            "words": terms.words,
            "trigrams": terms.trigrams,
            "role": where.role,
            **{name: None if instant is None else clock.to_text(instant) for name, instant in instants.items()},
            **{f"part_{number}": unspaced_of(part) for number, part in enumerate(terms.short_parts)},
        }

    def _holds_short_parts(self, identity: int) -> bool:
        row = self._db.driver.execute(sql.MESSAGES_FORWARD, (identity - 1, identity + 1, 1)).fetchall()[0]
        return search_scratch.holds(words_of(self._db, row) or "", self._terms.short_parts)


def _seq_of(hit: _Hit) -> int:
    return hit.identity & MAX_SEQ


def _ids_of(piece: lineage.Piece) -> tuple[int, int]:
    low = piece.owner << SEQ_BITS
    return low + piece.first, low + piece.last


def _described(db: Transaction, terms: Terms, found: Sequence[_Hit], *, is_ranked: bool) -> Iterator[SearchHit]:
    """The hits with what is known of their messages and sessions."""
    ids, keys = (encode_json(sorted(set(values))) for values in ([hit.identity for hit in found], [hit.key for hit in found]))
    rows = {row[0]: row for row in db.driver.execute(search_statements.rows(), (ids,)).fetchall()}
    infos = {row[0]: _info(db, row) for row in db.driver.execute(search_statements.infos(), (keys,)).fetchall()}
    held = [messages.intact(db, infos[hit.key].session_id, (rows[hit.identity],), blobs=False)[0] for hit in found]
    texts = {hit.identity: (message.text or "").replace("\0", " ") for hit, message in zip(found, held, strict=True)}
    if not terms.is_raw:
        texts |= _texts_of_blobs(db, [rows[hit.identity] for hit in found])
    spans = search_scratch.spans_of(terms, texts)
    for hit, message in zip(found, held, strict=True):
        yield _hit(infos[hit.key], message, texts[hit.identity], spans[hit.identity], hit.rank if is_ranked else None)


def _texts_of_blobs(db: Transaction, rows: Sequence[Sequence[Any]]) -> dict[int, str]:
    """The texts of messages that have words in blobs, as far as reading them is cheap; in others the names of the blobs stay."""
    texts = {}
    left = _MOST_FROM_BLOBS
    for row in rows:
        size = size_in_blobs(row)
        if 0 < size <= left and (words := words_of(db, row)) is not None:
            texts[row[0]] = words
            left -= size
    return texts


def _info(db: Transaction, row: Sequence[Any]) -> SessionInfo:
    return sessions.info(row[:-1], tuple(decoded(row[-1])), at=db.now_text)


def _hit(info: SessionInfo, message: Message, text: str, spans: list[search_scratch.Span], rank: float | None) -> SearchHit:
    shown, highlights = search_scratch.snippet(text, spans)
    return SearchHit(
        session_id=info.session_id,
        seq=message.seq,
        role=message.role,
        kind=message.kind,
        created_at=message.created_at,
        snippet=shown,
        highlights=highlights,
        rank=rank,
        title=info.title,
        tags=info.tags,
        agent_id=info.agent_id,
        user_id=info.user_id,
    )
