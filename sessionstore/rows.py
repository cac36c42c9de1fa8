"""Message rows: what a call's arguments become, and the checksum that every row carries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from zlib import crc32

from . import clock, content, inputs
from .errors import InvalidInputError

# Where things stand in a row: id, kind, role, text, extra, then what few messages have, then created_at and crc.
_RARE: Final = slice(5, 16)
_CREATED_AT: Final = 16
CRC: Final = 17
_NOTHING_RARE: Final = (None,) * 11
_NO_FACTS: Final = (None,) * 9
DEDUPE_KEY: Final = 6


class PreparedMessage(NamedTuple):
    """A message whose values are checked and encoded.

    Attributes:
        columns: kind, role, text, extra, tool_call_ids, tool_call_id, dedupe_key, model, finish_reason, input_tokens,
            output_tokens, cache_read_tokens, reasoning_tokens, response_time_ms, metadata.
        created_at: Its stored instant; None for the time of the call.
    """

    columns: tuple[Any, ...]
    created_at: str | None

    @property
    def dedupe_key(self) -> str | None:
        """The key that makes a repeated append a no-op."""
        return self.columns[DEDUPE_KEY]  # type: ignore[no-any-return]

    def row(self, identity: int, now: str) -> tuple[Any, ...]:
        """The whole row, under the id that it was given."""
        unsigned = (identity, *self.columns, self.created_at or now)
        return (*unsigned, checksum(unsigned))


def prepare(
    message: object, *, max_bytes: int, kind: str | None = None, created_at: datetime | None = None, **facts: Any
) -> PreparedMessage:
    """Check and encode a message and what is known about it, as `MessageDetails` has it.

    Raises:
        InvalidInputError: Something is refused; nothing was written.
    """
    stored = content.encode(message, kind=kind, max_bytes=max_bytes)
    return PreparedMessage(
        stored + (_facts(**facts) if facts else _NO_FACTS),
        None if created_at is None else clock.to_text(inputs.instant("created_at", created_at)),
    )


def chat_message(role: str, text: object, extra: dict[str, Any]) -> dict[str, Any]:
    """The message dict of a role, a content and other keys."""
    if not isinstance(role, str):
        raise InvalidInputError("role", "must be one of " + ", ".join(content.ROLES))
    if text is not None and not isinstance(text, str | list):
        raise InvalidInputError("content", "must be a str, a list of content parts, or None")
    return {"role": role, "content": text, **extra}


def checksum(row: tuple[Any, ...]) -> int:
    """A CRC-32 over all that a row stores. It finds damage, not forgery."""
    rare = row[_RARE]
    tail = "" if rare == _NOTHING_RARE else repr(rare)
    return crc32(f"{row[0]}\x1f{row[1]}\x1f{row[2]}\x1f{row[_CREATED_AT]}\x1f{row[4]}\x1f{tail}\x1f{row[3]}".encode())


def is_intact(row: tuple[Any, ...]) -> bool:
    """Whether a row as it was read is the row that was written."""
    return bool(checksum(row) == row[CRC])


def _facts(
    *,
    dedupe_key: str | None = None,
    model: str | None = None,
    finish_reason: str | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cache_read_tokens: int | None = None,
    reasoning_tokens: int | None = None,
    response_time_ms: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    return (
        inputs.optional_identifier("dedupe_key", dedupe_key),
        inputs.optional_identifier("model", model),
        inputs.optional_identifier("finish_reason", finish_reason),
        inputs.optional_whole_number("input_tokens", input_tokens),
        inputs.optional_whole_number("output_tokens", output_tokens),
        inputs.optional_whole_number("cache_read_tokens", cache_read_tokens),
        inputs.optional_whole_number("reasoning_tokens", reasoning_tokens),
        inputs.optional_duration("response_time_ms", response_time_ms),
        inputs.metadata(metadata),
    )
