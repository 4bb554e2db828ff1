"""Frames back from disk: lazily, while they grow, and never one that is not there."""

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
    FrameReadError,
    PathError,
    StorageError,
    StoreReadError,
    UnsupportedFormatError,
)
from bluesky_beamtime.storage import (
    FrameSink,
    ShardedArray,
    ZarrWriter,
    create_group,
    open_frames,
    reader,
    to_uri,
)

Begin = Callable[..., tuple[ZarrWriter, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture
def array(tmp_path: Path, frames: Frames) -> Path:
    """Store nine frames, four in a file, with checksums."""
    create_group(tmp_path / "store")
    with ShardedArray.create(
        tmp_path / "store" / "cam",
        dtype="<u2",
        shape=(4, 6),
        frames_per_shard=4,
        attributes={"units": "counts"},
        dimension_names=("time", "y", "x"),
    ) as stored:
        for frame in frames(9):
            stored.append(frame)
    return tmp_path / "store" / "cam"


class TestOpening:
    def test_path_and_uri(self, array: Path):
        for where in (array, str(array), to_uri(array), array.as_uri()):
            frames = open_frames(where)
            assert frames.shape == (9, 4, 6)
            assert frames.units == "counts"
            assert frames.dims == ("time", "y", "x")
            assert frames.chunk_shape == (1, 4, 6)
            assert frames.dtype == np.dtype("u2")

    def test_a_writers_documents_open_their_frames(self, begin: Begin):
        """What a StreamResource says is what open_frames takes."""
        writer, (sink,) = begin("cam")
        sink.write(np.ones((4, 6), "<u2"))
        resource = dict(writer.collect_stream_docs("cam", 1))["stream_resource"]
        frames = open_frames(
            resource["uri"], resource["mimetype"], resource["parameters"]
        )
        assert frames.shape == (1, 4, 6)
        # So does the group, with the array's name.
        frames = open_frames(writer.uri, parameters=resource["parameters"])
        assert frames.shape == (1, 4, 6)
        sink.close()

    def test_a_member_of_a_group(self, array: Path):
        group = array.parent
        for name in ("cam", "/cam", "cam/"):
            assert open_frames(group, parameters={"dataset": name}).shape == (9, 4, 6)
        assert open_frames(
            group.parent / "store", parameters={"array_name": "cam"}
        ).shape == (9, 4, 6)

    @pytest.mark.parametrize(
        "name", ["../store/cam", "..", "./cam", "cam/../../x", "a//b", "\0"]
    )
    def test_a_name_that_leads_out_of_the_group_is_refused(
        self, array: Path, name: str
    ):
        """Documents are written by others."""
        with pytest.raises(PathError):
            open_frames(array.parent, parameters={"array_name": name})

    def test_stock_arrays_are_read_as_they_are(self, tmp_path: Path):
        stock = zarr.create_array(tmp_path / "stock", shape=(3, 2), dtype="<u2")
        stock[:] = np.arange(6).reshape(3, 2)
        frames = open_frames(tmp_path / "stock")
        np.testing.assert_array_equal(frames[:], np.arange(6).reshape(3, 2))

    @pytest.mark.parametrize("what", ["nothing", "group", "folder", "file", "damaged"])
    def test_what_is_no_array_is_an_error(self, tmp_path: Path, what: str):
        create_group(tmp_path / "group")
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("notes")
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "zarr.json").write_text('{"shape":')
        with pytest.raises(StoreReadError) as caught:
            open_frames(tmp_path / what)
        assert str(tmp_path / what) in str(caught.value)

    @pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
    def test_metadata_that_is_no_object(self, tmp_path: Path, content: str):
        (tmp_path / "zarr.json").write_text(content)
        with pytest.raises(StoreReadError):
            open_frames(tmp_path)

    def test_other_formats_are_refused(self, array: Path):
        with pytest.raises(UnsupportedFormatError, match="image/tiff"):
            open_frames(array, "image/tiff")


class TestGrowing:
    def test_refresh_looks_for_more(self, begin: Begin, frames: Frames):
        """The length stays as it was until then; attributes come along."""
        _, (sink,) = begin("cam", frames_per_shard=2)
        data = frames(5)
        seen = open_frames(sink.uri)
        assert len(seen) == 0
        for number, frame in enumerate(data):
            sink.write(frame)
            sink.set_attributes({"n": number})
            sink.publish()
            assert len(seen) == number
            assert seen.refresh() == len(seen) == number + 1
            assert seen.attrs["n"] == number
            np.testing.assert_array_equal(seen[-1], frame)
        sink.close()

    def test_threads_may_read_while_one_writes(self, begin: Begin):
        """Each with its own view, over shard borders."""
        _, (sink,) = begin("cam", shape=(16,), frames_per_shard=8)
        done = threading.Event()
        failures: list[BaseException] = []
        seen = open_frames(sink.uri)

        def read() -> None:
            try:
                while not done.is_set():
                    count = seen.refresh()
                    start = max(0, count - 5)
                    got = seen[start:count]
                    numbers = np.arange(start, start + len(got))[:, None]
                    assert (got == numbers).all()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            sink.write(np.full(16, number, "<u2"))
            if number % 10 == 0:
                sink.publish()
        done.set()
        for thread in threads:
            thread.join(30)
        assert failures == []
        sink.close()


class TestDamage:
    def test_only_the_damaged_frame_is_refused(self, array: Path, frames: Frames):
        path = array / "c.1.0.0"
        content = bytearray(path.read_bytes())
        content[4 * 16 + 52 + 3] ^= 4
        path.write_bytes(content)
        stored = open_frames(array)
        with pytest.raises(FrameReadError, match=r"frame 5 .*checksum"):
            stored[5]
        with pytest.raises(FrameReadError):
            stored[:]
        rest = [0, 1, 2, 3, 4, 6, 7, 8]
        np.testing.assert_array_equal(stored[rest], frames(9)[rest])

    def test_every_bit_of_an_index_entry(self, tmp_path: Path, frames: Frames):
        """Offset and length of a frame: damage is never a crash or another frame."""
        for compression in ("none", "lz4"):
            path = tmp_path / compression
            with ShardedArray.create(
                path,
                dtype="<u2",
                shape=(4, 6),
                frames_per_shard=2,
                compression=compression,
            ) as made:
                for frame in frames(2):
                    made.append(frame)
            file = path / "c.0.0.0"
            whole = file.read_bytes()
            stored = open_frames(path)
            for bit in range(128):
                content = bytearray(whole)
                content[bit // 8] ^= 1 << bit % 8
                file.write_bytes(content)
                with pytest.raises(FrameReadError):
                    stored[0]
                np.testing.assert_array_equal(stored[1], frames(2)[1])

    def test_a_file_that_is_gone_or_short(self, array: Path):
        os.truncate(array / "c.0.0.0", 4 * 16 + 52 + 10)
        (array / "c.1.0.0").unlink()
        stored = open_frames(array)
        assert stored[0].shape == (4, 6)
        for number, word in ((1, "cut short"), (4, "cannot be opened")):
            with pytest.raises(FrameReadError, match=word):
                stored[number]
        assert stored[8].shape == (4, 6)

    @pytest.mark.parametrize("compression", ["lz4", "zstd"])
    def test_a_container_that_lies_about_its_size(
        self, tmp_path: Path, frames: Frames, compression: str
    ):
        """Neither memory nor a crash for a header that asks for two gigabytes."""
        path = tmp_path / "array"
        with ShardedArray.create(
            path,
            dtype="<u2",
            shape=(4, 6),
            compression=compression,  # type: ignore[arg-type]
            checksum=False,
            frames_per_shard=1,
        ) as made:
            made.append(frames(1)[0])
        file = path / "c.0.0.0"
        whole = file.read_bytes()
        for size in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"):
            file.write_bytes(whole[:20] + size + whole[24:])
            with pytest.raises(FrameReadError):
                open_frames(path)[0]

    def test_errors_of_the_disk_are_named(
        self, array: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*_: Any) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        stored = open_frames(array)
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(FrameReadError) as caught:
            stored[0]
        assert caught.value.errno == errno.EIO
        assert isinstance(caught.value, StorageError)

    def test_short_reads_are_finished(
        self, array: Path, frames: Frames, monkeypatch: pytest.MonkeyPatch
    ):
        """The kernel may return less than was asked, for signals or huge reads."""
        read = os.preadv

        def short(fd: int, buffers: list[Any], offset: int) -> int:
            first = np.frombuffer(buffers[0], "u1")
            return read(
                fd, [memoryview(buffers[0]).cast("B")[: min(7, len(first))]], offset
            )

        monkeypatch.setattr(os, "preadv", short)
        np.testing.assert_array_equal(open_frames(array)[:], frames(9))


def test_many_frames_are_read_in_several_calls(tmp_path: Path, frames: Frames):
    """More buffers than one call of the kernel takes."""
    count = 2 * reader._MOST_FRAMES + 3
    data = frames(count, (3,))
    with ShardedArray.create(tmp_path / "x", dtype="<u2", shape=(3,)) as made:
        made.append_many([made.encode(frame) for frame in data])
    stored = open_frames(tmp_path / "x")
    np.testing.assert_array_equal(stored[:], data)
    np.testing.assert_array_equal(stored[::-1], data[::-1])
    np.testing.assert_array_equal(stored[::3], data[::3])


def test_repr(array: Path):
    assert "(9, 4, 6)" in repr(open_frames(array))
