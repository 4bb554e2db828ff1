"""Buckets on the S3 server that all tests share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bluesky_beamtime.storage.backends.s3_server import S3TestServer

_numbers = itertools.count()


def need_s3() -> None:
    """Skip where there is no S3 server to test with, or nothing to talk to it."""
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    from bluesky_beamtime.storage.backends.s3_server import S3TestServer

    if not S3TestServer.is_available():
        pytest.skip("the tests against S3 need: pip install 'moto[server]'")


def new_bucket(server: S3TestServer) -> str:
    """Make a bucket that no other test has, and return its URL."""
    return server.create_bucket(f"bucket-{next(_numbers)}")
