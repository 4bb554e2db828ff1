"""What a sink is, and the life that all of ours share: open, write, close, open again.

========== =========================== ============================================
state      ``open()``                  ``write…()``, ``close()``
========== =========================== ============================================
new        opens                       write: SinkStateError; close: nothing
open       nothing                     write: writes; close: closes
closed     goes on after what is there write: SinkStateError; close: nothing
========== =========================== ============================================
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from bluesky_beamtime.errors import (
    ErrorContext,
    SinkError,
    SinkStateError,
    SinkWriteError,
)
from bluesky_beamtime.sinks.misuse import AsyncOnly
from bluesky_beamtime.sinks.records import DaqBlock, DaqReading

logger = logging.getLogger("bluesky_beamtime.sinks")
_T = TypeVar("_T")


class _Opens(Protocol):
    """The part of a sink's life that all three kinds share."""

    async def open(self) -> None:
        """Open; nothing if it is open."""
        ...

    async def close(self) -> None:
        """Close; nothing if it is not open."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class ReadingSink(_Opens, Protocol):
    """Takes readings."""

    async def write_many(self, items: Sequence[DaqReading]) -> None:
        """Write readings: all of them, or none and an error."""
        ...


@runtime_checkable
class BlockSink(_Opens, Protocol):
    """Takes blocks of samples."""

    async def write(self, block: DaqBlock) -> None:
        """Write one block: all of it, or nothing and an error."""
        ...


@runtime_checkable
class RawBlockSink(_Opens, Protocol):
    """Takes the converter's own numbers of blocks.

    A protocol of its own, so that a type checker finds a sink of raw numbers where
    one of units was meant.
    """

    async def write_raw(self, block: DaqBlock) -> None:
        """Write the raw codes of one block: all of them, or nothing and an error."""
        ...


class ThreadedSink(AsyncOnly, ABC):
    """A sink that works in one thread of its own, call after call.

    The event loop goes on meanwhile, and calls from several tasks come one after the
    other, in the order in which they were made. A call that is cancelled is still
    carried out, and logged if it fails; an ``open`` that is cancelled leaves it closed.

    Attributes
    ----------
    kind : str
        The word for it in the names of log messages.
    """

    kind = "sink"

    def __init__(self) -> None:
        self._is_open = False
        self._was_open = False
        self._worker: ThreadPoolExecutor | None = None
        self._life = threading.Lock()

    # ------------------------------------------------------------ what a sink adds

    @property
    @abstractmethod
    def target(self) -> str:
        """Where it writes to, for messages; never with a password."""

    @abstractmethod
    def _open(self, again: bool) -> None:
        """Open in the sink's thread; ``again`` after a close."""

    @abstractmethod
    def _close(self) -> None:
        """Close in the sink's thread; called once for each open."""

    def _flush(self) -> None:
        """Bring what was written to the device."""

    # --------------------------------------------------------------------- life

    @property
    def is_open(self) -> bool:
        """Whether it takes records."""
        return self._is_open

    async def open(self) -> None:
        """Open; nothing if it is open. After ``close``, go on after what is there.

        Raises
        ------
        SinkWriteError
            It cannot be opened, or a file is in the way.
        SinkDependencyError
            A package is missing; the message names the extra.
        """
        was_open = self._is_open
        try:
            await self._in_thread("open", self._open_once)
        except asyncio.CancelledError:
            if not was_open:
                # The thread opens it all the same, and nobody would close it. What
                # is asked for next waits behind that.
                self._submit("close", self._close_once)
            raise
        except BaseException:
            if not self._is_open:
                self._end_worker()
            raise

    def _open_once(self) -> None:
        if not self._is_open:
            self._open(self._was_open)
            self._is_open = self._was_open = True
            logger.info(f"sinks.{self.kind}.open", extra={"target": self.target})

    async def close(self) -> None:
        """Close, with everything on the device; nothing if it is not open.

        Raises
        ------
        SinkWriteError
            The last of it could not be written.
        """
        if self._worker is None and not self._is_open:
            return
        try:
            await self._in_thread("close", self._close_once)
        finally:
            self._end_worker()

    def _end_worker(self) -> None:
        with self._life:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False)

    def _close_once(self) -> None:
        if self._is_open:
            self._is_open = False
            self._close()
            extra = {"target": self.target, **self._counts()}
            logger.info(f"sinks.{self.kind}.close", extra=extra)

    def _counts(self) -> dict[str, Any]:
        """Return what the log says at ``close``."""
        return {}

    async def flush(self) -> None:
        """Bring what was written to the device: it survives a power cut then.

        Raises
        ------
        SinkStateError
            It is not open.
        SinkWriteError
            The device refused.
        """
        await self._work("flush", self._flush)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --------------------------------------------------------------------- work

    def check_open(self, operation: str, records: Sequence[Any] = ()) -> None:
        """Refuse a call that needs an open sink.

        Raises
        ------
        SinkStateError
            It is not open; carries the records.
        """
        if self._is_open:
            return
        name = type(self).__name__
        when = "after close()" if self._was_open else "before open()"
        raise SinkStateError(
            f"{name}: {operation} called {when}; nothing was written. Use it as "
            f"'async with {name}(…) as sink', or call open()",
            context=ErrorContext(f"{name}.{operation}", self.target),
            records=records,
        )

    async def _work(
        self,
        operation: str,
        function: Callable[..., _T],
        *args: Any,
        records: Sequence[Any] = (),
    ) -> _T:
        """Run in the sink's thread, with errors of the tree that carry the records."""
        self.check_open(operation, records)

        def work() -> _T:
            # Another task may have closed it meanwhile.
            self.check_open(operation, records)
            return function(*args)

        return await self._in_thread(operation, work, records)

    async def _in_thread(
        self,
        operation: str,
        function: Callable[[], _T],
        records: Sequence[Any] = (),
    ) -> _T:
        future = self._submit(operation, function, records)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[_T] = loop.create_future()

        def tell(future: Future[_T]) -> None:
            # A loop that was closed meanwhile has nobody who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_hand_over, future, waiter)

        future.add_done_callback(tell)
        try:
            # Not `wrap_future`: to cancel that drops a call which waits for its turn.
            return await waiter
        except asyncio.CancelledError:
            future.add_done_callback(self._tell_if_failed)
            raise

    def _submit(
        self,
        operation: str,
        function: Callable[[], _T],
        records: Sequence[Any] = (),
    ) -> Future[_T]:
        with self._life:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(
                    1, thread_name_prefix=f"{self.kind}-sink"
                )
            return self._worker.submit(self._explain, operation, function, records)

    def _tell_if_failed(self, future: Future[Any]) -> None:
        """Log what failed after whoever asked for it was cancelled."""
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.error(
                f"sinks.{self.kind}.failed_after_cancel",
                extra={"target": self.target},
                exc_info=error,
            )

    def _context(self, operation: str) -> ErrorContext:
        return ErrorContext(f"{type(self).__name__}.{operation}", self.target)

    def _explain(
        self, operation: str, function: Callable[[], _T], records: Sequence[Any]
    ) -> _T:
        """Call a function; what it raises is of the tree, and carries the records."""
        try:
            return function()
        except SinkError as error:
            error.context = self._context(operation)
            error.records = error.records or list(records)
            raise
        except MemoryError:
            raise
        except Exception as error:
            context = self._context(operation)
            raise SinkWriteError(
                f"{context.operation} failed for {self.target}: {error}. "
                + ("Nothing of this batch was written; " if records else "")
                + "mend the cause, then "
                + ("write error.records again" if records else "try again"),
                context=context,
                records=records,
                errno=getattr(error, "errno", None),
                filename=getattr(error, "filename", None),
            ) from error


def _hand_over(done: Future[_T], waiter: asyncio.Future[_T]) -> None:
    if waiter.done():
        return
    if (error := done.exception()) is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(done.result())
