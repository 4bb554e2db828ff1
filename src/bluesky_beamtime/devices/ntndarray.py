"""Frames out of EPICS NTNDArray structures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.devices.pva_codecs import CODECS, decompress
from bluesky_beamtime.errors import SourceError

COLOUR_MODES = (
    "Mono",
    "Bayer",
    "RGB1",
    "RGB2",
    "RGB3",
    "YUV444",
    "YUV422",
    "YUV411",
)
"""Names of areaDetector's colour modes, by their number."""

# Where the colour axis stands once the dimensions are row-major.
_COLOUR_AXIS = {"RGB1": 2, "RGB2": 1, "RGB3": 0}
_DAY = 86400.0

# What the codec's parameter means: pvData's numbers of types, and NDArray's own, which
# some servers send instead.
_PVDATA = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")
_NDARRAY = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")

# NDAttrSource_t: set by the driver, a constant; others change with the frames.
_CONSTANT = (0, 1)


@dataclass(frozen=True, slots=True)
class PvaAttribute:
    """One scalar of an NTNDArray's attribute list."""

    value: float | int | str
    """Its value; a truth value is a number."""
    changes: bool
    """Whether each frame may bring another one: it follows a PV, a parameter of the
    driver, or a function of the IOC."""
    source: str = ""
    """Where the IOC has it from."""


@dataclass(frozen=True, slots=True)
class PvaFrame:
    """One frame of an NTNDArray PV."""

    array: NDArray[Any]
    """Pixels: ``(height, width)``, ``(height, width, 3)`` if they are RGB, or as many
    dimensions as the IOC sends, the slowest first."""
    id: int
    """``uniqueId`` as an unsigned number."""
    time: float | None
    """When it was taken, in seconds since 1970; None if the IOC does not say."""


def decode(pv: str, value: Any) -> PvaFrame:
    """Return the frame in an NTNDArray.

    The samples of Bayer and YUV frames are returned as they are: turning them into
    colours would invent values.

    Parameters
    ----------
    pv
        Name of the PV, for messages.
    value
        The structure, as p4p delivers it without unpacking.

    Raises
    ------
    SourceError
        It holds no frame, or one that cannot be read.
    MissingExtraError
        The package that decompresses it is absent.
    """
    try:
        codec = value["codec"]["name"]
        pixels = value["value"]
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(
            f"PV {pv!r} is no NTNDArray; give the Image PV of a Pva plugin"
        ) from error
    if pixels is None or not sizes:
        raise SourceError(
            f"PV {pv!r} holds no frame yet, so that the size of frames is not known; "
            "let the camera take one, and see that its Pva plugin is enabled"
        )
    pixels = np.asarray(pixels)
    shape = tuple(reversed(sizes))
    if codec:
        pixels = _unpack(pv, value, codec, pixels, math.prod(shape))
    if pixels.size != math.prod(shape):
        raise SourceError(
            f"a frame of PV {pv!r} has {pixels.size} pixels and says that it is {shape}"
        )
    mode = colour_mode(value)
    if len(shape) == 3 and mode in _COLOUR_AXIS:
        axis = _COLOUR_AXIS[mode]
        if codec == "jpeg":
            # It keeps the colours of a pixel together, however they were sent to it.
            shape = (*shape[:axis], *shape[axis + 1 :], shape[axis])
            axis = 2
        array = np.moveaxis(pixels.reshape(shape), axis, 2)
    else:
        array = pixels.reshape(shape)
    return PvaFrame(np.ascontiguousarray(array), unique_id(value), _time(value))


def unique_id(value: Any) -> int:
    """Return the ``uniqueId`` of an NTNDArray as an unsigned number."""
    return int(value["uniqueId"]) & 0xFFFFFFFF


def _unpack(
    pv: str, value: Any, codec: str, packed: NDArray[Any], count: int
) -> NDArray[Any]:
    if codec not in CODECS:
        raise SourceError(
            f"frames of PV {pv!r} are compressed with {codec!r}, which cannot be read "
            f"here; choose one of {', '.join(CODECS)} in its Codec plugin, or none"
        )
    try:
        return decompress(codec, packed, _packed_dtype(value, packed, count), count)
    except ValueError as error:
        raise SourceError(
            f"a frame of PV {pv!r} is no {codec!r} of {count} pixels ({error}); look "
            "at its Codec plugin, or switch the codec off"
        ) from error


def _packed_dtype(value: Any, packed: NDArray[Any], count: int) -> np.dtype[Any]:
    """Return the dtype of compressed pixels."""
    if packed.dtype.itemsize > 1:
        return packed.dtype
    size = int(value["uncompressedSize"])
    parameter = value["codec"]["parameters"]
    if isinstance(parameter, (int, float)):
        for names in (_PVDATA, _NDARRAY):
            if 0 <= int(parameter) < len(names):
                dtype = np.dtype(names[int(parameter)])
                if size in (0, dtype.itemsize * count):
                    return dtype
    if size != count:
        raise ValueError(
            f"codec.parameters is {parameter!r}, which does not say the type of "
            f"{count} pixels in {size} bytes"
        )
    return packed.dtype


# ------------------------------------------------------------------------ attributes


def attributes(value: Any) -> dict[str, PvaAttribute]:
    """Return the scalars in an NTNDArray's attribute list, by name.

    What has no value, or an array for one, is left out.
    """
    found: dict[str, PvaAttribute] = {}
    for one in value["attribute"]:
        scalar = _scalar(one["value"])
        if scalar is not None:
            changes = int(_get(one, "sourceType", 0)) not in _CONSTANT
            found[str(one["name"])] = PvaAttribute(
                scalar, changes, str(_get(one, "source", ""))
            )
    return found


def numbers(value: Any, names: frozenset[str]) -> dict[str, float]:
    """Return the numbers of some attributes of one frame.

    Parameters
    ----------
    value
        The structure.
    names
        Of the attributes; those that it has not, or not as numbers, are left out.
    """
    found: dict[str, float] = {}
    for one in value["attribute"]:
        name = one["name"]
        if name in names:
            scalar = _scalar(one["value"])
            if isinstance(scalar, (int, float)):
                found[name] = float(scalar)
    return found


def colour_mode(value: Any) -> str:
    """Return the name of the colour mode that an NTNDArray's attributes tell."""
    for attribute in value["attribute"]:
        if attribute["name"] == "ColorMode":
            mode = _scalar(attribute["value"])
            if isinstance(mode, str):
                return mode
            if mode is not None and 0 <= int(mode) < len(COLOUR_MODES):
                return COLOUR_MODES[int(mode)]
            return f"unknown ({mode})"
    return COLOUR_MODES[0]


def _get(value: Any, name: str, default: Any) -> Any:
    try:
        return value[name]
    except KeyError:
        return default


def _scalar(value: Any) -> float | int | str | None:
    """Return a plain scalar; an IOC may send it as a structure of its own."""
    if value is None or isinstance(value, (int, float, str)):
        return value
    try:
        inner: Any = value["value"]
    except (KeyError, TypeError, IndexError):
        return None
    return _scalar(inner)


# ------------------------------------------------------------------------------ time


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
