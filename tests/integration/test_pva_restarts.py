"""A PVAccess camera whose IOC dies and comes back, and frames that are lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus
from ophyd_async.core import DetectorTrigger, TriggerInfo, init_devices
from typer.testing import CliRunner

from bluesky_beamtime.cli import app
from bluesky_beamtime.devices import PowderRings, PvaCamera, SimIoc
from bluesky_beamtime.errors import DroppedFramesError, SourceError, TriggerError
from bluesky_beamtime.plans import fly_frames

from .pva_panel import Panel

pytest.importorskip("p4p")

SHAPE = (40, 56)
RINGS = PowderRings(SHAPE, 7)
EXPOSURE = 0.01


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class MortalIoc:
    """A simulated IOC that can be killed, and started again where it was."""

    def __init__(self) -> None:
        self._port = str(free_port())
        self.deaths = 0
        self.start()

    def start(self) -> None:
        self.ioc = SimIoc(
            "MORTAL:",
            shape=SHAPE,
            seed=7,
            # Not what the scans set: a camera that came back has forgotten.
            exposure=0.2,
            options=("--port", self._port, "--attributes"),
        )

    def kill(self) -> None:
        os.kill(self.ioc.pid, signal.SIGKILL)
        self.ioc.stop()
        self.deaths += 1


@pytest.fixture
def mortal() -> Iterator[MortalIoc]:
    mortal = MortalIoc()
    yield mortal
    mortal.ioc.stop()


@pytest.fixture
def pva(mortal: MortalIoc, recorded: Any) -> Iterator[Any]:
    made: list[PvaCamera] = []

    def make(driven: bool = True, **options: Any) -> PvaCamera:
        ioc = mortal.ioc
        if driven:
            options.setdefault("detector", ioc.detector)
        with init_devices():
            cam = PvaCamera(
                recorded.beamtime.frames, ioc.image, conf=ioc.conf, **options
            )
        made.append(cam)
        return cam

    yield make
    for camera in made:
        camera.close()


@pytest.fixture
def panel(mortal: MortalIoc) -> Iterator[Panel]:
    panel = Panel(mortal.ioc)
    yield panel
    panel.disconnect()


def listed(beamtime: Any) -> dict[str, Any]:
    """What ``beamtime ls --json`` says of the newest run's camera."""
    done = CliRunner().invoke(app, ["ls", str(beamtime.path), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)[0]["frames"]["cam"]


def assert_as_published(data: Any, exposure: float = EXPOSURE) -> None:
    frames, ids = np.asarray(data["cam"]), np.asarray(data["cam_id"])
    for frame, number in zip(frames, ids, strict=True):
        expected = RINGS.frame(int(number), exposure, (0.0,))
        np.testing.assert_array_equal(frame, expected)


def die_and_return(
    mortal: MortalIoc, cam: PvaCamera, eventually: Callable[..., None], rows: int = 20
) -> threading.Thread:
    """Kill the IOC once there are so many frames, and start it again."""

    def act() -> None:
        eventually(lambda: cam._data.provider and cam._data.provider.rows >= rows, 60)
        mortal.kill()
        mortal.start()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


class TestRestart:
    def test_in_a_fly_scan(
        self, recorded: Any, pva: Any, mortal: MortalIoc, eventually: Any
    ) -> None:
        cam = pva()
        helper = die_and_return(mortal, cam, eventually)
        run = recorded(fly_frames([cam], 60, exposure=EXPOSURE))
        helper.join()
        assert mortal.deaths == 1
        assert run.exit_status == "success"
        data = run.primary.read()
        ids = data["cam_id"].values.astype(int)
        assert len(ids) == 60
        # Two counts, each without a gap: the second begins with the camera's first.
        (cut,) = np.flatnonzero(np.diff(ids) != 1)
        assert cut >= 19
        assert ids[cut + 1] == 1
        # With the exposure that was set, which the new IOC did not know.
        assert_as_published(data)
        expected = dict.fromkeys(("expected", "received", "written"), 60)
        assert run.accounting["cam"] == {**expected, "dropped": 0, "late": 0}
        assert listed(recorded.beamtime) == run.accounting["cam"]

    def test_of_a_camera_that_runs_freely(
        self,
        recorded: Any,
        pva: Any,
        panel: Panel,
        mortal: MortalIoc,
        eventually: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        panel.put("AcquireTime", EXPOSURE)
        panel.put("Acquire", 1)
        cam = pva(driven=False)

        def act() -> None:
            eventually(lambda: cam._data.provider and cam._data.provider.rows > 20, 60)
            mortal.kill()
            mortal.start()
            # Else the new count passes the old one while nobody listens: nothing tells
            # that from frames that were lost.
            eventually(lambda: "is back after" in caplog.text, 100)
            panel.put("AcquireTime", EXPOSURE)
            panel.put("Acquire", 1)

        helper = threading.Thread(target=act)
        helper.start()
        run = recorded(fly_frames([cam], 60, exposure=None))
        helper.join()
        data = run.primary.read()
        ids = data["cam_id"].values.astype(int)
        (cut,) = np.flatnonzero(np.diff(ids) < 0)
        account = run.accounting["cam"]
        assert account["received"] == account["written"] == 60
        # What the new count had before our first frame of it was taken and is lost,
        # but for what the PV held when we came back.
        held = ids[cut + 1] - 1 - account["dropped"]
        assert held >= 0
        assert_as_published(data)

    def test_between_two_points(
        self, recorded: Any, pva: Any, mortal: MortalIoc
    ) -> None:
        cam = pva()

        def act() -> None:
            mortal.kill()
            mortal.start()

        def plan() -> Any:
            yield from bps.prepare(cam, TriggerInfo(livetime=EXPOSURE), wait=True)
            for number in range(4):
                if number == 2:
                    act()
                yield from bps.trigger_and_read([cam])

        run = recorded(bpp.stage_wrapper(bpp.run_wrapper(plan()), [cam]))
        data = run.primary.read()
        assert len(data["cam"]) == 4
        assert_as_published(data)
        assert run.accounting["cam"]["dropped"] == 0

    def test_that_does_not_come(
        self, recorded: Any, pva: Any, mortal: MortalIoc, eventually: Any
    ) -> None:
        cam = pva(reconnect=0.5)

        def act() -> None:
            eventually(lambda: cam._data.provider and cam._data.provider.rows > 5, 60)
            mortal.kill()

        helper = threading.Thread(target=act)
        helper.start()
        with pytest.raises(FailedStatus) as caught:
            recorded(fly_frames([cam], 10_000, exposure=EXPOSURE))
        helper.join()
        assert isinstance(caught.value.__cause__, SourceError)
        message = str(caught.value.__cause__)
        assert "'MORTAL:Pva1:Image' disconnected after" in message
        assert "did not come back within 0.5 s" in message
        run = recorded.check()
        assert run.exit_status == "fail"
        assert run.accounting["cam"]["written"] > 5
        # And when it is there again the next scan works.
        mortal.start()
        run = recorded(fly_frames([cam], 5, exposure=EXPOSURE))
        assert run.exit_status == "success"
        assert_as_published(run.primary.read())


class TestLostFrames:
    def test_one_percent(self, recorded: Any, pva: Any, panel: Panel) -> None:
        # Room for all of them: a busy machine loses none besides.
        cam = pva(queue_size=600)
        panel.put("SimDropEvery", 100)
        run = recorded(fly_frames([cam], 500, exposure=0.001))
        ids = run.primary.read()["cam_id"].values.astype(int)
        # Frames 100, 200 … were taken and not published.
        assert ids[0] == 1
        assert not (ids % 100 == 0).any()
        dropped = int(ids[-1]) - 500
        assert dropped == 5
        assert run.accounting["cam"] == {
            "expected": 500,
            "received": 500,
            "dropped": 5,
            "late": 0,
            "written": 500,
        }
        assert listed(recorded.beamtime) == run.accounting["cam"]

    def test_of_an_exact_number(self, recorded: Any, pva: Any, panel: Panel) -> None:
        cam = pva(exactly=True)
        run = recorded(fly_frames([cam], 20, exposure=EXPOSURE))
        assert run.primary.read()["cam_id"].values.tolist() == list(range(1, 21))
        # It has taken these and no more.
        assert int(panel.get("ArrayCounter_RBV")) == 20
        panel.put("SimDropEvery", 8)
        with pytest.raises(FailedStatus) as caught:
            recorded(fly_frames([cam], 20, exposure=EXPOSURE))
        assert isinstance(caught.value.__cause__, DroppedFramesError)
        account = recorded.check().accounting["cam"]
        # Of 21 to 40 the camera has published all but 24, 32 and 40, the last.
        assert account == {
            "expected": 20,
            "received": 17,
            "dropped": 3,
            "late": 0,
            "written": 17,
        }
        assert int(panel.get("ArrayCounter_RBV")) == 40


def test_frames_that_change_their_size(
    recorded: Any, pva: Any, panel: Panel, eventually: Any
) -> None:
    cam = pva()

    def act() -> None:
        eventually(lambda: cam._data.provider and cam._data.provider.rows > 5, 60)
        panel.put("SizeX", 30)

    helper = threading.Thread(target=act)
    helper.start()
    with pytest.raises(FailedStatus) as caught:
        recorded(fly_frames([cam], 10_000, exposure=EXPOSURE))
    helper.join()
    error = caught.value.__cause__
    assert isinstance(error, SourceError)
    assert "uint16 (40, 56)" in str(error) and "uint16 (40, 30)" in str(error)
    assert recorded.check().accounting["cam"]["written"] > 5
    # Between scans it may.
    run = recorded(fly_frames([cam], 3, exposure=EXPOSURE))
    assert run.primary.read()["cam"].shape == (3, 40, 30)


class TestAttributes:
    def test_where_they_go(self, recorded: Any, pva: Any, panel: Panel) -> None:
        panel.put("SimPosition", 0.25)
        cam = pva()
        # The frame that a PV holds from before a first acquisition has them too.
        run = recorded(fly_frames([cam], 30, exposure=EXPOSURE))
        data = run.primary.read()
        np.testing.assert_array_equal(data["cam_Number"], data["cam_id"])
        np.testing.assert_array_equal(data["cam_SamplePosition"], np.full(30, 0.25))
        assert data["cam_Number"].dims == ("time",)
        (descriptor,) = (doc for name, doc in run.documents() if name == "descriptor")
        configuration = descriptor["configuration"]["cam"]["data"]
        assert configuration == {
            "cam-exposure": EXPOSURE,
            "cam-color_mode": "Mono",
            "cam-Model": "powder rings",
        }

    def test_those_that_are_asked_for(self, recorded: Any, pva: Any) -> None:
        cam = pva(attributes=["Number"])
        run = recorded(bp.count([cam], 3))
        data = run.primary.read()
        np.testing.assert_array_equal(data["cam_Number"], data["cam_id"])
        assert "cam_SamplePosition" not in data.variables
        with pytest.raises(Exception, match=r"called 'Nonsense'.*Number"):
            pva(attributes=["Nonsense"], name="other")


class TestTriggers:
    def test_external(self, recorded: Any, pva: Any, panel: Panel) -> None:
        cam = pva(trigger_modes={DetectorTrigger.EXTERNAL_EDGE: "External"})
        info = TriggerInfo(
            number_of_events=6, trigger=DetectorTrigger.EXTERNAL_EDGE, livetime=EXPOSURE
        )

        def plan() -> Any:
            yield from bps.prepare(cam, info, wait=True)
            assert int(panel.get("TriggerMode")) == 1
            yield from bps.declare_stream(cam, name="primary", collect=True)
            yield from bps.kickoff(cam, wait=True)
            for _ in range(6):
                panel.put("SimTrigger", 1)
            yield from bps.collect_while_completing(
                [cam], [cam], flush_period=0.1, stream_name="primary"
            )

        run = recorded(bpp.stage_wrapper(bpp.run_wrapper(plan()), [cam]))
        data = run.primary.read()
        assert data["cam_id"].values.tolist() == [1, 2, 3, 4, 5, 6]
        assert run.accounting["cam"]["dropped"] == 0
        # And internally again.
        run = recorded(fly_frames([cam], 3, exposure=EXPOSURE))
        assert int(panel.get("TriggerMode")) == 0
        assert len(run.primary.read()["cam"]) == 3

    def test_one_that_the_camera_was_not_told(self, recorded: Any, pva: Any) -> None:
        cam = pva()
        info = TriggerInfo(trigger=DetectorTrigger.EXTERNAL_EDGE)
        with pytest.raises(FailedStatus) as caught:
            recorded.RE(bps.prepare(cam, info, wait=True))
        assert isinstance(caught.value.__cause__, TriggerError)

    def test_time_between_exposures(
        self, recorded: Any, pva: Any, panel: Panel
    ) -> None:
        cam = pva()
        info = TriggerInfo(number_of_events=5, livetime=EXPOSURE, deadtime=0.04)

        def plan() -> Any:
            yield from bps.prepare(cam, info, wait=True)
            yield from bps.declare_stream(cam, name="primary", collect=True)
            yield from bps.kickoff(cam, wait=True)
            yield from bps.collect_while_completing(
                [cam], [cam], flush_period=0.1, stream_name="primary"
            )

        run = recorded(bpp.stage_wrapper(bpp.run_wrapper(plan()), [cam]))
        assert panel.get("AcquirePeriod") == pytest.approx(0.05)
        times = run.primary.read()["cam_time"].values
        assert (np.diff(times) > 0.0499).all()


def test_an_exact_number_needs_the_records(recorded: Any) -> None:
    with pytest.raises(ValueError, match="NumImages"):
        PvaCamera(recorded.beamtime.frames, "X:Pva1:Image", exactly=True)
