"""A file that grows, read by plain h5py in another process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.storage import FrameSink, HDF5Writer, from_uri

Begin = Callable[..., tuple[HDF5Writer, list[FrameSink]]]

# Opens, refreshes and opens again, as a viewer does; ends when the writer has closed.
READER = """
import sys, h5py, numpy as np
path, total = sys.argv[1], int(sys.argv[2])
looks = seen = last = 0
while True:
    with h5py.File(path, "r", swmr=True) as file:
        data = file["entry/data/data"]
        for _ in range(20):
            data.id.refresh()
            length = len(data)
            assert length >= last, (length, last)
            if length:
                for index in {0, length // 2, length - 1, max(0, length - 17)}:
                    frame = data[index]
                    assert (frame == index).all(), (index, length, frame[:2])
                assert int(data.attrs.get("count", 0)) <= total
                data.attrs.get("text")
            seen += last < length < total
            last = length
            looks += 1
    if looks == 20:
        print("reading", flush=True)
    if last == total:
        break
print(looks, seen, h5py.version.hdf5_version)
"""


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_never_a_wrong_frame_nor_an_error(begin: Begin, compression: str):
    """Hundreds of lengths and attributes a second, while the frames come."""
    total = 6000
    _, (sink,) = begin("cam", dtype="<u4", shape=(16,), compression=compression)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, from_uri(sink.uri), str(total)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    for number in range(total):
        sink.write(np.full(16, number, "<u4"))
        if number % 3 == 0:
            sink.set_attributes({"count": number, "text": "x" * (number % 500)})
            sink.publish()
        if number % 300 == 299:
            # The reader gets its turn on a machine with few cores.
            time.sleep(0.02)
    sink.close()
    output, errors = reader.communicate(timeout=60)
    assert (reader.returncode, errors) == (0, "")
    looks, seen, _ = output.split()
    assert int(looks) > 20
    assert int(seen) > 2


def test_the_length_follows_by_itself(begin: Begin):
    """Within 50 ms on a quiet machine; nobody has to publish."""
    _, (sink,) = begin("cam", dtype="<u4", shape=(16,))
    from bluesky_beamtime.storage import open_frames

    found: Any = open_frames(sink.uri, sink.mimetype)
    deadline = time.monotonic() + 10
    for number in range(5):
        sink.write(np.full(16, number, "<u4"))
        while found.refresh() <= number:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert (found[number] == number).all()
    sink.close()
