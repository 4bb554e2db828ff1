"""A step scan, a grid scan and a fly scan, recorded into one beamtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.demo.beamline import (
    Beamline,
    epics_beamline,
    simulated_beamline,
)
from bluesky_beamtime.demo.picture import draw_picture
from bluesky_beamtime.demo.progress import ScanProgress
from bluesky_beamtime.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

FILE_NAME = "demo.db"
FLY_EXPOSURE = 0.02


@dataclass(frozen=True, slots=True)
class Tour:
    """What a tour has left behind."""

    path: Path
    """The database; the frames lie beside it."""
    uids: tuple[str, ...]
    """Uids of the three runs, in their order."""
    picture: Path | None
    """The PNG, None if it could not be drawn."""
    no_picture: str = ""
    """Why there is none."""


def take_tour(
    folder: str | os.PathLike[str],
    console: Console,
    *,
    epics: bool = False,
    quick: bool = False,
) -> Tour:
    """Run the three scans; a folder that has been toured before goes on.

    Parameters
    ----------
    folder
        Where the beamtime and the picture go; made if absent.
    console
        Where progress is drawn.
    epics
        Receive the cameras over PVAccess, from processes of their own.
    quick
        Take fewer points.

    Raises
    ------
    MissingExtraError
        ``epics`` without p4p.
    KeyboardInterrupt
        Ctrl-C; the run that was going on has ended as ``abort``.
    """
    from bluesky.run_engine import RunEngine
    from bluesky.utils import ProgressBarManager, RunEngineInterrupted

    from bluesky_beamtime.beamtime import Beamtime

    path = Path(folder) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    # Any: bluesky declares neither its hooks nor what a plan returns.
    RE: Any = RunEngine()
    bars: Any = ProgressBarManager
    progress = ScanProgress(console)
    RE.subscribe(progress)
    RE.waiting_hook = bars(progress.watch)
    build = epics_beamline if epics else simulated_beamline
    with Beamtime(path, sample="LaB6") as beamtime:
        # Its lines would run into the bars; the tour ends with its own.
        beamtime.attach(RE, report=False)
        try:
            with build(beamtime.frames) as beamline:
                uids: list[str] = []
                try:
                    for plan in _plans(beamline, quick):
                        uids.extend(RE(plan))
                except RunEngineInterrupted:
                    # Ctrl-C has paused the scan; nobody is here to resume it, and
                    # nobody needs a traceback of what they did themselves.
                    logging.getLogger("bluesky").setLevel(logging.CRITICAL)
                    RE.abort(reason="stopped at the keyboard")
                    raise KeyboardInterrupt from None
        finally:
            progress.close()
        step, grid, fly = (beamtime[uid] for uid in uids)
        picture, reason = path.with_name(f"scans-{step.scan_id}-{fly.scan_id}.png"), ""
        try:
            draw_picture(picture, step, grid, fly)
        except MissingExtraError as error:
            picture, reason = None, str(error)
    return Tour(path, tuple(uids), picture, reason)


def _plans(line: Beamline, quick: bool) -> list[Any]:
    bp: Any = import_module("bluesky.plans")
    points, rows, columns, frames = (7, 3, 5, 50) if quick else (25, 7, 11, 200)
    return [
        bp.scan(line.detectors, line.x, -3, 3, points),
        bp.grid_scan(line.detectors, line.y, -2, 2, rows, line.x, -3, 3, columns),
        _sweep(line, frames),
    ]


def _sweep(line: Beamline, frames: int) -> Generator[Any, Any, Any]:
    """Let the cameras run while the sample moves through the beam."""
    bps: Any = import_module("bluesky.plan_stubs")
    bpp: Any = import_module("bluesky.preprocessors")
    from bluesky_beamtime.plans import fly_frames

    yield from bps.mv(line.x, -3, line.y, 0)
    yield from bps.mv(line.x.velocity, 6 / (frames * FLY_EXPOSURE))
    moving = False

    def move_at_kickoff(message: Any) -> tuple[Any, Any]:
        nonlocal moving
        if message.command != "kickoff" or moving:
            return None, None
        moving = True
        return bpp.pchain(bps.abs_set(line.x, 3, group="sweep"), _one(message)), None

    flight = fly_frames(line.cameras, frames, exposure=FLY_EXPOSURE)
    # The motor is no detector of the flight: its readback is recorded beside it.
    flight = bpp.monitor_during_wrapper(flight, [line.x.user_readback])
    yield from bpp.plan_mutator(flight, move_at_kickoff)
    yield from bps.wait("sweep")
    yield from bps.mv(line.x.velocity, 0)


def _one(message: Any) -> Generator[Any, Any, Any]:
    return (yield message)
