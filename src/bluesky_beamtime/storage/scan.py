"""N-dimensional scans: filled point by point on disk, saved in the background."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from numpy.typing import DTypeLike
from psygnal import Signal

from bluesky_beamtime.errors import StoreStateError, UnsupportedFormatError
from bluesky_beamtime.storage.layout import plain_json
from bluesky_beamtime.storage.paths import check_name
from bluesky_beamtime.storage.scan_buffer import ScanBuffer, check_array
from bluesky_beamtime.storage.scan_files import Axes, check_axes, need_h5py, save_scan
from bluesky_beamtime.storage.scan_names import (
    SUFFIXES,
    next_number,
    reserve_place,
    scan_folder,
)


@dataclass(frozen=True, eq=False)
class _Job:
    buffer: ScanBuffer
    axes: Axes
    kind: str


class ScanStorage:
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
    saveFailed : Signal(object, str)
        The exception and the file that was not saved. The data are kept on disk,
        and :meth:`retry` tries again.

    Notes
    -----
    Thread-safe. Signals of a save come on the thread that saves; give psygnal's
    ``connect(..., thread="main")`` to be called on yours.
    """

    numberChanged = Signal(object)
    savingStateChanged = Signal(bool)
    tagRequest = Signal(dict)
    saveFailed = Signal(object, str)

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
        if format not in SUFFIXES:
            raise UnsupportedFormatError(
                f"scans are saved as {', '.join(SUFFIXES)}, not as {format!r}"
            )
        if format == "hdf5":
            need_h5py()
        self._lock = threading.RLock()
        self._format = format
        self._base = os.fspath(base)
        scan_folder(self._base, folder)
        self._folder, self._name = folder, check_name(name, "the name")
        self._numbered, self._enabled = bool(numbered), bool(enabled)
        self._buffer: ScanBuffer | None = None
        self._axes_of: Callable[[], Sequence[Any] | None] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._writing: list[_Job] = []
        # A job has ended when its listeners were told, which wait() waits for.
        self._futures: set[Future[None]] = set()
        self._failed: list[_Job] = []
        self._was_saving = False
        self._number = self.getNumber()

    @property
    def base(self) -> str:
        """Base folder; ``~`` is expanded, a relative one is below the current one."""
        return self._base

    @base.setter
    def base(self, value: str | os.PathLike[str]) -> None:
        scan_folder(value, self._folder)
        self._base = os.fspath(value)
        self._tell()

    @property
    def folder(self) -> str:
        """Folder below the base, such as ``"2026/LaB6"``; created at a reservation."""
        return self._folder

    @folder.setter
    def folder(self, value: str) -> None:
        scan_folder(self._base, value)
        self._folder = value
        self._tell()

    @property
    def name(self) -> str:
        """Name of the files, without number and suffix; no part of a path."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = check_name(value, "the name")
        self._tell()

    @property
    def numbered(self) -> bool:
        """Whether files are numbered; if not, a file that exists is refused."""
        return self._numbered

    @numbered.setter
    def numbered(self, value: bool) -> None:
        self._numbered = bool(value)
        self._tell()

    @property
    def enabled(self) -> bool:
        """Whether scans are saved; switching off saves what was measured so far."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if not value:
            self.save()
        self._enabled = bool(value)

    @property
    def format(self) -> str:
        """``"zarr"``, ``"npz"`` or ``"hdf5"``."""
        return self._format

    @property
    def reserved(self) -> int:
        """Number of scans that are reserved and not yet being saved, 0 or 1."""
        return int(self._buffer is not None)

    @property
    def writing(self) -> int:
        """Number of scans that are being saved or wait for it."""
        with self._lock:
            return len(self._writing)

    @property
    def saving(self) -> bool:
        """Whether anything is reserved or being saved."""
        with self._lock:
            return bool(self.reserved or self._writing)

    @property
    def failed(self) -> list[Path]:
        """The buffers of scans that could not be saved, each a folder."""
        with self._lock:
            return [job.buffer.place.workshop for job in self._failed]

    def getNumber(self) -> int | None:
        """Return the next number, the highest on disk plus one; None without numbering.

        What another process reserves meanwhile is not yet counted: a reservation goes
        on to the next number that is free.
        """
        if not self._numbered:
            return None
        return next_number(scan_folder(self._base, self._folder), self._name)

    get_number = getNumber

    def reserve(
        self,
        shape: Sequence[int],
        fillValue: Any = None,
        *,
        dtype: DTypeLike | None = None,
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

        Raises
        ------
        ScanMismatchError
            No points, no numbers, or a fill value that the type does not hold.
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
        self.save()
        tags: dict[str, Any] = {}
        self.tagRequest.emit(tags)
        plain_json(tags)
        with self._lock:
            folder = scan_folder(self._base, self._folder)
            place = reserve_place(
                folder, self._name, self._format, numbered=self._numbered
            )
            try:
                self._buffer = ScanBuffer(place, sizes, kind, fillValue, tags)
            except BaseException:
                with suppress(OSError):
                    place.workshop.rmdir()
                raise
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
            An index outside, or a value of another shape or type.
        StoreWriteError
            The disk refused.
        """
        if not self._enabled:
            return
        with self._lock:
            if self._buffer is None:
                raise StoreStateError(
                    "no scan is reserved, or all its points were there and it was "
                    "saved; call reserve(shape) first"
                )
            self._buffer.update(data)
            full = self._buffer.full
        if full:
            self.save(None if self._axes_of is None else self._axes_of())

    def save(self, axes: Sequence[Any] | None = None) -> None:
        """Save the reserved scan in the background, measured in full or in part.

        Returns at once. Nothing happens if nothing is reserved; a reservation without
        any point is given up.

        Parameters
        ----------
        axes
            Coordinates of each axis, in order; None or left out counts from 0.

        Raises
        ------
        ScanMismatchError
            Axes that do not fit; the scan stays reserved.
        """
        with self._lock:
            buffer = self._buffer
            if buffer is not None:
                checked = check_axes(axes, buffer.shape)
                self._buffer = None
                if buffer.covered:
                    self._submit(_Job(buffer, checked, self._format))
                else:
                    buffer.release()
        if buffer is not None:
            self._tell()

    def retry(self) -> None:
        """Save once more what could not be saved."""
        with self._lock:
            failed, self._failed = self._failed, []
            for job in failed:
                self._submit(job)
        self._tell()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is saved, and return whether it is.

        Parameters
        ----------
        timeout
            Seconds, None for as long as it takes. What failed counts as done. Listeners
            on the thread that saves must not wait.
        """
        with self._lock:
            futures = list(self._futures)
        return not wait(futures, timeout).not_done

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
        axes of the detector. A scan that is full is saved once.
        """

        def axes() -> Any:
            return _value(detector, "axes")

        def busy(state: bool) -> None:
            if state:
                self._axes_of = axes
                self.reserve(
                    _value(detector, "dataShape"), dtype=_value(detector, "dtype")
                )
            else:
                stop()

        def stop() -> None:
            if self._buffer is not None:
                self.save(axes())

        def acquired(data: Mapping[tuple[int, ...], Any]) -> None:
            self.update(data)

        links: list[tuple[Any, Any]] = [
            (detector.busyStateChanged, busy),
            (detector.dataAcquired, acquired),
        ]
        if hasattr(detector, "stopped"):
            links.append((detector.stopped, stop))
        for signal, slot in links:
            signal.connect(slot)

        def disconnect() -> None:
            while links:
                signal, slot = links.pop()
                signal.disconnect(slot)
            if self._axes_of is axes:
                self._axes_of = None

        return disconnect

    def _submit(self, job: _Job) -> None:
        if self._pool is None:
            # One thread: scans wait on disk, not in memory.
            self._pool = ThreadPoolExecutor(1, "save-scan")
            # Zarr reads with threads, which cannot be started any more when Python
            # waits for this one: what was registered last is waited for first.
            me: weakref.ref[ScanStorage] = weakref.ref(self)
            cast("Any", threading)._register_atexit(lambda: _finish(me))
        self._writing.append(job)
        future = self._pool.submit(self._save, job)
        self._futures.add(future)
        future.add_done_callback(self._done)

    def _save(self, job: _Job) -> None:
        try:
            save_scan(job.buffer, job.axes, job.kind)
        except Exception as error:
            with self._lock:
                self._failed.append(job)
            self.saveFailed.emit(error, str(job.buffer.place.target))
        finally:
            with self._lock:
                self._writing.remove(job)
            self._tell()

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._futures.discard(future)

    def _tell(self) -> None:
        """Emit what has changed since the last time."""
        number = self.getNumber()
        with self._lock:
            saving = self.saving
            changed, self._was_saving = saving != self._was_saving, saving
            counted, self._number = number != self._number, number
        if counted:
            self.numberChanged.emit(number)
        if changed:
            self.savingStateChanged.emit(saving)


def _finish(storage: weakref.ref[ScanStorage]) -> None:
    left = storage()
    if left is not None:
        left.wait()


def _value(detector: Any, name: str) -> Any:
    value = getattr(detector, name, None)
    return value() if callable(value) else value
