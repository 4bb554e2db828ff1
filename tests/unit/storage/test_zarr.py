"""ZarrWriter: what it writes, any Zarr v3 reader reads, at every moment."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import (
    FrameMismatchError,
    PathError,
    StoreReadError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    ZarrWriter,
    from_uri,
    open_frames,
    verify_store,
)

Begin = Callable[..., tuple[ZarrWriter, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]

NUMBERS = [
    *("?", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8"),
    *("<f2", "<f4", "<f8", "<c8", "<c16"),
    *(">i2", ">i4", ">i8", ">u2", ">u4", ">u8", ">f2", ">f4", ">f8", ">c8", ">c16"),
]
SHAPES = [(), (5,), (4, 6), (3, 4, 2), (2, 3, 1, 2)]
CODECS = list(itertools.product(("none", "lz4", "zstd"), (True, False)))


def read_with_zarr(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_array(from_uri(uri), mode="r")[...])


def read_with_tensorstore(uri: str) -> np.ndarray[Any, Any]:
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": from_uri(uri)}}
    return np.asarray(tensorstore.open(spec, read=True).result().read().result())


def read_with_ours(uri: str) -> np.ndarray[Any, Any]:
    return open_frames(uri)[:]


READERS = [read_with_zarr, read_with_tensorstore, read_with_ours]


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    """Compare values, kind and size; a reader may choose its byte order."""
    assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(), (4, 6)], ids=str)
@pytest.mark.parametrize(("compression", "checksum"), CODECS, ids=str)
def test_r20_every_dtype_comes_back(
    begin: Begin,
    frames: Frames,
    shape: tuple[int, ...],
    compression: str,
    checksum: bool,
):
    """R-20: each dtype and byte order, rank, codec, over several shards."""
    writer, _ = begin(compression=compression, checksum=checksum, frames_per_shard=3)
    sinks = {}
    for dtype in NUMBERS:
        name = f"cam {dtype}"
        sinks[dtype] = writer.prepare(name, name, dtype, shape)
    for dtype, sink in sinks.items():
        data = frames(7, shape, dtype)
        sink.write(data[0])
        sink.write_many(data[1:6])
        sink.submit(data[6]).result(30)
    writer.abort()
    for dtype, sink in sinks.items():
        data = frames(7, shape, dtype)
        # The other readers take the longest; they see each dtype once per codec.
        readers = READERS if shape == (4, 6) else READERS[-1:]
        for read in readers:
            same(read(sink.uri), data)


@pytest.mark.parametrize("shape", [*SHAPES, (0,), (3, 0), (0, 4, 2)], ids=str)
def test_r20_every_rank_for_every_reader(
    begin: Begin, frames: Frames, shape: tuple[int, ...]
):
    """R-20: numbers, spectra, images, volumes; frames without a value as well."""
    writer, _ = begin(frames_per_shard=2)
    sinks = []
    for compression, checksum in CODECS:
        name = f"{compression} {checksum}"
        sinks.append(
            writer.prepare(
                name, name, "<f4", shape, compression=compression, checksum=checksum
            )
        )
    data = frames(5, shape, "<f4")
    for sink in sinks:
        sink.write_many(data)
        sink.close()
    for sink in sinks:
        for read in READERS:
            same(read(sink.uri), data)
    assert verify_store(writer.uri).ok


@pytest.mark.parametrize("dtype", ["U3", "S4", "M8[s]", "O", "g", [("a", "<u2")]])
def test_what_is_no_number_is_refused_when_prepared(begin: Begin, dtype: Any):
    writer, (cam,) = begin("cam")
    with pytest.raises(FrameMismatchError):
        writer.prepare("other", "other", dtype, (2, 3))
    assert set(writer.sources) == {"cam"}
    cam.close()


def test_views_are_written_as_they_look(begin: Begin, frames: Frames):
    """Strided, reversed, transposed and read-only frames."""
    _, (sink,) = begin("cam", shape=(4, 4))
    data = frames(1, (8, 8))[0]
    fixed = data[:4, :4].copy()
    fixed.flags.writeable = False
    views = [data[::2, ::2], data[3::-1, :4], data[:4, :4].T, fixed, data[4:, 4:]]
    for view in views:
        sink.write(view)
        sink.submit(view).result(30)
    sink.write_many(np.stack(views)[::-1])
    sink.close()
    stored = open_frames(sink.uri)[:]
    np.testing.assert_array_equal(stored[0:10:2], views)
    np.testing.assert_array_equal(stored[1:10:2], views)
    np.testing.assert_array_equal(stored[10:], views[::-1])


class TestReadersWhileWriting:
    def test_the_store_opens_before_the_first_frame(self, begin: Begin):
        """Group and array metadata are there as soon as kickoff returns."""
        writer, (sink,) = begin("cam")
        group = zarr.open_group(from_uri(writer.uri), mode="r")
        assert dict(group.arrays())["cam"].shape == (0, 4, 6)
        assert open_frames(sink.uri).shape == (0, 4, 6)
        late = writer.prepare("late", "late", "<f8", ())
        assert sorted(group.array_keys()) == ["cam", "late"]
        assert open_frames(late.uri).shape == (0,)

    def test_stock_readers_list_a_live_store_without_a_warning(self, begin: Begin):
        """What a writer keeps for itself is no member of the group."""
        writer, sinks = begin("one", "two")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                for sink in sinks:
                    sink.write(np.ones((4, 6), "<u2"))
                    sink.publish()
                group = zarr.open_group(from_uri(writer.uri), mode="r")
                assert len(dict(group.members(max_depth=None))) == 2
            for sink in sinks:
                sink.close()
                assert len(dict(group.members(max_depth=None))) == 2

    def test_every_published_frame_is_right_for_every_reader(
        self, begin: Begin, frames: Frames
    ):
        """After each frame, over shard borders, with each codec."""
        data = frames(9)
        writer, _ = begin(frames_per_shard=4)
        for compression, checksum in CODECS:
            name = f"{compression} {checksum}"
            sink = writer.prepare(
                name, name, "<u2", (4, 6), compression=compression, checksum=checksum
            )
            for number, frame in enumerate(data):
                sink.write(frame)
                assert sink.publish() == number + 1
                for read in READERS:
                    same(read(sink.uri), data[: number + 1])

    @pytest.mark.parametrize("compression", ["none", "lz4"])
    def test_another_process_never_sees_a_wrong_frame(
        self, begin: Begin, compression: str
    ):
        """A reader in a loop beside a writer at full speed, 16 frames to a file."""
        _, (sink,) = begin(
            "cam", shape=(32, 32), frames_per_shard=16, compression=compression
        )
        reader = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WATCH, from_uri(sink.uri)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdout is not None and reader.stdin is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(800):
            sink.write(np.full((32, 32), number, "<u2"))
            if number % 50 == 0:
                sink.publish()
        sink.close()
        reader.stdin.write("done\n")
        reader.stdin.close()
        said = reader.stdout.read().split()
        reader.stdout.close()
        assert reader.wait(60) == 0
        # It looked several times, saw the store grow, and its end.
        looks = [int(word) for word in said]
        assert looks[-1] == 800
        assert looks == sorted(looks)


# Reads with zarr-python and with our reader until it is told that writing is over.
WATCH = """
import select, sys
import numpy as np, zarr
from bluesky_beamtime.storage import open_frames
path = sys.argv[1]
print("ready", flush=True)
done = False
while True:
    done = bool(select.select([sys.stdin], [], [], 0)[0])
    stock = zarr.open_array(path, mode="r")
    ours = open_frames(path)
    lengths = stock.shape[0], len(ours)
    start = max(0, lengths[0] - 20)
    for read, first, last in ((stock, start, lengths[0]), (ours, start, lengths[1])):
        got = read[first:last]
        want = np.arange(first, last, dtype="u2")[:, None, None]
        assert got.shape == (last - first, 32, 32), got.shape
        assert (got == want).all(), (first, last)
    print(lengths[1])
    if done:
        break
