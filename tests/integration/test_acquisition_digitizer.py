"""Digitizers: blocks of waveforms, alone and beside cameras."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from ophyd_async.core import TriggerInfo, init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import (
    AcquisitionThread,
    Digitizer,
    FrameReceiver,
    FrameStamp,
    SimCamera,
    SimChannel,
    SimDigitizer,
    WaveformSource,
)
from bluesky_beamtime.errors import DeviceError, TriggerError
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import from_uri

CHANNELS = (
    SimChannel("diode", "sine", frequency=50.0, offset=2.0, noise=0.02),
    SimChannel("encoder", "ramp", frequency=5.0, amplitude=10.0, units="mm"),
    SimChannel("noise", "noise", amplitude=0.1),
)


class CountingSource:
    """A digitizer of the user's: each sample is its number since the beginning.

    Channel c adds a million times c. Blocks are one microsecond per sample apart by its
    own clock, which starts at an odd nanosecond.
    """

    EPOCH = 1_700_000_000_000_000_001

    def __init__(
        self,
        channels: tuple[str, ...] = ("a", "b"),
        samples: int = 5,
        dtype: str = "<i4",
        units: Any = "count",
    ) -> None:
        self.channels, self.samples, self.units = channels, samples, units
        self.dtype = np.dtype(dtype)
        self.sample_rate = 1e6
        self.block = 0
        self._thread: AcquisitionThread | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.channels), self.samples

    async def configure(self, exposure: float | None) -> None: ...

    def values(self, block: int) -> np.ndarray[Any, Any]:
        samples = block * self.samples + np.arange(self.samples)
        channels = np.arange(len(self.channels))[:, None] * 1_000_000
        return (channels + samples).astype(self.dtype)

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        def acquire(stopping: threading.Event) -> None:
            taken = 0
            while not stopping.is_set() and not (number and taken == number):
                begins = self.EPOCH + self.block * self.samples * 1000
                stamp = FrameStamp(id=self.block, time_ns=begins)
                values = self.values(self.block)
                self.block += 1
                taken += 1
                receiver.frame(values, stamp)

        self._thread = AcquisitionThread("counting", acquire, receiver)

    async def stop(self) -> None:
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None


@pytest.fixture
def scope(RE: RunEngine, recorded: Any, run: Any) -> Digitizer:
    with init_devices():
        scope = Digitizer(recorded.beamtime.frames, source=CountingSource())
    return scope


def test_a_step_scan_reads_back_with_names_and_times(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    assert isinstance(scope.source, WaveformSource)
    result = recorded(bp.count([scope], 3))
    dataset = result.primary.read()
    assert dataset.scope.dims == ("time", "scope_channel", "scope_sample")
    assert dataset.scope.dtype == np.dtype("<i4")
    for block in range(3):
        np.testing.assert_array_equal(
            dataset.scope.values[block], scope.source.values(block)
        )
    assert dataset.scope_channel.values.tolist() == ["a", "b"]
    assert dataset.scope_unit.values.tolist() == ["count", "count"]
    np.testing.assert_allclose(dataset.scope_sample, np.arange(5) * 1e-6, rtol=1e-12)
    assert dataset.scope_sample.attrs["units"] == "s"
    assert dataset.scope.attrs["units"] == "count"
    assert dataset.scope.attrs["source"] == "digitizer://scope"
    chosen = dataset.scope.sel(scope_channel="b", scope_sample=2e-6, method=None)
    assert chosen.values.tolist() == [1_000_002, 1_000_007, 1_000_012]
    # To the nanosecond, which a float64 of seconds cannot hold.
    assert dataset.scope_t0.dtype == np.int64
    epoch = CountingSource.EPOCH
    assert dataset.scope_t0.values.tolist() == [epoch, epoch + 5000, epoch + 10_000]
    assert "scope_t0" in dataset.coords
    np.testing.assert_allclose(dataset.scope_time, epoch / 1e9, atol=1e-3)


def test_what_a_block_needs_is_in_configuration_and_attributes(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    recorded(bp.count([scope]))
    (descriptor,) = run["descriptor"]
    assert descriptor["configuration"]["scope"]["data"] == {
        "scope-sample_rate": 1e6,
        "scope-samples": 5,
        "scope-channels": ["a", "b"],
        "scope-channel_units": ["count", "count"],
    }
    keys = descriptor["configuration"]["scope"]["data_keys"]
    assert keys["scope-sample_rate"]["units"] == "Hz"
    assert descriptor["data_keys"]["scope"]["shape"] == [2, 5]
    assert descriptor["data_keys"]["scope"]["dtype_numpy"] == "<i4"
    assert descriptor["data_keys"]["scope"]["units"] == "count"
    uri = run.resources("scope")[0]["uri"]
    attributes = zarr.open_array(from_uri(uri), mode="r").attrs.asdict()
    assert attributes["metadata"] == {
        "sample_rate": 1e6,
        "samples": 5,
        "channels": ["a", "b"],
        "channel_units": ["count", "count"],
    }
    dims = zarr.open_array(from_uri(uri), mode="r").metadata.dimension_names
    assert dims[1:] == ("scope_channel", "scope_sample")


def test_it_flies_beside_a_camera_in_one_store(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    with init_devices():
        cam = SimCamera(recorded.beamtime.frames, shape=(6, 8))
        sim = SimDigitizer(
            recorded.beamtime.frames, channels=CHANNELS, samples=50, seed=7
        )
    source = sim.source
    result = recorded(fly_frames([sim, cam], 12, exposure=0.004))
    dataset = result.primary.read()
    assert dataset.cam.shape == (12, 6, 8)
    # The exposure is the length of a block.
    assert dataset.sim.shape == (12, 3, 40)
    assert result.primary.configuration["sim"]["sim-samples"] == 40
    assert result.primary.configuration["sim"]["sim-exposure"] == 0.004
    for block in range(12):
        np.testing.assert_array_equal(
            dataset.sim.values[block], source.block(block * 40, 40)
        )
    assert dataset.sim_unit.values.tolist() == ["V", "mm", "V"]
    assert "units" not in dataset.sim.attrs
    assert result.accounting["sim"]["written"] == 12
    stores = {Path(from_uri(doc["uri"])).parent for doc in run["stream_resource"]}
    assert len(stores) == 1
    # Blocks follow each other without a gap, unless the machine was held up.
    steps = np.diff(dataset.sim_t0.values)
    assert (steps >= 4_000_000).all()
    assert abs(dataset.sim_t0.values[0] / 1e9 - time.time()) < 3600


@pytest.mark.parametrize("averaged", [1, 2])
@pytest.mark.parametrize("how", ["step", "fly"])
def test_several_blocks_per_event(
    recorded: Any, run: Any, scope: Digitizer, how: str, averaged: int
) -> None:
    info = TriggerInfo(
        collections_per_event=3,
        exposures_per_collection=averaged,
        number_of_events={"step": 1, "fly": 2}[how],
    )

    @bpp.stage_decorator([scope])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(scope, info, wait=True)
        if how == "step":
            for _ in range(2):
                yield from bps.trigger_and_read([scope])
        else:
            yield from bps.declare_stream(scope, name="primary", collect=True)
            yield from bps.kickoff(scope, wait=True)
            yield from bps.collect_while_completing(
                [scope], [scope], stream_name="primary"
            )

    dataset = recorded(plan()).primary.read()
    dims = ("time", "scope_frame", "scope_channel", "scope_sample")
    assert dataset.scope.dims == dims
    assert dataset.scope.shape == (2, 3, 2, 5)
    firsts = np.arange(6) * averaged
    blocks = [
        np.rint(np.mean([scope.source.values(n + k) for k in range(averaged)], axis=0))
        for n in firsts
    ]
    np.testing.assert_array_equal(dataset.scope.values.reshape(6, 2, 5), blocks)
    # The time of a mean is that of its first block, to the nanosecond.
    begins = CountingSource.EPOCH + firsts * 5000
    assert dataset.scope_t0.values.ravel().tolist() == begins.tolist()
    assert dataset.scope_channel.values.tolist() == ["a", "b"]


@pytest.mark.parametrize("dtype", ["|i1", "<u2", ">i2", "<i8", "<f4", "<f8", "<c8"])
def test_any_dtype(recorded: Any, run: Any, dtype: str) -> None:
    source = CountingSource(("one",), 3, dtype)
    with init_devices():
        scope = Digitizer(recorded.beamtime.frames, source=source)
    values = recorded(bp.count([scope], 2)).primary.read().scope
    assert values.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(values.values[1], source.values(1))


def test_two_digitizers_of_different_sizes(recorded: Any, run: Any) -> None:
    frames = recorded.beamtime.frames
    with init_devices():
        one = Digitizer(frames, source=CountingSource(("a", "b"), 5))
        two = Digitizer(frames, source=CountingSource(("x",), 9, units=["V"]))
    dataset = recorded(bp.count([one, two], 2)).primary.read()
    assert dataset.one.shape == (2, 2, 5)
    assert dataset.two.shape == (2, 1, 9)
    assert dataset.two_unit.values.tolist() == ["V"]


def test_a_grid_scan_has_the_blocks_on_its_grid(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    with init_devices():
        x, y = SimMotor(instant=True), SimMotor(instant=True)
    result = recorded(bp.grid_scan([scope], y, 0, 1, 2, x, 0, 2, 3))
    grid = result.primary.to_grid()
    assert grid.scope.shape == (2, 3, 2, 5)
    assert grid.scope_channel.values.tolist() == ["a", "b"]
    np.testing.assert_array_equal(grid.scope.values[1, 2], scope.source.values(5))


def test_a_fixed_length_cannot_be_set(
    RE: RunEngine, recorded: Any, scope: Digitizer
) -> None:
    with pytest.raises(FailedStatus) as caught:
        RE(fly_frames([scope], 3, exposure=0.1))
    error = caught.value.__cause__
    assert isinstance(error, TriggerError)
    assert "livetime of 0.1 s" in str(error)
    assert recorded(fly_frames([scope], 3, exposure=None)).exit_status == "success"


def test_other_channels_in_the_next_run_of_a_staging(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    source = scope.source

    @bpp.stage_decorator([scope])
    def plan() -> Any:
        for names in (("a", "b"), ("p", "q")):
            source.channels = names
            yield from bpp.run_wrapper(inner())

    def inner() -> Any:
        yield from bps.prepare(scope, TriggerInfo(), wait=True)
        yield from bps.trigger_and_read([scope])

    recorded(plan())
    runs = recorded.beamtime[-2], recorded.beamtime[-1]
    names = [run.primary.read().scope_channel.values.tolist() for run in runs]
    assert names == [["a", "b"], ["p", "q"]]


def test_names_that_do_not_fit_the_blocks(
    RE: RunEngine, recorded: Any, scope: Digitizer
) -> None:
    scope.source.units = ["V"]
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([scope]))
    assert isinstance(caught.value.__cause__, DeviceError)
    assert "1 values of 'unit' are given for an axis of 2" in str(
        caught.value.__cause__
    )


def test_a_source_without_channels_is_refused(recorded: Any) -> None:
    class Camera:
        shape = (2, 2)
        dtype = np.dtype("u1")

        async def configure(self, exposure: float | None) -> None: ...

        async def start(self, number: int, receiver: FrameReceiver) -> None: ...

        async def stop(self) -> None: ...

    with pytest.raises(TypeError, match="lacks channels, sample_rate, units"):
        Digitizer(recorded.beamtime.frames, source=Camera())  # type: ignore[arg-type]


def test_the_footprint_counts_what_is_beside_the_blocks(scope: Digitizer) -> None:
    keys = [one.key for one in scope.footprint()]
    assert keys == ["scope", "scope_time", "scope_id", "scope_t0"]


def test_frames_of_a_camera_may_have_axes_too(recorded: Any, run: Any) -> None:
    from bluesky_beamtime.devices import Camera, FrameAxis

    class Spectrometer(CountingSource):
        axes = (FrameAxis(name="energy", start=100.0, step=2.5, units="eV"),)
        shape = (4,)  # type: ignore[assignment]

        def values(self, block: int) -> np.ndarray[Any, Any]:
            return np.full(4, block, self.dtype)

    with init_devices():
        mca = Camera(recorded.beamtime.frames, source=Spectrometer(), exposure=None)
    dataset = recorded(bp.count([mca], 2)).primary.read()
    assert dataset.mca.dims == ("time", "mca_energy")
    assert dataset.mca_energy.values.tolist() == [100.0, 102.5, 105.0, 107.5]
    assert dataset.mca_energy.attrs["units"] == "eV"
    assert "mca_t0" not in dataset


def test_blocks_become_records_for_sinks(
    recorded: Any, run: Any, scope: Digitizer
) -> None:
    """Nothing that a sink's block holds is missing from what is read back."""
    from datetime import UTC, datetime

    from bluesky_beamtime.sinks import DaqBlock, block_to_rows

    result = recorded(bp.count([scope], 3))
    dataset = result.primary.read()
    settings = result.primary.configuration["scope"]
    rate = settings["scope-sample_rate"]
    rows: list[dict[str, Any]] = []
    for event in range(3):
        values = dataset.scope.values[event]
        number, begins = (int(dataset[f"scope_{k}"][event]) for k in ("id", "t0"))
        block = DaqBlock(
            device="scope",
            task=result.plan_name,
            channels=tuple(settings["scope-channels"]),
            data=values,
            block_index=number,
            first_sample_index=number * values.shape[1],
            sample_rate_hz=rate,
            block_period_ns=round(1e9 / rate),
            t_mono_ns=begins,
            t_utc=datetime.fromtimestamp(begins / 1e9, UTC),
            units=dict(
                zip(
                    settings["scope-channels"],
                    settings["scope-channel_units"],
                    strict=True,
                )
            ),
        )
        rows += block_to_rows(block)
    assert len(rows) == 3 * 2 * 5
    mine = [row for row in rows if row["channel"] == "b"]
    assert [row["value"] for row in mine] == list(range(1_000_000, 1_000_015))
    assert [row["sample_index"] for row in mine] == list(range(15))
    # A microsecond apart, from block to block too.
    epoch = CountingSource.EPOCH
    assert [row["t_mono_ns"] - epoch for row in mine] == list(range(0, 15_000, 1000))
    assert {row["unit"] for row in rows} == {"count"}
