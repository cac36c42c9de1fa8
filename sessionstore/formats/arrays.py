"""A JSON array read element by element, with the line that each begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")


class BadArrayError(ValueError):
    """A text is no JSON array; the text says why, `line` where."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def elements(data: bytes) -> Iterator[tuple[int, Any]]:
    """The elements of the array that a whole file is, each with its line; null is an empty array, as in Go.

    Raises:
        BadArrayError: It is no UTF-8, or something else than one array.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadArrayError("is not UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    place = _skip(text, 0)
    if text[place : place + 4] == "null":
        _require_end(text, place + 4)
    elif text[place : place + 1] != "[":
        raise _bad(text, place, "is not a JSON array")
    else:
        yield from _inside(text, _skip(text, place + 1))


def _inside(text: str, place: int) -> Iterator[tuple[int, Any]]:
    decode = json.JSONDecoder().raw_decode
    line, counted = 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decode(text, place)
        except RecursionError:
            raise BadArrayError("is nested too deeply", line) from None
        except json.JSONDecodeError as error:
            # Not `from error`: it carries the whole text.
            raise BadArrayError(f"is not JSON ({error.msg} at column {error.colno})", error.lineno) from None
        except ValueError:
            raise BadArrayError("is not JSON (a number is too long)", line) from None
        yield line, value
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
            if text[place : place + 1] == "]":
                raise _bad(text, place, "is not JSON (a comma stands before the end)")
        elif text[place : place + 1] != "]":
            raise _bad(text, place, "is not JSON (a comma or the end of the array is missing)")
    _require_end(text, place + 1)


def _require_end(text: str, place: int) -> None:
    place = _skip(text, place)
    if place != len(text):
        raise _bad(text, place, "has something behind its end")


def _skip(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _bad(text: str, place: int, reason: str) -> BadArrayError:
    return BadArrayError(reason, text.count("\n", 0, place) + 1)
