"""How fast frames reach the disk, as ratios to a raw file and to peers.

Gates S1 to S6 and S11.

Every ratio is the median over interleaved rounds: in each round every engine writes the
same frames once, in turn and in a process of its own, so that a slow moment of the
machine hits all of them. Run::

    python benchmarks/frames.py            # both places, a quarter of an hour
    python benchmarks/frames.py --quick    # smaller and less exact
    python benchmarks/frames.py --json docs/reference/figures/frames.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from engines import detector_frames, ours
from machine import describe, finished
from peers import zarr_python
from ratios import Gate, Line, lines, ratios
from scans import flying
from tables import show
from workers import Round, Task, Worker

MEBI = 1 << 20
SHAPES = ((2048, 2048), (512, 512))

OURS = ("ours, Zarr, no checksum", "ours, Zarr")
PEERS = (
    "h5py",
    "h5py, direct chunks",
    "h5py, direct, no flush",
    "tensorstore",
    "tensorstore, sharded",
    "zarr-python",
    "zarr-python, sharded",
    "acquire-zarr",
    "acquire-zarr, sharded",
)
LZ4 = (
    "ours, Zarr, lz4",
    "ours, Zarr, lz4, write()",
    "ours, Zarr, lz4, write_many()",
    "ours, HDF5, lz4",
    "h5py, lz4",
    "tensorstore, lz4",
    "tensorstore, lz4, sharded",
    "zarr-python, lz4",
    "zarr-python, lz4, sharded",
    "acquire-zarr, lz4",
    "acquire-zarr, lz4, sharded",
)


class Bench:
    """The engines' processes, and what they have shown so far."""

    def __init__(self, scratch: Path, total: int, rounds: int) -> None:
        self.total, self.rounds = total, rounds
        self.lines: list[Line] = []
        self.gates: list[Gate] = []
        self._scratch = scratch
        self._workers: dict[str, Worker] = {}

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers.values():
            worker.close()

    def frames(self, shape: tuple[int, int], kind: str) -> Path:
        """Return the file with the frames of one kind, made at the first call."""
        path = self._scratch / f"{shape[0]}-{kind}.npy"
        if not path.exists():
            np.save(path, np.stack(detector_frames(shape, kind)))
        return path

    def run(
        self,
        names: Iterable[str],
        place: Path,
        shape: tuple[int, int],
        kind: str,
        *,
        part: float = 1,
        synced: bool = False,
    ) -> dict[str, list[Round]]:
        """Write the same frames with each engine, in turn, round after round."""
        count = max(32, int(self.total * part) // (shape[0] * shape[1] * 2))
        task = Task(place, self.frames(shape, kind), count, synced)
        found: dict[str, list[Round]] = {name: [] for name in names}
        for number in range(self.rounds + 1):
            for name in found:
                if name not in self._workers:
                    self._workers[name] = Worker(name)
                done = self._workers[name].run(task)
                if number:  # the first round warms up
                    found[name].append(done)
        return found

    def gate(
        self, name: str, place: str, work: str, values: list[float], at_least: float
    ) -> None:
        """Hold the median of some ratios against what is asked for."""
        self.gates.append(Gate.of(name, place, work, values, at_least))


def fastest(found: dict[str, list[Round]], among: Iterable[str]) -> str:
    """Return which of some engines was the quickest."""
    return min(
        among, key=lambda name: statistics.median(one.total for one in found[name])
    )


def uncompressed(bench: Bench, place: Path, name: str, shape: tuple[int, int]) -> None:
    """Measure raw frames: S1 and S2 to a raw file, S3 and S4 to peers."""
    disk = name == "disk"
    base = "raw file, synced" if disk else "raw file"
    work = f"{shape[0]}² u16"
    gate, bare, checked = (
        ("S1", 0.90, 0.80) if shape == SHAPES[0] else ("S2", 0.70, 0.65)
    )
    both = ("ours, HDF5, no checksum", "ours, HDF5")
    found = bench.run((base, *OURS, *both), place, shape, "noise")
    for engine, at_least in zip(OURS, (bare, checked), strict=True):
        what = "checksum" if engine == OURS[1] else "no checksum"
        bench.gate(
            gate, name, f"{work}, {what}, to raw", ratios(found, base, engine), at_least
        )
    bench.lines += lines(found, name, shape, "noise", base)

    found = bench.run((*OURS, *PEERS), place, shape, "noise", part=0.5, synced=disk)
    best = fastest(found, [peer for peer in PEERS if "acquire" in peer])
    # Neither peer checks its frames, so both of ours stand beside them.
    for engine in OURS:
        what = "checksum" if engine == OURS[1] else "no checksum"
        for number, peer, at_least in (
            ("S3", best, 2.0 if disk else 4.0),
            ("S4", "h5py", 1.5),
        ):
            values = ratios(found, peer, engine)
            bench.gate(number, name, f"{work}, {what}, to {peer}", values, at_least)
    theirs = {peer: found[peer] for peer in (OURS[1], *PEERS)}
    bench.lines += lines(theirs, name, shape, "noise", OURS[1])[1:]


def compressed(bench: Bench, place: Path, name: str, shape: tuple[int, int]) -> None:
    """Measure lz4, two worker threads: S5 on what a detector counts, and on noise."""
    for kind in ("poisson", "noise"):
        found = bench.run(LZ4, place, shape, kind, part=0.5, synced=name == "disk")
        best = fastest(found, [engine for engine in LZ4 if "ours" not in engine])
        if kind == "poisson":
            for engine, call in ((LZ4[0], "submit"), (LZ4[2], "write_many")):
                values = ratios(found, best, engine)
                work = f"{shape[0]}² u16, {call}, to {best}"
                bench.gate("S5", name, work, values, 1.5)
        bench.lines += lines(found, name, shape, kind, LZ4[0])


def reading(bench: Bench, place: Path, name: str) -> None:
    """Measure a stack read as NumPy against zarr-python without shards (S11)."""
    import zarr

    from bluesky_beamtime.storage import open_frames

    shape, count = (512, 512), 500
    frames = detector_frames(shape, "noise")
    values: list[float] = []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder)
        ours()(path, frames, count)
        zarr_python()(path, frames, count)
        readers: dict[str, Callable[[], Any]] = {
            "theirs": lambda: zarr.open_array(path / "python.zarr", mode="r")[:],
            "ours": lambda: open_frames(path / "store" / "cam")[:],
        }
        for number in range(bench.rounds + 1):
            seconds = {}
            for reader, read in readers.items():
                start = time.perf_counter()
                stack = read()
                seconds[reader] = time.perf_counter() - start
                assert stack.shape == (count, *shape)
            if number:
                values.append(seconds["theirs"] / seconds["ours"])
    bench.gate("S11", name, "500 × 512² u16 read, to zarr-python", values, 1.0)


