"""What the trackers answer about conversations, in the shapes of the remote API: JSON, instants as ISO 8601 with an offset."""

from __future__ import annotations

from typing import Any, TypedDict

from . import SessionInfo


class Conversation(TypedDict):
    """What is known about a conversation.

    Keys:
        status: open, completed, failed or expired.
        duration_seconds: From its start to its end, None while it is open.
        message_count: As its end told it, else the messages that are stored.
        last_activity_at: Its last change; an append is one.
        expires_at: When it expires unless it is used; None for never.
    """

    session_id: str
    agent_id: str | None
    user_id: str | None
    status: str
    start_time: str
    end_time: str | None
    duration_seconds: float | None
    quality_score: int | None
    user_feedback: str | None
    error_message: str | None
    message_count: int
    metadata: dict[str, Any]
    last_activity_at: str
    expires_at: str | None


class SessionStats(TypedDict):
    """How the conversations of trackers live.

    Keys:
        total_cached_sessions: Open ones, overdue ones included.
        active_sessions: Those of them that are alive.
        expired_sessions_pending_cleanup: Those that a sweep will settle.
        ttl_hours: The life of future ones without a sign of life; None for ever.
        cleanup_interval_minutes: How often the background sweeps.
        sliding_ttl_enabled: Whether each use begins the life anew; it does.
        average_idle_seconds: How long the living have been idle; None without any. So are `longest_` and `shortest_`.
    """

    total_cached_sessions: int
    active_sessions: int
    expired_sessions_pending_cleanup: int
    ttl_hours: float | None
    cleanup_interval_minutes: float
    sliding_ttl_enabled: bool
    average_idle_seconds: float | None
    longest_idle_seconds: float | None
    shortest_idle_seconds: float | None


def conversation(info: SessionInfo) -> Conversation:
    """What is known about a session, as the trackers tell it."""
    ended_at = info.ended_at
    return {
        "session_id": info.session_id,
        "agent_id": info.agent_id,
        "user_id": info.user_id,
        "status": info.status,
        "start_time": info.created_at.isoformat(),
        "end_time": None if ended_at is None else ended_at.isoformat(),
        "duration_seconds": None if ended_at is None else max(0.0, (ended_at - info.created_at).total_seconds()),
        "quality_score": info.quality_score,
        "user_feedback": info.feedback,
        "error_message": info.error,
        "message_count": info.message_count if info.reported_message_count is None else info.reported_message_count,
        "metadata": info.metadata,
        "last_activity_at": info.updated_at.isoformat(),
        "expires_at": None if info.expires_at is None else info.expires_at.isoformat(),
    }
