"""The places of a beamtime, which no file that is made of it may take."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.assets import AssetFinder

_BESIDE = ("-wal", "-shm", "-journal")
_BELONGING = (".zarr", "_files", "_outside", ".journal.jsonl")

_Identity = tuple[object, ...]


class OwnPlaces:
    """Knows which places are a beamtime's own, under whatever name.

    Links and hard links are followed, and of names that are not there yet the case does
    not matter: some disks take ``X.zarr`` for ``x.zarr``.

    Parameters
    ----------
    database
        The database file, without links.
    referred
        Returns the files and folders that the documents of the beamtime refer to and
        that lie elsewhere; asked for only where something is there to be replaced.
    """

    def __init__(
        self, database: Path, referred: Callable[[], Iterable[Path]] = tuple
    ) -> None:
        stem = database.name.removesuffix(".db")
        names = [f"{database.name}{end}" for end in ("", *_BESIDE)]
        names += [f"{stem}{end}" for end in _BELONGING]
        self._database = database
        self._own = _Places(database.with_name(name) for name in names)
        self._find_referred = referred

    @classmethod
    def of(cls, database: Database) -> OwnPlaces:
        """Return those of an open beamtime, with what its documents refer to."""
        return cls(database.path, lambda: _referred(database))

    @cached_property
    def _referred(self) -> _Places:
        return _Places(self._find_referred())

    def check(self, place: Path) -> None:
        """Raise if a file or folder at a place would cost the beamtime something.

        Raises
        ------
        ExportError
            The place is one of the beamtime's own, is inside of one, or holds one.
        """
        there = os.path.lexists(place)
        found = self._own.meet(place) or self._lock(place)
        what = "the beamtime itself"
        if found is None and there:
            found = self._referred.meet(place)
            what = "what documents of the beamtime refer to"
        if found is None:
            return
        relation, own = found
        raise ExportError(
            f"{str(place)!r} {relation} {what}, {str(own)!r}; nothing was written. "
            "Choose a place beside it, or on another disk",
            errno=errno.EEXIST if there else errno.EINVAL,
            filename=str(place),
        )

    def _lock(self, place: Path) -> tuple[str, Path] | None:
        """Look for the files of a writer, some of which have a number in their name."""
        name, own = place.name.casefold(), self._database.name.casefold()
        backup = name.startswith(f"{own}.v") and name.endswith("-backup")
        if not (backup or name.startswith(f".{own}.")):
            return None
        if _identity(place.parent) != _identity(self._database.parent):
            return None
        return "is a part of", place


class _Places:
    """Files and folders, found under any of their names."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths: dict[_Identity, Path] = {}
        self._above: dict[_Identity, Path] = {}
        for path in paths:
            self._paths[_identity(path)] = path
            for folder in _above(path):
                self._above.setdefault(_identity(folder), path)

    def meet(self, place: Path) -> tuple[str, Path] | None:
        """Return how a place has to do with one of them, and with which."""
        here = _identity(place)
        if here in self._paths:
            return "is a part of", self._paths[here]
        for folder in _above(place):
            if (above := _identity(folder)) in self._paths:
                return "is inside", self._paths[above]
        return ("holds", self._above[here]) if here in self._above else None


def _identity(path: Path) -> _Identity:
    """Return what is equal for two names of one file, also of one not there yet."""
    try:
        status = path.stat()
    except OSError:
        # Of the root there is always something to be known.
        return *_identity(path.parent), path.name.casefold()
    return status.st_dev, status.st_ino


def _above(path: Path) -> Iterator[Path]:
    """Yield the folders above a path: where its name is, and where that leads to."""
    real = Path(os.path.realpath(path))
    if path.name != "..":
        yield from Path(os.path.realpath(path.parent), path.name).parents
    yield from real.parents


def _referred(database: Database) -> list[Path]:
    own = (database.store.name, database.files.name)
    stem = database.path.name.removesuffix(".db")
    finder = AssetFinder(database.folder, own, f"{stem}_outside", held=())
    with database.reading() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        return [asset.path for asset in finder.look(driver).assets]
