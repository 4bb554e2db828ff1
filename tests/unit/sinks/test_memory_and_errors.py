"""Records in memory, the errors of sinks and what importing them needs."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from bluesky_beamtime import errors
from bluesky_beamtime.sinks import DaqBlock, DaqReading, InMemorySink

READING = DaqReading(device="d", values={"n": 1})
BLOCK = DaqBlock(device="d", channels=("a",), data=np.zeros((1, 2)))


async def test_D_68_records_in_their_order_kept_after_close() -> None:
    """D-68: lists of the caller's own; changing them changes nothing."""
    async with InMemorySink() as sink:
        await sink.write_many([READING, READING])
        await sink.write(BLOCK)
        await sink.write_raw(BLOCK)
        await sink.write_many([READING])
        sink.readings.clear()
        sink.blocks.clear()
    assert sink.readings == [READING] * 3
    assert sink.blocks == sink.raw_blocks == [BLOCK]


async def test_D_69_is_open_from_open_to_close() -> None:
    """D-69: opened again, it goes on after what is there."""
    sink = InMemorySink()
    assert not sink.is_open
    for number in range(1, 3):
        async with sink:
            assert sink.is_open
            await sink.write_many([READING])
        assert not sink.is_open
        assert len(sink.readings) == number


async def test_D_70_use_before_open_and_after_close_is_refused() -> None:
    """D-70: with what was to be kept."""
    sink = InMemorySink()
    with pytest.raises(RuntimeError, match="InMemorySink: write_many called before"):
        await sink.write_many([READING])
    async with sink:
        pass
    with pytest.raises(errors.SinkStateError, match="after close") as caught:
        await sink.write(BLOCK)
    assert caught.value.records == [BLOCK]


def test_D_81_one_tree_of_errors_with_context_and_records() -> None:
    """D-81: each is also the kind of error that Python has for it."""
    kinds = {
        errors.SinkSchemaError: ValueError,
        errors.SinkWriteError: OSError,
        errors.SinkStateError: RuntimeError,
        errors.SinkDependencyError: ImportError,
    }
    for kind, builtin in kinds.items():
        assert issubclass(kind, errors.SinkError)
        assert issubclass(kind, builtin)
    assert issubclass(errors.SinkError, errors.BeamtimeError)
    context = errors.ErrorContext(operation="CsvSink.write_many", target="x.csv")
    error = errors.SinkWriteError("no", context=context, records=[READING], errno=28)
    assert (error.context, error.records, error.errno) == (context, [READING], 28)
    assert str(error) == "no"
    again = pickle.loads(pickle.dumps(error))
    assert (again.context, again.records, again.errno) == (context, [READING], 28)
    missing = errors.SinkDependencyError("ParquetSink", "pyarrow", "parquet")
    assert "bluesky-beamtime[parquet]" in str(missing)
    assert str(pickle.loads(pickle.dumps(missing))) == str(missing)


def test_D_82_everything_can_be_imported_and_made_without_the_extras() -> None:
    """D-82: with pyarrow and asyncpg hidden, the other sinks work."""
    script = """
import asyncio, sys
sys.modules |= dict.fromkeys(["pyarrow", "pyarrow.parquet", "asyncpg"])
from bluesky_beamtime.sinks import *
from bluesky_beamtime import sinks
sinks.ParquetSink("x.parquet")
sinks.PostgresSink(sinks.PostgresConfig(host="db"))
async def main():
    async with sinks.InMemorySink() as sink:
        await sinks.pipe([sinks.DaqReading(device="d")], sink)
        print(len(sink.readings))
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"
