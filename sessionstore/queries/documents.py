"""Sessions as whole documents: saved if they only grew, read and listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from ..arguments import NewSession
from ..content import StoredContent, decode
from ..database.transaction import Transaction
from ..errors import ConflictError, NotFoundError, StoreCorruptError
from ..rows import PreparedMessage
from ..values import MAX_SEQ, Message
from . import lifecycle, lineage, messages, sessions
from .blobs import first_few
from .tables import HOLDS_NAME, IN_TIME, SESSIONS

_A_PAGE: Final = 500
_IDS: Final = (
    sa.select(SESSIONS.c.session_id)
    .where(SESSIONS.c.namespace == sa.bindparam("namespace"), HOLDS_NAME, IN_TIME)
    .order_by(SESSIONS.c.session_id)
)


def save(
    db: Transaction, new: NewSession, given: Sequence[StoredContent], prepare: Callable[[StoredContent], PreparedMessage]
) -> None:
    """Append what a conversation has more than the session of its name, which is made if there is none.

    Raises:
        ConflictError: The session holds something else than the first of these messages.
        StoreCorruptError: It is damaged.
    """
    if sessions.find(db, new.namespace, new.session_id) is None:
        # Trying to make one that is there would use up a key.
        lifecycle.get_or_create(db, new)
    held = _require_prefix(db, new.namespace, new.session_id, given)
    if held < len(given):
        messages.append(db, new.namespace, new.session_id, [prepare(each) for each in given[held:]])
    else:
        lifecycle.touch(db, new.namespace, new.session_id)


def load(db: Transaction, namespace: str, session_id: str) -> list[dict[str, Any]] | None:
    """The message dicts of a live session; None if there is none.

    Raises:
        StoreCorruptError: It is damaged.
    """
    try:
        return [message.to_dict() for message in messages.read(db, namespace, session_id)]
    except NotFoundError:
        return None


def ids(db: Transaction, namespace: str) -> list[str]:
    """The ids of the live sessions, sorted."""
    return list(db.core.execute(_IDS, {"namespace": namespace, "at": db.now_text}).scalars())


def _require_prefix(db: Transaction, namespace: str, session_id: str, given: Sequence[StoredContent]) -> int:
    """How many messages a session holds, all of them equal to the first ones given."""
    place = sessions.place_of(db, namespace, session_id)
    if place.message_count > len(given):
        raise _differs(session_id)
    compared, after = 0, 0
    while rows := first_few(lineage.rows_forward(db, place.key, after + 1, MAX_SEQ, _A_PAGE)):
        stored = messages.intact(db, session_id, rows)
        if compared + len(rows) > place.message_count:
            break
        for row, message, wanted in zip(rows, stored, given[compared : compared + len(rows)], strict=True):
            if not _is_same(row, message, wanted):
                raise _differs(session_id)
        compared += len(rows)
        after = rows[-1][0] & MAX_SEQ
    if compared != place.message_count:
        raise StoreCorruptError(db.path, f"messages of session {session_id!r} are missing; the file is kept as it is")
    return compared


def _is_same(row: Sequence[Any], message: Message, wanted: StoredContent) -> bool:
    """Whether a message is stored as it is given; nearly always its columns tell, without a look into any JSON."""
    if tuple(row[2:5]) == wanted[1:] and row[8] is None and not message.blobs:
        return True
    given = decode(wanted.role, wanted.text, wanted.extra)
    # As texts: to Python 1, 1.0 and True are equal.
    return _as_text(message.to_dict()) == _as_text(given)


def _as_text(message: dict[str, Any]) -> str:
    return json.dumps(message, sort_keys=True, ensure_ascii=False)


def _differs(session_id: str) -> ConflictError:
    return ConflictError(
        session_id,
        f"session {session_id!r} holds other messages than the first of those given: load it and append to what it has, "
        "or delete it first",
    )
