"""Frames that are cut into inner chunks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from bluesky_beamtime.errors import FrameReadError, StoreReadError
from bluesky_beamtime.storage import (
    FrameArray,
    FrameSink,
    MemoryBackend,
    ShardedArray,
    StoreUploader,
    ZarrWriter,
    as_zarr_store,
    create_group,
    from_uri,
    make_writer,
    open_frames,
    repair_store,
    verify_store,
)
from bluesky_beamtime.storage.extent import written_frames
from bluesky_beamtime.storage.layout import ArrayLayout, read_metadata
from bluesky_beamtime.storage.shards import ABSENT, read_index
from bluesky_beamtime.storage.tiling import MOST_CHUNKS, Tiling, frame_chunks

Begin = Callable[..., tuple[ZarrWriter, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]

CODECS = list(itertools.product(("none", "lz4", "zstd"), (True, False)))
SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))


def with_zarr(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_array(from_uri(uri), mode="r")[...])


def with_tensorstore(uri: str) -> np.ndarray[Any, Any]:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": from_uri(uri)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def with_ours(uri: str) -> np.ndarray[Any, Any]:
    return open_frames(uri)[:]


@pytest.mark.parametrize(("compression", "checksum"), CODECS, ids=str)
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((10, 14), (4, 5)),
        ((10, 14), (10, 5)),
        ((8, 8), (4, 4)),
        ((9,), (2,)),
        ((3, 5, 7), (2, 5, 3)),
        ((10, 14), 4),
    ],
    ids=str,
)
def test_every_reader_reads_them_while_they_grow(
    begin: Begin,
    frames: Frames,
    shape: tuple[int, ...],
    chunks: Any,
    compression: str,
    checksum: bool,
):
    writer, (sink,) = begin(
        "cam",
        shape=shape,
        chunks=chunks,
        compression=compression,
        checksum=checksum,
        frames_per_shard=3,
    )
    data = frames(8, shape)
    sizes = chunks if isinstance(chunks, tuple) else (chunks,) * len(shape)
    assert sink.chunk_shape == (1, *sizes)
    assert sink.parameters["chunk_shape"] == [1, *sizes]
    sink.write(data[0])
    sink.write_many(data[1:6])
    sink.publish()
    for read in (with_zarr, with_tensorstore, with_ours):
        np.testing.assert_array_equal(read(sink.uri), data[:6])
    sink.submit(data[6]).result(30)
    writer.flush()
    sink.write(data[7])
    sink.close()
    for read in (with_zarr, with_tensorstore, with_ours):
        np.testing.assert_array_equal(read(sink.uri), data)
    assert zarr.open_array(from_uri(sink.uri), mode="r").chunks == sink.chunk_shape
    assert open_frames(sink.uri).chunk_shape == sink.chunk_shape
    assert verify_store(writer.uri).ok


def test_every_dtype(begin: Begin, frames: Frames):
    writer, _ = begin(chunks=3)
    for dtype in ("?", "<i1", ">u2", "<u8", "<f2", ">f8", "<c8", ">c16"):
        sink = writer.prepare(f"cam {dtype}", None, dtype, (4, 7))
        data = frames(4, (4, 7), dtype)
        sink.write_many(data)
        sink.publish()
        for read in (with_zarr, with_tensorstore, with_ours):
            np.testing.assert_array_equal(read(sink.uri), data)


def test_more_buffers_than_one_system_call_takes(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam", shape=(40, 60), chunks=1)
    data = frames(3, (40, 60))
    sink.write(data[0])
    sink.write_many(data[1:])
    sink.close()
    np.testing.assert_array_equal(with_ours(sink.uri), data)
    np.testing.assert_array_equal(
        np.asarray(zarr.open_array(from_uri(sink.uri), mode="r")[1, :4, :4]),
        data[1, :4, :4],
    )


class TestOptions:
    def test_of_the_writer_concern_frames_of_that_rank(self, begin: Begin):
        writer, _ = begin(chunks=(4, 4))
        assert writer.prepare("a", None, "u2", (8, 8)).chunk_shape == (1, 4, 4)
        assert writer.prepare("b", None, "u2", (2, 8)).chunk_shape == (1, 2, 4)
        assert writer.prepare("c", None, "u2", ()).chunk_shape[0] >= 1
        assert writer.prepare("d", None, "u2", (8,)).chunk_shape == (1, 8)
        sink = writer.prepare("e", None, "u2", (8, 8), chunks=(8, 2))
        assert sink.chunk_shape == (1, 8, 2)
        assert writer.prepare("f", None, "u2", (8, 0)).chunk_shape == (1, 8, 1)

    def test_make_writer_takes_them(self):
        writer = make_writer("application/x-zarr", "chunks", chunks=(4, 4))
        assert isinstance(writer, ZarrWriter)
        assert writer.chunks == (4, 4)
        assert make_writer("application/x-zarr", "chunks", chunks=(4, 4)) is writer

    @pytest.mark.parametrize("chunks", [0, -1, (4, 0), (4, -4), "4", (4.0, 4), 2.5, ()])
    def test_no_sizes_at_all(self, chunks: Any, begin: Begin):
        writer, _ = begin()
        with pytest.raises(ValueError, match="chunks"):
            writer.prepare("cam", None, "u2", (8, 8), chunks=chunks)
        assert not writer.sources
        if chunks != ():
            with pytest.raises(ValueError, match=r"\(1024, 1024\)"):
                ZarrWriter("wrong", chunks=chunks)

    def test_of_another_rank(self, begin: Begin):
        writer, _ = begin()
        with pytest.raises(ValueError, match=r"'cam': chunks \(4,\) has 1 sizes"):
            writer.prepare("cam", None, "u2", (8, 8), chunks=(4,))

    def test_too_many(self, begin: Begin):
        writer, _ = begin()
        with pytest.raises(ValueError, match="4194304 pieces, at most 16384"):
            writer.prepare("cam", None, "u2", (2048, 2048), chunks=1)

    def test_too_large_to_be_compressed(self, begin: Begin):
        writer, _ = begin(compression="lz4")
        with pytest.raises(ValueError, match="chunks=1024"):
            writer.prepare("cam", None, "u2", (1 << 15, 1 << 15))
        writer.prepare("cam", None, "u2", (1 << 15, 1 << 15), chunks=1024)


def test_only_the_chunks_that_are_asked_for_are_touched(tmp_path: Path, frames: Frames):
    """With all other chunks destroyed a region is still read."""
    data = frames(3, (8, 12))
    with ShardedArray.create(
        tmp_path / "cam", dtype="<u2", shape=(8, 12), chunks=(4, 4)
    ) as array:
        for frame in data:
            array.append(frame)
        layout = array.layout
    shard = tmp_path / "cam" / "c.0.0.0"
    with shard.open("r+b") as file:
        index = read_index(file.fileno(), layout.entries_per_shard)
        for entry in [6 + n for n in range(6) if n != 4]:
            offset, length = map(int, index[entry])
            file.seek(offset)
            file.write(b"\xff" * length)
    found = open_frames(tmp_path / "cam")
    np.testing.assert_array_equal(found[1, 4:8, 4:8], data[1, 4:8, 4:8])
    np.testing.assert_array_equal(found[1, 5, 7], data[1, 5, 7])
    np.testing.assert_array_equal(found[1, -1, -8:-4:2], data[1, -1, -8:-4:2])
    np.testing.assert_array_equal(found[0], data[0])
    for wrong in (np.s_[1], np.s_[1, :5, 4:8], np.s_[1, 4:8, 4:9], np.s_[:, 0, 0]):
        with pytest.raises(FrameReadError, match="frame 1 "):
            found[wrong]
    report = verify_store(tmp_path)
    assert report.arrays["cam"].damaged == [1]


INDEXES = [
    *(np.s_[2], np.s_[1:3, 2:9], np.s_[..., 3], np.s_[:, 9:2:-3, ::4], np.s_[-1, -1]),
    *(np.s_[[2, 0], 3:7, 1], np.s_[:, [1, 5], 2], np.s_[:, 5:5], np.s_[1, :, ::-1]),
    *(np.s_[:, -3:, :-20], np.s_[[True, False, True, False], 4], np.s_[3, 8::-1, 0]),
]


@pytest.mark.parametrize("key", INDEXES, ids=str)
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_indexing_is_that_of_numpy(
    begin: Begin, frames: Frames, key: Any, compression: str
):
    _, (sink,) = begin("cam", shape=(10, 14), chunks=(4, 5), compression=compression)
    data = frames(4, (10, 14))
    sink.write_many(data)
    sink.close()
    found = open_frames(sink.uri)
    np.testing.assert_array_equal(found[key], data[key])
    for out_of_range in (np.s_[0, 10], np.s_[0, 0, -15], np.s_[4]):
        with pytest.raises(IndexError):
            found[out_of_range]


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 1 << 32),
    chunks=st.lists(st.integers(1, 11), min_size=3, max_size=3),
)
def test_tiles_make_the_frame_again(
    shape: tuple[int, ...], seed: int, chunks: list[int]
):
    rng = np.random.default_rng(seed)
    tiling = Tiling(shape, frame_chunks("cam", shape, tuple(chunks[: len(shape)])))
    frame = rng.integers(1, 1000, shape)
    tiles = tiling.split(frame)
    assert len(tiles) == tiling.count
    assert all(t.shape == tiling.chunks and t.flags.c_contiguous for t in tiles)
    # Beside the frame there is nothing but the fill value.
    assert sum(int(t.sum()) for t in tiles) == frame.sum()
    low = [int(rng.integers(0, size)) for size in shape]
    box = tuple(
        (start, int(rng.integers(start + 1, size + 1)))
        for start, size in zip(low, shape, strict=True)
    )
    out = np.zeros([stop - start for start, stop in box], int)
    for number, inside, target in tiling.within(box):
        assert not out[target].any()
        out[target] = tiles[number][inside]
    cut = tuple(slice(start, stop) for start, stop in box)
    np.testing.assert_array_equal(out, frame[cut])


class TestHalfWritten:
    """A frame counts as written only when all of its chunks are."""

    def make(self, folder: Path, data: np.ndarray[Any, Any]) -> ArrayLayout:
        create_group(folder)
        array = ShardedArray.create(
            folder / "cam", dtype="<u2", shape=(8, 12), chunks=4, frames_per_shard=4
        )
        for frame in data:
            array.append(frame)
        array.close()
        return array.layout

    @pytest.mark.parametrize("chunk", [0, 3, 5])
    def test_it_is_not_there(self, tmp_path: Path, frames: Frames, chunk: int):
        data = frames(6, (8, 12))
        layout = self.make(tmp_path, data)
        shard = tmp_path / "cam" / "c.1.0.0"
        with shard.open("r+b") as file:
            file.seek(16 * (6 + chunk))
            file.write(ABSENT.to_bytes(8, "little") * 2)
        assert written_frames(tmp_path / "cam", layout) == 5
        report = verify_store(tmp_path)
        assert report.arrays["cam"].missing == [5]
        with pytest.raises(FrameReadError, match=r"frame 5 .* is missing"):
            open_frames(tmp_path / "cam")[5]
        np.testing.assert_array_equal(open_frames(tmp_path / "cam")[:5], data[:5])

    def test_a_torn_one_is_written_over(self, tmp_path: Path, frames: Frames):
        """What a death between two entries leaves is no obstacle."""
        data = frames(6, (8, 12))
        self.make(tmp_path, data[:5])
        metadata = tmp_path / "cam" / "zarr.json"
        content = json.loads(metadata.read_bytes())
        shard = tmp_path / "cam" / "c.1.0.0"
        with shard.open("r+b") as file:
            first = file.read(16)
            file.seek(16 * 6)
            file.write(first * 3)
        repair_store(tmp_path)
        assert json.loads(metadata.read_bytes()) == content
        array = ShardedArray.open(tmp_path / "cam")
        assert array.length == 5
        array.append(data[5])
        array.close()
        np.testing.assert_array_equal(with_zarr(str(tmp_path / "cam")), data)
        assert verify_store(tmp_path).ok

    def test_lost_metadata_comes_back(self, tmp_path: Path, frames: Frames):
        data = frames(6, (8, 12))
        layout = self.make(tmp_path, data)
        (tmp_path / "cam" / "zarr.json").write_bytes(b"")
        assert repair_store(tmp_path).ok
        metadata = read_metadata(tmp_path / "cam")
        assert ArrayLayout.from_json(metadata, "cam") == layout
        np.testing.assert_array_equal(with_zarr(str(tmp_path / "cam")), data)


@pytest.mark.parametrize(
    ("inner", "shard"),
    [
        ([1, 0, 4], [4, 8, 12]),
        ([1, 4, 4], [4, 8, 13]),
        ([1, 4], [4, 8, 12]),
        ([2, 4, 4], [4, 8, 12]),
        ([1, 4.0, 4], [4, 8, 12]),
        ([1, -4, 4], [4, 8, 12]),
        ([], [4, 8, 12]),
        ("abc", [4, 8, 12]),
    ],
)
def test_a_damaged_layout_is_refused(tmp_path: Path, inner: Any, shard: list[int]):
    array = ShardedArray.create(
        tmp_path / "cam", dtype="<u2", shape=(8, 12), chunks=4, frames_per_shard=4
    )
    array.append(np.ones((8, 12), "<u2"))
    array.close()
    path = tmp_path / "cam" / "zarr.json"
    content = json.loads(path.read_bytes())
    content["codecs"][0]["configuration"]["chunk_shape"] = inner
    content["chunk_grid"]["configuration"]["chunk_shape"] = shard
    path.write_text(json.dumps(content))
    with pytest.raises(StoreReadError):
        FrameArray(tmp_path / "cam")


def test_index_of_a_shard_stays_small():
    shape = (1 << 14, 1 << 14)
    whole = frame_chunks("cam", shape, 128)
    assert Tiling(shape, whole).count == MOST_CHUNKS
    with pytest.raises(ValueError, match="pieces"):
        frame_chunks("cam", shape, 127)


def test_a_copy_in_a_backend_follows(tmp_path: Path, frames: Frames):
    data = frames(7, (8, 12))
    create_group(tmp_path)
    array = ShardedArray.create(
        tmp_path / "cam", dtype="<u2", shape=(8, 12), chunks=(4, 5), frames_per_shard=3
    )
    backend = MemoryBackend()

    def seen() -> np.ndarray[Any, Any]:
        found: Any = zarr.open_array(as_zarr_store(backend), path="x/cam", mode="r")
        assert found.chunks == (1, 4, 5)
        return np.asarray(found[...])

    uploader = StoreUploader(tmp_path, backend, "x")
    for frame in data[:5]:
        array.append(frame)
    array.publish()
    uploader.push()
    np.testing.assert_array_equal(seen(), data[:3])
    # Another process goes on where the first one stopped.
    uploader = StoreUploader(tmp_path, backend, "x")
    for frame in data[5:]:
        array.append(frame)
    array.close()
    uploader.close()
    np.testing.assert_array_equal(seen(), data)


WRITE = """
import sys
import numpy as np
from bluesky_beamtime.storage import FrameStore
store = FrameStore(sys.argv[1], name=lambda: "run", compression=sys.argv[2],
                   checksum=sys.argv[3] == "True", frames_per_shard=int(sys.argv[4]),
                   chunks=(100, 100))
