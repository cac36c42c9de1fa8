"""The lines of the lossless JSONL: a header, sessions with what belongs to them, and a trailer that finds truncation and damage.

A session line has every attribute of `SessionInfo`; a message line has the seq, the message dict and all that is known beside
it. What a line does not name is None. A fork names the sessions before it that hold messages of it; a large string of a message
stands in a line of its own, once in the file. `docs/formats.md` describes it for other programs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final

from .. import clock, inputs
from ..arguments import MessageDetails, new_session
from ..content import decoded
from ..database.upgrade import HEAD_REVISION
from ..errors import InvalidInputError
from ..rows import PreparedMessage, prepare
from ..values import MAX_SEQ, SESSION_STATUSES, Message, SessionInfo, SupersededMessage
from . import NATIVE, jsonlines
from .streams import LineReader

VERSION: Final = 2
# What version 1 does not have: all keys of `Kin`, `forked_at`, and all kinds of lines but sessions and messages.
READABLE: Final = (1, 2)
SESSION: Final = "session"
STATE: Final = "state"
BLOB: Final = "blob"
MESSAGE: Final = "message"
SUPERSEDED: Final = "superseded"
END: Final = "end"

_MAX_VERSION: Final = 2**31 - 1
_FRAME_LINES: Final = 2  # header and trailer
_MAX_KEY: Final = 2**39 - 1
_INSTANTS: Final = ("created_at", "updated_at", "ended_at", "archived_at", "expires_at")
_NEEDED_INSTANTS: Final = ("created_at", "updated_at")
_SESSION_KEYS: Final = frozenset(SessionInfo.__annotations__)
# What files of the first schema do not say yet.
_LATER: Final = frozenset({"ttl", "max_age", "tracked", "feedback", "reported_message_count", "forked_at"})
_DETAILS: Final = (*(name for name in MessageDetails.__annotations__ if name != "created_at"), "elapsed_ms")
_MESSAGE_KEYS: Final = frozenset({"seq", "message", "created_at", "blobs", *_DETAILS})
_NEEDED_MESSAGE_KEYS: Final = frozenset({"seq", "message", "kind", "created_at"})


@dataclass(frozen=True, slots=True)
class Trailer:
    """What the last line says about all lines before it.

    Attributes:
        sessions: How many session lines there are.
        messages: How many message lines.
        sha256: The hash of all bytes before it.
        lines: How many lines stand between the header and it; None if there are none but sessions and messages.
    """

    sessions: int
    messages: int
    sha256: str
    lines: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """What a session line tells besides the attributes: how the session hangs together with others, and what follows the line.

    Attributes:
        key: What later sessions call it, if any does; no two have the same.
        parent: What the session is called that it was forked from; it may be in the file or not, before it or behind it.
        shares: Seqs from one to another, both included, whose messages stand with the session of that key, further above.
        message_lines: How many messages follow; None for all that it has.
        state: How many values of its state follow.
        superseded: How many messages follow that were replaced in it.
        checkpoints: How many lines of checkpoints follow.
    """

    key: int | None = None
    parent: int | None = None
    shares: tuple[tuple[int, int, int], ...] = ()
    message_lines: int | None = None
    state: int = 0
    superseded: int = 0
    checkpoints: int = 0


_KIN_KEYS: Final = frozenset(field.name for field in fields(Kin))


def header_line() -> str:
    """The first line."""
    return _line({"format": NATIVE, "version": VERSION, "schema": HEAD_REVISION})


def session_line(info: SessionInfo, kin: Kin = Kin()) -> str:
    """The line of a session, which what belongs to it follows: state, messages, messages that were replaced."""
    known = {field.name: value for field in fields(Kin) if (value := getattr(kin, field.name)) != field.default}
    return _line({**session_object(info), **known})


def state_line(name: str, value: str, updated_at: str) -> str:
    """The line of a value of a session's state, given as it is stored."""
    told = clock.from_text(updated_at).isoformat()
    return _line({"type": STATE, "name": name, "value": decoded(value), "updated_at": told})


def blob_line(name: str, text: str) -> str:
    """The line of a large string, which is called by its hash."""
    return _line({"type": BLOB, "hash": name, "text": text})


def message_line(message: Message, blobs: Mapping[tuple[str | int, ...], str] | None = None) -> str:
    """The line of a message; `blobs` has the hashes of its strings that stand in lines of their own."""
    return _line(message_object(message, blobs))


