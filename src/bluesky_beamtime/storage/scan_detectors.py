"""Detectors that tell by signals what they measure, as scans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_beamtime.storage.scan import ScanStorage

logger = logging.getLogger(__name__)


def follow(storage: ScanStorage, detector: Any) -> Callable[[], None]:
    """Take the scans of a detector; see :meth:`ScanStorage.connect`."""
    told = False

    def axes() -> Any:
        return _value(detector, "axes")

    def busy(state: bool) -> None:
        nonlocal told
        if state:
            told = False
            shape, dtype = _value(detector, "dataShape"), _value(detector, "dtype")
            storage.reserve(shape, dtype=dtype, axes=axes)
        else:
            stop()

    def stop() -> None:
        storage.save()

    def acquired(data: Mapping[tuple[int, ...], Any]) -> None:
        nonlocal told
        if not data and not told:
            # Once for each scan: all of its points may come so.
            told = True
            logger.error(
                "%s.dataAcquired brought a dict without any point, and nothing was "
                "stored; of PySide, declare it as Signal(object): through Signal(dict) "
                "only dicts whose keys are text arrive whole",
                type(detector).__name__,
            )
        storage.update(data)

    links: list[tuple[Any, Any]] = [
        (detector.busyStateChanged, busy),
        (detector.dataAcquired, acquired),
    ]
    if hasattr(detector, "stopped"):
        links.append((detector.stopped, stop))
    for signal, slot in links:
        signal.connect(slot)

    def disconnect() -> None:
        while links:
            signal, slot = links.pop()
            signal.disconnect(slot)

    return disconnect


def _value(detector: Any, name: str) -> Any:
    value = getattr(detector, name, None)
    return value() if callable(value) else value
