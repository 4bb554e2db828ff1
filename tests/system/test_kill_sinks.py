"""``kill -9`` while sinks write: what each of them promises is what is found.

The child says through a pipe what each call returned from. Afterwards the files are
read with stock readers alone; then a sink opens them again and goes on.

What every sink promises: all that a call returned from is there, whole and in order.
What may be there beyond it is the one call that was under way, and this is where they
differ:

========== ==================================================================
CSV        nothing, some rows, all rows, or a torn row at the end of the file
JSON lines the same; a torn line is no JSON
Parquet    nothing or all of it: a part is there whole, or not at all
SQLite     nothing or all of it: a call is a transaction
raw counts nothing, all of it, or a torn chunk at the end of the file
========== ==================================================================
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import select
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.sinks import (
    CsvSink,
    DaqBlock,
    DaqReading,
    JsonlSink,
    ParquetSink,
    RawCountsSink,
    SqliteSink,
    iter_blocks,
)

KILLS = int(os.environ.get("BEAMTIME_SINK_KILLS", "3"))
BATCH = 7

CHILD = """
import asyncio, os, sys
import numpy as np
from bluesky_beamtime import sinks

path, kind, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
SINKS = {
    "csv": sinks.CsvSink, "jsonl": sinks.JsonlSink, "parquet": sinks.ParquetSink,
    "sqlite": sinks.SqliteSink, "raw": sinks.RawCountsSink,
}

def readings(number):
    return [
        sinks.DaqReading(
            device="d", t_mono_ns=number, values={"call": number, "row": row,
            "text": 'a "quoted"\\nline, ' * (number % 50)},
        )
        for row in range(7)
    ]

def block(number):
    codes = np.full((2, 500), number, "i4")
    return sinks.DaqBlock(
        device="d", channels=("a", "b"), data=codes, raw_codes=codes,
        block_index=number, t_mono_ns=number,
    )

async def main():
    async with SINKS[kind](path, append=True) as sink:
        number = first
        while True:
            if kind == "raw":
                await sink.write_raw(block(number))
            else:
                await sink.write_many(readings(number))
            os.write(1, b"%d\\n" % number)
            number += 1

asyncio.run(main())
"""


def write_and_kill(path: Path, kind: str, first: int, delay: float) -> int:
    """Return the last call that a child said it returned from before it was killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), kind, str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    out = child.stdout.fileno()
    data = b""
    give_up, kill_at = time.monotonic() + 100, None
    while kill_at is None or time.monotonic() < kill_at:
        if time.monotonic() > give_up or child.poll() is not None:
            child.kill()
            pytest.fail(child.communicate()[1].decode())
        timeout = 0.1 if kill_at is None else max(0.0, kill_at - time.monotonic())
        if select.select([out], [], [], timeout)[0]:
            data += os.read(out, 1 << 16)
            if kill_at is None:
                kill_at = time.monotonic() + delay
    child.kill()
    lines = (data + child.communicate()[0]).split(b"\n")[:-1]
    said = [int(line) for line in lines]
    assert said == list(range(first, first + len(said)))
    return said[-1]


def reading(number: int, row: int) -> DaqReading:
    return DaqReading(
        device="d",
        t_mono_ns=number,
        values={
            "call": number,
            "row": row,
            "text": 'a "quoted"\nline, ' * (number % 50),
        },
    )


def check_rows(rows: list[tuple[int, int, str]], last: int, whole: bool) -> int:
    """Check that all calls up to ``last`` are there; return the last that is whole.

    Rows beyond are those of one call; ``whole`` says that they are all or none.
    """
    wanted = [(call, row) for call in range(last + 2) for row in range(BATCH)]
    found = [(call, row) for call, row, _ in rows]
    assert found == wanted[: len(found)]
    assert len(found) >= BATCH * (last + 1)
    if whole:
        assert len(found) % BATCH == 0
    for call, _, text in rows:
        assert text == 'a "quoted"\nline, ' * (call % 50)
    return len(found) // BATCH


def rows_of_csv(path: Path, torn: bool) -> list[tuple[int, int, str]]:
    text = path.read_bytes().decode()
    rows: list[tuple[int, int, str]] = []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        # Of a torn row some fields are absent.
        if row["error_message"] is None:
            assert torn
            break
        rows.append((int(row["call"]), int(row["row"]), row["text"]))
    return rows


