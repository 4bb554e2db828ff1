"""What a power cut leaves of an HDF5 file: gate R3.

Every write is recorded, and when the disk was asked to keep it. A cut at a random
moment keeps what was synced and a random part, in sectors, of everything else.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.errors import StoreReadError
from bluesky_beamtime.storage import (
    files,
    hdf5_appending,
    hdf5_file,
    hdf5_publishing,
    open_frames,
    repair_store,
)
from bluesky_beamtime.storage.hdf5_codecs import ChunkCodec
from bluesky_beamtime.storage.hdf5_file import HDF5File
from bluesky_beamtime.storage.hdf5_layout import FileLayout

CUTS = int(os.environ.get("BEAMTIME_POWER_CUTS", "80"))
SECTOR = 512
Frames = Callable[..., np.ndarray[Any, Any]]


@dataclass
class Disk:
    """Remembers writes since the last sync."""

    path: Path
    steps: list[tuple[Any, ...]] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        write, sync = files.pwrite_all, os.fdatasync

        def pwrite_all(fd: int, buffers: list[Any], size: int, offset: int) -> None:
            write(fd, buffers, size, offset)
            data = b"".join(bytes(memoryview(buffer)) for buffer in buffers)
            self.steps.append(("write", offset, data))

        def fdatasync(fd: int) -> None:
            sync(fd)
            self.steps.append(("sync",))

        for module in (hdf5_appending, hdf5_publishing, hdf5_file):
            patch.setattr(module, "pwrite_all", pwrite_all)
        patch.setattr(os, "fdatasync", fdatasync)

    def cut(self, start: bytes, rng: random.Random, moment: int) -> bytes:
        """Return what is left of the file when the power goes at a moment."""
        steps = self.steps[:moment]
        synced = max(
            (n for n, step in enumerate(steps) if step[0] == "sync"), default=0
        )
        content = bytearray(start)

        def put(offset: int, data: bytes) -> None:
            if len(content) < offset + len(data):
                content.extend(bytes(offset + len(data) - len(content)))
            content[offset : offset + len(data)] = data

        for step in steps[:synced]:
            if step[0] == "write":
                put(*step[1:])
        parts = []
        for step in steps[synced:]:
            if step[0] == "write":
                _, offset, data = step
                place = offset
                while place < offset + len(data):
                    stop = min(place + SECTOR - place % SECTOR, offset + len(data))
                    parts.append((place, data[place - offset : stop - offset]))
                    place = stop
        share = rng.random()
        for part in parts:
            if rng.random() < share:
                put(*part)
        return bytes(content)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("power", [True, False])
def test_power_cuts(
    tmp_path: Path,
    frames: Frames,
    monkeypatch: pytest.MonkeyPatch,
    power: bool,
    compression: Any,
):
    """Nothing synced is lost, and nothing wrong is handed out, by any reader."""
    path = tmp_path / "made" / "cam.h5"
    layout = FileLayout(shape=(9, 11), codec=ChunkCodec(np.dtype("<u2"), compression))
    data = frames(60, (9, 11)) % 50
    disk = Disk(path)
    file = HDF5File.create(path, layout, attributes={"gain": 2}, power=power)
    file.sync()
    start = path.read_bytes()
    disk.install(monkeypatch)
    # Frames that must survive a cut at each step.
    safe: list[tuple[int, int]] = [(0, 0)]
    for number, frame in enumerate(data):
        file.append_many([file.encode(frame)])
        if power:
            safe.append((len(disk.steps), number + 1))
        if number % 5 == 4:
            file.sync()
            safe.append((len(disk.steps), number + 1))
            file.set_attributes({"count": number})
            file.publish()
    file.close()
    monkeypatch.undo()

    # What is repaired has no power cut to fear.
    monkeypatch.setattr(os, "fdatasync", lambda fd: None)
    rng = random.Random(1)
    lost = 0
    for number in range(CUTS):
        moment = rng.randrange(len(disk.steps) + 1)
        there = tmp_path / str(number) / "cam.h5"
        there.parent.mkdir()
        there.write_bytes(disk.cut(start, rng, moment))
        promised = max(count for step, count in safe if step <= moment)
        repair_store(there)
        found = open_frames(there, "application/x-hdf5")
        assert len(found) >= promised
        missing = set()
        for index in range(len(found)):
            try:
                np.testing.assert_array_equal(found[index], data[index])
            except StoreReadError:
                missing.add(index)
        assert not missing & set(range(promised))
        with h5py.File(there, "r") as opened:
            dataset = opened["entry/data/data"]
            assert len(dataset) == len(found)
            for index in range(len(dataset)):
                expected = 0 if index in missing else data[index]
                np.testing.assert_array_equal(dataset[index], expected)
            assert dataset.attrs["gain"] == found.attrs["gain"] == 2
        lost += len(missing)
    if not power:
        # The test would prove little if everything were there every time.
        assert lost > 0
