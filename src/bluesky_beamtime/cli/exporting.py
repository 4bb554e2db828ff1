"""``beamtime export``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from bluesky_beamtime.cli.keeping import progress_bar
from bluesky_beamtime.cli.listing import find_run
from bluesky_beamtime.errors import BeamtimeWarning, ExportError


def export_runs(
    file: Path, names: Sequence[str], *, to: str, out: Path | None, overwrite: bool
) -> None:
    """Write runs, print the files, and say on standard error what was left out.

    Raises
    ------
    ExportError
        Several runs for one file.
    """
    from bluesky_beamtime.beamtime import Beamtime

    if len(names) > 1 and out is not None and not out.is_dir():
        raise ExportError(
            f"{len(names)} runs do not go into one file {str(out)!r}: give --out a "
            "folder that exists",
            filename=str(out),
        )
    with Beamtime(file, mode="r") as beamtime, progress_bar() as show:
        for run in [find_run(beamtime, name) for name in names]:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", BeamtimeWarning)
                paths = run.export(out, to, overwrite=overwrite, progress=show)
            for warning in told:
                print(f"beamtime: {warning.message}", file=sys.stderr)
            for path in paths:
                print(path)
