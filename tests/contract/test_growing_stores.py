"""Plain readers in another process follow stores from before their first frame.

They know nothing of this package. Until a store is there they may say so; from then on
no error is allowed, no frame that is wrong, and no length that shrinks.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.storage import Writer, make_writer

ZARR, HDF5 = "application/x-zarr", "application/x-hdf5"
STORES, FRAMES = 6, 120

# What opens a store and returns an array, or raises ABSENT while it is not there.
OPEN = {
    "zarr-python": """
import zarr
ABSENT = FileNotFoundError
def look(path):
    return zarr.open_array(path, mode="r")
""",
    "zarr-python, by the group": """
import os, zarr
ABSENT = FileNotFoundError, KeyError
def look(path):
    return zarr.open_group(os.path.dirname(path), mode="r")["cam"]
""",
    "tensorstore": """
import tensorstore as ts
class Absent(Exception):
    pass
ABSENT = Absent
def look(path):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
    try:
        return ts.open(spec, open=True, read=True).result()
    except ValueError as error:
        if "NOT_FOUND" in str(error):
            raise Absent from error
        raise
""",
    "h5py": """
import h5py, hdf5plugin
ABSENT = FileNotFoundError
class look:
    def __init__(self, path):
        with h5py.File(path, "r", swmr=True) as file:
            self.data = file["entry/data/data"][:]
        self.shape = self.data.shape
    def __getitem__(self, some):
        return self.data[some]
""",
}

FOLLOW = """
import sys, time
import numpy as np
folder, suffix, stores, total = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
looks = absent = 0
print("ready", flush=True)
for number in range(stores):
    path = f"{folder}/{number}/cam{suffix}"
    last, there, told = 0, False, False
    while last < total:
        try:
            data = look(path)
        except ABSENT:
            # It is not there yet; once it was, it must not vanish.
            assert not there
            absent += 1
            continue
        there = True
        looks += 1
        length = data.shape[0]
        assert last <= length <= total, (last, length)
        last = length
        for first in {0, max(0, length - 20)}:
            got = np.asarray(data[first:min(length, first + 20)])
            want = np.arange(first, first + len(got), dtype="u2")[:, None, None]
            assert got.shape[1:] == (16, 16), got.shape
            assert (got == want).all(), (number, first, length)
        if not told and 0 < length < total:
            told = True
            print("growing", flush=True)
print("end", looks, absent, flush=True)
"""

CASES = [
    ("zarr-python", ZARR, {"compression": "none"}),
    ("zarr-python", ZARR, {"compression": "zstd"}),
    ("zarr-python", ZARR, {"compression": "none", "chunks": 5}),
    ("zarr-python, by the group", ZARR, {"compression": "lz4"}),
    ("tensorstore", ZARR, {"compression": "none", "checksum": False}),
    ("tensorstore", ZARR, {"compression": "lz4"}),
    ("tensorstore", ZARR, {"compression": "zstd", "chunks": (3, 16)}),
    ("h5py", HDF5, {"compression": "none"}),
    ("h5py", HDF5, {"compression": "gzip"}),
    ("h5py", HDF5, {"compression": "lz4"}),
]


@pytest.fixture
def names() -> Iterator[list[tuple[str, str]]]:
    """Writers that the test makes; released when it ends, however it ends."""
    made: list[tuple[str, str]] = []
    yield made
    for mimetype, name in made:
        writer = make_writer(mimetype, name)
        writer.abort()
        type(writer).release(name)


def write(writer: Writer, folder: Path, reader: subprocess.Popen[str]) -> None:
    """Write one store and wait in the middle of it until it was looked at."""
    assert reader.stdout is not None
    writer.set_uri(str(folder))
    sink = writer.prepare("cam", "cam", "<u2", (16, 16))
    writer.kickoff()
    for number in range(FRAMES):
        sink.write(np.full((16, 16), number, "<u2"))
        if number % 7 == 0:
            sink.publish()
        if number == FRAMES // 2:
            sink.publish()
            # Ends with the reader, if that dies.
            assert reader.stdout.readline() == "growing\n"
        elif number % 10 == 0:
            time.sleep(0.001)
    sink.close()


@pytest.mark.parametrize(("reader", "mimetype", "options"), CASES)
def test_from_before_the_first_frame_to_the_last(
    tmp_path: Path,
    names: list[tuple[str, str]],
    reader: str,
    mimetype: str,
    options: dict[str, Any],
):
    if mimetype == ZARR:
        options = options | {"frames_per_shard": 16}
    names.append((mimetype, "growing"))
    writer = make_writer(mimetype, "growing", **options)
    suffix = "" if mimetype == ZARR else ".h5"
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", OPEN[reader] + FOLLOW),
            *(str(tmp_path), suffix, str(STORES), str(FRAMES)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for number in range(STORES):
                write(writer, tmp_path / str(number), process)
            said = process.stdout.read()
        finally:
            process.kill()
            errors = process.stderr.read()
            # Shown when the reader died in the middle.
            print(errors)
    assert errors == ""
    word, looks, _ = said.split()
    assert word == "end"
    assert int(looks) > 2 * STORES
