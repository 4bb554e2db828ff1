"""Disks that are full, slow to say so, read-only or gone: gate R4."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import StorageError, StoreWriteError
from bluesky_beamtime.storage import (
    FrameSink,
    FrameStore,
    ZarrWriter,
    from_uri,
    open_frames,
    repair_store,
    verify_store,
)

SmallDisk = Callable[[int], Path]
Frames = Callable[..., np.ndarray[Any, Any]]
SCALE = int(os.environ.get("BEAMTIME_TEST_SCALE", "1"))
CODECS = [("none", True), ("none", False), ("lz4", True), ("zstd", False)]


def fill(disk: Path, leave: int = 0) -> None:
    """Take all space but ``leave`` bytes."""
    free(disk)
    state = os.statvfs(disk)
    size = state.f_bavail * state.f_frsize - leave
    if size > 0:
        with open(disk / "filler", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)


def free(disk: Path) -> None:
    (disk / "filler").unlink(missing_ok=True)


def refused(work: Callable[[], Any]) -> StoreWriteError:
    """Return the error of a write that the disk has no room for."""
    start = time.monotonic()
    with pytest.raises(StoreWriteError) as caught:
        work()
    assert time.monotonic() - start < 5
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename is not None
    assert "free some space" in str(caught.value)
    return caught.value


def check(sink: FrameSink, data: np.ndarray[Any, Any]) -> None:
    """Read everything with a stock reader and with ours."""
    np.testing.assert_array_equal(open_frames(sink.uri)[:], data)
    stock = zarr.open_array(from_uri(sink.uri), mode="r")
    np.testing.assert_array_equal(np.asarray(stock[...]), data)


@pytest.mark.parametrize(("compression", "checksum"), CODECS)
@pytest.mark.parametrize("frames_per_shard", [1, 4, None])
def test_a_disk_that_fills(
    small_disk: SmallDisk,
    frames: Frames,
    compression: str,
    checksum: bool,
    frames_per_shard: int | None,
):
    """R4: a named error, everything acknowledged is readable, the same sink goes on."""
    disk = small_disk(2048)
    data = frames(120, (64, 128))
    store = FrameStore(
        disk / "x.zarr",
        name=lambda: "scan",
        compression=compression,
        checksum=checksum,
        frames_per_shard=frames_per_shard,
    )
    sink = store.attach("cam", dtype="<u2", shape=(64, 128))
    fill(disk, 400_000)
    stored: list[int] = []
    for turn in range(3):
        while True:
            number = len(stored) + turn
            try:
                sink.write(data[number])
            except StoreWriteError as error:
                assert error.errno == errno.ENOSPC
                break
            stored.append(number)
        assert sink.frames_written == len(stored)
        # It fails again and again, and what is there can be announced and read.
        # (Another frame might compress to a little less, and fit.)
        again = data[len(stored) + turn]
        refused(functools.partial(sink.write, again))
        assert store.writer.get_indices_written("cam") == len(stored)
        check(sink, data[stored])
        # Room for some frames more; the frame that failed is not asked for again.
        fill(disk, 100_000)
    free(disk)
    sink.write(data[119])
    stored.append(119)
    store.detach(sink)
    check(sink, data[stored])
    assert verify_store(disk / "x.zarr").ok
    assert len(stored) > 20


@pytest.mark.parametrize("end", ["close", "abort"])
def test_ending_on_a_full_disk(small_disk: SmallDisk, frames: Frames, end: str):
    """R4: the exact length is published although there is no byte left."""
    disk = small_disk(1024)
    data = frames(4, (8, 8))
    store = FrameStore(disk / "x.zarr", name=lambda: "scan", frames_per_shard=2)
    sink = store.attach("cam", dtype="<u2", shape=(8, 8))
    idle = store.attach("idle", dtype="<u2", shape=(8, 8))
    for frame in data:
        sink.write(frame)
    fill(disk)
    refused(lambda: sink.write_many(frames(200, (8, 8))))
    if end == "close":
        store.detach(sink)
        store.detach(idle)
    else:
        store.writer.abort()
    count = sink.frames_written
    assert count >= 4
    assert not store.writer.is_open
    assert len(open_frames(sink.uri)) == sink.frames_published == count
    np.testing.assert_array_equal(open_frames(sink.uri)[:4], data)
    assert open_frames(idle.uri).shape == (0, 8, 8)
    assert verify_store(disk / "x.zarr").ok


def test_write_many_keeps_the_leading_frames(small_disk: SmallDisk, frames: Frames):
    """R4: the count says how many are safe; the rest may be written again."""
    disk = small_disk(1024)
    data = frames(100, (64, 64))
    store = FrameStore(disk / "x.zarr", name=lambda: "scan", frames_per_shard=4)
    sink = store.attach("cam", dtype="<u2", shape=(64, 64))
    fill(disk, 200_000)
    refused(lambda: sink.write_many(data))
    safe = sink.frames_written
    assert 0 < safe < 100 and safe % 4 == 0
    assert sink.publish() == safe
    check(sink, data[:safe])
    free(disk)
    sink.write_many(data[safe:])
    store.detach(sink)
    check(sink, data)


def test_submitted_frames_fail_together(small_disk: SmallDisk, frames: Frames):
    """R4: the first that does not fit and those behind it; none out of its order."""
    disk = small_disk(1024)
    data = frames(60, (64, 64))
    store = FrameStore(disk / "x.zarr", name=lambda: "scan", compression="lz4")
    sink = store.attach("cam", dtype="<u2", shape=(64, 64))
    fill(disk, 200_000)
    futures = [sink.submit(frame) for frame in data]
    failures = [future.exception(30) for future in futures]
    safe = failures.index(next(filter(None, failures)))
    assert 0 < safe < 60
    assert [f.result() for f in futures[:safe]] == list(range(safe))
    # Frames that were submitted after the failure was over may fit again.
    later = [n for n in range(safe, 60) if failures[n] is None]
    for failure in filter(None, failures):
        assert isinstance(failure, StoreWriteError)
        assert failure.errno == errno.ENOSPC
    free(disk)
    assert sink.submit(data[0]).result(30) == safe + len(later)
    store.detach(sink)
    check(sink, data[[*range(safe), *later, 0]])


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_every_write_point(small_disk: SmallDisk, frames: Frames, kind: str):
    """R4: a whole acquisition, over and over, with some pages more room each time."""
    disk = small_disk(512)
    page = os.statvfs(disk).f_frsize
    data = frames(12, (30, 100))
    outcomes = set()
    options: dict[str, Any] = {"mimetype": f"application/x-{kind}"}
    if kind == "zarr":
        options["frames_per_shard"] = 2
    for pages in range(0, 45, 1 if SCALE > 1 else 2):
        folder = disk / f"try {pages}"
        store = FrameStore(folder, name=lambda: "scan", **options)
        fill(disk, pages * page)
        sinks: dict[str, FrameSink] = {}
        stored: dict[str, list[int]] = {"one": [], "two": []}

        def attempt(point: str, work: Callable[[], Any]) -> bool:
            try:
                work()
            except StoreWriteError as error:
                assert error.errno == errno.ENOSPC, error
                outcomes.add(point)
                return False
            return True

        def attach(
            name: str, store: FrameStore = store, sinks: dict[str, FrameSink] = sinks
        ) -> None:
            sinks[name] = store.attach(name, dtype="<u2", shape=(30, 100))

        for name in ("one", "two"):
            attempt(f"attach {name}", partial(attach, name))
        for number in range(6):
            for name, sink in sinks.items():
                frame = data[number]
                if attempt("write", partial(sink.write, frame)):
                    stored[name].append(number)
            for sink in sinks.values():
                attempt("publish", sink.publish)
                sink.set_attributes({"turn": number})
        for name, sink in sinks.items():
            assert sink.frames_written == len(stored[name])
        free(disk)
        # The same sinks go on, and those that could not attach now can.
        for name in ("one", "two"):
            if name not in sinks:
                attach(name)
            for number in range(6, 12):
                sinks[name].write(data[number])
                stored[name].append(number)
        for name, sink in sinks.items():
            store.detach(sink)
            read = open_frames(sink.uri, sink.mimetype)[:]
            np.testing.assert_array_equal(read, data[stored[name]])
        report = verify_store(folder)
        assert report.ok, report.problems
        assert len(report.arrays) == 2
        shutil.rmtree(folder)
    # Each of them was refused at least once: the steps were small enough.
    assert outcomes >= {"attach one", "attach two", "write"}


def test_a_late_camera_does_not_fit(small_disk: SmallDisk, frames: Frames):
    """R4: the one that is there goes on, the other can come when there is room."""
    disk = small_disk(512)
    store = FrameStore(disk / "x.zarr", name=lambda: "scan")
    one = store.attach("one", dtype="<u2", shape=(8, 8))
    one.write(frames(1, (8, 8))[0])
    fill(disk)
    refused(lambda: store.attach("two", dtype="<u2", shape=(8, 8)))
    # Nothing is left of it that readers would stumble over.
    group = zarr.open_group(from_uri(store.uri or ""), mode="r")
    assert [name for name, _ in group.members()] == ["one"]
    assert one.publish() == 1
    free(disk)
    two = store.attach("two", dtype="<u2", shape=(8, 8))
    assert two.name == "two"
    two.write(frames(1, (8, 8))[0])
    for sink in (one, two):
        store.detach(sink)
        assert len(open_frames(sink.uri)) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["pwritev", "open"])
def test_a_disk_that_refuses(
    tmp_path: Path,
    frames: Frames,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    call: str,
):
    """A named error with its number and file; the same sink goes on afterwards."""
    data = frames(3)
    store = FrameStore(tmp_path, name=lambda: "scan", frames_per_shard=1)
    sink = store.attach("cam", dtype="<u2", shape=(4, 6))
    sink.write(data[0])
    sink.publish()
    place = from_uri(sink.uri)
    real = getattr(os, call)

    def refuse(*args: Any, **options: Any) -> Any:
        # Other users of the disk, such as the pacer, are refused as well.
        if call == "pwritev" or str(args[0]).startswith(place):
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StoreWriteError) as caught:
            sink.write(data[1])
    assert caught.value.errno == number
    assert str(caught.value.filename).startswith(place)
    assert os.strerror(number) in str(caught.value)
    assert sink.frames_written == 1
    sink.write(data[2])
    store.detach(sink)
    check(sink, data[[0, 2]])


def until_refused(sink: FrameSink, frame: np.ndarray[Any, Any]) -> StorageError:
    """Write until somebody notices; it must be within a second."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            sink.write(frame)
        except StorageError as error:
            return error
    raise AssertionError("nobody noticed")


