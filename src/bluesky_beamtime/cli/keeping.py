"""``beamtime verify``, ``beamtime recover`` and ``beamtime migrate``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from bluesky_beamtime.cli import tables

if TYPE_CHECKING:
    from bluesky_beamtime.recording import RecoveryReport

_MOST_PROBLEMS = 50


@contextmanager
def progress_bar() -> Generator[Callable[[str, int, int], None]]:
    """Show a bar on standard error, where that is a terminal."""
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
        # What is printed meanwhile stands above the bar; a pipe must still get it.
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task("")

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def verify_file(file: Path, *, json: bool, quick: bool) -> bool:
    """Check a beamtime and print what is wrong; returns whether nothing is."""
    from bluesky_beamtime.database import Database, encode, verify

    with progress_bar() as show, closing(Database(file, mode="r")) as database:
        report = verify(database, quick=quick, progress=show)
    if json:
        print(encode(report.to_json()))
        return report.ok
    console = tables.console()
    for problem in report.problems[:_MOST_PROBLEMS]:
        line = Text(problem.kind, style="bold red")
        line.append(f"  {problem.where}: {problem.what}", style="default")
        console.print(line, soft_wrap=True)
        console.print(Text(f"    {problem.next_step}", style="dim"), soft_wrap=True)
    more = len(report.problems) - _MOST_PROBLEMS
    if more > 0:
        console.print(f"and {more} more; --json tells all")
    looked = ", ".join(f"{number} {what}" for what, number in report.checked.items())
    console.print(Text(f"checked: {looked or 'nothing'}", style="dim"))
    if report.ok:
        left_out = " (without checksums)" if quick else ""
        console.print(Text(f"all is well{left_out}", style="green"))
    return report.ok


def recover_file(file: Path, *, json: bool) -> bool:
    """Recover a beamtime and print what was done; returns whether nothing is left."""
    from bluesky_beamtime.database import Database, encode
    from bluesky_beamtime.database.opening import check_path
    from bluesky_beamtime.recording import recover

    # A new file would be made otherwise.
    check_path(file, create=False)
    with progress_bar() as show, closing(Database(file)) as database:
        report = recover(database, show)
    if json:
        print(encode(_plain(report)))
    else:
        _tell(report)
    return report.ok


def _plain(report: RecoveryReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "interrupted": [str(run) for run in report.interrupted],
        "stored": report.stored,
        "runs": report.runs,
        "kept": report.kept,
        "waiting": report.waiting,
        "repaired": report.repaired,
        "problems": report.problems,
    }


def _tell(report: RecoveryReport) -> None:
    console = tables.console()
    for sentence in (*map(str, report.interrupted), *report.repaired):
        console.print(Text(sentence), soft_wrap=True)
    if report.stored:
        number = len(report.runs)
        runs = "one run" if number == 1 else f"{number} runs"
        console.print(f"{report.stored} documents of {runs} stored from the journal")
    for reason, number in report.kept.items():
        line = Text(f"{number} stay in the journal: {reason}", style="red")
        console.print(line, soft_wrap=True)
    if report.waiting:
        console.print(
            f"{report.waiting} belong to runs that are being recorded; do it again "
            "when those are over",
            style="red",
        )
    for sentence in report.problems:
        console.print(Text(sentence, style="red"), soft_wrap=True)
    if report.ok:
        console.print("nothing is left to be done", style="green")


def migrate_files(files: Sequence[Path], *, backup: bool) -> bool:
    """Migrate files one after the other; returns whether all of them are up to date."""
    from bluesky_beamtime.database import migrate
    from bluesky_beamtime.errors import BeamtimeError

    console = tables.console()
    good = True
    for file in files:
        try:
            done = migrate(file, backup=backup)
        except BeamtimeError as error:
            print(f"beamtime: {error}", file=sys.stderr)
            good = False
        else:
            console.print(Text(str(done)), soft_wrap=True)
    return good
