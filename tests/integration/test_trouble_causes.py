"""What can go wrong in sources, stores, plans and subscribers, and what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.suspenders import SuspendFloor
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd_async.core import TriggerInfo
from ophyd_async.sim import SimMotor

from bluesky_beamtime.errors import (
    DeviceError,
    DeviceTimeoutError,
    FrameMismatchError,
    SinkClosedError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.plans import fly_frames
from bluesky_beamtime.storage import FrameSink
from tests.integration.trouble import Beamline, ClosingGate, at_message, beamline

KINDS = {
    "step": lambda line: bp.count(line.cams, 4),
    "fly": lambda line: fly_frames(line.cams, 40, exposure=None, flush_period=0.01),
}


def fails(line: Beamline, plan: Any) -> BaseException:
    """Run a plan that fails, and return what failed it at first."""
    with pytest.raises(Exception) as caught:
        line.RE(plan)
    error: BaseException = caught.value
    while isinstance(error, FailedStatus) and error.__cause__ is not None:
        error = error.__cause__
    return error


# ------------------------------------------------------------------ in the source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["before", "start", "stop", "configure"])
def test_a_source_that_fails(line: Beamline, kind: str, where: str) -> None:
    line.next_scan()
    source = line.sources[1]

    def pull_the_cable() -> None:
        raise OSError(errno.EIO, "the cable was pulled")

    if where == "before":
        source.at("before", source.next + 2, pull_the_cable)
    else:
        # The stop of staging, or the one after the first frame.
        source.at(where, source.calls[where] + (where == "stop"), pull_the_cable)
    error = fails(line, KINDS[kind](line))
    assert isinstance(error, OSError)
    assert "the cable was pulled" in str(error)
    taken = range(3) if kind == "step" else range(41)
    # Who cannot stop its camera may have a thread that goes on.
    line.aftermath(
        "fail",
        reason="the cable was pulled",
        kind=kind,
        events=taken,
        threads=where != "stop",
    )
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_says_itself_what_failed(line: Beamline, kind: str) -> None:
    source = line.sources[0]
    broken = ValueError("the sensor is too warm")
    receivers: list[Any] = []
    start = source.start

    async def remember(number: int, receiver: Any) -> None:
        receivers.append(receiver)
        await start(number, receiver)

    source.start = remember

    def tell() -> None:
        receivers[-1].fail(broken)
        receivers[-1].fail(ValueError("something that follows from it"))

    source.at("before", source.next + 2, tell)
    assert fails(line, KINDS[kind](line)) is broken
    line.aftermath("fail", reason="too warm", kind=kind, events=range(3))
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_of_another_shape(line: Beamline, kind: str) -> None:
    source = line.sources[0]
    source.at("before", source.next + 2, lambda: np.zeros((3, 3), "<u2"))
    assert isinstance(fails(line, KINDS[kind](line)), FrameMismatchError)
    line.aftermath("fail", reason="(3, 3)", kind=kind, events=range(3))
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_vanishes(line: Beamline, kind: str) -> None:
    """It says nothing any more, and only time tells."""
    line.next_scan()
    source, gate = line.sources[1], ClosingGate()
    gone = source.next + 2
    source.at("before", gone, gate)

    def plan() -> Any:
        info = TriggerInfo(
            number_of_events=4 if kind == "fly" else 1, exposure_timeout=0.2
        )
        for camera in line.cams:
            yield from bps.prepare(camera, info, wait=True)
        if kind == "step":
            for _ in range(4):
                yield from bps.trigger_and_read(line.cams)
        else:
            yield from bps.declare_stream(*line.cams, name="primary", collect=True)
            yield from bps.kickoff_all(*line.cams, wait=True)
            yield from bps.collect_while_completing(
                line.cams, line.cams, flush_period=0.02, stream_name="primary"
            )

    # The thread ends only when the camera is stopped: the first time by staging.
    stops = source.calls["stop"] + (3 if kind == "step" else 1)
    source.at("stop", stops, gate.opened.set)
    staged = bpp.stage_wrapper(bpp.run_wrapper(plan()), line.cams)
    error = fails(line, staged)
    assert isinstance(error, DeviceTimeoutError)
    assert "cam2 delivered nothing for 0.2 s" in str(error)
    line.aftermath("fail", reason="delivered nothing", kind=kind, events=range(3))
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_does_not_stop(
    line: Beamline, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bluesky_beamtime.devices import camera_logic

    monkeypatch.setattr(camera_logic, "STOP_TIMEOUT", 0.2)
    source = line.sources[0]

    async def hang() -> None:
        await asyncio.sleep(3600)

    # The first stop is staging's.
    source.at("stop", source.calls["stop"] + 1, hang)
    error = fails(line, KINDS[kind](line))
    assert isinstance(error, DeviceTimeoutError)
    assert "did not stop within 0.2 s" in str(error)
    # It is asked again by the next scan; until then its thread may be there.
    line.aftermath(
        "fail", reason="did not stop", kind=kind, events=range(41), threads=False
    )
    line.next_scan()


# ------------------------------------------------------------------- in the store


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "where"), [("cam2", "write"), ("cam2", "publish"), ("cam2_time", "publish")]
)
def test_a_disk_that_is_full(
    line: Beamline, kind: str, key: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = getattr(FrameSink, where)
    full = threading.Event()
    full.set()

    def refuse(sink: FrameSink, *args: Any) -> Any:
        if full.is_set() and sink.name == key and sink.frames_written >= 2:
            raise StoreWriteError(
                "no space left; free some space", errno=errno.ENOSPC, filename="x"
            )
        return genuine(sink, *args)

    monkeypatch.setattr(FrameSink, where, refuse)
    error = fails(line, KINDS[kind](line))
    assert isinstance(error, StoreWriteError)
    assert error.errno == errno.ENOSPC
    line.aftermath("fail", reason="free some space", kind=kind, events=range(3))
    full.clear()
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_somebody_closes(line: Beamline, kind: str) -> None:
    source = line.sources[0]
    source.at("before", source.next + 2, line.beamtime.frames.close)
    error = fails(line, KINDS[kind](line))
    assert isinstance(error, (SinkClosedError, StoreStateError, DeviceError))
    # What waited to be written with the next block, the stamps, is cut off: frames that
    # another camera of a fly scan has announced may lack their counterparts.
    line.aftermath("fail", kind=kind, events=range(4), coverage=kind == "step")
    line.next_scan()


@pytest.mark.parametrize("kind", KINDS)
def test_unstaged_while_the_last_frame_is_written(
    line: Beamline, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, write = ClosingGate(), FrameSink.write
    first, number = line.sources[1].next, 2

    def slow(sink: FrameSink, frame: Any) -> None:
        if sink.name == "cam2" and sink.frames_written == number:
            gate()
        write(sink, frame)

    monkeypatch.setattr(FrameSink, "write", slow)

    def abort_while_it_is_written() -> None:
        assert gate.reached.wait(30)
        line.RE.abort()
        # The camera is being stopped, which waits for its thread.
        gate.opened.set()

    helper = threading.Thread(target=abort_while_it_is_written)
    helper.start()
    line.interrupted(KINDS[kind](line))
    helper.join()
    (run,) = line.aftermath("abort", kind=kind, events=range(41))
    # The frame is in the store, whether it was announced or not.
    uris = [
        doc["uri"] for name, doc in run.documents() if doc.get("data_key") == "cam2"
    ]
    monkeypatch.undo()
    if uris:
        frames = line.rows(uris[0])
        assert len(frames) > number
        np.testing.assert_array_equal(
            frames[number], line.sources[1].frame(first + number)
        )
    line.next_scan()


# ------------------------------------------------------------- in plan and callbacks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["start", "descriptor", "stream_datum", "stop"])
def test_a_subscriber_that_fails(line: Beamline, kind: str, name: str) -> None:
    armed = threading.Event()
    armed.set()

    def spoil(kind: str, doc: dict[str, Any]) -> None:
        if armed.is_set() and kind == name:
            armed.clear()
            raise KeyError("a typing error in somebody's script")

    token = line.RE.subscribe(spoil)
    error = fails(line, KINDS[kind](line))
    assert "typing error" in str(error)
    line.RE.unsubscribe(token)
    # Who was subscribed before has got the document, the recorder among them.
    events = {"start": 0, "descriptor": 0, "stop": 4 if kind == "step" else 40}
    status = "success" if name == "stop" else "fail"
    line.aftermath(
        status,
        kind=kind,
        events=events.get(name),
        # The RunEngine stops in the middle of what belongs to one event.
        coverage=name != "stream_datum",
    )
    line.next_scan()


def test_two_runs_of_one_staging(line: Beamline) -> None:
    def plan() -> Any:
        for number in range(2):
            one = bpp.run_wrapper(bps.repeat(_shot(line), 3))
            yield from at_message(one, 8, bps.pause) if number == 0 else one

    line.interrupted(bpp.stage_wrapper(plan(), line.cams))
    first, second = line.aftermath(runs=2, events=3)
    uris = [_uris(run) for run in (first, second)]
    assert uris[0] == uris[1]
    line.next_scan()


def test_two_runs_of_one_staging_after_an_abort(line: Beamline) -> None:
    def plan() -> Any:
        try:
            yield from bpp.run_wrapper(at_message(bps.repeat(_shot(line), 3), 6, _fail))
        except RuntimeError:
            yield from bpp.run_wrapper(bps.repeat(_shot(line), 3))

    line.RE(bpp.stage_wrapper(plan(), line.cams))
    assert [s["exit_status"] for n, s in line.docs if n == "stop"] == [
        "fail",
        "success",
    ]
    line.aftermath({"fail", "success"}, runs=2, events=range(4))
    line.next_scan()


@pytest.mark.parametrize("then", ["resume", "abort", "stop", "halt"])
def test_a_run_within_a_run(line: Beamline, then: str) -> None:
    one, other = line.cams

    @bpp.stage_decorator(line.cams)
    @bpp.set_run_key_decorator("outer")
    @bpp.run_decorator(md={"which": "outer"})
    def plan() -> Any:
        @bpp.set_run_key_decorator("inner")
        @bpp.run_decorator(md={"which": "inner"})
        def inner() -> Any:
            yield from bps.checkpoint()
            yield from bps.trigger_and_read([other])
            yield from at_message(bps.trigger_and_read([other]), 2, bps.pause)
            yield from bps.checkpoint()

        yield from bps.checkpoint()
        yield from bps.trigger_and_read([one])
        yield from inner()
        yield from bps.checkpoint()
        yield from bps.trigger_and_read([one])
        yield from bps.checkpoint()

    line.interrupted(plan(), then)
    status = {"abort": "abort", "halt": "abort"}.get(then, "success")
    outer, inner = line.aftermath(status, runs=2)
    complete = then == "resume"
    assert len(outer.primary.read()["time"]) == (2 if complete else 1)
    assert len(inner.primary.read()["time"]) == (2 if complete else 1)
    line.next_scan()


@pytest.mark.parametrize("then", ["resume", "abort", "halt"])
def test_without_staging(line: Beamline, then: str) -> None:
    """The cameras stay in their store until somebody unstages them."""

    def plan() -> Any:
        yield from bpp.run_wrapper(at_message(bps.repeat(_shot(line), 3), 8, bps.pause))

    line.interrupted(plan(), then)
    status = "success" if then == "resume" else "abort"
    line.aftermath(status, events=3 if then == "resume" else range(4), idle=False)
    line.RE(bpp.run_wrapper(bps.repeat(_shot(line), 2)))
    line.aftermath(events=2, idle=False)
    # A scan that stages takes them out of it.
    line.next_scan()


def test_a_suspender(line: Beamline) -> None:
    """The beam is lost and comes back, as a real suspender sees it."""
    beam = Beam()
    suspender = SuspendFloor(beam, 10, resume_thresh=20)
    line.RE.install_suspender(suspender)

    def lost() -> Any:
        # In the RunEngine's loop, which is where a suspender makes its event.
        beam.put(5)
        back = threading.Timer(0.05, lambda: beam.put(30))
        back.start()
        for _ in range(10):
            yield from bps.null()
        back.join()

    for number in (5, 12, 20):
        line.RE(at_message(bp.count(line.cams, 4), number, lost))
        line.aftermath(events=4)
    line.RE.remove_suspender(suspender)
    line.next_scan()


def test_interruptions_are_recorded(line: Beamline) -> None:
    line.RE.record_interruptions = True
    line.interrupted(at_message(bp.count(line.cams, 3), 12, bps.pause))
    (run,) = line.aftermath(events=3)
    assert run["interruptions"].read()["interruption"].values.tolist() == [
        "pause",
        "resume",
    ]
    line.RE.record_interruptions = False
    line.next_scan()


def test_after_a_fly_scan_nothing_can_be_paused_in_the_same_call(
    line: Beamline,
) -> None:
    """Bluesky has no way back from ``clear_checkpoint`` but another ``RE(…)``."""

    def day() -> Any:
        yield from fly_frames(line.cams, 5, exposure=None)
        yield from at_message(bp.count(line.cams, 3), 12, bps.pause)

    with pytest.raises(RunEngineInterrupted):
        line.RE(day())
    assert line.RE.state == "idle"
    assert [doc["exit_status"] for name, doc in line.docs if name == "stop"] == [
        "success",
        "fail",
    ]
    line.forget_documents()
    line.interrupted(at_message(bp.count(line.cams, 3), 12, bps.pause))
    line.aftermath(events=3)


def test_the_reason_of_an_abort_is_kept_by_who_closes_the_run(line: Beamline) -> None:
    """Bluesky's plans close theirs without the reason that the RunEngine was given."""
    for number, reason in ((12, ""), (22, "enough")):
        with contextlib.suppress(RunEngineInterrupted):
            line.RE(
                at_message(
                    bp.count(line.cams, 2), number, line.from_outside("abort", "enough")
                )
            )
        (run,) = line.aftermath("abort")
        assert run.stop["reason"] == reason
    line.next_scan()