def superseded_line(replaced: SupersededMessage, blobs: Mapping[tuple[str | int, ...], str] | None = None) -> str:
    """The line of a message that was replaced."""
    told = {"type": SUPERSEDED, "superseded_at": replaced.superseded_at.isoformat()}
    return _line({**message_object(replaced.message, blobs), **told})


def end_line(trailer: Trailer) -> str:
    """The last line."""
    return _line({name: value for name, value in {"type": END, **asdict(trailer)}.items() if value is not None})


def session_object(info: SessionInfo) -> dict[str, Any]:
    """All that is known about a session, as JSON has it."""
    values = {name: getattr(info, name) for name in SessionInfo.__annotations__}
    instants = {name: values[name].isoformat() for name in _INSTANTS if values[name] is not None}
    return {"type": SESSION, **values, **instants, "tags": list(info.tags)}


def message_object(message: Message, blobs: Mapping[tuple[str | int, ...], str] | None = None) -> dict[str, Any]:
    """All that is known about a message, as JSON has it."""
    details = {name: getattr(message, name) for name in _DETAILS}
    known = {name: value for name, value in details.items() if value is not None}
    given = message.to_dict()
    if blobs:
        for path in blobs:
            _put_at(given, path, "")
        known["blobs"] = [[list(path), name] for path, name in blobs.items()]
    return {
        "type": MESSAGE,
        "seq": message.seq,
        "message": given,
        **known,
        "created_at": message.created_at.isoformat(),
    }


def large_strings(message: Message) -> dict[tuple[str | int, ...], tuple[str, str]]:
    """The strings of a message that stand in lines of their own: hash and text, by their paths."""
    if not message.blobs:
        return {}
    given = message.to_dict()
    found = {blob.path: _at(given, blob.path) for blob in message.blobs}
    return {path: (hash_of(text), text) for path, text in found.items()}


def hash_of(text: str) -> str:
    """What a large string is called: the SHA-256 of its UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


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
    if first.get("version") not in READABLE:
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
    held = trailer.sessions + trailer.messages if trailer.lines is None else trailer.lines
    if lines.number - _FRAME_LINES != held:
        raise lines.refusal("the file does not have as many lines as the last one tells")
    return trailer


def session(line: Mapping[str, Any]) -> SessionInfo:
    """The session of a line, with every value checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    _require_keys(line, _SESSION_KEYS | _KIN_KEYS, needed=_SESSION_KEYS - _LATER)
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
        forked_at=inputs.optional_whole_number("forked_at", line.get("forked_at"), most=MAX_SEQ),
        **instants,  # type: ignore[arg-type]
    )


def kin(line: Mapping[str, Any]) -> Kin:
    """How the session of a line hangs together with others, with every value checked.

    Raises:
        InvalidInputError: A value is refused.
    """
    return Kin(
        key=inputs.optional_whole_number("key", line.get("key"), least=1, most=_MAX_KEY),
        parent=inputs.optional_whole_number("parent", line.get("parent"), least=1, most=_MAX_KEY),
        shares=_shares(line.get("shares", [])),
        message_lines=inputs.optional_whole_number("message_lines", line.get("message_lines"), most=MAX_SEQ),
        state=inputs.whole_number("state", line.get("state", 0)),
        superseded=inputs.whole_number("superseded", line.get("superseded", 0)),
        checkpoints=inputs.whole_number("checkpoints", line.get("checkpoints", 0)),
    )


def message(line: Mapping[str, Any], *, max_bytes: int, blob: Callable[[str], str] | None = None) -> tuple[int, PreparedMessage]:
    """The seq and the message of a line, with every value checked.

    Args:
        line: The line.
        max_bytes: See `prepare`.
        blob: Gives the large string of a hash.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    if line.get("type") != MESSAGE:
        raise InvalidInputError("type", "must be message, as often as the session's line says")
    _require_keys(line, _MESSAGE_KEYS, needed=_NEEDED_MESSAGE_KEYS)
    seq = inputs.whole_number("seq", line["seq"], least=1, most=MAX_SEQ)
    details = {name: line[name] for name in _DETAILS if name in line}
    created_at = _instant("created_at", line["created_at"])
    given = line["message"]
    if line.get("blobs"):
        _put_back(given, line["blobs"], blob)
    return seq, prepare(given, max_bytes=max_bytes, created_at=created_at, **details)


def superseded(line: Mapping[str, Any], *, max_bytes: int, blob: Callable[[str], str]) -> tuple[int, str, PreparedMessage]:
    """The seq, the stored instant of the replacement and the message of a line, with every value checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    if line.get("type") != SUPERSEDED:
        raise InvalidInputError("type", "must be superseded, as often as the session's line says")
    rest = {**line, "type": MESSAGE}
    at = stored_instant("superseded_at", rest.pop("superseded_at", None))
    seq, prepared = message(rest, max_bytes=max_bytes, blob=blob)
    return seq, at, prepared


