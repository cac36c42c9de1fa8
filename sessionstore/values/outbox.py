"""What is known about the outbox: how its deliveries stand, its events one by one, and what a backfill added."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

OutboxState = Literal["pending", "dead", "erased"]
PauseReason = Literal["auth", "config", "redirect", "certificate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStats:
    """How the deliveries of a file's events stand.

    Attributes:
        remote: Where events are delivered to, None if there is no remote and no new event is kept.
        pending: Events that wait for their delivery, those of the next two included.
        leased: Those of them that somebody may be sending at the moment.
        waiting: Those of them whose stream waits for its next try.
        pending_bytes: How large their bodies are together.
        quota: How large they may be together with the dead ones.
        oldest_age: Seconds since the oldest of them was stored, None without any.
        dead: Events that were given up. They stay until they are requeued or purged.
        unsupported: Those of them that the remote has no use for.
        erased: Events that were emptied by `erase`.
        sent: How many were ever delivered.
        dropped: How many had ever to go for want of room, were purged while they waited, or were unsupported and too many.
        attempts: The most refusals that an event has had so far.
        last_sent_at: When one was delivered last.
        last_status: The HTTP status of the last trouble, None if it was none of HTTP or is over.
        last_error: What the last trouble was, None if it is over.
        failures: How often in a row the remote could not be used.
        failing_since: Since when.
        retry_at: No request before then.
        paused: What somebody has to set right before anything is sent: "auth" (the key), "config" (the address), "redirect" (the
            address, too), "certificate"; None for nothing.
    """

    remote: str | None
    pending: int
    leased: int
    waiting: int
    pending_bytes: int
    quota: int
    oldest_age: float | None
    dead: int
    unsupported: int
    erased: int
    sent: int
    dropped: int
    attempts: int
    last_sent_at: datetime | None
    last_status: int | None
    last_error: str | None
    failures: int
    failing_since: datetime | None
    retry_at: datetime | None
    paused: PauseReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event of the outbox.

    Attributes:
        key: The random id by which the remote knows a repeated delivery.
        namespace: That of what it is about.
        stream: What it is about: "session:ID", "agent:ID" or "metrics". Events of one stream are delivered in their order.
        kind: What it tells: conversation_start, metric ...
        state: "pending"; "dead" if it was given up; "erased".
        attempts: How often the remote refused it.
        size_bytes: The size of its body.
        occurred_at: When it happened.
        created_at: When it was stored in the outbox.
        next_at: It waits until then, since it was refused.
        lease_until: Somebody may be sending it until then.
        settled_at: When it died or was erased.
        last_status: The HTTP status of its last refusal.
        last_error: Why it was refused.
        body: What is sent, as `get` reads it. None in lists, and of an erased event.
    """

    key: str
    namespace: str
    stream: str
    kind: str
    state: OutboxState
    attempts: int
    size_bytes: int
    occurred_at: datetime
    created_at: datetime
    next_at: datetime | None
    lease_until: datetime | None
    settled_at: datetime | None
    last_status: int | None
    last_error: str | None
    body: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillReceipt:
    """What a backfill added to the outbox.

    Attributes:
        sessions: Sessions from before the remote was set, each told from its beginning.
        events: Events that were added, those of the sessions included.
        more: Whether it stopped before it was done: at its limit, or because the outbox is half full. Call it again, after a
            drain.
    """

    sessions: int
    events: int
    more: bool
