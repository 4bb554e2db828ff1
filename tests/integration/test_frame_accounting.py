"""Every frame is accounted for: in the run's record, as signals, in the last line."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from ophyd_async.core import TriggerInfo, init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import (
    AcquisitionThread,
    Camera,
    FrameReceiver,
    FrameStamp,
)
from bluesky_beamtime.errors import DroppedFramesError
from bluesky_beamtime.plans import fly_frames

PERIOD = 0.01


class ScriptedSource:
    """Frames with the ids of a script, stamped by them, one exposure after another.

    It takes as many exposures as it is asked for and loses what the script leaves out.
    """

    shape = (4, 5)
    dtype = np.dtype("<u2")

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids: Iterator[int] = iter(ids)
        self.lost_at_end = 0
        self.ends_early = False
        self.late = 0
        self.told = threading.Event()
        self.pause_at: int | None = None
        self.paused = threading.Event()
        self._receiver: FrameReceiver | None = None
        self._thread: AcquisitionThread | None = None

    async def configure(self, exposure: float | None) -> None:
        pass

    async def start(self, number: int, receiver: FrameReceiver) -> None:
        self._receiver = receiver

        def acquire(stopping: threading.Event) -> None:
            for taken, one in enumerate(islice(self.ids, number or None), 1):
                stamp = FrameStamp(one, 1e9 + PERIOD * one)
                if self.late and taken == number:
                    # Nobody can end the flight before the late ones are here.
                    hold(self.loop)
                receiver.frame(np.full(self.shape, one % 60000, self.dtype), stamp)
                if taken == self.pause_at or stopping.is_set():
                    self.paused.set()
                    stopping.wait()
                    return
            if self.ends_early:
                receiver.ended(self.lost_at_end)
            for _ in range(self.late):
                receiver.frame(np.zeros(self.shape, self.dtype))
            self.told.set()

        def hold(loop: asyncio.AbstractEventLoop) -> None:
            held = threading.Event()

            def wait() -> None:
                held.set()
                self.told.wait(60)

            self.told.clear()
            loop.call_soon_threadsafe(wait)
            held.wait(60)

        self.loop = asyncio.get_running_loop()
        self._thread = AcquisitionThread("scripted", acquire, receiver)

    async def stop(self) -> None:
        if self._thread is not None:
            await self._thread.stop()
            self._thread = None


@pytest.fixture
def scripted(RE: Any, recorded: Any) -> Callable[..., Camera]:
    def make(ids: Iterable[int], name: str = "cam", **options: Any) -> Camera:
        source = ScriptedSource(ids)
        with init_devices():
            camera = Camera(
                recorded.beamtime.frames,
                source=source,
                exposure=PERIOD,
                name=name,
                **options,
            )
        return camera

    return make


def signals(RE: Any, camera: Camera) -> dict[str, float]:
    """What the signals of a camera say."""

    async def read() -> dict[str, float]:
        account = camera.accounting
        return {
            name: await getattr(account, name).get_value()
            for name in ("expected", "received", "dropped", "late", "written")
        }

    return asyncio.run_coroutine_threadsafe(read(), RE.loop).result(10)


def test_one_percent_dropped_on_purpose(RE: Any, recorded: Any, scripted: Any) -> None:
    lost = set(range(57, 2000, 100))
    camera = scripted(n for n in range(3000) if n not in lost)
    run = recorded(fly_frames([camera], 1000, exposure=PERIOD))
    dropped = sum(n < 1010 for n in lost)
    expected = {
        "expected": 1000,
        "received": 1000,
        "dropped": dropped,
        "late": 0,
        "written": 1000,
    }
    assert run.accounting == {"cam": expected}
    assert run.summary()["frames"] == {"cam": expected}
    assert signals(RE, camera) == expected
    # The ids say which.
    ids = run.primary.read()["cam_id"].values
    gaps = set(range(int(ids[-1]))) - {int(one) for one in ids}
    assert len(gaps) == dropped
    # Each lost exposure is dead time, nothing else is.
    times = run.frame_timing["cam"]
    assert times["live_time"] == pytest.approx(1000 * PERIOD)
    assert times["span"] == pytest.approx((1000 + dropped) * PERIOD, rel=1e-6)
    assert times["dead_time"] == pytest.approx(dropped / (1000 + dropped), abs=1e-5)
    assert times["storage_time"] > 0


@pytest.mark.parametrize(
    ("ids", "dropped", "repeated"),
    [
        ([*range(65530, 65536), *range(4), 6, 7], 2, 0),
        ([0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9], 0, 2),
        ([1, 0, 3, 2, 5, 4, 7, 6, 11, 10, 12, 13], 2, 1),
        ([50, 51, 52, 0, 1, 2, 3, 4, 6, 7, 8, 9], 1, 0),
    ],
    ids=["overflow", "repeated", "disorder", "restart"],
)
def test_difficult_ids(
    recorded: Any, scripted: Any, ids: list[int], dropped: int, repeated: int
) -> None:
    camera = scripted(ids)
    # Two frames an event, so that rows and exposures differ from events.
    run = recorded(fly([camera], events=6, per_event=2))
    account = run.accounting["cam"]
    assert account["dropped"] == dropped
    assert account["expected"] == account["received"] == account["written"] == 12
    assert camera._data.provider.account.repeated == repeated
    assert run.primary.read()["cam_id"].values.ravel().tolist() == ids


def fly(cameras: list[Camera], events: int, per_event: int = 1) -> Any:
    info = TriggerInfo(
        number_of_events=events, collections_per_event=per_event, livetime=PERIOD
    )

    def plan() -> Any:
        for camera in cameras:
            yield from bps.prepare(camera, info, wait=True)
        yield from bps.declare_stream(*cameras, name="primary", collect=True)
        yield from bps.kickoff_all(*cameras, wait=True)
        yield from bps.collect_while_completing(cameras, cameras, stream_name="primary")

    return bpp.stage_wrapper(bpp.run_wrapper(plan()), cameras)


def test_lost_before_the_first_and_after_the_last(
    RE: Any, recorded: Any, scripted: Any
) -> None:
    camera = scripted(range(5, 97))
    source = camera.source
    first = source.start

    async def start(number: int, receiver: FrameReceiver) -> None:
        # As a source does that knows what came before: the first five are lost.
        class Telling:
            fail, ended = receiver.fail, receiver.ended

            def frame(self, array: Any, stamp: FrameStamp) -> None:
                lost = 5 if stamp.id == 5 else 0
                receiver.frame(array, FrameStamp(stamp.id, stamp.time, lost))

        await first(number, Telling())

    source.start = start
    source.ends_early, source.lost_at_end = True, 3
    with pytest.raises(Exception) as caught:
        RE(fly_frames([camera], 100, exposure=PERIOD))
    error = caught.value.__cause__
    assert isinstance(error, DroppedFramesError)
    assert (error.dropped, error.received, error.expected) == (8, 92, 100)
    run = recorded.check()
    assert run.exit_status == "fail"
    assert run.accounting["cam"] == {
        "expected": 100,
        "received": 92,
        "dropped": 8,
        "late": 0,
        "written": 92,
    }
    assert run.primary.read().sizes["time"] == 92


@pytest.mark.parametrize("how", ["camera", "plan"])
def test_a_drop_fails_the_run_if_it_shall(
    RE: Any, recorded: Any, scripted: Any, how: str
) -> None:
    camera = scripted((n for n in range(1000) if n != 40), fail_on_drop=how == "camera")
    with pytest.raises(Exception) as caught:
        RE(fly_frames([camera], 100, fail_on_drop=True if how == "plan" else None))
    error = caught.value.__cause__
    assert isinstance(error, DroppedFramesError)
    assert (error.source, error.dropped) == ("cam", 1)
    assert "lost 1 exposure" in str(error)
    run = recorded.check()
    assert run.exit_status == "fail"
    # What came until then is kept, the frame that showed the gap too.
    assert run.accounting["cam"]["written"] == 41
    assert run.primary.read()["cam_id"].values.tolist() == [*range(40), 41]
    # The next run is as before.
    camera.source.ids = iter(n for n in range(1000) if n != 3)
    if how == "camera":
        plan = fly_frames([camera], 10, fail_on_drop=False)
    else:
        plan = fly_frames([camera], 10)
    run = recorded(plan)
    assert run.exit_status == "success"
    assert run.accounting["cam"]["dropped"] == 1
    value = asyncio.run_coroutine_threadsafe(
        camera.fail_on_drop.get_value(), RE.loop
    ).result(10)
    assert value is (how == "camera")


def test_a_drop_in_the_last_frame_fails_too(
    RE: Any, recorded: Any, scripted: Any
) -> None:
    camera = scripted([0, 1, 2, 4], fail_on_drop=True)
    with pytest.raises(Exception) as caught:
        RE(fly_frames([camera], 4))
    assert isinstance(caught.value.__cause__, DroppedFramesError)
    run = recorded.check()
    assert run.accounting["cam"]["written"] == 4
    assert run.primary.read().sizes["time"] == 4


def test_a_drop_fails_a_step_scan(RE: Any, recorded: Any, scripted: Any) -> None:
    camera = scripted([0, 1, 2, 3, 5, 6, 7], fail_on_drop=True)

    def points() -> Any:
        for _ in range(2):
            yield from bps.trigger_and_read([camera])

    def plan() -> Any:
        info = TriggerInfo(collections_per_event=3)
        yield from bps.prepare(camera, info, wait=True)
        yield from points()

    with pytest.raises(Exception) as caught:
        RE(bpp.stage_wrapper(bpp.run_wrapper(plan()), [camera]))
    assert isinstance(caught.value.__cause__, DroppedFramesError)
    assert recorded.check().num_events == 1


def test_late_frames(RE: Any, recorded: Any, scripted: Any) -> None:
    camera = scripted(range(100))
    camera.source.late = 3
    run = recorded(fly_frames([camera], 10, exposure=PERIOD))
    account = run.accounting["cam"]
    assert (account["received"], account["late"], account["written"]) == (10, 3, 10)
    assert signals(RE, camera)["late"] == 3


def test_until_stopped_expects_what_was_taken(
    recorded: Any, scripted: Any, eventually: Any
) -> None:
    camera = scripted(n for n in range(10_000) if n % 10)
    camera.source.pause_at = 45

    @bpp.stage_decorator([camera])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(camera, TriggerInfo(number_of_events=0), wait=True)
        yield from bps.declare_stream(camera, name="primary", collect=True)
        yield from bps.kickoff(camera, wait=True)
        while not camera.source.paused.is_set():
            yield from bps.sleep(0.01)
        yield from bps.complete(camera, wait=True)
        yield from bps.collect(camera, name="primary")

    run = recorded(plan())
    account = run.accounting["cam"]
    # 1 to 49 without 10, 20, 30, 40.
    assert account == {
        "expected": 49,
        "received": 45,
        "dropped": 4,
        "late": 0,
        "written": 45,
    }


def test_stopped_midway(RE: Any, recorded: Any, scripted: Any, eventually: Any) -> None:
    camera = scripted(n for n in range(10_000) if n % 10)
    camera.source.pause_at = 18
    helper = threading.Thread(
        target=lambda: (
            camera.source.paused.wait(20),
            RE.request_pause(defer=False),
        )
    )
    helper.start()
    with pytest.raises(Exception):  # noqa: B017  # which one is another test's
        RE(fly_frames([camera], 100, exposure=PERIOD))
    helper.join()
    run = recorded.check()
    assert run.accounting["cam"] == {
        "expected": 100,
        "received": 18,
        "dropped": 1,
        "late": 0,
        "written": 18,
    }
    assert run.primary.read().sizes["time"] == 18


def test_runs_of_one_staging_are_told_apart(recorded: Any, scripted: Any) -> None:
    camera = scripted(n for n in range(10_000) if n != 15)
    counts = (5, 8, 13)

    @bpp.stage_decorator([camera])
    def plan() -> Any:
        for number in counts:
            yield from bpp.run_wrapper(points(number))

    def points(number: int) -> Any:
        for _ in range(number):
            yield from bps.trigger_and_read([camera])

    recorded(plan())
    runs = list(recorded.beamtime)[::-1]
    for run, number, camera_id in zip(runs, counts, (0, 5, 13), strict=True):
        account = run.accounting["cam"]
        # A trigger is an acquisition of its own: what is lost between two is not known.
        assert account["expected"] == account["received"] == number
        assert account["written"] == number
        ids = run.primary.read()["cam_id"].values
        assert ids[0] == camera_id
        assert run.frame_timing["cam"]["live_time"] == pytest.approx(number * PERIOD)


def test_the_closing_line(RE: Any, tmp_path: Path, capsys: Any) -> None:
    lines: list[str] = []
    with Beamtime(tmp_path / "y.db") as beamtime:
        cameras = []
        for name, ids in (
            ("cam1", range(1000)),
            ("cam2", (n for n in range(1000) if n not in (3, 4, 9))),
        ):
            with init_devices():
                cameras.append(
                    Camera(beamtime.frames, source=ScriptedSource(ids), name=name)
                )
        beamtime.attach(RE)
        RE(fly_frames(cameras, 50, exposure=PERIOD))
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(
            "run 1 fly_frames: success, 2×50 frames, 3 dropped (cam2), dead time 2.9 %"
        )
        assert line.endswith("B/s")
        beamtime.attach(RE, report=lines.append)
        RE(bp.count([]))
        assert lines == ["run 2 count: success, 0 events"]
        cameras[0].source.ends_early = True
        cameras[0].source.ids = iter(range(7))
        with pytest.raises(Exception):  # noqa: B017  # as above
            RE(fly_frames(cameras[:1], 10, exposure=PERIOD))
        assert lines[1].startswith(
            "run 3 fly_frames: fail, 7 frames, 3 missing (cam1), "
        )
        beamtime.attach(RE, report=False)
        RE(bp.count([]))
        assert len(lines) == 2
        assert capsys.readouterr().out == ""

        def broken(_: str) -> None:
            raise RuntimeError("the terminal is gone")

        beamtime.attach(RE, report=broken)
        RE(bp.count([]))
        assert beamtime[-1].exit_status == "success"


KILLED = """
import os, runpy, sys, threading, time
from bluesky import RunEngine
from ophyd_async.core import init_devices
from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import Camera
from bluesky_beamtime.plans import fly_frames

