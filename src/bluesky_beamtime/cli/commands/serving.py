"""The commands that bring runs to servers: ``serve``, ``push``, ``replicate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import INCOMPLETE, AsJson, File


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
