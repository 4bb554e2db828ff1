"""What an index over stored frames asks for: which frames, and which part of them."""

from __future__ import annotations

import operator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.storage.tiling import Box


def split_key(key: Any, ndim: int) -> tuple[Any, tuple[Any, ...]]:
    """Split an index into that of the frames and those within a frame."""
    whole = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
    parts: tuple[Any, ...] = whole
    if any(part is None for part in parts):
        raise IndexError("new axes are not supported; index the result instead")
    if any(isinstance(part, (bool, np.bool_)) for part in parts):
        raise IndexError("a single truth value is no index")
    ellipses = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    used = sum(_axes(part) for part in parts) - len(ellipses)
    if used > ndim:
        raise IndexError(f"{used} indices for {ndim} axes")
    for place in ellipses:
        filler = (slice(None),) * (ndim - used)
        parts = (*parts[:place], *filler, *parts[place + 1 :])
    if not parts:
        return slice(None), ()
    if _axes(parts[0]) > 1:
        raise IndexError("a mask over more than the frames cannot choose them")
    return parts[0], tuple(parts[1:])


def _axes(part: Any) -> int:
    """Return how many axes a part of an index stands for: more than one for a mask."""
    if isinstance(part, (list, np.ndarray)):
        array: NDArray[Any] = np.asarray(cast("Any", part))
        if array.dtype == bool:
            return array.ndim
    return 1


def region(
    parts: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[Box, tuple[Any, ...]] | None:
    """Return the region of a frame that an index needs, and the index within it.

    None where the whole frame is as good: an index other than slices and numbers, one
    that is out of range, or an empty one.

    Parameters
    ----------
    parts
        The index along the axes of a frame, the first ones at least.
    shape
        Of a frame.
    """
    box: list[tuple[int, int]] = []
    within: list[Any] = []
    for part, size in zip(parts, shape, strict=False):
        if isinstance(part, slice):
            places = range(size)[part]
            if not places:
                return None
            low, high = min(places[0], places[-1]), max(places[0], places[-1])
            stop = places[-1] - low + places.step
            # Before the first place nothing can be named: a slice down to it is open.
            end = stop if stop >= 0 else None
            within.append(slice(places[0] - low, end, places.step))
        else:
            try:
                place = operator.index(part)
            except TypeError:
                return None
            if not -size <= place < size:
                return None
            low = high = place % size
            within.append(0)
        box.append((low, high + 1))
    box += [(0, size) for size in shape[len(parts) :]]
    return tuple(box), tuple(within)
