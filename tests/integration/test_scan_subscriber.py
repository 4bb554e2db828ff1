"""Scans of a RunEngine as N-dimensional arrays, while they run (L-27)."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
import zarr
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted
from event_model import compose_run
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import Camera, SimCamera, SimCounter
from bluesky_beamtime.errors import (
    DocumentError,
    StorageError,
    StoreReadError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.plans import fly_frames, fly_scan, grid_frames
from bluesky_beamtime.recording import ScanSubscriber, scan_filling
from bluesky_beamtime.storage import ScanStorage
from tests.integration.conftest import NumberedSource
from tests.integration.test_recording_plans import Soft


class Maps:
    """A storage behind the RunEngine that a beamtime records."""

    def __init__(self, RE: Any, recorded: Any, folder: Path, **options: Any) -> None:
        self.recorded = recorded
        self.storage = ScanStorage(folder, "maps", "map")
        self.subscriber = ScanSubscriber(self.storage, end_timeout=100.0, **options)
        self.folder = folder / "maps"
        RE.subscribe(self.subscriber)

    def saved(self) -> dict[str, Any]:
        """Return the files by name, read with plain zarr-python."""
        assert self.storage.wait(100)
        return {
            path.name: zarr.open_group(path, mode="r")
            for path in sorted(self.folder.iterdir())
        }

    def newest(self) -> Any:
        saved = self.saved()
        return saved[max(saved, key=lambda name: int(name[4:-5]))]

    def take(self, plan: Any, field: str) -> Any:
        """Run a plan, compare the array with the grid of the recorded run."""
        run = self.recorded(plan)
        same_as_grid(self.newest(), run, field)
        return self.newest()


def same_as_grid(group: Any, run: Any, field: str) -> None:
    grid = run.primary.to_grid()
    expected = grid[field]
    tags = group.attrs["tags"]
    assert tags["dims"] == list(expected.dims)
    assert tags["uid"] == run.uid
    data, mask = group["data"][...], group["mask"][...]
    np.testing.assert_array_equal(mask, grid["measured"].values)
    assert data.shape == expected.shape
    if mask.all():
        assert data.dtype == expected.dtype
    np.testing.assert_array_equal(data[mask], expected.values[mask])
    for number, name in enumerate(grid["measured"].dims):
        np.testing.assert_array_equal(group[f"axis_{number}"][...], grid[name].values)


@pytest.fixture
def maps(RE: Any, recorded: Any, tmp_path: Path) -> Iterator[Callable[..., Maps]]:
    made: list[Maps] = []

    def make(**options: Any) -> Maps:
        made.append(Maps(RE, recorded, tmp_path / f"scans {len(made)}", **options))
        return made[-1]

    yield make
    for each in made:
        each.subscriber.close()
        assert each.storage.wait(100)


class Beamline:
    def __init__(self, recorded: Any) -> None:
        frames = recorded.beamtime.frames
        with init_devices():
            self.x, self.y = SimMotor("x", instant=True), SimMotor("y", instant=True)
            self.cam = SimCamera(frames, shape=(8, 9), exposure=0.001, name="cam")
            self.diode = SimCounter((self.x, self.y), exposure=0.001, name="diode")


@pytest.fixture
def bl(RE: Any, recorded: Any) -> Beamline:
    return Beamline(recorded)


GRIDS: dict[str, Any] = {
    "grid_scan": lambda d, x, y: bp.grid_scan(d, y, 0, 2, 3, x, -1, 1, 4),
    "snaked": lambda d, x, y: bp.grid_scan(d, y, 0, 2, 3, x, -1, 1, 4, snake_axes=True),
    "rel_grid_scan": lambda d, x, y: bp.rel_grid_scan(
        d, y, 0, 2, 3, x, -1, 1, 2, snake_axes=[x]
    ),
    "list_grid_scan": lambda d, x, y: bp.list_grid_scan(
        d, y, [0, 1, 5], x, [3, 4], snake_axes=True
    ),
    "grid_frames": lambda d, x, y: grid_frames(d, y, 0, 1, 2, x, 0, 1, 2),
}


@pytest.mark.parametrize("plan", GRIDS)
def test_grid_scan_makes_the_array_that_to_grid_makes(
    plan: str, RE: Any, maps: Any, bl: Beamline
) -> None:
    """L-27: frame axes behind scan axes, with coordinates; each run a file."""
    RE(bps.mv(bl.x, 0.5, bl.y, 2))
    mine = maps()
    for number in range(2):
        group = mine.take(GRIDS[plan]([bl.cam, bl.diode], bl.x, bl.y), "cam")
        assert group["data"].ndim == 4 and group["data"].dtype == np.uint16
        assert list(mine.saved()) == [f"map_{n}.zarr" for n in range(number + 1)]
    tags = group.attrs["tags"]
    assert tags["plan_name"] == plan.replace("snaked", "grid_scan")
    assert tags["exit_status"] == "success" and tags["field"] == "cam"
    assert tags["units"] == "counts" and tags["axis_units"] == ["mm", "mm"]
    assert mine.subscriber.error is None


def test_field_is_the_one_asked_for_or_the_first_number(
    maps: Any, bl: Beamline
) -> None:
    """L-27: that is no axis, hinted or not; of an image the scalar beside it."""
    first, asked = maps(), maps(field="diode")
    plan = GRIDS["snaked"]
    asked.take(plan([bl.cam, bl.diode], bl.x, bl.y), "diode")
    same_as_grid(first.newest(), first.recorded.beamtime[-1], "cam")
    first.take(plan([bl.diode], bl.x, bl.y), "diode")
    first.take(plan([Soft("soft", text=["a"], value=[1.5, 2.5])], bl.x, bl.y), "value")


@pytest.mark.parametrize("values", [[1.5, 2.5], [1 + 2j, 3j], [True, False], [3, 4]])
def test_values_that_are_not_what_was_declared_keep_their_type(
    values: list[Any], maps: Any, bl: Beamline
) -> None:
    """L-13, L-27: a device may call an integer what is none."""

    class Wrong(Soft):
        def describe(self) -> dict[str, Any]:
            return {"value": {"source": "s", "dtype": "integer", "shape": []}}

    mine = maps(field="value")
    run = mine.recorded(bp.count([Wrong("soft", value=values)], 2))
    data = mine.newest()["data"][...]
    assert data.tolist() == values and mine.subscriber.error is None
    assert data.dtype.kind == run.primary.read()["value"].dtype.kind


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 4)])
def test_arrays_of_any_rank_inside_events(
    shape: tuple[int, ...], maps: Any, bl: Beamline
) -> None:
    """L-27: also where the descriptor does not say their type."""
    values = [np.random.default_rng(n).normal(size=shape) for n in range(12)]
    soft = Soft("soft", value=[v if shape else float(v) for v in values])
    group = maps(field="value").take(
        bp.grid_scan([soft], bl.y, 0, 2, 3, bl.x, -1, 1, 4, snake_axes=True), "value"
    )
    assert group["data"].shape == (3, 4, *shape)


def test_several_frames_in_an_event(maps: Any, RE: Any, recorded: Any) -> None:
    """L-27: they are an axis of their own, behind those of the scan."""
    from ophyd_async.core import TriggerInfo

    with init_devices():
        cam = Camera(recorded.beamtime.frames, source=NumberedSource(), name="cam")
        x = SimMotor("x", instant=True)

    @bpp.stage_decorator([cam, x])
    @bpp.run_decorator(md={"shape": [3], "hints": {"dimensions": [[["x"], "primary"]]}})
    def plan() -> Any:
        info = TriggerInfo(number_of_events=1, exposures_per_collection=1,
                           collections_per_event=2)  # fmt: skip
        for step in range(3):
            yield from bps.prepare(cam, info, wait=True)
            yield from bps.mv(x, step)
            yield from bps.trigger_and_read([cam, x])

    group = maps().take(plan(), "cam")
    assert group["data"].shape == (3, 2, 6, 8)
    assert group["data"][:, :, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_frames_of_a_stock_detector_in_hdf5(
    maps: Any, RE: Any, recorded: Any, bl: Beamline
) -> None:
    """L-27: external frames through StreamDatums, whoever wrote them."""
    pytest.importorskip("h5py")
    from ophyd_async.sim import PatternGenerator, SimBlobDetector

    with init_devices():
        blob = SimBlobDetector(
            recorded.beamtime.path_provider, PatternGenerator(), name="blob"
        )
    group = maps().take(bp.scan([blob], bl.x, 0, 1, 3, md={"shape": [3]}), "blob")
    assert group["data"].ndim == 3 and group["data"][...].any()


@pytest.mark.parametrize("kind", ["scan", "list_scan"])
def test_scan_of_one_motor_has_its_positions_as_axis(
    kind: str, maps: Any, bl: Beamline
) -> None:
    """L-27: without a shape in the start document too."""
    plan = bp.scan([bl.cam], bl.x, -1, 1, 5)
    if kind == "list_scan":
        plan = bp.list_scan([bl.cam], bl.x, [4, 2, 7, 7, 1], bl.y, [0, 1, 2, 3, 4])
    mine = maps()
    run = mine.recorded(plan)
    group, data = mine.newest(), run.primary.read()
    np.testing.assert_array_equal(group["data"], data["cam"].values)
    assert group["axis_0"][...].tolist() == data["x"].values.tolist()
    assert group.attrs["tags"]["dims"] == ["x", "cam_y", "cam_x"]
    if kind == "list_scan":
        assert group.attrs["tags"]["positions"] == {"y": [0.0, 1.0, 2.0, 3.0, 4.0]}


def test_axes_of_a_growing_array_are_the_measured_ones(
    RE: Any, maps: Any, bl: Beamline
) -> None:
    """L-27: of a relative scan too, where the start document does not know them."""
    RE(bps.mv(bl.x, 100))
    mine = maps()
    seen: list[list[float]] = []

    def per_step(detectors: Any, motor: Any, step: float) -> Any:
        yield from bps.one_1d_step(detectors, motor, step)
        assert mine.subscriber.wait(60)
        group: Any = zarr.open_group(mine.storage.buffer, mode="r")
        seen.append(group["axis_0"][...].tolist())

    mine.recorded(bp.rel_scan([bl.diode], bl.x, -1, 1, 3, per_step=per_step))
    np.testing.assert_equal(
        seen, [[99, np.nan, np.nan], [99, 100, np.nan], [99, 100, 101]]
    )


def test_spiral_is_an_axis_of_points_with_positions_as_tags(
    maps: Any, bl: Beamline
) -> None:
    """L-27: what is no grid is not forced into one."""
    mine = maps()
    run = mine.recorded(bp.spiral([bl.diode], bl.x, bl.y, 0, 0, 1, 1, 0.5, 4))
    group, data = mine.newest(), run.primary.read()
    np.testing.assert_array_equal(group["data"], data["diode"].values)
    assert group["axis_0"][...].tolist() == list(range(len(data["diode"])))
    tags = group.attrs["tags"]
    assert tags["dims"] == ["point"]
    for motor in ("x", "y"):
        np.testing.assert_array_equal(tags["positions"][motor], data[motor].values)


@pytest.mark.parametrize("plan", [bp.spiral_square, bp.rel_spiral_square])
def test_square_spiral_is_an_axis_of_the_points_of_its_grid(
    plan: Any, RE: Any, maps: Any, bl: Beamline
) -> None:
    """L-27: which are where the motors were, as in a scan row by row."""
    RE(bps.mv(bl.x, 0.5, bl.y, 2))
    mine = maps(field="diode")
    around = (0, 0) if plan is bp.spiral_square else ()
    spiral = mine.recorded(plan([bl.diode], bl.x, bl.y, *around, 4, 3, 3, 4))
    group = mine.newest()
    assert group.attrs["tags"]["dims"] == ["point"] and group["mask"][...].all()
    grid = spiral.primary.to_grid()
    order = np.argsort(grid["seq_num"].values, axis=None)
    np.testing.assert_array_equal(group["data"], grid["diode"].values.flat[order])
    for motor in ("x", "y"):
        where = xr.broadcast(grid[motor], grid["diode"])[0].transpose("y", "x")
        np.testing.assert_allclose(
            group.attrs["tags"]["positions"][motor], where.values.flat[order]
        )
    x = np.linspace(-2, 2, 3) + (0 if around else 0.5)
    y = np.linspace(-1.5, 1.5, 4) + (0 if around else 2)
    rows = mine.recorded(bp.list_grid_scan([bl.diode], bl.y, list(y), bl.x, list(x)))
    expected = rows.primary.to_grid()
    for name in ("x", "y", "x_readback", "y_readback"):
        np.testing.assert_allclose(grid[name], expected[name])


@pytest.mark.parametrize("kind", ["scan", "grid_scan", "spiral_square"])
def test_more_points_than_there_were_to_be_are_told(
    kind: str, maps: Any, bl: Beamline
) -> None:
    """L-26, L-27: nothing says which of the events belong together."""

    def twice(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.move_per_step(step, pos_cache)
        for _ in range(2):
            yield from bps.trigger_and_read([*detectors, *step])

    plans: dict[str, Any] = {
        "scan": lambda: bp.scan([bl.diode], bl.x, 0, 1, 6, per_step=twice),
        "grid_scan": lambda: bp.grid_scan(
            [bl.diode], bl.y, 0, 1, 2, bl.x, 0, 2, 3, per_step=twice
        ),
        "spiral_square": lambda: bp.spiral_square(
            [bl.diode], bl.x, bl.y, 0, 0, 1, 2, 2, 3, per_step=twice
        ),
    }
    mine = maps(field="diode")
    run = mine.recorded(plans[kind]())
    told = "12 events for the 6 points"
    assert told in mine.newest().attrs["tags"]["problem"]
    with pytest.raises(DocumentError, match=told):
        mine.subscriber.close()
    if kind != "scan":
        with pytest.raises(DocumentError, match=told):
            run.primary.to_grid()


@pytest.mark.parametrize("kind", ["count", "fly_frames", "fly_scan", "soft"])
def test_runs_without_axes_have_times_or_positions(
    kind: str, maps: Any, bl: Beamline
) -> None:
    """L-27: of each frame where they were told, else of each event."""
    plans: dict[str, Any] = {
        "count": lambda: bp.count([bl.cam], 5),
        "fly_frames": lambda: fly_frames([bl.cam], 5, exposure=0.001),
        "fly_scan": lambda: fly_scan([bl.cam], bl.x, 0, 0.1, 5, exposure=0.001),
        "soft": lambda: bp.count([Soft("soft", value=[1.0, 2.0])], 5),
    }
    mine = maps(field="value" if kind == "soft" else None)
    run = mine.recorded(plans[kind]())
    group, data = mine.newest(), run.primary.read()
    values = data["value" if kind == "soft" else "cam"].values
    np.testing.assert_array_equal(group["data"], values)
    axis = {"soft": "time", "fly_scan": "cam_x"}.get(kind, "cam_time")
    np.testing.assert_array_equal(group["axis_0"], data[axis].values)
    assert group["mask"][...].tolist() == [True] * 5


READER = """
import json, sys, zarr
group = zarr.open_group(sys.argv[1], mode="r")
mask = group["mask"][...]
print(json.dumps({
    "mask": mask.tolist(), "values": group["data"][...][mask][:, 0, 0].tolist(),
    "x": group["axis_1"][...].tolist(), "tags": group.attrs["tags"],
}))
"""


def read_elsewhere(path: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)],
        capture_output=True,
        check=True,
        text=True,
        timeout=100,
    )
    return json.loads(done.stdout)


def test_array_can_be_read_by_another_process_while_it_grows(
    RE: Any, recorded: Any, maps: Any, eventually: Any
) -> None:
    """L-27: with axes and tags, and a mask of what is there."""
    with init_devices():
        cam = Camera(recorded.beamtime.frames, source=NumberedSource(), name="cam")
        x, y = SimMotor("x", instant=True), SimMotor("y", instant=True)
    mine = maps()
    gate, arrived = threading.Event(), threading.Event()

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        if step[y] == 1 and step[x] == 1:
            arrived.set()
            yield from bps.wait_for([lambda: _until(gate)])
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bp.grid_scan(
        [cam], y, 0, 2, 3, x, 0, 2, 3, snake_axes=True, per_step=per_step
    )
    runner = threading.Thread(target=RE, args=(plan,), daemon=True)
    runner.start()
    try:
        assert arrived.wait(60)
        assert mine.subscriber.wait(60)
        assert (mine.storage.reserved, mine.storage.saving) == (1, True)
        found = read_elsewhere(mine.storage.buffer)
    finally:
        gate.set()
        runner.join(100)
    # The second row runs backwards, and has one point.
    assert found["mask"] == [[True] * 3, [False, False, True], [False] * 3]
    assert found["values"] == [0, 1, 2, 3]
    assert found["x"] == [0, 1, 2]
    assert found["tags"]["plan_name"] == "grid_scan"
    recorded.check()
    same_as_grid(mine.newest(), recorded.beamtime[-1], "cam")


async def _until(gate: threading.Event) -> None:
    import asyncio

    await asyncio.to_thread(gate.wait, 60)


@pytest.mark.parametrize("verb", ["stop", "abort", "halt"])
def test_partial_scan_is_saved_with_its_mask(
    verb: str, RE: Any, maps: Any, bl: Beamline
) -> None:
    """L-26, L-27: whatever ends it; the axes are those that were planned."""
    mine = maps()

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        if step[bl.y] == 1 and step[bl.x] == 2:
            yield from bps.pause()
        yield from bps.one_nd_step(detectors, step, pos_cache)

    plan = bp.grid_scan([bl.cam], bl.y, 0, 2, 3, bl.x, 0, 3, 4, per_step=per_step)
    with pytest.raises(RunEngineInterrupted):
        RE(plan)
    getattr(RE, verb)()
    group = mine.newest()
    same_as_grid(group, mine.recorded.beamtime[-1], "cam")
    assert int(np.sum(group["mask"])) == 6
    assert group["axis_0"][...].tolist() == [0, 1, 2]
    assert group.attrs["tags"]["exit_status"] == {"stop": "success"}.get(verb, "abort")


def test_point_that_is_taken_again_counts_as_the_last_time(
    RE: Any, maps: Any, bl: Beamline
) -> None:
    """L-16, L-18, L-27: a rewind repeats a sequence number, at the last point too."""
    values = [float(n) for n in range(100)]
    soft = Soft("soft", value=values)
    mine = maps(field="value")
    pauses = iter([True, False, False, True])

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.checkpoint()
        yield from bps.mv(*[part for pair in step.items() for part in pair])
        yield from bps.trigger_and_read([*detectors, bl.x, bl.y])
        if step[bl.x] == 1 and next(pauses, False):
            yield from bps.pause()

    plan = bp.grid_scan(
        [soft], bl.y, 0, 1, 2, bl.x, 0, 1, 2, snake_axes=True, per_step=per_step
    )
    for action in (lambda: RE(plan), RE.resume):
        try:
            action()
        except RunEngineInterrupted:
            continue
    while RE.state == "paused":
        try:
            RE.resume()
        except RunEngineInterrupted:
            continue
    run = mine.recorded.check()
    seq_nums = [doc["seq_num"] for name, doc in run.documents() if name == "event"]
    assert len(seq_nums) > 4 and sorted(set(seq_nums)) == [1, 2, 3, 4]
    same_as_grid(mine.newest(), run, "value")
    assert mine.subscriber.error is None


def test_runs_that_overlap_are_left_out_with_a_word(
    RE: Any, maps: Any, bl: Beamline, caplog: pytest.LogCaptureFixture
) -> None:
    """L-27: one storage takes one scan at a time; the first is not disturbed."""
    mine = maps(field="value")

    softs = {"outer": Soft("soft", value=[1.0]), "inner": Soft("soft", value=[2.0])}

    def plan() -> Any:
        md = {"num_points": 3}
        for key in ("outer", "inner"):
            yield from bpp.set_run_key_wrapper(bps.open_run({**md, "who": key}), key)
        for _ in range(3):
            for key in ("outer", "inner"):
                read = bps.trigger_and_read([softs[key]])
                yield from bpp.set_run_key_wrapper(read, key)
        for key in ("outer", "inner"):
            yield from bpp.set_run_key_wrapper(bps.close_run(), key)

    with caplog.at_level(logging.WARNING):
        RE(plan())
    (group,) = mine.saved().values()
    assert group["data"][...].tolist() == [1.0] * 3
    assert "a storage and a subscriber each" in caplog.text
    mine.recorded.check()
    # The next one is taken again.
    mine.recorded(bp.count([Soft("soft", value=[3.0])], 2))
    assert mine.newest()["data"][...].tolist() == [3.0, 3.0]
    with pytest.raises(StoreStateError, match="came while plan 1 went on"):
        mine.subscriber.close()


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (lambda bl: bp.count([Soft("soft", text=["a"])], 2), "hints at an image"),
        (
            lambda bl: bpp.run_wrapper(bps.trigger_and_read([bl.diode])),
            "how many points",
        ),
        (
            lambda bl: bp.adaptive_scan(
                [bl.diode], "diode", bl.x, 0, 1, 0.3, 0.6, 1e9, False
            ),
            "how many points",
        ),
    ],
)
def test_run_that_makes_no_array_is_left_out_with_a_reason(
    plan: Any, why: str, RE: Any, maps: Any, bl: Beamline, caplog: Any
) -> None:
    """L-27: the plan goes on, no number is used."""
    mine = maps()
    with caplog.at_level(logging.WARNING):
        mine.recorded(plan(bl))
    assert why in caplog.text
    assert mine.storage.getNumber() == 0 and mine.subscriber.error is None


def test_tags_of_listeners_go_with_the_run(maps: Any, bl: Beamline) -> None:
    """L-11, L-12, L-27."""
    mine = maps()

    def add(tags: dict[str, Any]) -> None:
        tags["beam"] = 8.9

    mine.storage.tagRequest.connect(add)
    mine.recorded(bp.scan([bl.diode], bl.x, 0, 1, 2, md={"sample": "LaB6"}))
    tags = mine.newest().attrs["tags"]
    assert tags["beam"] == 8.9 and tags["sample"] == "LaB6"
    assert tags["scan_id"] == mine.recorded.beamtime[-1].scan_id


def test_switched_off_nothing_is_reserved(maps: Any, bl: Beamline) -> None:
    """L-06, L-14, L-27."""
    mine = maps()
    mine.storage.enabled = False
    mine.recorded(bp.scan([bl.diode], bl.x, 0, 1, 2))
    assert not mine.folder.exists() and mine.subscriber.error is None
    mine.storage.enabled = True
    mine.recorded(bp.scan([bl.diode], bl.x, 0, 1, 2))
    assert list(mine.saved()) == ["map_0.zarr"]


# ------------------------------------------------------------------- what goes wrong


def feed(subscriber: ScanSubscriber, points: int, arrays: dict[int, Any]) -> str:
    """Emit a run whose frames lie where `arrays` says, by the StreamDatum's number."""
    run = compose_run(metadata={"num_points": points})
    subscriber("start", run.start_doc)
    key = {"dtype": "array", "dtype_numpy": "<u2", "shape": [2, 3], "source": "s"}
    descriptor = run.compose_descriptor(
        name="primary",
        data_keys={"cam": {**key, "external": "STREAM:"}},
        hints={"d": {"fields": ["cam"]}},
        object_keys={"d": ["cam"]},
    )
    subscriber("descriptor", descriptor.descriptor_doc)
    bundle = run.compose_stream_resource(
        data_key="cam", mimetype="application/x-zarr", uri="file://localhost/x",
        parameters={},
    )  # fmt: skip
    subscriber("stream_resource", bundle.stream_resource_doc)
    for number in range(points):
        indices = {"start": number, "stop": number + 1}
        seq_nums = {"start": number + 1, "stop": number + 2}
        datum = bundle.compose_stream_datum(indices, seq_nums)
        datum["descriptor"] = descriptor.descriptor_doc["uid"]
        subscriber("stream_datum", datum)
        assert subscriber.wait(60)
        arrays.get(number, lambda: None)()
    subscriber("stop", run.compose_stop())
    return run.start_doc["uid"]


