"""Names: an ADK session is named by its application, its user and its id together, and its user's state by the application, too."""

from __future__ import annotations

import unicodedata
from typing import Final, NamedTuple
from urllib.parse import unquote

from ... import inputs

_BETWEEN: Final = "/"
_BEFORE_NAME: Final = ":"
_ESCAPE: Final = "%"


class Name(NamedTuple):
    """What names a session of ADK's."""

    app_name: str
    user_id: str
    session_id: str

    @property
    def stored_id(self) -> str:
        """The id that the session has in the store."""
        return _BETWEEN.join(_escaped(part, _BETWEEN) for part in self)


def checked(app_name: str, user_id: str, session_id: str) -> Name:
    """The name of a session, whose id is used without the white space around it.

    Raises:
        InvalidInputError: A part is refused, or they are too long together.
    """
    name = Name(inputs.identifier("app_name", app_name), inputs.identifier("user_id", user_id), session_id.strip())
    inputs.identifier("app_name, user_id and session_id together", name.stored_id)
    return name


def stored_id(app_name: str, user_id: str, session_id: str) -> str:
    """The id that a session of ADK's has in the store: `app/user/id`, for `store.messages`, `store.fork` and so on.

    A slash, a percent sign and what is not printable are written as in URLs, so that different sessions have different ids.
    """
    return checked(app_name, user_id, session_id).stored_id


def parts_of(stored: str) -> Name | None:
    """The application, the user and the id of an ADK session that has a certain id in the store; None if it is none."""
    parts = stored.split(_BETWEEN)
    if len(parts) != len(Name._fields):
        return None
    if _is_plain(stored):
        return Name(*parts)
    name = Name(*(unquote(part, errors="surrogatepass") for part in parts))
    return name if name.stored_id == stored else None


def name_prefix(app_name: str) -> str:
    """What the names of a user's values begin with: ADK's are per user and application, the store's per user."""
    return _escaped(app_name, _BEFORE_NAME) + _BEFORE_NAME


def _is_plain(text: str) -> bool:
    """Whether a text has only what is written as it is, but maybe for separators. Nearly every name is so."""
    return text.isascii() and text.isprintable() and _ESCAPE not in text


def _escaped(text: str, separator: str) -> str:
    if _is_plain(text) and separator not in text:
        return text
    ascii_only = not unicodedata.is_normalized("NFC", text)
    return "".join(_percent(each) if _is_special(each, separator, ascii_only=ascii_only) else each for each in text)


def _is_special(character: str, separator: str, *, ascii_only: bool) -> bool:
    return character in (separator, _ESCAPE) or not character.isprintable() or (ascii_only and not character.isascii())


def _percent(character: str) -> str:
    return "".join(f"{_ESCAPE}{byte:02X}" for byte in character.encode(errors="surrogatepass"))
