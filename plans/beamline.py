"""The plans of an example beamline, for the devices in ``devices/beamline.py``.

They are made of the package's plans and of Bluesky's; write yours beside them. With a
session set up as that file says::

    from plans.beamline import centre_sample, map_sample

    RE(centre_sample(bl.diode, bl.x))
    RE(map_sample(bl.cameras, bl.x, bl.y))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import plans as bp
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from bluesky_beamtime.plans import fly_frames, grid_frames


def centre_sample(
    counter: Any, motor: Any, half_width: float = 2.0, num: int = 21
) -> MsgGenerator[float]:
    """Scan a motor and move it to where the counter saw most.

    Returns
    -------
    float
        The position.
    """
    seen: list[tuple[float, float]] = []

    def per_step(
        detectors: Sequence[Any], motor: Any, step: float
    ) -> MsgGenerator[None]:
        yield from bps.checkpoint()
        yield from bps.mv(motor, step)
        reading = yield from bps.trigger_and_read([*detectors, motor])
        seen.append((reading[counter.name]["value"], step))

    start = yield from bps.rd(motor)
    yield from bp.scan(
        [counter],
        motor,
        start - half_width,
        start + half_width,
        num,
        per_step=per_step,
        md={"plan_name": "centre_sample"},
    )
    _, best = max(seen)
    yield from bps.mv(motor, best)
    return best


def map_sample(
    detectors: Sequence[Any],
    x: Any,
    y: Any,
    half_width: float = 2.0,
    num: int = 9,
    exposure: float | None = None,
) -> MsgGenerator[str]:
    """Map the sample, back and forth along ``x``."""
    span = (-half_width, half_width, num)
    return (
        yield from grid_frames(
            detectors, y, *span, x, *span, snake_axes=[x], exposure=exposure
        )
    )


def watch_sample(
    cameras: Sequence[Any], seconds: float, exposure: float = 0.1
) -> MsgGenerator[str]:
    """Let the cameras run for some time."""
    return (
        yield from fly_frames(
            cameras, max(1, round(seconds / exposure)), exposure=exposure
        )
    )


def before_and_after(
    detectors: Sequence[Any], num: int = 2, md: Mapping[str, Any] | None = None
) -> MsgGenerator[str]:
    """Measure, wait until somebody has changed the sample, and measure again.

    ``RE.resume()`` goes on when that is done, ``RE.abort()`` does not.
    """
    metadata = {"plan_name": "before_and_after", "num_points": 2 * num, **(md or {})}

    @bpp.stage_decorator(detectors)
    @bpp.run_decorator(md={"detectors": [d.name for d in detectors], **metadata})
    def both() -> MsgGenerator[None]:
        yield from bps.repeat(lambda: bps.one_shot(detectors), num)
        # A resumed plan goes back to the last checkpoint, and not over it.
        yield from bps.checkpoint()
        yield from bps.pause()
        yield from bps.checkpoint()
        yield from bps.repeat(lambda: bps.one_shot(detectors), num)

    return (yield from both())
