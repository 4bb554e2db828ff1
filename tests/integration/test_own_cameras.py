"""A camera of one's own: what its software may do, and what a plan may ask of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd_async.core import DetectorTrigger, TriggerInfo, init_devices

from bluesky_beamtime.devices import Camera, FrameSource, TriggeredSource
from bluesky_beamtime.errors import (
    BeamtimeError,
    DeviceError,
    DeviceTimeoutError,
    FrameMismatchError,
    TriggerError,
)
from bluesky_beamtime.plans import fly_frames

sys.path.append(str(Path(__file__).parents[2] / "docs" / "examples"))
from makers.acme import AcmeCamera, AcmeError, AcmeImage
from makers.acme_source import AcmeSource, acme_camera

INTERNAL = DetectorTrigger.INTERNAL
EDGE = DetectorTrigger.EXTERNAL_EDGE
LEVEL = DetectorTrigger.EXTERNAL_LEVEL
TRIGGERS = (INTERNAL, EDGE, LEVEL)
PATIENCE = 30.0


class Acme(AcmeCamera):
    """The maker's camera, small and fast, with a moment at which it misbehaves."""

    def __init__(self) -> None:
        super().__init__()
        self.features |= {"Width": 8, "Height": 8, "ExposureTime": 1000.0}
        self.starts: list[int] = []
        self.misbehave: Callable[[AcmeImage], Iterable[AcmeImage]] | None = None

    def start(self, number: int, on_image: Any, on_error: Any) -> None:
        self.on_image, self.on_error = on_image, on_error
        super().start(number, on_image, on_error)
        self.starts.append(number)

    def _images(self) -> Iterable[AcmeImage]:
        (image,) = super()._images()
        return [image] if self.misbehave is None else self.misbehave(image)


@pytest.fixture
def acme() -> Iterator[Acme]:
    acme = Acme()
    yield acme
    acme.stop()


@pytest.fixture
def beam(RE: RunEngine, recorded: Any, run: Any, acme: Acme) -> Iterator[Any]:
    """A beamtime with the camera; documents are validated as they come."""
    with init_devices():
        recorded.cam = acme_camera(recorded.beamtime.frames, acme, name="cam")
    yield recorded
    assert not acme.running


def pulses(acme: Acme, number: int, info: TriggerInfo) -> None:
    if info.trigger is not INTERNAL:
        for _ in range(number):
            acme.pulse(0.001)


def step(cam: Camera, acme: Acme, info: TriggerInfo, events: int) -> Any:
    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        for event in range(events):
            yield from bps.trigger(cam, group="frame")
            while len(acme.starts) <= event:
                # A pulse that comes earlier finds nothing that waits for it.
                yield from bps.sleep(0.002)
            pulses(acme, info.number_of_exposures, info)
            yield from bps.wait("frame")
            yield from bps.create("primary")
            yield from bps.read(cam)
            yield from bps.save()

    return plan()


def fly(cam: Camera, acme: Acme, info: TriggerInfo) -> Any:
    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        pulses(acme, info.number_of_exposures, info)
        yield from bps.collect_while_completing(
            [cam], [cam], flush_period=0.05, stream_name="primary"
        )

    return plan()


def cause(caught: Any) -> BaseException:
    error = caught.value
    return error.__cause__ if isinstance(error, FailedStatus) else error


# ------------------------------------------------------------ what a plan asks for


def test_it_is_what_the_protocols_say(acme: Acme) -> None:
    source = AcmeSource(acme)
    assert isinstance(source, FrameSource)
    assert isinstance(source, TriggeredSource)


def test_the_source_is_a_handful_of_lines() -> None:
    import inspect

    lines = [line for line in inspect.getsource(AcmeSource).splitlines() if line]
    assert len(lines) < 30


