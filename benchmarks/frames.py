"""How fast frames reach the disk, as ratios to a raw file and to peers.

Gates S1 to S5 and S11.

Every ratio is the median over interleaved rounds: in each round every engine writes the
same frames once, in turn, so that a slow moment of the machine hits all of them. Run::

    python benchmarks/frames.py            # both places, a few minutes
    python benchmarks/frames.py --quick    # smaller and less exact
    python benchmarks/frames.py --json out.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines import (
    Engine,
    acquire_zarr,
    detector_frames,
    h5py_direct,
    h5py_swmr,
    ours,
    ours_submitting,
    raw,
    raw_synced,
    synced_at_end,
    tensorstore,
    zarr_python,
)

MEBI = 1 << 20


@dataclass
class Result:
    """One figure against its gate."""

    gate: str
    place: str
    work: str
    ratio: float
    at_least: float
    spread: str

    @property
    def ok(self) -> bool:
        return self.ratio >= self.at_least


@dataclass
class Line:
    """One engine in one setting."""

    place: str
    shape: str
    engine: str
    mib_per_s: float
    to_raw: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def run(
    engines: dict[str, Engine],
    place: Path,
    shape: tuple[int, int],
    kind: str,
    total: int,
    rounds: int,
) -> dict[str, list[list[float]]]:
    """Write the same frames with each engine, in turn; return the seconds per call."""
    frames = detector_frames(shape, kind)
    count = max(32, total // frames[0].nbytes)
    times: dict[str, list[list[float]]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            folder = Path(tempfile.mkdtemp(dir=place))
            try:
                seconds = engine(folder, frames, count)
            finally:
                shutil.rmtree(folder)
            if number:  # the first round warms up
                times[name].append(seconds)
    return times


def ratios(times: dict[str, list[list[float]]], peer: str, engine: str) -> list[float]:
    """Return how many times as fast as its peer an engine was, round by round."""
    pairs = zip(times[peer], times[engine], strict=True)
    return [sum(theirs) / sum(mine) for theirs, mine in pairs]


def lines(
    times: dict[str, list[list[float]]], place: str, shape: tuple[int, int], base: str
) -> list[Line]:
    """Return a line of figures for each engine."""
    found = []
    size = shape[0] * shape[1] * 2 / MEBI
    for name, rounds in times.items():
        # The last entry of a round is its close.
        calls = sorted(second for seconds in rounds for second in seconds[:-1])
        total = statistics.median(sum(seconds) for seconds in rounds)
        found.append(
            Line(
                place,
                f"{shape[0]}x{shape[1]}",
                name,
                size * (len(rounds[0]) - 1) / total,
                statistics.median(ratios(times, base, name)),
                1e3 * statistics.median(calls),
                1e3 * calls[int(0.99 * (len(calls) - 1))],
                1e3 * calls[-1],
            )
        )
    return found


def measure(
    place: Path, name: str, on_disk: bool, total: int, rounds: int
) -> tuple[list[Line], list[Result]]:
    """Measure one place."""
    base = raw_synced if on_disk else raw
    table: list[Line] = []
    results: list[Result] = []

    def gate(number: str, work: str, values: list[float], at_least: float) -> None:
        spread = f"{min(values):.2f}–{max(values):.2f}"
        median = statistics.median(values)
        results.append(Result(number, name, work, median, at_least, spread))

    for shape, number, bare, checked in (
        ((2048, 2048), "S1", 0.90, 0.80),
        ((512, 512), "S2", 0.70, 0.65),
    ):
        work = f"{shape[0]}² u16"
        engines: dict[str, Engine] = {
            "raw": base,
            "ours": ours(),
            "ours, no checksum": ours(checksum=False),
        }
        times = run(engines, place, shape, "noise", total, rounds)
        gate(
            number,
            f"{work}, no checksum, to raw",
            ratios(times, "raw", "ours, no checksum"),
            bare,
        )
        gate(number, f"{work}, checksum, to raw", ratios(times, "raw", "ours"), checked)
        table += lines(times, name, shape, "raw")

        finish = synced_at_end if on_disk else (lambda engine: engine)
        engines = {
            "ours": finish(ours()),
            "ours, no checksum": finish(ours(checksum=False)),
            "h5py SWMR": finish(h5py_swmr),
            "h5py direct chunks": finish(h5py_direct),
            "tensorstore": finish(tensorstore(None)),
            "tensorstore, sharded": finish(tensorstore(None, 32)),
            "zarr-python": finish(zarr_python()),
            "acquire-zarr": finish(acquire_zarr(None)),
            "acquire-zarr, sharded": finish(acquire_zarr(64)),
        }
        times = run(engines, place, shape, "noise", total // 2, rounds)
        best = min(
            ("acquire-zarr", "acquire-zarr, sharded"),
            key=lambda engine: statistics.median(sum(s) for s in times[engine]),
        )
        # Neither peer checks its frames, so both of ours stand beside them.
        for engine in ("ours, no checksum", "ours"):
            what = "checksum" if engine == "ours" else "no checksum"
            gate(
                "S3",
                f"{work}, {what}, to {best}",
                ratios(times, best, engine),
                2.0 if on_disk else 4.0,
            )
            gate(
                "S4",
                f"{work}, {what}, to h5py SWMR",
                ratios(times, "h5py SWMR", engine),
                1.5,
            )
        table += [
            line
            for line in lines(times, name, shape, "ours")
            if "ours" not in line.engine
        ]
        table += compressed(place, name, shape, on_disk, total, rounds, gate)
    return table, results


def compressed(
    place: Path,
    name: str,
    shape: tuple[int, int],
    on_disk: bool,
    total: int,
    rounds: int,
    gate: Callable[[str, str, list[float], float], None],
) -> list[Line]:
    """Measure lz4 on what a detector counts, with two worker threads (S5)."""
    finish = synced_at_end if on_disk else (lambda engine: engine)
    engines: dict[str, Engine] = {
        "ours, lz4": finish(ours_submitting(compression="lz4", threads=2)),
        "ours, lz4, write()": finish(ours(compression="lz4")),
        "acquire-zarr, lz4": finish(acquire_zarr(None, "lz4")),
        "acquire-zarr, lz4, sharded": finish(acquire_zarr(64, "lz4")),
        "tensorstore, lz4": finish(tensorstore("lz4")),
        "tensorstore, lz4, sharded": finish(tensorstore("lz4", 32)),
        "zarr-python, lz4": finish(zarr_python("lz4")),
    }
    times = run(engines, place, shape, "poisson", total // 2, rounds)
    best = min(
        (engine for engine in engines if "ours" not in engine),
        key=lambda engine: statistics.median(sum(s) for s in times[engine]),
    )
    gate("S5", f"{shape[0]}² u16 to {best}", ratios(times, best, "ours, lz4"), 1.5)
    return lines(times, name, shape, "ours, lz4")


def reading(place: Path, name: str, rounds: int) -> Result:
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
            "ours": lambda: open_frames(path / "ours.zarr" / "cam")[:],
        }
        for number in range(rounds + 1):
            seconds = {}
            for reader, read in readers.items():
                start = time.perf_counter()
                stack = read()
                seconds[reader] = time.perf_counter() - start
                assert stack.shape == (count, *shape)
            if number:
                values.append(seconds["theirs"] / seconds["ours"])
    spread = f"{min(values):.2f}–{max(values):.2f}"
    work = "500 × 512² u16 read, to zarr-python"
    return Result("S11", name, work, statistics.median(values), 1.0, spread)


def show(table: list[Line], results: list[Result]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    grid = Table("place", "frames", "engine", "MiB/s", "p50 ms", "p99 ms", "max ms")
    for line in table:
        grid.add_row(
            line.place,
            line.shape,
            line.engine,
            f"{line.mib_per_s:.0f}",
            f"{line.p50_ms:.2f}",
            f"{line.p99_ms:.2f}",
            f"{line.max_ms:.1f}",
        )
    console.print(grid)
    grid = Table("gate", "place", "work", "ratio", "at least", "spread", "")
    for result in results:
        grid.add_row(
            result.gate,
            result.place,
            result.work,
            f"{result.ratio:.2f}",
            f"{result.at_least:.2f}",
            result.spread,
            "ok" if result.ok else "[red]below[/red]",
        )
    console.print(grid)


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path.cwd())
    parser.add_argument("--only", choices=("tmpfs", "disk"))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds, by default 7 (quick: 5)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 7)
    total = (256 if options.quick else 768) * MEBI
    table: list[Line] = []
    results: list[Result] = []
    for name, place in (("tmpfs", options.tmpfs), ("disk", options.disk)):
        if options.only in (None, name):
            more, gates = measure(place, name, name == "disk", total, rounds)
            table += more
            results += [*gates, reading(place, name, rounds)]
    show(table, results)
    if options.json:
        figures = {
            "lines": [asdict(line) for line in table],
            "gates": [{**asdict(r), "ok": r.ok} for r in results],
        }
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
