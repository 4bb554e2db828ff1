"""``beamtime tag``, ``star`` and ``note``: what people add to a run afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bluesky_beamtime.cli import tables
from bluesky_beamtime.cli.listing import find_run, print_json

if TYPE_CHECKING:
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.database import Note


def _open(file: Path) -> Beamtime:
    """Open a beamtime that is there: a mistyped name must not make a new one."""
    from bluesky_beamtime.beamtime import Beamtime

    with Beamtime(file, mode="r"):
        pass
    return Beamtime(file)


def tag_run(file: Path, name: str, tags: Sequence[str], *, remove: bool) -> None:
    """Tag a run, or take tags away; print what it has then."""
    with _open(file) as beamtime:
        run = find_run(beamtime, name)
        (run.untag if remove else run.tag)(*tags)
        print(f"{run.label}: {', '.join(run.tags) or 'no tags'}")


def star_run(file: Path, name: str, *, remove: bool) -> None:
    """Give a run a star, or take it away."""
    with _open(file) as beamtime:
        run = find_run(beamtime, name)
        (run.unstar if remove else run.star)()
        print(f"{run.label}: {'a star' if run.starred else 'no star'}")


def write_note(
    file: Path, text: str | None, *, run: str | None, author: str | None, json: bool
) -> None:
    """Write a note about a run or the beamtime; without a text print the notes."""
    from bluesky_beamtime.beamtime import Beamtime

    if text is None:
        with Beamtime(file, mode="r") as beamtime:
            notes = beamtime.notes if run is None else find_run(beamtime, run).notes
    else:
        with _open(file) as beamtime:
            about = beamtime if run is None else find_run(beamtime, run)
            notes = [about.note(text, author=author)]
    if json:
        print_json([asdict(note) for note in notes])
    else:
        print_notes(notes)


def print_notes(notes: Sequence[Note]) -> None:
    """Print notes as a table."""
    if not notes:
        print("no note yet")
        return
    rows = [(tables.moment(note.time), note.author, note.text) for note in notes]
    tables.console().print(tables.plain_table(("time", "author", "note"), rows))