"""


class TestLengths:
    @pytest.mark.parametrize("end", ["close", "abort", "complete"])
    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8])
    def test_the_length_is_exactly_the_frames(self, begin: Begin, end: str, count: int):
        """No padding, at, before and behind the border of a shard."""
        writer, (sink,) = begin("cam", frames_per_shard=4)
        for _ in range(count):
            sink.write(np.ones((4, 6), "<u2"))
        {"close": sink.close, "abort": writer.abort}.get(
            end, lambda: writer.complete("cam")
        )()
        assert read_with_zarr(sink.uri).shape == (count, 4, 6)
        assert sink.frames_published == sink.frames_written == count
        shards = [n for n in os.listdir(from_uri(sink.uri)) if n.startswith("c.")]
        assert len(shards) == -(-count // 4)

    def test_nothing_but_data_is_left_after_close(self, begin: Begin, tmp_path: Path):
        """Locks, reserves and partial files belong to a live writer."""
        writer, (sink,) = begin("cam")
        sink.write(np.ones((4, 6), "<u2"))
        sink.publish()
        sink.close()
        left = {
            name
            for _, _, names in os.walk(from_uri(writer.uri))
            for name in names
            if name != ".layout.json"
        }
        assert left == {"zarr.json", "c.0.0.0"}


class TestMetadata:
    def test_what_the_array_says(self, begin: Begin):
        """dtype, units, axis names and data key, for any reader."""
        writer, _ = begin()
        sink = writer.prepare(
            "array", "key", ">u2", (4, 6), units="counts", dims=("row", "column")
        )
        sink.write(np.ones((4, 6), ">u2"))
        sink.close()
        array = zarr.open_array(from_uri(sink.uri), mode="r")
        assert array.metadata.dimension_names == ("time", "row", "column")
        assert array.attrs["units"] == "counts"
        assert array.attrs["data_key"] == "key"
        assert open_frames(sink.uri).dims == ("time", "row", "column")
        assert json.loads((Path(from_uri(sink.uri)) / "zarr.json").read_bytes())[
            "codecs"
        ][0]["configuration"]["codecs"][0]["configuration"] == {"endian": "big"}
        assert array.chunks == (1, 4, 6) == sink.chunk_shape

    @pytest.mark.parametrize(
        ("shape", "names"),
        [
            ((), []),
            ((5,), ["k_x"]),
            ((4, 6), ["k_y", "k_x"]),
            ((2, 4, 6), ["k_z", "k_y", "k_x"]),
            ((1, 2, 3, 4), ["k_dim0", "k_dim1", "k_dim2", "k_dim3"]),
        ],
    )
    def test_axes_have_names_by_default(
        self, begin: Begin, shape: tuple[int, ...], names: list[str]
    ):
        """So that cameras of different sizes share a Dataset."""
        writer, _ = begin()
        sink = writer.prepare("array", "k", "<u2", shape)
        assert list(open_frames(sink.uri).dims) == ["time", *names]

    def test_ome_ngff_on_request(self, begin: Begin):
        """Axes, scale and units as imaging programs read them; none without asking."""
        writer, (plain,) = begin("plain")
        sink = writer.prepare(
            "cam",
            "cam",
            "<u2",
            (4, 6),
            ome_ngff=True,
            pixel_size=(0.5, 0.25),
            pixel_unit="micrometer",
        )
        writer.prepare("volume", "volume", "<u2", (2, 4, 6), ome_ngff=True)
        group = zarr.open_group(from_uri(writer.uri), mode="r")
        cam, volume = group.attrs["ome"]["multiscales"]
        assert group.attrs["ome"]["version"] == "0.5"
        assert [axis["name"] for axis in cam["axes"]] == ["t", "y", "x"]
        assert [axis.get("unit") for axis in cam["axes"]] == [
            None,
            "micrometer",
            "micrometer",
        ]
        (dataset,) = cam["datasets"]
        assert dataset["path"] == "cam"
        assert dataset["coordinateTransformations"] == [
            {"type": "scale", "scale": [1.0, 0.5, 0.25]}
        ]
        assert [axis["name"] for axis in volume["axes"]] == ["t", "z", "y", "x"]
        assert group[dataset["path"]].ndim == len(cam["axes"])
        sink.write(np.ones((4, 6), "<u2"))
        plain.close()
        sink.close()

    @pytest.mark.parametrize(
        ("shape", "size"), [((), None), ((5,), None), ((4, 6), (1.0,))]
    )
    def test_ome_ngff_that_does_not_fit_is_refused(
        self, begin: Begin, shape: tuple[int, ...], size: Any
    ):
        """When the source is prepared, and nothing is registered."""
        writer, _ = begin()
        with pytest.raises(ValueError, match="dimensions"):
            writer.prepare("x", "x", "<u2", shape, ome_ngff=True, pixel_size=size)
        assert writer.sources == {}

    def test_the_metadata_is_plain_zarr(self, begin: Begin):
        """Version 3, sharded, the index in front and without a checksum."""
        _, (sink,) = begin("cam", frames_per_shard=8)
        metadata = json.loads((Path(from_uri(sink.uri)) / "zarr.json").read_bytes())
        (codec,) = metadata["codecs"]
        assert metadata["zarr_format"] == 3
        assert codec["name"] == "sharding_indexed"
        assert codec["configuration"]["index_location"] == "start"
        assert [c["name"] for c in codec["configuration"]["index_codecs"]] == ["bytes"]
        assert codec["configuration"]["chunk_shape"] == [1, 4, 6]
        assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [8, 4, 6]


@pytest.mark.parametrize(
    "uri",
    [
        *("relative", "relative/path", "file:relative", "s3://bucket/x", "memory:x"),
        *("https://host/x", " ", "~/x", "file:///a%00b", "/a\0b", "C:/x"),
    ],
)
def test_r10_what_it_cannot_write_to_is_refused_at_once(uri: str):
    """R-10: relative, remote, no scheme, another scheme, no name of a file."""
    writer = ZarrWriter.get("uris")
    with pytest.raises(PathError):
        writer.set_uri(uri)
    assert writer.uri == ""


@pytest.mark.parametrize("folder", ["a b", "a#b?c", "ä", "%20", "x.zarr", "a/b/c"])
def test_r51_r12_the_uri_is_that_of_the_folder(
    begin: Begin, tmp_path: Path, folder: str
):
    """R-51, R-12: no suffix is added, escapes are undone, documents lead there."""
    writer, (sink,) = begin("cam", folder=folder)
    sink.write(np.ones((4, 6), "<u2"))
    documents = dict(writer.collect_stream_docs("cam", 1))
    uri = documents["stream_resource"]["uri"]
    assert Path(from_uri(uri)) == tmp_path / folder / "cam"
    assert uri == sink.uri
    sink.close()
    assert read_with_zarr(uri).shape == (1, 4, 6)


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "a/b", "a\\b", "a\0b", "/", "__x", ".x", "zarr.json", "x" * 201),
        *("\ud800", "\udcff"),
    ],
)
def test_a_name_that_is_no_folder_is_refused_when_prepared(begin: Begin, name: str):
    writer, (cam,) = begin("cam")
    with pytest.raises(PathError):
        writer.prepare(name, "key", "<u2", (4, 6))
    assert set(writer.sources) == {"cam"}
    cam.close()


@pytest.mark.parametrize("option", [{"compression": "gzip"}, {"frames_per_shard": 0}])
def test_options_of_a_source_are_checked_when_prepared(
    begin: Begin, option: dict[str, Any]
):
    writer, _ = begin()
    with pytest.raises(ValueError):
        writer.prepare("cam", "cam", "<u2", (4, 6), **option)
    with pytest.raises(TypeError, match="compresion"):
        writer.prepare("cam", "cam", "<u2", (4, 6), compresion="lz4")
    assert writer.sources == {}


class TestWhatIsThereAlready:
    def test_an_array_that_holds_frames_is_refused_by_kickoff(
        self, begin: Begin, tmp_path: Path
    ):
        """Not one byte of it changes; another URI can be chosen at once."""
        writer, (sink,) = begin("cam")
        sink.write(np.ones((4, 6), "<u2"))
        sink.close()
        before = {
            path: path.read_bytes()
            for path in (tmp_path / "store").rglob("*")
            if path.is_file()
        }
        with pytest.raises(StoreStateError, match="holds frames"):
            begin("new", "cam", writer=writer)
        for path, content in before.items():
            assert path.read_bytes() == content
        assert not writer.is_open
        writer.set_uri(str(tmp_path / "other"))
        writer.kickoff()
        assert writer.is_open

    def test_a_late_source_whose_array_holds_frames_is_refused(
        self, begin: Begin, tmp_path: Path
    ):
        """The store that is open goes on."""
        writer, (sink,) = begin("old")
        sink.write(np.ones((4, 6), "<u2"))
        sink.close()
        writer, (cam,) = begin("cam", writer=writer)
        with pytest.raises(StoreStateError, match="holds frames"):
            writer.prepare("old", "old", "<u2", (4, 6))
        cam.write(np.ones((4, 6), "<u2"))
        cam.close()
        assert len(open_frames(sink.uri)) == len(open_frames(cam.uri)) == 1

    def test_another_acquisition_may_join_a_store(self, begin: Begin):
        """Other sources in the same folder; its attributes stay."""
        writer, (one,) = begin("one")
        one.write(np.ones((4, 6), "<u2"))
        one.close()
        _, (two,) = begin("two", writer=writer)
        two.write(np.ones((4, 6), "<u2"))
        two.close()
        group = zarr.open_group(from_uri(writer.uri), mode="r")
        assert sorted(group.array_keys()) == ["one", "two"]

    @pytest.mark.parametrize("kind", ["file", "folder", "array", "group"])
    def test_something_else_is_never_overwritten(
        self, begin: Begin, tmp_path: Path, kind: str
    ):
        """A file, a folder with files, a stock array or group of the source's name."""
        place = tmp_path / "store" / "cam"
        place.parent.mkdir()
        if kind == "file":
            place.write_text("notes")
        elif kind == "folder":
            place.mkdir()
            (place / "notes.txt").write_text("notes")
        elif kind == "array":
            zarr.create_array(place, shape=(3,), dtype="u1")[:] = 7
        else:
            zarr.create_group(place).create_array("x", shape=(3,), dtype="u1")
        before = {
            path: path.read_bytes() for path in place.rglob("*") if path.is_file()
        }
        with pytest.raises((StoreStateError, StoreWriteError)):
            begin("cam")
        assert {
            path: path.read_bytes() for path in place.rglob("*") if path.is_file()
        } == before
        assert place.exists()

    def test_a_store_that_is_an_array_is_refused(self, begin: Begin, tmp_path: Path):
        zarr.create_array(tmp_path / "store", shape=(3,), dtype="u1")[:] = 7
        with pytest.raises(StoreReadError, match="array"):
            begin("cam")
        assert (zarr.open_array(tmp_path / "store", mode="r")[:] == 7).all()
