"""The calls that record figures and times."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from .. import inputs, queries
from ..logs import log
from ..queries.metrics import NewMetric
from .calls import Calls
from .timing import Timer, TimerCalls, TimerSettings


class MetricCalls(TimerCalls[Timer], Calls):
    """Metrics."""

    def record(
        self,
        name: str,
        value: float,
        unit: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
    ) -> None:
        """Store a figure of this moment.

        Args:
            name: What it measures: 1 to 256 printable characters, as of an id.
            value: A finite int or float; kept as a double.
            unit: What it is counted in.
            attributes: What else is known, a JSON dict of at most 1 MiB.
            agent_id: The agent that it is about; it need not be registered.
            session_id: The session that it is about; it need not be there.
        """
        metric = NewMetric(
            inputs.identifier("name", name),
            inputs.number("value", value),
            inputs.optional_identifier("unit", unit),
            inputs.optional_json_object("attributes", attributes),
            inputs.optional_identifier("agent_id", agent_id),
            inputs.optional_identifier("session_id", session_id),
        )
        namespace = self._settings.namespace
        return self._write(lambda db: queries.metrics.record(db, namespace, metric))

    def _new_timer(self, settings: TimerSettings) -> Timer:
        return Timer(settings, self.record, self._lose_metric)

    def _lose_metric(self, name: str, reason: str) -> None:
        self._database.tally.count("metrics_lost")
        log(logging.WARNING, "metric_lost", "a time could not be recorded", metric=name, reason=reason)
