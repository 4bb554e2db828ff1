"""Blocks as somebody would write them with the bare library that a sink uses."""

from __future__ import annotations

import csv
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from readings_by_hand import Work, sync

from bluesky_beamtime.sinks import DaqBlock
from bluesky_beamtime.sinks.raw_counts import file_header

SAMPLES = (
    *("device", "task", "channel", "block_index", "sample_index", "t_mono_ns"),
    *("t_utc", "value", "unit", "error_type", "error_message"),
)


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
        # A new one each time, as the sink's: the server looks after those that stay.
        table = f"bare{time.monotonic_ns()}"
        columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        await connection.execute(f"CREATE TABLE {table} ({columns})")
        for block in blocks:
            rows = rows_by_hand(block, text=False)
            await connection.copy_records_to_table(table, records=rows)
        await connection.close()

    return work


def bare_file(blocks: list[DaqBlock]) -> Work:
    """Write the same bytes, chunk after chunk, each with the operating system."""

    async def work(folder: Path) -> None:
        with open(folder / "x.raw", "wb") as file:
            text = orjson.dumps(file_header(blocks[0], blocks[0].raw_codes, {}))
            file.write(struct.pack("<I", len(text)) + text)
            for number, block in enumerate(blocks):
                codes = np.ascontiguousarray(block.raw_codes)
                header = {
                    "seq": number,
                    "event_kind": "buffer_done",
                    "first_sample_index": block.first_sample_index,
                    "valid_samples": block.samples_per_channel,
                    "buffer_capacity": codes.shape[1],
                    "t_mono_ns": block.t_mono_ns,
                    "t_utc": block.t_utc,
                    "flags": [],
                    "crc32c": google_crc32c.value(codes),
                }
                text = orjson.dumps(header)
                file.write(struct.pack("<I", len(text)) + text)
                file.write(codes)
                file.flush()
        sync(folder / "x.raw")

    return work
