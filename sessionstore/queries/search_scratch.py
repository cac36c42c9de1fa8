"""A small index in memory: it says where in the hits of a search the words stand, and finds words in what is not indexed yet."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Final

from ..search_terms import Terms, is_unspaced, without_unspaced

Span = tuple[int, int]

_WORDS: Final = "CREATE VIRTUAL TABLE message_words USING fts5(words, tokenize='unicode61 remove_diacritics 2')"
_TRIGRAMS: Final = "CREATE VIRTUAL TABLE message_trigrams USING fts5(words, tokenize='trigram')"
_ADD_WORDS: Final = "INSERT INTO message_words (rowid, words) VALUES (?, ?)"
_ADD_TRIGRAMS: Final = "INSERT INTO message_trigrams (rowid, words) VALUES (?, ?)"
_MATCH_WORDS: Final = "SELECT rowid, rank FROM message_words WHERE message_words MATCH ?"
_MATCH_TRIGRAMS: Final = "SELECT rowid, rank FROM message_trigrams WHERE message_trigrams MATCH ?"
# Two characters that Unicode never gives a meaning.
_OPEN: Final = "\ufdd0"
_CLOSE: Final = "\ufdd1"
_SPANS: Final = "SELECT rowid, highlight(message_words, 0, ?, ?) FROM message_words WHERE message_words MATCH ?"
_GAP: Final = re.compile(r"\s")
_NO_MARKS: Final = str.maketrans({_OPEN: " ", _CLOSE: " "})

_CHUNK_CHARS: Final = 4_096
_OVERLAP_CHARS: Final = 512
_SNIPPET_CHARS: Final = 160
_BEFORE_CHARS: Final = 40
_LEFT_OUT: Final = "…"


def matching(terms: Terms, texts: Mapping[int, str]) -> dict[int, float]:
    """Those of some texts that hold all terms, with their rank among themselves."""
    with _index(texts, trigrams=bool(terms.parts)) as connection:
        ranks = dict.fromkeys(texts, 0.0)
        for statement, query in ((_MATCH_TRIGRAMS, terms.trigrams), (_MATCH_WORDS, terms.words)):
            if query is not None:
                found = dict(connection.execute(statement, (query,)).fetchall())
                ranks = {each: found[each] for each in ranks if each in found}
    return {each: rank for each, rank in ranks.items() if holds(texts[each], terms.short_parts)}


def holds(text: str, pieces: Iterable[str]) -> bool:
    """Whether a text holds all of some short pieces, whatever their case."""
    folded = text.lower()
    return all(piece.lower() in folded for piece in pieces)


def spans_of(terms: Terms, texts: Mapping[int, str]) -> dict[int, list[Span]]:
    """Where in each of some texts the terms stand, in order, without overlaps."""
    pieces = terms.pieces()
    spans = {each: [found.span() for found in pieces.finditer(text)] if pieces else [] for each, text in texts.items()}
    if terms.phrases:
        # What a query in FTS5's own syntax asks for may stand anywhere in a text.
        chunks = [(each, *chunk) for each, text in texts.items() for chunk in ([(0, text)] if terms.is_raw else _chunks(text))]
        with _index({number: text.translate(_NO_MARKS) for number, (_, _, text) in enumerate(chunks)}) as connection:
            for number, marked in connection.execute(_SPANS, (_OPEN, _CLOSE, terms.any_words)).fetchall():
                each, start, _ = chunks[number]
                spans[each] += [(start + first, start + last) for first, last in _marked(marked)]
    return {each: _joined(sorted(found)) for each, found in spans.items()}


def snippet(text: str, spans: list[Span]) -> tuple[str, tuple[Span, ...]]:
    """The piece of a text that shows most of what was found, and where that stands in it."""
    start = _word_begin(text, max(0, min(_densest(spans) - _BEFORE_CHARS, len(text) - _SNIPPET_CHARS)))
    end = len(text) if len(text) <= start + _SNIPPET_CHARS else _word_end(text, start + _SNIPPET_CHARS)
    lead = _LEFT_OUT if start else ""
    shown = lead + text[start:end] + (_LEFT_OUT if end < len(text) else "")
    shift = len(lead) - start
    inside = ((max(first, start) + shift, min(last, end) + shift) for first, last in spans if last > start and first < end)
    return shown, tuple(inside)


@contextmanager
def _index(texts: Mapping[int, str], *, trigrams: bool = False) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(_WORDS)
        connection.executemany(_ADD_WORDS, [(each, without_unspaced(text)) for each, text in texts.items()])
        if trigrams:
            connection.execute(_TRIGRAMS)
            connection.executemany(_ADD_TRIGRAMS, [(each, text) for each, text in texts.items() if is_unspaced(text)])
        yield connection


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of a text that overlap, each with its place: to find all words in a long one takes the square of their number."""
    bare = _GAP.sub(" ", without_unspaced(text))
    start = 0
    while len(text) > start + _CHUNK_CHARS:
        end = start + _CHUNK_CHARS
        gap = bare.rfind(" ", end - _OVERLAP_CHARS, end)
        end = end if gap < 0 else gap
        yield start, text[start:end]
        start = 1 + max(bare.find(" ", end - _OVERLAP_CHARS, end), end - _OVERLAP_CHARS - 1)
    yield start, text[start:]


def _marked(text: str) -> list[Span]:
    """The stretches between marks, by their places in the text without the marks."""
    spans: list[Span] = []
    place = 0
    for part in text.split(_OPEN)[1:] if _OPEN in text else ():
        inside, _, behind = part.partition(_CLOSE)
        if not spans:
            place = text.index(_OPEN)
        spans.append((place, place + len(inside)))
        place += len(inside) + len(behind)
    return spans


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for first, last in spans:
        if joined and first < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def _densest(spans: list[Span]) -> int:
    """Where to begin so that a snippet shows the most spans; the first such place."""
    best = most = 0
    reach = _SNIPPET_CHARS - _BEFORE_CHARS
    end = 0
    for number, (first, _) in enumerate(spans):
        while end < len(spans) and spans[end][1] <= first + reach:
            end += 1
        if end - number > most or number == 0:
            best, most = first, end - number
    return best


def _word_begin(text: str, place: int) -> int:
    """The next place where a word begins, unless that is far."""
    if place:
        for at, (before, _) in enumerate(pairwise(text[place - 1 : place + _BEFORE_CHARS // 2]), start=place):
            if before.isspace():
                return at
    return place


def _word_end(text: str, place: int) -> int:
    """The last place before one where a word ends, unless that is far."""
    gap = max(text.rfind(space, place - _BEFORE_CHARS // 2, place + 1) for space in (" ", "\n"))
    return place if gap < 0 else gap
