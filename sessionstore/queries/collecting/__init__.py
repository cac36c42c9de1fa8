"""Storing what comes in to a collector: each event once, by its key, in the transaction that notes the key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa

from ... import sql
from ...database.transaction import Transaction
from ...errors import InvalidInputError, StoreCorruptError
from ...inputs import encode_json
from . import statements
from .agents import AgentDesk
from .arrivals import (
    ActivityTold,
    Arrival,
    End,
    Erasure,
    Expiry,
    Figures,
    Measured,
    Registered,
    Start,
    StatusTold,
)
from .sessions import Desk

KEY_REUSED: Final = "the key was used for another body"


class Outcome(NamedTuple):
    """What became of an event; `field` and `error` say why it was rejected."""

    status: Literal["stored", "duplicate", "rejected"]
    error: str | None = None
    field: str | None = None


STORED: Final = Outcome("stored")
DUPLICATE: Final = Outcome("duplicate")
REUSED: Final = Outcome("rejected", KEY_REUSED)


def receive(db: Transaction, tenant: str, arrivals: Sequence[Arrival], *, stale_after: float, apart: bool = False) -> list[Outcome]:
    """Store events in their order, and say of each what became of it. A rejected one leaves nothing behind.

    Args:
        db: The open transaction.
        tenant: Whose events they are.
        arrivals: The events.
        stale_after: How long an agent counts as alive after it was heard of last, in seconds.
        apart: Undo what one event did if the file refuses it; without, that is an error of all of them, and costs less.
    """
    known = _known(db, tenant, arrivals)
    store = _each_alone if apart else _together
    return store(_Intake(db, tenant, known, stale_after), arrivals)


class _Intake:
    """One batch on its way in."""

    def __init__(self, db: Transaction, tenant: str, known: dict[str, bytes], stale_after: float) -> None:
        self.db = db
        self._tenant = tenant
        self._known = known
        self._stale_after = stale_after
        self._noted: list[tuple[Any, ...]] = []
        self._metrics: list[tuple[Any, ...]] = []
        self._desk = Desk(db, ())
        self._agents = AgentDesk(db, stale_after)

    def expect(self, arrivals: Sequence[Arrival]) -> None:
        """Read the sessions that events are about, and forget what was read before."""
        self._agents = AgentDesk(self.db, self._stale_after)
        named = (each for each in arrivals if isinstance(each.content, _ABOUT_SESSIONS))
        self._desk = Desk(self.db, {(each.namespace, each.content.session_id): None for each in named})  # type: ignore[union-attr]

    def take(self, arrival: Arrival) -> Outcome:
        """Store one event, unless it is known."""
        before = self._known.get(arrival.key)
        if before is not None:
            return DUPLICATE if before == arrival.body_hash else REUSED
        try:
            _STORING[type(arrival.content)](self, arrival.namespace, arrival.content)
        except InvalidInputError as error:
            return Outcome("rejected", error.reason, error.field)
        self._known[arrival.key] = arrival.body_hash
        self._noted.append((self._tenant, arrival.key, arrival.body_hash, self.db.now_text))
        return STORED

    def finish(self) -> None:
        """Write what waits in memory."""
        self._write_figures()
        self._agents.write_back()
        self.db.driver.executemany(statements.NOTE_EVENT, self._noted)
        self._noted.clear()

    def forget(self, arrival: Arrival) -> None:
        """Undo what memory holds of an event that the file refused."""
        self._known.pop(arrival.key, None)
        self._noted.clear()
        self._metrics.clear()

    def start(self, namespace: str, told: Start) -> None:
        self._desk.start(namespace, told)

    def end(self, namespace: str, told: End) -> None:
        self._desk.end(namespace, told)

    def expire(self, namespace: str, told: Expiry) -> None:
        self._desk.expire(namespace, told)

    def put_message(self, namespace: str, told: Figures) -> None:
        self._desk.put_message(namespace, told)

    def measure(self, namespace: str, told: Measured) -> None:
        name, value, unit, attributes, agent_id, session_id, _ = told.metric
        self._metrics.append((namespace, name, value, unit, agent_id, session_id, attributes, told.at))

    def erase(self, namespace: str, told: Erasure) -> None:
        self._write_figures()
        self._desk.erase(namespace, told.session_id)

    def register(self, namespace: str, told: Registered) -> None:
        self._agents.register(namespace, told)

    def tell_status(self, namespace: str, told: StatusTold) -> None:
        self._agents.tell_status(namespace, told)

    def tell_activity(self, namespace: str, told: ActivityTold) -> None:
        self._agents.tell_activity(namespace, told)

    def _write_figures(self) -> None:
        self._desk.write_back()
        self.db.driver.executemany(sql.INSERT_METRIC, self._metrics)
        self._metrics.clear()


_ABOUT_SESSIONS: Final = (Start, End, Expiry, Figures, Erasure)
_STORING: Final[Mapping[type, Callable[[_Intake, str, Any], None]]] = {
    Start: _Intake.start,
    End: _Intake.end,
    Expiry: _Intake.expire,
    Figures: _Intake.put_message,
    Measured: _Intake.measure,
    Registered: _Intake.register,
    StatusTold: _Intake.tell_status,
    ActivityTold: _Intake.tell_activity,
    Erasure: _Intake.erase,
}


def _known(db: Transaction, tenant: str, arrivals: Sequence[Arrival]) -> dict[str, bytes]:
    keys = encode_json([each.key for each in arrivals])
    return dict(db.driver.execute(statements.KNOWN_EVENTS, (keys, tenant)).fetchall())


def _together(intake: _Intake, arrivals: Sequence[Arrival]) -> list[Outcome]:
    intake.expect(arrivals)
    outcomes = [intake.take(arrival) for arrival in arrivals]
    intake.finish()
    return outcomes


def _each_alone(intake: _Intake, arrivals: Sequence[Arrival]) -> list[Outcome]:
    outcomes = []
    execute = intake.db.driver.execute
    for arrival in arrivals:
        execute("SAVEPOINT event")
        try:
            (outcome,) = _together(intake, (arrival,))
        except (sqlite3.IntegrityError, sa.exc.IntegrityError):
            execute("ROLLBACK TO event")
            intake.forget(arrival)
            outcome = Outcome("rejected", "contradicts what is stored")
        execute("RELEASE event")
        outcomes.append(outcome)
    return outcomes


def is_refused_by_file(error: Exception) -> bool:
    """Whether the file refused a row of some event, so that the events are to be stored each alone."""
    return isinstance(error, StoreCorruptError) and isinstance(error.__cause__, sqlite3.IntegrityError)
