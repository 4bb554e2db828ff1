"""A disk that fills with events alone (R4): named at once, nothing accepted is lost."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import DatabaseWriteError
from bluesky_beamtime.testing import assert_documents_equal

KEY = {"source": "s", "dtype": "number", "shape": []}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted only by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk but for some bytes."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - leave)
    return ballast


class Recording:
    """Records events until the disk refuses, and knows which were accepted."""

    def __init__(self, beamtime: Beamtime, kind: str) -> None:
        self.beamtime, self.kind = beamtime, kind
        self.bundle = compose_run(metadata={"scan_id": beamtime.next_scan_id()})
        self.stream = self.bundle.compose_descriptor(
            name="primary", data_keys={"x": KEY, "more": KEY}
        )
        self.accepted: list[tuple[str, Any]] = []
        self("start", self.bundle.start_doc)
        self("descriptor", self.stream.descriptor_doc)

    def __call__(self, name: str, doc: Any) -> None:
        self.beamtime(name, doc)
        self.accepted.append((name, doc))

    def event(self, number: int) -> None:
        more = np.full((64, 64), number) if self.kind == "arrays" else "y" * 5000
        event = self.stream.compose_event(
            data={"x": number, "more": more}, timestamps={"x": 0.0, "more": 0.0}
        )
        self("event", event)

    @property
    def uid(self) -> str:
        return self.bundle.start_doc["uid"]


@pytest.mark.parametrize("kind", ["scalars", "arrays"])
@pytest.mark.parametrize("leave", [0, 5_000, 300_000, 2_000_000])
def test_a_full_disk_is_named_and_the_same_file_goes_on(
    small_disk: Path, kind: str, leave: int
) -> None:
    path = small_disk / "x.db"
    with Beamtime(path) as beamtime:
        recording = Recording(beamtime, kind)
        for number in range(5):
            recording.event(number)
        ballast = fill(small_disk, leave)
        with pytest.raises(DatabaseWriteError, match="free some space") as caught:
            for number in range(5, 2000):
                recording.event(number)
        assert caught.value.errno == errno.ENOSPC
        # What ends the run still finds room; the plan was told by the error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stop = recording.bundle.compose_stop(exit_status="fail", reason="full")
            recording("stop", stop)
        run = beamtime[recording.uid]
        found = list(run.documents())
        accepted = recording.accepted
        # The document that met the full disk was kept too, in the space for it.
        extra = len(found) - len(accepted)
        assert extra in (0, 1)
        del found[len(accepted) - 1 : len(accepted) - 1 + extra]
        assert_documents_equal(found, accepted)
        assert run.exit_status == "fail"

        ballast.unlink()
        again = Recording(beamtime, kind)
        for number in range(20):
            again.event(number)
        again("stop", again.bundle.compose_stop())
        assert_documents_equal(beamtime[again.uid].documents(), again.accepted)
        assert beamtime[again.uid].complete
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
