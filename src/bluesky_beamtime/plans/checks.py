"""Arguments of plans, checked before a run is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bluesky.protocols import Collectable, Flyable, Preparable, Readable


def check_detectors(detectors: Sequence[Any]) -> list[Any]:
    """Return the detectors as a list.

    Raises
    ------
    ValueError
        There are none, one stands there twice, or one cannot be read.
    """
    if isinstance(detectors, Readable):
        raise ValueError(f"give a list of detectors: [{_name(detectors)}]")
    found = list(detectors)
    if not found:
        raise ValueError("a plan needs at least one detector")
    names = [_name(detector) for detector in found]
    for detector, name in zip(found, names, strict=True):
        if not isinstance(detector, (Readable, Collectable)):
            raise ValueError(
                f"{name} is no detector: it can neither be read nor collected"
            )
        if names.count(name) > 1:
            raise ValueError(f"detector {name!r} is given more than once")
    return found


def check_flyers(detectors: Sequence[Any]) -> list[Any]:
    """Return the detectors as a list if each can take frames by itself.

    Raises
    ------
    ValueError
        As :func:`check_detectors`, or one has to be triggered for each point.
    """
    found = check_detectors(detectors)
    for detector in found:
        for ability in (Preparable, Flyable, Collectable):
            if not isinstance(detector, ability):
                raise ValueError(
                    f"detector {_name(detector)!r} cannot fly (it is not "
                    f"{ability.__name__}); take it in a step scan instead"
                )
    return found


def check_number(number: int, what: str) -> int:
    """Return a number of points or frames.

    Raises
    ------
    ValueError
        It is not an integer from 1 on.
    """
    try:
        whole = int(number)
    except (TypeError, ValueError):
        whole = 0
    if isinstance(number, bool) or whole != number or whole < 1:
        raise ValueError(f"{what} must be an integer from 1 on, not {number!r}")
    return whole


def check_exposure(exposure: float | None) -> float | None:
    """Return an exposure in seconds, None to keep what is set.

    Raises
    ------
    ValueError
        It is not a positive number.
    """
    if exposure is None:
        return None
    if not (math.isfinite(exposure) and exposure > 0):
        raise ValueError(
            f"the exposure must be a positive number of seconds, or None to keep what "
            f"is set, not {exposure!r}"
        )
    return float(exposure)


def _name(device: Any) -> str:
    return str(getattr(device, "name", "") or repr(device))
