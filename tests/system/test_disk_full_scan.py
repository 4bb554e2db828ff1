"""A disk that fills while a scan is running (R4): one named error, and nothing lost."""

from __future__ import annotations

import errno
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.errors import DatabaseWriteError, StoreWriteError
from bluesky_beamtime.storage import verify_store

SIZE = 24 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted only by root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def frames_are_whole(beamtime: Beamtime, number: int) -> int:
    """Read every frame that is recorded of a run; return how many events it has."""
    data = beamtime[number].primary.read() if "primary" in beamtime[number] else {}
    for key in ("cam1", "cam2"):
        if key in data:
            totals = data[key].sum(("_".join((key, "y")), f"{key}_x")).values
            assert (totals > 0).all()
    return data.sizes["time"] if "cam1" in data else 0


@pytest.mark.parametrize("kind", ["step", "fly"])
def test_the_plan_stops_with_the_reason_and_goes_on_with_space(
    small_disk: Path, kind: str
) -> None:
    from bluesky import RunEngine
    from bluesky import plans as bp
    from ophyd_async.core import init_devices

    from bluesky_beamtime.devices import SimCamera
    from bluesky_beamtime.plans import fly_frames

    ballast = small_disk / "somebody else's data"
    ballast.write_bytes(bytes(8 << 20))
    path = small_disk / "full.db"
    RE = RunEngine()
    with Beamtime(path) as beamtime:
        # The pre-flight check would not let it come to this.
        beamtime.attach(RE, preflight=None)
        with init_devices():
            cam1 = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.002)
            cam2 = SimCamera(beamtime.frames, shape=(256, 256), exposure=0.002)

        def plan(points: int):
            if kind == "step":
                return bp.count([cam1, cam2], points)
            return fly_frames([cam1, cam2], points, exposure=0.002)

        RE(plan(5))
        assert frames_are_whole(beamtime, -1) == 5

        begun = time.monotonic()
        with warnings.catch_warnings(), pytest.raises(Exception) as caught:
            # The end of the run may itself not fit on the disk, which is a warning.
            warnings.simplefilter("ignore")
            RE(plan(100_000))
        assert time.monotonic() - begun < 60
        # Frames or documents, whichever the full disk refused first.
        named = (StoreWriteError, DatabaseWriteError)
        found = [e for e in causes(caught.value) if isinstance(e, named)]
        assert found, list(causes(caught.value))
        assert found[0].errno == errno.ENOSPC
        assert "free some space" in str(found[0])

        # Read while the disk is still full, by somebody else too.
        assert frames_are_whole(beamtime, 1) == 5
        before = frames_are_whole(beamtime, 2)
        with Beamtime(path, mode="r") as other:
            assert frames_are_whole(other, 1) == 5
            # The end of the run found room as well.
            assert other[2].exit_status == "fail"
            assert other[2].stop is not None
            assert other[2].complete

        ballast.unlink()
        RE(plan(5))
        assert frames_are_whole(beamtime, -1) == 5
        assert beamtime[-1].exit_status == "success"
        assert frames_are_whole(beamtime, 2) >= before
        recorded = beamtime[2].primary.read() if before else None
        if recorded is not None:
            assert np.isfinite(recorded["time"]).all()
    (day,) = [p for p in (small_disk / "full.zarr" / "frames").iterdir() if p.is_dir()]
    for store in day.iterdir():
        if store.is_dir():
            report = verify_store(store)
            assert report.ok, report.problems
