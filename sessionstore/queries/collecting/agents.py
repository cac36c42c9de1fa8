"""The agents that a collector's events are about: read once for a batch, changed in memory, written back once.

What is known of a later time stays as it is: an event is noted as of its own.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

from ...content import decoded
from ...database.transaction import Transaction
from ...inputs import MAX_METADATA_BYTES, encode_json, json_object
from . import statements
from .arrivals import ActivityTold, Registered, StatusTold

_ACTIVE: Final = "active"
_OFFLINE: Final = "offline"
_WRITING: Final = attrgetter(*statements.AGENT)


class _Agent:
    """An agent as it will be stored; its columns are attributes."""

    __slots__ = (*statements.AGENT, "is_changed")

    namespace: str
    agent_id: str
    sdk_version: str | None
    status: str
    previous_status: str | None
    metadata: str | None
    registered_at: str | None
    status_at: str
    last_seen_at: str
    stale_after_seconds: float

    def __init__(self, *row: Any) -> None:
        for name, value in zip(statements.AGENT, row, strict=True):
            setattr(self, name, value)
        self.is_changed = False

    def said(self, status: str, previous_status: str | None, at: str) -> None:
        """Note a status, unless a later one is known; one that is merely repeated keeps since when it is so."""
        if at < self.status_at:
            return
        if status != self.status:
            self.status, self.previous_status, self.status_at = status, previous_status, at

    def heard(self, at: str, stale_after: float) -> None:
        """Note a sign of life."""
        self.last_seen_at = max(self.last_seen_at, at)
        self.stale_after_seconds = stale_after
        self.is_changed = True


class AgentDesk:
    """The agents of one batch."""

    def __init__(self, db: Transaction, stale_after: float) -> None:
        self._db = db
        self._stale_after = stale_after
        self._agents: dict[tuple[str, str], _Agent | None] = {}
        self._log: list[tuple[Any, ...]] = []

    def register(self, namespace: str, told: Registered) -> None:
        """An agent registered; what it said at an earlier registration is replaced."""
        known = self._known(namespace, told.agent_id)
        before = None if known is None else known.status
        status = _ACTIVE if before in (None, _OFFLINE) else before
        assert status is not None  # noqa: S101 - for the type checker
        agent = known or self._make(namespace, told.agent_id, status, None, told.at)
        agent.said(status, before, told.at)
        agent.sdk_version, agent.metadata, agent.registered_at = told.sdk_version, encode_json(told.metadata or {}), told.at
        agent.heard(told.at, self._stale_after)
        self._note(namespace, told.agent_id, told.at, "registered", "registered", status, before, told.metadata, None)

    def tell_status(self, namespace: str, told: StatusTold) -> None:
        """An agent told its status.

        Raises:
            InvalidInputError: Its metadata would become too large.
        """
        known = self._known(namespace, told.agent_id)
        before = told.previous_status or (None if known is None else known.status)
        metadata = None if known is None else known.metadata
        if told.metadata is not None:
            merged = {**(decoded(metadata) if metadata else {}), **told.metadata}
            metadata = json_object("metadata", merged, max_bytes=MAX_METADATA_BYTES)
        agent = known or self._make(namespace, told.agent_id, told.status, before, told.at)
        agent.said(told.status, before, told.at)
        # A store that repeats a status tells the same as the one before; that is none that somebody gave.
        if told.previous_status not in (None, told.status) and told.at >= agent.status_at:
            agent.previous_status = told.previous_status
        agent.metadata = metadata
        agent.heard(told.at, self._stale_after)
        self._note(namespace, told.agent_id, told.at, "status", "status", told.status, before, told.metadata, None)

    def tell_activity(self, namespace: str, told: ActivityTold) -> None:
        """An agent did something."""
        agent = self._known(namespace, told.agent_id) or self._make(namespace, told.agent_id, _ACTIVE, None, told.at)
        agent.heard(told.at, self._stale_after)
        self._note(namespace, told.agent_id, told.at, "activity", told.action, None, None, told.details, told.duration)

    def write_back(self) -> None:
        """Write all that was changed."""
        changed = [agent for agent in self._agents.values() if agent is not None and agent.is_changed]
        self._db.driver.executemany(statements.PUT_AGENT, [_WRITING(agent) for agent in changed])
        self._db.driver.executemany(statements.NOTE_ACTIVITY, self._log)
        for agent in changed:
            agent.is_changed = False
        self._log.clear()

    def _known(self, namespace: str, agent_id: str) -> _Agent | None:
        name = namespace, agent_id
        if name not in self._agents:
            rows = self._db.driver.execute(statements.FIND_AGENT, name).fetchall()
            self._agents[name] = _Agent(*rows[0]) if rows else None
        return self._agents[name]

    def _make(self, namespace: str, agent_id: str, status: str, previous_status: str | None, at: str) -> _Agent:
        values = dict.fromkeys(statements.AGENT) | {
            "namespace": namespace,
            "agent_id": agent_id,
            "status": status,
            "previous_status": previous_status,
            "status_at": at,
            "last_seen_at": at,
        }
        made = self._agents[namespace, agent_id] = _Agent(*values.values())
        return made

    def _note(
        self, namespace: str, agent_id: str, at: str, kind: str, action: str, status: str | None, previous_status: str | None,
        details: dict[str, Any] | None, duration: float | None,
    ) -> None:  # fmt: skip
        text = None if details is None else encode_json(details)
        self._log.append((namespace, agent_id, kind, action, status, previous_status, text, duration, at))
