"""A camera of one's own: a frame source around what its maker's software gives."""

# [sdk]
import threading
import time

import numpy as np


class Webcam:
    """Stands for the software of the camera's maker."""

    exposure = 0.01
    taken = 0

    def wait_for_image(self):
        time.sleep(self.exposure)
        self.taken += 1
        return self.taken, np.full((48, 64), self.taken, np.uint8)


# [source]
from bluesky_beamtime.devices import AcquisitionThread, Camera, FrameStamp


class WebcamSource:
    shape = (48, 64)
    dtype = np.dtype(np.uint8)

    def __init__(self, webcam):
        self.webcam = webcam
        self.thread = None

    async def configure(self, exposure):
        if exposure is not None:
            self.webcam.exposure = exposure

    async def start(self, number, receiver):
        def acquire(stopping: threading.Event):
            taken = 0
            while not stopping.is_set() and (number == 0 or taken < number):
                image_number, image = self.webcam.wait_for_image()
                receiver.frame(image, FrameStamp(id=image_number))
                taken += 1

        self.thread = AcquisitionThread("webcam", acquire, receiver)

    async def stop(self):
        if self.thread is not None:
            await self.thread.stop()


# [use]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.plans import fly_frames

RE = RunEngine()
with Beamtime("webcam.db") as beamtime:
    beamtime.attach(RE, report=False)
    with init_devices():
        webcam = Camera(beamtime.frames, source=WebcamSource(Webcam()), exposure=0.01)

    RE(bp.count([webcam], 3))
    RE(fly_frames([webcam], 20, exposure=0.005))

    for run in beamtime:
        print(run.plan_name, run.primary.read().webcam.shape, run.accounting["webcam"])
