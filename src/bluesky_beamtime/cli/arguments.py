"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The database of a beamtime.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Scan number, -1 for the newest run, or part of a uid."
    ),
]
# What runs are looked for by.
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        "-n",
        min=0,
        help="So many runs at most, 0 for all; by default 25, all with --json.",
    ),
]
OfSample = Annotated[
    str | None, typer.Option("--sample", help="Only of the sample of this name.")
]
OfPlan = Annotated[
    str | None, typer.Option("--plan", help="Only of the plan of this name.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="Only from then on: 2026-11-20, 2026-11-20T08:30"),
]
Until = Annotated[
    str | None, typer.Option("--until", help="Only until then, a day included.")
]
WithText = Annotated[
    str | None,
    typer.Option("--text", help="Only where this stands in what is said of a run."),
]
WithTags = Annotated[
    list[str] | None, typer.Option("--tag", help="Only with this tag; repeatable.")
]

INCOMPLETE = 3
"""Exit status when something is incomplete: a run that was cut off, a copy."""
