"""Forks, the search index, blobs, packed and superseded messages, and state.

Revision: 0004
Follows: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)

# Frozen. Each holds no text, only where words stand: rows are added and taken out by the library.
SEARCH_TABLES = (
    """CREATE VIRTUAL TABLE message_words USING fts5(words, content='', tokenize='unicode61 remove_diacritics 2')""",
    """CREATE VIRTUAL TABLE message_trigrams USING fts5(words, content='', tokenize='trigram')""",
)

VIEWS = (
    """CREATE VIEW v_transcripts AS
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.created_at,
  s.session_key AS owner_key
FROM messages m JOIN sessions s ON s.session_key = m.id >> 24
  AND m.id BETWEEN s.session_key << 24 AND (s.session_key << 24) + 16777215
UNION ALL
SELECT s.namespace, s.session_id, s.session_key, m.seq, s.agent_id, s.user_id, m.kind, m.role, m.text, m.model, m.created_at,
  r.owner_key
FROM inherited_ranges r JOIN sessions s ON s.session_key = r.session_key
  JOIN messages m ON m.id BETWEEN (r.owner_key << 24) + r.first_seq AND (r.owner_key << 24) + r.last_seq""",
)


def where(condition):
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def on_postgresql():
    return op.get_bind().dialect.name == "postgresql"


def has_fts5():
    # Some SQLites are built without it. Then there is nothing to search with; the library makes the tables when it can.
    found = op.get_bind().exec_driver_sql("SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'")
    return bool(found.scalar_one())


def upgrade() -> None:
    op.add_column("sessions", sa.Column("parent_key", sa.BigInteger()))
    op.add_column("sessions", sa.Column("forked_at", sa.BigInteger()))
    op.add_column("sessions", sa.Column("inherits_through", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("indexed_seq", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_sessions_parent", "sessions", ["parent_key"], **where("parent_key IS NOT NULL"))
    op.create_index("ix_sessions_to_archive", "sessions", ["session_key"], **where("status = 'expired' AND archived_at IS NULL"))
    op.create_index("ix_sessions_unindexed", "sessions", ["session_key"], **where("next_seq > indexed_seq + 1"))

    op.create_table(
        "inherited_ranges",
        sa.Column("session_key", KEY, autoincrement=False, nullable=False),
        sa.Column("first_seq", KEY, autoincrement=False, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("owner_key", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("first_seq >= 1 AND first_seq <= last_seq", name=op.f("ck_inherited_ranges_seqs")),
        sa.ForeignKeyConstraint(
            ["session_key"], ["sessions.session_key"], name=op.f("fk_inherited_ranges_session_key_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_key", "first_seq", name=op.f("pk_inherited_ranges")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_inherited_ranges_owner", "inherited_ranges", ["owner_key", "last_seq"])

    op.add_column("messages", sa.Column("packed", sa.LargeBinary()))
    op.create_table(
        "superseded_messages",
        sa.Column("id", KEY, nullable=False),
        sa.Column("session_key", KEY, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16)),
        sa.Column("text", sa.Text()),
        sa.Column("extra", sa.JSON()),
        sa.Column("facts", sa.JSON()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.Column("packed", sa.LargeBinary()),
        sa.ForeignKeyConstraint(
            ["session_key"], ["sessions.session_key"], name=op.f("fk_superseded_messages_session_key_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_superseded_messages")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_superseded_messages_place", "superseded_messages", ["session_key", "seq"])

    op.create_table(
        "blobs",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("encoding", sa.String(16)),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_blobs_size_bytes")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_blobs")),
    )
    op.create_table(
        "blob_references",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("message_id", KEY, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("hash", "message_id", name=op.f("pk_blob_references")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blob_references_message", "blob_references", ["message_id"])

    op.create_table(
        "state_values",
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("scope IN ('session', 'user', 'app')", name=op.f("ck_state_values_scope")),
        sa.PrimaryKeyConstraint("namespace", "scope", "owner", "name", name=op.f("pk_state_values")),
        sqlite_with_rowid=False,
    )

    op.add_column("store_info", sa.Column("search", sa.String(16), nullable=False, server_default="deferred"))

    if not on_postgresql():
        for statement in (*(SEARCH_TABLES if has_fts5() else ()), *VIEWS):
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    if not on_postgresql():
        op.execute("DROP VIEW v_transcripts")
        for table in ("message_trigrams", "message_words"):
            op.execute(f"DROP TABLE IF EXISTS {table}")
    op.drop_column("store_info", "search")
    for table in ("state_values", "blob_references", "blobs", "superseded_messages", "inherited_ranges"):
        op.drop_table(table)
    op.drop_column("messages", "packed")
    for index in ("ix_sessions_unindexed", "ix_sessions_to_archive", "ix_sessions_parent"):
        op.drop_index(index, "sessions")
    for column in ("indexed_seq", "inherits_through", "forked_at", "parent_key"):
        op.drop_column("sessions", column)
