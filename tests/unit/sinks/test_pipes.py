"""From streams into sinks, D-14 to D-21."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.errors import SinkStateError
from bluesky_beamtime.sinks import (
    DaqBlock,
    DaqReading,
    InMemorySink,
    pipe,
    pipe_blocks,
)


def reading(number: int) -> DaqReading:
    return DaqReading(device="d", values={"n": number}, t_mono_ns=number)


def block(number: int) -> DaqBlock:
    return DaqBlock(
        device="d", channels=("a",), data=np.zeros((1, 2)), block_index=number
    )


class Noting(InMemorySink):
    """Notes the batches, keeps the very lists, and fails when told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.batches: list[Any] = []
        self.fail_at = fail_at
        self.flushed = 0
        self.wrote = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def write_many(self, items: Any) -> None:
        if self.hold is not None:
            self.wrote.set()
            await self.hold.wait()
        if len(self.batches) == self.fail_at:
            raise OSError("the disk is gone")
        await super().write_many(items)
        self.batches.append(items)
        self.wrote.set()

    async def write(self, block: DaqBlock) -> None:
        if len(self.batches) == self.fail_at:
            raise OSError("the disk is gone")
        await super().write(block)
        self.batches.append(block)
        self.wrote.set()

    async def flush(self) -> None:
        self.flushed += 1


async def stream(
    count: int, then: BaseException | asyncio.Event | None = None, make: Any = reading
) -> AsyncIterator[Any]:
    for number in range(count):
        yield make(number)
    if isinstance(then, asyncio.Event):
        await then.wait()
    elif then is not None:
        raise then


async def test_D_14_batches_have_the_size_and_the_rest_is_flushed() -> None:
    """D-14: 64, 64, 2."""
    async with Noting() as sink:
        assert await pipe(stream(130), sink, flush_interval_s=1000) == 130
    assert [len(batch) for batch in sink.batches] == [64, 64, 2]
    assert [r.values["n"] for r in sink.readings] == list(range(130))


async def test_D_14_an_idle_stream_is_flushed_on_time() -> None:
    """D-14: although no further reading comes."""
    end = asyncio.Event()
    async with Noting() as sink:
        piping = asyncio.create_task(pipe(stream(3, end), sink, flush_interval_s=0.01))
        await asyncio.wait_for(sink.wrote.wait(), 60)
        assert len(sink.readings) == 3
        end.set()
        assert await piping == 3


async def test_D_15_wrong_sizes_are_refused_before_the_stream_is_read() -> None:
    """D-15: with the numbers in the text."""

    async def untouched() -> AsyncIterator[Any]:
        pytest.fail("it was read")
        yield

    sink = Noting()
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        await pipe(untouched(), sink, batch_size=0)
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="flush_interval_s must be > 0, got"):
            await pipe(untouched(), sink, flush_interval_s=wrong)
        with pytest.raises(ValueError, match="flush_interval_s must be > 0, got"):
            await pipe_blocks(untouched(), sink, flush_interval_s=wrong)


async def test_D_16_a_stream_that_fails_loses_nothing() -> None:
    """D-16: what was read from it is written, and its error goes through."""
    async with Noting() as sink:
        with pytest.raises(ZeroDivisionError):
            await pipe(stream(10, ZeroDivisionError()), sink)
    assert len(sink.readings) == 10


async def test_D_16_cancelled_loses_nothing() -> None:
    """D-16: also with a write under way when it happens."""
    async with Noting() as sink:
        piping = asyncio.create_task(pipe(stream(10, asyncio.Event()), sink))
        while not piping.done() and not sink.readings:
            await asyncio.sleep(0)
            piping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await piping
    # Cancelled before it began to read, or with all ten.
    assert len(sink.readings) in (0, 10)
    async with Noting() as sink:
        sink.hold = asyncio.Event()
        piping = asyncio.create_task(
            pipe(stream(10, asyncio.Event()), sink, batch_size=4)
        )
        await asyncio.wait_for(sink.wrote.wait(), 60)
        piping.cancel()
        await asyncio.sleep(0.01)
        assert not piping.done()
        sink.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await piping
    # The batch that was being written, and nothing of the stream had come after it.
    assert [r.values["n"] for r in sink.readings] == [0, 1, 2, 3]


async def test_D_16_cancelled_while_idle_writes_what_waits() -> None:
    """D-16: ten readings wait for their time when the plan is stopped."""
    read = asyncio.Event()

    async def slow() -> AsyncIterator[DaqReading]:
        for number in range(10):
            yield reading(number)
        read.set()
        await asyncio.Event().wait()

    async with Noting() as sink:
        piping = asyncio.create_task(pipe(slow(), sink, flush_interval_s=1000))
        await asyncio.wait_for(read.wait(), 60)
        piping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await piping
        assert len(sink.readings) == 10


async def test_D_17_each_batch_is_a_list_of_its_own() -> None:
    """D-17: a sink may keep it."""
    async with Noting() as sink:
        await pipe(stream(6), sink, batch_size=2)
    assert [[r.values["n"] for r in batch] for batch in sink.batches] == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]


