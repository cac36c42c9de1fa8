"""AgentPerformanceTracker: conversations with start, end, failure and expiry, and how well they went."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final, Unpack

from .. import inputs, queries
from ..arguments import UNSET, AnalyticsFilters, SessionEnd, new_session, session_end
from ..database.transaction import Transaction
from ..delivery.asking import place
from ..errors import InvalidInputError, SyncError
from ..logs import log
from ..remote.credentials import ApiKey, require_valid
from ..store.analytics import DEFAULT_FAILURES
from ..tracked_ids import tracked_agent
from ..values import SessionInfo
from ..values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates
from ..values.conversations import Conversation, SessionStats, conversation
from .remote_answers import (
    SOURCES,
    Source,
    Undone,
    about_conversation,
    active_conversations,
    asked,
    failed_sessions,
    figures,
    found_or_asked,
)
from .tracker import Tracker, TrackerOptions, awaited

_HOUR: Final = 3_600.0


class AgentPerformanceTracker(Tracker):
    """Follows conversations: it is told when they start and how they end, and answers how well they go.

    Questions about how well they go are answered by the file, or with `source="remote"` by the remote: its JSON as it is, or one of
    the kinds of `SyncError`; `ConfigError` without a `base_url`.

    Args:
        base_url: The remote API that events are kept for and delivered to; None adds none. It belongs to the file: all programs
            on it keep their events from then on. The background, which the first recording starts, delivers them; no recording
            waits for it.
        api_key: Its key, or a callable that returns it; kept in memory only. By default `SESSIONSTORE_SYNC_TOKEN`.
        session_ttl_hours: Hours without a sign of life after which a conversation expires; None for never.
        options: Those of both trackers, see `TrackerOptions`.

    Raises:
        ConfigError: The remote's address or key is wrong, or the store has another remote.
        InvalidInputError: Another argument is wrong.
    """

    def __init__(
        self,
        base_url: str | None,
        api_key: str | Callable[[], str] | ApiKey | None = None,
        *,
        session_ttl_hours: float | None = 10.0,
        **options: Unpack[TrackerOptions],
    ) -> None:
        # First of all: a traceback shows the variables of a frame, and this one then holds no key.
        api_key = ApiKey.of(api_key)
        require_valid(api_key)
        self._ttl = inputs.life("session_ttl_hours", session_ttl_hours, unit=_HOUR)
        super().__init__(base_url, api_key, **options)

    # -- conversations

    def start_conversation(self, agent_id: str, user_id: str | None = None, metadata: Mapping[str, Any] | None = None) -> str:
        """Begin a conversation and return its id, `{agent_id}_{unix seconds}_{8 hex digits}`.

        Args:
            agent_id: Whose it is; at most 234 characters.
            user_id: With whom.
            metadata: A JSON dict.
        """
        agent = tracked_agent(agent_id)
        settings = self._store.settings
        new = new_session(
            settings.namespace,
            agent,  # the id is drawn in the transaction
            agent_id=agent,
            user_id=user_id,
            metadata=metadata,
            ttl=self._ttl,
            max_age=settings.max_age,
            on_expire=settings.on_expire,
            tracked=True,
        )

        def start(db: Transaction) -> str:
            # The life may have been changed while the call waited.
            return queries.conversations.start(db, agent, new if new.ttl == self._ttl else replace(new, ttl=self._ttl))

        return self._record(
            start,
            lambda session_id: self._tell("conversation_started", "a conversation started", session_id=session_id, agent_id=agent),
        )

    def end_conversation(
        self,
        session_id: str,
        quality_score: int | None = None,
        user_feedback: str | None = None,
        message_count: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """End a conversation well. One that has expired, or began elsewhere under an id of a tracker's, is ended all the same.

        Args:
            session_id: What `start_conversation` returned.
            quality_score: A `ConversationQuality`, or 1 (very poor) to 5 (excellent).
            user_feedback: What the user said, at most 10,000 characters.
            message_count: How many messages it had; by default those that the store holds.
            metadata: A JSON dict, merged into that of the start.

        Raises:
            NotFoundError: The id is neither known nor one of a tracker's.
            InvalidInputError: An argument is refused; nothing was recorded.
        """
        return self._end(
            session_id,
            session_end(
                "completed",
                quality_score=UNSET if quality_score is None else quality_score,
                feedback=UNSET if user_feedback is None else user_feedback,
                message_count=UNSET if message_count is None else message_count,
                metadata=metadata,
            ),
        )

    def record_failed_session(
        self, session_id: str, error_message: str | BaseException, metadata: Mapping[str, Any] | None = None
    ) -> Conversation:
        """End a conversation that failed, as `end_conversation` does.

        Args:
            session_id: What `start_conversation` returned.
            error_message: What went wrong, a text or the exception itself; what is beyond 10,000 characters is cut off.
            metadata: A JSON dict, merged into that of the start.
        """
        return self._end(session_id, session_end("failed", error=_error_text(error_message), metadata=metadata))

    def resume_conversation(self, session_id: str, metadata: Mapping[str, Any] | None = None) -> Conversation:
        """Go on with a conversation: an open one begins its idle time anew, an ended one is opened again.

        Raises:
            NotFoundError: It is not known here.
            SessionExpiredError: It has expired; start a new one.
        """
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace
        inputs.metadata(metadata)
        noted = dict(metadata or {})
        return self._record(
            lambda db: conversation(queries.conversation_lives.resume(db, namespace, wanted, noted)),
            lambda _: self._tell("conversation_resumed", "a conversation was resumed", session_id=wanted),
        )

    def touch_session(self, session_id: str) -> bool:
        """Begin a conversation's idle time anew; False if it is over or unknown."""
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace
        return self._record(lambda db: _is_active(queries.lifecycle.touch_if_there(db, namespace, wanted)))

    def is_session_active(self, session_id: str) -> bool:
        """Whether a conversation is open and not expired. Asking does not lengthen its life."""
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace
        return self._look(lambda db: _is_active(queries.sessions.find(db, namespace, wanted)))

    def get_session_ttl_remaining(self, session_id: str) -> float | None:
        """Seconds until a conversation expires; 0.0 if it has, None if it never will. Asking does not lengthen its life.

        Raises:
            NotFoundError: It is not known here.
        """
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace
        return self._look(lambda db: queries.conversation_lives.remaining(db, namespace, wanted))

    def get_session_info(self, session_id: str, *, source: Source = "local") -> Conversation | None:
        """What is known about a conversation, live or over; None if nothing is.

        One that the file does not know is asked for at the remote, if the tracker has a `base_url`: that may take as long as its
        `timeout`. A remote that gives no answer then knows nothing, either; with `source="remote"` that is an error.
        """
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace

        def further() -> Undone[Conversation | None]:
            # Not as one of this store, which does not know it: another machine may have begun it.
            return asked(self._base(), about_conversation(wanted))

        def told(error: SyncError) -> None:
            log(logging.DEBUG, "question_failed", "the remote was asked about a session that is unknown here, and gave no answer",
                logger=self._logger, session_id=wanted, reason=error)  # fmt: skip

        if inputs.choice("source", source, SOURCES) == "remote":
            ours: Undone[Conversation | None] = asked(self._base(), about_conversation(wanted, place(self._source, namespace)))
            return self._do(ours)
        look = self._looking(lambda db: _conversation_or_none(queries.conversations.known(db, namespace, wanted)))
        return self._do(look if self._remote is None else found_or_asked(look, further, told))

    def get_active_conversations(self, agent_id: str | None = None, *, source: Source = "local") -> list[Conversation]:
        """The conversations that are open and not expired, of an agent or of all, the newest first."""
        agent, namespace = inputs.optional_identifier("agent_id", agent_id), self._store.namespace

        def look(db: Transaction) -> list[Conversation]:
            return [conversation(info) for info in queries.conversation_lives.active(db, namespace, agent_id=agent)]

        return self._ask(source, lambda: active_conversations(agent), lambda store: store._read(look))  # noqa: SLF001

    def set_session_ttl(self, hours: float | None) -> int:
        """Give future conversations of this tracker another life, and all live ones that trackers began in this namespace.

        Returns how many live ones there are. One that has been idle for longer than that expires at once; its last sign of life
        counts.

        Args:
            hours: Hours without a sign of life; None for never.
        """
        ttl, namespace = inputs.life("hours", hours, unit=_HOUR), self._store.namespace

        def change(db: Transaction) -> int:
            changed = queries.conversation_lives.set_ttl(db, namespace, ttl)
            self._ttl = ttl
            return changed

        def told(changed: int) -> None:
            self._tell(
                "session_ttl_changed",
                "the lives of conversations changed",
                hours=None if ttl is None else ttl / _HOUR,
                conversations=changed,
            )

        return self._record(change, told)

    def get_session_stats(self) -> SessionStats:
        """How many conversations of trackers are open and how long they have been idle.

        `total_cached_sessions` counts the open ones, `active_sessions` those of them that are alive, and
        `expired_sessions_pending_cleanup` those that a sweep will settle.
        """
        namespace, ttl = self._store.namespace, self._ttl
        minutes = self._interval / 60
        return self._look(lambda db: queries.conversation_lives.stats(db, namespace, ttl=ttl, interval_minutes=minutes))

    # -- how well they go; periods are half open, a conversation belongs to the one in which it began

    def get_success_rates(
        self,
        agent_id: str | None = None,
        start_date: date | datetime | None = None,
        end_date: date | datetime | None = None,
        *,
        source: Source = "local",
    ) -> SuccessRates:
        """Completed conversations over ended ones, by agent and overall, as `SessionStore.success_rates` has it."""
        filters = _filters(agent_id, start_date, end_date)
        return self._ask(source, lambda: figures("success-rates", filters), lambda store: store.success_rates(**filters))

    def get_response_times(
        self,
        agent_id: str | None = None,
        start_date: date | datetime | None = None,
        end_date: date | datetime | None = None,
        *,
        source: Source = "local",
    ) -> ResponseTimes:
        """Milliseconds from question to answer, by agent and overall, as `SessionStore.response_times` has it."""
        filters = _filters(agent_id, start_date, end_date)
        return self._ask(source, lambda: figures("response-times", filters), lambda store: store.response_times(**filters))

    def get_conversation_quality(
        self,
        agent_id: str | None = None,
        start_date: date | datetime | None = None,
        end_date: date | datetime | None = None,
        *,
        source: Source = "local",
    ) -> QualityScores:
        """Quality scores and their distribution, by agent and overall, as `SessionStore.quality` has it."""
        filters = _filters(agent_id, start_date, end_date)
        return self._ask(source, lambda: figures("quality", filters), lambda store: store.quality(**filters))

    def get_failed_sessions(
        self,
        agent_id: str | None = None,
        start_date: date | datetime | None = None,
        end_date: date | datetime | None = None,
        *,
        limit: int = DEFAULT_FAILURES,
        cursor: str | None = None,
        source: Source = "local",
    ) -> Failures:
        """Failed conversations, by agent, by error and one by one, as `SessionStore.failures` has it."""
        filters = _filters(agent_id, start_date, end_date)
        return self._ask(
            source,
            lambda: failed_sessions(filters, limit, cursor),
            lambda store: store.failures(limit=limit, cursor=cursor, **filters),
        )

    def get_performance_overview(
        self,
        agent_id: str | None = None,
        start_date: date | datetime | None = None,
        end_date: date | datetime | None = None,
        *,
        source: Source = "local",
    ) -> Overview:
        """All of these figures in one answer, as `SessionStore.overview` has it."""
        filters = _filters(agent_id, start_date, end_date)
        return self._ask(source, lambda: figures("overview", filters), lambda store: store.overview(**filters))

    def _end(self, session_id: str, how: SessionEnd) -> Conversation:
        wanted, namespace = inputs.identifier("session_id", session_id), self._store.namespace

        def told(ended: Conversation) -> None:
            facts = {name: ended[name] for name in ("session_id", "agent_id", "status", "duration_seconds", "quality_score")}
            self._tell("conversation_ended", "a conversation ended", **facts)

        return self._record(lambda db: conversation(queries.conversations.end(db, namespace, wanted, how)), told)

    start_conversation_async = awaited(start_conversation)
    end_conversation_async = awaited(end_conversation)
    record_failed_session_async = awaited(record_failed_session)
    resume_conversation_async = awaited(resume_conversation)
    touch_session_async = awaited(touch_session)
    is_session_active_async = awaited(is_session_active)
    get_session_ttl_remaining_async = awaited(get_session_ttl_remaining)
    get_session_info_async = awaited(get_session_info)
    get_active_conversations_async = awaited(get_active_conversations)
    set_session_ttl_async = awaited(set_session_ttl)
    get_session_stats_async = awaited(get_session_stats)
    get_success_rates_async = awaited(get_success_rates)
    get_response_times_async = awaited(get_response_times)
    get_conversation_quality_async = awaited(get_conversation_quality)
    get_failed_sessions_async = awaited(get_failed_sessions)
    get_performance_overview_async = awaited(get_performance_overview)


def _filters(agent_id: str | None, start_date: date | None, end_date: date | None) -> AnalyticsFilters:
    return {"agent_id": agent_id, "start_date": start_date, "end_date": end_date}


def _conversation_or_none(info: SessionInfo | None) -> Conversation | None:
    return None if info is None else conversation(info)


def _error_text(error: str | BaseException) -> str:
    """A failure is recorded however long its text is: what matters stands in its beginning."""
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}"
    if not isinstance(error, str):
        raise InvalidInputError("error_message", "must be a str or an exception")
    return error[: inputs.MAX_ERROR_CHARS]


def _is_active(info: SessionInfo | None) -> bool:
    return info is not None and info.status == "open"
