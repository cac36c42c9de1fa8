"""The views, which are the public SQL contract: plain SQLite, without functions of this library's own.

A view reads its own present, `strftime(..., 'now')`, in milliseconds; the calls of a store have one present for all that they do.
The revision that makes the views has this text frozen; a test compares both with the file.
"""

# ruff: noqa: S608 - put together from constants only

from __future__ import annotations

from typing import Final

from ..values import MAX_SEQ, SEQ_BITS

_NOW: Final = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"
_OVERDUE: Final = f"status = 'open' AND expires_at <= {_NOW}"
_HAS_TOKENS: Final = "coalesce(m.input_tokens, m.output_tokens, m.cache_read_tokens, m.reasoning_tokens) IS NOT NULL"


def _microseconds(later: str, earlier: str) -> str:
    """The exact time between two stored instants. SQLite's own date functions round to milliseconds."""
    seconds = f"strftime('%s', substr({later}, 1, 19)) - strftime('%s', substr({earlier}, 1, 19))"
    return f"(({seconds}) * 1000000\n    + substr({later}, 21) - substr({earlier}, 21))"


def _percentile(percent: int) -> str:
    """Nearest rank, in whole numbers: this SQLite may have no ceil()."""
    return f"min(CASE WHEN place * 100 >= {percent} * answers THEN answer_time_ms END)"


def _tokens(column: str) -> str:
    """A sum of tokens that cannot overflow; exact below 2^53."""
    return f"CAST(total(m.{column}) AS INTEGER)"


_SESSIONS: Final = f"""CREATE VIEW v_sessions AS
SELECT namespace, session_id, session_key, agent_id, user_id, title, status, pinned, tracked, quality_score, error, feedback,
  message_count, reported_message_count, metadata, version, created_at, updated_at, ended_at, archived_at, expires_at,
  ttl_seconds, max_age_seconds,
  {_microseconds("ended_at", "created_at")} / 1000000.0 AS duration_seconds
FROM (
  SELECT namespace, session_id, session_key, agent_id, user_id, title,
    CASE WHEN {_OVERDUE}
      THEN 'expired' ELSE status END AS status,
    pinned, tracked, quality_score, error, feedback, message_count, reported_message_count, metadata, version,
    created_at, updated_at,
    CASE WHEN {_OVERDUE}
      THEN expires_at ELSE ended_at END AS ended_at,
    archived_at, expires_at, ttl_seconds, max_age_seconds
  FROM sessions
)"""

# The range finds the messages of few sessions; without it SQLite would look at every message.
_MESSAGES: Final = f"""CREATE VIEW v_messages AS
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.finish_reason,
  m.input_tokens, m.output_tokens, m.cache_read_tokens, m.reasoning_tokens,
  m.answer_time_ms AS response_time_ms,
  CASE WHEN m.answer_time_ms IS NOT NULL
    THEN CASE WHEN m.response_time_ms IS NOT NULL THEN 'given' ELSE 'measured' END END AS response_time_source,
  m.metadata, m.created_at
FROM messages m JOIN sessions s ON s.session_key = m.id >> {SEQ_BITS}
  AND m.id BETWEEN s.session_key << {SEQ_BITS} AND (s.session_key << {SEQ_BITS}) + {MAX_SEQ}"""

_METRIC_EVENTS: Final = """CREATE VIEW v_metric_events AS
SELECT namespace, id, name, value, unit, agent_id, session_id, attributes, occurred_at
FROM metric_events"""

_SUCCESS_DAILY: Final = """CREATE VIEW v_success_daily AS
SELECT namespace, day, agent_id, total, completed, failed, expired, active,
  completed * 1.0 / nullif(completed + failed, 0) AS success_rate
FROM (
  SELECT namespace, substr(created_at, 1, 10) AS day, agent_id,
    count(*) AS total,
    sum(status = 'completed') AS completed,
    sum(status = 'failed') AS failed,
    sum(status = 'expired') AS expired,
    sum(status = 'open') AS active
  FROM v_sessions
  GROUP BY namespace, substr(created_at, 1, 10), agent_id
)"""

_RESPONSE_TIME_HOURLY: Final = f"""CREATE VIEW v_response_time_hourly AS
SELECT namespace, hour, agent_id, count(*) AS count, avg(answer_time_ms) AS mean_ms,
  {_percentile(50)} AS p50_ms,
  {_percentile(95)} AS p95_ms,
  {_percentile(99)} AS p99_ms,
  min(answer_time_ms) AS min_ms, max(answer_time_ms) AS max_ms
FROM (
  SELECT namespace, hour, agent_id, answer_time_ms,
    row_number() OVER ranked AS place,
    count(*) OVER (ranked ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS answers
  FROM (
    SELECT s.namespace, substr(m.created_at, 1, 13) || ':00' AS hour, s.agent_id, m.answer_time_ms
    FROM messages m JOIN sessions s ON s.session_key = m.id >> {SEQ_BITS}
    WHERE m.facts IS NOT NULL AND m.answer_time_ms IS NOT NULL
  )
  WINDOW ranked AS (PARTITION BY namespace, hour, agent_id ORDER BY answer_time_ms)
)
GROUP BY namespace, hour, agent_id"""

_QUALITY_DISTRIBUTION: Final = """CREATE VIEW v_quality_distribution AS
SELECT namespace, agent_id, quality_score, count(*) AS sessions
FROM sessions
WHERE quality_score IS NOT NULL
GROUP BY namespace, agent_id, quality_score"""

