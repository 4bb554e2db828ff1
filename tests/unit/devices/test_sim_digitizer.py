"""The simulated digitizer on its own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.devices import (
    FrameAxis,
    FrameForm,
    FrameStamp,
    SimChannel,
    SimDigitizer,
    SimWaveformSource,
    WaveformSource,
)
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.storage import FrameStore


class Catcher:
    def __init__(self, number: int) -> None:
        self.frames: list[Any] = []
        self.stamps: list[FrameStamp] = []
        self.full = threading.Event()
        self._number = number

    def frame(self, array: Any, stamp: FrameStamp | None = None) -> None:
        assert stamp is not None
        self.frames.append(array.copy())
        self.stamps.append(stamp)
        if len(self.frames) == self._number:
            self.full.set()

    def fail(self, error: BaseException) -> None:
        raise error


def test_signals_are_what_they_are_called() -> None:
    times = np.arange(1000) / 1000
    sine = SimChannel("s", "sine", frequency=10, amplitude=2, offset=1)
    values = sine.values(times, [0])
    np.testing.assert_allclose(values, 1 + 2 * np.sin(2 * np.pi * 10 * times))
    ramp = SimChannel("r", "ramp", frequency=10).values(times, [0])
    assert ramp.min() == -1 and ramp.max() < 1
    assert (np.diff(ramp[:100]) > 0).all()
    square = SimChannel("q", "square", frequency=10).values(times, [0])
    assert set(square) == {-1.0, 1.0}
    noise = SimChannel("n", "noise", amplitude=0.5).values(times, [0])
    assert abs(noise.std() - 0.5) < 0.05 and abs(noise.mean()) < 0.1
    noisy = SimChannel("s", "sine", frequency=10, amplitude=2, offset=1, noise=0.1)
    rest = noisy.values(times, [0]) - values
    assert 0.09 < rest.std() < 0.11


def test_the_same_seed_gives_the_same_blocks() -> None:
    one, same, other = (SimWaveformSource(seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.block(5000), same.block(5000))
    assert (one.block(5000) != other.block(5000)).any()
    assert (one.block(5000) != one.block(6000)).any()
    assert one.block(0).shape == one.shape == (4, 1000)


def test_signals_go_on_from_block_to_block() -> None:
    channel = SimChannel("s", "sine", frequency=3.3)
    source = SimWaveformSource((channel,), sample_rate=1000, samples=7)
    blocks = [source.block(first) for first in range(0, 70, 7)]
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), source.block(0, 70))


def test_integers_are_cut_off_where_an_input_ends() -> None:
    channel = SimChannel("s", "square", amplitude=1000)
    source = SimWaveformSource((channel,), dtype="|i1", sample_rate=1000, samples=200)
    block = source.block(0)
    assert block.dtype == np.int8
    assert set(block.ravel().tolist()) == {-128, 127}


async def test_source_counts_samples_and_nanoseconds() -> None:
    source = SimWaveformSource(sample_rate=10_000, samples=50, seed=3)
    assert isinstance(source, WaveformSource)
    await source.configure(0.002)
    assert source.shape == (4, 20)
    catcher = Catcher(6)
    await source.start(6, catcher)
    assert await asyncio.to_thread(catcher.full.wait, 30)
    await source.stop()
    await source.stop()
    for number, block in enumerate(catcher.frames):
        np.testing.assert_array_equal(block, source.block(number * 20))
    times = [stamp.time_ns for stamp in catcher.stamps]
    assert all(step >= 2_000_000 for step in np.diff(np.array(times, np.int64)))
    assert [stamp.id for stamp in catcher.stamps] == list(range(6))
    # Another length goes on where the last block has ended.
    await source.configure(0.001)
    again = Catcher(1)
    await source.start(1, again)
    assert await asyncio.to_thread(again.full.wait, 30)
    await source.stop()
    np.testing.assert_array_equal(again.frames[0], source.block(120, 10))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"channels": ()}, "name"),
        ({"channels": (SimChannel("a"), SimChannel("a"))}, "name"),
        ({"sample_rate": 0}, "sample rate"),
        ({"sample_rate": float("inf")}, "sample rate"),
        ({"samples": 0}, "samples|sample"),
        ({"samples": 2.5}, "samples|sample"),
    ],
)
def test_options_are_checked(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SimWaveformSource(**options)


async def test_configuration_before_anything_is_on_disk(tmp_path: Path) -> None:
    scope = SimDigitizer(FrameStore(tmp_path), samples=100, name="scope")
    await scope.connect()
    read = await scope.read_configuration()
    values = {name: reading["value"] for name, reading in read.items()}
    assert values["scope-sample_rate"] == 10_000
    assert values["scope-samples"] == 100
    assert values["scope-exposure"] == 0.01
    assert list(values["scope-channels"]) == ["diode", "encoder", "gate", "microphone"]
    assert list(values["scope-channel_units"]) == ["V", "mm", "V", "V"]
    assert scope.hints == {"fields": ["scope"]}
    assert list(tmp_path.iterdir()) == []


def test_a_stamp_knows_its_time_either_way() -> None:
    assert FrameStamp().seconds is None
    assert FrameStamp(time=1.5).seconds == 1.5
    assert FrameStamp(time_ns=1_500_000_000).seconds == 1.5


def test_axes_must_fit_the_frames() -> None:
    axis = FrameAxis(name="energy", step=0.5)
    with pytest.raises(DeviceError, match="2 axes"):
        FrameForm((3, 4), np.dtype("u1"), axes=(axis,))
    with pytest.raises(DeviceError, match="2 values of 'channel'"):
        FrameForm(
            (3,), np.dtype("u1"), axes=(FrameAxis(name="channel", labels=("a", "b")),)
        )
    form = FrameForm((3,), np.dtype("u1"), axes=(axis,))
    assert form.dims("mca") == ("mca_energy",)
