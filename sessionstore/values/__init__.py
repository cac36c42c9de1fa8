"""What calls take and return: frozen value objects, never live database rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Final, Generic, Literal, TypeVar

from .. import clock, content, large

T = TypeVar("T")


class AgentStatus(StrEnum):
    """What an agent says of itself; "offline" is also what is said of one that was not heard of for long."""

    ACTIVE = "active"
    IDLE = "idle"
    BUSY = "busy"
    ERROR = "error"
    OFFLINE = "offline"
    INITIALIZING = "initializing"


class ConversationQuality(IntEnum):
    """How good a conversation was."""

    EXCELLENT = 5
    GOOD = 4
    AVERAGE = 3
    POOR = 2
    VERY_POOR = 1


SessionStatus = Literal["open", "completed", "failed", "expired"]
EndStatus = Literal["completed", "failed"]
StateScope = Literal["session", "user", "app", "temp"]

OPEN_STATUS: Final = "open"
SESSION_STATUSES: Final = ("open", "completed", "failed", "expired")
END_STATUSES: Final = ("completed", "failed")
COMPLETED_STATUS: Final = "completed"
EXPIRED_STATUS: Final = "expired"
AGENT_STATUSES: Final = tuple(status.value for status in AgentStatus)
ACTIVITY_KINDS: Final = ("registered", "status", "activity")
SEARCH_MODES: Final = ("on", "deferred", "off")
# Full-text tables, which no model describes.
SEARCH_TABLES: Final = ("message_words", "message_trigrams")
STATE_SCOPES: Final = ("session", "user", "app")
OUTBOX_STATES: Final = ("pending", "sent", "dead", "erased")

# A message's id packs its session's key and its seq, so that a session's messages lie side by side in the file.
SEQ_BITS: Final = 24
MAX_SEQ: Final = (1 << SEQ_BITS) - 1

FIGURES: Final = frozenset(
    {"input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "response_time_ms", "elapsed_ms"}
)
_TOLD: Final = FIGURES | {"model", "finish_reason"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBlob:
    """A large part of a message, which stands in `blobs`, once for all messages that have it.

    Attributes:
        path: Where it belongs in the message dict: ("content",), ("content", 1, "image_url", "url") ...
        hash: The SHA-256 of its content, the bytes of a data URL or the UTF-8 of a text.
        size_bytes: The size of this content.
    """

    path: tuple[str | int, ...]
    hash: str
    size_bytes: int


class Message:
    """One stored message.

    It is read-only and equal to another one that stores the same. Values are decoded when they are asked for, so that a
    long history costs little until it is looked at.
    """

    __slots__ = ("_large", "_row", "_session_id")

    def __init__(self, session_id: str, row: Sequence[Any], restored: large.Restored = ()) -> None:
        self._session_id = session_id
        self._row = row
        self._large = restored

    @property
    def session_id(self) -> str:
        """The session that it was read from."""
        return self._session_id

    @property
    def seq(self) -> int:
        """Its place in the session: 1, 2, 3 ..., never reused."""
        return int(self._row[0]) & MAX_SEQ

    @property
    def kind(self) -> str:
        """The word "message", or the type of an item that is stored opaquely."""
        return str(self._row[1])

    @property
    def role(self) -> str | None:
        """system, developer, user, assistant, tool or function; None for items without one."""
        return self._row[2]  # type: ignore[no-any-return]

    @property
    def text(self) -> str | None:
        """The readable words: the content if it is a text, else the texts of its parts, a line each."""
        return self._row[3] if self._row[4] is None and not self._large else content.words(self.content)

    @property
    def content(self) -> str | list[Any] | dict[str, Any] | None:
        """The content as it was given; None if it is null or absent."""
        return self.to_dict().get("content")

    @property
    def blobs(self) -> tuple[MessageBlob, ...]:
        """Its strings of more than 64 KiB; where they were not read, `blob:sha256-` and the hash stand in their places."""
        return tuple(MessageBlob(path=each.path, hash=each.hash, size_bytes=each.size_bytes) for each, _ in self._large)

    @property
    def tool_call_ids(self) -> tuple[str, ...]:
        """The ids of the tool calls that it makes."""
        return tuple(self._fact("tool_call_ids") or ())

    @property
    def tool_call_id(self) -> str | None:
        """The id of the tool call that it answers."""
        return self._fact("tool_call_id")  # type: ignore[no-any-return]

    @property
    def dedupe_key(self) -> str | None:
        """The key that makes a repeated append a no-op."""
        return self._fact("dedupe_key")  # type: ignore[no-any-return]

    @property
    def model(self) -> str | None:
        """The model that wrote it."""
        return self._fact("model")  # type: ignore[no-any-return]

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped."""
        return self._fact("finish_reason")  # type: ignore[no-any-return]

    @property
    def input_tokens(self) -> int | None:
        """Tokens that the model read."""
        return self._fact("input_tokens")  # type: ignore[no-any-return]

    @property
    def output_tokens(self) -> int | None:
        """Tokens that the model wrote."""
        return self._fact("output_tokens")  # type: ignore[no-any-return]

    @property
    def cache_read_tokens(self) -> int | None:
        """Those of the input tokens that came from the provider's cache."""
        return self._fact("cache_read_tokens")  # type: ignore[no-any-return]

    @property
    def reasoning_tokens(self) -> int | None:
        """Those of the output tokens that were spent on reasoning."""
        return self._fact("reasoning_tokens")  # type: ignore[no-any-return]

    @property
    def response_time_ms(self) -> float | None:
        """Milliseconds from the question to the whole answer."""
        return self._fact("response_time_ms")  # type: ignore[no-any-return]

    @property
    def elapsed_ms(self) -> float | None:
        """Milliseconds since the user message that it answers, timed by the store where no `response_time_ms` was given."""
        return self._fact("elapsed_ms")  # type: ignore[no-any-return]

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The caller's own notes about the message."""
        return self._fact("metadata")  # type: ignore[no-any-return]

    @property
    def created_at(self) -> datetime:
        """When it was appended, in UTC."""
        return clock.from_text(self._row[6])

    @property
    def has_figures(self) -> bool:
        """Whether it says what it cost: tokens or time."""
        facts = self._row[5]
        return facts is not None and not FIGURES.isdisjoint(content.decoded(facts))

    def figures(self) -> dict[str, Any]:
        """What is known of its cost, by name: model, finish reason, tokens, times."""
        return {name: value for name, value in content.decoded(self._row[5] or "{}").items() if name in _TOLD}

    def to_dict(self) -> dict[str, Any]:
        """The message dict as it was given, key for key, for a model or another program."""
        row = self._row
        role, text, extra = row[2], row[3], row[4]
        if self._large:
            return large.whole(role, text, extra, self._large)
        if extra is None and role is not None and text is not None:
            # Nearly every message; `decode` would do the same, for twice the time.
            return {"role": role, "content": text}
        return content.decode(role, text, extra)

    def _fact(self, name: str) -> Any:
        facts = self._row[5]
        return None if facts is None else content.decoded(facts).get(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._session_id == other._session_id and self._row == other._row

    def __hash__(self) -> int:
        return hash((self._session_id, self._row))

    def __repr__(self) -> str:
        # Without the text: reprs end up in logs.
        return f"Message(session_id={self._session_id!r}, seq={self.seq}, role={self.role!r}, kind={self.kind!r})"


@dataclass(frozen=True, slots=True)
class SupersededMessage:
    """A message that `replace_range` took out of a session.

    Attributes:
        message: What it was: its text, role and all else are there.
        superseded_at: When another one took its place, or nothing did.
    """

    message: Message
    superseded_at: datetime

    @property
    def seq(self) -> int:
        """The place that it had."""
        return self.message.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """What is known about a session, without its messages.

    Attributes:
        namespace: Part of its name; "" by default.
        session_id: Its name within the namespace.
        status: open, completed, failed or expired.
        version: Grows with every change except appends; pass it as `expected_version`.
        message_count: How many messages it holds.
        last_seq: The seq that was given last, 0 if none was; grows with appends, stays when messages are removed.
        quality_score: 1 (very poor) to 5 (excellent), or None.
        expires_at: When it becomes invisible unless it is used or ended before; None means never.
        ttl: Seconds that it lives without an append; None for ever.
        max_age: Seconds that it lives altogether; None for ever.
        tracked: Whether a tracker began it.
        feedback: What the user said about it.
        reported_message_count: How many messages it had, as its end told; `message_count` counts those that are stored.
        forked_at: Of a fork, the seq up to which it began with the messages of its parent.
    """

    namespace: str
    session_id: str
    user_id: str | None
    agent_id: str | None
    title: str | None = field(repr=False)
    status: SessionStatus
    pinned: bool
    tags: tuple[str, ...]
    metadata: dict[str, Any] = field(repr=False)
    version: int
    message_count: int
    last_seq: int
    quality_score: int | None
    error: str | None = field(repr=False)
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    archived_at: datetime | None
    expires_at: datetime | None
    ttl: float | None = None
    max_age: float | None = None
    tracked: bool = False
    feedback: str | None = field(default=None, repr=False)
    reported_message_count: int | None = None
    forked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the results; pass `next_cursor` to the same call to get the following ones, None if there are none."""

    items: tuple[T, ...]
    next_cursor: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a statement, with the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call of an assistant message; `arguments` is the JSON text that the model wrote."""

    seq: int
    call_id: str
    name: str | None
    arguments: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """A message that answers a tool call."""

    seq: int
    call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallReport:
    """Calls without a result and results without a call."""

    unmatched_calls: tuple[ToolCall, ...]
    unmatched_results: tuple[ToolResult, ...]

    @property
    def ok(self) -> bool:
        """True if every call has its result and every result its call."""
        return not self.unmatched_calls and not self.unmatched_results
