"""The values of a stream's events as columns of the right type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bluesky_beamtime.database.encoding import ArrayReference
from bluesky_beamtime.database.kinds import is_array, is_exact_as_float, is_list
from bluesky_beamtime.database.references import open_referenced
from bluesky_beamtime.database.rowframes import RowFrames, frame_dims

MISSING: Any = object()
"""Stands where an event lacks a key that others have."""

_LONGEST_TEXT = 256


@dataclass(frozen=True, slots=True)
class Column:
    """One variable: its axes after the first, and its values."""

    dims: tuple[str, ...]
    """Names of the axes behind that of the events."""
    values: Any
    """NumPy array, or a lazy one for what is read on demand."""


def make_column(
    key: str,
    values: Sequence[Any] | NDArray[Any],
    data_key: Mapping[str, Any],
    store: Path,
    *,
    dask: bool = True,
) -> Column:
    """Return the values of one key, one for each event.

    Parameters
    ----------
    key
        Data key.
    values
        As decoded from the events, :data:`MISSING` where there is none; an array of
        bool, int64 or float64 if all of them are.
    data_key
        What the descriptor says of it.
    store
        Root of the Zarr store, for arrays.
    dask
        Give arrays of the store as dask arrays; else as something for xarray that reads
        what is indexed.
    """
    if isinstance(values, np.ndarray):
        return Column((), _of_one_type(values, data_key))
    present = [value for value in values if value is not MISSING and value is not None]
    kinds = set(map(type, present))
    if kinds == {ArrayReference} and len(present) == len(values):
        return _references(key, present, data_key, store, dask=dask)
    if kinds <= {int, float, bool, complex}:
        return Column((), _numbers(values, kinds, data_key, len(present)))
    if kinds == {str}:
        return Column((), _texts(values, len(present)))
    if kinds <= {list, np.ndarray} and len(present) == len(values):
        stacked = _stack(present)
        if stacked is not None:
            dims = frame_dims(key, stacked.ndim - 1, data_key.get("dims"))
            return Column(dims, stacked)
    return Column((), _objects(values, store))


# ----------------------------------------------------------------------- scalar values


def _numbers(
    values: Sequence[Any], kinds: set[type], data_key: Mapping[str, Any], count: int
) -> NDArray[Any]:
    complete = count == len(values)
    if kinds == {bool} and complete:
        return np.array(values, np.bool_)
    if complex in kinds:
        return np.array([_or(value, complex("nan")) for value in values])
    if kinds == {int} and complete:
        return _integers(values, data_key)
    if not kinds and data_key.get("dtype") == "string":
        return _texts(values, 0)
    numbers = [_or(value, float("nan")) for value in values]
    try:
        floats = np.array(numbers, np.float64)
    except OverflowError:
        return _objects(values, None)
    if int in kinds and not all(map(is_exact_as_float, numbers)):
        return _objects(values, None)
    return _as_declared(floats, data_key)


def _of_one_type(values: NDArray[Any], data_key: Mapping[str, Any]) -> NDArray[Any]:
    if values.dtype.kind == "b":
        return values
    if values.dtype.kind == "i":
        return _as_integers(values, data_key)
    return _as_declared(values, data_key)


def _integers(values: Sequence[int], data_key: Mapping[str, Any]) -> NDArray[Any]:
    try:
        numbers = np.array(values, np.int64)
    except OverflowError:
        try:
            return np.array(values, np.uint64)
        except OverflowError:
            return _objects(values, None)
    return _as_integers(numbers, data_key)


def _as_integers(numbers: NDArray[Any], data_key: Mapping[str, Any]) -> NDArray[Any]:
    if data_key.get("dtype") == "number" and "dtype_numpy" not in data_key:
        # A motor that happens to stand at whole numbers is still a float.
        exact = is_exact_as_float(numbers)
        return numbers.astype(np.float64) if exact else numbers
    return _as_declared(numbers, data_key)


def _as_declared(values: NDArray[Any], data_key: Mapping[str, Any]) -> NDArray[Any]:
    """Return ``values`` in the dtype that the descriptor declares, if that is exact."""
    declared = data_key.get("dtype_numpy")
    if not isinstance(declared, str):
        return values
    try:
        dtype = np.dtype(declared).newbyteorder("=")
    except (TypeError, ValueError):
        return values
    if dtype == values.dtype or dtype.kind not in "iuf":
        return values
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
        back = cast.astype(values.dtype)
    same = (back == values) | ((back != back) & (values != values))
    return cast if bool(np.all(same)) else values


def _texts(values: Sequence[Any], count: int) -> NDArray[Any]:
    longest = max((len(value) for value in values if isinstance(value, str)), default=0)
    # NumPy takes zeros at the end of a text for filling.
    ended = any(value[-1:] == "\0" for value in values if isinstance(value, str))
    if count < len(values) or longest > _LONGEST_TEXT or ended:
        return _objects([_spelt(value) for value in values], None)
    return np.array(values, np.str_)


def _spelt(value: Any) -> Any:
    """Return a text that pandas can hold: half a surrogate pair as its escape.

    xarray hands objects to pandas, which since 3.0 makes UTF-8 of texts among them.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _or(value: Any, missing: Any) -> Any:
    return missing if value is MISSING or value is None else value