class Frames:
    """An array that cannot be read as long as it is away."""

    shape, dtype = (4, 2, 3), np.dtype("<u2")

    def __init__(self) -> None:
        self.away = False

    def __getitem__(self, key: slice) -> Any:
        if self.away:
            raise StoreReadError("it is away")
        return np.full((key.stop - key.start, 2, 3), key.start, self.dtype)


def test_what_could_not_be_read_is_tried_again_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L-21, L-27: nothing is raised into the plan; it is logged."""
    frames = Frames()
    storage = ScanStorage(tmp_path, format="npz")
    with ScanSubscriber(storage, open_array=lambda _: frames) as subscriber:
        moments = {
            0: lambda: setattr(frames, "away", True),
            2: lambda: setattr(frames, "away", False),
        }
        feed(subscriber, 4, moments)
    assert storage.wait(60) and "not taken yet" in caplog.text
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["data"][:, 0, 0].tolist() == [0, 1, 2, 3] and file["mask"].all()


def test_no_number_of_frames_that_come_late_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-21, L-27: a file that can only be read at the end of its run."""
    monkeypatch.setattr(scan_filling, "_MOST_MISSED_EVENTS", 1)
    frames = Frames()
    frames.away = True
    storage = ScanStorage(tmp_path, format="npz")
    with ScanSubscriber(storage, open_array=lambda _: frames) as subscriber:
        feed(subscriber, 4, {3: lambda: setattr(frames, "away", False)})
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["data"][:, 0, 0].tolist() == [0, 1, 2, 3] and file["mask"].all()


