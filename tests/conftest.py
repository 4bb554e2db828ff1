"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.postgres import need_postgres
from tests.s3 import need_s3

if TYPE_CHECKING:
    from bluesky import RunEngine

    from bluesky_beamtime.database.replica import PostgresTestServer
    from bluesky_beamtime.storage.backends.s3_server import S3TestServer

# Machines that test are slow and busy: time is no property of the code.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
# Where widgets are tested, matplotlib would take their toolkit for its own plots.
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def RE() -> Iterator[RunEngine]:
    """Give a RunEngine that is quiet, and ends its loop and thread afterwards."""
    from bluesky import RunEngine

    engine = RunEngine(context_managers=[])
    yield engine
    if engine.state not in ("idle", "panicked"):
        engine.halt()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresTestServer]:
    """Give the server that all tests share, each in a database or schema of its own."""
    need_postgres()
    from bluesky_beamtime.database.replica import PostgresTestServer

    with PostgresTestServer() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3TestServer]:
    """Give the server that all tests share, each with buckets of its own."""
    need_s3()
    from bluesky_beamtime.storage.backends.s3_server import S3TestServer

    with S3TestServer() as server:
        yield server