@pytest.mark.parametrize("how", ["step", "fly"])
@pytest.mark.parametrize("averaged", [1, 3])
@pytest.mark.parametrize("collections", [1, 2])
@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.name)
def test_every_combination_reads_back(
    beam: Any,
    run: Any,
    acme: Acme,
    trigger: DetectorTrigger,
    collections: int,
    averaged: int,
    how: str,
) -> None:
    events = 3
    info = TriggerInfo(
        trigger=trigger,
        livetime=0.0 if trigger is LEVEL else 0.002,
        collections_per_event=collections,
        exposures_per_collection=averaged,
        number_of_events=1 if how == "step" else events,
    )
    beam.RE(bps.mv(beam.cam.gain, 6))
    plan = step(beam.cam, acme, info, events) if how == "step" else None
    recorded = beam(plan or fly(beam.cam, acme, info))

    dataset = recorded.primary.read()
    inner = () if collections == 1 else ("cam_frame",)
    assert dataset.cam.dims == ("time", *inner, "cam_y", "cam_x")
    assert dataset.cam.shape == (events, *([collections] * bool(inner)), 8, 8)
    assert dataset.cam.dtype == np.uint16
    assert dataset.cam_time.dims == ("time", *inner)
    # Image n holds n, a row the mean of its exposures.
    rows = np.arange(1, events * collections * averaged + 1).reshape(-1, averaged)
    expected = rows.mean(axis=1)
    frames = dataset.cam.values.reshape(-1, 8, 8)
    np.testing.assert_array_equal(frames[:, 3, 5], expected)
    np.testing.assert_array_equal(frames[:, 3, 0], expected + 6)
    np.testing.assert_array_equal(dataset.cam_id.values.ravel(), rows[:, 0])
    assert (np.diff(dataset.cam_time.values.ravel()) > 0).all()
    account = recorded.accounting["cam"]
    exposures = events * collections * averaged
    assert account["expected"] == account["received"] == exposures
    assert account["dropped"] == account["late"] == 0
    assert account["written"] == events * collections
    settings = recorded.primary.configuration["cam"]
    assert settings["cam-gain"] == 6.0
    if trigger is not LEVEL:
        assert settings["cam-exposure"] == 0.002
        assert acme.get("ExposureTime") == 2000.0
    assert recorded.exit_status == "success"


def test_settings_are_applied_and_described(beam: Any, run: Any, acme: Acme) -> None:
    beam.RE(bps.mv(beam.cam.gain, 12, beam.cam.exposure, 0.003))
    assert (acme.get("Gain"), acme.get("ExposureTime")) == (12, 3000.0)
    # Somebody turns the knob in the maker's own program.
    acme.set("Gain", 3)
    beam(bp.count([beam.cam]))
    (descriptor,) = run["descriptor"]
    configuration = descriptor["configuration"]["cam"]
    assert configuration["data"] == {"cam-gain": 3, "cam-exposure": 0.003}
    assert configuration["data_keys"]["cam-gain"]["units"] == "dB"
    with pytest.raises(FailedStatus) as caught:
        beam.RE(bps.mv(beam.cam.gain, 90))
    assert isinstance(cause(caught), AcmeError)


def test_settings_by_name_must_be_free_names(beam: Any) -> None:
    frames, signal = beam.beamtime.frames, beam.cam.exposure
    for name in ("exposure", "stage", "a gain"):
        with pytest.raises(ValueError, match=name):
            Camera(
                frames, source=AcmeSource(AcmeCamera()), config_signals={name: signal}
            )


class Plain:
    """A source that declares nothing but what it must."""

    shape = (2, 3)
    dtype = np.dtype("u1")

    async def configure(self, exposure: float | None) -> None: ...

    async def start(self, number: int, receiver: Any) -> None:
        for _ in range(number):
            receiver.frame(np.zeros((2, 3), "u1"))

    async def stop(self) -> None: ...


@pytest.mark.parametrize("trigger", [EDGE, LEVEL], ids=lambda trigger: trigger.name)
def test_a_trigger_that_is_not_declared_is_refused(
    RE: RunEngine, run: Any, store: Any, trigger: DetectorTrigger
) -> None:
    with init_devices():
        cam = Camera(store, source=Plain())
    with pytest.raises(FailedStatus) as caught:
        RE(bps.prepare(cam, TriggerInfo(trigger=trigger), wait=True))
    error = cause(caught)
    assert isinstance(error, TriggerError)
    assert isinstance(error, ValueError)
    assert trigger.name in str(error)
    assert "supports INTERNAL" in str(error)
    RE(bp.count([cam]))
    assert run.exit_status == "success"


