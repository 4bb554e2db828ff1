"""The command and its parts; what it imports here every ``--help`` waits for."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from bluesky_beamtime.cli.commands.archiving import archive, prove, restore
from bluesky_beamtime.cli.commands.exporting import export
from bluesky_beamtime.cli.commands.keeping import doctor, migrate, pack, recover, verify
from bluesky_beamtime.cli.commands.labelling import note, star, tag
from bluesky_beamtime.cli.commands.looking import ls, samples, show, sql
from bluesky_beamtime.cli.commands.serving import push, replicate, serve
from bluesky_beamtime.cli.commands.taking import demo, import_, ingest
from bluesky_beamtime.cli.commands.taking_home import take_home
from bluesky_beamtime.cli.index import index
from bluesky_beamtime.cli.profile import profile
from bluesky_beamtime.errors import BeamtimeError

app = typer.Typer(
    name="beamtime",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(index)
app.add_typer(profile)


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


# RUN may be -1, which is no option.
_NEGATIVE = {"ignore_unknown_options": True}

app.command()(ls)
app.command(context_settings=_NEGATIVE)(show)
app.command(context_settings=_NEGATIVE)(tag)
app.command(context_settings=_NEGATIVE)(star)
app.command()(note)
app.command()(samples)
app.command()(sql)
app.command()(serve)
app.command()(push)
app.command()(verify)
app.command()(recover)
app.command()(doctor)
app.command()(migrate)
app.command()(demo)
app.command("import")(import_)
app.command()(ingest)
app.command(context_settings=_NEGATIVE)(export)
app.command("take-home", context_settings=_NEGATIVE)(take_home)
app.command()(archive)
app.command()(prove)
app.command()(restore)
app.command()(pack)
app.command()(replicate)


def main() -> None:
    """Run the command; an error is one line on standard error and exit status 1."""
    try:
        app()
    except (BeamtimeError, OSError) as error:
        if os.environ.get("BEAMTIME_DEBUG", "0") not in ("", "0"):
            raise
        print(f"beamtime: {error}", file=sys.stderr)
        sys.exit(1)
