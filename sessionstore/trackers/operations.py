"""AgentOperationsTracker: which agents there are, how they are and what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

from ..delivery.asking import Question
from ..store import SessionStore
from ..values.agents import Activity, AgentInfo, OperationsOverview
from .remote_answers import Source, about_agent, recent_activity
from .tracker import Call, Tracker, awaited

T = TypeVar("T")


class AgentAnswer(TypedDict):
    """An agent. `status` is "offline" once it was not heard of for a while; `reported_status` is what it told last."""

    agent_id: str
    status: str
    reported_status: str
    previous_status: str | None
    sdk_version: str | None
    metadata: dict[str, Any]
    registered_at: str | None
    status_at: str
    last_seen_at: str


class ActivityAnswer(TypedDict):
    """Something that an agent did, told or registered; `kind` is activity, status or registered, `duration` seconds."""

    agent_id: str
    kind: str
    action: str
    status: str | None
    previous_status: str | None
    details: dict[str, Any]
    duration: float | None
    timestamp: str


class AgentOperationsTracker(Tracker):
    """Follows agents: it is told of their status and what they do, and answers how they are.

    Questions are answered by the file, or with `source="remote"` by the remote: its JSON as it is, or one of the kinds of
    `SyncError`; `ConfigError` without a `base_url`.

    Args:
        base_url: The remote API that events are kept for and delivered to; None adds none. It belongs to the file: all programs
            on it keep their events from then on. The background, which the first recording starts, delivers them; no recording
            waits for it.
        api_key: Its key, or a callable that returns it; kept in memory only. By default `SESSIONSTORE_SYNC_TOKEN`.
        options: Those of both trackers, see `TrackerOptions`.

    Raises:
        ConfigError: The remote's address or key is wrong, or the store has another remote.
        InvalidInputError: Another argument is wrong.
    """

    def register_agent(
        self, agent_id: str, sdk_version: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> AgentAnswer:
        """Say that an agent is there; what it registered with before is replaced.

        Args:
            agent_id: Its id.
            sdk_version: What it runs.
            metadata: A JSON dict.
        """
        return self._note(
            lambda store: store.register_agent(agent_id, sdk_version=sdk_version, metadata=metadata),
            agent_answer,
            lambda answer: self._tell("agent_registered", "an agent registered", agent_id=answer["agent_id"]),
        )

    def update_agent_status(
        self, agent_id: str, status: str, previous_status: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> AgentAnswer:
        """Say how an agent is. One that never registered is noted, too.

        Args:
            agent_id: Its id.
            status: An `AgentStatus` or its word: active, idle, busy, error, offline, initializing.
            previous_status: What it was before; by default what it told last.
            metadata: A JSON dict, merged into what is known of it.
        """
        return self._note(
            lambda store: store.set_status(agent_id, status, previous_status=previous_status, metadata=metadata),
            agent_answer,
            lambda answer: self._tell(
                "agent_status_changed", "an agent told its status", agent_id=answer["agent_id"], status=answer["reported_status"]
            ),
        )

    def log_activity(
        self, agent_id: str, action: str, details: Mapping[str, Any] | None = None, duration: float | None = None
    ) -> ActivityAnswer:
        """Note what an agent did.

        Args:
            agent_id: Its id.
            action: What it did, in a word: 1 to 256 characters.
            details: A JSON dict.
            duration: Seconds that it took.
        """
        return self._note(lambda store: store.log_activity(agent_id, action, details, duration=duration), activity_answer)

    def get_active_agents(self, *, source: Source = "local") -> list[AgentAnswer]:
        """The agents that are not offline, by their ids. An agent that was not heard of for a while is offline."""
        return self._ask(source, lambda: Question("/agents/active"), lambda store: store.agents(), _alive)

    def get_agent_status(self, agent_id: str, *, source: Source = "local") -> AgentAnswer | None:
        """How an agent is, None if it was never heard of. `reported_status` is what it told last."""
        return self._ask(
            source,
            lambda: about_agent(agent_id, self._source, self._store.namespace),
            lambda store: store.agent(agent_id),
            _agent_or_none,
        )

    def get_recent_activity(
        self, limit: int = 50, agent_id: str | None = None, *, source: Source = "local"
    ) -> list[ActivityAnswer]:
        """What an agent or all of them did, registrations and statuses among it, the newest first."""
        return self._ask(
            source,
            lambda: recent_activity(agent_id, limit),
            lambda store: store.activity(agent_id=agent_id, limit=limit),
            _activities,
        )

    def get_operations_overview(self, *, source: Source = "local") -> OperationsOverview:
        """Agents by status, the last activity and counts, as `SessionStore.operations_overview` has it."""
        return self._ask(source, lambda: Question("/operations/overview"), lambda store: store.operations_overview())

    def _note(self, make: Callable[[SessionStore], Any], shown: Callable[[Any], T], told: Callable[[T], None] | None = None) -> T:
        return self._run(Call(make, shown, records=True, told=told))

    register_agent_async = awaited(register_agent)
    update_agent_status_async = awaited(update_agent_status)
    log_activity_async = awaited(log_activity)
    get_active_agents_async = awaited(get_active_agents)
    get_agent_status_async = awaited(get_agent_status)
    get_recent_activity_async = awaited(get_recent_activity)
    get_operations_overview_async = awaited(get_operations_overview)


def agent_answer(info: AgentInfo) -> AgentAnswer:
    """An agent, as JSON has it."""
    return {
        "agent_id": info.agent_id,
        "status": str(info.status),
        "reported_status": str(info.reported_status),
        "previous_status": None if info.previous_status is None else str(info.previous_status),
        "sdk_version": info.sdk_version,
        "metadata": info.metadata,
        "registered_at": None if info.registered_at is None else info.registered_at.isoformat(),
        "status_at": info.status_at.isoformat(),
        "last_seen_at": info.last_seen_at.isoformat(),
    }


def activity_answer(activity: Activity) -> ActivityAnswer:
    """Something that an agent did, as JSON has it."""
    return {
        "agent_id": activity.agent_id,
        "kind": activity.kind,
        "action": activity.action,
        "status": None if activity.status is None else str(activity.status),
        "previous_status": None if activity.previous_status is None else str(activity.previous_status),
        "details": activity.details,
        "duration": activity.duration,
        "timestamp": activity.occurred_at.isoformat(),
    }


def _alive(agents: Iterable[AgentInfo]) -> list[AgentAnswer]:
    return [agent_answer(info) for info in agents if info.status != "offline"]


def _agent_or_none(info: AgentInfo | None) -> AgentAnswer | None:
    return None if info is None else agent_answer(info)


def _activities(activities: Iterable[Activity]) -> list[ActivityAnswer]:
    return [activity_answer(activity) for activity in activities]
