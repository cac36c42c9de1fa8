"""Keyword arguments that several calls share, and the checked values that they become."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack

from . import inputs
from .errors import InvalidInputError
from .values import SESSION_STATUSES, SessionStatus

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
        pinned: Spare it when old sessions are removed.
    """

    user_id: str | None
    agent_id: str | None
    title: str | None
    tags: Iterable[str]
    metadata: Mapping[str, Any] | None
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """The checked attributes of a session to be made; `metadata` is JSON text."""

    namespace: str
    session_id: str
    user_id: str | None
    agent_id: str | None
    title: str | None
    tags: tuple[str, ...]
    metadata: str | None
    pinned: bool


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


def refuse_unknown(given: Iterable[str], known: type) -> None:
    """Raise TypeError, as Python does, for keyword arguments that a TypedDict of this module does not have."""
    names = known.__annotations__
    for name in given:
        if name not in names:
            raise TypeError(f"there is no argument {name!r}; there are {', '.join(names)}")


def several(name: str, value: object) -> tuple[Any, ...]:
    """The elements of an iterable that is neither a text nor a dict."""
    if isinstance(value, list | tuple):
        return tuple(value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidInputError(name, "must be a list, a tuple or another iterable")
    return tuple(value)
