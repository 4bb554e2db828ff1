"""Detectors of ophyd-async that write HDF5 files of their own, in a beamtime."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera

pytest.importorskip("h5py")


def blob_of(beamtime: Beamtime) -> Any:
    from ophyd_async.sim import SimBlobDetector

    with init_devices():
        blob = SimBlobDetector(beamtime.path_provider)
    return blob


def test_files_read_back_as_frames_do(RE: RunEngine, recorded: Any) -> None:
    """Beside a camera of ours, with the same words, in the same Dataset."""
    beamtime: Beamtime = recorded.beamtime
    blob = blob_of(beamtime)
    with init_devices():
        camera = SimCamera(beamtime.frames, shape=(8, 8), exposure=0.001)
    run = recorded(bp.count([blob, camera], 3))
    again = recorded(bp.count([blob], 2))

    data = run.primary.read()
    assert data.blob.dims == ("time", "blob_y", "blob_x")
    assert data.blob.sizes["time"] == data.camera.sizes["time"] == 3
    assert again.primary.read().blob.sizes["time"] == 2
    folder = beamtime.path.parent
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.h5"))
    assert [path.parts[0] for path in files] == ["x_files", "x_files"]
    assert [path.parts[2:] for path in files] == [
        ("count_00001", "blob.h5"),
        ("count_00002", "blob.h5"),
    ]
    assert beamtime.verify().ok
    assert run.summary()["frames"]["blob"]["written"] == 3


def test_files_move_with_the_folder(RE: RunEngine, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with Beamtime(here / "x.db") as beamtime:
        beamtime.attach(RE)
        RE(bp.count([blob_of(beamtime)], 2))
        before = np.asarray(beamtime[-1].primary.read().blob)
    shutil.move(here, there)
    with Beamtime(there / "x.db", mode="r") as beamtime:
        after = np.asarray(beamtime[-1].primary.read().blob)
        assert beamtime.verify().ok
        np.testing.assert_array_equal(after, before)
        assert before.any()
        next(there.rglob("blob.h5")).unlink()
        problems = beamtime.verify().problems
        assert {problem.kind for problem in problems} == {"frames"}
        assert all("blob" in f"{one.where} {one.what}" for one in problems)


def test_files_are_served(RE: RunEngine, tmp_path: Path) -> None:
    pytest.importorskip("tiled.server")
    with Beamtime(tmp_path / "x.db") as beamtime:
        beamtime.attach(RE)
        RE(bp.count([blob_of(beamtime)], 2))
        client = beamtime.tiled()
        frames = client[-1]["primary"]["blob"].read()
        client.context.close()
        expected = np.asarray(beamtime[-1].primary.read().blob)
    np.testing.assert_array_equal(np.squeeze(frames), expected)
