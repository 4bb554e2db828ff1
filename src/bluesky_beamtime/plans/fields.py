"""Darks and flats: frames without the beam, and frames without the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bluesky.utils import MsgGenerator

from bluesky_beamtime.plans.checks import (
    check_count,
    check_detectors,
    check_exposure,
    check_motor,
    check_range,
)
from bluesky_beamtime.plans.shots import describe_run, names, point_done, preparation
from bluesky_beamtime.plans.untyped import bpp, bps

DARK = "dark"
"""Stream of the frames without the beam."""

FLAT = "flat"
"""Stream of the frames with the beam and without the sample."""


@dataclass(frozen=True, kw_only=True)
class Beam:
    """How the beam is taken away, and how the sample is taken out of it.

    ::

        beam = Beam(shutter=shutter, open="Open", closed="Closed", sample=x, out=25.0)
    """

    shutter: Any = None
    """What lets the beam in; None if darks are not possible."""
    open: Any = 1
    """What the shutter is set to for the beam."""
    closed: Any = 0
    """What the shutter is set to for no beam."""
    sample: Any = None
    """The motor that takes the sample out; None if flats are not possible."""
    out: float | None = None
    """Where the sample is out of the beam."""

    def check(self, darks: int, flats: int) -> None:
        """Check that so many darks and flats can be taken.

        Raises
        ------
        ValueError
            Something is missing for them.
        """
        if self.shutter is not None and not hasattr(self.shutter, "set"):
            raise ValueError(f"the shutter must have a set(): {self.shutter!r} has not")
        if darks and self.shutter is None:
            raise ValueError("darks need a shutter: beam=Beam(shutter=…)")
        if self.sample is not None:
            check_motor(self.sample, "the sample")
        if flats and (self.sample is None or self.out is None):
            raise ValueError(
                "flats need a motor that takes the sample out: "
                "beam=Beam(sample=…, out=…)"
            )
        if self.out is not None:
            check_range(self.out, self.out, "out")

    @property
    def parts(self) -> list[Any]:
        """The motor, which is staged with the detectors."""
        return [] if self.sample is None else [self.sample]


def dark_flat(
    detectors: Sequence[Any],
    beam: Beam,
    *,
    darks: int = 10,
    flats: int = 10,
    exposure: float | None = None,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Take darks and flats, into the streams ``dark`` and ``flat`` of a run.

    ::

        beam = Beam(shutter=shutter, sample=x, out=25)
        RE(dark_flat([cam], beam, darks=20, flats=20, exposure=0.1))
        dark = beamtime[-1].dark.read()["cam"].mean("time")

    Parameters
    ----------
    detectors
        What to read.
    beam
        The shutter, and the motor that takes the sample out.
    darks, flats
        Number of frames of each; 0 for none.
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

    Notes
    -----
    However it ends, the sample goes back to where it was, and the shutter closes.
    """
    detectors = check_detectors(detectors)
    darks = check_count(darks, "the number of darks")
    flats = check_count(flats, "the number of flats")
    if not darks + flats:
        raise ValueError("there is nothing to do: give a number of darks or flats")
    beam.check(darks, flats)
    prepare = preparation(detectors, check_exposure(exposure))
    metadata = describe_run(
        "dark_flat",
        md,
        exposure,
        detectors=names(detectors),
        num_frames=darks + flats,
        num_darks=darks,
        num_flats=flats,
        plan_args={
            "detectors": list(map(repr, detectors)),
            "beam": repr(beam),
            "darks": darks,
            "flats": flats,
            "exposure": exposure,
        },
        hints={"dimensions": [(["time"], DARK if darks else FLAT)]},
    )

    @bpp.stage_decorator([*detectors, *beam.parts])
    @bpp.run_decorator(md=metadata)
    def take() -> MsgGenerator[None]:
        yield from point_done()
        yield from prepare()
        yield from take_darks(detectors, beam, darks)
        yield from take_flats(detectors, beam, flats)

    plan: MsgGenerator[str] = closing(take(), beam)
    return (yield from plan)


def take_darks(
    detectors: Sequence[Any], beam: Beam, num: int, *, stream: str = DARK
) -> MsgGenerator[None]:
    """Close the shutter and take frames, inside a run; it stays closed.

    Parameters
    ----------
    detectors
        What to read; staged.
    beam
        The shutter.
    num
        Number of frames; nothing happens if it is 0.
    stream
        Where they go.
    """
    if num:
        yield from bps.abs_set(beam.shutter, beam.closed, wait=True)
        yield from _take(detectors, num, stream)


def take_flats(
    detectors: Sequence[Any], beam: Beam, num: int, *, stream: str = FLAT
) -> MsgGenerator[None]:
    """Take frames without the sample, inside a run; then bring it back.

    The shutter is opened and stays open.

    Parameters
    ----------
    detectors
        What to read; staged.
    beam
        The shutter, if there is one, and the motor that takes the sample out.
    num
        Number of frames; nothing happens if it is 0.
    stream
        Where they go.
    """
    if not num:
        return
    reading: MsgGenerator[Any] = bps.rd(beam.sample)
    inside = yield from reading

    def bring_back() -> MsgGenerator[None]:
        yield from bps.mv(beam.sample, inside)
        yield from point_done()

    def flats() -> MsgGenerator[None]:
        yield from bps.mv(beam.sample, beam.out)
        yield from open_shutter(beam)
        yield from _take(detectors, num, stream)

    yield from point_done()
    yield from bpp.finalize_wrapper(flats(), bring_back())


def open_shutter(beam: Beam | None) -> MsgGenerator[None]:
    """Let the beam in, if there is a shutter."""
    if beam is not None and beam.shutter is not None:
        yield from bps.abs_set(beam.shutter, beam.open, wait=True)


def closing(plan: MsgGenerator[Any], beam: Beam | None) -> MsgGenerator[Any]:
    """Close the shutter after a plan, if there is one, however it ends."""

    def close() -> MsgGenerator[None]:
        if beam is not None and beam.shutter is not None:
            yield from bps.abs_set(beam.shutter, beam.closed, wait=True)

    wrapped: MsgGenerator[Any] = bpp.finalize_wrapper(plan, close())
    return (yield from wrapped)


def _take(detectors: Sequence[Any], num: int, stream: str) -> MsgGenerator[None]:
    for _ in range(num):
        yield from point_done()
        yield from bps.trigger_and_read(detectors, name=stream)
    yield from point_done()
