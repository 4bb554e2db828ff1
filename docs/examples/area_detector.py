"""An areaDetector's stream, from the simulated IOC that comes with the package."""

# [ioc]
from bluesky import RunEngine
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import PvaCamera, SimIoc
from bluesky_beamtime.plans import fly_frames

ioc = SimIoc("SIM:", shape=(64, 80), options=("--attributes",))

# [camera]
RE = RunEngine()
with Beamtime("area-detector.db") as beamtime:
    beamtime.attach(RE, report=False)
    with init_devices():
        cam1 = PvaCamera(
            beamtime.frames, "SIM:Pva1:Image", detector="SIM:cam1:", conf=ioc.conf
        )
    RE(fly_frames([cam1], 30, exposure=0.01))

    # [read]
    run = beamtime[-1]
    data = run.primary.read()
    print(data.cam1.shape, data.cam1.dtype)
    print("ids", data.cam1_id.values[0], "to", data.cam1_id.values[-1])
    print(
        "recorded with each frame:",
        [key for key in data.coords if key.startswith("cam1_")],
    )
    print(run.accounting["cam1"])
    cam1.close()

# [stop]
ioc.stop()
