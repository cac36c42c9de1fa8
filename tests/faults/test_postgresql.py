"""Faults of a PostgreSQL server: there is nothing yet that they could happen to."""

from __future__ import annotations

import pytest


@pytest.mark.fault("F41")
@pytest.mark.skip(
    reason="stores are SQLite files; of PostgreSQL only the schema is tried, in tests/integration/test_postgresql_schema.py"
)
def test_a_server_that_restarts_loses_no_event() -> None:
    """Restart, end of idle transactions, workers with SKIP LOCKED."""
