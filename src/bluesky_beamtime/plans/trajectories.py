"""Plans in which frames are taken while something moves, or at given times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator
from ophyd_async.core import FlyMotorInfo, TriggerInfo

from bluesky_beamtime.devices import (
    MotorFlyer,
    PointTrajectory,
    SoftwarePacer,
    Timetable,
)
from bluesky_beamtime.plans.checks import check_exposure, check_flyers, check_number
from bluesky_beamtime.plans.dropping import drop_wrapper
from bluesky_beamtime.plans.fly import STREAM, announce_safe_frames, open_and_close
from bluesky_beamtime.plans.untyped import bpp, bps

Each = Mapping[str, Any]
"""A value for each detector, by its name."""


def fly_scan(
    detectors: Sequence[Any],
    motor: Any,
    start: float,
    stop: float,
    num: int,
    *,
    exposure: float | Each | None = 0.1,
    frames_per_event: int | Each = 1,
    duration: float | None = None,
    axes: Sequence[Any] = (),
    fail_on_drop: bool | None = None,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take frames while a motor moves from ``start`` to ``stop`` without stopping.

    The motor runs up before ``start`` and down after ``stop``; detectors begin when its
    velocity is reached. Where it was in the middle of each exposure is recorded beside
    the frames as ``<camera>_<motor>``, and comes back as a coordinate.

    Parameters
    ----------
    detectors
        Cameras and others of ophyd-async's ``StandardDetector``. The positions are
        recorded by those that stream into a frame store.
    motor
        A motor of ophyd-async that can fly.
    start, stop
        Positions between which the velocity is constant.
    num
        Events, evenly spaced.
    exposure
        In seconds, for all detectors or by the name of each; None keeps what is set.
    frames_per_event
        Frames of one event, for all detectors or by the name of each, such as
        ``{"slow": 2, "quick": 5}``.
    duration
        Seconds from ``start`` to ``stop``; by default what the detector takes that is
        the slowest when it exposes without a break.
    axes
        More motors or signals that are recorded like ``motor``.
    fail_on_drop
        Whether a frame that a camera lost fails the run; None keeps what is set.
    flush_period
        Seconds between two announcements of frames.
    md
        Metadata.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    ValueError
        An argument is no good; no run was opened.

    Notes
    -----
    A detector that is slower than its exposure says takes its last frames when the
    motor has passed ``stop``: the recorded positions tell, and ``duration`` gives it
    time. A pause is as in :func:`fly_frames`.
    """
    detectors = check_flyers(detectors)
    num = check_number(num, "the number of events")
    if start == stop:
        raise ValueError("start and stop are the same position; there is no way to fly")
    infos = _infos(detectors, num, exposure, frames_per_event)
    if duration is None:
        duration = num * max(map(_event_time, infos))
        if not duration:
            raise ValueError(
                "how long the flight takes is not known without an exposure; give one, "
                "or a duration"
            )
    trajectory = FlyMotorInfo(
        start_position=start, end_position=stop, time_for_move=duration
    )
    flyer = MotorFlyer(motor, detectors, axes)

    def take() -> MsgGenerator[None]:
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.collect_while_completing(
            [flyer, *detectors],
            detectors,
            flush_period=flush_period,
            stream_name=STREAM,
        )

    args = {"start": start, "stop": stop, "num": num, "duration": duration}
    metadata = _metadata("fly_scan", detectors, infos, num, args, md, motor)
    flight = _flight(detectors, infos, flyer, trajectory, take(), metadata)
    return (yield from drop_wrapper(flight, detectors, fail_on_drop))


