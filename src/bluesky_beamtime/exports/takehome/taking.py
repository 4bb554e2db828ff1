"""Building the folder: beside its place, and then it gets its name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import (
    ArchiveError,
    BeamtimeError,
    DatabaseWriteError,
    ExportError,
)
from bluesky_beamtime.exports.manifest import MANIFEST_FILE, decode_manifest
from bluesky_beamtime.exports.own_places import OwnPlaces
from bluesky_beamtime.exports.placing import Placing
from bluesky_beamtime.exports.staging import Staging, clear_dead
from bluesky_beamtime.exports.takehome.building import Building, Content
from bluesky_beamtime.exports.takehome.copying import Progress, refused
from bluesky_beamtime.exports.takehome.exporting import find_formats
from bluesky_beamtime.exports.takehome.pages import templates
from bluesky_beamtime.exports.takehome.readme import README


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenHome(Content):
    """What :func:`take_home` made.

    Runs that were going on are there as far as they had got; what is missing or damaged
    is named by the pages and the README too.
    """

    path: Path
    """The folder."""
    database: Path
    """The copy of the database in it: ``Beamtime(taken.database)`` opens everything."""


def take_home(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    runs: Iterable[Run | str] | None = None,
    exports: Sequence[str] = (),
    overwrite: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> TakenHome:
    """Copy a beamtime into one folder that can be opened without this package.

    The folder has the database, its Zarr hierarchy, files of detectors wherever they
    lie, exports, ``index.html`` with a page for each run, a README whose commands read
    the data with stock packages, and the hash of every file. All places in it are
    relative. It appears when it is finished, or not at all; a process that is killed
    leaves a hidden folder beside it, which the next call removes.

    Others may go on recording: the copy is what had been committed at one moment, with
    all frames that it promises.

    Parameters
    ----------
    path
        The database file; not changed.
    directory
        The folder, which does not exist yet; the one that it will be in does.
    runs
        The runs to take, or their uids; by default all. The copy of the database then
        has these runs alone, without the samples and people of others.
    exports
        Formats of :meth:`~bluesky_beamtime.database.Run.export`; the files go to
        ``exports/<format>/``.
    overwrite
        Replace a folder that was made by an earlier call; it stays until the new one is
        finished. One to which somebody has added files is left as it is.
    strict
        Fail if anything is missing or damaged, and leave nothing.
    progress
        Called with what is being done, how much of it is, and how much there is.

    Returns
    -------
    TakenHome
        What is in the folder, and what is missing or damaged.

    Raises
    ------
    ExportError
        There is something at ``directory`` already, no space, or the disk refused;
        nothing is left. With ``strict``, something is missing or damaged.
    UnsupportedFormatError
        There is no such format.
    RunNotFoundError
        One of the runs is not there.
    BeamtimeFileError, NewerVersionError
        ``path`` is not a beamtime that can be read.
    MissingExtraError
        A package is not installed that pages or a format need.
    """
    source = Path(path).expanduser().resolve()
    target = Path(directory).expanduser().absolute()
    templates()
    formats = find_formats(exports)
    _check_place(target, source, overwrite=overwrite)
    chosen = None
    if runs is not None:
        chosen = {run if isinstance(run, str) else run.uid for run in runs}
    try:
        clear_dead(target.parent)
        staging = Staging(target.parent)
        try:
            home = staging.path / "home"
            home.mkdir()
            building = Building(source, home, chosen, formats, progress or _quiet)
            content = building.build(strict=strict)
            placing = Placing(lambda: staging.kept)
            place = placing.replace if overwrite else placing.add
            place(home, target)
        finally:
            staging.remove()
    except OSError as error:
        if isinstance(error, FileExistsError) and error.filename == str(target):
            raise _there_already(target) from error
        known = isinstance(error, BeamtimeError)
        # The copy of the database is no matter of its own.
        if error.errno is None or (known and not isinstance(error, DatabaseWriteError)):
            raise
        raise refused(error, target) from error
    found = {each.name: getattr(content, each.name) for each in fields(content)}
    return TakenHome(path=target, database=target / source.name, **found)


# ----------------------------------------------------------------------------- refusals


def _check_place(target: Path, source: Path, *, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise ExportError(
            f"there is no folder {str(target.parent)!r} for {target.name!r}; make it "
            "first, or check the path",
            errno=errno.ENOENT,
            filename=str(target),
        )
    # What is replaced is removed, the beamtime with it.
    OwnPlaces(source).check(target)
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise _there_already(target)
    if not ((target / MANIFEST_FILE).is_file() and (target / README).is_file()):
        raise ExportError(
            f"{str(target)!r} was not made by taking a beamtime home, and is left as "
            "it is; choose another name",
            errno=errno.EEXIST,
            filename=str(target),
        )
    try:
        added = _added_since(target)
    except OSError as error:
        raise refused(error, target) from error
    if added is not None:
        raise ExportError(
            f"{str(target)!r} has {added!r}, which is not of the earlier copy and "
            "would be gone with it; move it elsewhere, or choose another name",
            errno=errno.EEXIST,
            filename=str(target),
        )


def _added_since(home: Path) -> str | None:
    """Return the name of a file that somebody has put into an earlier copy."""
    known: set[str] = {MANIFEST_FILE}
    # Of a damaged manifest nobody knows what it had.
    with suppress(ArchiveError):
        known.update(decode_manifest((home / MANIFEST_FILE).read_bytes()))
    for file in home.rglob("*"):
        name = file.relative_to(home).as_posix()
        # What desktops and SQLite leave where somebody has only looked.
        left = file.name.startswith(".") or name.endswith((".db-wal", ".db-shm"))
        if name not in known and not left and not file.is_dir():
            return name
    return None


def _there_already(target: Path) -> ExportError:
    return ExportError(
        f"{str(target)!r} is there already and is left as it is; name a new folder, "
        f"such as {str(target / 'home')!r}, or say overwrite to replace an earlier one",
        errno=errno.EEXIST,
        filename=str(target),
    )


def _quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""
