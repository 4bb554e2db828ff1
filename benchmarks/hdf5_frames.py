"""How fast frames reach HDF5 files, as ratios to a raw file and to h5py.

Every ratio is the median over interleaved rounds, as in ``frames.py``. Run::

    python benchmarks/hdf5_frames.py                 # local disk and /dev/shm
    python benchmarks/hdf5_frames.py --place /tmp --rounds 3
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
from pathlib import Path

from engines import Engine, Frames, detector_frames, ours, raw
from peers import h5py_swmr

MEBI = 1 << 20
HDF5 = "application/x-hdf5"


def twice(engine: Engine) -> Engine:
    """Run an engine twice at once, with half of the frames each; time the slower."""

    def run(folder: Path, frames: Frames, count: int) -> list[float]:
        found: list[list[float]] = []

        def one(name: str) -> None:
            place = folder / name
            place.mkdir()
            found.append(engine(place, frames, count // 2))

        threads = [threading.Thread(target=one, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return max(found, key=sum)

    return run


ENGINES: dict[str, Engine] = {
    "raw file": raw,
    "h5py resize + SWMR": h5py_swmr(),
    "h5py direct chunks + SWMR": h5py_swmr(direct=True),
    "HDF5Writer": ours(HDF5),
    "HDF5Writer, no checksum": ours(HDF5, checksum=False),
    "ZarrWriter": ours(),
    "2 × h5py direct chunks": twice(h5py_swmr(direct=True)),
    "2 × HDF5Writer": twice(ours(HDF5)),
}


def measure(place: Path, shape: tuple[int, int], total: int, rounds: int) -> None:
    """Print a table for one place and size of frames."""
    frames = detector_frames(shape, "noise")
    count = max(32, total // frames[0].nbytes)
    times: dict[str, list[float]] = {name: [] for name in ENGINES}
    slowest: dict[str, list[float]] = {name: [] for name in ENGINES}
    for number in range(rounds + 1):
        for name, engine in ENGINES.items():
            folder = Path(tempfile.mkdtemp(dir=place))
            try:
                seconds = engine(folder, frames, count)
            finally:
                shutil.rmtree(folder)
            if number:  # the first round warms up
                calls = sorted(seconds[:-1])
                times[name].append(sum(calls))
                slowest[name].append(calls[int(0.99 * (len(calls) - 1))])
    print(f"\n{place}, {shape[0]}² u16, {count} frames, close not counted")
    print(f"{'':28}{'MiB/s':>8}{'to raw':>8}{'to h5py':>9}{'p99 ms':>9}")
    for name, mine in times.items():
        written = count * frames[0].nbytes / MEBI
        to = {
            peer: statistics.median(
                theirs / own for theirs, own in zip(times[peer], mine, strict=True)
            )
            for peer in ("raw file", "h5py resize + SWMR")
        }
        print(
            f"{name:28}{written / statistics.median(mine):8.0f}"
            f"{to['raw file']:8.2f}{to['h5py resize + SWMR']:9.2f}"
            f"{1e3 * statistics.median(slowest[name]):9.2f}"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", action="append", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mebi", type=int, default=768, help="MiB in each round")
    args = parser.parse_args()
    for place in args.place or (Path("/dev/shm"), Path(tempfile.gettempdir())):
        for shape in ((2048, 2048), (512, 512)):
            measure(place, shape, args.mebi * MEBI, args.rounds)


if __name__ == "__main__":
    main()
