"""Message rows: what a call's arguments become, and the checksum that every row carries.

A row is id, kind, role, text, extra, facts, created_at, crc and packed. `facts` is the JSON object of what few messages have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from zlib import crc32

from . import clock, content, inputs
from .errors import InvalidInputError
from .large import LOOKED_AT, MARK, Large, as_fact, lightened, whole

ASKING_ROLE: Final = "user"
ANSWERING_ROLE: Final = "assistant"

# The longer one of a text and its rest has half of their bytes at least, and a character has up to four.
_LEAST_SHARE: Final = 8
_ALL_BITS: Final = 0xFFFFFFFF


class PreparedMessage(NamedTuple):
    """A message whose values are checked and encoded.

    Attributes:
        dedupe_key: The key that makes a repeated append a no-op.
        created_at: Its stored instant; None for the time of the call.
        untimed: Whether it is an assistant's message whose time nobody gave.
        large: What of it does not stand in its row, if anything.
    """

    kind: str
    role: str | None
    text: str | None
    extra: str | None
    facts: str | None
    dedupe_key: str | None
    created_at: str | None
    untimed: bool = False
    large: Large | None = None

    def timed(self, elapsed_ms: float) -> PreparedMessage:
        """The message with the time that the store took, since the user message that it answers."""
        noted = f'"elapsed_ms":{elapsed_ms!r}}}'
        facts = "{" + noted if self.facts is None else f"{self.facts[:-1]},{noted}"
        return self._replace(facts=facts, untimed=False)

    def to_dict(self) -> dict[str, Any]:
        """The message dict as it was given."""
        return whole(self.role, self.text, self.extra, () if self.large is None else self.large.restored)

    def row(self, identity: int, now: str, seed: int = 0) -> tuple[Any, ...]:
        """The whole row, not packed, under the id that it was given. The seed is the store's: see `first_damaged`."""
        kind, role, text, extra, facts, _, created_at, _, _ = self
        at = created_at or now
        return identity, kind, role, text, extra, facts, at, checksum(identity, kind, role, text, extra, facts, at, seed), None