def rows_of_jsonl(path: Path, torn: bool) -> list[tuple[int, int, str]]:
    lines = path.read_bytes().split(b"\n")
    assert torn or not lines[-1]
    # What follows the last line end is empty, or torn.
    rows = [json.loads(line) for line in lines[:-1]]
    return [(row["call"], row["row"], row["text"]) for row in rows]


def rows_of_parquet(path: Path, torn: bool) -> list[tuple[int, int, str]]:
    import pyarrow.parquet

    parts = sorted(path.parent.glob("*.parquet"))
    if not torn:
        assert parts == [path]
    rows = [row for p in parts for row in pyarrow.parquet.read_table(p).to_pylist()]
    return [(row["call"], row["row"], row["text"]) for row in rows]


def rows_of_sqlite(path: Path, torn: bool) -> list[tuple[int, int, str]]:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return database.execute('SELECT call, "row", text FROM readings').fetchall()


TABLES: dict[str, tuple[Any, Callable[..., Any], bool]] = {
    "csv": (CsvSink, rows_of_csv, False),
    "jsonl": (JsonlSink, rows_of_jsonl, False),
    "parquet": (ParquetSink, rows_of_parquet, True),
    "sqlite": (SqliteSink, rows_of_sqlite, True),
}


@pytest.mark.timeout(120 * KILLS)
@pytest.mark.parametrize("kind", sorted(TABLES))
async def test_D_28_D_36_D_49_rows_that_a_call_returned_from_survive(
    kind: str, tmp_path: Path
) -> None:
    """D-28, D-36, D-49: all of them, in order; then the same file is gone on with.

    CSV and JSON lines: a torn row may be at the end; append=True takes it away and
    keeps the whole rows of the call that was under way. Parquet: every part is a file
    that stock readers take. SQLite: the file is whole, a call is there or not.
    """
    make, rows_of, whole = TABLES[kind]
    chance = random.Random(f"sinks {kind}")
    path = tmp_path / f"x.{kind}"
    calls = 0
    for _ in range(KILLS):
        last = write_and_kill(path, kind, calls, chance.uniform(0.0, 0.3))
        check_rows(rows_of(path, True), last, whole)
        # As after any crash: opened again, nothing lost and nothing twice.
        async with make(path, append=True):
            pass
        rows = rows_of(path, False)
        calls = check_rows(rows, last, whole)
        if rest := len(rows) % BATCH:
            # The call that was under way is finished by hand.
            async with make(path, append=True) as sink:
                await sink.write_many([reading(calls, r) for r in range(rest, BATCH)])
            calls += 1
        assert calls > last
    assert calls >= KILLS


@pytest.mark.timeout(120 * KILLS)
async def test_D_77_chunks_that_a_call_returned_from_survive(tmp_path: Path) -> None:
    """D-77: all of them, by struct and json alone; a torn chunk may be at the end."""
    chance = random.Random("raw sink")
    path = tmp_path / "x.dt-raw"
    chunks = 0
    for _ in range(KILLS):
        last = write_and_kill(path, "raw", chunks, chance.uniform(0.0, 0.3))
        data = path.read_bytes()
        (place,) = struct.unpack_from("<I", data)
        place += 4
        found: list[int] = []
        while place + 4 <= len(data):
            (length,) = struct.unpack_from("<I", data, place)
            begin = place + 4 + length
            if begin + 4000 > len(data):
                break
            header = json.loads(data[place + 4 : begin])
            codes = np.frombuffer(data, "<i4", 1000, begin)
            assert np.all(codes == header["t_mono_ns"])
            found.append(header["seq"])
            place = begin + 4000
        assert found == list(range(len(found)))
        assert last + 1 <= len(found) <= last + 2
        assert [b.block_index for b in iter_blocks(path)] == found
        chunks = len(found)
        codes = np.full((2, 500), chunks, "i4")
        async with RawCountsSink(path, append=True) as sink:
            await sink.write_raw(
                DaqBlock(
                    device="d",
                    channels=("a", "b"),
                    data=codes,
                    raw_codes=codes,
                    t_mono_ns=chunks,
                )
            )
        assert [b.block_index for b in iter_blocks(path)] == [*found, chunks]
        chunks += 1
