"""A frame source around the software of a camera's maker."""

# [source]
import asyncio

import numpy as np
from ophyd_async.core import DetectorTrigger, soft_signal_rw

from bluesky_beamtime.devices import Camera, FrameStamp

TRIGGERS = {
    DetectorTrigger.INTERNAL: "Internal",
    DetectorTrigger.EXTERNAL_EDGE: "RisingEdge",
    DetectorTrigger.EXTERNAL_LEVEL: "PulseWidth",
}


class AcmeSource:
    dtype = np.dtype(np.uint16)
    triggers = tuple(TRIGGERS)
    deadtime = 0.001

    def __init__(self, acme):
        self.acme = acme

    @property
    def shape(self):
        return self.acme.get("Height"), self.acme.get("Width")

    async def configure(self, exposure):
        if exposure is not None:
            self.acme.set("ExposureTime", exposure * 1e6)

    async def set_trigger(self, trigger, deadtime):
        self.acme.set("Trigger", TRIGGERS[trigger])
        self.acme.set("FrameDelay", max(deadtime, self.deadtime) * 1e6)

    async def start(self, number, receiver):
        def on_image(image):
            stamp = FrameStamp(id=image.frame_id, time=image.time_ns / 1e9)
            receiver.frame(image.pixels, stamp)

        self.acme.start(number, on_image, receiver.fail)

    async def stop(self):
        await asyncio.to_thread(self.acme.stop)


# [device]
def acme_camera(frames, acme, name=""):
    gain = soft_signal_rw(
        float,
        units="dB",
        getter=lambda: acme.get("Gain"),
        setter=lambda gain: acme.set("Gain", gain),
    )
    source = AcmeSource(acme)
    return Camera(frames, source=source, config_signals={"gain": gain}, name=name)
