"""What the words of a search mean: user text is never query syntax."""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

from . import inputs
from .errors import InvalidInputError

Match = Literal["words", "prefix"]
MATCHES: Final = ("words", "prefix")
MAX_QUERY_CHARS: Final = 1_000
MAX_TERMS: Final = 32
# The trigram index knows nothing that is shorter.
_TRIGRAM: Final = 3

# Scripts that put no spaces between words: their words are found anywhere in a text, not as whole words only.
_UNSPACED: Final = (
    "[\u0e00-\u109f"  # Thai, Lao, Tibetan, Burmese
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"  # Hangul, whose particles follow a word without a space
    "\u1780-\u17ff\u1950-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaa7f"  # Khmer, Tai, Balinese, Javanese
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # radicals, kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uffdc"  # Han, half-width forms
    "\U0001b000-\U0001b16f\U00020000-\U0003fffd]"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a message must hold, all of it.

    Attributes:
        phrases: Queries of the words' index.
        parts: Pieces of text of three characters or more, in scripts without spaces.
        short_parts: Shorter ones, for which there is no index.
        is_raw: Whether there is one phrase, in FTS5's own syntax, as somebody wrote it.
    """

    phrases: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    short_parts: tuple[str, ...] = ()
    is_raw: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.phrases and not self.parts and not self.short_parts

    @property
    def words(self) -> str | None:
        """A query of the words' index; None for no words."""
        return " ".join(self.phrases) if self.phrases else None

    @property
    def any_words(self) -> str:
        """A query for each place where one of the phrases stands."""
        return " OR ".join(self.phrases)

    @property
    def trigrams(self) -> str | None:
        """A query of the trigram index."""
        return " ".join(map(_quoted, self.parts)) or None

    def pieces(self) -> re.Pattern[str] | None:
        """What finds the pieces in a text; None if there are none."""
        pieces = (*self.parts, *self.short_parts)
        return re.compile("|".join(map(re.escape, pieces)), re.IGNORECASE) if pieces else None


@functools.cache
def _unspaced() -> re.Pattern[str]:
    # Compiling takes as long as opening a store, and most programs never search.
    return re.compile(_UNSPACED)


def is_unspaced(text: str) -> bool:
    """Whether a text holds a character of a script without spaces."""
    return not text.isascii() and _unspaced().search(text) is not None


def unspaced_of(text: str) -> str:
    """The characters of a text that are of scripts without spaces; these have no upper and lower case."""
    return "".join(_unspaced().findall(text))


def without_unspaced(text: str) -> str:
    """A text as the words' index takes it: a space for each character that is no part of a word there."""
    return text if text.isascii() else _unspaced().sub(" ", text)


def parsed(query: object, match: object = "words") -> Terms:
    """The terms of what a user typed.

    Raises:
        InvalidInputError: More than 1,000 characters or 32 terms.
    """
    text = _bounded("query", query)
    ending = "*" if inputs.choice("match", match, MATCHES) == "prefix" else ""
    words: list[str] = []
    pieces: list[str] = []
    for chunk in text.replace("\0", " ").split():
        if is_unspaced(chunk):
            for run in _runs(chunk):
                (pieces if is_unspaced(run) else words).append(run)
        elif _runs(chunk):
            words.append(chunk)
    if len(words) + len(pieces) > MAX_TERMS:
        raise InvalidInputError("query", f"must have at most {MAX_TERMS} words", limit=MAX_TERMS)
    return Terms(
        tuple(_quoted(word) + ending for word in words),
        tuple(piece for piece in pieces if len(piece) >= _TRIGRAM),
        tuple(piece for piece in pieces if len(piece) < _TRIGRAM),
    )


def raw(query: object) -> Terms:
    """The terms of a query in FTS5's own syntax, as it is."""
    return Terms((_bounded("fts_query", query),), is_raw=True)


def _bounded(field: str, query: object) -> str:
    text = inputs.short_text(field, query, max_chars=MAX_QUERY_CHARS)
    if text is None:
        raise InvalidInputError(field, "must be a str")
    return text


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _runs(chunk: str) -> list[str]:
    """The stretches of a text that hold what words are made of."""
    return "".join(character if _is_of_words(character) else " " for character in chunk).split()


def _is_of_words(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" or unicodedata.category(character) == "Co"
