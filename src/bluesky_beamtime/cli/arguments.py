"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The database of a beamtime.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
