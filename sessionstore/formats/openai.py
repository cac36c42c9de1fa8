"""OpenAI JSONL: one conversation a line, as for fine-tuning, or one message a line; chat messages or items of the Responses API.

A conversation's line keeps all its keys: `session_id` names the session, `messages` are its messages (`items` its items), and
every other key goes into the session's metadata as it is. So an export gives the line back, with `session_id` added if it had none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from .. import inputs
from ..arguments import new_session
from ..errors import InvalidInputError
from ..rows import PreparedMessage, prepare
from ..values import OPEN_STATUS, SessionInfo
from . import jsonlines

MESSAGES: Final = "messages"
ITEMS: Final = "items"
_SESSION_ID: Final = "session_id"
_ID_KEYS: Final = (_SESSION_ID, "id", "conversation_id")


def is_conversation(first: Mapping[str, Any]) -> bool:
    """Whether a line is a whole conversation."""
    return isinstance(first.get(MESSAGES), list)


def is_list_of_items(first: Mapping[str, Any]) -> bool:
    """Whether a line is a whole conversation, as items."""
    return isinstance(first.get(ITEMS), list)


def is_message(first: Mapping[str, Any]) -> bool:
    """Whether a line is one message."""
    return "role" in first or "type" in first


def conversation(
    line: Mapping[str, Any], *, fallback_id: str, namespace: str, now: datetime, max_bytes: int, held_in: str = MESSAGES
) -> tuple[SessionInfo, list[PreparedMessage]]:
    """The session and the messages of a line, with every value checked; `held_in` is the key that they stand under.

    Raises:
        InvalidInputError: There are no messages, or a value is refused.
    """
    messages = line.get(held_in)
    if not isinstance(messages, list):
        raise InvalidInputError(held_in, f"must be a list of {'message' if held_in == MESSAGES else 'item'} dicts")
    session_id = next((line[key] for key in _ID_KEYS if isinstance(line.get(key), str)), fallback_id)
    named = isinstance(line.get(_SESSION_ID), str)
    metadata = {key: value for key, value in line.items() if key != held_in and not (named and key == _SESSION_ID)}
    prepared = [_prepared(held_in, index, message, max_bytes) for index, message in enumerate(messages)]
    return session(session_id, namespace=namespace, now=now, metadata=metadata), prepared


def session(session_id: str, *, namespace: str, now: datetime, metadata: dict[str, Any] | None = None) -> SessionInfo:
    """A new session to put messages into."""
    new = new_session(namespace, session_id, metadata=metadata)
    return SessionInfo(
        namespace=new.namespace,
        session_id=new.session_id,
        user_id=None,
        agent_id=None,
        title=None,
        status=OPEN_STATUS,
        pinned=False,
        tags=(),
        metadata=metadata or {},
        version=1,
        message_count=0,
        last_seq=0,
        quality_score=None,
        error=None,
        created_at=now,
        updated_at=now,
        ended_at=None,
        archived_at=None,
        expires_at=None,
    )


def numbered(messages: Iterable[PreparedMessage]) -> Iterator[tuple[int, PreparedMessage]]:
    """Messages with the seqs that a new session gives."""
    return enumerate(messages, start=1)


def conversation_parts(info: SessionInfo, messages: Iterable[Mapping[str, Any]], *, held_in: str = MESSAGES) -> Iterator[str]:
    """The text of a conversation's line, piece by piece, so that it never stands in memory as a whole."""
    yield jsonlines.dumps(_keys(info, held_in))[:-1]
    yield f', "{held_in}": ['
    between = ""
    for message in messages:
        yield between + jsonlines.dumps(message)
        between = ", "
    yield "]}\n"


def message_line(message: Mapping[str, Any]) -> str:
    """The line of a single message."""
    return jsonlines.dumps(message) + "\n"


def _keys(info: SessionInfo, held_in: str) -> dict[str, Any]:
    metadata = info.metadata
    if held_in in metadata or isinstance(metadata.get(_SESSION_ID), str):
        # They would hide the real ones. No import makes such metadata.
        return {_SESSION_ID: info.session_id, "metadata": metadata}
    return {_SESSION_ID: info.session_id, **metadata}


def _prepared(held_in: str, index: int, message: object, max_bytes: int) -> PreparedMessage:
    try:
        return prepare(message, max_bytes=max_bytes)
    except InvalidInputError as error:
        raise InvalidInputError(f"{held_in}[{index}].{error.field}", error.reason, limit=error.limit) from error


def checked_id(session_id: object) -> str | None:
    """The id that a caller chose for the only session of a file."""
    return inputs.optional_identifier(_SESSION_ID, session_id)
