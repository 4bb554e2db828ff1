"""Frames through PVAccess, from an IOC in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from ophyd_async.core import NotConnectedError, TriggerInfo, init_devices

from bluesky_beamtime.devices import PowderRings, PvaCamera, SimIoc
from bluesky_beamtime.errors import DeviceError, DeviceTimeoutError, SourceError
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import FrameStore

from .pva_panel import Panel

pytest.importorskip("p4p")

SHAPE = (64, 80)
RINGS = PowderRings(SHAPE, 7)


@pytest.fixture(scope="module")
def ioc() -> Iterator[SimIoc]:
    with SimIoc("TEST:", shape=SHAPE, seed=7, exposure=0.01) as ioc:
        yield ioc


@pytest.fixture
def panel(ioc: SimIoc) -> Iterator[Panel]:
    panel = Panel(ioc)
    yield panel
    panel.close()


@pytest.fixture
def pva(RE: RunEngine, store: FrameStore, ioc: SimIoc) -> Iterator[Any]:
    """Make connected cameras, and disconnect them afterwards."""
    made: list[PvaCamera] = []

    def make(driven: bool = True, source: SimIoc = ioc, **options: Any) -> PvaCamera:
        options.setdefault("name", "cam")
        if driven:
            options["detector"] = source.detector
        with init_devices():
            camera = PvaCamera(store, source.image, conf=source.conf, **options)
        made.append(camera)
        return camera

    yield make
    for camera in made:
        camera.close()


def assert_as_published(run: Any, exposure: float = 0.01) -> None:
    """Compare each frame with what the IOC computed for its uniqueId."""
    frames, ids = run.array("cam"), run.array("cam_id")
    assert len(frames) == len(ids) > 0
    for frame, number in zip(frames, ids, strict=True):
        expected = RINGS.frame(int(number), exposure, (0.0,))
        np.testing.assert_array_equal(frame, expected)


def test_step_scan(RE: RunEngine, run: Any, pva: Any, ioc: SimIoc) -> None:
    cam = pva()
    RE(bp.count([cam], 5))
    assert run.exit_status == "success"
    key = run["descriptor"][0]["data_keys"]["cam"]
    assert key["source"] == f"pva://{ioc.image}"
    assert key["shape"] == [64, 80]
    assert run["descriptor"][0]["configuration"]["cam"]["data"]["cam-exposure"] == 0.01
    assert run.indices("cam") == [(n, n + 1) for n in range(5)]
    assert_as_published(run)
    assert (np.diff(run.array("cam_id").astype(int)) > 0).all()
    assert run.accounting("cam")["dropped"] == 0


def test_times_are_those_of_the_ioc(RE: RunEngine, run: Any, pva: Any) -> None:
    cam = pva()
    began = time.time()
    RE(fly_frames([cam], 30, exposure=0.01))
    times = run.array("cam_time")
    assert began < times[0] < times[-1] < time.time()
    # Beginnings of exposures, one after another.
    assert (np.diff(times) > 0.00999).all()


def test_fly_scan_sets_the_exposure(
    RE: RunEngine, run: Any, pva: Any, panel: Panel
) -> None:
    cam = pva()
    RE(fly_frames([cam], 25, exposure=0.004))
    assert float(panel.get("AcquireTime")) == 0.004
    assert run["descriptor"][0]["configuration"]["cam"]["data"] == {
        "cam-exposure": 0.004,
        "cam-color_mode": "Mono",
    }
    assert run.indices("cam")[-1][1] == 25
    assert_as_published(run, 0.004)
    assert np.diff(run.array("cam_id").astype(int)).tolist() == [1] * 24
    # The camera rests afterwards.
    assert int(panel.get("Acquire")) == 0


def test_dropped_frames_are_counted_exactly(
    RE: RunEngine, run: Any, pva: Any, panel: Panel
) -> None:
    cam = pva()
    before = int(panel.get("ArrayCounter_RBV"))
    panel.put("SimDropEvery", 7)
    # The first two as well, which leave no gap between frames.
    panel.put("SimDropNext", 2)
    RE(fly_frames([cam], 60, exposure=None))
    panel.put("SimDropEvery", 0)
    ids = run.array("cam_id").astype(int)
    assert len(ids) == 60
    assert ids[0] > before + 2
    not_published = ids[-1] - before - 60
    assert not_published > 10
    accounting = run.accounting("cam")
    assert accounting["dropped"] == not_published
    assert accounting["received"] == accounting["expected"] == 60
    assert_as_published(run)


def test_frames_after_the_scan_are_not_waited_for(
    RE: RunEngine, run: Any, pva: Any, panel: Panel
) -> None:
    cam = pva()
    RE(fly_frames([cam], 5, exposure=None))
    counter = int(panel.get("ArrayCounter_RBV"))
    assert int(run.array("cam_id")[-1]) in (counter, counter - 1)


def test_several_collections_per_event(RE: RunEngine, run: Any, pva: Any) -> None:
    cam = pva()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(collections_per_event=4), wait=True)
        yield from bps.trigger_and_read([cam])
        yield from bps.trigger_and_read([cam])

    RE(plan())
    assert run.indices("cam") == [(0, 1), (1, 2)]
    assert_as_published(run)


class TestFreeRunning:
    """A camera that somebody else drives."""

    @pytest.fixture(autouse=True)
    def _running(self, panel: Panel) -> None:
        panel.put("AcquireTime", 0.02)
        panel.put("Acquire", 1)

    def test_fly_scan(self, RE: RunEngine, run: Any, pva: Any, panel: Panel) -> None:
        cam = pva(driven=False)
        assert cam.exposure is None
        RE(fly_frames([cam], 10, exposure=None))
        assert run.accounting("cam") == {
            "expected": 10,
            "received": 10,
            "dropped": 0,
            "late": 0,
            "written": 10,
        }
        assert_as_published(run, 0.02)
        assert int(panel.get("Acquire")) == 1

    def test_step_scan_takes_exposures_that_began_after_the_trigger(
        self, RE: RunEngine, run: Any, pva: Any
    ) -> None:
        cam = pva(driven=False)
        triggers: list[float] = []
        RE.msg_hook = lambda msg: (
            triggers.append(time.time()) if msg.command == "trigger" else None
        )
        RE(bp.count([cam], 5))
        assert len(triggers) == 5
        assert (run.array("cam_time") > np.array(triggers)).all()
        assert run.accounting("cam")["dropped"] == 0

    def test_an_exposure_cannot_be_asked_for(
        self, RE: RunEngine, run: Any, pva: Any
    ) -> None:
        with pytest.raises(FailedStatus) as caught:
            RE(fly_frames([pva(driven=False)], 3, exposure=0.1))
        assert isinstance(caught.value.__cause__, ValueError)


def test_two_cameras_in_one_store(
    RE: RunEngine, run: Any, pva: Any, ioc: SimIoc
) -> None:
    with SimIoc("OTHER:", shape=(20, 30), seed=3, exposure=0.005) as second:
        cam1, cam2 = pva(name="cam1"), pva(name="cam2", source=second)
        RE(fly_frames([cam1, cam2], 20, exposure=0.005))
    assert run.exit_status == "success"
    assert run.indices("cam1") == run.indices("cam2")
    rings = PowderRings((20, 30), 3)
    for frame, number in zip(run.array("cam2"), run.array("cam2_id"), strict=True):
        expected = rings.frame(int(number), 0.005, (0.0,))
        np.testing.assert_array_equal(frame, expected)


def test_a_pv_that_does_not_answer(
    RE: RunEngine, store: FrameStore, ioc: SimIoc
) -> None:
    cam = PvaCamera(store, "NOT:THERE", conf=ioc.conf, name="cam")
    began = time.monotonic()
    with pytest.raises(NotConnectedError) as caught, init_devices(timeout=0.3):
        cam2 = cam  # noqa: F841  # connected by name
    assert time.monotonic() - began < 5
    assert "'NOT:THERE'" in str(caught.value)
    assert "pvget" in str(caught.value)
    assert DeviceTimeoutError.__name__ in str(caught.value)
    cam.close()


def test_no_frame_yet(RE: RunEngine, store: FrameStore) -> None:
    with SimIoc("NEW:", shape=SHAPE, options=("--no-first-frame",)) as ioc:
        cam = PvaCamera(store, ioc.image, conf=ioc.conf, name="cam")
        with pytest.raises(NotConnectedError, match="no frame yet"), init_devices():
            cam2 = cam  # noqa: F841  # connected by name
        cam.close()


def test_a_pv_that_holds_no_image(
    RE: RunEngine, store: FrameStore, ioc: SimIoc
) -> None:
    cam = PvaCamera(store, f"{ioc.detector}AcquireTime", conf=ioc.conf, name="cam")
    with pytest.raises(NotConnectedError, match="no NTNDArray"), init_devices():
        cam2 = cam  # noqa: F841  # connected by name
    cam.close()


def test_the_ioc_dies_in_a_scan(
    RE: RunEngine,
    run: Any,
    pva: Any,
    store: FrameStore,
    eventually: Callable[..., None],
) -> None:
    ioc = SimIoc("DYING:", shape=SHAPE, seed=7, exposure=0.01)
    cam = pva(source=ioc, timeout=1.0, reconnect=1.0)
    killed: list[float] = []

    def kill() -> None:
        eventually(lambda: cam._data.provider and cam._data.provider.rows > 10)
        killed.append(time.monotonic())
        ioc.kill()

    helper = threading.Thread(target=kill)
    helper.start()
    with pytest.raises(FailedStatus) as caught:
        RE(fly_frames([cam], 10_000, exposure=None, flush_period=60))
    helper.join()
    assert time.monotonic() - killed[0] < 30
    assert isinstance(caught.value.__cause__, SourceError)
    assert "disconnected after" in str(caught.value.__cause__)
    assert run.exit_status == "fail"
    assert run.indices("cam")[-1][1] > 10
    assert_as_published(run)
    assert store.uri is None


def test_a_camera_that_was_never_connected(
    RE: RunEngine, store: FrameStore, ioc: SimIoc
) -> None:
    for options in ({}, {"detector": ioc.detector}):
        cam = PvaCamera(store, ioc.image, name="cam", **options)
        with pytest.raises(FailedStatus) as caught:
            RE(bps.trigger(cam, wait=True))
        assert isinstance(caught.value.__cause__, DeviceError)
        assert "not connected" in str(caught.value.__cause__)


@pytest.mark.parametrize(("mode", "frames"), [("Single", 1), ("Multiple", 3)])
def test_modes_of_the_ioc(
    panel: Panel, eventually: Callable[..., None], mode: str, frames: int
) -> None:
    before = int(panel.get("ArrayCounter_RBV"))
    panel.put("NumImages", 3)
    panel.put("ImageMode", mode)
    panel.put("Acquire", 1)
    eventually(lambda: int(panel.get("Acquire")) == 0)
    assert int(panel.get("ArrayCounter_RBV")) == before + frames
    panel.put("ImageMode", "Continuous")


def test_the_ioc_refuses_nonsense(panel: Panel) -> None:
    from p4p.client.thread import RemoteError

    for name, value in (("AcquireTime", -1.0), ("NumImages", 0)):
        with pytest.raises(RemoteError, match="not positive"):
            panel.put(name, value)


def test_a_silent_camera(RE: RunEngine, run: Any, pva: Any, panel: Panel) -> None:
    # Nobody drives it.
    cam = pva(driven=False)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(exposure_timeout=0.3), wait=True)
        yield from bps.trigger_and_read([cam])

    with pytest.raises(FailedStatus) as caught:
        RE(plan())
    assert isinstance(caught.value.__cause__, DeviceTimeoutError)


def test_the_ioc_from_the_command_line() -> None:
    import json

    command = [sys.executable, "-m", "bluesky_beamtime.devices.ioc", "--prefix", "CLI:"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["image"] == "CLI:Pva1:Image"
    assert line["pid"] == process.pid
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


def test_the_ioc_ends_with_its_parent(tmp_path: Any, eventually: Any) -> None:
    script = (
        "import os, sys\n"
        "from bluesky_beamtime.devices import SimIoc\n"
        "ioc = SimIoc('ORPHAN:', shape=(4, 4))\n"
        "print(ioc.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False
    )
    pid = int(done.stdout)

    def gone() -> bool:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().split()[2] == "Z"
        except OSError:
            return True

    eventually(gone)