async def test_a_stock_motor_that_is_stopped_as_it_begins_fails() -> None:
    """When this fails ophyd-async has mended it: mend the page on interruptions too."""
    motor = SimMotor("motor")
    await motor.connect()
    status = motor.set(1.0)
    await motor.stop(success=True)
    with pytest.raises(asyncio.CancelledError):
        await status


def test_another_run_engine_goes_on(RE: RunEngine, tmp_path: Path) -> None:
    """The devices stay with the event loop that all RunEngines of a process share."""
    with beamline(RE, tmp_path) as line:
        line.interrupted(at_message(bp.count(line.cams, 3), 12, bps.pause), "abort")
        line.aftermath("abort")
        second = RunEngine(context_managers=[], loop=RE.loop)
        line.moves_to(second)
        line.next_scan()
        line.interrupted(at_message(bp.count(line.cams, 3), 12, bps.pause))
        line.aftermath(events=3)
        line.moves_to(RE)
        line.next_scan()


# ------------------------------------------------------------------------- pieces


class Beam:
    """A signal of a beam's current, as ophyd's that suspenders know."""

    def __init__(self) -> None:
        self.name = "beam"
        self.value = 100.0
        self._callbacks: list[Callable[..., None]] = []

    def subscribe(
        self, callback: Callable[..., None], event_type: Any = None, run: bool = True
    ) -> None:
        self._callbacks.append(callback)
        if run:
            callback(self.value)

    def clear_sub(self, callback: Callable[..., None]) -> None:
        self._callbacks.remove(callback)

    def get(self) -> float:
        return self.value

    def put(self, value: float) -> None:
        self.value = value
        for callback in self._callbacks:
            callback(value)


def _shot(line: Beamline) -> Callable[[], Any]:
    def shot() -> Any:
        yield from bps.trigger_and_read(line.cams)

    return shot


def _fail() -> Any:
    raise RuntimeError("somebody opened the hutch")
    yield


def _uris(run: Any) -> set[str]:
    return {doc["uri"] for name, doc in run.documents() if name == "stream_resource"}
