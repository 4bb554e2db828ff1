"""Promise 2 with plans: what a RunEngine emits is what comes out of the file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from event_model import compose_resource
from ophyd_async.core import init_devices, soft_signal_rw
from ophyd_async.sim import PatternGenerator, SimMotor, SimPointDetector

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera


class Soft:
    """Readings that are there at once, one after the other from lists."""

    parent = None

    def __init__(self, name: str, **values: Any) -> None:
        self.name = name
        self._values = {key: itertools.cycle(each) for key, each in values.items()}
        self._first = {key: each[0] for key, each in values.items()}

    def describe(self) -> dict[str, Any]:
        return {key: _describe(value) for key, value in self._first.items()}

    def trigger(self) -> Any:
        return _done()

    def read(self) -> dict[str, Any]:
        now = time.time()
        return {
            key: {"value": next(values), "timestamp": now}
            for key, values in self._values.items()
        }


def _describe(value: Any) -> dict[str, Any]:
    if isinstance(value, (np.ndarray, list)):
        return {"source": "soft", "dtype": "array", "shape": list(np.shape(value))}
    kind = "string" if isinstance(value, str) else "number"
    return {"source": "soft", "dtype": kind, "shape": []}


@pytest.fixture
def motors(RE):
    with init_devices():
        m1, m2, m3 = (SimMotor(name=f"m{n}", instant=True) for n in (1, 2, 3))
    return m1, m2, m3


@pytest.fixture
def det(RE):
    with init_devices():
        det = SimPointDetector(PatternGenerator(), name="det")
    return det


def test_count(recorded, det) -> None:
    run = recorded(bp.count([det, Soft("s", s=[1.5])], 3), purpose="Zoë's test")
    assert run.plan_name == "count"
    assert run.start["purpose"] == "Zoë's test"
    assert run.sample.name == "LaB6"
    dataset = run.primary.read()
    assert dataset.sizes["time"] == 3
    assert dataset["s"].values.tolist() == [1.5] * 3
    assert dataset["det-channel-1-value"].dtype == np.int64


UNUSUAL = {
    "nan": [float("nan"), 1.0],
    "inf": [float("inf"), float("-inf")],
    "int": [1, -(2**63)],
    "big": [2**70, -(2**70)],
    "complex": [1 - 2j, complex("nan")],
    "text": ["", "é\0\n😀"],
    "dollar": ["$x", "null"],
    "npfloat": [np.float32(1.1), np.float64("nan")],
    "npint": [np.uint8(3), np.uint64(2**64 - 1)],
    "bool": [True, np.bool(False)],
    "listed": [[1, 2.5], [float("nan"), 3]],
    "nested": [[[1], [2]], [[3], [4]]],
    "wave": [np.arange(3.0), np.array([np.nan, np.inf, -0.0])],
    "image": [np.eye(3, dtype=">u2"), np.ones((3, 3), ">u2")],
    "volume": [np.zeros((2, 3, 4), np.int8), np.ones((2, 3, 4), np.int8)],
    "shapes": [np.zeros(2), np.zeros(3)],
    "dtypes": [np.zeros(2), np.zeros(2, np.int32)],
    "strings": [np.array(["a", "bc"]), np.array(["d"])],
    "empty": [np.zeros((0, 2)), np.zeros((0, 3))],
    "scalar": [np.array(1.5), np.array(2)],
}


def test_values_of_every_kind(recorded) -> None:
    run = recorded(bp.count([Soft("s", **UNUSUAL)], 5))
    dataset = run.primary.read()
    assert dataset["image"].dims == ("time", "image_y", "image_x")
    assert dataset["image"].dtype == np.uint16
    assert dataset["image"][:, 0, 1].values.tolist() == [0, 1, 0, 1, 0]
    assert dataset["nan"].values[1] == 1.0
    assert dataset["big"].values.tolist()[:2] == [2**70, -(2**70)]
    assert [value.shape for value in dataset["shapes"].values[:2]] == [(2,), (3,)]
    assert "wave" not in run.primary.to_pandas()


def test_metadata_of_every_kind(recorded) -> None:
    metadata = {
        "nan": float("nan"),
        "tuple": (1, (2, 3)),
        "$dollar": {"$float": 1},
        "array": np.arange(4),
        "none": None,
        "big": 2**80,
        "nested": {"a": {"b": [{"c": float("inf")}]}},
        "tags": ["night", "align"],
    }
    run = recorded(bp.count([Soft("s", s=[1])], 1, md=metadata))
    assert run.start["$dollar"] == {"$float": 1}
    assert run.tags == ["align", "night"]
    assert list(recorded.beamtime.search(tags="night")) == [run]


@pytest.mark.parametrize("snake", [False, True])
def test_grid_scan(recorded, motors, det, snake) -> None:
    m1, m2, m3 = motors
    soft = Soft("s", s=[1.0], img=[np.arange(6).reshape(2, 3)])
    run = recorded(
        bp.grid_scan(
            [det, soft], m1, 0, 1, 2, m2, 0, 2, 3, m3, 5, 8, 4, snake_axes=snake
        )
    )
    grid = run.primary.to_grid()
    assert grid["s"].dims == ("m1", "m2", "m3")
    assert grid["s"].shape == (2, 3, 4)
    for name, points in (("m1", [0, 1]), ("m2", [0, 1, 2]), ("m3", [5, 6, 7, 8])):
        np.testing.assert_allclose(grid[name], points)
        readback = grid[f"{name}_readback"]
        np.testing.assert_allclose(readback, grid[name].broadcast_like(readback))
    assert grid["img"].shape == (2, 3, 4, 2, 3)
    assert float(grid["img"].sum()) == 24 * 15


@pytest.mark.parametrize("snake", [False, True])
def test_list_grid_scan(recorded, motors, snake) -> None:
    m1, m2, _ = motors
    plan = bp.list_grid_scan(
        [Soft("s", s=[1.0])], m1, [0, 1, 5], m2, [2, 4], snake_axes=snake
    )
    grid = recorded(plan).primary.to_grid()
    np.testing.assert_allclose(grid["m1"], [0, 1, 5])
    np.testing.assert_allclose(grid["m2"], [2, 4])
    np.testing.assert_allclose(grid["m2_readback"], np.broadcast_to([2.0, 4.0], (3, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda d, m: bp.scan(d, m[0], 0, 1, 4),
        lambda d, m: bp.rel_scan(d, m[0], -1, 1, 3),
        lambda d, m: bp.list_scan(d, m[0], [0, 3, 1], m[1], [1, 2, 3]),
        lambda d, m: bp.log_scan(d, m[0], 1, 10, 3),
        lambda d, m: bp.spiral(d, m[0], m[1], 0, 0, 1, 1, 0.5, 6),
        lambda d, m: bp.adaptive_scan(d, "s", m[0], 0, 1, 0.2, 0.5, 0.5, False),
        lambda d, m: bp.x2x_scan(d, m[0], m[1], 0, 1, 3),
        lambda d, m: bp.scan_nd(d, _cycle(m)),
    ],
)
def test_other_plans(recorded, motors, det, make) -> None:
    run = recorded(make([det, Soft("s", s=[1.0, 2.0, 4.0])], motors))
    assert run.exit_status == "success"
    assert run.primary.read().sizes["time"] == run.primary.num_events > 1


def _cycle(motors: Any) -> Any:
    from cycler import cycler

    return cycler(motors[0], [1.0, 2.0]) * cycler(motors[1], [3.0, 4.0])


def test_baseline_and_monitors_are_streams_of_their_own(recorded, motors) -> None:
    m1, m2, _ = motors
    signal = soft_signal_rw(float, 0.0, name="signal")

    def plan() -> Any:
        for number in range(3):
            yield from bps.abs_set(signal, float(number), wait=True)
            yield from bps.trigger_and_read([m1])

    async def connect() -> None:
        await signal.connect()

    import asyncio

    asyncio.run_coroutine_threadsafe(connect(), recorded.RE.loop).result()
    supplemental = bpp.SupplementalData(baseline=[m2], monitors=[signal])
    recorded.RE.preprocessors.append(supplemental)
    run = recorded(bpp.run_wrapper(plan()))
    assert {"baseline", "primary", "signal_monitor"} == set(run.stream_names)
    assert run.baseline.num_events == 2
    assert run.signal_monitor.read()["signal"].values[-1] == 2.0
    assert run.num_events == sum(run[name].num_events for name in run)


def test_nested_and_interleaved_runs(recorded) -> None:
    inner_detector, outer_detector = Soft("i", i=[1, 2]), Soft("o", o=[3, 4])

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator(md={"plan_name": "inner"})
    def inner() -> Any:
        for _ in range(2):
            yield from bps.trigger_and_read([inner_detector])

    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator(md={"plan_name": "outer"})
    def outer() -> Any:
        for _ in range(2):
            yield from bps.trigger_and_read([outer_detector])
            yield from inner()

    recorded(outer())
    runs = list(recorded.beamtime)
    assert [run.plan_name for run in runs] == ["inner", "inner", "outer"]
    assert [run.scan_id for run in runs] == [3, 2, 1]
    assert [run.num_events for run in runs] == [2, 2, 2]


class Flyer:
    """Collects pages of events, as older flyers do."""

    name = "flyer"
    parent = None

    def kickoff(self) -> Any:
        return _done()

    def complete(self) -> Any:
        return _done()

    def describe_collect(self) -> dict[str, Any]:
        key = {"source": "flyer", "dtype": "number", "shape": []}
        return {"flown": {"position": key, "counts": key}}

    def collect(self) -> Iterator[dict[str, Any]]:
        for number in range(5):
            now = time.time()
            yield {
                "time": now,
                "data": {"position": number / 2, "counts": number},
                "timestamps": {"position": now, "counts": now},
            }


def _done() -> Any:
    from bluesky.protocols import Status

    class Done(Status):
        done = success = True

        def add_callback(self, callback: Any) -> None:
            callback(self)

        def exception(self, timeout: float | None = 0.0) -> None:
            return None

    return Done()


def test_flyers_emit_pages_and_events_come_out(recorded) -> None:
    run = recorded(bp.fly([Flyer()]))
    assert "event_page" in {name for name, _ in recorded.emitted}
    assert [name for name, _ in run.documents()].count("event") == 5
    dataset = run.flown.read()
    assert dataset["position"].values.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


class FileWriting:
    """Announces its frames with Resource and Datum, as ophyd's detectors do."""

    name = "tiff"
    parent = None

    def __init__(self, root: str) -> None:
        self._root = root
        self._assets: list[Any] = []
        self._resource: Any = None

    def stage(self) -> list[Any]:
        resource = compose_resource(
            spec="AD_TIFF", root=self._root, resource_path="a/b.tif", resource_kwargs={}
        )
        doc = dict(resource.resource_doc)
        doc.pop("run_start", None)
        self._resource = resource
        self._assets.append(("resource", doc))
        return [self]

    def unstage(self) -> list[Any]:
        return [self]

    def describe(self) -> dict[str, Any]:
        return {
            "tiff": {
                "source": "tiff",
                "dtype": "array",
                "shape": [3, 4],
                "external": "FILESTORE:",
            }
        }

    def read(self) -> dict[str, Any]:
        datum = self._resource.compose_datum(datum_kwargs={"point": 1})
        self._assets.append(("datum", datum))
        return {"tiff": {"value": datum["datum_id"], "timestamp": time.time()}}

    def collect_asset_docs(self) -> Iterator[Any]:
        assets, self._assets = self._assets, []
        yield from assets


