"""Fly scans: frames at their own pace, whatever ends them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedPause, ProgressBarManager, RunEngineInterrupted
from ophyd_async.core import TriggerInfo, init_devices
from ophyd_async.testing import assert_emitted

from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import FrameStore


def fly(
    cameras: list[Any], info: TriggerInfo, name: str = "primary", declare: bool = True
) -> Any:
    """Prepare, declare, kick off, collect: a fly scan inside a run."""
    for camera in cameras:
        yield from bps.prepare(camera, info, wait=True)
    if declare:
        yield from bps.declare_stream(*cameras, name=name, collect=True)
    yield from bps.clear_checkpoint()
    yield from bps.kickoff_all(*cameras, wait=True)
    yield from bps.collect_while_completing(
        cameras, cameras, flush_period=0.05, stream_name=name
    )


def covered(run: Any, key: str) -> int:
    """Events announced of a key; the datums must follow each other."""
    indices = run.indices(key)
    for (_, stop), (start, _) in pairwise(indices):
        assert start == stop
    return sum(stop - start for start, stop in indices)


def test_two_cameras_at_different_paces(RE: RunEngine, run: Any, camera: Any) -> None:
    quick, slow = camera("quick"), camera("slow", period=0.005)
    RE(fly_frames([quick, slow], 60, exposure=0.01, flush_period=0.05))

    # Six arrays in one stream, announced as often as there was something new.
    assert_emitted(
        run.by_name,
        start=1,
        descriptor=1,
        stream_resource=6,
        stream_datum=6 * len(run.indices("quick")),
        stop=1,
    )
    assert run.exit_status == "success"
    start = run["start"][0]
    assert start["plan_name"] == "fly_frames"
    assert start["detectors"] == ["quick", "slow"]
    assert start["num_points"] == 60
    assert start["num_intervals"] == 59
    for key in ("quick", "quick_time", "quick_id", "slow", "slow_time", "slow_id"):
        assert covered(run, key) == 60
        assert run.indices(key) == run.indices("quick")
    assert len(run.indices("quick")) > 1
    assert run.announced("quick") == list(range(60))
    np.testing.assert_array_equal(run.array("slow")[:, 2, 3], range(60))
    assert run["descriptor"][0]["configuration"]["slow"]["data"] == {
        "slow-exposure": 0.01
    }
    assert run["event"] == []
    assert slow.source.starts == [60]


def test_frames_of_the_simulated_camera_read_back(
    RE: RunEngine, run: Any, store: FrameStore
) -> None:
    with init_devices():
        cam1 = SimCamera(store, shape=(50, 60), seed=1)
        cam2 = SimCamera(store, shape=(30, 30), seed=2)
    RE(fly_frames([cam1, cam2], 20, exposure=0.002))
    for cam in (cam1, cam2):
        frames = run.array(cam.name)
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, cam.rings.frame(number, 0.002))
        times = run.array(f"{cam.name}_time")
        assert (np.diff(times) > 0.001).all()
        assert abs(times[0] - time.time()) < 60


def test_together_with_a_stock_detector(
    RE: RunEngine, camera: Any, tmp_path: Path
) -> None:
    from ophyd_async.sim import SimBlobDetector

    from bluesky_beamtime.devices import OphydPathProvider

    with init_devices():
        blob = SimBlobDetector(OphydPathProvider(tmp_path / "files"))
    cam = camera()
    docs: list[tuple[str, dict[str, Any]]] = []
    RE.subscribe(lambda name, doc: docs.append((name, doc)))
    for plan in (fly_frames([cam, blob], 8, exposure=0.01), bp.count([cam, blob], 2)):
        docs.clear()
        RE(plan)
        assert docs[-1][1]["exit_status"] == "success"
        keys = {
            doc["uid"]: doc["data_key"] for n, doc in docs if n == "stream_resource"
        }
        assert {"cam", "cam_time", "cam_id", "blob", "blob-sum"} == set(keys.values())
        totals = dict.fromkeys(keys.values(), 0)
        for name, doc in docs:
            if name == "stream_datum":
                span = doc["indices"]["stop"] - doc["indices"]["start"]
                totals[keys[doc["stream_resource"]]] += span
        assert len(set(totals.values())) == 1


def test_several_collections_per_event(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    info = TriggerInfo(number_of_events=7, collections_per_event=4)
    RE(bpp.stage_wrapper(bpp.run_wrapper(fly([cam], info)), [cam]))
    assert run["descriptor"][0]["data_keys"]["cam"]["shape"] == [4, 6, 8]
    assert covered(run, "cam") == 7
    assert run.announced("cam") == list(range(28))
    assert run.seq_nums("cam")[-1][1] == 8


def test_progress_bars_see_updates(RE: RunEngine, run: Any, camera: Any) -> None:
    updates: list[dict[str, Any]] = []

    class Watching(ProgressBarManager):
        def __call__(self, statuses: Any) -> None:
            for status in statuses or ():
                if hasattr(status, "watch"):
                    status.watch(lambda **update: updates.append(update))

    RE.waiting_hook = Watching()
    cam = camera(period=0.01)
    RE(fly_frames([cam], 15, exposure=None))
    mine = [update for update in updates if update["name"] == "cam"]
    assert mine[-1]["current"] == mine[-1]["target"] == 15
    assert mine[0]["initial"] == 0
    assert len(mine) > 3
    assert all(update["time_elapsed"] >= 0 for update in mine)
    updates.clear()
    RE(bp.count([cam]))
    assert updates[-1]["current"] == updates[-1]["target"] == 1


def test_progress_bar_manager_itself(
    RE: RunEngine, run: Any, camera: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    RE.waiting_hook = ProgressBarManager()
    # Bars appear after 0.2 s.
    RE(fly_frames([camera(period=0.02)], 30, exposure=None))
    assert run.exit_status == "success"
    captured = capsys.readouterr()
    assert "cam" in captured.out + captured.err


def test_immediate_pause_fails_the_run_and_announces_what_is_safe(
    RE: RunEngine,
    run: Any,
    camera: Any,
    store: FrameStore,
    eventually: Callable[..., None],
) -> None:
    cam = camera(period=0.005)
    helper = threading.Thread(
        target=lambda: (
            eventually(lambda: cam.source.next > 10),
            RE.request_pause(defer=False),
        )
    )
    helper.start()
    with pytest.raises((RunEngineInterrupted, FailedPause)):
        RE(fly_frames([cam], 10_000, exposure=None, flush_period=30))
    helper.join()
    assert run.exit_status in ("abort", "fail")
    assert store.uri is None
    assert covered(run, "cam") > 10
    assert run.announced("cam") == list(range(covered(run, "cam")))
    assert RE.state == "idle"
    RE(bp.count([cam], 1))
    assert run.exit_status == "success"


def test_deferred_pause_lets_it_finish(
    RE: RunEngine, run: Any, camera: Any, eventually: Callable[..., None]
) -> None:
    cam = camera(period=0.002)
    helper = threading.Thread(
        target=lambda: (
            eventually(lambda: cam.source.next > 5),
            RE.request_pause(defer=True),
        )
    )
    helper.start()
    RE(fly_frames([cam], 50, exposure=None))
    helper.join()
    assert run.exit_status == "success"
    assert covered(run, "cam") == 50


def test_a_plan_that_goes_back_to_before_the_kickoff(
    RE: RunEngine, run: Any, camera: Any, eventually: Callable[..., None]
) -> None:
    """Somebody else's plan, that forgets to clear its checkpoint."""
    cam = camera(period=0.005)
    info = TriggerInfo(number_of_events=100)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.checkpoint()
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.kickoff(cam, wait=True)
        yield from bps.collect_while_completing(
            [cam], [cam], flush_period=0.02, stream_name="primary"
        )

    helper = threading.Thread(
        target=lambda: (
            eventually(lambda: cam.source.next > 30),
            RE.request_pause(defer=False),
        )
    )
    helper.start()
    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    helper.join()
    RE.resume()
    assert run.exit_status == "success"
    # The second attempt is announced whole, after what the first had announced.
    announced = run.announced("cam")
    assert announced[-100:] == list(range(announced[-100], announced[-100] + 100))
    assert run.indices("cam") == run.indices("cam_id")


