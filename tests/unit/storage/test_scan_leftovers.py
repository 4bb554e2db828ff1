"""Scans whose process is gone, and scans that the disk refuses, L-07, L-21 and L-23."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bluesky_beamtime.errors import StoreReadError, StoreWriteError
from bluesky_beamtime.storage import ScanStorage, scan_files, scan_names
from tests.unit.storage.test_scan import files, read, take

KILLED = """
import os, signal, sys
from bluesky_beamtime.storage import ScanStorage
scans = ScanStorage(sys.argv[1], format="npz")
scans.reserve((2, 3), dtype="i4", axes=[[5.0, 6.0], None], tags={"sample": "LaB6"})
for point in range(int(sys.argv[2])):
    scans.update({divmod(point, 3): point})
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_behind(tmp_path: Path, points: int = 4) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(points)]
    done = subprocess.run(command, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["zarr", "npz", "hdf5"])
def test_scan_of_a_killed_process_is_found_and_saved(kind: Any, tmp_path: Path) -> None:
    """L-07, L-26: under its number, with its axes and tags; never two at once."""
    leave_behind(tmp_path)
    storage = ScanStorage(tmp_path, format=kind)
    assert storage.leftovers() == [tmp_path / "folder/data_0.partial"]
    assert storage.getNumber() == 1
    storage.reserve((1,))
    # What this process is filling is no leftover.
    assert len(storage.leftovers()) == 1
    (target,) = storage.recover()
    assert storage.wait(60) and storage.failed == [] and storage.leftovers() == []
    found = read(target)
    assert target.stem == "data_0" and found["data"].dtype == np.int32
    assert found["data"].tolist() == [[0, 1, 2], [3, 0, 0]]
    assert found["mask"].tolist() == [[True] * 3, [True, False, False]]
    assert found["axis_0"].tolist() == [5.0, 6.0] and found["tags"]["sample"] == "LaB6"
    assert storage.recover() == [] and storage.reserved == 1


def test_nothing_is_made_of_a_leftover_without_points(tmp_path: Path) -> None:
    """L-07, L-20: its number is free again."""
    leave_behind(tmp_path, 0)
    storage = ScanStorage(tmp_path)
    assert len(storage.leftovers()) == 1 and storage.getNumber() == 1
    assert storage.recover() == [] and files(tmp_path) == []
    assert storage.getNumber() == 0


def test_scan_of_a_live_process_is_left_alone(tmp_path: Path) -> None:
    """L-07: also while its save has failed, or waits."""
    storage = ScanStorage(tmp_path, format="npz")
    storage.reserve((2,))
    storage.update({(0,): 1})
    other = ScanStorage(tmp_path, format="npz")
    assert other.leftovers() == [] and other.recover() == []
    target = tmp_path / "folder/data_0.npz"
    target.touch()
    storage.save()
    assert storage.wait(60) and len(storage.failed) == 1
    assert other.leftovers() == []
    target.unlink()
    storage.retry()
    assert storage.wait(60) and read(target)["data"][0] == 1


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("kind", ["zarr", "npz"])
def test_kill_while_a_file_takes_its_name_leaves_one_scan(
    kind: Any, step: str, tmp_path: Path
) -> None:
    """L-19, L-21: the file is whole, and what is left of the buffer is cleared."""
    script = f"""
import os, signal, sys
from bluesky_beamtime.storage import ScanStorage, scan_files
publish = scan_files._publish
def killed(*args):
    if {step!r} == "after":
        publish(*args)
    os.kill(os.getpid(), signal.SIGKILL)
scan_files._publish = killed
scans = ScanStorage(sys.argv[1], format={kind!r})
scans.reserve((2,)); scans.update({{(0,): 7}}); scans.save(); scans.wait()
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    target = tmp_path / f"folder/data_0.{kind}"
    assert target.exists() is (step == "after")
    storage = ScanStorage(tmp_path, format=kind)
    storage.recover()
    assert storage.wait(60) and storage.failed == []
    assert files(tmp_path) == [target.name]
    assert read(target)["data"][0] == 7 and storage.getNumber() == 1


def test_leftover_that_cannot_be_read_is_named_and_kept(tmp_path: Path) -> None:
    """L-21: the others are saved."""
    for _ in range(2):
        leave_behind(tmp_path)
    metadata = tmp_path / "folder/data_0.partial/scan.zarr/data/zarr.json"
    metadata.write_text("{")
    storage = ScanStorage(tmp_path, format="npz")
    with pytest.raises(StoreReadError, match=r"data_0\.partial.*left alone"):
        storage.recover()
    assert storage.wait(60)
    assert files(tmp_path) == ["data_0.partial", "data_1.npz"]


def test_processes_that_reserve_at_once_get_numbers_of_their_own(
    tmp_path: Path,
) -> None:
    """L-07: nothing is lost, and no number is given twice."""
    script = """
