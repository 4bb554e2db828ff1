"""What was recorded before, replayed as if a camera took it."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from ophyd_async.core import TriggerInfo, init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import ReplayCamera, SimCamera
from bluesky_beamtime.errors import SourceError
from bluesky_beamtime.plans import fly_frames, grid_frames

STACK = np.arange(40 * 6 * 5, dtype="u2").reshape(40, 6, 5)


@pytest.fixture
def replay(recorded: Any, tmp_path: Path) -> Any:
    def make(path: Any = None, **options: Any) -> ReplayCamera:
        if path is None:
            path = tmp_path / "last.npy"
            np.save(path, STACK)
        options.setdefault("rate", math.inf)
        with init_devices():
            cam = ReplayCamera(recorded.beamtime.frames, path, **options)
        return cam

    return make


def frames(run: Any) -> Any:
    return np.asarray(run.primary.read()["cam"])


def test_goes_on_where_it_stopped(recorded: Any, replay: Any) -> None:
    cam = replay()
    run = recorded(bp.count([cam], 3))
    np.testing.assert_array_equal(frames(run), STACK[:3])
    assert run.primary.read()["cam_id"].values.tolist() == [0, 1, 2]
    run = recorded(fly_frames([cam], 30))
    np.testing.assert_array_equal(frames(run), STACK[3:33])
    assert run.accounting["cam"]["dropped"] == 0
    assert cam.source.position == 33
    cam.rewind()
    run = recorded(bp.count([cam]))
    np.testing.assert_array_equal(frames(run), STACK[:1])
    (descriptor,) = (doc for name, doc in run.documents() if name == "descriptor")
    assert descriptor["data_keys"]["cam"]["source"] == "replay://last.npy"
    configuration = descriptor["configuration"]["cam"]["data"]
    assert configuration["cam-path"].endswith("last.npy")
    assert configuration["cam-rate"] == math.inf


def test_the_end(recorded: Any, replay: Any) -> None:
    cam = replay()
    recorded(fly_frames([cam], 35))
    with pytest.raises(FailedStatus) as caught:
        recorded(fly_frames([cam], 10))
    error = caught.value.__cause__
    assert isinstance(error, SourceError)
    assert "all 40 frames" in str(error) and "5 of 10" in str(error)
    assert "loop=True" in str(error)
    run = recorded.check()
    assert run.exit_status == "fail"
    # What was left of it is there.
    np.testing.assert_array_equal(frames(run), STACK[35:])
    # And it is still at its end.
    with pytest.raises(FailedStatus) as caught:
        recorded(bp.count([cam]))
    assert "0 of 1" in str(caught.value.__cause__)
    cam.rewind()
    assert recorded(bp.count([cam])).exit_status == "success"


def test_loop(recorded: Any, replay: Any) -> None:
    cam = replay(loop=True)
    run = recorded(fly_frames([cam], 95))
    expected = np.concatenate([STACK, STACK, STACK[:15]])
    np.testing.assert_array_equal(frames(run), expected)
    assert run.accounting["cam"] == {
        "expected": 95,
        "received": 95,
        "dropped": 0,
        "late": 0,
        "written": 95,
    }


def test_until_stopped(recorded: Any, replay: Any) -> None:
    cam = replay(rate=500, loop=True)

    def plan() -> Any:
        info = TriggerInfo(number_of_events=0)
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        yield from bps.sleep(0.3)
        yield from bps.complete(cam, wait=True)
        yield from bps.collect(cam, name="primary")

    run = recorded(bpp.stage_wrapper(bpp.run_wrapper(plan()), [cam]))
    found = frames(run)
    assert len(found) > 0
    expected = np.resize(STACK, found.shape)
    np.testing.assert_array_equal(found, expected)
    # What was read and not delivered is the next.
    run = recorded(bp.count([cam]))
    np.testing.assert_array_equal(frames(run)[0], STACK[len(found) % 40])


@pytest.mark.parametrize("options", [{"rate": 50}, {"rate": None}])
def test_rate(recorded: Any, replay: Any, options: Any) -> None:
    cam = replay(**options)
    run = recorded(fly_frames([cam], 20, exposure=0.02))
    times = run.primary.read()["cam_time"].values
    # Exactly on time, but for a machine that held it up.
    assert (np.diff(times) > 0.0199).all()
    assert times[-1] <= time.time()


def test_nonsense(recorded: Any, replay: Any, tmp_path: Path) -> None:
    for rate in (0, -1, math.nan):
        with pytest.raises(ValueError, match="a rate is a positive number"):
            replay(rate=rate)
    with pytest.raises(SourceError, match="nothing to replay"):
        ReplayCamera(recorded.beamtime.frames, tmp_path / "absent.npy")


def test_dry_run_of_last_beamtime(recorded: Any, replay: Any, tmp_path: Path) -> None:
    """A scan with two cameras, its frames replayed in another scan."""
    last: Any = tmp_path / "last.db"
    with Beamtime(last) as beamtime:
        token = recorded.RE.subscribe(beamtime)
        with init_devices():
            cam = SimCamera(beamtime.frames, shape=(20, 30), exposure=0.001)
            side = SimCamera(beamtime.frames, shape=(8, 9), seed=2, exposure=0.001)
        recorded.RE(fly_frames([cam, side], 12, exposure=0.001))
        recorded.RE.unsubscribe(token)
        data = beamtime[-1].primary.read()
        expected, other = np.asarray(data["cam"]), np.asarray(data["side"])
        (uri,) = {
            doc["uri"]
            for name, doc in beamtime[-1].documents()
            if name == "stream_resource" and doc["data_key"] == "cam"
        }
        # As a run gives them, lazily.
        again = replay(data["side"], name="again")
        run = recorded(fly_frames([again], 12))
        np.testing.assert_array_equal(np.asarray(run.primary.read()["again"]), other)
    array = Path(uri.removeprefix("file://localhost").removeprefix("file://"))
    with pytest.raises(SourceError, match=r"choose one: .*:cam.*:side"):
        replay(array.parent)
    cam = replay(f"{array.parent}:cam", name="cam")
    from ophyd_async.sim import SimMotor

    with init_devices():
        x, y = SimMotor(instant=True), SimMotor(instant=True)
    run = recorded(grid_frames([cam], x, 0, 1, 3, y, 0, 1, 4))
    assert run.exit_status == "success"
    np.testing.assert_array_equal(frames(run).reshape(expected.shape), expected)
