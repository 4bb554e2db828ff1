"""Files whose writer died: what is found, what is mended, and what is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.errors import StoreReadError, StoreStateError, StoreWriteError
from bluesky_beamtime.storage import (
    FrameSink,
    HDF5Writer,
    from_uri,
    open_frames,
    repair_store,
    verify_store,
)
from bluesky_beamtime.storage.files import FolderLock
from bluesky_beamtime.storage.hdf5_format import SWMR_WRITING, Superblock
from bluesky_beamtime.storage.hdf5_layout import FileLayout, State

Begin = Callable[..., tuple[HDF5Writer, list[FrameSink]]]
Frames = Callable[..., np.ndarray[Any, Any]]
MIMETYPE = "application/x-hdf5"
DATASET = "/entry/data/data"


@pytest.fixture
def dead(
    begin: Begin, frames: Frames, tmp_path: Path
) -> Callable[..., tuple[Path, np.ndarray[Any, Any]]]:
    """Return a copy of a file taken while it was written: what a kill leaves."""
    count = 0

    def make(
        published: int = 10, more: int = 7, torn: int = 0, **options: Any
    ) -> tuple[Path, np.ndarray[Any, Any]]:
        nonlocal count
        count += 1
        writer, (sink,) = begin("cam", folder=f"live {count}", **options)
        # Only what is published here is published.
        assert writer._pacer is not None
        writer._pacer.stop()
        data = frames(published + more)
        sink.set_attributes({"gain": 5})
        for frame in data[:published]:
            sink.write(frame)
        sink.publish()
        for frame in data[published:]:
            sink.write(frame)
        path = tmp_path / f"dead {count}" / "cam.h5"
        path.parent.mkdir()
        shutil.copy(from_uri(sink.uri), path)
        writer.abort()
        if torn:
            os.truncate(path, path.stat().st_size - torn)
        return path, data

    return make


def plain(path: Path) -> np.ndarray[Any, Any]:
    with h5py.File(path, "r") as file:
        return file[DATASET][...]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("published", "more"),
    [(0, 0), (0, 1), (1, 0), (4, 1), (10, 7), (20, 300), (244, 1), (600, 600)],
)
def test_every_frame_comes_back(
    dead: Callable[..., Any], published: int, more: int, compression: str
):
    """Those that were not published, too; then h5py opens the file as any other."""
    path, data = dead(published, more, compression=compression)
    with pytest.raises(OSError, match=r"SWMR|already open"):
        h5py.File(path, "r")
    with h5py.File(path, "r", swmr=True) as file:
        np.testing.assert_array_equal(file[DATASET][...], data[:published])
    np.testing.assert_array_equal(open_frames(path, MIMETYPE)[:], data[:published])
    report = verify_store(path)
    assert not report.ok
    assert (report.arrays["cam.h5"].published, report.arrays["cam.h5"].written) == (
        published,
        published + more,
    )
    report = repair_store(path)
    assert report.ok
    assert len(report.repaired) == 1
    np.testing.assert_array_equal(plain(path), data)
    found = open_frames(path, MIMETYPE)
    np.testing.assert_array_equal(found[:], data)
    assert found.attrs["gain"] == 5
    assert verify_store(path).ok
    # Others may write to it now.
    with h5py.File(path, "r+") as file:
        file[DATASET].attrs["seen"] = 1
        file[DATASET].resize(len(data) + 50, axis=0)
        file[DATASET][len(data) :] = 1
    np.testing.assert_array_equal(plain(path)[: len(data)], data)


def test_a_frame_that_was_not_finished_is_left_out(dead: Callable[..., Any]):
    for torn in (1, 20, 47, 48, 49, 70):
        path, data = dead(10, 7, torn=torn)
        size = path.stat().st_size
        report = repair_store(path)
        assert report.ok
        # A record has 32 bytes of header and 48 of frame here.
        np.testing.assert_array_equal(plain(path), data[:-1])
        # Not a byte is removed.
        assert path.stat().st_size >= size
        assert verify_store(path).ok


def test_a_whole_store_and_a_second_time(dead: Callable[..., Any], tmp_path: Path):
    """Files are found below a folder; what is whole is not touched."""
    first, data = dead()
    second, _ = dead()
    (second.parent / FolderLock.NAME).write_bytes(b"")
    report = repair_store(tmp_path)
    names = {os.path.relpath(path, tmp_path) for path in (first, second)}
    assert names <= set(report.arrays)
    assert len(report.repaired) == 2
    assert not (second.parent / FolderLock.NAME).exists()
    for path in (first, second):
        np.testing.assert_array_equal(plain(path), data)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (first,)}
    again = repair_store(tmp_path)
    assert again.ok
    assert again.repaired == []
    for path, (content, changed) in before.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed)


def test_a_live_file_is_refused(begin: Begin, frames: Frames):
    writer, (sink,) = begin("cam")
    sink.write_many(frames(3))
    report = verify_store(writer.path)
    assert report.ok
    for where in (writer.path, from_uri(sink.uri)):
        with pytest.raises(StoreStateError, match="live writer"):
            repair_store(where)
    sink.write(frames(1)[0])
    sink.close()
    assert len(plain(Path(from_uri(sink.uri)))) == 4
    assert repair_store(writer.path).repaired == []


def test_an_index_that_is_damaged_is_made_anew(dead: Callable[..., Any]):
    """From the log alone: state, index and shape are all gone."""
    for start, stop in ((48, 144), (144, 500), (640, 700), (0, 4096)):
        path, data = dead(300, 10)
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * (stop - start))
            if start == 0:
                # So much is needed to know an HDF5 file.
                file.seek(0)
                file.write(b"\x89HDF\r\n\x1a\n")
        assert not verify_store(path).ok
        report = repair_store(path)
        assert report.ok
        np.testing.assert_array_equal(plain(path), data)
        np.testing.assert_array_equal(open_frames(path, MIMETYPE)[:], data)
        assert verify_store(path).ok


def test_a_block_of_the_index_that_is_damaged(dead: Callable[..., Any]):
    path, data = dead(300, 10)
    content = bytearray(path.read_bytes())
    place = content.rfind(b"EADB", 0, content.rfind(b"EADB"))
    content[place + 40] ^= 1
    path.write_bytes(content)
    assert repair_store(path).ok
    np.testing.assert_array_equal(plain(path), data)


def test_damaged_frames_in_the_tail_are_left_out_and_told(dead: Callable[..., Any]):
    path, data = dead(10, 7)
    content = bytearray(path.read_bytes())
    for number in (12, 13, 16):
        place = content.find(data[number].tobytes())
        content[place + 5] ^= 1
    # The header of 13 as well, so that the next record has to be searched for.
    content[content.find(data[14].tobytes()) - 80 - 20] ^= 1
    path.write_bytes(content)
    report = repair_store(path)
    assert not report.ok
    found = report.arrays["cam.h5"]
    assert found.missing == [12, 13]
    expected = data[:16].copy()
    expected[12:14] = 0
    np.testing.assert_array_equal(plain(path), expected)
    ours = open_frames(path, MIMETYPE)
    np.testing.assert_array_equal(ours[14:], data[14:16])
    for number in (12, 13):
        with pytest.raises(StoreReadError, match=f"frame {number}"):
            ours[number]
    assert verify_store(path).arrays["cam.h5"].missing == [12, 13]


def test_a_frame_that_looks_like_a_record_is_none(begin: Begin, tmp_path: Path):
    """Frames of another file, copied as pixels, do not come back to life."""
    _, (inner,) = begin("inner", dtype="u1", shape=(100,), folder="inner")
    for number in range(20):
        inner.write(np.full(100, number, "u1"))
    inner.close()
    pixels = np.fromfile(from_uri(inner.uri), "u1")
    writer, (outer,) = begin("outer", dtype="u1", shape=pixels.shape, folder="outer")
    assert writer._pacer is not None
    writer._pacer.stop()
    outer.write(pixels)
    outer.write(pixels[::-1])
    (tmp_path / "dead").mkdir()
    path = tmp_path / "dead" / "outer.h5"
    shutil.copy(from_uri(outer.uri), path)
    # Its own header is gone, so the next one is searched for inside of it.
    with open(path, "r+b") as file:
        layout = FileLayout.read(file.fileno())
        assert layout is not None
        file.seek(layout.log_start)
        file.write(bytes(32))
    report = repair_store(path)
    assert report.arrays["outer.h5"].missing == [0]
    found = plain(path)
    assert found.shape == (2, *pixels.shape)
    np.testing.assert_array_equal(found[1], pixels[::-1])


def test_a_mark_that_h5clear_took_away(dead: Callable[..., Any]):
    """The frames that were not published are still found."""
    path, data = dead(10, 7)
    content = path.read_bytes()
    block = Superblock.from_bytes(content)
    assert block is not None
    path.write_bytes(
        replace(block, flags=0, end=len(content)).to_bytes() + content[48:]
    )
    np.testing.assert_array_equal(plain(path), data[:10])
    report = verify_store(path)
    assert "17 frames are written, readers see 10" in report.problems[0]
    assert repair_store(path).ok
    np.testing.assert_array_equal(plain(path), data)


def test_death_between_the_last_two_writes(begin: Begin, frames: Frames):
    """Its state says closed, its superblock does not yet."""
    _, (sink,) = begin("cam")
    sink.write_many(frames(5))
    sink.close()
    path = Path(from_uri(sink.uri))
    whole = path.read_bytes()
    state = State.from_bytes(whole[48:144])
    assert state is not None and state.closed
    with h5py.File(path, "r") as file:
        assert len(file[DATASET]) == 5
    block = Superblock.from_bytes(whole)
    assert block is not None
    path.write_bytes(replace(block, flags=SWMR_WRITING).to_bytes() + whole[48:])
    with pytest.raises(OSError):
        h5py.File(path, "r")
    assert not verify_store(path).ok
    assert repair_store(path).ok
    np.testing.assert_array_equal(plain(path), frames(5))


def test_a_disk_without_room_keeps_the_mark(
    dead: Callable[..., Any], small_disk: Callable[[int], Path]
):
    """A repair that fails is made again."""
    path, data = dead(10, 7)
    # Without the blocks in the log, room for new ones is needed.
    content = path.read_bytes()
    disk = small_disk(256)
    there = disk / "cam.h5"
    there.write_bytes(content)
    with open(there, "r+b") as file:
        file.seek(48)
        file.write(bytes(96))
        layout = FileLayout.read(file.fileno())
        assert layout is not None
        file.seek(layout.log_start)
        block = content.index(b"BTFR\3\0\0\0", layout.log_start)
        file.seek(block)
        file.write(bytes(32))
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 4096))
    os.truncate(there, there.stat().st_size)
    size = there.stat().st_size
    with open(there, "ab") as file:
        # Up to the end of the page, so that nothing more fits.
        file.write(bytes(-size % 4096))
    with open(disk / "filler", "ab") as file:
        free = os.statvfs(disk)
        file.write(bytes(free.f_bavail * free.f_frsize))
    with pytest.raises(StoreWriteError, match="No space left"):
        repair_store(there)
    with pytest.raises(OSError):
        h5py.File(there, "r")
    (disk / "filler").unlink()
    repair_store(there)
    np.testing.assert_array_equal(plain(there), data)


# --------------------------------------------------------------- files of others

KILLED = """
import os, signal, sys
import h5py
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    data = file.create_dataset("x", (0, 50), "u2", maxshape=(None, 50), chunks=(1, 50))
    file.swmr_mode = sys.argv[2] == "swmr"
    for number in range(700):
        data.resize(number + 1, axis=0)
        data[number] = number
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_of_h5py_is_opened_again_when_it_is_asked_for(tmp_path: Path):
    """And left alone when it merely lies in the folder."""
    path = tmp_path / "det.h5"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), "swmr"])
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(OSError):
        h5py.File(path, "r")
    content = path.read_bytes()
    (tmp_path / "ours").mkdir()
    with pytest.raises(StoreReadError):
        repair_store(tmp_path / "ours")
    repair_store(tmp_path)
    assert path.read_bytes() == content
    assert len(repair_store(path).repaired) == 1
    with h5py.File(path, "r") as file:
        assert (file["x"][:, 0] == np.arange(700)).all()
    # What is added comes behind what is there.
    with h5py.File(path, "r+") as file:
        file["x"].resize(1400, axis=0)
        file["x"][700:] = np.arange(700, 1400, dtype="u2")[:, None]
    with h5py.File(path, "r") as file:
        assert (file["x"][:, 0] == np.arange(1400)).all()
    assert repair_store(path).repaired == []


def test_a_file_that_h5py_has_open_is_refused(tmp_path: Path):
    """The library holds its lock on a file that is not in SWMR mode."""
    path = tmp_path / "det.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = [1, 2]
        file.flush()
        with pytest.raises(StoreStateError, match=r"has .* open"):
            repair_store(path)
