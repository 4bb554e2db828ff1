"""Masked arrays: neither Zarr nor JSON has a mask, so that something stands instead."""

from __future__ import annotations

from typing import Any

import numpy as np

from bluesky_beamtime.database.kinds import is_exact_as_float, is_list


def is_masked(value: Any) -> bool:
    """Say whether a value is an array that may have a mask."""
    return isinstance(value, np.ma.MaskedArray)


def without_mask(value: Any, lost: list[str] | None = None) -> Any:
    """Return a value as it is, a masked array with NaN or None where it is masked.

    NaN stands in floats and complex numbers, NaT in times; integers that floats hold
    exactly become floats with NaN. Of others an array of objects is made, with None.

    Parameters
    ----------
    value
        Anything.
    lost
        Gets a description of each array whose mask is replaced.
    """
    if not is_masked(value):
        return value
    data: Any = np.asarray(value.data)
    masked: Any = np.ma.getmaskarray(value)
    if masked.dtype.names is not None:
        # Structures have a mask for each of their fields.
        masked = np.array([any(_flat(cell)) for cell in masked.ravel().tolist()])
        masked = masked.reshape(data.shape)
    if not masked.any():
        return data
    if lost is not None:
        lost.append(f"{masked.sum()} of {data.dtype} {data.shape}, which are masked")
    if data.dtype.kind in "iu" and is_exact_as_float(data[~masked]):
        data = data.astype(np.float64)
    if data.dtype.kind in "fc":
        filled: Any = np.where(masked, np.array(np.nan, data.dtype), data)
    elif data.dtype.kind in "mM":
        filled = np.where(masked, np.array("NaT", data.dtype), data)
    else:
        cells: Any = np.empty(data.size, object)
        for number, cell in enumerate(value.ravel().tolist()):
            cells[number] = cell
        filled = cells.reshape(data.shape)
    return filled if filled.ndim else filled[()]


def _flat(cell: Any) -> list[bool]:
    return [flag for part in cell for flag in _flat(part)] if is_list(cell) else [cell]
