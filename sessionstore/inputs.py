"""The rules for everything that callers pass in; each refusal is an InvalidInputError before anything is written."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from .errors import InvalidInputError

MAX_ID_CHARS: Final = 256
MAX_TITLE_CHARS: Final = 1_000
MAX_ERROR_CHARS: Final = 10_000
MAX_TAGS: Final = 100
MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000
MAX_METADATA_BYTES: Final = 1 << 20
MAX_INTEGER: Final = 2**63 - 1
MAX_PAGE: Final = 1_000
_MICROSECOND: Final = 1e-6
LONGEST_LIFE: Final = 3_155_760_000  # a hundred years, in seconds

_METADATA_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
encode_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode


def identifier(field: str, value: object) -> str:
    """A session, user or agent id, a tag, a key: 1 to 256 printable characters in NFC, compared as given."""
    text = _string(field, value)
    if not text:
        raise InvalidInputError(field, "must not be empty")
    if len(text) > MAX_ID_CHARS:
        raise InvalidInputError(field, f"must have at most {MAX_ID_CHARS} characters", limit=MAX_ID_CHARS)
    if not text.isprintable():
        raise InvalidInputError(field, "must not hold control, invisible or unpaired surrogate characters")
    if text[0] == " " or text[-1] == " ":
        raise InvalidInputError(field, "must not begin or end with a space")
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        raise InvalidInputError(field, 'must be in Unicode normal form C: unicodedata.normalize("NFC", value)')
    return text


def optional_identifier(field: str, value: object) -> str | None:
    """As `identifier`, or None."""
    return None if value is None else identifier(field, value)


def namespace(value: object) -> str:
    """As `identifier`; the empty text is the default namespace."""
    return "" if value == "" else identifier("namespace", value)


def text(field: str, value: object, *, max_bytes: int) -> str:
    """Any text of at most `max_bytes` in UTF-8; NUL is kept, unpaired surrogates are refused."""
    exact = _string(field, value)
    # Four bytes a character at the most: only long texts are encoded to be measured.
    if len(exact) * 4 > max_bytes:
        if len(exact) > max_bytes or len(_utf8(field, exact)) > max_bytes:
            raise InvalidInputError(field, f"must have at most {max_bytes} bytes in UTF-8", limit=max_bytes)
    elif not exact.isascii():
        _utf8(field, exact)
    return exact


def short_text(field: str, value: object, *, max_chars: int) -> str | None:
    """A title or an error text of at most `max_chars` characters, or None."""
    if value is None:
        return None
    exact = _string(field, value)
    if len(exact) > max_chars:
        raise InvalidInputError(field, f"must have at most {max_chars} characters", limit=max_chars)
    _utf8(field, exact)
    return exact


def choice(field: str, value: object, allowed: Iterable[str]) -> str:
    """One of a few words, exactly as written."""
    if not isinstance(value, str) or value not in (words := tuple(allowed)):
        raise InvalidInputError(field, "must be one of " + ", ".join(allowed))
    return words[words.index(value)]


def whole_number(field: str, value: object, *, least: int = 0, most: int = MAX_INTEGER) -> int:
    """An int (never a bool, a float or a text) from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInputError(field, "must be an int")
    if not least <= value <= most:
        raise InvalidInputError(field, f"must be from {least} to {most}", limit=most if value > most else least)
    return int(value)


def optional_whole_number(field: str, value: object, *, least: int = 0, most: int = MAX_INTEGER) -> int | None:
    """As `whole_number`, or None."""
    return None if value is None else whole_number(field, value, least=least, most=most)


def number(field: str, value: object) -> float:
    """A finite int or float, never a bool, as a float."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInputError(field, "must be an int or a float")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InvalidInputError(field, "is out of range", limit=MAX_INTEGER)
    if not math.isfinite(value):
        raise InvalidInputError(field, "must be finite: neither NaN nor infinity")
    return float(value)


def exact_number(field: str, value: object) -> int | float:
    """An int of 64 bits or a finite float, never a bool, as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return whole_number(field, value, least=-MAX_INTEGER - 1)
    return number(field, value)


def duration(field: str, value: object, *, most: float = math.inf) -> float:
    """A finite number from zero to `most`, never a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidInputError(field, "must be an int or a float")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InvalidInputError(field, "is out of range", limit=MAX_INTEGER)
    if not math.isfinite(value) or value < 0:
        raise InvalidInputError(field, "must be a finite number of at least 0", limit=0)
    if value > most:
        raise InvalidInputError(field, f"must be at most {most}", limit=most)
    return float(value)


def optional_duration(field: str, value: object) -> float | None:
    """As `duration`, or None."""
    return None if value is None else duration(field, value)


def period(field: str, value: object, *, unit: float = 1) -> float:
    """Seconds of a positive timedelta, or of a positive number of units of so many seconds; at most a hundred years."""
    given = value.total_seconds() / unit if isinstance(value, timedelta) else value
    if isinstance(given, int | float) and not isinstance(given, bool) and given < _MICROSECOND / unit:
        raise InvalidInputError(field, "must be more than 0, at least a microsecond", limit=0)
    return duration(field, given, most=LONGEST_LIFE / unit) * unit


def life(field: str, value: object, *, unit: float = 1) -> float | None:
    """A time to live: as `period`, or None for ever."""
    return None if value is None else period(field, value, unit=unit)


def flag(field: str, value: object) -> bool:
    """True or False, nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise InvalidInputError(field, "must be True or False")
    return value


