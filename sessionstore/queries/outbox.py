"""Events that wait for the remote API: written in the transaction of their cause, if a remote is set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .. import clock, sql
from ..database.transaction import Transaction
from ..errors import ConfigError
from ..inputs import encode_json
from ..remote.events import Event

_PENDING: Final = "pending"


def remote(db: Transaction) -> str | None:
    """The base URL of the store's remote, None if it has none."""
    ((url,),) = db.driver.execute(sql.READ_REMOTE).fetchall()
    return url  # type: ignore[no-any-return]


def is_wanted(db: Transaction) -> bool:
    """Whether anybody is to be told."""
    return remote(db) is not None


def enqueue(db: Transaction, events: Iterable[Event]) -> None:
    """Keep events for delivery. Their keys are made here, once, and stay the same for every try."""
    now = db.now_text
    rows = (
        (clock.new_key(), event.stream, event.kind, event.namespace, encode_json(event.body), _PENDING, 0,
         clock.to_text(event.occurred_at), now)
        for event in events
    )  # fmt: skip
    db.driver.executemany(sql.INSERT_EVENT, rows)


def set_remote(db: Transaction, url: str) -> None:
    """Tell events to this remote from now on.

    Raises:
        ConfigError: The store has another one.
    """
    import sqlalchemy as sa

    from .statements import STORE_INFO

    known = remote(db)
    if known == url:
        return
    if known is not None:
        raise ConfigError(f"base_url: this store tells its events to {known} already; one store has one remote")
    db.core.execute(sa.update(STORE_INFO).values(remote_url=url))
