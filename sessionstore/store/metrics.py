"""The calls that record figures and times."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import inputs, queries
from ..arguments import NewMetric, several
from ..errors import InvalidInputError
from ..logs import log
from ..queries.metrics import Figure
from .calls import Calls
from .messages import MAX_BATCH
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
        figures = (_checked(name, value, unit, attributes, agent_id, session_id),)
        namespace = self._settings.namespace
        return self._write(lambda db: queries.metrics.record(db, namespace, figures))

    def record_many(self, figures: Iterable[NewMetric]) -> None:
        """Store several figures in one transaction, with one sync of the disk: all or none.

        Args:
            figures: At most 100,000 `NewMetric`s, of any moments. Those from before a remote was set are told to it by
                `outbox.backfill`, as all that was before.

        Raises:
            InvalidInputError: One of them is refused; its field says which (`figures[2].name`).
            QuotaError: The outbox is full, and the store was told to raise then.
        """
        checked = _all_checked(figures)
        namespace = self._settings.namespace
        return self._write(lambda db: queries.metrics.record(db, namespace, checked))

    def _new_timer(self, settings: TimerSettings) -> Timer:
        return Timer(settings, self.record, self._lose_metric)

    def _lose_metric(self, name: str, reason: str) -> None:
        self._database.tally.count("metrics_lost")
        log(logging.WARNING, "metric_lost", "a time could not be recorded", metric=name, reason=reason)


def _all_checked(figures: Iterable[NewMetric]) -> Sequence[Figure]:
    return [_checked_at(index, figure) for index, figure in enumerate(several("figures", figures, most=MAX_BATCH))]


def _checked_at(index: int, figure: object) -> Figure:
    place = f"figures[{index}]"
    if not isinstance(figure, NewMetric):
        raise InvalidInputError(place, "must be a NewMetric")
    about = (figure.unit, figure.attributes, figure.agent_id, figure.session_id, figure.at)
    try:
        return _checked(figure.name, figure.value, *about)
    except InvalidInputError as error:
        raise InvalidInputError(f"{place}.{error.field}", error.reason, limit=error.limit) from None


def _checked(
    name: object,
    value: object,
    unit: object,
    attributes: object,
    agent_id: object,
    session_id: object,
    at: object = None,
) -> Figure:
    return Figure(
        inputs.identifier("name", name),
        inputs.number("value", value),
        inputs.optional_identifier("unit", unit),
        inputs.optional_json_object("attributes", attributes),
        inputs.optional_identifier("agent_id", agent_id),
        inputs.optional_identifier("session_id", session_id),
        inputs.optional_instant("at", at),
    )
