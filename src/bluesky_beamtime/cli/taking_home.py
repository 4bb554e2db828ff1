"""``beamtime take-home``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from bluesky_beamtime.cli import tables
from bluesky_beamtime.cli.keeping import progress_bar
from bluesky_beamtime.cli.listing import find_run

_MOST_SENTENCES = 50


def take_file_home(
    file: Path,
    directory: Path,
    names: Sequence[str],
    *,
    exports: Sequence[str],
    overwrite: bool,
    strict: bool,
) -> bool:
    """Make the folder and say what is in it; returns whether nothing is missing."""
    from bluesky_beamtime.beamtime import Beamtime
    from bluesky_beamtime.database.sizes import human_size

    with Beamtime(file, mode="r") as beamtime, progress_bar() as show:
        taken = beamtime.take_home(
            directory,
            runs=[find_run(beamtime, name) for name in names] if names else None,
            exports=exports,
            overwrite=overwrite,
            strict=strict,
            progress=show,
        )
    console = tables.console()
    runs = f"{taken.runs} run{'' if taken.runs == 1 else 's'}"
    console.print(
        Text(f"{runs}, {taken.files} files, {human_size(taken.size)}"), soft_wrap=True
    )
    going = len(taken.recording)
    if going:
        which = "one run goes" if going == 1 else f"{going} runs go"
        console.print(f"{which} on, and is here as far as it had got", soft_wrap=True)
    for sentences, style in ((taken.problems, "red"), (taken.unfit, "dim")):
        for sentence in sentences[:_MOST_SENTENCES]:
            console.print(Text(sentence, style=style), soft_wrap=True)
        more = len(sentences) - _MOST_SENTENCES
        if more > 0:
            console.print(f"and {more} more; README.txt names all", style=style)
    console.print(Text(f"open {taken.path / 'index.html'}"), soft_wrap=True)
    return not taken.problems
