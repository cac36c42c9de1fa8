"""What is remembered of a remote: requests that may still arrive, and which figures were there before it was set.

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
    op.add_column("store_info", sa.Column("remote_after_metric", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("store_info", "remote_after_metric")
    op.drop_table("outbox_unanswered")
