"""Plans that take frames point by point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator

from bluesky_beamtime.plans.checks import (
    check_detectors,
    check_exposure,
    check_grid,
    check_motor,
    check_number,
    check_positions,
    check_range,
)
from bluesky_beamtime.plans.shots import (
    PerShot,
    PerStep,
    describe_axis,
    describe_run,
    preparation,
    shoot,
    step,
)
from bluesky_beamtime.plans.untyped import bp


def snap(
    detectors: Sequence[Any],
    *,
    exposure: float | None = None,
    per_shot: PerShot | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take one event of each detector.

    ::

        RE(snap([cam1, cam2], exposure=0.5))
        beamtime[-1].primary.read()["cam1"]

    Parameters
    ----------
    detectors
        What to read.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
    per_shot
        A plan for the event, as for :func:`bluesky.plans.count`.
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
    """
    detectors = check_detectors(detectors)
    shot = shoot(preparation(detectors, check_exposure(exposure)), per_shot)
    metadata = describe_run("snap", md, exposure)
    plan: MsgGenerator[str] = bp.count(detectors, 1, per_shot=shot, md=metadata)
    return (yield from plan)


def grid_frames(
    detectors: Sequence[Any],
    *args: Any,
    snake_axes: Iterable[Any] | bool | None = None,
    exposure: float | None = None,
    per_step: PerStep | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take an event at each point of a grid.

    ::

        RE(grid_frames([cam], y, -1, 1, 5, x, -2, 2, 9, snake_axes=[x]))
        beamtime[-1].primary.to_grid()["cam"].sel(y=0, x=1, method="nearest")

    Parameters
    ----------
    detectors
        What to read.
    *args
        ``motor1, start1, stop1, num1, motor2, …``, the first motor being the slowest;
        as for :func:`bluesky.plans.grid_scan`.
    snake_axes
        Motors that go back and forth, or True for all but the slowest.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
    per_step
        A plan for one point, as for :func:`bluesky.plans.scan_nd`.
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
    """
    detectors = check_detectors(detectors)
    check_grid(args)
    one_step = step(preparation(detectors, check_exposure(exposure)), per_step)
    metadata = describe_run("grid_frames", md, exposure)
    plan: MsgGenerator[str] = bp.grid_scan(
        detectors, *args, snake_axes=snake_axes, per_step=one_step, md=metadata
    )
    return (yield from plan)


def list_frames(
    detectors: Sequence[Any],
    *args: Any,
    grid: bool = False,
    snake_axes: Iterable[Any] | bool = False,
    exposure: float | None = None,
    per_step: PerStep | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take an event at each of given positions, or at each point of their mesh.

    ::

        RE(list_frames([cam], x, [0, 1, 4], y, [2, 2, 3]))           # three events
        RE(list_frames([cam], x, [0, 1, 4], y, [2, 3], grid=True))   # six
        beamtime[-1].primary.to_grid()["cam"].sel(x=4, y=3)

    Parameters
    ----------
    detectors
        What to read.
    *args
        ``motor1, positions1, motor2, positions2, …``.
    grid
        Whether each position of a motor is combined with each of the others, the first
        motor being the slowest; otherwise they move together, and have equally many.
    snake_axes
        For a grid: motors that go back and forth, or True for all but the slowest.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
    per_step
        A plan for one point, as for :func:`bluesky.plans.scan_nd`.
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
    """
    detectors = check_detectors(detectors)
    pairs = check_positions(args, together=not grid)
    args = tuple(part for pair in pairs for part in pair)
    one_step = step(preparation(detectors, check_exposure(exposure)), per_step)
    plan: MsgGenerator[str]
    if grid:
        metadata = describe_run("list_frames", md, exposure)
        plan = bp.list_grid_scan(
            detectors, *args, snake_axes=snake_axes, per_step=one_step, md=metadata
        )
    else:
        if snake_axes:
            raise ValueError("snake_axes is for a grid: give grid=True too")
        extents = ([pairs[0][1][0], pairs[0][1][-1]],)
        metadata = describe_run(
            "list_frames",
            md,
            exposure,
            shape=(len(pairs[0][1]),),
            extents=extents,
            snaking=(False,),
        )
        plan = bp.list_scan(detectors, *args, per_step=one_step, md=metadata)
    return (yield from plan)


def en_scan(
    detectors: Sequence[Any],
    energy: Any,
    start: float,
    stop: float,
    num: int,
    *,
    exposure: float | None = None,
    per_step: PerStep | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take an event at each of evenly spaced photon energies.

    ::

        RE(en_scan([cam, diode], mono.energy, 8.90, 9.10, 201))
        beamtime[-1].primary.to_grid()["diode"].plot()

    Parameters
    ----------
    detectors
        What to read.
    energy
        What sets the energy.
    start, stop
        First and last energy, in the units of ``energy``.
    num
        Number of energies.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
    per_step
        A plan for one point, as for :func:`bluesky.plans.scan_nd`.
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
    """
    detectors = check_detectors(detectors)
    check_motor(energy, "energy")
    check_range(start, stop, "energies")
    num = check_number(num, "the number of energies")
    one_step = step(preparation(detectors, check_exposure(exposure)), per_step)
    axis = describe_axis(start, stop, num)
    metadata = describe_run("en_scan", md, exposure, **axis)
    plan: MsgGenerator[str] = bp.scan(
        detectors, energy, start, stop, num, per_step=one_step, md=metadata
    )
    return (yield from plan)