_FAILURES: Final = """CREATE VIEW v_failures AS
SELECT namespace, session_id, session_key, agent_id, user_id, error, created_at, coalesce(ended_at, updated_at) AS ended_at,
  duration_seconds, message_count, quality_score, metadata
FROM v_sessions
WHERE status = 'failed'"""

_AGENT_STATUS: Final = f"""CREATE VIEW v_agent_status AS
SELECT namespace, agent_id,
  CASE WHEN {_microseconds("now", "last_seen_at")} >= stale_after_seconds * 1000000.0
    THEN 'offline' ELSE reported_status END AS status,
  reported_status, previous_status, status_at, last_seen_at, stale_after_seconds, registered_at, sdk_version, metadata
FROM (
  SELECT a.namespace, a.agent_id, a.status AS reported_status, a.previous_status, a.status_at,
    max(a.last_seen_at, coalesce(
      (SELECT max(s.updated_at) FROM sessions s WHERE s.namespace = a.namespace AND s.agent_id = a.agent_id),
      a.last_seen_at)) AS last_seen_at,
    a.stale_after_seconds, a.registered_at, a.sdk_version, a.metadata,
    {_NOW} AS now
  FROM agents a
)"""

_TOKEN_USAGE_DAILY: Final = f"""CREATE VIEW v_token_usage_daily AS
SELECT s.namespace, substr(m.created_at, 1, 10) AS day, s.agent_id, m.model, count(*) AS messages,
  {_tokens("input_tokens")} AS input_tokens,
  {_tokens("output_tokens")} AS output_tokens,
  {_tokens("cache_read_tokens")} AS cache_read_tokens,
  {_tokens("reasoning_tokens")} AS reasoning_tokens
FROM messages m JOIN sessions s ON s.session_key = m.id >> {SEQ_BITS}
WHERE m.facts IS NOT NULL AND {_HAS_TOKENS}
GROUP BY s.namespace, substr(m.created_at, 1, 10), s.agent_id, m.model"""

_OUTBOX: Final = f"""CREATE VIEW v_outbox AS
SELECT namespace, id, key, stream, kind, state, attempts, occurred_at, created_at, next_at, lease_token, lease_until,
  last_status, last_error, settled_at, size_bytes, paused,
  {_microseconds("now", "created_at")} / 1000000.0 AS age_seconds
FROM (
  SELECT o.namespace, o.id, o.key, o.stream, o.kind, o.state, o.attempts, o.occurred_at, o.created_at, o.next_at,
    h.token AS lease_token, CASE WHEN h.token IS NOT NULL THEN h.held_until END AS lease_until,
    o.last_status, o.last_error, o.settled_at, o.size_bytes, s.paused, {_NOW} AS now
  FROM outbox o JOIN sync_state s LEFT JOIN outbox_holds h
    ON o.state = 'pending' AND h.namespace = o.namespace AND h.stream = o.stream
)"""

_SYNC: Final = f"""CREATE VIEW v_sync AS
SELECT remote_url, pending, pending_bytes,
  {_microseconds("now", "oldest_at")} / 1000000.0 AS oldest_age_seconds,
  dead, erased, sent, dropped, last_sent_at, failures, failing_since, retry_at, paused, last_status, last_error
FROM (
  SELECT i.remote_url, (SELECT count(*) FROM outbox WHERE state = 'pending') AS pending,
    (SELECT CAST(total(size_bytes) AS INTEGER) FROM outbox WHERE state = 'pending') AS pending_bytes,
    (SELECT created_at FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 1) AS oldest_at,
    (SELECT count(*) FROM outbox WHERE state <> 'pending' AND state = 'dead') AS dead,
    (SELECT count(*) FROM outbox WHERE state <> 'pending' AND state = 'erased') AS erased,
    s.sent, s.dropped, s.last_sent_at, s.failures, s.failing_since, s.retry_at, s.paused, s.last_status, s.last_error,
    {_NOW} AS now
  FROM store_info i JOIN sync_state s
)"""

_TRANSCRIPTS: Final = f"""CREATE VIEW v_transcripts AS
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.created_at,
  s.session_key AS owner_key
FROM messages m JOIN sessions s ON s.session_key = m.id >> {SEQ_BITS}
  AND m.id BETWEEN s.session_key << {SEQ_BITS} AND (s.session_key << {SEQ_BITS}) + {MAX_SEQ}
UNION ALL
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.created_at,
  r.owner_key
FROM inherited_ranges r JOIN sessions s ON s.session_key = r.session_key
  JOIN messages m ON m.id BETWEEN (r.owner_key << {SEQ_BITS}) + r.first_seq AND (r.owner_key << {SEQ_BITS}) + r.last_seq"""

# Name -> text, in the order in which they are made: some stand on others.
VIEWS: Final = {
    "v_sessions": _SESSIONS,
    "v_messages": _MESSAGES,
    "v_metric_events": _METRIC_EVENTS,
    "v_success_daily": _SUCCESS_DAILY,
    "v_response_time_hourly": _RESPONSE_TIME_HOURLY,
    "v_quality_distribution": _QUALITY_DISTRIBUTION,
    "v_failures": _FAILURES,
    "v_agent_status": _AGENT_STATUS,
    "v_token_usage_daily": _TOKEN_USAGE_DAILY,
    "v_outbox": _OUTBOX,
    "v_sync": _SYNC,
    "v_transcripts": _TRANSCRIPTS,
}
