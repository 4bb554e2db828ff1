"""All the looks, one after the other."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.doctor import file, last_runs, machine
from bluesky_beamtime.doctor.finding import Finding, Report
from bluesky_beamtime.errors import (
    BeamtimeError,
    NewerVersionError,
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
    with closing(database), Beamtime(path, mode="r") as beamtime:
        runs: list[Run] = []

        def look_back() -> Iterator[Finding]:
            runs.extend(beamtime.search().limit(number))
            yield from last_runs.check_endings(path, runs)

        looks: dict[str, Callable[[], Iterable[Finding]]] = {
            "file": lambda: file.check_version(database),
            "log": lambda: file.check_log(database),
            "journal": lambda: file.check_journal(database),
            "writers": lambda: file.check_writers(path),
            "subscribers": lambda: file.check_subscribers(database),
            "endings": look_back,
            "frames": lambda: last_runs.check_frames(path, runs),
            "clock": lambda: last_runs.check_stamps(runs),
        }
        for check, look in looks.items():
            try:
                found += look()
            except (BeamtimeError, OSError) as error:
                # The others may see something still.
                command = f"beamtime verify {shlex.quote(str(path))}"
                found.append(Finding(check, "trouble", str(error), command))
        return last_runs.biggest_run(runs)


def _mend(path: Path, error: BeamtimeError) -> str:
    if isinstance(error, NewerVersionError):
        return "pip install --upgrade bluesky-beamtime"
    return f"ls -l {shlex.quote(str(path.parent))}"
