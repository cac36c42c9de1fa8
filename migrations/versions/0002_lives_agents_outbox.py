"""Lives of sessions, what their agents did, figures, the outbox, and the views that are the public SQL contract.

Revision: 0002
Follows: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True)
INSTANT = sa.DateTime(timezone=True)
AGENT_STATUSES = "('active', 'idle', 'busy', 'error', 'offline', 'initializing')"
CHECKED = {
    "ttl_seconds": (sa.Float(), "ttl_seconds > 0"),
    "max_age_seconds": (sa.Float(), "max_age_seconds > 0"),
    "reported_message_count": (sa.Integer(), "reported_message_count >= 0"),
}


# Frozen; in the order in which they are made: some stand on others.
VIEWS = (
    """CREATE VIEW v_sessions AS
SELECT namespace, session_id, session_key, agent_id, user_id, title, status, pinned, tracked, quality_score, error, feedback,
  message_count, reported_message_count, metadata, version, created_at, updated_at, ended_at, archived_at, expires_at,
  ttl_seconds, max_age_seconds,
  ((strftime('%s', substr(ended_at, 1, 19)) - strftime('%s', substr(created_at, 1, 19))) * 1000000
    + substr(ended_at, 21) - substr(created_at, 21)) / 1000000.0 AS duration_seconds
FROM (
  SELECT namespace, session_id, session_key, agent_id, user_id, title,
    CASE WHEN status = 'open' AND expires_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
      THEN 'expired' ELSE status END AS status,
    pinned, tracked, quality_score, error, feedback, message_count, reported_message_count, metadata, version,
    created_at, updated_at,
    CASE WHEN status = 'open' AND expires_at <= strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
      THEN expires_at ELSE ended_at END AS ended_at,
    archived_at, expires_at, ttl_seconds, max_age_seconds
  FROM sessions
)""",
    """CREATE VIEW v_messages AS
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.finish_reason,
  m.input_tokens, m.output_tokens, m.cache_read_tokens, m.reasoning_tokens,
  m.answer_time_ms AS response_time_ms,
  CASE WHEN m.answer_time_ms IS NOT NULL
    THEN CASE WHEN m.response_time_ms IS NOT NULL THEN 'given' ELSE 'measured' END END AS response_time_source,
  m.metadata, m.created_at
FROM messages m JOIN sessions s ON s.session_key = m.id >> 24
  AND m.id BETWEEN s.session_key << 24 AND (s.session_key << 24) + 16777215""",
    """CREATE VIEW v_metric_events AS
SELECT namespace, id, name, value, unit, agent_id, session_id, attributes, occurred_at
FROM metric_events""",
    """CREATE VIEW v_success_daily AS
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
)""",
    """CREATE VIEW v_response_time_hourly AS
SELECT namespace, hour, agent_id, count(*) AS count, avg(answer_time_ms) AS mean_ms,
  min(CASE WHEN place * 100 >= 50 * answers THEN answer_time_ms END) AS p50_ms,
  min(CASE WHEN place * 100 >= 95 * answers THEN answer_time_ms END) AS p95_ms,
  min(CASE WHEN place * 100 >= 99 * answers THEN answer_time_ms END) AS p99_ms,
  min(answer_time_ms) AS min_ms, max(answer_time_ms) AS max_ms
