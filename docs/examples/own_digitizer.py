"""A digitizer of one's own: blocks of waveforms, with what stands along them."""

# [sdk]
import threading
import time

import numpy as np


class Scope:
    """Stands for the software of the digitizer's maker."""

    inputs = ("diode", "gate")
    rate = 20_000.0
    blocks = 0

    def read_block(self, samples):
        began = time.time_ns()
        time.sleep(samples / self.rate)
        self.blocks += 1
        counts = np.arange(2 * samples, dtype=np.int16).reshape(2, samples)
        return self.blocks, began, counts + self.blocks


# [source]
from bluesky_beamtime.devices import AcquisitionThread, Digitizer, FrameStamp


class ScopeSource:
    channels = Scope.inputs
    units = "count"
    dtype = np.dtype(np.int16)

    def __init__(self, scope, samples=200):
        self.scope, self.samples = scope, samples
        self.thread = None

    @property
    def sample_rate(self):
        return self.scope.rate

    @property
    def shape(self):
        return len(self.channels), self.samples

    async def configure(self, exposure):
        if exposure is not None:
            self.samples = round(exposure * self.sample_rate)

    async def start(self, number, receiver):
        def acquire(stopping: threading.Event):
            taken = 0
            while not stopping.is_set() and (number == 0 or taken < number):
                block, began, counts = self.scope.read_block(self.samples)
                receiver.frame(counts, FrameStamp(id=block, time_ns=began))
                taken += 1

        self.thread = AcquisitionThread("scope", acquire, receiver)

    async def stop(self):
        if self.thread is not None:
            await self.thread.stop()


# [use]
from bluesky import RunEngine
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.plans import fly_frames

RE = RunEngine()
with Beamtime("scope.db") as beamtime:
    beamtime.attach(RE, report=False)
    with init_devices():
        scope = Digitizer(beamtime.frames, source=ScopeSource(Scope()), exposure=0.01)
        cam = SimCamera(beamtime.frames, shape=(32, 32))

    RE(fly_frames([scope, cam], 10, exposure=0.005))

    run = beamtime[-1].primary.read()
    print(run.scope.dims, run.scope.shape, run.cam.shape)
    gate = run.scope.sel(scope_channel="gate")
    print(gate.sel(scope_sample=0.002, method="nearest").values[:3])
    print(run.scope_sample.values[[0, 1, -1]], run.scope_sample.units)
    print(beamtime[-1].primary.configuration["scope"]["scope-sample_rate"], "Hz")
