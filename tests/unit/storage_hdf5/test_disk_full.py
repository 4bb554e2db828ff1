"""Disks that fill: gate R4 for HDF5."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage import (
    FrameSink,
    HDF5Writer,
    from_uri,
    open_frames,
    verify_store,
)

Begin = Callable[..., tuple[HDF5Writer, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]
SmallDisk = Callable[[int], Path]
DATASET = "/entry/data/data"


def fill(disk: Path) -> None:
    space = os.statvfs(disk)
    with open(disk / "filler", "ab") as file:
        file.write(bytes(space.f_bavail * space.f_frsize))


def refused(work: Callable[[], Any]) -> None:
    start = time.monotonic()
    with pytest.raises(StoreWriteError, match="free some space") as caught:
        work()
    assert time.monotonic() - start < 5
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith(".h5")


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_everything_acknowledged_is_readable_and_it_goes_on(
    begin: Begin, frames: Frames, small_disk: SmallDisk, compression: str, size: int
):
    """Two sources; every acknowledged frame can be published on the full disk."""
    disk = small_disk(768)
    (disk / "reserve").write_bytes(bytes(256 * 1024))
    _, sinks = begin(
        "a", "b", shape=(size, size), folder=disk / "store", compression=compression
    )
    data = frames(16, (size, size))
    counts = [0, 0]
    refusals = 0
    while refusals < 6:
        for number, sink in enumerate(sinks):
            try:
                sink.write(data[counts[number] % 16])
            except StoreWriteError as error:
                assert error.errno == errno.ENOSPC
                refusals += 1
            else:
                counts[number] += 1
    assert min(counts) > 5
    for number, sink in enumerate(sinks):
        refused(lambda sink=sink: [sink.write(frame) for frame in data])
        counts[number] = sink.frames_written
        assert sink.publish() == counts[number]
        with h5py.File(from_uri(sink.uri), "r", swmr=True) as file:
            assert len(file[DATASET]) == counts[number]
        found = open_frames(sink.uri, sink.mimetype)
        for index in {0, counts[number] // 2, counts[number] - 1}:
            np.testing.assert_array_equal(found[index], data[index % 16])

    os.unlink(disk / "reserve")
    for number, sink in enumerate(sinks):
        for _ in range(3):
            sink.write(data[counts[number] % 16])
            counts[number] += 1
        sink.set_attributes({"after": True})
        sink.close()
        found = open_frames(sink.uri, sink.mimetype)
        assert found.attrs["after"] is True
        whole = found[:]
        assert len(whole) == counts[number]
        for index in range(0, len(whole), 16):
            part = whole[index : index + 16]
            np.testing.assert_array_equal(part, data[: len(part)])
    assert verify_store(disk / "store").ok


def test_a_full_disk_at_every_step(begin: Begin, frames: Frames, small_disk: SmallDisk):
    """Made, joined, written, published, closed: an error or the work, never both."""
    disk = small_disk(256)
    fill(disk)
    refused(lambda: begin("cam", folder=disk / "one"))
    os.unlink(disk / "filler")
    writer, (sink,) = begin("cam", folder=disk / "one")
    data = frames(2, (4, 6))
    sink.write(data[0])
    fill(disk)
    refused(lambda: writer.prepare("late", "late", "<u2", (4, 6)))
    refused(lambda: [sink.write(data[1]) for _ in range(1000)])
    # Attributes that fit are renewed in place; those that do not are refused.
    sink.set_attributes({"small": 1})
    assert sink.publish() == sink.frames_written
    sink.set_attributes({"large": "x" * 5000})
    refused(sink.publish)
    assert open_frames(sink.uri, sink.mimetype).attrs["small"] == 1
    count = sink.frames_written
    refused(sink.close)
    assert sink.closed
    # Closed all the same, with its exact length.
    with h5py.File(from_uri(sink.uri), "r") as file:
        assert len(file[DATASET]) == count
        np.testing.assert_array_equal(file[DATASET][0], data[0])
    assert verify_store(disk / "one").ok


def test_closing_on_a_full_disk(begin: Begin, frames: Frames, small_disk: SmallDisk):
    """What was acknowledged last is published without any new room."""
    disk = small_disk(512)
    _, (sink,) = begin("cam", shape=(), folder=disk / "store")
    with pytest.raises(StoreWriteError):
        for number in range(1 << 20):
            sink.write(np.array(number % 60_000, "<u2"))
    count = sink.frames_written
    assert count > 1000
    sink.close()
    with h5py.File(from_uri(sink.uri), "r") as file:
        assert (file[DATASET][...] == np.arange(count) % 60_000).all()


def test_many_frames_at_once(begin: Begin, frames: Frames, small_disk: SmallDisk):
    """A leading part is kept, and its number is right."""
    disk = small_disk(512)
    _, (sink,) = begin("cam", shape=(20, 20), folder=disk / "store")
    data = frames(900, (20, 20))
    refused(lambda: sink.write_many(data))
    count = sink.frames_written
    assert 100 < count < 900
    sink.close()
    np.testing.assert_array_equal(open_frames(sink.uri, sink.mimetype)[:], data[:count])
