"""Scans whose folder is moved or removed while they fill: nothing is lost unseen."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import zarr

from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage import FolderLock, ScanStorage, scan_files
from bluesky_beamtime.storage.scan_names import SUFFIXES
from tests.unit.storage.test_scan import read

KINDS = ["zarr", "npz", "hdf5"]


def half_a_scan(storage: ScanStorage) -> None:
    storage.reserve((3,), dtype="u2")
    storage.update({(0,): 7})


@pytest.mark.parametrize("kind", KINDS)
def test_moved_folder_refuses_points_and_axes_until_it_is_back(
    kind: Any, tmp_path: Path
) -> None:
    """L-16, L-21: no other folder takes what belongs to the one that is filled."""
    storage = ScanStorage(tmp_path, format=kind)
    half_a_scan(storage)
    (tmp_path / "folder").rename(tmp_path / "tidied")
    for write in (
        lambda: storage.update({(1,): 8}),
        lambda: storage.set_axes([[5, 6, 7]]),
    ):
        with pytest.raises(StoreWriteError, match="moved, removed") as raised:
            write()
        assert raised.value.errno == errno.ENOENT
    assert not (tmp_path / "folder").exists()
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1
    assert not (tmp_path / "folder").exists()
    moved: Any = zarr.open_group(tmp_path / "tidied/data_0.partial/scan.zarr", mode="r")
    assert moved["mask"][:].tolist() == [True, False, False]
    (tmp_path / "tidied").rename(tmp_path / "folder")
    storage.retry()
    assert storage.wait(60) and storage.failed == []
    found = read(tmp_path / f"folder/data_0{SUFFIXES[kind]}")
    assert found["data"].tolist() == [7, 0, 0]
    assert found["mask"].tolist() == [True, False, False]


@pytest.mark.parametrize("kind", KINDS)
def test_retry_makes_no_scan_of_a_buffer_that_was_removed(
    kind: Any, tmp_path: Path
) -> None:
    """L-21: nor of the next one, which has its name."""
    storage = ScanStorage(tmp_path / "base", format=kind)
    half_a_scan(storage)
    shutil.rmtree(tmp_path / "base")
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1
    half_a_scan(storage)
    storage.retry()
    assert storage.wait(60) and len(storage.failed) == 1
    assert [p.name for p in (tmp_path / "base/folder").iterdir()] == ["data_0.partial"]
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1
    assert read(tmp_path / f"base/folder/data_0{SUFFIXES[kind]}")["data"][0] == 7


@pytest.mark.parametrize("kind", KINDS)
def test_folder_that_moves_while_it_is_saved_fails_the_save(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-21: what was read from it since would be fill values."""
    real = getattr(scan_files, f"_to_{kind}")

    def moving(*args: Any) -> None:
        real(*args)
        (tmp_path / "folder").rename(tmp_path / "tidied")
        shutil.copytree(tmp_path / "tidied", tmp_path / "folder")

    monkeypatch.setattr(scan_files, f"_to_{kind}", moving)
    storage = ScanStorage(tmp_path, format=kind)
    half_a_scan(storage)
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1
    assert not (tmp_path / f"folder/data_0{SUFFIXES[kind]}").exists()


def test_empty_reservation_that_was_moved_removes_no_other(tmp_path: Path) -> None:
    """L-15: the folder that has its name by now is of somebody else."""
    storage, other = ScanStorage(tmp_path), ScanStorage(tmp_path)
    storage.reserve((2,))
    (tmp_path / "folder").rename(tmp_path / "tidied")
    other.reserve((2,))
    storage.save()
    workshop = tmp_path / "folder/data_0.partial"
    assert not storage.reserved and FolderLock.is_held(workshop)
    other.update({(): [1, 2]})
    assert other.wait(60) and other.failed == []


def test_empty_reservation_on_a_disk_that_is_gone_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-15, L-22: nobody goes on seeing it."""
    storage = ScanStorage(tmp_path)
    told: list[bool] = []
    storage.savingStateChanged.connect(told.append)
    storage.reserve((2,))

    def stale(*_: Any) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(FolderLock, "in_place", stale)
    storage.save()
    assert not storage.saving and told == [True, False]
