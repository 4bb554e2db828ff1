"""A camera whose software calls back, with gain and external triggers."""

# [use]
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from makers.acme import AcmeCamera
from makers.acme_source import acme_camera
from ophyd_async.core import DetectorTrigger, TriggerInfo, init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.plans import fly_frames

RE = RunEngine()
acme = AcmeCamera()
beamtime = Beamtime("acme.db")
beamtime.attach(RE, report=False)
with init_devices():
    cam = acme_camera(beamtime.frames, acme)

RE(bps.mv(cam.gain, 6))
RE(fly_frames([cam], 20, exposure=0.005))
run = beamtime[-1]
print(run.primary.read().cam.shape, run.accounting["cam"]["dropped"], "dropped")
print(run.primary.configuration["cam"]["cam-gain"], "dB")


# [triggers]
@bpp.stage_decorator([cam])
@bpp.run_decorator()
def on_pulses(number):
    edge = DetectorTrigger.EXTERNAL_EDGE
    info = TriggerInfo(trigger=edge, livetime=0.002, number_of_events=number)
    yield from bps.prepare(cam, info, wait=True)
    yield from bps.declare_stream(cam, name="primary", collect=True)
    yield from bps.kickoff(cam, wait=True)
    for _ in range(number):  # on a beamline this is a motor, or a timing box
        acme.pulse()
    yield from bps.collect_while_completing([cam], [cam], stream_name="primary")


RE(on_pulses(4))
print(beamtime[-1].primary.read().cam.shape)

# [live]


@bpp.stage_decorator([cam])
@bpp.run_decorator()
def until_dark():
    endless = TriggerInfo(number_of_events=0, livetime=0.002)
    yield from bps.prepare(cam, endless, wait=True)
    yield from bps.declare_stream(cam, name="primary", collect=True)
    yield from bps.kickoff(cam, wait=True)
    while acme.frame_id < 100:  # or until whatever you wait for
        yield from bps.sleep(0.05)
        yield from bps.collect(cam, name="primary")
    yield from bps.complete(cam, wait=True)
    yield from bps.collect(cam, name="primary")


RE(until_dark())
live = beamtime[-1]
print(live.exit_status, len(live.primary) == live.accounting["cam"]["written"])
beamtime.close()
