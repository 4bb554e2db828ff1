"""The command and its parts; what it imports here every ``--help`` waits for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import AsJson, File
from bluesky_beamtime.cli.index import index
from bluesky_beamtime.cli.profile import profile
from bluesky_beamtime.errors import BeamtimeError

INCOMPLETE = 3
"""Exit status of ``ls`` and ``show`` when a run is incomplete."""

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
    sample: Annotated[
        str | None, typer.Option("--sample", help="Only of the sample of this name.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Only of the plan of this name.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Only from then on: 2026-11-20, 2026-11-20T08:30"),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="Only until then, a day included.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Only where this stands in what is said of a run."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Only with this tag; repeatable.")
    ] = None,
    starred: Annotated[
        bool, typer.Option("--starred", help="Only those with a star.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", help="Only with this person: name, e-mail or ORCID."),
    ] = None,
    proposal: Annotated[
        str | None, typer.Option("--proposal", help="Only of this proposal.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option("--status", help="Only: success, abort, fail, interrupted."),
    ] = None,
) -> None:
    """List the runs of a beamtime, the newest first, all or those that you look for.

    The exit status is 3 when a listed run is incomplete: it was cut off, or some of its
    documents could not be stored.
    """
    from bluesky_beamtime.cli.listing import list_runs

    wanted = {
        "sample": sample,
        "plan_name": plan,
        "since": since,
        "until": until,
        "text": text,
        "tags": tag,
        "starred": starred or None,
        "user": user,
        "proposal": proposal,
        "exit_status": status,
    }
    complete = list_runs(file, json=json, limit=limit, wanted=wanted)
    raise typer.Exit(0 if complete else INCOMPLETE)


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


RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Scan number, -1 for the newest run, or part of a uid."
    ),
]
Remove = Annotated[bool, typer.Option("--remove", help="Take away instead.")]


@app.command(context_settings={"ignore_unknown_options": True})
def tag(
    file: File,
    run: RunName,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="The tags.")],
    remove: Remove = False,
) -> None:
    """Tag a run, so that it is found by its tags."""
    from bluesky_beamtime.cli.labels import tag_run

    tag_run(file, run, tags, remove=remove)


@app.command(context_settings={"ignore_unknown_options": True})
def star(file: File, run: RunName, remove: Remove = False) -> None:
    """Give a run a star, so that it is found among the good ones."""
    from bluesky_beamtime.cli.labels import star_run

    star_run(file, run, remove=remove)


@app.command()
def note(
    file: File,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="What to write down.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", "-r", metavar="RUN", help="The run that it is about."),
    ] = None,
    author: Annotated[
        str | None, typer.Option("--author", metavar="NAME", help="Who writes it.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write a note about a run or the beamtime; without TEXT, print the notes."""
    from bluesky_beamtime.cli.labels import write_note

    write_note(file, text, run=run, author=author, json=json)


@app.command()
def samples(
    file: File,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List the samples; of a single one, what it was before it was changed."""
    from bluesky_beamtime.cli.questions import list_samples

    list_samples(file, name, json=json)


@app.command()
def sql(
    file: File,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT.")],
    json: AsJson = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask the database in SQL; it can only be read.

    Begin with the views run_list and event_values.
    """
    from bluesky_beamtime.cli.questions import ask_in_sql

    ask_in_sql(file, query, json=json, csv=csv)


@app.command()
def serve(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…", help="The databases of beamtimes, or an index."
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option("--port", "-p", min=0, max=65535, help="Port; 0 for any free."),
    ] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="BEAMTIME_API_KEY",
            help="What clients must know; a new random key by default.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read, without a key.")
    ] = False,
    readable: Annotated[
        list[Path] | None,
        typer.Option(
            "--readable",
            metavar="DIR",
            help="Also serve files of detectors in this folder; may be repeated.",
        ),
    ] = None,
) -> None:
    """Serve beamtimes to browsers, Tiled and databroker; also while they grow.

    Only this machine can reach the server unless --host says otherwise, only with its
    key unless it is --public, and nothing can be changed.
    """
    from bluesky_beamtime.cli.serving import serve as serve_files

    serve_files(
        files,
        host=host,
        port=port,
        api_key=api_key,
        public=public,
        readable=readable or [],
    )


