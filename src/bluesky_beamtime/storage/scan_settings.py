"""Where the files of scans go: base, folder, name and number."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bluesky_beamtime.errors import UnsupportedFormatError
from bluesky_beamtime.storage.paths import check_name
from bluesky_beamtime.storage.scan_files import need_h5py
from bluesky_beamtime.storage.scan_names import (
    SUFFIXES,
    check_folder,
    next_number,
    scan_folder,
)


class _Place(NamedTuple):
    """Where scans go."""

    base: str
    folder: str
    name: str
    numbered: bool

    def path(self) -> Path:
        return scan_folder(self.base, self.folder)

    def check(self) -> None:
        """Look whether scans can go there."""
        check_folder(self.base, self.folder)

    def number(self) -> int | None:
        """Look for the next number; the folder is checked in any case."""
        path = self.path()
        return next_number(path, self.name) if self.numbered else None


class ScanSettings(ABC):
    """What a :class:`~bluesky_beamtime.storage.ScanStorage` is set to.

    Parameters
    ----------
    base, folder, name, numbered
        See the properties.
    format
        ``"zarr"``, ``"npz"`` or ``"hdf5"``, the last with the extra ``hdf5``.
    """

    def __init__(
        self,
        base: str | os.PathLike[str] = ".",
        folder: str = "folder",
        name: str = "data",
        *,
        numbered: bool = True,
        format: Literal["zarr", "npz", "hdf5"] = "zarr",
    ) -> None:
        if format not in SUFFIXES:
            raise UnsupportedFormatError(
                f"scans are saved as {', '.join(SUFFIXES)}, not as {format!r}"
            )
        if format == "hdf5":
            need_h5py()
        # Guards settings and what is reserved: held for moments, never over the disk.
        self._lock = threading.RLock()
        # Held while the folder is listed, so that what was seen last counts.
        self._looking = threading.RLock()
        self._format = format
        self._place = _Place(
            os.fspath(base), folder, check_name(name, "the name"), bool(numbered)
        )
        self._place.check()
        self._number: int | None = None

    @property
    def base(self) -> str:
        """Base folder; ``~`` is expanded, a relative one is below the current one."""
        return self._place.base

    @base.setter
    def base(self, value: str | os.PathLike[str]) -> None:
        self._set(base=os.fspath(value))

    @property
    def folder(self) -> str:
        """Folder below the base, such as ``"2026/LaB6"``; created at a reservation."""
        return self._place.folder

    @folder.setter
    def folder(self, value: str) -> None:
        self._set(folder=value)

    @property
    def name(self) -> str:
        """Name of the files, without number and suffix; no part of a path."""
        return self._place.name

    @name.setter
    def name(self, value: str) -> None:
        self._set(name=check_name(value, "the name"))

    @property
    def numbered(self) -> bool:
        """Whether files are numbered; if not, a file that exists is refused."""
        return self._place.numbered

    @numbered.setter
    def numbered(self, value: bool) -> None:
        self._set(numbered=bool(value))

    @property
    def format(self) -> str:
        """``"zarr"``, ``"npz"`` or ``"hdf5"``."""
        return self._format

    def getNumber(self) -> int | None:
        """Return the next number, the highest on disk plus one; None without numbering.

        What another process reserves meanwhile is not yet counted: a reservation goes
        on to the next number that is free.
        """
        return self._place.number()

    get_number = getNumber

    def set_place(
        self,
        *,
        base: str | os.PathLike[str] | None = None,
        folder: str | None = None,
        name: str | None = None,
    ) -> None:
        """Set where scans go without a look at the disk, which may take its time.

        For windows, letter by letter: it holds from the next reservation on, which
        finds its own number. The number that :attr:`ScanStorage.status` has is that of
        the place before, until :meth:`look`.

        Parameters
        ----------
        base, folder, name
            See the properties; None for those that stay.

        Raises
        ------
        PathError
            No place for files; nothing changes then.
        """
        new: dict[str, Any] = {}
        if base is not None:
            new["base"] = os.fspath(base)
        if folder is not None:
            new["folder"] = folder
        if name is not None:
            new["name"] = check_name(name, "the name")
        with self._lock:
            place = self._place._replace(**new)
            place.path()
            self._place = place
        self._tell(look=False)

    def look(self) -> None:
        """Look into the folder for the next number, and tell if it is another.

        Raises
        ------
        StoreWriteError
            The folder cannot be read.
        """
        self._set()

    def _set(self, **new: Any) -> None:
        """Take settings, if scans can go where they say; else nothing changes."""
        with self._looking:
            place = self._place._replace(**new)
            place.check()
            number = place.number()
            with self._lock:
                # Another thread may have set something else meanwhile.
                self._place = self._place._replace(**new)
                if self._place == place:
                    self._number = number
        self._tell(look=False)

    @abstractmethod
    def _tell(self, *, look: bool = True) -> None:
        """Tell listeners what has changed.

        Parameters
        ----------
        look
            Whether the next number is looked for on the disk.
        """
