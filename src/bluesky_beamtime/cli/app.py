"""The command and its parts; what it imports here every ``--help`` waits for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.errors import BeamtimeError

INCOMPLETE = 3
"""Exit status of ``ls`` and ``show`` when a run is incomplete."""

app = typer.Typer(
    name="beamtime",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The database of a beamtime.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from bluesky_beamtime._version import __version__

        typer.echo(f"bluesky-beamtime {__version__}")
        raise typer.Exit


@app.callback(help="Everything a beamline measures: recorded, listed, read back.")
def options(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar="BEAMTIME_DEBUG",
            help="Show the traceback of an error, for a report.",
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    """Take what stands before the name of a command."""
    if debug:
        # Also for processes that a command starts.
        os.environ["BEAMTIME_DEBUG"] = "1"


@app.command()
def ls(
    file: File,
    json: AsJson = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            help="So many runs at most, 0 for all; by default 25, all with --json.",
        ),
    ] = None,
) -> None:
    """List the runs of a beamtime, the newest first.

    The exit status is 3 when a listed run is incomplete: it was cut off, or some of its
    documents could not be stored.
    """
    from bluesky_beamtime.cli.listing import list_runs

    raise typer.Exit(0 if list_runs(file, json=json, limit=limit) else INCOMPLETE)


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    file: File,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Scan number, -1 for the newest run, -2 for the one before it, or the "
            "beginning of a uid.",
        ),
    ],
    json: AsJson = False,
) -> None:
    """Show one run: what it was, its streams, and what became of every frame.

    The exit status is 3 when the run is incomplete.
    """
    from bluesky_beamtime.cli.listing import show_run

    raise typer.Exit(0 if show_run(file, run, json=json) else INCOMPLETE)


@app.command()
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


def main() -> None:
    """Run the command; an error is one line on standard error and exit status 1."""
    try:
        app()
    except (BeamtimeError, OSError) as error:
        if os.environ.get("BEAMTIME_DEBUG", "0") not in ("", "0"):
            raise
        print(f"beamtime: {error}", file=sys.stderr)
        sys.exit(1)
