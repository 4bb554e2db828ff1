"""The command that writes runs for other programs: ``export``."""

from __future__ import annotations

from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import File


def export(
    file: File,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Scan numbers, -1 for the newest run, or parts of uids; 3-7 for a "
            "range of scan numbers, last:5 for the newest.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="Such as nexus, hdf5 or csv."),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="A file, or a folder for names like 214_scan.nxs; by default the "
            "current folder. One that ends with a slash is made.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="What the format understands, such as frames=external of nexus or "
            "rows=readings of csv; again for another one.",
        ),
    ] = None,
) -> None:
    """Write runs for another program; prints the names of the files.

    A file appears when it is finished, or not at all. Of several runs, one that the
    format cannot hold is told, and the others are written; the exit status is 1 then.
    """
    from bluesky_beamtime.cli.exporting import export_runs

    good = export_runs(
        file, runs, to=to, out=out, overwrite=overwrite, options=options or ()
    )
    raise typer.Exit(0 if good else 1)
