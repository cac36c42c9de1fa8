"""What is known about agents: each as it was heard of last, and what they did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

from . import AgentStatus

ActivityKind = Literal["registered", "status", "activity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """An agent as it was heard of last.

    Attributes:
        namespace: Part of its name; "" by default.
        agent_id: Its name within the namespace.
        status: What it said last, but "offline" once it was not heard of for `stale_after` seconds.
        reported_status: What it said last.
        previous_status: What it was before, None if that is not known.
        sdk_version: What it registered with.
        metadata: What it registered with, and what came with its statuses since.
        registered_at: When it registered last, None if it never did.
        status_at: Since when it has reported its status.
        last_seen_at: The last sign of its life: it registered, told a status or an activity, or one of its sessions changed.
        stale_after: Seconds without a sign of life that make it offline.
    """

    namespace: str
    agent_id: str
    status: AgentStatus
    reported_status: AgentStatus
    previous_status: AgentStatus | None
    sdk_version: str | None
    metadata: dict[str, Any] = field(repr=False)
    registered_at: datetime | None
    status_at: datetime
    last_seen_at: datetime
    stale_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Something that an agent did.

    Attributes:
        agent_id: Who.
        kind: registered, status or activity.
        action: What it did, in its own words; "registered" or "status" for the other kinds.
        status: What it told, or what it was from its registration on; None for the kind "activity".
        previous_status: What it was before, None if that is not known.
        details: What was told with it: the details of an activity, the metadata of a status or a registration.
        duration: How many seconds it took, if that was told.
        occurred_at: When it was told.
    """

    namespace: str
    agent_id: str
    kind: ActivityKind
    action: str
    status: AgentStatus | None
    previous_status: AgentStatus | None
    details: dict[str, Any] = field(repr=False)
    duration: float | None
    occurred_at: datetime


class ActivityCounts(TypedDict):
    """How many entries of each kind."""

    total: int
    registered: int
    status: int
    activity: int


class AgentConversations(TypedDict):
    """How many open sessions an agent has."""

    agent_id: str
    live: int


class OperationsOverview(TypedDict):
    """What goes on among the agents of a namespace, as plain JSON values.

    Keys:
        total_agents: All that are known.
        active_agents: Those that are not offline.
        by_status: How many have each status; all six are there.
        last_activity_at: When anything was told last, ISO 8601 in UTC.
        activity_24h: What was told in the last 24 hours.
        live_conversations: Open sessions, with or without an agent.
        by_agent: Agents with open sessions, registered or not.
    """

    total_agents: int
    active_agents: int
    by_status: dict[str, int]
    last_activity_at: str | None
    activity_24h: ActivityCounts
    live_conversations: int
    by_agent: list[AgentConversations]
