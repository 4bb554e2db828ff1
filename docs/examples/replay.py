"""A dry run of last beamtime's scan, with the frames that were taken then."""

# [last]
from bluesky import RunEngine
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import ReplayCamera, SimCamera
from bluesky_beamtime.plans import fly_frames

RE = RunEngine()
with Beamtime("last.db") as last:
    last.attach(RE, report=False)
    with init_devices():
        cam1 = SimCamera(last.frames, shape=(64, 80))
    RE(fly_frames([cam1], 40, exposure=0.005))
    RE.unsubscribe(0)

# [replay]
RE = RunEngine()
with Beamtime("dry-run.db") as beamtime, Beamtime("last.db", mode="r") as last:
    beamtime.attach(RE, report=False)
    with init_devices():
        cam1 = ReplayCamera(beamtime.frames, last[-1].primary.read()["cam1"], rate=500)
    for _ in range(2):
        RE(fly_frames([cam1], 15))
        data = beamtime[-1].primary.read()
        print("frames", data.cam1_id.values[0], "to", data.cam1_id.values[-1])

    # [end]
    try:
        RE(fly_frames([cam1], 15))
    except Exception as error:
        print(type(error.__cause__).__name__, "after", beamtime[-1].accounting["cam1"])
    cam1.rewind()
    RE(fly_frames([cam1], 40))
    now, then = beamtime[-1].primary.read(), last[-1].primary.read()
    print("the same frames:", bool((now.cam1.values == then.cam1.values).all()))