sink = store.attach("cam", dtype="<u4", shape=(250, 330))
ramp = np.arange(250 * 330, dtype="<u4").reshape(250, 330)
number = 0
while True:
    sink.write(ramp + number)
    number += 1
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("turn", range(len(CODECS) * SCALE))
def test_kill_9(tmp_path: Path, turn: int):
    """Nothing acknowledged is lost, no byte is wrong, the length is exact."""
    compression, checksum = CODECS[turn % len(CODECS)]
    per_shard = (4, 64, 1)[turn % 3]
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", WRITE, str(tmp_path)),
            *(compression, str(checksum), str(per_shard)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    stop = int(np.random.default_rng(turn).integers(1, 120))
    written = 0
    for line in process.stdout:
        written = int(line)
        if written >= stop:
            break
    process.kill()
    written = max([written, *map(int, process.stdout.read().split())])
    process.stdout.close()
    process.wait()
    (store,) = tmp_path.glob("*/run")
    report = repair_store(store)
    assert report.ok, report.problems
    assert verify_store(store).ok
    ramp = np.arange(250 * 330, dtype="<u4").reshape(250, 330)
    ours = open_frames(store / "cam")
    # One more may have been written, whose acknowledgement did not get out.
    assert written <= len(ours) <= written + 1
    for number in range(len(ours)):
        np.testing.assert_array_equal(ours[number], ramp + number)
    last: Any = zarr.open_array(store / "cam", mode="r")
    assert last.shape[0] == len(ours)
    np.testing.assert_array_equal(last[-1], ramp + len(ours) - 1)
