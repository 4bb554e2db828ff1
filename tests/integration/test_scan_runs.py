"""Runs that end without a word, and runs that overlap, on one storage (L-26, L-27)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from event_model import compose_run
from ophyd_async.core import init_devices

from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.recording import ScanSubscriber, scan_runs
from bluesky_beamtime.storage import ScanStorage
from tests.integration.test_recording_plans import Soft


class Emitted:
    """A run of numbers that is emitted piece by piece."""

    def __init__(self, take: Callable[[str, Any], None], number: int) -> None:
        self.take = take
        self.run = compose_run(metadata={"num_points": 100, "scan_id": number})
        take("start", self.run.start_doc)
        self.descriptor: Any = None

    def points(self, *values: float) -> None:
        if self.descriptor is None:
            self.descriptor = self.run.compose_descriptor(
                name="primary",
                data_keys={"value": {"dtype": "number", "shape": [], "source": "s"}},
                hints={"s": {"fields": ["value"]}},
            )
            self.take("descriptor", self.descriptor.descriptor_doc)
        for value in values:
            event = self.descriptor.compose_event(
                data={"value": value}, timestamps={"value": 0.0}
            )
            self.take("event", event)

    def stop(self) -> None:
        self.take("stop", self.run.compose_stop())


class Scans:
    def __init__(self, base: Path) -> None:
        self.storage = ScanStorage(base, format="npz")
        self.subscriber = ScanSubscriber(self.storage, "value", end_timeout=100.0)
        self.begun = 0

    def begin(self, *values: float) -> Emitted:
        self.begun += 1
        run = Emitted(self.subscriber, self.begun)
        run.points(*values)
        return run

    def saved(self) -> list[list[float]]:
        """Return what was measured, file by file."""
        assert self.subscriber.wait(100) and self.storage.wait(100)
        found: list[list[float]] = []
        for number in range(self.storage.getNumber() or 0):
            path = Path(self.storage.base) / f"folder/data_{number}.npz"
            if path.exists():
                with np.load(path) as file:
                    found.append(file["data"][file["mask"]].tolist())
        return found


@pytest.fixture
def scans(tmp_path: Path) -> Iterator[Scans]:
    made = Scans(tmp_path)
    yield made
    made.subscriber.close()
    assert made.storage.wait(100)


def test_subscriber_of_a_plan_that_fails_takes_the_next_runs(
    scans: Scans, RE: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is unsubscribed before the stop document, and hears no more of that run."""
    soft = Soft("soft", value=[1.0])

    @bpp.subs_decorator(scans.subscriber)
    def plan(fails: bool) -> Any:
        yield from bps.open_run({"num_points": 2})
        yield from bps.trigger_and_read([soft])
        if fails:
            raise ValueError("no beam")
        yield from bps.trigger_and_read([soft])
        yield from bps.close_run()

    with caplog.at_level(logging.WARNING, "bluesky_beamtime"):
        for fails in (True, True, False, False):
            try:
                RE(plan(fails))
            except ValueError:
                assert fails
    assert scans.saved() == [[1.0], [1.0], [1.0, 1.0], [1.0, 1.0]]
    assert not scans.storage.saving
    said = [r.message for r in caplog.records if "nothing has come of" in r.message]
    assert len(said) == 2


def test_run_that_waits_is_taken_when_the_other_one_has_ended(scans: Scans) -> None:
    """The old one's stop came late: nothing of either is missing."""
    first = scans.begin(1, 2)
    second = scans.begin(3, 4)
    assert scans.saved() == []
    first.stop()
    second.points(5)
    assert scans.saved() == [[1, 2]] and scans.storage.reserved
    second.stop()
    assert scans.saved() == [[1, 2], [3, 4, 5]]


def test_run_that_waits_is_left_out_when_the_other_one_goes_on(scans: Scans) -> None:
    """That is told by close, with the next step; the first one is whole."""
    first = scans.begin(1, 2)
    second = scans.begin(3, 4)
    first.points(5)
    second.points(6)
    second.stop()
    first.stop()
    assert scans.saved() == [[1, 2, 5]]
    with pytest.raises(StoreStateError, match="run 2 came while run 1 went on"):
        scans.subscriber.close()


def test_run_waits_only_for_so_many_documents(
    scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in memory; then it fills its array while it goes on."""
    monkeypatch.setattr(scan_runs, "_MOST_HELD", 3)
    first = scans.begin(1)
    second = scans.begin(2)
    assert scans.saved() == []
    second.points(3)
    assert scans.saved() == [[1]] and scans.storage.reserved
    # The first is the one that comes too late now.
    first.points(4)
    second.points(5)
    second.stop()
    first.stop()
    assert scans.saved() == [[1], [2, 3, 5]]
    with pytest.raises(StoreStateError, match="run 1 came while run 2 went on"):
        scans.subscriber.close()


def test_outer_run_goes_on_in_an_array_of_its_own(
    scans: Scans, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing says that it is not over; nothing of it is lost."""
    outer = scans.begin(1, 2)
    scans.begin(3, 4).stop()
    outer.points(5)
    outer.stop()
    assert scans.saved() == [[1, 2], [3, 4], [5]]
    assert "run 1 goes on" in caplog.text
    scans.begin(6).stop()
    assert scans.saved()[3:] == [[6]]


def test_run_that_goes_on_after_several_others_is_told(scans: Scans) -> None:
    """Only the last one that was given up is remembered in full."""
    oldest = scans.begin(1)
    scans.begin(2)
    scans.begin(3).stop()
    scans.begin(4)
    scans.begin(5).stop()
    oldest.points(6, 7)
    oldest.stop()
    assert scans.saved() == [[1], [2], [3], [4], [5]]
    with pytest.raises(StoreStateError, match="run 1 went on after two later runs"):
        scans.subscriber.close()


def test_close_saves_what_fills_and_what_waits(scans: Scans) -> None:
    """Each in its turn."""
    scans.begin(1, 2)
    scans.begin(3)
    scans.begin(4)
    scans.subscriber.close()
    assert scans.saved() == [[1, 2], [3], [4]]


@pytest.mark.parametrize("verb", ["wait", "close"])
def test_listener_that_waits_for_its_own_thread_is_told(
    verb: str, scans: Scans
) -> None:
    """It would wait for itself for ever, and so would the end of the run."""
    told: list[str] = []

    def listen(tags: dict[str, Any]) -> None:
        with pytest.raises(StoreStateError) as error:
            getattr(scans.subscriber, verb)()
        told.append(str(error.value))

    scans.storage.tagRequest.connect(listen)
    scans.begin(1, 2).stop()
    assert scans.saved() == [[1, 2]]
    assert len(told) == 1 and "must neither wait nor close" in told[0]


def test_a_stream_resource_need_not_name_its_run(
    tmp_path: Path, RE: Any, recorded: Any
) -> None:
    """event-model asks for it no more; the stream's descriptor tells."""
    with init_devices():
        cam = SimCamera(recorded.beamtime.frames)
    run = recorded(fly_frames([cam], 3, exposure=0.001))
    storage = ScanStorage(tmp_path / "maps", format="npz")
    with ScanSubscriber(storage, end_timeout=100.0) as subscriber:
        for name, doc in run.documents():
            subscriber(
                name,
                {k: v for k, v in doc.items() if k != "run_start"}
                if name == "stream_resource"
                else doc,
            )
        assert subscriber.wait(100) and storage.wait(100)
    with np.load(tmp_path / "maps/folder/data_0.npz") as file:
        assert np.array_equal(file["data"], run.primary.read()["cam"].values)
