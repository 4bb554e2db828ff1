"""``kill -9`` while a scan becomes an array (L-27): every point that was told is there.

The child acknowledges through a pipe the points that its ScanSubscriber has put on
disk. They are looked up with plain zarr-python, before anything was repaired; then the
array is made a file of.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from bluesky_beamtime.storage import ScanStorage

KILLS = max(1, int(os.environ.get("BEAMTIME_KILLS", "20")) // 6)
SHAPE = (12, 25)

CHILD = """
import json, os, sys
from bluesky import RunEngine, plans as bp
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor
from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.recording import ScanSubscriber
from bluesky_beamtime.storage import ScanStorage

folder, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
RE = RunEngine()
beamtime = Beamtime(folder + "/x.db")
beamtime.attach(RE, report=False)
scans = ScanStorage(folder, "maps", "map")
live = ScanSubscriber(scans)
RE.subscribe(live)

def acknowledge(name, doc):
    if name == "event":
        live.wait()
        said = {"store": str(scans.buffer), "seq_num": doc["seq_num"]}
        os.write(1, json.dumps(said).encode() + b"\\n")

RE.subscribe(acknowledge)
with init_devices():
    cam = SimCamera(beamtime.frames, shape=(32, 24), exposure=0.0005)
    y, x = SimMotor("y", instant=True), SimMotor("x", instant=True)
while True:
    RE(bp.grid_scan([cam], y, 0, 1, rows, x, 0, 1, columns, snake_axes=True))
"""


def scan_and_kill(folder: Path, after: int) -> list[dict[str, Any]]:
    """Return the points that a child told of before it was killed."""
    command = [sys.executable, "-c", CHILD, str(folder), *map(str, SHAPE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        # What was on its way when it died was told as well.
        lines += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def test_points_that_were_told_survive_a_kill(tmp_path: Path) -> None:
    chance = random.Random(27)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        told = scan_and_kill(folder, chance.randrange(3, 80))
        store = told[-1]["store"]
        points = [point["seq_num"] - 1 for point in told if point["store"] == store]
        rows, columns = np.divmod(points, SHAPE[1])
        columns = np.where(rows % 2, SHAPE[1] - 1 - columns, columns)

        group: Any = zarr.open_group(store, mode="r")
        mask, data = group["mask"][...], group["data"][...]
        assert mask[rows, columns].all()
        # One more may have got there.
        assert mask.sum() - len(points) in (0, 1)
        assert (data[mask].sum(axis=(1, 2)) > 0).all()
        np.testing.assert_allclose(group["axis_1"], np.linspace(0, 1, SHAPE[1]))
        assert group.attrs["tags"]["plan_name"] == "grid_scan"

        scans = ScanStorage(folder, "maps", "map", format="npz")
        (target,) = scans.recover()
        assert scans.wait(60) and scans.failed == [] and scans.leftovers() == []
        with np.load(target) as file:
            np.testing.assert_array_equal(file["mask"], mask)
            np.testing.assert_array_equal(file["data"][mask], data[mask])
