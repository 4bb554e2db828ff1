"""All the looks, one after the other."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.doctor import file, last_runs, machine
from bluesky_beamtime.doctor.finding import Finding, Report
from bluesky_beamtime.errors import (
    BeamtimeError,
    NewerVersionError,
    OlderVersionError,
)


def examine(
    path: str | os.PathLike[str] | None = None, *, runs: int = 20, speed: bool = False
) -> Report:
    """Look for what troubles a beamtime, or this computer.

    Changes nothing: others may record meanwhile.

    Parameters
    ----------
    path
        The file of a beamtime; None to look at the current folder alone.
    runs
        How many of the last runs are looked at.
    speed
        Whether to measure how fast the disk is, by writing to it for a moment.
    """
    place = None if path is None else Path(path).expanduser().resolve()
    folder = Path.cwd() if place is None else place.parent
    report = Report()
    found = report.findings
    found += machine.check_packages()
    if not folder.is_dir():
        what = f"there is no folder {str(folder)!r}"
        found.append(
            Finding("file", "trouble", what, f"mkdir -p {shlex.quote(str(folder))}")
        )
        return report
    found += machine.check_clock(folder)
    found += machine.check_disk(folder)
    biggest = 0
    if place is not None:
        biggest = _examine_file(place, runs, report)
    found += machine.check_space(folder, biggest)
    if speed:
        found += machine.measure_speed(folder)
    return report


def _examine_file(path: Path, number: int, report: Report) -> int:
    """Look at a file; return the bytes of the biggest of its last runs."""
    found = report.findings
    try:
        database = Database(path, mode="r")
    except BeamtimeError as error:
        found.append(Finding("file", "trouble", str(error), _mend(path, error)))
        return 0
    try:
        found.append(Finding("file", "well", f"{path.name} is of this version"))
        found += file.check_log(database)
        found += file.check_journal(database)
        found += file.check_writers(path)
        found += file.check_subscribers(database)
    finally:
        database.close()
    with Beamtime(path, mode="r") as beamtime:
        last: list[Run] = list(beamtime.search().limit(number))
        found += last_runs.check_endings(path, last)
        found += last_runs.check_frames(path, last)
        found += last_runs.check_stamps(last)
        return last_runs.biggest_run(last)


def _mend(path: Path, error: BeamtimeError) -> str:
    quoted = shlex.quote(str(path))
    if isinstance(error, OlderVersionError):
        return f"beamtime migrate {quoted}"
    if isinstance(error, NewerVersionError):
        return "pip install --upgrade bluesky-beamtime"
    return f"ls -l {shlex.quote(str(path.parent))}"
