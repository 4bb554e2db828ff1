"""An export never costs the beamtime anything, under whatever name it is sent there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Database, verify
from bluesky_beamtime.errors import ExportError
from bluesky_beamtime.exports.own_places import OwnPlaces
from bluesky_beamtime.storage import HDF5Writer, ZarrWriter

from .conftest import emit_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a beamtime with frames in its store, in its files and elsewhere."""
    path = tmp_path / "beamline" / "x.db"
    path.parent.mkdir()
    with Beamtime(path) as beamtime:
        emit_run(beamtime, path.parent / "x.zarr" / "frames", (ZarrWriter,))
        writers = (ZarrWriter, HDF5Writer)
        emit_run(beamtime, path.parent / "x_files", writers)
        emit_run(beamtime, tmp_path / "elsewhere", writers)
        emit_run(beamtime, path.parent / "beside", writers)
    (path.parent / "deep").symlink_to(tmp_path / "beamline")
    (path.parent / "link.zarr").symlink_to("x.zarr")
    (path.parent / "link.csv").symlink_to("x.db")
    os.link(path, path.parent / "hard.csv")
    return path


def content(folder: Path) -> dict[str, bytes]:
    # Whoever reads a database changes what lies beside it.
    return {
        name: Path(name).read_bytes()
        for below, _, files in os.walk(folder)
        for name in (os.path.join(below, file) for file in files)
        if not name.endswith(("-wal", "-shm"))
    }


def refused(path: Path, target: Path | str, to: str, match: str) -> None:
    """Export to a place that is not to be had, and see that all is as it was."""
    folder = path.parent.parent
    before = content(folder)
    with Beamtime(path, mode="r") as beamtime:
        for overwrite in (True, False):
            with pytest.raises(ExportError, match=match) as caught:
                beamtime[-1].export(target, to, overwrite=overwrite)
            assert caught.value.errno is not None
    assert content(folder) == before
    with closing(Database(path, mode="r")) as database:
        assert verify(database).ok


@pytest.mark.parametrize(
    ("name", "to", "how"),
    [
        ("x.db", "csv", "is a part of the beamtime"),
        ("x.db-wal", "csv", "is a part of the beamtime"),
        ("x.db-journal", "csv", "is a part of the beamtime"),
        (".x.db.0123456789ab.lock", "csv", "is a part of the beamtime"),
        ("x.db.v1-backup", "csv", "is a part of the beamtime"),
        ("x.journal.jsonl", "jsonl", "is a part of the beamtime"),
        ("X.Journal.JSONL", "jsonl", "is a part of the beamtime"),
        ("x.zarr", "zarr", "is a part of the beamtime"),
        ("deep/x.zarr", "zarr", "is a part of the beamtime"),
        ("link.zarr", "zarr", "is a part of the beamtime"),
        ("link.csv", "csv", "is a part of the beamtime"),
        ("hard.csv", "csv", "is a part of the beamtime"),
        ("x.zarr/", "csv", "is inside the beamtime"),
        ("x.zarr", "csv", "is inside the beamtime"),
        ("link.zarr/frames/", "csv", "is inside the beamtime"),
        ("x.zarr/new/", "zarr", "is inside the beamtime"),
        ("deep/x_files/new/run.h5", "hdf5", "is inside the beamtime"),
    ],
)
def test_place_of_the_beamtime_is_refused(
    path: Path, name: str, to: str, how: str
) -> None:
    refused(path, f"{path.parent}/{name}", to, how)


def test_place_that_holds_the_beamtime_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.zarr" / "x.db"
    path.parent.mkdir()
    with Beamtime(path) as beamtime:
        emit_run(beamtime, path.parent / "x.zarr", (ZarrWriter,))
    (tmp_path / "link.zarr").symlink_to(path.parent)
    for name in ("all.zarr", "link.zarr", "all.zarr/../all.zarr"):
        refused(path, tmp_path / name, "zarr", "holds the beamtime itself")
    with pytest.raises(ExportError, match="holds the beamtime itself"):
        OwnPlaces(path).check(path.parent / "x.zarr" / ".." / "..")
    with Beamtime(path, mode="r") as beamtime:
        # Within it, beside the others, is room for all.
        for number, name in enumerate(("all.zarr/", "all.zarr/../run.jsonl")):
            (made,) = beamtime[-1].export(f"{tmp_path}/{name}", "jsonl")
            assert made.name == ("7_scan.jsonl", "run.jsonl")[number]


