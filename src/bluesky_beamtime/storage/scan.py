"""N-dimensional scans: filled point by point on disk, saved in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import DTypeLike

from bluesky_beamtime.errors import StoreReadError, StoreStateError
from bluesky_beamtime.storage.scan_buffer import ScanBuffer, remove_folder
from bluesky_beamtime.storage.scan_detectors import follow
from bluesky_beamtime.storage.scan_leftovers import (
    clear_emptied,
    find_leftovers,
    take_over,
)
from bluesky_beamtime.storage.scan_names import reserve_place, scan_folder
from bluesky_beamtime.storage.scan_observed import ObservedScans
from bluesky_beamtime.storage.scan_saving import SavingJob
from bluesky_beamtime.storage.scan_tags import plain_tags
from bluesky_beamtime.storage.scan_values import check_array, check_axes

AxesOf = Sequence[Any] | Callable[[], Sequence[Any] | None] | None
"""Coordinates of each axis, or what is asked for them when the scan is saved."""


class ScanStorage(ObservedScans):
    """Takes the points of a scan in any order and saves an N-dimensional array.

    ``reserve`` creates ``<base>/<folder>/<name>_<number>.partial``, which holds the
    array on disk while it fills; ``save`` makes ``<name>_<number>.zarr`` (``.npz``,
    ``.h5``) of it on one background thread. The file has ``data``, ``axis_0`` …,
    ``mask``, True where it was measured, and ``tags`` as JSON; no pickles.

    Parameters
    ----------
    base, folder, name
        Where, see the properties.
    numbered, enabled
        See the properties.
    format
        ``"zarr"``, ``"npz"`` or ``"hdf5"``, the last with the extra ``hdf5``.

    Attributes
    ----------
    numberChanged : Signal(object)
        The next number, when it has changed; None without numbering.
    savingStateChanged : Signal(bool)
        When :attr:`saving` has changed.
    tagRequest : Signal(dict)
        At a reservation; listeners put what is to be kept into the dict. It is read
        when the scan is saved, so that a listener on another thread has its time.
        What JSON cannot hold is left out, and logged as an error.
    saveFailed : Signal(object, str)
        The exception and the file that was not saved. The data are kept on disk,
        and :meth:`retry` tries again.
    changed : Signal()
        When :attr:`status` has changed: a setting, the next number, what is reserved,
        being saved or has failed.

    Notes
    -----
    Thread-safe. Signals of a save come on the thread that saves; give psygnal's
    ``connect(..., thread="main")`` to be called on yours. What a listener raises is
    logged as an error: neither the scan nor who called here suffers from it.
    """

    def __init__(
        self,
        base: str | os.PathLike[str] = ".",
        folder: str = "folder",
        name: str = "data",
        *,
        numbered: bool = True,
        enabled: bool = True,
        format: Literal["zarr", "npz", "hdf5"] = "zarr",
    ) -> None:
        super().__init__(
            base, folder, name, numbered=numbered, enabled=enabled, format=format
        )
        self._axes_of: AxesOf = None
        self._autosave = True

    @property
    def enabled(self) -> bool:
        """Whether scans are saved; switching off saves what was measured so far."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if not value:
            self.save()
        self._enabled = bool(value)
        self._tell()

    def reserve(
        self,
        shape: Sequence[int],
        fillValue: Any = None,
        *,
        dtype: DTypeLike | None = None,
        axes: AxesOf = None,
        tags: Mapping[str, Any] | None = None,
        autosave: bool = True,
    ) -> None:
        """Create the array of the next scan on disk.

        A scan that was reserved before is saved with what it has, or given up if it
        has nothing. Does nothing if not :attr:`enabled`.

        Parameters
        ----------
        shape
            Of the whole array: the axes of the scan, then those of a frame.
        fillValue
            What stands where nothing was measured; by default NaN, 0 for integers.
        dtype
            Of the array; by default float64.
        axes
            Planned coordinates of each axis, or a function that :meth:`save` asks for
            them; what :meth:`save` is given itself comes first.
        tags
            What the dict holds that :attr:`tagRequest` sends. NumPy's numbers and
            arrays become Python's, NaN ``{"$float": "nan"}``.
        autosave
            Whether the scan is saved as soon as all points are there; if not,
            :meth:`save` has to be called.

        Raises
        ------
        ScanMismatchError
            No points, no numbers, axes that do not fit, or a fill value that the type
            does not hold.
        PathError
            Without numbering: a scan of that name exists.
        MetadataError
            Tags that JSON cannot hold.
        StoreWriteError
            The disk refused.
        """
        if not self._enabled:
            return
        sizes = tuple(int(n) for n in shape)
        kind = "f8" if dtype is None else dtype
        check_array(sizes, kind, fillValue)
        planned = check_axes(None if callable(axes) else axes, sizes)
        kept = plain_tags(tags or {})
        self.save()
        self._emit(self.tagRequest, kept)
        with self._lock:
            folder = scan_folder(self._base, self._folder)
            place = reserve_place(
                folder, self._name, self._format, numbered=self._numbered
            )
            if self._buffer is not None:
                # Another thread was here since.
                self.save()
            try:
                self._buffer = ScanBuffer.create(
                    place, sizes, kind, fillValue, kept, planned
                )
            except BaseException:
                remove_folder(place.workshop)
                raise
            self._axes_of, self._autosave = axes, autosave
        self._tell()

    def update(self, data: Mapping[tuple[int, ...], Any]) -> None:
        """Put values at their indices; the scan is saved when all points are there.

        Does nothing if not :attr:`enabled`.

        Parameters
        ----------
        data
            From index to value: the indices along the axes of the scan, ``()`` for all
            of it, and an array of the shape that is left.

        Raises
        ------
        StoreStateError
            Nothing is reserved.
        ScanMismatchError
            An index outside or of no integers, or a value of another shape or type, or
            masked.
        StoreWriteError
            The disk refused.
        """
        if not self._enabled:
            return
        with self._lock:
            buffer = self._reserved_buffer()
            buffer.update(data)
            full = self._autosave and buffer.full
        if full:
            self.save()

    def set_axes(self, axes: Sequence[Any]) -> None:
        """Keep coordinates beside the data of the reserved scan, for its readers.

        Parameters
        ----------
        axes
            Coordinates of each axis, as for :meth:`save`, as far as they are known.

        Raises
        ------
        StoreStateError
            Nothing is reserved.
        ScanMismatchError
            Axes that do not fit.
        StoreWriteError
            The disk refused.
        """
        if not self._enabled:
            return
        with self._lock:
            buffer = self._reserved_buffer()
            buffer.write_axes(check_axes(axes, buffer.shape))

    def save(
        self,
        axes: Sequence[Any] | None = None,
        *,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the reserved scan in the background, measured in full or in part.

        Returns at once. Nothing happens if nothing is reserved; a reservation without
        any point is given up.

        Parameters
        ----------
        axes
            Coordinates of each axis, in order; None or left out counts from 0. By
            default those of :meth:`reserve` or :meth:`set_axes`.
        tags
            Further tags, which were not known at the reservation.

        Raises
        ------
        ScanMismatchError
            Axes that do not fit; the scan stays reserved.
        MetadataError
            Tags that JSON cannot hold; the scan stays reserved.
        """
        if axes is None and self._buffer is not None and callable(self._axes_of):
            # Not under the lock: it belongs to somebody else.
            axes = self._axes_of()
        with self._lock:
            buffer = self._buffer
            if buffer is not None:
                known = buffer.axes if axes is None else check_axes(axes, buffer.shape)
                buffer.tags.update(plain_tags(tags or {}))
                self._buffer = None
                if buffer.covered:
                    self._saving.put(SavingJob(buffer, known, self._format))
                else:
                    buffer.release()
        if buffer is not None:
            self._tell()

    def retry(self) -> None:
        """Save once more what could not be saved."""
        self._saving.retry()
        self._tell()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is saved, and return whether it is.

        Parameters
        ----------
        timeout
            Seconds, None for as long as it takes. What failed counts as done. Listeners
            on the thread that saves must not wait.
        """
        return self._saving.wait(timeout)

    def leftovers(self) -> list[Path]:
        """Return the scans in the folder that a process which is gone left unsaved.

        Each is a folder ``<name>.partial``, whose ``scan.zarr`` can be read as it is.
        Scans of live processes, and those that failed in this one, are not among them.

        Raises
        ------
        StoreWriteError
            The folder cannot be read.
        """
        return find_leftovers(scan_folder(self._base, self._folder))

    def recover(self) -> list[Path]:
        """Save what processes left behind, in the background, each under its own name.

        What they left without a point is removed.

        Returns
        -------
        list of Path
            The files that there will be; a failure is told by :attr:`saveFailed`.

        Raises
        ------
        StoreReadError
            One cannot be read, and was left alone; the others are being saved.
        StoreWriteError
            The folder cannot be read, or not be written to.
        """
        clear_emptied(scan_folder(self._base, self._folder))
        targets: list[Path] = []
        unreadable: StoreReadError | None = None
        for workshop in self.leftovers():
            try:
                buffer = take_over(workshop, self._format)
            except StoreReadError as error:
                unreadable = error
                continue
            if buffer is not None:
                targets.append(buffer.place.target)
                self._saving.put(SavingJob(buffer, buffer.axes, self._format))
        self._tell()
        if unreadable is not None:
            raise unreadable
        return targets

    def connect(self, detector: Any) -> Callable[[], None]:
        """Take the scans of a detector; call what is returned to let go of it.

        Parameters
        ----------
        detector
            With signals ``busyStateChanged(bool)``, ``dataAcquired(dict)`` and, where
            there is one, ``stopped()``, of psygnal or Qt, and with ``dataShape``,
            ``axes`` and, where there is one, ``dtype``: values or methods.

        Notes
        -----
        Busy reserves, data update, and the end or a stop saves what is there with the
        axes of the detector. A scan that is full is saved once. ``dataAcquired`` of
        PySide has to be a ``Signal(object)``: from ``Signal(dict)`` comes an empty dict
        for one whose keys are indices, which is logged as an error.
        """
        return follow(self, detector)

    def _reserved_buffer(self) -> ScanBuffer:
        if self._buffer is None:
            raise StoreStateError(
                "no scan is reserved, or all its points were there and it was saved; "
                "call reserve(shape) first"
            )
        return self._buffer
