"""What a ScanStorage is doing, and how it tells: signals, and a status to look at."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from psygnal import EmitLoopError, Signal, SignalInstance

from bluesky_beamtime.errors import PathError, StoreWriteError
from bluesky_beamtime.storage.scan_names import SUFFIXES
from bluesky_beamtime.storage.scan_reservation import Reservation
from bluesky_beamtime.storage.scan_saving import SavingQueue
from bluesky_beamtime.storage.scan_settings import ScanSettings
from bluesky_beamtime.storage.scan_status import ScanStatus

logger = logging.getLogger(__name__)


class _Telling(threading.local):
    now = False


class ObservedScans(ScanSettings):
    """The part of a :class:`~bluesky_beamtime.storage.ScanStorage` that is looked at.

    Parameters
    ----------
    base, folder, name, numbered, enabled, format
        Those of :class:`~bluesky_beamtime.storage.ScanStorage`.
    """

    numberChanged = Signal(object)
    savingStateChanged = Signal(bool)
    tagRequest = Signal(dict)
    saveFailed = Signal(object, str)
    changed = Signal()

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
        super().__init__(base, folder, name, numbered=numbered, format=format)
        self._enabled = bool(enabled)
        # Of each thread: whether it is calling listeners.
        self._telling = _Telling()
        self._scan: Reservation | None = None
        self._saving = SavingQueue(self._tell, partial(self._emit, self.saveFailed))
        self._number = self.getNumber()
        self._status = self._look(self._place.path())

    @property
    def reserved(self) -> int:
        """Number of scans that are reserved and not yet being saved, 0 or 1."""
        return int(self._scan is not None)

    @property
    def buffer(self) -> Path | None:
        """The Zarr group that the reserved scan fills, for readers; None without."""
        scan = self._scan
        return None if scan is None else scan.buffer.store

    @property
    def writing(self) -> int:
        """Number of scans that are being saved or wait for it."""
        return self._saving.writing

    @property
    def saving(self) -> bool:
        """Whether anything is reserved or being saved."""
        with self._lock:
            return bool(self.reserved or self.writing)

    @property
    def failed(self) -> list[Path]:
        """The buffers of scans that could not be saved, each a folder."""
        return [job.buffer.place.workshop for job in self._saving.failed]

    @property
    def status(self) -> ScanStatus:
        """Settings and doings when they last changed; neither waits nor reads the disk.

        What a window shows: read it whenever :attr:`changed` comes.
        """
        return self._status

    def _look(self, folder: Path) -> ScanStatus:
        place, number = self._place, self._number if self._place.numbered else None
        stem = place.name if number is None else f"{place.name}_{number}"
        return ScanStatus(
            base=place.base,
            folder=place.folder,
            name=place.name,
            numbered=place.numbered,
            enabled=self._enabled,
            number=number,
            target=folder / (stem + SUFFIXES[self._format]),
            reserved=self.reserved,
            writing=self.writing,
            failures=tuple(
                (job.buffer.place.target, error)
                for job, error in self._saving.failed.items()
            ),
        )

    def _tell(self, *, look: bool = True) -> None:
        """Emit what has changed since the last time."""
        if look:
            self._count()
        with self._lock:
            folder = self._status.target.parent
            with suppress(PathError):
                folder = self._place.path()
            before, self._status = self._status, self._look(folder)
            now = self._status
        saved, saving = before.reserved + before.writing, now.reserved + now.writing
        if now.number != before.number:
            self._emit(self.numberChanged, now.number)
        if bool(saving) != bool(saved):
            self._emit(self.savingStateChanged, bool(saving))
        if now != before:
            self._emit(self.changed)

    def _count(self) -> None:
        """Look for the next number, where the disk lets us."""
        with self._looking:
            place = self._place
            # Nobody shall miss the end of a save because the disk is gone.
            with suppress(PathError, StoreWriteError):
                number = place.number()
                with self._lock:
                    if self._place == place:
                        self._number = number

    def _emit(self, signal: SignalInstance, *values: Any) -> None:
        """Call the listeners; one that raises is told of, and keeps nothing else back.

        A scan must not be lost, nor a window show what is over, because of them.
        """
        before, self._telling.now = self._telling.now, True
        try:
            signal.emit(*values)
        except EmitLoopError:
            logger.exception("storage.scan.listener")
        finally:
            self._telling.now = before
