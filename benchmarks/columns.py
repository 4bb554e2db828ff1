"""A long run into xarray, against Tiled's own SQL table (S10).

The same events (by default 1 000 000, of eight numbers and eight timestamps) are
recorded here and written to the tables that Tiled keeps for events, in SQLite and in
DuckDB. Then each is read into an ``xarray.Dataset`` in this process, in turns, with
nothing in between: ours from the columns that are copied when a run has stopped, and
from its rows; Tiled's through its ``SQLAdapter``. Run it where ``tiled[server]`` is
installed; without it only our own times are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bluesky_beamtime import Beamtime

GATE = 1.0
PAGE = 10_000
FIELDS = [f"soft_{number}" for number in range(8)]
WANTED = ["seq_num", "time", *FIELDS]


def pages(events: int) -> Iterator[dict[str, Any]]:
    """Yield the columns of pages of events."""
    rng = np.random.default_rng(0)
    for first in range(0, events, PAGE):
        count = min(PAGE, events - first)
        times = (1e9 + 1e-3 * np.arange(first, first + count)).tolist()
        yield {
            "seq_num": list(range(first + 1, first + count + 1)),
            "time": times,
            "data": {key: rng.random(count).tolist() for key in FIELDS},
            "timestamps": dict.fromkeys(FIELDS, times),
        }


def record(path: Path, events: int) -> tuple[float, float]:
    """Record a run; returns the seconds of its stop document and of packing it."""
    key = {"source": "soft", "dtype": "number", "shape": []}
    with Beamtime(path) as beamtime:
        beamtime("start", {"uid": "r", "time": 1e9})
        beamtime(
            "descriptor",
            {
                "uid": "d",
                "run_start": "r",
                "name": "primary",
                "time": 1e9,
                "data_keys": dict.fromkeys(FIELDS, key),
                "configuration": {},
            },
        )
        for page in pages(events):
            uids = [f"e{number}" for number in page["seq_num"]]
            beamtime("event_page", page | {"uid": uids, "descriptor": "d"})
        stop = {"uid": "s", "run_start": "r", "time": 2e9, "exit_status": "success"}
        start = time.perf_counter()
        beamtime("stop", stop)
        stopped = time.perf_counter()
        beamtime.pack()
        return stopped - start, time.perf_counter() - stopped


def read_ours(path: Path) -> xr.Dataset:
    """Open, read, close."""
    with Beamtime(path, mode="r") as beamtime:
        return beamtime[-1].primary.read()


def tiled_tables(folder: Path, events: int) -> dict[str, Callable[[], xr.Dataset]]:
    """Write the events to Tiled's tables; returns what reads each."""
    try:
        import pyarrow
        from tiled.adapters.sql import SQLAdapter
        from tiled.storage import parse_storage, register_storage
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import DataSource, Management
        from tiled.structures.table import TableStructure
    except ImportError as error:
        print(f"tiled is left out: {error}")
        return {}
    columns: list[Any] = []
    for page in pages(events):
        flat = {"seq_num": page["seq_num"], "time": page["time"], **page["data"]}
        flat |= {f"ts_{key}": stamps for key, stamps in page["timestamps"].items()}
        columns.append(pyarrow.table(flat))
    table = pyarrow.concat_tables(columns)
    readers: dict[str, Callable[[], xr.Dataset]] = {}
    for dialect in ("sqlite", "duckdb"):
        storage = parse_storage(f"{dialect}:///{folder / f'tiled.{dialect}'}")
        register_storage(storage)
        source: Any = DataSource(
            management=Management.writable,
            mimetype="application/x-tiled-sql-table",
            structure_family=StructureFamily.table,
            structure=TableStructure.from_arrow_table(table, npartitions=1),
            assets=[],
            parameters={},
        )
        source = SQLAdapter.init_storage(storage, source)
        adapter = SQLAdapter(
            source.assets[0].data_uri,
            source.structure,
            source.parameters["table_name"],
            source.parameters["dataset_id"],
        )
        adapter.append_partition(0, table)

        def read(adapter: Any = adapter) -> xr.Dataset:
            frame = adapter.read(WANTED)
            arrays = {key: ("time", frame[key].to_numpy()) for key in FIELDS}
            coordinates = {"time": frame["time"].to_numpy()}
            coordinates["seq_num"] = ("time", frame["seq_num"].to_numpy())
            return xr.Dataset(arrays, coordinates)

        readers[f"tiled, {dialect}"] = read
    return readers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        path = folder / "x.db"
        stop, packing = record(path, options.events)
        print(f"the stop document took {stop * 1e3:.1f} ms, packing {packing:.1f} s")
        rows = folder / "rows.db"
        unpacked_copy(path, rows)
        readers = {"ours": lambda: read_ours(path), "our rows": lambda: read_ours(rows)}
        readers |= tiled_tables(folder, options.events)
        seconds: dict[str, list[float]] = {key: [] for key in readers}
        first = None
        for _ in range(options.rounds):
            for key, read in readers.items():
                start = time.perf_counter()
                dataset = read()
                seconds[key].append(time.perf_counter() - start)
                first = first if first is not None else dataset
                for field in WANTED:
                    np.testing.assert_array_equal(dataset[field], first[field])
    best = {key: statistics.median(each) for key, each in seconds.items()}
    for key, median in best.items():
        print(f"{key:14} {median * 1e3:8.0f} ms  ({options.events} events, median)")
    peers = {key: median for key, median in best.items() if key.startswith("tiled")}
    if peers:
        ratio = min(peers.values()) / best["ours"]
        verdict = "ok" if ratio >= GATE else "BELOW"
        print(f"S10: {ratio:.1f} x the speed of tiled; >= {GATE:.1f} x {verdict}")


def unpacked_copy(path: Path, target: Path) -> None:
    """Copy a beamtime's file and remove the columns from the copy."""
    import shutil
    import sqlite3
    from contextlib import closing

    shutil.copyfile(path, target)
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("DELETE FROM event_columns")
        connection.commit()


if __name__ == "__main__":
    main()
