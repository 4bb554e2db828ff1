"""Scans as N-dimensional arrays: from a RunEngine, and point by point."""

# [live]
from bluesky import RunEngine
from bluesky.plans import grid_scan
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.recording import ScanSubscriber
from bluesky_beamtime.storage import ScanStorage

RE = RunEngine()
beamtime = Beamtime("maps.db")
beamtime.attach(RE)
with init_devices():
    cam = SimCamera(beamtime.frames, shape=(32, 48), exposure=0.001)
    x, y = SimMotor(instant=True), SimMotor(instant=True)

scans = ScanStorage("maps", folder="2026", name="map")
with ScanSubscriber(scans) as live:
    RE.subscribe(live)
    RE(grid_scan([cam], y, 0, 1, 3, x, -1, 1, 5, snake_axes=True))
scans.wait()

# [read]
import zarr

saved = zarr.open_group("maps/2026/map_0.zarr", mode="r")
print(saved["data"].shape, saved["data"].dtype, *saved.attrs["tags"]["dims"])
print(saved["axis_1"][:], int(saved["mask"][:].sum()), "points")

grid = beamtime[-1].primary.to_grid()["cam"]
print(grid.dims, (grid.values == saved["data"][:]).all())

# [points]
import numpy as np

notes = ScanStorage("maps", folder="2026", name="notes", format="npz")
notes.tagRequest.connect(lambda tags: tags.update(sample="LaB6"))
notes.reserve((2, 3), dtype="u2", axes=[[8.9, 9.1], [0, 10, 20]])
notes.update({(0, 0): 5, (1, 2): 7})
print(notes.saving, notes.buffer.name)
notes.save()
notes.wait()
with np.load("maps/2026/notes_0.npz") as file:
    print(file["data"].tolist(), file["mask"].tolist(), file["tags"])

# [recover]
for folder in notes.leftovers():
    print("left behind:", folder)
notes.recover()
beamtime.close()
