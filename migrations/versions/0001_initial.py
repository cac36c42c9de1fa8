"""Sessions, their tags and their messages.

Revision: 0001
Follows: nothing
"""

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True)
INSTANT = sa.DateTime(timezone=True)


def where(condition):
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def on_postgresql():
    return op.get_bind().dialect.name == "postgresql"


def computed(expression):
    # PostgreSQL before 18 has stored generated columns only, and indexes no other ones.
    return sa.Computed(expression, persisted=True if on_postgresql() else None)


def fact(name, type_):
    if not on_postgresql():
        expression = f"json_extract(facts, '$.{name}')"
    elif isinstance(type_, sa.JSON):
        expression = f"(facts -> '{name}')"
    else:
        expression = f"CAST(facts ->> '{name}' AS {type_.compile(op.get_bind().dialect)})"
    return sa.Column(name, type_, computed(expression))


def upgrade() -> None:
    store_info = op.create_table(
        "store_info",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("store_id", sa.String(36), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_store_info_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_store_info")),
    )
    op.bulk_insert(store_info, [{"id": 1, "store_id": str(uuid.uuid4()), "created_at": datetime.now(UTC)}])

    op.create_table(
        "sessions",
        sa.Column("session_key", KEY, nullable=False),
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("session_id", sa.String(256), nullable=False),
        sa.Column("user_id", sa.String(256)),
        sa.Column("agent_id", sa.String(256)),
        sa.Column("title", sa.String(1000)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("metadata", JSON),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("message_count", sa.Integer(), nullable=False),
        sa.Column("next_seq", sa.Integer(), nullable=False),
        sa.Column("quality_score", sa.Integer()),
        sa.Column("error", sa.String(10000)),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT),
        sa.Column("archived_at", INSTANT),
        sa.Column("expires_at", INSTANT),
        sa.CheckConstraint("status IN ('open', 'completed', 'failed', 'expired')", name=op.f("ck_sessions_status")),
        sa.CheckConstraint("quality_score BETWEEN 1 AND 5", name=op.f("ck_sessions_quality_score")),
        sa.CheckConstraint("message_count >= 0", name=op.f("ck_sessions_message_count")),
        sa.CheckConstraint("next_seq BETWEEN 1 AND 16777216", name=op.f("ck_sessions_next_seq")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_sessions_version")),
        sa.PrimaryKeyConstraint("session_key", name=op.f("pk_sessions")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_sessions_live_name", "sessions", ["namespace", "session_id"], unique=True, **where("status <> 'expired'"))
    op.create_index("ix_sessions_updated", "sessions", ["namespace", "updated_at"])
    op.create_index("ix_sessions_agent", "sessions", ["namespace", "agent_id", "updated_at"], **where("agent_id IS NOT NULL"))
    op.create_index("ix_sessions_user", "sessions", ["namespace", "user_id", "updated_at"], **where("user_id IS NOT NULL"))
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"], **where("expires_at IS NOT NULL"))

    op.create_table(
        "session_tags",
        sa.Column("session_key", KEY, autoincrement=False, nullable=False),
        sa.Column("tag", sa.String(256), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_key"],
            ["sessions.session_key"],
            name=op.f("fk_session_tags_session_key_sessions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_key", "tag", name=op.f("pk_session_tags")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_session_tags_tag", "session_tags", ["tag", "session_key"])

    op.create_table(
        "messages",
        sa.Column("id", KEY, autoincrement=False, nullable=False),
        sa.Column("session_key", KEY, computed("id >> 24")),
        sa.Column("seq", KEY, computed("id & 16777215")),
        sa.Column("kind", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("text", sa.Text()),
        sa.Column("extra", JSON),
        sa.Column("facts", JSON),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        fact("tool_call_ids", JSON),
        fact("tool_call_id", sa.Text()),
        fact("dedupe_key", sa.String(256)),
        fact("model", sa.String(256)),
        fact("finish_reason", sa.String(256)),
        fact("input_tokens", sa.BigInteger()),
        fact("output_tokens", sa.BigInteger()),
        fact("cache_read_tokens", sa.BigInteger()),
        fact("reasoning_tokens", sa.BigInteger()),
        fact("response_time_ms", sa.Float()),
        fact("metadata", JSON),
        sa.CheckConstraint(
            "role IN ('system', 'developer', 'user', 'assistant', 'tool', 'function')", name=op.f("ck_messages_role")
        ),
        sa.CheckConstraint("input_tokens >= 0", name=op.f("ck_messages_input_tokens")),
        sa.CheckConstraint("output_tokens >= 0", name=op.f("ck_messages_output_tokens")),
        sa.CheckConstraint("cache_read_tokens >= 0", name=op.f("ck_messages_cache_read_tokens")),
        sa.CheckConstraint("reasoning_tokens >= 0", name=op.f("ck_messages_reasoning_tokens")),
        sa.CheckConstraint("response_time_ms >= 0", name=op.f("ck_messages_response_time_ms")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
    )
    op.create_index(
        "uq_messages_dedupe_key", "messages", ["session_key", "dedupe_key"], unique=True, **where("dedupe_key IS NOT NULL")
    )


def downgrade() -> None:
    for table in ("messages", "session_tags", "sessions", "store_info"):
        op.drop_table(table)
