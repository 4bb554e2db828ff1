"""Shapes, types and coordinates of scans, checked before anything is written."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import ScanMismatchError

Axes = list[NDArray[Any]]
"""Coordinates of each axis, one array of numbers for each."""

_KINDS = "biufc"
_CHUNK_EDGE = 1024
_ROW = 8192
_COLOURS = 4
_COLOUR_CHUNK = 1 << 16  # Numbers.


def check_array(
    shape: tuple[int, ...], dtype: DTypeLike, fill: Any
) -> tuple[np.dtype[Any], Any]:
    """Return the type and the fill value of a scan.

    Raises
    ------
    ScanMismatchError
        They cannot be.
    """
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise ScanMismatchError(f"{dtype!r} is no type of numbers") from error
    _check_kind(kind, "a scan")
    if any(n < 1 for n in shape):
        raise ScanMismatchError(f"a scan of shape {shape} would have no points")
    if fill is None:
        return kind, kind.type(np.nan if kind.kind in "fc" else 0)
    return kind, cast_exactly(np.asarray(fill), kind, "the fill value")[()]


def check_axes(axes: Sequence[Any] | None, shape: tuple[int, ...]) -> Axes:
    """Return one array of coordinates for each axis; those left out count from 0.

    Raises
    ------
    ScanMismatchError
        More axes than the data have, or one of another length than its axis.
    """
    given = [] if axes is None else list(axes)
    if len(given) > len(shape):
        raise ScanMismatchError(f"{len(given)} axes for data of shape {shape}")
    checked: Axes = []
    for number, size in enumerate(shape):
        axis = given[number] if number < len(given) else None
        values: NDArray[Any] = np.arange(size) if axis is None else np.asarray(axis)
        if values.shape != (size,) or values.dtype.kind not in _KINDS:
            raise ScanMismatchError(
                f"axis {number} has shape {values.shape} and type {values.dtype}; "
                f"data of shape {shape} take {size} numbers there"
            )
        _check_kind(values.dtype, f"axis {number}")
        checked.append(values)
    return checked


def _check_kind(kind: np.dtype[Any], what: str) -> None:
    if kind.kind not in _KINDS:
        raise ScanMismatchError(f"{what} holds numbers, not {kind}")
    if kind.kind in "fc" and kind.itemsize > (8 if kind.kind == "f" else 16):
        known = "float64" if kind.kind == "f" else "complex128"
        raise ScanMismatchError(
            f"{what} cannot be kept as {kind}, which other programs do not read; "
            f"make it {known}"
        )


def check_index(index: Any) -> tuple[int, ...]:
    """Return an index as a tuple of integers, which NumPy's are as well.

    Raises
    ------
    ScanMismatchError
        It is none, or would have to be rounded.
    """
    try:
        return tuple(operator.index(step) for step in index)
    except TypeError as error:
        raise ScanMismatchError(
            f"{index!r} is no index; give a tuple of integers, one for each axis of "
            "the scan"
        ) from error


def check_values(value: Any, what: str) -> NDArray[Any]:
    """Return a value as an array.

    Raises
    ------
    ScanMismatchError
        It is none, or parts of it are masked: they would count as measured.
    """
    if np.ma.is_masked(value):
        raise ScanMismatchError(
            f"{what} is masked, at least in part; leave its index out, or say what "
            "stands there with numpy.ma.filled"
        )
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ScanMismatchError(f"{what} is no array of numbers: {error}") from error


def cast_exactly(values: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Return ``values`` in ``dtype``; floats may lose digits, nothing else may."""
    # NumPy calls it safe, too, to make floats of large integers.
    large = values.dtype.kind in "iu" and values.dtype.itemsize == 8
    large = large and dtype.kind in "fc"
    if np.can_cast(values.dtype, dtype, "safe") and not large:
        return values.astype(dtype, copy=False)
    if values.dtype.kind in _KINDS:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned = values.astype(dtype, casting="unsafe")
        inexact = values.dtype.kind in "fc" and dtype.kind in "fc"
        same_kind = np.can_cast(values.dtype, dtype, "same_kind")
        if (inexact and same_kind) or _are_same(turned, values):
            return turned
    raise ScanMismatchError(
        f"{what} has type {values.dtype} and would not be the same as {dtype}; "
        "reserve the scan with a dtype that holds it"
    )


def _are_same(turned: NDArray[Any], values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iu" and turned.dtype.kind in "fc":
        # Compared as floats, all integers that become one float would be the same.
        bits = 8 * values.dtype.itemsize - (values.dtype.kind == "i")
        floats: NDArray[Any] = np.real(turned)
        if not bool((floats < 2.0**bits).all()):
            return False
        return np.array_equal(floats.astype(values.dtype), values)
    return np.array_equal(turned, values)


def chunks_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return chunks of one frame, cut at 1024; a row where there are no frames.

    Where the last axis has no more than 4 steps, as the colours of ``(h, w, 3)`` have,
    it is taken whole, with some rows before it.
    """
    if len(shape) < 3:
        return tuple(
            min(n, _ROW) if axis == len(shape) - 1 else 1
            for axis, n in enumerate(shape)
        )
    height, width = (min(n, _CHUNK_EDGE) for n in shape[-2:])
    chunk = (height, width)
    if len(shape) > 3 and width <= _COLOURS:
        # Only some: if these are the steps of a scan, every point writes them all.
        rows = max(1, _COLOUR_CHUNK // (height * width))
        chunk = (min(shape[-3], rows), height, width)
    return (*(1 for _ in shape[: -len(chunk)]), *chunk)
