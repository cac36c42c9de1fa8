"""Keyword arguments that several calls share, and the checked values that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, Final, TypedDict, Unpack

from . import inputs
from .config import OnExpire
from .content import ROLES, decoded
from .errors import InvalidInputError
from .periods import Bucket
from .values import COMPLETED_STATUS, END_STATUSES, MAX_SEQ, SESSION_STATUSES, SessionStatus

MAX_WORDS_CHARS: Final = 1_000

PlainValue = str | int | float | bool | None


class Unset:
    """The type of `UNSET`, which says that something is not given (None is a value)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


class SessionAttributes(TypedDict, total=False):
    """What a session may be given when it is made.

    Keys:
        user_id: Whose session it is.
        agent_id: Which agent it talks to.
        title: At most 1,000 characters.
        tags: At most 100.
        metadata: A JSON dict of at most 1 MiB.
        pinned: Spare it: it neither expires nor is pruned.
        ttl: How long it lives without an append, in seconds or as a timedelta; None for ever. The store's by default.
        max_age: How long it lives altogether, likewise.
    """

    user_id: str | None
    agent_id: str | None
    title: str | None
    tags: Iterable[str]
    metadata: Mapping[str, Any] | None
    pinned: bool
    ttl: float | timedelta | None
    max_age: float | timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """The checked attributes of a session to be made; `metadata` is JSON text, lives are seconds.

    Attributes:
        on_expire: What becomes of an expired session of the same name.
        tracked: Whether a tracker begins it.
    """

    namespace: str
    session_id: str
    user_id: str | None
    agent_id: str | None
    title: str | None
    tags: tuple[str, ...]
    metadata: str | None
    pinned: bool
    ttl: float | None = None
    max_age: float | None = None
    on_expire: OnExpire = "keep"
    tracked: bool = False


