"""``beamtime archive``, ``beamtime prove`` and ``beamtime restore``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from bluesky_beamtime.cli import tables
from bluesky_beamtime.cli.keeping import progress_bar
from bluesky_beamtime.errors import ArchiveError

if TYPE_CHECKING:
    from bluesky_beamtime.exports import ArchiveReport

_MOST_NAMES = 20


def archive_file(
    file: Path,
    url: str,
    *,
    json: bool,
    dry_run: bool,
    thorough: bool,
    assets: bool,
    leave_unreadable: bool,
    threads: int,
) -> bool:
    """Archive a beamtime and print what was done; returns whether nothing is absent.

    Raises
    ------
    ArchiveError
        Something is not in the archive, or it would be in memory.
    """
    from bluesky_beamtime.database import encode
    from bluesky_beamtime.exports import archive
    from bluesky_beamtime.storage.backends.registry import scheme_of

    if scheme_of(url) == "memory":
        raise ArchiveError(
            f"{url} ends with this command, and an archive does not; give a folder, "
            "best on another disk, or an object store such as s3://bucket"
        )
    with progress_bar() as show:
        report = archive(
            file,
            url,
            dry_run=dry_run,
            thorough=thorough,
            assets=assets,
            leave_unreadable=leave_unreadable,
            threads=threads,
            progress=show,
        )
    if json:
        print(encode(report.to_json()))
    else:
        _tell(report)
    lost = any(absent.reason != "remote" for absent in report.absent)
    return not (lost or report.unreadable)


def _tell(report: ArchiveReport) -> None:
    from bluesky_beamtime.database.sizes import human_size

    console = tables.console()
    if report.dry_run:
        size = human_size(report.sent_size)
        _say(console, f"would send {_files(report.sent)}, {size}; nothing was written")
    elif report.up_to_date:
        _say(console, "nothing to do")
    else:
        sent = f"{_files(report.sent)}, {human_size(report.sent_size)}"
        if report.sent:
            _say(console, f"sent and read back: {sent}, every hash is equal")
        if report.found:
            _say(console, f"there from before: {_files(report.found)}, read and equal")
    if report.unchanged:
        _say(console, f"unchanged since an earlier archive: {_files(report.unchanged)}")
    if report.kept:
        _say(console, f"not here any more, kept in the archive: {_files(report.kept)}")
    _list(console, "still being written, archive them again:", report.changing)
    _list(console, "not in the archive:", map(str, report.absent))
    _list(console, "left out:", report.unreadable.values())
    if report.live:
        _say(console, "it is being recorded into: archive again when that is over")
    if not report.dry_run:
        total = f"{_files(report.files)}, {human_size(report.size)}"
        _say(console, f"{report.url}: {total}", "green")


def prove_archive(url: str, *, json: bool, threads: int) -> bool:
    """Read an archive back and print what is wrong; returns whether nothing is.

    Raises
    ------
    ArchiveError
        There is none, or it cannot be read.
    """
    from bluesky_beamtime.database import encode
    from bluesky_beamtime.database.sizes import human_size
    from bluesky_beamtime.database.times import local_time
    from bluesky_beamtime.exports import prove

    with progress_bar() as show:
        proof = prove(url, threads=threads, progress=show)
    if json:
        print(encode(proof.to_json()))
        return proof.ok
    console = tables.console()
    when = local_time(proof.time, "%Y-%m-%d %H:%M")
    _say(console, f"{proof.url}: {proof.beamtime} of {when}, {proof.runs} runs")
    _list(console, "other content than the manifest says:", proof.differs, "red")
    _list(console, "missing:", proof.missing, "red")
    _list(console, "there, and cannot be read:", proof.unreadable, "red")
    _list(console, "never part of it:", proof.absent)
    if not proof.finished:
        _say(console, "not finished: archive the beamtime again", "red")
    good = f"{_files(proof.files)}, {human_size(proof.size)}, read back: equal"
    _say(console, good, "green" if proof.ok else "default")
    if proof.differs or proof.missing or proof.unreadable:
        _say(console, "archive the beamtime again with --thorough to mend it", "dim")
    return proof.ok


def restore_archive(
    url: str, folder: Path, *, json: bool, unfinished: bool, threads: int
) -> None:
    """Restore a beamtime and print where it is.

    Raises
    ------
    ArchiveError
        It cannot be restored.
    """
    from bluesky_beamtime.database import encode
    from bluesky_beamtime.database.sizes import human_size
    from bluesky_beamtime.exports import restore

    with progress_bar() as show:
        report = restore(
            url, folder, unfinished=unfinished, threads=threads, progress=show
        )
    if json:
        plain = {
            "path": str(report.path),
            "files": report.files,
            "size": report.size,
            "resumed": report.resumed,
            "absent": report.absent,
        }
        print(encode(plain))
        return
    console = tables.console()
    what = f"{_files(report.files)}, {human_size(report.size)}, every hash is equal"
    _say(console, what)
    _list(console, "never part of the archive:", report.absent)
    _say(console, str(report.path), "green")


def _files(number: int) -> str:
    return "one file" if number == 1 else f"{number} files"


def _say(console: Console, sentence: str, style: str = "default") -> None:
    console.print(Text(sentence, style=style), soft_wrap=True)


def _list(
    console: Console, what: str, names: Iterable[str], style: str = "yellow"
) -> None:
    lines = list(names)
    if not lines:
        return
    _say(console, what, style)
    for line in lines[:_MOST_NAMES]:
        _say(console, f"    {line}")
    if len(lines) > _MOST_NAMES:
        _say(console, f"    and {len(lines) - _MOST_NAMES} more; --json tells all")
