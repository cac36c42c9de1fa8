"""The lossless JSONL: a header, each session followed by its messages, and a trailer that finds truncation and damage.

A session line has every attribute of `SessionInfo`; a message line has the seq, the message dict and all that is known beside
it. What a line does not name is None. `docs/formats.md` describes it for other programs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from .. import inputs
from ..arguments import MessageDetails, new_session
from ..database.upgrade import HEAD_REVISION
from ..errors import InvalidInputError
from ..rows import PreparedMessage, prepare
from ..values import MAX_SEQ, SESSION_STATUSES, Message, SessionInfo
from . import NATIVE, jsonlines
from .streams import LineReader

VERSION: Final = 1
SESSION: Final = "session"
MESSAGE: Final = "message"
END: Final = "end"

_MAX_VERSION: Final = 2**31 - 1
_FRAME_LINES: Final = 2  # header and trailer
_INSTANTS: Final = ("created_at", "updated_at", "ended_at", "archived_at", "expires_at")
_NEEDED_INSTANTS: Final = ("created_at", "updated_at")
_SESSION_KEYS: Final = frozenset(SessionInfo.__annotations__)
# What files of the first schema do not say yet.
_SINCE_0002: Final = frozenset({"ttl", "max_age", "tracked", "feedback", "reported_message_count"})
_DETAILS: Final = (*(name for name in MessageDetails.__annotations__ if name != "created_at"), "elapsed_ms")
_MESSAGE_KEYS: Final = frozenset({"seq", "message", "created_at", *_DETAILS})
_NEEDED_MESSAGE_KEYS: Final = frozenset({"seq", "message", "kind", "created_at"})


@dataclass(frozen=True, slots=True)
class Trailer:
    """What the last line says about all lines before it."""

    sessions: int
    messages: int
    sha256: str


def header_line() -> str:
    """The first line."""
    return _line({"format": NATIVE, "version": VERSION, "schema": HEAD_REVISION})


def session_line(info: SessionInfo) -> str:
    """The line of a session, which its messages follow."""
    return _line(session_object(info))


def message_line(message: Message) -> str:
    """The line of a message."""
    return _line(message_object(message))


def end_line(trailer: Trailer) -> str:
    """The last line."""
    return _line({"type": END, **asdict(trailer)})


def session_object(info: SessionInfo) -> dict[str, Any]:
    """All that is known about a session, as JSON has it."""
    values = {name: getattr(info, name) for name in SessionInfo.__annotations__}
    instants = {name: values[name].isoformat() for name in _INSTANTS if values[name] is not None}
    return {"type": SESSION, **values, **instants, "tags": list(info.tags)}


def message_object(message: Message) -> dict[str, Any]:
    """All that is known about a message, as JSON has it."""
    details = {name: getattr(message, name) for name in _DETAILS}
    known = {name: value for name, value in details.items() if value is not None}
    return {
        "type": MESSAGE,
        "seq": message.seq,
        "message": message.to_dict(),
        **known,
        "created_at": message.created_at.isoformat(),
    }


def is_header(first: Mapping[str, Any]) -> bool:
    """Whether a file that begins with this line is of this format."""
    return first.get("format") == NATIVE


def is_headless(first: Mapping[str, Any]) -> bool:
    """Whether a first line is one that stands further below in this format, as the command `show --json` writes it."""
    return first.get("type") == SESSION or (first.get("type") == MESSAGE and "seq" in first)


def verified(lines: LineReader) -> Trailer:
    """Read a file to its end and return its trailer, which fits all lines before it.

    Raises:
        InvalidInputError: The file is cut short or damaged, or of a newer format.
    """
    first = lines.read_object()
    if first is None or not is_header(first):
        raise lines.refusal('must be the header {"format": "sessionstore", ...}')
    if first.get("version") != VERSION:
        raise lines.refusal(f"has another version of the format than {VERSION}; update sessionstore")
    # The header was read as JSON, the hash needs its bytes.
    lines.return_to((0, 0))
    digest = hashlib.sha256()
    last = b""
    while (line := lines.read()) is not None:
        digest.update(last)
        last = line
    trailer = _trailer(lines, last)
    if trailer.sha256 != digest.hexdigest():
        raise lines.refusal("the file is damaged: its lines do not have the checksum that the last one tells")
    if lines.number - _FRAME_LINES != trailer.sessions + trailer.messages:
        raise lines.refusal("the file does not have as many lines as the last one tells")
    return trailer


def session(line: Mapping[str, Any]) -> SessionInfo:
    """The session of a line, with every value checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    _require_keys(line, _SESSION_KEYS, needed=_SESSION_KEYS - _SINCE_0002)
    attributes = {name: line[name] for name in ("user_id", "agent_id", "title", "tags", "metadata", "pinned")}
    attributes |= {"ttl": line.get("ttl"), "max_age": line.get("max_age")}
    new = new_session(inputs.namespace(line["namespace"]), line["session_id"], **attributes)
    instants = {name: _instant(name, line[name]) for name in _INSTANTS}
    if line["metadata"] is None:
        raise InvalidInputError("metadata", "must be a dict")
    return SessionInfo(
        namespace=new.namespace,
        session_id=new.session_id,
        user_id=new.user_id,
        agent_id=new.agent_id,
        title=new.title,
        status=inputs.choice("status", line["status"], SESSION_STATUSES),  # type: ignore[arg-type]
        pinned=new.pinned,
        tags=new.tags,
        metadata=line["metadata"],
        version=inputs.whole_number("version", line["version"], least=1, most=_MAX_VERSION),
        message_count=inputs.whole_number("message_count", line["message_count"], most=MAX_SEQ),
        last_seq=inputs.whole_number("last_seq", line["last_seq"], most=MAX_SEQ),
        quality_score=inputs.optional_whole_number("quality_score", line["quality_score"], least=1, most=5),
        error=inputs.short_text("error", line["error"], max_chars=inputs.MAX_ERROR_CHARS),
        ttl=new.ttl,
        max_age=new.max_age,
        tracked=inputs.flag("tracked", line.get("tracked", False)),
        feedback=inputs.short_text("feedback", line.get("feedback"), max_chars=inputs.MAX_ERROR_CHARS),
        reported_message_count=inputs.optional_whole_number(
            "reported_message_count", line.get("reported_message_count"), most=MAX_SEQ
        ),
        **instants,  # type: ignore[arg-type]
    )


