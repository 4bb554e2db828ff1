"""Kill writers with ``kill -9`` and count what is lost: gate R2.

Every format, codec, checksum and number of frames in a shard takes its turn. A child
writes two sources at full speed and dies at a random moment. Then it is counted, with a
stock reader and with ours:

- *lost*: a frame whose ``write`` had returned, or that was published, and is not there;
- *wrong*: a frame with one byte that was not written.

Run::

    python benchmarks/kills.py                      # 200 kills
    python benchmarks/kills.py --kills 20 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from killed import BEGUN, PUBLISHED, SOURCES, WRITTEN, numbered, pool, said

ZARR, HDF5 = "application/x-zarr", "application/x-hdf5"
KILLED = Path(__file__).with_name("killed.py")
PATIENCE = 60.0
"""Seconds that a child may take to write its first frame, and to be gone."""


@dataclass(frozen=True)
class Case:
    """How a store is written."""

    mimetype: str
    compression: str
    checksum: bool
    frames_per_shard: int | None = None
    chunks: int | None = None
    """Size of the chunks that each frame is cut into."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of its writer."""
        options: dict[str, Any] = {
            "compression": self.compression,
            "checksum": self.checksum,
        }
        if self.mimetype == ZARR:
            options["frames_per_shard"] = self.frames_per_shard
            options["chunks"] = self.chunks
        return options


CASES = [
    Case(ZARR, compression, checksum, frames, chunks)
    # Frames of 256 × 256 are 121 chunks of 24 × 24: their entries fill half a page.
    for frames, chunks in ((1, None), (7, None), (64, None), (None, None), (16, 24))
    for compression in ("none", "lz4", "zstd")
    for checksum in (True, False)
] + [
    Case(HDF5, compression, checksum)
    for compression in ("none", "lz4", "zstd", "gzip")
    for checksum in (True, False)
]


@dataclass
class Count:
    """What the kills of one case, or of all, have shown."""

    kills: int = 0
    within: int = 0
    """Kills at which a source was within ``write``."""
    acknowledged: int = 0
    """Frames whose ``write`` had returned."""
    more: int = 0
    """Frames that are there although their ``write`` had not returned."""
    lost: int = 0
    wrong: int = 0
    complaints: list[str] = field(default_factory=list[str])
    """What else is not as it should be, in words."""

    def __add__(self, other: Count) -> Count:
        """Return both together."""
        return Count(
            *(mine + getattr(other, name) for name, mine in vars(self).items())
        )