def test_events_that_were_not_kept_for_the_end_are_told_by_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-21, L-26, L-27: the others are in the array."""
    monkeypatch.setattr(scan_filling, "_MOST_MISSED_EVENTS", 2)
    storage = ScanStorage(tmp_path, format="npz")
    subscriber = ScanSubscriber(storage)
    run = compose_run(metadata={"num_points": 5})
    keys = {"s": {"dtype": "number", "shape": [], "source": "s"}}
    descriptor = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"s": {"fields": ["s"]}}
    )
    subscriber("start", run.start_doc)
    subscriber("descriptor", descriptor.descriptor_doc)
    for number in range(5):
        event = descriptor.compose_event(data={"s": number}, timestamps={"s": 0.0})
        with monkeypatch.context() as broken:
            if number:
                error = StoreWriteError("the disk is full")
                broken.setattr(storage, "update", Mock(side_effect=error))
            subscriber("event", event)
            assert subscriber.wait(60)
    subscriber("stop", run.compose_stop())
    with pytest.raises(StorageError, match="2 events of run came after too many"):
        subscriber.close()
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["mask"].tolist() == [True, True, True, False, False]


def test_what_is_tried_again_does_not_replace_what_was_measured_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-16, L-27: a point that failed, and that the plan has taken anew."""
    storage = ScanStorage(tmp_path, format="npz")
    run = compose_run(metadata={"num_points": 2})
    keys = {"s": {"dtype": "number", "shape": [], "source": "s"}}
    descriptor = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"s": {"fields": ["s"]}}
    )
    error = StoreWriteError("the disk is full")
    with ScanSubscriber(storage) as subscriber:
        subscriber("start", run.start_doc)
        subscriber("descriptor", descriptor.descriptor_doc)
        for value, number in ((1.0, 1), (-9.0, 2), (2.0, 2)):
            event = descriptor.compose_event(
                data={"s": value}, timestamps={"s": 0.0}, seq_num=number, time=value
            )
            with monkeypatch.context() as broken:
                if value < 0:
                    broken.setattr(storage, "update", Mock(side_effect=error))
                subscriber("event", event)
                assert subscriber.wait(60)
        subscriber("stop", run.compose_stop())
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["data"].tolist() == file["axis_0"].tolist() == [1.0, 2.0]


