"""The commands that say more of a run: ``tag``, ``star``, ``note``."""

from __future__ import annotations

from typing import Annotated

import typer

from bluesky_beamtime.cli.arguments import AsJson, File, RunName

Remove = Annotated[bool, typer.Option("--remove", help="Take away instead.")]


def tag(
    file: File,
    run: RunName,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="The tags.")],
    remove: Remove = False,
) -> None:
    """Tag a run, so that it is found by its tags."""
    from bluesky_beamtime.cli.labels import tag_run

    tag_run(file, run, tags, remove=remove)


def star(file: File, run: RunName, remove: Remove = False) -> None:
    """Give a run a star, so that it is found among the good ones."""
    from bluesky_beamtime.cli.labels import star_run

    star_run(file, run, remove=remove)


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
