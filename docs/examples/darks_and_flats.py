"""Projections with the darks and flats that go with them."""

from bluesky import RunEngine
from ophyd_async.core import init_devices, soft_signal_rw
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

RE = RunEngine()
beamtime = Beamtime("tomography.db", sample="a snail")
beamtime.attach(RE, report=False)
with init_devices():
    x = SimMotor()
    rot = SimMotor()
    shutter = soft_signal_rw(int)
    cam = SimCamera(beamtime.frames, shape=(64, 80), exposure=0.001)

# [beam]
from bluesky_beamtime.plans import Beam, dark_flat, tomo_scan

beam = Beam(shutter=shutter, open=1, closed=0, sample=x, out=25.0)

# [scan]
plan = tomo_scan([cam], rot, 0, 180, 19, beam=beam, darks=5, flats=5, exposure=0.002)
RE(plan)

run = beamtime[-1]
for name in run:
    print(name, run[name].read()["cam"].shape)

dark = run.dark.read()["cam"].mean("time")
flat = run.flat.read()["cam"].mean("time")
projections = (run.primary.to_grid()["cam"] - dark) / (flat - dark)
print(projections.dims, projections.shape)
print(projections.sel(rot=90).shape)

# [apart]
RE(dark_flat([cam], beam, darks=20, flats=0, exposure=0.002))
print(beamtime[-1].plan_name, beamtime[-1].stream_names)
# [close]
beamtime.close()
