"""HDF5Writer: what other programs find in its files."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.errors import (
    CapacityError,
    FrameMismatchError,
    MetadataError,
    MissingExtraError,
    PathError,
    SinkClosedError,
    StorageError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    FrameStore,
    HDF5Writer,
    from_uri,
    make_writer,
    open_frames,
    register_metadata,
    verify_store,
)
from bluesky_beamtime.storage.files import FolderLock

Begin = Callable[..., tuple[HDF5Writer, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]

DATASET = "/entry/data/data"
DTYPES = "<u1 <u2 >u2 <i4 >i4 <u8 <i8 <f2 <f4 <f8 >f8 <c8 <c16 ?"


def stored(sink: FrameSink, **options: Any) -> np.ndarray[Any, Any]:
    """Read all frames with plain h5py."""
    with h5py.File(from_uri(sink.uri), "r", **options) as file:
        return file[DATASET][...]


def attributes(sink: FrameSink) -> dict[str, Any]:
    with h5py.File(from_uri(sink.uri), "r", swmr=True) as file:
        return dict(file[DATASET].attrs)


def test_it_is_made_by_its_mimetype():
    writer = make_writer("application/x-hdf5", "by mimetype", compression="gzip")
    assert isinstance(writer, HDF5Writer)
    assert make_writer("application/x-hdf5", "by mimetype") is writer
    with pytest.raises(StoreStateError, match="other options"):
        make_writer("application/x-hdf5", "by mimetype", compression="lz4")


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "bluesky_beamtime.storage.hdf5.find_spec",
        lambda name: None if name == "h5py" else real(name),
    )
    with pytest.raises(MissingExtraError, match=r"bluesky-beamtime\[hdf5\]") as caught:
        make_writer("application/x-hdf5", "nobody")
    assert caught.value.extra == "hdf5"


@pytest.mark.parametrize("shape", [(), (5,), (4, 6), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES.split())
def test_every_dtype_and_rank(
    begin: Begin, frames: Frames, dtype: str, shape: tuple[int, ...]
):
    """Plain h5py reads what went in, while the file is open and afterwards."""
    _, (sink,) = begin("cam", dtype=dtype, shape=shape)
    data = frames(25, shape, dtype)
    for number in range(5):
        sink.write(data[number, ...])
    assert sink.publish() == 5
    live = stored(sink, swmr=True)
    np.testing.assert_array_equal(live, data[:5])
    assert live.dtype == np.dtype(dtype)
    for number in range(5, 25):
        sink.write(data[number, ...])
    sink.close()
    after = stored(sink)
    np.testing.assert_array_equal(after, data)
    assert after.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(
        open_frames(sink.uri, sink.mimetype, sink.parameters)[:], data
    )


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">f8", "<c16"])
def test_every_compression(begin: Begin, frames: Frames, compression: Any, dtype: str):
    """Stock readers undo it; lz4 and zstd need the plugins."""
    if compression in ("lz4", "zstd"):
        pytest.importorskip("hdf5plugin")
    _, (sink,) = begin("cam", dtype=dtype, shape=(40, 30), compression=compression)
    data = frames(6, (40, 30), dtype).copy()
    data[3:] = 0
    sink.write_many(data)
    sink.close()
    np.testing.assert_array_equal(stored(sink), data)
    found = open_frames(sink.uri, sink.mimetype, sink.parameters)
    np.testing.assert_array_equal(found[:], data)
    with h5py.File(from_uri(sink.uri), "r") as file:
        sizes = [
            file[DATASET].id.get_chunk_info_by_coord((n, 0, 0)).size for n in range(6)
        ]
    assert (sizes[5] < data[0].nbytes / 10) == (compression != "none")


def test_fifty_thousand_small_frames(begin: Begin):
    """The index grows through all of its kinds of blocks."""
    _, (sink,) = begin("cam", dtype="<u4", shape=(3,))
    data = np.arange(150_000, dtype="<u4").reshape(-1, 3)
    for start in range(0, len(data), 999):
        sink.write_many(data[start : start + 999])
    sink.close()
    np.testing.assert_array_equal(stored(sink), data)
    np.testing.assert_array_equal(open_frames(sink.uri, sink.mimetype)[:], data)


def test_one_file_for_each_source(begin: Begin, frames: Frames):
    """Layout, chunks and limits are as promised; nothing else lies in the folder."""
    writer, sinks = begin("one", "two")
    data = frames(3)
    for sink in sinks:
        sink.write_many(data)
    writer.flush()
    names = {path.name for path in writer.path.iterdir()}
    assert names == {"one.h5", "two.h5", FolderLock.NAME}
    for sink in sinks:
        assert sink.uri == f"file://localhost{writer.path}/{sink.name}.h5"
        with h5py.File(from_uri(sink.uri), "r", swmr=True) as file:
            dataset = file[DATASET]
            assert dataset.chunks == sink.chunk_shape == (1, 4, 6)
            assert dataset.maxshape == (None, 4, 6)
        sink.close()
    assert {path.name for path in writer.path.iterdir()} == {"one.h5", "two.h5"}


def test_documents_are_what_stock_consolidators_take(begin: Begin, frames: Frames):
    writer, (sink,) = begin("cam")
    sink.write_many(frames(3))
    (_, resource), (_, datum) = writer.collect_stream_docs("cam", 3)
    assert resource["mimetype"] == "application/x-hdf5"
    assert resource["uri"] == sink.uri
    assert resource["parameters"] == {
        "dataset": DATASET,
        "chunk_shape": [1, 4, 6],
        "swmr": True,
    }
    assert datum["indices"] == {"start": 0, "stop": 3}
    path, place = from_uri(resource["uri"]), resource["parameters"]["dataset"]
    with h5py.File(path, "r", swmr=resource["parameters"]["swmr"]) as file:
        assert len(file[place]) == 3


def test_units_dims_and_metadata_are_attributes(begin: Begin, frames: Frames):
    register_metadata("cam", {"gain": 2, "roi": {"x": [0, 4]}})
    register_metadata("stage", {"speed": 0.5})
    source = {"units": "counts", "dims": ("row", "column")}
    _, (sink,) = begin("cam", source=source)
    sink.set_attributes({"accounting": {"written": 1}, "note": "before"})
    sink.write(frames(1)[0])
    sink.publish()
    found = attributes(sink)
    assert found["units"] == b"counts"
    assert found["data_key"] == b"cam"
    assert found["note"] == b"before"
    assert json.loads(found["accounting"]) == {"written": 1}
    assert json.loads(found["metadata"]) == {"gain": 2, "roi": {"x": [0, 4]}}
    assert found["dimension_names"].tolist() == [b"time", b"row", b"column"]
    sink.close()
    with h5py.File(from_uri(sink.uri), "r") as file:
        everything = json.loads(file["entry"].attrs["metadata"])
    assert everything == {
        "cam": {"gain": 2, "roi": {"x": [0, 4]}},
        "stage": {"speed": 0.5},
    }
    ours = open_frames(sink.uri, sink.mimetype)
    assert ours.attrs["metadata"] == {"gain": 2, "roi": {"x": [0, 4]}}
    assert (ours.units, ours.dims) == ("counts", ("time", "row", "column"))


def test_attributes_are_renewed_and_grow(begin: Begin, frames: Frames):
    """At every publish, to many times their first size, frames in between."""
    _, (sink,) = begin("cam")
    data = frames(60)
    for number in range(60):
        sink.write(data[number])
        sink.set_attributes({"count": number, "text": "x" * (number * 199)})
        sink.publish()
        found = attributes(sink)
        assert found["count"] == number
        assert len(found["text"]) == number * 199
        assert open_frames(sink.uri, sink.mimetype).attrs["count"] == number
    sink.close()
    np.testing.assert_array_equal(stored(sink), data)
    assert attributes(sink)["count"] == 59
    assert verify_store(sink.uri).ok


def test_attributes_that_are_no_json_are_refused(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam")
    with pytest.raises(MetadataError):
        sink.set_attributes({"bad": float("nan")})
    sink.write(frames(1)[0])
    sink.close()
    assert len(stored(sink)) == 1


def test_a_late_source_joins(begin: Begin, frames: Frames):
    writer, (one,) = begin("one")
    one.write_many(frames(3))
    register_metadata("two", {"late": True})
    two = writer.prepare("two", "two", "<f4", (2, 2), compression="gzip")
    two.write_many(frames(4, (2, 2), "<f4"))
    assert two.publish() == len(stored(two, swmr=True)) == 4
    one.close()
    assert writer.is_open
    two.close()
    assert not writer.is_open
    np.testing.assert_array_equal(stored(two), frames(4, (2, 2), "<f4"))
    assert json.loads(attributes(two)["metadata"]) == {"late": True}


def test_refusals_write_nothing(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam", source={"capacity": 3})
    data = frames(4)
    sink.write(data[0])
    with pytest.raises(FrameMismatchError):
        sink.write(data[0].astype("<f4"))
    with pytest.raises(FrameMismatchError):
        sink.write(data[0][:2])
    with pytest.raises(CapacityError):
        sink.write_many(data)
    sink.write_many(data[1:3])
    with pytest.raises(CapacityError):
        sink.write(data[3])
    sink.close()
    with pytest.raises(SinkClosedError):
        sink.write(data[3])
    np.testing.assert_array_equal(stored(sink), data[:3])


def test_what_hdf5_cannot_hold_is_refused_at_once():
    writer = HDF5Writer.get("refusing")
    with pytest.raises(FrameMismatchError, match="at least one value"):
        writer.prepare("a", "a", "<u2", (0, 4))
    with pytest.raises(FrameMismatchError, match="less than 4 GiB"):
        writer.prepare("a", "a", "<f8", (1 << 15, 1 << 14))
    with pytest.raises(FrameMismatchError, match="32 dimensions"):
        writer.prepare("a", "a", "<u2", (1,) * 32)
    with pytest.raises(FrameMismatchError):
        writer.prepare("a", "a", "U4", (2,))
    with pytest.raises(TypeError, match="'frames_per_shard'"):
        writer.prepare("a", "a", "<u2", (2,), frames_per_shard=3)
    with pytest.raises(StorageError, match="'snappy' is not known"):
        writer.prepare("a", "a", "<u2", (2,), compression="snappy")
    with pytest.raises(StorageError, match="'snappy' is not known"):
        HDF5Writer("other", compression="snappy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="durability"):
        HDF5Writer("other", durability="never")  # type: ignore[arg-type]
    for name in ("../up", "a/b", ".hidden", ""):
        with pytest.raises(PathError):
            writer.prepare(name, "a", "<u2", (2,))
    with pytest.raises(PathError, match="local disk"):
        writer.set_uri("s3://bucket/store")
    assert writer.sources == {}


def test_thirty_one_dimensions(begin: Begin, frames: Frames):
    """As many as HDF5 has beside that of the frames."""
    shape = (1,) * 30 + (3,)
    _, (sink,) = begin("cam", shape=shape)
    data = frames(3, shape)
    sink.write_many(data)
    sink.close()
    np.testing.assert_array_equal(stored(sink), data)


def test_a_file_with_frames_is_never_written_over(
    begin: Begin, frames: Frames, tmp_path: Path
):
    _, (sink,) = begin("cam")
    sink.write_many(frames(2))
    sink.close()
    before = Path(from_uri(sink.uri)).read_bytes()
    with pytest.raises(StoreStateError, match="already holds frames"):
        begin("cam")
    assert Path(from_uri(sink.uri)).read_bytes() == before
    foreign = tmp_path / "store" / "other.h5"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(StoreStateError, match="none of ours"):
        begin("other")
    assert foreign.read_bytes() == b"somebody's"
    # The failed kickoffs have left no lock and no open writer behind.
    _, (fine,) = begin("fine")
    fine.write(frames(1)[0])
    fine.close()


def test_a_file_without_frames_may_be_made_again(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam")
    sink.close()
    assert len(stored(sink)) == 0
    _, (sink,) = begin("cam", dtype="<f4")
    sink.write_many(frames(2, dtype="<f4"))
    sink.close()
    np.testing.assert_array_equal(stored(sink), frames(2, dtype="<f4"))


def test_two_live_writers_cannot_share_a_folder(begin: Begin, frames: Frames):
    _, (sink,) = begin("one")
    with pytest.raises(StoreStateError, match="another live writer"):
        begin("two")
    sink.write(frames(1)[0])
    sink.close()
    assert len(stored(sink)) == 1


def test_abort_keeps_the_exact_length(begin: Begin, frames: Frames):
    writer, sinks = begin("one", "two", "never")
    sinks[0].write_many(frames(7))
    sinks[1].write_many(frames(3))
    writer.abort()
    assert [len(stored(sink)) for sink in sinks] == [7, 3, 0]
    assert not FolderLock.is_held(writer.path)
    assert verify_store(writer.path).ok
    writer.abort()


def test_a_source_that_begins_after_the_others_ended(begin: Begin, frames: Frames):
    """Its file stays open, and nobody else may have the folder meanwhile."""
    writer, (one, two) = begin("one", "two")
    one.write_many(frames(2))
    one.close()
    assert not writer.is_open
    assert FolderLock.is_held(writer.path)
    two.write_many(frames(3))
    assert writer.is_open
    two.close()
    assert not FolderLock.is_held(writer.path)
    assert [len(stored(sink)) for sink in (one, two)] == [2, 3]


def test_a_source_that_never_begins_is_closed_with_the_next_acquisition(
    begin: Begin, frames: Frames
):
    writer, (one, never) = begin("one", "never")
    one.write(frames(1)[0])
    one.close()
    open_files = len(os.listdir("/proc/self/fd"))
    writer.set_uri(f"{writer.path}_next")
    again = writer.prepare("one", "one", "<u2", (4, 6))
    writer.kickoff()
    assert len(stored(never)) == 0
    again.close()
    # That of the source which never began is closed, and so is the new one.
    assert len(os.listdir("/proc/self/fd")) < open_files
    assert verify_store(writer.path).ok


def test_no_file_stays_open(begin: Begin, frames: Frames):
    before = set(os.listdir("/proc/self/fd"))
    writer, sinks = begin("one", "two")
    for sink in sinks:
        sink.write_many(frames(3))
        sink.close()
    open_frames(sinks[0].uri, writer.mimetype)[:]
    assert set(os.listdir("/proc/self/fd")) <= before


def test_submitted_frames_come_in_order(begin: Begin, frames: Frames):
    _, (sink,) = begin("cam", compression="gzip", threads=3)
    data = frames(200)
    futures = [sink.submit(frame) for frame in data]
    assert [future.result() for future in futures] == list(range(200))
    sink.close()
    np.testing.assert_array_equal(stored(sink), data)


def test_sources_in_threads_and_readers_in_the_same_process(
    begin: Begin, frames: Frames
):
    """h5py's lock, held by a reader, stops nobody who writes."""
    _, sinks = begin("one", "two", "three")
    data = frames(400)
    errors: list[BaseException] = []
    done = threading.Event()

    def write(sink: FrameSink) -> None:
        try:
            for number, frame in enumerate(data):
                sink.write(frame)
                if number % 20 == 0:
                    sink.publish()
        except BaseException as error:
            errors.append(error)

    def read(swmr: bool) -> None:
        try:
            while not done.is_set():
                for sink in sinks:
                    found = (
                        stored(sink, swmr=True)
                        if swmr
                        else open_frames(sink.uri, sink.mimetype)[:]
                    )
                    np.testing.assert_array_equal(found, data[: len(found)])
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read, args=(swmr,)) for swmr in (True, False)]
    writers = [threading.Thread(target=write, args=(sink,)) for sink in sinks]
    with h5py._hl.base.phil:
        # Writing ends while this thread keeps the HDF5 library to itself.
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join(60)
        assert not any(thread.is_alive() for thread in writers)
    for thread in readers:
        thread.start()
    for sink in sinks:
        sink.close()
    done.set()
    for thread in readers:
        thread.join(60)
    assert errors == []
    for sink in sinks:
        np.testing.assert_array_equal(stored(sink), data)


