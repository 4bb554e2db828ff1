"""From a stream of records into a sink: batches, flushed on size and on time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import aclosing, suppress
from typing import Any, Generic, TypeVar, cast

from bluesky_beamtime.errors import SinkError
from bluesky_beamtime.sinks.base import BlockSink, ReadingSink
from bluesky_beamtime.sinks.misuse import check_sink
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading

logger = logging.getLogger("bluesky_beamtime.sinks")
_T = TypeVar("_T")


async def pipe(
    stream: AsyncIterable[DaqReading] | Iterable[DaqReading],
    sink: ReadingSink,
    *,
    batch_size: int = 64,
    flush_interval_s: float = 1.0,
) -> int:
    """Write the readings of a stream into a sink, in batches.

    A batch is written when it is full, when its first reading has waited for
    ``flush_interval_s`` (also while the stream is idle), when the stream ends, and when
    the stream fails or this call is cancelled: what was read from it is written.

    Parameters
    ----------
    stream
        Gives readings, as they come or, like ``run.readings()``, from what is there.
        An iterable that is not asynchronous must not wait for hardware: the event loop
        waits with it.
    sink
        An open sink; it stays open.
    batch_size
        Readings of a full batch. A sink that adds no columns has those of the first.
    flush_interval_s
        Seconds that a reading waits at most.

    Returns
    -------
    int
        How many readings the sink took.

    Raises
    ------
    ValueError
        ``batch_size`` or ``flush_interval_s`` makes no sense; nothing was read.
    SinkError
        The sink failed: ``error.records`` are the readings that it did not take, with
        those that waited for the next batch. An error of another kind goes through as
        it is, with the same attribute. It goes before an error of the stream.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be >= 1, got {batch_size!r}")
    _check_interval(flush_interval_s)
    check_sink(sink, ReadingSink, "pipe(stream, sink)")
    batches = _Batches(sink.write_many)
    try:
        await batches.drain(stream, batch_size, batches.flush_each(flush_interval_s))
    finally:
        extra = {"records_emitted": batches.written}
        logger.info("sinks.pipe_done", extra=extra)
    return batches.written


async def pipe_blocks(
    stream: AsyncIterable[DaqBlock] | Iterable[DaqBlock],
    sink: BlockSink,
    *,
    flush_interval_s: float | None = None,
) -> int:
    """Write the blocks of a stream into a sink, each as it comes.

    Parameters
    ----------
    stream
        Gives blocks; see :func:`pipe`.
    sink
        An open sink; it stays open.
    flush_interval_s
        Seconds after which what was written is brought to the device by the sink's
        ``flush``, also while the stream is idle; and again at the end, whether the
        stream ends, fails or this call is cancelled. None leaves that to the sink.

    Returns
    -------
    int
        How many blocks the sink took.

    Raises
    ------
    ValueError
        ``flush_interval_s`` makes no sense; nothing was read.
    SinkError
        The sink failed; ``error.records`` holds the block that it did not take.
    """
    if flush_interval_s is not None:
        _check_interval(flush_interval_s)
    check_sink(sink, BlockSink, "pipe_blocks(stream, sink)")

    async def write(batch: list[DaqBlock]) -> None:
        for block in batch:
            await sink.write(block)

    async def sync() -> None:
        flush = getattr(sink, "flush", None)
        if flush is not None:
            await flush()

    batches = _Batches(write)
    try:
        if flush_interval_s is None:
            await batches.drain(stream, 1, None)
        else:
            try:
                await batches.drain(stream, 1, _each(flush_interval_s, sync))
            finally:
                await _to_the_end(sync())
    finally:
        extra = {"blocks_emitted": batches.written}
        logger.info("sinks.pipe_blocks_done", extra=extra)
    return batches.written


def _check_interval(seconds: float) -> None:
    if not seconds > 0:
        raise ValueError(f"flush_interval_s must be > 0, got {seconds!r}")


async def _each(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await action()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that a cancellation must not leave half-done.

    Raises
    ------
    asyncio.CancelledError
        This was cancelled meanwhile, and the work is done.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait({task})
            if (error := task.exception()) is not None:
                raise error from None
        raise


async def _spread(stream: Iterable[_T]) -> AsyncGenerator[_T]:
    for number, record in enumerate(stream):
        yield record
        if number % 64 == 63:
            # Others may want to do something meanwhile.
            await asyncio.sleep(0)


class _Batches(Generic[_T]):
    """Records on their way from a stream to a sink, one batch at a time."""

    def __init__(self, write: Callable[[list[_T]], Coroutine[Any, Any, None]]) -> None:
        self._write = write
        self._waiting: list[_T] = []
        self._began = 0.0
        self._not_empty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failure: BaseException | None = None
        self.written = 0

    async def drain(
        self,
        stream: AsyncIterable[_T] | Iterable[_T],
        batch_size: int,
        meanwhile: Coroutine[Any, Any, None] | None,
    ) -> None:
        """Take all records of a stream, with something to do beside it."""
        cause: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                beside = None if meanwhile is None else group.create_task(meanwhile)
                if isinstance(stream, AsyncIterable):
                    await self._take(stream, batch_size)
                else:
                    async with aclosing(_spread(stream)) as records:
                        await self._take(records, batch_size)
                if beside is not None:
                    beside.cancel()
        except BaseExceptionGroup as group:
            cause = group.exceptions[0]
        except BaseException as error:
            cause = error
        if self._failure is None:
            try:
                await self.flush()
            except BaseException as error:
                cause = cause or error
        if self._failure is not None:
            # What it did not take is not lost if somebody hears of it.
            raise self._failure from (None if cause is self._failure else cause)
        if cause is not None:
            raise cause

    async def _take(self, records: AsyncIterable[_T], batch_size: int) -> None:
        now = asyncio.get_running_loop().time
        async for record in records:
            if not self._waiting:
                self._began = now()
                self._not_empty.set()
            self._waiting.append(record)
            if len(self._waiting) >= batch_size:
                await self.flush()

    async def flush_each(self, seconds: float) -> None:
        """Flush what has waited long enough, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._not_empty.wait()
            left = self._began + seconds - loop.time()
            if left > 0:
                await asyncio.sleep(left)
            elif self._failure is None:
                await self.flush()
            else:
                return

    async def flush(self) -> None:
        """Write what waits; a write that has begun is carried to its end."""
        async with self._writing:
            if not self._waiting or self._failure is not None:
                return
            # A list of its own: the sink may keep it.
            batch, self._waiting = self._waiting, []
            self._not_empty.clear()
            try:
                await _to_the_end(self._write(batch))
            except asyncio.CancelledError:
                self.written += len(batch)
                raise
            except BaseException as error:
                self._failure = error
                self._hand_back(error, batch)
                raise
            self.written += len(batch)

    def _hand_back(self, error: BaseException, batch: list[_T]) -> None:
        """Let the error carry what the sink did not take and what waits behind it."""
        known = error.records if isinstance(error, SinkError) else []
        records = [*(known or batch), *self._waiting]
        with suppress(AttributeError):
            cast("Any", error).records = records
