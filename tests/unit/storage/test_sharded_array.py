"""One array that grows: appended, published, closed, opened again."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import (
    FrameMismatchError,
    FrameReadError,
    MetadataError,
    SinkClosedError,
    StoreReadError,
    StoreStateError,
    StoreWriteError,
)
from bluesky_beamtime.storage import (
    ShardedArray,
    open_frames,
    repair_store,
    reserve,
    shards,
    verify_store,
)
from bluesky_beamtime.storage.layout import default_frames_per_shard
from bluesky_beamtime.storage.shards import ShardFile

Frames = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "array"


def create(path: Path, **options: Any) -> ShardedArray:
    return ShardedArray.create(path, **{"dtype": "<u2", "shape": (4, 6), **options})


def test_append_returns_the_index(path: Path, frames: Frames):
    array = create(path, frames_per_shard=3)
    assert [array.append(frame) for frame in frames(7)] == list(range(7))
    assert array.length == 7
    array.close()
    np.testing.assert_array_equal(open_frames(path)[:], frames(7))


def test_append_many_crosses_shards(path: Path, frames: Frames):
    """More chunks than fit one system call, over several files."""
    data = frames(1300, (2, 2))
    array = create(path, shape=(2, 2), frames_per_shard=600)
    assert array.append_many([array.encode(frame) for frame in data[:1250]]) == 1250
    assert array.append_many([array.encode(frame) for frame in data[1250:]]) == 1300
    array.close()
    np.testing.assert_array_equal(open_frames(path)[:], data)


@pytest.mark.parametrize("wrong", [np.zeros((4, 6)), np.zeros((6, 4), "<u2"), 3])
def test_frames_that_do_not_fit_are_refused(path: Path, wrong: Any):
    array = create(path)
    with pytest.raises(FrameMismatchError):
        array.append(wrong)
    assert array.length == 0


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"frames_per_shard": 0}, ValueError),
        ({"frames_per_shard": -3}, ValueError),
        ({"compression": "gzip"}, ValueError),
        ({"shape": (-1, 2)}, FrameMismatchError),
        ({"shape": (2.5,)}, FrameMismatchError),
        ({"dtype": "U4"}, FrameMismatchError),
        ({"attributes": {"x": object()}}, MetadataError),
    ],
)
def test_what_cannot_be_created_leaves_nothing(
    path: Path, option: dict[str, Any], error: type[Exception]
):
    with pytest.raises(error):
        create(path, **option)
    assert not path.exists()


def test_nothing_is_published_before_it_is_asked_for(path: Path, frames: Frames):
    """append does not, publish does, close does."""
    array = create(path)
    for frame in frames(3):
        array.append(frame)
    assert (array.length, array.published, len(open_frames(path))) == (3, 0, 0)
    assert array.publish() == array.published == len(open_frames(path)) == 3
    array.append(frames(1)[0])
    array.close()
    assert len(open_frames(path)) == 4


def test_closed_is_closed(path: Path, frames: Frames):
    array = create(path)
    with array as same:
        assert same is array
        array.append(frames(1)[0])
    assert array.closed
    array.close()
    with pytest.raises(SinkClosedError):
        array.append(frames(1)[0])
    with pytest.raises(SinkClosedError):
        array.append_many([array.encode(frames(1)[0])])
    array.sync()
    assert array.publish() == 1


def test_attributes_are_rewritten_with_the_next_publish(path: Path):
    array = create(path, attributes={"units": "counts", "n": 0})
    assert zarr.open_array(path, mode="r").attrs["n"] == 0
    array.set_attributes({"n": 1})
    array.attributes["n"] = 99
    assert array.attributes == {"units": "counts", "n": 1}
    assert zarr.open_array(path, mode="r").attrs["n"] == 0
    array.publish()
    assert dict(zarr.open_array(path, mode="r").attrs) == {"units": "counts", "n": 1}
    array.set_attributes({"n": 2})
    array.close()
    assert open_frames(path).attrs["n"] == 2


class TestOpen:
    @pytest.mark.parametrize("count", [0, 1, 3, 4])
    def test_it_goes_on_after_the_frames_that_are_there(
        self, path: Path, frames: Frames, count: int
    ):
        data = frames(count + 3)
        array = create(path, frames_per_shard=3, compression="lz4")
        for frame in data[:count]:
            array.append(frame)
        array.close()
        with ShardedArray.open(path) as array:
            assert array.length == array.published == count
            for frame in data[count:]:
                array.append(frame)
        np.testing.assert_array_equal(open_frames(path)[:], data)

    def test_it_repairs_the_length_first(self, path: Path, frames: Frames):
        """What a killed process had written is there at once."""
        dead = create(path, frames_per_shard=2)
        for frame in frames(5):
            dead.append(frame)
        assert len(open_frames(path)) == 0
        array = ShardedArray.open(path)
        assert array.length == len(open_frames(path)) == 5
        array.close()
        dead.close()

    def test_it_keeps_the_attributes(self, path: Path):
        create(path, attributes={"units": "counts"}).close()
        with ShardedArray.open(path) as array:
            array.set_attributes({"n": 1})
        assert open_frames(path).attrs == {"units": "counts", "n": 1}

    @pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
    def test_a_published_number_is_never_used_again(
        self, path: Path, frames: Frames, damage: str
    ):
        """Documents refer to it: a lost frame stays lost, and the next gets its own."""
        data = frames(4)
        array = create(path, frames_per_shard=2)
        for frame in data:
            array.append(frame)
        array.close()
        last = path / "c.1.0.0"
        if damage == "flip":
            content = bytearray(last.read_bytes())
            content[-10] ^= 1
            last.write_bytes(content)
        elif damage == "truncate":
            os.truncate(last, last.stat().st_size - 10)
        else:
            last.unlink()
        with ShardedArray.open(path) as array:
            assert array.length == 4
            assert array.append(data[0]) == 4
        frames_now = open_frames(path)
        assert len(frames_now) == 5
        with pytest.raises(FrameReadError):
            frames_now[3]
        np.testing.assert_array_equal(frames_now[4], data[0])

    def test_what_is_no_array_is_refused(self, tmp_path: Path):
        zarr.create_array(tmp_path / "stock", shape=(3, 4), dtype="u1")
        zarr.create_group(tmp_path / "group")
        for name in ("stock", "group", "nothing"):
            with pytest.raises(StoreReadError):
                ShardedArray.open(tmp_path / name)


class TestCreate:
    def test_frames_are_never_overwritten(self, path: Path, frames: Frames):
        """Published or not."""
        array = create(path)
        array.append(frames(1)[0])
        with pytest.raises(StoreStateError):
            create(path)
        array.close()
        with pytest.raises(StoreStateError):
            create(path)
        assert len(open_frames(path)) == 1

    def test_an_empty_array_is_made_anew(self, path: Path):
        create(path).close()
        array = create(path, dtype="<f8", shape=())
        array.append(np.float64(1.5))
        array.close()
        assert open_frames(path)[0] == 1.5

    def test_a_file_in_the_way_is_a_named_error(self, path: Path):
        path.write_text("notes")
        with pytest.raises((StoreStateError, StoreWriteError)):
            create(path)
        with pytest.raises(StoreWriteError):
            create(path / "below")
        assert path.read_text() == "notes"

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC])
    @pytest.mark.parametrize("call", ["mkdir", "open", "pwritev", "replace"])
    def test_a_creation_that_fails_leaves_no_half_array(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
    ):
        """A named error with its number; trying again works."""

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StoreWriteError) as caught:
                create(path)
        assert caught.value.errno == number
        assert not path.exists()
        create(path).close()
        assert verify_store(path).ok


class TestShards:
    def test_few_files_are_open(self, path: Path, frames: Frames):
        """One frame to a file, and nobody who syncs them meanwhile."""
        before = len(os.listdir("/proc/self/fd"))
        array = create(path, frames_per_shard=1)
        most = 0
        for frame in frames(200):
            array.append(frame)
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
        assert most <= 40
        assert array.unsynced
        array.close()
        assert len(os.listdir("/proc/self/fd")) == before
        np.testing.assert_array_equal(open_frames(path)[:], frames(200))

    @pytest.mark.parametrize(
        ("frame_bytes", "expected"),
        [(0, 8192), (1, 8192), (1 << 19, 512), (1 << 23, 64), (1 << 30, 64)],
    )
    def test_default_frames_per_shard(self, frame_bytes: int, expected: int):
        """About 256 MiB to a file, a power of two between 64 and 8192."""
        assert default_frames_per_shard(frame_bytes) == expected


def failing_fsync(*_: Any) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class TestFailures:
    @pytest.mark.parametrize("how", ["append", "append_many"])
    def test_a_frame_that_was_not_acknowledged_does_not_come_back(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch, how: str
    ):
        """With power durability a failed fsync takes the frame out of the index."""
        data = frames(4)
        array = create(path, power=True)
        array.append(data[0])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing_fsync)
            with pytest.raises(StoreWriteError) as caught:
                if how == "append":
                    array.append(data[1])
                else:
                    array.append_many([array.encode(frame) for frame in data[1:3]])
        assert caught.value.errno == errno.EIO
        assert array.length == 1
        array.close()
        assert repair_store(path).repaired == []
        np.testing.assert_array_equal(open_frames(path)[:], data[:1])
        with ShardedArray.open(path) as array:
            assert array.append(data[3]) == 1
        np.testing.assert_array_equal(open_frames(path)[1], data[3])

    def test_a_torn_frame_is_written_over(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """Half a frame on disk is none, and the next one takes its place."""
        data = frames(3)
        array = create(path)
        array.append(data[0])
        write = os.pwritev

        def short(fd: int, buffers: list[Any], offset: int) -> int:
            """Write half of it, then fail."""
            joined = b"".join(np.asarray(buffer).tobytes() for buffer in buffers)
            write(fd, [joined[: len(joined) // 2]], offset)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", short)
            with pytest.raises(StoreWriteError):
                array.append(data[1])
        assert array.length == 1
        array.append(data[2])
        array.close()
        np.testing.assert_array_equal(open_frames(path)[:], data[[0, 2]])
        assert verify_store(path).ok

    @pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f2", "<c8", ">c16", "?"])
    def test_short_writes_are_finished(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch, dtype: str
    ):
        """A call that writes a part without an error is gone on with, byte by byte."""
        write = os.pwritev

        def short(fd: int, buffers: list[Any], offset: int) -> int:
            return write(fd, [bytes(np.frombuffer(buffers[0], "u1")[:7])], offset)

        data = frames(3, (4, 6), dtype)
        array = create(path, dtype=dtype)
        monkeypatch.setattr(os, "pwritev", short)
        for frame in data:
            array.append(frame)
        array.append_many([array.encode(frame) for frame in data])
        array.close()
        monkeypatch.undo()
        np.testing.assert_array_equal(open_frames(path)[:], np.concatenate([data] * 2))

    def test_a_call_that_writes_nothing_is_a_full_disk(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """Instead of an endless loop."""
        array = create(path)
        array.append(frames(1)[0])
        monkeypatch.setattr(os, "pwritev", lambda *_: 0)
        with pytest.raises(StoreWriteError) as caught:
            array.append(frames(1)[0])
        assert caught.value.errno == errno.ENOSPC

    def test_what_was_published_before_is_on_the_disk_when_it_is_closed(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """A rename without a sync can leave an empty file after a power cut."""
        array = create(path)
        array.append(frames(1)[0])
        array.sync()
        array.append(frames(1)[0])
        array.publish()
        synced: list[str] = []
        fsync = os.fsync

        def noted(fd: int) -> None:
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", noted)
        array.close()
        assert synced[-2:] == ["zarr.json", path.name]
        array.close()
        assert len(synced) == 2

    def test_a_length_that_was_not_brought_to_the_disk_is_tried_again(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        array = create(path)
        array.append(frames(1)[0])
        array.sync()
        array.publish()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing_fsync)
            with pytest.raises(StoreWriteError, match="the length of 1 frames"):
                array.close()
        array.close()
        assert len(open_frames(path)) == 1

    def test_the_closing_that_failed_can_be_finished(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """The files are closed at once; the length is published by the next call."""
        array = create(path)
        array.append(frames(1)[0])
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing_fsync)
            with pytest.raises(StoreWriteError):
                array.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1
        assert array.closed and len(open_frames(path)) == 0
        array.close()
        assert len(open_frames(path)) == 1

    def test_a_sync_that_failed_is_tried_again(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """Nothing is forgotten, and no file stays open."""
        array = create(path, frames_per_shard=2)
        array.sync()
        for frame in frames(5):
            array.append(frame)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing_fsync)
            with pytest.raises(StoreWriteError):
                array.sync()
        assert array.unsynced
        synced: list[int] = []
        fdatasync = os.fdatasync
        monkeypatch.setattr(
            os, "fdatasync", lambda fd: (synced.append(fd), fdatasync(fd))
        )
        array.sync()
        assert not array.unsynced
        assert len(synced) == 3
        array.close()

    def test_a_publish_that_failed_leaves_what_was_published(
        self, path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """Readers see the old length, then the new one, with the attributes."""
        array = create(path)
        array.append(frames(1)[0])
        array.publish()
        array.append(frames(1)[0])
        array.set_attributes({"n": 2})
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing_fsync)
            with pytest.raises(StoreWriteError):
                array.publish()
        assert array.published == len(open_frames(path)) == 1
        assert array.publish() == len(open_frames(path)) == 2
        assert open_frames(path).attrs["n"] == 2
        array.close()


def test_the_reserve_is_kept_again_after_it_was_spent(
    path: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
):
    """Every publish on a full disk finds it, not only the first one."""
    array = create(path)
    assert (path / ".reserve").stat().st_blocks > 0
    replace = reserve.replace_file
    refused = 0

    def full(target: Path, data: bytes, *, sync: bool = False) -> None:
        nonlocal refused
        if (path / ".reserve").exists():
            refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(target, data, sync=sync)

    monkeypatch.setattr(reserve, "replace_file", full)
    for number, frame in enumerate(frames(3)):
        array.append(frame)
        assert array.publish() == number + 1
        assert refused == number + 1
        assert (path / ".reserve").stat().st_blocks > 0
    array.close()
    assert not (path / ".reserve").exists()
    assert len(open_frames(path)) == 3


def test_threads_may_append_publish_and_sync_at_once(path: Path, frames: Frames):
    """One array, four writers, a publisher and a syncer."""
    array = create(path, shape=(), frames_per_shard=16)
    start = threading.Barrier(6)
    done = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                start.wait(30)
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def append(base: int) -> None:
        for number in range(200):
            array.append(np.array(base + number, "<u2"))

    def publish() -> None:
        last = 0
        while not done.is_set():
            count = array.publish()
            assert count >= last
            last = count

    def sync() -> None:
        while not done.is_set():
            array.sync()

    writers = [guarded(lambda n=n: append(1000 * n)) for n in range(4)]
    others = [guarded(publish), guarded(sync)]
    for thread in writers:
        thread.join(60)
    done.set()
    for thread in others:
        thread.join(60)
    array.close()
    assert failures == []
    stored = open_frames(path)[:]
    assert sorted(stored) == sorted(1000 * n + k for n in range(4) for k in range(200))


def test_a_reader_never_sees_a_frame_that_is_not_there(path: Path, frames: Frames):
    """Published too far by somebody else: ours raises, stock readers do not."""
    array = create(path)
    array.append(frames(1)[0])
    array.close()
    metadata = (path / "zarr.json").read_text()
    assert '"shape": [\n    1,' in metadata
    (path / "zarr.json").write_text(metadata.replace("[\n    1,", "[\n    2,", 1))
    assert (zarr.open_array(path, mode="r")[1] == 0).all()
    with pytest.raises(FrameReadError, match="missing"):
        open_frames(path)[1]
    assert verify_store(path).arrays["."].missing == [1]


def test_repr(path: Path, frames: Frames):
    array = create(path)
    array.append(frames(1)[0])
    assert "1 frames" in repr(array) and "open" in repr(array)
    array.close()
    assert "closed" in repr(array)


def test_the_index_has_room_for_every_frame(path: Path):
    """Offset and length of each, in front of the data."""
    create(path, frames_per_shard=5).append(np.zeros((4, 6), "<u2"))
    assert shards.index_bytes(5) == 80
    assert (path / "c.0.0.0").stat().st_size == 80 + 48 + 4


def test_a_shard_is_not_closed_while_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its descriptor would be another file's by then; afterwards a sync is nothing."""
    shard = ShardFile(tmp_path / "c.0", 4)
    syncing, go_on = threading.Event(), threading.Event()
    synced: list[int] = []

    def slow(fd: int) -> None:
        syncing.set()
        assert go_on.wait(30)
        os.fstat(fd)
        synced.append(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    sync = threading.Thread(target=shard.sync)
    sync.start()
    assert syncing.wait(30)
    close = threading.Thread(target=shard.close)
    close.start()
    close.join(0.05)
    assert shard.is_open
    go_on.set()
    sync.join(30)
    close.join(30)
    assert not shard.is_open
    shard.sync()
    assert len(synced) == 1


def test_shards_that_fill_faster_than_they_are_synced(tmp_path: Path, frames: Frames):
    """One frame to a file, and a thread that syncs all the time."""
    data = frames(300)
    array = create(tmp_path / "cam", frames_per_shard=1)
    stop = threading.Event()
    failures: list[BaseException] = []

    def sync() -> None:
        try:
            while not stop.is_set():
                array.sync()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    for _ in range(5):
        for frame in data:
            array.append(frame)
    stop.set()
    thread.join(30)
    assert failures == []
    array.close()
    assert len(open_frames(tmp_path / "cam")) == 1500