@pytest.mark.parametrize(
    ("folder", "link"),
    [
        ("elsewhere", os.symlink),
        ("beamline/beside", os.symlink),
        ("elsewhere", os.link),
        ("elsewhere", None),
    ],
)
def test_files_of_detectors_are_refused(
    path: Path, tmp_path: Path, folder: str, link: Callable[..., Any] | None
) -> None:
    """Those of other runs too, and what lies in the folder of an array."""
    (raw,) = (tmp_path / folder / "cam2").rglob("*.h5")
    (array,) = (tmp_path / folder / "cam1").rglob("c.0.0.0")
    for file in (raw, array):
        place = file
        if link is not None:
            link(file, place := file.with_name("run.h5"))
        before = content(tmp_path)
        with (
            Beamtime(path, mode="r") as beamtime,
            pytest.raises(ExportError, match="documents of the beamtime refer to"),
        ):
            beamtime[-1].export(place, "hdf5", overwrite=True)
        assert content(tmp_path) == before


def test_folder_gets_a_file_of_its_own(path: Path, tmp_path: Path) -> None:
    """As it is promised, also where its name ends like a file."""
    folder = tmp_path / "results.jsonl"
    folder.mkdir()
    (folder / "notes.txt").write_text("a night's work")
    (tmp_path / "link.jsonl").symlink_to(folder)
    with Beamtime(path, mode="r") as beamtime:
        for name in ("results.jsonl/", "results.jsonl", "link.jsonl"):
            (made,) = beamtime[-1].export(f"{tmp_path}/{name}", "jsonl", overwrite=True)
            assert made == tmp_path / name / "7_scan.jsonl"
        (made,) = beamtime[-1].export(f"{tmp_path}/new.zarr/", "zarr")
        assert made == tmp_path / "new.zarr" / "7_scan.zarr"
    assert sorted(os.listdir(folder)) == ["7_scan.jsonl", "notes.txt"]
    assert (folder / "notes.txt").read_text() == "a night's work"


@pytest.mark.parametrize(
    "added", ["notes.txt", "cam1/fit.txt", "fits/1", "1", ".git/config"]
)
def test_only_an_exported_folder_with_nothing_else_is_replaced(
    path: Path, tmp_path: Path, added: str
) -> None:
    target = tmp_path / "run.zarr"
    with Beamtime(path, mode="r") as beamtime:
        beamtime[-1].export(target, "zarr")
        (target / ".DS_Store").write_bytes(b"left by a desktop")
        beamtime[-1].export(target, "zarr", overwrite=True)
        assert not (target / ".DS_Store").exists()
    (target / added).parent.mkdir(exist_ok=True)
    (target / added).write_text("a night's work")
    refused(path, target, "zarr", "something else in it|is there already")


@pytest.mark.parametrize("attributes", [None, {}, {"uid": "1"}])
def test_folder_of_somebody_else_is_not_replaced(
    path: Path, tmp_path: Path, attributes: dict[str, str] | None
) -> None:
    target = tmp_path / "run.zarr"
    target.mkdir()
    if attributes is not None:
        import zarr

        group = zarr.open_group(target, mode="w", zarr_format=2, attributes=attributes)
        group.create_array("x", shape=(3,), dtype="f8")
        zarr.consolidate_metadata(target, zarr_format=2)
    refused(path, target, "zarr", "not what an export of this format|there already")


def test_folder_that_comes_meanwhile_is_left(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "run.csv"

    def make(what: str, done: int, total: int) -> None:
        target.mkdir(exist_ok=True)

    with (
        Beamtime(path, mode="r") as beamtime,
        pytest.raises(ExportError, match="is left as it is"),
    ):
        beamtime[-1].export(target, "csv", overwrite=True, progress=make)
    assert target.is_dir()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
