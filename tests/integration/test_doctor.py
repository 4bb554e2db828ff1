"""What goes wrong during a run is what the doctor names afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky import plans as bp
from bluesky.callbacks import CallbackBase
from bluesky.callbacks.core import make_class_safe
from ophyd_async.core import init_devices

from bluesky_beamtime.database.slow_subscribers import read_subscribers
from bluesky_beamtime.devices import PvaCamera, SimCounter, SimIoc
from bluesky_beamtime.doctor import examine
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.recording.subscribers import callback_in


@make_class_safe
class Plotter(CallbackBase):
    """Takes as long as it is told, and says where it is."""

    def __init__(self) -> None:
        self.looked = threading.Event()

    def event(self, doc: Any) -> Any:
        self.looked.clear()
        assert self.looked.wait(60)
        return doc


def test_slow_callbacks_are_named(RE: RunEngine, recorded: Any) -> None:
    """However a callback is wrapped, and without a word from itself."""
    plotter = Plotter()
    beamtime = recorded.beamtime
    watch = beamtime.watch_subscribers(RE)
    RE.subscribe(plotter)
    with init_devices():
        diode = SimCounter(exposure=0.001)
    stop = threading.Event()

    def let_go() -> None:
        # When the watch has seen it often enough to be sure.
        while not stop.wait(0.01):
            if watch._seen["Plotter"] >= 60 * max(1, len(beamtime)):
                plotter.looked.set()

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        run = recorded(bp.count([diode], 1))
    finally:
        stop.set()
        thread.join()
        watch.close()
    (slowest, *_) = read_subscribers(beamtime._database)
    assert slowest.name == "Plotter"
    assert slowest.run == run.uid
    assert slowest.seconds > 1
    assert 0.25 < slowest.share <= 1
    (finding,) = (
        one for one in examine(beamtime.path).findings if one.check == "subscribers"
    )
    assert finding.level == "trouble"
    assert "Plotter" in finding.what
    watch.close()
    assert watch._thread.is_alive() is False


def test_a_thread_that_is_in_no_callback() -> None:
    assert callback_in(None) is None
    import sys

    assert callback_in(sys._getframe()) is None


def test_frames_that_the_network_lost_are_named(
    RE: RunEngine, recorded: Any, eventually: Callable[..., None]
) -> None:
    pytest.importorskip("p4p")
    from p4p.client.thread import Context

    beamtime = recorded.beamtime
    with SimIoc("DOC:", shape=(16, 16), exposure=0.01) as ioc:
        with init_devices():
            camera = PvaCamera(
                beamtime.frames,
                ioc.image,
                detector=ioc.detector,
                conf=ioc.conf,
                timeout=30,
                name="camera",
            )
        recorded(fly_frames([camera], 5, exposure=0.01))
        assert examine(beamtime.path).ok
        with Context("pva", conf=ioc.conf, useenv=False) as context:
            context.put(f"{ioc.detector}SimDropEvery", 4)
        run = recorded(fly_frames([camera], 10, exposure=0.01))
        camera.close()
    dropped = run.accounting["camera"]["dropped"]
    assert dropped
    report = examine(beamtime.path)
    assert not report.ok
    (finding,) = (one for one in report.findings if one.check == "frames")
    assert finding.level == "trouble"
    assert f"camera {dropped} dropped" in finding.what
    assert finding.what.startswith("run 2")
