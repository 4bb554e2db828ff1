"""Writers that are killed at random moments: gate R2 for HDF5.

Twenty times here; ``BEAMTIME_KILLS`` asks for more.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

from bluesky_beamtime.storage import open_frames, repair_store, verify_store

KILLS = int(os.environ.get("BEAMTIME_KILLS", "20"))
DATASET = "/entry/data/data"
SCRIPT = Path(__file__).with_name("zygote.py")
Kill = Callable[[int, str, int, float], Path]


@pytest.fixture(scope="module")
def zygote() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zygote", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kill(tmp_path: Path) -> Iterator[Kill]:
    """Let a child write for a while, kill it, and return its folder."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def one(number: int, compression: str, size: int, seconds: float) -> Path:
        folder = tmp_path / str(number)
        requests.write(f"{number} {compression} {size}\n")
        requests.flush()
        child = int(answers.readline())
        deadline = time.monotonic() + 30
        while not (folder / "acks").exists() or not (folder / "acks").stat().st_size:
            assert time.monotonic() < deadline, "the child does not write"
            time.sleep(0.001)
        # How long it lives is what is random, not what is waited for.
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        while True:
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                return folder
            assert time.monotonic() < deadline + 30
            time.sleep(0.001)

    yield one
    requests.close()
    process.wait(30)
    answers.close()


def acknowledged(folder: Path) -> list[tuple[int, int]]:
    """Return written and published frames of both sources."""
    counts = [(0, 0), (0, 0)]
    for line in (folder / "acks").read_text().splitlines():
        source, index, published = map(int, line.split())
        counts[source] = index + 1, published
    return counts


def test_nothing_acknowledged_is_lost(
    kill: Kill, zygote: ModuleType, capsys: pytest.CaptureFixture[str]
):
    """Every codec, two sources; published frames are there before the repair, too."""
    rng = random.Random(os.environ.get("BEAMTIME_SEED", "kills"))
    frames = late = 0
    for number in range(KILLS):
        compression = ("none", "lz4", "zstd", "gzip")[number % 4]
        size = rng.choice((1, 8, 64, 256))
        folder = kill(number, compression, size, rng.uniform(0, 0.3))
        counts = acknowledged(folder)

        def check(
            data: Any, source: int, number: int = number, size: int = size
        ) -> None:
            some = {0, len(data) - 1, *(rng.randrange(len(data)) for _ in range(6))}
            for index in sorted(some):
                expected = zygote.frame(number, source, index, size)
                np.testing.assert_array_equal(data[index], expected)

        for source, (_, published) in enumerate(counts):
            path = folder / f"{'ab'[source]}.h5"
            with pytest.raises(OSError):
                h5py.File(path, "r")
            with h5py.File(path, "r", swmr=True) as file:
                assert len(file[DATASET]) >= published
                if compression in ("none", "gzip") and len(file[DATASET]):
                    check(file[DATASET], source)
            found = open_frames(path, "application/x-hdf5")
            assert len(found) >= published
            if len(found):
                check(found, source)
        assert not verify_store(folder).ok
        assert repair_store(folder).ok
        assert verify_store(folder).ok
        for source, (written, _) in enumerate(counts):
            path = folder / f"{'ab'[source]}.h5"
            found = open_frames(path, "application/x-hdf5")
            # One frame may have been safe without its acknowledgement.
            assert written <= len(found) <= written + 1
            frames += written
            late += len(found) - written
            with h5py.File(path, "r") as file:
                assert len(file[DATASET]) == len(found)
            if len(found):
                check(found, source)
    with capsys.disabled():
        print(f" [{KILLS} kills, {frames} acknowledged, 0 lost, {late} more]", end="")
    assert frames > KILLS