def test_legacy_assets(recorded, tmp_path) -> None:
    run = recorded(bp.count([FileWriting(str(tmp_path / "tiffs"))], 3))
    names = [name for name, _ in run.documents()]
    assert names.count("resource") == 1
    assert names.count("datum") == 3
    values = run.primary.read()["tiff"].values
    assert [value.split("/")[-1] for value in values] == ["0", "1", "2"]


def test_a_pause_that_repeats_a_point(recorded) -> None:
    soft = Soft("s", s=list(range(10)))
    asked = []

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.checkpoint()
        for _ in range(3):
            yield from bps.create()
            yield from bps.read(soft)
            yield from bps.save()
            if len(asked) < 1:
                asked.append(1)
                yield from bps.pause()
        yield from bps.close_run()

    from bluesky import RunEngineInterrupted

    with pytest.raises(RunEngineInterrupted):
        recorded.RE(plan())
    recorded.RE.resume()
    run = recorded.check()
    seen = [doc["seq_num"] for name, doc in run.documents() if name == "event"]
    assert seen == [1, 1, 2, 3]
    dataset = run.primary.read()
    assert dataset["seq_num"].values.tolist() == [1, 2, 3]
    assert dataset["s"].values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("how", ["abort", "halt", "fail"])
def test_a_run_that_does_not_succeed(recorded, how) -> None:
    from bluesky import RunEngineInterrupted

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.trigger_and_read([Soft("s", s=[1])])
        if how == "fail":
            raise RuntimeError("the shutter is stuck")
        yield from bps.pause()
        yield from bps.close_run()

    with pytest.raises((RuntimeError, RunEngineInterrupted)):
        recorded.RE(plan())
    if how != "fail":
        getattr(recorded.RE, how)()
    run = recorded.check()
    assert run.exit_status == ("fail" if how == "fail" else "abort")
    if how == "fail":
        assert "shutter" in run.stop["reason"]
    assert run.primary.num_events == 1


