"""Promise 2 with ophyd's simulated devices and every plan that bluesky comes with."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from cycler import cycler
from ophyd_async.core import (
    Array1D,
    StandardReadable,
    StrictEnum,
    Table,
    init_devices,
    soft_signal_rw,
)

hw = pytest.importorskip("ophyd.sim").hw


class Mode(StrictEnum):
    A = "a b"
    B = "é"


class Rows(Table):
    x: Array1D[np.float64]
    n: Array1D[np.int32]


@pytest.fixture
def sim(tmp_path) -> SimpleNamespace:
    tmp_path.joinpath("ophyd").mkdir()
    return hw(save_path=str(tmp_path / "ophyd"))


PLANS: dict[str, Any] = {
    "count": lambda s: bp.count([s.det, s.rand, s.noisy_det], 3, delay=0.001),
    "scan": lambda s: bp.scan([s.det], s.motor, -1, 1, 3),
    "scan of two": lambda s: bp.scan([s.det4], s.motor1, -1, 1, s.motor2, 0, 1, 3),
    "rel_scan": lambda s: bp.rel_scan([s.det], s.motor, -1, 1, 3),
    "list_scan": lambda s: bp.list_scan([s.det], s.motor, [0, 2.5, -1]),
    "rel_list_scan": lambda s: bp.rel_list_scan([s.det], s.motor, [0, 1]),
    "log_scan": lambda s: bp.log_scan([s.det], s.motor, 0.1, 10, 3),
    "rel_log_scan": lambda s: bp.rel_log_scan([s.det], s.motor, 0.1, 10, 3),
    "list_grid_scan": lambda s: bp.list_grid_scan(
        [s.det4], s.motor1, [0, 1], s.motor2, [2, 3, 5]
    ),
    "rel_list_grid_scan": lambda s: bp.rel_list_grid_scan(
        [s.det4], s.motor1, [0, 1], s.motor2, [2, 3], snake_axes=True
    ),
    "grid_scan": lambda s: bp.grid_scan(
        [s.det4], s.motor1, 0, 1, 2, s.motor2, 0, 1, 3, snake_axes=[s.motor2]
    ),
    "rel_grid_scan": lambda s: bp.rel_grid_scan(
        [s.det4], s.motor1, 0, 1, 2, s.motor2, 0, 1, 2
    ),
    "adaptive_scan": lambda s: bp.adaptive_scan(
        [s.det], "det", s.motor, -2, 2, 0.1, 1, 0.2, True
    ),
    "rel_adaptive_scan": lambda s: bp.rel_adaptive_scan(
        [s.det], "det", s.motor, -1, 1, 0.2, 1, 0.2, False
    ),
    "tune_centroid": lambda s: bp.tune_centroid(
        [s.det], "det", s.motor, -1, 1, 0.1, 3, step_factor=2
    ),
    "spiral": lambda s: bp.spiral([s.det4], s.motor1, s.motor2, 0, 0, 1, 1, 0.5, 6),
    "spiral_fermat": lambda s: bp.spiral_fermat(
        [s.det4], s.motor1, s.motor2, 0, 0, 1, 1, 0.2, 1
    ),
    "spiral_square": lambda s: bp.spiral_square(
        [s.det4], s.motor1, s.motor2, 0, 0, 1, 1, 3, 3
    ),
    "rel_spiral": lambda s: bp.rel_spiral([s.det4], s.motor1, s.motor2, 1, 1, 0.5, 6),
    "rel_spiral_fermat": lambda s: bp.rel_spiral_fermat(
        [s.det4], s.motor1, s.motor2, 1, 1, 0.2, 1
    ),
    "rel_spiral_square": lambda s: bp.rel_spiral_square(
        [s.det4], s.motor1, s.motor2, 1, 1, 3, 3
    ),
    "scan_nd": lambda s: bp.scan_nd(
        [s.det4], cycler(s.motor1, [0, 1]) * cycler(s.motor2, [2, 3])
    ),
    "x2x_scan": lambda s: bp.x2x_scan([s.det4], s.motor1, s.motor2, 0, 1, 3),
    "ramp_plan": lambda s: bp.ramp_plan(
        bps.abs_set(s.motor, 1), s.motor, _read(s.det), timeout=5, period=0.001
    ),
    "configured": lambda s: bp.count([s.det_with_conf, s.det_with_count_time], 2),
    "areas": lambda s: bp.count([s.ab_det, s.direct_img, s.direct_img_list], 2),
    "kinds": lambda s: bp.count([s.bool_sig, s.sig, s.signal], 2),
    "pseudo": lambda s: bp.count([s.pseudo1x3, s.pseudo3x3], 2),
    "odd hints": lambda s: bp.scan([s.det], s.motor_empty_hints1, 0, 1, 3),
}


def _read(detector: Any) -> Any:
    def inner() -> Any:
        yield from bps.trigger_and_read([detector])

    return inner


@pytest.mark.parametrize("plan", PLANS)
def test_plans(recorded, sim, plan) -> None:
    run = recorded(PLANS[plan](sim))
    assert run.exit_status == "success"
    dataset = run.primary.read()
    assert dataset.sizes["time"] == run.primary.num_events > 1
    declared = run.stop["num_events"]
    assert declared == {name: run[name].num_events for name in run}


def test_every_plan_is_there() -> None:
    """A plan that bluesky gains wants a line above."""
    import inspect

    known = {word for name in PLANS for word in [name.split()[0]]} | {"fly", "tweak"}
    plans = {
        name
        for name, value in vars(bp).items()
        if inspect.isgeneratorfunction(inspect.unwrap(value))
        and value.__module__ == "bluesky.plans"
        and value.__name__ == name
        and not name.startswith(("_", "relative_", "inner_", "outer_"))
        and "rel_inner" not in name
    }
    assert plans <= known


def test_legacy_assets_of_ophyd(recorded, sim) -> None:
    """Resources and datums of a file-writing detector, staged once for two runs."""
    run = recorded(bp.count([sim.img], 3))
    names = Counter(name for name, _ in run.documents())
    assert names["resource"] >= 1
    assert names["datum"] + names["datum_page"] == 3
    (root,) = {doc["root"] for name, doc in run.documents() if name == "resource"}
    assert root == str(recorded.beamtime.path.parent / "ophyd")
    assert all(isinstance(value, str) for value in run.primary.read()["img"].values)


@pytest.mark.parametrize("name", ["flyer1", "flyer2", "trivial_flyer"])
def test_flyers_of_ophyd(recorded, sim, name) -> None:
    run = recorded(bp.fly([getattr(sim, name)]))
    (stream,) = run.streams.values()
    assert stream.num_events == len(stream.read()["seq_num"]) > 0


def test_a_flyer_that_collects_assets(recorded, sim) -> None:
    flyer = sim.new_trivial_flyer
    run = recorded(bp.fly([flyer]))
    assert run.complete


def test_monitors_and_baseline_during_a_scan(recorded, sim) -> None:
    supplemental = bpp.SupplementalData(
        baseline=[sim.det1, sim.motor2], monitors=[sim.rand], flyers=[sim.flyer1]
    )
    recorded.RE.preprocessors.append(supplemental)
    run = recorded(bp.scan([sim.det], sim.motor, 0, 1, 4))
    assert {"primary", "baseline", "rand_monitor"} <= set(run)
    assert run.baseline.num_events == 2
    assert run.num_events == sum(stream.num_events for stream in run.streams.values())


def test_configuration_that_changes_describes_a_stream_anew(recorded, sim) -> None:
    def plan() -> Any:
        yield from bps.open_run()
        for value in (1, 2):
            yield from bps.configure(sim.det_with_conf, {"c": value})
            yield from bps.trigger_and_read([sim.det_with_conf])
        yield from bps.close_run()

    run = recorded(plan())
    assert len(run.primary.descriptors) == 2
    assert run.primary.read().sizes["time"] == run.primary.num_events == 2


def test_runs_of_two_keys_at_the_same_time(recorded, sim) -> None:
    def point(key: str, detector: Any) -> Any:
        reading = bps.trigger_and_read([detector])
        yield from bpp.set_run_key_wrapper(reading, key)

    def plan() -> Any:
        for key in ("a", "b"):
            yield from bpp.set_run_key_wrapper(bps.open_run({"plan_name": key}), key)
        for _ in range(3):
            yield from point("a", sim.det1)
            yield from point("b", sim.det2)
        for key in ("a", "b"):
            yield from bpp.set_run_key_wrapper(bps.close_run(), key)

    recorded(plan())
    assert [run.num_events for run in recorded.beamtime] == [3, 3]
    assert [next(iter(run.primary)) for run in recorded.beamtime] == ["det2", "det1"]


def test_soft_signals_of_every_type(recorded) -> None:
    """ophyd-async signals: arrays, enums, tables of one event and the next."""

    class Everything(StandardReadable):
        def __init__(self, name: str = "") -> None:
            with self.add_children_as_readables():
                self.number = soft_signal_rw(float, float("nan"))
                self.count = soft_signal_rw(int, 2**53 + 1)
                self.flag = soft_signal_rw(bool, True)
                self.text = soft_signal_rw(str, "é\n")
                self.mode = soft_signal_rw(Mode, Mode.B)
                self.wave = soft_signal_rw(Array1D[np.uint16], np.arange(3, dtype="u2"))
                self.table = soft_signal_rw(
                    Rows, Rows(x=np.zeros(2), n=np.ones(2, np.int32))
                )
            super().__init__(name)

    with init_devices():
        device = Everything("all")
    run = recorded(bp.count([device], 2))
    dataset = run.primary.read()
    assert np.isnan(dataset["all-number"]).all()
    assert dataset["all-count"].values.tolist() == [2**53 + 1] * 2
    assert dataset["all-wave"].values.tolist() == [[0, 1, 2]] * 2
    assert dataset["all-table"].values[1]["n"].tolist() == [1, 1]

    def longer() -> Any:
        yield from bps.open_run()
        for length in (2, 2, 5, 2):
            values = np.arange(length, dtype="u2")
            yield from bps.abs_set(device.wave, values, wait=True)
            yield from bps.trigger_and_read([device])
        yield from bps.close_run()

    run = recorded(longer())
    waves = [len(value) for value in run.primary.read()["all-wave"].values]
    assert waves == [2, 2, 5, 2]
    names = {
        path.name for path in (recorded.beamtime.path.parent / "x.zarr").rglob("all*")
    }
    assert {"all-wave", "all-wave.1"} <= names
