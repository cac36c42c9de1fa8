"""One JSON object a line: written so that no terminal obeys it, read so that nothing but an object comes back."""

from __future__ import annotations

import json
import re
from typing import Any, Final

# JSON escapes the control characters below U+0020 itself. These would pass through it: DEL, the C1 controls, line separators,
# and what turns the direction of writing.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(", ", ": "), check_circular=False).encode


class NotAnObjectError(ValueError):
    """A line is not one JSON object; the text says why."""


def dumps(value: object) -> str:
    """The JSON text of a value on one line, fit for a file and for a terminal. It reads back equal."""
    return _UNSAFE.sub(_escaped, _encode(value))


def loads(line: bytes) -> dict[str, Any]:
    """The object on a line.

    Raises:
        NotAnObjectError: It is no UTF-8, no JSON, or something else than an object.
    """
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NotAnObjectError("is not UTF-8") from error
    except RecursionError as error:
        raise NotAnObjectError("is nested too deeply") from error
    except ValueError as error:
        # Not `from error`: a JSONDecodeError carries the whole line.
        raise NotAnObjectError(f"is not JSON ({_reason(error)}){_hint(line)}") from None
    if not isinstance(value, dict):
        raise NotAnObjectError(f"is not a JSON object{_hint(line)}")
    return value


def _hint(line: bytes) -> str:
    """What helps who has one JSON value, an array as a rule, that fills the whole file."""
    begun = line.strip()
    return "; JSONL has one JSON value a line, no array around them" if begun.startswith(b"[") or begun == b"{" else ""


def _reason(error: ValueError) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number is too long"


def _escaped(match: re.Match[str]) -> str:
    # In JSON text these stand inside of strings only.
    return f"\\u{ord(match[0]):04x}"
