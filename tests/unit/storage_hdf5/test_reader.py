"""Reading HDF5 frames back: ours, those of others, and damaged ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.errors import (
    FrameReadError,
    MissingExtraError,
    StorageError,
    StoreReadError,
)
from bluesky_beamtime.storage import (
    FrameArray,
    FrameSink,
    HDF5Writer,
    from_uri,
    open_frames,
    repair_store,
    to_uri,
    verify_store,
)
from bluesky_beamtime.storage.hdf5_dataset import HDF5Dataset
from bluesky_beamtime.storage.hdf5_reader import HDF5Frames

Begin = Callable[..., tuple[HDF5Writer, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]
MIMETYPE = "application/x-hdf5"
DATASET = "/entry/data/data"

INDICES: list[Any] = [
    0,
    -1,
    slice(None),
    slice(2, 9, 3),
    slice(None, None, -1),
    slice(5, 5),
    [3, 3, 0, 11],
    np.array([True, False] * 6),
    (4, 1),
    (slice(1, 4), 2, slice(None, None, 2)),
    (Ellipsis, 1),
    ([0, 5], slice(1, 3)),
]


def data_of(path: str) -> Any:
    return open_frames(path, MIMETYPE, {"dataset": DATASET})


def test_a_file_is_known_without_its_mimetype(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam")
    data = frames(3)
    sink.write_many(data)
    sink.close()
    for name in (sink.uri, from_uri(sink.uri), Path(from_uri(sink.uri))):
        np.testing.assert_array_equal(open_frames(name)[:], data)


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("shape", [(4, 6), (200, 300)])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_indices_mean_what_numpy_means(
    begin: Begin, frames: Frames, index: Any, shape: tuple[int, ...], compression: str
):
    """Small frames, which are read many at once, and large ones; both readers."""
    _, (sink,) = begin("cam", shape=shape, compression=compression)
    data = frames(12, shape)
    sink.write_many(data)
    sink.close()
    path = from_uri(sink.uri)
    for found in (HDF5Frames(path), HDF5Dataset(path, DATASET)):
        np.testing.assert_array_equal(found[index], data[index])


def test_both_readers_look_the_same(begin: Begin, frames: Frames):
    source = {"units": "V", "dims": ("y", "x")}
    _, (sink,) = begin("cam", dtype=">i4", source=source)
    data = frames(7, dtype=">i4")
    sink.set_attributes({"gain": 2, "names": ["a", "b"], "limits": [0.5, 1.5]})
    sink.write_many(data)
    sink.close()
    path = from_uri(sink.uri)
    for found in (HDF5Frames(path), HDF5Dataset(path, DATASET)):
        assert isinstance(found, FrameArray)
        assert (found.shape, found.ndim, len(found)) == ((7, 4, 6), 3, 7)
        assert found.size == 7 * 24
        assert found.nbytes == 7 * 24 * 4
        assert found.dtype == np.dtype("=i4")
        assert found.chunk_shape == (1, 4, 6)
        assert found.units == "V"
        assert found.dims == ("time", "y", "x")
        assert found.attrs["gain"] == 2
        assert found.attrs["names"] == ["a", "b"]
        assert found.attrs["limits"] == [0.5, 1.5]
        assert type(found).__name__ in repr(found)
        assert path in repr(found)
        np.testing.assert_array_equal(np.asarray(found), data)
        copy = pickle.loads(pickle.dumps(found))
        assert type(copy) is type(found)
        np.testing.assert_array_equal(copy[3], data[3])
        for wrong in (7, -8):
            with pytest.raises(IndexError):
                found[wrong]
        with pytest.raises(IndexError, match="has 7 frames"):
            found.read(np.array([7]))


def test_a_uri_opens_our_own_reader(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam")
    sink.write_many(frames(2))
    for where in (sink.uri, from_uri(sink.uri), Path(from_uri(sink.uri))):
        assert isinstance(open_frames(where, MIMETYPE), HDF5Frames)
        assert isinstance(open_frames(where, MIMETYPE, sink.parameters), HDF5Frames)


def test_it_follows_a_growing_file(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam")
    data = frames(50)
    found = data_of(sink.uri)
    assert len(found) == 0
    assert found[:].shape == (0, 4, 6)
    for number in range(50):
        sink.write(data[number])
        sink.publish()
        assert found.refresh() == number + 1
        np.testing.assert_array_equal(found[number], data[number])
    sink.close()
    assert found.refresh() == 50
    np.testing.assert_array_equal(found[:], data)


@pytest.mark.parametrize("own", [True, False])
def test_threads_may_share_it(begin: Begin, frames: Frames, own: bool):
    _, (sink,) = begin("cam", compression="gzip")
    data = frames(100)
    sink.write_many(data)
    sink.close()
    path = from_uri(sink.uri)
    found = HDF5Frames(path) if own else HDF5Dataset(path, DATASET)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda n: found[n : n + 10], range(90)))
    for number, part in enumerate(parts):
        np.testing.assert_array_equal(part, data[number : number + 10])


# --------------------------------------------------------------- files of others


def test_files_of_others(tmp_path: Path, frames: Frames):
    """Any version, layout, compression and place in the file."""
    data = frames(11)
    for number, (libver, options) in enumerate(
        [
            ("earliest", {}),
            ("latest", {"chunks": (4, 2, 6)}),
            ("earliest", {"chunks": (1, 4, 6), "compression": "gzip"}),
            (("v110", "v110"), {"chunks": (2, 4, 6), "fletcher32": True}),
        ]
    ):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            made = file.create_dataset("some/where", data=data, **options)
            made.attrs["units"] = "counts"
            made.attrs["more"] = [1, 2]
        found = open_frames(to_uri(path), MIMETYPE, {"dataset": "/some/where"})
        assert isinstance(found, HDF5Dataset)
        assert found.units == "counts"
        assert found.attrs["more"] == [1, 2]
        assert found.dims is None
        assert found.chunk_shape == options.get("chunks", data.shape)
        np.testing.assert_array_equal(found[::-2], data[::-2])


def test_ophyd_asyncs_own_detector_file(tmp_path: Path):
    """As its simulated detector writes it: SWMR, still open in this process."""
    with h5py.File(tmp_path / "det.h5", "w", libver="latest") as file:
        data = file.create_dataset(
            "/entry/data/data", (0, 3, 4), "u1", maxshape=(None, 3, 4), chunks=(1, 3, 4)
        )
        total = file.create_dataset("/entry/sum", (0,), "i8", maxshape=(None,))
        file.swmr_mode = True
        pictures = open_frames(str(tmp_path / "det.h5"), MIMETYPE)
        numbers = open_frames(
            str(tmp_path / "det.h5"), MIMETYPE, {"dataset": "/entry/sum"}
        )
        for number in range(5):
            data.resize(number + 1, axis=0)
            data[number] = number
            total.resize(number + 1, axis=0)
            total[number] = number * 12
            file.flush()
            assert pictures.refresh() == number + 1
            assert (pictures[number] == number).all()
            numbers.refresh()
            assert numbers[number] == number * 12
    np.testing.assert_array_equal(pictures[:, 0, 0], np.arange(5))


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(StoreReadError, match="No such file"):
        open_frames(str(tmp_path / "none.h5"), MIMETYPE)
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(StoreReadError, match=r"text\.h5"):
        open_frames(str(tmp_path / "text.h5"), MIMETYPE)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 3
    for dataset in ("/entry/data/data", "/", "x"):
        with pytest.raises(StoreReadError, match=r"other\.h5"):
            open_frames(str(tmp_path / "other.h5"), MIMETYPE, {"dataset": dataset})
    with pytest.raises(StoreReadError, match="as this package writes them"):
        HDF5Frames(tmp_path / "other.h5")
    with pytest.raises(StoreReadError, match="Is a directory"):
        open_frames(str(tmp_path), MIMETYPE)


def test_a_missing_filter_is_named(
    begin: Begin, frames: Frames, monkeypatch: pytest.MonkeyPatch
):
    """Our own reader needs none."""
    _, (sink,) = begin("cam", compression="zstd")
    sink.write_many(frames(2))
    sink.close()
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda number: False)
    monkeypatch.setattr(
        "bluesky_beamtime.storage.hdf5_dataset.find_spec", lambda name: None
    )
    np.testing.assert_array_equal(data_of(sink.uri)[:], frames(2))
    with pytest.raises(MissingExtraError, match="filter 32001"):
        HDF5Dataset(from_uri(sink.uri), DATASET)[:]


def test_without_h5py_ours_are_still_read(
    begin: Begin, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, (sink,) = begin("cam")
    sink.write_many(frames(2))
    sink.close()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1, 2]

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("bluesky_beamtime.storage.hdf5_dataset.import_module", absent)
    np.testing.assert_array_equal(data_of(sink.uri)[:], frames(2))
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[hdf5\]"):
        open_frames(str(tmp_path / "other.h5"), MIMETYPE, {"dataset": "x"})


# ------------------------------------------------------------------------ damage


def hurt(path: str, place: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        (value,) = file.read(1)
        file.seek(place)
        file.write(bytes([value ^ 1 << bit]))


@pytest.mark.parametrize("shape", [(4, 6), (200, 300)])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_damaged_frame_is_never_handed_out(
    begin: Begin, frames: Frames, shape: tuple[int, ...], compression: str
):
    _, (sink,) = begin("cam", shape=shape, compression=compression)
    data = frames(10, shape)
    sink.write_many(data)
    sink.close()
    path = from_uri(sink.uri)
    with h5py.File(path, "r") as file:
        info = file[DATASET].id.get_chunk_info_by_coord((6, 0, 0))
    # In the frame, and in the record before it.
    for place in (info.byte_offset + info.size // 2, info.byte_offset - 20):
        hurt(path, place, 3)
        found = data_of(path)
        with pytest.raises(FrameReadError, match="frame 6"):
            found[:]
        with pytest.raises(FrameReadError, match="frame 6"):
            found[6]
        np.testing.assert_array_equal(found[7:], data[7:])
        np.testing.assert_array_equal(found[:6], data[:6])
        report = verify_store(path)
        assert not report.ok
        assert report.arrays["cam.h5"].damaged == [6]
        hurt(path, place, 3)
    assert verify_store(path).ok


def test_without_a_checksum_the_frames_are_as_they_are(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam", checksum=False)
    sink.write_many(frames(3))
    sink.close()
    path = from_uri(sink.uri)
    with h5py.File(path, "r") as file:
        info = file[DATASET].id.get_chunk_info_by_coord((1, 0, 0))
    hurt(path, info.byte_offset, 0)
    found = data_of(path)[:]
    assert int((found != frames(3)).sum()) == 1


def test_a_file_that_was_cut_short(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam", shape=(200, 300))
    data = frames(5, (200, 300))
    sink.write_many(data)
    sink.close()
    path = Path(from_uri(sink.uri))
    for lost in (1, data[0].nbytes - 2, 20):
        path.write_bytes(path.read_bytes()[:-lost])
        found = data_of(str(path))
        np.testing.assert_array_equal(found[:3], data[:3])
        with pytest.raises(FrameReadError, match="cut short"):
            found[4]
        assert verify_store(path).arrays["cam.h5"].damaged == [4]
    # Further still: the index of the fifth frame lies behind the fourth.
    path.write_bytes(path.read_bytes()[:-200])
    np.testing.assert_array_equal(data_of(str(path))[:4], data[:4])
    with pytest.raises(StoreReadError, match="index is damaged"):
        data_of(str(path))[4]
    assert not verify_store(path).ok
    report = repair_store(path)
    assert "1 frames at the end are gone" in report.problems[0]
    np.testing.assert_array_equal(data_of(str(path))[:], data[:4])
    assert verify_store(path).ok


def test_random_damage_ends_in_an_error_or_in_the_truth(begin: Begin, frames: Frames):
    """Bits that flip and files that end anywhere: gate R5."""
    _, (sink,) = begin("cam", shape=(5, 7))
    data = frames(40, (5, 7))
    sink.set_attributes({"gain": 3})
    sink.write_many(data)
    sink.close()
    path = Path(from_uri(sink.uri))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    errors = wrong = noticed = 0
    for number in range(400):
        content = bytearray(whole)
        if number % 5:
            for place in rng.integers(0, len(whole), 3):
                content[place] ^= 1 << int(rng.integers(8))
        else:
            content = content[: int(rng.integers(len(whole)))]
        path.write_bytes(content)
        try:
            found = HDF5Frames(path)
            if not np.array_equal(found[:], data[: len(found)]):
                wrong += 1
        except StorageError:
            errors += 1
            try:
                noticed += not verify_store(path).ok
            except StoreReadError:
                noticed += 1
    assert wrong == 0
    assert errors > 100
    assert noticed == errors
