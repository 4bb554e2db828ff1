"""Write runs for other programs, and read them there."""

# [prepare]
import h5py
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

with Beamtime("2026-11-LaB6.db", sample="LaB6") as beamtime:
    RE = RunEngine()
    beamtime.attach(RE, report=False)
    with init_devices():
        x = SimMotor(instant=True)
        cam1 = SimCamera(beamtime.frames, motor=x)
    RE(bp.scan([cam1], x, -1, 1, 3))
# [export]
with Beamtime("2026-11-LaB6.db", mode="r") as beamtime:
    run = beamtime[-1]
    print(*run.export("lab6.nxs", "nexus"))
    print(*run.export("lab6.jsonl", "jsonl"))
# [read]
with h5py.File("lab6.nxs") as root:
    entry = root["entry"]
    plot = entry[entry.attrs["default"]]
    signal = plot[plot.attrs["signal"]]
    axis = plot[plot.attrs["axes"][0]]
    print(plot.name, signal.shape, signal.dtype)
    print(axis.attrs["long_name"], axis[...])
    print(entry["sample/name"].asstr()[()])
# [end]
