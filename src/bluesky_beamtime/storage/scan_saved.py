"""How the scans of a ScanStorage become files: saved, tried again, recovered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import StoreReadError, StoreStateError
from bluesky_beamtime.storage.scan_leftovers import (
    clear_emptied,
    find_leftovers,
    take_over,
)
from bluesky_beamtime.storage.scan_observed import ObservedScans
from bluesky_beamtime.storage.scan_reservation import Reservation
from bluesky_beamtime.storage.scan_saving import SavingJob
from bluesky_beamtime.storage.scan_tags import plain_tags
from bluesky_beamtime.storage.scan_values import check_axes

logger = logging.getLogger(__name__)


class SavedScans(ObservedScans):
    """The part of a :class:`~bluesky_beamtime.storage.ScanStorage` that saves.

    Parameters
    ----------
    base, folder, name, numbered, enabled, format
        Those of :class:`~bluesky_beamtime.storage.ScanStorage`.
    """

    def save(
        self,
        axes: Sequence[Any] | None = None,
        *,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the reserved scan in the background, measured in full or in part.

        Returns at once. Nothing happens if nothing is reserved; a reservation without
        any point is given up. Points that other threads write just now are in it.

        Parameters
        ----------
        axes
            Coordinates of each axis, in order; None or left out counts from 0. By
            default those of :meth:`reserve` or :meth:`set_axes`. Where a function that
            was given there fails, or what it returns does not fit, the scan is saved
            with the axes that were known, and an error is logged.
        tags
            Further tags, which were not known at the reservation.

        Raises
        ------
        ScanMismatchError
            Axes that do not fit; the scan stays reserved.
        MetadataError
            Tags that JSON cannot hold; the scan stays reserved.
        """
        scan = self._scan
        if scan is not None:
            self._save(scan, axes, tags)

    def _save(
        self,
        scan: Reservation,
        axes: Sequence[Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Save one scan, unless somebody else was quicker; never the one after it."""
        buffer, trouble = scan.buffer, None
        if axes is None:
            known, trouble = scan.ask_axes()
        else:
            known = check_axes(axes, buffer.shape)
        further = plain_tags(tags or {})
        with self._lock:
            if self._scan is not scan:
                return
            self._scan = None
            buffer.tags.update(further)
            # Who writes still may measure the first point of it.
            wanted = buffer.writers.busy or bool(buffer.covered)
            if wanted:
                self._saving.put(SavingJob(buffer, known, self._format))
        if not wanted:
            buffer.release()
        self._tell()
        if trouble is not None:
            logger.error(
                "%s is saved with the axes that were known, for those that were asked "
                "for at its end are of no use: %s",
                buffer.place.target,
                trouble,
                exc_info=trouble,
            )

    def retry(self) -> None:
        """Save once more what could not be saved."""
        self._saving.retry()
        self._tell()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything is saved, and return whether it is.

        Parameters
        ----------
        timeout
            Seconds, None for as long as it takes. What failed counts as done.

        Raises
        ------
        StoreStateError
            A listener waits: what it would wait for waits for its listeners.
        """
        if self._telling.now:
            raise StoreStateError(
                "a listener must not wait: the scan that is being saved waits for its "
                "listeners; look at saving instead, or wait when the signal is over"
            )
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
        return find_leftovers(self._place.path())

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
        clear_emptied(self._place.path())
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
                self._saving.put(SavingJob(buffer, None, self._format))
        self._tell()
        if unreadable is not None:
            raise unreadable
        return targets
