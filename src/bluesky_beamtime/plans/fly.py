"""Plans in which detectors take frames by themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bluesky.utils import FailedPause, MsgGenerator, RunEngineControlException
from ophyd_async.core import TriggerInfo

from bluesky_beamtime.plans.checks import check_exposure, check_flyers, check_number
from bluesky_beamtime.plans.dropping import drop_wrapper
from bluesky_beamtime.plans.untyped import bpp, bps

_logger = logging.getLogger("bluesky_beamtime.plans")

STREAM = "primary"

PAUSED = (
    "an immediate pause ended the run: frames that were taken cannot be taken again. A "
    "deferred pause lets it finish"
)
"""Reason in the stop document of a run that was paused while it took frames."""


def fly_frames(
    detectors: Sequence[Any],
    num: int,
    *,
    exposure: float | None = 0.1,
    fail_on_drop: bool | None = None,
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
    Frames that were taken cannot be taken again, so that there is nothing to go back
    to: an immediate pause ends the run as an abort does, a deferred one lets it finish.
    A run that ends early announces the frames that are safe.
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
        yield from announce_safe_frames(detectors, error)

    def take() -> MsgGenerator[None]:
        yield from bps.kickoff_all(*detectors, wait=True)
        yield from bps.collect_while_completing(
            detectors, detectors, flush_period=flush_period, stream_name=STREAM
        )

    def fly() -> MsgGenerator[None]:
        # Inside the run, after which the folder of the frames is named.
        for detector in detectors:
            yield from bps.prepare(detector, info, group="prepare")
        yield from bps.wait(group="prepare")
        yield from bps.declare_stream(*detectors, name=STREAM, collect=True)
        yield from bps.clear_checkpoint()
        yield from bpp.contingency_wrapper(take(), except_plan=announce)

    run = drop_wrapper(open_and_close(fly(), metadata), detectors, fail_on_drop)
    staged: MsgGenerator[str] = bpp.stage_wrapper(run, detectors)
    return (yield from staged)


def open_and_close(
    plan: MsgGenerator[None], metadata: Mapping[str, Any]
) -> MsgGenerator[str]:
    """Open and close a run; as bluesky's own, but for what it says of a pause."""

    def close(error: BaseException) -> MsgGenerator[None]:
        status, reason = "fail", str(error)
        if isinstance(error, RunEngineControlException):
            # Such as an abort; the RunEngine keeps its reason to itself.
            status, reason = getattr(error, "exit_status", "abort"), ""
        elif isinstance(error, FailedPause):
            status, reason = "abort", PAUSED
        yield from bps.close_run(exit_status=status, reason=reason)

    opened: MsgGenerator[str] = bps.open_run(md=metadata)
    uid = yield from opened
    yield from bpp.contingency_wrapper(plan, except_plan=close, else_plan=bps.close_run)
    return uid


def announce_safe_frames(
    detectors: Sequence[Any], error: BaseException, stream: str = STREAM
) -> MsgGenerator[None]:
    """Announce what the detectors have stored when a run ends early."""
    if isinstance(error, FailedPause):
        # A pause that comes from the plan itself interrupts what is awaited next.
        with suppress(RunEngineControlException):
            yield from bps.sleep(0)
    try:
        yield from bps.collect(*detectors, name=stream)
    except RunEngineControlException:
        raise
    except Exception as second:
        # The first error is the one to tell; frames that no document announces are in
        # the store all the same.
        _logger.warning("after %r: last frames were not announced: %s", error, second)