@contextmanager
def killer(place: Path) -> Iterator[Callable[[int, Case, int, float], Path]]:
    """Give a function that lets a child write for some seconds, and kills it."""
    process = subprocess.Popen(
        [sys.executable, str(KILLED), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    orders, answers = process.stdin, process.stdout

    def kill(number: int, case: Case, size: int, seconds: float) -> Path:
        order = {
            "number": number,
            "mimetype": case.mimetype,
            "options": case.options,
            "size": size,
        }
        orders.write(json.dumps(order) + "\n")
        orders.flush()
        child = int(answers.readline())
        folder = place / str(number)
        deadline = time.monotonic() + PATIENCE
        while not _has_begun(folder):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                raise TimeoutError(f"the child for {case} does not write")
            time.sleep(0.001)
        # How long it lives is what is random, not what is waited for.
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        while _exists(child):
            if time.monotonic() > deadline + PATIENCE:
                raise TimeoutError(f"process {child} does not die")
            time.sleep(0.001)
        return folder

    try:
        yield kill
    finally:
        orders.close()
        process.wait(PATIENCE)
        answers.close()


def _has_begun(folder: Path) -> bool:
    path = folder / "said"
    whole = path.exists() and path.stat().st_size == len(SOURCES) * 24
    return whole and bool((said(folder)[:, WRITTEN] > 0).all())


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def examine(folder: Path, number: int, case: Case, size: int) -> Count:
    """Look at what a killed child left: as it is, repaired, and frame by frame."""
    from bluesky_beamtime.storage import open_frames, repair_store, verify_store

    state = np.array(said(folder)).astype(int)
    found = Count(kills=1, within=int((state[:, BEGUN] > state[:, WRITTEN]).any()))
    expected = [pool(number, source, size) for source in range(len(SOURCES))]
    paths = [path_of(folder / "store", case, name) for name in SOURCES]
    for source, path in enumerate(paths):
        ours = open_frames(str(path), case.mimetype)
        for length, read in (stock(path, case), (len(ours), ours.__getitem__)):
            found.lost += max(0, int(state[source, PUBLISHED]) - length)
            if read is not None:
                some = slice(max(0, length - 50), length)
                found.wrong += wrong(read, some, expected[source])
    if not repair_store(folder / "store").ok or not verify_store(folder / "store").ok:
        found.complaints.append(f"{case}: not whole after its repair")
    for source, path in enumerate(paths):
        written = int(state[source, WRITTEN])
        ours = open_frames(str(path), case.mimetype)
        found.acknowledged += written
        found.more += len(ours) - written
        if len(ours) > written + 1:
            found.complaints.append(f"{case}: {len(ours)} frames of {written} written")
        for length, read in (stock(path, case), (len(ours), ours.__getitem__)):
            found.lost += max(0, written - length)
            if read is not None:
                found.wrong += wrong(read, slice(0, length), expected[source])
    return found


def path_of(store: Path, case: Case, name: str) -> Path:
    """Return where a source's frames are."""
    return store / (name if case.mimetype == ZARR else f"{name}.h5")


def stock(path: Path, case: Case) -> tuple[int, Any]:
    """Return the length that a stock reader sees, and what reads some frames with it.

    None for frames that need a plug-in which is not there.
    """
    if case.mimetype == ZARR:
        import zarr

        array: Any = zarr.open_array(path, mode="r")
        return array.shape[0], array.__getitem__
    import h5py

    if case.compression in ("lz4", "zstd"):
        import hdf5plugin

        assert hdf5plugin.PLUGIN_PATH

    def read(some: slice) -> Any:
        with h5py.File(path, "r", swmr=True) as file:
            return file["entry/data/data"][some]

    with h5py.File(path, "r", swmr=True) as file:
        return len(file["entry/data/data"]), read


def wrong(read: Any, some: slice, frames: Any) -> int:
    """Return how many of some frames are not what was written."""
    count = 0
    for first in range(some.start, some.stop, 512):
        index = np.arange(first, min(some.stop, first + 512))
        stored = np.asarray(read(slice(first, first + len(index))))
        same = stored == numbered(frames, index)
        count += len(index) - int(same.all(axis=(1, 2)).sum())
    return count


def run(place: Path, kills: int, chance: random.Random) -> dict[Case, Count]:
    """Kill so many writers, each of the next case."""
    table: dict[Case, Count] = {}
    with killer(place) as kill:
        for number in range(kills):
            # Few kills see every format and codec as well: 31 and 38 share no factor.
            case = CASES[number * 31 % len(CASES)]
            size = chance.choice((8, 64, 128, 256))
            folder = kill(number, case, size, chance.uniform(0, 0.2))
            found = examine(folder, number, case, size)
            table[case] = table.get(case, Count()) + found
            shutil.rmtree(folder)
    return table


def main() -> None:
    """Kill, count, print."""
    from machine import describe, finished

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="by default a temporary one")
    parser.add_argument("--seed", type=int, help="for the moments of the kills")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        table = run(Path(place), options.kills, random.Random(options.seed))
    names = ("kills", "within", "acknowledged", "more", "lost", "wrong")
    print(
        f"{'format, codec, checksum, frames per shard':44}",
        *map("{:>13}".format, names),
    )
    total = sum(table.values(), Count())
    for case, count in [*sorted(table.items(), key=lambda x: str(x[0])), (None, total)]:
        what = "all"
        if case is not None:
            shard = case.frames_per_shard or "default"
            checked = "crc32c" if case.checksum else "-"
            what = f"{case.mimetype[14:]}, {case.compression}, {checked}"
            what += f", {shard}" if case.mimetype == ZARR else ""
            what += ", in chunks" if case.chunks else ""
        print(f"{what:44}", *(f"{getattr(count, name):13}" for name in names))
    for complaint in total.complaints:
        print(complaint)
    if options.json:
        rows = [{**asdict(case), **asdict(count)} for case, count in table.items()]
        figures = {"machine": finished(machine), "rows": rows, "total": asdict(total)}
        options.json.write_text(json.dumps(figures, indent=1))
    if total.lost or total.wrong or total.complaints:
        sys.exit(1)


if __name__ == "__main__":
    main()
