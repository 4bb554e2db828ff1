"""What belongs to a beamtime, as copies of it need to know.

A copy that is made while others record is good because of the order in which its parts
are read: what promises something comes before what it promises. The journal comes
before the database, which takes documents out of it; the database before the frames,
which its documents promise; the metadata of an array, which says how many frames can be
read, before the frames themselves. Frames are only ever added. Who reads in this order
has all that was promised, and at most some frames more.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bluesky_beamtime.database.liveness import live_writers
from bluesky_beamtime.database.snapshot import blaming, take_snapshot
from bluesky_beamtime.errors import DatabaseWriteError, StoreReadError
from bluesky_beamtime.exports.assets import Absent, Asset, AssetFinder, Move
from bluesky_beamtime.storage import FolderLock
from bluesky_beamtime.storage.backends.keys import TEMPORARY_PREFIX
from bluesky_beamtime.storage.files import PARTIAL_SUFFIX
from bluesky_beamtime.storage.layout import METADATA_FILE
from bluesky_beamtime.storage.reserve import RESERVE_FILE

Kind = Literal["journal", "database", "frames", "files", "assets"]

# Of the process that writes, for as long as it lives.
_OF_WRITERS = (FolderLock.NAME, RESERVE_FILE)


@dataclass(frozen=True, slots=True)
class Belonging:
    """One file of a beamtime."""

    name: str
    """Its place in a copy: a relative path with forward slashes."""
    path: Path
    """Where its content is. It may grow while it is read."""
    kind: Kind
    """``journal``, ``database``: what was there at one moment, in files of their own;
    ``frames``: of ``x.zarr``; ``files``: of ``x_files``, where detectors write by
    themselves; ``assets``: what documents refer to and lies elsewhere."""
    size: int
    """Bytes, when it was listed."""
    modified: int
    """Nanoseconds since 1970; 0 for the journal and the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """All that belongs to a beamtime, while :func:`gather` lends it."""

    database: Path
    """The file of the beamtime, without links."""
    snapshot: Path
    """The database as it was at one moment, one file that may be read or moved away."""
    journal: Path | None
    """The journal as it was then, None if there was none."""
    assets: tuple[Asset, ...]
    """Files and folders that documents refer to and that lie elsewhere."""
    absent: tuple[Absent, ...]
    """What documents refer to and a copy cannot have."""
    live: bool
    """Whether somebody has the beamtime open for recording."""

    @property
    def stem(self) -> str:
        """Name of the file without ``.db``, with which the other names begin."""
        return self.database.name.removesuffix(".db")

    def files(self) -> Iterator[Belonging]:
        """Yield every file, in an order in which they may be read one by one.

        Each call looks anew. A file that others remove in between is not there when its
        turn comes. Links are followed; locks, and what is kept for the needs of a
        writer, are left out.

        Raises
        ------
        StoreReadError
            A folder cannot be looked into.
        """
        if self.journal is not None:
            name = f"{self.stem}.journal.jsonl"
            yield _taken(name, self.journal, "journal")
        yield _taken(self.database.name, self.snapshot, "database")
        store, files = f"{self.stem}.zarr", f"{self.stem}_files"
        yield from _below(self.database.with_name(store), store, "frames")
        yield from _below(self.database.with_name(files), files, "files")
        for asset in self.assets:
            if asset.path.is_dir():
                yield from _below(asset.path, asset.name, "assets")
            else:
                found = _file(asset.path, asset.name, "assets")
                if found is not None:
                    yield found


