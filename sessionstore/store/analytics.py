"""The calls that tell how well agents do, and the call for the user's own SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Unpack

from .. import clock, hints, inputs, queries
from ..arguments import AnalyticsFilters, refuse_unknown
from ..errors import InvalidInputError
from ..periods import Scope, scope
from ..values import QueryResult
from .calls import Calls

DEFAULT_FAILURES: Final = 50
MAX_SQL_BYTES: Final = 1_000_000

PlainParameter = str | int | float | bytes | datetime | None


class AnalyticsCalls(Calls):
    """Analytics. All of them share the arguments that `AnalyticsFilters` has.

    `agent_id` looks at one agent. `start_date` and `end_date` are a half-open period, `start_date <= t < end_date`: aware
    datetimes, or dates, which mean their UTC midnight. A session counts where it began, a message where it was stored. `bucket`
    ("hour", "day", "week", "month") adds `buckets`, oldest first: what the answer has, for each stretch of UTC time in which there
    is anything, with its `start`. Weeks begin on Monday; the first and the last stretch may reach out of the period.

    Answers are dicts that JSON takes as they are. `agents` is sorted by `agent_id`, sessions without an agent come last with
    None. An open session that is overdue counts as expired, swept or not. Percentiles are nearest-rank.
    """

    def success_rates(self, **filters: Unpack[AnalyticsFilters]) -> hints.SuccessRates:
        """How sessions went, by agent and overall.

        Returns:
            `{"agents": [{"agent_id", "total", "completed", "failed", "expired", "active", "success_rate"}], "overall": {...}}`.
            The rate is `completed / (completed + failed)`, from 0 to 1; None if none ended. Expired sessions are no failures.
        """
        wanted = self._scope(filters)
        return self._read(lambda db: queries.analytics.success_rates(db, wanted))

    def response_times(self, *, session_id: str | None = None, **filters: Unpack[AnalyticsFilters]) -> hints.ResponseTimes:
        """How long answers took in milliseconds, and whole sessions in seconds, by agent and overall.

        A response time belongs to an assistant's message: the one given with it, else the one that the store measured since the
        user message that it answers.

        Args:
            session_id: The sessions of one id, those included that expired.
            filters: `agent_id`, `start_date`, `end_date`, `bucket` (see `AnalyticsFilters`).

        Returns:
            `{"agents": [{"agent_id", "count", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "min_ms", "max_ms"}], "overall": {...},
            "conversation_duration_s": {"agents": [{"agent_id", "count", "mean_s", "p50_s", ...}], "overall": {...}}}`. Durations
            are those of sessions that completed or failed. Without any, `count` is 0 and the others are None.
        """
        wanted = self._scope(filters, session_id)
        return self._read(lambda db: queries.analytics.response_times(db, wanted))

    def quality(self, **filters: Unpack[AnalyticsFilters]) -> hints.QualityScores:
        """How sessions were scored, by agent and overall.

        Returns:
            `{"agents": [{"agent_id", "count", "mean", "distribution": {"1": n, ..., "5": n}}], "overall": {...}}`, of the sessions
            that have a score, whatever their status. The mean is None without any.
        """
        wanted = self._scope(filters)
        return self._read(lambda db: queries.analytics.quality(db, wanted))

    def failures(
        self, *, limit: int = DEFAULT_FAILURES, cursor: str | None = None, **filters: Unpack[AnalyticsFilters]
    ) -> hints.Failures:
        """Which sessions failed, and why.

        Args:
            limit: At most so many sessions, and so many errors: 1 to 1,000.
            cursor: The `next` of the page before, from a call with the same agent and period.
            filters: `agent_id`, `start_date`, `end_date`, `bucket` (see `AnalyticsFilters`); buckets are without the sessions.

        Returns:
            `{"total", "by_agent": [{"agent_id", "count", "last_at"}], "by_error": [{"error", "count", "last_at"}], "sessions":
            [{"session_id", "agent_id", "error_message", "ended_at"}], "next"}`. The counts are of the whole period on every page;
            errors come most frequent first, sessions newest first. `next` is None on the last page.

        Raises:
            InvalidInputError: The cursor is damaged or belongs to another agent or period.
        """
        wanted = self._scope(filters)
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidInputError("cursor", "must be the next of a page")
        return self._read(lambda db: queries.analytics.failures(db, wanted, limit=most, cursor=cursor))

    def tokens(self, *, session_id: str | None = None, **filters: Unpack[AnalyticsFilters]) -> hints.TokenUsage:
        """What messages cost, by agent, overall and by model.

        Args:
            session_id: The sessions of one id, those included that expired.
            filters: `agent_id`, `start_date`, `end_date`, `bucket` (see `AnalyticsFilters`).

        Returns:
            `{"agents": [{"agent_id", "messages", "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens"}],
            "overall": {...}, "models": [{"model", ...}]}`, of the messages that tell any tokens.
        """
        wanted = self._scope(filters, session_id)
        return self._read(lambda db: queries.analytics.tokens(db, wanted))

    def overview(self, **filters: Unpack[AnalyticsFilters]) -> hints.Overview:
        """All of it, as of one moment.

        Returns:
            `{"period": {"start", "end"}, "success_rates", "response_times", "quality", "failures", "tokens"}`, each as its own call
            answers, with the first page of failures.
        """
        wanted = self._scope(filters)
        return self._read(lambda db: queries.analytics.overview(db, wanted, limit=DEFAULT_FAILURES))

    def query(
        self,
        sql: str,
        parameters: Sequence[PlainParameter] | Mapping[str, PlainParameter] = (),
        *,
        limit: int | None = None,
    ) -> QueryResult:
        """The rows of your own SELECT, in one snapshot of the whole file, every namespace. The views `v_*` are made for it.

        Args:
            sql: One statement that only reads, in SQLite's SQL.
            parameters: Values for its question marks, or by name for `:name`. An aware datetime becomes the text in which the
                tables hold instants.
            limit: At most so many rows; all by default.

        Raises:
            InvalidInputError: The statement does more than reading, or SQLite refuses it; nothing has run.
        """
        text = inputs.text("sql", sql, max_bytes=MAX_SQL_BYTES)
        bound = _bound(parameters)
        most = inputs.optional_whole_number("limit", limit, least=1)
        return self._read(lambda db: queries.user_sql.query(db, text, bound, limit=most))

    def _scope(self, filters: AnalyticsFilters, session_id: str | None = None) -> Scope:
        refuse_unknown(filters, AnalyticsFilters)
        return scope(self.namespace, session_id=session_id, **filters)


def _bound(parameters: object) -> dict[str, Any] | list[Any]:
    if isinstance(parameters, Mapping):
        return {_name(name): _plain(value) for name, value in parameters.items()}
    if isinstance(parameters, list | tuple):
        return [_plain(value) for value in parameters]
    raise InvalidInputError("parameters", "must be a list, a tuple or a dict")


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInputError("parameters", "names must be texts")
    return name


def _plain(value: object) -> str | int | float | bytes | None:
    """A value that SQLite takes without an adapter, which any module of the process may have registered."""
    if isinstance(value, datetime):
        return clock.to_text(inputs.instant("parameters", value))
    if isinstance(value, str):
        return inputs.text("parameters", value, max_bytes=inputs.MAX_INTEGER)
    if value is None or isinstance(value, float | bytes):
        return value
    if isinstance(value, int) and -inputs.MAX_INTEGER - 1 <= value <= inputs.MAX_INTEGER:
        return int(value)
    raise InvalidInputError("parameters", "must be texts, numbers of at most 64 bits, bytes, aware datetimes or None")
