"""Plans in which detectors take frames by themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator, RunEngineControlException
from ophyd_async.core import TriggerInfo

from bluesky_beamtime.plans.checks import check_exposure, check_flyers, check_number
from bluesky_beamtime.plans.untyped import bpp, bps

_logger = logging.getLogger("bluesky_beamtime.plans")

STREAM = "primary"


def fly_frames(
    detectors: Sequence[Any],
    num: int,
    *,
    exposure: float | None = 0.1,
    flush_period: float = 0.5,
    md: Mapping[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Let detectors take frames at their own pace, all at the same time.

    Parameters
    ----------
    detectors
        Cameras and others of ophyd-async's ``StandardDetector``.
    num
        Frames of each.
    exposure
        In seconds; None keeps what is set.
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
    Frames that were taken cannot be taken again, so that there is nothing to go back
    to: an immediate pause ends the run, a deferred one lets it finish. A run that ends
    early announces the frames that are safe.
    """
    detectors = check_flyers(detectors)
    num = check_number(num, "the number of frames")
    exposure = check_exposure(exposure)
    if not flush_period > 0:
        raise ValueError(f"flush_period must be positive, not {flush_period!r}")
    info = TriggerInfo(number_of_events=num, livetime=exposure or 0.0)
    metadata = {
        "plan_name": "fly_frames",
        "detectors": [detector.name for detector in detectors],
        "num_points": num,
        "num_intervals": num - 1,
        "plan_args": {
            "detectors": list(map(repr, detectors)),
            "num": num,
            "exposure": exposure,
        },
        "hints": {"dimensions": [[["time"], STREAM]]},
        **(md or {}),
    }

    def announce(error: BaseException) -> MsgGenerator[None]:
        yield from _announce_safe_frames(detectors, error)

    def fly() -> MsgGenerator[None]:
        # Inside the run, after which the folder of the frames is named.
        for detector in detectors:
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait(group="prepare")
        yield from bps.declare_stream(*detectors, name=STREAM, collect=True)
        yield from bps.clear_checkpoint()
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bpp.contingency_wrapper(
            bps.collect_while_completing(
                detectors, detectors, flush_period=flush_period, stream_name=STREAM
            ),
            except_plan=announce,
        )

    run = bpp.run_wrapper(fly(), md=metadata)
    staged: MsgGenerator[str] = bpp.stage_wrapper(run, detectors)
    return (yield from staged)


def _announce_safe_frames(
    detectors: Sequence[Any], error: BaseException
) -> MsgGenerator[None]:
    """Announce what the detectors have stored when a run ends early."""
    try:
        yield from bps.collect(*detectors, name=STREAM)
    except RunEngineControlException:
        raise
    except Exception as second:
        # The first error is the one to tell; frames that no document announces are in
        # the store all the same.
        _logger.warning("after %r: last frames were not announced: %s", error, second)
