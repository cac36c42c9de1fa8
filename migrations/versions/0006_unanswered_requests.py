"""Requests that ended without an answer: what they carry may still arrive, and news of an erasure must not overtake it.

Revision: 0006
Follows: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "outbox_unanswered",
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("stream", sa.String(300), nullable=False),
        sa.Column("arrives_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "stream", name=op.f("pk_outbox_unanswered")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("outbox_unanswered")
