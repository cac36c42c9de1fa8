"""Checkpoints of graphs: what a framework keeps of a session's run, to go on from there.

Revision: 0005
Follows: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def session_key(table):
    return (
        sa.Column("session_key", KEY, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["session_key"], ["sessions.session_key"], name=op.f(f"fk_{table}_session_key_sessions"), ondelete="CASCADE"
        ),
    )


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        *session_key("checkpoints"),
        sa.Column("checkpoint_ns", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.LargeBinary(), nullable=False),
        sa.Column("metadata_type", sa.Text(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("session_key", "checkpoint_ns", "checkpoint_id", name=op.f("pk_checkpoints")),
    )
    is_run = sa.text("run_id IS NOT NULL")
    op.create_index("ix_checkpoints_run", "checkpoints", ["run_id"], sqlite_where=is_run, postgresql_where=is_run)

    op.create_table(
        "checkpoint_values",
        *session_key("checkpoint_values"),
        sa.Column("number", KEY, autoincrement=False, nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint_ns", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("version", sa.Text()),
        sa.Column("base_number", sa.BigInteger()),
        sa.Column("items", sa.BigInteger()),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("base_number < number", name=op.f("ck_checkpoint_values_base")),
        sa.PrimaryKeyConstraint("session_key", "number", name=op.f("pk_checkpoint_values")),
    )
    op.create_index(
        "ix_checkpoint_values_version", "checkpoint_values", ["session_key", "checkpoint_ns", "channel", "version", "number"]
    )

    op.create_table(
        "checkpoint_writes",
        *session_key("checkpoint_writes"),
        sa.Column("checkpoint_ns", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("idx", KEY, autoincrement=False, nullable=False),
        sa.Column("task_path", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "session_key", "checkpoint_ns", "checkpoint_id", "task_id", "idx", name=op.f("pk_checkpoint_writes")
        ),
    )


def downgrade() -> None:
    for table in ("checkpoint_writes", "checkpoint_values", "checkpoints"):
        op.drop_table(table)
