"""Session files of go-deep-agent: a folder with a JSON array of messages for each session, in the layout of Go's own encoder.

Its versions up to 0.10 wrote `Role` and `Content`, later ones `ToolCalls` and `ToolCallID`, too. Keys are read in any case, as Go
reads them. Keys that it does not know go into the message's metadata, and out again. What its layout cannot say of a message stands
under the key `sessionstore`, which Go skips.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .. import clock, content, inputs
from ..database.paths import PRIVATE_FOLDER
from ..errors import ConflictError, InvalidInputError
from ..rows import PreparedMessage, prepare
from ..values import Message, SessionInfo
from ..values.receipts import ImportReceipt
from . import DEEP_AGENT, openai
from .arrays import BadArrayError, elements
from .chat import Source
from .file_names import file_name, session_id_of
from .streams import MAX_LINE_BYTES, LineReader, LineWriter, Progress, open_lines, open_target, path_of

if TYPE_CHECKING:
    from .receiving import Receiver

_SUFFIX: Final = ".json"
_NOTES: Final = "go_deep_agent"
_OWN_KEY: Final = "sessionstore"
_OLD: Final = {"generation": "0.8"}
_MESSAGE_KEYS: Final = {"role": "Role", "content": "Content", "toolcalls": "ToolCalls", "toolcallid": "ToolCallID"}
_CALL_KEYS: Final = {"id": "ID", "type": "Type", "name": "Name", "arguments": "Arguments"}
# Go writes these as escapes, so that no browser takes a file for HTML.
_ESCAPED_BY_GO: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


# -- out


class Folder:
    """Where session files go, one by one.

    Attributes:
        size_bytes: How much was written so far.
    """

    def __init__(self, path: Path, store_path: Path | None) -> None:
        self.size_bytes = 0
        self._path = path
        self._store_path = store_path
        self._names: set[str] = set()

    @contextmanager
    def file(self, session_id: str) -> Iterator[LineWriter]:
        """The file of a session, which appears whole or not at all, for its owner only."""
        name = file_name(session_id, self._names)
        with open_target(self._path / (name + _SUFFIX), store_path=self._store_path) as writer:
            yield writer
        self.size_bytes += writer.size_bytes


@contextmanager
def open_folder(target: object, *, store_path: Path | None) -> Iterator[Folder]:
    """The folder to write to; it is made if it is not there, for its owner only."""
    if not isinstance(target, str | PathLike):
        raise InvalidInputError("target", f"must be a path: {DEEP_AGENT} is a folder of files")
    path = path_of("target", target)
    if path.exists() and not path.is_dir():
        raise InvalidInputError("target", f"{path} must be a folder: {DEEP_AGENT} has a file for each session")
    path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    yield Folder(path, store_path)


def file_parts(info: SessionInfo, messages: Source) -> Iterator[str]:
    """The text of a session's file, piece by piece."""
    old = info.metadata.get(_NOTES) == _OLD and not any(_needs_tools(message) for message in messages(ahead=True))
    yield from _laid_out(_flat(message, old=old) for message in messages())


def text_of(messages: Iterable[dict[str, Any]]) -> str:
    """The text of a file that holds message dicts."""
    return "".join(_laid_out(_flat_noted(message, _kind(message), old=False) for message in messages))


def messages_of(data: bytes) -> list[dict[str, Any]]:
    """The message dicts of a file, of either generation, with the keys that its layout does not know.

    Raises:
        BadArrayError: It is no JSON array.
        InvalidInputError: An element is no message; `field` names the line.
    """
    return [_whole(line, given) for line, given in elements(data)]


