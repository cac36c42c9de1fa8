"""The subscription of a file: which remote its events are for, and what it is to be told.

Reading it is the hot path, compiled SQL only; changing it loads SQLAlchemy Core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .. import sql
from ..database.transaction import Transaction
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..remote.settings import Remote

# Of a remote that was never asked for anything.
_UNKNOWN: Final = dict.fromkeys(("failing_since", "retry_at", "paused", "last_sent_at", "last_status", "last_error")) | {
    "failures": 0
}
_NOT_BACKFILLED: Final = dict.fromkeys(("backfilled_sessions", "backfilled_metrics", "backfilled_activity"), 0)


class Subscription(NamedTuple):
    """Who is to be told, and of what: the remote that belongs to the file."""

    url: str | None
    sync_messages: bool
    max_bytes: int | None
    on_full: str | None


def current(db: Transaction) -> Subscription:
    """What the file says about its remote."""
    ((url, sync_messages, max_bytes, on_full),) = db.driver.execute(sql.READ_REMOTE).fetchall()
    return Subscription(url, bool(sync_messages), max_bytes, on_full)


def remote(db: Transaction) -> str | None:
    """The base URL of the store's remote, None if it has none."""
    return current(db).url


def is_wanted(db: Transaction) -> bool:
    """Whether anybody is to be told."""
    return remote(db) is not None


def is_set(db: Transaction, remote: Remote) -> bool:
    """Whether `set_remote` would change nothing."""
    return current(db) == (remote.base_url, remote.sync_messages, remote.max_outbox_bytes, remote.on_full)


def set_remote(db: Transaction, remote: Remote | None, *, replace: bool = False) -> None:
    """Tell events to this remote from now on; None for nobody any more.

    One that follows another has none of what that one was told: what was before is backfilled to it from the beginning.

    Raises:
        ConfigError: The store has another one, which it is not to leave.
    """
    import sqlalchemy as sa

    from .tables import METRIC_EVENTS, STORE_INFO, SYNC_STATE

    known = current(db)
    url = None if remote is None else remote.base_url
    if known.url not in (None, url) and not replace:
        raise ConfigError(
            f"base_url: this store tells its events to {known.url} already; one store has one remote. "
            "set_remote(..., replace=True) changes it"
        )
    values: dict[str, Any] = {"remote_url": url}
    if remote is not None:
        values |= {"sync_messages": remote.sync_messages, "max_outbox_bytes": remote.max_outbox_bytes, "on_full": remote.on_full}
    is_another = url is not None and known.url != url
    # Of the one before, also if it was taken away meanwhile. If it took nothing, all that was for it is still here.
    has_taken = db.core.execute(sa.select(SYNC_STATE.c.last_sent_at)).scalar_one() is not None
    if is_another and (known.url is None or has_taken):
        values["remote_since"] = db.now
        # A figure may be of a later moment than this. Which were there already tells their ids.
        values["remote_after_metric"] = sa.select(sa.func.max(METRIC_EVENTS.c.id)).scalar_subquery()
    db.core.execute(sa.update(STORE_INFO).values(values))
    if is_another:
        # What is known of the one says nothing about the other.
        db.core.execute(sa.update(SYNC_STATE).values({**_UNKNOWN, **(_NOT_BACKFILLED if has_taken else {})}))
    db.gauge.forget()
    db.enqueued = True
