"""Tool calls without a result, results without a call, and a stand-in for what never came."""

from __future__ import annotations

import sqlalchemy as sa

from .. import pairs
from ..database.transaction import Transaction
from ..rows import prepare
from ..values import Message, ToolCallReport
from . import messages, sessions
from .dialect import as_stored
from .statements import MESSAGE_COLUMNS, MESSAGES

_STORED_COLUMNS = tuple(as_stored(column) for column in MESSAGE_COLUMNS)
_SYNTHETIC = {"synthetic": "interrupted"}
_RESULT_BYTES = 1_000
# A control character of an id takes so many in JSON.
_ESCAPED_BYTES = 6


def check(db: Transaction, namespace: str, session_id: str) -> ToolCallReport:
    """What does not match in a session."""
    return pairs.report(_involved(db, namespace, session_id))


def repair(db: Transaction, namespace: str, session_id: str) -> list[Message]:
    """Append a result that says "interrupted" for each open call; nothing is deleted, and a second repair adds nothing."""
    sessions.to_change(db, namespace, session_id)
    involved = _involved(db, namespace, session_id)
    callers = {message.seq: message for message in involved}
    results = [
        prepare(
            pairs.interrupted_result(call, callers[call.seq]),
            metadata=_SYNTHETIC,
            max_bytes=_RESULT_BYTES + len(call.call_id) * _ESCAPED_BYTES,
        )
        for call in pairs.report(involved).unmatched_calls
    ]
    return messages.append(db, namespace, session_id, results)


def _involved(db: Transaction, namespace: str, session_id: str) -> list[Message]:
    key = sessions.key_of(db, namespace, session_id)
    found = (
        sa.select(*_STORED_COLUMNS)
        .where(MESSAGES.c.id.between(messages.first_id(key), messages.last_id(key)))
        .where(sa.or_(MESSAGES.c.tool_call_ids.is_not(None), MESSAGES.c.tool_call_id.is_not(None)))
        .order_by(MESSAGES.c.id)
    )
    return messages.intact(db, session_id, [tuple(row) for row in db.core.execute(found)])
