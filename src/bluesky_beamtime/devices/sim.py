"""Simulated cameras and counters that measure a powder in a beam."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from ophyd_async.core import (
    AsyncStatus,
    DetectorTrigger,
    SignalR,
    StandardReadable,
    soft_signal_r_and_setter,
    soft_signal_rw,
)
from ophyd_async.core import StandardReadableFormat as Format

from bluesky_beamtime.devices.camera import (
    Camera,
    FrameReceiver,
    FrameStamp,
    check_exposure,
)
from bluesky_beamtime.devices.pace import Pace
from bluesky_beamtime.devices.rings import PowderRings
from bluesky_beamtime.devices.threads import AcquisitionThread
from bluesky_beamtime.storage import FrameStore


@runtime_checkable
class HasReadback(Protocol):
    """A motor of ophyd-async."""

    user_readback: SignalR[float]


Axis = HasReadback | SignalR[float] | Callable[[], float]
"""What tells a position: a motor, a signal, or a function that any thread may call."""


class SamplePosition:
    """Where the sample stands, readable from any thread.

    Parameters
    ----------
    axes
        Nothing, one axis, or several.
    """

    def __init__(self, axes: Axis | Sequence[Axis] | None) -> None:
        if axes is None:
            several: Sequence[Axis] = ()
        elif isinstance(axes, Sequence):
            several = cast("Sequence[Axis]", axes)
        else:
            several = (axes,)
        self._readers: list[Callable[[], float]] = []
        self._signals: dict[SignalR[float], int] = {}
        self._latest: dict[int, float] = {}
        for number, axis in enumerate(several):
            if isinstance(axis, HasReadback):
                axis = axis.user_readback
            if isinstance(axis, SignalR):
                self._signals[axis] = number
                self._readers.append(lambda number=number: self._latest[number])
            elif callable(axis):
                self._readers.append(axis)
            else:
                raise TypeError(
                    f"{axis!r} tells no position: give a motor, a readable signal or a "
                    "function"
                )

    async def update(self) -> None:
        """Read the signals; in the event loop."""
        for signal, number in self._signals.items():
            self._latest[number] = await signal.get_value()

    def follow(self) -> Callable[[], None]:
        """Keep the positions up to date; returns how to stop. In the event loop."""
        stops: list[Callable[[], None]] = []
        for signal, number in self._signals.items():

            def moved(reading: dict[str, Any], number: int = number) -> None:
                (latest,) = reading.values()
                self._latest[number] = latest["value"]

            signal.subscribe_reading(moved)
            stops.append(partial(signal.clear_sub, moved))  # pyright: ignore[reportUnknownMemberType]  # ophyd-async leaves the type open

        def stop() -> None:
            for step in stops:
                step()
            stops.clear()

        return stop

    def __call__(self) -> tuple[float, ...]:
        """Return the position along each axis."""
        return tuple(float(read()) for read in self._readers)


class SimSource:
    """A camera that sees powder rings, at the pace of its exposures.

    A frame source. Frames are numbered from 0 over the life of the camera, and a frame
    depends on its number, the exposure and where the sample stood when it began.

    Parameters
    ----------
    rings
        What it sees.
    position
        Where the sample stands.
    """

    def __init__(self, rings: PowderRings, position: SamplePosition) -> None:
        self.rings = rings
        self._position = position
        self._exposure = 0.1
        self._deadtime = 0.0
        self._next = 0
        self._thread: AcquisitionThread | None = None
        self._unfollow: Callable[[], None] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""
        return self.rings.shape

    @property
    def dtype(self) -> np.dtype[np.uint16]:
        """Photon counts."""
        return np.dtype("<u2")

    async def configure(self, exposure: float | None) -> None:
        """Use this exposure from the next start on."""
        if exposure is not None:
            self._exposure = exposure

    async def set_trigger(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Leave so many seconds between exposures, which it times itself."""
        self._deadtime = deadtime

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Begin to deliver frames, one per exposure."""
        await self.stop()
        await self._position.update()
        self._unfollow = self._position.follow()
        exposure = self._exposure

        def acquire(stopping: threading.Event) -> None:
            pace = Pace(exposure, self._deadtime)
            taken = 0
            while not (number and taken == number):
                if stopping.wait(pace.rest()):
                    return
                began = pace.begin()
                frame = self.rings.frame(self._next, exposure, self._position())
                if stopping.wait(pace.remaining()):
                    return
                stamp = FrameStamp(id=self._next, time=began)
                self._next += 1
                taken += 1
                receiver.frame(frame, stamp)

        self._thread = AcquisitionThread("simulated camera", acquire, receiver)

    async def stop(self) -> None:
        """Deliver no more."""
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    def __repr__(self) -> str:
        return f"<SimSource {self.shape}>"


class SimCamera(Camera):
    """A simulated camera: LaB6 powder rings with Poisson noise.

    The same ``seed``, frame number, exposure and motor position give the same frame.

    Parameters
    ----------
    frames
        Store for the frames.
    shape
        ``(height, width)``; frames are uint16 photon counts.
    exposure
        Exposure to begin with, in seconds. Frames come at its pace, or as fast as they
        can be computed: about a thousand 512 × 512 frames a second.
    seed
        Seed of the noise.
    motor
        What moves the sample through the beam: a motor of ophyd-async, a signal, a
        function, or several of them. The rings are brightest where all are at 0.
    rings
        Other rings; ``shape`` and ``seed`` are then theirs.
    name
        Name of the device and of its data key.
    """

    def __init__(
        self,
        frames: FrameStore,
        *,
        shape: tuple[int, int] = (512, 512),
        exposure: float = 0.1,
        seed: int = 0,
        motor: Axis | Sequence[Axis] | None = None,
        rings: PowderRings | None = None,
        name: str = "",
    ) -> None:
        height, width = shape
        self.rings = rings or PowderRings((height, width), seed)
        super().__init__(
            frames,
            source=SimSource(self.rings, SamplePosition(motor)),
            exposure=exposure,
            units="counts",
            name=name,
        )


class SimCounter(StandardReadable):
    """A simulated point detector: photons behind the sample of :class:`SimCamera`.

    Parameters
    ----------
    motor
        What moves the sample, as for :class:`SimCamera`.
    rate
        Photons per second with the sample in the beam.
    exposure
        Counting time to begin with, in seconds.
    seed
        Seed of the noise; the same seed, number of the measurement, exposure and
        position give the same count.
    sample_width
        Standard deviation of the sample's profile, in the motor's units.
    name
        Name of the device, and of its reading.
    """

    def __init__(
        self,
        motor: Axis | Sequence[Axis] | None = None,
        *,
        rate: float = 1e5,
        exposure: float = 0.1,
        seed: int = 0,
        sample_width: float = 1.0,
        name: str = "",
    ) -> None:
        self._rate = rate
        self._seed = seed
        self._profile = PowderRings(sample_width=sample_width)
        self._position = SamplePosition(motor)
        self._number = 0
        with self.add_children_as_readables(Format.HINTED_UNCACHED_SIGNAL):
            self.counts, self._show = soft_signal_r_and_setter(int, 0, units="counts")
        with self.add_children_as_readables(Format.CONFIG_SIGNAL):
            self.exposure = soft_signal_rw(float, check_exposure(exposure), units="s")
        super().__init__(name=name)

    def set_name(self, name: str, *, child_name_separator: str | None = None) -> None:
        """Name the device, and its reading after it."""
        super().set_name(name, child_name_separator=child_name_separator)
        self.counts.set_name(name)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Count for one exposure."""
        exposure = check_exposure(await self.exposure.get_value())
        await self._position.update()
        mean = self._rate * exposure * self._profile.brightness(self._position())
        random = np.random.default_rng([self._seed, self._number])
        self._number += 1
        await asyncio.sleep(exposure)
        self._show(int(random.poisson(mean)))
