"""Frames out of EPICS NTNDArray structures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.errors import SourceError

# ColorMode: where the colour axis stands once the dimensions are row-major.
_COLOUR_AXIS = {2: 2, 3: 1, 4: 0}
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class PvaFrame:
    """One frame of an NTNDArray PV."""

    array: NDArray[Any]
    """Pixels, ``(height, width)`` or ``(height, width, 3)``."""
    id: int
    """``uniqueId`` as an unsigned number."""
    time: float | None
    """When it was taken, in seconds since 1970; None if the IOC does not say."""


def decode(pv: str, value: Any) -> PvaFrame:
    """Return the frame in an NTNDArray.

    Parameters
    ----------
    pv
        Name of the PV, for messages.
    value
        The structure, as p4p delivers it without unpacking.

    Raises
    ------
    SourceError
        It holds no frame, or one that is compressed.
    """
    try:
        codec = value["codec"]["name"]
        pixels = value["value"]
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(
            f"PV {pv!r} is no NTNDArray; give the Image PV of a Pva plugin"
        ) from error
    if codec:
        raise SourceError(
            f"frames of PV {pv!r} are compressed with {codec!r}; switch the codec of "
            "its plugins off"
        )
    if pixels is None or not sizes:
        raise SourceError(
            f"PV {pv!r} holds no frame yet, so that the size of frames is not known; "
            "let the camera take one, and see that its Pva plugin is enabled"
        )
    pixels = np.asarray(pixels)
    shape = tuple(reversed(sizes))
    if pixels.size != math.prod(shape):
        raise SourceError(
            f"a frame of PV {pv!r} has {pixels.size} pixels and says that it is {shape}"
        )
    array = pixels.reshape(shape)
    if array.ndim == 3:
        array = np.moveaxis(array, _COLOUR_AXIS.get(_colour_mode(value), 2), 2)
    return PvaFrame(
        np.ascontiguousarray(array), int(value["uniqueId"]) & 0xFFFFFFFF, _time(value)
    )


def _colour_mode(value: Any) -> int:
    for attribute in value["attribute"]:
        if attribute["name"] == "ColorMode":
            mode = attribute["value"]
            # An IOC may send it as a plain number or as a structure of its own.
            return int(mode if isinstance(mode, (int, float)) else mode["value"])
    return 0


def _time(value: Any) -> float | None:
    """Return when the camera took the frame, or when the IOC got it.

    areaDetector's ``dataTimeStamp`` is the driver's own; some drivers do not set it, or
    count from when they were switched on.
    """
    got, taken = (
        value[field]["secondsPastEpoch"] + value[field]["nanoseconds"] * 1e-9
        for field in ("timeStamp", "dataTimeStamp")
    )
    if min(taken, got) > 0 and abs(taken - got) < _DAY:
        return taken
    return got if got > 0 else None