def test_no_events_to_kick_off(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=3), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.abs_set(cam.events_to_kickoff, 0, wait=True)
        yield from bps.kickoff(cam, wait=True)

    with pytest.raises(Exception) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, DeviceError)
    assert cam.source.starts == []


def test_a_fly_scan_after_a_broken_one_in_the_same_staging(
    RE: RunEngine, run: Any, camera: Any, eventually: Callable[..., None]
) -> None:
    cam1, cam2 = camera("cam1"), camera("cam2")
    cams = [cam1, cam2]
    cam1.source.gate = threading.Semaphore(5)
    info = TriggerInfo(number_of_events=8)

    def broken() -> Any:
        for cam in cams:
            yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(*cams, name="primary", collect=True)
        yield from bps.kickoff_all(*cams, wait=True)
        while cam1.source.next < 5:
            yield from bps.sleep(0.01)
        yield from bps.collect(*cams, name="primary")
        raise RuntimeError("somebody opened the hutch")

    def plan() -> Any:
        with contextlib.suppress(RuntimeError):
            yield from bpp.run_wrapper(broken())
        cam1.source.gate.release(100)
        yield from bpp.run_wrapper(fly(cams, info))

    RE(bpp.stage_wrapper(plan(), cams))
    assert [doc["exit_status"] for doc in run["stop"]] == ["fail", "success"]
    # The second run counts from its own first frames, of which both have eight.
    second = run["descriptor"][-1]["uid"]
    for key in ("cam1", "cam2", "cam2_id"):
        resource = run.resources(key)[-1]["uid"]
        datums = [
            doc["indices"]
            for doc in run["stream_datum"]
            if doc["stream_resource"] == resource
        ]
        assert datums[-1]["stop"] - datums[0]["start"] == 8
        assert datums[0]["start"] >= 5
    counted = [d["seq_nums"] for d in run["stream_datum"] if d["descriptor"] == second]
    assert counted[0]["start"] == 1
    (first, *rest) = run.announced("cam1")[-8:]
    # The broken one may have taken its last three frames before it was stopped.
    assert first in range(5, 9)
    assert rest == list(range(first + 1, first + 8))
    assert run.announced("cam2")[-8:] == list(range(8, 16))


