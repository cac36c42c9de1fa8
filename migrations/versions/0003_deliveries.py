"""How the outbox is delivered: held streams, the state of the remote, and what a collector has received.

Revision: 0003
Follows: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)

# Frozen, as they were before and as they are now.
OUTBOX_BEFORE = """CREATE VIEW v_outbox AS
SELECT namespace, id, key, stream, kind, state, attempts, occurred_at, created_at, next_at, lease_token, lease_until,
  last_status, last_error, size_bytes,
  ((strftime('%s', substr(now, 1, 19)) - strftime('%s', substr(created_at, 1, 19))) * 1000000
    + substr(now, 21) - substr(created_at, 21)) / 1000000.0 AS age_seconds
FROM (
  SELECT *, length(CAST(body AS BLOB)) AS size_bytes, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS now
  FROM outbox
)"""

VIEWS = (
    """CREATE VIEW v_outbox AS
SELECT namespace, id, key, stream, kind, state, attempts, occurred_at, created_at, next_at, lease_token, lease_until,
  last_status, last_error, settled_at, size_bytes, paused,
  ((strftime('%s', substr(now, 1, 19)) - strftime('%s', substr(created_at, 1, 19))) * 1000000
    + substr(now, 21) - substr(created_at, 21)) / 1000000.0 AS age_seconds
FROM (
  SELECT o.namespace, o.id, o.key, o.stream, o.kind, o.state, o.attempts, o.occurred_at, o.created_at, o.next_at,
    h.token AS lease_token, CASE WHEN h.token IS NOT NULL THEN h.held_until END AS lease_until,
    o.last_status, o.last_error, o.settled_at, o.size_bytes, s.paused, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS now
  FROM outbox o JOIN sync_state s LEFT JOIN outbox_holds h
    ON o.state = 'pending' AND h.namespace = o.namespace AND h.stream = o.stream
)""",
    """CREATE VIEW v_sync AS
SELECT remote_url, pending, pending_bytes,
  ((strftime('%s', substr(now, 1, 19)) - strftime('%s', substr(oldest_at, 1, 19))) * 1000000
    + substr(now, 21) - substr(oldest_at, 21)) / 1000000.0 AS oldest_age_seconds,
  dead, erased, sent, dropped, last_sent_at, failures, failing_since, retry_at, paused, last_status, last_error
FROM (
  SELECT i.remote_url, (SELECT count(*) FROM outbox WHERE state = 'pending') AS pending,
    (SELECT CAST(total(size_bytes) AS INTEGER) FROM outbox WHERE state = 'pending') AS pending_bytes,
    (SELECT created_at FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 1) AS oldest_at,
    (SELECT count(*) FROM outbox WHERE state <> 'pending' AND state = 'dead') AS dead,
    (SELECT count(*) FROM outbox WHERE state <> 'pending' AND state = 'erased') AS erased,
    s.sent, s.dropped, s.last_sent_at, s.failures, s.failing_since, s.retry_at, s.paused, s.last_status, s.last_error,
    strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' AS now
  FROM store_info i JOIN sync_state s
)""",
)


def where(condition):
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def on_postgresql():
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    if not on_postgresql():
        op.execute("DROP VIEW v_outbox")
    op.drop_index("ix_outbox_pending", "outbox")
    for column in ("lease_token", "lease_until"):
        op.drop_column("outbox", column)
    op.add_column("outbox", sa.Column("settled_at", INSTANT))
    op.add_column("outbox", sa.Column("sent_before", sa.BigInteger()))
    op.add_column("outbox", sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    if on_postgresql():
        op.execute("UPDATE outbox SET size_bytes = octet_length(body)")
    else:
        op.execute("UPDATE outbox SET size_bytes = length(CAST(body AS BLOB))")
    op.create_index("ix_outbox_waiting", "outbox", ["id", "size_bytes"], **where("state = 'pending'"))
    op.create_index("ix_outbox_settled", "outbox", ["state", "id"], **where("state <> 'pending'"))

    op.create_table(
        "outbox_holds",
        sa.Column("namespace", sa.String(256), nullable=False),
        sa.Column("stream", sa.String(300), nullable=False),
        sa.Column("token", sa.String(36)),
        sa.Column("held_until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "stream", name=op.f("pk_outbox_holds")),
        sqlite_with_rowid=False,
    )
    sync_state = op.create_table(
        "sync_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("dropped", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("last_sent_at", INSTANT),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failing_since", INSTANT),
        sa.Column("retry_at", INSTANT),
        sa.Column("paused", sa.String(32)),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.String(200)),
        sa.Column("backfilled_sessions", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("backfilled_metrics", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("backfilled_activity", sa.BigInteger(), nullable=False, server_default="0"),
        sa.CheckConstraint("id = 1", name=op.f("ck_sync_state_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_state")),
    )
    op.bulk_insert(sync_state, [{"id": 1}])

    op.add_column("store_info", sa.Column("remote_since", INSTANT))
    op.add_column("store_info", sa.Column("sync_messages", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("store_info", sa.Column("max_outbox_bytes", sa.BigInteger()))
    op.add_column("store_info", sa.Column("on_full", sa.String(32)))
    op.execute("UPDATE store_info SET remote_since = created_at WHERE remote_url IS NOT NULL")

    op.create_table(
        "received_events",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_received_events")),
        sqlite_with_rowid=False,
    )

    if not on_postgresql():
        for view in VIEWS:
            # Not op.execute: it would take the colons in times for parameters.
            op.get_bind().exec_driver_sql(view)


def downgrade() -> None:
    if not on_postgresql():
        for view in reversed(VIEWS):
            op.execute(f"DROP VIEW {view.split()[2]}")
    for table in ("received_events", "sync_state", "outbox_holds"):
        op.drop_table(table)
    for column in ("on_full", "max_outbox_bytes", "sync_messages", "remote_since"):
        op.drop_column("store_info", column)
    for index in ("ix_outbox_settled", "ix_outbox_waiting"):
        op.drop_index(index, "outbox")
    for column in ("size_bytes", "sent_before", "settled_at"):
        op.drop_column("outbox", column)
    op.add_column("outbox", sa.Column("lease_token", sa.String(36)))
    op.add_column("outbox", sa.Column("lease_until", INSTANT))
    op.create_index("ix_outbox_pending", "outbox", ["namespace", "stream", "id"], **where("state = 'pending'"))
    if not on_postgresql():
        op.get_bind().exec_driver_sql(OUTBOX_BEFORE)
