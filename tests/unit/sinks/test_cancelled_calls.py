"""Calls that are cancelled, loops that end, and sinks that are closed meanwhile."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import SinkStateError, SinkWriteError
from bluesky_beamtime.sinks import (
    CsvSink,
    DaqReading,
    JsonlSink,
    ParquetSink,
    SqliteSink,
)

KINDS = [CsvSink, JsonlSink, ParquetSink, SqliteSink]


def reading(number: int) -> DaqReading:
    return DaqReading(device="d", t_mono_ns=number, values={"n": number})


class Gate:
    """Holds a method of a sink up in its thread."""

    def __init__(self, sink: Any, method: str) -> None:
        self._there = threading.Event()
        self._may = threading.Event()
        self._inner: Callable[..., Any] = getattr(sink, method)
        setattr(sink, method, self._wait)

    def _wait(self, *args: Any) -> Any:
        self._there.set()
        assert self._may.wait(60)
        return self._inner(*args)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._there.wait, 60)

    def let_go(self) -> None:
        self._may.set()


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def count(sink: Any) -> int:
    """Return how many rows a sink wrote, by what it logs."""
    await sink.close()
    return sink._rows_written


@pytest.mark.parametrize("kind", KINDS)
async def test_D_16_a_write_that_is_cancelled_is_carried_out(
    kind: Any, tmp_path: Path
) -> None:
    """D-16: in the middle of it, and while it waits for its turn."""
    sink = kind(tmp_path / "x")
    gate = Gate(sink, "_write_readings")
    await sink.open()
    running = asyncio.create_task(sink.write_many([reading(1)]))
    await gate.reached()
    waiting = asyncio.create_task(sink.write_many([reading(2)]))
    await asyncio.sleep(0)
    await cancel(waiting)
    await cancel(running)
    gate.let_go()
    assert await count(sink) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_D_18_a_cancelled_write_that_fails_is_logged(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-18: nobody hears its error, and losing data is loud."""
    sink = kind(tmp_path / "x")

    def fail(readings: Any) -> None:
        raise OSError("the disk is gone")

    sink._write_readings = fail
    gate = Gate(sink, "_write_readings")
    await sink.open()
    running = asyncio.create_task(sink.write_many([reading(1)]))
    await gate.reached()
    await cancel(running)
    gate.let_go()
    await sink.close()
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.message == f"sinks.{sink.kind}.failed_after_cancel"
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, SinkWriteError)
    assert [each.values["n"] for each in error.records] == [1]


@pytest.mark.parametrize("kind", KINDS)
async def test_D_02_an_open_that_is_cancelled_leaves_nothing_open(
    kind: Any, tmp_path: Path
) -> None:
    """D-02: nobody is there to close it; the next open finds a free file."""
    sink = kind(tmp_path / "x")
    gate = Gate(sink, "_open")
    opening = asyncio.create_task(sink.open())
    await gate.reached()
    await cancel(opening)
    gate.let_go()
    for _ in range(2):
        async with sink:
            await sink.write_many([reading(1)])
    assert not sink.is_open
    assert await count(sink) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_D_03_close_waits_for_what_is_being_written(
    kind: Any, tmp_path: Path
) -> None:
    """D-03: and what comes after it is refused, not lost."""
    sink = kind(tmp_path / "x")
    gate = Gate(sink, "_write_readings")
    await sink.open()
    writing = asyncio.create_task(sink.write_many([reading(1)]))
    await gate.reached()
    behind = asyncio.create_task(sink.write_many([reading(2)]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(sink.close())
    await asyncio.sleep(0)
    last = [reading(3)]
    late = asyncio.create_task(sink.write_many(last))
    await asyncio.sleep(0)
    gate.let_go()
    await asyncio.gather(writing, behind, closing)
    with pytest.raises(SinkStateError, match="after close") as caught:
        await late
    assert caught.value.records == last
    assert await count(sink) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_sink_serves_one_event_loop_after_the_other(
    kind: Any, tmp_path: Path
) -> None:
    """D-02, D-48: its thread is its own, and no loop has to stay."""
    sink = kind(tmp_path / "x")
    asyncio.run(sink.open())
    for number in range(3):
        asyncio.run(sink.write_many([reading(number)]))
    asyncio.run(sink.flush())
    asyncio.run(sink.close())
    assert sink._rows_written == 3


@pytest.mark.parametrize("kind", KINDS)
def test_D_16_a_loop_that_ends_during_a_write_leaves_it_whole(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D-16: the write goes on in its thread, and has nobody to report to."""
    sink = kind(tmp_path / "x")
    gate = Gate(sink, "_write_readings")

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        await sink.open()
        tasks.append(asyncio.create_task(sink.write_many([reading(1)])))
        await gate.reached()

    asyncio.run(main())
    assert tasks[0].cancelled()
    gate.let_go()
    asyncio.run(sink.close())
    assert sink._rows_written == 1
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