async def test_D_18_an_error_of_the_sink_carries_what_it_did_not_take() -> None:
    """D-18: it goes through, and nothing is tried again behind its back."""
    async with Noting(fail_at=1) as sink:
        with pytest.raises(OSError, match="the disk is gone") as caught:
            await pipe(stream(10), sink, batch_size=4)
    records: Any = caught.value.records  # type: ignore[attr-defined]
    assert [r.values["n"] for r in records] == [4, 5, 6, 7]
    assert len(sink.readings) == 4


async def test_D_18_while_the_stream_is_idle_too() -> None:
    """D-18: nobody waits for a stream into a sink that is gone."""
    async with Noting(fail_at=0) as sink:
        with pytest.raises(OSError, match="the disk is gone") as caught:
            await asyncio.wait_for(
                pipe(stream(3, asyncio.Event()), sink, flush_interval_s=0.01), 60
            )
    assert len(caught.value.records) == 3  # type: ignore[attr-defined]


async def test_D_18_the_sink_goes_before_the_stream() -> None:
    """D-18: if both fail, the one that loses data is raised."""
    async with Noting(fail_at=0) as sink:
        with pytest.raises(OSError, match="disk") as caught:
            await pipe(stream(3, ZeroDivisionError()), sink)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert len(caught.value.records) == 3  # type: ignore[attr-defined]


async def test_D_19_the_sink_is_neither_opened_nor_closed() -> None:
    """D-19: its life is its owner's."""
    sink = Noting()
    with pytest.raises(SinkStateError) as caught:
        await pipe(stream(3), sink)
    assert len(caught.value.records) == 3
    async with sink:
        await pipe(stream(3), sink)
        await pipe_blocks(stream(3, make=block), sink)
        assert sink.is_open


async def test_D_20_the_log_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    """D-20: also when it ends early."""
    caplog.set_level(logging.INFO)
    async with Noting() as sink:
        await pipe(stream(5), sink)
        with pytest.raises(ZeroDivisionError):
            await pipe(stream(2, ZeroDivisionError()), sink)
    done = [r for r in caplog.records if r.message == "sinks.pipe_done"]
    assert [r.__dict__["records_emitted"] for r in done] == [5, 2]


async def test_D_21_each_block_is_one_write(caplog: pytest.LogCaptureFixture) -> None:
    """D-21: and the log says how many."""
    caplog.set_level(logging.INFO)
    async with Noting() as sink:
        assert await pipe_blocks(stream(3, make=block), sink) == 3
    assert [b.block_index for b in sink.batches] == [0, 1, 2]
    assert sink.flushed == 0
    done = [r for r in caplog.records if r.message == "sinks.pipe_blocks_done"]
    assert [r.__dict__["blocks_emitted"] for r in done] == [3]


async def test_D_21_the_interval_flushes_the_sink_while_idle_and_at_the_end() -> None:
    """D-21: the option does what it says."""
    end = asyncio.Event()
    async with Noting() as sink:
        piping = asyncio.create_task(
            pipe_blocks(stream(1, end, block), sink, flush_interval_s=0.01)
        )
        for _ in range(6000):
            if sink.flushed >= 2:
                break
            await asyncio.sleep(0.01)
        assert sink.flushed >= 2
        end.set()
        before = sink.flushed
        assert await piping == 1
        assert sink.flushed > before
        sink.flushed = 0
        with pytest.raises(ZeroDivisionError):
            await pipe_blocks(
                stream(2, ZeroDivisionError(), block), sink, flush_interval_s=1000
            )
        assert sink.flushed == 1


async def test_D_21_a_failed_write_of_a_block_carries_it() -> None:
    """D-18, D-21: the same for blocks."""
    async with Noting(fail_at=1) as sink:
        with pytest.raises(OSError, match="disk") as caught:
            await pipe_blocks(stream(3, make=block), sink)
    assert [b.block_index for b in caught.value.records] == [1]  # type: ignore[attr-defined]


async def test_what_is_there_already_can_be_piped() -> None:
    """D-14: an ordinary iterable, such as a list or run.readings()."""
    async with Noting() as sink:
        assert await pipe([reading(n) for n in range(5)], sink) == 5
        assert await pipe_blocks(iter([block(1)]), sink) == 1


async def test_D_18_the_error_carries_what_waits_behind_the_failed_batch_too() -> None:
    """D-18: read from the stream while the sink was writing, and in no batch yet."""
    sink = Noting(fail_at=0)
    sink.hold = asyncio.Event()
    more = asyncio.Event()

    async def readings() -> AsyncIterator[Any]:
        yield reading(0)
        await sink.wrote.wait()
        yield reading(1)
        yield reading(2)
        more.set()
        await asyncio.Event().wait()

    async with sink:
        piping = asyncio.create_task(pipe(readings(), sink, flush_interval_s=0.01))
        await more.wait()
        sink.hold.set()
        with pytest.raises(OSError, match="the disk is gone") as caught:
            await piping
    records: Any = caught.value
    assert [r.values["n"] for r in records.records] == [0, 1, 2]
