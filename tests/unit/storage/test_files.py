"""Bytes to disk: whole, atomic, with errors that say where; the lock of a writer."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import StoreStateError, StoreWriteError
from bluesky_beamtime.storage import FolderLock, create_group
from bluesky_beamtime.storage.files import (
    make_folder,
    pwrite_all,
    replace_file,
    write_error,
)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.ENOENT, "gone"),
        (errno.EIO, "disk"),
    ],
)
def test_errors_say_what_where_and_the_next_step(number: int, word: str):
    error = write_error("frame 3", "/data/x", OSError(number, os.strerror(number)))
    assert isinstance(error, StoreWriteError) and isinstance(error, OSError)
    assert (error.errno, error.filename) == (number, "/data/x")
    for part in ("frame 3", "/data/x", os.strerror(number), word):
        assert part in str(error)


class TestReplace:
    def test_old_or_new(self, tmp_path: Path):
        file = tmp_path / "x.json"
        for content in (b"old", b"new", b""):
            replace_file(file, content, sync=content == b"new")
            assert file.read_bytes() == content
        assert os.listdir(tmp_path) == ["x.json"]

    @pytest.mark.parametrize("call", ["open", "pwritev", "fsync", "replace"])
    def test_a_failure_leaves_the_old_one_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ):
        file = tmp_path / "x.json"
        replace_file(file, b"old")

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(errno.EIO, "refused")

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OSError, match="refused"):
                replace_file(file, b"new", sync=True)
        assert file.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["x.json"]

    def test_threads_may_replace_the_same_file(self, tmp_path: Path):
        """Each writes beside it under a name of its own."""
        file = tmp_path / "x.json"
        failures: list[BaseException] = []
        contents = [bytes([65 + number]) * 5000 for number in range(6)]

        def work(content: bytes) -> None:
            try:
                for _ in range(60):
                    replace_file(file, content)
                    assert file.read_bytes() in contents
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(c,)) for c in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert os.listdir(tmp_path) == ["x.json"]


GROUPS = """
import sys
from bluesky_beamtime.storage import create_group
print("ready", flush=True)
sys.stdin.readline()
for number in range(80):
    root = f"{sys.argv[1]}/x.zarr"
    create_group(f"{root}/frames/day {number}", root=root)
"""


def test_processes_may_make_the_same_groups_at_once(tmp_path: Path):
    """Two beamtimes that begin the same day at the same moment."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GROUPS, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    for folder, _, names in os.walk(tmp_path / "x.zarr"):
        assert names == ["zarr.json"], folder


def test_pwrite_all_goes_on_where_the_kernel_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = os.pwritev
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(
        os, "pwritev", lambda fd, parts, at: write(fd, [bytes(parts[0])[:3]], at)
    )
    parts = [b"abcdefg", b"h", b"", bytearray(b"ijklm"), memoryview(b"nopq")]
    pwrite_all(fd, [part for part in parts if len(part)], 17, 5)
    assert os.pread(fd, 100, 0) == b"\0" * 5 + b"abcdefghijklmnopq"
    os.close(fd)


def test_make_folder_makes_the_parents(tmp_path: Path):
    for sync in (False, True):
        make_folder(tmp_path / "a" / "b" / "c", sync=sync)
        assert (tmp_path / "a" / "b" / "c").is_dir()


HOLD = """
import sys
from pathlib import Path
from bluesky_beamtime.storage import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


class TestLock:
    def test_one_at_a_time(self, tmp_path: Path):
        lock = FolderLock(tmp_path)
        assert FolderLock.is_held(tmp_path)
        with pytest.raises(StoreStateError, match="live"):
            FolderLock(tmp_path)
        lock.release()
        lock.release()
        assert not FolderLock.is_held(tmp_path)
        assert os.listdir(tmp_path) == []
        FolderLock(tmp_path).release()

    def test_a_store_is_held_by_the_locks_of_its_arrays(self, tmp_path: Path):
        (tmp_path / "cam").mkdir()
        lock = FolderLock(tmp_path / "cam")
        assert FolderLock.is_held(tmp_path)
        assert not FolderLock.is_held(tmp_path.parent)
        lock.release()
        assert not FolderLock.is_held(tmp_path)

    def test_a_folder_that_is_not_there_is_not_held(self, tmp_path: Path):
        assert not FolderLock.is_held(tmp_path / "nothing")
        (tmp_path / "file").write_text("")
        assert not FolderLock.is_held(tmp_path / "file")

    def test_death_gives_it_up(self, tmp_path: Path):
        """Held means alive: the kernel drops the lock, whatever ended the process."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "held\n"
        assert FolderLock.is_held(tmp_path)
        with pytest.raises(StoreStateError):
            FolderLock(tmp_path)
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()
        assert os.listdir(tmp_path) == [FolderLock.NAME]
        assert not FolderLock.is_held(tmp_path)
        FolderLock(tmp_path).release()

    def test_a_writer_waits_for_one_who_only_looks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """A lock that is shared for a moment is no live writer."""
        fd = os.open(tmp_path / FolderLock.NAME, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(fd, fcntl.LOCK_UN))
        lock = FolderLock(tmp_path)
        assert FolderLock.is_held(tmp_path)
        lock.release()
        os.close(fd)

    def test_looking_never_keeps_a_writer_out(self, tmp_path: Path):
        """Who asks whether a folder is held holds it for no moment that counts."""
        done = threading.Event()

        def look() -> None:
            while not done.is_set():
                FolderLock.is_held(tmp_path)

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(300):
                FolderLock(tmp_path).release()
        finally:
            done.set()
            for thread in threads:
                thread.join(30)

    def test_threads_that_want_it_get_it_one_by_one(self, tmp_path: Path):
        """Also while it is removed and made again."""
        inside = 0
        most = 0
        taken = 0
        guard = threading.Lock()

        def work() -> None:
            nonlocal inside, most, taken
            for _ in range(100):
                try:
                    lock = FolderLock(tmp_path)
                except StoreStateError:
                    continue
                with guard:
                    inside += 1
                    taken += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1
                lock.release()

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert most == 1
        assert taken > 0


class TestGroups:
    def test_attributes_are_added_to_an_existing_group(self, tmp_path: Path):
        import zarr

        create_group(tmp_path / "g", {"a": 1})
        create_group(tmp_path / "g")
        create_group(tmp_path / "g", {"b": 2}, sync=True)
        assert dict(zarr.open_group(tmp_path / "g", mode="r").attrs) == {"a": 1, "b": 2}

    def test_a_file_in_the_way_is_a_named_error(self, tmp_path: Path):
        (tmp_path / "g").write_text("notes")
        for place in (tmp_path / "g", tmp_path / "g" / "below"):
            with pytest.raises(StoreWriteError):
                create_group(place)
        assert (tmp_path / "g").read_text() == "notes"
