"""What exports cost beside the bare library that each format is written with.

A stack of frames goes from a run into a file, and the same frames go from the same
store into a file of the same kind by what somebody would write by hand: zarr-python
reads a few megabytes at a time, the library writes them with the same chunks. Tables
are compared to the csv module and pyarrow with the values in memory already, so that
their ratio has the reading of the events in it. Both take turns, each in a process of
its own; a moment of the machine that is slow hits both. Both sync at the end.

Memory is what a process had at most beyond what it had before; in the last column is
the same for a stack four times as large.

    python benchmarks/exports.py [--rounds 5] [--frames 200] [--rows 100000]
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import event_model
import h5netcdf
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import zarr
from machine import describe
from versus import Cost, Versus, compared, keep, show

from bluesky_beamtime import Beamtime
from bluesky_beamtime.storage import ZarrWriter

FRAME = (512, 512)
BLOCK = 16
COLUMNS = tuple(f"x{number}" for number in range(8))
AT_LEAST = 0.8
MEBI = 1 << 20
Work = Callable[[Path], None]


# --------------------------------------------------------------------- what is exported


def make_runs(folder: Path, frames: int, rows: int) -> None:
    """Record a stack, one four times as large, and a table."""
    with Beamtime(folder / "x.db") as beamtime:
        for number, count in enumerate((frames, 4 * frames), 1):
            emit_stack(beamtime, folder / f"stack{number}", number, count)
        composed = event_model.compose_run(metadata={"scan_id": 3})
        beamtime("start", composed.start_doc)
        key = {"source": "sim", "dtype": "number", "shape": [], "units": "mm"}
        stream = composed.compose_descriptor(
            name="primary",
            data_keys=dict.fromkeys(COLUMNS, key),
            hints={},
            configuration={},
            object_keys={"x": list(COLUMNS)},
        )
        beamtime("descriptor", stream.descriptor_doc)
        values = np.random.default_rng(0).normal(size=(rows, len(COLUMNS))).tolist()
        stamps = dict.fromkeys(COLUMNS, 1.0)
        for row in values:
            data = dict(zip(COLUMNS, row, strict=True))
            event = stream.compose_event(data=data, timestamps=stamps, validate=False)
            beamtime("event", event)
        beamtime("stop", composed.compose_stop())


def emit_stack(beamtime: Beamtime, store: Path, scan_id: int, count: int) -> None:
    composed = event_model.compose_run(metadata={"scan_id": scan_id})
    beamtime("start", composed.start_doc)
    key = {
        "source": "sim",
        "dtype": "array",
        "shape": [1, *FRAME],
        "dtype_numpy": "<u2",
        "external": "STREAM:",
    }
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={"cam": key},
        hints={},
        configuration={},
        object_keys={"cam": ["cam"]},
    )
    beamtime("descriptor", stream.descriptor_doc)
    writer = ZarrWriter.get(str(store))
    writer.set_uri(str(store))
    sink = writer.prepare("cam", "cam", np.dtype("u2"), FRAME)
    writer.kickoff()
    random = np.random.default_rng(1)
    for _ in range(count):
        sink.write(random.poisson(90, FRAME).astype("u2"))
    for kind, document in writer.collect_stream_docs("cam", count):
        more: dict[str, Any] = {"run_start": composed.start_doc["uid"]}
        if kind == "stream_datum":
            numbers = {"start": 1, "stop": count + 1}
            more = {"descriptor": stream.descriptor_doc["uid"], "seq_nums": numbers}
        beamtime(kind, {**document, **more})
    sink.close()
    ZarrWriter.release(str(store))
    beamtime("stop", composed.compose_stop())


# ---------------------------------------------------------------------------- by hand


def stack_of(folder: Path, number: int) -> Any:
    return zarr.open_array(folder / f"stack{number}" / "cam", mode="r")


def blocks(stack: Any) -> Iterator[tuple[int, Any]]:
    for first in range(0, stack.shape[0], BLOCK):
        yield first, stack[first : first + BLOCK]


def by_h5py(folder: Path, number: int, path: Path) -> None:
    stack = stack_of(folder, number)
    with h5py.File(path, "w", libver="v110") as root:
        chunks = (1, *FRAME)
        made = root.create_dataset("cam", stack.shape, stack.dtype, chunks=chunks)
        for first, block in blocks(stack):
            made[first : first + len(block)] = block


def by_h5netcdf(folder: Path, number: int, path: Path) -> None:
    stack = stack_of(folder, number)
    with h5netcdf.File(path, "w") as root:
        root.dimensions = dict(zip(("time", "y", "x"), stack.shape, strict=True))
        dims = ("time", "y", "x")
        made = root.create_variable("cam", dims, stack.dtype, chunks=(1, *FRAME))
        for first, block in blocks(stack):
            made[first : first + len(block)] = block


def by_zarr(folder: Path, number: int, path: Path) -> None:
    stack = stack_of(folder, number)
    made = zarr.create_array(
        path,
        shape=stack.shape,
        dtype=stack.dtype,
        chunks=(8, *FRAME),
        zarr_format=2,
    )
    for first, block in blocks(stack):
        made[first : first + len(block)] = block


def by_tifffile(folder: Path, number: int, path: Path) -> None:
    stack = stack_of(folder, number)
    frames = (frame for _, block in blocks(stack) for frame in block)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        shape, dtype = stack.shape, stack.dtype
        writer.write(frames, shape=shape, dtype=dtype, photometric="minisblack")


def by_pyarrow(folder: Path, number: int, path: Path) -> None:
    stack = stack_of(folder, number)
    kind = pa.fixed_shape_tensor(pa.uint16(), FRAME)
    schema = pa.schema([pa.field("cam", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        for _, block in blocks(stack):
            array = pa.FixedShapeTensorArray.from_numpy_ndarray(block)
            writer.write_table(pa.Table.from_arrays([array], schema=schema))


def table_by_csv(values: list[list[float]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        units = ["mm"] * len(COLUMNS)
        writer.writerow([*COLUMNS, *(f"{key}_unit" for key in COLUMNS)])
        writer.writerows([*row, *units] for row in values)


def table_by_pyarrow(values: list[list[float]], path: Path) -> None:
    columns = np.array(values).T
    pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), path)


STACKS: dict[str, Callable[[Path, int, Path], None]] = {
    "nexus": by_h5py,
    "hdf5": by_h5py,
    "netcdf": by_h5netcdf,
    "zarr": by_zarr,
    "tiff": by_tifffile,
    "ome-tiff": by_tifffile,
    "parquet": by_pyarrow,
}
TABLES: dict[str, Callable[[list[list[float]], Path], None]] = {
    "csv": table_by_csv,
    "parquet": table_by_pyarrow,
}


# --------------------------------------------------------------------------- measuring


def cost_of(work: Work, place: Path) -> Cost:
    """Do something in a child, and return what it took."""
    folder = Path(tempfile.mkdtemp(dir=place))
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            cost = timed(work, folder / "out")
            os.write(write, pickle.dumps(cost))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    shutil.rmtree(folder)
    return pickle.loads(answer)


def timed(work: Work, path: Path) -> Cost:
    # The kernel counts the most a process had; this begins to count anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    clock, processor = time.perf_counter(), time.process_time()
    work(path)
    sync(path)
    seconds = time.perf_counter() - clock
    used = time.process_time() - processor
    return Cost(seconds, used, high_water() - before)


def high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def sync(path: Path) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def export_of(folder: Path, scan_id: int, to: str) -> Work:
    def work(path: Path) -> None:
        with Beamtime(folder / "x.db", mode="r") as beamtime:
            beamtime[scan_id].export(path, to)

    return work


def in_turns(
    mine: Work, bare: Work, rounds: int, place: Path
) -> list[tuple[Cost, Cost]]:
    found: list[tuple[Cost, Cost]] = []
    for number in range(rounds):
        turns = [mine, bare] if number % 2 else [bare, mine]
        costs = {work: cost_of(work, place) for work in turns}
        found.append((costs[mine], costs[bare]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer frames and rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--place", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.frames, options.rows = 3, 60, 10_000
    warnings.simplefilter("ignore")
    source = Path(tempfile.mkdtemp(dir=options.place))
    lines: list[Versus] = []
    machine = describe()
    try:
        make_runs(source, options.frames, options.rows)
        # What is imported when it is used is no part of the work.
        for to in STACKS:
            export_of(source, 1, to)(source / f"warm.{to}")
        for to in TABLES:
            export_of(source, 3, to)(source / f"warm-table.{to}")
        size = options.frames * 2 * FRAME[0] * FRAME[1] / MEBI
        for to, hand in STACKS.items():
            mine = export_of(source, 1, to)
            found = in_turns(
                mine, lambda p, h=hand: h(source, 1, p), options.rounds, options.place
            )
            large = cost_of(export_of(source, 2, to), options.place).memory / MEBI
            most = max(mine.memory for mine, _ in found) / MEBI
            lines.append(
                compared(
                    *(to, "MiB/s", size, found, AT_LEAST),
                    memory_mib=most,
                    large_mib=large,
                )
            )
        random = np.random.default_rng(0)
        values = random.normal(size=(options.rows, len(COLUMNS))).tolist()
        for to, write in TABLES.items():
            mine = export_of(source, 3, to)
            found = in_turns(
                mine, lambda p, w=write: w(values, p), options.rounds, options.place
            )
            most = max(mine.memory for mine, _ in found) / MEBI
            lines.append(
                compared(to, "rows/s", options.rows, found, 0.0, memory_mib=most)
            )
    finally:
        shutil.rmtree(source)
    show(lines)
    print(f"stacks of {options.frames} and {4 * options.frames} × 512 × 512 uint16")
    keep(
        options.json,
        machine,
        lines,
        rounds=options.rounds,
        frames=options.frames,
        rows=options.rows,
    )


if __name__ == "__main__":
    main()
