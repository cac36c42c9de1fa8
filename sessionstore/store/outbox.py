"""The calls about the outbox: how deliveries stand, which events wait or were given up, and what is to become of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .. import hints, inputs, queries
from ..arguments import several
from ..database.full_disk import Freeing
from ..errors import InvalidInputError
from ..remote import events
from ..values import Page
from .calls import Calls

if TYPE_CHECKING:
    from ..database.transaction import Transaction
    from ..queries.backfill import Step

STATES: Final = ("pending", "dead", "erased")
# In the pause before the next step others get their turn to write.
BACKFILL_PAUSE: Final = 0.002


class Outbox:
    """The events of a file that are to be told to its remote, as `store.outbox`.

    They are those of every program and every namespace; a `session_id` means a session of the store's own namespace. A delivered
    event leaves the outbox and is counted in `stats().sent`.
    """

    __slots__ = ("_calls", "_read", "_write")

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._read, self._write = calls._read, calls._write  # noqa: SLF001 - a part of its store

    def stats(self) -> hints.OutboxStats:
        """How deliveries stand: what waits, what was given up, and why nothing is sent, if nothing is. Looks at every event."""
        return self._read(lambda db: queries.outbox_upkeep.stats(db))  # noqa: PLW0108 - loaded by the thread that reads

    def list(
        self,
        state: hints.OutboxState | None = None,
        kind: str | None = None,
        session_id: str | None = None,
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[hints.OutboxEvent]:
        """One page of events, oldest first, without their bodies.

        Args:
            state: Only those that are "pending", "dead" or "erased".
            kind: Only those that tell this, such as "conversation_start".
            session_id: Only those about this session.
            limit: 1 to 1,000.
            cursor: The `next_cursor` of the page before, from a call with the same filters.

        Raises:
            InvalidInputError: The cursor is damaged or belongs to other filters.
        """
        only, told = None if state is None else inputs.choice("state", state, STATES), _kind(kind)
        about = inputs.optional_identifier("session_id", session_id)
        place = None if about is None else (self._calls.namespace, events.session_stream(about))
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidInputError("cursor", "must be the next_cursor of a page")
        return self._read(lambda db: queries.outbox_upkeep.page(db, state=only, kind=told, place=place, limit=most, cursor=cursor))

    def dead(
        self, kind: str | None = None, session_id: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[hints.OutboxEvent]:
        """One page of the events that were given up; the arguments are those of `list`."""
        return self.list("dead", kind, session_id, limit=limit, cursor=cursor)

    def get(self, key: str) -> hints.OutboxEvent | None:
        """An event with its body; None if there is none of this key, or it was delivered."""
        wanted = inputs.identifier("key", key)
        return self._read(lambda db: queries.outbox_upkeep.find(db, wanted))

    def requeue(self, keys: str | Iterable[str] | None = None, *, kind: str | None = None) -> int:
        """Let dead events be delivered after all, with the bodies and the keys that they have, so that nothing is stored twice.

        Each takes its old place in its stream; what came after it was delivered meanwhile, perhaps.

        Args:
            keys: One key or several; all dead events by default. Keys of other events are passed over.
            kind: Only those that tell this.

        Returns:
            How many wait again.
        """
        chosen = _keys(keys)
        only = _kind(kind)
        return self._write(lambda db: queries.outbox_upkeep.requeue(db, keys=chosen, kind=only))

    def purge(
        self,
        *,
        state: hints.OutboxState = "dead",
        older_than: float | timedelta | None = None,
        keys: str | Iterable[str] | None = None,
    ) -> int:
        """Delete events for good: dead ones, or erased ones, or pending ones if that is said.

        Pending ones are lost to the remote, and counted in `stats().dropped`; those that somebody is sending at the moment stay.
        The background purges dead and erased ones after 30 days.

        Args:
            state: Which ones.
            older_than: Only those that have been so for longer than so many seconds (or a timedelta).
            keys: Only these.

        Returns:
            How many were deleted.
        """
        wanted = inputs.choice("state", state, STATES)
        age = None if older_than is None else _age(older_than)
        chosen = _keys(keys)

        def work(db: Transaction) -> int:
            before = None if age is None else db.now - age
            return int(queries.outbox_upkeep.purge(db, wanted, before=before, keys=chosen))

        return self._write(Freeing(work))

    def erase(self, session_id: str, *, tell: bool = True) -> int:
        """Empty the events of a session that the remote has not acknowledged, also those that are being sent at the moment.

        The session itself stays: `store.delete` deletes it. A request that is on its way may still arrive; with `tell` the remote
        is then told to forget the session, after that request.

        Args:
            session_id: The session, whether or not it is still there.
            tell: Add an event that tells the remote to forget the session, if there is a remote.

        Returns:
            How many events were emptied.
        """
        wanted = inputs.identifier("session_id", session_id)
        told = inputs.flag("tell", tell)
        namespace = self._calls.namespace

        def work(db: Transaction) -> int:
            count = queries.outbox_upkeep.erase(db, namespace, wanted)
            if told and queries.subscription.is_wanted(db):
                queries.outbox.enqueue(db, (events.erased(namespace, wanted, db.now),))
            return int(count)

        # It must not come back after a power loss and be sent.
        return self._write(Freeing(work), full=True)

    def backfill(self, *, limit: int | None = None) -> hints.BackfillReceipt:
        """Add the events of what happened before the remote was set: sessions, figures of messages, metrics, what agents did.

        It works in many short transactions and remembers how far it has come: after a kill it goes on there, and once it is done
        another call does nothing. It stops when the outbox is half full.

        Args:
            limit: At most so many sessions; the metrics and what agents did come after the last of them.

        Raises:
            ConfigError: The store has no remote.
        """
        from ..values.outbox import BackfillReceipt

        left = inputs.optional_whole_number("limit", limit, least=1)
        sessions = added = 0
        while True:
            step = self._backfill_step(None if left is None else left - sessions)
            sessions += step.sessions
            added += step.events
            if step.outcome != "more":
                return BackfillReceipt(sessions=sessions, events=added, more=step.outcome != "done")
            time.sleep(BACKFILL_PAUSE)

    def _backfill_step(self, most_sessions: int | None) -> Step:
        return self._write(lambda db: queries.backfill.step(db, most_sessions=most_sessions))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._calls!r}>"


def _keys(keys: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if keys is None:
        return None
    given = (keys,) if isinstance(keys, str) else several("keys", keys)
    return tuple(dict.fromkeys(inputs.identifier("keys", one) for one in given))


def _kind(kind: str | None) -> str | None:
    return None if kind is None else inputs.choice("kind", kind, events.PATHS)


def _age(older_than: float | timedelta) -> timedelta:
    seconds = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
    return timedelta(seconds=inputs.duration("older_than", seconds, most=inputs.LONGEST_LIFE))