FROM (
  SELECT namespace, hour, agent_id, answer_time_ms,
    row_number() OVER ranked AS place,
    count(*) OVER (ranked ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS answers
  FROM (
    SELECT s.namespace, substr(m.created_at, 1, 13) || ':00' AS hour, s.agent_id, m.answer_time_ms
    FROM messages m JOIN sessions s ON s.session_key = m.id >> 24
    WHERE m.facts IS NOT NULL AND m.answer_time_ms IS NOT NULL
  )
  WINDOW ranked AS (PARTITION BY namespace, hour, agent_id ORDER BY answer_time_ms)
)
GROUP BY namespace, hour, agent_id""",
    """CREATE VIEW v_quality_distribution AS
SELECT namespace, agent_id, quality_score, count(*) AS sessions
FROM sessions
WHERE quality_score IS NOT NULL
GROUP BY namespace, agent_id, quality_score""",
    """CREATE VIEW v_failures AS
SELECT namespace, session_id, session_key, agent_id, user_id, error, created_at, coalesce(ended_at, updated_at) AS ended_at,
  duration_seconds, message_count, quality_score, metadata
FROM v_sessions
WHERE status = 'failed'""",
    """CREATE VIEW v_agent_status AS
SELECT namespace, agent_id,
  CASE WHEN ((strftime('%s', substr(now, 1, 19)) - strftime('%s', substr(last_seen_at, 1, 19))) * 1000000
    + substr(now, 21) - substr(last_seen_at, 21)) >= stale_after_seconds * 1000000.0
    THEN 'offline' ELSE reported_status END AS status,
  reported_status, previous_status, status_at, last_seen_at, stale_after_seconds, registered_at, sdk_version, metadata
FROM (
  SELECT a.namespace, a.agent_id, a.status AS reported_status, a.previous_status, a.status_at,
    max(a.last_seen_at, coalesce(
      (SELECT max(s.updated_at) FROM sessions s WHERE s.namespace = a.namespace AND s.agent_id = a.agent_id),
      a.last_seen_at)) AS last_seen_at,
    a.stale_after_seconds, a.registered_at, a.sdk_version, a.metadata,
    strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS now
  FROM agents a
)""",
    """CREATE VIEW v_token_usage_daily AS
SELECT s.namespace, substr(m.created_at, 1, 10) AS day, s.agent_id, m.model, count(*) AS messages,
  CAST(total(m.input_tokens) AS INTEGER) AS input_tokens,
  CAST(total(m.output_tokens) AS INTEGER) AS output_tokens,
  CAST(total(m.cache_read_tokens) AS INTEGER) AS cache_read_tokens,
  CAST(total(m.reasoning_tokens) AS INTEGER) AS reasoning_tokens
FROM messages m JOIN sessions s ON s.session_key = m.id >> 24
WHERE m.facts IS NOT NULL AND coalesce(m.input_tokens, m.output_tokens, m.cache_read_tokens, m.reasoning_tokens) IS NOT NULL
GROUP BY s.namespace, substr(m.created_at, 1, 10), s.agent_id, m.model""",
    """CREATE VIEW v_outbox AS
SELECT namespace, id, key, stream, kind, state, attempts, occurred_at, created_at, next_at, lease_token, lease_until,
  last_status, last_error, size_bytes,
  ((strftime('%s', substr(now, 1, 19)) - strftime('%s', substr(created_at, 1, 19))) * 1000000
    + substr(now, 21) - substr(created_at, 21)) / 1000000.0 AS age_seconds
FROM (
  SELECT *, length(CAST(body AS BLOB)) AS size_bytes, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS now
  FROM outbox
)""",
)


def where(condition):
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def on_postgresql():
    return op.get_bind().dialect.name == "postgresql"


def computed(in_sqlite, in_postgresql):
    # PostgreSQL before 18 has stored generated columns only; SQLite adds virtual ones only.
    return sa.Computed(in_postgresql, persisted=True) if on_postgresql() else sa.Computed(in_sqlite)


def add_checked_columns(names):
    """Add columns with a CHECK, which SQLite takes within ADD COLUMN; rebuilding the table would cost much more."""
    for name in names:
        type_, condition = CHECKED[name]
        words = type_.compile(op.get_bind().dialect)
        op.execute(f"ALTER TABLE sessions ADD COLUMN {name} {words} CONSTRAINT ck_sessions_{name} CHECK ({condition})")


def view_names():
    return [text.split()[2] for text in VIEWS]


def upgrade() -> None:
    op.add_column("store_info", sa.Column("remote_url", sa.String(2048)))
    op.add_column("store_info", sa.Column("swept_at", INSTANT))
    op.add_column("store_info", sa.Column("sweeper", sa.String(36)))
    op.add_column("store_info", sa.Column("sweeper_until", INSTANT))

    add_checked_columns(["ttl_seconds", "max_age_seconds"])
    op.add_column("sessions", sa.Column("tracked", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("sessions", sa.Column("feedback", sa.String(10000)))
    add_checked_columns(["reported_message_count"])
    op.add_column("sessions", sa.Column("asked_at", INSTANT))
    op.drop_index("ix_sessions_expires_at", "sessions")
    op.create_index("ix_sessions_created", "sessions", ["namespace", "created_at"])
    columns = ["namespace", "agent_id", "expires_at", "archived_at"]
    op.create_index("ix_sessions_open", "sessions", columns, **where("status = 'open'"))
    op.create_index("ix_sessions_due", "sessions", ["expires_at"], **where("status = 'open' AND expires_at IS NOT NULL"))
    op.create_index("ix_sessions_expired", "sessions", ["namespace", "session_id"], **where("status = 'expired'"))

    elapsed = computed("json_extract(facts, '$.elapsed_ms')", "CAST(facts ->> 'elapsed_ms' AS FLOAT)")
    op.add_column("messages", sa.Column("elapsed_ms", sa.Float(), elapsed))
    timed = computed(
        "CASE WHEN role = 'assistant' THEN "
        "coalesce(json_extract(facts, '$.response_time_ms'), json_extract(facts, '$.elapsed_ms')) END",
        "CASE WHEN role = 'assistant' THEN "
        "CAST(coalesce(facts ->> 'response_time_ms', facts ->> 'elapsed_ms') AS FLOAT) END",
    )  # fmt: skip
    op.add_column("messages", sa.Column("answer_time_ms", sa.Float(), timed))
    op.create_index("ix_messages_answers", "messages", ["created_at", "answer_time_ms"], **where("facts IS NOT NULL"))

    op.create_table(
        "metric_events",
        sa.Column("id", KEY, nullable=False),
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("unit", sa.String(256)),
        sa.Column("agent_id", sa.String(256)),
        sa.Column("session_id", sa.String(256)),
        sa.Column("attributes", JSON),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_metric_events_name", "metric_events", ["namespace", "name", "occurred_at"])
    op.create_index("ix_metric_events_occurred", "metric_events", ["namespace", "occurred_at"])

    op.create_table(
        "agents",
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("agent_id", sa.String(256), nullable=False),
        sa.Column("sdk_version", sa.String(256)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("previous_status", sa.String(16)),
        sa.Column("metadata", JSON),
        sa.Column("registered_at", INSTANT),
        sa.Column("status_at", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("stale_after_seconds", sa.Float(), nullable=False),
        sa.CheckConstraint(f"status IN {AGENT_STATUSES}", name=op.f("ck_agents_status")),
        sa.CheckConstraint("stale_after_seconds > 0", name=op.f("ck_agents_stale_after_seconds")),
        sa.PrimaryKeyConstraint("namespace", "agent_id", name=op.f("pk_agents")),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "agent_activity",
        sa.Column("id", KEY, nullable=False),
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("agent_id", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("action", sa.String(256), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("previous_status", sa.String(16)),
        sa.Column("details", JSON),
        sa.Column("duration_seconds", sa.Float()),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.CheckConstraint("kind IN ('registered', 'status', 'activity')", name=op.f("ck_agent_activity_kind")),
        sa.CheckConstraint(f"status IN {AGENT_STATUSES}", name=op.f("ck_agent_activity_status")),
        sa.CheckConstraint("duration_seconds >= 0", name=op.f("ck_agent_activity_duration_seconds")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_activity")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_agent_activity_agent", "agent_activity", ["namespace", "agent_id", "occurred_at"])
    op.create_index("ix_agent_activity_occurred", "agent_activity", ["namespace", "occurred_at"])

    op.create_table(
        "outbox",
        sa.Column("id", KEY, nullable=False),
        sa.Column("key", sa.String(36), nullable=False),
        sa.Column("stream", sa.String(300), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("next_at", INSTANT),
        sa.Column("lease_token", sa.String(36)),
        sa.Column("lease_until", INSTANT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.String(200)),
        sa.CheckConstraint("state IN ('pending', 'sent', 'dead', 'erased')", name=op.f("ck_outbox_state")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_outbox_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_pending", "outbox", ["namespace", "stream", "id"], **where("state = 'pending'"))

    if not on_postgresql():
        for view in VIEWS:
            # Not op.execute: it would take the colons in times for parameters.
            op.get_bind().exec_driver_sql(view)


def downgrade() -> None:
    if not on_postgresql():
        # First: SQLite refuses to change a column that a view reads.
        for view in reversed(view_names()):
            op.execute(f"DROP VIEW {view}")
    for table in ("outbox", "agent_activity", "agents", "metric_events"):
        op.drop_table(table)
    op.drop_index("ix_messages_answers", "messages")
    for column in ("answer_time_ms", "elapsed_ms"):
        op.drop_column("messages", column)
    for index in ("ix_sessions_expired", "ix_sessions_due", "ix_sessions_open", "ix_sessions_created"):
        op.drop_index(index, "sessions")
    for column in ("asked_at", "reported_message_count", "feedback", "tracked", "max_age_seconds", "ttl_seconds"):
        op.drop_column("sessions", column)
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"], **where("expires_at IS NOT NULL"))
    for column in ("sweeper_until", "sweeper", "swept_at", "remote_url"):
        op.drop_column("store_info", column)