def test_a_closed_file_may_be_changed_by_others(begin: Begin, frames: Frames):
    """The library extends it, and then reads all of it; so does our reader."""
    _, (sink,) = begin("cam")
    data = frames(30)
    sink.write_many(data)
    sink.close()
    with h5py.File(from_uri(sink.uri), "r+") as file:
        dataset = file[DATASET]
        dataset.resize(3000, axis=0)
        dataset[30:] = np.arange(2970, dtype="<u2")[:, None, None]
        dataset.attrs["seen"] = "yes"
        file["entry"]["more"] = np.arange(1000)
    found = stored(sink)
    np.testing.assert_array_equal(found[:30], data)
    assert (found[30:, 0, 0] == np.arange(2970)).all()
    ours = open_frames(sink.uri, sink.mimetype)
    np.testing.assert_array_equal(ours[:], found)
    assert ours.attrs["seen"] == "yes"
    # It is theirs now: neither checked nor mended by us.
    report = verify_store(sink.uri)
    assert report.ok
    assert report.arrays["cam.h5"].published == 3000


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_removed_meanwhile_is_told(begin: Begin, frames: Frames, what: str):
    """By the next publish, which is 25 ms away at most."""
    writer, (sink,) = begin("cam")
    sink.write(frames(1)[0])
    sink.publish()
    os.unlink(from_uri(sink.uri))
    if what == "folder":
        os.unlink(writer.path / FolderLock.NAME)
        os.rmdir(writer.path)
    sink.write(frames(1)[0])
    with pytest.raises(StoreWriteError, match="is gone"):
        while True:
            sink.publish()
            sink.write(frames(1)[0])
    with pytest.raises(StoreWriteError):
        sink.close()
    assert sink.closed


def test_frame_store(tmp_path: Path, frames: Frames):
    """Two devices and a scalar beside them, in a folder with a name."""
    store = FrameStore(
        tmp_path, name=lambda: "count_00007", mimetype="application/x-hdf5"
    )
    data = frames(5)
    cam = store.attach("cam", dtype="<u2", shape=(4, 6), units="counts")
    clock = store.attach(
        "cam_time", dtype="<f8", shape=(), units="s", metadata={"clock": "ntp"}
    )
    for number in range(5):
        cam.write(data[number])
        clock.write(float(number))
    assert from_uri(cam.uri).endswith("/count_00007/cam.h5")
    assert store.uri is not None
    store.detach(cam)
    store.detach(clock)
    assert store.uri is None
    np.testing.assert_array_equal(stored(cam), data)
    assert stored(clock).tolist() == [0, 1, 2, 3, 4]
    assert not list(tmp_path.rglob("zarr.json"))
    again = store.attach("cam", dtype="<u2", shape=(4, 6))
    assert from_uri(again.uri).endswith("/count_00007_2/cam.h5")
    store.detach(again)
    assert verify_store(tmp_path).ok