def test_triggers_that_cannot_be_chosen_are_refused_at_once(store: Any) -> None:
    class Half(Plain):
        triggers = (EDGE,)

    with pytest.raises(TypeError, match="set_trigger"):
        Camera(store, source=Half())


async def test_what_the_source_declares_is_told_to_who_asks(beam: Any) -> None:
    assert await beam.cam.get_trigger_deadtime() == (set(TRIGGERS), 0.001)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.name)
def test_too_short_a_period_is_refused(
    beam: Any, run: Any, acme: Acme, trigger: DetectorTrigger
) -> None:
    info = TriggerInfo(trigger=trigger, deadtime=0.0005)
    with pytest.raises(FailedStatus) as caught:
        beam.RE(bps.prepare(beam.cam, info, wait=True))
    assert isinstance(cause(caught), TriggerError)
    assert "0.001 s" in str(cause(caught))
    assert acme.starts == []
    assert run.docs == []


def test_a_deadtime_that_is_long_enough_is_kept(beam: Any, acme: Acme) -> None:
    info = TriggerInfo(livetime=0.001, deadtime=0.02, number_of_events=4)
    recorded = beam(fly(beam.cam, acme, info))
    assert acme.get("FrameDelay") == pytest.approx(20_000)
    times = recorded.primary.read().cam_time.values
    assert (np.diff(times) >= 0.02).all()
    # 0 is as little as possible.
    beam(bp.count([beam.cam]))
    assert acme.get("FrameDelay") == pytest.approx(1000)


def test_a_deadtime_of_a_source_that_cannot_wait(RE: RunEngine, store: Any) -> None:
    class Slow(Plain):
        deadtime = 0.01

    with init_devices():
        cam = Camera(store, source=Slow(), exposure=None)
    RE(bps.prepare(cam, TriggerInfo(deadtime=0.01), wait=True))
    for deadtime, word in ((0.005, "too short"), (0.02, "cannot be kept")):
        with pytest.raises(FailedStatus) as caught:
            RE(bps.prepare(cam, TriggerInfo(deadtime=deadtime), wait=True))
        assert isinstance(cause(caught), TriggerError)
        assert word in str(cause(caught))
    RE(bps.unstage(cam, wait=True))


