"""Names of files and objects that stand for conversation ids, each id always under the same one.

Names of two ids differ by more than their case, since many file systems do not tell "Alice" from "alice". An id that is written
in small letters is its own name; a hash follows one that is not, and one that ends as if a hash followed it. Of a very long id
only the beginning and the hash stand in the name.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from .. import inputs
from ..errors import InvalidInputError
from ..formats.file_names import escaped, file_name, session_id_of

_HASHED: Final = re.compile(r"(?P<begin>.+)~[0-9a-f]{16}", re.DOTALL)


def name_of(session_id: str) -> str:
    """The name of an id, without a suffix: at most 180 bytes, never a path."""
    plain = escaped(session_id)
    return file_name(session_id, {plain.casefold()} if _needs_hash(session_id, plain) else set())


def plain_name_of(session_id: str) -> str | None:
    """The name that another program would give an id; None if that is its name here, or might be that of another id."""
    plain = escaped(session_id)
    if name_of(session_id) == plain or _HASHED.fullmatch(plain) or file_name(session_id, set()) != plain:
        return None
    return plain


def id_of(name: str) -> str | None:
    """The id whose name this is; None if it is no id's, or that of one too long to stand in it."""
    hashed = _HASHED.fullmatch(name)
    candidate = unquote(hashed["begin"]) if hashed else session_id_of(name)
    return candidate if is_id(candidate) and name_of(candidate) == name else None


def is_cut(name: str) -> bool:
    """Whether only its content tells whose name this is."""
    return _HASHED.fullmatch(name) is not None and id_of(name) is None


def is_id(text: str) -> bool:
    """Whether a text may be the id of a conversation."""
    try:
        inputs.identifier("session_id", text)
    except InvalidInputError:
        return False
    return True


def _needs_hash(session_id: str, plain: str) -> bool:
    has_case = not session_id == session_id.casefold() == session_id.upper().lower()
    return has_case or _HASHED.fullmatch(plain) is not None
