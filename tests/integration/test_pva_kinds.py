"""NTNDArrays of every kind through PVAccess, from a server in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ophyd_async.core import init_devices

from bluesky_beamtime.devices import PvaCamera
from bluesky_beamtime.plans import fly_frames

pytest.importorskip("p4p")

KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "blosc"]


@pytest.fixture(scope="module")
def conf() -> Iterator[dict[str, str]]:
    script = Path(__file__).with_name("ndarray_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    yield json.loads(process.stdout.readline())
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


def record(
    recorded: Any, conf: dict[str, str], kind: str, numbers: list[int], eventually: Any
) -> Any:
    """Record the frames of these ids, after one that is left out."""
    from p4p.client.thread import Context

    def post(*ids: int) -> None:
        with Context("pva", conf=conf, useenv=False) as context:
            words = [kind, *(str(number % 2**32) for number in ids)]
            context.put("KINDS:go", words, timeout=30)

    # What the PV holds, then what was being exposed when the scan began.
    post(numbers[0] - 2)
    with init_devices():
        cam = PvaCamera(recorded.beamtime.frames, f"KINDS:{kind}", conf=conf)

    def act() -> None:
        def listening() -> bool:
            stream = cam.source._stream
            return stream is not None and stream.connected.done()

        eventually(listening, 60)
        post(numbers[0] - 1, *numbers)

    helper = threading.Thread(target=act)
    helper.start()
    try:
        return recorded(fly_frames([cam], len(numbers), exposure=None))
    finally:
        helper.join()
        cam.close()


@pytest.mark.parametrize("kind", KINDS)
def test_number_types(
    recorded: Any, conf: dict[str, str], eventually: Any, kind: str
) -> None:
    run = record(recorded, conf, kind, [2, 3, 4], eventually)
    data = run.primary.read()
    dtype = "u2" if kind == "blosc" else kind
    assert data["cam"].dtype == np.dtype(dtype)
    expected = np.stack([np.full((6, 8), n, dtype) for n in (2, 3, 4)])
    np.testing.assert_array_equal(data["cam"], expected)
    assert data["cam_time"].values.tolist() == [1_700_000_000 + n for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("numbers", "dropped"),
    [
        ([2, 3, 5, 6, 9], 3),
        # A signed counter becomes negative, an unsigned one 0.
        ([2**31 - 2, 2**31 - 1, 2**31, 2**31 + 2], 1),
        ([2**32 - 2, 2**32 - 1, 0, 1, 3], 1),
        # Somebody sets the IOC's counter to 0.
        ([500, 501, 1, 2, 4, 5], 1),
        ([500, 1], 0),
    ],
)
def test_counters(
    recorded: Any,
    conf: dict[str, str],
    eventually: Any,
    numbers: list[int],
    dropped: int,
) -> None:
    run = record(recorded, conf, "u1", numbers, eventually)
    assert run.primary.read()["cam_id"].values.tolist() == numbers
    assert run.accounting["cam"] == {
        "expected": len(numbers),
        "received": len(numbers),
        "dropped": dropped,
        "late": 0,
        "written": len(numbers),
    }