def test_a_run_without_streams(recorded) -> None:
    run = recorded(bp.count([], 2))
    assert run.stream_names == []
    assert run.exit_status == "success"


def test_two_cameras_step_and_fly(recorded) -> None:
    from bluesky_beamtime.plans import fly_frames

    with init_devices():
        cam1 = SimCamera(recorded.beamtime.frames, name="cam1")
        cam2 = SimCamera(recorded.beamtime.frames, name="cam2")
    for plan in (
        bp.count([cam1, cam2], 4),
        fly_frames([cam1, cam2], 6, exposure=0.001),
    ):
        run = recorded(plan)
        dataset = run.primary.read()
        rows = dataset.sizes["time"]
        assert rows == (4 if run.plan_name == "count" else 6)
        for key in ("cam1", "cam2"):
            assert dataset[key].dims == ("time", f"{key}_y", f"{key}_x")
            assert dataset[key].shape[0] == rows
            assert f"{key}_time" in dataset.coords
            assert dataset[f"{key}_id"].shape == (rows,)
            assert int(dataset[key][-1].max()) > 0
            account = run.accounting[key]
            assert account["written"] == account["received"] == rows
        assert np.isfinite(dataset["time"]).all()
        folder = next(iter(run.accounting))
        assert folder in ("cam1", "cam2")
    names = {
        path.parent.name
        for path in (recorded.beamtime.path.parent / "x.zarr").rglob("cam1")
    }
    assert "count_00001" in names


def test_reading_while_the_run_goes_on(recorded, tmp_path) -> None:
    soft = Soft("s", s=[0, 1, 2, 3], img=[np.full((2, 2), n) for n in range(4)])
    seen: list[tuple[int, int, float]] = []

    def look(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            with Beamtime(tmp_path / "x.db", mode="r") as reader:
                run = reader[-1]
                dataset = run.primary.read()
                newest = float(dataset["img"][-1, 0, 0])
                seen.append((run.num_events, dataset.sizes["time"], newest))
                assert run.exit_status is None
                assert run.stop is None

    token = recorded.RE.subscribe(look)
    recorded(bp.count([soft], 4))
    recorded.RE.unsubscribe(token)
    assert seen == [(n + 1, n + 1, float(n)) for n in range(4)]