def state(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """The name, the JSON text and the stored instant of a value of a session's state, checked.

    Raises:
        InvalidInputError: A value is refused, a key is missing or unknown.
    """
    if line.get("type") != STATE:
        raise InvalidInputError("type", "must be state, as often as the session's line says")
    keys = frozenset({"name", "value", "updated_at"})
    _require_keys(line, keys, needed=keys)
    return inputs.identifier("name", line["name"]), state_value(line["value"]), stored_instant("updated_at", line["updated_at"])


def blob(line: Mapping[str, Any]) -> tuple[str, str]:
    """The hash and the text of a large string, which fit each other.

    Raises:
        InvalidInputError: They do not, or something else is there.
    """
    keys = frozenset({"hash", "text"})
    _require_keys(line, keys, needed=keys)
    name, text = line["hash"], line["text"]
    if not isinstance(text, str) or hash_of(inputs.text("text", text, max_bytes=len(text) * 4)) != name:
        raise InvalidInputError("hash", "must be the SHA-256 of the text")
    return name, text


def state_value(value: object) -> str:
    """The JSON text of a value of a state.

    Raises:
        InvalidInputError: It is none that JSON has, or too large.
    """
    # In an object, since the rules are those of objects.
    return inputs.json_object("value", {"": value}, max_bytes=inputs.MAX_METADATA_BYTES)[len('{"":') : -1]


def stored_instant(field: str, value: object) -> str:
    """The stored form of an instant.

    Raises:
        InvalidInputError: It is none.
    """
    found = _instant(field, value)
    if found is None:
        raise InvalidInputError(field, "is missing")
    return clock.to_text(found)


def _line(value: dict[str, Any]) -> str:
    return jsonlines.dumps(value) + "\n"


def _trailer(lines: LineReader, last: bytes) -> Trailer:
    known = frozenset(Trailer.__annotations__)
    try:
        line = jsonlines.loads(last)
        _require_keys(line, known, needed=known - {"lines"})
    except (jsonlines.NotAnObjectError, InvalidInputError):
        line = {}
    if line.get("type") != END:
        raise lines.refusal("the file is cut short: its last line is not the trailer that tells counts and checksum")
    with lines.naming_line():
        sessions, messages = (inputs.whole_number(name, line[name]) for name in ("sessions", "messages"))
        held = inputs.optional_whole_number("lines", line.get("lines"))
    return Trailer(sessions, messages, line["sha256"], held)


def _shares(given: object) -> tuple[tuple[int, int, int], ...]:
    if not isinstance(given, list):
        raise InvalidInputError("shares", "must be a list")
    found: list[tuple[int, int, int]] = []
    free = 1
    for each in given:
        if not isinstance(each, list) or len(each) != 3:
            raise InvalidInputError("shares", "must be lists of a first seq, a last seq and a key")
        first = inputs.whole_number("shares", each[0], least=free, most=MAX_SEQ)
        last = inputs.whole_number("shares", each[1], least=first, most=MAX_SEQ)
        found.append((first, last, inputs.whole_number("shares", each[2], least=1, most=_MAX_KEY)))
        free = last + 1
    return tuple(found)


def _put_back(given: object, blobs: object, text_of: Callable[[str], str] | None) -> None:
    """Put large strings where they belong."""
    if not isinstance(blobs, list) or text_of is None:
        raise InvalidInputError("blobs", "must be a list")
    for each in blobs:
        if not isinstance(each, list) or len(each) != 2 or not isinstance(each[1], str):
            raise InvalidInputError("blobs", "must be lists of a path and a hash")
        path, name = each
        if not isinstance(path, list) or not path:
            raise InvalidInputError("blobs", "a path must be a list of keys")
        text = text_of(name)
        try:
            if _at(given, path) != "":
                raise InvalidInputError("blobs", 'where a large string belongs must be ""')
            _put_at(given, path, text)
        except (LookupError, TypeError):
            raise InvalidInputError("blobs", "a path leads nowhere") from None


def _at(tree: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def _put_at(tree: Any, path: Sequence[str | int], text: str) -> None:
    _at(tree, path[:-1])[path[-1]] = text


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
