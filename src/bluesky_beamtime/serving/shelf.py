"""The beamtimes that a server has, those of an index included."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.index import Index
from bluesky_beamtime.database.index_beamtimes import (
    IndexedBeamtime,
    beamtimes_of,
    is_index,
)
from bluesky_beamtime.errors import BeamtimeError, BeamtimeFileError

PathLike = str | os.PathLike[str]
_File = tuple[int, int]


@dataclass(frozen=True)
class Absent:
    """A beamtime that an index knows, and that cannot be read now."""

    known: IndexedBeamtime
    """What the index says of it."""
    reason: str
    """Why it cannot be read."""


@dataclass
class Contents:
    """What is on a shelf at a moment, by name."""

    available: dict[str, Database] = field(default_factory=dict[str, Database])
    absent: dict[str, Absent] = field(default_factory=dict[str, Absent])


class Shelf:
    """Beamtimes by their names.

    Parameters
    ----------
    paths
        Files of beamtimes, and of indexes over beamtimes.
    readable
        Folders outside of the beamtimes' whose files are served too, when documents
        name them.

    Raises
    ------
    BeamtimeFileError
        A path is neither, two files have the same name, or there are none.

    Notes
    -----
    An index is asked anew each time: a beamtime whose disk is connected later is
    there from then on. Usable from several threads.
    """

    def __init__(
        self, paths: Iterable[PathLike], *, readable: Iterable[PathLike] = ()
    ) -> None:
        self._readable = [Path(folder).expanduser().resolve() for folder in readable]
        self._files: dict[str, Database] = {}
        self._indexes: list[Index] = []
        self._found: dict[Path, tuple[_File, Database]] = {}
        self._lock = threading.Lock()
        try:
            for path in paths:
                file = Path(path).expanduser()
                if is_index(file):
                    self._indexes.append(Index(file))
                else:
                    self._add(self._open(file))
        except BaseException:
            self.close()
            raise
        if not self._files and not self._indexes:
            raise BeamtimeFileError(
                "give the .db file of a beamtime, or several, to serve"
            )

    @classmethod
    def of(cls, databases: Iterable[Database]) -> Shelf:
        """Return a shelf of beamtimes that are open; what they may read is theirs."""
        shelf = cls.__new__(cls)
        shelf._readable, shelf._files, shelf._indexes = [], {}, []
        shelf._found, shelf._lock = {}, threading.Lock()
        for database in databases:
            shelf._add(database)
        return shelf

    def _open(self, path: Path) -> Database:
        database = Database(path, mode="r")
        database.readable = [database.folder, *self._readable]
        return database

    def _add(self, database: Database) -> None:
        name = catalog_name(database.path)
        other = self._files.get(name)
        if other is not None:
            raise BeamtimeFileError(
                f"two beamtimes are called {name!r}: {str(other.path)!r} and "
                f"{str(database.path)!r}; serve them apart, or rename one"
            )
        self._files[name] = database

    @property
    def only(self) -> Database | None:
        """The one beamtime, if there will never be more than one."""
        if len(self._files) == 1 and not self._indexes:
            return next(iter(self._files.values()))
        return None

    def contents(self) -> Contents:
        """Return what is there now."""
        contents = Contents(dict(self._files))
        with self._lock:
            for index in self._indexes:
                for known in beamtimes_of(index):
                    self._look(known, contents)
        return contents

    def _look(self, known: IndexedBeamtime, contents: Contents) -> None:
        name = _free_name(known.label, contents)
        if any(known.path == each.path for each in self._files.values()):
            return
        file = _file_at(known.path)
        found = self._found.get(known.path)
        if found is not None and found[0] != file:
            # Another file has its name now, perhaps on another disk.
            self._found.pop(known.path)[1].close()
            found = None
        if file is None:
            reason = f"{str(known.path)!r} is not there: connect its disk"
            contents.absent[name] = Absent(known, reason)
            return
        try:
            found = found or (file, self._open(known.path))
        except BeamtimeError as error:
            contents.absent[name] = Absent(known, str(error))
            return
        self._found[known.path] = found
        contents.available[name] = found[1]

    def close(self) -> None:
        """Close every file."""
        found = (database for _, database in self._found.values())
        for database in (*self._files.values(), *found):
            database.close()


def _file_at(path: Path) -> _File | None:
    """Return what is a file's own, whatever it is called; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _free_name(label: str, contents: Contents) -> str:
    """Return a label as a part of a path that no other beamtime has."""
    name = bare = label.replace("/", "_").strip(".") or "beamtime"
    number = 1
    while name in contents.available or name in contents.absent:
        number += 1
        name = f"{bare}_{number}"
    return name


def catalog_name(path: Path) -> str:
    """Return the name of a beamtime's catalogue beside others."""
    return path.name.removesuffix(".db")