def message(line: Mapping[str, Any], *, max_bytes: int) -> tuple[int, PreparedMessage]:
    """The seq and the message of a line, with every value checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    if line.get("type") != MESSAGE:
        raise InvalidInputError("type", "must be message, as often as the session's message_count says")
    _require_keys(line, _MESSAGE_KEYS, needed=_NEEDED_MESSAGE_KEYS)
    seq = inputs.whole_number("seq", line["seq"], least=1, most=MAX_SEQ)
    details = {name: line[name] for name in _DETAILS if name in line}
    created_at = _instant("created_at", line["created_at"])
    return seq, prepare(line["message"], max_bytes=max_bytes, created_at=created_at, **details)


def _line(value: dict[str, Any]) -> str:
    return jsonlines.dumps(value) + "\n"


def _trailer(lines: LineReader, last: bytes) -> Trailer:
    try:
        line = jsonlines.loads(last)
        _require_keys(line, frozenset(Trailer.__annotations__), needed=frozenset(Trailer.__annotations__))
    except (jsonlines.NotAnObjectError, InvalidInputError):
        line = {}
    if line.get("type") != END:
        raise lines.refusal("the file is cut short: its last line is not the trailer that tells counts and checksum")
    with lines.naming_line():
        sessions, messages = (inputs.whole_number(name, line[name]) for name in ("sessions", "messages"))
    return Trailer(sessions, messages, line["sha256"])


def _require_keys(line: Mapping[str, Any], known: frozenset[str], *, needed: frozenset[str]) -> None:
    given = line.keys() - {"type"}
    if given - known:
        # Dropping what is not understood would not be lossless.
        raise InvalidInputError("keys", "holds a key that this version does not know; update sessionstore")
    if needed - given:
        raise InvalidInputError(min(needed - given), "is missing")


def _instant(field: str, value: object) -> datetime | None:
    if value is None and field not in _NEEDED_INSTANTS:
        return None
    try:
        return inputs.instant(field, datetime.fromisoformat(value))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(field, "must be an ISO 8601 date and time with a time zone") from None