def test_rows_of_a_completed_line_that_was_not_collected_are_kept(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()
    info = TriggerInfo(number_of_events=4)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        for _ in range(3):
            yield from bps.prepare(cam, info, wait=True)
            yield from bps.kickoff(cam, wait=True)
            yield from bps.complete(cam, wait=True)
        yield from bps.collect(cam, name="primary")

    RE(plan())
    assert run.announced("cam") == list(range(12))


def test_several_kickoffs_of_one_preparation(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(number_of_events=10, collections_per_event=2)
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        for events in (3, 7):
            yield from bps.abs_set(cam.events_to_kickoff, events, wait=True)
            yield from bps.kickoff(cam, wait=True)
            yield from bps.collect_while_completing([cam], [cam], stream_name="primary")

    RE(plan())
    assert cam.source.starts == [6, 14]
    assert run.indices("cam") == [(0, 3), (3, 10)]


def test_until_stopped(RE: RunEngine, run: Any, camera: Any, store: FrameStore) -> None:
    cam = camera(period=0.002)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=0), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while cam.source.next < 20:
            yield from bps.sleep(0.01)
            yield from bps.collect(cam, name="primary")
        yield from bps.complete(cam, wait=True)
        yield from bps.collect(cam, name="primary")

    RE(plan())
    assert cam.source.starts == [0]
    taken = cam.source.next
    assert taken >= 20
    assert covered(run, "cam") == taken
    accounting = run.accounting("cam")
    assert accounting["expected"] == accounting["received"] == taken
    assert accounting["written"] == taken
    assert store.uri is None


def test_kickoff_twice_is_refused(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera(period=0.05)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=40), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.abs_set(cam.events_to_kickoff, 20, wait=True)
        yield from bps.kickoff(cam, wait=True)
        yield from bps.kickoff(cam, wait=True)

    with pytest.raises(Exception) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, DeviceError)
    assert "complete()" in str(caught.value.__cause__)


def test_complete_after_unstage_says_what_happened(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera(period=0.05)

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.prepare(cam, TriggerInfo(number_of_events=40), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        yield from bps.unstage(cam, wait=True)
        yield from bps.complete(cam, wait=True)

    with pytest.raises(Exception) as caught:
        RE(plan())
    assert "was stopped after" in str(caught.value.__cause__)


def test_unstage_while_a_frame_is_being_written(
    RE: RunEngine,
    run: Any,
    camera: Any,
    store: FrameStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bluesky_beamtime.storage import FrameSink

    writing, go_on = threading.Event(), threading.Event()
    write = FrameSink.write

    def slow(sink: FrameSink, frame: Any) -> None:
        if sink.frames_written == 3:
            writing.set()
            assert go_on.wait(10)
        write(sink, frame)

    monkeypatch.setattr(FrameSink, "write", slow)
    cam = camera()

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.stage(cam, wait=True)
        yield from bps.prepare(cam, TriggerInfo(number_of_events=40), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while not writing.is_set():
            yield from bps.sleep(0.01)
        yield from bps.unstage(cam, group="unstage")
        yield from bps.sleep(0.1)
        go_on.set()
        yield from bps.wait("unstage")
        yield from bps.collect(cam, name="primary")
        yield from bps.close_run()

    RE(plan())
    assert run.exit_status == "success"
    # Collected after unstaging: the frame that was on its way is there.
    assert run.announced("cam") == [0, 1, 2, 3]
    assert store.uri is None


def test_prepared_and_never_used(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam1, cam2 = camera("cam1"), camera("cam2")

    @bpp.stage_decorator([cam1, cam2])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam2, TriggerInfo(), wait=True)
        yield from bps.trigger_and_read([cam1])

    RE(plan())
    assert store.uri is None
    assert run.announced("cam1") == [0]


@pytest.mark.parametrize(
    ("num", "options"),
    [
        (0, {}),
        (-1, {}),
        (2.5, {}),
        (True, {}),
        ("many", {}),
        (3, {"exposure": 0}),
        (3, {"exposure": float("nan")}),
        (3, {"flush_period": 0}),
    ],
)
def test_arguments_are_checked_before_the_run(
    RE: RunEngine, run: Any, camera: Any, num: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        RE(fly_frames([camera()], num, **options))
    assert run.docs == []


def test_detectors_are_checked_before_the_run(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    from bluesky_beamtime.devices import SimCounter

    with init_devices():
        counter = SimCounter()
    cam = camera()
    for detectors in ([], [counter], [cam, cam], cam, [cam, 3]):
        with pytest.raises(ValueError):
            RE(fly_frames(detectors, 3))
    assert run.docs == []
