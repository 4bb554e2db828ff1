"""What goes wrong in stores and sources reaches the plan at once, as what it is."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from ophyd_async.core import TriggerInfo, init_devices

from bluesky_beamtime.devices import Camera, SimCamera
from bluesky_beamtime.errors import (
    DeviceTimeoutError,
    FrameMismatchError,
    StoreWriteError,
)
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import FrameSink, FrameStore

# Seconds: a few hundredths, as a rule. What is only found by waiting takes ten.
PROMPTLY = 5


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the disk be full from the nth frame of a source on."""
    state: dict[str, Any] = {"name": "cam", "from": 3, "when": None, "full": True}
    write = FrameSink.write

    def refuse(sink: FrameSink, frame: Any) -> None:
        reached = sink.name == state["name"] and sink.frames_written >= state["from"]
        if state["full"] and reached:
            state["when"] = state["when"] or time.monotonic()
            raise StoreWriteError(
                "cannot write: no space left", errno=errno.ENOSPC, filename="x"
            )
        write(sink, frame)

    monkeypatch.setattr(FrameSink, "write", refuse)
    return state


def test_a_full_disk_stops_a_step_scan(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore, full_disk: dict[str, Any]
) -> None:
    cam = camera()
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam], 10))
    assert time.monotonic() - full_disk["when"] < PROMPTLY
    assert isinstance(caught.value.__cause__, StoreWriteError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert run.exit_status == "fail"
    assert run.announced("cam") == [0, 1, 2]
    assert store.uri is None
    # Space is there again: the same camera goes on, in a new acquisition.
    full_disk["full"] = False
    RE(bp.count([cam], 2))
    assert run.exit_status == "success"


def test_a_full_disk_stops_a_fly_scan_and_keeps_what_is_safe(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore, full_disk: dict[str, Any]
) -> None:
    cam, other = camera("cam", period=0.005), camera("other", period=0.005)
    full_disk["from"] = 30
    with pytest.raises(FailedStatus) as caught:
        RE(fly_frames([cam, other], 10_000, exposure=None, flush_period=60))
    assert time.monotonic() - full_disk["when"] < PROMPTLY
    assert isinstance(caught.value.__cause__, StoreWriteError)
    assert run.exit_status == "fail"
    safe = run.announced("cam")
    assert safe == run.announced("other") == list(range(len(safe)))
    assert 0 < len(safe) <= 30
    assert store.uri is None


def test_a_failure_before_complete_reaches_the_next_collect(
    RE: RunEngine, run: Any, camera: Any, full_disk: dict[str, Any]
) -> None:
    cam = camera()
    after: list[float] = []

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=0), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while full_disk["when"] is None:
            yield from bps.sleep(0.01)
        after.append(time.monotonic())
        yield from bps.collect(cam, name="primary")

    with pytest.raises(StoreWriteError):
        RE(plan())
    assert time.monotonic() - after[0] < PROMPTLY
    assert run.exit_status == "fail"


def test_a_failure_that_nobody_saw_fails_complete(
    RE: RunEngine, run: Any, camera: Any, full_disk: dict[str, Any]
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=9), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while full_disk["when"] is None:
            yield from bps.sleep(0.01)
        yield from bps.complete(cam, wait=True)

    with pytest.raises(FailedStatus) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, StoreWriteError)


def test_a_failure_that_nobody_asked_for_fails_unstage(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore, full_disk: dict[str, Any]
) -> None:
    cam = camera()

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.stage(cam, wait=True)
        yield from bps.prepare(cam, TriggerInfo(number_of_events=9), wait=True)
        yield from bps.kickoff(cam, wait=True)
        while full_disk["when"] is None:
            yield from bps.sleep(0.01)
        yield from bps.unstage(cam, wait=True)

    with pytest.raises(FailedStatus) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, StoreWriteError)
    assert store.uri is None


def test_publishing_that_fails_announces_nothing(
    RE: RunEngine, run: Any, camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = FrameSink.publish

    def refuse(sink: FrameSink) -> int:
        if sink.name == "cam_id" and sink.frames_written > 1:
            raise StoreWriteError("cannot publish", errno=errno.EIO)
        return publish(sink)

    monkeypatch.setattr(FrameSink, "publish", refuse)
    with pytest.raises(StoreWriteError):
        RE(bp.count([camera()], 4))
    assert run.exit_status == "fail"
    assert run.indices("cam") == run.indices("cam_id") == [(0, 1)]


def test_a_source_that_fails(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    cam.source.fail_at = 2
    began = time.monotonic()
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam], 5))
    assert time.monotonic() - began < PROMPTLY
    assert isinstance(caught.value.__cause__, OSError)
    assert str(caught.value.__cause__) == "the cable was pulled"
    assert run.announced("cam") == [0, 1]
    cam.source.fail_at = None
    RE(bp.count([cam], 1))
    assert run.exit_status == "success"


@pytest.mark.parametrize("where", ["start", "later"])
def test_a_timeout_of_the_source_is_told_as_it_is(
    RE: RunEngine, run: Any, camera: Any, where: str
) -> None:
    cam = camera()
    error = DeviceTimeoutError("the shutter does not answer")

    async def start(number: int, receiver: Any) -> None:
        if where == "start":
            raise error
        receiver.fail(error)

    cam.source.start = start
    began = time.monotonic()
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam]))
    assert caught.value.__cause__ is error
    assert time.monotonic() - began < PROMPTLY


