"""``beamtime demo``: the tour, told in a terminal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from rich.text import Text

from bluesky_beamtime.cli import tables


def show_tour(folder: Path, *, epics: bool, quick: bool) -> bool:
    """Take the tour and print what it recorded; returns whether all is complete."""
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.demo import take_tour

    console = tables.console()
    how = "stream over PVAccess on loopback" if epics else "are simulated here"
    console.print(f"LaB6 powder, two motors, a diode; two cameras {how}.\n")
    tour = take_tour(folder, console, epics=epics, quick=quick)

    with Beamtime(tour.path, mode="r") as beamtime:
        summaries = [beamtime[uid].summary() for uid in tour.uids]
    console.print()
    console.print(tables.runs_table(summaries))
    console.print("\nWhat became of every frame of both cameras:")
    console.print(tables.account_lines(summaries))
    if tour.picture is not None:
        console.print(f"\nThe rings and the scans: {tour.picture}", soft_wrap=True)
    else:
        console.print(f"\nNo picture: {tour.no_picture}", soft_wrap=True)
    console.print("\nWhat to type next:", style="bold")
    for command in next_commands(tour.path):
        console.print(Text(f"  {command}"), soft_wrap=True)
    return all(summary["complete"] for summary in summaries)


def next_commands(path: Path) -> list[str]:
    """Return commands that can be pasted into the shell this was started from."""
    python = _as_typed(sys.executable, "python")
    if Path(sys.argv[0]).name == "__main__.py":
        beamtime = f"{python} -m bluesky_beamtime"
    else:
        beamtime = _as_typed(sys.argv[0], "beamtime")
    file = shlex.quote(str(path))
    script = (
        "from bluesky_beamtime import Beamtime; "
        f'print(Beamtime({json.dumps(str(path))}, mode="r")[-1].primary.read())'
    )
    return [
        f"{beamtime} ls {file}",
        f"{beamtime} show {file} -1",
        f"{python} -c {shlex.quote(script)}",
    ]


def _as_typed(program: str, name: str) -> str:
    """Return the short name if the shell finds the same program by it."""
    found = shutil.which(name)
    if found is not None and os.path.realpath(found) == os.path.realpath(program):
        return name
    relative = os.path.relpath(program)
    return shlex.quote(program if relative.startswith("..") else relative)