def prepare(
    message: object,
    *,
    max_bytes: int,
    kind: str | None = None,
    dedupe_key: str | None = None,
    created_at: datetime | None = None,
    elapsed_ms: float | None = None,
    compress_over: int | None = None,
    take_blobs: bool = True,
    **facts: Any,
) -> PreparedMessage:
    """Check and encode a message and what is known about it, as `MessageDetails` has it.

    Args:
        message: The message dict.
        max_bytes: The limit of its text and of the rest.
        kind: See `MessageDetails`, as for what follows it.
        dedupe_key: See there.
        created_at: See there.
        elapsed_ms: What a store timed.
        compress_over: Pack a message of more bytes; None for never.
        take_blobs: Keep large strings beside the row.
        facts: What else is known.

    Raises:
        InvalidInputError: Something is refused; nothing was written.
    """
    stored = content.encode(message, kind=kind, max_bytes=max_bytes)
    answers = stored.role == ANSWERING_ROLE
    large = None
    looked_at = LOOKED_AT if compress_over is None else min(LOOKED_AT, compress_over // _LEAST_SHARE)
    if (stored.text is not None and len(stored.text) > looked_at) or (stored.extra is not None and len(stored.extra) > looked_at):
        stored, large = lightened(stored, compress_over, take_blobs=take_blobs)
    restored = () if large is None else large.restored
    if stored.extra is None and not facts and dedupe_key is None and created_at is None and elapsed_ms is None and not restored:
        return PreparedMessage(*stored, None, None, None, answers, large)
    known = _facts(**facts)
    if elapsed_ms is not None:
        known["elapsed_ms"] = inputs.duration("elapsed_ms", elapsed_ms)
    if dedupe_key is not None:
        known["dedupe_key"] = dedupe_key = inputs.identifier("dedupe_key", dedupe_key)
    if stored.extra is not None and isinstance(message, dict):
        made, answered = content.call_ids(stored.kind, message)
        if made:
            known["tool_call_ids"] = made
        if answered is not None:
            known["tool_call_id"] = answered
    if restored:
        known["blobs"] = as_fact(restored)
    return PreparedMessage(
        *stored,
        inputs.encode_json(known) if known else None,
        dedupe_key,
        None if created_at is None else clock.to_text(inputs.instant("created_at", created_at)),
        answers and "response_time_ms" not in known and "elapsed_ms" not in known,
        large,
    )


def prepare_plain(message: object, *, max_bytes: int, compress_over: int | None = None) -> PreparedMessage | None:
    """What `prepare` makes of a role and a short text, which nearly every message is; None for any other message.

    Raises:
        InvalidInputError: The text is refused.
    """
    if type(message) is not dict or len(message) != 2:
        return None
    role, text = message.get("role"), message.get("content")
    if type(role) is not str or role not in content.ROLE_SET or type(text) is not str:
        return None
    if len(text) > LOOKED_AT or (compress_over is not None and len(text) > compress_over // _LEAST_SHARE):
        return None
    checked = inputs.text("content", text, max_bytes=max_bytes)
    return PreparedMessage(content.MESSAGE_KIND, role, checked, None, None, None, None, role == ANSWERING_ROLE)


def chat_message(role: str, text: object, extra: dict[str, Any]) -> dict[str, Any]:
    """The message dict of a role, a content and other keys."""
    if text is not None and not isinstance(text, str | list):
        raise InvalidInputError("content", "must be a str, a list of content parts, or None")
    return {"role": role, "content": text, **extra}


def store_seed(store_id: str) -> int:
    """What the checksums of a store begin with, so that pages of another store do not pass for its own."""
    return crc32(store_id.encode())


def first_damaged(rows: Iterable[Sequence[Any]], seed: int = 0) -> Sequence[Any] | None:
    """The first row that is not what was written to this store, or is packed or has blobs; None if all are plain.

    So reading plain rows pays nothing for the others; `is_intact` tells them apart. It finds damage, not forgery.
    """
    for row in rows:
        identity, kind, role, text, extra, facts, created_at, crc, _ = row
        # `checksum`, written out: the call would cost as much as the sum. So would None in an f-string.
        rest = "None" if extra is None else extra
        noted = "None" if facts is None else facts
        if crc32(f"{identity}\x1f{kind}\x1f{role}\x1f{text}\x1f{rest}\x1f{noted}\x1f{created_at}".encode(), seed) != crc:
            return row
    return None


def is_intact(row: Sequence[Any], seed: int) -> bool:
    """Whether an unpacked row is what was written to this store, with blobs or without."""
    if not _may_be_intact(row):
        return False
    # Older versions put nothing into blobs: what looks like a row with blobs may be none.
    return _checksum_of(row, row[0], seed) == row[7] or first_damaged((row,), seed) is None


def renumbered(row: Sequence[Any], identity: int, seed: int) -> Sequence[Any]:
    """An unpacked row under another id. A damaged one stays so: what is wrong with its checksum is carried over."""
    if not _may_be_intact(row):
        # It is damaged under any id.
        return (identity, *row[1:8], None)
    wrong = _checksum_of(row, row[0], seed) ^ row[7]
    return (identity, *row[1:7], _checksum_of(row, identity, seed) ^ wrong, None)


def _may_be_intact(row: Sequence[Any]) -> bool:
    """Whether facts and checksum are of their types: damage may have made others of them."""
    return isinstance(row[5], str | None) and isinstance(row[7], int)


def checksum(
    identity: int,
    kind: str,
    role: str | None,
    text: str | None,
    extra: str | None,
    facts: str | None,
    created_at: str,
    seed: int,
    /,
) -> int:
    """A CRC-32 over all that a row stores when it is not packed; inverted for a row that has blobs."""
    rest = "None" if extra is None else extra
    noted = "None" if facts is None else facts
    crc = crc32(f"{identity}\x1f{kind}\x1f{role}\x1f{text}\x1f{rest}\x1f{noted}\x1f{created_at}".encode(), seed)
    return crc if facts is None or MARK not in facts else crc ^ _ALL_BITS


def _checksum_of(row: Sequence[Any], identity: int, seed: int) -> int:
    _, kind, role, text, extra, facts, created_at, _, _ = row
    return checksum(identity, kind, role, text, extra, facts, created_at, seed)


def _facts(
    *,
    model: str | None = None,
    finish_reason: str | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cache_read_tokens: int | None = None,
    reasoning_tokens: int | None = None,
    response_time_ms: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    if metadata is not None:
        inputs.metadata(metadata)
    known = {
        "model": inputs.optional_identifier("model", model),
        "finish_reason": inputs.optional_identifier("finish_reason", finish_reason),
        "input_tokens": inputs.optional_whole_number("input_tokens", input_tokens),
        "output_tokens": inputs.optional_whole_number("output_tokens", output_tokens),
        "cache_read_tokens": inputs.optional_whole_number("cache_read_tokens", cache_read_tokens),
        "reasoning_tokens": inputs.optional_whole_number("reasoning_tokens", reasoning_tokens),
        "response_time_ms": inputs.optional_duration("response_time_ms", response_time_ms),
        "metadata": metadata,
    }
    return {name: value for name, value in known.items() if value is not None}