import sys
from bluesky_beamtime.storage import ScanStorage
scans = ScanStorage(sys.argv[1], format="npz")
print(flush=True)
sys.stdin.readline()
for number in range(8):
    scans.reserve((1,), tags={"who": sys.argv[2], "number": number})
    scans.update({(0,): number})
assert scans.wait(60) and not scans.failed
"""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), who], **pipes)
        for who in ("a", "b")
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=100)
        assert child.returncode == 0
    tags = [read(tmp_path / "folder" / name)["tags"] for name in files(tmp_path)]
    made = sorted((tag["who"], tag["number"]) for tag in tags)
    assert made == [(who, number) for who in "ab" for number in range(8)]


def test_gap_is_not_used_again(tmp_path: Path) -> None:
    """L-07: a scan that was moved away does not come back under its number."""
    storage = ScanStorage(tmp_path, format="npz")
    for _ in range(3):
        take(storage)
    assert storage.wait(60)
    (tmp_path / "folder/data_1.npz").unlink()
    take(storage)
    assert storage.wait(60)
    assert files(tmp_path) == ["data_0.npz", "data_2.npz", "data_3.npz"]


def test_number_takes_one_look_at_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-07: however many scans there are; no file is asked for."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(300):
        (folder / f"data_{number}.npz").touch()
    looks: list[Any] = []
    listdir = os.listdir

    class Counted:
        """The module, without what asks for single files."""

        fspath, path = staticmethod(os.fspath), os.path

        @staticmethod
        def listdir(place: Any) -> list[str]:
            looks.append(place)
            return listdir(place)

    storage = ScanStorage(tmp_path, format="npz")
    monkeypatch.setattr(scan_names, "os", Counted)
    monkeypatch.setattr(Path, "exists", lambda self: pytest.fail("asked for a file"))
    assert storage.getNumber() == 300
    assert looks == [folder]


# ------------------------------------------------------------- what the disk refuses


def refusing(storage: ScanStorage) -> tuple[list[Any], list[bool]]:
    failures: list[Any] = []
    states: list[bool] = []
    storage.saveFailed.connect(lambda error, path: failures.append((error, path)))
    storage.savingStateChanged.connect(states.append)
    return failures, states


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_full_disk_fails_a_save_that_works_with_space(
    kind: Any, small_disk: Callable[[int], Path]
) -> None:
    """L-21: told by a signal, not saving any more, the data are kept."""
    disk = small_disk(8192)
    storage = ScanStorage(disk, format=kind)
    failures, states = refusing(storage)
    storage.reserve((2, 400, 400))
    values = np.random.default_rng(0).normal(size=(400, 400))
    storage.update({(0,): values})
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    storage.save()
    assert storage.wait(60) and states == [True, False] and not storage.saving
    [(error, path)] = failures
    assert isinstance(error, StoreWriteError) and error.errno == errno.ENOSPC
    assert path.startswith(str(disk)) and "free some space" in str(error)
    assert storage.failed == [disk / "folder/data_0.partial"]
    ballast.unlink()
    storage.retry()
    assert storage.wait(60) and storage.failed == [] and states[2:] == [True, False]
    found = read(Path(path))
    np.testing.assert_array_equal(found["data"][0], values)
    assert found["mask"].tolist() == [True, False]


def test_full_disk_refuses_a_point_and_takes_it_with_space(
    small_disk: Callable[[int], Path],
) -> None:
    """L-16, L-21: the mask is true of what is there."""
    disk = small_disk(4096)
    storage = ScanStorage(disk)
    values = np.random.default_rng(0).normal(size=(6, 300, 300))
    storage.reserve(values.shape)
    taken = 0
    with pytest.raises(StoreWriteError) as raised:
        for taken in range(6):
            storage.update({(taken,): values[taken]})
            if taken == 1:
                (disk / "ballast").write_bytes(bytes(2 << 20))
    assert raised.value.errno == errno.ENOSPC
    (disk / "ballast").unlink()
    buffer: Any = zarr.open_group(str(storage.buffer), mode="r")
    assert buffer["mask"][:taken].all()
    storage.update({(taken,): values[taken]})
    storage.save()
    assert storage.wait(60) and storage.failed == []
    found = read(disk / "folder/data_0.zarr")
    assert found["mask"].tolist() == [n <= taken for n in range(6)]
    np.testing.assert_array_equal(found["data"][: taken + 1], values[: taken + 1])


READ_ONLY = """
import ctypes, os, sys
from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage import ScanStorage

# Permissions do not stop root, without its privileges they do.
none = (ctypes.c_uint32 * 6)()
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
if ctypes.CDLL(None, use_errno=True).capset(header, none):
    raise OSError(ctypes.get_errno(), "capset")

