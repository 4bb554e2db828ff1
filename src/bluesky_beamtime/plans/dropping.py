"""Whether a lost frame fails a run, chosen for one plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from bluesky.utils import MsgGenerator

from bluesky_beamtime.plans.untyped import bpp, bps

T = TypeVar("T")


def drop_wrapper(
    plan: MsgGenerator[T], detectors: Sequence[Any], fail_on_drop: bool | None
) -> MsgGenerator[T]:
    """Let lost frames fail a plan, or not; afterwards the detectors are as before.

    Parameters
    ----------
    plan
        The plan.
    detectors
        Its detectors. Those that do not count lost frames are left out.
    fail_on_drop
        Whether a lost frame fails it; None for what each detector has set.
    """
    signals = [
        detector.fail_on_drop
        for detector in detectors
        if fail_on_drop is not None and hasattr(detector, "fail_on_drop")
    ]
    if not signals:
        return (yield from plan)
    before: list[Any] = []

    def choose() -> MsgGenerator[T]:
        for signal in signals:
            reading: MsgGenerator[Any] = bps.rd(signal)
            value = yield from reading
            before.append(value)
            yield from bps.abs_set(signal, fail_on_drop, wait=True)
        return (yield from plan)

    def restore() -> MsgGenerator[None]:
        for signal, value in zip(signals, before, strict=False):
            yield from bps.abs_set(signal, value, wait=True)

    wrapped: MsgGenerator[T] = bpp.finalize_wrapper(choose(), restore())
    return (yield from wrapped)
