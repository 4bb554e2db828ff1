"""Frames while a motor moves, and at given times."""

# [prepare]
from bluesky import RunEngine
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.plans import fly_points, fly_scan, paced_frames

RE = RunEngine()
beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
beamtime.attach(RE, report=False)
with init_devices():
    slow = SimCamera(beamtime.frames, shape=(64, 64))
    quick = SimCamera(beamtime.frames, shape=(32, 32))
    theta = SimMotor(instant=False, units="deg")

# [use]
RE(
    fly_scan(
        [slow, quick],
        theta,
        0,
        2,
        num=20,
        exposure={"slow": 0.05, "quick": 0.02},
        frames_per_event={"slow": 2, "quick": 5},
    )
)
data = beamtime[-1].primary.read()
print(data["slow"].shape, data["quick"].shape)
print(data["quick_theta"].dims, data["quick_theta"].units)
print("rises:", bool((data["quick_theta"].diff("time") >= 0).all()))
print(beamtime[-1].accounting["quick"])

# [points]
RE(fly_points([quick], theta, [0, 0.3, 0.1], dwell=0.5, exposure=0.02))
data = beamtime[-1].primary.read()
at_rest = data.where(abs(data["quick_theta"] - 0.3) < 1e-6, drop=True)
print("frames at 0.3:", at_rest.sizes["time"] > 0)

# [paced]
RE(paced_frames([slow, quick], 10, rate=20, exposure=0.01))
print(beamtime[-1].plan_name, beamtime[-1].primary.read()["slow"].shape)

# [close]
beamtime.close()
