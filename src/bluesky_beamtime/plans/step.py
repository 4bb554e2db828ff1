"""Plans that take frames point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator
from ophyd_async.core import StandardDetector, TriggerInfo

from bluesky_beamtime.plans.checks import check_detectors, check_exposure, check_number
from bluesky_beamtime.plans.untyped import bp, bps


def snap(
    detectors: Sequence[Any],
    *,
    exposure: float | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take one event of each detector.

    Parameters
    ----------
    detectors
        What to read.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
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
    prepare_once = _preparation(detectors, check_exposure(exposure))

    def shot(detectors: Sequence[Any]) -> MsgGenerator[Any]:
        yield from prepare_once()
        yield from bps.one_shot(detectors)
        yield from _point_done()

    metadata = _metadata("snap", md, exposure)
    plan: MsgGenerator[str] = bp.count(detectors, 1, per_shot=shot, md=metadata)
    return (yield from plan)


def grid_frames(
    detectors: Sequence[Any],
    *args: Any,
    snake_axes: Iterable[Any] | bool | None = None,
    exposure: float | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take an event at each point of a grid.

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
    if not args or len(args) % 4:
        raise ValueError(
            "a grid needs 'motor, start, stop, number of points' for each axis, got "
            f"{len(args)} arguments"
        )
    for motor, number in zip(args[::4], args[3::4], strict=True):
        check_number(number, f"the number of points of {motor.name}")
    prepare_once = _preparation(detectors, check_exposure(exposure))

    def step(detectors: Sequence[Any], step: Any, pos_cache: Any) -> MsgGenerator[Any]:
        yield from prepare_once()
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from _point_done()

    metadata = _metadata("grid_frames", md, exposure)
    plan: MsgGenerator[str] = bp.grid_scan(
        detectors, *args, snake_axes=snake_axes, per_step=step, md=metadata
    )
    return (yield from plan)


def en_scan(
    detectors: Sequence[Any],
    energy: Any,
    start: float,
    stop: float,
    num: int,
    *,
    exposure: float | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take an event at each of evenly spaced photon energies.

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
    check_number(num, "the number of energies")
    prepare_once = _preparation(detectors, check_exposure(exposure))

    def step(detectors: Sequence[Any], step: Any, pos_cache: Any) -> MsgGenerator[Any]:
        yield from prepare_once()
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from _point_done()

    metadata = _metadata("en_scan", md, exposure)
    plan: MsgGenerator[str] = bp.scan(
        detectors, energy, start, stop, num, per_step=step, md=metadata
    )
    return (yield from plan)


def _metadata(
    plan_name: str, md: Mapping[str, Any] | None, exposure: float | None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"plan_name": plan_name}
    if exposure is not None:
        metadata["exposure"] = exposure
    return {**metadata, **(md or {})}


def _point_done() -> MsgGenerator[None]:
    """Let a pause from here on, while unstaging too, not go back into the point.

    After the last point there is no run any more that the point could be taken in.
    """
    yield from bps.checkpoint()


def _preparation(
    detectors: Sequence[Any], exposure: float | None
) -> Callable[[], MsgGenerator[None]]:
    """Return a plan that sets the exposure the first time it runs.

    Staging forgets what was prepared before it, and the frames' folder is named after
    the run: so this has to happen inside the run.
    """
    waiting = exposure is not None

    def prepare() -> MsgGenerator[None]:
        nonlocal waiting
        if waiting and exposure is not None:
            waiting = False
            info = TriggerInfo(livetime=exposure)
            for detector in detectors:
                if isinstance(detector, StandardDetector):
                    yield from bps.prepare(detector, info, group="exposure")
            yield from bps.wait(group="exposure")

    return prepare
