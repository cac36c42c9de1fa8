"""The trackers: how well agents work and what they are doing, recorded in a store, with or without a network.

`AgentPerformanceTracker` follows conversations, `AgentOperationsTracker` the agents themselves. Each call exists as `name()` and
as `name_async()`, returns what the local file says, and never waits for a network.
"""

from __future__ import annotations

from .operations import AgentOperationsTracker
from .performance import AgentPerformanceTracker

__all__ = ["AgentOperationsTracker", "AgentPerformanceTracker"]
