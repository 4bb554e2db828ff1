"""First light: from two cameras to an xarray."""

# [measure]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

RE = RunEngine()
beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
beamtime.attach(RE)
with init_devices():
    cam1 = SimCamera(beamtime.frames)
    cam2 = SimCamera(beamtime.frames, shape=(256, 256))

RE(bp.count([cam1, cam2], 10))
# [read]
run = beamtime[-1]
data = run.primary.read()
print(run.plan_name, run.exit_status, dict(data.sizes))
# [lazy]
print(data.cam1.shape, data.cam1.dtype, data.cam1.attrs["units"])
frame = data.cam1[3].values  # read now, and only this one
print(frame.shape, "brightest pixel:", frame.max())
# [scan]
from bluesky_beamtime.demo import SimMotor
from bluesky_beamtime.devices import SimCounter

with init_devices():
    x = SimMotor()
    diode = SimCounter(x)
    cam3 = SimCamera(beamtime.frames, motor=x)

RE(bp.scan([diode, cam3], x, -2, 2, 5))

data = beamtime[-1].primary.read()
photons = data.cam3.sum(("cam3_y", "cam3_x"))
for x_mm, total in zip(data.x.values, photons.values, strict=True):
    print(f"x = {x_mm:4.1f} mm  {total:8d} photons")
# [find]
for run in beamtime:
    print(run.scan_id, run.plan_name, run.sample.name, run.num_events, "events")
# [close]
beamtime.close()
