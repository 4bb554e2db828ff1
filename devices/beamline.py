"""The devices of an example beamline: a powder in an X-ray beam.

Copy this file and put your own devices in. A session loads it like this::

    from bluesky import RunEngine
    from bluesky_beamtime import Beamtime
    from devices.beamline import make_devices

    RE = RunEngine()
    beamtime = Beamtime("2026-11-LaB6.db", sample="LaB6")
    beamtime.attach(RE)
    bl = make_devices(beamtime.frames)

The RunEngine comes first: devices live in its event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import PvaCamera, SimCamera, SimCounter
from bluesky_beamtime.storage import FrameStore


@dataclass(frozen=True)
class Beamline:
    """What there is at this beamline."""

    x: SimMotor
    y: SimMotor
    near: SimCamera
    far: SimCamera
    diode: SimCounter
    pilatus: PvaCamera | None = None

    @property
    def cameras(self) -> list[SimCamera | PvaCamera]:
        """All cameras; they share a store."""
        found: list[SimCamera | PvaCamera] = [self.near, self.far]
        return found if self.pilatus is None else [*found, self.pilatus]


def make_devices(
    frames: FrameStore,
    *,
    pva_prefix: str | None = None,
    pva_conf: Mapping[str, str] | None = None,
) -> Beamline:
    """Connect the devices.

    Parameters
    ----------
    frames
        Where the cameras put their frames.
    pva_prefix
        Prefix of an areaDetector IOC, if there is one, such as that of
        ``python -m bluesky_beamtime.devices.ioc --prefix SIM:``.
    pva_conf
        How to find it, beside ``EPICS_PVA_ADDR_LIST`` and its like.
    """
    with init_devices():
        # They move the sample; at 0 it is in the beam.
        x = SimMotor()
        y = SimMotor()
        near = SimCamera(frames, seed=1, motor=(x, y))
        far = SimCamera(frames, seed=2, motor=(x, y), shape=(256, 256))
        diode = SimCounter((x, y), seed=3)
    pilatus = None
    if pva_prefix is not None:
        with init_devices():
            pilatus = PvaCamera(
                frames,
                f"{pva_prefix}Pva1:Image",
                detector=f"{pva_prefix}cam1:",
                conf=pva_conf,
            )
    return Beamline(x, y, near, far, diode, pilatus)
