"""Blocks of frames on their way to a client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.serving.server import make_app
from tests.unit.serving.test_guard import KEY, Client

pytestmark = pytest.mark.filterwarnings("default")

FRAMES = np.random.default_rng(3).poisson(4, (2, 64, 48)).astype("<u2")


def test_a_block_is_compressed_lightly(beamtime: Any, path: Path) -> None:
    import blosc2

    from bluesky_beamtime.database.engine import Database

    uid = record(beamtime)
    database = Database(path, mode="r")
    try:
        client = Client(make_app([database], key=KEY))
        status, head, body = client.get(
            f"/api/v1/array/full/{uid}/primary/cam",
            headers=[
                (b"authorization", f"Apikey {KEY}".encode()),
                (b"accept", b"application/octet-stream"),
                (b"accept-encoding", b"gzip, zstd, blosc2"),
            ],
        )
    finally:
        database.close()
    assert (status, head["content-encoding"]) == (200, "blosc2")
    assert len(body) < FRAMES.nbytes / 2
    assert blosc2.decompress2(body) == FRAMES.tobytes()
    # Which codec it was stands in the header of the frame (flags, bits 5 to 7).
    assert body[2] >> 5 == blosc2.Codec.LZ4.value


def test_in_one_process_nothing_is_compressed(beamtime: Any) -> None:
    uid = record(beamtime)
    client = beamtime.tiled()
    try:
        asked = client.context.http_client.get(
            f"/api/v1/array/full/{uid}/primary/cam",
            headers={"accept": "application/octet-stream"},
        )
        assert "content-encoding" not in asked.headers
        assert asked.content == FRAMES.tobytes()
        np.testing.assert_array_equal(client[uid]["primary"]["cam"].read(), FRAMES)
    finally:
        client.context.close()


def record(beamtime: Any) -> str:
    import event_model

    composed = event_model.compose_run(metadata={"plan_name": "count", "scan_id": 1})
    beamtime("start", composed.start_doc)
    described = {"source": "s", "dtype": "array", "shape": [64, 48]}
    stream = composed.compose_descriptor(name="primary", data_keys={"cam": described})
    beamtime("descriptor", stream.descriptor_doc)
    for frame in FRAMES:
        event = stream.compose_event(data={"cam": frame}, timestamps={"cam": 1.0})
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]
