"""What is computed of the rows of an analysis: rates, nearest-rank percentiles, sums, for each agent and for all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from ... import clock
from ...periods import Bucket, bucket_start

T = TypeVar("T")

Agent: TypeAlias = str | None
ByAgent: TypeAlias = Mapping[Agent, list[T]]
# The part of the stored instant that tells the bucket ("" without buckets) -> agent -> what there is of it.
Slots: TypeAlias = Mapping[str, ByAgent[T]]
Answer: TypeAlias = dict[str, Any]

_PERCENTS: Final = (50, 95, 99)
_SCORES: Final = (1, 2, 3, 4, 5)
_TOKEN_COLUMNS: Final = ("messages", "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")


class StatusCount(NamedTuple):
    """How many sessions have a status; overdue ones are expired."""

    status: str
    sessions: int


class ScoreCount(NamedTuple):
    """How many sessions have a quality score."""

    score: int
    sessions: int


class ErrorCount(NamedTuple):
    """How many sessions failed with an error, and the stored instant of the last one."""

    error: str | None
    sessions: int
    last_at: str


class ModelUsage(NamedTuple):
    """Messages of a model and their tokens."""

    model: str | None
    messages: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    reasoning_tokens: int


def answer(slots: Slots[T], bucket: Bucket | None, make: Callable[[ByAgent[T]], Answer]) -> Answer:
    """What `make` says of all, and of each bucket in which there is anything, oldest first."""
    whole = make(_merged(slots.values()))
    if bucket is None:
        return whole
    starts: dict[str, list[ByAgent[T]]] = {}
    for prefix in sorted(slots):
        starts.setdefault(bucket_start(prefix, bucket).isoformat(), []).append(slots[prefix])
    return {**whole, "buckets": [{"start": start, **make(_merged(parts))} for start, parts in starts.items()]}


def success(by_agent: ByAgent[StatusCount]) -> Answer:
    """The success rates."""
    return _of_agents(by_agent, _success_figures)


def response_times(by_agent: ByAgent[float]) -> Answer:
    """The response times, in milliseconds."""
    return _of_agents(by_agent, lambda times: spread(times, "ms"))


def durations(by_agent: ByAgent[float]) -> Answer:
    """The durations, in seconds."""
    return _of_agents(by_agent, lambda times: spread(times, "s"))


def with_durations(times: Answer, lengths: Answer) -> Answer:
    """Response times and durations in one answer; either may have buckets that the other one lacks."""
    joined = {**times, "conversation_duration_s": {name: lengths[name] for name in ("agents", "overall")}}
    if "buckets" in times:
        timed, lasted = ({each["start"]: each for each in part["buckets"]} for part in (times, lengths))
        joined["buckets"] = [
            with_durations(timed.get(start, {"start": start, **response_times({})}), lasted.get(start, durations({})))
            for start in sorted(timed.keys() | lasted.keys())
        ]
    return joined


def quality(by_agent: ByAgent[ScoreCount]) -> Answer:
    """The quality scores."""
    return _of_agents(by_agent, _quality_figures)


def tokens(by_agent: ByAgent[ModelUsage]) -> Answer:
    """The tokens, also by model."""
    models: dict[str | None, list[ModelUsage]] = {}
    for usage in _all(by_agent):
        models.setdefault(usage.model, []).append(usage)
    by_model = [{"model": model, **_token_figures(usages)} for model, usages in _in_order(models)]
    return {**_of_agents(by_agent, _token_figures), "models": by_model}


def failures(by_agent: ByAgent[ErrorCount], *, most_errors: int) -> Answer:
    """How many failed, by agent, and by error: the most frequent ones."""
    errors: dict[str | None, list[ErrorCount]] = {}
    for count in _all(by_agent):
        errors.setdefault(count.error, []).append(count)
    by_error = [{"error": error, **_failure_figures(counts)} for error, counts in _in_order(errors)]
    by_error.sort(key=lambda each: (each["count"], each["last_at"]), reverse=True)
    return {
        "total": sum(count.sessions for count in _all(by_agent)),
        "by_agent": [{"agent_id": agent, **_failure_figures(counts)} for agent, counts in _in_order(by_agent)],
        "by_error": by_error[:most_errors],
    }


def spread(values: list[float], unit: str) -> Answer:
    """The figures of some times. The list is sorted on the way."""
    values.sort()
    count = len(values)
    ranks = {f"p{percent}_{unit}": values[nearest_rank(percent, count) - 1] if values else None for percent in _PERCENTS}
    return {
        "count": count,
        f"mean_{unit}": _mean(values) if values else None,
        **ranks,
        f"min_{unit}": values[0] if values else None,
        f"max_{unit}": values[-1] if values else None,
    }


def nearest_rank(percent: int, count: int) -> int:
    """The smallest place, from 1 on, with at least so many percent of the values up to it."""
    return (percent * count + 99) // 100


def _of_agents(by_agent: ByAgent[T], figures: Callable[[list[T]], Answer]) -> Answer:
    # The agents come first: sorted parts make the sorting of the whole cheap.
    agents = [{"agent_id": agent, **figures(found)} for agent, found in _in_order(by_agent)]
    return {"agents": agents, "overall": figures(_all(by_agent))}


def _success_figures(counts: Sequence[StatusCount]) -> Answer:
    by_status: Counter[str] = Counter()
    for status, sessions in counts:
        by_status[status] += sessions
    ended = by_status["completed"] + by_status["failed"]
    return {
        "total": by_status.total(),
        "completed": by_status["completed"],
        "failed": by_status["failed"],
        "expired": by_status["expired"],
        "active": by_status["open"],
        "success_rate": by_status["completed"] / ended if ended else None,
    }


def _quality_figures(counts: Sequence[ScoreCount]) -> Answer:
    by_score: Counter[int] = Counter()
    for score, sessions in counts:
        by_score[score] += sessions
    count = by_score.total()
    mean = sum(score * sessions for score, sessions in by_score.items()) / count if count else None
    return {"count": count, "mean": mean, "distribution": {str(score): by_score[score] for score in _SCORES}}


def _token_figures(usages: Sequence[ModelUsage]) -> Answer:
    return {name: sum(getattr(usage, name) for usage in usages) for name in _TOKEN_COLUMNS}


def _failure_figures(counts: Sequence[ErrorCount]) -> Answer:
    last_at = max(count.last_at for count in counts)
    return {"count": sum(count.sessions for count in counts), "last_at": clock.from_text(last_at).isoformat()}


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def _merged(parts: Iterable[ByAgent[T]]) -> dict[Agent, list[T]]:
    whole: dict[Agent, list[T]] = {}
    for part in parts:
        for agent, found in part.items():
            whole.setdefault(agent, []).extend(found)
    return whole


def _all(by_agent: ByAgent[T]) -> list[T]:
    return [each for found in by_agent.values() for each in found]


def _in_order(by_name: Mapping[str | None, list[T]]) -> list[tuple[str | None, list[T]]]:
    """By name; what has none comes last."""
    return sorted(by_name.items(), key=lambda entry: (entry[0] is None, entry[0] or ""))
