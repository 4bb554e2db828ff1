"""What record sinks cost beside the bare library that each uses.

Readings and blocks go through a sink, and through what somebody would write by hand
with the library alone (`readings_by_hand.py`, `blocks_by_hand.py`): the same records,
the same columns, the same values in the file, one write, commit or row group for each
batch, the same syncs at the end. They take turns, and the ratio of each round is taken,
so that a slow moment of the machine hits both. The bare Parquet writer has no parts: it
loses the whole file when it is killed. Beside ``pipe`` stands a bare loop without a
timer, which loses what waits when a stream fails; no ratio is asked for there, since
that is what one record costs, not what a sink does.

    python benchmarks/sinks.py [--quick] [--rounds 7] [--readings 100000] [--batch 500]

Ends with 1 where a sink is slower than 0.8 of its library.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from blocks_by_hand import (
    bare_asyncpg_blocks,
    bare_csv_blocks,
    bare_file,
    bare_parquet_blocks,
    bare_sqlite_blocks,
)
from machine import describe
from readings_by_hand import (
    CHANNELS,
    Work,
    bare_asyncpg,
    bare_csv,
    bare_jsonl,
    bare_loop,
    bare_parquet,
    bare_sqlite,
    batches,
    stream_of,
)
from versus import Cost, Versus, compared, keep, show

from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    InMemorySink,
    JsonlSink,
    ParquetSink,
    PostgresConfig,
    PostgresSink,
    RawCountsSink,
    SqliteSink,
    pipe,
)

AT_LEAST = 0.8
T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)


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


def piped(readings: list[DaqReading], size: int) -> Work:
    async def work(folder: Path) -> None:
        async with InMemorySink() as sink:
            await pipe(stream_of(readings), sink, batch_size=size)

    return work


@dataclass(frozen=True)
class Pair:
    """A sink, and what it is compared to."""

    name: str
    unit: str
    count: int
    sink: Work
    bare: Work
    at_least: float = AT_LEAST


def pairs(
    readings: list[DaqReading], blocks: list[DaqBlock], size: int, url: str | None
) -> Iterator[Pair]:
    rows = len(readings)
    bare = bare_loop(readings, size)
    yield Pair("pipe, no sink", "rows/s", rows, piped(readings, size), bare, 0.0)
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
    chunks = blocks * 8
    parquet = sink_of(lambda f: ParquetSink(f / "x.parquet"), blocks, 0)
    yield Pair("Parquet", "blocks/s", many, parquet, bare_parquet_blocks(blocks))
    raw = sink_of(lambda f: RawCountsSink(f / "x.dt-raw"), chunks, 0)
    yield Pair("raw counts", "blocks/s", len(chunks), raw, bare_file(chunks))
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


def timed(work: Work, place: Path) -> Cost:
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        clock, processor = time.perf_counter(), time.process_time()
        asyncio.run(work(folder))
        return Cost(time.perf_counter() - clock, time.process_time() - processor)
    finally:
        shutil.rmtree(folder)


def measure(pair: Pair, rounds: int, place: Path) -> Versus:
    timed(pair.sink, place)
    timed(pair.bare, place)
    found: list[tuple[Cost, Cost]] = []
    for number in range(rounds):
        turns = [pair.sink, pair.bare]
        if number % 2:
            turns.reverse()
        costs = {work: timed(work, place) for work in turns}
        found.append((costs[pair.sink], costs[pair.bare]))
    return compared(pair.name, pair.unit, pair.count, found, pair.at_least)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer records and rounds")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--readings", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--place", type=Path, default=None)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 3
        options.readings, options.blocks = 20_000, 20
    place = options.place or Path(tempfile.gettempdir())
    readings = make_readings(options.readings)
    blocks = make_blocks(options.blocks, options.samples)
    server = PostgresTestServer() if PostgresTestServer.is_available() else None
    lines: list[Versus] = []
    machine = describe()
    try:
        url = server.start().url() if server else None
        for pair in pairs(readings, blocks, options.batch, url):
            lines.append(measure(pair, options.rounds, place))
    finally:
        if server:
            server.stop()
    show(lines)
    print(f"batches of {options.batch} readings; blocks of 8 × {options.samples}")
    keep(
        options.json,
        machine,
        lines,
        rounds=options.rounds,
        readings=options.readings,
        batch=options.batch,
        samples=options.samples,
    )


if __name__ == "__main__":
    main()
