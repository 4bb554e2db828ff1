"""Frames while a motor moves, and frames that software asks for."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plans as bp
from bluesky.utils import ProgressBarManager
from ophyd_async.core import TriggerInfo, init_devices
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import (
    Camera,
    MotorFlyer,
    PointTrajectory,
    SimCamera,
    SoftwarePacer,
    Timetable,
)
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.plans import fly_points, fly_scan, paced_frames

EXPOSURE = 0.02


@pytest.fixture
def motor(RE: RunEngine) -> SimMotor:
    with init_devices():
        motor = SimMotor(instant=False, name="theta")
    set_signal(RE, motor.acceleration_time, 0.1)
    return motor


@pytest.fixture
def cameras(RE: RunEngine, recorded: Any, run: Any) -> Callable[..., list[SimCamera]]:
    """Make simulated cameras that write into the beamtime.

    The documents are looked at by the fixture `run` too: they fit their schemas, and
    what they announce is readable.
    """

    def make(*names: str) -> list[SimCamera]:
        frames = recorded.beamtime.frames
        with init_devices():
            return [SimCamera(frames, shape=(8, 9), name=name) for name in names]

    return make


def in_loop(RE: RunEngine, coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, RE.loop).result(20)


def set_signal(RE: RunEngine, signal: Any, value: Any) -> None:
    async def put() -> None:
        await signal.set(value)

    in_loop(RE, put())


def get_signal(RE: RunEngine, signal: Any) -> Any:
    return in_loop(RE, signal.get_value())


class Watched:
    """Every position that a motor has told."""

    def __init__(self, RE: RunEngine, motor: SimMotor) -> None:
        self.stamps: list[float] = []
        self.values: list[float] = []

        def moved(reading: dict[str, Any]) -> None:
            (latest,) = reading.values()
            self.stamps.append(latest["timestamp"])
            self.values.append(latest["value"])

        async def watch() -> None:
            motor.user_readback.subscribe_reading(moved)

        in_loop(RE, watch())

    def at(self, moments: Any) -> Any:
        return np.interp(moments, self.stamps, self.values)

    def largest_step(self, since: float) -> float:
        first = max(0, int(np.searchsorted(self.stamps, since)) - 1)
        return float(np.abs(np.diff(self.values[first:])).max(initial=0)) + 1e-9


def test_positions_are_those_of_the_middle_of_each_exposure(
    RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor
) -> None:
    watched = Watched(RE, motor)
    slow, quick = cameras("slow", "quick")
    run = recorded(
        fly_scan(
            [slow, quick],
            motor,
            1.0,
            2.0,
            10,
            exposure={"slow": 0.05, "quick": EXPOSURE},
            frames_per_event={"slow": 2, "quick": 5},
        )
    )
    assert run.exit_status == "success"
    for key, frames in (("slow", 2), ("quick", 5)):
        account = run.accounting[key]
        assert account["expected"] == account["received"] == 10 * frames
        assert account["written"] == 10 * frames
    data = run.primary.read()
    assert data.sizes["time"] == 10
    for key, exposure, frames in (("slow", 0.05, 2), ("quick", EXPOSURE, 5)):
        positions = data[f"{key}_theta"]
        assert f"{key}_theta" in data.coords
        assert positions.dims == data[f"{key}_time"].dims
        assert positions.shape == (10, frames)
        assert positions.attrs["units"] == "mm"
        middle = data[f"{key}_time"].values + exposure / 2
        # A motor that lags may be taken to be at rest between two updates.
        step = watched.largest_step(middle.min())
        np.testing.assert_allclose(positions, watched.at(middle), atol=step)
        assert (np.diff(positions.values.ravel()) >= 0).all()
        # The motor was under way when the first frame was taken.
        assert positions.values.min() > 0.9
        assert data[key].shape == (10, frames, 8, 9)
    start = run.start
    assert start["motors"] == ["theta"]
    assert start["num_points"] == 10
    assert start["plan_args"]["duration"] == pytest.approx(1.0)
    assert get_signal(RE, motor.velocity) == 1.0


def test_both_directions_and_what_comes_after(
    RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor
) -> None:
    (cam,) = cameras("cam")
    set_signal(RE, motor.velocity, 5.0)
    for start, stop in ((0.0, 0.5), (0.5, 0.0)):
        run = recorded(fly_scan([cam], motor, start, stop, 8, exposure=EXPOSURE))
        positions = run.primary.read()["cam_theta"].values
        assert (np.diff(positions) * (stop - start) >= 0).all()
        # Between the beginning of the run-up and the end of the run-down.
        assert positions.min() >= -0.2
        assert positions.max() <= 0.7
    # The velocity is what it was, and nobody follows the motor any more.
    assert get_signal(RE, motor.velocity) == 5.0
    run = recorded(bp.count([cam], 2))
    assert set(run.primary.read().variables) == {
        *("cam", "cam_time", "cam_id", "time", "seq_num")
    }


def test_points(RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor) -> None:
    watched = Watched(RE, motor)
    set_signal(RE, motor.velocity, 10.0)
    slow, quick = cameras("slow", "quick")
    points = [0.0, 0.4, 0.1]
    run = recorded(
        fly_points(
            [slow, quick],
            motor,
            points,
            dwell=0.5,
            exposure={"slow": 0.04, "quick": EXPOSURE},
        )
    )
    data = run.primary.read()
    # As many events as both have; of the quicker one more may be stored.
    written = {key: run.accounting[key]["written"] for key in ("slow", "quick")}
    assert data.sizes["time"] == min(written.values()) > 3
    for key in ("slow", "quick"):
        account = run.accounting[key]
        assert account["expected"] == account["received"] == account["written"]
        positions = data[f"{key}_theta"].values
        assert np.isfinite(positions).all()
        assert positions.min() >= -1e-9
        assert positions.max() <= 0.4 + 1e-9
        # At rest it is where it was told to be, and not on its way already.
        arrived = watched.stamps[watched.values.index(0.4)]
        times = data[f"{key}_time"].values
        rested = (times >= arrived) & (times + 0.04 <= arrived + 0.5)
        np.testing.assert_allclose(positions[rested], 0.4, rtol=0, atol=1e-9)
    assert run.start["plan_args"]["positions"] == points


def test_another_axis_is_recorded_too(
    RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor
) -> None:
    (cam,) = cameras("cam")
    with init_devices():
        x = SimMotor(name="x", initial_value=3.5, units="deg")
    plan = fly_scan([cam], motor, 0, 0.2, 5, exposure=EXPOSURE, axes=[x])
    data = recorded(plan).primary.read()
    assert data.coords["cam_x"].values.tolist() == [3.5] * 5
    assert data.coords["cam_x"].attrs["units"] == "deg"
    assert data.coords["cam_theta"].shape == (5,)


def test_software_paces_at_a_rate(
    RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor
) -> None:
    one, two = cameras("one", "two")
    before = time.time()
    run = recorded(
        paced_frames(
            [one, two],
            6,
            rate=10,
            exposure=0.01,
            frames_per_event={"two": 3},
            axes=[motor],
        )
    )
    data = run.primary.read()
    assert data["one"].shape == (6, 8, 9)
    assert data["two"].shape == (6, 3, 8, 9)
    assert run.accounting["two"]["expected"] == 18
    assert data.coords["one_theta"].values.tolist() == [0.0] * 6
    # Never before its time.
    times = data["one_time"].values
    assert (times > before + np.arange(6) / 10).all()
    assert len(run.primary.read()["two_id"].values.ravel()) == 18


def test_software_paces_at_given_times(recorded: Any, cameras: Any) -> None:
    (cam,) = cameras("cam")
    moments = [0.0, 0.05, 0.3, 0.3, 0.35]
    before = time.time()
    run = recorded(paced_frames([cam], times=moments, exposure=0.005))
    data = run.primary.read()
    assert data.sizes["time"] == 5
    assert (data["cam_time"].values > before + np.array(moments)).all()
    assert run.start["plan_args"]["times"] == moments


def test_late_triggers_are_counted(RE: RunEngine, cameras: Any) -> None:
    (cam,) = cameras("cam")
    info = TriggerInfo(livetime=0.05)
    pacer = SoftwarePacer([cam], [info])

    async def fly() -> int:
        await pacer.stage()
        await cam.stage()
        await pacer.prepare(Timetable.at_rate(4, 1000))
        await cam.prepare(info)
        await pacer.kickoff()
        await pacer.complete()
        assert await cam.get_index() == 4
        await cam.unstage()
        await pacer.unstage()
        return await pacer.late.get_value()

    assert in_loop(RE, fly()) == 3


def test_bars_of_all(RE: RunEngine, recorded: Any, cameras: Any, motor: Any) -> None:
    updates: list[dict[str, Any]] = []

    class Watching(ProgressBarManager):
        def __call__(self, statuses: Any) -> None:
            for status in statuses or ():
                if hasattr(status, "watch"):
                    status.watch(lambda **update: updates.append(update))

    RE.waiting_hook = Watching()
    (cam,) = cameras("cam")

    def last(name: str) -> dict[str, Any]:
        return [update for update in updates if update["name"] == name][-1]

    RE(fly_scan([cam], motor, 0, 0.3, 10, exposure=EXPOSURE))
    assert last("theta_flyer")["current"] == last("theta_flyer")["target"] == 0.3
    assert last("theta_flyer")["unit"] == "mm"
    assert last("cam")["current"] == last("cam")["target"] == 10
    RE(fly_points([cam], motor, [0, 0.1], exposure=EXPOSURE))
    assert last("theta_flyer")["current"] == last("theta_flyer")["target"] == 2
    RE(paced_frames([cam], 3, rate=50, exposure=0.001))
    assert last("pacer")["current"] == last("pacer")["target"] == 3
    RE.waiting_hook = ProgressBarManager()
    RE(fly_scan([cam], motor, 0, 0.3, 15, exposure=EXPOSURE))


def test_nothing_is_said_to_have_failed(
    RE: RunEngine, recorded: Any, cameras: Any, motor: Any, caplog: Any
) -> None:
    (cam,) = cameras("cam")
    with caplog.at_level(logging.WARNING):
        recorded(fly_scan([cam], motor, 0, 0.1, 3, exposure=EXPOSURE))
        recorded(paced_frames([cam], 2, rate=50, exposure=0.001))
    assert caplog.messages == []


def test_a_camera_that_fails_stops_the_motor(
    RE: RunEngine, recorded: Any, run: Any, motor: SimMotor
) -> None:
    from tests.integration.conftest import NumberedSource

    source = NumberedSource(period=0.01)
    source.fail_at = 5
    with init_devices():
        cam = Camera(recorded.beamtime.frames, source=source, name="cam")
    began = time.monotonic()
    with pytest.raises(Exception) as caught:
        RE(fly_scan([cam], motor, 0, 1000, 1000, exposure=1.0))
    assert isinstance(caught.value.__cause__, OSError)
    assert time.monotonic() - began < 60
    record = recorded.check()
    assert record.exit_status == "fail"
    assert record.accounting["cam"]["written"] == 5
    stopped = get_signal(RE, motor.user_readback)
    time.sleep(0.3)
    assert get_signal(RE, motor.user_readback) == stopped
    assert get_signal(RE, motor.velocity) == 1.0
    source.fail_at = None
    again = recorded(fly_scan([cam], motor, 0, 0.1, 4, exposure=EXPOSURE))
    assert again.exit_status == "success"
    assert again.primary.read().sizes["time"] == 4


def test_a_motor_that_fails_ends_the_run(
    RE: RunEngine, recorded: Any, cameras: Any, motor: SimMotor, eventually: Any
) -> None:
    (cam,) = cameras("cam")

    def stop_it() -> None:
        eventually(lambda: cam.source._next > 3, timeout=60)
        in_loop(RE, motor.stop())

    stop = threading.Thread(target=stop_it)
    stop.start()
    with pytest.raises(Exception) as caught:
        RE(fly_scan([cam], motor, 0, 100, 1000, exposure=0.05))
    stop.join()
    assert "was stopped" in str(caught.value.__cause__)
    assert recorded.check().exit_status == "fail"
    run = recorded(bp.count([cam], 1))
    assert run.exit_status == "success"


def test_a_pause_ends_it_and_what_was_taken_is_announced(
    RE: RunEngine,
    recorded: Any,
    cameras: Any,
    motor: SimMotor,
    eventually: Any,
) -> None:
    (cam,) = cameras("cam")

    def pause() -> None:
        eventually(lambda: cam.source._next > 5, timeout=60)
        RE.request_pause(defer=False)

    timer = threading.Thread(target=pause)
    timer.start()
    with pytest.raises(Exception):  # noqa: B017  # which one is another test's
        RE(fly_scan([cam], motor, 0, 100, 1000, exposure=0.05))
    timer.join()
    run = recorded.check()
    assert run.exit_status in ("abort", "fail")
    assert get_signal(RE, motor.velocity) == 1.0
    rows = run.primary.read().sizes["time"]
    # The last frames may still have waited for a position.
    assert rows <= run.accounting["cam"]["written"]
    assert recorded(bp.count([cam], 1)).exit_status == "success"


def test_a_motor_record(RE: RunEngine, recorded: Any, cameras: Any) -> None:
    from ophyd_async.core import set_mock_value
    from ophyd_async.epics.motor import Motor

    (cam,) = cameras("cam")
    with init_devices(mock=True):
        record = Motor("BL01:M1", name="phi")
    set_mock_value(record.motor_egu, "deg")
    set_mock_value(record.velocity, 7.0)
    run = recorded(fly_scan([cam], record, 0.0, 3.0, 5, exposure=EXPOSURE))
    assert run.exit_status == "success"
    assert run.primary.read().coords["cam_phi"].shape == (5,)
    assert get_signal(RE, record.velocity) == 7.0
    assert get_signal(RE, record.user_setpoint) == 3.0


def test_a_motor_that_cannot_fly_visits_points(
    RE: RunEngine, recorded: Any, cameras: Any
) -> None:
    from bluesky_beamtime.demo.motor import SimMotor as PlainMotor

    (cam,) = cameras("cam")

    async def told(position: float) -> None:
        # It is not there before frames were taken on the way.
        while position and cam.source._next < 3:
            await asyncio.sleep(0.005)

    with init_devices():
        x = PlainMotor(told=told)
    with pytest.raises(Exception) as caught:
        RE(fly_scan([cam], x, 0, 1, 3, exposure=EXPOSURE))
    assert isinstance(caught.value.__cause__, DeviceError)
    assert "PointTrajectory" in str(caught.value.__cause__)
    run = recorded(fly_points([cam], x, [0, 1], exposure=EXPOSURE))
    positions = run.primary.read()["cam_x"].values
    assert len(positions) >= 3
    assert positions.min() >= 0
    assert positions.max() <= 1


def test_a_name_that_is_taken(RE: RunEngine, recorded: Any, cameras: Any) -> None:
    (cam,) = cameras("cam")
    with init_devices():
        bad = SimMotor(name="time")
    with pytest.raises(Exception) as caught:
        RE(fly_scan([cam], bad, 0, 1, 3, exposure=EXPOSURE))
    assert isinstance(caught.value.__cause__, DeviceError)
    assert "'cam_time'" in str(caught.value.__cause__)
    assert recorded.beamtime.frames.uri is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1.0, 1.0, 5), {}, "same position"),
        ((0.0, 1.0, 0), {}, "number of events"),
        ((0.0, 1.0, 5), {"exposure": None}, "duration"),
        ((0.0, 1.0, 5), {"exposure": -1.0}, "exposure"),
        ((0.0, 1.0, 5), {"frames_per_event": {"cam": 0}}, "frames per event of cam"),
    ],
)
def test_arguments_are_checked(
    RE: RunEngine,
    recorded: Any,
    cameras: Any,
    motor: Any,
    arguments: Any,
    options: Any,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        RE(fly_scan(cameras("cam"), motor, *arguments, **options))
    assert len(recorded.beamtime) == 0


def test_paces_are_checked(RE: RunEngine, recorded: Any, cameras: Any) -> None:
    cams = cameras("cam")
    for options in ({}, {"num": 3}, {"rate": 3.0}, {"num": 1, "times": [0.0]}):
        with pytest.raises(ValueError, match="either num and rate, or times"):
            RE(paced_frames(cams, **options))
    with pytest.raises(ValueError, match="one event"):
        SoftwarePacer(cams, [TriggerInfo(number_of_events=2)])
    with pytest.raises(ValueError, match="ascend"):
        Timetable((1.0, 0.5))
    with pytest.raises(ValueError, match="at least one"):
        Timetable(())
    with pytest.raises(ValueError, match="from 0 on"):
        Timetable((-1.0,))
    with pytest.raises(ValueError, match="rate"):
        Timetable.at_rate(3, 0)
    with pytest.raises(ValueError, match="at least one"):
        PointTrajectory(())
    with pytest.raises(ValueError, match="dwell"):
        PointTrajectory((1.0,), -1)
    assert len(recorded.beamtime) == 0


def test_order_of_calls(RE: RunEngine, cameras: Any, motor: Any) -> None:
    flyer = MotorFlyer(motor, cameras("cam"))
    assert flyer.name == "theta_flyer"

    async def kickoff() -> None:
        await flyer.kickoff()

    with pytest.raises(RuntimeError, match="prepare"):
        in_loop(RE, kickoff())


def test_beside_a_stock_detector(RE: RunEngine, recorded: Any, motor: SimMotor) -> None:
    from ophyd_async.sim import SimBlobDetector

    with init_devices():
        cam = SimCamera(recorded.beamtime.frames, shape=(8, 9))
        blob = SimBlobDetector(recorded.beamtime.path_provider)
    run = recorded(fly_scan([cam, blob], motor, 0, 0.2, 6, exposure=EXPOSURE))
    data = run.primary.read()
    assert data["blob"].shape[0] == data["cam"].shape[0] == 6
    # It keeps its frames elsewhere, and no positions beside them.
    assert "cam_theta" in data.coords
    assert "blob_theta" not in data.variables
    run = recorded(paced_frames([cam, blob], 3, rate=20, exposure=0.01))
    data = run.primary.read()
    assert data["blob"].shape[0] == data["cam"].shape[0] == 3