@pytest.mark.parametrize("what", ["array", "store"])
def test_a_folder_that_is_removed_meanwhile(tmp_path: Path, frames: Frames, what: str):
    """Frames go into a file without a name: that is noticed within a second."""
    store = FrameStore(tmp_path, name=lambda: "scan")
    sink = store.attach("cam", dtype="<u2", shape=(4, 6))
    sink.write(frames(1)[0])
    sink.publish()
    place = Path(from_uri(sink.uri))
    shutil.rmtree(place if what == "array" else place.parent)
    error = until_refused(sink, frames(1)[0])
    assert isinstance(error, StoreWriteError)
    assert error.errno == errno.ENOENT
    assert "folder is gone" in str(error)
    with pytest.raises(StoreWriteError):
        sink.publish()
    # It does not recover by itself: every frame is refused from now on.
    with pytest.raises(StoreWriteError):
        sink.write(frames(1)[0])
    with pytest.raises(StoreWriteError):
        store.detach(sink)
    # The next acquisition has nothing to do with it.
    sink = store.attach("cam", dtype="<u2", shape=(4, 6))
    sink.write(frames(1)[0])
    store.detach(sink)
    assert len(open_frames(sink.uri)) == 1


def test_a_disk_that_fails_to_sync(
    tmp_path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
):
    """What the pacer's thread could not bring to the disk fails the next frame."""
    store = FrameStore(tmp_path, name=lambda: "scan")
    sink = store.attach("cam", dtype="<u2", shape=(4, 6))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        error = until_refused(sink, frames(1)[0])
        assert isinstance(error, StoreWriteError) and error.errno == errno.EIO
    count = sink.frames_written
    deadline = time.monotonic() + 30
    while True:
        try:
            sink.write(frames(1)[0])
            break
        except StoreWriteError:
            assert time.monotonic() < deadline
    store.detach(sink)
    assert len(open_frames(sink.uri)) == count + 1