ScriptedSource = runpy.run_path(sys.argv[2])["ScriptedSource"]
RE = RunEngine()
beamtime = Beamtime(sys.argv[1])
beamtime.attach(RE)
source = ScriptedSource(n for n in range(10**6) if n % 100 != 99)
source.pause_at = 500
with init_devices():
    camera = Camera(beamtime.frames, source=source, exposure=0.01, name="cam")

def die():
    source.paused.wait()
    # Until a document has told of the frames, and their attributes of all of them.
    while beamtime[-1].accounting.get("cam", {}).get("received") != 500:
        time.sleep(0.01)
    os.kill(os.getpid(), 9)

threading.Thread(target=die).start()
RE(fly_frames([camera], 100_000, exposure=0.01, flush_period=0.1))
"""


def test_what_is_known_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    command = [sys.executable, "-c", KILLED, path, __file__]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -9, done.stderr
    with Beamtime(path) as beamtime:
        run = beamtime[-1]
        assert run.exit_status == "interrupted"
        account = run.accounting["cam"]
        # The counters are those of a moment before; here nothing came in that moment.
        assert account == {
            "expected": 100_000,
            "received": 500,
            "dropped": 5,
            "late": 0,
            "written": 500,
        }
        assert not math.isnan(run.frame_timing["cam"]["dead_time"])
