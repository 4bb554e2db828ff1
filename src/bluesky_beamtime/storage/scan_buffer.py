"""The array of one scan while it fills: on disk, in its own type, with its coverage."""

from __future__ import annotations

import errno
import os
import shutil
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bluesky_beamtime.errors import (
    ScanMismatchError,
    StoreReadError,
    StoreStateError,
)
from bluesky_beamtime.storage.files import FolderLock, write_error
from bluesky_beamtime.storage.scan_names import ScanPlace
from bluesky_beamtime.storage.scan_tags import usable_tags
from bluesky_beamtime.storage.scan_values import (
    Axes,
    cast_exactly,
    check_array,
    check_index,
    check_values,
    chunks_of,
)
from bluesky_beamtime.storage.scan_writers import Writers

STORE = "scan.zarr"


class ScanBuffer:
    """An N-dimensional Zarr array that is filled in any order.

    Every update is on disk when it returns to the operating system; what was measured
    is readable in ``<workshop>/scan.zarr`` after the process was killed, with the tags
    and the axes that were known by then. The coverage lies in memory, one byte for each
    point, and is written after the data of every update.

    Made by :meth:`create`, or by :meth:`reopen` of what a process left behind. A lock
    in the workshop says that a live process holds it.

    Attributes
    ----------
    place : ScanPlace
        Where it is, and what it becomes.
    tags : dict
        What is kept with the data; listeners may still fill it.
    axes : list of numpy.ndarray
        Coordinates of each axis, as far as they are known.

    writers : Writers
        Who writes it. Only a thread that has its turn may, or the one that saves, when
        all have left.
    """

    def __init__(
        self, place: ScanPlace, group: Any, tags: dict[str, Any], lock: FolderLock
    ) -> None:
        self.place = place
        self.group = group
        self.tags = tags
        self.array: Any = group["data"]
        self.shape: tuple[int, ...] = tuple(self.array.shape)
        self.dtype: np.dtype[Any] = self.array.dtype
        self.axes: Axes = []
        self.mask: NDArray[np.bool_] | None = None
        self._mask_array: Any = None
        self.writers = Writers()
        self._lock = lock
        self._unlock = weakref.finalize(self, lock.release)

    @classmethod
    def create(
        cls,
        place: ScanPlace,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        fill: Any,
        tags: dict[str, Any],
        axes: Axes,
    ) -> Self:
        """Create the array of a scan in a place from :func:`reserve_place`.

        Parameters
        ----------
        place
            Where.
        shape
            Of the whole array, frames included.
        dtype
            Numbers or booleans.
        fill
            What stands where nothing was measured; by default NaN, 0 for integers.
        tags
            What is kept with the data; loses what JSON cannot hold.
        axes
            Coordinates of each axis, as far as they are planned.

        Raises
        ------
        ScanMismatchError
            A shape, type or fill value that cannot be.
        StoreWriteError
            The disk refused.
        """
        import zarr
        from zarr.codecs import BloscCodec

        kind, fill = check_array(shape, dtype, fill)
        store = place.workshop / STORE
        lock: FolderLock | None = None
        try:
            lock = FolderLock(place.workshop)
            group: Any = cast("Any", zarr).open_group(str(store), mode="w")
            _create_array(
                store / "data",
                shape=shape,
                dtype=kind,
                chunks=chunks_of(shape),
                fill_value=fill,
                # Smaller than by Zarr's default for noisy frames, and much sooner.
                compressors=BloscCodec(cname="lz4", shuffle="bitshuffle"),
            )
            group.attrs["tags"] = usable_tags(tags)
            buffer = cls(place, group, tags, lock)
            buffer.write_axes(axes)
        except OSError as error:
            if lock is not None:
                lock.release()
            raise write_error("a scan", store, error) from error
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        return buffer

    @classmethod
    def reopen(cls, place: ScanPlace) -> Self:
        """Take over what a process that is gone left behind.

        Raises
        ------
        StoreStateError
            A live process holds it.
        StoreReadError
            There is no array that can be read.
        """
        import zarr

        store = place.workshop / STORE
        try:
            lock = FolderLock(place.workshop)
        except OSError as error:
            raise write_error("a scan", place.workshop, error) from error
        try:
            group: Any = cast("Any", zarr).open_group(str(store), mode="r+")
            buffer = cls(place, group, dict(group.attrs.get("tags", {})), lock)
            found = [name for name in group.array_keys() if name.startswith("axis_")]
            if len(found) == len(buffer.shape):
                # Strictly by number: there may be more than ten.
                numbers = range(len(found))
                buffer.axes = [np.asarray(group[f"axis_{n}"][...]) for n in numbers]
            if "mask" in group:
                buffer._mask_array = group["mask"]
                buffer.mask = np.asarray(buffer._mask_array[...])
        except (OSError, ValueError, KeyError, TypeError) as error:
            lock.release()
            raise StoreReadError(
                f"cannot read the scan in {str(store)!r}: {error}; it was left alone",
                filename=str(store),
            ) from error
        return buffer

    @property
    def store(self) -> Path:
        """The Zarr group on disk."""
        return self.place.workshop / STORE

    def write_axes(self, axes: Axes) -> None:
        """Keep the coordinates of each axis beside the data.

        Raises
        ------
        StoreWriteError
            The disk refused.
        """
        known = [axis.dtype for axis in self.axes]
        try:
            self.check_place()
            for number, axis in enumerate(axes):
                name = f"axis_{number}"
                if number >= len(known) or known[number] != axis.dtype:
                    _create_array(self.store / name, data=axis, overwrite=True)
                elif not np.array_equal(self.axes[number], axis, equal_nan=True):
                    # One chunk, which is replaced at once: a reader sees all or none.
                    self.group[name][...] = axis
        except OSError as error:
            raise write_error("a scan", self.store, error) from error
        self.axes = list(axes)

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
            An index outside, of another length than before, or of anything but
            integers; a value that is masked, of another shape, or of a type that would
            lose digits.
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
            self.check_place()
            mask = self._coverage(lengths.pop())
            try:
                for index, value in checked:
                    self.array[index if index else ...] = value
                    mask[index] = True
            finally:
                box = tuple(
                    slice(min(steps), max(steps) + 1)
                    for steps in zip(*(index for index, _ in checked), strict=True)
                )
                self._mask_array[box if box else ...] = mask[box]
        except OSError as error:
            raise write_error("a scan", self.store, error) from error

    def check_place(self) -> None:
        """Make sure that the workshop is where it was made.

        Zarr makes folders that are missing: elsewhere than where the points are, what
        is written would look like a scan, and be measured nowhere.

        Raises
        ------
        FileNotFoundError
            It was moved, removed or unmounted.
        """
        if not self._lock.in_place():
            raise FileNotFoundError(
                errno.ENOENT, os.strerror(errno.ENOENT), str(self.place.workshop)
            )

    def write_mask(self) -> None:
        """Write the whole coverage: that of a full disk may not have got there."""
        if self._mask_array is not None:
            self._mask_array[...] = self.mask

    def _check(
        self, index: tuple[int, ...], value: Any
    ) -> tuple[tuple[int, ...], NDArray[Any]]:
        place = check_index(index)
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
        array = check_values(value, f"the value at {place}")
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
            self._mask_array = _create_array(
                self.store / "mask",
                shape=grid,
                dtype=bool,
                chunks=tuple(min(n, 64) for n in grid),
                fill_value=False,
                compressors=None,
            )
            self.mask = np.zeros(grid, bool)
        return self.mask

    def release(self) -> None:
        """Remove the buffer, and with it the reservation of its number."""
        here = False
        with suppress(OSError):  # a disk that is gone has nothing to be removed
            here = self._lock.in_place()
        self._unlock()
        if here:
            remove_folder(self.place.workshop)


def _create_array(path: Path, **options: Any) -> Any:
    """Create an array of a group.

    Asked for by its group, Zarr would try to create that too, with a hard link so as
    not to replace it, which not every file system has.
    """
    import zarr

    # Its types say nothing of what is stored.
    return cast("Any", zarr).create_array(store=str(path), **options)


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