@app.command()
def push(
    file: File,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="A server of Tiled, its catalogue.")
    ],
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN…]", help="Which runs; all by default."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", envvar="TILED_API_KEY", help="Key of the server, to write."
        ),
    ] = None,
) -> None:
    """Replay runs into a server of Tiled, each exactly once.

    Can be repeated: what is there is left alone. Frames are not copied; the server has
    to see their folder.
    """
    from bluesky_beamtime.cli.serving import push as push_runs

    raise typer.Exit(
        0 if push_runs(file, url, runs=runs or [], api_key=api_key) else INCOMPLETE
    )


@app.command()
def verify(
    file: File,
    json: AsJson = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Leave out the checksums of frames."),
    ] = False,
) -> None:
    """Check the file, every row, every frame, and whether they agree.

    Changes nothing. The exit status is 1 when something is wrong.
    """
    from bluesky_beamtime.cli.keeping import verify_file

    raise typer.Exit(0 if verify_file(file, json=json, quick=quick) else 1)


@app.command()
def recover(file: File, json: AsJson = False) -> None:
    """Put what a crash or a full disk left behind to where it belongs.

    Documents go from the journal into the tables, runs that were cut off are called
    interrupted, and their frames are made readable. The exit status is 1 when something
    is left to be done.
    """
    from bluesky_beamtime.cli.keeping import recover_file

    raise typer.Exit(0 if recover_file(file, json=json) else 1)


@app.command()
def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The database of a beamtime."),
    ] = None,
    json: AsJson = False,
    runs: Annotated[
        int,
        typer.Option("--runs", "-n", min=0, help="Look at so many of the last runs."),
    ] = 20,
    speed: Annotated[
        bool,
        typer.Option("--speed", help="Measure the disk too, by writing to it."),
    ] = False,
) -> None:
    """Look for what troubles a beamtime, and say which command mends it.

    Disk, clock, space, packages; the file, its log and its journal; frames that were
    dropped, runs that were cut off, callbacks that were slow. Changes nothing. The exit
    status is 1 when something is in trouble; advice is no trouble.
    """
    from bluesky_beamtime.cli.doctor import doctor_file

    ok = doctor_file(file, runs=runs, speed=speed, json=json)
    raise typer.Exit(0 if ok else 1)


@app.command()
def migrate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Databases of beamtimes."),
    ],
    no_backup: Annotated[
        bool,
        typer.Option("--no-backup", help="Keep no copy of the file as it was."),
    ] = False,
) -> None:
    """Bring files of an older version up to date, to record into them again.

    All of a file or nothing; a copy as it was is kept beside it.
    """
    from bluesky_beamtime.cli.keeping import migrate_files

    raise typer.Exit(0 if migrate_files(files, backup=not no_backup) else 1)


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


@app.command("import")
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


@app.command()
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


@app.command(context_settings={"ignore_unknown_options": True})
def export(
    file: File,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Scan numbers, -1 for the newest run, or parts of uids.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="Such as nexus, hdf5 or csv."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="A file, or a folder for names like 214_scan.nxs; by default the "
            "current folder.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
) -> None:
    """Write runs for another program; prints the names of the files.

    A file appears when it is finished, or not at all.
    """
    from bluesky_beamtime.cli.exporting import export_runs

    export_runs(file, runs, to=to, out=out, overwrite=overwrite)


@app.command()
def pack(file: File) -> None:
    """Copy the numbers of long runs to columns, which are quick to read."""
    from bluesky_beamtime.cli.incoming import pack_runs

    pack_runs(file)


@app.command()
def replicate(
    file: File,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Such as postgresql://user@host/database."),
    ],
    frames: Annotated[
        str | None,
        typer.Option("--frames", help="Copy frames too, such as to s3://bucket."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, help="Give up after so many seconds."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Copy a beamtime to a PostgreSQL server; what is there already is not sent again.

    The exit status is 3 when something is still missing there.
    """
    from bluesky_beamtime.cli.replicating import replicate as copy

    ok = copy(file, url, frames=frames, follow=follow, timeout=timeout, json=json)
    raise typer.Exit(0 if ok else INCOMPLETE)


def main() -> None:
    """Run the command; an error is one line on standard error and exit status 1."""
    try:
        app()
    except (BeamtimeError, OSError) as error:
        if os.environ.get("BEAMTIME_DEBUG", "0") not in ("", "0"):
            raise
        print(f"beamtime: {error}", file=sys.stderr)
        sys.exit(1)
