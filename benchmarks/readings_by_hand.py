"""Readings as somebody would write them with the bare library that a sink uses.

The same records, the same columns, the same values in the file; one write, commit, COPY
or row group for each batch, the same syncs at the end.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bluesky_beamtime.sinks import DaqReading, InMemorySink

CHANNELS = tuple(f"ch{n}" for n in range(8))
COLUMNS = (
    *("device", "task", "t_mono_ns", "t_utc", "t_midpoint_mono_ns"),
    *("requested_at", "received_at", "latency_s"),
    *CHANNELS,
    *(f"{channel}_unit" for channel in CHANNELS),
    *("error_type", "error_message"),
)
Work = Callable[[Path], Awaitable[None]]


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
                    # It knows times itself.
                    values = by_hand(reading, text=False)
                    row = dict(zip(COLUMNS, values, strict=True))
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
        # A new one each time, as the sink's: the server looks after those that stay.
        table = f"bare{time.monotonic_ns()}"
        columns = ", ".join(f"{name} {kind}" for name, kind in POSTGRES.items())
        await connection.execute(f"CREATE TABLE {table} ({columns})")
        for batch in batches(readings, size):
            rows = [by_hand(reading, text=False) for reading in batch]
            await connection.copy_records_to_table(table, records=rows)
        await connection.close()

    return work


def bare_loop(readings: list[DaqReading], size: int) -> Work:
    """Hand readings of a stream over in batches, with no regard to time or failure."""

    async def work(folder: Path) -> None:
        async with InMemorySink() as sink:
            batch: list[DaqReading] = []
            async for reading in stream_of(readings):
                batch.append(reading)
                if len(batch) >= size:
                    await sink.write_many(batch)
                    batch = []
            if batch:
                await sink.write_many(batch)

    return work


async def stream_of(readings: list[DaqReading]) -> AsyncIterator[DaqReading]:
    for reading in readings:
        yield reading
