"""The call that stores a turn wherever it belongs, for agents and adapters: to a session that may not be there yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import queries
from ..arguments import NewMessage, NewSession, SessionAttributes
from ..database.transaction import Work
from ..values import Message
from .messages import MessageCalls
from .sessions import SessionCalls


class TurnCalls(SessionCalls, MessageCalls):
    """Turns."""

    def _append_or_begin(
        self, session_id: str, messages: Iterable[Mapping[str, Any] | NewMessage], attributes: SessionAttributes
    ) -> list[Message]:
        """Append in one transaction, in which the session is made if there is none, or if it has expired."""
        return self._write(self._appending(self._new_session(session_id, attributes), messages))

    def _appending(self, new: NewSession, messages: Iterable[Mapping[str, Any] | NewMessage]) -> Work[list[Message]]:
        prepared = self._all_prepared(messages)
        return lambda db: queries.messages.append_or_begin(db, new, prepared)