def instant(field: str, value: object) -> datetime:
    """An aware datetime, in UTC; naive ones are refused because nobody knows which clock they mean."""
    if not isinstance(value, datetime):
        raise InvalidInputError(field, "must be a datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidInputError(field, "must be aware: give it a time zone, for example datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(field, "is outside of the years 1 to 9999 in UTC") from error


def optional_instant(field: str, value: object) -> datetime | None:
    """As `instant`, or None."""
    return None if value is None else instant(field, value)


def tags(value: object) -> tuple[str, ...]:
    """A list, tuple or set of at most 100 identifiers, without repeats, sorted."""
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise InvalidInputError("tags", "must be a list, tuple or set of texts")
    if len(value) > MAX_TAGS:
        raise InvalidInputError("tags", f"must be at most {MAX_TAGS}", limit=MAX_TAGS)
    return tuple(sorted({identifier("tags", tag) for tag in value}))


def metadata(value: object) -> str | None:
    """JSON text of a dict that reads back equal, or None."""
    return None if value is None else json_object("metadata", value, max_bytes=MAX_METADATA_BYTES)


def metadata_filter(value: object) -> dict[str, str | int | float | bool | None]:
    """A dict of top-level metadata keys and the plain values they must equal."""
    if not isinstance(value, dict):
        raise InvalidInputError("metadata", "must be a dict")
    for key, wanted in value.items():
        if not isinstance(key, str) or not _METADATA_KEY.fullmatch(key):
            raise InvalidInputError("metadata", "filter keys must be 1 to 128 letters, digits, dots, dashes or underscores")
        if isinstance(wanted, dict | list):
            raise InvalidInputError(f"metadata.{key}", "can be compared with a text, a number, True, False or None only")
    json_object("metadata", value, max_bytes=MAX_METADATA_BYTES)
    return dict(sorted(value.items()))


def json_object(field: str, value: object, *, max_bytes: int) -> str:
    """JSON text of a dict that reads back equal.

    Raises:
        InvalidInputError: Not a dict; keys that are no texts; values that JSON does not have (NaN, sets, tuples, bytes,
            dates); more than 64 levels, 100,000 values or `max_bytes`; a cycle; unpaired surrogates; ints beyond 64 bits.
    """
    if not isinstance(value, dict):
        raise InvalidInputError(field, "must be a dict")
    _check_tree(field, value)
    return text(field, encode_json(value), max_bytes=max_bytes)


def optional_json_object(field: str, value: object) -> str | None:
    """JSON text of a dict of at most 1 MiB, or None."""
    return None if value is None else json_object(field, value, max_bytes=MAX_METADATA_BYTES)


def _check_tree(field: str, root: dict[Any, Any]) -> None:
    """Walk breadth first, so that neither depth nor a cycle can exhaust the stack."""
    level: list[Any] = [root]
    nodes = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            nodes += len(container)
            if nodes > MAX_NODES:
                raise InvalidInputError(field, f"must hold at most {MAX_NODES} values", limit=MAX_NODES)
            values = _dict_values(field, container) if isinstance(container, dict) else container
            for value in values:
                if isinstance(value, dict | list):
                    below.append(value)
                elif not isinstance(value, str):
                    _check_scalar(field, value)
        if not below:
            return
        level = below
    raise InvalidInputError(field, f"must be nested at most {MAX_DEPTH} levels deep, without a cycle", limit=MAX_DEPTH)


def _dict_values(field: str, container: Mapping[Any, Any]) -> Iterable[Any]:
    for key in container:
        if not isinstance(key, str):
            raise InvalidInputError(field, "keys must be texts")
    return container.values()


def _check_scalar(field: str, value: object) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            raise InvalidInputError(field, "whole numbers must fit into 64 bits", limit=MAX_INTEGER)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(field, "numbers must be finite: JSON has neither NaN nor infinity")
    else:
        raise InvalidInputError(field, f"JSON has no {type(value).__name__}; convert it to a text, a number, a list or a dict")


def _string(field: str, value: object) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        # A subclass may lie about itself; this is the text that it really holds.
        return str.__str__(value)
    raise InvalidInputError(field, "must be a str")


def _utf8(field: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        # Not chained: that error holds the whole text.
        raise InvalidInputError(field, "must not hold unpaired surrogate characters") from None
