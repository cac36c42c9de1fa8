"""What a session is connected with, by its key: where it was forked from, and the messages that were replaced in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from .. import clock, sql
from ..database.transaction import Transaction
from ..values import MAX_SEQ, SupersededMessage
from . import message_rows, messages, state
from .tables import SESSIONS, SUPERSEDED

_A_PAGE: Final = 50


@dataclass(frozen=True, slots=True)
class Links:
    """How a session hangs together with others.

    Attributes:
        parent_key: The key of the session that it was forked from, if that is there.
        is_parent: Whether others were forked from it.
    """

    parent_key: int | None
    is_parent: bool


def links_of(db: Transaction, key: int) -> Links:
    """How a session hangs together with others."""
    row = db.core.execute(sa.select(SESSIONS.c.parent_key).where(SESSIONS.c.session_key == key)).one()
    child = sa.select(SESSIONS.c.session_key).where(SESSIONS.c.parent_key == key).limit(1)
    return Links(row.parent_key, db.core.execute(child).first() is not None)


def version_of(db: Transaction, key: int) -> int | None:
    """The version of a session; None if it is gone."""
    found: int | None = db.core.execute(sa.select(SESSIONS.c.version).where(SESSIONS.c.session_key == key)).scalar_one_or_none()
    return found


def adopt(db: Transaction, parent_key: int, children: Iterable[int]) -> None:
    """Note which session some were forked from, if it is there."""
    if state.has_session(db, parent_key):
        for child in children:
            db.core.execute(sa.update(SESSIONS).where(SESSIONS.c.session_key == child).values(parent_key=parent_key))


def count_superseded(db: Transaction, key: int) -> int:
    """How many messages of a session were replaced."""
    found = sa.select(sa.func.count()).select_from(SUPERSEDED).where(SUPERSEDED.c.session_key == key)
    return int(db.core.execute(found).scalar_one())


def superseded_of(db: Transaction, key: int, session_id: str) -> Iterator[SupersededMessage]:
    """The messages that were replaced in a session, by seq and then in the order of their replacement."""
    low = message_rows.first_id(key)
    found = db.driver.execute(sql.SUPERSEDED, (key, 1, MAX_SEQ))
    while rows := found.fetchmany(_A_PAGE):
        read = messages.intact(db, session_id, [(low + seq, *values) for _, _, seq, _, *values in rows])
        yield from (SupersededMessage(each, clock.from_text(row[3])) for each, row in zip(read, rows, strict=True))
