"""A simulated digitizer: sines, ramps and noise, the same for the same seed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from ophyd_async.core import DetectorTrigger

from bluesky_beamtime.devices.camera import FrameReceiver, FrameStamp, check_exposure
from bluesky_beamtime.devices.digitizer import Digitizer
from bluesky_beamtime.devices.pace import Pace
from bluesky_beamtime.devices.threads import AcquisitionThread
from bluesky_beamtime.storage import FrameStore


@dataclass(frozen=True, slots=True)
class SimChannel:
    """What is connected to one input of a simulated digitizer."""

    name: str
    """Name of the channel."""
    form: Literal["sine", "ramp", "square", "noise"] = "sine"
    """Form of the signal, from -1 to 1; noise has none but its noise."""
    frequency: float = 10.0
    """In Hz."""
    amplitude: float = 1.0
    """Half the height of the signal; of noise its standard deviation."""
    offset: float = 0.0
    """Mean of the signal."""
    noise: float = 0.0
    """Standard deviation of the noise on it."""
    units: str = "V"
    """Units of all of these."""

    def values(self, times: NDArray[np.float64], seed: list[int]) -> NDArray[Any]:
        """Return the signal at given times, in seconds."""
        random = np.random.default_rng(seed)
        phase = times * self.frequency % 1.0
        match self.form:
            case "sine":
                form = np.sin(2 * np.pi * phase)
            case "ramp":
                form = 2 * phase - 1
            case "square":
                form = np.where(phase < 0.5, 1.0, -1.0)
            case "noise":
                form = random.standard_normal(len(times))
        noise = self.noise * random.standard_normal(len(times)) if self.noise else 0.0
        return self.offset + self.amplitude * form + noise


CHANNELS = (
    SimChannel("diode", "sine", frequency=50.0, offset=2.0, noise=0.02),
    SimChannel("encoder", "ramp", frequency=5.0, amplitude=10.0, units="mm"),
    SimChannel("gate", "square", frequency=25.0, amplitude=2.5, offset=2.5),
    SimChannel("microphone", "noise", amplitude=0.1),
)
"""Channels of a simulated digitizer unless others are given."""


class SimWaveformSource:
    """A digitizer that samples simulated channels, at the pace of its sample rate.

    A waveform source. Samples are counted over the life of the digitizer, and a signal
    goes on where the block before has ended.

    Parameters
    ----------
    channels
        What is connected.
    sample_rate
        In Hz.
    samples
        Samples of each channel in a block.
    dtype
        Of the samples; of integers what does not fit is cut off, as an input does.
    seed
        Seed of the noise.
    """

    def __init__(
        self,
        channels: Sequence[SimChannel] = CHANNELS,
        *,
        sample_rate: float = 10_000.0,
        samples: int = 1000,
        dtype: DTypeLike = "<f8",
        seed: int = 0,
    ) -> None:
        names = [channel.name for channel in channels]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"channels have a name each, and no two the same: {names}")
        if not (np.isfinite(sample_rate) and sample_rate > 0):
            raise ValueError(f"a sample rate is a positive number, not {sample_rate!r}")
        if isinstance(samples, bool) or int(samples) != samples or samples < 1:
            raise ValueError(f"a block has one sample or more, not {samples!r}")
        self._inputs = tuple(channels)
        self._seed = seed
        self._samples = int(samples)
        self._deadtime = 0.0
        self._next_block = 0
        self._next_sample = 0
        self._thread: AcquisitionThread | None = None
        self.sample_rate = float(sample_rate)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self._inputs)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of each channel."""
        return tuple(channel.units for channel in self._inputs)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and samples."""
        return len(self._inputs), self._samples

    @property
    def duration(self) -> float:
        """Seconds of one block."""
        return self._samples / self.sample_rate

    def block(self, first: int, samples: int | None = None) -> NDArray[Any]:
        """Return a block as it is measured.

        Parameters
        ----------
        first
            Number of its first sample, since the digitizer was made.
        samples
            Samples of each channel; by default as many as set.
        """
        times = (first + np.arange(samples or self._samples)) / self.sample_rate
        values = np.stack(
            [
                channel.values(times, [self._seed, number, first])
                for number, channel in enumerate(self._inputs)
            ]
        )
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(self.dtype)

    async def configure(self, exposure: float | None) -> None:
        """Let blocks be so many seconds long, to the nearest sample."""
        if exposure is not None:
            self._samples = max(1, round(check_exposure(exposure) * self.sample_rate))

    async def set_trigger(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Leave so many seconds between blocks, which it times itself."""
        self._deadtime = deadtime

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        """Begin to deliver blocks, one after the other."""
        await self.stop()

        def acquire(stopping: threading.Event) -> None:
            pace, taken, begins = Pace(self.duration, self._deadtime), 0, 0
            while not (number and taken == number):
                if stopping.wait(pace.rest()):
                    return
                began = round(pace.begin() * 1e9)
                if abs(began - begins) > self.duration * 5e8:
                    # The first, or the disk held it back. Else samples are counted.
                    begins = began
                block = self.block(self._next_sample)
                if stopping.wait(pace.remaining()):
                    return
                stamp = FrameStamp(id=self._next_block, time_ns=begins)
                self._next_block += 1
                self._next_sample += self._samples
                begins += round((self.duration + self._deadtime) * 1e9)
                taken += 1
                receiver.frame(block, stamp)

        self._thread = AcquisitionThread("simulated digitizer", acquire, receiver)

    async def stop(self) -> None:
        """Deliver no more."""
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None

    def __repr__(self) -> str:
        return f"<SimWaveformSource {', '.join(self.channels)}>"


class SimDigitizer(Digitizer):
    """A simulated digitizer: a diode, an encoder, a gate and a microphone.

    The same ``seed``, channels, sample rate and samples give the same blocks.

    Parameters
    ----------
    frames
        Store for the blocks.
    channels
        What is connected, by default these four.
    sample_rate
        In Hz.
    samples
        Samples of each channel in a block to begin with. ``exposure``, the length of a
        block in seconds, changes it.
    dtype
        Of the samples.
    seed
        Seed of the noise.
    name
        Name of the device and of its data key.
    """

    def __init__(
        self,
        frames: FrameStore,
        *,
        channels: Sequence[SimChannel] = CHANNELS,
        sample_rate: float = 10_000.0,
        samples: int = 1000,
        dtype: DTypeLike = "<f8",
        seed: int = 0,
        name: str = "",
    ) -> None:
        source = SimWaveformSource(
            channels, sample_rate=sample_rate, samples=samples, dtype=dtype, seed=seed
        )
        super().__init__(frames, source=source, exposure=source.duration, name=name)
