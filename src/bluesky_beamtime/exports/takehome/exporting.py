"""The runs of a copy in other formats: what one refuses costs none of the others."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import (
    BeamtimeWarning,
    MissingExtraError,
    UnsupportedFormatError,
)
from bluesky_beamtime.exports.format import ExportFormat, is_unfit, refusal
from bluesky_beamtime.exports.takehome.copying import Progress
from bluesky_beamtime.exports.takehome.manifest import Manifest
from bluesky_beamtime.plugins import load_plugin, plugin_names

_GROUP = "bluesky_beamtime.exports"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def find_formats(names: Sequence[str]) -> dict[str, ExportFormat]:
    """Return formats by their names, before anything is done.

    Raises
    ------
    UnsupportedFormatError
        There is no such format.
    """
    known = plugin_names(_GROUP)
    for name in names:
        if name not in known:
            raise UnsupportedFormatError(
                f"there is no format {name!r} to export to; there are: "
                f"{', '.join(known)}"
            )
    return {name: load_plugin(_GROUP, name, "export") for name in names}


class Exports:
    """Writes the runs of a copy to its folder ``exports``.

    Parameters
    ----------
    home
        Folder of the copy.
    formats
        The formats by their names.
    names
        For uids, how the files of a run begin.
    manifest
        Told of every file.

    Attributes
    ----------
    problems : list of str
        What was not exported, although it should have been.
    unfit : list of str
        What was not exported because the format cannot hold it; nothing is lost by it.
    """

    def __init__(
        self,
        home: Path,
        formats: Mapping[str, ExportFormat],
        names: Mapping[str, str],
        manifest: Manifest,
    ) -> None:
        self._home = home
        self._formats = formats
        self._names = names
        self._manifest = manifest
        self.problems: list[str] = []
        self.unfit: list[str] = []

    def write(self, beamtime: Beamtime, progress: Progress) -> dict[str, list[str]]:
        """Write all runs; return the names of the files for each uid.

        Raises
        ------
        OSError
            The disk is full.
        MissingExtraError
            A package is not installed.
        """
        done: dict[str, list[str]] = {}
        for number, run in enumerate(beamtime if self._formats else ()):
            for name in self._formats:
                progress(f"exporting {name}", number, len(self._names))
                done.setdefault(run.uid, []).extend(self._export(run, name))
        return done

    def _export(self, run: Run, name: str) -> list[str]:
        made = self._formats[name]
        folder = self._home / "exports" / name
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self._names[run.uid]}.{made.extension}"
        try:
            with warnings.catch_warnings():
                # What a format has no place for is in the Zarr hierarchy beside it.
                warnings.simplefilter("ignore", BeamtimeWarning)
                paths = made(run, target)
        except MissingExtraError:
            raise
        except Exception as error:
            # A format may come from anywhere, and raise anything.
            if refusal(error) in _FULL:
                raise
            text = str(error).replace(f"{self._home}{os.sep}", "")
            # What it has is in the database and beside it all the same.
            sentences = self.unfit if is_unfit(error) else self.problems
            sentences.append(
                f"{run.label} ({run.uid}) was not exported as {name}: {text}"
            )
            return []
        for path in paths:
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            for file in files:
                if file.is_file():
                    self._manifest.read(file.relative_to(self._home).as_posix())
        return [path.relative_to(self._home).as_posix() for path in paths]
