"""Tomography: projections at many angles, with their darks and flats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bluesky.utils import MsgGenerator

from bluesky_beamtime.plans.checks import (
    check_count,
    check_detectors,
    check_exposure,
    check_motor,
    check_number,
    check_range,
)
from bluesky_beamtime.plans.fields import (
    Beam,
    closing,
    open_shutter,
    take_darks,
    take_flats,
)
from bluesky_beamtime.plans.shots import (
    PerStep,
    describe_axis,
    describe_run,
    hinted_fields,
    names,
    point_done,
    preparation,
    step,
)
from bluesky_beamtime.plans.untyped import bpp


def tomo_scan(
    detectors: Sequence[Any],
    angle: Any,
    start: float,
    stop: float,
    num: int,
    *,
    beam: Beam | None = None,
    darks: int = 0,
    flats: int = 0,
    flats_after: int = 0,
    exposure: float | None = None,
    per_step: PerStep | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take projections at evenly spaced angles, after darks and flats.

    Projections go to the stream ``primary``, with the angle of each; darks and flats to
    ``dark`` and ``flat``. ::

        beam = Beam(shutter=shutter, sample=x, out=25)
        RE(tomo_scan([cam], rot, 0, 180, 1801, beam=beam, darks=20, flats=20))
        run = beamtime[-1]
        dark = run.dark.read()["cam"].mean("time")
        flat = run.flat.read()["cam"].mean("time")
        projections = (run.primary.to_grid()["cam"] - dark) / (flat - dark)

    Parameters
    ----------
    detectors
        What to read.
    angle
        The rotation.
    start, stop
        First and last angle, in the units of ``angle``; both are taken.
    num
        Number of angles.
    beam
        The shutter, and the motor that takes the sample out. With a shutter, it is
        opened for the projections and closed at the end.
    darks, flats
        Number of frames before the projections.
    flats_after
        Number of flats after the projections; they follow in the stream ``flat``.
    exposure
        In seconds, for detectors of ophyd-async's ``StandardDetector`` such as cameras;
        None keeps what is set. The same for darks, flats and projections.
    per_step
        A plan for one projection, as for :func:`bluesky.plans.scan_nd`.
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
    The rotation stops for each projection, so that a pause can be gone back from.
    However it ends, the sample goes back to where it was, and the shutter closes.
    """
    detectors = check_detectors(detectors)
    check_motor(angle, "angle")
    check_range(start, stop, "angles")
    num = check_number(num, "the number of angles")
    darks = check_count(darks, "the number of darks")
    flats = check_count(flats, "the number of flats")
    flats_after = check_count(flats_after, "the number of flats afterwards")
    beam = beam or Beam()
    beam.check(darks, flats + flats_after)
    if beam.sample is angle:
        raise ValueError("the motor that takes the sample out cannot be the rotation")
    prepare = preparation(detectors, check_exposure(exposure))
    one_step = step(prepare, per_step)
    metadata = describe_run(
        "tomo_scan",
        md,
        exposure,
        detectors=names(detectors),
        motors=(str(angle.name),),
        num_points=num,
        num_intervals=num - 1,
        num_frames=num + darks + flats + flats_after,
        num_darks=darks,
        num_flats=flats + flats_after,
        **describe_axis(start, stop, num),
        plan_args={
            "detectors": list(map(repr, detectors)),
            "angle": repr(angle),
            "start": start,
            "stop": stop,
            "num": num,
            "beam": repr(beam),
            "exposure": exposure,
        },
        plan_pattern="inner_product",
        plan_pattern_module="bluesky.plan_patterns",
        plan_pattern_args={"num": num, "args": [repr(angle), start, stop]},
        hints={"dimensions": [(hinted_fields(angle), "primary")]},
    )

    @bpp.stage_decorator([*detectors, angle, *beam.parts])
    @bpp.run_decorator(md=metadata)
    def take() -> MsgGenerator[None]:
        yield from point_done()
        yield from prepare()
        yield from take_darks(detectors, beam, darks)
        yield from take_flats(detectors, beam, flats)
        yield from open_shutter(beam)
        cache: dict[Any, Any] = {angle: None}
        for position in np.linspace(start, stop, num).tolist():
            yield from one_step(detectors, {angle: position}, cache)
        yield from take_flats(detectors, beam, flats_after)

    plan: MsgGenerator[str] = closing(take(), beam)
    return (yield from plan)
