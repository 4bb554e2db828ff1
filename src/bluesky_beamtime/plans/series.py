"""Plans that take the same again: over time, or with other exposures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bluesky.protocols import Reading
from bluesky.utils import MsgGenerator
from event_model import DataKey
from ophyd_async.core import StandardDetector

from bluesky_beamtime.plans.checks import (
    check_detectors,
    check_exposure,
    check_number,
    check_period,
)
from bluesky_beamtime.plans.shots import (
    PerShot,
    describe_run,
    expose,
    names,
    point_done,
    preparation,
    shoot,
)
from bluesky_beamtime.plans.untyped import bp, bpp, bps


def time_series(
    detectors: Sequence[Any],
    num: int,
    period: float = 0.0,
    *,
    exposure: float | None = None,
    per_shot: PerShot | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take events at regular times.

    ::

        RE(time_series([cam, thermometer], 60, period=10, exposure=1))
        beamtime[-1].primary.read()["thermometer"].plot()

    Parameters
    ----------
    detectors
        What to read.
    num
        Number of events.
    period
        Seconds from one event to the next; an event that takes longer is followed by
        the next at once. 0: as fast as it goes.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set.
    per_shot
        A plan for one event, as for :func:`bluesky.plans.count`.
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
    num = check_number(num, "the number of events")
    period = check_period(period)
    shot = shoot(preparation(detectors, check_exposure(exposure)), per_shot)
    metadata = describe_run(
        "time_series", md, exposure, period=period, shape=(num,), snaking=(False,)
    )
    plan: MsgGenerator[str] = bp.count(
        detectors, num, delay=period, per_shot=shot, md=metadata
    )
    return (yield from plan)


def exposure_series(
    detectors: Sequence[Any],
    exposures: Sequence[float],
    *,
    repeats: int = 1,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take events with one exposure after the other, to see which is the best.

    The exposure is a field of each event, and the axis of the grid. ::

        RE(exposure_series([cam], [0.01, 0.1, 1.0], repeats=5))
        beamtime[-1].primary.to_grid()["cam"].sel(exposure=0.1).mean("repeat")

    Parameters
    ----------
    detectors
        What to read; at least one has an exposure, as ophyd-async's
        ``StandardDetector`` do.
    exposures
        In seconds.
    repeats
        Events with each.
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
    if not any(isinstance(detector, StandardDetector) for detector in detectors):
        raise ValueError(f"none of {', '.join(names(detectors))} has an exposure")
    repeats = check_number(repeats, "the number of repeats")
    times: list[float] = []
    for given in exposures:
        exposure = check_exposure(given)
        if exposure is None:
            raise ValueError("each exposure must be a number of seconds, not None")
        times.append(exposure)
    num = check_number(len(times), "the number of exposures") * repeats
    axes = [(_Noted("exposure", "number", "s"), (times[0], times[-1]), len(times))]
    if repeats > 1:
        axes.append((_Noted("repeat", "integer"), (0, repeats - 1), repeats))
    noted = [axis for axis, _, _ in axes]
    metadata = describe_run(
        "exposure_series",
        md,
        None,
        detectors=names(detectors),
        motors=tuple(names(noted)),
        num_points=num,
        num_intervals=num - 1,
        shape=tuple(size for _, _, size in axes),
        extents=tuple([*ends] for _, ends, _ in axes),
        snaking=(False,) * len(axes),
        plan_args={
            "detectors": list(map(repr, detectors)),
            "exposures": times,
            "repeats": repeats,
        },
        hints={"dimensions": [([axis.name], "primary") for axis in noted]},
    )

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator(md=metadata)
    def series() -> MsgGenerator[None]:
        for exposure in times:
            yield from point_done()
            yield from expose(detectors, exposure)
            for repeat in range(repeats):
                for axis, value in zip(noted, (exposure, repeat), strict=False):
                    axis.note(value)
                yield from point_done()
                yield from bps.trigger_and_read([*detectors, *noted])
        yield from point_done()

    plan: MsgGenerator[str] = series()
    return (yield from plan)


class _Noted:
    """A number that the plan chooses, to be read with the detectors."""

    parent = None

    def __init__(self, name: str, dtype: Any, units: str | None = None) -> None:
        self.name = name
        self._dtype = dtype
        self._units = units
        self._value = 0.0
        self._time = time.time()

    def note(self, value: float) -> None:
        self._value, self._time = value, time.time()

    def read(self) -> dict[str, Reading[float]]:
        return {self.name: Reading(value=self._value, timestamp=self._time)}

    def describe(self) -> dict[str, DataKey]:
        data_key = DataKey(source="plan", dtype=self._dtype, shape=[])
        if self._units is not None:
            data_key["units"] = self._units
        return {self.name: data_key}
