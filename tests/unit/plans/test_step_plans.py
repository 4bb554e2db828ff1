"""Plans that take frames point by point: their messages and metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import SimCamera, SimCounter
from bluesky_beamtime.plans import en_scan, grid_frames, snap
from bluesky_beamtime.storage import FrameStore


@pytest.fixture
def devices(RE: Any, tmp_path: Path) -> dict[str, Any]:
    store = FrameStore(tmp_path)
    with init_devices():
        x = SimMotor()
        y = SimMotor()
        cam = SimCamera(store, shape=(8, 9), exposure=0.001, motor=(x, y))
        det = SimCounter((x, y), exposure=0.001)
    return {"x": x, "y": y, "cam": cam, "det": det}


@pytest.fixture
def docs(RE: Any) -> list[tuple[str, dict[str, Any]]]:
    docs: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(lambda name, doc: docs.append((name, doc)))
    return docs


def named(docs: list[tuple[str, dict[str, Any]]], name: str) -> list[dict[str, Any]]:
    return [doc for kind, doc in docs if kind == name]


def test_snap(RE: Any, devices: dict[str, Any], docs: Any) -> None:
    (uid,) = RE(snap([devices["cam"], devices["det"]], md={"why": "test"}))
    (start,) = named(docs, "start")
    assert start["uid"] == uid
    assert start["plan_name"] == "snap"
    assert start["why"] == "test"
    assert start["detectors"] == ["cam", "det"]
    assert start["num_points"] == 1
    assert "exposure" not in start
    assert len(named(docs, "event")) == 1


def test_snap_with_an_exposure(RE: Any, devices: dict[str, Any], docs: Any) -> None:
    RE(snap([devices["cam"], devices["det"]], exposure=0.003))
    assert named(docs, "start")[0]["exposure"] == 0.003
    (descriptor,) = named(docs, "descriptor")
    configuration = descriptor["configuration"]
    assert configuration["cam"]["data"]["cam-exposure"] == 0.003
    # A counter cannot be prepared and keeps its own.
    assert configuration["det"]["data"]["det-exposure"] == 0.001


def test_grid(RE: Any, devices: dict[str, Any], docs: Any) -> None:
    x, y, cam, det = (devices[name] for name in ("x", "y", "cam", "det"))
    RE(grid_frames([cam, det], y, 0, 1, 2, x, -1, 1, 3, snake_axes=[x], exposure=0.002))
    (start,) = named(docs, "start")
    assert start["plan_name"] == "grid_frames"
    assert start["shape"] == [2, 3] or start["shape"] == (2, 3)
    assert start["num_points"] == 6
    assert start["motors"] == ("y", "x")
    points = [(e["data"]["y"], e["data"]["x"]) for e in named(docs, "event")]
    assert points == [(0, -1), (0, 0), (0, 1), (1, 1), (1, 0), (1, -1)]
    datums = named(docs, "stream_datum")
    assert len(datums) == 6 * 3
    assert start["hints"]["gridding"] == "rectilinear"


def test_en_scan(RE: Any, devices: dict[str, Any], docs: Any) -> None:
    RE(en_scan([devices["cam"]], devices["x"], 8.0, 9.0, 3))
    (start,) = named(docs, "start")
    assert start["plan_name"] == "en_scan"
    assert [e["data"]["x"] for e in named(docs, "event")] == [8.0, 8.5, 9.0]


@pytest.mark.parametrize("exposure", [0, -0.1, float("nan")])
def test_exposures_are_checked_before_the_run(
    RE: Any, devices: dict[str, Any], docs: Any, exposure: float
) -> None:
    cam, x = devices["cam"], devices["x"]
    for plan in (
        snap([cam], exposure=exposure),
        grid_frames([cam], x, 0, 1, 2, exposure=exposure),
        en_scan([cam], x, 0, 1, 2, exposure=exposure),
    ):
        with pytest.raises(ValueError, match="exposure"):
            RE(plan)
    assert docs == []


@pytest.mark.parametrize("args", [(), (1, 2), ("x", 0, 1, 0), ("x", 0, 1, 2.5)])
def test_grids_are_checked_before_the_run(
    RE: Any, devices: dict[str, Any], docs: Any, args: Any
) -> None:
    args = tuple(devices.get(arg, arg) for arg in args)
    with pytest.raises(ValueError):
        RE(grid_frames([devices["cam"]], *args))
    assert docs == []


@pytest.mark.parametrize("num", [0, -3, 1.5, None])
def test_numbers_are_checked_before_the_run(
    RE: Any, devices: dict[str, Any], docs: Any, num: Any
) -> None:
    with pytest.raises(ValueError):
        RE(en_scan([devices["cam"]], devices["x"], 0, 1, num))
    assert docs == []


def test_detectors_are_checked_before_the_run(
    RE: Any, devices: dict[str, Any], docs: Any
) -> None:
    cam, x = devices["cam"], devices["x"]
    for detectors in ([], cam, [cam, cam], [object()]):
        for plan in (
            snap(detectors),
            grid_frames(detectors, x, 0, 1, 2),
            en_scan(detectors, x, 0, 1, 2),
        ):
            with pytest.raises(ValueError):
                RE(plan)
    assert docs == []
