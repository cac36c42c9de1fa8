"""The shapes of what analytics answer: dicts that JSON takes as they are. Instants in them are ISO 8601 texts with an offset.

A bucket holds what its answer holds, for its time alone, and the `start` of that time.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class _Agent(TypedDict):
    agent_id: str | None


class _Bucket(TypedDict):
    start: str


class SuccessFigures(TypedDict):
    """How sessions went; the rate is `completed / (completed + failed)`, None when none of them ended."""

    total: int
    completed: int
    failed: int
    expired: int
    active: int
    success_rate: float | None


class AgentSuccess(_Agent, SuccessFigures):
    """Those of one agent."""


class SuccessGroup(TypedDict):
    """Those of each agent, and of all sessions."""

    agents: list[AgentSuccess]
    overall: SuccessFigures


class SuccessBucket(_Bucket, SuccessGroup):
    """Those of the sessions that began in a bucket."""


class SuccessRates(SuccessGroup):
    """What `success_rates` answers."""

    buckets: NotRequired[list[SuccessBucket]]


class TimeFigures(TypedDict):
    """Response times in milliseconds; percentiles are nearest-rank; None when there are none."""

    count: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    min_ms: float | None
    max_ms: float | None


class AgentTimes(_Agent, TimeFigures):
    """Those of one agent."""


class DurationFigures(TypedDict):
    """Durations in seconds, likewise."""

    count: int
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    min_s: float | None
    max_s: float | None


class AgentDurations(_Agent, DurationFigures):
    """Those of one agent."""


class DurationGroup(TypedDict):
    """How long sessions took that completed or failed, for each agent and for all."""

    agents: list[AgentDurations]
    overall: DurationFigures


class TimeGroup(TypedDict):
    """The response times of each agent and of all, and the durations of sessions."""

    agents: list[AgentTimes]
    overall: TimeFigures
    conversation_duration_s: DurationGroup


class TimeBucket(_Bucket, TimeGroup):
    """Those of the messages that were stored, and of the sessions that began, in a bucket."""


class ResponseTimes(TimeGroup):
    """What `response_times` answers."""

    buckets: NotRequired[list[TimeBucket]]


class QualityFigures(TypedDict):
    """Quality scores; `distribution` counts each of "1" to "5"."""

    count: int
    mean: float | None
    distribution: dict[str, int]


class AgentQuality(_Agent, QualityFigures):
    """Those of one agent."""


class QualityGroup(TypedDict):
    """Those of each agent that has any, and of all."""

    agents: list[AgentQuality]
    overall: QualityFigures


class QualityBucket(_Bucket, QualityGroup):
    """Those of the sessions that began in a bucket."""


class QualityScores(QualityGroup):
    """What `quality` answers."""

    buckets: NotRequired[list[QualityBucket]]


class AgentFailures(_Agent):
    """How many sessions of an agent failed, and when the last one did."""

    count: int
    last_at: str


class ErrorFailures(TypedDict):
    """How many sessions failed with an error, and when the last one did."""

    error: str | None
    count: int
    last_at: str


class FailedSession(TypedDict):
    """A session that failed."""

    session_id: str
    agent_id: str | None
    error_message: str | None
    ended_at: str


class FailureGroup(TypedDict):
    """How many sessions failed, by agent, and by error: the most frequent ones first."""

    total: int
    by_agent: list[AgentFailures]
    by_error: list[ErrorFailures]


class FailureBucket(_Bucket, FailureGroup):
    """Those of the sessions that began in a bucket."""


class Failures(FailureGroup):
    """What `failures` answers: also a page of the sessions, and the cursor of the following one."""

    sessions: list[FailedSession]
    next: str | None
    buckets: NotRequired[list[FailureBucket]]


class TokenFigures(TypedDict):
    """Tokens of the messages that tell any."""

    messages: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    reasoning_tokens: int


class AgentTokens(_Agent, TokenFigures):
    """Those of one agent."""


class ModelTokens(TokenFigures):
    """Those of one model; None for messages whose model is not known."""

    model: str | None


class TokenGroup(TypedDict):
    """Those of each agent, of all messages, and of each model."""

    agents: list[AgentTokens]
    overall: TokenFigures
    models: list[ModelTokens]


class TokenBucket(_Bucket, TokenGroup):
    """Those of the messages that were stored in a bucket."""


class TokenUsage(TokenGroup):
    """What `tokens` answers."""

    buckets: NotRequired[list[TokenBucket]]


class Period(TypedDict):
    """A half-open period; None where it is open."""

    start: str | None
    end: str | None


class Overview(TypedDict):
    """What `overview` answers: all the others, of one moment."""

    period: Period
    success_rates: SuccessRates
    response_times: ResponseTimes
    quality: QualityScores
    failures: Failures
    tokens: TokenUsage
