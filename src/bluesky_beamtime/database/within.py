"""Where links lead that lie inside files and folders of frames."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage.hdf5_dataset import open_file


@dataclass(frozen=True)
class Within:
    """Folders that may be read from, and what is read from them.

    Every method raises :class:`~bluesky_beamtime.errors.StoreReadError` for what lies
    elsewhere, after links are resolved.
    """

    folders: Sequence[Path]
    """The folders, without links."""
    uri: str
    """What is read, for messages."""

    def check(self, path: str | os.PathLike[str] | None) -> None:
        """Check a path; None is no file."""
        real = None if path is None else Path(os.path.realpath(path))
        if real is None or not any(real.is_relative_to(each) for each in self.folders):
            leads = "" if real is None else f" (it leads to {str(real)!r})"
            raise StoreReadError(
                f"{self.uri!r} is outside of the beamtime's folder{leads} and is not "
                "served; name its folder with --readable",
                filename=None if real is None else str(real),
            )

    def check_tree(self, folder: str | os.PathLike[str]) -> None:
        """Check a folder with all that is below, links to folders included."""
        self.check(folder)
        waiting, seen = [os.path.realpath(folder)], set[str]()
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            for entry in _entries(here):
                if entry.is_symlink():
                    self.check(entry.path)
                if entry.is_dir():
                    waiting.append(os.path.realpath(entry.path))

    def check_dataset(self, dataset: Any) -> None:
        """Check all files out of which the HDF5 library would read a dataset."""
        self._check_dataset(dataset, set())

    def _check_dataset(self, dataset: Any, seen: set[tuple[str, str]]) -> None:
        # Another file than was opened if an external link is on the way.
        file = os.path.abspath(dataset.file.filename)
        self.check(file)
        if (file, dataset.name) in seen:
            return
        seen.add((file, dataset.name))
        for raw, *_ in dataset.external or ():
            for place in _places(file, raw, "HDF5_EXTFILE_PREFIX"):
                self.check(place)
        if not dataset.is_virtual:
            return
        plist = dataset.id.get_create_plist()
        sources = {
            (plist.get_virtual_filename(n), plist.get_virtual_dsetname(n)): None
            for n in range(plist.get_virtual_count())
        }
        for name, inner in sources:
            if "%" in f"{name}{inner}".replace("%%", ""):
                raise StoreReadError(
                    f"{self.uri!r} names its parts by a pattern, {name!r}, and is not "
                    "served; make a virtual dataset that names each of them",
                    filename=file,
                )
            name, inner = name.replace("%%", "%"), inner.replace("%%", "%")
            if name == ".":
                self._check_node(dataset.file, inner, seen)
            else:
                self._check_source(file, name, inner, seen)

    def _check_source(
        self, file: str, name: str, inner: str, seen: set[tuple[str, str]]
    ) -> None:
        """Check the file that the library takes for a name: the first that opens."""
        for place in _places(file, name, "HDF5_VDS_PREFIX"):
            self.check(place)
            try:
                opened = open_file(import_module("h5py"), place)
            except OSError:
                continue
            with opened:
                self._check_node(opened, inner, seen)
            return

    def _check_node(self, file: Any, inner: str, seen: set[tuple[str, str]]) -> None:
        node = file.get(inner)
        if hasattr(node, "is_virtual"):
            self._check_dataset(node, seen)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise StoreReadError(
            f"cannot read {folder!r}: {os.strerror(error.errno or 0)}",
            errno=error.errno,
            filename=folder,
        ) from error


def _places(file: str, name: str, variable: str) -> Iterator[str]:
    """Return what is there of the places where the library looks for a name, in order.

    Parameters
    ----------
    file
        The file in which the name is.
    name
        A path: absolute, or relative to one of several folders.
    variable
        Name of the environment variable with such folders.
    """
    folder = os.path.dirname(file)
    tried: list[str] = []
    if os.path.isabs(name):
        tried.append(name)
        name = os.path.basename(name)
    for prefix in filter(None, os.environ.get(variable, "").split(":")):
        tried.append(os.path.join(prefix.replace("${ORIGIN}", folder), name))
    tried.append(os.path.join(folder, name))
    tried.append(os.path.abspath(name))
    tried.append(os.path.join(os.path.dirname(os.path.realpath(file)), name))
    return (place for place in tried if os.path.exists(place))
