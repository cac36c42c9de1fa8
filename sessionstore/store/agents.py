"""The calls about agents: what they say of themselves, what they do, how they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import hints, inputs, queries
from ..content import decoded
from ..values import ACTIVITY_KINDS, AGENT_STATUSES, AgentStatus
from .calls import Calls


class AgentCalls(Calls):
    """Agents."""

    def register_agent(
        self, agent_id: str, *, sdk_version: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> hints.AgentInfo:
        """Note that an agent is there.

        It is "active" then, or what it was if it said so before, "offline" aside. A later registration replaces the version and
        the metadata of an earlier one.

        Args:
            agent_id: 1 to 256 printable characters.
            sdk_version: What it runs on.
            metadata: A JSON dict of at most 1 MiB.
        """
        wanted = inputs.identifier("agent_id", agent_id)
        version = inputs.optional_identifier("sdk_version", sdk_version)
        notes = _copied("metadata", metadata)
        namespace, stale_after = self._settings.namespace, self._settings.stale_after
        return self._write(
            lambda db: queries.agents.register(db, namespace, wanted, sdk_version=version, metadata=notes, stale_after=stale_after)
        )

    def set_status(
        self,
        agent_id: str,
        status: AgentStatus | str,
        *,
        previous_status: AgentStatus | str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> hints.AgentInfo:
        """Note what an agent says of itself. One that never registered is known from then on.

        Each call is an entry of the status history, also if it repeats the status: it is a sign of life. An agent that gives
        none for the store's `stale_after` seconds counts as offline.

        Args:
            agent_id: Who says it.
            status: An `AgentStatus` or its word.
            previous_status: What it was before; what is stored by default.
            metadata: A JSON dict, merged into what is known of the agent.
        """
        wanted = inputs.identifier("agent_id", agent_id)
        said = inputs.choice("status", status, AGENT_STATUSES)
        before = None if previous_status is None else inputs.choice("previous_status", previous_status, AGENT_STATUSES)
        notes = _copied("metadata", metadata)
        namespace, stale_after = self._settings.namespace, self._settings.stale_after
        return self._write(
            lambda db: queries.agents.set_status(
                db, namespace, wanted, said, previous_status=before, metadata=notes, stale_after=stale_after
            )
        )

    def log_activity(
        self, agent_id: str, action: str, details: Mapping[str, Any] | None = None, *, duration: float | None = None
    ) -> hints.Activity:
        """Note what an agent did. One that never registered is known from then on, as "active".

        Args:
            agent_id: Who did it.
            action: What, in 1 to 256 printable characters.
            details: What else is known, a JSON dict of at most 1 MiB.
            duration: How many seconds it took.
        """
        wanted = inputs.identifier("agent_id", agent_id)
        done = inputs.identifier("action", action)
        known = _copied("details", details)
        seconds = inputs.optional_duration("duration", duration)
        namespace, stale_after = self._settings.namespace, self._settings.stale_after
        return self._write(
            lambda db: queries.agents.log_activity(db, namespace, wanted, done, known, duration=seconds, stale_after=stale_after)
        )

    def agent(self, agent_id: str) -> hints.AgentInfo | None:
        """What is known about an agent; None if it never registered, told a status or logged an activity."""
        wanted = inputs.identifier("agent_id", agent_id)
        return self._read(lambda db: queries.agents.find(db, self.namespace, wanted))

    def agents(self, *, status: AgentStatus | str | None = None) -> tuple[hints.AgentInfo, ...]:
        """All agents, or those of a status as it is seen now (one that went silent is offline), sorted by their ids."""
        wanted = None if status is None else inputs.choice("status", status, AGENT_STATUSES)
        return self._read(lambda db: queries.agents.find_all(db, self.namespace, status=wanted))

    def activity(
        self, *, agent_id: str | None = None, limit: int = 50, kind: hints.ActivityKind | None = None
    ) -> tuple[hints.Activity, ...]:
        """What agents did, newest first.

        Args:
            agent_id: Only this agent's.
            limit: 1 to 1,000.
            kind: Only entries of this kind: "registered", "status" (the history of statuses) or "activity".
        """
        whose = inputs.optional_identifier("agent_id", agent_id)
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        wanted = None if kind is None else inputs.choice("kind", kind, ACTIVITY_KINDS)
        return self._read(lambda db: queries.agents.activity(db, self.namespace, agent_id=whose, limit=most, kind=wanted))

    def operations_overview(self) -> hints.OperationsOverview:
        """Agents by status, what they did in the last 24 hours, and how many conversations are open, as plain JSON values."""
        return self._read(lambda db: queries.agents.overview(db, self.namespace))


def _copied(field: str, value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A dict as it will be read again, which its owner may change meanwhile."""
    text = inputs.optional_json_object(field, value)
    return None if text is None else decoded(text)
