"""Tool calls without a result, results without a call, and a stand-in for what never came."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from .. import pairs
from ..database.transaction import Transaction
from ..rows import prepare
from ..values import Message, ToolCallReport
from . import lineage, message_rows, messages, sessions
from .dialect import as_stored
from .tables import MESSAGE_COLUMNS, MESSAGES

_STORED_COLUMNS = tuple(as_stored(column) for column in MESSAGE_COLUMNS)
_SYNTHETIC = {"synthetic": "interrupted"}
_RESULT_BYTES = 1_000
# A control character of an id takes so many in JSON.
_ESCAPED_BYTES = 6


def check(db: Transaction, namespace: str, session_id: str) -> ToolCallReport:
    """What does not match in a session. Blobs are read only of calls without a result: somebody may make these up for."""
    rows = _involved(db, namespace, session_id)
    involved = messages.intact(db, session_id, rows, blobs=False)
    report = pairs.report(involved)
    waiting = {call.seq for call in report.unmatched_calls}
    large = [row for row, message in zip(rows, involved, strict=True) if message.blobs and message.seq in waiting]
    if not large:
        return report
    whole = {message.seq: message for message in messages.intact(db, session_id, large)}
    return pairs.report([whole.get(message.seq, message) for message in involved])


def repair(db: Transaction, namespace: str, session_id: str) -> list[Message]:
    """Append a result that says "interrupted" for each open call; nothing is deleted, and a second repair adds nothing."""
    sessions.to_change(db, namespace, session_id)
    involved = messages.intact(db, session_id, _involved(db, namespace, session_id), blobs=False)
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


def _involved(db: Transaction, namespace: str, session_id: str) -> list[tuple[Any, ...]]:
    """The rows of the messages that make or answer calls."""
    key = sessions.key_of(db, namespace, session_id)
    rows: list[tuple[Any, ...]] = []
    for piece in lineage.pieces(db, key):
        low = message_rows.first_id(piece.owner)
        found = (
            sa.select(*_STORED_COLUMNS)
            .where(MESSAGES.c.id.between(low + piece.first, low + piece.last))
            .where(sa.or_(MESSAGES.c.tool_call_ids.is_not(None), MESSAGES.c.tool_call_id.is_not(None)))
            .order_by(MESSAGES.c.id)
        )
        rows += [tuple(row) for row in db.core.execute(found)]
    return rows