@contextmanager
def gather(
    path: str | os.PathLike[str],
    *,
    folder: str | os.PathLike[str] | None = None,
    held: Collection[str] = (),
    assets: bool = True,
    prepare: Callable[[Path, Path | None], object] = lambda snapshot, journal: None,
) -> Generator[Belongings]:
    """Find all that belongs to a beamtime, while others may record into it.

    Documents refer to some files by absolute paths. A copy has them below
    ``x_outside``, and the copy of the database says so: opened from there, it finds
    them wherever it was carried.

    Parameters
    ----------
    path
        The database file; not changed.
    folder
        Where the copies of database and journal are kept until the end of the ``with``
        block; by default in the folder for temporary files.
    held
        Names of files and folders that the copy has already; they are referred to then,
        although they are no longer here.
    assets
        Take what lies outside of the beamtime's folder too. Of a file that others have
        made, look at ``belongings.assets`` first: its documents can name any path.
    prepare
        Called with the copies of database and journal, which it may change, before
        anything is looked for.

    Raises
    ------
    BeamtimeFileError, NewerVersionError
        It is not a beamtime that can be read.
    DatabaseWriteError
        There is no space for a copy of the database.
    """
    database = Path(path).expanduser().resolve()
    stem = database.name.removesuffix(".db")
    with _workspace(folder) as workspace:
        # The journal first: recovery stores its documents, then takes them out of it.
        journal = _copy_journal(database.with_name(f"{stem}.journal.jsonl"), workspace)
        snapshot = Path(workspace, "snapshot.db")
        take_snapshot(database, snapshot)
        with blaming(database, snapshot):
            prepare(snapshot, journal)
        finder = AssetFinder(
            database.parent,
            (
                *(f"{stem}.zarr", f"{stem}_files", f"{stem}.journal.jsonl"),
                *(f"{database.name}{ending}" for ending in ("", "-wal", "-shm")),
            ),
            f"{stem}_outside",
            held,
        )
        with (
            blaming(database, snapshot),
            closing(sqlite3.connect(snapshot)) as connection,
        ):
            found = finder.look(connection)
            inside = tuple(a for a in found.assets if _is_inside(a, database.parent))
            moves = [move for move in found.moves if assets or not move.outside]
            _move(connection, moves)
        yield Belongings(
            database=database,
            snapshot=snapshot,
            journal=journal,
            assets=found.assets if assets else inside,
            absent=found.absent,
            live=bool(live_writers(database)),
        )


def _workspace(
    folder: str | os.PathLike[str] | None,
) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix=".beamtime-", dir=folder)
    except OSError as error:
        where = os.fspath(folder or tempfile.gettempdir())
        raise DatabaseWriteError(
            f"cannot make a folder in {where!r} for a copy of the database: "
            f"{os.strerror(error.errno or 0)}; choose another place",
            errno=error.errno,
            filename=where,
        ) from error


def _is_inside(asset: Asset, folder: Path) -> bool:
    # By where it is: a restored beamtime has what was outside once in its own folder.
    return asset.path == folder / asset.name


def _copy_journal(journal: Path, workspace: str) -> Path | None:
    copy = Path(workspace, "journal.jsonl")
    try:
        shutil.copyfile(journal, copy)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatabaseWriteError(
            f"cannot copy {str(journal)!r} to {str(copy)!r}: "
            f"{os.strerror(error.errno or 0)}; set TMPDIR to a folder with space",
            errno=error.errno,
            filename=str(copy),
        ) from error
    return copy


def _move(connection: sqlite3.Connection, moves: Iterable[Move]) -> None:
    with connection:
        for move in moves:
            columns = ", ".join(f'"{column}" = ?' for column in move.values)
            connection.execute(
                f'UPDATE "{move.table}" SET {columns} WHERE uid = ?',
                (*move.values.values(), move.uid),
            )


# ------------------------------------------------------------------------------- files


def _taken(name: str, path: Path, kind: Kind) -> Belonging:
    return Belonging(name, path, kind, path.stat().st_size, 0)


def _file(path: Path, name: str, kind: Kind) -> Belonging | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Belonging(name, path, kind, status.st_size, status.st_mtime_ns)


def _below(
    folder: Path, name: str, kind: Kind, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[Belonging]:
    """Yield the files below a folder: of each folder its metadata first.

    The others are looked for when the metadata have been read: what these promise is
    there by then, as another writer may just be making it.
    """
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            # A link that leads back to where we come from.
            return
        metadata = _file(folder / METADATA_FILE, f"{name}/{METADATA_FILE}", kind)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _closed(folder, error) from error
    if metadata is not None:
        yield metadata
    below, files = _scan(folder)
    for file in files:
        found = _file(folder / file, f"{name}/{file}", kind)
        if found is not None:
            yield found
    for subfolder in below:
        yield from _below(
            folder / subfolder, f"{name}/{subfolder}", kind, (*above, here)
        )


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of folders and files in a folder, without its metadata."""
    below: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _leads_nowhere(entry):
                    continue
                if entry.is_dir():
                    below.append(entry.name)
                elif entry.is_file() and not _is_of_writer(entry.name):
                    files.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _closed(folder, error) from error
    return sorted(below), sorted(set(files) - {METADATA_FILE})


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a link in a circle, which no reader gets behind."""
    try:
        if entry.is_symlink():
            entry.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _closed(folder: Path, error: OSError) -> StoreReadError:
    return StoreReadError(
        f"cannot look into {str(folder)!r}: {os.strerror(error.errno or 0)}; check "
        "its permissions",
        errno=error.errno,
        filename=str(folder),
    )


def _is_of_writer(name: str) -> bool:
    return (
        name in _OF_WRITERS
        or name.startswith(TEMPORARY_PREFIX)
        or (name.startswith(".") and name.endswith(PARTIAL_SUFFIX))
    )
