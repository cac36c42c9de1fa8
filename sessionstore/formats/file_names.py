"""File names that stand for session ids: ids are data, never paths."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final
from urllib.parse import unquote

_MAX_BYTES: Final = 180
# What a path, a shell or Windows would take for something else; "%" since it begins an escape.
_UNSAFE: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|%]|^[. ]|[. ]$')
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)


def file_name(session_id: str, taken: set[str]) -> str:
    """A name for the file of a session, without a suffix. It is noted in `taken`, where names differ by more than their case.

    Unsafe characters are percent-encoded. Of a very long id only the beginning and a hash stand in the name.
    """
    name = escaped(session_id)
    if len(name.encode()) > _MAX_BYTES or name.casefold() in taken or session_id_of(name) != session_id:
        name = f"{_cut(name)}~{_digest(session_id)}"
    taken.add(name.casefold())
    return name


def session_id_of(name: str) -> str:
    """The id that a file's name stands for: a name that this module did not make, or had to cut, stands for itself."""
    name = unicodedata.normalize("NFC", name)
    begin, _, digest = name.rpartition("~")
    hashed = _decoded(begin)
    return hashed if digest == _digest(hashed) else _decoded(name)


def escaped(session_id: str) -> str:
    """The id with its unsafe characters percent-encoded."""
    if _RESERVED.match(session_id):
        return f"%{ord(session_id[0]):02X}{escaped(session_id[1:])}"
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), session_id)


def _decoded(name: str) -> str:
    """What percent signs stand for, if they were written here and not by somebody else."""
    decoded = unquote(name, errors="replace")
    return decoded if escaped(decoded) == name else name


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()[:16]


def _cut(name: str) -> str:
    short = name.encode()[: _MAX_BYTES - 20].decode(errors="ignore")
    # No half of an escape.
    return re.sub(r"%.?$", "", short)