def test_pulses_that_come_before_the_kickoff_are_not_lost(
    beam: Any, run: Any, acme: Acme, eventually: Callable[..., None]
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(trigger=EDGE, number_of_events=5, collections_per_event=2)
        yield from bps.prepare(cam, info, wait=True)
        for _ in range(7):
            acme.pulse()
        eventually(lambda: acme.frame_id == 7, PATIENCE)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        # Nothing is announced that nobody has kicked off.
        yield from bps.collect(cam, name="primary")
        assert run.indices("cam") == []
        yield from bps.kickoff(cam, wait=True)
        for _ in range(3):
            acme.pulse()
        yield from bps.collect_while_completing([cam], [cam], stream_name="primary")

    recorded = beam(plan())
    assert recorded.exit_status == "success"
    frames = recorded.primary.read().cam
    assert frames.shape == (5, 2, 8, 8)
    assert frames.values[:, :, 3, 3].ravel().tolist() == list(range(1, 11))
    assert recorded.accounting["cam"]["expected"] == 10


def test_a_pulse_that_comes_before_the_trigger_is_not_lost(
    beam: Any, acme: Acme, eventually: Callable[..., None]
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(trigger=EDGE), wait=True)
        acme.pulse()
        eventually(lambda: acme.frame_id == 1, PATIENCE)
        yield from bps.trigger_and_read([cam])

    recorded = beam(plan())
    assert recorded.primary.read().cam.values[:, 3, 3].tolist() == [1]
    assert acme.starts == [1]


def test_several_kickoffs_of_one_preparation_share_the_pulses(
    beam: Any, acme: Acme
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(trigger=EDGE, number_of_events=9)
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        for events, sent in ((2, 5), (3, 0), (4, 4)):
            yield from bps.abs_set(cam.events_to_kickoff, events, wait=True)
            yield from bps.kickoff(cam, wait=True)
            for _ in range(sent):
                acme.pulse()
            yield from bps.collect_while_completing([cam], [cam], stream_name="primary")

    recorded = beam(plan())
    assert acme.starts == [9]
    assert recorded.primary.read().cam.values[:, 3, 3].tolist() == list(range(1, 10))


def test_a_kickoff_that_waits_for_pulses_cannot_be_repeated(
    beam: Any, run: Any, acme: Acme
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        info = TriggerInfo(trigger=EDGE, number_of_events=4)
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.abs_set(cam.events_to_kickoff, 2, wait=True)
        yield from bps.kickoff(cam, wait=True)
        yield from bps.kickoff(cam, wait=True)

    with pytest.raises(FailedStatus) as caught:
        beam.RE(plan())
    assert isinstance(cause(caught), DeviceError)
    assert "complete()" in str(cause(caught))


def test_a_kickoff_after_it_was_stopped_says_so(beam: Any, acme: Acme) -> None:
    cam = beam.cam

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.prepare(cam, TriggerInfo(trigger=EDGE), wait=True)
        yield from bps.unstage(cam, wait=True)
        yield from bps.kickoff(cam, wait=True)

    with pytest.raises(FailedStatus) as caught:
        beam.RE(plan())
    assert "prepare() it again" in str(cause(caught))


def pause_when(RE: RunEngine, condition: Callable[[], Any]) -> threading.Thread:
    """Ask for an immediate pause as soon as a condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.002)
        RE.request_pause(defer=False)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_abort_while_it_waits_for_pulses(beam: Any, run: Any, acme: Acme) -> None:
    cam = beam.cam
    info = TriggerInfo(trigger=EDGE, number_of_events=6)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.checkpoint()
        yield from bps.kickoff(cam, wait=True)
        for _ in range(2):
            acme.pulse()
        yield from bps.collect_while_completing(
            [cam], [cam], flush_period=0.05, stream_name="primary"
        )

    helper = pause_when(beam.RE, lambda: run.announced("cam") == [1, 2])
    with pytest.raises(RunEngineInterrupted):
        beam.RE(plan())
    helper.join()
    assert acme.running
    beam.RE.abort()
    assert not acme.running
    aborted = beam.beamtime[-1]
    assert aborted.exit_status == "abort"
    assert aborted.primary.read().cam.values[:, 3, 3].tolist() == [1, 2]
    # The next scans find the camera as if nothing had been.
    assert beam(bp.count([cam], 2)).primary.read().cam.shape == (2, 8, 8)
    assert beam(fly(cam, acme, info)).primary.read().cam.shape == (6, 8, 8)


def test_pause_and_resume_while_an_event_waits_for_its_pulse(
    beam: Any, run: Any, acme: Acme, eventually: Callable[..., None]
) -> None:
    cam = beam.cam
    waiting = threading.Event()

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(trigger=EDGE), wait=True)
        for event in range(3):
            yield from bps.checkpoint()
            before = len(acme.starts) if event else 0
            yield from bps.trigger(cam, group="frame")
            while len(acme.starts) <= before:
                yield from bps.sleep(0.002)
            if event == 1:
                waiting.set()
            else:
                acme.pulse()
            yield from bps.wait("frame")
            yield from bps.create("primary")
            yield from bps.read(cam)
            yield from bps.save()

    helper = pause_when(beam.RE, waiting.is_set)
    with pytest.raises(RunEngineInterrupted):
        beam.RE(plan())
    helper.join()
    starts = len(acme.starts)

    def pulse_again() -> None:
        eventually(lambda: len(acme.starts) > starts, PATIENCE)
        acme.pulse()

    # Resuming repeats the trigger, which waits for a pulse of its own.
    sender = threading.Thread(target=pulse_again)
    sender.start()
    beam.RE.resume()
    sender.join()
    recorded = beam.beamtime[-1]
    assert recorded.exit_status == "success"
    assert recorded.primary.read().cam.values[:, 3, 3].tolist() == [1, 2, 3]


def test_prepared_again_it_waits_for_new_pulses(
    beam: Any, acme: Acme, eventually: Callable[..., None]
) -> None:
    cam = beam.cam
    info = TriggerInfo(trigger=EDGE, number_of_events=3, collections_per_event=2)

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        acme.pulse()
        eventually(lambda: acme.frame_id == 1, PATIENCE)
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        for _ in range(7):
            acme.pulse()
        yield from bps.collect_while_completing([cam], [cam], stream_name="primary")

    recorded = beam(plan())
    # The first frame's event is filled up and left out; the others are whole.
    frames = recorded.primary.read().cam
    assert frames.values[:, :, 3, 3].tolist() == [[3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda trigger: trigger.name)
@pytest.mark.parametrize("collections", [1, 2])
def test_until_stopped(
    beam: Any,
    run: Any,
    acme: Acme,
    trigger: DetectorTrigger,
    collections: int,
) -> None:
    cam = beam.cam
    info = TriggerInfo(
        trigger=trigger, number_of_events=0, collections_per_event=collections
    )

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, info, wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        sent = 0
        while acme.frame_id < 21:
            if trigger is not INTERNAL and sent <= acme.frame_id:
                acme.pulse(0.001)
                sent += 1
            yield from bps.sleep(0.005)
            yield from bps.collect(cam, name="primary")
        yield from bps.complete(cam, wait=True)
        assert not acme.running
        yield from bps.collect(cam, name="primary")

    recorded = beam(plan())
    assert recorded.exit_status == "success"
    assert acme.starts == [0]
    account = recorded.accounting["cam"]
    assert account["expected"] == account["received"] == account["written"] >= 20
    values = recorded.primary.read().cam.values.reshape(-1, 8, 8)[:, 3, 3]
    whole = account["written"] // collections * collections
    assert values.tolist() == list(range(1, whole + 1))


def test_default_trigger_info_is_what_count_takes(
    RE: RunEngine, recorded: Any, acme: Acme
) -> None:
    default = TriggerInfo(collections_per_event=2, exposures_per_collection=3)
    with init_devices():
        cam = Camera(
            recorded.beamtime.frames,
            source=AcmeSource(acme),
            exposure=0.001,
            default_trigger_info=default,
        )
    run = recorded(bp.count([cam], 2))
    assert run.primary.read().cam.shape == (2, 2, 8, 8)
    assert run.primary.read().cam.values[:, :, 3, 3].tolist() == [[2, 5], [8, 11]]


async def test_default_trigger_info_says_how_it_is_set(beam: Any) -> None:
    await beam.cam.exposure.set(0.25)
    assert await beam.cam._trigger_logic.default_trigger_info() == TriggerInfo(
        livetime=0.25
    )


def test_detector_state_is_preserved_when_ophyd_async_is_told_to(
    beam: Any, acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPHYD_ASYNC_PRESERVE_DETECTOR_STATE", "YES")
    beam.RE(bps.mv(beam.cam.exposure, 0.004))
    beam(bp.count([beam.cam]))
    assert beam.cam._acquire.info.livetime == 0.004
    assert acme.get("ExposureTime") == 4000.0


def test_a_region_of_another_size_is_another_array(beam: Any, acme: Acme) -> None:
    """Two runs in one staging, and the camera was set to a region in between."""
    cam = beam.cam

    @bpp.stage_decorator([cam])
    def plan() -> Any:
        for height in (8, 12):
            acme.set("Height", height)
            yield from bpp.run_wrapper(_prepared(cam))

    def _prepared(cam: Camera) -> Any:
        yield from bps.prepare(cam, TriggerInfo(), wait=True)
        yield from bps.trigger_and_read([cam])

    beam(plan())
    first, second = beam.beamtime[-2], beam.beamtime[-1]
    assert first.primary.read().cam.shape == (1, 8, 8)
    assert second.primary.read().cam.shape == (1, 12, 8)


def test_another_size_within_a_stream_is_refused(
    beam: Any, run: Any, acme: Acme
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        for height in (8, 12):
            acme.set("Height", height)
            yield from bps.prepare(cam, TriggerInfo(), wait=True)
            yield from bps.trigger_and_read([cam])

    with pytest.raises(BeamtimeError, match="new stream"):
        beam.RE(plan())
    assert run.announced("cam") == [1]
    assert run.exit_status == "fail"


# ------------------------------------------------------- what the software may do


def at_image(
    acme: Acme, number: int, what: Callable[[AcmeImage], Iterable[AcmeImage]]
) -> None:
    acme.misbehave = lambda image: what(image) if image.frame_id == number else [image]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("shape", lambda pixels: pixels[:5].copy()),
        ("rank", lambda pixels: pixels[0].copy()),
        ("dtype", lambda pixels: pixels.astype("<f4")),
        ("kind", lambda pixels: pixels.astype("<i2")),
    ],
)
def test_an_image_that_is_not_as_declared_fails_the_plan(
    beam: Any, run: Any, acme: Acme, name: str, change: Callable[[Any], Any]
) -> None:
    def wrong(image: AcmeImage) -> list[AcmeImage]:
        return [AcmeImage(change(image.pixels), image.frame_id, image.time_ns)]

    at_image(acme, 3, wrong)
    with pytest.raises(FailedStatus) as caught:
        beam.RE(bp.count([beam.cam], 5))
    error = cause(caught)
    assert isinstance(error, FrameMismatchError)
    assert "(8, 8)" in str(error) and "uint16" in str(error)
    assert run.announced("cam") == [1, 2]
    assert run.exit_status == "fail"
    acme.misbehave = None
    assert beam.beamtime[-1].primary.read().cam.shape == (2, 8, 8)
    assert beam(bp.count([beam.cam], 2)).exit_status == "success"


def test_an_error_in_its_thread_fails_the_plan(beam: Any, run: Any, acme: Acme) -> None:
    error = AcmeError("ACME-99: the sensor is too hot")

    def hot(image: AcmeImage) -> list[AcmeImage]:
        raise error

    at_image(acme, 4, hot)
    with pytest.raises(FailedStatus) as caught:
        beam.RE(fly_frames([beam.cam], 10, exposure=0.001))
    assert cause(caught) is error
    assert run.announced("cam") == [1, 2, 3]
    assert beam.beamtime[-1].exit_status == "fail"


def test_an_image_after_an_error_is_not_stored(beam: Any, run: Any, acme: Acme) -> None:
    error = AcmeError("ACME-41: the link was reset")
    seen: list[BaseException] = []

    def go_on(image: AcmeImage) -> list[AcmeImage]:
        acme.on_error(error)
        try:
            acme.on_image(image)
        except AcmeError as again:
            seen.append(again)
        acme.on_error(AcmeError("ACME-42: and again"))
        return []

    at_image(acme, 2, go_on)
    with pytest.raises(FailedStatus) as caught:
        beam.RE(bp.count([beam.cam], 3))
    # The first error counts, and a camera that goes on is told it.
    assert cause(caught) is error
    assert seen == [error]
    assert run.array("cam")[:, 3, 3].tolist() == [1]


def test_more_images_than_asked_for_are_counted_as_late(
    beam: Any, run: Any, acme: Acme
) -> None:
    def thrice(image: AcmeImage) -> Iterator[AcmeImage]:
        pixels = image.pixels.copy()
        for _ in range(3):
            yield AcmeImage(pixels.copy(), image.frame_id, image.time_ns)

    acme.misbehave = thrice
    recorded = beam(bp.count([beam.cam], 2))
    assert recorded.primary.read().cam.values[:, 3, 3].tolist() == [1, 2]
    account = recorded.accounting["cam"]
    assert account["expected"] == account["received"] == account["written"] == 2
    assert account["late"] == 4


def test_an_image_after_stop_is_not_stored(
    beam: Any, run: Any, acme: Acme, eventually: Callable[..., None]
) -> None:
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=0), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while acme.frame_id < 3:
            yield from bps.sleep(0.005)
        yield from bps.complete(cam, wait=True)
        late = AcmeImage(np.zeros((8, 8), np.uint16), 1000, time.time_ns())
        stray = threading.Thread(target=acme.on_image, args=(late,))
        stray.start()
        stray.join(PATIENCE)
        assert not stray.is_alive()
        yield from bps.collect(cam, name="primary")

    recorded = beam(plan())
    values = recorded.primary.read().cam.values[:, 3, 3].tolist()
    assert values == list(range(1, len(values) + 1))
    account = recorded.accounting["cam"]
    assert account["late"] == 1
    assert account["written"] == account["received"] == len(values)


@pytest.mark.parametrize("how", ["step", "fly"])
def test_fewer_images_than_asked_for_and_then_silence(
    beam: Any, run: Any, acme: Acme, how: str
) -> None:
    """The error says what came, what was expected, and which setting to change."""
    acme.misbehave = lambda image: [image] if image.frame_id <= 2 else []
    events = {"step": 1, "fly": 3}[how]
    info = TriggerInfo(
        number_of_events=events,
        collections_per_event=3 // events,
        # Long enough for two frames on a busy machine.
        exposure_timeout=4,
    )
    plan = step(beam.cam, acme, info, 1) if how == "step" else None
    with pytest.raises(FailedStatus) as caught:
        beam.RE(plan or fly(beam.cam, acme, info))
    error = cause(caught)
    assert isinstance(error, DeviceTimeoutError)
    assert isinstance(error, TimeoutError)
    assert "cam delivered nothing for 4 s" in str(error)
    assert "2 of 3" in str(error)
    assert "exposure_timeout" in str(error)
    assert beam.beamtime[-1].exit_status == "fail"
    # What is whole in a fly scan stays announced.
    assert run.announced("cam") == {"step": [], "fly": [1, 2]}[how]


def test_pulses_that_stay_away(beam: Any, run: Any, acme: Acme) -> None:
    info = TriggerInfo(trigger=EDGE, number_of_events=3, exposure_timeout=4)

    @bpp.stage_decorator([beam.cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(beam.cam, info, wait=True)
        yield from bps.declare_stream(beam.cam, name="primary", collect=True)
        yield from bps.kickoff(beam.cam, wait=True)
        acme.pulse()
        yield from bps.complete(beam.cam, wait=True)

    with pytest.raises(FailedStatus) as caught:
        beam.RE(plan())
    assert isinstance(cause(caught), DeviceTimeoutError)
    assert "1 of 3" in str(cause(caught)) and "triggered" in str(cause(caught))
    assert not acme.running


def test_a_start_that_is_refused(beam: Any, run: Any, acme: Acme) -> None:
    acme.start(0, lambda image: None, lambda error: None)
    plain = beam.cam.source.configure

    async def configure(exposure: float | None) -> None:
        """Leave the features alone: they are locked."""

    async def set_trigger(trigger: Any, deadtime: float) -> None: ...

    async def stop() -> None: ...

    source = beam.cam.source
    source.configure, source.set_trigger, source.stop = configure, set_trigger, stop
    with pytest.raises(FailedStatus) as caught:
        beam.RE(bp.count([beam.cam]))
    assert "ACME-07" in str(cause(caught))
    acme.stop()
    del source.configure, source.set_trigger, source.stop
    assert source.configure == plain
    assert beam(bp.count([beam.cam])).exit_status == "success"


def test_a_stop_that_waits_for_a_callback_that_waits_for_the_disk(
    beam: Any, run: Any, acme: Acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bluesky_beamtime.storage import FrameSink

    writing, go_on = threading.Event(), threading.Event()
    write = FrameSink.write

    def slow(sink: FrameSink, frame: Any) -> None:
        if sink.frames_written == 2:
            writing.set()
            assert go_on.wait(PATIENCE)
        write(sink, frame)

    monkeypatch.setattr(FrameSink, "write", slow)
    cam = beam.cam

    @bpp.stage_decorator([cam])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.prepare(cam, TriggerInfo(number_of_events=0), wait=True)
        yield from bps.declare_stream(cam, name="primary", collect=True)
        yield from bps.kickoff(cam, wait=True)
        while not writing.is_set():
            yield from bps.sleep(0.005)
        yield from bps.complete(cam, group="complete")
        yield from bps.sleep(0.1)
        # The event loop is not held up meanwhile.
        go_on.set()
        yield from bps.wait("complete")
        yield from bps.collect(cam, name="primary")

    recorded = beam(plan())
    # The frame that was on its way is there, and no byte of the next one in it.
    assert recorded.primary.read().cam.values[:, 3, 3].tolist()[:3] == [1, 2, 3]
    assert recorded.accounting["cam"]["late"] == 0
