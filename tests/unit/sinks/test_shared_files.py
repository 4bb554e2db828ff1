"""Two sinks on one file, of one process or of two: nothing of either is lost."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import SinkWriteError
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqReading,
    JsonlSink,
    ParquetSink,
    RawCountsSink,
    SqliteSink,
)

FILES = {
    "csv": CsvSink,
    "jsonl": JsonlSink,
    "parquet": ParquetSink,
    "raw": RawCountsSink,
}
OTHER = """
import asyncio, sys
from bluesky_beamtime import sinks

async def main():
    async with getattr(sinks, sys.argv[1])(sys.argv[2], append=True) as sink:
        print("open", flush=True)
        sys.stdin.read(1)

asyncio.run(main())
"""


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", t_mono_ns=number, values={"n": number, **values})


@pytest.mark.parametrize("kind", sorted(FILES))
@pytest.mark.parametrize("option", ["append", "overwrite"])
async def test_a_file_that_another_sink_writes_to_is_refused_and_left_alone(
    kind: str, option: str, tmp_path: Path
) -> None:
    """D-22, D-27: both would write at the place where they think the end is."""
    path = tmp_path / "x"
    async with FILES[kind](path) as first:
        if kind != "raw":
            await first.write_many([reading(1)])
        before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        other = FILES[kind](path, **{option: True})
        with pytest.raises(SinkWriteError, match="another sink is writing") as caught:
            await other.open()
        assert caught.value.filename == str(path)
        assert not other.is_open
        assert {p: p.read_bytes() for p in before} == before
        if kind != "raw":
            await first.write_many([reading(2, new=1)])
            with pytest.raises(SinkWriteError, match="another sink is writing"):
                await FILES[kind](path, append=True).open()
    async with FILES[kind](path, append=True) as third:
        assert third.is_open
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kind", sorted(FILES))
async def test_a_file_of_another_process_is_free_when_that_is_killed(
    kind: str, tmp_path: Path
) -> None:
    """D-22, D-28: a lock ends with its process; nobody has to take one away."""
    path = tmp_path / "x"
    child = subprocess.Popen(
        [sys.executable, "-c", OTHER, FILES[kind].__name__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"open\n"
            with pytest.raises(SinkWriteError, match="another sink is writing"):
                await FILES[kind](path, append=True).open()
        finally:
            child.kill()
    async with FILES[kind](path, append=True) as sink:
        assert sink.is_open


async def test_D_53_sinks_of_one_database_learn_each_others_columns(
    tmp_path: Path,
) -> None:
    """D-43, D-53: SQLite lets both write; a column that the other added is there."""
    path = tmp_path / "x.db"
    async with SqliteSink(path, append=True) as a, SqliteSink(path, append=True) as b:
        await a.write_many([reading(1, a=1)])
        await b.write_many([reading(2, b=2)])
        await a.write_many([reading(3, a=3, b=3, c=3)])
        await b.write_many([reading(4, c=4, a=4)])
        await asyncio.gather(
            *(
                sink.write_many([reading(n, **{f"new{n // 2}": n})])
                for n, sink in zip(range(5, 25), [a, b] * 10, strict=True)
            )
        )
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT n, a, b, c FROM readings ORDER BY n").fetchall()
        assert rows[:4] == [
            (1, 1, None, None),
            (2, None, 2, None),
            (3, 3, 3, 3),
            (4, 4, None, 4),
        ]
        assert [row[0] for row in rows] == list(range(1, 25))


async def test_D_53_each_keeps_to_its_own_policy(tmp_path: Path) -> None:
    """D-43: schema="raise" takes a column that another sink has added meanwhile."""
    path = tmp_path / "x.db"
    strict = SqliteSink(path, append=True, schema="raise")
    async with SqliteSink(path, append=True) as free, strict:
        await strict.write_many([reading(1)])
        await free.write_many([reading(2, new=2)])
        await strict.write_many([reading(3, new=3)])
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT n, new FROM readings ORDER BY n").fetchall()
    assert rows == [(1, None), (2, 2), (3, 3)]


async def test_parquet_files_whose_names_differ_in_their_ending_have_parts_of_their_own(
    tmp_path: Path,
) -> None:
    """D-36: x.parquet and x.pq side by side."""
    import pyarrow.parquet

    a, b = ParquetSink(tmp_path / "x.parquet"), ParquetSink(tmp_path / "x.pq")
    async with a, b:
        await a.write_many([reading(1)])
        await b.write_many([reading(2)])
        await a.write_many([reading(3, new=1)])
    found = [pyarrow.parquet.read_table(s.path).column("n").to_pylist() for s in (a, b)]
    assert found == [[1, 3], [2]]
