"""Where stock ophyd-async detectors put their files: into the beamtime's folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path

from ophyd_async.core import PathInfo

from bluesky_beamtime.storage import from_uri, quote_name, to_uri
from bluesky_beamtime.storage.paths import AcquisitionPathProvider, check_name


class OphydPathProvider:
    """Path provider for ophyd-async's own detectors.

    Files of one acquisition share the folder ``<base>/<YYYY_MM_DD>/<name>``, or
    ``acquisition_<number>`` when there is no name, and are called after their data key.
    The folder is created.

    Parameters
    ----------
    base
        Base folder.
    name
        Returns the name of the acquisition, such as ``count_00012``; None for a number.
        Without a name an acquisition ends when a data key comes again.

    Notes
    -----
    Thread-safe. A data key that comes again under the same name gets ``_2``, so that no
    file is ever overwritten.
    """

    def __init__(
        self, base: str | Path, name: Callable[[], str | None] | None = None
    ) -> None:
        self._numbered = AcquisitionPathProvider(base)
        self._name = name
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._used: set[str] = set()

    @property
    def base(self) -> Path:
        """Base folder."""
        return self._numbered.base

    def __call__(self, datakey_name: str | None = None) -> PathInfo:
        """Return folder and file name for a data key.

        Raises
        ------
        PathError
            The acquisition's name cannot be a folder.
        StoreWriteError
            The folder cannot be created.
        """
        stem = quote_name(datakey_name or "data")
        with self._lock:
            name = self._name() if self._name is not None else None
            if name is None:
                folder = self._next_numbered(stem)
            else:
                check_name(name, "the acquisition")
                folder = self.base / f"{date.today():%Y_%m_%d}" / name
                folder.mkdir(parents=True, exist_ok=True)
            filename = _unused(folder, stem)
        return PathInfo(
            directory_path=folder, filename=filename, directory_uri=f"{to_uri(folder)}/"
        )

    def _next_numbered(self, stem: str) -> Path:
        if self._folder is None or stem in self._used:
            self._folder = Path(from_uri(self._numbered().store_uri))
            self._used = set()
        self._used.add(stem)
        return self._folder


def _unused(folder: Path, stem: str) -> str:
    """Return a name that no file in the folder has, whatever its suffix."""
    taken = {path.name for path in folder.iterdir()}
    taken |= {path.stem for path in folder.iterdir()}
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name
