"""What ``ScanStorage.update`` costs, beside zarr-python and NumPy alone.

Each writes the same frames into an array of the same shape, point by point. ``update``
checks the frame, writes it and its coverage, so that a reader in another process sees
both and ``kill -9`` loses neither. Plain zarr-python assigns into an array with the
same chunks and the codec that is its default, and has no coverage. A NumPy memory map
assigns too, uncompressed, and nobody knows which points are there. They take turns, and
the ratio of each round is taken.

    python benchmarks/scan_arrays.py [--place DIR] [--edge 512] [--points 200]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = list[NDArray[Any]]


def ours(folder: Path, frames: Frames, points: int) -> float:
    """Return the seconds of ``update``, without those of the save."""
    from bluesky_beamtime.storage import ScanStorage

    scans = ScanStorage(folder)
    scans.reserve((points, *frames[0].shape), dtype=frames[0].dtype, autosave=False)
    start = time.perf_counter()
    for point in range(points):
        scans.update({(point,): frames[point % len(frames)]})
    seconds = time.perf_counter() - start
    scans.save()
    assert scans.wait() and not scans.failed
    return seconds


def plain_zarr(folder: Path, frames: Frames, points: int) -> float:
    """Return the seconds of zarr-python, with its own defaults and our chunks."""
    import zarr

    from bluesky_beamtime.storage.scan_values import chunks_of

    shape = (points, *frames[0].shape)
    array: Any = zarr.create_array(
        store=str(folder / "plain.zarr"),
        shape=shape,
        dtype=frames[0].dtype,
        chunks=chunks_of(shape),
    )
    start = time.perf_counter()
    for point in range(points):
        array[point] = frames[point % len(frames)]
    return time.perf_counter() - start


def memory_map(folder: Path, frames: Frames, points: int) -> float:
    """Return the seconds of a NumPy memory map."""
    array = np.lib.format.open_memmap(
        folder / "plain.npy",
        mode="w+",
        dtype=frames[0].dtype,
        shape=(points, *frames[0].shape),
    )
    start = time.perf_counter()
    for point in range(points):
        array[point] = frames[point % len(frames)]
    array.flush()
    return time.perf_counter() - start


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--place", type=Path, default=None)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    chance = np.random.default_rng(1)
    shape = (options.edge, options.edge)
    frames = [chance.poisson(200, shape).astype("<u2") for _ in range(8)]
    work: dict[str, Callable[..., float]] = {
        "update": ours,
        "zarr-python": plain_zarr,
        "memory map": memory_map,
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for number in range(options.rounds + 1):
        for name, run in work.items():
            with tempfile.TemporaryDirectory(dir=options.place) as folder:
                seconds = run(Path(folder), frames, options.points)
            # The first round warms up.
            if number:
                taken[name].append(seconds)
    print(f"{options.points} frames of {options.edge}² uint16, {options.rounds} rounds")
    for name, seconds in taken.items():
        each = 1e3 * statistics.median(seconds) / options.points
        pairs = zip(seconds, taken["update"], strict=True)
        ratio = statistics.median(theirs / our for theirs, our in pairs)
        print(f"{name:12} {each:7.2f} ms a frame, update is {ratio:.2f} × as fast")


if __name__ == "__main__":
    main()
