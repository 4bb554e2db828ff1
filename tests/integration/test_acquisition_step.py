"""Step scans: one event per trigger, whatever interrupts them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted
from ophyd_async.core import TriggerInfo
from ophyd_async.sim import SimMotor
from ophyd_async.testing import assert_emitted

from bluesky_beamtime.devices import SimCamera, SimCounter
from bluesky_beamtime.errors import DeviceError
from bluesky_beamtime.storage import FrameStore, from_uri


def pausing(plan: Any, command: str, occurrence: int) -> Any:
    """Put an immediate pause before the nth message of a kind."""
    seen = 0

    def insert(msg: Any) -> Any:
        nonlocal seen
        if msg.command == command:
            seen += 1
            if seen == occurrence:

                def paused() -> Any:
                    yield from bps.pause()
                    return (yield msg)

                return paused(), None
        return None, None

    return bpp.plan_mutator(plan, insert)


def test_two_cameras_share_a_store(RE: RunEngine, run: Any, camera: Any) -> None:
    cam1, cam2 = camera("cam1"), camera("cam2", shape=(5, 3))
    RE(bp.count([cam1, cam2], 4))

    # Frames, times and ids of two cameras: six arrays.
    assert_emitted(
        run.by_name,
        start=1,
        descriptor=1,
        stream_resource=6,
        stream_datum=24,
        event=4,
        stop=1,
    )
    assert run.exit_status == "success"
    keys = run["descriptor"][0]["data_keys"]
    assert keys["cam1"]["shape"] == [6, 8]
    assert keys["cam1"]["dtype"] == "array"
    assert keys["cam1"]["dtype_numpy"] == "<u2"
    assert keys["cam1"]["external"] == "STREAM:"
    assert keys["cam2"]["dims"] == ["cam2_y", "cam2_x"]
    assert keys["cam2"]["shape"] == [5, 3]
    assert keys["cam1_time"]["shape"] == []
    assert keys["cam1_time"]["units"] == "s"
    assert keys["cam1_id"]["dtype_numpy"] == "<u8"

    stores = {Path(from_uri(doc["uri"])).parent for doc in run["stream_resource"]}
    assert len(stores) == 1
    for key in ("cam1", "cam1_time", "cam1_id", "cam2", "cam2_time", "cam2_id"):
        (resource,) = run.resources(key)
        assert resource["mimetype"] == "application/x-zarr"
        assert resource["parameters"]["array_name"] == key
        assert all(size >= 1 for size in resource["parameters"]["chunk_shape"])
        assert run.indices(key) == [(0, 1), (1, 2), (2, 3), (3, 4)]
        assert run.seq_nums(key) == [(1, 2), (2, 3), (3, 4), (4, 5)]
    assert run.announced("cam1") == [0, 1, 2, 3]
    assert run.announced("cam2") == [0, 1, 2, 3]
    assert run.array("cam1_id").tolist() == [0, 1, 2, 3]
    assert run.array("cam1_time").tolist() == [1000.0, 1001.0, 1002.0, 1003.0]
    assert run.array("cam1").shape == (4, 6, 8)
    assert run.accounting("cam1") == {
        "expected": 4,
        "received": 4,
        "dropped": 0,
        "late": 0,
        "written": 4,
    }
    assert len(run["event"]) == 4


def test_store_is_closed_and_the_next_run_gets_another(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam = camera()
    RE(bp.count([cam]))
    assert store.uri is None
    RE(bp.count([cam]))
    first, second = (doc["uri"] for doc in run.resources("cam"))
    assert first != second
    assert run.announced("cam") == [0, 1]


def test_every_document_of_a_scan_with_motor_and_counter(
    RE: RunEngine, run: Any, store: FrameStore
) -> None:
    from ophyd_async.core import init_devices

    with init_devices():
        motor = SimMotor()
        cam = SimCamera(store, shape=(40, 48), exposure=0.001, motor=motor)
        counter = SimCounter(motor, rate=1e8, exposure=0.001)
    RE(bp.scan([cam, counter], motor, -1, 1, 5))

    frames = run.array("cam")
    for number, position in enumerate(np.linspace(-1, 1, 5)):
        expected = cam.rings.frame(number, 0.001, (position,))
        np.testing.assert_array_equal(frames[number], expected)
    counts = [event["data"]["counter"] for event in run["event"]]
    assert max(counts) == counts[2]
    assert run["descriptor"][0]["configuration"]["cam"]["data"] == {
        "cam-exposure": 0.001
    }


def test_several_collections_per_event(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(collections_per_event=3), wait=True)
        for _ in range(2):
            yield from bps.trigger_and_read([cam])

    RE(plan())
    key = run["descriptor"][0]["data_keys"]["cam"]
    assert key["shape"] == [3, 6, 8]
    assert key["dims"] == ["cam_frame", "cam_y", "cam_x"]
    assert run["descriptor"][0]["data_keys"]["cam_time"]["shape"] == [3]
    assert run.indices("cam") == run.indices("cam_id") == [(0, 1), (1, 2)]
    assert run.announced("cam") == [0, 1, 2, 3, 4, 5]
    assert run.resources("cam")[0]["parameters"]["chunk_shape"] == [1, 6, 8]


def test_exposures_are_averaged_into_a_collection(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(exposures_per_collection=3), wait=True)
        for _ in range(2):
            yield from bps.trigger_and_read([cam])

    RE(plan())
    assert run.announced("cam") == [1, 4]
    assert run.array("cam_id").tolist() == [0, 3]
    accounting = run.accounting("cam")
    assert (accounting["expected"], accounting["received"]) == (6, 6)
    assert accounting["written"] == 2


def test_livetime_sets_the_exposure_and_zero_keeps_it(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(livetime=0.25), wait=True)
        yield from bps.trigger_and_read([cam], name="first")
        yield from bps.prepare(cam, TriggerInfo(), wait=True)
        yield from bps.trigger_and_read([cam], name="second")

    RE(plan())
    for descriptor in run["descriptor"]:
        assert descriptor["configuration"]["cam"]["data"] == {"cam-exposure": 0.25}
    assert cam.source.exposures == [0.25, None]


def test_exposure_can_be_scanned(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()
    RE(bp.scan([cam], cam.exposure, 0.1, 0.3, 3))
    assert [e for e in cam.source.exposures if e] == pytest.approx([0.1, 0.2, 0.3])
    assert run.announced("cam") == [0, 1, 2]


@pytest.mark.parametrize("exposure", [0.0, -1.0, float("nan"), float("inf")])
def test_no_exposure_but_a_positive_number(
    RE: RunEngine, camera: Any, exposure: float
) -> None:
    cam = camera()
    with pytest.raises(Exception) as caught:
        RE(bps.abs_set(cam.exposure, exposure, wait=True))
    assert isinstance(caught.value.__cause__, ValueError)


def test_pause_after_an_exposure_repeats_it(
    RE: RunEngine, run: Any, camera: Any
) -> None:
    cam = camera()
    triggers = 2
    with pytest.raises(RunEngineInterrupted):
        RE(pausing(bp.count([cam], 3), "create", triggers))
    RE.resume()

    assert run.exit_status == "success"
    announced = run.indices("cam")
    assert len(announced) == len(run["event"]) == 3
    assert all(stop - start == 1 for start, stop in announced)
    assert run.seq_nums("cam") == [(1, 2), (2, 3), (3, 4)]
    assert run.indices("cam_time") == run.indices("cam_id") == announced
    # One row belongs to no event.
    assert len(run.array("cam")) == 4
    assert run.accounting("cam")["written"] == 4


@pytest.mark.parametrize("occurrence", [1, 2])
def test_pause_before_an_event_is_saved(
    RE: RunEngine, run: Any, camera: Any, occurrence: int
) -> None:
    # The documents of the first reading, StreamResources among them, are lost.
    cam = camera()
    with pytest.raises(RunEngineInterrupted):
        RE(pausing(bp.count([cam], 3), "save", occurrence))
    RE.resume()

    assert run.exit_status == "success"
    uids = [event["uid"] for event in run["event"]]
    assert len(uids) == len(set(uids))
    assert len(run.resources("cam")) == 1
    starts = [start for start, _ in run.indices("cam")]
    assert starts == sorted(set(starts))
    assert [event["seq_num"] for event in run["event"]][-1] == 3


def test_pause_within_an_event_of_several_collections(
    RE: RunEngine, run: Any, camera: Any, eventually: Callable[..., None]
) -> None:
    cam = camera()
    gate = cam.source.gate = threading.Semaphore(3 + 1)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(collections_per_event=3), wait=True)
        for _ in range(3):
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([cam])

    def pause_in_second_event() -> None:
        eventually(lambda: cam.source.next == 4)
        RE.request_pause(defer=False)

    helper = threading.Thread(target=pause_in_second_event)
    helper.start()
    with pytest.raises(RunEngineInterrupted):
        RE(plan())
    helper.join()
    gate.release(20)
    RE.resume()

    assert run.exit_status == "success"
    # Row 3 was cut off: its event is filled up, left out, and the next one is whole.
    assert run.indices("cam") == [(0, 1), (2, 3), (3, 4)]
    assert run.announced("cam") == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert run.announced("cam_id") == run.announced("cam")


def test_resume_while_the_first_exposure_goes_on(
    RE: RunEngine, run: Any, camera: Any, eventually: Callable[..., None]
) -> None:
    cam = camera()
    gate = cam.source.gate = threading.Semaphore(0)
    helper = threading.Thread(
        target=lambda: (
            eventually(lambda: cam.source.starts),
            RE.request_pause(defer=False),
        )
    )
    helper.start()
    with pytest.raises(RunEngineInterrupted):
        RE(bp.count([cam], 2))
    helper.join()
    # One for the exposure that goes on, which may or may not be cut off.
    gate.release(3)
    RE.resume()
    assert run.exit_status == "success"
    assert len(run["event"]) == 2
    assert [b - a for a, b in run.indices("cam")] == [1, 1]


def test_abort_leaves_a_closed_store_and_a_usable_camera(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam = camera()
    with pytest.raises(RunEngineInterrupted):
        RE(pausing(bp.count([cam], 10), "create", 4))
    RE.abort(reason="enough")
    assert run.exit_status == "abort"
    assert store.uri is None
    announced = run.indices("cam")
    assert len(run.array("cam")) >= announced[-1][1]
    RE(bp.count([cam], 2))
    assert run.exit_status == "success"


def test_abort_does_not_wait_for_a_long_exposure(
    RE: RunEngine,
    run: Any,
    camera: Any,
    store: FrameStore,
    eventually: Callable[..., None],
) -> None:
    cam = camera(period=60.0)
    helper = threading.Thread(
        target=lambda: (
            eventually(lambda: cam.source.starts),
            RE.request_pause(defer=False),
        )
    )
    helper.start()
    with pytest.raises(RunEngineInterrupted):
        RE(bp.count([cam], 2))
    helper.join()
    began = time.monotonic()
    RE.abort()
    assert time.monotonic() - began < 5
    assert run.exit_status == "abort"
    assert store.uri is None


def test_two_runs_in_one_staging(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    def plan() -> Any:
        for _ in range(2):
            yield from bpp.run_wrapper(
                bps.repeat(lambda: bps.trigger_and_read([cam]), 2)
            )

    RE(plan())
    first, second = run.resources("cam")
    assert first["uid"] != second["uid"]
    assert first["uri"] == second["uri"]
    assert [start["uid"] for start in run["start"]] == [
        first["run_start"],
        second["run_start"],
    ]
    assert run.indices("cam") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert run.seq_nums("cam") == [(1, 2), (2, 3)] * 2
    assert store.uri is None


def test_two_streams_of_one_run(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        for name in ("dark", "primary", "dark", "primary"):
            yield from bps.trigger_and_read([cam], name=name)

    RE(plan())
    assert run.announced("cam") == [0, 1, 2, 3]
    names = {doc["uid"]: doc["name"] for doc in run["descriptor"]}
    uids = {doc["uid"] for doc in run.resources("cam")}
    datums = [doc for doc in run["stream_datum"] if doc["stream_resource"] in uids]
    assert [names[doc["descriptor"]] for doc in datums] == ["dark", "primary"] * 2
    assert run.seq_nums("cam") == [(1, 2), (1, 2), (2, 3), (2, 3)]


def test_dropped_event(RE: RunEngine, run: Any, camera: Any) -> None:
    cam = camera()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.trigger(cam, wait=True)
        yield from bps.create("primary")
        yield from bps.read(cam)
        yield from bps.drop()
        yield from bps.trigger_and_read([cam])

    RE(plan())
    assert run.announced("cam") == [1]
    assert run.indices("cam_time") == [(1, 2)]


def test_without_staging(
    RE: RunEngine, run: Any, camera: Any, store: FrameStore
) -> None:
    cam = camera()

    def unstaged() -> Any:
        yield from bpp.run_wrapper(bps.repeat(lambda: bps.trigger_and_read([cam]), 2))

    RE(unstaged())
    RE(unstaged())
    assert run.indices("cam") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert run.announced("cam") == [0, 1, 2, 3]
    # After a scan that was staged and unstaged it opens a store of its own.
    RE(bp.count([cam], 1))
    assert store.uri is None
    RE(unstaged())
    assert run.announced("cam") == [0, 1, 2, 3, 4, 5, 6]
    assert len({doc["uri"] for doc in run.resources("cam")}) == 3
    assert store.uri is not None
    RE(bpp.stage_wrapper(bps.null(), [cam]))
    assert store.uri is None


def test_trigger_after_an_unstaged_preparation_for_many(
    RE: RunEngine, camera: Any
) -> None:
    cam = camera()
    RE(bps.prepare(cam, TriggerInfo(number_of_events=5), wait=True))
    with pytest.raises(Exception) as caught:
        RE(bps.trigger(cam, wait=True))
    assert isinstance(caught.value.__cause__, DeviceError)
    assert "stage()" in str(caught.value.__cause__)
    RE(bps.unstage(cam, wait=True))


def test_a_camera_without_a_name_says_so(RE: RunEngine, camera: Any) -> None:
    cam = camera()
    cam.set_name("")
    with pytest.raises(Exception) as caught:
        RE(bps.trigger(cam, wait=True))
    assert "name" in str(caught.value.__cause__)


def test_deadtime_is_refused(RE: RunEngine, camera: Any) -> None:
    cam = camera()
    with pytest.raises(Exception) as caught:
        RE(bps.prepare(cam, TriggerInfo(deadtime=0.1), wait=True))
    assert isinstance(caught.value.__cause__, ValueError)


def test_best_effort_callback_takes_the_documents(
    RE: RunEngine, run: Any, camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from bluesky.callbacks.best_effort import BestEffortCallback

    best = BestEffortCallback()
    best.disable_plots()
    RE.subscribe(best)
    RE(bp.count([camera()], 2))
    assert run.exit_status == "success"