scans = ScanStorage(sys.argv[1], format="npz")
told, states = [], []
scans.saveFailed.connect(lambda error, path: told.append((error.errno, path)))
scans.savingStateChanged.connect(states.append)
scans.reserve((2,))
scans.update({(0,): 3})
folder = os.path.join(sys.argv[1], "folder")
os.chmod(folder, 0o555)
scans.save()
assert scans.wait(60) and states == [True, False], states
assert told == [(13, os.path.join(folder, "data_0.npz"))], told
try:
    scans.reserve((2,))
except StoreWriteError as error:
    assert "permissions" in str(error)
else:
    raise AssertionError("reserved in a folder that is read-only")
os.chmod(folder, 0o755)
scans.retry()
assert scans.wait(60) and not scans.failed
"""


def test_read_only_folder_fails_a_save_and_a_reservation(tmp_path: Path) -> None:
    """L-21: and both work when it can be written to again."""
    command = [sys.executable, "-c", READ_ONLY, str(tmp_path)]
    done = subprocess.run(command, timeout=100, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "folder/data_0.npz")["data"][0] == 3


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_system_without_hard_links_is_good_enough(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-05, L-21: and no file of another program is overwritten there either."""

    def link(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(scan_files.os, "link", link)
    storage = ScanStorage(tmp_path, format="npz")
    take(storage, 3)
    assert storage.wait(60) and storage.failed == []
    assert read(tmp_path / "folder/data_0.npz")["data"][0] == 3
    storage.reserve((1,))
    target = tmp_path / "folder/data_1.npz"
    target.write_text("of somebody else")
    storage.update({(0,): 4})
    assert storage.wait(60) and len(storage.failed) == 1
    assert target.read_text() == "of somebody else"
    target.unlink()
    storage.retry()
    assert storage.wait(60) and read(target)["data"][0] == 4


@pytest.mark.parametrize("kind", ["zarr", "npz", "hdf5"])
def test_all_of_a_scan_is_synced_before_it_has_its_name(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-19: a power cut leaves a file that is whole, or the buffer."""
    synced: list[Path] = []
    real_file, real_folder = scan_files.sync_file, scan_files.sync_folder

    def sync_file(path: Path) -> None:
        assert not target.exists()
        synced.append(path)
        real_file(path)

    def sync_folder(path: Path) -> None:
        synced.append(path)
        real_folder(path)

    target = tmp_path / f"folder/data_0{scan_names.SUFFIXES[kind]}"
    monkeypatch.setattr(scan_files, "sync_file", sync_file)
    monkeypatch.setattr(scan_files, "sync_folder", sync_folder)
    storage = ScanStorage(tmp_path, format=kind)
    storage.reserve((3, 4))
    storage.update({(1,): [1, 2, 3, 4]})
    storage.save()
    assert storage.wait(60) and storage.failed == []
    assert synced[-1] == target.parent
    if kind == "zarr":
        work = target.parent / "data_0.partial/scan.zarr"
        every = {work / path.relative_to(target) for path in target.rglob("*")}
        assert every <= set(synced)
    else:
        assert synced[0].name == f"scan{target.suffix}"


# --------------------------------------------------------------- nobody waits for it


def test_save_of_200_megabytes_returns_at_once(tmp_path: Path) -> None:
    """L-23: the thread that called goes on at its pace while it is written."""
    storage = ScanStorage(tmp_path, format="npz")
    storage.reserve((25, 1000, 1000))
    block = np.zeros((1000, 1000))
    storage.update({(n,): block + n for n in range(25)} | {(24,): block})
    start = time.perf_counter()
    # Full: it was being saved when update returned; wait() is the whole save.
    assert storage.writing == 1
    ticks = 0
    while not storage.wait(0.001):
        ticks += 1
    whole = time.perf_counter() - start
    assert ticks > 20
    assert read(tmp_path / "folder/data_0.npz")["data"].nbytes == 200_000_000
    storage.reserve((25, 1000, 1000))
    storage.update({(n,): block for n in range(24)})
    # Its own time: a busy machine may stop a thread anywhere. That it does not wait
    # for the disk is what the next test shows.
    start = time.thread_time()
    storage.save()
    returned = time.thread_time() - start
    assert storage.wait(100)
    assert returned < whole / 20


def test_event_loop_goes_on_while_a_scan_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L-23: nothing that is called from it waits for the disk."""
    import asyncio

    from bluesky_beamtime.storage import scan_saving

    real, gate = scan_saving.save_scan, threading.Event()

    def slow(*args: Any) -> None:
        assert gate.wait(60)
        real(*args)

    monkeypatch.setattr(scan_saving, "save_scan", slow)
    storage = ScanStorage(tmp_path, format="npz")

    async def use() -> int:
        ticks = 0
        take(storage)
        for _ in range(50):
            await asyncio.sleep(0)
            # All of this while the disk does nothing.
            assert storage.saving and storage.writing == 1 and storage.failed == []
            storage.retry()
            storage.numbered = True
            ticks += 1
        return ticks

    try:
        assert asyncio.run(use()) == 50
    finally:
        gate.set()
    assert storage.wait(60)
    assert files(tmp_path) == ["data_0.npz"]
