"""A beamtime to an archive in a folder, against ``cp`` and ``sha256sum`` of its files.

Both copy the same files, bring them to the disk, and hash every one here and there; in
turns, each into a folder of its own that is removed afterwards. The second archive,
which has nothing to do, is timed too. Once with few large files, such as shards, once
with many small ones. The peer depends on whether its ``sha256sum`` uses what the
processor has for it; Python's does where OpenSSL does.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bluesky_beamtime import Beamtime
from bluesky_beamtime.exports import archive

MEBI = 1 << 20

PEER = """
set -e
cp -r "$1" "$2"
sync -f "$2"
(cd "$1" && find . -type f -print0 | xargs -0 sha256sum) > "$2.sums"
(cd "$2" && sha256sum --quiet --strict -c) < "$2.sums"
"""


def make(folder: Path, count: int, size: int) -> Path:
    """Make a beamtime with files of random bytes; returns its database."""
    path = folder / "x.db"
    with Beamtime(path):
        pass
    (folder / "x_files").mkdir()
    for number in range(count):
        (folder / "x_files" / f"{number:05d}.h5").write_bytes(os.urandom(size))
    return path


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that something took, and those of processors."""
    before = [resource.getrusage(who) for who in (0, resource.RUSAGE_CHILDREN)]
    start = time.perf_counter()
    work()
    took = time.perf_counter() - start
    after = [resource.getrusage(who) for who in (0, resource.RUSAGE_CHILDREN)]
    cpu = sum(
        late.ru_utime + late.ru_stime - early.ru_utime - early.ru_stime
        for early, late in zip(before, after, strict=True)
    )
    return took, cpu


def copied(source: Path, target: Path) -> None:
    """Copy with the tools of every machine."""
    command = ["sh", "-c", PEER, "sh", str(source), str(target)]
    subprocess.run(command, check=True)


def measure(folder: Path, count: int, size: int, rounds: int) -> None:
    """Print what both take for so many files."""
    source = folder / "source"
    source.mkdir()
    path = make(source, count, size)
    total = count * size / MEBI
    ours: list[tuple[float, float]] = []
    peers: list[tuple[float, float]] = []
    again: list[float] = []
    for number in range(rounds + 1):
        place, other = folder / "archive", folder / "copy"
        found = timed(lambda place=place: archive(path, place))
        second = timed(lambda place=place: archive(path, place))[0]
        theirs = timed(lambda other=other: copied(source, other))
        shutil.rmtree(place)
        shutil.rmtree(other)
        if number:
            # The first one warms up.
            ours.append(found)
            peers.append(theirs)
            again.append(second)
    ratio = [peer[0] / our[0] for our, peer in zip(ours, peers, strict=True)]
    cpu = [peer[1] / our[1] for our, peer in zip(ours, peers, strict=True)]
    speed = total / statistics.median(our[0] for our in ours)
    print(
        f"{count} × {size / MEBI:g} MiB: archive {speed:.0f} MiB/s, "
        f"{statistics.median(ratio):.2f} × cp + sha256sum "
        f"({min(ratio):.2f} to {max(ratio):.2f}); for each CPU second "
        f"{statistics.median(cpu):.2f} × as much; "
        f"nothing to do: {statistics.median(again):.2f} s"
    )
    shutil.rmtree(source)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=512, help="of the large files")
    parser.add_argument("--small", type=int, default=2000, help="small files")
    parser.add_argument("--place", default=None, help="a folder on the disk to measure")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.place) as folder:
        measure(Path(folder), wanted.mib // 64, 64 * MEBI, wanted.rounds)
        measure(Path(folder), wanted.small, 4096, wanted.rounds)


if __name__ == "__main__":
    main()
