"""``beamtime export``."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.cli.keeping import progress_bar
from bluesky_beamtime.cli.listing import find_run
from bluesky_beamtime.errors import (
    BeamtimeError,
    BeamtimeWarning,
    ExportError,
    RunNotFoundError,
)
from bluesky_beamtime.plugins import load_plugin

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.database import Run


def export_runs(
    file: Path,
    names: Sequence[str],
    *,
    to: str,
    out: str | None,
    overwrite: bool,
    options: Sequence[str] = (),
) -> bool:
    """Write runs, print the files, and say on standard error what was left out.

    Of several runs, one that the format cannot hold, or whose frames cannot be read,
    costs none of the others; returns whether all of them were written.

    Parameters
    ----------
    names
        As :func:`find_runs` has them.
    out
        A file or a folder; one that ends with a slash is made, and so is the folder of
        several runs.
    options
        ``key=value``, for the format.

    Raises
    ------
    ExportError
        Several runs for one file, an option that is not understood, a file that is
        there, or a disk that refuses; or the only run cannot be written.
    """
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.exports.format import is_of_the_run

    write: Any = load_plugin("bluesky_beamtime.exports", to, "export")
    # A format of somebody else may be any function.
    parse = getattr(write, "options", _plain_options)
    chosen = parse(options)
    good = True
    with Beamtime(file, mode="r") as beamtime, progress_bar() as show:
        runs = find_runs(beamtime, names)
        _check_names(runs)
        target = _place(out, len(runs))
        for run in runs:
            show(run.label, 0, 1)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", BeamtimeWarning)
                try:
                    paths = run.export(
                        target, to, overwrite=overwrite, progress=show, **chosen
                    )
                except BeamtimeError as error:
                    if len(runs) == 1 or not is_of_the_run(error):
                        raise
                    print(f"beamtime: {error}", file=sys.stderr)
                    good, paths = False, []
            for warning in told:
                print(f"beamtime: {warning.message}", file=sys.stderr)
            for path in paths:
                print(path)
    return good


def find_runs(beamtime: Beamtime, names: Sequence[str]) -> list[Run]:
    """Return the runs that a user means, each once.

    ``3-7`` are all of the scan numbers 3 to 7 that are there, also several of one
    number; ``last:5`` the five newest, oldest first; anything else is one run, as in
    ``beamtime show``.

    Raises
    ------
    RunNotFoundError
        There is none, or none in a range.
    """
    found: dict[str, Run] = {}
    for name in names:
        for run in _runs_of(beamtime, name):
            found.setdefault(run.uid, run)
    return list(found.values())


def _runs_of(beamtime: Beamtime, name: str) -> list[Run]:
    if last := re.fullmatch(r"last:(\d+)", name):
        runs = list(beamtime.search().limit(int(last[1])))[::-1]
    # The beginning of a uid has eight digits before its dash.
    elif between := re.fullmatch(r"(\d{1,7})-(\d{1,7})", name):
        runs = _numbered(beamtime, int(between[1]), int(between[2]))
    else:
        return [find_run(beamtime, name)]
    if not runs:
        raise RunNotFoundError(f"there is no run {name}; beamtime ls lists them")
    return runs


def _numbered(beamtime: Beamtime, first: int, last: int) -> list[Run]:
    # Those that are there are asked for: a range may be long and mostly empty. Several
    # sessions may have counted from 1, and all of their runs are meant.
    found = [
        (summary["scan_id"], summary["uid"])
        for summary in reversed(beamtime.summaries())
        if summary["scan_id"] is not None and first <= summary["scan_id"] <= last
    ]
    return [beamtime[uid] for _, uid in sorted(found, key=itemgetter(0))]


def _check_names(runs: Sequence[Run]) -> None:
    """Refuse runs that would have one name in a folder: one would replace the other."""
    taken: dict[tuple[Any, Any], Run] = {}
    for run in runs:
        name = (run.uid if run.scan_id is None else run.scan_id, run.plan_name)
        other = taken.setdefault(name, run)
        if other is not run:
            raise ExportError(
                f"two runs have the number {run.scan_id} and the plan "
                f"{run.plan_name!r}, {other.uid} and {run.uid}: export them one by "
                "one, each to a file of its own with --out"
            )


def _place(out: str | None, count: int) -> str | None:
    """Return where runs go, with a slash behind a folder that may have to be made."""
    if out is None:
        return None
    target = Path(out)
    named = out.endswith((os.sep, "/"))
    # A name like run.csv is meant for a file.
    file = target.suffix and not target.is_dir() and not named
    if count > 1 and (file or (target.exists() and not target.is_dir())):
        raise ExportError(
            f"{count} runs do not go into one file {out!r}: give --out a folder, "
            f"with a slash at its end if it is to be made",
            filename=out,
        )
    return os.path.join(out, "") if count > 1 else out


def _plain_options(texts: Sequence[str]) -> dict[str, str]:
    pairs = (text.partition("=") for text in texts)
    return {key: value for key, _, value in pairs}
