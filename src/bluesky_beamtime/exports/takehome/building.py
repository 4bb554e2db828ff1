"""What goes into the folder, from the data to the manifest."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import verify
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.snapshot import blaming
from bluesky_beamtime.errors import BeamtimeFileError, ExportError, StoreReadError
from bluesky_beamtime.exports.belongings import Belonging, Belongings, gather
from bluesky_beamtime.exports.format import ExportFormat
from bluesky_beamtime.exports.takehome.choosing import files_of, keep_lines, keep_runs
from bluesky_beamtime.exports.takehome.copying import (
    FolderCopy,
    Progress,
    check_space,
    flush,
)
from bluesky_beamtime.exports.takehome.exporting import Exports
from bluesky_beamtime.exports.takehome.manifest import Manifest
from bluesky_beamtime.exports.takehome.naming import run_names
from bluesky_beamtime.exports.takehome.pages import Pages, Told
from bluesky_beamtime.exports.takehome.readme import README, Facts, readme_text
from bluesky_beamtime.storage import repair_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is in a folder that was built."""

    runs: int
    """How many runs."""
    files: int
    """How many files, without the manifest."""
    size: int
    """Their bytes."""
    recording: tuple[str, ...]
    """Uids of runs that were going on."""
    problems: tuple[str, ...]
    """What is missing or damaged."""
    unfit: tuple[str, ...]
    """Runs that a format cannot hold, such as those without frames in TIFF: they are
    not in ``exports``, and nothing is missing by it."""


class Building:
    """Fills one folder.

    Parameters
    ----------
    source
        The database file of the beamtime.
    home
        The folder, empty, in one where temporary files may be.
    chosen
        Uids of the runs to take; None for all.
    formats
        Formats to export to.
    progress
        Told how it gets on.
    """

    def __init__(
        self,
        source: Path,
        home: Path,
        chosen: Collection[str] | None,
        formats: Mapping[str, ExportFormat],
        progress: Progress,
    ) -> None:
        self._source = source
        self._home = home
        self._chosen = chosen
        self._formats = formats
        self._progress = progress
        self._manifest = Manifest(home)
        self._problems: list[str] = []
        self._unfit: list[str] = []
        self._recording: frozenset[str] = frozenset()

    def build(self, *, strict: bool) -> Content:
        """Put everything into the folder.

        Raises
        ------
        ExportError
            There is no space; with ``strict``, something is missing or damaged.
        BeamtimeFileError
            The database is damaged.
        OSError
            The disk refused.
        """
        try:
            return self._build(strict)
        except BeamtimeFileError as error:
            # It names the copy, of which nothing stays.
            text = str(error).replace(str(self._home), str(self._source.parent))
            raise type(error)(text) from error

    def _build(self, strict: bool) -> Content:
        place = self._home.parent
        with (
            gather(self._source, folder=place, prepare=self._choose) as belongings,
            blaming(self._source, belongings.snapshot),
        ):
            self._copy(belongings)
        self._mend()
        database = self._home / self._source.name
        self._check(database)
        with Beamtime(database, mode="r") as beamtime:
            # The oldest first: a name stays when there are more runs.
            names = run_names(reversed(beamtime.summaries()))
            exports = Exports(self._home, self._formats, names, self._manifest)
            exported = exports.write(beamtime, self._progress)
            self._problems += exports.problems
            self._unfit += exports.unfit
            if strict and self._problems:
                raise self._incomplete()
            told = Told(
                names=names,
                problems=self._problems,
                unfit=self._unfit,
                recording=self._recording,
                exports=exported,
                chosen=self._chosen is not None,
            )
            Pages(beamtime, told, self._manifest.read).write(self._progress)
            files = [name for each in exported.values() for name in each]
            self._write_readme(beamtime, files)
        self._manifest.write()
        flush(self._home)
        return Content(
            runs=len(names),
            files=len(self._manifest),
            size=sum(file.stat().st_size for file in self._files()),
            recording=tuple(sorted(self._recording)),
            problems=tuple(self._problems),
            unfit=tuple(self._unfit),
        )

    def _incomplete(self) -> ExportError:
        more = len(self._problems) - 1
        return ExportError(
            f"something of {str(self._source)!r} is missing or damaged: "
            f"{self._problems[0]}{f', and {more} more' if more else ''}. Nothing was "
            "made; without strict it is taken as it is",
            filename=str(self._source),
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
        belongs: Callable[[Belonging], bool] | None = None
        if self._chosen is not None:
            belongs = files_of(belongings.snapshot, belongings.stem)
        total = sum(file.size for file in filter(belongs, belongings.files()))
        check_space(self._home, total, runs)
        copy = FolderCopy(self._home, self._manifest, self._progress, total)
        # Looked for anew, each when its turn comes: a file that was made meanwhile may
        # be promised by the one that was copied before it.
        for file in filter(belongs, belongings.files()):
            copy.add(file)
        self._problems += copy.absent
        self._problems += [str(absent) for absent in belongings.absent]

    def _mend(self) -> None:
        """Make frames readable that were written, but not yet announced."""
        before = {file: _state(file) for file in self._files()}
        for folder in self._home.iterdir():
            if folder.is_dir():
                try:
                    repair_store(folder)
                except StoreReadError:
                    # No store at all; or one that the check will name.
                    continue
        for file in self._files():
            if _state(file) != before.get(file):
                self._manifest.read(file.relative_to(self._home).as_posix())

    def _files(self) -> list[Path]:
        return [file for file in self._home.rglob("*") if file.is_file()]

    def _check(self, database: Path) -> None:
        with closing(Database(database, mode="r")) as opened:
            report = verify(opened, progress=self._progress)
        home = f"{self._home}{os.sep}"
        for problem in report.problems:
            sentence = f"{problem.kind}: {problem.where}: {problem.what}"
            self._problems.append(sentence.replace(home, ""))

    def _write_readme(self, beamtime: Beamtime, exports: list[str]) -> None:
        facts = Facts(
            beamtime=beamtime,
            when=time.strftime("%Y-%m-%d %H:%M"),
            chosen=self._chosen is not None,
            exports=exports,
            problems=self._problems,
            unfit=self._unfit,
        )
        with (self._home / README).open("xb") as file:
            file.write(readme_text(facts).encode("utf-8", "replace"))
        self._manifest.read(README)


def _state(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
