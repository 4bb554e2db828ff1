"""Building the folder: beside its place, and then it gets its name."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import warnings
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run, verify
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    ExportError,
    StoreReadError,
    UnsupportedFormatError,
)
from bluesky_beamtime.exports.belongings import Belonging, Belongings, gather
from bluesky_beamtime.exports.placing import Placing
from bluesky_beamtime.exports.staging import Staging, clear_dead
from bluesky_beamtime.exports.takehome.choosing import files_of, keep_lines, keep_runs
from bluesky_beamtime.exports.takehome.copying import (
    FolderCopy,
    Progress,
    check_space,
    refused,
)
from bluesky_beamtime.exports.takehome.manifest import MANIFEST, Manifest
from bluesky_beamtime.exports.takehome.pages import Pages, Told, templates
from bluesky_beamtime.exports.takehome.readme import README, Facts, readme_text
from bluesky_beamtime.plugins import plugin_names
from bluesky_beamtime.storage import repair_store

_FORMATS = "bluesky_beamtime.exports"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenHome:
    """What :func:`take_home` made."""

    path: Path
    """The folder."""
    database: Path
    """The copy of the database in it: ``Beamtime(taken.database)`` opens everything."""
    runs: int
    """How many runs it holds."""
    files: int
    """How many files, without the manifest."""
    size: int
    """Their bytes."""
    recording: tuple[str, ...]
    """Uids of runs that were going on; they are there as far as they had got."""
    problems: tuple[str, ...]
    """What is missing or damaged; the pages and the README name it too."""


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
        finished.
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
    show = progress or _quiet
    templates()
    _check_formats(exports)
    _check_place(target, source, overwrite=overwrite)
    chosen = (
        None if runs is None else {r if isinstance(r, str) else r.uid for r in runs}
    )
    clear_dead(target.parent)
    try:
        staging = Staging(target.parent)
        try:
            home = staging.path / "home"
            home.mkdir()
            taking = _Taking(source, home, chosen, exports, show)
            taken = taking.take(target, strict=strict)
            placing = Placing(lambda: staging.kept)
            place = placing.replace if overwrite else placing.add
            place(home, target)
        finally:
            staging.remove()
    except FileExistsError as error:
        if error.filename == str(target):
            raise _there_already(target) from error
        raise refused(error, target) from error
    except OSError as error:
        if isinstance(error, BeamtimeError) or error.errno is None:
            raise
        raise refused(error, target) from error
    return taken


class _Taking:
    """One folder on its way."""

    def __init__(
        self,
        source: Path,
        home: Path,
        chosen: Collection[str] | None,
        formats: Sequence[str],
        progress: Progress,
    ) -> None:
        self._source = source
        self._home = home
        self._chosen = chosen
        self._formats = formats
        self._progress = progress
        self._manifest = Manifest(home)
        self._problems: list[str] = []
        self._recording: frozenset[str] = frozenset()

    def take(self, target: Path, *, strict: bool) -> TakenHome:
        with gather(
            self._source, folder=self._home.parent, prepare=self._choose
        ) as belongings:
            self._copy(belongings)
        database = self._home / self._source.name
        self._mend()
        self._check(database)
        with Beamtime(database, mode="r") as beamtime:
            exported = self._export(beamtime)
            if strict and self._problems:
                raise ExportError(
                    f"{str(target)!r} was not made, something is missing or damaged: "
                    f"{self._problems[0]}"
                    + _and_more(len(self._problems) - 1)
                    + ". Nothing is left of it; without strict it is taken as it is",
                    filename=str(target),
                )
            told = Told(
                problems=self._problems,
                recording=self._recording,
                exports=exported,
                chosen=self._chosen is not None,
            )
            Pages(beamtime, told, self._manifest.read).write(self._progress)
            self._write_readme(
                beamtime, [n for names in exported.values() for n in names]
            )
            count = len(beamtime)
        self._progress("manifest", 0, 1)
        self._manifest.write()
        return TakenHome(
            path=target,
            database=target / self._source.name,
            runs=count,
            files=len(self._manifest),
            size=sum(f.stat().st_size for f in self._home.rglob("*") if f.is_file()),
            recording=tuple(sorted(self._recording)),
            problems=tuple(self._problems),
        )

    # ------------------------------------------------------------------------- data

    def _choose(self, snapshot: Path, journal: Path | None) -> None:
        if self._chosen is not None:
            keep_runs(snapshot, self._chosen)
            if journal is not None:
                keep_lines(journal, self._chosen)

    def _copy(self, belongings: Belongings) -> None:
        with closing(sqlite3.connect(belongings.snapshot)) as snapshot:
            (runs,) = snapshot.execute("SELECT count(*) FROM runs").fetchone()
            query = "SELECT uid, writer FROM runs WHERE exit_status IS NULL"
            self._recording = frozenset(
                uid
                for uid, writer in snapshot.execute(query)
                if is_alive(self._source.parent, writer)
            )
        files: list[Belonging] = list(belongings.files())
        if self._chosen is not None:
            belongs = files_of(belongings.snapshot, belongings.stem)
            files = [file for file in files if belongs(file)]
        check_space(self._home, files, runs)
        total = sum(file.size for file in files)
        copy = FolderCopy(self._home, self._manifest, self._progress, total)
        for file in files:
            copy.add(file)
        self._problems += copy.absent
        self._problems += [str(absent) for absent in belongings.absent]

    def _mend(self) -> None:
        """Make frames readable that were written, but not yet announced."""
        before = {file: file.stat() for file in self._data_files()}
        for folder in self._home.iterdir():
            if folder.is_dir():
                try:
                    repair_store(folder)
                except StoreReadError:
                    # No store at all; or one that the check will name.
                    continue
        for file in self._data_files():
            now, then = file.stat(), before.get(file)
            if then is None or (now.st_mtime_ns, now.st_size, now.st_ino) != (
                then.st_mtime_ns,
                then.st_size,
                then.st_ino,
            ):
                self._manifest.read(file.relative_to(self._home).as_posix())

    def _data_files(self) -> Iterable[Path]:
        return [file for file in self._home.rglob("*") if file.is_file()]

    def _check(self, database: Path) -> None:
        with closing(Database(database, mode="r")) as opened:
            report = verify(opened, progress=self._progress)
        home = f"{self._home}{os.sep}"
        for problem in report.problems:
            sentence = f"{problem.kind}: {problem.where}: {problem.what}"
            self._problems.append(sentence.replace(home, ""))

    # ---------------------------------------------------------------------- exports

    def _export(self, beamtime: Beamtime) -> dict[str, list[str]]:
        done: dict[str, list[str]] = {}
        runs = list(beamtime) if self._formats else []
        for number, run in enumerate(runs):
            for name in self._formats:
                self._progress(f"exporting {name}", number, len(runs))
                done.setdefault(run.uid, []).extend(self._export_run(run, name))
        return done

    def _export_run(self, run: Run, format: str) -> list[str]:
        folder = self._home / "exports" / format
        folder.mkdir(parents=True, exist_ok=True)
        target: Path = folder
        try:
            with warnings.catch_warnings():
                # What a format has no place for is in the Zarr hierarchy beside it.
                warnings.simplefilter("ignore", BeamtimeWarning)
                paths = run.export(target, format)
        except BeamtimeError as error:
            if isinstance(error, OSError) and error.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
            ):
                raise
            text = str(error).replace(f"{self._home}{os.sep}", "")
            self._problems.append(f"{run.label} ({run.uid}) was not exported: {text}")
            return []
        names: list[str] = []
        for path in paths:
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            for file in files:
                if file.is_file():
                    self._manifest.read(file.relative_to(self._home).as_posix())
            names.append(path.relative_to(self._home).as_posix())
        return names

    def _write_readme(self, beamtime: Beamtime, exports: Sequence[str]) -> None:
        facts = Facts(
            beamtime=beamtime,
            when=time.strftime("%Y-%m-%d %H:%M"),
            chosen=self._chosen is not None,
            exports=exports,
            problems=self._problems,
        )
        text = readme_text(facts)
        with (self._home / README).open(
            "x", encoding="utf-8", errors="replace"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._manifest.read(README)


# ----------------------------------------------------------------------------- refusals


def _check_formats(formats: Sequence[str]) -> None:
    known = plugin_names(_FORMATS)
    for name in formats:
        if name not in known:
            raise UnsupportedFormatError(
                f"there is no format {name!r} to export to; there are: "
                f"{', '.join(known)}"
            )


def _check_place(target: Path, source: Path, *, overwrite: bool) -> None:
    stem = source.name.removesuffix(".db")
    if not target.parent.is_dir():
        raise ExportError(
            f"there is no folder {str(target.parent)!r} for {target.name!r}; make it "
            "first, or check the path",
            errno=errno.ENOENT,
            filename=str(target),
        )
    place = target.parent.resolve() / target.name
    for name in (f"{stem}.zarr", f"{stem}_files", f"{stem}_outside"):
        if place.is_relative_to(source.with_name(name)):
            raise ExportError(
                f"{str(target)!r} is inside the beamtime itself; choose a folder "
                "beside it, or on another disk",
                errno=errno.EINVAL,
                filename=str(target),
            )
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise _there_already(target)
    if not ((target / MANIFEST).is_file() and (target / README).is_file()):
        raise ExportError(
            f"{str(target)!r} was not made by taking a beamtime home, and is left as "
            "it is; choose another name",
            errno=errno.EEXIST,
            filename=str(target),
        )


def _there_already(target: Path) -> ExportError:
    return ExportError(
        f"{str(target)!r} is there already and is left as it is; name a new folder, "
        f"such as {str(target / 'home')!r}, or say overwrite to replace an earlier one",
        errno=errno.EEXIST,
        filename=str(target),
    )


def _and_more(number: int) -> str:
    return f", and {number} more" if number else ""


def _quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""
