"""Detectors that tell by signals what they measure, as scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_beamtime.storage.scan import ScanStorage


def follow(storage: ScanStorage, detector: Any) -> Callable[[], None]:
    """Take the scans of a detector; see :meth:`ScanStorage.connect`."""

    def axes() -> Any:
        return _value(detector, "axes")

    def busy(state: bool) -> None:
        if state:
            shape, dtype = _value(detector, "dataShape"), _value(detector, "dtype")
            storage.reserve(shape, dtype=dtype, axes=axes)
        else:
            stop()

    def stop() -> None:
        storage.save()

    def acquired(data: Mapping[tuple[int, ...], Any]) -> None:
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
