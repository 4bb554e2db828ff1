"""What goes wrong during a run is what the doctor names afterwards."""

from __future__ import annotations

import time
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


@make_class_safe
class Plotter(CallbackBase):
    """Takes long."""

    def __init__(self) -> None:
        self.events = 0

    def event(self, doc: Any) -> Any:
        self.events += 1
        time.sleep(1.2)
        return doc

    def event_as_method(self, name: str, doc: Any) -> None:
        if name == "event":
            self.event(doc)


def test_slow_callbacks_are_named(RE: RunEngine, recorded: Any) -> None:
    """However they are given, and without a word from themselves."""
    beamtime = recorded.beamtime
    watch = beamtime.watch_subscribers(RE)
    with init_devices():
        diode = SimCounter(exposure=0.001)
    plotter = Plotter()

    def slow(name: str, doc: Any) -> None:
        if name == "event":
            time.sleep(1.1)

    tokens = [RE.subscribe(each) for each in (plotter, plotter.event_as_method, slow)]
    run = recorded(bp.count([diode], 1))
    times = {one.name: one for one in read_subscribers(beamtime._database)}
    name = f"{test_slow_callbacks_are_named.__name__}.<locals>.slow"
    assert times["Plotter"].seconds > 2.4
    assert 1.1 < times[name].seconds < times["Plotter"].seconds + 60
    assert all(one.run == run.uid for one in times.values())
    assert sum(one.share for one in times.values()) <= 1
    assert "Beamtime" in times
    findings = [
        one for one in examine(beamtime.path).findings if one.check == "subscribers"
    ]
    assert findings[0].level == "trouble"
    assert "Plotter" in findings[0].what

    # What is watched can be unsubscribed, and comes to its end, as otherwise.
    for token in tokens[1:]:
        RE.unsubscribe(token)
    before = plotter.events
    recorded(bp.count([diode], 1))
    assert plotter.events == before + 1
    watch.close()
    watch.close()
    recorded(bp.count([diode], 1))
    again = {one.run for one in read_subscribers(beamtime._database)}
    assert again == {beamtime[-2].uid}


def test_callbacks_may_go_while_they_are_watched(RE: RunEngine, recorded: Any) -> None:
    watch = recorded.beamtime.watch_subscribers(RE)
    # Before there is anything else: it keeps what a function knows then.
    with init_devices():
        diode = SimCounter(exposure=0.001)
    seen: list[str] = []

    class Fleeting:
        def take(self, name: str, doc: Any) -> None:
            seen.append(name)

    fleeting = Fleeting()
    RE.subscribe(fleeting.take)

    def once(name: str, doc: Any) -> None:
        nonlocal fleeting
        if name == "descriptor":
            # Nobody else holds it: bluesky forgets it at the next document.
            del fleeting
            RE.unsubscribe(token)

    token = RE.subscribe(once)
    recorded(bp.count([diode], 2))
    assert seen == ["start", "descriptor"]
    recorded(bp.count([diode], 1))
    watch.close()
    for entries in RE.dispatcher.cb_registry.callbacks.values():
        assert "_Timed" not in {type(entry).__name__ for entry in entries.values()}


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
