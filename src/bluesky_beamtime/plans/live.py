"""Frames until somebody has seen enough."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator
from ophyd_async.core import TriggerInfo

from bluesky_beamtime.plans.checks import (
    check_exposure,
    check_flush_period,
    check_flyers,
    check_period,
)
from bluesky_beamtime.plans.fly import STREAM, open_and_close
from bluesky_beamtime.plans.shots import describe_run, names
from bluesky_beamtime.plans.untyped import bpp, bps, bu

_logger = logging.getLogger("bluesky_beamtime.plans")


def live_stream(
    detectors: Sequence[Any],
    *,
    exposure: float | None = 0.1,
    seconds: float | None = None,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Let detectors take frames until they are stopped.

    Ctrl-C pauses: no more frames are taken. ``RE.resume()`` goes on in the same run,
    ``RE.stop()`` ends it as it should, with ``success``, and ``RE.abort()`` with
    ``abort``; all frames are kept. ::

        RE(live_stream([cam], exposure=0.05))
        # Ctrl-C
        RE.stop()
        beamtime[-1].primary.read()["cam"]

    Parameters
    ----------
    detectors
        Cameras and others of ophyd-async's ``StandardDetector`` that stop when they are
        asked to complete an acquisition without a number, as this package's do.
    exposure
        In seconds; None keeps what is set.
    seconds
        End by itself so long after the first frame was begun; None for never.
    flush_period
        Seconds between two announcements of frames, within which it ends.
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
    detectors = check_flyers(detectors)
    exposure = check_exposure(exposure)
    if seconds is not None:
        seconds = check_period(seconds, "seconds")
    flush_period = check_flush_period(flush_period)
    metadata = describe_run(
        "live_stream",
        md,
        exposure,
        detectors=names(detectors),
        num_points=None,
        num_intervals=None,
        plan_args={
            "detectors": list(map(repr, detectors)),
            "exposure": exposure,
            "seconds": seconds,
        },
        hints={"dimensions": [[["time"], STREAM]]},
    )
    info = TriggerInfo(number_of_events=0, livetime=exposure or 0.0)
    rest = _Rest(detectors)

    def start() -> MsgGenerator[None]:
        yield from bps.checkpoint()
        for detector in detectors:
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait(group="prepare")
        if not rest.declared:
            yield from bps.checkpoint()
            yield from bps.declare_stream(*detectors, name=STREAM, collect=True)
            rest.declared = True
        yield from bps.checkpoint()
        rest.taken = False
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.checkpoint()

    def follow(until: float) -> MsgGenerator[None]:
        yield from bps.sleep(min(flush_period, max(0.0, until - time.monotonic())))
        yield from bps.collect(*detectors, name=STREAM)
        yield from bps.checkpoint()

    def stream() -> MsgGenerator[None]:
        # From here on the RunEngine tells it of pauses.
        yield bu.Msg("null", rest)
        until = math.inf
        while time.monotonic() < until:
            if rest.taken:
                yield from start()
            if seconds is not None and until == math.inf:
                until = time.monotonic() + seconds
            # What was announced must not be announced again after a pause.
            yield from bpp.rewindable_wrapper(follow(until), False)

    def finish() -> MsgGenerator[None]:
        if rest.declared:
            if not rest.taken:
                rest.taken = True
                yield from bps.complete_all(*detectors, wait=True)
            yield from bps.collect(*detectors, name=STREAM)

    run = open_and_close(bpp.finalize_wrapper(stream(), finish()), metadata)
    staged: MsgGenerator[str] = bpp.stage_wrapper(run, detectors)
    return (yield from staged)


class _Rest:
    """Stops the detectors when the RunEngine pauses.

    The RunEngine tells every device that it has met of a pause; this is one.
    """

    name, parent = "live_stream", None

    def __init__(self, detectors: Sequence[Any]) -> None:
        self._detectors = detectors
        self.taken = True
        self.declared = False

    async def pause(self) -> None:
        """Take no frames while nobody is there."""
        if not self.taken:
            self.taken = True
            for status in [detector.complete() for detector in self._detectors]:
                try:
                    await status
                except Exception as error:
                    # It had not started, or it failed, which the plan will hear of.
                    _logger.warning("while pausing: %r", error)

    def resume(self) -> None:
        """Leave it to the plan to go on."""
