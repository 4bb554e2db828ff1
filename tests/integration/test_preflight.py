"""Runs that would not fit on the disk are refused before anything moves."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from ophyd_async.core import TriggerInfo, init_devices, soft_signal_rw
from ophyd_async.sim import SimMotor

from bluesky_beamtime import Beamtime, BeamtimeWarning
from bluesky_beamtime.devices import Camera, SimCamera
from bluesky_beamtime.errors import DiskSpaceError
from bluesky_beamtime.plans import (
    Preflight,
    fly_frames,
    fly_scan,
    grid_frames,
    preflight_decorator,
    preflight_wrapper,
)
from bluesky_beamtime.plans import preflight as module
from bluesky_beamtime.storage import FrameStore

FRAME = 256 * 256 * 2
MB = 1000**2


class Disks:
    """Free space as the tests want it, by folder; what is asked is kept."""

    def __init__(self) -> None:
        self.free = {"/": 10**15}
        self.asked: list[str] = []

    def __call__(self, folder: Any) -> int:
        self.asked.append(str(folder))
        return self.free[self.of(folder)]

    def of(self, folder: Any) -> str:
        return max((d for d in self.free if str(folder).startswith(d)), key=len)


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    disks = Disks()
    monkeypatch.setattr(module, "free_space", disks)

    def number(folder: str) -> int | None:
        return list(disks.free).index(disks.of(folder)) if folder else None

    monkeypatch.setattr(module, "_device_number", number)
    return disks


@pytest.fixture
def beamtime(RE: Any, tmp_path: Path) -> Iterator[Beamtime]:
    with Beamtime(tmp_path / "x.db", on_error="raise") as beamtime:
        beamtime.attach(RE)
        yield beamtime


@pytest.fixture
def x(RE: Any) -> SimMotor:
    with init_devices():
        x = SimMotor()
    return x


@pytest.fixture
def cam(RE: Any, beamtime: Beamtime) -> SimCamera:
    with init_devices():
        cam = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.001)
    return cam


@pytest.fixture
def messages(RE: Any) -> list[Any]:
    """What the RunEngine has carried out."""
    seen: list[Any] = []
    RE.msg_hook = seen.append
    return seen


def commands(messages: list[Any]) -> set[str]:
    return {msg.command for msg in messages}


def refused(RE: Any, plan: Any) -> DiskSpaceError:
    with pytest.raises(DiskSpaceError) as caught:
        RE(plan)
    return caught.value


def test_a_scan_that_does_not_fit_is_refused_before_the_run(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any, disks: Disks, messages: list[Any]
) -> None:
    disks.free["/"] = 100 * MB
    error = refused(RE, bp.scan([cam], x, 0, 1, 100_000))
    assert not commands(messages) & {"set", "trigger", "open_run"}
    assert error.errno == errno.ENOSPC
    assert error.free == 100 * MB
    assert error.margin == 32 * MB
    assert 100_000 * FRAME < error.needed < 1.2 * 100_000 * FRAME
    assert error.filename == str(beamtime.path.with_suffix(".zarr") / "frames")
    text = str(error)
    assert "scan needs 13.2 GB for 100 000 events" in text
    assert "100.0 MB are free" in text and "nothing has moved" in text
    assert "preflight='warn'" in text
    assert len(beamtime) == 0
    # What was staged was given back, and a scan that fits goes on.
    assert "unstage" in commands(messages)
    RE(bp.scan([cam], x, 0, 1, 2))
    assert beamtime[-1].scan_id == 1
    assert beamtime[-1].primary.read()["cam"].shape == (2, 256, 256)


@pytest.mark.parametrize(
    "plan",
    [
        lambda cam, x: bp.count([cam], 100_000),
        lambda cam, x: bp.list_scan([cam], x, list(range(100_000))),
        lambda cam, x: bp.grid_scan([cam], x, 0, 1, 100_000),
        lambda cam, x: bp.rel_scan([cam], x, 0, 1, 100_000),
        lambda cam, x: fly_frames([cam], 100_000, exposure=0.001),
        lambda cam, x: grid_frames([cam], x, 0, 1, 100_000),
    ],
)
def test_plans_that_say_how_much_they_take(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any, disks: Disks, plan: Any
) -> None:
    disks.free["/"] = 100 * MB
    seen: list[Any] = []
    RE.msg_hook = seen.append
    refused(RE, plan(cam, x))
    assert not commands(seen) & {"set", "trigger", "kickoff", "open_run"}
    assert len(beamtime) == 0


def test_plans_with_an_open_end_need_the_margin(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks
) -> None:
    @bpp.stage_decorator([cam])
    @bpp.run_decorator(md={"num_points": None, "detectors": ["cam"]})
    def some() -> Any:
        for _ in range(3):
            yield from bps.trigger_and_read([cam])

    disks.free["/"] = 33 * MB
    RE(some())
    disks.free["/"] = 31 * MB
    error = refused(RE, bp.count([cam], None))
    assert error.needed == 0
    assert "count has an open end" in str(error)
    beamtime.attach(RE, margin=MB)
    RE(some())


def test_warn(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks, messages: list[Any]
) -> None:
    beamtime.attach(RE, preflight="warn")
    disks.free["/"] = 32 * MB
    with pytest.warns(BeamtimeWarning, match="count needs .* for 3 events"):
        RE(bp.count([cam], 3))
    assert beamtime[-1].exit_status == "success"
    beamtime.attach(RE, preflight=None)
    RE(bp.count([cam], 3))
    assert RE.preprocessors == []


def test_a_warning_that_is_an_error_does_not_fail_the_plan(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks, recwarn: Any
) -> None:
    # The tests turn warnings into errors, so that this is one.
    import warnings

    disks.free["/"] = 0
    beamtime.attach(RE, preflight="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RE(bp.count([cam], 2))
    assert beamtime[-1].exit_status == "success"


def test_attach_and_detach(RE: Any, beamtime: Beamtime) -> None:
    assert len(RE.preprocessors) == 1
    beamtime.attach(RE)
    assert len(RE.preprocessors) == 1
    beamtime.detach(RE)
    assert RE.preprocessors == []
    with pytest.raises(ValueError, match="refuse"):
        beamtime.attach(RE, preflight="never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="margin"):
        beamtime.attach(RE, margin=-1)
    assert RE.preprocessors == []


def test_several_frames_for_an_event(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any, disks: Disks, messages: list[Any]
) -> None:
    """What a detector is prepared for counts, before the first motor moves."""

    @bpp.stage_decorator([cam, x])
    @bpp.run_decorator(md={"num_points": 100, "detectors": ["cam"]})
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(collections_per_event=200), wait=True)
        yield from bps.mv(x, 1)

    disks.free["/"] = 32 * MB + 150 * FRAME
    error = refused(RE, plan())
    assert error.needed > 20_000 * FRAME
    assert "set" not in commands(messages)
    # The run was open; it says why it ended.
    assert beamtime[-1].exit_status == "fail"
    assert "32.0 MB have to remain" in beamtime[-1].stop["reason"]


def test_a_camera_that_takes_several_frames_unasked(
    RE: Any, beamtime: Beamtime, disks: Disks
) -> None:
    source = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.001).source
    with init_devices():
        cam = Camera(
            beamtime.frames,
            source=source,
            exposure=0.001,
            default_trigger_info=TriggerInfo(collections_per_event=50),
        )
    disks.free["/"] = 32 * MB + 130 * FRAME
    error = refused(RE, bp.count([cam], 3))
    assert error.needed > 150 * FRAME
    RE(bp.count([cam], 1))
    assert beamtime[-1].primary.read()["cam"].shape == (1, 50, 256, 256)


def test_a_flight_of_several_frames_for_each_event(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any, disks: Disks, messages: list[Any]
) -> None:
    disks.free["/"] = 32 * MB + 100 * FRAME
    plan = fly_scan([cam], x, 0, 1, 10, exposure=0.001, frames_per_event=20)
    error = refused(RE, plan)
    assert error.needed > 200 * FRAME
    # Preparing the flyer moves the motor to where it runs up.
    assert not commands(messages) & {"set", "prepare", "kickoff", "open_run"}


def test_several_frames_prepared_after_something_was_set(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any, disks: Disks, messages: list[Any]
) -> None:
    @bpp.stage_decorator([cam, x])
    @bpp.run_decorator(md={"num_points": 10, "detectors": ["cam"]})
    def plan() -> Any:
        yield from bps.mv(x, 1)
        yield from bps.prepare(cam, TriggerInfo(collections_per_event=20), wait=True)
        yield from bps.trigger_and_read([cam])

    disks.free["/"] = 32 * MB + 50 * FRAME
    error = refused(RE, plan())
    assert error.needed > 200 * FRAME
    assert "trigger" not in commands(messages)
    assert "nothing has moved" not in str(error)


def test_fly_scans_that_announce_nothing(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks, messages: list[Any]
) -> None:
    def rows(count: int, frames: int) -> Any:
        @bpp.stage_decorator([cam])
        @bpp.run_decorator()
        def plan() -> Any:
            info = TriggerInfo(number_of_events=frames)
            yield from bps.prepare(cam, info, wait=True)
            yield from bps.declare_stream(cam, name="primary", collect=True)
            for _ in range(count):
                yield from bps.prepare(cam, info, wait=True)
                yield from bps.kickoff(cam, wait=True)
                yield from bps.collect_while_completing([cam], [cam])

        return plan()

    disks.free["/"] = 32 * MB + 70 * FRAME
    error = refused(RE, rows(1, 100))
    assert error.needed > 100 * FRAME
    assert "kickoff" not in commands(messages)
    # Many rows fit one by one; what was taken is not counted again.
    RE(rows(5, 40))
    assert beamtime[-1].primary.read().sizes["time"] == 200


def test_two_disks(
    RE: Any, beamtime: Beamtime, disks: Disks, tmp_path: Path, x: Any
) -> None:
    far = FrameStore(tmp_path / "far")
    with init_devices():
        near = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.001)
        other = SimCamera(far, shape=(256, 256), exposure=0.001)
    disks.free["/"] = 100 * MB
    disks.free[str(tmp_path / "far")] = 10 * MB + 32 * MB
    RE(bp.count([near, other], 2))
    RE(preflight_wrapper(fly_frames([near], 5, exposure=0.001), tmp_path))
    error = refused(RE, bp.count([near, other], 200))
    assert error.filename == str(tmp_path / "far")
    assert error.needed < 1.1 * 200 * FRAME
    disks.free[str(tmp_path / "far")] = 10**12
    RE.preprocessors[0].tell = lambda line: None
    RE(bp.count([near, other], 2))
    error = refused(RE, bp.count([near, other], 2_000))
    assert error.filename is not None and error.filename.endswith("frames")


def test_runs_that_are_open_at_the_same_time(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks
) -> None:
    @bpp.stage_decorator([cam])
    def plan(saved: int) -> Any:
        md = {"num_points": 100, "detectors": ["cam"]}
        yield from bpp.set_run_key_wrapper(bps.open_run(md), "outer")
        for _ in range(saved):
            one = bps.trigger_and_read([cam])
            yield from bpp.set_run_key_wrapper(one, "outer")
        yield from bpp.set_run_key_wrapper(bps.open_run(md), "inner")
        yield from bpp.set_run_key_wrapper(bps.close_run(), "inner")
        yield from bpp.set_run_key_wrapper(bps.close_run(), "outer")

    disks.free["/"] = 32 * MB + 180 * FRAME
    error = refused(RE, plan(0))
    assert error.needed > 200 * FRAME
    RE(plan(60))


def test_compressed_frames_are_warned_of(
    RE: Any, beamtime: Beamtime, disks: Disks, tmp_path: Path
) -> None:
    with init_devices():
        cam = SimCamera(
            FrameStore(tmp_path / "small", compression="lz4"),
            shape=(256, 256),
            exposure=0.001,
        )
    disks.free["/"] = 32 * MB + 25 * FRAME
    with pytest.warns(BeamtimeWarning, match="needs up to .* for 30 events"):
        RE(bp.count([cam], 30))
    assert beamtime[-1].exit_status == "success"


class Files:
    """A detector of somebody else, which can describe itself only when it is at work.

    It says that its frames are in files of its own.
    """

    name, parent = "files", None

    def __init__(self, folder: Path) -> None:
        from event_model import ComposeStreamResource

        self._compose = ComposeStreamResource()
        self.folder = folder
        self.busy = False
        self.described = 0

    def stage(self) -> list[Any]:
        self.bundle = self._compose(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{self.folder}/files.h5",
            data_key="files",
            parameters={"chunk_shape": (1, 1000, 1000), "dataset": "/data"},
        )
        self.taken = 0
        return [self]

    def unstage(self) -> list[Any]:
        self.busy = False
        return [self]

    def trigger(self) -> Any:
        from ophyd_async.core import completed_status

        self.busy = True
        return completed_status()

    def read(self) -> dict[str, Any]:
        return {}

    def describe(self) -> dict[str, Any]:
        if not self.busy:
            raise RuntimeError("not now")
        return {
            "files": {
                "source": "files",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [1, 1000, 1000],
                "external": "STREAM:",
            }
        }

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}

    def get_index(self) -> int:
        return self.taken + 1

    def collect_asset_docs(self, index: int | None = None) -> Any:
        if not self.taken:
            yield "stream_resource", self.bundle.stream_resource_doc
        indices = {"start": self.taken, "stop": self.taken + 1}
        self.taken += 1
        yield "stream_datum", self.bundle.compose_stream_datum(indices)


def test_what_a_detector_took_the_last_time(
    RE: Any, beamtime: Beamtime, disks: Disks, tmp_path: Path
) -> None:
    """Its files may be compressed, or smaller now: a warning."""
    folder = tmp_path / "files"
    folder.mkdir()
    files = Files(folder)
    disks.free[str(folder)] = 32 * MB + 10 * MB
    # Nothing is known of it yet.
    RE(bp.count([files], 10))
    with pytest.warns(BeamtimeWarning, match=f"up to 20.0 MB .* '{folder}'"):
        RE(bp.count([files], 10))
    RE(bp.count([files], 4))
    # Where the files of another machine go, nobody here can say.
    folder.rmdir()
    RE(bp.count([files], 10))


def test_arrays_in_events_count(
    RE: Any, beamtime: Beamtime, disks: Disks, messages: list[Any]
) -> None:
    from ophyd_async.core import Array1D

    with init_devices():
        spectrum = soft_signal_rw(Array1D[np.float64], np.zeros(1000), name="spectrum")
    disks.free["/"] = 32 * MB + 70 * 8000
    RE(bp.count([spectrum], 60))
    error = refused(RE, bp.count([spectrum], 90))
    assert error.needed > 90 * 8000


def test_detectors_inside_what_is_staged(
    RE: Any, beamtime: Beamtime, disks: Disks
) -> None:
    from ophyd_async.core import Device, StandardReadable

    class Table(StandardReadable):
        def __init__(self, name: str = "") -> None:
            self.cam = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.001)
            self.other = Device()
            super().__init__(name)

    with init_devices():
        table = Table()
    disks.free["/"] = 32 * MB + 50 * FRAME
    RE(bp.count([table.cam], 40))
    assert refused(RE, bp.count([table.cam], 60)).needed > 60 * FRAME


def test_large_runs_are_told_of(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks, capsys: Any
) -> None:
    @bpp.stage_decorator([cam])
    @bpp.run_decorator(
        md={"num_points": 100_000, "detectors": ["cam"], "plan_name": "map"}
    )
    def plan() -> Any:
        yield from bps.trigger_and_read([cam])

    RE(bp.count([cam], 3))
    assert "about" not in capsys.readouterr().out
    RE(plan())
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "about" in line]
    assert line.startswith("map: about 13.")
    assert "GB in 100 000 events; 1.0 PB free at" in line


def test_devices_that_cannot_be_asked_cost_nobody_a_scan(
    RE: Any, beamtime: Beamtime, cam: Any, disks: Disks, monkeypatch: Any
) -> None:
    def broken(self: Any) -> Any:
        raise OSError("the hardware is away")

    monkeypatch.setattr(SimCamera, "footprint", broken)
    RE(bp.count([cam], 2))
    assert beamtime[-1].exit_status == "success"


def test_without_a_beamtime(
    RE: Any, tmp_path: Path, disks: Disks, messages: list[Any]
) -> None:
    with init_devices():
        cam = SimCamera(FrameStore(tmp_path), shape=(256, 256), exposure=0.001)
    disks.free["/"] = MB

    @preflight_decorator(tmp_path, margin=0)
    def plan(num: int) -> Any:
        return (yield from bp.count([cam], num))

    (uid,) = RE(plan(3))
    assert uid
    refused(RE, plan(1000))
    refused(RE, preflight_wrapper(bp.count([cam], 1000), tmp_path, margin=0))
    RE.preprocessors.append(Preflight(tmp_path, margin=0))
    refused(RE, bp.count([cam], 1000))


def test_the_plan_keeps_its_responses_and_its_errors(
    RE: Any, beamtime: Beamtime, cam: Any, x: Any
) -> None:
    caught: list[Exception] = []

    def plan() -> Any:
        try:
            yield from bps.wait_for([lambda: None])
        except Exception as error:
            caught.append(error)
        uid = yield from bps.open_run()
        yield from bps.mv(x, 3)
        where = yield from bps.rd(x)
        yield from bps.close_run()
        return uid, where

    RE._call_returns_result = True
    result = RE(plan()).plan_result
    assert result == (beamtime[-1].uid, 3.0)
    assert len(caught) == 1


def test_a_small_disk(RE: Any, tmp_path: Path, messages: list[Any]) -> None:
    """The same with a disk of its own, and nothing made up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted only by root")
    try:
        with Beamtime(disk / "x.db", on_error="raise") as beamtime:
            beamtime.attach(RE, margin=20 * MB)
            with init_devices():
                cam = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.001)
            error = refused(RE, bp.count([cam], 300))
            assert 300 * FRAME < error.needed < error.free < 48 << 20
            assert not commands(messages) & {"open_run", "trigger"}
            RE(bp.count([cam], 30))
            assert beamtime[-1].primary.read()["cam"].shape == (30, 256, 256)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_stock_detector(
    RE: Any, beamtime: Beamtime, disks: Disks, tmp_path: Path
) -> None:
    """It writes files of its own, and describes itself only when it is prepared."""
    from ophyd_async.sim import PatternGenerator, SimBlobDetector

    with init_devices():
        blob = SimBlobDetector(
            beamtime.path_provider,
            PatternGenerator(sleep=lambda seconds: asyncio.sleep(0)),
        )
    RE(bp.count([blob], 2))
    data = beamtime[-1].primary.read()["blob"]
    size = data.dtype.itemsize * int(np.prod(data.shape[1:]))
    disks.free["/"] = 32 * MB + 20 * size
    RE(bp.count([blob], 2))
    with pytest.warns(BeamtimeWarning, match="up to .* for 22 events"):
        RE(bp.count([blob], 22))
    assert beamtime[-1].exit_status == "success"
