"""Whether small frames at kHz rates are kept up with, and by which call.

A 64×64 ``uint16`` detector at 20 000 frames/s and a 1024-channel spectrum at 10 000/s.
Frames are due at a fixed rate, as from hardware that does not wait; a frame that is
written behind its time is late by what is printed. ``write_many`` gets every
millisecond what has come since, as a driver that hands over blocks would do it.

``free`` is how fast the call is when frames are always there. Run::

    python benchmarks/kilohertz.py
    python benchmarks/kilohertz.py --seconds 10 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, finished
from numpy.typing import NDArray

CASES = (
    ("64×64 uint16", (64, 64), "u2", 20_000),
    ("1024 channels uint32", (1024,), "u4", 10_000),
)
CALLS = ("write", "write_many", "submit")
FORMATS = {"Zarr": "application/x-zarr", "HDF5": "application/x-hdf5"}
BLOCK_SECONDS = 1e-3
KEPT = 0.99
"""Share of the rate that counts as kept up with: the clock of a busy machine slips."""


@dataclass(frozen=True)
class Figure:
    """One call at one rate."""

    frames: str
    rate: int
    place: str
    format: str
    call: str
    free: float
    """Frames per second when they need not be waited for."""
    achieved: float
    """Frames per second that were safe, at the rate that was asked for."""
    p50_ms: float
    """From the moment a frame is due to the moment it is safe."""
    p99_ms: float
    max_ms: float

    @property
    def keeps_up(self) -> bool:
        """Whether the frames were safe at the rate at which they were due."""
        return self.achieved >= KEPT * self.rate


class Safe:
    """When each frame was safe, noted by whoever learns it first."""

    def __init__(self, count: int) -> None:
        self.at = np.zeros(count)
        self._left = count
        self._done = threading.Event()

    def note(self, first: int, last: int) -> None:
        """Frames ``first`` up to ``last`` are safe now."""
        self.at[first:last] = time.perf_counter()
        self._left -= last - first
        if not self._left:
            self._done.set()

    def wait(self) -> None:
        """Wait until all are."""
        self._done.wait()


def until(moment: float) -> None:
    """Wait for a moment; the last part of it without sleeping."""
    while (left := moment - time.perf_counter()) > 0:
        # Sleeping gives the interpreter to the writer's own threads.
        time.sleep(left - 5e-5 if left > 2e-4 else 0)


def produce(
    sink: Any, call: str, frames: NDArray[Any], count: int, rate: float, safe: Safe
) -> float:
    """Hand over ``count`` frames, each when it is due; return when they began.

    A rate of 0 is as fast as they are taken.
    """
    period = 1 / rate if rate else 0.0
    start = time.perf_counter()
    if call == "write_many":
        block = max(1, round(rate * BLOCK_SECONDS)) if rate else len(frames)
        block = min(block, len(frames))
        for first in range(0, count, block):
            last = min(count, first + block)
            until(start + (last - 1) * period)
            sink.write_many(frames[: last - first])
            safe.note(first, last)
        return start

    def resolved(number: int) -> Callable[[Future[int]], None]:
        return lambda _: safe.note(number, number + 1)

    for number in range(count):
        if rate:
            until(start + number * period)
        frame = frames[number % len(frames)]
        if call == "write":
            sink.write(frame)
            safe.note(number, number + 1)
        else:
            sink.submit(frame).add_done_callback(resolved(number))
    return start


def run(
    folder: Path, mimetype: str, call: str, case: tuple[Any, ...], rate: float, n: int
) -> tuple[float, NDArray[Any]]:
    """Write ``n`` frames; return how many a second were safe, and their delays."""
    from bluesky_beamtime.storage import make_writer

    _, shape, dtype, _ = case
    frames = np.random.default_rng(1).poisson(8, (64, *shape)).astype(dtype)
    writer = make_writer(mimetype, f"kilohertz {folder}")
    writer.set_uri(str(folder / "store"))
    sink = writer.prepare("cam", "cam", dtype, shape)
    writer.kickoff()
    safe = Safe(n)
    start = produce(sink, call, frames, n, rate, safe)
    safe.wait()
    sink.close()
    type(writer).release(writer.name)
    due = start + np.arange(n) / rate if rate else np.full(n, start)
    elapsed = safe.at.max() - start
    # The first frame is due at once: n frames take n - 1 periods.
    return (n - 1) / elapsed, safe.at - due


def figure(
    place: Path, name: str, kind: str, call: str, case: Any, seconds: float
) -> Figure:
    """Measure one call, free and at its rate."""
    rate = case[3]

    def once(asked: float, count: int) -> tuple[float, NDArray[Any]]:
        folder = Path(tempfile.mkdtemp(dir=place))
        try:
            return run(folder, FORMATS[kind], call, case, asked, count)
        finally:
            shutil.rmtree(folder)

    once(0, rate // 10)  # warms up
    free, _ = once(0, int(rate * min(seconds, 2)))
    achieved, late = once(rate, int(rate * seconds))
    p50, p99 = np.percentile(late, [50, 99])
    numbers = [round(1e3 * float(value), 3) for value in (p50, p99, late.max())]
    return Figure(
        case[0], rate, name, kind, call, round(free), round(achieved), *numbers
    )


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path.cwd())
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    machine = describe()
    found: list[Figure] = []
    print(f"{'':44}{'free/s':>9}{'at rate/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'max':>8}")
    for name, place in (("tmpfs", options.tmpfs), ("disk", options.disk)):
        for case in CASES:
            for kind in FORMATS:
                for call in CALLS:
                    one = figure(place, name, kind, call, case, options.seconds)
                    found.append(one)
                    print(
                        f"{one.frames:21} {name:6}{kind:5}{call:11}{one.free:9.0f}"
                        f"{one.achieved:11.0f}{one.p50_ms:9.3f}{one.p99_ms:9.2f}"
                        f"{one.max_ms:8.1f}  {'kept' if one.keeps_up else 'BEHIND'}",
                        flush=True,
                    )
    if options.json:
        figures = {
            "machine": finished(machine),
            "seconds": options.seconds,
            "lines": [{**asdict(one), "keeps_up": one.keeps_up} for one in found],
        }
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
