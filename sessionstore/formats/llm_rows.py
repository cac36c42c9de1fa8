"""Rows of llm's tables, whichever of its releases made them, and what the readers of both generations share."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any, Final

Row = dict[str, Any]

ATTACHMENT_COLUMNS: Final = ("id", "type", "path", "url", "content")
_ULID_DIGITS: Final = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ULID_LENGTH: Final = 26
_TIME_DIGITS: Final = 10
_AUDIO_FORMATS: Final = {"audio/wav": "wav", "audio/wave": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
# Where providers say in their usage how much was cached and how much was reasoning.
_CACHED: Final = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("cache_read_input_tokens",),
)
_REASONING: Final = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("reasoning_tokens",),
    ("thoughtsTokenCount",),
)


class LogsError(ValueError):
    """A conversation in the file is not whole; the text says what is missing."""


@dataclass(slots=True)
class Told:
    """A message that llm logged.

    Attributes:
        message: The chat message.
        turn_id: The turn that it belongs to.
        at: When it was sent or answered.
        facts: What is known beside it, by the names that `append` has.
        notes: What else llm knows, for the message's metadata.
        kind: Of a message that is none of a chat, the kind to store it under.
    """

    message: Row
    turn_id: str = ""
    at: datetime | None = None
    facts: Row = field(default_factory=dict)
    notes: Row = field(default_factory=dict)
    kind: str | None = None


class Rows:
    """What a file holds: rows as dicts, in which columns of later releases are None."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        self._columns = {name: self._columns_of(name) for (name,) in names}

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return table in self._columns

    def select(self, table: str, *columns: str, where: str = "", values: Iterable[Any] = (), order: str = "") -> Iterator[Row]:
        """Some columns of a table; no rows if there is no such table, None for columns that it does not have."""
        there = [column for column in columns if column in self._columns.get(table, ())]
        if not there:
            return
        text = f"SELECT {', '.join(map(_quoted, there))} FROM {_quoted(table)}"  # noqa: S608 - names are constants of ours
        text += (f" WHERE {where}" if where else "") + (f" ORDER BY {order}" if order else "")
        with _closing(self._connection.execute(text, tuple(values))) as cursor:
            for row in cursor:
                yield dict.fromkeys(columns) | dict(row)

    def all_of(self, table: str, ids: Iterable[Any], *columns: str) -> list[Row]:
        """The rows of some ids, in the order of the ids.

        Raises:
            LogsError: One is missing.
        """
        found = []
        for one in ids:
            rows = list(self.select(table, *columns, where="id = ?", values=(one,)))
            if not rows:
                raise LogsError(f"{one} is missing in the table {table}")
            found.append(rows[0])
        return found

    def _columns_of(self, table: str) -> frozenset[str]:
        found = self._connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        return frozenset(name for (name,) in found)


class _closing:  # noqa: N801 - as in contextlib
    """A cursor that does not keep its statement open."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def __enter__(self) -> sqlite3.Cursor:
        return self._cursor

    def __exit__(self, *_: object) -> None:
        self._cursor.close()


def _quoted(name: str) -> str:
    return f'"{name}"'


def loads(text: str | None, what: str) -> Any:
    """The value of a JSON text, None of none.

    Raises:
        LogsError: It is no JSON.
    """
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise LogsError(f"{what} is not JSON") from None


def instant(text: str | None, ulid: str | None) -> datetime | None:
    """When something happened: as the text says, else as the ULID does. Times without a zone are UTC, as llm writes them."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        found = None
    if found is None:
        return _of_ulid(ulid)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def later(at: datetime | None, duration_ms: float | None) -> datetime | None:
    """An instant and a duration after it."""
    return at if at is None or not duration_ms else at + timedelta(milliseconds=duration_ms)


def usage(row: Mapping[str, Any]) -> Row:
    """What a turn or a response says of its model, its tokens and its time."""
    details = loads(row["token_details"], "token_details")
    return {
        "model": row["resolved_model"] or row["model"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cache_read_tokens": _count(details, _CACHED),
        "reasoning_tokens": _count(details, _REASONING),
        "response_time_ms": row["duration_ms"],
    }


def provenance(row: Mapping[str, Any]) -> Row:
    """What else is noted of a turn or a response."""
    notes = {
        "id": row["id"],
        "model": row["model"] if row["resolved_model"] else None,
        "options": loads(row["options_json"], "options_json"),
        "token_details": loads(row["token_details"], "token_details"),
        "schema_id": row["schema_id"],
    }
    return {name: value for name, value in notes.items() if value}


def attachment_part(row: Mapping[str, Any]) -> Row:
    """A content part of a chat message for an attachment. One that llm holds by its path stays a path: no file is read."""
    kind = row["type"] or "application/octet-stream"
    data = row["content"]
    if data is None and row["url"] is None:
        return {"type": "file", "file": {"filename": PurePath(row["path"] or "").name, "path": row["path"], "media_type": kind}}
    encoded = base64.b64encode(data).decode("ascii") if data is not None else ""
    url = f"data:{kind};base64,{encoded}" if data is not None else row["url"]
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind in _AUDIO_FORMATS and data is not None:
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO_FORMATS[kind]}}
    name = PurePath(row["path"]).name if row["path"] else f"{row['id'][:16]}"
    return {"type": "file", "file": {"filename": name, "file_data" if data is not None else "file_url": url}}


def content_of(texts: list[str], others: list[Row]) -> Any:
    """The content of a message: a text where that is all, else parts; None if there is nothing."""
    if not others and len(texts) <= 1:
        return texts[0] if texts else None
    return [{"type": "text", "text": text} for text in texts] + others


def _count(details: object, paths: Iterable[tuple[str, ...]]) -> int | None:
    for path in paths:
        found = details
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, int) and found >= 0:
            return found
    return None


def _of_ulid(ulid: str | None) -> datetime | None:
    digits = (ulid or "").upper()
    if len(digits) != _ULID_LENGTH or any(digit not in _ULID_DIGITS for digit in digits):
        return None
    milliseconds = 0
    for digit in digits[:_TIME_DIGITS]:
        milliseconds = milliseconds * 32 + _ULID_DIGITS[digit]
    try:
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