def new_session(
    namespace: str,
    session_id: str,
    *,
    user_id: str | None = None,
    agent_id: str | None = None,
    title: str | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    pinned: bool = False,
    ttl: float | timedelta | None = None,
    max_age: float | timedelta | None = None,
    on_expire: OnExpire = "keep",
    tracked: bool = False,
) -> NewSession:
    """Check the attributes of a session."""
    return NewSession(
        namespace=namespace,
        session_id=inputs.identifier("session_id", session_id),
        user_id=inputs.optional_identifier("user_id", user_id),
        agent_id=inputs.optional_identifier("agent_id", agent_id),
        title=inputs.short_text("title", title, max_chars=inputs.MAX_TITLE_CHARS),
        tags=inputs.tags(tags),
        metadata=inputs.metadata(metadata),
        pinned=inputs.flag("pinned", pinned),
        ttl=inputs.life("ttl", ttl),
        max_age=inputs.life("max_age", max_age),
        on_expire=on_expire,
        tracked=tracked,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """How a session ended; what is UNSET stays as it is. `metadata` is merged into what the session has."""

    status: str
    quality_score: int | None | Unset = UNSET
    error: str | None | Unset = UNSET
    feedback: str | None | Unset = UNSET
    message_count: int | None | Unset = UNSET
    metadata: Mapping[str, Any] | None = None


def session_end(
    status: str,
    *,
    quality_score: int | None | Unset = UNSET,
    error: str | None | Unset = UNSET,
    feedback: str | None | Unset = UNSET,
    message_count: int | None | Unset = UNSET,
    metadata: Mapping[str, Any] | None = None,
) -> SessionEnd:
    """Check how a session is said to have ended."""
    if not isinstance(quality_score, Unset):
        quality_score = inputs.optional_whole_number("quality_score", quality_score, least=1, most=5)
    if not isinstance(error, Unset):
        error = inputs.short_text("error", error, max_chars=inputs.MAX_ERROR_CHARS)
    if not isinstance(feedback, Unset):
        feedback = inputs.short_text("user_feedback", feedback, max_chars=inputs.MAX_ERROR_CHARS)
    if not isinstance(message_count, Unset):
        message_count = inputs.optional_whole_number("message_count", message_count, most=MAX_SEQ)
    noted = inputs.metadata(metadata)
    status = inputs.choice("status", status, END_STATUSES)
    if status == COMPLETED_STATUS and isinstance(error, Unset):
        # What went well after all has no error.
        error = None
    return SessionEnd(
        status=status,
        quality_score=quality_score,
        error=error,
        feedback=feedback,
        message_count=message_count,
        # Decoded again, the dict cannot change until it is stored.
        metadata=None if noted is None else decoded(noted),
    )


class SessionFilters(TypedDict, total=False):
    """Which sessions; every filter that is given must hold.

    Keys:
        agent_id: This agent's; None for sessions without an agent.
        user_id: This user's; None for sessions without a user.
        status: open, completed, failed or expired; expired ones are chosen only if asked for.
        tag: With this tag, or with all of these.
        metadata: Whose top-level metadata have these plain values.
        since: Changed at or after this aware datetime.
        until: Changed before it.
        text: With this piece of text in the title or in a message, whatever the case of its ASCII letters. It reads every
            message of the sessions that the other filters leave.
        pinned: Pinned ones (True) or others (False).
        archived: Archived ones (True) or others (False); None for both.
    """

    agent_id: str | None
    user_id: str | None
    status: SessionStatus | None
    tag: str | Iterable[str] | None
    metadata: Mapping[str, PlainValue] | None
    since: datetime | None
    until: datetime | None
    text: str | None
    pinned: bool | None
    archived: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Checked filters. `namespace` None means all namespaces."""

    namespace: str | None
    agent_id: str | None | Unset = UNSET
    user_id: str | None | Unset = UNSET
    status: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, PlainValue] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    pinned: bool | None = None
    archived: bool | None = None

    @property
    def chooses_all(self) -> bool:
        """Whether it filters by nothing but the namespace."""
        return self == SessionFilter(namespace=self.namespace)


def session_filter(
    namespace: str | None,
    *,
    agent_id: str | None | Unset = UNSET,
    user_id: str | None | Unset = UNSET,
    status: SessionStatus | None = None,
    tag: str | Iterable[str] | None = None,
    metadata: Mapping[str, PlainValue] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    text: str | None = None,
    pinned: bool | None = None,
    archived: bool | None = None,
) -> SessionFilter:
    """Check the filters of a call."""
    if text is not None:
        text = inputs.short_text("text", text, max_chars=MAX_WORDS_CHARS)
        if not text or text.isspace():
            raise InvalidInputError("text", "must not be empty: it would be found everywhere")
    return SessionFilter(
        namespace=namespace,
        agent_id=agent_id if isinstance(agent_id, Unset) else inputs.optional_identifier("agent_id", agent_id),
        user_id=user_id if isinstance(user_id, Unset) else inputs.optional_identifier("user_id", user_id),
        status=None if status is None else inputs.choice("status", status, SESSION_STATUSES),
        tags=() if tag is None else inputs.tags((tag,) if isinstance(tag, str) else tag),
        metadata={} if metadata is None else inputs.metadata_filter(metadata),
        since=inputs.optional_instant("since", since),
        until=inputs.optional_instant("until", until),
        text=text,
        pinned=None if pinned is None else inputs.flag("pinned", pinned),
        archived=None if archived is None else inputs.flag("archived", archived),
    )


class SearchFilters(TypedDict, total=False):
    """Where a search looks; every filter that is given must hold.

    Keys:
        session_id: In this session only, with what it shares with others as a fork.
        agent_id: In this agent's sessions; None for sessions without an agent.
        user_id: In this user's; None for sessions without a user.
        role: In messages of this role.
        since: In messages written at or after this aware datetime.
        until: In messages written before it.
        tag: In sessions with this tag, or with all of these.
        metadata: In sessions whose top-level metadata have these plain values.
    """

    session_id: str | None
    agent_id: str | None
    user_id: str | None
    role: str | None
    since: datetime | None
    until: datetime | None
    tag: str | Iterable[str] | None
    metadata: Mapping[str, PlainValue] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFilter:
    """Checked filters of a search: of the sessions, and of the messages in them."""

    sessions: SessionFilter
    session_id: str | None = None
    role: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def search_filter(
    namespace: str,
    *,
    session_id: str | None = None,
    role: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    agent_id: str | None | Unset = UNSET,
    user_id: str | None | Unset = UNSET,
    tag: str | Iterable[str] | None = None,
    metadata: Mapping[str, PlainValue] | None = None,
) -> SearchFilter:
    """Check the filters of a search."""
    return SearchFilter(
        sessions=session_filter(namespace, agent_id=agent_id, user_id=user_id, tag=tag, metadata=metadata),
        session_id=inputs.optional_identifier("session_id", session_id),
        role=None if role is None else inputs.choice("role", role, ROLES),
        since=inputs.optional_instant("since", since),
        until=inputs.optional_instant("until", until),
    )


class AnalyticsFilters(TypedDict, total=False):
    """What an analysis looks at; everything in the namespace by default.

    Keys:
        agent_id: One agent.
        start_date: Where the period begins: an aware datetime, or a date, which means its UTC midnight.
        end_date: Where it ends, likewise; what is at that instant is no longer in it.
        bucket: "hour", "day", "week" or "month": also by time.
    """

    agent_id: str | None
    start_date: date | None
    end_date: date | None
    bucket: Bucket | None


class TimerOptions(TypedDict, total=False):
    """What a timer may be told beside its name.

    Keys:
        agent_id: The agent that the time is about.
        session_id: The session that it is about.
        attributes: What else is known, a JSON dict.
        strict: Raise if the time cannot be recorded. By default that is logged and counted (`status().metrics_lost`), and
            the program goes on; while an exception is on its way, it is so in any case.
    """

    agent_id: str | None
    session_id: str | None
    attributes: Mapping[str, Any] | None
    strict: bool


class MessageDetails(TypedDict, total=False):
    """What may be known about a message beside its dict.

    Keys:
        kind: Store a dict of any shape under this kind.
        dedupe_key: Appending the same message with the same key again changes nothing and returns the stored one.
        model: The model that wrote it.
        finish_reason: Why the model stopped.
        input_tokens: Tokens that the model read.
        output_tokens: Tokens that the model wrote.
        cache_read_tokens: Input tokens that came from the provider's cache.
        reasoning_tokens: Output tokens spent on reasoning.
        response_time_ms: Milliseconds from the question to the whole answer.
        metadata: The caller's own notes, a JSON dict.
        created_at: An aware datetime; the time of the call by default. It does not change the order.
    """

    kind: str | None
    dedupe_key: str | None
    model: str | None
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    reasoning_tokens: int | None
    response_time_ms: float | None
    metadata: Mapping[str, Any] | None
    created_at: datetime | None


class NewMessage:
    """A message to append, with what is known about it: `NewMessage(message, model=..., input_tokens=...)`."""

    __slots__ = ("_details", "_message")

    def __init__(self, message: Mapping[str, Any], **details: Unpack[MessageDetails]) -> None:
        refuse_unknown(details, MessageDetails)
        self._message = message
        self._details = details

    @property
    def message(self) -> Mapping[str, Any]:
        """The message dict."""
        return self._message

    @property
    def details(self) -> MessageDetails:
        """What is known about it."""
        return self._details

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NewMessage) and (self._message, self._details) == (other._message, other._details)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"NewMessage(..., {', '.join(f'{key}=...' for key in self._details)})"


@dataclass(frozen=True, slots=True)
class NewMetric:
    """A figure to record with others, in `record_many`.

    Attributes:
        name: What it measures: 1 to 256 printable characters, as of an id.
        value: A finite int or float; kept as a double.
        unit: What it is counted in.
        attributes: What else is known, a JSON dict of at most 1 MiB.
        agent_id: The agent that it is about; it need not be registered.
        session_id: The session that it is about; it need not be there.
        at: When it was so, an aware datetime; the time of the call by default.
    """

    name: str
    # Without what it says: reprs end up in logs.
    value: float = field(repr=False)
    unit: str | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] | None = field(default=None, repr=False)
    _: KW_ONLY
    agent_id: str | None = None
    session_id: str | None = None
    at: datetime | None = None


def refuse_unknown(given: Iterable[str], known: type) -> None:
    """Raise TypeError, as Python does, for keyword arguments that a TypedDict of this module does not have."""
    names = known.__annotations__
    for name in given:
        if name not in names:
            raise TypeError(f"there is no argument {name!r}; there are {', '.join(names)}")


def several(name: str, value: object, *, most: int | None = None) -> tuple[Any, ...]:
    """The elements of an iterable that is neither a text nor a dict; of too many, or endless ones, no more than that are read."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInputError(name, "must be a list, a tuple or another iterable")
    if most is None:
        return tuple(value)
    elements = tuple(islice(value, most + 1))
    if len(elements) > most:
        raise InvalidInputError(name, f"must be at most {most} in one call", limit=most)
    return elements
