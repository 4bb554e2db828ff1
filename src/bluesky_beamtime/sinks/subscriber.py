"""A sink behind a RunEngine: what it emits goes there as it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from bluesky_beamtime.errors import ErrorContext, SinkError, SinkWriteError
from bluesky_beamtime.sinks.base import BlockSink, ReadingSink, logger
from bluesky_beamtime.sinks.many_runs import WITHOUT_END, RecordsOfRuns, to_keep
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading


class SinkSubscriber:
    """Feeds a sink with the events and blocks of a RunEngine, while they are taken.

    ``RE.subscribe(SinkSubscriber(sink))``. The records are those of ``run.readings()``
    and ``run.blocks()``: a live table and an export later are the same. The sink works
    in a thread with an event loop of its own; the plan waits for it only at the end of
    a run, so that a run that has ended is in the sink. It is opened at the first run
    and stays open until :meth:`close`.

    A sink that fails does not stop the plan. The failure is logged as an error, the
    records it did not take are kept in :attr:`failed`, later ones are tried as they
    come, and :meth:`close` raises. With ``on_error="raise"`` the next document raises.
    What a sink has not written yet waits in memory, so that a slow one does not slow
    the plan. Of one that hangs or fails for hours, as much is kept as ``max_kept``
    says; what comes then is counted in :attr:`not_taken` alone. The run itself has it
    all: ``await pipe(run.readings(), sink)`` writes it again.

    Parameters
    ----------
    sink
        A sink that is not open, or an open one that belongs to no event loop.
    readings, blocks
        What to give it; by default what it takes, and of a file that holds one of the
        two the readings.
    block_keys
        Further data keys that hold blocks, without saying so in their dimensions.
    on_error
        ``"keep"`` or ``"raise"``.
    end_timeout
        How long the end of a run waits for the sink, in seconds.
    open_array
        Opens the arrays of blocks; by default stock readers do.
    patience
        How long the end of a run waits for blocks that were announced and cannot be
        read yet, as in stores on a network disk, in seconds.
    max_kept
        How many documents of events and frames wait for the sink at most, and how many
        records are in :attr:`failed` at most. An event of eight channels takes
        some 1.4 kB, its reading 1.2 kB.
    """

    def __init__(
        self,
        sink: ReadingSink | BlockSink,
        *,
        readings: bool | None = None,
        blocks: bool | None = None,
        block_keys: Collection[str] = (),
        on_error: Literal["keep", "raise"] = "keep",
        end_timeout: float = 30.0,
        open_array: Callable[[Mapping[str, Any]], Any] | None = None,
        patience: float = 5.0,
        max_kept: int = 100_000,
    ) -> None:
        if max_kept < 1:
            raise ValueError(f"max_kept={max_kept!r}: at least 1")
        if on_error not in ("keep", "raise"):
            raise ValueError(f"on_error={on_error!r}: 'keep' or 'raise'")
        takes_readings = isinstance(sink, ReadingSink)
        takes_blocks = isinstance(sink, BlockSink)
        if readings is None:
            readings = takes_readings and not (blocks and not _holds_both(sink))
        if blocks is None:
            blocks = takes_blocks and (_holds_both(sink) or not readings)
        if (readings and not takes_readings) or (blocks and not takes_blocks):
            raise TypeError(
                f"{type(sink).__name__} takes no {'blocks' if blocks else 'readings'}"
            )
        if isinstance(sink, type) or not (readings or blocks):
            name = sink.__name__ if isinstance(sink, type) else type(sink).__name__
            raise TypeError(
                f"SinkSubscriber takes a sink of readings or blocks, not {name}"
                + (f" itself: {name}(…)" if isinstance(sink, type) else "")
            )
        self._sink: Any = sink
        self._on_error = on_error
        self._end_timeout = end_timeout
        self._records = RecordsOfRuns(
            readings=readings,
            blocks=blocks,
            block_keys=block_keys,
            open_array=open_array,
            patience=patience,
        )
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.Queue[Any] | None = None
        self._opened = False
        self._said = ""
        self._max_kept = max_kept
        self._waiting = 0
        self._full = False
        self.failed: list[DaqReading | DaqBlock] = []
        """Records that the sink did not take, the first ``max_kept`` of them."""
        self.not_taken = 0
        """Records that the sink did not take, and documents of events and frames that
        did not even wait for it, as too many were waiting."""
        self.error: Exception | None = None
        """The first failure."""

    @property
    def sink(self) -> Any:
        """The sink."""
        return self._sink

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of a RunEngine; returns at once, but at the end of a run."""
        with self._lock:
            if self._thread is None:
                if name != "start":
                    return
                self._begin()
            if self._has_room(name):
                self._put((name, to_keep(doc)))
        if name == "stop":
            self.wait(self._end_timeout)
        # Not at the end of a run, which has its exit status by then.
        elif self._on_error == "raise" and self.error is not None:
            raise self._failure(self.error, self.failed)

    def _has_room(self, name: str) -> bool:
        """Count a document that waits, or one that finds too many before it."""
        if name not in WITHOUT_END:
            return True
        if self._waiting < self._max_kept:
            self._waiting += 1
            self._full = False
            return True
        self.not_taken += 1
        if not self._full:
            # Once for each time that it is so; there may be thousands a second.
            self._full = True
            error = SinkWriteError(
                f"{self._max_kept} documents wait for the sink already, which is too "
                "slow, or hangs; later ones are left out",
                context=ErrorContext("SinkSubscriber", self._target()),
            )
            self.error = self.error or error
            extra = {"target": self._target(), "reason": str(error)}
            logger.error(
                "sinks.subscriber.failed", extra={**extra, "records_not_taken": 1}
            )
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until what was emitted is in the sink, or failed.

        Parameters
        ----------
        timeout
            Seconds at most; None for no limit.

        Returns
        -------
        bool
            Whether it is.
        """
        done = threading.Event()
        with self._lock:
            if self._thread is None:
                return True
            self._put(done)
        if done.wait(timeout):
            return True
        logger.warning("sinks.subscriber.slow", extra={"target": self._target()})
        return False

    def close(self, timeout: float | None = None) -> None:
        """Write what is left, close the sink and end the thread.

        The next run would begin anew, with the same sink. A run that is still going
        on is given up, with a warning in the log.

        Parameters
        ----------
        timeout
            Seconds to wait for the sink; None for no limit.

        Raises
        ------
        SinkError
            Something was not written; ``error.records`` are those records.
        SinkWriteError
            The sink is not through in time. Its thread goes on; ``close`` again waits
            for it again.
        """
        with self._lock:
            if self._thread is not None:
                self._put(None)
                self._thread, self._ending = None, self._thread
        if self._ending is not None:
            self._ending.join(timeout)
            if self._ending.is_alive():
                raise SinkWriteError(
                    f"{self._target()} is not through after {timeout} s; what it has "
                    "not written yet waits in memory. close() again waits for it again",
                    context=ErrorContext("SinkSubscriber.close", self._target()),
                )
            self._ending = None
        error, self.error = self.error, None
        failed, self.failed = self.failed, []
        more, self.not_taken = self.not_taken - len(failed), 0
        if error is not None:
            failure = self._failure(error, failed)
            if more > 0:
                failure.add_note(
                    f"{more} more were not kept; the run has them: "
                    "await pipe(run.readings(), sink)"
                )
            raise failure

    def _failure(
        self, error: Exception, failed: list[DaqReading | DaqBlock]
    ) -> SinkError:
        """Return a failure as an error of a sink, with the records it did not take."""
        if isinstance(error, SinkError):
            error.records = list(failed)
            return error
        said = str(error) or type(error).__name__
        failure = SinkWriteError(
            f"the sink failed: {said}; error.records are those it did not take",
            context=ErrorContext("SinkSubscriber", self._target()),
            records=failed,
        )
        failure.__cause__ = error
        return failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _target(self) -> str:
        return str(getattr(self._sink, "target", type(self._sink).__name__))

    # --------------------------------------------------------------------- thread

    def _begin(self) -> None:
        ready = threading.Event()
        before = self._ending
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._work(ready, before)),
            name="sink-subscriber",
            daemon=True,
        )
        self._thread.start()
        ready.wait()

    def _put(self, item: Any) -> None:
        assert self._loop is not None
        assert self._queue is not None
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def _work(
        self, ready: threading.Event, before: threading.Thread | None
    ) -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._loop, self._queue = asyncio.get_running_loop(), queue
        ready.set()
        if before is not None:
            # It closes the sink, which is opened again here.
            await asyncio.to_thread(before.join)
        more = True
        while more:
            items = [await queue.get()]
            while not queue.empty():
                items.append(queue.get_nowait())
            more = None not in items
            await self._take(items)
            with self._lock:
                self._waiting -= sum(
                    type(i) is tuple and i[0] in WITHOUT_END for i in items
                )
        if self._opened:
            try:
                await self._sink.close()
            except BaseException as error:
                self._note(error, [])
            self._opened = False
        going_on = self._records.give_up()
        if going_on:
            extra = {"target": self._target(), "runs": going_on}
            logger.warning("sinks.subscriber.closed_during_run", extra=extra)

    async def _take(self, items: list[Any]) -> None:
        """Write the records of documents, those that came together as one batch."""
        readings: list[DaqReading] = []
        for item in items:
            if isinstance(item, threading.Event):
                await self._write(readings)
                readings = []
                item.set()
            elif item is not None:
                try:
                    for record in self._records(*item):
                        if isinstance(record, DaqReading):
                            readings.append(record)
                        else:
                            await self._write_block(record)
                except BaseException as error:
                    # A document that cannot be understood, a file that is away.
                    self._note(error, [])
        await self._write(readings)

    async def _open(self) -> None:
        if not self._opened:
            await self._sink.open()
            self._opened = True

    async def _write(self, readings: list[DaqReading]) -> None:
        if readings:
            try:
                await self._open()
                await self._sink.write_many(readings)
            except BaseException as error:
                self._note(error, readings)

    async def _write_block(self, block: DaqBlock) -> None:
        try:
            await self._open()
            await self._sink.write(block)
        except BaseException as error:
            self._note(error, [block])

    def _note(self, error: BaseException, records: list[Any]) -> None:
        # Whatever it is: nobody else hears of it, and the thread has to go on.
        with self._lock:
            self.failed += records[: max(0, self._max_kept - len(self.failed))]
            self.not_taken += len(records)
        if not isinstance(error, Exception):
            cause = error
            error = SinkWriteError(
                f"the sink was ended by {type(cause).__name__}",
                context=ErrorContext("SinkSubscriber", self._target()),
            )
            error.__cause__ = cause
        self.error = self.error or error
        # Of what goes on failing a line is enough, without its traceback.
        said, self._said = self._said, f"{type(error).__name__}: {error}"
        logger.error(
            "sinks.subscriber.failed",
            extra={
                "target": self._target(),
                "reason": self._said,
                "records_not_taken": len(records),
            },
            exc_info=None if self._said == said else error,
        )


def _holds_both(sink: Any) -> bool:
    """Return whether readings and blocks have places of their own in a sink."""
    return bool(getattr(sink, "holds_both", True))
