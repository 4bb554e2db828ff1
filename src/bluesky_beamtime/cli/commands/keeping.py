"""The commands that keep a beamtime well: ``verify``, ``recover`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import AsJson, File


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


def recover(file: File, json: AsJson = False) -> None:
    """Put what a crash or a full disk left behind to where it belongs.

    Documents go from the journal into the tables, runs that were cut off are called
    interrupted, and their frames are made readable. The exit status is 1 when something
    is left to be done.
    """
    from bluesky_beamtime.cli.keeping import recover_file

    raise typer.Exit(0 if recover_file(file, json=json) else 1)


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


def pack(file: File) -> None:
    """Copy the numbers of long runs to columns, which are quick to read."""
    from bluesky_beamtime.cli.incoming import pack_runs

    pack_runs(file)
