"""Every plan, recorded and read back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import event_model
import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import RunEngineInterrupted, single_gen
from ophyd_async.core import init_devices, soft_signal_rw
from ophyd_async.sim import SimMotor

from bluesky_beamtime.devices import SimCamera, SimCounter
from bluesky_beamtime.plans import (
    Beam,
    dark_flat,
    en_scan,
    exposure_series,
    grid_frames,
    list_frames,
    live_stream,
    powder_exposure,
    snap,
    time_series,
    tomo_scan,
)


class Beamline:
    """Two cameras, a counter, three motors, a shutter; documents are validated."""

    def __init__(self, RE: Any, recorded: Any) -> None:
        frames = recorded.beamtime.frames
        with init_devices():
            self.x = SimMotor("x")
            self.y = SimMotor("y")
            self.rot = SimMotor("rot")
            self.cam = SimCamera(
                frames, shape=(8, 9), exposure=0.001, motor=self.x, name="cam"
            )
            self.far = SimCamera(frames, shape=(4, 4), exposure=0.001, name="far")
            self.diode = SimCounter((self.x, self.y), exposure=0.001, name="diode")
            self.shutter = soft_signal_rw(int, 0, name="shutter")
        self.beam = Beam(shutter=self.shutter, sample=self.x, out=5.0)
        RE.subscribe(validate)


def validate(name: str, doc: dict[str, Any]) -> None:
    event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)


@pytest.fixture
def bl(RE: Any, recorded: Any) -> Beamline:
    return Beamline(RE, recorded)


def moves(RE: Any, *devices: Any) -> list[tuple[str, Any]]:
    """Collect what is set, and the streams of the events between."""
    seen: list[tuple[str, Any]] = []

    def look(msg: Any) -> None:
        if msg.command == "set" and msg.obj in devices:
            seen.append((msg.obj.name, msg.args[0]))
        elif msg.command == "create":
            seen.append(("event", msg.kwargs.get("name")))

    RE.msg_hook = look
    return seen


def value(RE: Any, device: Any) -> Any:
    result: list[Any] = []

    def read() -> Any:
        result.append((yield from bps.rd(device)))

    RE(read())
    return result[0]


# ------------------------------------------------------------------ point by point


def test_snap(recorded: Any, bl: Beamline) -> None:
    run = recorded(snap([bl.cam, bl.far, bl.diode], exposure=0.002))
    data = run.primary.read()
    assert data["cam"].shape == (1, 8, 9)
    assert data["far"].shape == (1, 4, 4)
    assert data["diode"].shape == (1,)
    assert run.start["exposure"] == 0.002


def test_grid_frames(recorded: Any, bl: Beamline) -> None:
    plan = grid_frames([bl.cam], bl.y, 0, 1, 2, bl.x, -1, 1, 3, snake_axes=[bl.x])
    grid = recorded(plan).primary.to_grid()
    assert grid["cam"].dims == ("y", "x", "cam_y", "cam_x")
    assert grid["cam"].shape == (2, 3, 8, 9)
    assert grid["x"].values.tolist() == [-1, 0, 1]
    assert grid["x_readback"].values.tolist() == [[-1, 0, 1]] * 2


def test_list_frames(recorded: Any, bl: Beamline) -> None:
    run = recorded(list_frames([bl.cam, bl.diode], bl.x, [0, 1, 4], bl.y, [2, 2, 3]))
    data = run.primary.read()
    assert data["x"].values.tolist() == [0, 1, 4]
    assert data["y"].values.tolist() == [2, 2, 3]
    assert data["cam"].shape == (3, 8, 9)
    assert run.start["num_points"] == 3
    assert run.start["plan_name"] == "list_frames"
    grid = run.primary.to_grid()
    assert grid["cam"].dims == ("x", "cam_y", "cam_x")
    assert grid["x"].values.tolist() == [0, 1, 4]
    assert grid["y"].dims == ("x",)


@pytest.mark.parametrize("snake", [False, True])
def test_list_frames_as_a_mesh(recorded: Any, bl: Beamline, snake: bool) -> None:
    run = recorded(
        list_frames(
            [bl.cam], bl.x, [0, 1, 4], bl.y, [2, 3], grid=True, snake_axes=snake
        )
    )
    grid = run.primary.to_grid()
    assert grid["cam"].shape == (3, 2, 8, 9)
    assert grid["x"].values.tolist() == [0, 1, 4]
    assert grid["y"].values.tolist() == [2, 3]
    assert grid["y_readback"].values.tolist() == [[2, 3]] * 3
    order = run.primary.read()["y"].values.tolist()
    assert order == ([2, 3, 3, 2, 2, 3] if snake else [2, 3] * 3)


def test_en_scan(recorded: Any, bl: Beamline) -> None:
    run = recorded(en_scan([bl.cam, bl.diode], bl.y, 8.0, 9.0, 5, exposure=0.002))
    grid = run.primary.to_grid()
    assert grid["diode"].dims == ("y",)
    assert grid["cam"].dims == ("y", "cam_y", "cam_x")
    assert grid["y"].values.tolist() == [8.0, 8.25, 8.5, 8.75, 9.0]
    start = run.start
    assert start["shape"] == [5]
    assert start["extents"] == [[8.0, 9.0]]
    assert start["plan_pattern"] == "inner_product"
    assert start["num_intervals"] == 4


@pytest.mark.parametrize(
    "plan",
    [
        lambda bl, **more: grid_frames([bl.cam], bl.x, 0, 1, 3, **more),
        lambda bl, **more: list_frames([bl.cam], bl.x, [0, 0.5, 1], **more),
        lambda bl, **more: en_scan([bl.cam], bl.x, 0, 1, 3, **more),
        lambda bl, **more: tomo_scan([bl.cam], bl.x, 0, 1, 3, **more),
    ],
)
def test_a_step_of_ones_own(recorded: Any, bl: Beamline, plan: Any) -> None:
    steps: list[Any] = []

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        steps.append(dict(step))
        yield from bps.one_nd_step([*detectors, bl.diode], step, pos_cache)

    run = recorded(plan(bl, per_step=per_step, md={"why": "test"}))
    assert [list(step.values()) for step in steps] == [[0], [0.5], [1]]
    assert run.start["why"] == "test"
    assert "diode" in run.primary.read()
    assert run.primary.to_grid()["x"].values.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    "plan", [lambda bl, **more: snap([bl.cam], **more),
             lambda bl, **more: time_series([bl.cam], 3, **more)],
)  # fmt: skip
def test_a_shot_of_ones_own(recorded: Any, bl: Beamline, plan: Any) -> None:
    def per_shot(detectors: Any) -> Any:
        yield from bps.one_shot([*detectors, bl.diode])

    assert "diode" in recorded(plan(bl, per_shot=per_shot)).primary.read()


# ------------------------------------------------------------------------- series


def test_time_series(recorded: Any, bl: Beamline) -> None:
    run = recorded(time_series([bl.cam, bl.diode], 4, period=0.05, exposure=0.002))
    data = run.primary.read()
    assert data["cam"].shape == (4, 8, 9)
    times = data["time"].values
    assert (np.diff(times) > 0).all()
    # Three periods at least, however busy the machine is.
    assert times[-1] - run.start["time"] > 0.14
    assert run.start["period"] == 0.05
    assert run.start["num_points"] == 4
    assert run.start["hints"]["dimensions"] == [[["time"], "primary"]]


def test_exposure_series(recorded: Any, bl: Beamline) -> None:
    run = recorded(exposure_series([bl.cam, bl.diode], [0.001, 0.004, 0.002]))
    data = run.primary.read()
    assert data["exposure"].values.tolist() == [0.001, 0.004, 0.002]
    assert data["exposure"].attrs["units"] == "s"
    grid = run.primary.to_grid()
    assert grid["cam"].dims == ("exposure", "cam_y", "cam_x")
    assert grid["exposure"].values.tolist() == [0.001, 0.004, 0.002]
    # The camera did it: what it simulates depends on the exposure.
    totals = data["cam"].sum(("cam_y", "cam_x")).values
    assert totals[0] < totals[2] < totals[1]


def test_exposure_series_with_repeats(recorded: Any, bl: Beamline) -> None:
    run = recorded(exposure_series([bl.cam], [0.001, 0.002], repeats=3))
    grid = run.primary.to_grid()
    assert grid["cam"].dims == ("exposure", "repeat", "cam_y", "cam_x")
    assert grid["repeat"].values.tolist() == [0, 1, 2]
    assert run.start["num_points"] == 6


# --------------------------------------------------------------- darks and flats


def test_dark_flat(RE: Any, recorded: Any, bl: Beamline) -> None:
    RE(bps.mv(bl.x, 1.5))
    seen = moves(RE, bl.shutter, bl.x)
    run = recorded(dark_flat([bl.cam, bl.far], bl.beam, darks=3, flats=2))
    assert seen == [
        ("shutter", 0),
        *[("event", "dark")] * 3,
        ("x", 5.0),
        ("shutter", 1),
        *[("event", "flat")] * 2,
        ("x", 1.5),
        ("shutter", 0),
    ]
    assert run.stream_names == ["dark", "flat"]
    assert run.dark.read()["cam"].shape == (3, 8, 9)
    assert run.flat.read()["far"].shape == (2, 4, 4)
    # The frames of each stream are its own.
    assert run.dark.read()["cam_id"].values.tolist() == [0, 1, 2]
    assert run.flat.read()["cam_id"].values.tolist() == [3, 4]
    assert run.start["num_frames"] == 5


def test_darks_alone_and_flats_alone(recorded: Any, bl: Beamline) -> None:
    shutter, motor = Beam(shutter=bl.shutter), Beam(sample=bl.x, out=3)
    assert recorded(dark_flat([bl.cam], shutter, flats=0)).stream_names == ["dark"]
    assert recorded(dark_flat([bl.cam], motor, darks=0)).stream_names == ["flat"]


def test_tomo_scan(RE: Any, recorded: Any, bl: Beamline) -> None:
    seen = moves(RE, bl.shutter, bl.x)
    run = recorded(
        tomo_scan(
            [bl.cam], bl.rot, 0, 180, 4,
            beam=bl.beam, darks=2, flats=3, flats_after=1, exposure=0.002,
        )
    )  # fmt: skip
    assert seen == [
        ("shutter", 0),
        *[("event", "dark")] * 2,
        ("x", 5.0),
        ("shutter", 1),
        *[("event", "flat")] * 3,
        ("x", 0.0),
        ("shutter", 1),
        *[("event", "primary")] * 4,
        ("x", 5.0),
        ("shutter", 1),
        ("event", "flat"),
        ("x", 0.0),
        ("shutter", 0),
    ]
    assert run.dark.read()["cam"].shape == (2, 8, 9)
    assert run.flat.read()["cam"].shape == (4, 8, 9)
    assert run.flat.read()["cam_id"].values.tolist() == [2, 3, 4, 9]
    projections = run.primary.to_grid()
    assert projections["cam"].dims == ("rot", "cam_y", "cam_x")
    assert projections["rot"].values.tolist() == [0, 60, 120, 180]
    assert projections["cam_id"].values.tolist() == [5, 6, 7, 8]
    start = run.start
    assert (start["num_points"], start["num_frames"]) == (4, 10)
    assert (start["num_darks"], start["num_flats"]) == (2, 4)
    assert start["motors"] == ["rot"]
    assert start["hints"]["dimensions"] == [[["rot"], "primary"]]
    # As the docstring says.
    dark = run.dark.read()["cam"].mean("time")
    flat = run.flat.read()["cam"].mean("time")
    corrected = (projections["cam"] - dark) / (flat - dark)
    assert corrected.shape == (4, 8, 9)


def test_tomo_scan_without_more(recorded: Any, bl: Beamline) -> None:
    run = recorded(tomo_scan([bl.cam], bl.rot, 0, 90, 2))
    assert run.stream_names == ["primary"]
    assert run.primary.to_grid()["rot"].values.tolist() == [0, 90]


@pytest.mark.parametrize("command", ["stop", "abort", "resume"])
def test_the_beam_is_left_as_it_should(
    RE: Any, recorded: Any, bl: Beamline, command: str
) -> None:
    """A pause among the flats, when the sample is out and the shutter open."""
    RE(bps.mv(bl.x, 1.5))
    creates, shutter = 0, []

    def look(msg: Any) -> None:
        if msg.command == "set" and msg.obj is bl.shutter:
            shutter.append(msg.args[0])

    def pause(msg: Any) -> Any:
        nonlocal creates
        creates += msg.command == "create"
        if msg.command == "create" and creates == 3:
            return bpp.pchain(bps.pause(), single_gen(msg)), None
        return None, None

    RE.msg_hook = look
    plan = tomo_scan([bl.cam], bl.rot, 0, 9, 2, beam=bl.beam, darks=1, flats=3)
    with pytest.raises(RunEngineInterrupted):
        recorded(bpp.plan_mutator(plan, pause))
    assert shutter == [0, 1]
    getattr(RE, command)()
    run = recorded.check()
    status = {"stop": "success", "abort": "abort", "resume": "success"}
    assert run.exit_status == status[command]
    if command == "resume":
        assert run.primary.read().sizes["time"] == 2
        assert run.flat.read()["cam"].shape[0] == 3
    RE.msg_hook = None
    assert value(RE, bl.shutter) == 0
    assert value(RE, bl.x) == 1.5


def test_the_beam_is_left_as_it_should_after_a_failure(
    RE: Any, recorded: Any, bl: Beamline
) -> None:
    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        yield from bps.null()
        raise OSError("a motor is stuck")

    plan = tomo_scan(
        [bl.cam], bl.rot, 0, 9, 2, beam=bl.beam, darks=1, per_step=per_step
    )
    with pytest.raises(OSError, match="stuck"):
        recorded(plan)
    assert recorded.check().exit_status == "fail"
    assert value(RE, bl.shutter) == 0


def test_powder_exposure(RE: Any, recorded: Any, bl: Beamline) -> None:
    seen = moves(RE, bl.shutter)
    beam = Beam(shutter=bl.shutter)
    plan = powder_exposure([bl.cam, bl.far], 6, exposure=0.002, beam=beam, darks=4)
    run = recorded(plan)
    assert seen == [("shutter", 0), ("shutter", 1), ("shutter", 0)]
    assert run.exit_status == "success"
    assert run.dark.read()["cam"].shape == (4, 8, 9)
    assert run.primary.read()["cam"].shape == (6, 8, 9)
    assert run.primary.read()["far"].shape == (6, 4, 4)
    assert run.dark.read()["cam_id"].values.tolist() == [0, 1, 2, 3]
    assert run.primary.read()["cam_id"].values.tolist() == [4, 5, 6, 7, 8, 9]
    dark = run.dark.read()["cam"].mean("time")
    assert (run.primary.read()["cam"] - dark).sum("time").shape == (8, 9)
    assert run.start["num_frames"] == 10


def test_powder_exposure_without_darks(recorded: Any, bl: Beamline) -> None:
    run = recorded(powder_exposure([bl.cam], 3, exposure=0.001))
    assert run.stream_names == ["primary"]
    assert run.primary.read()["cam"].shape == (3, 8, 9)


# --------------------------------------------------------------------------- live


class Stopper:
    """Does something, in a thread, when so many frames have been announced."""

    def __init__(self, RE: Any, frames: int, action: Callable[[], Any]) -> None:
        self.frames, self.action, self.seen, self.done = frames, action, 0, False
        RE.subscribe(self, "stream_datum")

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        self.seen = max(self.seen, doc["indices"]["stop"])
        if self.seen >= self.frames and not self.done:
            self.done = True
            threading.Thread(target=self.action).start()


@pytest.mark.parametrize("defer", [True, False])
@pytest.mark.parametrize(
    ("command", "status"), [("stop", "success"), ("abort", "abort")]
)
def test_live_stream_until_a_pause(
    RE: Any, recorded: Any, bl: Beamline, command: str, status: str, defer: bool
) -> None:
    Stopper(RE, 20, lambda: RE.request_pause(defer=defer))
    with pytest.raises(RunEngineInterrupted):
        recorded(live_stream([bl.cam, bl.far], exposure=0.002, flush_period=0.05))
    getattr(RE, command)()
    run = recorded.check()
    assert run.exit_status == status
    data = run.primary.read()
    assert data.sizes["time"] >= 20
    ids = data["cam_id"].values
    assert ids.tolist() == list(range(len(ids)))
    accounts = run.accounting
    assert accounts["cam"]["written"] >= data.sizes["time"]
    # The next scan works.
    assert recorded(snap([bl.cam])).exit_status == "success"


@pytest.mark.parametrize("defer", [True, False])
def test_live_stream_goes_on_after_a_pause(
    RE: Any, recorded: Any, bl: Beamline, defer: bool
) -> None:
    stopper = Stopper(RE, 10, lambda: RE.request_pause(defer=defer))
    with pytest.raises(RunEngineInterrupted):
        recorded(live_stream([bl.cam], exposure=0.002, flush_period=0.05))
    # Nothing is taken while nobody is there.
    before = recorded.beamtime[-1].primary.read().sizes["time"]
    stopper.frames, stopper.done = before + 30, False
    with pytest.raises(RunEngineInterrupted):
        RE.resume()
    RE.stop()
    run = recorded.check()
    assert run.exit_status == "success"
    ids = run.primary.read()["cam_id"].values
    assert len(ids) >= before + 30
    assert ids.tolist() == sorted(set(ids.tolist()))


def test_live_stream_stopped_from_another_thread(
    RE: Any, recorded: Any, bl: Beamline
) -> None:
    Stopper(RE, 10, RE.stop)
    with contextlib.suppress(RunEngineInterrupted):
        recorded(live_stream([bl.cam], exposure=0.002, flush_period=0.05))
    run = recorded.check()
    assert run.exit_status == "success"
    assert run.primary.read().sizes["time"] >= 10


def test_live_stream_for_some_time(recorded: Any, bl: Beamline) -> None:
    run = recorded(live_stream([bl.cam], exposure=0.002, seconds=0.5))
    assert run.exit_status == "success"
    assert run.primary.read().sizes["time"] >= 1
    assert run.start["num_points"] is None


# ------------------------------------------------------------- those who look on


@pytest.mark.parametrize(
    "plan",
    [
        lambda bl: snap([bl.cam, bl.diode]),
        lambda bl: grid_frames([bl.diode], bl.x, 0, 1, 2, bl.y, 0, 1, 2),
        lambda bl: list_frames([bl.diode], bl.x, [0, 1, 3]),
        lambda bl: list_frames([bl.diode], bl.x, [0, 1, 3], bl.y, [0, 1, 2]),
        lambda bl: list_frames([bl.diode], bl.x, [0, 1], bl.y, [0, 1], grid=True),
        lambda bl: en_scan([bl.cam, bl.diode], bl.x, 0, 1, 3),
        lambda bl: time_series([bl.diode], 3),
        lambda bl: exposure_series([bl.cam, bl.diode], [0.001, 0.002]),
        lambda bl: exposure_series([bl.cam, bl.diode], [0.001, 0.002], repeats=2),
        lambda bl: dark_flat([bl.diode], bl.beam, darks=1, flats=1),
        lambda bl: tomo_scan([bl.diode], bl.rot, 0, 1, 2, beam=bl.beam, darks=1),
        lambda bl: powder_exposure([bl.cam], 2, exposure=0.001),
        lambda bl: live_stream([bl.cam], exposure=0.001, seconds=0.05),
    ],
)
def test_the_best_effort_callback_takes_them(
    RE: Any, recorded: Any, bl: Beamline, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from bluesky.callbacks.best_effort import BestEffortCallback
    from matplotlib import pyplot

    problems: list[BaseException] = []
    look = BestEffortCallback()

    def show(name: str, doc: dict[str, Any]) -> None:
        try:
            look(name, doc)
        except BaseException as error:
            problems.append(error)

    RE.subscribe(show)
    try:
        recorded(plan(bl))
    finally:
        pyplot.close("all")
    assert problems == []


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda bl: list_frames([bl.cam]), "motor, positions"),
        (lambda bl: list_frames([bl.cam], bl.x), "got 1 arguments"),
        (lambda bl: list_frames([bl.cam], bl.x, []), "list of finite positions"),
        (lambda bl: list_frames([bl.cam], bl.x, 3), "list of finite positions"),
        (lambda bl: list_frames([bl.cam], bl.x, [float("nan")]), "x needs a list"),
        (lambda bl: list_frames([bl.cam], [1], bl.x), "something that moves"),
        (lambda bl: list_frames([bl.cam], bl.x, [1], bl.x, [1]), "more than once"),
        (lambda bl: list_frames([bl.cam], bl.x, [1], bl.y, [1, 2]), "equally many"),
        (lambda bl: list_frames([bl.cam], bl.x, [1], snake_axes=True), "grid=True"),
        (lambda bl: grid_frames([bl.cam], bl.x, 0, float("inf"), 3), "ends of x"),
        (lambda bl: grid_frames([bl.cam], bl.cam, 0, 1, 3), "not Movable"),
        (lambda bl: en_scan([bl.cam], bl.cam, 0, 1, 3), "energy must be"),
        (lambda bl: en_scan([bl.cam], bl.x, 0, None, 3), "energies must be"),
        (lambda bl: time_series([bl.cam], 3, -1), "period"),
        (lambda bl: time_series([bl.cam], 0), "number of events"),
        (lambda bl: exposure_series([bl.cam], []), "number of exposures"),
        (lambda bl: exposure_series([bl.cam], [0.1, 0]), "positive number"),
        (lambda bl: exposure_series([bl.cam], [None]), "not None"),
        (lambda bl: exposure_series([bl.diode], [0.1]), "has an exposure"),
        (lambda bl: exposure_series([bl.cam], [0.1], repeats=0), "repeats"),
        (lambda bl: dark_flat([bl.cam], Beam()), "darks need a shutter"),
        (lambda bl: dark_flat([bl.cam], Beam(shutter=bl.shutter)), "takes the sample"),
        (lambda bl: dark_flat([bl.cam], bl.beam, darks=0, flats=0), "nothing to do"),
        (lambda bl: dark_flat([bl.cam], bl.beam, darks=-1), "from 0 on"),
        (lambda bl: dark_flat([bl.cam], Beam(shutter=3)), r"set\(\)"),
        (lambda bl: tomo_scan([bl.cam], bl.x, 0, 1, 2, beam=bl.beam), "the rotation"),
        (lambda bl: tomo_scan([bl.cam], bl.rot, 0, 1, 0), "number of angles"),
        (lambda bl: tomo_scan([bl.cam], bl.rot, 0, 1, 2, darks=1), "need a shutter"),
        (lambda bl: powder_exposure([bl.diode], 2), "cannot fly"),
        (lambda bl: powder_exposure([bl.cam], 2, darks=2), "need a shutter"),
        (lambda bl: powder_exposure([bl.cam], 2, flush_period=0), "flush_period"),
        (lambda bl: live_stream([bl.diode]), "cannot fly"),
        (lambda bl: live_stream([bl.cam], seconds=-1), "seconds"),
        (lambda bl: live_stream([bl.cam], exposure="long"), "exposure"),
    ],
)  # fmt: skip
def test_arguments_are_checked_before_anything_moves(
    RE: Any, recorded: Any, bl: Beamline, make: Any, words: str
) -> None:
    seen: list[Any] = []
    RE.msg_hook = seen.append
    with pytest.raises(ValueError, match=words):
        RE(make(bl))
    assert seen == []
