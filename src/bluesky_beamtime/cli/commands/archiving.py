"""The commands that keep a beamtime elsewhere: ``archive``, ``prove``, ``restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import INCOMPLETE, AsJson, File

ArchiveUrl = Annotated[
    str,
    typer.Argument(metavar="URL", help="A folder, s3://bucket/name, gs:// or az://."),
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, max=64, help="Files that travel at once.")
]


def archive(
    file: File,
    url: ArchiveUrl,
    json: AsJson = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; write nothing.")
    ] = False,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Compare also what has not changed, by hash."),
    ] = False,
    inside_only: Annotated[
        bool,
        typer.Option(
            "--inside-only",
            help="Leave out files outside of the folder that documents refer to.",
        ),
    ] = False,
    leave_unreadable: Annotated[
        bool,
        typer.Option(
            "--leave-unreadable",
            help="Go on without files that cannot be read, and name them.",
        ),
    ] = False,
    threads: Threads = 4,
) -> None:
    """Copy a beamtime to a folder or an object store, and prove that it has arrived.

    Can be repeated: only what is new is sent. Also while it is recorded into. The exit
    status is 1 when something differs or is not there, 3 when documents refer to files
    that could not be found, or files were left out as they cannot be read.
    """
    from bluesky_beamtime.cli.archiving import archive_file

    complete = archive_file(
        file,
        url,
        json=json,
        dry_run=dry_run,
        thorough=thorough,
        assets=not inside_only,
        leave_unreadable=leave_unreadable,
        threads=threads,
    )
    raise typer.Exit(0 if complete else INCOMPLETE)


def prove(url: ArchiveUrl, json: AsJson = False, threads: Threads = 4) -> None:
    """Read an archive back and compare every file with its manifest.

    Changes nothing and does not need the beamtime. The exit status is 1 when something
    differs, is missing, cannot be read, or the archive is not finished.
    """
    from bluesky_beamtime.cli.archiving import prove_archive

    raise typer.Exit(0 if prove_archive(url, json=json, threads=threads) else 1)


def restore(
    url: ArchiveUrl,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that is new, or empty.")
    ],
    json: AsJson = False,
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Also from an archive that was interrupted."),
    ] = False,
    threads: Threads = 4,
) -> None:
    """Bring a beamtime back from an archive into a folder of its own.

    Every file is compared with the manifest. The folder appears when everything is
    there, or not at all; after an interruption, do it again.
    """
    from bluesky_beamtime.cli.archiving import restore_archive

    restore_archive(url, folder, json=json, unfinished=unfinished, threads=threads)