def test_power_durability_on_a_full_disk(small_disk: SmallDisk, frames: Frames):
    """R4: the same promises when every frame is fsynced."""
    disk = small_disk(512)
    data = frames(200, (16, 16))
    store = FrameStore(disk / "x.zarr", name=lambda: "scan", durability="power")
    sink = store.attach("cam", dtype="<u2", shape=(16, 16))
    fill(disk, 50_000)
    count = 0
    while count < 200:
        try:
            sink.write(data[count])
        except StoreWriteError as error:
            assert error.errno == errno.ENOSPC
            break
        count += 1
    assert sink.publish() == count < 200
    free(disk)
    sink.write(data[count])
    store.detach(sink)
    check(sink, data[: count + 1])


def test_repairing_on_a_full_disk(small_disk: SmallDisk, frames: Frames):
    """R4: refused by name, nothing is lost, and it works when there is room."""
    disk = small_disk(512)
    writer = ZarrWriter.get("dead")
    writer.set_uri(str(disk / "store"))
    sink = writer.prepare("cam", "cam", "<u2", (8, 8))
    writer.kickoff()
    data = frames(5, (8, 8))
    for frame in data:
        sink.write(frame)
    sink.close()
    metadata = disk / "store" / "cam" / "zarr.json"
    whole = metadata.read_text()
    metadata.write_text(whole.replace("[\n    5,", "[\n    2,", 1))
    fill(disk)
    try:
        repaired = repair_store(disk / "store")
    except StoreWriteError as error:
        assert error.errno == errno.ENOSPC
    else:
        assert repaired.repaired
    np.testing.assert_array_equal(open_frames(sink.uri)[:2], data[:2])
    free(disk)
    repair_store(disk / "store")
    check(sink, data)
