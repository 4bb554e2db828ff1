"""Folders that cannot be written to, from the start or all of a sudden (R4).

Run in a process of its own that has given up the privileges of root, which no
permission stops: one named error, all frames that were acknowledged are readable, and
the same writer goes on when the folder is as it was.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.storage import open_frames, repair_store, verify_store

FORMATS = {"zarr": "application/x-zarr", "hdf5": "application/x-hdf5"}

CHILD = """
import ctypes, errno, json, os, shutil, sys, time
import numpy as np
from bluesky_beamtime.errors import StoreWriteError
from bluesky_beamtime.storage import make_writer

# Threads that are started later have as little.
none = (ctypes.c_uint32 * 6)()
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
if ctypes.CDLL(None, use_errno=True).capset(header, none):
    raise OSError(ctypes.get_errno(), "capset")

mimetype, folder, scenario = sys.argv[1:]
store = os.path.join(folder, "store")
writer = make_writer(mimetype, "refused")
frame = np.zeros((16, 16), "<u2")
count = 0

def begin():
    writer.set_uri(store)
    sink = writer.prepare("cam", "cam", "<u2", (16, 16))
    writer.kickoff()
    return sink

def write(sink):
    global count
    frame[:] = count
    sink.write(frame)
    count += 1

def failing(work):
    start = time.monotonic()
    while time.monotonic() < start + 20:
        try:
            work()
        except StoreWriteError as error:
            took = time.monotonic() - start
            return {"errno": errno.errorcode[error.errno], "text": str(error),
                    "filename": str(error.filename), "took": took}
        # The numbers in the frames must last.
        time.sleep(0.001)
    return None

def modes(*folders, mode):
    for one in folders:
        os.chmod(one, mode)

said = {}
if scenario == "read-only":
    modes(folder, mode=0o555)
    said["error"] = failing(begin)
    said["left"] = os.listdir(folder)
    modes(folder, mode=0o755)
    sink = begin()
    write(sink)
else:
    sink = begin()
    for _ in range(50):
        write(sink)
    place = os.path.join(store, "cam")
    inside = [store, place] if os.path.isdir(place) else [store]
    if scenario == "permission lost":
        modes(*inside, mode=0o555)
        # In a file that is open there is always room; a file of its own needs more.
        said["error"] = failing(lambda: write(sink)) if len(inside) == 2 else None
        said["late"] = failing(lambda: writer.prepare("late", "late", "<u2", (16, 16)))
        modes(*inside, mode=0o755)
        deadline = time.monotonic() + 20
        while True:
            try:
                write(sink)
                break
            except StoreWriteError:
                # What the thread in the background saw last.
                assert time.monotonic() < deadline
                time.sleep(0.01)
    elif scenario == "moved":
        os.rename(store, store + " elsewhere")
        said["error"] = failing(lambda: write(sink))
    elif scenario == "removed":
        sink.publish()
        shutil.rmtree(store)
        said["error"] = failing(lambda: write(sink))
said["written"] = sink.frames_written
try:
    sink.close()
except StoreWriteError as error:
    said["close"] = errno.errorcode[error.errno]
said["open"] = writer.is_open
# Another acquisition has nothing to do with it.
store += " next"
count, first = 0, count
sink = begin()
write(sink)
sink.close()
said["count"] = first
print(json.dumps(said))
"""


def run(folder: Path, mimetype: str, scenario: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, mimetype, str(folder), scenario],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["open"] is False
    suffix = "" if "zarr" in mimetype else ".h5"
    assert len(open_frames(str(folder / f"store next/cam{suffix}"), mimetype)) == 1
    return said


def check(path: Path, mimetype: str, count: int) -> None:
    """Every frame that was acknowledged, each with its number in it."""
    stored = open_frames(str(path), mimetype)[:]
    assert len(stored) == count
    expected = np.arange(count, dtype="<u2")[:, None, None]
    np.testing.assert_array_equal(stored, np.broadcast_to(expected, stored.shape))


def array(store: Path, mimetype: str) -> Path:
    return store / ("cam" if "zarr" in mimetype else "cam.h5")


@pytest.fixture(params=FORMATS)
def mimetype(request: pytest.FixtureRequest) -> str:
    return FORMATS[request.param]


def test_a_folder_that_is_read_only(tmp_path: Path, mimetype: str):
    said = run(tmp_path, mimetype, "read-only")
    error = said["error"]
    assert error["errno"] == "EACCES"
    assert error["filename"].startswith(str(tmp_path))
    assert "Permission denied" in error["text"]
    assert error["took"] < 20
    assert said["left"] == []
    assert "close" not in said
    check(array(tmp_path / "store", mimetype), mimetype, 1)


def test_permission_is_lost_and_comes_back(tmp_path: Path, mimetype: str):
    """What needs a new file is refused; a file that is open goes on."""
    said = run(tmp_path, mimetype, "permission lost")
    for error in filter(None, (said["error"], said["late"])):
        assert error["errno"] == "EACCES"
        assert "Permission denied" in error["text"]
    assert said["late"] is not None
    assert (said["error"] is not None) == ("zarr" in mimetype)
    assert "close" not in said
    assert said["written"] == said["count"] > 50
    check(array(tmp_path / "store", mimetype), mimetype, said["count"])
    assert verify_store(tmp_path / "store").ok


def test_a_store_that_is_moved_away(tmp_path: Path, mimetype: str):
    """Its frames are where it was moved to, all of them once it is repaired."""
    said = run(tmp_path, mimetype, "moved")
    assert said["error"]["errno"] == "ENOENT"
    assert "gone" in said["error"]["text"]
    assert said["close"] == "ENOENT"
    moved = tmp_path / "store elsewhere"
    assert repair_store(moved).ok
    check(array(moved, mimetype), mimetype, said["written"])


def test_a_store_that_is_removed(tmp_path: Path, mimetype: str):
    said = run(tmp_path, mimetype, "removed")
    assert said["error"]["errno"] == "ENOENT"
    assert "gone" in said["error"]["text"]
    assert said["close"] == "ENOENT"
