"""``beamtime ls`` and ``beamtime show``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.cli import tables
from bluesky_beamtime.errors import QueryError

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.database import Run

TABLE_LIMIT = 25


def list_runs(
    file: Path, *, json: bool, limit: int | None, wanted: Mapping[str, Any]
) -> bool:
    """Print the newest runs; returns whether all of them are complete.

    Parameters
    ----------
    wanted
        What to search for; None for what does not matter.
    """
    from bluesky_beamtime.beamtime import Beamtime

    with Beamtime(file, mode="r") as beamtime:
        return print_runs(beamtime, json=json, limit=limit, wanted=wanted)


def print_runs(
    beamtime: Beamtime, *, json: bool, limit: int | None, wanted: Mapping[str, Any]
) -> bool:
    """Print the newest runs of an open beamtime, as :func:`list_runs` does."""
    if limit is None:
        limit = 0 if json else TABLE_LIMIT
    try:
        runs = beamtime.search(**wanted)
    except ValueError as error:
        raise QueryError(str(error)) from error
    page = runs.limit(limit) if limit else runs
    summaries = list(page.summaries())
    more = len(runs) - len(summaries)
    nothing = "no such run" if len(beamtime) else "no run yet"
    if json:
        print_json(summaries)
    else:
        console = tables.console()
        console.print(tables.runs_table(summaries) if summaries else nothing)
        if more:
            console.print(f"and {more} older; --limit 0 lists all", style="dim")
    return all(summary["complete"] for summary in summaries)


def show_run(file: Path, name: str, *, json: bool) -> bool:
    """Print one run; returns whether it is complete."""
    from bluesky_beamtime.beamtime import Beamtime

    with Beamtime(file, mode="r") as beamtime:
        run = find_run(beamtime, name)
        summary = run.summary()
        if json:
            streams = {
                stream.name: {
                    "num_events": stream.num_events,
                    "data_keys": stream.data_keys,
                    "configuration": stream.configuration,
                }
                for stream in run.streams.values()
            }
            extra = {"start": run.start, "stop": run.stop, "streams": streams}
            print_json(summary | extra)
        else:
            console = tables.console()
            for part in tables.run_report(run, summary):
                console.print(part)
    return bool(summary["complete"])


def find_run(beamtime: Beamtime, name: str) -> Run:
    """Return the run that a user means by a scan number, an index or a uid.

    Raises
    ------
    RunNotFoundError
        There is none.
    """
    from bluesky_beamtime.errors import RunNotFoundError

    try:
        number = int(name)
    except ValueError:
        return beamtime[name]
    try:
        return beamtime[number]
    except RunNotFoundError:
        # Some uids begin with digits only.
        try:
            return beamtime[name]
        except RunNotFoundError:
            pass
        raise


def print_json(value: Any) -> None:
    """Print a value as JSON that is valid, whatever it is."""
    from bluesky_beamtime.database import encode

    print(encode(value))
