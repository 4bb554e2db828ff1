"""Frames out of files: TIFF, HDF5, Zarr, NumPy, our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.devices.recorded_tiffs import natural_key, tiffs_in
from bluesky_beamtime.devices.recordings import open_recording
from bluesky_beamtime.errors import MissingExtraError, SourceError
from bluesky_beamtime.storage import FrameStore

STACK = np.random.default_rng(1).integers(0, 60000, (7, 12, 10), dtype="u2")


def replayed(path: Any) -> Any:
    recording = open_recording(path)
    frames = [np.array(frame) for frame in recording.frames()]
    assert all(frame.shape == recording.shape for frame in frames)
    assert all(frame.dtype == recording.dtype for frame in frames)
    # From the beginning once more.
    np.testing.assert_array_equal(next(recording.frames()), frames[0])
    return np.stack(frames)


def assert_replays(path: Any, stack: Any = STACK) -> None:
    found = replayed(path)
    assert found.dtype == stack.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, stack)


class TestTiff:
    tifffile = pytest.importorskip("tifffile")

    def test_a_folder(self, tmp_path: Path) -> None:
        # Numbers of several widths, other files, a hidden one, capital letters.
        for number, frame in enumerate(STACK, 5):
            suffix = ".TIF" if number == 7 else ".tif"
            self.tifffile.imwrite(tmp_path / f"scan_{number}{suffix}", frame)
        (tmp_path / "notes.txt").write_text("dark")
        (tmp_path / "._scan_5.tif").write_bytes(b"\0")
        assert_replays(tmp_path)
        assert_replays(str(tmp_path))

    def test_many_pages(self, tmp_path: Path) -> None:
        path = tmp_path / "stack.tif"
        with self.tifffile.TiffWriter(path) as file:
            for frame in STACK:
                file.write(frame, contiguous=False)
        assert_replays(path)

    def test_a_folder_of_many_pages(self, tmp_path: Path) -> None:
        for number, part in enumerate((STACK[:3], STACK[3:])):
            self.tifffile.imwrite(
                tmp_path / f"{number}.tiff", part, photometric="minisblack"
            )
        assert_replays(tmp_path)

    @pytest.mark.parametrize("kind", ["imagej", "ome", "bigtiff", "plain"])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_flavours(self, tmp_path: Path, kind: str, order: str) -> None:
        path = tmp_path / ("x.ome.tif" if kind == "ome" else "x.tif")
        options = {} if kind == "plain" else {kind: True}
        if kind == "imagej" and order == "<":
            order = ">"
        self.tifffile.imwrite(path, STACK, byteorder=order, **options)
        assert_replays(path)

    def test_compressed_and_in_colour(self, tmp_path: Path) -> None:
        picture = np.random.default_rng(1).integers(0, 255, (4, 9, 8, 3), dtype="u1")
        self.tifffile.imwrite(
            tmp_path / "x.tif", picture, photometric="rgb", compression="zlib"
        )
        assert_replays(tmp_path / "x.tif", picture)
        single = tmp_path / "single.tif"
        self.tifffile.imwrite(single, STACK[0].astype("f4"))
        assert_replays(single, STACK[:1].astype("f4"))

    def test_images_of_two_sizes(self, tmp_path: Path) -> None:
        self.tifffile.imwrite(tmp_path / "1.tif", STACK[0])
        self.tifffile.imwrite(tmp_path / "2.tif", STACK[0][:5])
        with pytest.raises(SourceError, match=r"'.*2.tif' is uint16 \(5, 10\)"):
            replayed(tmp_path)

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "x.tif").write_bytes(b"no TIFF at all")
        with pytest.raises(SourceError, match="cannot replay the TIFF file"):
            open_recording(tmp_path)

    def test_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "x.tif"
        self.tifffile.imwrite(path, STACK)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - 300])
        with pytest.raises(SourceError, match=r"x\.tif.*pages of it may be missing"):
            open_recording(path)

    def test_without_tifffile(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.tifffile.imwrite(tmp_path / "1.tif", STACK[0])
        monkeypatch.setitem(sys.modules, "tifffile", None)
        with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[tiff\]"):
            open_recording(tmp_path)


def test_natural_order(tmp_path: Path) -> None:
    names = ["a_10.tif", "a_9.tif", "a_009b.tif", "B_1.tif", "a.tif", "1.tif"]
    for name in names:
        (tmp_path / name).touch()
    found = [path.name for path in tiffs_in(tmp_path)]
    assert found.index("a_9.tif") < found.index("a_10.tif")
    assert found[0] == "1.tif" and found[-1] == "B_1.tif"
    # Whatever stands in names can be compared.
    keys = [natural_key(name) for name in ("a", "1a", "a1", "²", "", "١")]
    assert len(sorted(keys)) == 6


class TestHdf5:
    h5py = pytest.importorskip("h5py")

    def test_one_dataset(self, tmp_path: Path) -> None:
        path = tmp_path / "run.h5"
        with self.h5py.File(path, "w") as file:
            file["entry/data/data"] = STACK
            file["entry/motor"] = np.arange(7.0)
            file["entry/title"] = "LaB6"
            # A second name of the same data, as NeXus has them.
            file["entry/instrument/data"] = file["entry/data/data"]
            file["entry/link"] = self.h5py.SoftLink("/entry/data/data")
        assert_replays(path)
        assert_replays(f"{path}:/entry/data/data")
        assert_replays(f"{path}:entry/link")
        with pytest.raises(SourceError, match="there is no dataset '/entry/nothing'"):
            open_recording(f"{path}:/entry/nothing")

    @pytest.mark.parametrize("chunks", [None, (1, 12, 10), (3, 6, 5), (7, 12, 10)])
    def test_chunks(self, tmp_path: Path, chunks: Any) -> None:
        path = tmp_path / "run.h5"
        with self.h5py.File(path, "w") as file:
            options = {} if chunks is None else {"compression": "gzip"}
            file.create_dataset("data", data=STACK, chunks=chunks, **options)
        assert_replays(path)

    def test_several_datasets(self, tmp_path: Path) -> None:
        path = tmp_path / "run.nxs"
        with self.h5py.File(path, "w") as file:
            file["a/one"], file["a/two"] = STACK, STACK[:3]
        with pytest.raises(SourceError, match=r"choose one: '.*run\.nxs:/a/one', '"):
            open_recording(path)
        assert_replays(f"{path}:/a/two", STACK[:3])

    def test_no_frames(self, tmp_path: Path) -> None:
        path = tmp_path / "run.h5"
        with self.h5py.File(path, "w") as file:
            file["x"] = np.arange(4.0)
        with pytest.raises(SourceError, match="has no frames"):
            open_recording(path)

    def test_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "run.dat"
        path.write_bytes(b"no HDF5 at all" * 100)
        with pytest.raises(SourceError, match="no TIFF, npy, npz, Zarr or HDF5"):
            open_recording(path)

    def test_without_h5py(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "run.h5"
        with self.h5py.File(path, "w") as file:
            file["data"] = STACK
        monkeypatch.setitem(sys.modules, "h5py", None)
        for name in (str(path), f"{path}:/data"):
            with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[hdf5\]"):
                open_recording(name)


class TestZarr:
    @pytest.mark.parametrize("version", [2, 3])
    def test_an_array(self, tmp_path: Path, version: Any) -> None:
        import zarr

        path = tmp_path / "x.zarr"
        zarr.create_array(path, data=STACK, chunks=(2, 12, 10), zarr_format=version)
        assert_replays(path)

    def test_a_group(self, tmp_path: Path) -> None:
        import zarr

        path = tmp_path / "x.zarr"
        group = zarr.open_group(path, mode="w")
        group.create_array("deep/frames", data=STACK)
        group.create_array("motor", data=np.arange(7.0))
        assert_replays(path)
        group.create_array("dark", data=STACK[:2])
        with pytest.raises(SourceError, match=r"choose one: .*dark"):
            open_recording(path)
        assert_replays(f"{path}:dark", STACK[:2])
        with pytest.raises(SourceError, match="nothing"):
            open_recording(f"{path}:nothing")


@pytest.mark.parametrize("mimetype", ["application/x-zarr", "application/x-hdf5"])
def test_our_own_store(tmp_path: Path, mimetype: str) -> None:
    if "hdf5" in mimetype:
        pytest.importorskip("h5py")
    store = FrameStore(tmp_path, mimetype=mimetype, name=lambda: "scan_00001")
    sinks = [
        store.attach("cam", dtype="<u2", shape=STACK.shape[1:]),
        store.attach("cam_time", dtype="<f8", shape=()),
    ]
    for number, frame in enumerate(STACK):
        sinks[0].write(frame)
        sinks[1].write(np.float64(number))
    for sink in sinks:
        store.detach(sink)
    if "hdf5" in mimetype:
        (path,) = tmp_path.rglob("cam.h5")
        assert_replays(path)
    else:
        (path,) = tmp_path.rglob("cam")
        assert_replays(path)
        assert_replays(path.parent)


class TestNumpy:
    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", ["<u2", ">u2", "f4", "?", "c8"])
    def test_npy(self, tmp_path: Path, dtype: str, order: Any) -> None:
        path = tmp_path / "x.npy"
        stack = np.asarray(STACK.astype(dtype), order=order)
        np.save(path, stack)
        assert_replays(path, stack)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz(self, tmp_path: Path, save: Any) -> None:
        path = tmp_path / "x.npz"
        save(path, frames=STACK, motor=np.arange(7.0))
        assert_replays(path)
        assert_replays(f"{path}:frames")
        save(path, frames=STACK, dark=STACK[:2])
        with pytest.raises(SourceError, match="choose one"):
            open_recording(path)
        assert_replays(f"{path}:dark", STACK[:2])
        with pytest.raises(SourceError, match="it has frames, dark"):
            open_recording(f"{path}:flat")

    def test_one_frame(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", STACK[0])
        assert_replays(tmp_path / "x.npy", STACK[:1])

    def test_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npy"
        np.save(path, STACK)
        path.write_bytes(path.read_bytes()[:-1])
        recording = open_recording(path)
        frames = recording.frames()
        for number in range(6):
            np.testing.assert_array_equal(next(frames), STACK[number])
        with pytest.raises(SourceError, match="frame 6 of 7 is not there"):
            next(frames)

    def test_something_else(self, tmp_path: Path) -> None:
        for name in ("x.npy", "x.npz"):
            (tmp_path / name).write_bytes(b"none of NumPy's" * 9)
            with pytest.raises(SourceError, match=name):
                open_recording(tmp_path / name)
        np.save(tmp_path / "o.npy", np.array([{}, None]), allow_pickle=True)
        with pytest.raises(SourceError, match="not numbers"):
            open_recording(tmp_path / "o.npy")

    def test_damaged_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        np.savez_compressed(path, frames=np.repeat(STACK, 200, axis=0))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        recording = open_recording(path)
        with pytest.raises(SourceError, match=r"x\.npz"):
            list(recording.frames())


def test_arrays() -> None:
    import dask.array
    import xarray

    assert_replays(STACK)
    assert_replays(dask.array.from_array(STACK, chunks=(3, 12, 10)))
    assert_replays(xarray.DataArray(STACK))
    with pytest.raises(SourceError, match="cannot be replayed"):
        open_recording(object())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing to replay at"):
        open_recording(tmp_path / "x.h5")
    with pytest.raises(SourceError, match="no TIFF files"):
        open_recording(tmp_path)


@pytest.mark.parametrize("kind", ["npy", "npz", "tif", "h5", "zarr"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """In a process of its own, whose peak is that of the replay alone."""
    script = (
        "import resource, sys\n"
        "from bluesky_beamtime.devices.recordings import open_recording\n"
        "recording = open_recording(sys.argv[1])\n"
        "frames = recording.frames()\n"
        "next(frames)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = 1 + sum(1 for _ in frames)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(count, (peak - before) // 1024)\n"
    )
    # 192 MiB, of which a page is half a MiB.
    stack = np.broadcast_to(STACK[:1, :1, :1], (384, 512, 512))
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, stack)
    elif kind == "npz":
        np.savez_compressed(path, frames=stack)
    elif kind == "tif":
        pytest.importorskip("tifffile").imwrite(path, stack)
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=stack, chunks=(1, 512, 512))
    else:
        import zarr

        zarr.create_array(path, data=np.array(stack), chunks=(1, 512, 512))
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    count, mebi = map(int, done.stdout.split())
    assert count == 384
    assert mebi < 64
