"""``beamtime import``, ``beamtime ingest`` and ``beamtime pack``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.cli import tables

if TYPE_CHECKING:
    from bluesky_beamtime.recording.importing import ImportReport, Progress
    from bluesky_beamtime.recording.ingesting import IngestedRun

_MOST_PROBLEMS = 20


def import_source(file: Path, source: str, *, json: bool, dry_run: bool) -> bool:
    """Import and print what became of it; returns whether everything was stored."""
    from bluesky_beamtime.beamtime import Beamtime

    if dry_run and not file.exists():
        report = _into_nothing(source)
    else:
        with Beamtime(file) as beamtime, _progress(shown=not json) as progress:
            report = beamtime.import_documents(
                source, dry_run=dry_run, progress=progress
            )
    if json:
        _print_json(vars(report))
    else:
        _tell(report, dry_run=dry_run)
    return report.ok


def _into_nothing(source: str) -> ImportReport:
    """Say what an import would do where no beamtime is yet."""
    import tempfile

    from bluesky_beamtime.beamtime import Beamtime

    with (
        tempfile.TemporaryDirectory(prefix="beamtime-") as folder,
        Beamtime(Path(folder, "dry-run.db")) as beamtime,
    ):
        return beamtime.import_documents(source, dry_run=True)


def _tell(report: ImportReport, *, dry_run: bool) -> None:
    console = tables.console()
    verb = "would be stored" if dry_run else "stored"
    known = len(report.runs) - len(report.new_runs)
    console.print(
        f"{report.documents} documents of {len(report.runs)} runs read: "
        f"{report.stored} {verb}, {len(report.new_runs)} runs are new, "
        f"{known} were here"
    )
    for problem in report.problems[:_MOST_PROBLEMS]:
        console.print(problem, style="red", markup=False)
    more = len(report.problems) - _MOST_PROBLEMS
    if more > 0:
        console.print(f"and {more} more", style="red")
    if report.problems and not dry_run:
        console.print("What was not stored is in the journal beside the file.")


@contextmanager
def _progress(*, shown: bool) -> Generator[Progress | None]:
    """Show a bar on a terminal."""
    from rich.progress import Progress as Bar

    console = tables.console()
    if not shown or not console.is_terminal:
        yield None
        return
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def ingest_source(
    url: str, file: Path, *, json: bool, idle: float | None, runs: int | None
) -> bool:
    """Record until it is interrupted; returns whether nothing was missing."""
    from bluesky_beamtime.beamtime import Beamtime

    console = tables.console()

    def tell(run: IngestedRun) -> None:
        if json:
            _print_json({"uid": run.uid, "gaps": list(run.gaps)})
        elif run.gaps:
            for gap in run.gaps:
                console.print(f"run {run.uid}: {gap}", style="red", markup=False)
        else:
            console.print(f"run {run.uid}: complete", markup=False)

    stopping = threading.Event()
    with Beamtime(file) as beamtime, _until_signalled(stopping):
        ingest = beamtime.ingest(url, on_run=tell)
        if not json:
            console.print(f"recording {url} into {file}; Ctrl-C stops", markup=False)
        try:
            report = ingest.run(until=stopping.is_set, idle=idle, runs=runs)
        finally:
            ingest.close()
    for problem in report.problems:
        if not json:
            console.print(problem, style="red", markup=False)
    return report.ok


@contextmanager
def _until_signalled(stopping: threading.Event) -> Generator[None]:
    """Turn Ctrl-C and the request to end into a wish, so that nothing is cut off."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.getsignal(each) for each in signals}

    def stop(number: int, frame: Any) -> None:
        stopping.set()

    for each in signals:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def pack_runs(file: Path) -> None:
    """Pack the long runs of a beamtime and print how many streams that were."""
    from bluesky_beamtime.beamtime import Beamtime

    if not file.exists():
        raise FileNotFoundError(f"{str(file)!r} does not exist")
    with Beamtime(file) as beamtime:
        count = beamtime.pack()
    tables.console().print(f"{count} streams packed")


def _print_json(value: Any) -> None:
    from bluesky_beamtime.database import encode

    print(encode(value), flush=True)
