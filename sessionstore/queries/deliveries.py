"""Deliveries of the outbox: events are claimed with their streams, and settled by who still holds these. Compiled SQL only.

A claim holds streams, not rows: whoever holds a stream sends its events in their order, and nobody else does meanwhile. A hold
without a token is a wait for the next try. Both end by themselves, so that a killed sender delays its streams and loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from .. import clock, sql
from ..database.transaction import Transaction
from ..inputs import MAX_INTEGER
from ..remote.backoff import LONGEST_WAIT
from ..remote.settlement import PLACE_OF, Place, QueuedEvent, Settlement, Trouble
from . import subscription

_MAX_ERROR_CHARS: Final = 200
# Under the lock at most so many times as many events are looked at as may be claimed.
_PASSED: Final = 4
_KEPT: Final = "pending"
_DEAD: Final = "dead"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to deliver, and when.

    Attributes:
        url: The remote, None if there is none.
        source: The store's id.
        pending: Whether any event waits.
        newest: The id of the newest one that does.
        retry_at: No request before then, None for at once.
        paused: Why nothing is sent until somebody does something about it.
        failures: How often in a row the remote could not be used.
        failing_since: Since when.
        sent: How many events were ever delivered.
        last_error: What the last trouble was, None if it is over.
        free_at: When the next held stream is free.
        waits_until: When the next one of those is that wait for another try.
        is_leased: Whether others hold streams, to send their events; how long that takes, nobody knows.
    """

    url: str | None
    source: str
    pending: bool
    newest: int | None
    retry_at: datetime | None
    paused: str | None
    failures: int
    failing_since: datetime | None
    sent: int
    last_error: str | None
    free_at: datetime | None
    waits_until: datetime | None
    is_leased: bool


def outlook(db: Transaction) -> Outlook:
    """How deliveries stand."""
    ((source,),) = db.driver.execute(sql.READ_STORE_ID).fetchall()
    ((retry_at, paused, failures, failing_since, sent, last_error),) = db.driver.execute(sql.READ_SYNC_STATE).fetchall()
    newest = db.driver.execute(sql.NEWEST_PENDING).fetchall()
    ((free_at, waits_until, leases),) = db.driver.execute(sql.NEXT_FREE, (db.now_text, _latest(db))).fetchall()
    return Outlook(
        url=subscription.remote(db),
        source=source,
        pending=bool(newest),
        newest=newest[0][0] if newest else None,
        retry_at=_within(db, retry_at),
        paused=paused,
        failures=failures,
        failing_since=None if failing_since is None else clock.from_text(failing_since),
        sent=sent,
        last_error=last_error,
        free_at=_within(db, free_at),
        waits_until=_within(db, waits_until),
        is_leased=leases > 0,
    )


def claimable(db: Transaction, token: str, most: int) -> list[int]:
    """The ids of the oldest events that nobody else holds. To be read without the lock: it may pass very many that are held."""
    return [row[0] for row in db.driver.execute(sql.CLAIMABLE, (db.now_text, _latest(db), token, most))]


def claim(
    db: Transaction, token: str, *, most: int, most_bytes: int, lease: timedelta, among: Sequence[int] | None = None
) -> list[QueuedEvent]:
    """Hold the streams of the oldest events that nobody holds, and return these events, oldest first.

    Args:
        db: The open transaction.
        token: Of the claim.
        most: How many events at most.
        most_bytes: How large they may be together; one may be larger.
        lease: How long the claim holds.
        among: What was claimable a moment ago. What others have taken meanwhile is left out. Nothing is overtaken: of each stream
            this begins with its oldest event. None for a look at the oldest ones, in this transaction: where so many of them are
            held that a full claim may be behind them, nothing is claimed, and it is to be looked for without the lock.
    """
    if among is None:
        found = _oldest(db, token, most, most_bytes)
    else:
        rows = db.driver.execute(sql.CLAIM, (json.dumps(among), db.now_text, _latest(db), token))
        found, _ = _fitting(rows, most, most_bytes)
    until = clock.to_text(db.now + lease)
    db.driver.executemany(sql.HOLD_STREAM, [(*stream, token, until) for stream in set(map(PLACE_OF, found))])
    return found


def _oldest(db: Transaction, token: str, most: int, most_bytes: int) -> list[QueuedEvent]:
    more = db.driver.execute(sql.PENDING_BEHIND, (_PASSED * most,)).fetchall()
    behind = more[0][0] if more else MAX_INTEGER
    rows = db.driver.execute(sql.CLAIM_OLDEST, (behind, db.now_text, _latest(db), token, most))
    found, is_full = _fitting(rows, most, most_bytes)
    return found if is_full or not more else []


def _fitting(rows: Iterable[Sequence[Any]], most: int, most_bytes: int) -> tuple[list[QueuedEvent], bool]:
    """The first events that fit into a claim, and whether they fill it. No more are read: a few may be large."""
    found: list[QueuedEvent] = []
    total = 0
    for row in rows:
        event = QueuedEvent._make(row)
        total += event.size_bytes
        if found and total > most_bytes:
            return found, True
        found.append(event)
        if len(found) == most:
            return found, True
    return found, False


