"""Where the files of scans go: base, folder, name and number."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from typing import Any, Literal

from bluesky_beamtime.errors import UnsupportedFormatError
from bluesky_beamtime.storage.paths import check_name
from bluesky_beamtime.storage.scan_files import need_h5py
from bluesky_beamtime.storage.scan_names import (
    SUFFIXES,
    check_folder,
    next_number,
    scan_folder,
)


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
        self._lock = threading.RLock()
        self._format = format
        self._base = os.fspath(base)
        check_folder(self._base, folder)
        self._folder, self._name = folder, check_name(name, "the name")
        self._numbered = bool(numbered)

    @property
    def base(self) -> str:
        """Base folder; ``~`` is expanded, a relative one is below the current one."""
        return self._base

    @base.setter
    def base(self, value: str | os.PathLike[str]) -> None:
        self._set(_base=os.fspath(value))

    @property
    def folder(self) -> str:
        """Folder below the base, such as ``"2026/LaB6"``; created at a reservation."""
        return self._folder

    @folder.setter
    def folder(self, value: str) -> None:
        self._set(_folder=value)

    @property
    def name(self) -> str:
        """Name of the files, without number and suffix; no part of a path."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._set(_name=check_name(value, "the name"))

    @property
    def numbered(self) -> bool:
        """Whether files are numbered; if not, a file that exists is refused."""
        return self._numbered

    @numbered.setter
    def numbered(self, value: bool) -> None:
        self._set(_numbered=bool(value))

    @property
    def format(self) -> str:
        """``"zarr"``, ``"npz"`` or ``"hdf5"``."""
        return self._format

    def getNumber(self) -> int | None:
        """Return the next number, the highest on disk plus one; None without numbering.

        What another process reserves meanwhile is not yet counted: a reservation goes
        on to the next number that is free.
        """
        if not self._numbered:
            return None
        return next_number(scan_folder(self._base, self._folder), self._name)

    get_number = getNumber

    def _set(self, **new: Any) -> None:
        """Take settings, if scans can go where they say; else nothing changes."""
        with self._lock:
            old = {key: getattr(self, key) for key in new}
            vars(self).update(new)
            try:
                check_folder(self._base, self._folder)
                self.getNumber()
            except BaseException:
                vars(self).update(old)
                raise
        self._tell()

    @abstractmethod
    def _tell(self) -> None:
        """Tell listeners what has changed."""
