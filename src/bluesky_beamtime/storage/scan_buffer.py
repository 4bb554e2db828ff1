"""The array of one scan while it fills: on disk, in its own type, with its coverage."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import ScanMismatchError, StoreStateError
from bluesky_beamtime.storage.files import write_error
from bluesky_beamtime.storage.scan_names import ScanPlace

_CHUNK_EDGE = 1024
_ROW = 8192
_KINDS = "biufc"


class ScanBuffer:
    """An N-dimensional Zarr array that is filled in any order.

    Every update is on disk when it returns to the operating system; what was measured
    is readable in ``<workshop>/scan.zarr`` after the process was killed. The coverage
    lies in memory, one byte for each point, and is written with every update.

    Parameters
    ----------
    place
        Where, from :func:`reserve_place`.
    shape
        Of the whole array, frames included.
    dtype
        Numbers or booleans.
    fill
        What stands where nothing was measured; by default NaN, 0 for integers.
    tags
        What listeners want to be kept with the data; they may still fill it.

    Raises
    ------
    ScanMismatchError
        A shape, type or fill value that cannot be.
    StoreWriteError
        The disk refused.

    Notes
    -----
    Not thread-safe: :class:`~bluesky_beamtime.storage.ScanStorage` holds its lock.
    """

    def __init__(
        self,
        place: ScanPlace,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        fill: Any,
        tags: dict[str, Any],
    ) -> None:
        import zarr

        # Its types say nothing of what is stored.
        stock = cast("Any", zarr)
        self.place = place
        self.dtype, self.fill = check_array(shape, dtype, fill)
        self.shape = shape
        self.tags = tags
        self.store = place.workshop / "scan.zarr"
        self.mask: NDArray[np.bool_] | None = None
        self._mask_array: Any = None
        try:
            self.group: Any = stock.open_group(str(self.store), mode="w-")
            self.array: Any = self.group.create_array(
                "data",
                shape=shape,
                dtype=self.dtype,
                chunks=chunks_of(shape),
                fill_value=self.fill,
            )
        except OSError as error:
            raise write_error("a scan", self.store, error) from error

    @property
    def covered(self) -> int:
        """Number of distinct points that were measured."""
        return 0 if self.mask is None else int(np.count_nonzero(self.mask))

    @property
    def full(self) -> bool:
        """Whether every point was measured at least once."""
        return self.mask is not None and bool(self.mask.all())

    def update(self, data: Mapping[tuple[int, ...], Any]) -> None:
        """Put each value at its index; the last one at an index counts.

        Nothing is written if any of them does not fit.

        Raises
        ------
        ScanMismatchError
            An index outside, of another length than before, or a value of another shape
            or of a type that would lose digits.
        StoreWriteError
            The disk refused; the points before are kept.
        """
        checked = [self._check(index, value) for index, value in data.items()]
        lengths = {len(index) for index, _ in checked}
        if len(lengths) > 1:
            raise ScanMismatchError(
                f"indices of one scan have one length, got {sorted(lengths)}"
            )
        if not checked:
            return
        try:
            mask = self._coverage(lengths.pop())
            for index, value in checked:
                self.array[index if index else ...] = value
                mask[index] = True
                self._mask_array[index if index else ...] = True
        except OSError as error:
            raise write_error("a scan", self.store, error) from error

    def _check(
        self, index: tuple[int, ...], value: Any
    ) -> tuple[tuple[int, ...], NDArray[Any]]:
        place = tuple(int(n) for n in index)
        if len(place) > len(self.shape) or any(
            not 0 <= n < size for n, size in zip(place, self.shape, strict=False)
        ):
            raise ScanMismatchError(
                f"index {place} lies outside of a scan of shape {self.shape}"
            )
        if self.mask is not None and len(place) != self.mask.ndim:
            raise ScanMismatchError(
                f"index {place} has {len(place)} axes, the ones before had "
                f"{self.mask.ndim}; indices of one scan have one length"
            )
        array = np.asarray(value)
        expected = self.shape[len(place) :]
        if array.shape != expected:
            raise ScanMismatchError(
                f"the value at {place} has shape {array.shape}, the scan of shape "
                f"{self.shape} takes {expected} there"
            )
        return place, cast_exactly(array, self.dtype, f"the value at {place}")

    def _coverage(self, rank: int) -> NDArray[np.bool_]:
        if self.mask is None:
            grid = self.shape[:rank]
            self._mask_array = self.group.create_array(
                "mask",
                shape=grid,
                dtype=bool,
                chunks=tuple(min(n, 64) for n in grid),
                fill_value=False,
            )
            self.mask = np.zeros(grid, bool)
        return self.mask

    def release(self) -> None:
        """Remove the buffer, and with it the reservation of its number."""
        remove_folder(self.place.workshop)


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
    if kind.kind not in _KINDS:
        raise ScanMismatchError(f"a scan holds numbers, not {kind}")
    if any(n < 1 for n in shape):
        raise ScanMismatchError(f"a scan of shape {shape} would have no points")
    if fill is None:
        return kind, kind.type(np.nan if kind.kind in "fc" else 0)
    return kind, cast_exactly(np.asarray(fill), kind, "the fill value")[()]


def cast_exactly(values: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Return ``values`` in ``dtype``; floats may lose digits, nothing else may."""
    if np.can_cast(values.dtype, dtype, "safe"):
        return values.astype(dtype)
    if values.dtype.kind in _KINDS:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned = values.astype(dtype, casting="unsafe")
        inexact = values.dtype.kind in "fc" and dtype.kind in "fc"
        same_kind = np.can_cast(values.dtype, dtype, "same_kind")
        if (inexact and same_kind) or np.array_equal(turned, values):
            return turned
    raise ScanMismatchError(
        f"{what} has type {values.dtype} and would not be the same as {dtype}; "
        "reserve the scan with a dtype that holds it"
    )


def chunks_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return chunks of one frame, cut at 1024; a row where there are no frames."""
    if len(shape) < 3:
        return tuple(
            min(n, _ROW) if axis == len(shape) - 1 else 1
            for axis, n in enumerate(shape)
        )
    frame = tuple(min(n, _CHUNK_EDGE) for n in shape[-2:])
    return (*(1 for _ in shape[:-2]), *frame)


def slabs(array: Any) -> Any:
    """Yield the array in C order, one step of its slow axes and ~16 MB at a time."""
    shape: tuple[int, ...] = tuple(array.shape)
    if not shape:
        yield np.asarray(array[...])
        return
    step = math.prod(shape[1:]) * int(array.dtype.itemsize)
    rows = max(1, (16 << 20) // max(step, 1))
    for start in range(0, shape[0], rows):
        yield np.asarray(array[start : start + rows])


def remove_folder(folder: Path) -> None:
    """Remove a workshop that is not needed any more.

    Raises
    ------
    StoreStateError
        It is no workshop of a scan.
    """
    if folder.suffix != ".partial":
        raise StoreStateError(f"{str(folder)!r} is no buffer of a scan")
    shutil.rmtree(folder, ignore_errors=True)
