"""Blocks of large frames, which worker threads compress."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.storage import (
    FrameSink,
    HDF5Writer,
    ZarrWriter,
    from_uri,
    open_frames,
)
from bluesky_beamtime.storage.hdf5_file import HDF5File
from bluesky_beamtime.storage.sharded_array import ShardedArray

SHAPE = (512, 512)
FORMATS = [(ZarrWriter, ShardedArray), (HDF5Writer, HDF5File)]
both_formats = pytest.mark.parametrize(("writer", "array"), FORMATS)


def sink_in(folder: Path, kind: Any = ZarrWriter, **options: Any) -> FrameSink:
    writer = kind("blocks", compression="lz4", **options)
    writer.set_uri(str(folder / "store"))
    sink = writer.prepare("cam", "cam", "<u2", SHAPE)
    writer.kickoff()
    return sink


def block(count: int) -> np.ndarray[Any, Any]:
    frames = np.random.default_rng(1).poisson(5, (count, *SHAPE)).astype("<u2")
    frames[:, 0, 0] = np.arange(count)
    return frames


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("chunks", [None, (200, 512)])
def test_frames_keep_their_order(tmp_path: Path, threads: int, chunks: Any) -> None:
    sink = sink_in(tmp_path, threads=threads, chunks=chunks)
    frames = block(23)
    sink.write_many(frames[:20])
    sink.write(frames[20])
    sink.write_many(frames[21:])
    sink.close()
    np.testing.assert_array_equal(open_frames(sink.uri)[:], frames)
    stock = zarr.open_array(from_uri(sink.uri), mode="r")
    np.testing.assert_array_equal(np.asarray(stock[...]), frames)


@both_formats
def test_several_threads_compress(
    tmp_path: Path, monkeypatch: Any, writer: Any, array: Any
) -> None:
    """Two frames at a time: each waits for the other."""
    sink = sink_in(tmp_path, writer, threads=2)
    meeting = threading.Barrier(2)
    encode = array.encode

    def meet(self: Any, frame: Any) -> Any:
        meeting.wait(30)
        return encode(self, frame)

    monkeypatch.setattr(array, "encode", meet)
    sink.write_many(block(8))
    monkeypatch.undo()
    sink.close()
    np.testing.assert_array_equal(open_frames(sink.uri)[:], block(8))


@both_formats
def test_a_frame_that_fails_ends_the_block(
    tmp_path: Path, monkeypatch: Any, writer: Any, array: Any
) -> None:
    sink = sink_in(tmp_path, writer, threads=2)
    frames = block(12)
    encode = array.encode

    def fail(self: Any, frame: Any) -> Any:
        if frame[0, 0] == 5:
            raise MemoryError("no more")
        return encode(self, frame)

    monkeypatch.setattr(array, "encode", fail)
    with pytest.raises(MemoryError):
        sink.write_many(frames)
    monkeypatch.undo()
    assert sink.frames_written == 5
    sink.write_many(frames[5:])
    sink.close()
    np.testing.assert_array_equal(open_frames(sink.uri)[:], frames)


@both_formats
def test_a_callback_may_write_a_block(tmp_path: Path, writer: Any, array: Any) -> None:
    """From the only worker there is, which cannot wait for itself."""
    sink = sink_in(tmp_path, writer, threads=2)
    frames = block(6)
    done = threading.Event()

    def more(_: Any) -> None:
        sink.write_many(frames[1:])
        done.set()

    sink.submit(frames[0]).add_done_callback(more)
    assert done.wait(60)
    sink.close()
    np.testing.assert_array_equal(open_frames(sink.uri)[:], frames)
