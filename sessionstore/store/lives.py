"""The calls about how long sessions live: touching, expiry, sweeps and retention."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from .. import hints, inputs, queries
from ..arguments import UNSET, Unset
from ..database.full_disk import Freeing
from ..errors import InvalidInputError
from ..values import SessionInfo
from .calls import Calls
from .sweeps import SWEEP_PAUSE, Sweep, sweep_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..database.transaction import Transaction
    from ..queries.retention import Rules, Surplus
    from ..queries.sweeping import Batch
    from ..queries.tidying import Chore, Done


class LifeCalls(Calls):
    """Lives of sessions."""

    def touch(self, session_id: str) -> SessionInfo:
        """Begin the idle time of a session anew, as an append does.

        Raises:
            NotFoundError: There is no such session.
            SessionExpiredError: It has expired.
        """
        wanted = inputs.identifier("session_id", session_id)
        return self._write(lambda db: queries.lifecycle.touch(db, self.namespace, wanted))

    def set_ttl(
        self,
        session_id: str,
        ttl: float | timedelta | None | Unset = UNSET,
        *,
        max_age: float | timedelta | None | Unset = UNSET,
    ) -> SessionInfo:
        """Give a session another life. What is not named stays; None is for ever.

        Args:
            session_id: A live session.
            ttl: Seconds (or a timedelta) without an append after which it expires, counted from now and from each append.
            max_age: Seconds (or a timedelta) after its beginning at which it expires in any case.

        Raises:
            InvalidInputError: The session is older than `max_age`.
            SessionExpiredError: It has expired.
        """
        wanted = inputs.identifier("session_id", session_id)
        given = {"ttl": ttl, "max_age": max_age}
        lives = {name: inputs.life(name, life) for name, life in given.items() if not isinstance(life, Unset)}
        if not lives:
            raise InvalidInputError("ttl", "or max_age must be given: nothing would change")
        return self._write(lambda db: queries.changes.set_life(db, self.namespace, wanted, lives))

    def remaining(self, session_id: str) -> float | None:
        """Seconds until a session expires unless it is used; None for never. Asking does not use it.

        Raises:
            NotFoundError: There is no such session, or it has expired.
        """
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.lifecycle.remaining(db, self.namespace, wanted))

    def sweep(self, *, limit: int | None = None, now: datetime | None = None) -> hints.SweepReceipt:
        """Settle the expiry of all sessions that are due, in every namespace, and tell the remote of each.

        They become "expired", and are archived or deleted if the store was opened with such an `on_expire`. Each batch is one
        transaction. One sweeper works on a file at a time, among all processes. Then the blobs are deleted that no message has.

        Args:
            limit: At most so many sessions.
            now: The present, if the clock is not to be asked. A clock that is more than sixty days ahead of what is stored is
                believed only if it is given here; else the sweep defers.
        """
        left, at = sweep_arguments(limit, now)
        sweep = Sweep(at, left)
        if self._any_due(at):
            while not sweep.count(self._sweep_batch(sweep)):
                time.sleep(SWEEP_PAUSE)
        while sweep.tidies and (chore := self._next_chore(sweep)) is not None:
            sweep.note(chore, self._do_chore(chore))
            time.sleep(SWEEP_PAUSE)
        return sweep.receipt()

    def prune(
        self,
        *,
        max_age: float | timedelta | None = None,
        max_sessions: int | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> hints.DeleteReceipt:
        """Delete the sessions of this namespace that are too old, too many or too large together; pinned ones stay.

        Args:
            max_age: Delete those that were not changed for so many seconds (or a timedelta).
            max_sessions: Keep at most so many, the last changed ones.
            max_bytes: Keep at most so many bytes, likewise. What goes with a session counts, as it is stored: its messages, those
                that were replaced in it, their blobs, its own state, and its checkpoints. The search index does not, nor does what
                a fork shares.
            dry_run: Only tell what would go.

        Sessions of every status count: open, ended, expired, archived. One that is used meanwhile stays. The remote is not told.
        """
        from ..values.receipts import DeleteReceipt

        rules = _rules(max_age, max_sessions, max_bytes)
        only_tell = inputs.flag("dry_run", dry_run)
        going = self._surplus(rules)
        if not only_tell:
            going = [gone for batch in queries.retention.batches(going) for gone in self._remove_surplus(batch)]
        return DeleteReceipt(
            session_ids=tuple(dict.fromkeys(each.session_id for each in reversed(going))),
            messages=sum(each.messages for each in going),
            missing=(),
            dry_run=only_tell,
        )

    def _any_due(self, at: datetime | None) -> bool:
        return self._read(lambda db: queries.lifecycle.any_overdue(db, at or db.now))

    def _sweep_batch(self, sweep: Sweep) -> Batch:
        size, on_expire = sweep.next_size, self._settings.on_expire
        return self._write(
            Freeing(
                lambda db: queries.sweeping.settle_batch(
                    db,
                    sweeper=sweep.sweeper,
                    at=sweep.at,
                    limit=size,
                    on_expire=on_expire,
                    last=size == sweep.left,
                    prepared=sweep.prepared,
                )
            )
        )

    def _next_chore(self, sweep: Sweep) -> Chore | None:
        archives = self._settings.on_expire == "archive"
        return self._read(lambda db: sweep.rest or queries.tidying.find(db, archives=archives, past=sweep.past))

    def _do_chore(self, chore: Chore) -> Done:
        return self._write(Freeing(lambda db: queries.tidying.do(db, chore)))

    def _surplus(self, rules: Rules) -> list[Surplus]:
        return self._read(lambda db: queries.retention.surplus(db, self.namespace, rules))

    def _remove_surplus(self, going: Sequence[Surplus]) -> list[Surplus]:
        self._take_from_index(going)
        return self._write(Freeing(lambda db: queries.retention.remove(db, going)))

    def _take_from_index(self, going: Sequence[Surplus]) -> None:
        """If a batch has many words in the search index, take most of them out in transactions of their own."""
        for _ in range(0, sum(each.messages for each in going), queries.removal.MOST_INDEXED):
            surplus = self._read(lambda db: queries.retention.indexed(db, going))
            if surplus is None:
                return
            self._write(Freeing(partial(_take_from_index, surplus)))
            time.sleep(SWEEP_PAUSE)


def _take_from_index(surplus: tuple[int, int], db: Transaction) -> None:
    queries.search_index.remove_surplus(db, *surplus)


def _rules(max_age: float | timedelta | None, max_sessions: int | None, max_bytes: int | None) -> Rules:
    rules = queries.retention.Rules(
        max_age=inputs.life("max_age", max_age),
        max_sessions=inputs.optional_whole_number("max_sessions", max_sessions),
        max_bytes=inputs.optional_whole_number("max_bytes", max_bytes),
    )
    if rules == queries.retention.Rules():
        raise InvalidInputError("max_age", "or max_sessions or max_bytes must be given: nothing would go")
    return rules
