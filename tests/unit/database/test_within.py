"""Links inside of files and folders lead nowhere that may not be read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from bluesky_beamtime.database.external import StoredArray
from bluesky_beamtime.errors import StoreReadError

FRAMES = np.arange(12, dtype="<u2").reshape(3, 2, 2)
SHAPE = FRAMES.shape


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    return made(tmp_path / "beamtime")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return made(tmp_path / "outside")


def made(folder: Path) -> Path:
    """Return a folder that holds the frames in every way in which one can link them."""
    folder.mkdir()
    with h5py.File(folder / "source.h5", "w") as file:
        file["d"] = FRAMES
    FRAMES.tofile(folder / "raw.bin")
    array: Any = zarr.create_array(
        folder / "source.zarr", shape=SHAPE, chunks=(1, 2, 2), dtype="u2"
    )
    array[:] = FRAMES
    return folder


def virtual(file: Any, source: str | Path, name: str = "d") -> None:
    layout = h5py.VirtualLayout(SHAPE, "<u2")
    layout[:] = h5py.VirtualSource(str(source), name, SHAPE)
    file.create_virtual_dataset("d", layout)


def link(file: Any, target: Path) -> None:
    file["d"] = h5py.ExternalLink(str(target / "source.h5"), "d")


def link_of_a_group(file: Any, target: Path) -> None:
    file["entry"] = h5py.ExternalLink(str(target / "source.h5"), "/")
    file["d"] = h5py.SoftLink("/entry/d")


def parts(file: Any, target: Path) -> None:
    virtual(file, target / "source.h5")


def parts_beside(file: Any, target: Path) -> None:
    virtual(file, os.path.relpath(target / "source.h5", Path(file.filename).parent))


def parts_of_parts(file: Any, target: Path) -> None:
    name = f"between-{target.name}.h5"
    with h5py.File(Path(file.filename).with_name(name), "w") as between:
        virtual(between, target / "source.h5")
    virtual(file, name)


def parts_of_a_link(file: Any, target: Path) -> None:
    file["linked"] = h5py.ExternalLink(str(target / "source.h5"), "d")
    virtual(file, ".", "linked")


def raw(file: Any, target: Path) -> None:
    file.create_dataset(
        "d", SHAPE, "<u2", external=[(str(target / "raw.bin"), 0, FRAMES.nbytes)]
    )


def hdf5(path: Path, readable: list[Path]) -> StoredArray:
    parameters = {"dataset": "d", "chunk_shape": [1, 2, 2]}
    return StoredArray(
        "u", "cam", f"file://{path}", "application/x-hdf5", parameters, readable
    )


def stock_zarr(path: Path, readable: list[Path]) -> StoredArray:
    return StoredArray("u", "cam", f"file://{path}", "application/x-zarr", {}, readable)


@pytest.mark.parametrize(
    "make",
    [link, link_of_a_group, parts, parts_beside, parts_of_parts, parts_of_a_link, raw],
)
def test_files_behind_an_hdf5_file(
    inside: Path, outside: Path, make: Callable[[Any, Path], None]
) -> None:
    for folder in (inside, outside):
        path = inside / f"to-{folder.name}.h5"
        with h5py.File(path, "w") as file:
            make(file, folder)
    array = hdf5(inside / "to-beamtime.h5", [inside]).open()
    np.testing.assert_array_equal(array[:], FRAMES)
    with pytest.raises(StoreReadError, match="--readable"):
        hdf5(inside / "to-outside.h5", [inside]).open()
    array = hdf5(inside / "to-outside.h5", [inside, outside]).open()
    np.testing.assert_array_equal(array[:], FRAMES)
    # It may become another file once it was looked at.
    array = hdf5(inside / "to-beamtime.h5", [inside]).open()
    (inside / "to-outside.h5").replace(inside / "to-beamtime.h5")
    for opened in (array, pickle.loads(pickle.dumps(array))):
        with pytest.raises(StoreReadError, match="--readable"):
            opened[:]


def test_parts_that_were_copied_along(inside: Path, tmp_path: Path) -> None:
    """The library looks beside the file when they are not where they were."""
    with h5py.File(inside / "v.h5", "w") as file:
        virtual(file, tmp_path / "gone" / "source.h5")
    array = hdf5(inside / "v.h5", [inside]).open()
    np.testing.assert_array_equal(array[:], FRAMES)


def test_parts_by_a_pattern_are_refused(inside: Path) -> None:
    whole = h5py.h5s.create_simple(SHAPE, (h5py.h5s.UNLIMITED, 2, 2))
    whole.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), block=(1, 2, 2))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    one = h5py.h5s.create_simple((1, 2, 2))
    plist.set_virtual(whole, b"source-%b.h5", b"d", one)
    with h5py.File(inside / "v.h5", "w") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.STD_U16LE, whole, plist)
    with pytest.raises(StoreReadError, match="pattern"):
        hdf5(inside / "v.h5", [inside]).open()


def test_links_below_a_zarr_array(inside: Path, outside: Path) -> None:
    path = inside / "source.zarr"
    chunk = path / "c" / "1" / "0" / "0"
    spare = path / "spare"
    chunk.rename(spare)
    chunk.symlink_to(spare)
    np.testing.assert_array_equal(stock_zarr(path, [inside]).open()[:], FRAMES)
    # Through a folder that lies inside, too.
    (inside / "more").mkdir()
    (inside / "more" / "0").symlink_to(outside / "source.zarr" / "c" / "2" / "0")
    (path / "c" / "3").symlink_to(inside / "more")
    with pytest.raises(StoreReadError, match="--readable"):
        stock_zarr(path, [inside]).open()
    stock_zarr(path, [inside, outside]).open()
