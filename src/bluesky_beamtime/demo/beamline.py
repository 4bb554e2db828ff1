"""A powder on two motors, a counter behind it, and two cameras in one store."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.errors import MissingExtraError

if TYPE_CHECKING:
    from bluesky_beamtime.storage import FrameStore

WIDE_SHAPE = (512, 512)
NARROW_SHAPE = (256, 256)
STEP_EXPOSURE = 0.05
"""Seconds that each point of a step scan takes."""


@dataclass(frozen=True, slots=True)
class Beamline:
    """The devices of the demonstration."""

    x: Any
    """Motor that moves the sample across the beam, in mm."""
    y: Any
    """Motor that moves the sample up, in mm."""
    diode: Any
    """Photons behind the sample."""
    cam1: Any
    """Camera of 512 × 512 pixels."""
    cam2: Any
    """Camera of 256 × 256 pixels; its frames go into the store of ``cam1``."""

    @property
    def cameras(self) -> list[Any]:
        """Both cameras."""
        return [self.cam1, self.cam2]

    @property
    def detectors(self) -> list[Any]:
        """All that is read at each point."""
        return [self.diode, *self.cameras]


@contextmanager
def simulated_beamline(frames: FrameStore) -> Generator[Beamline]:
    """Build a beamline whose cameras are simulated in this process.

    Needs a RunEngine, whose event loop the devices use.

    Parameters
    ----------
    frames
        Store for the frames.
    """
    from ophyd_async.core import init_devices

    from bluesky_beamtime.demo.motor import SimMotor
    from bluesky_beamtime.devices import SimCamera, SimCounter

    with init_devices():
        x, y = SimMotor(), SimMotor()
        diode = SimCounter([x, y], exposure=STEP_EXPOSURE)
        cam1 = SimCamera(
            frames, motor=[x, y], shape=WIDE_SHAPE, exposure=STEP_EXPOSURE, seed=1
        )
        cam2 = SimCamera(
            frames, motor=[x, y], shape=NARROW_SHAPE, exposure=STEP_EXPOSURE, seed=2
        )
    yield Beamline(x, y, diode, cam1, cam2)


@contextmanager
def epics_beamline(frames: FrameStore) -> Generator[Beamline]:
    """Build the same beamline with cameras that are received over PVAccess.

    Each camera is an IOC in a process of its own, on the loopback interface; the motors
    tell both of them where the sample stands.

    Parameters
    ----------
    frames
        Store for the frames.

    Raises
    ------
    MissingExtraError
        p4p is not installed.
    """
    try:
        import p4p.client.thread  # noqa: F401  # pyright: ignore  # asked for before processes start
    except ImportError as error:
        raise MissingExtraError("beamtime demo --epics", "p4p", "epics") from error
    from ophyd_async.core import init_devices

    from bluesky_beamtime.demo.motor import SampleStage
    from bluesky_beamtime.devices import PvaCamera, SimCounter, SimIoc

    with ExitStack() as stack:
        wide = stack.enter_context(
            SimIoc("WIDE:", shape=WIDE_SHAPE, seed=1, exposure=STEP_EXPOSURE)
        )
        narrow = stack.enter_context(
            SimIoc("NARROW:", shape=NARROW_SHAPE, seed=2, exposure=STEP_EXPOSURE)
        )
        stage = stack.enter_context(SampleStage([wide, narrow]))
        with init_devices():
            x, y = stage.motor("x"), stage.motor("y")
            diode = SimCounter([x, y], exposure=STEP_EXPOSURE)
            cam1, cam2 = (
                PvaCamera(
                    frames,
                    ioc.image,
                    detector=ioc.detector,
                    conf=ioc.conf,
                    # Two IOCs share this computer with whatever else it does.
                    timeout=30,
                )
                for ioc in (wide, narrow)
            )
        stack.callback(cam1.close)
        stack.callback(cam2.close)
        yield Beamline(x, y, diode, cam1, cam2)
