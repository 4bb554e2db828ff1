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

INCOMPLETE = 3
"""Exit status when something is incomplete: a run that was cut off, a copy."""
