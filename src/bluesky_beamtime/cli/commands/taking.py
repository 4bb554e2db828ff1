"""The commands that bring runs in: ``demo``, ``import``, ``ingest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import INCOMPLETE, AsJson, File


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where the beamtime goes.")
    ] = Path("beamtime-demo"),
    epics: Annotated[
        bool,
        typer.Option(
            "--epics",
            help="Receive the cameras over PVAccess, from processes of their own.",
        ),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Take fewer points.")] = False,
) -> None:
    """Measure a powder with two cameras, and see what is recorded.

    A simulated beamline takes a step scan, a grid scan and a fly scan. In a folder that
    has a demonstration already, scan numbers go on.
    """
    from bluesky_beamtime.cli.demo import show_tour

    raise typer.Exit(0 if show_tour(folder, epics=epics, quick=quick) else INCOMPLETE)


def import_(
    file: File,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file or folder of JSON lines or msgpack, or the URL of a Tiled "
            "server.",
        ),
    ],
    json: AsJson = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be stored; change nothing."),
    ] = False,
) -> None:
    """Store documents from elsewhere; what is here already stays as it is.

    The exit status is 3 when some could not be stored: they are in the journal then.
    """
    from bluesky_beamtime.cli.incoming import import_source

    ok = import_source(file, source, json=json, dry_run=dry_run)
    raise typer.Exit(0 if ok else INCOMPLETE)


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="zmq://host:port of a bluesky proxy, or kafka://host:port/topic.",
        ),
    ],
    file: File,
    json: AsJson = False,
    idle: Annotated[
        float | None,
        typer.Option("--idle", min=0, help="Stop after so many seconds of silence."),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option("--runs", min=1, help="Stop when so many runs have ended."),
    ] = None,
) -> None:
    """Record what a RunEngine elsewhere publishes, and notice what was lost.

    Goes on until it is interrupted. The exit status is 3 when something was missing or
    malformed.
    """
    from bluesky_beamtime.cli.incoming import ingest_source

    ok = ingest_source(source, file, json=json, idle=idle, runs=runs)
    raise typer.Exit(0 if ok else INCOMPLETE)
