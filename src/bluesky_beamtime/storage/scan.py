"""N-dimensional scans: filled point by point on disk, saved in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from numpy.typing import DTypeLike

from bluesky_beamtime.errors import StoreStateError
from bluesky_beamtime.storage.scan_buffer import ScanBuffer, remove_folder
from bluesky_beamtime.storage.scan_detectors import follow
from bluesky_beamtime.storage.scan_names import reserve_place
from bluesky_beamtime.storage.scan_reservation import AxesOf, Reservation
from bluesky_beamtime.storage.scan_saved import SavedScans
from bluesky_beamtime.storage.scan_tags import plain_tags
from bluesky_beamtime.storage.scan_values import check_array, check_axes


class ScanStorage(SavedScans):
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
        and :meth:`retry` tries again. An error in the log says the same.
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

    @property
    def enabled(self) -> bool:
        """Whether scans are saved; switching off saves what was measured so far."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        with self._lock:
            # First, so that what is reserved from here on is not left behind.
            self._enabled = bool(value)
        if not value:
            self.save()
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
        where = self._place
        place = reserve_place(
            where.path(), where.name, self._format, numbered=where.numbered
        )
        try:
            buffer = ScanBuffer.create(place, sizes, kind, fillValue, kept, planned)
        except BaseException:
            remove_folder(place.workshop)
            raise
        try:
            while not self._take(Reservation(buffer, axes, autosave)):
                # Another thread was here since.
                self.save()
        except BaseException:
            buffer.release()
            raise
        self._tell()

    def _take(self, scan: Reservation) -> bool:
        """Put a scan where points go, unless there is one; say whether it is done."""
        with self._lock:
            if self._enabled and self._scan is not None:
                return False
            if self._enabled:
                self._scan = scan
                return True
        scan.buffer.release()
        return True

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
        with self._writing() as scan:
            if scan is None:
                return
            scan.buffer.update(data)
            full = scan.autosave and scan.buffer.full
        if full:
            self._save(scan)

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
        with self._writing() as scan:
            if scan is not None:
                scan.buffer.write_axes(check_axes(axes, scan.buffer.shape))

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

    @contextmanager
    def _writing(self) -> Generator[Reservation | None]:
        """Give the scan that is reserved, to be written by nobody else; None if off."""
        who = object()
        with ExitStack() as leaving:
            with self._lock:
                scan = self._scan if self._enabled else None
                if scan is None and self._enabled:
                    raise StoreStateError(
                        "no scan is reserved, or all its points were there and it was "
                        "saved; call reserve(shape) first"
                    )
                if scan is not None:
                    # First: Ctrl-C may come anywhere, and a save waits for all of them.
                    leaving.callback(scan.buffer.writers.leave, who)
                    scan.buffer.writers.enter(who)
            if scan is not None:
                leaving.enter_context(scan.buffer.writers.turn)
            yield scan
