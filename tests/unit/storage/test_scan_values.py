"""Shapes and types of scans, before anything is written."""

from __future__ import annotations

import math

import pytest

from bluesky_beamtime.storage.scan_values import chunks_of


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((5,), (5,)),
        ((5, 10_000), (1, 8192)),
        ((5, 30, 40), (1, 30, 40)),
        ((10, 2048, 1536), (1, 1024, 1024)),
        # Of three axes the first one is the scan's, and each point a table.
        ((100, 1000, 3), (1, 1000, 3)),
        ((10, 8, 9, 3), (1, 8, 9, 3)),
        ((10, 1024, 1024, 3), (1, 21, 1024, 3)),
        ((2, 10, 2048, 2048, 4), (1, 1, 16, 1024, 4)),
        ((10, 2048, 2048, 5), (1, 1, 1024, 5)),
    ],
)
def test_chunks_are_frames_and_colours_are_whole(
    shape: tuple[int, ...], chunks: tuple[int, ...]
) -> None:
    """L-13: no thousand files for a colour image, no thousand points in a chunk."""
    assert chunks_of(shape) == chunks
    assert math.prod(chunks) <= 1024**2