def test_what_is_missing_in_the_end_is_told_by_close(tmp_path: Path) -> None:
    """L-21, L-26, L-27: the points that are there are saved."""
    frames = Frames()
    storage = ScanStorage(tmp_path, format="npz")
    subscriber = ScanSubscriber(storage, open_array=lambda _: frames)
    feed(subscriber, 4, {1: lambda: setattr(frames, "away", True)})
    with pytest.raises(StoreReadError, match="away"):
        subscriber.close()
    subscriber.close()
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["mask"].tolist() == [True, True, False, False]


def test_array_that_somebody_else_saves_is_not_written_to_any_more(
    tmp_path: Path,
) -> None:
    """L-15, L-27: nor is what they reserve instead."""
    storage = ScanStorage(tmp_path, format="npz")
    subscriber = ScanSubscriber(storage, open_array=lambda _: Frames())
    feed(subscriber, 4, {1: lambda: storage.reserve((4, 2, 3))})
    with pytest.raises(StoreStateError, match="saved or replaced"):
        subscriber.close()
    storage.save()
    assert storage.wait(60)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["data_0.npz"]


def test_run_without_an_end_is_saved_by_close(tmp_path: Path) -> None:
    """L-26, L-27."""
    storage = ScanStorage(tmp_path, format="npz")
    run = compose_run(metadata={"num_points": 3})
    keys = {"s": {"dtype": "number", "shape": [], "source": "s"}}
    descriptor = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"s": {"fields": ["s"]}}
    )
    with ScanSubscriber(storage) as subscriber:
        subscriber("start", run.start_doc)
        subscriber("descriptor", descriptor.descriptor_doc)
        page = descriptor.compose_event_page(
            data={"s": [1.5, 2.5]},
            timestamps={"s": [0.0, 0.0]},
            seq_num=[1, 2],
            time=[10.0, 11.0],
        )
        subscriber("event_page", page)
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        assert file["data"][:2].tolist() == [1.5, 2.5]
        assert file["mask"].tolist() == [True, True, False]
        assert file["axis_0"][:2].tolist() == [10.0, 11.0]


