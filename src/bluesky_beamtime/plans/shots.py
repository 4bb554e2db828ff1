"""What is common to plans that take frames point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bluesky.utils import MsgGenerator
from ophyd_async.core import StandardDetector, TriggerInfo

from bluesky_beamtime.plans.untyped import bps

Prepare = Callable[[], MsgGenerator[None]]
"""A plan that sets the exposure."""

PerStep = Callable[[Sequence[Any], Any, Any], MsgGenerator[Any]]
"""A plan for one point: detectors, ``{motor: position}``, and a cache of positions, as
for :func:`bluesky.plans.scan_nd`."""

PerShot = Callable[[Sequence[Any]], MsgGenerator[Any]]
"""A plan for one event of detectors, as for :func:`bluesky.plans.count`."""


def describe_run(
    plan_name: str,
    md: Mapping[str, Any] | None,
    exposure: float | None,
    **more: Any,
) -> dict[str, Any]:
    """Return metadata, in which the user's own counts most."""
    metadata: dict[str, Any] = {"plan_name": plan_name, **more}
    if exposure is not None:
        metadata["exposure"] = exposure
    return {**metadata, **(md or {})}


def describe_axis(start: float, stop: float, num: int) -> dict[str, Any]:
    """Return what a scan of one axis says of its grid, which has one dimension."""
    return {"shape": (num,), "extents": ([start, stop],), "snaking": (False,)}


def shoot(prepare: Prepare, per_shot: PerShot | None) -> PerShot:
    """Return a plan for one event."""

    def shot(detectors: Sequence[Any]) -> MsgGenerator[Any]:
        yield from prepare()
        yield from (per_shot or bps.one_shot)(detectors)
        yield from point_done()

    return shot


def step(prepare: Prepare, per_step: PerStep | None) -> PerStep:
    """Return a plan for one point of a scan."""

    # Bluesky looks at the names of the parameters.
    def one_step(
        detectors: Sequence[Any], step: Any, pos_cache: Any
    ) -> MsgGenerator[Any]:
        yield from prepare()
        yield from (per_step or bps.one_nd_step)(detectors, step, pos_cache)
        yield from point_done()

    return one_step


def point_done() -> MsgGenerator[None]:
    """Let a pause from here on, while unstaging too, not go back into the point.

    After the last point there is no run any more that the point could be taken in.
    """
    yield from bps.checkpoint()


def preparation(detectors: Sequence[Any], exposure: float | None) -> Prepare:
    """Return a plan that sets the exposure the first time it runs.

    Staging forgets what was prepared before it, and the frames' folder is named after
    the run: so this has to happen inside the run.
    """
    waiting = exposure is not None

    def prepare() -> MsgGenerator[None]:
        nonlocal waiting
        if waiting and exposure is not None:
            waiting = False
            yield from expose(detectors, exposure)

    return prepare


def expose(detectors: Sequence[Any], exposure: float) -> MsgGenerator[None]:
    """Prepare those detectors for an exposure that can be."""
    info = TriggerInfo(livetime=exposure)
    for detector in detectors:
        if isinstance(detector, StandardDetector):
            yield from bps.prepare(detector, info, group="exposure")
    yield from bps.wait(group="exposure")


def hinted_fields(device: Any) -> list[str]:
    """Return the names of the fields of a motor that say where it is."""
    hints: Any = getattr(device, "hints", None) or {}
    return list(hints.get("fields") or [device.name])


def names(devices: Iterable[Any]) -> list[str]:
    """Return the names of devices."""
    return [str(device.name) for device in devices]
