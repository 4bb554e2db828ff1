"""``kill -9`` while a beamtime is archived and restored, and a disk that fills.

Whenever the process ends, the database at the far end is one whose frames are all
there, and a folder that is restored is there whole or not at all.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import ArchiveError
from bluesky_beamtime.exports import archive, prove, restore
from bluesky_beamtime.storage.remote_array import Retry
from tests.exported import emit_long_run, small_disk

KILLS = int(os.environ.get("BEAMTIME_ARCHIVE_KILLS", "3"))
FILES = 400


def measure(path: Path, name: str) -> None:
    store = path.parent / "x.zarr" / name
    with Beamtime(path, sample="LaB6") as beamtime:
        emit_long_run(beamtime, store, events=20, frames=20)


@pytest.fixture
def beamtime(tmp_path: Path) -> Path:
    """Give a beamtime of many files, so that there is time to kill."""
    path = tmp_path / "home" / "x.db"
    path.parent.mkdir()
    measure(path, "run_0")
    files = path.parent / "x_files"
    files.mkdir()
    for number in range(FILES):
        (files / f"{number:04d}.tiff").write_bytes(os.urandom(20_000))
    return path


def command(*words: Any) -> list[str]:
    return [sys.executable, "-m", "bluesky_beamtime", *map(str, words)]


def count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def kill_when(condition: Callable[[], bool], *words: Any) -> bool:
    """Start a command and kill it as soon as something is so; say whether it was."""
    with subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 100
        while process.poll() is None and not condition():
            assert time.monotonic() < deadline, "nothing was written"
            time.sleep(0.0005)
        process.kill()
    return process.returncode == -9


def assert_consistent(place: Path) -> None:
    """Check that whatever database is there finds all frames that it promises."""
    if (place / "x.db").exists():
        with Beamtime(place / "x.db", mode="r") as there:
            found = {problem.kind for problem in there.verify().problems}
            # Frames of a run whose database has not arrived yet.
            assert found <= {"orphan"}, found


def test_an_archive_that_is_killed_goes_on(beamtime: Path, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    killed = 0
    for number in range(KILLS):
        before = count(place)
        # Later rounds only have what is new to send, besides what the kill cut off.
        after = before + random.randrange(3, FILES // KILLS)
        killed += kill_when(
            lambda after=after: count(place) > after, "archive", beamtime, place
        )
        assert_consistent(place)
        if (place / "MANIFEST.sha256").exists():
            assert prove(place).ok
        measure(beamtime, f"run_{number + 1}")
    assert killed >= max(1, KILLS // 2)
    report = archive(beamtime, place)
    assert report.found + report.unchanged > 0
    proof = prove(place)
    assert proof.ok
    assert proof.runs == KILLS + 1
    # Nothing is left of the files that were being written: with list and manifest.
    assert count(place) == proof.files + 2


def test_a_restore_that_is_killed_goes_on(beamtime: Path, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    total = archive(beamtime, place).files
    back = tmp_path / "back"
    partial = tmp_path / ".back.restoring"
    killed = 0
    for number in range(KILLS):
        after = (number + 1) * total // (KILLS + 2)
        killed += kill_when(
            lambda after=after: count(partial) > after, "restore", place, back
        )
        if back.exists():
            break
    assert killed
    if not back.exists():
        assert restore(place, back).resumed > 0
    assert not partial.exists()
    assert count(back) == total
    with (
        Beamtime(back / "x.db", mode="r") as there,
        Beamtime(beamtime, mode="r") as here,
    ):
        assert there.verify().ok
        np.testing.assert_array_equal(
            there[-1].primary.read()["cam"], here[-1].primary.read()["cam"]
        )


def test_a_disk_that_fills_is_named_and_the_archive_goes_on(
    beamtime: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 6 << 20) as disk:
        place = disk / "archive"
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(3 << 20))
        once = Retry(attempts=1)
        with pytest.raises(ArchiveError, match="No space left") as caught:
            archive(beamtime, place, retry=once)
        assert caught.value.errno == 28
        assert not (place / "MANIFEST.sha256").exists()
        assert_consistent(place)
        ballast.unlink()
        (beamtime.parent / "x_files" / "0000.tiff").unlink(missing_ok=True)
        for number in range(FILES * 3 // 4):
            # The disk is too small for all of them.
            (beamtime.parent / "x_files" / f"{number:04d}.tiff").unlink(missing_ok=True)
        shutil.rmtree(place)
        archive(beamtime, place)
        assert prove(place).ok
        # There is no room for it a second time.
        (disk / "more").write_bytes(bytes(1 << 20))
        with pytest.raises(ArchiveError, match="No space left"):
            restore(place, disk / "back")
        assert not (disk / "back").exists()
        (disk / "more").unlink()
