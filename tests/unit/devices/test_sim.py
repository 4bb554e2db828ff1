"""Simulated devices on their own."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ophyd_async.core import DetectorTrigger, soft_signal_rw
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import (
    Camera,
    FrameSource,
    FrameStamp,
    PowderRings,
    SimCamera,
    SimCounter,
    SimSource,
)
from bluesky_beamtime.devices.pace import Pace
from bluesky_beamtime.devices.sim import SamplePosition
from bluesky_beamtime.storage import FrameStore


class Catcher:
    """A receiver that keeps what it is given."""

    def __init__(self, number: int) -> None:
        self.frames: list[NDArray[Any]] = []
        self.stamps: list[FrameStamp | None] = []
        self.threads: set[int] = set()
        self.failure: BaseException | None = None
        self.full = threading.Event()
        self._number = number

    def frame(self, array: NDArray[Any], stamp: FrameStamp | None = None) -> None:
        self.frames.append(array.copy())
        self.stamps.append(stamp)
        self.threads.add(threading.get_ident())
        if len(self.frames) == self._number:
            self.full.set()

    def fail(self, error: BaseException) -> None:
        self.failure = error
        self.full.set()

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.full.wait, 10)


async def test_source_delivers_exactly_what_it_is_asked_for() -> None:
    rings = PowderRings((20, 30), seed=3)
    source = SimSource(rings, SamplePosition(None))
    assert isinstance(source, FrameSource)
    await source.configure(0.002)
    catcher = Catcher(4)
    await source.start(4, catcher)
    await catcher.wait()
    await source.stop()
    await source.stop()
    assert len(catcher.frames) == 4
    assert threading.get_ident() not in catcher.threads
    # A second acquisition goes on counting.
    again = Catcher(2)
    await source.start(2, again)
    await again.wait()
    await source.stop()
    for number, frame in enumerate(catcher.frames + again.frames):
        np.testing.assert_array_equal(frame, rings.frame(number, 0.002))
    ids = [stamp and stamp.id for stamp in catcher.stamps + again.stamps]
    assert ids == list(range(6))


async def test_source_keeps_the_pace_of_its_exposures() -> None:
    source = SimSource(PowderRings((4, 4)), SamplePosition(None))
    await source.configure(0.02)
    catcher = Catcher(10)
    began = time.time()
    await source.start(10, catcher)
    await catcher.wait()
    took = time.time() - began
    await source.stop()
    assert took >= 10 * 0.02
    times = [stamp.time for stamp in catcher.stamps if stamp and stamp.time]
    assert min(np.diff(times)) > 0.0199
    assert times[0] >= began


async def test_source_stops_in_the_middle_of_an_exposure() -> None:
    source = SimSource(PowderRings((4, 4)), SamplePosition(None))
    await source.configure(30.0)
    catcher = Catcher(1)
    await source.start(0, catcher)
    began = time.monotonic()
    await source.stop()
    assert time.monotonic() - began < 5
    assert catcher.frames == []


async def test_source_reports_what_its_position_raises() -> None:
    def broken() -> float:
        raise ConnectionError("encoder")

    source = SimSource(PowderRings((4, 4)), SamplePosition(broken))
    catcher = Catcher(1)
    await source.start(1, catcher)
    await catcher.wait()
    await source.stop()
    assert isinstance(catcher.failure, ConnectionError)


async def test_frames_follow_the_motor_while_it_moves() -> None:
    rings = PowderRings((10, 10))
    signal = soft_signal_rw(float, 0.25)
    source = SimSource(rings, SamplePosition(signal))
    await source.configure(0.005)
    catcher = Catcher(30)
    await source.start(30, catcher)
    while len(catcher.frames) < 5:
        await asyncio.sleep(0.001)
    await signal.set(0.75)
    await catcher.wait()
    await source.stop()
    np.testing.assert_array_equal(catcher.frames[0], rings.frame(0, 0.005, (0.25,)))
    np.testing.assert_array_equal(catcher.frames[-1], rings.frame(29, 0.005, (0.75,)))
    # The subscription is gone.
    assert signal._cache is None


async def test_positions_of_motor_signal_function_and_several() -> None:
    motor = SimMotor(name="motor", initial_value=1.5)
    await motor.connect()
    signal = soft_signal_rw(float, 2.5)
    several = SamplePosition([motor, signal, lambda: 3.5])
    await several.update()
    assert several() == (1.5, 2.5, 3.5)
    assert SamplePosition(None)() == ()
    with pytest.raises(TypeError, match="tells no position"):
        SamplePosition("motor")  # type: ignore[arg-type]


@pytest.mark.parametrize("exposure", [0, -1, float("nan"), float("inf")])
def test_exposures_are_checked(tmp_path: Path, exposure: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        SimCamera(FrameStore(tmp_path), exposure=exposure)


def test_parts_are_checked(tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    with pytest.raises(TypeError, match=r"beamtime\.frames"):
        SimCamera(str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lacks shape, dtype, configure, start, stop"):
        Camera(store, source=object())  # type: ignore[arg-type]


async def test_camera_describes_its_configuration(tmp_path: Path) -> None:
    camera = SimCamera(FrameStore(tmp_path), exposure=0.25, name="cam")
    await camera.connect()
    assert (await camera.read_configuration())["cam-exposure"]["value"] == 0.25
    key = (await camera.describe_configuration())["cam-exposure"]
    assert key["units"] == "s"
    assert camera.hints == {"fields": ["cam"]}
    # Nothing is on disk before the first preparation.
    assert list(tmp_path.iterdir()) == []


async def test_counter_counts_photons_where_the_sample_is() -> None:
    position = 0.0
    counter = SimCounter(lambda: position, rate=1e9, exposure=0.001, name="det")
    await counter.connect()
    counts = {}
    for position in (0.0, 1.0, 5.0):  # read by the counter
        await counter.trigger()
        (reading,) = (await counter.read()).values()
        counts[position] = reading["value"]
    for at, count in counts.items():
        mean = 1e6 * PowderRings().brightness((at,))
        assert abs(count - mean) < 6 * mean**0.5
    assert list(await counter.describe()) == ["det"]
    again = SimCounter(lambda: 0.0, rate=1e9, exposure=0.001, name="det")
    await again.connect()
    await again.trigger()
    assert (await again.read())["det"]["value"] == counts[0.0]
    assert counter.hints == {"fields": ["det"]}


def test_pace_is_back_to_back_unless_held_back() -> None:
    pace = Pace(0.05)
    first = pace.begin()
    time.sleep(0.06)
    second = pace.begin()
    assert second - first == pytest.approx(0.05, abs=0.01)
    time.sleep(0.15)
    assert pace.remaining() == 0.0
    third = pace.begin()
    assert third - second > 0.1
    assert 0 < pace.remaining() <= 0.05


async def test_source_leaves_the_time_between_exposures() -> None:
    source = SimSource(PowderRings((4, 4)), SamplePosition(None))
    assert isinstance(source, FrameSource)
    await source.configure(0.002)
    await source.set_trigger(DetectorTrigger.INTERNAL, 0.03)
    catcher = Catcher(4)
    await source.start(4, catcher)
    await catcher.wait()
    await source.stop()
    times = [stamp.time for stamp in catcher.stamps if stamp and stamp.time]
    assert len(times) == 4
    assert min(np.diff(times)) > 0.0319  # of one clock, however busy the machine
    # It stops at once in between, too.
    await source.set_trigger(DetectorTrigger.INTERNAL, 60.0)
    catcher = Catcher(1)
    await source.start(0, catcher)
    await catcher.wait()
    began = time.monotonic()
    await source.stop()
    assert time.monotonic() - began < 5