def settle(db: Transaction, settlement: Settlement) -> int:
    """Store what became of events whose streams are still held with the token; of the others somebody else has taken care.

    Returns:
        How many of them were somebody else's by now, or are gone: what was purged after its lease counts as that, not as sent, too.
    """
    ours = settlement.of_streams(held(db, settlement.token))
    if ours.arrives_until is not None:
        _note_unanswered(db, ours.token, ours.arrives_until)
    gone = 0
    if ours.sent:
        left = _delete(db, [event.id for event in ours.sent])
        gone = len(ours.sent) - left
        db.driver.execute(sql.COUNT_SENT, (left, db.now_text))
    for refusal in ours.refused:
        event, dead = refusal.event, refusal.is_last
        next_at = None if dead else clock.to_text(db.now + refusal.wait)
        db.driver.execute(
            sql.REFUSE_EVENT,
            (_DEAD if dead else _KEPT, refusal.attempts, next_at, refusal.status, refusal.error[:_MAX_ERROR_CHARS],
             db.now_text if dead else None, settlement.sent_before, event.id),
        )  # fmt: skip
        if next_at is not None:
            db.driver.execute(sql.HOLD_STREAM, (*event.place, None, next_at))
    if ours.over:
        db.driver.execute(sql.FREE_STREAMS, (settlement.token,))
    if ours.trouble is not None:
        note_trouble(db, ours.trouble)
    return settlement.size - ours.size + gone


def _delete(db: Transaction, ids: Sequence[int]) -> int:
    """Delete events that are pending; returns how many there were."""
    if len(ids) == 1:
        # The list of the other statement takes as long as the row.
        return db.driver.execute(sql.DELETE_EVENT, ids).rowcount
    return db.driver.execute(sql.DELETE_EVENTS, (json.dumps(ids),)).rowcount


def settle_and_claim(db: Transaction, settlement: Settlement, *, most: int, most_bytes: int, lease: timedelta) -> list[QueuedEvent]:
    """Store what became of one claim, and make the next one with the same token: one commit instead of two.

    What it cannot claim without passing many events that others hold is left to a claim of its own.
    """
    settle(db, settlement)
    return claim(db, settlement.token, most=most, most_bytes=most_bytes, lease=lease)


def held(db: Transaction, token: str) -> frozenset[Place]:
    """The streams that are still held with a token: others may have taken them over, and `erase()` takes them away."""
    return frozenset((namespace, stream) for namespace, stream in db.driver.execute(sql.STREAMS_HELD, (token,)))


def release(db: Transaction, token: str, *, arrives_until: datetime | None = None) -> None:
    """Let go of what is held with a token.

    Args:
        db: The open transaction.
        token: Of the claim.
        arrives_until: A request that was under way is waited for no more, but may still arrive, until then.
    """
    if arrives_until is not None:
        _note_unanswered(db, token, arrives_until)
    db.driver.execute(sql.FREE_STREAMS, (token,))


def is_told_everything(db: Transaction) -> bool:
    """Whether there is a remote, and no event waits for it."""
    return not db.driver.execute(sql.PEEK_PENDING).fetchall() and subscription.is_wanted(db)


def any_up_to(db: Transaction, newest: int) -> bool:
    """Whether an event waits that is no newer than this one."""
    oldest = db.driver.execute(sql.PEEK_PENDING).fetchall()
    return bool(oldest) and oldest[0][0] <= newest


def note_trouble(db: Transaction, trouble: Trouble) -> None:
    """Keep why the remote cannot be used, and when to try it again."""
    ((_, _, failures, failing_since, *_),) = db.driver.execute(sql.READ_SYNC_STATE).fetchall()
    begun = db.now if failing_since is None else min(clock.from_text(failing_since), db.now)
    wait = trouble.wait_after(failures + 1, db.now - begun)
    db.driver.execute(
        sql.NOTE_TROUBLE,
        (failures + 1, clock.to_text(begun), clock.to_text(db.now + wait), trouble.paused, trouble.status,
         trouble.error[:_MAX_ERROR_CHARS]),
    )  # fmt: skip


def _note_unanswered(db: Transaction, token: str, arrives_until: datetime) -> None:
    """Others may have the streams at once, for what arrives twice is known by its key. Only an erasure has to wait."""
    db.driver.execute(sql.FORGET_ANSWERED, (db.now_text, _latest(db)))
    if arrives_until > db.now:
        db.driver.execute(sql.NOTE_UNANSWERED, (clock.to_text(arrives_until), token))


def _latest(db: Transaction) -> str:
    """No hold ends later, unless it was made by a clock that was ahead."""
    return clock.to_text(db.now + LONGEST_WAIT)


def _within(db: Transaction, stored: str | None) -> datetime | None:
    """A stored instant to wait for; None if it is past, or so far ahead that it comes from a clock that was."""
    if stored is None:
        return None
    instant = clock.from_text(stored)
    return instant if db.now < instant <= db.now + LONGEST_WAIT else None
