"""The command that copies a beamtime into one folder: ``take-home``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import File

_INCOMPLETE = 3


def take_home(
    file: File,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The folder to make, which is not there."),
    ],
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Scan numbers, -1 for the newest run, or parts of uids; all by "
            "default.",
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            "-e",
            metavar="FORMAT",
            help="Also as nexus, csv and so on; may be repeated.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier copy in DIR.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if anything is missing or damaged."),
    ] = False,
) -> None:
    """Copy a beamtime into one folder that opens without this package.

    With pages for a browser, exports, a README and the hash of every file. The folder
    appears when it is finished, or not at all; others may go on recording. The exit
    status is 3 when something is missing or damaged.
    """
    from bluesky_beamtime.cli.taking_home import take_file_home

    whole = take_file_home(
        file,
        directory,
        runs or [],
        exports=export or [],
        overwrite=overwrite,
        strict=strict,
    )
    raise typer.Exit(0 if whole else _INCOMPLETE)