def fly_points(
    detectors: Sequence[Any],
    motor: Any,
    positions: Sequence[float],
    *,
    dwell: float = 0.0,
    exposure: float | Each | None = 0.1,
    frames_per_event: int | Each = 1,
    axes: Sequence[Any] = (),
    fail_on_drop: bool | None = None,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take frames for as long as a motor visits positions, one after another.

    Detectors do not wait for the motor: frames on the way are taken too. Where it was
    at each is recorded as by :func:`fly_scan`.

    Parameters
    ----------
    detectors
        Cameras and others that can take frames until they are stopped.
    motor
        Any motor of ophyd-async; it moves with the velocity that is set.
    positions
        Where it goes.
    dwell
        Seconds to rest at each.
    exposure, frames_per_event, axes, fail_on_drop, flush_period, md
        As for :func:`fly_scan`.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    ValueError
        An argument is no good; no run was opened.
    """
    detectors = check_flyers(detectors)
    trajectory = PointTrajectory(tuple(positions), dwell)
    infos = _infos(detectors, 0, exposure, frames_per_event)
    flyer = MotorFlyer(motor, detectors, axes)

    def take() -> MsgGenerator[None]:
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.collect_while_completing(
            [flyer], detectors, flush_period=flush_period, stream_name=STREAM
        )
        yield from bps.collect_while_completing(
            detectors, detectors, flush_period=flush_period, stream_name=STREAM
        )

    args = {"positions": list(trajectory.positions), "dwell": dwell}
    metadata = _metadata("fly_points", detectors, infos, None, args, md, motor)
    flight = _flight(detectors, infos, flyer, trajectory, take(), metadata)
    return (yield from drop_wrapper(flight, detectors, fail_on_drop))


def paced_frames(
    detectors: Sequence[Any],
    num: int | None = None,
    *,
    rate: float | None = None,
    times: Sequence[float] | None = None,
    exposure: float | Each | None = None,
    frames_per_event: int | Each = 1,
    axes: Sequence[Any] = (),
    fail_on_drop: bool | None = None,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take events at a fixed rate or at given times, triggered by software.

    Parameters
    ----------
    detectors
        Cameras and others of ophyd-async's ``StandardDetector``; triggered together.
    num, rate
        Number of events, and how many in a second.
    times
        Instead: when to take each, in seconds after the first trigger may come,
        ascending.
    exposure, frames_per_event, axes, fail_on_drop, flush_period, md
        As for :func:`fly_scan`; ``axes`` are recorded where they are.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    ValueError
        An argument is no good; no run was opened.

    Notes
    -----
    A trigger takes some milliseconds. One that comes while detectors are busy waits for
    them: no event is left out, and the frames' own times tell when they were taken.
    """
    detectors = check_flyers(detectors)
    if (times is None) == (num is None or rate is None) or (
        times is not None and (num is not None or rate is not None)
    ):
        raise ValueError("give either num and rate, or times")
    if times is not None:
        timetable = Timetable(tuple(times))
    else:
        number = check_number(num or 0, "the number of events")
        timetable = Timetable.at_rate(number, rate or 0.0)
    num = len(timetable.times)
    infos = _infos(detectors, 1, exposure, frames_per_event)
    pacer = SoftwarePacer(detectors, infos, axes)

    def take() -> MsgGenerator[None]:
        yield from bps.kickoff(pacer, wait=True)
        yield from bps.collect_while_completing(
            [pacer], detectors, flush_period=flush_period, stream_name=STREAM
        )

    args = {"times": list(timetable.times)} if rate is None else {"rate": rate}
    metadata = _metadata("paced_frames", detectors, infos, num, args, md)
    flight = _flight(detectors, infos, pacer, timetable, take(), metadata)
    return (yield from drop_wrapper(flight, detectors, fail_on_drop))


def _flight(
    detectors: Sequence[Any],
    infos: Sequence[TriggerInfo],
    flyer: Any,
    value: Any,
    take: MsgGenerator[None],
    metadata: Mapping[str, Any],
) -> MsgGenerator[str]:
    """Prepare all inside a run, and take frames."""

    def announce(error: BaseException) -> MsgGenerator[None]:
        yield from announce_safe_frames(detectors, error)

    def fly() -> MsgGenerator[None]:
        # The flyer tells the detectors which axes they shall follow.
        yield from bps.prepare(flyer, value, wait=True)
        for detector, info in zip(detectors, infos, strict=True):
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait(group="prepare")
        yield from bps.declare_stream(*detectors, name=STREAM, collect=True)
        yield from bps.clear_checkpoint()
        yield from bpp.contingency_wrapper(take, except_plan=announce)

    run = open_and_close(fly(), metadata)
    # What is staged last is unstaged first: the flyer asks for no more frames then.
    staged: MsgGenerator[str] = bpp.stage_wrapper(run, [*detectors, flyer])
    return (yield from staged)


def _infos(
    detectors: Sequence[Any],
    num: int,
    exposure: float | Each | None,
    frames_per_event: int | Each,
) -> list[TriggerInfo]:
    return [
        TriggerInfo(
            number_of_events=num,
            livetime=check_exposure(_of(detector, exposure, None)) or 0.0,
            collections_per_event=check_number(
                _of(detector, frames_per_event, 1),
                f"frames per event of {detector.name}",
            ),
        )
        for detector in detectors
    ]


def _of(detector: Any, value: Any, default: Any) -> Any:
    return value.get(detector.name, default) if isinstance(value, Mapping) else value  # pyright: ignore


def _event_time(info: TriggerInfo) -> float:
    return info.livetime * info.collections_per_event


def _metadata(
    plan_name: str,
    detectors: Sequence[Any],
    infos: Sequence[TriggerInfo],
    num: int | None,
    args: Mapping[str, Any],
    md: Mapping[str, Any] | None,
    motor: Any = None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "plan_name": plan_name,
        "detectors": [detector.name for detector in detectors],
        "plan_args": {
            "detectors": list(map(repr, detectors)),
            "exposure": {
                detector.name: info.livetime or None
                for detector, info in zip(detectors, infos, strict=True)
            },
            "frames_per_event": {
                detector.name: info.collections_per_event
                for detector, info in zip(detectors, infos, strict=True)
            },
            **args,
        },
        "hints": {"dimensions": [[["time"], STREAM]]},
    }
    if num is not None:
        metadata |= {"num_points": num, "num_intervals": num - 1}
    if motor is not None:
        metadata["motors"] = [motor.name]
        metadata["plan_args"]["motor"] = repr(motor)
    return {**metadata, **(md or {})}
