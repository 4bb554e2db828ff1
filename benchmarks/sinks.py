"""What record sinks cost beside the bare library that each uses.

Readings and blocks go through a sink, and through what somebody would write by hand
with the library alone: the same records, the same columns, the same values in the file,
one write, commit or row group for each batch, the same syncs at the end. They take
turns, and the ratio of each round is taken, so that a slow moment of the machine hits
both. The bare Parquet writer has no parts: it loses the whole file when it is killed.
The raw file by hand has no headers, times or checksums.

    python benchmarks/sinks.py [--rounds 5] [--readings 50000] [--batch 500]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    JsonlSink,
    ParquetSink,
    PostgresConfig,
    PostgresSink,
    RawCountsSink,
    SqliteSink,
)

AT_LEAST = 0.8
T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHANNELS = tuple(f"ch{n}" for n in range(8))
COLUMNS = (
    *("device", "task", "t_mono_ns", "t_utc", "t_midpoint_mono_ns"),
    *("requested_at", "received_at", "latency_s"),
    *CHANNELS,
    *(f"{channel}_unit" for channel in CHANNELS),
    *("error_type", "error_message"),
)
SAMPLES = (
    *("device", "task", "channel", "block_index", "sample_index", "t_mono_ns"),
    *("t_utc", "value", "unit", "error_type", "error_message"),
)
Work = Callable[[Path], Awaitable[None]]


def make_readings(count: int) -> list[DaqReading]:
    random = np.random.default_rng(0)
    values = random.normal(size=(count, len(CHANNELS))).tolist()
    return [
        DaqReading(
            device="daq",
            task="scan",
            values=dict(zip(CHANNELS, row, strict=True)),
            units=dict.fromkeys(CHANNELS, "V"),
            t_mono_ns=number * 1_000_000,
            t_utc=T0 + timedelta(milliseconds=number),
            requested_at=T0 + timedelta(milliseconds=number),
            received_at=T0 + timedelta(milliseconds=number, microseconds=300),
            latency_s=0.0003,
        )
        for number, row in enumerate(values)
    ]


def make_blocks(count: int, samples: int) -> list[DaqBlock]:
    random = np.random.default_rng(0)
    found: list[DaqBlock] = []
    for number in range(count):
        codes = random.integers(-2000, 2000, (len(CHANNELS), samples)).astype("i2")
        found.append(
            DaqBlock(
                device="daq",
                task="fly",
                channels=CHANNELS,
                data=codes * 0.001,
                raw_codes=codes,
                block_index=number,
                first_sample_index=number * samples,
                block_period_ns=100_000,
                sample_rate_hz=10_000.0,
                t_mono_ns=number * samples * 100_000,
                t_utc=T0 + timedelta(microseconds=100 * number * samples),
                task_started_at=T0,
                units=dict.fromkeys(CHANNELS, "V"),
            )
        )
    return found


# ----------------------------------------------------------------- by hand: readings


def by_hand(reading: DaqReading, *, text: bool = True) -> tuple[Any, ...]:
    """Return a row as anybody would write it who knows the columns."""
    times: list[Any] = [reading.t_utc, reading.requested_at, reading.received_at]
    if text:
        times = [moment.isoformat() if moment else None for moment in times]
    return (
        reading.device,
        reading.task,
        reading.t_mono_ns,
        times[0],
        reading.t_midpoint_mono_ns,
        times[1],
        times[2],
        reading.latency_s,
        *reading.values.values(),
        *reading.units.values(),
        type(reading.error).__name__ if reading.error else None,
        str(reading.error) if reading.error else None,
    )


def batches(records: list[Any], size: int) -> Iterator[list[Any]]:
    for place in range(0, len(records), size):
        yield records[place : place + size]


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def bare_csv(readings: list[DaqReading], size: int) -> Work:
    async def work(folder: Path) -> None:
        with open(folder / "x.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for batch in batches(readings, size):
                writer.writerows([by_hand(reading) for reading in batch])
                file.flush()
        sync(folder / "x.csv")

    return work


def bare_jsonl(readings: list[DaqReading], size: int) -> Work:
    async def work(folder: Path) -> None:
        with open(folder / "x.jsonl", "wb") as file:
            for batch in batches(readings, size):
                for reading in batch:
                    row = dict(zip(COLUMNS, by_hand(reading), strict=True))
                    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
        sync(folder / "x.jsonl")

    return work


def bare_sqlite(readings: list[DaqReading], size: int) -> Work:
    async def work(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "x.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"CREATE TABLE readings ({', '.join(COLUMNS)})")
            marks = ", ".join("?" * len(COLUMNS))
            for batch in batches(readings, size):
                db.execute("BEGIN IMMEDIATE")
                rows = [by_hand(reading) for reading in batch]
                db.executemany(f"INSERT INTO readings VALUES ({marks})", rows)
                db.execute("COMMIT")

    return work


def parquet_schema() -> pa.Schema:
    whole = ("t_mono_ns", "t_midpoint_mono_ns")
    times = ("t_utc", "requested_at", "received_at")
    numbers = ("latency_s", *CHANNELS)
    kinds = {
        **dict.fromkeys(COLUMNS, pa.string()),
        **dict.fromkeys(whole, pa.int64()),
        **dict.fromkeys(times, pa.timestamp("us", "UTC")),
        **dict.fromkeys(numbers, pa.float64()),
    }
    return pa.schema(list(kinds.items()))


def bare_parquet(readings: list[DaqReading], size: int) -> Work:
    async def work(folder: Path) -> None:
        schema = parquet_schema()
        path = folder / "x.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in batches(readings, size):
                rows = [by_hand(reading, text=False) for reading in batch]
                columns = zip(*rows, strict=True)
                arrays = [
                    pa.array(column, kind)
                    for column, kind in zip(columns, schema.types, strict=True)
                ]
                writer.write_table(pa.table(arrays, schema=schema))
        sync(path)

    return work


POSTGRES = {
    **dict.fromkeys(COLUMNS, "text"),
    **dict.fromkeys(("t_mono_ns", "t_midpoint_mono_ns"), "bigint"),
    **dict.fromkeys(("t_utc", "requested_at", "received_at"), "timestamptz"),
    **dict.fromkeys(("latency_s", *CHANNELS), "double precision"),
}


def bare_asyncpg(readings: list[DaqReading], size: int, url: str) -> Work:
    async def work(folder: Path) -> None:
        import asyncpg

        connection: Any = await asyncpg.connect(url)
        await connection.execute("DROP TABLE IF EXISTS bare")
        columns = ", ".join(f"{name} {kind}" for name, kind in POSTGRES.items())
        await connection.execute(f"CREATE TABLE bare ({columns})")
        for batch in batches(readings, size):
            rows = [by_hand(reading, text=False) for reading in batch]
            await connection.copy_records_to_table("bare", records=rows)
        await connection.close()

    return work


# ------------------------------------------------------------------- by hand: blocks


def rows_by_hand(block: DaqBlock, *, text: bool = True) -> Iterator[tuple[Any, ...]]:
    count = block.data.shape[1]
    period = (block.block_period_ns or 0) / 1000
    times: list[Any] = [
        block.t_utc + timedelta(microseconds=k * period) for k in range(count)
    ]
    if text:
        times = [moment.isoformat() for moment in times]
    step = block.block_period_ns or 0
    mono = [(block.t_mono_ns or 0) + k * step for k in range(count)]
    for channel, samples in zip(block.channels, block.data, strict=True):
        unit = block.units[channel]
        for k, value in enumerate(samples.tolist()):
            yield (
                block.device,
                block.task,
                channel,
                block.block_index,
                block.first_sample_index + k,
                mono[k],
                times[k],
                value,
                unit,
                None,
                None,
            )


def bare_csv_blocks(blocks: list[DaqBlock]) -> Work:
    async def work(folder: Path) -> None:
        with open(folder / "x.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(SAMPLES)
            for block in blocks:
                writer.writerows(rows_by_hand(block))
                file.flush()
        sync(folder / "x.csv")

    return work


def bare_sqlite_blocks(blocks: list[DaqBlock]) -> Work:
    async def work(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "x.db", isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"CREATE TABLE samples ({', '.join(SAMPLES)})")
            marks = ", ".join("?" * len(SAMPLES))
            for block in blocks:
                db.execute("BEGIN IMMEDIATE")
                rows = rows_by_hand(block)
                db.executemany(f"INSERT INTO samples VALUES ({marks})", rows)
                db.execute("COMMIT")

    return work


def bare_parquet_blocks(blocks: list[DaqBlock]) -> Work:
    whole = ("block_index", "sample_index", "t_mono_ns")
    kinds = {
        **dict.fromkeys(SAMPLES, pa.string()),
        **dict.fromkeys(whole, pa.int64()),
        "t_utc": pa.timestamp("us", "UTC"),
        "value": pa.float64(),
    }
    schema = pa.schema(list(kinds.items()))

    def table(block: DaqBlock) -> pa.Table:
        channels, count = block.data.shape
        rows = channels * count
        steps = np.arange(count) * (block.block_period_ns or 0)
        began = round(block.t_utc.timestamp() * 1e6)
        columns = {
            "device": pa.array([block.device] * rows),
            "task": pa.array([block.task] * rows),
            "channel": pa.array(np.repeat(np.array(block.channels, object), count)),
            "block_index": pa.array(np.full(rows, block.block_index)),
            "sample_index": pa.array(
                np.tile(np.arange(count) + block.first_sample_index, channels)
            ),
            "t_mono_ns": pa.array(np.tile(steps + (block.t_mono_ns or 0), channels)),
            "t_utc": pa.array(np.tile(steps // 1000 + began, channels)).cast(
                pa.timestamp("us", "UTC")
            ),
            "value": pa.array(block.data.reshape(-1)),
            "unit": pa.array(
                np.repeat(np.array(list(block.units.values()), object), count)
            ),
            "error_type": pa.nulls(rows, pa.string()),
            "error_message": pa.nulls(rows, pa.string()),
        }
        return pa.table(columns, schema=schema)

    async def work(folder: Path) -> None:
        path = folder / "x.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for block in blocks:
                writer.write_table(table(block))
        sync(path)

    return work


def bare_asyncpg_blocks(blocks: list[DaqBlock], url: str) -> Work:
    async def work(folder: Path) -> None:
        import asyncpg

        whole = ("block_index", "sample_index", "t_mono_ns")
        kinds = {
            **dict.fromkeys(SAMPLES, "text"),
            **dict.fromkeys(whole, "bigint"),
            "t_utc": "timestamptz",
            "value": "double precision",
        }
        connection: Any = await asyncpg.connect(url)
        await connection.execute("DROP TABLE IF EXISTS bare")
        columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        await connection.execute(f"CREATE TABLE bare ({columns})")
        for block in blocks:
            rows = rows_by_hand(block, text=False)
            await connection.copy_records_to_table("bare", records=rows)
        await connection.close()

    return work


def bare_file(blocks: list[DaqBlock]) -> Work:
    async def work(folder: Path) -> None:
        with open(folder / "x.raw", "wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block.raw_codes).tobytes())
                file.flush()
        sync(folder / "x.raw")

    return work


# ------------------------------------------------------------------------- the sinks


def sink_of(make: Callable[[Path], Any], records: list[Any], size: int) -> Work:
    async def work(folder: Path) -> None:
        async with make(folder) as sink:
            if size:
                for batch in batches(records, size):
                    await sink.write_many(batch)
            elif isinstance(sink, RawCountsSink):
                for block in records:
                    sink.write_raw_nowait(block)
            else:
                for block in records:
                    await sink.write(block)

    return work


@dataclass(frozen=True)
class Pair:
    """A sink, and what it is compared to."""

    name: str
    unit: str
    count: int
    sink: Work
    bare: Work


def pairs(
    readings: list[DaqReading], blocks: list[DaqBlock], size: int, url: str | None
) -> Iterator[Pair]:
    rows = len(readings)
    for name, make, bare in (
        ("CSV", lambda f: CsvSink(f / "x.csv"), bare_csv),
        ("JSON lines", lambda f: JsonlSink(f / "x.jsonl"), bare_jsonl),
        ("SQLite", lambda f: SqliteSink(f / "x.db"), bare_sqlite),
        ("Parquet", lambda f: ParquetSink(f / "x.parquet"), bare_parquet),
    ):
        sink = sink_of(make, readings, size)
        yield Pair(name, "rows/s", rows, sink, bare(readings, size))
    few = blocks[: max(1, len(blocks) // 10)]
    for name, make, bare in (
        ("CSV", lambda f: CsvSink(f / "x.csv", accept_blocks=True), bare_csv_blocks),
        ("SQLite", lambda f: SqliteSink(f / "x.db", samples=True), bare_sqlite_blocks),
    ):
        yield Pair(name, "blocks/s", len(few), sink_of(make, few, 0), bare(few))
    many = len(blocks)
    parquet = sink_of(lambda f: ParquetSink(f / "x.parquet"), blocks, 0)
    yield Pair("Parquet", "blocks/s", many, parquet, bare_parquet_blocks(blocks))
    raw = sink_of(lambda f: RawCountsSink(f / "x.dt-raw"), blocks, 0)
    yield Pair("raw counts", "blocks/s", many, raw, bare_file(blocks))
    if url is None:
        return

    def postgres(folder: Path) -> PostgresSink:
        config = PostgresConfig(
            dsn=url,
            table_readings=f"r{time.monotonic_ns()}",
            table_samples=f"s{time.monotonic_ns()}",
            create_tables=True,
        )
        return PostgresSink(config, samples=True)

    sink = sink_of(postgres, readings, size)
    yield Pair("PostgreSQL", "rows/s", rows, sink, bare_asyncpg(readings, size, url))
    sink = sink_of(postgres, few, 0)
    yield Pair("PostgreSQL", "blocks/s", len(few), sink, bare_asyncpg_blocks(few, url))


def timed(work: Work, place: Path) -> tuple[float, float]:
    """Return seconds on the clock, and of all processors."""
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        clock, processor = time.perf_counter(), time.process_time()
        asyncio.run(work(folder))
        return time.perf_counter() - clock, time.process_time() - processor
    finally:
        shutil.rmtree(folder)


def measure(pair: Pair, rounds: int, place: Path) -> tuple[list[Any], float]:
    timed(pair.sink, place)
    timed(pair.bare, place)
    found = []
    for number in range(rounds):
        turns = [pair.sink, pair.bare]
        if number % 2:
            turns.reverse()
        seconds = {work: timed(work, place) for work in turns}
        found.append((*seconds[pair.sink], *seconds[pair.bare]))
    ratio = statistics.median(bare / sink for sink, _, bare, _ in found)
    used = statistics.median(bare / sink for _, sink, _, bare in found)
    mine = statistics.median(pair.count / sink for sink, *_ in found)
    theirs = statistics.median(pair.count / bare for _, _, bare, _ in found)
    row = [f"{mine:.0f}", f"{theirs:.0f}", f"{ratio:.2f}", f"{used:.2f}"]
    return row, ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readings", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--place", type=Path, default=None)
    options = parser.parse_args()
    place = options.place or Path(tempfile.gettempdir())
    readings = make_readings(options.readings)
    blocks = make_blocks(options.blocks, options.samples)
    table = Table("sink", "what", "sink", "bare library", "ratio", "ratio of CPU time")
    server = PostgresTestServer() if PostgresTestServer.is_available() else None
    low: list[str] = []
    try:
        url = server.start().url() if server else None
        for pair in pairs(readings, blocks, options.batch, url):
            row, ratio = measure(pair, options.rounds, place)
            table.add_row(pair.name, pair.unit, *row)
            if ratio < AT_LEAST:
                low.append(f"{pair.name} {pair.unit}")
    finally:
        if server:
            server.stop()
    Console(width=100).print(table)
    print(f"batches of {options.batch} readings; blocks of 8 × {options.samples}")
    if low:
        raise SystemExit(f"below {AT_LEAST}: {', '.join(low)}")


if __name__ == "__main__":
    main()
