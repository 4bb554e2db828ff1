"""Exports onto a disk that fills, or a folder that refuses: one error, nothing left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.errors import BeamtimeWarning, ExportError
from bluesky_beamtime.testing import assert_documents_equal
from tests.exported import FORMATS, emit_long_run, seen_in, small_disk

SIZE = 8 << 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("source")
    with Beamtime(folder / "x.db") as beamtime:
        uid = emit_long_run(beamtime, folder / "frames", events=300, frames=40)
    with Beamtime(folder / "x.db", mode="r") as beamtime:
        yield beamtime[uid]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("small") / "disk", SIZE) as disk:
        yield disk


def used(folder: Path) -> int:
    """Return how many bytes of its disk a folder takes, in blocks."""
    files = folder.rglob("*") if folder.is_dir() else [folder]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return sum(4096 * -(-size // 4096) for size in sizes)


def leave_free(disk: Path, free: int) -> Path:
    ballast = disk / "somebody else's data"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)
    return ballast


@pytest.mark.filterwarnings("ignore::bluesky_beamtime.errors.BeamtimeWarning")
@pytest.mark.parametrize("to", FORMATS)
def test_full_disk_is_one_error_and_nothing_is_left(
    run: Run, disk: Path, tmp_path: Path, to: str
) -> None:
    """At the beginning, in the middle, and when all but the last bytes are written."""
    name = f"run.{FORMATS[to]}"
    (reference,) = run.export(tmp_path / name, to)
    documents = list(run.documents())
    size = used(reference)
    for share in (0.0, 0.5, 0.98):
        ballast = leave_free(disk, int(share * size) // 4096 * 4096)
        with pytest.raises(ExportError, match="No space left") as caught:
            run.export(disk / name, to)
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(disk) == [ballast.name]
    # What was there before stays when it cannot be replaced.
    ballast.unlink()
    run.export(disk / name, to)
    ballast = leave_free(disk, size // 2 // 4096 * 4096)
    before = seen_in(disk / name, to)
    with pytest.raises(ExportError, match="No space left"):
        run.export(disk / name, to, overwrite=True)
    assert seen_in(disk / name, to) == before == seen_in(reference, to)
    assert sorted(os.listdir(disk)) == sorted([ballast.name, name])
    # The run is as it was, and there is room again.
    ballast.unlink()
    (path,) = run.export(disk / name, to, overwrite=True)
    assert seen_in(path, to) == before
    assert_documents_equal(list(run.documents()), documents)
    for left in disk.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_full_disk_stops_tables_of_readings_too(run: Run, disk: Path, to: str) -> None:
    for free in (0, 8192):
        ballast = leave_free(disk, free)
        with pytest.raises(ExportError, match="No space left") as caught:
            run.export(disk / f"run.{to}", to, rows="readings")
        assert caught.value.errno == errno.ENOSPC
        assert os.listdir(disk) == [ballast.name]
    ballast.unlink()


@pytest.mark.filterwarnings("ignore::bluesky_beamtime.errors.BeamtimeWarning")
@pytest.mark.parametrize("to", FORMATS)
def test_folder_that_refuses_is_one_error(run: Run, tmp_path: Path, to: str) -> None:
    """A file is in the way of the folder, and there is no folder."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="Not a directory"):
        run.export(tmp_path / "file" / "run.x", to)
    with pytest.raises(ExportError, match="No such file"):
        run.export(tmp_path / "nowhere" / "run.x", to)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_read_only_folder_is_one_error(run: Run, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        read_only = ["mount", "-o", "remount,ro", str(disk)]
        subprocess.run(read_only, check=True)
        with pytest.raises(ExportError, match="Read-only file system"):
            run.export(disk / "run.nxs", "nexus")
        assert not os.listdir(disk)


def test_progress_that_raises_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """Ctrl-C included; the exception is the caller's own."""
    for to, ending in FORMATS.items():
        for error in (KeyboardInterrupt, RuntimeError("enough")):

            def stop(what: str, done: int, total: int, error: object = error) -> None:
                raise error  # pyright: ignore[reportGeneralTypeIssues]

            with pytest.raises((KeyboardInterrupt, RuntimeError)):
                run.export(tmp_path / f"run.{ending}", to, progress=stop)
            assert not os.listdir(tmp_path), to


def test_warning_is_all_that_tables_say_of_frames(run: Run, tmp_path: Path) -> None:
    with pytest.warns(BeamtimeWarning, match="no place for the frames of cam"):
        run.export(tmp_path / "run.csv", "csv")
