"""Secrets taken out of texts and values, for what ends up in logs and stored errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from itertools import islice
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from .errors import SessionStoreError
from .remote.credentials import MASK

_MOST_CHARS: Final = 2_000
_MOST_ITEMS: Final = 100
_DEEPEST: Final = 8
_LEFT_OUT: Final = "..."

# Looked for in lower-case names whose humps are underscores.
_SECRET: Final = re.compile(
    r"pass(?:word|wd|phrase|code)|secret|credential|authori[sz]ation|cookie|bearer|token(?!i[sz])"
    r"|(?:access|account|api|auth|encryption|master|private|signing)[^a-z]?key"
    r"|(?<![a-z])(?:key|o?auth|jwt|pass|pwd|sig|signature)(?![a-z])"
)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HARMLESS: Final = frozenset({"session_key", "dedupe_key", "idempotency_key"})
_COUNTED: Final = re.compile(r"tokens|count")
_WHOLE_LINE: Final = re.compile(r"authori[sz]ation|cookie")

# Texts may be long and hostile: no pattern goes over the same stretch again and again.
_USER_INFO: Final = re.compile(r"://(?:[^\s/?#]*@|[^\s/?#:@]{0,256}:(?!\d{1,5}(?:[/?#]|$))[^\s@]{1,256}@)")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL)
_SCHEME: Final = re.compile(
    r"\b((?i:bearer)[ \t]+)(?!tokens?\b)[\w.~+/=-]{2,}|\b((?i:basic)[ \t]+)(?=[a-z]*[A-Z0-9+/=])[\w+/=-]{6,}"
)
_KEY_SHAPES: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk|gsk|xai|r8|hf|npm|glpat|pypi)[-_][\w-]{8,}"  # of model providers, payment services and package indexes
    r"|gh[a-z]_\w{8,}|github_pat_\w{8,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|AIza[\w-]{20,}|ya29\.[\w-]{8,}"
    r"|xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}"
    r"|eyJ[\w-]{6,}(?:\.[\w-]*)*"  # signed tokens, and any other JSON in base64
    r")"
)
_NAME: Final = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]++)"""
    r"""(?:\\{0,3}["']?[ \t]{0,8}(?:=>|:=|[:=])[ \t]{0,8}|\\{0,3}["'],[ \t]{0,8}(?=b?\\{0,3}["']))"""
)
# Our own refusals begin with the name of the field: "api_key: must be a str".
_REFUSAL: Final = re.compile(r"must (?:be|have|hold|not)\b")
_VALUE: Final = re.compile(
    r"""b?\\{0,3}"(?:[^"\\]|\\.)*(?:"|\\?\Z)"""
    r"""|b?\\{0,3}'(?:[^'\\]|\\.)*(?:'|\\?\Z)"""
    r"""|[\[({].*"""  # where it ends is not known
    r"""|(?:(?i:bearer|basic|digest|token)[ \t]+)?[^\s&"<>]+""",
    re.DOTALL,
)
_MARKS: Final = re.compile(r"""\A(?P<open>(?:b?\\{0,3}(?P<quote>["']))?).*?(?P<close>(?P=quote)?)\Z""", re.DOTALL)
_REST_OF_LINE: Final = re.compile(r"[^\r\n]+")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?![\w.-])")


def is_secret(name: str) -> bool:
    """Whether what goes by this name is probably a secret: a key, a token, a password."""
    plain = _HUMP.sub("_", name).lower()
    return _SECRET.search(plain) is not None and plain not in _HARMLESS


def mask(text: str) -> str:
    """A text without what looks like a secret.

    Masked are credentials in URLs, values of fields with telling names, bearer tokens, private keys and keys of known shapes.
    """
    # Of a subclass only the text itself is taken.
    plain = _PRIVATE_KEY.sub(MASK, _USER_INFO.sub(f"://{MASK}@", str.__str__(text)))
    return _KEY_SHAPES.sub(MASK, _SCHEME.sub(_only_scheme, _mask_named(plain)))


def masked(value: object) -> Any:
    """A plain copy of a value without secrets, for logs.

    Strings are masked and cut; dicts, lists and tuples are copied with their items masked, and with all that goes by a secret's
    name replaced. Of an error of this library its text is kept, of any other only its type and where it was raised, because it
    may quote anything. Of other objects only the type is told.
    """
    return _masked(value, _DEEPEST)


def masked_facts(facts: Mapping[str, object]) -> dict[str, Any]:
    """As `masked`, for named values."""
    return {name: _under(name, value, _DEEPEST) for name, value in facts.items()}


def _masked(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | date | timedelta | UUID):
        return value
    if isinstance(value, str):
        return _cut(mask(value))
    if isinstance(value, PurePath):
        return _cut(mask(str(value)))
    if isinstance(value, BaseException):
        return _error(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if depth == 0:
        return _LEFT_OUT
    if isinstance(value, Mapping):
        return {_name(key): _under(key, each, depth - 1) for key, each in islice(value.items(), _MOST_ITEMS)}
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, depth - 1)
    return f"<{type(value).__name__}>"


def _items(values: Iterable[object], depth: int) -> list[Any]:
    items = list(islice(values, _MOST_ITEMS))
    if isinstance(values, list | tuple) and len(items) == 2 and isinstance(items[0], str | bytes):
        # It may be a pair of HTTP headers.
        return [_masked(items[0], depth), _under(items[0], items[1], depth)]
    return [_masked(each, depth) for each in items]


def _under(name: object, value: object, depth: int) -> Any:
    """A value that goes by a name."""
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if value is None or isinstance(value, bool) or not isinstance(text, str) or not is_secret(text):
        return _masked(value, depth)
    if isinstance(value, int | float) and _COUNTED.search(text.lower()):
        return value
    return MASK


def _name(key: object) -> Any:
    plain = _masked(key, 0)
    return plain if isinstance(plain, str | int | float) else str(plain)


def _error(error: BaseException) -> str:
    if isinstance(error, SessionStoreError):
        return _cut(f"{type(error).__name__}: {mask(str(error))}")
    trace = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} at {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else text[: _MOST_CHARS - len(_LEFT_OUT)] + _LEFT_OUT


def _only_scheme(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}{MASK}"


def _mask_named(text: str) -> str:
    """Mask the values in `name=value`, `name: value`, `"name": "value"` and `('name', 'value')` whose names tell a secret."""
    kept: list[str] = []
    end = 0
    for found in _NAME.finditer(text):
        if found.start() < end or not is_secret(found["name"]):
            continue
        value = _value_after(found, text)
        if value is not None:
            kept += (text[end : found.end()], _MARKS.sub(rf"\g<open>{MASK}\g<close>", value[0]))
            end = value.end()
    return "".join((*kept, text[end:]))


def _value_after(found: re.Match[str], text: str) -> re.Match[str] | None:
    """The value that stands behind a telling name, unless it is known to be none."""
    name, start = found["name"].lower(), found.end()
    if _REFUSAL.match(text, start) or (_COUNTED.search(name) and _NUMBER.match(text, start)):
        return None
    quoted = text.startswith(('"', "'", "b'", 'b"', "\\"), start)
    return (_REST_OF_LINE if _WHOLE_LINE.search(name) and not quoted else _VALUE).match(text, start)
