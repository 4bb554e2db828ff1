"""How much memory streaming takes (S8): the peak, and whether it grows.

A process of its own streams frames into a store for a while; full shards are removed
behind it, so that an hour fits on any disk. Printed is the resident memory above that
at the start, sampled twice a second::

    python benchmarks/memory.py                # one minute
    python benchmarks/memory.py --seconds 3600
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from machine import describe, finished

MEBI = 1 << 20
SIDE = 2048


def resident() -> int:
    """Return the resident memory of this process in bytes, without files mapped."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def shard_number(path: Path) -> int:
    """Return the number of a shard file."""
    return int(path.name.split(".")[1])


def remove_full_shards(array: Path, stop: threading.Event) -> None:
    """Keep only the shard that is being written and the one before it."""
    while not stop.wait(0.2):
        shards = sorted(array.glob("c.*"), key=shard_number)
        for path in shards[:-2]:
            path.unlink(missing_ok=True)


def main() -> None:
    """Stream, sample, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--rate", type=float, default=50, help="frames per second")
    parser.add_argument("--compression", default="none")
    parser.add_argument("--submit", action="store_true", help="through worker threads")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    machine = describe()

    from bluesky_beamtime.storage import ZarrWriter

    folder = Path(tempfile.mkdtemp(dir=options.folder))
    writer = ZarrWriter("memory", compression=options.compression)
    writer.set_uri(str(folder / "store"))
    sink = writer.prepare("cam", "cam", "u2", (SIDE, SIDE))
    writer.kickoff()
    frame = np.random.default_rng(1).poisson(8, (SIDE, SIDE)).astype("u2")
    sink.write(frame)  # what is loaded once
    stop = threading.Event()
    cleaner = threading.Thread(
        target=remove_full_shards, args=(folder / "store" / "cam", stop)
    )
    cleaner.start()
    start, base = time.monotonic(), resident()
    samples: list[int] = []
    try:
        number = 0
        while (now := time.monotonic() - start) < options.seconds:
            (sink.submit if options.submit else sink.write)(frame)
            number += 1
            if len(samples) < 2 * now:
                samples.append(resident() - base)
            time.sleep(max(0, number / options.rate - now))
    finally:
        stop.set()
        cleaner.join()
        sink.close()
        shutil.rmtree(folder)
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    growth = (statistics.median(last) - statistics.median(first)) / MEBI
    peak = max(samples) / MEBI
    print(f"{number} frames of {frame.nbytes / MEBI:.0f} MiB in {now:.0f} s")
    print(f"peak {peak:.1f} MiB above the start  S8: {'ok' if peak < 95 else 'ABOVE'}")
    print(f"growth from the first to the last quarter {growth:+.1f} MiB")
    if options.json:
        figures = {
            "machine": finished(machine),
            "seconds": round(now),
            "frames": number,
            "frame_mib": frame.nbytes / MEBI,
            "rate": round(number / now, 1),
            "compression": options.compression,
            "call": "submit" if options.submit else "write",
            "peak_mib": round(peak, 1),
            "growth_mib": round(growth, 1),
        }
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
