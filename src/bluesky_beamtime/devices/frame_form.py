"""What the frames of a detector are like: shape, dtype, and what stands along them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from event_model import DataKey

from bluesky_beamtime.devices.datakeys import frame_dims
from bluesky_beamtime.errors import DeviceError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAxis:
    """One axis of a frame, and what stands along it.

    It is called ``<key>_<name>`` where frames are read, so that detectors of different
    sizes share a dataset.
    """

    name: str
    """Name without the key, such as ``"channel"``."""
    labels: tuple[str, ...] | None = None
    """What each index is called, one for each."""
    start: float = 0.0
    """Value at index 0, of an axis with a :attr:`step`."""
    step: float | None = None
    """Difference from one index to the next."""
    units: str | None = None
    """Units of start and step."""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, Any])
    """More of what is known of each index, by name, such as the units of a channel."""

    def coordinates(self, key: str) -> dict[str, dict[str, Any]]:
        """Return the coordinates that a data key declares for this axis."""
        dim = f"{key}_{self.name}"
        found: dict[str, dict[str, Any]] = {}
        if self.labels is not None:
            found[dim] = {"dim": dim, "values": list(self.labels)}
        elif self.step is not None:
            found[dim] = {"dim": dim, "start": self.start, "step": self.step}
        if dim in found and self.units is not None:
            found[dim]["units"] = self.units
        for name, values in self.also.items():
            found[f"{key}_{name}"] = {"dim": dim, "values": list(values)}
        return found


@dataclass(frozen=True, slots=True)
class FrameForm:
    """What every frame of one array is like."""

    shape: tuple[int, ...]
    """Shape of a frame, row-major."""
    dtype: np.dtype[Any]
    """Its dtype."""
    units: str | None = None
    """Units of its values."""
    axes: tuple[FrameAxis, ...] = ()
    """What stands along its axes; without them they are ``y`` and ``x``."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What stands as ``metadata`` in the attributes of the array."""

    exact_times: bool = False
    """Whether the time of each frame is kept in nanoseconds too, as ``<key>_t0``."""

    def __post_init__(self) -> None:
        if not self.axes:
            return
        if len(self.axes) != len(self.shape):
            raise DeviceError(
                f"frames of shape {self.shape} have {len(self.shape)} axes, but "
                f"{len(self.axes)} are named: {', '.join(a.name for a in self.axes)}"
            )
        for axis, size in zip(self.axes, self.shape, strict=True):
            named = {axis.name: axis.labels, **axis.also}
            for name, labels in named.items():
                if labels is not None and len(labels) != size:
                    raise DeviceError(
                        f"{len(labels)} values of {name!r} are given for an axis of "
                        f"{size}; give one for each"
                    )

    def dims(self, key: str) -> tuple[str, ...]:
        """Return the names of a frame's axes under a data key."""
        if not self.axes:
            return frame_dims(key, self.shape)
        return tuple(f"{key}_{axis.name}" for axis in self.axes)

    def describe(self, key: str, data_key: DataKey) -> DataKey:
        """Add to a data key what stands along the axes."""
        coordinates: dict[str, Any] = {}
        for axis in self.axes:
            coordinates |= axis.coordinates(key)
        if not coordinates:
            return data_key
        return cast("DataKey", {**data_key, "coordinates": coordinates})