def scanning(bench: Bench, place: Path, name: str) -> None:
    """Measure a fly scan with two cameras against a bare loop (S6)."""
    for shape in SHAPES:
        frames = bench.frames(shape, "noise")
        # A scan has a beginning and an end, which do not depend on its length.
        values, count = flying(place, frames, 4 * bench.total // MEBI, bench.rounds)
        work = f"2 × {count} frames of {shape[0]}² u16, fly scan to bare loop"
        bench.gate("S6", name, work, values, 0.80)


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path.cwd())
    parser.add_argument("--only", choices=("tmpfs", "disk"))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds, by default 7 (quick: 5)")
    parser.add_argument("--mebi", type=int, help="MiB of a round, 768 (quick: 256)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 7)
    total = (options.mebi or (256 if options.quick else 768)) * MEBI
    machine = describe()
    with ExitStack() as stack:
        # The frames come from memory, wherever they go.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(dir=options.tmpfs))
        bench = Bench(Path(scratch), total, rounds)
        stack.callback(bench.close)
        for name, place in (("tmpfs", options.tmpfs), ("disk", options.disk)):
            if options.only in (None, name):
                for shape in SHAPES:
                    uncompressed(bench, place, name, shape)
                    compressed(bench, place, name, shape)
                reading(bench, place, name)
                scanning(bench, place, name)
    show(bench.lines, bench.gates)
    if options.json:
        figures = {
            "machine": finished(machine),
            "rounds": rounds,
            "mebi": total // MEBI,
            "lines": [asdict(line) for line in bench.lines],
            "gates": [asdict(gate) for gate in bench.gates],
        }
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