def test_a_preparation_that_is_refused_changes_nothing(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger_and_read([cam])
        with pytest.raises(FailedStatus):
            yield from bps.prepare(
                cam, TriggerInfo(collections_per_event=3, deadtime=1), wait=True
            )
        yield from bps.trigger_and_read([cam])

    RE(plan())
    assert run.indices("cam") == [(0, 1), (1, 2)]


def test_a_source_that_does_not_start(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam = camera()

    async def start(number: int, receiver: Any) -> None:
        raise ConnectionError("no camera")

    cam.source.start = start
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam]))
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert store.uri is None


def test_a_frame_of_another_shape(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    cam.source.wrong_frame_at = 1
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam], 5))
    assert isinstance(caught.value.__cause__, FrameMismatchError)
    assert run.announced("cam") == [0]


def test_a_frame_of_another_shape_within_an_average(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()
    cam.source.wrong_frame_at = 1

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(exposures_per_collection=3), wait=True)
        yield from bps.trigger_and_read([cam])

    with pytest.raises(FailedStatus) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, FrameMismatchError)


def test_a_source_that_stays_silent(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    cam.source.silent = True

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(exposure_timeout=0.2), wait=True)
        yield from bps.trigger_and_read([cam])

    with pytest.raises(FailedStatus) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, DeviceTimeoutError)
    assert "0 of 1" in str(caught.value.__cause__)


def test_long_exposures_are_waited_for(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    waits: list[float] = []

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(exposures_per_collection=3), wait=True)
        yield from bps.abs_set(cam.exposure, 60.0, wait=True)
        yield from bps.trigger_and_read([cam])
        waits.append(cam._prepare_ctx.trigger_info.exposure_timeout)

    RE(plan())
    assert waits == [190.0]


def test_a_source_that_does_not_stop(
    RE: RunEngine,
    run: Any,
    camera: Any,
    store: FrameStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asyncio

    from bluesky_beamtime.devices import camera_logic

    monkeypatch.setattr(camera_logic, "STOP_TIMEOUT", 0.1)
    cam = camera()
    stop = cam.source.stop

    async def hang() -> None:
        if cam.source.next:
            await asyncio.sleep(60)
        await stop()

    cam.source.stop = hang
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam]))
    assert isinstance(caught.value.__cause__, DeviceTimeoutError)
    assert store.uri is None


def test_a_folder_that_cannot_be_made(RE: RunEngine, run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FrameStore(tmp_path / "file")
    with init_devices():
        cam = SimCamera(store, shape=(4, 4), exposure=0.001)
    with pytest.raises(FailedStatus) as caught:
        RE(bp.count([cam]))
    assert isinstance(caught.value.__cause__, StoreWriteError)


def test_late_frames_are_counted_and_not_stored(
    RE: RunEngine, run: Any, store: FrameStore
) -> None:
    class Eager:
        """Delivers one frame more than it was asked for."""

        shape = (2, 2)
        dtype = np.dtype("u1")

        async def configure(self, exposure: float | None) -> None: ...

        async def start(self, number: int, receiver: Any) -> None:
            for _ in range(number + 1):
                receiver.frame(np.zeros((2, 2), "u1"))

        async def stop(self) -> None: ...

    with init_devices():
        cam = Camera(store, source=Eager())
    RE(bp.count([cam], 3))
    assert run.accounting("cam") == {
        "expected": 3,
        "received": 3,
        "dropped": 0,
        "late": 3,
        "written": 3,
    }
    assert run.array("cam_id").tolist() == [0, 1, 2]
    assert (np.diff(run.array("cam_time")) >= 0).all()


def test_gaps_in_ids_are_counted_as_dropped(
    RE: RunEngine, run: Any, store: FrameStore
) -> None:
    from bluesky_beamtime.devices import FrameStamp

    class Lossy:
        shape = (2, 2)
        dtype = np.dtype("u1")

        async def configure(self, exposure: float | None) -> None: ...

        async def start(self, number: int, receiver: Any) -> None:
            # 2 before the first, 3 in between; then its counter starts again.
            stamps = [FrameStamp(12, lost=2), FrameStamp(16), FrameStamp(1)]
            for stamp in stamps:
                receiver.frame(np.zeros((2, 2), "u1"), stamp)

        async def stop(self) -> None: ...

    with init_devices():
        cam = Camera(store, source=Lossy())
    RE(fly_frames([cam], 3, exposure=None))
    assert run.accounting("cam")["dropped"] == 5
    assert run.array("cam_id").tolist() == [12, 16, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root to mount a small disk")
    where = tmp_path / "disk"
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(where)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_disk_that_really_fills(RE: RunEngine, run: Any, small_disk: Path) -> None:
    store = FrameStore(small_disk)
    with init_devices():
        cam = SimCamera(store, shape=(256, 256), exposure=0.002)
    with pytest.raises((FailedStatus, StoreWriteError)) as caught:
        RE(fly_frames([cam], 1000, exposure=0.002, flush_period=0.02))
    error = caught.value
    cause = error if isinstance(error, StoreWriteError) else error.__cause__
    assert isinstance(cause, StoreWriteError)
    assert cause.errno == errno.ENOSPC
    assert run.exit_status == "fail"
    announced = run.indices("cam")[-1][1]
    frames = run.array("cam")
    assert 5 < announced <= len(frames)
    for number in range(announced):
        expected = cam.rings.frame(number, 0.002)
        np.testing.assert_array_equal(frames[number], expected)
    assert store.uri is None