def _objects(values: Sequence[Any], store: Path | None) -> NDArray[Any]:
    """Return an array of the very objects, for what has no common type or shape."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        if isinstance(value, ArrayReference) and store is not None:
            value = open_referenced(store, value.path)[value.index]
        column[row] = None if value is MISSING else value
    return column


# ----------------------------------------------------------------------------- arrays


def _stack(values: Sequence[Any]) -> NDArray[Any] | None:
    """Return lists of one shape as an array, None if they are not all numbers."""
    try:
        stacked = np.array(values)
    except (ValueError, OverflowError):
        return None
    if stacked.dtype.kind not in "biufcU" or stacked.ndim < 2:
        return None
    if stacked.dtype.kind == "U" and not _all_text(values):
        # NumPy would turn [1, "a"] into text.
        return None
    if stacked.dtype.kind in "fc" and bool((np.abs(stacked) >= 2**53).any()):
        # Some may have been integers that floats do not hold.
        return stacked if all(map(_all_exact, values)) else None
    return stacked


def _all_text(value: Any) -> bool:
    if is_array(value):
        return value.dtype.kind == "U"
    if is_list(value):
        return all(_all_text(item) for item in value)
    # NumPy takes zeros at the end of a text for filling.
    return isinstance(value, str) and value[-1:] != "\0"


def _all_exact(value: Any) -> bool:
    if is_list(value):
        return all(map(_all_exact, value))
    return is_exact_as_float(value)


def _references(
    key: str,
    references: Sequence[ArrayReference],
    data_key: Mapping[str, Any],
    store: Path,
    *,
    dask: bool,
) -> Column:
    """Return arrays of the Zarr store, read on demand if they have one shape."""
    frames = referenced_frames(references, store)
    if frames is None:
        return Column((), _objects(references, store))
    dims = frame_dims(key, frames.ndim - 1, data_key.get("dims"))
    return Column(dims, frames.lazy(key) if dask else frames.indexed())


def referenced_frames(
    references: Sequence[Any] | NDArray[Any], store: Path
) -> RowFrames | None:
    """Return arrays of the Zarr store as one, None if they have not one shape.

    Parameters
    ----------
    references
        One for each event.
    store
        Root of the store.
    """
    known = [value for value in references if isinstance(value, ArrayReference)]
    if not known or len(known) != len(references):
        return None
    paths = list(dict.fromkeys(reference.path for reference in known))
    sources = [open_referenced(store, path) for path in paths]
    if len({tuple(source.shape[1:]) for source in sources}) > 1:
        return None
    numbers = {path: number for number, path in enumerate(paths)}
    return RowFrames(
        sources,
        np.array([numbers[reference.path] for reference in known], np.int64),
        np.array([reference.index for reference in known], np.int64),
    )
