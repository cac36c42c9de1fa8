"""What a sweep does beside settling: archiving sessions that expired, and collecting blobs that no message has.

Each chore is looked for in a snapshot and done in a transaction that stays short. The hot path: compiled SQL only.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import sql
from ..database.transaction import Transaction
from . import archiving, blobs, message_rows, removal


class Chore(NamedTuple):
    """Messages of a session to be packed, from behind an id on, or else blobs to be deleted."""

    key: int | None = None
    after: int = 0
    hashes: tuple[str, ...] = ()


class Done(NamedTuple):
    """How many blobs were deleted, and what is left of a session, if anything."""

    collected: int = 0
    rest: Chore | None = None


def find(db: Transaction, *, archives: bool, past: str) -> Chore | None:
    """Something to be done; None if there is nothing.

    Args:
        db: The transaction.
        archives: Whether sessions that expired are to be archived.
        past: The hash up to which the blobs were gone through.
    """
    keys = db.driver.execute(sql.FIND_TO_ARCHIVE).fetchall() if archives else []
    if keys:
        return Chore(keys[0][0], message_rows.first_id(keys[0][0]))
    found = blobs.unreferenced(db, past)
    return Chore(hashes=tuple(each for each, _ in found)) if found else None


def do(db: Transaction, chore: Chore) -> Done:
    """Do it, or a part of it."""
    if chore.key is not None:
        rest = archiving.archive_some(db, chore.key, chore.after).rest
        return Done(rest=None if rest is None else chore._replace(after=rest))
    collected = blobs.collect(db, chore.hashes)
    removal.give_back_space(db)
    return Done(collected)