def _whole(line: int, given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidInputError(f"line {line}", "must be a message object")
    try:
        flat, unknown = _cased(given, _MESSAGE_KEYS)
        message, _ = _original(flat, unknown.pop(_OWN_KEY, None))
    except InvalidInputError as error:
        raise InvalidInputError(f"line {line}", str(error), limit=error.limit) from None
    return {**unknown, **message}


def _laid_out(flats: Iterable[dict[str, Any]]) -> Iterator[str]:
    between = "[\n"
    for flat in flats:
        text = json.dumps(flat, ensure_ascii=False, indent=2, check_circular=False)
        yield between + "  " + text.translate(_ESCAPED_BY_GO).replace("\n", "\n  ")
        between = ",\n"
    yield "[]" if between == "[\n" else "\n]"


def _needs_tools(message: Message) -> bool:
    return not message.to_dict().keys() <= {"role", "content"}


def _flat(message: Message, *, old: bool) -> dict[str, Any]:
    """A message as Go has it, with a note for this library where that is not all of it."""
    flat = _flat_noted(message.to_dict(), message.kind, old=old)
    noted = (message.metadata or {}).get(_NOTES)
    return flat | {key: value for key, value in noted.items() if key not in flat} if isinstance(noted, dict) else flat


def _flat_noted(given: dict[str, Any], kind: str, *, old: bool) -> dict[str, Any]:
    flat = _flat_chat(given, old=old)
    if _chat(flat) != given or kind != _kind(given):
        flat[_OWN_KEY] = {"message": given} if kind == _kind(given) else {"message": given, "kind": kind}
    return flat


def _flat_chat(given: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    role, text = given.get("role"), given.get("content")
    flat: dict[str, Any] = {
        "Role": role if isinstance(role, str) else "",
        # Go reads null as an empty text.
        "Content": text if text is None or isinstance(text, str) else content.words(text) or "",
    }
    if not old:
        calls, answered = given.get("tool_calls"), given.get("tool_call_id")
        flat["ToolCalls"] = (
            [_flat_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) and calls else None
        )
        flat["ToolCallID"] = answered if isinstance(answered, str) else ""
    return flat


def _flat_call(call: Mapping[str, Any]) -> dict[str, Any]:
    named = call.get("function")
    function = named if isinstance(named, dict) else {}
    texts = {"ID": call.get("id"), "Type": call.get("type"), "Name": function.get("name"), "Arguments": function.get("arguments")}
    flat = {key: value if isinstance(value, str) else "" for key, value in texts.items()}
    return flat | {key: value for key, value in call.items() if key not in {"id", "type", "function"} and key not in flat}


# -- in


def import_files(
    source: object, receiver: Receiver, *, store_path: Path | None, session_id: str | None, progress: Progress | None
) -> ImportReceipt:
    """Store the sessions of a folder, or of one file.

    Raises:
        InvalidInputError: A file is refused; nothing of it is stored.
        ConflictError: An id is taken.
    """
    path = path_of("source", source) if isinstance(source, str | PathLike) else None
    if path is None or not path.is_dir():
        with open_lines(source, store_path=store_path) as lines:
            _import_file(lines, lines.name, session_id or session_id_of(lines.stem), receiver)
            if progress is not None:
                progress(lines.total_bytes, lines.total_bytes)
        return receiver.receipt(DEEP_AGENT)
    if session_id is not None:
        raise InvalidInputError("session_id", "names the session of one file; the files of a folder name their own")
    files = sorted(file for file in path.rglob("*" + _SUFFIX) if file.is_file())
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        name = file.relative_to(path).as_posix()
        with open_lines(file, store_path=store_path) as lines:
            _import_file(lines, name, session_id_of(name.removesuffix(_SUFFIX)), receiver)
            done += lines.total_bytes
        if progress is not None:
            progress(min(done, total), total)
    return receiver.receipt(DEEP_AGENT)


def _import_file(lines: LineReader, name: str, session_id: str, receiver: Receiver) -> None:
    settings = receiver.settings
    try:
        objects = _objects(lines, name)
        prepared = [_prepared(name, line, given, settings.max_text_bytes) for line, given in objects]
        info = _session(session_id, [given for _, given in objects], settings.namespace)
        receiver.put(receiver.made_now(info), partial(openai.numbered, prepared))
    except InvalidInputError as error:
        named = error if error.field == "source" else InvalidInputError("source", f"{name}: {error}", limit=error.limit)
        raise receiver.refusal(named) from error
    except ConflictError as error:
        raise receiver.conflict(error, name) from error


def _session(session_id: str, objects: list[Mapping[str, Any]], namespace: str) -> SessionInfo:
    tooled = any(key.lower() in {"toolcalls", "toolcallid"} for given in objects for key in given)
    metadata = {} if tooled or not objects else {_NOTES: _OLD}
    return openai.session(session_id, namespace=namespace, now=clock.utc_now(), metadata=metadata)


def _objects(lines: LineReader, name: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The messages of a file, each with the line that it begins on."""
    whole = []
    while (line := lines.read()) is not None:
        whole.append(line)
    try:
        found = list(elements(b"".join(whole)))
    except BadArrayError as error:
        raise _refused(name, error.line, str(error)) from None
    for number, given in found:
        if not isinstance(given, dict):
            raise _refused(name, number, "must be a message object")
    return found


def _prepared(name: str, line: int, given: Mapping[str, Any], max_bytes: int) -> PreparedMessage:
    try:
        flat, unknown = _cased(given, _MESSAGE_KEYS)
        own = unknown.pop(_OWN_KEY, None)
        message, kind = _original(flat, own)
        notes: dict[str, Any] = {"metadata": {_NOTES: unknown}} if unknown else {}
        return prepare(message, max_bytes=max_bytes, kind=kind, **notes)
    except InvalidInputError as error:
        raise _refused(name, line, str(error), error.limit) from error


def _original(flat: Mapping[str, Any], own: object) -> tuple[dict[str, Any], str | None]:
    """The message that a file tells of: the one that this library noted, unless somebody changed what Go sees of it."""
    if isinstance(own, dict) and isinstance(own.get("message"), dict):
        message = own["message"]
        seen = _flat_chat(message, old=False)
        if all(seen[key] == value for key, value in flat.items()):
            return message, own.get("kind") or _told_kind(message)
    chat = _chat(flat)
    return chat, _told_kind(chat)


def _told_kind(message: Mapping[str, Any]) -> str | None:
    """A message of a role that no chat API knows is kept as it is, under a kind of its own."""
    return DEEP_AGENT if "type" not in message and message.get("role") not in content.ROLES else None


def _kind(message: Mapping[str, Any]) -> str:
    return _told_kind(message) or str(message.get("type", content.MESSAGE_KIND))


def _chat(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The chat message of what Go has."""
    chat: dict[str, Any] = {"role": _text(flat, "Role"), "content": None if flat.get("Content") is None else _text(flat, "Content")}
    calls = flat.get("ToolCalls")
    if calls:
        if not isinstance(calls, list):
            raise InvalidInputError("ToolCalls", "must be a list or null")
        chat["tool_calls"] = [_chat_call(call) for call in calls]
    if answered := _text(flat, "ToolCallID"):
        chat["tool_call_id"] = answered
    return chat


def _chat_call(given: object) -> dict[str, Any]:
    """The tool call of a chat API: it has name and arguments one level deeper than Go."""
    if not isinstance(given, dict):
        raise InvalidInputError("ToolCalls", "must hold objects")
    call, unknown = _cased(given, _CALL_KEYS)
    arguments = call.get("Arguments")
    text = _encoded(arguments) if isinstance(arguments, dict) else _text(call, "Arguments")
    function = {"name": _text(call, "Name"), "arguments": text}
    return {"id": _text(call, "ID"), "type": _text(call, "Type") if "Type" in call else "function", "function": function, **unknown}


def _cased(given: Mapping[str, Any], known: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of known keys, whatever their case, under Go's names; and the others. Of equal keys the last counts, as in Go."""
    found: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for key, value in given.items():
        name = known.get(key.lower().replace("_", ""))
        if name is None:
            unknown[key] = value
        else:
            found[name] = value
    return found, unknown


def _encoded(arguments: dict[str, Any]) -> str:
    return inputs.json_object("Arguments", arguments, max_bytes=MAX_LINE_BYTES)


def _text(flat: Mapping[str, Any], key: str) -> str:
    value = flat.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError(key, "must be a text")
    return value


def _refused(name: str, line: int, reason: str, limit: float | None = None) -> InvalidInputError:
    return InvalidInputError("source", f"line {line} of {name}: {reason}", limit=limit)
