"""Powder patterns: many frames of the same, to be added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator
from ophyd_async.core import TriggerInfo

from bluesky_beamtime.plans.checks import (
    check_count,
    check_exposure,
    check_flush_period,
    check_flyers,
    check_number,
)
from bluesky_beamtime.plans.fields import DARK, Beam, closing, open_shutter
from bluesky_beamtime.plans.fly import STREAM, announce_safe_frames, open_and_close
from bluesky_beamtime.plans.shots import describe_run, names
from bluesky_beamtime.plans.untyped import bpp, bps


def powder_exposure(
    detectors: Sequence[Any],
    num: int = 1,
    *,
    exposure: float = 1.0,
    beam: Beam | None = None,
    darks: int = 0,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Expose a powder for a long time, as many frames, after as long darks.

    A long exposure is cut into frames, of which each is kept: zingers and drifts can be
    found, and no pixel overflows. Adding them up is left to reading. ::

        RE(powder_exposure([cam], 60, exposure=1, beam=Beam(shutter=shutter), darks=10))
        run = beamtime[-1]
        dark = run.dark.read()["cam"].mean("time")
        pattern = (run.primary.read()["cam"] - dark).sum("time")

    Parameters
    ----------
    detectors
        Cameras and others of ophyd-async's ``StandardDetector``, all at the same time.
    num
        Frames of each.
    exposure
        Of one frame, in seconds, of the darks too.
    beam
        The shutter: it is opened for the frames and closed at the end.
    darks
        Frames without the beam before, in the stream ``dark``.
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
    Pauses are as in :func:`fly_frames`.
    """
    detectors = check_flyers(detectors)
    num = check_number(num, "the number of frames")
    darks = check_count(darks, "the number of darks")
    beam = beam or Beam()
    beam.check(darks, 0)
    livetime = check_exposure(exposure)
    flush_period = check_flush_period(flush_period)
    metadata = describe_run(
        "powder_exposure",
        md,
        livetime,
        detectors=names(detectors),
        num_points=num,
        num_intervals=num - 1,
        num_frames=num + darks,
        num_darks=darks,
        shape=(num,),
        snaking=(False,),
        plan_args={
            "detectors": list(map(repr, detectors)),
            "num": num,
            "exposure": livetime,
            "beam": repr(beam),
            "darks": darks,
        },
        hints={"dimensions": [[["time"], STREAM]]},
    )

    def take(number: int, stream: str) -> MsgGenerator[None]:
        info = TriggerInfo(number_of_events=number, livetime=livetime or 0.0)
        for detector in detectors:
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait(group="prepare")
        yield from bps.declare_stream(*detectors, name=stream, collect=True)
        yield from bps.clear_checkpoint()

        def frames() -> MsgGenerator[None]:
            yield from bps.kickoff_all(*detectors, wait=True)
            yield from bps.collect_while_completing(
                detectors, detectors, flush_period=flush_period, stream_name=stream
            )

        def announce(error: BaseException) -> MsgGenerator[None]:
            yield from announce_safe_frames(detectors, error, stream)

        yield from bpp.contingency_wrapper(frames(), except_plan=announce)

    def expose() -> MsgGenerator[None]:
        if darks:
            yield from bps.abs_set(beam.shutter, beam.closed, wait=True)
            yield from take(darks, DARK)
        yield from open_shutter(beam)
        yield from take(num, STREAM)

    run = open_and_close(expose(), metadata)
    staged: MsgGenerator[str] = bpp.stage_wrapper(closing(run, beam), detectors)
    return (yield from staged)