def test_masked_values_are_those_that_a_beamtime_stores(tmp_path: Path) -> None:
    """L-27: NaN, not the number behind the mask."""
    storage = ScanStorage(tmp_path, format="npz")
    run = compose_run(metadata={"num_points": 2})
    keys = {"s": {"dtype": "array", "shape": [2], "source": "s"}}
    descriptor = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"s": {"fields": ["s"]}}
    )
    with ScanSubscriber(storage) as subscriber:
        subscriber("start", run.start_doc)
        subscriber("descriptor", descriptor.descriptor_doc)
        for mask in ([False, True], [False, False]):
            data = {"s": np.ma.array([1.0, 999.0], mask=mask)}
            event = descriptor.compose_event(
                data=data, timestamps={"s": 0.0}, validate=False
            )
            subscriber("event", event)
        subscriber("stop", run.compose_stop())
    assert storage.wait(60)
    with np.load(tmp_path / "folder/data_0.npz") as file:
        np.testing.assert_array_equal(file["data"], [[1, np.nan], [1, 999]])


def test_plan_goes_on_when_it_is_closed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-21, L-27: also with more points than may wait."""
    storage = ScanStorage(tmp_path, format="npz")
    saving, go_on = threading.Event(), threading.Event()
    save = storage.save

    def slow(*args: Any, **options: Any) -> None:
        if options:
            saving.set()
            assert go_on.wait(100)
        save(*args, **options)

    monkeypatch.setattr(storage, "save", slow)
    subscriber = ScanSubscriber(storage)
    run = compose_run(metadata={"num_points": 1000})
    keys = {"s": {"dtype": "number", "shape": [], "source": "s"}}
    descriptor = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"s": {"fields": ["s"]}}
    )
    subscriber("start", run.start_doc)
    subscriber("descriptor", descriptor.descriptor_doc)
    emitted: list[int] = []

    def emit() -> None:
        for number in range(1000):
            event = descriptor.compose_event(data={"s": number}, timestamps={"s": 0.0})
            subscriber("event", event)
            emitted.append(number)
            if not number:
                closing.start()
                assert saving.wait(100)
        subscriber("stop", run.compose_stop())

    closing = threading.Thread(target=subscriber.close, daemon=True)
    plan = threading.Thread(target=emit, daemon=True)
    plan.start()
    assert saving.wait(100)
    until = time.monotonic() + 60
    while len(emitted) < 256 and time.monotonic() < until:
        time.sleep(0.01)
    go_on.set()
    closing.join(100)
    plan.join(100)
    assert not closing.is_alive() and not plan.is_alive()
    assert len(emitted) == 1000 and storage.wait(60)
